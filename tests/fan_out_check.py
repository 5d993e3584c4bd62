#!/usr/bin/env python3
"""Runs `statemachine/audit.asl.json` in an interpreter of the Amazon States Language that is not ours.

    .tools/moto/bin/python tests/fan_out_check.py FOLDER-OF-THE-BINARIES [--accounts N]

The interpreter is the one in moto, which comes from LocalStack. Its tasks invoke processes of the built function
over the Lambda Runtime API; EC2, STS and S3 are the local AWS. Batches are killed, throttled, and run twice, and
one fails each time. Nothing may be lost, and there must be one snapshot.

What the interpreter lacks, and what this test does instead:

- `ItemBatcher`: it is left out of the definition, and the items are batched here, by its own fields.
- `InputType` `JSONL`: it reads `JSON`, so the lines are handed to it as a list.
- Lambda: moto would start containers. Its client is replaced by one that invokes the processes.
- EventBridge: its client is replaced by one that keeps the events, which the rule of the template then selects from.
- `ToleratedFailurePercentage` must have a decimal point, and is ignored. No limit of 256 KB is enforced; the payloads
  of the function are checked here.
- Retries do not wait.
"""

import argparse
import datetime
import io
import json
import logging
import queue
import re
import subprocess
import sys
import tempfile
import threading
import types
import urllib.request
from collections import Counter
from pathlib import Path

import boto3
from botocore.exceptions import ClientError
import message_check
from function import ACCOUNT, Function, LocalAws, scheduled_event
from moto import mock_aws
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_map.item_reader.eval import resource_eval_s3
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_events

ROOT = Path(__file__).resolve().parent.parent
BUCKET = "archive"
ROLE = "reader"
REGIONS = [
    *("af-south-1", "ap-northeast-1", "ap-northeast-2", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1"),
    *("eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "sa-east-1", "us-east-1", "us-east-2", "us-west-2"),
]
REPORTS = 3
# The machine has two cores.
PROCESSES = 3
# Step Functions accepts no more from a task, or from all batches together.
MAX_PAYLOAD_BYTES = 256 * 1024
EXECUTION_SECONDS = 300


class Failed(Exception):
    """Something is not as it must be."""


def check(what, given, wanted):
    if given != wanted:
        raise Failed(f"{what}\n  given:  {given!r:.2000}\n  wanted: {wanted!r:.2000}")


class Faults:
    """What goes wrong with the batches, by their numbers in the order in which they come."""

    ALWAYS_KILLED, KILLED_ONCE, LOST_ANSWER, THROTTLED = range(4)

    def __init__(self):
        self.lock = threading.Lock()
        self.numbers = {}
        self.attempts = Counter()

    def of(self, payload):
        """Returns the number of a batch, and the number of its attempt."""
        with self.lock:
            first = json.dumps(payload["targets"][0])
            number = self.numbers.setdefault(first, len(self.numbers))
            self.attempts[number] += 1
            return number, self.attempts[number]


class Lambda:
    """Lambda for the interpreter: as many invocations at a time as there are processes."""

    def __init__(self, start):
        self.start = start
        self.idle = queue.Queue()
        for _ in range(PROCESSES):
            self.idle.put(start())
        self.faults = Faults()
        self.invocations = []

    def invoke(self, FunctionName, Payload):
        """Answers as `Invoke` does, or fails as botocore does."""
        payload = json.loads(Payload)
        if len(Payload) > MAX_PAYLOAD_BYTES:
            raise Failed(f"a task has a payload of {len(Payload)} bytes")
        self.invocations.append(payload["phase"])
        number, attempt = (None, None)
        if payload["phase"] == "target" and "failure" not in payload:
            number, attempt = self.faults.of(payload)
        if (number, attempt) == (Faults.THROTTLED, 1):
            raise service_error("TooManyRequestsException", 429)
        is_killed = number == Faults.ALWAYS_KILLED or (number, attempt) == (Faults.KILLED_ONCE, 1)
        answer = self.answer(payload, is_killed)
        if (number, attempt) == (Faults.LOST_ANSWER, 1):
            raise service_error("ServiceException", 500)
        return answer

    def answer(self, payload, is_killed):
        function = self.idle.get()
        if is_killed:
            function.wait_until_ready()
            outcome = function.hand_over(payload)
            function.wait_until_busy()
            function.kill()
            outcome = outcome.result()
            function = self.start()
        else:
            outcome = function.invoke(payload)
        self.idle.put(function)
        body = json.dumps(outcome["payload"]).encode()
        if len(body) > MAX_PAYLOAD_BYTES:
            raise Failed(f"the function answers with {len(body)} bytes")
        error = {} if outcome["kind"] == "response" else {"FunctionError": "Unhandled"}
        return {"StatusCode": 200, "Payload": io.BytesIO(body), **error}

    def stop(self):
        while not self.idle.empty():
            self.idle.get().kill()


def service_error(code, status):
    metadata = {"HTTPStatusCode": status, "RequestId": "request"}
    return ClientError({"Error": {"Code": code, "Message": code}, "ResponseMetadata": metadata}, "Invoke")


class Process(Function):
    """A process of the function that can be killed while it works."""

    def wait_until_busy(self):
        """Waits until the function has taken the invocation, and has had some time for it."""
        for _ in range(3_000):
            if "waiting_since_unix_seconds" not in self.aws.ask("GET", f"functions/{self.name}/ready?timeout_seconds=0.01"):
                threading.Event().wait(0.1)
                return
        raise Failed("the function does not take a batch")


class Events:
    """EventBridge for the interpreter: keeps what it is sent, as a rule sees it."""

    def __init__(self):
        self.sent = []

    def put_events(self, Entries):
        for entry in Entries:
            names = {"Source": "source", "DetailType": "detail-type", "Resources": "resources"}
            event = {name: entry[given] for given, name in names.items()}
            place = {"account": ACCOUNT, "region": "us-east-1", "ingestion-time": 1}
            self.sent.append({**event, **place, "detail": json.loads(entry["Detail"])})
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "event"}] * len(Entries)}


class Archive:
    """S3 for the interpreter, and for the checks."""

    def __init__(self, endpoint, folder, batcher):
        self.endpoint = endpoint
        self.folder = folder
        self.batcher = batcher
        self.batches = []

    def get_object(self, Bucket, Key):
        """Reads the list of targets: its lines as a list of the batches that `ItemBatcher` makes of them."""
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{self.endpoint}/{Bucket}/{Key}") as answer:
            lines = [json.loads(line) for line in answer.read().splitlines()]
        run_id = re.search(r"/runs/dt=[^/]+/([^/]+)/", Key)[1]
        size, most_bytes = self.batcher["MaxItemsPerBatch"], self.batcher["MaxInputBytesPerBatch"]
        check("the input of a batch", self.batcher["BatchInput"], {"run_id.$": "$.plan.run_id"})
        for line in lines:
            batch = self.batches[-1] if self.batches else None
            if batch is None or len(batch) == size or len(json.dumps([*batch, line])) > most_bytes:
                self.batches.append([])
            self.batches[-1].append(line)
        batches = [{"BatchInput": {"run_id": run_id}, "Items": batch} for batch in self.batches]
        return {"Body": io.BytesIO(json.dumps(batches).encode())}

    def keys(self, part):
        files = (file for file in self.folder.rglob("*") if file.is_file())
        return sorted(key for key in (str(file.relative_to(self.folder)) for file in files) if part in key)

    def json(self, key):
        return json.loads((self.folder / key).read_text())


def adapted(definition):
    """Returns the definition without what the interpreter lacks, and its batcher."""
    substitutions = {"Partition": "aws", "FunctionArn": message_check.ARN}
    for name, value in {**substitutions, "MaxConcurrency": str(PROCESSES)}.items():
        definition = definition.replace("${%s}" % name, value)
    document = json.loads(definition)
    audit = document["States"]["AuditTargets"]
    check("the type of the list", audit["ItemReader"]["ReaderConfig"], {"InputType": "JSONL"})
    audit["ItemReader"]["ReaderConfig"]["InputType"] = "JSON"
    audit["ToleratedFailurePercentage"] = float(audit["ToleratedFailurePercentage"])
    batcher = audit.pop("ItemBatcher")
    return json.dumps(document), batcher


def execute(definition, event, clients):
    """Runs an execution in the interpreter. Returns its output."""
    for module in (lambda_eval_utils, resource_eval_s3, state_task_service_events):
        module.boto_client_for = lambda service, **_: clients[service]
    # It warns about what is said above.
    logging.getLogger("moto.stepfunctions").setLevel(logging.ERROR)
    retrier_decl.time = types.SimpleNamespace(sleep=lambda _: None)
    states = boto3.client("stepfunctions", region_name="us-east-1")
    machine = states.create_state_machine(
        name=f"audit-{len(clients['lambda'].invocations)}",
        definition=definition,
        roleArn=f"arn:aws:iam::{ACCOUNT}:role/states",
    )
    started = states.start_execution(stateMachineArn=machine["stateMachineArn"], input=json.dumps(event))
    for _ in range(EXECUTION_SECONDS * 10):
        execution = states.describe_execution(executionArn=started["executionArn"])
        if execution["status"] != "RUNNING":
            break
        threading.Event().wait(0.1)
    if execution["status"] != "SUCCEEDED":
        raise Failed(f"the execution is {execution['status']}: {execution.get('error')}: {execution.get('cause')}")
    return json.loads(execution["output"])


def check_first(archive, function, answer, accounts):
    """Checks a run of which one batch failed each time."""
    [failed] = [batch for number, batch in enumerate_batches(archive, function) if number == Faults.ALWAYS_KILLED]
    targets = len(accounts) * len(REGIONS)
    check("targets", answer["counts"]["targets"], {
        "complete": targets - len(failed), "incomplete": 0, "failed": len(failed), "skipped": 0
    })
    snapshot = archive.json(answer["snapshot"]["key"])
    check("the snapshots", archive.keys("/snapshots/"), [answer["snapshot"]["key"]])
    check("the latest", archive.json("image-usage/v1/latest.json"), snapshot)
    ledger = {(line["account_id"], line["region"]): line for line in snapshot["targets"]}
    check("lines of the ledger", (len(snapshot["targets"]), len(ledger)), (targets, targets))
    check("every target", set(ledger), {(account, region) for account in accounts for region in REGIONS})
    # The message is that of the emulator of the Runtime API.
    errors = {(line["error"] or {}).get("code") for line in ledger.values()}
    check("reasons", errors, {None, "BatchFailed"})
    for line in failed:
        reason = ledger[line["account_id"], line["region"]]["error"]["message"]
        check("the reason", reason.startswith("the function failed: Runtime.ExitError"), True)
    reports = sum(line["reports"] for line in ledger.values())
    check("reports", (reports, answer["counts"]["reports"]["total"]), ((targets - len(failed)) * REPORTS,) * 2)
    phases = Counter(function.invocations)
    retries = 2 + 1 + 1 + 1  # Killed each time, killed once, an answer that was lost, throttled.
    check("invocations", phases, {"plan": 1, "target": len(archive.batches) + retries + 1, "publish": 1})
    print(f"fan out: {targets} targets in {len(archive.batches)} batches, {phases['target'] - 1} attempts; {len(failed)} targets failed with their batch, none is lost")


def enumerate_batches(archive, function):
    numbers = function.faults.numbers
    return ((numbers[json.dumps(batch[0])], batch) for batch in archive.batches)


def check_announced(events, answer):
    """Checks that the summary is on the event bus, where the rule of the template makes a message of it."""
    [event] = events.sent
    check("the event", event["detail"]["responsePayload"], answer)
    check("a run with failed targets becomes a message", message_check.is_sent(event), True)
    check("its first line", message_check.message(event, chat=False).splitlines()[0], f'"{answer["headline"]}"')
    quiet = {**answer, "needs_attention": False}
    detail = {**event["detail"], "responsePayload": quiet}
    check("a run without news", message_check.is_sent({**event, "detail": detail}), False)


def check_again(archive, function, answer, event, definition, clients):
    """Checks that an execution with the same event finds the run done."""
    before = archive.keys("")
    output = execute(definition, event, clients)
    check("again", output["plan"], {"run_id": answer["run_id"], "already_archived": True, "targets": None})
    check("again: the objects", archive.keys(""), before)
    check("again: the last invocation", function.invocations[-1], "plan")
    check("again: no message", len(clients["events"].sent), 1)


def check_next_day(archive, function, event, definition, clients, targets):
    """Checks that the next run reads every target, and goes on with what the first one knew."""
    archive.batches.clear()
    function.faults.attempts.clear()
    function.faults.of = lambda payload: (None, None)
    answer = execute(definition, event, clients)
    check("the next run", answer["status"], "complete")
    check("the next run: targets", answer["counts"]["targets"]["complete"], targets)
    snapshot = archive.json(answer["snapshot"]["key"])
    check("the next run: changes", snapshot["changes"]["targets_not_compared"], [])
    check("the next run: entries fetched twice", snapshot["counts"]["reports"]["total"], targets * REPORTS)


def run(binaries, folder, accounts):
    options = ("--regions", ",".join(REGIONS), "--accounts", ",".join(accounts), "--role", ROLE, "--reports", REPORTS)
    aws = LocalAws(binaries / "local-aws", *options, "--bucket", BUCKET, "--s3-root", folder / "s3", "--max-seconds", 900)
    settings = {
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AUDITOR_ARCHIVE_BUCKET": BUCKET,
        "AUDITOR_ACCOUNTS": ",".join(accounts),
        "AUDITOR_ROLE_NAME": ROLE,
        "AUDITOR_REGIONS": ",".join(REGIONS),
    }
    text = (ROOT / "statemachine" / "audit.asl.json").read_text()
    definition, batcher = adapted(text)
    now = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    with (folder / "log").open("w") as log:
        function = Lambda(lambda: Process(aws, binaries / "image-usage-auditor", log, **settings))
        archive = Archive(aws.endpoint, folder / "s3" / BUCKET, batcher)
        clients = {"lambda": function, "s3": archive, "events": Events()}
        try:
            event = scheduled_event(1, f"{now:%Y-%m-%dT%H:%M:%SZ}")
            answer = execute(definition, event, clients)
            check_first(archive, function, answer, accounts)
            check_announced(clients["events"], answer)
            check_again(archive, function, answer, event, definition, clients)
            later = scheduled_event(2, f"{now + datetime.timedelta(minutes=30):%Y-%m-%dT%H:%M:%SZ}")
            check_next_day(archive, function, later, definition, clients, len(accounts) * len(REGIONS))
        finally:
            function.stop()
            aws.kill()
    verified = subprocess.run(
        [binaries / "image-usage", "verify", archive.folder / "image-usage"], capture_output=True, text=True, check=False
    )
    if verified.returncode != 0:
        raise Failed(f"image-usage verify: {verified.stdout}{verified.stderr}")
    print("fan out: image-usage verify:", (verified.stdout or verified.stderr).splitlines()[-1].rpartition(": ")[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=Path)
    parser.add_argument("--accounts", type=int, default=40, help="each has 15 targets")
    arguments = parser.parse_args()
    accounts = [ACCOUNT, *(f"{222_200_000_000 + number}" for number in range(1, arguments.accounts))]
    with tempfile.TemporaryDirectory(prefix="fan-out-check-") as folder:
        try:
            with mock_aws(config={"stepfunctions": {"execute_state_machine": True}, "core": {"reset_boto3_session": True}}):
                run(arguments.binaries.resolve(), Path(folder), accounts)
        except Failed as error:
            log = Path(folder) / "log"
            tail = "".join(log.read_text().splitlines(keepends=True)[-20:]) if log.exists() else ""
            print(f"fan out check failed: {error}\n{tail}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
