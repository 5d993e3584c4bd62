//! The results of auditing targets, from which a snapshot is built.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::changes::ChangeTally;
use super::counts::{Counts, TargetCounts};
use super::ledger::{ImagesLedger, LedgerLine, Renewals, TargetError, TargetStatus};
use crate::domain::findings::ListedFindings;
use crate::domain::target::Target;

/// The result of auditing one target: ledger line, counts, findings and changes.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct TargetOutcome {
    /// The target's line of the ledger.
    pub ledger: LedgerLine,
    /// The reports and findings that are archived, and the target itself.
    pub counts: Counts,
    /// The most urgent findings of the target.
    pub findings: ListedFindings,
    /// The changes since the previous run; `None` if there is nothing to compare with.
    pub changes: Option<ChangeTally>,
}

impl TargetOutcome {
    /// Makes the result of a target of which nothing was read.
    pub fn unread(target: Target, status: TargetStatus, error: TargetError) -> Self {
        let mut counts = Counts::default();
        counts.add_target(status);
        let Target { account_id, region } = target;
        let ledger = LedgerLine {
            account_id,
            region,
            status,
            pages: 0,
            reports: 0,
            error: Some(error),
            object: None,
            entries_object: None,
            images: Some(ImagesLedger::default()),
            earlier_objects: Vec::new(),
        };
        Self {
            ledger,
            counts,
            findings: ListedFindings::default(),
            changes: None,
        }
    }
}

/// The merged results of all targets so far.
#[derive(Default, Debug)]
pub struct Tally {
    pub(super) targets: Vec<LedgerLine>,
    pub(super) counts: Counts,
    pub(super) findings: ListedFindings,
    pub(super) changes: ChangeTally,
}

impl Tally {
    /// Adds the result of one more target; the order does not matter.
    pub fn add(&mut self, outcome: TargetOutcome) {
        self.targets.push(outcome.ledger);
        self.counts += outcome.counts;
        self.findings += outcome.findings;
        if let Some(changes) = outcome.changes {
            self.changes += changes;
        }
    }

    /// Records the reports that EC2 was asked for, once every target is added.
    pub fn set_renewals(&mut self, renewals: BTreeMap<Target, Renewals>) {
        set_renewals(&mut self.targets, renewals);
    }

    /// Returns whether anything was read and archived.
    pub fn has_archived(&self) -> bool {
        let TargetCounts {
            complete,
            incomplete,
            ..
        } = self.counts.targets;
        complete + incomplete > 0
    }
}

impl Extend<TargetOutcome> for Tally {
    fn extend<I: IntoIterator<Item = TargetOutcome>>(&mut self, outcomes: I) {
        outcomes.into_iter().for_each(|outcome| self.add(outcome));
    }
}

/// Records in the lines of a ledger the reports that EC2 was asked for.
pub fn set_renewals<'a>(
    ledger: impl IntoIterator<Item = &'a mut LedgerLine>,
    mut renewals: BTreeMap<Target, Renewals>,
) {
    for line in ledger {
        if let Some(renewed) = renewals.remove(&line.target()) {
            line.images.get_or_insert_default().renewals = Some(renewed);
        }
    }
}
