//! EC2's answers as XML, and what they mean: every field may be missing, and an odd one costs only itself.
//!
//! Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageUsageReport.html>

use std::str::FromStr;

use image_usage_archive::domain::report::{
    ReportState, ResourceType, ResourceTypeOption, UsageEntry, UsageReport,
};
use image_usage_archive::domain::timestamp::Timestamp;
use serde::Deserialize;

use super::decoder::Answer;
use super::pagination::{ListedPage, next_token};

/// A list: its elements are called `item`.
#[derive(Deserialize, Debug)]
struct Items<T> {
    #[serde(rename = "item", default = "Vec::new")]
    items: Vec<T>,
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

/// A page of reports.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportsPage {
    #[serde(default)]
    image_usage_report_set: Items<Report>,
    next_token: Option<String>,
}

impl Answer for ReportsPage {
    const ROOT: &'static str = "DescribeImageUsageReportsResponse";
}

impl ReportsPage {
    pub(super) fn into_page(self) -> ListedPage<UsageReport> {
        let reports = self.image_usage_report_set.items.into_iter();
        ListedPage {
            rows: reports.map(UsageReport::from).collect(),
            next_token: next_token(self.next_token),
        }
    }
}

/// A page of entries.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntriesPage {
    #[serde(default)]
    image_usage_report_entry_set: Items<Entry>,
    next_token: Option<String>,
}

impl Answer for EntriesPage {
    const ROOT: &'static str = "DescribeImageUsageReportEntriesResponse";
}

impl EntriesPage {
    pub(super) fn into_page(self) -> ListedPage<UsageEntry> {
        let entries = self.image_usage_report_entry_set.items.into_iter();
        ListedPage {
            rows: entries.map(UsageEntry::from).collect(),
            next_token: next_token(self.next_token),
        }
    }
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Report {
    report_id: Option<String>,
    image_id: Option<String>,
    state: Option<String>,
    state_reason: Option<String>,
    creation_time: Option<String>,
    expiration_time: Option<String>,
    #[serde(default)]
    resource_type_set: Items<ReportedType>,
    #[serde(default)]
    account_id_set: Items<String>,
    #[serde(default)]
    tag_set: Items<Tag>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
struct ReportedType {
    resource_type: Option<String>,
    #[serde(default)]
    resource_type_option_set: Items<TypeOption>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
struct TypeOption {
    option_name: Option<String>,
    #[serde(default)]
    option_value_set: Items<String>,
}

#[derive(Deserialize, Debug)]
struct Tag {
    key: Option<String>,
    value: Option<String>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Entry {
    report_id: Option<String>,
    image_id: Option<String>,
    report_creation_time: Option<String>,
    account_id: Option<String>,
    resource_type: Option<String>,
    usage_count: Option<String>,
}

impl From<Report> for UsageReport {
    fn from(report: Report) -> Self {
        let report_id = id(report.report_id);
        let read = |field, text| read(field, text, report_id.as_deref());
        Self {
            image_id: report.image_id,
            state: report.state.as_deref().map(ReportState::from),
            state_reason: report.state_reason,
            creation_time: read("creationTime", report.creation_time),
            expiration_time: read("expirationTime", report.expiration_time),
            resource_types: list(report.resource_type_set),
            requested_account_ids: report.account_id_set.items,
            // A tag without a key has no name to lose: it is recorded under the empty one.
            tags: report
                .tag_set
                .items
                .into_iter()
                .map(|tag| (tag.key.unwrap_or_default(), tag.value))
                .collect(),
            report_id,
        }
    }
}

impl From<ReportedType> for ResourceType {
    fn from(kind: ReportedType) -> Self {
        Self {
            resource_type: kind.resource_type,
            options: list(kind.resource_type_option_set),
        }
    }
}

impl From<TypeOption> for ResourceTypeOption {
    fn from(option: TypeOption) -> Self {
        Self {
            name: option.option_name,
            values: option.option_value_set.items,
        }
    }
}

impl From<Entry> for UsageEntry {
    fn from(entry: Entry) -> Self {
        let report_id = id(entry.report_id);
        let id_of_report = report_id.as_deref();
        let report_creation_time: Option<Timestamp> = read(
            "reportCreationTime",
            entry.report_creation_time,
            id_of_report,
        );
        Self {
            image_id: entry.image_id,
            report_creation_time,
            consumer_account_id: entry.account_id,
            resource_type: entry.resource_type,
            usage_count: read("usageCount", entry.usage_count, id_of_report),
            report_id,
        }
    }
}

fn list<X, T: From<X>>(items: Items<X>) -> Vec<T> {
    items.items.into_iter().map(T::from).collect()
}

/// An empty ID is none.
fn id(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Reads a time or a number; one that cannot be read counts as missing, and is logged verbatim.
fn read<T: FromStr>(field: &str, text: Option<String>, report_id: Option<&str>) -> Option<T> {
    let text = text?;
    let value = text.parse().ok();
    if value.is_none() {
        tracing::warn!(
            report_id,
            field,
            text,
            "EC2 returned a value that cannot be read"
        );
    }
    value
}
