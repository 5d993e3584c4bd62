//! The entries of reports: what is fetched, what is archived, and what their status says.

use std::collections::BTreeSet;

use insta::{assert_compact_json_snapshot, assert_snapshot};
use local_aws::{Entry, Fault, FaultKind, Report, Transition, When};
use serde_json::{Value, json};
use time::Duration;

use crate::harness::{
    ACCOUNT, But, Days, ENTRIES, LISTING, REGION, TWO_REGIONS, archived, expected_entries, failed,
    found, healthy_reports, is_object_of, now, pending, target, text, until, usage, used,
};

/// A report that lacks every optional field, with entries at the limits of their types.
fn odd(id: &str) -> Report {
    Report {
        image_id: None,
        creation_time: None,
        expiration_time: None,
        entries: vec![
            Entry::default(),
            usage("444455556666", "ec2:LaunchTemplate", 0),
            usage("444455556666", "of:TheFuture", i64::MAX),
            usage("************", "ec2:Instance", -1),
        ],
        ..used(id, 0)
    }
}

#[tokio::test]
async fn the_entries_of_every_available_report_are_archived_once_grouped_and_field_by_field() {
    for page_size in ["1", "2", "1000"] {
        let days = Days::of(&TWO_REGIONS)
            .await
            .with("AUDITOR_PAGE_SIZE", page_size);
        days.world.interleave_entries(true);
        for region in TWO_REGIONS {
            let counts = [3, 0, 1, 5].into_iter().enumerate();
            let reports =
                counts.map(|(place, count)| used(&format!("amiur-{region}-{place}"), count));
            days.put(region, reports.chain([odd(&format!("amiur-{region}-odd"))]));
        }
        let snapshot = days.run().await;
        let counts =
            json!({"archived": 10, "failed": 0, "fetched": 10, "not_available": 0, "pending": 0});
        assert_eq!(snapshot["counts"]["entries"], counts, "{page_size}");
        for region in TWO_REGIONS {
            let ledger = target(&snapshot, region);
            let key = text(&ledger["entries_object"]["key"]);
            let folder = format!(
                "image-usage/v1/entries/dt=2026-11-22/account_id={ACCOUNT}/region={region}/"
            );
            assert!(key.starts_with(&folder), "{key}");
            assert!(is_object_of(key, text(&snapshot["run_id"])), "{key}");
            // Three, one that says that no usage was observed, one, five and four.
            assert_eq!(ledger["entries_object"]["lines"], 14, "{page_size}");
            assert_eq!(ledger["earlier_objects"], json!([]));
        }
    }
}

#[tokio::test]
async fn an_entry_is_a_line_with_its_fields_in_their_order() {
    let days = Days::with_reports([used("amiur-1", 1), used("amiur-0", 0)]).await;
    let snapshot = days.run().await;
    let key = text(&target(&snapshot, REGION)["entries_object"]["key"]).to_owned();
    let written = days.archive().unzipped(&key);
    let mut lines: Vec<&str> = written.lines().collect();
    lines.sort_unstable();
    assert_snapshot!(lines.join("\n"), @r#"
    {"account_id":"111122223333","region":"us-east-1","report_id":"amiur-0","image_id":"ami-0abcdef1234567890","report_creation_time":"2026-11-12T06:00:05.250Z","consumer_account_id":null,"resource_type":null,"usage_count":0}
    {"account_id":"111122223333","region":"us-east-1","report_id":"amiur-1","image_id":"ami-0abcdef1234567890","report_creation_time":"2026-11-12T06:00:05.250Z","consumer_account_id":"444455556666","resource_type":"ec2:Instance","usage_count":1}
    "#);
}

#[tokio::test]
async fn entries_are_requested_only_of_available_reports_and_by_their_ids() {
    let stateless = Report {
        state: None,
        ..used("amiur-stateless", 2)
    };
    let days = Days::with_reports([
        used("amiur-available", 2),
        used("amiur-pending", 2).in_state("pending"),
        used("amiur-error", 2).in_state("error"),
        used("amiur-odd", 2).in_state("archived"),
        stateless,
    ])
    .await;
    let snapshot = days.run().await;
    assert_eq!(days.requested_entries(), [["amiur-available"]]);
    for call in days.aws.calls() {
        assert_eq!(call.parameters.get("ImageId.1"), None, "{call:?}");
    }
    let entries = days.entries(&snapshot, REGION);
    assert_eq!(entries["amiur-pending"], pending(None));
    for id in ["amiur-error", "amiur-odd", "amiur-stateless"] {
        assert_eq!(entries[id], json!({"status": "not_available"}), "{id}");
    }
    assert_compact_json_snapshot!(snapshot["counts"]["entries"], @r#"{"archived": 1, "failed": 0, "fetched": 1, "not_available": 3, "pending": 1}"#);
}

#[tokio::test]
async fn a_call_names_at_most_200_reports_and_each_report_is_named_once() {
    let ids = || (0..450).map(|number| format!("amiur-{number}"));
    let days = Days::with_reports(ids().map(|id| used(&id, 1))).await;
    days.run().await;
    let requested = days.requested_entries();
    let sizes: Vec<usize> = requested.iter().map(Vec::len).collect();
    assert_eq!(sizes, [200, 200, 50]);
    let named: BTreeSet<String> = requested.into_iter().flatten().collect();
    assert_eq!(named, ids().collect());
}

#[tokio::test]
async fn a_report_is_fetched_once_and_later_runs_say_where_its_entries_are() {
    let reports = (0..5).map(|number| used(&format!("amiur-{number}"), number));
    let days = Days::with_reports(reports).await;
    let first = days.run().await;
    let entries = days.entries(&first, REGION);
    assert_eq!(archived(&entries).len(), 5);
    for day in 1..=3 {
        let later = days.next_day().await;
        assert_eq!(days.requested_entries().len(), 0, "day {day}");
        assert_eq!(days.entries(&later, REGION), entries, "day {day}");
        assert_eq!(target(&later, REGION)["entries_object"], Value::Null);
        assert_eq!(later["counts"]["entries"]["archived"], 5);
        assert_eq!(later["counts"]["entries"]["fetched"], 0);
    }
    days.put(REGION, [used("amiur-new", 3)]);
    let last = days.next_day().await;
    assert_eq!(days.requested_entries(), [["amiur-new"]]);
    assert_eq!(last["counts"]["entries"]["archived"], 6);
    assert_eq!(last["counts"]["entries"]["fetched"], 1);
    let objects = days.archive().objects();
    let entry_objects = objects.keys().filter(|key| key.contains("/v1/entries/"));
    assert_eq!(entry_objects.count(), 2);
}

#[tokio::test]
async fn a_report_that_becomes_available_later_is_fetched_then() {
    let late = Report {
        transition: Some(Transition {
            at: now() + Duration::hours(30),
            state: "available".to_owned(),
            state_reason: None,
        }),
        ..used("amiur-late", 2).in_state("pending")
    };
    let days = Days::with_reports([late]).await;
    days.run().await;
    days.next_day().await;
    assert_eq!(days.requested_entries().len(), 0);
    let last = days.next_day().await;
    assert_eq!(days.requested_entries(), [["amiur-late"]]);
    assert_compact_json_snapshot!(last["changes"]["changed_state"], @r#"
    [
      {
        "account_id": "111122223333",
        "from": "pending",
        "image_id": "ami-0abcdef1234567890",
        "region": "us-east-1",
        "report_id": "amiur-late",
        "to": "available"
      }
    ]
    "#);
}

#[tokio::test]
async fn a_report_without_entries_is_one_line_that_says_that_no_usage_was_observed() {
    let days = Days::with_reports([used("amiur-unused", 0)]).await;
    let snapshot = days.run().await;
    let entries = &days.entries(&snapshot, REGION)["amiur-unused"];
    assert_eq!(entries["status"], "archived");
    assert_eq!(entries["count"], 0);
    assert_compact_json_snapshot!(days.archive().lines(text(&entries["key"])), @r#"
    [
      {
        "account_id": "111122223333",
        "consumer_account_id": null,
        "image_id": "ami-0abcdef1234567890",
        "region": "us-east-1",
        "report_creation_time": "2026-11-12T06:00:05.250Z",
        "report_id": "amiur-unused",
        "resource_type": null,
        "usage_count": 0
      }
    ]
    "#);
}

#[tokio::test]
async fn the_entries_of_an_available_report_without_an_id_fail_because_they_cannot_be_requested() {
    let unnamed = Report {
        report_id: None,
        ..used("", 2).expiring_in(Duration::DAY)
    };
    let days = Days::with_reports([used("amiur-1", 1), unnamed]).await;
    let (_, snapshot) = days.unchecked_run().await;
    assert_eq!(days.requested_entries(), [["amiur-1"]]);
    let lines = days.archive().report_lines(&snapshot, REGION);
    assert_eq!(lines[1]["entries"], failed("UnnamedReport"));
    assert_eq!(lines[1]["findings"], json!(["unarchived", "expiring"]));
    assert_eq!(snapshot["counts"]["entries"]["failed"], 1);
}

/// Runs while a report is deleted: after EC2 made the first answer to `operation`, and before it arrives.
async fn run_with_deletion_after(days: &Days, operation: &str, id: &str) -> Value {
    let late = Fault::new(FaultKind::Latency { milliseconds: 500 }).on(operation);
    let before = days.aws.faults().injected();
    days.aws.faults().add(late.when(When::Nth(0)));
    let deletion = async {
        until(|| days.aws.faults().injected() > before).await;
        days.delete(REGION, id);
    };
    let ((_, snapshot), ()) = tokio::join!(days.unchecked_run(), deletion);
    days.aws.faults().clear();
    snapshot
}

/// The number of entry lines that a run has archived of a report.
fn count_lines(days: &Days, snapshot: &Value, id: &str) -> usize {
    let lines = days.entry_lines(snapshot, REGION);
    lines.iter().filter(|line| line["report_id"] == id).count()
}

#[tokio::test]
async fn a_report_deleted_between_listing_and_reading_is_reported_as_deleted_and_never_as_unused() {
    for leaves_out in [false, true] {
        for others in [0, 3, 250] {
            let other = |number: usize| used(&format!("amiur-{number}"), number % 3);
            let days = Days::with_reports((0..others).map(other)).await;
            days.world.leave_out_unknown_reports(leaves_out);
            days.put(REGION, [used("amiur-going", 2).expiring_in(Duration::HOUR)]);
            let snapshot = run_with_deletion_after(&days, LISTING, "amiur-going").await;
            let case = format!("leaves out: {leaves_out}, others: {others}");
            let entries = days.entries(&snapshot, REGION);
            assert_eq!(entries["amiur-going"], failed("ReportDeleted"), "{case}");
            assert_eq!(archived(&entries).len(), others, "{case}");
            assert_eq!(count_lines(&days, &snapshot, "amiur-going"), 0, "{case}");
            assert_eq!(found(&snapshot, "unarchived"), ["amiur-going"], "{case}");
            assert_eq!(target(&snapshot, REGION)["status"], "complete", "{case}");
            // The next run knows that it is gone and was never archived.
            let next = days.next_day().await;
            let going = json!([{
                "account_id": ACCOUNT, "region": REGION, "report_id": "amiur-going",
                "image_id": "ami-0abcdef1234567890", "archived": false
            }]);
            assert_eq!(next["changes"]["gone"], going, "{case}");
            assert_eq!(next["changes"]["reports"]["gone_unarchived"], 1, "{case}");
            assert_eq!(days.requested_entries().len(), 0, "{case}");
        }
    }
}

#[tokio::test]
async fn a_report_deleted_between_two_pages_of_entries_is_not_archived_in_part() {
    for leaves_out in [false, true] {
        for interleaves in [false, true] {
            let going = used("amiur-going", 7).expiring_in(Duration::HOUR);
            let reports = [going, used("amiur-1", 4), used("amiur-2", 5)];
            let days = Days::with_reports(reports)
                .await
                .with("AUDITOR_PAGE_SIZE", "2");
            days.world.leave_out_unknown_reports(leaves_out);
            days.world.interleave_entries(interleaves);
            let snapshot = run_with_deletion_after(&days, ENTRIES, "amiur-going").await;
            let case = format!("leaves out: {leaves_out}, interleaves: {interleaves}");
            let entries = days.entries(&snapshot, REGION);
            assert_eq!(entries["amiur-going"], failed("ReportDeleted"), "{case}");
            let rest = BTreeSet::from(["amiur-1", "amiur-2"]);
            assert_eq!(archived(&entries), rest, "{case}");
            assert_eq!(count_lines(&days, &snapshot, "amiur-going"), 0, "{case}");
            assert_eq!(count_lines(&days, &snapshot, "amiur-1"), 4, "{case}");
            assert_eq!(count_lines(&days, &snapshot, "amiur-2"), 5, "{case}");
        }
    }
}

#[tokio::test]
async fn an_attempt_archives_the_entries_itself_even_if_an_earlier_attempt_has_archived_them() {
    let expiring = |id: &str| used(id, 2).expiring_in(Duration::days(3));
    let days = Days::with_reports(["amiur-stays", "amiur-goes"].map(expiring)).await;
    // The first attempt is killed after its entries are archived.
    let refused = Fault::new(FaultKind::Status503).on("PutObject");
    days.aws.faults().add(refused.on_key("v1/reports/"));
    tokio::select! {
        outcome = days.unchecked_run() => panic!("not killed: {outcome:?}"),
        () = until(|| days.aws.faults().injected() > 0) => {}
    }
    days.aws.faults().clear();
    let before = days.archive().objects();
    let keys: Vec<&String> = before.keys().collect();
    assert!(
        matches!(keys[..], [key] if key.contains("/v1/entries/")),
        "{keys:?}"
    );
    days.delete(REGION, "amiur-goes");
    days.put(REGION, [expiring("amiur-comes")]);

    let (_, snapshot) = days.unchecked_run().await;
    let entries = days.entries(&snapshot, REGION);
    let object = &target(&snapshot, REGION)["entries_object"];
    assert_ne!(object["key"], *keys[0]);
    for id in ["amiur-stays", "amiur-comes"] {
        let archived = json!({
            "status": "archived", "key": object["key"], "run_id": snapshot["run_id"], "count": 2
        });
        assert_eq!(entries[id], archived);
    }
    assert_eq!(object["lines"], 4);
    let after = days.archive().objects();
    assert_eq!(after[keys[0]], before[keys[0]], "{} was changed", keys[0]);
    days.next_day().await;
    assert_eq!(days.requested_entries().len(), 0);
}

#[tokio::test]
async fn the_entries_of_many_reports_are_archived_once() {
    let days = Days::with_reports(healthy_reports(1_000)).await;
    let snapshot = days.run().await;
    assert_eq!(target(&snapshot, REGION)["entries_object"]["lines"], 1_000);
    let held = days.world.reports(ACCOUNT, REGION);
    let expected: BTreeSet<String> = held
        .iter()
        .flat_map(|report| expected_entries(ACCOUNT, REGION, report))
        .map(|line| line.to_string())
        .collect();
    let lines = days.entry_lines(&snapshot, REGION);
    let lines: BTreeSet<String> = lines.iter().map(Value::to_string).collect();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn without_the_setting_no_entries_are_requested_and_nothing_is_unarchived() {
    let unwanted = ("AUDITOR_ARCHIVE_ENTRIES", "false");
    let mut days = Days::with_reports([
        used("amiur-1", 1).expiring_in(Duration::days(3)),
        used("amiur-2", 0).in_state("pending"),
    ])
    .await;
    days.variables.push(unwanted);
    let snapshot = days.run().await;
    assert_eq!(days.requested_entries().len(), 0);
    let entries = days.entries(&snapshot, REGION);
    assert_eq!(entries["amiur-1"], pending(Some("EntriesNotWanted")));
    assert_eq!(entries["amiur-2"], pending(None));
    assert_eq!(found(&snapshot, "unarchived"), [""; 0]);
    assert_eq!(snapshot["findings"][0]["entries_archived"], false);

    days.variables.clear();
    let wanted = days.next_day().await;
    assert_eq!(days.requested_entries(), [["amiur-1"]]);
    days.variables.push(unwanted);
    let unwanted_again = days.next_day().await;
    assert_eq!(
        days.entries(&unwanted_again, REGION)["amiur-1"],
        days.entries(&wanted, REGION)["amiur-1"],
        "archived entries stay archived"
    );
}
