//! The rules: what is worth telling about a report.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::documents::snapshot::EntriesStatus;
use crate::domain::report::{ReportState, ResourceType, Tags, UsageReport};
use crate::domain::target::{AccountId, Region, Target};
use crate::domain::timestamp::Timestamp;
use crate::domain::top_list::Listed;

/// What can be wrong with a report, most urgent first.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// It is available and about to go, and its entries are not in the archive.
    Unarchived,
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
    /// Every kind, most urgent first.
    pub const ALL: [Self; 7] = [
        Self::Unarchived,
        Self::Failed,
        Self::Expired,
        Self::Expiring,
        Self::Stuck,
        Self::UnrecognisedState,
        Self::Undated,
    ];

    /// The word that stands in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unarchived => "unarchived",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Expiring => "expiring",
            Self::Stuck => "stuck",
            Self::UnrecognisedState => "unrecognised_state",
            Self::Undated => "undated",
        }
    }
}

/// Some kinds of findings: those of one report. Written as a list, most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, JsonSchema)]
#[serde(from = "Vec<FindingKind>")]
#[schemars(with = "Vec<FindingKind>")]
pub struct KindSet(u8);

impl Serialize for KindSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl From<Vec<FindingKind>> for KindSet {
    fn from(kinds: Vec<FindingKind>) -> Self {
        kinds.into_iter().collect()
    }
}

impl KindSet {
    /// Takes a set as [`bits`](Self::bits) gave it.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The set as a number, for this process only.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Adds a kind.
    pub fn insert(&mut self, kind: FindingKind) {
        self.0 |= 1 << kind as u8;
    }

    /// Whether the kind is among them.
    pub fn contains(self, kind: FindingKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds, most urgent first.
    pub fn iter(self) -> impl Iterator<Item = FindingKind> {
        FindingKind::ALL
            .into_iter()
            .filter(move |kind| self.contains(*kind))
    }
}

impl FromIterator<FindingKind> for KindSet {
    fn from_iter<I: IntoIterator<Item = FindingKind>>(kinds: I) -> Self {
        let mut set = Self::default();
        kinds.into_iter().for_each(|kind| set.insert(kind));
        set
    }
}

/// The limits that the rules go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Policy {
    /// A report that expires within so many days is flagged.
    pub expiry_window_days: u32,
    /// A report that is pending for so many hours is flagged.
    pub pending_limit_hours: u32,
}

const SECONDS_PER_DAY: i64 = 86_400;
const SECONDS_PER_HOUR: i64 = 3_600;

/// Tells what is wrong with a report at `now`; nothing for a healthy one. Whether its entries are archived
/// is [`is_unarchived`]'s matter.
///
/// Both edges count: a report that expires exactly at the end of the window is `expiring`, one that
/// is pending for exactly the limit is `stuck`. A pending report without a creation time is not
/// `stuck`, for nothing tells how long it has been pending.
pub fn judge(report: &UsageReport, policy: Policy, now: Timestamp) -> KindSet {
    let mut kinds = KindSet::default();
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

/// Whether a report of this state and with these findings is about to go, or overdue, without its entries
/// in the archive, although they are wanted there.
pub fn is_unarchived(is_available: bool, kinds: KindSet, entries: &EntriesStatus) -> bool {
    let is_going = kinds.contains(FindingKind::Expiring) || kinds.contains(FindingKind::Expired);
    let is_missing = match entries {
        EntriesStatus::Archived { .. } | EntriesStatus::NotAvailable => false,
        EntriesStatus::Pending { code } => code.as_deref() != Some(EntriesStatus::NOT_WANTED),
        EntriesStatus::Failed { .. } => true,
    };
    is_available && is_going && is_missing
}

/// Whether `newer` tells all that `older` tells: the same AMI, later, of at least the same accounts and
/// resource types, each looked at as deeply.
///
/// A report that EC2 has failed to make supersedes nothing, and neither does one that lacks an ID, an AMI
/// or a creation time.
pub fn supersedes(newer: &UsageReport, older: &UsageReport) -> bool {
    let is_sound = matches!(
        newer.state,
        Some(ReportState::Available | ReportState::Pending)
    );
    let same_image = newer.image_id.is_some() && newer.image_id == older.image_id;
    let is_later = match (newer.creation_time, older.creation_time) {
        (Some(newer), Some(older)) => newer > older,
        _ => false,
    };
    let same_accounts = newer.requested_account_ids.is_empty()
        || !older.requested_account_ids.is_empty()
            && older
                .requested_account_ids
                .iter()
                .all(|account| newer.requested_account_ids.contains(account));
    let same_types = older
        .resource_types
        .iter()
        .all(|old| newer.resource_types.iter().any(|new| covers(new, old)));
    newer.report_id.is_some() && is_sound && same_image && is_later && same_accounts && same_types
}

/// Of two reports that supersede a third one, the better has the higher rank: it is available already, or
/// else it is newer.
pub fn successor_rank(report: &UsageReport) -> (bool, Option<Timestamp>, Option<&str>) {
    let is_available = report.state == Some(ReportState::Available);
    (
        is_available,
        report.creation_time,
        report.report_id.as_deref(),
    )
}

/// How many versions of a launch template are looked at where nothing is said.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageUsageResourceTypeOptionRequest.html>
const DEFAULT_VERSION_DEPTH: u32 = 20;

/// Whether a look at `new` sees all that a look at `old` sees. Options that this version doesn't know must
/// be the same.
fn covers(new: &ResourceType, old: &ResourceType) -> bool {
    const DEPTH: &str = "version-depth";
    let depth = |kind: &ResourceType| {
        let mut options = kind.options.iter();
        let option = options.find(|option| option.name.as_deref() == Some(DEPTH));
        match option.map(|option| option.values.as_slice()) {
            None => Some(DEFAULT_VERSION_DEPTH),
            Some([depth]) => depth.parse().ok(),
            Some(_) => None,
        }
    };
    let others = |kind: &ResourceType| {
        let options = kind.options.iter();
        options
            .filter(|option| option.name.as_deref() != Some(DEPTH))
            .cloned()
            .collect::<Vec<_>>()
    };
    let as_deep = match (depth(new), depth(old)) {
        (Some(new), Some(old)) => new >= old,
        _ => false,
    };
    new.resource_type.is_some()
        && new.resource_type == old.resource_type
        && as_deep
        && others(new) == others(old)
}

/// Names a finding: `account_id/region/report_id/kind`; `null` stands for a report ID that EC2 left out.
pub fn finding_id(target: &Target, report_id: Option<&str>, kind: FindingKind) -> String {
    format!("{target}/{}/{}", report_id.unwrap_or("null"), kind.as_str())
}

/// Something flagged about one report, as the snapshot lists it.
///
/// Sorted by kind, then by the sooner expiry (where there is none, the older creation), then by ID.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
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
    /// Whether its entries are in the archive; `None` for kinds that don't tell of a report about to go.
    pub entries_archived: Option<bool>,
    /// For a report about to go, a newer one that tells all that it tells: an available one if there is
    /// one, else one that is pending.
    pub superseded_by: Option<String>,
    /// The finding in a sentence for people.
    pub message: String,
}

impl Finding {
    /// Puts what is wrong with a report into words.
    pub fn new(
        kind: FindingKind,
        target: &Target,
        report: &UsageReport,
        entries: &EntriesStatus,
        policy: Policy,
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

fn message(
    kind: FindingKind,
    report: &UsageReport,
    entries: &EntriesStatus,
    policy: Policy,
    now: Timestamp,
) -> String {
    let time = |time: Option<Timestamp>| match time {
        Some(time) => time.to_whole_second().to_string(),
        None => "a time that EC2 didn't give".to_owned(),
    };
    let span = |time: Option<Timestamp>| span(time.map_or(0, |time| time.seconds_since(now).abs()));
    match kind {
        FindingKind::Unarchived => {
            let expiry = time(report.expiration_time);
            let goes = match report.expiration_time.is_some_and(|expires| expires <= now) {
                true => format!("expired at {expiry}"),
                false => format!("expires in {}, at {expiry}", span(report.expiration_time)),
            };
            let reason = entries.code().unwrap_or("not tried");
            format!("{goes}, and its entries are not archived: {reason}")
        }
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

/// The most urgent findings.
pub type ListedFindings = Listed<Finding>;

/// Whether a finding of this kind about a report with this expiry, in milliseconds since 1970, comes after
/// all that are listed, and has no room any more.
pub fn comes_too_late(
    listed: &ListedFindings,
    kind: FindingKind,
    expiration_milliseconds: Option<i64>,
) -> bool {
    let Some(last) = listed.last_of_all() else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::top_list::MAX_LISTED;

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
            judge(&self.0, POLICY, now()).iter().collect()
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
                POLICY,
                now(),
            )
        }
    }

    #[test]
    fn a_finding_that_comes_too_late_is_one_that_would_not_be_listed() {
        let mut listed = ListedFindings::default();
        let expiring = |seconds| {
            a_report()
                .expiring_in(seconds)
                .finding(FindingKind::Expiring)
        };
        for seconds in 0..MAX_LISTED as i64 {
            let kept = expiring(seconds);
            let expires = kept.expiration_time.map(Timestamp::unix_milliseconds);
            assert!(!comes_too_late(&listed, kept.kind, expires), "{seconds}");
            listed.insert(kept);
        }
        let late = |kind, seconds: i64| {
            let moment = now().plus_seconds(seconds).unix_milliseconds();
            comes_too_late(&listed, kind, Some(moment))
        };
        let last = MAX_LISTED as i64 - 1;
        assert!(late(FindingKind::Expiring, last + 1));
        // Its ID may come first.
        assert!(!late(FindingKind::Expiring, last));
        assert!(!late(FindingKind::Failed, last + 1));
        assert!(late(FindingKind::Stuck, 0));
        assert!(comes_too_late(&listed, FindingKind::Undated, None));
        assert!(!comes_too_late(&listed, FindingKind::Expiring, None));
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
            KindSet::from_iter([FindingKind::Expired])
        );
        assert!(judge(&a_report().expiring_in(1).0, policy, now()).is_empty());
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
    fn two_reports_that_nothing_tells_apart_are_both_listed() {
        let mut listed = ListedFindings::default();
        listed.insert(a_report().finding(FindingKind::Undated));
        listed.insert(a_report().finding(FindingKind::Undated));
        assert_eq!(listed.into_sorted_vec().len(), 2);
    }
}
