//! Random cases, made from seeds.

use std::time::Duration;

use local_aws::{Fault, FaultKind, Page, When};

use super::case::{Case, Reports, region};
use super::s3_kinds;
use crate::harness::{LISTING, Random, TRANSIENT_FAULTS};

/// A random case, made from a seed.
pub(super) fn seeded(seed: u64) -> Case {
    let mut random = Random::new(seed);
    let mut case = Case::new(format!("seed {seed}"), |_| Vec::new());
    // Probabilities are drawn by Region, so the same seed must have the same Regions.
    case.number = 1_000_000 + seed;
    case.regions = 1 + random.below(4) as usize;
    // The function runs in the first one.
    let place = random.below(case.regions as u64) as usize;
    case.disabled = (place > 0 && random.percent(25)).then_some(place);
    case.all_regions = random.percent(20);
    case.has_member = random.percent(30);
    case.reports = Reports::Mixed(random.below(61) as usize);
    case.page_size = *random.pick(&[2, 5, 7, 10, 25, 1000]);
    case.concurrency = *random.pick(&[1, 2, 3, 8]);
    case.has_earlier_run = random.percent(40);
    if case.regions > 1 && random.percent(25) {
        case.bare = 1 + random.below(3) as usize;
    }
    case.time_left = Some(Duration::from_secs(*random.pick(&[2, 3, 5, 8])));
    case.attempts.clear();
    for _ in 0..*random.pick(&[1, 1, 2]) {
        let faults = 1 + random.below(5);
        let faults = (0..faults).map(|_| seeded_fault(&mut random, &case));
        let faults = faults.collect();
        case.attempts.push(faults);
    }
    case
}

fn seeded_fault(random: &mut Random, case: &Case) -> Fault {
    let mut fault = match random.below(100) {
        0..60 => seeded_listing_fault(random, case),
        60..68 => {
            let operation = *random.pick(&["AssumeRole", "DescribeRegions"]);
            Fault::new(random.pick(&shared_kinds()).clone()).on(operation)
        }
        _ => {
            let (operation, key) = *random.pick(&ARCHIVE_CALLS);
            let kind = random.pick(&s3_kinds()).clone();
            let mut fault = Fault::new(kind).on(operation).on_key(key);
            fault.after_effect = random.percent(50);
            fault
        }
    };
    let is_listing = fault.operation.as_deref() == Some(LISTING);
    fault.when = match random.below(100) {
        0..12 => When::Always,
        12..40 => When::Nth(random.below(8)),
        40..55 => When::FirstN(1 + random.below(3)),
        55..70 if is_listing => When::Page(*random.pick(&[Page::First, Page::Middle, Page::Last])),
        _ => When::Probability {
            p: *random.pick(&[0.1, 0.3, 0.6]),
            seed: random.next(),
        },
    };
    fault
}

fn seeded_listing_fault(random: &mut Random, case: &Case) -> Fault {
    let fault = Fault::new(random.pick(&LISTING_KINDS).clone()).on(LISTING);
    match random.percent(70) {
        true => fault.in_region(&region(
            case.number,
            random.below(case.regions as u64) as usize,
        )),
        false => fault,
    }
}

const LISTING_KINDS: [FaultKind; 20] = [
    FaultKind::Throttle,
    FaultKind::TokenBucket,
    FaultKind::Status500,
    FaultKind::Status503,
    FaultKind::CloseBeforeAnswer,
    FaultKind::ResetMidBody,
    FaultKind::CutBody,
    FaultKind::MalformedXml,
    FaultKind::UnknownMembersAndEntities,
    FaultKind::Latency { milliseconds: 200 },
    FaultKind::EmptyPage,
    FaultKind::EmptyToken,
    FaultKind::DuplicateReport,
    FaultKind::BareReport,
    FaultKind::RepeatToken,
    FaultKind::ExpireToken,
    FaultKind::ExpireCredentials,
    FaultKind::Denied,
    FaultKind::RegionDisabled,
    FaultKind::SlowBody,
];

/// The faults of calls that several targets depend on.
fn shared_kinds() -> Vec<FaultKind> {
    [TRANSIENT_FAULTS.as_slice(), &[FaultKind::Denied]].concat()
}

const ARCHIVE_CALLS: [(&str, &str); 8] = [
    ("PutObject", "/entries/"),
    ("PutObject", "/reports/"),
    ("PutObject", "/snapshots/"),
    ("PutObject", "/latest.json"),
    ("GetObject", "/reports/"),
    ("GetObject", "/snapshots/"),
    ("GetObject", "/latest.json"),
    ("HeadObject", "/entries/"),
];
