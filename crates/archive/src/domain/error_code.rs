//! The project's own error codes, beside those of AWS.

use std::fmt;

/// An error code for a failure that no AWS service reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorCode {
    /// The function that was to audit a batch of targets failed, and left no outcome.
    BatchFailed,
    /// No connection could be made, or it broke.
    ConnectionFailed,
    /// No credentials could be found or obtained.
    CredentialsUnavailable,
    /// The run ran out of time.
    DeadlineExceeded,
    /// The settings do not ask for entries.
    EntriesNotWanted,
    /// The function's temporary storage failed.
    LocalStorage,
    /// A line of an archived object is not what it should be.
    MalformedLine,
    /// A response that a healthy service would not send.
    MalformedResponse,
    /// An object with the key of a snapshot is not a snapshot.
    MalformedSnapshot,
    /// An archived object is missing, or its bytes have changed.
    ObjectDamaged,
    /// A listing returned a page token for the second time.
    RepeatedToken,
    /// EC2 deleted the report before its entries were fetched.
    ReportDeleted,
    /// The request could not be built or sent.
    RequestNotSent,
    /// A call took too long.
    TimedOut,
    /// The report has no ID by which to ask for its entries.
    UnnamedReport,
}

impl ErrorCode {
    /// The code as it is written in the archive and the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BatchFailed => "BatchFailed",
            Self::ConnectionFailed => "ConnectionFailed",
            Self::CredentialsUnavailable => "CredentialsUnavailable",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::EntriesNotWanted => "EntriesNotWanted",
            Self::LocalStorage => "LocalStorage",
            Self::MalformedLine => "MalformedLine",
            Self::MalformedResponse => "MalformedResponse",
            Self::MalformedSnapshot => "MalformedSnapshot",
            Self::ObjectDamaged => "ObjectDamaged",
            Self::RepeatedToken => "RepeatedToken",
            Self::ReportDeleted => "ReportDeleted",
            Self::RequestNotSent => "RequestNotSent",
            Self::TimedOut => "TimedOut",
            Self::UnnamedReport => "UnnamedReport",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<ErrorCode> for String {
    fn from(code: ErrorCode) -> Self {
        code.as_str().to_owned()
    }
}
