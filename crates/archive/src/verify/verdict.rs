//! What a check came to, and how a person reads it.

use std::fmt;

use crate::documents::snapshot::RunStatus;
use crate::domain::timestamp::Timestamp;

/// What a check of an archive came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Where the archive lies.
    pub location: String,
    /// Every snapshot, by its key.
    pub snapshots: Vec<CheckedSnapshot>,
    /// The head of the chain; `None` where there is no chain.
    pub head: Option<Head>,
    /// How many objects of reports and entries were read.
    pub objects: usize,
    /// The bytes of all that was read, as stored.
    pub bytes: u64,
    /// What a person may want to know, and what is no proof of anything wrong.
    pub notes: Vec<String>,
    /// What is wrong, sorted by key; empty for a sound archive.
    pub problems: Vec<Problem>,
}

/// Something that is wrong with an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// Its key, from `v1/` on.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
}

impl Problem {
    pub(super) fn new(key: &str, what: String) -> Self {
        let key = key.to_owned();
        Self { key, what }
    }
}

/// A snapshot that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedSnapshot {
    /// Its run, by its key.
    pub run: String,
    /// What it says; `None` where it can't be read.
    pub said: Option<SaidBySnapshot>,
    /// How much is wrong with it and the objects of its run.
    pub problems: usize,
}

/// What a snapshot says of its run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaidBySnapshot {
    /// The moment it was scheduled for.
    pub scheduled_at: Timestamp,
    /// Whether it saw everything.
    pub status: RunStatus,
    /// How many targets it had.
    pub targets: usize,
    /// How many reports it archived.
    pub reports: u64,
    /// How many of them have their entries in the archive.
    pub entries: u64,
    /// How many objects it wrote besides the snapshot.
    pub objects: usize,
    /// Where it stands.
    pub place: Place,
}

/// Where a snapshot stands among the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// On the chain that goes back from `latest.json`.
    Chain,
    /// Beside it: no snapshot on the chain follows it.
    Aside,
    /// It is scoped, and has no place on a chain.
    Scoped,
}

/// The head of the chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its key, from `v1/` on.
    pub key: String,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// How many snapshots before it on the chain the digest is that was given; `None` where none was given,
    /// or where it isn't on the chain.
    pub given_before: Option<usize>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
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

/// The columns of the table that hold numbers, which stand to the right.
const NUMBERS: std::ops::Range<usize> = 3..7;

impl CheckedSnapshot {
    fn cells(&self) -> [String; 8] {
        let unknown = || "?".to_owned();
        let place = self.said.map(|said| said.place);
        let verdict = match (self.problems, place) {
            (0, Some(Place::Aside)) => "ok, not on the chain".to_owned(),
            (0, Some(Place::Scoped)) => "ok, scoped".to_owned(),
            (0, _) => "ok".to_owned(),
            (count, _) => plural(count, "problem"),
        };
        let run = self.run.clone();
        let Some(said) = self.said else {
            let [a, b, c, d, e, f] = std::array::from_fn(|_| unknown());
            return [run, a, b, c, d, e, f, verdict];
        };
        [
            run,
            said.scheduled_at.to_string(),
            said.status.as_str().to_owned(),
            said.targets.to_string(),
            said.reports.to_string(),
            said.entries.to_string(),
            said.objects.to_string(),
            verdict,
        ]
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        rows.extend(self.snapshots.iter().map(CheckedSnapshot::cells));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: [usize; 8] = std::array::from_fn(width);
        for row in &rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                line += &match NUMBERS.contains(&column) {
                    true => format!("{cell:>width$}  "),
                    false => format!("{cell:<width$}  "),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        if !self.notes.is_empty() {
            writeln!(f, "\nNotes:")?;
        }
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        if !self.problems.is_empty() {
            writeln!(f, "\nProblems:")?;
        }
        for Problem { key, what } in &self.problems {
            writeln!(f, "  {key}: {what}")?;
        }
        writeln!(f)?;
        if let Some(head) = &self.head {
            writeln!(
                f,
                "The head is {} with the SHA-256 {}",
                head.key, head.sha256
            )?;
            match head.given_before {
                None => {}
                Some(0) => writeln!(f, "It is the one that was given")?,
                Some(before) => {
                    let snapshots = plural(before, "snapshot");
                    writeln!(
                        f,
                        "The one that was given is on the chain, {snapshots} before it"
                    )?;
                }
            }
        }
        let outcome = match self.problems.len() {
            0 => "clean".to_owned(),
            count => plural(count, "problem"),
        };
        writeln!(
            f,
            "{}: {} and {}, {} bytes: {outcome}",
            self.location,
            plural(self.snapshots.len(), "snapshot"),
            plural(self.objects, "other object"),
            self.bytes
        )
    }
}

fn plural(count: usize, unit: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{ending}")
}
