//! The totals of a run.

use std::ops::AddAssign;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::add_fields::add_fields;
use super::ledger::TargetStatus;
use crate::domain::entries_status::EntriesStatus;
use crate::domain::findings::{FindingKind, FindingSet};
use crate::domain::report::ReportState;
use crate::domain::run_id::RunId;
use crate::domain::usage::{Coverage, Verdict};

/// Whether a run read everything that it was asked to audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Every target was read completely, or its Region is not enabled.
    Complete,
    /// At least one target is incomplete or failed.
    Partial,
}

impl RunStatus {
    /// Returns the word that is written in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
        }
    }
}

/// The totals of a run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Targets by status.
    pub targets: TargetCounts,
    /// Reports by state.
    pub reports: ReportCounts,
    /// Findings by kind.
    pub findings: FindingCounts,
    /// Reports by where their entries are.
    pub entries: EntriesCounts,
    /// AMIs by verdict; `None` before version 0.3.0, which gave none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageCounts>,
}

/// Targets by status.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each field counts the status of its name")]
pub struct TargetCounts {
    pub complete: u64,
    pub incomplete: u64,
    pub failed: u64,
    pub skipped: u64,
}

/// Reports by state; `other` counts missing states and those unknown to this version.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each field counts the state of its name")]
pub struct ReportCounts {
    pub total: u64,
    pub available: u64,
    pub pending: u64,
    pub error: u64,
    pub other: u64,
}

/// Findings by kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each field counts the kind of its name")]
pub struct FindingCounts {
    pub total: u64,
    pub unarchived: u64,
    pub expiring: u64,
    pub expired: u64,
    pub failed: u64,
    pub stuck: u64,
    /// About AMIs; `None` before version 0.3.0, which did not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncovered: Option<u64>,
    pub unrecognised_state: u64,
    pub undated: u64,
}

/// Reports by where their entries are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each field counts the status of its name")]
pub struct EntriesCounts {
    pub archived: u64,
    pub pending: u64,
    pub not_available: u64,
    pub failed: u64,
    /// Of the archived ones, those that this run fetched.
    pub fetched: u64,
}

/// AMIs by verdict.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each field counts the verdict of its name")]
pub struct ImageCounts {
    pub total: u64,
    pub gone: u64,
    pub in_use: u64,
    pub no_use_observed: u64,
    pub last_seen_in_use: u64,
    pub unknown: u64,
    /// Of all of them, those that are not covered by a report.
    pub uncovered: u64,
}

impl ImageCounts {
    /// Counts an AMI.
    pub fn add(&mut self, verdict: Verdict, coverage: Option<Coverage>) {
        self.total += 1;
        self.uncovered += u64::from(coverage == Some(Coverage::Uncovered));
        *match verdict {
            Verdict::Gone => &mut self.gone,
            Verdict::InUse => &mut self.in_use,
            Verdict::NoUseObserved => &mut self.no_use_observed,
            Verdict::LastSeenInUse => &mut self.last_seen_in_use,
            Verdict::Unknown => &mut self.unknown,
        } += 1;
    }

    /// Returns how many AMIs have a verdict.
    pub fn of_verdict(&self, verdict: Verdict) -> u64 {
        match verdict {
            Verdict::Gone => self.gone,
            Verdict::InUse => self.in_use,
            Verdict::NoUseObserved => self.no_use_observed,
            Verdict::LastSeenInUse => self.last_seen_in_use,
            Verdict::Unknown => self.unknown,
        }
    }
}

impl Counts {
    /// Counts one report, its findings and its entries; `run_id` is the current run.
    pub fn add_report(
        &mut self,
        state: Option<&ReportState>,
        findings: FindingSet,
        entries: &EntriesStatus,
        run_id: &RunId,
    ) {
        match entries {
            EntriesStatus::Archived { run_id: by, .. } => {
                self.entries.archived += 1;
                self.entries.fetched += u64::from(by == run_id);
            }
            EntriesStatus::Pending { .. } => self.entries.pending += 1,
            EntriesStatus::NotAvailable => self.entries.not_available += 1,
            EntriesStatus::Failed { .. } => self.entries.failed += 1,
        }
        self.reports.total += 1;
        *match state {
            Some(ReportState::Available) => &mut self.reports.available,
            Some(ReportState::Pending) => &mut self.reports.pending,
            Some(ReportState::Error) => &mut self.reports.error,
            Some(ReportState::Other(_)) | None => &mut self.reports.other,
        } += 1;
        for kind in findings.iter() {
            self.findings.total += 1;
            *match kind {
                FindingKind::Unarchived => &mut self.findings.unarchived,
                FindingKind::Failed => &mut self.findings.failed,
                FindingKind::Expired => &mut self.findings.expired,
                FindingKind::Expiring => &mut self.findings.expiring,
                FindingKind::Stuck => &mut self.findings.stuck,
                // Of AMIs, and of no report.
                FindingKind::Uncovered => self.findings.uncovered.get_or_insert_default(),
                FindingKind::UnrecognisedState => &mut self.findings.unrecognised_state,
                FindingKind::Undated => &mut self.findings.undated,
            } += 1;
        }
    }

    /// Counts the AMIs of a target, and the findings about them.
    pub fn add_images(&mut self, images: ImageCounts) {
        self.findings.total += images.uncovered;
        *self.findings.uncovered.get_or_insert_default() += images.uncovered;
        *self.images.get_or_insert_default() += images;
    }

    /// Counts one target.
    pub fn add_target(&mut self, status: TargetStatus) {
        *match status {
            TargetStatus::Complete => &mut self.targets.complete,
            TargetStatus::Incomplete => &mut self.targets.incomplete,
            TargetStatus::Failed => &mut self.targets.failed,
            TargetStatus::Skipped => &mut self.targets.skipped,
        } += 1;
    }

    /// Returns the status of a run with these totals.
    pub fn run_status(&self) -> RunStatus {
        match self.targets {
            TargetCounts {
                incomplete: 0,
                failed: 0,
                ..
            } => RunStatus::Complete,
            _ => RunStatus::Partial,
        }
    }
}

add_fields! {
    TargetCounts { complete, incomplete, failed, skipped }
    ReportCounts { total, available, pending, error, other }
    EntriesCounts { archived, pending, not_available, failed, fetched }
    ImageCounts { total, gone, in_use, no_use_observed, last_seen_in_use, unknown, uncovered }
}

impl AddAssign for FindingCounts {
    fn add_assign(&mut self, other: Self) {
        let Self {
            total,
            unarchived,
            expiring,
            expired,
            failed,
            stuck,
            uncovered,
            unrecognised_state,
            undated,
        } = other;
        self.total += total;
        self.unarchived += unarchived;
        self.expiring += expiring;
        self.expired += expired;
        self.failed += failed;
        self.stuck += stuck;
        if let Some(uncovered) = uncovered {
            *self.uncovered.get_or_insert_default() += uncovered;
        }
        self.unrecognised_state += unrecognised_state;
        self.undated += undated;
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self {
            targets,
            reports,
            findings,
            entries,
            images,
        } = other;
        self.targets += targets;
        self.reports += reports;
        self.findings += findings;
        self.entries += entries;
        if let Some(images) = images {
            *self.images.get_or_insert_default() += images;
        }
    }
}
