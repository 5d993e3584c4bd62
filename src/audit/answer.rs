//! What the function answers.

use image_usage_archive::documents::{Counts, News, RunStatus, TargetCounts};
use image_usage_archive::domain::run_id::RunId;
use serde::Serialize;

use super::preflight::Preflight;
use super::run::Run;
use crate::archive::snapshots::{PublishedSnapshot, SnapshotObject};

/// What the function answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// The run is archived.
    Summary(Box<Summary>),
    /// The result of a dry run.
    Preflight(Preflight),
    /// The run is planned.
    Planned(PlanAnswer),
    /// A batch of the run's targets is done.
    Audited(BatchAnswer),
}

impl Answer {
    /// Answers that a run is archived, and logs it.
    pub(super) fn archived(run: &Run, published: PublishedSnapshot) -> Self {
        let (layout, facts) = (&run.settings.archive_prefix, &run.facts);
        let page = layout.page(&facts.run_id, facts.scheduled_at);
        let summary = Summary::new(published, page, run.deadline.duration_ms());
        summary.log();
        Self::Summary(Box::new(summary))
    }
}

/// The result of the phase `plan`, for the state machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PlanAnswer {
    /// The run.
    pub run_id: RunId,
    /// Whether the run is archived already, so that there is nothing to audit.
    pub already_archived: bool,
    /// Where its targets are listed; `None` if it is archived already.
    pub targets: Option<PlannedTargets>,
}

/// Where the targets of a planned run are listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PlannedTargets {
    /// The archive's bucket.
    pub bucket: String,
    /// The key of the list: JSON Lines.
    pub key: String,
    /// How many there are.
    pub count: u64,
}

/// The result of the phase `target`, for the state machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BatchAnswer {
    /// The run.
    pub run_id: RunId,
    /// The key of the outcomes.
    pub outcomes: String,
    /// The targets of the batch by status.
    pub targets: TargetCounts,
    /// How long this invocation took, in milliseconds.
    pub duration_ms: u64,
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
