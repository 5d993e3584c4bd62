//! What earlier runs said: the last unscoped snapshot, and the reports' lines that it names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Seek, Write};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tempfile::SpooledTempFile;

use crate::archive::lines_writer::{ArchiveError, failed};
use crate::archive::snapshots::LatestSnapshot;
use crate::staging::SPOOL_BYTES_IN_MEMORY;
use image_usage_archive::aws::{Bucket, CallFailure, FailureKind, ReadAttempts};
use image_usage_archive::documents::snapshot::{
    ArchivedObject, Baseline, EntriesStatus, PreviousSnapshot,
};
use image_usage_archive::domain::findings::KindSet;
use image_usage_archive::domain::report::ReportState;
use image_usage_archive::domain::target::{AccountId, Region, Target};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::layout::{Prefix, RunId, hex};

/// How many objects of earlier runs a target is known by: the last complete reading and what came of the
/// next ones that weren't. A target that breaks off more often than that loses the oldest of the latter.
const MAX_EARLIER_OBJECTS: usize = 10;

/// The last unscoped snapshot, as far as a run needs it.
#[derive(Debug)]
pub(crate) struct Previous {
    /// What this run is compared with.
    pub(crate) baseline: Baseline,
    objects: BTreeMap<Target, Vec<ArchivedObject>>,
}

#[derive(Deserialize)]
struct PreviousLedger {
    run_id: RunId,
    scheduled_at: Timestamp,
    targets: Vec<PreviousTarget>,
}

#[derive(Deserialize)]
struct PreviousTarget {
    account_id: AccountId,
    region: Region,
    object: Option<ArchivedObject>,
    earlier_objects: Vec<ArchivedObject>,
}

impl Previous {
    /// Reads the snapshot that `latest.json` is a copy of; `None` where it is lost or damaged.
    ///
    /// The snapshot itself is read, for that is what the chain names. Where it is lost, the copy still
    /// tells what is known.
    ///
    /// # Errors
    /// Fails as S3 does.
    pub(crate) async fn read(
        bucket: &Bucket,
        prefix: &Prefix,
        latest: &LatestSnapshot,
    ) -> Result<Option<Self>, ArchiveError> {
        let Some(copy) = latest.bytes() else {
            return Ok(None);
        };
        let Ok(ledger) = serde_json::from_slice::<PreviousLedger>(copy) else {
            return Ok(None);
        };
        let key = prefix.snapshot(&ledger.run_id, ledger.scheduled_at);
        let stored = bucket.get(&key).await;
        let stored = stored.map_err(failed("read", bucket, &key))?;
        let found = stored.as_ref().and_then(|stored| {
            let ledger = serde_json::from_slice::<PreviousLedger>(&stored.bytes).ok()?;
            Some((ledger, &*stored.bytes))
        });
        let (ledger, bytes) = found.unwrap_or((ledger, copy));
        let sha256 = hex(&Sha256::digest(bytes));
        let mut objects = BTreeMap::new();
        for target in ledger.targets {
            let PreviousTarget {
                account_id,
                region,
                object,
                mut earlier_objects,
            } = target;
            earlier_objects.extend(object);
            objects.insert(Target { account_id, region }, earlier_objects);
        }
        Ok(Some(Self {
            baseline: Baseline {
                previous: PreviousSnapshot {
                    run_id: ledger.run_id,
                    key,
                    sha256,
                },
                targets: objects.keys().cloned().collect(),
            },
            objects,
        }))
    }

    /// The objects that hold what is known of a target, oldest first; none for a new one.
    pub(crate) fn objects(&self, target: &Target) -> &[ArchivedObject] {
        self.objects.get(target).map_or(&[], Vec::as_slice)
    }

    /// The same, for the ledger of a run that could not read the target to its end.
    pub(crate) fn earlier_objects(&self, target: &Target) -> Vec<ArchivedObject> {
        let mut objects = self.objects(target).to_vec();
        if objects.len() > MAX_EARLIER_OBJECTS {
            objects.drain(1..=objects.len() - MAX_EARLIER_OBJECTS);
        }
        objects
    }
}

/// A report's line, as far as a comparison needs it.
#[derive(Deserialize, Debug)]
pub(crate) struct KnownLine<'a> {
    #[serde(borrow)]
    pub(crate) report_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) image_id: Option<Cow<'a, str>>,
    pub(crate) state: Option<ReportState>,
    pub(crate) findings: KindSet,
    pub(crate) entries: EntriesStatus,
}

/// The lines of an object of an earlier run, whole and unharmed.
#[derive(Debug)]
pub(crate) struct KnownLines {
    reader: BufReader<MultiGzDecoder<BufReader<SpooledTempFile>>>,
    line: Vec<u8>,
}

impl KnownLines {
    /// Reads an object, and checks that it is still what its run wrote.
    ///
    /// # Errors
    /// Fails as S3 does, and when the object is lost or isn't the same any more.
    pub(crate) async fn read(
        bucket: &Bucket,
        object: &ArchivedObject,
    ) -> Result<Self, CallFailure> {
        let mut attempts = ReadAttempts::default();
        loop {
            match Self::read_once(bucket, object).await {
                Ok(lines) => return Ok(lines),
                Err(failure) => attempts.again_after(failure)?,
            }
        }
    }

    async fn read_once(bucket: &Bucket, object: &ArchivedObject) -> Result<Self, CallFailure> {
        let mut file = SpooledTempFile::new(SPOOL_BYTES_IN_MEMORY);
        let (mut digest, mut written) = (Sha256::new(), Ok(()));
        let read = bucket.read(&object.key, object.version_id.as_deref(), |chunk| {
            digest.update(chunk);
            if written.is_ok() {
                written = file.write_all(chunk);
            }
        });
        let found = read.await?;
        written
            .and_then(|()| file.rewind())
            .map_err(local_storage)?;
        let problem = match found {
            None => "is lost",
            Some(_) if hex(&digest.finalize()) != object.sha256 => "has been changed",
            Some(_) => {
                return Ok(Self {
                    reader: BufReader::new(MultiGzDecoder::new(BufReader::new(file))),
                    line: Vec::new(),
                });
            }
        };
        Err(CallFailure {
            code: "ObjectDamaged".to_owned(),
            message: format!("the object {} of an earlier run {problem}", object.key),
            request_id: None,
            kind: FailureKind::Lasting,
        })
    }

    /// The next line; `None` after the last one.
    ///
    /// # Errors
    /// Fails when it is no report's line.
    pub(crate) fn next(&mut self) -> io::Result<Option<KnownLine<'_>>> {
        self.line.clear();
        match self.reader.read_until(b'\n', &mut self.line)? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_slice(&self.line)?)),
        }
    }
}

/// Tells of the function's temporary storage.
pub(crate) fn local_storage(error: io::Error) -> CallFailure {
    CallFailure {
        code: "LocalStorage".to_owned(),
        message: format!(
            "the function's temporary storage can't hold what is known of the reports: {error}"
        ),
        request_id: None,
        kind: FailureKind::Lasting,
    }
}
