//! The three layers of retries, each alone: the SDK's, the second look, and Lambda's own; and the
//! deadline, which ends them.

use std::time::{Duration as Wait, Instant};

use image_usage_auditor::audit::{Answer, Auditor, RunError, Summary};
use local_aws::{Fault, FaultKind, LocalAws, Service, When, World};
use serde_json::{Value, json};

use crate::harness::{
    ACCOUNT, Archive, auditor, count_calls, healthy_reports, invocation, local_aws, run,
    scheduled_event, target, until, world,
};

const LISTING: &str = "DescribeImageUsageReports";
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

/// Two Regions of 30 reports: three pages of ten each.
fn two_regions() -> World {
    let world = world(&REGIONS);
    for region in REGIONS {
        world.put_reports(ACCOUNT, region, healthy_reports(30));
    }
    world
}

async fn auditor_of_both(aws: &LocalAws) -> Auditor {
    let variables = [
        ("AUDITOR_REGIONS", "eu-west-1,us-east-1"),
        ("AUDITOR_PAGE_SIZE", "10"),
        ("AUDITOR_ARCHIVE_ENTRIES", "false"),
    ];
    auditor(aws, &variables).await
}

async fn run_within(auditor: &Auditor, time_left: Wait) -> Summary {
    let mut invocation = invocation();
    invocation.time_left = Some(time_left);
    match auditor.handle(scheduled_event(), invocation).await.unwrap() {
        Answer::Summary(summary) => *summary,
        Answer::Preflight(_) => panic!("a run was asked for"),
    }
}

fn checked(aws: &LocalAws, summary: &Summary) -> Value {
    let archive = Archive::of(aws);
    let snapshot = archive.snapshot(summary);
    archive.check(&snapshot, aws.world());
    snapshot
}

fn listings_in(aws: &LocalAws, region: &str) -> usize {
    let calls = aws.calls();
    let listings = calls
        .iter()
        .filter(|call| call.operation == LISTING && call.region == region);
    listings.count()
}

#[tokio::test]
async fn the_sdk_sends_a_call_again_and_the_page_is_read_once() {
    let world = two_regions();
    let aws = local_aws(&world).await;
    let twice = Fault::new(FaultKind::Status503).when(When::FirstN(2));
    aws.faults()
        .add(twice.clone().on(LISTING).in_region("us-east-1"));
    for key in ["region=eu-west-1", "snapshots/", "latest.json"] {
        aws.faults().add(twice.clone().on("PutObject").on_key(key));
    }
    let auditor = auditor_of_both(&aws).await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    assert_eq!(snapshot["status"], "complete");
    for region in REGIONS {
        assert_eq!(target(&snapshot, region)["pages"], 3, "a retry is no page");
    }
    assert_eq!(
        (
            listings_in(&aws, "eu-west-1"),
            listings_in(&aws, "us-east-1")
        ),
        (3, 5)
    );
    // Two objects, the snapshot and the latest one; three of them sent three times.
    assert_eq!(count_calls(&aws, "PutObject"), 4 + 3 * 2);
}

#[tokio::test]
async fn a_fault_that_outlasts_the_sdk_passes_before_the_second_attempt() {
    let world = two_regions();
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::Throttle)
            .on(LISTING)
            .in_region("us-east-1")
            .when(When::FirstN(16)),
    );
    let auditor = auditor_of_both(&aws).await;
    let other_is_done = async {
        until(|| count_calls(&aws, "PutObject") == 1).await;
        listings_in(&aws, "us-east-1")
    };
    let (summary, by_then) = tokio::join!(run(&auditor, scheduled_event()), other_is_done);
    let snapshot = checked(&aws, &summary.unwrap());
    assert_eq!(snapshot["status"], "complete");
    assert!(
        by_then < 15,
        "the other Region waited for the second attempt"
    );
    // All calls of the first attempt, one more at the second, and the pages.
    assert_eq!(listings_in(&aws, "us-east-1"), 15 + 1 + 3);
}

#[tokio::test]
async fn a_second_attempt_starts_anew() {
    let world = two_regions();
    let aws = local_aws(&world).await;
    // No page is given before the fault is there.
    let late = FaultKind::Latency { milliseconds: 300 };
    aws.faults().add(
        Fault::new(late)
            .on(LISTING)
            .in_region("us-east-1")
            .when(When::FirstN(1)),
    );
    let auditor = auditor_of_both(&aws).await;
    let break_off = async {
        until(|| aws.faults().injected() == 1).await;
        aws.faults().add(
            Fault::new(FaultKind::Status500)
                .on(LISTING)
                .in_region("us-east-1")
                .when(When::FirstN(15)),
        );
    };
    let (summary, ()) = tokio::join!(run(&auditor, scheduled_event()), break_off);
    let snapshot = checked(&aws, &summary.unwrap());
    let attempted_twice = target(&snapshot, "us-east-1");
    assert_eq!(
        (&attempted_twice["status"], &attempted_twice["reports"]),
        (&json!("complete"), &json!(30))
    );
    // One page at the first attempt, and all three at the second, which count.
    assert_eq!(attempted_twice["pages"], 3);
    assert_eq!(listings_in(&aws, "us-east-1"), 1 + 15 + 3);
}

#[tokio::test]
async fn a_permanent_failure_is_not_attempted_twice() {
    let world = two_regions();
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::Denied)
            .on(LISTING)
            .in_region("us-east-1"),
    );
    let auditor = auditor_of_both(&aws).await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    assert_eq!(target(&snapshot, "us-east-1")["status"], "failed");
    assert_eq!(listings_in(&aws, "us-east-1"), 1);
}

#[tokio::test]
async fn a_run_that_archived_nothing_is_left_to_lambdas_retry_which_is_the_same_run() {
    let refusals = [
        (Fault::new(FaultKind::Denied).on(LISTING), "NoTargetAudited"),
        (
            Fault::new(FaultKind::Denied).on("PutObject"),
            "ArchiveFailed",
        ),
        (
            Fault::new(FaultKind::Denied)
                .on("PutObject")
                .on_key("snapshots/"),
            "ArchiveFailed",
        ),
    ];
    for (refusal, error_type) in refusals {
        for payload in [
            scheduled_event(),
            json!({"scheduled_at": "2026-11-22T06:00:00Z"}),
        ] {
            let world = two_regions();
            let aws = local_aws(&world).await;
            aws.faults().add(refusal.clone());
            let auditor = auditor_of_both(&aws).await;
            let error = run(&auditor, payload.clone()).await.unwrap_err();
            assert_eq!(error.error_type(), error_type, "{error:?}");
            assert!(!matches!(error, RunError::InvalidRequest(_)));
            let left = Archive::of(&aws).objects();
            assert!(
                left.keys().all(|key| key.contains("/reports/")),
                "no snapshot: {left:?}"
            );
            aws.faults().clear();
            // Lambda sends the same payload with the same request ID.
            let summary = run(&auditor, payload).await.unwrap();
            assert!(!summary.already_archived);
            let snapshot = checked(&aws, &summary);
            assert_eq!(snapshot["status"], "complete");
            let after = Archive::of(&aws).objects();
            assert!(
                left.iter()
                    .all(|(key, bytes)| after.get(key) == Some(bytes)),
                "an object was changed"
            );
            let named = after.keys().filter(|key| !left.contains_key(*key));
            assert_eq!(named.count(), 4, "{:?}", after.keys());
        }
    }
}

#[tokio::test]
async fn a_partial_run_is_archived_and_not_left_to_lambdas_retry() {
    let world = two_regions();
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::Denied)
            .on(LISTING)
            .in_region("us-east-1"),
    );
    let auditor = auditor_of_both(&aws).await;
    let first = run(&auditor, scheduled_event()).await.unwrap();
    aws.faults().clear();
    let again = run(&auditor, scheduled_event()).await.unwrap();
    assert_eq!(
        (again.snapshot, again.already_archived),
        (first.snapshot, true)
    );
}

#[tokio::test]
async fn an_answer_that_never_ends_costs_its_target_and_the_run_ends_in_time() {
    let world = two_regions();
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::SlowBody)
            .on(LISTING)
            .in_region("us-east-1"),
    );
    // The margin is a quarter of the time: four calls to S3 fit in.
    let slow = FaultKind::Latency { milliseconds: 150 };
    aws.faults().add(Fault::new(slow).in_service(Service::S3));
    let auditor = auditor_of_both(&aws).await;
    let (start, time) = (Instant::now(), Wait::from_secs(4));
    let snapshot = checked(&aws, &run_within(&auditor, time).await);
    assert!(
        start.elapsed() < time,
        "it ended after {:?}",
        start.elapsed()
    );
    assert_eq!(target(&snapshot, "eu-west-1")["status"], "complete");
    let late = target(&snapshot, "us-east-1");
    assert_eq!(
        (&late["status"], &late["error"]["code"]),
        (&json!("failed"), &json!("DeadlineExceeded"))
    );
}

#[tokio::test]
async fn retries_end_with_the_deadline_and_what_was_read_is_archived() {
    let world = two_regions();
    let aws = local_aws(&world).await;
    let auditor = auditor_of_both(&aws).await;
    // It begins once a page is read.
    let late = FaultKind::Latency { milliseconds: 300 };
    aws.faults().add(
        Fault::new(late)
            .on(LISTING)
            .in_region("us-east-1")
            .when(When::FirstN(1)),
    );
    let break_off = async {
        until(|| aws.faults().injected() == 1).await;
        aws.faults().add(
            Fault::new(FaultKind::Throttle)
                .on(LISTING)
                .in_region("us-east-1"),
        );
    };
    let (start, time) = (Instant::now(), Wait::from_secs(4));
    let (summary, ()) = tokio::join!(run_within(&auditor, time), break_off);
    assert!(
        start.elapsed() < time,
        "it ended after {:?}",
        start.elapsed()
    );
    let snapshot = checked(&aws, &summary);
    let throttled = target(&snapshot, "us-east-1");
    assert_eq!(
        (
            &throttled["status"],
            &throttled["reports"],
            &throttled["error"]["code"]
        ),
        (&json!("incomplete"), &json!(10), &json!("DeadlineExceeded"))
    );
}

#[tokio::test]
async fn a_run_whose_time_is_up_before_the_first_page_fails_and_says_so() {
    let aws = local_aws(&two_regions()).await;
    let late = FaultKind::Latency {
        milliseconds: 5_000,
    };
    aws.faults().add(Fault::new(late).on(LISTING));
    let auditor = auditor_of_both(&aws).await;
    let mut invocation = invocation();
    let (start, time) = (Instant::now(), Wait::from_secs(2));
    invocation.time_left = Some(time);
    let error = auditor
        .handle(scheduled_event(), invocation)
        .await
        .unwrap_err();
    assert!(start.elapsed() < time);
    assert_eq!(error.error_type(), "NoTargetAudited");
    assert!(error.to_string().contains("DeadlineExceeded"), "{error}");
    assert!(Archive::of(&aws).objects().is_empty());
}

#[tokio::test]
async fn a_write_that_hangs_costs_its_target_and_the_run_ends_in_time() {
    let aws = local_aws(&two_regions()).await;
    let late = FaultKind::Latency {
        milliseconds: 10_000,
    };
    aws.faults()
        .add(Fault::new(late).on("PutObject").on_key("region=us-east-1"));
    let auditor = auditor_of_both(&aws).await;
    let (start, time) = (Instant::now(), Wait::from_secs(4));
    let snapshot = checked(&aws, &run_within(&auditor, time).await);
    assert!(
        start.elapsed() < time,
        "it ended after {:?}",
        start.elapsed()
    );
    assert_eq!(target(&snapshot, "eu-west-1")["status"], "complete");
    let unwritten = target(&snapshot, "us-east-1");
    assert_eq!(unwritten["status"], "failed");
    assert_eq!(unwritten["error"]["code"], "DeadlineExceeded");
}
