#!/usr/bin/env python3
"""Checks which answers of the function become a message, and how a person reads it.

    .tools/moto/bin/python tests/message_check.py FOLDER-OF-THE-BINARIES [--print]

The answers are those of the built function against the local AWS. The rule is the template's; moto, which is a
second implementation of EventBridge, decides if it matches, and fills in the message. `--print` prints one.
"""

import argparse
import datetime
import json
import re
import sys
import tempfile
from pathlib import Path

import yaml
from function import ACCOUNT, Function, LocalAws, scheduled_event
from moto.events.models import EventPattern
from moto.events.utils import EventTemplateParser

ROOT = Path(__file__).resolve().parent.parent
REGIONS = ["eu-west-1", "us-east-1"]
BUCKET = "my-bucket"
ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:image-usage-auditor-Auditor"
# What the template inserts when it is deployed.
INSERTED = {"Auditor.Arn": ARN, "AWS::StackName": "image-usage-auditor", "AWS::AccountId": ACCOUNT, "AWS::Region": "us-east-1"}
MAX_ANSWER_BYTES = 64 * 1024
# SNS accepts no larger one; a mail or a chat shows less.
MAX_MESSAGE_BYTES = 256 * 1024


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms: `!If [a, b, c]` is `{"If": [a, b, c]}`."""


def short_form(loader, tag, node):
    construct = {"scalar": loader.construct_scalar, "sequence": loader.construct_sequence, "mapping": loader.construct_mapping}
    arguments = construct[node.id](node) if node.id == "scalar" else construct[node.id](node, deep=True)
    return {tag: arguments}


Loader.add_multi_constructor("!", short_form)


def rule(chat):
    """Returns the pattern of the template's rule and the transformer of its target, as they are deployed."""

    def resolved(node):
        match node:
            case {"Sub": text}:
                return re.sub(r"\$\{([^}]+)\}", lambda match: INSERTED[match[1]], text)
            case {"If": [condition, positive, negative]}:
                return resolved(positive if {"SendsChatMessages": chat}[condition] else negative)
            case dict():
                return {key: resolved(value) for key, value in node.items()}
            case list():
                return [resolved(value) for value in node]
        return node

    template = yaml.load((ROOT / "template.yaml").read_text(), Loader)  # noqa: S506
    properties = template["Resources"]["AttentionRule"]["Properties"]
    [target] = properties["Targets"]
    return resolved(properties["EventPattern"]), resolved(target["InputTransformer"])


def record(answer, invoke_count=1, arn=ARN):
    """Returns the event that Lambda's destination sends for an answer.

    Source: <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html>
    """
    return {
        "version": "0",
        "id": "9a62db9b-a244-9c3b-ea16-ecd3ca9f3a5b",
        "detail-type": "Lambda Function Invocation Result - Success",
        "source": "lambda",
        "account": ACCOUNT,
        "time": "2026-11-25T06:00:10Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:111122223333:event-bus/default", f"{arn}:$LATEST"],
        "detail": {
            "version": "1.0",
            "timestamp": "2026-11-25T06:00:09.651Z",
            "requestContext": {
                "requestId": "c2a6f2ae-7dbb-4d22-8782-d0485c9877e2",
                "functionArn": f"{arn}:$LATEST",
                "condition": "Success",
                "approximateInvokeCount": invoke_count,
            },
            "requestPayload": {},
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
            "responsePayload": answer,
        },
        "ingestion-time": 1,
    }


def is_sent(event):
    pattern, _ = rule(chat=False)
    return EventPattern.load(json.dumps(pattern)).matches_event(event)


def message(event, chat):
    """Returns the message that SNS gets.

    moto reads the result as JSON, which a text of several lines is not: each line is, and keeps its quotes, as
    with EventBridge. moto leaves the name of a value that does not exist; EventBridge inserts nothing.
    """
    _, transformer = rule(chat)
    template, paths = transformer["InputTemplate"], transformer["InputPathsMap"]
    parts = [template] if chat else template.splitlines()
    filled = [EventTemplateParser.parse(part, paths, event) for part in parts]
    lines = [json.dumps(part, ensure_ascii=False) for part in filled]
    return re.sub(r"<attention_\d+>", "", "\n".join(lines))


def check(what, given, wanted=True):
    if given != wanted:
        sys.exit(f"message check failed: {what}\n  given:  {given!r:.2000}\n  wanted: {wanted!r:.2000}")


class Runs:
    """Runs of the function, each a minute after the one before."""

    def __init__(self, binaries, folder):
        self.binaries = binaries
        self.log = (folder / "log").open("w")
        self.aws = LocalAws(
            binaries / "local-aws",
            *("--regions", ",".join(REGIONS), "--verdicts", "--bucket", BUCKET, "--s3-root", folder / "s3"),
            *("--max-seconds", 300),
        )
        self.begun = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
        self.events = 0

    def event(self):
        self.events += 1
        at = self.begun + datetime.timedelta(minutes=self.events)
        return scheduled_event(self.events, f"{at:%Y-%m-%dT%H:%M:%SZ}")

    def answer(self, event, **settings):
        function = Function(
            self.aws,
            self.binaries / "image-usage-auditor",
            self.log,
            AWS_ENDPOINT_URL=self.aws.endpoint,
            AUDITOR_ARCHIVE_BUCKET=BUCKET,
            AUDITOR_REGIONS=",".join(REGIONS),
            **{"AUDITOR_PENDING_LIMIT_HOURS": "9000", **settings},
        )
        try:
            outcome = function.invoke(event)
        finally:
            function.kill()
        check(f"answer {outcome['payload']}", outcome["kind"], "response")
        payload = outcome["payload"]
        check("size of the answer", len(json.dumps(payload)) <= MAX_ANSWER_BYTES)
        return payload


def check_selection(runs):
    """Checks which answers are sent. Returns one that is."""
    first = runs.answer(runs.event())
    check("the first run tells of what it found", is_sent(record(first)))
    quiet = runs.answer(runs.event())
    check("nothing has changed", (quiet["needs_attention"], quiet["attention"]), (False, []))
    check("a run without news", is_sent(record(quiet)), False)

    event = runs.event()
    # Other limits open findings and change verdicts, as time does.
    longer = {"AUDITOR_OBSERVATION_DAYS": "60"}
    opened = runs.answer(event, AUDITOR_PENDING_LIMIT_HOURS="80", **longer)
    check("findings opened, verdicts changed", all(opened["changes"][what] > 0 for what in ("opened", "changed_verdicts")))
    check("a run in which findings opened", is_sent(record(opened)))
    check("another function, whose name begins alike", is_sent(record(opened, arn=f"{ARN}-2")), False)

    again = runs.answer(event)
    check("the same event again", (again["already_archived"], again["headline"]), (True, opened["headline"]))
    check("an event that was delivered twice", is_sent(record(again)), False)
    check("the retry after an attempt that failed at last", is_sent(record(again, invoke_count=2)))

    resolved = runs.answer(runs.event(), **longer)
    check("findings resolved", resolved["changes"]["resolved"] > 0)
    check("a run in which findings were only resolved", is_sent(record(resolved)), False)
    scoped = runs.answer({"filters": [{"name": "state", "values": ["error"]}]})
    check("a scoped run, whatever it finds", (scoped["counts"]["findings"]["total"] > 0, is_sent(record(scoped))), (True, False))
    preflight = runs.answer({"dry_run": True})
    check("a preflight", (preflight["dry_run"], is_sent(record(preflight))), (True, False))

    runs.aws.ask("POST", "faults", "op=DescribeImageUsageReports,region=us-east-1,kind=denied")
    for _ in range(2):
        partial = runs.answer(runs.event())
        check("a partial run, each time", (partial["status"], is_sent(record(partial))), ("partial", True))
        check("its first sentence", partial["headline"].startswith("Partial run: 1 of 2 targets was not read completely;"))
    runs.aws.ask("DELETE", "faults")
    check("a failed invocation", is_sent({**record(opened), "detail-type": "Lambda Function Invocation Result - Failure"}), False)
    return opened


def check_message(answer):
    event = record(answer)
    text, chat = message(event, chat=False), message(event, chat=True)
    snapshot = answer["snapshot"]["key"]
    page = snapshot.replace("/snapshots/", "/pages/").replace(".json", ".html")
    wanted = [
        answer["headline"],
        f"Run: {answer['run_id']} of image-usage-auditor in {ACCOUNT}/us-east-1",
        f"Snapshot: s3://{BUCKET}/{snapshot}",
        f"Page: s3://{BUCKET}/{page}",
        *(answer["attention"][:10] + [""] * 10)[:10],
    ]
    check("lines of the text", text.splitlines(), [f'"{line}"' for line in wanted])
    content = json.loads(chat)["content"]
    check("title of the chat's message", content["title"], answer["headline"])
    check("the chat's message has every sentence", [s for s in answer["attention"][:10] if s not in content["description"].splitlines()], [])
    check("size", max(len(text), len(chat)) < MAX_MESSAGE_BYTES)
    return text


def check_hostile(answer):
    """No sentence that the function can write breaks the message: this one has every character that it writes."""
    printable = "".join(chr(code) for code in range(0x20, 0x2000) if chr(code) not in '"\\<>' and chr(code).isprintable())
    event = record({**answer, "headline": printable, "attention": [printable] * 20})
    check("a hostile text", message(event, chat=False).count(printable), 11)
    check("a hostile chat message", json.loads(message(event, chat=True))["content"]["description"].count(printable), 10)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=Path)
    parser.add_argument("--print", action="store_true", dest="shows")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="message-check-") as folder:
        runs = Runs(arguments.binaries, Path(folder))
        try:
            answer = check_selection(runs)
        finally:
            runs.aws.kill()
    text = check_message(answer)
    check_hostile(answer)
    print(text if arguments.shows else "message check: the rule selects the runs that need attention, and people can read it")


if __name__ == "__main__":
    main()
