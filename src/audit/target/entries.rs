//! The entries of a target's reports: fetched once, by report ID, and archived grouped by report.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;

use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::{ArchivedObject, EntryLine};
use image_usage_archive::domain::entries_status::EntriesStatus;
use image_usage_archive::domain::error_code::ErrorCode;
use image_usage_archive::domain::report::{ReportState, UsageEntry};
use image_usage_archive::domain::target::Target;
use tokio::time::Instant;

use super::entry_groups::{EntryGroups, write_line};
use crate::archive::lines_writer::{ArchiveError, LinesWriter, failed};
use crate::archive::previous::local_storage;
use crate::audit::deadline::Unsent;
use crate::audit::run::Run;
use crate::aws::ec2::pagination::PageCursor;
use crate::aws::ec2::{MAX_IDS_PER_CALL, ReportQuery, UsageReports};
use crate::staging::{ReportToFetch, StagedReports};

/// How many reports are put in the order of their expiry at a time: about 3 MB of them. A target with more
/// has its staged reports searched again for the next ones.
const REPORTS_PER_ROUND: usize = 20_000;

/// After this many failed calls a target's other reports are left to the next run: enough to isolate one bad
/// report among 200 by bisection.
const MAX_FAILURES: u32 = 20;

/// After this many failed calls without a success, EC2 is not answering any.
const MAX_FIRST_FAILURES: u32 = 4;

/// The entries that this run has archived; the status of each report is recorded in the staged reports.
#[derive(Debug)]
pub(super) struct ArchivedEntries {
    /// The object with the entries that this run fetched; `None` if it fetched none.
    pub(super) object: Option<ArchivedObject>,
    /// The status of every available report that has none of its own.
    pub(super) rest: EntriesStatus,
}

/// Fetches and archives the entries of every available report whose entries are not settled yet, soonest
/// expiry first.
///
/// # Errors
/// Fails if the archive cannot be written. EC2 failures are recorded per report, or returned as the status of
/// the remaining reports.
pub(super) async fn archive(
    run: &Run,
    reports: &UsageReports,
    key: String,
    target: &Target,
    staged: &mut StagedReports,
) -> Result<ArchivedEntries, ArchiveError> {
    if !run.settings.archive_entries {
        let rest = pending(ErrorCode::EntriesNotWanted);
        return Ok(ArchivedEntries { object: None, rest });
    }
    let mut writer = EntriesWriter {
        run,
        target,
        writer: LinesWriter::new(run.bucket.clone(), key.clone()),
        unsent: run.deadline.unsent(),
    };
    let fetcher = EntryFetcher {
        reports,
        target,
        page_size: run.settings.page_size,
        stop_at: run.deadline.stop_entries_at(),
    };
    let rest = match fetch_all(&fetcher, &mut writer, staged).await {
        Ok(rest) => rest,
        Err(error) => {
            // If time runs out, the bucket's lifecycle rule removes the incomplete upload.
            let _ = run.deadline.limit_write(writer.writer.abandon()).await;
            return Err(error);
        }
    };
    if writer.writer.lines() == 0 {
        return Ok(ArchivedEntries { object: None, rest });
    }
    let finished = run.deadline.limit_write(writer.writer.finish()).await;
    let object = finished.map_err(failed("write", &run.bucket, &key))??;
    Ok(ArchivedEntries {
        object: Some(object),
        rest,
    })
}

/// Fetches and writes what there is to fetch. Returns the status of the reports that have none of their own.
async fn fetch_all(
    fetcher: &EntryFetcher<'_>,
    writer: &mut EntriesWriter<'_>,
    staged: &mut StagedReports,
) -> Result<EntriesStatus, ArchiveError> {
    let mut failures = Failures::default();
    loop {
        let round = staged.next_to_fetch(REPORTS_PER_ROUND);
        let round = round.map_err(|error| writer.local(error))?;
        if round.is_empty() {
            return Ok(EntriesStatus::Pending { code: None });
        }
        let batches = round.chunks(MAX_IDS_PER_CALL);
        let mut batches: VecDeque<Vec<ReportToFetch>> =
            batches.map(<[ReportToFetch]>::to_vec).collect();
        while let Some(batch) = batches.pop_front() {
            match fetcher.fetch(&batch).await {
                Ok(fetched) => {
                    failures.has_succeeded = true;
                    writer.write(staged, batch, fetched).await?;
                }
                Err(NotFetched::TimeUp) => return Ok(pending(ErrorCode::DeadlineExceeded)),
                Err(NotFetched::Failed(failure)) => {
                    let next = failures.next_step(batch, &failure);
                    for (report, status) in next.settled {
                        writer.settle(staged, &report, &status)?;
                    }
                    for again in next.first.into_iter().rev() {
                        batches.push_front(again);
                    }
                    batches.extend(next.last);
                    if next.gives_up {
                        log_not_fetched(writer, &failure);
                        return Ok(EntriesStatus::Failed { code: failure.code });
                    }
                }
            }
        }
    }
}

fn pending(code: ErrorCode) -> EntriesStatus {
    EntriesStatus::Pending {
        code: Some(code.into()),
    }
}

fn deleted() -> EntriesStatus {
    EntriesStatus::Failed {
        code: ErrorCode::ReportDeleted.into(),
    }
}

fn log_not_fetched(writer: &EntriesWriter<'_>, failure: &CallFailure) {
    let Target { account_id, region } = writer.target;
    tracing::warn!(
        run_id = %writer.run.facts.run_id, %account_id, %region,
        error_code = failure.code, error_message = failure.message, request_id = failure.request_id,
        "entries not fetched: the next run tries again"
    );
}

/// The failed calls for a target's entries so far.
#[derive(Default)]
struct Failures {
    count: u32,
    has_succeeded: bool,
}

/// What follows a failed call for a batch.
#[derive(Default, PartialEq, Eq, Debug)]
struct NextBatches {
    /// Reports whose status is known now.
    settled: Vec<(ReportToFetch, EntriesStatus)>,
    /// The batches to fetch next.
    first: Vec<Vec<ReportToFetch>>,
    /// The batches to fetch after all others.
    last: Vec<Vec<ReportToFetch>>,
    /// Whether the target's remaining entries are left to the next run.
    gives_up: bool,
}

impl Failures {
    /// Decides what follows a failed call.
    ///
    /// If EC2 does not find a report, those that it names are deleted; if it names none, the batch is
    /// bisected. Any other failure may be one report's, so the batch is bisected too, after the other
    /// batches.
    fn next_step(&mut self, mut batch: Vec<ReportToFetch>, failure: &CallFailure) -> NextBatches {
        match failure.kind {
            FailureKind::NotFound => not_found(batch, &failure.message),
            FailureKind::Denied | FailureKind::RegionRefused | FailureKind::CredentialsExpired => {
                NextBatches {
                    gives_up: true,
                    ..NextBatches::default()
                }
            }
            _ => {
                self.count += 1;
                let most = match self.has_succeeded {
                    true => MAX_FAILURES,
                    false => MAX_FIRST_FAILURES,
                };
                let mut next = NextBatches {
                    gives_up: self.count >= most,
                    ..NextBatches::default()
                };
                let half = batch.split_off(batch.len() / 2);
                match (batch.is_empty(), half) {
                    (true, single) => {
                        let code = failure.code.clone();
                        let failed = EntriesStatus::Failed { code };
                        next.settled = settle_all(single, &failed);
                    }
                    (false, half) => next.last = vec![batch, half],
                }
                next
            }
        }
    }
}

fn not_found(batch: Vec<ReportToFetch>, message: &str) -> NextBatches {
    let (named, mut others): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .partition(|report| is_named(message, &report.report_id));
    let mut next = NextBatches::default();
    match (named.is_empty(), others.len()) {
        (true, 0 | 1) => next.settled = settle_all(others, &deleted()),
        (true, _) => {
            let half = others.split_off(others.len() / 2);
            next.first = vec![others, half];
        }
        (false, _) => {
            next.settled = settle_all(named, &deleted());
            next.first.extend((!others.is_empty()).then_some(others));
        }
    }
    next
}

fn settle_all(
    reports: Vec<ReportToFetch>,
    status: &EntriesStatus,
) -> Vec<(ReportToFetch, EntriesStatus)> {
    let settle = |report| (report, status.clone());
    reports.into_iter().map(settle).collect()
}

/// Whether a message names a report, and not only one whose ID begins or ends with it.
fn is_named(message: &str, report_id: &str) -> bool {
    let is_part = |character: Option<char>| {
        character.is_some_and(|character| character.is_alphanumeric() || character == '-')
    };
    !report_id.is_empty()
        && message.match_indices(report_id).any(|(start, id)| {
            !is_part(message[..start].chars().next_back())
                && !is_part(message[start + id.len()..].chars().next())
        })
}

/// Writes the entries of a target, and records where they are.
struct EntriesWriter<'a> {
    run: &'a Run,
    target: &'a Target,
    writer: LinesWriter,
    unsent: Unsent<'a>,
}

impl EntriesWriter<'_> {
    async fn write(
        &mut self,
        staged: &mut StagedReports,
        batch: Vec<ReportToFetch>,
        mut fetched: FetchedEntries,
    ) -> Result<(), ArchiveError> {
        for (number, report) in batch.iter().enumerate() {
            if fetched.deleted.contains(&report.report_id) {
                self.settle(staged, report, &deleted())?;
                continue;
            }
            let writer = &mut self.writer;
            let count = fetched
                .groups
                .for_each_line(number, |line| writer.push(line));
            let count = count.map_err(|error| self.local(error))?;
            if count == 0 {
                let line = EntryLine::no_usage_observed(
                    self.target,
                    &report.report_id,
                    report.image_id.clone(),
                    report.creation_time,
                );
                let mut bytes = Vec::new();
                write_line(&mut bytes, &line).map_err(|error| self.local(error))?;
                self.writer.push(&bytes);
            }
            let status = EntriesStatus::Archived {
                key: self.writer.key().to_owned(),
                run_id: self.run.facts.run_id.clone(),
                count,
            };
            self.settle(staged, report, &status)?;
            self.run.deadline.send_full_part(&mut self.writer).await?;
        }
        self.unsent.set(self.writer.unsent_bytes());
        Ok(())
    }

    fn settle(
        &self,
        staged: &mut StagedReports,
        report: &ReportToFetch,
        status: &EntriesStatus,
    ) -> Result<(), ArchiveError> {
        let recorded = staged.records().set_entries(&report.key, status);
        recorded.map_err(|error| self.local(error))
    }

    fn local(&self, error: io::Error) -> ArchiveError {
        self.writer.failed(local_storage(error))
    }
}

/// Fetches entries from EC2, until the target's share of the time is up.
struct EntryFetcher<'a> {
    reports: &'a UsageReports,
    target: &'a Target,
    page_size: u32,
    stop_at: Instant,
}

/// The entries of a batch.
struct FetchedEntries {
    groups: EntryGroups,
    /// The reports that EC2 has deleted in the meantime.
    deleted: HashSet<String>,
}

/// Why the entries of a batch were not fetched.
enum NotFetched {
    /// The target's share of the time is up.
    TimeUp,
    /// EC2 failed, or its answer made no sense.
    Failed(CallFailure),
}

impl From<CallFailure> for NotFetched {
    fn from(failure: CallFailure) -> Self {
        Self::Failed(failure)
    }
}

impl EntryFetcher<'_> {
    async fn fetch(&self, batch: &[ReportToFetch]) -> Result<FetchedEntries, NotFetched> {
        let ids: Vec<String> = batch.iter().map(|one| one.report_id.clone()).collect();
        let groups = self.read_pages(&ids).await?;
        // EC2 may answer for a deleted report as for one without entries; over several pages it may have
        // been deleted in between.
        let doubtful: Vec<String> = ids
            .into_iter()
            .enumerate()
            .filter(|(number, _)| groups.pages > 1 || groups.is_empty(*number))
            .map(|(_, id)| id)
            .collect();
        let mut deleted: HashSet<String> = doubtful.iter().cloned().collect();
        if !doubtful.is_empty() {
            for available in self.still_available(doubtful).await? {
                deleted.remove(&available);
            }
        }
        Ok(FetchedEntries { groups, deleted })
    }

    async fn read_pages(&self, ids: &[String]) -> Result<EntryGroups, NotFetched> {
        let numbers = ids.iter().enumerate();
        let numbers: HashMap<&str, usize> = numbers.map(|(number, id)| (&**id, number)).collect();
        let mut cursor = PageCursor::new(Some(self.page_size));
        let mut groups = EntryGroups::new(ids.len());
        loop {
            let call = self
                .reports
                .entries(ids, cursor.max_results(), cursor.token());
            let page = match self.limit(call).await {
                Ok(page) => page,
                Err(NotFetched::Failed(failure)) if cursor.restart_after(&failure) => {
                    groups = EntryGroups::new(ids.len());
                    continue;
                }
                Err(stop) => return Err(stop),
            };
            let mut numbered = Vec::with_capacity(page.rows.len());
            for entry in page.rows {
                let number = match entry.report_id.as_deref() {
                    Some(id) => numbers.get(id).copied(),
                    // Only one report was asked for.
                    None => (ids.len() == 1).then_some(0),
                };
                let number = number.ok_or_else(|| stray(&entry))?;
                numbered.push((number, EntryLine::new(self.target, &ids[number], entry)));
            }
            groups.add_page(numbered).map_err(local_storage)?;
            if !cursor.advance(page.next_token)? {
                return Ok(groups);
            }
        }
    }

    /// Returns those of some reports that EC2 lists as available.
    async fn still_available(&self, report_ids: Vec<String>) -> Result<Vec<String>, NotFetched> {
        let mut query = ReportQuery {
            report_ids,
            ..ReportQuery::default()
        };
        let mut cursor = PageCursor::new(Some(self.page_size));
        let mut available = Vec::new();
        loop {
            query.max_results = cursor.max_results();
            let call = self.reports.page(&query, cursor.token());
            let page = match self.limit(call).await {
                Ok(page) => page,
                Err(NotFetched::Failed(failure)) if cursor.restart_after(&failure) => continue,
                Err(stop) => return Err(stop),
            };
            let listed = page.rows.into_iter();
            available.extend(
                listed
                    .filter(|report| report.state == Some(ReportState::Available))
                    .filter_map(|report| report.report_id),
            );
            if !cursor.advance(page.next_token)? {
                return Ok(available);
            }
        }
    }

    async fn limit<T>(
        &self,
        call: impl Future<Output = Result<T, CallFailure>>,
    ) -> Result<T, NotFetched> {
        match tokio::time::timeout_at(self.stop_at, call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(NotFetched::TimeUp),
        }
    }
}

fn stray(entry: &UsageEntry) -> CallFailure {
    let of = match &entry.report_id {
        Some(id) => format!("the report `{id}`, which was not requested"),
        None => "no report".to_owned(),
    };
    CallFailure::malformed(format!("EC2 returned an entry of {of}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_a_report_only_by_its_whole_id() {
        let message = "The image usage report ID 'amiur-12' does not exist";
        assert!(is_named(message, "amiur-12"));
        for other in ["amiur-1", "amiur-123", "12", "", "miur-12"] {
            assert!(!is_named(message, other), "{other}");
        }
    }
}
