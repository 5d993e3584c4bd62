//! `latest.json`: the copy of the newest full snapshot.

use std::sync::atomic::{AtomicU64, Ordering};

use image_usage_archive::aws::{Bucket, Condition, NewObject, Stored};
use sha2::{Digest, Sha256};

use super::ConflictRetries;
use super::lines_writer::{ArchiveError, failed};
use super::snapshots::{CONTENT_TYPE, PublishedSnapshot, SnapshotHead};

/// A snapshot of an earlier run, or `latest.json`, as it was found.
#[derive(Clone, Debug)]
pub(crate) enum FoundSnapshot {
    /// There is none.
    Missing,
    /// It was read.
    Found(Stored),
    /// It exists and cannot be read: its KMS key may be gone, or it was moved to Glacier.
    Unreadable,
}

impl FoundSnapshot {
    /// Reads it; counts it in `unreadable_objects` if it is unreadable for good: archiving goes on without it.
    ///
    /// # Errors
    /// Fails as S3 does otherwise.
    pub(crate) async fn read(
        bucket: &Bucket,
        key: &str,
        unreadable_objects: &AtomicU64,
    ) -> Result<Self, ArchiveError> {
        match bucket.get(key).await {
            Ok(Some(stored)) => Ok(Self::Found(stored)),
            Ok(None) => Ok(Self::Missing),
            Err(failure) if failure.is_unreadable() => {
                unreadable_objects.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    object = key,
                    error_code = failure.code,
                    error_message = failure.message,
                    "an object of an earlier run cannot be read: let the function decrypt with the KMS key it was written with, or restore it from Glacier"
                );
                Ok(Self::Unreadable)
            }
            Err(failure) => Err(failed("read", bucket, key)(failure)),
        }
    }

    /// Its bytes; `None` if there is none that can be read.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Found(stored) => Some(&stored.bytes),
            Self::Missing | Self::Unreadable => None,
        }
    }

    /// The condition under which a snapshot replaces it in `latest.json`; `None` if the copy is of a newer one.
    ///
    /// The newest is the one scheduled last; of two for the same moment, the one whose run ID sorts last.
    fn can_replace(&self, head: &SnapshotHead) -> Option<Condition> {
        let order = |head: &SnapshotHead| (head.scheduled_at, head.run_id.clone());
        let stored = match self {
            Self::Found(stored) => stored,
            Self::Missing => return Some(Condition::Absent),
            // Of what it is a copy is not known; the snapshot is stored elsewhere.
            Self::Unreadable => return Some(Condition::Always),
        };
        // An unreadable copy is worth nothing: the snapshot that it was made of is stored elsewhere.
        let copied = serde_json::from_slice::<SnapshotHead>(&stored.bytes).ok();
        let is_newer = copied.is_some_and(|copied| order(&copied) >= order(head));
        (!is_newer).then(|| Condition::Unchanged(stored.facts.etag.clone()))
    }
}

/// Makes a snapshot the latest one, unless a newer one is; `latest` is what the run has found. Returns whether it is
/// the latest one now.
///
/// # Errors
/// Fails as S3 does.
pub(crate) async fn advance(
    bucket: &Bucket,
    key: &str,
    mut latest: FoundSnapshot,
    snapshot: &PublishedSnapshot,
    unreadable_objects: &AtomicU64,
) -> Result<bool, ArchiveError> {
    let sha256 = Sha256::digest(&snapshot.bytes).into();
    let new = NewObject {
        key,
        content_type: CONTENT_TYPE,
        bytes: snapshot.bytes.clone(),
        sha256: &sha256,
    };
    let mut retries = ConflictRetries::default();
    while let Some(condition) = latest.can_replace(&snapshot.head) {
        match bucket.put(new.clone(), &condition).await {
            Ok(_) => return Ok(true),
            Err(failure) => retries
                .wait_after(failure)
                .await
                .map_err(failed("advance", bucket, key))?,
        }
        latest = FoundSnapshot::read(bucket, key, unreadable_objects).await?;
    }
    // A write whose response was lost is found when it is repeated.
    Ok(latest.bytes().is_some_and(|bytes| bytes == snapshot.bytes))
}
