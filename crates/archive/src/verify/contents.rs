//! Reads the objects of one run, and derives its snapshot from them again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::entry_lines::EntryLines;
use super::keys::object_key;
use super::object::{Measured, ReadObject, read_object};
use super::problem::Problem;
use super::report_lines::{ClaimedReports, ReportLines};
use crate::documents::{
    AUDITOR_VERSION, Counts, LedgerLine, RunFacts, Snapshot, Tally, TargetOutcome,
};
use crate::domain::findings::ListedFindings;
use crate::domain::report_key::ReportKey;
use crate::layout::below_prefix;
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

/// The objects of one target.
#[derive(Default)]
struct TargetContents {
    contents: Contents,
    claims: Vec<Claim>,
    /// What its lines add up to; `None` if they are not sound.
    outcome: Option<TargetOutcome>,
}

/// Reads every object of a run, and checks what its snapshot says about them.
pub(super) async fn read_contents(
    archive: &Source,
    key: &str,
    snapshot: &Snapshot,
) -> Result<(Contents, Vec<Claim>), Unreadable> {
    let (mut contents, mut claims) = (Contents::default(), Vec::new());
    let mut tally = Some(Tally::default());
    let mut targets = stream::iter(&snapshot.targets)
        .map(|line| read_target(archive, key, snapshot, line))
        .buffered(CONCURRENT_TARGETS);
    while let Some(target) = targets.try_next().await? {
        contents.merge(target.contents);
        claims.extend(target.claims);
        match (&mut tally, target.outcome) {
            (Some(tally), Some(outcome)) => tally.add(outcome),
            _ => tally = None,
        }
    }
    let problem = tally.and_then(|tally| derived_difference(snapshot, tally));
    let problem = problem.map(|what| Problem::new(key, what));
    contents.problems.extend(problem);
    Ok((contents, claims))
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
        policy: snapshot.policy,
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
    if let Some(named) = &line.entries_object {
        let key = below_prefix(&named.key);
        let start = || EntryLines::new(&target);
        let read = read_object(archive, snapshot_key, named, start).await?;
        if let Some(lines) = contents.add(key, read) {
            contents.entries.insert(key.to_owned(), lines.counts);
        }
    }
    let (mut counts, mut findings) = (Counts::default(), ListedFindings::default());
    if let Some(named) = &line.object {
        let key = below_prefix(&named.key);
        let Some((layout, _)) = object_key(&named.key) else {
            return Ok(of_target);
        };
        let start = || ReportLines::new(&target, snapshot, layout.clone());
        let read = read_object(archive, snapshot_key, named, start).await?;
        let Some(mut lines) = contents.add(key, read) else {
            return Ok(of_target);
        };
        let claimant: Arc<str> = key.into();
        let claims = std::mem::take(&mut lines.claims).into_iter();
        of_target
            .claims
            .extend(claims.map(|((key, _), reports)| Claim {
                claimant: Arc::clone(&claimant),
                key: below_prefix(&key).to_owned(),
                reports,
            }));
        (counts, findings) = (lines.counts, lines.into_findings());
    }
    counts.add_target(line.status);
    of_target.outcome = Some(TargetOutcome {
        ledger: line.clone(),
        counts,
        findings,
        changes: None,
    });
    Ok(of_target)
}
