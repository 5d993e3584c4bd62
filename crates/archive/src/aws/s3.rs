//! A bucket, and the calls that an archive needs.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::FutureExt;

use super::client::{CALL_TIMEOUT, retry_partition};
use super::failure::{CallFailure, FailureKind};
use super::retry::RetryBrokenResponses;
use super::token_cycle::TokenCycle;
use super::write_headers::WriteHeaders;
use super::xml_guard::RejectBrokenXml;

/// A bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    name: String,
    write_headers: WriteHeaders,
}

/// An object that was read.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its bytes.
    pub bytes: Bytes,
    /// S3's facts about it.
    pub facts: StoredFacts,
}

/// S3's facts about an object.
#[derive(Clone, Debug)]
pub struct StoredFacts {
    /// Its entity tag, for a conditional write.
    pub etag: String,
    /// Its version; `None` in a bucket without versions.
    pub version_id: Option<String>,
}

/// An object to be written in one call.
#[derive(Clone, Debug)]
pub struct NewObject<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its media type.
    pub content_type: &'a str,
    /// Its bytes; shared, so another attempt costs no copy.
    pub bytes: Bytes,
    /// The SHA-256 of the bytes.
    pub sha256: &'a Sha256Digest,
}

/// The condition of a write.
#[derive(Clone, Debug)]
pub enum Condition {
    /// No object has the key.
    Absent,
    /// The object still has this entity tag.
    Unchanged(String),
    /// None: an existing object is replaced.
    Always,
}

impl Condition {
    fn if_none_match(&self) -> Option<String> {
        matches!(self, Self::Absent).then(|| "*".to_owned())
    }

    fn if_match(&self) -> Option<String> {
        match self {
            Self::Unchanged(etag) => Some(etag.clone()),
            Self::Absent | Self::Always => None,
        }
    }
}

/// A multipart upload in progress.
#[derive(Clone, Debug)]
pub struct Upload {
    key: String,
    upload_id: String,
}

/// A part that S3 has accepted.
#[derive(Clone, Debug)]
pub struct UploadedPart(CompletedPart);

/// Bounded retries for interrupted bodies, which the SDK does not retry.
#[derive(Default, Debug)]
struct ReadAttempts(u32);

impl ReadAttempts {
    const MOST: u32 = 4;

    /// Permits another attempt.
    ///
    /// # Errors
    /// Returns the failure if another attempt would not help, or if there were enough.
    fn again_after(&mut self, failure: CallFailure) -> Result<(), CallFailure> {
        self.0 += 1;
        if failure.kind != FailureKind::Transient || self.0 == Self::MOST {
            return Err(failure);
        }
        Ok(())
    }
}

/// The SHA-256 of some bytes.
pub type Sha256Digest = [u8; 32];

impl Bucket {
    /// Creates a client of the bucket of this name; it makes no call yet.
    pub fn new(config: &SdkConfig, name: &str) -> Self {
        // A custom endpoint (a local S3) rarely has a host name for each bucket.
        let own_endpoint =
            config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
        let config = aws_sdk_s3::config::Builder::from(config)
            .force_path_style(own_endpoint)
            .retry_partition(retry_partition(format!("s3/{name}")))
            .retry_classifier(RetryBrokenResponses)
            .build();
        Self {
            client: Client::from_conf(config),
            name: name.to_owned(),
            write_headers: WriteHeaders::default(),
        }
    }

    /// Sends headers with every write, for a bucket whose policy demands them.
    pub fn with_write_headers(self, write_headers: WriteHeaders) -> Self {
        Self {
            write_headers,
            ..self
        }
    }

    /// Returns the bucket's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn read(
        &self,
        key: &str,
        version_id: Option<&str>,
        mut each_chunk: impl FnMut(&[u8]),
    ) -> Result<Option<StoredFacts>, CallFailure> {
        let answer = self
            .client
            .get_object()
            .bucket(&self.name)
            .key(key)
            .set_version_id(version_id.map(str::to_owned))
            .send()
            .boxed()
            .await;
        let mut answer = match answer.map_err(CallFailure::from) {
            Ok(answer) => answer,
            Err(failure) if failure.kind == FailureKind::NotFound => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let read = async {
            while let Some(chunk) = answer.body.next().await {
                let broken =
                    |error| CallFailure::malformed(format!("the body was interrupted: {error}"));
                each_chunk(&chunk.map_err(broken)?);
            }
            Ok(())
        };
        let read = tokio::time::timeout(CALL_TIMEOUT, read).await;
        read.unwrap_or_else(|_| {
            Err(CallFailure::malformed(
                "reading the body took too long".to_owned(),
            ))
        })?;
        let etag = answer.e_tag.ok_or_else(|| {
            CallFailure::malformed("S3 returned no entity tag for the object".to_owned())
        })?;
        Ok(Some(StoredFacts {
            etag,
            version_id: version(answer.version_id),
        }))
    }

    /// Reads an object chunk by chunk, in the given version or the latest one, into a value that `start` makes
    /// anew for each attempt; `None` when there is no object.
    ///
    /// # Errors
    /// Fails as S3 does, after the SDK's retries, and if the body is interrupted each time.
    pub async fn fold<T>(
        &self,
        key: &str,
        version_id: Option<&str>,
        start: impl Fn() -> T,
        mut each_chunk: impl FnMut(&mut T, &[u8]),
    ) -> Result<Option<(T, StoredFacts)>, CallFailure> {
        let mut attempts = ReadAttempts::default();
        loop {
            let mut folded = start();
            let read = self.read(key, version_id, |chunk| each_chunk(&mut folded, chunk));
            match read.await {
                Ok(facts) => return Ok(facts.map(|facts| (folded, facts))),
                Err(failure) => attempts.again_after(failure)?,
            }
        }
    }

    /// Reads a small object whole; `None` when there is none.
    ///
    /// # Errors
    /// Fails as [`fold`](Self::fold) does.
    pub async fn get(&self, key: &str) -> Result<Option<Stored>, CallFailure> {
        let extend = |bytes: &mut Vec<u8>, chunk: &[u8]| bytes.extend_from_slice(chunk);
        let read = self.fold(key, None, Vec::new, extend).await?;
        Ok(read.map(|(bytes, facts)| Stored {
            bytes: bytes.into(),
            facts,
        }))
    }

    /// Returns whether there is an object, without reading it.
    ///
    /// # Errors
    /// Fails as S3 does, after the SDK's retries.
    pub async fn exists(&self, key: &str) -> Result<bool, CallFailure> {
        let request = self.client.head_object().bucket(&self.name).key(key);
        match request.send().boxed().await.map_err(CallFailure::from) {
            Ok(_) => Ok(true),
            Err(failure) if failure.kind == FailureKind::NotFound => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Lists every key that starts with the prefix, with the object's size in bytes.
    ///
    /// # Errors
    /// Fails as S3 does, after the SDK's retries, and if the listing never ends.
    pub async fn list(&self, prefix: &str) -> Result<BTreeMap<String, u64>, CallFailure> {
        let mut listed = BTreeMap::new();
        let mut cycle = TokenCycle::default();
        let mut token: Option<String> = None;
        loop {
            let answer = self
                .client
                .list_objects_v2()
                .bucket(&self.name)
                .prefix(prefix)
                .set_continuation_token(token.clone())
                .customize()
                .interceptor(RejectBrokenXml)
                .send()
                .boxed()
                .await?;
            for object in answer.contents.unwrap_or_default() {
                let bytes = object.size.and_then(|size| u64::try_from(size).ok());
                let (Some(key), Some(bytes)) = (object.key, bytes) else {
                    return Err(CallFailure::malformed(
                        "S3 listed an object without key or size".to_owned(),
                    ));
                };
                if !key.starts_with(prefix) {
                    return Err(CallFailure::malformed(format!(
                        "S3 listed {key}, which is not below {prefix}"
                    )));
                }
                listed.insert(key, bytes);
            }
            let next = match (answer.is_truncated, answer.next_continuation_token) {
                (Some(true), None) => {
                    return Err(CallFailure::malformed(
                        "S3 truncated a listing without a token for the next page".to_owned(),
                    ));
                }
                (Some(true), Some(next)) => next,
                (Some(false) | None, _) => return Ok(listed),
            };
            cycle.check("S3", token.as_deref(), &next)?;
            token = Some(next);
        }
    }

    /// Writes an object in one call, and returns its version. S3 checks the digest.
    ///
    /// # Errors
    /// Fails as S3 does, after the SDK's retries.
    pub async fn put(
        &self,
        object: NewObject<'_>,
        condition: &Condition,
    ) -> Result<Option<String>, CallFailure> {
        let answer = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(object.key)
            .content_type(object.content_type)
            // Named too: a bucket with Object Lock refuses writes without it.
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(BASE64.encode(object.sha256))
            .set_server_side_encryption(self.write_headers.sse())
            .set_ssekms_key_id(self.write_headers.kms_key())
            .set_acl(self.write_headers.canned_acl())
            .set_if_none_match(condition.if_none_match())
            .set_if_match(condition.if_match())
            .body(ByteStream::from(object.bytes))
            .send()
            .boxed()
            .await?;
        Ok(version(answer.version_id))
    }

    /// Starts a multipart upload.
    ///
    /// # Errors
    /// Fails as S3 does, after the SDK's retries.
    pub async fn start_upload(&self, key: &str, content_type: &str) -> Result<Upload, CallFailure> {
        let answer = self
            .client
            .create_multipart_upload()
            .bucket(&self.name)
            .key(key)
            .content_type(content_type)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .set_server_side_encryption(self.write_headers.sse())
            .set_ssekms_key_id(self.write_headers.kms_key())
            .set_acl(self.write_headers.canned_acl())
            .send()
            .boxed()
            .await?;
        let upload_id = answer
            .upload_id
            .ok_or_else(|| CallFailure::malformed("S3 returned no ID for the upload".to_owned()))?;
        Ok(Upload {
            key: key.to_owned(),
            upload_id,
        })
    }

    /// Uploads one part, counted from 1. S3 checks the digest.
    ///
    /// # Errors
    /// Fails as S3 does, after the SDK's retries.
    pub async fn upload_part(
        &self,
        upload: &Upload,
        number: i32,
        bytes: Bytes,
        sha256: &Sha256Digest,
    ) -> Result<UploadedPart, CallFailure> {
        let digest = BASE64.encode(sha256);
        let answer = self
            .client
            .upload_part()
            .bucket(&self.name)
            .key(&upload.key)
            .upload_id(&upload.upload_id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(&digest)
            .body(ByteStream::from(bytes))
            .send()
            .boxed()
            .await?;
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag)
            .checksum_sha256(digest)
            .build();
        Ok(UploadedPart(part))
    }

    /// Completes an upload, and returns the version of the object.
    ///
    /// # Errors
    /// Fails as S3 does, after the SDK's retries.
    pub async fn complete_upload(
        &self,
        upload: &Upload,
        parts: Vec<UploadedPart>,
    ) -> Result<Option<String>, CallFailure> {
        let parts = parts.into_iter().map(|UploadedPart(part)| part).collect();
        let answer = self
            .client
            .complete_multipart_upload()
            .bucket(&self.name)
            .key(&upload.key)
            .upload_id(&upload.upload_id)
            .multipart_upload(
                CompletedMultipartUpload::builder()
                    .set_parts(Some(parts))
                    .build(),
            )
            .send()
            .boxed()
            .await?;
        Ok(version(answer.version_id))
    }

    /// Aborts an upload so that its parts are no longer billed.
    ///
    /// # Errors
    /// Fails as S3 does, after the SDK's retries.
    pub async fn abort_upload(&self, upload: &Upload) -> Result<(), CallFailure> {
        let request = self
            .client
            .abort_multipart_upload()
            .bucket(&self.name)
            .key(&upload.key);
        request.upload_id(&upload.upload_id).send().boxed().await?;
        Ok(())
    }
}

/// Returns the ID that identifies a version for good: objects written while versioning is suspended all have
/// the ID `null`, and replace each other.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/AddingObjectstoVersionSuspendedBuckets.html>
fn version(id: Option<String>) -> Option<String> {
    id.filter(|id| id != "null")
}
