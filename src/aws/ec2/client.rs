//! The EC2 client of one account in one Region.

use aws_sdk_ec2::Client;
use image_usage_archive::aws::{RetryBrokenResponses, retry_partition, sdk_region};
use image_usage_archive::domain::target::Region;

use crate::aws::accounts::AccountAccess;

/// Creates a client with the account's credentials, and with retries of its own.
pub(super) fn client(access: &AccountAccess, region: &Region) -> Client {
    let partition = retry_partition(format!("ec2/{}/{region}", access.account_id()));
    let config = aws_sdk_ec2::config::Builder::from(access.config())
        .region(sdk_region(region))
        .retry_partition(partition)
        .retry_classifier(RetryBrokenResponses)
        .build();
    Client::from_conf(config)
}
