//! Retries for interrupted responses.

use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};

/// Retries a call whose response was truncated, malformed or otherwise unreadable.
///
/// The SDK's own classifiers retry a connection that fails before the response, but not one that fails in
/// the middle of it. Every call of the auditor may be sent twice.
#[derive(Debug)]
pub struct RetryBrokenResponses;

impl ClassifyRetry for RetryBrokenResponses {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        // A success that could not be decoded is an error of the operation.
        let undecoded = context
            .response()
            .is_some_and(|response| response.status().is_success());
        match context.output_or_error() {
            Some(Err(error))
                if undecoded || error.is_response_error() || error.is_interceptor_error() =>
            {
                RetryAction::transient_error()
            }
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "RetryBrokenResponses"
    }
}
