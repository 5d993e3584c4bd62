//! The law, over random histories: a partial source proves use, never non-use.

use std::collections::{BTreeMap, BTreeSet};

use image_usage_archive::domain::usage::{ImageUsage, Reason, Verdict};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};

use crate::history::{
    DAY, Draft, Fact, History, ImageSeen, ReferencesSeen, Report, TYPES, draft, history,
};
use crate::oracle;

const NO_USE_OBSERVED: &str = "no_use_observed";

/// This number of cases, the same ones each time unless `PROPTEST_RNG_SEED` is set.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig::with_cases(cases);
    config.failure_persistence = None;
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(20_261_122);
    }
    config
}

/// What makes a report a partial source.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    OneAccount,
    /// A known type is missing.
    MissingType,
    Shallow,
    DepthNotStated,
    Undated,
    Pending,
    Failed,
    NewState,
    Unread,
}

const FLAWS: [Flaw; 9] = [
    Flaw::OneAccount,
    Flaw::MissingType,
    Flaw::Shallow,
    Flaw::DepthNotStated,
    Flaw::Undated,
    Flaw::Pending,
    Flaw::Failed,
    Flaw::NewState,
    Flaw::Unread,
];

impl Flaw {
    fn add_to(self, report: &mut Report) {
        // About a type that is not among the known ones, a report that asks for it for all accounts is whole.
        report.types.retain(|name| TYPES[..4].contains(name));
        match self {
            Self::OneAccount => report.accounts = 1,
            Self::MissingType => {
                report.types.remove("imagebuilder:ImageRecipe");
            }
            Self::Shallow | Self::DepthNotStated => {
                report.types.insert("ec2:LaunchTemplate");
                report.depth = matches!(self, Self::Shallow).then_some(999);
            }
            Self::Undated => report.is_undated = true,
            Self::Pending => report.state = "pending",
            Self::Failed => report.state = "error",
            Self::NewState => report.state = "archived",
            Self::Unread => report.read_by = None,
        }
    }
}

/// Something that a run could not do, or that EC2 did not do.
#[derive(Clone, Copy, Debug)]
enum Failure {
    ImageNotRead,
    TargetNotRead,
    ReferencesNotChecked,
    ReportNotRead,
    ReportFailed,
    ReportPending,
}

const FAILURES: [Failure; 6] = [
    Failure::ImageNotRead,
    Failure::TargetNotRead,
    Failure::ReferencesNotChecked,
    Failure::ReportNotRead,
    Failure::ReportFailed,
    Failure::ReportPending,
];

const WHOLE_CHECKS: [ReferencesSeen; 3] = [
    ReferencesSeen::NotWanted,
    ReferencesSeen::Checked { found: false },
    ReferencesSeen::Checked { found: true },
];

/// Adds a report, created at a share of the history's time.
fn add_report(history: &mut History, draft: Draft, share: f64, flaw: Flaw) {
    let span = history.now().max(DAY) as f64;
    let created = (span * share) as i64;
    let mut report = draft.created_at(created, "amiur-added".to_owned(), &history.runs);
    flaw.add_to(&mut report);
    history.reports.push(report);
}

fn add_failure(history: &mut History, failure: Failure, draft: Draft, share: f64) {
    let last = history.last_run();
    let run = &mut history.runs[last];
    match failure {
        Failure::ImageNotRead => run.image = ImageSeen::NotRead,
        Failure::TargetNotRead => run.is_target_read = false,
        Failure::ReferencesNotChecked => {
            run.references = ReferencesSeen::BrokeOff { found: false };
        }
        Failure::ReportNotRead => add_report(history, draft, share, Flaw::Unread),
        Failure::ReportFailed => add_report(history, draft, share, Flaw::Failed),
        Failure::ReportPending => add_report(history, draft, share, Flaw::Pending),
    }
}

/// `unknown` is the least certain, then comes `last_seen_in_use`. `in_use` and `no_use_observed` are both above
/// it, and neither is above the other. `gone` is above `in_use`: where the AMIs can't be read, what used it counts.
fn is_no_more_certain(after: &str, before: &str) -> bool {
    after == before
        || match after {
            "unknown" => true,
            "last_seen_in_use" => before != "unknown",
            "in_use" => before == "gone",
            _ => false,
        }
}

fn oracle_text(history: &History) -> (String, Vec<&'static str>) {
    let (verdict, reasons) = oracle::verdict(history);
    (verdict.to_owned(), reasons.into_iter().collect())
}

/// The facts of a history in another order, some of them twice, with entries in another order and twice.
fn shuffled() -> impl Strategy<Value = (History, Vec<Fact>)> {
    history()
        .prop_flat_map(|history| {
            let facts = history.facts();
            let count = facts.len();
            (
                Just(history),
                Just(facts.clone()),
                subsequence(facts, 0..=count),
            )
        })
        .prop_flat_map(|(history, mut facts, twice)| {
            facts.extend(twice.into_iter().map(|mut fact| {
                if let Fact::Report { report, .. } = &mut fact {
                    let again = report.entries.clone();
                    report.entries.extend(again.into_iter().rev());
                }
                fact
            }));
            (Just(history), Just(facts).prop_shuffle())
        })
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn a_partial_report_never_leads_to_no_use_observed(
        history in history(),
        added in draft(),
        share in 0.0..=1.0,
        flaw in select(&FLAWS[..]),
    ) {
        let mut with_report = history.clone();
        add_report(&mut with_report, added, share, flaw);
        if with_report.verdict() == NO_USE_OBSERVED {
            prop_assert_eq!(history.verdict(), NO_USE_OBSERVED);
        }
    }

    #[test]
    fn a_report_that_is_only_partial_is_worth_no_more_than_none_for_no_use_observed(
        history in history(),
        index in any::<prop::sample::Index>(),
        flaw in select(&FLAWS[..]),
    ) {
        if !history.reports.is_empty() {
            let (mut partial, mut without) = (history.clone(), history);
            let index = index.index(without.reports.len());
            without.reports.remove(index);
            flaw.add_to(&mut partial.reports[index]);
            if partial.verdict() == NO_USE_OBSERVED {
                prop_assert_eq!(without.verdict(), NO_USE_OBSERVED);
            }
        }
    }

    #[test]
    fn a_failure_never_makes_a_verdict_more_certain(
        history in history(),
        image in select(&[ImageSeen::Read, ImageSeen::Absent][..]),
        references in select(&WHOLE_CHECKS[..]),
        failures in subsequence(&FAILURES[..], 1..=FAILURES.len()),
        added in draft(),
        share in 0.0..=1.0,
    ) {
        // The last run has read all, so that there is something to fail.
        let mut history = history;
        let last = history.last_run();
        history.runs[last].image = image;
        history.runs[last].references = references;
        let before = history.verdict();
        let mut failed = history;
        for failure in failures {
            add_failure(&mut failed, failure, added.clone(), share);
        }
        let after = failed.verdict();
        prop_assert!(is_no_more_certain(after, before), "{} after {}", after, before);
    }

    #[test]
    fn a_listed_report_whose_entries_are_not_read_prevents_no_use_observed(
        history in history(),
        index in any::<prop::sample::Index>(),
    ) {
        let mut history = history;
        let now = history.now();
        let listed = history.reports.iter().enumerate();
        let listed = listed.filter(|(_, one)| one.is_available() && one.is_listed_at(now));
        let listed: Vec<usize> = listed.map(|(index, _)| index).collect();
        if !listed.is_empty() {
            history.reports[listed[index.index(listed.len())]].read_by = None;
            prop_assert_ne!(history.verdict(), NO_USE_OBSERVED);
        }
    }

    #[test]
    fn the_order_of_facts_and_facts_that_come_twice_change_nothing(
        (history, facts) in shuffled(),
        rotation in 0..14_usize,
    ) {
        let mut usage = ImageUsage::default();
        for fact in &facts {
            fact.add_to(&mut usage);
        }
        let last = history.last_run();
        usage.settle(crate::history::timestamp(history.now()));
        let line = history.line_with(last, &usage, |reports| {
            reports.reverse();
            let rotation = rotation.min(reports.len());
            reports.rotate_left(rotation);
        });
        prop_assert_eq!(line, history.folded());
    }

    #[test]
    fn carrying_the_line_from_run_to_run_is_the_same_as_adding_all_facts_at_once(
        history in history(),
    ) {
        for (run, line) in history.carried().into_iter().enumerate() {
            prop_assert_eq!(line, history.folded_until(run));
        }
    }

    #[test]
    fn the_verdict_and_its_reasons_are_those_of_the_words(history in history()) {
        let line = history.folded();
        let reasons: Vec<&str> = line.reasons.iter().map(|reason| reason.as_str()).collect();
        prop_assert_eq!((line.verdict.as_str().to_owned(), reasons), oracle_text(&history));
    }
}

#[test]
fn the_random_histories_reach_every_verdict_and_every_reason() {
    let mut runner = TestRunner::new(cases(0));
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    let histories = history();
    for _ in 0..1_000 {
        let history = histories.new_tree(&mut runner).unwrap().current();
        let line = history.folded();
        let reasons = line.reasons.iter().map(|reason| reason.as_str());
        for code in reasons.chain([line.verdict.as_str()]) {
            *times.entry(code.to_owned()).or_default() += 1;
        }
    }
    let verdicts = Verdict::ALL.iter().map(|one| one.as_str());
    let codes: BTreeSet<&str> = verdicts
        .chain(Reason::ALL.iter().map(|one| one.as_str()))
        .collect();
    for code in codes {
        let times = times.get(code).copied().unwrap_or_default();
        assert!(times >= 10, "{code}: {times}");
    }
}
