//! What became of a call that did not succeed.

use std::error::Error;
use std::fmt::{Debug, Write};

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;

use crate::documents::snapshot::TargetError;

/// A call to AWS that failed, after the SDK's own retries.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct CallFailure {
    /// AWS's error code; where no AWS service answered, one of `ConnectionFailed`, `TimedOut`,
    /// `MalformedResponse`, `CredentialsUnavailable` and `RequestNotSent`.
    pub code: String,
    /// AWS's message, or the chain of causes.
    pub message: String,
    /// The request's ID; `None` where no AWS service answered.
    pub request_id: Option<String>,
    /// What to do about it.
    pub kind: FailureKind,
}

/// What can be done about a failed call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// The caller may not do this.
    Denied,
    /// The credentials don't hold in this Region: perhaps it isn't enabled for the account.
    RegionRefused,
    /// EC2 doesn't know the page token (any more).
    TokenRefused,
    /// EC2 doesn't take the page size.
    PageSizeRefused,
    /// A dry run that would have been permitted.
    PermittedDryRun,
    /// The condition of a write doesn't hold (S3's 412).
    ConditionFailed,
    /// Another write was under way (S3's 409).
    Conflict,
    /// The thing isn't there.
    NotFound,
    /// The credentials have run out: new ones mend it.
    CredentialsExpired,
    /// The same call may succeed later: throttling, a fault of the service or of the network.
    Passing,
    /// The same call will fail again.
    Lasting,
}

/// Tells of an answer that a working service doesn't give.
pub fn malformed(message: String) -> CallFailure {
    CallFailure {
        code: "MalformedResponse".to_owned(),
        message,
        request_id: None,
        kind: FailureKind::Passing,
    }
}

impl FailureKind {
    /// Whether a target that failed so is worth a second look in the same run.
    pub fn may_pass(self) -> bool {
        matches!(
            self,
            Self::Passing | Self::CredentialsExpired | Self::TokenRefused | Self::Conflict
        )
    }
}

impl From<CallFailure> for TargetError {
    fn from(failure: CallFailure) -> Self {
        let CallFailure {
            code,
            message,
            request_id,
            kind: _,
        } = failure;
        Self {
            code,
            message,
            request_id,
        }
    }
}

impl<E> From<SdkError<E, HttpResponse>> for CallFailure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        if let Some(failure) = cause::<CallFailure>(&error) {
            // A role that couldn't be assumed: the call itself was never sent.
            return failure.clone();
        }
        let status = error
            .raw_response()
            .map(|response| response.status().as_u16());
        let request_id = error.request_id().map(str::to_owned);
        let (code, message, kind) = match &error {
            SdkError::ServiceError(answer) => {
                let message = answer
                    .err()
                    .message()
                    .map_or_else(|| chain(answer.err()), str::to_owned);
                let code = answer.err().code().filter(|code| !code.is_empty());
                let (code, kind) = match (code, status) {
                    (Some(code), _) => (code.to_owned(), kind_of(code, &message, status)),
                    // A page that was sent as a success, but could not be decoded.
                    (None, None | Some(200..=299)) => {
                        ("MalformedResponse".to_owned(), FailureKind::Passing)
                    }
                    (None, Some(number)) => {
                        let code = format!("Http{number}");
                        let kind = kind_of(&code, &message, status);
                        (code, kind)
                    }
                };
                (code, message, kind)
            }
            SdkError::TimeoutError(_) => own("TimedOut", &error, FailureKind::Passing),
            SdkError::ResponseError(_) => own("MalformedResponse", &error, FailureKind::Passing),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                own("TimedOut", &error, FailureKind::Passing)
            }
            SdkError::DispatchFailure(failure) if failure.is_io() => {
                own("ConnectionFailed", &error, FailureKind::Passing)
            }
            SdkError::DispatchFailure(_) => {
                match cause::<aws_credential_types::provider::error::CredentialsError>(&error) {
                    Some(_) => own("CredentialsUnavailable", &error, FailureKind::Passing),
                    None => own("ConnectionFailed", &error, FailureKind::Passing),
                }
            }
            _ => own("RequestNotSent", &error, FailureKind::Lasting),
        };
        Self {
            code,
            message,
            request_id,
            kind,
        }
    }
}

fn own(
    code: &str,
    error: &(dyn Error + 'static),
    kind: FailureKind,
) -> (String, String, FailureKind) {
    (code.to_owned(), chain(error), kind)
}

/// Tells what can be done about a service's error.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>
fn kind_of(code: &str, message: &str, status: Option<u16>) -> FailureKind {
    match code {
        "DryRunOperation" => FailureKind::PermittedDryRun,
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => FailureKind::Denied,
        "AuthFailure" | "OptInRequired" => FailureKind::RegionRefused,
        "InvalidPaginationToken" | "InvalidNextToken" => FailureKind::TokenRefused,
        "InvalidParameterValue" | "InvalidParameterCombination" | "InvalidMaxResults"
            if message.contains("MaxResults") || message.contains("maxResults") =>
        {
            FailureKind::PageSizeRefused
        }
        "PreconditionFailed" => FailureKind::ConditionFailed,
        "ConditionalRequestConflict" | "OperationAborted" => FailureKind::Conflict,
        "NoSuchKey" | "NoSuchUpload" | "NoSuchVersion" => FailureKind::NotFound,
        // EC2's codes name the thing: `InvalidImageUsageReportId.NotFound`.
        _ if code.ends_with(".NotFound") => FailureKind::NotFound,
        "RequestExpired" | "ExpiredToken" | "ExpiredTokenException" => {
            FailureKind::CredentialsExpired
        }
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException"
        | "SlowDown"
        | "RequestTimeout" => FailureKind::Passing,
        _ => match status {
            Some(412) => FailureKind::ConditionFailed,
            Some(409) => FailureKind::Conflict,
            Some(500..=599) => FailureKind::Passing,
            _ => FailureKind::Lasting,
        },
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

/// Finds an error of the given type among an error's causes.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// Writes an error and its causes on one line; only their texts, for the SDK's `Debug` forms hold
/// whole requests.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        let _ = write!(text, ": {cause}");
    }
    text
}
