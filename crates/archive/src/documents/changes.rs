//! What is different from the last run: findings that opened or were resolved, reports that came and went.

use std::ops::AddAssign;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_fields::add_fields;
use crate::domain::findings::{FindingKind, FindingSet, finding_id};
use crate::domain::report::ReportState;
use crate::domain::target::{AccountId, Region, Target};
use crate::domain::top_list::TopList;

/// What is different from the snapshot that `previous` names.
///
/// Replayed from the first snapshot on, the changes give the findings and reports of the last one, as long
/// as every list is whole and every target was read. Reports without an ID are left out, for nothing tells
/// them apart.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Changes {
    /// Findings by what became of them.
    pub findings: FindingChanges,
    /// The IDs of findings that were not there before, sorted.
    pub opened: Vec<String>,
    /// The findings that opened and are not listed.
    pub opened_omitted: u64,
    /// The IDs of findings that hold no more, sorted.
    pub resolved: Vec<String>,
    /// The findings that were resolved and are not listed.
    pub resolved_omitted: u64,
    /// Reports by what became of them.
    pub reports: ReportChanges,
    /// Reports that were not there before, sorted.
    pub appeared: Vec<AppearedReport>,
    /// The reports that appeared and are not listed.
    pub appeared_omitted: u64,
    /// Reports that EC2 lists no more, sorted.
    pub gone: Vec<GoneReport>,
    /// The reports that are gone and not listed.
    pub gone_omitted: u64,
    /// Reports of another state than before, sorted.
    pub changed_state: Vec<ChangedReport>,
    /// The reports of another state that are not listed.
    pub changed_state_omitted: u64,
    /// `account_id/region` of the targets that the previous run had not, sorted.
    pub targets_added: Vec<String>,
    /// `account_id/region` of the targets that only the previous run had, sorted; what is known of them is
    /// neither resolved nor gone.
    pub targets_removed: Vec<String>,
    /// `account_id/region` of the targets of which the earlier objects are lost or damaged, sorted.
    pub targets_not_compared: Vec<String>,
}

/// Findings by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FindingChanges {
    /// Not there before.
    pub opened: u64,
    /// There before, and now.
    pub continuing: u64,
    /// There before, and not now, in a target that was read to its end.
    pub resolved: u64,
    /// There before; the target could not be read to its end, and the report was not seen.
    pub unseen: u64,
}

/// Reports by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReportChanges {
    /// Not there before.
    pub appeared: u64,
    /// There before, and not now, in a target that was read to its end.
    pub gone: u64,
    /// Of those that are gone, the ones that were available and whose entries nobody archived.
    pub gone_unarchived: u64,
    /// Of another state than before.
    pub changed_state: u64,
    /// There before; the target could not be read to its end, and the report was not seen.
    pub unseen: u64,
}

/// A report that was not there before.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AppearedReport {
    /// The account that owns the AMI.
    pub account_id: AccountId,
    /// The Region of the report.
    pub region: Region,
    /// The report.
    pub report_id: String,
    /// The AMI that it is about.
    pub image_id: Option<String>,
    /// Its state.
    pub state: Option<ReportState>,
}

/// A report that EC2 lists no more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GoneReport {
    /// The account that owns the AMI.
    pub account_id: AccountId,
    /// The Region of the report.
    pub region: Region,
    /// The report.
    pub report_id: String,
    /// The AMI that it was about.
    pub image_id: Option<String>,
    /// Whether its entries are in the archive.
    pub archived: bool,
}

/// A report of another state than before.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangedReport {
    /// The account that owns the AMI.
    pub account_id: AccountId,
    /// The Region of the report.
    pub region: Region,
    /// The report.
    pub report_id: String,
    /// The AMI that it is about.
    pub image_id: Option<String>,
    /// The state before.
    pub from: Option<ReportState>,
    /// The state now.
    pub to: Option<ReportState>,
}

/// A report of a target, as the changes tell of it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The target.
    pub target: &'a Target,
    /// The report.
    pub report_id: &'a str,
    /// Its AMI.
    pub image_id: Option<&'a str>,
}

/// The changes so far, of one target or of several.
#[derive(Clone, Default, Debug)]
pub struct ChangeTally {
    findings: FindingChanges,
    opened: TopList<String>,
    resolved: TopList<String>,
    reports: ReportChanges,
    appeared: TopList<AppearedReport>,
    gone: TopList<GoneReport>,
    changed_state: TopList<ChangedReport>,
    not_compared: Vec<String>,
}

impl ChangeTally {
    /// Tells of a target of which nothing can be said, for what was known of it is lost or damaged.
    pub fn not_compared(target: &Target) -> Self {
        Self {
            not_compared: vec![target.to_string()],
            ..Self::default()
        }
    }

    /// Whether there is something to compare with.
    pub fn compares(&self) -> bool {
        self.not_compared.is_empty()
    }

    /// Counts the findings of a report that are what they were.
    pub fn add_continuing(&mut self, findings: FindingSet) {
        self.findings.continuing += findings.iter().count() as u64;
    }

    /// Compares a report's findings with those it had, and lists what is different.
    pub fn compare_findings(&mut self, subject: Subject<'_>, before: FindingSet, now: FindingSet) {
        let id = |kind: FindingKind| finding_id(subject.target, Some(subject.report_id), kind);
        for kind in FindingKind::ALL {
            match (before.contains(kind), now.contains(kind)) {
                (true, true) => self.findings.continuing += 1,
                (false, true) => {
                    self.findings.opened += 1;
                    self.opened.insert(id(kind));
                }
                (true, false) => {
                    self.findings.resolved += 1;
                    self.resolved.insert(id(kind));
                }
                (false, false) => {}
            }
        }
    }

    /// Takes in a report that was not there before.
    pub fn add_appeared(&mut self, subject: Subject<'_>, state: Option<&ReportState>) {
        self.reports.appeared += 1;
        let Target { account_id, region } = subject.target.clone();
        self.appeared.insert(AppearedReport {
            account_id,
            region,
            report_id: subject.report_id.to_owned(),
            image_id: subject.image_id.map(str::to_owned),
            state: state.cloned(),
        });
    }

    /// Takes in a report that EC2 lists no more.
    pub fn add_gone(
        &mut self,
        subject: Subject<'_>,
        findings: FindingSet,
        state: Option<&ReportState>,
        archived: bool,
    ) {
        self.reports.gone += 1;
        if !archived && state == Some(&ReportState::Available) {
            self.reports.gone_unarchived += 1;
        }
        self.compare_findings(subject, findings, FindingSet::default());
        let Target { account_id, region } = subject.target.clone();
        self.gone.insert(GoneReport {
            account_id,
            region,
            report_id: subject.report_id.to_owned(),
            image_id: subject.image_id.map(str::to_owned),
            archived,
        });
    }

    /// Counts a report of a target that was not read to its end, and that was not seen.
    pub fn add_unseen(&mut self, findings: FindingSet) {
        self.reports.unseen += 1;
        self.findings.unseen += findings.iter().count() as u64;
    }

    /// Takes in a report of another state than before.
    pub fn add_changed_state(
        &mut self,
        subject: Subject<'_>,
        from: Option<ReportState>,
        to: Option<ReportState>,
    ) {
        self.reports.changed_state += 1;
        let Target { account_id, region } = subject.target.clone();
        self.changed_state.insert(ChangedReport {
            account_id,
            region,
            report_id: subject.report_id.to_owned(),
            image_id: subject.image_id.map(str::to_owned),
            from,
            to,
        });
    }

    /// The document.
    pub fn into_changes(self, targets_added: Vec<String>, targets_removed: Vec<String>) -> Changes {
        let Self {
            findings,
            opened,
            resolved,
            reports,
            appeared,
            gone,
            changed_state,
            not_compared: mut targets_not_compared,
        } = self;
        let (opened, opened_omitted) = listed(opened, findings.opened);
        let (resolved, resolved_omitted) = listed(resolved, findings.resolved);
        let (appeared, appeared_omitted) = listed(appeared, reports.appeared);
        let (gone, gone_omitted) = listed(gone, reports.gone);
        let (changed_state, changed_state_omitted) = listed(changed_state, reports.changed_state);
        targets_not_compared.sort();
        Changes {
            findings,
            opened,
            opened_omitted,
            resolved,
            resolved_omitted,
            reports,
            appeared,
            appeared_omitted,
            gone,
            gone_omitted,
            changed_state,
            changed_state_omitted,
            targets_added,
            targets_removed,
            targets_not_compared,
        }
    }
}

/// Returns what is listed, in order, and how many of the total are omitted.
fn listed<T: Ord>(list: TopList<T>, total: u64) -> (Vec<T>, u64) {
    let listed = list.into_sorted_vec();
    let omitted = total - listed.len() as u64;
    (listed, omitted)
}

add_fields! {
    FindingChanges { opened, continuing, resolved, unseen }
    ReportChanges { appeared, gone, gone_unarchived, changed_state, unseen }
}

impl AddAssign for ChangeTally {
    fn add_assign(&mut self, other: Self) {
        self.findings += other.findings;
        self.opened += other.opened;
        self.resolved += other.resolved;
        self.reports += other.reports;
        self.appeared += other.appeared;
        self.gone += other.gone;
        self.changed_state += other.changed_state;
        self.not_compared.extend(other.not_compared);
    }
}
