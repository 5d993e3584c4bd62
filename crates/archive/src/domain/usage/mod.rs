//! Who uses an AMI, and what is not known about it.
//!
//! [`ImageUsage`] is what all looks at an AMI add up to. It is carried from run to run in the AMI's line, and
//! each run adds what it has read. The order of looks, and looks that come twice, change nothing.
//!
//! A partial look proves use, never non-use: only a report about all accounts can show that a resource type no
//! longer uses the AMI, and only an uninterrupted series of adequate reports that nobody was observed to use it.

mod consumers;
mod coverage;
mod observation;
mod reason;
mod report_look;
mod verdict;
mod words;

use std::collections::BTreeMap;

pub use self::consumers::{Consumer, ConsumerKey, Consumers, MAX_CONSUMERS};
pub use self::coverage::{Coverage, CoverageRules, Covering, Gap};
pub use self::observation::{
    LINKABLE_DAYS, LONGEST_GAP_DAYS, Observation, ObservedReport, ObservedReports,
};
pub use self::reason::Reason;
pub use self::report_look::{
    ADEQUATE_VERSION_DEPTH, AdequateReport, DEFAULT_VERSION_DEPTH, KNOWN_RESOURCE_TYPES,
    LAUNCH_TEMPLATE, ReportLook, ReportsListed,
};
pub use self::verdict::{ImageLook, Judgement, Look, ReferencesLook, Verdict, judge};
pub use self::words::{BLIND_SPOTS, CONSEQUENCES, reason_in_words, verdict_in_words};
use super::timestamp::Timestamp;

/// The source of launches: the AMI's own `LastLaunchedTime`.
pub const LAUNCHES: &str = "last_launched_time";

/// The source of references: resources of the owner's account that refer to the AMI.
pub const REFERENCES: &str = "references";

/// What all looks at an AMI add up to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ImageUsage {
    /// When the first use was observed.
    pub first_observed: Option<Timestamp>,
    /// When the last use was observed.
    pub last_observed: Option<Timestamp>,
    /// Up to when anything is known: the last use, or the creation of the newest report that was read.
    pub as_of: Option<Timestamp>,
    /// When each source showed use, by its name: a resource type, [`LAUNCHES`] or [`REFERENCES`].
    pub sources: BTreeMap<String, Source>,
    /// The accounts that use or have used the AMI.
    pub consumers: Consumers,
    /// The reports whose entries were read.
    pub observed: ObservedReports,
}

/// When a source showed use.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Source {
    /// When it showed use for the last time.
    pub last_observed: Option<Timestamp>,
    /// When it was looked at in full for the last time, whatever it showed.
    pub covered_until: Option<Timestamp>,
}

impl Source {
    /// Whether it showed use, and no later look in full says that this has ended.
    fn is_last_use_open(&self) -> bool {
        self.last_observed.is_some() && self.covered_until <= self.last_observed
    }
}

impl ImageUsage {
    /// The sources that are resource types.
    fn types(&self) -> impl Iterator<Item = (&String, &Source)> {
        let sources = self.sources.iter();
        sources.filter(|(name, _)| ![LAUNCHES, REFERENCES].contains(&name.as_str()))
    }

    /// What is known without references.
    #[must_use]
    pub fn without_references(mut self) -> Self {
        self.sources.remove(REFERENCES);
        let observed = self
            .sources
            .values()
            .filter_map(|source| source.last_observed);
        self.last_observed = observed.max();
        self
    }

    /// Adds a report whose entries were read to the end; [`observe_use`](Self::observe_use) adds its entries.
    ///
    /// `started_at` stands for a missing creation time.
    pub fn observe_report(
        &mut self,
        report: &ReportLook,
        entries_key: &str,
        started_at: Timestamp,
    ) {
        let at = report.creation_time.unwrap_or(started_at);
        self.as_of = self.as_of.max(Some(at));
        if report.creation_time.is_some() {
            for covered in report.covered_types() {
                let source = self.sources.entry(covered.to_owned()).or_default();
                source.covered_until = source.covered_until.max(Some(at));
            }
        }
        self.observed.insert(report, at, entries_key);
    }

    /// Adds an entry of a report.
    ///
    /// An entry whose count is missing counts as use; one of 0 does not.
    pub fn observe_use(
        &mut self,
        report: &ReportLook,
        consumer: ConsumerKey,
        usage_count: Option<i64>,
        started_at: Timestamp,
    ) {
        if usage_count.is_some_and(|count| count <= 0) {
            return;
        }
        let at = report.creation_time.unwrap_or(started_at);
        let source = consumer.resource_type.clone().unwrap_or_default();
        self.add_use(source, at);
        self.consumers.insert(
            consumer,
            Consumer {
                usage_count,
                report_id: report.report_id.clone(),
                first_observed: at,
                last_observed: at,
            },
        );
    }

    /// Ends the entries of a report.
    pub fn end_report(&mut self) {
        self.consumers.end_report();
    }

    /// Adds what `DescribeImages` says about launches.
    pub fn observe_launches(&mut self, last_launched_time: Option<Timestamp>, at: Timestamp) {
        if let Some(launched) = last_launched_time {
            self.add_use(LAUNCHES.to_owned(), launched);
        }
        self.cover(LAUNCHES, at);
    }

    /// Adds a check of references that found some, whole or not, or a whole one that found none.
    pub fn observe_references(&mut self, found: bool, at: Timestamp) {
        if found {
            self.add_use(REFERENCES.to_owned(), at);
        }
        self.cover(REFERENCES, at);
    }

    /// Links the reports that were observed, and forgets those that no later one can depend on.
    pub fn settle(&mut self, started_at: Timestamp) {
        self.observed.settle(started_at, &self.consumers);
    }

    fn add_use(&mut self, source: String, at: Timestamp) {
        let source = self.sources.entry(source).or_default();
        source.last_observed = source.last_observed.max(Some(at));
        self.first_observed = Some(self.first_observed.map_or(at, |first| first.min(at)));
        self.last_observed = self.last_observed.max(Some(at));
        self.as_of = self.as_of.max(Some(at));
    }

    fn cover(&mut self, source: &str, at: Timestamp) {
        let source = self.sources.entry(source.to_owned()).or_default();
        source.covered_until = source.covered_until.max(Some(at));
    }
}
