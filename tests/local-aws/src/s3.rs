//! S3: the crates `s3s` (protocol) and `s3s-fs` (storage) over a folder.
//!
//! This module corrects only what the auditor would notice: missing buckets, missing uploads,
//! conditional writes that race, aws-chunked bodies (which `s3s` reads only together with a
//! verified signature), and names of side files that are too long.

use crate::answer::{Answer, Reply};
use crate::api_error::ApiError;
use crate::caller::Caller;
use crate::faults::{FaultKind, Faults, Service, Subject};
use crate::query::{Query, decode};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use http_body_util::BodyExt;
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::RwLock;

/// The key that `s3s-fs` sees for an unfinished upload.
///
/// It names the side file after the key and the upload's ID, in base64. With a key of the archive
/// the name would exceed the 255 bytes that a file name may have.
const KEY_OF_UPLOADS: &str = "u";

/// The S3 service of a local AWS.
pub(crate) struct Store {
    service: S3Service,
    /// `s3s-fs` checks a condition and writes in two steps; no other write may come between them.
    writing: RwLock<()>,
}

/// The operation, bucket and key of a request, from its method, URI and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requested {
    pub(crate) operation: &'static str,
    pub(crate) bucket: Option<String>,
    pub(crate) key: Option<String>,
}

impl Requested {
    pub(crate) fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let path = percent_decode(uri.path().trim_start_matches('/'));
        let (bucket, key) = match path.split_once('/') {
            Some((bucket, key)) => (bucket, key),
            None => (path.as_str(), ""),
        };
        let operation = operation_of(
            (method.as_str(), bucket.is_empty(), key.is_empty()),
            uri.query().unwrap_or_default(),
            headers.contains_key("x-amz-copy-source"),
        );
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Self {
            operation,
            bucket: named(bucket),
            key: named(key),
        }
    }
}

/// Returns the operation of a request: its method, and whether it lacks a bucket and a key.
fn operation_of(request: (&str, bool, bool), query: &str, is_copy: bool) -> &'static str {
    let has = |name: &str| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some(name))
    };
    match request {
        ("GET", true, _) => "ListBuckets",
        ("PUT", false, true) => "CreateBucket",
        ("HEAD", false, true) => "HeadBucket",
        ("DELETE", false, true) => "DeleteBucket",
        ("POST", false, true) if has("delete") => "DeleteObjects",
        ("GET", false, true) if has("list-type") => "ListObjectsV2",
        ("GET", false, true) if has("location") => "GetBucketLocation",
        ("GET", false, true) if has("versioning") => "GetBucketVersioning",
        ("GET", false, true) if has("uploads") => "ListMultipartUploads",
        ("GET", false, true) => "ListObjects",
        ("PUT", false, false) if has("partNumber") && is_copy => "UploadPartCopy",
        ("PUT", false, false) if has("partNumber") => "UploadPart",
        ("PUT", false, false) if is_copy => "CopyObject",
        ("PUT", false, false) => "PutObject",
        ("GET", false, false) if has("uploadId") => "ListParts",
        ("GET", false, false) if has("attributes") => "GetObjectAttributes",
        ("GET", false, false) => "GetObject",
        ("HEAD", false, false) => "HeadObject",
        ("POST", false, false) if has("uploads") => "CreateMultipartUpload",
        ("POST", false, false) if has("uploadId") => "CompleteMultipartUpload",
        ("DELETE", false, false) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", false, false) => "DeleteObject",
        _ => "Unknown",
    }
}

/// Decodes a path, in which a plus sign is literal.
fn percent_decode(path: &str) -> String {
    decode(path.replace('+', "%2B").as_bytes())
}

/// One request to S3, and what is needed to answer it.
pub(crate) struct S3Call<'a> {
    pub(crate) store: &'a Arc<Store>,
    pub(crate) faults: &'a Faults,
    pub(crate) caller: &'a Caller,
    pub(crate) requested: &'a Requested,
    pub(crate) request_id: &'a str,
}

impl S3Call<'_> {
    pub(crate) async fn reply(
        &self,
        parts: Parts,
        body: Bytes,
    ) -> Result<Reply, Box<dyn Error + Send + Sync>> {
        let operation = self.requested.operation;
        let has_expired = self.caller.has_expired;
        let ruling = self.faults.rule_on(Subject {
            service: Service::S3,
            operation,
            account: &self.caller.account,
            region: &self.caller.region,
            key: self.requested.key.as_deref(),
            report_ids: &[],
            image_ids: &[],
            has: &|name| parts.headers.contains_key(name),
            page: None,
        });
        let fault = match &ruling.kind {
            _ if has_expired => Some(ApiError::expired_credentials(Service::S3)),
            Some(kind) => ApiError::of_fault(kind, Service::S3, operation, &self.caller.arn),
            None => None,
        };
        let is_lost = ruling.kind == Some(FaultKind::CloseBeforeAnswer);
        let takes_effect = (fault.is_none() && !is_lost) || (ruling.after_effect && !has_expired);
        let mut answer = None;
        if takes_effect {
            // A request that has arrived takes effect, even if its client is gone by now.
            let (store, request_id) = (Arc::clone(self.store), self.request_id.to_owned());
            let effect = tokio::spawn(async move { store.answer(parts, body, &request_id).await });
            answer = Some(effect.await??);
        }
        let answer = match (fault, answer) {
            (Some(error), _) => error.answer(Service::S3, self.request_id),
            (None, Some(answer)) => answer,
            // Never sent.
            (None, None) => Answer::xml(StatusCode::OK, self.request_id, String::new()),
        };
        Ok(Reply::ruled(answer, ruling, None))
    }
}

/// Returns the parameters of a request: its query and a few of its headers.
pub(crate) fn parameters(parts: &Parts) -> BTreeMap<String, String> {
    let query = Query::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let mut parameters = query.parameters().clone();
    for name in [
        "content-encoding",
        "content-length",
        "content-type",
        "if-match",
        "if-none-match",
        "range",
    ] {
        if let Some(value) = parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
        {
            parameters.insert(name.to_owned(), value.to_owned());
        }
    }
    parameters
}

impl Store {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let files =
            FileSystem::new(root).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let folder = Folder {
            root: root.to_owned(),
            files,
        };
        Ok(Self {
            service: S3ServiceBuilder::new(folder).build(),
            writing: RwLock::new(()),
        })
    }

    async fn answer(
        &self,
        mut parts: Parts,
        mut body: Bytes,
        request_id: &str,
    ) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        // Without this header `s3s` does not verify the signature.
        parts.headers.remove(AUTHORIZATION);
        if is_aws_chunked(&parts.headers) {
            body = match decode_aws_chunked(&mut parts.headers, &body) {
                Some(body) => body,
                None => {
                    let message = "The aws-chunked body is not well formed.";
                    let error = ApiError::new(400, "IncompleteBody", message);
                    return Ok(error.answer(Service::S3, request_id));
                }
            };
        }
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        let request = http::Request::from_parts(parts, s3s::Body::from(body));
        let (reading, writing) = match is_read {
            true => (Some(self.writing.read().await), None),
            false => (None, Some(self.writing.write().await)),
        };
        let (parts, body) = self.service.call(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        drop((reading, writing));
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }
}

fn is_aws_chunked(headers: &HeaderMap) -> bool {
    let starts = |name: &str, prefix: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with(prefix))
    };
    starts("x-amz-content-sha256", "STREAMING-") || starts("content-encoding", "aws-chunked")
}

/// Decodes an aws-chunked body; the checksums of its trailer become headers.
fn decode_aws_chunked(headers: &mut HeaderMap, body: &Bytes) -> Option<Bytes> {
    let mut decoded = BytesMut::with_capacity(body.len());
    let mut at = 0;
    let line_at = |at: usize| {
        let rest = body.get(at..)?;
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        Some((std::str::from_utf8(rest.get(..end)?).ok()?, at + end + 2))
    };
    loop {
        let (line, next) = line_at(at)?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        decoded.extend_from_slice(body.get(at..at.checked_add(size)?)?);
        at += size;
        if body.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    while let Some((line, next)) = line_at(at) {
        at = next;
        if let Some((name, value)) = line.split_once(':')
            && name.trim().starts_with("x-amz-checksum-")
        {
            headers.insert(
                HeaderName::try_from(name.trim()).ok()?,
                HeaderValue::try_from(value.trim()).ok()?,
            );
        }
    }
    remove_chunking(headers)?;
    headers.insert(CONTENT_LENGTH, HeaderValue::from(decoded.len()));
    Some(decoded.freeze())
}

/// Removes the headers that describe the chunks.
fn remove_chunking(headers: &mut HeaderMap) -> Option<()> {
    let encodings = headers
        .get(CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kept: Vec<&str> = encodings
        .split(',')
        .map(str::trim)
        .filter(|encoding| !encoding.is_empty() && *encoding != "aws-chunked")
        .collect();
    let kept = kept.join(",");
    headers.remove(CONTENT_ENCODING);
    if !kept.is_empty() {
        headers.insert(CONTENT_ENCODING, HeaderValue::try_from(kept).ok()?);
    }
    for name in [
        "x-amz-content-sha256",
        "x-amz-decoded-content-length",
        "x-amz-trailer",
        "transfer-encoding",
    ] {
        headers.remove(name);
    }
    Some(())
}

/// A folder whose subfolders are the buckets.
struct Folder {
    root: PathBuf,
    files: FileSystem,
}

impl Folder {
    fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        if self.root.join(bucket).is_dir() {
            Ok(())
        } else {
            Err(s3_error!(
                NoSuchBucket,
                "The specified bucket does not exist"
            ))
        }
    }

    /// Fails if a key is only a prefix of others: a folder, which `s3s-fs` would open.
    fn check_object(&self, bucket: &str, key: &str) -> S3Result<()> {
        self.check_bucket(bucket)?;
        if self.root.join(bucket).join(key).is_dir() {
            return Err(s3_error!(NoSuchKey, "The specified key does not exist."));
        }
        Ok(())
    }

    fn check_upload(&self, upload_id: &str) -> S3Result<()> {
        let is_plain = upload_id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if is_plain
            && self
                .root
                .join(format!(".upload-{upload_id}.json"))
                .is_file()
        {
            Ok(())
        } else {
            Err(s3_error!(
                NoSuchUpload,
                "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
            ))
        }
    }

    /// Returns the path of a side file that `s3s-fs` stores beside the buckets.
    fn side_file(&self, bucket: &str, key: &str, rest: &str) -> PathBuf {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        self.root.join(format!(
            ".bucket-{}.object-{}.{rest}.json",
            encode(bucket),
            encode(key)
        ))
    }
}

#[async_trait]
impl S3 for Folder {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        self.files.create_bucket(req).await
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.files.delete_bucket(req).await
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.head_bucket(req).await
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.files.get_bucket_location(req).await
    }

    async fn list_buckets(
        &self,
        req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        self.files.list_buckets(req).await
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        self.files.list_objects(req).await
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.files.list_objects_v2(req).await
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.check_object(&req.input.bucket, &req.input.key)?;
        self.files.get_object(req).await
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.check_object(&req.input.bucket, &req.input.key)?;
        self.files.head_object(req).await
    }

    async fn put_object(
        &self,
        req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        self.check_bucket(&req.input.bucket)?;
        self.files.put_object(req).await
    }

    async fn copy_object(
        &self,
        req: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        self.check_bucket(&req.input.bucket)?;
        self.files.copy_object(req).await
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.check_bucket(&req.input.bucket)?;
        self.files.delete_object(req).await
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.check_bucket(&req.input.bucket)?;
        self.files.delete_objects(req).await
    }

    async fn create_multipart_upload(
        &self,
        mut req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.check_bucket(&req.input.bucket)?;
        let key = std::mem::replace(&mut req.input.key, KEY_OF_UPLOADS.to_owned());
        let mut response = self.files.create_multipart_upload(req).await?;
        response.output.key = Some(key);
        Ok(response)
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        self.check_upload(&req.input.upload_id)?;
        self.files.upload_part(req).await
    }

    async fn list_parts(
        &self,
        req: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        self.check_upload(&req.input.upload_id)?;
        self.files.list_parts(req).await
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = &req.input;
        self.check_upload(&input.upload_id)?;
        let of_upload = self.side_file(
            &input.bucket,
            KEY_OF_UPLOADS,
            &format!("upload-{}.metadata", input.upload_id),
        );
        let of_object = self.side_file(&input.bucket, &input.key, "metadata");
        let object = self.root.join(&input.bucket).join(&input.key);
        if input.if_match.is_none() && (input.if_none_match.is_none() || !object.exists()) {
            // `s3s-fs` would keep the checksums of the object that is replaced.
            let stale = self.side_file(&input.bucket, &input.key, "internal");
            drop(std::fs::remove_file(stale));
        }
        let response = self.files.complete_multipart_upload(req).await?;
        if of_upload.is_file() {
            std::fs::rename(of_upload, of_object)
                .map_err(|error| s3_error!(error, InternalError))?;
        }
        Ok(response)
    }

    async fn abort_multipart_upload(
        &self,
        mut req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.check_upload(&req.input.upload_id)?;
        req.input.key = KEY_OF_UPLOADS.to_owned();
        self.files.abort_multipart_upload(req).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aws_chunked_body_is_decoded_with_its_checksum() {
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_ENCODING,
            HeaderValue::from_static("aws-chunked,gzip"),
        );
        headers.insert(
            "x-amz-trailer",
            HeaderValue::from_static("x-amz-checksum-crc32"),
        );
        let body = Bytes::from_static(
            b"5;chunk-signature=ab\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n",
        );
        assert!(is_aws_chunked(&headers));
        let decoded = decode_aws_chunked(&mut headers, &body).unwrap();
        assert_eq!(&decoded[..], b"hello world");
        assert_eq!(headers["x-amz-checksum-crc32"], "DUoRhQ==");
        assert_eq!(headers[CONTENT_ENCODING], "gzip");
        assert_eq!(headers[CONTENT_LENGTH], "11");
    }

    #[test]
    fn a_chunk_that_is_too_short_is_refused() {
        let body = Bytes::from_static(b"ff\r\nhello\r\n0\r\n\r\n");
        assert_eq!(decode_aws_chunked(&mut HeaderMap::new(), &body), None);
    }

    #[test]
    fn operations_are_recognised_by_method_and_uri() {
        for (method, address, operation, key) in [
            (
                "PUT",
                "/b/a/k%3D1.json?x-id=PutObject",
                "PutObject",
                Some("a/k=1.json"),
            ),
            (
                "PUT",
                "/b/k?partNumber=1&uploadId=u",
                "UploadPart",
                Some("k"),
            ),
            ("POST", "/b/k?uploads", "CreateMultipartUpload", Some("k")),
            (
                "POST",
                "/b/k?uploadId=u",
                "CompleteMultipartUpload",
                Some("k"),
            ),
            (
                "DELETE",
                "/b/k?uploadId=u",
                "AbortMultipartUpload",
                Some("k"),
            ),
            ("HEAD", "/b/k", "HeadObject", Some("k")),
            ("GET", "/b?list-type=2&prefix=a", "ListObjectsV2", None),
            ("GET", "/b/", "ListObjects", None),
        ] {
            let requested = Requested::of(
                &method.parse().unwrap(),
                &address.parse().unwrap(),
                &HeaderMap::new(),
            );
            assert_eq!(
                (requested.operation, requested.key.as_deref()),
                (operation, key)
            );
            assert_eq!(requested.bucket.as_deref(), Some("b"));
        }
    }
}
