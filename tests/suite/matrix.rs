//! The fault matrix: whatever breaks on the way, a target that is marked complete is complete, and every
//! other one says what is missing.
//!
//! A case is a small world and some tries of the same event: one or two with faults, and one after they
//! are gone. What a try may leave behind is one property: [`Played::check_archive`] and
//! [`Played::check_answer`], reckoned from what the local AWS holds.
//!
//! The seeded cases take `FAULT_SEEDS` (how many) or `FAULT_SEED` (which one) from the environment; with
//! `FAULT_TALLY`, each test adds what it did to that file, and `make faults` sums it up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use image_usage_auditor::audit::{Answer, Auditor, RunError, Summary};
use local_aws::{
    Call, Clock, Fault, FaultKind, LocalAws, Page, Report, RoleOptions, SeedOptions, Service, Tag,
    When, World,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{
    ACCOUNT, Archive, BUCKET, auditor_at, healthy_reports, invocation, local_aws, now,
    scheduled_event, text,
};

const LISTING: &str = "DescribeImageUsageReports";
const MEMBER: &str = "222233334444";
const ROLE: &str = "auditor";

/// The cases that are under way at a time: they wait more than they work.
const CONCURRENT_CASES: usize = 12;

/// A run that has no deadline and takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(170);

/// What a run may take beyond its deadline on a machine that is busy with something else.
const SLACK: Duration = Duration::from_secs(20);

/// A deadline that the retries of a fault that stays don't fit in.
const SHORT: Duration = Duration::from_secs(4);

const SEEDS_UNLESS_TOLD: u64 = 20;

/// What one case is made of.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    /// Its Regions are named by it: what the SDK shares by Region, such as retry tokens, no two cases
    /// of a process share.
    number: u64,
    regions: usize,
    disabled: Option<usize>,
    all_regions: bool,
    has_member: bool,
    reports: Reports,
    page_size: usize,
    concurrency: usize,
    has_earlier_run: bool,
    /// How many reports without any member the second Region holds besides.
    bare: usize,
    time_left: Option<Duration>,
    /// The faults of each try of the event; one without any follows.
    tries: Vec<Vec<Fault>>,
    expected: Expected,
}

/// What the targets hold.
#[derive(Clone, Debug)]
enum Reports {
    /// So many, mixed from the case's number.
    Mixed(usize),
    /// Enough that each target is archived in so many parts.
    Parts(usize),
}

/// What has to come of a case besides the property.
#[derive(Clone, Debug)]
enum Expected {
    /// Nothing.
    Truth,
    /// A snapshot in which every target is complete.
    Complete,
    /// A snapshot in which the second Region has this status and error code, and the others are complete.
    Broken(&'static str, &'static str),
    /// A snapshot in which the second Region ran out of time.
    Late,
    /// This error.
    Error(&'static str),
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(100);

/// The Region of a case at a place; the first is the function's own.
fn region(number: u64, place: usize) -> String {
    let stem = ["us-east", "eu-west", "ap-south", "sa-east"][place];
    format!("{stem}-{number}")
}

impl Case {
    /// Two Regions of 60 reports in pages of 15; `faults` gets the case's number.
    fn new(name: impl Into<String>, faults: impl FnOnce(u64) -> Vec<Fault>) -> Self {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            name: name.into(),
            number,
            regions: 2,
            disabled: None,
            all_regions: false,
            has_member: false,
            reports: Reports::Mixed(60),
            page_size: 15,
            concurrency: 8,
            has_earlier_run: false,
            bare: 0,
            time_left: None,
            tries: vec![faults(number)],
            expected: Expected::Truth,
        }
    }

    fn expecting(mut self, expected: Expected) -> Self {
        self.expected = expected;
        self
    }

    fn within(mut self, time_left: Duration) -> Self {
        self.time_left = Some(time_left);
        self
    }

    fn accounts(&self) -> Vec<&'static str> {
        match self.has_member {
            true => vec![ACCOUNT, MEMBER],
            false => vec![ACCOUNT],
        }
    }

    fn world(&self) -> World {
        let regions = || (0..self.regions).map(|place| region(self.number, place));
        let mut builder = World::builder()
            .clock(Clock::fixed(now()))
            .seed(self.number);
        for account in self.accounts() {
            builder = builder.account(account);
        }
        let world = builder.regions(regions()).build();
        if let Some(place) = self.disabled {
            world.disable_region(ACCOUNT, &region(self.number, place));
        }
        world.role(
            MEMBER,
            RoleOptions {
                name: ROLE.to_owned(),
                // The SDK looks at the real clock.
                lifetime: Some(time::Duration::days(36_500)),
                ..RoleOptions::default()
            },
        );
        let bare = std::iter::repeat_n(Report::default(), self.bare);
        world.put_reports(ACCOUNT, &region(self.number, 1), bare);
        match self.reports {
            Reports::Mixed(count) => {
                world.seed(&SeedOptions {
                    seed: self.number,
                    reports_per_region: count,
                    ..SeedOptions::default()
                });
                if count > 0 {
                    for account in self.accounts() {
                        let bare = Report {
                            report_id: Some(format!("amiur-bare-{account}")),
                            ..Report::default()
                        };
                        world.put_report(account, &region(self.number, 0), bare);
                    }
                }
            }
            Reports::Parts(count) => {
                for region in regions() {
                    world.put_reports(ACCOUNT, &region, bulky_reports(count));
                }
            }
        }
        world
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let regions: Vec<String> = (0..self.regions)
            .map(|place| region(self.number, place))
            .collect();
        let regions = match self.all_regions {
            true => "all".to_owned(),
            false => regions.join(","),
        };
        vec![
            ("AUDITOR_REGIONS", regions),
            ("AUDITOR_ACCOUNTS", self.accounts().join(",")),
            ("AUDITOR_ROLE_NAME", ROLE.to_owned()),
            ("AUDITOR_PAGE_SIZE", self.page_size.to_string()),
            (
                "AUDITOR_MAX_CONCURRENT_TARGETS",
                self.concurrency.to_string(),
            ),
        ]
    }

    /// The targets that a run has to plan; the accounts' Regions can be asked for where they aren't listed.
    fn targets(&self, world: &World) -> BTreeSet<(String, String)> {
        let mut targets = BTreeSet::new();
        for account in self.accounts() {
            let enabled = world.enabled_regions(account);
            for place in 0..self.regions {
                let region = region(self.number, place);
                if !self.all_regions || enabled.contains(&region) {
                    targets.insert((account.to_owned(), region));
                }
            }
        }
        targets
    }

    /// Whether a fault may keep the run from writing when its time is up, so that Lambda ends it.
    fn may_be_killed(&self) -> bool {
        self.time_left.is_some() && self.tries.iter().flatten().any(may_meet_s3)
    }
}

fn may_meet_s3(fault: &Fault) -> bool {
    let of_s3 = [
        "GetObject",
        "PutObject",
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
    ];
    fault.service == Some(Service::S3)
        || fault
            .operation
            .as_deref()
            .is_some_and(|operation| of_s3.contains(&operation))
}

/// Reports whose lines hardly compress.
fn bulky_reports(parts: usize) -> impl Iterator<Item = Report> {
    // About 0.8 bytes of gzip for each: a little more than `parts - 1` parts of 5 MiB.
    const LENGTH: usize = 40_000;
    let count = ((parts - 1) * 5 * 1024 * 1024 + 512 * 1024) * 10 / 8 / LENGTH;
    healthy_reports(count).zip(0_u64..).map(|(report, seed)| {
        let mut random = Random(seed);
        let letters = std::iter::repeat_with(|| char::from(b'(' + random.below(80) as u8));
        let text: String = letters
            .filter(|letter| !"<>".contains(*letter))
            .take(LENGTH)
            .collect();
        Report {
            tags: vec![Tag::new("Text", text)],
            ..report
        }
    })
}

/// How an invocation ended.
#[derive(Debug)]
enum Ended {
    Snapshot(Box<Summary>),
    Failed(RunError),
    /// Its time was up before its answer: Lambda ends it then.
    Killed,
}

/// What the cases of a test came to.
#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    cases: u64,
    faults: u64,
    runs: u64,
    snapshots: u64,
    errors: u64,
    killed: u64,
    reports: u64,
    losses: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.faults += other.faults;
        self.runs += other.runs;
        self.snapshots += other.snapshots;
        self.errors += other.errors;
        self.killed += other.killed;
        self.reports += other.reports;
        self.losses += other.losses;
    }
}

/// A case on its way.
struct Played<'a> {
    case: &'a Case,
    world: World,
    aws: LocalAws,
    auditor: Auditor,
    /// The calls of every try of the event.
    calls: Vec<Call>,
    was_killed: bool,
    /// The objects that were there when the newest snapshot was: they never change again.
    settled: BTreeMap<String, Vec<u8>>,
    tally: Tally,
}

async fn play(case: &Case) -> Tally {
    let world = case.world();
    let aws = local_aws(&world).await;
    let variables = case.variables();
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let auditor = auditor_at(&aws, &region(case.number, 0), &variables).await;
    let mut played = Played {
        case,
        world,
        aws,
        auditor,
        calls: Vec::new(),
        was_killed: false,
        settled: BTreeMap::new(),
        tally: Tally::default(),
    };
    if case.has_earlier_run {
        let mut event = scheduled_event();
        event["id"] = json!("11111111-0000-4000-8000-000000000000");
        event["time"] = json!("2026-11-21T06:00:00Z");
        let ended = played.attempt(event, None).await;
        assert!(matches!(ended, Ended::Snapshot(_)), "{ended:?}");
        played.check_archive();
        played.calls.clear();
    }
    let mut ended = None;
    for faults in &case.tries {
        for fault in faults {
            played.aws.faults().add(fault.clone());
        }
        let this = played.attempt(scheduled_event(), case.time_left).await;
        played.aws.faults().clear();
        played.check_archive();
        played.check_answer(&this);
        ended.get_or_insert(this);
    }
    played.tally.faults = played.aws.faults().injected();
    if let Some(first) = ended {
        played.check_expected(&first);
    }
    let before = Archive::of(&played.aws).objects();

    let again = played.attempt(scheduled_event(), None).await;
    let Ended::Snapshot(summary) = &again else {
        panic!("the faults are gone, and the event still has no snapshot: {again:?}")
    };
    let was_archived = before.contains_key(&summary.snapshot.key);
    // What a run sent before its time was up may have come in since.
    assert!(summary.already_archived || !was_archived);
    played.check_archive();
    played.check_answer(&again);
    if was_archived {
        let after = Archive::of(&played.aws).objects();
        let is_new = |key: &&String| !before.contains_key(*key) && *key != LATEST;
        assert_eq!(after.keys().find(is_new), None, "nothing was to be written");
    }
    played.tally.cases = 1;
    let (tally, aws) = (played.tally, played.aws);
    // Stopping waits for the server's thread.
    tokio::task::spawn_blocking(move || drop(aws))
        .await
        .unwrap();
    tally
}

const LATEST: &str = "image-usage/v1/latest.json";
const SNAPSHOTS: &str = "image-usage/v1/snapshots/";
const REPORTS: &str = "image-usage/v1/reports/";
const ENTRIES: &str = "image-usage/v1/entries/";

impl Played<'_> {
    async fn attempt(&mut self, event: Value, time_left: Option<Duration>) -> Ended {
        self.aws.clear_calls();
        let mut invocation = invocation();
        invocation.time_left = time_left;
        let may_be_killed = time_left.is_some() && self.case.may_be_killed();
        let limit = match time_left {
            Some(time_left) if may_be_killed => time_left,
            Some(time_left) => time_left + SLACK,
            None => PATIENCE,
        };
        let handled = self.auditor.handle(event, invocation);
        let ended = match tokio::time::timeout(limit, handled).await {
            Ok(Ok(Answer::Summary(summary))) => Ended::Snapshot(summary),
            Ok(Ok(Answer::Preflight(_))) => panic!("a run was asked for"),
            Ok(Err(error)) => Ended::Failed(error),
            Err(_) => {
                assert!(may_be_killed, "the run went on for {limit:?}");
                self.was_killed = true;
                Ended::Killed
            }
        };
        self.tally.runs += 1;
        match &ended {
            Ended::Snapshot(_) => self.tally.snapshots += 1,
            Ended::Failed(_) => self.tally.errors += 1,
            Ended::Killed => self.tally.killed += 1,
        }
        self.calls.extend(self.aws.calls());
        ended
    }

    /// Whatever broke: each snapshot tells the truth, everything that it names is there, `latest.json` is
    /// one of them, and no upload is left behind.
    fn check_archive(&mut self) {
        let archive = Archive::of(&self.aws);
        let objects = archive.objects();
        let snapshots: BTreeMap<&String, &Vec<u8>> = objects
            .iter()
            .filter(|(key, _)| key.starts_with(SNAPSHOTS))
            .collect();
        for key in objects.keys() {
            let is_known = [REPORTS, ENTRIES, SNAPSHOTS]
                .iter()
                .any(|folder| key.starts_with(folder))
                || key == LATEST;
            assert!(is_known, "{key} is not of the archive");
        }
        for (key, bytes) in &self.settled {
            assert!(objects.get(key) == Some(bytes), "{key} has changed");
        }
        let mut has_new = false;
        for (key, bytes) in &snapshots {
            if self.settled.contains_key(*key) {
                continue;
            }
            has_new = true;
            let snapshot: Value = serde_json::from_slice(bytes).unwrap();
            let name = format!("/{}.json", text(&snapshot["run_id"]));
            assert!(key.ends_with(&name), "{key} is not of its run");
            self.check_snapshot(&archive, &snapshot);
        }
        if let Some(latest) = objects.get(LATEST) {
            let is_copy = snapshots.values().any(|snapshot| *snapshot == latest);
            assert!(is_copy, "latest.json is no snapshot");
        }
        if has_new {
            self.settled = objects;
            self.settled.remove(LATEST);
        }
        self.check_uploads();
    }

    /// The answer agrees with what is in the archive.
    fn check_answer(&self, ended: &Ended) {
        let objects = Archive::of(&self.aws).objects();
        let has_snapshot = objects
            .keys()
            .any(|key| key.starts_with(SNAPSHOTS) && key.contains("20261122T060000Z-7bf73129"));
        match ended {
            Ended::Snapshot(summary) => {
                let bytes = &objects[&summary.snapshot.key];
                let sha256 = image_usage_archive::domain::digest::hex(&Sha256::digest(bytes));
                assert_eq!(summary.snapshot.sha256, sha256);
                let snapshot: Value = serde_json::from_slice(bytes).unwrap();
                let told = serde_json::to_value(summary).unwrap();
                for member in ["run_id", "status", "counts"] {
                    assert_eq!(told[member], snapshot[member]);
                }
                assert_eq!(objects.get(LATEST), Some(bytes), "it isn't the latest");
                self.check_untouched(&snapshot);
            }
            Ended::Failed(error) => match error.error_type() {
                "NoTargetAudited" => assert!(!has_snapshot, "{error}"),
                "ArchiveFailed" => {}
                other => panic!("{other}: {error}"),
            },
            Ended::Killed => {}
        }
    }

    fn check_snapshot(&mut self, archive: &Archive, snapshot: &Value) {
        let targets = snapshot["targets"].as_array().unwrap();
        let listed: Vec<(String, String)> = targets
            .iter()
            .map(|target| {
                let (account, region) = (&target["account_id"], &target["region"]);
                (text(account).to_owned(), text(region).to_owned())
            })
            .collect();
        assert!(listed.is_sorted_by(|a, b| a < b), "{listed:?}");
        let planned = self.case.targets(&self.world);
        let listed: BTreeSet<(String, String)> = listed.into_iter().collect();
        // Regions that EC2 didn't tell are stood in for, by targets that failed.
        for untold in planned.symmetric_difference(&listed) {
            let has_told = !self.calls.iter().any(|call| {
                call.operation == "DescribeRegions" && call.fault.is_some()
                    || call.operation == "AssumeRole" && call.fault.is_some()
            });
            assert!(
                self.case.all_regions && !has_told,
                "{untold:?} is in one only"
            );
        }
        let mut statuses: BTreeMap<&str, u64> = BTreeMap::new();
        for target in targets {
            let status = text(&target["status"]);
            *statuses.entry(status).or_default() += 1;
            let (account, region) = (text(&target["account_id"]), text(&target["region"]));
            let is_enabled = self
                .world
                .enabled_regions(account)
                .iter()
                .any(|enabled| enabled == region);
            match status {
                "skipped" => assert!(!is_enabled, "{target}"),
                "complete" | "incomplete" => assert!(is_enabled, "{target}"),
                _ => {}
            }
        }
        let is_archived = |status: &&str| ["complete", "incomplete"].contains(status);
        assert!(statuses.keys().any(is_archived), "nothing is archived");
        for (status, count) in snapshot["counts"]["targets"].as_object().unwrap() {
            let counted = statuses.get(status.as_str()).copied().unwrap_or(0);
            assert_eq!(*count, counted, "{status}");
        }
        let is_whole = statuses
            .keys()
            .all(|status| ["complete", "skipped"].contains(status));
        let status = if is_whole { "complete" } else { "partial" };
        assert_eq!(snapshot["status"], status);
        let compared = archive.check_beside(snapshot, &self.world, |account, region| {
            self.bare_reports(account, region)
        });
        self.tally.reports += compared as u64;
    }

    /// How many reports without any member EC2 gave besides those that it holds: exactly so many where the
    /// listing was read once.
    fn bare_reports(&self, account: &str, region: &str) -> std::ops::RangeInclusive<usize> {
        let pages = || {
            self.calls.iter().filter(|call| {
                call.operation == LISTING && call.account == account && call.region == region
            })
        };
        let given = pages()
            .filter(|call| call.fault == Some(FaultKind::BareReport))
            .count();
        let starts = pages()
            .filter(|call| call.page == Some(0) && call.status == Some(200))
            .count();
        let least = if starts == 1 { given } else { 0 };
        least..=given
    }

    /// What no fault has met is complete, but for want of time.
    fn check_untouched(&self, snapshot: &Value) {
        let is_met = |call: &&Call| call.fault.is_some();
        let shared = ["DescribeRegions", "AssumeRole", "GetCallerIdentity"];
        let is_shared =
            |call: &Call| call.service == Service::S3 || shared.contains(&call.operation.as_str());
        if self.was_killed || self.calls.iter().filter(is_met).any(is_shared) {
            return;
        }
        for target in snapshot["targets"].as_array().unwrap() {
            let was_met = self.calls.iter().filter(is_met).any(|call| {
                target["account_id"] == call.account && target["region"] == call.region
            });
            let is_done = ["complete", "skipped"].contains(&text(&target["status"]));
            // Nor was there time to find out why a Region refuses.
            let code = target["error"]["code"].as_str().unwrap_or_default();
            let late = ["DeadlineExceeded", "AuthFailure"];
            let was_late = self.case.time_left.is_some() && late.contains(&code);
            assert!(
                was_met || is_done || was_late,
                "nothing was wrong: {target}"
            );
        }
    }

    /// No upload stays unfinished, unless its start or its end was not answered.
    fn check_uploads(&self) {
        let may_stay = self.was_killed
            || self.calls.iter().any(|call| {
                let ends = ["CreateMultipartUpload", "AbortMultipartUpload"];
                ends.contains(&call.operation.as_str()) && call.fault.is_some()
            });
        let left: Vec<String> = fs::read_dir(self.aws.archive_root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(".upload"))
            .collect();
        assert!(may_stay || left.is_empty(), "left behind: {left:?}");
    }

    fn check_expected(&self, ended: &Ended) {
        if matches!(self.case.expected, Expected::Truth) {
            return;
        }
        // A machine that is too busy may not even get to the page.
        let is_late = matches!(self.case.expected, Expected::Late);
        assert!(self.tally.faults > 0 || is_late, "the fault was never met");
        let summary = match (ended, &self.case.expected) {
            (Ended::Snapshot(summary), _) => summary,
            (Ended::Failed(error), Expected::Error(expected)) => {
                assert_eq!(error.error_type(), *expected);
                return;
            }
            _ => panic!("{:?} was expected: {ended:?}", self.case.expected),
        };
        let snapshot = Archive::of(&self.aws).snapshot(summary);
        for target in snapshot["targets"].as_array().unwrap() {
            let found = (text(&target["status"]), target["error"]["code"].as_str());
            let is_second = target["region"] == region(self.case.number, 1);
            match self.case.expected {
                Expected::Broken(status, code) if is_second => {
                    assert_eq!(found, (status, Some(code)), "{target}");
                }
                Expected::Late if is_second => {
                    assert_eq!(found.1, Some("DeadlineExceeded"), "{target}");
                }
                // On a busy machine the other ones may be late as well, which `check_untouched` knows.
                Expected::Late => {}
                _ => assert_eq!(found, ("complete", None), "{target}"),
            }
        }
    }
}

/// Plays cases, many at a time, and fails with the names of those that went wrong.
async fn play_all(test: &str, cases: Vec<Case>) {
    let mut tally = Tally::default();
    let mut losses = String::new();
    let mut playing = futures_util::stream::iter(&cases)
        .map(async |case| {
            let outcome = AssertUnwindSafe(play(case)).catch_unwind().await;
            (case, outcome)
        })
        .buffer_unordered(CONCURRENT_CASES);
    while let Some((case, outcome)) = playing.next().await {
        match outcome {
            Ok(played) => tally.add(played),
            Err(panic) => {
                let message = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no message");
                tally.cases += 1;
                tally.losses += 1;
                let name = &case.name;
                writeln!(losses, "{name}: {message}\n    {:?}", case.tries).unwrap();
            }
        }
    }
    if let Some(path) = std::env::var_os("FAULT_TALLY") {
        let mut file: File = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        let Tally {
            cases,
            faults,
            runs,
            snapshots,
            errors,
            killed,
            reports,
            losses: lost,
        } = tally;
        let line = format!(
            "{test}\t{cases}\t{faults}\t{runs}\t{snapshots}\t{errors}\t{killed}\t{reports}\t{lost}\n"
        );
        let lost: String = losses.lines().map(|line| format!("! {line}\n")).collect();
        file.write_all((line + &lost).as_bytes()).unwrap();
    }
    assert!(losses.is_empty(), "{test}:\n{losses}");
}

/// A small generator (SplitMix64), so that a seed keeps its meaning.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True so many times in a hundred.
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

/// The pages of a target with 60 reports: the request that asks for each, and its place.
const PAGES: [(u64, Page); 3] = [(0, Page::First), (2, Page::Middle), (3, Page::Last)];

fn listing_fault(number: u64, kind: &FaultKind, when: When) -> Vec<Fault> {
    let fault = Fault::new(kind.clone()).on(LISTING).when(when);
    vec![fault.in_region(&region(number, 1))]
}

fn needs_token(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::RepeatToken | FaultKind::ExpireToken)
}

/// A listing's fault, met once, on each page that it can meet.
fn once_on_each_page(kind: &FaultKind) -> Vec<(Page, Case)> {
    let needs_token = needs_token(kind);
    PAGES
        .into_iter()
        .filter(|(request, _)| !needs_token || *request > 0)
        .map(|(request, page)| {
            let nth = When::Nth(request - u64::from(needs_token));
            let name = format!("{kind:?} once on the page {page:?}");
            (
                page,
                Case::new(name, |number| listing_fault(number, kind, nth)),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_fault_that_passes_costs_nothing_on_any_page() {
    let kinds = [
        FaultKind::Throttle,
        FaultKind::Status500,
        FaultKind::Status503,
        FaultKind::CloseBeforeAnswer,
        FaultKind::ResetMidBody,
        FaultKind::CutBody,
        FaultKind::MalformedXml,
        FaultKind::UnknownMembersAndEntities,
        FaultKind::Latency { milliseconds: 300 },
        FaultKind::EmptyPage,
        FaultKind::DuplicateReport,
        FaultKind::BareReport,
        FaultKind::RepeatToken,
        FaultKind::ExpireToken,
        FaultKind::ExpireCredentials,
    ];
    let cases = kinds.iter().flat_map(once_on_each_page);
    let cases = cases.map(|(_, case)| case);
    // Each of the two looks at a target starts a listing again once.
    let thrice = Case::new("ExpireToken three times", |number| {
        listing_fault(number, &FaultKind::ExpireToken, When::FirstN(3))
    });
    // Two are alike, and come twice.
    let mut unnamed = Case::new("ExpireToken after reports without an ID", |number| {
        listing_fault(number, &FaultKind::ExpireToken, When::Nth(1))
    });
    unnamed.bare = 2;
    let cases = cases.chain([thrice, unnamed]);
    let cases = cases.map(|case| case.expecting(Expected::Complete));
    play_all("passing", cases.collect()).await;
}

#[tokio::test]
async fn a_fault_that_stays_on_a_page_ends_with_the_deadline() {
    let kinds = [
        FaultKind::Throttle,
        FaultKind::Status500,
        FaultKind::Status503,
        FaultKind::CloseBeforeAnswer,
        FaultKind::ResetMidBody,
        FaultKind::CutBody,
        FaultKind::MalformedXml,
        FaultKind::SlowBody,
    ];
    let mut cases = Vec::new();
    for kind in kinds {
        for (_, page) in PAGES {
            let name = format!("{kind:?} always on the page {page:?}");
            let faults = |number| listing_fault(number, &kind, When::Page(page));
            let case = Case::new(name, faults);
            // Not all of them are to write at the same moment.
            let later = Duration::from_millis(300) * (cases.len() % CONCURRENT_CASES) as u32;
            cases.push(case.within(2 * SHORT + later).expecting(Expected::Late));
        }
    }
    play_all("staying", cases).await;
    // Each such page has a token of its own, so that no token ever comes twice; nobody waits here, so
    // this is played alone.
    let endless = Case::new("EmptyPage without end", |number| {
        listing_fault(number, &FaultKind::EmptyPage, When::Page(Page::Last))
    });
    let endless = endless.within(SHORT).expecting(Expected::Late);
    play_all("endless", vec![endless]).await;
}

#[tokio::test]
async fn a_refusal_is_told_by_its_name_and_what_came_before_it_is_kept() {
    let refusals = [
        (FaultKind::Denied, "UnauthorizedOperation", true),
        (FaultKind::AuthFailure, "AuthFailure", true),
        (FaultKind::RegionDisabled, "AuthFailure", true),
        (FaultKind::ExpireCredentials, "RequestExpired", false),
        (FaultKind::RepeatToken, "RepeatedToken", false),
        (FaultKind::ExpireToken, "InvalidPaginationToken", false),
    ];
    let mut cases = Vec::new();
    for (kind, code, is_final) in refusals {
        let of_page = |page| match page {
            Page::First => Expected::Broken("failed", code),
            _ => Expected::Broken("incomplete", code),
        };
        if is_final {
            let once = once_on_each_page(&kind);
            cases.extend(
                once.into_iter()
                    .map(|(page, case)| case.expecting(of_page(page))),
            );
        }
        for (_, page) in PAGES {
            if page == Page::First && needs_token(&kind) {
                continue;
            }
            let name = format!("{kind:?} always on the page {page:?}");
            let case = Case::new(name, |number| {
                listing_fault(number, &kind, When::Page(page))
            });
            cases.push(case.expecting(of_page(page)));
        }
    }
    play_all("refused", cases).await;
}

#[tokio::test]
async fn an_answer_that_only_looks_odd_is_read_whole_however_often_it_comes() {
    let kinds = [
        FaultKind::UnknownMembersAndEntities,
        FaultKind::DuplicateReport,
        FaultKind::BareReport,
        FaultKind::EmptyToken,
        FaultKind::Latency { milliseconds: 50 },
    ];
    let cases = kinds.into_iter().map(|kind| {
        let name = format!("{kind:?} always");
        let case = Case::new(name, |number| listing_fault(number, &kind, When::Always));
        case.expecting(Expected::Complete)
    });
    play_all("odd", cases.collect()).await;
}

#[tokio::test]
async fn accounts_and_regions_that_cannot_be_asked_fail_alone() {
    let kinds = [
        FaultKind::Throttle,
        FaultKind::Status500,
        FaultKind::Status503,
        FaultKind::CloseBeforeAnswer,
        FaultKind::ResetMidBody,
        FaultKind::CutBody,
        FaultKind::MalformedXml,
        FaultKind::SlowBody,
        FaultKind::Denied,
        FaultKind::ExpireCredentials,
    ];
    let mut cases = Vec::new();
    for kind in kinds {
        for operation in ["AssumeRole", "DescribeRegions"] {
            for when in [When::Nth(0), When::Always] {
                let name = format!("{kind:?} {when:?} at {operation}");
                let fault = Fault::new(kind.clone()).on(operation).when(when);
                let mut case = Case::new(name, |_| vec![fault]).within(SHORT);
                case.has_member = true;
                case.all_regions = operation == "DescribeRegions";
                case.disabled = Some(2);
                cases.push(case);
            }
        }
    }
    play_all("accounts", cases).await;
}

/// What may happen at a call to S3.
fn s3_kinds() -> Vec<FaultKind> {
    vec![
        FaultKind::Status500,
        FaultKind::Status503,
        FaultKind::conditional_request_conflict(),
        FaultKind::precondition_failed(),
        FaultKind::Denied,
        FaultKind::ExpireCredentials,
        FaultKind::CloseBeforeAnswer,
        FaultKind::ResetMidBody,
        FaultKind::CutBody,
        FaultKind::SlowBody,
        FaultKind::Latency { milliseconds: 300 },
    ]
}

/// Whether S3 takes the call at the next try.
fn passes(kind: &FaultKind) -> bool {
    !matches!(
        kind,
        FaultKind::Denied | FaultKind::ExpireCredentials | FaultKind::SlowBody
    )
}

#[tokio::test]
async fn the_archive_may_fail_at_any_object_before_and_after_it_took_it() {
    let mut cases = Vec::new();
    for (operation, key) in [
        ("PutObject", "/entries/"),
        ("PutObject", "/reports/"),
        ("PutObject", "/snapshots/"),
        ("PutObject", "/latest.json"),
        ("GetObject", "/snapshots/"),
        ("GetObject", "/latest.json"),
    ] {
        for kind in s3_kinds() {
            for when in [When::Nth(0), When::Always] {
                for after_effect in [false, true] {
                    if after_effect && operation == "GetObject" {
                        continue;
                    }
                    let name = format!("{kind:?} {when:?} at {operation} {key} {after_effect}");
                    let mut fault = Fault::new(kind.clone())
                        .on(operation)
                        .on_key(key)
                        .when(when);
                    fault.after_effect = after_effect;
                    let mut case = Case::new(name, |_| vec![fault]);
                    case.regions = 2;
                    case.reports = Reports::Mixed(12);
                    case.has_earlier_run = key == "/latest.json";
                    let is_latency = matches!(kind, FaultKind::Latency { .. });
                    let is_put = operation == "PutObject";
                    if is_latency || when == When::Nth(0) && passes(&kind) && is_put {
                        case = case.expecting(Expected::Complete);
                    } else {
                        case = case.within(SHORT);
                    }
                    cases.push(case);
                }
            }
        }
    }
    play_all("archive", cases).await;
}

#[tokio::test]
async fn tries_that_read_differently_and_die_before_the_snapshot_leave_no_false_object() {
    let unread = |number, page| {
        let faults = listing_fault(number, &FaultKind::Denied, When::Page(page));
        faults.into_iter().next().unwrap()
    };
    let no_snapshot = || {
        let denied = Fault::new(FaultKind::Denied);
        denied.on("PutObject").on_key("/snapshots/")
    };
    let mut cases = Vec::new();
    for kind in s3_kinds().into_iter().filter(passes) {
        let found = |when| {
            let fault = Fault::new(kind.clone()).on("GetObject").on_key("/reports/");
            fault.when(when)
        };
        let orders: [(&str, [Vec<Page>; 2]); 3] = [
            ("less, then all", [vec![Page::Last], vec![]]),
            ("all, then less", [vec![], vec![Page::Last]]),
            ("less, then more", [vec![Page::Middle], vec![Page::Last]]),
        ];
        for (order, tries) in orders {
            let name = format!("{order}, and {kind:?} on the way back");
            let mut case = Case::new(name, |_| Vec::new());
            let faults = |pages: &[Page]| {
                let unread = pages.iter().map(|page| unread(case.number, *page));
                unread.chain([no_snapshot()]).collect::<Vec<_>>()
            };
            let [mut first, mut second] = tries.map(|pages| faults(&pages));
            first.push(found(When::Nth(0)));
            second.push(found(When::Nth(0)));
            case.tries = vec![first, second];
            cases.push(case.expecting(Expected::Error("ArchiveFailed")));
        }
    }
    play_all("differing", cases).await;
}

#[tokio::test]
async fn an_upload_of_many_parts_may_fail_at_any_of_its_calls() {
    let at_any = vec![
        FaultKind::Status500,
        FaultKind::ResetMidBody,
        FaultKind::CloseBeforeAnswer,
        FaultKind::Denied,
    ];
    let error_within_a_success = FaultKind::Error {
        status: 200,
        code: "InternalError".to_owned(),
        message: "We encountered an internal error. Please try again.".to_owned(),
    };
    let at_the_end = vec![
        error_within_a_success,
        FaultKind::precondition_failed(),
        FaultKind::conditional_request_conflict(),
    ];
    let mut cases = Vec::new();
    for (operation, nth, kinds) in [
        (
            "CompleteMultipartUpload",
            0,
            [at_the_end, at_any.clone()].concat(),
        ),
        ("CreateMultipartUpload", 0, at_any.clone()),
        ("UploadPart", 0, at_any.clone()),
        ("UploadPart", 1, at_any),
    ] {
        for kind in &kinds {
            for after_effect in [false, true] {
                let name = format!("{kind:?} at {operation} {nth} {after_effect}");
                let mut fault = Fault::new(kind.clone()).on(operation).when(When::Nth(nth));
                fault.after_effect = after_effect;
                let mut case = Case::new(name, |_| vec![fault]);
                case.regions = 1;
                case.reports = Reports::Parts(2);
                if passes(kind) {
                    case = case.expecting(Expected::Complete);
                }
                cases.push(case);
            }
        }
    }
    // Each takes seconds.
    let one_in = match number_from_environment("FAULT_SEEDS") {
        Some(_) => 3,
        None => 11,
    };
    play_all("uploads", cases.into_iter().step_by(one_in).collect()).await;
}

#[tokio::test]
async fn an_incomplete_upload_of_a_lost_try_does_not_block_the_next_one() {
    let mut case = Case::new("an incomplete upload, and no snapshot", |_| {
        let denied = Fault::new(FaultKind::Denied);
        vec![
            denied.clone().on(LISTING).when(When::Page(Page::Last)),
            denied.on("PutObject").on_key("/snapshots/"),
        ]
    });
    case.regions = 1;
    case.reports = Reports::Parts(2);
    case = case.expecting(Expected::Error("ArchiveFailed"));
    play_all("lost upload", vec![case]).await;
}

#[tokio::test]
async fn a_fault_that_outlasts_every_retry_is_told_by_its_name() {
    // It takes one and a half minutes, most of them waiting.
    let at_s3 = |kind: FaultKind, key: &str, when| {
        let name = format!("{kind:?} {when:?} at PutObject {key}");
        let fault = Fault::new(kind).on("PutObject").on_key(key).when(when);
        Case::new(name, |_| vec![fault])
    };
    let on_last_page = |kind: FaultKind, when| {
        let name = format!("{kind:?} {when:?} without a deadline");
        Case::new(name, |number| listing_fault(number, &kind, when))
    };
    let everywhere = Fault::new(FaultKind::Status503).on(LISTING);
    let last = When::Page(Page::Last);
    let broken = |code| Expected::Broken("incomplete", code);
    let cases = vec![
        on_last_page(FaultKind::Status500, last).expecting(broken("InternalError")),
        on_last_page(FaultKind::Throttle, last).expecting(broken("RequestLimitExceeded")),
        on_last_page(FaultKind::CloseBeforeAnswer, last).expecting(broken("ConnectionFailed")),
        on_last_page(FaultKind::MalformedXml, last).expecting(broken("MalformedResponse")),
        on_last_page(FaultKind::SlowBody, When::Nth(3)).expecting(Expected::Complete),
        Case::new("Status503 everywhere", |_| vec![everywhere])
            .expecting(Expected::Error("NoTargetAudited")),
        at_s3(FaultKind::SlowBody, "/reports/", When::Nth(0)).expecting(Expected::Complete),
        at_s3(FaultKind::Status500, "/reports/", When::Always)
            .expecting(Expected::Error("ArchiveFailed")),
        at_s3(FaultKind::Status503, "/snapshots/", When::Always)
            .expecting(Expected::Error("ArchiveFailed")),
    ];
    play_all("outlasting", cases).await;
}

/// How long the endpoint is gone, once it is.
const OUTAGE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_endpoint_that_refuses_connections_for_a_while_costs_nothing() {
    for gone_after_page in [None, Some(1), Some(3)] {
        let case = Case::new("gone", |_| Vec::new());
        let world = case.world();
        let folder = tempfile::tempdir().unwrap();
        let aws = LocalAws::builder(world.clone()).s3_root(folder.path());
        let aws = aws.start().await.unwrap();
        aws.create_bucket(BUCKET).unwrap();
        let variables = case.variables();
        let variables: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let auditor = auditor_at(&aws, &region(case.number, 0), &variables).await;
        let slow = FaultKind::Latency { milliseconds: 50 };
        aws.faults().add(Fault::new(slow).on(LISTING));
        let outage = async {
            let is_reached = || {
                let calls = aws.calls();
                gone_after_page.is_none() || calls.iter().any(|call| call.page == gone_after_page)
            };
            while !is_reached() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let port = aws.endpoint().rsplit(':').next().unwrap().parse().unwrap();
            tokio::task::spawn_blocking(move || drop(aws))
                .await
                .unwrap();
            tokio::time::sleep(OUTAGE).await;
            let builder = LocalAws::builder(world.clone()).s3_root(folder.path());
            builder.port(port).start().await.unwrap()
        };
        let handled = auditor.handle(scheduled_event(), invocation());
        let (aws, answer) = tokio::join!(outage, handled);
        let Answer::Summary(summary) = answer.unwrap() else {
            panic!("a run was asked for")
        };
        let archive = Archive::of(&aws);
        let snapshot = archive.snapshot(&summary);
        archive.check(&snapshot, &world);
        assert_eq!(snapshot["status"], "complete", "{gone_after_page:?}");
    }
}

/// A case of everything, made from a seed.
fn seeded(seed: u64) -> Case {
    let mut random = Random(seed);
    let mut case = Case::new(format!("seed {seed}"), |_| Vec::new());
    // Probabilities are drawn by Region: the same seed must name the same ones.
    case.number = 1_000_000 + seed;
    case.regions = 1 + random.below(4) as usize;
    // The function runs in the first one.
    let place = random.below(case.regions as u64) as usize;
    case.disabled = (place > 0 && random.percent(25)).then_some(place);
    case.all_regions = random.percent(20);
    case.has_member = random.percent(30);
    case.reports = Reports::Mixed(random.below(61) as usize);
    case.page_size = random.pick(&[2, 5, 7, 10, 25, 1000]);
    case.concurrency = random.pick(&[1, 2, 3, 8]);
    case.has_earlier_run = random.percent(40);
    if case.regions > 1 && random.percent(25) {
        case.bare = 1 + random.below(3) as usize;
    }
    case.time_left = Some(Duration::from_secs(random.pick(&[2, 3, 5, 8])));
    case.tries.clear();
    for _ in 0..random.pick(&[1, 1, 2]) {
        let faults = 1 + random.below(5);
        let faults = (0..faults).map(|_| seeded_fault(&mut random, &case));
        let faults = faults.collect();
        case.tries.push(faults);
    }
    case
}

fn seeded_fault(random: &mut Random, case: &Case) -> Fault {
    let listing_kinds = [
        FaultKind::Throttle,
        FaultKind::TokenBucket,
        FaultKind::Status500,
        FaultKind::Status503,
        FaultKind::CloseBeforeAnswer,
        FaultKind::ResetMidBody,
        FaultKind::CutBody,
        FaultKind::MalformedXml,
        FaultKind::UnknownMembersAndEntities,
        FaultKind::Latency { milliseconds: 200 },
        FaultKind::EmptyPage,
        FaultKind::EmptyToken,
        FaultKind::DuplicateReport,
        FaultKind::BareReport,
        FaultKind::RepeatToken,
        FaultKind::ExpireToken,
        FaultKind::ExpireCredentials,
        FaultKind::Denied,
        FaultKind::RegionDisabled,
        FaultKind::SlowBody,
    ];
    let shared_kinds = [
        FaultKind::Throttle,
        FaultKind::Status500,
        FaultKind::Status503,
        FaultKind::CloseBeforeAnswer,
        FaultKind::ResetMidBody,
        FaultKind::CutBody,
        FaultKind::MalformedXml,
        FaultKind::Denied,
    ];
    let mut fault = match random.below(100) {
        0..60 => {
            let mut fault = Fault::new(random.pick(&listing_kinds)).on(LISTING);
            if random.percent(70) {
                let place = random.below(case.regions as u64) as usize;
                fault = fault.in_region(&region(case.number, place));
            }
            fault
        }
        60..68 => {
            let operation = random.pick(&["AssumeRole", "DescribeRegions"]);
            Fault::new(random.pick(&shared_kinds)).on(operation)
        }
        _ => {
            let places = [
                ("PutObject", "/entries/"),
                ("PutObject", "/reports/"),
                ("PutObject", "/snapshots/"),
                ("PutObject", "/latest.json"),
                ("GetObject", "/reports/"),
                ("GetObject", "/snapshots/"),
                ("GetObject", "/latest.json"),
            ];
            let (operation, key) = random.pick(&places);
            let kind = random.pick(&s3_kinds());
            let mut fault = Fault::new(kind).on(operation).on_key(key);
            fault.after_effect = random.percent(50);
            fault
        }
    };
    let is_listing = fault.operation.as_deref() == Some(LISTING);
    fault.when = match random.below(100) {
        0..12 => When::Always,
        12..40 => When::Nth(random.below(8)),
        40..55 => When::FirstN(1 + random.below(3)),
        55..70 if is_listing => When::Page(random.pick(&[Page::First, Page::Middle, Page::Last])),
        _ => When::Probability {
            p: random.pick(&[0.1, 0.3, 0.6]),
            seed: random.next(),
        },
    };
    fault
}

#[tokio::test]
async fn seeded_combinations_of_faults_lose_nothing() {
    let seeds = match number_from_environment("FAULT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_environment("FAULT_SEEDS").unwrap_or(SEEDS_UNLESS_TOLD),
    };
    play_all("seeded", seeds.map(seeded).collect()).await;
}

fn number_from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    let number = value.parse();
    Some(number.unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}
