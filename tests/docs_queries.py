#!/usr/bin/env python3
"""Runs the queries of the documentation on the demo's archive, and checks the names it uses.

    tests/demo.py && .tools/python/bin/python tests/docs_queries.py [FILE...]

The files are README.md and docs/*.md unless others are given.

Every block whose opening fence ends in `checked` runs where a user would run it. Its result is compared
with what this script reads from the archive on its own. The first line of a block is a comment that says
what the block is for; a block that this script does not know is an error. SQL runs twice: as it is, and
translated from Athena's dialect to DuckDB's, on tables with the columns of template.yaml. Each query also
runs on an archive with the objects of an interrupted attempt, on one without any report, and on one with a
snapshot above 16 MB. The exit status is 1 if anything differs.
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
from copy import deepcopy
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import sqlglot
import yaml
from sqlglot import exp

ROOT = Path(__file__).resolve().parent.parent
FILES = [Path(name).resolve() for name in sys.argv[1:]] or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path: path.read_text() for path in FILES}
# What is checked without regard to the file that it is in.
ALL_TEXT = "\n".join(TEXTS.values())
ARCHIVE = ROOT / ".demo" / "s3" / "image-usage-demo"
LATEST = "image-usage/v1/latest.json"
# The largest JSON document that DuckDB reads unless it is told otherwise.
DUCKDB_OBJECT_BYTES = 16 * 1024 * 1024
IMAGE = re.search(r"image_id = '(ami-\w+)'", ALL_TEXT)[1]

OBJECTS = ("object", "entries_object", "images_object")

failures = []


def check(what, found, expected):
    if found != expected:
        failures.append(f"{what}\n  found:    {found!r:.2000}\n  expected: {expected!r:.2000}")


def blocks(mark="checked"):
    """Yields the runnable blocks as (language, title, text)."""
    for language, text in re.findall(rf"^```(\w+) {mark}\n(.*?)^```$", ALL_TEXT, re.MULTILINE | re.DOTALL):
        yield language, text.splitlines()[0].lstrip("#- "), text


class Archive:
    """The content of an archive, read without jq and without DuckDB."""

    def __init__(self, folder):
        self.folder = folder
        self.snapshot = json.loads((folder / LATEST).read_text())
        self.targets = self.snapshot["targets"]
        self.objects = [t[name] for t in self.targets for name in OBJECTS if t[name]]
        self.images = [
            json.loads(line) for t in self.targets if t["images_object"] for line in lines(folder / t["images_object"]["key"])
        ]
        self.reports = list(self.reports_of(self.snapshot))
        snapshots = [json.loads(path.read_text()) for path in folder.glob("image-usage/v1/snapshots/*/*.json")]
        self.runs = sorted(snapshots, key=lambda snapshot: snapshot["run_id"])
        paths = sorted(folder.glob("image-usage/v1/entries/**/*.gz"))
        # A line that appears twice is one entry.
        self.entries = list({line: json.loads(line) for path in paths for line in lines(path)}.values())

    def reports_of(self, snapshot):
        for target in snapshot["targets"]:
            if target["object"]:
                yield from map(json.loads, lines(self.folder / target["object"]["key"]))

    def history(self):
        """Yields every report of every run, with the run."""
        for run in self.runs:
            yield from ((run, report) for report in self.reports_of(run))

    def with_an_interrupted_attempt(self, folder):
        """Returns a copy of the archive with the objects of an attempt that wrote no snapshot."""
        shutil.copytree(self.folder / "image-usage", folder / "image-usage")
        for archived in self.objects:
            left_over = re.sub(r"(\.[0-9a-f]{8})?\.jsonl\.gz$", ".0123abcd.jsonl.gz", archived["key"])
            shutil.copy(folder / archived["key"], folder / left_over)
        return Archive(folder)

    def without_reports(self, folder):
        """Returns an archive with one run, whose targets are complete and have no reports."""
        complete = [deepcopy(target) for target in self.targets if target["object"]]
        for target in complete:
            key = target["object"]["key"]
            empty = gzip.compress(b"")
            (folder / key).parent.mkdir(parents=True)
            (folder / key).write_bytes(empty)
            target["object"].update(sha256=hashlib.sha256(empty).hexdigest(), bytes=len(empty), lines=0)
            target.update(reports=0, entries_object=None, images_object=None)
        nothing = {"previous": None, "status": "complete", "targets": complete, "findings": [], "changes": None}
        snapshot = json.dumps({**self.snapshot, **nothing})
        date = self.snapshot["scheduled_at"][:10]
        run = folder / f"image-usage/v1/snapshots/dt={date}/{self.snapshot['run_id']}.json"
        run.parent.mkdir(parents=True)
        for path in (run, folder / LATEST):
            path.write_text(snapshot)
        return Archive(folder)

    def with_a_large_snapshot(self, folder):
        """Returns a copy of the archive whose newest snapshot is larger than what DuckDB reads by default."""
        shutil.copytree(self.folder / "image-usage", folder / "image-usage")
        large = deepcopy(self.snapshot)
        [error] = [target["error"] for target in large["targets"] if target["error"]]
        error["message"] += " long" * (DUCKDB_OBJECT_BYTES // 5)
        day = f"dt={large['scheduled_at'][:10]}"
        for path in (folder / f"image-usage/v1/snapshots/{day}/{large['run_id']}.json", folder / LATEST):
            path.write_text(json.dumps(large))
        return Archive(folder)


def lines(path):
    return gzip.decompress(path.read_bytes()).splitlines()


def moment(text):
    """Returns a time as DuckDB does: in UTC, without a time zone."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=None) if text else None


def expiring(archive):
    fields = ("expiration_time", "account_id", "region", "report_id", "image_id")
    reports = [[report[name] for name in fields] for report in archive.reports if "expiring" in report["findings"]]
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
    return [
        (
            *(moment(run["scheduled_at"]), t["account_id"], t["region"], t["status"]),
            t["reports"] if t["status"] == "complete" else None,
        )
        for run in archive.runs
        if run["scope"]["full"]
        for t in run["targets"]
    ]


def last_seen(archive):
    """Returns each report with the last run that has it, by account, Region and ID."""
    return {(r["account_id"], r["region"], r["report_id"]): (run, r) for run, r in archive.history()}


def history_of_image(archive):
    rows = [
        (
            *key,
            *(report["state"], moment(report["creation_time"]), moment(run["scheduled_at"])),
            *(report["entries"]["status"], report["entries"].get("count")),
        )
        for key, (run, report) in last_seen(archive).items()
        if report["image_id"] == IMAGE
    ]
    return sorted(rows, key=lambda row: row[4])


def consumers(archive):
    entries = [entry for entry in archive.entries if entry["image_id"] == IMAGE]
    newest = max((entry["report_creation_time"] for entry in entries), key=moment, default=None)
    rows = []
    for who in {(e["consumer_account_id"], e["resource_type"]) for e in entries if e["consumer_account_id"]}:
        counted = Counter()
        for entry in entries:
            if (entry["consumer_account_id"], entry["resource_type"]) == who:
                counted[moment(entry["report_creation_time"])] += entry["usage_count"]
        rows.append((*who, min(counted), max(counted), counted[max(counted)], moment(newest)))
    return sorted(rows)


def uncovered(archive):
    rows = [
        (*(image[name] for name in ("account_id", "region", "image_id")), image["image"]["name"], image["verdict"])
        for image in archive.images
        if image["coverage"] == "uncovered"
    ]
    return sorted(rows)


def most_frequent(words):
    return sorted(Counter(words).items(), key=lambda row: (-row[1], row[0]))


def unarchived(archive):
    rows = [
        [
            *(report[name] for name in ("expiration_time", "account_id", "region", "report_id", "image_id")),
            *(report["entries"]["status"], report["entries"].get("code")),
        ]
        for report in archive.reports
        if "unarchived" in report["findings"]
    ]
    return sorted(rows, key=lambda row: (row[0], row[3]))


def changed(archive):
    newest = max(moment(run["scheduled_at"]) for run in archive.runs)
    rows = []
    for run in archive.runs:
        scheduled_at, changes = moment(run["scheduled_at"]), run["changes"]
        if changes and scheduled_at > newest - timedelta(days=7):
            rows += [(scheduled_at, f"finding {word}", finding) for word in ("opened", "resolved") for finding in changes[word]]
            rows += [(scheduled_at, "report appeared", subject(report)) for report in changes["appeared"]]
            for report in changes["gone"]:
                loss = "" if report["archived"] else ", entries not archived"
                rows.append((scheduled_at, f"report gone{loss}", subject(report)))
            for report in changes["changed_state"]:
                rows.append((scheduled_at, f"report {report['to'] or 'without a state'}", subject(report)))
            for image in changes["verdicts"]:
                change = f"verdict {image['to']} instead of {image['from']}"
                rows.append((scheduled_at, change, "/".join(image[name] for name in ("account_id", "region", "image_id"))))
    return sorted(rows)


def subject(report):
    return "/".join(report[name] for name in ("account_id", "region", "report_id"))


VIEWS = "The views that the queries use, in DuckDB"
VIEW_OF_ENTRIES = "The view of the entries, in DuckDB; it fails while the archive has none"
VIEW_OF_IMAGES = "The view of the AMIs, in DuckDB; it fails while the archive has none"
OF_ENTRIES = "Every report's view of who uses this AMI, and since when"
BY_VERDICT = "AMIs by verdict, in the newest full audit"
BY_REASON = "What keeps AMIs from the verdict no_use_observed, in the newest full audit"
UNCOVERED = "AMIs that no recent report covers, in the newest full audit"
OF_IMAGES = (BY_VERDICT, BY_REASON, UNCOVERED)
ALL_VIEWS = (VIEWS, VIEW_OF_ENTRIES, VIEW_OF_IMAGES)

# What each block prints, or the rows of its last statement.
EXPECTED = {
    "Which reports are about to be lost, and why their entries are not archived": lambda archive: tab_separated(
        unarchived(archive)
    ),
    "Which targets were not read, and why": lambda archive: tab_separated(unread(archive)),
    "The reports of one AMI": lambda archive: "".join(
        json.dumps(report, ensure_ascii=False, separators=(",", ":")) + "\n" for report in reports_of_image(archive)
    ),
    "Whether each object is the one that the snapshot names": lambda archive: "".join(
        f"{archived['key']}: OK\n" for archived in archive.objects
    ),
    VIEWS: lambda archive: [],
    VIEW_OF_ENTRIES: lambda archive: [],
    VIEW_OF_IMAGES: lambda archive: [],
    OF_ENTRIES: consumers,
    BY_VERDICT: lambda archive: most_frequent(image["verdict"] for image in archive.images),
    BY_REASON: lambda archive: most_frequent(reason for image in archive.images for reason in image["reasons"]),
    UNCOVERED: uncovered,
    "What changed in the last seven days; of each change, at most the 1,000 that a snapshot lists": changed,
    "Reports that are about to be lost: their entries are not in the archive": lambda archive: [
        (moment(time), *rest) for time, *rest in unarchived(archive)
    ],
    "Failed reports by reason, in the newest full audit": failed_by_reason,
    "Reports per account and Region over time; no number where the target was not read completely": over_time,
    "Every report of one AMI that was ever archived, as it was last seen": history_of_image,
    "Which reports expire first, all of them and not only the 1,000 that a snapshot lists": lambda archive: [
        (moment(time), *rest) for time, *rest in expiring(archive)
    ],
}


class Template(yaml.SafeLoader):
    """Reads a CloudFormation template. Of a function call, it keeps the arguments."""


Template.add_multi_constructor(
    "!",
    lambda loader, _, node: (
        loader.construct_scalar(node)
        if isinstance(node, yaml.ScalarNode)
        else loader.construct_sequence(node, deep=True)
        if isinstance(node, yaml.SequenceNode)
        else loader.construct_mapping(node, deep=True)
    ),
)


def make_tables(database):
    """Creates DuckDB views that correspond to the Glue tables of the template."""
    resources = yaml.load((ROOT / "template.yaml").read_text(), Template)["Resources"].values()
    for table in (r["Properties"]["TableInput"] for r in resources if r["Type"] == "AWS::Glue::Table"):
        storage = table["StorageDescriptor"]
        files = storage["Location"][0].replace("s3://${Bucket}/${ArchivePrefix}", "image-usage/") + "dt=*/**"
        types = {c["Name"]: exp.DataType.build(c["Type"], "hive").sql("duckdb") for c in storage["Columns"]}
        if database.execute("SELECT count(*) FROM glob(?)", [files]).fetchone() == (0,):
            # DuckDB fails if there is no file; Athena returns no rows.
            columns = ", ".join(f'"{name}" {kind}' for name, kind in {**types, "dt": "TEXT", "$path": "TEXT"}.items())
            database.execute(f"CREATE TABLE {table['Name']} ({columns})")
            continue
        columns = ", ".join(f"\"{name}\": '{kind}'" for name, kind in types.items())
        names = ", ".join(f'"{name}"' for name in types)
        database.execute(f"""
            CREATE VIEW {table['Name']} AS
            SELECT {names}, regexp_extract("$file", 'dt=([^/]+)', 1) AS dt, 's3://bucket/' || "$file" AS "$path"
            FROM read_json('{files}', format = 'newline_delimited', filename = '$file',
                           hive_partitioning = false, maximum_object_size = 67108864, columns = {{{columns}}})
        """)


def from_athena(text):
    """Translates statements from Athena's dialect to DuckDB's."""
    for statement in sqlglot.parse(text, read="athena"):
        # Athena expands the fields of a row to columns; DuckDB does so only in a SELECT.
        for unnest in list(statement.find_all(exp.Unnest)):
            alias = unnest.args["alias"]
            unnest.set("alias", None)
            rows = f"SELECT unnest({unnest.expressions[0].sql('duckdb')}, max_depth := 2)"
            unnest.replace(sqlglot.parse_one(f"LATERAL ({rows}) AS {alias.sql('duckdb')}", into=exp.Lateral, read="duckdb"))
        yield statement.sql("duckdb")


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
    """Runs every block on an archive, and returns how many queries ran."""
    # The queries name their files relative to the bucket's root.
    os.chdir(archive.folder)
    database, athena = duckdb.connect(), duckdb.connect()
    # In Athena, every time is in UTC.
    athena.execute("SET TimeZone = 'UTC'")
    make_tables(athena)
    for _, title, text in blocks("athena"):
        check(f"{title} ({kind})", run_in_athena(text, athena), [])
    count = 0
    for language, title, text in blocks():
        if title not in EXPECTED:
            failures.append(f"this script has no check for the block `{title}`")
        elif language == "sh":
            count += run_shell_block(archive, kind, title, text)
        else:
            count += run_sql_block(archive, kind, title, text, database, athena)
    return count


def run_shell_block(archive, kind, title, text):
    if shutil.which("jq") is None:
        print(f"SKIPPED, because jq is not installed: {title}")
        return 0
    check(f"{title} ({kind})", run_shell(text), EXPECTED[title](archive))
    return 1


def run_sql_block(archive, kind, title, text, database, athena):
    found, expected = run_sql(text, database), EXPECTED[title](archive)
    needs_entries, needs_images = title in (VIEW_OF_ENTRIES, OF_ENTRIES), title in (VIEW_OF_IMAGES, *OF_IMAGES)
    if needs_entries and not archive.entries or needs_images and not archive.images:
        check(f"{title} ({kind}) fails", isinstance(found, str), True)
    else:
        check(f"{title} ({kind})", found, expected)
    if title in ALL_VIEWS:
        return 1
    check(f"{title} ({kind}, as in Athena)", run_in_athena(text, athena), expected)
    return 2


def run_in_athena(text, athena):
    return run_sql("; ".join(from_athena(text)), athena)


def check_expectations(archive):
    """Checks that every query has a result in the demo's archive: otherwise running it would prove nothing."""
    for title, expected in EXPECTED.items():
        if title not in ALL_VIEWS:
            check(f"the demo's archive has a result for `{title}`", bool(expected(archive)), True)
    check("the documented queries", sorted(title for _, title, _ in blocks()), sorted(EXPECTED))


def check_excerpts(archive):
    """Checks that excerpts of a snapshot or of lines have the fields of the archive."""
    written = json.dumps(archive.snapshot)
    excerpts = re.findall(r"^```json\n(.*?)^```$", ALL_TEXT, re.MULTILINE | re.DOTALL)
    excerpts = [excerpt for excerpt in excerpts if '"schema_version"' in excerpt]
    check("there is an excerpt of a snapshot", bool(excerpts), True)
    for name in re.findall(r'"(\w+)":', "".join(excerpts)):
        check(f"the snapshot has the excerpt's field `{name}`", f'"{name}":' in written, True)
    fields = [list(archive.reports[0]), list(archive.entries[0])]
    for line in re.findall(r'^{"account_id".*}$', ALL_TEXT, re.MULTILINE):
        check(f"an archived line has the fields of {line:.60}…", list(json.loads(line.replace(",…", ""))) in fields, True)


def rust_files():
    return sorted(path for folder in ("src", "crates") for path in (ROOT / folder).rglob("*.rs"))


def declared_in(declaration, pattern):
    """Returns the names that match in the Rust file with the declaration. Reports it if there are none."""
    texts = [text for text in map(Path.read_text, rust_files()) if re.search(declaration, text)]
    found = [name for text in texts for name in re.findall(pattern, text)]
    check(f"the file with `{declaration}` has names", bool(found), True)
    return found


def error_codes():
    """Returns the codes of the auditor's own errors, and the errors that the function returns."""
    declared = ROOT / "crates" / "archive" / "src" / "domain" / "error_code.rs"
    if declared.exists():
        texts = [declared.read_text(), *(t for t in map(Path.read_text, rust_files()) if "pub enum RunError" in t)]
        return {code for text in texts for code in re.findall(r'=> "([A-Z]\w+)"', text)}
    pattern = r'(?:code: |own\(|: &str = |: &\'static str = )"([A-Z][a-z]+[A-Z]\w+)"'
    codes = {code for path in rust_files() for code in re.findall(pattern, path.read_text())}
    codes.update(declared_in(r"pub enum RunError\b", r'=> "([A-Z]\w+)"'))
    return codes - {"DescribeImageUsageReportsResponse", "ImageUsageAuditor"}


def named_in_template(pattern, name="template.yaml"):
    found = re.findall(pattern, (ROOT / name).read_text(), re.MULTILINE)
    check(f"{name} has names", bool(found), True)
    return found


def check_names():
    """Checks that the documentation has every name that the code or the template makes public."""
    template = (ROOT / "template.yaml").read_text()
    parameters = re.search(r"^Parameters:\n(.*?)^\w", template, re.MULTILINE | re.DOTALL)[1]
    settings = set(declared_in(r"pub struct Settings\b", r'"(AUDITOR_\w+)"'))
    codes = error_codes()
    check("the code has error codes", bool(codes), True)
    expected = {
        *settings,
        *codes,
        *re.findall(r"^  (\w+):$", parameters, re.MULTILINE),
        *named_in_template(r"^  (\w+Alarm):$"),
        *named_in_template(r"(?:- |Action: )((?:ec2|kms|logs|organizations|s3|sqs|sts):[A-Z]\w+)"),
        *named_in_template(r"- (ec2:\w+)", "member-role.yaml"),
        *declared_in(r'"ReportsAudited"', r'\("([A-Z]\w+)", '),
        *declared_in(r"pub enum FindingKind\b", r'Self::\w+ => "(\w+)"'),
    }
    quoted = set(re.findall(r"`([^`\n]+)`", ALL_TEXT))
    check("names that are not documented", sorted(expected - quoted), [])
    documented = set(re.findall(r"AUDITOR_[A-Z_]+", ALL_TEXT))
    check("documented settings that do not exist", sorted(documented - settings), [])


def anchors_of(text):
    """Returns the anchors of the headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check_links():
    """Checks that the files and headings that the documentation links to exist."""
    for path, text in TEXTS.items():
        for link in re.findall(r"""(?:\]\(|(?:src|href)=")(?!https?:|mailto:)([^)"\s]+)""", text):
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            check(f"{link}, which {path.name} links to, exists", target.exists(), True)
            if anchor and target.suffix == ".md" and target.exists():
                is_there = anchor in anchors_of(target.read_text())
                check(f"the heading {link}, which {path.name} links to, exists", is_there, True)


def main():
    if not (ARCHIVE / LATEST).exists():
        sys.exit("docs_queries: there is no archive of the demo: run `make demo` first")
    archive = Archive(ARCHIVE)
    check_expectations(archive)
    check_excerpts(archive)
    check_names()
    check_links()
    count = run_blocks(archive, "the demo's archive")
    others = {
        "an archive with an interrupted attempt": Archive.with_an_interrupted_attempt,
        "an archive without reports": Archive.without_reports,
        "an archive with a large snapshot": Archive.with_a_large_snapshot,
    }
    for kind, made in others.items():
        with tempfile.TemporaryDirectory() as folder:
            run_blocks(made(archive, Path(folder).resolve()), kind)
            os.chdir(ROOT)
    for failure in failures:
        print(f"docs_queries: {failure}", file=sys.stderr)
    if failures:
        sys.exit(1)
    print(f"{len(FILES)} files: {count} queries ran on {1 + len(others)} archives, every result as expected")


if __name__ == "__main__":
    main()
