//! The ledger: what a run did for each target, and the objects that it wrote.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::target::{AccountId, Region, Target};

/// What a run did for one target, as the ledger tells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LedgerLine {
    /// The account that was looked at.
    pub account_id: AccountId,
    /// The Region that was looked at.
    pub region: Region,
    /// How far the look got.
    pub status: TargetStatus,
    /// The pages of the listing that were read.
    pub pages: u64,
    /// The reports that are archived.
    pub reports: u64,
    /// Why the look broke off, or why there was none; `None` for a complete target.
    pub error: Option<TargetError>,
    /// Where the reports lie; `None` where nothing was read.
    pub object: Option<ArchivedObject>,
    /// Where the entries lie that this run fetched; `None` where it fetched none.
    pub entries_object: Option<ArchivedObject>,
    /// For a target that was not read to its end, the objects of earlier runs that hold what is known of
    /// it, oldest first: a complete reading, and what came of later ones.
    pub earlier_objects: Vec<ArchivedObject>,
}

impl LedgerLine {
    /// The target.
    pub fn target(&self) -> Target {
        Target {
            account_id: self.account_id.clone(),
            region: self.region.clone(),
        }
    }
}

/// How far the look at a target got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetStatus {
    /// Every page was read and is archived.
    Complete,
    /// Some pages are archived, then the listing broke off.
    Incomplete,
    /// Nothing could be read.
    Failed,
    /// The Region isn't enabled for the account.
    Skipped,
}

impl TargetStatus {
    /// The word that stands in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// Why a target could not be read to its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{code}: {message}")]
pub struct TargetError {
    /// AWS's error code, or one of this project's own where no AWS service answered.
    pub code: String,
    /// The error in words; AWS's own where there are any.
    pub message: String,
    /// What AWS support asks for; `None` where no AWS service answered.
    pub request_id: Option<String>,
}

/// An object that a run wrote, so that anybody can check it.
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
    /// Its lines, once decompressed.
    pub lines: u64,
}
