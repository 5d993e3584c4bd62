//! What a page shows of a run's lines: counts, and the first of each list.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::AddAssign;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::expirations::Expirations;
use super::image_line::{ConsumerLine, ImageLine};
use crate::domain::entries_status::EntriesStatus;
use crate::domain::findings::Policy;
use crate::domain::target::{AccountId, Region};
use crate::domain::timestamp::Timestamp;
use crate::domain::top_list::TopList;
use crate::domain::usage::{LAUNCHES, Observation, Reason, Verdict};
use crate::domain::visible::shortened;

/// How many AMIs a list keeps: more than anybody reads on a page.
pub(crate) const MAX_KEPT: usize = 25;

/// How many consumers of an AMI are named.
const MAX_CONSUMERS: usize = 3;

/// How much of a text is kept: more than the longest name of an AMI, which has 128 characters.
const MAX_CHARACTERS: usize = 160;

/// What a page shows of the lines of a run, in bounded memory.
///
/// Lines are added one at a time, in any order; the contents of several targets are added up.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PageContents {
    started_at: Timestamp,
    policy: Policy,
    pub(crate) in_use: TopList<UsedImage, MAX_KEPT>,
    pub(crate) quiet: TopList<QuietImage, MAX_KEPT>,
    pub(crate) unclear: TopList<UnclearImage, MAX_KEPT>,
    pub(crate) uncovered: TopList<UncoveredImage, MAX_KEPT>,
    /// How many AMIs each reason keeps from `no_use_observed`.
    pub(crate) reasons: BTreeMap<Reason, u64>,
    pub(crate) expirations: Expirations,
}

/// An AMI, as people name it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ImageName {
    pub(crate) account_id: AccountId,
    pub(crate) region: Region,
    pub(crate) image_id: String,
    pub(crate) name: Option<String>,
}

/// An AMI in use: those with the most uses first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct UsedImage {
    /// The sum of the counts of all consumers that are still observed.
    #[schemars(with = "u64")]
    pub(crate) uses: Reverse<u64>,
    pub(crate) image: ImageName,
    /// How many consumers are still observed.
    pub(crate) consumers: u64,
    /// The largest of them.
    pub(crate) largest: Vec<LargeConsumer>,
    /// How many resources of its own account refer to it.
    pub(crate) references: u64,
    pub(crate) last_launched: Option<Timestamp>,
    pub(crate) last_observed: Option<Timestamp>,
}

/// An account with one type of resource that uses an AMI.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LargeConsumer {
    #[schemars(with = "u64")]
    pub(crate) uses: Reverse<u64>,
    pub(crate) account_id: Option<String>,
    pub(crate) resource_type: Option<String>,
}

/// An AMI that nobody was observed to use: those observed for the longest time first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct QuietImage {
    pub(crate) since: Option<Timestamp>,
    pub(crate) image: ImageName,
    pub(crate) until: Option<Timestamp>,
    pub(crate) reports: u64,
    pub(crate) last_observed: Option<Timestamp>,
    pub(crate) public: bool,
}

/// An AMI whose verdict cannot say whether it is in use, and why: those that were used first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct UnclearImage {
    pub(crate) verdict: Verdict,
    pub(crate) image: ImageName,
    pub(crate) reasons: Vec<Reason>,
    pub(crate) last_observed: Option<Timestamp>,
}

/// An AMI that no recent report covers, and why.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct UncoveredImage {
    pub(crate) image: ImageName,
    pub(crate) message: String,
}

impl PageContents {
    /// The contents of a run at `started_at`, without a line yet.
    pub fn new(started_at: Timestamp, policy: Policy) -> Self {
        Self {
            expirations: Expirations::after(started_at),
            started_at,
            policy,
            in_use: TopList::default(),
            quiet: TopList::default(),
            unclear: TopList::default(),
            uncovered: TopList::default(),
            reasons: BTreeMap::new(),
        }
    }

    /// Adds a report by its expiration, in milliseconds since 1970, and where its entries are.
    pub fn add_report(&mut self, expiration_milliseconds: Option<i64>, entries: &EntriesStatus) {
        self.expirations.add(expiration_milliseconds, entries);
    }

    /// Adds the line of an AMI.
    pub fn add_image(&mut self, line: &ImageLine) {
        for reason in &line.reasons {
            *self.reasons.entry(*reason).or_default() += 1;
        }
        match line.verdict {
            Verdict::InUse => self.add_in_use(line),
            Verdict::NoUseObserved => self.quiet.insert(QuietImage::of(line)),
            Verdict::LastSeenInUse | Verdict::Unknown => {
                self.unclear.insert(UnclearImage::of(line));
            }
            Verdict::Gone => {}
        }
        let is_full = self.uncovered.last_if_full();
        if is_full.is_some_and(|last| last.image.is_before(line)) {
            return;
        }
        if let Some(finding) = line.uncovered(&self.policy, self.started_at) {
            self.uncovered.insert(UncoveredImage {
                image: ImageName::of(line),
                message: finding.message,
            });
        }
    }

    fn add_in_use(&mut self, line: &ImageLine) {
        let current = || line.consumers.iter().filter(|one| line.still_shows(one));
        let uses = current().map(count).fold(0, u64::saturating_add);
        // Most AMIs of a large account are not among the first: nothing of them is copied.
        if self
            .in_use
            .last_if_full()
            .is_some_and(|last| last.uses.0 > uses)
        {
            return;
        }
        let mut largest: Vec<LargeConsumer> = current().map(LargeConsumer::of).collect();
        largest.sort();
        let consumers = largest.len() as u64 + line.consumers_omitted;
        largest.truncate(MAX_CONSUMERS);
        let launches = line.sources.iter().find(|source| source.source == LAUNCHES);
        self.in_use.insert(UsedImage {
            uses: Reverse(uses),
            image: ImageName::of(line),
            consumers,
            largest,
            references: line.references.len() as u64 + line.references_omitted,
            last_launched: launches.and_then(|source| source.last_observed),
            last_observed: line.last_observed,
        });
    }
}

/// How many resources a consumer has; 0 if EC2 left it out.
fn count(consumer: &ConsumerLine) -> u64 {
    let count = consumer.usage_count.unwrap_or_default();
    count.try_into().unwrap_or_default()
}

fn kept(text: &str) -> String {
    shortened(text, MAX_CHARACTERS)
}

impl ImageName {
    fn of(line: &ImageLine) -> Self {
        let name = line.image.as_ref().and_then(|image| image.name.as_deref());
        Self {
            account_id: line.account_id.clone(),
            region: line.region.clone(),
            image_id: kept(&line.image_id),
            name: name.map(kept),
        }
    }

    fn is_before(&self, line: &ImageLine) -> bool {
        let this = (&self.account_id, &self.region, self.image_id.as_str());
        this < (&line.account_id, &line.region, line.image_id.as_str())
    }
}

impl LargeConsumer {
    fn of(consumer: &ConsumerLine) -> Self {
        Self {
            uses: Reverse(count(consumer)),
            account_id: consumer.consumer_account_id.as_deref().map(kept),
            resource_type: consumer.resource_type.as_deref().map(kept),
        }
    }
}

impl QuietImage {
    fn of(line: &ImageLine) -> Self {
        let Observation {
            since,
            until,
            reports,
        } = match line.observation {
            Some(series) => series,
            None => return Self::without_observation(line),
        };
        Self {
            since: Some(since),
            until: Some(until),
            reports,
            ..Self::without_observation(line)
        }
    }

    fn without_observation(line: &ImageLine) -> Self {
        let image = line.image.as_ref();
        Self {
            since: None,
            image: ImageName::of(line),
            until: None,
            reports: 0,
            last_observed: line.last_observed,
            public: image.and_then(|image| image.public) == Some(true),
        }
    }
}

impl UnclearImage {
    fn of(line: &ImageLine) -> Self {
        Self {
            verdict: line.verdict,
            image: ImageName::of(line),
            reasons: line.reasons.iter().copied().collect(),
            last_observed: line.last_observed,
        }
    }
}

impl AddAssign for PageContents {
    fn add_assign(&mut self, other: Self) {
        self.in_use += other.in_use;
        self.quiet += other.quiet;
        self.unclear += other.unclear;
        self.uncovered += other.uncovered;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.expirations += other.expirations;
    }
}
