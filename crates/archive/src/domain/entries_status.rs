//! Where a report's entries are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::run_id::RunId;

/// Where a report's entries are.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
#[schemars(deny_unknown_fields)]
pub enum EntriesStatus {
    /// In the archive.
    Archived {
        /// The object that holds them.
        key: String,
        /// The run that fetched them.
        run_id: RunId,
        /// How many there are; 0 when EC2 has none: no usage observed.
        count: u64,
    },
    /// Not there yet: a later run may fetch them.
    Pending {
        /// Why an available report is not done yet; `None` where the report itself is pending.
        code: Option<String>,
    },
    /// EC2 has none for a report in this state.
    NotAvailable,
    /// EC2 did not give them.
    Failed {
        /// AWS's error code, or one of this project's own.
        code: String,
    },
}

impl EntriesStatus {
    /// The code of entries that the settings don't ask for.
    pub const NOT_WANTED: &'static str = "EntriesNotWanted";

    /// Why the entries are not in the archive, where there is more to say than the status.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Archived { .. } | Self::NotAvailable => None,
            Self::Pending { code } => code.as_deref(),
            Self::Failed { code } => Some(code),
        }
    }
}
