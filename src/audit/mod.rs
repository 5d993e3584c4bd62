//! One run: plan the targets, audit and archive each, publish the snapshot, answer.

mod answer;
mod context;
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
use image_usage_archive::domain::target::Region;
use serde_json::Value;

pub use self::answer::{Answer, BatchAnswer, PlanAnswer, PlannedTargets, Summary};
use self::context::{Context, in_time};
pub use self::error::RunError;
use self::passes::AuditedTargets;
pub use self::preflight::{Permission, PermissionCounts, Preflight, PreflightError, PreflightLine};
use self::publish::{Archived, Outcomes};
pub use self::run::Invocation;
use self::run::Run;
use self::run_page::RunPage;
use crate::archive::snapshots::PublishedSnapshot;
use crate::aws::Accounts;
use crate::request::Invoked;
use crate::settings::Settings;

/// The function behind the Lambda handler.
#[derive(Debug)]
pub struct Auditor(Context);

impl Auditor {
    /// Creates the function; it makes no call yet.
    pub fn new(settings: Settings, aws: &Aws, home: Region, function_name: String) -> Self {
        Self(Context {
            bucket: Bucket::new(aws.config(), &settings.archive_bucket)
                .with_write_headers(settings.write_headers.clone()),
            accounts: Accounts::new(aws),
            settings: Arc::new(settings),
            home,
            function_name,
            renewal_pace: renewal::PACE,
        })
    }

    /// Sets the time between two requests for reports in a target; by default, EC2's limits allow it. For tests.
    #[must_use]
    pub fn with_renewal_pace(self, renewal_pace: Duration) -> Self {
        let Self(context) = self;
        Self(Context {
            renewal_pace,
            ..context
        })
    }

    /// Handles one invocation.
    ///
    /// # Errors
    /// Fails if the payload is invalid, if no target could be read, and if the archive could not be
    /// written. Findings and failed targets are no errors.
    pub async fn handle(&self, payload: Value, invocation: Invocation) -> Result<Answer, RunError> {
        let Self(context) = self;
        let request = match Invoked::from_payload(payload, invocation.started_at)? {
            Invoked::Run(request) => request,
            Invoked::Phase(phase) => return phases::answer(context, phase, invocation).await,
        };
        let (dry_run, max_results) = (request.dry_run, request.max_results);
        let facts = context.facts_of(request, &invocation);
        let run = context.start(facts, max_results, &invocation);
        if dry_run {
            let planned = context.plan(&run, &invocation.function_arn).await?;
            return Ok(Answer::Preflight(Preflight::of(&run, planned).await));
        }
        let archived = archive(context, &run, &invocation.function_arn);
        let archived = in_time(&run, archived).await?;
        Ok(publish::answer(&run, archived).await)
    }
}

/// Ensures that the run is archived and, if it is the newest full run, that `latest.json` is its copy.
async fn archive(
    context: &Context,
    run: &Arc<Run>,
    function_arn: &str,
) -> Result<Archived, RunError> {
    let found = context.find_snapshot(run).await?;
    let is_new = found.is_none();
    // The previous snapshot is read while EC2 lists the reports.
    let previous = async {
        let latest = context.find_latest(run).await?;
        if is_new {
            run.set_previous(context.read_previous(run, &latest).await?);
        }
        Ok(latest)
    };
    let published = async {
        match found {
            Some(published) => Ok((published, None)),
            None => audit(context, run, function_arn).await,
        }
    };
    let (latest, (published, page)) = tokio::try_join!(previous, published)?;
    publish::advance_latest(context, run, latest, published, page).await
}

async fn audit(
    context: &Context,
    run: &Arc<Run>,
    function_arn: &str,
) -> Result<(PublishedSnapshot, Option<RunPage>), RunError> {
    let planned = context.plan(run, function_arn).await?;
    let AuditedTargets {
        mut outcomes,
        archive_error,
        renewals,
    } = passes::audit_all(run, planned, Outcomes::new(run)).await;
    outcomes
        .tally
        .set_renewals(renewal::renew_all(run, renewals).await);
    publish::snapshot(context, run, outcomes, archive_error).await
}
