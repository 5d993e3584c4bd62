//! The accounts that use an AMI.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::domain::timestamp::Timestamp;

/// How many consumers of an AMI are kept; the rest are only counted.
pub const MAX_CONSUMERS: usize = 1_000;

/// How many consumers of one report are counted besides those: it bounds the memory that counting takes.
const MAX_COUNTED: usize = 100_000;

/// A consumer: an account, and the type of its resources that use the AMI. `None` is what EC2 left out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConsumerKey {
    /// The account.
    pub consumer_account_id: Option<String>,
    /// The type of its resources.
    pub resource_type: Option<String>,
}

/// What is known of a consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Consumer {
    /// How many resources use the AMI, by the last report that shows them; `None` if EC2 left it out.
    pub usage_count: Option<i64>,
    /// That report.
    pub report_id: String,
    /// The creation of the first report that shows them.
    pub first_observed: Timestamp,
    /// The creation of the last report that shows them.
    pub last_observed: Timestamp,
}

impl Consumer {
    /// The order in which reports count: the latest is the last.
    fn rank(&self) -> (Timestamp, &str, Option<i64>) {
        (self.last_observed, &self.report_id, self.usage_count)
    }
}

/// The first consumers in their order, at most [`MAX_CONSUMERS`].
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Consumers {
    listed: BTreeMap<ConsumerKey, Consumer>,
    /// At least so many others were observed: the most in any one report.
    omitted: u64,
    /// The hashes of those that the report under way has left out, so that each counts once: one that was
    /// listed before may have its own entry still to come.
    omitted_of_report: BTreeSet<u64>,
}

impl Consumers {
    /// Takes the consumers of an earlier run.
    pub fn new(listed: impl IntoIterator<Item = (ConsumerKey, Consumer)>, omitted: u64) -> Self {
        Self {
            listed: listed.into_iter().collect(),
            omitted,
            omitted_of_report: BTreeSet::new(),
        }
    }

    /// The consumers that are kept, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&ConsumerKey, &Consumer)> {
        self.listed.iter()
    }

    /// How many others were observed, at least.
    pub fn omitted(&self) -> u64 {
        self.omitted
    }

    /// Adds an observation of a consumer.
    pub(super) fn insert(&mut self, key: ConsumerKey, seen: Consumer) {
        if let Some(known) = self.listed.get_mut(&key) {
            let first_observed = known.first_observed.min(seen.first_observed);
            if seen.rank() > known.rank() {
                *known = seen;
            }
            known.first_observed = first_observed;
            return;
        }
        self.listed.insert(key, seen);
        if self.listed.len() > MAX_CONSUMERS
            && let Some((omitted, _)) = self.listed.pop_last()
            && self.omitted_of_report.len() < MAX_COUNTED
        {
            let mut hasher = DefaultHasher::new();
            omitted.hash(&mut hasher);
            self.omitted_of_report.insert(hasher.finish());
        }
    }

    /// Ends the observations of one report.
    pub(super) fn end_report(&mut self) {
        let omitted_of_report = std::mem::take(&mut self.omitted_of_report);
        self.omitted = self.omitted.max(omitted_of_report.len() as u64);
    }
}
