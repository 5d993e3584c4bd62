#!/usr/bin/env python3
"""Runs the built function on two consecutive days against the local AWS and shows what it found.

`make demo` builds the programs and calls this script. What the function archives is checked here
against the reports that the local AWS holds, and at the end by `image-usage verify`. The archive
and the logs are left in `.demo`.
"""

import argparse
import gzip
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
FUNCTION = "image-usage-auditor"
COMMAND_LINE = "image-usage"
BUCKET = "image-usage-demo"
PREFIX = "image-usage/"
LATEST_PAGE = f"{PREFIX}v1/latest.html"
# A scheduled event. The demo gives it a time and an ID of its own: the file's are those of a sample.
EVENT = ROOT / "events" / "scheduled.json"

REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-2"]
# The local AWS denies the function this Region, to show that a denied Region is not reported as clean.
DENIED_REGION = "sa-east-1"
# Here, reports may be listed, but their entries may not be read.
UNREADABLE_REGION = "ap-southeast-2"
EXPECTED_STATUS = "partial"

# The AMI already has a report; a newer one is requested between the two runs.
IMAGE = "ami-ab5838e0ed22ed85d"
IMAGE_REGION = "eu-west-1"
# The runs are scheduled for 06:00 of yesterday and of today: the function accepts no time that is far from now.
FIRST_ID = "7bf73129-1428-4cd3-a780-95db273d1602"
SECOND_ID = "00fae4a6-5b3d-4d8e-9a57-6c1de04f8b21"
HOUR_OF_RUNS = 6
SECONDS_PER_DAY = 86_400

OBJECTS = ("object", "entries_object", "images_object")
MAX_FINDINGS_PER_KIND = 4
MAX_FINDINGS_PER_KIND_IF_BRIEF = 2
MAX_CHANGES_PER_KIND = 3
# The width of tables if the output is not a terminal and COLUMNS is not set.
DEFAULT_WIDTH = 160
START_SECONDS = 30
INVOCATION_SECONDS = 120
# If this script is killed, the local AWS still stops.
LOCAL_AWS_SECONDS = 600


class Failed(Exception):
    """The demo cannot continue. `log` is the file that says why, if there is one."""

    def __init__(self, message, log=None):
        super().__init__(message)
        self.log = log


class Service:
    """A program that runs in the background and writes its output to a log file."""

    def __init__(self, name, command, environment, folder=DEMO):
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment,
            )

    def check_running(self):
        if self.process.poll() is not None:
            raise Failed(f"{self.name} stopped with exit status {self.process.returncode}", self.log)

    def wait_until(self, condition):
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            self.check_running()
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} was not ready within {START_SECONDS} seconds", self.log)
            time.sleep(0.05)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@dataclass
class LambdaService:
    """The addresses of a Lambda service on loopback: for the function, and for its callers."""

    runtime_api: str
    invocations: str


# ---------------------------------------------------------------- the services


def clean_environment(**variables):
    """Returns the environment without the user's AWS settings, so that no account can be reached."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AUDITOR_"))}
    # Without backtraces, a log ends with the error.
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "RUST_BACKTRACE": "0", **variables}


def start_local_aws(binaries, options, folder=DEMO):
    """Starts the local AWS and returns it with its endpoint."""
    endpoint_file = folder / "endpoint"
    command = [binaries / "local-aws", "--endpoint-file", endpoint_file, "--s3-root", folder / "s3"]
    command += ["--bucket", BUCKET, "--max-seconds", LOCAL_AWS_SECONDS, *options]
    local_aws = Service("local-aws", command, clean_environment(), folder)
    local_aws.wait_until(lambda: endpoint_file.exists() and endpoint_file.read_text().strip())
    return local_aws, endpoint_file.read_text().strip()


def denials():
    """Returns the options that make the local AWS deny the two Regions of the demo."""
    return [
        *("--regions", ",".join([*REGIONS, DENIED_REGION])),
        "--verdicts",
        *("--fault", f"region={DENIED_REGION},op=DescribeImageUsageReports,kind=denied"),
        *("--fault", f"region={UNREADABLE_REGION},op=DescribeImageUsageReportEntries,kind=denied"),
    ]


def local_lambda(endpoint):
    """Returns the Lambda service of the local AWS for the function."""
    path = f"{endpoint}/_local-aws/functions/{FUNCTION}"
    _, body = send(urllib.request.Request(path, method="PUT"), INVOCATION_SECONDS)
    return LambdaService(json.loads(body)["runtime_api"], f"{path}/invocations?timeout_seconds={INVOCATION_SECONDS}")


def start_function(binaries, lambda_service, endpoint, settings, folder=DEMO):
    """Starts the function with what Lambda hands to it, the addresses of the services, and its settings."""
    variables = {
        "AWS_LAMBDA_RUNTIME_API": lambda_service.runtime_api,
        "AWS_LAMBDA_FUNCTION_NAME": FUNCTION,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/demo",
        "AWS_LAMBDA_LOG_STREAM_NAME": "demo",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": REGIONS[0],
        "AWS_ACCESS_KEY_ID": "AKIDEMO",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AUDITOR_ARCHIVE_BUCKET": BUCKET,
        "AUDITOR_ARCHIVE_PREFIX": PREFIX,
        **settings,
    }
    return Service("function", [binaries / FUNCTION], clean_environment(**variables), folder)


def settings_of_demo():
    return {
        "AUDITOR_REGIONS": ",".join([*REGIONS, DENIED_REGION]),
        # Small, so that a target has several pages.
        "AUDITOR_PAGE_SIZE": "25",
        # EC2 keeps a report for less than 30 days, and the demo has no older run.
        "AUDITOR_OBSERVATION_DAYS": "28",
        "AUDITOR_IMAGE_REFERENCES": "true",
    }


# ---------------------------------------------------------------- requests


def send(request, timeout=START_SECONDS):
    """Sends a request and returns the response's headers and body."""
    # The user's proxy cannot reach this machine's loopback interface.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=timeout) as response:
            return response.headers, response.read()
    except urllib.error.HTTPError as error:
        raise Failed(f"{error.url} returned the status {error.code}: {error.read().decode(errors='replace')}") from None


def scheduled_events():
    """Returns the scheduled events of the two days: of yesterday, and of today."""
    event = json.loads(EVENT.read_text())
    today = datetime.now(timezone.utc).replace(hour=HOUR_OF_RUNS, minute=0, second=0, microsecond=0)
    days = ((today - timedelta(days=1), FIRST_ID), (today, SECOND_ID))
    return [{**event, "time": f"{day:%Y-%m-%dT%H:%M:%SZ}", "id": event_id} for day, event_id in days]


def invoke(lambda_service, services, event):
    """Sends an event to the function and returns its response."""
    request = urllib.request.Request(lambda_service.invocations, json.dumps(event).encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    _, body = while_running(services, lambda: send(request, INVOCATION_SECONDS))
    log = services[-1].log
    outcome = json.loads(body)
    if outcome["kind"] != "response":
        raise Failed(f"the function did not respond:\n{json.dumps(outcome, indent=2)}", log)
    return outcome["payload"]


def while_running(services, call):
    """Returns the result of a call, or fails as soon as one of the services stops."""
    results, errors = [], []

    def carry_out():
        try:
            results.append(call())
        except (Failed, OSError) as error:
            errors.append(error)

    # A daemon does not keep this script alive if a service stops and the response never arrives.
    caller = threading.Thread(target=carry_out, daemon=True)
    caller.start()
    while caller.is_alive():
        caller.join(0.2)
        for service in services:
            service.check_running()
    if errors:
        raise Failed(str(errors[0]), services[-1].log)
    return results[0]


def request_newer_report(endpoint):
    """Calls EC2's `CreateImageUsageReport` at the local AWS."""
    parameters = {"Action": "CreateImageUsageReport", "Version": "2016-11-15", "ImageId": IMAGE}
    parameters["ResourceType.1.ResourceType"] = "ec2:Instance"
    request = urllib.request.Request(f"{endpoint}/", urllib.parse.urlencode(parameters).encode(), method="POST")
    # The local AWS takes the Region and the service from the scope, and does not verify the signature.
    scope = f"AKIDEMO/{datetime.now(timezone.utc):%Y%m%d}/{IMAGE_REGION}/ec2/aws4_request"
    request.add_header("Authorization", f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0")
    send(request)


def advance_clock(endpoint, seconds):
    path = f"/_local-aws/clock?advance_seconds={seconds}"
    send(urllib.request.Request(f"{endpoint}{path}", b"", method="POST"))


def reports_held(endpoint, target):
    """Returns the reports that the local AWS holds for a target, each with its entries."""
    query = urllib.parse.urlencode({name: target[name] for name in ("account_id", "region")})
    _, body = send(f"{endpoint}/_local-aws/reports?{query}")
    names = ("account_id", "resource_type", "usage_count")
    return {
        report["report_id"]: sorted(tuple(entry[name] for name in names) for entry in report["entries"])
        for report in json.loads(body)
    }


# ---------------------------------------------------------------- checks of the archive


def stored(key):
    return DEMO / "s3" / BUCKET / key


def lines_of(archived):
    """Returns the lines of an object. Fails if the object is not the one that the snapshot describes."""
    content = stored(archived["key"]).read_bytes()
    lines = gzip.decompress(content).splitlines()
    found = (len(content), hashlib.sha256(content).hexdigest(), len(lines))
    if found != (archived["bytes"], archived["sha256"], archived["lines"]):
        raise Failed(f"{archived['key']} is not the object that the snapshot describes")
    return [json.loads(line) for line in lines]


def images_held(endpoint, target):
    """Returns the verdict that the local AWS expects of some AMIs of a target."""
    query = urllib.parse.urlencode({name: target[name] for name in ("account_id", "region")})
    _, body = send(f"{endpoint}/_local-aws/images?{query}")
    images = json.loads(body)
    tags = {image["image_id"]: {tag["key"]: tag["value"] for tag in image["tags"]} for image in images}
    return {image_id: tags_of["expected-verdict"] for image_id, tags_of in tags.items() if "expected-verdict" in tags_of}


def archived_entries(report):
    """Returns the archived entries of a report; an empty list if no usage was observed."""
    lines = gzip.decompress(stored(report["entries"]["key"]).read_bytes()).splitlines()
    return sorted(
        (entry["consumer_account_id"], entry["resource_type"], entry["usage_count"])
        for entry in map(json.loads, lines)
        if entry["report_id"] == report["report_id"] and entry["consumer_account_id"] is not None
    )


def check_archive(summary, snapshot_bytes, snapshot, endpoint):
    """Compares the archive with its snapshot and with the reports that the local AWS holds."""
    if hashlib.sha256(snapshot_bytes).hexdigest() != summary["snapshot"]["sha256"]:
        raise Failed("the snapshot is not the one that the summary names")
    if stored(f"{PREFIX}v1/latest.json").read_bytes() != snapshot_bytes:
        raise Failed("latest.json is not a copy of the snapshot")
    page = stored(LATEST_PAGE).read_text()
    if summary["snapshot"]["sha256"] not in page:
        raise Failed("latest.html is not the page of the run")
    for target in snapshot["targets"]:
        if target["object"] is not None:
            check_target(target, endpoint)


def check_target(target, endpoint):
    reports, held = lines_of(target["object"]), reports_held(endpoint, target)
    if target["entries_object"] is not None:
        lines_of(target["entries_object"])
    if sorted(report["report_id"] for report in reports) != sorted(held):
        raise Failed(f"{target['object']['key']} does not have each report of its target exactly once")
    lines = {line["image_id"]: line for line in lines_of(target["images_object"])}
    for image_id, expected in images_held(endpoint, target).items():
        # Where entries are denied, nothing is known of their use.
        verdict = lines[image_id]["verdict"]
        if target["region"] != UNREADABLE_REGION and verdict != expected:
            raise Failed(f"the verdict of {image_id} is {verdict} instead of {expected}: {lines[image_id]}")
    for report in reports:
        is_archived = report["entries"]["status"] == "archived"
        if is_archived != (report["state"] == "available" and target["region"] != UNREADABLE_REGION):
            raise Failed(f"unexpected status of the entries of {report['report_id']}: {report['entries']}")
        if is_archived and archived_entries(report) != held[report["report_id"]]:
            raise Failed(f"the archived entries of {report['report_id']} differ from those in EC2")


# ---------------------------------------------------------------- output


def printable(value):
    text = "-" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def aligned(rows):
    """Returns one line for each row, with the columns aligned."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def print_lines(lines, indent=2):
    """Prints lines, and cuts those that are wider than the terminal."""
    width = shutil.get_terminal_size((DEFAULT_WIDTH, 0)).columns - indent
    for line in lines:
        print(" " * indent + (line if len(line) <= width else line[: width - 3] + "..."))


def show(summary, snapshot):
    print("\nThe function's response on the second day\n")
    print_lines(json.dumps(summary, indent=2).splitlines())
    show_findings(snapshot, MAX_FINDINGS_PER_KIND)
    show_verdicts(snapshot)
    show_changes(snapshot["changes"])
    show_targets(snapshot)
    show_objects(summary, snapshot)


def show_briefly(snapshot):
    show_findings(snapshot, MAX_FINDINGS_PER_KIND_IF_BRIEF)
    show_verdicts(snapshot)
    show_targets(snapshot)


def show_findings(snapshot, max_per_kind):
    counts = snapshot["counts"]
    print(f"\nFindings: {counts['findings']['total']} in {counts['reports']['total']} reports\n")
    kinds = itertools.groupby(snapshot["findings"], lambda finding: finding["kind"])
    shown = {kind: list(itertools.islice(findings, max_per_kind)) for kind, findings in kinds}
    columns = ("region", "report_id", "image_id", "message")
    lines = iter(aligned([[finding[column] for column in columns] for finding in itertools.chain(*shown.values())]))
    for kind, findings in shown.items():
        print_lines([f"{kind} ({counts['findings'][kind]})"])
        print_lines(itertools.islice(lines, len(findings)), indent=4)
        show_omitted(counts["findings"][kind] - len(findings))


def show_omitted(count):
    if count > 0:
        print_lines([f"and {count} more"], indent=4)


def show_verdicts(snapshot):
    counts = snapshot["counts"]["images"]
    print(f"\nAMIs by verdict: {counts['total']}\n")
    verdicts = ("in_use", "last_seen_in_use", "no_use_observed", "unknown", "gone")
    print_lines(aligned([[verdict, counts[verdict]] for verdict in verdicts]))


def show_changes(changes):
    print("\nChanges since the day before\n")
    subjects = {
        "findings opened": changes["opened"],
        "findings resolved": changes["resolved"],
        "reports that appeared": [f"{r['region']}/{r['report_id']} of {r['image_id']}" for r in changes["appeared"]],
        "reports that EC2 deleted": [
            f"{r['region']}/{r['report_id']}, entries {'' if r['archived'] else 'not '}archived" for r in changes["gone"]
        ],
        "reports in another state": [
            f"{r['region']}/{r['report_id']}, from {r['from']} to {r['to']}" for r in changes["changed_state"]
        ],
    }
    for change, subjects_of_change in subjects.items():
        print_lines([f"{change} ({len(subjects_of_change)})"])
        print_lines(subjects_of_change[:MAX_CHANGES_PER_KIND], indent=4)
        show_omitted(len(subjects_of_change) - MAX_CHANGES_PER_KIND)


def show_targets(snapshot):
    print(f"\nTargets: the run is {snapshot['status']}, because {DENIED_REGION} is denied on purpose\n")
    columns = ["account_id", "region", "status", "pages", "reports"]
    rows = [
        [*(target[name] for name in columns), target["error"] and "{code}: {message}".format(**target["error"])]
        for target in snapshot["targets"]
    ]
    print_lines(aligned([["account", *columns[1:], "error"], *rows]))


def show_objects(summary, snapshot):
    print("\nThe archive. Every checksum, every report and its entries match what the local AWS holds\n")
    keys = [target[name]["key"] for target in snapshot["targets"] for name in OBJECTS if target[name]]
    for key in [summary["snapshot"]["key"], f"{PREFIX}v1/latest.json", *keys]:
        print(f"  {stored(key).relative_to(ROOT)}")


# ---------------------------------------------------------------- the demo


def check_programs(binaries, *names):
    for program in (binaries / name for name in names):
        if not program.exists():
            raise Failed(f"{program} does not exist: run `make demo`, which builds it")


def run(binaries, services, brief):
    check_programs(binaries, "local-aws", FUNCTION, COMMAND_LINE)
    shutil.rmtree(DEMO, ignore_errors=True)
    (DEMO / "s3").mkdir(parents=True)
    local_aws, endpoint = start_local_aws(binaries, denials())
    services.append(local_aws)
    lambda_service = local_lambda(endpoint)
    services.append(start_function(binaries, lambda_service, endpoint, settings_of_demo()))

    first_day, second_day = scheduled_events()
    print(f"First day: the function is invoked with a scheduled event for {first_day['time']}")
    audit(lambda_service, services, first_day, endpoint)
    print("Second day: EC2 has finished some reports, deleted others, and was asked for a newer report of one AMI")
    request_newer_report(endpoint)
    advance_clock(endpoint, SECONDS_PER_DAY)
    summary, snapshot = audit(lambda_service, services, second_day, endpoint)
    if brief:
        show_briefly(snapshot)
    else:
        show(summary, snapshot)
    verify(binaries)
    ask(binaries, snapshot, endpoint)


def audit(lambda_service, services, event, endpoint):
    """Invokes the function, checks the archive, and returns the summary and the snapshot."""
    summary = invoke(lambda_service, services, event)
    snapshot_bytes = stored(summary["snapshot"]["key"]).read_bytes()
    snapshot = json.loads(snapshot_bytes)
    check_archive(summary, snapshot_bytes, snapshot, endpoint)
    if snapshot["status"] != EXPECTED_STATUS:
        message = f"the run is {snapshot['status']} instead of {EXPECTED_STATUS}, although {DENIED_REGION} was denied"
        raise Failed(message, services[-1].log)
    return summary, snapshot


def verify(binaries):
    """Runs `image-usage verify` on the archive, as any user can."""
    run_command_line(binaries, "verify", stored(PREFIX).relative_to(ROOT))


def ask(binaries, snapshot, endpoint):
    """Checks that the gate is open for an AMI that nobody was observed to use and for no other; then runs
    `image-usage who` for one in use."""
    [target] = [target for target in snapshot["targets"] if target["region"] == IMAGE_REGION]
    images = {verdict: image_id for image_id, verdict in images_held(endpoint, target).items()}
    archive = stored(PREFIX).relative_to(ROOT)
    for verdict, image_id in images.items():
        command = [binaries / COMMAND_LINE, "who", image_id, archive, "--gate"]
        done = subprocess.run(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.DEVNULL)
        expected = {"no_use_observed": 0, "in_use": 1, "last_seen_in_use": 1}.get(verdict, 2)
        if done.returncode != expected:
            raise Failed(f"the gate ended with {done.returncode} for {image_id}, whose verdict is {verdict}")
    run_command_line(binaries, "who", images["in_use"], archive)


def run_command_line(binaries, *arguments):
    print(f"\n$ {' '.join(map(str, (COMMAND_LINE, *arguments)))}\n", flush=True)
    command = [binaries / COMMAND_LINE, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), timeout=INVOCATION_SECONDS)
    if done.returncode != 0:
        raise Failed(f"{COMMAND_LINE} {arguments[0]} ended with exit status {done.returncode}")


def report_failure(name, error):
    sys.stdout.flush()
    print(f"\n{name}: {error}", file=sys.stderr)
    log = getattr(error, "log", None)
    if log is not None:
        print(f"\nThe last lines of {log}:\n", file=sys.stderr)
        print("\n".join(log.read_text(errors="replace").splitlines()[-40:]), file=sys.stderr)


def run_with_services(name, steps):
    """Calls `steps` with a list for its services, stops them in any case, and returns the exit status."""
    # Being terminated must stop the services too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    services = []
    try:
        steps(services)
        return 0
    except (Failed, OSError, KeyError) as error:
        report_failure(name, error)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        for service in reversed(services):
            service.stop()


def parser_with_binaries(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=Path, default=ROOT / "target" / "debug", help="folder of the built programs")
    return parser


def main():
    parser = parser_with_binaries(__doc__)
    parser.add_argument("--brief", action="store_true", help="show only some findings, the targets and the verdict")
    arguments = parser.parse_args()
    binaries = arguments.binaries.resolve()
    status = run_with_services("demo", lambda services: run(binaries, services, arguments.brief))
    print(f"\nThe logs are in {DEMO.relative_to(ROOT)}")
    if status == 0:
        print(f"The page of the second run, for a browser: {stored(LATEST_PAGE).relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
