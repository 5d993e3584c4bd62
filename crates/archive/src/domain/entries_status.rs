//! Where a report's entries are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run_id::RunId;

/// Where a report's entries are.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
#[schemars(deny_unknown_fields)]
pub enum EntriesStatus {
    /// They are archived.
    Archived {
        /// The object that contains them.
        key: String,
        /// The run that fetched them.
        run_id: RunId,
        /// How many there are; 0 if EC2 has none: no usage observed.
        count: u64,
    },
    /// They are not archived yet: a later run may fetch them.
    Pending {
        /// Why the entries of an available report are not archived yet; `None` if the report itself is pending.
        code: Option<String>,
    },
    /// A report in this state has no entries.
    NotAvailable,
    /// EC2 did not return them.
    Failed {
        /// AWS's error code, or one of the auditor's own.
        code: String,
    },
}

impl EntriesStatus {
    /// Returns why the entries are not archived, if there is more to say than the status.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Archived { .. } | Self::NotAvailable => None,
            Self::Pending { code } => code.as_deref(),
            Self::Failed { code } => Some(code),
        }
    }
}
