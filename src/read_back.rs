//! A target's object that another try of the same run has written, read back.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::archive::{ArchiveError, TakenBy, failed};
use crate::aws::{Bucket, CallFailure, FailureKind};
use crate::findings::{Finding, ListedFindings, Policy};
use crate::keys::hex;
use crate::snapshot::{ArchivedLine, ArchivedObject, Counts, TargetStatus};
use crate::target::Target;
use crate::timestamp::Timestamp;

/// What an object holds.
#[derive(Debug)]
pub(crate) struct ReadBack {
    pub(crate) status: TargetStatus,
    /// The pages that the other try read; `None` where the object doesn't tell.
    pub(crate) pages: Option<u64>,
    pub(crate) object: ArchivedObject,
    pub(crate) counts: Counts,
    pub(crate) findings: ListedFindings,
}

/// Reads a target's object back, holding one chunk of it.
///
/// # Errors
/// Fails as S3 does, and when the object doesn't hold a target's lines.
pub(crate) async fn read(
    bucket: &Bucket,
    key: &str,
    by: TakenBy,
    target: &Target,
    (policy, now): (Policy, Timestamp),
) -> Result<ReadBack, ArchiveError> {
    let taken = |problem: String| {
        failed("write", bucket, key)(CallFailure {
            code: "ObjectTaken".to_owned(),
            message: format!(
                "what lies there is no object of this auditor: {problem}; a bucket with versions keeps both"
            ),
            request_id: None,
            kind: FailureKind::Lasting,
        })
    };
    let lines = Lines {
        target,
        policy,
        now,
        rest: Vec::new(),
        count: 0,
        counts: Counts::default(),
        findings: ListedFindings::default(),
    };
    let mut decoder = MultiGzDecoder::new(lines);
    let (mut digest, mut bytes, mut outcome) = (Sha256::new(), 0, Ok(()));
    let read = bucket.read(key, |chunk| {
        digest.update(chunk);
        bytes += chunk.len() as u64;
        if outcome.is_ok() {
            outcome = decoder.write_all(chunk);
        }
    });
    let facts = read.await.map_err(failed("read", bucket, key))?;
    let facts = facts.ok_or_else(|| taken("they are gone again".to_owned()))?;
    let lines = outcome
        .and_then(|()| decoder.finish())
        .map_err(|error| taken(error.to_string()))?;
    if !lines.rest.is_empty() {
        return Err(taken("the last line isn't ended".to_owned()));
    }
    let object = ArchivedObject {
        key: key.to_owned(),
        version_id: facts.version_id,
        sha256: hex(&digest.finalize()),
        bytes,
        lines: lines.count,
    };
    Ok(ReadBack {
        // One that doesn't tell may be a part only.
        status: by.status.unwrap_or(TargetStatus::Incomplete),
        pages: by.pages,
        object,
        counts: lines.counts,
        findings: lines.findings,
    })
}

/// Counts the lines that are written to it.
struct Lines<'a> {
    target: &'a Target,
    policy: Policy,
    now: Timestamp,
    rest: Vec<u8>,
    count: u64,
    counts: Counts,
    findings: ListedFindings,
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let ArchivedLine {
                    report,
                    findings: kinds,
                } = serde_json::from_slice(&self.rest)?;
                self.rest.clear();
                self.count += 1;
                self.counts.add_report(report.state.as_ref(), &kinds);
                for kind in kinds {
                    self.findings.insert(Finding::new(
                        kind,
                        self.target,
                        &report,
                        self.policy,
                        self.now,
                    ));
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
