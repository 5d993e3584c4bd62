//! How long an AMI has been observed: the reports whose entries were read, and the series that they form.

use std::collections::{BTreeMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::consumers::Consumers;
use super::report_look::ReportLook;
use crate::domain::timestamp::{SECONDS_PER_DAY, Timestamp};

/// A series is uninterrupted if no report is created more than so many days after the one before.
pub const LONGEST_GAP_DAYS: i64 = 14;

/// How long a report can still be read after it was created: EC2 deletes it after 30 days.
const READABLE_DAYS: i64 = 31;

/// How long an observed report matters: one that is read at the last moment may be linked to it.
pub const LINKABLE_DAYS: i64 = READABLE_DAYS + LONGEST_GAP_DAYS;

/// The latest uninterrupted series of adequate reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Observation {
    /// The creation of its first report.
    pub since: Timestamp,
    /// The creation of its last report.
    pub until: Timestamp,
    /// Its reports.
    pub reports: u64,
}

/// A report whose entries were read to the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedReport {
    /// The key of the object with its entries.
    pub entries_key: String,
    /// The series up to this report; `None` if it is not adequate, or if no series depends on it any more.
    pub series: Option<Observation>,
}

/// The reports whose entries were read, by creation and ID: those that later ones may be linked to, and those
/// that show a consumer.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ObservedReports(BTreeMap<(Timestamp, String), ObservedReport>);

impl ObservedReports {
    /// Takes the reports of an earlier run.
    pub fn new(reports: impl IntoIterator<Item = ((Timestamp, String), ObservedReport)>) -> Self {
        Self(reports.into_iter().collect())
    }

    /// The reports with their creation and ID, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&(Timestamp, String), &ObservedReport)> {
        self.0.iter()
    }

    /// The latest series; `None` if no adequate report was observed.
    pub fn latest(&self) -> Option<Observation> {
        self.0.values().rev().find_map(|report| report.series)
    }

    pub(super) fn insert(&mut self, report: &ReportLook, at: Timestamp, entries_key: &str) {
        let is_adequate = report.creation_time.is_some() && report.is_adequate();
        let place = (at, report.report_id.clone());
        let known = self.0.entry(place).or_insert_with(|| ObservedReport {
            entries_key: String::new(),
            series: is_adequate.then_some(Observation {
                since: at,
                until: at,
                reports: 1,
            }),
        });
        // Entries that were lost and are fetched again are in another object.
        entries_key.clone_into(&mut known.entries_key);
    }

    /// Links the adequate reports to series, and forgets those that are too old to matter.
    pub(super) fn settle(&mut self, now: Timestamp, consumers: &Consumers) {
        let mut before: Option<Observation> = None;
        for report in self.0.values_mut() {
            let Some(series) = &mut report.series else {
                continue;
            };
            // The first one keeps what earlier runs knew of those before it.
            if let Some(before) = before {
                let gap = series.until.seconds_since(before.until);
                let (since, reports) = match gap <= LONGEST_GAP_DAYS * SECONDS_PER_DAY {
                    true => (before.since, before.reports + 1),
                    false => (series.until, 1),
                };
                (series.since, series.reports) = (since, reports);
            }
            before = Some(*series);
        }
        let oldest_linkable = now.plus_seconds(-LINKABLE_DAYS * SECONDS_PER_DAY);
        let shown: HashSet<&str> = consumers
            .iter()
            .map(|(_, one)| one.report_id.as_str())
            .collect();
        self.0.retain(|(at, report_id), report| {
            if *at < oldest_linkable && report.series != before {
                report.series = None;
            }
            *at >= oldest_linkable || report.series.is_some() || shown.contains(report_id.as_str())
        });
    }
}
