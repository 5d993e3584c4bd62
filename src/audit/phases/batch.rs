//! The phase `target`: audits a batch of targets, and leaves their outcomes as a document.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use image_usage_archive::documents::PageContents;
use image_usage_archive::documents::{
    OutcomeLine, TargetCounts, TargetLine, TargetOutcome, TargetStatus, set_renewals,
};
use image_usage_archive::layout::Handover;

use super::super::answer::BatchAnswer;
use super::super::context::Context;
use super::super::error::RunError;
use super::super::passes::{self, AuditedTargets};
use super::super::run::{Run, new_attempt};
use super::super::{plan, renewal};
use super::batch_failed;
use crate::archive::handover;
use crate::request::Failure;

/// Audits targets, and asks EC2 for their reports if that is wanted.
///
/// Targets that cannot be read or archived are failed targets, even if all of them are: the run decides.
///
/// # Errors
/// Fails if the outcomes cannot be written.
pub(super) async fn audit(
    context: &Context,
    run: &Arc<Run>,
    function_arn: &str,
    lines: &[TargetLine],
) -> Result<BatchAnswer, RunError> {
    let planned = plan::planned_before(run, &context.accounts, function_arn, lines).await?;
    run.deadline.set_targets(planned.len());
    let AuditedTargets {
        mut outcomes,
        archive_error: _,
        renewals,
    } = passes::audit_all(run, planned, Vec::new()).await;
    let renewed = renewal::renew_all(run, renewals).await;
    let ledger = outcomes.iter_mut().map(|(outcome, _)| &mut outcome.ledger);
    set_renewals(ledger, renewed);
    hand_over(context, run, outcomes).await
}

/// Records that the function failed each time it was invoked for these targets.
///
/// Nothing is read or compared, because that may be why it failed.
///
/// # Errors
/// Fails if the outcomes cannot be written.
pub(super) async fn record(
    context: &Context,
    run: &Run,
    lines: &[TargetLine],
    failure: &Failure,
) -> Result<BatchAnswer, RunError> {
    let mut outcomes = Vec::with_capacity(lines.len());
    for line in lines {
        let error = batch_failed(Some(failure));
        let outcome = TargetOutcome::unread(line.target(), TargetStatus::Failed, error);
        outcomes.push((passes::settled(run, outcome).await, None));
    }
    hand_over(context, run, outcomes).await
}

async fn hand_over(
    context: &Context,
    run: &Run,
    mut outcomes: Vec<(TargetOutcome, Option<PageContents>)>,
) -> Result<BatchAnswer, RunError> {
    outcomes.sort_by_cached_key(|(outcome, _)| outcome.ledger.target());
    let mut targets = TargetCounts::default();
    let lines: Vec<OutcomeLine> = outcomes
        .into_iter()
        .map(|(outcome, page)| {
            targets += outcome.counts.targets;
            let unreadable_objects = run.unreadable_objects.swap(0, Ordering::Relaxed);
            OutcomeLine {
                outcome,
                page,
                unreadable_objects,
            }
        })
        .collect();
    let Some(first) = lines.first().map(|line| line.outcome.ledger.target()) else {
        unreachable!("a batch has a target");
    };
    let attempt = new_attempt();
    let document = Handover::Outcomes { first, attempt };
    let (run_id, scheduled_at) = (&run.facts.run_id, run.facts.scheduled_at);
    let layout = &context.settings.archive_prefix;
    let key = layout.handover(run_id, scheduled_at, &document);
    let written = handover::write_outcomes(&context.bucket, key, &lines).await;
    let written = written.map_err(RunError::ArchiveFailed)?;
    let duration_ms = run.deadline.duration_ms();
    tracing::info!(
        %run_id, outcomes = written.key, targets_complete = targets.complete,
        targets_incomplete = targets.incomplete, targets_failed = targets.failed,
        targets_skipped = targets.skipped, duration_ms, "batch done"
    );
    Ok(BatchAnswer {
        run_id: run_id.clone(),
        outcomes: written.key,
        targets,
        duration_ms,
    })
}
