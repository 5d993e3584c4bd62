//! Entries when time runs out, EC2 fails, or the archive refuses them.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration as Wait;

use insta::assert_snapshot;
use local_aws::{Fault, FaultKind, Page, Report, When};
use serde_json::{Value, json};
use time::Duration;

use crate::harness::{
    ACCOUNT, But, Days, ENTRIES, LATEST, OTHER_REGION, REGION, TWO_REGIONS, archived, checked,
    failed, now, pending, run_within, target, text, used,
};

#[tokio::test]
async fn a_run_that_is_cut_short_has_archived_the_most_urgent_and_the_next_one_archives_the_rest() {
    const COUNT: usize = 1_400;
    // In EC2's order the last ones are the most urgent.
    let days = Days::with_reports((0..COUNT).map(|number| {
        let left = Duration::days(20) - Duration::minutes(18 * number as i64);
        used(&format!("amiur-{number:04}"), 1).expiring_in(left)
    }))
    .await;
    let slow = FaultKind::Latency {
        milliseconds: 2_000,
    };
    days.aws.faults().add(Fault::new(slow).on(ENTRIES));
    let summary = run_within(&days.auditor().await, now(), Wait::from_secs(12)).await;
    days.aws.faults().clear();
    let snapshot = checked(&days.aws, &summary.unwrap());
    let entries = days.entries(&snapshot, REGION);
    let kept = archived(&entries).len();
    assert!((200..COUNT).contains(&kept), "{kept}");
    for (number, (id, entries)) in entries.iter().enumerate() {
        match number < COUNT - kept {
            true => assert_eq!(*entries, pending(Some("DeadlineExceeded")), "{id}"),
            false => assert_eq!(entries["status"], "archived", "{id}"),
        }
    }
    // The listing itself was read completely.
    assert_eq!(snapshot["status"], "complete");
    // Some of the remaining ones expire within the window, so they are findings.
    let lines = days.lines(&snapshot, REGION);
    let is_unarchived = |line: &&Value| line["findings"][0] == "unarchived";
    let unarchived = lines.values().filter(is_unarchived).count();
    assert_eq!(snapshot["counts"]["findings"]["unarchived"], unarchived);

    let next = days.next_day().await;
    let requested: BTreeSet<String> = days.requested_entries().into_iter().flatten().collect();
    let rest = entries.keys().take(COUNT - kept).cloned().collect();
    assert_eq!(requested, rest);
    assert_eq!(next["counts"]["entries"]["archived"], COUNT);
    assert_eq!(next["counts"]["findings"]["unarchived"], 0);
}

/// The findings of a snapshot in their order: kind, report, and whether its entries are archived.
fn finding_lines(snapshot: &Value) -> String {
    let findings = snapshot["findings"].as_array().unwrap().iter();
    let lines = findings.map(|finding| {
        let (kind, id) = (text(&finding["kind"]), text(&finding["report_id"]));
        format!("{kind} {id} {}", finding["entries_archived"])
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn unarchived_entries_of_a_report_within_the_window_are_the_most_urgent_finding() {
    let expired = Report {
        deleted_at: Some(now() + Duration::DAY),
        ..used("amiur-expired", 1).expiring_in(-Duration::HOUR)
    };
    let day = Duration::DAY;
    let days = Days::with_reports([
        used("amiur-far", 1),
        used("amiur-edge", 1).expiring_in(7 * day),
        used("amiur-beyond", 1).expiring_in(7 * day + Duration::SECOND),
        expired,
        used("amiur-error", 1).in_state("error").expiring_in(day),
        used("amiur-pending", 1)
            .in_state("pending")
            .expiring_in(day),
    ])
    .await;
    let denied = Fault::new(FaultKind::Denied).on(ENTRIES);
    days.aws.faults().add(denied);
    let snapshot = days.run().await;
    assert_eq!(snapshot["status"], "complete");
    assert_eq!(target(&snapshot, REGION)["status"], "complete");
    assert_eq!(target(&snapshot, REGION)["error"], Value::Null);
    let entries = days.entries(&snapshot, REGION);
    for id in ["amiur-far", "amiur-edge", "amiur-beyond", "amiur-expired"] {
        assert_eq!(entries[id], failed("UnauthorizedOperation"), "{id}");
    }
    assert_snapshot!(finding_lines(&snapshot), @r#"
    unarchived amiur-expired false
    unarchived amiur-edge false
    failed amiur-error null
    expired amiur-expired false
    expiring amiur-error false
    expiring amiur-pending false
    expiring amiur-edge false
    stuck amiur-pending null
    "#);
    assert_snapshot!(text(&snapshot["findings"][1]["message"]), @r#"expires in 7 days 0 hours, at 2026-11-29T06:00:05Z; its entries are not archived: UnauthorizedOperation"#);
    // A denial is not retried.
    assert_eq!(days.requested_entries().len(), 1);

    days.aws.faults().clear();
    let next = days.next_day().await;
    assert_eq!(next["counts"]["findings"]["unarchived"], 0);
    let found = next["findings"].as_array().unwrap().iter();
    let mut of_edge = found.filter(|finding| finding["report_id"] == "amiur-edge");
    assert_eq!(of_edge.next().unwrap()["entries_archived"], true);
    let resolved = next["changes"]["resolved"].as_array().unwrap();
    let unarchived = json!(format!("{ACCOUNT}/{REGION}/amiur-edge/unarchived"));
    assert!(resolved.contains(&unarchived), "{resolved:?}");
}

/// A fault of every call for entries that names this report.
fn failing_report(id: &str, status: u16) -> Fault {
    let kind = FaultKind::Error {
        status,
        code: "InternalFailure".to_owned(),
        message: "An internal error has occurred".to_owned(),
    };
    Fault::new(kind).on(ENTRIES).asking_for(id)
}

#[tokio::test]
async fn a_report_that_fails_every_call_that_names_it_costs_only_itself() {
    let ids = (0..450).map(|number| format!("amiur-{number:03}"));
    let days = Days::with_reports(ids.map(|id| used(&id, 1))).await;
    // The SDK does not retry this status, so the test does not wait.
    days.aws.faults().add(failing_report("amiur-217", 400));
    let snapshot = days.run().await;
    let entries = days.entries(&snapshot, REGION);
    assert_eq!(entries["amiur-217"], failed("InternalFailure"));
    assert_eq!(archived(&entries).len(), 449);
    assert_eq!(target(&snapshot, REGION)["status"], "complete");
    days.aws.faults().clear();
    let next = days.next_day().await;
    assert_eq!(days.requested_entries(), [["amiur-217"]]);
    assert_eq!(next["counts"]["entries"]["archived"], 450);
}

#[tokio::test]
async fn a_report_whose_call_ends_in_an_internal_error_costs_only_itself() {
    let days = Days::with_reports([used("amiur-0", 1), used("amiur-1", 2)]).await;
    days.aws.faults().add(failing_report("amiur-1", 500));
    let snapshot = days.run().await;
    let entries = days.entries(&snapshot, REGION);
    assert_eq!(entries["amiur-1"], failed("InternalFailure"));
    assert_eq!(archived(&entries), BTreeSet::from(["amiur-0"]));
}

#[tokio::test]
async fn a_transient_fault_costs_no_entry() {
    // The first, a middle and the last of four pages.
    let pages = [When::Nth(0), When::Nth(1), When::Nth(3)];
    #[rustfmt::skip]
    let faults: [(FaultKind, &[When]); 11] = [
        (FaultKind::Throttle, &pages),
        (FaultKind::Status500, &pages),
        (FaultKind::CloseBeforeAnswer, &pages),
        (FaultKind::CutBody, &pages),
        (FaultKind::MalformedXml, &pages),
        (FaultKind::CData, &pages),
        (FaultKind::UnknownMembersAndEntities, &pages),
        (FaultKind::EmptyPage, &pages),
        (FaultKind::DuplicateReport, &pages),
        (FaultKind::EmptyToken, &[When::Page(Page::Last)]),
        (FaultKind::ExpireToken, &[When::Nth(0), When::Nth(2)]),
    ];
    for (kind, pages) in faults {
        for interleaves in [false, true] {
            let reports = (0..5).map(|number| used(&format!("amiur-{number}"), number));
            let days = Days::with_reports(reports)
                .await
                .with("AUDITOR_PAGE_SIZE", "3");
            days.world.interleave_entries(interleaves);
            for &when in pages {
                let fault = Fault::new(kind.clone()).on(ENTRIES);
                days.aws.faults().add(fault.when(when));
                let before = days.aws.faults().injected();
                // Without `latest.json`, everything is fetched again.
                let _ = fs::remove_file(days.path(LATEST));
                let snapshot = days.next_day().await;
                assert_ne!(days.aws.faults().injected(), before, "{kind:?} {when:?}");
                let entries = &snapshot["counts"]["entries"];
                assert_eq!(entries["fetched"], 5, "{kind:?} {when:?} {interleaves}");
                days.aws.faults().clear();
            }
        }
    }
}

#[tokio::test]
async fn entries_that_the_archive_refuses_are_never_reported_as_archived() {
    let days = Days::of(&TWO_REGIONS).await;
    for region in TWO_REGIONS {
        days.put(region, [used("amiur-1", 1)]);
    }
    let refused = Fault::new(FaultKind::Denied).on("PutObject");
    let key = format!("v1/entries/dt=2026-11-22/account_id={ACCOUNT}/region={OTHER_REGION}");
    days.aws.faults().add(refused.on_key(&key));
    let (_, snapshot) = days.unchecked_run().await;
    let refused = target(&snapshot, OTHER_REGION);
    assert_eq!(refused["entries_object"], Value::Null);
    if !refused["object"].is_null() {
        let entries = days.entries(&snapshot, OTHER_REGION);
        assert_ne!(entries["amiur-1"]["status"], "archived");
    }
    assert_eq!(target(&snapshot, REGION)["status"], "complete");
    days.aws.faults().clear();
    let next = days.next_day().await;
    assert_eq!(next["status"], "complete");
    assert_eq!(next["counts"]["entries"]["archived"], 2);
}
