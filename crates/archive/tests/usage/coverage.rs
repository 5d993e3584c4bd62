//! Which AMIs are covered by a report, and why others are not.

use image_usage_archive::documents::{ImageFields, ImageReading, References};
use image_usage_archive::domain::findings::Finding;
use image_usage_archive::domain::report::Tags;
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::domain::usage::{
    Coverage, CoverageRules, Covering, Gap, ReferencesLook, ReportsListed,
};
use proptest::prelude::*;

use crate::builder::{AReport, INSTANCE, a_report, an_ami, days, now};

const HOUR: i64 = 3_600;

fn coverage(reports: impl IntoIterator<Item = AReport>) -> String {
    an_ami().reported(reports).coverage()
}

fn pending(age: i64) -> AReport {
    a_report().created_before(age).in_state("pending")
}

fn failed(age: i64) -> AReport {
    a_report().created_before(age).in_state("error")
}

fn narrow(age: i64) -> AReport {
    a_report().created_before(age).about_types(&[INSTANCE])
}

fn adequate(age: i64) -> AReport {
    a_report().created_before(age)
}

#[test]
fn an_ami_is_covered_by_an_available_adequate_report_younger_than_the_limit() {
    assert_eq!(coverage([adequate(0)]), "covered");
    assert_eq!(coverage([adequate(days(14) - 1)]), "covered");
    assert_eq!(coverage([adequate(days(14) - 1).unread()]), "covered");
    let too_old = coverage([adequate(days(14))]);
    assert!(too_old.starts_with("uncovered: TooOld"), "{too_old}");
    // Whatever else there is.
    for other in [narrow(0), failed(1), pending(2), pending(days(3))] {
        assert_eq!(coverage([adequate(days(5)), other.clone()]), "covered");
        assert_eq!(coverage([other, adequate(days(5))]), "covered");
    }
}

#[test]
fn an_adequate_report_that_is_being_created_is_counted_on_until_it_is_stuck() {
    assert_eq!(coverage([pending(0)]), "pending");
    assert_eq!(
        coverage([adequate(days(20)), pending(24 * HOUR - 1)]),
        "pending"
    );
    assert_eq!(coverage([failed(HOUR), pending(0)]), "pending");
    let stuck = coverage([adequate(days(20)), pending(24 * HOUR)]);
    assert!(stuck.starts_with("uncovered: Stuck"), "{stuck}");
    // Its age is not known.
    assert_eq!(coverage([pending(0).undated()]), "pending");
    let narrow = narrow(HOUR).in_state("pending");
    assert_eq!(coverage([narrow]), "uncovered: TooNarrow");
}

#[test]
fn each_gap_has_its_reason() {
    #[rustfmt::skip]
    let table = [
        (vec![], "uncovered: NoReport"),
        (vec![narrow(0)], "uncovered: TooNarrow"),
        (vec![a_report().with_depth(None)], "uncovered: TooNarrow"),
        (vec![a_report().about_account("111122223333")], "uncovered: TooNarrow"),
        (vec![a_report().undated()], "uncovered: TooNarrow"),
        (vec![a_report().in_state("paused")], "uncovered: TooNarrow"),
        (vec![failed(0)], "uncovered: Failed"),
        (vec![adequate(days(15)), failed(0)], "uncovered: Failed"),
        (vec![failed(days(2)), narrow(days(1))], "uncovered: TooNarrow"),
    ];
    for (reports, expected) in table {
        assert_eq!(coverage(reports), expected);
    }
}

fn target() -> Target {
    Target {
        account_id: "111122223333".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
    }
}

/// An AMI without a report, with this tag.
fn reading() -> ImageReading {
    let tags: Tags = [("Team".to_owned(), Some("golden".to_owned()))].into();
    ImageReading {
        started_at: now(),
        observation_days: 30,
        is_target_read: true,
        are_images_read: true,
        image: Some(ImageFields {
            tags,
            ..ImageFields::default()
        }),
        reports: ReportsListed::default(),
        references_look: ReferencesLook::NotWanted,
        references: References::default(),
        coverage_rules: CoverageRules {
            renew_after_days: 7,
            pending_limit_hours: 24,
            ..CoverageRules::default()
        },
    }
}

fn with_tag(tag: &str) -> ImageReading {
    let mut reading = reading();
    reading.coverage_rules.image_tag = tag.parse().ok();
    reading
}

#[test]
fn only_an_own_ami_that_was_read_and_has_the_tag_counts() {
    let uncovered = Some(Covering::Uncovered(Gap::NoReport));
    assert_eq!(reading().covering(), uncovered);
    assert_eq!(with_tag("Team").covering(), uncovered);
    assert_eq!(with_tag("Team=golden").covering(), uncovered);
    for tag in ["Owner", "Team=silver"] {
        assert_eq!(with_tag(tag).covering(), None);
        assert!(with_tag(tag).is_coverage_known());
    }
    let gone = ImageReading {
        image: None,
        ..reading()
    };
    assert_eq!((gone.covering(), gone.is_coverage_known()), (None, true));
    let not_read = ImageReading {
        are_images_read: false,
        ..gone
    };
    assert_eq!(
        (not_read.covering(), not_read.is_coverage_known()),
        (None, false)
    );
    let in_an_unread_target = ImageReading {
        is_target_read: false,
        ..reading()
    };
    assert_eq!(in_an_unread_target.covering(), None);
    assert!(!in_an_unread_target.is_coverage_known());
}

fn message(gap: Gap, renews: bool) -> String {
    let rules = CoverageRules {
        renews,
        ..reading().coverage_rules
    };
    Finding::uncovered(&target(), "ami-1", &Tags::new(), gap, &rules, now()).message
}

#[test]
fn the_finding_is_about_the_ami_and_says_why_and_what_to_do() {
    let finding = reading().uncovered(&target(), "ami-1").unwrap();
    assert_eq!(finding.id, "111122223333/us-east-1/ami-1/uncovered");
    assert_eq!(finding.report_id, None);
    assert_eq!(finding.image_id.as_deref(), Some("ami-1"));
    assert_eq!(finding.tags["Team"].as_deref(), Some("golden"));
    let before = |seconds: i64| now().plus_seconds(-seconds);
    #[rustfmt::skip]
    let table = [
        (Gap::NoReport, "EC2 lists no report about the AMI"),
        (Gap::Failed, "the newest report failed"),
        (Gap::TooNarrow, "no report covers all accounts, every known resource type and 1000 versions of each launch template"),
        (Gap::TooOld(before(days(15) + 7_200)), "the newest report that covers everything is 15 days 2 hours old, and the limit is 14 days"),
    ];
    for (gap, why) in table {
        let by_hand = "request one, or set AUDITOR_RENEW_REPORTS";
        assert_eq!(message(gap, false), format!("{why}: {by_hand}"));
        let by_auditor = "the auditor asks for one; see `renewals` of the target";
        assert_eq!(message(gap, true), format!("{why}: {by_auditor}"));
    }
    let stuck = "the newest report has been pending for 1 day 0 hours, since 2026-11-21T06:00:00Z: \
                 delete it, so that EC2 accepts a new request";
    for renews in [true, false] {
        assert_eq!(message(Gap::Stuck(before(days(1))), renews), stuck);
    }
}

fn any_report() -> impl Strategy<Value = AReport> {
    let states = prop::sample::select(vec!["available", "pending", "error", "paused"]);
    (states, 0..days(30), any::<bool>(), any::<bool>()).prop_map(
        |(state, age, is_narrow, is_undated)| {
            let report = match is_narrow {
                true => narrow(age),
                false => adequate(age),
            };
            let report = report.in_state(state);
            match is_undated {
                true => report.undated(),
                false => report,
            }
        },
    )
}

fn summary(reports: &[AReport]) -> (ReportsListed, Coverage) {
    let listed = an_ami().reported(reports.iter().cloned()).listed();
    let rules = reading().coverage_rules;
    let coverage = rules.evaluate(&listed, now()).into();
    (listed, coverage)
}

proptest! {
    #[test]
    fn the_order_of_reports_changes_nothing(
        (reports, shuffled) in prop::collection::vec(any_report(), 0..8)
            .prop_flat_map(|reports| (Just(reports.clone()), Just(reports).prop_shuffle()))
    ) {
        prop_assert_eq!(summary(&reports), summary(&shuffled));
    }

    #[test]
    fn failed_reports_never_cover_and_are_counted_since_the_newest_adequate_one(
        reports in prop::collection::vec(any_report(), 0..8)
    ) {
        let (listed, coverage) = summary(&reports);
        let adequate = listed.newest_adequate.as_ref().map(|one| one.creation_time);
        let limit = now().plus_seconds(-days(14));
        prop_assert_eq!(coverage == Coverage::Covered, adequate > Some(limit));
        prop_assert!(listed.failed_in_a_row <= listed.error);
        prop_assert_eq!(listed.failed_in_a_row > 0, listed.newest_failed.is_some());
        prop_assert!(listed.newest_failed.is_none_or(|failed: Timestamp| Some(failed) > adequate));
    }
}
