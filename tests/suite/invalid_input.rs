//! What the function answers if it cannot do what it was asked, verbatim.

use std::error::Error;
use std::fmt::Write;

use image_usage_auditor::audit::RunError;
use insta::assert_snapshot;
use local_aws::{Fault, FaultKind};
use serde_json::{Value, json};

use crate::harness::{
    ACCOUNT, Archive, BUCKET, LISTING, REGION, auditor, count_calls, healthy_reports, local_aws,
    run, scheduled_event, without_attempts, world,
};

/// The type of an error, its text, and those of its causes, one a line.
fn written(error: &RunError) -> String {
    let mut written = format!("{}\n{error}", error.error_type());
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(written, "\n{error}").unwrap();
        cause = error.source();
    }
    without_attempts(&written)
}

/// Runs a payload that must fail and archive nothing, and returns the error.
async fn failure(payload: Value, fault: Option<Fault>) -> String {
    let world = world(&[REGION]);
    world.put_reports(ACCOUNT, REGION, healthy_reports(3));
    let aws = local_aws(&world).await;
    if let Some(fault) = fault {
        aws.faults().add(fault);
    }
    let error = run(&auditor(&aws, &[]).await, payload).await.unwrap_err();
    assert!(Archive::of(&aws).objects().is_empty());
    written(&error)
}

#[tokio::test]
async fn a_payload_that_is_not_a_request_is_refused_before_any_call() {
    let error = failure(json!({"region": "eu-west-1"}), None).await;
    assert_snapshot!(error, @"
    InvalidRequest
    `region`: unknown field `region`, expected one of `regions`, `account_ids`, `image_ids`, `report_ids`, `filters`, `max_results`, `scheduled_at`, `dry_run`
    ");
}

#[tokio::test]
async fn an_unknown_filter_is_reported_in_ec2s_words_with_the_target() {
    let filters = json!({"filters": [{"name": "status", "values": ["error"]}]});
    assert_snapshot!(failure(filters, None).await, @"
    NoTargetAudited
    no target could be audited: 111122223333/us-east-1: InvalidParameterValue: The filter 'status' is invalid
    ");
}

#[tokio::test]
async fn an_unknown_report_is_reported_in_ec2s_words() {
    let error = failure(json!({"report_ids": ["amiur-00000000000000bad"]}), None).await;
    assert_snapshot!(error, @"
    NoTargetAudited
    no target could be audited: 111122223333/us-east-1: InvalidImageUsageReportId.NotFound: The image usage report ID 'amiur-00000000000000bad' does not exist
    ");
}

#[tokio::test]
async fn an_account_without_a_role_to_assume_is_named() {
    let aws = local_aws(&world(&[REGION])).await;
    let auditor = auditor(&aws, &[("AUDITOR_ACCOUNTS", "222233334444")]).await;
    let error = run(&auditor, scheduled_event()).await.unwrap_err();
    assert_snapshot!(written(&error), @"
    InvalidSettings
    AUDITOR_ROLE_NAME is not set, but 222233334444 is another account: name the role to assume in it
    ");
}

#[tokio::test]
async fn a_denied_bucket_is_named_with_s3s_answer() {
    let denied = Fault::new(FaultKind::Denied).on("GetObject");
    let error = failure(scheduled_event(), Some(denied)).await;
    assert_snapshot!(error, @"
    ArchiveFailed
    the archive could not be written
    failed to read s3://archive/image-usage/v1/snapshots/dt=2026-11-22/20261122T060000Z-7bf73129.json
    AccessDenied: Access Denied
    ");
}

#[tokio::test]
async fn a_bucket_that_refuses_every_object_fails_the_run() {
    let denied = Fault::new(FaultKind::Denied).on("PutObject");
    let error = failure(scheduled_event(), Some(denied)).await;
    assert_snapshot!(error, @"
    ArchiveFailed
    the archive could not be written
    failed to write s3://archive/image-usage/v1/entries/dt=2026-11-22/account_id=111122223333/region=us-east-1/20261122T060000Z-7bf73129.ATTEMPT.jsonl.gz
    AccessDenied: Access Denied
    ");
}

#[tokio::test]
async fn a_missing_bucket_is_reported_before_anything_is_listed() {
    let aws = local_aws(&world(&[REGION])).await;
    std::fs::remove_dir(aws.archive_root().join(BUCKET)).unwrap();
    let auditor = auditor(&aws, &[]).await;
    let error = run(&auditor, scheduled_event()).await.unwrap_err();
    assert_snapshot!(written(&error), @"
    ArchiveFailed
    the archive could not be written
    failed to read s3://archive/image-usage/v1/snapshots/dt=2026-11-22/20261122T060000Z-7bf73129.json
    NoSuchBucket: The specified bucket does not exist
    ");
    assert_eq!(count_calls(&aws, LISTING), 0);
}

#[tokio::test]
async fn a_request_for_an_account_that_is_not_configured_is_refused_by_name() {
    let aws = local_aws(&world(&[REGION])).await;
    let auditor = auditor(&aws, &[("AUDITOR_ROLE_NAME", "reader")]).await;
    let payload = json!({"account_ids": [ACCOUNT, "999988887777"]});
    let error = run(&auditor, payload).await.unwrap_err();
    assert_snapshot!(written(&error), @"
    InvalidRequest
    `account_ids[1]`: 999988887777 is not among the accounts of AUDITOR_ACCOUNTS
    ");
}
