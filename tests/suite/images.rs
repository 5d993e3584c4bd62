//! The lines of AMIs that a run writes: who uses them, and what is not known.

use std::collections::BTreeMap;
use std::fs;

use insta::assert_snapshot;
use local_aws::{Fault, FaultKind, Image, Report, Resource, ResourceType, When};
use serde_json::{Value, json};
use time::Duration;

use crate::harness::{
    ACCOUNT, But, Days, LISTING, REGION, TWO_REGIONS, count_calls, line_by_line, overwrite,
    run_within, target, targets, text, usage, used, will_be_harmed,
};

pub(crate) const IN_USE: &str = "ami-00000000000000001";
pub(crate) const IDLE: &str = "ami-00000000000000002";
pub(crate) const IMAGES: &str = "DescribeImages";
pub(crate) const REFERENCES: &str = "DescribeImageReferences";

/// A report that asks about everything.
fn adequate(id: &str, image_id: &str) -> Report {
    let kinds = [
        "ec2:Instance",
        "imagebuilder:ImageRecipe",
        "imagebuilder:ContainerRecipe",
    ];
    let mut resource_types = kinds.map(ResourceType::new).to_vec();
    resource_types
        .push(ResourceType::new("ec2:LaunchTemplate").option("version-depth", &["10000"]));
    Report {
        resource_types,
        ..used(id, 0).of_image(image_id)
    }
}

fn put_image(days: &Days, id: &str) {
    let created = days.world.clock().now() - Duration::days(400);
    let image = Image::new(id).named("golden").created_at(created);
    days.world.put_image(ACCOUNT, REGION, image);
}

/// One AMI in use, and one that five weekly reports show nobody to use; with an observation time of 20 days.
pub(crate) async fn two_amis() -> Days {
    let days = Days::of(&TWO_REGIONS)
        .await
        .with("AUDITOR_OBSERVATION_DAYS", "20");
    put_image(&days, IN_USE);
    put_image(&days, IDLE);
    let in_use = Report {
        entries: vec![usage("444455556666", "ec2:Instance", 3)],
        ..adequate("amiur-1", IN_USE)
    };
    days.put(REGION, [in_use]);
    days.put(
        REGION,
        (0..4).map(|week| {
            adequate(&format!("amiur-idle-{week}"), IDLE).created_ago(Duration::days(1 + 7 * week))
        }),
    );
    days
}

/// The lines of a run's AMIs, by ID.
pub(crate) fn lines(days: &Days, snapshot: &Value) -> BTreeMap<String, Value> {
    let object = &target(snapshot, REGION)["images_object"];
    let lines = days.archive().named_lines(object).into_iter();
    lines
        .map(|line| (text(&line["image_id"]).to_owned(), line))
        .collect()
}

fn verdicts(days: &Days, snapshot: &Value) -> Vec<(String, String)> {
    let lines = lines(days, snapshot).into_iter();
    lines
        .map(|(id, line)| (id, text(&line["verdict"]).to_owned()))
        .collect()
}

fn expected(verdicts: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(id, verdict): &(&str, &str)| ((*id).to_owned(), (*verdict).to_owned());
    verdicts.iter().map(owned).collect()
}

#[tokio::test]
async fn an_ami_has_a_line_with_its_consumers_its_sources_and_the_reports_that_were_read() {
    let days = two_amis().await;
    let snapshot = days.run().await;
    assert_eq!(
        verdicts(&days, &snapshot),
        expected(&[(IN_USE, "in_use"), (IDLE, "no_use_observed")])
    );
    let mut line = lines(&days, &snapshot)[IN_USE].clone();
    line["observed_reports"][0]["entries_key"] = json!("…");
    assert_snapshot!(line_by_line(&line), @r#"
    account_id: "111122223333"
    as_of: "2026-11-12T06:00:05.250Z"
    consumers: [{"consumer_account_id":"444455556666","first_observed":"2026-11-12T06:00:05.250Z","last_observed":"2026-11-12T06:00:05.250Z","report_id":"amiur-1","resource_type":"ec2:Instance","usage_count":3}]
    consumers_omitted: 0
    coverage: "covered"
    first_observed: "2026-11-12T06:00:05.250Z"
    image: {"creation_time":"2025-10-18T06:00:05.250Z","deprecation_time":null,"deregistration_protection":"disabled","last_launched_time":null,"name":"golden","public":false,"source_image_id":null,"state":"available","tags":{}}
    image_id: "ami-00000000000000001"
    last_observed: "2026-11-12T06:00:05.250Z"
    observation: {"reports":1,"since":"2026-11-12T06:00:05.250Z","until":"2026-11-12T06:00:05.250Z"}
    observed_reports: [{"creation_time":"2026-11-12T06:00:05.250Z","entries_key":"…","report_id":"amiur-1","series_reports":1,"series_since":"2026-11-12T06:00:05.250Z"}]
    reasons: []
    references: []
    references_checked: false
    references_omitted: 0
    region: "us-east-1"
    reports: {"available":1,"entries_not_archived":0,"error":0,"failed_in_a_row":0,"newest_adequate":{"creation_time":"2026-11-12T06:00:05.250Z","report_id":"amiur-1"},"newest_available":{"creation_time":"2026-11-12T06:00:05.250Z","report_id":"amiur-1","requested_account_ids":0,"resource_types":["ec2:Instance","ec2:LaunchTemplate","imagebuilder:ContainerRecipe","imagebuilder:ImageRecipe"],"version_depth":10000},"newest_failed":null,"newest_pending":null,"newest_state":"available","other":0,"pending":0}
    sources: [{"covered_until":"2026-11-12T06:00:05.250Z","last_observed":"2026-11-12T06:00:05.250Z","source":"ec2:Instance"},{"covered_until":"2026-11-12T06:00:05.250Z","last_observed":null,"source":"ec2:LaunchTemplate"},{"covered_until":"2026-11-12T06:00:05.250Z","last_observed":null,"source":"imagebuilder:ContainerRecipe"},{"covered_until":"2026-11-12T06:00:05.250Z","last_observed":null,"source":"imagebuilder:ImageRecipe"},{"covered_until":"2026-11-22T06:00:05.250Z","last_observed":null,"source":"last_launched_time"}]
    verdict: "in_use"
    "#);
    let ledger = target(&snapshot, REGION);
    assert_eq!(
        (&ledger["images_read"], &ledger["images_error"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(
        snapshot["counts"]["images"],
        json!({"total": 2, "gone": 0, "in_use": 1, "no_use_observed": 1, "last_seen_in_use": 0, "unknown": 0, "uncovered": 0})
    );
}

#[tokio::test]
async fn an_ami_that_only_a_report_is_about_has_a_line_and_is_gone() {
    let days = Days::with_reports([used("amiur-1", 1).of_image(IN_USE)]).await;
    let snapshot = days.run().await;
    assert_eq!(verdicts(&days, &snapshot), expected(&[(IN_USE, "gone")]));
    // It was never there, so nothing has changed the day after.
    let second = days.next_day().await;
    assert_eq!(second["changes"]["verdicts"], json!([]));
}

#[tokio::test]
async fn amis_that_cannot_be_read_cost_their_verdicts_and_no_report() {
    let days = two_amis().await;
    days.run().await;
    days.aws
        .faults()
        .add(Fault::new(FaultKind::Denied).on(IMAGES));
    let second = days.next_day().await;
    let ledger = target(&second, REGION);
    assert_eq!(
        (&second["status"], &ledger["reports"]),
        (&json!("complete"), &json!(5))
    );
    assert_eq!(ledger["images_read"], Value::Null);
    assert_eq!(ledger["images_error"]["code"], "UnauthorizedOperation");
    let of_second = lines(&days, &second);
    assert_eq!(of_second[IN_USE]["verdict"], "in_use");
    assert_eq!(of_second[IN_USE]["consumers"].as_array().unwrap().len(), 1);
    assert_eq!(of_second[IDLE]["verdict"], "unknown");
    assert_eq!(of_second[IDLE]["reasons"], json!(["image_not_read"]));
    assert_eq!(of_second[IDLE]["image"], Value::Null);
    let changed = &second["changes"]["verdicts"];
    assert_eq!(
        changed,
        &json!([{"account_id": ACCOUNT, "region": REGION, "image_id": IDLE, "from": "no_use_observed", "to": "unknown"}])
    );
}

#[tokio::test]
async fn a_target_that_cannot_be_read_carries_its_lines_which_say_so() {
    let days = two_amis().await;
    days.run().await;
    let denied = Fault::new(FaultKind::Denied).on(LISTING).in_region(REGION);
    days.aws.faults().add(denied);
    for _ in 0..2 {
        let dark = days.next_day().await;
        assert_eq!(target(&dark, REGION)["status"], "failed");
        let of_dark = lines(&days, &dark);
        assert_eq!(of_dark[IN_USE]["verdict"], "in_use");
        let reasons = json!(["image_not_read", "target_not_read"]);
        assert_eq!(
            (&of_dark[IDLE]["verdict"], &of_dark[IDLE]["reasons"]),
            (&json!("unknown"), &reasons)
        );
        assert_eq!(of_dark[IDLE]["reports"]["available"], 4);
    }
    days.aws.faults().clear();
    let bright = days.next_day().await;
    assert_eq!(
        verdicts(&days, &bright),
        expected(&[(IN_USE, "in_use"), (IDLE, "no_use_observed")])
    );
}

#[tokio::test]
async fn lines_that_are_lost_are_built_again_from_the_archived_entries() {
    for with_version in ["lost", "damaged", "never written"] {
        let mut days = two_amis().await;
        will_be_harmed(&mut days.aws);
        if with_version == "never written" {
            days.variables.push(("AUDITOR_IMAGES", "false"));
        }
        let first = days.run().await;
        let object = &target(&first, REGION)["images_object"];
        match with_version {
            "lost" => fs::remove_file(days.path(text(&object["key"]))).unwrap(),
            "damaged" => overwrite(&days.aws, text(&object["key"]), b"damaged"),
            _ => {
                assert_eq!(object, &Value::Null);
                days.variables.pop();
            }
        }
        let second = days.next_day().await;
        assert_eq!(second["counts"]["entries"]["fetched"], 0, "{with_version}");
        assert_eq!(
            verdicts(&days, &second),
            expected(&[(IN_USE, "in_use"), (IDLE, "no_use_observed")]),
            "{with_version}"
        );
        let named = match with_version {
            "never written" => json!([]),
            _ => json!([format!("{ACCOUNT}/{REGION}")]),
        };
        assert_eq!(
            second["changes"]["images_not_carried"], named,
            "{with_version}"
        );
        let consumer = &lines(&days, &second)[IN_USE]["consumers"][0];
        assert_eq!(consumer["consumer_account_id"], "444455556666");
    }
}

#[tokio::test]
async fn archived_entries_that_cannot_be_read_again_keep_every_verdict_from_resting_on_them() {
    let mut days = two_amis().await.with("AUDITOR_IMAGES", "false");
    days.run().await;
    days.variables.pop();
    let denied = Fault::new(FaultKind::Denied);
    days.aws
        .faults()
        .add(denied.on("GetObject").on_key("/entries/"));
    let second = days.next_day().await;
    let ledger = target(&second, REGION);
    assert_eq!(ledger["status"], "complete");
    assert_eq!(ledger["images_read"], Value::Null);
    assert_eq!(ledger["images_error"]["code"], "AccessDenied", "{ledger}");
    let line = &lines(&days, &second)[IDLE];
    let reasons = json!(["image_not_read", "observed_too_briefly"]);
    assert_eq!(
        (&line["verdict"], &line["reasons"]),
        (&json!("unknown"), &reasons)
    );
    days.aws.faults().clear();
    let third = days.next_day().await;
    assert_eq!(
        verdicts(&days, &third),
        expected(&[(IN_USE, "in_use"), (IDLE, "no_use_observed")])
    );
}

#[tokio::test]
async fn a_day_without_amis_loses_nothing_of_what_is_known() {
    let mut days = two_amis().await;
    let first = days.run().await;
    let known = target(&first, REGION)["images_object"].clone();
    days.variables.push(("AUDITOR_IMAGES", "false"));
    let second = days.next_day().await;
    let ledger = target(&second, REGION);
    assert_eq!(ledger["images_object"], Value::Null);
    assert_eq!(ledger["earlier_objects"], json!([known]));
    assert_eq!(count_calls(&days.aws, IMAGES), 0);
    days.variables.pop();
    days.delete(REGION, "amiur-1");
    let third = days.next_day().await;
    let consumer = &lines(&days, &third)[IN_USE]["consumers"][0];
    assert_eq!(consumer["consumer_account_id"], "444455556666");
}

#[tokio::test]
async fn a_target_that_comes_too_late_keeps_its_lines_for_the_next_run() {
    let days = two_amis().await;
    let first = days.run().await;
    let known = target(&first, REGION)["images_object"].clone();
    let slow = FaultKind::Latency {
        milliseconds: 3_000,
    };
    days.aws
        .faults()
        .add(Fault::new(slow).on(IMAGES).in_region(REGION));
    days.world.clock().advance(Duration::DAY);
    let auditor = days.auditor().await;
    let late = run_within(
        &auditor,
        days.world.clock().now(),
        std::time::Duration::from_secs(2),
    )
    .await;
    let second = days.archive().snapshot(&late.unwrap());
    let ledger = target(&second, REGION);
    assert_eq!(
        ledger["images_error"]["code"], "DeadlineExceeded",
        "{ledger}"
    );
    let has_lines = ledger["images_object"] != Value::Null;
    assert!(
        has_lines || ledger["earlier_objects"] == json!([known]),
        "{ledger}"
    );
    days.aws.faults().clear();
    let third = days.next_day().await;
    assert_eq!(
        verdicts(&days, &third),
        expected(&[(IN_USE, "in_use"), (IDLE, "no_use_observed")])
    );
}

#[tokio::test]
async fn a_scoped_run_gives_no_verdict() {
    let days = two_amis().await;
    let auditor = days.auditor().await;
    let request = json!({"image_ids": [IN_USE]});
    let summary = crate::harness::run(&auditor, request).await.unwrap();
    let snapshot = days.archive().snapshot(&summary);
    assert_eq!(snapshot["counts"]["images"]["total"], 0);
    assert!(
        targets(&snapshot)
            .iter()
            .all(|target| target["images_object"].is_null())
    );
    assert_eq!(count_calls(&days.aws, IMAGES), 0);
}

#[tokio::test]
async fn pages_of_amis_that_expire_are_read_again_and_no_ami_comes_twice() {
    let days = Days::of(&[REGION]).await;
    for number in 0..2_500 {
        put_image(&days, &format!("ami-{number:017x}"));
    }
    let expired = Fault::new(FaultKind::ExpireToken)
        .on(IMAGES)
        .when(When::Nth(1));
    days.aws.faults().add(expired);
    let snapshot = days.run().await;
    assert_eq!(target(&snapshot, REGION)["images_read"], 2_500);
    assert_eq!(lines(&days, &snapshot).len(), 2_500);
    assert!(count_calls(&days.aws, IMAGES) > 3);
}

#[tokio::test]
async fn a_reference_makes_an_idle_ami_one_in_use_for_as_long_as_it_exists() {
    let days = two_amis().await.with("AUDITOR_IMAGE_REFERENCES", "true");
    days.world
        .put_resource(ACCOUNT, REGION, Resource::parameter("/golden", IDLE));
    for _ in 0..3 {
        let snapshot = days.next_day().await;
        let line = lines(&days, &snapshot)[IDLE].clone();
        assert_eq!(
            (&line["verdict"], &line["references_checked"]),
            (&json!("in_use"), &json!(true))
        );
        assert_eq!(line["references"][0]["resource_type"], "ssm:Parameter");
        // Only of the AMI that could be `no_use_observed` otherwise.
        assert_eq!(count_calls(&days.aws, REFERENCES), 1);
    }
    assert!(days.world.remove_resource(ACCOUNT, REGION, "/golden"));
    let terminated = Resource::instance("i-00000000000000001", IDLE).in_state("terminated");
    days.world.put_resource(ACCOUNT, REGION, terminated);
    let snapshot = days.next_day().await;
    let line = lines(&days, &snapshot)[IDLE].clone();
    assert_eq!(line["verdict"], "last_seen_in_use");
    assert_eq!(line["references"], json!([]));
    assert_eq!(line["reasons"], json!(["observed_too_briefly"]));
}

#[tokio::test]
async fn a_check_of_references_that_fails_is_no_check() {
    let days = two_amis().await.with("AUDITOR_IMAGE_REFERENCES", "true");
    days.aws
        .faults()
        .add(Fault::new(FaultKind::Denied).on(REFERENCES));
    let snapshot = days.run().await;
    let line = lines(&days, &snapshot)[IDLE].clone();
    assert_eq!(line["verdict"], "unknown");
    assert_eq!(line["reasons"], json!(["references_not_checked"]));
    assert_eq!(line["references_checked"], false);
    let ledger = target(&snapshot, REGION);
    assert_eq!(ledger["references_error"]["code"], "UnauthorizedOperation");
    assert_eq!(ledger["images_error"], Value::Null);
}

#[tokio::test]
async fn references_are_asked_of_at_most_ten_amis_a_call() {
    let days = Days::of(&[REGION])
        .await
        .with("AUDITOR_OBSERVATION_DAYS", "20")
        .with("AUDITOR_IMAGE_REFERENCES", "true");
    for number in 0..25 {
        let id = format!("ami-{number:017x}");
        put_image(&days, &id);
        days.put(
            REGION,
            (0..4).map(|week| {
                adequate(&format!("amiur-{number}-{week}"), &id)
                    .created_ago(Duration::days(1 + 7 * week))
            }),
        );
    }
    let snapshot = days.run().await;
    assert_eq!(snapshot["counts"]["images"]["no_use_observed"], 25);
    assert_eq!(count_calls(&days.aws, REFERENCES), 3);
}
