//! The documents of the archive: a report's line, an entry's line, the ledger of targets and the snapshot.
//!
//! Members are written in the order in which they are declared here, and lists are sorted, so that the
//! same facts give the same bytes.

use std::collections::BTreeSet;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::documents::changes::{ChangeTally, Changes};
use crate::domain::findings::{Finding, FindingKind, KindSet, ListedFindings, Policy};
use crate::domain::report::{ReportState, ResourceType, Tags, UsageEntry, UsageReport};
use crate::domain::target::{AccountId, Region, Target};
use crate::domain::timestamp::Timestamp;
use crate::layout::RunId;

/// The version of the documents' shape; it rises when a member changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// The name of the program that writes snapshots.
pub const AUDITOR_NAME: &str = "image-usage-auditor";

/// One report as a line of a target's object.
#[derive(Serialize, Debug, JsonSchema)]
pub struct ReportLine<'a> {
    /// What EC2 tells of it.
    #[serde(flatten)]
    members: ReportMembers<'a>,
    /// What is wrong with it, most urgent first.
    findings: KindSet,
    /// Where its entries are.
    entries: &'a EntriesStatus,
}

impl<'a> ReportLine<'a> {
    /// Puts a report and what the rules say of it on a line.
    pub fn new(
        target: &'a Target,
        report: &'a UsageReport,
        findings: KindSet,
        entries: &'a EntriesStatus,
    ) -> Self {
        Self {
            members: ReportMembers::new(target, report),
            findings,
            entries,
        }
    }

    /// Puts a report on a line whose members have been written as JSON before, without reading them again.
    ///
    /// # Errors
    /// Fails when the line can't be written; a vector always can.
    pub fn write(
        line: &mut Vec<u8>,
        members: &[u8],
        findings: KindSet,
        entries: &EntriesStatus,
    ) -> serde_json::Result<()> {
        line.extend_from_slice(members.strip_suffix(b"}").unwrap_or(members));
        line.extend_from_slice(b",\"findings\":");
        serde_json::to_writer(&mut *line, &findings)?;
        line.extend_from_slice(b",\"entries\":");
        serde_json::to_writer(&mut *line, entries)?;
        line.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// What EC2 tells of a report, and the target that it is of.
#[derive(Serialize, Debug, JsonSchema)]
pub struct ReportMembers<'a> {
    /// The account that owns the AMI.
    account_id: &'a AccountId,
    /// The Region of the report.
    region: &'a Region,
    /// The ID that EC2 gave the report.
    report_id: Option<&'a str>,
    /// The AMI that the report is about.
    image_id: Option<&'a str>,
    /// How far EC2 is with it.
    state: Option<&'a ReportState>,
    /// Why it failed, word for word.
    state_reason: Option<&'a str>,
    /// When it was asked for.
    creation_time: Option<Timestamp>,
    /// When EC2 deletes it.
    expiration_time: Option<Timestamp>,
    /// The resource types it covers, in EC2's order.
    resource_types: &'a [ResourceType],
    /// The accounts it was asked to cover, in EC2's order; empty for all accounts.
    requested_account_ids: &'a [String],
    /// Its tags, by key.
    tags: &'a Tags,
}

impl<'a> ReportMembers<'a> {
    /// Takes a report's members.
    pub fn new(target: &'a Target, report: &'a UsageReport) -> Self {
        Self {
            account_id: &target.account_id,
            region: &target.region,
            report_id: report.report_id.as_deref(),
            image_id: report.image_id.as_deref(),
            state: report.state.as_ref(),
            state_reason: report.state_reason.as_deref(),
            creation_time: report.creation_time,
            expiration_time: report.expiration_time,
            resource_types: &report.resource_types,
            requested_account_ids: &report.requested_account_ids,
            tags: &report.tags,
        }
    }
}

/// A report's line, read back.
#[derive(Deserialize, Debug)]
pub struct ArchivedLine {
    /// The report.
    #[serde(flatten)]
    pub report: UsageReport,
    /// What the rules said of it.
    pub findings: KindSet,
    /// Where its entries are.
    pub entries: EntriesStatus,
}

/// Where a report's entries are.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
#[schemars(deny_unknown_fields)]
pub enum EntriesStatus {
    /// In the archive.
    Archived {
        /// The object that holds them.
        key: String,
        /// The run that fetched them.
        run_id: RunId,
        /// How many there are; 0 when EC2 has none: no usage observed.
        count: u64,
    },
    /// Not there yet: a later run may fetch them.
    Pending {
        /// Why an available report is not done yet; `None` where the report itself is pending.
        code: Option<String>,
    },
    /// EC2 has none for a report in this state.
    NotAvailable,
    /// EC2 did not give them.
    Failed {
        /// AWS's error code, or one of this project's own.
        code: String,
    },
}

impl EntriesStatus {
    /// The code of entries that the settings don't ask for.
    pub const NOT_WANTED: &'static str = "EntriesNotWanted";

    /// Why the entries are not in the archive, where there is more to say than the status.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Archived { .. } | Self::NotAvailable => None,
            Self::Pending { code } => code.as_deref(),
            Self::Failed { code } => Some(code),
        }
    }
}

/// One entry of a report as a line of an entries object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct EntryLine {
    /// The account that owns the AMI.
    pub account_id: AccountId,
    /// The Region of the report.
    pub region: Region,
    /// The report.
    pub report_id: String,
    /// The AMI that the report is about.
    pub image_id: Option<String>,
    /// When the report was asked for.
    pub report_creation_time: Option<Timestamp>,
    /// The account that uses the AMI; `None` for a report that observed no usage.
    pub consumer_account_id: Option<String>,
    /// The kind of resource that uses it; `None` for a report that observed no usage.
    pub resource_type: Option<String>,
    /// How many resources of the kind use it; 0 for a report that observed no usage.
    pub usage_count: Option<i64>,
}

impl EntryLine {
    /// Puts an entry on a line, under the report that was asked for.
    pub fn new(target: &Target, report_id: &str, entry: UsageEntry) -> Self {
        let Target { account_id, region } = target.clone();
        Self {
            account_id,
            region,
            report_id: report_id.to_owned(),
            image_id: entry.image_id,
            report_creation_time: entry.report_creation_time,
            consumer_account_id: entry.consumer_account_id,
            resource_type: entry.resource_type,
            usage_count: entry.usage_count,
        }
    }

    /// Whether this tells that a report has no entries.
    pub fn is_no_usage_observed(&self) -> bool {
        self.consumer_account_id.is_none()
            && self.resource_type.is_none()
            && self.usage_count == Some(0)
    }

    /// Tells that a report has no entries.
    pub fn no_usage_observed(
        target: &Target,
        report_id: &str,
        image_id: Option<String>,
        report_creation_time: Option<Timestamp>,
    ) -> Self {
        let entry = UsageEntry {
            report_id: None,
            image_id,
            report_creation_time,
            consumer_account_id: None,
            resource_type: None,
            usage_count: Some(0),
        };
        Self::new(target, report_id, entry)
    }
}

/// What a run did for one target, as the ledger tells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LedgerLine {
    /// The account that was looked at.
    pub account_id: AccountId,
    /// The Region that was looked at.
    pub region: Region,
    /// How far the look got.
    pub status: TargetStatus,
    /// The pages of the listing that were read.
    pub pages: u64,
    /// The reports that are archived.
    pub reports: u64,
    /// Why the look broke off, or why there was none; `None` for a complete target.
    pub error: Option<TargetError>,
    /// Where the reports lie; `None` where nothing was read.
    pub object: Option<ArchivedObject>,
    /// Where the entries lie that this run fetched; `None` where it fetched none.
    pub entries_object: Option<ArchivedObject>,
    /// For a target that was not read to its end, the objects of earlier runs that hold what is known of
    /// it, oldest first: a complete reading, and what came of later ones.
    pub earlier_objects: Vec<ArchivedObject>,
}

impl LedgerLine {
    /// The target.
    pub fn target(&self) -> Target {
        Target {
            account_id: self.account_id.clone(),
            region: self.region.clone(),
        }
    }
}

/// How far the look at a target got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetStatus {
    /// Every page was read and is archived.
    Complete,
    /// Some pages are archived, then the listing broke off.
    Incomplete,
    /// Nothing could be read.
    Failed,
    /// The Region isn't enabled for the account.
    Skipped,
}

impl TargetStatus {
    /// The word that stands in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// Why a target could not be read to its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{code}: {message}")]
pub struct TargetError {
    /// AWS's error code, or one of this project's own where no AWS service answered.
    pub code: String,
    /// The error in words; AWS's own where there are any.
    pub message: String,
    /// What AWS support asks for; `None` where no AWS service answered.
    pub request_id: Option<String>,
}

/// An object that a run wrote, so that anybody can check it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ArchivedObject {
    /// Its key in the archive's bucket.
    pub key: String,
    /// Its version; `None` in a bucket without versions.
    pub version_id: Option<String>,
    /// The SHA-256 of its bytes as stored, in hex.
    pub sha256: String,
    /// Its size as stored, in bytes.
    pub bytes: u64,
    /// Its lines, once decompressed.
    pub lines: u64,
}

/// What a run was asked to look at; `full` when it was asked for everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Scope {
    /// Whether nothing narrowed the run.
    pub full: bool,
    /// Only reports of these AMIs.
    pub image_ids: Vec<String>,
    /// Only these reports.
    pub report_ids: Vec<String>,
    /// Only reports that EC2's filters let through.
    pub filters: Vec<Filter>,
    /// These Regions instead of the configured ones.
    pub regions: Vec<Region>,
    /// These accounts instead of the configured ones.
    pub account_ids: Vec<AccountId>,
}

/// A filter of EC2: a report passes with any one of the values.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The filter's name, such as `state` or `tag:Owner`.
    pub name: String,
    /// The values that pass.
    pub values: Vec<String>,
}

/// The program that wrote a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Auditor {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Whether a run saw all that it was told to look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Every target was read to its end, or its Region isn't enabled.
    Complete,
    /// At least one target is incomplete or failed.
    Partial,
}

impl RunStatus {
    /// The word that stands in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
        }
    }
}

/// Everything that a run counted.
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
}

/// Targets by status.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each member counts the status of its name")]
pub struct TargetCounts {
    pub complete: u64,
    pub incomplete: u64,
    pub failed: u64,
    pub skipped: u64,
}

/// Reports by state; `other` counts the states that this version doesn't know, and missing ones.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each member counts the state of its name")]
pub struct ReportCounts {
    pub total: u64,
    pub available: u64,
    pub pending: u64,
    pub error: u64,
    pub other: u64,
}

/// Findings by kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each member counts the kind of its name")]
pub struct FindingCounts {
    pub total: u64,
    pub unarchived: u64,
    pub expiring: u64,
    pub expired: u64,
    pub failed: u64,
    pub stuck: u64,
    pub unrecognised_state: u64,
    pub undated: u64,
}

/// Reports by where their entries are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each member counts the status of its name")]
pub struct EntriesCounts {
    pub archived: u64,
    pub pending: u64,
    pub not_available: u64,
    pub failed: u64,
    /// Of those that are archived, the ones that this run fetched.
    pub fetched: u64,
}

impl Counts {
    /// Counts one report, its findings and its entries; `run_id` is the run that counts.
    pub fn add_report(
        &mut self,
        state: Option<&ReportState>,
        findings: KindSet,
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
                FindingKind::UnrecognisedState => &mut self.findings.unrecognised_state,
                FindingKind::Undated => &mut self.findings.undated,
            } += 1;
        }
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

    /// Adds what another part of the run counted.
    pub fn merge(&mut self, other: &Self) {
        let Self {
            targets,
            reports,
            findings,
            entries,
        } = other;
        let TargetCounts {
            complete,
            incomplete,
            failed,
            skipped,
        } = targets;
        self.targets.complete += complete;
        self.targets.incomplete += incomplete;
        self.targets.failed += failed;
        self.targets.skipped += skipped;
        let ReportCounts {
            total,
            available,
            pending,
            error,
            other,
        } = reports;
        self.reports.total += total;
        self.reports.available += available;
        self.reports.pending += pending;
        self.reports.error += error;
        self.reports.other += other;
        self.entries.archived += entries.archived;
        self.entries.pending += entries.pending;
        self.entries.not_available += entries.not_available;
        self.entries.failed += entries.failed;
        self.entries.fetched += entries.fetched;
        let FindingCounts {
            total,
            unarchived,
            expiring,
            expired,
            failed,
            stuck,
            unrecognised_state,
            undated,
        } = findings;
        self.findings.total += total;
        self.findings.unarchived += unarchived;
        self.findings.expiring += expiring;
        self.findings.expired += expired;
        self.findings.failed += failed;
        self.findings.stuck += stuck;
        self.findings.unrecognised_state += unrecognised_state;
        self.findings.undated += undated;
    }

    /// The status of a run that counted this.
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

/// What the audit of one target came to: its line of the ledger, its counts and its findings.
#[derive(Debug)]
pub struct TargetOutcome {
    /// The target's line of the ledger.
    pub ledger: LedgerLine,
    /// The reports and findings that are archived, and the target itself.
    pub counts: Counts,
    /// The most urgent findings of the target.
    pub findings: ListedFindings,
    /// What is different from before; `None` where there is nothing to compare with.
    pub changes: Option<ChangeTally>,
}

impl TargetOutcome {
    /// Tells of a target of which nothing was read.
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

/// The outcomes of all targets so far, put together.
#[derive(Default, Debug)]
pub struct Tally {
    targets: Vec<LedgerLine>,
    counts: Counts,
    findings: ListedFindings,
    changes: ChangeTally,
}

impl Tally {
    /// Takes in the outcome of one more target; the order doesn't matter.
    pub fn add(&mut self, outcome: TargetOutcome) {
        self.targets.push(outcome.ledger);
        self.counts.merge(&outcome.counts);
        self.findings.merge(outcome.findings);
        if let Some(changes) = outcome.changes {
            self.changes.merge(changes);
        }
    }

    /// Whether anything was read, and is archived.
    pub fn has_archived(&self) -> bool {
        let TargetCounts {
            complete,
            incomplete,
            ..
        } = self.counts.targets;
        complete + incomplete > 0
    }
}

/// One run, whole: written last, its presence says that everything it names is in the archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// The version of this document's shape.
    pub schema_version: u32,
    /// The run.
    pub run_id: RunId,
    /// The program that wrote it.
    pub auditor: Auditor,
    /// What the run was asked to look at.
    pub scope: Scope,
    /// The moment the run was scheduled for.
    pub scheduled_at: Timestamp,
    /// The run's start, and the `now` of all rules.
    pub started_at: Timestamp,
    /// When the last target was done.
    pub finished_at: Timestamp,
    /// The limits that the rules went by.
    pub policy: Policy,
    /// The last unscoped snapshot before this one; `None` for the first one, and in a scoped run.
    pub previous: Option<PreviousSnapshot>,
    /// Whether the run saw everything.
    pub status: RunStatus,
    /// The ledger: every target, sorted by account, then Region.
    pub targets: Vec<LedgerLine>,
    /// What was counted; always whole.
    pub counts: Counts,
    /// The most urgent findings, sorted.
    pub findings: Vec<Finding>,
    /// The findings that are counted but not listed.
    pub findings_omitted: u64,
    /// What is different from `previous`; `None` where there is none.
    pub changes: Option<Changes>,
}

/// The snapshot that another one follows, so that the archive is a chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PreviousSnapshot {
    /// Its run.
    pub run_id: RunId,
    /// Its key in the archive's bucket.
    pub key: String,
    /// The SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// What a snapshot is compared with: the one before it, and the targets that it had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Baseline {
    /// The snapshot before.
    pub previous: PreviousSnapshot,
    /// Its targets.
    pub targets: BTreeSet<Target>,
}

/// What a run knows of itself from its first moment on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunFacts {
    /// The run.
    pub run_id: RunId,
    /// What it was asked to look at.
    pub scope: Scope,
    /// The moment it was scheduled for.
    pub scheduled_at: Timestamp,
    /// Its start.
    pub started_at: Timestamp,
    /// The limits that its rules go by.
    pub policy: Policy,
}

impl Snapshot {
    /// Tells of a run that is done.
    pub fn new(
        facts: RunFacts,
        finished_at: Timestamp,
        tally: Tally,
        baseline: Option<Baseline>,
    ) -> Self {
        let Tally {
            mut targets,
            counts,
            findings,
            changes,
        } = tally;
        let (previous, changes) = match baseline {
            None => (None, None),
            Some(Baseline {
                previous,
                targets: before,
            }) => {
                let now: BTreeSet<Target> = targets.iter().map(LedgerLine::target).collect();
                let names = |targets: &BTreeSet<Target>, others: &BTreeSet<Target>| {
                    targets.difference(others).map(Target::to_string).collect()
                };
                let changes = changes.into_changes(names(&now, &before), names(&before, &now));
                (Some(previous), Some(changes))
            }
        };
        targets.sort_by(|a, b| (&a.account_id, &a.region).cmp(&(&b.account_id, &b.region)));
        let findings = findings.into_sorted_vec();
        let RunFacts {
            run_id,
            scope,
            scheduled_at,
            started_at,
            policy,
        } = facts;
        Self {
            schema_version: SCHEMA_VERSION,
            run_id,
            auditor: Auditor {
                name: AUDITOR_NAME.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            scope,
            scheduled_at,
            started_at,
            finished_at,
            policy,
            previous,
            status: counts.run_status(),
            targets,
            counts,
            findings_omitted: counts.findings.total - findings.len() as u64,
            findings,
            changes,
        }
    }

    /// The document: JSON on one line.
    ///
    /// # Errors
    /// Fails when a member can't be written as JSON, of which there is none.
    pub fn to_bytes(&self) -> serde_json::Result<Bytes> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes.into())
    }
}
