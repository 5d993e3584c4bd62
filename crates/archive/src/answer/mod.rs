//! Answers who uses an AMI, from what a run has archived.
//!
//! A target that the run could not read is answered with its newest line of an earlier run, as
//! [`ImageLine::not_read_at`] gives it: what was known stays known, and its verdict says less. An object whose bytes
//! are not those that the snapshot names gives no answer.

mod error;
mod evidence;
mod lines;

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

pub use self::error::NoAnswer;
pub use self::evidence::{Evidence, EvidenceReader};
pub use self::lines::FromLines;
use crate::documents::{ArchivedObject, ImageLine, LedgerLine, Snapshot, TargetStatus};
use crate::domain::digest::sha256_hex;
use crate::domain::run_id::RunId;
use crate::domain::target::{AccountId, Region, Target};
pub use crate::domain::usage::{BLIND_SPOTS, CONSEQUENCES, reason_in_words, verdict_in_words};
use crate::layout::{ArchiveKey, LATEST, Layout, ObjectKind, SNAPSHOTS};
use crate::named_object::{LineCheck, read_object};
use crate::source::{Source, Unreadable};

/// How many targets are read at a time.
const CONCURRENT_TARGETS: usize = 16;

/// How many runs are named where another one was asked for.
const NAMED_RUNS: usize = 3;

/// A run, by its snapshot.
#[derive(Debug)]
pub struct Run {
    key: String,
    /// Its snapshot.
    pub snapshot: Snapshot,
    /// The SHA-256 of the snapshot, in hex.
    pub sha256: String,
}

/// Which AMIs are asked for.
#[derive(Clone, Default, Debug)]
pub struct Selection {
    /// Only these AMIs; empty for all.
    pub image_ids: BTreeSet<String>,
    /// Only in this account.
    pub account_id: Option<AccountId>,
    /// Only in this Region.
    pub region: Option<Region>,
}

/// What a run knows of the AMIs of one target.
#[derive(Debug)]
pub struct TargetImages<T> {
    /// The target.
    pub target: Target,
    /// Whether its reports were read.
    pub status: TargetStatus,
    /// Whether its AMIs were read.
    pub are_images_read: bool,
    /// Where its lines come from.
    pub origin: Origin,
    /// The AMIs that were asked for, by ID.
    pub images: Vec<T>,
    /// Why there may be more than these: an object that is missing, damaged or unreadable.
    pub problem: Option<String>,
}

/// Where the lines of a target's AMIs come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The run itself.
    Run,
    /// An earlier run: this one could not read the target, or its AMIs.
    EarlierRun,
    /// There are none: the target has no AMI, or nobody asked for them.
    Nowhere,
}

impl Run {
    /// Reads the newest full run.
    ///
    /// # Errors
    /// Fails if there is none, or if it cannot be read.
    pub async fn newest(archive: &Source) -> Result<Self, NoAnswer> {
        Self::read(archive, LATEST)
            .await?
            .ok_or_else(|| NoAnswer::NoRun {
                location: archive.location(),
            })
    }

    async fn read(archive: &Source, key: &str) -> Result<Option<Self>, NoAnswer> {
        let Some(bytes) = archive.read(key).await? else {
            return Ok(None);
        };
        let snapshot = serde_json::from_slice(&bytes);
        let snapshot = snapshot.map_err(|source| NoAnswer::NotASnapshot {
            key: key.to_owned(),
            source,
        })?;
        Ok(Some(Self {
            key: key.to_owned(),
            snapshot,
            sha256: sha256_hex(&bytes),
        }))
    }

    /// Reads a run by its ID, whether it is full or scoped.
    ///
    /// # Errors
    /// Fails if there is no such run, or if it cannot be read.
    pub async fn of_id(archive: &Source, run_id: &RunId) -> Result<Self, NoAnswer> {
        if let Some(scheduled_at) = run_id.scheduled_at() {
            let key = Layout::without_prefix().snapshot(run_id, scheduled_at);
            if let Some(run) = Self::read(archive, &key).await? {
                return Ok(run);
            }
        }
        let keys = Self::keys(archive).await?;
        let newest = keys.iter().rev().take(NAMED_RUNS);
        let newest: Vec<&str> = newest
            .filter_map(|key| key.rsplit('/').next()?.strip_suffix(".json"))
            .collect();
        Err(NoAnswer::UnknownRun {
            location: archive.location(),
            run_id: run_id.clone(),
            newest: match newest.is_empty() {
                true => "it has no run at all".to_owned(),
                false => format!("its newest are {}", newest.join(", ")),
            },
        })
    }

    /// The keys of every snapshot, oldest first.
    ///
    /// # Errors
    /// Fails if the archive cannot be listed.
    pub async fn keys(archive: &Source) -> Result<Vec<String>, NoAnswer> {
        let listed = archive.list(SNAPSHOTS).await?;
        let is_snapshot = |key: &String| {
            matches!(
                ArchiveKey::parse(key),
                Some((_, ArchiveKey::Snapshot { .. }))
            )
        };
        // The day and the run's name sort by time.
        Ok(listed.into_keys().filter(is_snapshot).collect())
    }

    /// Reads the full run with this snapshot; `None` for a scoped one.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub async fn full_at(archive: &Source, key: &str) -> Result<Option<Self>, NoAnswer> {
        let run = Self::read(archive, key).await?;
        Ok(run.filter(|run| run.snapshot.scope.full))
    }

    /// Whether the run gave verdicts.
    pub fn has_verdicts(&self) -> bool {
        let Snapshot { scope, policy, .. } = &self.snapshot;
        scope.usage_policy(policy).is_some()
    }

    /// Reads what the run knows of AMIs: for each target, sorted, what `keep` makes of the lines.
    ///
    /// # Errors
    /// Fails if the archive as a whole cannot be read; an object that cannot be read is the problem of its target.
    pub async fn images<T: Send>(
        &self,
        archive: &Source,
        selection: &Selection,
        keep: impl Fn(ImageLine) -> T + Copy,
    ) -> Result<Vec<TargetImages<T>>, NoAnswer> {
        let targets = self
            .snapshot
            .targets
            .iter()
            .filter(|line| selection.has(line));
        let read = stream::iter(targets)
            .map(|line| self.of_target(archive, line, selection, keep))
            .buffered(CONCURRENT_TARGETS);
        Ok(read.try_collect().await?)
    }

    async fn of_target<T>(
        &self,
        archive: &Source,
        line: &LedgerLine,
        selection: &Selection,
        keep: impl Fn(ImageLine) -> T + Copy,
    ) -> Result<TargetImages<T>, Unreadable> {
        let (origin, object) = newest_object(line);
        let mut of_target = TargetImages {
            target: line.target(),
            status: line.status,
            are_images_read: line
                .images
                .as_ref()
                .is_some_and(|images| images.images_read.is_some()),
            origin,
            images: Vec::new(),
            problem: None,
        };
        let Some(object) = object else {
            return Ok(of_target);
        };
        let is_earlier = origin == Origin::EarlierRun;
        let start = || Collector {
            image_ids: &selection.image_ids,
            keep: |line| match is_earlier {
                true => keep(self.not_read(line)),
                false => keep(line),
            },
            kept: Vec::new(),
        };
        let read = read_object(archive, &self.key, object, start).await?;
        let problem = read.unreadable.or(read.problems.into_iter().next());
        of_target.problem = problem.map(|what| format!("{} {what}", object.key));
        let kept = read.lines.map(|collector| collector.kept);
        of_target.images = kept.unwrap_or_default();
        Ok(of_target)
    }

    /// The line of an earlier run, for a run that has not read its target.
    fn not_read(&self, line: ImageLine) -> ImageLine {
        let Snapshot {
            policy, started_at, ..
        } = &self.snapshot;
        match &policy.usage {
            Some(usage) => {
                line.not_read_at(*started_at, usage.observation_days, usage.image_references)
            }
            None => line,
        }
    }
}

impl Selection {
    /// Whether a target is asked for.
    pub fn has(&self, line: &LedgerLine) -> bool {
        let in_account = self
            .account_id
            .as_ref()
            .is_none_or(|id| *id == line.account_id);
        in_account
            && self
                .region
                .as_ref()
                .is_none_or(|region| *region == line.region)
    }
}

/// The newest object with the AMIs of a target.
fn newest_object(line: &LedgerLine) -> (Origin, Option<&ArchivedObject>) {
    let own = line
        .images
        .as_ref()
        .and_then(|images| images.images_object.as_ref());
    if own.is_some() {
        return (Origin::Run, own);
    }
    let is_of_images =
        |object: &&ArchivedObject| ObjectKind::of_key(&object.key) == Some(ObjectKind::Images);
    match line.earlier_objects.iter().rfind(is_of_images) {
        Some(object) => (Origin::EarlierRun, Some(object)),
        None => (Origin::Nowhere, None),
    }
}

/// Collects what is kept of the AMIs that are asked for.
struct Collector<'a, T, K> {
    image_ids: &'a BTreeSet<String>,
    keep: K,
    kept: Vec<T>,
}

#[derive(Deserialize)]
struct ImageName {
    image_id: String,
}

impl<T, K: Fn(ImageLine) -> T> LineCheck for Collector<'_, T, K> {
    fn check(&mut self, line: &[u8]) -> Result<(), String> {
        let malformed = |error: serde_json::Error| format!("is not the line of an AMI: {error}");
        if !self.image_ids.is_empty() {
            let ImageName { image_id } = serde_json::from_slice(line).map_err(malformed)?;
            if !self.image_ids.contains(&image_id) {
                return Ok(());
            }
        }
        let line = serde_json::from_slice(line).map_err(malformed)?;
        self.kept.push((self.keep)(line));
        Ok(())
    }
}
