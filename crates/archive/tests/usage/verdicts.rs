//! Each verdict and each reason, by name.

use image_usage_archive::domain::report::{ReportState, UsageReport};
use image_usage_archive::domain::usage::ReportsListed;

use crate::builder::{AReport, FLEET, INSTANCE, LAUNCH_TEMPLATE, a_report, an_ami, days, weekly};

/// Weekly reports over five weeks, which is enough for 30 days, and then these.
fn weekly_and(later: impl IntoIterator<Item = AReport>) -> Vec<AReport> {
    weekly(6).into_iter().chain(later).collect()
}

/// Reports without entries, created before so many days.
fn created_before(all: &[i64]) -> Vec<AReport> {
    all.iter()
        .map(|before| a_report().created_before(days(*before)))
        .collect()
}

fn assert_verdicts<const N: usize>(cases: [(&str, String, &str); N]) {
    for (case, verdict, expected) in cases {
        assert_eq!(verdict, expected, "{case}");
    }
}

#[test]
fn an_ami_that_a_whole_reading_does_not_have_is_gone_whatever_used_it() {
    let used = || an_ami().reported([a_report().showing_use()]);
    assert_eq!(used().absent().verdict(), "gone");
    assert_eq!(an_ami().absent().verdict(), "gone");
}

#[test]
fn weekly_reports_without_a_use_over_the_observation_time_say_so() {
    assert_eq!(
        an_ami().reported(weekly(6)).verdict(),
        "no_use_observed",
        "35 days"
    );
    assert_eq!(
        an_ami().reported(weekly(5)).verdict(),
        "unknown: observed_too_briefly",
        "28 days"
    );
}

#[test]
fn any_single_positive_fact_means_in_use_however_partial_its_source() {
    let shown = |report: AReport| {
        an_ami()
            .reported(weekly_and([report.showing_use()]))
            .verdict()
    };
    assert_verdicts([
        ("a whole report", shown(a_report()), "in_use"),
        (
            "a report about one account",
            shown(a_report().about_account("210987654321")),
            "in_use",
        ),
        (
            "a report about one type",
            shown(a_report().about_types(&[INSTANCE])),
            "in_use",
        ),
        (
            "a report without a time",
            shown(a_report().undated()),
            "in_use",
        ),
        (
            "a count that EC2 left out",
            an_ami()
                .reported([a_report().showing_entry(None, None, None)])
                .verdict(),
            "in_use",
        ),
        (
            "a launch",
            an_ami().reported(weekly(6)).launched_before(1).verdict(),
            "in_use",
        ),
        (
            "a reference",
            an_ami().reported(weekly(6)).with_references(true).verdict(),
            "in_use",
        ),
        (
            "a use in a target that could not be read",
            an_ami()
                .reported([a_report().showing_use()])
                .in_a_target_that_was_not_read()
                .not_read()
                .with_references_not_checked()
                .verdict(),
            "in_use",
        ),
    ]);
}

#[test]
fn a_count_of_zero_is_no_use() {
    let report = a_report().showing("210987654321", INSTANCE, 0);
    assert_eq!(
        an_ami().reported(weekly_and([report])).verdict(),
        "no_use_observed"
    );
}

#[test]
fn a_fact_exactly_as_old_as_the_observation_time_still_counts() {
    let used = |before| {
        let report = a_report().created_before(before).showing_use();
        an_ami().reported([report]).verdict()
    };
    let launched = |before| an_ami().launched_before(before).verdict();
    assert_verdicts([
        ("a use of 30 days", used(days(30)), "in_use"),
        (
            "a use of 30 days and a second",
            used(days(30) + 1),
            "last_seen_in_use: no_report, observed_too_briefly, stale",
        ),
        ("a launch 30 days ago", launched(days(30)), "in_use"),
        (
            "a launch 30 days and a second ago",
            launched(days(30) + 1),
            "last_seen_in_use: no_report",
        ),
    ]);
}

#[test]
fn only_a_later_report_that_covers_all_accounts_and_the_type_ends_a_use() {
    let template = |report: AReport| report.showing("210987654321", LAUNCH_TEMPLATE, 1);
    let then = |later: AReport| {
        let first = template(a_report().created_before(days(7)));
        an_ami().reported([first, later]).verdict()
    };
    assert_verdicts([
        (
            "a whole report",
            then(a_report()),
            "last_seen_in_use: observed_too_briefly",
        ),
        (
            "a report about launch templates",
            then(a_report().about_types(&[LAUNCH_TEMPLATE])),
            "last_seen_in_use: observed_too_briefly, type_not_covered",
        ),
        (
            "a report about the account itself",
            then(a_report().about_account("210987654321")),
            "in_use",
        ),
        (
            "a report about another type",
            then(a_report().about_types(&[INSTANCE])),
            "in_use",
        ),
        (
            "depth 999",
            then(a_report().with_depth(Some("999"))),
            "in_use",
        ),
        (
            "depth 1,000",
            then(a_report().with_depth(Some("1000"))),
            "last_seen_in_use: observed_too_briefly",
        ),
        (
            "no depth, which is 20",
            then(a_report().with_depth(None)),
            "in_use",
        ),
        (
            "no depth at the second of two places",
            then(a_report().with_another_launch_template()),
            "in_use",
        ),
        (
            "a depth that is no number",
            then(a_report().with_depth(Some("all"))),
            "in_use",
        ),
        (
            "a report without a time",
            then(a_report().undated()),
            "in_use",
        ),
        (
            "a report that was not read",
            then(a_report().unread()),
            "in_use",
        ),
        (
            "a pending report",
            then(a_report().in_state("pending")),
            "in_use",
        ),
        (
            "a failed report",
            then(a_report().in_state("error")),
            "in_use",
        ),
        (
            "a whole report of the same moment",
            then(a_report().created_before(days(7))),
            "in_use",
        ),
        (
            "a whole report of the second after it",
            then(a_report().created_before(days(7) - 1)),
            "last_seen_in_use: observed_too_briefly",
        ),
        (
            "a whole report of the second before it",
            then(a_report().created_before(days(7) + 1)),
            "in_use",
        ),
    ]);
}

#[test]
fn one_account_that_ends_its_use_does_not_end_that_of_another() {
    let first = a_report()
        .created_before(days(7))
        .showing("210987654321", INSTANCE, 1);
    let second = a_report().showing("310987654321", INSTANCE, 1);
    assert_eq!(an_ami().reported([first, second]).verdict(), "in_use");
}

#[test]
fn an_observation_counts_from_the_last_use_in_it() {
    let used = |seconds| {
        let used = a_report().created_before(seconds).showing_use();
        let quiet = created_before(&[20, 10, 0]);
        an_ami()
            .reported(created_before(&[40]).into_iter().chain([used]).chain(quiet))
            .observed_for(29)
            .verdict()
    };
    assert_eq!(used(days(29)), "no_use_observed");
    assert_eq!(used(days(29) - 1), "last_seen_in_use: observed_too_briefly");
}

#[test]
fn a_gap_of_more_than_14_days_interrupts_the_observation() {
    let with_gap = |seconds| {
        let before = [seconds + days(28), seconds + days(14), seconds, 0];
        an_ami()
            .reported(before.map(|before| a_report().created_before(before)))
            .verdict()
    };
    assert_eq!(with_gap(days(14)), "no_use_observed");
    assert_eq!(with_gap(days(14) + 1), "unknown: observed_too_briefly");
}

#[test]
fn a_partial_report_does_not_bridge_a_gap() {
    let ends = || created_before(&[42, 28, 0]);
    let bridged = |report: AReport| {
        let bridge = report.created_before(days(14));
        an_ami()
            .reported(ends().into_iter().chain([bridge]))
            .verdict()
    };
    assert_verdicts([
        ("a whole report", bridged(a_report()), "no_use_observed"),
        (
            "one account",
            bridged(a_report().about_account("210987654321")),
            "unknown: observed_too_briefly",
        ),
        (
            "depth 999",
            bridged(a_report().with_depth(Some("999"))),
            "unknown: observed_too_briefly",
        ),
        (
            "depth 1000",
            bridged(a_report().with_depth(Some("1000"))),
            "no_use_observed",
        ),
        (
            "one type",
            bridged(a_report().about_types(&[INSTANCE])),
            "unknown: observed_too_briefly",
        ),
        (
            "failed",
            bridged(a_report().in_state("error")),
            "unknown: observed_too_briefly",
        ),
    ]);
}

#[test]
fn an_observation_that_ended_more_than_14_days_ago_is_stale() {
    let ended = |seconds| {
        let before = [42, 28, 14, 0].map(|before| days(before) + seconds);
        an_ami()
            .reported(before.map(|before| a_report().created_before(before)))
            .verdict()
    };
    assert_eq!(ended(days(14)), "no_use_observed");
    assert_eq!(ended(days(14) + 1), "unknown: stale");
}

#[test]
fn the_observation_must_span_exactly_the_observation_time() {
    let spanning = |seconds| {
        let before = [seconds, days(20), days(10), 0];
        an_ami()
            .reported(before.map(|before| a_report().created_before(before)))
            .verdict()
    };
    assert_eq!(spanning(days(30)), "no_use_observed");
    assert_eq!(spanning(days(30) - 1), "unknown: observed_too_briefly");
    let short = an_ami().reported(weekly(2)).observed_for(7);
    assert_eq!(short.verdict(), "no_use_observed");
}

#[test]
fn a_launch_within_the_observation_keeps_it_too_brief() {
    let launched = |before| {
        an_ami()
            .reported(weekly(6))
            .launched_before(before)
            .verdict()
    };
    assert_eq!(launched(days(30)), "in_use");
    assert_eq!(launched(days(30) + 1), "no_use_observed");
    let last_report_yesterday = created_before(&[40, 30, 20, 10, 1]);
    assert_eq!(
        an_ami()
            .reported(last_report_yesterday)
            .launched_before(days(30) + 1)
            .verdict(),
        "last_seen_in_use: observed_too_briefly",
        "29 days and a second from the launch to the last report"
    );
}

#[test]
fn an_ami_that_is_not_older_than_the_observation_time_is_too_young() {
    let created = |before: Option<i64>| {
        an_ami()
            .reported(weekly(6))
            .created_before(before)
            .verdict()
    };
    assert_verdicts([
        (
            "30 days",
            created(Some(days(30))),
            "unknown: image_too_young",
        ),
        (
            "30 days and a second",
            created(Some(days(30) + 1)),
            "no_use_observed",
        ),
        ("no time", created(None), "unknown: image_too_young"),
    ]);
}

#[test]
fn what_was_not_read_in_this_run_blocks_the_verdict() {
    let quiet = || an_ami().reported(weekly(6));
    assert_verdicts([
        (
            "the target",
            quiet().in_a_target_that_was_not_read().verdict(),
            "unknown: target_not_read",
        ),
        (
            "the AMI",
            quiet().not_read().verdict(),
            "unknown: image_not_read",
        ),
        (
            "the references",
            quiet().with_references_not_checked().verdict(),
            "unknown: references_not_checked",
        ),
        (
            "the entries of a report",
            an_ami()
                .reported(weekly_and([a_report().created_before(1).unread()]))
                .verdict(),
            "unknown: entries_not_archived",
        ),
        (
            "everything",
            an_ami()
                .in_a_target_that_was_not_read()
                .not_read()
                .with_references_not_checked()
                .verdict(),
            "unknown: image_not_read, no_report, references_not_checked, target_not_read",
        ),
        (
            "nothing",
            quiet().with_references(false).verdict(),
            "no_use_observed",
        ),
    ]);
}

#[test]
fn what_the_newest_report_lacks_is_the_reason() {
    let newest = |report: AReport| an_ami().reported([report]).verdict();
    assert_verdicts([
        ("no report", an_ami().verdict(), "unknown: no_report"),
        (
            "pending",
            newest(a_report().in_state("pending")),
            "unknown: report_pending",
        ),
        (
            "failed",
            newest(a_report().in_state("error")),
            "unknown: report_failed",
        ),
        (
            "unread",
            newest(a_report().unread()),
            "unknown: entries_not_archived, observed_too_briefly",
        ),
        (
            "one account",
            newest(a_report().about_account("210987654321")),
            "unknown: accounts_restricted",
        ),
        (
            "one type",
            newest(a_report().about_types(&[INSTANCE])),
            "unknown: type_not_covered",
        ),
        (
            "depth 999",
            newest(a_report().with_depth(Some("999"))),
            "unknown: depth_shallow",
        ),
        (
            "depth 1000",
            newest(a_report()),
            "unknown: observed_too_briefly",
        ),
        (
            "undated",
            newest(a_report().undated()),
            "unknown: observed_too_briefly",
        ),
        (
            "a state of which nothing is known",
            newest(a_report().in_state("archived")),
            "unknown: observed_too_briefly",
        ),
    ]);
}

#[test]
fn the_newest_of_two_reports_without_time_and_id_does_not_depend_on_their_order() {
    let listed = |states: [&str; 2]| {
        let mut listed = ReportsListed::default();
        for state in states {
            let report = UsageReport {
                state: Some(ReportState::from(state)),
                ..UsageReport::default()
            };
            listed.add(&report, false);
        }
        listed.summary()
    };
    assert_eq!(listed(["pending", "error"]), listed(["error", "pending"]));
}

#[test]
fn a_report_that_failed_or_is_pending_takes_nothing_from_an_observation_that_suffices() {
    for state in ["pending", "error", "archived"] {
        let newest = a_report().in_state(state);
        assert_eq!(
            an_ami().reported(weekly_and([newest])).verdict(),
            "no_use_observed",
            "{state}"
        );
    }
}

#[test]
fn the_use_of_a_type_that_the_auditor_does_not_know_is_not_ended_by_reports_that_do_not_ask_for_it()
{
    let used = |resource_type| {
        let first = a_report().created_before(days(42)).showing_entry(
            Some("210987654321"),
            resource_type,
            Some(1),
        );
        an_ami().reported([first].into_iter().chain(weekly(6)))
    };
    assert_verdicts([
        (
            "a known type",
            used(Some(INSTANCE)).verdict(),
            "no_use_observed",
        ),
        (
            "a new type",
            used(Some(FLEET)).verdict(),
            "last_seen_in_use: type_not_covered",
        ),
        (
            "no type",
            used(None).verdict(),
            "last_seen_in_use: type_not_covered",
        ),
        (
            "a new type, which a later report covers",
            used(Some(FLEET))
                .reported([a_report().created_before(1).about_types(&[FLEET])])
                .verdict(),
            "no_use_observed",
        ),
    ]);
}

#[test]
fn a_reference_that_was_found_counts_until_a_later_check_finds_none() {
    let found_before = |seconds| {
        an_ami()
            .reported(weekly(6))
            .with_references_found_before(seconds)
    };
    assert_verdicts([
        (
            "found by the run before, and not checked now",
            found_before(days(1))
                .with_references_not_checked()
                .verdict(),
            "last_seen_in_use: observed_too_briefly, references_not_checked",
        ),
        (
            "not checked any more",
            found_before(days(31)).verdict(),
            "last_seen_in_use: references_not_checked",
        ),
        (
            "none found now, 31 days later",
            found_before(days(31)).with_references(false).verdict(),
            "no_use_observed",
        ),
        (
            "none found now, 29 days later",
            found_before(days(29)).with_references(false).verdict(),
            "last_seen_in_use: observed_too_briefly",
        ),
        (
            "found again",
            found_before(days(31)).with_references(true).verdict(),
            "in_use",
        ),
    ]);
}

#[test]
fn a_time_that_lies_ahead_is_no_reason_for_less_caution() {
    let tomorrow = -days(1);
    let launched = an_ami().reported(weekly(6)).launched_before(tomorrow);
    assert_eq!(launched.verdict(), "in_use");
    let used = a_report().created_before(tomorrow).showing_use();
    assert_eq!(an_ami().reported(weekly_and([used])).verdict(), "in_use");
}
