"""The core of image-usage-auditor as a careful author would write it with boto3: it applies the rules to every
report of each Region, archives them, and writes the snapshot and `latest.json`.

One account, and any failure fails the run: no retried targets, no deadline, no bounded memory.
"""

import gzip
import hashlib
import json
import os
import tempfile
from base64 import b64encode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import boto3
from botocore.config import Config

BUCKET = os.environ["AUDITOR_ARCHIVE_BUCKET"]
PREFIX = os.environ.get("AUDITOR_ARCHIVE_PREFIX", "image-usage/")
HOME = os.environ["AWS_REGION"]
REGIONS = os.environ.get("AUDITOR_REGIONS", HOME).split(",")
CONCURRENT_REGIONS = int(os.environ.get("AUDITOR_MAX_CONCURRENT_TARGETS", "8"))
WINDOW = timedelta(days=int(os.environ.get("AUDITOR_EXPIRY_WINDOW_DAYS", "7")))
LIMIT = timedelta(hours=int(os.environ.get("AUDITOR_PENDING_LIMIT_HOURS", "24")))
PAGE_SIZE = 1000
LISTED_FINDINGS = 1000
KINDS = ["failed", "expired", "expiring", "stuck", "unrecognised_state", "undated"]

config = Config(
    retries={"mode": "standard", "max_attempts": 10},
    max_pool_connections=CONCURRENT_REGIONS,
    s3={"addressing_style": "path" if "AWS_ENDPOINT_URL" in os.environ else "auto"},
)
session = boto3.Session()
s3 = session.client("s3", config=config)
# Created during initialisation, as AWS recommends; a session is not thread-safe.
ec2 = {region: session.client("ec2", region_name=region, config=config) for region in REGIONS}


def answer(event, context):
    started_at = datetime.now(timezone.utc)
    scheduled_at = event.get("time") or iso(started_at)
    moment = datetime.fromisoformat(scheduled_at)
    digits = hashlib.sha256(event.get("id", context.aws_request_id).encode()).hexdigest()[:8]
    run_id = f"{moment:%Y%m%dT%H%M%SZ}-{digits}"
    account_id = context.invoked_function_arn.split(":")[4]
    dt = f"dt={moment:%Y-%m-%d}"
    snapshot_key = f"{PREFIX}v1/snapshots/{dt}/{run_id}.json"
    if archived := read(snapshot_key):
        return summary(json.loads(archived), snapshot_key, True)

    def audit_region(region):
        return audit(
            account_id,
            region,
            f"{PREFIX}v1/reports/{dt}/account_id={account_id}/region={region}/{run_id}.jsonl.gz",
            started_at,
        )

    with ThreadPoolExecutor(CONCURRENT_REGIONS) as threads:
        audits = list(threads.map(audit_region, REGIONS))
    findings = sorted((found for _, _, _, listed in audits for found in listed), key=rank)
    states = sum((counted for _, counted, _, _ in audits), Counter())
    kinds = sum((counted for _, _, counted, _ in audits), Counter())
    total = sum(target["reports"] for target, _, _, _ in audits)
    known = {state: states[state] for state in ("available", "pending", "error")}
    snapshot = {
        "schema_version": 1,
        "run_id": run_id,
        "scheduled_at": scheduled_at,
        "started_at": iso(started_at),
        "finished_at": iso(datetime.now(timezone.utc)),
        "policy": {"expiry_window_days": WINDOW.days, "pending_limit_hours": LIMIT // timedelta(hours=1)},
        "status": "complete",
        "targets": sorted((target for target, _, _, _ in audits), key=lambda target: target["region"]),
        "counts": {
            "targets": {"complete": len(audits), "incomplete": 0, "failed": 0, "skipped": 0},
            "reports": {"total": total, **known, "other": total - sum(known.values())},
            "findings": {"total": kinds.total(), **{kind: kinds[kind] for kind in KINDS}},
        },
        "findings": findings[:LISTED_FINDINGS],
        "findings_omitted": kinds.total() - len(findings[:LISTED_FINDINGS]),
    }
    body = json.dumps(snapshot, ensure_ascii=False, separators=(",", ":")).encode()
    put(snapshot_key, body, "application/json", IfNoneMatch="*")
    advance_latest(snapshot, body)
    return summary(snapshot, snapshot_key, False)


def audit(account_id, region, key, now):
    """Archives one Region. Returns its ledger line, its counts, and its most urgent findings."""
    pages, seen, states, kinds, findings = 0, set(), Counter(), Counter(), []
    listing = ec2[region].get_paginator("describe_image_usage_reports")
    with tempfile.TemporaryFile() as stored:
        with gzip.GzipFile(fileobj=stored, mode="wb", compresslevel=6, mtime=0) as lines:
            for page in listing.paginate(PaginationConfig={"PageSize": PAGE_SIZE}):
                pages += 1
                written = []
                for report in page["ImageUsageReports"]:
                    if report["ReportId"] in seen:
                        continue
                    seen.add(report["ReportId"])
                    found = judge(report, now)
                    line = line_of(account_id, region, report, found)
                    written.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
                    states[report.get("State")] += 1
                    kinds.update(found)
                    findings.extend(finding(kind, line, report, now) for kind in found)
                if written:
                    lines.write(("\n".join(written) + "\n").encode())
                if len(findings) > 2 * LISTED_FINDINGS:
                    findings = sorted(findings, key=rank)[:LISTED_FINDINGS]
        size = stored.tell()
        stored.seek(0)
        digest = hashlib.file_digest(stored, "sha256")
        stored.seek(0)
        put(key, stored, "application/gzip", IfNoneMatch="*", ChecksumSHA256=b64encode(digest.digest()).decode())
    target = {
        "account_id": account_id,
        "region": region,
        "status": "complete",
        "pages": pages,
        "reports": len(seen),
        "error": None,
        "object": {"key": key, "version_id": None, "sha256": digest.hexdigest(), "bytes": size, "lines": len(seen)},
    }
    return target, states, kinds, findings


def judge(report, now):
    state, creation, expiration = report.get("State"), report.get("CreationTime"), report.get("ExpirationTime")
    found = []
    if state == "error":
        found.append("failed")
    if expiration and expiration <= now:
        found.append("expired")
    elif expiration and expiration <= now + WINDOW:
        found.append("expiring")
    if state == "pending" and creation and now - creation >= LIMIT:
        found.append("stuck")
    if state not in ("available", "pending", "error"):
        found.append("unrecognised_state")
    if not expiration:
        found.append("undated")
    return found


def line_of(account_id, region, report, found):
    return {
        "account_id": account_id,
        "region": region,
        "report_id": report["ReportId"],
        "image_id": report.get("ImageId"),
        "state": report.get("State"),
        "state_reason": report.get("StateReason"),
        "creation_time": iso(report.get("CreationTime")),
        "expiration_time": iso(report.get("ExpirationTime")),
        "resource_types": [
            {
                "resource_type": kind.get("ResourceType"),
                "options": [
                    {"name": option.get("OptionName"), "values": option.get("OptionValues", [])}
                    for option in kind.get("ResourceTypeOptions", [])
                ],
            }
            for kind in report.get("ResourceTypes", [])
        ],
        "requested_account_ids": report.get("AccountIds", []),
        "tags": {tag["Key"]: tag.get("Value") for tag in report.get("Tags", [])},
        "findings": found,
    }


def finding(kind, line, report, now):
    expiration = report.get("ExpirationTime")
    return {
        "id": f"{line['account_id']}/{line['region']}/{line['report_id']}/{kind}",
        "kind": kind,
        **{
            name: value
            for name, value in line.items()
            if name not in ("resource_types", "requested_account_ids", "findings")
        },
        "expires_in_seconds": expiration and (expiration - now) // timedelta(seconds=1),
        "message": message(kind, line),
    }


def message(kind, line):
    match kind:
        case "failed":
            return f"EC2 could not make the report: {line['state_reason']}"
        case "expired":
            return f"expired at {line['expiration_time']}"
        case "expiring":
            return f"expires at {line['expiration_time']}"
        case "stuck":
            return f"pending since {line['creation_time']}"
        case "unrecognised_state":
            return f"unknown state `{line['state']}`"
        case "undated":
            return "EC2 returned no expiration time"


def rank(found):
    time = found["expiration_time"] or found["creation_time"]
    return KINDS.index(found["kind"]), time is None, time or "", found["id"]


def iso(moment):
    """Formats a time as RFC 3339 in UTC, with milliseconds unless they are zero."""
    if moment is None:
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}" + (f".{moment.microsecond // 1000:03}Z" if moment.microsecond else "Z")


def read(key):
    try:
        return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey:
        return None


def put(key, body, content_type, **condition):
    s3.put_object(Bucket=BUCKET, Key=key, Body=body, ContentType=content_type, **condition)


def advance_latest(snapshot, body):
    key = f"{PREFIX}v1/latest.json"
    try:
        latest = s3.get_object(Bucket=BUCKET, Key=key)
    except s3.exceptions.NoSuchKey:
        return put(key, body, "application/json", IfNoneMatch="*")
    there = json.loads(latest["Body"].read())
    if (there["scheduled_at"], there["run_id"]) < (snapshot["scheduled_at"], snapshot["run_id"]):
        put(key, body, "application/json", IfMatch=latest["ETag"])


def summary(snapshot, key, already_archived):
    return {
        "run_id": snapshot["run_id"],
        "status": snapshot["status"],
        "snapshot": {"bucket": BUCKET, "key": key},
        "counts": snapshot["counts"],
        "already_archived": already_archived,
    }
