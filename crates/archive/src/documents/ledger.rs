//! The ledger: what a run did for each target, and the objects that it wrote.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::target::{AccountId, Region, Target};

/// The line of the ledger for one target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LedgerLine {
    /// The account that was audited.
    pub account_id: AccountId,
    /// The Region that was audited.
    pub region: Region,
    /// How completely the target was audited.
    pub status: TargetStatus,
    /// The pages of the listing that were read.
    pub pages: u64,
    /// The reports that are archived.
    pub reports: u64,
    /// Why the audit was interrupted, or why there was none; `None` for a complete target.
    pub error: Option<TargetError>,
    /// The object with the reports; `None` if nothing was read.
    pub object: Option<ArchivedObject>,
    /// The object with the entries that this run fetched; `None` if it fetched none.
    pub entries_object: Option<ArchivedObject>,
    /// What the run read of the target's AMIs; `None` before version 0.3.0, which read none.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub images: Option<ImagesLedger>,
    /// The objects of earlier runs that contain what is known of the target. For one that was not read completely:
    /// its reports, oldest first, of one complete audit and the incomplete ones after it. If the run has written no
    /// AMIs: the newest object with them.
    pub earlier_objects: Vec<ArchivedObject>,
}

impl LedgerLine {
    /// Returns the target.
    pub fn target(&self) -> Target {
        Target {
            account_id: self.account_id.clone(),
            region: self.region.clone(),
        }
    }
}

/// What a run read of a target's AMIs.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ImagesLedger {
    /// How many AMIs the account owns in the Region; `None` if they were not wholly read.
    // Required, so that a ledger without it is recognised.
    #[serde(deserialize_with = "Option::deserialize")]
    pub images_read: Option<u64>,
    /// Why the AMIs were not wholly read; `None` if they were, or were not asked for.
    pub images_error: Option<TargetError>,
    /// Why references were not wholly read; `None` if they were, or were not asked for.
    pub references_error: Option<TargetError>,
    /// The object with a line for each AMI; `None` if there is no AMI, or none was asked for.
    pub images_object: Option<ArchivedObject>,
    /// The reports that EC2 was asked for; `None` if the settings do not say so, or if the target was not read.
    pub renewals: Option<Renewals>,
}

/// The reports that a run asked EC2 for.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Renewals {
    /// The AMIs for which EC2 is creating one.
    pub requested: u64,
    /// The AMIs that are left to later runs.
    pub deferred: u64,
    /// The AMIs for which EC2 refused one.
    pub failed: u64,
    /// The first refusal, or why AMIs are left although fewer than 500 were asked for; `None` if there is neither.
    pub error: Option<TargetError>,
}

/// How completely a target was audited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetStatus {
    /// Every page was read and is archived.
    Complete,
    /// Some pages are archived; then the listing was interrupted.
    Incomplete,
    /// Nothing could be read.
    Failed,
    /// The Region is not enabled for the account.
    Skipped,
}

impl TargetStatus {
    /// Returns the word that is written in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// Why a target could not be read completely.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{code}: {message}")]
pub struct TargetError {
    /// AWS's error code, or one of the auditor's own if no AWS service answered.
    pub code: String,
    /// The error message; AWS's own if there is one.
    pub message: String,
    /// The ID that AWS support asks for; `None` if no AWS service answered.
    pub request_id: Option<String>,
}

/// An object that a run wrote, with what is needed to check it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ArchivedObject {
    /// Its key in the archive's bucket.
    pub key: String,
    /// Its version; `None` in a bucket without versions.
    pub version_id: Option<String>,
    /// The SHA-256 of its bytes as stored, in hex.
    pub sha256: String,
    /// Its size as stored, in bytes.
    pub bytes: u64,
    /// Its number of lines, once decompressed.
    pub lines: u64,
}
