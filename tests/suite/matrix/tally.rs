//! Counts what the cases did, and prints the totals.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use super::{case::Case, number_from_environment};

/// What cases did.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    pub(super) cases: u64,
    pub(super) faults: u64,
    pub(super) runs: u64,
    pub(super) snapshots: u64,
    pub(super) errors: u64,
    pub(super) killed: u64,
    pub(super) reports: u64,
    pub(super) losses: u64,
}

/// The totals of this process so far; `None` before the first row.
static TOTALS: Mutex<Option<Tally>> = Mutex::new(None);

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.faults += other.faults;
        self.runs += other.runs;
        self.snapshots += other.snapshots;
        self.errors += other.errors;
        self.killed += other.killed;
        self.reports += other.reports;
        self.losses += other.losses;
    }

    fn row(&self, test: &str) -> String {
        let columns = [
            self.cases,
            self.faults,
            self.runs,
            self.snapshots,
            self.errors,
            self.killed,
            self.reports,
            self.losses,
        ];
        row(test, columns)
    }

    /// The line that ends the tally of a test.
    fn summary(&self) -> String {
        let Self {
            faults,
            runs,
            snapshots,
            reports,
            losses,
            ..
        } = self;
        format!(
            "{faults} faults injected, {runs} runs, {snapshots} snapshots, {reports} reports checked, {losses} losses\n"
        )
    }
}

fn row(test: &str, columns: [impl std::fmt::Display; 8]) -> String {
    let mut row = format!("{test:12}");
    for column in columns {
        write!(row, "{column:>11}").unwrap();
    }
    row + "\n"
}

/// A case that broke a check.
pub(super) struct Loss<'a> {
    pub(super) case: &'a Case,
    pub(super) message: String,
}

/// The losses, and the commands that replay those of seeds.
pub(super) fn written(losses: &[Loss<'_>]) -> String {
    if losses.is_empty() {
        return String::new();
    }
    let mut text = "Lost:\n".to_owned();
    for Loss { case, message } in losses {
        writeln!(text, "{}: {message}\n    {:?}", case.name, case.attempts).unwrap();
    }
    let names = losses.iter().map(|loss| loss.case.name.as_str());
    let seeds: Vec<&str> = names
        .filter_map(|name| name.strip_prefix("seed "))
        .collect();
    if !seeds.is_empty() {
        text += "To replay a seed:\n";
        for seed in seeds {
            writeln!(text, "make faults SEED={seed}").unwrap();
        }
    }
    text
}

/// Prints the row of a test and the totals so far, past the test runner, which captures only `print!` and
/// `eprint!`. Prints nothing if the matrix is part of the suite.
pub(super) fn print(test: &str, tally: Tally, losses: &[Loss<'_>]) {
    let is_asked_for = ["FAULT_SEEDS", "FAULT_SEED"]
        .iter()
        .any(|name| number_from_environment(name).is_some());
    if !is_asked_for {
        return;
    }
    let mut totals = TOTALS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = String::new();
    if totals.is_none() {
        #[rustfmt::skip]
        let names = ["cases", "faults", "runs", "snapshots", "errors", "killed", "reports", "losses"];
        text += &row("test", names);
    }
    let totals = totals.get_or_insert_default();
    totals.add(tally);
    text += &tally.row(test);
    text += &totals.summary();
    text += &written(losses);
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}
