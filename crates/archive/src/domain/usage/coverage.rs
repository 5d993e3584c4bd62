//! Whether an AMI is covered: whether a report that could show any use of it is recent, or on its way.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::report_look::{ReportLook, ReportsListed};
use crate::domain::image_tag::ImageTag;
use crate::domain::report::ReportState;
use crate::domain::timestamp::{SECONDS_PER_DAY, SECONDS_PER_HOUR, Timestamp};

/// Whether an AMI is covered.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// EC2 lists an adequate report that is available and recent.
    Covered,
    /// It does not, but an adequate report is being created.
    Pending,
    /// Neither.
    Uncovered,
}

impl Coverage {
    /// The word for it, as in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Covered => "covered",
            Self::Pending => "pending",
            Self::Uncovered => "uncovered",
        }
    }
}

/// Why an AMI is not covered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Gap {
    /// A report has been pending for too long; since then.
    Stuck(Timestamp),
    /// The newest report failed.
    Failed,
    /// The newest adequate report is too old; its creation.
    TooOld(Timestamp),
    /// There are reports, and none of them is adequate.
    TooNarrow,
    /// EC2 lists no report.
    NoReport,
}

impl Gap {
    /// Why the newest adequate report about an AMI is too old, or missing, if none is stuck.
    pub fn of(reports: &ReportsListed) -> Self {
        match (&reports.newest_state, &reports.newest_adequate) {
            (Some(ReportState::Error), _) => Self::Failed,
            (_, Some(adequate)) => Self::TooOld(adequate.creation_time),
            (_, None) if reports.total() > 0 => Self::TooNarrow,
            (_, None) => Self::NoReport,
        }
    }
}

/// Whether an AMI is covered, and why not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Covering {
    /// See [`Coverage::Covered`].
    Covered,
    /// See [`Coverage::Pending`].
    Pending,
    /// See [`Coverage::Uncovered`].
    Uncovered(Gap),
}

impl From<Covering> for Coverage {
    fn from(covering: Covering) -> Self {
        match covering {
            Covering::Covered => Self::Covered,
            Covering::Pending => Self::Pending,
            Covering::Uncovered(_) => Self::Uncovered,
        }
    }
}

/// The rules of coverage.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct CoverageRules {
    /// Only AMIs with this tag count; `None` for all.
    pub image_tag: Option<ImageTag>,
    /// A newer report is asked for at this age. An AMI is covered for twice the time.
    pub renew_after_days: u32,
    /// A report that has been pending for this long is not counted on.
    pub pending_limit_hours: u32,
    /// Whether the auditor asks for reports itself.
    pub renews: bool,
}

impl CoverageRules {
    /// The age from which on a report no longer covers its AMI.
    pub fn limit_days(&self) -> i64 {
        2 * i64::from(self.renew_after_days)
    }

    /// Evaluates the reports about an AMI that EC2 lists, all of them.
    ///
    /// A report that is exactly as old as the limit no longer covers, and one that has been pending for exactly
    /// the limit is stuck. A pending report without a creation time is never stuck.
    pub fn evaluate(&self, reports: &ReportsListed, now: Timestamp) -> Covering {
        let adequate = reports.newest_adequate.as_ref();
        if let Some(adequate) = adequate
            && now.seconds_since(adequate.creation_time) < self.limit_days() * SECONDS_PER_DAY
        {
            return Covering::Covered;
        }
        let newest_pending = reports.newest_pending.as_ref();
        let stuck = newest_pending
            .and_then(|pending| pending.creation_time)
            .filter(|since| self.is_stuck(*since, now));
        if stuck.is_none() && newest_pending.is_some_and(ReportLook::is_adequate) {
            return Covering::Pending;
        }
        Covering::Uncovered(stuck.map_or_else(|| Gap::of(reports), Gap::Stuck))
    }

    fn is_stuck(&self, since: Timestamp, now: Timestamp) -> bool {
        now.seconds_since(since) >= i64::from(self.pending_limit_hours) * SECONDS_PER_HOUR
    }
}
