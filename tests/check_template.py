#!/usr/bin/env python3
"""Compares the templates with the code that they deploy, and with the schemas of the archive.

`make check-template` runs it with the Python of SAM's environment, because it uses SAM's YAML reader
and translator, and Amazon's service models.
"""

import json
import os
import re
import unittest
from pathlib import Path

import botocore.session
from botocore import xform_name
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform

ROOT = Path(__file__).resolve().parent.parent

# The permissions that each SDK call needs. A new call must be added here.
PERMISSIONS = {
    "describe_image_usage_report_entries": {"ec2:DescribeImageUsageReportEntries"},
    "describe_image_usage_reports": {"ec2:DescribeImageUsageReports"},
    "describe_regions": {"ec2:DescribeRegions"},
    "assume_role": {"sts:AssumeRole"},
    "get_caller_identity": set(),  # It needs no permission and cannot be denied.
    "list_accounts": {"organizations:ListAccounts"},
    "get_object": {"s3:GetObject"},
    "get_object_version": {"s3:GetObjectVersion"},
    "head_object": {"s3:GetObject"},
    "put_object": {"s3:PutObject"},
    "create_multipart_upload": {"s3:PutObject"},
    "upload_part": {"s3:PutObject"},
    "complete_multipart_upload": {"s3:PutObject"},
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
}

# Permissions of the function's role that belong to no call in the code, and who needs them.
NEEDED_BY_OTHERS = {
    "kms:Decrypt": "S3, on behalf of the function",
    "kms:GenerateDataKey": "S3, on behalf of the function",
    "logs:CreateLogStream": "Lambda, to write the logs",
    "logs:PutLogEvents": "Lambda, to write the logs",
    "s3:ListBucket": "S3, to return 404 instead of 403 for a missing object",
    "sqs:SendMessage": "Lambda, to send failed events to the queue",
}

# Calls that only `image-usage verify` makes, with the permissions of the user who runs it.
CALLS_OF_VERIFY = {"list_objects_v2"}

SERVICES = ("ec2", "organizations", "s3", "sts")


def source(*patterns):
    """Returns the Rust code of the files that match, without comments."""
    files = sorted(file for pattern in patterns for file in ROOT.glob(pattern))
    lines = (line for file in files for line in file.read_text().splitlines())
    return "\n".join(line for line in lines if not line.lstrip().startswith("//"))


def calls_in_the_code():
    """Returns the AWS operations that the code calls, named as in the SDK."""
    session = botocore.session.get_session()
    operations = {
        xform_name(name) for service in SERVICES for name in session.get_service_model(service).operation_names
    }
    code = source("src/aws/**/*.rs", "crates/*/src/aws/**/*.rs")
    calls = {name for name in re.findall(r"\.\s*([a-z0-9_]+)\(\)", code) if name in operations}
    if "AssumeRoleProvider" in code:
        calls.add("assume_role")
    # `GetObject` needs another permission if it names a version.
    if ".set_version_id(" in code:
        calls.add("get_object_version")
    return calls


def template(name):
    return yaml_parse((ROOT / name).read_text())


def statements(node):
    """Yields every policy statement below a node that allows something, including those in conditions."""
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


# The schema that each line of a table follows.
SCHEMAS = {"reports": "report-line", "entries": "entry-line", "snapshots": "snapshot"}


def tables():
    resources = template("template.yaml")["Resources"].values()
    inputs = [r["Properties"]["TableInput"] for r in resources if r["Type"] == "AWS::Glue::Table"]
    return {table["Name"]: table for table in inputs}


def hive_type(text):
    """Parses a Glue type. A struct becomes a dictionary, because the order of fields has no meaning in JSON."""
    kind, _, inside = text.removesuffix(">").partition("<")
    if kind == text:
        return text
    parts, depth = [""], 0
    for character in inside:
        depth += {"<": 1, ">": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if kind == "struct":
        return {name: hive_type(kind) for name, _, kind in (part.partition(":") for part in parts)}
    return (kind, *map(hive_type, parts))


def type_of(schema, definitions):
    """Returns the type that a JSON Schema describes, in the form of `hive_type`."""
    if "$ref" in schema:
        return type_of(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    choices = [c for c in schema.get("anyOf", schema.get("oneOf", [])) if c.get("type") != "null"]
    if choices:
        types = [type_of(choice, definitions) for choice in choices]
        if isinstance(types[0], dict):
            return {name: kind for fields in types for name, kind in fields.items()}
        if any(other != types[0] for other in types):
            raise ValueError(f"no column can hold all of {types}")
        return types[0]
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    [kind] = [kind for kind in kinds if kind != "null"]
    if kind == "array":
        return ("array", type_of(schema["items"], definitions))
    if kind == "object" and "properties" in schema:
        return {name: type_of(field, definitions) for name, field in schema["properties"].items()}
    if kind == "object":
        return ("map", "string", type_of(schema["additionalProperties"], definitions))
    return {"boolean": "boolean", "integer": "bigint", "string": "string"}[kind]


class Templates(unittest.TestCase):
    maxDiff = None

    def test_every_call_of_the_code_is_known_to_this_test(self):
        calls = calls_in_the_code()
        self.assertLessEqual(CALLS_OF_VERIFY, calls, "the calls of the code were not found")
        self.assertEqual(calls - CALLS_OF_VERIFY - PERMISSIONS.keys(), set(), "add these to PERMISSIONS")

    def test_role_grants_the_calls_of_the_code_and_nothing_else(self):
        actions = granted(template("template.yaml")["Resources"]["AuditorRole"])
        needed = set().union(*(PERMISSIONS.get(call, set()) for call in calls_in_the_code() - CALLS_OF_VERIFY))
        self.assertEqual(needed - actions, set(), "the code makes these calls, but the role does not allow them")
        self.assertEqual(actions - needed - NEEDED_BY_OTHERS.keys(), set(), "the role allows these, but nothing needs them")
        self.assertEqual(NEEDED_BY_OTHERS.keys() - actions, set(), "the role no longer allows these")

    def test_role_in_another_account_grants_the_same_reads_as_the_role_of_the_function(self):
        own = {a for a in granted(template("template.yaml")["Resources"]["AuditorRole"]) if a.startswith("ec2:")}
        member = granted(template("member-role.yaml")["Resources"]["MemberRole"])
        self.assertEqual(own - member, set())
        self.assertEqual({a for a in member if not a.startswith("ec2:Describe")}, set(), "the role must be read-only")

    def test_function_has_exactly_the_variables_that_the_settings_read(self):
        given = template("template.yaml")["Resources"]["Auditor"]["Properties"]["Environment"]["Variables"]
        read = set(re.findall(r'"(AUDITOR_[A-Z_]+)"', source("src/settings.rs")))
        self.assertEqual(set(given), read)

    def test_alarms_watch_metrics_that_the_code_publishes(self):
        published = set(re.findall(r'"([A-Za-z]+)"', source("src/**/metrics.rs")))
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

    def test_tables_have_the_fields_of_the_documents_as_columns(self):
        for name, table in tables().items():
            columns = {column["Name"]: hive_type(column["Type"]) for column in table["StorageDescriptor"]["Columns"]}
            schema = json.loads((ROOT / "schemas" / f"{SCHEMAS[name]}.schema.json").read_text())
            self.assertEqual(columns, type_of(schema, schema.get("$defs", {})), name)
            self.assertEqual({key["Name"] for key in table["PartitionKeys"]} & columns.keys(), set(), name)

    def test_object_lock_can_be_enabled_without_replacing_the_bucket(self):
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", "AWS::S3::Bucket").schema
        replacing = set(schema["createOnlyProperties"]) | set(schema.get("conditionalCreateOnlyProperties", []))
        locking = {"ObjectLockEnabled", "ObjectLockConfiguration"}
        self.assertLessEqual(locking, schema["properties"].keys())
        self.assertEqual({path.split("/")[2] for path in replacing} & locking, set())

    def test_every_wildcard_in_a_policy_has_a_comment_that_explains_it(self):
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

        # The translator expects the location of an uploaded package.
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
        document = template("template.yaml")
        document["Resources"]["Auditor"]["Properties"]["CodeUri"] = "s3://bucket/key"
        resources = transform(document, {}, NoManagedPolicies())["Resources"]
        kinds = {resource["Type"] for resource in resources.values()}
        self.assertLessEqual({"AWS::Lambda::Function", "AWS::Scheduler::Schedule"}, kinds)
        schedules = [r["Properties"] for r in resources.values() if r["Type"] == "AWS::Scheduler::Schedule"]
        self.assertNotIn("Input", schedules[0]["Target"], "the function would not receive the scheduled event")


def indentation(line):
    return len(line) - len(line.lstrip())


def policy_lines(lines):
    """Yields the lines of every policy document, with their numbers and without comments."""
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
    """Returns whether a line, or the key that its list belongs to, has a comment on it or above it."""
    line = lines[number]
    if " #" in line or lines[number - 1].lstrip().startswith("#"):
        return True
    if not line.lstrip().startswith("- "):
        return False
    parent = next(n for n in range(number - 1, -1, -1) if indentation(lines[n]) < indentation(line))
    return explained(lines, parent)


if __name__ == "__main__":
    unittest.main()
