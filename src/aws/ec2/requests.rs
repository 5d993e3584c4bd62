//! Requests for new reports: the only calls that change anything in EC2.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::create_image_usage_report::builders::CreateImageUsageReportFluentBuilder;
use aws_sdk_ec2::types::{
    ImageUsageResourceTypeOptionRequest, ImageUsageResourceTypeRequest, ResourceType, Tag,
    TagSpecification,
};
use futures_util::FutureExt;
use image_usage_archive::aws::CallFailure;
use image_usage_archive::domain::usage::{KNOWN_RESOURCE_TYPES, LAUNCH_TEMPLATE};

use super::client::permitted;

/// How many versions of each launch template a report looks at: the most that EC2 accepts.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageUsageResourceTypeOptionRequest.html>
const VERSION_DEPTH: &str = "10000";

/// Asks for reports in one account and Region.
#[derive(Debug)]
pub struct ReportRequests {
    client: Client,
}

/// A request for an adequate report: of all accounts, and of every type that the auditor knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportRequest {
    /// The AMI.
    pub image_id: String,
    /// Two requests with the same token make one report.
    pub client_token: String,
    /// The report's tags: keys and values.
    pub tags: [(&'static str, String); 2],
}

impl ReportRequests {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Asks EC2 for a report, which it begins to create.
    ///
    /// # Errors
    /// Fails as EC2 does, after the SDK's retries.
    pub async fn create(&self, request: &ReportRequest) -> Result<(), CallFailure> {
        self.request(request).send().boxed().await?;
        Ok(())
    }

    /// Asks EC2 whether it would permit asking for a report about an AMI.
    ///
    /// The AMI must exist: EC2 does not document whether a dry run about another one says what it permits.
    ///
    /// # Errors
    /// Fails if EC2 would not, or cannot be asked.
    pub async fn dry_run(&self, image_id: String) -> Result<(), CallFailure> {
        let request = ReportRequest {
            image_id,
            client_token: "dry-run".to_owned(),
            tags: [
                ("managed-by", "image-usage-auditor".to_owned()),
                ("auditor-run", "dry-run".to_owned()),
            ],
        };
        let answer = self.request(&request).dry_run(true).send().boxed().await;
        permitted(answer.err().map(CallFailure::from))
    }

    fn request(&self, request: &ReportRequest) -> CreateImageUsageReportFluentBuilder {
        let ReportRequest {
            image_id,
            client_token,
            tags,
        } = request;
        let tags = tags
            .iter()
            .map(|(key, value)| Tag::builder().key(*key).value(value).build());
        let tags = TagSpecification::builder()
            .resource_type(ResourceType::ImageUsageReport)
            .set_tags(Some(tags.collect()))
            .build();
        self.client
            .create_image_usage_report()
            .image_id(image_id)
            .client_token(client_token)
            // Without account IDs, it is about all accounts.
            .set_resource_types(Some(resource_types()))
            .tag_specifications(tags)
    }
}

fn resource_types() -> Vec<ImageUsageResourceTypeRequest> {
    let depth = ImageUsageResourceTypeOptionRequest::builder()
        .option_name("version-depth")
        .option_values(VERSION_DEPTH)
        .build();
    let with_options = |name: &str| {
        // EC2 refuses the option for every other type.
        let options = (name == LAUNCH_TEMPLATE).then(|| vec![depth.clone()]);
        ImageUsageResourceTypeRequest::builder()
            .resource_type(name)
            .set_resource_type_options(options)
            .build()
    };
    KNOWN_RESOURCE_TYPES.map(with_options).into()
}
