//! What EC2 held, as lines of the archive.

use std::collections::BTreeMap;

use image_usage_archive::domain::timestamp::Timestamp;
use local_aws::{Report, ResourceTypeOption};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// The lines that a report's entries must become, each once.
pub(crate) fn expected_entries(account: &str, region: &str, report: &Report) -> Vec<Value> {
    let line = |consumer: Value, resource_type: Value, usage_count: Value| {
        json!({
            "account_id": account, "region": region, "report_id": report.report_id,
            "image_id": report.image_id, "report_creation_time": written_time(report.creation_time),
            "consumer_account_id": consumer, "resource_type": resource_type, "usage_count": usage_count,
        })
    };
    if report.entries.is_empty() {
        return vec![line(Value::Null, Value::Null, json!(0))];
    }
    let entries = report.entries.iter().map(|entry| {
        line(
            json!(entry.account_id),
            json!(entry.resource_type),
            json!(entry.usage_count),
        )
    });
    let mut once: Vec<Value> = Vec::new();
    for entry in entries {
        if !once.contains(&entry) {
            once.push(entry);
        }
    }
    once
}

/// A time as the archive writes it; EC2 gives times in milliseconds.
fn written_time(time: Option<OffsetDateTime>) -> Option<String> {
    time.map(|time| {
        let time: Timestamp = local_aws::timestamp(time).parse().unwrap();
        time.to_string()
    })
}

/// The line that a report must become, without its findings and the status of its entries.
pub(super) fn expected_line(account: &str, region: &str, report: &Report) -> Value {
    let resource_types = report.resource_types.iter().map(|kind| {
        let options = kind.options.iter();
        let options: Vec<Value> = options
            .map(|ResourceTypeOption { name, values }| json!({"name": name, "values": values}))
            .collect();
        json!({"resource_type": kind.resource_type, "options": options})
    });
    let tags = report.tags.iter().map(|tag| {
        let key = tag.key.as_deref().unwrap_or_default();
        (key, tag.value.as_deref())
    });
    json!({
        "account_id": account, "region": region, "report_id": report.report_id, "image_id": report.image_id,
        "state": report.state, "state_reason": report.state_reason,
        "creation_time": written_time(report.creation_time), "expiration_time": written_time(report.expiration_time),
        "resource_types": resource_types.collect::<Vec<_>>(), "requested_account_ids": report.account_ids,
        "tags": tags.collect::<BTreeMap<_, _>>(),
    })
}

/// The status of entries that are still to be fetched.
pub(crate) fn pending(code: Option<&str>) -> Value {
    json!({"status": "pending", "code": code})
}

/// The status of entries that could not be fetched.
pub(crate) fn failed(code: &str) -> Value {
    json!({"status": "failed", "code": code})
}
