//! The configuration that all SDK clients share: credentials, endpoints, retries, timeouts.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region as SdkRegion, SdkConfig};
use aws_credential_types::Credentials;
use aws_smithy_runtime::client::retries::{RetryPartition, TokenBucket};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::http;
use crate::domain::target::Region;

/// Attempts of one call, the first included.
///
/// With the backoff below, the last one starts 20 to 45 seconds after the first: long enough to outlast an
/// empty token bucket of EC2 (refilled at 20 calls a second) and a short disturbance, and enough attempts
/// that a service which fails half of all calls fails 1 of 30,000 in the end.
const MAX_ATTEMPTS: u32 = 15;

/// The longest wait before the first retry; each further one waits up to twice as long.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);

/// The longest wait before a retry.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// One attempt, from sending to the last byte of the response. A page of 1,000 reports is below 2 MB, a part
/// of an upload 5 MiB; a longer call is considered hung.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// All attempts of one call: a service that hangs each time must not block a target for the whole run.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// The configuration that all SDK clients share: credentials, endpoints, and one HTTP client.
#[derive(Clone, Debug)]
pub struct Aws {
    config: SdkConfig,
}

impl Aws {
    /// Reads credentials, Region and endpoints from where every AWS tool does; in Lambda, that is the
    /// function's environment.
    pub async fn from_environment() -> Self {
        Self {
            config: loader(http::client()).load().await,
        }
    }

    /// Connects to a local AWS: everything at one endpoint, with an access key that it knows.
    pub async fn at_endpoint(endpoint: &str, region: &Region, access_key_id: &str) -> Self {
        let credentials = Credentials::new(access_key_id, "secret", None, None, "LocalAws");
        let loader = loader(http::client())
            .endpoint_url(endpoint)
            .region(sdk_region(region))
            .credentials_provider(credentials);
        Self {
            config: loader.load().await,
        }
    }

    /// Returns the configured Region; `None` if there is none, or if it is malformed.
    pub fn region(&self) -> Option<Region> {
        self.config.region()?.as_ref().parse().ok()
    }

    /// Returns the configuration that every SDK client shares.
    pub fn config(&self) -> &SdkConfig {
        &self.config
    }
}

pub(super) fn loader(http_client: SharedHttpClient) -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client)
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(MAX_ATTEMPTS)
                .with_initial_backoff(INITIAL_BACKOFF)
                .with_max_backoff(MAX_BACKOFF),
        )
        .timeout_config(
            TimeoutConfig::builder()
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(CALL_TIMEOUT)
                .build(),
        )
}

/// The retry tokens of one partition: each retry costs up to 14 of them.
///
/// The SDK's default of 500 is meant for clients with many calls in flight. Here a target has one, and
/// each of its retries waits longer: that alone bounds the load on AWS.
const RETRY_TOKENS: usize = 100_000;

/// Returns a partition of retry tokens for one client.
///
/// By default all accounts share the tokens of a service and Region for the lifetime of the process: one
/// throttled account would use up the retries of the others, in this run and the next.
pub fn retry_partition(name: String) -> RetryPartition {
    RetryPartition::custom(name)
        .token_bucket(TokenBucket::new(RETRY_TOKENS))
        .build()
}

/// Converts a Region to the SDK's type.
pub fn sdk_region(region: &Region) -> SdkRegion {
    SdkRegion::new(region.as_str().to_owned())
}
