//! A small archive, written through the public types of the documents.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use image_usage_archive::documents::{
    ArchivedObject, Baseline, Counts, EntryLine, LedgerLine, PreviousSnapshot, ReportFields,
    ReportLine, RunFacts, Scope, Snapshot, Tally, TargetOutcome, TargetStatus,
};
use image_usage_archive::domain::digest::sha256_hex;
use image_usage_archive::domain::entries_status::EntriesStatus;
use image_usage_archive::domain::findings::{Finding, ListedFindings, Policy, evaluate};
use image_usage_archive::domain::report::{ReportState, UsageEntry, UsageReport};
use image_usage_archive::domain::run_id::{Attempt, RunId};
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::layout::{Layout, ObjectKind};
use tempfile::TempDir;

use crate::images_of_runs::{ImagesOfRuns, USAGE, adequate_types};

pub(crate) const PREFIX: &str = "image-usage/";

/// An archive in a folder: one target, a run a day.
pub(crate) struct Archive {
    folder: TempDir,
    baseline: Option<Baseline>,
    pub(crate) head: String,
    images: Option<ImagesOfRuns>,
}

/// The objects of a run, by their keys from `v1/` on.
pub(crate) struct Run {
    pub(crate) snapshot: String,
    pub(crate) reports: String,
    pub(crate) entries: String,
    pub(crate) images: String,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            baseline: None,
            head: String::new(),
            images: None,
        }
    }

    /// An archive of two runs that give verdicts about AMIs.
    pub(crate) fn with_images() -> (Self, [Run; 2]) {
        let mut archive = Self::new();
        archive.give_verdicts();
        let runs = [archive.run(22), archive.run(23)];
        (archive, runs)
    }

    /// Lets the runs from now on give verdicts.
    pub(crate) fn give_verdicts(&mut self) {
        self.images = Some(ImagesOfRuns::default());
    }

    /// An archive of two runs.
    pub(crate) fn of_two_runs() -> (Self, [Run; 2]) {
        let mut archive = Self::new();
        let runs = [archive.run(22), archive.run(23)];
        (archive, runs)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn location(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn file(&self, key: &str) -> PathBuf {
        self.path().join(key)
    }

    pub(crate) fn write(&self, key: &str, bytes: &[u8]) {
        let path = self.file(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Archives the run of a day of November 2026.
    pub(crate) fn run(&mut self, day: u32) -> Run {
        let scheduled_at: Timestamp = format!("2026-11-{day}T06:00:00Z").parse().unwrap();
        let run_id = RunId::of_event(scheduled_at, &format!("event {day}"));
        let attempt = Attempt::from_bits(0x0bad_cafe);
        let layout: Layout = PREFIX.parse().unwrap();
        let target = Target {
            account_id: "111122223333".parse().unwrap(),
            region: "eu-west-1".parse().unwrap(),
        };
        let policy = Policy {
            expiry_window_days: 7,
            pending_limit_hours: 24,
            usage: self.images.as_ref().map(|_| USAGE),
        };
        let key = |kind| layout.object(kind, &run_id, attempt, scheduled_at, &target);
        let (reports, entries) = (key(ObjectKind::Reports), key(ObjectKind::Entries));
        let images_key = key(ObjectKind::Images);
        let (mut report_lines, mut entry_lines) = (Vec::new(), Vec::new());
        let (mut reports_read, mut changes) = (Vec::new(), None);
        let (mut counts, mut findings) = (Counts::default(), ListedFindings::default());
        for (number, state) in ["available", "error"].into_iter().enumerate() {
            let mut report = report(&format!("amiur-{day}-{number}"), state, scheduled_at);
            if self.images.is_some() {
                report.resource_types = adequate_types();
            }
            let status = match number {
                0 => EntriesStatus::Archived {
                    key: entries.clone(),
                    run_id: run_id.clone(),
                    count: 1,
                },
                _ => EntriesStatus::NotAvailable,
            };
            let kinds = evaluate(&report, &policy, scheduled_at);
            let fields = serde_json::to_vec(&ReportFields::new(&target, &report)).unwrap();
            ReportLine::write(&mut report_lines, &fields, kinds, &status).unwrap();
            if number == 0 {
                let entry = EntryLine::new(&target, &format!("amiur-{day}-0"), entry());
                serde_json::to_writer(&mut entry_lines, &entry).unwrap();
                entry_lines.push(b'\n');
            }
            counts.add_report(report.state.as_ref(), kinds, &status, &run_id);
            for kind in kinds.iter() {
                let finding = Finding::new(kind, &target, &report, &status, &policy, scheduled_at);
                findings.insert(finding);
            }
            reports_read.push(report);
        }
        counts.add_target(TargetStatus::Complete);
        let images = self.images.take().map(|mut before| {
            let run = (&target, scheduled_at, reports_read.as_slice());
            let mut of_run = before.add_run(run, &policy, &entries, self.baseline.is_some());
            let object = self.write_lines(&images_key, &of_run.lines, of_run.count);
            self.images = Some(before);
            counts.add_images(of_run.counts);
            findings += std::mem::take(&mut of_run.findings);
            changes = of_run.changes.take();
            of_run.ledger(object)
        });
        let ledger = LedgerLine {
            account_id: target.account_id.clone(),
            region: target.region.clone(),
            status: TargetStatus::Complete,
            pages: 1,
            reports: 2,
            error: None,
            object: Some(self.write_lines(&reports, &report_lines, 2)),
            images,
            entries_object: Some(self.write_lines(&entries, &entry_lines, 1)),
            earlier_objects: Vec::new(),
        };
        let mut tally = Tally::default();
        tally.add(TargetOutcome {
            ledger,
            counts,
            findings,
            changes,
        });
        let facts = RunFacts {
            run_id: run_id.clone(),
            scope: Scope {
                full: true,
                image_ids: Vec::new(),
                report_ids: Vec::new(),
                filters: Vec::new(),
                regions: Vec::new(),
                account_ids: Vec::new(),
            },
            scheduled_at,
            started_at: scheduled_at,
            policy,
        };
        let snapshot = Snapshot::new(facts, scheduled_at, tally, self.baseline.take());
        let bytes = snapshot.to_bytes().unwrap();
        let key = layout.snapshot(&run_id, scheduled_at);
        self.head = sha256_hex(&bytes);
        self.baseline = Some(Baseline {
            previous: PreviousSnapshot {
                run_id,
                key: key.clone(),
                sha256: self.head.clone(),
            },
            targets: [target].into(),
        });
        self.write("v1/latest.json", &bytes);
        let below = |key: &str| key.strip_prefix(PREFIX).unwrap().to_owned();
        self.write(&below(&key), &bytes);
        Run {
            snapshot: below(&key),
            reports: below(&reports),
            entries: below(&entries),
            images: below(&images_key),
        }
    }

    pub(crate) fn write_lines(&self, key: &str, lines: &[u8], count: u64) -> ArchivedObject {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(lines).unwrap();
        let bytes = encoder.finish().unwrap();
        self.write(key.strip_prefix(PREFIX).unwrap(), &bytes);
        ArchivedObject {
            key: key.to_owned(),
            version_id: None,
            sha256: sha256_hex(&bytes),
            bytes: bytes.len() as u64,
            lines: count,
        }
    }
}

fn report(id: &str, state: &str, now: Timestamp) -> UsageReport {
    UsageReport {
        report_id: Some(id.to_owned()),
        image_id: Some("ami-0abcdef1234567890".to_owned()),
        state: Some(ReportState::from(state)),
        creation_time: Some(now.plus_seconds(-86_400)),
        expiration_time: Some(now.plus_seconds(29 * 86_400)),
        ..UsageReport::default()
    }
}

pub(crate) fn entry() -> UsageEntry {
    UsageEntry {
        report_id: None,
        image_id: Some("ami-0abcdef1234567890".to_owned()),
        report_creation_time: None,
        consumer_account_id: Some("444455556666".to_owned()),
        resource_type: Some("ec2:Instance".to_owned()),
        usage_count: Some(3),
    }
}
