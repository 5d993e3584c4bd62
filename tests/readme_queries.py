#!/usr/bin/env python3
"""Runs the queries of README.md on the archive that the demo left, and compares the names it uses.

    tests/demo && python tests/readme_queries.py

Every block whose opening fence ends in `checked` is run where a user would run it, and what it prints
is compared with what this script reads in the archive by itself. The first line of a block, a comment,
says what it is for; a block that this script does not know is an error. Each query is also run on an
archive without any report. Ends with status 1 if anything differs.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import datetime
from pathlib import Path

import duckdb

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
ARCHIVE = ROOT / ".demo" / "s3" / "image-usage-demo"
LATEST = "image-usage/v1/latest.json"
IMAGE = re.search(r"image_id = '(ami-\w+)'", README)[1]

failures = []


def check(what, given, wanted):
    if given != wanted:
        failures.append(f"{what}\n  given:  {given!r:.2000}\n  wanted: {wanted!r:.2000}")


def blocks():
    """The runnable blocks as (language, title, text)."""
    for language, text in re.findall(r"^```(\w+) checked\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        yield language, text.splitlines()[0].lstrip("#- "), text


class Archive:
    """What a query may find, read without jq and without DuckDB."""

    def __init__(self, folder):
        self.folder = folder
        self.snapshot = json.loads((folder / LATEST).read_text())
        self.targets = self.snapshot["targets"]
        self.objects = [target["object"] for target in self.targets if target["object"]]
        self.reports = [
            json.loads(line)
            for archived in self.objects
            for line in gzip.decompress((folder / archived["key"]).read_bytes()).splitlines()
        ]

    def without_reports(self, folder):
        """The same run over targets that are all complete and hold nothing."""
        complete = [target for target in self.targets if target["object"]]
        for target in complete:
            key = target["object"]["key"]
            empty = gzip.compress(b"")
            (folder / key).parent.mkdir(parents=True)
            (folder / key).write_bytes(empty)
            target["object"].update(sha256=hashlib.sha256(empty).hexdigest(), bytes=len(empty), lines=0)
            target["reports"] = 0
        snapshot = json.dumps({**self.snapshot, "status": "complete", "targets": complete, "findings": []})
        run = folder / f"image-usage/v1/snapshots/dt=2026-11-22/{self.snapshot['run_id']}.json"
        run.parent.mkdir(parents=True)
        for path in (run, folder / LATEST):
            path.write_text(snapshot)
        return Archive(folder)


def moment(text):
    """A time as DuckDB gives it: without a zone, and meant as UTC."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=None) if text else None


def expiring(archive):
    members = ("expiration_time", "account_id", "region", "report_id", "image_id")
    reports = [[report[name] for name in members] for report in archive.reports if "expiring" in report["findings"]]
    return sorted(reports, key=lambda report: (moment(report[0]), report[3]))


def tab_separated(rows):
    def escaped(cell):
        return "" if cell is None else cell.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n")

    return "".join("\t".join(map(escaped, row)) + "\n" for row in rows)


def unread(archive):
    return [
        [target["account_id"], target["region"], target["status"], target["error"]["code"], target["error"]["message"]]
        for target in archive.targets
        if target["status"] in ("failed", "incomplete")
    ]


def reports_of_image(archive):
    return [report for report in archive.reports if report["image_id"] == IMAGE]


def failed_by_reason(archive):
    failed = [report for report in archive.reports if report["state"] == "error"]
    counted = Counter(report["state_reason"] for report in failed)
    targets = {
        reason: sorted({f"{r['account_id']}/{r['region']}" for r in failed if r["state_reason"] == reason})
        for reason in counted
    }
    rows = [(reason, count, targets[reason]) for reason, count in counted.items()]
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def over_time(archive):
    scheduled_at = moment(archive.snapshot["scheduled_at"])
    return [
        (scheduled_at, t["account_id"], t["region"], t["status"], t["reports"] if t["status"] == "complete" else None)
        for t in archive.targets
    ]


def last_seen(archive):
    scheduled_at = moment(archive.snapshot["scheduled_at"])
    return [
        (
            *(report[name] for name in ("account_id", "region", "report_id", "state")),
            *(moment(report["creation_time"]), scheduled_at, report["tags"].get("Owner")),
        )
        for report in reports_of_image(archive)
    ]


VIEWS = "The two views that the other queries use"

# What each block prints, or what its last statement gives.
EXPECTED = {
    "Which reports expire first": lambda archive: tab_separated(expiring(archive)),
    "Which targets were not read, and why": lambda archive: tab_separated(unread(archive)),
    "The reports of one AMI": lambda archive: "".join(
        json.dumps(report, ensure_ascii=False, separators=(",", ":")) + "\n" for report in reports_of_image(archive)
    ),
    "Whether each object is the one that the snapshot names": lambda archive: "".join(
        f"{archived['key']}: OK\n" for archived in archive.objects
    ),
    VIEWS: lambda archive: [],
    "Failed reports by reason, in the newest full audit": failed_by_reason,
    "Reports per account and Region over time; no number where the target was not read completely": over_time,
    "Every report of one AMI that was ever archived, as it was last seen": last_seen,
    "Which reports expire first, all of them and not only the 1,000 that a snapshot lists": lambda archive: [
        (moment(time), *rest) for time, *rest in expiring(archive)
    ],
}


def run_shell(text):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout if done.returncode == 0 else f"exit status {done.returncode}: {done.stderr}"


def run_sql(text, database):
    try:
        return database.execute(text).fetchall()
    except duckdb.Error as error:
        return f"{type(error).__name__}: {error}"


def run_blocks(archive, kind):
    """Runs every block on an archive, and returns how many were run."""
    # The queries name their files as a user's shell would find them.
    os.chdir(archive.folder)
    database = duckdb.connect()
    has_jq = shutil.which("jq") is not None
    run = 0
    for language, title, text in blocks():
        if title not in EXPECTED:
            failures.append(f"no check is known for the block `{title}`")
            continue
        if language == "sh" and not has_jq:
            print(f"SKIPPED, because jq is not installed: {title}")
            continue
        given = run_shell(text) if language == "sh" else run_sql(text, database)
        check(f"{title} ({kind})", given, EXPECTED[title](archive))
        run += 1
    return run


def check_expectations(archive):
    """A query that finds nothing in the demo's archive would prove nothing."""
    for title, expected in EXPECTED.items():
        if title != VIEWS:
            check(f"the demo's archive has something for `{title}`", bool(expected(archive)), True)
    check("the blocks of the README", sorted(title for _, title, _ in blocks()), sorted(EXPECTED))


def check_excerpt(archive):
    """The excerpt names members of a snapshot only, and ends in whole members."""
    excerpt = re.search(r"^```json\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1]
    written = json.dumps(archive.snapshot)
    for name in re.findall(r'"(\w+)":', excerpt):
        check(f"the snapshot has the excerpt's member `{name}`", f'"{name}":' in written, True)


def check_names():
    """What has a name in the code or the template stands in the README under that name."""

    def names(path, pattern):
        found = re.findall(pattern, (ROOT / path).read_text(), re.MULTILINE)
        check(f"{path} has names", bool(found), True)
        return found

    template = (ROOT / "template.yaml").read_text()
    parameters = re.search(r"^Parameters:\n(.*?)^\w", template, re.MULTILINE | re.DOTALL)[1]
    settings = set(names("src/settings.rs", r'"(AUDITOR_\w+)"'))
    expected = {
        *settings,
        *re.findall(r"^  (\w+):$", parameters, re.MULTILINE),
        *names("template.yaml", r"^  (\w+Alarm):$"),
        *names("template.yaml", r"(?:- |Action: )((?:ec2|kms|logs|organizations|s3|sqs|sts):[A-Z]\w+)"),
        *names("member-role.yaml", r"- (ec2:\w+)"),
        *names("src/metrics.rs", r'\("([A-Z]\w+)", '),
        *names("src/findings.rs", r'Self::\w+ => "(\w+)"'),
        *names("src/run.rs", r'=> "([A-Z]\w+)"'),
        *names("src/run.rs", r'code: "(\w+)"'),
        *names("src/aws/failure.rs", r'own\("(\w+)"'),
    }
    quoted = set(re.findall(r"`([^`\n]+)`", README))
    check("names that the README leaves out", sorted(expected - quoted), [])
    check("settings that the code doesn't have", sorted(set(re.findall(r"AUDITOR_[A-Z_]+", README)) - settings), [])
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", README):
        check(f"{target}, which the README links to, exists", (ROOT / target).exists(), True)
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for anchor in re.findall(r"\]\(#([^)]+)\)", README):
        check(f"the heading #{anchor}, which the README links to, exists", anchor in anchors, True)


def main():
    if not (ARCHIVE / LATEST).exists():
        sys.exit("readme_queries: there is no archive of a demo run: run `make demo` first")
    archive = Archive(ARCHIVE)
    check_expectations(archive)
    check_excerpt(archive)
    check_names()
    run = run_blocks(archive, "the demo's archive")
    with tempfile.TemporaryDirectory() as folder:
        run_blocks(archive.without_reports(Path(folder).resolve()), "an archive without reports")
        os.chdir(ROOT)
    for failure in failures:
        print(f"readme_queries: {failure}", file=sys.stderr)
    if failures:
        sys.exit(1)
    print(f"README: {run} queries run on two archives, every result as expected")


if __name__ == "__main__":
    main()
