//! What a run says has changed since the previous one, and which run is the previous one.

use insta::{assert_compact_json_snapshot, assert_snapshot};
use local_aws::{Fault, FaultKind, Page, When};
use serde_json::{Value, json};
use time::Duration;

use crate::harness::{
    ACCOUNT, But, Days, LATEST, LISTING, OTHER_REGION, REGION, TWO_REGIONS, checked, found,
    line_by_line, now, run, run_at, sha256, target, used,
};

#[tokio::test]
async fn each_snapshot_names_the_previous_one_by_its_digest_and_the_latest_is_a_copy() {
    let days = Days::with_reports([used("amiur-1", 1)]).await;
    let mut previous = Value::Null;
    for _ in 0..4 {
        days.world.clock().advance(Duration::DAY);
        let (summary, snapshot) = days.unchecked_run().await;
        assert_eq!(snapshot["previous"], previous);
        let bytes = days.archive().bytes(&summary.snapshot.key);
        assert_eq!(days.archive().bytes(LATEST), bytes);
        previous = json!({
            "run_id": summary.run_id, "key": summary.snapshot.key, "sha256": sha256(&bytes)
        });
    }
}

#[tokio::test]
async fn changes_list_the_findings_that_opened_and_were_resolved_and_the_reports_that_appeared_and_went()
 {
    let days = Days::with_reports([
        used("amiur-failed", 0).in_state("error"),
        used("amiur-expires", 1).expiring_in(Duration::hours(12)),
        used("amiur-soon", 1).expiring_in(Duration::days(7) + Duration::HOUR),
        used("amiur-deleted", 0).in_state("error"),
        used("amiur-healthy", 1),
    ])
    .await;
    let first = days.run().await;
    assert_eq!(first["changes"], Value::Null);
    days.delete(REGION, "amiur-deleted");
    days.put(REGION, [used("amiur-new", 0).in_state("error")]);
    let second = days.next_day().await;
    assert_snapshot!(line_by_line(&second["changes"]), @r#"
    appeared: [{"account_id":"111122223333","image_id":"ami-0abcdef1234567890","region":"us-east-1","report_id":"amiur-new","state":"error"}]
    appeared_omitted: 0
    changed_state: []
    changed_state_omitted: 0
    findings: {"continuing":1,"opened":2,"resolved":2,"unseen":0}
    gone: [{"account_id":"111122223333","archived":false,"image_id":"ami-0abcdef1234567890","region":"us-east-1","report_id":"amiur-deleted"},{"account_id":"111122223333","archived":true,"image_id":"ami-0abcdef1234567890","region":"us-east-1","report_id":"amiur-expires"}]
    gone_omitted: 0
    images_not_carried: []
    opened: ["111122223333/us-east-1/amiur-new/failed","111122223333/us-east-1/amiur-soon/expiring"]
    opened_omitted: 0
    reports: {"appeared":1,"changed_state":0,"gone":2,"gone_unarchived":0,"unseen":0}
    resolved: ["111122223333/us-east-1/amiur-deleted/failed","111122223333/us-east-1/amiur-expires/expiring"]
    resolved_omitted: 0
    targets_added: []
    targets_not_compared: []
    targets_removed: []
    verdicts: []
    verdicts_omitted: 0
    "#);
    let third = days.next_day().await;
    assert_compact_json_snapshot!(third["changes"]["findings"], @r#"{"continuing": 3, "opened": 0, "resolved": 0, "unseen": 0}"#);
}

#[tokio::test]
async fn a_region_that_could_not_be_read_resolves_nothing_and_is_compared_once_it_is_back() {
    let days = Days::of(&TWO_REGIONS).await;
    for region in TWO_REGIONS {
        days.put(
            region,
            [
                used("amiur-stays", 0).in_state("error"),
                used("amiur-goes", 0).in_state("error"),
                used("amiur-archived", 2),
            ],
        );
    }
    let first = days.run().await;
    let denied = Fault::new(FaultKind::Denied).in_region(OTHER_REGION);
    days.aws.faults().add(denied);
    for region in TWO_REGIONS {
        days.delete(region, "amiur-goes");
        days.put(region, [used("amiur-comes", 0).in_state("error")]);
    }
    let known = target(&first, OTHER_REGION)["object"].clone();
    for day in 1..=3 {
        let dark = days.next_day().await;
        let ledger = target(&dark, OTHER_REGION);
        assert_eq!(ledger["status"], "failed");
        assert_eq!(ledger["earlier_objects"], json!([known]));
        let (went, changes) = match day {
            1 => (
                1,
                json!({"opened": 1, "continuing": 1, "resolved": 1, "unseen": 2}),
            ),
            _ => (
                0,
                json!({"opened": 0, "continuing": 2, "resolved": 0, "unseen": 2}),
            ),
        };
        assert_eq!(dark["changes"]["findings"], changes, "day {day}");
        assert_eq!(
            dark["changes"]["reports"],
            json!({"appeared": went, "gone": went, "gone_unarchived": 0, "changed_state": 0, "unseen": 3}),
            "day {day}"
        );
        for list in ["opened", "resolved"] {
            let listed = dark["changes"][list].to_string();
            assert!(!listed.contains(OTHER_REGION), "{listed}");
        }
    }
    days.aws.faults().clear();
    let back = days.next_day().await;
    assert_eq!(target(&back, OTHER_REGION)["earlier_objects"], json!([]));
    let changes = &back["changes"];
    assert_compact_json_snapshot!(changes["findings"], @r#"{"continuing": 3, "opened": 1, "resolved": 1, "unseen": 0}"#);
    assert_compact_json_snapshot!(changes["opened"], @r#"["111122223333/eu-west-1/amiur-comes/failed"]"#);
    assert_compact_json_snapshot!(changes["resolved"], @r#"["111122223333/eu-west-1/amiur-goes/failed"]"#);
    // What was archived before the Region failed is not fetched again.
    assert_eq!(days.requested_entries().len(), 0);
}

#[tokio::test]
async fn an_incomplete_target_loses_no_report_and_is_compared_as_far_as_it_was_read() {
    let reports = (0..9).map(|number| used(&format!("amiur-{number}"), 0).in_state("error"));
    let days = Days::with_reports(reports)
        .await
        .with("AUDITOR_PAGE_SIZE", "3");
    let first = days.run().await;
    days.delete(REGION, "amiur-0");
    days.delete(REGION, "amiur-8");
    days.put(REGION, [used("amiur-new", 1)]);
    // Two of three pages are read.
    let denied = Fault::new(FaultKind::Denied).on(LISTING);
    days.aws.faults().add(denied.when(When::Page(Page::Last)));
    let incomplete = days.next_day().await;
    let ledger = target(&incomplete, REGION);
    assert_eq!(ledger["status"], "incomplete");
    assert_eq!(ledger["reports"], 6);
    let first_object = &target(&first, REGION)["object"];
    assert_eq!(ledger["earlier_objects"], json!([first_object]));
    // Two are deleted, and one is on the page that was not read.
    assert_compact_json_snapshot!(incomplete["changes"]["findings"], @r#"{"continuing": 6, "opened": 0, "resolved": 0, "unseen": 3}"#);
    assert_compact_json_snapshot!(incomplete["changes"]["reports"], @r#"{"appeared": 0, "changed_state": 0, "gone": 0, "gone_unarchived": 0, "unseen": 3}"#);
    let still_incomplete = days.next_day().await;
    assert_eq!(
        target(&still_incomplete, REGION)["earlier_objects"],
        json!([first_object, ledger["object"]])
    );
    assert_eq!(still_incomplete["changes"]["findings"]["unseen"], 3);
    days.aws.faults().clear();
    let complete = days.next_day().await;
    assert_compact_json_snapshot!(complete["changes"]["findings"], @r#"{"continuing": 7, "opened": 0, "resolved": 2, "unseen": 0}"#);
    assert_compact_json_snapshot!(complete["changes"]["reports"], @r#"{"appeared": 1, "changed_state": 0, "gone": 2, "gone_unarchived": 0, "unseen": 0}"#);
    assert_eq!(days.requested_entries(), [["amiur-new"]]);
}

#[tokio::test]
async fn entries_that_were_fetched_for_an_incomplete_target_are_not_fetched_again() {
    let reports = (0..9).map(|number| used(&format!("amiur-{number}"), 1));
    let days = Days::with_reports(reports)
        .await
        .with("AUDITOR_PAGE_SIZE", "3");
    let denied = Fault::new(FaultKind::Denied).on(LISTING);
    days.aws.faults().add(denied.when(When::Nth(2)));
    let incomplete = days.run().await;
    assert_eq!(target(&incomplete, REGION)["status"], "incomplete");
    assert_eq!(incomplete["counts"]["entries"]["fetched"], 6);
    days.aws.faults().clear();
    let complete = days.next_day().await;
    assert_eq!(complete["counts"]["entries"]["archived"], 9);
    assert_eq!(complete["counts"]["entries"]["fetched"], 3);
}

#[tokio::test]
async fn targets_that_are_new_or_no_longer_configured_are_named_and_lose_nothing() {
    let mut days = Days::of(&TWO_REGIONS).await;
    for region in TWO_REGIONS {
        let failed = used("amiur-1", 0).in_state("error");
        days.put(region, [failed, used("amiur-2", 1)]);
    }
    days.regions = REGION.to_owned();
    days.run().await;
    days.regions = TWO_REGIONS.join(",");
    let more = days.next_day().await["changes"].take();
    let other = json!([format!("{ACCOUNT}/{OTHER_REGION}")]);
    assert_eq!(more["targets_added"], other);
    assert_eq!(more["targets_removed"], json!([]));
    assert_eq!(more["targets_not_compared"], json!([]));
    assert_eq!(more["findings"]["opened"], 1);
    assert_eq!(more["reports"]["appeared"], 2);
    days.regions = REGION.to_owned();
    let fewer = days.next_day().await["changes"].take();
    assert_eq!(fewer["targets_added"], json!([]));
    assert_eq!(fewer["targets_removed"], other);
    assert_compact_json_snapshot!(fewer["findings"], @r#"{"continuing": 1, "opened": 0, "resolved": 0, "unseen": 0}"#);
    assert_eq!(fewer["reports"]["gone"], 0);
}

#[tokio::test]
async fn lists_of_changes_hold_a_thousand_in_order_and_count_the_rest() {
    let days = Days::with_reports([used("amiur-before", 1)]).await;
    days.run().await;
    let ids: Vec<String> = (0..1_100)
        .map(|number| format!("amiur-{number:04}"))
        .collect();
    let failed = ids.iter().rev().map(|id| used(id, 0).in_state("error"));
    days.put(REGION, failed);
    let many = days.next_day().await;
    for id in &ids {
        days.delete(REGION, id);
    }
    let none = days.next_day().await;
    for (changes, findings, reports) in [
        (&many["changes"], "opened", "appeared"),
        (&none["changes"], "resolved", "gone"),
    ] {
        assert_eq!(changes["findings"][findings], 1_100);
        assert_eq!(changes["reports"][reports], 1_100);
        for list in [findings, reports] {
            assert_eq!(changes[format!("{list}_omitted")], 100, "{list}");
            assert_eq!(changes[list].as_array().unwrap().len(), 1_000, "{list}");
        }
        for (number, id) in ids[..1_000].iter().enumerate() {
            let finding = format!("{ACCOUNT}/{REGION}/{id}/failed");
            assert_eq!(changes[findings][number], finding);
            assert_eq!(changes[reports][number]["report_id"], *id);
        }
    }
}

#[tokio::test]
async fn a_scoped_run_neither_compares_nor_is_compared_with() {
    let days = Days::of(&TWO_REGIONS).await;
    for region in TWO_REGIONS {
        let failed = used("amiur-1", 0).in_state("error");
        days.put(region, [failed, used("amiur-2", 1)]);
    }
    let first = days.run().await;
    days.world.clock().advance(Duration::HOUR);
    let latest = days.archive().bytes(LATEST);
    days.aws.clear_calls();
    let payload = json!({"regions": [OTHER_REGION], "scheduled_at": "2026-11-22T07:00:00Z"});
    let scoped = run(&days.auditor().await, payload).await.unwrap();
    let scoped = checked(&days.aws, &scoped);
    assert_eq!(scoped["previous"], Value::Null);
    assert_eq!(scoped["changes"], Value::Null);
    assert_eq!(days.archive().bytes(LATEST), latest);
    // It knows which entries are archived.
    assert_eq!(days.requested_entries().len(), 0);
    let next = days.next_day().await;
    assert_eq!(next["previous"]["run_id"], first["run_id"]);
    assert_compact_json_snapshot!(next["changes"]["findings"], @r#"{"continuing": 2, "opened": 0, "resolved": 0, "unseen": 0}"#);
    assert_eq!(next["changes"]["targets_removed"], json!([]));
}

#[tokio::test]
async fn entries_that_a_scoped_run_fetched_first_are_fetched_again_and_are_the_same() {
    let days = Days::of(&[REGION]).await;
    days.run().await;
    days.put(REGION, [used("amiur-new", 2)]);
    days.world.clock().advance(Duration::HOUR);
    let payload = json!({"report_ids": ["amiur-new"]});
    let scoped = run(&days.auditor().await, payload).await.unwrap();
    let scoped = days.archive().snapshot(&scoped);
    // No run follows a scoped one, so none knows what it fetched.
    let full = days.next_day().await;
    assert_eq!(full["counts"]["entries"]["fetched"], 1);
    let (of_scoped, of_full) = (
        days.entry_lines(&scoped, REGION),
        days.entry_lines(&full, REGION),
    );
    assert_eq!(of_scoped.len(), 2);
    assert_eq!(of_scoped, of_full);
}

#[tokio::test]
async fn a_late_run_follows_the_latest_and_no_run_follows_it() {
    let days = Days::with_reports([used("amiur-1", 1)]).await;
    let first = days.run().await;
    let second = days.next_day().await;
    let late = run_at(&days.auditor().await, now() + Duration::hours(3)).await;
    let late = checked(&days.aws, &late.unwrap());
    assert_eq!(late["previous"]["run_id"], second["run_id"]);
    assert_eq!(days.archive().latest(), second);
    let third = days.next_day().await;
    assert_eq!(third["previous"]["run_id"], second["run_id"]);
    assert_eq!(third["counts"]["entries"]["fetched"], 0);
    assert_eq!(second["previous"]["run_id"], first["run_id"]);
}

#[tokio::test]
async fn no_run_follows_one_that_failed_before_it_became_the_latest() {
    let days = Days::with_reports([used("amiur-1", 1)]).await;
    let first = days.run().await;
    days.put(REGION, [used("amiur-2", 2)]);
    let refused = Fault::new(FaultKind::Denied).on("PutObject");
    days.aws.faults().add(refused.on_key("latest.json"));
    days.world.clock().advance(Duration::DAY);
    let failed = run_at(&days.auditor().await, days.world.clock().now()).await;
    failed.unwrap_err();
    days.aws.faults().clear();
    let third = days.next_day().await;
    assert_eq!(third["previous"]["run_id"], first["run_id"]);
    // Its entries are fetched again, and none is lost.
    assert_eq!(third["counts"]["entries"]["archived"], 2);
    assert_eq!(third["changes"]["reports"]["appeared"], 1);
}

#[tokio::test]
async fn findings_are_those_of_the_moment_of_the_run() {
    let days = Days::with_reports([used("amiur-1", 1)]).await;
    let window_edge = now() + Duration::days(13);
    days.run().await;
    days.world.clock().set(window_edge - Duration::SECOND);
    let before = days.run().await;
    assert_eq!(found(&before, "expiring"), [""; 0]);
    days.world.clock().set(window_edge);
    let after = days.run().await;
    assert_eq!(found(&after, "expiring"), ["amiur-1"]);
    assert_eq!(after["findings"][0]["entries_archived"], true);
    assert_compact_json_snapshot!(after["changes"]["opened"], @r#"["111122223333/us-east-1/amiur-1/expiring"]"#);
}
