//! The commit of a run: its snapshot.

use bytes::Bytes;
use image_usage_archive::aws::{Bucket, CallFailure, Condition, FailureKind, NewObject};
use image_usage_archive::documents::{Counts, News, RunStatus, Scope, Snapshot};
use image_usage_archive::domain::digest::{hex, sha256_hex};
use image_usage_archive::domain::error_code::ErrorCode;
use image_usage_archive::domain::run_id::RunId;
use image_usage_archive::domain::timestamp::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ConflictRetries;
use super::lines_writer::{ArchiveError, failed};

pub(super) const CONTENT_TYPE: &str = "application/json";

/// Where a snapshot is stored, and its digest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SnapshotObject {
    /// The archive's bucket.
    pub bucket: String,
    /// The snapshot's key.
    pub key: String,
    /// Its version; `None` in a bucket without versioning.
    pub version_id: Option<String>,
    /// The SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// The fields of a snapshot that a later run needs.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) run_id: RunId,
    pub(crate) scope: Scope,
    pub(crate) scheduled_at: Timestamp,
    pub(crate) status: RunStatus,
    pub(crate) counts: Counts,
}

impl SnapshotHead {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        Self {
            run_id: snapshot.run_id.clone(),
            scope: snapshot.scope.clone(),
            scheduled_at: snapshot.scheduled_at,
            status: snapshot.status,
            counts: snapshot.counts,
        }
    }
}

/// A snapshot that is in the archive.
#[derive(Clone, Debug)]
pub(crate) struct PublishedSnapshot {
    pub(crate) object: SnapshotObject,
    pub(crate) head: SnapshotHead,
    /// What it tells people.
    pub(crate) news: News,
    pub(crate) bytes: Bytes,
    /// Whether another attempt at the run wrote it.
    pub(crate) already_archived: bool,
}

/// Finds the snapshot of a run; `None` if there is none.
///
/// # Errors
/// Fails as S3 does, and if the stored object is not a snapshot.
pub(crate) async fn find(
    bucket: &Bucket,
    key: &str,
) -> Result<Option<PublishedSnapshot>, ArchiveError> {
    let Some(stored) = bucket.get(key).await.map_err(failed("read", bucket, key))? else {
        return Ok(None);
    };
    let snapshot: Snapshot = serde_json::from_slice(&stored.bytes).map_err(|error| {
        let message = format!("the object is not a snapshot of this auditor: {error}");
        failed("read", bucket, key)(CallFailure::own(
            ErrorCode::MalformedSnapshot,
            message,
            FailureKind::Permanent,
        ))
    })?;
    let object = SnapshotObject {
        bucket: bucket.name().to_owned(),
        key: key.to_owned(),
        version_id: stored.facts.version_id,
        sha256: sha256_hex(&stored.bytes),
    };
    Ok(Some(PublishedSnapshot {
        object,
        head: SnapshotHead::of(&snapshot),
        news: News::of(&snapshot),
        bytes: stored.bytes,
        already_archived: true,
    }))
}

/// Commits a run: writes its snapshot, unless another attempt at the run has written one.
///
/// The existing snapshot is then the run's, and is returned. That includes a write that S3 carried out but
/// whose response was lost.
///
/// # Errors
/// Fails as S3 does.
pub(crate) async fn commit(
    bucket: &Bucket,
    key: &str,
    bytes: Bytes,
    snapshot: &Snapshot,
) -> Result<PublishedSnapshot, ArchiveError> {
    let sha256 = Sha256::digest(&bytes).into();
    let new = NewObject {
        key,
        content_type: CONTENT_TYPE,
        bytes: bytes.clone(),
        sha256: &sha256,
    };
    let mut retries = ConflictRetries::default();
    loop {
        let failure = match bucket.put(new.clone(), &Condition::Absent).await {
            Ok(version_id) => {
                let object = SnapshotObject {
                    bucket: bucket.name().to_owned(),
                    key: key.to_owned(),
                    version_id,
                    sha256: hex(&sha256),
                };
                return Ok(PublishedSnapshot {
                    object,
                    head: SnapshotHead::of(snapshot),
                    news: News::of(snapshot),
                    bytes,
                    already_archived: false,
                });
            }
            Err(failure) => failure,
        };
        if failure.kind == FailureKind::ConditionFailed
            && let Some(mut published) = find(bucket, key).await?
        {
            published.already_archived = published.object.sha256 != hex(&sha256);
            return Ok(published);
        }
        retries
            .wait_after(failure)
            .await
            .map_err(failed("write", bucket, key))?;
    }
}
