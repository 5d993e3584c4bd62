#!/usr/bin/env python3
"""Runs the function against a bucket with versions, which the local AWS does not have.

    .tools/moto/bin/python tests/versions_check.py FOLDER-OF-THE-BINARIES

EC2 is the local AWS, S3 is moto. Checks that every snapshot, and every object that a snapshot names, is
stored under the version that is named, regardless of what other attempts at the run have written.
"""

import datetime
import gzip
import hashlib
import json
import logging
import sys
import tempfile
import threading
from pathlib import Path

import boto3
from botocore.config import Config
from function import ACCOUNT, Function, LocalAws, scheduled_event
from moto.server import ThreadedMotoServer

PREFIX = "image-usage/v1/"
REGIONS = ["ap-southeast-2", "eu-west-1", "us-east-1"]
IMAGE = "ami-0abcdef1234567890"

passed = 0


def check(what, given, wanted=True):
    global passed
    if given != wanted:
        sys.exit(f"versions check failed: {what}\n  given:  {given!r:.2000}\n  wanted: {wanted!r:.2000}")
    passed += 1


class Services:
    """The local AWS and moto, and functions that use them."""

    def __init__(self, binaries, folder):
        self.binaries = Path(binaries)
        self.log = (Path(folder) / "log").open("w")
        self.aws = LocalAws(
            self.binaries / "local-aws",
            *("--regions", ",".join(REGIONS), "--reports", 60, "--s3-root", Path(folder) / "s3", "--max-seconds", 300),
        )
        self.moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        # Its log of requests would hide everything else.
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.moto.start()
        host, port = self.moto.get_host_and_port()
        self.s3_endpoint = f"http://{host}:{port}"
        keys = {"aws_access_key_id": f"AKIA{ACCOUNT}", "aws_secret_access_key": "secret"}
        direct = Config(proxies={}, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
        self.s3 = boto3.client("s3", region_name="us-east-1", endpoint_url=self.s3_endpoint, config=direct, **keys)
        self.ec2 = boto3.client("ec2", region_name="eu-west-1", endpoint_url=self.aws.endpoint, config=direct, **keys)
        self.use_bucket("archive")
        self.set_versions("Enabled")
        self.runs = 0
        self.begun = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=2)

    def use_bucket(self, name, **options):
        self.bucket = name
        self.s3.create_bucket(Bucket=name, **options)

    def set_versions(self, status):
        self.s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": status})

    def function(self):
        return Function(
            self.aws,
            self.binaries / "image-usage-auditor",
            self.log,
            AWS_ENDPOINT_URL=self.aws.endpoint,
            AWS_ENDPOINT_URL_S3=self.s3_endpoint,
            AUDITOR_ARCHIVE_BUCKET=self.bucket,
            AUDITOR_REGIONS=",".join(REGIONS),
            AUDITOR_PAGE_SIZE="25",
        )

    def event(self):
        self.runs += 1
        return scheduled_event(self.runs, f"{self.scheduled_at():%Y-%m-%dT%H:%M:%SZ}")

    def scheduled_at(self):
        """Returns the time of the latest event: close to now, because any other time is that of a sample."""
        return self.begun + datetime.timedelta(minutes=self.runs)

    def change_facts(self):
        self.ec2.create_image_usage_report(ImageId=f"ami-{self.runs:017x}", ResourceTypes=[{"ResourceType": "ec2:Instance"}])

    def read(self, key, version):
        named = {"VersionId": version} if version else {}
        return self.s3.get_object(Bucket=self.bucket, Key=key, **named)["Body"].read()

    def versions(self, key):
        listed = self.s3.list_object_versions(Bucket=self.bucket, Prefix=key)
        return [entry["VersionId"] for entry in listed.get("Versions", [])]

    def data_keys(self, run_id):
        listed = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=PREFIX + "reports/")
        return [entry["Key"] for entry in listed.get("Contents", []) if run_id in entry["Key"]]

    def check_run(self, what, summary):
        """Checks that every version that the summary and the snapshot name has the bytes that they describe."""
        named = summary["snapshot"]
        document = self.read(named["key"], named["version_id"])
        check(f"{what}: the snapshot's digest", hashlib.sha256(document).hexdigest(), named["sha256"])
        check(f"{what}: one version of the snapshot", len(self.versions(named["key"])), 1)
        snapshot = json.loads(document)
        check(f"{what}: status", snapshot["status"], "complete")
        check(f"{what}: counts", snapshot["counts"], summary["counts"])
        for target in snapshot["targets"]:
            archived = target["object"]
            content = self.read(archived["key"], archived["version_id"])
            found = (hashlib.sha256(content).hexdigest(), len(content), len(gzip.decompress(content).splitlines()))
            check(f"{what}: {target['region']}", found, (archived["sha256"], archived["bytes"], archived["lines"]))
        latest = self.s3.get_object(Bucket=self.bucket, Key=PREFIX + "latest.json")["Body"].read()
        check(f"{what}: the latest", latest, document)
        return snapshot

    def die_before_snapshot(self, event):
        """Kills an attempt after it has archived the reports of two Regions. Returns their keys."""
        # The local AWS delays the third Region for longer than the others take.
        run = f"{self.scheduled_at():%Y%m%dT%H%M%SZ}"
        check("objects before the attempt", self.data_keys(run), [])
        self.aws.ask("POST", "faults", "op=DescribeImageUsageReports,region=us-east-1,kind=latency,ms=60000")
        function = self.function()
        function.hand_over(event)
        wait_for(lambda: len(self.data_keys(run)) == 2)
        function.kill()
        self.aws.ask("DELETE", "faults")
        return self.data_keys(run)


def wait_for(happened, seconds=30):
    waiting = threading.Event()
    for _ in range(seconds * 50):
        if happened():
            return
        waiting.wait(0.02)
    sys.exit(f"versions check failed: not within {seconds} seconds")


def run(services, event):
    function = services.function()
    try:
        outcome = function.invoke(event)
    finally:
        function.kill()
    check(f"answer {outcome['payload']}", outcome["kind"], "response")
    return outcome["payload"]


def check_one_attempt(services):
    event = services.event()
    summary = run(services, event)
    snapshot = services.check_run("one attempt", summary)
    check("a version is named", all(target["object"]["version_id"] for target in snapshot["targets"]))
    again = run(services, event)
    check("again", (again["snapshot"], again["already_archived"]), (summary["snapshot"], True))


def check_death(services, changes):
    event = services.event()
    keys = services.die_before_snapshot(event)
    if changes:
        services.change_facts()
    what = f"after a killed attempt, reports {'changed' if changes else 'unchanged'}"
    snapshot = services.check_run(what, run(services, event))
    named = [target["object"]["key"] for target in snapshot["targets"]]
    check(f"{what}: the objects of the killed attempt are not named", set(keys) & set(named), set())
    check(f"{what}: every object has one version", [len(services.versions(key)) for key in keys + named], [1] * 5)
    check(f"{what}: no object is lost", set(keys) <= set(services.data_keys(snapshot["run_id"])))


def check_two_at_once(services):
    event = services.event()
    services.aws.ask("POST", "faults", "op=DescribeImageUsageReports,kind=latency,ms=50,p=0.5,seed=3")
    functions = [services.function(), services.function()]
    outcomes = [function.hand_over(event) for function in functions]
    services.change_facts()
    answers = [outcome.result(timeout=60) for outcome in outcomes]
    for function in functions:
        function.kill()
    services.aws.ask("DELETE", "faults")
    check("both answer", [answer["kind"] for answer in answers], ["response"] * 2)
    summaries = [answer["payload"] for answer in answers]
    check("with one snapshot", summaries[0]["snapshot"], summaries[1]["snapshot"])
    services.check_run("two at once", summaries[0])


def check_suspended(services):
    """With suspended versioning all objects have the version `null`, so no object may be overwritten."""
    services.set_versions("Suspended")
    event = services.event()
    first = run(services, event)
    services.check_run("versions suspended", first)
    event = services.event()
    keys = services.die_before_snapshot(event)
    before = {key: services.s3.get_object(Bucket=services.bucket, Key=key)["Body"].read() for key in keys}
    services.change_facts()
    services.check_run("versions suspended, after a killed attempt", run(services, event))
    after = {key: services.s3.get_object(Bucket=services.bucket, Key=key)["Body"].read() for key in keys}
    check("versions suspended: the objects of the killed attempt are unchanged", after, before)
    services.set_versions("Enabled")


def check_locked(services):
    """Every new version is locked, as with the template's `ObjectLockDays`; `latest.json` still gets new ones."""
    services.use_bucket("locked", ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    services.s3.put_object_lock_configuration(Bucket=services.bucket, ObjectLockConfiguration=lock)
    for _ in range(2):
        check_one_attempt(services)
    check("versions of the latest", len(services.versions(PREFIX + "latest.json")), 2)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="versions-check-") as folder:
        services = Services(sys.argv[1], folder)
        try:
            check_one_attempt(services)
            check_death(services, changes=False)
            check_death(services, changes=True)
            check_two_at_once(services)
            check_suspended(services)
            check_locked(services)
        finally:
            services.aws.kill()
            services.moto.stop()
    print(f"versions check: {passed} checks passed")


if __name__ == "__main__":
    main()
