//! Runs over many accounts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration as Wait;

use image_usage_auditor::audit::{Answer, Auditor, RunError, Summary};
use local_aws::{
    CLASSIC_REGIONS, Call, Clock, Fault, FaultKind, LocalAws, RoleOptions, Service, When, World,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::harness::{
    ACCOUNT, Archive, auditor, auditor_at, count_calls, healthy_reports, invocation, local_aws,
    now, report, run, scheduled_event, text, until,
};

const LISTING: &str = "DescribeImageUsageReports";
const MEMBER: &str = "222233334444";
const OTHER_MEMBER: &str = "333344445555";
const ROLE: &str = "auditor";

/// Credentials that outlive every test: the world's clock stands still, the SDK's goes on.
const LASTING: Duration = Duration::days(36_500);

fn role() -> RoleOptions {
    RoleOptions {
        name: ROLE.to_owned(),
        lifetime: Some(LASTING),
        ..RoleOptions::default()
    }
}

fn world_of<'a>(
    clock: Clock,
    members: impl IntoIterator<Item = &'a str>,
    regions: &[&str],
) -> World {
    let mut builder = World::builder()
        .clock(clock)
        .account(ACCOUNT)
        .regions(regions.iter().copied());
    let members: Vec<&str> = members.into_iter().collect();
    for member in &members {
        builder = builder.account(*member);
    }
    let world = builder.build();
    for member in members {
        world.role(member, role());
    }
    world
}

/// The function's own account, two more with its role in them, and these Regions.
fn three_accounts(regions: &[&str]) -> World {
    world_of(Clock::fixed(now()), [MEMBER, OTHER_MEMBER], regions)
}

const THREE_ACCOUNTS: [(&str, &str); 2] = [
    ("AUDITOR_ACCOUNTS", "111122223333,222233334444,333344445555"),
    ("AUDITOR_ROLE_NAME", ROLE),
];

async fn auditor_of_three(aws: &LocalAws, regions: &str) -> Auditor {
    let variables = [
        THREE_ACCOUNTS[0],
        THREE_ACCOUNTS[1],
        ("AUDITOR_REGIONS", regions),
    ];
    auditor(aws, &variables).await
}

/// Runs the scheduled audit with so much time.
async fn run_within(auditor: &Auditor, time_left: Wait) -> Summary {
    let mut invocation = invocation();
    invocation.time_left = Some(time_left);
    match auditor.handle(scheduled_event(), invocation).await.unwrap() {
        Answer::Summary(summary) => *summary,
        other => panic!("a run was asked for: {other:?}"),
    }
}

/// The snapshot of a run, checked against what the accounts hold.
fn checked(aws: &LocalAws, summary: &Summary) -> Value {
    let archive = Archive::of(aws);
    let snapshot = archive.snapshot(summary);
    archive.check(&snapshot, aws.world());
    snapshot
}

/// Every target of the ledger as account, Region, status and error code.
fn ledger(snapshot: &Value) -> Vec<(&str, &str, &str, Option<&str>)> {
    let targets = snapshot["targets"].as_array().unwrap();
    targets
        .iter()
        .map(|target| {
            (
                text(&target["account_id"]),
                text(&target["region"]),
                text(&target["status"]),
                target["error"]["code"].as_str(),
            )
        })
        .collect()
}

fn line<'a>(snapshot: &'a Value, account: &str, region: &str) -> &'a Value {
    let targets = snapshot["targets"].as_array().unwrap();
    targets
        .iter()
        .find(|target| target["account_id"] == account && target["region"] == region)
        .unwrap_or_else(|| panic!("no {account}/{region}"))
}

/// The calls that asked for a role, by the role's account.
fn roles_asked_for(aws: &LocalAws) -> BTreeMap<String, usize> {
    let mut asked = BTreeMap::new();
    for call in calls_of(aws, "AssumeRole") {
        let arn = &call.parameters["RoleArn"];
        let account = arn.split(':').nth(4).unwrap().to_owned();
        *asked.entry(account).or_default() += 1;
    }
    asked
}

fn calls_of(aws: &LocalAws, operation: &str) -> Vec<Call> {
    let calls = aws.calls().into_iter();
    calls.filter(|call| call.operation == operation).collect()
}

#[tokio::test]
async fn every_active_account_of_the_organization_is_audited_and_no_other() {
    let members = [
        "222200000001",
        "222200000002",
        "222200000003",
        "222200000004",
        "222200000005",
    ];
    let world = world_of(Clock::fixed(now()), members, &["us-east-1"]);
    world.set_organization_page_size(2);
    world.organization_account(ACCOUNT, "ACTIVE");
    let statuses = ["ACTIVE", "SUSPENDED", "ACTIVE", "PENDING_CLOSURE", "ACTIVE"];
    for (member, status) in members.into_iter().zip(statuses) {
        world.organization_account(member, status);
        world.put_report(member, "us-east-1", report("amiur-1"));
    }
    let aws = local_aws(&world).await;
    for (kind, when) in [
        (FaultKind::EmptyPage, When::Nth(1)),
        (FaultKind::Status503, When::Nth(2)),
        (FaultKind::EmptyToken, When::Always),
    ] {
        aws.faults()
            .add(Fault::new(kind).on("ListAccounts").when(when));
    }
    let variables = [
        ("AUDITOR_ACCOUNTS", "organization"),
        ("AUDITOR_ROLE_NAME", ROLE),
    ];
    let auditor = auditor(&aws, &variables).await;
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    let snapshot = checked(&aws, &summary);
    let accounts: Vec<&str> = ledger(&snapshot).iter().map(|line| line.0).collect();
    assert_eq!(
        accounts,
        [ACCOUNT, "222200000001", "222200000003", "222200000005"]
    );
    assert_eq!(snapshot["status"], "complete");
    // Three pages, an empty one, and one that had to be asked for twice.
    let statuses: Vec<Option<u16>> = calls_of(&aws, "ListAccounts")
        .iter()
        .map(|call| call.status)
        .collect();
    // Three pages, one of them empty at first, and one that had to be asked for twice.
    assert_eq!(statuses, [200, 200, 503, 200, 200].map(Some));
}

#[tokio::test]
async fn an_organization_that_cannot_be_listed_fails_the_run_and_archives_nothing() {
    let faults = [
        (FaultKind::Denied, "AccessDeniedException"),
        (FaultKind::RepeatToken, "RepeatedToken"),
        (FaultKind::TokenCycle { length: 3 }, "RepeatedToken"),
    ];
    for (kind, code) in faults {
        let world = three_accounts(&["us-east-1"]);
        world.set_organization_page_size(1);
        for account in [ACCOUNT, MEMBER, OTHER_MEMBER] {
            world.organization_account(account, "ACTIVE");
        }
        let aws = local_aws(&world).await;
        aws.faults()
            .add(Fault::new(kind).in_service(Service::Organizations));
        let variables = [
            ("AUDITOR_ACCOUNTS", "organization"),
            ("AUDITOR_ROLE_NAME", ROLE),
        ];
        let error = run(&auditor(&aws, &variables).await, scheduled_event())
            .await
            .unwrap_err();
        assert!(matches!(error, RunError::NoTargetAudited { .. }));
        assert!(error.to_string().contains(code), "{error}");
        assert!(Archive::of(&aws).objects().is_empty());
        assert_eq!(
            count_calls(&aws, LISTING),
            0,
            "part of an organization is not the organization"
        );
    }
}

#[tokio::test]
async fn a_role_is_assumed_once_in_the_functions_region_and_shared_by_all_targets() {
    let regions = ["ap-southeast-2", "eu-west-1", "us-east-1"];
    let world = three_accounts(&regions);
    for member in [MEMBER, OTHER_MEMBER] {
        world.role(
            member,
            RoleOptions {
                external_id: Some("shared-secret".to_owned()),
                ..role()
            },
        );
        for region in regions {
            world.put_reports(member, region, healthy_reports(25));
        }
    }
    let aws = local_aws(&world).await;
    let variables = [
        THREE_ACCOUNTS[0],
        THREE_ACCOUNTS[1],
        ("AUDITOR_EXTERNAL_ID", "shared-secret"),
        ("AUDITOR_REGIONS", "ap-southeast-2,eu-west-1,us-east-1"),
        ("AUDITOR_PAGE_SIZE", "10"),
    ];
    let auditor = auditor_at(&aws, "eu-west-1", &variables).await;
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    let snapshot = checked(&aws, &summary);
    assert_eq!(
        (&snapshot["status"], &snapshot["counts"]["reports"]["total"]),
        (&json!("complete"), &json!(150))
    );
    let once = BTreeMap::from([(MEMBER.to_owned(), 1), (OTHER_MEMBER.to_owned(), 1)]);
    assert_eq!(roles_asked_for(&aws), once);
    for call in calls_of(&aws, "AssumeRole") {
        assert_eq!(
            (call.account.as_str(), call.region.as_str()),
            (ACCOUNT, "eu-west-1")
        );
        assert_eq!(call.parameters["ExternalId"], "shared-secret");
        assert_eq!(call.parameters["RoleSessionName"], "image-usage-auditor");
    }
    // Another run asks anew: what one invocation was given is not kept for the next.
    run(&auditor, json!({"scheduled_at": "2026-11-23T06:00:00Z"}))
        .await
        .unwrap();
    let twice = BTreeMap::from([(MEMBER.to_owned(), 2), (OTHER_MEMBER.to_owned(), 2)]);
    assert_eq!(roles_asked_for(&aws), twice);
}

#[tokio::test]
async fn a_role_is_assumed_once_however_many_accounts_there_are() {
    let members: Vec<String> = (1..=100)
        .map(|number| format!("{:012}", 222_200_000_000_u64 + number))
        .collect();
    let members = members.iter().map(String::as_str);
    let regions = ["eu-west-1", "us-east-1"];
    let world = world_of(Clock::fixed(now()), members.clone(), &regions);
    let aws = local_aws(&world).await;
    let accounts = members.clone().collect::<Vec<_>>().join(",");
    let variables = [
        ("AUDITOR_ACCOUNTS", accounts.as_str()),
        ("AUDITOR_ROLE_NAME", ROLE),
        ("AUDITOR_REGIONS", "all"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    assert_eq!(snapshot["status"], "complete");
    let once: BTreeMap<String, usize> = members.map(|member| (member.to_owned(), 1)).collect();
    assert_eq!(roles_asked_for(&aws), once);
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_fails_its_accounts_targets_and_is_asked_for_once() {
    let regions = ["ap-southeast-2", "eu-west-1", "us-east-1"];
    let refusals = [
        RoleOptions {
            deny: true,
            ..role()
        },
        RoleOptions {
            external_id: Some("another secret".to_owned()),
            ..role()
        },
        RoleOptions {
            name: "another".to_owned(),
            ..role()
        },
    ];
    for refusal in refusals {
        let world = World::builder()
            .clock(Clock::fixed(now()))
            .account(ACCOUNT)
            .account(MEMBER)
            .account(OTHER_MEMBER)
            .regions(regions)
            .build();
        world.role(OTHER_MEMBER, role());
        world.role(MEMBER, refusal.clone());
        for region in regions {
            for account in [ACCOUNT, MEMBER, OTHER_MEMBER] {
                world.put_report(account, region, report("amiur-1"));
            }
        }
        let aws = local_aws(&world).await;
        let auditor = auditor_of_three(&aws, "ap-southeast-2,eu-west-1,us-east-1").await;
        let summary = run(&auditor, scheduled_event()).await.unwrap();
        let snapshot = checked(&aws, &summary);
        assert_eq!(snapshot["status"], "partial");
        for (account, region, status, code) in ledger(&snapshot) {
            let expected = match account {
                MEMBER => ("failed", Some("AccessDenied")),
                _ => ("complete", None),
            };
            assert_eq!(
                (status, code),
                expected,
                "{account}/{region} with {refusal:?}"
            );
        }
        let message = text(&line(&snapshot, MEMBER, "eu-west-1")["error"]["message"]);
        let start = "failed to assume arn:aws:iam::222233334444:role/auditor: ";
        assert!(message.starts_with(start), "{message}");
        assert_eq!(roles_asked_for(&aws)[MEMBER], 1, "with {refusal:?}");
        assert!(
            calls_of(&aws, LISTING)
                .iter()
                .all(|call| call.account != MEMBER)
        );
    }
}

#[tokio::test]
async fn each_account_is_audited_in_the_regions_that_it_has_enabled() {
    let world = three_accounts(&["ap-southeast-2", "eu-west-1", "us-east-1"]);
    world.disable_region(ACCOUNT, "ap-southeast-2");
    world.disable_region(MEMBER, "eu-west-1");
    let aws = local_aws(&world).await;
    let auditor = auditor_of_three(&aws, "all").await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    let targets: Vec<(&str, &str)> = ledger(&snapshot)
        .iter()
        .map(|line| (line.0, line.1))
        .collect();
    let expected = [
        (ACCOUNT, "eu-west-1"),
        (ACCOUNT, "us-east-1"),
        (MEMBER, "ap-southeast-2"),
        (MEMBER, "us-east-1"),
        (OTHER_MEMBER, "ap-southeast-2"),
        (OTHER_MEMBER, "eu-west-1"),
        (OTHER_MEMBER, "us-east-1"),
    ];
    assert_eq!(targets, expected);
    assert_eq!(snapshot["status"], "complete");
    assert_eq!(count_calls(&aws, "DescribeRegions"), 3);
    assert_eq!(
        roles_asked_for(&aws).values().copied().collect::<Vec<_>>(),
        [1, 1]
    );
}

#[tokio::test]
async fn an_account_that_will_not_tell_its_regions_is_failed_in_those_of_the_function() {
    let regions = ["eu-west-1", "us-east-1"];
    let world = three_accounts(&regions);
    for region in regions {
        world.put_report(OTHER_MEMBER, region, report("amiur-1"));
    }
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::Denied)
            .on("DescribeRegions")
            .in_account(MEMBER),
    );
    let auditor = auditor_of_three(&aws, "all").await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    assert_eq!(snapshot["status"], "partial");
    assert_eq!(
        snapshot["counts"]["targets"],
        json!({"complete": 4, "incomplete": 0, "failed": 2, "skipped": 0})
    );
    for region in regions {
        let target = line(&snapshot, MEMBER, region);
        assert_eq!(
            (&target["status"], &target["error"]["code"]),
            (&json!("failed"), &json!("UnauthorizedOperation"))
        );
        let message = text(&target["error"]["message"]);
        assert!(
            message.starts_with("failed to list the account's Regions: "),
            "{message}"
        );
        assert!(target["error"]["request_id"].is_string());
    }
    assert!(
        calls_of(&aws, LISTING)
            .iter()
            .all(|call| call.account != MEMBER)
    );
}

#[tokio::test]
async fn a_region_that_one_account_has_not_enabled_is_skipped_for_that_account_alone() {
    let regions = ["eu-west-1", "us-east-1"];
    let world = three_accounts(&regions);
    world.disable_region(MEMBER, "eu-west-1");
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::AuthFailure)
            .on(LISTING)
            .in_account(OTHER_MEMBER)
            .in_region("eu-west-1"),
    );
    let auditor = auditor_of_three(&aws, "eu-west-1,us-east-1").await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    let failure = Some("AuthFailure");
    let expected = [
        (ACCOUNT, "eu-west-1", "complete", None),
        (ACCOUNT, "us-east-1", "complete", None),
        (MEMBER, "eu-west-1", "skipped", failure),
        (MEMBER, "us-east-1", "complete", None),
        (OTHER_MEMBER, "eu-west-1", "failed", failure),
        (OTHER_MEMBER, "us-east-1", "complete", None),
    ];
    assert_eq!(ledger(&snapshot), expected);
    // Only the two accounts that refused a Region are asked about it.
    let asked: BTreeSet<String> = calls_of(&aws, "DescribeRegions")
        .into_iter()
        .map(|call| call.account)
        .collect();
    assert_eq!(
        asked,
        BTreeSet::from([MEMBER.to_owned(), OTHER_MEMBER.to_owned()])
    );
    assert_eq!(count_calls(&aws, "DescribeRegions"), 2);
}

/// Reports that are healthy by the system's clock.
fn put_reports_of_today(world: &World, account: &str, region: &str, count: usize) {
    let reports = healthy_reports(count).map(|mut report| {
        report.expiration_time = Some(OffsetDateTime::now_utc() + Duration::days(20));
        report
    });
    world.put_reports(account, region, reports);
}

#[tokio::test]
async fn credentials_are_renewed_before_they_run_out() {
    let world = world_of(Clock::system(), [MEMBER], &["us-east-1"]);
    // The SDK renews 5 to 10 seconds before the end: these are renewed after 4 seconds at the latest.
    world.role(
        MEMBER,
        RoleOptions {
            lifetime: Some(Duration::seconds(9)),
            ..role()
        },
    );
    put_reports_of_today(&world, MEMBER, "us-east-1", 50);
    let aws = local_aws(&world).await;
    aws.faults()
        .add(Fault::new(FaultKind::Latency { milliseconds: 100 }).on(LISTING));
    let variables = [
        ("AUDITOR_ACCOUNTS", MEMBER),
        ("AUDITOR_ROLE_NAME", ROLE),
        ("AUDITOR_PAGE_SIZE", "1"),
        ("AUDITOR_ARCHIVE_ENTRIES", "false"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    assert_eq!(ledger(&snapshot), [(MEMBER, "us-east-1", "complete", None)]);
    let asked = roles_asked_for(&aws)[MEMBER];
    assert!(asked > 1, "the role was assumed once in 5 seconds");
    assert_eq!(count_calls(&aws, LISTING), 50, "no call was refused");
}

#[tokio::test]
async fn credentials_that_run_out_during_a_run_are_renewed_once_for_all_regions() {
    let regions = ["ap-southeast-2", "eu-west-1", "us-east-1"];
    let world = world_of(Clock::system(), [MEMBER], &regions);
    world.role(
        MEMBER,
        RoleOptions {
            lifetime: Some(Duration::hours(1)),
            ..role()
        },
    );
    // Of a call on its way while the clock jumps, only the credentials run out.
    world.set_page_token_lifetime(Duration::days(1));
    for region in regions {
        put_reports_of_today(&world, MEMBER, region, 20);
    }
    let aws = local_aws(&world).await;
    aws.faults()
        .add(Fault::new(FaultKind::Latency { milliseconds: 20 }).on(LISTING));
    let variables = [
        ("AUDITOR_ACCOUNTS", MEMBER),
        ("AUDITOR_ROLE_NAME", ROLE),
        ("AUDITOR_REGIONS", "ap-southeast-2,eu-west-1,us-east-1"),
        ("AUDITOR_PAGE_SIZE", "1"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let expire = async {
        until(|| count_calls(&aws, LISTING) >= 20).await;
        world.clock().advance(Duration::hours(2));
    };
    let (summary, ()) = tokio::join!(run(&auditor, scheduled_event()), expire);
    let snapshot = checked(&aws, &summary.unwrap());
    assert_eq!(
        snapshot["counts"]["targets"]["complete"],
        3,
        "{:?}",
        ledger(&snapshot)
    );
    assert_eq!(roles_asked_for(&aws)[MEMBER], 2);
    let refused = calls_of(&aws, LISTING)
        .iter()
        .filter(|call| call.status == Some(400))
        .count();
    assert_eq!(
        refused, 3,
        "each Region met the end of the credentials once"
    );
}

#[tokio::test]
async fn credentials_that_are_refused_again_are_named() {
    let world = three_accounts(&["us-east-1"]);
    world.put_reports(MEMBER, "us-east-1", healthy_reports(3));
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::ExpireCredentials)
            .on(LISTING)
            .in_account(MEMBER),
    );
    let auditor = auditor_of_three(&aws, "us-east-1").await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    let target = line(&snapshot, MEMBER, "us-east-1");
    assert_eq!(
        (&target["status"], &target["error"]["code"]),
        (&json!("failed"), &json!("RequestExpired"))
    );
    assert_eq!(roles_asked_for(&aws)[MEMBER], 2);
}

/// Has one member's role refused for longer than the SDK tries.
async fn audit_while_the_token_service_fails(regions: &str) {
    let world = three_accounts(&["us-east-1"]);
    world.put_report(MEMBER, "us-east-1", report("amiur-1"));
    let aws = local_aws(&world).await;
    let fault = Fault::new(FaultKind::Status503).on("AssumeRole");
    aws.faults().add(fault.when(When::FirstN(16)));
    let variables = [
        ("AUDITOR_ACCOUNTS", "111122223333,222233334444"),
        ("AUDITOR_ROLE_NAME", ROLE),
        ("AUDITOR_REGIONS", regions),
    ];
    let auditor = auditor(&aws, &variables).await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    let expected = [
        (ACCOUNT, "us-east-1", "complete", None),
        (MEMBER, "us-east-1", "complete", None),
    ];
    assert_eq!(ledger(&snapshot), expected);
    // Where the Regions are asked for twice, each of the two looks has credentials of its own.
    let asked = roles_asked_for(&aws)[MEMBER];
    assert!((17..=18).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_token_service_that_fails_for_a_while_costs_nothing() {
    audit_while_the_token_service_fails("us-east-1").await;
}

#[tokio::test]
async fn a_token_service_that_fails_while_regions_are_asked_for_costs_nothing() {
    audit_while_the_token_service_fails("all").await;
}

#[tokio::test]
async fn a_token_service_that_does_not_answer_is_named() {
    let world = three_accounts(&["us-east-1"]);
    let aws = local_aws(&world).await;
    aws.faults()
        .add(Fault::new(FaultKind::Status503).on("AssumeRole"));
    let auditor = auditor_of_three(&aws, "us-east-1").await;
    let snapshot = checked(&aws, &run(&auditor, scheduled_event()).await.unwrap());
    let target = line(&snapshot, MEMBER, "us-east-1");
    assert_eq!(target["status"], "failed");
    assert_eq!(target["error"]["code"], "ServiceUnavailable", "{target}");
}

#[tokio::test]
async fn throttled_accounts_use_up_no_retries_of_the_others() {
    let throttled: Vec<String> = (0..30)
        .map(|number| format!("{:012}", 400_000_000_000_u64 + number))
        .collect();
    let members = throttled
        .iter()
        .map(String::as_str)
        .chain([MEMBER, OTHER_MEMBER]);
    let world = world_of(Clock::fixed(now()), members, &["us-east-1"]);
    for account in [ACCOUNT, MEMBER, OTHER_MEMBER] {
        world.put_reports(account, "us-east-1", healthy_reports(20));
    }
    let aws = local_aws(&world).await;
    for account in &throttled {
        aws.faults().add(
            Fault::new(FaultKind::Throttle)
                .on(LISTING)
                .in_account(account),
        );
    }
    let half = When::Probability { p: 0.5, seed: 3 };
    aws.faults().add(
        Fault::new(FaultKind::Status500)
            .on(LISTING)
            .in_account(MEMBER)
            .when(half),
    );
    // Slow enough for the throttled ones to have used up what all would share.
    aws.faults().add(
        Fault::new(FaultKind::Latency { milliseconds: 60 })
            .on(LISTING)
            .in_account(MEMBER),
    );
    let accounts = throttled
        .iter()
        .map(String::as_str)
        .chain([ACCOUNT, MEMBER, OTHER_MEMBER]);
    let accounts = accounts.collect::<Vec<_>>().join(",");
    let variables = [
        ("AUDITOR_ACCOUNTS", accounts.as_str()),
        ("AUDITOR_ROLE_NAME", ROLE),
        ("AUDITOR_PAGE_SIZE", "1"),
        ("AUDITOR_MAX_CONCURRENT_TARGETS", "64"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let snapshot = checked(&aws, &run_within(&auditor, Wait::from_secs(10)).await);
    for (account, _, status, code) in ledger(&snapshot) {
        let expected = match account {
            ACCOUNT | MEMBER | OTHER_MEMBER => ("complete", None),
            _ => ("failed", Some("DeadlineExceeded")),
        };
        assert_eq!((status, code), expected, "{account}");
    }
    let retries = calls_of(&aws, LISTING)
        .iter()
        .filter(|call| call.status == Some(503))
        .count();
    assert!(
        retries > 100,
        "{retries} retries would not have used up what all share"
    );
}

#[tokio::test]
async fn an_account_that_is_throttled_to_the_end_is_named_and_slows_no_other() {
    let world = three_accounts(&["us-east-1"]);
    for account in [ACCOUNT, MEMBER, OTHER_MEMBER] {
        world.put_reports(account, "us-east-1", healthy_reports(10));
    }
    let aws = local_aws(&world).await;
    aws.faults().add(
        Fault::new(FaultKind::Throttle)
            .on(LISTING)
            .in_account(MEMBER),
    );
    let half = When::Probability { p: 0.5, seed: 5 };
    aws.faults().add(
        Fault::new(FaultKind::Status500)
            .on(LISTING)
            .in_account(OTHER_MEMBER)
            .when(half),
    );
    let variables = [
        THREE_ACCOUNTS[0],
        THREE_ACCOUNTS[1],
        ("AUDITOR_PAGE_SIZE", "1"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let others_are_done = async {
        until(|| count_calls(&aws, "PutObject") >= 4).await;
        count_calls(&aws, LISTING)
    };
    let (summary, calls_by_then) = tokio::join!(run(&auditor, scheduled_event()), others_are_done);
    let snapshot = checked(&aws, &summary.unwrap());
    let outcomes: Vec<_> = ledger(&snapshot)
        .iter()
        .map(|line| (line.2, line.3))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("complete", None),
            ("failed", Some("RequestLimitExceeded")),
            ("complete", None)
        ]
    );
    assert!(
        calls_by_then < count_calls(&aws, LISTING),
        "the others waited for the throttled one"
    );
    // Both looks, with every attempt of the SDK.
    let throttled = calls_of(&aws, LISTING)
        .iter()
        .filter(|call| call.account == MEMBER)
        .count();
    assert_eq!(throttled, 30);
}

#[tokio::test]
async fn three_thousand_four_hundred_targets_are_all_in_the_ledger_and_each_failure_is_named() {
    let members: Vec<String> = (1..200)
        .map(|number| format!("{:012}", 222_200_000_000_u64 + number))
        .collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let world = world_of(
        Clock::fixed(now()),
        members.iter().copied(),
        &CLASSIC_REGIONS,
    );
    for (number, account) in [ACCOUNT].iter().chain(&members).enumerate() {
        world.organization_account(account, "ACTIVE");
        for (place, region) in CLASSIC_REGIONS.into_iter().enumerate() {
            world.put_reports(account, region, healthy_reports((number + place) % 3));
        }
    }
    let mut expected: BTreeMap<(&str, &str), (&str, &str)> = BTreeMap::new();
    let aws = local_aws(&world).await;
    let other = |code: &str| FaultKind::Error {
        status: 400,
        code: code.to_owned(),
        message: "no".to_owned(),
    };
    for (number, (kind, code)) in [
        (FaultKind::Denied, "UnauthorizedOperation"),
        (FaultKind::AuthFailure, "AuthFailure"),
        (FaultKind::ExpireCredentials, "RequestExpired"),
        (other("OptInRequired"), "OptInRequired"),
        (other("Blocked"), "Blocked"),
        (other("InvalidParameterValue"), "InvalidParameterValue"),
    ]
    .into_iter()
    .enumerate()
    {
        for turn in 0..2 {
            let (account, region) = (
                members[10 + 20 * number + turn],
                CLASSIC_REGIONS[number + turn],
            );
            aws.faults().add(
                Fault::new(kind.clone())
                    .on(LISTING)
                    .in_account(account)
                    .in_region(region),
            );
            expected.insert((account, region), ("failed", code));
        }
    }
    // Outlasts all attempts of the first look, and is over at the second.
    let throttled = (members[150], "eu-west-1");
    aws.faults().add(
        Fault::new(FaultKind::Throttle)
            .on(LISTING)
            .in_account(throttled.0)
            .in_region(throttled.1)
            .when(When::FirstN(16)),
    );
    for (account, region) in [
        (members[160], "sa-east-1"),
        (members[161], "ap-south-1"),
        (members[162], "us-west-1"),
    ] {
        world.disable_region(account, region);
        expected.insert((account, region), ("skipped", "AuthFailure"));
    }
    let without_role = members[170];
    world.role(
        without_role,
        RoleOptions {
            deny: true,
            ..role()
        },
    );
    expected
        .extend(CLASSIC_REGIONS.map(|region| ((without_role, region), ("failed", "AccessDenied"))));
    let regions = CLASSIC_REGIONS.join(",");
    let variables = [
        ("AUDITOR_ACCOUNTS", "organization"),
        ("AUDITOR_ROLE_NAME", ROLE),
        ("AUDITOR_REGIONS", regions.as_str()),
        ("AUDITOR_MAX_CONCURRENT_TARGETS", "32"),
    ];
    let summary = run(&auditor(&aws, &variables).await, scheduled_event())
        .await
        .unwrap();
    let snapshot = checked(&aws, &summary);
    assert_eq!(snapshot["status"], "partial");
    let lines = ledger(&snapshot);
    assert_eq!(lines.len(), 3_400);
    assert!(lines.is_sorted_by_key(|line| (line.0, line.1)));
    for (account, region, status, code) in lines {
        let expected = match expected.get(&(account, region)) {
            Some((status, code)) => (*status, Some(*code)),
            None => ("complete", None),
        };
        assert_eq!((status, code), expected, "{account}/{region}");
    }
    assert_eq!(
        snapshot["counts"]["targets"],
        json!({"complete": 3_368, "incomplete": 0, "failed": 29, "skipped": 3})
    );
    let once: BTreeSet<usize> = roles_asked_for(&aws).into_values().collect();
    // Those whose credentials were refused were asked for others.
    assert_eq!(once, BTreeSet::from([1, 2]));
}

// On several threads, as in a function with memory for several cores.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_run_makes_few_calls_beyond_its_pages_and_objects() {
    let members: Vec<String> = (1..40)
        .map(|number| format!("{:012}", 222_200_000_000_u64 + number))
        .collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let regions = ["ap-southeast-2", "eu-west-1", "us-east-1"];
    let world = world_of(Clock::fixed(now()), members.iter().copied(), &regions);
    for account in [ACCOUNT].iter().chain(&members) {
        world.organization_account(account, "ACTIVE");
        for region in regions {
            world.put_reports(account, region, healthy_reports(5));
        }
    }
    let aws = local_aws(&world).await;
    let variables = [
        ("AUDITOR_ACCOUNTS", "organization"),
        ("AUDITOR_ROLE_NAME", ROLE),
        ("AUDITOR_REGIONS", "all"),
        ("AUDITOR_PAGE_SIZE", "2"),
    ];
    let (accounts, targets) = (40, 40 * regions.len());
    let auditor = auditor(&aws, &variables).await;
    // The first run reads the entries of every report, in one page, and as there are none asks for the
    // reports once more. The second one takes that over, from the snapshot and the lines of the first. Each
    // reads the AMIs, in one page, and writes their lines.
    for (day, pages, objects, read) in [
        (22, 3 + 1 + 3 + 1, 3 * targets, 2),
        (23, 3 + 1, 2 * targets, 3 + 2 * targets),
    ] {
        aws.clear_calls();
        let mut event = scheduled_event();
        event["id"] = json!(format!("{day}"));
        event["time"] = json!(format!("2026-11-{day}T06:00:00Z"));
        let snapshot = checked(&aws, &run(&auditor, event).await.unwrap());
        assert_eq!(snapshot["status"], "complete");
        let pages = pages * targets;
        let calls = aws.calls();
        // Each entries object of an earlier run is looked for once.
        let looks = if day == 22 { 0 } else { targets };
        let data = objects + read.saturating_sub(3) + looks;
        let most = pages + accounts / 20 + data + 2 * accounts + 7;
        assert!(calls.len() <= most, "{} calls and not {most}", calls.len());
        let mut by_operation: BTreeMap<&str, usize> = BTreeMap::new();
        for call in &calls {
            *by_operation.entry(&call.operation).or_default() += 1;
        }
        let entries = by_operation.remove("DescribeImageUsageReportEntries");
        assert_eq!(entries, (day == 22).then_some(targets));
        // The roles that are assumed last for an hour, and are not asked for again.
        assert_eq!(by_operation.remove("HeadObject").unwrap_or(0), looks);
        let roles = by_operation.remove("AssumeRole").unwrap_or(0);
        assert!(roles < accounts, "{roles}");
        let expected = BTreeMap::from([
            (
                "DescribeImageUsageReports",
                pages - targets - entries.unwrap_or(0),
            ),
            ("DescribeImages", targets),
            ("DescribeRegions", accounts),
            // The snapshot, the latest one, the previous one, and what it names.
            ("GetObject", read),
            ("ListAccounts", accounts / 20),
            // Two of the run, and its page twice.
            ("PutObject", objects + 2 + 2),
        ]);
        assert_eq!(by_operation, expected);
    }
}
