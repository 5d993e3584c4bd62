//! A run that goes over several functions: plan, batches of targets, publish.

use std::collections::BTreeSet;

use image_usage_archive::source::Source;
use image_usage_archive::verify::{Options, Outcome, verify};
use image_usage_auditor::audit::{Auditor, RunError};
use insta::assert_snapshot;
use local_aws::{Clock, Fault, FaultKind, LocalAws, SeedOptions, World};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::harness::{
    ACCOUNT, Archive, BUCKET, But, LATEST, LISTING, OTHER_REGION, REGION, RUN_ID, THREE_REGIONS,
    TWO_REGIONS, auditor, count_calls, event_at, healthy_reports, invocation, invocation_at,
    lasting_role, local_aws, now, run_at, scheduled_event, status, summary_of, targets, text,
    will_be_harmed, without_attempts, world,
};

const MEMBER: &str = "222233334444";
const REFUSED: &str = "333344445555";
const ROLE: &str = "reader";

/// Two Regions of two accounts whose reports show every finding, and an account whose role is missing.
fn organization() -> World {
    let world = World::builder()
        .clock(Clock::fixed(now()))
        .account(ACCOUNT)
        .account(MEMBER)
        .account(REFUSED)
        .regions(TWO_REGIONS)
        .build();
    world.role(MEMBER, lasting_role(ROLE));
    for account in [ACCOUNT, MEMBER] {
        world.seed(&SeedOptions {
            accounts: vec![account.to_owned()],
            reports_per_region: 40,
            images_per_region: Some(12),
            ..SeedOptions::default()
        });
    }
    world
}

const SETTINGS: [(&str, &str); 3] = [
    ("AUDITOR_ACCOUNTS", "111122223333,222233334444,333344445555"),
    ("AUDITOR_ROLE_NAME", ROLE),
    ("AUDITOR_REGIONS", "eu-west-1,us-east-1"),
];

/// On the last of three days, EC2 is asked for reports: the IDs that it gives them differ each time.
async fn auditor_on(aws: &LocalAws, day: i64) -> Auditor {
    let renews = [(
        "AUDITOR_RENEW_REPORTS",
        if day == 2 { "true" } else { "false" },
    )];
    let auditor = auditor(aws, &[&SETTINGS[..], &renews[..]].concat()).await;
    auditor.with_renewal_pace(std::time::Duration::ZERO)
}

/// Plays the state machine: a run of one moment.
struct Execution<'a> {
    aws: &'a LocalAws,
    auditor: &'a Auditor,
    time: OffsetDateTime,
}

impl<'a> Execution<'a> {
    fn at(time: OffsetDateTime, aws: &'a LocalAws, auditor: &'a Auditor) -> Self {
        Self { aws, auditor, time }
    }

    async fn invoke(&self, payload: Value) -> Result<Value, RunError> {
        let answer = self.auditor.handle(payload, invocation_at(self.time));
        Ok(serde_json::to_value(answer.await?).unwrap())
    }

    async fn plan(&self) -> Value {
        let payload = json!({"phase": "plan", "request": event_at(self.time), "execution_id": "arn:execution"});
        self.invoke(payload).await.unwrap()
    }

    /// The batches that Step Functions makes of the planned targets.
    fn batches(&self, plan: &Value, size: usize) -> Vec<Vec<Value>> {
        let archive = Archive::of(self.aws);
        let lines = String::from_utf8(archive.bytes(text(&plan["targets"]["key"]))).unwrap();
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(plan["targets"]["count"], lines.len());
        lines.chunks(size).map(<[Value]>::to_vec).collect()
    }

    async fn target(&self, plan: &Value, targets: &[Value]) -> Value {
        let payload = json!({"phase": "target", "run_id": plan["run_id"], "targets": targets});
        self.invoke(payload).await.unwrap()
    }

    async fn give_up(&self, plan: &Value, targets: &[Value]) -> Value {
        let failure = json!({"Error": "Lambda.Unknown", "Cause": "signal: killed"});
        let payload = json!({
            "phase": "target", "run_id": plan["run_id"], "targets": targets, "failure": failure
        });
        self.invoke(payload).await.unwrap()
    }

    async fn publish(&self, plan: &Value) -> Value {
        let payload = json!({"phase": "publish", "run_id": plan["run_id"], "failure": {}});
        self.invoke(payload).await.unwrap()
    }

    async fn run(&self, batch_size: usize) -> Value {
        let plan = self.plan().await;
        for batch in self.batches(&plan, batch_size) {
            self.target(&plan, &batch).await;
        }
        self.publish(&plan).await
    }

    /// The page of a run, without the digest of its snapshot, which depends on times and attempts.
    fn page(&self, summary: &Value) -> String {
        let page = Archive::of(self.aws).bytes(text(&summary["page"]));
        let page = String::from_utf8(page).unwrap();
        page.replace(text(&summary["snapshot"]["sha256"]), "…")
    }

    fn snapshot(&self, summary: &Value) -> Value {
        Archive::of(self.aws).json(text(&summary["snapshot"]["key"]))
    }
}

/// The documents that the phases have handed over so far, by their keys.
fn handed_over(aws: &LocalAws) -> Vec<String> {
    let keys = Archive::of(aws).objects().into_keys();
    keys.filter(|key| key.contains("/v1/runs/")).collect()
}

/// Fails if `verify` finds anything wrong with the archive.
async fn check_sound(aws: &LocalAws) {
    let folder = aws.archive_root().join(BUCKET).join("image-usage");
    let verdict = verify(&Source::Folder(folder), &Options::default())
        .await
        .unwrap();
    assert_eq!(verdict.outcome(), Outcome::Sound, "{verdict:#?}");
}

/// A line names the object of its entries, so the bytes of the objects of reports and AMIs differ too.
fn blank_what_depends_on_attempts(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(blank_what_depends_on_attempts),
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "sha256" | "bytes" | "request_id" => *field = json!(null),
                    _ => blank_what_depends_on_attempts(field),
                }
            }
        }
        _ => {}
    }
}

/// A snapshot without its times, its attempts, and what depends on them.
fn reproducible(archive: &Archive, snapshot: &Value) -> String {
    let mut text = snapshot.clone();
    text["finished_at"] = json!(null);
    text["previous"]["sha256"] = json!(null);
    blank_what_depends_on_attempts(&mut text["targets"]);
    let mut document = without_attempts(&serde_json::to_string_pretty(&text).unwrap());
    for target in targets(snapshot) {
        for object in [&target["object"], &target["images_object"]] {
            if let Some(key) = object["key"].as_str() {
                for line in archive.lines(key) {
                    document += &without_attempts(&line.to_string());
                    document.push('\n');
                }
            }
        }
    }
    document
}

#[tokio::test]
async fn a_run_in_phases_has_the_snapshot_and_the_page_of_a_run_in_one_function() {
    let mut last = Vec::new();
    for batch_size in [None, Some(1), Some(4)] {
        let world = organization();
        let aws = local_aws(&world).await;
        let denied = Fault::new(FaultKind::Denied).on(LISTING);
        let archive = Archive::of(&aws);
        let mut snapshots = Vec::new();
        for day in 0..3 {
            aws.faults().clear();
            if day == 1 {
                aws.faults().add(denied.clone().in_region(OTHER_REGION));
            }
            let auditor = auditor_on(&aws, day).await;
            let time = now() + Duration::days(day);
            world.clock().set(time);
            let execution = Execution::at(time, &aws, &auditor);
            let summary = match batch_size {
                None => serde_json::to_value(run_at(&auditor, time).await.unwrap()).unwrap(),
                Some(size) => execution.run(size).await,
            };
            let snapshot = execution.snapshot(&summary);
            assert_eq!(archive.latest(), snapshot);
            snapshots.push(reproducible(&archive, &snapshot) + &execution.page(&summary));
        }
        check_sound(&aws).await;
        match last.is_empty() {
            true => last = snapshots,
            false => {
                for (day, snapshot) in snapshots.iter().enumerate() {
                    let mut both = snapshot.lines().zip(last[day].lines());
                    let different = both.find(|(one, other)| one != other);
                    assert_eq!(different, None, "day {day}, batches of {batch_size:?}");
                    assert_eq!(snapshot.len(), last[day].len());
                }
            }
        }
    }
    let [first, second, third] = &last[..] else {
        panic!("three days were run");
    };
    assert!(first.contains("AccessDenied"));
    assert!(second.contains("UnauthorizedOperation"));
    assert!(third.contains(r#""renewals": {"#));
}

/// Two Regions with 250 reports each, in a batch each.
async fn two_batches() -> (LocalAws, Auditor) {
    let world = world(&TWO_REGIONS);
    for region in TWO_REGIONS {
        world.put_reports(ACCOUNT, region, healthy_reports(250));
    }
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[("AUDITOR_REGIONS", "all")]).await;
    (aws, auditor)
}

#[tokio::test]
async fn a_batch_whose_function_fails_each_time_is_failed_targets_with_the_reason() {
    let (aws, auditor) = two_batches().await;
    let execution = Execution::at(now(), &aws, &auditor);
    let plan = execution.plan().await;
    let batches = execution.batches(&plan, 1);
    execution.target(&plan, &batches[0]).await;
    execution.give_up(&plan, &batches[1]).await;
    let snapshot = execution.snapshot(&execution.publish(&plan).await);
    assert_eq!(snapshot["status"], "partial");
    assert_eq!(status(&snapshot, OTHER_REGION), "complete");
    assert_eq!(status(&snapshot, REGION), "failed: BatchFailed");
    assert_snapshot!(text(&targets(&snapshot)[1]["error"]["message"]), @"the function failed: Lambda.Unknown: signal: killed");
    check_sound(&aws).await;
}

#[tokio::test]
async fn a_target_without_an_outcome_is_failed_and_carries_what_is_known() {
    let (aws, auditor) = two_batches().await;
    let first_day = Execution::at(now(), &aws, &auditor);
    let before = first_day.snapshot(&first_day.run(10).await);
    aws.world().clock().advance(Duration::DAY);
    let execution = Execution {
        time: now() + Duration::DAY,
        ..first_day
    };
    let plan = execution.plan().await;
    execution
        .target(&plan, &execution.batches(&plan, 1)[0])
        .await;
    let payload = json!({
        "phase": "publish", "run_id": plan["run_id"],
        "failure": {"Error": "States.ExceedToleratedFailureThreshold", "Cause": "half of them"}
    });
    let snapshot = execution.snapshot(&execution.invoke(payload).await.unwrap());
    let failed = &targets(&snapshot)[1];
    assert_eq!(
        failed["error"]["message"],
        "the function failed: States.ExceedToleratedFailureThreshold: half of them"
    );
    assert_eq!(failed["earlier_objects"][0], targets(&before)[1]["object"]);
    assert_eq!(snapshot["changes"]["reports"]["gone"], 0);
    assert_eq!(snapshot["counts"]["targets"]["failed"], 1);
    check_sound(&aws).await;
}

#[tokio::test]
async fn a_batch_that_runs_twice_counts_once() {
    let (aws, auditor) = two_batches().await;
    let execution = Execution::at(now(), &aws, &auditor);
    let plan = execution.plan().await;
    let batches = execution.batches(&plan, 2);
    for _ in 0..2 {
        execution.target(&plan, &batches[0]).await;
    }
    let snapshot = execution.snapshot(&execution.publish(&plan).await);
    assert_eq!(snapshot["counts"]["targets"]["complete"], 2);
    assert_eq!(snapshot["counts"]["reports"]["total"], 500);
    Archive::of(&aws).check(&snapshot, aws.world());
    check_sound(&aws).await;
}

#[tokio::test]
async fn of_two_outcomes_of_a_target_the_more_complete_one_counts() {
    let (aws, auditor) = two_batches().await;
    let execution = Execution::at(now(), &aws, &auditor);
    let plan = execution.plan().await;
    let batches = execution.batches(&plan, 2);
    let denied = Fault::new(FaultKind::Denied).on(LISTING);
    aws.faults().add(denied.in_region(REGION));
    execution.target(&plan, &batches[0]).await;
    aws.faults().clear();
    // Another execution makes other batches.
    execution.target(&plan, &batches[0][1..]).await;
    execution.give_up(&plan, &batches[0]).await;
    let snapshot = execution.snapshot(&execution.publish(&plan).await);
    assert_eq!(snapshot["status"], "complete");
    Archive::of(&aws).check(&snapshot, aws.world());
    check_sound(&aws).await;
}

#[tokio::test]
async fn a_run_that_is_planned_twice_has_one_plan() {
    let (aws, auditor) = two_batches().await;
    let execution = Execution::at(now(), &aws, &auditor);
    let plan = execution.plan().await;
    let later = Execution {
        time: now() + Duration::minutes(5),
        ..execution
    };
    let payload =
        json!({"phase": "plan", "request": event_at(now()), "execution_id": "arn:another"});
    assert_eq!(later.invoke(payload).await.unwrap(), plan);
    assert_eq!(handed_over(&aws).len(), 2);
}

#[tokio::test]
async fn what_an_unfinished_run_has_handed_over_is_a_note_of_verify() {
    let (aws, auditor) = two_batches().await;
    let execution = Execution::at(now(), &aws, &auditor);
    execution.run(10).await;
    let next = Execution {
        time: now() + Duration::DAY,
        ..execution
    };
    next.plan().await;
    let folder = aws.archive_root().join(BUCKET).join("image-usage");
    let verdict = verify(&Source::Folder(folder), &Options::default()).await;
    let verdict = verdict.unwrap();
    assert_eq!(verdict.outcome(), Outcome::Sound);
    let notes = verdict.notes.join("\n");
    assert!(
        notes.contains("no snapshot names 2 objects of the run 20261123T060005Z-"),
        "{notes}"
    );
}

#[tokio::test]
async fn a_run_that_is_published_twice_has_one_snapshot() {
    let (aws, auditor) = two_batches().await;
    let execution = Execution::at(now(), &aws, &auditor);
    let first = execution.run(1).await;
    let before = Archive::of(&aws).objects();
    let plan = execution.plan().await;
    assert_eq!(plan["already_archived"], true);
    assert_eq!(plan["targets"], Value::Null);
    let second = execution.publish(&plan).await;
    assert_eq!(
        (&first["already_archived"], &second["already_archived"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(first["snapshot"], second["snapshot"]);
    assert_eq!(Archive::of(&aws).objects(), before);
    check_sound(&aws).await;
}

/// Hours may pass between the plan, whose moment is that of all rules, and a batch.
#[tokio::test]
async fn a_batch_that_comes_hours_after_its_plan_archives_what_is_newer() {
    let world = organization();
    let aws = local_aws(&world).await;
    let auditor = auditor_on(&aws, 0).await;
    let execution = Execution::at(now(), &aws, &auditor);
    let plan = execution.plan().await;
    world.clock().advance(Duration::hours(7));
    for region in TWO_REGIONS {
        let newer = crate::harness::used("amiur-newer", 3).created_ago(Duration::hours(-6));
        world.put_report(ACCOUNT, region, newer);
    }
    let later = Execution {
        time: now() + Duration::hours(7),
        ..execution
    };
    for batch in later.batches(&plan, 2) {
        later.target(&plan, &batch).await;
    }
    let snapshot = later.snapshot(&later.publish(&plan).await);
    assert_eq!(snapshot["started_at"], json!(local_aws::timestamp(now())));
    Archive::of(&aws).check(&snapshot, &world);
    check_sound(&aws).await;
    world.clock().advance(Duration::hours(17));
    let next = Execution {
        time: now() + Duration::DAY,
        ..later
    };
    next.run(3).await;
    check_sound(&aws).await;
}

#[tokio::test]
async fn a_run_of_which_every_batch_fails_has_no_snapshot() {
    let (aws, auditor) = two_batches().await;
    let execution = Execution::at(now(), &aws, &auditor);
    let plan = execution.plan().await;
    let payload = json!({"phase": "publish", "run_id": plan["run_id"]});
    let error = execution.invoke(payload).await.unwrap_err();
    assert_eq!(error.error_type(), "NoTargetAudited");
    assert_snapshot!(error, @"no target could be audited: 111122223333/eu-west-1 and 1 more: BatchFailed: no invocation of the function has left an outcome of the target");
    assert!(!Archive::of(&aws).objects().contains_key(LATEST));
}

#[tokio::test]
async fn phases_with_other_settings_than_the_plan_are_refused() {
    let (aws, auditor) = two_batches().await;
    let planned = Execution::at(now(), &aws, &auditor);
    let plan = planned.plan().await;
    let batch = &planned.batches(&plan, 10)[0];
    let mut messages = BTreeSet::new();
    for other in [
        ("AUDITOR_EXPIRY_WINDOW_DAYS", "3"),
        ("AUDITOR_IMAGES", "false"),
        ("AUDITOR_ARCHIVE_ENTRIES", "false"),
    ] {
        let auditor = crate::harness::auditor(&aws, &[("AUDITOR_REGIONS", "all"), other]).await;
        let execution = Execution {
            auditor: &auditor,
            ..planned
        };
        for payload in [
            json!({"phase": "plan", "request": event_at(now())}),
            json!({"phase": "target", "run_id": plan["run_id"], "targets": batch}),
            json!({"phase": "publish", "run_id": plan["run_id"]}),
        ] {
            let error = execution.invoke(payload).await.unwrap_err();
            assert_eq!(error.error_type(), "InvalidSettings");
            messages.insert(error.to_string());
        }
    }
    let messages = Vec::from_iter(messages).join("\n");
    assert_snapshot!(messages, @"
    the run 20261122T060005Z-308cb07a was planned with other settings (AUDITOR_ARCHIVE_ENTRIES): let it end before you change them, or start another run
    the run 20261122T060005Z-308cb07a was planned with other settings (the limits of the rules and what is read of AMIs): let it end before you change them, or start another run
    ");
}

#[tokio::test]
async fn a_phase_of_a_run_without_a_plan_is_refused() {
    let (aws, auditor) = two_batches().await;
    let execution = Execution::at(now(), &aws, &auditor);
    let payload = json!({"phase": "publish", "run_id": RUN_ID});
    let error = execution.invoke(payload).await.unwrap_err();
    assert_eq!(error.error_type(), "InvalidRequest");
    assert_snapshot!(error, @"`run_id`: 20261122T060000Z-7bf73129 has no plan at s3://archive/image-usage/v1/runs/dt=2026-11-22/20261122T060000Z-7bf73129/plan.json: invoke the function with the phase `plan` first, and with the same archive");
}

#[tokio::test]
async fn outcomes_that_are_damaged_count_as_none() {
    let (mut aws, auditor) = two_batches().await;
    will_be_harmed(&mut aws);
    let execution = Execution::at(now(), &aws, &auditor);
    let plan = execution.plan().await;
    let batches = execution.batches(&plan, 1);
    execution.target(&plan, &batches[0]).await;
    let answer = execution.target(&plan, &batches[1]).await;
    crate::harness::overwrite(&aws, text(&answer["outcomes"]), b"not gzip");
    let snapshot = execution.snapshot(&execution.publish(&plan).await);
    assert_eq!(status(&snapshot, REGION), "failed: BatchFailed");
}

#[tokio::test]
async fn a_scoped_run_in_phases_never_becomes_the_latest() {
    let world = world(&THREE_REGIONS);
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[]).await;
    let execution = Execution::at(now(), &aws, &auditor);
    let payload =
        json!({"phase": "plan", "request": {"regions": [OTHER_REGION], "max_results": 7}});
    let plan = execution.invoke(payload).await.unwrap();
    execution
        .target(&plan, &execution.batches(&plan, 10)[0])
        .await;
    let snapshot = execution.snapshot(&execution.publish(&plan).await);
    assert_eq!(snapshot["scope"]["regions"], json!([OTHER_REGION]));
    assert!(!Archive::of(&aws).objects().contains_key(LATEST));
}

#[tokio::test]
async fn a_run_in_one_function_hands_nothing_over_and_phases_answer_from_its_archive() {
    let (aws, auditor) = two_batches().await;
    let summary = auditor
        .handle(scheduled_event(), invocation())
        .await
        .unwrap();
    let summary = summary_of(summary);
    assert_eq!(handed_over(&aws), [""; 0]);
    aws.clear_calls();
    let payload = json!({"phase": "plan", "request": scheduled_event()});
    let execution = Execution::at(now(), &aws, &auditor);
    let plan = execution.invoke(payload).await.unwrap();
    assert_eq!(plan["run_id"], json!(summary.run_id));
    assert_eq!(plan["already_archived"], true);
    assert_eq!(count_calls(&aws, LISTING), 0);
}
