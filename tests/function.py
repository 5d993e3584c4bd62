"""The built function in a Lambda service of its own: the Runtime API on loopback."""

import http.server
import json
import os
import queue
import subprocess
import threading
import time
import urllib.request

ACCOUNT = "111122223333"
PATIENCE_SECONDS = 900


class Service(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A function that is killed takes its connection with it."""


class Function:
    """A process of the function; invocations are handed to it one after the other."""

    def __init__(self, binary, log, arguments=(), **variables):
        self.events, self.answers = queue.Queue(), queue.Queue()
        self.invocations = 0
        self.server = Service(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        # Lambda hands on nothing of this machine, such as a proxy or certificates that take time to read.
        kept = os.environ.keys() & {"HOME", "LANG", "PATH", "TMPDIR"}
        environment = {
            **{name: os.environ[name] for name in kept},
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_address[1]}",
            "AWS_LAMBDA_FUNCTION_NAME": "auditor",
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

    def _handler(function):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                request_id, event = function.events.get()
                deadline = int((time.time() + PATIENCE_SECONDS) * 1000)
                arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:auditor"
                self.answer(200, event, {
                    "Lambda-Runtime-Aws-Request-Id": request_id,
                    "Lambda-Runtime-Deadline-Ms": str(deadline),
                    "Lambda-Runtime-Invoked-Function-Arn": arn,
                })

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or read_chunks(self.rfile)
                function.answers.put((self.path.rsplit("/", 1)[-1], json.loads(body)))
                self.answer(202, b"", {})

            def answer(self, status, body, headers):
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler

    def hand_over(self, event):
        """Gives the function an invocation, and doesn't wait for its answer."""
        self.invocations += 1
        self.events.put((f"0d6a6b3f-5b0e-4f7f-8d9c-{self.invocations:012}", json.dumps(event).encode()))

    def invoke(self, event):
        """Gives ("response" or "error", what the function answered)."""
        self.hand_over(event)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.answers.get(timeout=0.5)
            except queue.Empty:
                if self.process.poll() is not None:
                    raise RuntimeError(f"the function ended with status {self.process.returncode}") from None
                if time.monotonic() > deadline:
                    raise RuntimeError("the function doesn't answer") from None

    def memory_kilobytes(self, name):
        """Reads a member of /proc/PID/status, such as the largest resident set so far, `VmHWM`."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(f"{name}:"))

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.server.shutdown()
        self.server.server_close()


def read_chunks(stream):
    body = b""
    while size := int(stream.readline().split(b";")[0] or b"0", 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return body


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
            raise RuntimeError("the local AWS doesn't start")
        self.started = json.loads(line)
        self.endpoint = self.started["endpoint"]

    def ask(self, method, path, body=None):
        # A proxy of the user's has no way to this machine's loopback.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        data = body.encode() if body is not None else None
        request = urllib.request.Request(f"{self.endpoint}/_local-aws/{path}", data, method=method)
        with direct.open(request, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)

    def kill(self):
        self.process.kill()
        self.process.wait()
