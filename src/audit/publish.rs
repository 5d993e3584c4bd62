//! Publishes a run: its snapshot, its metrics, and `latest.json`.

use std::sync::atomic::Ordering;

use image_usage_archive::documents::PageContents;
use image_usage_archive::documents::{Snapshot, Tally, TargetOutcome};

use super::answer::Answer;
use super::context::Context;
use super::error::RunError;
use super::metrics;
use super::run::Run;
use super::run_page::RunPage;
use crate::archive::latest::{self, FoundSnapshot};
use crate::archive::lines_writer::ArchiveError;
use crate::archive::snapshots::{self, PublishedSnapshot};

/// The outcomes of the targets of a run, merged.
pub(super) struct Outcomes {
    pub(super) tally: Tally,
    /// What the page shows of them.
    page: PageContents,
}

impl Outcomes {
    /// Those of no target yet.
    pub(super) fn new(run: &Run) -> Self {
        Self {
            tally: Tally::default(),
            page: run.page_contents(),
        }
    }
}

impl Extend<(TargetOutcome, Option<PageContents>)> for Outcomes {
    fn extend<I: IntoIterator<Item = (TargetOutcome, Option<PageContents>)>>(
        &mut self,
        outcomes: I,
    ) {
        for (outcome, page) in outcomes {
            self.tally.add(outcome);
            if let Some(page) = page {
                self.page += page;
            }
        }
    }
}

/// A run that is archived.
pub(super) struct Archived {
    published: PublishedSnapshot,
    /// What its page is made of; `None` if another attempt has archived the run.
    page: Option<RunPage>,
    /// Whether `latest.json` is its copy.
    is_latest: bool,
}

/// Writes the snapshot of a run, unless another attempt at it has, and prints the run's metrics. Returns also what the
/// page is made of, unless another attempt has archived the run.
///
/// # Errors
/// Fails if nothing was read and archived, with `archive_error` if that is the reason, and as S3 does.
pub(super) async fn snapshot(
    context: &Context,
    run: &Run,
    outcomes: Outcomes,
    archive_error: Option<ArchiveError>,
) -> Result<(PublishedSnapshot, Option<RunPage>), RunError> {
    let Outcomes {
        tally,
        page: contents,
    } = outcomes;
    let has_archived = tally.has_archived();
    let baseline = run.previous().await.filter(|_| run.facts.scope.full);
    let baseline = baseline.map(|previous| previous.baseline.clone());
    let snapshot = Snapshot::new(run.facts.clone(), run.now(), tally, baseline);
    let published = match archive_error {
        _ if has_archived => commit(context, run, &snapshot).await,
        Some(error) => Err(RunError::ArchiveFailed(error)),
        None => Err(RunError::no_target_audited(&snapshot.targets)),
    };
    print_metrics(context, run, &snapshot, &published);
    let published = published?;
    // The page of a run that another attempt has archived would show other lines.
    let is_own = !published.already_archived;
    let page = is_own.then_some(RunPage { snapshot, contents });
    Ok((published, page))
}

/// Makes a snapshot the latest one, if it is of a full run and the newest one; `found` is what the run has found.
///
/// # Errors
/// Fails as S3 does.
pub(super) async fn advance_latest(
    context: &Context,
    run: &Run,
    found: FoundSnapshot,
    published: PublishedSnapshot,
    page: Option<RunPage>,
) -> Result<Archived, RunError> {
    let mut is_latest = false;
    if published.head.scope.full {
        let (key, unreadable) = (
            context.settings.archive_prefix.latest(),
            &run.unreadable_objects,
        );
        let advanced = latest::advance(&context.bucket, &key, found, &published, unreadable).await;
        is_latest = advanced.map_err(RunError::ArchiveFailed)?;
    }
    Ok(Archived {
        published,
        page,
        is_latest,
    })
}

/// Writes the page of a run that is archived, if there is time, and answers.
pub(super) async fn answer(run: &Run, archived: Archived) -> Answer {
    let Archived {
        published,
        page,
        is_latest,
    } = archived;
    if let Some(page) = page {
        page.write(run, &published.object, is_latest).await;
    }
    Answer::archived(run, published)
}

async fn commit(
    context: &Context,
    run: &Run,
    snapshot: &Snapshot,
) -> Result<PublishedSnapshot, RunError> {
    let layout = &context.settings.archive_prefix;
    let key = layout.snapshot(&run.facts.run_id, run.facts.scheduled_at);
    let bytes = snapshot.to_bytes().map_err(RunError::DocumentNotWritten)?;
    let committed = snapshots::commit(&context.bucket, &key, bytes, snapshot).await;
    committed.map_err(RunError::ArchiveFailed)
}

/// Prints the metrics of a run, unless another attempt at it was faster and has printed them.
fn print_metrics(
    context: &Context,
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
        &context.function_name,
        snapshot,
        &metrics::OfRun {
            duration_ms: u64::try_from(duration_ms).unwrap_or(0),
            snapshots_written,
            unreadable_objects: run.unreadable_objects.load(Ordering::Relaxed),
        },
    );
    println!("{line}");
}
