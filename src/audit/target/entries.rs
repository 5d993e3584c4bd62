//! The entries of a target's reports: fetched once, by report ID, and archived grouped by report.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Read, Seek, SeekFrom, Write};

use tempfile::SpooledTempFile;
use tokio::time::Instant;

use crate::archive::lines_writer::{ArchiveError, LinesWriter, Written, failed};
use crate::archive::previous::local_storage;
use crate::archive::read_back;
use crate::audit::{Run, Unsent};
use crate::aws::ec2::pagination::Pages;
use crate::aws::ec2::{MAX_IDS_PER_CALL, ReportQuery, UsageReports};
use crate::staging::{Listing, Wanted};
use image_usage_archive::aws::{Bucket, CallFailure, FailureKind};
use image_usage_archive::documents::snapshot::{ArchivedObject, EntriesStatus, EntryLine};
use image_usage_archive::domain::report::{ReportState, UsageEntry};
use image_usage_archive::domain::target::Target;

/// How many reports are put in the order of their expiry at a time: about 3 MB of them. A target with more
/// has its listing searched again for the next ones.
const REPORTS_PER_ROUND: usize = 20_000;

/// What the entries of one call's reports take in memory before they go to a file.
const GROUPS_BYTES_IN_MEMORY: usize = 1024 * 1024;

/// After so many failed calls a target's other reports are left for the next run: enough to find one report
/// among 200 that EC2 can't give, by halves.
const MAX_FAILURES: u32 = 20;

/// After so many failed calls without a success, EC2 isn't giving any.
const MAX_FIRST_FAILURES: u32 = 4;

/// What became of a target's entries; where each report's are is noted in the listing.
#[derive(Debug)]
pub(crate) struct ArchivedEntries {
    /// Where the entries lie that this run fetched; `None` where it fetched none.
    pub(crate) object: Option<ArchivedObject>,
    /// What is to be said of an available report of which nothing is noted.
    pub(crate) rest: EntriesStatus,
}

/// Fetches and archives the entries of every available report of a listing of which nothing is noted yet,
/// those that expire first first.
///
/// # Errors
/// Fails when the archive doesn't take them. EC2's failures are noted, or told of as the rest.
pub(crate) async fn archive(
    run: &Run,
    reports: &UsageReports,
    bucket: &Bucket,
    key: String,
    target: &Target,
    listing: &mut Listing,
) -> Result<ArchivedEntries, ArchiveError> {
    if !run.archive_entries {
        let rest = EntriesStatus::Pending {
            code: Some(EntriesStatus::NOT_WANTED.to_owned()),
        };
        return Ok(ArchivedEntries { object: None, rest });
    }
    let mut fetch = Fetch {
        run,
        reports,
        bucket,
        target,
        stop_at: run.stop_entries_at(),
        writer: LinesWriter::new(bucket.clone(), key.clone()),
        unsent: run.unsent(),
        key,
        failures: 0,
        has_succeeded: false,
    };
    let rest = match fetch.everything(listing).await {
        Ok(rest) => rest,
        Err(error) => {
            // What stays is removed by the bucket's rule for unfinished uploads.
            let _ = run.before_publishing(fetch.writer.abandon()).await;
            return Err(error);
        }
    };
    let object = fetch.finish(listing).await?;
    Ok(ArchivedEntries { object, rest })
}

struct Fetch<'a> {
    run: &'a Run,
    reports: &'a UsageReports,
    bucket: &'a Bucket,
    target: &'a Target,
    stop_at: Instant,
    writer: LinesWriter,
    unsent: Unsent<'a>,
    key: String,
    failures: u32,
    has_succeeded: bool,
}

/// Why the entries of some reports did not come.
enum NotFetched {
    /// The target's share of the time is up.
    TimeUp,
    /// EC2 failed, or an answer made no sense.
    Failed(CallFailure),
}

impl From<CallFailure> for NotFetched {
    fn from(failure: CallFailure) -> Self {
        Self::Failed(failure)
    }
}

impl Fetch<'_> {
    /// Fetches what there is to fetch, and tells what holds for the reports of which nothing is noted.
    async fn everything(&mut self, listing: &mut Listing) -> Result<EntriesStatus, ArchiveError> {
        loop {
            let round = listing
                .soonest_unsettled(REPORTS_PER_ROUND)
                .map_err(|error| self.local_storage(error))?;
            let mut batches: VecDeque<Vec<Wanted>> = round
                .chunks(MAX_IDS_PER_CALL)
                .map(<[Wanted]>::to_vec)
                .collect();
            if batches.is_empty() {
                return Ok(EntriesStatus::Pending { code: None });
            }
            while let Some(batch) = batches.pop_front() {
                let failure = match self.fetch(&batch).await {
                    Ok((groups, gone)) => {
                        self.has_succeeded = true;
                        self.archive_groups(listing, batch, groups, &gone).await?;
                        continue;
                    }
                    Err(NotFetched::TimeUp) => {
                        return Ok(EntriesStatus::Pending {
                            code: Some(DEADLINE_EXCEEDED.to_owned()),
                        });
                    }
                    Err(NotFetched::Failed(failure)) => failure,
                };
                match failure.kind {
                    FailureKind::NotFound => {
                        let (gone, others): (Vec<_>, Vec<_>) = batch
                            .into_iter()
                            .partition(|wanted| is_named(&failure.message, &wanted.report_id));
                        for wanted in &gone {
                            self.note(listing, wanted, deleted())?;
                        }
                        match (gone.is_empty(), others) {
                            (_, others) if others.is_empty() => {}
                            (false, others) => batches.push_front(others),
                            (true, mut others) if others.len() > 1 => {
                                let half = others.split_off(others.len() / 2);
                                batches.push_front(half);
                                batches.push_front(others);
                            }
                            (true, others) => {
                                for wanted in &others {
                                    self.note(listing, wanted, deleted())?;
                                }
                            }
                        }
                    }
                    FailureKind::Denied
                    | FailureKind::RegionRefused
                    | FailureKind::CredentialsExpired => return Ok(self.give_up(failure)),
                    _ => {
                        self.failures += 1;
                        let most = match self.has_succeeded {
                            true => MAX_FAILURES,
                            false => MAX_FIRST_FAILURES,
                        };
                        let mut batch = batch;
                        if let [wanted] = batch.as_slice() {
                            let code = failure.code.clone();
                            self.note(listing, wanted, EntriesStatus::Failed { code })?;
                        } else {
                            // One report may spoil the answer for all: by halves, once the others are done.
                            let half = batch.split_off(batch.len() / 2);
                            batches.extend([batch, half]);
                        }
                        if self.failures >= most {
                            return Ok(self.give_up(failure));
                        }
                    }
                }
            }
        }
    }

    /// Leaves the rest of the target's entries to the next run.
    fn give_up(&self, failure: CallFailure) -> EntriesStatus {
        let CallFailure {
            code,
            message: error_message,
            request_id,
            kind: _,
        } = failure;
        let Target { account_id, region } = self.target;
        tracing::warn!(
            run_id = %self.run.facts.run_id, %account_id, %region, error_code = code, error_message, request_id,
            "entries not fetched: the next run tries again"
        );
        EntriesStatus::Failed { code }
    }

    /// Fetches the entries of some reports, and tells which of the reports are gone.
    async fn fetch(&self, batch: &[Wanted]) -> Result<(Groups, HashSet<String>), NotFetched> {
        let ids: Vec<String> = batch
            .iter()
            .map(|wanted| wanted.report_id.clone())
            .collect();
        let numbers: HashMap<&str, usize> = ids
            .iter()
            .enumerate()
            .map(|(number, id)| (&**id, number))
            .collect();
        let mut pages = Pages::new(Some(self.run.page_size));
        let mut groups = Groups::new(batch.len());
        loop {
            let call = self
                .reports
                .entries(&ids, pages.max_results(), pages.token());
            let page = match self.before_stop(call).await {
                Ok(page) => page,
                Err(NotFetched::Failed(failure)) if pages.start_again_after(&failure) => {
                    groups = Groups::new(batch.len());
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
            if !pages.turn(page.next_token)? {
                break;
            }
        }
        // EC2 may answer for a report that has been deleted as for one without entries; over several pages
        // it may have been deleted in between.
        let doubtful: Vec<String> = ids
            .iter()
            .enumerate()
            .filter(|(number, _)| groups.pages > 1 || groups.is_empty(*number))
            .map(|(_, id)| id.clone())
            .collect();
        let mut gone: HashSet<String> = doubtful.iter().cloned().collect();
        if !doubtful.is_empty() {
            for listed in self.still_available(doubtful).await? {
                gone.remove(&listed);
            }
        }
        Ok((groups, gone))
    }

    /// Those of some reports that EC2 lists as available.
    async fn still_available(&self, report_ids: Vec<String>) -> Result<Vec<String>, NotFetched> {
        let mut query = ReportQuery {
            report_ids,
            ..ReportQuery::default()
        };
        let mut pages = Pages::new(Some(self.run.page_size));
        let mut available = Vec::new();
        loop {
            query.max_results = pages.max_results();
            let page = match self
                .before_stop(self.reports.page(&query, pages.token()))
                .await
            {
                Ok(page) => page,
                Err(NotFetched::Failed(failure)) if pages.start_again_after(&failure) => continue,
                Err(stop) => return Err(stop),
            };
            let listed = page.rows.into_iter();
            available.extend(
                listed
                    .filter(|report| report.state == Some(ReportState::Available))
                    .filter_map(|report| report.report_id),
            );
            if !pages.turn(page.next_token)? {
                return Ok(available);
            }
        }
    }

    async fn before_stop<T>(
        &self,
        call: impl Future<Output = Result<T, CallFailure>>,
    ) -> Result<T, NotFetched> {
        match tokio::time::timeout_at(self.stop_at, call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(NotFetched::TimeUp),
        }
    }

    async fn archive_groups(
        &mut self,
        listing: &mut Listing,
        batch: Vec<Wanted>,
        mut groups: Groups,
        gone: &HashSet<String>,
    ) -> Result<(), ArchiveError> {
        for (number, wanted) in batch.iter().enumerate() {
            if gone.contains(&wanted.report_id) {
                self.note(listing, wanted, deleted())?;
                continue;
            }
            let writer = &mut self.writer;
            let count = groups.each_line(number, |line| writer.push(line));
            let count = count.map_err(|error| self.local_storage(error))?;
            if count == 0 {
                let line = EntryLine::no_usage_observed(
                    self.target,
                    &wanted.report_id,
                    wanted.image_id.clone(),
                    wanted.creation_time,
                );
                let line = json_line(&line).map_err(|error| self.local_storage(error))?;
                self.writer.push(&line);
            }
            let status = EntriesStatus::Archived {
                key: self.key.clone(),
                run_id: self.run.facts.run_id.clone(),
                count,
            };
            self.note(listing, wanted, status)?;
            self.run.send_full_part(&mut self.writer).await?;
        }
        self.unsent.set(self.writer.unsent_bytes());
        Ok(())
    }

    /// Finishes the object, if there is anything in it.
    async fn finish(self, listing: &mut Listing) -> Result<Option<ArchivedObject>, ArchiveError> {
        let Self {
            run,
            bucket,
            target,
            writer,
            key,
            ..
        } = self;
        if writer.lines() == 0 {
            return Ok(None);
        }
        let written = run
            .before_publishing(writer.finish(&Vec::new()))
            .await
            .map_err(failed("write", bucket, &key))??;
        match written {
            Written::Archived(object) => Ok(Some(object)),
            // Another try of the run has archived entries under the key, and its object stays: what it
            // holds is archived, and what it doesn't hold isn't.
            Written::Taken(_) => {
                listing.notes().forget_entries_in(&key);
                let run_id = &run.facts.run_id;
                let object = read_back::entries(bucket, &key, target, run_id, listing).await?;
                Ok(Some(object))
            }
        }
    }

    fn note(
        &self,
        listing: &mut Listing,
        wanted: &Wanted,
        status: EntriesStatus,
    ) -> Result<(), ArchiveError> {
        let noted = listing.notes().settle_entries(&wanted.key, &status);
        noted.map_err(|error| self.local_storage(error))
    }

    fn local_storage(&self, error: io::Error) -> ArchiveError {
        failed("write", self.bucket, &self.key)(local_storage(error))
    }
}

/// The code of what had no time left.
pub(crate) const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

fn deleted() -> EntriesStatus {
    EntriesStatus::Failed {
        code: "ReportDeleted".to_owned(),
    }
}

fn stray(entry: &UsageEntry) -> CallFailure {
    let of = match &entry.report_id {
        Some(id) => format!("the report `{id}`, which was not asked for"),
        None => "no report".to_owned(),
    };
    CallFailure {
        code: "MalformedResponse".to_owned(),
        message: format!("EC2 gave an entry of {of}"),
        request_id: None,
        kind: FailureKind::Passing,
    }
}

/// Whether a message names a report, and not only one whose ID starts or ends like it.
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

fn json_line(line: &EntryLine) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The entries of some reports, in whatever order EC2 gives them, put together by report.
struct Groups {
    file: SpooledTempFile,
    bytes: u64,
    /// Where each report's lines lie.
    pieces: Vec<Vec<(u64, usize)>>,
    pages: u64,
}

impl Groups {
    fn new(reports: usize) -> Self {
        Self {
            file: SpooledTempFile::new(GROUPS_BYTES_IN_MEMORY),
            bytes: 0,
            pieces: vec![Vec::new(); reports],
            pages: 0,
        }
    }

    fn add_page(&mut self, mut entries: Vec<(usize, EntryLine)>) -> io::Result<()> {
        self.pages += 1;
        entries.sort_by_key(|(number, _)| *number);
        for group in entries.chunk_by(|(a, _), (b, _)| a == b) {
            let mut lines = Vec::new();
            for (_, entry) in group {
                lines.extend(json_line(entry)?);
            }
            self.file.write_all(&lines)?;
            self.pieces[group[0].0].push((self.bytes, lines.len()));
            self.bytes += lines.len() as u64;
        }
        Ok(())
    }

    fn is_empty(&self, number: usize) -> bool {
        self.pieces[number].is_empty()
    }

    /// Gives a report's lines, each once, and their count: EC2 may give an entry on two pages.
    fn each_line(&mut self, number: usize, mut give: impl FnMut(&[u8])) -> io::Result<u64> {
        let mut seen = HashSet::new();
        let mut lines = Vec::new();
        for &(start, bytes) in &self.pieces[number] {
            lines.resize(bytes, 0);
            self.file.seek(SeekFrom::Start(start))?;
            self.file.read_exact(&mut lines)?;
            for line in lines.split_inclusive(|&byte| byte == b'\n') {
                if seen.insert(line.to_vec()) {
                    give(line);
                }
            }
        }
        Ok(seen.len() as u64)
    }
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
