//! The passes over the targets of a run: each is attempted once, and once more if it failed with something
//! transient.

use std::collections::VecDeque;
use std::sync::Arc;

use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::PageContents;
use image_usage_archive::documents::TargetOutcome;
use image_usage_archive::documents::{ArchivedObject, LedgerLine, TargetError, TargetStatus};
use image_usage_archive::domain::run_id::Attempt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::deadline::deadline_exceeded;
use super::one_target::{ArchivedTarget, Audit, history, images};
use super::plan::{AccessTo, PlannedTarget};
use super::renewal::{TargetRenewal, TargetRenewals};
use super::run::{Run, new_attempt};
use crate::archive::lines_writer::ArchiveError;

/// Which pass over the targets an attempt belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    First,
    /// With new credentials, and with what came archived even if the listing breaks off again.
    Second,
}

/// What follows an attempt that did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NextStep {
    /// Attempt the target again in the second pass.
    Retry,
    /// Archive the pages that were read: the target is incomplete.
    ArchivePart,
    /// Find out whether the Region is enabled: the target is skipped or failed.
    CheckRegion,
    /// The target is failed.
    Fail,
}

/// Decides what follows a failed attempt.
///
/// `pages` are the pages that the attempt has read and that are not archived yet; `has_time` says whether
/// there is time for another attempt.
fn next_step(kind: FailureKind, pass: Pass, pages: u64, has_time: bool) -> NextStep {
    match (kind, pass, pages) {
        (kind, Pass::First, _) if kind.is_transient() && has_time => NextStep::Retry,
        (_, _, 1..) => NextStep::ArchivePart,
        (FailureKind::RegionRefused, _, 0) => NextStep::CheckRegion,
        (_, _, 0) => NextStep::Fail,
    }
}

/// A target's outcome, the archive error if archiving it failed, the reports to ask for, and what a page shows of it.
struct Audited {
    outcome: TargetOutcome,
    archive_error: Option<ArchiveError>,
    renewal: Option<TargetRenewal>,
    page: Option<PageContents>,
}

impl From<TargetOutcome> for Audited {
    fn from(outcome: TargetOutcome) -> Self {
        Self {
            outcome,
            archive_error: None,
            renewal: None,
            page: None,
        }
    }
}

/// What the passes over the targets have produced.
pub(super) struct AuditedTargets<O> {
    /// The outcomes, and what a page shows of each target that was read: merged, or one by one.
    pub(super) outcomes: O,
    /// The first error of the archive.
    pub(super) archive_error: Option<ArchiveError>,
    /// The reports to ask for.
    pub(super) renewals: TargetRenewals,
}

/// The result of one attempt at a target.
enum Attempted {
    Done(Box<Audited>),
    /// Attempt it again in the second pass.
    Retry(PlannedTarget),
    /// Its share of the time was up with entries left to fetch.
    Paused(Box<Paused>),
}

/// A target whose entries wait for the time that others leave.
struct Paused {
    audit: Audit,
    planned: PlannedTarget,
}

/// How many targets may wait with entries left to fetch while others are listed. With one more, the one that
/// has waited longest takes its turn before the next listing.
///
/// With those under way, this bounds how many targets hold what they have read: a few megabytes each.
const MAX_PAUSED: usize = 8;

/// Audits every target, and attempts those once more that failed with something transient. In the time that
/// is left, fetches the entries for which a target's share of the time was not enough.
///
/// `outcomes` receives each outcome, and what a page shows of the target if it was read.
pub(super) async fn audit_all<O: Extend<(TargetOutcome, Option<PageContents>)>>(
    run: &Arc<Run>,
    planned: Vec<PlannedTarget>,
    outcomes: O,
) -> AuditedTargets<O> {
    let mut outcomes = AuditedTargets {
        outcomes,
        archive_error: None,
        renewals: TargetRenewals::default(),
    };
    let mut paused = VecDeque::new();
    let attempts = |pass, planned: Vec<PlannedTarget>| {
        // One for all targets of a pass, whose keys differ. The second pass has its own, because a write of
        // the first one may still be under way.
        let attempt = new_attempt();
        let run = Arc::clone(run);
        planned.into_iter().map(move |planned| {
            let run = Arc::clone(&run);
            async move {
                let started = Instant::now();
                let attempted = audit_target(&run, pass, attempt, planned).await;
                run.deadline.record_attempt(started.elapsed());
                attempted
            }
        })
    };
    let first = attempts(Pass::First, planned);
    let retries = run_all(run, first, &mut paused, MAX_PAUSED, &mut outcomes).await;
    let second = attempts(Pass::Second, retries);
    run_all(run, second, &mut paused, MAX_PAUSED, &mut outcomes).await;
    let none = attempts(Pass::Second, Vec::new());
    run_all(run, none, &mut paused, 0, &mut outcomes).await;
    outcomes
}

/// Runs up to `max_concurrent_targets` attempts at a time, each in its own task, so that they use every core.
/// Paused targets go on in turns if there are more than `max_paused`. Returns the targets that need a second
/// attempt.
async fn run_all<O: Extend<(TargetOutcome, Option<PageContents>)>>(
    run: &Arc<Run>,
    mut attempts: impl ExactSizeIterator<Item = impl Future<Output = Attempted> + Send + 'static>,
    paused: &mut VecDeque<Box<Paused>>,
    max_paused: usize,
    outcomes: &mut AuditedTargets<O>,
) -> Vec<PlannedTarget> {
    let mut retries = Vec::new();
    // Dropping this future ends the tasks.
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < run.settings.max_concurrent_targets {
            if paused.len() > max_paused
                && let Some(target) = paused.pop_front()
            {
                tasks.spawn(resume(Arc::clone(run), target));
            } else if let Some(attempt) = attempts.next() {
                tasks.spawn(attempt);
            } else {
                break;
            }
        }
        run.deadline
            .set_waiting_targets(attempts.len() + retries.len());
        match tasks.join_next().await {
            None => return retries,
            Some(Ok(Attempted::Done(audited))) => outcomes.add(run, *audited).await,
            Some(Ok(Attempted::Retry(planned))) => retries.push(planned),
            Some(Ok(Attempted::Paused(target))) => paused.push_back(target),
            Some(Err(failed)) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(cancelled) => unreachable!("no task is cancelled: {cancelled}"),
            },
        }
    }
}

/// Attempts one target.
async fn audit_target(
    run: &Arc<Run>,
    pass: Pass,
    attempt: Attempt,
    planned: PlannedTarget,
) -> Attempted {
    if let Some(failure) = &planned.refused {
        let error = failure.clone().into();
        return done(not_audited(run, attempt, &planned, TargetStatus::Failed, error).await);
    }
    if !run.deadline.has_time() {
        return done(too_late(&planned));
    }
    let access = planned.account.access(pass.access()).await;
    let mut audit = Audit::new(Arc::clone(run), attempt, access, planned.target.clone());
    match audit.read().await {
        Ok(()) => fetch_and_archive(run, pass, audit, planned).await,
        Err(failure) => {
            let (pages, has_time) = (audit.pages(), run.deadline.has_time());
            match next_step(failure.kind, pass, pages, has_time) {
                NextStep::Retry => Attempted::Retry(planned),
                NextStep::ArchivePart => {
                    audit.interrupt(failure);
                    fetch_and_archive(run, Pass::Second, audit, planned).await
                }
                NextStep::CheckRegion if is_disabled(run, &planned, pass).await => {
                    let status = TargetStatus::Skipped;
                    done(not_audited(run, attempt, &planned, status, failure.into()).await)
                }
                NextStep::CheckRegion | NextStep::Fail => {
                    let status = TargetStatus::Failed;
                    done(not_audited(run, attempt, &planned, status, failure.into()).await)
                }
            }
        }
    }
}

/// Fetches a target's entries and archives what was read of it. It pauses if its share of the time is up with
/// entries left to fetch.
async fn fetch_and_archive(
    run: &Run,
    pass: Pass,
    mut audit: Audit,
    planned: PlannedTarget,
) -> Attempted {
    match audit.fetch_entries().await {
        Ok(true) if run.deadline.has_time() => {
            Attempted::Paused(Box::new(Paused { audit, planned }))
        }
        Ok(_) => archive(run, pass, audit, planned).await,
        Err(error) => not_written(run, pass, audit.attempt(), planned, error).await,
    }
}

/// Goes on with a paused target, or archives it as it is if the targets that wait need the time.
async fn resume(run: Arc<Run>, paused: Box<Paused>) -> Attempted {
    let Paused { audit, planned } = *paused;
    let started = Instant::now();
    let attempted = match run.deadline.has_time_for_another_share() {
        true => fetch_and_archive(&run, Pass::Second, audit, planned).await,
        false => archive(&run, Pass::Second, audit, planned).await,
    };
    run.deadline.record_work(started.elapsed());
    attempted
}

/// Archives what was read of a target.
async fn archive(run: &Run, pass: Pass, audit: Audit, planned: PlannedTarget) -> Attempted {
    let attempt = audit.attempt();
    match audit.archive().await {
        Ok(ArchivedTarget {
            outcome,
            plan,
            page,
        }) => Attempted::Done(Box::new(Audited {
            page: Some(page),
            renewal: plan.map(|plan| TargetRenewal {
                account: planned.account,
                target: planned.target,
                plan,
            }),
            ..outcome.into()
        })),
        Err(error) => not_written(run, pass, attempt, planned, error).await,
    }
}

/// Decides what follows once an object of a target could not be written: what was read is lost with it.
async fn not_written(
    run: &Run,
    pass: Pass,
    attempt: Attempt,
    planned: PlannedTarget,
    error: ArchiveError,
) -> Attempted {
    let (kind, pages) = (error.failure.kind, 0);
    match next_step(kind, pass, pages, run.deadline.has_time()) {
        NextStep::Retry => Attempted::Retry(planned),
        _ => not_archived(run, attempt, &planned, error).await,
    }
}

/// A target for which no time was left. Nothing is read or compared: thousands of such targets must not keep
/// the snapshot from being written.
fn too_late(planned: &PlannedTarget) -> TargetOutcome {
    let error = deadline_exceeded().into();
    TargetOutcome::unread(planned.target.clone(), TargetStatus::Failed, error)
}

impl Pass {
    fn access(self) -> AccessTo {
        match self {
            Self::First => AccessTo::First,
            Self::Second => AccessTo::Renewed,
        }
    }
}

fn done(audited: impl Into<Audited>) -> Attempted {
    Attempted::Done(Box::new(audited.into()))
}

/// Records a target that was not read; its known reports count as unseen.
async fn not_audited(
    run: &Run,
    attempt: Attempt,
    planned: &PlannedTarget,
    status: TargetStatus,
    error: TargetError,
) -> Audited {
    let target = &planned.target;
    let mut changes = history::of_unread(run, target).await;
    let images = images::carry_unread(run, attempt, target, changes.as_mut()).await;
    let mut outcome = TargetOutcome::unread(target.clone(), status, error);
    outcome.ledger.images = Some(images.ledger);
    outcome.counts.images = Some(images.counts);
    let outcome = TargetOutcome { changes, ..outcome };
    Audited {
        page: images.page,
        ..outcome.into()
    }
}

/// Records a target whose object could not be written. To a reader of the archive that is the same as a
/// target that was never read.
async fn not_archived(
    run: &Run,
    attempt: Attempt,
    planned: &PlannedTarget,
    error: ArchiveError,
) -> Attempted {
    let mut reason = TargetError::from(CallFailure::clone(&error.failure));
    reason.message = format!("{error}: {}", reason.message);
    let audited = not_audited(run, attempt, planned, TargetStatus::Failed, reason).await;
    done(Audited {
        archive_error: Some(error),
        ..audited
    })
}

/// Distinguishes a Region that the account has not enabled from one where access is denied: EC2 returns
/// `AuthFailure` for both. If in doubt, access counts as denied.
async fn is_disabled(run: &Run, planned: &PlannedTarget, pass: Pass) -> bool {
    let regions = planned.account.enabled_regions(&run.home, pass.access());
    let regions = run.deadline.limit_read(regions).await;
    regions.is_ok_and(|regions| regions.is_not_enabled(&planned.target.region))
}

impl<O: Extend<(TargetOutcome, Option<PageContents>)>> AuditedTargets<O> {
    async fn add(&mut self, run: &Run, audited: Audited) {
        let Audited {
            outcome,
            archive_error,
            renewal,
            page,
        } = audited;
        if let Some(renewal) = renewal {
            let concurrent = run.settings.max_concurrent_targets;
            self.renewals.add(renewal, concurrent);
        }
        run.deadline.close_target();
        self.outcomes.extend([(settled(run, outcome).await, page)]);
        self.archive_error = self.archive_error.take().or(archive_error);
    }
}

/// Adds the objects of earlier runs that contain what is known of a target to its outcome, and logs it.
pub(super) async fn settled(run: &Run, mut outcome: TargetOutcome) -> TargetOutcome {
    let previous = run.previous().await.filter(|_| run.facts.scope.full);
    if let Some(previous) = previous {
        let (target, ledger) = (outcome.ledger.target(), &mut outcome.ledger);
        if ledger.status != TargetStatus::Complete {
            ledger.earlier_objects = previous.earlier_objects(&target);
        }
        let images = ledger.images.as_ref();
        if images.is_none_or(|images| images.images_object.is_none()) {
            ledger
                .earlier_objects
                .extend(previous.images(&target).cloned());
        }
    }
    log(run, &outcome.ledger);
    outcome
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
        images,
        earlier_objects: _,
    } = line;
    let lines = |object: Option<&ArchivedObject>| object.map_or(0, |object| object.lines);
    let entries = lines(entries_object.as_ref());
    let images = images
        .as_ref()
        .and_then(|images| images.images_object.as_ref());
    let images = lines(images);
    let (run_id, status) = (&run.facts.run_id, status.as_str());
    match error {
        None => {
            tracing::info!(%run_id, %account_id, %region, status, pages, reports, entries, images, "target audited")
        }
        Some(error) => tracing::warn!(
            %run_id, %account_id, %region, status, pages, reports, entries, images,
            error_code = error.code, error_message = error.message, request_id = error.request_id,
            "target not audited completely"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureKind::{Denied, RegionRefused, Transient};
    use NextStep::{ArchivePart, CheckRegion, Fail, Retry};
    use Pass::{First, Second};

    #[test]
    fn what_follows_a_failed_attempt_depends_on_the_failure_the_pass_the_pages_and_the_time() {
        #[rustfmt::skip]
        let table = [
            // failure,      pass,   pages, has_time, next
            (Transient,      First,  0,     true,     Retry),
            (Transient,      First,  7,     true,     Retry),
            (Transient,      First,  0,     false,    Fail),
            (Transient,      First,  7,     false,    ArchivePart),
            (Transient,      Second, 0,     true,     Fail),
            (Transient,      Second, 7,     true,     ArchivePart),
            (Denied,         First,  0,     true,     Fail),
            (Denied,         First,  7,     true,     ArchivePart),
            (RegionRefused,  First,  0,     true,     CheckRegion),
            (RegionRefused,  First,  7,     true,     ArchivePart),
            (RegionRefused,  Second, 0,     false,    CheckRegion),
        ];
        for (kind, pass, pages, has_time, expected) in table {
            let next = next_step(kind, pass, pages, has_time);
            assert_eq!(next, expected, "{kind:?} {pass:?} {pages} {has_time}");
        }
    }
}
