//! The report lines of a target: written, counted and compared in one pass.

use std::io;

use image_usage_archive::documents::PageContents;
use image_usage_archive::documents::{ArchivedObject, ChangeTally, Counts, ReportLine};
use image_usage_archive::domain::entries_status::EntriesStatus;
use image_usage_archive::domain::error_code::ErrorCode;
use image_usage_archive::domain::findings::{
    self, Finding, FindingKind, FindingSet, ListedFindings,
};
use image_usage_archive::domain::report::{ReportState, UsageReport};
use image_usage_archive::domain::target::Target;

use super::{history, images};
use crate::archive::lines_writer::{ArchiveError, LinesWriter, failed};
use crate::archive::previous::local_storage;
use crate::audit::run::Run;
use crate::audit::turns::Turns;
use crate::staging::{ImageFacts, ReportRecord, ReportRecords, StagedHead, StagedReports};

/// The archived lines of a target, and totals over them.
#[derive(Debug)]
pub(super) struct WrittenLines {
    pub(super) object: ArchivedObject,
    pub(super) counts: Counts,
    pub(super) findings: ListedFindings,
    pub(super) changes: Option<ChangeTally>,
    pub(super) page: PageContents,
}

/// Archives a line for each staged report. `rest` is the status of every available report whose entries are
/// not settled.
///
/// # Errors
/// Fails if the archive cannot be written.
pub(super) async fn archive(
    run: &Run,
    key: String,
    target: &Target,
    staged: &mut StagedReports,
    rest: &EntriesStatus,
    changes: Option<ChangeTally>,
) -> Result<WrittenLines, ArchiveError> {
    let mut writer = LinesWriter::new(run.bucket.clone(), key.clone());
    if !staged.is_small() {
        writer.claim_part();
    }
    let mut totals = Totals {
        run,
        target,
        counts: Counts::default(),
        findings: ListedFindings::default(),
        changes,
        page: run.page_contents(),
    };
    if let Err(error) = write_all(&mut totals, &mut writer, staged, rest).await {
        // If time runs out, the bucket's lifecycle rule removes the incomplete upload.
        let _ = run.deadline.limit_write(writer.abandon()).await;
        return Err(error);
    }
    let finished = run.deadline.limit_write(writer.finish()).await;
    let object = finished.map_err(failed("write", &run.bucket, &key))??;
    Ok(WrittenLines {
        object,
        counts: totals.counts,
        findings: totals.findings,
        changes: totals.changes,
        page: totals.page,
    })
}

async fn write_all(
    totals: &mut Totals<'_>,
    writer: &mut LinesWriter,
    staged: &mut StagedReports,
    rest: &EntriesStatus,
) -> Result<(), ArchiveError> {
    let run = totals.run;
    let local = |writer: &LinesWriter, error: io::Error| writer.failed(local_storage(error));
    let mut line = Vec::new();
    let read = staged.read_with_facts();
    let (mut reports, records, mut facts) = read.map_err(|error| local(writer, error))?;
    let mut turns = Turns::default();
    while let Some((head, fields)) = reports.next().map_err(|error| local(writer, error))? {
        let staged = StagedLine {
            record: records.get(&head.key),
            head,
            fields,
        };
        line.clear();
        totals
            .add_line(&mut line, &staged, records, rest, facts.as_deref_mut())
            .map_err(|error| local(writer, error))?;
        writer.push(&line);
        run.deadline.send_full_part(writer).await?;
        turns.count().await;
    }
    Ok(())
}

/// A staged report, and what is known of it.
struct StagedLine<'a> {
    head: StagedHead,
    record: ReportRecord,
    /// Its fields as JSON.
    fields: &'a [u8],
}

/// Totals over the lines of a target.
struct Totals<'a> {
    run: &'a Run,
    target: &'a Target,
    counts: Counts,
    findings: ListedFindings,
    changes: Option<ChangeTally>,
    page: PageContents,
}

impl Totals<'_> {
    /// Appends a report's line, and adds the report to the totals.
    fn add_line(
        &mut self,
        line: &mut Vec<u8>,
        staged: &StagedLine<'_>,
        records: &ReportRecords,
        rest: &EntriesStatus,
        facts: Option<&mut ImageFacts>,
    ) -> io::Result<()> {
        let StagedLine {
            head,
            record,
            fields,
        } = staged;
        let state = records.state(head).as_ref();
        let settled = record.entries(records);
        let entries = entries_status(state, head.is_named, settled, rest);
        let mut findings = head.findings;
        let is_available = state == Some(&ReportState::Available);
        if findings::is_unarchived(is_available, findings, &entries) {
            findings.insert(FindingKind::Unarchived);
        }
        let run_id = &self.run.facts.run_id;
        self.counts.add_report(state, findings, &entries, run_id);
        self.page.add_report(head.expiration_milliseconds, &entries);
        self.list_findings(head, fields, findings, &entries)?;
        if let Some(tally) = self.changes.as_mut().filter(|tally| tally.compares())
            && head.is_named
        {
            history::compare_report(tally, self.target, records, head, record, findings, fields)?;
        }
        if let (Some(facts), Some(look)) = (facts, head.look) {
            images::add_report(facts, look, fields, &entries)?;
        }
        ReportLine::write(line, fields, findings, &entries)?;
        Ok(())
    }

    /// Lists the findings of a report, unless the list is full of more urgent ones.
    fn list_findings(
        &mut self,
        head: &StagedHead,
        fields: &[u8],
        findings: FindingSet,
        entries: &EntriesStatus,
    ) -> io::Result<()> {
        let expires = head.expiration_milliseconds;
        let has_room = |kind: &_| !findings::is_below_cutoff(&self.findings, *kind, expires);
        let listed: FindingSet = findings.iter().filter(has_room).collect();
        if listed.is_empty() {
            return Ok(());
        }
        let facts = &self.run.facts;
        let report: UsageReport = serde_json::from_slice(fields)?;
        for kind in listed.iter() {
            self.findings.insert(Finding::new(
                kind,
                self.target,
                &report,
                entries,
                &facts.policy,
                facts.started_at,
            ));
        }
        Ok(())
    }
}

/// Where a report's entries are. `settled` is what is recorded of them; `rest` applies to every available
/// report of which nothing is recorded.
fn entries_status(
    state: Option<&ReportState>,
    is_named: bool,
    settled: Option<EntriesStatus>,
    rest: &EntriesStatus,
) -> EntriesStatus {
    match (state, settled) {
        (_, Some(settled)) => settled,
        (Some(ReportState::Pending), None) => EntriesStatus::Pending { code: None },
        (Some(ReportState::Available), None) if !is_named => EntriesStatus::Failed {
            code: ErrorCode::UnnamedReport.into(),
        },
        (Some(ReportState::Available), None) => rest.clone(),
        (_, None) => EntriesStatus::NotAvailable,
    }
}
