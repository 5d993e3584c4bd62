// The core of image-usage-auditor as a careful author would write it for Node: it applies the rules to every
// report of each Region, archives them, and writes the snapshot and `latest.json`.
//
// One account, and any failure fails the run: no retried targets, no deadline, no bounded memory.

import { createHash } from "node:crypto";
import { createGzip } from "node:zlib";
import { EC2Client, paginateDescribeImageUsageReports } from "@aws-sdk/client-ec2";
import { GetObjectCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";

const { env } = process;
const Bucket = env.AUDITOR_ARCHIVE_BUCKET;
const prefix = env.AUDITOR_ARCHIVE_PREFIX ?? "image-usage/";
const regions = (env.AUDITOR_REGIONS ?? env.AWS_REGION).split(",");
const concurrentRegions = Number(env.AUDITOR_MAX_CONCURRENT_TARGETS ?? 8);
const windowDays = Number(env.AUDITOR_EXPIRY_WINDOW_DAYS ?? 7);
const limitHours = Number(env.AUDITOR_PENDING_LIMIT_HOURS ?? 24);
const pageSize = 1000;
const listedFindings = 1000;
const kinds = ["failed", "expired", "expiring", "stuck", "unrecognised_state", "undated"];
const HOUR = 3_600_000;

// Created during initialisation, as AWS recommends.
const options = { maxAttempts: 10 };
const s3 = new S3Client({ ...options, forcePathStyle: env.AWS_ENDPOINT_URL !== undefined });
const ec2 = new Map(regions.map((region) => [region, new EC2Client({ ...options, region })]));

export async function answer(event, context) {
  const startedAt = new Date();
  const scheduledAt = event.time ?? iso(startedAt);
  const digits = createHash("sha256").update(event.id ?? context.requestId).digest("hex").slice(0, 8);
  const run_id = `${scheduledAt.slice(0, 19).replaceAll(/[-:]/g, "")}Z-${digits}`;
  const account_id = context.functionArn.split(":")[4];
  const dt = `dt=${scheduledAt.slice(0, 10)}`;
  const snapshotKey = `${prefix}v1/snapshots/${dt}/${run_id}.json`;
  const archived = await read(snapshotKey);
  if (archived) return summary(JSON.parse(archived.body), snapshotKey, true);

  const audits = [];
  const waiting = [...regions];
  const work = async () => {
    for (let region = waiting.shift(); region; region = waiting.shift()) {
      const key = `${prefix}v1/reports/${dt}/account_id=${account_id}/region=${region}/${run_id}.jsonl.gz`;
      audits.push(await audit(account_id, region, key, startedAt.getTime()));
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrentRegions, regions.length) }, work));

  const sum = (name, member) => audits.reduce((total, counted) => total + (counted[name][member] ?? 0), 0);
  const all = audits.flatMap(({ findings }) => findings).sort(byRank);
  const total = audits.reduce((sum, { target }) => sum + target.reports, 0);
  const states = Object.fromEntries(["available", "pending", "error"].map((state) => [state, sum("states", state)]));
  const found = Object.fromEntries(kinds.map((kind) => [kind, sum("kinds", kind)]));
  const foundTotal = kinds.reduce((sum, kind) => sum + found[kind], 0);
  const other = total - states.available - states.pending - states.error;
  const snapshot = {
    schema_version: 1,
    run_id,
    scheduled_at: scheduledAt,
    started_at: iso(startedAt),
    finished_at: iso(new Date()),
    policy: { expiry_window_days: windowDays, pending_limit_hours: limitHours },
    status: "complete",
    targets: audits.map(({ target }) => target).sort((a, b) => compare(a.region, b.region)),
    counts: {
      targets: { complete: audits.length, incomplete: 0, failed: 0, skipped: 0 },
      reports: { total, ...states, other },
      findings: { total: foundTotal, ...found },
    },
    findings: all.slice(0, listedFindings),
    findings_omitted: foundTotal - Math.min(all.length, listedFindings),
  };
  const body = JSON.stringify(snapshot);
  await put(snapshotKey, body, "application/json", { IfNoneMatch: "*" });
  await advanceLatest(snapshot, body);
  return summary(snapshot, snapshotKey, false);
}

// Archives one Region. Returns its ledger line, its counts, and its most urgent findings.
async function audit(account_id, region, key, now) {
  const seen = new Set();
  const [states, counted] = [{}, {}];
  let [pages, findings] = [0, []];
  const gzip = createGzip({ level: 6 });
  const stored = collect(gzip);
  for await (const page of paginateDescribeImageUsageReports({ client: ec2.get(region), pageSize }, {})) {
    pages += 1;
    let lines = "";
    for (const report of page.ImageUsageReports ?? []) {
      if (seen.has(report.ReportId)) continue;
      seen.add(report.ReportId);
      const found = judge(report, now);
      const line = lineOf(account_id, region, report, found);
      lines += `${JSON.stringify(line)}\n`;
      states[report.State] = (states[report.State] ?? 0) + 1;
      for (const kind of found) {
        counted[kind] = (counted[kind] ?? 0) + 1;
        findings.push(finding(kind, line, report, now));
      }
    }
    if (!gzip.write(lines)) await new Promise((resolve) => gzip.once("drain", resolve));
    if (findings.length > 2 * listedFindings) findings = findings.sort(byRank).slice(0, listedFindings);
  }
  gzip.end();
  const body = await stored;
  const sha256 = createHash("sha256").update(body).digest();
  await put(key, body, "application/gzip", { IfNoneMatch: "*", ChecksumSHA256: sha256.toString("base64") });
  const object = { key, version_id: null, sha256: sha256.toString("hex"), bytes: body.length, lines: seen.size };
  const target = { account_id, region, status: "complete", pages, reports: seen.size, error: null, object };
  return { target, states, kinds: counted, findings };
}

function judge({ State, CreationTime, ExpirationTime }, now) {
  const found = [];
  if (State === "error") found.push("failed");
  if (ExpirationTime && ExpirationTime.getTime() <= now) found.push("expired");
  else if (ExpirationTime && ExpirationTime.getTime() <= now + windowDays * 24 * HOUR) found.push("expiring");
  if (State === "pending" && CreationTime && now - CreationTime.getTime() >= limitHours * HOUR) found.push("stuck");
  if (!["available", "pending", "error"].includes(State)) found.push("unrecognised_state");
  if (!ExpirationTime) found.push("undated");
  return found;
}

function lineOf(account_id, region, report, findings) {
  return {
    account_id,
    region,
    report_id: report.ReportId,
    image_id: report.ImageId ?? null,
    state: report.State ?? null,
    state_reason: report.StateReason ?? null,
    creation_time: iso(report.CreationTime),
    expiration_time: iso(report.ExpirationTime),
    resource_types: (report.ResourceTypes ?? []).map((kind) => ({
      resource_type: kind.ResourceType ?? null,
      options: (kind.ResourceTypeOptions ?? []).map((option) => ({
        name: option.OptionName ?? null,
        values: option.OptionValues ?? [],
      })),
    })),
    requested_account_ids: report.AccountIds ?? [],
    tags: Object.fromEntries((report.Tags ?? []).map((tag) => [tag.Key, tag.Value ?? null])),
    findings,
  };
}

function finding(kind, line, { ExpirationTime }, now) {
  const { resource_types, requested_account_ids, findings, ...kept } = line;
  const expires_in_seconds = ExpirationTime ? Math.floor((ExpirationTime.getTime() - now) / 1000) : null;
  const id = `${line.account_id}/${line.region}/${line.report_id}/${kind}`;
  return { id, kind, ...kept, expires_in_seconds, message: message(kind, line) };
}

function message(kind, line) {
  switch (kind) {
    case "failed": return `EC2 could not make the report: ${line.state_reason}`;
    case "expired": return `expired at ${line.expiration_time}`;
    case "expiring": return `expires at ${line.expiration_time}`;
    case "stuck": return `pending since ${line.creation_time}`;
    case "unrecognised_state": return `unknown state \`${line.state}\``;
    case "undated": return "EC2 returned no expiration time";
  }
}

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

function byRank(a, b) {
  const time = (finding) => finding.expiration_time ?? finding.creation_time ?? "9999";
  return compare(kinds.indexOf(a.kind), kinds.indexOf(b.kind)) || compare(time(a), time(b)) || compare(a.id, b.id);
}

// RFC 3339 in UTC, with milliseconds unless they are zero.
const iso = (moment) => moment?.toISOString().replace(".000Z", "Z") ?? null;

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function read(Key) {
  try {
    const object = await s3.send(new GetObjectCommand({ Bucket, Key }));
    return { body: await object.Body.transformToString(), etag: object.ETag };
  } catch (error) {
    if (error.name === "NoSuchKey") return null;
    throw error;
  }
}

function put(Key, Body, ContentType, condition) {
  return s3.send(new PutObjectCommand({ Bucket, Key, Body, ContentType, ...condition }));
}

async function advanceLatest(snapshot, body) {
  const key = `${prefix}v1/latest.json`;
  const latest = await read(key);
  if (!latest) return put(key, body, "application/json", { IfNoneMatch: "*" });
  const there = JSON.parse(latest.body);
  const order = compare(there.scheduled_at, snapshot.scheduled_at) || compare(there.run_id, snapshot.run_id);
  if (order < 0) await put(key, body, "application/json", { IfMatch: latest.etag });
}

function summary({ run_id, status, counts }, key, already_archived) {
  return { run_id, status, snapshot: { bucket: Bucket, key }, counts, already_archived };
}
