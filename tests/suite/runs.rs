//! Whole runs, in process.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use image_usage_auditor::audit::Permission;
use image_usage_auditor::audit::{Answer, RunError};
use local_aws::{
    CLASSIC_REGIONS, Call, Fault, FaultKind, FindingPolicy, LocalAws, Report, ResourceType,
    SeedOptions, Tag, When, World, count_findings,
};
use serde_json::json;
use time::Duration;

use crate::harness::{
    ACCOUNT, Archive, audit, auditor, count_calls, healthy_reports, invocation, is_object_of,
    local_aws, now, report, run, scheduled_event, target, text, without_attempts, world,
};

const LISTING: &str = "DescribeImageUsageReports";
const ENTRIES: &str = "DescribeImageUsageReportEntries";

#[tokio::test]
async fn a_scheduled_event_ends_in_a_snapshot_with_every_finding() {
    let regions = ["ap-southeast-2", "eu-west-1", "us-east-1"];
    let world = world(&regions);
    world.seed(&SeedOptions {
        regions: regions.map(str::to_owned).to_vec(),
        ..SeedOptions::default()
    });
    let aws = local_aws(&world).await;
    let (summary, archive) = audit(&aws, "us-east-1,eu-west-1,ap-southeast-2").await;
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    assert_eq!(snapshot["status"], "complete");
    assert_eq!(snapshot["run_id"], "20261122T060000Z-7bf73129");
    assert_eq!(
        summary.snapshot.key,
        "image-usage/v1/snapshots/dt=2026-11-22/20261122T060000Z-7bf73129.json"
    );
    assert_eq!(snapshot["scheduled_at"], "2026-11-22T06:00:00Z");
    assert_eq!(snapshot["started_at"], "2026-11-22T06:00:05.250Z");
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for region in regions {
        for (kind, count) in count_findings(&world, ACCOUNT, region, FindingPolicy::default()) {
            assert!(count > 0, "{region} has no {kind}");
            *expected.entry(kind.to_owned()).or_default() += count as u64;
        }
    }
    for (kind, count) in &expected {
        assert_eq!(snapshot["counts"]["findings"][kind], *count, "{kind}");
    }
    assert_eq!(archive.json("image-usage/v1/latest.json"), snapshot);
}

#[tokio::test]
async fn a_report_is_archived_member_for_member() {
    let world = world(&["us-east-1"]);
    let mut full = report("amiur-00b877d192f6b02d0");
    full.state = Some("error".to_owned());
    full.state_reason = Some("Something \"odd\" <happened> & more".to_owned());
    full.creation_time = Some(now() - Duration::days(28));
    full.expiration_time = Some(now() + Duration::seconds(199_632));
    full.resource_types =
        vec![ResourceType::new("ec2:LaunchTemplate").option("version-depth", &["100"])];
    full.account_ids = vec!["222233334444".to_owned()];
    full.tags = vec![Tag::new("Owner", "TeamA"), Tag::new("Ärger", "\u{1f600}")];
    world.put_report(ACCOUNT, "us-east-1", full);
    let aws = local_aws(&world).await;
    let (summary, archive) = audit(&aws, "us-east-1").await;
    let snapshot = archive.snapshot(&summary);
    let object = &target(&snapshot, "us-east-1")["object"];
    let key = text(&object["key"]);
    let folder = "image-usage/v1/reports/dt=2026-11-22/account_id=111122223333/region=us-east-1/";
    assert!(
        key.starts_with(folder) && is_object_of(key, "20261122T060000Z-7bf73129"),
        "{key}"
    );
    let expected = json!({
        "account_id": ACCOUNT, "region": "us-east-1", "report_id": "amiur-00b877d192f6b02d0",
        "image_id": "ami-0abcdef1234567890", "state": "error",
        "state_reason": "Something \"odd\" <happened> & more",
        "creation_time": "2026-10-25T06:00:05.250Z", "expiration_time": "2026-11-24T13:27:17.250Z",
        "resource_types": [
            {"resource_type": "ec2:LaunchTemplate", "options": [{"name": "version-depth", "values": ["100"]}]}
        ],
        "requested_account_ids": ["222233334444"], "tags": {"Owner": "TeamA", "Ärger": "\u{1f600}"},
        "findings": ["failed", "expiring"], "entries": {"status": "not_available"}
    });
    assert_eq!(archive.lines(key), [expected]);
    let finding = &snapshot["findings"][1];
    assert_eq!(
        finding["id"],
        "111122223333/us-east-1/amiur-00b877d192f6b02d0/expiring"
    );
    assert_eq!(finding["expires_in_seconds"], 199_632);
    assert_eq!(
        finding["message"],
        "expires in 2 days 7 hours, at 2026-11-24T13:27:17Z"
    );
}

#[tokio::test]
async fn a_report_of_which_ec2_tells_nothing_is_archived_with_nulls() {
    let world = world(&["us-east-1"]);
    world.put_report(ACCOUNT, "us-east-1", Report::default());
    let aws = local_aws(&world).await;
    let (summary, archive) = audit(&aws, "us-east-1").await;
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    let expected = json!({
        "account_id": ACCOUNT, "region": "us-east-1", "report_id": null, "image_id": null, "state": null,
        "state_reason": null, "creation_time": null, "expiration_time": null, "resource_types": [],
        "requested_account_ids": [], "tags": {}, "findings": ["unrecognised_state", "undated"],
        "entries": {"status": "not_available"}
    });
    assert_eq!(
        archive.lines(text(&target(&snapshot, "us-east-1")["object"]["key"])),
        [expected]
    );
}

#[tokio::test]
async fn the_snapshot_of_an_account_without_reports_is_complete_and_counts_nothing() {
    let world = world(&["us-east-1"]);
    let aws = local_aws(&world).await;
    let (summary, archive) = audit(&aws, "us-east-1").await;
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    assert_eq!(snapshot["status"], "complete");
    assert_eq!(snapshot["counts"]["reports"]["total"], 0);
    assert_eq!(snapshot["counts"]["findings"]["total"], 0);
    assert_eq!(target(&snapshot, "us-east-1")["object"]["lines"], 0);
}

#[tokio::test]
async fn twenty_five_thousand_reports_of_one_region_are_each_archived_once() {
    let world = world(&["us-east-1"]);
    world.put_reports(ACCOUNT, "us-east-1", healthy_reports(25_000));
    let aws = local_aws(&world).await;
    let (summary, archive) = audit(&aws, "us-east-1").await;
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    assert_eq!(snapshot["status"], "complete");
    assert_eq!(target(&snapshot, "us-east-1")["reports"], 25_000);
    assert_eq!(target(&snapshot, "us-east-1")["pages"], 25);
    // None of them has entries, so that EC2 is asked for each once more, 200 at a time.
    assert_eq!(count_calls(&aws, ENTRIES), 125);
    assert_eq!(count_calls(&aws, LISTING), 25 + 125);
}

#[tokio::test]
async fn all_regions_of_the_account_are_audited_and_each_report_archived_once() {
    let world = World::builder()
        .clock(local_aws::Clock::fixed(now()))
        .account(ACCOUNT)
        .regions(CLASSIC_REGIONS)
        .disabled_region("ap-east-1")
        .build();
    world.seed(&SeedOptions {
        reports_per_region: 500,
        ..SeedOptions::default()
    });
    let aws = local_aws(&world).await;
    let (summary, archive) = audit(&aws, "all").await;
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    assert_eq!(snapshot["status"], "complete");
    let regions: Vec<&str> = snapshot["targets"]
        .as_array()
        .unwrap()
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
    let regions = ["ap-southeast-2", "eu-west-1", "us-east-1", "us-west-2"];
    let world = world(&regions);
    for region in regions {
        world.put_reports(ACCOUNT, region, healthy_reports(250));
    }
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::Denied)
            .on(LISTING)
            .in_region("ap-southeast-2"),
    );
    aws.faults().add(
        Fault::new(FaultKind::TokenBucket)
            .on(LISTING)
            .in_region("eu-west-1"),
    );
    let half = When::Probability { p: 0.5, seed: 7 };
    aws.faults().add(
        Fault::new(FaultKind::Status500)
            .on(LISTING)
            .in_region("us-east-1")
            .when(half),
    );
    empty_token_bucket(&aws, "eu-west-1");
    let variables = [
        (
            "AUDITOR_REGIONS",
            "ap-southeast-2,eu-west-1,us-east-1,us-west-2",
        ),
        ("AUDITOR_PAGE_SIZE", "2"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    let archive = Archive::of(&aws);
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    assert_eq!(snapshot["status"], "partial");
    assert_eq!(
        snapshot["counts"]["targets"],
        json!({"complete": 3, "incomplete": 0, "failed": 1, "skipped": 0})
    );
    let denied = target(&snapshot, "ap-southeast-2");
    assert_eq!(denied["status"], "failed");
    assert_eq!(denied["error"]["code"], "UnauthorizedOperation");
    assert!(denied["error"]["request_id"].is_string());
    let throttled = |call: &Call| call.region == "eu-west-1" && call.status == Some(503);
    assert!(
        aws.calls().iter().any(throttled),
        "EC2's bucket was never empty"
    );
}

/// Asks EC2 as often as its token bucket for reading holds, so that the next one who asks is throttled,
/// however slow the machine is.
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
    panic!("a thousand calls don't empty the bucket: {answer}");
}

#[tokio::test]
async fn the_same_event_again_is_answered_from_the_archive_and_changes_no_object() {
    let world = world(&["us-east-1"]);
    world.put_reports(ACCOUNT, "us-east-1", healthy_reports(10));
    let aws = local_aws(&world).await;
    let (first, archive) = audit(&aws, "us-east-1").await;
    let before = archive.objects();
    aws.clear_calls();
    world.put_report(ACCOUNT, "us-east-1", report("amiur-new"));
    let (second, archive) = audit(&aws, "us-east-1").await;
    assert!(!first.already_archived);
    assert!(second.already_archived);
    assert_eq!(
        (second.snapshot, second.counts),
        (first.snapshot, first.counts)
    );
    assert_eq!(archive.objects(), before);
    assert_eq!(
        (count_calls(&aws, LISTING), count_calls(&aws, "PutObject")),
        (0, 0)
    );
}

#[tokio::test]
async fn a_retry_after_the_snapshot_still_makes_it_the_latest() {
    let world = world(&["us-east-1"]);
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::Denied)
            .on("PutObject")
            .on_key("latest.json"),
    );
    let auditor = auditor(&aws, &[]).await;
    let error = run(&auditor, scheduled_event()).await.unwrap_err();
    assert_eq!(error.error_type(), "ArchiveFailed");
    aws.faults().clear();
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    assert!(summary.already_archived);
    let archive = Archive::of(&aws);
    assert_eq!(
        archive.json("image-usage/v1/latest.json"),
        archive.snapshot(&summary)
    );
}

#[tokio::test]
async fn a_snapshot_whose_write_was_answered_by_nothing_is_recognised_as_its_own() {
    let world = world(&["us-east-1"]);
    let aws = local_aws(&world).await;
    let lost = Fault::new(FaultKind::CloseBeforeAnswer)
        .on("PutObject")
        .on_key("snapshots/");
    aws.faults().add(lost.when(When::Nth(0)).after_effect());
    let (summary, archive) = audit(&aws, "us-east-1").await;
    assert_eq!(aws.faults().injected(), 1);
    assert!(!summary.already_archived);
    archive.check(&archive.snapshot(&summary), &world);
}

#[tokio::test]
async fn an_earlier_run_does_not_move_the_latest_snapshot_back() {
    let world = world(&["us-east-1"]);
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[]).await;
    let at = |time: &str| json!({"scheduled_at": time});
    let later = run(&auditor, at("2026-11-22T06:00:00Z")).await.unwrap();
    let earlier = run(&auditor, at("2026-11-21T06:00:00Z")).await.unwrap();
    let archive = Archive::of(&aws);
    assert_ne!(archive.snapshot(&later), archive.snapshot(&earlier));
    assert_eq!(
        archive.json("image-usage/v1/latest.json"),
        archive.snapshot(&later)
    );
}

#[tokio::test]
async fn two_runs_over_the_same_facts_differ_only_in_times_ids_and_attempts() {
    let regions = ["ap-southeast-2", "eu-west-1", "us-east-1"];
    let world = world(&regions);
    world.seed(&SeedOptions {
        regions: regions.map(str::to_owned).to_vec(),
        ..SeedOptions::default()
    });
    let mut documents = Vec::new();
    for concurrency in ["1", "8"] {
        let aws = local_aws(&world).await;
        let variables = [
            ("AUDITOR_REGIONS", "all"),
            ("AUDITOR_MAX_CONCURRENT_TARGETS", concurrency),
        ];
        let summary = run(&auditor(&aws, &variables).await, scheduled_event())
            .await
            .unwrap();
        let archive = Archive::of(&aws);
        let bytes = String::from_utf8(archive.bytes(&summary.snapshot.key)).unwrap();
        let snapshot = archive.snapshot(&summary);
        let mut document = without_attempts(&bytes).replace(text(&snapshot["finished_at"]), "…");
        // A line names the object of its entries, so the bytes of the reports' objects differ too.
        for target in snapshot["targets"].as_array().unwrap() {
            let object = &target["object"];
            let size = format!("\"bytes\":{},", object["bytes"]);
            document = document.replace(text(&object["sha256"]), "…");
            document = document.replace(&size, "");
            for line in archive.lines(text(&object["key"])) {
                document += &without_attempts(&line.to_string());
            }
        }
        documents.push(document);
    }
    assert_eq!(documents[0], documents[1]);
}

#[tokio::test]
async fn a_scoped_run_says_so_and_never_becomes_the_latest() {
    let world = world(&["eu-west-1", "us-east-1"]);
    world.put_report(ACCOUNT, "eu-west-1", report("amiur-1"));
    world.put_report(ACCOUNT, "us-east-1", report("amiur-2"));
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[]).await;
    let summary = run(&auditor, json!({"regions": ["eu-west-1"]}))
        .await
        .unwrap();
    let archive = Archive::of(&aws);
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    let scope = json!({
        "full": false, "image_ids": [], "report_ids": [], "filters": [], "regions": ["eu-west-1"], "account_ids": []
    });
    assert_eq!(snapshot["scope"], scope);
    assert_eq!(snapshot["targets"].as_array().unwrap().len(), 1);
    assert!(!archive.objects().contains_key("image-usage/v1/latest.json"));
}

#[tokio::test]
async fn filters_and_ids_are_passed_on_to_ec2() {
    let world = world(&["us-east-1"]);
    let mut tagged = report("amiur-tagged");
    tagged.state = Some("error".to_owned());
    tagged.tags = vec![Tag::new("Owner", "TeamA")];
    world.put_report(ACCOUNT, "us-east-1", tagged);
    world.put_reports(ACCOUNT, "us-east-1", healthy_reports(5));
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
        let lines = archive.lines(text(&target(&snapshot, "us-east-1")["object"]["key"]));
        let ids: Vec<&str> = lines.iter().map(|line| text(&line["report_id"])).collect();
        assert_eq!(ids, ["amiur-tagged"]);
    }
}

#[tokio::test]
async fn more_than_two_hundred_ids_are_split_and_each_report_is_archived_once() {
    let world = world(&["us-east-1"]);
    world.put_reports(ACCOUNT, "us-east-1", healthy_reports(450));
    let aws = local_aws(&world).await;
    let mut ids: Vec<String> = healthy_reports(450)
        .filter_map(|report| report.report_id)
        .collect();
    ids.push(ids[0].clone());
    let without_entries = [("AUDITOR_ARCHIVE_ENTRIES", "false")];
    let auditor = auditor(&aws, &without_entries).await;
    let summary = run(&auditor, json!({"report_ids": ids})).await.unwrap();
    let archive = Archive::of(&aws);
    archive.check(&archive.snapshot(&summary), &world);
    assert_eq!(count_calls(&aws, LISTING), 3);
}

#[tokio::test]
async fn the_page_size_is_asked_for_and_done_without_where_ec2_refuses_it() {
    let world = world(&["us-east-1"]);
    world.put_reports(ACCOUNT, "us-east-1", healthy_reports(30));
    let aws = local_aws(&world).await;
    let summary = run(&auditor(&aws, &[]).await, json!({"max_results": 7}))
        .await
        .unwrap();
    assert_eq!(
        target(&Archive::of(&aws).snapshot(&summary), "us-east-1")["pages"],
        5
    );
    world.set_max_page_size(ACCOUNT, "us-east-1", 10);
    let (summary, archive) = audit(&aws, "us-east-1").await;
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    assert_eq!(snapshot["status"], "complete");
}

#[tokio::test]
async fn a_preflight_asks_every_target_and_writes_nothing() {
    let world = World::builder()
        .clock(local_aws::Clock::fixed(now()))
        .account(ACCOUNT)
        .regions(["eu-west-1", "us-east-1"])
        .disabled_region("ap-east-1")
        .build();
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::Denied)
            .on(LISTING)
            .in_region("eu-west-1"),
    );
    let auditor = auditor(
        &aws,
        &[("AUDITOR_REGIONS", "us-east-1,eu-west-1,ap-east-1")],
    )
    .await;
    let answer = auditor
        .handle(json!({"dry_run": true}), invocation())
        .await
        .unwrap();
    let Answer::Preflight(preflight) = answer else {
        panic!("no preflight: {answer:?}")
    };
    let told: Vec<(&str, Permission, Option<&str>)> = preflight
        .targets
        .iter()
        .map(|line| {
            (
                line.region.as_str(),
                line.status,
                line.error.as_ref().map(|error| error.code.as_str()),
            )
        })
        .collect();
    let expected = [
        ("ap-east-1", Permission::Failed, Some("AuthFailure")),
        (
            "eu-west-1",
            Permission::Denied,
            Some("UnauthorizedOperation"),
        ),
        ("us-east-1", Permission::Permitted, None),
    ];
    assert_eq!(told, expected);
    assert!(Archive::of(&aws).objects().is_empty());
    assert!(
        aws.calls().iter().all(|call| call.bucket.is_none()),
        "the archive was touched"
    );
}

#[tokio::test]
async fn a_region_that_is_not_enabled_is_skipped_and_one_whose_credentials_fail_is_not() {
    let world = World::builder()
        .clock(local_aws::Clock::fixed(now()))
        .account(ACCOUNT)
        .regions(["eu-west-1", "us-east-1"])
        .disabled_region("ap-east-1")
        .build();
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::AuthFailure)
            .on(LISTING)
            .in_region("eu-west-1"),
    );
    let (summary, archive) = audit(&aws, "us-east-1,eu-west-1,ap-east-1").await;
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    assert_eq!(target(&snapshot, "ap-east-1")["status"], "skipped");
    assert_eq!(
        target(&snapshot, "ap-east-1")["error"]["code"],
        "AuthFailure"
    );
    assert_eq!(target(&snapshot, "eu-west-1")["status"], "failed");
    assert_eq!(snapshot["status"], "partial");
    assert_eq!(count_calls(&aws, "DescribeRegions"), 1);
}

#[tokio::test]
async fn a_run_that_could_read_nothing_has_no_snapshot_and_fails() {
    let world = world(&["eu-west-1", "us-east-1"]);
    let aws = local_aws(&world).await;
    aws.faults().add(Fault::new(FaultKind::Denied).on(LISTING));
    let auditor = auditor(&aws, &[("AUDITOR_REGIONS", "all")]).await;
    let error = run(&auditor, scheduled_event()).await.unwrap_err();
    assert_eq!(error.error_type(), "NoTargetAudited");
    assert!(matches!(error, RunError::NoTargetAudited { .. }));
    let message = error.to_string();
    let start =
        "no target could be audited: 111122223333/eu-west-1 and 1 more: UnauthorizedOperation: ";
    assert!(message.starts_with(start), "{message}");
    assert!(Archive::of(&aws).objects().is_empty());
}

#[tokio::test]
async fn a_run_stops_reading_in_time_to_archive_what_it_has() {
    let world = world(&["eu-west-1", "us-east-1"]);
    for region in ["eu-west-1", "us-east-1"] {
        world.put_reports(ACCOUNT, region, healthy_reports(40));
    }
    let aws = local_aws(&world).await;
    let latency = FaultKind::Latency { milliseconds: 100 };
    aws.faults()
        .add(Fault::new(latency).on(LISTING).in_region("us-east-1"));
    let variables = [
        ("AUDITOR_REGIONS", "eu-west-1,us-east-1"),
        ("AUDITOR_PAGE_SIZE", "1"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let mut invocation = invocation();
    invocation.time_left = Some(std::time::Duration::from_secs(3));
    let answer = auditor.handle(scheduled_event(), invocation).await.unwrap();
    let Answer::Summary(summary) = answer else {
        panic!("no summary")
    };
    let archive = Archive::of(&aws);
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    assert_eq!(snapshot["status"], "partial");
    assert_eq!(target(&snapshot, "eu-west-1")["status"], "complete");
    let late = target(&snapshot, "us-east-1");
    assert_eq!(
        (&late["status"], &late["error"]["code"]),
        (&json!("incomplete"), &json!("DeadlineExceeded"))
    );
    assert!(late["reports"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn other_accounts_are_audited_with_their_own_role() {
    let member = "222233334444";
    let world = World::builder()
        .clock(local_aws::Clock::fixed(now()))
        .account(ACCOUNT)
        .account(member)
        .account("333344445555")
        .regions(["us-east-1"])
        .build();
    let role = local_aws::RoleOptions {
        name: "auditor".to_owned(),
        external_id: Some("shared-secret".to_owned()),
        // The local AWS's clock stands, and the SDK's goes on.
        lifetime: Some(Duration::days(36_500)),
        ..local_aws::RoleOptions::default()
    };
    world.role(member, role);
    world.put_report(ACCOUNT, "us-east-1", report("amiur-own"));
    world.put_report(member, "us-east-1", report("amiur-member"));
    let aws = local_aws(&world).await;
    let variables = [
        ("AUDITOR_ACCOUNTS", "111122223333,222233334444,333344445555"),
        ("AUDITOR_ROLE_NAME", "auditor"),
        ("AUDITOR_EXTERNAL_ID", "shared-secret"),
    ];
    let summary = run(&auditor(&aws, &variables).await, scheduled_event())
        .await
        .unwrap();
    let archive = Archive::of(&aws);
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    let statuses: Vec<&str> = snapshot["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| text(&target["status"]))
        .collect();
    assert_eq!(statuses, ["complete", "complete", "failed"]);
    assert_eq!(snapshot["targets"][2]["error"]["code"], "AccessDenied");
    assert_eq!(count_calls(&aws, "AssumeRole"), 2);
}
