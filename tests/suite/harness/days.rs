//! A local AWS, and an auditor that runs in it day after day.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use image_usage_auditor::audit::{Auditor, Summary};
use local_aws::{Call, LocalAws, Report, World};
use serde_json::Value;
use time::Duration;

use super::{
    ACCOUNT, Archive, ENTRIES, REGION, auditor, checked, local_aws, run_at, target, text, world,
};

pub(crate) struct Days {
    pub(crate) world: World,
    pub(crate) aws: LocalAws,
    pub(crate) regions: String,
    /// The settings besides the bucket and the Regions.
    pub(crate) variables: Vec<(&'static str, &'static str)>,
}

impl Days {
    pub(crate) async fn of(regions: &[&str]) -> Self {
        let world = world(regions);
        let aws = local_aws(&world).await;
        Self {
            world,
            aws,
            regions: regions.join(","),
            variables: Vec::new(),
        }
    }

    /// The days of one Region, [`REGION`], with these reports.
    pub(crate) async fn with_reports(reports: impl IntoIterator<Item = Report>) -> Self {
        let days = Self::of(&[REGION]).await;
        days.put(REGION, reports);
        days
    }

    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    pub(crate) fn put(&self, region: &str, reports: impl IntoIterator<Item = Report>) {
        self.world.put_reports(ACCOUNT, region, reports);
    }

    pub(crate) fn delete(&self, region: &str, id: &str) {
        assert!(self.world.delete_report(ACCOUNT, region, id), "{id}");
    }

    pub(crate) fn archive(&self) -> Archive {
        Archive::of(&self.aws)
    }

    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.archive().path(key)
    }

    pub(crate) async fn auditor(&self) -> Auditor {
        let mut variables = vec![("AUDITOR_REGIONS", self.regions.as_str())];
        variables.extend(&self.variables);
        auditor(&self.aws, &variables).await
    }

    /// Runs now, and checks the snapshot. The log of calls then has those of this run only.
    pub(crate) async fn run(&self) -> Value {
        checked(&self.aws, &self.unchecked_run().await.0)
    }

    pub(crate) async fn next_day(&self) -> Value {
        self.world.clock().advance(Duration::DAY);
        self.run().await
    }

    pub(crate) async fn unchecked_run(&self) -> (Summary, Value) {
        self.aws.clear_calls();
        let auditor = self.auditor().await;
        let summary = run_at(&auditor, self.world.clock().now()).await.unwrap();
        let snapshot = self.archive().snapshot(&summary);
        (summary, snapshot)
    }

    /// The lines of a Region's reports, by report.
    pub(crate) fn lines(&self, snapshot: &Value, region: &str) -> BTreeMap<String, Value> {
        let lines = self.archive().report_lines(snapshot, region).into_iter();
        lines
            .map(|line| (text(&line["report_id"]).to_owned(), line))
            .collect()
    }

    /// The status of the entries of each report of a Region.
    pub(crate) fn entries(&self, snapshot: &Value, region: &str) -> BTreeMap<String, Value> {
        let lines = self.lines(snapshot, region).into_iter();
        lines
            .map(|(id, line)| (id, line["entries"].clone()))
            .collect()
    }

    /// The lines of the entries object that a run has written for a Region.
    pub(crate) fn entry_lines(&self, snapshot: &Value, region: &str) -> Vec<Value> {
        let object = &target(snapshot, region)["entries_object"];
        match object["key"].as_str() {
            Some(key) => self.archive().lines(key),
            None => Vec::new(),
        }
    }

    /// The report IDs of each call for entries, in the order of the calls.
    pub(crate) fn requested_entries(&self) -> Vec<Vec<String>> {
        let calls = self.aws.calls();
        let calls = calls.iter().filter(|call| call.operation == ENTRIES);
        calls.map(report_ids).collect()
    }
}

fn report_ids(call: &Call) -> Vec<String> {
    let parameters = call.parameters.iter();
    let ids = parameters.filter(|(name, _)| name.starts_with("ReportId."));
    ids.map(|(_, id)| id.clone()).collect()
}

/// The reports whose entries are archived.
pub(crate) fn archived(entries: &BTreeMap<String, Value>) -> BTreeSet<&str> {
    let archived = entries
        .iter()
        .filter(|(_, entries)| entries["status"] == "archived");
    archived.map(|(id, _)| id.as_str()).collect()
}
