//! The preflight: what EC2 would permit in every target.

use futures_util::StreamExt;
use serde::Serialize;

use crate::audit::Run;
use crate::audit::plan::Planned;
use crate::aws::ec2::UsageReports;
use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::snapshot::TargetError;
use image_usage_archive::domain::target::{AccountId, Region, Target};

/// What EC2 would permit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Preflight {
    /// Always true: nothing was read or written.
    pub dry_run: bool,
    /// Every target, sorted by account, then Region.
    pub targets: Vec<PreflightLine>,
    /// How long this invocation took.
    pub duration_ms: u64,
}

/// What EC2 would permit in one target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PreflightLine {
    /// The account that was asked in.
    pub account_id: AccountId,
    /// The Region that was asked in.
    pub region: Region,
    /// What EC2 said.
    pub status: Permission,
    /// Why it isn't permitted; `None` when it is.
    pub error: Option<TargetError>,
}

/// What EC2 says to a dry run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// The listing would be carried out.
    Permitted,
    /// The listing would be refused for lack of a permission.
    Denied,
    /// EC2 could not be asked.
    Failed,
}

impl Preflight {
    /// Asks EC2 in every target, so many at a time.
    pub(crate) async fn new(run: &Run, planned: Vec<Planned>, concurrency: usize) -> Self {
        let mut targets: Vec<PreflightLine> = futures_util::stream::iter(planned)
            .map(|planned| ask(run, planned))
            .buffer_unordered(concurrency)
            .collect()
            .await;
        targets.sort_by(|a, b| (&a.account_id, &a.region).cmp(&(&b.account_id, &b.region)));
        let duration_ms = run.duration_ms();
        tracing::info!(run_id = %run.facts.run_id, targets = targets.len(), duration_ms, "preflight done");
        Self {
            dry_run: true,
            targets,
            duration_ms,
        }
    }
}

async fn ask(run: &Run, planned: Planned) -> PreflightLine {
    let Planned {
        account,
        target,
        refused,
    } = planned;
    let reports = UsageReports::new(account.access(false).await, &target.region);
    let ask_all = async {
        if let Some(failure) = refused {
            return Err(failure);
        }
        for query in &run.queries {
            reports.dry_run(query).await?;
        }
        Ok(())
    };
    let asked: Result<(), CallFailure> = run.before_stop(ask_all).await;
    let (status, error) = match asked {
        Ok(()) => (Permission::Permitted, None),
        Err(failure) if failure.kind == FailureKind::Denied => {
            (Permission::Denied, Some(failure.into()))
        }
        Err(failure) => (Permission::Failed, Some(failure.into())),
    };
    let Target { account_id, region } = target;
    PreflightLine {
        account_id,
        region,
        status,
        error,
    }
}
