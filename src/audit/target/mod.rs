//! One target: its listing page by page, then its entries, then its lines.

mod entries;
mod entry_groups;
pub(crate) mod history;
mod lines;
mod supersession;

use image_usage_archive::aws::CallFailure;
use image_usage_archive::documents::{LedgerLine, TargetError, TargetOutcome, TargetStatus};
use image_usage_archive::domain::findings;
use image_usage_archive::domain::report::UsageReport;
use image_usage_archive::domain::run_id::Attempt;
use image_usage_archive::domain::target::Target;

use self::lines::WrittenLines;
use super::deadline::Unsent;
use super::run::Run;
use crate::archive::lines_writer::{ArchiveError, failed};
use crate::archive::previous::local_storage;
use crate::aws::AccountAccess;
use crate::aws::ec2::pagination::PageCursor;
use crate::aws::ec2::{ReportQuery, UsageReports};
use crate::staging::StagedReports;

/// How many reports are staged or written in a row before other tasks get their turn: a millisecond.
const REPORTS_PER_TURN: usize = 200;

/// What stopped an attempt at a target.
#[derive(Debug)]
pub(crate) enum Stop {
    /// EC2 could not be read any further.
    Reading(CallFailure),
    /// The archive could not be written.
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

/// One attempt at a target.
#[derive(Debug)]
pub(crate) struct Audit<'a> {
    run: &'a Run,
    attempt: Attempt,
    target: Target,
    reports: UsageReports,
    staged: StagedReports,
    unsent: Unsent<'a>,
    pages: u64,
}

impl<'a> Audit<'a> {
    pub(crate) fn new(
        run: &'a Run,
        attempt: Attempt,
        access: &AccountAccess,
        target: Target,
    ) -> Self {
        Self {
            run,
            attempt,
            reports: UsageReports::new(access, &target.region),
            target,
            staged: StagedReports::new(),
            unsent: run.deadline.unsent(),
            pages: 0,
        }
    }

    /// The pages that were read.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Reads the target's listings and stages their reports.
    ///
    /// # Errors
    /// Fails as EC2 does, and if the run runs out of time; what has come is staged.
    pub(crate) async fn read(&mut self) -> Result<(), CallFailure> {
        for query in &self.run.queries {
            self.read_listing(query.clone()).await?;
        }
        Ok(())
    }

    async fn read_listing(&mut self, mut query: ReportQuery) -> Result<(), CallFailure> {
        let mut cursor = PageCursor::new(query.max_results);
        let mut rows = Vec::new();
        loop {
            query.max_results = cursor.max_results();
            // The last page is staged while the next one is on its way.
            let next = self.reports.page(&query, cursor.token());
            let next = self.run.deadline.limit_read(next);
            let stage = stage_all(self.run, &self.target, &mut self.staged, &rows);
            let (page, staged) = tokio::join!(next, stage);
            staged?;
            self.unsent.set(self.staged.bytes());
            let page = match page {
                Ok(page) => page,
                // From the start: reports that are staged already are recognised.
                Err(failure) if cursor.restart_after(&failure) => {
                    self.staged.restart();
                    rows = Vec::new();
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            self.pages += 1;
            rows = page.rows;
            let has_next = cursor.advance(page.next_token);
            if !matches!(has_next, Ok(true)) {
                stage_all(self.run, &self.target, &mut self.staged, &rows).await?;
                self.unsent.set(self.staged.bytes());
                return has_next.map(|_| ());
            }
        }
    }

    /// Archives what was read, entries first. `broken_off` is the failure that interrupted the listing, if
    /// any. Nothing is left to archive afterwards.
    ///
    /// # Errors
    /// Fails if the archive cannot be written.
    pub(crate) async fn archive(
        &mut self,
        broken_off: Option<&CallFailure>,
    ) -> Result<TargetOutcome, ArchiveError> {
        let status = match broken_off {
            None => TargetStatus::Complete,
            Some(_) => TargetStatus::Incomplete,
        };
        let Self {
            run,
            attempt,
            target,
            reports,
            staged,
            ..
        } = self;
        let (facts, layout) = (&run.facts, &run.settings.archive_prefix);
        let key = layout.reports(&facts.run_id, *attempt, facts.scheduled_at, target);
        let entries_key = layout.entries(&facts.run_id, *attempt, facts.scheduled_at, target);
        let is_complete = status == TargetStatus::Complete;
        let changes = history::carry_over(run, target, staged, is_complete).await;
        let entries = entries::archive(run, reports, entries_key, target, staged).await?;
        let written = lines::archive(run, key, target, staged, &entries.rest, changes).await?;
        self.unsent.set(0);
        let WrittenLines {
            object,
            mut counts,
            mut findings,
            changes,
        } = written;
        counts.add_target(status);
        let resolved = supersession::resolve(&mut self.staged, &mut findings).await;
        resolved
            .map_err(local_storage)
            .map_err(failed("write", &self.run.bucket, &object.key))?;
        let Target { account_id, region } = self.target.clone();
        Ok(TargetOutcome {
            ledger: LedgerLine {
                account_id,
                region,
                status,
                pages: self.pages,
                reports: counts.reports.total,
                error: broken_off.cloned().map(TargetError::from),
                object: Some(object),
                entries_object: entries.object,
                earlier_objects: Vec::new(),
            },
            counts,
            findings,
            changes,
        })
    }
}

/// Stages the reports of a page, with their findings.
async fn stage_all(
    run: &Run,
    target: &Target,
    staged: &mut StagedReports,
    rows: &[UsageReport],
) -> Result<(), CallFailure> {
    for some in rows.chunks(REPORTS_PER_TURN) {
        for report in some {
            let findings = findings::evaluate(report, run.facts.policy, run.facts.started_at);
            staged
                .stage(target, report, findings)
                .map_err(local_storage)?;
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}
