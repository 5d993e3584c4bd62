#!/usr/bin/env python3
"""Measures how long `image-usage who` takes on an archive of 60 runs over 17 Regions, from a folder.

    python benches/answer.py FOLDER-OF-THE-RELEASE-BUILD

The function writes the archive. The medians and ranges of ten answers each are printed.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from function import Function, LocalAws, scheduled_event  # noqa: E402

RUNS, REGIONS, REPORTS = 60, 17, 300
ANSWERS = 10
# The function takes an event that is much older for a sample.
FIRST_RUN = timedelta(days=13)


def main():
    release = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="answer-") as folder:
        folder = Path(folder)
        regions = ",".join(f"xx-region-{number}" for number in range(REGIONS))
        aws = LocalAws(
            release / "local-aws",
            *("--regions", regions, "--reports", REPORTS, "--bucket", "archive"),
            *("--s3-root", folder / "s3", "--max-seconds", 3600),
        )
        function = Function(
            aws,
            release / "image-usage-auditor",
            (folder / "log").open("w"),
            AWS_ENDPOINT_URL=aws.endpoint,
            AUDITOR_ARCHIVE_BUCKET="archive",
            AUDITOR_ARCHIVE_PREFIX="",
            AUDITOR_REGIONS=regions,
        )
        try:
            begun = datetime.now(timezone.utc) - FIRST_RUN
            for number in range(RUNS):
                at = begun + number * FIRST_RUN / RUNS
                outcome = function.invoke(scheduled_event(number, f"{at:%Y-%m-%dT%H:%M:%SZ}"))
                if outcome["kind"] != "response":
                    raise SystemExit(f"the run failed: {outcome['payload']}")
        finally:
            function.kill()
            aws.kill()
        archive = folder / "s3" / "archive"
        listed = subprocess.run([release / "image-usage", "images", archive], capture_output=True, text=True, check=True)
        images = listed.stdout.splitlines()[1:]
        image = images[len(images) // 2].split()[2]
        snapshots = sum(1 for _ in archive.glob("v1/snapshots/*/*.json"))
        size = sum(path.stat().st_size for path in archive.glob("v1/**/*") if path.is_file())
        print(f"{snapshots} runs over {REGIONS} Regions, {len(images):,} AMIs, {size / 1e6:.0f} MB")
        for options in ([], ["--json"], ["--history"]):
            command = [release / "image-usage", "who", image, archive, *options]
            seconds = []
            for _ in range(ANSWERS):
                start = time.perf_counter()
                answer = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds.append(time.perf_counter() - start)
            if options == ["--json"]:
                assert json.loads(answer.stdout)["known"], "the AMI is not known"
            figures = (statistics.median(seconds), min(seconds), max(seconds))
            words = " ".join(["who", *options])
            print("{}: {:.0f} ms ({:.0f} to {:.0f})".format(words, *(1e3 * figure for figure in figures)))


if __name__ == "__main__":
    main()
