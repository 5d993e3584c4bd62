//! Sixty days of an account with 500 AMIs: nothing that EC2 deletes is lost, no entries are fetched twice,
//! the changes add up, and whoever touches the archive is found out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration as Wait;

use image_usage_archive::source::Source as VerifiedArchive;
use image_usage_archive::verify::{Options, Verdict, verify};
use image_usage_auditor::audit::{Answer, Auditor, Summary};
use local_aws::{Entry, Fault, FaultKind, LocalAws, Report, ResourceType, Transition, When, World};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::harness::{
    ACCOUNT, Archive, BUCKET, auditor, count_calls, event_at, expected_entries, invocation_at,
    local_aws, now, text, will_be_harmed, world,
};
use crate::verify::Tampering;

const ENTRIES: &str = "DescribeImageUsageReportEntries";
const LISTING: &str = "DescribeImageUsageReports";

const DAYS: i64 = 60;

/// So long before the first run the reports begin: EC2 has kept what is not older than 30 days.
const WEEKS_BEFORE: i64 = 5;

const REGION: &str = "us-east-1";

/// The AMIs, of which the first ones have their reports made on one day of the week, and the others spread
/// over all days.
const IMAGES: i64 = 500;
const IMAGES_OF_ONE_DAY: i64 = 300;

/// What EC2 takes and gives at most in one call.
const IDS_PER_CALL: usize = 200;
const ENTRIES_PER_PAGE: usize = 1_000;

/// How many of a thousand reports have each fate; the others become available within the hour.
const FAIL: u64 = 40;
const HANG: u64 = 30;
const COME_LATE: u64 = 40;
const ARE_DELETED: u64 = 40;
/// How many of a thousand are still listed when they have expired.
const OUTSTAY: u64 = 30;

/// Draws numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn minutes(&mut self, least: i64, most: i64) -> Duration {
        Duration::minutes(least + self.below((most - least) as u64) as i64)
    }
}

/// A report of an AMI as it will live, made at a moment of its day.
fn planned(random: &mut Random, image: i64, midnight: OffsetDateTime) -> Report {
    const HOUR: i64 = 60;
    const DAY: i64 = 24 * HOUR;
    let created = midnight + random.minutes(0, DAY);
    // EC2 says 30 days, and shows 29 in its own guide.
    let lifetime = Duration::days(29 + random.below(2) as i64);
    let expires = created + lifetime;
    let entries = (0..random.below(3)).map(|place| Entry {
        account_id: Some(format!("{:012}", random.below(40) * 10 + place)),
        resource_type: Some("ec2:Instance".to_owned()),
        usage_count: Some(1 + random.below(90) as i64),
    });
    let entries: Vec<Entry> = entries.collect();
    let mut report = Report {
        image_id: Some(format!("ami-{image:017x}")),
        report_id: Some(format!("amiur-{:016x}", random.next())),
        resource_types: vec![ResourceType::new("ec2:Instance")],
        state: Some("pending".to_owned()),
        creation_time: Some(created),
        expiration_time: Some(expires),
        entries,
        deleted_at: Some(expires),
        ..Report::default()
    };
    let becomes = |state: &str, after: Duration| {
        Some(Transition {
            at: created + after,
            state: state.to_owned(),
            state_reason: (state == "error").then(|| "The report could not be created.".to_owned()),
        })
    };
    let fate = random.below(1_000);
    report.transition = if fate < FAIL {
        becomes("error", random.minutes(5, 2 * DAY))
    } else if fate < FAIL + HANG {
        None
    } else if fate < FAIL + HANG + COME_LATE {
        // Some come so late that they expire before the next run.
        becomes("available", random.minutes(DAY, 30 * DAY))
    } else {
        becomes("available", random.minutes(5, HOUR))
    };
    if fate >= 1_000 - ARE_DELETED {
        report.deleted_at = Some(created + random.minutes(2 * HOUR, 28 * DAY));
    } else if random.below(1_000) < OUTSTAY && lifetime == Duration::days(29) {
        report.deleted_at = Some(expires + random.minutes(HOUR, DAY));
    }
    report
}

/// The moment of the first run.
fn first_day() -> OffsetDateTime {
    now()
}

/// Every report of the simulation, in the order of their creation.
fn plan(seed: u64) -> Vec<Report> {
    let mut random = Random(seed);
    let mut reports = Vec::new();
    let midnight = first_day() - Duration::hours(6);
    for day in -7 * WEEKS_BEFORE..DAYS {
        for image in 0..IMAGES {
            let weekday = match image < IMAGES_OF_ONE_DAY {
                true => 3,
                false => image % 7,
            };
            if day.rem_euclid(7) == weekday {
                let midnight = midnight + Duration::days(day - 1);
                reports.push(planned(&mut random, image, midnight));
            }
        }
    }
    reports.sort_by_key(|report| report.creation_time);
    reports
}

/// Reports by their IDs.
type ById = BTreeMap<String, Report>;

/// Sixty days on their way.
struct Simulation {
    world: World,
    aws: LocalAws,
    auditor: Auditor,
    /// What is still to be made, the last one first.
    to_come: Vec<Report>,
    /// What was available all through a run that has a snapshot.
    ever_available: ById,
    snapshots: Vec<Value>,
}

impl Simulation {
    async fn new() -> Self {
        let world = world(&[REGION]);
        let mut aws = local_aws(&world).await;
        // Its documents are 130,000 lines, which the verifier reads as closely as a schema could.
        will_be_harmed(&mut aws);
        // Short lists of findings: each of 1,000 changes has snapshots read again.
        let variables = [
            ("AUDITOR_EXPIRY_WINDOW_DAYS", "2"),
            ("AUDITOR_PENDING_LIMIT_HOURS", "600"),
        ];
        let auditor = auditor(&aws, &variables).await;
        let mut to_come = plan(60);
        to_come.reverse();
        Self {
            world,
            aws,
            auditor,
            to_come,
            ever_available: ById::new(),
            snapshots: Vec::new(),
        }
    }

    /// Turns the clock, and has the reports made that have been asked for since.
    fn turn_clock(&mut self, time: OffsetDateTime) {
        self.world.clock().set(time);
        let is_made = |report: &mut Report| report.creation_time.is_some_and(|made| made <= time);
        while let Some(report) = self.to_come.pop_if(is_made) {
            if report.deleted_at.is_none_or(|deleted| deleted > time) {
                self.world.put_report(ACCOUNT, REGION, report);
            }
        }
    }

    fn available(&self) -> ById {
        let reports = self.world.reports(ACCOUNT, REGION).into_iter();
        reports
            .filter(|report| report.state.as_deref() == Some("available"))
            .map(|report| (report.report_id.clone().unwrap(), report))
            .collect()
    }

    async fn attempt(&self, event: &Value) -> Option<Summary> {
        let invocation = invocation_at(self.world.clock().now());
        match self.auditor.handle(event.clone(), invocation).await {
            Ok(Answer::Summary(summary)) => Some(*summary),
            Ok(Answer::Preflight(_)) => panic!("a run was asked for"),
            Err(_) => None,
        }
    }

    /// Notes that a run is in the archive, with what was available all the time.
    fn note(&mut self, summary: &Summary, available: ById) {
        self.snapshots
            .push(Archive::of(&self.aws).snapshot(summary));
        self.ever_available.extend(available);
    }

    /// A day without faults; tells how many calls for entries its run made, and how many it needed.
    async fn quiet_day(&mut self, time: OffsetDateTime) -> (usize, usize) {
        self.turn_clock(time);
        let available = self.available();
        let least = self.least_calls(&available);
        self.aws.clear_calls();
        let summary = self.attempt(&event_at(time)).await.unwrap();
        self.note(&summary, available);
        (count_calls(&self.aws, ENTRIES), least)
    }

    /// The fewest calls that fetch what has not been available before: so many IDs and entries fit in one.
    fn least_calls(&self, available: &ById) -> usize {
        let is_new = |(id, _): &(&String, &Report)| !self.ever_available.contains_key(*id);
        let new: Vec<&Report> = available
            .iter()
            .filter(is_new)
            .map(|(_, new)| new)
            .collect();
        let entries: usize = new.iter().map(|report| report.entries.len()).sum();
        let by_ids = new.len().div_ceil(IDS_PER_CALL);
        by_ids.max(entries.div_ceil(ENTRIES_PER_PAGE))
    }

    fn archive_folder(&self) -> PathBuf {
        self.aws.archive_root().join(BUCKET).join("image-usage")
    }

    /// Checks that what was ever available is in the archive exactly once, in the objects that snapshots
    /// name; where another object has it too, it is alike there. Tells how many reports that are, and how
    /// many of them EC2 has no more.
    fn check_entries(&self) -> (usize, usize) {
        let archive = Archive::of(&self.aws);
        let named: BTreeSet<&str> = self
            .snapshots
            .iter()
            .flat_map(|snapshot| snapshot["targets"].as_array().unwrap())
            .filter_map(|target| target["entries_object"]["key"].as_str())
            .collect();
        let mut once: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut elsewhere: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for key in archive
            .objects()
            .keys()
            .filter(|key| key.contains("/v1/entries/"))
        {
            for (id, lines) in archive.entry_groups(key) {
                if !named.contains(key.as_str()) {
                    elsewhere.insert(id, lines);
                } else if let Some(before) = once.insert(id.clone(), lines) {
                    panic!("{id} is archived twice, in {key} too: {before:?}");
                }
            }
        }
        let held = self.world.reports(ACCOUNT, REGION);
        let held: BTreeSet<Option<String>> =
            held.into_iter().map(|report| report.report_id).collect();
        let mut gone = 0;
        for (id, report) in &self.ever_available {
            let lines = once.remove(id);
            let lines = lines.unwrap_or_else(|| panic!("{id} is lost: {report:?}"));
            assert_eq!(lines, expected_entries(ACCOUNT, REGION, report), "{id}");
            gone += usize::from(!held.contains(&report.report_id));
            let alike = elsewhere.get(id).is_none_or(|other| *other == lines);
            assert!(alike, "{id} is another one elsewhere");
        }
        (self.ever_available.len(), gone)
    }

    /// Checks that EC2 has nothing that is older than it says it keeps.
    fn check_age(&self) {
        let oldest = self.world.clock().now() - Duration::days(30);
        let reports = self.world.reports(ACCOUNT, REGION);
        assert!(reports.len() > 1_500, "{}", reports.len());
        let is_young = |report: &Report| report.creation_time.unwrap() > oldest;
        assert!(reports.iter().all(is_young));
    }
}

/// Verifies an archive.
async fn fresh_verdict(folder: &Path) -> Verdict {
    let archive = VerifiedArchive::Folder(folder.to_owned());
    verify(&archive, &Options::default()).await.unwrap()
}

/// What the archive says of the reports at a moment: each one's state, and every finding.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Said {
    states: BTreeMap<String, Option<String>>,
    findings: BTreeSet<String>,
}

impl Said {
    /// By the lines of a snapshot's reports.
    fn by(archive: &Archive, snapshot: &Value) -> Self {
        let mut said = Self::default();
        for target in snapshot["targets"].as_array().unwrap() {
            for line in archive.lines(text(&target["object"]["key"])) {
                let name = name_of(&line);
                for kind in line["findings"].as_array().unwrap() {
                    said.findings.insert(format!("{name}/{}", text(kind)));
                }
                said.states
                    .insert(name, line["state"].as_str().map(str::to_owned));
            }
        }
        said
    }

    /// Applies what a snapshot says has changed.
    fn change(&mut self, changes: &Value) {
        let list = |name: &str| {
            assert_eq!(changes[format!("{name}_omitted")], 0, "{name}");
            changes[name].as_array().unwrap().iter()
        };
        for (name, count) in [
            ("appeared", "reports"),
            ("gone", "reports"),
            ("changed_state", "reports"),
            ("opened", "findings"),
            ("resolved", "findings"),
        ] {
            assert_eq!(changes[count][name], list(name).count(), "{name}");
        }
        for report in list("gone") {
            let was_there = self.states.remove(&name_of(report));
            assert!(was_there.is_some(), "{report} went and never was");
        }
        for report in list("appeared") {
            let state = report["state"].as_str().map(str::to_owned);
            let before = self.states.insert(name_of(report), state);
            assert_eq!(before, None, "{report} came twice");
        }
        for report in list("changed_state") {
            let to = report["to"].as_str().map(str::to_owned);
            let before = self.states.insert(name_of(report), to);
            assert_eq!(
                before.unwrap().as_deref(),
                report["from"].as_str(),
                "{report}"
            );
        }
        for finding in list("resolved") {
            assert!(self.findings.remove(text(finding)), "{finding} never was");
        }
        for finding in list("opened") {
            let is_new = self.findings.insert(text(finding).to_owned());
            assert!(is_new, "{finding} was there");
        }
    }
}

fn name_of(report: &Value) -> String {
    let member = |name: &str| text(&report[name]);
    format!(
        "{}/{}/{}",
        member("account_id"),
        member("region"),
        member("report_id")
    )
}

/// Checks that the changes of each run, from the first on, give what the last one says.
fn check_replay(archive: &Archive, snapshots: &[Value]) {
    let (first, later) = snapshots.split_first().unwrap();
    assert_eq!(first["changes"], Value::Null);
    let mut said = Said::by(archive, first);
    let mut last = first;
    for snapshot in later {
        assert_eq!(snapshot["previous"]["run_id"], last["run_id"]);
        said.change(&snapshot["changes"]);
        last = snapshot;
    }
    assert_eq!(said, Said::by(archive, last));
    assert!(!said.findings.is_empty());
}

/// Changes one byte of the archive at a time, at random, and verifies it each time.
async fn check_tampering(folder: &Path, runs: usize, changes: usize) {
    let verdict = fresh_verdict(folder).await;
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.snapshots.len(), runs);
    let bytes = Archive::in_folder(folder).objects();
    let mut tampering = Tampering::of(folder).await;
    let total: usize = bytes.values().map(Vec::len).sum();
    let mut random = Random(changes as u64);
    let mut places: Vec<usize> = (0..changes)
        .map(|_| random.below(total as u64) as usize)
        .collect();
    places.sort_unstable();
    let mut places = places.into_iter().peekable();
    let (mut start, mut kinds) = (0, BTreeMap::new());
    let mut unnoticed = Vec::new();
    for (key, sound) in &bytes {
        let path = folder.join(key);
        while let Some(place) = places.next_if(|place| *place < start + sound.len()) {
            let mut harmed = sound.clone();
            harmed[place - start] ^= 1 + random.below(255) as u8;
            let verdict = tampering.verdict_with(key, &harmed).await;
            let kind = key.split('/').nth(1).unwrap();
            let count = kinds.entry(kind).or_insert(0);
            if verdict.is_clean() {
                unnoticed.push((key, place - start));
            }
            // The first of each kind also with everything read again.
            if *count == 0 {
                fs::write(&path, &harmed).unwrap();
                assert_eq!(
                    fresh_verdict(folder).await.problems,
                    verdict.problems,
                    "{key}"
                );
                fs::write(&path, sound).unwrap();
            }
            *count += 1;
        }
        start += sound.len();
    }
    assert!(fresh_verdict(folder).await.is_clean());
    let found = kinds.values().sum::<usize>() - unnoticed.len();
    println!("found {found} of {changes} changed bytes, in {kinds:?} of {total} bytes");
    assert_eq!(found, changes, "nobody noticed {unnoticed:?}");
    assert_eq!(kinds.len(), 4, "not in every kind of object: {kinds:?}");
}

#[tokio::test]
async fn in_sixty_days_nothing_is_lost_or_fetched_twice_and_the_changes_add_up() {
    let mut simulation = Simulation::new().await;
    let (mut calls, mut least, mut lists) = (0, 0, 0);
    for day in 0..DAYS {
        let (of_day, least_of_day) = simulation
            .quiet_day(first_day() + Duration::days(day))
            .await;
        calls += of_day;
        least += least_of_day;
        lists += count_calls(&simulation.aws, LISTING);
        // Whatever is seen for the first time is fetched the same day.
        let snapshot = simulation.snapshots.last().unwrap();
        assert_eq!(snapshot["status"], "complete");
        assert_eq!(snapshot["counts"]["findings"]["unarchived"], 0);
    }
    let (count, gone) = simulation.check_entries();
    simulation.check_age();
    println!(
        "{count} reports archived, {gone} of them gone from EC2; {calls} calls for entries, at least {least} needed; {lists} calls for reports"
    );
    assert!(count > 5_000 && gone > 3_000, "{count} {gone}");
    assert!(calls * 100 <= least * 105, "{calls} calls, {least} needed");
    check_replay(&Archive::of(&simulation.aws), &simulation.snapshots);
    check_tampering(
        &simulation.archive_folder(),
        simulation.snapshots.len(),
        1_000,
    )
    .await;
}

/// One call in twenty fails, and not only once in a row.
fn add_faults(aws: &LocalAws) {
    let kinds = [
        FaultKind::Status500,
        FaultKind::Throttle,
        FaultKind::CloseBeforeAnswer,
        FaultKind::Status503,
        FaultKind::CutBody,
    ];
    let p = 0.05 / kinds.len() as f64;
    for (seed, kind) in (1..).zip(kinds) {
        let fault = Fault::new(kind).when(When::Probability { p, seed });
        aws.faults().add(fault);
    }
}

impl Simulation {
    /// A day on which the first try may be killed after so many calls, and the second too; as after Lambda's
    /// waits, a minute goes by, and then two.
    async fn rough_day(&mut self, time: OffsetDateTime, random: &mut Random) -> usize {
        self.turn_clock(time);
        let event = event_at(time);
        let mut available = self.available();
        let mut killed = 0;
        for wait in [1, 2, 0] {
            // One run in ten: more than it makes calls when it isn't to be.
            let dies_after = match (random.below(10), wait) {
                (0, 1..) => 1 + random.below(16) as usize,
                _ => usize::MAX,
            };
            self.aws.clear_calls();
            let summary = tokio::select! {
                summary = self.attempt(&event) => summary,
                () = after_calls(&self.aws, dies_after) => {
                    killed += 1;
                    None
                }
            };
            if let Some(summary) = summary {
                self.note(&summary, available);
                break;
            }
            self.turn_clock(self.world.clock().now() + Duration::minutes(wait));
            let now = self.available();
            available.retain(|id, _| now.contains_key(id));
        }
        killed
    }
}

async fn after_calls(aws: &LocalAws, calls: usize) {
    loop {
        if aws.calls().len() >= calls {
            return;
        }
        tokio::time::sleep(Wait::from_millis(1)).await;
    }
}

#[tokio::test]
async fn with_a_twentieth_of_all_calls_failing_and_a_tenth_of_all_runs_killed_it_comes_to_the_same()
{
    let mut simulation = Simulation::new().await;
    add_faults(&simulation.aws);
    let mut random = Random(600);
    let mut killed = 0;
    for day in 0..DAYS {
        let time = first_day() + Duration::days(day);
        killed += simulation.rough_day(time, &mut random).await;
    }
    let failed = simulation.aws.faults().injected();
    simulation.aws.faults().clear();
    // One quiet run, for what the last rough one may have left.
    simulation
        .quiet_day(first_day() + Duration::days(DAYS))
        .await;
    let (count, gone) = simulation.check_entries();
    simulation.check_age();
    println!(
        "{count} reports archived, {gone} of them gone from EC2; {failed} calls failed, {killed} tries were killed"
    );
    assert!(count > 5_000 && gone > 3_000, "{count} {gone}");
    assert!(killed >= 3, "{killed}");
    assert!(failed >= 20, "{failed}");
    check_replay(&Archive::of(&simulation.aws), &simulation.snapshots);
    let verdict = fresh_verdict(&simulation.archive_folder()).await;
    assert!(verdict.is_clean(), "{verdict}");
}
