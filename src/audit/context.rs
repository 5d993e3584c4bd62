//! What every invocation of the function shares, and the objects of earlier runs that each one looks for.

use std::sync::Arc;
use std::time::Duration;

use image_usage_archive::aws::Bucket;
use image_usage_archive::documents::RunFacts;
use image_usage_archive::domain::target::Region;

use super::error::RunError;
use super::plan::{self, PlannedTarget};
use super::run::{self, Invocation, Run};
use crate::archive::latest::FoundSnapshot;
use crate::archive::previous::PreviousRun;
use crate::archive::snapshots::{self, PublishedSnapshot};
use crate::aws::Accounts;
use crate::request::Request;
use crate::settings::Settings;

/// The settings and clients of the function.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) settings: Arc<Settings>,
    pub(super) accounts: Accounts,
    pub(super) home: Region,
    pub(super) bucket: Bucket,
    pub(super) function_name: String,
    pub(super) renewal_pace: Duration,
}

impl Context {
    /// Names the run that a request asks for.
    pub(super) fn facts_of(&self, request: Request, invocation: &Invocation) -> RunFacts {
        if let Some(time) = request.sample_time {
            tracing::warn!(
                %time, request_id = invocation.request_id,
                "the event's time is too far from now to be real: a sample, which is an audit of now"
            );
        }
        run::facts_of(request, invocation, self.settings.policy.clone())
    }

    /// Starts the clock of an invocation that does a run, or a phase of it.
    pub(super) fn start(
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

    /// Finds the snapshot of a run that is archived already.
    pub(super) async fn find_snapshot(
        &self,
        run: &Run,
    ) -> Result<Option<PublishedSnapshot>, RunError> {
        let layout = &self.settings.archive_prefix;
        let key = layout.snapshot(&run.facts.run_id, run.facts.scheduled_at);
        let found = snapshots::find(&self.bucket, &key).await;
        found.map_err(RunError::ArchiveFailed)
    }

    /// Reads `latest.json`.
    pub(super) async fn find_latest(&self, run: &Run) -> Result<FoundSnapshot, RunError> {
        let (key, unreadable) = (
            self.settings.archive_prefix.latest(),
            &run.unreadable_objects,
        );
        let found = FoundSnapshot::read(&self.bucket, &key, unreadable).await;
        found.map_err(RunError::ArchiveFailed)
    }

    /// Reads the previous full snapshot, and the objects that it names; `None` if there is none that can be read.
    pub(super) async fn read_previous(
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

    /// Plans the targets of a run.
    pub(super) async fn plan(
        &self,
        run: &Run,
        function_arn: &str,
    ) -> Result<Vec<PlannedTarget>, RunError> {
        let planned = plan::targets(run, &self.accounts, function_arn).await?;
        run.deadline.set_targets(planned.len());
        Ok(planned)
    }
}

/// Waits for the work of a run, but not beyond the instant at which Lambda may end it.
pub(super) async fn in_time<T>(
    run: &Run,
    work: impl Future<Output = Result<T, RunError>>,
) -> Result<T, RunError> {
    let done = tokio::time::timeout_at(run.deadline.ends_at(), work).await;
    done.unwrap_or(Err(RunError::OutOfTime))
}
