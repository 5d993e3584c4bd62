//! Attempts at one run that collide, or that are killed: what is archived stays true.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration as Wait;

use image_usage_auditor::audit::{Auditor, Summary};
use local_aws::{Fault, FaultKind, LocalAws, Page, Report, Tag, When, World};
use serde_json::{Value, json};

use crate::harness::{
    ACCOUNT, Archive, BUCKET, But, ENTRIES, LATEST, LISTING, OTHER_REGION, REGION, Random,
    THREE_REGIONS, TWO_REGIONS, auditor, checked, healthy_reports, is_object_of, local_aws, report,
    run, scheduled_event, sha256, target, targets, text, until, world,
};
use crate::lambda::Lambda;

/// The reports that a target has held: some all the time, others for a part of it.
#[derive(Clone, Debug, Default)]
struct Held {
    always: BTreeSet<String>,
    ever: BTreeSet<String>,
}

/// The facts about each Region, which change during the attempts at a run.
struct Facts {
    world: World,
    held: BTreeMap<&'static str, Held>,
    made: usize,
}

impl Facts {
    /// Each Region has this number of reports.
    fn new(count: usize) -> Self {
        let world = world(&THREE_REGIONS);
        let mut held = BTreeMap::new();
        for region in THREE_REGIONS {
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

    /// Deletes a healthy report in each Region, and adds one that failed.
    fn change(&mut self) {
        self.made += 1;
        for (region, held) in &mut self.held {
            let gone = held.always.pop_first().unwrap();
            assert!(self.world.delete_report(ACCOUNT, region, &gone));
            let id = format!("amiur-new-{}", self.made);
            let new = report(&id).in_state("error");
            self.world.put_report(ACCOUNT, region, new);
            held.ever.insert(id);
        }
    }
}

/// Checks everything that must hold of an archive after any attempts, and returns its snapshots by run.
fn check_archive(archive: &Archive, facts: &Facts) -> BTreeMap<String, Value> {
    let objects = archive.objects();
    let below = |folder: &str| {
        let start = format!("image-usage/v1/{folder}/");
        objects.keys().filter(move |key| key.starts_with(&start))
    };
    let mut snapshots = BTreeMap::new();
    for key in below("snapshots") {
        let snapshot = archive.json(key);
        let run_id = text(&snapshot["run_id"]).to_owned();
        assert!(key.ends_with(&format!("/{run_id}.json")), "{key}");
        check_snapshot(archive, facts, &snapshot);
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
        let is_new = targets.insert((account, region, name));
        assert!(is_new, "{key} exists for two days");
    }
    if objects.contains_key(LATEST) {
        let latest = archive.latest();
        let copied = snapshots.get(text(&latest["run_id"]));
        assert_eq!(copied, Some(&latest), "latest.json is not a copy");
        assert_eq!(latest["scope"]["full"], true);
    }
    snapshots
}

fn check_snapshot(archive: &Archive, facts: &Facts, snapshot: &Value) {
    let run_id = text(&snapshot["run_id"]);
    let (mut reports, mut failed) = (0, 0);
    for target in targets(snapshot) {
        let is_complete = target["status"] == "complete";
        assert_eq!(target["error"].is_null(), is_complete, "{target}");
        if target["object"].is_null() {
            assert!(!is_complete, "{target}");
            continue;
        }
        let key = text(&target["object"]["key"]);
        let region = text(&target["region"]);
        assert!(key.contains(&format!("/region={region}/")), "{key}");
        assert!(is_object_of(key, run_id), "{key}");
        let lines = archive.named_lines(&target["object"]);
        assert_eq!(target["reports"], lines.len(), "{key}");
        reports += lines.len();
        failed += lines.iter().filter(|line| line["state"] == "error").count();
        let ids: BTreeSet<String> = lines
            .iter()
            .map(|line| text(&line["report_id"]).to_owned())
            .collect();
        assert_eq!(ids.len(), lines.len(), "{key} has a report twice");
        let Held { always, ever } = &facts.held[region];
        assert!(ids.is_subset(ever), "{key} has a report that never existed");
        assert!(
            !is_complete || ids.is_superset(always),
            "{key} lacks a report that always existed"
        );
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
    let bytes = archive.bytes(&summary.snapshot.key);
    assert_eq!(summary.snapshot.sha256, sha256(&bytes));
    assert_eq!(archive.latest(), snapshot);
    snapshot
}

async fn auditor_of_all(aws: &LocalAws) -> Auditor {
    auditor_with_pages_of(aws, "10").await
}

async fn auditor_with_pages_of(aws: &LocalAws, size: &str) -> Auditor {
    let variables = [("AUDITOR_REGIONS", "all"), ("AUDITOR_PAGE_SIZE", size)];
    auditor(aws, &variables).await
}

/// Starts a run, and drops it once a fault of it was injected and `is_reached` holds: as if Lambda killed it.
async fn run_until_killed(aws: &LocalAws, auditor: &Auditor, is_reached: impl Fn() -> bool) {
    let before = aws.faults().injected();
    tokio::select! {
        outcome = run(auditor, scheduled_event()) => panic!("not killed: {outcome:?}"),
        () = until(|| aws.faults().injected() > before && is_reached()) => {}
    }
    aws.faults().clear();
}

/// Watches `latest.json`, which must never move back, and returns how many versions were seen.
async fn watch_latest(archive: &Archive, is_over: impl Fn() -> bool) -> usize {
    let mut seen: Vec<(String, String)> = Vec::new();
    while !is_over() {
        if archive.objects().contains_key(LATEST) {
            let latest = archive.latest();
            let now = ["scheduled_at", "run_id"].map(|name| text(&latest[name]).to_owned());
            let now: (String, String) = now.into();
            if seen.last() != Some(&now) {
                let is_later = seen.last().is_none_or(|before| *before < now);
                assert!(is_later, "{seen:?}, and then {now:?}");
                seen.push(now);
            }
        }
        tokio::time::sleep(Wait::from_millis(1)).await;
    }
    seen.len()
}

/// Checks that objects were not changed, `latest.json` excepted.
fn check_unchanged(archive: &Archive, before: &BTreeMap<String, Vec<u8>>, case: &str) {
    let after = archive.objects();
    for (key, bytes) in before.iter().filter(|(key, _)| *key != LATEST) {
        assert!(after.get(key) == Some(bytes), "{case}: {key} was changed");
    }
}

/// Returns whether a conditional write was refused: two attempts wrote the same snapshot.
fn has_collided(aws: &LocalAws) -> bool {
    aws.calls().iter().any(|call| call.status == Some(412))
}

#[tokio::test]
async fn two_attempts_at_once_end_in_one_snapshot_which_both_return() {
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
async fn a_slow_attempt_returns_the_snapshot_of_a_fast_one() {
    let mut facts = Facts::new(30);
    let aws = local_aws(&facts.world).await;
    // The last pages of the slow attempt are read now and arrive late.
    let late = Fault::new(FaultKind::Latency {
        milliseconds: 1_000,
    });
    aws.faults()
        .add(late.on(LISTING).when(When::Page(Page::Last)));
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
    assert!(has_collided(&aws), "the attempts never collided");
}

#[tokio::test]
async fn an_attempt_archives_objects_of_its_own_even_if_another_has_archived_its() {
    let mut facts = Facts::new(30);
    let aws = local_aws(&facts.world).await;
    // The first attempt has archived all its objects when the facts change; either attempt may win.
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
    let first = first.unwrap();
    assert_eq!(first.snapshot, second.snapshot);
    assert_ne!(first.already_archived, second.already_archived);
    let snapshot = check_only_run(&aws, &facts, &second);
    let in_error = if first.already_archived { 3 } else { 0 };
    assert_eq!(
        snapshot["counts"]["reports"]["error"], in_error,
        "the snapshot names the objects of the attempt that wrote it"
    );
}

/// The moments at which an attempt is killed: the fault that holds it there, and a part of the key that
/// exists then.
#[rustfmt::skip]
fn kills() -> Vec<(&'static str, Fault, &'static str)> {
    let failing = |operation: &str| Fault::new(FaultKind::Status503).on(operation);
    let reading = |key: &str| failing("GetObject").on_key(key);
    let writing = |key: &str| failing("PutObject").on_key(key);
    let written = |key: &str| {
        let lost = Fault::new(FaultKind::CloseBeforeAnswer).after_effect();
        lost.on("PutObject").on_key(key)
    };
    vec![
        ("before its snapshot is read", reading("snapshots/"), ""),
        ("before a page", failing(LISTING), ""),
        ("before the last page of the last Region", failing(LISTING).when(When::Nth(11)), ""),
        ("before latest.json is read", reading("latest.json"), ""),
        ("before a page of entries", failing(ENTRIES), ""),
        ("before entries are written", writing("entries/"), ""),
        ("after entries are written", written("entries/"), "/entries/"),
        ("before reports are written", writing("reports/"), ""),
        ("between the reports of two Regions", writing("region=us-east-1"), ""),
        ("after reports are written", written("region=us-east-1"), "/region=us-east-1/"),
        ("between reports and snapshot", writing("snapshots/"), ""),
        ("after the snapshot is written", written("snapshots/"), "/snapshots/"),
        ("before latest.json is written", writing("latest.json"), "/snapshots/"),
        ("after latest.json is written", written("latest.json"), "/latest.json"),
    ]
}

/// Kills an attempt, and checks what it and the next one leave. With `changes`, the facts change in between.
async fn kill_and_retry(moment: &str, fault: Fault, leaves: &str, changes: bool) {
    let mut facts = Facts::new(40);
    let aws = local_aws(&facts.world).await;
    let archive = Archive::of(&aws);
    aws.faults().add(fault);
    let exists = || leaves.is_empty() || archive.objects().keys().any(|key| key.contains(leaves));
    run_until_killed(&aws, &auditor_of_all(&aws).await, exists).await;
    let left = check_archive(&archive, &facts);
    let before = archive.objects();
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
    check_unchanged(&archive, &before, moment);
}

#[tokio::test]
async fn an_attempt_killed_at_any_moment_leaves_an_archive_that_the_next_one_completes() {
    for changes in [false, true] {
        for (moment, fault, leaves) in kills() {
            kill_and_retry(moment, fault, leaves, changes).await;
        }
    }
}

/// Adds the faults of a busy day: late answers, lost answers, and conflicts.
fn add_seeded_faults(aws: &LocalAws, seed: u64, random: &mut Random) {
    for operation in [LISTING, "PutObject", "GetObject"] {
        let late = Fault::new(FaultKind::Latency {
            milliseconds: random.within(1..40),
        });
        let half = When::Probability { p: 0.5, seed };
        aws.faults().add(late.on(operation).when(half));
    }
    let lost = Fault::new(FaultKind::CloseBeforeAnswer).after_effect();
    let conflict = Fault::new(FaultKind::conditional_request_conflict());
    for (fault, seed) in [(lost, seed), (conflict, seed + 100)] {
        let fifth = When::Probability { p: 0.2, seed };
        aws.faults().add(fault.on("PutObject").when(fifth));
    }
}

#[tokio::test]
async fn three_attempts_at_once_while_facts_change_and_one_is_killed_end_in_one_snapshot() {
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let mut facts = Facts::new(30);
        let aws = local_aws(&facts.world).await;
        add_seeded_faults(&aws, seed, &mut random);
        let killed_at = random.within(1..25);
        let changes: Vec<usize> = (0..4).map(|_| random.within(1..40) as usize).collect();
        let first = auditor_of_all(&aws).await;
        let second = auditor_of_all(&aws).await;
        let third = auditor_of_all(&aws).await;
        let killed = async {
            tokio::select! {
                _ = run(&third, scheduled_event()) => {}
                () = until(|| aws.calls().len() as u64 >= killed_at) => {}
            }
        };
        let changing = async {
            for calls in changes {
                until(|| aws.calls().len() >= calls).await;
                facts.change();
            }
        };
        let (one, other, (), ()) = tokio::join!(
            run(&first, scheduled_event()),
            run(&second, scheduled_event()),
            killed,
            changing
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.snapshot, other.snapshot, "seed {seed}");
        assert_eq!(one.counts, other.counts, "seed {seed}");
        check_only_run(&aws, &facts, &one);
        // Another attempt afterwards changes nothing.
        aws.faults().clear();
        let before = Archive::of(&aws).objects();
        let again = run(&first, scheduled_event()).await.unwrap();
        assert!(again.already_archived, "seed {seed}");
        assert_eq!(again.snapshot, one.snapshot, "seed {seed}");
        assert_eq!(Archive::of(&aws).objects(), before, "seed {seed}");
    }
}

#[tokio::test]
async fn the_latest_snapshot_never_moves_back_while_runs_of_several_days_overtake_each_other() {
    for seed in 0..4 {
        let facts = Facts::new(10);
        let aws = local_aws(&facts.world).await;
        let archive = Archive::of(&aws);
        let late = |milliseconds| Fault::new(FaultKind::Latency { milliseconds });
        let lost = Fault::new(FaultKind::CloseBeforeAnswer).after_effect();
        let with = |p| When::Probability { p, seed };
        for fault in [
            late(30).on(LISTING).when(with(0.5)),
            late(40).on("GetObject").on_key("latest").when(with(0.5)),
            late(20).on("PutObject").on_key("latest").when(with(0.5)),
            lost.on("PutObject").on_key("latest").when(with(0.3)),
        ] {
            aws.faults().add(fault);
        }
        let auditor = auditor_of_all(&aws).await;
        let days: Vec<String> = (16..24)
            .map(|day| format!("2026-11-{day}T06:00:00Z"))
            .collect();
        let runs = days
            .iter()
            .map(|day| run(&auditor, json!({"scheduled_at": day})));
        let over = Cell::new(false);
        let all = async {
            let outcomes = futures_util::future::join_all(runs).await;
            over.set(true);
            outcomes
        };
        let (outcomes, seen) = tokio::join!(all, watch_latest(&archive, || over.get()));
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert!(seen > 0);
        assert_eq!(check_archive(&archive, &facts).len(), days.len());
        assert_eq!(archive.latest()["scheduled_at"], *days.last().unwrap());
    }
}

/// Reports that hardly compress: a few thousand of them fill a part of an upload.
fn bulky_reports(names: Range<usize>) -> impl Iterator<Item = Report> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
    names.map(|number| {
        let mut random = Random::new(number as u64);
        let mut letters = || -> String {
            (0..250)
                .map(|_| char::from(LETTERS[random.below(64) as usize]))
                .collect()
        };
        let mut bulky = report(&format!("amiur-bulky-{number}"));
        bulky.tags = (0..10)
            .map(|tag| Tag::new(format!("tag-{tag}"), letters()))
            .collect();
        bulky
    })
}

/// These are more than a part.
const BULKY_REPORTS: usize = 3_000;

fn world_with_a_large_region() -> World {
    let world = world(&TWO_REGIONS);
    world.put_reports(ACCOUNT, OTHER_REGION, healthy_reports(5));
    world.put_reports(ACCOUNT, REGION, bulky_reports(0..BULKY_REPORTS));
    world
}

#[tokio::test]
async fn an_attempt_killed_during_an_upload_is_completed_by_the_next_one() {
    let world = world_with_a_large_region();
    let aws = local_aws(&world).await;
    let archive = Archive::of(&aws);
    let auditor = auditor_with_pages_of(&aws, "200").await;
    let lost = Fault::new(FaultKind::CloseBeforeAnswer).after_effect();
    for fault in [
        Fault::new(FaultKind::Status503).on("UploadPart"),
        lost.on("CompleteMultipartUpload"),
    ] {
        let moment = format!("{fault:?}");
        aws.faults().add(fault);
        run_until_killed(&aws, &auditor, || true).await;
        let objects = archive.objects();
        let mut keys = objects.keys();
        assert!(keys.all(|key| !key.contains("/snapshots/")), "{moment}");
    }
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    assert_eq!(checked(&aws, &summary)["status"], "complete");
}

#[tokio::test]
async fn an_upload_of_another_attempt_stays_and_is_never_reported_as_ones_own() {
    let world = world_with_a_large_region();
    let aws = local_aws(&world).await;
    let auditor = auditor_with_pages_of(&aws, "1000").await;
    let failing = Fault::new(FaultKind::Status503).on("PutObject");
    aws.faults().add(failing.on_key("snapshots/"));
    run_until_killed(&aws, &auditor, || true).await;
    let archive = Archive::of(&aws);
    let before = archive.objects();
    let new = bulky_reports(BULKY_REPORTS..BULKY_REPORTS + 1);
    world.put_reports(ACCOUNT, REGION, new);
    let summary = run(&auditor, scheduled_event()).await.unwrap();
    let snapshot = checked(&aws, &summary);
    let target = target(&snapshot, REGION);
    assert_eq!(target["status"], "complete");
    assert_eq!(target["reports"], BULKY_REPORTS + 1);
    check_unchanged(&archive, &before, "the next attempt");
}

/// A function of its own process for these facts.
fn function(aws: &LocalAws) -> Lambda {
    let endpoint = aws.endpoint();
    Lambda::start(&[
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_REGION", REGION),
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
    assert!(has_collided(&aws), "the processes never collided");
}

/// The event of a run that is scheduled later than those with a smaller number, so it becomes the latest.
fn event(number: u64) -> String {
    let mut event = scheduled_event();
    event["id"] = json!(format!("event {number}"));
    event["time"] = json!(format!("2026-11-22T06:{number:02}:00Z"));
    event.to_string()
}

/// Processes that are killed at seeded moments.
struct Kills {
    facts: Facts,
    aws: LocalAws,
    archive: Archive,
    /// The calls of a run that is not killed.
    calls_of_a_run: u64,
    /// When the newest run was scheduled.
    latest: String,
}

impl Kills {
    async fn new() -> Self {
        let facts = Facts::new(40);
        let aws = local_aws(&facts.world).await;
        // Counts every call, and lets the process be killed before, during or after any of them.
        aws.faults()
            .add(Fault::new(FaultKind::Latency { milliseconds: 4 }));
        let mut whole = function(&aws);
        assert!(!whole.invoke(&event(0)).failed);
        // From the second run on, entries are carried over.
        let before = aws.faults().injected();
        assert!(!whole.invoke(&event(1)).failed);
        let calls_of_a_run = aws.faults().injected() - before;
        whole.kill();
        Self {
            archive: Archive::of(&aws),
            facts,
            aws,
            calls_of_a_run,
            latest: String::new(),
        }
    }

    /// Kills a process, runs the same event again, and returns the moment of the kill.
    async fn kill_and_run_again(&mut self, seed: u64) -> &'static str {
        let mut random = Random::new(seed);
        // Every other one in the last calls, because there are few of them.
        let calls = self.calls_of_a_run;
        let earliest = if seed.is_multiple_of(2) { 1 } else { calls - 5 };
        let killed_at = random.within(earliest..calls + 1);
        let delay = Wait::from_micros(random.below(8_000));
        let payload = event(seed + 2);
        let before = self.aws.faults().injected();
        let mut killed = function(&self.aws);
        killed.hand_over(&payload);
        until(|| self.aws.faults().injected() >= before + killed_at).await;
        tokio::time::sleep(delay).await;
        killed.kill();
        let objects = self.archive.objects();
        let left = check_archive(&self.archive, &self.facts);
        if random.below(2) == 0 {
            self.facts.change();
        }
        let mut next = function(&self.aws);
        let outcome = next.invoke(&payload);
        next.kill();
        assert!(!outcome.failed, "seed {seed}: {outcome:?}");
        let answer = outcome.payload;
        self.check_answer(&answer, &left, seed);
        check_unchanged(&self.archive, &objects, &format!("seed {seed}"));
        let run_id = text(&answer["run_id"]);
        match objects.keys().filter(|key| key.contains(run_id)).count() {
            _ if left.contains_key(run_id) => "after the snapshot",
            0 => "before reports",
            // Reports and AMIs of three targets.
            6 => "between reports and snapshot",
            _ => "between reports and reports",
        }
    }

    /// Checks the answer of the run after a kill, which left these snapshots.
    fn check_answer(&mut self, answer: &Value, left: &BTreeMap<String, Value>, seed: u64) {
        let run_id = text(&answer["run_id"]);
        let snapshots = check_archive(&self.archive, &self.facts);
        let snapshot = &snapshots[run_id];
        assert_eq!(snapshot["status"], "complete", "seed {seed}: {snapshot}");
        // A call that was on its way when the process was killed takes effect all the same.
        let was_archived = answer["already_archived"] == true;
        assert!(was_archived || !left.contains_key(run_id), "seed {seed}");
        let bytes = self.archive.bytes(text(&answer["snapshot"]["key"]));
        assert_eq!(answer["snapshot"]["sha256"], sha256(&bytes), "seed {seed}");
        let scheduled_at = text(&self.archive.latest()["scheduled_at"]).to_owned();
        assert!(
            scheduled_at >= self.latest,
            "seed {seed}: the latest moved from {} to {scheduled_at}",
            self.latest
        );
        self.latest = scheduled_at;
    }
}

async fn kill_at_seeded_moments(seeds: Range<u64>) {
    let mut kills = Kills::new().await;
    let mut moments = BTreeMap::new();
    for seed in seeds.clone() {
        let moment = kills.kill_and_run_again(seed).await;
        *moments.entry(moment).or_insert(0) += 1;
    }
    println!("{seeds:?}: killed {moments:?}");
    let snapshots = check_archive(&kills.archive, &kills.facts);
    assert_eq!(snapshots.len() as u64, seeds.end - seeds.start + 2);
    assert_eq!(moments.len(), 4, "not at every moment: {moments:?}");
}

#[tokio::test]
async fn a_process_killed_at_any_of_25_moments_leaves_an_archive_that_the_next_one_completes() {
    kill_at_seeded_moments(0..25).await;
}

#[tokio::test]
async fn a_process_killed_at_any_of_25_other_moments_leaves_an_archive_that_the_next_one_completes()
{
    kill_at_seeded_moments(25..50).await;
}
