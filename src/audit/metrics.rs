//! The metrics of a run, as one line in CloudWatch's embedded metric format.

use image_usage_archive::documents::Snapshot;
use serde_json::{Value, json};

/// The namespace of all metrics.
const NAMESPACE: &str = "ImageUsageAuditor";

/// What the metrics say besides the counts of the snapshot.
pub(super) struct OfRun {
    pub(super) duration_ms: u64,
    pub(super) snapshots_written: u64,
    /// Objects of earlier runs that exist and cannot be read.
    pub(super) unreadable_objects: u64,
}

/// Builds the metrics line of a run.
///
/// An attempt without a snapshot has only `SnapshotsWritten` and `RunDuration`.
///
/// The dimension `Scope` keeps scoped runs, of which there may be many, from filling the gap that a missing
/// full run leaves: an alarm watches `Scope` = `full`.
///
/// Source: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
pub(super) fn line(function_name: &str, snapshot: &Snapshot, run: &OfRun) -> Value {
    let counts = &snapshot.counts;
    let images = counts.images.unwrap_or_default();
    let images_not_read = targets_without_images(snapshot);
    let metrics = [
        ("ReportsAudited", counts.reports.total, "Count"),
        ("ReportsExpiring", counts.findings.expiring, "Count"),
        ("ReportsExpired", counts.findings.expired, "Count"),
        ("ReportsFailed", counts.findings.failed, "Count"),
        ("ReportsStuck", counts.findings.stuck, "Count"),
        ("ReportsUnarchived", counts.findings.unarchived, "Count"),
        ("EntriesFetched", counts.entries.fetched, "Count"),
        ("EntriesFailed", counts.entries.failed, "Count"),
        ("ImagesInUse", images.in_use, "Count"),
        ("ImagesNoUseObserved", images.no_use_observed, "Count"),
        ("ImagesLastSeenInUse", images.last_seen_in_use, "Count"),
        ("ImagesUnknown", images.unknown, "Count"),
        ("ImagesGone", images.gone, "Count"),
        ("ImagesUncovered", images.uncovered, "Count"),
        ("ImagesNotRead", images_not_read, "Count"),
        ("TargetsComplete", counts.targets.complete, "Count"),
        ("TargetsIncomplete", counts.targets.incomplete, "Count"),
        ("TargetsFailed", counts.targets.failed, "Count"),
        ("TargetsSkipped", counts.targets.skipped, "Count"),
        ("RunDuration", run.duration_ms, "Milliseconds"),
        ("SnapshotsWritten", run.snapshots_written, "Count"),
        ("ObjectsUnreadable", run.unreadable_objects, "Count"),
    ];
    // Counts of an attempt that archived nothing would keep an alarm red that the retry has answered.
    let is_archived = run.snapshots_written > 0;
    let metrics: Vec<_> = metrics
        .into_iter()
        .filter(|(name, ..)| is_archived || ["RunDuration", "SnapshotsWritten"].contains(name))
        .collect();
    let definitions: Vec<Value> = metrics
        .iter()
        .map(|(name, _, unit)| json!({"Name": name, "Unit": unit}))
        .collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": snapshot.finished_at.unix_milliseconds(),
            "CloudWatchMetrics": [
                {"Namespace": NAMESPACE, "Dimensions": [["FunctionName", "Scope"]], "Metrics": definitions}
            ]
        },
        "FunctionName": function_name,
        "Scope": if snapshot.scope.full { "full" } else { "scoped" },
    });
    for (name, value, _) in metrics {
        line[name] = value.into();
    }
    line
}

/// The targets whose AMIs or references were asked for and not wholly read.
fn targets_without_images(snapshot: &Snapshot) -> u64 {
    let ledgers = snapshot
        .targets
        .iter()
        .filter_map(|line| line.images.as_ref());
    let failed =
        ledgers.filter(|images| images.images_error.is_some() || images.references_error.is_some());
    failed.count() as u64
}
