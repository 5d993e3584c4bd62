//! One run: plan the targets → collect and audit each → archive → publish the snapshot → answer.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::archive::{
    self, ArchiveError, LinesWriter, PublishedSnapshot, SnapshotHead, SnapshotObject,
};
use crate::aws::{
    AccountAccess, Aws, Bucket, CallFailure, Caller, EnabledRegions, FailureKind, ReportQuery,
    UsageReports,
};
use crate::findings::{self, Finding, ListedFindings, Policy};
use crate::keys::RunId;
use crate::metrics;
use crate::report::UsageReport;
use crate::request::{InvalidRequest, Request};
use crate::settings::{AccountChoice, RegionChoice, Settings};
use crate::snapshot::{
    Counts, LedgerLine, ReportLine, RunFacts, RunStatus, Scope, Snapshot, TargetError,
    TargetOutcome, TargetStatus,
};
use crate::target::{AccountId, Region, Target};
use crate::timestamp::Timestamp;

/// EC2 takes at most so many IDs in one call.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeImageUsageReports.html>
const MAX_IDS_PER_CALL: usize = 200;

/// The time that a run has where nothing tells its deadline: the longest that Lambda gives.
const LONGEST_RUN: Duration = Duration::from_secs(900);

/// The time set aside for one call to S3 when reading has to stop.
const ARCHIVE_CALL: Duration = Duration::from_secs(1);

/// The calls that follow the last target: the snapshot, and reading and writing `latest.json`.
const CALLS_TO_PUBLISH: u32 = 3;

/// The part of a run's time that is set aside for archiving at most: one in so many.
///
/// A function that is given a few seconds shall still read for most of them.
const LARGEST_MARGIN_SHARE: u32 = 4;

/// How many accounts are asked for their Regions at a time.
const MAX_CONCURRENT_ACCOUNTS: usize = 8;

/// How many failed targets an error names; the log has a line for each.
const MAX_NAMED_FAILURES: usize = 5;

/// The function behind the Lambda handler.
pub struct Auditor {
    settings: Settings,
    aws: Aws,
    home: Region,
    bucket: Bucket,
    function_name: String,
}

/// What Lambda tells of an invocation.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The request's ID, the same for each retry of an asynchronous invocation.
    pub request_id: String,
    /// The function's ARN; in local emulators, any text.
    pub function_arn: String,
    /// The wall clock at the start.
    pub started_at: Timestamp,
    /// The time from the start to the function's deadline; `None` where it isn't known.
    pub time_left: Option<Duration>,
}

/// What the function answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// The run is archived.
    Summary(Box<Summary>),
    /// A dry run's result.
    Preflight(Preflight),
}

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Summary {
    /// The run.
    pub run_id: RunId,
    /// Whether it saw everything.
    pub status: RunStatus,
    /// Where its snapshot lies.
    pub snapshot: SnapshotObject,
    /// What it counted.
    pub counts: Counts,
    /// How long this invocation took.
    pub duration_ms: u64,
    /// Whether an earlier invocation had done the run already.
    pub already_archived: bool,
}

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

/// Why an invocation has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The payload is not a valid event or request.
    #[error(transparent)]
    InvalidRequest(#[from] InvalidRequest),
    /// The accounts to audit need a role that the settings don't name.
    #[error(
        "AUDITOR_ROLE_NAME is not set, but {account_id} is another account: name the role to assume in it"
    )]
    RoleNotSet {
        /// The other account.
        account_id: AccountId,
    },
    /// No target could be read at all, so that there is nothing to archive.
    #[error("no target could be audited: {reasons}")]
    NoTargetAudited {
        /// The first reasons.
        reasons: String,
    },
    /// The archive could not be read or written.
    #[error("the archive could not be written")]
    ArchiveFailed(#[source] ArchiveError),
}

impl RunError {
    /// The name under which Lambda reports the error.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "InvalidRequest",
            Self::RoleNotSet { .. } => "InvalidSettings",
            Self::NoTargetAudited { .. } => "NoTargetAudited",
            Self::ArchiveFailed(_) => "ArchiveFailed",
        }
    }
}

/// What all targets of a run share.
struct Run {
    facts: RunFacts,
    queries: Vec<ReportQuery>,
    clock: Instant,
    stop_reading_at: Instant,
}

/// An account of the run.
struct Account {
    access: AccountAccess,
    enabled: OnceCell<Result<EnabledRegions, CallFailure>>,
}

impl Account {
    /// Asks which Regions the account has enabled, once a run.
    async fn enabled_regions(&self, home: &Region) -> Result<&EnabledRegions, CallFailure> {
        let ask = || EnabledRegions::of(&self.access, home);
        self.enabled
            .get_or_init(ask)
            .await
            .as_ref()
            .map_err(CallFailure::clone)
    }
}

/// A target of the run, or why it can't be one.
struct Planned {
    account: Arc<Account>,
    target: Target,
    refused: Option<CallFailure>,
}

/// A target's outcome, and whether it was the archive that failed it.
struct Audited {
    outcome: TargetOutcome,
    archive_error: Option<ArchiveError>,
}

impl Auditor {
    /// Puts the function together.
    pub fn new(settings: Settings, aws: Aws, home: Region, function_name: String) -> Self {
        let bucket = aws.bucket(&settings.archive_bucket);
        Self {
            settings,
            aws,
            home,
            bucket,
            function_name,
        }
    }

    /// Carries out one invocation.
    ///
    /// # Errors
    /// Fails when the payload is invalid, when no target could be read, and when the archive could not
    /// be written; findings and failed targets are no errors.
    pub async fn handle(&self, payload: Value, invocation: Invocation) -> Result<Answer, RunError> {
        let clock = Instant::now();
        let request = Request::from_payload(payload)?;
        let scheduled_at = request.scheduled_at.unwrap_or(invocation.started_at);
        let run_id = match &request.event_id {
            Some(event_id) => RunId::of_event(scheduled_at, event_id),
            None => RunId::of_request(scheduled_at, &invocation.request_id),
        };
        let time_left = invocation.time_left.unwrap_or(LONGEST_RUN);
        let run = Run {
            queries: queries(&request, self.settings.page_size),
            facts: RunFacts {
                run_id,
                scope: request.scope,
                scheduled_at,
                started_at: invocation.started_at,
                policy: self.settings.policy,
            },
            clock,
            stop_reading_at: clock + time_left - self.archive_margin(time_left),
        };
        if request.dry_run {
            return self
                .preflight(&run, &invocation)
                .await
                .map(Answer::Preflight);
        }
        let snapshot_key = self
            .settings
            .archive_prefix
            .snapshot(&run.facts.run_id, scheduled_at);
        let found = archive::find_snapshot(&self.bucket, &snapshot_key)
            .await
            .map_err(RunError::ArchiveFailed)?;
        let published = match found {
            Some(published) => published,
            None => self.audit(&run, &invocation, &snapshot_key).await?,
        };
        if run.facts.scope.full {
            let latest = self.settings.archive_prefix.latest();
            let advanced = archive::advance_latest(&self.bucket, &latest, &published).await;
            advanced.map_err(RunError::ArchiveFailed)?;
        }
        let PublishedSnapshot {
            object,
            head,
            bytes: _,
            already_archived,
        } = published;
        let duration_ms = milliseconds(run.clock.elapsed());
        tracing::info!(
            run_id = %head.run_id,
            status = head.status.as_str(),
            targets_complete = head.counts.targets.complete,
            targets_incomplete = head.counts.targets.incomplete,
            targets_failed = head.counts.targets.failed,
            targets_skipped = head.counts.targets.skipped,
            reports = head.counts.reports.total,
            findings = head.counts.findings.total,
            snapshot = object.key,
            already_archived,
            duration_ms,
            "run archived"
        );
        let SnapshotHead {
            run_id,
            status,
            counts,
            scheduled_at: _,
        } = head;
        Ok(Answer::Summary(Box::new(Summary {
            run_id,
            status,
            snapshot: object,
            counts,
            duration_ms,
            already_archived,
        })))
    }

    /// The time to set aside for archiving what has been read by then: for each target at work the last
    /// part, and what follows the targets.
    fn archive_margin(&self, time_left: Duration) -> Duration {
        let calls = self.settings.max_concurrent_targets as u32 + CALLS_TO_PUBLISH;
        (ARCHIVE_CALL * calls).min(time_left / LARGEST_MARGIN_SHARE)
    }

    async fn audit(
        &self,
        run: &Run,
        invocation: &Invocation,
        snapshot_key: &str,
    ) -> Result<PublishedSnapshot, RunError> {
        let planned = self.plan(run, invocation).await?;
        let mut archive_error = None;
        let outcomes: Vec<TargetOutcome> = futures_util::stream::iter(planned)
            .map(|planned| self.audit_target(run, planned))
            .buffer_unordered(self.settings.max_concurrent_targets)
            .map(|audited| {
                archive_error = archive_error.take().or(audited.archive_error);
                audited.outcome
            })
            .collect()
            .await;
        let any_read = outcomes.iter().any(|outcome| {
            matches!(
                outcome.ledger.status,
                TargetStatus::Complete | TargetStatus::Incomplete
            )
        });
        let finished_at = invocation.started_at.plus(run.clock.elapsed());
        let full = run.facts.scope.full;
        let snapshot = Snapshot::new(run.facts.clone(), finished_at, outcomes);
        let published = match archive_error {
            _ if any_read => self.commit(snapshot_key, &snapshot).await,
            Some(error) => Err(RunError::ArchiveFailed(error)),
            None => Err(RunError::NoTargetAudited {
                reasons: reasons(&snapshot.targets),
            }),
        };
        // Another try of the run may have been faster: it has written the metrics then.
        let written = published
            .as_ref()
            .is_ok_and(|published| !published.already_archived);
        if written || published.is_err() {
            let duration_ms = milliseconds(run.clock.elapsed());
            let name = &self.function_name;
            let line = metrics::line(
                name,
                full,
                finished_at,
                &snapshot.counts,
                duration_ms,
                u64::from(written),
            );
            println!("{line}");
        }
        published
    }

    async fn commit(&self, key: &str, snapshot: &Snapshot) -> Result<PublishedSnapshot, RunError> {
        let mut bytes = serde_json::to_vec(snapshot).map_err(|error| {
            // Nothing in a snapshot can't be written as JSON; were it otherwise, nothing may be lost silently.
            RunError::NoTargetAudited {
                reasons: format!("the snapshot can't be written as JSON: {error}"),
            }
        })?;
        bytes.push(b'\n');
        let head = SnapshotHead {
            run_id: snapshot.run_id.clone(),
            scheduled_at: snapshot.scheduled_at,
            status: snapshot.status,
            counts: snapshot.counts,
        };
        archive::commit_snapshot(&self.bucket, key, bytes, head)
            .await
            .map_err(RunError::ArchiveFailed)
    }

    /// Tells the targets of a run, sorted.
    async fn plan(&self, run: &Run, invocation: &Invocation) -> Result<Vec<Planned>, RunError> {
        let unreachable = |failure: CallFailure| RunError::NoTargetAudited {
            reasons: failure.to_string(),
        };
        let caller = match Caller::from_arn(&invocation.function_arn) {
            Some(caller) => caller,
            None => self.aws.caller().await.map_err(unreachable)?,
        };
        let mut account_ids: BTreeSet<AccountId> =
            match (&run.facts.scope.account_ids, &self.settings.accounts) {
                (ids, _) if !ids.is_empty() => ids.iter().cloned().collect(),
                (_, AccountChoice::Own) => BTreeSet::from([caller.account_id.clone()]),
                (_, AccountChoice::Listed(ids)) => ids.iter().cloned().collect(),
                (_, AccountChoice::Organization) => self
                    .aws
                    .organization_accounts()
                    .await
                    .map_err(unreachable)?
                    .into_iter()
                    .collect(),
            };
        let own = Arc::new(Account {
            access: self.aws.own_account(caller.account_id.clone()),
            enabled: OnceCell::new(),
        });
        let mut accounts = Vec::new();
        if account_ids.remove(&caller.account_id) {
            accounts.push(Arc::clone(&own));
        }
        for account_id in account_ids {
            let Some(role_name) = &self.settings.role_name else {
                return Err(RunError::RoleNotSet { account_id });
            };
            let external_id = self.settings.external_id.as_deref();
            let access = self.aws.member_account(
                account_id,
                &self.home,
                &caller.partition,
                role_name,
                external_id,
            );
            accounts.push(Arc::new(Account {
                access,
                enabled: OnceCell::new(),
            }));
        }
        let mut planned: Vec<Planned> = futures_util::stream::iter(accounts)
            .map(|account| self.plan_account(run, account, &own))
            .buffer_unordered(MAX_CONCURRENT_ACCOUNTS)
            .flat_map(futures_util::stream::iter)
            .collect()
            .await;
        planned.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(planned)
    }

    async fn plan_account(&self, run: &Run, account: Arc<Account>, own: &Account) -> Vec<Planned> {
        let (regions, refused) = match (&run.facts.scope.regions, &self.settings.regions) {
            (regions, _) if !regions.is_empty() => (regions.iter().cloned().collect(), None),
            (_, RegionChoice::Own) => (BTreeSet::from([self.home.clone()]), None),
            (_, RegionChoice::Listed(regions)) => (regions.iter().cloned().collect(), None),
            (_, RegionChoice::All) => {
                match run.before_stop(account.enabled_regions(&self.home)).await {
                    Ok(enabled) => (enabled.names(), None),
                    Err(mut failure) => {
                        failure.message =
                            format!("failed to list the account's Regions: {}", failure.message);
                        // The Regions of the function's own account stand in for those that can't be told.
                        let stand_in = run.before_stop(own.enabled_regions(&self.home)).await;
                        let regions = stand_in.map_or_else(
                            |_| BTreeSet::from([self.home.clone()]),
                            EnabledRegions::names,
                        );
                        (regions, Some(failure))
                    }
                }
            }
        };
        let account_id = account.access.account_id();
        let planned = regions.into_iter().map(|region| Planned {
            account: Arc::clone(&account),
            target: Target {
                account_id: account_id.clone(),
                region,
            },
            refused: refused.clone(),
        });
        planned.collect()
    }

    async fn audit_target(&self, run: &Run, planned: Planned) -> Audited {
        let audited = self.read_and_archive(run, planned).await;
        let LedgerLine {
            account_id,
            region,
            status,
            pages,
            reports,
            error,
            object: _,
        } = &audited.outcome.ledger;
        let run_id = &run.facts.run_id;
        let (status, pages, reports) = (status.as_str(), *pages, *reports);
        match error {
            None => {
                tracing::info!(%run_id, %account_id, %region, status, pages, reports, "target audited")
            }
            Some(error) => tracing::warn!(
                %run_id, %account_id, %region, status, pages, reports,
                error_code = error.code, error_message = error.message, request_id = error.request_id,
                "target not audited to its end"
            ),
        }
        audited
    }

    async fn read_and_archive(&self, run: &Run, planned: Planned) -> Audited {
        let Planned {
            account,
            target,
            refused,
        } = planned;
        let unread = |target, status, pages, error| Audited {
            outcome: TargetOutcome::unread(target, status, pages, error),
            archive_error: None,
        };
        if let Some(failure) = refused {
            return unread(target, TargetStatus::Failed, 0, failure.into());
        }
        let key = self.settings.archive_prefix.reports(
            &run.facts.run_id,
            run.facts.scheduled_at,
            &target,
        );
        let mut audit = TargetAudit {
            target,
            policy: run.facts.policy,
            now: run.facts.started_at,
            writer: LinesWriter::new(&self.bucket, key),
            seen: HashSet::new(),
            pages: 0,
            counts: Counts::default(),
            findings: ListedFindings::default(),
        };
        let reports = UsageReports::new(&account.access, &audit.target.region);
        let mut broken_off = None;
        for query in &run.queries {
            match audit.read_listing(run, &reports, query.clone()).await {
                Ok(()) => {}
                Err(ReadError::Ec2(failure)) => {
                    broken_off = Some(failure);
                    break;
                }
                Err(ReadError::Archive(error)) => return audit.unarchived(error).await,
            }
        }
        match broken_off {
            Some(failure) if audit.pages == 0 => {
                let status = match failure.kind {
                    FailureKind::RegionRefused
                        if self.is_not_enabled(run, &account, &audit.target).await =>
                    {
                        TargetStatus::Skipped
                    }
                    _ => TargetStatus::Failed,
                };
                unread(audit.target, status, 0, failure.into())
            }
            broken_off => audit.archive(broken_off).await,
        }
    }

    /// Tells a Region that the account has not enabled from one where it is denied: EC2 answers both
    /// with `AuthFailure`. What can't be told counts as denied.
    async fn is_not_enabled(&self, run: &Run, account: &Account, target: &Target) -> bool {
        let enabled = run.before_stop(account.enabled_regions(&self.home)).await;
        enabled.is_ok_and(|enabled| enabled.is_not_enabled(&target.region))
    }

    async fn preflight(&self, run: &Run, invocation: &Invocation) -> Result<Preflight, RunError> {
        let planned = self.plan(run, invocation).await?;
        let mut targets: Vec<PreflightLine> = futures_util::stream::iter(planned)
            .map(|planned| preflight_target(run, planned))
            .buffer_unordered(self.settings.max_concurrent_targets)
            .collect()
            .await;
        targets.sort_by(|a, b| (&a.account_id, &a.region).cmp(&(&b.account_id, &b.region)));
        let duration_ms = milliseconds(run.clock.elapsed());
        tracing::info!(run_id = %run.facts.run_id, targets = targets.len(), duration_ms, "preflight done");
        Ok(Preflight {
            dry_run: true,
            targets,
            duration_ms,
        })
    }
}

async fn preflight_target(run: &Run, planned: Planned) -> PreflightLine {
    let Planned {
        account,
        target,
        refused,
    } = planned;
    let asked = match refused {
        Some(failure) => Err(failure),
        None => {
            let reports = UsageReports::new(&account.access, &target.region);
            let ask_all = async {
                for query in &run.queries {
                    reports.dry_run(query).await?;
                }
                Ok(())
            };
            run.before_stop(ask_all).await
        }
    };
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

impl Run {
    /// Waits for a call, but not beyond the moment at which reading has to stop.
    async fn before_stop<T>(
        &self,
        call: impl Future<Output = Result<T, CallFailure>>,
    ) -> Result<T, CallFailure> {
        match tokio::time::timeout_at(self.stop_reading_at, call).await {
            Ok(answer) => answer,
            Err(_) => Err(CallFailure {
                code: "DeadlineExceeded".to_owned(),
                message: "the function's time was up: give it more, or fewer targets".to_owned(),
                request_id: None,
                kind: FailureKind::Lasting,
            }),
        }
    }
}

/// What stopped the reading of a target.
enum ReadError {
    Ec2(CallFailure),
    Archive(ArchiveError),
}

impl From<CallFailure> for ReadError {
    fn from(failure: CallFailure) -> Self {
        Self::Ec2(failure)
    }
}

/// The audit of one target, under way.
struct TargetAudit<'a> {
    target: Target,
    policy: Policy,
    now: Timestamp,
    writer: LinesWriter<'a>,
    seen: HashSet<String>,
    pages: u64,
    counts: Counts,
    findings: ListedFindings,
}

impl TargetAudit<'_> {
    /// Reads one listing to its end.
    ///
    /// The SDK's paginator is not used, for it takes a repeated token for the end of the listing.
    async fn read_listing(
        &mut self,
        run: &Run,
        reports: &UsageReports,
        mut query: ReportQuery,
    ) -> Result<(), ReadError> {
        let mut token: Option<String> = None;
        let mut tokens_seen = HashSet::new();
        let mut restarted = false;
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
                    tokens_seen.clear();
                    continue;
                }
                Err(failure)
                    if failure.kind == FailureKind::PageSizeRefused
                        && query.max_results.is_some() =>
                {
                    query.max_results = None;
                    token = None;
                    tokens_seen.clear();
                    continue;
                }
                Err(failure) => return Err(failure.into()),
            };
            self.pages += 1;
            for report in &page.reports {
                self.audit_report(report);
            }
            self.writer
                .send_full_part()
                .await
                .map_err(ReadError::Archive)?;
            match page.next_token {
                None => return Ok(()),
                Some(next) if !tokens_seen.insert(next.clone()) => {
                    return Err(ReadError::Ec2(CallFailure {
                        code: "RepeatedToken".to_owned(),
                        message: "EC2 gave a page token for the second time, so that the listing has no end".to_owned(),
                        request_id: None,
                        kind: FailureKind::Passing,
                    }));
                }
                next => token = next,
            }
        }
    }

    fn audit_report(&mut self, report: &UsageReport) {
        if let Some(report_id) = &report.report_id
            && !self.seen.insert(report_id.clone())
        {
            return;
        }
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

    /// Archives what was read.
    async fn archive(self, broken_off: Option<CallFailure>) -> Audited {
        let Self {
            target,
            writer,
            pages,
            mut counts,
            findings,
            ..
        } = self;
        let (status, error) = match broken_off {
            None => (TargetStatus::Complete, None),
            Some(failure) => (TargetStatus::Incomplete, Some(failure.into())),
        };
        match writer.finish().await {
            Ok(object) => {
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
                Audited {
                    outcome: TargetOutcome {
                        ledger,
                        counts,
                        findings,
                    },
                    archive_error: None,
                }
            }
            Err(error) => unarchived(target, pages, error),
        }
    }

    /// Gives the target up, for its object can't be written.
    async fn unarchived(mut self, error: ArchiveError) -> Audited {
        self.writer.abandon().await;
        unarchived(self.target, self.pages, error)
    }
}

/// Tells of a target that was read but is not in the archive: for whoever relies on the archive, that is
/// a target that was not read.
fn unarchived(target: Target, pages: u64, error: ArchiveError) -> Audited {
    let CallFailure {
        code,
        message,
        request_id,
        kind: _,
    } = error.failure.clone();
    let message = format!("{error}: {message}");
    let reason = TargetError {
        code,
        message,
        request_id,
    };
    let outcome = TargetOutcome::unread(target, TargetStatus::Failed, pages, reason);
    Audited {
        outcome,
        archive_error: Some(error),
    }
}

/// The listings that a request comes to: one, or several where it names more IDs than EC2 takes.
fn queries(request: &Request, page_size: u32) -> Vec<ReportQuery> {
    let Scope {
        image_ids,
        report_ids,
        filters,
        ..
    } = &request.scope;
    let mut queries = Vec::new();
    for image_ids in chunks(image_ids) {
        for report_ids in chunks(report_ids) {
            queries.push(ReportQuery {
                image_ids: image_ids.clone(),
                report_ids,
                filters: filters.clone(),
                max_results: Some(request.max_results.unwrap_or(page_size)),
            });
        }
    }
    queries
}

/// The IDs, each once, in groups that EC2 takes; one empty group where there are none.
fn chunks(ids: &[String]) -> Vec<Vec<String>> {
    let mut named = HashSet::new();
    let once: Vec<String> = ids.iter().filter(|id| named.insert(*id)).cloned().collect();
    if once.is_empty() {
        return vec![Vec::new()];
    }
    once.chunks(MAX_IDS_PER_CALL)
        .map(<[String]>::to_vec)
        .collect()
}

/// The reasons why targets failed, each with the targets it holds for.
fn reasons(targets: &[LedgerLine]) -> String {
    if targets.is_empty() {
        return "there is none".to_owned();
    }
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for LedgerLine {
        account_id,
        region,
        error,
        ..
    } in targets
    {
        let reason = error
            .as_ref()
            .map_or_else(String::new, TargetError::to_string);
        by_reason
            .entry(reason)
            .or_default()
            .push(format!("{account_id}/{region}"));
    }
    let more = by_reason.len().saturating_sub(MAX_NAMED_FAILURES);
    let mut named: Vec<String> = by_reason
        .into_iter()
        .take(MAX_NAMED_FAILURES)
        .map(|(reason, targets)| match targets.as_slice() {
            [target] => format!("{target}: {reason}"),
            [first, rest @ ..] => format!("{first} and {} more: {reason}", rest.len()),
            [] => reason,
        })
        .collect();
    if more > 0 {
        named.push(format!("and {more} more reasons"));
    }
    named.join("; ")
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
