#!/usr/bin/env python3
"""Measures the function's memory: its largest resident set with targets of several sizes.

    benches/memory FOLDER-OF-THE-FUNCTION [FOLDER-OF-THE-LOCAL-AWS]

Runs the function twice for each size, in a process of its own, and checks that every report is in the
archive once. Ends with status 1 if memory grows with the number of reports, or is too much.
"""

import gzip
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from function import ACCOUNT, Function, LocalAws, scheduled_event  # noqa: E402

# Reports, and whether their entries are archived too: of a million reports the local AWS, which searches
# all of them in every call, would take hours to give the entries, and EC2 more than a run has.
SIZES = [(60_000, True), (120_000, True), (60_000, False), (250_000, False), (1_000_000, False)]
LARGEST_DIFFERENCE = 0.10
LARGEST_MEGABYTES = 64


def check_archive(root, summary, reports):
    """Every ID of the local AWS, once, and no other; the seed gives each report one of its own."""
    snapshot = json.loads((root / summary["snapshot"]["key"]).read_text())
    (target,) = snapshot["targets"]
    if (snapshot["status"], target["status"]) != ("complete", "complete"):
        raise SystemExit(f"the run is not complete: {target}")
    with gzip.open(root / target["object"]["key"], "rt") as lines:
        ids = [json.loads(line)["report_id"] for line in lines]
    distinct = len(set(ids))
    if (len(ids), distinct) != (reports, reports):
        raise SystemExit(f"{reports} reports, but {len(ids)} lines with {distinct} IDs")
    return target["pages"]


def measure(binary, local_aws, reports, entries):
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        folder = Path(folder)
        aws = LocalAws(
            local_aws,
            *("--regions", "us-east-1", "--reports", reports, "--bucket", "archive"),
            *("--s3-root", folder / "s3", "--max-seconds", 3600),
        )
        log = (folder / "log").open("w")
        function = Function(
            binary,
            log,
            AWS_ENDPOINT_URL=aws.endpoint,
            AUDITOR_ARCHIVE_BUCKET="archive",
            AUDITOR_ARCHIVE_ENTRIES="true" if entries else "false",
        )
        try:
            start = time.monotonic()
            # The second run takes over what the first one said.
            for day in (22, 23):
                kind, summary = function.invoke(scheduled_event(day, f"2026-11-{day}T06:00:00Z"))
                if kind != "response":
                    raise SystemExit(f"the run failed: {summary}")
            seconds = time.monotonic() - start
            peak = function.memory_kilobytes("VmHWM") / 1024
            held = aws.started["accounts"][ACCOUNT]["us-east-1"]["reports"]
        finally:
            function.kill()
            aws.kill()
        pages = check_archive(folder / "s3" / "archive", summary, held)
    return held, pages, peak, seconds


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    binary = Path(sys.argv[1]) / "image-usage-auditor"
    local_aws = Path(sys.argv[-1]) / "local-aws"
    for program in (binary, local_aws):
        if not program.exists():
            sys.exit(f"{program} is not built")
    print(f"{'reports':>10} {'entries':>7} {'pages':>6} {'peak MB':>8} {'ratio':>6} {'seconds':>8}")
    peaks = {True: [], False: []}
    for size, entries in SIZES:
        reports, pages, peak, seconds = measure(binary, local_aws, size, entries)
        peaks[entries].append(peak)
        ratio = peak / peaks[entries][0]
        print(f"{reports:>10,} {'yes' if entries else 'no':>7} {pages:>6,} {peak:>8.1f} {ratio:>6.2f} {seconds:>8.1f}", flush=True)
    if any(max(alike) > min(alike) * (1 + LARGEST_DIFFERENCE) for alike in peaks.values()):
        sys.exit(f"memory grows with the work: by more than {LARGEST_DIFFERENCE:.0%}")
    if max(max(alike) for alike in peaks.values()) > LARGEST_MEGABYTES:
        sys.exit(f"more than {LARGEST_MEGABYTES} MB")


if __name__ == "__main__":
    main()
