#!/usr/bin/env python3
"""Runs the queries of README.md on the archive that the demo left, and compares the names it uses.

    tests/demo && python tests/readme_queries.py

Every block whose opening fence ends in `checked` is run where a user would run it, and what it prints
is compared with what this script reads in the archive by itself. The first line of a block, a comment,
says what it is for; a block that this script does not know is an error. The SQL is run twice: as it is,
and translated from Athena's to DuckDB's, on tables made of the columns in template.yaml. Each query is also
run on an archive in which a try died, and on one without any report. Ends with status 1 if anything differs.
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
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import sqlglot
import yaml
from sqlglot import exp

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
ARCHIVE = ROOT / ".demo" / "s3" / "image-usage-demo"
LATEST = "image-usage/v1/latest.json"
IMAGE = re.search(r"image_id = '(ami-\w+)'", README)[1]

failures = []


def check(what, given, wanted):
    if given != wanted:
        failures.append(f"{what}\n  given:  {given!r:.2000}\n  wanted: {wanted!r:.2000}")


def blocks(mark="checked"):
    """The runnable blocks as (language, title, text)."""
    for language, text in re.findall(rf"^```(\w+) {mark}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        yield language, text.splitlines()[0].lstrip("#- "), text


class Archive:
    """What a query may find, read without jq and without DuckDB."""

    def __init__(self, folder):
        self.folder = folder
        self.snapshot = json.loads((folder / LATEST).read_text())
        self.targets = self.snapshot["targets"]
        self.objects = [t[name] for t in self.targets for name in ("object", "entries_object") if t[name]]
        self.reports = list(self.reports_of(self.snapshot))
        snapshots = [json.loads(path.read_text()) for path in folder.glob("image-usage/v1/snapshots/*/*.json")]
        self.runs = sorted(snapshots, key=lambda snapshot: snapshot["run_id"])
        paths = sorted(folder.glob("image-usage/v1/entries/**/*.gz"))
        # A line that is there twice is one entry.
        self.entries = list({line: json.loads(line) for path in paths for line in lines(path)}.values())

    def reports_of(self, snapshot):
        for target in snapshot["targets"]:
            if target["object"]:
                yield from map(json.loads, lines(self.folder / target["object"]["key"]))

    def history(self):
        """Every report of every run, with the run."""
        for run in self.runs:
            yield from ((run, report) for report in self.reports_of(run))

    def with_a_try_that_died(self, folder):
        """The same archive, and the objects of a try that did not come to its snapshot."""
        shutil.copytree(self.folder / "image-usage", folder / "image-usage")
        for archived in self.objects:
            shutil.copy(folder / archived["key"], folder / archived["key"].replace(".jsonl.gz", "-died.jsonl.gz"))
        return Archive(folder)

    def without_reports(self, folder):
        """The same run over targets that are all complete and hold nothing, with nothing before it."""
        complete = [target for target in self.targets if target["object"]]
        for target in complete:
            key = target["object"]["key"]
            empty = gzip.compress(b"")
            (folder / key).parent.mkdir(parents=True)
            (folder / key).write_bytes(empty)
            target["object"].update(sha256=hashlib.sha256(empty).hexdigest(), bytes=len(empty), lines=0)
            target.update(reports=0, entries_object=None)
        nothing = {"previous": None, "status": "complete", "targets": complete, "findings": [], "changes": None}
        snapshot = json.dumps({**self.snapshot, **nothing})
        run = folder / f"image-usage/v1/snapshots/dt=2026-11-22/{self.snapshot['run_id']}.json"
        run.parent.mkdir(parents=True)
        for path in (run, folder / LATEST):
            path.write_text(snapshot)
        return Archive(folder)


def lines(path):
    return gzip.decompress(path.read_bytes()).splitlines()


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
    """Each report with the last run that has it, by account, Region and ID."""
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


def without_observed_usage(archive):
    by_image = {}
    for _, report in last_seen(archive).values():
        if report["creation_time"]:
            image = tuple(report[name] for name in ("account_id", "region", "image_id"))
            by_image.setdefault(image, []).append(report)
    rows = []
    for image, reports in sorted(by_image.items()):
        reports.sort(key=lambda report: moment(report["creation_time"]))
        read = [report for report in reports if report["entries"]["status"] == "archived"]
        if read and read[-1]["entries"]["count"] == 0:
            observed_at, looked_at = moment(read[-1]["creation_time"]), read[-1]["resource_types"]
            rows.append((*image, observed_at, looked_at, read[-1]["requested_account_ids"], reports[-1]["state"]))
    return rows


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
    return sorted(rows)


def subject(report):
    return "/".join(report[name] for name in ("account_id", "region", "report_id"))


VIEWS = "The views that the queries use, in DuckDB"
VIEW_OF_ENTRIES = "The view of the entries, in DuckDB; it fails while the archive has none"
OF_ENTRIES = "Who uses this AMI, and since when"

# What each block prints, or what its last statement gives.
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
    OF_ENTRIES: consumers,
    "AMIs whose last report observed no usage: where to ask further, and no list of what nobody uses": (
        without_observed_usage
    ),
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
    """Reads a template of CloudFormation, and of its functions only what they are given."""


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
    """Makes the template's tables of Glue as views of DuckDB, over the same objects."""
    resources = yaml.load((ROOT / "template.yaml").read_text(), Template)["Resources"].values()
    for table in (r["Properties"]["TableInput"] for r in resources if r["Type"] == "AWS::Glue::Table"):
        storage = table["StorageDescriptor"]
        files = storage["Location"][0].replace("s3://${Bucket}/${ArchivePrefix}", "image-usage/") + "dt=*/**"
        types = {c["Name"]: exp.DataType.build(c["Type"], "hive").sql("duckdb") for c in storage["Columns"]}
        if database.execute("SELECT count(*) FROM glob(?)", [files]).fetchone() == (0,):
            # Where DuckDB finds no file, Athena finds a table without lines.
            columns = ", ".join(f'"{name}" {kind}' for name, kind in {**types, "dt": "TEXT", "$path": "TEXT"}.items())
            database.execute(f"CREATE TABLE {table['Name']} ({columns})")
            continue
        columns = ", ".join(f"\"{name}\": '{kind}'" for name, kind in types.items())
        names = ", ".join(f'"{name}"' for name in types)
        database.execute(f"""
            CREATE VIEW {table['Name']} AS
            SELECT {names}, regexp_extract("$file", 'dt=([^/]+)', 1) AS dt, 's3://bucket/' || "$file" AS "$path"
            FROM read_json('{files}', format = 'newline_delimited', filename = '$file',
                           hive_partitioning = false, columns = {{{columns}}})
        """)


def from_athena(text):
    """Translates statements of Athena's to DuckDB's."""
    for statement in sqlglot.parse(text, read="athena"):
        # Athena makes columns of a row's members; DuckDB does so only in a SELECT.
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
    """Runs every block on an archive, and returns how many were run."""
    # The queries name their files as a user's shell would find them.
    os.chdir(archive.folder)
    database, athena = duckdb.connect(), duckdb.connect()
    # Athena's times are UTC everywhere.
    athena.execute("SET TimeZone = 'UTC'")
    make_tables(athena)
    for _, title, text in blocks("athena"):
        check(f"{title} ({kind})", run_sql("; ".join(from_athena(text)), athena), [])
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
        wanted = EXPECTED[title](archive)
        if title in (VIEW_OF_ENTRIES, OF_ENTRIES) and not archive.entries:
            check(f"{title} ({kind}) fails", isinstance(given, str), True)
        else:
            check(f"{title} ({kind})", given, wanted)
        if language == "sql" and title not in (VIEWS, VIEW_OF_ENTRIES):
            check(f"{title} ({kind}, as in Athena)", run_sql("; ".join(from_athena(text)), athena), wanted)
            run += 1
        run += 1
    return run


def check_expectations(archive):
    """A query that finds nothing in the demo's archive would prove nothing."""
    for title, expected in EXPECTED.items():
        if title not in (VIEWS, VIEW_OF_ENTRIES):
            check(f"the demo's archive has something for `{title}`", bool(expected(archive)), True)
    check("the blocks of the README", sorted(title for _, title, _ in blocks()), sorted(EXPECTED))


def check_excerpt(archive):
    """The excerpt names members of a snapshot only, and the lines are like the archive's."""
    excerpt = re.search(r"^```json\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1]
    written = json.dumps(archive.snapshot)
    for name in re.findall(r'"(\w+)":', excerpt):
        check(f"the snapshot has the excerpt's member `{name}`", f'"{name}":' in written, True)
    members = [list(archive.reports[0]), list(archive.entries[0])]
    for line in re.findall(r'^{"account_id".*}$', README, re.MULTILINE):
        check(f"an archived line has the members of {line:.60}…", list(json.loads(line.replace(",…", ""))) in members, True)


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
        *(
            code
            for path in (ROOT / "src").rglob("*.rs")
            for code in re.findall(r'(?:code: |own\(|: &str = |: &\'static str = )"([A-Z][a-z]+[A-Z]\w+)"', path.read_text())
        ),
    } - {"DescribeImageUsageReportsResponse", "ImageUsageAuditor"}
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
    others = {
        "an archive with a try that died": Archive.with_a_try_that_died,
        "an archive without reports": Archive.without_reports,
    }
    for kind, made in others.items():
        with tempfile.TemporaryDirectory() as folder:
            run_blocks(made(archive, Path(folder).resolve()), kind)
            os.chdir(ROOT)
    for failure in failures:
        print(f"readme_queries: {failure}", file=sys.stderr)
    if failures:
        sys.exit(1)
    print(f"README: {run} queries run on {1 + len(others)} archives, every result as expected")


if __name__ == "__main__":
    main()
