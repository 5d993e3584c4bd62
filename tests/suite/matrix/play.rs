//! Plays a case, and checks what every attempt leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::time::Duration;

use image_usage_auditor::audit::{Answer, Auditor, RunError, Summary};
use local_aws::{Call, FaultKind, LocalAws, Service, World};
use serde_json::{Value, json};

use super::case::{Case, Expected, region};
use super::tally::Tally;
use crate::harness::{
    Archive, LATEST, LISTING, RUN_ID, invocation, local_aws, scheduled_event, sha256, targets, text,
};

/// A run without a deadline that takes longer is considered hung.
const PATIENCE: Duration = Duration::from_secs(170);

/// How long a run may exceed its deadline on a busy machine.
const SLACK: Duration = Duration::from_secs(20);

const SNAPSHOTS: &str = "image-usage/v1/snapshots/";
const FOLDERS: [&str; 4] = [
    "image-usage/v1/reports/",
    "image-usage/v1/entries/",
    "image-usage/v1/images/",
    SNAPSHOTS,
];

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Ended {
    Snapshot(Box<Summary>),
    Failed(RunError),
    /// Its time was up before its answer: Lambda kills it then.
    Killed,
}

/// A case that is being played.
struct Played<'a> {
    case: &'a Case,
    world: World,
    aws: LocalAws,
    auditor: Auditor,
    /// The calls of every attempt.
    calls: Vec<Call>,
    was_killed: bool,
    /// The objects that existed when the newest snapshot was written: they never change again.
    settled: BTreeMap<String, Vec<u8>>,
    tally: Tally,
}

pub(super) async fn play(case: &Case) -> Tally {
    let world = case.world();
    let aws = local_aws(&world).await;
    let mut played = Played {
        case,
        world,
        auditor: case.auditor(&aws).await,
        aws,
        calls: Vec::new(),
        was_killed: false,
        settled: BTreeMap::new(),
        tally: Tally::default(),
    };
    if case.has_earlier_run {
        played.run_earlier().await;
    }
    let mut first = None;
    for faults in &case.attempts {
        for fault in faults {
            played.aws.faults().add(fault.clone());
        }
        let ended = played.attempt(scheduled_event(), case.time_left).await;
        played.aws.faults().clear();
        played.check_archive();
        played.check_answer(&ended);
        first.get_or_insert(ended);
    }
    played.tally.faults += played.aws.faults().injected();
    if let Some(first) = first {
        played.check_expected(&first);
    }
    played.attempt_without_faults().await;
    let Played { aws, tally, .. } = played;
    // Stopping waits for the server's thread.
    tokio::task::spawn_blocking(move || drop(aws))
        .await
        .unwrap();
    Tally { cases: 1, ..tally }
}

impl Played<'_> {
    /// Runs the audit of the day before, and deletes what the case says of it.
    async fn run_earlier(&mut self) {
        let mut event = scheduled_event();
        event["id"] = json!("11111111-0000-4000-8000-000000000000");
        event["time"] = json!("2026-11-21T06:00:00Z");
        let ended = self.attempt(event, None).await;
        assert!(matches!(ended, Ended::Snapshot(_)), "{ended:?}");
        self.check_archive();
        self.calls.clear();
        let Some(part) = self.case.deleted_after_earlier_run else {
            return;
        };
        let archive = Archive::of(&self.aws);
        for key in archive.objects().keys().filter(|key| key.contains(part)) {
            fs::remove_file(archive.path(key)).unwrap();
            self.settled.remove(key);
            self.tally.faults += 1;
        }
        assert!(self.tally.faults > 0, "{part} is not in any key");
    }

    /// The attempt that must succeed. It writes nothing if an earlier one has written the snapshot.
    async fn attempt_without_faults(&mut self) {
        let before = Archive::of(&self.aws).objects();
        let ended = self.attempt(scheduled_event(), None).await;
        let Ended::Snapshot(summary) = &ended else {
            panic!("without faults, the run still has no snapshot: {ended:?}")
        };
        let was_archived = before.contains_key(&summary.snapshot.key);
        // A call that a run sent before it was killed may have taken effect since.
        assert!(summary.already_archived || !was_archived);
        self.check_archive();
        self.check_answer(&ended);
        if was_archived {
            let after = Archive::of(&self.aws).objects();
            let is_new = |key: &&String| !before.contains_key(*key) && *key != LATEST;
            assert_eq!(after.keys().find(is_new), None, "an unnecessary object");
        }
    }

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
            Ok(Ok(other)) => panic!("the request was for a run: {other:?}"),
            Ok(Err(error)) => Ended::Failed(error),
            Err(_) => {
                assert!(may_be_killed, "the run took longer than {limit:?}");
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

    /// Whatever failed: each snapshot is true, every object that it names exists, `latest.json` is a copy of
    /// one of them, and no upload is left behind.
    fn check_archive(&mut self) {
        let archive = Archive::of(&self.aws);
        let objects = archive.objects();
        for key in objects.keys() {
            let is_known = FOLDERS.iter().any(|folder| key.starts_with(folder)) || key == LATEST;
            assert!(is_known, "{key} does not belong to the archive");
        }
        for (key, bytes) in &self.settled {
            assert!(objects.get(key) == Some(bytes), "{key} has changed");
        }
        let snapshots: BTreeMap<&String, &Vec<u8>> = objects
            .iter()
            .filter(|(key, _)| key.starts_with(SNAPSHOTS))
            .collect();
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
            assert!(is_copy, "latest.json is not a copy of a snapshot");
        }
        if has_new {
            self.settled = objects;
            self.settled.remove(LATEST);
        }
        self.check_uploads();
    }

    /// The answer agrees with the archive.
    fn check_answer(&self, ended: &Ended) {
        let objects = Archive::of(&self.aws).objects();
        let is_snapshot = |key: &String| key.starts_with(SNAPSHOTS) && key.contains(RUN_ID);
        match ended {
            Ended::Snapshot(summary) => {
                let bytes = &objects[&summary.snapshot.key];
                assert_eq!(summary.snapshot.sha256, sha256(bytes));
                let snapshot: Value = serde_json::from_slice(bytes).unwrap();
                let answer = serde_json::to_value(summary).unwrap();
                for field in ["run_id", "status", "counts"] {
                    assert_eq!(answer[field], snapshot[field]);
                }
                assert_eq!(objects.get(LATEST), Some(bytes), "it is not the latest");
                self.check_unaffected_targets(&snapshot);
            }
            Ended::Failed(error) => match error.error_type() {
                "NoTargetAudited" => assert!(!objects.keys().any(is_snapshot), "{error}"),
                "ArchiveFailed" => {}
                other => panic!("{other}: {error}"),
            },
            Ended::Killed => {}
        }
    }

    fn check_snapshot(&mut self, archive: &Archive, snapshot: &Value) {
        self.check_planned_targets(snapshot);
        let mut statuses: BTreeMap<&str, u64> = BTreeMap::new();
        for target in targets(snapshot) {
            let status = text(&target["status"]);
            *statuses.entry(status).or_default() += 1;
            let (account, region) = (text(&target["account_id"]), text(&target["region"]));
            let enabled = self.world.enabled_regions(account);
            let is_enabled = enabled.iter().any(|enabled| enabled == region);
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
        let compared = archive.check_with_bare(snapshot, &self.world, |account, region| {
            self.bare_reports(account, region)
        });
        self.tally.reports += compared as u64;
    }

    /// The ledger has the planned targets, sorted. If the Regions of an account could not be determined, it
    /// has failed targets in their place.
    fn check_planned_targets(&self, snapshot: &Value) {
        let listed: Vec<(String, String)> = targets(snapshot)
            .iter()
            .map(|target| {
                let (account, region) = (&target["account_id"], &target["region"]);
                (text(account).to_owned(), text(region).to_owned())
            })
            .collect();
        assert!(listed.is_sorted_by(|a, b| a < b), "{listed:?}");
        let planned = self.case.targets(&self.world);
        let listed: BTreeSet<(String, String)> = listed.into_iter().collect();
        let regions_failed = self.calls.iter().any(|call| {
            ["DescribeRegions", "AssumeRole"].contains(&call.operation.as_str())
                && call.fault.is_some()
        });
        for target in planned.symmetric_difference(&listed) {
            assert!(
                self.case.all_regions && regions_failed,
                "{target:?} is only planned or only in the ledger"
            );
        }
    }

    /// The number of reports without any field that EC2 returned besides those that it holds: exact if the
    /// listing was read once.
    fn bare_reports(&self, account: &str, region: &str) -> RangeInclusive<usize> {
        let pages = || {
            self.calls.iter().filter(|call| {
                call.operation == LISTING && call.account == account && call.region == region
            })
        };
        let returned = pages()
            .filter(|call| call.fault == Some(FaultKind::BareReport))
            .count();
        let starts = pages()
            .filter(|call| call.page == Some(0) && call.status == Some(200))
            .count();
        let least = if starts == 1 { returned } else { 0 };
        least..=returned
    }

    /// A target that no fault has met is complete, unless its time was up.
    fn check_unaffected_targets(&self, snapshot: &Value) {
        let is_met = |call: &&Call| call.fault.is_some();
        let shared = ["DescribeRegions", "AssumeRole", "GetCallerIdentity"];
        let is_shared =
            |call: &Call| call.service == Service::S3 || shared.contains(&call.operation.as_str());
        if self.was_killed || self.calls.iter().filter(is_met).any(is_shared) {
            return;
        }
        for target in targets(snapshot) {
            let was_met = self.calls.iter().filter(is_met).any(|call| {
                target["account_id"] == call.account && target["region"] == call.region
            });
            let is_done = ["complete", "skipped"].contains(&text(&target["status"]));
            // There may be no time to find out why a Region refuses.
            let code = target["error"]["code"].as_str().unwrap_or_default();
            let late = ["DeadlineExceeded", "AuthFailure"];
            let was_late = self.case.time_left.is_some() && late.contains(&code);
            assert!(was_met || is_done || was_late, "no fault met {target}");
        }
    }

    /// No upload stays unfinished, unless its start or its abort was not answered.
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
        if matches!(self.case.expected, Expected::Any) {
            return;
        }
        // On a busy machine the deadline may come before the fault.
        let is_late = matches!(self.case.expected, Expected::Late);
        assert!(self.tally.faults > 0 || is_late, "the fault was never met");
        let summary = match (ended, &self.case.expected) {
            (Ended::Failed(error), Expected::Error(expected)) => {
                assert_eq!(error.error_type(), *expected);
                return;
            }
            (Ended::Snapshot(summary), expected) if !matches!(expected, Expected::Error(_)) => {
                summary
            }
            _ => panic!("{:?} was expected: {ended:?}", self.case.expected),
        };
        let snapshot = Archive::of(&self.aws).snapshot(summary);
        for target in targets(&snapshot) {
            let found = (text(&target["status"]), target["error"]["code"].as_str());
            let is_second = target["region"] == region(self.case.number, 1);
            match self.case.expected {
                Expected::Broken(status, code) if is_second => {
                    assert_eq!(found, (status, Some(code)), "{target}");
                }
                Expected::Late if is_second => {
                    assert_eq!(found.1, Some("DeadlineExceeded"), "{target}");
                }
                // On a busy machine the others may be late too: see `check_unaffected_targets`.
                Expected::Late => {}
                _ => assert_eq!(found, ("complete", None), "{target}"),
            }
        }
    }
}
