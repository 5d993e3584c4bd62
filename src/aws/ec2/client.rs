//! The EC2 client of one account in one Region, and what all its calls share.

use aws_sdk_ec2::Client;
use image_usage_archive::aws::{
    CallFailure, FailureKind, RetryBrokenResponses, retry_partition, sdk_region,
};
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

/// Converts the outcome of a dry run, in which a certain error means that the call is permitted.
pub(super) fn permitted(failure: Option<CallFailure>) -> Result<(), CallFailure> {
    match failure {
        Some(failure) if failure.kind == FailureKind::PermittedDryRun => Ok(()),
        Some(failure) => Err(failure),
        None => Err(CallFailure::malformed(
            "EC2 answered a dry run as a real call".to_owned(),
        )),
    }
}

/// Requests are refused before they get here if the number does not fit.
pub(super) fn whole_number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
