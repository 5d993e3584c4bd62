//! What the function answers.

use image_usage_archive::documents::{Counts, News, RunStatus};
use image_usage_archive::domain::run_id::RunId;
use serde::Serialize;

use super::preflight::Preflight;
use crate::archive::snapshots::{PublishedSnapshot, SnapshotObject};

/// What the function answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// The run is archived.
    Summary(Box<Summary>),
    /// The result of a dry run.
    Preflight(Preflight),
}

/// The result of a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Summary {
    /// The run.
    pub run_id: RunId,
    /// Whether every target was read completely.
    pub status: RunStatus,
    /// What it tells people.
    #[serde(flatten)]
    pub news: News,
    /// Where its snapshot is stored.
    pub snapshot: SnapshotObject,
    /// The key of its page, in the same bucket.
    pub page: String,
    /// What it counted.
    pub counts: Counts,
    /// How long this invocation took, in milliseconds.
    pub duration_ms: u64,
    /// Whether an earlier invocation had done the run already.
    pub already_archived: bool,
}

impl Summary {
    pub(crate) fn new(published: PublishedSnapshot, page: String, duration_ms: u64) -> Self {
        Self {
            run_id: published.head.run_id,
            status: published.head.status,
            news: published.news,
            snapshot: published.object,
            page,
            counts: published.head.counts,
            duration_ms,
            already_archived: published.already_archived,
        }
    }

    /// Logs the run, once it is archived.
    pub(crate) fn log(&self) {
        let counts = &self.counts;
        tracing::info!(
            run_id = %self.run_id,
            headline = self.news.headline,
            status = self.status.as_str(),
            targets_complete = counts.targets.complete,
            targets_incomplete = counts.targets.incomplete,
            targets_failed = counts.targets.failed,
            targets_skipped = counts.targets.skipped,
            reports = counts.reports.total,
            findings = counts.findings.total,
            unarchived = counts.findings.unarchived,
            entries_fetched = counts.entries.fetched,
            snapshot = self.snapshot.key,
            already_archived = self.already_archived,
            duration_ms = self.duration_ms,
            "run archived"
        );
    }
}
