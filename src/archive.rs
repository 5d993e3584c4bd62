//! What is written to the archive, and in which order.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::aws::{Bucket, CallFailure, Condition, FailureKind, Upload, UploadedPart};
use crate::keys::{RunId, hex};
use crate::snapshot::{ArchivedObject, Counts, ReportLine, RunStatus};
use crate::timestamp::Timestamp;

/// The size from which on a part is uploaded: the smallest that S3 takes, so that the least is held.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const PART_BYTES: usize = 5 * 1024 * 1024;

/// How often a write that met another one is tried again.
const MAX_CONFLICTS: u32 = 8;

/// The wait before such a try, times the number of tries so far.
const CONFLICT_BACKOFF: std::time::Duration = std::time::Duration::from_millis(100);

const LINES_TYPE: &str = "application/gzip";
const DOCUMENT_TYPE: &str = "application/json";

/// Something that could not be written to the archive, or read from it.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} s3://{bucket}/{key}")]
pub struct ArchiveError {
    action: &'static str,
    bucket: String,
    key: String,
    /// Why.
    #[source]
    pub failure: CallFailure,
}

fn failed<'a>(
    action: &'static str,
    bucket: &'a Bucket,
    key: &'a str,
) -> impl FnOnce(CallFailure) -> ArchiveError + 'a {
    move |failure| ArchiveError {
        action,
        bucket: bucket.name().to_owned(),
        key: key.to_owned(),
        failure,
    }
}

/// Writes a target's reports: lines to gzip to S3, holding no more than one part.
///
/// A small object ends in one call; a large one becomes a multipart upload on the way.
pub struct LinesWriter<'a> {
    bucket: &'a Bucket,
    key: String,
    line: Vec<u8>,
    gzip: GzEncoder<Vec<u8>>,
    digest: Sha256,
    bytes: u64,
    lines: u64,
    upload: Option<(Upload, Vec<UploadedPart>)>,
}

impl<'a> LinesWriter<'a> {
    /// Starts an object; nothing is sent yet.
    pub fn new(bucket: &'a Bucket, key: String) -> Self {
        Self {
            bucket,
            key,
            line: Vec::new(),
            // The header holds no time, so that the same lines give the same bytes.
            gzip: GzEncoder::new(Vec::new(), Compression::default()),
            digest: Sha256::new(),
            bytes: 0,
            lines: 0,
            upload: None,
        }
    }

    /// Adds a line, in memory only.
    pub fn push(&mut self, line: &ReportLine<'_>) {
        self.line.clear();
        // Neither can fail: the line has only string keys, and both writers are vectors.
        let written = serde_json::to_writer(&mut self.line, line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.line.write_all(b"\n"))
            .and_then(|()| self.gzip.write_all(&self.line));
        debug_assert!(written.is_ok(), "{written:?}");
        self.lines += 1;
    }

    /// Uploads what has grown to a part's size.
    ///
    /// # Errors
    /// Fails as S3 does; the object can't be finished then.
    pub async fn send_full_part(&mut self) -> Result<(), ArchiveError> {
        if self.gzip.get_ref().len() < PART_BYTES {
            return Ok(());
        }
        let part = std::mem::take(self.gzip.get_mut());
        self.send_part(part).await
    }

    async fn send_part(&mut self, part: Vec<u8>) -> Result<(), ArchiveError> {
        let Self {
            bucket,
            key,
            digest,
            bytes,
            upload,
            ..
        } = self;
        digest.update(&part);
        *bytes += part.len() as u64;
        let (upload, parts) = match upload {
            Some(upload) => upload,
            None => {
                let started = bucket.start_upload(key, LINES_TYPE).await;
                upload.insert((
                    started.map_err(failed("start the upload of", bucket, key))?,
                    Vec::new(),
                ))
            }
        };
        let number = parts.len() as i32 + 1;
        let sha256 = Sha256::digest(&part).into();
        let sent = bucket.upload_part(upload, number, part, &sha256).await;
        parts.push(sent.map_err(failed("upload a part of", bucket, key))?);
        Ok(())
    }

    /// Finishes the object, and tells what it is.
    ///
    /// An earlier try of the same run may have left an object under the key. It is replaced: its run
    /// has no snapshot, and a bucket with versions keeps it all the same.
    ///
    /// # Errors
    /// Fails as S3 does; an upload under way has been given up then.
    pub async fn finish(mut self) -> Result<ArchivedObject, ArchiveError> {
        let finished = self.send_rest().await;
        if finished.is_err() {
            self.abandon().await;
        }
        finished
    }

    async fn send_rest(&mut self) -> Result<ArchivedObject, ArchiveError> {
        let gzip = std::mem::replace(
            &mut self.gzip,
            GzEncoder::new(Vec::new(), Compression::none()),
        );
        // Writing to a vector can't fail.
        let rest = gzip.finish().unwrap_or_else(|_| Vec::new());
        let version_id = if self.upload.is_none() {
            self.digest.update(&rest);
            self.bytes += rest.len() as u64;
            let sha256 = Sha256::digest(&rest).into();
            let put = self
                .bucket
                .put(&self.key, LINES_TYPE, rest, &sha256, &Condition::Always)
                .await;
            put.map_err(failed("write", self.bucket, &self.key))?
        } else {
            self.send_part(rest).await?;
            let Some((upload, parts)) = self.upload.take() else {
                unreachable!("an upload is under way")
            };
            let completed = self
                .bucket
                .complete_upload(&upload, parts, &Condition::Always)
                .await;
            if completed.is_err() {
                self.upload = Some((upload, Vec::new()));
            }
            completed.map_err(failed("complete the upload of", self.bucket, &self.key))?
        };
        Ok(ArchivedObject {
            key: self.key.clone(),
            version_id,
            sha256: hex(&self.digest.clone().finalize()),
            bytes: self.bytes,
            lines: self.lines,
        })
    }

    /// Gives up, leaving nothing behind where S3 lets it.
    pub async fn abandon(&mut self) {
        if let Some((upload, _)) = self.upload.take() {
            // What stays is removed by the bucket's rule for unfinished uploads.
            let _ = self.bucket.abort_upload(&upload).await;
        }
    }
}

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
    pub bytes: Vec<u8>,
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
        version_id: stored.version_id,
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
    bytes: Vec<u8>,
    head: SnapshotHead,
) -> Result<PublishedSnapshot, ArchiveError> {
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let mut conflicts = 0;
    loop {
        match bucket
            .put(
                key,
                DOCUMENT_TYPE,
                bytes.clone(),
                &sha256,
                &Condition::Absent,
            )
            .await
        {
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
            Err(failure) if failure.kind == FailureKind::ConditionFailed => {
                if let Some(mut published) = find_snapshot(bucket, key).await? {
                    published.already_archived = published.object.sha256 != hex(&sha256);
                    return Ok(published);
                }
                wait_for_turn(&mut conflicts, failure, "write", bucket, key).await?;
            }
            Err(failure) if failure.kind == FailureKind::Conflict => {
                wait_for_turn(&mut conflicts, failure, "write", bucket, key).await?;
            }
            Err(failure) => return Err(failed("write", bucket, key)(failure)),
        }
    }
}

/// Makes a snapshot the latest one, unless a later one is.
///
/// The latest is the one scheduled last; of two for the same moment, the one whose run ID sorts last.
///
/// # Errors
/// Fails as S3 does.
pub async fn advance_latest(
    bucket: &Bucket,
    key: &str,
    snapshot: &PublishedSnapshot,
) -> Result<(), ArchiveError> {
    let order = |head: &SnapshotHead| (head.scheduled_at, head.run_id.clone());
    let sha256: [u8; 32] = Sha256::digest(&snapshot.bytes).into();
    let mut conflicts = 0;
    loop {
        let condition = match bucket.get(key).await.map_err(failed("read", bucket, key))? {
            None => Condition::Absent,
            Some(stored) => {
                // A copy that can't be read is worth nothing: the snapshot it was made of is elsewhere.
                let head = serde_json::from_slice::<SnapshotHead>(&stored.bytes).ok();
                if head.is_some_and(|head| order(&head) >= order(&snapshot.head)) {
                    return Ok(());
                }
                Condition::Unchanged(stored.etag)
            }
        };
        match bucket
            .put(
                key,
                DOCUMENT_TYPE,
                snapshot.bytes.clone(),
                &sha256,
                &condition,
            )
            .await
        {
            Ok(_) => return Ok(()),
            Err(failure)
                if matches!(
                    failure.kind,
                    FailureKind::ConditionFailed | FailureKind::Conflict
                ) =>
            {
                wait_for_turn(&mut conflicts, failure, "advance", bucket, key).await?;
            }
            Err(failure) => return Err(failed("advance", bucket, key)(failure)),
        }
    }
}

async fn wait_for_turn(
    conflicts: &mut u32,
    failure: CallFailure,
    action: &'static str,
    bucket: &Bucket,
    key: &str,
) -> Result<(), ArchiveError> {
    *conflicts += 1;
    if *conflicts > MAX_CONFLICTS {
        return Err(failed(action, bucket, key)(failure));
    }
    tokio::time::sleep(CONFLICT_BACKOFF * *conflicts).await;
    Ok(())
}
