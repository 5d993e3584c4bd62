//! Sixty days of runs, and the checks of what they have archived.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use image_usage_auditor::audit::{Auditor, Summary};
use local_aws::{LocalAws, Report, World};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::plan::plan;
use crate::harness::{
    ACCOUNT, Archive, BUCKET, ENTRIES, REGION, auditor, count_calls, event_at, expected_entries,
    invocation_at, local_aws, summary_of, targets, will_be_harmed, world,
};

/// The limits of one call to EC2.
const IDS_PER_CALL: usize = 200;
const ENTRIES_PER_PAGE: usize = 1_000;

/// Reports by their IDs.
type ById = BTreeMap<String, Report>;

/// Sixty days in progress.
pub(super) struct Simulation {
    pub(super) world: World,
    pub(super) aws: LocalAws,
    auditor: Auditor,
    /// The reports that are not created yet, the last one first.
    to_come: Vec<Report>,
    /// The reports that were available throughout a run that has a snapshot.
    ever_available: ById,
    pub(super) snapshots: Vec<Value>,
}

impl Simulation {
    pub(super) async fn new() -> Self {
        let world = world(&[REGION]);
        let mut aws = local_aws(&world).await;
        // Its documents have 130,000 lines, which the verifier checks as closely as the schemas would.
        will_be_harmed(&mut aws);
        // Short lists of findings, because each of 1,000 changes causes snapshots to be read again.
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

    /// Sets the clock, and creates the reports that are due.
    pub(super) fn set_clock(&mut self, time: OffsetDateTime) {
        self.world.clock().set(time);
        let is_made = |report: &mut Report| report.creation_time.is_some_and(|made| made <= time);
        while let Some(report) = self.to_come.pop_if(is_made) {
            if report.deleted_at.is_none_or(|deleted| deleted > time) {
                self.world.put_report(ACCOUNT, REGION, report);
            }
        }
    }

    pub(super) fn available(&self) -> ById {
        let reports = self.world.reports(ACCOUNT, REGION).into_iter();
        reports
            .filter(|report| report.state.as_deref() == Some("available"))
            .map(|report| (report.report_id.clone().unwrap(), report))
            .collect()
    }

    pub(super) async fn attempt(&self, event: &Value) -> Option<Summary> {
        let invocation = invocation_at(self.world.clock().now());
        match self.auditor.handle(event.clone(), invocation).await {
            Ok(answer) => Some(summary_of(answer)),
            Err(_) => None,
        }
    }

    /// Records a run with a snapshot, and the reports that were available throughout.
    pub(super) fn record(&mut self, summary: &Summary, available: ById) {
        self.snapshots
            .push(Archive::of(&self.aws).snapshot(summary));
        self.ever_available.extend(available);
    }

    /// A day without faults. Returns how many calls for entries its run made, and how many it needed.
    pub(super) async fn quiet_day(&mut self, time: OffsetDateTime) -> (usize, usize) {
        self.set_clock(time);
        let available = self.available();
        let least = self.least_calls(&available);
        self.aws.clear_calls();
        let summary = self.attempt(&event_at(time)).await.unwrap();
        self.record(&summary, available);
        (count_calls(&self.aws, ENTRIES), least)
    }

    /// The fewest calls that fetch the entries of reports that have not been available before.
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

    pub(super) fn archive_folder(&self) -> PathBuf {
        self.aws.archive_root().join(BUCKET).join("image-usage")
    }

    /// Checks that the entries of every report that was ever available are archived exactly once in the
    /// objects that snapshots name, and that leftover objects have the same. Returns the number of these
    /// reports, and how many of them EC2 no longer has.
    pub(super) fn check_entries(&self) -> (usize, usize) {
        let archive = Archive::of(&self.aws);
        let named: BTreeSet<&str> = self
            .snapshots
            .iter()
            .flat_map(targets)
            .filter_map(|target| target["entries_object"]["key"].as_str())
            .collect();
        let mut once: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut leftover: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for key in archive
            .objects()
            .keys()
            .filter(|key| key.contains("/v1/entries/"))
        {
            for (id, lines) in archive.entry_groups(key) {
                if !named.contains(key.as_str()) {
                    leftover.insert(id, lines);
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
            let is_same = leftover.get(id).is_none_or(|other| *other == lines);
            assert!(is_same, "{id} has other entries in a leftover object");
        }
        (self.ever_available.len(), gone)
    }

    /// Checks that EC2 has no report that is older than 30 days.
    pub(super) fn check_age(&self) {
        let oldest = self.world.clock().now() - Duration::days(30);
        let reports = self.world.reports(ACCOUNT, REGION);
        assert!(reports.len() > 1_500, "{}", reports.len());
        let is_young = |report: &Report| report.creation_time.unwrap() > oldest;
        assert!(reports.iter().all(is_young));
    }
}
