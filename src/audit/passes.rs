//! The passes over the targets of a run: each is attempted once, and once more if it failed with something
//! transient.

use std::sync::Arc;

use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::{LedgerLine, TargetError, TargetStatus};
use image_usage_archive::documents::{Tally, TargetOutcome};
use image_usage_archive::domain::run_id::Attempt;
use tokio::task::JoinSet;

use super::plan::{AccessTo, PlannedTarget};
use super::run::{Run, new_attempt};
use super::target::{self, Stop, history};
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

/// A target's outcome, and the archive error if archiving it failed.
struct Audited {
    outcome: TargetOutcome,
    archive_error: Option<ArchiveError>,
}

impl From<TargetOutcome> for Audited {
    fn from(outcome: TargetOutcome) -> Self {
        Self {
            outcome,
            archive_error: None,
        }
    }
}

/// The result of one attempt at a target.
enum Attempted {
    Done(Box<Audited>),
    Retry(PlannedTarget),
}

/// Audits every target, and attempts those once more that failed with something transient.
///
/// Returns the outcomes, and the first error of the archive.
pub(super) async fn audit_all(
    run: &Arc<Run>,
    planned: Vec<PlannedTarget>,
) -> (Tally, Option<ArchiveError>) {
    let mut outcomes = Outcomes::default();
    // The attempt is one for all targets of the pass; their keys differ.
    let first = (Pass::First, new_attempt());
    let retries = audit_pass(run, first, planned, &mut outcomes).await;
    // Anew, because a write of the first attempt may still be under way.
    let second = (Pass::Second, new_attempt());
    audit_pass(run, second, retries, &mut outcomes).await;
    (outcomes.tally, outcomes.archive_error)
}

/// Audits up to `max_concurrent_targets` targets at a time, each in its own task, so that they use every
/// core. Returns the targets that need a second attempt.
async fn audit_pass(
    run: &Arc<Run>,
    (pass, attempt): (Pass, Attempt),
    targets: Vec<PlannedTarget>,
    outcomes: &mut Outcomes,
) -> Vec<PlannedTarget> {
    let mut targets = targets.into_iter();
    let mut retries = Vec::new();
    // Dropping this future ends the tasks.
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < run.settings.max_concurrent_targets
            && let Some(planned) = targets.next()
        {
            let run = Arc::clone(run);
            tasks.spawn(async move { audit_target(&run, pass, attempt, planned).await });
        }
        match tasks.join_next().await {
            None => return retries,
            Some(Ok(Attempted::Done(audited))) => outcomes.add(run, *audited).await,
            Some(Ok(Attempted::Retry(planned))) => retries.push(planned),
            Some(Err(failed)) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(cancelled) => unreachable!("no task is cancelled: {cancelled}"),
            },
        }
    }
}

/// Attempts one target.
async fn audit_target(
    run: &Run,
    pass: Pass,
    attempt: Attempt,
    planned: PlannedTarget,
) -> Attempted {
    if let Some(failure) = &planned.refused {
        let error = failure.clone().into();
        return done(not_audited(run, &planned, TargetStatus::Failed, error).await);
    }
    let access = planned.account.access(pass.access()).await;
    let mut audit = target::Audit::new(run, attempt, access, planned.target.clone());
    let stop = match audit.read().await {
        Ok(()) => match audit.archive(None).await {
            Ok(outcome) => return done(outcome),
            Err(error) => Stop::Archiving(error),
        },
        Err(failure) => Stop::Reading(failure),
    };
    let pages = match stop {
        Stop::Reading(_) => audit.pages(),
        // What was read is lost with the object that could not be written.
        Stop::Archiving(_) => 0,
    };
    let has_time = run.deadline.has_time();
    match (next_step(stop.failure().kind, pass, pages, has_time), stop) {
        (NextStep::Retry, _) => Attempted::Retry(planned),
        (NextStep::ArchivePart, Stop::Reading(failure)) => {
            match audit.archive(Some(&failure)).await {
                Ok(outcome) => done(outcome),
                Err(error) => not_archived(run, &planned, error).await,
            }
        }
        (_, Stop::Archiving(error)) => not_archived(run, &planned, error).await,
        (step, Stop::Reading(failure)) => {
            let status = match step {
                NextStep::CheckRegion if is_disabled(run, &planned, pass).await => {
                    TargetStatus::Skipped
                }
                _ => TargetStatus::Failed,
            };
            done(not_audited(run, &planned, status, failure.into()).await)
        }
    }
}

impl Pass {
    fn access(self) -> AccessTo {
        match self {
            Self::First => AccessTo::First,
            Self::Second => AccessTo::Renewed,
        }
    }
}

fn done(outcome: TargetOutcome) -> Attempted {
    Attempted::Done(Box::new(outcome.into()))
}

/// Records a target that was not read; its known reports count as unseen.
async fn not_audited(
    run: &Run,
    planned: &PlannedTarget,
    status: TargetStatus,
    error: TargetError,
) -> TargetOutcome {
    let changes = history::of_unread(run, &planned.target).await;
    TargetOutcome {
        changes,
        ..TargetOutcome::unread(planned.target.clone(), status, error)
    }
}

/// Records a target whose object could not be written. To a reader of the archive that is the same as a
/// target that was never read.
async fn not_archived(run: &Run, planned: &PlannedTarget, error: ArchiveError) -> Attempted {
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
    let outcome = not_audited(run, planned, TargetStatus::Failed, reason).await;
    Attempted::Done(Box::new(Audited {
        outcome,
        archive_error: Some(error),
    }))
}

/// Distinguishes a Region that the account has not enabled from one where access is denied: EC2 returns
/// `AuthFailure` for both. If in doubt, access counts as denied.
async fn is_disabled(run: &Run, planned: &PlannedTarget, pass: Pass) -> bool {
    let regions = planned.account.enabled_regions(&run.home, pass.access());
    let regions = run.deadline.limit_read(regions).await;
    regions.is_ok_and(|regions| regions.is_not_enabled(&planned.target.region))
}

/// The outcomes of the targets that are done.
#[derive(Default)]
struct Outcomes {
    tally: Tally,
    archive_error: Option<ArchiveError>,
}

impl Outcomes {
    async fn add(&mut self, run: &Run, audited: Audited) {
        let Audited {
            mut outcome,
            archive_error,
        } = audited;
        run.deadline.close_target();
        let previous = run.previous().await.filter(|_| run.facts.scope.full);
        if let Some(previous) = previous
            && outcome.ledger.status != TargetStatus::Complete
        {
            outcome.ledger.earlier_objects = previous.earlier_objects(&outcome.ledger.target());
        }
        log(run, &outcome.ledger);
        self.tally.add(outcome);
        self.archive_error = self.archive_error.take().or(archive_error);
    }
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
