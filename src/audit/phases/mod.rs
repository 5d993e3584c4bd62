//! The phases of a run that goes over several functions: plan the targets, audit them batch by batch, publish.
//!
//! A phase does part of what a run in one function does, with the same code. What the next phase needs is a document
//! in the archive: the plan with its targets, and the outcomes of each batch. Step Functions passes on only keys, and
//! lines of that list.

mod batch;
mod gather;
mod planning;

use std::sync::Arc;

use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::{AUDITOR_VERSION, Plan, TargetError};
use image_usage_archive::domain::error_code::ErrorCode;
use image_usage_archive::domain::run_id::RunId;
use image_usage_archive::layout::Handover;
use serde_json::Value;
use tokio::time::Instant;

use super::answer::Answer;
use super::context::{Context, in_time};
use super::error::RunError;
use super::publish;
use super::run::{Invocation, Run};
use crate::archive::handover;
use crate::archive::previous::PreviousRun;
use crate::request::{Failure, PhaseRequest};

/// Handles one invocation for a phase of a run.
///
/// # Errors
/// Fails if the run is not planned, if it was planned with other settings, and as the phase does.
pub(super) async fn answer(
    context: &Context,
    phase: PhaseRequest,
    invocation: Invocation,
) -> Result<Answer, RunError> {
    match phase {
        PhaseRequest::Plan(request) => {
            let max_results = request.max_results;
            let facts = context.facts_of(*request, &invocation);
            let run = context.start(facts, max_results, &invocation);
            let planned = planning::plan(context, &run, max_results, &invocation.function_arn);
            in_time(&run, planned).await.map(Answer::Planned)
        }
        PhaseRequest::Target {
            run_id,
            targets,
            failure,
        } => {
            let (plan, run) = planned_run(context, &run_id, &invocation).await?;
            let previous = plan.previous;
            run.set_previous(
                previous.map(|previous| PreviousRun::planned(previous, &targets, &[])),
            );
            let function_arn = &invocation.function_arn;
            let audited = async {
                match failure {
                    None => batch::audit(context, &run, function_arn, &targets).await,
                    Some(failure) => batch::record(context, &run, &targets, &failure).await,
                }
            };
            in_time(&run, audited).await.map(Answer::Audited)
        }
        PhaseRequest::Publish { run_id, failure } => {
            publish_planned(context, &run_id, failure.as_ref(), &invocation).await
        }
    }
}

/// Reads the plan of a run, and starts the clock of one of its later phases.
async fn planned_run(
    context: &Context,
    run_id: &RunId,
    invocation: &Invocation,
) -> Result<(Plan, Arc<Run>), RunError> {
    let begun = Instant::now();
    let (layout, bucket) = (&context.settings.archive_prefix, &context.bucket);
    let not_planned = |key: String| RunError::NotPlanned {
        run_id: run_id.clone(),
        bucket: bucket.name().to_owned(),
        key,
    };
    let Some(scheduled_at) = run_id.scheduled_at() else {
        return Err(not_planned(String::new()));
    };
    let key = layout.handover(run_id, scheduled_at, &Handover::Plan);
    let found = handover::find_plan(bucket, &key).await;
    let plan = found
        .map_err(RunError::ArchiveFailed)?
        .ok_or_else(|| not_planned(key))?;
    check_settings(context, &plan)?;
    let invocation = invocation.clone().after(begun.elapsed());
    let run = context.start(plan.facts.clone(), plan.max_results, &invocation);
    Ok((plan, run))
}

/// Fails if a plan was made with settings under which targets would be audited in another way.
fn check_settings(context: &Context, plan: &Plan) -> Result<(), RunError> {
    let settings = &context.settings;
    let what = if plan.auditor.version != AUDITOR_VERSION {
        let planned = &plan.auditor.version;
        format!("version {planned} of the auditor, this is {AUDITOR_VERSION}")
    } else if plan.facts.policy != settings.policy {
        "the limits of the rules and what is read of AMIs".to_owned()
    } else if plan.archive_entries != settings.archive_entries {
        "AUDITOR_ARCHIVE_ENTRIES".to_owned()
    } else {
        return Ok(());
    };
    let run_id = plan.facts.run_id.clone();
    Err(RunError::OtherSettings { run_id, what })
}

/// Publishes a run with the outcomes that there are, unless it is archived already.
async fn publish_planned(
    context: &Context,
    run_id: &RunId,
    failure: Option<&Failure>,
    invocation: &Invocation,
) -> Result<Answer, RunError> {
    let (plan, run) = planned_run(context, run_id, invocation).await?;
    let archived = async {
        let found = context.find_snapshot(&run).await?;
        let latest = context.find_latest(&run).await?;
        let (published, page) = match found {
            Some(published) => (published, None),
            None => {
                let outcomes = gather::outcomes(context, &run, plan, failure).await?;
                publish::snapshot(context, &run, outcomes, None).await?
            }
        };
        publish::advance_latest(context, &run, latest, published, page).await
    };
    let archived = in_time(&run, archived).await?;
    Ok(publish::answer(&run, archived).await)
}

/// The most characters of a cause that are recorded for each target of a batch.
const MAX_CAUSE_CHARACTERS: usize = 300;

/// Returns the error of a target that has no outcome of its own.
fn batch_failed(failure: Option<&Failure>) -> TargetError {
    let message = match failure {
        None => "no invocation of the function has left an outcome of the target".to_owned(),
        Some(Failure { error, cause }) => match cause.as_deref().map(readable) {
            None => format!("the function failed: {error}"),
            Some(cause) => format!("the function failed: {error}: {cause}"),
        },
    };
    CallFailure::own(ErrorCode::BatchFailed, message, FailureKind::Permanent).into()
}

/// The message of a failed function, if the cause is one; bounded.
fn readable(cause: &str) -> String {
    let answer: Option<Value> = serde_json::from_str(cause).ok();
    let message = answer
        .as_ref()
        .and_then(|answer| answer["errorMessage"].as_str());
    let text = message.unwrap_or(cause).trim();
    text.chars().take(MAX_CAUSE_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_batch_says_why_in_one_sentence() {
        let failure = |cause: Option<&str>| Failure {
            error: "Lambda.Unknown".to_owned(),
            cause: cause.map(str::to_owned),
        };
        let answer = r#"{"errorMessage":"signal: killed","errorType":"Runtime.ExitError"}"#;
        for (failure, expected) in [
            (
                None,
                "no invocation of the function has left an outcome of the target",
            ),
            (Some(failure(None)), "the function failed: Lambda.Unknown"),
            (
                Some(failure(Some("gone"))),
                "the function failed: Lambda.Unknown: gone",
            ),
            (
                Some(failure(Some(answer))),
                "the function failed: Lambda.Unknown: signal: killed",
            ),
        ] {
            let error = batch_failed(failure.as_ref());
            assert_eq!(
                (error.code.as_str(), error.message.as_str()),
                ("BatchFailed", expected)
            );
        }
        let long = "word ".repeat(1_000);
        assert!(batch_failed(Some(&failure(Some(&long)))).message.len() < 400);
    }
}
