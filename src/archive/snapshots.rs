//! The commit of a run: its snapshot, and the copy that is the latest.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::archive::lines_writer::{ArchiveError, Turns, failed};
use image_usage_archive::aws::{Bucket, CallFailure, Condition, FailureKind, NewObject, Stored};
use image_usage_archive::documents::snapshot::{Counts, RunStatus};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::layout::{RunId, hex};

const CONTENT_TYPE: &str = "application/json";

/// Where a snapshot lies, and what it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SnapshotObject {
    /// The archive's bucket.
    pub bucket: String,
    /// The snapshot's key.
    pub key: String,
    /// Its version; `None` in a bucket without versions.
    pub version_id: Option<String>,
    /// The SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// The members of a snapshot that a later run needs of it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct SnapshotHead {
    /// The run.
    pub run_id: RunId,
    /// The moment the run was scheduled for.
    pub scheduled_at: Timestamp,
    /// Whether the run saw everything.
    pub status: RunStatus,
    /// What it counted.
    pub counts: Counts,
}

/// A snapshot that is in the archive.
#[derive(Clone, Debug)]
pub struct PublishedSnapshot {
    /// Where it lies.
    pub object: SnapshotObject,
    /// What it says.
    pub head: SnapshotHead,
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether it was there already.
    pub already_archived: bool,
}

/// Looks for the snapshot of a run.
///
/// # Errors
/// Fails as S3 does, and when what lies there is no snapshot.
pub async fn find_snapshot(
    bucket: &Bucket,
    key: &str,
) -> Result<Option<PublishedSnapshot>, ArchiveError> {
    let Some(stored) = bucket.get(key).await.map_err(failed("read", bucket, key))? else {
        return Ok(None);
    };
    let head = serde_json::from_slice(&stored.bytes).map_err(|error| {
        let message = format!("the object is no snapshot of this auditor: {error}");
        let kind = FailureKind::Lasting;
        failed("read", bucket, key)(CallFailure {
            code: "MalformedSnapshot".to_owned(),
            message,
            request_id: None,
            kind,
        })
    })?;
    let object = SnapshotObject {
        bucket: bucket.name().to_owned(),
        key: key.to_owned(),
        version_id: stored.facts.version_id,
        sha256: hex(&Sha256::digest(&stored.bytes)),
    };
    Ok(Some(PublishedSnapshot {
        object,
        head,
        bytes: stored.bytes,
        already_archived: true,
    }))
}

/// Writes a run's snapshot, the commit of the run, where no other try of the run has written one.
///
/// Where one has, that one is the run's snapshot, and is returned. That also covers a write that S3
/// carried out but whose answer was lost.
///
/// # Errors
/// Fails as S3 does.
pub async fn commit_snapshot(
    bucket: &Bucket,
    key: &str,
    bytes: Bytes,
    head: SnapshotHead,
) -> Result<PublishedSnapshot, ArchiveError> {
    let sha256 = Sha256::digest(&bytes).into();
    let new = NewObject {
        key,
        content_type: CONTENT_TYPE,
        bytes: bytes.clone(),
        sha256: &sha256,
        metadata: &[],
    };
    let mut turns = Turns::new();
    loop {
        let failure = match bucket.put(new.clone(), &Condition::Absent).await {
            Ok(version_id) => {
                let bucket = bucket.name().to_owned();
                let object = SnapshotObject {
                    bucket,
                    key: key.to_owned(),
                    version_id,
                    sha256: hex(&sha256),
                };
                return Ok(PublishedSnapshot {
                    object,
                    head,
                    bytes,
                    already_archived: false,
                });
            }
            Err(failure) => failure,
        };
        if failure.kind == FailureKind::ConditionFailed
            && let Some(mut published) = find_snapshot(bucket, key).await?
        {
            published.already_archived = published.object.sha256 != hex(&sha256);
            return Ok(published);
        }
        turns
            .wait_after(failure)
            .await
            .map_err(failed("write", bucket, key))?;
    }
}

/// The copy of the newest unscoped snapshot, as it was found.
#[derive(Clone, Debug)]
pub struct LatestSnapshot(Option<Stored>);

impl LatestSnapshot {
    /// Looks for the copy.
    ///
    /// # Errors
    /// Fails as S3 does.
    pub async fn read(bucket: &Bucket, key: &str) -> Result<Self, ArchiveError> {
        let stored = bucket.get(key).await;
        Ok(Self(stored.map_err(failed("read", bucket, key))?))
    }

    /// Its bytes; `None` where there is none.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.0.as_ref().map(|stored| &*stored.bytes)
    }

    /// The condition under which a snapshot takes its place; `None` when it must not.
    fn makes_way_for(&self, head: &SnapshotHead) -> Option<Condition> {
        let order = |head: &SnapshotHead| (head.scheduled_at, head.run_id.clone());
        let Some(stored) = &self.0 else {
            return Some(Condition::Absent);
        };
        // A copy that can't be read is worth nothing: the snapshot it was made of is elsewhere.
        let there = serde_json::from_slice::<SnapshotHead>(&stored.bytes).ok();
        let is_newer = there.is_some_and(|there| order(&there) >= order(head));
        (!is_newer).then(|| Condition::Unchanged(stored.facts.etag.clone()))
    }
}

/// Makes a snapshot the latest one, unless a later one is; `latest` is what the run has found.
///
/// The latest is the one scheduled last; of two for the same moment, the one whose run ID sorts last.
///
/// # Errors
/// Fails as S3 does.
pub async fn advance_latest(
    bucket: &Bucket,
    key: &str,
    mut latest: LatestSnapshot,
    snapshot: &PublishedSnapshot,
) -> Result<(), ArchiveError> {
    let sha256 = Sha256::digest(&snapshot.bytes).into();
    let bytes = snapshot.bytes.clone();
    let new = NewObject {
        key,
        content_type: CONTENT_TYPE,
        bytes,
        sha256: &sha256,
        metadata: &[],
    };
    let mut turns = Turns::new();
    while let Some(condition) = latest.makes_way_for(&snapshot.head) {
        match bucket.put(new.clone(), &condition).await {
            Ok(_) => break,
            Err(failure) => turns
                .wait_after(failure)
                .await
                .map_err(failed("advance", bucket, key))?,
        }
        latest = LatestSnapshot::read(bucket, key).await?;
    }
    Ok(())
}
