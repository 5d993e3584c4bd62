//! One run: plan the targets → collect and audit each → archive → publish the snapshot → answer.

pub mod metrics;
mod plan;
pub mod preflight;
pub(crate) mod target;

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::TryFutureExt;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SetOnce};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::archive::lines_writer::{ArchiveError, LinesWriter};
use crate::archive::previous::Previous;
use crate::archive::snapshots::{
    self, LatestSnapshot, PublishedSnapshot, SnapshotHead, SnapshotObject,
};
use crate::audit::plan::{Account, Planned};
use crate::audit::preflight::Preflight;
use crate::audit::target::DEADLINE_EXCEEDED;
use crate::audit::target::TargetAudit;
use crate::audit::target::history;
use crate::aws::Accounts;
use crate::aws::ec2::{MAX_IDS_PER_CALL, ReportQuery, UsageReports};
use crate::request::{InvalidRequest, Request};
use crate::settings::Settings;
use crate::staging::Listing;
use image_usage_archive::aws::{Aws, Bucket, CallFailure, FailureKind};
use image_usage_archive::documents::snapshot::{
    Counts, LedgerLine, RunFacts, RunStatus, Scope, Snapshot, Tally, TargetError, TargetOutcome,
    TargetStatus,
};
use image_usage_archive::domain::target::{AccountId, Region, Target};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::layout::{Prefix, RunId};

/// The time that a run has where nothing tells its deadline: the longest that Lambda gives.
const LONGEST_RUN: Duration = Duration::from_secs(900);

/// The time set aside for the answer to one call to S3.
const ARCHIVE_CALL: Duration = Duration::from_secs(1);

/// The calls that end a target once reading has stopped: what is known of it, the end of its entries, the
/// last part of its reports, and their completion.
const CALLS_TO_FINISH: u32 = 4;

/// The calls that follow the last target: the snapshot, and reading and writing `latest.json`.
const CALLS_TO_PUBLISH: u32 = 3;

/// The time that an error needs to get out.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What S3 is sure to take from a function of the smallest size.
const ARCHIVE_BYTES_PER_SECOND: u32 = 2 * 1024 * 1024;

/// What one target adds to a snapshot: its line of the ledger with an error.
const LEDGER_LINE_BYTES: usize = 700;

/// What the listed findings add to a snapshot, with a few tags each.
const LISTED_FINDINGS_BYTES: usize = 1024 * 1024;

/// The part of a run's time that is set aside for archiving at most: one in so many.
///
/// A function that is given a few seconds shall still read for most of them.
const LARGEST_MARGIN_SHARE: u32 = 4;

/// How many broken-off targets may wait for their second look with what they have read, which is little
/// for each: see [`TargetAudit::is_small`].
const MAX_WAITING: usize = 8;

/// How many failed targets an error names; the log has a line for each.
const MAX_NAMED_FAILURES: usize = 5;

/// The function behind the Lambda handler; clones share what they hold.
#[derive(Clone)]
pub struct Auditor {
    settings: Arc<Settings>,
    accounts: Accounts,
    home: Region,
    bucket: Bucket,
    function_name: String,
}

/// What Lambda tells of an invocation.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The request's ID, the same for each retry of an asynchronous invocation.
    pub request_id: String,
    /// The function's ARN; in local emulators, any text.
    pub function_arn: String,
    /// The wall clock at the start.
    pub started_at: Timestamp,
    /// The time from the start to the function's deadline; `None` where it isn't known.
    pub time_left: Option<Duration>,
}

/// What the function answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// The run is archived.
    Summary(Box<Summary>),
    /// A dry run's result.
    Preflight(Preflight),
}

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Summary {
    /// The run.
    pub run_id: RunId,
    /// Whether it saw everything.
    pub status: RunStatus,
    /// Where its snapshot lies.
    pub snapshot: SnapshotObject,
    /// What it counted.
    pub counts: Counts,
    /// How long this invocation took.
    pub duration_ms: u64,
    /// Whether an earlier invocation had done the run already.
    pub already_archived: bool,
}

/// Why an invocation has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The payload is not a valid event or request.
    #[error(transparent)]
    InvalidRequest(#[from] InvalidRequest),
    /// The accounts to audit need a role that the settings don't name.
    #[error(
        "AUDITOR_ROLE_NAME is not set, but {account_id} is another account: name the role to assume in it"
    )]
    RoleNotSet {
        /// The other account.
        account_id: AccountId,
    },
    /// No target could be read at all, so that there is nothing to archive.
    #[error("no target could be audited: {reasons}")]
    NoTargetAudited {
        /// The first reasons.
        reasons: String,
    },
    /// The snapshot could not be put into words.
    #[error("the snapshot could not be written as JSON")]
    SnapshotNotWritten(#[source] serde_json::Error),
    /// The archive did not take what was read before the time was up.
    #[error(
        "the archive could not be written before the function's time was up: is S3 slow, or refusing?"
    )]
    OutOfTime,
    /// The archive could not be read or written.
    #[error("the archive could not be written")]
    ArchiveFailed(#[source] ArchiveError),
}

impl RunError {
    /// The name under which Lambda reports the error.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "InvalidRequest",
            Self::RoleNotSet { .. } => "InvalidSettings",
            Self::NoTargetAudited { .. } => "NoTargetAudited",
            Self::SnapshotNotWritten(_) | Self::OutOfTime | Self::ArchiveFailed(_) => {
                "ArchiveFailed"
            }
        }
    }
}

/// What all targets of a run share.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) facts: RunFacts,
    pub(crate) queries: Vec<ReportQuery>,
    clock: Instant,
    time_left: Duration,
    /// What all targets at work hold and have yet to send.
    unsent_bytes: AtomicUsize,
    /// The targets of the run, once planned.
    targets: AtomicUsize,
    /// Those of them that are not done.
    open_targets: AtomicUsize,
    max_concurrent_targets: usize,
    pub(crate) page_size: u32,
    pub(crate) archive_entries: bool,
    prefix: Prefix,
    previous: SetOnce<Option<Previous>>,
}

impl Run {
    /// The moment at which reading has to stop, so that what has been read can be archived.
    fn stop_reading_at(&self) -> Instant {
        let unsent = sending_time(self.unsent_bytes.load(Ordering::Relaxed));
        let margin = ARCHIVE_CALL * CALLS_TO_FINISH + unsent + self.publishing_time();
        self.clock + self.time_left - margin.min(self.time_left / LARGEST_MARGIN_SHARE)
    }

    /// The moment at which the targets' objects have to be written, so that the snapshot can be.
    fn stop_writing_at(&self) -> Instant {
        let share = self.time_left / LARGEST_MARGIN_SHARE / 2;
        self.clock + self.time_left - self.publishing_time().min(share)
    }

    /// The moment after which the function may be gone before it has answered.
    fn ends_at(&self) -> Instant {
        let share = self.time_left / LARGEST_MARGIN_SHARE / 4;
        self.clock + self.time_left - LAST_WORDS.min(share)
    }

    /// The moment at which a target that has been listed just now has to leave the rest of its entries to
    /// the next run: each target that is to come has the same share of the time that is left.
    pub(crate) fn stop_entries_at(&self) -> Instant {
        let now = Instant::now();
        let open = self.open_targets.load(Ordering::Relaxed);
        let rounds = open.div_ceil(self.max_concurrent_targets).max(1);
        let left = self.stop_reading_at().saturating_duration_since(now);
        now + left / u32::try_from(rounds).unwrap_or(u32::MAX)
    }

    /// The last unscoped snapshot, once it is read; `None` where there is none that can be read.
    pub(crate) async fn previous(&self) -> Option<&Previous> {
        self.previous.wait().await.as_ref()
    }

    /// Where the entries of a target lie.
    pub(crate) fn entries_key(&self, target: &Target) -> String {
        self.prefix
            .entries(&self.facts.run_id, self.facts.scheduled_at, target)
    }

    fn publishing_time(&self) -> Duration {
        let targets = self.targets.load(Ordering::Relaxed);
        let snapshot = targets * LEDGER_LINE_BYTES + LISTED_FINDINGS_BYTES;
        ARCHIVE_CALL * CALLS_TO_PUBLISH + sending_time(snapshot)
    }

    /// Waits for a write, but not beyond the moment at which the snapshot has to be written.
    pub(crate) async fn before_publishing<T>(
        &self,
        write: impl Future<Output = T>,
    ) -> Result<T, CallFailure> {
        let written = tokio::time::timeout_at(self.stop_writing_at(), write).await;
        written.map_err(|_| deadline_exceeded())
    }

    /// Waits for a call, but not beyond the moment at which reading has to stop.
    pub(crate) async fn before_stop<T>(
        &self,
        call: impl Future<Output = Result<T, CallFailure>>,
    ) -> Result<T, CallFailure> {
        match tokio::time::timeout_at(self.stop_reading_at(), call).await {
            Ok(answer) => answer,
            Err(_) => Err(deadline_exceeded()),
        }
    }

    /// Puts the bytes that wait to be archived now in the place of those that did before.
    pub(crate) fn note_unsent(&self, noted: &mut usize, unsent: usize) {
        self.unsent_bytes.fetch_add(unsent, Ordering::Relaxed);
        self.unsent_bytes.fetch_sub(*noted, Ordering::Relaxed);
        *noted = unsent;
    }

    /// Sends what has grown to a part's size, but not beyond the moment at which the snapshot has to be
    /// written. It is asked for each line, and looks at the clock only for a full part.
    pub(crate) async fn send_full_part(
        &self,
        writer: &mut LinesWriter,
    ) -> Result<(), ArchiveError> {
        if !writer.has_full_part() {
            return Ok(());
        }
        match self.before_publishing(writer.send_full_part()).await {
            Ok(sent) => sent,
            Err(late) => Err(writer.failed(late)),
        }
    }

    /// Tells of bytes that wait to be archived, as long as they do.
    pub(crate) fn unsent(&self) -> Unsent<'_> {
        Unsent {
            run: self,
            bytes: 0,
        }
    }

    fn has_time(&self) -> bool {
        Instant::now() < self.stop_reading_at()
    }

    pub(crate) fn duration_ms(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Bytes that wait to be archived, as the run knows them.
pub(crate) struct Unsent<'a> {
    run: &'a Run,
    bytes: usize,
}

impl Unsent<'_> {
    /// Tells how many there are now.
    pub(crate) fn set(&mut self, bytes: usize) {
        self.run.note_unsent(&mut self.bytes, bytes);
    }
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

fn sending_time(bytes: usize) -> Duration {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Duration::from_secs(1) * bytes / ARCHIVE_BYTES_PER_SECOND
}

fn deadline_exceeded() -> CallFailure {
    CallFailure {
        code: DEADLINE_EXCEEDED.to_owned(),
        message: "the function's time was up: give it more, or fewer targets".to_owned(),
        request_id: None,
        kind: FailureKind::Lasting,
    }
}

/// What stopped the audit of a target.
#[derive(Debug)]
enum Stop {
    /// EC2 could not be read on.
    Reading(CallFailure),
    /// The archive did not take what was read.
    Archiving(ArchiveError),
}

impl Stop {
    fn failure(&self) -> &CallFailure {
        match self {
            Self::Reading(failure) => failure,
            Self::Archiving(error) => &error.failure,
        }
    }
}

/// What came of one look at a target.
enum Look {
    /// The target is done.
    Done(Box<Audited>),
    /// It failed with something that may pass, and is to be looked at again.
    Again {
        planned: Planned,
        begun: Option<Begun>,
    },
}

/// What a look has read, and its place among those that wait.
type Begun = (Box<TargetAudit>, OwnedSemaphorePermit);

/// A target's outcome, and what the archive said where that failed it.
struct Audited {
    outcome: TargetOutcome,
    archive_error: Option<ArchiveError>,
}

impl Auditor {
    /// Puts the function together.
    pub fn new(settings: Settings, aws: Aws, home: Region, function_name: String) -> Self {
        let bucket = aws.bucket(&settings.archive_bucket);
        Self {
            settings: Arc::new(settings),
            accounts: Accounts::new(&aws),
            home,
            bucket,
            function_name,
        }
    }

    /// Carries out one invocation.
    ///
    /// # Errors
    /// Fails when the payload is invalid, when no target could be read, and when the archive could not
    /// be written; findings and failed targets are no errors.
    pub async fn handle(&self, payload: Value, invocation: Invocation) -> Result<Answer, RunError> {
        let clock = Instant::now();
        let request = Request::from_payload(payload)?;
        let scheduled_at = request.scheduled_at.unwrap_or(invocation.started_at);
        let run_id = match &request.event_id {
            Some(event_id) => RunId::of_event(scheduled_at, event_id),
            None => RunId::of_request(scheduled_at, &invocation.request_id),
        };
        let run = Arc::new(Run {
            queries: queries(&request, self.settings.page_size),
            facts: RunFacts {
                run_id,
                scope: request.scope,
                scheduled_at,
                started_at: invocation.started_at,
                policy: self.settings.policy,
            },
            clock,
            time_left: invocation.time_left.unwrap_or(LONGEST_RUN),
            unsent_bytes: AtomicUsize::new(0),
            targets: AtomicUsize::new(0),
            open_targets: AtomicUsize::new(0),
            max_concurrent_targets: self.settings.max_concurrent_targets,
            page_size: self.settings.page_size,
            archive_entries: self.settings.archive_entries,
            prefix: self.settings.archive_prefix.clone(),
            previous: SetOnce::new(),
        });
        if request.dry_run {
            let planned = self.plan(&run, &invocation).await?;
            let preflight =
                Preflight::new(&run, planned, self.settings.max_concurrent_targets).await;
            return Ok(Answer::Preflight(preflight));
        }
        let archived =
            tokio::time::timeout_at(run.ends_at(), self.archive(&run, &invocation)).await;
        let published = archived.unwrap_or(Err(RunError::OutOfTime))?;
        let PublishedSnapshot {
            object,
            head,
            bytes: _,
            already_archived,
        } = published;
        let duration_ms = run.duration_ms();
        tracing::info!(
            run_id = %head.run_id,
            status = head.status.as_str(),
            targets_complete = head.counts.targets.complete,
            targets_incomplete = head.counts.targets.incomplete,
            targets_failed = head.counts.targets.failed,
            targets_skipped = head.counts.targets.skipped,
            reports = head.counts.reports.total,
            findings = head.counts.findings.total,
            unarchived = head.counts.findings.unarchived,
            entries_fetched = head.counts.entries.fetched,
            snapshot = object.key,
            already_archived,
            duration_ms,
            "run archived"
        );
        let SnapshotHead {
            run_id,
            status,
            counts,
            scheduled_at: _,
        } = head;
        let snapshot = object;
        Ok(Answer::Summary(Box::new(Summary {
            run_id,
            status,
            snapshot,
            counts,
            duration_ms,
            already_archived,
        })))
    }

    /// Sees to it that the run is in the archive, and is the latest where it should be.
    async fn archive(
        &self,
        run: &Arc<Run>,
        invocation: &Invocation,
    ) -> Result<PublishedSnapshot, RunError> {
        let snapshot_key = self
            .settings
            .archive_prefix
            .snapshot(&run.facts.run_id, run.facts.scheduled_at);
        let found = snapshots::find_snapshot(&self.bucket, &snapshot_key).await;
        let found = found.map_err(RunError::ArchiveFailed)?;
        let latest_key = self.settings.archive_prefix.latest();
        let is_new = found.is_none();
        // What is known is read while EC2 lists what is there.
        let known = async {
            let latest = LatestSnapshot::read(&self.bucket, &latest_key).await?;
            if is_new {
                // Nobody else sets it.
                let _ = run.previous.set(self.previous(&latest).await?);
            }
            Ok(latest)
        };
        let (latest, published) =
            tokio::try_join!(known.map_err(RunError::ArchiveFailed), async {
                match found {
                    Some(published) => Ok(published),
                    None => self.audit(run, invocation, &snapshot_key).await,
                }
            })?;
        if run.facts.scope.full {
            let advanced =
                snapshots::advance_latest(&self.bucket, &latest_key, latest, &published).await;
            advanced.map_err(RunError::ArchiveFailed)?;
        }
        Ok(published)
    }

    async fn previous(&self, latest: &LatestSnapshot) -> Result<Option<Previous>, ArchiveError> {
        let previous = Previous::read(&self.bucket, &self.settings.archive_prefix, latest).await?;
        if previous.is_none() && latest.bytes().is_some() {
            tracing::warn!(
                "latest.json can't be read: nothing is compared, and all entries are fetched again"
            );
        }
        Ok(previous)
    }

    async fn plan(&self, run: &Run, invocation: &Invocation) -> Result<Vec<Planned>, RunError> {
        let planned = plan::targets(
            &self.accounts,
            &self.settings,
            &self.home,
            &invocation.function_arn,
            run,
        )
        .await?;
        run.targets.store(planned.len(), Ordering::Relaxed);
        run.open_targets.store(planned.len(), Ordering::Relaxed);
        Ok(planned)
    }

    async fn audit(
        &self,
        run: &Arc<Run>,
        invocation: &Invocation,
        snapshot_key: &str,
    ) -> Result<PublishedSnapshot, RunError> {
        let planned = self.plan(run, invocation).await?;
        let (tally, archive_error) = self.look_at_targets(run, planned).await;
        let finished_at = invocation.started_at.plus(run.clock.elapsed());
        let has_archived = tally.has_archived();
        let baseline = run.previous().await.filter(|_| run.facts.scope.full);
        let baseline = baseline.map(|previous| previous.baseline.clone());
        let snapshot = Snapshot::new(run.facts.clone(), finished_at, tally, baseline);
        let published = match archive_error {
            _ if has_archived => self.commit(snapshot_key, &snapshot).await,
            Some(error) => Err(RunError::ArchiveFailed(error)),
            None => Err(RunError::NoTargetAudited {
                reasons: reasons(&snapshot.targets),
            }),
        };
        // Another try of the run may have been faster: it has written the metrics then.
        let written = published
            .as_ref()
            .is_ok_and(|published| !published.already_archived);
        if written || published.is_err() {
            let (name, full) = (&self.function_name, run.facts.scope.full);
            let counts = &snapshot.counts;
            println!(
                "{}",
                metrics::line(
                    name,
                    full,
                    finished_at,
                    counts,
                    run.duration_ms(),
                    u64::from(written)
                )
            );
        }
        published
    }

    async fn commit(&self, key: &str, snapshot: &Snapshot) -> Result<PublishedSnapshot, RunError> {
        let head = SnapshotHead {
            run_id: snapshot.run_id.clone(),
            scheduled_at: snapshot.scheduled_at,
            status: snapshot.status,
            counts: snapshot.counts,
        };
        let bytes = snapshot.to_bytes().map_err(RunError::SnapshotNotWritten)?;
        let committed = snapshots::commit_snapshot(&self.bucket, key, bytes, head).await;
        committed.map_err(RunError::ArchiveFailed)
    }

    /// Looks at every target, and once more at those that failed with something that may pass.
    async fn look_at_targets(
        &self,
        run: &Arc<Run>,
        planned: Vec<Planned>,
    ) -> (Tally, Option<ArchiveError>) {
        let (mut tally, mut archive_error) = (Tally::default(), None);
        let mut take_in = |audited: Audited, previous: Option<&Previous>| {
            let Audited {
                mut outcome,
                archive_error: error,
            } = audited;
            run.open_targets.fetch_sub(1, Ordering::Relaxed);
            if let Some(previous) = previous
                && run.facts.scope.full
                && outcome.ledger.status != TargetStatus::Complete
            {
                outcome.ledger.earlier_objects = previous.earlier_objects(&outcome.ledger.target());
            }
            log(run, &outcome.ledger);
            tally.add(outcome);
            archive_error = archive_error.take().or(error);
        };
        let waiting = Arc::new(Semaphore::new(MAX_WAITING));
        let first = planned.into_iter().map(|planned| (planned, None));
        let again = self
            .look_at_each(run, first, Some(&waiting), &mut take_in)
            .await;
        let again = again
            .into_iter()
            .map(|(planned, begun)| (planned, begun.map(|(audit, _)| *audit)));
        self.look_at_each(run, again, None, &mut take_in).await;
        (tally, archive_error)
    }

    /// Looks at targets, so many at a time, each in a task of its own: on as many cores as there are. Gives
    /// those that are to be looked at again.
    async fn look_at_each(
        &self,
        run: &Arc<Run>,
        mut targets: impl Iterator<Item = (Planned, Option<TargetAudit>)>,
        waiting: Option<&Arc<Semaphore>>,
        take_in: &mut impl FnMut(Audited, Option<&Previous>),
    ) -> Vec<(Planned, Option<Begun>)> {
        let mut again = Vec::new();
        // What is under way ends with this future.
        let mut looks = JoinSet::new();
        loop {
            while looks.len() < self.settings.max_concurrent_targets
                && let Some((planned, begun)) = targets.next()
            {
                let (auditor, run, waiting) = (self.clone(), Arc::clone(run), waiting.cloned());
                looks.spawn(async move { auditor.look_at(&run, planned, begun, waiting).await });
            }
            match looks.join_next().await {
                None => return again,
                Some(Ok(Look::Done(audited))) => take_in(*audited, run.previous().await),
                Some(Ok(Look::Again { planned, begun })) => again.push((planned, begun)),
                Some(Err(failed)) => match failed.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(cancelled) => unreachable!("nobody cancels a look: {cancelled}"),
                },
            }
        }
    }

    /// Looks at a target; `waiting` has the places of those that wait for a second look, and is `None` at
    /// that second look.
    async fn look_at(
        &self,
        run: &Run,
        planned: Planned,
        begun: Option<TargetAudit>,
        mut waiting: Option<Arc<Semaphore>>,
    ) -> Look {
        let target = planned.target.clone();
        if let Some(failure) = &planned.refused {
            return self
                .unread(run, target, TargetStatus::Failed, failure.clone())
                .await;
        }
        let key = self.settings.archive_prefix.reports(
            &run.facts.run_id,
            run.facts.scheduled_at,
            &target,
        );
        let new = || TargetAudit::new(target.clone(), self.bucket.clone(), key.clone());
        let mut audit = begun.unwrap_or_else(new);
        loop {
            let second_look = waiting.is_none();
            let access = planned.account.access(second_look).await;
            let reports = UsageReports::new(access, &target.region);
            let stop = match audit.read(run, &reports).await {
                Ok(()) => match audit.archive(run, &reports, None).await {
                    Ok(outcome) => return done(outcome),
                    Err(error) => {
                        // What was read is gone with the object that could not be written.
                        audit = new();
                        Stop::Archiving(error)
                    }
                },
                Err(failure) => Stop::Reading(failure),
            };
            let worth_another_look = stop.failure().kind.may_pass() && run.has_time();
            match (stop, waiting.take().filter(|_| worth_another_look)) {
                (Stop::Reading(_), Some(waiting)) if audit.pages() > 0 => {
                    match waiting.try_acquire_owned() {
                        Ok(place) if audit.is_small() => {
                            return Look::Again {
                                planned,
                                begun: Some((Box::new(audit), place)),
                            };
                        }
                        // There is no room to wait with so much: at once, then.
                        _ => continue,
                    }
                }
                (_, Some(_)) => {
                    audit.abandon(run);
                    return Look::Again {
                        planned,
                        begun: None,
                    };
                }
                (Stop::Reading(failure), None) if audit.pages() > 0 => {
                    return match audit.archive(run, &reports, Some(&failure)).await {
                        Ok(outcome) => done(outcome),
                        Err(error) => self.unarchived(run, target, error).await,
                    };
                }
                (Stop::Reading(failure), None) => {
                    let status = match failure.kind {
                        FailureKind::RegionRefused
                            if self
                                .is_not_enabled(run, &planned.account, &target, second_look)
                                .await =>
                        {
                            TargetStatus::Skipped
                        }
                        _ => TargetStatus::Failed,
                    };
                    return self.unread(run, target, status, failure).await;
                }
                (Stop::Archiving(error), None) => {
                    audit.abandon(run);
                    return self.unarchived(run, target, error).await;
                }
            }
        }
    }

    async fn unread(
        &self,
        run: &Run,
        target: Target,
        status: TargetStatus,
        failure: CallFailure,
    ) -> Look {
        let outcome = self.not_audited(run, target, status, failure.into()).await;
        done(outcome)
    }

    /// Tells of a target that is not in the archive, whatever was read of it: for whoever relies on the
    /// archive, that is a target that was not read.
    async fn unarchived(&self, run: &Run, target: Target, error: ArchiveError) -> Look {
        let CallFailure {
            code,
            message,
            request_id,
            kind: _,
        } = &*error.failure;
        let reason = TargetError {
            code: code.clone(),
            message: format!("{error}: {message}"),
            request_id: request_id.clone(),
        };
        let outcome = self
            .not_audited(run, target, TargetStatus::Failed, reason)
            .await;
        Look::Done(Box::new(Audited {
            outcome,
            archive_error: Some(error),
        }))
    }

    /// Tells of a target that was not read; what is known of it counts as unseen.
    async fn not_audited(
        &self,
        run: &Run,
        target: Target,
        status: TargetStatus,
        error: TargetError,
    ) -> TargetOutcome {
        let mut nothing = Listing::new();
        let changes = history::with_known(run, &self.bucket, &target, &mut nothing, false).await;
        TargetOutcome {
            changes,
            ..TargetOutcome::unread(target, status, error)
        }
    }

    /// Tells a Region that the account has not enabled from one where it is denied: EC2 answers both
    /// with `AuthFailure`. What can't be told counts as denied.
    async fn is_not_enabled(
        &self,
        run: &Run,
        account: &Account,
        target: &Target,
        second_look: bool,
    ) -> bool {
        let enabled = run
            .before_stop(account.enabled_regions(&self.home, second_look))
            .await;
        enabled.is_ok_and(|enabled| enabled.is_not_enabled(&target.region))
    }
}

fn done(outcome: TargetOutcome) -> Look {
    Look::Done(Box::new(Audited {
        outcome,
        archive_error: None,
    }))
}

fn log(run: &Run, line: &LedgerLine) {
    let LedgerLine {
        account_id,
        region,
        status,
        pages,
        reports,
        error,
        object: _,
        entries_object,
        earlier_objects: _,
    } = line;
    let entries = entries_object.as_ref().map_or(0, |object| object.lines);
    let (run_id, status) = (&run.facts.run_id, status.as_str());
    match error {
        None => {
            tracing::info!(%run_id, %account_id, %region, status, pages, reports, entries, "target audited")
        }
        Some(error) => tracing::warn!(
            %run_id, %account_id, %region, status, pages, reports, entries,
            error_code = error.code, error_message = error.message, request_id = error.request_id,
            "target not audited to its end"
        ),
    }
}

/// The listings that a request comes to: one, or several where it names more IDs than EC2 takes.
fn queries(request: &Request, page_size: u32) -> Vec<ReportQuery> {
    let Scope {
        image_ids,
        report_ids,
        filters,
        ..
    } = &request.scope;
    let mut queries = Vec::new();
    for image_ids in chunks(image_ids) {
        for report_ids in chunks(report_ids) {
            queries.push(ReportQuery {
                image_ids: image_ids.clone(),
                report_ids,
                filters: filters.clone(),
                max_results: Some(request.max_results.unwrap_or(page_size)),
            });
        }
    }
    queries
}

/// The IDs, each once, in groups that EC2 takes; one empty group where there are none.
fn chunks(ids: &[String]) -> Vec<Vec<String>> {
    let mut named = HashSet::new();
    let once: Vec<String> = ids.iter().filter(|id| named.insert(*id)).cloned().collect();
    if once.is_empty() {
        return vec![Vec::new()];
    }
    once.chunks(MAX_IDS_PER_CALL)
        .map(<[String]>::to_vec)
        .collect()
}

/// The reasons why targets failed, each with the targets it holds for.
fn reasons(targets: &[LedgerLine]) -> String {
    if targets.is_empty() {
        return "there is none".to_owned();
    }
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for LedgerLine {
        account_id,
        region,
        error,
        ..
    } in targets
    {
        let reason = error
            .as_ref()
            .map_or_else(String::new, TargetError::to_string);
        by_reason
            .entry(reason)
            .or_default()
            .push(format!("{account_id}/{region}"));
    }
    let more = by_reason.len().saturating_sub(MAX_NAMED_FAILURES);
    let mut named: Vec<String> = by_reason
        .into_iter()
        .take(MAX_NAMED_FAILURES)
        .map(|(reason, targets)| match targets.as_slice() {
            [target] => format!("{target}: {reason}"),
            [first, rest @ ..] => format!("{first} and {} more: {reason}", rest.len()),
            [] => reason,
        })
        .collect();
    if more > 0 {
        named.push(format!("and {more} more reasons"));
    }
    named.join("; ")
}
