//! Whatever fails while AMIs and their references are read: no report is lost, what is known of an AMI stays known, and
//! no verdict says more than was read.

use std::time::Duration as Wait;

use futures_util::{StreamExt, stream};
use local_aws::{Fault, FaultKind, When};
use serde_json::Value;

use crate::harness::{Days, REGION, TRANSIENT_FAULTS, run_within, target};
use crate::images::{IDLE, IMAGES, IN_USE, REFERENCES, lines, two_amis};

/// The cases that are played at a time: they wait more than they work.
const CONCURRENT_CASES: usize = 8;

/// A deadline that is too short for the retries of a persistent fault.
const SHORT: Wait = Wait::from_secs(5);

/// What a run knows after a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// Everything, as without the fault.
    Everything,
    /// The AMIs that came before something that cannot be an AMI: whether there are others is not known.
    WhatCame,
    /// Nothing of what the faulty calls would have shown.
    Nothing,
}

struct Case {
    operation: &'static str,
    kind: FaultKind,
    when: When,
    known: Known,
}

async fn days() -> Days {
    two_amis().await.with("AUDITOR_IMAGE_REFERENCES", "true")
}

async fn run(days: &Days) -> Value {
    let auditor = days.auditor().await;
    let run = run_within(&auditor, days.world.clock().now(), 2 * SHORT);
    let summary = run.await.unwrap();
    days.archive().snapshot(&summary)
}

async fn play(case: &Case) {
    let Case {
        operation,
        kind,
        when,
        known,
    } = case;
    let what = format!("{kind:?} of {operation}, {when:?}");
    let days = days().await;
    let fault = Fault::new(kind.clone()).on(operation).when(*when);
    days.aws.faults().add(fault.in_region(REGION));
    let snapshot = run(&days).await;
    let ledger = target(&snapshot, REGION);
    assert_eq!(
        (&ledger["status"], &ledger["reports"]),
        (&"complete".into(), &5.into()),
        "{what}"
    );
    assert_eq!(snapshot["counts"]["entries"]["archived"], 5, "{what}");
    let error = match *operation {
        IMAGES => &ledger["images_error"],
        _ => &ledger["references_error"],
    };
    let lines = lines(&days, &snapshot);
    assert_eq!(lines[IN_USE]["verdict"], "in_use", "{what}");
    let expected = match known {
        Known::Everything | Known::WhatCame => "no_use_observed",
        Known::Nothing => "unknown",
    };
    assert_eq!(lines[IDLE]["verdict"], expected, "{what}: {}", lines[IDLE]);
    assert_eq!(
        error.is_null(),
        *known == Known::Everything,
        "{what}: {error}"
    );
}

async fn play_all(cases: impl IntoIterator<Item = Case>) {
    let cases: Vec<Case> = cases.into_iter().collect();
    assert!(cases.len() >= 10);
    stream::iter(&cases)
        .map(play)
        .buffer_unordered(CONCURRENT_CASES)
        .collect::<Vec<()>>()
        .await;
}

fn of_both(kind: &FaultKind, when: When, known: Known) -> impl Iterator<Item = Case> {
    [IMAGES, REFERENCES].into_iter().map(move |operation| Case {
        operation,
        kind: kind.clone(),
        when,
        known,
    })
}

#[tokio::test]
async fn a_transient_fault_of_reading_amis_costs_nothing() {
    let others = [
        FaultKind::UnknownMembersAndEntities,
        FaultKind::CData,
        FaultKind::EmptyPage,
        FaultKind::EmptyToken,
        FaultKind::DuplicateReport,
        FaultKind::Latency { milliseconds: 300 },
    ];
    let kinds = [TRANSIENT_FAULTS.as_slice(), &others].concat();
    let once = kinds
        .iter()
        .flat_map(|kind| of_both(kind, When::Nth(0), Known::Everything));
    play_all(once).await;
}

#[tokio::test]
async fn a_persistent_fault_of_reading_amis_costs_only_what_it_keeps_from_being_read() {
    let others = [
        FaultKind::Denied,
        FaultKind::AuthFailure,
        FaultKind::SlowBody,
    ];
    let kinds = [TRANSIENT_FAULTS.as_slice(), &others].concat();
    let always = kinds
        .iter()
        .flat_map(|kind| of_both(kind, When::Always, Known::Nothing));
    let nameless = Case {
        operation: IMAGES,
        kind: FaultKind::BareReport,
        when: When::Always,
        known: Known::WhatCame,
    };
    play_all(always.chain([nameless])).await;
}
