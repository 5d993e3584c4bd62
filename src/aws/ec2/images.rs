//! AMIs, and the resources of an account that refer to them.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::describe_image_references::builders::DescribeImageReferencesFluentBuilder;
use aws_sdk_ec2::operation::describe_image_references::{
    DescribeImageReferences, DescribeImageReferencesOutput,
};
use aws_sdk_ec2::operation::describe_images::builders::DescribeImagesFluentBuilder;
use aws_sdk_ec2::operation::describe_images::{DescribeImages, DescribeImagesOutput};
use aws_sdk_ec2::types::{
    ImageReferenceOptionName, ImageReferenceResourceType, ResourceTypeOption, ResourceTypeRequest,
};
use aws_smithy_runtime_api::client::interceptors::context::Output;
use futures_util::FutureExt;
use image_usage_archive::aws::CallFailure;

use super::answers::{ImageReference, ImagesAnswer, OwnImage, ReferencesAnswer};
use super::client::{permitted, whole_number};
use super::decoder::Decoder;
use super::pagination::ListedPage;

/// The most AMIs whose references EC2 reads in one call.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeImageReferences.html>
pub const MAX_IMAGES_PER_CALL: usize = 10;

/// The states of instances that exist: a terminated one no longer uses its AMI.
const LIVE_INSTANCES: [&str; 5] = ["pending", "running", "shutting-down", "stopping", "stopped"];

/// How many versions of each launch template EC2 looks at: the most that it accepts.
const VERSION_DEPTH: &str = "10000";

/// The AMIs of one account in one Region.
#[derive(Debug)]
pub struct Images {
    client: Client,
}

impl Images {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Reads one page of the AMIs that the account owns, disabled and deprecated ones too.
    ///
    /// # Errors
    /// Fails as EC2 does, after the SDK's retries, and if the answer is not a whole document.
    pub async fn page(
        &self,
        max_results: Option<u32>,
        token: Option<&str>,
    ) -> Result<ListedPage<OwnImage>, CallFailure> {
        let decoder = Decoder::<ImagesAnswer>::new(&DescribeImages::new(), || {
            Output::erase(DescribeImagesOutput::builder().build())
        });
        self.own_images()
            .set_max_results(max_results.map(whole_number))
            .set_next_token(token.map(str::to_owned))
            .customize()
            .interceptor(decoder.clone())
            .send()
            .boxed()
            .await?;
        decoder.take().map(ListedPage::from)
    }

    /// Reads one page of the resources that refer to some AMIs, at most 10: live instances, launch templates, SSM
    /// parameters and Image Builder recipes of this account in this Region.
    ///
    /// # Errors
    /// Fails as EC2 does, after the SDK's retries, and if the answer is not a whole document.
    pub async fn references(
        &self,
        image_ids: &[String],
        token: Option<&str>,
    ) -> Result<ListedPage<ImageReference>, CallFailure> {
        let decoder = Decoder::<ReferencesAnswer>::new(&DescribeImageReferences::new(), || {
            Output::erase(DescribeImageReferencesOutput::builder().build())
        });
        self.references_to(image_ids)
            .set_next_token(token.map(str::to_owned))
            .customize()
            .interceptor(decoder.clone())
            .send()
            .boxed()
            .await?;
        decoder.take().map(ListedPage::from)
    }

    /// Asks EC2 whether it would permit reading AMIs.
    ///
    /// # Errors
    /// Fails if EC2 would not, or cannot be asked.
    pub async fn dry_run(&self) -> Result<(), CallFailure> {
        let answer = self.own_images().dry_run(true).send().boxed().await;
        permitted(answer.err().map(CallFailure::from))
    }

    /// Asks EC2 whether it would permit reading references.
    ///
    /// # Errors
    /// Fails if EC2 would not, or cannot be asked.
    pub async fn dry_run_references(&self) -> Result<(), CallFailure> {
        // An AMI is required; a dry run does not look whether it exists.
        let any = ["ami-00000000000000000".to_owned()];
        let answer = self.references_to(&any).dry_run(true).send().boxed().await;
        permitted(answer.err().map(CallFailure::from))
    }

    fn own_images(&self) -> DescribeImagesFluentBuilder {
        // Deprecated AMIs are always listed to their owner.
        self.client
            .describe_images()
            .owners("self")
            .include_disabled(true)
    }

    fn references_to(&self, image_ids: &[String]) -> DescribeImageReferencesFluentBuilder {
        self.client
            .describe_image_references()
            .set_image_ids(Some(image_ids.to_vec()))
            .set_resource_types(Some(resource_types()))
    }
}

/// Every type, named: with `IncludeAllResourceTypes`, EC2 counts terminated instances, and looks at only ten
/// versions of a launch template.
fn resource_types() -> Vec<ResourceTypeRequest> {
    let with_option = |resource_type, name, values: &[&str]| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let option = ResourceTypeOption::builder()
            .option_name(name)
            .set_option_values(Some(values))
            .build();
        ResourceTypeRequest::builder()
            .resource_type(resource_type)
            .resource_type_options(option)
            .build()
    };
    let plain = |resource_type| {
        ResourceTypeRequest::builder()
            .resource_type(resource_type)
            .build()
    };
    vec![
        with_option(
            ImageReferenceResourceType::Ec2Instance,
            ImageReferenceOptionName::StateName,
            &LIVE_INSTANCES,
        ),
        with_option(
            ImageReferenceResourceType::Ec2LaunchTemplate,
            ImageReferenceOptionName::VersionDepth,
            &[VERSION_DEPTH],
        ),
        plain(ImageReferenceResourceType::SsmParameter),
        plain(ImageReferenceResourceType::ImageBuilderImageRecipe),
        plain(ImageReferenceResourceType::ImageBuilderContainerRecipe),
    ]
}
