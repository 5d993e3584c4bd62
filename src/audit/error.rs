//! Why an invocation has no answer.

use std::collections::BTreeMap;

use image_usage_archive::documents::{LedgerLine, TargetError};
use image_usage_archive::domain::run_id::RunId;
use image_usage_archive::domain::target::AccountId;

use crate::archive::lines_writer::ArchiveError;
use crate::request::InvalidRequest;

/// How many failed targets an error names; the log has a line for each.
const MAX_NAMED_FAILURES: usize = 5;

/// Why an invocation has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The payload is not a valid event or request.
    #[error(transparent)]
    InvalidRequest(#[from] InvalidRequest),
    /// The accounts to audit need a role that the settings do not name.
    #[error(
        "AUDITOR_ROLE_NAME is not set, but {account_id} is another account: name the role to assume in it"
    )]
    RoleNotSet {
        /// The other account.
        account_id: AccountId,
    },
    /// A phase of a run came before its plan.
    #[error(
        "`run_id`: {run_id} has no plan at s3://{bucket}/{key}: invoke the function with the phase `plan` first, and with the same archive"
    )]
    NotPlanned {
        /// The run.
        run_id: RunId,
        /// The archive's bucket.
        bucket: String,
        /// Where the plan would be.
        key: String,
    },
    /// A phase of a run has other settings than its plan, or is another version.
    #[error(
        "the run {run_id} was planned with other settings ({what}): let it end before you change them, or start another run"
    )]
    OtherSettings {
        /// The run.
        run_id: RunId,
        /// What differs.
        what: String,
    },
    /// No target could be read at all, so there is nothing to archive.
    #[error("no target could be audited: {reasons}")]
    NoTargetAudited {
        /// The first reasons.
        reasons: String,
    },
    /// A snapshot or a plan could not be serialized.
    #[error("failed to write a document as JSON")]
    DocumentNotWritten(#[source] serde_json::Error),
    /// What was read could not be archived in time.
    #[error(
        "the archive could not be written before the function's deadline: check whether S3 is slow or refuses writes"
    )]
    OutOfTime,
    /// The archive could not be read or written.
    #[error("the archive could not be written")]
    ArchiveFailed(#[source] ArchiveError),
}

impl RunError {
    /// The name under which Lambda reports the error.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) | Self::NotPlanned { .. } => "InvalidRequest",
            Self::RoleNotSet { .. } | Self::OtherSettings { .. } => "InvalidSettings",
            Self::NoTargetAudited { .. } => "NoTargetAudited",
            Self::DocumentNotWritten(_) | Self::OutOfTime | Self::ArchiveFailed(_) => {
                "ArchiveFailed"
            }
        }
    }

    /// An error for a run of which no target could be read; groups the targets by their reason.
    pub(crate) fn no_target_audited(targets: &[LedgerLine]) -> Self {
        Self::NoTargetAudited {
            reasons: reasons(targets),
        }
    }
}

/// The reasons why targets failed, each with the targets that it applies to.
fn reasons(targets: &[LedgerLine]) -> String {
    if targets.is_empty() {
        return "there is none".to_owned();
    }
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in targets {
        let reason = line
            .error
            .as_ref()
            .map_or_else(String::new, TargetError::to_string);
        let targets = by_reason.entry(reason).or_default();
        targets.push(line.target().to_string());
    }
    let more = by_reason.len().saturating_sub(MAX_NAMED_FAILURES);
    let mut named: Vec<String> = by_reason
        .into_iter()
        .take(MAX_NAMED_FAILURES)
        .map(|(reason, targets)| match targets.as_slice() {
            [target] => format!("{target}: {reason}"),
            [first, rest @ ..] => format!("{first} and {} more: {reason}", rest.len()),
            [] => reason,
        })
        .collect();
    if more > 0 {
        named.push(format!("and {more} more reasons"));
    }
    named.join("; ")
}
