//! The audit rules: what is reported about an image usage report.

mod finding;
mod kind;
mod supersession;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::finding::plural;
pub use self::finding::{
    Finding, ListedFindings, finding_id, gap_in_words, is_below_cutoff, uncovered_id,
};
pub use self::kind::{FindingKind, FindingSet};
pub use self::supersession::{preference, supersedes};
use super::entries_status::EntriesStatus;
use super::error_code::ErrorCode;
use super::image_tag::ImageTag;
use super::report::{ReportState, UsageReport};
use super::timestamp::{SECONDS_PER_DAY, SECONDS_PER_HOUR, Timestamp};
use super::usage::CoverageRules;

/// The limits of the rules.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Policy {
    /// A report that expires within this many days is flagged.
    pub expiry_window_days: u32,
    /// A report that has been pending for this many hours is flagged.
    pub pending_limit_hours: u32,
    /// The rules of verdicts about AMIs; `None` before version 0.3.0, which gave none.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsagePolicy>,
}

/// The limits of the rules about AMIs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UsagePolicy {
    /// Nobody must have been observed to use an AMI for this many days before a verdict says so.
    pub observation_days: u32,
    /// Whether AMIs are read, and verdicts given.
    pub images: bool,
    /// Whether resources that refer to an AMI are read.
    pub image_references: bool,
    /// Only AMIs with this tag, `Key` or `Key=Value`, count for coverage and renewal; `None` for all.
    pub image_tag: Option<ImageTag>,
    /// Whether the auditor asks EC2 for reports.
    pub renew_reports: bool,
    /// The age of a report, in days, at which a newer one is asked for. An AMI is covered for twice the time.
    pub renew_after_days: u32,
}

impl Policy {
    /// The rules of coverage, given those about AMIs.
    pub fn coverage_rules(&self, usage: &UsagePolicy) -> CoverageRules {
        CoverageRules {
            image_tag: usage.image_tag.clone(),
            renew_after_days: usage.renew_after_days,
            pending_limit_hours: self.pending_limit_hours,
            renews: usage.renew_reports,
        }
    }
}

/// Returns the findings about a report at `now`; none for a healthy one. [`is_unarchived`] evaluates its
/// entries.
///
/// Both edges count: a report that expires exactly at the end of the window is `expiring`, one that
/// has been pending for exactly the limit is `stuck`. A pending report without a creation time is never
/// `stuck`, because its age is unknown.
pub fn evaluate(report: &UsageReport, policy: &Policy, now: Timestamp) -> FindingSet {
    let mut kinds = FindingSet::default();
    if report.state == Some(ReportState::Error) {
        kinds.insert(FindingKind::Failed);
    }
    let window_end = now.plus_seconds(i64::from(policy.expiry_window_days) * SECONDS_PER_DAY);
    if let Some(expiration_time) = report.expiration_time {
        if expiration_time <= now {
            kinds.insert(FindingKind::Expired);
        } else if expiration_time <= window_end {
            kinds.insert(FindingKind::Expiring);
        }
    }
    let pending_since_limit =
        now.plus_seconds(-i64::from(policy.pending_limit_hours) * SECONDS_PER_HOUR);
    if report.state == Some(ReportState::Pending)
        && report
            .creation_time
            .is_some_and(|created| created <= pending_since_limit)
    {
        kinds.insert(FindingKind::Stuck);
    }
    if matches!(report.state, None | Some(ReportState::Other(_))) {
        kinds.insert(FindingKind::UnrecognisedState);
    }
    if report.expiration_time.is_none() {
        kinds.insert(FindingKind::Undated);
    }
    kinds
}

/// Returns whether a report in this state and with these findings is about to expire, or has expired,
/// without archived entries, although the settings ask for them.
pub fn is_unarchived(is_available: bool, kinds: FindingSet, entries: &EntriesStatus) -> bool {
    let is_going = kinds.contains(FindingKind::Expiring) || kinds.contains(FindingKind::Expired);
    let is_missing = match entries {
        EntriesStatus::Archived { .. } | EntriesStatus::NotAvailable => false,
        EntriesStatus::Pending { code } => {
            code.as_deref() != Some(ErrorCode::EntriesNotWanted.as_str())
        }
        EntriesStatus::Failed { .. } => true,
    };
    is_available && is_going && is_missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::report::Tags;
    use crate::domain::target::Target;
    use crate::domain::top_list::MAX_LISTED;

    const POLICY: Policy = Policy {
        expiry_window_days: 7,
        pending_limit_hours: 24,
        usage: None,
    };

    fn now() -> Timestamp {
        "2026-11-22T06:00:00Z".parse().unwrap()
    }

    fn days(count: i64) -> i64 {
        count * SECONDS_PER_DAY
    }

    /// A healthy report: available, created ten days ago, expiring in twenty.
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

        fn kinds(&self) -> Vec<FindingKind> {
            evaluate(&self.0, &POLICY, now()).iter().collect()
        }

        fn finding(&self, kind: FindingKind) -> Finding {
            let target = Target {
                account_id: "111122223333".parse().unwrap(),
                region: "us-east-1".parse().unwrap(),
            };
            Finding::new(
                kind,
                &target,
                &self.0,
                &EntriesStatus::NotAvailable,
                &POLICY,
                now(),
            )
        }
    }

    #[test]
    fn a_finding_below_the_cutoff_is_one_that_would_not_be_listed() {
        let mut listed = ListedFindings::default();
        let expiring = |seconds| {
            a_report()
                .expiring_in(seconds)
                .finding(FindingKind::Expiring)
        };
        for seconds in 0..MAX_LISTED as i64 {
            let kept = expiring(seconds);
            let expires = kept.expiration_time.map(Timestamp::unix_milliseconds);
            assert!(!is_below_cutoff(&listed, kept.kind, expires), "{seconds}");
            listed.insert(kept);
        }
        let late = |kind, seconds: i64| {
            let moment = now().plus_seconds(seconds).unix_milliseconds();
            is_below_cutoff(&listed, kind, Some(moment))
        };
        let last = MAX_LISTED as i64 - 1;
        assert!(late(FindingKind::Expiring, last + 1));
        // Its ID may come first.
        assert!(!late(FindingKind::Expiring, last));
        assert!(!late(FindingKind::Failed, last + 1));
        assert!(late(FindingKind::Stuck, 0));
        assert!(is_below_cutoff(&listed, FindingKind::Undated, None));
        assert!(!is_below_cutoff(&listed, FindingKind::Expiring, None));
    }

    #[test]
    fn a_healthy_report_has_no_finding() {
        assert_eq!(a_report().kinds(), []);
    }

    #[test]
    fn report_expiring_exactly_at_the_window_edge_is_flagged() {
        assert_eq!(
            a_report().expiring_in(days(7)).kinds(),
            [FindingKind::Expiring]
        );
        assert_eq!(a_report().expiring_in(days(7) + 1).kinds(), []);
    }

    #[test]
    fn report_expiring_exactly_now_has_expired() {
        assert_eq!(a_report().expiring_in(0).kinds(), [FindingKind::Expired]);
        assert_eq!(a_report().expiring_in(1).kinds(), [FindingKind::Expiring]);
    }

    #[test]
    fn a_window_of_no_days_flags_only_what_has_expired() {
        let policy = Policy {
            expiry_window_days: 0,
            ..POLICY
        };
        assert_eq!(
            evaluate(&a_report().expiring_in(0).0, &policy, now()),
            FindingSet::from_iter([FindingKind::Expired])
        );
        assert!(evaluate(&a_report().expiring_in(1).0, &policy, now()).is_empty());
    }

    #[test]
    fn report_pending_for_exactly_the_limit_is_stuck() {
        let pending = || a_report().in_state("pending");
        assert_eq!(
            pending().created_before(days(1)).kinds(),
            [FindingKind::Stuck]
        );
        assert_eq!(pending().created_before(days(1) - 1).kinds(), []);
    }

    #[test]
    fn a_failed_report_about_to_expire_has_both_findings() {
        let report = a_report().in_state("error").expiring_in(60);
        assert_eq!(report.kinds(), [FindingKind::Failed, FindingKind::Expiring]);
    }

    #[test]
    fn a_state_that_ec2_adds_is_reported_and_not_taken_for_a_known_one() {
        let report = a_report().in_state("Available");
        assert_eq!(report.kinds(), [FindingKind::UnrecognisedState]);
        let finding = report.finding(FindingKind::UnrecognisedState);
        assert_eq!(finding.message, "unknown state `Available`");
    }

    #[test]
    fn a_report_without_any_field_is_flagged_for_what_it_lacks() {
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
            report.kinds(),
            [FindingKind::UnrecognisedState, FindingKind::Undated]
        );
        assert_eq!(
            report.finding(FindingKind::Undated).id,
            "111122223333/us-east-1/null/undated"
        );
    }

    #[test]
    fn the_message_has_the_time_left_and_the_moment() {
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
        let count = MAX_LISTED as i64 + 50;
        let finding = |n| a_report().expiring_in(n).finding(FindingKind::Expiring);
        let (mut rising, mut falling) = (ListedFindings::default(), ListedFindings::default());
        (1..=count).for_each(|n| rising.insert(finding(n)));
        (1..=count).rev().for_each(|n| falling.insert(finding(n)));
        let rising = rising.into_sorted_vec();
        assert_eq!(rising.len(), MAX_LISTED);
        assert_eq!(
            rising.last().and_then(|last| last.expires_in_seconds),
            Some(MAX_LISTED as i64)
        );
        assert_eq!(rising, falling.into_sorted_vec());
    }

    #[test]
    fn two_identical_reports_are_both_listed() {
        let mut listed = ListedFindings::default();
        listed.insert(a_report().finding(FindingKind::Undated));
        listed.insert(a_report().finding(FindingKind::Undated));
        assert_eq!(listed.into_sorted_vec().len(), 2);
    }
}
