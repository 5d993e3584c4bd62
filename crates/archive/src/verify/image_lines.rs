//! Checks the lines of a target's AMIs, and derives each verdict again.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::image_facts::{ImageFacts, ImageUses, left_out, misquoted};
use super::keys::object_key;
use super::problem::{is_bounded_by, unless};
use super::snapshot::is_as_written;
use crate::documents::{
    AUDITOR_VERSION, ImageCounts, ImageLine, ImageReading, LedgerLine, MAX_REFERENCES, References,
    Snapshot, TargetStatus,
};
use crate::domain::findings::{ListedFindings, UsagePolicy};
use crate::domain::report_key::ReportKey;
use crate::domain::target::Target;
use crate::domain::timestamp::Timestamp;
use crate::domain::usage::{
    Coverage, ImageUsage, LAUNCHES, MAX_CONSUMERS, REFERENCES, ReferencesLook, Verdict,
};
use crate::layout::{Layout, ObjectKind};
use crate::named_object::LineCheck;

/// The run that an images object is of, and what its other objects say.
pub(super) struct OfRun<'a> {
    pub(super) target: &'a Target,
    pub(super) snapshot: &'a Snapshot,
    pub(super) ledger: &'a LedgerLine,
    /// The layout of the object's own key.
    pub(super) layout: Layout,
    /// What the reports say; `None` if they are not sound.
    pub(super) facts: Option<&'a ImageFacts>,
    /// What the entries say; `None` if they are not sound.
    pub(super) uses: Option<&'a ImageUses>,
}

/// What is kept of the line of an AMI.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownImage {
    pub(super) verdict: Verdict,
    pub(super) first_observed: Option<Timestamp>,
    pub(super) last_observed: Option<Timestamp>,
}

/// Reports whose entries were read, by the entries object that a line names.
pub(super) type ObservedByKey = BTreeMap<String, BTreeMap<ReportKey, String>>;

pub(super) struct ImageLines<'a> {
    run: &'a OfRun<'a>,
    policy: Option<&'a UsagePolicy>,
    pub(super) counts: ImageCounts,
    /// The AMIs that are not covered.
    pub(super) findings: ListedFindings,
    /// How many AMIs were read themselves.
    read: u64,
    pub(super) known: BTreeMap<String, KnownImage>,
    /// The reports that lines say were read, by the entries object that they name.
    pub(super) observed: ObservedByKey,
    buffer: Vec<u8>,
}

impl<'a> ImageLines<'a> {
    pub(super) fn new(run: &'a OfRun<'a>) -> Self {
        Self {
            run,
            policy: run.snapshot.scope.usage_policy(&run.snapshot.policy),
            counts: ImageCounts::default(),
            findings: ListedFindings::default(),
            read: 0,
            known: BTreeMap::new(),
            observed: BTreeMap::new(),
            buffer: Vec::new(),
        }
    }

    /// The reports of a target that was read to its end say everything about its AMIs.
    fn is_target_read(&self) -> bool {
        self.run.ledger.status == TargetStatus::Complete
    }

    /// Checks that the entries that a line relies on are named by keys of the target.
    fn check_keys(&mut self, line: &ImageLine) -> Result<(), String> {
        for report in &line.observed_reports {
            let key = &report.entries_key;
            if !self.observed.contains_key(key) {
                let is_right = object_key(key).is_some_and(|(layout, object)| {
                    layout == self.run.layout
                        && object.kind == ObjectKind::Entries
                        && object.target == *self.run.target
                });
                if !is_right {
                    return Err(format!(
                        "names {key} for entries, which is not a key of {}",
                        self.run.target
                    ));
                }
            }
            let observed = self.observed.entry(key.clone()).or_default();
            let report_key = ReportKey::of(&report.report_id);
            observed
                .entry(report_key)
                .or_insert_with(|| report.report_id.clone());
        }
        Ok(())
    }

    /// Derives the line again from what it says was read, by the rules of this version.
    fn check_rules(&self, line: &ImageLine, usage: &ImageUsage) -> Result<(), String> {
        let Some(policy) = self.policy else {
            return Ok(());
        };
        let image_id = &line.image_id;
        if let Some(field) = contradiction(line, usage, policy, self.run.snapshot.started_at) {
            return Err(format!(
                "contradicts itself about {image_id}: its {field} does not agree with the rest"
            ));
        }
        let read = self.reading(line, policy);
        let derived = ImageLine::new(self.run.target, image_id.clone(), usage, read);
        match difference(line, &derived) {
            None => Ok(()),
            Some(what) => Err(format!("is not what the rules give for {image_id}: {what}")),
        }
    }

    fn reading(&self, line: &ImageLine, policy: &UsagePolicy) -> ImageReading {
        let images = self.run.ledger.images.as_ref();
        ImageReading {
            started_at: self.run.snapshot.started_at,
            observation_days: policy.observation_days,
            is_target_read: self.is_target_read(),
            are_images_read: images.is_some_and(|images| images.images_read.is_some()),
            image: line.image.clone(),
            reports: line.reports.clone(),
            references_look: match (policy.image_references, line.references_checked) {
                (false, _) => ReferencesLook::NotWanted,
                (true, false) => ReferencesLook::NotChecked,
                (true, true) => ReferencesLook::Checked,
            },
            references: References {
                listed: line.references.iter().cloned().collect(),
                omitted: line.references_omitted,
            },
            coverage_rules: self.run.snapshot.policy.coverage_rules(policy),
        }
    }

    /// Compares the line with the reports and entries of its run.
    fn check_facts(&self, line: &ImageLine, usage: &ImageUsage) -> Result<(), String> {
        let Some(facts) = self.run.facts else {
            return Ok(());
        };
        let image_id = &line.image_id;
        let reports = facts.of_image(image_id);
        let uses = self.run.uses.and_then(|uses| uses.of_image(image_id));
        if self.is_target_read() {
            let listed = reports.map(|reports| reports.listed.clone());
            if line.reports != listed.unwrap_or_default().summary() {
                return Err(format!(
                    "sums up other reports about {image_id} than its run archived"
                ));
            }
            let read = reports.map(|reports| &reports.observed);
            let started_at = self.run.snapshot.started_at;
            let mut left_out = read
                .into_iter()
                .chain(uses)
                .filter_map(|read| left_out(usage, read, started_at));
            if let Some(field) = left_out.next() {
                return Err(format!(
                    "leaves out of the {field} of {image_id} what its run read"
                ));
            }
        }
        let entries_object = self.run.ledger.entries_object.as_ref();
        let entries_key = entries_object
            .filter(|_| self.run.uses.is_some())
            .map(|object| object.key.as_str());
        match entries_key.and_then(|key| misquoted(line, key, reports, uses)) {
            None => Ok(()),
            Some(report_id) => Err(format!(
                "cites {report_id} for {image_id}, which does not say so"
            )),
        }
    }

    /// Describes what is missing once every line is read.
    pub(super) fn missing(&self, run: &OfRun<'_>) -> Vec<String> {
        let images = run.ledger.images.as_ref();
        let said = images.and_then(|images| images.images_read);
        let read = self.read;
        let facts = run.facts.filter(|_| self.is_target_read());
        let without_line = facts
            .into_iter()
            .flat_map(ImageFacts::image_ids)
            .filter(|image_id| !self.known.contains_key(*image_id))
            .min();
        let problems = [
            unless(said.is_none_or(|said| said == read), || {
                let said = said.unwrap_or(0);
                format!("has {read} AMIs that were read; the ledger counts {said}")
            }),
            without_line
                .map(|image_id| format!("has no line for {image_id}, which a report names")),
        ];
        problems.into_iter().flatten().collect()
    }

    fn count(&mut self, line: ImageLine) {
        self.counts.add(line.verdict, line.coverage);
        if let Some(policy) = self.policy
            && line.coverage == Some(Coverage::Uncovered)
        {
            let read = self.reading(&line, policy);
            let finding = read.uncovered(self.run.target, &line.image_id);
            finding
                .into_iter()
                .for_each(|one| self.findings.insert(one));
        }
        self.read += u64::from(line.image.is_some());
        let known = KnownImage {
            verdict: line.verdict,
            first_observed: line.first_observed,
            last_observed: line.last_observed,
        };
        self.known.insert(line.image_id, known);
    }
}

impl LineCheck for ImageLines<'_> {
    fn check(&mut self, line: &[u8]) -> Result<(), String> {
        let read: ImageLine = serde_json::from_slice(line)
            .map_err(|error| format!("is not the line of an AMI: {error}"))?;
        let target = self.run.target;
        let is_of_target = (&read.account_id, &read.region) == (&target.account_id, &target.region);
        if !is_of_target || !is_as_written(line, &read, &mut self.buffer) {
            return Err(format!(
                "is not in the form that the auditor writes for an AMI of {target}"
            ));
        }
        let image_id = &read.image_id;
        let last = self.known.last_key_value();
        if last.is_some_and(|(last, _)| last >= image_id) {
            return Err(format!("has {image_id} out of order or for a second time"));
        }
        if let Some(field) = unbounded(&read) {
            return Err(format!(
                "has {field} of {image_id} out of order, listed twice, or wrongly omitted"
            ));
        }
        self.check_keys(&read)?;
        if self.run.snapshot.auditor.version == AUDITOR_VERSION {
            let usage = read.usage();
            self.check_rules(&read, &usage)?;
            self.check_facts(&read, &usage)?;
        }
        self.count(read);
        Ok(())
    }
}

/// Returns the list of a line that is not in order or not of the right length.
fn unbounded(line: &ImageLine) -> Option<&'static str> {
    let ImageLine {
        consumers,
        consumers_omitted,
        references,
        references_omitted,
        sources,
        observed_reports,
        ..
    } = line;
    let is_right = [
        (
            "consumers",
            consumers.is_sorted_by(|a, b| {
                (&a.consumer_account_id, &a.resource_type)
                    < (&b.consumer_account_id, &b.resource_type)
            }) && is_bounded_by(MAX_CONSUMERS, consumers.len(), *consumers_omitted),
        ),
        (
            "references",
            references.is_sorted_by(|a, b| a < b)
                && is_bounded_by(MAX_REFERENCES, references.len(), *references_omitted),
        ),
        ("sources", sources.is_sorted_by(|a, b| a.source < b.source)),
        (
            "observed_reports",
            observed_reports.is_sorted_by(|a, b| {
                (a.creation_time, &a.report_id) < (b.creation_time, &b.report_id)
            }),
        ),
    ];
    let wrong = is_right.into_iter().find(|(_, holds)| !holds);
    wrong.map(|(field, _)| field)
}

/// Returns the field of a line that cannot be, given the others: what a run adds, it adds to each of them.
fn contradiction(
    line: &ImageLine,
    usage: &ImageUsage,
    policy: &UsagePolicy,
    started_at: Timestamp,
) -> Option<&'static str> {
    let last_of = |name: &str| {
        usage
            .sources
            .get(name)
            .and_then(|source| source.last_observed)
    };
    let last = usage.sources.values().map(|source| source.last_observed);
    let times = (usage.first_observed, usage.last_observed);
    let launched = line
        .image
        .as_ref()
        .and_then(|image| image.last_launched_time);
    let has_references = !line.references.is_empty();
    let is_found = last_of(REFERENCES) == Some(started_at);
    let mut linked = usage.clone();
    if let Some(((oldest, _), _)) = usage.observed.iter().next() {
        // Nothing is forgotten at the time of the oldest report: only the links are made again.
        linked.settle(*oldest);
    }
    let checks = [
        ("last_observed", last.max().flatten() == usage.last_observed),
        (
            "first_observed",
            match times {
                (Some(first), Some(last)) => first <= last,
                (first, last) => first == last,
            },
        ),
        ("as_of", usage.as_of >= usage.last_observed),
        ("consumers", are_consumers_observed(line, usage)),
        ("observed_reports", linked.observed == usage.observed),
        ("image", last_of(LAUNCHES) >= launched),
        (
            "references",
            has_references == is_found && (policy.image_references || !has_references),
        ),
    ];
    let wrong = checks.into_iter().find(|(_, holds)| !holds);
    wrong.map(|(field, _)| field)
}

/// Whether each consumer is from a report that was read, and counts as a use.
fn are_consumers_observed(line: &ImageLine, usage: &ImageUsage) -> bool {
    line.consumers.iter().all(|one| {
        let source = one.resource_type.as_deref().unwrap_or_default();
        let source = usage.sources.get(source);
        let mut observed = line.observed_reports.iter();
        one.first_observed <= one.last_observed
            && usage.first_observed <= Some(one.first_observed)
            && source.is_some_and(|source| source.last_observed >= Some(one.last_observed))
            && one.usage_count.is_none_or(|count| count > 0)
            && observed.any(|report| {
                (report.creation_time, &report.report_id) == (one.last_observed, &one.report_id)
            })
    })
}

/// Describes how a line differs from the one that was derived.
fn difference(line: &ImageLine, derived: &ImageLine) -> Option<String> {
    if line == derived {
        return None;
    }
    if line.verdict != derived.verdict {
        let (said, found) = (line.verdict.as_str(), derived.verdict.as_str());
        return Some(format!("it says {said}, and they give {found}"));
    }
    let fields = |line: &ImageLine| match serde_json::to_value(line) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let derived = fields(derived);
    let differs = fields(line)
        .into_iter()
        .filter(|(name, value)| derived.get(name) != Some(value));
    let names: Vec<String> = differs.map(|(name, _)| name).collect();
    Some(format!("it differs in {}", names.join(", ")))
}
