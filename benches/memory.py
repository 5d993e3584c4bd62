#!/usr/bin/env python3
"""Measures the function's peak memory with targets of several sizes, and with one report of many entries.

    python benches/memory.py FOLDER-OF-THE-FUNCTION [FOLDER-OF-THE-LOCAL-AWS]

Runs the function twice for each size, in a process of its own, and checks that every report is archived once.
Ends with status 1 if the peak with the largest target exceeds 128 MB, or if the peak with the largest report exceeds
twice the one with the smallest.
"""

import gzip
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from function import ACCOUNT, Function, LocalAws, scheduled_event  # noqa: E402

# Numbers of reports, and whether their entries are archived too. For the entries of a million reports the
# local AWS, which searches all reports in every call, would take hours, and EC2 longer than a run may take.
SIZES = [(60_000, True), (120_000, True), (60_000, False), (250_000, False), (1_000_000, False)]
LARGEST_MEGABYTES = 128
# Numbers of entries of one report.
ENTRIES = [5_000, 500_000]
# Facts about AMIs are sorted in chunks of 2 MB; of each chunk, 64 KB are held while they are merged.
LARGEST_RATIO = 2


def check_archive(root, summary, reports):
    """Checks that each of the different IDs is archived once. Returns the number of pages."""
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


def measure(binary, local_aws, options, entries):
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        folder = Path(folder)
        aws = LocalAws(
            local_aws,
            *("--regions", "us-east-1", *options, "--bucket", "archive"),
            *("--s3-root", folder / "s3", "--max-seconds", 3600),
        )
        log = (folder / "log").open("w")
        function = Function(
            aws,
            binary,
            log,
            AWS_ENDPOINT_URL=aws.endpoint,
            AUDITOR_ARCHIVE_BUCKET="archive",
            AUDITOR_ARCHIVE_ENTRIES="true" if entries else "false",
        )
        try:
            start = time.monotonic()
            # The second run also reads what the first one has archived.
            for day in (22, 23):
                outcome = function.invoke(scheduled_event(day, f"2026-11-{day}T06:00:00Z"))
                summary = outcome["payload"]
                if outcome["kind"] != "response":
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
    first, largest = {}, {}
    for size, entries in SIZES:
        reports, pages, peak, seconds = measure(binary, local_aws, ["--reports", size], entries)
        ratio = peak / first.setdefault(entries, peak)
        largest[size] = max(peak, largest.get(size, 0))
        print(f"{reports:>10,} {'yes' if entries else 'no':>7} {pages:>6,} {peak:>8.1f} {ratio:>6.2f} {seconds:>8.1f}", flush=True)
    size, peak = max(largest), max(largest.values())
    met = peak <= LARGEST_MEGABYTES
    print(f"peak with up to {size:,} reports in a target: {peak:.1f} MB, target ≤ {LARGEST_MEGABYTES} MB: {'met' if met else 'NOT met'}")
    print(f"\n{'entries of a report':>19} {'peak MB':>8} {'seconds':>8}")
    peaks = []
    for entries in ENTRIES:
        _, _, peak, seconds = measure(binary, local_aws, ["--empty", "--entries", entries], True)
        peaks.append(peak)
        print(f"{entries:>19,} {peak:>8.1f} {seconds:>8.1f}", flush=True)
    ratio = peaks[-1] / peaks[0]
    is_flat = ratio <= LARGEST_RATIO
    print(f"ratio {ratio:.2f}, target ≤ {LARGEST_RATIO}: {'met' if is_flat else 'NOT met'}")
    if not (met and is_flat):
        sys.exit(1)


if __name__ == "__main__":
    main()
