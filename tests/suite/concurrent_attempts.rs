//! Tries of one run that collide, or that die: what is archived stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration as Wait;

use image_usage_archive::domain::digest::hex;
use image_usage_auditor::audit::{Auditor, Summary};
use local_aws::{Fault, FaultKind, LocalAws, Page, Report, Tag, When, World};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{
    ACCOUNT, Archive, BUCKET, auditor, healthy_reports, is_object_of, local_aws, report, run,
    scheduled_event, text, until, world,
};
use crate::lambda::Lambda;

const LISTING: &str = "DescribeImageUsageReports";
const REGIONS: [&str; 3] = ["ap-southeast-2", "eu-west-1", "us-east-1"];
const LATEST: &str = "image-usage/v1/latest.json";

/// The reports that a target has held: some all the time, others for a part of it.
#[derive(Clone, Debug, Default)]
struct Held {
    always: BTreeSet<String>,
    ever: BTreeSet<String>,
}

/// The facts about each Region, which change while tries of a run are at work.
struct Facts {
    world: World,
    held: BTreeMap<&'static str, Held>,
    made: usize,
}

impl Facts {
    /// Each Region has so many reports.
    fn new(count: usize) -> Self {
        let world = world(&REGIONS);
        let mut held = BTreeMap::new();
        for region in REGIONS {
            world.put_reports(ACCOUNT, region, healthy_reports(count));
            let ids: BTreeSet<String> = healthy_reports(count)
                .filter_map(|report| report.report_id)
                .collect();
            held.insert(
                region,
                Held {
                    always: ids.clone(),
                    ever: ids,
                },
            );
        }
        Self {
            world,
            held,
            made: 0,
        }
    }

    /// In each Region a healthy report goes, and one that failed comes.
    fn change(&mut self) {
        self.made += 1;
        for (region, held) in &mut self.held {
            let gone = held.always.pop_first().unwrap();
            assert!(self.world.delete_report(ACCOUNT, region, &gone));
            let id = format!("amiur-new-{}", self.made);
            let mut new = report(&id);
            new.state = Some("error".to_owned());
            self.world.put_report(ACCOUNT, region, new);
            held.ever.insert(id);
        }
    }
}

/// Checks everything that must hold of an archive whatever became of the tries that wrote to it, and
/// returns its snapshots by run.
fn check_archive(archive: &Archive, facts: &Facts) -> BTreeMap<String, Value> {
    let objects = archive.objects();
    let below = |folder: &str| {
        let start = format!("image-usage/v1/{folder}/");
        objects.keys().filter(move |key| key.starts_with(&start))
    };
    let mut snapshots = BTreeMap::new();
    for key in below("snapshots") {
        let snapshot: Value = serde_json::from_slice(&objects[key]).unwrap();
        let run_id = text(&snapshot["run_id"]).to_owned();
        assert!(key.ends_with(&format!("/{run_id}.json")), "{key}");
        check_snapshot(archive, &objects, facts, &snapshot);
        assert!(
            snapshots.insert(run_id.clone(), snapshot).is_none(),
            "{run_id} has two snapshots"
        );
    }
    let mut targets = BTreeSet::new();
    for key in below("reports") {
        let parts: Vec<&str> = key.split('/').collect();
        let [_, _, _, _, account, region, name] = parts[..] else {
            panic!("{key}")
        };
        assert!(
            targets.insert((account, region, name)),
            "{key} is there for two days"
        );
    }
    if let Some(latest) = objects.get(LATEST) {
        let latest: Value = serde_json::from_slice(latest).unwrap();
        assert_eq!(
            snapshots.get(text(&latest["run_id"])),
            Some(&latest),
            "the latest is no copy"
        );
        assert_eq!(latest["scope"]["full"], true);
    }
    snapshots
}

fn check_snapshot(
    archive: &Archive,
    objects: &BTreeMap<String, Vec<u8>>,
    facts: &Facts,
    snapshot: &Value,
) {
    let run_id = text(&snapshot["run_id"]);
    let (mut reports, mut failed) = (0, 0);
    for target in snapshot["targets"].as_array().unwrap() {
        let object = &target["object"];
        assert_eq!(
            target["error"].is_null(),
            target["status"] == "complete",
            "{target}"
        );
        if object.is_null() {
            assert_ne!(target["status"], "complete");
            continue;
        }
        let (key, region) = (text(&object["key"]), text(&target["region"]));
        assert!(
            key.contains(&format!("/region={region}/")) && is_object_of(key, run_id),
            "{key}"
        );
        let bytes = objects
            .get(key)
            .unwrap_or_else(|| panic!("{key} is named and not there"));
        assert_eq!(object["sha256"], hex(&Sha256::digest(bytes)), "{key}");
        assert_eq!(object["bytes"], bytes.len(), "{key}");
        let lines = archive.lines(key);
        assert_eq!(
            (&object["lines"], &target["reports"]),
            (&json!(lines.len()), &json!(lines.len()))
        );
        reports += lines.len();
        failed += lines.iter().filter(|line| line["state"] == "error").count();
        let ids: BTreeSet<String> = lines
            .iter()
            .map(|line| text(&line["report_id"]).to_owned())
            .collect();
        assert_eq!(ids.len(), lines.len(), "{key} has a report twice");
        let held = &facts.held[region];
        assert!(
            ids.is_subset(&held.ever),
            "{key} has a report that never was"
        );
        if target["status"] == "complete" {
            assert!(
                ids.is_superset(&held.always),
                "{key} lacks a report that always was"
            );
        }
    }
    assert_eq!(snapshot["counts"]["reports"]["total"], reports);
    assert_eq!(snapshot["counts"]["reports"]["error"], failed);
    assert_eq!(snapshot["counts"]["findings"]["failed"], failed);
}

/// The only snapshot of an archive, complete, which is the one that the answer names and the latest.
fn check_only_run(aws: &LocalAws, facts: &Facts, summary: &Summary) -> Value {
    let archive = Archive::of(aws);
    let snapshots = check_archive(&archive, facts);
    assert_eq!(snapshots.len(), 1);
    let snapshot = archive.snapshot(summary);
    assert_eq!(snapshot["status"], "complete");
    assert_eq!(snapshot["run_id"], json!(summary.run_id));
    assert_eq!(snapshot["counts"], json!(summary.counts));
    assert_eq!(
        summary.snapshot.sha256,
        hex(&Sha256::digest(archive.bytes(&summary.snapshot.key)))
    );
    assert_eq!(archive.json(LATEST), snapshot);
    snapshot
}

async fn auditor_of_all(aws: &LocalAws) -> Auditor {
    auditor(
        aws,
        &[("AUDITOR_REGIONS", "all"), ("AUDITOR_PAGE_SIZE", "10")],
    )
    .await
}

/// Starts a run, and drops it once something has come to pass: what a function does that dies.
async fn run_that_dies(aws: &LocalAws, payload: Value, has_happened: impl FnMut() -> bool) {
    let auditor = auditor_of_all(aws).await;
    tokio::select! {
        outcome = run(&auditor, payload) => panic!("it was to die: {outcome:?}"),
        () = until(has_happened) => {}
    }
}

/// Watches the latest snapshot until it is told to stop, which must never move back.
async fn watch_latest(archive: &Archive, is_over: impl Fn() -> bool) -> usize {
    let mut seen: Vec<(String, String)> = Vec::new();
    while !is_over() {
        if archive.objects().contains_key(LATEST) {
            let latest = archive.json(LATEST);
            let now = (
                text(&latest["scheduled_at"]).to_owned(),
                text(&latest["run_id"]).to_owned(),
            );
            if seen.last() != Some(&now) {
                assert!(
                    seen.last().is_none_or(|before| *before < now),
                    "{seen:?}, and then {now:?}"
                );
                seen.push(now);
            }
        }
        tokio::time::sleep(Wait::from_millis(1)).await;
    }
    seen.len()
}

#[tokio::test]
async fn two_tries_at_once_end_in_one_snapshot_which_both_name() {
    let facts = Facts::new(30);
    let aws = local_aws(&facts.world).await;
    let (one, other) = (auditor_of_all(&aws).await, auditor_of_all(&aws).await);
    let (one, other) = tokio::join!(run(&one, scheduled_event()), run(&other, scheduled_event()));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.snapshot, other.snapshot);
    assert_eq!((one.status, one.counts), (other.status, other.counts));
    check_only_run(&aws, &facts, &one);
}

#[tokio::test]
async fn a_slow_attempt_answers_with_the_snapshot_of_a_fast_one() {
    let mut facts = Facts::new(30);
    let aws = local_aws(&facts.world).await;
    // The slow try is given its last pages as they are now, but late.
    let late = Fault::new(FaultKind::Latency {
        milliseconds: 1_000,
    })
    .on(LISTING);
    aws.faults().add(late.when(When::Page(Page::Last)));
    let (first, second) = (auditor_of_all(&aws).await, auditor_of_all(&aws).await);
    let fast = async {
        until(|| aws.faults().injected() == 3).await;
        aws.faults().clear();
        facts.change();
        run(&second, scheduled_event()).await.unwrap()
    };
    let (slow, fast) = tokio::join!(run(&first, scheduled_event()), fast);
    let slow = slow.unwrap();
    assert!(slow.already_archived && !fast.already_archived);
    assert_eq!(slow.snapshot, fast.snapshot);
    let snapshot = check_only_run(&aws, &facts, &fast);
    assert_eq!(snapshot["counts"]["reports"]["error"], 3);
    let refused = aws
        .calls()
        .iter()
        .filter(|call| call.status == Some(412))
        .count();
    assert!(refused >= 1, "the attempts never met");
}

#[tokio::test]
async fn an_attempt_archives_objects_of_its_own_whatever_another_has_archived() {
    let mut facts = Facts::new(30);
    let aws = local_aws(&facts.world).await;
    aws.faults().add(
        Fault::new(FaultKind::Status503)
            .on("PutObject")
            .on_key("snapshots/")
            .when(When::FirstN(6)),
    );
    let (first, second) = (auditor_of_all(&aws).await, auditor_of_all(&aws).await);
    let later = async {
        until(|| aws.faults().injected() >= 1).await;
        facts.change();
        run(&second, scheduled_event()).await.unwrap()
    };
    let (first, second) = tokio::join!(run(&first, scheduled_event()), later);
    assert_eq!(first.unwrap().snapshot, second.snapshot);
    let snapshot = check_only_run(&aws, &facts, &second);
    assert_eq!(
        snapshot["counts"]["reports"]["error"], 3,
        "the snapshot names what the attempt that wrote it has read"
    );
}

/// A moment at which a try dies: the fault that holds it there, and the file that shows the effect.
struct Death {
    moment: &'static str,
    fault: Fault,
    leaves: Option<&'static str>,
}

fn deaths() -> Vec<Death> {
    let refused =
        |operation: &str, key: &str| Fault::new(FaultKind::Status503).on(operation).on_key(key);
    let lost = |key: &str| {
        Fault::new(FaultKind::CloseBeforeAnswer)
            .on("PutObject")
            .on_key(key)
            .after_effect()
    };
    let death = |moment, fault, leaves| Death {
        moment,
        fault,
        leaves,
    };
    vec![
        death(
            "before the snapshot is looked for",
            refused("GetObject", "snapshots/"),
            None,
        ),
        death(
            "before a page",
            Fault::new(FaultKind::Status503).on(LISTING),
            None,
        ),
        death(
            "before the last page of the last Region",
            Fault::new(FaultKind::Status503)
                .on(LISTING)
                .when(When::Nth(11)),
            None,
        ),
        death(
            "before the latest is looked for",
            refused("GetObject", "latest.json"),
            None,
        ),
        death(
            "before a page of entries",
            Fault::new(FaultKind::Status503).on("DescribeImageUsageReportEntries"),
            None,
        ),
        death("before entries", refused("PutObject", "entries/"), None),
        death(
            "after entries, before their answer",
            lost("entries/"),
            Some("/entries/"),
        ),
        death("before data", refused("PutObject", "reports/"), None),
        death(
            "between data and data",
            refused("PutObject", "region=us-east-1"),
            None,
        ),
        death(
            "after data, before its answer",
            lost("region=us-east-1"),
            Some("/region=us-east-1/"),
        ),
        death(
            "between data and snapshot",
            refused("PutObject", "snapshots/"),
            None,
        ),
        death(
            "after the snapshot, before its answer",
            lost("snapshots/"),
            Some("/snapshots/"),
        ),
        death(
            "before the latest is written",
            refused("PutObject", "latest.json"),
            Some("/snapshots/"),
        ),
        death(
            "after the latest, before its answer",
            lost("latest.json"),
            Some("/latest.json"),
        ),
    ]
}

#[tokio::test]
async fn a_try_that_dies_anywhere_leaves_an_archive_that_the_next_one_completes() {
    for changes in [false, true] {
        for Death {
            moment,
            fault,
            leaves,
        } in deaths()
        {
            let mut facts = Facts::new(40);
            let aws = local_aws(&facts.world).await;
            let archive = Archive::of(&aws);
            aws.faults().add(fault);
            let is_there =
                || leaves.is_none_or(|part| archive.objects().keys().any(|key| key.contains(part)));
            run_that_dies(&aws, scheduled_event(), || {
                aws.faults().injected() > 0 && is_there()
            })
            .await;
            let left = check_archive(&archive, &facts);
            let before = archive.objects();
            aws.faults().clear();
            if changes {
                facts.change();
            }
            let summary = run(&auditor_of_all(&aws).await, scheduled_event()).await;
            let summary = summary.unwrap_or_else(|error| panic!("{moment}: {error:?}"));
            let snapshot = check_only_run(&aws, &facts, &summary);
            assert_eq!(summary.already_archived, !left.is_empty(), "{moment}");
            if let Some(left) = left.values().next() {
                assert_eq!(*left, snapshot, "{moment}");
            }
            let after = archive.objects();
            for (key, bytes) in before.iter().filter(|(key, _)| *key != LATEST) {
                assert_eq!(after.get(key), Some(bytes), "{moment}: {key} was changed");
            }
        }
    }
}

/// Draws numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, range: Range<u64>) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (mixed ^ (mixed >> 31)) % (range.end - range.start)
    }
}

#[tokio::test]
async fn three_tries_at_once_while_facts_change_and_one_dies_end_in_one_snapshot() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let mut facts = Facts::new(30);
        let aws = local_aws(&facts.world).await;
        for operation in [LISTING, "PutObject", "GetObject"] {
            let late = FaultKind::Latency {
                milliseconds: random.below(1..40),
            };
            aws.faults().add(
                Fault::new(late)
                    .on(operation)
                    .when(When::Probability { p: 0.5, seed }),
            );
        }
        let lost = Fault::new(FaultKind::CloseBeforeAnswer)
            .on("PutObject")
            .after_effect();
        aws.faults()
            .add(lost.when(When::Probability { p: 0.2, seed }));
        let conflict = Fault::new(FaultKind::conditional_request_conflict()).on("PutObject");
        aws.faults().add(conflict.when(When::Probability {
            p: 0.2,
            seed: seed + 100,
        }));
        let dies_at = random.below(1..25);
        let changes: Vec<usize> = (0..4).map(|_| random.below(1..40) as usize).collect();
        let auditors = (
            auditor_of_all(&aws).await,
            auditor_of_all(&aws).await,
            auditor_of_all(&aws).await,
        );
        let dying = async {
            tokio::select! {
                _ = run(&auditors.2, scheduled_event()) => {}
                () = until(|| aws.calls().len() as u64 >= dies_at) => {}
            }
        };
        let changing = async {
            for calls in changes {
                until(|| aws.calls().len() >= calls).await;
                facts.change();
            }
        };
        let (one, other, (), ()) = tokio::join!(
            run(&auditors.0, scheduled_event()),
            run(&auditors.1, scheduled_event()),
            dying,
            changing
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(
            (&one.snapshot, one.counts),
            (&other.snapshot, other.counts),
            "seed {seed}"
        );
        check_only_run(&aws, &facts, &one);
        // Another try, once all is quiet, changes nothing.
        aws.faults().clear();
        let before = Archive::of(&aws).objects();
        let again = run(&auditors.0, scheduled_event()).await.unwrap();
        assert_eq!(
            (again.snapshot, again.already_archived),
            (one.snapshot, true),
            "seed {seed}"
        );
        assert_eq!(Archive::of(&aws).objects(), before, "seed {seed}");
    }
}

#[tokio::test]
async fn the_latest_snapshot_never_moves_back_while_runs_of_several_days_overtake_each_other() {
    for seed in 0..4 {
        let facts = Facts::new(10);
        let aws = local_aws(&facts.world).await;
        let archive = Archive::of(&aws);
        let late = |operation: &str, milliseconds| {
            Fault::new(FaultKind::Latency { milliseconds }).on(operation)
        };
        aws.faults()
            .add(late(LISTING, 30).when(When::Probability { p: 0.5, seed }));
        aws.faults().add(
            late("GetObject", 40)
                .on_key("latest")
                .when(When::Probability { p: 0.5, seed }),
        );
        aws.faults().add(
            late("PutObject", 20)
                .on_key("latest")
                .when(When::Probability { p: 0.5, seed }),
        );
        let lost = Fault::new(FaultKind::CloseBeforeAnswer)
            .on("PutObject")
            .on_key("latest")
            .after_effect();
        aws.faults()
            .add(lost.when(When::Probability { p: 0.3, seed }));
        let auditor = auditor_of_all(&aws).await;
        let days: Vec<String> = (16..24)
            .map(|day| format!("2026-11-{day}T06:00:00Z"))
            .collect();
        let runs = days
            .iter()
            .map(|day| run(&auditor, json!({"scheduled_at": day})));
        let over = std::cell::Cell::new(false);
        let all = async {
            let outcomes = futures_util::future::join_all(runs).await;
            over.set(true);
            outcomes
        };
        let (outcomes, seen) = tokio::join!(all, watch_latest(&archive, || over.get()));
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert!(seen > 0);
        assert_eq!(check_archive(&archive, &facts).len(), days.len());
        assert_eq!(archive.json(LATEST)["scheduled_at"], *days.last().unwrap());
    }
}

/// Reports that gzip can't make much smaller: a few thousand of them fill a part of an upload.
fn bulky_reports(names: Range<usize>) -> impl Iterator<Item = Report> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
    names.map(|number| {
        let mut random = Random(number as u64);
        let mut letters = || -> String {
            (0..250)
                .map(|_| char::from(LETTERS[random.below(0..64) as usize]))
                .collect()
        };
        let mut bulky = report(&format!("amiur-bulky-{number}"));
        bulky.tags = (0..10)
            .map(|tag| Tag::new(format!("tag-{tag}"), letters()))
            .collect();
        bulky
    })
}

/// So many of them are more than a part.
const BULKY_REPORTS: usize = 3_000;

fn world_with_a_large_region() -> World {
    let world = world(&["eu-west-1", "us-east-1"]);
    world.put_reports(ACCOUNT, "eu-west-1", healthy_reports(5));
    world.put_reports(ACCOUNT, "us-east-1", bulky_reports(0..BULKY_REPORTS));
    world
}

#[tokio::test]
async fn a_try_that_dies_in_an_upload_is_made_good_by_the_next_one() {
    let world = world_with_a_large_region();
    let aws = local_aws(&world).await;
    let auditor = auditor(
        &aws,
        &[("AUDITOR_REGIONS", "all"), ("AUDITOR_PAGE_SIZE", "200")],
    )
    .await;
    let lost = Fault::new(FaultKind::CloseBeforeAnswer).after_effect();
    let deaths = [
        Fault::new(FaultKind::Status503).on("UploadPart"),
        lost.on("CompleteMultipartUpload"),
    ];
    for fault in deaths {
        let moment = format!("{fault:?}");
        aws.faults().add(fault);
        let injected = aws.faults().injected();
        tokio::select! {
            outcome = run(&auditor, scheduled_event()) => panic!("{moment}: {outcome:?}"),
            () = until(|| aws.faults().injected() > injected) => {}
        }
        aws.faults().clear();
        let archive = Archive::of(&aws);
        assert!(
            archive
                .objects()
                .keys()
                .all(|key| !key.contains("/snapshots/")),
            "{moment}"
        );
    }
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    let archive = Archive::of(&aws);
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    assert_eq!(snapshot["status"], "complete");
}

#[tokio::test]
async fn an_upload_of_another_attempt_stays_and_is_never_passed_off_as_its_own() {
    let world = world_with_a_large_region();
    let aws = local_aws(&world).await;
    let auditor = auditor(
        &aws,
        &[("AUDITOR_REGIONS", "all"), ("AUDITOR_PAGE_SIZE", "1000")],
    )
    .await;
    aws.faults().add(
        Fault::new(FaultKind::Status503)
            .on("PutObject")
            .on_key("snapshots/"),
    );
    tokio::select! {
        outcome = run(&auditor, scheduled_event()) => panic!("{outcome:?}"),
        () = until(|| aws.faults().injected() > 0) => {}
    }
    aws.faults().clear();
    let archive = Archive::of(&aws);
    let before = archive.objects();
    world.put_reports(
        ACCOUNT,
        "us-east-1",
        bulky_reports(BULKY_REPORTS..BULKY_REPORTS + 1),
    );
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    let snapshot = archive.snapshot(&summary);
    archive.check(&snapshot, &world);
    let target = crate::harness::target(&snapshot, "us-east-1");
    assert_eq!(target["status"], "complete");
    assert_eq!(target["reports"], BULKY_REPORTS + 1);
    let after = archive.objects();
    assert!(
        before
            .iter()
            .all(|(key, bytes)| after.get(key) == Some(bytes)),
        "an object was changed"
    );
}

/// A function of its own process for these facts.
fn function(aws: &LocalAws) -> Lambda {
    let endpoint = aws.endpoint();
    Lambda::start(&[
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_REGION", "us-east-1"),
        ("AUDITOR_ARCHIVE_BUCKET", BUCKET),
        ("AUDITOR_REGIONS", "all"),
        ("AUDITOR_PAGE_SIZE", "10"),
    ])
}

#[tokio::test]
async fn two_processes_at_once_answer_with_the_same_snapshot() {
    let facts = Facts::new(40);
    let aws = local_aws(&facts.world).await;
    aws.faults()
        .add(Fault::new(FaultKind::Latency { milliseconds: 10 }));
    let event = scheduled_event().to_string();
    let functions = [function(&aws), function(&aws)];
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let invoked = functions.map(|mut function| {
            let event = event.as_str();
            scope.spawn(move || {
                let outcome = function.invoke(event);
                function.kill();
                outcome
            })
        });
        invoked.map(|thread| thread.join().unwrap()).into()
    });
    assert!(
        outcomes.iter().all(|outcome| !outcome.failed),
        "{outcomes:?}"
    );
    assert_eq!(
        outcomes[0].payload["snapshot"],
        outcomes[1].payload["snapshot"]
    );
    assert_eq!(outcomes[0].payload["counts"], outcomes[1].payload["counts"]);
    let snapshots = check_archive(&Archive::of(&aws), &facts);
    assert_eq!(snapshots.len(), 1);
    let both = aws.calls().iter().any(|call| call.status == Some(412));
    assert!(both, "the processes never met");
}

/// Kills the process at seeded moments, runs the same event again, and checks the archive each time.
async fn kill_and_run_again(seeds: Range<u64>) {
    let mut facts = Facts::new(40);
    let aws = local_aws(&facts.world).await;
    let archive = Archive::of(&aws);
    // It makes every request count, and lets the process die before, in or after any of them.
    aws.faults()
        .add(Fault::new(FaultKind::Latency { milliseconds: 4 }));
    // Each is scheduled later than the ones before, so that it becomes the latest.
    let event = |number: u64| {
        let mut event = scheduled_event();
        event["id"] = json!(format!("event {number}"));
        event["time"] = json!(format!("2026-11-22T06:{number:02}:00Z"));
        event.to_string()
    };
    let mut whole = function(&aws);
    assert!(!whole.invoke(&event(0)).failed);
    // From the second one on, a run takes the entries over.
    let before = aws.faults().injected();
    assert!(!whole.invoke(&event(1)).failed);
    let requests = aws.faults().injected() - before;
    whole.kill();
    let mut moments = BTreeMap::new();
    let mut latest = String::new();
    for seed in seeds.clone() {
        let mut random = Random(seed);
        // Every other one in the last calls, of which there are few.
        let earliest = if seed % 2 == 0 { 1 } else { requests - 5 };
        let dies_at = random.below(earliest..requests + 1);
        let delay = random.below(0..8_000);
        let payload = event(seed + 2);
        let before = aws.faults().injected();
        let mut dying = function(&aws);
        dying.hand_over(&payload);
        until(|| aws.faults().injected() >= before + dies_at).await;
        tokio::time::sleep(Wait::from_micros(delay)).await;
        dying.kill();
        let at_death = archive.objects();
        let left = check_archive(&archive, &facts);
        if random.below(0..2) == 0 {
            facts.change();
        }
        let mut next = function(&aws);
        let outcome = next.invoke(&payload);
        next.kill();
        assert!(!outcome.failed, "seed {seed}: {outcome:?}");
        let run_id = text(&outcome.payload["run_id"]);
        let snapshots = check_archive(&archive, &facts);
        assert_eq!(
            snapshots[run_id]["status"], "complete",
            "seed {seed}: {}",
            snapshots[run_id]["targets"]
        );
        // A request that was on its way when the process died takes effect all the same.
        let was_archived = outcome.payload["already_archived"] == true;
        assert!(was_archived || !left.contains_key(run_id), "seed {seed}");
        let key = text(&outcome.payload["snapshot"]["key"]);
        assert_eq!(
            outcome.payload["snapshot"]["sha256"],
            hex(&Sha256::digest(archive.bytes(key))),
            "seed {seed}"
        );
        let after = archive.objects();
        for (key, bytes) in at_death.iter().filter(|(key, _)| *key != LATEST) {
            assert_eq!(
                after.get(key),
                Some(bytes),
                "seed {seed}: {key} was changed"
            );
        }
        let scheduled_at = text(&archive.json(LATEST)["scheduled_at"]).to_owned();
        assert!(
            scheduled_at >= latest,
            "seed {seed}: the latest moved from {latest} to {scheduled_at}"
        );
        latest = scheduled_at;
        let moment = match at_death.keys().filter(|key| key.contains(run_id)).count() {
            _ if left.contains_key(run_id) => "after the snapshot",
            0 => "before data",
            3 => "between data and snapshot",
            _ => "between data and data",
        };
        *moments.entry(moment).or_insert(0) += 1;
    }
    println!("{seeds:?}: killed {moments:?}");
    assert_eq!(
        check_archive(&archive, &facts).len() as u64,
        seeds.end - seeds.start + 2
    );
    assert_eq!(moments.len(), 4, "not everywhere: {moments:?}");
}

#[tokio::test]
async fn a_process_killed_at_any_of_25_moments_leaves_what_the_next_one_completes() {
    kill_and_run_again(0..25).await;
}

#[tokio::test]
async fn a_process_killed_at_any_of_25_other_moments_leaves_what_the_next_one_completes() {
    kill_and_run_again(25..50).await;
}
