//! The phase `publish`: gathers the outcomes of all batches.
//!
//! A target may have several, because a batch may run twice. The most complete one counts, of equals the one whose
//! key sorts first. So the outcomes are read twice, and never held: first their statuses, then those that count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt};
use image_usage_archive::aws::Bucket;
use image_usage_archive::documents::{
    OutcomeLine, Plan, TargetError, TargetLine, TargetOutcome, TargetStatus,
};
use image_usage_archive::domain::error_code::ErrorCode;
use image_usage_archive::domain::target::{AccountId, Region, Target};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::context::Context;
use super::super::error::RunError;
use super::super::passes;
use super::super::publish::Outcomes;
use super::super::run::Run;
use super::batch_failed;
use crate::archive::handover;
use crate::archive::lines_writer::failed;
use crate::archive::previous::PreviousRun;
use crate::request::Failure;

/// How many outcomes are read at a time: each is small, or at most a few megabytes.
const CONCURRENT_READS: usize = 16;

/// An outcome, as far as it is compared with others of the same target.
#[derive(Deserialize)]
struct Candidate {
    ledger: CandidateLedger,
}

#[derive(Deserialize)]
struct CandidateLedger {
    account_id: AccountId,
    region: Region,
    status: TargetStatus,
    error: Option<TargetError>,
}

impl CandidateLedger {
    /// The most complete one sorts first. A target that was looked at comes before one whose batch failed.
    fn rank(&self) -> u8 {
        let is_of = |code: &TargetError| code.code == ErrorCode::BatchFailed.as_str();
        match self.status {
            TargetStatus::Complete => 0,
            TargetStatus::Incomplete => 1,
            TargetStatus::Skipped => 2,
            TargetStatus::Failed if !self.error.as_ref().is_some_and(is_of) => 3,
            TargetStatus::Failed => 4,
        }
    }
}

/// Merges the outcomes of every target of a plan. A target without one failed, because of `failure` if it is known.
///
/// # Errors
/// Fails as S3 does, and if the targets of the plan are not what it names.
pub(super) async fn outcomes(
    context: &Context,
    run: &Run,
    plan: Plan,
    failure: Option<&Failure>,
) -> Result<Outcomes, RunError> {
    let bucket = &context.bucket;
    let lines = handover::read_targets(bucket, &plan.targets).await;
    let lines = lines.map_err(RunError::ArchiveFailed)?;
    run.deadline.set_targets(lines.len());
    let previous = plan.previous;
    let removed = &plan.targets_removed;
    run.set_previous(previous.map(|previous| PreviousRun::planned(previous, &lines, removed)));
    let layout = &context.settings.archive_prefix;
    let folder = layout.outcomes_folder(&run.facts.run_id, run.facts.scheduled_at);
    let listed = bucket.list(&folder).await;
    let listed = listed
        .map_err(|failure| RunError::ArchiveFailed(failed("list", bucket, &folder)(failure)))?;
    let keys: Vec<String> = listed.into_keys().collect();
    let chosen = choose(bucket, &keys, &lines).await?;
    let mut outcomes = Outcomes::new(run);
    for line in lines.iter().filter(|line| chosen[&line.target()].is_none()) {
        let error = batch_failed(failure);
        let outcome = TargetOutcome::unread(line.target(), TargetStatus::Failed, error);
        outcomes.extend([(passes::settled(run, outcome).await, None)]);
    }
    drop(lines);
    merge(run, bucket, &keys, &chosen, &mut outcomes).await?;
    Ok(outcomes)
}

/// The rank of the outcome that counts, and the place of its object; `None` for a target that has none.
type Chosen = BTreeMap<Target, Option<(u8, usize)>>;

/// Chooses the outcome of each target.
async fn choose(
    bucket: &Bucket,
    keys: &[String],
    lines: &[TargetLine],
) -> Result<Chosen, RunError> {
    let mut chosen: Chosen = lines.iter().map(|line| (line.target(), None)).collect();
    let mut read = futures_util::stream::iter(keys.iter().enumerate())
        .map(|(place, key)| async move {
            let candidates = read_lines(bucket, key, |Candidate { ledger }| {
                let rank = ledger.rank();
                let CandidateLedger {
                    account_id, region, ..
                } = ledger;
                Some((Target { account_id, region }, (rank, place)))
            });
            candidates.await
        })
        .buffered(CONCURRENT_READS);
    while let Some(candidates) = read.try_next().await? {
        for (target, candidate) in candidates {
            // What the plan does not have is not part of the run.
            if let Some(best) = chosen.get_mut(&target)
                && best.is_none_or(|best| candidate < best)
            {
                *best = Some(candidate);
            }
        }
    }
    Ok(chosen)
}

/// Merges the outcomes that count.
async fn merge(
    run: &Run,
    bucket: &Bucket,
    keys: &[String],
    chosen: &Chosen,
    merged: &mut Outcomes,
) -> Result<(), RunError> {
    let places: BTreeSet<usize> = chosen.values().flatten().map(|(_, place)| *place).collect();
    let mut read = futures_util::stream::iter(places)
        .map(|place| async move {
            let outcomes = read_lines(bucket, &keys[place], |line: OutcomeLine| {
                let of_target = chosen.get(&line.outcome.ledger.target());
                let counts = matches!(of_target, Some(Some((_, at))) if *at == place);
                counts.then_some(line)
            });
            outcomes.await
        })
        .buffered(CONCURRENT_READS);
    while let Some(outcomes) = read.try_next().await? {
        for line in outcomes {
            let unreadable = &run.unreadable_objects;
            unreadable.fetch_add(line.unreadable_objects, Ordering::Relaxed);
            merged.extend([(line.outcome, line.page)]);
        }
    }
    Ok(())
}

/// Reads the lines of one object that `keep` wants. An object that is damaged counts as none.
async fn read_lines<L: DeserializeOwned, T>(
    bucket: &Bucket,
    key: &str,
    mut keep: impl FnMut(L) -> Option<T>,
) -> Result<Vec<T>, RunError> {
    const DAMAGED: [&str; 2] = [
        ErrorCode::MalformedLine.as_str(),
        ErrorCode::ObjectDamaged.as_str(),
    ];
    let mut kept = Vec::new();
    let read = handover::read_outcomes(bucket, key, |line| {
        kept.extend(keep(serde_json::from_slice(line)?));
        Ok(())
    });
    match read.await {
        Ok(()) => Ok(kept),
        Err(error) if DAMAGED.contains(&error.failure.code.as_str()) => {
            tracing::warn!(
                object = key,
                error_code = error.failure.code,
                error_message = error.failure.message,
                "the outcomes of a batch cannot be used"
            );
            Ok(Vec::new())
        }
        Err(error) => Err(RunError::ArchiveFailed(error)),
    }
}
