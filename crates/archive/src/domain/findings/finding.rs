//! A finding about one report, or about an AMI, and its message.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Policy;
use super::kind::FindingKind;
use crate::domain::entries_status::EntriesStatus;
use crate::domain::report::{ReportState, Tags, UsageReport};
use crate::domain::target::{AccountId, Region, Target};
use crate::domain::timestamp::{SECONDS_PER_DAY, SECONDS_PER_HOUR, Timestamp};
use crate::domain::top_list::TopList;
use crate::domain::usage::{ADEQUATE_VERSION_DEPTH, CoverageRules, Gap};

/// Returns the ID of a finding: `account_id/region/report_id/kind`, with `null` for a missing report ID.
pub fn finding_id(target: &Target, report_id: Option<&str>, kind: FindingKind) -> String {
    format!("{target}/{}/{}", report_id.unwrap_or("null"), kind.as_str())
}

/// Returns the ID of the finding `uncovered`: `account_id/region/image_id/uncovered`.
pub fn uncovered_id(target: &Target, image_id: &str) -> String {
    format!("{target}/{image_id}/{}", FindingKind::Uncovered.as_str())
}

/// A finding about one report, or about an AMI, as the snapshot lists it.
///
/// Sorted by kind, then by expiration time (or creation time, if there is none), then by ID.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// `account_id/region/report_id/kind`, with `null` for a missing report ID; `account_id/region/image_id/kind`
    /// for a finding about an AMI.
    pub id: String,
    /// The kind.
    pub kind: FindingKind,
    /// The account that owns the AMI.
    pub account_id: AccountId,
    /// The Region of the report.
    pub region: Region,
    /// The report; `None` for a finding about an AMI.
    pub report_id: Option<String>,
    /// The AMI, or the one that the report is about.
    pub image_id: Option<String>,
    /// Its state.
    pub state: Option<ReportState>,
    /// EC2's reason for the state, verbatim.
    pub state_reason: Option<String>,
    /// When the report was requested.
    pub creation_time: Option<Timestamp>,
    /// When EC2 deletes it.
    pub expiration_time: Option<Timestamp>,
    /// Its tags; those of the AMI for a finding about one.
    pub tags: Tags,
    /// Seconds from the run's start to the expiration, rounded down; negative once it has passed.
    pub expires_in_seconds: Option<i64>,
    /// Whether the report's entries are archived; `None` for kinds that are not about expiration.
    pub entries_archived: Option<bool>,
    /// A newer report that covers everything that this one does, for a report about to expire: an available
    /// one, or else a pending one.
    pub superseded_by: Option<String>,
    /// The finding as a sentence.
    pub message: String,
}

impl Finding {
    /// Whether the finding is about a report that is about to expire, or has expired.
    pub fn is_about_expiry(&self) -> bool {
        self.entries_archived.is_some()
    }

    /// Describes a finding about a report.
    pub fn new(
        kind: FindingKind,
        target: &Target,
        report: &UsageReport,
        entries: &EntriesStatus,
        policy: &Policy,
        now: Timestamp,
    ) -> Self {
        let is_going = matches!(
            kind,
            FindingKind::Unarchived | FindingKind::Expired | FindingKind::Expiring
        );
        Self {
            id: finding_id(target, report.report_id.as_deref(), kind),
            kind,
            account_id: target.account_id.clone(),
            region: target.region.clone(),
            report_id: report.report_id.clone(),
            image_id: report.image_id.clone(),
            state: report.state.clone(),
            state_reason: report.state_reason.clone(),
            creation_time: report.creation_time,
            expiration_time: report.expiration_time,
            tags: report.tags.clone(),
            expires_in_seconds: report
                .expiration_time
                .map(|expires| expires.seconds_since(now)),
            entries_archived: is_going.then_some(matches!(entries, EntriesStatus::Archived { .. })),
            superseded_by: None,
            message: message(kind, report, entries, policy, now),
        }
    }

    /// Describes why an AMI is not covered.
    pub fn uncovered(
        target: &Target,
        image_id: &str,
        tags: &Tags,
        gap: Gap,
        rules: &CoverageRules,
        now: Timestamp,
    ) -> Self {
        Self {
            id: uncovered_id(target, image_id),
            kind: FindingKind::Uncovered,
            account_id: target.account_id.clone(),
            region: target.region.clone(),
            report_id: None,
            image_id: Some(image_id.to_owned()),
            state: None,
            state_reason: None,
            creation_time: None,
            expiration_time: None,
            tags: tags.clone(),
            expires_in_seconds: None,
            entries_archived: None,
            superseded_by: None,
            message: uncovered_message(gap, rules, now),
        }
    }

    fn rank(&self) -> (FindingKind, bool, Option<Timestamp>, &str) {
        let time = self.expiration_time.or(self.creation_time);
        (self.kind, time.is_none(), time, &self.id)
    }
}

impl Ord for Finding {
    fn cmp(&self, other: &Self) -> Ordering {
        // Further fields come last, so that equality and order agree.
        self.rank().cmp(&other.rank()).then_with(|| {
            let rest = |finding: &Self| {
                (
                    finding.image_id.clone(),
                    finding.tags.clone(),
                    finding.message.clone(),
                )
            };
            rest(self).cmp(&rest(other))
        })
    }
}

impl PartialOrd for Finding {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn message(
    kind: FindingKind,
    report: &UsageReport,
    entries: &EntriesStatus,
    policy: &Policy,
    now: Timestamp,
) -> String {
    let time = |time: Option<Timestamp>| match time {
        Some(time) => time.to_whole_second().to_string(),
        None => "an unknown time".to_owned(),
    };
    let span = |time: Option<Timestamp>| span(time.map_or(0, |time| time.seconds_since(now).abs()));
    match kind {
        FindingKind::Unarchived => {
            let expiry = time(report.expiration_time);
            let goes = match report.expiration_time.is_some_and(|expires| expires <= now) {
                true => format!("expired at {expiry}"),
                false => format!("expires in {}, at {expiry}", span(report.expiration_time)),
            };
            let reason = entries.code().unwrap_or("not attempted");
            format!("{goes}; its entries are not archived: {reason}")
        }
        FindingKind::Failed => match report.state_reason.as_deref() {
            Some(reason) => format!("EC2 failed to create the report: {reason}"),
            None => "EC2 failed to create the report, without a reason".to_owned(),
        },
        FindingKind::Expired => {
            format!(
                "expired {} ago, at {}",
                span(report.expiration_time),
                time(report.expiration_time)
            )
        }
        FindingKind::Expiring => {
            format!(
                "expires in {}, at {}",
                span(report.expiration_time),
                time(report.expiration_time)
            )
        }
        FindingKind::Stuck => {
            let limit = plural(i64::from(policy.pending_limit_hours), "hour");
            let since = time(report.creation_time);
            format!(
                "pending for {}, since {since}; the limit is {limit}",
                span(report.creation_time)
            )
        }
        // Findings about AMIs have their own message; a report has none of this kind.
        FindingKind::Uncovered => "no recent report covers the AMI".to_owned(),
        FindingKind::UnrecognisedState => match &report.state {
            Some(state) => format!("unknown state `{}`", state.as_str()),
            None => "the report has no state".to_owned(),
        },
        FindingKind::Undated => "the report has no expiration time".to_owned(),
    }
}

fn uncovered_message(gap: Gap, rules: &CoverageRules, now: Timestamp) -> String {
    let why = match gap {
        Gap::TooOld(_) => format!(
            "{}, and the limit is {}",
            gap_in_words(gap, now),
            plural(rules.limit_days(), "day")
        ),
        _ => gap_in_words(gap, now),
    };
    let remedy = match (gap, rules.renews) {
        // EC2 refuses a second pending report of an AMI.
        (Gap::Stuck(_), _) => "delete it, so that EC2 accepts a new request",
        (_, true) => "the auditor asks for one; see `renewals` of the target",
        (_, false) => "request one, or set AUDITOR_RENEW_REPORTS",
    };
    format!("{why}: {remedy}")
}

/// Says why no report covers an AMI.
pub fn gap_in_words(gap: Gap, now: Timestamp) -> String {
    let age = |time: Timestamp| span(now.seconds_since(time).abs());
    match gap {
        Gap::Stuck(since) => {
            let since_when = since.to_whole_second();
            format!(
                "the newest report has been pending for {}, since {since_when}",
                age(since)
            )
        }
        Gap::Failed => "the newest report failed".to_owned(),
        Gap::TooOld(created) => format!(
            "the newest report that covers everything is {} old",
            age(created)
        ),
        Gap::TooNarrow => format!(
            "no report covers all accounts, every known resource type and {ADEQUATE_VERSION_DEPTH} versions of each launch template"
        ),
        Gap::NoReport => "EC2 lists no report about the AMI".to_owned(),
    }
}

/// Writes a span in its two largest units, truncated: `2 days 7 hours`, `5 minutes 0 seconds`.
fn span(seconds: i64) -> String {
    let (days, hours) = (
        seconds / SECONDS_PER_DAY,
        seconds % SECONDS_PER_DAY / SECONDS_PER_HOUR,
    );
    let (minutes, rest) = (seconds % SECONDS_PER_HOUR / 60, seconds % 60);
    let (large, small) = match (days, hours) {
        (0, 0) => (plural(minutes, "minute"), plural(rest, "second")),
        (0, _) => (plural(hours, "hour"), plural(minutes, "minute")),
        _ => (plural(days, "day"), plural(hours, "hour")),
    };
    format!("{large} {small}")
}

/// Writes a count and its unit: `1 hour`, `2 hours`.
pub(crate) fn plural(count: i64, unit: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{ending}")
}

/// The most urgent findings, as many as a snapshot lists.
pub type ListedFindings = TopList<Finding>;

/// Returns whether a finding of this kind about a report that expires at this time, in milliseconds since
/// 1970, comes after all findings of a full list.
pub fn is_below_cutoff(
    listed: &ListedFindings,
    kind: FindingKind,
    expiration_milliseconds: Option<i64>,
) -> bool {
    let Some(last) = listed.last_if_full() else {
        return false;
    };
    let last_expiration = last.expiration_time.map(Timestamp::unix_milliseconds);
    match (
        last.kind.cmp(&kind),
        last_expiration,
        expiration_milliseconds,
    ) {
        (Ordering::Less, _, _) => true,
        (Ordering::Equal, Some(last), Some(this)) => last < this,
        _ => false,
    }
}
