//! The phase `plan`: the targets of a run, with what earlier runs know of each, as a document.

use std::collections::BTreeSet;

use image_usage_archive::documents::{Plan, TargetLine};
use image_usage_archive::domain::target::Target;
use image_usage_archive::layout::Handover;

use super::super::answer::{PlanAnswer, PlannedTargets};
use super::super::context::Context;
use super::super::error::RunError;
use super::super::publish;
use super::super::run::{Run, new_attempt};
use super::check_settings;
use crate::archive::handover;
use crate::archive::previous::PreviousRun;
use crate::audit::plan::PlannedTarget;

/// Plans a run, unless it is archived or planned already.
///
/// The plan fixes what all phases must agree on: the time at which rules are evaluated, their limits, and the
/// snapshot that the run is compared with.
///
/// # Errors
/// Fails if the targets cannot be listed, if the run was planned with other settings, and as S3 does.
pub(super) async fn plan(
    context: &Context,
    run: &Run,
    max_results: Option<u32>,
    function_arn: &str,
) -> Result<PlanAnswer, RunError> {
    let run_id = &run.facts.run_id;
    if let Some(published) = context.find_snapshot(run).await? {
        // The attempt that wrote it may have died before it was the latest.
        let latest = context.find_latest(run).await?;
        publish::advance_latest(context, run, latest, published, None).await?;
        tracing::info!(%run_id, "run archived already");
        return Ok(PlanAnswer {
            run_id: run_id.clone(),
            already_archived: true,
            targets: None,
        });
    }
    let layout = &context.settings.archive_prefix;
    let key = layout.handover(run_id, run.facts.scheduled_at, &Handover::Plan);
    let found = handover::find_plan(&context.bucket, &key).await;
    let plan = match found.map_err(RunError::ArchiveFailed)? {
        Some(plan) => {
            check_settings(context, &plan)?;
            plan
        }
        None => make(context, run, max_results, function_arn, &key).await?,
    };
    let targets = PlannedTargets {
        bucket: context.bucket.name().to_owned(),
        key: plan.targets.key,
        count: plan.targets.lines,
    };
    tracing::info!(%run_id, targets = targets.count, "run planned");
    Ok(PlanAnswer {
        run_id: run_id.clone(),
        already_archived: false,
        targets: Some(targets),
    })
}

async fn make(
    context: &Context,
    run: &Run,
    max_results: Option<u32>,
    function_arn: &str,
    key: &str,
) -> Result<Plan, RunError> {
    let latest = context.find_latest(run).await?;
    let previous = context.read_previous(run, &latest).await?;
    drop(latest);
    let planned = context.plan(run, function_arn).await?;
    let targets: BTreeSet<Target> = planned.iter().map(|one| one.target.clone()).collect();
    let lines: Vec<TargetLine> = planned
        .into_iter()
        .map(|planned| line(planned, previous.as_ref()))
        .collect();
    let layout = &context.settings.archive_prefix;
    let document = Handover::Targets(new_attempt());
    let targets_key = layout.handover(&run.facts.run_id, run.facts.scheduled_at, &document);
    let written = handover::write_targets(&context.bucket, &targets_key, &lines).await;
    let plan = Plan::new(
        run.facts.clone(),
        context.settings.archive_entries,
        max_results,
        previous.map(|previous| previous.baseline),
        &targets,
        written.map_err(RunError::ArchiveFailed)?,
    );
    let bytes = plan.to_bytes().map_err(RunError::DocumentNotWritten)?;
    let committed = handover::commit_plan(&context.bucket, key, plan, bytes).await;
    committed.map_err(RunError::ArchiveFailed)
}

fn line(planned: PlannedTarget, previous: Option<&PreviousRun>) -> TargetLine {
    let PlannedTarget {
        account: _,
        target,
        refused,
    } = planned;
    let earlier = previous.and_then(|previous| previous.earlier(&target));
    let Target { account_id, region } = target;
    TargetLine {
        account_id,
        region,
        error: refused.map(Into::into),
        earlier,
    }
}
