//! What real accounts and organizations contain that other tools fail on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration as Wait, Instant};

use image_usage_auditor::audit::{RunError, Summary};
use insta::{assert_json_snapshot, assert_snapshot};
use local_aws::{
    AccountStates, Clock, Fault, FaultKind, LocalAws, Report, RoleOptions, Tag, When, World,
};
use serde_json::{Value, json};
use time::Duration;

use crate::harness::{
    ACCOUNT, Archive, ENTRIES, LISTING, REGION, Random, THREE_REGIONS, TWO_REGIONS, auditor,
    auditor_at, checked, count_calls, healthy_reports, invocation_at, local_aws, now, run, run_at,
    run_within, scheduled_event, summary_of, target, targets, text, used, will_be_harmed, world,
};

/// How many reports of a target have their entries in the archive.
fn archived_entries(archive: &Archive, snapshot: &Value, region: &str) -> usize {
    let lines = archive.report_lines(snapshot, region);
    let is_archived = |line: &&Value| line["entries"]["status"] == "archived";
    lines.iter().filter(is_archived).count()
}

/// How often each report's entries were fetched, over all runs of an archive.
fn fetched(archive: &Archive) -> BTreeMap<String, usize> {
    let mut fetched = BTreeMap::new();
    for key in archive.objects().into_keys() {
        if key.contains("/entries/") {
            let lines = archive.lines(&key);
            let ids: BTreeSet<&str> = lines.iter().map(|line| text(&line["report_id"])).collect();
            for id in ids {
                *fetched.entry(id.to_owned()).or_default() += 1;
            }
        }
    }
    fetched
}

#[tokio::test]
async fn entries_that_do_not_fit_into_a_run_get_further_in_every_run() {
    let world = world(&THREE_REGIONS);
    // The heavy target comes first, and the others are empty.
    let heavy = THREE_REGIONS[0];
    let reports = (0..100).map(|number| used(&format!("amiur-{number:03}"), 60));
    world.put_reports(ACCOUNT, heavy, reports);
    let aws = local_aws(&world).await;
    for operation in [LISTING, ENTRIES] {
        let slow = FaultKind::Latency { milliseconds: 200 };
        aws.faults().add(Fault::new(slow).on(operation));
    }
    let variables = [
        ("AUDITOR_REGIONS", "all"),
        ("AUDITOR_PAGE_SIZE", "500"),
        ("AUDITOR_MAX_CONCURRENT_TARGETS", "1"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let archive = Archive::of(&aws);
    let mut before = 0;
    for day in 0..12 {
        let time = now() + Duration::days(day);
        world.clock().set(time);
        let summary = run_within(&auditor, time, Wait::from_millis(3_200)).await;
        let snapshot = checked(&aws, &summary.unwrap());
        assert_eq!(snapshot["status"], "complete");
        let now = archived_entries(&archive, &snapshot, heavy);
        assert!(now > before, "day {day}: {now} after {before}");
        before = now;
        if now == 100 {
            assert!(fetched(&archive).values().all(|&times| times == 1));
            return;
        }
    }
    panic!("only {before} of 100 reports have their entries archived after 12 days");
}

#[tokio::test]
async fn entries_whose_object_is_missing_are_fetched_again_while_ec2_still_has_them() {
    let world = world(&[REGION]);
    world.put_reports(ACCOUNT, REGION, [used("amiur-1", 3), used("amiur-2", 0)]);
    let mut aws = local_aws(&world).await;
    will_be_harmed(&mut aws);
    let auditor = auditor(&aws, &[]).await;
    let archive = Archive::of(&aws);
    let first = run_at(&auditor, now()).await.unwrap();
    let snapshot = archive.snapshot(&first);
    let lost = text(&target(&snapshot, REGION)["entries_object"]["key"]).to_owned();
    std::fs::remove_file(archive.path(&lost)).unwrap();

    let next_day = now() + Duration::DAY;
    let second = run_at(&auditor, next_day).await.unwrap();
    let snapshot = checked(&aws, &second);
    assert_eq!(snapshot["counts"]["entries"]["archived"], 2);
    assert_eq!(snapshot["counts"]["entries"]["fetched"], 2);
    let object = &target(&snapshot, REGION)["entries_object"];
    assert_ne!(object["key"], lost);
    assert_eq!(object["lines"], 4);
}

#[tokio::test]
async fn an_unreadable_object_of_an_earlier_run_does_not_fail_a_run() {
    #[rustfmt::skip]
    let objects = [
        ("latest.json", false),
        ("snapshots/dt=2026-11-22", true),
        ("/reports/dt=2026-11-22", true),
    ];
    for (part, keeps_chain) in objects {
        let world = world(&[REGION]);
        world.put_report(ACCOUNT, REGION, used("amiur-1", 3));
        let aws = local_aws(&world).await;
        let auditor = auditor(&aws, &[]).await;
        let archive = Archive::of(&aws);
        run_at(&auditor, now()).await.unwrap();
        let denied = Fault::new(FaultKind::Denied).on("GetObject").on_key(part);
        aws.faults().add(denied);

        let next_day = now() + Duration::DAY;
        let second = run_at(&auditor, next_day).await.unwrap();
        let snapshot = checked(&aws, &second);
        assert_eq!(snapshot["status"], "complete", "{part}");
        assert_eq!(snapshot["previous"].is_null(), !keeps_chain, "{part}");
        assert_eq!(snapshot["counts"]["entries"]["archived"], 1, "{part}");
        // The new `latest.json` is readable again.
        aws.faults().clear();
        let third = run_at(&auditor, now() + Duration::days(2)).await.unwrap();
        let third = archive.snapshot(&third);
        assert_eq!(third["previous"]["run_id"], snapshot["run_id"], "{part}");
        assert_eq!(third["counts"]["entries"]["fetched"], 0, "{part}");
        assert_eq!(archive.latest(), third, "{part}");
    }
}

#[tokio::test]
async fn a_sample_event_is_an_audit_of_now_and_each_click_is_a_run() {
    let world = world(&[REGION]);
    world.put_reports(ACCOUNT, REGION, healthy_reports(3));
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[]).await;
    let mut sample = scheduled_event();
    sample["time"] = json!("1970-01-01T00:00:00Z");
    sample["id"] = json!("cdc73f9d-aea9-11e3-9d5a-835b769c0d9c");
    let mut runs = Vec::new();
    for click in ["a", "b"] {
        let mut invocation = invocation_at(now());
        invocation.request_id = format!("request {click}");
        let answer = auditor.handle(sample.clone(), invocation).await.unwrap();
        let summary = summary_of(answer);
        assert!(!summary.already_archived);
        let snapshot = Archive::of(&aws).snapshot(&summary);
        assert_eq!(snapshot["scheduled_at"], snapshot["started_at"]);
        runs.push(summary.run_id);
    }
    assert_ne!(runs[0], runs[1]);
}

#[tokio::test]
async fn excluded_regions_and_accounts_are_left_out_unless_a_request_names_them() {
    let world = world(&TWO_REGIONS);
    let aws = local_aws(&world).await;
    let variables = [
        ("AUDITOR_REGIONS", "all"),
        ("AUDITOR_EXCLUDED_REGIONS", "eu-west-1,xx-nowhere-1"),
        ("AUDITOR_EXCLUDED_ACCOUNTS", "999988887777"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let archive = Archive::of(&aws);
    let regions = |summary: &Summary| -> Vec<String> {
        let snapshot = archive.snapshot(summary);
        targets(&snapshot)
            .iter()
            .map(|target| text(&target["region"]).to_owned())
            .collect()
    };
    let summary = run_at(&auditor, now()).await.unwrap();
    assert_eq!(regions(&summary), [REGION]);
    let named = json!({"regions": ["eu-west-1"]});
    let summary = run(&auditor, named).await.unwrap();
    assert_eq!(regions(&summary), ["eu-west-1"]);
}

/// A local AWS with this number of Regions, and their names as a setting.
async fn many_regions(count: usize) -> (LocalAws, String) {
    let names: Vec<String> = (1..=count)
        .map(|number| format!("xx-many-{number}"))
        .collect();
    let regions: Vec<&str> = names.iter().map(String::as_str).collect();
    (local_aws(&world(&regions)).await, names.join(","))
}

#[tokio::test]
async fn a_run_that_is_late_for_thousands_of_targets_still_writes_its_snapshot_in_time() {
    let (aws, regions) = many_regions(5_000).await;
    let slow = FaultKind::Latency { milliseconds: 500 };
    aws.faults()
        .add(Fault::new(slow).on(LISTING).when(When::FirstN(1_000_000)));
    let auditor = auditor(&aws, &[("AUDITOR_REGIONS", regions.as_str())]).await;
    let time_left = Wait::from_secs(8);
    let started = Instant::now();
    let summary = run_within(&auditor, now(), time_left).await.unwrap();
    assert!(started.elapsed() < time_left, "{:?}", started.elapsed());
    let counts = summary.counts.targets;
    assert!(counts.complete > 0 && counts.failed > 1_000, "{counts:?}");
    let snapshot = Archive::of(&aws).snapshot(&summary);
    for target in targets(&snapshot) {
        if target["status"] == "failed" {
            assert_eq!(target["error"]["code"], "DeadlineExceeded", "{target}");
        }
    }
    // A target that is too late makes no call.
    let calls = aws.calls().len() as u64;
    assert!(calls < 8 * (counts.complete + 20), "{calls} calls");
}

/// A local AWS with 60 Regions, the first 20 of which need four calls each for their entries; and their names.
async fn twenty_heavy_regions_of_sixty() -> (LocalAws, String) {
    let (aws, regions) = many_regions(60).await;
    for number in 1..=20 {
        let reports = (0..80).map(|report| used(&format!("amiur-{number}-{report}"), 1));
        let region = format!("xx-many-{number}");
        aws.world().put_reports(ACCOUNT, &region, reports);
    }
    (aws, regions)
}

#[tokio::test]
async fn more_heavy_targets_than_may_pause_all_finish_while_time_is_left() {
    let (aws, regions) = twenty_heavy_regions_of_sixty().await;
    let slow = FaultKind::Latency { milliseconds: 400 };
    aws.faults().add(Fault::new(slow).on(ENTRIES));
    let variables = [
        ("AUDITOR_REGIONS", regions.as_str()),
        ("AUDITOR_MAX_CONCURRENT_TARGETS", "4"),
    ];
    let auditor = auditor(&aws, &variables).await;
    // The first share of each is enough for two or three calls.
    let summary = run_within(&auditor, now(), Wait::from_secs(24)).await;
    let snapshot = checked(&aws, &summary.unwrap());
    assert_eq!(snapshot["status"], "complete");
    assert_eq!(snapshot["counts"]["entries"]["archived"], 1_600);
}

#[tokio::test]
async fn heavy_targets_leave_the_time_for_the_listings_that_wait() {
    let (aws, regions) = twenty_heavy_regions_of_sixty().await;
    for (operation, milliseconds) in [(LISTING, 200), (ENTRIES, 1_000)] {
        let slow = FaultKind::Latency { milliseconds };
        aws.faults().add(Fault::new(slow).on(operation));
    }
    let variables = [
        ("AUDITOR_REGIONS", regions.as_str()),
        ("AUDITOR_MAX_CONCURRENT_TARGETS", "4"),
    ];
    let auditor = auditor(&aws, &variables).await;
    // Of the 18 s for reading, the listings alone take 3 s, and the entries would take more than 20 s.
    let summary = run_within(&auditor, now(), Wait::from_secs(24)).await;
    let snapshot = checked(&aws, &summary.unwrap());
    assert_eq!(snapshot["status"], "complete");
    let archived = snapshot["counts"]["entries"]["archived"].as_u64();
    assert!((20..1_600).contains(&archived.unwrap()), "{archived:?}");
}

#[tokio::test]
async fn a_preflight_of_thousands_of_denied_targets_fits_into_an_answer() {
    let (aws, regions) = many_regions(1_500).await;
    aws.faults().add(Fault::new(FaultKind::Denied).on(LISTING));
    let auditor = auditor(&aws, &[("AUDITOR_REGIONS", regions.as_str())]).await;
    let payload = json!({"dry_run": true});
    let answer = auditor.handle(payload, invocation_at(now())).await.unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    assert_eq!(targets(&answer).len(), 1_000);
    assert_eq!(answer["targets_omitted"], 500);
    assert_json_snapshot!(json!({"counts": answer["counts"], "errors": answer["errors"]}), @r#"
    {
      "counts": {
        "denied": 1500,
        "failed": 0,
        "permitted": 0
      },
      "errors": [
        {
          "code": "UnauthorizedOperation",
          "message": "You are not authorized to perform this operation. User: arn:aws:iam::111122223333:user/local is not authorized to perform: ec2:DescribeImageUsageReports because no identity-based policy allows the ec2:DescribeImageUsageReports action",
          "targets": 1500
        }
      ]
    }
    "#);
}

/// The audited accounts of an organization whose accounts are listed with this form and value of their state.
async fn audited_accounts(states: AccountStates, status: &str) -> Result<Vec<String>, RunError> {
    let world = world(&[REGION]);
    world.organization_account(ACCOUNT, status);
    world.organization_account("222233334444", "SUSPENDED");
    world.set_organization_states(states);
    let aws = local_aws(&world).await;
    let variables = [
        ("AUDITOR_ACCOUNTS", "organization"),
        ("AUDITOR_ROLE_NAME", "reader"),
    ];
    let summary = run_at(&auditor(&aws, &variables).await, now()).await?;
    let snapshot = Archive::of(&aws).snapshot(&summary);
    Ok(targets(&snapshot)
        .iter()
        .map(|target| text(&target["account_id"]).to_owned())
        .collect())
}

#[tokio::test]
async fn an_account_is_active_by_its_state_or_by_its_status_if_it_has_no_state() {
    for states in [
        AccountStates::State,
        AccountStates::Status,
        AccountStates::StateAndStatus,
    ] {
        let audited = audited_accounts(states, "ACTIVE").await.unwrap();
        assert_eq!(audited, [ACCOUNT], "{states:?}");
    }
}

#[tokio::test]
async fn an_account_without_state_and_status_is_named_and_never_skipped() {
    let refused = audited_accounts(AccountStates::Neither, "ACTIVE").await;
    assert_snapshot!(
        refused.unwrap_err(),
        @"no target could be audited: MalformedResponse: Organizations lists the account 111122223333 with neither State nor Status"
    );
}

#[tokio::test]
async fn an_organization_without_an_active_account_is_an_error_of_its_own() {
    let refused = audited_accounts(AccountStates::State, "SUSPENDED").await;
    assert_snapshot!(
        refused.unwrap_err(),
        @"no target could be audited: MalformedResponse: Organizations lists no active account"
    );
}

#[tokio::test]
async fn a_bucket_that_demands_headers_gets_them_on_every_write() {
    let denied = |operation: &str, header: &str| {
        let denied = Fault::new(FaultKind::Denied).on(operation);
        denied.lacking(header)
    };
    let world = world(&[REGION]);
    // More than a part, so that there is an upload too.
    let bulky = (0..2_500).map(|number| Report {
        tags: bulky_tags(number),
        ..used(&format!("amiur-{number:04}"), 0)
    });
    world.put_reports(ACCOUNT, REGION, bulky);
    let aws = local_aws(&world).await;
    for operation in ["PutObject", "CreateMultipartUpload"] {
        for header in ["x-amz-server-side-encryption", "x-amz-acl"] {
            aws.faults().add(denied(operation, header));
        }
    }
    let refused = run_at(&auditor(&aws, &[]).await, now()).await;
    assert_eq!(refused.unwrap_err().error_type(), "ArchiveFailed");
    let variables = [
        ("AUDITOR_ARCHIVE_ENCRYPTION", "AES256"),
        ("AUDITOR_ARCHIVE_ACL", "bucket-owner-full-control"),
    ];
    let summary = run_at(&auditor(&aws, &variables).await, now()).await;
    checked(&aws, &summary.unwrap());
    assert!(count_calls(&aws, "CompleteMultipartUpload") > 0);
}

/// Tags that hardly compress.
fn bulky_tags(number: u64) -> Vec<Tag> {
    let mut random = Random::new(number);
    let mut letters = || -> String {
        (0..250)
            .map(|_| char::from(b'A' + random.below(58) as u8))
            .collect()
    };
    (0..12)
        .map(|tag| Tag::new(format!("tag-{tag}"), letters()))
        .collect()
}

/// A refusal of calls that name a page size.
fn refuse_page_size(code: &str, operation: &str) -> Fault {
    let refusal = FaultKind::Error {
        status: 400,
        code: code.to_owned(),
        message: "worded in any way".to_owned(),
    };
    Fault::new(refusal).on(operation).having("MaxResults")
}

fn world_of_thirty_reports() -> World {
    let world = world(&[REGION]);
    let reports = (0..30).map(|number| used(&format!("amiur-{number:02}"), 2));
    world.put_reports(ACCOUNT, REGION, reports);
    world
}

const PAGES_OF_20: [(&str, &str); 1] = [("AUDITOR_PAGE_SIZE", "20")];

#[tokio::test]
async fn a_page_size_that_is_refused_beside_report_ids_costs_one_call_a_run() {
    let refused = || refuse_page_size("InvalidParameterCombination", ENTRIES);
    let aws = local_aws(&world_of_thirty_reports()).await;
    aws.faults().add(refused());
    let summary = run_at(&auditor(&aws, &PAGES_OF_20).await, now()).await;
    assert_eq!(summary.unwrap().counts.entries.archived, 30);
    assert_eq!(aws.faults().injected(), 1);

    // Without a configured size, none is sent beside IDs.
    let aws = local_aws(&world_of_thirty_reports()).await;
    aws.faults().add(refused());
    run_at(&auditor(&aws, &[]).await, now()).await.unwrap();
    assert_eq!(aws.faults().injected(), 0);
}

#[tokio::test]
async fn a_page_size_that_is_too_large_is_halved_until_ec2_accepts_it() {
    let aws = local_aws(&world_of_thirty_reports()).await;
    let refused = refuse_page_size("InvalidParameterValue", LISTING);
    aws.faults().add(refused.when(When::FirstN(2)));
    let summary = run_at(&auditor(&aws, &PAGES_OF_20).await, now()).await;
    let snapshot = checked(&aws, &summary.unwrap());
    assert_eq!(snapshot["counts"]["reports"]["total"], 30);
    // Pages of 5 instead of 20.
    assert_eq!(target(&snapshot, REGION)["pages"], 6);
}

#[tokio::test]
async fn a_preflight_permits_a_target_that_refuses_every_page_size() {
    let aws = local_aws(&world_of_thirty_reports()).await;
    let refused = refuse_page_size("InvalidParameterValue", LISTING);
    aws.faults().add(refused);
    let auditor = auditor(&aws, &PAGES_OF_20).await;
    let answer = auditor.handle(json!({"dry_run": true}), invocation_at(now()));
    let answer = serde_json::to_value(answer.await.unwrap()).unwrap();
    assert_eq!(answer["counts"]["permitted"], 1, "{answer}");
}

#[tokio::test]
async fn a_member_without_the_home_region_is_called_in_the_partitions_default_region() {
    const MEMBER: &str = "222233334444";
    let home = "ap-east-1";
    let world = World::builder()
        .clock(Clock::fixed(now()))
        .account(ACCOUNT)
        .account(MEMBER)
        .regions([home, REGION])
        .build();
    world.role(
        MEMBER,
        RoleOptions {
            name: "reader".to_owned(),
            ..RoleOptions::default()
        },
    );
    let aws = local_aws(&world).await;
    let not_enabled = Fault::new(FaultKind::AuthFailure)
        .on("DescribeRegions")
        .in_account(MEMBER);
    aws.faults().add(not_enabled.in_region(home));
    let disabled = FaultKind::Error {
        status: 403,
        code: "RegionDisabledException".to_owned(),
        message: "STS is not activated in this region for account".to_owned(),
    };
    aws.faults()
        .add(Fault::new(disabled).on("AssumeRole").in_region(home));
    let variables = [
        ("AUDITOR_ACCOUNTS", MEMBER),
        ("AUDITOR_ROLE_NAME", "reader"),
        ("AUDITOR_REGIONS", "all"),
    ];
    let auditor = auditor_at(&aws, home, &variables).await;
    let summary = run_at(&auditor, now()).await.unwrap();
    assert_eq!(summary.counts.targets.complete, 2);
}
