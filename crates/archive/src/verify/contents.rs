//! Reads the objects of one run, and derives its snapshot from them again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::entry_lines::EntryLines;
use super::image_facts::{ImageFacts, ImageUses};
use super::image_lines::{ImageLines, KnownImage, ObservedByKey, OfRun};
use super::keys::object_key;
use super::known_images::{self, KnownImages, KnownRun};
use super::problem::Problem;
use super::report_lines::{ClaimedReports, ReportLines};
use crate::documents::{
    AUDITOR_VERSION, ArchivedObject, Counts, LedgerLine, RunFacts, Snapshot, Tally, TargetOutcome,
    TargetStatus,
};
use crate::domain::findings::ListedFindings;
use crate::domain::report_key::ReportKey;
use crate::domain::target::Target;
use crate::layout::{Layout, below_prefix};
use crate::named_object::{Measured, ReadObject, read_object};
use crate::source::{Source, Unreadable};

/// How many targets of a snapshot are read at a time.
const CONCURRENT_TARGETS: usize = 16;

/// What the objects of one run contain.
#[derive(Default, Debug)]
pub(super) struct Contents {
    pub(super) problems: Vec<Problem>,
    /// The objects that cannot be read, and why.
    pub(super) unreadable: Vec<Problem>,
    /// What is stored under each key that was read.
    pub(super) measured: BTreeMap<String, Measured>,
    /// How many entries each report has, by the key of the entries object.
    pub(super) entries: BTreeMap<String, HashMap<ReportKey, u64>>,
}

/// What the lines of a target's reports say about an entries object.
pub(super) struct Claim {
    /// The object of the lines.
    pub(super) claimant: Arc<str>,
    /// The entries object.
    pub(super) key: String,
    /// The reports that have entries there.
    pub(super) reports: ClaimedReports,
}

/// What the lines of a target's AMIs say about an entries object.
pub(super) struct Observed {
    /// The object of the lines.
    pub(super) claimant: Arc<str>,
    /// The entries object.
    pub(super) key: String,
    /// The reports whose entries were read there.
    pub(super) reports: BTreeMap<ReportKey, String>,
}

/// What is read of a run besides its objects.
#[derive(Default)]
pub(super) struct RunLines {
    pub(super) claims: Vec<Claim>,
    pub(super) observed: Vec<Observed>,
    pub(super) images: KnownImages,
}

/// The objects of one target.
#[derive(Default)]
struct TargetContents {
    contents: Contents,
    claims: Vec<Claim>,
    observed: Vec<Observed>,
    /// What is kept of its AMIs; `None` if there are none, or their object is not sound.
    images: Option<(Target, BTreeMap<String, KnownImage>)>,
    /// What its lines add up to; `None` if they are not sound.
    outcome: Option<TargetOutcome>,
}

/// Reads every object of a run, and checks what its snapshot says about them.
pub(super) async fn read_contents(
    archive: &Source,
    key: &str,
    snapshot: &Snapshot,
    before: Option<&KnownRun>,
) -> Result<(Contents, RunLines), Unreadable> {
    let (mut contents, mut lines) = (Contents::default(), RunLines::default());
    let mut tally = Some(Tally::default());
    let mut targets = stream::iter(&snapshot.targets)
        .map(|line| read_target(archive, key, snapshot, line))
        .buffered(CONCURRENT_TARGETS);
    while let Some(target) = targets.try_next().await? {
        contents.merge(target.contents);
        lines.claims.extend(target.claims);
        lines.observed.extend(target.observed);
        lines.images.extend(target.images);
        match (&mut tally, target.outcome) {
            (Some(tally), Some(outcome)) => tally.add(outcome),
            _ => tally = None,
        }
    }
    let problem = tally.and_then(|tally| derived_difference(snapshot, tally));
    let problem = problem.map(|what| Problem::new(key, what));
    contents.problems.extend(problem);
    let of_images = known_images::problems(key, snapshot, &lines.images, before);
    contents.problems.extend(of_images);
    Ok((contents, lines))
}

impl Contents {
    fn merge(&mut self, other: Self) {
        self.problems.extend(other.problems);
        self.unreadable.extend(other.unreadable);
        self.measured.extend(other.measured);
        self.entries.extend(other.entries);
    }

    /// Records an object, and returns what checked its lines if it is sound.
    fn add<L>(&mut self, key: &str, read: ReadObject<L>) -> Option<L> {
        let to_problem = |what| Problem::new(key, what);
        self.problems
            .extend(read.problems.into_iter().map(to_problem));
        self.unreadable.extend(read.unreadable.map(to_problem));
        let measured = read.measured.map(|measured| (key.to_owned(), measured));
        self.measured.extend(measured);
        read.lines
    }
}

/// Builds the snapshot again from the lines, and describes how the stored one differs.
fn derived_difference(snapshot: &Snapshot, tally: Tally) -> Option<String> {
    let facts = RunFacts {
        run_id: snapshot.run_id.clone(),
        scope: snapshot.scope.clone(),
        scheduled_at: snapshot.scheduled_at,
        started_at: snapshot.started_at,
        policy: snapshot.policy.clone(),
    };
    let derived = Snapshot::new(facts, snapshot.finished_at, tally, None);
    if snapshot.counts != derived.counts {
        return Some("states other counts than its objects contain".to_owned());
    }
    let (said, found) = (&snapshot.findings, &derived.findings);
    if snapshot.auditor.version != AUDITOR_VERSION || said == found {
        return None;
    }
    let differs = said.iter().zip(found).find(|(said, found)| said != found);
    let id = differs.map_or("null", |(said, _)| &said.id);
    Some(format!(
        "lists other findings than its objects and its policy give, first {id}"
    ))
}

async fn read_target(
    archive: &Source,
    snapshot_key: &str,
    snapshot: &Snapshot,
    line: &LedgerLine,
) -> Result<TargetContents, Unreadable> {
    let target = line.target();
    let mut of_target = TargetContents::default();
    let contents = &mut of_target.contents;
    let mut is_sound = true;
    let (mut counts, mut findings) = (Counts::default(), ListedFindings::default());
    let mut facts = None;
    if let Some((named, key, layout)) = named(line.object.as_ref()) {
        let start = || ReportLines::new(&target, snapshot, layout.clone());
        let read = read_object(archive, snapshot_key, named, start).await?;
        let lines = contents.add(key, read);
        is_sound &= lines.is_some();
        if let Some(mut lines) = lines {
            of_target.claims = claims(key, &mut lines);
            facts = lines.image_facts.take();
            (counts, findings) = (lines.counts, lines.into_findings());
        }
    }
    let mut uses = line.entries_object.is_none().then(ImageUses::default);
    if let Some((named, key, _)) = named(line.entries_object.as_ref()) {
        let start = || EntryLines::new(&target, facts.as_ref());
        let read = read_object(archive, snapshot_key, named, start).await?;
        if let Some(lines) = contents.add(key, read) {
            uses = Some(lines.uses);
            contents.entries.insert(key.to_owned(), lines.counts);
        }
    }
    let images = line.images.as_ref();
    let images_object = images.and_then(|images| images.images_object.as_ref());
    if let Some((named, key, layout)) = named(images_object) {
        let run = OfRun {
            target: &target,
            snapshot,
            ledger: line,
            layout,
            facts: facts.as_ref(),
            uses: uses.as_ref(),
        };
        let read = read_object(archive, snapshot_key, named, || ImageLines::new(&run)).await?;
        let lines = contents.add(key, read);
        is_sound &= lines.is_some();
        if let Some(lines) = lines {
            let problems = lines.missing(&run).into_iter();
            contents
                .problems
                .extend(problems.map(|what| Problem::new(key, what)));
            counts.add_images(lines.counts);
            findings += lines.findings;
            of_target.observed = observed(key, lines.observed);
            of_target.images = Some((line.target(), lines.known));
        }
    } else if line.status == TargetStatus::Complete
        && let Some(image_id) = facts.iter().flat_map(ImageFacts::image_ids).min()
    {
        let what = format!("has no object with AMIs of {target}; a report names {image_id}");
        contents.problems.push(Problem::new(snapshot_key, what));
    }
    counts.add_target(line.status);
    of_target.outcome = is_sound.then(|| TargetOutcome {
        ledger: line.clone(),
        counts,
        findings,
        changes: None,
    });
    Ok(of_target)
}

/// Returns an object that the ledger names, its key from `v1/` on, and the layout of it.
fn named(object: Option<&ArchivedObject>) -> Option<(&ArchivedObject, &str, Layout)> {
    let object = object?;
    let (layout, _) = object_key(&object.key)?;
    Some((object, below_prefix(&object.key), layout))
}

/// Returns what the lines of reports say about entries objects.
fn claims(key: &str, lines: &mut ReportLines<'_>) -> Vec<Claim> {
    let claimant: Arc<str> = key.into();
    let claims = std::mem::take(&mut lines.claims).into_iter();
    let claim = |((key, _), reports): ((String, _), _)| Claim {
        claimant: Arc::clone(&claimant),
        key: below_prefix(&key).to_owned(),
        reports,
    };
    claims.map(claim).collect()
}

/// Returns what the lines of AMIs say about entries objects.
fn observed(key: &str, observed: ObservedByKey) -> Vec<Observed> {
    let claimant: Arc<str> = key.into();
    let claim = |(key, reports): (String, _)| Observed {
        claimant: Arc::clone(&claimant),
        key: below_prefix(&key).to_owned(),
        reports,
    };
    observed.into_iter().map(claim).collect()
}
