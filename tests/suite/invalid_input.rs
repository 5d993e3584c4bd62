//! What the function says to what it can't do, word for word.

use std::error::Error;

use local_aws::{Fault, FaultKind};
use serde_json::{Value, json};

use crate::harness::{
    ACCOUNT, Archive, BUCKET, auditor, healthy_reports, is_object_of, local_aws, run,
    scheduled_event, world,
};

/// Runs a payload that must fail; returns the error's type, and its text with those of its causes.
async fn failure(payload: Value, fault: Option<Fault>) -> (&'static str, Vec<String>) {
    let world = world(&["us-east-1"]);
    world.put_reports(ACCOUNT, "us-east-1", healthy_reports(3));
    let aws = local_aws(&world).await;
    aws.faults().clear();
    if let Some(fault) = fault {
        aws.faults().add(fault);
    }
    let error = run(&auditor(&aws, &[]).await, payload).await.unwrap_err();
    assert!(Archive::of(&aws).objects().is_empty());
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    (error.error_type(), texts)
}

#[tokio::test]
async fn a_payload_that_is_no_request_is_refused_before_any_call() {
    let (kind, texts) = failure(json!({"region": "eu-west-1"}), None).await;
    assert_eq!(kind, "InvalidRequest");
    let expected = "`region`: unknown field `region`, expected one of `regions`, `account_ids`, `image_ids`, \
                    `report_ids`, `filters`, `max_results`, `scheduled_at`, `dry_run`";
    assert_eq!(texts, [expected]);
}

#[tokio::test]
async fn an_unknown_filter_is_told_in_ec2s_words_with_the_target() {
    let (kind, texts) = failure(
        json!({"filters": [{"name": "status", "values": ["error"]}]}),
        None,
    )
    .await;
    assert_eq!(kind, "NoTargetAudited");
    let expected = "no target could be audited: 111122223333/us-east-1: \
                    InvalidParameterValue: The filter 'status' is invalid";
    assert_eq!(texts, [expected]);
}

#[tokio::test]
async fn an_unknown_report_is_told_in_ec2s_words() {
    let (kind, texts) = failure(json!({"report_ids": ["amiur-00000000000000bad"]}), None).await;
    assert_eq!(kind, "NoTargetAudited");
    let start =
        "no target could be audited: 111122223333/us-east-1: InvalidImageUsageReportId.NotFound: ";
    assert!(
        texts[0].starts_with(start) && texts[0].contains("amiur-00000000000000bad"),
        "{texts:?}"
    );
}

#[tokio::test]
async fn an_account_without_a_role_to_assume_is_named() {
    let (kind, texts) = failure(json!({"account_ids": ["222233334444"]}), None).await;
    assert_eq!(kind, "InvalidSettings");
    let expected = "AUDITOR_ROLE_NAME is not set, but 222233334444 is another account: name the role to assume in it";
    assert_eq!(texts, [expected]);
}

#[tokio::test]
async fn a_denied_bucket_is_named_with_what_s3_said() {
    let denied = Fault::new(FaultKind::Denied).on("GetObject");
    let (kind, texts) = failure(scheduled_event(), Some(denied)).await;
    assert_eq!(kind, "ArchiveFailed");
    assert_eq!(
        texts[..2],
        [
            "the archive could not be written".to_owned(),
            "failed to read s3://archive/image-usage/v1/snapshots/dt=2026-11-22/20261122T060000Z-7bf73129.json".to_owned()
        ]
    );
    assert!(texts[2].starts_with("AccessDenied: "), "{texts:?}");
}

#[tokio::test]
async fn a_bucket_that_takes_no_object_fails_the_run_and_not_the_reading() {
    let denied = Fault::new(FaultKind::Denied).on("PutObject");
    let (kind, texts) = failure(scheduled_event(), Some(denied)).await;
    assert_eq!(kind, "ArchiveFailed");
    let expected = "failed to write s3://archive/image-usage/v1/entries/dt=2026-11-22/account_id=111122223333/\
                    region=us-east-1/";
    let key = texts[1].strip_prefix(expected).unwrap();
    assert!(is_object_of(key, "20261122T060000Z-7bf73129"), "{texts:?}");
}

#[tokio::test]
async fn a_missing_bucket_is_told_before_anything_is_listed() {
    let world = world(&["us-east-1"]);
    let aws = local_aws(&world).await;
    std::fs::remove_dir(aws.archive_root().join(BUCKET)).unwrap();
    let error = run(&auditor(&aws, &[]).await, scheduled_event())
        .await
        .unwrap_err();
    assert_eq!(error.error_type(), "ArchiveFailed");
    let cause = error.source().unwrap().source().unwrap().to_string();
    assert!(cause.starts_with("NoSuchBucket: "), "{cause}");
    assert!(
        aws.calls()
            .iter()
            .all(|call| call.operation != "DescribeImageUsageReports")
    );
}
