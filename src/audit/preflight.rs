//! The preflight: what EC2 would permit in every target.

use futures_util::StreamExt;
use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::TargetError;
use image_usage_archive::domain::target::{AccountId, Region, Target};
use serde::Serialize;

use super::plan::{AccessTo, PlannedTarget};
use super::run::Run;
use crate::aws::ec2::UsageReports;

/// What EC2 would permit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Preflight {
    /// Always true: nothing was read or written.
    pub dry_run: bool,
    /// Every target, sorted by account, then Region.
    pub targets: Vec<PreflightLine>,
    /// How long this invocation took, in milliseconds.
    pub duration_ms: u64,
}

/// What EC2 would permit in one target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PreflightLine {
    /// The account that was asked in.
    pub account_id: AccountId,
    /// The Region that was asked in.
    pub region: Region,
    /// What EC2 answered.
    pub status: Permission,
    /// Why it is not permitted; `None` if it is.
    pub error: Option<TargetError>,
}

/// What EC2 answers to a dry run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// The listing would be carried out.
    Permitted,
    /// The listing would be refused because a permission is missing.
    Denied,
    /// EC2 could not be asked.
    Failed,
}

impl Preflight {
    /// Asks EC2 in every target, up to `max_concurrent_targets` at a time.
    pub(super) async fn of(run: &Run, planned: Vec<PlannedTarget>) -> Self {
        let mut targets: Vec<PreflightLine> = futures_util::stream::iter(planned)
            .map(|planned| ask(run, planned))
            .buffer_unordered(run.settings.max_concurrent_targets)
            .collect()
            .await;
        targets.sort_by(|a, b| (&a.account_id, &a.region).cmp(&(&b.account_id, &b.region)));
        let duration_ms = run.deadline.duration_ms();
        tracing::info!(
            run_id = %run.facts.run_id, targets = targets.len(), duration_ms, "preflight done"
        );
        Self {
            dry_run: true,
            targets,
            duration_ms,
        }
    }
}

async fn ask(run: &Run, planned: PlannedTarget) -> PreflightLine {
    let PlannedTarget {
        account,
        target,
        refused,
    } = planned;
    let reports = UsageReports::new(account.access(AccessTo::First).await, &target.region);
    let ask_all = async {
        if let Some(failure) = refused {
            return Err(failure);
        }
        for query in &run.queries {
            reports.dry_run(query).await?;
        }
        Ok(())
    };
    let asked: Result<(), CallFailure> = run.deadline.limit_read(ask_all).await;
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
