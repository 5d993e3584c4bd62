#!/usr/bin/env python3
"""Makes the package of the function: a zip of its one program.

    .ci/package.py PROGRAM PACKAGE

The same program yields the same bytes: its date, its permissions and the system that made the zip are fixed.
"""

import sys
import zipfile
from pathlib import Path

# The earliest date of the format.
DATE = (1980, 1, 1, 0, 0, 0)
UNIX = 3
EXECUTABLE_FILE = 0o100755


def package(program, path):
    entry = zipfile.ZipInfo("bootstrap", DATE)
    entry.create_system = UNIX
    entry.external_attr = EXECUTABLE_FILE << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, Path(program).read_bytes(), compresslevel=9)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    package(*sys.argv[1:])
