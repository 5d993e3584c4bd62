//! The rules: what is worth telling about a report.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

use crate::report::{ReportState, Tags, UsageReport};
use crate::target::{AccountId, Region, Target};
use crate::timestamp::Timestamp;

/// How many findings a snapshot lists; the rest is counted, and stands on the reports' own lines.
///
/// A finding is well below 1 KiB for ordinary tags, so that the list stays below 1 MiB of a snapshot
/// that a person can still open.
pub const MAX_LISTED_FINDINGS: usize = 1_000;

/// What can be wrong with a report, most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// EC2 could not make the report.
    Failed,
    /// Its time of deletion has passed.
    Expired,
    /// Its time of deletion falls into the window.
    Expiring,
    /// It has been pending for the limit or longer.
    Stuck,
    /// Its state is none that this version knows, or none at all.
    UnrecognisedState,
    /// It has no time of deletion.
    Undated,
}

impl FindingKind {
    /// The word that stands in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Expiring => "expiring",
            Self::Stuck => "stuck",
            Self::UnrecognisedState => "unrecognised_state",
            Self::Undated => "undated",
        }
    }
}

/// The limits that the rules go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// A report that expires within so many days is flagged.
    pub expiry_window_days: u32,
    /// A report that is pending for so many hours is flagged.
    pub pending_limit_hours: u32,
}

const SECONDS_PER_DAY: i64 = 86_400;
const SECONDS_PER_HOUR: i64 = 3_600;

/// Tells what is wrong with a report at `now`, in the order of [`FindingKind`]; empty for a healthy one.
///
/// Both edges count: a report that expires exactly at the end of the window is `expiring`, one that
/// is pending for exactly the limit is `stuck`. A pending report without a creation time is not
/// `stuck`, for nothing tells how long it has been pending.
pub fn judge(report: &UsageReport, policy: Policy, now: Timestamp) -> Vec<FindingKind> {
    let mut kinds = Vec::new();
    if report.state == Some(ReportState::Error) {
        kinds.push(FindingKind::Failed);
    }
    let window_end = now.plus_seconds(i64::from(policy.expiry_window_days) * SECONDS_PER_DAY);
    if let Some(expiration_time) = report.expiration_time {
        if expiration_time <= now {
            kinds.push(FindingKind::Expired);
        } else if expiration_time <= window_end {
            kinds.push(FindingKind::Expiring);
        }
    }
    let pending_since_limit =
        now.plus_seconds(-i64::from(policy.pending_limit_hours) * SECONDS_PER_HOUR);
    if report.state == Some(ReportState::Pending)
        && report
            .creation_time
            .is_some_and(|created| created <= pending_since_limit)
    {
        kinds.push(FindingKind::Stuck);
    }
    if matches!(report.state, None | Some(ReportState::Other(_))) {
        kinds.push(FindingKind::UnrecognisedState);
    }
    if report.expiration_time.is_none() {
        kinds.push(FindingKind::Undated);
    }
    kinds
}

/// Something flagged about one report, as the snapshot lists it.
///
/// Sorted by kind, then by the sooner expiry (where there is none, the older creation), then by ID.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// `account_id/region/report_id/kind`; `null` stands for a report ID that EC2 left out.
    pub id: String,
    /// What is wrong.
    pub kind: FindingKind,
    /// The account that owns the AMI.
    pub account_id: AccountId,
    /// The Region of the report.
    pub region: Region,
    /// The report.
    pub report_id: Option<String>,
    /// The AMI that it is about.
    pub image_id: Option<String>,
    /// Its state.
    pub state: Option<ReportState>,
    /// EC2's reason for the state, word for word.
    pub state_reason: Option<String>,
    /// When the report was asked for.
    pub creation_time: Option<Timestamp>,
    /// When EC2 deletes it.
    pub expiration_time: Option<Timestamp>,
    /// Its tags.
    pub tags: Tags,
    /// Seconds from the run's start to the deletion, rounded down; negative once it has passed.
    pub expires_in_seconds: Option<i64>,
    /// The finding in a sentence for people.
    pub message: String,
}

impl Finding {
    /// Puts what is wrong with a report into words.
    pub fn new(
        kind: FindingKind,
        target: &Target,
        report: &UsageReport,
        policy: Policy,
        now: Timestamp,
    ) -> Self {
        let report_id = report.report_id.as_deref().unwrap_or("null");
        Self {
            id: format!("{target}/{report_id}/{}", kind.as_str()),
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
            message: message(kind, report, policy, now),
        }
    }

    fn rank(&self) -> (FindingKind, bool, Option<Timestamp>, &str) {
        let time = self.expiration_time.or(self.creation_time);
        (self.kind, time.is_none(), time, &self.id)
    }
}

impl Ord for Finding {
    fn cmp(&self, other: &Self) -> Ordering {
        // What makes two findings of one rank different comes last, so that equality and order agree.
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

fn message(kind: FindingKind, report: &UsageReport, policy: Policy, now: Timestamp) -> String {
    let time = |time: Option<Timestamp>| match time {
        Some(time) => time.to_whole_second().to_string(),
        None => "a time that EC2 didn't give".to_owned(),
    };
    let span = |time: Option<Timestamp>| span(time.map_or(0, |time| time.seconds_since(now).abs()));
    match kind {
        FindingKind::Failed => match report.state_reason.as_deref() {
            Some(reason) => format!("EC2 could not make the report: {reason}"),
            None => "EC2 could not make the report and gave no reason".to_owned(),
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
        FindingKind::UnrecognisedState => match &report.state {
            Some(state) => format!(
                "the state `{}` is none that this version knows",
                state.as_str()
            ),
            None => "EC2 gave no state".to_owned(),
        },
        FindingKind::Undated => "EC2 gave no expiration time".to_owned(),
    }
}

/// A span in its two largest units, cut and not rounded: `2 days 7 hours`, `5 minutes 0 seconds`.
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

fn plural(count: i64, unit: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{ending}")
}

/// The most urgent findings, at most [`MAX_LISTED_FINDINGS`].
///
/// Which ones are kept depends only on the findings, never on the order in which they came.
#[derive(Clone, Default, Debug)]
pub struct ListedFindings(BinaryHeap<Finding>);

impl ListedFindings {
    /// Takes one in, and lets the least urgent one go where the list is full.
    pub fn insert(&mut self, finding: Finding) {
        self.0.push(finding);
        if self.0.len() > MAX_LISTED_FINDINGS {
            self.0.pop();
        }
    }

    /// Takes in another list.
    pub fn merge(&mut self, other: Self) {
        for finding in other.0 {
            self.insert(finding);
        }
    }

    /// The findings, most urgent first.
    pub fn into_sorted_vec(self) -> Vec<Finding> {
        self.0.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        expiry_window_days: 7,
        pending_limit_hours: 24,
    };

    fn now() -> Timestamp {
        "2026-11-22T06:00:00Z".parse().unwrap()
    }

    fn days(count: i64) -> i64 {
        count * SECONDS_PER_DAY
    }

    /// A healthy report: available, made ten days ago, gone in twenty.
    struct AReport(UsageReport);

    fn a_report() -> AReport {
        AReport(UsageReport {
            report_id: Some("amiur-00b877d192f6b02d0".to_owned()),
            image_id: Some("ami-0abcdef1234567890".to_owned()),
            state: Some(ReportState::Available),
            state_reason: None,
            creation_time: Some(now().plus_seconds(-days(10))),
            expiration_time: Some(now().plus_seconds(days(20))),
            resource_types: Vec::new(),
            requested_account_ids: Vec::new(),
            tags: Tags::new(),
        })
    }

    impl AReport {
        fn expiring_in(mut self, seconds: i64) -> Self {
            self.0.expiration_time = Some(now().plus_seconds(seconds));
            self
        }

        fn created_before(mut self, seconds: i64) -> Self {
            self.0.creation_time = Some(now().plus_seconds(-seconds));
            self
        }

        fn in_state(mut self, word: &str) -> Self {
            self.0.state = Some(ReportState::from(word.to_owned()));
            self
        }

        fn with_id(mut self, id: &str) -> Self {
            self.0.report_id = Some(id.to_owned());
            self
        }

        fn judged(&self) -> Vec<FindingKind> {
            judge(&self.0, POLICY, now())
        }

        fn finding(&self, kind: FindingKind) -> Finding {
            let target = Target {
                account_id: "111122223333".parse().unwrap(),
                region: "us-east-1".parse().unwrap(),
            };
            Finding::new(kind, &target, &self.0, POLICY, now())
        }
    }

    #[test]
    fn a_healthy_report_has_no_finding() {
        assert_eq!(a_report().judged(), []);
    }

    #[test]
    fn report_expiring_exactly_at_the_window_edge_is_flagged() {
        assert_eq!(
            a_report().expiring_in(days(7)).judged(),
            [FindingKind::Expiring]
        );
        assert_eq!(a_report().expiring_in(days(7) + 1).judged(), []);
    }

    #[test]
    fn report_expiring_exactly_now_has_expired() {
        assert_eq!(a_report().expiring_in(0).judged(), [FindingKind::Expired]);
        assert_eq!(a_report().expiring_in(1).judged(), [FindingKind::Expiring]);
    }

    #[test]
    fn a_window_of_no_days_flags_only_what_has_expired() {
        let policy = Policy {
            expiry_window_days: 0,
            ..POLICY
        };
        assert_eq!(
            judge(&a_report().expiring_in(0).0, policy, now()),
            [FindingKind::Expired]
        );
        assert_eq!(judge(&a_report().expiring_in(1).0, policy, now()), []);
    }

    #[test]
    fn report_pending_for_exactly_the_limit_is_stuck() {
        let pending = || a_report().in_state("pending");
        assert_eq!(
            pending().created_before(days(1)).judged(),
            [FindingKind::Stuck]
        );
        assert_eq!(pending().created_before(days(1) - 1).judged(), []);
    }

    #[test]
    fn a_failed_report_about_to_go_has_both_findings() {
        let report = a_report().in_state("error").expiring_in(60);
        assert_eq!(
            report.judged(),
            [FindingKind::Failed, FindingKind::Expiring]
        );
    }

    #[test]
    fn a_state_that_ec2_adds_is_told_and_not_taken_for_a_known_one() {
        let report = a_report().in_state("Available");
        assert_eq!(report.judged(), [FindingKind::UnrecognisedState]);
        let finding = report.finding(FindingKind::UnrecognisedState);
        assert_eq!(
            finding.message,
            "the state `Available` is none that this version knows"
        );
    }

    #[test]
    fn a_report_without_any_member_is_flagged_for_what_it_lacks() {
        let mut report = a_report();
        report.0 = UsageReport {
            report_id: None,
            image_id: None,
            state: None,
            state_reason: None,
            creation_time: None,
            expiration_time: None,
            resource_types: Vec::new(),
            requested_account_ids: Vec::new(),
            tags: Tags::new(),
        };
        assert_eq!(
            report.judged(),
            [FindingKind::UnrecognisedState, FindingKind::Undated]
        );
        assert_eq!(
            report.finding(FindingKind::Undated).id,
            "111122223333/us-east-1/null/undated"
        );
    }

    #[test]
    fn the_message_tells_the_time_left_and_the_moment() {
        let finding = a_report()
            .expiring_in(199_632)
            .finding(FindingKind::Expiring);
        assert_eq!(finding.expires_in_seconds, Some(199_632));
        assert_eq!(
            finding.message,
            "expires in 2 days 7 hours, at 2026-11-24T13:27:12Z"
        );
        assert_eq!(
            a_report()
                .expiring_in(-61)
                .finding(FindingKind::Expired)
                .message,
            "expired 1 minute 1 second ago, at 2026-11-22T05:58:59Z"
        );
        assert_eq!(
            a_report()
                .in_state("pending")
                .created_before(90_000)
                .finding(FindingKind::Stuck)
                .message,
            "pending for 1 day 1 hour, since 2026-11-21T05:00:00Z; the limit is 24 hours"
        );
    }

    #[test]
    fn findings_are_listed_by_kind_then_soonest_expiry_then_id() {
        let expected = [
            a_report()
                .expiring_in(days(20))
                .finding(FindingKind::Failed),
            a_report()
                .expiring_in(1)
                .with_id("amiur-a")
                .finding(FindingKind::Expiring),
            a_report()
                .expiring_in(1)
                .with_id("amiur-b")
                .finding(FindingKind::Expiring),
            a_report()
                .expiring_in(2)
                .with_id("amiur-a")
                .finding(FindingKind::Expiring),
            a_report().expiring_in(0).finding(FindingKind::Stuck),
        ];
        let mut listed = ListedFindings::default();
        for index in [3, 0, 4, 2, 1] {
            listed.insert(expected[index].clone());
        }
        assert_eq!(listed.into_sorted_vec(), expected);
    }

    #[test]
    fn a_full_list_keeps_the_most_urgent_whatever_the_order_they_came_in() {
        let count = MAX_LISTED_FINDINGS as i64 + 50;
        let finding = |n| a_report().expiring_in(n).finding(FindingKind::Expiring);
        let (mut rising, mut falling) = (ListedFindings::default(), ListedFindings::default());
        (1..=count).for_each(|n| rising.insert(finding(n)));
        (1..=count).rev().for_each(|n| falling.insert(finding(n)));
        let rising = rising.into_sorted_vec();
        assert_eq!(rising.len(), MAX_LISTED_FINDINGS);
        assert_eq!(
            rising.last().and_then(|last| last.expires_in_seconds),
            Some(MAX_LISTED_FINDINGS as i64)
        );
        assert_eq!(rising, falling.into_sorted_vec());
    }

    #[test]
    fn two_reports_that_nothing_tells_apart_are_both_listed() {
        let mut listed = ListedFindings::default();
        listed.insert(a_report().finding(FindingKind::Undated));
        listed.insert(a_report().finding(FindingKind::Undated));
        assert_eq!(listed.into_sorted_vec().len(), 2);
    }
}
