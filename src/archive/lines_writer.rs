//! The objects that hold a target's lines: lines to gzip to S3.

use std::io::{self, BufWriter, IntoInnerError, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use image_usage_archive::aws::{
    Bucket, CallFailure, Condition, FailureKind, NewObject, Sha256Digest, Upload, UploadedPart,
};
use image_usage_archive::documents::ArchivedObject;
use image_usage_archive::domain::digest::hex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::ConflictRetries;

/// A part is uploaded from this size on: the smallest that S3 accepts, so that as little as possible is held.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const PART_BYTES: usize = 5 * 1024 * 1024;

/// What may be added to a full part before it is sent: 1,000 reports with a few tags each compress to less
/// than 200 KiB. More is held all the same.
const PART_SLACK_BYTES: usize = 512 * 1024;

const CONTENT_TYPE: &str = "application/gzip";

/// An object that could not be written to the archive, or read from it.
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

impl ArchiveError {
    /// The failure, with what was attempted in its message.
    pub(crate) fn into_failure(self) -> CallFailure {
        let message = format!("{self}: {}", self.failure.message);
        CallFailure {
            message,
            ..*self.failure
        }
    }
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

/// Appends a document as a line of JSON.
///
/// # Errors
/// Fails as a serializer does.
pub(crate) fn write_line(lines: &mut Vec<u8>, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *lines, document)?;
    lines.push(b'\n');
    Ok(())
}

/// Writes a target's reports or entries, holding no more than one part of them.
///
/// A small object takes one call; a large one becomes a multipart upload on the way. The key is the attempt's
/// own, so nothing else is ever stored there, and writing the same bytes twice is harmless.
#[derive(Debug)]
pub(crate) struct LinesWriter {
    bucket: Bucket,
    key: String,
    /// `None` while there is nothing to compress: it takes a quarter of a megabyte.
    gzip: Option<Gzip>,
    digest: Sha256,
    bytes: u64,
    lines: u64,
    upload: Option<(Upload, Vec<UploadedPart>)>,
}

/// Compresses many lines at a time: each call of the compressor costs as much as a short line.
type Gzip = BufWriter<GzEncoder<Vec<u8>>>;

const LINES_BYTES: usize = 32 * 1024;

/// The header contains no time, so that the same lines give the same bytes.
fn new_gzip() -> Gzip {
    let gzip = GzEncoder::new(Vec::new(), Compression::default());
    BufWriter::with_capacity(LINES_BYTES, gzip)
}

impl LinesWriter {
    /// Starts an object; nothing is sent yet.
    pub(crate) fn new(bucket: Bucket, key: String) -> Self {
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

    /// The key of the object.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The bytes that are held in memory and have yet to be sent.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.gzip
            .as_ref()
            .map_or(0, |gzip| gzip.get_ref().get_ref().len())
    }

    fn gzip(&mut self) -> &mut Gzip {
        self.gzip.get_or_insert_with(new_gzip)
    }

    /// Claims the memory of a whole part at once, for an object that will be large.
    ///
    /// A vector that grows by doubling leaves holes of its earlier sizes behind, and claims its last pages
    /// when there may be no memory left for them. Filled once, the peak is known from here on.
    pub(crate) fn claim_part(&mut self) {
        let buffer = self.gzip().get_mut().get_mut();
        let (filled, whole) = (buffer.len(), PART_BYTES + PART_SLACK_BYTES);
        if buffer.capacity() < whole {
            // Optimised for size, `resize` would write byte by byte.
            const PAGE: [u8; 4096] = [0; 4096];
            buffer.reserve_exact(whole - filled);
            while buffer.len() < whole {
                buffer.extend_from_slice(&PAGE[..PAGE.len().min(whole - buffer.len())]);
            }
            buffer.truncate(filled);
        }
    }

    /// The lines so far.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Adds a line, with its newline, in memory only.
    pub(crate) fn push(&mut self, line: &[u8]) {
        // Writing to a vector cannot fail.
        let written = self.gzip().write_all(line);
        debug_assert!(written.is_ok(), "{written:?}");
        self.lines += 1;
    }

    /// Whether what is held has grown to a part's size.
    pub(crate) fn has_full_part(&self) -> bool {
        self.unsent_bytes() >= PART_BYTES
    }

    /// A failure to write the object.
    pub(crate) fn failed(&self, failure: CallFailure) -> ArchiveError {
        failed("write", &self.bucket, &self.key)(failure)
    }

    /// Uploads what is held, once it [is a full part](Self::has_full_part).
    ///
    /// # Errors
    /// Fails as S3 does; the object cannot be finished then.
    pub(crate) async fn send_full_part(&mut self) -> Result<(), ArchiveError> {
        let part = Bytes::from(std::mem::take(self.gzip().get_mut().get_mut()));
        self.send_part(part.clone()).await?;
        // No one else holds it any more, so this takes its memory back without a copy.
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

    /// Completes the object and returns its description.
    ///
    /// # Errors
    /// Fails as S3 does; an upload under way has been aborted then.
    pub(crate) async fn finish(mut self) -> Result<ArchivedObject, ArchiveError> {
        let finished = self.send_rest().await;
        if finished.is_err() {
            self.abandon().await;
        }
        finished
    }

    async fn send_rest(&mut self) -> Result<ArchivedObject, ArchiveError> {
        let rest = self.finish_gzip();
        let (version_id, digest) = match &self.upload {
            None => self.put(rest).await?,
            Some(_) => {
                self.send_part(rest).await?;
                self.complete().await?
            }
        };
        self.upload = None;
        Ok(ArchivedObject {
            key: self.key.clone(),
            version_id,
            sha256: hex(&digest),
            bytes: self.bytes,
            lines: self.lines,
        })
    }

    fn finish_gzip(&mut self) -> Bytes {
        let gzip = self.gzip.take().unwrap_or_else(new_gzip).into_inner();
        let rest = gzip.map_err(IntoInnerError::into_error);
        // Writing to a vector cannot fail.
        let rest = rest.and_then(GzEncoder::finish);
        debug_assert!(rest.is_ok(), "{rest:?}");
        rest.unwrap_or_default().into()
    }

    async fn put(&mut self, bytes: Bytes) -> Result<(Option<String>, Sha256Digest), ArchiveError> {
        self.digest.update(&bytes);
        self.bytes += bytes.len() as u64;
        let sha256 = self.digest.clone().finalize().into();
        let object = NewObject {
            key: &self.key,
            content_type: CONTENT_TYPE,
            bytes,
            sha256: &sha256,
        };
        let mut retries = ConflictRetries::default();
        loop {
            match self.bucket.put(object.clone(), &Condition::Always).await {
                Ok(version_id) => return Ok((version_id, sha256)),
                Err(failure) => {
                    let waited = retries.wait_after(failure).await;
                    waited.map_err(|failure| self.failed(failure))?;
                }
            }
        }
    }

    async fn complete(&mut self) -> Result<(Option<String>, Sha256Digest), ArchiveError> {
        let Some((upload, parts)) = &self.upload else {
            unreachable!("a part has been sent");
        };
        let sha256: Sha256Digest = self.digest.clone().finalize().into();
        let completed = self.bucket.complete_upload(upload, parts.clone()).await;
        match completed {
            Ok(version_id) => Ok((version_id, sha256)),
            // The upload was completed by a call whose response was lost, or aborted by someone else.
            Err(failure) if failure.kind == FailureKind::NotFound => {
                match self.stored_version(&sha256).await? {
                    Some(version_id) => Ok((version_id, sha256)),
                    // The parts are gone too: a second attempt at the target sends them again.
                    None => Err(self.failed(CallFailure {
                        kind: FailureKind::Transient,
                        ..failure
                    })),
                }
            }
            Err(failure) => Err(self.failed(failure)),
        }
    }

    /// The version of the stored object, if it has this digest.
    async fn stored_version(
        &self,
        sha256: &Sha256Digest,
    ) -> Result<Option<Option<String>>, ArchiveError> {
        let update = |digest: &mut Sha256, chunk: &[u8]| digest.update(chunk);
        let read = self.bucket.fold(&self.key, None, Sha256::new, update);
        let stored = read
            .await
            .map_err(failed("read", &self.bucket, &self.key))?;
        let is_same = |digest: Sha256| <Sha256Digest>::from(digest.finalize()) == *sha256;
        Ok(stored.and_then(|(digest, facts)| is_same(digest).then_some(facts.version_id)))
    }

    /// Aborts the upload, if there is one, so that its parts are no longer billed.
    pub(crate) async fn abandon(&mut self) {
        if let Some((upload, _)) = self.upload.take() {
            // If this fails, the bucket's lifecycle rule removes the incomplete upload.
            let _ = self.bucket.abort_upload(&upload).await;
        }
    }
}
