//! One run: plan the targets, audit and archive each, publish the snapshot, answer.

mod answer;
pub(crate) mod deadline;
mod error;
mod metrics;
mod one_target;
mod page_size;
mod passes;
pub(crate) mod plan;
mod preflight;
mod renewal;
pub(crate) mod run;
mod turns;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::TryFutureExt;
use image_usage_archive::aws::{Aws, Bucket};
use image_usage_archive::documents::Snapshot;
use image_usage_archive::domain::target::Region;
use serde_json::Value;

pub use self::answer::{Answer, Summary};
pub use self::error::RunError;
use self::passes::AuditedTargets;
use self::plan::PlannedTarget;
pub use self::preflight::{Permission, PermissionCounts, Preflight, PreflightError, PreflightLine};
pub use self::run::Invocation;
use self::run::Run;
use crate::archive::latest::{self, FoundSnapshot};
use crate::archive::lines_writer::ArchiveError;
use crate::archive::previous::PreviousRun;
use crate::archive::snapshots::{self, PublishedSnapshot};
use crate::aws::Accounts;
use crate::request::Request;
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
        let request = Request::from_payload(payload, invocation.started_at)?;
        if let Some(time) = request.sample_time {
            tracing::warn!(
                %time, request_id = invocation.request_id,
                "the event's time is too far from now to be real: a sample, which is an audit of now"
            );
        }
        let dry_run = request.dry_run;
        let run = Arc::new(Run::start(
            request,
            &invocation,
            Arc::clone(&self.settings),
            self.bucket.clone(),
            self.home.clone(),
            self.renewal_pace,
        ));
        if dry_run {
            let planned = self.plan(&run, &invocation.function_arn).await?;
            return Ok(Answer::Preflight(Preflight::of(&run, planned).await));
        }
        let archived = self.archive(&run, &invocation.function_arn);
        let archived = tokio::time::timeout_at(run.deadline.ends_at(), archived).await;
        let published = archived.unwrap_or(Err(RunError::OutOfTime))?;
        let page = self
            .settings
            .archive_prefix
            .page(&run.facts.run_id, run.facts.scheduled_at);
        let summary = Summary::new(published, page, run.deadline.duration_ms());
        summary.log();
        Ok(Answer::Summary(Box::new(summary)))
    }

    /// Ensures that the run is archived and, if it is the newest full run, that `latest.json` is its copy.
    async fn archive(
        &self,
        run: &Arc<Run>,
        function_arn: &str,
    ) -> Result<PublishedSnapshot, RunError> {
        let layout = &self.settings.archive_prefix;
        let snapshot_key = layout.snapshot(&run.facts.run_id, run.facts.scheduled_at);
        let found = snapshots::find(&self.bucket, &snapshot_key).await;
        let found = found.map_err(RunError::ArchiveFailed)?;
        let latest_key = layout.latest();
        let is_new = found.is_none();
        // The previous snapshot is read while EC2 lists the reports.
        let previous = async {
            let latest =
                FoundSnapshot::read(&self.bucket, &latest_key, &run.unreadable_objects).await?;
            if is_new {
                run.set_previous(self.read_previous(run, &latest).await?);
            }
            Ok(latest)
        };
        let published = async {
            match found {
                Some(published) => Ok(published),
                None => self.audit(run, function_arn, &snapshot_key).await,
            }
        };
        let (latest, published) =
            tokio::try_join!(previous.map_err(RunError::ArchiveFailed), published)?;
        if run.facts.scope.full {
            let unreadable = &run.unreadable_objects;
            let advanced =
                latest::advance(&self.bucket, &latest_key, latest, &published, unreadable);
            advanced.await.map_err(RunError::ArchiveFailed)?;
        }
        Ok(published)
    }

    async fn read_previous(
        &self,
        run: &Run,
        latest: &FoundSnapshot,
    ) -> Result<Option<PreviousRun>, ArchiveError> {
        let (layout, unreadable) = (&self.settings.archive_prefix, &run.unreadable_objects);
        let previous = PreviousRun::read(&self.bucket, layout, latest, unreadable).await?;
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
        snapshot_key: &str,
    ) -> Result<PublishedSnapshot, RunError> {
        let planned = self.plan(run, function_arn).await?;
        let AuditedTargets {
            mut tally,
            archive_error,
            renewals,
        } = passes::audit_all(run, planned).await;
        let has_archived = tally.has_archived();
        if has_archived {
            tally.set_renewals(renewal::renew_all(run, renewals).await);
        }
        let finished_at = run.facts.started_at.plus(run.deadline.elapsed());
        let baseline = run.previous().await.filter(|_| run.facts.scope.full);
        let baseline = baseline.map(|previous| previous.baseline.clone());
        let snapshot = Snapshot::new(run.facts.clone(), finished_at, tally, baseline);
        let published = match archive_error {
            _ if has_archived => self.commit(snapshot_key, &snapshot).await,
            Some(error) => Err(RunError::ArchiveFailed(error)),
            None => Err(RunError::no_target_audited(&snapshot.targets)),
        };
        self.print_metrics(run, &snapshot, &published);
        published
    }

    async fn commit(&self, key: &str, snapshot: &Snapshot) -> Result<PublishedSnapshot, RunError> {
        let bytes = snapshot.to_bytes().map_err(RunError::SnapshotNotWritten)?;
        let committed = snapshots::commit(&self.bucket, key, bytes, snapshot).await;
        committed.map_err(RunError::ArchiveFailed)
    }

    /// Prints the metrics of a run, unless another attempt at it was faster and has printed them.
    fn print_metrics(
        &self,
        run: &Run,
        snapshot: &Snapshot,
        published: &Result<PublishedSnapshot, RunError>,
    ) {
        let snapshots_written = match published {
            Ok(published) if published.already_archived => return,
            Ok(_) => 1,
            Err(_) => 0,
        };
        let line = metrics::line(
            &self.function_name,
            snapshot,
            &metrics::OfRun {
                duration_ms: run.deadline.duration_ms(),
                snapshots_written,
                unreadable_objects: run.unreadable_objects.load(Ordering::Relaxed),
            },
        );
        println!("{line}");
    }
}
