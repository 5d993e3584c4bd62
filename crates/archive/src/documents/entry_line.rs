//! One entry of a report as a line of an entries object.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::report::UsageEntry;
use crate::domain::target::{AccountId, Region, Target};
use crate::domain::timestamp::Timestamp;

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
    /// When the report was requested.
    pub report_creation_time: Option<Timestamp>,
    /// The account that uses the AMI; `None` for a report that observed no usage.
    pub consumer_account_id: Option<String>,
    /// The type of the resources that use it; `None` for a report that observed no usage.
    pub resource_type: Option<String>,
    /// How many resources of the type use it; 0 for a report that observed no usage.
    pub usage_count: Option<i64>,
}

impl EntryLine {
    /// Makes the line of an entry of the report that was asked for.
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

    /// Returns whether this line states that a report has no entries.
    pub fn is_no_usage_observed(&self) -> bool {
        self.consumer_account_id.is_none()
            && self.resource_type.is_none()
            && self.usage_count == Some(0)
    }

    /// Makes the line which states that a report has no entries.
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
