#!/usr/bin/env python3
"""Compares the templates with the code that they deploy, and with the schemas of the archive.

`make check-template` runs it with the Python of SAM's environment, because it uses SAM's YAML reader
and translator, and Amazon's service models.
"""

import json
import os
import re
import unittest
from copy import deepcopy
from functools import cache
from pathlib import Path

import botocore.session
from botocore import xform_name
from cfnlint import ManualArgs, lint
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform

ROOT = Path(__file__).resolve().parent.parent

# The permissions that each SDK call needs. A new call must be added here.
PERMISSIONS = {
    "describe_image_usage_report_entries": {"ec2:DescribeImageUsageReportEntries"},
    "describe_image_usage_reports": {"ec2:DescribeImageUsageReports"},
    "create_image_usage_report": {"ec2:CreateImageUsageReport", "ec2:CreateTags"},
    "describe_images": {"ec2:DescribeImages"},
    "describe_image_references": {"ec2:DescribeImageReferences"},
    "describe_regions": {"ec2:DescribeRegions"},
    "assume_role": {"sts:AssumeRole"},
    "get_caller_identity": set(),  # It needs no permission and cannot be denied.
    "list_accounts": {"organizations:ListAccounts"},
    "get_object": {"s3:GetObject"},
    "get_object_version": {"s3:GetObjectVersion"},
    "head_object": {"s3:GetObject"},
    "list_objects_v2": {"s3:ListBucket"},
    "put_object": {"s3:PutObject"},
    "put_object_acl": {"s3:PutObjectAcl"},
    "create_multipart_upload": {"s3:PutObject"},
    "upload_part": {"s3:PutObject"},
    "complete_multipart_upload": {"s3:PutObject"},
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
}

# Permissions of the function's role that belong to no call in the code, and who needs them.
NEEDED_BY_OTHERS = {
    "ec2:AssignPrivateIpAddresses": "Lambda, for a function in a VPC",
    "ec2:CreateNetworkInterface": "Lambda, for a function in a VPC",
    "ec2:DeleteNetworkInterface": "Lambda, for a function in a VPC",
    "ec2:DescribeNetworkInterfaces": "Lambda, for a function in a VPC",
    "ec2:DescribeSubnets": "Lambda, for a function in a VPC",
    "ec2:DescribeInstances": "EC2, to find the references to an AMI",
    "ec2:DescribeLaunchTemplateVersions": "EC2, to find the references to an AMI",
    "ec2:DescribeLaunchTemplates": "EC2, to find the references to an AMI",
    "ec2:UnassignPrivateIpAddresses": "Lambda, for a function in a VPC",
    "events:PutEvents": "Lambda, to send the summaries",
    "imagebuilder:GetContainerRecipe": "EC2, to find the references to an AMI",
    "imagebuilder:ListContainerRecipes": "EC2, to find the references to an AMI",
    "imagebuilder:ListImageRecipes": "EC2, to find the references to an AMI",
    "kms:Decrypt": "S3, on behalf of the function",
    "kms:GenerateDataKey": "S3, on behalf of the function",
    "logs:CreateLogStream": "Lambda, to write the logs",
    "logs:PutLogEvents": "Lambda, to write the logs",
    "ssm:DescribeParameters": "EC2, to find the references to an AMI",
    "ssm:GetParameters": "EC2, to find the references to an AMI",
    "sqs:SendMessage": "Lambda, to send failed events to the queue",
}

# What Step Functions does with the role of the state machine, besides the calls of its tasks.
#
# Source: <https://docs.aws.amazon.com/step-functions/latest/dg/iam-policies-eg-dist-map.html>
NEEDED_BY_A_DISTRIBUTED_MAP = {"states:StartExecution", "states:DescribeExecution", "states:StopExecution"}

# The permissions that each resource of a state needs.
PERMISSIONS_OF_STATES = {
    "events:putEvents": {"events:PutEvents"},
    "lambda:invoke": {"lambda:InvokeFunction"},
    "s3:getObject": {"s3:GetObject", "kms:Decrypt"},
}

SERVICES = ("ec2", "organizations", "s3", "sts")

# Variables that the HTTP client reads, and not the settings.
VARIABLES_OF_THE_CLIENT = {"HTTPS_PROXY", "NO_PROXY"}

# The metrics that somebody must hear of.
WATCHED_METRICS = {
    "EntriesFailed",
    "ImagesNotRead",
    "ObjectsUnreadable",
    "ReportsUnarchived",
    "SnapshotsWritten",
    "TargetsFailed",
    "TargetsIncomplete",
}


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
    # `GetObject` needs another permission if it names a version, and `PutObject` if it names an ACL.
    if ".set_version_id(" in code:
        calls.add("get_object_version")
    if ".set_acl(" in code:
        calls.add("put_object_acl")
    return calls


@cache
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


def definition():
    """Returns the text of the state machine's definition."""
    return (ROOT / "statemachine" / "audit.asl.json").read_text()


NAMESPACE = "ImageUsageAuditor"


def alarms():
    resources = template("template.yaml")["Resources"].items()
    return {name: r["Properties"] for name, r in resources if r["Type"] == "AWS::CloudWatch::Alarm"}


def metrics_of(alarm):
    """Returns the metrics of an alarm, each with its period."""
    if "Metrics" not in alarm:
        return [(alarm, alarm["Period"])]
    statistics = [metric["MetricStat"] for metric in alarm["Metrics"] if "MetricStat" in metric]
    return [(statistic["Metric"], statistic["Period"]) for statistic in statistics]


def resolved(node, parameters):
    """Returns a node of the template with the given parameters, and the defaults of the others."""
    document = template("template.yaml")
    defaults = {name: parameter["Default"] for name, parameter in document["Parameters"].items()}
    values = {**defaults, "AWS::NoValue": None, **parameters}

    def value(node):
        if not isinstance(node, dict):
            return [value(child) for child in node] if isinstance(node, list) else node
        [(name, arguments)] = node.items() if len(node) == 1 else [(None, None)]
        match name:
            case "Ref":
                return values[arguments]
            case "Condition":
                return value(document["Conditions"][arguments])
            case "Fn::If":
                condition, positive, negative = arguments
                return value(positive if value(document["Conditions"][condition]) else negative)
            case "Fn::Equals":
                left, right = arguments
                return str(value(left)) == str(value(right))
            case "Fn::Not":
                return not value(arguments[0])
            case "Fn::And":
                return all(map(value, arguments))
            case "Fn::Or":
                return any(map(value, arguments))
        return {name: value(child) for name, child in node.items()}

    return value(node)


def is_prefix(text):
    """Whether the function accepts a prefix: `Layout::from_str` in Python."""
    if not text.endswith("/"):
        return text == ""
    has_control = any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in text)
    return len(text.encode()) <= 512 and not has_control and not {"", ".", ".."} & set(text[:-1].split("/"))


class Cloud:
    """CloudWatch, as far as the alarms of the template use it.

    Sources: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html>,
    <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html> and
    <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation-window.html>
    """

    # How many periods further back CloudWatch looks for data, in the examples of its documentation.
    EXTRA_PERIODS = 2

    def __init__(self, name, delay_seconds=0, parameters=None, extra_periods=EXTRA_PERIODS, is_aligned=False):
        self.alarm = alarm = resolved_alarm(name, parameters or {})
        self.delay = delay_seconds
        self.extra_periods = extra_periods
        # Whether periods begin at multiples of their length. Otherwise they end at each evaluation.
        self.is_aligned = is_aligned
        self.period = int(metrics_of(alarm)[0][1])
        self.evaluated = int(alarm["EvaluationPeriods"])
        self.to_alarm = int(alarm.get("DatapointsToAlarm", self.evaluated))
        self.missing = self.point([])
        self.by_the_clock = alarm.get("EvaluationWindow") is not None

    def after(self, data, days=1, step=60):
        """Returns the state of the alarm after each `step` of seconds, given (second, value) of one metric."""
        state, history = "INSUFFICIENT_DATA", []
        for now in range(0, days * 86_400, step):
            if not self.by_the_clock or now % self.period == 0:
                state = self.state([(at, value) for at, value in data if at + self.delay <= now], now, state)
            history.append(state)
        return history

    def state(self, data, now, before):
        by_period = {}
        now -= now % self.period if self.is_aligned else 0
        data = [(at, value) for at, value in data if at < now]
        for at, value in data:
            by_period.setdefault((now - at - 1) // self.period, []).append(value)
        # The newest first.
        numbers = range(self.evaluated + self.extra_periods)
        points = [self.point(by_period[n]) if n in by_period else self.missing for n in numbers]
        real = [self.is_breaching(point) for point in points if point is not None][: self.evaluated]
        if len(real) < self.evaluated:
            match self.alarm["TreatMissingData"]:
                case "breaching":
                    real += [True] * (self.evaluated - len(real))
                case "notBreaching":
                    real += [False] * (self.evaluated - len(real))
                case "ignore" if sum(real) < self.to_alarm and all(real):
                    return before
        return "ALARM" if sum(real) >= self.to_alarm else "OK"

    def point(self, values):
        """Returns the data point of a period in which one of the metrics had these values, and the others 0."""
        aggregate = {"Sum": sum, "Maximum": max, "Minimum": min}
        if "Metrics" not in self.alarm:
            return aggregate[self.alarm["Statistic"]](values) if values else None
        metrics, zeros = {}, [0] * len(values)
        statistics = [metric for metric in self.alarm["Metrics"] if "MetricStat" in metric]
        for number, metric in enumerate(statistics):
            of_metric = values if number == 0 else zeros
            metrics[metric["Id"]] = aggregate[metric["MetricStat"]["Stat"]](of_metric) if values else None
        [expression] = [metric["Expression"] for metric in self.alarm["Metrics"] if "Expression" in metric]
        functions = {"FILL": lambda metric, value: value if metric is None else metric}
        try:
            return eval(expression, {"__builtins__": {}}, {**metrics, **functions})  # noqa: S307
        except TypeError:  # A metric without data.
            return None

    def is_breaching(self, point):
        threshold = float(self.alarm["Threshold"])
        is_less = self.alarm["ComparisonOperator"] == "LessThanThreshold"
        return point < threshold if is_less else point >= threshold


def resolved_alarm(name, parameters):
    parameters = {"Auditor": "auditor", "AlarmTopicArn": "", **parameters}
    return {key: resolved(value, parameters) for key, value in alarms()[name].items() if key != "AlarmDescription"}


# The schema that each line of a table follows.
SCHEMAS = {"reports": "report-line", "entries": "entry-line", "images": "image-line", "snapshots": "snapshot"}


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
        self.assertIn("put_object", calls, "the calls of the code were not found")
        self.assertEqual(calls - PERMISSIONS.keys(), set(), "add these to PERMISSIONS")

    def test_role_grants_the_calls_of_the_code_and_nothing_else(self):
        actions = granted(template("template.yaml")["Resources"]["AuditorRole"])
        needed = set().union(*(PERMISSIONS.get(call, set()) for call in calls_in_the_code()))
        self.assertEqual(needed - actions, set(), "the code makes these calls, but the role does not allow them")
        self.assertEqual(actions - needed - NEEDED_BY_OTHERS.keys(), set(), "the role allows these, but nothing needs them")
        self.assertEqual(NEEDED_BY_OTHERS.keys() - actions, set(), "the role no longer allows these")

    def test_role_in_another_account_grants_the_same_reads_as_the_role_of_the_function(self):
        own = granted(template("template.yaml")["Resources"]["AuditorRole"]) - NEEDED_BY_OTHERS.keys()
        own = {action for action in own if action.startswith("ec2:")}
        member = granted(template("member-role.yaml")["Resources"]["MemberRole"])
        self.assertEqual(own - member, set())

    def test_without_the_parameter_no_role_may_create_or_change_anything_in_ec2(self):
        asking = {"ec2:CreateImageUsageReport", "ec2:CreateTags"}
        for name, role in (("template.yaml", "AuditorRole"), ("member-role.yaml", "MemberRole")):
            given = template(name)
            self.assertEqual(given["Parameters"]["RenewReports"]["Default"], "false", name)
            condition = {"Fn::And": [{"Fn::Equals": [{"Ref": parameter}, "true"]} for parameter in ("ReadImages", "RenewReports")]}
            self.assertEqual(given["Conditions"]["RenewsReports"], condition, name)
            own = [
                option
                for policy in given["Resources"][role]["Properties"]["Policies"]
                for option in policy.get("PolicyDocument", {}).get("Statement", [])
            ]
            behind = [option["Fn::If"] for option in own if "Fn::If" in option and option["Fn::If"][0] == "RenewsReports"]
            self.assertEqual([otherwise for _, _, otherwise in behind], [{"Ref": "AWS::NoValue"}] * 2, name)
            self.assertEqual(granted([statement for _, statement, _ in behind]), asking, name)
            others = granted([option for option in own if option.get("Fn::If", [None])[0] != "RenewsReports"])
            changing = {a for a in others if a.startswith("ec2:") and not re.match(r"\w+:(Describe|Get|List)", a)}
            self.assertEqual(changing, set(), f"{name}: without the parameter, the role must be read-only")

    def test_reports_are_created_and_tagged_and_nothing_else(self):
        for name, role in (("template.yaml", "AuditorRole"), ("member-role.yaml", "MemberRole")):
            found = {s["Sid"]: s for s in statements(template(name)["Resources"][role]) if "Create" in str(s["Action"])}
            found.pop("LetLambdaManageItsNetworkInterfaces", None)
            image = "arn:${AWS::Partition}:ec2:*::image/*"
            report = "arn:${AWS::Partition}:ec2:*:${AWS::AccountId}:image-usage-report/*"
            asks, tags = found.pop("AskForImageUsageReports"), found.pop("TagTheReportsThatItAsksFor")
            self.assertEqual({k: v for k, v in found.items() if "logs:CreateLogStream" not in v["Action"]}, {}, name)
            self.assertEqual(asks["Action"], "ec2:CreateImageUsageReport")
            self.assertEqual(asks["Resource"], [{"Fn::Sub": image}, {"Fn::Sub": report}])
            self.assertEqual(tags["Action"], "ec2:CreateTags")
            self.assertEqual(tags["Resource"], {"Fn::Sub": report})
            only = {
                "StringEquals": {
                    "ec2:CreateAction": "CreateImageUsageReport",
                    "aws:RequestTag/managed-by": "image-usage-auditor",
                },
                "ForAllValues:StringEquals": {"aws:TagKeys": ["managed-by", "auditor-run"]},
            }
            self.assertEqual(tags["Condition"], only)

    def test_only_ec2_itself_can_look_for_references_and_only_where_the_parameter_asks_for_it(self):
        looks = {action for action, who in NEEDED_BY_OTHERS.items() if who == "EC2, to find the references to an AMI"}
        for name, role in (("template.yaml", "AuditorRole"), ("member-role.yaml", "MemberRole")):
            given = template(name)
            [behind] = [
                option
                for policy in given["Resources"][role]["Properties"]["Policies"]
                for option in policy.get("PolicyDocument", {}).get("Statement", [])
                if "Fn::If" in option and set(option["Fn::If"][1]["Action"]) == looks
            ]
            condition, statement, otherwise = behind["Fn::If"]
            self.assertEqual((condition, otherwise), ("ReadsImageReferences", {"Ref": "AWS::NoValue"}), name)
            via = {"ForAnyValue:StringEquals": {"aws:CalledVia": "ec2-images.amazonaws.com"}}
            self.assertEqual(statement["Condition"], via, name)
            self.assertEqual(given["Parameters"]["ReadImageReferences"]["Default"], "false", name)
            granted_without = [s for s in statements(given["Resources"][role]) if looks & set(s["Action"])]
            self.assertEqual(len(granted_without), 1, f"{name} grants them in one place only")

    def test_the_state_machine_may_do_what_its_states_do_and_nothing_else(self):
        given = template("template.yaml")["Resources"]
        used = set(re.findall(r'"Resource": "arn:\$\{Partition\}:states:::([\w:]+)"', definition()))
        needed = set().union(*(PERMISSIONS_OF_STATES[resource] for resource in used))
        self.assertEqual(granted(given["AuditStateMachineRole"]), needed)
        policy = given["AuditStateMachineMapPolicy"]
        self.assertEqual(granted(policy), NEEDED_BY_A_DISTRIBUTED_MAP)
        self.assertEqual(policy["Properties"]["Roles"], [{"Ref": "AuditStateMachineRole"}])
        for statement in statements([given["AuditStateMachineRole"], policy]):
            self.assertNotEqual(statement["Resource"], "*", statement["Sid"])
        [started] = [s["Resource"] for s in statements(policy) if s["Action"] == "states:StartExecution"]
        self.assertEqual(started, {"Ref": "AuditStateMachine"})

    def test_the_state_machine_has_exactly_the_substitutions_of_its_definition(self):
        given = template("template.yaml")["Resources"]["AuditStateMachine"]["Properties"]
        used = set(re.findall(r"\$\{(\w+)\}", definition()))
        self.assertEqual(given["DefinitionSubstitutions"].keys(), used)
        self.assertEqual(given["DefinitionUri"], "statemachine/audit.asl.json")

    def test_the_definition_of_the_state_machine_is_valid(self):
        text = definition()
        for name, value in (("Partition", "aws"), ("FunctionArn", "arn:aws:lambda:us-east-1:111122223333:function:auditor")):
            text = text.replace("${%s}" % name, value)
        text = text.replace("${MaxConcurrency}", "10")
        properties = {"RoleArn": "arn:aws:iam::111122223333:role/role", "Definition": json.loads(text)}
        resource = {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}
        document = {"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"StateMachine": resource}}
        found = [str(match) for match in lint(json.dumps(document), config=ManualArgs(regions=["us-east-1"]))]
        self.assertEqual(found, [])

    def test_every_state_that_another_one_names_exists(self):
        def walk(machine):
            states = machine["States"]
            named = {machine["StartAt"]}
            for state in states.values():
                for followed in (state, *state.get("Catch", []), *state.get("Choices", [])):
                    named |= {followed[key] for key in ("Next", "Default") if key in followed}
                if "ItemProcessor" in state:
                    walk(state["ItemProcessor"])
            self.assertEqual(named, states.keys())

        walk(json.loads(definition()))

    def test_a_batch_has_no_more_targets_than_the_function_accepts(self):
        [most] = re.findall(r"const MAX_BATCH_TARGETS: usize = (\d+);", source("src/request/phase.rs"))
        batcher = json.loads(definition())["States"]["AuditTargets"]["ItemBatcher"]
        self.assertLessEqual(batcher["MaxItemsPerBatch"], int(most))
        # What else is in the payload of a task that failed: the cause of an error has up to 32,768 characters.
        self.assertLessEqual(batcher["MaxInputBytesPerBatch"] + 40_000, 256 * 1024)
        described = template("template.yaml")["Parameters"]["FanOutConcurrency"]["Description"]
        self.assertIn(f"the {batcher['MaxItemsPerBatch']} targets", described)

    def test_one_schedule_is_enabled_with_and_without_the_state_machine(self):
        given = template("template.yaml")["Resources"]
        own, other = (given[name]["Properties"]["Events"]["Schedule"]["Properties"] for name in ("Auditor", "AuditStateMachine"))
        for fan_out, expected in (("false", "ENABLED"), ("true", "DISABLED")):
            self.assertEqual(resolved(own["State"], {"FanOut": fan_out}), expected)
        self.assertEqual(resolved(other["State"], {}), "ENABLED")
        for name in ("AuditStateMachine", "AuditStateMachineRole", "AuditStateMachineMapPolicy", "ExecutionsFailedAlarm"):
            self.assertEqual(given[name]["Condition"], "FansOut", name)
        self.assertEqual(template("template.yaml")["Parameters"]["FanOut"]["Default"], "false")
        same = ("ScheduleExpression", "ScheduleExpressionTimezone", "RetryPolicy", "DeadLetterConfig", "PermissionsBoundary")
        self.assertEqual({key: own[key] for key in same}, {key: other[key] for key in same})

    def test_function_has_exactly_the_variables_that_the_settings_read(self):
        given = template("template.yaml")["Resources"]["Auditor"]["Properties"]["Environment"]["Variables"]
        read = set(re.findall(r'"(AUDITOR_[A-Z_]+)"', source("src/settings.rs")))
        self.assertEqual(set(given), read | VARIABLES_OF_THE_CLIENT)

    def test_page_size_is_left_to_the_function(self):
        self.assertEqual(template("template.yaml")["Parameters"]["PageSize"]["Default"], "")

    def test_alarms_watch_metrics_that_the_code_publishes(self):
        published = set(re.findall(r'"([A-Za-z]+)"', source("src/**/metrics.rs")))
        metrics = [metric for alarm in alarms().values() for metric, _ in metrics_of(alarm) if metric["Namespace"] == NAMESPACE]
        self.assertEqual({metric["MetricName"] for metric in metrics}, WATCHED_METRICS)
        dimensions = {dimension["Name"] for metric in metrics for dimension in metric["Dimensions"]}
        self.assertEqual((WATCHED_METRICS | dimensions | {NAMESPACE}) - published, set())

    def test_every_alarm_notifies_the_one_topic_that_the_parameters_name(self):
        created = {"NotifyTopic": "created"}
        for parameters, topics in (
            ({}, None),
            ({"NotifyEmail": "a@example.com"}, ["created"]),
            ({"NotifyTopicArn": "given"}, ["given"]),
            ({"AlarmTopicArn": "alarms"}, ["alarms"]),
            ({"AlarmTopicArn": "alarms", "NotifyEmail": "a@example.com"}, ["alarms"]),
            ({"AlarmTopicArn": "alarms", "NotifyTopicArn": "given"}, ["alarms"]),
        ):
            for name, alarm in alarms().items():
                for actions in ("AlarmActions", "OKActions"):
                    self.assertEqual(resolved(alarm[actions], {**created, **parameters}), topics, (name, parameters))

    def test_messages_go_to_the_topic_that_the_parameters_name(self):
        document = template("template.yaml")
        [target] = document["Resources"]["AttentionRule"]["Properties"]["Targets"]
        for parameters, topic in (({}, None), ({"NotifyEmail": "a@example.com"}, "created"), ({"NotifyTopicArn": "given"}, "given")):
            sends = resolved(document["Conditions"]["Notifies"], parameters)
            self.assertEqual(sends, topic is not None, parameters)
            if sends:
                self.assertEqual(resolved(target["Arn"], {"NotifyTopic": "created", **parameters}), topic)
        [assertion] = document["Rules"]["MessagesGoToOneTopic"]["Assertions"]
        self.assertFalse(resolved(assertion["Assert"], {"NotifyTopicArn": "given"}), "both are an error")

    def test_only_the_rule_and_the_alarms_of_the_stack_publish_to_its_topic(self):
        properties = template("template.yaml")["Resources"]["NotifyTopicPolicy"]["Properties"]
        rule, alarm = properties["PolicyDocument"]["Statement"]
        for statement, service in ((rule, "events"), (alarm, "cloudwatch")):
            self.assertEqual(statement["Principal"], {"Service": f"{service}.amazonaws.com"})
            self.assertEqual(statement["Action"], "sns:Publish")
            self.assertEqual(statement["Condition"]["StringEquals"], {"aws:SourceAccount": {"Ref": "AWS::AccountId"}})
        self.assertEqual(rule["Condition"]["ArnEquals"], {"aws:SourceArn": {"Fn::GetAtt": ["AttentionRule", "Arn"]}})
        self.assertIn("alarm:${AWS::StackName}-*", alarm["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"])

    def test_dashboard_shows_the_alarms_and_metrics_that_the_code_publishes(self):
        dashboard = template("template.yaml")["Resources"]["RunsDashboard"]
        self.assertEqual(dashboard["Condition"], "ShowsDashboard")
        self.assertFalse(resolved({"Condition": "ShowsDashboard"}, {}), "it is off by default")
        self.assertTrue(resolved({"Condition": "ShowsDashboard"}, {"Dashboard": "true"}))
        # `name.Arn` becomes "name.Arn", which JSON needs no escape for, as with names and ARNs.
        text, values = dashboard["Properties"]["DashboardBody"]["Fn::Sub"]
        for fan_out in ("true", "false"):
            more = resolved(values["AlarmOfFanOut"], {"FanOut": fan_out})
            more = more["Fn::Sub"] if isinstance(more, dict) else more
            body = json.loads(re.sub(r"\$\{([^}]+)\}", r"\1", text.replace("${AlarmOfFanOut}", more)))
            shown = [widget["properties"] for widget in body["widgets"]]
            given = {f"{name}.Arn" for name in alarms()} - ({"ExecutionsFailedAlarm.Arn"} if fan_out == "false" else set())
            self.assertEqual({arn for widget in shown for arn in widget.get("alarms", [])}, given)
        metrics = [metric for widget in shown for metric in widget.get("metrics", [])]
        published = set(re.findall(r'^ +\("([A-Za-z]+)", ', source("src/audit/metrics.rs"), re.MULTILINE))
        for namespace, name, *dimensions, options in metrics:
            self.assertEqual((namespace, dimensions), (NAMESPACE, ["FunctionName", "Auditor", "Scope", "full"]), name)
            self.assertIn(name, published)
            self.assertTrue(options["label"])
        # What a person would look for.
        self.assertLessEqual(WATCHED_METRICS - {"ObjectsUnreadable"}, {name for _, name, *_ in metrics})
        places = [(widget["x"], widget["y"]) for widget in body["widgets"]]
        self.assertEqual(len(set(places)), len(places))

    def test_policies_name_the_account_that_owns_the_bucket(self):
        found = [s for s in statements(template("template.yaml")["Resources"]["AuditorRole"]) if "s3:" in str(s["Action"])]
        self.assertEqual(len(found), 3)
        for statement in found:
            for owner, expected in (("", "ACCOUNT"), ("999988887777", "999988887777")):
                condition = resolved(statement["Condition"], {"ArchiveBucketOwner": owner, "AWS::AccountId": "ACCOUNT"})
                self.assertEqual(condition, {"StringEquals": {"s3:ResourceAccount": expected}}, statement["Sid"])

    def test_the_function_cannot_use_the_permissions_for_its_network(self):
        [network] = [
            policy["Fn::If"][1]
            for policy in template("template.yaml")["Resources"]["AuditorRole"]["Properties"]["Policies"]
            if "Fn::If" in policy
        ]
        allow, deny = network["PolicyDocument"]["Statement"]
        self.assertEqual((allow["Effect"], deny["Effect"]), ("Allow", "Deny"))
        changing = {action for action in allow["Action"] if not action.startswith("ec2:Describe")}
        self.assertEqual(set(deny["Action"]), changing)
        self.assertEqual(deny["Condition"], {"Null": {"lambda:SourceFunctionArn": "false"}})

    def test_a_prefix_that_deploys_is_one_that_the_function_accepts(self):
        pattern = re.compile(template("template.yaml")["Parameters"]["ArchivePrefix"]["AllowedPattern"])
        accepted = ["", "image-usage/", "a/b/", "v1/", ".a/", "a./", "..a/", ".../", "a=1/b c/", "(x)/", "a" * 511 + "/"]
        refused = ["image-usage", "/", "//", "/a/", "a//", "a//b/", "./", "../", "a/./", "a/../b/", "a/..", "a\n/", "a" * 512 + "/"]
        for prefix in accepted:
            self.assertTrue(is_prefix(prefix), prefix)
            self.assertTrue(pattern.fullmatch(prefix), prefix)
        for prefix in refused:
            self.assertFalse(is_prefix(prefix), prefix)
            self.assertFalse(pattern.fullmatch(prefix), prefix)
        # These would mean something else in the ARNs of a policy.
        for prefix in ("a*/", "a?/", "${a}/", "\u00e4/"):
            self.assertTrue(is_prefix(prefix), prefix)
            self.assertFalse(pattern.fullmatch(prefix), prefix)
        characters = [chr(number) for number in range(0x7F) if chr(number) not in "*?$"]
        for text in ("{}/", "a{}/", "a{}b/", "{}a/b/", "a/{}", "a/{}/b/", "a/{}{}/"):
            for character in characters:
                prefix = text.replace("{}", character)
                self.assertEqual(bool(pattern.fullmatch(prefix)), is_prefix(prefix), repr(prefix))

    def test_prefixes_that_the_code_refuses_are_refused_here_too(self):
        rust = source("crates/archive/src/layout.rs")
        cases = re.search(r"fn a_prefix_without_its_slash_or_that_climbs_is_refused.*?for text in \[(.*?)\n +\]", rust, re.DOTALL)
        texts = [json.loads(f'"{text}"') for text in re.findall(r'^ +"(.*)",$', cases[1], re.MULTILINE)]
        self.assertGreater(len(texts), 5)
        self.assertEqual([text for text in texts if is_prefix(text)], [])
        self.assertIn("const MAX_PREFIX_BYTES: usize = 512;", rust)

    def test_acls_are_those_that_the_code_knows(self):
        rust = source("crates/archive/src/aws/write_headers.rs")
        known = re.findall(r'"([a-z-]+)" => Ok\(', rust[rust.index("impl FromStr for CannedAcl") :])
        self.assertEqual(set(template("template.yaml")["Parameters"]["ArchiveAcl"]["AllowedValues"]), {"", *known})

    def test_description_of_the_concurrency_has_the_numbers_of_the_code(self):
        rust = source("src/lambda/mod.rs")
        run, target = (
            int(re.search(rf"const MEGABYTES_OF_A_{name}: usize = (\d+);", rust)[1]) for name in ("RUN", "TARGET")
        )
        parameters = template("template.yaml")["Parameters"]
        rule = f"(MemorySize - {run}) / {target}"
        self.assertIn(rule, parameters["MemorySize"]["Description"])
        self.assertIn(rule, parameters["MaxConcurrentTargets"]["Description"])
        memory, most = (int(parameters[name][key]) for name, key in (("MemorySize", "Default"), ("MaxConcurrentTargets", "MaxValue")))
        self.assertIn(f"{(memory - run) // target} with {memory} MB", parameters["MemorySize"]["Description"])
        self.assertIn(f"{most} needs a MemorySize of {most * target + run:,} MB", parameters["MaxConcurrentTargets"]["Description"])
        self.assertLessEqual(int(parameters["MaxConcurrentTargets"]["Default"]), (memory - run) // target)

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
        document = deepcopy(template("template.yaml"))
        document["Resources"]["Auditor"]["Properties"]["CodeUri"] = "s3://bucket/key"
        document["Resources"]["AuditStateMachine"]["Properties"]["DefinitionUri"] = "s3://bucket/key"
        resources = transform(document, {}, NoManagedPolicies())["Resources"]
        kinds = {resource["Type"] for resource in resources.values()}
        self.assertLessEqual({"AWS::Lambda::Function", "AWS::Scheduler::Schedule"}, kinds)
        schedules = [r["Properties"] for r in resources.values() if r["Type"] == "AWS::Scheduler::Schedule"]
        self.assertEqual(len(schedules), 2)
        for schedule in schedules:
            self.assertNotIn("Input", schedule["Target"], "the run would not receive the scheduled event")
        roles = {name: r["Properties"] for name, r in resources.items() if r["Type"] == "AWS::IAM::Role"}
        self.assertEqual(len(roles), 4)
        for name, role in roles.items():
            boundary = resolved(role["PermissionsBoundary"], {"PermissionsBoundaryArn": "arn:boundary"})
            self.assertEqual(boundary, "arn:boundary", name)


class Alarms(unittest.TestCase):
    """Plays days of runs to the alarms, and evaluates them each minute by CloudWatch's documented rules."""

    JUDGE_A_RUN = ("TargetsNotReadAlarm", "ReportsUnarchivedAlarm", "EntriesFailedAlarm", "ImagesNotReadAlarm", "ObjectsUnreadableAlarm")

    @classmethod
    def clouds(cls, **options):
        """Yields each alarm that judges a run with each behaviour that CloudWatch's documentation leaves open."""
        for name in cls.JUDGE_A_RUN:
            for extra_periods in (0, Cloud.EXTRA_PERIODS, 10):
                for is_aligned in (False, True):
                    cloud = Cloud(name, extra_periods=extra_periods, is_aligned=is_aligned, **options)
                    yield f"{name}, {extra_periods=}, {is_aligned=}", cloud

    def test_alarm_clears_after_a_good_retry(self):
        for name, cloud in self.clouds():
            for seconds_between in (60, 61, 90, 119, 130, 600):
                for start in (300, 330, 400, 455):
                    history = cloud.after([(start, 1), (start + seconds_between, 0)])
                    self.assertEqual(history[-1], "OK", f"{name}, {start} s, {seconds_between} s")

    def test_alarm_judges_the_retry_and_not_the_attempt_before(self):
        for name, cloud in self.clouds():
            for data in ([(305, 0), (370, 2)], [(400, 0), (470, 2), (600, 5)], [(305, 3), (370, 0), (490, 1)]):
                self.assertEqual(cloud.after(data)[-1], "ALARM", f"{name}, {data}")

    def test_alarm_stays_until_a_good_run(self):
        for name, cloud in self.clouds():
            history = cloud.after([(400, 1), (86_400 + 400, 1), (2 * 86_400 + 400, 0)], days=3)
            self.assertEqual(history[-1], "OK", name)
            first, last = history.index("ALARM"), len(history) - 1 - history[::-1].index("ALARM")
            self.assertEqual(set(history[first:last]), {"ALARM"}, name)
            self.assertAlmostEqual((last - first) / 60, 48, delta=0.5)

    def test_alarm_is_raised_by_data_that_arrives_late(self):
        for delay_seconds in (0, 30, 120, 240):
            for name, cloud in self.clouds(delay_seconds=delay_seconds):
                history = cloud.after([(400, 1)])
                self.assertEqual(history[-1], "ALARM", f"{name}, {delay_seconds} s")

    def test_missing_snapshot_is_noticed_after_the_hours_of_the_parameter(self):
        for hours, every_hours in ((26, 24), (8, 6), (80, 72), (168, 160)):
            # The runs take up to 15 minutes.
            runs = [(number * every_hours * 3600 + 900 * (number % 2), 1) for number in range(1, 6)]
            days = 1 + runs[-1][0] // 86_400 + 8
            cloud = Cloud("SnapshotMissingAlarm", parameters={"SnapshotExpectedWithinHours": str(hours)})
            history = cloud.after(runs, days, step=900)
            first, last = runs[0][0] // 900 + 1, runs[-1][0] // 900
            self.assertEqual(set(history[first : last + hours * 4]), {"OK"}, hours)
            self.assertEqual(set(history[last + (hours + 1) * 4 + 1 :]), {"ALARM"}, hours)

    def test_weekly_audits_raise_no_alarm_until_one_is_missing(self):
        # Wednesdays at 06:00, counted from the start of a week.
        runs = [(week * 604_800 + 194_400 + 900 * (week % 2), 1) for week in range(4)]
        cloud = Cloud("SnapshotMissingAlarm", parameters={"SnapshotExpectedWithinHours": "weekly"})
        history = cloud.after(runs, days=6 * 7, step=3600)
        self.assertEqual(set(history[7 * 24 : 5 * 7 * 24]), {"OK"})
        self.assertEqual(set(history[5 * 7 * 24 :]), {"ALARM"})

    def test_alarms_stay_within_the_days_that_cloudwatch_evaluates(self):
        pattern = re.compile(template("template.yaml")["Parameters"]["SnapshotExpectedWithinHours"]["AllowedPattern"])
        hours = [str(hours) for hours in range(500) if pattern.search(str(hours))]
        self.assertEqual(hours, [str(hours) for hours in range(1, 169)])
        self.assertTrue(pattern.search("weekly"))
        for name, alarm in alarms().items():
            for value in (*hours, "weekly"):
                parameters = {"SnapshotExpectedWithinHours": value}
                periods = {resolved(period, parameters) for _, period in metrics_of(alarm)}
                [period] = periods
                seconds = int(period) * int(resolved(alarm["EvaluationPeriods"], parameters))
                self.assertLessEqual(seconds, 604_800 if int(period) >= 3600 else 86_400, name)


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
        if line.strip() in ("PolicyDocument:", "AssumeRolePolicyDocument:", "KeyPolicy:"):
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
