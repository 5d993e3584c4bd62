//! The lines of AMIs that runs carry on, for the small archive.

use image_usage_archive::documents::{
    ArchivedObject, ChangeTally, ImageCounts, ImageFields, ImageLine, ImageReading, ImagesLedger,
    References,
};
use image_usage_archive::domain::findings::{ListedFindings, Policy, UsagePolicy};
use image_usage_archive::domain::report::{
    ReportState, ResourceType, ResourceTypeOption, UsageReport,
};
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::domain::usage::{
    ConsumerKey, ImageUsage, KNOWN_RESOURCE_TYPES, ReferencesLook, ReportLook, ReportsListed,
    Verdict,
};

use crate::archive::entry;

pub(crate) const USAGE: UsagePolicy = UsagePolicy {
    observation_days: 30,
    images: true,
    image_references: false,
    image_tag: None,
    renew_reports: false,
    renew_after_days: 7,
};

/// The AMI that every report is about, and one that no report is about: it is gone in the second run.
pub(crate) const IN_USE: &str = "ami-0abcdef1234567890";
pub(crate) const GOING: &str = "ami-0fffffffffffffff0";

/// What an adequate report covers.
pub(crate) fn adequate_types() -> Vec<ResourceType> {
    let covered = |name: &str| ResourceType {
        resource_type: Some(name.to_owned()),
        options: vec![ResourceTypeOption {
            name: Some("version-depth".to_owned()),
            values: vec!["10000".to_owned()],
        }],
    };
    KNOWN_RESOURCE_TYPES.map(covered).into()
}

/// The lines of the last run.
#[derive(Default)]
pub(crate) struct ImagesOfRuns(Vec<ImageLine>);

pub(crate) struct ImagesOfRun {
    pub(crate) lines: Vec<u8>,
    pub(crate) count: u64,
    pub(crate) counts: ImageCounts,
    pub(crate) changes: Option<ChangeTally>,
    pub(crate) findings: ListedFindings,
    read: u64,
}

impl ImagesOfRun {
    pub(crate) fn ledger(&self, object: ArchivedObject) -> ImagesLedger {
        ImagesLedger {
            images_read: Some(self.read),
            images_error: None,
            references_error: None,
            images_object: Some(object),
            renewals: None,
        }
    }
}

impl ImagesOfRuns {
    /// Adds a run that has read these reports, and the one entry of each available one.
    pub(crate) fn add_run(
        &mut self,
        (target, started_at, reports): (&Target, Timestamp, &[UsageReport]),
        policy: &Policy,
        entries_key: &str,
        compares: bool,
    ) -> ImagesOfRun {
        let mut usages = [IN_USE, GOING].map(|image_id| {
            let before = self.0.iter().find(|line| line.image_id == image_id);
            before.map(ImageLine::usage).unwrap_or_default()
        });
        let mut listed = ReportsListed::default();
        for report in reports {
            let is_available = report.state == Some(ReportState::Available);
            listed.add(report, is_available);
            if is_available {
                let look = ReportLook::of(report).unwrap();
                observe(&mut usages[0], &look, entries_key, started_at);
            }
        }
        let exist = [true, !compares];
        let lists = [listed, ReportsListed::default()];
        let mut changes = ChangeTally::default();
        let mut counts = ImageCounts::default();
        let mut findings = ListedFindings::default();
        let mut lines = Vec::new();
        for (((image_id, mut usage), exists), reports) in [IN_USE, GOING]
            .into_iter()
            .zip(usages)
            .zip(exist)
            .zip(lists)
        {
            if exists {
                usage.observe_launches(None, started_at);
            }
            usage.settle(started_at);
            let read = ImageReading {
                started_at,
                observation_days: USAGE.observation_days,
                is_target_read: true,
                are_images_read: true,
                image: exists.then(ImageFields::default),
                reports,
                references_look: ReferencesLook::NotWanted,
                references: References::default(),
                coverage_rules: policy.coverage_rules(&USAGE),
            };
            let uncovered = read.uncovered(target, image_id);
            uncovered.into_iter().for_each(|one| findings.insert(one));
            let line = ImageLine::new(target, image_id.to_owned(), &usage, read);
            counts.add(line.verdict, line.coverage);
            lines.push(line);
        }
        let was_there = self
            .0
            .last()
            .is_some_and(|line| line.verdict != Verdict::Gone);
        if compares && was_there {
            changes.add_changed_verdict(target, GOING, Verdict::Unknown, Verdict::Gone);
        }
        self.0.clone_from(&lines);
        ImagesOfRun {
            count: lines.len() as u64,
            read: exist.into_iter().filter(|exists| *exists).count() as u64,
            lines: written(&lines),
            counts,
            findings,
            changes: compares.then_some(changes),
        }
    }
}

fn observe(usage: &mut ImageUsage, look: &ReportLook, entries_key: &str, started_at: Timestamp) {
    let entry = entry();
    let consumer = ConsumerKey {
        consumer_account_id: entry.consumer_account_id,
        resource_type: entry.resource_type,
    };
    usage.observe_report(look, entries_key, started_at);
    usage.observe_use(look, consumer, entry.usage_count, started_at);
    usage.end_report();
}

/// The lines as an object has them.
pub(crate) fn written(lines: &[ImageLine]) -> Vec<u8> {
    let mut written = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut written, line).unwrap();
        written.push(b'\n');
    }
    written
}
