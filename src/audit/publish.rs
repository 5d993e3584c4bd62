//! Publishes a run: its snapshot, its metrics, and `latest.json`.

use std::sync::atomic::Ordering;

use image_usage_archive::documents::{Snapshot, Tally};

use super::run::Run;
use super::{Auditor, RunError, metrics};
use crate::archive::latest::{self, FoundSnapshot};
use crate::archive::lines_writer::ArchiveError;
use crate::archive::snapshots::{self, PublishedSnapshot};

/// Writes the snapshot of a run, unless another attempt at it has, and prints the run's metrics.
///
/// # Errors
/// Fails if nothing was read and archived, with `archive_error` if that is the reason, and as S3 does.
pub(super) async fn snapshot(
    auditor: &Auditor,
    run: &Run,
    tally: Tally,
    archive_error: Option<ArchiveError>,
) -> Result<PublishedSnapshot, RunError> {
    let has_archived = tally.has_archived();
    let baseline = run.previous().await.filter(|_| run.facts.scope.full);
    let baseline = baseline.map(|previous| previous.baseline.clone());
    let snapshot = Snapshot::new(run.facts.clone(), run.now(), tally, baseline);
    let published = match archive_error {
        _ if has_archived => commit(auditor, run, &snapshot).await,
        Some(error) => Err(RunError::ArchiveFailed(error)),
        None => Err(RunError::no_target_audited(&snapshot.targets)),
    };
    print_metrics(auditor, run, &snapshot, &published);
    published
}

/// Makes a snapshot the latest one, if it is of a full run and the newest one; `found` is what the run has found.
///
/// # Errors
/// Fails as S3 does.
pub(super) async fn advance_latest(
    auditor: &Auditor,
    run: &Run,
    found: FoundSnapshot,
    published: &PublishedSnapshot,
) -> Result<(), RunError> {
    if !published.head.scope.full {
        return Ok(());
    }
    let (key, unreadable) = (
        auditor.settings.archive_prefix.latest(),
        &run.unreadable_objects,
    );
    let advanced = latest::advance(&auditor.bucket, &key, found, published, unreadable).await;
    advanced.map_err(RunError::ArchiveFailed)
}

async fn commit(
    auditor: &Auditor,
    run: &Run,
    snapshot: &Snapshot,
) -> Result<PublishedSnapshot, RunError> {
    let layout = &auditor.settings.archive_prefix;
    let key = layout.snapshot(&run.facts.run_id, run.facts.scheduled_at);
    let bytes = snapshot.to_bytes().map_err(RunError::DocumentNotWritten)?;
    let committed = snapshots::commit(&auditor.bucket, &key, bytes, snapshot).await;
    committed.map_err(RunError::ArchiveFailed)
}

/// Prints the metrics of a run, unless another attempt at it was faster and has printed them.
fn print_metrics(
    auditor: &Auditor,
    run: &Run,
    snapshot: &Snapshot,
    published: &Result<PublishedSnapshot, RunError>,
) {
    let snapshots_written = match published {
        Ok(published) if published.already_archived => return,
        Ok(_) => 1,
        Err(_) => 0,
    };
    let since = run.facts.started_at.unix_milliseconds();
    let duration_ms = run.now().unix_milliseconds() - since;
    let line = metrics::line(
        &auditor.function_name,
        snapshot,
        &metrics::OfRun {
            duration_ms: u64::try_from(duration_ms).unwrap_or(0),
            snapshots_written,
            unreadable_objects: run.unreadable_objects.load(Ordering::Relaxed),
        },
    );
    println!("{line}");
}
