//! EC2's image usage reports and their entries.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::describe_image_usage_report_entries::{
    DescribeImageUsageReportEntries, DescribeImageUsageReportEntriesOutput,
};
use aws_sdk_ec2::operation::describe_image_usage_reports::builders::DescribeImageUsageReportsFluentBuilder;
use aws_sdk_ec2::operation::describe_image_usage_reports::{
    DescribeImageUsageReports, DescribeImageUsageReportsOutput,
};
use aws_smithy_runtime_api::client::interceptors::context::Output;
use futures_util::FutureExt;
use image_usage_archive::aws::CallFailure;
use image_usage_archive::documents::ReportFilter;
use image_usage_archive::domain::report::{UsageEntry, UsageReport};
use image_usage_archive::domain::target::Region;

use super::answers::{EntriesAnswer, ReportsAnswer};
use super::client::{client, permitted, whole_number};
use super::decoder::Decoder;
use super::images::Images;
use super::pagination::ListedPage;
use super::requests::ReportRequests;
use crate::aws::accounts::AccountAccess;

/// The most IDs that EC2 accepts in one call.
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
    /// Only reports that pass every filter.
    pub filters: Vec<ReportFilter>,
    /// How many reports to request in one call; `None` leaves it to EC2.
    pub max_results: Option<u32>,
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

    /// The AMIs of the same account and Region.
    pub fn images(&self) -> Images {
        Images::new(self.client.clone())
    }

    /// Requests for new reports in the same account and Region.
    pub fn requests(&self) -> ReportRequests {
        ReportRequests::new(self.client.clone())
    }

    /// Reads one page of reports.
    ///
    /// # Errors
    /// Fails as EC2 does, after the SDK's retries, and if the answer is not a whole document.
    pub async fn page(
        &self,
        query: &ReportQuery,
        token: Option<&str>,
    ) -> Result<ListedPage<UsageReport>, CallFailure> {
        let decoder = Decoder::<ReportsAnswer>::new(&DescribeImageUsageReports::new(), || {
            Output::erase(DescribeImageUsageReportsOutput::builder().build())
        });
        self.request(query)
            .set_next_token(token.map(str::to_owned))
            .customize()
            .interceptor(decoder.clone())
            .send()
            .boxed()
            .await?;
        decoder.take().map(ListedPage::from)
    }

    /// Reads one page of the entries of some reports, at most 200.
    ///
    /// Reports are named by their IDs, because EC2 merges the entries of all reports of an AMI.
    ///
    /// # Errors
    /// Fails as EC2 does, after the SDK's retries, and if the answer is not a whole document.
    pub async fn entries(
        &self,
        report_ids: &[String],
        max_results: Option<u32>,
        token: Option<&str>,
    ) -> Result<ListedPage<UsageEntry>, CallFailure> {
        let decoder =
            Decoder::<EntriesAnswer>::new(&DescribeImageUsageReportEntries::new(), || {
                Output::erase(DescribeImageUsageReportEntriesOutput::builder().build())
            });
        self.client
            .describe_image_usage_report_entries()
            .set_report_ids(Some(report_ids.to_vec()))
            .set_max_results(max_results.map(whole_number))
            .set_next_token(token.map(str::to_owned))
            .customize()
            .interceptor(decoder.clone())
            .send()
            .boxed()
            .await?;
        decoder.take().map(ListedPage::from)
    }

    /// Asks EC2 whether it would permit the listing.
    ///
    /// # Errors
    /// Fails if EC2 would not, or cannot be asked.
    pub async fn dry_run(&self, query: &ReportQuery) -> Result<(), CallFailure> {
        let answer = self.request(query).dry_run(true).send().boxed().await;
        permitted(answer.err().map(CallFailure::from))
    }

    /// Asks EC2 whether it would permit reading entries.
    ///
    /// # Errors
    /// Fails if EC2 would not, or cannot be asked.
    pub async fn dry_run_entries(&self) -> Result<(), CallFailure> {
        let request = self.client.describe_image_usage_report_entries();
        let answer = request.dry_run(true).send().boxed().await;
        permitted(answer.err().map(CallFailure::from))
    }

    fn request(&self, query: &ReportQuery) -> DescribeImageUsageReportsFluentBuilder {
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
