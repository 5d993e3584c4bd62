#!/usr/bin/env python3
"""Measures what each setting of the release profile costs and gains.

    python benches/profiles.py FOLDER-FOR-THE-BUILDS

Builds the function with one setting changed at a time. Prints the size of the package (for this machine, so
larger than for arm64), the instructions for each report (counted by callgrind), and the time of the build.
Builds marked "cold" start from nothing; the others reuse the crates that the setting does not affect. Takes
an hour or two.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measured import instructions_per_report, markdown, zipped_bytes

PROJECT = Path(__file__).resolve().parent.parent
HOT = ("flate2", "lz4_flex", "memchr", "quick-xml", "serde_json", "sha2", "zlib-rs")


def level(package, value):
    return f"profile.release.package.{package}.opt-level={value}"


# The difference, its settings, and whether it is built cold.
VARIANTS = [
    ("the profile as it is", [], True),
    ("the function and link-time optimisation at z", ['profile.release.opt-level="z"'], False),
    ("the same at 2", ["profile.release.opt-level=2"], False),
    ("the same at 3", ["profile.release.opt-level=3"], False),
    ("the crates that process every report at z", [level(package, '"z"') for package in HOT], False),
    ("all other crates at 3", [level('"*"', "3"), level("aws-sdk-ec2", "0")], False),
    ("16 codegen units", ["profile.release.codegen-units=16"], False),
    ("thin LTO", ['profile.release.lto="thin"'], True),
    ("no LTO", ['profile.release.lto="off"'], True),
    (
        "aws-sdk-ec2 at z and as one unit, like the others",
        [level("aws-sdk-ec2", '"z"'), "profile.release.package.aws-sdk-ec2.codegen-units=1"],
        True,
    ),
]


def build(settings, target, *package):
    words = [word for setting in settings for word in ("--config", setting)]
    begun = time.monotonic()
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--target-dir", target, *words, *package]
    subprocess.run(command, cwd=PROJECT, check=True)
    return time.monotonic() - begun


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]).resolve()
    warm = folder / "warm"
    function = ["--bin", "image-usage-auditor"]
    rows = []
    for number, (what, settings, cold) in enumerate(VARIANTS):
        target = warm if number == 0 or not cold else folder / "cold"
        if cold:
            shutil.rmtree(target, ignore_errors=True)
        seconds = build(settings, target, *function)
        if number == 0:
            build([], warm, "--package", "local-aws")
        with tempfile.TemporaryDirectory(prefix="profiles-") as measured:
            binary = target / "release" / "image-usage-auditor"
            size = zipped_bytes(binary, Path(measured))
            instructions = instructions_per_report(binary, warm / "release" / "local-aws", Path(measured))
        took = f"{seconds / 60:.1f} min, cold" if cold else f"{seconds / 60:.1f} min"
        rows.append((what, f"{size / 1e6:.2f} MB", f"{instructions:,}", took))
        print(" | ".join(rows[-1]), flush=True)
    print("\n" + markdown(["difference", "package", "instructions for each report", "build"], rows))


if __name__ == "__main__":
    main()
