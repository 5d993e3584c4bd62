//! What a script may ask the local AWS itself, without a signature.
//!
//! - `GET /_local-aws/calls`: the log of requests. `DELETE` empties it.
//! - `GET /_local-aws/reports?account_id=111122223333&region=us-east-1`: the reports of a target.
//! - `GET /_local-aws/world`: accounts, enabled Regions, reports and expected findings.
//! - `POST /_local-aws/faults`: adds faults, one a line, worded as for `--fault`. `DELETE` clears
//!   them, and `GET` answers how many requests they have met.
//! - `POST /_local-aws/clock?advance_seconds=60`: moves the clock.

use crate::answer::Answer;
use crate::clock::timestamp;
use crate::faults::Fault;
use crate::query::Query;
use crate::seed::{FindingPolicy, count_findings};
use crate::server::Shared;
use crate::world::{Report, World};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use time::Duration;

/// The path below which nothing is S3's: no bucket's name begins with an underscore.
pub(crate) const PREFIX: &str = "/_local-aws/";

pub(crate) fn answer(shared: &Shared, parts: &http::request::Parts, body: &[u8]) -> Answer {
    let query = Query::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let name = parts.uri.path().trim_start_matches(PREFIX);
    let (status, body) = match respond(shared, &parts.method, name, &query, body) {
        Ok(body) => (StatusCode::OK, body),
        Err(message) => (StatusCode::BAD_REQUEST, json!({"error": message})),
    };
    Answer::json(status, "local-aws", &body)
}

fn respond(
    shared: &Shared,
    method: &Method,
    name: &str,
    query: &Query,
    body: &[u8],
) -> Result<Value, String> {
    match (method, name) {
        (&Method::GET, "calls") => Ok(shared
            .calls
            .list()
            .into_iter()
            .map(|call| {
                json!({
                    "service": call.service.name(),
                    "operation": call.operation,
                    "account_id": call.account,
                    "region": call.region,
                    "bucket": call.bucket,
                    "key": call.key,
                    "parameters": call.parameters,
                    "page": call.page,
                    "status": call.status,
                    "fault": call.fault.map(|fault| format!("{fault:?}")),
                    "concurrent_calls": call.concurrent_calls,
                })
            })
            .collect()),
        (&Method::DELETE, "calls") => {
            shared.calls.clear();
            Ok(json!({}))
        }
        (&Method::GET, "reports") => {
            let account = query.get("account_id").ok_or("account_id is missing")?;
            let region = query.get("region").ok_or("region is missing")?;
            let reports = shared.world.reports(account, region);
            Ok(reports.iter().map(report_json).collect())
        }
        (&Method::GET, "world") => Ok(world_json(&shared.world)),
        (&Method::POST, "faults") => {
            let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
            let faults: Vec<Fault> = text
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(|line| line.parse::<Fault>().map_err(|error| error.to_string()))
                .collect::<Result<_, _>>()?;
            let added = faults.len();
            faults
                .into_iter()
                .for_each(|fault| shared.faults.add(fault));
            Ok(json!({"added": added}))
        }
        (&Method::GET, "faults") => Ok(json!({"injected": shared.faults.injected()})),
        (&Method::DELETE, "faults") => {
            shared.faults.clear();
            Ok(json!({}))
        }
        (&Method::POST, "clock") => {
            let seconds = query
                .get("advance_seconds")
                .and_then(|text| text.parse().ok())
                .ok_or("advance_seconds is missing or not a whole number")?;
            shared.world.clock().advance(Duration::seconds(seconds));
            Ok(json!({"now": timestamp(shared.world.now())}))
        }
        _ => Err(format!("unknown request: {method} {PREFIX}{name}")),
    }
}

/// Describes what each target holds, with the findings that the default policy makes of it.
pub fn world_json(world: &World) -> Value {
    let policy = FindingPolicy::default();
    let mut accounts = Map::new();
    for account in world.accounts() {
        let mut regions = Map::new();
        for region in world.enabled_regions(&account) {
            let reports = world.report_count(&account, &region);
            let findings = count_findings(world, &account, &region, policy);
            regions.insert(region, json!({"reports": reports, "findings": findings}));
        }
        accounts.insert(account, Value::Object(regions));
    }
    json!({
        "now": timestamp(world.now()),
        "expiry_window_days": policy.expiry_window.whole_days(),
        "pending_limit_hours": policy.pending_limit.whole_hours(),
        "accounts": accounts,
    })
}

fn report_json(report: &Report) -> Value {
    json!({
        "image_id": report.image_id,
        "report_id": report.report_id,
        "resource_types": report.resource_types.iter().map(|resource_type| json!({
            "resource_type": resource_type.resource_type,
            "options": resource_type.options.iter().map(|option| json!({
                "name": option.name,
                "values": option.values,
            })).collect::<Value>(),
        })).collect::<Value>(),
        "account_ids": report.account_ids,
        "state": report.state,
        "state_reason": report.state_reason,
        "creation_time": report.creation_time.map(timestamp),
        "expiration_time": report.expiration_time.map(timestamp),
        "tags": report.tags.iter().map(|tag| json!({
            "key": tag.key,
            "value": tag.value,
        })).collect::<Value>(),
        "entries": report.entries.iter().map(|entry| json!({
            "resource_type": entry.resource_type,
            "account_id": entry.account_id,
            "usage_count": entry.usage_count,
        })).collect::<Value>(),
    })
}
