//! Checks an archive: that nothing in it was lost or changed since it was written.
//!
//! # What is checked
//!
//! - **Each snapshot** is one, in exactly the bytes that the auditor writes for what it says; its run, its
//!   schedule and its key agree, and so do its ledger, its counts, its status and the lengths of its lists.
//! - **Each object that a snapshot names** is there, with its size, its SHA-256 and its number of lines. In
//!   a bucket with versions the newest version has to be the one that the snapshot names, or to hold the
//!   same bytes: it is what queries read.
//! - **Each line** of those objects is in the form that the auditor writes, and of its target; the findings
//!   on it, those that the snapshot lists, and all counts are derived again from the reports, the policy and
//!   `started_at`. Entries are grouped by report, and each report whose entries are said to be archived has
//!   just as many in the object that it names.
//! - **The chain**: what an unscoped snapshot names as `previous` is there, with that SHA-256. `latest.json`
//!   is byte for byte the newest unscoped snapshot, the head of the chain, and the chain goes back from it
//!   to one that follows none.
//! - **The schedule**: unscoped snapshots are not further apart than expected.
//! - **Nothing else** lies below `v1/`. Objects of reports and entries that no snapshot names are left by a
//!   try that died, or by a run under way: they are noted, and so are snapshots that are not on the chain
//!   (a run that was late, or that died right before it updated `latest.json`). Whatever else lies there is
//!   a problem, for the auditor writes no such thing, and a query may read it. So is a second chain.
//!
//! # What it proves
//!
//! A changed byte is found wherever a hash covers it: the snapshots on the chain by their successors, the
//! head by `latest.json`, and all reports and entries by the snapshots that name them. Who changes a
//! snapshot and everything after it, `latest.json` included, makes another archive that is as sound: only
//! who has kept the head's SHA-256 elsewhere can tell, see [`Options::head`]. S3 Object Lock keeps it from
//! happening.
//!
//! No hash covers scoped snapshots and those that are not on the chain. Of them, what can be derived again
//! is; what only the run knew is taken on trust: `finished_at`, the scope's values, pages, errors with their
//! messages and request IDs, version IDs in a folder, changes, and the auditor's version, without which the
//! findings are not derived. A change of the policy or of `started_at` shows only where a finding depends on
//! it.
//!
//! # Memory
//!
//! One snapshot; for each of up to 16 targets looked at at a time 8 MB and some 200 bytes a report; for each
//! object of the archive its key and SHA-256; and for each report whose entries were ever archived its ID
//! and their number.

mod objects;
mod snapshot;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::domain::digest::hex;
use crate::domain::report_key::ReportKey;
use crate::domain::timestamp::Timestamp;
use crate::layout::ArchiveKey;
use crate::source::{Source, Unreadable};

use objects::{Contents, Measured};
use snapshot::{Outline, below_prefix};

pub use verdict::{CheckedSnapshot, Head, Place, Problem, SaidBySnapshot, Verdict};

/// What a person knows of an archive besides what it holds.
#[derive(Clone, Default, Debug)]
pub struct Options {
    /// The SHA-256 of a snapshot that has to be on the chain, in lower-case hex: the head when somebody
    /// last looked.
    pub head: Option<String>,
    /// How many hours lie between two scheduled runs; `None` takes the median and only notes gaps.
    pub every_hours: Option<u32>,
}

const LATEST: &str = "v1/latest.json";
const SNAPSHOTS: &str = "v1/snapshots/";

/// Runs further apart than so many halves of the interval have one missing between them.
const GAP_HALVES: i64 = 3;

/// Checks an archive.
///
/// # Errors
/// Fails when it can't be read: nothing is known of it then.
pub async fn verify(archive: &Source, options: &Options) -> Result<Verdict, Unreadable> {
    Verifier::new(archive.clone()).verdict(options).await
}

/// Checks an archive again and again, and reads again only what it was told to forget.
#[derive(Debug)]
pub struct Verifier {
    archive: Source,
    snapshots: BTreeMap<String, Look>,
    contents: BTreeMap<String, Contents>,
    /// What the reports' lines say of the reports in an entries object, by its key.
    claims: BTreeMap<String, HashMap<(ReportKey, u64), Claimed>>,
}

/// What one snapshot says.
#[derive(Debug)]
struct Look {
    sha256: String,
    bytes: u64,
    /// `None` where it is no snapshot.
    outline: Option<Outline>,
    problems: Vec<String>,
}

/// That a report has so many entries in an entries object.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Claimed {
    report_id: String,
    /// The first object of which a line says so.
    claimant: Arc<str>,
}

/// What is found out on the way to a verdict.
#[derive(Default)]
struct Findings {
    notes: Vec<String>,
    problems: Vec<Problem>,
    /// The snapshots that are not what another one names.
    changed: HashSet<String>,
    /// From the head back.
    chain: Vec<String>,
}

impl Findings {
    fn problem(&mut self, key: &str, what: String) {
        self.problems.push(Problem::new(key, what));
    }
}

impl Verifier {
    /// Starts with nothing read.
    pub fn new(archive: Source) -> Self {
        Self {
            archive,
            snapshots: BTreeMap::new(),
            contents: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    /// Forgets an object, by its key from `v1/` on, and the snapshot that names it: whoever has seen it
    /// written, changed or deleted has it looked at again.
    pub fn forget(&mut self, key: &str) {
        if let Some(owner) = self.owner(key).cloned() {
            self.contents.remove(&owner);
        }
        self.snapshots.remove(key);
        self.contents.remove(key);
    }

    /// Checks the archive; what was read before and not forgotten counts as it was.
    ///
    /// # Errors
    /// Fails when it can't be read: nothing is known of it then.
    pub async fn verdict(&mut self, options: &Options) -> Result<Verdict, Unreadable> {
        let mut listing = self.archive.list().await?;
        if listing.is_empty() {
            let location = self.archive.location();
            return Err(Unreadable::NoArchive { location });
        }
        self.read_snapshots(&listing).await?;
        let mut latest = self.latest().await?;
        if latest
            .as_ref()
            .is_some_and(|sha256| self.find(sha256).is_none())
        {
            // A run may have ended since: its snapshot was there before it became the latest.
            listing = self.archive.list().await?;
            self.read_snapshots(&listing).await?;
            latest = self.latest().await?;
        }
        let mut found = Findings::default();
        for (key, look) in &self.snapshots {
            let problems = look.problems.iter().cloned();
            found
                .problems
                .extend(problems.map(|what| Problem::new(key, what)));
        }
        let head = self.check_latest(latest, &mut found);
        self.check_chain(head.as_deref(), &mut found);
        self.check_prefixes(&mut found);
        self.note_other_versions(&mut found);
        let given_head = self.check_given_head(options, head.as_deref(), &mut found);
        self.read_contents(&found.changed).await?;
        for contents in self.contents.values() {
            found.problems.extend(contents.problems.iter().cloned());
        }
        self.check_earlier_objects(&mut found).await?;
        self.check_claims(&mut found);
        self.check_leftovers(&listing, &mut found);
        if self.snapshots.is_empty() {
            found.problem(SNAPSHOTS, "holds no snapshot".to_owned());
        }
        self.check_schedule(options, &mut found);
        Ok(self.put_together(head, given_head, found))
    }

    async fn read_snapshots(&mut self, listing: &BTreeMap<String, u64>) -> Result<(), Unreadable> {
        let is_listed = |key: &String| listing.contains_key(key);
        self.snapshots.retain(|key, _| is_listed(key));
        self.contents.retain(|key, _| is_listed(key));
        for key in listing.keys().filter(|key| key.starts_with(SNAPSHOTS)) {
            if self.snapshots.contains_key(key) {
                continue;
            }
            let Some(bytes) = self.archive.read(key).await? else {
                continue;
            };
            let (snapshot, problems) = snapshot::read_snapshot(key, &bytes);
            let look = Look {
                sha256: hex(&Sha256::digest(&bytes)),
                bytes: bytes.len() as u64,
                outline: snapshot.as_ref().map(snapshot::outline),
                problems,
            };
            self.snapshots.insert(key.clone(), look);
        }
        Ok(())
    }

    /// The SHA-256 of `latest.json`; `None` where there is none.
    async fn latest(&self) -> Result<Option<String>, Unreadable> {
        let fetched = self.archive.fetch(LATEST, None).await?;
        Ok(fetched.map(|fetched| fetched.sha256))
    }

    /// Every snapshot that is one, by its key.
    fn outlines(&self) -> impl Iterator<Item = (&String, &Outline)> {
        self.snapshots
            .iter()
            .filter_map(|(key, look)| Some((key, look.outline.as_ref()?)))
    }

    fn unscoped(&self) -> impl Iterator<Item = (&String, &Outline)> {
        self.outlines().filter(|(_, outline)| outline.is_full)
    }

    /// The unscoped snapshot with these bytes.
    fn find(&self, sha256: &str) -> Option<&String> {
        let has_it = |key: &String| {
            self.snapshots
                .get(key)
                .is_some_and(|look| look.sha256 == sha256)
        };
        self.unscoped().map(|(key, _)| key).find(|key| has_it(key))
    }

    /// Finds the head of the chain: what `latest.json` is a copy of, else the newest unscoped snapshot.
    fn check_latest(&self, latest: Option<String>, found: &mut Findings) -> Option<String> {
        let newest = self.unscoped().max_by_key(|(_, outline)| outline.order());
        let newest = newest.map(|(key, _)| key);
        let head = match (&latest, newest) {
            (None, None) => {
                found
                    .notes
                    .push("there is no unscoped snapshot, and so no chain".to_owned());
                return None;
            }
            (None, Some(newest)) => {
                found.problem(
                    LATEST,
                    format!("is missing; {newest} is the newest snapshot"),
                );
                newest
            }
            (Some(latest), _) => match (self.find(latest), newest) {
                (Some(head), _) => head,
                (None, Some(newest)) => {
                    let what = "is no copy of a snapshot in the archive; the newest one is";
                    found.problem(
                        LATEST,
                        format!("{what} {newest}: one of the two was changed"),
                    );
                    return Some(newest.clone());
                }
                (None, None) => {
                    found.problem(LATEST, "is no copy of a snapshot in the archive".to_owned());
                    return None;
                }
            },
        };
        let order = |key: &String| Some(self.snapshots.get(key)?.outline.as_ref()?.order());
        for (key, _) in self.unscoped() {
            if order(key) > order(head) {
                let what = "is newer than the one that latest.json is a copy of: its run died right before it wrote latest.json, or somebody put an older one back";
                found.problem(key, what.to_owned());
            }
        }
        Some(head.clone())
    }

    fn check_chain(&self, head: Option<&str>, found: &mut Findings) {
        for (key, outline) in self.unscoped() {
            let Some(previous) = &outline.previous else {
                continue;
            };
            let previous_key = below_prefix(&previous.key);
            match self.snapshots.get(previous_key) {
                None => found.problem(previous_key, format!("is missing; {key} follows it")),
                Some(look) if look.sha256 != previous.sha256 => {
                    let (is, said) = (&look.sha256, &previous.sha256);
                    found.problem(
                        previous_key,
                        format!("has the SHA-256 {is}, and {key}, which follows it, says {said}"),
                    );
                    found.changed.insert(previous_key.to_owned());
                }
                Some(look) => {
                    let is_full =
                        |outline: &Outline| outline.is_full && outline.run_id == previous.run_id;
                    if !look.outline.as_ref().is_some_and(is_full) {
                        let what = format!(
                            "follows {previous_key}, which is not the run it says, or scoped"
                        );
                        found.problem(key, what);
                    }
                }
            }
        }
        let mut next = head.map(str::to_owned);
        // Never longer than there are snapshots: what has been passed ends it.
        let mut passed = BTreeSet::new();
        while let Some(key) = next.take().filter(|key| passed.insert(key.clone())) {
            let look = self.snapshots.get(&key);
            let Some(outline) = look.and_then(|look| look.outline.as_ref()) else {
                // Lost or unreadable, and told of: the ones before it are looked for all the same.
                let before = self.unscoped().map(|(key, _)| key);
                let before = before.filter(|before| **before < key && !passed.contains(*before));
                next = before.last().cloned();
                continue;
            };
            let previous = outline.previous.as_ref();
            next = previous.map(|previous| below_prefix(&previous.key).to_owned());
            found.chain.push(key);
        }
        let followed: HashSet<&str> = self
            .unscoped()
            .filter_map(|(_, outline)| Some(below_prefix(&outline.previous.as_ref()?.key)))
            .collect();
        for (key, outline) in self.unscoped().filter(|(key, _)| !passed.contains(*key)) {
            found.notes.push(format!(
                "{key}: not on the chain from latest.json: a run that was late, or died before it wrote latest.json"
            ));
            if outline.previous.is_none() && followed.contains(key.as_str()) {
                let what = "starts another chain, which latest.json does not go back to: it was lost or damaged once, or replaced";
                found.problem(key, what.to_owned());
            }
        }
    }

    /// All documents have to name their objects under one prefix. It may be another one than where the
    /// archive lies now, which may be a copy.
    fn check_prefixes(&self, found: &mut Findings) {
        let prefixes = || {
            self.outlines()
                .filter_map(|(key, outline)| Some((key, outline.prefix.as_ref()?)))
        };
        let Some((first, expected)) = prefixes().next() else {
            return;
        };
        for (key, prefix) in prefixes().filter(|(_, prefix)| *prefix != expected) {
            found.problem(
                key,
                format!("names objects under `{prefix}`, and {first} under `{expected}`"),
            );
        }
    }

    fn note_other_versions(&self, found: &mut Findings) {
        let mut versions: BTreeMap<&String, u64> = BTreeMap::new();
        for (_, outline) in self.outlines() {
            *versions.entry(&outline.version).or_default() += 1;
        }
        versions.retain(|version, _| *version != objects::VERSION);
        let note = |(version, count): (&String, u64)| {
            format!(
                "{count} of the snapshots are of the auditor's version {version}: their findings are not derived again by {}",
                objects::VERSION
            )
        };
        found.notes.extend(versions.into_iter().map(note));
    }

    /// Looks for the SHA-256 that was given on the chain, and tells how many snapshots before the head it
    /// is.
    fn check_given_head(
        &self,
        options: &Options,
        head: Option<&str>,
        found: &mut Findings,
    ) -> Option<usize> {
        let given = options.head.as_deref()?;
        let is_it = |key: &String| {
            self.snapshots
                .get(key)
                .is_some_and(|look| look.sha256 == given)
        };
        let place = found.chain.iter().position(is_it);
        if place.is_none() {
            let key = head.unwrap_or(LATEST).to_owned();
            let what =
                format!("is the head of a chain on which no snapshot has the SHA-256 {given}");
            found.problem(&key, what);
        }
        place
    }

    async fn read_contents(&mut self, changed: &HashSet<String>) -> Result<(), Unreadable> {
        for (key, look) in &self.snapshots {
            let is_sound = look.outline.is_some() && look.problems.is_empty();
            if !is_sound || changed.contains(key) || self.contents.contains_key(key) {
                continue;
            }
            let bytes = self.archive.read(key).await?.unwrap_or_default();
            let snapshot = snapshot::read_snapshot(key, &bytes).0;
            let is_same = hex(&Sha256::digest(&bytes)) == look.sha256;
            let mut contents = match snapshot.filter(|_| is_same) {
                Some(snapshot) => objects::look(&self.archive, key, &snapshot).await?,
                None => Contents {
                    problems: vec![Problem::new(key, "changes while it is read".to_owned())],
                    ..Contents::default()
                },
            };
            for claim in std::mem::take(&mut contents.claims) {
                let claims = self.claims.entry(claim.key).or_default();
                for (report, (report_id, count)) in claim.reports {
                    claims.entry((report, count)).or_insert_with(|| Claimed {
                        report_id,
                        claimant: Arc::clone(&claim.claimant),
                    });
                }
            }
            self.contents.insert(key.clone(), contents);
        }
        Ok(())
    }

    /// The objects of earlier runs that a ledger names have been measured where their own run names them;
    /// those that no run names any more are read.
    async fn check_earlier_objects(&self, found: &mut Findings) -> Result<(), Unreadable> {
        let mut measured: HashMap<&str, Measured> = HashMap::new();
        for contents in self.contents.values() {
            let objects = contents.measured.iter();
            measured.extend(objects.map(|(key, measured)| (key.as_str(), measured.clone())));
        }
        for (key, outline) in self.outlines() {
            for named in &outline.earlier {
                let object_key = below_prefix(&named.key);
                let there = match measured.get(object_key) {
                    Some(there) => Some(there.clone()),
                    None => {
                        let version_id = named.version_id.as_deref();
                        let fetched = self.archive.fetch(object_key, version_id).await?;
                        fetched.map(|fetched| Measured {
                            sha256: fetched.sha256,
                            bytes: fetched.bytes,
                            lines: named.lines,
                        })
                    }
                };
                let Some(there) = there else {
                    found.problem(object_key, format!("is missing; {key} names it"));
                    continue;
                };
                let is_same = (there.bytes, &there.sha256) == (named.bytes, &named.sha256);
                if !is_same {
                    found.problem(object_key, objects::difference(key, &there, named));
                } else if there.lines != named.lines {
                    let (count, said) = (there.lines, named.lines);
                    let what = format!("has {count} lines, and {key} says {said}");
                    found.problem(object_key, what);
                }
                measured.insert(object_key, there);
            }
        }
        Ok(())
    }

    fn check_claims(&self, found: &mut Findings) {
        let entries: BTreeMap<&String, &HashMap<ReportKey, u64>> = self
            .contents
            .values()
            .flat_map(|contents| &contents.entries)
            .collect();
        let told: HashSet<String> = found
            .problems
            .iter()
            .map(|problem| problem.key.clone())
            .collect();
        for (key, claims) in &self.claims {
            let Some(counts) = entries.get(key) else {
                // An object that is damaged, or whose snapshot is, has been told of.
                let run = leftover_of(key).unwrap_or_default();
                let snapshot = format!("/{run}.json");
                let is_told =
                    told.contains(key) || told.iter().any(|told| told.ends_with(&snapshot));
                let first = claims.values().map(|claimed| &claimed.claimant).min();
                if let Some(claimant) = first.filter(|_| !is_told) {
                    let what = format!(
                        "is vouched for by no snapshot; {claimant} names it for its entries"
                    );
                    found.problem(key, what);
                }
                continue;
            };
            let wrong = claims
                .iter()
                .filter(|((report, count), _)| counts.get(report) != Some(count))
                .map(|((report, said), claimed)| (claimed, said, counts.get(report)));
            let count = wrong.clone().count();
            if let Some((
                Claimed {
                    report_id,
                    claimant,
                },
                said,
                there,
            )) = wrong.min()
            {
                let there = there.map_or_else(|| "none at all".to_owned(), u64::to_string);
                let more = match count {
                    1 => String::new(),
                    count => format!("; the same goes for {} more reports", count - 1),
                };
                found.problem(
                    key,
                    format!("has {there} of the entries of {report_id}, and {claimant} says {said}{more}"),
                );
            }
        }
    }

    /// The snapshot that names an object as its run's own.
    fn owner(&self, key: &str) -> Option<&String> {
        let names = |outline: &Outline| outline.objects.iter().any(|object| object == key);
        self.outlines()
            .find(|(_, outline)| names(outline))
            .map(|(key, _)| key)
    }

    fn check_leftovers(&self, listing: &BTreeMap<String, u64>, found: &mut Findings) {
        let named: HashSet<&str> = self
            .outlines()
            .flat_map(|(_, outline)| outline.objects.iter().map(String::as_str))
            .collect();
        // Of the objects of a run whose snapshot is lost or unreadable nothing is known.
        let unread: HashSet<String> = found
            .problems
            .iter()
            .filter(|problem| problem.key.starts_with(SNAPSHOTS))
            .filter_map(|problem| run_of(&problem.key, ".json").map(str::to_owned))
            .collect();
        for key in listing.keys() {
            if key == LATEST || key.starts_with(SNAPSHOTS) || named.contains(key.as_str()) {
                continue;
            }
            match leftover_of(key) {
                None => found.problem(key, "is nothing that the auditor writes".to_owned()),
                Some(run) if unread.contains(&run) => {}
                Some(_) => found.notes.push(format!(
                    "{key}: named by no snapshot: left by a try that died, or by a run under way"
                )),
            }
        }
    }

    fn check_schedule(&self, options: &Options, found: &mut Findings) {
        let mut moments: Vec<(Timestamp, &String)> = self
            .unscoped()
            .map(|(key, outline)| (outline.scheduled_at, key))
            .collect();
        moments.sort();
        let distance = |pair: &[(Timestamp, &String)]| pair[1].0.seconds_since(pair[0].0);
        let mut distances: Vec<i64> = moments
            .windows(2)
            .map(distance)
            .filter(|&d| d > 0)
            .collect();
        distances.sort_unstable();
        let given = options.every_hours.map(|hours| i64::from(hours) * 3_600);
        let median = distances.get(distances.len() / 2).copied();
        let Some(interval) = given.or(median) else {
            return;
        };
        for pair in moments.windows(2) {
            let seconds = distance(pair);
            if seconds.saturating_mul(2) <= interval.saturating_mul(GAP_HALVES) {
                continue;
            }
            let hours =
                |seconds: i64| format!("{}.{} hours", seconds / 3_600, seconds % 3_600 / 360);
            let (from, to) = (pair[0].0, pair[1].0);
            let gap = format!("no run from {from} to {to}: {}", hours(seconds));
            match given {
                Some(_) => found.problem(pair[1].1, format!("comes after a gap: {gap}")),
                None => found.notes.push(format!(
                    "{gap}; half of the runs are up to {} apart",
                    hours(interval)
                )),
            }
        }
    }

    fn put_together(
        &self,
        head: Option<String>,
        given_head: Option<usize>,
        found: Findings,
    ) -> Verdict {
        let Findings {
            notes,
            mut problems,
            chain,
            ..
        } = found;
        problems.sort();
        problems.dedup();
        let chain: HashSet<&String> = chain.iter().collect();
        let mut told: HashMap<&str, usize> = HashMap::new();
        for problem in &problems {
            *told.entry(&problem.key).or_default() += 1;
        }
        let snapshots = self.snapshots.iter().map(|(key, look)| {
            let objects = look.outline.iter().flat_map(|outline| &outline.objects);
            let keys = objects.map(String::as_str).chain([key.as_str()]);
            CheckedSnapshot {
                run: run_of(key, ".json").unwrap_or(key).to_owned(),
                said: look.outline.as_ref().map(|outline| SaidBySnapshot {
                    scheduled_at: outline.scheduled_at,
                    status: outline.status,
                    targets: outline.targets,
                    reports: outline.counts.reports.total,
                    entries: outline.counts.entries.archived,
                    objects: outline.objects.len(),
                    place: match (outline.is_full, chain.contains(key)) {
                        (false, _) => Place::Scoped,
                        (true, true) => Place::Chain,
                        (true, false) => Place::Aside,
                    },
                }),
                problems: keys.filter_map(|key| told.get(key)).sum(),
            }
        });
        let snapshots = snapshots.collect();
        let head = head.and_then(|key| {
            Some(Head {
                sha256: self.snapshots.get(&key)?.sha256.clone(),
                key,
                given_before: given_head,
            })
        });
        let objects = self
            .contents
            .values()
            .map(|contents| contents.measured.len())
            .sum();
        let read = self.contents.values().map(|contents| contents.bytes);
        let bytes = read
            .chain(self.snapshots.values().map(|look| look.bytes))
            .sum();
        Verdict {
            location: self.archive.location(),
            snapshots,
            head,
            objects,
            bytes,
            notes,
            problems,
        }
    }
}

/// The run that a key is of, by the name of the object.
fn run_of<'a>(key: &'a str, ending: &str) -> Option<&'a str> {
    key.rsplit('/').next()?.strip_suffix(ending)
}

/// The run of an object of reports or entries, whether a snapshot names it or not; `None` for any other key.
fn leftover_of(key: &str) -> Option<String> {
    match ArchiveKey::parse(key)? {
        (layout, ArchiveKey::Object(object)) if layout.prefix().is_empty() => {
            Some(object.run_id.to_string())
        }
        _ => None,
    }
}
