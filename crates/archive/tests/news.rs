//! What a run tells people: the rules of the headline and of what needs attention.
#![expect(
    clippy::unwrap_used,
    reason = "a test that meets something else has failed"
)]

use image_usage_archive::documents::{MAX_ATTENTION, News, Snapshot};
use serde_json::{Value, json};

const TARGET: &str = "111122223333/us-east-1";

/// A snapshot of a complete full run of three targets, in which nothing has changed.
fn a_snapshot() -> Value {
    json!({
        "schema_version": 1,
        "run_id": "20261122T060000Z-7bf73129",
        "auditor": {"name": "image-usage-auditor", "version": "0.3.0"},
        "scope": {
            "full": true, "image_ids": [], "report_ids": [], "filters": [], "regions": [], "account_ids": []
        },
        "scheduled_at": "2026-11-22T06:00:00Z",
        "started_at": "2026-11-22T06:00:00Z",
        "finished_at": "2026-11-22T06:00:09Z",
        "policy": {"expiry_window_days": 7, "pending_limit_hours": 24},
        "previous": {"run_id": "20261121T060000Z-7bf73128", "key": "v1/snapshots/a", "sha256": "00"},
        "status": "complete",
        "targets": [],
        "counts": {
            "targets": {"complete": 3, "incomplete": 0, "failed": 0, "skipped": 1},
            "reports": {"total": 60, "available": 60, "pending": 0, "error": 0, "other": 0},
            "findings": {
                "total": 17, "unarchived": 0, "expiring": 0, "expired": 0, "failed": 0, "stuck": 0,
                "uncovered": 0, "unrecognised_state": 0, "undated": 0
            },
            "entries": {"archived": 0, "pending": 0, "not_available": 0, "failed": 0, "fetched": 0}
        },
        "findings": [],
        "findings_omitted": 0,
        "changes": {
            "findings": {"opened": 0, "continuing": 17, "resolved": 0, "unseen": 0},
            "opened": [], "opened_omitted": 0, "resolved": [], "resolved_omitted": 0,
            "reports": {"appeared": 0, "gone": 0, "gone_unarchived": 0, "changed_state": 0, "unseen": 0},
            "appeared": [], "appeared_omitted": 0, "gone": [], "gone_omitted": 0,
            "changed_state": [], "changed_state_omitted": 0,
            "verdicts": [], "verdicts_omitted": 0, "images_not_carried": [],
            "targets_added": [], "targets_removed": [], "targets_not_compared": []
        }
    })
}

fn finding(kind: &str, report_id: &str, message: &str) -> Value {
    json!({
        "id": format!("{TARGET}/{report_id}/{kind}"), "kind": kind, "account_id": "111122223333",
        "region": "us-east-1", "report_id": report_id, "image_id": "ami-1", "state": "available",
        "state_reason": null, "creation_time": null, "expiration_time": null, "tags": {},
        "expires_in_seconds": null, "entries_archived": null, "superseded_by": null, "message": message
    })
}

/// Adds findings, and says that they have opened.
fn open(snapshot: &mut Value, findings: impl IntoIterator<Item = Value>) {
    for finding in findings {
        let id = finding["id"].clone();
        snapshot["changes"]["opened"]
            .as_array_mut()
            .unwrap()
            .push(id);
        let opened = &mut snapshot["changes"]["findings"]["opened"];
        *opened = (opened.as_u64().unwrap() + 1).into();
        snapshot["findings"].as_array_mut().unwrap().push(finding);
    }
}

fn changed_verdict(image_id: &str) -> Value {
    json!({
        "account_id": "111122223333", "region": "us-east-1", "image_id": image_id,
        "from": "unknown", "to": "in_use"
    })
}

fn news(snapshot: &Value) -> News {
    News::of(&serde_json::from_value::<Snapshot>(snapshot.clone()).unwrap())
}

#[test]
fn a_complete_run_in_which_nothing_has_changed_needs_no_attention() {
    let told = news(&a_snapshot());
    assert_eq!(
        told.headline,
        "Complete run of 3 targets: 0 findings opened, 0 resolved, 0 verdicts changed."
    );
    assert!(!told.needs_attention);
    assert_eq!((told.attention.len(), told.attention_omitted), (0, 0));
}

#[test]
fn urgent_findings_that_opened_and_changed_verdicts_are_sentences_and_others_are_counts() {
    let mut snapshot = a_snapshot();
    let reason = "EC2 failed to create the report: InternalError";
    open(
        &mut snapshot,
        [
            finding("failed", "amiur-1", reason),
            finding("expiring", "amiur-2", "expires in 2 days 7 hours"),
        ],
    );
    // It was there before.
    let findings = snapshot["findings"].as_array_mut().unwrap();
    findings.push(finding("stuck", "amiur-3", "pending for 3 days 0 hours"));
    let mut uncovered = finding("uncovered", "ami-1", "EC2 lists no report about the AMI");
    uncovered["report_id"] = Value::Null;
    open(&mut snapshot, [uncovered]);
    snapshot["changes"]["findings"]["resolved"] = 5.into();
    snapshot["changes"]["verdicts"] = json!([changed_verdict("ami-2")]);
    let told = news(&snapshot);
    assert_eq!(
        told.headline,
        "Complete run of 3 targets: 3 findings opened, 5 resolved, 1 verdict changed; 3 need attention."
    );
    assert_eq!(
        told.attention,
        [
            "Failed: report amiur-1 about ami-1 in 111122223333/us-east-1: EC2 failed to create the report: InternalError.",
            "Uncovered: ami-1 in 111122223333/us-east-1: EC2 lists no report about the AMI.",
            "Verdict: ami-2 in 111122223333/us-east-1 changed from unknown to in_use.",
        ]
    );
    assert!(told.needs_attention);
    let changes = serde_json::to_value(told.changes).unwrap();
    assert_eq!(
        changes,
        json!({"opened": 3, "resolved": 5, "changed_verdicts": 1})
    );
}

#[test]
fn a_partial_run_says_so_first_and_always_needs_attention() {
    let mut snapshot = a_snapshot();
    snapshot["status"] = "partial".into();
    snapshot["counts"]["targets"] =
        json!({"complete": 49, "incomplete": 1, "failed": 1, "skipped": 9});
    let told = news(&snapshot);
    assert_eq!(
        told.headline,
        "Partial run: 2 of 51 targets were not read completely; 0 findings opened, 0 resolved, 0 verdicts changed."
    );
    assert!(told.needs_attention && told.attention.is_empty());
}

#[test]
fn a_run_without_an_earlier_one_tells_of_every_urgent_finding() {
    let mut snapshot = a_snapshot();
    snapshot["changes"] = Value::Null;
    snapshot["findings"] = json!([
        finding("unarchived", "amiur-1", "expires in 2 hours 0 minutes"),
        finding("expiring", "amiur-1", "expires in 2 hours 0 minutes"),
    ]);
    let told = news(&snapshot);
    assert_eq!(
        told.headline,
        "Complete run of 3 targets: 17 findings, compared with no earlier run; 1 needs attention."
    );
    assert_eq!(told.attention.len(), 1);
    assert_eq!(told.changes, None);
}

#[test]
fn a_scoped_run_says_so_and_only_what_it_could_not_read_needs_attention() {
    let mut snapshot = a_snapshot();
    snapshot["changes"] = Value::Null;
    snapshot["scope"]["full"] = false.into();
    snapshot["findings"] = json!([finding("failed", "amiur-1", "EC2 failed")]);
    let told = news(&snapshot);
    assert_eq!(
        told.headline,
        "Complete scoped run of 3 targets: 17 findings, compared with no earlier run."
    );
    assert!(!told.needs_attention && told.attention.is_empty());
    snapshot["status"] = "partial".into();
    snapshot["counts"]["targets"]["failed"] = 1.into();
    let told = news(&snapshot);
    assert_eq!(
        told.headline,
        "Partial scoped run: 1 of 4 targets was not read completely; 17 findings, compared with no earlier run."
    );
    assert!(told.needs_attention);
}

#[test]
fn a_finding_that_opened_is_told_although_the_snapshot_does_not_list_it() {
    let mut snapshot = a_snapshot();
    snapshot["changes"]["opened"] = json!([format!("{TARGET}/ami-1/uncovered")]);
    snapshot["changes"]["findings"]["opened"] = 1.into();
    assert_eq!(
        news(&snapshot).attention,
        [
            "Uncovered: 111122223333/us-east-1/ami-1/uncovered, which is not among the findings that the snapshot lists."
        ]
    );
}

#[test]
fn what_is_not_known_to_be_old_is_told() {
    let mut snapshot = a_snapshot();
    // The list of what opened ends before the second finding's ID, and omits some.
    snapshot["findings"] = json!([
        finding("failed", "amiur-1", "is old"),
        finding("failed", "amiur-3", "may have opened"),
    ]);
    snapshot["changes"]["opened"] = json!([format!("{TARGET}/amiur-2/expiring")]);
    snapshot["changes"]["opened_omitted"] = 1000.into();
    let told = news(&snapshot).attention;
    assert_eq!(
        told,
        [
            "Failed: report amiur-3 about ami-1 in 111122223333/us-east-1: may have opened.",
            "More: 1000 findings opened besides those that the snapshot lists.",
        ]
    );
    // The earlier objects of the target are lost.
    snapshot["changes"]["opened"] = json!([]);
    snapshot["changes"]["opened_omitted"] = 0.into();
    assert_eq!(news(&snapshot).attention.len(), 0);
    snapshot["changes"]["targets_not_compared"] = json!([TARGET]);
    assert_eq!(news(&snapshot).attention.len(), 2);
}

#[test]
fn attention_ends_after_twenty_sentences_and_counts_the_rest() {
    let mut snapshot = a_snapshot();
    let failed = |number| finding("failed", &format!("amiur-{number:03}"), "failed");
    open(&mut snapshot, (0..30).map(failed));
    snapshot["changes"]["verdicts"] = json!([changed_verdict("ami-1"), changed_verdict("ami-2")]);
    snapshot["changes"]["verdicts_omitted"] = 7.into();
    let told = news(&snapshot);
    assert_eq!(
        (told.attention.len(), told.attention_omitted),
        (MAX_ATTENTION, 19)
    );
    assert!(
        told.headline
            .ends_with("9 verdicts changed; 39 need attention.")
    );
}

#[test]
fn hostile_texts_stay_one_short_line_without_quotes_markup_or_controls() {
    let hostile = format!(
        "\"quoted\" back\\slash <!channel> <bucket>\r\nnext\u{2028}line\u{0}\u{202e}txt{}",
        "\u{10ffff}\"\\".repeat(100_000)
    );
    let mut snapshot = a_snapshot();
    let failed = |number| finding("failed", &format!("{number}{hostile}"), &hostile);
    open(&mut snapshot, (0..30).map(failed));
    snapshot["changes"]["verdicts"] = json!([changed_verdict(&hostile)]);
    // Not among the findings that are listed.
    let unlisted = json!(format!("{hostile}/stuck"));
    let opened = snapshot["changes"]["opened"].as_array_mut().unwrap();
    opened.push(unlisted);
    let told = news(&snapshot);
    let answer = serde_json::to_string(&told).unwrap();
    assert!(answer.len() < 16 * 1024, "{}", answer.len());
    assert!(!answer.contains('\\'), "something in it had to be escaped");
    assert!(
        told.attention[0]
            .starts_with("Failed: report 0'quoted' back/slash (!channel) (bucket)  next line  txt")
    );
    for sentence in &told.attention {
        assert!(!sentence.contains(['"', '<', '>']) && !sentence.contains(char::is_control));
    }
}
