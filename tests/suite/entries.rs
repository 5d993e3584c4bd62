//! The entries of reports, what is said of them, and what changed since the last run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration as Wait;

use image_usage_archive::domain::digest::hex;
use image_usage_auditor::audit::{Answer, Summary};
use local_aws::{Call, Entry, Fault, FaultKind, LocalAws, Page, Report, ResourceType, When, World};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use crate::harness::{
    ACCOUNT, Archive, BUCKET, auditor, event_at, expected_entries, healthy_reports, invocation_at,
    is_object_of, local_aws, now, overwrite, report, run, run_at, target, text, until,
    will_be_harmed, world,
};

const LISTING: &str = "DescribeImageUsageReports";
const ENTRIES: &str = "DescribeImageUsageReportEntries";
const LATEST: &str = "image-usage/v1/latest.json";
const REGION: &str = "us-east-1";
const OTHER_REGION: &str = "eu-west-1";

fn usage(account: &str, resource_type: &str, usage_count: i64) -> Entry {
    Entry {
        account_id: Some(account.to_owned()),
        resource_type: Some(resource_type.to_owned()),
        usage_count: Some(usage_count),
    }
}

/// A healthy report with so many entries.
fn used(id: &str, entries: usize) -> Report {
    let entries = (0..entries).map(|place| {
        let account = format!("{:012}", 444_455_556_666 + place);
        usage(&account, "ec2:Instance", 1 + place as i64)
    });
    Report {
        entries: entries.collect(),
        ..report(id)
    }
}

fn in_state(state: &str, mut report: Report) -> Report {
    report.state = Some(state.to_owned());
    report
}

fn expiring_in(left: Duration, mut report: Report) -> Report {
    report.expiration_time = Some(now() + left);
    report
}

/// A local AWS, and the auditor's days in it.
struct Days {
    world: World,
    aws: LocalAws,
    regions: String,
    /// The settings besides the bucket and the Regions.
    variables: Vec<(&'static str, &'static str)>,
}

impl Days {
    async fn of(regions: &[&str]) -> Self {
        let world = world(regions);
        let aws = local_aws(&world).await;
        Self {
            world,
            aws,
            regions: regions.join(","),
            variables: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    fn put(&self, region: &str, reports: impl IntoIterator<Item = Report>) {
        self.world.put_reports(ACCOUNT, region, reports);
    }

    fn delete(&self, region: &str, id: &str) {
        assert!(self.world.delete_report(ACCOUNT, region, id), "{id}");
    }

    fn archive(&self) -> Archive {
        Archive::of(&self.aws)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.aws.archive_root().join(BUCKET).join(key)
    }

    /// A run now; what it writes has to be true. The log of calls has those of this run after it.
    async fn run(&self) -> Value {
        let (_, snapshot) = self.answered_run().await;
        self.archive().check(&snapshot, &self.world);
        snapshot
    }

    async fn answered_run(&self) -> (Summary, Value) {
        self.aws.clear_calls();
        let mut variables = vec![("AUDITOR_REGIONS", self.regions.as_str())];
        variables.extend(&self.variables);
        let auditor = auditor(&self.aws, &variables).await;
        let summary = run_at(&auditor, self.world.clock().now()).await.unwrap();
        let snapshot = self.archive().snapshot(&summary);
        (summary, snapshot)
    }

    async fn next_day(&self) -> Value {
        self.world.clock().advance(Duration::DAY);
        self.run().await
    }

    /// The lines of a Region's reports, by report.
    fn lines(&self, snapshot: &Value, region: &str) -> BTreeMap<String, Value> {
        let key = text(&target(snapshot, region)["object"]["key"]);
        let lines = self.archive().lines(key).into_iter();
        lines
            .map(|line| (text(&line["report_id"]).to_owned(), line))
            .collect()
    }

    /// What is said of a Region's entries, by report.
    fn entries(&self, snapshot: &Value, region: &str) -> BTreeMap<String, Value> {
        let lines = self.lines(snapshot, region).into_iter();
        lines
            .map(|(id, line)| (id, line["entries"].clone()))
            .collect()
    }

    /// The report IDs of each call for entries, in the order of the calls.
    fn asked_for(&self) -> Vec<Vec<String>> {
        let calls = self.aws.calls();
        let calls = calls.iter().filter(|call| call.operation == ENTRIES);
        calls.map(report_ids).collect()
    }
}

fn report_ids(call: &Call) -> Vec<String> {
    let parameters = call.parameters.iter();
    let ids = parameters.filter(|(name, _)| name.starts_with("ReportId."));
    ids.map(|(_, id)| id.clone()).collect()
}

fn archived(entries: &BTreeMap<String, Value>) -> BTreeSet<&str> {
    let archived = entries
        .iter()
        .filter(|(_, entries)| entries["status"] == "archived");
    archived.map(|(id, _)| id.as_str()).collect()
}

fn pending(code: &str) -> Value {
    json!({"status": "pending", "code": code})
}

fn failed(code: &str) -> Value {
    json!({"status": "failed", "code": code})
}

/// The IDs of the findings of one kind that a snapshot lists, by report.
fn found(snapshot: &Value, kind: &str) -> Vec<String> {
    let findings = snapshot["findings"].as_array().unwrap().iter();
    let of_kind = findings.filter(|finding| finding["kind"] == kind);
    of_kind
        .map(|finding| text(&finding["report_id"]).to_owned())
        .collect()
}

// What is archived.

#[tokio::test]
async fn every_available_report_has_its_entries_archived_once_grouped_and_member_for_member() {
    for page_size in ["1", "2", "1000"] {
        let days = Days::of(&[REGION, OTHER_REGION])
            .await
            .with("AUDITOR_PAGE_SIZE", page_size);
        days.world.interleave_entries(true);
        for region in [REGION, OTHER_REGION] {
            let mut odd = used(&format!("amiur-{region}-odd"), 0);
            odd.entries = vec![
                Entry::default(),
                usage("444455556666", "ec2:LaunchTemplate", 0),
                usage("444455556666", "of:TheFuture", i64::MAX),
                usage("************", "ec2:Instance", -1),
            ];
            odd.image_id = None;
            odd.creation_time = None;
            odd.expiration_time = None;
            let reports = [3, 0, 1, 5].into_iter().enumerate();
            let reports =
                reports.map(|(place, count)| used(&format!("amiur-{region}-{place}"), count));
            days.put(region, reports.chain([odd]));
        }
        let snapshot = days.run().await;
        assert_eq!(
            snapshot["counts"]["entries"],
            json!({"archived": 10, "pending": 0, "not_available": 0, "failed": 0, "fetched": 10})
        );
        for region in [REGION, OTHER_REGION] {
            let ledger = target(&snapshot, region);
            let key = text(&ledger["entries_object"]["key"]);
            let folder = format!(
                "image-usage/v1/entries/dt=2026-11-22/account_id={ACCOUNT}/region={region}/"
            );
            assert!(
                key.starts_with(&folder) && is_object_of(key, text(&snapshot["run_id"])),
                "{key}"
            );
            // Three, one that tells of no usage, one, five and four.
            assert_eq!(ledger["entries_object"]["lines"], 14, "{page_size}");
            assert_eq!(ledger["earlier_objects"], json!([]));
        }
    }
}

#[tokio::test]
async fn an_entry_is_a_line_with_its_members_in_their_order() {
    let days = Days::of(&[REGION]).await;
    days.put(REGION, [used("amiur-1", 1), used("amiur-0", 0)]);
    let snapshot = days.run().await;
    let key = text(&target(&snapshot, REGION)["entries_object"]["key"]).to_owned();
    let mut written = String::new();
    let mut zipped = flate2::read::MultiGzDecoder::new(fs::File::open(days.path(&key)).unwrap());
    std::io::Read::read_to_string(&mut zipped, &mut written).unwrap();
    let start = |id: &str| {
        format!(
            "{{\"account_id\":\"{ACCOUNT}\",\"region\":\"{REGION}\",\"report_id\":\"{id}\",\
             \"image_id\":\"ami-0abcdef1234567890\",\"report_creation_time\":\"2026-11-12T06:00:05.250Z\","
        )
    };
    let mut lines: Vec<&str> = written.lines().collect();
    lines.sort_unstable();
    let none = "\"consumer_account_id\":null,\"resource_type\":null,\"usage_count\":0}";
    let one = "\"consumer_account_id\":\"444455556666\",\"resource_type\":\"ec2:Instance\",\"usage_count\":1}";
    assert_eq!(lines, [start("amiur-0") + none, start("amiur-1") + one]);
}

#[tokio::test]
async fn entries_are_never_asked_for_but_of_available_reports_by_their_ids() {
    let days = Days::of(&[REGION]).await;
    let mut stateless = used("amiur-stateless", 2);
    stateless.state = None;
    days.put(
        REGION,
        [
            used("amiur-available", 2),
            in_state("pending", used("amiur-pending", 2)),
            in_state("error", used("amiur-error", 2)),
            in_state("archived", used("amiur-odd", 2)),
            stateless,
        ],
    );
    let snapshot = days.run().await;
    assert_eq!(days.asked_for(), [["amiur-available"]]);
    for call in days.aws.calls() {
        assert_eq!(call.parameters.get("ImageId.1"), None, "{call:?}");
    }
    let entries = days.entries(&snapshot, REGION);
    assert_eq!(
        entries["amiur-pending"],
        json!({"status": "pending", "code": null})
    );
    for id in ["amiur-error", "amiur-odd", "amiur-stateless"] {
        assert_eq!(entries[id], json!({"status": "not_available"}), "{id}");
    }
    assert_eq!(
        snapshot["counts"]["entries"],
        json!({"archived": 1, "pending": 1, "not_available": 3, "failed": 0, "fetched": 1})
    );
}

#[tokio::test]
async fn a_call_names_at_most_200_reports_and_each_report_is_named_once() {
    let days = Days::of(&[REGION]).await;
    let ids = || (0..450).map(|number| format!("amiur-{number}"));
    days.put(REGION, ids().map(|id| used(&id, 1)));
    days.run().await;
    let asked = days.asked_for();
    let sizes: Vec<usize> = asked.iter().map(Vec::len).collect();
    assert_eq!(sizes, [200, 200, 50]);
    let named: BTreeSet<String> = asked.into_iter().flatten().collect();
    assert_eq!(named, ids().collect());
}

#[tokio::test]
async fn a_report_is_fetched_once_and_later_runs_say_where_its_entries_are() {
    let days = Days::of(&[REGION]).await;
    days.put(
        REGION,
        (0..5).map(|number| used(&format!("amiur-{number}"), number)),
    );
    let first = days.run().await;
    let entries = days.entries(&first, REGION);
    assert_eq!(archived(&entries).len(), 5);
    for day in 1..=3 {
        let later = days.next_day().await;
        assert_eq!(days.asked_for(), Vec::<Vec<String>>::new(), "day {day}");
        assert_eq!(days.entries(&later, REGION), entries, "day {day}");
        assert_eq!(target(&later, REGION)["entries_object"], Value::Null);
        assert_eq!(later["counts"]["entries"]["archived"], 5);
        assert_eq!(later["counts"]["entries"]["fetched"], 0);
    }
    days.put(REGION, [used("amiur-new", 3)]);
    let last = days.next_day().await;
    assert_eq!(days.asked_for(), [["amiur-new"]]);
    assert_eq!(last["counts"]["entries"]["archived"], 6);
    assert_eq!(last["counts"]["entries"]["fetched"], 1);
    let objects = days.archive().objects();
    let entry_objects = objects.keys().filter(|key| key.contains("/v1/entries/"));
    assert_eq!(entry_objects.count(), 2);
}

#[tokio::test]
async fn a_report_that_becomes_available_later_is_fetched_then() {
    let days = Days::of(&[REGION]).await;
    let mut late = in_state("pending", used("amiur-late", 2));
    late.transition = Some(local_aws::Transition {
        at: now() + Duration::hours(30),
        state: "available".to_owned(),
        state_reason: None,
    });
    days.put(REGION, [late]);
    days.run().await;
    days.next_day().await;
    assert_eq!(days.asked_for().len(), 0);
    let last = days.next_day().await;
    assert_eq!(days.asked_for(), [["amiur-late"]]);
    assert_eq!(
        last["changes"]["changed_state"],
        json!([{
            "account_id": ACCOUNT, "region": REGION, "report_id": "amiur-late",
            "image_id": "ami-0abcdef1234567890", "from": "pending", "to": "available"
        }])
    );
}

#[tokio::test]
async fn a_report_without_entries_is_one_line_that_says_that_no_usage_was_observed() {
    let days = Days::of(&[REGION]).await;
    days.put(REGION, [used("amiur-unused", 0)]);
    let snapshot = days.run().await;
    let entries = &days.entries(&snapshot, REGION)["amiur-unused"];
    assert_eq!(
        (&entries["status"], &entries["count"]),
        (&json!("archived"), &json!(0))
    );
    let lines = days.archive().lines(text(&entries["key"]));
    assert_eq!(
        lines,
        [json!({
            "account_id": ACCOUNT, "region": REGION, "report_id": "amiur-unused",
            "image_id": "ami-0abcdef1234567890", "report_creation_time": "2026-11-12T06:00:05.250Z",
            "consumer_account_id": null, "resource_type": null, "usage_count": 0
        })]
    );
}

#[tokio::test]
async fn an_available_report_without_an_id_can_not_be_asked_for_and_says_so() {
    let days = Days::of(&[REGION]).await;
    let mut unnamed = expiring_in(Duration::DAY, used("", 2));
    unnamed.report_id = None;
    days.put(REGION, [used("amiur-1", 1), unnamed]);
    let (_, snapshot) = days.answered_run().await;
    assert_eq!(days.asked_for(), [["amiur-1"]]);
    let lines = days
        .archive()
        .lines(text(&target(&snapshot, REGION)["object"]["key"]));
    assert_eq!(lines[1]["entries"], failed("UnnamedReport"));
    assert_eq!(lines[1]["findings"], json!(["unarchived", "expiring"]));
    assert_eq!(snapshot["counts"]["entries"]["failed"], 1);
}

// Deleted on the way.

/// Runs while a report is deleted after the first answer to `operation` was made, and before it comes.
async fn run_with_deletion_after(days: &Days, operation: &str, id: &str) -> Value {
    let late = FaultKind::Latency { milliseconds: 500 };
    let late = Fault::new(late).on(operation).when(When::Nth(0));
    let before = days.aws.faults().injected();
    days.aws.faults().add(late);
    let deletion = async {
        until(|| days.aws.faults().injected() > before).await;
        days.delete(REGION, id);
    };
    let ((_, snapshot), ()) = tokio::join!(days.answered_run(), deletion);
    days.aws.faults().clear();
    snapshot
}

fn lines_of(days: &Days, snapshot: &Value, id: &str) -> Vec<Value> {
    let object = &target(snapshot, REGION)["entries_object"];
    let lines = match object["key"].as_str() {
        Some(key) => days.archive().lines(key),
        None => Vec::new(),
    };
    lines
        .into_iter()
        .filter(|line| line["report_id"] == id)
        .collect()
}

#[tokio::test]
async fn a_report_deleted_between_listing_and_reading_is_told_as_deleted_and_never_as_unused() {
    for leaves_out in [false, true] {
        for others in [0, 3, 250] {
            let days = Days::of(&[REGION]).await;
            days.world.leave_out_unknown_reports(leaves_out);
            let other = |number: usize| used(&format!("amiur-{number}"), number % 3);
            days.put(REGION, (0..others).map(other));
            days.put(
                REGION,
                [expiring_in(Duration::HOUR, used("amiur-going", 2))],
            );
            let snapshot = run_with_deletion_after(&days, LISTING, "amiur-going").await;
            let told = format!("{leaves_out} {others}");
            let entries = days.entries(&snapshot, REGION);
            assert_eq!(entries["amiur-going"], failed("ReportDeleted"), "{told}");
            assert_eq!(archived(&entries).len(), others, "{told}");
            assert_eq!(lines_of(&days, &snapshot, "amiur-going"), [""; 0], "{told}");
            assert_eq!(found(&snapshot, "unarchived"), ["amiur-going"], "{told}");
            assert_eq!(target(&snapshot, REGION)["status"], "complete", "{told}");
            // The next run knows that it is gone, and that nobody kept it.
            let next = days.next_day().await;
            let going = json!([{
                "account_id": ACCOUNT, "region": REGION, "report_id": "amiur-going",
                "image_id": "ami-0abcdef1234567890", "archived": false
            }]);
            assert_eq!(next["changes"]["gone"], going, "{told}");
            assert_eq!(next["changes"]["reports"]["gone_unarchived"], 1, "{told}");
            assert_eq!(days.asked_for().len(), 0, "{told}");
        }
    }
}

#[tokio::test]
async fn a_report_deleted_between_two_pages_of_entries_is_not_kept_in_part() {
    for leaves_out in [false, true] {
        for interleaves in [false, true] {
            let days = Days::of(&[REGION]).await.with("AUDITOR_PAGE_SIZE", "2");
            days.world.leave_out_unknown_reports(leaves_out);
            days.world.interleave_entries(interleaves);
            let going = expiring_in(Duration::HOUR, used("amiur-going", 7));
            days.put(REGION, [going, used("amiur-1", 4), used("amiur-2", 5)]);
            let snapshot = run_with_deletion_after(&days, ENTRIES, "amiur-going").await;
            let told = format!("{leaves_out} {interleaves}");
            let entries = days.entries(&snapshot, REGION);
            assert_eq!(entries["amiur-going"], failed("ReportDeleted"), "{told}");
            assert_eq!(
                archived(&entries),
                BTreeSet::from(["amiur-1", "amiur-2"]),
                "{told}"
            );
            assert_eq!(lines_of(&days, &snapshot, "amiur-going"), [""; 0], "{told}");
            assert_eq!(lines_of(&days, &snapshot, "amiur-1").len(), 4, "{told}");
            assert_eq!(lines_of(&days, &snapshot, "amiur-2").len(), 5, "{told}");
        }
    }
}

// Time, and what goes wrong.

#[tokio::test]
async fn a_run_that_is_cut_short_has_kept_what_goes_first_and_the_next_one_keeps_the_rest() {
    let days = Days::of(&[REGION]).await;
    // In EC2's order the last ones go first.
    let expiring = |number: i64| {
        let left = Duration::days(20) - Duration::minutes(18 * number);
        expiring_in(left, used(&format!("amiur-{number:04}"), 1))
    };
    days.put(REGION, (0..1_400).map(expiring));
    let slow = FaultKind::Latency {
        milliseconds: 2_000,
    };
    days.aws.faults().add(Fault::new(slow).on(ENTRIES));
    let auditor = auditor(&days.aws, &[]).await;
    let time = days.world.clock().now();
    let mut invocation = invocation_at(time);
    invocation.time_left = Some(Wait::from_secs(12));
    let answer = auditor.handle(event_at(time), invocation).await.unwrap();
    let Answer::Summary(summary) = answer else {
        panic!("no summary")
    };
    days.aws.faults().clear();
    let snapshot = days.archive().snapshot(&summary);
    days.archive().check(&snapshot, &days.world);
    let entries = days.entries(&snapshot, REGION);
    let kept = archived(&entries).len();
    assert!((200..1_400).contains(&kept), "{kept}");
    for (number, (id, entries)) in entries.iter().enumerate() {
        match number < 1_400 - kept {
            true => assert_eq!(*entries, pending("DeadlineExceeded"), "{id}"),
            false => assert_eq!(entries["status"], "archived", "{id}"),
        }
    }
    // The listing was read to its end.
    assert_eq!(snapshot["status"], "complete");
    // Of what is left, a part goes within the window, and that is worth waking people for.
    let lines = days.lines(&snapshot, REGION);
    let unarchived = |line: &&Value| line["findings"][0] == "unarchived";
    let waking = lines.values().filter(unarchived).count();
    assert_eq!(snapshot["counts"]["findings"]["unarchived"], waking);

    let next = days.next_day().await;
    let asked: BTreeSet<String> = days.asked_for().into_iter().flatten().collect();
    let rest = entries.keys().take(1_400 - kept).cloned().collect();
    assert_eq!(asked, rest);
    assert_eq!(next["counts"]["entries"]["archived"], 1_400);
    assert_eq!(next["counts"]["findings"]["unarchived"], 0);
}

#[tokio::test]
async fn what_is_left_undone_within_the_window_is_the_most_urgent_finding() {
    let days = Days::of(&[REGION]).await;
    let expired = |mut report: Report| {
        report.deleted_at = Some(now() + Duration::DAY);
        report
    };
    days.put(
        REGION,
        [
            used("amiur-far", 1),
            expiring_in(Duration::days(7), used("amiur-edge", 1)),
            expiring_in(
                Duration::days(7) + Duration::SECOND,
                used("amiur-beyond", 1),
            ),
            expired(expiring_in(-Duration::HOUR, used("amiur-expired", 1))),
            expiring_in(Duration::DAY, in_state("error", used("amiur-error", 1))),
            expiring_in(Duration::DAY, in_state("pending", used("amiur-pending", 1))),
        ],
    );
    days.aws
        .faults()
        .add(Fault::new(FaultKind::Denied).on(ENTRIES));
    let snapshot = days.run().await;
    assert_eq!(target(&snapshot, REGION)["status"], "complete");
    assert_eq!(target(&snapshot, REGION)["error"], Value::Null);
    assert_eq!(snapshot["status"], "complete");
    let entries = days.entries(&snapshot, REGION);
    for id in ["amiur-far", "amiur-edge", "amiur-beyond", "amiur-expired"] {
        assert_eq!(entries[id], failed("UnauthorizedOperation"), "{id}");
    }
    let kinds: Vec<(&str, &str, &Value)> = snapshot["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            (
                text(&finding["kind"]),
                text(&finding["report_id"]),
                &finding["entries_archived"],
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [
            ("unarchived", "amiur-expired", &json!(false)),
            ("unarchived", "amiur-edge", &json!(false)),
            ("failed", "amiur-error", &Value::Null),
            ("expired", "amiur-expired", &json!(false)),
            ("expiring", "amiur-error", &json!(false)),
            ("expiring", "amiur-pending", &json!(false)),
            ("expiring", "amiur-edge", &json!(false)),
            ("stuck", "amiur-pending", &Value::Null),
        ]
    );
    let message = text(&snapshot["findings"][1]["message"]);
    assert!(message.contains("UnauthorizedOperation"), "{message}");
    assert_eq!(
        days.asked_for().len(),
        1,
        "a denial is no reason to ask again"
    );

    days.aws.faults().clear();
    let next = days.next_day().await;
    assert_eq!(next["counts"]["findings"]["unarchived"], 0);
    let found = next["findings"].as_array().unwrap().iter();
    let mut expiring = found.filter(|finding| finding["report_id"] == "amiur-edge");
    assert_eq!(expiring.next().unwrap()["entries_archived"], true);
    assert!(
        next["changes"]["resolved"]
            .as_array()
            .unwrap()
            .contains(&json!(format!("{ACCOUNT}/{REGION}/amiur-edge/unarchived")))
    );
}

fn poison(id: &str, status: u16) -> Fault {
    let kind = FaultKind::Error {
        status,
        code: "InternalFailure".to_owned(),
        message: "An internal error has occurred".to_owned(),
    };
    Fault::new(kind).on(ENTRIES).asking_for(id)
}

#[tokio::test]
async fn a_report_that_spoils_every_answer_it_is_in_costs_only_itself() {
    let days = Days::of(&[REGION]).await;
    let ids = || (0..450).map(|number| format!("amiur-{number:03}"));
    days.put(REGION, ids().map(|id| used(&id, 1)));
    // An answer that the SDK doesn't ask for again, so that the test doesn't wait.
    days.aws.faults().add(poison("amiur-217", 400));
    let snapshot = days.run().await;
    let entries = days.entries(&snapshot, REGION);
    assert_eq!(entries["amiur-217"], failed("InternalFailure"));
    assert_eq!(archived(&entries).len(), 449);
    assert_eq!(target(&snapshot, REGION)["status"], "complete");
    days.aws.faults().clear();
    let next = days.next_day().await;
    assert_eq!(days.asked_for(), [["amiur-217"]]);
    assert_eq!(next["counts"]["entries"]["archived"], 450);
}

#[tokio::test]
async fn a_report_for_which_ec2_fails_inside_costs_only_itself() {
    let days = Days::of(&[REGION]).await;
    days.put(REGION, [used("amiur-0", 1), used("amiur-1", 2)]);
    days.aws.faults().add(poison("amiur-1", 500));
    let snapshot = days.run().await;
    let entries = days.entries(&snapshot, REGION);
    assert_eq!(entries["amiur-1"], failed("InternalFailure"));
    assert_eq!(archived(&entries), BTreeSet::from(["amiur-0"]));
}

#[tokio::test]
async fn a_fault_that_passes_costs_no_entry() {
    let kinds = [
        FaultKind::Throttle,
        FaultKind::Status500,
        FaultKind::CloseBeforeAnswer,
        FaultKind::CutBody,
        FaultKind::MalformedXml,
        FaultKind::CData,
        FaultKind::UnknownMembersAndEntities,
        FaultKind::EmptyPage,
        FaultKind::EmptyToken,
        FaultKind::DuplicateReport,
        FaultKind::ExpireToken,
    ];
    for kind in kinds {
        for interleaves in [false, true] {
            let days = Days::of(&[REGION]).await.with("AUDITOR_PAGE_SIZE", "3");
            days.world.interleave_entries(interleaves);
            days.put(
                REGION,
                (0..5).map(|number| used(&format!("amiur-{number}"), number)),
            );
            // The first, a middle and the last of four pages.
            let when = match kind {
                FaultKind::EmptyToken => vec![When::Page(Page::Last)],
                FaultKind::ExpireToken => vec![When::Nth(0), When::Nth(2)],
                _ => vec![When::Nth(0), When::Nth(1), When::Nth(3)],
            };
            for when in when {
                days.aws
                    .faults()
                    .add(Fault::new(kind.clone()).on(ENTRIES).when(when));
                let before = days.aws.faults().injected();
                // What is known is forgotten, so that all is fetched again.
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
async fn without_the_wish_for_entries_nothing_is_asked_for_and_nothing_is_urgent() {
    let not_wanted = ("AUDITOR_ARCHIVE_ENTRIES", "false");
    let mut days = Days::of(&[REGION]).await;
    days.variables.push(not_wanted);
    days.put(
        REGION,
        [
            expiring_in(Duration::days(3), used("amiur-1", 1)),
            in_state("pending", used("amiur-2", 0)),
        ],
    );
    let snapshot = days.run().await;
    assert_eq!(days.asked_for().len(), 0);
    let entries = days.entries(&snapshot, REGION);
    assert_eq!(entries["amiur-1"], pending("EntriesNotWanted"));
    assert_eq!(
        entries["amiur-2"],
        json!({"status": "pending", "code": null})
    );
    assert_eq!(found(&snapshot, "unarchived"), [""; 0]);
    assert_eq!(snapshot["findings"][0]["entries_archived"], false);

    days.variables.clear();
    let wanted = days.next_day().await;
    assert_eq!(days.asked_for(), [["amiur-1"]]);
    days.variables.push(not_wanted);
    let not_wanted_again = days.next_day().await;
    assert_eq!(
        days.entries(&not_wanted_again, REGION)["amiur-1"],
        days.entries(&wanted, REGION)["amiur-1"],
        "what is archived stays archived"
    );
}

// What earlier runs said, lost.

/// Something done to the archive after a run, whose snapshot it is given.
type Harm<'a> = &'a dyn Fn(&Days, &Value);

/// Runs twice, with something done to the archive in between; tells of the second run.
async fn run_after_harm(harm: impl FnOnce(&Days, &Value)) -> (Days, Value) {
    let mut days = Days::of(&[REGION]).await;
    days.put(
        REGION,
        (0..4).map(|number| used(&format!("amiur-{number}"), number)),
    );
    will_be_harmed(&mut days.aws);
    let first = days.run().await;
    harm(&days, &first);
    let second = days.next_day().await;
    assert_eq!(second["status"], "complete");
    assert_eq!(second["counts"]["entries"]["archived"], 4);
    (days, second)
}

fn change_a_byte(days: &Days, key: &str) {
    let mut bytes = fs::read(days.path(key)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    overwrite(&days.aws, key, &bytes);
}

#[tokio::test]
async fn where_the_latest_snapshot_is_lost_or_damaged_all_entries_are_fetched_again() {
    let lost = |days: &Days, _: &Value| fs::remove_file(days.path(LATEST)).unwrap();
    let no_json = |days: &Days, _: &Value| overwrite(&days.aws, LATEST, b"{");
    let empty = |days: &Days, _: &Value| overwrite(&days.aws, LATEST, b"");
    let harms: [Harm<'_>; 3] = [&lost, &no_json, &empty];
    for (number, harm) in harms.into_iter().enumerate() {
        let (_, second) = run_after_harm(harm).await;
        assert_eq!(second["counts"]["entries"]["fetched"], 4, "{number}");
        assert_eq!(second["previous"], Value::Null, "{number}");
        assert_eq!(second["changes"], Value::Null, "{number}");
    }
}

#[tokio::test]
async fn where_the_lines_of_a_target_are_lost_or_damaged_its_entries_are_fetched_again() {
    let key = |first: &Value| text(&target(first, REGION)["object"]["key"]).to_owned();
    let lost = |days: &Days, first: &Value| fs::remove_file(days.path(&key(first))).unwrap();
    let changed = |days: &Days, first: &Value| change_a_byte(days, &key(first));
    let cut = |days: &Days, first: &Value| {
        let bytes = days.archive().bytes(&key(first));
        overwrite(&days.aws, &key(first), &bytes[..bytes.len() / 2]);
    };
    let harms: [Harm<'_>; 3] = [&lost, &changed, &cut];
    for (number, harm) in harms.into_iter().enumerate() {
        let (days, second) = run_after_harm(harm).await;
        assert_eq!(second["counts"]["entries"]["fetched"], 4, "{number}");
        let changes = &second["changes"];
        let not_compared = json!([format!("{ACCOUNT}/{REGION}")]);
        assert_eq!(changes["targets_not_compared"], not_compared, "{number}");
        for count in ["appeared", "gone", "changed_state", "unseen"] {
            assert_eq!(changes["reports"][count], 0, "{number} {count}");
        }
        // The run after that is as if nothing had been.
        let third = days.next_day().await;
        assert_eq!(third["counts"]["entries"]["fetched"], 0, "{number}");
        assert_eq!(third["changes"]["targets_not_compared"], json!([]));
    }
}

#[tokio::test]
async fn where_the_last_snapshot_is_lost_or_changed_no_entry_is() {
    let key = |first: &Value| {
        let run_id = text(&first["run_id"]);
        format!("image-usage/v1/snapshots/dt=2026-11-22/{run_id}.json")
    };
    let lost = |days: &Days, first: &Value| fs::remove_file(days.path(&key(first))).unwrap();
    let no_json = |days: &Days, first: &Value| overwrite(&days.aws, &key(first), b"{");
    let harms: [Harm<'_>; 2] = [&lost, &no_json];
    for harm in harms {
        let (days, second) = run_after_harm(harm).await;
        let expected: usize = (0..4).map(|number: usize| number.max(1)).sum();
        let fetched = second["counts"]["entries"]["fetched"] == 4;
        if fetched {
            let object = &target(&second, REGION)["entries_object"];
            assert_eq!(object["lines"], expected);
        }
        let entries = days.entries(&second, REGION);
        assert_eq!(archived(&entries).len(), 4);
    }
}

#[tokio::test]
async fn what_earlier_runs_said_is_read_again_where_the_reading_breaks_off() {
    for key in ["v1/reports/", "v1/snapshots/", "latest.json"] {
        for kind in [
            FaultKind::CutBody,
            FaultKind::ResetMidBody,
            FaultKind::Status500,
        ] {
            let days = Days::of(&[REGION]).await;
            days.put(
                REGION,
                (0..4).map(|number| used(&format!("amiur-{number}"), number)),
            );
            let first = days.run().await;
            // The run's own snapshot is looked for before, and isn't there.
            let fault = Fault::new(kind.clone()).on("GetObject").on_key(key);
            let number = u64::from(key.contains("snapshots"));
            days.aws.faults().add(fault.when(When::Nth(number)));
            let before = days.aws.faults().injected();
            let second = days.next_day().await;
            let told = format!("{kind:?} {key}");
            assert_ne!(days.aws.faults().injected(), before, "{told}");
            assert_eq!(second["previous"]["run_id"], first["run_id"], "{told}");
            assert_eq!(
                second["changes"]["targets_not_compared"],
                json!([]),
                "{told}"
            );
            assert_eq!(second["counts"]["entries"]["fetched"], 0, "{told}");
        }
    }
}

// Findings that matter.

/// One case of a report that is about to go and another one of the same AMI.
struct Pair {
    what: &'static str,
    older: Report,
    newer: Report,
    supersedes: bool,
}

fn pairs() -> Vec<Pair> {
    let older = || expiring_in(Duration::days(2), used("", 1));
    let newer = || Report {
        creation_time: Some(now() - Duration::days(3)),
        expiration_time: Some(now() + Duration::days(27)),
        ..used("", 1)
    };
    let of_accounts = |mut report: Report, accounts: &[&str]| {
        report.account_ids = accounts.iter().map(ToString::to_string).collect();
        report
    };
    let of_types = |mut report: Report, types: &[&str]| {
        report.resource_types = types.iter().map(|kind| ResourceType::new(*kind)).collect();
        report
    };
    let of_depth = |mut report: Report, depth: Option<&str>| {
        let kind = ResourceType::new("ec2:LaunchTemplate");
        report.resource_types = vec![match depth {
            Some(depth) => kind.option("version-depth", &[depth]),
            None => kind,
        }];
        report
    };
    let pair = |what, older, newer, supersedes| Pair {
        what,
        older,
        newer,
        supersedes,
    };
    let (a, b) = ("444455556666", "555566667777");
    let (instance, template) = ("ec2:Instance", "ec2:LaunchTemplate");
    let mut at_once = newer();
    at_once.creation_time = older().creation_time;
    let mut undated = newer();
    undated.creation_time = None;
    let mut later_but_older = newer();
    later_but_older.creation_time = Some(now() - Duration::days(11));
    vec![
        pair("available", older(), newer(), true),
        pair("pending", older(), in_state("pending", newer()), true),
        pair("error", older(), in_state("error", newer()), false),
        pair("odd state", older(), in_state("archived", newer()), false),
        pair("an older available one", older(), later_but_older, false),
        pair("made at the same moment", older(), at_once, false),
        pair("made nobody knows when", older(), undated, false),
        pair(
            "more accounts",
            of_accounts(older(), &[a]),
            of_accounts(newer(), &[b, a]),
            true,
        ),
        pair(
            "fewer accounts",
            of_accounts(older(), &[a, b]),
            of_accounts(newer(), &[a]),
            false,
        ),
        pair(
            "other accounts",
            of_accounts(older(), &[a]),
            of_accounts(newer(), &[b]),
            false,
        ),
        pair("all accounts", of_accounts(older(), &[a]), newer(), true),
        pair(
            "some of all accounts",
            older(),
            of_accounts(newer(), &[a, b]),
            false,
        ),
        pair(
            "more types",
            of_types(older(), &[instance]),
            of_types(newer(), &[template, instance]),
            true,
        ),
        pair(
            "fewer types",
            of_types(older(), &[instance, template]),
            of_types(newer(), &[instance]),
            false,
        ),
        pair(
            "other types",
            of_types(older(), &[instance]),
            of_types(newer(), &[template]),
            false,
        ),
        pair(
            "deeper",
            of_depth(older(), Some("50")),
            of_depth(newer(), Some("100")),
            true,
        ),
        pair(
            "as deep",
            of_depth(older(), Some("50")),
            of_depth(newer(), Some("50")),
            true,
        ),
        pair(
            "less deep",
            of_depth(older(), Some("100")),
            of_depth(newer(), Some("50")),
            false,
        ),
        pair(
            "deeper as text only",
            of_depth(older(), Some("100")),
            of_depth(newer(), Some("20")),
            false,
        ),
        pair(
            "as deep as unsaid",
            of_depth(older(), None),
            of_depth(newer(), Some("20")),
            true,
        ),
        pair(
            "less deep than unsaid",
            of_depth(older(), None),
            of_depth(newer(), Some("19")),
            false,
        ),
        pair(
            "unsaid, less deep",
            of_depth(older(), Some("21")),
            of_depth(newer(), None),
            false,
        ),
    ]
}

#[tokio::test]
async fn a_report_about_to_go_names_the_newer_one_that_tells_as_much() {
    let days = Days::of(&[REGION, OTHER_REGION]).await;
    let pairs = pairs();
    for (number, pair) in pairs.iter().enumerate() {
        let mut reports = [pair.newer.clone(), pair.older.clone()];
        for (report, name) in reports.iter_mut().zip(["newer", "older"]) {
            report.image_id = Some(format!("ami-{number}"));
            report.report_id = Some(format!("amiur-{name}-{number}"));
        }
        // EC2's order tells nothing.
        if number % 2 == 0 {
            reports.reverse();
        }
        days.put(REGION, reports);
    }
    let alone = Report {
        image_id: Some("ami-alone".to_owned()),
        ..expiring_in(Duration::days(2), used("amiur-alone", 1))
    };
    let elsewhere = Report {
        image_id: alone.image_id.clone(),
        creation_time: Some(now() - Duration::days(3)),
        ..used("amiur-elsewhere", 1)
    };
    days.put(REGION, [alone]);
    days.put(OTHER_REGION, [elsewhere]);
    let mut nameless = expiring_in(Duration::days(2), used("amiur-no-image-older", 1));
    nameless.image_id = None;
    let mut newer = used("amiur-no-image-newer", 1);
    newer.image_id = None;
    newer.creation_time = Some(now() - Duration::days(3));
    days.put(REGION, [nameless, newer]);

    let snapshot = days.run().await;
    let superseded_by: BTreeMap<&str, &Value> = snapshot["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["kind"] == "expiring")
        .map(|finding| (text(&finding["report_id"]), &finding["superseded_by"]))
        .collect();
    for (number, pair) in pairs.iter().enumerate() {
        let expected = match pair.supersedes {
            true => json!(format!("amiur-newer-{number}")),
            false => Value::Null,
        };
        let found = superseded_by[format!("amiur-older-{number}").as_str()];
        assert_eq!(*found, expected, "{}", pair.what);
    }
    assert_eq!(*superseded_by["amiur-alone"], Value::Null);
    assert_eq!(*superseded_by["amiur-no-image-older"], Value::Null);
    assert_eq!(superseded_by.len(), pairs.len() + 2);
}

#[tokio::test]
async fn of_several_newer_reports_an_available_one_is_named_and_not_a_pending_one() {
    let days = Days::of(&[REGION]).await;
    let made = |days_ago, report: Report| Report {
        creation_time: Some(now() - Duration::days(days_ago)),
        ..report
    };
    days.put(
        REGION,
        [
            made(1, in_state("pending", used("amiur-pending", 0))),
            made(2, in_state("error", used("amiur-error", 0))),
            made(5, used("amiur-available", 1)),
            expiring_in(Duration::DAY, used("amiur-old", 1)),
        ],
    );
    let snapshot = days.run().await;
    let findings = snapshot["findings"].as_array().unwrap().iter();
    let of_old: Vec<&Value> = findings
        .filter(|finding| finding["report_id"] == "amiur-old")
        .map(|finding| &finding["superseded_by"])
        .collect();
    assert_eq!(of_old, ["amiur-available"]);
}

// What changed.

#[tokio::test]
async fn each_snapshot_names_the_one_before_by_its_digest_and_the_latest_is_a_copy() {
    let days = Days::of(&[REGION]).await;
    days.put(REGION, [used("amiur-1", 1)]);
    let mut before = Value::Null;
    for _ in 0..4 {
        days.world.clock().advance(Duration::DAY);
        let (summary, snapshot) = days.answered_run().await;
        assert_eq!(snapshot["previous"], before);
        let bytes = days.archive().bytes(&summary.snapshot.key);
        assert_eq!(days.archive().bytes(LATEST), bytes);
        before = json!({
            "run_id": summary.run_id, "key": summary.snapshot.key, "sha256": hex(&Sha256::digest(&bytes))
        });
    }
}

#[tokio::test]
async fn changes_tell_what_opened_went_on_and_was_resolved_and_what_came_and_went() {
    let days = Days::of(&[REGION]).await;
    let image = "ami-0abcdef1234567890";
    days.put(
        REGION,
        [
            in_state("error", used("amiur-failed", 0)),
            expiring_in(Duration::hours(12), used("amiur-expires", 1)),
            expiring_in(
                Duration::days(7) + Duration::hours(1),
                used("amiur-soon", 1),
            ),
            in_state("error", used("amiur-deleted", 0)),
            used("amiur-healthy", 1),
        ],
    );
    let first = days.run().await;
    assert_eq!(first["changes"], Value::Null);
    days.delete(REGION, "amiur-deleted");
    days.put(REGION, [in_state("error", used("amiur-new", 0))]);
    let second = days.next_day().await;
    let id = |id: &str| format!("{ACCOUNT}/{REGION}/{id}");
    let gone = |id: &str, archived| json!({"account_id": ACCOUNT, "region": REGION, "report_id": id, "image_id": image, "archived": archived});
    assert_eq!(
        second["changes"],
        json!({
            "findings": {"opened": 2, "continuing": 1, "resolved": 2, "unseen": 0},
            "opened": [id("amiur-new/failed"), id("amiur-soon/expiring")], "opened_omitted": 0,
            "resolved": [id("amiur-deleted/failed"), id("amiur-expires/expiring")], "resolved_omitted": 0,
            "reports": {"appeared": 1, "gone": 2, "gone_unarchived": 0, "changed_state": 0, "unseen": 0},
            "appeared": [{
                "account_id": ACCOUNT, "region": REGION, "report_id": "amiur-new", "image_id": image, "state": "error"
            }],
            "appeared_omitted": 0,
            "gone": [gone("amiur-deleted", false), gone("amiur-expires", true)], "gone_omitted": 0,
            "changed_state": [], "changed_state_omitted": 0,
            "targets_added": [], "targets_removed": [], "targets_not_compared": []
        })
    );
    let third = days.next_day().await;
    let unchanged = json!({"opened": 0, "continuing": 3, "resolved": 0, "unseen": 0});
    assert_eq!(third["changes"]["findings"], unchanged);
}

#[tokio::test]
async fn a_region_that_could_not_be_read_resolves_nothing_and_is_compared_once_it_is_back() {
    let days = Days::of(&[REGION, OTHER_REGION]).await;
    for region in [REGION, OTHER_REGION] {
        days.put(
            region,
            [
                in_state("error", used("amiur-stays", 0)),
                in_state("error", used("amiur-goes", 0)),
                used("amiur-archived", 2),
            ],
        );
    }
    let first = days.run().await;
    let denied = Fault::new(FaultKind::Denied).in_region(OTHER_REGION);
    days.aws.faults().add(denied);
    for region in [REGION, OTHER_REGION] {
        days.delete(region, "amiur-goes");
        days.put(region, [in_state("error", used("amiur-comes", 0))]);
    }
    let known = target(&first, OTHER_REGION)["object"].clone();
    for day in 1..=3 {
        let dark = days.next_day().await;
        assert_eq!(target(&dark, OTHER_REGION)["status"], "failed");
        assert_eq!(
            target(&dark, OTHER_REGION)["earlier_objects"],
            json!([known])
        );
        let findings = match day {
            1 => json!({"opened": 1, "continuing": 1, "resolved": 1, "unseen": 2}),
            _ => json!({"opened": 0, "continuing": 2, "resolved": 0, "unseen": 2}),
        };
        assert_eq!(dark["changes"]["findings"], findings, "day {day}");
        let went = usize::from(day == 1);
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
    assert_eq!(
        back["changes"]["findings"],
        json!({"opened": 1, "continuing": 3, "resolved": 1, "unseen": 0})
    );
    let id = |id: &str| json!([format!("{ACCOUNT}/{OTHER_REGION}/{id}/failed")]);
    assert_eq!(back["changes"]["opened"], id("amiur-comes"));
    assert_eq!(back["changes"]["resolved"], id("amiur-goes"));
    // What was archived before it went dark is not fetched again.
    assert_eq!(days.asked_for().len(), 0);
}

#[tokio::test]
async fn a_target_that_broke_off_lets_go_of_nothing_and_is_compared_as_far_as_it_was_read() {
    let days = Days::of(&[REGION]).await.with("AUDITOR_PAGE_SIZE", "3");
    let ids: Vec<String> = (0..9).map(|number| format!("amiur-{number}")).collect();
    days.put(REGION, ids.iter().map(|id| in_state("error", used(id, 0))));
    let first = days.run().await;
    days.delete(REGION, "amiur-0");
    days.delete(REGION, "amiur-8");
    days.put(REGION, [used("amiur-new", 1)]);
    // Two pages come, and the last one of three doesn't.
    let broken = Fault::new(FaultKind::Denied).on(LISTING);
    days.aws.faults().add(broken.when(When::Page(Page::Last)));
    let broken = days.next_day().await;
    let ledger = target(&broken, REGION);
    assert_eq!(ledger["status"], "incomplete");
    assert_eq!(ledger["reports"], 6);
    assert_eq!(
        ledger["earlier_objects"],
        json!([target(&first, REGION)["object"]])
    );
    // The deleted two and the one that is on the page that didn't come.
    assert_eq!(
        broken["changes"]["findings"],
        json!({"opened": 0, "continuing": 6, "resolved": 0, "unseen": 3})
    );
    assert_eq!(
        broken["changes"]["reports"],
        json!({"appeared": 0, "gone": 0, "gone_unarchived": 0, "changed_state": 0, "unseen": 3})
    );
    let still_broken = days.next_day().await;
    assert_eq!(
        target(&still_broken, REGION)["earlier_objects"],
        json!([target(&first, REGION)["object"], ledger["object"]])
    );
    assert_eq!(still_broken["changes"]["findings"]["unseen"], 3);
    days.aws.faults().clear();
    let whole = days.next_day().await;
    assert_eq!(
        whole["changes"]["findings"],
        json!({"opened": 0, "continuing": 7, "resolved": 2, "unseen": 0})
    );
    assert_eq!(
        whole["changes"]["reports"],
        json!({"appeared": 1, "gone": 2, "gone_unarchived": 0, "changed_state": 0, "unseen": 0})
    );
    assert_eq!(days.asked_for(), [["amiur-new"]]);
}

#[tokio::test]
async fn entries_that_a_broken_off_target_has_fetched_are_not_fetched_again() {
    let days = Days::of(&[REGION]).await.with("AUDITOR_PAGE_SIZE", "3");
    days.put(
        REGION,
        (0..9).map(|number| used(&format!("amiur-{number}"), 1)),
    );
    let broken = Fault::new(FaultKind::Denied).on(LISTING);
    days.aws.faults().add(broken.when(When::Nth(2)));
    let broken = days.run().await;
    assert_eq!(target(&broken, REGION)["status"], "incomplete");
    assert_eq!(broken["counts"]["entries"]["fetched"], 6);
    days.aws.faults().clear();
    let whole = days.next_day().await;
    assert_eq!(whole["counts"]["entries"]["archived"], 9);
    assert_eq!(whole["counts"]["entries"]["fetched"], 3);
}

#[tokio::test]
async fn targets_that_are_new_or_no_longer_asked_for_are_named_and_lose_nothing() {
    let mut days = Days::of(&[REGION, OTHER_REGION]).await;
    for region in [REGION, OTHER_REGION] {
        days.put(
            region,
            [in_state("error", used("amiur-1", 0)), used("amiur-2", 1)],
        );
    }
    days.regions = REGION.to_owned();
    days.run().await;
    days.regions = format!("{REGION},{OTHER_REGION}");
    let more = days.next_day().await;
    let other = json!([format!("{ACCOUNT}/{OTHER_REGION}")]);
    assert_eq!(more["changes"]["targets_added"], other);
    assert_eq!(more["changes"]["targets_removed"], json!([]));
    assert_eq!(more["changes"]["targets_not_compared"], json!([]));
    assert_eq!(more["changes"]["findings"]["opened"], 1);
    assert_eq!(more["changes"]["reports"]["appeared"], 2);
    days.regions = REGION.to_owned();
    let fewer = days.next_day().await;
    assert_eq!(fewer["changes"]["targets_added"], json!([]));
    assert_eq!(fewer["changes"]["targets_removed"], other);
    assert_eq!(
        fewer["changes"]["findings"],
        json!({"opened": 0, "continuing": 1, "resolved": 0, "unseen": 0})
    );
    assert_eq!(fewer["changes"]["reports"]["gone"], 0);
}

#[tokio::test]
async fn lists_of_changes_hold_a_thousand_in_order_and_count_the_rest() {
    let days = Days::of(&[REGION]).await;
    let failed_report = |number: usize| in_state("error", used(&format!("amiur-{number:04}"), 0));
    days.put(REGION, [used("amiur-before", 1)]);
    days.run().await;
    days.put(REGION, (0..1_100).rev().map(failed_report));
    let many = days.next_day().await;
    for number in 0..1_100 {
        days.delete(REGION, &format!("amiur-{number:04}"));
    }
    let none = days.next_day().await;
    for (changes, findings, reports, what) in [
        (&many["changes"], "opened", "appeared", "came"),
        (&none["changes"], "resolved", "gone", "went"),
    ] {
        assert_eq!(changes["findings"][findings], 1_100, "{what}");
        assert_eq!(changes["reports"][reports], 1_100, "{what}");
        for list in [findings, reports] {
            assert_eq!(changes[format!("{list}_omitted")], 100, "{what}");
            assert_eq!(changes[list].as_array().unwrap().len(), 1_000, "{what}");
        }
        for number in 0..1_000 {
            let id = format!("amiur-{number:04}");
            assert_eq!(
                changes[findings][number],
                format!("{ACCOUNT}/{REGION}/{id}/failed")
            );
            assert_eq!(changes[reports][number]["report_id"], id);
        }
    }
}

#[tokio::test]
async fn a_scoped_run_neither_compares_nor_is_compared_with() {
    let days = Days::of(&[REGION, OTHER_REGION]).await;
    for region in [REGION, OTHER_REGION] {
        days.put(
            region,
            [in_state("error", used("amiur-1", 0)), used("amiur-2", 1)],
        );
    }
    let first = days.run().await;
    days.world.clock().advance(Duration::HOUR);
    let latest = days.archive().bytes(LATEST);
    days.aws.clear_calls();
    let scoped_auditor = auditor(&days.aws, &[]).await;
    let scoped = run(
        &scoped_auditor,
        json!({"regions": [OTHER_REGION], "scheduled_at": "2026-11-22T07:00:00Z"}),
    );
    let scoped = days.archive().snapshot(&scoped.await.unwrap());
    days.archive().check(&scoped, &days.world);
    assert_eq!(scoped["previous"], Value::Null);
    assert_eq!(scoped["changes"], Value::Null);
    assert_eq!(days.archive().bytes(LATEST), latest);
    assert_eq!(days.asked_for().len(), 0, "what is archived is known");
    let next = days.next_day().await;
    assert_eq!(next["previous"]["run_id"], first["run_id"]);
    assert_eq!(
        next["changes"]["findings"],
        json!({"opened": 0, "continuing": 2, "resolved": 0, "unseen": 0})
    );
    assert_eq!(next["changes"]["targets_removed"], json!([]));
}

#[tokio::test]
async fn entries_that_a_scoped_run_was_the_first_to_fetch_are_fetched_again_and_are_the_same() {
    let days = Days::of(&[REGION]).await;
    days.run().await;
    days.put(REGION, [used("amiur-new", 2)]);
    days.world.clock().advance(Duration::HOUR);
    let auditor = auditor(&days.aws, &[]).await;
    let scoped = run(&auditor, json!({"report_ids": ["amiur-new"]}));
    let scoped = days.archive().snapshot(&scoped.await.unwrap());
    // Nobody follows a scoped run, and so nobody knows what it has fetched.
    let full = days.next_day().await;
    assert_eq!(full["counts"]["entries"]["fetched"], 1);
    let lines = |snapshot: &Value| {
        let key = text(&target(snapshot, REGION)["entries_object"]["key"]).to_owned();
        days.archive().lines(&key)
    };
    assert_eq!(lines(&scoped), lines(&full));
}

#[tokio::test]
async fn a_run_that_comes_late_follows_the_latest_and_nobody_follows_it() {
    let days = Days::of(&[REGION]).await;
    days.put(REGION, [used("amiur-1", 1)]);
    let first = days.run().await;
    let second = days.next_day().await;
    let auditor = auditor(&days.aws, &[]).await;
    let late = run_at(&auditor, now() + Duration::hours(3)).await.unwrap();
    let late = days.archive().snapshot(&late);
    days.archive().check(&late, &days.world);
    assert_eq!(late["previous"]["run_id"], second["run_id"]);
    assert_eq!(days.archive().json(LATEST), second);
    let third = days.next_day().await;
    assert_eq!(third["previous"]["run_id"], second["run_id"]);
    assert_eq!(third["counts"]["entries"]["fetched"], 0);
    assert_eq!(second["previous"]["run_id"], first["run_id"]);
}

#[tokio::test]
async fn a_run_that_is_killed_before_it_became_the_latest_and_never_comes_back_is_followed_by_nobody()
 {
    let days = Days::of(&[REGION]).await;
    days.put(REGION, [used("amiur-1", 1)]);
    let first = days.run().await;
    days.put(REGION, [used("amiur-2", 2)]);
    let refused = Fault::new(FaultKind::Denied)
        .on("PutObject")
        .on_key("latest.json");
    days.aws.faults().add(refused);
    days.world.clock().advance(Duration::DAY);
    let auditor = auditor(&days.aws, &[("AUDITOR_REGIONS", REGION)]).await;
    run_at(&auditor, days.world.clock().now())
        .await
        .unwrap_err();
    days.aws.faults().clear();
    let third = days.next_day().await;
    assert_eq!(third["previous"]["run_id"], first["run_id"]);
    // More work, never less evidence.
    assert_eq!(third["counts"]["entries"]["archived"], 2);
    assert_eq!(third["changes"]["reports"]["appeared"], 1);
}

// Attempts at one run.

#[tokio::test]
async fn an_attempt_archives_the_entries_itself_whatever_an_attempt_that_died_has_archived() {
    let days = Days::of(&[REGION]).await;
    let expiring = |id: &str| expiring_in(Duration::days(3), used(id, 2));
    days.put(REGION, ["amiur-stays", "amiur-goes"].map(expiring));
    // The first attempt dies with its entries archived, and nothing else.
    let refused = Fault::new(FaultKind::Status503);
    days.aws
        .faults()
        .add(refused.on("PutObject").on_key("v1/reports/"));
    let auditor = auditor(&days.aws, &[]).await;
    let time = days.world.clock().now();
    tokio::select! {
        outcome = run_at(&auditor, time) => panic!("it was to die: {outcome:?}"),
        () = until(|| days.aws.faults().injected() > 0) => {}
    }
    days.aws.faults().clear();
    let objects = days.archive().objects();
    let there: Vec<&String> = objects.keys().collect();
    assert!(
        matches!(there[..], [key] if key.contains("/v1/entries/")),
        "{there:?}"
    );
    days.delete(REGION, "amiur-goes");
    days.put(REGION, [expiring("amiur-comes")]);

    let (_, snapshot) = days.answered_run().await;
    let entries = days.entries(&snapshot, REGION);
    let object = &target(&snapshot, REGION)["entries_object"];
    assert_ne!(object["key"], *there[0]);
    for id in ["amiur-stays", "amiur-comes"] {
        let archived = json!({
            "status": "archived", "key": object["key"], "run_id": snapshot["run_id"], "count": 2
        });
        assert_eq!(entries[id], archived);
    }
    assert_eq!(object["lines"], 4);
    let after = days.archive().objects();
    assert_eq!(after[there[0]], objects[there[0]], "it was changed");
    days.next_day().await;
    assert_eq!(days.asked_for(), [[""; 0]; 0]);
}

#[tokio::test]
async fn entries_that_the_archive_refuses_cost_the_target_and_not_the_truth() {
    let days = Days::of(&[REGION, OTHER_REGION]).await;
    for region in [REGION, OTHER_REGION] {
        days.put(region, [used("amiur-1", 1)]);
    }
    let refused = Fault::new(FaultKind::Denied).on("PutObject");
    let key = format!("v1/entries/dt=2026-11-22/account_id={ACCOUNT}/region={OTHER_REGION}");
    days.aws.faults().add(refused.on_key(&key));
    let (_, snapshot) = days.answered_run().await;
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

#[tokio::test]
async fn a_listing_of_many_reports_costs_no_entry_twice() {
    let days = Days::of(&[REGION]).await;
    days.put(REGION, healthy_reports(1_000));
    let snapshot = days.run().await;
    let object = &target(&snapshot, REGION)["entries_object"];
    assert_eq!(object["lines"], 1_000);
    let held = days.world.reports(ACCOUNT, REGION);
    let expected: BTreeSet<String> = held
        .iter()
        .flat_map(|report| expected_entries(ACCOUNT, REGION, report))
        .map(|line| line.to_string())
        .collect();
    let lines = days.archive().lines(text(&object["key"]));
    let lines: BTreeSet<String> = lines.iter().map(Value::to_string).collect();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn the_moment_of_a_run_is_the_one_that_the_findings_go_by() {
    let days = Days::of(&[REGION]).await;
    let moment: OffsetDateTime = now() + Duration::days(13);
    days.put(REGION, [used("amiur-1", 1)]);
    days.run().await;
    days.world.clock().set(moment - Duration::SECOND);
    let before = days.run().await;
    assert_eq!(found(&before, "expiring"), [""; 0]);
    days.world.clock().set(moment);
    let after = days.run().await;
    assert_eq!(found(&after, "expiring"), ["amiur-1"]);
    assert_eq!(after["findings"][0]["entries_archived"], true);
    assert_eq!(
        after["changes"]["opened"],
        json!([format!("{ACCOUNT}/{REGION}/amiur-1/expiring")])
    );
}
