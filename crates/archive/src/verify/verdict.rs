//! The result of a check, and its text form.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Serialize;

use super::chain::Chain;
use super::keys::run_of;
use super::outline::Outline;
use super::problem::{Problem, plural};
use super::survey::Survey;
use crate::documents::RunStatus;
use crate::domain::timestamp::Timestamp;

/// The result of checking an archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verdict {
    /// Where the archive is stored.
    pub location: String,
    /// Every snapshot, by its key.
    pub snapshots: Vec<CheckedSnapshot>,
    /// The head of the chain; `None` if there is no chain.
    pub head: Option<Head>,
    /// How many objects of reports, entries and AMIs were read.
    pub objects: usize,
    /// The bytes of all snapshots and objects that were read, as stored.
    pub bytes: u64,
    /// What a user may want to know, and what does not prove anything wrong.
    pub notes: Vec<String>,
    /// The objects that could not be read, and why, sorted by key.
    pub unreadable: Vec<Problem>,
    /// What is wrong, sorted by key; empty for a sound archive.
    pub problems: Vec<Problem>,
}

/// A verdict in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was read, and nothing is wrong.
    Sound,
    /// Something is wrong.
    Problems,
    /// Nothing is wrong as far as the archive could be read, which is not to its end.
    NotReadable,
}

/// A snapshot that was checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CheckedSnapshot {
    /// Its run, by its key.
    pub run: String,
    /// What it says; `None` if it cannot be read.
    pub summary: Option<SnapshotSummary>,
    /// The number of problems with it and the objects of its run.
    pub problems: usize,
    /// How many of these could not be read.
    pub unreadable: usize,
}

/// What a snapshot says about its run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SnapshotSummary {
    /// The moment the run was scheduled for.
    pub scheduled_at: Timestamp,
    /// Whether the run read everything.
    pub status: RunStatus,
    /// Its targets.
    pub targets: usize,
    /// The reports that it archived.
    pub reports: u64,
    /// The reports whose entries are archived.
    pub entries: u64,
    /// The objects that the run wrote besides the snapshot.
    pub objects: usize,
    /// The snapshot's place among the others.
    pub place: Place,
}

/// The place of a snapshot among the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On the chain that leads back from `latest.json`.
    Chain,
    /// Full, but no snapshot on the chain follows it.
    OffChain,
    /// Scoped, and so never on a chain.
    Scoped,
}

/// The head of the chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Head {
    /// Its key, from `v1/` on.
    pub key: String,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// How many snapshots before it on the chain the given digest is; `None` if none was given, or if it is
    /// not on the chain.
    pub given_before: Option<usize>,
}

/// Builds the verdict from what was read and found; the problems are sorted.
pub(super) fn build(
    survey: &Survey,
    chain: &Chain,
    given_before: Option<usize>,
    problems: Vec<Problem>,
    notes: Vec<String>,
) -> Verdict {
    let unreadable = survey.unreadable();
    let mut unreadable: Vec<Problem> = unreadable
        .map(|(key, reason)| Problem::new(key, format!("could not be read: {reason}")))
        .collect();
    unreadable.sort();
    unreadable.dedup();
    let head = chain.head.as_ref().and_then(|key| {
        let sha256 = survey.sha256(key)?.to_owned();
        // If the snapshot that latest.json is a copy of cannot be read, another one is not the head.
        let is_known = survey.unreadable.is_empty() && survey.latest.is_ok()
            || survey.latest == Ok(Some(sha256.clone()));
        is_known.then(|| Head {
            sha256,
            key: key.clone(),
            given_before,
        })
    });
    let runs = || survey.runs.values();
    let measured = || runs().flat_map(|run| run.contents.measured.values());
    let bytes = measured().map(|object| object.bytes);
    Verdict {
        location: survey.location.clone(),
        snapshots: snapshots(survey, chain, &problems, &unreadable),
        head,
        objects: measured().count(),
        bytes: bytes.chain(runs().map(|run| run.bytes)).sum(),
        notes,
        unreadable,
        problems,
    }
}

fn snapshots(
    survey: &Survey,
    chain: &Chain,
    problems: &[Problem],
    unreadable: &[Problem],
) -> Vec<CheckedSnapshot> {
    let on_chain: HashSet<&String> = chain.keys.iter().collect();
    let by_key = |problems: &[Problem]| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for problem in problems {
            *counts.entry(problem.key.clone()).or_default() += 1;
        }
        counts
    };
    let (problems, unreadable) = (by_key(problems), by_key(unreadable));
    let mut keys: Vec<&String> = survey.runs.keys().chain(survey.unreadable.keys()).collect();
    keys.sort();
    let checked = keys.into_iter().map(|key| {
        let outline = survey.outline(key);
        let objects = outline.into_iter().flat_map(|outline| &outline.objects);
        let own: Vec<&String> = objects.chain([key]).collect();
        let count =
            |counts: &HashMap<String, usize>| own.iter().filter_map(|key| counts.get(*key)).sum();
        CheckedSnapshot {
            run: run_of(key).unwrap_or(key).to_owned(),
            summary: outline.map(|outline| summary(outline, on_chain.contains(key))),
            problems: count(&problems),
            unreadable: count(&unreadable),
        }
    });
    checked.collect()
}

fn summary(outline: &Outline, is_on_chain: bool) -> SnapshotSummary {
    SnapshotSummary {
        scheduled_at: outline.scheduled_at,
        status: outline.status,
        targets: outline.targets,
        reports: outline.counts.reports.total,
        entries: outline.counts.entries.archived,
        objects: outline.objects.len(),
        place: match (outline.is_full, is_on_chain) {
            (false, _) => Place::Scoped,
            (true, true) => Place::Chain,
            (true, false) => Place::OffChain,
        },
    }
}

impl Verdict {
    /// Whether everything was read, and nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.outcome() == Outcome::Sound
    }

    /// Returns the verdict in one word.
    pub fn outcome(&self) -> Outcome {
        match (self.problems.is_empty(), self.unreadable.is_empty()) {
            (false, _) => Outcome::Problems,
            (true, false) => Outcome::NotReadable,
            (true, true) => Outcome::Sound,
        }
    }

    /// Returns the verdict as text, one line each. Keys and reasons come from the archive: escape them
    /// before they reach a terminal.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = table(&self.snapshots);
        let list = |heading: &str, lines: &mut Vec<String>, listed: Vec<String>| {
            if !listed.is_empty() {
                lines.extend([String::new(), format!("{heading}:")]);
                lines.extend(listed.iter().map(|line| format!("  {line}")));
            }
        };
        let told = |problems: &[Problem]| {
            let line = |problem: &Problem| format!("{} {}", problem.key, problem.what);
            problems.iter().map(line).collect()
        };
        list("Notes", &mut lines, self.notes.clone());
        list("Not readable", &mut lines, told(&self.unreadable));
        list("Problems", &mut lines, told(&self.problems));
        lines.push(String::new());
        if let Some(head) = &self.head {
            let Head { key, sha256, .. } = head;
            lines.push(format!("The head is {key}, SHA-256 {sha256}"));
            lines.extend(head.given_before.map(|before| match before {
                0 => "It is the given one".to_owned(),
                before => {
                    let snapshots = plural(before, "snapshot");
                    format!("The given one is on the chain, {snapshots} before it")
                }
            }));
        }
        lines.push(self.last_line());
        lines
    }

    fn last_line(&self) -> String {
        let snapshots = plural(self.snapshots.len(), "snapshot");
        let objects = plural(self.objects, "other object");
        let (location, bytes) = (&self.location, self.bytes);
        let unreadable = || plural(self.unreadable.len(), "object");
        let outcome = match self.outcome() {
            Outcome::Sound => "sound".to_owned(),
            Outcome::Problems => plural(self.problems.len(), "problem"),
            Outcome::NotReadable => {
                format!("no problem found, but {} could not be read", unreadable())
            }
        };
        format!("{location}: {snapshots} and {objects}, {bytes} bytes: {outcome}")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines()
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

const HEADINGS: [&str; 8] = [
    "snapshot",
    "scheduled_at",
    "status",
    "targets",
    "reports",
    "entries",
    "objects",
    "verdict",
];

/// The columns of the table that are aligned to the right: numbers.
const NUMBERS: std::ops::Range<usize> = 3..7;

fn table(snapshots: &[CheckedSnapshot]) -> Vec<String> {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(snapshots.iter().map(CheckedSnapshot::cells));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match NUMBERS.contains(&column) {
            true => format!("{cell:>width$}  "),
            false => format!("{cell:<width$}  "),
        });
        cells.collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

impl CheckedSnapshot {
    fn cells(&self) -> [String; 8] {
        let (run, verdict) = (self.run.clone(), self.verdict());
        let Some(summary) = self.summary else {
            let [a, b, c, d, e, f] = std::array::from_fn(|_| "?".to_owned());
            return [run, a, b, c, d, e, f, verdict];
        };
        [
            run,
            summary.scheduled_at.to_string(),
            summary.status.as_str().to_owned(),
            summary.targets.to_string(),
            summary.reports.to_string(),
            summary.entries.to_string(),
            summary.objects.to_string(),
            verdict,
        ]
    }

    fn verdict(&self) -> String {
        let place = self.summary.map(|summary| summary.place);
        match (self.problems, self.unreadable, place) {
            (0, 0, Some(Place::OffChain)) => "ok, not on the chain".to_owned(),
            (0, 0, Some(Place::Scoped)) => "ok, scoped".to_owned(),
            (0, 0, _) => "ok".to_owned(),
            (0, unreadable, _) => format!("{unreadable} not readable"),
            (problems, 0, _) => plural(problems, "problem"),
            (problems, unreadable, _) => {
                format!("{}, {unreadable} not readable", plural(problems, "problem"))
            }
        }
    }
}
