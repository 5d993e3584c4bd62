//! The objects that hold the reports: lines to gzip to S3.

use std::io::{BufWriter, IntoInnerError, Write};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use image_usage_archive::aws::{
    Bucket, CallFailure, Condition, FailureKind, NewObject, Sha256Digest, StoredFacts, Upload,
    UploadedPart,
};
use image_usage_archive::documents::snapshot::{ArchivedObject, TargetStatus};
use image_usage_archive::layout::hex;

/// The size from which on a part is uploaded: the smallest that S3 takes, so that the least is held.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const PART_BYTES: usize = 5 * 1024 * 1024;

/// What a page adds to a part at most, before it is seen that the part is full: 1,000 reports with a few
/// tags each come to less than 200 KiB of gzip. More than this is held all the same.
const PART_SLACK_BYTES: usize = 512 * 1024;

/// How often a write that met another one is tried again.
const MAX_TURNS: u32 = 8;

/// The wait before such a try, times the number of tries so far.
const TURN_BACKOFF: Duration = Duration::from_millis(100);

const CONTENT_TYPE: &str = "application/gzip";

/// The metadata of a target's reports that tell another try of the run what they hold.
const STATUS: &str = "target-status";
const PAGES: &str = "target-pages";

/// Metadata of an object, by name.
pub type Metadata = Vec<(&'static str, String)>;

/// Tells how far a target was read.
pub fn metadata(status: TargetStatus, pages: u64) -> Metadata {
    vec![
        (STATUS, status.as_str().to_owned()),
        (PAGES, pages.to_string()),
    ]
}

/// Something that could not be written to the archive, or read from it.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} s3://{bucket}/{key}")]
pub struct ArchiveError {
    action: &'static str,
    bucket: String,
    key: String,
    /// Why.
    #[source]
    pub failure: Box<CallFailure>,
}

pub(crate) fn failed<'a>(
    action: &'static str,
    bucket: &'a Bucket,
    key: &'a str,
) -> impl FnOnce(CallFailure) -> ArchiveError + 'a {
    move |failure| {
        let (bucket, key) = (bucket.name().to_owned(), key.to_owned());
        ArchiveError {
            action,
            bucket,
            key,
            failure: Box::new(failure),
        }
    }
}

/// The patience of a conditional write that meets others.
#[derive(Debug)]
pub(crate) struct Turns(u32);

impl Turns {
    pub(crate) fn new() -> Self {
        Self(0)
    }

    /// Waits before another try; gives the failure back where another try would not help, or where
    /// there were enough.
    pub(crate) async fn wait_after(&mut self, failure: CallFailure) -> Result<(), CallFailure> {
        let met_another = matches!(
            failure.kind,
            FailureKind::ConditionFailed | FailureKind::Conflict
        );
        if !met_another || self.0 == MAX_TURNS {
            return Err(failure);
        }
        self.0 += 1;
        tokio::time::sleep(TURN_BACKOFF * self.0).await;
        Ok(())
    }
}

/// What became of a target's lines.
#[derive(Debug)]
pub enum Written {
    /// They are in the archive.
    Archived(ArchivedObject),
    /// Another try of the same run has written other lines under the key, and its object stays.
    Taken(TakenBy),
}

/// What the object of another try of the run says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenBy {
    /// How far that try got with the target; `None` for a multipart upload, which starts before that is
    /// known.
    pub status: Option<TargetStatus>,
    /// The pages that it read; `None` as above.
    pub pages: Option<u64>,
}

impl TakenBy {
    fn new(facts: &StoredFacts) -> Self {
        let status = match facts.metadata.get(STATUS).map(String::as_str) {
            Some("complete") => Some(TargetStatus::Complete),
            Some("incomplete") => Some(TargetStatus::Incomplete),
            _ => None,
        };
        Self {
            status,
            pages: facts
                .metadata
                .get(PAGES)
                .and_then(|pages| pages.parse().ok()),
        }
    }
}

/// Writes a target's reports or entries, holding no more than one part of them.
///
/// A small object ends in one call; a large one becomes a multipart upload on the way.
#[derive(Debug)]
pub struct LinesWriter {
    bucket: Bucket,
    key: String,
    /// There once there is something to compress: it takes a quarter of a megabyte.
    gzip: Option<Gzip>,
    digest: Sha256,
    bytes: u64,
    lines: u64,
    upload: Option<(Upload, Vec<UploadedPart>)>,
}

/// Compresses many lines at a time: each call of the compressor costs as much as a short line.
type Gzip = BufWriter<GzEncoder<Vec<u8>>>;

const LINES_BYTES: usize = 32 * 1024;

/// The header holds no time, so that the same lines give the same bytes.
fn new_gzip() -> Gzip {
    let gzip = GzEncoder::new(Vec::new(), Compression::default());
    BufWriter::with_capacity(LINES_BYTES, gzip)
}

impl LinesWriter {
    /// Starts an object; nothing is sent yet.
    pub fn new(bucket: Bucket, key: String) -> Self {
        Self {
            bucket,
            key,
            gzip: None,
            digest: Sha256::new(),
            bytes: 0,
            lines: 0,
            upload: None,
        }
    }

    /// The bytes that are held in memory, and have yet to be sent.
    pub fn unsent_bytes(&self) -> usize {
        self.gzip
            .as_ref()
            .map_or(0, |gzip| gzip.get_ref().get_ref().len())
    }

    fn gzip(&mut self) -> &mut Gzip {
        self.gzip.get_or_insert_with(new_gzip)
    }

    /// Whether a part has been sent.
    pub fn is_upload(&self) -> bool {
        self.upload.is_some()
    }

    /// Claims the memory of a whole part at once, for an object that will be large.
    ///
    /// A vector that grows by doubling leaves holes of its earlier sizes behind, and claims its last pages
    /// when there may be no memory left for them. Filled once, the peak stands from here on.
    pub fn claim_part(&mut self) {
        let buffer = self.gzip().get_mut().get_mut();
        let (filled, whole) = (buffer.len(), PART_BYTES + PART_SLACK_BYTES);
        if buffer.capacity() < whole {
            // Optimised for size, `resize` would go from byte to byte.
            const PAGE: [u8; 4096] = [0; 4096];
            buffer.reserve_exact(whole - filled);
            while buffer.len() < whole {
                buffer.extend_from_slice(&PAGE[..PAGE.len().min(whole - buffer.len())]);
            }
            buffer.truncate(filled);
        }
    }

    /// The lines so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Adds a line, with its end, in memory only.
    pub fn push(&mut self, line: &[u8]) {
        // A vector takes everything.
        let written = self.gzip().write_all(line);
        debug_assert!(written.is_ok(), "{written:?}");
        self.lines += 1;
    }

    /// Whether what is held has grown to a part's size.
    pub fn has_full_part(&self) -> bool {
        self.unsent_bytes() >= PART_BYTES
    }

    /// Tells of a failure to write the object.
    pub(crate) fn failed(&self, failure: CallFailure) -> ArchiveError {
        failed("write", &self.bucket, &self.key)(failure)
    }

    /// Uploads what is held, once it [is a full part](Self::has_full_part).
    ///
    /// # Errors
    /// Fails as S3 does; the object can't be finished then.
    pub async fn send_full_part(&mut self) -> Result<(), ArchiveError> {
        let part = Bytes::from(std::mem::take(self.gzip().get_mut().get_mut()));
        self.send_part(part.clone()).await?;
        // Nobody else holds it any more, so that this gives its memory back and copies nothing.
        let mut buffer = Vec::from(part);
        buffer.clear();
        *self.gzip().get_mut().get_mut() = buffer;
        Ok(())
    }

    async fn send_part(&mut self, part: Bytes) -> Result<(), ArchiveError> {
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
                let started = bucket.start_upload(key, CONTENT_TYPE).await;
                let started = started.map_err(failed("start the upload of", bucket, key))?;
                upload.insert((started, Vec::new()))
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
    /// Another try of the same run may have left an object under the key, or be at it right now. Where it
    /// has the same bytes, all is well. Where the bucket has versions, this one becomes the newer version,
    /// and each try's snapshot names its own. Where it has none, the object that is there stays, since a
    /// snapshot may name it already, and is told of instead.
    ///
    /// # Errors
    /// Fails as S3 does; an upload under way has been given up then.
    pub async fn finish(mut self, metadata: &Metadata) -> Result<Written, ArchiveError> {
        let finished = self.send_rest(metadata).await;
        if finished.is_err() {
            self.abandon().await;
        }
        finished
    }

    async fn send_rest(&mut self, metadata: &Metadata) -> Result<Written, ArchiveError> {
        let gzip = self.gzip.take().unwrap_or_else(new_gzip).into_inner();
        let rest = gzip.map_err(IntoInnerError::into_error);
        // Writing to a vector can't fail.
        let rest = rest
            .and_then(GzEncoder::finish)
            .unwrap_or_else(|_| Vec::new());
        let rest = Bytes::from(rest);
        let put = match self.is_upload() {
            true => {
                self.send_part(rest.clone()).await?;
                None
            }
            false => {
                self.digest.update(&rest);
                self.bytes += rest.len() as u64;
                Some(rest)
            }
        };
        let digest: Sha256Digest = self.digest.clone().finalize().into();
        let sha256 = hex(&digest);
        let mut condition = Condition::Absent;
        let mut turns = Turns::new();
        let version_id = loop {
            let failure = match self
                .commit(put.clone(), &digest, metadata, &condition)
                .await
            {
                Ok(version_id) => break version_id,
                Err(failure) => failure,
            };
            let taken = failure.kind == FailureKind::ConditionFailed;
            // An upload that is gone was completed by a call whose answer got lost, or by nobody.
            let gone = failure.kind == FailureKind::NotFound && self.is_upload();
            if taken || gone {
                match self.look_at_what_is_there().await? {
                    Some((there, facts)) if there == sha256 => {
                        self.abandon().await;
                        break facts.version_id;
                    }
                    Some((_, facts)) if taken && facts.version_id.is_some() => {
                        condition = Condition::Always;
                        continue;
                    }
                    Some((_, facts)) if taken => {
                        self.abandon().await;
                        return Ok(Written::Taken(TakenBy::new(&facts)));
                    }
                    Some(_) | None => {}
                }
            }
            let failure = match gone {
                // The parts are gone too: a second look at the target sends them again.
                true => CallFailure {
                    kind: FailureKind::Passing,
                    ..failure
                },
                false => failure,
            };
            turns
                .wait_after(failure)
                .await
                .map_err(failed("write", &self.bucket, &self.key))?;
        };
        self.upload = None;
        let (key, bytes, lines) = (self.key.clone(), self.bytes, self.lines);
        Ok(Written::Archived(ArchivedObject {
            key,
            version_id,
            sha256,
            bytes,
            lines,
        }))
    }

    async fn commit(
        &self,
        put: Option<Bytes>,
        sha256: &Sha256Digest,
        metadata: &[(&'static str, String)],
        condition: &Condition,
    ) -> Result<Option<String>, CallFailure> {
        match (put, &self.upload) {
            (Some(bytes), _) => {
                let (key, content_type) = (self.key.as_str(), CONTENT_TYPE);
                self.bucket
                    .put(
                        NewObject {
                            key,
                            content_type,
                            bytes,
                            sha256,
                            metadata,
                        },
                        condition,
                    )
                    .await
            }
            (None, Some((upload, parts))) => {
                match self
                    .bucket
                    .complete_upload(upload, parts.clone(), condition)
                    .await
                {
                    // S3 wants all parts again after this; the second pass over the targets sends them.
                    Err(failure) if failure.kind == FailureKind::Conflict => Err(CallFailure {
                        kind: FailureKind::Passing,
                        ..failure
                    }),
                    completed => completed,
                }
            }
            (None, None) => unreachable!("an object is either put or uploaded"),
        }
    }

    async fn look_at_what_is_there(&self) -> Result<Option<(String, StoredFacts)>, ArchiveError> {
        let mut digest = Sha256::new();
        let facts = self
            .bucket
            .read(&self.key, None, |chunk| digest.update(chunk))
            .await;
        let facts = facts.map_err(failed("read", &self.bucket, &self.key))?;
        Ok(facts.map(|facts| (hex(&digest.finalize()), facts)))
    }

    /// Gives up, leaving nothing behind where S3 lets it.
    pub async fn abandon(&mut self) {
        if let Some((upload, _)) = self.upload.take() {
            // What stays is removed by the bucket's rule for unfinished uploads.
            let _ = self.bucket.abort_upload(&upload).await;
        }
    }
}
