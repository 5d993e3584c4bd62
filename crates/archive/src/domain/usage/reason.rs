//! What keeps a verdict from saying more.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What keeps a verdict from being `no_use_observed`; in the order of their codes.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The newest available report was limited to some accounts.
    AccountsRestricted,
    /// The newest available report looked at too few versions of launch templates.
    DepthShallow,
    /// An available report was not read: it may show a use.
    EntriesNotArchived,
    /// The AMI itself could not be read.
    ImageNotRead,
    /// The AMI has existed for a shorter time than the observation time, or its age is not known.
    ImageTooYoung,
    /// EC2 lists no report about it.
    NoReport,
    /// The series of adequate reports without a use is shorter than the observation time.
    ObservedTooBriefly,
    /// The check of references was not whole, or found some and was not repeated.
    ReferencesNotChecked,
    /// The newest report failed.
    ReportFailed,
    /// The newest report is pending.
    ReportPending,
    /// The last adequate report is too old.
    Stale,
    /// The reports of the account and Region could not be read to their end.
    TargetNotRead,
    /// The newest available report lacks a known resource type, or no later report covers a type that was used.
    TypeNotCovered,
}

impl Reason {
    /// Every reason, in order.
    pub const ALL: [Self; 13] = [
        Self::AccountsRestricted,
        Self::DepthShallow,
        Self::EntriesNotArchived,
        Self::ImageNotRead,
        Self::ImageTooYoung,
        Self::NoReport,
        Self::ObservedTooBriefly,
        Self::ReferencesNotChecked,
        Self::ReportFailed,
        Self::ReportPending,
        Self::Stale,
        Self::TargetNotRead,
        Self::TypeNotCovered,
    ];

    /// Returns the code that is written in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccountsRestricted => "accounts_restricted",
            Self::DepthShallow => "depth_shallow",
            Self::EntriesNotArchived => "entries_not_archived",
            Self::ImageNotRead => "image_not_read",
            Self::ImageTooYoung => "image_too_young",
            Self::NoReport => "no_report",
            Self::ObservedTooBriefly => "observed_too_briefly",
            Self::ReferencesNotChecked => "references_not_checked",
            Self::ReportFailed => "report_failed",
            Self::ReportPending => "report_pending",
            Self::Stale => "stale",
            Self::TargetNotRead => "target_not_read",
            Self::TypeNotCovered => "type_not_covered",
        }
    }
}
