#!/usr/bin/env python3
"""Runs the real function on two days in a row, in cargo-lambda's emulator of Lambda, against the local
AWS, shows what it found and what changed, and has `verify` check the archive. `make demo` builds what this
needs and calls it.
"""

import argparse
import gzip
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
CARGO_LAMBDA = ROOT / ".tools" / "cargo-lambda" / "bin" / "cargo-lambda"
FUNCTION = "image-usage-auditor"
BUCKET = "image-usage-demo"
PREFIX = "image-usage/"
EVENT = ROOT / "events" / "scheduled.json"

REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-2"]
# A Region that the local AWS does not let the function look at, to show that it is not taken for clean.
DENIED_REGION = "sa-east-1"
# One whose reports may be listed, but not read.
UNREADABLE_REGION = "ap-southeast-2"
EXPECTED_STATUS = "partial"

# Of an AMI that has a report already, a newer one is asked for between the runs.
IMAGE = "ami-ab5838e0ed22ed85d"
IMAGE_REGION = "eu-west-1"
NEXT_DAY = {"time": "2026-11-23T06:00:00Z", "id": "00fae4a6-5b3d-4d8e-9a57-6c1de04f8b21"}
SECONDS_PER_DAY = 86_400

FINDINGS_SHOWN_OF_A_KIND = 4
CHANGES_SHOWN_OF_A_KIND = 3
WIDEST_CELL = 100
START_SECONDS = 30
INVOCATION_SECONDS = 120


class Failed(Exception):
    """The demo cannot go on; `log` is the file that says why, if there is one."""

    def __init__(self, message, log=None):
        super().__init__(message)
        self.log = log


class Service:
    """A program in the background, with its output in a file under `.demo`."""

    def __init__(self, name, command, environment):
        self.name = name
        self.log = DEMO / f"{name}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment,
            )

    def check(self):
        if self.process.poll() is not None:
            raise Failed(f"{self.name} stopped with exit status {self.process.returncode}", self.log)

    def wait_for(self, condition):
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            self.check()
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


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listens(port):
    with socket.socket() as client:
        client.settimeout(0.5)
        return client.connect_ex(("127.0.0.1", port)) == 0


def environment(**variables):
    """Nothing of the user's own AWS settings, so that the demo cannot reach an account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AUDITOR_"))}
    # Without backtraces, the end of a log is what went wrong.
    return {**kept, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "RUST_BACKTRACE": "0", **variables}


def start_local_aws(binaries):
    endpoint_file = DEMO / "endpoint"
    local_aws = Service(
        "local-aws",
        [
            binaries / "local-aws",
            *("--endpoint-file", endpoint_file),
            *("--regions", ",".join([*REGIONS, DENIED_REGION])),
            *("--fault", f"region={DENIED_REGION},op=DescribeImageUsageReports,kind=denied"),
            *("--fault", f"region={UNREADABLE_REGION},op=DescribeImageUsageReportEntries,kind=denied"),
            *("--s3-root", DEMO / "s3"),
            *("--bucket", BUCKET),
            # Should this script be killed, the server still ends.
            *("--max-seconds", 600),
        ],
        environment(),
    )
    local_aws.wait_for(lambda: endpoint_file.exists() and endpoint_file.read_text().strip())
    return local_aws, endpoint_file.read_text().strip()


def start_emulator(port):
    emulator = Service(
        "lambda",
        [CARGO_LAMBDA, "lambda", "watch", "--only-lambda-apis", "--invoke-address", "127.0.0.1", "--invoke-port", port],
        environment(),
    )
    emulator.wait_for(lambda: listens(port))
    return emulator


def start_function(binaries, port, endpoint):
    return Service(
        "function",
        [binaries / FUNCTION],
        environment(
            AWS_LAMBDA_RUNTIME_API=f"http://127.0.0.1:{port}/.rt/{FUNCTION}",
            AWS_LAMBDA_FUNCTION_NAME=FUNCTION,
            AWS_LAMBDA_FUNCTION_VERSION="$LATEST",
            AWS_LAMBDA_FUNCTION_MEMORY_SIZE="256",
            AWS_LAMBDA_LOG_GROUP_NAME="/aws/lambda/demo",
            AWS_LAMBDA_LOG_STREAM_NAME="demo",
            AWS_ENDPOINT_URL=endpoint,
            AWS_REGION=REGIONS[0],
            AWS_ACCESS_KEY_ID="AKIDEMO",
            AWS_SECRET_ACCESS_KEY="demo",
            AWS_CONFIG_FILE=os.devnull,
            AWS_SHARED_CREDENTIALS_FILE=os.devnull,
            AWS_EC2_METADATA_DISABLED="true",
            AUDITOR_ARCHIVE_BUCKET=BUCKET,
            AUDITOR_ARCHIVE_PREFIX=PREFIX,
            AUDITOR_REGIONS=",".join([*REGIONS, DENIED_REGION]),
            # Small, so that a target has several pages.
            AUDITOR_PAGE_SIZE="25",
        ),
    )


def invoke(port, services, event):
    """Sends the event in a file and returns the function's answer."""
    invocation = subprocess.Popen(
        [
            str(word)
            for word in [
                *(CARGO_LAMBDA, "lambda", "invoke", FUNCTION),
                *("--invoke-address", "127.0.0.1", "--invoke-port", port),
                *("--data-file", event),
            ]
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    function = services[-1]
    deadline = time.monotonic() + INVOCATION_SECONDS
    try:
        while True:
            try:
                answer, complaint = invocation.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                # The emulator would wait for a function that is gone.
                for service in services:
                    service.check()
                if time.monotonic() > deadline:
                    raise Failed(f"no answer within {INVOCATION_SECONDS} seconds", function.log) from None
    finally:
        if invocation.poll() is None:
            invocation.kill()
            invocation.wait()
    if invocation.returncode != 0:
        # What follows in cargo-lambda's message invites to report the error to its own authors.
        error = (complaint or answer).split("Was this behavior")[0].strip()
        raise Failed(f"the function answered with an error:\n{error}", function.log)
    try:
        return json.loads(answer)
    except ValueError:
        raise Failed(f"the function's answer is not JSON: {answer!r}", function.log) from None


def stored(key):
    return DEMO / "s3" / BUCKET / key


def ask(endpoint, path, parameters, region=None):
    """Asks the local AWS something: EC2 by a POST in a Region, else what only the local AWS knows."""
    query = urllib.parse.urlencode(parameters)
    request = urllib.request.Request(f"{endpoint}{path}", query.encode(), method="POST")
    if region is not None:
        scope = f"AKIDEMO/20261122/{region}/ec2/aws4_request"
        # The local AWS reads the Region and the service there, and verifies no signature.
        request.add_header("Authorization", f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0")
    # A proxy of the user's has no way to this machine's loopback.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=START_SECONDS) as answer:
        return answer.read()


def held(endpoint, target):
    """The entries of the reports that the local AWS holds for a target, by report."""
    query = urllib.parse.urlencode({name: target[name] for name in ("account_id", "region")})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{endpoint}/_local-aws/reports?{query}", timeout=START_SECONDS) as answer:
        return {
            report["report_id"]: sorted((e["account_id"], e["resource_type"], e["usage_count"]) for e in report["entries"])
            for report in json.load(answer)
        }


def lines_of(archived):
    """The lines of an object, once it is found to be what the snapshot says."""
    content = stored(archived["key"]).read_bytes()
    lines = gzip.decompress(content).splitlines()
    found = (len(content), hashlib.sha256(content).hexdigest(), len(lines))
    if found != (archived["bytes"], archived["sha256"], archived["lines"]):
        raise Failed(f"{archived['key']} is not what the snapshot says")
    return [json.loads(line) for line in lines]


def entries_of(report):
    """The archived entries of a report; none for one that observed no usage."""
    lines = [json.loads(line) for line in gzip.decompress(stored(report["entries"]["key"]).read_bytes()).splitlines()]
    return sorted(
        (line["consumer_account_id"], line["resource_type"], line["usage_count"])
        for line in lines
        if line["report_id"] == report["report_id"] and line["consumer_account_id"] is not None
    )


def check_archive(summary, snapshot_bytes, snapshot, endpoint):
    """Compares what lies on disk with what the snapshot says, and with what the local AWS holds."""
    if hashlib.sha256(snapshot_bytes).hexdigest() != summary["snapshot"]["sha256"]:
        raise Failed("the snapshot is not the one that the summary names")
    if stored(f"{PREFIX}v1/latest.json").read_bytes() != snapshot_bytes:
        raise Failed("latest.json is not a copy of the snapshot")
    for target in snapshot["targets"]:
        if target["object"] is None:
            continue
        reports, ec2 = lines_of(target["object"]), held(endpoint, target)
        if target["entries_object"] is not None:
            lines_of(target["entries_object"])
        if sorted(report["report_id"] for report in reports) != sorted(ec2):
            raise Failed(f"{target['object']['key']} does not have each report of its target once")
        for report in reports:
            archived = report["entries"]["status"] == "archived"
            if archived != (report["state"] == "available" and target["region"] != UNREADABLE_REGION):
                raise Failed(f"the entries of {report['report_id']} are {report['entries']}")
            if archived and entries_of(report) != ec2[report["report_id"]]:
                raise Failed(f"the archive has other entries of {report['report_id']} than EC2")


def printable(value):
    text = "-" if value is None else str(value)
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= WIDEST_CELL else text[: WIDEST_CELL - 3] + "..."


def table(header, rows):
    rows = [header] + [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def show_changes(snapshot):
    """What is different from the run of the day before."""
    changes = snapshot["changes"]
    told = {
        "finding opened": changes["opened"],
        "finding resolved": changes["resolved"],
        "report appeared": [f"{r['region']}/{r['report_id']} of {r['image_id']}" for r in changes["appeared"]],
        "report gone": [
            f"{r['region']}/{r['report_id']}: its entries are {'' if r['archived'] else 'not '}archived" for r in changes["gone"]
        ],
        "state changed": [f"{r['region']}/{r['report_id']}: {r['from']} to {r['to']}" for r in changes["changed_state"]],
    }
    rows = []
    for change, subjects in told.items():
        rows += [[change, subject] for subject in subjects[:CHANGES_SHOWN_OF_A_KIND]]
        if len(subjects) > CHANGES_SHOWN_OF_A_KIND:
            rows.append([change, f"and {len(subjects) - CHANGES_SHOWN_OF_A_KIND} more"])
    table(["change", "subject"], rows)


def show(summary, snapshot):
    counts = snapshot["counts"]
    print(f"\nThe function's answer on the second day\n")
    print("\n".join("  " + line for line in json.dumps(summary, indent=2).splitlines()))

    print(f"\nFindings ({counts['findings']['total']} about {counts['reports']['total']} reports)\n")
    rows, kinds = [], {}
    for finding in snapshot["findings"]:
        kinds.setdefault(finding["kind"], []).append(finding)
    for kind, findings in kinds.items():
        rows += [
            [f[name] for name in ("kind", "region", "report_id", "image_id", "expiration_time", "message")]
            for f in findings[:FINDINGS_SHOWN_OF_A_KIND]
        ]
        if len(findings) > FINDINGS_SHOWN_OF_A_KIND:
            more = f"and {len(findings) - FINDINGS_SHOWN_OF_A_KIND} more"
            rows.append([kind, "...", "...", "...", "...", more])
    table(["kind", "region", "report", "image", "expires", "message"], rows)

    print("\nWhat changed since the day before\n")
    show_changes(snapshot)

    print(f"\nTargets (the run is {snapshot['status']}: {DENIED_REGION} is denied on purpose)\n")
    table(
        ["account", "region", "status", "pages", "reports", "error"],
        [
            [
                *(target[name] for name in ("account_id", "region", "status", "pages", "reports")),
                target["error"] and f"{target['error']['code']}: {target['error']['message']}",
            ]
            for target in snapshot["targets"]
        ],
    )

    print("\nThe archive on disk (compared: every checksum, every report and its entries with what the local AWS holds)\n")
    keys = [target[name]["key"] for target in snapshot["targets"] for name in ("object", "entries_object") if target[name]]
    for key in [summary["snapshot"]["key"], f"{PREFIX}v1/latest.json", *keys]:
        print(f"  {stored(key).relative_to(ROOT)}")


def run(binaries, services):
    shutil.rmtree(DEMO, ignore_errors=True)
    (DEMO / "s3").mkdir(parents=True)
    for program in (CARGO_LAMBDA, *(binaries / name for name in ("local-aws", FUNCTION, "verify"))):
        if not program.exists():
            raise Failed(f"{program} is not there: run `make demo`, which builds it")

    local_aws, endpoint = start_local_aws(binaries)
    services.append(local_aws)
    port = free_port()
    services.append(start_emulator(port))
    services.append(start_function(binaries, port, endpoint))

    print(f"The first day: {EVENT.relative_to(ROOT)}")
    audit(port, services, EVENT, endpoint)
    print("EC2 is asked for a newer report of an AMI, and a day goes by: reports get ready, others are deleted")
    creation = {"Action": "CreateImageUsageReport", "Version": "2016-11-15", "ImageId": IMAGE}
    ask(endpoint, "/", {**creation, "ResourceType.1.ResourceType": "ec2:Instance"}, IMAGE_REGION)
    ask(endpoint, f"/_local-aws/clock?advance_seconds={SECONDS_PER_DAY}", {})
    next_day = DEMO / "next-day.json"
    next_day.write_text(json.dumps({**json.loads(EVENT.read_text()), **NEXT_DAY}))
    summary, snapshot = audit(port, services, next_day, endpoint)
    show(summary, snapshot)
    verify(binaries)


def audit(port, services, event, endpoint):
    """Has the function carry out an event, and looks into what it has archived."""
    summary = invoke(port, services, event)
    snapshot_bytes = stored(summary["snapshot"]["key"]).read_bytes()
    snapshot = json.loads(snapshot_bytes)
    check_archive(summary, snapshot_bytes, snapshot, endpoint)
    if snapshot["status"] != EXPECTED_STATUS:
        raise Failed(
            f"the run is {snapshot['status']}, not {EXPECTED_STATUS}, although {DENIED_REGION} was denied",
            services[-1].log,
        )
    return summary, snapshot


def verify(binaries):
    """Checks the whole archive, as anybody can."""
    archive = stored(PREFIX).relative_to(ROOT)
    print(f"\nverify {archive}\n", flush=True)
    done = subprocess.run([binaries / "verify", archive], cwd=ROOT, env=environment(), timeout=INVOCATION_SECONDS)
    if done.returncode != 0:
        raise Failed(f"verify ended with status {done.returncode}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--binaries", type=Path, default=ROOT / "target" / "debug", help="folder of the built programs")
    binaries = arguments.parse_args().binaries.resolve()
    # Being terminated must stop the services too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    services = []
    try:
        run(binaries, services)
        outcome = 0
    except (Failed, OSError, KeyError) as error:
        sys.stdout.flush()
        print(f"\ndemo: {error}", file=sys.stderr)
        log = getattr(error, "log", None)
        if log is not None:
            print(f"\nThe end of {log.relative_to(ROOT)}:\n", file=sys.stderr)
            print("\n".join(log.read_text(errors="replace").splitlines()[-40:]), file=sys.stderr)
        outcome = 1
    except KeyboardInterrupt:
        outcome = 130
    finally:
        for service in reversed(services):
            service.stop()
    logs = " ".join(str(service.log.relative_to(ROOT)) for service in services)
    print(f"\nLogs: {logs or 'none'}")
    return outcome


if __name__ == "__main__":
    sys.exit(main())
