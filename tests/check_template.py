#!/usr/bin/env python3
"""Compares the templates with the code that they deploy.

Runs with the Python that SAM is installed in: its YAML reader, its translator and Amazon's service
models come from there.
"""

import os
import re
import unittest
from pathlib import Path

import botocore.session
from botocore import xform_name
from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform

ROOT = Path(__file__).resolve().parent.parent

# The permissions that each call of the SDK needs. A new call must be entered here first.
PERMISSIONS = {
    "describe_image_usage_report_entries": {"ec2:DescribeImageUsageReportEntries"},
    "describe_image_usage_reports": {"ec2:DescribeImageUsageReports"},
    "describe_regions": {"ec2:DescribeRegions"},
    "assume_role": {"sts:AssumeRole"},
    "get_caller_identity": set(),  # Nobody needs, and nobody can be denied, a permission for it.
    "list_accounts": {"organizations:ListAccounts"},
    "get_object": {"s3:GetObject"},
    "head_object": {"s3:GetObject"},
    "put_object": {"s3:PutObject"},
    "create_multipart_upload": {"s3:PutObject"},
    "upload_part": {"s3:PutObject"},
    "complete_multipart_upload": {"s3:PutObject"},
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
}

# What the function's role may do although the code makes no such call, and who needs it.
NEEDED_BY_OTHERS = {
    "kms:Decrypt": "S3, on behalf of the function",
    "kms:GenerateDataKey": "S3, on behalf of the function",
    "logs:CreateLogStream": "Lambda, to write the logs",
    "logs:PutLogEvents": "Lambda, to write the logs",
    "s3:ListBucket": "S3, to answer 404 rather than 403",
    "sqs:SendMessage": "Lambda, to send what failed to the queue",
}

SERVICES = ("ec2", "organizations", "s3", "sts")


def source(path):
    """The Rust source of a file or of a folder's files, without its comments."""
    path = ROOT / "src" / path
    files = sorted(path.rglob("*.rs")) if path.is_dir() else [path]
    lines = (line for file in files for line in file.read_text().splitlines())
    return "\n".join(line for line in lines if not line.lstrip().startswith("//"))


def calls_of_the_code():
    """The operations of AWS that the code calls, named as in the SDK."""
    session = botocore.session.get_session()
    operations = {
        xform_name(name) for service in SERVICES for name in session.get_service_model(service).operation_names
    }
    code = source("aws")
    calls = {name for name in re.findall(r"\.\s*([a-z0-9_]+)\(\)", code) if name in operations}
    if "AssumeRoleProvider" in code:
        calls.add("assume_role")
    return calls


def template(name):
    return yaml_parse((ROOT / name).read_text())


def statements(node):
    """Every policy statement below a node that allows something, through conditions too."""
    if isinstance(node, dict):
        if node.get("Effect") == "Allow" and "Principal" not in node:
            yield node
        for child in node.values():
            yield from statements(child)
    elif isinstance(node, list):
        for child in node:
            yield from statements(child)


def granted(resource):
    actions = set()
    for statement in statements(resource):
        action = statement["Action"]
        actions |= {action} if isinstance(action, str) else set(action)
    return actions


class Templates(unittest.TestCase):
    maxDiff = None

    def test_every_call_of_the_code_is_known_to_this_test(self):
        self.assertTrue(calls_of_the_code(), "found no call at all in src/aws")
        self.assertEqual(calls_of_the_code() - PERMISSIONS.keys(), set(), "add these to PERMISSIONS")

    def test_role_grants_what_the_code_calls_and_nothing_else(self):
        actions = granted(template("template.yaml")["Resources"]["AuditorRole"])
        needed = set().union(*(PERMISSIONS.get(call, set()) for call in calls_of_the_code()))
        self.assertEqual(needed - actions, set(), "the code calls these, but the role does not grant them")
        self.assertEqual(actions - needed - NEEDED_BY_OTHERS.keys(), set(), "the role grants these for nothing")
        self.assertEqual(NEEDED_BY_OTHERS.keys() - actions, set(), "the role does not grant these any more")

    def test_role_in_another_account_grants_what_the_auditor_reads_in_its_own(self):
        own = {a for a in granted(template("template.yaml")["Resources"]["AuditorRole"]) if a.startswith("ec2:")}
        member = granted(template("member-role.yaml")["Resources"]["MemberRole"])
        self.assertEqual(own - member, set())
        self.assertEqual({a for a in member if not a.startswith("ec2:Describe")}, set(), "it is for reading only")

    def test_function_is_given_every_variable_that_the_settings_read_and_no_other(self):
        given = template("template.yaml")["Resources"]["Auditor"]["Properties"]["Environment"]["Variables"]
        read = set(re.findall(r'"(AUDITOR_[A-Z_]+)"', source("settings.rs")))
        self.assertEqual(set(given), read)

    def test_alarms_watch_metrics_that_the_code_publishes(self):
        published = set(re.findall(r'"([A-Za-z]+)"', source("metrics.rs")))
        watched = set()

        def collect(node):
            if isinstance(node, dict):
                if node.get("Namespace") == "ImageUsageAuditor":
                    watched.update({node["Namespace"], node["MetricName"]})
                    watched.update(dimension["Name"] for dimension in node["Dimensions"])
                for child in node.values():
                    collect(child)
            elif isinstance(node, list):
                for child in node:
                    collect(child)

        collect(template("template.yaml")["Resources"])
        self.assertIn("SnapshotsWritten", watched)
        self.assertEqual(watched - published, set())

    def test_every_wildcard_in_a_policy_has_its_reason_beside_it(self):
        for name in ("template.yaml", "member-role.yaml"):
            lines = (ROOT / name).read_text().splitlines()
            unexplained = [
                f"{name}:{number + 1}: {line.strip()}"
                for number, line in policy_lines(lines)
                if "*" in line.split(" #")[0] and not explained(lines, number)
            ]
            self.assertEqual(unexplained, [])

    def test_template_translates_to_cloudformation(self):
        class NoManagedPolicies:
            def load(self):
                return {}

        # The translator asks for the place of a package that has been uploaded.
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
        document = template("template.yaml")
        document["Resources"]["Auditor"]["Properties"]["CodeUri"] = "s3://bucket/key"
        resources = transform(document, {}, NoManagedPolicies())["Resources"]
        kinds = {resource["Type"] for resource in resources.values()}
        self.assertLessEqual({"AWS::Lambda::Function", "AWS::Scheduler::Schedule"}, kinds)
        schedules = [r["Properties"] for r in resources.values() if r["Type"] == "AWS::Scheduler::Schedule"]
        self.assertNotIn("Input", schedules[0]["Target"], "the function would not be sent the scheduled event")


def indentation(line):
    return len(line) - len(line.lstrip())


def policy_lines(lines):
    """The lines, with their numbers, of every policy document, but for comments."""
    inside = None
    for number, line in enumerate(lines):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if inside is not None and indentation(line) <= inside:
            inside = None
        if line.strip() in ("PolicyDocument:", "AssumeRolePolicyDocument:"):
            inside = indentation(line)
        elif inside is not None:
            yield number, line


def explained(lines, number):
    """Whether a line, or the key that its list belongs to, has a comment on it or above it."""
    line = lines[number]
    if " #" in line or lines[number - 1].lstrip().startswith("#"):
        return True
    if not line.lstrip().startswith("- "):
        return False
    parent = next(n for n in range(number - 1, -1, -1) if indentation(lines[n]) < indentation(line))
    return explained(lines, parent)


if __name__ == "__main__":
    unittest.main()
