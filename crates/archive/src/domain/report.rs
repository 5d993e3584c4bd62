//! Image usage reports as EC2 tells of them, in this project's own types.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::timestamp::Timestamp;

/// One image usage report. Every member that EC2 can leave out may be missing; nothing is guessed.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageUsageReport.html>
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
pub struct UsageReport {
    /// The ID that EC2 gave the report, an opaque text.
    pub report_id: Option<String>,
    /// The AMI that the report is about.
    pub image_id: Option<String>,
    /// How far EC2 is with it.
    pub state: Option<ReportState>,
    /// Why it failed, word for word.
    pub state_reason: Option<String>,
    /// When it was asked for.
    pub creation_time: Option<Timestamp>,
    /// When EC2 deletes it.
    pub expiration_time: Option<Timestamp>,
    /// The resource types it covers, in EC2's order.
    pub resource_types: Vec<ResourceType>,
    /// The accounts it was asked to cover, in EC2's order; empty for all accounts.
    pub requested_account_ids: Vec<String>,
    /// Its tags, by key. A tag without a value has `None`; one without a key stands under the empty key.
    pub tags: Tags,
}

/// Tags by key, in the order of their keys.
pub type Tags = BTreeMap<String, Option<String>>;

/// How far EC2 is with a report.
#[derive(
    Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(from = "String", into = "String")]
#[schemars(with = "String")]
pub enum ReportState {
    /// The report can be read.
    Available,
    /// EC2 is still at it.
    Pending,
    /// EC2 could not make it.
    Error,
    /// A state that this version doesn't know, word for word.
    Other(String),
}

impl ReportState {
    /// The state in EC2's own word.
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

/// A kind of resource that a report looks at.
///
/// The list of kinds grows on AWS's side, so the name is a plain text.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ResourceType {
    /// Its name, such as `ec2:Instance`.
    pub resource_type: Option<String>,
    /// What bounds the look, in EC2's order.
    pub options: Vec<ResourceTypeOption>,
}

/// An option of a resource type, such as `version-depth` of `ec2:LaunchTemplate`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ResourceTypeOption {
    /// Its name.
    pub name: Option<String>,
    /// Its values, in EC2's order.
    pub values: Vec<String>,
}

/// One entry of a report: an account that uses the AMI. Every member that EC2 can leave out may be missing.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageUsageReportEntry.html>
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageEntry {
    /// The report that it belongs to.
    pub report_id: Option<String>,
    /// The AMI that the report is about.
    pub image_id: Option<String>,
    /// When the report was asked for.
    pub report_creation_time: Option<Timestamp>,
    /// The account that uses the AMI.
    pub consumer_account_id: Option<String>,
    /// The kind of resource that uses it, such as `ec2:Instance`.
    pub resource_type: Option<String>,
    /// How many resources of the kind use it.
    pub usage_count: Option<i64>,
}
