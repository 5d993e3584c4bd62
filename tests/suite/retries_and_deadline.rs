//! The three layers of retries, each alone: the SDK's, the second attempt at a target, and Lambda's own; and
//! the deadline, which ends them.

use std::time::{Duration as Wait, Instant};

use image_usage_auditor::audit::{Auditor, RunError};
use local_aws::{Fault, FaultKind, LocalAws, Service, When, World};
use serde_json::{Value, json};

use crate::harness::{
    ACCOUNT, Archive, LISTING, OTHER_REGION, REGION, TWO_REGIONS, auditor, checked, count_calls,
    healthy_reports, local_aws, now, run, run_within, scheduled_event, status, target, until,
    world,
};

/// Two Regions of 30 reports: three pages of ten each.
fn two_regions() -> World {
    let world = world(&TWO_REGIONS);
    for region in TWO_REGIONS {
        world.put_reports(ACCOUNT, region, healthy_reports(30));
    }
    world
}

async fn auditor_of_both(aws: &LocalAws) -> Auditor {
    let variables = [
        ("AUDITOR_REGIONS", "all"),
        ("AUDITOR_PAGE_SIZE", "10"),
        ("AUDITOR_ARCHIVE_ENTRIES", "false"),
    ];
    auditor(aws, &variables).await
}

fn listings_in(aws: &LocalAws, region: &str) -> usize {
    let calls = aws.calls();
    let listings = calls
        .iter()
        .filter(|call| call.operation == LISTING && call.region == region);
    listings.count()
}

/// A fault of the listing of [`REGION`].
fn listing_fault(kind: FaultKind) -> Fault {
    Fault::new(kind).on(LISTING).in_region(REGION)
}

/// Audits both Regions within a time, which the run must not exceed.
async fn snapshot_within(aws: &LocalAws, time: Wait) -> Value {
    let auditor = auditor_of_both(aws).await;
    let start = Instant::now();
    let summary = run_within(&auditor, now(), time).await.unwrap();
    assert!(start.elapsed() < time, "ended after {:?}", start.elapsed());
    checked(aws, &summary)
}

#[tokio::test]
async fn the_sdk_sends_a_call_again_and_the_page_is_read_once() {
    let world = two_regions();
    let aws = local_aws(&world).await;
    let twice = Fault::new(FaultKind::Status503).when(When::FirstN(2));
    aws.faults()
        .add(twice.clone().on(LISTING).in_region(REGION));
    for key in ["region=eu-west-1", "snapshots/", "latest.json"] {
        aws.faults().add(twice.clone().on("PutObject").on_key(key));
    }
    let auditor = auditor_of_both(&aws).await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    assert_eq!(snapshot["status"], "complete");
    for region in TWO_REGIONS {
        assert_eq!(target(&snapshot, region)["pages"], 3, "a retry is no page");
    }
    assert_eq!(listings_in(&aws, OTHER_REGION), 3);
    assert_eq!(listings_in(&aws, REGION), 5);
    // Four objects, the snapshot, `latest.json` and two pages; three of them were sent three times.
    assert_eq!(count_calls(&aws, "PutObject"), 8 + 3 * 2);
}

#[tokio::test]
async fn a_fault_that_outlasts_the_sdks_retries_can_pass_before_the_second_attempt() {
    let world = two_regions();
    let aws = local_aws(&world).await;
    let throttled = listing_fault(FaultKind::Throttle);
    aws.faults().add(throttled.when(When::FirstN(16)));
    let auditor = auditor_of_both(&aws).await;
    let other_is_done = async {
        until(|| count_calls(&aws, "PutObject") >= 2).await;
        listings_in(&aws, REGION)
    };
    let (summary, by_then) = tokio::join!(run(&auditor, scheduled_event()), other_is_done);
    let snapshot = checked(&aws, &summary.unwrap());
    assert_eq!(snapshot["status"], "complete");
    assert!(
        by_then < 15,
        "the other Region waited for the second attempt"
    );
    // All calls of the first attempt, one more at the second, and the pages.
    assert_eq!(listings_in(&aws, REGION), 15 + 1 + 3);
}

/// Adds a fault of the listing of [`REGION`] once its first page is on its way, which is delayed until then.
fn fail_after_first_page(aws: &LocalAws, fault: Fault) -> impl Future<Output = ()> {
    let late = listing_fault(FaultKind::Latency { milliseconds: 300 });
    aws.faults().add(late.when(When::FirstN(1)));
    async move {
        until(|| aws.faults().injected() == 1).await;
        aws.faults().add(fault);
    }
}

#[tokio::test]
async fn a_second_attempt_starts_anew() {
    let aws = local_aws(&two_regions()).await;
    let auditor = auditor_of_both(&aws).await;
    let failing = listing_fault(FaultKind::Status500).when(When::FirstN(15));
    let failing = fail_after_first_page(&aws, failing);
    let (summary, ()) = tokio::join!(run(&auditor, scheduled_event()), failing);
    let snapshot = checked(&aws, &summary.unwrap());
    let attempted_twice = target(&snapshot, REGION);
    assert_eq!(attempted_twice["status"], "complete");
    assert_eq!(attempted_twice["reports"], 30);
    // One page at the first attempt, and all three at the second, which count.
    assert_eq!(attempted_twice["pages"], 3);
    assert_eq!(listings_in(&aws, REGION), 1 + 15 + 3);
}

#[tokio::test]
async fn a_permanent_failure_is_not_attempted_twice() {
    let aws = local_aws(&two_regions()).await;
    aws.faults().add(listing_fault(FaultKind::Denied));
    let auditor = auditor_of_both(&aws).await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    assert_eq!(target(&snapshot, REGION)["status"], "failed");
    assert_eq!(listings_in(&aws, REGION), 1);
}

/// Runs a payload with a fault, and once more without it, as Lambda does with a run that failed.
async fn fail_and_retry(refusal: &Fault, error_type: &str, payload: &Value) {
    let aws = local_aws(&two_regions()).await;
    aws.faults().add(refusal.clone());
    let auditor = auditor_of_both(&aws).await;
    let error = run(&auditor, payload.clone()).await.unwrap_err();
    assert_eq!(error.error_type(), error_type, "{error:?}");
    assert!(!matches!(error, RunError::InvalidRequest(_)));
    let left = Archive::of(&aws).objects();
    assert!(
        left.keys()
            .all(|key| key.contains("/reports/") || key.contains("/images/")),
        "no snapshot: {left:?}"
    );
    aws.faults().clear();
    // Lambda sends the same payload with the same request ID.
    let summary = run(&auditor, payload.clone()).await.unwrap();
    assert!(!summary.already_archived);
    assert_eq!(checked(&aws, &summary)["status"], "complete");
    let after = Archive::of(&aws).objects();
    for (key, bytes) in &left {
        assert_eq!(after.get(key), Some(bytes), "{key} was changed");
    }
    let new = after.keys().filter(|key| !left.contains_key(*key));
    assert_eq!(new.count(), 6, "{:?}", after.keys());
}

#[tokio::test]
async fn a_run_that_archived_nothing_is_left_to_lambdas_retry_which_is_the_same_run() {
    let denied = |operation: &str| Fault::new(FaultKind::Denied).on(operation);
    #[rustfmt::skip]
    let refusals = [
        (denied(LISTING), "NoTargetAudited"),
        (denied("PutObject"), "ArchiveFailed"),
        (denied("PutObject").on_key("snapshots/"), "ArchiveFailed"),
    ];
    for (refusal, error_type) in refusals {
        let request = json!({"scheduled_at": "2026-11-22T06:00:00Z"});
        for payload in [scheduled_event(), request] {
            fail_and_retry(&refusal, error_type, &payload).await;
        }
    }
}

#[tokio::test]
async fn a_partial_run_is_archived_and_not_left_to_lambdas_retry() {
    let aws = local_aws(&two_regions()).await;
    aws.faults().add(listing_fault(FaultKind::Denied));
    let auditor = auditor_of_both(&aws).await;
    let first = run(&auditor, scheduled_event()).await.unwrap();
    aws.faults().clear();
    let again = run(&auditor, scheduled_event()).await.unwrap();
    assert!(again.already_archived);
    assert_eq!(again.snapshot, first.snapshot);
}

#[tokio::test]
async fn an_answer_that_never_ends_costs_its_target_and_the_run_ends_in_time() {
    let aws = local_aws(&two_regions()).await;
    aws.faults().add(listing_fault(FaultKind::SlowBody));
    // The margin is a quarter of the time: four calls to S3 fit in.
    let slow = FaultKind::Latency { milliseconds: 150 };
    aws.faults().add(Fault::new(slow).in_service(Service::S3));
    let snapshot = snapshot_within(&aws, Wait::from_secs(4)).await;
    assert_eq!(status(&snapshot, OTHER_REGION), "complete");
    assert_eq!(status(&snapshot, REGION), "failed: DeadlineExceeded");
}

#[tokio::test]
async fn retries_end_with_the_deadline_and_the_pages_read_before_are_archived() {
    let aws = local_aws(&two_regions()).await;
    let failing = fail_after_first_page(&aws, listing_fault(FaultKind::Throttle));
    let (snapshot, ()) = tokio::join!(snapshot_within(&aws, Wait::from_secs(4)), failing);
    assert_eq!(status(&snapshot, REGION), "incomplete: DeadlineExceeded");
    assert_eq!(target(&snapshot, REGION)["reports"], 10);
}

#[tokio::test]
async fn a_run_whose_time_is_up_before_the_first_page_fails_and_says_so() {
    let aws = local_aws(&two_regions()).await;
    let late = Fault::new(FaultKind::Latency {
        milliseconds: 5_000,
    });
    aws.faults().add(late.on(LISTING));
    let auditor = auditor_of_both(&aws).await;
    let (start, time) = (Instant::now(), Wait::from_secs(2));
    let error = run_within(&auditor, now(), time).await.unwrap_err();
    assert!(start.elapsed() < time);
    assert_eq!(error.error_type(), "NoTargetAudited");
    assert!(error.to_string().contains("DeadlineExceeded"), "{error}");
    assert!(Archive::of(&aws).objects().is_empty());
}

#[tokio::test]
async fn a_write_that_hangs_costs_its_target_and_the_run_ends_in_time() {
    let aws = local_aws(&two_regions()).await;
    let late = Fault::new(FaultKind::Latency {
        milliseconds: 10_000,
    });
    aws.faults()
        .add(late.on("PutObject").on_key("region=us-east-1"));
    let snapshot = snapshot_within(&aws, Wait::from_secs(4)).await;
    assert_eq!(status(&snapshot, OTHER_REGION), "complete");
    assert_eq!(status(&snapshot, REGION), "failed: DeadlineExceeded");
}
