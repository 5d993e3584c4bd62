//! Which AMIs of a target need a new report, and in which order EC2 is asked for them.

use std::collections::{BinaryHeap, VecDeque};

use crate::documents::ImageLine;
use crate::domain::timestamp::{SECONDS_PER_DAY, SECONDS_PER_HOUR, Timestamp};
use crate::domain::usage::{CoverageRules, Gap, ReportsListed};

/// The most reports that a run asks for in one target: two minutes of calls, and a quarter of EC2's quota of
/// pending reports.
pub const MAX_REQUESTS: usize = 500;

/// How long to wait after a report has failed: half a day, so that a daily run asks again the next day. Each further
/// failure in a row doubles it.
const WAIT_AFTER_FAILURE_SECONDS: i64 = 12 * SECONDS_PER_HOUR;

/// The longest wait is this often doubled: 16 days.
const MAX_DOUBLINGS: u64 = 5;

/// When EC2 can be asked for a report about an AMI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextRequest {
    /// Not while a report is pending: EC2 refuses a second one, however old the first one is.
    AfterPending,
    /// From this time on: the newest adequate report reaches its age, and enough time has passed since the last
    /// failure. `None` if there is neither.
    From(Option<Timestamp>),
}

impl NextRequest {
    /// Returns when EC2 can be asked about an AMI; `None` if its line does not count for coverage.
    pub fn of(line: &ImageLine, rules: &CoverageRules) -> Option<Self> {
        line.coverage?;
        Some(Self::given(&line.reports, rules))
    }

    fn given(reports: &ReportsListed, rules: &CoverageRules) -> Self {
        if reports.pending > 0 {
            return Self::AfterPending;
        }
        let is_old = reports.newest_adequate.as_ref().map(|adequate| {
            let age = i64::from(rules.renew_after_days) * SECONDS_PER_DAY;
            adequate.creation_time.plus_seconds(age)
        });
        let has_waited = reports.newest_failed.map(|failed| {
            let doublings = reports.failed_in_a_row.saturating_sub(1).min(MAX_DOUBLINGS);
            failed.plus_seconds(WAIT_AFTER_FAILURE_SECONDS << doublings)
        });
        Self::From(is_old.max(has_waited))
    }

    fn is_due(self, now: Timestamp) -> bool {
        matches!(self, Self::From(time) if time.is_none_or(|time| time <= now))
    }
}

/// An AMI that needs a new report; in the order in which EC2 is asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DueImage {
    /// Whether it is in another state than `available`: EC2 may refuse reports about it.
    is_unavailable: bool,
    /// The creation of its newest adequate report; `None`, which comes first, if there is none.
    newest_adequate: Option<Timestamp>,
    /// The AMI.
    pub image_id: String,
    /// Whether EC2 has made a report about it before.
    is_proven: bool,
    /// Why it needs one.
    pub gap: Gap,
}

impl DueImage {
    /// Takes an AMI from its line; `None` if it needs no report now.
    pub fn of(line: &ImageLine, rules: &CoverageRules, now: Timestamp) -> Option<Self> {
        NextRequest::of(line, rules).filter(|next| next.is_due(now))?;
        let state = line.image.as_ref().and_then(|image| image.state.as_ref());
        let adequate = line.reports.newest_adequate.as_ref();
        Some(Self {
            is_unavailable: state.is_some_and(|state| state != "available"),
            newest_adequate: adequate.map(|one| one.creation_time),
            image_id: line.image_id.clone(),
            is_proven: line.reports.total() > 0 || !line.observed_reports.is_empty(),
            gap: Gap::of(&line.reports),
        })
    }
}

/// The AMIs of a target that need a new report: the first ones, and how many others there are.
#[derive(Debug)]
pub struct RenewalPlan {
    rules: CoverageRules,
    now: Timestamp,
    first: BinaryHeap<DueImage>,
    /// Those that are left to later runs.
    deferred: u64,
}

impl RenewalPlan {
    /// Plans nothing yet.
    pub fn new(rules: CoverageRules, now: Timestamp) -> Self {
        Self {
            rules,
            now,
            first: BinaryHeap::new(),
            deferred: 0,
        }
    }

    /// Adds an AMI, if it needs a new report.
    pub fn add(&mut self, line: &ImageLine) {
        self.first.extend(DueImage::of(line, &self.rules, self.now));
        self.limit(MAX_REQUESTS);
    }

    /// Defers those that come last.
    pub fn limit(&mut self, most: usize) {
        while self.first.len() > most {
            self.first.pop();
            self.deferred += 1;
        }
    }

    /// How many AMIs it holds.
    pub fn planned(&self) -> usize {
        self.first.len()
    }

    /// Those that are left to later runs.
    pub fn deferred(&self) -> u64 {
        self.deferred
    }

    /// The AMIs, in order.
    pub fn into_queue(self) -> RequestQueue {
        RequestQueue(self.first.into_sorted_vec().into())
    }
}

/// The AMIs for which EC2 has yet to be asked.
#[derive(Debug)]
pub struct RequestQueue(VecDeque<DueImage>);

impl RequestQueue {
    /// Takes the next AMI; if `wants_proven`, the next one of which EC2 has made a report before, if there is one.
    pub fn take(&mut self, wants_proven: bool) -> Option<DueImage> {
        let proven = self.0.iter().position(|image| image.is_proven);
        let place = proven.filter(|_| wants_proven).unwrap_or(0);
        self.0.remove(place)
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.0.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use crate::documents::{ImageFields, ImageReading, References};
    use crate::domain::report::{ReportState, ResourceType, ResourceTypeOption, UsageReport};
    use crate::domain::target::Target;
    use crate::domain::usage::{ImageUsage, KNOWN_RESOURCE_TYPES, ReferencesLook};

    use super::*;

    const HOUR: i64 = SECONDS_PER_HOUR;
    const DAY: i64 = SECONDS_PER_DAY;

    fn now() -> Timestamp {
        "2026-11-22T06:00:00Z".parse().unwrap()
    }

    fn rules() -> CoverageRules {
        CoverageRules {
            renew_after_days: 7,
            pending_limit_hours: 24,
            ..CoverageRules::default()
        }
    }

    /// An adequate report in this state, of this age in seconds.
    fn adequate(state: &str, age: i64) -> UsageReport {
        let depth = ResourceTypeOption {
            name: Some("version-depth".to_owned()),
            values: vec!["10000".to_owned()],
        };
        let types = KNOWN_RESOURCE_TYPES.map(|name| ResourceType {
            resource_type: Some(name.to_owned()),
            options: vec![depth.clone()],
        });
        UsageReport {
            report_id: Some(format!("amiur-{age}")),
            state: Some(ReportState::from(state)),
            creation_time: Some(now().plus_seconds(-age)),
            resource_types: types.to_vec(),
            ..UsageReport::default()
        }
    }

    fn narrow(state: &str, age: i64) -> UsageReport {
        UsageReport {
            resource_types: Vec::new(),
            ..adequate(state, age)
        }
    }

    fn line(image_id: &str, image: Option<ImageFields>, reports: &[UsageReport]) -> ImageLine {
        let target = Target {
            account_id: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        let mut listed = ReportsListed::default();
        reports.iter().for_each(|report| listed.add(report, true));
        let read = ImageReading {
            started_at: now(),
            observation_days: 30,
            is_target_read: true,
            are_images_read: true,
            image,
            reports: listed,
            references_look: ReferencesLook::NotWanted,
            references: References::default(),
            coverage_rules: rules(),
        };
        ImageLine::new(&target, image_id.to_owned(), &ImageUsage::default(), read)
    }

    fn in_state(state: &str) -> Option<ImageFields> {
        Some(ImageFields {
            state: Some(state.to_owned()),
            ..ImageFields::default()
        })
    }

    #[test]
    fn an_ami_is_due_without_a_recent_adequate_report_unless_one_is_pending_or_failed_lately() {
        let failed = |count: i64, age| -> Vec<UsageReport> {
            let failures = (0..count).map(|n| adequate("error", age + n * DAY));
            failures.collect()
        };
        #[rustfmt::skip]
        let table: Vec<(&str, Vec<UsageReport>, bool)> = vec![
            ("none", vec![], true),
            ("young", vec![adequate("available", 7 * DAY - 1)], false),
            ("of exactly the age", vec![adequate("available", 7 * DAY)], true),
            ("young, and an old one", vec![adequate("available", 20 * DAY), adequate("available", DAY)], false),
            ("narrow", vec![narrow("available", DAY)], true),
            ("old, and a newer narrow one", vec![adequate("available", 7 * DAY), narrow("available", DAY)], true),
            ("pending", vec![adequate("pending", HOUR)], false),
            ("narrow and pending", vec![narrow("pending", HOUR)], false),
            ("stuck", vec![adequate("pending", 9 * DAY)], false),
            ("failed an hour ago", failed(1, HOUR), false),
            ("failed half a day ago", failed(1, 12 * HOUR), true),
            ("failed twice, half a day ago", failed(2, 12 * HOUR), false),
            ("failed twice, a day ago", failed(2, DAY), true),
            ("failed three times", failed(3, 2 * DAY - 1), false),
            ("failed three times, longer ago", failed(3, 2 * DAY), true),
            ("failed ten times", failed(10, 16 * DAY - 1), false),
            ("failed ten times, longer ago", failed(10, 16 * DAY), true),
            ("failed before the newest adequate one", [failed(3, 8 * DAY), vec![adequate("available", 7 * DAY)]].concat(), true),
            ("failed after an old one", [failed(1, HOUR), vec![adequate("available", 9 * DAY)]].concat(), false),
            ("in a state that EC2 adds", vec![adequate("paused", DAY)], true),
        ];
        for (what, reports, expected) in table {
            let line = line("ami-0", in_state("available"), &reports);
            let due = DueImage::of(&line, &rules(), now());
            assert_eq!(due.is_some(), expected, "{what}");
        }
    }

    #[test]
    fn an_ami_that_does_not_count_for_coverage_is_never_due() {
        assert_eq!(
            DueImage::of(&line("ami-0", None, &[]), &rules(), now()),
            None
        );
    }

    fn plan(lines: impl IntoIterator<Item = ImageLine>) -> RenewalPlan {
        let mut plan = RenewalPlan::new(rules(), now());
        lines.into_iter().for_each(|line| plan.add(&line));
        plan
    }

    fn taken(mut queue: RequestQueue) -> Vec<String> {
        let next = || queue.take(false).map(|image| image.image_id);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn those_never_reported_come_first_then_the_oldest_and_those_that_are_not_available_last() {
        let available = || in_state("available");
        let lines = [
            line("ami-1", in_state("disabled"), &[]),
            line("ami-2", available(), &[adequate("available", 8 * DAY)]),
            line("ami-3", available(), &[adequate("available", 20 * DAY)]),
            line("ami-4", available(), &[adequate("available", DAY)]),
            line("ami-5", Some(ImageFields::default()), &[]),
            line("ami-6", available(), &[narrow("available", DAY)]),
        ];
        let expected = ["ami-5", "ami-6", "ami-3", "ami-2", "ami-1"];
        assert_eq!(taken(plan(lines.clone()).into_queue()), expected);
        assert_eq!(taken(plan(lines.into_iter().rev()).into_queue()), expected);
    }

    #[test]
    fn a_plan_holds_the_first_500_and_counts_the_others() {
        let lines = (0..750).map(|n| {
            let reports = [adequate("available", (8 + n) * DAY)];
            line(&format!("ami-{n:03}"), in_state("available"), &reports)
        });
        let mut plan = plan(lines);
        assert_eq!((plan.planned(), plan.deferred()), (500, 250));
        plan.limit(2);
        assert_eq!((plan.planned(), plan.deferred()), (2, 748));
        assert_eq!(taken(plan.into_queue()), ["ami-749", "ami-748"]);
    }

    #[test]
    fn an_ami_that_ec2_has_reported_on_before_is_taken_out_of_turn() {
        let lines = [
            line("ami-1", in_state("available"), &[]),
            line("ami-2", in_state("available"), &[]),
            line(
                "ami-3",
                in_state("available"),
                &[adequate("available", 9 * DAY)],
            ),
        ];
        let mut queue = plan(lines).into_queue();
        let mut take = |wants_proven| queue.take(wants_proven).map(|image| image.image_id);
        assert_eq!(take(true).as_deref(), Some("ami-3"));
        assert_eq!(take(true).as_deref(), Some("ami-1"));
        assert_eq!(take(false).as_deref(), Some("ami-2"));
        assert_eq!(take(false), None);
    }
}
