//! `latest.json`: the copy of the newest full snapshot.

use image_usage_archive::aws::{Bucket, Condition, NewObject, Stored};
use sha2::{Digest, Sha256};

use super::ConflictRetries;
use super::lines_writer::{ArchiveError, failed};
use super::snapshots::{CONTENT_TYPE, PublishedSnapshot, SnapshotHead};

/// The copy of the newest full snapshot, as it was found.
#[derive(Clone, Debug)]
pub(crate) struct LatestSnapshot(Option<Stored>);

impl LatestSnapshot {
    /// Reads the copy.
    ///
    /// # Errors
    /// Fails as S3 does.
    pub(crate) async fn read(bucket: &Bucket, key: &str) -> Result<Self, ArchiveError> {
        let stored = bucket.get(key).await;
        Ok(Self(stored.map_err(failed("read", bucket, key))?))
    }

    /// Its bytes; `None` if there is no copy.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        self.0.as_ref().map(|stored| &*stored.bytes)
    }

    /// The condition under which a snapshot replaces it; `None` if the copy is of a newer one.
    ///
    /// The newest is the one scheduled last; of two for the same moment, the one whose run ID sorts last.
    fn can_replace(&self, head: &SnapshotHead) -> Option<Condition> {
        let order = |head: &SnapshotHead| (head.scheduled_at, head.run_id.clone());
        let Some(stored) = &self.0 else {
            return Some(Condition::Absent);
        };
        // An unreadable copy is worth nothing: the snapshot that it was made of is stored elsewhere.
        let copied = serde_json::from_slice::<SnapshotHead>(&stored.bytes).ok();
        let is_newer = copied.is_some_and(|copied| order(&copied) >= order(head));
        (!is_newer).then(|| Condition::Unchanged(stored.facts.etag.clone()))
    }
}

/// Makes a snapshot the latest one, unless a newer one is; `latest` is what the run has found.
///
/// # Errors
/// Fails as S3 does.
pub(crate) async fn advance(
    bucket: &Bucket,
    key: &str,
    mut latest: LatestSnapshot,
    snapshot: &PublishedSnapshot,
) -> Result<(), ArchiveError> {
    let sha256 = Sha256::digest(&snapshot.bytes).into();
    let new = NewObject {
        key,
        content_type: CONTENT_TYPE,
        bytes: snapshot.bytes.clone(),
        sha256: &sha256,
        metadata: &[],
    };
    let mut retries = ConflictRetries::default();
    while let Some(condition) = latest.can_replace(&snapshot.head) {
        match bucket.put(new.clone(), &condition).await {
            Ok(_) => break,
            Err(failure) => retries
                .wait_after(failure)
                .await
                .map_err(failed("advance", bucket, key))?,
        }
        latest = LatestSnapshot::read(bucket, key).await?;
    }
    Ok(())
}
