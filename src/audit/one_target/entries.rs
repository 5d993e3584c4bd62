//! The entries of a target's reports: fetched once, by report ID, and archived grouped by report.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::time::Duration;

use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::{ArchivedObject, EntryLine};
use image_usage_archive::domain::entries_status::EntriesStatus;
use image_usage_archive::domain::error_code::ErrorCode;
use image_usage_archive::domain::report::{ReportState, UsageEntry};
use image_usage_archive::domain::target::Target;

use super::entry_groups::{EntryGroups, Repeats};
use super::images::EntryCollector;
use crate::archive::lines_writer::{ArchiveError, LinesWriter, failed, write_line};
use crate::archive::previous::local_storage;
use crate::audit::deadline::{Share, Unsent};
use crate::audit::run::Run;
use crate::audit::turns::Turns;
use crate::aws::ec2::pagination::PageCursor;
use crate::aws::ec2::{MAX_IDS_PER_CALL, ReportQuery, UsageReports};
use crate::staging::{ReportToFetch, SoonestReports, StagedReports};

/// How many reports are put in the order of their expiry at a time: about 3 MB of them. A target with more
/// has its staged reports searched again for the next ones.
const REPORTS_PER_ROUND: usize = 20_000;

/// How long one report's entries may take, for the size of the first batch: a page and a half at a second each.
const FIRST_REPORT_TIME: Duration = Duration::from_millis(1_500);

/// How many times as large the next batch is after one that succeeded.
const BATCH_GROWTH: usize = 4;

/// A batch that holds more than this, compressed, is divided: with 8 targets at a time, a quarter of the
/// smallest temporary storage.
const MAX_BATCH_BYTES: u64 = 16 * 1024 * 1024;

/// After this many failed calls a target's other reports are left to the next run: enough to isolate one bad
/// report among 200 by bisection.
const MAX_FAILURES: u32 = 20;

/// After this many failed calls without a success, EC2 is not answering any.
const MAX_FIRST_FAILURES: u32 = 4;

/// How far the entries of a target are.
#[derive(Debug)]
pub(super) struct Progress {
    /// The status of every available report that has none of its own.
    pub(super) rest: EntriesStatus,
    /// Whether the target's share of the time is up, with entries left to fetch.
    pub(super) is_paused: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self::done(EntriesStatus::Pending { code: None })
    }
}

impl Progress {
    fn done(rest: EntriesStatus) -> Self {
        Self {
            rest,
            is_paused: false,
        }
    }
}

/// Fetches and archives the entries of a target's reports.
#[derive(Debug)]
pub(super) struct EntryArchiver {
    writer: LinesWriter,
    unsent: Unsent,
    failures: Failures,
    /// How many reports the next batch has; 0 before the first one.
    batch_size: usize,
}

impl EntryArchiver {
    pub(super) fn new(run: &Run, key: String) -> Self {
        Self {
            writer: LinesWriter::new(run.bucket.clone(), key),
            unsent: run.deadline.unsent(),
            failures: Failures::default(),
            batch_size: 0,
        }
    }

    /// Fetches the entries of every available report whose entries are not settled yet, soonest expiry first,
    /// until the target's share of the time is up. Can be called again to go on.
    ///
    /// # Errors
    /// Fails if the archive cannot be written. EC2 failures are recorded per report, or returned as the status
    /// of the remaining reports.
    pub(super) async fn fetch(
        &mut self,
        run: &Run,
        reports: &UsageReports,
        target: &Target,
        staged: &mut StagedReports,
    ) -> Result<Progress, ArchiveError> {
        if !run.settings.archive_entries {
            return Ok(Progress::done(pending(ErrorCode::EntriesNotWanted)));
        }
        let fetcher = EntryFetcher {
            run,
            reports,
            target,
            share: match self.batch_size {
                0 => run.deadline.first_share(),
                _ => run.deadline.another_share(),
            },
        };
        if self.batch_size == 0 {
            self.batch_size = fetcher.first_batch_size();
        }
        loop {
            let queue = self.next_round(staged).await?;
            if queue.is_empty() {
                return Ok(Progress::default());
            }
            if let Some(progress) = self.fetch_round(&fetcher, staged, queue).await? {
                return Ok(progress);
            }
        }
    }

    /// Fetches what is queued; returns how far that is if it ends before the queue does.
    async fn fetch_round(
        &mut self,
        fetcher: &EntryFetcher<'_>,
        staged: &mut StagedReports,
        mut queue: Queue,
    ) -> Result<Option<Progress>, ArchiveError> {
        let (run, target) = (fetcher.run, fetcher.target);
        while let Some(batch) = queue.next(self.batch_size) {
            match fetcher.fetch(&batch).await {
                Ok(fetched) => {
                    self.failures.has_succeeded = true;
                    self.batch_size = (BATCH_GROWTH * batch.len())
                        .max(self.batch_size)
                        .min(MAX_IDS_PER_CALL);
                    self.write(run, target, staged, batch, fetched).await?;
                }
                Err(NotFetched::TimeUp) => {
                    self.batch_size = (batch.len() / 2).max(1);
                    return Ok(Some(Progress {
                        rest: pending(ErrorCode::DeadlineExceeded),
                        is_paused: true,
                    }));
                }
                Err(NotFetched::TooLarge) => {
                    self.batch_size = (batch.len() / 2).max(1);
                    queue.first.extend(halves(batch));
                }
                Err(NotFetched::Failed(failure)) => {
                    let next = self.failures.next_step(batch, &failure);
                    for (report, status) in next.settled {
                        self.settle(staged, &report, &status)?;
                    }
                    queue.first.extend(next.first);
                    queue.last.extend(next.last);
                    if next.gives_up {
                        log_not_fetched(run, target, &failure);
                        let code = failure.code;
                        return Ok(Some(Progress::done(EntriesStatus::Failed { code })));
                    }
                }
            }
        }
        Ok(None)
    }

    async fn next_round(&self, staged: &mut StagedReports) -> Result<Queue, ArchiveError> {
        let round = soonest(staged, REPORTS_PER_ROUND).await;
        Ok(Queue {
            round: round.map_err(|error| self.local(error))?.into(),
            ..Queue::default()
        })
    }

    /// Writes the entries of a batch, and records where they are.
    async fn write(
        &mut self,
        run: &Run,
        target: &Target,
        staged: &mut StagedReports,
        batch: Vec<ReportToFetch>,
        mut fetched: FetchedEntries,
    ) -> Result<(), ArchiveError> {
        for (number, report) in batch.iter().enumerate() {
            if fetched.deleted.contains(&report.report_id) {
                self.settle(staged, report, &deleted())?;
                continue;
            }
            let facts = staged.facts().zip(report.image_id.as_deref());
            let mut collector = facts
                .map(|(facts, image_id)| EntryCollector::new(facts, image_id, &report.report_id));
            let groups = &mut fetched.groups;
            let count = self
                .write_lines(run, groups, number, collector.as_mut())
                .await?;
            let collected = collector.map_or(Ok(()), EntryCollector::finish);
            collected.map_err(|error| self.local(error))?;
            if count == 0 {
                let line = EntryLine::no_usage_observed(
                    target,
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
                run_id: run.facts.run_id.clone(),
                count,
            };
            self.settle(staged, report, &status)?;
            run.deadline.send_full_part(&mut self.writer).await?;
        }
        self.unsent.set(self.writer.unsent_bytes());
        Ok(())
    }

    /// Writes and collects the entries of a report, page by page, and returns their number.
    async fn write_lines(
        &mut self,
        run: &Run,
        groups: &mut EntryGroups,
        number: usize,
        mut collector: Option<&mut EntryCollector<'_>>,
    ) -> Result<u64, ArchiveError> {
        let mut count = 0;
        let (mut repeats, mut turns) = (Repeats::default(), Turns::default());
        for page in 0..groups.pages_of(number) {
            let lines = groups.lines(number, page);
            let lines = lines.map_err(|error| self.local(error))?;
            repeats.next_page();
            for line in lines.split_inclusive(|&byte| byte == b'\n') {
                if !repeats.has(line) {
                    self.writer.push(line);
                    count += 1;
                    if let Some(collector) = &mut collector {
                        collector.add(line).map_err(|error| self.local(error))?;
                    }
                }
                turns.count().await;
            }
            run.deadline.send_full_part(&mut self.writer).await?;
            self.unsent.set(self.writer.unsent_bytes());
        }
        Ok(count)
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

    /// Completes the object with the entries that were fetched; `None` if there were none.
    ///
    /// # Errors
    /// Fails as S3 does.
    pub(super) async fn finish(
        mut self,
        run: &Run,
    ) -> Result<Option<ArchivedObject>, ArchiveError> {
        if self.writer.lines() == 0 {
            return Ok(None);
        }
        let key = self.writer.key().to_owned();
        self.unsent.set(0);
        let finished = run.deadline.limit_write(self.writer.finish()).await;
        let finished = finished.map_err(failed("write", &run.bucket, &key))?;
        finished.map(Some)
    }

    /// Discards what was fetched. If time runs out, the bucket's lifecycle rule removes the incomplete upload.
    pub(super) async fn abandon(&mut self, run: &Run) {
        let _ = run.deadline.limit_write(self.writer.abandon()).await;
    }
}

/// The first `limit` reports to fetch. With 1,000,000 reports this takes half a second of a core, so other
/// tasks get their turn in between.
async fn soonest(staged: &mut StagedReports, limit: usize) -> io::Result<Vec<ReportToFetch>> {
    let mut soonest = SoonestReports::new(limit);
    let (mut reports, records) = staged.read()?;
    let mut turns = Turns::default();
    while let Some((head, fields)) = reports.next()? {
        soonest.consider(records, &head, fields)?;
        turns.count().await;
    }
    Ok(soonest.into_sorted())
}

/// The reports whose entries are to be fetched, in the order in which they are.
#[derive(Default)]
struct Queue {
    /// Batches to fetch next, the last one first.
    first: Vec<Vec<ReportToFetch>>,
    round: VecDeque<ReportToFetch>,
    /// Batches to fetch after all others.
    last: VecDeque<Vec<ReportToFetch>>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.round.is_empty() && self.last.is_empty()
    }

    /// The next batch; `None` after the last one.
    fn next(&mut self, batch_size: usize) -> Option<Vec<ReportToFetch>> {
        if let Some(batch) = self.first.pop() {
            return Some(batch);
        }
        if self.round.is_empty() {
            return self.last.pop_front();
        }
        let size = batch_size.min(self.round.len());
        Some(self.round.drain(..size).collect())
    }
}

/// Divides a batch; the second half comes first.
fn halves(mut batch: Vec<ReportToFetch>) -> [Vec<ReportToFetch>; 2] {
    let half = batch.split_off(batch.len() / 2);
    [half, batch]
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

fn log_not_fetched(run: &Run, target: &Target, failure: &CallFailure) {
    let Target { account_id, region } = target;
    tracing::warn!(
        run_id = %run.facts.run_id, %account_id, %region,
        error_code = failure.code, error_message = failure.message, request_id = failure.request_id,
        "entries not fetched: the next run tries again"
    );
}

/// The failed calls for a target's entries so far.
#[derive(Default, Debug)]
struct Failures {
    count: u32,
    has_succeeded: bool,
}

/// What follows a failed call for a batch.
#[derive(Default, PartialEq, Eq, Debug)]
struct NextBatches {
    /// Reports whose status is known now.
    settled: Vec<(ReportToFetch, EntriesStatus)>,
    /// The batches to fetch next, the last one first.
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
    fn next_step(&mut self, batch: Vec<ReportToFetch>, failure: &CallFailure) -> NextBatches {
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
                match batch.len() {
                    1 => {
                        let code = failure.code.clone();
                        next.settled = settle_all(batch, &EntriesStatus::Failed { code });
                    }
                    _ => next.last = halves(batch).into(),
                }
                next
            }
        }
    }
}

fn not_found(batch: Vec<ReportToFetch>, message: &str) -> NextBatches {
    let (named, others): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .partition(|report| is_named(message, &report.report_id));
    let mut next = NextBatches::default();
    match (named.is_empty(), others.len()) {
        (true, 0 | 1) => next.settled = settle_all(others, &deleted()),
        (true, _) => next.first = halves(others).into(),
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

/// Fetches entries from EC2, until the target's share of the time is up.
struct EntryFetcher<'a> {
    run: &'a Run,
    reports: &'a UsageReports,
    target: &'a Target,
    share: Share,
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
    /// The entries of the batch are too many to be held at once.
    TooLarge,
    /// EC2 failed, or its answer made no sense.
    Failed(CallFailure),
}

impl From<CallFailure> for NotFetched {
    fn from(failure: CallFailure) -> Self {
        Self::Failed(failure)
    }
}

impl EntryFetcher<'_> {
    /// The size of a first batch that the target's share of the time is enough for, so that every run gets
    /// further.
    fn first_batch_size(&self) -> usize {
        let reports = self.share.time().as_millis() / FIRST_REPORT_TIME.as_millis();
        usize::try_from(reports)
            .unwrap_or(usize::MAX)
            .clamp(1, MAX_IDS_PER_CALL)
    }

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
        let mut cursor = PageCursor::new(self.run.page_size.beside_ids());
        let mut groups = EntryGroups::new(ids.len());
        loop {
            let call = self
                .reports
                .entries(ids, cursor.max_results(), cursor.token());
            let page = match self.limit(call).await {
                Ok(page) => page,
                Err(NotFetched::Failed(failure))
                    if self.run.page_size.restart(&mut cursor, &failure) =>
                {
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
            if groups.bytes() > MAX_BATCH_BYTES && ids.len() > 1 {
                return Err(NotFetched::TooLarge);
            }
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
        let mut cursor = PageCursor::new(self.run.page_size.beside_ids());
        let mut available = Vec::new();
        loop {
            query.max_results = cursor.max_results();
            let call = self.reports.page(&query, cursor.token());
            let page = match self.limit(call).await {
                Ok(page) => page,
                Err(NotFetched::Failed(failure))
                    if self.run.page_size.restart(&mut cursor, &failure) =>
                {
                    continue;
                }
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
        match tokio::time::timeout_at(self.share.ends_at(), call).await {
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
    use image_usage_archive::domain::findings::FindingSet;
    use image_usage_archive::domain::report::UsageReport;

    use super::*;

    #[tokio::test]
    async fn other_tasks_run_while_the_reports_to_fetch_are_searched_for() {
        let target = Target {
            account_id: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        let mut staged = StagedReports::new();
        for number in 0..1_000 {
            let report = UsageReport {
                report_id: Some(format!("amiur-{number}")),
                state: Some(ReportState::Available),
                ..UsageReport::default()
            };
            let staged = staged.stage(&target, &report, FindingSet::default());
            staged.unwrap();
        }
        let mut turns = 0;
        let others = async {
            loop {
                turns += 1;
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::select! {
            biased;
            () = others => unreachable!("it has no end"),
            found = soonest(&mut staged, 9) => found.unwrap(),
        };
        assert_eq!(found.len(), 9);
        assert!(turns > 3, "{turns}");
    }

    #[test]
    fn a_message_names_a_report_only_by_its_whole_id() {
        let message = "The image usage report ID 'amiur-12' does not exist";
        assert!(is_named(message, "amiur-12"));
        for other in ["amiur-1", "amiur-123", "12", "", "miur-12"] {
            assert!(!is_named(message, other), "{other}");
        }
    }
}
