#!/usr/bin/env python3
"""Checks that cargo-lambda invokes the function, as in "Invoke it yourself" in the README.

Starts the local AWS, `cargo lambda watch` and the built function, and runs `cargo lambda invoke
--data-file events/scheduled.json`. The summary that it prints must match the local AWS's reports
and the archived snapshot. `make check-invoke` builds the programs and calls this script.

cargo-lambda only emulates the Lambda service here: if it started the function itself, it would
compile the EC2 client again.
"""

import hashlib
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from demo import (
    BUCKET,
    EVENT,
    FUNCTION,
    INVOCATION_SECONDS,
    REGIONS,
    ROOT,
    Failed,
    check_programs,
    clean_environment,
    parser_with_binaries,
    reports_held,
    run_with_services,
    start_function,
    start_local_aws,
    while_running,
    LambdaService,
    Service,
)

ACCOUNT = "111122223333"
CARGO_LAMBDA = ROOT / ".tools" / "cargo-lambda" / "bin" / "cargo-lambda"


def run(binaries, services, folder):
    check_programs(binaries, "local-aws", FUNCTION)
    local_aws, endpoint = start_local_aws(binaries, ["--regions", ",".join(REGIONS)], folder)
    services.append(local_aws)
    cargo_lambda, lambda_service, port = start_cargo_lambda(folder)
    services.append(cargo_lambda)
    settings = {"AUDITOR_REGIONS": ",".join(REGIONS)}
    services.append(start_function(binaries, lambda_service, endpoint, settings, folder))
    check_summary(invoke_with_cargo_lambda(port, services), endpoint, folder)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def accepts_connections(port):
    with socket.socket() as client:
        client.settimeout(0.5)
        return client.connect_ex(("127.0.0.1", port)) == 0


def start_cargo_lambda(folder):
    """Starts cargo-lambda's Lambda service, and returns it with its addresses and its port."""
    port = free_port()
    options = ["--only-lambda-apis", "--invoke-address", "127.0.0.1", "--invoke-port", port]
    service = Service("lambda", [CARGO_LAMBDA, "lambda", "watch", *options], clean_environment(), folder)
    service.wait_until(lambda: accepts_connections(port))
    address = f"http://127.0.0.1:{port}"
    addresses = LambdaService(f"{address}/.rt/{FUNCTION}", f"{address}/2015-03-31/functions/{FUNCTION}/invocations")
    return service, addresses, port


def invoke_with_cargo_lambda(port, services):
    """Runs `cargo lambda invoke` with the scheduled event, and returns the function's response."""
    options = ["--invoke-address", "127.0.0.1", "--invoke-port", str(port), "--data-file", EVENT]
    command = [CARGO_LAMBDA, "lambda", "invoke", FUNCTION, *options]
    done = while_running(services, lambda: run_captured(command))
    if done.returncode != 0:
        raise Failed(f"cargo lambda invoke ended with exit status {done.returncode}:\n{done.stderr}", services[-1].log)
    return json.loads(done.stdout)


def run_captured(command):
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean_environment(),
        timeout=INVOCATION_SECONDS,
    )


def check_summary(summary, endpoint, folder):
    held = sum(len(reports_held(endpoint, {"account_id": ACCOUNT, "region": region})) for region in REGIONS)
    snapshot = (folder / "s3" / BUCKET / summary["snapshot"]["key"]).read_bytes()
    found = {
        "status": summary["status"],
        "targets": summary["counts"]["targets"],
        "reports": summary["counts"]["reports"]["total"],
        "sha256": summary["snapshot"]["sha256"],
        "already_archived": summary["already_archived"],
    }
    expected = {
        "status": "complete",
        "targets": {"complete": len(REGIONS), "incomplete": 0, "failed": 0, "skipped": 0},
        "reports": held,
        "sha256": hashlib.sha256(snapshot).hexdigest(),
        "already_archived": False,
    }
    if found != expected:
        raise Failed(f"unexpected summary\n  expected: {expected}\n  found:    {found}")
    print(f"cargo lambda invoke: the run is complete, with {held} reports in {len(REGIONS)} Regions")


def main():
    binaries = parser_with_binaries(__doc__).parse_args().binaries.resolve()
    with tempfile.TemporaryDirectory(prefix="invoke-check-") as folder:
        return run_with_services("invoke_check", lambda services: run(binaries, services, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
