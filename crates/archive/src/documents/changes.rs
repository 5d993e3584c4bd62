//! The changes since the previous run: findings opened and resolved, reports appeared, gone and changed.

use std::ops::AddAssign;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_fields::add_fields;
use crate::domain::findings::{FindingKind, FindingSet, finding_id, uncovered_id};
use crate::domain::report::ReportState;
use crate::domain::target::{AccountId, Region, Target};
use crate::domain::top_list::TopList;
use crate::domain::usage::Verdict;

/// The changes since the snapshot that `previous` names.
///
/// Replayed from the first snapshot on, the changes yield the findings and reports of the last one, as long
/// as nothing is omitted from a list and every target was read. Reports without an ID are left out, because
/// they cannot be told apart.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Changes {
    /// Findings by change.
    pub findings: FindingChanges,
    /// IDs of new findings, sorted.
    pub opened: Vec<String>,
    /// How many opened findings are not listed.
    pub opened_omitted: u64,
    /// IDs of findings that no longer apply, sorted.
    pub resolved: Vec<String>,
    /// How many resolved findings are not listed.
    pub resolved_omitted: u64,
    /// Reports by change.
    pub reports: ReportChanges,
    /// New reports, sorted.
    pub appeared: Vec<AppearedReport>,
    /// How many new reports are not listed.
    pub appeared_omitted: u64,
    /// Reports that EC2 no longer lists, sorted.
    pub gone: Vec<GoneReport>,
    /// How many reports that are gone are not listed.
    pub gone_omitted: u64,
    /// Reports whose state has changed, sorted.
    pub changed_state: Vec<ChangedReport>,
    /// How many reports with a changed state are not listed.
    pub changed_state_omitted: u64,
    /// Verdicts that have changed; `None` before version 0.3.0, which gave none.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub verdicts: Option<VerdictChanges>,
    /// `account_id/region` of the targets that the previous run did not have, sorted.
    pub targets_added: Vec<String>,
    /// `account_id/region` of the targets that only the previous run had, sorted; their findings are not
    /// resolved, and their reports are not gone.
    pub targets_removed: Vec<String>,
    /// `account_id/region` of the targets whose earlier objects are missing or damaged, sorted.
    pub targets_not_compared: Vec<String>,
}

/// Findings by change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FindingChanges {
    /// New ones.
    pub opened: u64,
    /// Those that still apply.
    pub continuing: u64,
    /// Those that no longer apply, in targets that were read completely.
    pub resolved: u64,
    /// Those of reports and AMIs that were not seen, in targets that could not be read completely.
    pub unseen: u64,
}

/// Reports by change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReportChanges {
    /// New ones.
    pub appeared: u64,
    /// Those that EC2 no longer lists, in targets that were read completely.
    pub gone: u64,
    /// Of those that are gone, the available ones whose entries were never archived.
    pub gone_unarchived: u64,
    /// Those whose state has changed.
    pub changed_state: u64,
    /// Those of reports that were not seen, in targets that could not be read completely.
    pub unseen: u64,
}

/// A new report.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AppearedReport {
    /// The account that owns the AMI.
    pub account_id: AccountId,
    /// The Region of the report.
    pub region: Region,
    /// The report.
    pub report_id: String,
    /// The AMI that the report is about.
    pub image_id: Option<String>,
    /// Its state.
    pub state: Option<ReportState>,
}

/// A report that EC2 no longer lists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GoneReport {
    /// The account that owns the AMI.
    pub account_id: AccountId,
    /// The Region of the report.
    pub region: Region,
    /// The report.
    pub report_id: String,
    /// The AMI that the report was about.
    pub image_id: Option<String>,
    /// Whether its entries are archived.
    pub archived: bool,
}

/// A report whose state has changed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangedReport {
    /// The account that owns the AMI.
    pub account_id: AccountId,
    /// The Region of the report.
    pub region: Region,
    /// The report.
    pub report_id: String,
    /// The AMI that the report is about.
    pub image_id: Option<String>,
    /// The previous state.
    pub from: Option<ReportState>,
    /// The current state.
    pub to: Option<ReportState>,
}

/// Verdicts that have changed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VerdictChanges {
    /// AMIs whose verdict has changed, sorted; a new AMI has not changed.
    pub verdicts: Vec<ChangedVerdict>,
    /// How many AMIs with a changed verdict are not listed.
    pub verdicts_omitted: u64,
    /// `account_id/region` of the targets whose AMIs begin anew, because the lines of earlier runs are missing
    /// or damaged, sorted.
    pub images_not_carried: Vec<String>,
}

/// An AMI whose verdict has changed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangedVerdict {
    /// The account that owns the AMI.
    pub account_id: AccountId,
    /// Its Region.
    pub region: Region,
    /// The AMI.
    pub image_id: String,
    /// The previous verdict.
    pub from: Verdict,
    /// The current verdict.
    pub to: Verdict,
}

/// A report of a target, as the changes name it.
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
#[derive(Clone, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChangeTally {
    /// Findings by change.
    findings: FindingChanges,
    /// IDs of new findings, the first 1,000.
    opened: TopList<String>,
    /// IDs of findings that no longer apply, the first 1,000.
    resolved: TopList<String>,
    /// Reports by change.
    reports: ReportChanges,
    /// New reports, the first 1,000.
    appeared: TopList<AppearedReport>,
    /// Reports that EC2 no longer lists, the first 1,000.
    gone: TopList<GoneReport>,
    /// Reports whose state has changed, the first 1,000.
    changed_state: TopList<ChangedReport>,
    /// AMIs whose verdict has changed, the first 1,000.
    verdicts: TopList<ChangedVerdict>,
    /// How many verdicts have changed.
    changed_verdicts: u64,
    /// `account_id/region` of the target, if its earlier objects are missing or damaged.
    not_compared: Vec<String>,
    /// `account_id/region` of the target, if its AMIs begin anew.
    images_not_carried: Vec<String>,
}

impl ChangeTally {
    /// Makes the changes of a target that cannot be compared because its earlier objects are missing or damaged.
    pub fn not_compared(target: &Target) -> Self {
        Self {
            not_compared: vec![target.to_string()],
            ..Self::default()
        }
    }

    /// Returns whether the target can be compared.
    pub fn compares(&self) -> bool {
        self.not_compared.is_empty()
    }

    /// Counts the findings of a report that has not changed.
    pub fn add_continuing(&mut self, findings: FindingSet) {
        self.findings.continuing += findings.iter().count() as u64;
    }

    /// Compares a report's findings with the previous ones, and lists the changes.
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

    /// Compares whether an AMI is uncovered with what the run before said; `now` is `None` if that is not known.
    pub fn compare_coverage(
        &mut self,
        target: &Target,
        image_id: &str,
        before: bool,
        now: Option<bool>,
    ) {
        match (before, now) {
            (true, Some(true)) => self.findings.continuing += 1,
            (false, Some(true)) => {
                self.findings.opened += 1;
                self.opened.insert(uncovered_id(target, image_id));
            }
            (true, Some(false)) => {
                self.findings.resolved += 1;
                self.resolved.insert(uncovered_id(target, image_id));
            }
            (true, None) => self.findings.unseen += 1,
            (false, Some(false) | None) => {}
        }
    }

    /// Adds a new report.
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

    /// Adds a report that EC2 no longer lists.
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

    /// Counts a report that was not seen, in a target that was not read completely.
    pub fn add_unseen(&mut self, findings: FindingSet) {
        self.reports.unseen += 1;
        self.findings.unseen += findings.iter().count() as u64;
    }

    /// Adds a report whose state has changed.
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

    /// Adds an AMI whose verdict has changed.
    pub fn add_changed_verdict(
        &mut self,
        target: &Target,
        image_id: &str,
        from: Verdict,
        to: Verdict,
    ) {
        self.changed_verdicts += 1;
        let Target { account_id, region } = target.clone();
        self.verdicts.insert(ChangedVerdict {
            account_id,
            region,
            image_id: image_id.to_owned(),
            from,
            to,
        });
    }

    /// Adds a target whose AMIs begin anew.
    pub fn add_images_not_carried(&mut self, target: &Target) {
        self.images_not_carried.push(target.to_string());
    }

    /// Returns the document.
    pub fn into_changes(self, targets_added: Vec<String>, targets_removed: Vec<String>) -> Changes {
        let Self {
            findings,
            opened,
            resolved,
            reports,
            appeared,
            gone,
            changed_state,
            verdicts,
            changed_verdicts,
            not_compared: mut targets_not_compared,
            mut images_not_carried,
        } = self;
        let (opened, opened_omitted) = listed(opened, findings.opened);
        let (resolved, resolved_omitted) = listed(resolved, findings.resolved);
        let (appeared, appeared_omitted) = listed(appeared, reports.appeared);
        let (gone, gone_omitted) = listed(gone, reports.gone);
        let (changed_state, changed_state_omitted) = listed(changed_state, reports.changed_state);
        let (verdicts, verdicts_omitted) = listed(verdicts, changed_verdicts);
        targets_not_compared.sort();
        images_not_carried.sort();
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
            verdicts: Some(VerdictChanges {
                verdicts,
                verdicts_omitted,
                images_not_carried,
            }),
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
        self.verdicts += other.verdicts;
        self.changed_verdicts += other.changed_verdicts;
        self.not_compared.extend(other.not_compared);
        self.images_not_carried.extend(other.images_not_carried);
    }
}
