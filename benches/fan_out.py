#!/usr/bin/env python3
"""Measures the phases `plan` and `publish` of a run with many targets: time, peak memory, and the documents.

    python benches/fan_out.py FOLDER-OF-THE-FUNCTION [FOLDER-OF-THE-LOCAL-AWS] [--targets 51000]

One batch is audited. Its outcomes stand in for those of all others, because these phases read only documents. The
next run is planned too: it reads the snapshot of the first one.
"""

import argparse
import datetime
import gzip
import json
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from function import ACCOUNT, Function, LocalAws, scheduled_event  # noqa: E402

REGIONS = [f"eu-west-{number}" for number in range(1, 18)]
ROLE = "reader"
BATCH_TARGETS = 50
BUCKET = "archive"


class Phases:
    """Invokes phases, each in a process of its own, so that its peak memory is known."""

    def __init__(self, binary, aws, folder, accounts):
        self.binary = binary
        self.aws = aws
        self.folder = folder
        self.accounts = accounts

    def invoke(self, what, payload):
        function = Function(
            self.aws,
            self.binary,
            (self.folder / "log").open("a"),
            AWS_ENDPOINT_URL=self.aws.endpoint,
            AWS_LAMBDA_FUNCTION_MEMORY_SIZE="1024",
            AUDITOR_ARCHIVE_BUCKET=BUCKET,
            AUDITOR_ACCOUNTS=",".join(self.accounts) if len(self.accounts) < 100 else "organization",
            AUDITOR_ROLE_NAME=ROLE,
            AUDITOR_REGIONS=",".join(REGIONS),
        )
        try:
            outcome = function.invoke(payload)
            megabytes = function.memory_kilobytes("VmHWM") / 1024
        finally:
            function.kill()
        if outcome["kind"] != "response":
            raise SystemExit(f"{what}: {outcome['payload']}")
        print(f"{what}: {outcome['milliseconds'] / 1e3:.1f} s, peak memory {megabytes:.0f} MB", flush=True)
        return outcome["payload"]

    def size(self, what, key):
        print(f"{what}: {(self.folder / 's3' / BUCKET / key).stat().st_size / 1e6:.1f} MB", flush=True)


def copy_outcomes(root, answer, lines):
    """Writes outcomes for all other batches: those of a target without reports and one with some, in turns."""
    [first] = (root / answer["outcomes"]).parent.iterdir()
    outcomes = [json.loads(line) for line in gzip.decompress(first.read_bytes()).splitlines()]
    for start in range(BATCH_TARGETS, len(lines), BATCH_TARGETS):
        batch = []
        for place, line in enumerate(lines[start : start + BATCH_TARGETS]):
            outcome = json.loads(json.dumps(outcomes[place % len(outcomes)]))
            old, ledger = dict(outcome["ledger"]), outcome["ledger"]
            ledger["account_id"], ledger["region"] = line["account_id"], line["region"]
            text = json.dumps(outcome)
            text = text.replace(f"account_id={old['account_id']}/region={old['region']}", f"account_id={line['account_id']}/region={line['region']}")
            batch.append(text)
        name = f"{lines[start]['account_id']}.{lines[start]['region']}.0badcafe.jsonl.gz"
        first.with_name(name).write_bytes(gzip.compress("".join(text + "\n" for text in batch).encode(), 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("function", type=Path)
    parser.add_argument("local_aws", type=Path, nargs="?")
    parser.add_argument("--targets", type=int, default=51_000)
    arguments = parser.parse_args()
    others = range(1, arguments.targets // len(REGIONS))
    accounts = [ACCOUNT, *(f"{222_200_000_000 + number}" for number in others)]
    with tempfile.TemporaryDirectory(prefix="fan-out-") as folder:
        folder = Path(folder)
        aws = LocalAws(
            (arguments.local_aws or arguments.function) / "local-aws",
            *("--regions", ",".join(REGIONS), "--accounts", ",".join(accounts), "--organization", "--role", ROLE),
            *("--reports", 2, "--bucket", BUCKET, "--s3-root", folder / "s3", "--max-seconds", 3600),
        )
        phases = Phases(arguments.function / "image-usage-auditor", aws, folder, accounts)
        root = folder / "s3" / BUCKET
        now = datetime.datetime.now(datetime.timezone.utc)
        try:
            event = scheduled_event(1, f"{now:%Y-%m-%dT%H:%M:%SZ}")
            plan = phases.invoke("plan of the first run", {"phase": "plan", "request": event})
            phases.size("list of targets", plan["targets"]["key"])
            lines = [json.loads(line) for line in (root / plan["targets"]["key"]).read_text().splitlines()]
            batch = {"phase": "target", "run_id": plan["run_id"], "targets": lines[:BATCH_TARGETS]}
            answer = phases.invoke("batch", batch)
            copy_outcomes(root, answer, lines)
            summary = phases.invoke("publish", {"phase": "publish", "run_id": plan["run_id"]})
            targets = summary["counts"]["targets"]["complete"]
            if targets != len(lines):
                raise SystemExit(f"{targets} of {len(lines)} targets are complete")
            phases.size(f"snapshot of {targets} targets", summary["snapshot"]["key"])
            later = scheduled_event(2, f"{now + datetime.timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}")
            plan = phases.invoke("plan of the next run", {"phase": "plan", "request": later})
            phases.size("list of targets", plan["targets"]["key"])
            batch = {"phase": "target", "run_id": plan["run_id"], "targets": lines[:BATCH_TARGETS]}
            phases.invoke("batch of the next run", batch)
        finally:
            aws.kill()


if __name__ == "__main__":
    main()
