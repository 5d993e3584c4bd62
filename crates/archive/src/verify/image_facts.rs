//! What the reports and entries of a run say about each AMI of a target.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::documents::{EntryLine, ImageLine, Snapshot};
use crate::domain::entries_status::EntriesStatus;
use crate::domain::report::UsageReport;
use crate::domain::report_key::ReportKey;
use crate::domain::run_id::RunId;
use crate::domain::timestamp::{SECONDS_PER_DAY, Timestamp};
use crate::domain::usage::{
    ConsumerKey, ImageUsage, LINKABLE_DAYS, MAX_CONSUMERS, ReportLook, ReportsListed, Source,
};

/// What the reports of a target say about its AMIs.
#[derive(Debug)]
pub(super) struct ImageFacts {
    run_id: RunId,
    started_at: Timestamp,
    images: HashMap<Arc<str>, ImageReports>,
    /// The reports whose entries this run fetched.
    fetched: HashMap<ReportKey, Fetched>,
}

/// What the reports of a target say about one AMI.
#[derive(Default, Debug)]
pub(super) struct ImageReports {
    /// Every report about it.
    pub(super) listed: ReportsListed,
    /// What follows from those whose entries this run fetched, besides their entries.
    pub(super) observed: ImageUsage,
}

#[derive(Debug)]
struct Fetched {
    image_id: Arc<str>,
    creation_time: Option<Timestamp>,
}

impl ImageFacts {
    /// `None` for a run that gives no verdicts.
    pub(super) fn of(snapshot: &Snapshot) -> Option<Self> {
        let policy = snapshot.scope.usage_policy(&snapshot.policy);
        policy.map(|_| Self {
            run_id: snapshot.run_id.clone(),
            started_at: snapshot.started_at,
            images: HashMap::new(),
            fetched: HashMap::new(),
        })
    }

    pub(super) fn add(&mut self, report: &UsageReport, entries: &EntriesStatus) {
        let Some(image_id) = report.image_id.as_deref() else {
            return;
        };
        let image_id: Arc<str> = match self.images.get_key_value(image_id) {
            Some((known, _)) => Arc::clone(known),
            None => image_id.into(),
        };
        let of_image = self.images.entry(Arc::clone(&image_id)).or_default();
        let archived_by = match entries {
            EntriesStatus::Archived { run_id, .. } => Some(run_id),
            _ => None,
        };
        of_image.listed.add(report, archived_by.is_some());
        if archived_by == Some(&self.run_id)
            && let Some(look) = ReportLook::of(report)
        {
            // There is one object of entries that this run wrote: its key need not be kept with each report.
            of_image.observed.observe_report(&look, "", self.started_at);
            let fetched = Fetched {
                image_id,
                creation_time: report.creation_time,
            };
            self.fetched.insert(ReportKey::of(look.report_id), fetched);
        }
    }

    pub(super) fn of_image(&self, image_id: &str) -> Option<&ImageReports> {
        self.images.get(image_id)
    }

    /// The AMIs that a report names.
    pub(super) fn image_ids(&self) -> impl Iterator<Item = &str> {
        self.images.keys().map(AsRef::as_ref)
    }
}

/// The uses that the entries of a run show, by AMI: for each one the first consumers, as its line has them.
#[derive(Default, Debug)]
pub(super) struct ImageUses(HashMap<Arc<str>, ImageUsage>);

impl ImageUses {
    pub(super) fn add(&mut self, facts: &ImageFacts, entry: &EntryLine) {
        let Some(fetched) = facts.fetched.get(&ReportKey::of(&entry.report_id)) else {
            return;
        };
        // What else the report was asked for does not matter to its entries.
        let look = ReportLook {
            report_id: entry.report_id.clone(),
            creation_time: fetched.creation_time,
            requested_account_ids: 0,
            resource_types: Default::default(),
            version_depth: None,
        };
        let consumer = ConsumerKey {
            consumer_account_id: entry.consumer_account_id.clone(),
            resource_type: entry.resource_type.clone(),
        };
        let usage = self.0.entry(Arc::clone(&fetched.image_id)).or_default();
        usage.observe_use(&look, consumer, entry.usage_count, facts.started_at);
    }

    pub(super) fn of_image(&self, image_id: &str) -> Option<&ImageUsage> {
        self.0.get(image_id)
    }
}

/// Returns the field of a line that leaves out what a run has read; `None` if nothing is left out.
///
/// The last use of the line is that of its sources.
pub(super) fn left_out(
    line: &ImageUsage,
    read: &ImageUsage,
    started_at: Timestamp,
) -> Option<&'static str> {
    let oldest_linkable = started_at.plus_seconds(-LINKABLE_DAYS * SECONDS_PER_DAY);
    let has_source = |(name, read): (&String, &Source)| {
        let source = line.sources.get(name).copied().unwrap_or_default();
        source.last_observed >= read.last_observed && source.covered_until >= read.covered_until
    };
    let observed: BTreeMap<_, _> = line.observed.iter().collect();
    let checks = [
        (
            "first_observed",
            is_no_later(line.first_observed, read.first_observed),
        ),
        ("as_of", line.as_of >= read.as_of),
        ("sources", read.sources.iter().all(has_source)),
        ("consumers", has_consumers(line, read)),
        (
            "observed_reports",
            read.observed.iter().all(|(place, report)| {
                // Older ones may have been forgotten.
                place.0 < oldest_linkable
                    || observed
                        .get(place)
                        .is_some_and(|there| there.series.is_some() == report.series.is_some())
            }),
        ),
    ];
    let wrong = checks.into_iter().find(|(_, holds)| !holds);
    wrong.map(|(field, _)| field)
}

/// Whether a first moment is no later than another one, if there is another one.
pub(super) fn is_no_later(first: Option<Timestamp>, other: Option<Timestamp>) -> bool {
    other.is_none_or(|other| first.is_some_and(|first| first <= other))
}

/// Whether a line has every consumer that was read, or a later look at it; those after the end of a full list
/// are only counted.
fn has_consumers(line: &ImageUsage, read: &ImageUsage) -> bool {
    let listed: BTreeMap<_, _> = line.consumers.iter().collect();
    let last_of_full = listed
        .last_key_value()
        .filter(|_| listed.len() >= MAX_CONSUMERS);
    read.consumers.iter().all(|(key, read)| {
        let Some(there) = listed.get(key) else {
            return last_of_full.is_some_and(|(last, _)| key > *last);
        };
        let rank = (there.last_observed, &there.report_id, there.usage_count);
        rank >= (read.last_observed, &read.report_id, read.usage_count)
            && there.first_observed <= read.first_observed
    })
}

/// Returns the report of this run that a line cites for what the report does not say.
///
/// `entries_key` is the object with the entries that the run fetched.
pub(super) fn misquoted<'a>(
    line: &'a ImageLine,
    entries_key: &str,
    reports: Option<&ImageReports>,
    uses: Option<&ImageUsage>,
) -> Option<&'a str> {
    let places: Vec<_> = reports
        .map(|reports| reports.observed.observed.iter().map(|(place, _)| place))
        .into_iter()
        .flatten()
        .collect();
    let uses: BTreeMap<_, _> = uses
        .map(|uses| uses.consumers.iter())
        .into_iter()
        .flatten()
        .collect();
    let of_run = line.observed_reports.iter();
    for report in of_run.filter(|report| report.entries_key == entries_key) {
        let report_id = report.report_id.as_str();
        let is_there = places
            .iter()
            .any(|(at, id)| (*at, id.as_str()) == (report.creation_time, report_id));
        let mut shows = line.consumers.iter().filter(|one| {
            (one.last_observed, one.report_id.as_str()) == (report.creation_time, report_id)
        });
        let is_shown = shows.all(|one| {
            let key = ConsumerKey {
                consumer_account_id: one.consumer_account_id.clone(),
                resource_type: one.resource_type.clone(),
            };
            uses.get(&key).is_some_and(|there| {
                (&there.report_id, there.usage_count) == (&one.report_id, one.usage_count)
            })
        });
        if !is_there || !is_shown {
            return Some(report_id);
        }
    }
    None
}
