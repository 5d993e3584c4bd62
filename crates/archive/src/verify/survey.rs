//! Reads an archive: every byte of it once, one snapshot at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::contents::{Claim, Contents, Observed, read_contents};
use super::keys::{LATEST, SNAPSHOTS, litter, snapshot_of};
use super::known_images::KnownRun;
use super::outline::Outline;
use super::snapshot::read_snapshot;
use crate::domain::digest::sha256_hex;
use crate::domain::report_key::ReportKey;
use crate::layout::{ROOT, below_prefix};
use crate::named_object::{Measured, measure};
use crate::source::{Source, Unreadable};

/// What was read of an archive; [`check`](super::check) evaluates it.
///
/// The public parts can be replaced by those of another survey: whoever changes one object of a large
/// archive need not read the rest again.
#[derive(Debug)]
pub struct Survey {
    /// The SHA-256 of `latest.json`, `None` if there is none; the reason if it cannot be read.
    pub latest: Result<Option<String>, String>,
    /// Every run, by the key of its snapshot.
    pub runs: BTreeMap<String, SurveyedRun>,
    pub(super) location: String,
    pub(super) listing: BTreeMap<String, u64>,
    /// The snapshots that cannot be read, and why.
    pub(super) unreadable: BTreeMap<String, String>,
    /// The objects that only later runs name; `None` if there is none, the reason if it cannot be read.
    pub(super) earlier: BTreeMap<String, Result<Option<Measured>, String>>,
    pub(super) claims: Claims,
    pub(super) observed: ObservedReports,
}

/// What was read of one run: its snapshot and its objects.
#[derive(Debug)]
pub struct SurveyedRun {
    pub(super) sha256: String,
    pub(super) bytes: u64,
    /// `None` if the snapshot is not one.
    pub(super) outline: Option<Outline>,
    /// What is wrong with the snapshot on its own.
    pub(super) problems: Vec<String>,
    /// Empty unless the snapshot is sound on its own.
    pub(super) contents: Contents,
}

/// What the lines of reports say about entries objects, by their keys: the reports that have entries there
/// and how many, each once for the whole archive.
pub(super) type Claims = BTreeMap<String, HashMap<(ReportKey, u64), Claimed>>;

/// What the lines of AMIs say about entries objects, by their keys: the reports that were read there, each once
/// for the whole archive.
pub(super) type ObservedReports = BTreeMap<String, HashMap<ReportKey, Claimed>>;

/// A report that has entries in an entries object.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Claimed {
    pub(super) report_id: String,
    /// The first object with a line that says so.
    pub(super) claimant: Arc<str>,
}

/// How much of an archive has been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The bytes of the objects read so far.
    pub read_bytes: u64,
    /// The bytes of all objects that were listed.
    pub total_bytes: u64,
}

/// Receives progress.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Sync);

/// Reads an archive.
///
/// # Errors
/// Fails if the archive as a whole cannot be read. Single objects that cannot be read are part of the
/// survey.
pub async fn survey(archive: &Source, progress: OnProgress<'_>) -> Result<Survey, Unreadable> {
    let listing = archive.list(ROOT).await?;
    if listing
        .iter()
        .all(|(key, bytes)| litter(key, *bytes).is_some())
    {
        let location = archive.location();
        return Err(Unreadable::NoArchive { location });
    }
    let mut reading = Reading {
        archive,
        progress,
        read_bytes: AtomicU64::new(0),
        total_bytes: listing.values().sum(),
        survey: Survey {
            latest: Ok(None),
            runs: BTreeMap::new(),
            location: archive.location(),
            listing,
            unreadable: BTreeMap::new(),
            earlier: BTreeMap::new(),
            claims: Claims::new(),
            observed: ObservedReports::new(),
        },
        last_full: None,
    };
    reading.latest().await?;
    reading.runs().await?;
    if !reading.has_latest() {
        // A run may have ended since the listing: its snapshot was written before it became the latest.
        reading.survey.listing = archive.list(ROOT).await?;
        reading.total_bytes = reading.survey.listing.values().sum();
        reading.runs().await?;
        reading.latest().await?;
    }
    reading.earlier().await?;
    Ok(reading.survey)
}

struct Reading<'a> {
    archive: &'a Source,
    progress: OnProgress<'a>,
    read_bytes: AtomicU64,
    total_bytes: u64,
    survey: Survey,
    /// The AMIs of the last full run that was read.
    last_full: Option<KnownRun>,
}

impl Reading<'_> {
    fn advance(&self, bytes: u64) {
        let before = self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        (self.progress)(Progress {
            read_bytes: before + bytes,
            total_bytes: self.total_bytes,
        });
    }

    async fn latest(&mut self) -> Result<(), Unreadable> {
        let measured = measure(self.archive, LATEST, None, 0).await;
        self.survey.latest = match measured {
            Ok(latest) => Ok(latest.map(|latest| latest.sha256)),
            Err(error) => Err(error.of_one_object()?),
        };
        Ok(())
    }

    fn has_latest(&self) -> bool {
        match &self.survey.latest {
            Ok(Some(sha256)) => self.survey.runs.values().any(|run| run.sha256 == *sha256),
            Ok(None) | Err(_) => true,
        }
    }

    /// Reads every run that is listed and has not been read.
    async fn runs(&mut self) -> Result<(), Unreadable> {
        let is_new = |(key, bytes): &(&String, &u64)| {
            key.starts_with(SNAPSHOTS)
                && litter(key, **bytes).is_none()
                && !self.survey.runs.contains_key(*key)
                && !self.survey.unreadable.contains_key(*key)
        };
        let keys: Vec<String> = self
            .survey
            .listing
            .iter()
            .filter(is_new)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            match self.archive.read(&key).await {
                // Deleted since it was listed.
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    let run = self.run(&key, &bytes).await?;
                    self.survey.runs.insert(key, run);
                }
                Err(error) => {
                    let reason = error.of_one_object()?;
                    self.survey.unreadable.insert(key, reason);
                }
            }
        }
        Ok(())
    }

    async fn run(&mut self, key: &str, bytes: &[u8]) -> Result<SurveyedRun, Unreadable> {
        let (snapshot, problems) = read_snapshot(key, bytes);
        let mut contents = Contents::default();
        if let Some(snapshot) = &snapshot
            && problems.is_empty()
        {
            let before = self.last_full.as_ref();
            let lines;
            (contents, lines) = read_contents(self.archive, key, snapshot, before).await?;
            self.add_claims(lines.claims);
            self.add_observed(lines.observed);
            if snapshot.scope.full {
                self.last_full = Some(KnownRun {
                    sha256: sha256_hex(bytes),
                    images: lines.images,
                });
            }
        }
        let of_objects = contents.measured.values().map(|object| object.bytes);
        self.advance(of_objects.sum::<u64>() + bytes.len() as u64);
        Ok(SurveyedRun {
            sha256: sha256_hex(bytes),
            bytes: bytes.len() as u64,
            outline: snapshot.as_ref().map(Outline::of),
            problems,
            contents,
        })
    }

    fn add_claims(&mut self, claims: Vec<Claim>) {
        for claim in claims {
            let claims = self.survey.claims.entry(claim.key).or_default();
            for (report, (report_id, count)) in claim.reports {
                claims.entry((report, count)).or_insert_with(|| Claimed {
                    report_id,
                    claimant: Arc::clone(&claim.claimant),
                });
            }
        }
    }

    fn add_observed(&mut self, observed: Vec<Observed>) {
        for of_lines in observed {
            let reports = self.survey.observed.entry(of_lines.key).or_default();
            for (report, report_id) in of_lines.reports {
                reports.entry(report).or_insert_with(|| Claimed {
                    report_id,
                    claimant: Arc::clone(&of_lines.claimant),
                });
            }
        }
    }

    /// Measures the objects of earlier runs that a ledger names and no run that was read has measured.
    async fn earlier(&mut self) -> Result<(), Unreadable> {
        let runs = self.survey.runs.values();
        let named: Vec<_> = runs
            .filter_map(|run| run.outline.as_ref())
            .flat_map(|outline| outline.earlier.iter().cloned())
            .collect();
        for object in named {
            let key = below_prefix(&object.key);
            if self.survey.is_read(key) {
                continue;
            }
            let version_id = object.version_id.as_deref();
            let there = match measure(self.archive, key, version_id, object.lines).await {
                Ok(there) => Ok(there),
                Err(error) => Err(error.of_one_object()?),
            };
            self.survey.earlier.insert(key.to_owned(), there);
        }
        Ok(())
    }
}

impl Survey {
    /// Every snapshot that is one, by its key.
    pub(super) fn outlines(&self) -> impl Iterator<Item = (&String, &Outline)> {
        let runs = self.runs.iter();
        runs.filter_map(|(key, run)| Some((key, run.outline.as_ref()?)))
    }

    /// Every snapshot of a full run, by its key.
    pub(super) fn full(&self) -> impl Iterator<Item = (&String, &Outline)> {
        self.outlines().filter(|(_, outline)| outline.is_full)
    }

    pub(super) fn outline(&self, key: &str) -> Option<&Outline> {
        self.runs.get(key)?.outline.as_ref()
    }

    pub(super) fn sha256(&self, key: &str) -> Option<&str> {
        self.runs.get(key).map(|run| run.sha256.as_str())
    }

    /// Returns the object with this key; `None` if it has not been read.
    pub(super) fn measured(&self, key: &str) -> Option<&Measured> {
        let own = self
            .owner(key)
            .and_then(|run| run.contents.measured.get(key));
        own.or_else(|| self.earlier.get(key)?.as_ref().ok()?.as_ref())
    }

    /// The run that wrote an object of reports, entries or AMIs, if it was read.
    fn owner(&self, key: &str) -> Option<&SurveyedRun> {
        self.runs.get(&snapshot_of(key)?)
    }

    /// Whether an attempt was made to read the object.
    fn is_read(&self, key: &str) -> bool {
        let is_own = self.owner(key).is_some_and(|run| {
            let mut unreadable = run.contents.unreadable.iter();
            run.contents.measured.contains_key(key) || unreadable.any(|object| object.key == key)
        });
        is_own || self.earlier.contains_key(key)
    }

    /// Returns every object that cannot be read, and why.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = (&str, &str)> {
        let latest = self.latest.as_ref().err();
        let latest = latest.map(|reason| (LATEST, reason.as_str()));
        let snapshots = self.unreadable.iter();
        let runs = self.runs.values();
        let objects = runs.flat_map(|run| &run.contents.unreadable);
        let earlier = self.earlier.iter();
        latest
            .into_iter()
            .chain(snapshots.map(|(key, reason)| (key.as_str(), reason.as_str())))
            .chain(objects.map(|object| (object.key.as_str(), object.what.as_str())))
            .chain(
                earlier.filter_map(|(key, there)| {
                    Some((key.as_str(), there.as_ref().err()?.as_str()))
                }),
            )
    }
}
