//! Whole runs, in process.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration as Wait;

use image_usage_auditor::audit::RunError;
use insta::{assert_compact_json_snapshot, assert_snapshot};
use local_aws::{
    CLASSIC_REGIONS, Call, Clock, Fault, FaultKind, FindingPolicy, LocalAws, Report, ResourceType,
    RoleOptions, SeedOptions, Tag, When, World, count_findings,
};
use serde_json::json;
use time::Duration;

use crate::harness::{
    ACCOUNT, Archive, But, ENTRIES, LATEST, LISTING, OTHER_REGION, REGION, RUN_ID, THREE_REGIONS,
    TWO_REGIONS, audit, auditor, checked, count_calls, healthy_reports, invocation, is_object_of,
    lasting_role, line_by_line, local_aws, now, report, run, run_within, scheduled_event, status,
    target, targets, text, without_attempts, world,
};

/// Three Regions that show every finding.
fn seeded_world() -> World {
    let world = world(&THREE_REGIONS);
    world.seed(&SeedOptions {
        regions: THREE_REGIONS.map(str::to_owned).to_vec(),
        ..SeedOptions::default()
    });
    world
}

#[tokio::test]
async fn a_scheduled_event_ends_in_a_snapshot_with_every_finding() {
    let world = seeded_world();
    let aws = local_aws(&world).await;
    let (summary, archive) = audit(&aws, &THREE_REGIONS.join(",")).await;
    let snapshot = checked(&aws, &summary);
    assert_eq!(snapshot["status"], "complete");
    assert_eq!(snapshot["run_id"], RUN_ID);
    let key = format!("image-usage/v1/snapshots/dt=2026-11-22/{RUN_ID}.json");
    assert_eq!(summary.snapshot.key, key);
    assert_eq!(snapshot["scheduled_at"], "2026-11-22T06:00:00Z");
    assert_eq!(snapshot["started_at"], "2026-11-22T06:00:05.250Z");
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for region in THREE_REGIONS {
        for (kind, count) in count_findings(&world, ACCOUNT, region, FindingPolicy::default()) {
            assert!(count > 0, "{region} has no {kind}");
            *expected.entry(kind.to_owned()).or_default() += count as u64;
        }
    }
    for (kind, count) in &expected {
        assert_eq!(snapshot["counts"]["findings"][kind], *count, "{kind}");
    }
    assert_eq!(archive.latest(), snapshot);
}

#[tokio::test]
async fn a_report_is_archived_field_by_field() {
    let world = world(&[REGION]);
    let templates = ResourceType::new("ec2:LaunchTemplate").option("version-depth", &["100"]);
    let full = Report {
        state_reason: Some("Something \"odd\" <happened> & more".to_owned()),
        resource_types: vec![templates],
        account_ids: vec!["222233334444".to_owned()],
        tags: vec![Tag::new("Owner", "TeamA"), Tag::new("Ärger", "\u{1f600}")],
        ..report("amiur-00b877d192f6b02d0")
            .in_state("error")
            .created_ago(Duration::days(28))
            .expiring_in(Duration::seconds(199_632))
    };
    world.put_report(ACCOUNT, REGION, full);
    let aws = local_aws(&world).await;
    let (summary, archive) = audit(&aws, REGION).await;
    let snapshot = archive.snapshot(&summary);
    let key = text(&target(&snapshot, REGION)["object"]["key"]);
    let folder = "image-usage/v1/reports/dt=2026-11-22/account_id=111122223333/region=us-east-1/";
    assert!(key.starts_with(folder), "{key}");
    assert!(is_object_of(key, RUN_ID), "{key}");
    let lines = archive.lines(key);
    assert_eq!(lines.len(), 1);
    assert_snapshot!(line_by_line(&lines[0]), @r#"
    account_id: "111122223333"
    creation_time: "2026-10-25T06:00:05.250Z"
    entries: {"status":"not_available"}
    expiration_time: "2026-11-24T13:27:17.250Z"
    findings: ["failed","expiring"]
    image_id: "ami-0abcdef1234567890"
    region: "us-east-1"
    report_id: "amiur-00b877d192f6b02d0"
    requested_account_ids: ["222233334444"]
    resource_types: [{"options":[{"name":"version-depth","values":["100"]}],"resource_type":"ec2:LaunchTemplate"}]
    state: "error"
    state_reason: "Something \"odd\" <happened> & more"
    tags: {"Owner":"TeamA","Ärger":"😀"}
    "#);
    assert_snapshot!(line_by_line(&snapshot["findings"][1]), @r#"
    account_id: "111122223333"
    creation_time: "2026-10-25T06:00:05.250Z"
    entries_archived: false
    expiration_time: "2026-11-24T13:27:17.250Z"
    expires_in_seconds: 199632
    id: "111122223333/us-east-1/amiur-00b877d192f6b02d0/expiring"
    image_id: "ami-0abcdef1234567890"
    kind: "expiring"
    message: "expires in 2 days 7 hours, at 2026-11-24T13:27:17Z"
    region: "us-east-1"
    report_id: "amiur-00b877d192f6b02d0"
    state: "error"
    state_reason: "Something \"odd\" <happened> & more"
    superseded_by: null
    tags: {"Owner":"TeamA","Ärger":"😀"}
    "#);
}

#[tokio::test]
async fn a_report_without_any_field_is_archived_with_nulls() {
    let world = world(&[REGION]);
    world.put_report(ACCOUNT, REGION, Report::default());
    let aws = local_aws(&world).await;
    let (summary, archive) = audit(&aws, REGION).await;
    let snapshot = checked(&aws, &summary);
    let lines = archive.report_lines(&snapshot, REGION);
    assert_eq!(lines.len(), 1);
    assert_snapshot!(line_by_line(&lines[0]), @r#"
    account_id: "111122223333"
    creation_time: null
    entries: {"status":"not_available"}
    expiration_time: null
    findings: ["unrecognised_state","undated"]
    image_id: null
    region: "us-east-1"
    report_id: null
    requested_account_ids: []
    resource_types: []
    state: null
    state_reason: null
    tags: {}
    "#);
}

#[tokio::test]
async fn the_snapshot_of_an_account_without_reports_is_complete_and_counts_nothing() {
    let aws = local_aws(&world(&[REGION])).await;
    let (summary, _) = audit(&aws, REGION).await;
    let snapshot = checked(&aws, &summary);
    assert_eq!(snapshot["status"], "complete");
    assert_eq!(snapshot["counts"]["reports"]["total"], 0);
    assert_eq!(snapshot["counts"]["findings"]["total"], 0);
    assert_eq!(target(&snapshot, REGION)["object"]["lines"], 0);
}

#[tokio::test]
async fn twenty_five_thousand_reports_of_one_region_are_each_archived_once() {
    let world = world(&[REGION]);
    world.put_reports(ACCOUNT, REGION, healthy_reports(25_000));
    let aws = local_aws(&world).await;
    let (summary, _) = audit(&aws, REGION).await;
    let snapshot = checked(&aws, &summary);
    assert_eq!(snapshot["status"], "complete");
    assert_eq!(target(&snapshot, REGION)["reports"], 25_000);
    assert_eq!(target(&snapshot, REGION)["pages"], 25);
    // None of them has entries, so each is looked up once more, 200 in a call.
    assert_eq!(count_calls(&aws, ENTRIES), 125);
    assert_eq!(count_calls(&aws, LISTING), 25 + 125);
}

#[tokio::test]
async fn all_regions_of_the_account_are_audited_and_each_report_archived_once() {
    let world = World::builder()
        .clock(Clock::fixed(now()))
        .account(ACCOUNT)
        .regions(CLASSIC_REGIONS)
        .disabled_region("ap-east-1")
        .build();
    world.seed(&SeedOptions {
        reports_per_region: 500,
        ..SeedOptions::default()
    });
    let aws = local_aws(&world).await;
    let (summary, _) = audit(&aws, "all").await;
    let snapshot = checked(&aws, &summary);
    assert_eq!(snapshot["status"], "complete");
    let regions: Vec<&str> = targets(&snapshot)
        .iter()
        .map(|target| text(&target["region"]))
        .collect();
    let mut expected = CLASSIC_REGIONS.to_vec();
    expected.sort();
    assert_eq!(regions, expected);
    assert_eq!(snapshot["counts"]["reports"]["total"], 17 * 500);
    assert_eq!(count_calls(&aws, "DescribeRegions"), 1);
}

#[tokio::test]
async fn a_denied_region_alone_makes_the_run_partial_and_the_ledger_says_why() {
    let [denied, throttled, failing] = THREE_REGIONS;
    let healthy = "us-west-2";
    let world = world(&[denied, throttled, failing, healthy]);
    for region in [denied, throttled, failing, healthy] {
        world.put_reports(ACCOUNT, region, healthy_reports(250));
    }
    let aws = local_aws(&world).await;
    let half = When::Probability { p: 0.5, seed: 7 };
    for (kind, region, when) in [
        (FaultKind::Denied, denied, When::Always),
        (FaultKind::TokenBucket, throttled, When::Always),
        (FaultKind::Status500, failing, half),
    ] {
        let fault = Fault::new(kind).on(LISTING).in_region(region);
        aws.faults().add(fault.when(when));
    }
    empty_token_bucket(&aws, throttled);
    let variables = [("AUDITOR_REGIONS", "all"), ("AUDITOR_PAGE_SIZE", "2")];
    let auditor = auditor(&aws, &variables).await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    assert_eq!(snapshot["status"], "partial");
    assert_compact_json_snapshot!(snapshot["counts"]["targets"], @r#"{"complete": 3, "failed": 1, "incomplete": 0, "skipped": 0}"#);
    assert_eq!(status(&snapshot, denied), "failed: UnauthorizedOperation");
    assert!(target(&snapshot, denied)["error"]["request_id"].is_string());
    let is_throttled = |call: &Call| call.region == throttled && call.status == Some(503);
    assert!(
        aws.calls().iter().any(is_throttled),
        "EC2's bucket was never empty"
    );
}

/// Empties EC2's token bucket for reading, so the next call is throttled, however slow the machine is.
fn empty_token_bucket(aws: &LocalAws, region: &str) {
    let address = aws.endpoint().replace("http://", "");
    let body = format!("Action={LISTING}&Version=2016-11-15&MaxResults=1");
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=AKIA{ACCOUNT}/20261122/{region}/ec2/aws4_request\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    for _ in 0..1_000 {
        let mut connection = TcpStream::connect(&address).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        answer.clear();
        connection.read_to_string(&mut answer).unwrap();
        if answer.starts_with("HTTP/1.1 503") {
            aws.clear_calls();
            return;
        }
    }
    panic!("a thousand calls did not empty the bucket: {answer}");
}

#[tokio::test]
async fn a_repeated_event_is_answered_from_the_archive_and_changes_no_object() {
    let world = world(&[REGION]);
    world.put_reports(ACCOUNT, REGION, healthy_reports(10));
    world.put_report(ACCOUNT, REGION, report("amiur-failed").in_state("error"));
    let aws = local_aws(&world).await;
    let (first, archive) = audit(&aws, REGION).await;
    let before = archive.objects();
    aws.clear_calls();
    world.put_report(ACCOUNT, REGION, report("amiur-new"));
    let (second, archive) = audit(&aws, REGION).await;
    assert!(!first.already_archived);
    assert!(second.already_archived);
    assert_eq!(second.snapshot, first.snapshot);
    assert_eq!(second.counts, first.counts);
    assert!(first.news.needs_attention);
    assert_eq!((&second.news, &second.page), (&first.news, &first.page));
    assert_eq!(archive.objects(), before);
    assert_eq!(count_calls(&aws, LISTING), 0);
    assert_eq!(count_calls(&aws, "PutObject"), 0);
}

#[tokio::test]
async fn a_retry_after_the_snapshot_was_written_makes_it_the_latest() {
    let world = world(&[REGION]);
    let aws = local_aws(&world).await;
    let denied = Fault::new(FaultKind::Denied).on("PutObject");
    aws.faults().add(denied.on_key("latest.json"));
    let auditor = auditor(&aws, &[]).await;
    let error = run(&auditor, scheduled_event()).await.unwrap_err();
    assert_eq!(error.error_type(), "ArchiveFailed");
    aws.faults().clear();
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    assert!(summary.already_archived);
    let archive = Archive::of(&aws);
    assert_eq!(archive.latest(), archive.snapshot(&summary));
}

#[tokio::test]
async fn a_snapshot_is_recognised_as_ones_own_if_the_response_of_its_write_was_lost() {
    let world = world(&[REGION]);
    let aws = local_aws(&world).await;
    let lost = Fault::new(FaultKind::CloseBeforeAnswer)
        .on("PutObject")
        .on_key("snapshots/");
    aws.faults().add(lost.when(When::Nth(0)).after_effect());
    let (summary, _) = audit(&aws, REGION).await;
    assert_eq!(aws.faults().injected(), 1);
    assert!(!summary.already_archived);
    checked(&aws, &summary);
}

#[tokio::test]
async fn an_earlier_run_does_not_move_the_latest_snapshot_back() {
    let world = world(&[REGION]);
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[]).await;
    let at = |time: &str| json!({"scheduled_at": time});
    let later = run(&auditor, at("2026-11-22T06:00:00Z")).await.unwrap();
    let earlier = run(&auditor, at("2026-11-21T06:00:00Z")).await.unwrap();
    let archive = Archive::of(&aws);
    assert_ne!(archive.snapshot(&later), archive.snapshot(&earlier));
    assert_eq!(archive.latest(), archive.snapshot(&later));
}

/// Everything that a run has archived, without times, attempts, and what depends on them.
fn reproducible_text(archive: &Archive, key: &str) -> String {
    let snapshot = archive.json(key);
    let written = String::from_utf8(archive.bytes(key)).unwrap();
    let mut document = without_attempts(&written).replace(text(&snapshot["finished_at"]), "…");
    // A line names the object of its entries, so the bytes of those of reports and AMIs differ too.
    for target in targets(&snapshot) {
        for object in [&target["object"], &target["images_object"]] {
            let size = format!("\"bytes\":{},", object["bytes"]);
            document = document.replace(text(&object["sha256"]), "…");
            document = document.replace(&size, "");
            for line in archive.lines(text(&object["key"])) {
                document += &without_attempts(&line.to_string());
            }
        }
    }
    document
}

#[tokio::test]
async fn two_runs_over_the_same_facts_differ_only_in_times_ids_and_attempts() {
    let world = seeded_world();
    let mut documents = Vec::new();
    for concurrency in ["1", "8"] {
        let aws = local_aws(&world).await;
        let variables = [
            ("AUDITOR_REGIONS", "all"),
            ("AUDITOR_MAX_CONCURRENT_TARGETS", concurrency),
        ];
        let auditor = auditor(&aws, &variables).await;
        let summary = run(&auditor, scheduled_event()).await.unwrap();
        documents.push(reproducible_text(&Archive::of(&aws), &summary.snapshot.key));
    }
    assert_eq!(documents[0], documents[1]);
}

#[tokio::test]
async fn a_scoped_run_says_so_and_never_becomes_the_latest() {
    let world = world(&TWO_REGIONS);
    world.put_report(ACCOUNT, OTHER_REGION, report("amiur-1"));
    world.put_report(ACCOUNT, REGION, report("amiur-2"));
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[]).await;
    let summary = run(&auditor, json!({"regions": ["eu-west-1"]}))
        .await
        .unwrap();
    let snapshot = checked(&aws, &summary);
    assert_compact_json_snapshot!(snapshot["scope"], @r#"{"account_ids": [], "filters": [], "full": false, "image_ids": [], "regions": ["eu-west-1"], "report_ids": []}"#);
    assert_eq!(targets(&snapshot).len(), 1);
    assert!(!Archive::of(&aws).objects().contains_key(LATEST));
}

#[tokio::test]
async fn filters_and_ids_are_passed_to_ec2() {
    let world = world(&[REGION]);
    let tagged = Report {
        tags: vec![Tag::new("Owner", "TeamA")],
        ..report("amiur-tagged").in_state("error")
    };
    world.put_report(ACCOUNT, REGION, tagged);
    world.put_reports(ACCOUNT, REGION, healthy_reports(5));
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[]).await;
    let by_filter = json!({"filters": [
        {"name": "state", "values": ["error", "pending"]}, {"name": "tag:Owner", "values": ["TeamA"]}
    ]});
    let by_id = json!({"report_ids": ["amiur-tagged"], "scheduled_at": "2026-11-22T07:00:00Z"});
    for payload in [by_filter, by_id] {
        let summary = run(&auditor, payload).await.unwrap();
        let archive = Archive::of(&aws);
        let snapshot = archive.snapshot(&summary);
        let lines = archive.report_lines(&snapshot, REGION);
        let ids: Vec<&str> = lines.iter().map(|line| text(&line["report_id"])).collect();
        assert_eq!(ids, ["amiur-tagged"]);
    }
}

#[tokio::test]
async fn more_than_two_hundred_ids_are_split_and_each_report_is_archived_once() {
    let world = world(&[REGION]);
    world.put_reports(ACCOUNT, REGION, healthy_reports(450));
    let aws = local_aws(&world).await;
    let mut ids: Vec<String> = healthy_reports(450)
        .filter_map(|report| report.report_id)
        .collect();
    ids.push(ids[0].clone());
    let without_entries = [("AUDITOR_ARCHIVE_ENTRIES", "false")];
    let auditor = auditor(&aws, &without_entries).await;
    let summary = run(&auditor, json!({"report_ids": ids})).await.unwrap();
    checked(&aws, &summary);
    assert_eq!(count_calls(&aws, LISTING), 3);
}

#[tokio::test]
async fn the_page_size_is_sent_and_left_out_if_ec2_refuses_it() {
    let world = world(&[REGION]);
    world.put_reports(ACCOUNT, REGION, healthy_reports(30));
    let aws = local_aws(&world).await;
    let own = auditor(&aws, &[]).await;
    let summary = run(&own, json!({"max_results": 7})).await.unwrap();
    assert_eq!(target(&checked(&aws, &summary), REGION)["pages"], 5);
    world.set_max_page_size(ACCOUNT, REGION, 10);
    let (summary, _) = audit(&aws, REGION).await;
    assert_eq!(checked(&aws, &summary)["status"], "complete");
}

/// A world in which one Region is not enabled for the account.
fn world_with_disabled_region() -> World {
    World::builder()
        .clock(Clock::fixed(now()))
        .account(ACCOUNT)
        .regions(TWO_REGIONS)
        .disabled_region("ap-east-1")
        .build()
}

#[tokio::test]
async fn a_preflight_asks_every_target_and_writes_nothing() {
    let aws = local_aws(&world_with_disabled_region()).await;
    let denied = Fault::new(FaultKind::Denied).on(LISTING);
    aws.faults().add(denied.in_region(OTHER_REGION));
    let variables = [("AUDITOR_REGIONS", "us-east-1,eu-west-1,ap-east-1")];
    let auditor = auditor(&aws, &variables).await;
    let answer = auditor.handle(json!({"dry_run": true}), invocation());
    let answer = serde_json::to_value(answer.await.unwrap()).unwrap();
    let permissions = targets(&answer).iter().map(|line| {
        let code = line["error"]["code"].as_str().unwrap_or_default();
        format!("{} {} {code}", text(&line["region"]), text(&line["status"]))
    });
    let permissions: Vec<String> = permissions.collect();
    assert_snapshot!(permissions.join("\n"), @"
    ap-east-1 failed AuthFailure
    eu-west-1 denied UnauthorizedOperation
    us-east-1 permitted
    ");
    assert!(Archive::of(&aws).objects().is_empty());
    let calls = aws.calls();
    let of_s3: Vec<&Call> = calls.iter().filter(|call| call.bucket.is_some()).collect();
    assert!(of_s3.is_empty(), "the bucket was accessed: {of_s3:?}");
}

#[tokio::test]
async fn a_region_that_is_not_enabled_is_skipped_and_one_whose_credentials_fail_is_not() {
    let aws = local_aws(&world_with_disabled_region()).await;
    let refused = Fault::new(FaultKind::AuthFailure).on(LISTING);
    aws.faults().add(refused.in_region(OTHER_REGION));
    let (summary, _) = audit(&aws, "us-east-1,eu-west-1,ap-east-1").await;
    let snapshot = checked(&aws, &summary);
    assert_eq!(status(&snapshot, "ap-east-1"), "skipped: AuthFailure");
    assert_eq!(status(&snapshot, OTHER_REGION), "failed: AuthFailure");
    assert_eq!(snapshot["status"], "partial");
    assert_eq!(count_calls(&aws, "DescribeRegions"), 1);
}

#[tokio::test]
async fn a_run_that_could_read_nothing_has_no_snapshot_and_fails() {
    let world = world(&TWO_REGIONS);
    let aws = local_aws(&world).await;
    aws.faults().add(Fault::new(FaultKind::Denied).on(LISTING));
    let auditor = auditor(&aws, &[("AUDITOR_REGIONS", "all")]).await;
    let error = run(&auditor, scheduled_event()).await.unwrap_err();
    assert_eq!(error.error_type(), "NoTargetAudited");
    assert!(matches!(error, RunError::NoTargetAudited { .. }));
    assert_snapshot!(error, @"no target could be audited: 111122223333/eu-west-1 and 1 more: UnauthorizedOperation: You are not authorized to perform this operation. User: arn:aws:iam::111122223333:user/local is not authorized to perform: ec2:DescribeImageUsageReports because no identity-based policy allows the ec2:DescribeImageUsageReports action");
    assert!(Archive::of(&aws).objects().is_empty());
}

#[tokio::test]
async fn a_run_stops_reading_in_time_to_archive_what_it_has() {
    let world = world(&TWO_REGIONS);
    for region in TWO_REGIONS {
        world.put_reports(ACCOUNT, region, healthy_reports(40));
    }
    let aws = local_aws(&world).await;
    let slow = Fault::new(FaultKind::Latency { milliseconds: 100 }).on(LISTING);
    aws.faults().add(slow.in_region(REGION));
    let variables = [("AUDITOR_REGIONS", "all"), ("AUDITOR_PAGE_SIZE", "1")];
    let auditor = auditor(&aws, &variables).await;
    let summary = run_within(&auditor, now(), Wait::from_secs(3)).await;
    let snapshot = checked(&aws, &summary.unwrap());
    assert_eq!(snapshot["status"], "partial");
    assert_eq!(status(&snapshot, OTHER_REGION), "complete");
    assert_eq!(status(&snapshot, REGION), "incomplete: DeadlineExceeded");
    assert_ne!(target(&snapshot, REGION)["reports"], 0);
}

#[tokio::test]
async fn other_accounts_are_audited_with_their_own_role() {
    let member = "222233334444";
    let world = World::builder()
        .clock(Clock::fixed(now()))
        .account(ACCOUNT)
        .account(member)
        .account("333344445555")
        .regions(["us-east-1"])
        .build();
    let role = RoleOptions {
        external_id: Some("shared-secret".to_owned()),
        ..lasting_role("auditor")
    };
    world.role(member, role);
    world.put_report(ACCOUNT, REGION, report("amiur-own"));
    world.put_report(member, "us-east-1", report("amiur-member"));
    let aws = local_aws(&world).await;
    let variables = [
        ("AUDITOR_ACCOUNTS", "111122223333,222233334444,333344445555"),
        ("AUDITOR_ROLE_NAME", "auditor"),
        ("AUDITOR_EXTERNAL_ID", "shared-secret"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    let statuses: Vec<&str> = targets(&snapshot)
        .iter()
        .map(|target| text(&target["status"]))
        .collect();
    assert_eq!(statuses, ["complete", "complete", "failed"]);
    assert_eq!(snapshot["targets"][2]["error"]["code"], "AccessDenied");
    assert_eq!(count_calls(&aws, "AssumeRole"), 2);
}
