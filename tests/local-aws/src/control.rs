//! Control requests: what scripts may ask of the local AWS itself, without a signature.
//!
//! - `GET /_local-aws/calls`: the log of requests. `DELETE` empties it.
//! - `GET /_local-aws/reports?account_id=111122223333&region=us-east-1`: the reports of a target.
//! - `GET /_local-aws/images` and `GET /_local-aws/resources`: likewise the AMIs that the account
//!   owns there, and the resources that refer to AMIs.
//! - `GET /_local-aws/world`: accounts, enabled Regions, reports and expected findings.
//! - `POST /_local-aws/faults`: adds faults, one per line, in the format of `--fault`. `DELETE`
//!   removes them, and `GET` returns how many requests they have changed.
//! - `POST /_local-aws/clock?advance_seconds=60`: advances the clock.
//! - `PUT /_local-aws/functions/NAME`: starts a Lambda Runtime API for a function. Returns
//!   `runtime_api`, the value of `AWS_LAMBDA_RUNTIME_API` for the function's process, and
//!   `function_arn`. A function of the same name is replaced. `DELETE` stops it.
//! - `GET /_local-aws/functions/NAME/ready?timeout_seconds=10`: waits until the function asks for
//!   an invocation. Returns `waiting_since_unix_seconds`, or an outcome as below.
//! - `POST /_local-aws/functions/NAME/invocations?timeout_seconds=60`: invokes the function with
//!   the body as its event, and returns the outcome: `kind` (`response`, `error`, `init_error`,
//!   `exited` or `timed_out`), `payload`, `error_type` and `milliseconds`, the time from the
//!   hand-over of the event to the function's answer.

use crate::answer::Answer;
use crate::calls::{Call, Calls};
use crate::clock::timestamp;
use crate::expected_findings::{FindingPolicy, count_findings};
use crate::faults::{Fault, Faults};
use crate::functions::Functions;
use crate::images::Image;
use crate::query::Query;
use crate::resources::Resource;
use crate::world::{Report, Tag, World};
use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use time::Duration;

/// The prefix of control paths; no bucket's name begins with an underscore.
pub(crate) const PREFIX: &str = "/_local-aws/";

/// What control requests read and change.
pub(crate) struct Control<'a> {
    pub(crate) world: &'a World,
    pub(crate) faults: &'a Faults,
    pub(crate) calls: &'a Calls,
    pub(crate) functions: &'a Functions,
}

impl Control<'_> {
    pub(crate) async fn answer(&self, parts: &Parts, body: Bytes) -> Answer {
        let query = Query::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let path = parts.uri.path().trim_start_matches(PREFIX);
        let result = match path.strip_prefix("functions/") {
            Some(path) => {
                let (functions, method) = (self.functions, &parts.method);
                let responding = functions.respond(self.world, method, path, &query, body);
                responding.await
            }
            None => self.respond(&parts.method, path, &query, &body),
        };
        let (status, body) = match result {
            Ok(body) => (StatusCode::OK, body),
            Err(message) => (StatusCode::BAD_REQUEST, json!({"error": message})),
        };
        Answer::json(status, "local-aws", &body)
    }

    fn respond(
        &self,
        method: &Method,
        path: &str,
        query: &Query,
        body: &[u8],
    ) -> Result<Value, String> {
        match (method, path) {
            (&Method::GET, "calls") => Ok(self.calls.list().iter().map(call_json).collect()),
            (&Method::DELETE, "calls") => {
                self.calls.clear();
                Ok(json!({}))
            }
            (&Method::GET, "reports") => {
                let (account, region) = target_of(query)?;
                let reports = self.world.reports(account, region);
                Ok(reports.iter().map(report_json).collect())
            }
            (&Method::GET, "images") => {
                let (account, region) = target_of(query)?;
                let images = self.world.images(account, region);
                Ok(images.iter().map(image_json).collect())
            }
            (&Method::GET, "resources") => {
                let (account, region) = target_of(query)?;
                let json = |it: &Resource| resource_json(it, &it.arn(account, region));
                Ok(self
                    .world
                    .resources(account, region)
                    .iter()
                    .map(json)
                    .collect())
            }
            (&Method::GET, "world") => Ok(world_json(self.world)),
            (&Method::POST, "faults") => self.add_faults(body),
            (&Method::GET, "faults") => Ok(json!({"injected": self.faults.injected()})),
            (&Method::DELETE, "faults") => {
                self.faults.clear();
                Ok(json!({}))
            }
            (&Method::POST, "clock") => {
                let seconds = query
                    .get("advance_seconds")
                    .and_then(|text| text.parse().ok())
                    .ok_or("advance_seconds is missing or not a whole number")?;
                self.world.clock().advance(Duration::seconds(seconds));
                Ok(json!({"now": timestamp(self.world.now())}))
            }
            _ => Err(format!("unknown request: {method} {PREFIX}{path}")),
        }
    }

    fn add_faults(&self, body: &[u8]) -> Result<Value, String> {
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        let faults: Vec<Fault> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| line.parse::<Fault>().map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()?;
        let added = faults.len();
        faults.into_iter().for_each(|fault| self.faults.add(fault));
        Ok(json!({"added": added}))
    }
}

fn target_of(query: &Query) -> Result<(&str, &str), String> {
    let account = query.get("account_id").ok_or("account_id is missing")?;
    let region = query.get("region").ok_or("region is missing")?;
    Ok((account, region))
}

fn call_json(call: &Call) -> Value {
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
        "fault": call.fault.as_ref().map(|fault| format!("{fault:?}")),
        "concurrent_calls": call.concurrent_calls,
    })
}

/// Returns the number of reports of each target, with the findings by the default policy.
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
        "tags": tags_json(&report.tags),
        "entries": report.entries.iter().map(|entry| json!({
            "resource_type": entry.resource_type,
            "account_id": entry.account_id,
            "usage_count": entry.usage_count,
        })).collect::<Value>(),
    })
}

fn image_json(image: &Image) -> Value {
    json!({
        "image_id": image.image_id,
        "name": image.name,
        "description": image.description,
        "state": image.state,
        "public": image.public,
        "shared_with": image.shared_with,
        "creation_time": image.creation_time.map(timestamp),
        "last_launched_time": image.last_launched_time.map(timestamp),
        "deprecation_time": image.deprecation_time.map(timestamp),
        "deregistration_protection": image.deregistration_protection,
        "source_image_id": image.source_image_id,
        "source_image_region": image.source_image_region,
        "tags": tags_json(&image.tags),
    })
}

fn resource_json(resource: &Resource, arn: &str) -> Value {
    json!({
        "resource_type": resource.resource_type,
        "arn": arn,
        "image_ids": resource.image_ids,
        "state": resource.state,
    })
}

fn tags_json(tags: &[Tag]) -> Value {
    tags.iter()
        .map(|tag| json!({"key": tag.key, "value": tag.value}))
        .collect()
}
