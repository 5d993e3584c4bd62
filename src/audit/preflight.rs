//! The preflight: what EC2 would permit in every target.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::TargetError;
use image_usage_archive::domain::target::{AccountId, Region, Target};
use serde::Serialize;

use super::plan::{AccessTo, PlannedTarget};
use super::run::Run;
use crate::aws::ec2::UsageReports;
use crate::aws::ec2::pagination::PageCursor;

/// How many targets an answer lists: Lambda accepts answers of up to 6 MB.
const MAX_LISTED_TARGETS: usize = 1_000;

/// The smallest page of AMIs that EC2 returns.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeImages.html>
const FEWEST_IMAGES: u32 = 5;

/// What EC2 would permit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Preflight {
    /// Always true: nothing was written.
    pub dry_run: bool,
    /// Every target, counted.
    pub counts: PermissionCounts,
    /// Each error once, the most frequent first.
    pub errors: Vec<PreflightError>,
    /// The targets that are not permitted first, then the others; each sorted by account, then Region. At most
    /// 1,000.
    pub targets: Vec<PreflightLine>,
    /// The targets that are not listed.
    pub targets_omitted: u64,
    /// How long this invocation took, in milliseconds.
    pub duration_ms: u64,
}

/// Targets by what EC2 answered.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
#[expect(missing_docs, reason = "each field counts the answer of its name")]
pub struct PermissionCounts {
    pub permitted: u64,
    pub denied: u64,
    pub failed: u64,
}

/// An error, and in how many targets it occurred.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PreflightError {
    /// Its code.
    pub code: String,
    /// One of its messages.
    pub message: String,
    /// The targets that it occurred in.
    pub targets: u64,
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
        let order = |line: &PreflightLine| {
            let is_permitted = line.status == Permission::Permitted;
            (is_permitted, line.account_id.clone(), line.region.clone())
        };
        targets.sort_by_cached_key(order);
        let (counts, errors) = (count(&targets), errors(&targets));
        let targets_omitted = targets.len().saturating_sub(MAX_LISTED_TARGETS) as u64;
        let duration_ms = run.deadline.duration_ms();
        tracing::info!(
            run_id = %run.facts.run_id, permitted = counts.permitted, denied = counts.denied,
            failed = counts.failed, duration_ms, "preflight done"
        );
        targets.truncate(MAX_LISTED_TARGETS);
        Self {
            dry_run: true,
            counts,
            errors,
            targets,
            targets_omitted,
            duration_ms,
        }
    }
}

fn count(targets: &[PreflightLine]) -> PermissionCounts {
    let mut counts = PermissionCounts::default();
    for line in targets {
        *match line.status {
            Permission::Permitted => &mut counts.permitted,
            Permission::Denied => &mut counts.denied,
            Permission::Failed => &mut counts.failed,
        } += 1;
    }
    counts
}

/// Groups the errors of the targets by their code. Messages differ in request IDs and blobs, so one stands for
/// all.
fn errors(targets: &[PreflightLine]) -> Vec<PreflightError> {
    let mut by_code: BTreeMap<&str, PreflightError> = BTreeMap::new();
    for error in targets.iter().filter_map(|line| line.error.as_ref()) {
        let group = by_code
            .entry(&error.code)
            .or_insert_with(|| PreflightError {
                code: error.code.clone(),
                message: error.message.clone(),
                targets: 0,
            });
        group.targets += 1;
    }
    let mut errors: Vec<_> = by_code.into_values().collect();
    errors.sort_by_key(|error| std::cmp::Reverse(error.targets));
    errors
}

/// Says in the message what could not be read besides the reports.
fn about(what: &str, failure: CallFailure) -> CallFailure {
    CallFailure {
        message: format!("reading {what}: {}", failure.message),
        ..failure
    }
}

/// Asks whether a report about an AMI of the account may be requested. An account without AMIs needs none.
async fn ask_about_renewal(run: &Run, reports: &UsageReports) -> Result<(), CallFailure> {
    let images = reports.images();
    let mut cursor = PageCursor::new(Some(FEWEST_IMAGES));
    loop {
        let page = match images.page(cursor.max_results(), cursor.token()).await {
            Ok(page) => page,
            Err(failure) if run.images_page_size.restart(&mut cursor, &failure) => continue,
            Err(failure) => return Err(about("AMIs", failure)),
        };
        if let Some(image_id) = page.rows.into_iter().find_map(|image| image.image_id) {
            let asked = reports.requests().dry_run(image_id).await;
            return asked.map_err(|failure| CallFailure {
                message: format!("asking for reports: {}", failure.message),
                ..failure
            });
        }
        if !cursor.advance(page.next_token)? {
            return Ok(());
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
        if run.settings.archive_entries {
            let asked = reports.dry_run_entries().await;
            asked.map_err(|failure| about("entries", failure))?;
        }
        if let Some(policy) = run.usage_policy() {
            let images = reports.images();
            let asked = images.dry_run().await;
            asked.map_err(|failure| about("AMIs", failure))?;
            if policy.image_references {
                let asked = images.dry_run_references().await;
                asked.map_err(|failure| about("references", failure))?;
            }
            if policy.renew_reports {
                ask_about_renewal(run, &reports).await?;
            }
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
