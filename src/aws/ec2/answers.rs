//! EC2's answers as XML, and their conversion: every field may be missing, and an odd one costs only itself.
//!
//! Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageUsageReport.html>

use std::str::FromStr;

use image_usage_archive::documents::{ImageFields, Reference};
use image_usage_archive::domain::report::{
    ReportState, ResourceType, ResourceTypeOption, Tags, UsageEntry, UsageReport,
};
use image_usage_archive::domain::timestamp::Timestamp;
use serde::{Deserialize, Deserializer};

use super::pagination::{ListedPage, next_token};

/// A list: its elements are called `item`.
#[derive(Deserialize, Debug)]
pub(super) struct Items<T> {
    #[serde(rename = "item", default = "Vec::new")]
    pub(super) items: Vec<T>,
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

/// A text that EC2 can leave out.
///
/// As an `Option<String>` it would take longer, because quick-xml looks for `xsi:nil` in each one.
#[derive(Default, Debug)]
pub(super) struct Text(pub(super) Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Some(text)))
    }
}

/// The answer to `DescribeImageUsageReports`.
#[derive(Deserialize, Debug)]
pub(super) enum ReportsAnswer {
    DescribeImageUsageReportsResponse(ReportsPage),
}

/// A page of reports.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ReportsPage {
    image_usage_report_set: Items<Report>,
    next_token: Text,
}

impl From<ReportsAnswer> for ListedPage<UsageReport> {
    fn from(answer: ReportsAnswer) -> Self {
        let ReportsAnswer::DescribeImageUsageReportsResponse(page) = answer;
        Self {
            rows: list(page.image_usage_report_set),
            next_token: next_token(page.next_token.0),
        }
    }
}

/// The answer to `DescribeImageUsageReportEntries`.
#[derive(Deserialize, Debug)]
pub(super) enum EntriesAnswer {
    DescribeImageUsageReportEntriesResponse(EntriesPage),
}

/// A page of entries.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EntriesPage {
    image_usage_report_entry_set: Items<Entry>,
    next_token: Text,
}

impl From<EntriesAnswer> for ListedPage<UsageEntry> {
    fn from(answer: EntriesAnswer) -> Self {
        let EntriesAnswer::DescribeImageUsageReportEntriesResponse(page) = answer;
        Self {
            rows: list(page.image_usage_report_entry_set),
            next_token: next_token(page.next_token.0),
        }
    }
}

/// An AMI that the account owns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnImage {
    /// Its ID; `None` if EC2 left it out.
    pub image_id: Option<String>,
    /// Its fields.
    pub fields: ImageFields,
}

/// A resource that refers to an AMI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageReference {
    /// The AMI; `None` if EC2 left it out.
    pub image_id: Option<String>,
    /// The resource.
    pub reference: Reference,
}

/// The answer to `DescribeImages`.
#[derive(Deserialize, Debug)]
pub(super) enum ImagesAnswer {
    DescribeImagesResponse(ImagesPage),
}

/// A page of AMIs.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ImagesPage {
    images_set: Items<Image>,
    next_token: Text,
}

impl From<ImagesAnswer> for ListedPage<OwnImage> {
    fn from(answer: ImagesAnswer) -> Self {
        let ImagesAnswer::DescribeImagesResponse(page) = answer;
        Self {
            rows: list(page.images_set),
            next_token: next_token(page.next_token.0),
        }
    }
}

/// The answer to `DescribeImageReferences`.
#[derive(Deserialize, Debug)]
pub(super) enum ReferencesAnswer {
    DescribeImageReferencesResponse(ReferencesPage),
}

/// A page of references.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ReferencesPage {
    image_reference_set: Items<ReferenceToImage>,
    next_token: Text,
}

impl From<ReferencesAnswer> for ListedPage<ImageReference> {
    fn from(answer: ReferencesAnswer) -> Self {
        let ReferencesAnswer::DescribeImageReferencesResponse(page) = answer;
        Self {
            rows: list(page.image_reference_set),
            next_token: next_token(page.next_token.0),
        }
    }
}

#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
struct Image {
    image_id: Text,
    name: Text,
    image_state: Text,
    creation_date: Text,
    last_launched_time: Text,
    is_public: Text,
    deprecation_time: Text,
    deregistration_protection: Text,
    source_image_id: Text,
    tag_set: Items<Tag>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
struct ReferenceToImage {
    image_id: Text,
    resource_type: Text,
    arn: Text,
}

#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
struct Report {
    report_id: Text,
    image_id: Text,
    state: Text,
    state_reason: Text,
    creation_time: Text,
    expiration_time: Text,
    resource_type_set: Items<ReportedType>,
    account_id_set: Items<String>,
    tag_set: Items<Tag>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
struct ReportedType {
    resource_type: Text,
    resource_type_option_set: Items<TypeOption>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
struct TypeOption {
    option_name: Text,
    option_value_set: Items<String>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(default)]
struct Tag {
    key: Text,
    value: Text,
}

#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    report_id: Text,
    image_id: Text,
    report_creation_time: Text,
    account_id: Text,
    resource_type: Text,
    usage_count: Text,
}

impl From<Report> for UsageReport {
    fn from(report: Report) -> Self {
        let report_id = id(report.report_id.0);
        let read = |field, text| read(field, text, report_id.as_deref());
        Self {
            image_id: report.image_id.0,
            state: report.state.0.map(ReportState::from),
            state_reason: report.state_reason.0,
            creation_time: read("creationTime", report.creation_time.0),
            expiration_time: read("expirationTime", report.expiration_time.0),
            resource_types: list(report.resource_type_set),
            requested_account_ids: report.account_id_set.items,
            tags: tags(report.tag_set),
            report_id,
        }
    }
}

/// A tag without a key is recorded under the empty key.
fn tags(set: Items<Tag>) -> Tags {
    let tags = set.items.into_iter();
    tags.map(|tag| (tag.key.0.unwrap_or_default(), tag.value.0))
        .collect()
}

impl From<Image> for OwnImage {
    fn from(image: Image) -> Self {
        let image_id = id(image.image_id.0);
        let time = |field, text| read(field, text, image_id.as_deref());
        Self {
            fields: ImageFields {
                name: image.name.0,
                state: image.image_state.0,
                creation_time: time("creationDate", image.creation_date.0),
                last_launched_time: time("lastLaunchedTime", image.last_launched_time.0),
                public: read("isPublic", image.is_public.0, image_id.as_deref()),
                deprecation_time: time("deprecationTime", image.deprecation_time.0),
                deregistration_protection: image.deregistration_protection.0,
                source_image_id: id(image.source_image_id.0),
                tags: tags(image.tag_set),
            },
            image_id,
        }
    }
}

impl From<ReferenceToImage> for ImageReference {
    fn from(found: ReferenceToImage) -> Self {
        Self {
            image_id: id(found.image_id.0),
            reference: Reference {
                resource_type: found.resource_type.0,
                arn: found.arn.0,
            },
        }
    }
}

impl From<ReportedType> for ResourceType {
    fn from(kind: ReportedType) -> Self {
        Self {
            resource_type: kind.resource_type.0,
            options: list(kind.resource_type_option_set),
        }
    }
}

impl From<TypeOption> for ResourceTypeOption {
    fn from(option: TypeOption) -> Self {
        Self {
            name: option.option_name.0,
            values: option.option_value_set.items,
        }
    }
}

impl From<Entry> for UsageEntry {
    fn from(entry: Entry) -> Self {
        let report_id = id(entry.report_id.0);
        let id_of_report = report_id.as_deref();
        let report_creation_time: Option<Timestamp> = read(
            "reportCreationTime",
            entry.report_creation_time.0,
            id_of_report,
        );
        Self {
            image_id: entry.image_id.0,
            report_creation_time,
            consumer_account_id: entry.account_id.0,
            resource_type: entry.resource_type.0,
            usage_count: read("usageCount", entry.usage_count.0, id_of_report),
            report_id,
        }
    }
}

fn list<X, T: From<X>>(items: Items<X>) -> Vec<T> {
    items.items.into_iter().map(T::from).collect()
}

/// An empty ID counts as missing.
fn id(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Reads a time or a number; one that cannot be read counts as missing, and is logged verbatim.
fn read<T: FromStr>(field: &str, text: Option<String>, id: Option<&str>) -> Option<T> {
    let text = text?;
    let value = text.parse().ok();
    if value.is_none() {
        tracing::warn!(id, field, text, "EC2 returned a value that cannot be read");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::decoder::decode;
    use super::*;

    fn reports(fields: &str) -> ListedPage<UsageReport> {
        let root = "DescribeImageUsageReportsResponse";
        let document = format!("<{root}>{fields}</{root}>");
        decode::<ReportsAnswer>(document.as_bytes()).unwrap().into()
    }

    fn report(fields: &str) -> UsageReport {
        let set = format!("<imageUsageReportSet><item>{fields}</item></imageUsageReportSet>");
        let mut rows = reports(&set).rows;
        assert_eq!(rows.len(), 1, "{fields}");
        rows.remove(0)
    }

    fn entries(rows: &str) -> Vec<UsageEntry> {
        let root = "DescribeImageUsageReportEntriesResponse";
        let set = format!("<imageUsageReportEntrySet>{rows}</imageUsageReportEntrySet>");
        let document = format!("<{root}>{set}<nextToken/></{root}>");
        let answer = decode::<EntriesAnswer>(document.as_bytes()).unwrap();
        let ListedPage { rows, next_token } = answer.into();
        assert_eq!(next_token, None);
        rows
    }

    #[test]
    fn every_field_of_a_report_is_read_verbatim_and_unknown_fields_are_ignored() {
        let report = report(
            "<reportId>amiur-1</reportId><imageId>ami-1</imageId><state>half-done</state>\
             <stateReason> odd &lt;b&gt; &#x1f600; </stateReason>\
             <creationTime>2026-10-25T13:27:12.250Z</creationTime><newField><item><a>1</a></item></newField>\
             <expirationTime>2026-11-24T13:27:12Z</expirationTime><resourceTypeSet><item>\
             <resourceType>ec2:LaunchTemplate</resourceType><resourceTypeOptionSet><item>\
             <optionName>version-depth</optionName><optionValueSet><item>100</item></optionValueSet></item>\
             </resourceTypeOptionSet></item></resourceTypeSet><accountIdSet><item>222233334444</item></accountIdSet>\
             <tagSet><item><key>Owner</key><value>TeamA</value></item><item><key>Empty</key><value/></item>\
             <item><key>Bare</key></item></tagSet>",
        );
        let option = ResourceTypeOption {
            name: Some("version-depth".to_owned()),
            values: vec!["100".to_owned()],
        };
        let expected = UsageReport {
            report_id: Some("amiur-1".to_owned()),
            image_id: Some("ami-1".to_owned()),
            state: Some(ReportState::Other("half-done".to_owned())),
            state_reason: Some(" odd <b> \u{1f600} ".to_owned()),
            creation_time: Some("2026-10-25T13:27:12.250Z".parse().unwrap()),
            expiration_time: Some("2026-11-24T13:27:12Z".parse().unwrap()),
            resource_types: vec![ResourceType {
                resource_type: Some("ec2:LaunchTemplate".to_owned()),
                options: vec![option],
            }],
            requested_account_ids: vec!["222233334444".to_owned()],
            tags: [
                ("Owner".to_owned(), Some("TeamA".to_owned())),
                ("Empty".to_owned(), Some(String::new())),
                ("Bare".to_owned(), None),
            ]
            .into(),
        };
        assert_eq!(report, expected);
    }

    #[test]
    fn a_page_without_rows_or_with_an_empty_token_is_a_page() {
        for (fields, token) in [
            ("", None),
            ("<imageUsageReportSet/><nextToken/>", None),
            ("<nextToken>more</nextToken>", Some("more")),
        ] {
            let page = reports(fields);
            assert!(page.rows.is_empty(), "{fields}");
            assert_eq!(page.next_token.as_deref(), token, "{fields}");
        }
    }

    #[test]
    fn a_missing_field_stays_missing_and_an_empty_id_is_no_id() {
        assert_eq!(report(""), UsageReport::default());
        let read = report("<reportId/><imageId/><resourceTypeSet/><tagSet><item/></tagSet>");
        let expected = UsageReport {
            image_id: Some(String::new()),
            tags: [(String::new(), None)].into(),
            ..UsageReport::default()
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn a_time_that_cannot_be_read_is_missing_and_the_rest_of_the_report_is_kept() {
        for time in ["", " ", "soon", "2026-11-22", "+10000-01-01T00:00:00Z"] {
            let read = report(&format!(
                "<creationTime>{time}</creationTime><reportId>amiur-1</reportId>\
                 <expirationTime>2026-11-22T06:00:00.000Z</expirationTime>"
            ));
            let expected = UsageReport {
                report_id: Some("amiur-1".to_owned()),
                expiration_time: Some("2026-11-22T06:00:00Z".parse().unwrap()),
                ..UsageReport::default()
            };
            assert_eq!(read, expected, "{time}");
        }
    }

    #[test]
    fn every_field_of_an_entry_is_read() {
        let rows = entries(
            "<item><resourceType>ec2:Instance</resourceType><reportId>amiur-1</reportId>\
             <usageCount>9223372036854775807</usageCount><accountId>111122223333</accountId>\
             <imageId>ami-1</imageId><reportCreationTime>2026-11-22T06:00:00.250Z</reportCreationTime></item>",
        );
        let expected = UsageEntry {
            report_id: Some("amiur-1".to_owned()),
            image_id: Some("ami-1".to_owned()),
            report_creation_time: Some("2026-11-22T06:00:00.250Z".parse().unwrap()),
            consumer_account_id: Some("111122223333".to_owned()),
            resource_type: Some("ec2:Instance".to_owned()),
            usage_count: Some(i64::MAX),
        };
        assert_eq!(rows, [expected]);
    }

    #[test]
    fn an_odd_field_of_an_entry_costs_only_itself() {
        let counts = ["9223372036854775808", "", " 1", "many", "2"].map(|count| {
            format!("<item><reportId/><usageCount>{count}</usageCount><reportCreationTime/></item>")
        });
        let rows = entries(&counts.concat());
        assert!(rows.iter().all(|entry| entry.report_id.is_none()));
        assert!(
            rows.iter()
                .all(|entry| entry.report_creation_time.is_none())
        );
        let counts: Vec<_> = rows.iter().map(|entry| entry.usage_count).collect();
        assert_eq!(counts, [None, None, None, None, Some(2)]);
    }
}
