//! The verdict about an AMI, and what keeps it from saying more.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::observation::LONGEST_GAP_DAYS;
use super::reason::Reason;
use super::report_look::ReportsListed;
use super::{ImageUsage, LAUNCHES, REFERENCES, Source};
use crate::domain::report::ReportState;
use crate::domain::timestamp::{SECONDS_PER_DAY, Timestamp};

/// What is known about the use of an AMI.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The AMI no longer exists: it is absent from a whole reading of the account's AMIs.
    Gone,
    /// A use was observed within the observation time.
    InUse,
    /// Nobody was observed to use it over the whole observation time.
    NoUseObserved,
    /// It was used, and nothing says that this has ended.
    LastSeenInUse,
    /// Nothing of the above can be said.
    Unknown,
}

impl Verdict {
    /// Every verdict, in the order in which they are decided.
    pub const ALL: [Self; 5] = [
        Self::Gone,
        Self::InUse,
        Self::NoUseObserved,
        Self::LastSeenInUse,
        Self::Unknown,
    ];

    /// Returns the word that is written in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::InUse => "in_use",
            Self::NoUseObserved => "no_use_observed",
            Self::LastSeenInUse => "last_seen_in_use",
            Self::Unknown => "unknown",
        }
    }
}

/// What a run saw of an AMI, besides what [`ImageUsage`] carries.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The run's start: the time at which the rules are evaluated.
    pub started_at: Timestamp,
    /// How long no use must have been observed.
    pub observation_days: u32,
    /// Whether the reports of the account and Region were read to their end.
    pub is_target_read: bool,
    /// The AMI itself.
    pub image: ImageLook,
    /// The reports about it that EC2 lists.
    pub reports: &'a ReportsListed,
    /// Its references.
    pub references: ReferencesLook,
}

/// What a run saw of an AMI itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageLook {
    /// The account's AMIs were not, or not wholly read.
    NotRead,
    /// It is not among the account's AMIs.
    Absent,
    /// It is there.
    Read {
        /// When it was created.
        creation_time: Option<Timestamp>,
    },
}

/// What a run saw of the resources that refer to an AMI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReferencesLook {
    /// The settings do not ask for them.
    NotWanted,
    /// They were not, or not wholly read.
    NotChecked,
    /// Every one was read.
    Checked,
}

/// A verdict with its reasons.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// What keeps it from being `no_use_observed`; empty unless it is `last_seen_in_use` or `unknown`.
    pub reasons: BTreeSet<Reason>,
}

/// Gives the verdict about an AMI.
pub fn judge(usage: &ImageUsage, look: &Look<'_>) -> Judgement {
    let without_reasons = |verdict| Judgement {
        verdict,
        reasons: BTreeSet::new(),
    };
    if look.image == ImageLook::Absent {
        return without_reasons(Verdict::Gone);
    }
    if is_in_use(usage, look) {
        return without_reasons(Verdict::InUse);
    }
    let reasons = reasons(usage, look);
    match (reasons.is_empty(), usage.last_observed) {
        (true, _) => without_reasons(Verdict::NoUseObserved),
        (false, Some(_)) => Judgement {
            verdict: Verdict::LastSeenInUse,
            reasons,
        },
        (false, None) => Judgement {
            verdict: Verdict::Unknown,
            reasons,
        },
    }
}

/// Whether a source showed use within the observation time, and has not been looked at in full since.
fn is_in_use(usage: &ImageUsage, look: &Look<'_>) -> bool {
    let shows_use = |(name, source): (&String, &Source)| {
        let Some(last) = source.last_observed else {
            return false;
        };
        let is_latest = match name.as_str() {
            // A launch stays a fact, however often the AMI is read.
            LAUNCHES => true,
            // Only those that this run has found.
            REFERENCES => last == look.started_at,
            _ => source.is_last_use_open(),
        };
        is_latest && look.started_at.seconds_since(last) <= observation_seconds(look)
    };
    usage.sources.iter().any(shows_use)
}

/// What keeps an AMI that is not in use from `no_use_observed`.
fn reasons(usage: &ImageUsage, look: &Look<'_>) -> BTreeSet<Reason> {
    let mut reasons = BTreeSet::new();
    if !look.is_target_read {
        reasons.insert(Reason::TargetNotRead);
    }
    match look.image {
        ImageLook::Read { creation_time } => {
            let is_old = creation_time.is_some_and(|created| {
                look.started_at.seconds_since(created) > observation_seconds(look)
            });
            if !is_old {
                reasons.insert(Reason::ImageTooYoung);
            }
        }
        ImageLook::NotRead | ImageLook::Absent => {
            reasons.insert(Reason::ImageNotRead);
        }
    }
    let references = usage.sources.get(REFERENCES);
    if look.references == ReferencesLook::NotChecked
        || references.is_some_and(Source::is_last_use_open)
    {
        reasons.insert(Reason::ReferencesNotChecked);
    }
    if look.reports.entries_not_archived > 0 {
        reasons.insert(Reason::EntriesNotArchived);
    }
    reasons.extend(observation_reasons(usage, look));
    reasons
}

/// What is wrong with the observation; nothing if it suffices.
fn observation_reasons(usage: &ImageUsage, look: &Look<'_>) -> BTreeSet<Reason> {
    let mut reasons = BTreeSet::new();
    match usage.observed.latest() {
        None => {}
        Some(series) => {
            let age = look.started_at.seconds_since(series.until);
            if age > LONGEST_GAP_DAYS * SECONDS_PER_DAY {
                reasons.insert(Reason::Stale);
            }
            let without_use_since = usage.last_observed.max(Some(series.since));
            let is_long = without_use_since.is_some_and(|since| {
                series.until.seconds_since(since) >= observation_seconds(look)
            });
            if !is_long {
                reasons.insert(Reason::ObservedTooBriefly);
            }
            if reasons.is_empty() {
                // An adequate report ends the use of every known type, and of no other.
                if usage.types().any(|(_, source)| source.is_last_use_open()) {
                    reasons.insert(Reason::TypeNotCovered);
                }
                return reasons;
            }
        }
    }
    match look.reports.newest_state {
        Some(ReportState::Pending) => {
            reasons.insert(Reason::ReportPending);
        }
        Some(ReportState::Error) => {
            reasons.insert(Reason::ReportFailed);
        }
        _ => {}
    }
    if look.reports.total() == 0 {
        reasons.insert(Reason::NoReport);
    }
    if let Some(newest) = &look.reports.newest_available {
        reasons.extend(newest.flaws());
    }
    if reasons.is_empty() {
        // An adequate report is there, and its entries have yet to be read.
        reasons.insert(Reason::ObservedTooBriefly);
    }
    reasons
}

fn observation_seconds(look: &Look<'_>) -> i64 {
    i64::from(look.observation_days) * SECONDS_PER_DAY
}
