//! Checks the lines of a target's reports, and derives counts and findings from them again.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::image_facts::ImageFacts;
use super::keys::layout_of;
use super::snapshot::is_as_written;
use crate::documents::{AUDITOR_VERSION, ArchivedLine, Counts, ReportLine, Snapshot};
use crate::domain::entries_status::EntriesStatus;
use crate::domain::findings::{self, Finding, FindingKind, ListedFindings};
use crate::domain::report::{ReportState, UsageReport};
use crate::domain::report_key::ReportKey;
use crate::domain::run_id::RunId;
use crate::domain::target::Target;
use crate::layout::{Layout, ObjectKind};
use crate::named_object::LineCheck;

/// The reports whose entries are in one entries object: the ID of each, and how many entries it has.
pub(super) type ClaimedReports = HashMap<ReportKey, (String, u64)>;

pub(super) struct ReportLines<'a> {
    target: &'a Target,
    snapshot: &'a Snapshot,
    /// The layout of the object's own key.
    layout: Layout,
    /// The AMIs of the snapshot's findings on reports about to expire: their reports are held, to find the
    /// ones that supersede them.
    images: HashSet<&'a str>,
    of_images: HashMap<String, Vec<UsageReport>>,
    seen: HashSet<ReportKey>,
    pub(super) counts: Counts,
    findings: ListedFindings,
    /// What the lines say about entries objects, by key and run.
    pub(super) claims: BTreeMap<(String, RunId), ClaimedReports>,
    /// What the lines say about AMIs; `None` in a run that gives no verdicts.
    pub(super) image_facts: Option<ImageFacts>,
    buffer: Vec<u8>,
}

impl<'a> ReportLines<'a> {
    pub(super) fn new(target: &'a Target, snapshot: &'a Snapshot, layout: Layout) -> Self {
        let is_going = |finding: &&Finding| {
            finding.is_about_expiry()
                && (&finding.account_id, &finding.region) == (&target.account_id, &target.region)
        };
        let going = snapshot.findings.iter().filter(is_going);
        Self {
            target,
            snapshot,
            layout,
            images: going
                .filter_map(|finding| finding.image_id.as_deref())
                .collect(),
            of_images: HashMap::new(),
            seen: HashSet::new(),
            counts: Counts::default(),
            findings: ListedFindings::default(),
            claims: BTreeMap::new(),
            image_facts: ImageFacts::of(snapshot),
            buffer: Vec::new(),
        }
    }

    /// Whether a report has the findings that the snapshot's policy gives; another version of the auditor
    /// may have had other rules.
    fn has_right_findings(&self, line: &ArchivedLine) -> bool {
        let Snapshot {
            started_at,
            policy,
            auditor,
            ..
        } = self.snapshot;
        let mut expected = findings::evaluate(&line.report, policy, *started_at);
        let is_available = line.report.state == Some(ReportState::Available);
        if findings::is_unarchived(is_available, expected, &line.entries) {
            expected.insert(FindingKind::Unarchived);
        }
        line.findings == expected || auditor.version != AUDITOR_VERSION
    }

    fn check_entries(
        &mut self,
        line: &ArchivedLine,
        report_key: Option<ReportKey>,
    ) -> Result<(), String> {
        if !agrees(line.report.state.as_ref(), &line.entries) {
            return Err("has an entries status that contradicts its state".to_owned());
        }
        let EntriesStatus::Archived { key, run_id, count } = &line.entries else {
            return Ok(());
        };
        let (Some(report_id), Some(report_key)) = (&line.report.report_id, report_key) else {
            return Err("names entries but has no report_id".to_owned());
        };
        let named = (key.clone(), run_id.clone());
        if !self.claims.contains_key(&named) {
            let layout = layout_of(key, ObjectKind::Entries, run_id, self.target);
            if layout.as_ref() != Some(&self.layout) {
                return Err(format!(
                    "names {key} for its entries, which is not a key of the run {run_id}"
                ));
            }
        }
        let reports = self.claims.entry(named).or_default();
        reports.insert(report_key, (report_id.clone(), *count));
        Ok(())
    }

    fn count(&mut self, line: ArchivedLine) {
        let ArchivedLine {
            report,
            findings,
            entries,
        } = line;
        let Snapshot {
            run_id,
            started_at,
            policy,
            ..
        } = self.snapshot;
        if let Some(facts) = &mut self.image_facts {
            facts.add(&report, &entries);
        }
        self.counts
            .add_report(report.state.as_ref(), findings, &entries, run_id);
        for kind in findings.iter() {
            let finding = Finding::new(kind, self.target, &report, &entries, policy, *started_at);
            self.findings.insert(finding);
        }
        if let Some(image_id) = &report.image_id
            && self.images.contains(image_id.as_str())
        {
            let of_image = self.of_images.entry(image_id.clone());
            of_image.or_default().push(report);
        }
    }

    /// Returns the findings, with the reports that supersede those about to expire.
    pub(super) fn into_findings(self) -> ListedFindings {
        let Self {
            of_images,
            mut findings,
            ..
        } = self;
        findings.update(|finding| {
            if !finding.is_about_expiry() {
                return;
            }
            let Some(reports) = finding.image_id.as_ref().and_then(|id| of_images.get(id)) else {
                return;
            };
            let is_it = |report: &&UsageReport| report.report_id == finding.report_id;
            let Some(old) = reports.iter().find(is_it) else {
                return;
            };
            let newer = reports
                .iter()
                .filter(|newer| findings::supersedes(newer, old));
            finding.superseded_by = newer
                .max_by(|a, b| findings::preference(a).cmp(&findings::preference(b)))
                .and_then(|by| by.report_id.clone());
        });
        findings
    }
}

/// Whether a report in this state can have this status of its entries.
fn agrees(state: Option<&ReportState>, entries: &EntriesStatus) -> bool {
    match entries {
        EntriesStatus::Archived { .. } | EntriesStatus::Failed { .. } => true,
        EntriesStatus::Pending { code: None } => state == Some(&ReportState::Pending),
        EntriesStatus::Pending { code: Some(_) } => state == Some(&ReportState::Available),
        EntriesStatus::NotAvailable => {
            !matches!(state, Some(ReportState::Available | ReportState::Pending))
        }
    }
}

impl LineCheck for ReportLines<'_> {
    fn check(&mut self, line: &[u8]) -> Result<(), String> {
        let read: ArchivedLine = serde_json::from_slice(line)
            .map_err(|error| format!("is not the line of a report: {error}"))?;
        let written = ReportLine::new(self.target, &read.report, read.findings, &read.entries);
        if !is_as_written(line, &written, &mut self.buffer) {
            return Err(format!(
                "is not in the form that the auditor writes for a report of {}",
                self.target
            ));
        }
        if !self.has_right_findings(&read) {
            return Err("has other findings than the snapshot's policy gives".to_owned());
        }
        let report_key = read.report.report_id.as_deref().map(ReportKey::of);
        if let Some(report_key) = report_key
            && !self.seen.insert(report_key)
        {
            return Err("is a duplicate of its report".to_owned());
        }
        self.check_entries(&read, report_key)?;
        self.count(read);
        Ok(())
    }
}
