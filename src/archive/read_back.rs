//! A target's objects that another try of the same run has written, read back.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::archive::lines_writer::{ArchiveError, TakenBy, failed};
use crate::staging::Listing;
use image_usage_archive::aws::{Bucket, CallFailure, FailureKind};
use image_usage_archive::documents::snapshot::{
    ArchivedLine, ArchivedObject, EntriesStatus, EntryLine, TargetStatus,
};
use image_usage_archive::domain::report_key;
use image_usage_archive::domain::target::Target;
use image_usage_archive::layout::{RunId, hex};

/// What an object of reports holds.
#[derive(Debug)]
pub(crate) struct ReadBack {
    pub(crate) status: TargetStatus,
    /// The pages that the other try read; `None` where the object doesn't tell.
    pub(crate) pages: Option<u64>,
    pub(crate) object: ArchivedObject,
    /// Its reports, as if EC2 listed them now.
    pub(crate) listing: Listing,
}

/// Reads a target's reports back, holding one chunk of them.
///
/// # Errors
/// Fails as S3 does, and when the object doesn't hold a target's lines.
pub(crate) async fn reports(
    bucket: &Bucket,
    key: &str,
    by: TakenBy,
    target: &Target,
) -> Result<ReadBack, ArchiveError> {
    let mut listing = Listing::new();
    let object = each_line(bucket, key, |line| {
        let ArchivedLine {
            report,
            findings,
            entries,
        } = serde_json::from_slice(line)?;
        let Some(report_id) = &report.report_id else {
            return listing.note_unnamed(target, &report, findings);
        };
        listing.note(target, report_id, &report, findings)?;
        match entries {
            EntriesStatus::NotAvailable | EntriesStatus::Pending { code: None } => Ok(()),
            settled => listing
                .notes()
                .settle_entries(&report_key::key(report_id), &settled),
        }
    });
    let object = object.await?;
    Ok(ReadBack {
        // One that doesn't tell may be a part only.
        status: by.status.unwrap_or(TargetStatus::Incomplete),
        pages: by.pages,
        object,
        listing,
    })
}

/// Reads an object back to tell what it is.
///
/// # Errors
/// Fails as S3 does, and when the object holds no lines.
pub(crate) async fn object(bucket: &Bucket, key: &str) -> Result<ArchivedObject, ArchiveError> {
    each_line(bucket, key, |_| Ok(())).await
}

/// Reads the entries of a target back, and notes in the listing which reports they are of.
///
/// # Errors
/// Fails as S3 does, and when the object doesn't hold a target's entries.
pub(crate) async fn entries(
    bucket: &Bucket,
    key: &str,
    target: &Target,
    run_id: &RunId,
    listing: &mut Listing,
) -> Result<ArchivedObject, ArchiveError> {
    let mut group: Option<(String, u64)> = None;
    let mut note = |group: Option<(String, u64)>| match group {
        None => Ok(()),
        Some((report_id, count)) => {
            let archived = EntriesStatus::Archived {
                key: key.to_owned(),
                run_id: run_id.clone(),
                count,
            };
            listing
                .notes()
                .settle_unless_archived(&report_key::key(&report_id), &archived)
        }
    };
    let object = each_line(bucket, key, |line| {
        let line: EntryLine = serde_json::from_slice(line)?;
        if (&line.account_id, &line.region) != (&target.account_id, &target.region) {
            return Err(io::Error::other("an entry is of another target"));
        }
        let count = u64::from(!line.is_no_usage_observed());
        match &mut group {
            Some((report_id, entries)) if *report_id == line.report_id => *entries += count,
            _ => note(group.replace((line.report_id, count)))?,
        }
        Ok(())
    })
    .await?;
    note(group).map_err(|error| taken(bucket, key, &error.to_string()))?;
    Ok(object)
}

fn taken(bucket: &Bucket, key: &str, problem: &str) -> ArchiveError {
    failed("write", bucket, key)(CallFailure {
        code: "ObjectTaken".to_owned(),
        message: format!(
            "what lies there is no object of this auditor: {problem}; a bucket with versions keeps both"
        ),
        request_id: None,
        kind: FailureKind::Lasting,
    })
}

async fn each_line(
    bucket: &Bucket,
    key: &str,
    each: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<ArchivedObject, ArchiveError> {
    let taken = |problem: &str| taken(bucket, key, problem);
    let lines = Lines {
        each,
        rest: Vec::new(),
        count: 0,
    };
    let mut decoder = MultiGzDecoder::new(lines);
    let (mut digest, mut bytes, mut outcome) = (Sha256::new(), 0, Ok(()));
    let read = bucket.read(key, None, |chunk| {
        digest.update(chunk);
        bytes += chunk.len() as u64;
        if outcome.is_ok() {
            outcome = decoder.write_all(chunk);
        }
    });
    let facts = read.await.map_err(failed("read", bucket, key))?;
    let facts = facts.ok_or_else(|| taken("it is gone again"))?;
    let lines = outcome
        .and_then(|()| decoder.finish())
        .map_err(|error| taken(&error.to_string()))?;
    if !lines.rest.is_empty() {
        return Err(taken("the last line isn't ended"));
    }
    Ok(ArchivedObject {
        key: key.to_owned(),
        version_id: facts.version_id,
        sha256: hex(&digest.finalize()),
        bytes,
        lines: lines.count,
    })
}

/// Gives each line that is written to it to a function.
struct Lines<F> {
    each: F,
    rest: Vec<u8>,
    count: u64,
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Write for Lines<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                (self.each)(&self.rest)?;
                self.rest.clear();
                self.count += 1;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
