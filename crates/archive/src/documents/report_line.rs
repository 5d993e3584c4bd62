//! One report as a line of a target's object.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::entries_status::EntriesStatus;
use crate::domain::findings::FindingSet;
use crate::domain::report::{ReportState, ResourceType, Tags, UsageReport};
use crate::domain::target::{AccountId, Region, Target};
use crate::domain::timestamp::Timestamp;

/// One report as a line of a target's object.
#[derive(Serialize, Debug, JsonSchema)]
pub struct ReportLine<'a> {
    /// What EC2 tells of it.
    #[serde(flatten)]
    members: ReportFields<'a>,
    /// What is wrong with it, most urgent first.
    findings: FindingSet,
    /// Where its entries are.
    entries: &'a EntriesStatus,
}

impl<'a> ReportLine<'a> {
    /// Puts a report and what the rules say of it on a line.
    pub fn new(
        target: &'a Target,
        report: &'a UsageReport,
        findings: FindingSet,
        entries: &'a EntriesStatus,
    ) -> Self {
        Self {
            members: ReportFields::new(target, report),
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
        findings: FindingSet,
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
pub struct ReportFields<'a> {
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

impl<'a> ReportFields<'a> {
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
    pub findings: FindingSet,
    /// Where its entries are.
    pub entries: EntriesStatus,
}
