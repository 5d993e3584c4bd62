//! Which consumers are kept, and how the others are counted.

use std::collections::BTreeSet;

use image_usage_archive::domain::usage::{ImageUsage, MAX_CONSUMERS};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;

use crate::builder::{AReport, INSTANCE, a_report, days};
use crate::history::{DAY, Entry, History, ImageSeen, ReferencesSeen, Report, Run, TYPES};
use crate::law::cases;

fn account(number: usize) -> String {
    format!("{number:012}")
}

fn a_report_showing(accounts: impl IntoIterator<Item = usize>) -> AReport {
    let accounts = accounts.into_iter();
    accounts.fold(a_report(), |report, number| {
        report.showing(&account(number), INSTANCE, 1)
    })
}

#[test]
fn a_consumer_has_the_count_of_the_latest_report_that_shows_it() {
    let before = a_report()
        .created_before(days(7))
        .showing(&account(1), INSTANCE, 5);
    let after = a_report().showing(&account(1), INSTANCE, 3);
    for reports in [[&before, &after], [&after, &before]] {
        let mut usage = ImageUsage::default();
        for report in reports {
            report.observe(&mut usage);
        }
        let (_, consumer) = usage.consumers.iter().next().unwrap();
        assert_eq!(consumer.usage_count, Some(3));
        assert_eq!(
            consumer
                .last_observed
                .seconds_since(consumer.first_observed),
            days(7)
        );
    }
}

#[test]
fn a_consumer_that_is_left_out_is_counted_once() {
    let mut usage = ImageUsage::default();
    a_report_showing(1..=MAX_CONSUMERS).observe(&mut usage);
    assert_eq!(usage.consumers.omitted(), 0);

    // The first entry moves the last consumer out of the list before its own entry comes, twice.
    a_report_showing([0, MAX_CONSUMERS, MAX_CONSUMERS]).observe(&mut usage);
    assert_eq!(usage.consumers.iter().count(), MAX_CONSUMERS);
    assert_eq!(usage.consumers.omitted(), 1);
}

/// Weekly adequate reports, each with some of 1,300 accounts, and a run on each.
fn crowded() -> impl Strategy<Value = History> {
    let accounts: Vec<u32> = (0..1_300).collect();
    let shown = subsequence(accounts, 0..=1_300).prop_shuffle();
    vec(shown, 1..5).prop_map(|weeks| {
        let created = |week: usize| week as i64 * 7 * DAY;
        let runs = (0..weeks.len()).map(|week| Run {
            at: created(week),
            is_target_read: true,
            image: ImageSeen::Read,
            references: ReferencesSeen::NotWanted,
        });
        let entry = |account| Entry {
            account: Some(account),
            resource_type: Some(INSTANCE),
            count: Some(1),
        };
        let runs = runs.collect();
        let reports = weeks.into_iter().enumerate();
        History {
            observation_days: 30,
            image_created: Some(-400 * DAY),
            launches: Vec::new(),
            reports: reports
                .map(|(week, accounts)| Report {
                    id: format!("amiur-{week}"),
                    created: created(week),
                    is_undated: false,
                    deleted: created(week) + 30 * DAY,
                    state: "available",
                    accounts: 0,
                    types: BTreeSet::from_iter(TYPES),
                    depth: Some(10_000),
                    entries: accounts.into_iter().map(entry).collect(),
                    read_by: Some(week),
                })
                .collect(),
            runs,
        }
    })
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn beyond_the_bound_the_same_are_listed_and_the_count_of_the_others_is_a_lower_bound(
        history in crowded(),
    ) {
        let shown: Vec<BTreeSet<u32>> = history
            .reports
            .iter()
            .map(|report| report.entries.iter().filter_map(|entry| entry.account).collect())
            .collect();
        let all: BTreeSet<u32> = shown.iter().flatten().copied().collect();
        let most = shown.iter().map(BTreeSet::len).max().unwrap_or_default();
        let beyond = |count: usize| count.saturating_sub(MAX_CONSUMERS) as u64;

        let carried = history.carried().pop().unwrap();
        let folded = history.folded();
        let listed: Vec<String> = all
            .iter()
            .take(MAX_CONSUMERS)
            .map(|number| account(*number as usize))
            .collect();
        for line in [&carried, &folded] {
            let accounts = line.consumers.iter();
            let accounts: Vec<String> =
                accounts.filter_map(|one| one.consumer_account_id.clone()).collect();
            prop_assert_eq!(&accounts, &listed);
            prop_assert!(line.consumers_omitted <= beyond(all.len()));
            prop_assert!(line.consumers_omitted >= beyond(most));
        }
        prop_assert_eq!(&carried.consumers, &folded.consumers);
        prop_assert_eq!(carried.verdict, folded.verdict);
        prop_assert_eq!(carried.reasons, folded.reasons);
    }
}
