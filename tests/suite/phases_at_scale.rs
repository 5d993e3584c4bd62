//! An organization in 17 Regions that one invocation cannot audit, with waiting times scaled down: in one function,
//! and in phases. `make organization` plays 3,000 accounts.

use std::io::Write;
use std::time::{Duration as Wait, Instant};

use futures_util::{StreamExt, stream};
use image_usage_archive::source::Source;
use image_usage_archive::verify::{Options, Outcome, verify};
use image_usage_auditor::audit::{Auditor, Invocation};
use local_aws::{CLASSIC_REGIONS, Clock, Fault, FaultKind, LocalAws, Service, World};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::harness::{
    ACCOUNT, Archive, BUCKET, But, auditor, event_at, invocation_at, lasting_role, local_aws, now,
    report, run_within, text,
};

/// The number of accounts, if it is not this one.
const ACCOUNTS: &str = "FAN_OUT_ACCOUNTS";

/// How many accounts every run of the suite plays: 170 targets.
const FEW_ACCOUNTS: usize = 10;

/// How much faster time goes: 900 seconds are 90.
const SCALE: u32 = 10;

/// How long a call to EC2 takes.
const LATENCY: Wait = Wait::from_millis(200);

/// The longest that an invocation may take.
const TIMEOUT: Wait = Wait::from_secs(900);

/// As in the state machine, and as the template's default.
const BATCH_TARGETS: usize = 50;
const CONCURRENT_BATCHES: usize = 10;

const ROLE: &str = "reader";

/// Each account has three reports in one Region.
async fn organization(accounts: usize) -> LocalAws {
    let members: Vec<String> = (1..accounts)
        .map(|number| format!("{:012}", 222_200_000_000 + number))
        .collect();
    let mut world = World::builder().clock(Clock::fixed(now())).account(ACCOUNT);
    for member in &members {
        world = world.account(member);
    }
    let world = world.regions(CLASSIC_REGIONS).build();
    world.organization_account(ACCOUNT, "ACTIVE");
    for (number, member) in members.iter().enumerate() {
        world.organization_account(member, "ACTIVE");
        world.role(member, lasting_role(ROLE));
        let region = CLASSIC_REGIONS[number % CLASSIC_REGIONS.len()];
        let reports = (0..3).map(|place| {
            let image = format!("ami-{number:016x}{place}");
            report(&format!("amiur-{member}-{place}")).of_image(&image)
        });
        world.put_reports(member, region, reports);
    }
    let mut aws = local_aws(&world).await;
    if accounts > FEW_ACCOUNTS {
        // Matching every document to its schema would take longer than the runs.
        aws.look_in_the_end(|_| {});
    }
    let milliseconds = LATENCY.as_millis() as u64 / u64::from(SCALE);
    for service in [Service::Ec2, Service::Sts] {
        let slow = Fault::new(FaultKind::Latency { milliseconds });
        aws.faults().add(slow.in_service(service));
    }
    aws
}

/// What is seen of the runs: not captured, as the standard output is.
fn say(line: &str) {
    let written = std::io::stderr().write_all(format!("{line}\n").as_bytes());
    written.unwrap();
}

async fn invoke(auditor: &Auditor, payload: Value, time: OffsetDateTime, time_left: Wait) -> Value {
    let invocation = Invocation {
        time_left: Some(time_left),
        ..invocation_at(time)
    };
    let answer = auditor.handle(payload, invocation).await.unwrap();
    serde_json::to_value(answer).unwrap()
}

/// Plays the state machine, each invocation with its own deadline.
async fn run_in_phases(aws: &LocalAws, auditor: &Auditor, time_left: Wait) -> Value {
    let time = now();
    let begun = Instant::now();
    let seconds = || begun.elapsed().as_secs_f64();
    let plan = invoke(
        auditor,
        json!({"phase": "plan", "request": event_at(time)}),
        time,
        time_left,
    );
    let plan = plan.await;
    say(&format!(
        "plan: {} targets after {:.1} s",
        plan["targets"]["count"],
        seconds()
    ));
    let list = Archive::of(aws).bytes(text(&plan["targets"]["key"]));
    let lines: Vec<Value> = list
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let run_id = &plan["run_id"];
    let batches = stream::iter(lines.chunks(BATCH_TARGETS)).map(|targets| async move {
        let payload = json!({"phase": "target", "run_id": run_id, "targets": targets});
        aws.clear_calls();
        invoke(auditor, payload, time, time_left).await
    });
    let answers: Vec<Value> = batches.buffer_unordered(CONCURRENT_BATCHES).collect().await;
    let longest = answers
        .iter()
        .map(|answer| answer["duration_ms"].as_u64().unwrap())
        .max();
    say(&format!(
        "{} batches after {:.1} s, the longest of {} ms",
        answers.len(),
        seconds(),
        longest.unwrap()
    ));
    let summary = invoke(
        auditor,
        json!({"phase": "publish", "run_id": run_id}),
        time,
        time_left,
    )
    .await;
    say(&format!(
        "published after {:.1} s, in {} ms",
        seconds(),
        summary["duration_ms"]
    ));
    summary
}

async fn run_in_one_function(aws: &LocalAws, auditor: &Auditor, time_left: Wait) {
    aws.clear_calls();
    let next_day = now() + Duration::DAY;
    let summary = run_within(auditor, next_day, time_left).await.unwrap();
    let counts = summary.counts.targets;
    let snapshot = Archive::of(aws).snapshot(&summary);
    let lines = snapshot["targets"].as_array().unwrap().iter();
    let late = lines.filter(|line| line["error"]["code"] == "DeadlineExceeded");
    let late = late.count();
    say(&format!(
        "in one function of {} s: {} targets complete, {late} DeadlineExceeded",
        time_left.as_secs(),
        counts.complete
    ));
    assert!(late > 0, "there was time for every target");
    assert_eq!(late, (counts.failed + counts.incomplete) as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_is_complete_in_phases_whatever_one_function_has_time_for() {
    let asked_for = std::env::var(ACCOUNTS).ok();
    let accounts = asked_for.as_ref();
    let accounts = accounts.map_or(FEW_ACCOUNTS, |number| number.parse().unwrap());
    let targets = accounts * CLASSIC_REGIONS.len();
    let aws = organization(accounts).await;
    let variables = [
        ("AUDITOR_ACCOUNTS", "organization"),
        ("AUDITOR_ROLE_NAME", ROLE),
        ("AUDITOR_REGIONS", "all"),
    ];
    let auditor = auditor(&aws, &variables).await;
    let summary = run_in_phases(&aws, &auditor, TIMEOUT / SCALE).await;
    assert_eq!(summary["counts"]["targets"]["complete"], targets);
    let snapshot = Archive::of(&aws).bytes(text(&summary["snapshot"]["key"]));
    say(&format!(
        "the snapshot of {targets} targets has {} bytes",
        snapshot.len()
    ));
    let folder = aws.archive_root().join(BUCKET).join("image-usage");
    let verdict = verify(&Source::Folder(folder), &Options::default()).await;
    let verdict = verdict.unwrap();
    assert_eq!(verdict.outcome(), Outcome::Sound, "{:?}", verdict.problems);
    if asked_for.is_some() {
        run_in_one_function(&aws, &auditor, TIMEOUT / SCALE).await;
    }
}
