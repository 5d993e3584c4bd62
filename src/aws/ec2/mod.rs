//! EC2's image usage reports and Regions.

pub(crate) mod pagination;
mod report_page;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::ImageUsageReportEntry;
use aws_smithy_types::DateTime;
use futures_util::FutureExt;

use image_usage_archive::aws::{
    BrokenAnswer, CallFailure, FailureKind, WholeDocument, malformed, retry_partition, sdk_region,
};

use self::report_page::PageReader;
use super::AccountAccess;
use image_usage_archive::documents::snapshot::Filter;
use image_usage_archive::domain::report::{UsageEntry, UsageReport};
use image_usage_archive::domain::target::Region;
use image_usage_archive::domain::timestamp::Timestamp;

/// EC2 takes at most so many IDs in one call.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeImageUsageReports.html>
pub const MAX_IDS_PER_CALL: usize = 200;

/// What one listing asks EC2 for.
#[derive(Clone, Default, Debug)]
pub struct ReportQuery {
    /// Only reports of these AMIs, at most 200; empty for all.
    pub image_ids: Vec<String>,
    /// Only these reports, at most 200; empty for all.
    pub report_ids: Vec<String>,
    /// Only reports that every filter lets through.
    pub filters: Vec<Filter>,
    /// How many reports to ask for in one call; `None` leaves it to EC2.
    pub max_results: Option<u32>,
}

/// One page of a listing.
#[derive(Debug)]
pub struct ListedPage<T> {
    /// What is listed, in EC2's order; a page may have nothing and still not be the last.
    pub rows: Vec<T>,
    /// Where the next page starts; `None` after the last one.
    pub next_token: Option<String>,
}

/// The image usage reports of one account in one Region.
#[derive(Debug)]
pub struct UsageReports {
    client: Client,
}

impl UsageReports {
    /// Reads with the account's credentials, in the given Region.
    pub fn new(access: &AccountAccess, region: &Region) -> Self {
        Self {
            client: client(access, region),
        }
    }

    /// Reads one page.
    ///
    /// # Errors
    /// Fails as EC2 does, after the SDK's retries, and when the answer isn't a whole document.
    pub async fn page(
        &self,
        query: &ReportQuery,
        token: Option<&str>,
    ) -> Result<ListedPage<UsageReport>, CallFailure> {
        let reader = PageReader::default();
        self.request(query)
            .set_next_token(token.map(str::to_owned))
            .customize()
            .interceptor(reader.clone())
            .send()
            .boxed()
            .await?;
        let page = reader.take();
        page.ok_or_else(|| malformed("the answer was not read".to_owned()))
    }

    /// Reads one page of the entries of some reports, at most 200.
    ///
    /// Reports are asked for by their IDs, for EC2 merges the entries of all reports of an AMI.
    ///
    /// # Errors
    /// Fails as EC2 does, after the SDK's retries, and when the answer isn't a whole document.
    pub async fn entries(
        &self,
        report_ids: &[String],
        max_results: Option<u32>,
        token: Option<&str>,
    ) -> Result<ListedPage<UsageEntry>, CallFailure> {
        let answer = self
            .client
            .describe_image_usage_report_entries()
            .set_report_ids(Some(report_ids.to_vec()))
            .set_max_results(max_results.map(whole_number))
            .set_next_token(token.map(str::to_owned))
            .customize()
            .interceptor(WholeDocument)
            .send()
            .boxed()
            .await?;
        let entries = answer.image_usage_report_entries.into_iter().flatten();
        Ok(ListedPage {
            rows: entries.map(entry).collect::<Result<_, _>>()?,
            next_token: next_token(answer.next_token),
        })
    }

    /// Asks EC2 if it would permit the listing.
    ///
    /// # Errors
    /// Fails when EC2 would not, or when it can't be asked.
    pub async fn dry_run(&self, query: &ReportQuery) -> Result<(), CallFailure> {
        match self
            .request(query)
            .dry_run(true)
            .send()
            .boxed()
            .await
            .map_err(CallFailure::from)
        {
            Err(failure) if failure.kind == FailureKind::PermittedDryRun => Ok(()),
            Err(failure) => Err(failure),
            Ok(_) => Err(malformed(
                "EC2 answered a dry run with a listing".to_owned(),
            )),
        }
    }

    fn request(
        &self,
        query: &ReportQuery,
    ) -> aws_sdk_ec2::operation::describe_image_usage_reports::builders::DescribeImageUsageReportsFluentBuilder{
        let list = |ids: &[String]| (!ids.is_empty()).then(|| ids.to_vec());
        let filters = query.filters.iter().map(|filter| {
            aws_sdk_ec2::types::Filter::builder()
                .name(&filter.name)
                .set_values(Some(filter.values.clone()))
                .build()
        });
        self.client
            .describe_image_usage_reports()
            .set_image_ids(list(&query.image_ids))
            .set_report_ids(list(&query.report_ids))
            .set_filters((!query.filters.is_empty()).then(|| filters.collect()))
            .set_max_results(query.max_results.map(whole_number))
    }
}

/// Requests are refused before they get here when the number doesn't fit.
fn whole_number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// An empty token is EC2's other way to say that there is no next page.
pub(super) fn next_token(token: Option<String>) -> Option<String> {
    token.filter(|token| !token.is_empty())
}

fn client(access: &AccountAccess, region: &Region) -> Client {
    let partition = retry_partition(format!("ec2/{}/{region}", access.account_id()));
    let config = aws_sdk_ec2::config::Builder::from(access.config())
        .region(sdk_region(region))
        .retry_partition(partition)
        .retry_classifier(BrokenAnswer)
        .build();
    Client::from_conf(config)
}

fn entry(entry: ImageUsageReportEntry) -> Result<UsageEntry, CallFailure> {
    Ok(UsageEntry {
        report_id: entry.report_id,
        image_id: entry.image_id,
        report_creation_time: entry.report_creation_time.map(timestamp).transpose()?,
        consumer_account_id: entry.account_id,
        resource_type: entry.resource_type,
        usage_count: entry.usage_count,
    })
}

fn timestamp(time: DateTime) -> Result<Timestamp, CallFailure> {
    Timestamp::from_unix(time.secs(), time.subsec_nanos()).ok_or_else(|| {
        malformed(format!(
            "EC2 gave a time outside the years 0 to 9999: {} seconds since 1970",
            time.secs()
        ))
    })
}

/// Which Regions an account has enabled.
#[derive(Clone, Debug)]
pub struct EnabledRegions {
    opt_in_status: BTreeMap<Region, Option<String>>,
}

impl EnabledRegions {
    /// Asks EC2 in `home` for every Region there is, and whether the account has it.
    ///
    /// # Errors
    /// Fails as EC2 does, after the SDK's retries.
    pub async fn of(access: &AccountAccess, home: &Region) -> Result<Self, CallFailure> {
        let answer = client(access, home)
            .describe_regions()
            .all_regions(true)
            .customize()
            .interceptor(WholeDocument)
            .send()
            .boxed()
            .await?;
        let opt_in_status = answer
            .regions
            .into_iter()
            .flatten()
            // A Region of a name that can't be one can't be audited either.
            .filter_map(|region| Some((region.region_name?.parse().ok()?, region.opt_in_status)))
            .collect();
        let enabled = Self { opt_in_status };
        match enabled.names().is_empty() {
            true => Err(malformed("EC2 lists no Region that is enabled".to_owned())),
            false => Ok(enabled),
        }
    }

    /// Every Region that the account can use; there is at least one.
    pub fn names(&self) -> BTreeSet<Region> {
        let enabled = self
            .opt_in_status
            .keys()
            .filter(|region| !self.is_not_enabled(region));
        enabled.cloned().collect()
    }

    /// Whether EC2 says of a Region that the account has not enabled it.
    pub fn is_not_enabled(&self, region: &Region) -> bool {
        matches!(self.opt_in_status.get(region), Some(Some(status)) if status == "not-opted-in")
    }
}
