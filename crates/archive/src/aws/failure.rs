//! Failed AWS calls, classified by what can be done about them.

use std::error::Error;
use std::fmt::{Debug, Write};

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;

use crate::documents::TargetError;
use crate::domain::error_code::ErrorCode;

/// A call to AWS that failed, after the SDK's own retries.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct CallFailure {
    /// AWS's error code; an [`ErrorCode`] if no AWS service reported the failure.
    pub code: String,
    /// AWS's message, or the chain of causes.
    pub message: String,
    /// The request's ID; `None` if no AWS service answered.
    pub request_id: Option<String>,
    /// What to do about it.
    pub kind: FailureKind,
}

/// What can be done about a failed call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// The caller may not do this.
    Denied,
    /// The credentials are not valid in this Region: perhaps the account has not enabled it.
    RegionRefused,
    /// EC2 does not know the page token, or no longer knows it.
    TokenRefused,
    /// EC2 does not accept the value of a parameter; the page size is the only one that the auditor chooses.
    PageSizeRefused,
    /// EC2 does not accept a page size beside other parameters, such as a list of IDs.
    PageSizeBesideIds,
    /// A dry run that would have been permitted.
    PermittedDryRun,
    /// The condition of a write does not hold (S3's 412).
    ConditionFailed,
    /// Another write was under way (S3's 409).
    Conflict,
    /// The thing does not exist.
    NotFound,
    /// The credentials have expired: new ones help.
    CredentialsExpired,
    /// The same call may succeed later: throttling, a fault of the service or of the network.
    Transient,
    /// The same call will fail again.
    Permanent,
}

impl FailureKind {
    /// Whether a target that failed with this is worth a second attempt in the same run.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Transient | Self::CredentialsExpired | Self::TokenRefused | Self::Conflict
        )
    }
}

impl CallFailure {
    /// A failure that no AWS service reported.
    pub fn own(code: ErrorCode, message: String, kind: FailureKind) -> Self {
        Self {
            code: code.into(),
            message,
            request_id: None,
            kind,
        }
    }

    /// Returns whether an object exists but cannot be read, now or later: access to it or to its KMS key is
    /// denied, or it is in Glacier.
    pub fn is_unreadable(&self) -> bool {
        self.kind == FailureKind::Denied
            || self.code == "InvalidObjectState"
            || self.code.starts_with("KMS.")
    }

    /// A response that a healthy service would not send.
    pub fn malformed(message: String) -> Self {
        Self::own(
            ErrorCode::MalformedResponse,
            message,
            FailureKind::Transient,
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
            message: without_blobs(&message),
            request_id,
        }
    }
}

/// The failure of an earlier invocation, as it was recorded.
impl From<TargetError> for CallFailure {
    fn from(recorded: TargetError) -> Self {
        let TargetError {
            code,
            message,
            request_id,
        } = recorded;
        Self {
            code,
            message,
            request_id,
            kind: FailureKind::Permanent,
        }
    }
}

/// A longer word in a message is a blob, such as an encoded authorization message of 1 to 2 KB: thousands of
/// them would make an answer larger than Lambda accepts. The request ID leads to the whole message.
const MAX_WORD_CHARACTERS: usize = 200;

/// Cuts long words in a message.
fn without_blobs(message: &str) -> String {
    let cut = |word: &str| match word.chars().count() {
        0..=MAX_WORD_CHARACTERS => word.to_owned(),
        length => {
            let start: String = word.chars().take(32).collect();
            format!("{start}… ({length} characters)")
        }
    };
    message.split(' ').map(cut).collect::<Vec<_>>().join(" ")
}

impl<E> From<SdkError<E, HttpResponse>> for CallFailure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        if let Some(failure) = cause::<CallFailure>(&error) {
            // A role that could not be assumed: the call itself was never sent.
            return failure.clone();
        }
        let request_id = error.request_id().map(str::to_owned);
        let failure = match &error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                let failure = service_error(answer.err(), status);
                with_bucket_region(failure, answer.raw())
            }
            other => {
                let (code, kind) = unanswered(other);
                Self::own(code, chain(&error), kind)
            }
        };
        Self {
            request_id,
            ..failure
        }
    }
}

/// Returns the failure that a service reported with this HTTP status.
fn service_error<E>(error: &E, status: u16) -> CallFailure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let message = error.message().map_or_else(|| chain(error), str::to_owned);
    let code = match error.code().filter(|code| !code.is_empty()) {
        Some(code) => code.to_owned(),
        // A success that could not be decoded.
        None if (200..=299).contains(&status) => return CallFailure::malformed(message),
        None => format!("Http{status}"),
    };
    CallFailure {
        kind: kind_of(&code, status),
        code,
        message,
        request_id: None,
    }
}

/// Adds the Region of the bucket to the message of a call that was sent to another Region.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/Redirects.html>
fn with_bucket_region(mut failure: CallFailure, answer: &HttpResponse) -> CallFailure {
    let is_redirect = matches!(answer.status().as_u16(), 301 | 307 | 308)
        || matches!(
            failure.code.as_str(),
            "PermanentRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException"
        );
    if let Some(region) = answer.headers().get("x-amz-bucket-region")
        && is_redirect
    {
        let hint = format!("; the bucket is in {region}: set AWS_REGION={region}");
        failure.message.push_str(&hint);
    }
    failure
}

/// Returns the code of a call that no service answered.
fn unanswered<E>(error: &SdkError<E, HttpResponse>) -> (ErrorCode, FailureKind)
where
    E: Error + 'static,
{
    let code = match error {
        SdkError::TimeoutError(_) => ErrorCode::TimedOut,
        SdkError::ResponseError(_) => ErrorCode::MalformedResponse,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => ErrorCode::TimedOut,
        SdkError::DispatchFailure(failure) if failure.is_io() => ErrorCode::ConnectionFailed,
        SdkError::DispatchFailure(_) => match cause::<CredentialsError>(error) {
            Some(_) => ErrorCode::CredentialsUnavailable,
            None => ErrorCode::ConnectionFailed,
        },
        _ => return (ErrorCode::RequestNotSent, FailureKind::Permanent),
    };
    (code, FailureKind::Transient)
}

/// Classifies a service's error by its code, else by its HTTP status.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>
fn kind_of(code: &str, status: u16) -> FailureKind {
    match code {
        "DryRunOperation" => FailureKind::PermittedDryRun,
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => FailureKind::Denied,
        "AuthFailure" | "OptInRequired" => FailureKind::RegionRefused,
        "InvalidPaginationToken" | "InvalidNextToken" => FailureKind::TokenRefused,
        // By code alone: EC2 words these in many ways.
        "InvalidParameterValue" | "InvalidMaxResults" => FailureKind::PageSizeRefused,
        "InvalidParameterCombination" => FailureKind::PageSizeBesideIds,
        "PreconditionFailed" => FailureKind::ConditionFailed,
        "ConditionalRequestConflict" | "OperationAborted" => FailureKind::Conflict,
        // S3's code if its response has no body.
        "NoSuchKey" | "NoSuchUpload" | "NoSuchVersion" | "NotFound" => FailureKind::NotFound,
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
        | "RequestTimeout" => FailureKind::Transient,
        _ => match status {
            412 => FailureKind::ConditionFailed,
            409 => FailureKind::Conflict,
            500..=599 => FailureKind::Transient,
            _ => FailureKind::Permanent,
        },
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

/// Returns the first error of the given type among an error's causes.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// Writes an error and its causes on one line. Only their `Display` texts: the SDK's `Debug` forms contain
/// whole requests.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        let _ = write!(text, ": {cause}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_authorization_message_is_cut_and_every_other_word_is_kept() {
        let blob = "x".repeat(1_500);
        let message = format!("You are not authorized. Encoded message: {blob} end");
        let expected = format!(
            "You are not authorized. Encoded message: {}… (1500 characters) end",
            "x".repeat(32)
        );
        assert_eq!(without_blobs(&message), expected);
        let arn = "arn:aws:iam::111122223333:role/".to_owned() + &"r".repeat(128);
        assert_eq!(without_blobs(&arn), arn);
    }
}
