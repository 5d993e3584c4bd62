//! One AMI as a line of an images object: who uses it, and what is not known about it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::findings::{Finding, Policy};
use crate::domain::report::Tags;
use crate::domain::target::{AccountId, Region, Target};
use crate::domain::timestamp::Timestamp;
use crate::domain::usage::{
    Consumer, ConsumerKey, Consumers, Coverage, CoverageRules, Covering, ImageLook, ImageUsage,
    Judgement, Look, Observation, ObservedReport, ObservedReports, Reason, ReferencesLook,
    ReportsListed, Source, Verdict, judge,
};

/// How many references of an AMI are listed; the rest are only counted.
pub const MAX_REFERENCES: usize = 100;

/// One AMI as a line of an images object.
///
/// Carried from run to run: what the run before knew, and what this run has read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ImageLine {
    /// The account that owns the AMI.
    pub account_id: AccountId,
    /// The Region of the AMI.
    pub region: Region,
    /// The AMI.
    pub image_id: String,
    /// What is known about its use.
    pub verdict: Verdict,
    /// What keeps the verdict from being `no_use_observed`, sorted; empty unless it is `last_seen_in_use` or
    /// `unknown`.
    pub reasons: BTreeSet<Reason>,
    /// Up to when anything is known: the last use, or the creation of the newest report that was read.
    pub as_of: Option<Timestamp>,
    /// When the first use was observed, from any source.
    pub first_observed: Option<Timestamp>,
    /// When the last use was observed, from any source.
    pub last_observed: Option<Timestamp>,
    /// The accounts that use or have used the AMI, by account and type, at most 1,000.
    pub consumers: Vec<ConsumerLine>,
    /// At least so many other consumers were observed.
    pub consumers_omitted: u64,
    /// The resources of the owner's account that refer to the AMI, as this run found them, at most 100.
    pub references: Vec<Reference>,
    /// How many other references this run found.
    pub references_omitted: u64,
    /// Whether this run read every reference.
    pub references_checked: bool,
    /// The AMI itself; `None` if it was not read, or does not exist.
    pub image: Option<ImageFields>,
    /// The reports about it that EC2 lists; for a target that was not read, those of its last reading.
    pub reports: ReportsListed,
    /// The latest uninterrupted series of adequate reports; `None` if none was read.
    pub observation: Option<Observation>,
    /// When each source showed use, by its name.
    pub sources: Vec<SourceLine>,
    /// The reports whose entries were read, as far as later runs or the consumers depend on them, oldest first.
    pub observed_reports: Vec<ObservedReportLine>,
    /// Whether an adequate report is recent, or on its way; `None` for an AMI that does not count: it was not
    /// read, or is gone, it lacks the tag of the settings, or the reports of the target were not read to their end.
    pub coverage: Option<Coverage>,
}

/// An account that uses or has used an AMI with one type of resource.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ConsumerLine {
    /// The account; `None` if EC2 left it out.
    pub consumer_account_id: Option<String>,
    /// The type of its resources; `None` if EC2 left it out.
    pub resource_type: Option<String>,
    /// How many of them use the AMI, by the last report that shows any; `None` if EC2 left it out.
    pub usage_count: Option<i64>,
    /// That report.
    pub report_id: String,
    /// The creation of the first report that shows any.
    pub first_observed: Timestamp,
    /// The creation of the last report that shows any.
    pub last_observed: Timestamp,
}

/// A resource of the owner's account that refers to an AMI.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Reference {
    /// Its type.
    pub resource_type: Option<String>,
    /// Its ARN.
    pub arn: Option<String>,
}

/// The AMI itself, as its owner sees it.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Image.html>
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ImageFields {
    /// Its name.
    pub name: Option<String>,
    /// Its state, verbatim.
    pub state: Option<String>,
    /// When it was created.
    pub creation_time: Option<Timestamp>,
    /// When an instance was launched from it for the last time; EC2 says so up to a day later.
    pub last_launched_time: Option<Timestamp>,
    /// Whether every account may launch it.
    pub public: Option<bool>,
    /// When EC2 deprecates it.
    pub deprecation_time: Option<Timestamp>,
    /// Whether it is protected from being deregistered, verbatim.
    pub deregistration_protection: Option<String>,
    /// The AMI that it is a copy of.
    pub source_image_id: Option<String>,
    /// Its tags, by key.
    pub tags: Tags,
}

/// When a source showed use of an AMI.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SourceLine {
    /// A resource type, `last_launched_time` or `references`; empty for a type that EC2 left out.
    pub source: String,
    /// When it showed use for the last time.
    pub last_observed: Option<Timestamp>,
    /// When it was looked at in full for the last time, whatever it showed.
    pub covered_until: Option<Timestamp>,
}

/// A report whose entries were read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ObservedReportLine {
    /// The report.
    pub report_id: String,
    /// Its creation; if EC2 left that out, the start of the run that read it.
    pub creation_time: Timestamp,
    /// The key of the object with its entries.
    pub entries_key: String,
    /// The first report of the series that it ends; `None` if it is not adequate, or nothing depends on it.
    pub series_since: Option<Timestamp>,
    /// The reports of that series.
    pub series_reports: Option<u64>,
}

/// The references to an AMI that a run found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct References {
    /// The first ones, in order.
    pub listed: BTreeSet<Reference>,
    /// How many others there are.
    pub omitted: u64,
}

/// What a run read of an AMI, besides what its usage carries.
#[derive(Clone, Debug)]
pub struct ImageReading {
    /// The run's start.
    pub started_at: Timestamp,
    /// How long no use must have been observed, in days.
    pub observation_days: u32,
    /// Whether the reports of the target were read to their end.
    pub is_target_read: bool,
    /// Whether every AMI of the target was read.
    pub are_images_read: bool,
    /// The AMI itself.
    pub image: Option<ImageFields>,
    /// The reports about it that EC2 lists.
    pub reports: ReportsListed,
    /// Whether references are wanted and were read, and those that were found.
    pub references_look: ReferencesLook,
    /// Those that were found.
    pub references: References,
    /// The rules of coverage.
    pub coverage_rules: CoverageRules,
}

impl ImageReading {
    /// Whether the AMI is covered, and why not; `None` for one that does not count.
    pub fn covering(&self) -> Option<Covering> {
        let rules = &self.coverage_rules;
        let image = self.image.as_ref().filter(|_| self.is_target_read)?;
        let counts = rules.image_tag.as_ref();
        let counts = counts.is_none_or(|tag| tag.is_among(&image.tags));
        counts.then(|| rules.evaluate(&self.reports, self.started_at))
    }

    /// The finding that the AMI is not covered.
    pub fn uncovered(&self, target: &Target, image_id: &str) -> Option<Finding> {
        let Some(Covering::Uncovered(gap)) = self.covering() else {
            return None;
        };
        let (tags, rules) = (&self.image.as_ref()?.tags, &self.coverage_rules);
        let finding = Finding::uncovered(target, image_id, tags, gap, rules, self.started_at);
        Some(finding)
    }

    /// Whether it is known if the AMI is covered: nothing says so of one that was not read, unless it is gone.
    pub fn is_coverage_known(&self) -> bool {
        self.is_target_read && (self.image.is_some() || self.are_images_read)
    }

    /// Gives the verdict.
    pub fn judge(&self, usage: &ImageUsage) -> Judgement {
        let look = Look {
            started_at: self.started_at,
            observation_days: self.observation_days,
            is_target_read: self.is_target_read,
            image: match &self.image {
                Some(image) => ImageLook::Read {
                    creation_time: image.creation_time,
                },
                None if self.are_images_read => ImageLook::Absent,
                None => ImageLook::NotRead,
            },
            reports: &self.reports,
            references: self.references_look,
        };
        judge(usage, &look)
    }
}

impl ImageLine {
    /// Makes the line of an AMI, with its verdict.
    pub fn new(target: &Target, image_id: String, usage: &ImageUsage, read: ImageReading) -> Self {
        let Judgement { verdict, reasons } = read.judge(usage);
        let coverage = read.covering().map(Coverage::from);
        let Target { account_id, region } = target.clone();
        Self {
            account_id,
            region,
            image_id,
            verdict,
            reasons,
            as_of: usage.as_of,
            first_observed: usage.first_observed,
            last_observed: usage.last_observed,
            consumers: usage.consumers.iter().map(ConsumerLine::from).collect(),
            consumers_omitted: usage.consumers.omitted(),
            references: read.references.listed.into_iter().collect(),
            references_omitted: read.references.omitted,
            references_checked: read.references_look == ReferencesLook::Checked,
            image: read.image,
            reports: read.reports.summary(),
            observation: usage.observed.latest(),
            sources: usage.sources.iter().map(SourceLine::from).collect(),
            observed_reports: usage
                .observed
                .iter()
                .map(ObservedReportLine::from)
                .collect(),
            coverage,
        }
    }

    /// What the line carries to the next run.
    pub fn usage(&self) -> ImageUsage {
        let sources = self.sources.iter().map(|line| {
            let SourceLine {
                source,
                last_observed,
                covered_until,
            } = line.clone();
            let times = Source {
                last_observed,
                covered_until,
            };
            (source, times)
        });
        let consumers = self.consumers.iter().cloned().map(ConsumerLine::into_parts);
        ImageUsage {
            first_observed: self.first_observed,
            last_observed: self.last_observed,
            as_of: self.as_of,
            sources: sources.collect(),
            consumers: Consumers::new(consumers, self.consumers_omitted),
            observed: ObservedReports::new(
                self.observed_reports
                    .iter()
                    .cloned()
                    .map(ObservedReportLine::into_parts),
            ),
        }
    }

    /// The finding that the AMI is not covered, for a run at `started_at`.
    pub fn uncovered(&self, policy: &Policy, started_at: Timestamp) -> Option<Finding> {
        if self.coverage != Some(Coverage::Uncovered) {
            return None;
        }
        let rules = policy.coverage_rules(policy.usage.as_ref()?);
        let Covering::Uncovered(gap) = rules.evaluate(&self.reports, started_at) else {
            return None;
        };
        let target = Target {
            account_id: self.account_id.clone(),
            region: self.region.clone(),
        };
        let (id, tags) = (&self.image_id, &self.image.as_ref()?.tags);
        Some(Finding::uncovered(
            &target, id, tags, gap, &rules, started_at,
        ))
    }

    /// Whether no later look in full has shown that a consumer no longer uses the AMI.
    pub fn still_shows(&self, consumer: &ConsumerLine) -> bool {
        let name = consumer.resource_type.as_deref().unwrap_or("");
        let source = self.sources.iter().find(|source| source.source == name);
        let covered_until = source.and_then(|source| source.covered_until);
        covered_until.is_none_or(|until| until <= consumer.last_observed)
    }

    /// The same line for a run at `started_at` that could not read its target.
    #[must_use]
    pub fn not_read_at(
        self,
        started_at: Timestamp,
        observation_days: u32,
        wants_references: bool,
    ) -> Self {
        let mut usage = self.usage();
        usage.settle(started_at);
        let target = Target {
            account_id: self.account_id,
            region: self.region,
        };
        let read = ImageReading {
            started_at,
            observation_days,
            is_target_read: false,
            are_images_read: false,
            image: None,
            reports: self.reports,
            references_look: match wants_references {
                true => ReferencesLook::NotChecked,
                false => ReferencesLook::NotWanted,
            },
            references: References::default(),
            // They apply to no AMI that was not read.
            coverage_rules: CoverageRules::default(),
        };
        Self::new(&target, self.image_id, &usage, read)
    }
}

impl From<(&ConsumerKey, &Consumer)> for ConsumerLine {
    fn from((key, consumer): (&ConsumerKey, &Consumer)) -> Self {
        let ConsumerKey {
            consumer_account_id,
            resource_type,
        } = key.clone();
        let Consumer {
            usage_count,
            report_id,
            first_observed,
            last_observed,
        } = consumer.clone();
        Self {
            consumer_account_id,
            resource_type,
            usage_count,
            report_id,
            first_observed,
            last_observed,
        }
    }
}

impl ConsumerLine {
    fn into_parts(self) -> (ConsumerKey, Consumer) {
        let key = ConsumerKey {
            consumer_account_id: self.consumer_account_id,
            resource_type: self.resource_type,
        };
        let consumer = Consumer {
            usage_count: self.usage_count,
            report_id: self.report_id,
            first_observed: self.first_observed,
            last_observed: self.last_observed,
        };
        (key, consumer)
    }
}

impl From<(&String, &Source)> for SourceLine {
    fn from((name, source): (&String, &Source)) -> Self {
        Self {
            source: name.clone(),
            last_observed: source.last_observed,
            covered_until: source.covered_until,
        }
    }
}

impl From<(&(Timestamp, String), &ObservedReport)> for ObservedReportLine {
    fn from(((at, report_id), report): (&(Timestamp, String), &ObservedReport)) -> Self {
        Self {
            report_id: report_id.clone(),
            creation_time: *at,
            entries_key: report.entries_key.clone(),
            series_since: report.series.map(|series| series.since),
            series_reports: report.series.map(|series| series.reports),
        }
    }
}

impl ObservedReportLine {
    fn into_parts(self) -> ((Timestamp, String), ObservedReport) {
        let series = self.series_since.zip(self.series_reports);
        let report = ObservedReport {
            entries_key: self.entries_key,
            series: series.map(|(since, reports)| Observation {
                since,
                until: self.creation_time,
                reports,
            }),
        };
        ((self.creation_time, self.report_id), report)
    }
}
