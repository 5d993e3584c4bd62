#!/usr/bin/env python3
"""Reads every operation of the local AWS with Amazon's own Python client.

    python tests/boto3_check.py PATH-OF-THE-BINARY-local-aws

Starts the binary on a free port and runs every operation, filter, page token and error through
boto3. Every field of a response in botocore's model of EC2 must be returned at least once, and no
other field may be; of an AMI, only the fields that the local AWS models. Ends with status 1 at the
first difference.
"""

import datetime
import fnmatch
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
import xml.etree.ElementTree as ElementTree

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

ACCOUNT, OTHER_ACCOUNT = "111122223333", "444455556666"
REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-2"]
NOW = datetime.datetime(2026, 11, 22, 6, 0, tzinfo=datetime.timezone.utc)
REPORTS = 120
# Of these, the ones about the AMIs that `--verdicts` adds.
REPORTS_OF_VERDICTS = 20
MODEL = botocore.session.get_session().get_service_model("ec2")

passed = 0
xml_paths = {}
remembering = True


def check(what, given, wanted=True):
    global passed
    if given != wanted:
        if isinstance(given, list) and isinstance(wanted, list) and len(given) == len(wanted):
            index, (given, wanted) = next(
                (n, pair) for n, pair in enumerate(zip(given, wanted)) if pair[0] != pair[1]
            )
            what += f", number {index}"
        sys.exit(f"boto3 check failed: {what}\n  given:  {given!r:.2000}\n  wanted: {wanted!r:.2000}")
    passed += 1


def error_of(call, **parameters):
    """Returns (code, HTTP status) of a call that must fail."""
    try:
        call(**parameters)
    except ClientError as error:
        response = error.response
        check("an error has a request ID", bool(response["ResponseMetadata"].get("RequestId")))
        return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]
    return None


class Aws:
    def __init__(self, binary, s3_root):
        command = [binary, "--bucket", "archive", "--s3-root", s3_root, "--verdicts"]
        command += ["--reports", str(REPORTS - REPORTS_OF_VERDICTS)]
        command += ["--accounts", f"{ACCOUNT},{OTHER_ACCOUNT}", "--organization", "--role", "auditor"]
        command += ["--external-id", "secret", "--now", NOW.isoformat(), "--max-seconds", "120"]
        self.program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.started = json.loads(self.program.stdout.readline())
        self.endpoint = self.started["endpoint"]

    def client(self, service, region=REGIONS[0], credentials=None):
        keys = credentials or {"AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": "secret"}
        client = boto3.client(
            service,
            region_name=region,
            endpoint_url=self.endpoint,
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys.get("SessionToken"),
            config=Config(
                retries={"total_max_attempts": 1},
                read_timeout=10,
                parameter_validation=False,
                s3={"addressing_style": "path"},
            ),
        )
        if service == "ec2":
            client.meta.events.register("before-parse.ec2.*", remember_elements)
        return client

    def ask(self, method, path, body=None):
        request = urllib.request.Request(f"{self.endpoint}/_local-aws/{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def faults(self, *lines):
        self.ask("DELETE", "faults")
        self.ask("POST", "faults", "\n".join(lines).encode())


def remember_elements(operation_model, response_dict, **_):
    """Records the path of every element of a successful response, before botocore drops any."""
    if response_dict["status_code"] != 200 or not remembering:
        return
    found = xml_paths.setdefault(operation_model.name, set())

    def walk(element, path):
        for child in element:
            child_path = f"{path}/{child.tag.rsplit('}', 1)[-1]}"
            found.add(child_path)
            walk(child, child_path)

    root = ElementTree.fromstring(response_dict["body"])
    check("the namespace is EC2's", root.tag.startswith("{http://ec2.amazonaws.com/doc/2016-11-15/}"))
    walk(root, "")


def elements_of_model(shape, path=""):
    """Yields the path of every element in the model."""
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            member_path = f"{path}/{member.serialization.get('name', name)}"
            yield member_path
            yield from elements_of_model(member, member_path)
    elif shape.type_name == "list":
        member_path = f"{path}/{shape.member.serialization.get('name', 'item')}"
        yield member_path
        yield from elements_of_model(shape.member, member_path)


def stamp(time):
    time = time.astimezone(datetime.timezone.utc)
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"


def normal(report):
    """Converts a report of boto3 to the control requests' format."""
    return {
        "image_id": report.get("ImageId"),
        "report_id": report.get("ReportId"),
        "resource_types": [
            {
                "resource_type": kind.get("ResourceType"),
                "options": [
                    {"name": option.get("OptionName"), "values": option.get("OptionValues", [])}
                    for option in kind.get("ResourceTypeOptions", [])
                ],
            }
            for kind in report.get("ResourceTypes", [])
        ],
        "account_ids": report.get("AccountIds", []),
        "state": report.get("State"),
        "state_reason": report.get("StateReason"),
        "creation_time": stamp(report["CreationTime"]) if "CreationTime" in report else None,
        "expiration_time": stamp(report["ExpirationTime"]) if "ExpirationTime" in report else None,
        "tags": [{"key": tag.get("Key"), "value": tag.get("Value")} for tag in report.get("Tags", [])],
    }


def every_report(ec2, **parameters):
    reports, pages, token = [], 0, {}
    while True:
        answer = ec2.describe_image_usage_reports(**parameters, **token)
        reports += answer["ImageUsageReports"]
        pages += 1
        if not answer.get("NextToken"):
            return reports, pages
        token = {"NextToken": answer["NextToken"]}


def held(aws, region, account=ACCOUNT):
    reports = aws.ask("GET", f"reports?account_id={account}&region={region}")
    return [{k: v for k, v in report.items() if k != "entries"} for report in reports], reports


def check_reports(aws):
    for region in REGIONS:
        ec2 = aws.client("ec2", region)
        wanted, _ = held(aws, region)
        check(f"{region} holds its reports", len(wanted), REPORTS)
        for size, pages in ((None, 1), (7, 18), (40, 3), (1000, 1)):
            reports, read = every_report(ec2, **({"MaxResults": size} if size else {}))
            check(f"reports of {region} in pages of {size}", [normal(r) for r in reports], wanted)
            check(f"pages of {size}", read, pages)
        findings = aws.started["accounts"][ACCOUNT][region]["findings"]
        check(f"{region} shows every finding", all(findings.values()) and len(findings) == 6)
        paginator = ec2.get_paginator("describe_image_usage_reports")
        pages = paginator.paginate(PaginationConfig={"PageSize": 50})
        check("botocore's paginator", sum(len(p["ImageUsageReports"]) for p in pages), REPORTS)

    ec2 = aws.client("ec2")
    wanted, _ = held(aws, REGIONS[0])

    def listed(**parameters):
        reports, _ = every_report(ec2, MaxResults=50, **parameters)
        return [report.get("ReportId") for report in reports]

    def expected(condition):
        return [report["report_id"] for report in wanted if condition(report)]

    def filtered(*filters):
        return listed(Filters=[{"Name": name, "Values": values} for name, values in filters])

    ids = [report["report_id"] for report in wanted]
    check("report IDs", listed(ReportIds=[ids[5], ids[2]]), [ids[2], ids[5]])
    images = [wanted[3]["image_id"], "ami-00000000000000000"]
    check("image IDs", listed(ImageIds=images), expected(lambda r: r["image_id"] in images))
    for values in (["error"], ["error", "pending"], ["av*"], ["?rror"], ["Error"], ["\\*"]):
        check(
            f"state {values}",
            filtered(("state", values)),
            expected(lambda r: any(fnmatch.fnmatchcase(r["state"] or "", v) for v in values)),
        )
    day = wanted[0]["creation_time"][:10]
    check(
        "creation time of a day",
        filtered(("creation-time", [f"{day}T*"])),
        expected(lambda r: r["creation_time"].startswith(day)),
    )
    check("creation time", filtered(("creation-time", [wanted[4]["creation_time"]])), [ids[4]])

    def tagged(report, key, value=None):
        return any(t["key"] == key and value in (None, t["value"]) for t in report["tags"])

    check("tag", filtered(("tag:Owner", ["TeamA"])), expected(lambda r: tagged(r, "Owner", "TeamA")))
    check("tag of the other case", filtered(("tag:owner", ["teama"])), expected(lambda r: tagged(r, "owner")))
    check("tag wildcard", filtered(("tag:Owner", ["Team?"])), expected(
        lambda r: tagged(r, "Owner", "TeamA") or tagged(r, "Owner", "TeamB")))
    check("tag key", filtered(("tag-key", ["Owner"])), expected(lambda r: tagged(r, "Owner")))
    check("tag key in Unicode", filtered(("tag-key", ["Kosten* 💶"])), [ids[0]])
    check(
        "two filters",
        filtered(("state", ["error", "pending"]), ("tag:Owner", ["TeamA"])),
        expected(lambda r: r["state"] in ("error", "pending") and tagged(r, "Owner", "TeamA")),
    )
    check("odd characters", wanted[0]["tags"][2]["value"], "says \"don't\" & <waits>\tfor\nyou")


def check_refusals(aws):
    ec2 = aws.client("ec2")
    describe = ec2.describe_image_usage_reports
    invalid = ("InvalidParameterValue", 400)
    too_many = [f"amiur-{n}" for n in range(201)]
    check("201 report IDs", error_of(describe, ReportIds=too_many), invalid)
    check("201 image IDs", error_of(describe, ImageIds=too_many), invalid)
    check("200 image IDs", describe(ImageIds=too_many[:200])["ImageUsageReports"], [])
    check("MaxResults of 0", error_of(describe, MaxResults=0), invalid)
    for name in ("image-id", "State", "tag:"):
        unknown = [{"Name": name, "Values": ["x"]}]
        check(f"filter {name}", error_of(describe, Filters=unknown), invalid)
    entries = ec2.describe_image_usage_report_entries
    unknown = [{"Name": "state", "Values": ["x"]}]
    check("filter of entries", error_of(entries, Filters=unknown), invalid)
    not_found = ("InvalidImageUsageReportId.NotFound", 400)
    check("unknown ID", error_of(describe, ReportIds=["amiur-0"]), not_found)
    check("unknown ID of entries", error_of(entries, ReportIds=["amiur-0"]), not_found)
    check("unknown ID to delete", error_of(ec2.delete_image_usage_report, ReportId="amiur-0"), not_found)
    for call, parameters in (
        (describe, {}),
        (entries, {}),
        (ec2.describe_regions, {}),
        (ec2.describe_images, {}),
        (ec2.delete_image_usage_report, {"ReportId": "amiur-0"}),
        (
            ec2.create_image_usage_report,
            {"ImageId": "ami-0123456789abcdef0", "ResourceTypes": [{"ResourceType": "ec2:Instance"}]},
        ),
    ):
        check("dry run", error_of(call, DryRun=True, **parameters), ("DryRunOperation", 412))
    for region in ("ap-east-1", "mars-north-1"):
        disabled = aws.client("ec2", region).describe_image_usage_reports
        check(f"Region {region}", error_of(disabled), ("AuthFailure", 401))
    check("unknown action", error_of(ec2.describe_volumes), ("InvalidAction", 400))

    token = describe(MaxResults=5)["NextToken"]
    expired = ("InvalidPaginationToken", 400)
    check("a token", describe(MaxResults=9, NextToken=token)["ResponseMetadata"]["HTTPStatusCode"], 200)
    check("an invented token", error_of(describe, NextToken="12345"), expired)
    check("a token of another query", error_of(describe, NextToken=token, ImageIds=["ami-1"]), expired)
    other = aws.client("ec2", REGIONS[1]).describe_image_usage_reports
    check("a token of another Region", error_of(other, NextToken=token), expired)
    aws.ask("POST", "clock?advance_seconds=3660")
    check("an expired token", error_of(describe, NextToken=token), expired)


def check_entries(aws):
    ec2 = aws.client("ec2")
    describe = ec2.describe_image_usage_report_entries
    _, reports = held(aws, REGIONS[0])
    wanted = [
        (report["report_id"], report["image_id"], report["creation_time"], entry)
        for report in reports
        if report["state"] == "available"
        for entry in report["entries"]
    ]

    def listed(**parameters):
        found, token = [], {}
        while True:
            answer = describe(MaxResults=11, **parameters, **token)
            for entry in answer["ImageUsageReportEntries"]:
                members = {
                    "resource_type": entry["ResourceType"],
                    "account_id": entry["AccountId"],
                    "usage_count": entry["UsageCount"],
                }
                created = stamp(entry["ReportCreationTime"])
                found.append((entry["ReportId"], entry["ImageId"], created, members))
            if not answer.get("NextToken"):
                return found
            token = {"NextToken": answer["NextToken"]}

    def filtered(name, *values):
        return listed(Filters=[{"Name": name, "Values": list(values)}])

    check("there are entries", len(wanted) > 50)
    check("entries", listed(), wanted)
    one = wanted[20]
    check("entries of a report", listed(ReportIds=[one[0]]), [w for w in wanted if w[0] == one[0]])
    check("entries of an image", listed(ImageIds=[one[1]]), [w for w in wanted if w[1] == one[1]])
    check("entries of a day", filtered("creation-time", one[2][:10] + "*"),
          [w for w in wanted if w[2][:10] == one[2][:10]])
    account = one[3]["account_id"]
    check("entries of an account", filtered("account-id", account),
          [w for w in wanted if w[3]["account_id"] == account])
    check("entries of two types", filtered("resource-type", "ec2:Instance", "imagebuilder:*"),
          [w for w in wanted if w[3]["resource_type"] != "ec2:LaunchTemplate"])
    pending = next(report for report in reports if report["state"] == "pending")
    check("entries of a pending report", listed(ReportIds=[pending["report_id"]]), [])


def check_life(aws):
    ec2 = aws.client("ec2", REGIONS[1])
    request = {
        "ImageId": "ami-0123456789abcdef0",
        "ResourceTypes": [
            {"ResourceType": "ec2:Instance"},
            {
                "ResourceType": "ec2:LaunchTemplate",
                "ResourceTypeOptions": [{"OptionName": "version-depth", "OptionValues": ["100"]}],
            },
        ],
        "AccountIds": ["777788889999"],
        "ClientToken": "once",
        "TagSpecifications": [
            {"ResourceType": "image-usage-report", "Tags": [{"Key": "Owner", "Value": "TeamA & Söhne"}]}
        ],
    }
    create = ec2.create_image_usage_report
    created = create(**request)["ReportId"]
    check("a report ID", bool(re.fullmatch("amiur-[0-9a-f]{17}", created)))
    check("the same client token", create(**request)["ReportId"], created)

    def changed(**parameters):
        return error_of(create, **{**request, "ClientToken": "twice", **parameters})

    check("one pending report of an image", changed(), ("ImageUsageReportLimitExceeded", 400))
    mismatch = error_of(create, **{**request, "ImageId": "ami-0123456789abcdef1"})
    check("another request with the client token", mismatch, ("IdempotentParameterMismatch", 400))
    check("a malformed image ID", changed(ImageId="image"), ("InvalidAMIID.Malformed", 400))
    invalid = ("InvalidParameterValue", 400)
    check("an unknown type", changed(ResourceTypes=[{"ResourceType": "ec2:Volume"}]), invalid)
    for depth in ("0", "10001", "many"):
        options = [{"OptionName": "version-depth", "OptionValues": [depth]}]
        template = {"ResourceType": "ec2:LaunchTemplate", "ResourceTypeOptions": options}
        check(f"a depth of {depth}", changed(ResourceTypes=[template]), invalid)
    instance = {"ResourceType": "ec2:Instance", "ResourceTypeOptions": options}
    check("an option of an instance", changed(ResourceTypes=[instance]), invalid)
    check("an account ID", changed(AccountIds=["1"]), invalid)
    check("a tag of another resource", changed(
        TagSpecifications=[{"ResourceType": "image", "Tags": []}]), invalid)
    check("no type", changed(ResourceTypes=[]), ("MissingParameter", 400))

    def report():
        return ec2.describe_image_usage_reports(ReportIds=[created])["ImageUsageReports"][0]

    check("pending at first", report()["State"], "pending")
    aws.ask("POST", "clock?advance_seconds=301")
    done = report()
    check("available after five minutes", done["State"], "available")
    check("thirty days", done["ExpirationTime"] - done["CreationTime"], datetime.timedelta(days=30))
    for member in ("ImageId", "ResourceTypes", "AccountIds"):
        check(f"{member} as asked for", done[member], request[member])
    check("tags as asked for", done["Tags"], request["TagSpecifications"][0]["Tags"])
    entries = ec2.describe_image_usage_report_entries(ReportIds=[created])["ImageUsageReportEntries"]
    check("entries of the report", {entry["AccountId"] for entry in entries}, {"777788889999"})
    check("deletion", ec2.delete_image_usage_report(ReportId=created)["Return"])
    gone = error_of(ec2.describe_image_usage_reports, ReportIds=[created])
    check("gone", gone, ("InvalidImageUsageReportId.NotFound", 400))


def check_regions(aws):
    ec2 = aws.client("ec2")

    def named(**parameters):
        return sorted(region["RegionName"] for region in ec2.describe_regions(**parameters)["Regions"])

    check("enabled Regions", named(), sorted(REGIONS))
    check("all Regions", named(AllRegions=True), sorted(REGIONS + ["ap-east-1"]))
    check("named Regions", named(RegionNames=["eu-west-1"]), ["eu-west-1"])
    unknown = error_of(ec2.describe_regions, RegionNames=["mars-north-1"])
    check("an unknown Region", unknown, ("InvalidParameterValue", 400))
    for name, value, regions in (
        ("region-name", "*-1", ["eu-west-1", "us-east-1"]),
        ("endpoint", "ec2.ap-southeast-2.*", ["ap-southeast-2"]),
        ("opt-in-status", "opt-in-not-required", sorted(REGIONS)),
    ):
        check(f"filter {name}", named(Filters=[{"Name": name, "Values": [value]}]), regions)
    orders = {tuple(r["RegionName"] for r in ec2.describe_regions()["Regions"]) for _ in range(40)}
    check("the order is not defined", len(orders) > 1)


def check_members(aws):
    for name in (
        "DescribeImageUsageReports",
        "DescribeImageUsageReportEntries",
        "CreateImageUsageReport",
        "DeleteImageUsageReport",
        "DescribeImageReferences",
        "DescribeRegions",
    ):
        wanted = set(elements_of_model(MODEL.operation_model(name).output_shape)) | {"/requestId"}
        check(f"members of {name}", sorted(xml_paths[name]), sorted(wanted))


IMAGE_MEMBERS = {
    "Architecture", "BlockDeviceMappings", "BootMode", "CreationDate", "DeprecationTime", "DeregistrationProtection",
    "Description", "EnaSupport", "Hypervisor", "ImageId", "ImageLocation", "ImageType", "ImdsSupport",
    "LastLaunchedTime", "Name", "OwnerId", "PlatformDetails", "Public", "RootDeviceName", "RootDeviceType",
    "SourceImageId", "SourceImageRegion", "State", "Tags", "UsageOperation", "VirtualizationType",
}


def images_held(aws, region=REGIONS[0], account=ACCOUNT):
    return aws.ask("GET", f"images?account_id={account}&region={region}")


def normal_image(image):
    """Converts an AMI of boto3, as its owner reads it, to the control requests' format."""
    return {
        "image_id": image["ImageId"],
        "name": image.get("Name"),
        "description": image.get("Description"),
        "state": image.get("State"),
        "public": image["Public"],
        "creation_time": image.get("CreationDate"),
        # EC2 writes the time of a launch in whole seconds.
        "last_launched_time": image.get("LastLaunchedTime"),
        "deprecation_time": image.get("DeprecationTime"),
        "deregistration_protection": image.get("DeregistrationProtection"),
        "source_image_id": image.get("SourceImageId"),
        "source_image_region": image.get("SourceImageRegion"),
        "tags": [{"key": tag["Key"], "value": tag["Value"]} for tag in image.get("Tags", [])],
    }


def held_image(image):
    """Returns an AMI that the world holds as its owner should read it."""
    launched = image["last_launched_time"]
    return {k: v for k, v in image.items() if k != "shared_with"} | {
        "last_launched_time": launched and launched.split(".")[0] + "Z"
    }


def check_images(aws):
    ec2 = aws.client("ec2")
    describe = ec2.describe_images
    images = images_held(aws)
    registered = [held_image(image) for image in images if image["state"] != "deregistered"]
    enabled = [image for image in registered if image["state"] != "disabled"]
    check("there is a deregistered AMI", len(registered), len(images) - 1)
    check("there are disabled AMIs", len(enabled) < len(registered))

    def listed(**parameters):
        return [normal_image(image) for image in describe(**parameters)["Images"]]

    def ids(**parameters):
        return [image["ImageId"] for image in describe(**parameters)["Images"]]

    def expected(condition):
        return [image["image_id"] for image in enabled if condition(image)]

    check("own AMIs", listed(Owners=["self"]), enabled)
    check("own AMIs with disabled ones", listed(Owners=["self"], IncludeDisabled=True), registered)
    paginator = ec2.get_paginator("describe_images")
    pages = paginator.paginate(Owners=["self"], IncludeDisabled=True, PaginationConfig={"PageSize": 30})
    pages = [page["Images"] for page in pages]
    check("pages of AMIs", [image["ImageId"] for page in pages for image in page], [i["image_id"] for i in registered])
    check("lengths of the pages", {len(page) for page in pages[:-1]}, {30})

    def filtered(name, *values):
        return ids(Owners=["self"], Filters=[{"Name": name, "Values": list(values)}])

    one = next(image for image in enabled if image["source_image_id"])
    check("filter name", filtered("name", "golden-*"), expected(lambda i: i["name"].startswith("golden-")))
    check("filter state", filtered("state", "available"), expected(lambda i: i["state"] == "available"))
    check("filter is-public", filtered("is-public", "true"), expected(lambda i: i["public"]))
    check("filter owner-id", filtered("owner-id", OTHER_ACCOUNT), [])
    check("filter image-id", filtered("image-id", one["image_id"]), [one["image_id"]])
    check("filter source-image-id", filtered("source-image-id", one["source_image_id"]), [one["image_id"]])
    owned = {"key": "Owner", "value": "TeamA"}
    check("filter tag", filtered("tag:Owner", "*A"), expected(lambda i: owned in i["tags"]))
    check("filter tag-key", filtered("tag-key", "Own*"), expected(lambda i: any(t["key"] == "Owner" for t in i["tags"])))

    others = images_held(aws, account=OTHER_ACCOUNT)
    public = [image["image_id"] for image in others if image["public"]]
    check("public AMIs of another account", ids(Owners=[OTHER_ACCOUNT]), public)
    check("AMIs for all", ids(Owners=[OTHER_ACCOUNT], ExecutableUsers=["all"]), public)
    check("no owner", ids(), [image["image_id"] for image in enabled] + public)
    shared = next(image for image in images if image["shared_with"] and image["state"] == "available")
    check("shared AMIs", shared["image_id"] in ids(ExecutableUsers=shared["shared_with"]))
    foreign = describe(Owners=[OTHER_ACCOUNT])["Images"]
    check("owner's fields", [k for image in foreign for k in ("LastLaunchedTime", "Tags") if k in image], [])
    check("the AMI's owner", {image["OwnerId"] for image in foreign}, {OTHER_ACCOUNT})

    check("an AMI by its ID", ids(ImageIds=[one["image_id"]]), [one["image_id"]])
    gone = next(image["image_id"] for image in images if image["state"] == "deregistered")
    private = next(image["image_id"] for image in others if not image["public"])
    not_found = ("InvalidAMIID.NotFound", 400)
    for image_id in (gone, private, "ami-00000000000000000"):
        check(f"unknown {image_id}", error_of(describe, ImageIds=[image_id]), not_found)
    check("malformed", error_of(describe, ImageIds=["image"]), ("InvalidAMIID.Malformed", 400))
    combined = error_of(describe, ImageIds=[one["image_id"]], MaxResults=5)
    check("an ID with MaxResults", combined, ("InvalidParameterCombination", 400))
    check("an unknown owner", error_of(describe, Owners=["me"]), ("InvalidUserID.Malformed", 400))
    unknown = [{"Name": "volume", "Values": ["x"]}]
    check("an unknown filter of AMIs", error_of(describe, Filters=unknown), ("InvalidParameterValue", 400))
    check("dry run of AMIs", error_of(describe, DryRun=True), ("DryRunOperation", 412))

    token = describe(Owners=["self"], MaxResults=5)["NextToken"]
    expired = ("InvalidPaginationToken", 400)
    check("a token of other owners", error_of(describe, MaxResults=5, NextToken=token), expired)
    members = set().union(*(set(image) for image in describe(Owners=["self"], IncludeDisabled=True)["Images"]))
    check("members of an AMI", members, IMAGE_MEMBERS)
    wanted = set(elements_of_model(MODEL.operation_model("DescribeImages").output_shape)) | {"/requestId"}
    check("only the model's elements", xml_paths["DescribeImages"] - wanted, set())


def check_references(aws):
    ec2 = aws.client("ec2")
    describe = ec2.describe_image_references
    resources = aws.ask("GET", f"resources?account_id={ACCOUNT}&region={REGIONS[0]}")
    image_ids = sorted({image_id for resource in resources for image_id in resource["image_ids"]})
    check("two AMIs have references", len(image_ids), 2)
    wanted = [
        {"ImageId": resource["image_ids"][0], "ResourceType": resource["resource_type"], "Arn": resource["arn"]}
        for resource in resources
    ]
    everything = {"ImageIds": image_ids, "IncludeAllResourceTypes": True}

    def listed(*types, image_ids=image_ids, **parameters):
        types = [
            {"ResourceType": name, "ResourceTypeOptions": [{"OptionName": o, "OptionValues": v} for o, v in options]}
            for name, options in types
        ]
        return describe(ImageIds=image_ids, ResourceTypes=types, **parameters)["ImageReferences"]

    def of(*types):
        return [reference for reference in wanted if reference["ResourceType"] in types]

    check("every reference", describe(**everything)["ImageReferences"], wanted)
    check("five types", len({reference["ResourceType"] for reference in wanted}), 5)
    pages = ec2.get_paginator("describe_image_references").paginate(**everything, PaginationConfig={"PageSize": 5})
    pages = [page["ImageReferences"] for page in pages]
    check("pages of references", [reference for page in pages for reference in page], wanted)
    check("two pages", len(pages), 2)
    for name in ("ec2:Instance", "ec2:LaunchTemplate", "ssm:Parameter", "imagebuilder:ImageRecipe"):
        check(f"references of {name}", listed((name, [])), of(name))
    terminated = [resource["arn"] for resource in resources if resource["state"] == "terminated"]
    running = listed(("ec2:Instance", [("state-name", ["pending", "running", "stopping", "stopped"])]))
    check("there is a terminated instance", len(terminated), 1)
    check("instances by state", running, [r for r in of("ec2:Instance") if r["Arn"] not in terminated])
    deep = [("version-depth", ["10000"])]
    check("templates by depth", listed(("ec2:LaunchTemplate", deep)), of("ec2:LaunchTemplate"))
    overridden = listed(("ec2:Instance", [("state-name", ["running"])]), IncludeAllResourceTypes=True)
    check("an option with all types", overridden, [r for r in wanted if r["Arn"] not in terminated])
    check("references of no AMI", listed(("ec2:Instance", []), image_ids=["ami-00000000000000000"]), [])
    other = aws.client("ec2", REGIONS[1]).describe_image_references
    check("references of another Region", other(**everything)["ImageReferences"], [])

    missing, invalid = ("MissingParameter", 400), ("InvalidParameterValue", 400)
    check("no type of references", error_of(describe, ImageIds=image_ids), missing)
    check("no AMI", error_of(describe, IncludeAllResourceTypes=True), missing)
    eleven = {**everything, "ImageIds": [f"ami-{n:017x}" for n in range(11)]}
    check("eleven AMIs", error_of(describe, **eleven), invalid)
    malformed = error_of(describe, **{**everything, "ImageIds": ["image"]})
    check("a malformed AMI", malformed, ("InvalidAMIID.Malformed", 400))
    check("a page of four", error_of(describe, **everything, MaxResults=4), invalid)
    for types in (
        ("ec2:Volume", []),
        ("ec2:LaunchTemplate", [("version-depth", ["10001"])]),
        ("ec2:Instance", [("state-name", ["gone"])]),
        ("ssm:Parameter", deep),
    ):
        check(f"references of {types}", error_of(lambda: listed(types)), invalid)
    check("dry run of references", error_of(describe, DryRun=True, **everything), ("DryRunOperation", 412))
    aws.faults(f"op=DescribeImageReferences,image={image_ids[1]},kind=denied")
    denied = ("UnauthorizedOperation", 403)
    check("a fault for an AMI", error_of(describe, **everything), denied)
    one = {**everything, "ImageIds": image_ids[:1]}
    check("not for another", describe(**one)["ResponseMetadata"]["HTTPStatusCode"], 200)
    aws.faults("op=DescribeImages,kind=empty-page,nth=0")
    pages = ec2.get_paginator("describe_images").paginate(Owners=["self"], PaginationConfig={"PageSize": 90})
    lengths = [len(page["Images"]) for page in pages]
    check("an empty page of AMIs", (lengths[0], lengths[1]), (0, 90))
    aws.faults()


def check_faults(aws):
    # From here on documents contain unknown elements, or are malformed.
    global remembering
    remembering = False
    ec2 = aws.client("ec2", REGIONS[2])
    describe = ec2.describe_image_usage_reports
    listing = f"op=DescribeImageUsageReports,region={REGIONS[2]}"
    for kind, wanted in (
        ("denied", ("UnauthorizedOperation", 403)),
        ("auth-failure", ("AuthFailure", 401)),
        ("region-disabled", ("AuthFailure", 401)),
        ("throttle", ("RequestLimitExceeded", 503)),
        ("500", ("InternalError", 500)),
        ("503", ("Unavailable", 503)),
        ("expire-credentials", ("RequestExpired", 400)),
        ("error,status=418,code=Teapot,message=short", ("Teapot", 418)),
    ):
        aws.faults(f"{listing},kind={kind}")
        check(f"fault {kind}", error_of(describe), wanted)
        check("another Region is not affected", len(every_report(aws.client("ec2"))[0]), REPORTS)
    aws.faults(f"{listing},kind=denied")
    check("dry run of a denied call", error_of(describe, DryRun=True), ("UnauthorizedOperation", 403))
    check("what was injected is counted", aws.ask("GET", "faults")["injected"] >= 9)

    for kind in ("close", "reset", "cut"):
        aws.faults(f"{listing},kind={kind}")
        try:
            describe()
            broken = False
        except Exception as error:  # The type depends on urllib3.
            broken = not isinstance(error, ClientError)
        check(f"fault {kind}", broken)
    aws.faults(f"{listing},kind=malformed")
    try:
        describe()
        broken = False
    except botocore.parsers.ResponseParserError:
        broken = True
    check("fault malformed", broken)

    aws.faults()
    wanted, _ = every_report(ec2, MaxResults=50)
    ids = [report["ReportId"] for report in wanted]
    for kind, pages in (("empty-page,page=middle", None), ("unknown-members", 3), ("cdata", 3), ("latency,ms=5", 3), ("empty-token", 3)):
        # An empty page shifts the numbers of later pages: only one may be empty.
        first = ",first=1" if pages is None else ""
        aws.faults(f"{listing},kind={kind.split(',page')[0]}{first}")
        reports, read = every_report(ec2, MaxResults=50)
        check(f"reports with {kind}", reports, wanted)
        check(f"pages with {kind}", read, pages or 4)
    aws.faults(f"{listing},kind=duplicate-report,page=first")
    reports, _ = every_report(ec2, MaxResults=50)
    check("a doubled report", [r["ReportId"] for r in reports], ids[:50] + ids[49:50] + ids[49:])
    aws.faults(f"{listing},kind=bare-report")
    reports, _ = every_report(ec2)
    check("a bare report", reports, wanted + [{}])
    aws.faults(f"{listing},kind=repeat-token,page=1")
    first = describe(MaxResults=50)
    check("a repeated token", describe(MaxResults=50, NextToken=first["NextToken"])["NextToken"], first["NextToken"])
    aws.faults(f"{listing},kind=expire-token,nth=0")
    second = {"MaxResults": 50, "NextToken": first["NextToken"]}
    check("an expired token", error_of(describe, **second), ("InvalidPaginationToken", 400))
    check("only once", len(describe(**second)["ImageUsageReports"]), 50)
    aws.faults(f"{listing},kind=token-bucket")
    codes = {error_of(describe, DryRun=True) for _ in range(130)}
    check("token buckets", codes, {("DryRunOperation", 412), ("RequestLimitExceeded", 503)})
    aws.faults()


def check_accounts(aws):
    sts = aws.client("sts")
    identity = sts.get_caller_identity()
    check("identity", (identity["Account"], identity["Arn"]), (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/local"))
    by_key = {"AccessKeyId": f"AKIA{OTHER_ACCOUNT}LOCA", "SecretAccessKey": "x"}
    check("account of a key", aws.client("sts", credentials=by_key).get_caller_identity()["Account"], OTHER_ACCOUNT)
    role = f"arn:aws:iam::{OTHER_ACCOUNT}:role/auditor"
    request = {"RoleArn": role, "RoleSessionName": "check", "ExternalId": "secret", "DurationSeconds": 900}
    assume = sts.assume_role
    denied = ("AccessDenied", 403)
    check("wrong external ID", error_of(assume, **{**request, "ExternalId": "x"}), denied)
    check("unknown role", error_of(assume, **{**request, "RoleArn": role + "x"}), denied)
    unknown = "arn:aws:iam::999999999999:role/auditor"
    check("unknown account", error_of(assume, **{**request, "RoleArn": unknown}), denied)
    invalid = ("ValidationError", 400)
    check("too short", error_of(assume, **{**request, "DurationSeconds": 899}), invalid)
    check("no name", error_of(assume, **{**request, "RoleSessionName": "a b"}), invalid)
    assumed = assume(**request)
    credentials = assumed["Credentials"]
    arn = f"arn:aws:sts::{OTHER_ACCOUNT}:assumed-role/auditor/check"
    check("assumed role", assumed["AssumedRoleUser"]["Arn"], arn)
    check("identity of the role", aws.client("sts", credentials=credentials).get_caller_identity()["Arn"], arn)
    ec2 = aws.client("ec2", credentials=credentials)
    reports, _ = every_report(ec2)
    check("reports of the other account", [normal(r) for r in reports], held(aws, REGIONS[0], OTHER_ACCOUNT)[0])
    check("the accounts differ", reports[0]["ReportId"] != every_report(aws.client("ec2"))[0][0]["ReportId"])

    organizations = aws.client("organizations")
    accounts = organizations.list_accounts()["Accounts"]
    check("accounts", [(a["Id"], a["Status"]) for a in accounts], [(ACCOUNT, "ACTIVE"), (OTHER_ACCOUNT, "ACTIVE")])
    pages = list(organizations.get_paginator("list_accounts").paginate(PaginationConfig={"PageSize": 1}))
    check("pages of accounts", [len(page["Accounts"]) for page in pages], [1, 1])
    members = botocore.session.get_session().get_service_model("organizations").shape_for("Account").members
    check("members of an account", set(accounts[0]) <= set(members))
    other = aws.client("organizations", credentials=credentials)
    check("accounts for another", error_of(other.list_accounts), ("AccessDeniedException", 400))
    check("bad page size", error_of(organizations.list_accounts, MaxResults=21), ("InvalidInputException", 400))

    aws.ask("POST", "clock?advance_seconds=901")
    check("expired: EC2", error_of(ec2.describe_image_usage_reports), ("RequestExpired", 400))
    expired = aws.client("sts", credentials=credentials).get_caller_identity
    check("expired: STS", error_of(expired), ("ExpiredToken", 403))
    expired = aws.client("s3", credentials=credentials).list_objects_v2
    check("expired: S3", error_of(expired, Bucket="archive"), ("ExpiredToken", 400))


def check_archive(aws, s3_root):
    s3 = aws.client("s3")
    # As long as the auditor's longest keys.
    key = "image-usage/v1/reports/dt=2026-11-22/account_id=111122223333/region=ap-southeast-2/20261122T060000Z-7bf73129.jsonl.gz"
    body = bytes(range(256)) * 100
    put = {"Bucket": "archive", "Key": key, "Body": body, "ContentType": "application/x-ndjson", "ContentEncoding": "gzip"}
    etag = s3.put_object(**put, IfNoneMatch="*")["ETag"]
    failed = ("PreconditionFailed", 412)
    check("If-None-Match", error_of(s3.put_object, **put, IfNoneMatch="*"), failed)
    check("If-Match that fails", error_of(s3.put_object, **put, IfMatch='"0"'), failed)
    check("If-Match", s3.put_object(**put, IfMatch=etag)["ETag"], etag)
    got = s3.get_object(Bucket="archive", Key=key)
    check("the object", got["Body"].read(), body)
    check("its headers", (got["ContentType"], got["ContentEncoding"]), ("application/x-ndjson", "gzip"))
    check("the ETag", etag.strip('"'), hashlib.md5(body).hexdigest())
    with open(f"{s3_root}/archive/{key}", "rb") as file:
        check("the file", file.read(), body)
    ranged = s3.get_object(Bucket="archive", Key=key, Range="bytes=10-19")["Body"].read()
    check("a range", ranged, body[10:20])
    check("the length", s3.head_object(Bucket="archive", Key=key)["ContentLength"], len(body))

    for number in range(12):
        s3.put_object(Bucket="archive", Key=f"list/{number:02d}.json", Body=b"{}")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="archive", Prefix="list/", PaginationConfig={"PageSize": 5})
    keys = [[entry["Key"] for entry in page["Contents"]] for page in pages]
    check("lists", [len(page) for page in keys], [5, 5, 2])
    check("no side file is listed", all(key.startswith("list/") for page in keys for key in page))

    parts = [b"a" * (5 << 20), b"b" * 1000]

    def upload(key, **conditions):
        made = s3.create_multipart_upload(Bucket="archive", Key=key, ContentType="text/plain", Metadata={"of": "parts"})
        target = {"Bucket": "archive", "Key": key, "UploadId": made["UploadId"]}
        etags = [s3.upload_part(**target, PartNumber=n, Body=part)["ETag"] for n, part in enumerate(parts, 1)]
        listed = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]
        return s3.complete_multipart_upload, {**target, "MultipartUpload": {"Parts": listed}, **conditions}

    complete, request = upload(key + ".parts", IfNoneMatch="*")
    complete(**request)
    got = s3.get_object(Bucket="archive", Key=key + ".parts")
    check("the parts", got["Body"].read() == b"".join(parts))
    check("headers of an upload", (got["ContentType"], got["Metadata"]), ("text/plain", {"of": "parts"}))
    check("completed twice", error_of(complete, **request), ("NoSuchUpload", 404))
    complete, request = upload(key + ".parts", IfNoneMatch="*")
    check("condition of an upload", error_of(complete, **request), failed)
    del request["MultipartUpload"], request["IfNoneMatch"]
    s3.abort_multipart_upload(**request)
    check("aborted twice", error_of(s3.abort_multipart_upload, **request), ("NoSuchUpload", 404))
    complete, request = upload(key)
    complete(**request)
    check("an upload over an object", s3.get_object(Bucket="archive", Key=key)["Body"].read() == b"".join(parts))

    missing = ("NoSuchBucket", 404)
    check("no bucket to put to", error_of(s3.put_object, Bucket="nowhere", Key="k", Body=b""), missing)
    check("no bucket to get from", error_of(s3.get_object, Bucket="nowhere", Key="k"), missing)
    check("no bucket to upload to", error_of(s3.create_multipart_upload, Bucket="nowhere", Key="k"), missing)
    check("no bucket to list", error_of(s3.list_objects_v2, Bucket="nowhere"), missing)
    check("no bucket for HeadBucket", error_of(s3.head_bucket, Bucket="nowhere"), ("404", 404))
    check("no key", error_of(s3.get_object, Bucket="archive", Key="k"), ("NoSuchKey", 404))
    check("a prefix is no key", error_of(s3.get_object, Bucket="archive", Key="list"), ("NoSuchKey", 404))
    check("no key for HeadObject", error_of(s3.head_object, Bucket="archive", Key="k"), ("404", 404))

    put = {"Bucket": "archive", "Key": "fault/k", "Body": b"1"}
    for kind, wanted in (
        ("denied", ("AccessDenied", 403)),
        ("500", ("InternalError", 500)),
        ("503", ("SlowDown", 503)),
        ("conflict", ("ConditionalRequestConflict", 409)),
        ("precondition", failed),
    ):
        aws.faults(f"service=s3,op=PutObject,key=fault/,kind={kind}")
        check(f"fault {kind}", error_of(s3.put_object, **put), wanted)
    check("nothing was stored", error_of(s3.get_object, Bucket="archive", Key="fault/k"), ("NoSuchKey", 404))
    aws.faults("op=PutObject,kind=close,after=true,nth=0")
    try:
        s3.put_object(**put, IfNoneMatch="*")
        lost = False
    except ConnectionClosedError:
        lost = True
    check("the response is lost", lost)
    check("the object is stored", s3.get_object(Bucket="archive", Key="fault/k")["Body"].read(), b"1")
    check("the retry fails", error_of(s3.put_object, **put, IfNoneMatch="*"), failed)
    aws.faults()
    s3.delete_object(Bucket="archive", Key="fault/k")
    check("deleted", error_of(s3.get_object, Bucket="archive", Key="fault/k"), ("NoSuchKey", 404))

    calls = aws.ask("GET", "calls")
    operations = {call["operation"] for call in calls if call["service"] == "s3"}
    check("the log names the operations", operations >= {
        "PutObject", "GetObject", "HeadObject", "ListObjectsV2", "CreateMultipartUpload", "UploadPart",
        "CompleteMultipartUpload", "AbortMultipartUpload", "DeleteObject", "HeadBucket"})
    check("the log names none unknown", "Unknown" not in operations)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="boto3-check-") as s3_root:
        aws = Aws(sys.argv[1], s3_root)
        try:
            check_reports(aws)
            check_entries(aws)
            check_regions(aws)
            check_life(aws)
            check_images(aws)
            check_references(aws)
            check_members(aws)
            check_faults(aws)
            check_accounts(aws)
            check_archive(aws, s3_root)
            check_refusals(aws)
        finally:
            aws.program.kill()
            aws.program.wait()
    print(f"boto3 check: {passed} checks passed")


if __name__ == "__main__":
    main()
