//! One target: its listing page by page, then its entries, then its lines.

mod entries;
pub(crate) mod history;

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};

use self::entries::ArchivedEntries;
pub(crate) use self::entries::DEADLINE_EXCEEDED;
use crate::archive::lines_writer::{self, ArchiveError, LinesWriter, Written, failed};
use crate::archive::previous::local_storage;
use crate::archive::read_back;
use crate::audit::Run;
use crate::aws::ec2::pagination::Pages;
use crate::aws::ec2::{ReportQuery, UsageReports};
use crate::staging::Listing;
use image_usage_archive::aws::{Bucket, CallFailure, FailureKind};
use image_usage_archive::documents::changes::ChangeTally;
use image_usage_archive::documents::snapshot::{
    ArchivedObject, Counts, EntriesStatus, LedgerLine, ReportLine, TargetError, TargetOutcome,
    TargetStatus,
};
use image_usage_archive::domain::findings::{self, Finding, FindingKind, KindSet, ListedFindings};
use image_usage_archive::domain::report::{ReportState, UsageReport};
use image_usage_archive::domain::report_key;
use image_usage_archive::domain::target::Target;

/// How many reports are noted or written in a row before calls under way have their turn: a millisecond.
const REPORTS_PER_TURN: usize = 200;

/// The audit of one target, under way.
///
/// When a listing breaks off, the audit can go on later: the listing starts again, and what is noted
/// already is recognised.
#[derive(Debug)]
pub(crate) struct TargetAudit {
    target: Target,
    bucket: Bucket,
    key: String,
    listing: Listing,
    /// The bytes that wait to be archived, as the run knows them.
    noted_bytes: usize,
    unnamed: UnnamedReports,
    queries_done: usize,
    pages: u64,
}

/// What the lines of a target come to.
#[derive(Debug)]
struct Totals {
    counts: Counts,
    findings: ListedFindings,
    changes: Option<ChangeTally>,
}

impl TargetAudit {
    pub(crate) fn new(target: Target, bucket: Bucket, key: String) -> Self {
        Self {
            target,
            bucket,
            key,
            listing: Listing::new(),
            noted_bytes: 0,
            unnamed: UnnamedReports::default(),
            queries_done: 0,
            pages: 0,
        }
    }

    /// The pages that were read.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether all that was read is held in memory, and is little.
    pub(crate) fn is_small(&self) -> bool {
        self.listing.is_small()
    }

    /// Reads what is left of the target's listings.
    pub(crate) async fn read(
        &mut self,
        run: &Run,
        reports: &UsageReports,
    ) -> Result<(), CallFailure> {
        while let Some(query) = run.queries.get(self.queries_done) {
            self.read_listing(run, reports, query.clone()).await?;
            self.queries_done += 1;
            self.unnamed = UnnamedReports::default();
        }
        Ok(())
    }

    async fn read_listing(
        &mut self,
        run: &Run,
        reports: &UsageReports,
        mut query: ReportQuery,
    ) -> Result<(), CallFailure> {
        let mut pages = Pages::new(query.max_results);
        self.unnamed.start_listing_again();
        let mut rows = Vec::new();
        loop {
            query.max_results = pages.max_results();
            // What has come is noted while the next page is on its way.
            let next = run.before_stop(reports.page(&query, pages.token()));
            let (page, noted) = tokio::join!(next, self.note_all(run, rows));
            noted?;
            let page = match page {
                Ok(page) => page,
                // From the start: what was read before is recognised.
                Err(failure) if pages.start_again_after(&failure) => {
                    self.unnamed.start_listing_again();
                    rows = Vec::new();
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            self.pages += 1;
            rows = page.rows;
            match pages.turn(page.next_token) {
                Ok(true) => {}
                Ok(false) => return self.note_all(run, rows).await,
                Err(no_end) => {
                    self.note_all(run, rows).await?;
                    return Err(no_end);
                }
            }
        }
    }

    async fn note_all(&mut self, run: &Run, rows: Vec<UsageReport>) -> Result<(), CallFailure> {
        for some in rows.chunks(REPORTS_PER_TURN) {
            for report in some {
                self.note(run, report)?;
            }
            tokio::task::yield_now().await;
        }
        self.note_unsent(run, self.listing.bytes());
        Ok(())
    }

    fn note(&mut self, run: &Run, report: &UsageReport) -> Result<(), CallFailure> {
        let findings = findings::judge(report, run.facts.policy, run.facts.started_at);
        let noted = match &report.report_id {
            Some(id) => self.listing.note(&self.target, id, report, findings),
            None if self.unnamed.insert(report)? => {
                self.listing.note_unnamed(&self.target, report, findings)
            }
            None => Ok(()),
        };
        noted.map_err(local_storage)
    }

    fn note_unsent(&mut self, run: &Run, unsent: usize) {
        run.note_unsent(&mut self.noted_bytes, unsent);
    }

    /// Archives what was read, the entries first; `broken_off` tells why that isn't all.
    ///
    /// # Errors
    /// Fails when the archive doesn't take it.
    pub(crate) async fn archive(
        mut self,
        run: &Run,
        reports: &UsageReports,
        broken_off: Option<&CallFailure>,
    ) -> Result<TargetOutcome, ArchiveError> {
        let outcome = self.archive_all(run, reports, broken_off).await;
        self.note_unsent(run, 0);
        outcome
    }

    async fn archive_all(
        &mut self,
        run: &Run,
        reports: &UsageReports,
        broken_off: Option<&CallFailure>,
    ) -> Result<TargetOutcome, ArchiveError> {
        let status = match broken_off {
            None => TargetStatus::Complete,
            Some(_) => TargetStatus::Incomplete,
        };
        let error = broken_off.cloned().map(TargetError::from);
        let (target, bucket) = (self.target.clone(), self.bucket.clone());
        let is_complete = status == TargetStatus::Complete;
        let changes =
            history::with_known(run, &bucket, &target, &mut self.listing, is_complete).await;
        let entries_key = run.entries_key(&target);
        let ArchivedEntries {
            object: mut entries_object,
            rest,
        } = entries::archive(
            run,
            reports,
            &bucket,
            entries_key,
            &target,
            &mut self.listing,
        )
        .await?;
        let mut writer = LinesWriter::new(bucket.clone(), self.key.clone());
        if !self.listing.is_small() {
            writer.claim_part();
        }
        let totals = match self
            .write_lines(run, &rest, changes, Some(&mut writer))
            .await
        {
            Ok(totals) => totals,
            Err(error) => {
                // Whoever is out of time leaves the parts to the bucket's rule for unfinished uploads.
                let _ = run.before_publishing(writer.abandon()).await;
                return Err(error);
            }
        };
        let metadata = lines_writer::metadata(status, self.pages);
        let finished = run.before_publishing(writer.finish(&metadata)).await;
        let finished = finished.map_err(failed("write", &bucket, &self.key))??;
        let (ledger, totals) = match finished {
            Written::Archived(object) => {
                let ledger = self.ledger(status, error, self.pages, object, &totals.counts);
                (ledger, totals)
            }
            Written::Taken(by) => {
                let read = read_back::reports(&bucket, &self.key, by, &target).await?;
                self.listing = read.listing;
                let is_complete = read.status == TargetStatus::Complete;
                let changes =
                    history::with_known(run, &bucket, &target, &mut self.listing, is_complete)
                        .await;
                let totals = self.write_lines(run, &rest, changes, None).await?;
                // The other try's lines may tell of entries that this one did not get.
                if entries_object.is_none() && totals.counts.entries.fetched > 0 {
                    let key = run.entries_key(&target);
                    entries_object = Some(read_back::object(&bucket, &key).await?);
                }
                let error = (!is_complete).then(|| {
                    error.unwrap_or_else(|| TargetError {
                        code: "ArchivedByAnotherTry".to_owned(),
                        message:
                            "another try of this run has archived the target, and not all of it"
                                .to_owned(),
                        request_id: None,
                    })
                });
                let pages = read.pages.unwrap_or(self.pages);
                let ledger = self.ledger(read.status, error, pages, read.object, &totals.counts);
                (ledger, totals)
            }
        };
        let Totals {
            mut counts,
            mut findings,
            changes,
        } = totals;
        counts.add_target(ledger.status);
        let superseded = self.supersede(&mut findings);
        superseded.map_err(|error| failed("write", &bucket, &self.key)(local_storage(error)))?;
        Ok(TargetOutcome {
            ledger: LedgerLine {
                entries_object,
                ..ledger
            },
            counts,
            findings,
            changes,
        })
    }

    fn ledger(
        &self,
        status: TargetStatus,
        error: Option<TargetError>,
        pages: u64,
        object: ArchivedObject,
        counts: &Counts,
    ) -> LedgerLine {
        let Target { account_id, region } = self.target.clone();
        LedgerLine {
            account_id,
            region,
            status,
            pages,
            reports: counts.reports.total,
            error,
            object: Some(object),
            entries_object: None,
            earlier_objects: Vec::new(),
        }
    }

    /// Puts each report of the listing on its line, and counts and compares it on the way; `rest` is what
    /// is to be said of an available report whose entries nothing is noted of.
    async fn write_lines(
        &mut self,
        run: &Run,
        rest: &EntriesStatus,
        changes: Option<ChangeTally>,
        mut writer: Option<&mut LinesWriter>,
    ) -> Result<Totals, ArchiveError> {
        let Self {
            target,
            bucket,
            key,
            listing,
            ..
        } = self;
        let local = |error| failed("write", bucket, key)(local_storage(error));
        let mut totals = Totals {
            counts: Counts::default(),
            findings: ListedFindings::default(),
            changes,
        };
        let mut line = Vec::new();
        let (mut spooled, notes) = listing.read().map_err(local)?;
        while let Some((head, members)) = spooled.next().map_err(local)? {
            let state = notes.state(&head);
            let facts = match &head.key {
                Some(key) => Some(notes.facts_of_listed(key).map_err(local)?),
                None => None,
            };
            let noted = facts.as_ref().and_then(|facts| notes.entries(facts));
            let entries = match (state, noted) {
                (_, Some(noted)) => noted,
                (Some(ReportState::Pending), None) => EntriesStatus::Pending { code: None },
                (Some(ReportState::Available), None) if facts.is_none() => EntriesStatus::Failed {
                    code: "UnnamedReport".to_owned(),
                },
                (Some(ReportState::Available), None) => rest.clone(),
                (_, None) => EntriesStatus::NotAvailable,
            };
            let mut kinds = head.findings;
            let is_available = *state == Some(ReportState::Available);
            if findings::is_unarchived(is_available, kinds, &entries) {
                kinds.insert(FindingKind::Unarchived);
            }
            totals
                .counts
                .add_report(state.as_ref(), kinds, &entries, &run.facts.run_id);
            let expires = head.expiration_milliseconds;
            let has_room = |kind: &_| !findings::comes_too_late(&totals.findings, *kind, expires);
            let listed: KindSet = kinds.iter().filter(has_room).collect();
            if !listed.is_empty() {
                let report: UsageReport =
                    serde_json::from_slice(members).map_err(|error| local(error.into()))?;
                for kind in listed.iter() {
                    totals.findings.insert(Finding::new(
                        kind,
                        target,
                        &report,
                        &entries,
                        run.facts.policy,
                        run.facts.started_at,
                    ));
                }
            }
            if let Some(tally) = totals.changes.as_mut().filter(|tally| tally.compares())
                && let Some(facts) = &facts
            {
                history::report(tally, target, notes, &head, facts, kinds, members)
                    .map_err(local)?;
            }
            if let Some(writer) = &mut writer {
                line.clear();
                ReportLine::write(&mut line, members, kinds, &entries)
                    .map_err(|error| local(error.into()))?;
                writer.push(&line);
                run.send_full_part(writer).await?;
            }
            if totals
                .counts
                .reports
                .total
                .is_multiple_of(REPORTS_PER_TURN as u64)
            {
                tokio::task::yield_now().await;
            }
        }
        Ok(totals)
    }

    /// Finds, for each listed finding on a report about to go, a newer report that tells the same.
    fn supersede(&mut self, findings: &mut ListedFindings) -> std::io::Result<()> {
        let is_going = |finding: &Finding| finding.entries_archived.is_some();
        let going: HashSet<_> = findings
            .iter()
            .filter(|finding| is_going(finding))
            .filter_map(|finding| finding.report_id.as_deref().map(report_key::key))
            .collect();
        if going.is_empty() {
            return Ok(());
        }
        let mut older: HashMap<u64, Vec<UsageReport>> = HashMap::new();
        let (mut spooled, _) = self.listing.read()?;
        while let Some((head, members)) = spooled.next()? {
            if let Some(image) = head.image
                && head.key.is_some_and(|key| going.contains(&key))
            {
                let report = serde_json::from_slice(members)?;
                older.entry(image).or_default().push(report);
            }
        }
        let mut newest: HashMap<String, UsageReport> = HashMap::new();
        let (mut spooled, _) = self.listing.read()?;
        while let Some((head, members)) = spooled.next()? {
            let Some(older) = head.image.and_then(|image| older.get(&image)) else {
                continue;
            };
            let newer: UsageReport = serde_json::from_slice(members)?;
            for old in older {
                let Some(id) = &old.report_id else { continue };
                let is_better = newest.get(id).is_none_or(|best| {
                    findings::successor_rank(&newer) > findings::successor_rank(best)
                });
                if is_better && findings::supersedes(&newer, old) {
                    newest.insert(id.clone(), newer.clone());
                }
            }
        }
        findings.update(|finding| {
            let by = finding.report_id.as_ref().and_then(|id| newest.get(id));
            if let Some(by) = by.filter(|_| is_going(finding)) {
                finding.superseded_by = by.report_id.clone();
            }
        });
        Ok(())
    }

    /// Gives what was read up.
    pub(crate) fn abandon(mut self, run: &Run) {
        self.note_unsent(run, 0);
    }
}

/// The reports without an ID that are archived, told by what they hold.
///
/// Two of them may be alike, so they are counted: when the listing starts again, as many of a kind as are
/// archived are passed over.
#[derive(Debug, Default)]
struct UnnamedReports {
    archived: HashMap<[u8; 32], Unnamed>,
}

#[derive(Debug, Default)]
struct Unnamed {
    archived: u64,
    listed: u64,
}

/// EC2 gives every report an ID as far as anybody knows; the bound only keeps the memory flat.
const MAX_UNNAMED_REPORTS: usize = 10_000;

impl UnnamedReports {
    fn start_listing_again(&mut self) {
        self.archived
            .values_mut()
            .for_each(|unnamed| unnamed.listed = 0);
    }

    /// Takes one in, and tells if it is new.
    fn insert(&mut self, report: &UsageReport) -> Result<bool, CallFailure> {
        let digest = Sha256::digest(format!("{report:?}")).into();
        if self.archived.len() == MAX_UNNAMED_REPORTS && !self.archived.contains_key(&digest) {
            return Err(CallFailure {
                code: "UnnamedReports".to_owned(),
                message: format!(
                    "more than {MAX_UNNAMED_REPORTS} reports have no ID to tell them by"
                ),
                request_id: None,
                kind: FailureKind::Lasting,
            });
        }
        let unnamed = self.archived.entry(digest).or_default();
        unnamed.listed += 1;
        let is_new = unnamed.listed > unnamed.archived;
        unnamed.archived += u64::from(is_new);
        Ok(is_new)
    }
}
