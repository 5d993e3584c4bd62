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
    /// EC2's fields.
    #[serde(flatten)]
    fields: ReportFields<'a>,
    /// Its findings, most urgent first.
    findings: FindingSet,
    /// Where its entries are.
    entries: &'a EntriesStatus,
}

impl<'a> ReportLine<'a> {
    /// Makes the line of a report with its findings.
    pub fn new(
        target: &'a Target,
        report: &'a UsageReport,
        findings: FindingSet,
        entries: &'a EntriesStatus,
    ) -> Self {
        Self {
            fields: ReportFields::new(target, report),
            findings,
            entries,
        }
    }

    /// Writes a report line from fields that are already serialized, without parsing them.
    ///
    /// # Errors
    /// Fails as a serializer does, which no value of these types causes.
    pub fn write(
        line: &mut Vec<u8>,
        fields: &[u8],
        findings: FindingSet,
        entries: &EntriesStatus,
    ) -> serde_json::Result<()> {
        line.extend_from_slice(fields.strip_suffix(b"}").unwrap_or(fields));
        line.extend_from_slice(b",\"findings\":");
        serde_json::to_writer(&mut *line, &findings)?;
        line.extend_from_slice(b",\"entries\":");
        serde_json::to_writer(&mut *line, entries)?;
        line.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// EC2's fields of a report, and its target.
#[derive(Serialize, Debug, JsonSchema)]
pub struct ReportFields<'a> {
    /// The account that owns the AMI.
    account_id: &'a AccountId,
    /// The Region of the report.
    region: &'a Region,
    /// The report's ID.
    report_id: Option<&'a str>,
    /// The AMI that the report is about.
    image_id: Option<&'a str>,
    /// Its state.
    state: Option<&'a ReportState>,
    /// Why it failed, verbatim.
    state_reason: Option<&'a str>,
    /// When it was requested.
    creation_time: Option<Timestamp>,
    /// When EC2 deletes it.
    expiration_time: Option<Timestamp>,
    /// The resource types that it covers, in EC2's order.
    resource_types: &'a [ResourceType],
    /// The accounts that it was asked to cover, in EC2's order; empty for all accounts.
    requested_account_ids: &'a [String],
    /// Its tags, by key.
    tags: &'a Tags,
}

impl<'a> ReportFields<'a> {
    /// Takes the fields of a report.
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

/// A report line, read from an object.
#[derive(Deserialize, Debug)]
pub struct ArchivedLine {
    /// The report.
    #[serde(flatten)]
    pub report: UsageReport,
    /// Its findings.
    pub findings: FindingSet,
    /// Where its entries are.
    pub entries: EntriesStatus,
}
