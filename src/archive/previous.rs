//! The previous full snapshot, and the report lines it names.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Seek, Write};
use std::sync::atomic::AtomicU64;

use image_usage_archive::aws::{Bucket, CallFailure, FailureKind};
use image_usage_archive::documents::{
    ArchivedObject, Baseline, EarlierObjects, PreviousSnapshot, TargetLine,
};
use image_usage_archive::domain::digest::{hex, sha256_hex};
use image_usage_archive::domain::entries_status::EntriesStatus;
use image_usage_archive::domain::error_code::ErrorCode;
use image_usage_archive::domain::findings::FindingSet;
use image_usage_archive::domain::report::ReportState;
use image_usage_archive::domain::run_id::RunId;
use image_usage_archive::domain::target::{AccountId, Region, Target};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::layout::{Layout, ObjectKind};
use image_usage_archive::line_reader::{LineReader, LineSink};
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
    /// The newest object with the AMIs of each target.
    images: BTreeMap<Target, ArchivedObject>,
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
    images_object: Option<ArchivedObject>,
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
        let (mut objects, mut images) = (BTreeMap::new(), BTreeMap::new());
        for target in ledger.targets {
            let PreviousTarget {
                account_id,
                region,
                object,
                images_object,
                earlier_objects,
            } = target;
            let target = Target { account_id, region };
            let (earlier_images, mut of_reports): (Vec<_>, Vec<_>) = earlier_objects
                .into_iter()
                .partition(|object| ObjectKind::of_key(&object.key) == Some(ObjectKind::Images));
            of_reports.extend(object);
            if let Some(newest) = images_object.or(earlier_images.into_iter().next_back()) {
                images.insert(target.clone(), newest);
            }
            objects.insert(target, of_reports);
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
            images,
        }))
    }

    /// Builds it from a plan: the snapshot, targets of the run, and those that only the snapshot has.
    pub(crate) fn planned(
        previous: PreviousSnapshot,
        lines: &[TargetLine],
        removed: &[Target],
    ) -> Self {
        let (mut objects, mut images) = (BTreeMap::new(), BTreeMap::new());
        for line in lines {
            let Some(earlier) = &line.earlier else {
                continue;
            };
            if let Some(newest) = &earlier.images {
                images.insert(line.target(), newest.clone());
            }
            objects.insert(line.target(), earlier.reports.clone());
        }
        Self {
            baseline: Baseline {
                previous,
                targets: objects.keys().chain(removed).cloned().collect(),
            },
            objects,
            images,
        }
    }

    /// The objects of a target, for a plan; `None` for a new target.
    pub(crate) fn earlier(&self, target: &Target) -> Option<EarlierObjects> {
        Some(EarlierObjects {
            reports: self.objects.get(target)?.clone(),
            images: self.images.get(target).cloned(),
        })
    }

    /// The newest object with the AMIs of a target; `None` if no run has written one.
    pub(crate) fn images(&self, target: &Target) -> Option<&ArchivedObject> {
        self.images.get(target)
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
        let read = Self::read_any(bucket, &object.key, object.version_id.as_deref()).await?;
        match read {
            None => Err(damaged(&object.key, "is missing")),
            Some((read, sha256)) if sha256 == object.sha256 => Ok(read),
            Some(_) => Err(damaged(&object.key, "has changed")),
        }
    }

    /// Reads an object whose digest is not known.
    ///
    /// # Errors
    /// Fails as S3 does, and if the object is missing.
    pub(crate) async fn read_unchecked(bucket: &Bucket, key: &str) -> Result<Self, CallFailure> {
        let read = Self::read_any(bucket, key, None).await?;
        let (read, _) = read.ok_or_else(|| damaged(key, "is missing"))?;
        Ok(read)
    }

    /// Reads an object, and returns it with its digest; `None` if there is none.
    async fn read_any(
        bucket: &Bucket,
        key: &str,
        version_id: Option<&str>,
    ) -> Result<Option<(Self, String)>, CallFailure> {
        let start = || Reading {
            file: SpooledTempFile::new(OBJECT_BYTES_IN_MEMORY),
            digest: Sha256::new(),
            written: Ok(()),
        };
        let read = bucket.fold(key, version_id, start, Reading::push).await?;
        let Some((read, _)) = read else {
            return Ok(None);
        };
        let Reading {
            file,
            digest,
            written,
        } = read;
        written.map_err(local_storage)?;
        Ok(Some((Self(file), hex(&digest.finalize()))))
    }

    /// Passes on each line; other tasks get their turn in between. Can be called again.
    ///
    /// # Errors
    /// Fails if the object does not hold lines, and as `each` does.
    pub(crate) async fn for_each_line(
        &mut self,
        each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.0.rewind()?;
        let mut lines = LineReader::new(each);
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

    /// Starts reading the lines one after the other.
    ///
    /// # Errors
    /// Fails as the temporary storage does.
    pub(crate) fn into_lines(mut self) -> io::Result<EarlierLines> {
        self.0.rewind()?;
        Ok(EarlierLines {
            file: self.0,
            reader: Some(LineReader::new(LineQueue::default())),
            ready: LineQueue::default(),
        })
    }
}

/// The lines of an earlier run's object, one after the other.
pub(crate) struct EarlierLines {
    file: SpooledTempFile,
    /// `None` once the object has been read to its end.
    reader: Option<LineReader<LineQueue>>,
    ready: LineQueue,
}

/// Lines that have been read and not been taken yet.
#[derive(Default)]
struct LineQueue(VecDeque<Vec<u8>>);

impl LineSink for LineQueue {
    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.push_back(line.to_vec());
        Ok(())
    }
}

impl EarlierLines {
    /// The next line; `None` after the last one. Other tasks get their turn now and then.
    ///
    /// # Errors
    /// Fails if the object does not hold lines.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        while self.ready.0.is_empty()
            && let Some(mut reader) = self.reader.take()
        {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = self.file.read(&mut chunk)?;
            if read == 0 {
                self.ready = reader.finish()?.1;
                break;
            }
            reader.push(&chunk[..read])?;
            self.ready = std::mem::take(reader.sink_mut());
            self.reader = Some(reader);
            tokio::task::yield_now().await;
        }
        Ok(self.ready.0.pop_front())
    }
}

fn damaged(key: &str, problem: &str) -> CallFailure {
    let message = format!("the object {key} of an earlier run {problem}");
    CallFailure::own(ErrorCode::ObjectDamaged, message, FailureKind::Permanent)
}

/// A line of an earlier run that cannot be read, or one that cannot be written.
pub(crate) fn malformed_line(error: io::Error) -> CallFailure {
    let message = error.to_string();
    CallFailure::own(ErrorCode::MalformedLine, message, FailureKind::Permanent)
}

/// A failure of the function's temporary storage (`/tmp`).
pub(crate) fn local_storage(error: io::Error) -> CallFailure {
    let message =
        format!("the function's temporary storage cannot hold the reports of a target: {error}");
    CallFailure::own(ErrorCode::LocalStorage, message, FailureKind::Permanent)
}
