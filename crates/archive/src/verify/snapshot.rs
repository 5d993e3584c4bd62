//! Checks a snapshot on its own, without reading any other object.

use std::fmt::Display;

use serde::Serialize;

use super::keys::layouts;
use super::problem::{is_bounded, unless};
use super::{changes, ledger};
use crate::documents::{
    AUDITOR_NAME, Counts, LedgerLine, RunStatus, SCHEMA_VERSION, Snapshot, TargetCounts,
};
use crate::layout::{ArchiveKey, Layout};

/// Reads a snapshot; `None` if it is not one. Returns it with what is wrong with it.
pub(super) fn read_snapshot(key: &str, bytes: &[u8]) -> (Option<Snapshot>, Vec<String>) {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let snapshot: Snapshot = match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(snapshot) => snapshot,
        Err(error) => return (None, vec![format!("is not a snapshot: {error}")]),
    };
    let problems = [
        difference(bytes, &snapshot).into_iter().collect(),
        identity_problems(key, &snapshot),
        scope_problems(&snapshot),
        previous_problems(&snapshot),
        ledger::problems(&snapshot),
        count_problems(&snapshot),
        changes::problems(&snapshot),
    ];
    (Some(snapshot), problems.concat())
}

/// Describes where bytes are not what the auditor writes for what they say: an unknown field, another
/// order, a space.
fn difference(bytes: &[u8], snapshot: &Snapshot) -> Option<String> {
    let written = snapshot.to_bytes().unwrap_or_default();
    let differs = bytes.iter().zip(&written).position(|(a, b)| a != b);
    let shorter = bytes.len().min(written.len());
    let at = differs.or_else(|| (bytes.len() != written.len()).then_some(shorter))?;
    Some(format!(
        "is not in the form that the auditor writes, from byte {at} on"
    ))
}

/// Whether a line is exactly what the auditor writes for what it says.
pub(super) fn is_as_written(line: &[u8], value: &impl Serialize, buffer: &mut Vec<u8>) -> bool {
    buffer.clear();
    let written = serde_json::to_writer(&mut *buffer, value).is_ok();
    written && line == buffer.as_slice()
}

fn identity_problems(key: &str, snapshot: &Snapshot) -> Vec<String> {
    let Snapshot {
        schema_version,
        run_id,
        auditor,
        scheduled_at,
        started_at,
        finished_at,
        ..
    } = snapshot;
    let expected = Layout::without_prefix().snapshot(run_id, *scheduled_at);
    let problems = [
        unless(*schema_version == SCHEMA_VERSION, || {
            format!("has schema_version {schema_version}; this program knows {SCHEMA_VERSION}")
        }),
        unless(auditor.name == AUDITOR_NAME, || {
            format!("was written by `{}`", auditor.name)
        }),
        unless(
            run_id.scheduled_at() == Some(scheduled_at.to_whole_second()),
            || {
                format!(
                    "has the run_id {run_id}, which is not of a run scheduled at {scheduled_at}"
                )
            },
        ),
        unless(key == expected, || {
            format!("says that it is stored at {expected}")
        }),
        unless(started_at <= finished_at, || {
            "ended before it started".to_owned()
        }),
    ];
    problems.into_iter().flatten().collect()
}

fn scope_problems(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot {
        scope,
        previous,
        changes,
        ..
    } = snapshot;
    let is_narrowed = !(scope.image_ids.is_empty()
        && scope.report_ids.is_empty()
        && scope.filters.is_empty()
        && scope.regions.is_empty()
        && scope.account_ids.is_empty());
    let problems = [
        unless(scope.full != is_narrowed, || {
            "has a scope that contradicts its `full` flag".to_owned()
        }),
        unless(scope.full || previous.is_none(), || {
            "is scoped, but names a previous snapshot".to_owned()
        }),
        unless(changes.is_some() == previous.is_some(), || {
            "has changes without a previous snapshot, or a previous snapshot without changes"
                .to_owned()
        }),
    ];
    problems.into_iter().flatten().collect()
}

/// Checks that the keys in a snapshot have one prefix, and that the previous snapshot has the key of its
/// run.
fn previous_problems(snapshot: &Snapshot) -> Vec<String> {
    let layouts = layouts(snapshot);
    let is_one = layouts.windows(2).all(|pair| pair[0] == pair[1]);
    let prefixes = unless(is_one, || "names objects under several prefixes".to_owned());
    let key = snapshot.previous.as_ref().and_then(|previous| {
        let is_right = match ArchiveKey::parse(&previous.key) {
            Some((layout, ArchiveKey::Snapshot { run_id, .. })) => {
                run_id == previous.run_id && layouts.first().is_none_or(|own| *own == layout)
            }
            _ => false,
        };
        unless(is_right, || {
            format!(
                "names {} for the previous run {}, which is not its key",
                previous.key, previous.run_id
            )
        })
    });
    prefixes.into_iter().chain(key).collect()
}

fn count_problems(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot {
        status,
        targets,
        counts,
        findings,
        findings_omitted,
        ..
    } = snapshot;
    let mut counted = Counts::default();
    targets
        .iter()
        .for_each(|line: &LedgerLine| counted.add_target(line.status));
    let TargetCounts {
        complete,
        incomplete,
        failed,
        skipped,
    } = counted.targets;
    let said = &counts.targets;
    let lines: u64 = targets.iter().map(|line| line.reports).sum();
    let listed = findings.len() as u64;
    let total = listed.saturating_add(*findings_omitted);
    let by_targets = counts.run_status();
    let problems = [
        unequal("complete targets", said.complete, complete),
        unequal("incomplete targets", said.incomplete, incomplete),
        unequal("failed targets", said.failed, failed),
        unequal("skipped targets", said.skipped, skipped),
        unequal("reports", counts.reports.total, lines),
        unequal("findings", counts.findings.total, total),
        unless(*status == by_targets, || {
            let word = RunStatus::as_str;
            let (said, found) = (word(*status), word(by_targets));
            format!("states that the run is {said}; by its targets it is {found}")
        }),
        unless(is_bounded(findings.len(), *findings_omitted), || {
            format!("lists {listed} findings and omits {findings_omitted}")
        }),
        unless(findings.is_sorted(), || {
            "lists findings out of order".to_owned()
        }),
    ];
    problems.into_iter().flatten().collect()
}

fn unequal<T: PartialEq + Display>(what: &str, said: T, found: T) -> Option<String> {
    unless(said == found, || {
        format!("states {said} {what}; its ledger and lists contain {found}")
    })
}
