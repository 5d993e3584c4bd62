//! The pages of runs.

use bytes::Bytes;
use image_usage_archive::aws::{Bucket, Condition, NewObject};
use image_usage_archive::page::PAGE_CONTENT_TYPE;
use sha2::{Digest, Sha256};

use super::lines_writer::{ArchiveError, failed};

/// Writes a page. It replaces what is there: only the attempt that has committed the run writes its page.
///
/// # Errors
/// Fails as S3 does.
pub(crate) async fn write(bucket: &Bucket, key: &str, html: Bytes) -> Result<(), ArchiveError> {
    let sha256 = Sha256::digest(&html).into();
    let new = NewObject {
        key,
        content_type: PAGE_CONTENT_TYPE,
        bytes: html,
        sha256: &sha256,
    };
    let written = bucket.put(new, &Condition::Always).await;
    written.map_err(failed("write", bucket, key))?;
    Ok(())
}
