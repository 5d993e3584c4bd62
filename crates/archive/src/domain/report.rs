//! EC2's image usage reports and their entries, in types without the SDK.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::timestamp::Timestamp;

/// One image usage report. Every field that EC2 may omit is optional; nothing is guessed.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageUsageReport.html>
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
pub struct UsageReport {
    /// The report's ID, an opaque text.
    pub report_id: Option<String>,
    /// The AMI that the report is about.
    pub image_id: Option<String>,
    /// Its state.
    pub state: Option<ReportState>,
    /// Why it failed, verbatim.
    pub state_reason: Option<String>,
    /// When it was requested.
    pub creation_time: Option<Timestamp>,
    /// When EC2 deletes it.
    pub expiration_time: Option<Timestamp>,
    /// The resource types that it covers, in EC2's order.
    pub resource_types: Vec<ResourceType>,
    /// The accounts that it was asked to cover, in EC2's order; empty for all accounts.
    pub requested_account_ids: Vec<String>,
    /// Its tags, by key. The value of a tag may be missing; a missing key is the empty one.
    pub tags: Tags,
}

/// Tags by key, in the order of their keys.
pub type Tags = BTreeMap<String, Option<String>>;

/// The state of a report.
#[derive(
    Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(from = "String", into = "String")]
#[schemars(with = "String")]
pub enum ReportState {
    /// The report can be read.
    Available,
    /// EC2 is creating the report.
    Pending,
    /// EC2 failed to create the report.
    Error,
    /// A state unknown to this version, verbatim.
    Other(String),
}

impl ReportState {
    /// Returns the state as EC2 writes it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Available => "available",
            Self::Pending => "pending",
            Self::Error => "error",
            Self::Other(word) => word,
        }
    }
}

impl From<&str> for ReportState {
    fn from(word: &str) -> Self {
        match word {
            "available" => Self::Available,
            "pending" => Self::Pending,
            "error" => Self::Error,
            _ => Self::Other(word.to_owned()),
        }
    }
}

impl From<String> for ReportState {
    fn from(word: String) -> Self {
        Self::from(word.as_str())
    }
}

impl From<ReportState> for String {
    fn from(state: ReportState) -> Self {
        state.as_str().to_owned()
    }
}

/// A type of resource that a report covers.
///
/// AWS adds types, so the name is any text.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ResourceType {
    /// Its name, such as `ec2:Instance`.
    pub resource_type: Option<String>,
    /// Its options, in EC2's order.
    pub options: Vec<ResourceTypeOption>,
}

/// An option of a resource type, such as `version-depth` of `ec2:LaunchTemplate`.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ResourceTypeOption {
    /// Its name.
    pub name: Option<String>,
    /// Its values, in EC2's order.
    pub values: Vec<String>,
}

/// One entry of a report: an account that uses the AMI. Every field that EC2 may omit is optional.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageUsageReportEntry.html>
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageEntry {
    /// The report that the entry belongs to.
    pub report_id: Option<String>,
    /// The AMI that the report is about.
    pub image_id: Option<String>,
    /// When the report was requested.
    pub report_creation_time: Option<Timestamp>,
    /// The account that uses the AMI.
    pub consumer_account_id: Option<String>,
    /// The type of the resources that use it, such as `ec2:Instance`.
    pub resource_type: Option<String>,
    /// How many resources of the type use it.
    pub usage_count: Option<i64>,
}
