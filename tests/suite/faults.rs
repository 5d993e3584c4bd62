//! What goes wrong on the way, one at a time, on the first, a middle and the last page.

use local_aws::{Fault, FaultKind, Page, When};
use serde_json::json;

use crate::harness::{
    ACCOUNT, Archive, auditor, healthy_reports, local_aws, run, scheduled_event, target, world,
};

const LISTING: &str = "DescribeImageUsageReports";

/// Audits 40 reports in pages of 10, with a fault; checks that the archive tells the truth, and returns
/// the target's status and error code.
async fn audit_with(fault: Fault) -> (String, Option<String>) {
    let regions = ["eu-west-1", "us-east-1"];
    let world = world(&regions);
    for region in regions {
        world.put_reports(ACCOUNT, region, healthy_reports(40));
    }
    let aws = local_aws(&world).await;
    let shown = format!("{fault:?}");
    aws.faults().add(fault.on(LISTING).in_region("us-east-1"));
    let variables = [
        ("AUDITOR_REGIONS", "eu-west-1,us-east-1"),
        ("AUDITOR_PAGE_SIZE", "10"),
    ];
    let summary = run(&auditor(&aws, &variables).await, scheduled_event())
        .await
        .unwrap();
    assert!(aws.faults().injected() > 0, "never met: {shown}");
    let archive = Archive::of(&aws);
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    assert_eq!(target(&snapshot, "eu-west-1")["status"], "complete");
    let target = target(&snapshot, "us-east-1");
    let code = target["error"]["code"].as_str().map(str::to_owned);
    (target["status"].as_str().unwrap().to_owned(), code)
}

#[tokio::test]
async fn a_fault_that_passes_costs_nothing() {
    for kind in [
        FaultKind::Throttle,
        FaultKind::Status500,
        FaultKind::Status503,
        FaultKind::CloseBeforeAnswer,
        FaultKind::ResetMidBody,
        FaultKind::CutBody,
        FaultKind::MalformedXml,
        FaultKind::CData,
    ] {
        for number in 0..4 {
            let outcome = audit_with(Fault::new(kind.clone()).when(When::Nth(number))).await;
            assert_eq!(
                outcome,
                ("complete".to_owned(), None),
                "{kind:?} at call {number}"
            );
        }
    }
}

#[tokio::test]
async fn an_answer_that_only_looks_odd_is_read_whole() {
    for kind in [
        FaultKind::UnknownMembersAndEntities,
        FaultKind::EmptyPage,
        FaultKind::DuplicateReport,
    ] {
        for number in 0..4 {
            let outcome = audit_with(Fault::new(kind.clone()).when(When::Nth(number))).await;
            assert_eq!(
                outcome,
                ("complete".to_owned(), None),
                "{kind:?} at call {number}"
            );
        }
    }
    let empty_token = Fault::new(FaultKind::EmptyToken).when(When::Page(Page::Last));
    assert_eq!(audit_with(empty_token).await, ("complete".to_owned(), None));
}

#[tokio::test]
async fn an_expired_token_restarts_the_listing_once() {
    let once = Fault::new(FaultKind::ExpireToken).when(When::Nth(1));
    assert_eq!(audit_with(once).await, ("complete".to_owned(), None));
    let always = Fault::new(FaultKind::ExpireToken).when(When::Page(Page::Last));
    let expected = (
        "incomplete".to_owned(),
        Some("InvalidPaginationToken".to_owned()),
    );
    assert_eq!(audit_with(always).await, expected);
}

#[tokio::test]
async fn a_repeated_token_is_an_error_and_not_the_end() {
    for page in [Page::Middle, Page::Last] {
        let outcome = audit_with(Fault::new(FaultKind::RepeatToken).when(When::Page(page))).await;
        assert_eq!(
            outcome,
            ("incomplete".to_owned(), Some("RepeatedToken".to_owned())),
            "{page:?}"
        );
    }
}

#[tokio::test]
async fn a_listing_that_is_denied_midway_keeps_what_came() {
    let denied = |page| Fault::new(FaultKind::Denied).when(When::Page(page));
    let code = Some("UnauthorizedOperation".to_owned());
    assert_eq!(
        audit_with(denied(Page::First)).await,
        ("failed".to_owned(), code.clone())
    );
    assert_eq!(
        audit_with(denied(Page::Middle)).await,
        ("incomplete".to_owned(), code.clone())
    );
    assert_eq!(
        audit_with(denied(Page::Last)).await,
        ("incomplete".to_owned(), code)
    );
}

#[tokio::test]
async fn a_report_without_any_member_is_archived_beside_the_others() {
    let world = world(&["us-east-1"]);
    world.put_reports(ACCOUNT, "us-east-1", healthy_reports(3));
    let aws = local_aws(&world).await;
    aws.faults()
        .add(Fault::new(FaultKind::BareReport).on(LISTING));
    let summary = run(&auditor(&aws, &[]).await, scheduled_event())
        .await
        .unwrap();
    let snapshot = Archive::of(&aws).snapshot(&summary);
    assert_eq!(
        snapshot["counts"]["reports"],
        json!({"total": 4, "available": 3, "pending": 0, "error": 0, "other": 1})
    );
}
