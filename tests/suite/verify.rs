//! `verify`, on archives of real runs and on what was done to them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use image_usage_archive::aws::{Aws, Bucket};
use image_usage_archive::documents::{ArchivedObject, Snapshot};
use image_usage_archive::domain::digest::hex;
use image_usage_archive::source::Source;
use image_usage_archive::verify::{
    Options, Outcome, Place, Survey, Verdict, check, survey, verify,
};
use image_usage_auditor::audit::{Answer, Auditor, Invocation, Summary};
use local_aws::{Fault, FaultKind, LocalAws, SeedOptions, When, World};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use time::Duration;

use crate::harness::{
    ACCOUNT, Archive, BUCKET, LISTING, auditor, binary, count_calls, invocation, local_aws, now,
    objects_below, report, scheduled_event, will_be_harmed, world,
};

const LATEST: &str = "v1/latest.json";
const FIRST: &str = "v1/snapshots/dt=2026-11-22/20261122T060000Z-7bf73120.json";
const PREFIX: &str = "image-usage/";
const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

/// The archive of a week: a target that failed, one that broke off, a scoped run, and a late one.
struct Week {
    aws: LocalAws,
}

impl Week {
    async fn new() -> Self {
        let world = world(&REGIONS);
        world.seed(&SeedOptions {
            reports_per_region: 30,
            images_per_region: Some(6),
            ..SeedOptions::default()
        });
        let aws = local_aws(&world).await;
        let variables = [
            ("AUDITOR_REGIONS", "eu-west-1,us-east-1"),
            ("AUDITOR_PAGE_SIZE", "10"),
        ];
        let auditor = auditor(&aws, &variables).await;
        for day in 0..5 {
            aws.faults().clear();
            let fault = Fault::new(FaultKind::Denied)
                .on(LISTING)
                .in_region("eu-west-1");
            match day {
                2 => aws.faults().add(fault),
                3 => aws.faults().add(fault.when(When::Nth(1))),
                _ => {}
            }
            run_at(&auditor, &world, full(day)).await;
            new_reports(&world, day);
            world.clock().advance(Duration::days(1));
        }
        aws.faults().clear();
        let scoped = json!({
            "filters": [{"name": "state", "values": ["error", "pending"]}],
            "scheduled_at": "2026-11-26T12:00:00Z"
        });
        run_at(&auditor, &world, scoped).await;
        // A run for the day before, which comes when a later one is done.
        let mut late = full(3);
        late["id"] = json!("11111111-1428-4cd3-a780-95db273d1602");
        late["time"] = json!("2026-11-25T18:00:00Z");
        run_at(&auditor, &world, late).await;
        Self { aws }
    }

    fn root(&self) -> PathBuf {
        self.aws.archive_root().join(BUCKET).join(PREFIX)
    }

    async fn bucket(&self) -> Source {
        let home = "us-east-1".parse().unwrap();
        let client = Aws::at_endpoint(&self.aws.endpoint(), &home, &format!("AKIA{ACCOUNT}")).await;
        Source::Bucket {
            bucket: Bucket::new(client.config(), BUCKET),
            prefix: PREFIX.to_owned(),
        }
    }

    fn copy(&self) -> Copy {
        let copy = Copy::empty();
        for (key, bytes) in objects_below(&self.root()) {
            copy.write(&key, &bytes);
        }
        copy
    }
}

fn full(day: i64) -> Value {
    let mut event = scheduled_event();
    event["id"] = json!(format!("7bf7312{day}-1428-4cd3-a780-95db273d1602"));
    event["time"] = json!(format!("2026-11-{}T06:00:00Z", 22 + day));
    event
}

fn new_reports(world: &World, day: i64) {
    for number in 0..4 {
        let mut new = report(&format!("amiur-of-day-{day}-{number}"));
        new.creation_time = Some(now() + Duration::days(day));
        new.expiration_time = Some(now() + Duration::days(day + 30));
        world.put_report(ACCOUNT, REGIONS[number % 2], new);
    }
}

async fn run_at(auditor: &Auditor, world: &World, payload: Value) -> Summary {
    let started_at = local_aws::timestamp(world.clock().now()).parse().unwrap();
    let invocation = Invocation {
        started_at,
        ..invocation()
    };
    match auditor.handle(payload, invocation).await.unwrap() {
        Answer::Summary(summary) => *summary,
        other => panic!("a run was asked for: {other:?}"),
    }
}

/// A full run on its day.
async fn run_on(auditor: &Auditor, world: &World, day: i64) {
    let due = now() + Duration::days(day);
    world.clock().advance(due - world.clock().now());
    run_at(auditor, world, full(day)).await;
}

/// An archive of which one object at a time is changed: only the run that it belongs to is read again.
pub(crate) struct Tampering {
    survey: Survey,
    objects: BTreeMap<String, Vec<u8>>,
}

impl Tampering {
    pub(crate) async fn of(folder: &Path) -> Self {
        let archive = Source::Folder(folder.to_owned());
        Self {
            survey: survey(&archive, &|_| {}).await.unwrap(),
            objects: Archive::in_folder(folder).objects(),
        }
    }

    /// The verdict on the archive with other bytes of one object.
    pub(crate) async fn verdict_with(&mut self, key: &str, changed: &[u8]) -> Verdict {
        let part = Copy::empty();
        let run = run_of(key);
        for (other, bytes) in self.objects.iter().filter(|(key, _)| run_of(key) == run) {
            part.write(other, if other == key { changed } else { bytes });
        }
        let mut part = survey(&part.archive(), &|_| {}).await.unwrap();
        exchange(&mut self.survey, &mut part, key);
        let verdict = check(&self.survey, &Options::default());
        exchange(&mut self.survey, &mut part, key);
        verdict
    }
}

/// Exchanges what two surveys have read of the runs of one of them, and of `latest.json` if that is the key.
fn exchange(survey: &mut Survey, part: &mut Survey, key: &str) {
    if key == LATEST {
        std::mem::swap(&mut survey.latest, &mut part.latest);
    }
    for (key, run) in &mut part.runs {
        std::mem::swap(survey.runs.get_mut(key).unwrap(), run);
    }
}

/// The run that an object belongs to; `latest.json` belongs to none.
fn run_of(key: &str) -> &str {
    let name = key.rsplit('/').next().unwrap();
    name.split('.').next().unwrap()
}

/// A copy of an archive, to be harmed.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn archive(&self) -> Source {
        Source::Folder(self.folder.path().to_owned())
    }

    /// Every object but the pages, on which nothing rests.
    fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        Archive::in_folder(self.folder.path()).objects()
    }

    fn write(&self, key: &str, bytes: &[u8]) {
        let path = self.folder.path().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn remove(&self, key: &str) {
        fs::remove_file(self.folder.path().join(key)).unwrap();
    }

    async fn verdict(&self) -> Verdict {
        self.verdict_with(Options::default()).await
    }

    async fn verdict_with(&self, options: Options) -> Verdict {
        verify(&self.archive(), &options).await.unwrap()
    }

    fn json(&self, key: &str) -> Value {
        serde_json::from_slice(&fs::read(self.folder.path().join(key)).unwrap()).unwrap()
    }

    /// Changes a snapshot's text, and everything that names its digest, as far as it is on the chain.
    fn forge(&self, key: &str, old: &str, new: &str) {
        let text = String::from_utf8(self.objects()[key].clone()).unwrap();
        assert!(text.contains(old), "{key} has no {old}");
        let forged = text.replacen(old, new, 1);
        self.write(key, forged.as_bytes());
        let (was, is) = (digest(text.as_bytes()), digest(forged.as_bytes()));
        for (other, bytes) in self.objects() {
            let follows = other.ends_with(".json")
                && other != LATEST
                && String::from_utf8(bytes.clone()).unwrap().contains(&was);
            if follows {
                self.forge(&other, &was, &is);
            } else if other == LATEST && digest(&bytes) == was {
                self.write(LATEST, forged.as_bytes());
            }
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// What is wrong, a line each.
fn problems(verdict: &Verdict) -> Vec<String> {
    let problems = verdict.problems.iter();
    problems
        .map(|problem| format!("{}: {}", problem.key, problem.what))
        .collect()
}

fn has_problem(verdict: &Verdict, key: &str, what: &str) -> bool {
    let mut problems = verdict.problems.iter();
    problems.any(|problem| problem.key == key && problem.what.contains(what))
}

/// Numbers that are the same each time.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

fn run_binary(arguments: &[&str], environment: &[(&str, &str)]) -> (Output, String) {
    let output = Command::new(binary("image-usage"))
        .arg("verify")
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

#[tokio::test]
async fn an_archive_of_real_runs_is_clean_in_a_folder_and_in_s3() {
    let week = Week::new().await;
    let in_folder = verify(&Source::Folder(week.root()), &Options::default())
        .await
        .unwrap();
    assert_eq!(problems(&in_folder), Vec::<String>::new());
    let in_bucket = verify(&week.bucket().await, &Options::default())
        .await
        .unwrap();
    assert_eq!(problems(&in_bucket), Vec::<String>::new());
    assert_eq!(in_folder.snapshots, in_bucket.snapshots);
    assert_eq!(in_folder.notes, in_bucket.notes);
    assert_eq!(
        (in_folder.objects, in_folder.bytes),
        (in_bucket.objects, in_bucket.bytes)
    );
    let places: Vec<Place> = in_folder
        .snapshots
        .iter()
        .map(|row| row.summary.unwrap().place)
        .collect();
    use Place::{Chain, OffChain, Scoped};
    assert_eq!(
        places,
        [Chain, Chain, Chain, Chain, OffChain, Chain, Scoped]
    );
    let objects: usize = in_folder
        .snapshots
        .iter()
        .map(|row| row.summary.unwrap().objects)
        .sum();
    assert_eq!(in_folder.objects, objects);
    let kept = objects + in_folder.snapshots.len() + 1;
    assert_eq!(
        Archive::in_folder(&week.root()).objects().len(),
        kept,
        "an object was not looked at"
    );
    let [note] = in_folder.notes.as_slice() else {
        panic!("{:?}", in_folder.notes)
    };
    assert!(
        note.contains("20261125T180000Z-11111111.json is not on the chain"),
        "{note}"
    );
    // The week holds what is hardest to follow.
    let copy = week.copy();
    let targets = |day: usize| {
        copy.json(&format!(
            "v1/snapshots/dt=2026-11-2{day}/202611{}T060000Z-7bf7312{}.json",
            20 + day,
            day - 2
        ))
    };
    let failed = targets(4)["targets"][0].clone();
    assert_eq!(
        (
            &failed["status"],
            failed["earlier_objects"].as_array().unwrap().len()
        ),
        (&json!("failed"), 1)
    );
    let incomplete = targets(5)["targets"][0].clone();
    assert_eq!(incomplete["status"], "incomplete");
    assert_eq!(incomplete["earlier_objects"].as_array().unwrap().len(), 1);
    assert!(
        copy.objects()
            .values()
            .any(|bytes| String::from_utf8_lossy(bytes).contains("\"superseded_by\":\"amiur-"))
    );
}

#[tokio::test]
async fn pages_are_no_part_of_what_is_checked() {
    let copy = Week::new().await.copy();
    let clean = copy.verdict().await;
    let pages = Archive::in_folder(copy.folder.path()).pages();
    assert_eq!(pages.len(), clean.snapshots.len() + 1);
    for key in pages.keys() {
        copy.write(key, b"anything");
        assert_eq!(copy.verdict().await, clean, "{key}");
        copy.remove(key);
        assert_eq!(copy.verdict().await, clean, "{key}");
    }
}

#[tokio::test]
async fn a_changed_byte_of_any_object_of_the_chain_is_found() {
    let copy = Week::new().await.copy();
    let clean = copy.verdict().await;
    assert!(clean.is_clean(), "{clean}");
    let mut tampering = Tampering::of(copy.folder.path()).await;
    let mut draws = Draws(1);
    for (key, bytes) in copy.objects() {
        // No hash covers these: the next tests are theirs.
        if key.contains("/snapshots/") && (key.contains("T12") || key.contains("T18")) {
            continue;
        }
        for _ in 0..8 {
            let at = draws.below(bytes.len());
            let mut changed = bytes.clone();
            changed[at] ^= 1 << draws.below(8);
            let verdict = tampering.verdict_with(&key, &changed).await;
            assert!(!verdict.is_clean(), "byte {at} of {key}");
        }
        assert_eq!(tampering.verdict_with(&key, &bytes).await, clean);
    }
}

/// What only the run knew of a snapshot that no hash covers: a change of it may pass.
const TAKEN_ON_TRUST: [&str; 8] = [
    "finished_at",
    "started_at",
    "auditor",
    "scope",
    "policy",
    "pages",
    "error",
    "changes",
];

#[tokio::test]
async fn a_changed_byte_of_a_snapshot_that_no_hash_covers_is_found_where_it_can_be_derived() {
    let copy = Week::new().await.copy();
    let mut tampering = Tampering::of(copy.folder.path()).await;
    let (mut passed, mut changes) = (0, 0);
    for (key, bytes) in copy.objects() {
        if !key.contains("/snapshots/") || !(key.contains("T12") || key.contains("T18")) {
            continue;
        }
        let before: Value = serde_json::from_slice(&bytes).unwrap();
        let mut draws = Draws(2);
        for _ in 0..300 {
            let at = draws.below(bytes.len());
            let mut changed = bytes.clone();
            changed[at] ^= 1 << draws.below(8);
            let verdict = tampering.verdict_with(&key, &changed).await;
            changes += 1;
            if verdict.is_clean() {
                let after: Value = serde_json::from_slice(&changed).unwrap();
                let path = first_difference(&before, &after).unwrap();
                let is_trusted = |name: &str| TAKEN_ON_TRUST.contains(&name);
                assert!(
                    path.iter().any(|name| is_trusted(name)),
                    "{key}: byte {at}, {path:?}"
                );
                passed += 1;
            }
        }
    }
    assert!(
        changes >= 600 && passed * 4 < changes,
        "{passed} of {changes} passed"
    );
}

/// Where two documents differ.
fn first_difference(before: &Value, after: &Value) -> Option<Vec<String>> {
    let step = |name: String, before: &Value, after: &Value| {
        let rest = first_difference(before, after)?;
        Some([vec![name], rest].concat())
    };
    match (before, after) {
        (Value::Object(before), Value::Object(after)) if before.keys().eq(after.keys()) => before
            .iter()
            .find_map(|(name, value)| step(name.clone(), value, &after[name])),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => before
            .iter()
            .zip(after)
            .enumerate()
            .find_map(|(index, (before, after))| step(index.to_string(), before, after)),
        (before, after) => (before != after).then(Vec::new),
    }
}

#[tokio::test]
async fn what_is_deleted_cut_off_or_swapped_is_found_in_every_object() {
    let copy = Week::new().await.copy();
    let all = copy.objects();
    let clean = copy.verdict().await;
    assert!(clean.is_clean(), "{clean}");
    let is_covered = |key: &&String| !key.contains("T12") && !key.contains("T18");
    for (key, bytes) in &all {
        let cut = &bytes[..bytes.len() - 1];
        for harmed in [None, Some(cut), Some(&[][..])] {
            match harmed {
                Some(bytes) => copy.write(key, bytes),
                None => copy.remove(key),
            }
            let verdict = copy.verdict().await;
            let is_gone = harmed.is_none() && key.contains("/snapshots/");
            // Nothing names a snapshot off the chain, so its absence cannot be noticed.
            if !is_gone || is_covered(&key) {
                assert!(!verdict.is_clean(), "{key}");
            }
            copy.write(key, bytes);
        }
    }
    let keys: Vec<&String> = all.keys().collect();
    for pair in keys.windows(2).filter(|pair| all[pair[0]] != all[pair[1]]) {
        copy.write(pair[0], &all[pair[1]]);
        copy.write(pair[1], &all[pair[0]]);
        let verdict = copy.verdict().await;
        assert!(!verdict.is_clean(), "{pair:?}");
        for key in pair {
            copy.write(key, &all[*key]);
        }
    }
    assert_eq!(copy.verdict().await, clean);
}

#[tokio::test]
async fn the_same_lines_compressed_anew_are_another_object() {
    let copy = Week::new().await.copy();
    for what in ["v1/reports/", "v1/entries/"] {
        let all = copy.objects();
        let (key, bytes) = all.iter().find(|(key, _)| key.starts_with(what)).unwrap();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
        encoder.write_all(lines(bytes).concat().as_bytes()).unwrap();
        copy.write(key, &encoder.finish().unwrap());
        let verdict = copy.verdict().await;
        assert!(has_problem(&verdict, key, "; v1/snapshots/"), "{verdict}");
        copy.write(key, bytes);
    }
}

#[tokio::test]
async fn a_forged_snapshot_with_every_digest_put_right_has_to_agree_with_its_objects() {
    let week = Week::new().await;
    let forgeries = [
        ("\"expiring\":", "\"expiring\":1", "counts"),
        (
            "\"kind\":\"expiring\"",
            "\"kind\":\"stuck\"",
            "out of order",
        ),
        ("\"Owner\":\"", "\"Owner\":\"x", "lists other findings"),
        ("\"expiry_window_days\":7", "\"expiry_window_days\":1", ""),
        (
            "\"status\":\"complete\"",
            "\"status\":\"partial\"",
            "partial",
        ),
        (
            "{\"schema_version\":1,",
            "{\"schema_version\":1, ",
            "not in the form that the auditor writes",
        ),
        (
            "{\"schema_version\":1,",
            "{\"x\":0,\"schema_version\":1,",
            "not in the form that the auditor writes",
        ),
        (
            "{\"schema_version\":1,",
            "{\"schema_version\":2,",
            "schema_version 2",
        ),
    ];
    for (old, new, what) in forgeries {
        let copy = week.copy();
        copy.forge(FIRST, old, new);
        let verdict = copy.verdict().await;
        let found = verdict
            .problems
            .iter()
            .filter(|problem| !problem.what.contains("SHA-256"));
        assert!(found.count() > 0, "{new}: {verdict}");
        let mut told = problems(&verdict).into_iter();
        assert!(told.any(|line| line.contains(what)), "{new}: {verdict}");
    }
}

/// Changes the lines of an object of the first run, and puts right everything that names its digest.
fn forge_lines(copy: &Copy, what: &str, edit: fn(Vec<String>) -> Vec<String>) -> String {
    let snapshot: Snapshot = serde_json::from_slice(&copy.objects()[FIRST]).unwrap();
    let target = &snapshot.targets[1];
    let named = match what {
        "reports" => target.object.clone().unwrap(),
        _ => target.entries_object.clone().unwrap(),
    };
    let key = named.key.strip_prefix(PREFIX).unwrap().to_owned();
    let lines = edit(lines(&copy.objects()[&key]));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(lines.concat().as_bytes()).unwrap();
    let forged = encoder.finish().unwrap();
    copy.write(&key, &forged);
    let put_right = ArchivedObject {
        sha256: digest(&forged),
        bytes: forged.len() as u64,
        lines: lines.len() as u64,
        ..named.clone()
    };
    let text = |object: &ArchivedObject| serde_json::to_string(object).unwrap();
    copy.forge(FIRST, &text(&named), &text(&put_right));
    if named.lines != put_right.lines && what == "reports" {
        let reports = |lines: u64| {
            format!(
                "\"reports\":{lines},\"error\":null,\"object\":{}",
                text(&put_right)
            )
        };
        copy.forge(FIRST, &reports(named.lines), &reports(put_right.lines));
    }
    key
}

/// The lines of an object, each with its end.
fn lines(object: &[u8]) -> Vec<String> {
    let mut text = String::new();
    MultiGzDecoder::new(object)
        .read_to_string(&mut text)
        .unwrap();
    text.split_inclusive('\n').map(str::to_owned).collect()
}

fn changed(lines: Vec<String>, old: &str, new: &str) -> Vec<String> {
    let changed: Vec<String> = lines
        .iter()
        .map(|line| line.replacen(old, new, 1))
        .collect();
    assert_ne!(changed, lines, "there is no {old}");
    changed
}

#[tokio::test]
async fn forged_lines_with_every_digest_put_right_have_to_agree_with_each_other() {
    let week = Week::new().await;
    type Edit = fn(Vec<String>) -> Vec<String>;
    let of_reports: [(Edit, &str); 9] = [
        (
            |lines| changed(lines, ",\"tags\"", ", \"tags\""),
            "line 1 is not in the form that the auditor writes",
        ),
        (
            |lines| changed(lines, "us-east-1", "us-east-2"),
            "is not in the form that the auditor writes for a report of 111122223333/us-east-1",
        ),
        (
            |lines| changed(lines, "\"state\":\"error\"", "\"state\":\"available\""),
            "has other findings",
        ),
        (
            |lines| changed(lines, "\"findings\":[\"expiring\"]", "\"findings\":[]"),
            "has other findings",
        ),
        (
            |lines| [&lines[..lines.len() - 1], &lines[..1]].concat(),
            "is a duplicate of its report",
        ),
        (
            |lines| {
                changed(
                    lines,
                    "{\"status\":\"not_available\"}",
                    "{\"status\":\"pending\",\"code\":null}",
                )
            },
            "has an entries status that contradicts its state",
        ),
        (
            |lines| changed(lines, "T060000Z-7bf73120\"", "T060000Z-7bf73121\""),
            "which is not a key of the run 20261122T060000Z-7bf73121",
        ),
        (
            |lines| vec!["{}\n".to_owned(); lines.len()],
            "is not the line of a report: missing field",
        ),
        (
            |mut lines| {
                lines.last_mut().unwrap().pop();
                lines
            },
            "does not end with a newline",
        ),
    ];
    let of_entries: [(Edit, &str); 5] = [
        (
            |lines| changed(lines, "us-east-1", "us-east-2"),
            "is not in the form that the auditor writes for an entry",
        ),
        (
            |lines| changed(lines, "\"usage_count\":", "\"usage_count\": "),
            "is not in the form that the auditor writes for an entry",
        ),
        (
            |lines| [vec![lines[0].clone()], lines].concat(),
            "is a duplicate",
        ),
        (
            |mut lines| {
                let consumer = |line: &String| line.split("\"consumer_").nth(1).unwrap().to_owned();
                lines.sort_by_key(consumer);
                lines
            },
            "is not adjacent to the other entries",
        ),
        (
            |lines| vec!["{}\n".to_owned(); lines.len()],
            "is not the line of an entry: missing field",
        ),
    ];
    let of_reports = of_reports.map(|case| ("reports", case));
    let of_entries = of_entries.map(|case| ("entries", case));
    for (what, (edit, problem)) in of_reports.into_iter().chain(of_entries) {
        let copy = week.copy();
        let key = forge_lines(&copy, what, edit);
        let verdict = copy.verdict().await;
        assert!(has_problem(&verdict, &key, problem), "{problem}: {verdict}");
    }
    let elsewhere: [(&str, Edit, &str); 5] = [
        (
            "reports",
            |lines| changed(lines, "\"Owner\":\"", "\"Owner\":\"x"),
            "lists other findings",
        ),
        (
            "reports",
            |lines| lines[1..].to_vec(),
            "reports; its ledger and lists contain 59",
        ),
        (
            "reports",
            |lines| changed(lines, "\"count\":", "\"count\":1"),
            "of the entries of",
        ),
        (
            "entries",
            |lines| lines[..lines.len() - 1].to_vec(),
            "of the entries of",
        ),
        ("entries", |lines| lines[1..].to_vec(), "of the entries of"),
    ];
    for (what, edit, problem) in elsewhere {
        let copy = week.copy();
        forge_lines(&copy, what, edit);
        let verdict = copy.verdict().await;
        let mut told = verdict.problems.iter();
        assert!(
            told.any(|told| told.what.contains(problem)),
            "{problem}: {verdict}"
        );
    }
}

#[tokio::test]
async fn a_second_chain_is_a_problem_and_a_first_run_that_died_is_not() {
    let world = world(&["us-east-1"]);
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[]).await;
    let root = aws.archive_root().join(BUCKET).join(PREFIX);
    let archive = Source::Folder(root.clone());
    let mut runs = 0;
    for (after, is_clean) in [(1, true), (2, false)] {
        for _ in 0..after {
            run_on(&auditor, &world, runs).await;
            runs += 1;
        }
        fs::remove_file(root.join(LATEST)).unwrap();
        let verdict = verify(&archive, &Options::default()).await.unwrap();
        assert!(has_problem(&verdict, LATEST, "is missing"), "{verdict}");
        run_on(&auditor, &world, runs).await;
        runs += 1;
        let verdict = verify(&archive, &Options::default()).await.unwrap();
        assert_eq!(verdict.is_clean(), is_clean, "{verdict}");
        let mut notes = verdict.notes.iter();
        assert!(
            notes.any(|note| note.starts_with(FIRST) && note.contains("not on the chain")),
            "{verdict}"
        );
    }
    let second = "v1/snapshots/dt=2026-11-23/20261123T060000Z-7bf73121.json";
    let verdict = verify(&archive, &Options::default()).await.unwrap();
    assert!(
        has_problem(&verdict, second, "starts another chain"),
        "{verdict}"
    );
}

#[tokio::test]
async fn one_lost_or_unreadable_snapshot_is_one_problem() {
    let copy = Week::new().await.copy();
    let clean = copy.verdict().await;
    let key = "v1/snapshots/dt=2026-11-23/20261123T060000Z-7bf73121.json";
    for harmed in [None, Some(b"{}")] {
        match harmed {
            None => copy.remove(key),
            Some(bytes) => copy.write(key, bytes),
        }
        let verdict = copy.verdict().await;
        assert!(
            verdict.problems.iter().all(|problem| problem.key == key),
            "{verdict}"
        );
        let aside = |verdict: &Verdict| {
            let notes = verdict.notes.iter();
            notes
                .filter(|note| note.contains("not on the chain"))
                .count()
        };
        assert_eq!(aside(&verdict), aside(&clean), "{verdict}");
    }
}

#[tokio::test]
async fn an_archive_whose_snapshots_are_all_gone_is_not_clean() {
    let copy = Week::new().await.copy();
    for key in copy.objects().keys().filter(|key| key.ends_with(".json")) {
        copy.remove(key);
    }
    let verdict = copy.verdict().await;
    assert!(
        has_problem(&verdict, "v1/snapshots/", "contains no snapshot"),
        "{verdict}"
    );
}

#[tokio::test]
async fn an_archive_that_was_made_anew_from_some_point_on_is_found_by_a_head_kept_elsewhere() {
    let week = Week::new().await;
    let copy = week.copy();
    let head = copy.verdict().await.head.unwrap();
    let given = |sha256: &str| Options {
        head: Some(sha256.to_owned()),
        ..Options::default()
    };
    let verdict = copy.verdict_with(given(&head.sha256)).await;
    assert!(verdict.is_clean(), "{verdict}");
    assert!(
        verdict.to_string().contains("It is the given one"),
        "{verdict}"
    );
    let older = digest(&copy.objects()[FIRST]);
    let verdict = copy.verdict_with(given(&older)).await;
    assert_eq!(
        verdict.head.as_ref().unwrap().given_before,
        Some(4),
        "{verdict}"
    );
    assert!(verdict.is_clean(), "{verdict}");
    // What only the run knew, and every digest after it.
    let finished = copy.json(FIRST)["finished_at"].as_str().unwrap().to_owned();
    copy.forge(
        FIRST,
        &format!("\"finished_at\":\"{finished}\""),
        "\"finished_at\":\"2026-11-22T06:01:00Z\"",
    );
    let verdict = copy.verdict().await;
    assert!(verdict.is_clean(), "{verdict}");
    for sha256 in [&older, &head.sha256] {
        let verdict = copy.verdict_with(given(sha256)).await;
        assert!(
            has_problem(&verdict, &head.key, "that does not contain the snapshot"),
            "{verdict}"
        );
    }
}

#[tokio::test]
async fn an_older_latest_that_is_put_back_is_found() {
    let copy = Week::new().await.copy();
    let older = "v1/snapshots/dt=2026-11-25/20261125T060000Z-7bf73123.json";
    copy.write(LATEST, &copy.objects()[older]);
    let verdict = copy.verdict().await;
    let newest = "v1/snapshots/dt=2026-11-26/20261126T060000Z-7bf73124.json";
    assert!(
        has_problem(
            &verdict,
            newest,
            "is newer than the snapshot that latest.json"
        ),
        "{verdict}"
    );
}

#[tokio::test]
async fn a_gap_in_the_schedule_is_a_note_and_a_problem_once_the_interval_is_given() {
    let world = world(&["us-east-1"]);
    let aws = local_aws(&world).await;
    let auditor = auditor(&aws, &[]).await;
    for day in [0, 1, 2, 4, 5] {
        run_on(&auditor, &world, day).await;
    }
    let root = aws.archive_root().join(BUCKET).join(PREFIX);
    let archive = Source::Folder(root.clone());
    let verdict = verify(&archive, &Options::default()).await.unwrap();
    assert!(verdict.is_clean(), "{verdict}");
    let gap = "no run from 2026-11-24T06:00:00Z to 2026-11-26T06:00:00Z: 48.0 hours";
    assert!(
        verdict.notes.iter().any(|note| note.contains(gap)),
        "{verdict}"
    );
    for (hours, is_clean) in [("24", false), ("32", true), ("31", false)] {
        let (output, text) = run_binary(&[root.to_str().unwrap(), "--every-hours", hours], &[]);
        assert_eq!(output.status.code(), Some(i32::from(!is_clean)), "{text}");
        assert_eq!(text.contains(gap), !is_clean, "{text}");
    }
}

#[tokio::test]
async fn what_an_unfinished_attempt_left_is_noted_and_anything_else_is_a_problem() {
    let copy = Week::new().await.copy();
    let notes = copy.verdict().await.notes.len();
    let left = [
        "v1/reports/dt=2026-11-23/account_id=111122223333/region=us-east-1/20261123T070000Z-0123abcd.0badcafe.jsonl.gz",
        "v1/entries/dt=2026-11-23/account_id=111122223333/region=us-east-1/20261123T070000Z-0123abcd.0badcafe.jsonl.gz",
    ];
    left.iter().for_each(|key| copy.write(key, b"cut of"));
    let verdict = copy.verdict().await;
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.notes.len(), notes + 1);
    let text =
        "no snapshot names 2 objects of the run 20261123T070000Z-0123abcd, first v1/entries/";
    let mut notes = verdict.notes.iter();
    assert!(notes.any(|note| note.starts_with(text)), "{verdict}");
    let foreign = [
        "v1/notes.txt",
        "v1/reports/dt=2026-11-24/account_id=111122223333/region=us-east-1/20261123T070000Z-0123abcd.0badcafe.jsonl.gz",
        "v1/entries/dt=2026-11-23/account_id=111122223333/region=us-east-1/20261123T070000Z-0123abcd.jsonl.gz",
    ];
    for key in foreign {
        copy.write(key, b"{}");
        let verdict = copy.verdict().await;
        assert!(
            has_problem(&verdict, key, "is not an object that the auditor writes"),
            "{verdict}"
        );
        copy.remove(key);
    }
    let key = "v1/snapshots/dt=2026-11-23/20261123T070000Z-0123abcd.json";
    copy.write(key, b"{}");
    assert!(has_problem(&copy.verdict().await, key, "is not a snapshot"));
}

#[tokio::test]
async fn entries_that_a_line_names_and_no_snapshot_are_found() {
    let copy = Week::new().await.copy();
    let snapshot: Snapshot = serde_json::from_slice(&copy.objects()[FIRST]).unwrap();
    let object = snapshot.targets[1].entries_object.as_ref().unwrap();
    copy.forge(FIRST, &serde_json::to_string(object).unwrap(), "null");
    let verdict = copy.verdict().await;
    let key = object.key.strip_prefix(PREFIX).unwrap();
    assert!(
        has_problem(&verdict, key, "but by no snapshot"),
        "{verdict}"
    );
}

#[tokio::test]
async fn the_exit_status_is_the_verdict() {
    let week = Week::new().await;
    let copy = week.copy();
    let folder = copy.folder.path().to_str().unwrap().to_owned();
    let (output, text) = run_binary(&[&folder], &[]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let heading = "snapshot                   scheduled_at          status    targets  reports  entries  objects  verdict";
    assert_eq!(lines[0], heading);
    assert!(
        lines[1].starts_with(
            "20261122T060000Z-7bf73120  2026-11-22T06:00:00Z  complete        2       60"
        ),
        "{text}"
    );
    assert!(lines[1].ends_with("  ok"), "{text}");
    assert!(lines.last().unwrap().ends_with(": sound"), "{text}");
    let key = "v1/snapshots/dt=2026-11-24/20261124T060000Z-7bf73122.json";
    copy.remove(key);
    let (output, text) = run_binary(&[&folder], &[]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("\n  {key} is missing; ")), "{text}");
    let (output, text) = run_binary(&["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("Usage: image-usage verify"), "{text}");
}

#[tokio::test]
async fn the_binary_reads_s3_with_the_environments_credentials() {
    let week = Week::new().await;
    let endpoint = week.aws.endpoint();
    let access_key_id = format!("AKIA{ACCOUNT}");
    let environment = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", access_key_id.as_str()),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ];
    let run = async |location: &'static str| {
        let endpoint = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let task = tokio::task::spawn_blocking(move || {
            let environment: Vec<(&str, &str)> = endpoint
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect();
            run_binary(&[location], &environment)
        });
        task.await.unwrap()
    };
    for location in ["s3://archive/image-usage/", "s3://archive/image-usage"] {
        let (output, text) = run(location).await;
        assert_eq!(output.status.code(), Some(0), "{text}{output:?}");
        assert!(
            text.contains("s3://archive/image-usage/: 7 snapshots and "),
            "{text}"
        );
    }
    for location in [
        "s3://archive/other/",
        "s3://elsewhere/",
        "s3:///x/",
        "s3://archive/a//b/",
    ] {
        let (output, text) = run(location).await;
        assert_eq!(
            output.status.code(),
            Some(2),
            "{location}: {text}{output:?}"
        );
        assert!(
            text.is_empty() && !output.stderr.is_empty(),
            "{location}: {text}"
        );
    }
    let denied = |operation| Fault::new(FaultKind::Denied).on(operation);
    week.aws.faults().add(denied("ListObjectsV2"));
    let (output, text) = run("s3://archive/image-usage/").await;
    assert_eq!((output.status.code(), text.as_str()), (Some(2), ""));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("AccessDenied"), "{error}");
    week.aws.faults().clear();
    week.aws.faults().add(denied("GetObject"));
    let (output, text) = run("s3://archive/image-usage/").await;
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("could not be read: AccessDenied"), "{text}");
    week.aws.faults().clear();
}

#[tokio::test]
async fn a_listing_of_many_pages_is_read_to_its_end_and_one_that_breaks_off_is_not_believed() {
    let mut week = Week::new().await;
    will_be_harmed(&mut week.aws);
    for number in 0..1_100 {
        let folder = week
            .root()
            .join("v1/reports/dt=2026-11-27/account_id=111122223333/region=us-east-1");
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join(format!("20261127T060000Z-0123abcd.{number:08x}.jsonl.gz")),
            b"",
        )
        .unwrap();
    }
    let archive = week.bucket().await;
    week.aws.faults().add(
        Fault::new(FaultKind::MalformedXml)
            .on("ListObjectsV2")
            .when(When::Nth(1)),
    );
    let verdict = verify(&archive, &Options::default()).await.unwrap();
    assert!(verdict.is_clean(), "{verdict}");
    let note = "no snapshot names 1100 objects of the run 20261127T060000Z-0123abcd";
    let mut notes = verdict.notes.iter();
    assert!(notes.any(|text| text.starts_with(note)), "{verdict}");
    assert_eq!(count_calls(&week.aws, "ListObjectsV2"), 3);
    week.aws.faults().add(
        Fault::new(FaultKind::CutBody)
            .on("GetObject")
            .when(When::Nth(2)),
    );
    let verdict = verify(&archive, &Options::default()).await.unwrap();
    assert!(verdict.is_clean(), "{verdict}");
    let denied = Fault::new(FaultKind::Denied)
        .on("GetObject")
        .on_key("entries/");
    week.aws.faults().add(denied);
    let verdict = verify(&archive, &Options::default()).await.unwrap();
    assert_eq!(verdict.outcome(), Outcome::NotReadable, "{verdict}");
    let objects = verdict.unreadable.iter();
    let is_entries = |key: &str| key.starts_with("v1/entries/");
    assert!(objects.clone().count() > 1 && objects.clone().all(|object| is_entries(&object.key)));
    for object in objects {
        assert!(object.what.contains("AccessDenied"), "{verdict}");
    }
}
