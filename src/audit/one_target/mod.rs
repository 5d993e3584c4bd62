//! One target: its listing page by page, then its entries, then its lines.

mod entries;
mod entry_groups;
pub(super) mod history;
pub(super) mod images;
mod lines;
mod supersession;

use std::sync::Arc;

use image_usage_archive::aws::CallFailure;
use image_usage_archive::documents::PageContents;
use image_usage_archive::documents::{
    ChangeTally, LedgerLine, TargetError, TargetOutcome, TargetStatus,
};
use image_usage_archive::domain::findings;
use image_usage_archive::domain::report::UsageReport;
use image_usage_archive::domain::run_id::Attempt;
use image_usage_archive::domain::target::Target;
use image_usage_archive::layout::ObjectKind;

use self::entries::{EntryArchiver, Progress};
use self::images::ArchivedImages;
use self::lines::WrittenLines;
use super::deadline::Unsent;
use super::run::Run;
use super::turns::Turns;
use crate::archive::lines_writer::{ArchiveError, failed};
use crate::archive::previous::local_storage;
use crate::aws::AccountAccess;
use crate::aws::ec2::pagination::PageCursor;
use crate::aws::ec2::{ReportQuery, UsageReports};
use crate::staging::StagedReports;
use image_usage_archive::renewal_plan::RenewalPlan;

/// One attempt at a target.
#[derive(Debug)]
pub(crate) struct Audit {
    run: Arc<Run>,
    attempt: Attempt,
    target: Target,
    reports: UsageReports,
    staged: StagedReports,
    unsent: Unsent,
    pages: u64,
    /// The failure that interrupted the listing, if any.
    interrupted: Option<CallFailure>,
    /// Whether the AMIs were read to their end, and why not.
    images: Result<(), Option<CallFailure>>,
    /// What follows the listing; `None` while it is under way.
    archiving: Option<Archiving>,
}

/// A target that is archived.
#[derive(Debug)]
pub(crate) struct ArchivedTarget {
    pub(crate) outcome: TargetOutcome,
    /// The reports that EC2 is to be asked for.
    pub(crate) plan: Option<RenewalPlan>,
    /// What a page shows of it.
    pub(crate) page: PageContents,
}

/// A target that is being archived.
#[derive(Debug)]
struct Archiving {
    changes: Option<ChangeTally>,
    entries: EntryArchiver,
    progress: Progress,
}

impl Audit {
    pub(crate) fn new(
        run: Arc<Run>,
        attempt: Attempt,
        access: &AccountAccess,
        target: Target,
    ) -> Self {
        Self {
            attempt,
            reports: UsageReports::new(access, &target.region),
            target,
            staged: match run.usage_policy() {
                Some(_) => StagedReports::new().with_facts(),
                None => StagedReports::new(),
            },
            unsent: run.deadline.unsent(),
            pages: 0,
            interrupted: None,
            images: Err(None),
            archiving: None,
            run,
        }
    }

    /// The attempt, which is part of the keys of its objects.
    pub(crate) fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// The pages that were read.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Reads the target's listings and stages their reports; then reads its AMIs, which may fail.
    ///
    /// # Errors
    /// Fails as EC2 does, and if the run runs out of time; what has come is staged.
    pub(crate) async fn read(&mut self) -> Result<(), CallFailure> {
        let run = Arc::clone(&self.run);
        for query in &run.queries {
            self.read_listing(query.clone()).await?;
        }
        if let Some(facts) = self.staged.facts() {
            let read = images::read(&run, &self.reports.images(), facts).await;
            self.images = read.map_err(Some);
        }
        Ok(())
    }

    async fn read_listing(&mut self, mut query: ReportQuery) -> Result<(), CallFailure> {
        let run = Arc::clone(&self.run);
        let names_ids = !(query.image_ids.is_empty() && query.report_ids.is_empty());
        let size = match names_ids {
            true => run.page_size.beside_ids(),
            false => run.page_size.of_listing(),
        };
        let mut cursor = PageCursor::new(size);
        let mut rows = Vec::new();
        loop {
            query.max_results = cursor.max_results();
            // The last page is staged while the next one is on its way.
            let next = self.reports.page(&query, cursor.token());
            let next = run.deadline.limit_read(next);
            let stage = stage_all(&run, &self.target, &mut self.staged, &rows);
            let (page, staged) = tokio::join!(next, stage);
            staged?;
            self.unsent.set(self.staged.bytes());
            let page = match page {
                Ok(page) => page,
                // From the start: reports that are staged already are recognised.
                Err(failure) if run.page_size.restart(&mut cursor, &failure) => {
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
                stage_all(&run, &self.target, &mut self.staged, &rows).await?;
                self.unsent.set(self.staged.bytes());
                return has_next.map(|_| ());
            }
        }
    }

    /// Archives what was read although the listing was interrupted: the target is incomplete.
    pub(crate) fn interrupt(&mut self, failure: CallFailure) {
        self.interrupted = Some(failure);
    }

    /// Compares what was read with earlier runs, and fetches entries until they are complete, or until the
    /// target's share of the time is up. Returns whether entries are left; can be called again to go on.
    ///
    /// # Errors
    /// Fails if the archive cannot be written; what was read is discarded then.
    pub(crate) async fn fetch_entries(&mut self) -> Result<bool, ArchiveError> {
        let run = Arc::clone(&self.run);
        let mut archiving = match self.archiving.take() {
            Some(archiving) => archiving,
            None => {
                let is_complete = self.interrupted.is_none();
                let (target, staged) = (&self.target, &mut self.staged);
                Archiving {
                    changes: history::carry_over(&run, target, staged, is_complete).await,
                    entries: EntryArchiver::new(&run, self.key(ObjectKind::Entries)),
                    progress: Progress::default(),
                }
            }
        };
        let fetched = archiving
            .entries
            .fetch(&run, &self.reports, &self.target, &mut self.staged);
        archiving.progress = match fetched.await {
            Ok(progress) => progress,
            Err(error) => {
                archiving.entries.abandon(&run).await;
                return Err(error);
            }
        };
        let is_paused = archiving.progress.is_paused;
        self.archiving = Some(archiving);
        Ok(is_paused)
    }

    /// The key of an object of this attempt.
    fn key(&self, kind: ObjectKind) -> String {
        self.run.key(kind, self.attempt, &self.target)
    }

    /// Archives the entries that were fetched, then the report lines, then those of the AMIs.
    ///
    /// # Errors
    /// Fails if the archive cannot be written.
    pub(crate) async fn archive(mut self) -> Result<ArchivedTarget, ArchiveError> {
        if self.archiving.is_none() {
            self.fetch_entries().await?;
        }
        let Some(archiving) = self.archiving.take() else {
            unreachable!("fetching entries starts archiving");
        };
        let Archiving {
            changes,
            entries,
            progress,
        } = archiving;
        let entries_object = entries.finish(&self.run).await?;
        let key = self.key(ObjectKind::Reports);
        let written = lines::archive(
            &self.run,
            key,
            &self.target,
            &mut self.staged,
            &progress.rest,
            changes,
        );
        let WrittenLines {
            object,
            mut counts,
            mut findings,
            mut changes,
            mut page,
        } = written.await?;
        self.unsent.set(0);
        let resolved = supersession::resolve(&mut self.staged, &mut findings).await;
        resolved
            .map_err(local_storage)
            .map_err(failed("write", &self.run.bucket, &object.key))?;
        let status = match self.interrupted {
            None => TargetStatus::Complete,
            Some(_) => TargetStatus::Incomplete,
        };
        counts.add_target(status);
        let images = self.archive_images(changes.as_mut()).await;
        counts.add_images(images.counts);
        findings += images.findings;
        if let Some(of_images) = images.page {
            page += of_images;
        }
        let Target { account_id, region } = self.target;
        let outcome = TargetOutcome {
            ledger: LedgerLine {
                account_id,
                region,
                status,
                pages: self.pages,
                reports: counts.reports.total,
                error: self.interrupted.map(TargetError::from),
                object: Some(object),
                entries_object,
                images: Some(images.ledger),
                earlier_objects: Vec::new(),
            },
            counts,
            findings,
            changes,
        };
        Ok(ArchivedTarget {
            outcome,
            plan: images.plan,
            page,
        })
    }

    async fn archive_images(&mut self, changes: Option<&mut ChangeTally>) -> ArchivedImages {
        let Some(policy) = self.run.usage_policy() else {
            return ArchivedImages::default();
        };
        let reading = images::Reading {
            target: &self.target,
            key: self.key(ObjectKind::Images),
            is_target_read: self.interrupted.is_none(),
            images: self.images.clone(),
            client: Some(self.reports.images()),
        };
        images::archive(&self.run, policy, reading, &mut self.staged, changes).await
    }
}

/// Stages the reports of a page, with their findings.
async fn stage_all(
    run: &Run,
    target: &Target,
    staged: &mut StagedReports,
    rows: &[UsageReport],
) -> Result<(), CallFailure> {
    let mut turns = Turns::default();
    for report in rows {
        let findings = findings::evaluate(report, &run.facts.policy, run.facts.started_at);
        staged
            .stage(target, report, findings)
            .map_err(local_storage)?;
        turns.count().await;
    }
    Ok(())
}
