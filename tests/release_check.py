#!/usr/bin/env python3
"""Checks how a release is made, without building one.

`make check-release` runs it with the Python of SAM's environment, because it uses SAM's YAML reader and translator.
"""

import hashlib
import importlib.util
import json
import os
import stat
import subprocess
import tempfile
import tomllib
import unittest
import zipfile
from copy import deepcopy
from pathlib import Path

from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform

ROOT = Path(__file__).resolve().parent.parent
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


def script(name):
    """Imports a program of `.ci`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class NoManagedPolicies:
    def load(self):
        return {}


class Release(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.text = (ROOT / "template.yaml").read_text()
        cls.template = yaml_parse(cls.text)
        cls.released = yaml_parse(script("release-template").released(cls.text, VERSION))

    def test_template_of_a_release_differs_only_in_where_the_code_comes_from(self):
        given, released = deepcopy(self.template), deepcopy(self.released)
        own = {"CodeBucket", "CodePrefix", "Architecture"}
        self.assertEqual(released["Parameters"].keys() - given["Parameters"].keys(), own)
        for name in own:
            del released["Parameters"][name]
        [group] = [g for g in released["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"] if own & set(g["Parameters"])]
        released["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"].remove(group)
        before, after = given["Resources"]["Auditor"], released["Resources"]["Auditor"]
        for name in ("BuildMethod", "BuildProperties"):
            del before["Metadata"][name]
        for name in ("CodeUri", "Architectures"):
            del before["Properties"][name], after["Properties"][name]
        machines = [text["Resources"]["AuditStateMachine"]["Properties"] for text in (given, released)]
        definition = json.loads((ROOT / machines[0].pop("DefinitionUri")).read_text())
        self.assertEqual(machines[1].pop("Definition"), definition)
        self.assertEqual(released, given)

    def test_package_is_the_one_of_the_version_and_the_architecture(self):
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
        resources = transform(deepcopy(self.released), {}, NoManagedPolicies())["Resources"]
        function = resources["Auditor"]["Properties"]
        key = "${CodePrefix}image-usage-auditor-VERSION-${Architecture}.zip".replace("VERSION", VERSION)
        self.assertEqual(function["Code"], {"S3Bucket": {"Ref": "CodeBucket"}, "S3Key": {"Fn::Sub": key}})
        self.assertEqual(function["Architectures"], [{"Ref": "Architecture"}])
        # The names of the packages that the release has.
        self.assertIn('file="$release/$name-$version-$architecture"', (ROOT / ".ci/release.sh").read_text())
        self.assertEqual(self.released["Parameters"]["Architecture"]["AllowedValues"], ["arm64", "x86_64"])

    def test_a_template_that_has_changed_where_the_code_comes_from_is_refused(self):
        with self.assertRaises(ValueError):
            script("release-template").released(self.text.replace("CodeUri: .", "CodeUri: ./"), VERSION)

    def test_the_same_program_makes_the_same_package(self):
        digests = set()
        with tempfile.TemporaryDirectory() as folder:
            for number, (mode, seconds, mask) in enumerate(((0o755, 0, 0o022), (0o600, 2_000_000_000, 0o077))):
                program, package = Path(folder) / f"program-{number}", Path(folder) / f"{number}.zip"
                program.write_bytes(bytes(range(256)) * 4096)
                program.chmod(mode)
                os.utime(program, (seconds, seconds))
                before = os.umask(mask)
                try:
                    environment = {**os.environ, "TZ": ("UTC", "Asia/Tokyo")[number]}
                    subprocess.run([ROOT / ".ci/package.py", program, package], check=True, env=environment)
                finally:
                    os.umask(before)
                digests.add(hashlib.sha256(package.read_bytes()).hexdigest())
            with zipfile.ZipFile(package) as archive:
                [entry] = archive.infolist()
                self.assertEqual(archive.read(entry), program.read_bytes())
        self.assertEqual(len(digests), 1)
        self.assertEqual(entry.filename, "bootstrap")
        # Lambda can start it.
        self.assertEqual(entry.external_attr >> 16, stat.S_IFREG | 0o755)


if __name__ == "__main__":
    unittest.main()
