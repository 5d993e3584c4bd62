//! Single faults on the first, a middle and the last page of a listing.

use local_aws::{Fault, FaultKind, Page, When};

use crate::harness::{
    ACCOUNT, LISTING, OTHER_REGION, REGION, TRANSIENT_FAULTS, TWO_REGIONS, audit, auditor, checked,
    healthy_reports, local_aws, run, scheduled_event, status, world,
};

/// Audits 40 reports in pages of 10 with a fault, checks the archive against what EC2 held, and returns the
/// target's status, with its error code if it has one.
async fn audit_with(fault: Fault) -> String {
    let world = world(&TWO_REGIONS);
    for region in TWO_REGIONS {
        world.put_reports(ACCOUNT, region, healthy_reports(40));
    }
    let aws = local_aws(&world).await;
    let shown = format!("{fault:?}");
    aws.faults().add(fault.on(LISTING).in_region(REGION));
    let variables = [("AUDITOR_REGIONS", "all"), ("AUDITOR_PAGE_SIZE", "10")];
    let auditor = auditor(&aws, &variables).await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    assert!(aws.faults().injected() > 0, "never met: {shown}");
    assert_eq!(status(&snapshot, OTHER_REGION), "complete");
    status(&snapshot, REGION)
}

/// Audits with a fault of each kind at each call of a listing of four pages, which must cost nothing.
async fn check_complete(kinds: impl IntoIterator<Item = FaultKind>) {
    for kind in kinds {
        for call in 0..4 {
            let outcome = audit_with(Fault::new(kind.clone()).when(When::Nth(call))).await;
            assert_eq!(outcome, "complete", "{kind:?} at call {call}");
        }
    }
}

#[tokio::test]
async fn a_transient_fault_costs_nothing() {
    check_complete(TRANSIENT_FAULTS).await;
    check_complete([FaultKind::CData]).await;
}

#[tokio::test]
async fn an_unusual_but_legal_answer_is_read_completely() {
    check_complete([
        FaultKind::UnknownMembersAndEntities,
        FaultKind::EmptyPage,
        FaultKind::DuplicateReport,
    ])
    .await;
    let empty_token = Fault::new(FaultKind::EmptyToken).when(When::Page(Page::Last));
    assert_eq!(audit_with(empty_token).await, "complete");
}

#[tokio::test]
async fn an_expired_token_restarts_the_listing_once() {
    let expired = |when| audit_with(Fault::new(FaultKind::ExpireToken).when(when));
    assert_eq!(expired(When::Nth(1)).await, "complete");
    assert_eq!(
        expired(When::Page(Page::Last)).await,
        "incomplete: InvalidPaginationToken"
    );
}

#[tokio::test]
async fn a_repeated_token_is_an_error_and_not_the_end_of_the_listing() {
    for page in [Page::Middle, Page::Last] {
        let repeated = Fault::new(FaultKind::RepeatToken).when(When::Page(page));
        let outcome = audit_with(repeated).await;
        assert_eq!(outcome, "incomplete: RepeatedToken", "{page:?}");
    }
}

#[tokio::test]
async fn a_listing_that_is_denied_midway_keeps_the_pages_before() {
    #[rustfmt::skip]
    let outcomes = [
        (Page::First, "failed: UnauthorizedOperation"),
        (Page::Middle, "incomplete: UnauthorizedOperation"),
        (Page::Last, "incomplete: UnauthorizedOperation"),
    ];
    for (page, expected) in outcomes {
        let denied = Fault::new(FaultKind::Denied).when(When::Page(page));
        assert_eq!(audit_with(denied).await, expected, "{page:?}");
    }
}

#[tokio::test]
async fn a_report_without_any_field_is_archived_beside_the_others() {
    let world = world(&[REGION]);
    world.put_reports(ACCOUNT, REGION, healthy_reports(3));
    let aws = local_aws(&world).await;
    aws.faults()
        .add(Fault::new(FaultKind::BareReport).on(LISTING));
    let (summary, archive) = audit(&aws, REGION).await;
    insta::assert_compact_json_snapshot!(
        archive.snapshot(&summary)["counts"]["reports"],
        @r#"{"available": 3, "error": 0, "other": 1, "pending": 0, "total": 4}"#
    );
}
