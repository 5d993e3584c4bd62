#!/usr/bin/env python3
"""Derives the template of a release, which deploys a package instead of building one, and contains the state machine.
Prints it.

    .ci/release-template.py template.yaml VERSION

Each change must find its place exactly once: a template that has changed there fails here.
"""

import json
import sys
from pathlib import Path
from textwrap import indent

PARAMETERS = """\
  CodeBucket:
    Type: String
    Description: Name of a bucket in this Region that has the package of the release.
    AllowedPattern: "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
  CodePrefix:
    Type: String
    Default: ""
    Description: What the key of the package starts with in CodeBucket. Empty, or ending in a slash.
    AllowedPattern: "^$|^.+/$"
  Architecture:
    Type: String
    Default: arm64
    Description: Architecture of the function. Its package must be in CodeBucket.
    AllowedValues: [arm64, x86_64]
"""

DEFINITION = Path(__file__).resolve().parent.parent / "statemachine" / "audit.asl.json"

CHANGES = [
    (
        "      DefinitionUri: statemachine/audit.asl.json\n",
        # JSON is YAML.
        "      Definition:\n" + indent(json.dumps(json.loads(DEFINITION.read_text()), indent=2), " " * 8) + "\n",
    ),
    (
        """\
      # SAM passes no flags to cargo, so the build profile is configured in Cargo.toml.
      BuildMethod: rust-cargolambda
      BuildProperties:
        # The workspace has other binaries, which do not belong in the package.
        Binary: image-usage-auditor
""",
        "",
    ),
    (
        "      CodeUri: .\n",
        """\
      CodeUri:
        Bucket: !Ref CodeBucket
        Key: !Sub ${CodePrefix}image-usage-auditor-VERSION-${Architecture}.zip
""",
    ),
    ("      Architectures: [arm64]\n", "      Architectures: [!Ref Architecture]\n"),
    (
        "    ParameterGroups:\n",
        """\
    ParameterGroups:
      - Label: { default: The package }
        Parameters: [CodeBucket, CodePrefix, Architecture]
""",
    ),
    ("\nParameters:\n", f"\nParameters:\n{PARAMETERS}"),
]


def released(template, version):
    for before, after in CHANGES:
        if template.count(before) != 1:
            raise ValueError(f"the template has this {template.count(before)} times, and not once:\n{before}")
        template = template.replace(before, after.replace("VERSION", version))
    return template


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(released(Path(sys.argv[1]).read_text(), sys.argv[2]), end="")
