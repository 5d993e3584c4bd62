//! One run: plan the targets, audit and archive each, publish the snapshot, answer.

mod answer;
pub(crate) mod deadline;
mod error;
mod metrics;
mod one_target;
mod page_size;
mod passes;
mod phases;
pub(crate) mod plan;
mod preflight;
mod publish;
mod renewal;
pub(crate) mod run;
mod run_page;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use image_usage_archive::aws::{Aws, Bucket};
use image_usage_archive::documents::RunFacts;
use image_usage_archive::domain::target::Region;
use serde_json::Value;

pub use self::answer::{Answer, BatchAnswer, PlanAnswer, PlannedTargets, Summary};
pub use self::error::RunError;
use self::passes::AuditedTargets;
use self::plan::PlannedTarget;
pub use self::preflight::{Permission, PermissionCounts, Preflight, PreflightError, PreflightLine};
use self::publish::{Archived, Outcomes};
pub use self::run::Invocation;
use self::run::Run;
use self::run_page::RunPage;
use crate::archive::latest::FoundSnapshot;
use crate::archive::previous::PreviousRun;
use crate::archive::snapshots::{self, PublishedSnapshot};
use crate::aws::Accounts;
use crate::request::{Invoked, Request};
use crate::settings::Settings;

/// The function behind the Lambda handler.
#[derive(Debug)]
pub struct Auditor {
    settings: Arc<Settings>,
    accounts: Accounts,
    home: Region,
    bucket: Bucket,
    function_name: String,
    renewal_pace: Duration,
}

impl Auditor {
    /// Creates the function; it makes no call yet.
    pub fn new(settings: Settings, aws: &Aws, home: Region, function_name: String) -> Self {
        Self {
            bucket: Bucket::new(aws.config(), &settings.archive_bucket)
                .with_write_headers(settings.write_headers.clone()),
            accounts: Accounts::new(aws),
            settings: Arc::new(settings),
            home,
            function_name,
            renewal_pace: renewal::PACE,
        }
    }

    /// Sets the time between two requests for reports in a target; by default, EC2's limits allow it. For tests.
    #[must_use]
    pub fn with_renewal_pace(self, renewal_pace: Duration) -> Self {
        Self {
            renewal_pace,
            ..self
        }
    }

    /// Handles one invocation.
    ///
    /// # Errors
    /// Fails if the payload is invalid, if no target could be read, and if the archive could not be
    /// written. Findings and failed targets are no errors.
    pub async fn handle(&self, payload: Value, invocation: Invocation) -> Result<Answer, RunError> {
        let request = match Invoked::from_payload(payload, invocation.started_at)? {
            Invoked::Run(request) => request,
            Invoked::Phase(phase) => return phases::answer(self, phase, invocation).await,
        };
        let (dry_run, max_results) = (request.dry_run, request.max_results);
        let facts = self.facts_of(request, &invocation);
        let run = self.start(facts, max_results, &invocation);
        if dry_run {
            let planned = self.plan(&run, &invocation.function_arn).await?;
            return Ok(Answer::Preflight(Preflight::of(&run, planned).await));
        }
        let archived = self.archive(&run, &invocation.function_arn);
        let archived = in_time(&run, archived).await?;
        Ok(publish::answer(&run, archived).await)
    }

    /// Names the run that a request asks for.
    fn facts_of(&self, request: Request, invocation: &Invocation) -> RunFacts {
        if let Some(time) = request.sample_time {
            tracing::warn!(
                %time, request_id = invocation.request_id,
                "the event's time is too far from now to be real: a sample, which is an audit of now"
            );
        }
        run::facts_of(request, invocation, self.settings.policy.clone())
    }

    /// Starts the clock of an invocation that does a run, or a phase of it.
    fn start(
        &self,
        facts: RunFacts,
        max_results: Option<u32>,
        invocation: &Invocation,
    ) -> Arc<Run> {
        Arc::new(Run::start(
            facts,
            max_results,
            invocation,
            Arc::clone(&self.settings),
            self.bucket.clone(),
            self.home.clone(),
            self.renewal_pace,
        ))
    }

    /// Ensures that the run is archived and, if it is the newest full run, that `latest.json` is its copy.
    async fn archive(&self, run: &Arc<Run>, function_arn: &str) -> Result<Archived, RunError> {
        let found = self.find_snapshot(run).await?;
        let is_new = found.is_none();
        // The previous snapshot is read while EC2 lists the reports.
        let previous = async {
            let latest = self.find_latest(run).await?;
            if is_new {
                run.set_previous(self.read_previous(run, &latest).await?);
            }
            Ok(latest)
        };
        let published = async {
            match found {
                Some(published) => Ok((published, None)),
                None => self.audit(run, function_arn).await,
            }
        };
        let (latest, (published, page)) = tokio::try_join!(previous, published)?;
        publish::advance_latest(self, run, latest, published, page).await
    }

    /// Finds the snapshot of a run that is archived already.
    async fn find_snapshot(&self, run: &Run) -> Result<Option<PublishedSnapshot>, RunError> {
        let layout = &self.settings.archive_prefix;
        let key = layout.snapshot(&run.facts.run_id, run.facts.scheduled_at);
        let found = snapshots::find(&self.bucket, &key).await;
        found.map_err(RunError::ArchiveFailed)
    }

    async fn find_latest(&self, run: &Run) -> Result<FoundSnapshot, RunError> {
        let (key, unreadable) = (
            self.settings.archive_prefix.latest(),
            &run.unreadable_objects,
        );
        let found = FoundSnapshot::read(&self.bucket, &key, unreadable).await;
        found.map_err(RunError::ArchiveFailed)
    }

    async fn read_previous(
        &self,
        run: &Run,
        latest: &FoundSnapshot,
    ) -> Result<Option<PreviousRun>, RunError> {
        let (layout, unreadable) = (&self.settings.archive_prefix, &run.unreadable_objects);
        let previous = PreviousRun::read(&self.bucket, layout, latest, unreadable).await;
        let previous = previous.map_err(RunError::ArchiveFailed)?;
        if previous.is_none() && latest.bytes().is_some() {
            tracing::warn!(
                "latest.json cannot be read: nothing is compared, and all entries are fetched again"
            );
        }
        Ok(previous)
    }

    async fn plan(&self, run: &Run, function_arn: &str) -> Result<Vec<PlannedTarget>, RunError> {
        let planned = plan::targets(run, &self.accounts, function_arn).await?;
        run.deadline.set_targets(planned.len());
        Ok(planned)
    }

    async fn audit(
        &self,
        run: &Arc<Run>,
        function_arn: &str,
    ) -> Result<(PublishedSnapshot, Option<RunPage>), RunError> {
        let planned = self.plan(run, function_arn).await?;
        let AuditedTargets {
            mut outcomes,
            archive_error,
            renewals,
        } = passes::audit_all(run, planned, Outcomes::new(run)).await;
        outcomes
            .tally
            .set_renewals(renewal::renew_all(run, renewals).await);
        publish::snapshot(self, run, outcomes, archive_error).await
    }
}

/// Waits for the work of a run, but not beyond the instant at which Lambda may end it.
async fn in_time<T>(
    run: &Run,
    work: impl Future<Output = Result<T, RunError>>,
) -> Result<T, RunError> {
    let done = tokio::time::timeout_at(run.deadline.ends_at(), work).await;
    done.unwrap_or(Err(RunError::OutOfTime))
}
