"""Starts the function's process and invokes it through the Lambda Runtime API of the local AWS."""

import itertools
import json
import os
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

ACCOUNT = "111122223333"
# Lambda's longest timeout, which is also the function's.
TIMEOUT_SECONDS = 900
POLL_SECONDS = 0.5

numbers = itertools.count(1)


class Function:
    """A process of the function, and its Runtime API in a local AWS."""

    def __init__(self, aws, binary, log, arguments=(), **variables):
        self.aws = aws
        self.name = f"auditor-{next(numbers)}"
        started = aws.ask("PUT", f"functions/{self.name}")
        # Lambda passes on nothing of this machine, such as a proxy or certificates that take time to read.
        kept = os.environ.keys() & {"HOME", "LANG", "PATH", "TMPDIR"}
        environment = {
            **{name: os.environ[name] for name in kept},
            "AWS_LAMBDA_RUNTIME_API": started["runtime_api"],
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": f"AKIA{ACCOUNT}",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            **variables,
        }
        self.process = subprocess.Popen(
            [binary, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        self.invoker = ThreadPoolExecutor(1)

    def wait_until_ready(self):
        """Waits until the function asks for an invocation. Returns since when, in seconds of `time.time()`."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            ready = self.aws.ask("GET", f"functions/{self.name}/ready?timeout_seconds={POLL_SECONDS}")
            if "waiting_since_unix_seconds" in ready:
                return ready["waiting_since_unix_seconds"]
            if ready["kind"] != "timed_out":
                raise RuntimeError(f"the function failed to start: {ready['payload']}")
            if self.process.poll() is not None:
                raise RuntimeError(f"the function ended with status {self.process.returncode}")
        raise RuntimeError("the function does not ask for an invocation")

    def invoke(self, event):
        """Invokes the function. Returns the outcome: its `kind`, `payload` and `milliseconds`."""
        self.wait_until_ready()
        return self.aws.ask("POST", f"functions/{self.name}/invocations", json.dumps(event))

    def hand_over(self, event):
        """Invokes the function in the background. Returns the future outcome."""
        return self.invoker.submit(self.invoke, event)

    def memory_kilobytes(self, name):
        """Returns a field of /proc/PID/status, such as the largest resident set so far, `VmHWM`."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(f"{name}:"))

    def kill(self):
        self.process.kill()
        self.process.wait()
        # An invocation in progress ends, because its process has.
        self.invoker.shutdown()
        self.aws.ask("DELETE", f"functions/{self.name}")


def scheduled_event(number, at):
    return {
        "version": "0",
        "id": f"event {number}",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT,
        "time": at,
        "region": "us-east-1",
        "resources": [],
        "detail": {},
    }


class LocalAws:
    """The local AWS as a program."""

    def __init__(self, binary, *options):
        command = [str(word) for word in (binary, *options)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the local AWS does not start")
        self.started = json.loads(line)
        self.endpoint = self.started["endpoint"]
        # A proxy of the user cannot reach the loopback of this machine.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, method, path, body=None):
        """Sends a control request. Returns the decoded response."""
        data = body.encode() if body is not None else None
        request = urllib.request.Request(f"{self.endpoint}/_local-aws/{path}", data, method=method)
        # An invocation waits for the function twice: for its request, and for its answer.
        with self.opener.open(request, timeout=2 * TIMEOUT_SECONDS + 10) as answer:
            return json.load(answer)

    def kill(self):
        self.process.kill()
        self.process.wait()
