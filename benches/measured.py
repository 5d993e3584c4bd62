"""Measures the time, CPU time and memory of functions, and reads what they have archived."""

import gzip
import hashlib
import json
import os
import signal
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from function import ACCOUNT, Function, LocalAws, scheduled_event  # noqa: E402, F401

# A process stops here until it can be measured: what happens before its `exec` does not count.
PAUSED = 'kill -STOP $$; exec "$@"'
PAUSED_IN_GROUP = 'echo $$ >"$0/cgroup.procs"; ' + PAUSED


class Measured(Function):
    """A process of a function, measured from its first instruction on."""

    def __init__(self, aws, command, log, quota=None, **variables):
        script = PAUSED_IN_GROUP if quota and quota.group else PAUSED
        name = str(quota.group) if quota and quota.group else "sh"
        super().__init__(aws, "/bin/sh", log, ["-c", script, name, *map(str, command)], **variables)
        try:
            wait_until(lambda: stat(self.process.pid)[0] == "T", "the process does not stop")
            if quota:
                quota.settle()
        except BaseException:
            self.kill()
            raise
        self.cpu_before = self.cpu_seconds()
        # The Runtime API, a process of its own, states times by the same clock.
        self.begun = time.time()
        os.kill(self.process.pid, signal.SIGCONT)
        if quota:
            quota.hold(self.process)

    def cpu_seconds(self):
        """Returns the CPU time of all threads so far, including those that have ended."""
        return cpu_seconds(self.process.pid)

    def wait_for_next(self):
        """Waits until the function asks for an invocation. Returns (seconds, CPU seconds) since its start."""
        waiting_since = self.wait_until_ready()
        return waiting_since - self.begun, self.cpu_seconds() - self.cpu_before

    def measure(self, event):
        """Invokes the function, which must be waiting. Returns (summary, seconds, CPU seconds).

        The seconds are those that the Runtime API has measured: this program is not part of them.
        """
        cpu = self.cpu_seconds()
        outcome = self.invoke(event)
        self.wait_for_next()
        if outcome["kind"] != "response":
            raise SystemExit(f"the run failed: {outcome['payload']}")
        return outcome["payload"], outcome["milliseconds"] / 1e3, self.cpu_seconds() - cpu


def cpu_seconds(pid):
    # The clock of another process, as in clock_getcpuclockid(3), which Python does not provide.
    return time.clock_gettime(~pid << 3 | 2)


def stat(pid):
    with open(f"/proc/{pid}/stat") as line:
        return line.read().rsplit(") ", 1)[1].split()


def wait_until(condition, otherwise):
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise)
        time.sleep(0.0005)


class Quota:
    """A share of a core: a control group if this user may create one; otherwise the process is stopped for the
    rest of each period."""

    PERIOD_SECONDS = 0.02

    def __init__(self, share):
        self.share = share
        self.group = self._make_group()

    def _make_group(self):
        period = int(self.PERIOD_SECONDS * 1e6)
        quota = int(period * self.share)
        for root, files in (
            ("/sys/fs/cgroup", {"cpu.max": f"{quota} {period}"}),
            ("/sys/fs/cgroup/cpu", {"cpu.cfs_period_us": period, "cpu.cfs_quota_us": quota}),
        ):
            group = Path(root) / f"image-usage-auditor-bench-{os.getpid()}"
            if not (group.parent / "cgroup.procs").exists():
                continue
            try:
                group.mkdir()
                for name, value in files.items():
                    (group / name).write_text(str(value))
                return group
            except OSError:
                if group.exists():
                    group.rmdir()
        return None

    def __str__(self):
        if self.group:
            return f"control group, {self.share} core in periods of {self.PERIOD_SECONDS * 1000:.0f} ms"
        return (
            f"no control group could be created: SIGSTOP and SIGCONT, {self.share} of each "
            f"{self.PERIOD_SECONDS * 1000:.0f} ms"
        )

    def settle(self):
        """Waits until what the process used before it stopped no longer counts."""
        time.sleep(5 * self.PERIOD_SECONDS)

    def hold(self, process):
        if not self.group:
            threading.Thread(target=self._hold, args=(process,), daemon=True).start()

    def _hold(self, process):
        runs = self.PERIOD_SECONDS * self.share
        while process.poll() is None:
            time.sleep(runs)
            process.send_signal(signal.SIGSTOP)
            time.sleep(self.PERIOD_SECONDS - runs)
            process.send_signal(signal.SIGCONT)

    def remove(self):
        if self.group:
            wait_until(lambda: not (self.group / "cgroup.procs").read_text(), "the control group is in use")
            self.group.rmdir()


@contextmanager
def running(process):
    """Kills a process at the end of the block."""
    try:
        yield process
    finally:
        process.kill()


class Archived:
    """What a run has archived: its snapshot, and its report lines, sorted."""

    def __init__(self, root, summary):
        key = summary["snapshot"]["key"]
        self.snapshot = json.loads((root / key).read_text())
        self.latest = json.loads((root / key.split("v1/")[0] / "v1" / "latest.json").read_text())
        self.objects = [root / target["object"]["key"] for target in self.snapshot["targets"]]
        self.pages = sum(target["pages"] for target in self.snapshot["targets"])
        lines = [json.loads(line) for path in self.objects for line in gzip.open(path, "rt", encoding="utf-8")]
        for line in lines:
            # Only the function reports entries, and it is configured not to fetch them here.
            line.pop("entries", None)
        self.lines = sorted(json.dumps(line, sort_keys=True) for line in lines)

    def check(self, world):
        """Ends the benchmark unless the run is complete and agrees with what the local AWS holds."""
        statuses = {self.snapshot["status"], *(target["status"] for target in self.snapshot["targets"])}
        if statuses != {"complete"}:
            raise SystemExit(f"the run is not complete: {self.snapshot['targets']}")
        if self.latest != self.snapshot:
            raise SystemExit("latest.json is not the snapshot")
        for path, target in zip(self.objects, self.snapshot["targets"]):
            if hashlib.sha256(path.read_bytes()).hexdigest() != target["object"]["sha256"]:
                raise SystemExit(f"{target['object']['key']} does not have the SHA-256 in the snapshot")
        regions = [world[target["account_id"]][target["region"]] for target in self.snapshot["targets"]]
        reports = sum(region["reports"] for region in regions)
        ids = {json.loads(line)["report_id"] for line in self.lines}
        if (len(self.lines), len(ids), self.snapshot["counts"]["reports"]["total"]) != (reports,) * 3:
            raise SystemExit(f"{reports} reports, but {len(self.lines)} lines with {len(ids)} IDs")
        findings = {kind: sum(region["findings"][kind] for region in regions) for kind in regions[0]["findings"]}
        counted = {kind: self.snapshot["counts"]["findings"][kind] for kind in findings}
        if counted != findings:
            raise SystemExit(f"the local AWS has the findings {findings}, but the snapshot counts {counted}")

    def check_like(self, other):
        """Ends the benchmark unless another candidate has archived the same lines."""
        if self.lines != other.lines:
            mine, theirs = (
                next(iter(set(a) - set(b)), "-") for a, b in ((self.lines, other.lines), (other.lines, self.lines))
            )
            raise SystemExit(f"the candidates archived different lines, such as\n{mine}\n{theirs}")


def markdown(head, rows):
    """Returns a table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def zipped_bytes(binary, folder):
    """Returns the size of the deployment package of a binary."""
    package = folder / "bootstrap.zip"
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(binary, "bootstrap")
    return package.stat().st_size


# Full pages, so that the last one costs as much as the others.
FEW_AND_MANY_REPORTS = (1_000, 3_000)


def instructions_per_report(binary, local_aws, folder):
    """Returns the instructions for each additional report, by callgrind, without the start and end of a run."""
    few, many = FEW_AND_MANY_REPORTS
    counted = [_instructions(binary, local_aws, reports, folder) for reports in (few, many)]
    return round((counted[1] - counted[0]) / (many - few))


def _instructions(binary, local_aws, reports, folder):
    """Returns all instructions of one process with one invocation."""
    profile = folder / f"callgrind-{reports}"
    aws = LocalAws(
        local_aws,
        *("--regions", "us-east-1", "--reports", reports, "--bucket", "archive"),
        *("--s3-root", folder / "s3", "--max-seconds", 600),
    )
    command = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={profile}", binary]
    variables = {
        "AUDITOR_ARCHIVE_BUCKET": "archive",
        "AUDITOR_ARCHIVE_PREFIX": f"{reports}/",
        "AUDITOR_ARCHIVE_ENTRIES": "false",
        "AWS_ENDPOINT_URL": aws.endpoint,
    }
    with (folder / "log").open("w") as log, running(aws):
        function = Measured(aws, command, log, **variables)
        with running(function):
            function.wait_for_next()
            summary, _, _ = function.measure(scheduled_event(reports, "2026-11-22T06:00:00Z"))
            # callgrind writes its file when the process ends, but not if it is killed.
            function.process.send_signal(signal.SIGTERM)
            function.process.wait(timeout=60)
        Archived(folder / "s3" / "archive", summary).check(aws.started["accounts"])
    with profile.open() as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(("totals:", "summary:")))
