//! The previous full snapshot, and the report lines it names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, Write};
use std::sync::atomic::AtomicU64;

use image_usage_archive::aws::{Bucket, CallFailure, FailureKind};
use image_usage_archive::documents::{ArchivedObject, Baseline, PreviousSnapshot};
use image_usage_archive::domain::digest::{hex, sha256_hex};
use image_usage_archive::domain::entries_status::EntriesStatus;
use image_usage_archive::domain::error_code::ErrorCode;
use image_usage_archive::domain::findings::FindingSet;
use image_usage_archive::domain::report::ReportState;
use image_usage_archive::domain::run_id::RunId;
use image_usage_archive::domain::target::{AccountId, Region, Target};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::layout::Layout;
use image_usage_archive::line_reader::LineReader;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tempfile::SpooledTempFile;

use super::latest::FoundSnapshot;
use super::lines_writer::ArchiveError;

/// How many objects of earlier runs a target is known by: the last complete listing and those of later runs
/// that were interrupted. A target that is interrupted more often loses the oldest of the latter.
const MAX_EARLIER_OBJECTS: usize = 10;

/// What is held of an object in memory before it goes to a temporary file.
const OBJECT_BYTES_IN_MEMORY: usize = 1024 * 1024;

/// What is read of a held object at once. Decompressed, it is a few thousand lines: some milliseconds.
const CHUNK_BYTES: usize = 16 * 1024;

/// The last full snapshot, as far as a run needs it.
#[derive(Debug)]
pub(crate) struct PreviousRun {
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

impl PreviousRun {
    /// Reads the snapshot that `latest.json` is a copy of; `None` if it is lost or damaged.
    ///
    /// Reads the snapshot itself, because the hash chain refers to it. If it is missing or unreadable, the copy
    /// still has what is needed.
    ///
    /// # Errors
    /// Fails as S3 does.
    pub(crate) async fn read(
        bucket: &Bucket,
        layout: &Layout,
        latest: &FoundSnapshot,
        unreadable_objects: &AtomicU64,
    ) -> Result<Option<Self>, ArchiveError> {
        let Some(copy) = latest.bytes() else {
            return Ok(None);
        };
        let Ok(ledger) = serde_json::from_slice::<PreviousLedger>(copy) else {
            return Ok(None);
        };
        let key = layout.snapshot(&ledger.run_id, ledger.scheduled_at);
        let stored = FoundSnapshot::read(bucket, &key, unreadable_objects).await?;
        let found = stored.bytes().and_then(|bytes| {
            let ledger = serde_json::from_slice::<PreviousLedger>(bytes).ok()?;
            Some((ledger, bytes))
        });
        let (ledger, bytes) = found.unwrap_or((ledger, copy));
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
                    sha256: sha256_hex(bytes),
                },
                targets: objects.keys().cloned().collect(),
            },
            objects,
        }))
    }

    /// The objects with the report lines of a target, oldest first; none for a new target.
    pub(crate) fn objects(&self, target: &Target) -> &[ArchivedObject] {
        self.objects.get(target).map_or(&[], Vec::as_slice)
    }

    /// The same, bounded, for the ledger of a run that could not read the target completely.
    pub(crate) fn earlier_objects(&self, target: &Target) -> Vec<ArchivedObject> {
        let mut objects = self.objects(target).to_vec();
        if objects.len() > MAX_EARLIER_OBJECTS {
            objects.drain(1..=objects.len() - MAX_EARLIER_OBJECTS);
        }
        objects
    }
}

/// A report line of an earlier run, as far as a comparison needs it.
#[derive(Deserialize, Debug)]
pub(crate) struct EarlierLine<'a> {
    #[serde(borrow)]
    pub(crate) report_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(crate) image_id: Option<Cow<'a, str>>,
    pub(crate) state: Option<ReportState>,
    pub(crate) findings: FindingSet,
    pub(crate) entries: EntriesStatus,
}

/// An object while it is read.
struct Reading {
    file: SpooledTempFile,
    digest: Sha256,
    written: io::Result<()>,
}

impl Reading {
    fn push(&mut self, chunk: &[u8]) {
        self.digest.update(chunk);
        if self.written.is_ok() {
            self.written = self.file.write_all(chunk);
        }
    }
}

/// The bytes of an earlier run's object: complete and unchanged.
#[derive(Debug)]
pub(crate) struct EarlierObject(SpooledTempFile);

impl EarlierObject {
    /// Reads an object, and checks that it is still what its run wrote.
    ///
    /// # Errors
    /// Fails as S3 does, and if the object is missing or has changed.
    pub(crate) async fn read(
        bucket: &Bucket,
        object: &ArchivedObject,
    ) -> Result<Self, CallFailure> {
        let (key, version_id) = (&object.key, object.version_id.as_deref());
        let start = || Reading {
            file: SpooledTempFile::new(OBJECT_BYTES_IN_MEMORY),
            digest: Sha256::new(),
            written: Ok(()),
        };
        let read = bucket.fold(key, version_id, start, Reading::push).await?;
        let problem = match read {
            None => "is missing",
            Some((read, _)) => {
                let Reading {
                    mut file,
                    digest,
                    written,
                } = read;
                written
                    .and_then(|()| file.rewind())
                    .map_err(local_storage)?;
                if hex(&digest.finalize()) == object.sha256 {
                    return Ok(Self(file));
                }
                "has changed"
            }
        };
        let message = format!("the object {} of an earlier run {problem}", object.key);
        Err(CallFailure::own(
            ErrorCode::ObjectDamaged,
            message,
            FailureKind::Permanent,
        ))
    }

    /// Passes on each line; other tasks get their turn in between.
    ///
    /// # Errors
    /// Fails if the object does not hold report lines, and as `each` does.
    pub(crate) async fn for_each_line(
        mut self,
        mut each: impl FnMut(EarlierLine<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut lines = LineReader::new(|line: &[u8]| each(serde_json::from_slice(line)?));
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match self.0.read(&mut chunk)? {
                0 => break,
                read => lines.push(&chunk[..read])?,
            }
            tokio::task::yield_now().await;
        }
        lines.finish().map(|_| ())
    }
}

/// A failure of the function's temporary storage (`/tmp`).
pub(crate) fn local_storage(error: io::Error) -> CallFailure {
    let message =
        format!("the function's temporary storage cannot hold the reports of a target: {error}");
    CallFailure::own(ErrorCode::LocalStorage, message, FailureKind::Permanent)
}
