//! One target's listing: page by page through the rules to its lines.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};

use crate::archive::{ArchiveError, LinesWriter, Written, failed};
use crate::aws::{Bucket, CallFailure, FailureKind, ReportQuery, UsageReports};
use crate::findings::{self, Finding, ListedFindings, Policy};
use crate::read_back;
use crate::report::UsageReport;
use crate::run::Run;
use crate::seen::SeenReports;
use crate::snapshot::{
    ArchivedObject, Counts, LedgerLine, ReportLine, TargetError, TargetOutcome, TargetStatus,
};
use crate::target::Target;
use crate::timestamp::Timestamp;

/// What stopped the audit of a target.
#[derive(Debug)]
pub(crate) enum Stop {
    /// EC2 could not be read on.
    Reading(CallFailure),
    /// The archive did not take what was read.
    Archiving(ArchiveError),
}

impl Stop {
    pub(crate) fn failure(&self) -> &CallFailure {
        match self {
            Self::Reading(failure) => failure,
            Self::Archiving(error) => &error.failure,
        }
    }
}

/// The audit of one target, under way.
///
/// When a listing breaks off, the audit can go on later: the listing starts again, and what is archived
/// already is recognised.
#[derive(Debug)]
pub(crate) struct TargetAudit {
    target: Target,
    policy: Policy,
    now: Timestamp,
    bucket: Bucket,
    key: String,
    writer: LinesWriter,
    /// The unsent bytes of the writer, as the run knows them.
    noted_bytes: usize,
    seen: SeenReports,
    unnamed: UnnamedReports,
    queries_done: usize,
    pages: u64,
    counts: Counts,
    findings: ListedFindings,
}

impl TargetAudit {
    pub(crate) fn new(target: Target, run: &Run, bucket: Bucket, key: String) -> Self {
        Self {
            target,
            policy: run.facts.policy,
            now: run.facts.started_at,
            writer: LinesWriter::new(bucket.clone(), key.clone()),
            bucket,
            key,
            noted_bytes: 0,
            seen: SeenReports::default(),
            unnamed: UnnamedReports::default(),
            queries_done: 0,
            pages: 0,
            counts: Counts::default(),
            findings: ListedFindings::default(),
        }
    }

    /// The pages that were read.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether all that was read is held in memory, and is little.
    pub(crate) fn is_small(&self) -> bool {
        !self.writer.is_upload() && !self.seen.is_spilled()
    }

    /// Reads what is left of the target's listings.
    pub(crate) async fn read(&mut self, run: &Run, reports: &UsageReports) -> Result<(), Stop> {
        while let Some(query) = run.queries.get(self.queries_done) {
            self.read_listing(run, reports, query.clone()).await?;
            self.queries_done += 1;
            self.unnamed = UnnamedReports::default();
        }
        Ok(())
    }

    /// Reads one listing to its end.
    ///
    /// The SDK's paginator is not used, for it takes a repeated token for the end of the listing.
    async fn read_listing(
        &mut self,
        run: &Run,
        reports: &UsageReports,
        mut query: ReportQuery,
    ) -> Result<(), Stop> {
        let mut token: Option<String> = None;
        let mut token_loop = TokenLoop::default();
        let mut restarted = false;
        self.unnamed.start_listing_again();
        loop {
            let page = match run
                .before_stop(reports.page(&query, token.as_deref()))
                .await
            {
                Ok(page) => page,
                // The token has run out: from the start, once. What was read before is recognised.
                Err(failure)
                    if failure.kind == FailureKind::TokenRefused
                        && token.is_some()
                        && !restarted =>
                {
                    restarted = true;
                    token = None;
                    token_loop = TokenLoop::default();
                    self.unnamed.start_listing_again();
                    continue;
                }
                Err(failure)
                    if failure.kind == FailureKind::PageSizeRefused
                        && query.max_results.is_some() =>
                {
                    query.max_results = None;
                    token = None;
                    token_loop = TokenLoop::default();
                    self.unnamed.start_listing_again();
                    continue;
                }
                Err(failure) => return Err(Stop::Reading(failure)),
            };
            self.pages += 1;
            self.audit_page(&page.reports).map_err(Stop::Reading)?;
            match run.before_publishing(self.writer.send_full_part()).await {
                Ok(sent) => sent.map_err(Stop::Archiving)?,
                Err(failure) => {
                    let late = failed("write", &self.bucket, &self.key);
                    return Err(Stop::Archiving(late(failure)));
                }
            }
            self.note_unsent(run);
            match page.next_token {
                None => return Ok(()),
                Some(next) if token_loop.closes_at(token.as_deref(), &next) => {
                    return Err(Stop::Reading(CallFailure {
                        code: "RepeatedToken".to_owned(),
                        message:
                            "EC2 gave a page token for the second time: the listing has no end"
                                .to_owned(),
                        request_id: None,
                        kind: FailureKind::Passing,
                    }));
                }
                next => token = next,
            }
        }
    }

    fn audit_page(&mut self, reports: &[UsageReport]) -> Result<(), CallFailure> {
        let ids = reports
            .iter()
            .filter_map(|report| report.report_id.as_deref());
        let mut new = self
            .seen
            .insert_page(ids)
            .map_err(|error| CallFailure {
                code: "LocalStorage".to_owned(),
                message: format!(
                    "the function's temporary storage can't hold the IDs of the reports: {error}"
                ),
                request_id: None,
                kind: FailureKind::Lasting,
            })?
            .into_iter();
        if self.seen.is_spilled() {
            self.writer.claim_part();
        }
        for report in reports {
            let is_new = match &report.report_id {
                Some(_) => new.next() == Some(true),
                None => self.unnamed.insert(report)?,
            };
            if is_new {
                self.audit_report(report);
            }
        }
        Ok(())
    }

    fn audit_report(&mut self, report: &UsageReport) {
        let kinds = findings::judge(report, self.policy, self.now);
        self.writer
            .push(&ReportLine::new(&self.target, report, &kinds));
        self.counts.add_report(report.state.as_ref(), &kinds);
        for kind in kinds {
            self.findings.insert(Finding::new(
                kind,
                &self.target,
                report,
                self.policy,
                self.now,
            ));
        }
    }

    fn note_unsent(&mut self, run: &Run) {
        let unsent = self.writer.unsent_bytes();
        run.unsent_bytes.fetch_add(unsent, Ordering::Relaxed);
        run.unsent_bytes
            .fetch_sub(self.noted_bytes, Ordering::Relaxed);
        self.noted_bytes = unsent;
    }

    /// Archives what was read; `broken_off` tells why that isn't all.
    ///
    /// # Errors
    /// Fails when the archive doesn't take it.
    pub(crate) async fn archive(
        self,
        run: &Run,
        broken_off: Option<&CallFailure>,
    ) -> Result<TargetOutcome, Stop> {
        let status = match broken_off {
            None => TargetStatus::Complete,
            Some(_) => TargetStatus::Incomplete,
        };
        let error = broken_off.cloned().map(TargetError::from);
        let written = match run
            .before_publishing(self.writer.finish(status, self.pages))
            .await
        {
            Ok(written) => written,
            Err(failure) => Err(failed("write", &self.bucket, &self.key)(failure)),
        };
        run.unsent_bytes
            .fetch_sub(self.noted_bytes, Ordering::Relaxed);
        match written.map_err(Stop::Archiving)? {
            Written::Archived(object) => Ok(outcome(
                self.target,
                status,
                self.pages,
                error,
                object,
                self.counts,
                self.findings,
            )),
            Written::Taken(by) => {
                let rules = (self.policy, self.now);
                let read = read_back::read(&self.bucket, &self.key, by, &self.target, rules).await;
                let read = read.map_err(Stop::Archiving)?;
                let error = (read.status != TargetStatus::Complete).then(|| {
                    error.unwrap_or_else(|| TargetError {
                        code: "ArchivedByAnotherTry".to_owned(),
                        message:
                            "another try of this run has archived the target, and not all of it"
                                .to_owned(),
                        request_id: None,
                    })
                });
                Ok(outcome(
                    self.target,
                    read.status,
                    read.pages.unwrap_or(self.pages),
                    error,
                    read.object,
                    read.counts,
                    read.findings,
                ))
            }
        }
    }

    /// Gives the object up, leaving nothing behind.
    pub(crate) async fn abandon(mut self, run: &Run) {
        run.unsent_bytes
            .fetch_sub(self.noted_bytes, Ordering::Relaxed);
        // Whoever is out of time leaves the parts to the bucket's rule for unfinished uploads.
        let _ = run.before_publishing(self.writer.abandon()).await;
    }
}

fn outcome(
    target: Target,
    status: TargetStatus,
    pages: u64,
    error: Option<TargetError>,
    object: ArchivedObject,
    mut counts: Counts,
    findings: ListedFindings,
) -> TargetOutcome {
    counts.add_target(status);
    let Target { account_id, region } = target;
    let reports = counts.reports.total;
    let ledger = LedgerLine {
        account_id,
        region,
        status,
        pages,
        reports,
        error,
        object: Some(object),
    };
    TargetOutcome {
        ledger,
        counts,
        findings,
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

/// Finds out when a listing's tokens go round in a circle, remembering one of them (after Brent).
#[derive(Default)]
struct TokenLoop {
    anchor: Option<String>,
    pages: u64,
}

impl TokenLoop {
    /// Whether this token has been given before: the one that was asked with, or the one remembered.
    fn closes_at(&mut self, asked_with: Option<&str>, next: &str) -> bool {
        if asked_with == Some(next) || self.anchor.as_deref() == Some(next) {
            return true;
        }
        self.pages += 1;
        if self.pages.is_power_of_two() {
            self.anchor = Some(next.to_owned());
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_of_tokens_of_any_length_and_start_is_found() {
        for (lead, length) in [(0, 1), (0, 2), (3, 1), (5, 7), (100, 64)] {
            let token = |page: usize| match page < lead {
                true => format!("lead-{page}"),
                false => format!("circle-{}", (page - lead) % length),
            };
            let mut tokens = TokenLoop::default();
            let found = (0..4 * (lead + length) + 4).find(|&page| {
                let asked_with = page.checked_sub(1).map(token);
                tokens.closes_at(asked_with.as_deref(), &token(page))
            });
            assert!(
                found.is_some_and(|page| page >= lead + length),
                "{lead} {length}: {found:?}"
            );
        }
    }

    #[test]
    fn a_listing_without_a_circle_is_left_alone() {
        let mut tokens = TokenLoop::default();
        assert!((0..10_000_u32).all(|page| !tokens.closes_at(None, &page.to_string())));
    }
}
