//! Coverage of AMIs by reports, and the requests for new ones.

mod simulation;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration as Wait, Instant};

use image_usage_archive::source::Source;
use image_usage_archive::verify::{Options, verify};
use image_usage_auditor::audit::{Auditor, Summary};
use insta::{assert_compact_json_snapshot, assert_snapshot};
use local_aws::{
    Call, CreationOutcome, Fault, FaultKind, Image, LocalAws, Report, ResourceType, When, World,
};
use serde_json::{Value, json};
use time::Duration;

use crate::harness::{
    ACCOUNT, Archive, But, LISTING, OTHER_REGION, REGION, TWO_REGIONS, auditor, count_calls,
    event_at, invocation, invocation_at, line_by_line, local_aws, now, report, run_at, status,
    summary_of, target, text, world,
};

const REQUEST: &str = "CreateImageUsageReport";
const RENEW: (&str, &str) = ("AUDITOR_RENEW_REPORTS", "true");

fn ami(number: usize) -> String {
    format!("ami-{number:017x}")
}

/// AMIs with these numbers, which nobody uses.
fn put_images(world: &World, region: &str, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        let created = now() - Duration::days(400);
        let image = Image::new(ami(number)).created_at(created);
        world.put_image(ACCOUNT, region, image);
    }
}

/// An adequate report about an AMI, available.
fn adequate(number: usize, age: Duration) -> Report {
    let depth = |name: &str| ResourceType::new(name).option("version-depth", &["10000"]);
    let plain = ResourceType::new;
    Report {
        resource_types: vec![
            plain("ec2:Instance"),
            depth("ec2:LaunchTemplate"),
            plain("imagebuilder:ImageRecipe"),
            plain("imagebuilder:ContainerRecipe"),
        ],
        ..report(&format!("amiur-{number:04}{}", age.whole_hours()))
            .of_image(&ami(number))
            .created_ago(age)
    }
}

async fn renewing(aws: &LocalAws, variables: &[(&str, &str)]) -> Auditor {
    let variables = [&[RENEW], variables].concat();
    auditor(aws, &variables).await.with_renewal_pace(Wait::ZERO)
}

/// Runs now. The reports that the run asks for are younger than its listing.
async fn run_now(aws: &LocalAws, auditor: &Auditor) -> Value {
    aws.clear_calls();
    let summary = run_at(auditor, aws.world().clock().now()).await.unwrap();
    Archive::of(aws).snapshot(&summary)
}

/// The AMIs that EC2 was asked about, in order.
fn requested(aws: &LocalAws) -> Vec<String> {
    let calls = aws.calls().into_iter();
    let requests = calls.filter(|call| call.operation == REQUEST);
    requests
        .map(|call| call.parameters["ImageId"].clone())
        .collect()
}

/// The coverage of each AMI of a Region.
fn coverage(aws: &LocalAws, snapshot: &Value, region: &str) -> BTreeMap<String, Value> {
    let lines = Archive::of(aws)
        .images_of(target(snapshot, region))
        .into_iter();
    lines
        .map(|line| (text(&line["image_id"]).to_owned(), line["coverage"].clone()))
        .collect()
}

async fn assert_verifies(aws: &LocalAws) {
    let folder = aws.archive_root().join("archive/image-usage");
    let verdict = verify(&Source::Folder(folder), &Options::default())
        .await
        .unwrap();
    assert!(verdict.is_clean(), "{verdict}");
}

#[tokio::test]
async fn a_run_asks_for_reports_about_amis_without_a_recent_one_and_for_no_others() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 1..=6);
    let narrow = Report {
        resource_types: vec![ResourceType::new("ec2:Instance")],
        ..adequate(5, Duration::DAY)
    };
    world.put_reports(
        ACCOUNT,
        REGION,
        [
            adequate(2, Duration::days(2)),
            adequate(3, Duration::days(8)),
            adequate(4, Duration::days(20)),
            narrow,
            adequate(6, Duration::HOUR).in_state("pending"),
        ],
    );
    let aws = local_aws(&world).await;
    let auditor = renewing(&aws, &[]).await;
    let snapshot = run_now(&aws, &auditor).await;
    // Never reported, then the oldest.
    assert_eq!(requested(&aws), [ami(1), ami(5), ami(4), ami(3)]);
    assert_compact_json_snapshot!(target(&snapshot, REGION)["renewals"], @r#"{"deferred": 0, "error": null, "failed": 0, "requested": 4}"#);
    assert_compact_json_snapshot!(coverage(&aws, &snapshot, REGION), @r#"
    {
      "ami-00000000000000001": "uncovered",
      "ami-00000000000000002": "covered",
      "ami-00000000000000003": "covered",
      "ami-00000000000000004": "uncovered",
      "ami-00000000000000005": "uncovered",
      "ami-00000000000000006": "pending"
    }
    "#);
    let calls = aws.calls();
    let call = calls.iter().find(|call| call.operation == REQUEST).unwrap();
    let parameters = call
        .parameters
        .iter()
        .map(|(name, value)| format!("{name} {value}"));
    assert_snapshot!(parameters.collect::<Vec<_>>().join("\n"), @"
    Action CreateImageUsageReport
    ClientToken 9604f6fd12d99445e98d81caa1be6bbe
    ImageId ami-00000000000000001
    ResourceType.1.ResourceType ec2:Instance
    ResourceType.2.ResourceType ec2:LaunchTemplate
    ResourceType.2.ResourceTypeOption.1.OptionName version-depth
    ResourceType.2.ResourceTypeOption.1.OptionValue.1 10000
    ResourceType.3.ResourceType imagebuilder:ContainerRecipe
    ResourceType.4.ResourceType imagebuilder:ImageRecipe
    TagSpecification.1.ResourceType image-usage-report
    TagSpecification.1.Tag.1.Key managed-by
    TagSpecification.1.Tag.1.Value image-usage-auditor
    TagSpecification.1.Tag.2.Key auditor-run
    TagSpecification.1.Tag.2.Value 20261122T060005Z-308cb07a
    Version 2016-11-15
    ");
    let findings = snapshot["findings"].as_array().unwrap().iter();
    let uncovered: Vec<String> = findings
        .filter(|finding| finding["kind"] == "uncovered")
        .map(|finding| {
            format!(
                "{} {}",
                text(&finding["image_id"]),
                text(&finding["message"])
            )
        })
        .collect();
    assert_snapshot!(uncovered.join("\n"), @"
    ami-00000000000000001 EC2 lists no report about the AMI: the auditor asks for one; see `renewals` of the target
    ami-00000000000000004 the newest report that covers everything is 20 days 0 hours old, and the limit is 14 days: the auditor asks for one; see `renewals` of the target
    ami-00000000000000005 no report covers all accounts, every known resource type and 1000 versions of each launch template: the auditor asks for one; see `renewals` of the target
    ");
    assert_eq!(snapshot["counts"]["findings"]["uncovered"], 3);
    assert_eq!(snapshot["counts"]["images"]["uncovered"], 3);

    world.clock().advance(Duration::DAY);
    let snapshot = run_now(&aws, &auditor).await;
    assert_eq!(requested(&aws), [""; 0]);
    assert_compact_json_snapshot!(target(&snapshot, REGION)["renewals"], @r#"{"deferred": 0, "error": null, "failed": 0, "requested": 0}"#);
    let covered = coverage(&aws, &snapshot, REGION);
    // EC2 never finishes the report about the last one.
    assert_eq!(
        covered.values().filter(|word| *word == "covered").count(),
        5
    );
    assert_eq!(covered[&ami(6)], "uncovered");
    let changes = &snapshot["changes"];
    assert_compact_json_snapshot!(changes["resolved"], @r#"
    [
      "111122223333/us-east-1/ami-00000000000000001/uncovered",
      "111122223333/us-east-1/ami-00000000000000004/uncovered",
      "111122223333/us-east-1/ami-00000000000000005/uncovered"
    ]
    "#);
    assert_compact_json_snapshot!(changes["opened"], @r#"["111122223333/us-east-1/ami-00000000000000006/uncovered", "111122223333/us-east-1/amiur-00061/stuck"]"#);
    assert_verifies(&aws).await;
}

#[tokio::test]
async fn without_the_setting_nothing_is_asked_and_the_ledger_says_so() {
    let world = world(&[REGION]);
    put_images(&world, REGION, [1]);
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[]).await;
    let snapshot = run_now(&aws, &auditor).await;
    assert_eq!(count_calls(&aws, REQUEST), 0);
    assert_eq!(target(&snapshot, REGION)["renewals"], Value::Null);
    assert_eq!(snapshot["counts"]["images"]["uncovered"], 1);
    assert_verifies(&aws).await;
}

#[tokio::test]
async fn only_amis_with_the_tag_count() {
    let world = world(&[REGION]);
    let image = |number, team: &str| Image::new(ami(number)).tagged("Team", team);
    for image in [image(1, "golden"), image(2, "other"), Image::new(ami(3))] {
        world.put_image(ACCOUNT, REGION, image);
    }
    let aws = local_aws(&world).await;
    let auditor = renewing(&aws, &[("AUDITOR_IMAGE_TAG", "Team=golden")]).await;
    let snapshot = run_now(&aws, &auditor).await;
    assert_eq!(requested(&aws), [ami(1)]);
    assert_compact_json_snapshot!(coverage(&aws, &snapshot, REGION), @r#"{"ami-00000000000000001": "uncovered", "ami-00000000000000002": null, "ami-00000000000000003": null}"#);
    assert_eq!(snapshot["policy"]["image_tag"], "Team=golden");
    assert_verifies(&aws).await;
}

#[tokio::test]
async fn a_refusal_costs_its_ami_only() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 1..=5);
    let aws = local_aws(&world).await;
    let refuse = |number, code: &str| {
        let kind = FaultKind::Error {
            status: 400,
            code: code.to_owned(),
            message: "no".to_owned(),
        };
        aws.faults()
            .add(Fault::new(kind).on(REQUEST).when(When::Nth(number)));
    };
    refuse(1, "IncorrectState");
    refuse(2, "IncorrectState");
    refuse(3, "OperationNotPermitted");
    let auditor = renewing(&aws, &[]).await;
    let snapshot = run_now(&aws, &auditor).await;
    assert_eq!(requested(&aws).len(), 5);
    let renewals = &target(&snapshot, REGION)["renewals"];
    assert_eq!(
        (&renewals["requested"], &renewals["failed"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(renewals["error"]["code"], "IncorrectState");
    assert_eq!(status(&snapshot, REGION), "complete");
    aws.faults().clear();
    world.clock().advance(Duration::DAY);
    let snapshot = run_now(&aws, &auditor).await;
    assert_eq!(target(&snapshot, REGION)["renewals"]["requested"], 3);
    assert_verifies(&aws).await;
}

#[tokio::test]
async fn three_refusals_in_a_row_with_the_same_code_end_the_renewals_of_their_target() {
    let world = world(&TWO_REGIONS);
    for region in TWO_REGIONS {
        put_images(&world, region, 1..=9);
    }
    let aws = local_aws(&world).await;
    let denied = Fault::new(FaultKind::Denied).on(REQUEST);
    aws.faults().add(denied.in_region(OTHER_REGION));
    let regions = TWO_REGIONS.join(",");
    let auditor = renewing(&aws, &[("AUDITOR_REGIONS", &regions)]).await;
    let snapshot = run_now(&aws, &auditor).await;
    let renewals = |region| target(&snapshot, region)["renewals"].clone();
    let mut refused = renewals(OTHER_REGION);
    assert_eq!(refused["error"]["code"], "UnauthorizedOperation");
    refused["error"] = Value::Null;
    assert_compact_json_snapshot!(refused, @r#"{"deferred": 6, "error": null, "failed": 3, "requested": 0}"#);
    assert_compact_json_snapshot!(renewals(REGION), @r#"{"deferred": 0, "error": null, "failed": 0, "requested": 9}"#);
    assert_eq!(snapshot["status"], "complete");
    assert_verifies(&aws).await;
}

#[tokio::test]
async fn amis_that_ec2_refuses_every_time_do_not_keep_the_others_from_their_reports() {
    let world = world(&[REGION]);
    // EC2 refuses the first ones, which come first every day.
    put_images(&world, REGION, 1..=20);
    for number in 16..=20 {
        let age = Duration::days(8);
        world.put_report(ACCOUNT, REGION, adequate(number, age));
    }
    let aws = local_aws(&world).await;
    for number in 1..=15 {
        let kind = FaultKind::Error {
            status: 400,
            code: "InvalidAMIID.Unavailable".to_owned(),
            message: "no".to_owned(),
        };
        aws.faults()
            .add(Fault::new(kind).on(REQUEST).asking_about(&ami(number)));
    }
    let auditor = renewing(&aws, &[]).await;
    let snapshot = run_now(&aws, &auditor).await;
    let mut renewals = target(&snapshot, REGION)["renewals"].clone();
    renewals["error"]["message"] = Value::Null;
    renewals["error"]["request_id"] = Value::Null;
    assert_compact_json_snapshot!(renewals, @r#"
    {
      "deferred": 2,
      "error": {
        "code": "InvalidAMIID.Unavailable",
        "message": null,
        "request_id": null
      },
      "failed": 13,
      "requested": 5
    }
    "#);
}

#[tokio::test]
async fn disabled_amis_come_last_and_amis_of_others_are_never_asked_about() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 1..=4);
    world.disable_image(ACCOUNT, REGION, &ami(1));
    world.deregister_image(ACCOUNT, REGION, &ami(2));
    world.put_image("444455556666", REGION, Image::new(ami(9)).public());
    world.put_report(ACCOUNT, REGION, adequate(3, Duration::days(9)));
    let aws = local_aws(&world).await;
    let auditor = renewing(&aws, &[]).await;
    let snapshot = run_now(&aws, &auditor).await;
    assert_eq!(requested(&aws), [ami(4), ami(3), ami(1)]);
    let renewals = &target(&snapshot, REGION)["renewals"];
    assert_eq!(renewals["error"]["code"], "InvalidAMIID.Unavailable");
    assert_eq!(renewals["failed"], 1);
}

#[tokio::test]
async fn a_target_of_which_not_everything_was_read_gets_no_reports() {
    for operation in [LISTING, "DescribeImages"] {
        let world = world(&TWO_REGIONS);
        put_images(&world, REGION, 1..=3);
        world.put_report(ACCOUNT, REGION, adequate(1, Duration::days(20)));
        let aws = local_aws(&world).await;
        let auditor = renewing(&aws, &[("AUDITOR_REGIONS", "us-east-1,eu-west-1")]).await;
        run_now(&aws, &auditor).await;
        world.clock().advance(Duration::days(20));
        let denied = Fault::new(FaultKind::Denied)
            .on(operation)
            .in_region(REGION);
        aws.faults().add(denied);
        world.put_image(ACCOUNT, OTHER_REGION, Image::new(ami(7)));
        let snapshot = run_now(&aws, &auditor).await;
        assert_eq!(requested(&aws), [ami(7)], "{operation}");
        assert_eq!(target(&snapshot, REGION)["renewals"], Value::Null);
        let coverage = coverage(&aws, &snapshot, REGION);
        assert_eq!(coverage.len(), 3, "{operation}");
        assert!(coverage.values().all(Value::is_null), "{coverage:?}");
        assert_verifies(&aws).await;
    }
}

#[tokio::test]
async fn a_finding_is_unseen_while_the_amis_cannot_be_read() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 1..=2);
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[]).await;
    let mut findings = Vec::new();
    for denied in [false, false, true, false] {
        aws.faults().clear();
        if denied {
            aws.faults()
                .add(Fault::new(FaultKind::Denied).on("DescribeImages"));
        }
        let snapshot = run_now(&aws, &auditor).await;
        findings.push(snapshot["changes"]["findings"].to_string());
        world.clock().advance(Duration::DAY);
    }
    assert_snapshot!(findings.join("\n"), @r#"
    null
    {"continuing":2,"opened":0,"resolved":0,"unseen":0}
    {"continuing":0,"opened":0,"resolved":0,"unseen":2}
    {"continuing":0,"opened":2,"resolved":0,"unseen":0}
    "#);
}

#[tokio::test]
async fn a_retry_of_a_finished_run_asks_nothing() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 1..=3);
    let aws = local_aws(&world).await;
    let auditor = renewing(&aws, &[]).await;
    run_now(&aws, &auditor).await;
    assert_eq!(requested(&aws).len(), 3);
    aws.clear_calls();
    let again = run_at(&auditor, now()).await.unwrap();
    assert!(again.already_archived);
    assert_eq!(count_calls(&aws, REQUEST), 0);
}

/// One attempt at a run, which is killed once EC2 has had so many requests.
async fn killed_after(aws: &LocalAws, auditor: &Auditor, requests: usize) -> Option<Summary> {
    let time = aws.world().clock().now();
    let (event, invocation) = (event_at(now()), invocation_at(time));
    let attempt = auditor.handle(event, invocation);
    let killed = async {
        while count_calls(aws, REQUEST) < requests {
            tokio::time::sleep(Wait::from_millis(1)).await;
        }
    };
    tokio::select! {
        answer = attempt => Some(summary_of(answer.unwrap())),
        () = killed => None,
    }
}

#[tokio::test]
async fn an_attempt_that_dies_and_its_retry_ask_for_each_report_once() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 1..=40);
    let aws = local_aws(&world).await;
    let auditor = renewing(&aws, &[]).await;
    assert!(killed_after(&aws, &auditor, 15).await.is_none());
    let asked_before = world.reports(ACCOUNT, REGION).len();
    assert!((15..40).contains(&asked_before), "{asked_before}");
    world.clock().advance(Duration::MINUTE);
    let summary = killed_after(&aws, &auditor, usize::MAX).await.unwrap();
    let snapshot = Archive::of(&aws).snapshot(&summary);
    let requested = target(&snapshot, REGION)["renewals"]["requested"].as_u64();
    // One more may have been on its way when the attempt died.
    let left = 40 - asked_before as u64;
    assert!(
        (left - 1..=left).contains(&requested.unwrap()),
        "{requested:?} of {left}"
    );
    assert_one_report_each(&world, 40);
}

fn assert_one_report_each(world: &World, images: usize) {
    let reports = world.reports(ACCOUNT, REGION);
    let about: BTreeSet<String> = reports
        .iter()
        .filter_map(|one| one.image_id.clone())
        .collect();
    assert_eq!((reports.len(), about.len()), (images, images));
}

#[tokio::test]
async fn a_listing_that_lags_behind_makes_a_retry_ask_again_and_ec2_returns_the_same_report() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 1..=20);
    let aws = local_aws(&world).await;
    let auditor = renewing(&aws, &[]).await;
    assert!(killed_after(&aws, &auditor, 10).await.is_none());
    // What the first attempt asked for is not listed yet.
    let lagging = Fault::new(FaultKind::EmptyPage)
        .on(LISTING)
        .when(When::Nth(0));
    aws.faults().add(lagging);
    aws.clear_calls();
    killed_after(&aws, &auditor, usize::MAX).await.unwrap();
    assert_one_report_each(&world, 20);
}

#[tokio::test]
async fn answers_that_get_lost_make_no_second_report() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 1..=10);
    let aws = local_aws(&world).await;
    for (seed, kind) in (1..).zip([FaultKind::CloseBeforeAnswer, FaultKind::Status500]) {
        let fault = Fault::new(kind).on(REQUEST).after_effect();
        aws.faults()
            .add(fault.when(When::Probability { p: 0.3, seed }));
    }
    let auditor = renewing(&aws, &[]).await;
    let snapshot = run_now(&aws, &auditor).await;
    assert_eq!(target(&snapshot, REGION)["renewals"]["requested"], 10);
    assert!(count_calls(&aws, REQUEST) > 10);
    assert_one_report_each(&world, 10);
}

#[tokio::test]
async fn scoped_runs_ask_for_nothing() {
    let world = world(&[REGION]);
    put_images(&world, REGION, [1]);
    let aws = local_aws(&world).await;
    let auditor = renewing(&aws, &[]).await;
    let payload = json!({"regions": [REGION]});
    let answer = auditor.handle(payload, invocation()).await.unwrap();
    let snapshot = Archive::of(&aws).snapshot(&summary_of(answer));
    assert_eq!(count_calls(&aws, REQUEST), 0);
    assert_eq!(target(&snapshot, REGION)["renewals"], Value::Null);
    assert_verifies(&aws).await;
}

#[tokio::test]
async fn a_preflight_asks_whether_reports_may_be_asked_for_and_asks_for_none() {
    let world = world(&TWO_REGIONS);
    put_images(&world, REGION, [1]);
    put_images(&world, OTHER_REGION, [2]);
    let aws = local_aws(&world).await;
    let denied = Fault::new(FaultKind::Denied).on(REQUEST);
    aws.faults().add(denied.in_region(OTHER_REGION));
    let regions = TWO_REGIONS.join(",");
    let variables = [("AUDITOR_REGIONS", regions.as_str())];
    let preflight = async |auditor: Auditor| {
        let answer = auditor.handle(json!({"dry_run": true}), invocation()).await;
        serde_json::to_value(answer.unwrap()).unwrap()
    };
    let answer = preflight(renewing(&aws, &variables).await).await;
    assert_compact_json_snapshot!(answer["counts"], @r#"{"denied": 1, "failed": 0, "permitted": 1}"#);
    assert_snapshot!(text(&answer["errors"][0]["message"])[..80], @"asking for reports: You are not authorized to perform this operation. User: arn:");
    assert_eq!(world.reports(ACCOUNT, REGION).len(), 0);
    let calls = aws.calls();
    let is_real =
        |call: &&Call| call.operation == REQUEST && !call.parameters.contains_key("DryRun");
    assert_eq!(calls.iter().find(is_real), None);
    // EC2 can only be asked about AMIs that exist.
    assert_eq!(
        BTreeSet::from_iter(requested(&aws)),
        [ami(1), ami(2)].into()
    );

    world.deregister_image(ACCOUNT, OTHER_REGION, &ami(2));
    let answer = preflight(renewing(&aws, &variables).await).await;
    assert_eq!(answer["counts"]["permitted"], 2);

    let answer = preflight(auditor(&aws, &variables).await).await;
    assert_eq!(answer["counts"]["permitted"], 2);
}

#[tokio::test]
async fn an_ami_whose_reports_always_fail_is_asked_about_at_growing_distances() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 1..=2);
    world.fail_reports_of(&ami(1), true);
    let aws = local_aws(&world).await;
    let auditor = renewing(&aws, &[]).await;
    let mut days: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for day in 0..30 {
        run_now(&aws, &auditor).await;
        for image_id in requested(&aws) {
            days.entry(image_id).or_default().push(day);
        }
        world.clock().advance(Duration::DAY);
    }
    assert_eq!(days[&ami(1)], [0, 1, 2, 4, 8, 16]);
    assert_eq!(days[&ami(2)], [0, 7, 14, 21, 28]);
}

#[tokio::test]
async fn requests_are_at_least_a_quarter_of_a_second_apart() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 1..=5);
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[RENEW]).await;
    let started = Instant::now();
    run_now(&aws, &auditor).await;
    assert!(
        started.elapsed() >= Wait::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(requested(&aws).len(), 5);
}

#[tokio::test]
async fn what_the_time_of_a_run_does_not_allow_is_left_to_the_next() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 1..=20);
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[RENEW]).await;
    let started = now();
    let invocation = image_usage_auditor::audit::Invocation {
        time_left: Some(Wait::from_secs(4)),
        ..invocation_at(started)
    };
    let answer = auditor.handle(event_at(started), invocation).await.unwrap();
    let snapshot = Archive::of(&aws).snapshot(&summary_of(answer));
    let renewals = &target(&snapshot, REGION)["renewals"];
    let count = |name: &str| renewals[name].as_u64().unwrap();
    assert!((1..=16).contains(&count("requested")), "{renewals}");
    assert_eq!(count("requested") + count("deferred"), 20);
    assert_eq!(renewals["error"]["code"], "DeadlineExceeded");
    assert_verifies(&aws).await;
}

#[tokio::test]
async fn no_more_than_500_reports_are_asked_for_in_a_target_and_run() {
    let world = world(&[REGION]);
    put_images(&world, REGION, 0..620);
    world.set_creation_outcome(CreationOutcome {
        delay: Duration::MINUTE,
        ..CreationOutcome::default()
    });
    let aws = local_aws(&world).await;
    let auditor = renewing(&aws, &[]).await;
    let snapshot = run_now(&aws, &auditor).await;
    assert_compact_json_snapshot!(target(&snapshot, REGION)["renewals"], @r#"{"deferred": 120, "error": null, "failed": 0, "requested": 500}"#);
    world.clock().advance(Duration::DAY);
    let snapshot = run_now(&aws, &auditor).await;
    assert_compact_json_snapshot!(target(&snapshot, REGION)["renewals"], @r#"{"deferred": 0, "error": null, "failed": 0, "requested": 120}"#);
    assert_snapshot!(line_by_line(&snapshot["changes"]["findings"]), @"
    continuing: 120
    opened: 0
    resolved: 500
    unseen: 0
    ");
}
