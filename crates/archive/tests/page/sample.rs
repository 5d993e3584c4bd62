//! Runs to draw pages of, made of the documents' public types.

use std::collections::BTreeSet;

use image_usage_archive::documents::PageContents;
use image_usage_archive::documents::{
    Baseline, ChangeTally, ConsumerLine, Counts, ImageCounts, ImageFields, ImageLine, ImagesLedger,
    LedgerLine, PreviousSnapshot, RunFacts, Scope, Snapshot, SourceLine, Tally, TargetError,
    TargetOutcome, TargetStatus,
};
use image_usage_archive::domain::digest::sha256_hex;
use image_usage_archive::domain::entries_status::EntriesStatus;
use image_usage_archive::domain::findings::{
    Finding, FindingKind, FindingSet, ListedFindings, Policy, UsagePolicy, evaluate, is_unarchived,
};
use image_usage_archive::domain::report::{ReportState, UsageReport};
use image_usage_archive::domain::run_id::RunId;
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::timestamp::{SECONDS_PER_DAY, Timestamp};
use image_usage_archive::domain::usage::{Coverage, Observation, Reason, ReportsListed, Verdict};
use image_usage_archive::page::{Place, render};

/// A run under way, as a test builds it.
pub(crate) struct Sample {
    facts: RunFacts,
    tally: Tally,
    contents: PageContents,
    baseline: Option<Baseline>,
    archive: String,
}

pub(crate) fn started_at() -> Timestamp {
    "2026-11-22T06:00:00Z".parse().unwrap()
}

pub(crate) fn before(days: i64) -> Timestamp {
    started_at().plus_seconds(-days * SECONDS_PER_DAY)
}

pub(crate) fn target(account_id: &str, region: &str) -> Target {
    Target {
        account_id: account_id.parse().unwrap(),
        region: region.parse().unwrap(),
    }
}

/// The ID of an AMI.
pub(crate) fn image_id(number: u64) -> String {
    format!("ami-{number:017x}")
}

/// The entries of a report that are archived.
pub(crate) fn archived() -> EntriesStatus {
    EntriesStatus::NotAvailable
}

/// The entries of a report that are not archived yet.
pub(crate) fn not_archived() -> EntriesStatus {
    EntriesStatus::Pending {
        code: Some("DeadlineExceeded".to_owned()),
    }
}

/// An available report about an AMI, created and expiring so many days from now.
pub(crate) fn report(number: u64, created_before: i64, expires_after: i64) -> UsageReport {
    UsageReport {
        report_id: Some(format!("amiur-{number:017x}")),
        image_id: Some(image_id(number)),
        state: Some(ReportState::Available),
        creation_time: Some(before(created_before)),
        expiration_time: Some(before(-expires_after)),
        ..UsageReport::default()
    }
}

/// The line of an AMI of which nothing is known yet.
pub(crate) fn image(target: &Target, number: u64, name: &str, verdict: Verdict) -> ImageLine {
    ImageLine {
        account_id: target.account_id.clone(),
        region: target.region.clone(),
        image_id: image_id(number),
        verdict,
        reasons: BTreeSet::new(),
        as_of: None,
        first_observed: None,
        last_observed: None,
        consumers: Vec::new(),
        consumers_omitted: 0,
        references: Vec::new(),
        references_omitted: 0,
        references_checked: false,
        image: Some(ImageFields {
            name: Some(name.to_owned()),
            ..ImageFields::default()
        }),
        reports: ReportsListed::default(),
        observation: None,
        sources: Vec::new(),
        observed_reports: Vec::new(),
        coverage: Some(Coverage::Covered),
    }
}

/// The same AMI with a consumer, observed yesterday.
#[must_use]
pub(crate) fn used_by(
    mut line: ImageLine,
    account_id: &str,
    resource_type: &str,
    count: i64,
) -> ImageLine {
    let (first, last) = (before(60), before(1));
    line.consumers.push(ConsumerLine {
        consumer_account_id: Some(account_id.to_owned()),
        resource_type: Some(resource_type.to_owned()),
        usage_count: Some(count),
        report_id: "amiur-00b877d192f6b02d0".to_owned(),
        first_observed: first,
        last_observed: last,
    });
    if line
        .sources
        .iter()
        .all(|source| source.source != resource_type)
    {
        line.sources.push(SourceLine {
            source: resource_type.to_owned(),
            last_observed: Some(last),
            covered_until: Some(last),
        });
    }
    line.first_observed = Some(first);
    line.last_observed = Some(last);
    line
}

/// The same AMI, observed for so many days without a use.
#[must_use]
pub(crate) fn observed_for(mut line: ImageLine, days: i64) -> ImageLine {
    line.observation = Some(Observation {
        since: before(days),
        until: before(1),
        reports: 1 + days.unsigned_abs() / 7,
    });
    line
}

/// The same AMI with what keeps it from a clear verdict.
#[must_use]
pub(crate) fn because<const N: usize>(mut line: ImageLine, reasons: [Reason; N]) -> ImageLine {
    line.reasons = reasons.into();
    line
}

/// The same AMI without a report that covers it.
#[must_use]
pub(crate) fn uncovered(mut line: ImageLine) -> ImageLine {
    line.coverage = Some(Coverage::Uncovered);
    line
}

impl Sample {
    pub(crate) fn new() -> Self {
        let usage = UsagePolicy {
            observation_days: 30,
            images: true,
            image_references: false,
            image_tag: None,
            renew_reports: false,
            renew_after_days: 7,
        };
        let policy = Policy {
            expiry_window_days: 7,
            pending_limit_hours: 24,
            usage: Some(usage),
        };
        let facts = RunFacts {
            run_id: RunId::of_event(started_at(), "7bf73129-1428-4cd3-a780-95db273d1602"),
            scope: Scope {
                full: true,
                image_ids: Vec::new(),
                report_ids: Vec::new(),
                filters: Vec::new(),
                regions: Vec::new(),
                account_ids: Vec::new(),
            },
            scheduled_at: started_at(),
            started_at: started_at(),
            policy,
        };
        Self {
            contents: PageContents::new(facts.started_at, facts.policy.clone()),
            facts,
            tally: Tally::default(),
            baseline: None,
            archive: "s3://my-bucket/image-usage/".to_owned(),
        }
    }

    /// A run of these Regions instead of a full one.
    pub(crate) fn scoped_to(mut self, regions: &[&str]) -> Self {
        self.facts.scope.full = false;
        self.facts.scope.regions = regions.iter().map(|name| name.parse().unwrap()).collect();
        self
    }

    /// A run whose archive is elsewhere.
    pub(crate) fn stored_in(mut self, archive: &str) -> Self {
        self.archive = archive.to_owned();
        self
    }

    /// A run that is compared with another one of these targets.
    pub(crate) fn compared_with(mut self, targets: &[&Target]) -> Self {
        let run_id = RunId::of_event(before(1), "yesterday");
        self.baseline = Some(Baseline {
            previous: PreviousSnapshot {
                key: format!("image-usage/v1/snapshots/dt=2026-11-21/{run_id}.json"),
                run_id,
                sha256: sha256_hex(b"yesterday"),
            },
            targets: targets.iter().map(|target| (*target).clone()).collect(),
        });
        self
    }

    /// Adds a target that was read.
    pub(crate) fn read(
        &mut self,
        target: &Target,
        images: &[ImageLine],
        reports: &[(UsageReport, EntriesStatus)],
        changes: Option<ChangeTally>,
    ) {
        let mut counts = Counts::default();
        let mut findings = ListedFindings::default();
        counts.add_target(TargetStatus::Complete);
        for (report, entries) in reports {
            let kinds = self.findings_about(report, entries);
            counts.add_report(report.state.as_ref(), kinds, entries, &self.facts.run_id);
            let (policy, now) = (&self.facts.policy, self.facts.started_at);
            for kind in kinds.iter() {
                findings.insert(Finding::new(kind, target, report, entries, policy, now));
            }
            let expiration = report.expiration_time.map(Timestamp::unix_milliseconds);
            self.contents.add_report(expiration, entries);
        }
        let mut of_images = ImageCounts::default();
        if self.facts.scope.full {
            for line in images {
                of_images.add(line.verdict, line.coverage);
                self.contents.add_image(line);
                let (policy, now) = (&self.facts.policy, self.facts.started_at);
                if let Some(finding) = line.uncovered(policy, now) {
                    findings.insert(finding);
                }
            }
            counts.add_images(of_images);
        }
        let ledger = ImagesLedger {
            images_read: Some(images.len() as u64),
            ..ImagesLedger::default()
        };
        self.tally.add(TargetOutcome {
            ledger: LedgerLine {
                account_id: target.account_id.clone(),
                region: target.region.clone(),
                status: TargetStatus::Complete,
                pages: 1,
                reports: reports.len() as u64,
                error: None,
                object: None,
                entries_object: None,
                images: Some(ledger),
                earlier_objects: Vec::new(),
            },
            counts,
            findings,
            changes,
        });
    }

    /// Adds a target that was not read.
    pub(crate) fn unread(&mut self, target: &Target, code: &str, message: &str) {
        let error = TargetError {
            code: code.to_owned(),
            message: message.to_owned(),
            request_id: None,
        };
        let status = TargetStatus::Failed;
        self.tally
            .add(TargetOutcome::unread(target.clone(), status, error));
    }

    /// The snapshot, and the page.
    pub(crate) fn finish(self) -> (Snapshot, String) {
        let finished_at = self.facts.started_at.plus_seconds(12);
        let snapshot = Snapshot::new(self.facts, finished_at, self.tally, self.baseline);
        let place = Place {
            archive: self.archive,
            snapshot_sha256: sha256_hex(snapshot.to_bytes().unwrap()),
        };
        let html = render(&snapshot, &self.contents, &place);
        (snapshot, html)
    }

    fn findings_about(&self, report: &UsageReport, entries: &EntriesStatus) -> FindingSet {
        let mut kinds = evaluate(report, &self.facts.policy, self.facts.started_at);
        let is_available = report.state == Some(ReportState::Available);
        if is_unarchived(is_available, kinds, entries) {
            kinds.insert(FindingKind::Unarchived);
        }
        kinds
    }
}
