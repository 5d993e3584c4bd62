//! What the phases of a run hand over: its plan, its targets, and their outcomes.

use bytes::Bytes;
use image_usage_archive::aws::{Bucket, CallFailure, Condition, FailureKind, NewObject};
use image_usage_archive::documents::{ArchivedObject, OutcomeLine, Plan, TargetLine};
use image_usage_archive::domain::digest::{hex, sha256_hex};
use image_usage_archive::domain::error_code::ErrorCode;
use sha2::{Digest, Sha256};

use super::ConflictRetries;
use super::lines_writer::{ArchiveError, LinesWriter, failed, write_line};
use super::previous::{EarlierObject, malformed_line};
use super::snapshots::CONTENT_TYPE;

const LINES_CONTENT_TYPE: &str = "application/jsonl";

/// Finds the plan of a run; `None` if there is none.
///
/// # Errors
/// Fails as S3 does, and if the stored object is not a plan.
pub(crate) async fn find_plan(bucket: &Bucket, key: &str) -> Result<Option<Plan>, ArchiveError> {
    let Some(stored) = bucket.get(key).await.map_err(failed("read", bucket, key))? else {
        return Ok(None);
    };
    let plan = serde_json::from_slice(&stored.bytes);
    plan.map(Some)
        .map_err(|error| damaged(bucket, key, &format!("is not a plan: {error}")))
}

/// Commits the plan of a run, unless another attempt at it has. Returns the one that counts.
///
/// # Errors
/// Fails as S3 does.
pub(crate) async fn commit_plan(
    bucket: &Bucket,
    key: &str,
    plan: Plan,
    bytes: Bytes,
) -> Result<Plan, ArchiveError> {
    let sha256 = Sha256::digest(&bytes).into();
    let new = NewObject {
        key,
        content_type: CONTENT_TYPE,
        bytes,
        sha256: &sha256,
    };
    let mut retries = ConflictRetries::default();
    loop {
        let failure = match bucket.put(new.clone(), &Condition::Absent).await {
            Ok(_) => return Ok(plan),
            Err(failure) => failure,
        };
        if failure.kind == FailureKind::ConditionFailed
            && let Some(plan) = find_plan(bucket, key).await?
        {
            return Ok(plan);
        }
        retries
            .wait_after(failure)
            .await
            .map_err(failed("write", bucket, key))?;
    }
}

/// Writes the targets of a plan, under a key that nothing else is written to.
///
/// # Errors
/// Fails as S3 does.
pub(crate) async fn write_targets(
    bucket: &Bucket,
    key: &str,
    lines: &[TargetLine],
) -> Result<ArchivedObject, ArchiveError> {
    let mut bytes = Vec::new();
    for line in lines {
        write_line(&mut bytes, line)
            .map_err(|error| failed("write", bucket, key)(malformed_line(error)))?;
    }
    let sha256 = Sha256::digest(&bytes).into();
    let size = bytes.len() as u64;
    let new = NewObject {
        key,
        content_type: LINES_CONTENT_TYPE,
        bytes: bytes.into(),
        sha256: &sha256,
    };
    let written = bucket.put(new, &Condition::Always).await;
    Ok(ArchivedObject {
        key: key.to_owned(),
        version_id: written.map_err(failed("write", bucket, key))?,
        sha256: hex(&sha256),
        bytes: size,
        lines: lines.len() as u64,
    })
}

/// Reads the targets of a plan.
///
/// # Errors
/// Fails as S3 does, and if the object is not what the plan names.
pub(crate) async fn read_targets(
    bucket: &Bucket,
    object: &ArchivedObject,
) -> Result<Vec<TargetLine>, ArchiveError> {
    let key = &object.key;
    let stored = bucket.get(key).await.map_err(failed("read", bucket, key))?;
    let stored = stored.ok_or_else(|| damaged(bucket, key, "is missing"))?;
    if sha256_hex(&stored.bytes) != object.sha256 {
        return Err(damaged(bucket, key, "has changed"));
    }
    let lines = stored.bytes.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    let lines: serde_json::Result<Vec<TargetLine>> = lines.map(serde_json::from_slice).collect();
    lines.map_err(|error| damaged(bucket, key, &format!("does not hold targets: {error}")))
}

/// Writes the outcomes of a batch.
///
/// # Errors
/// Fails as S3 does.
pub(crate) async fn write_outcomes(
    bucket: &Bucket,
    key: String,
    lines: &[OutcomeLine],
) -> Result<ArchivedObject, ArchiveError> {
    let mut writer = LinesWriter::new(bucket.clone(), key);
    let mut bytes = Vec::new();
    for line in lines {
        bytes.clear();
        write_line(&mut bytes, line).map_err(|error| writer.failed(malformed_line(error)))?;
        writer.push(&bytes);
        if writer.has_full_part() {
            writer.send_full_part().await?;
        }
    }
    writer.finish().await
}

/// Reads the outcomes of a batch: passes on each line.
///
/// # Errors
/// Fails as S3 does, and if the object is missing or does not hold lines that `each` accepts.
pub(crate) async fn read_outcomes(
    bucket: &Bucket,
    key: &str,
    mut each: impl FnMut(&[u8]) -> serde_json::Result<()>,
) -> Result<(), ArchiveError> {
    let object = EarlierObject::read_unchecked(bucket, key).await;
    let mut object = object.map_err(failed("read", bucket, key))?;
    let read = object.for_each_line(|line| Ok(each(line)?)).await;
    read.map_err(|error| failed("read", bucket, key)(malformed_line(error)))
}

fn damaged(bucket: &Bucket, key: &str, problem: &str) -> ArchiveError {
    let message = format!("the object {problem}");
    let failure = CallFailure::own(ErrorCode::ObjectDamaged, message, FailureKind::Permanent);
    failed("read", bucket, key)(failure)
}
