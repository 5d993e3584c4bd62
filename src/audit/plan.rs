//! Which targets a run has: every account in each of its Regions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::TargetLine;
use image_usage_archive::domain::target::{AccountId, Region, Target};
use tokio::sync::OnceCell;

use super::error::RunError;
use super::run::Run;
use crate::aws::ec2::EnabledRegions;
use crate::aws::{AccountAccess, Accounts, Caller};
use crate::request::InvalidRequest;
use crate::settings::{AccountChoice, RegionChoice};

/// How many accounts are asked for their Regions at a time.
///
/// Each is a call to STS and one to EC2, which hold little; EC2 throttles by account.
const MAX_CONCURRENT_ACCOUNTS: usize = 16;

/// Whose credentials an attempt uses: those of the first attempt, or new ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AccessTo {
    First,
    Renewed,
}

/// An account of the run.
#[derive(Debug)]
pub(crate) struct Account {
    access: AccountAccess,
    renewed: OnceCell<AccountAccess>,
    enabled: [OnceCell<Result<EnabledRegions, CallFailure>>; 2],
    /// A Region that the account has enabled, even if it has not enabled the function's own.
    default_region: Option<Region>,
}

impl Account {
    fn new(access: AccountAccess, default_region: Option<Region>) -> Arc<Self> {
        Arc::new(Self {
            access,
            renewed: OnceCell::new(),
            enabled: [OnceCell::new(), OnceCell::new()],
            default_region,
        })
    }

    /// Access to the account; for a second attempt, with new credentials.
    pub(crate) async fn access(&self, to: AccessTo) -> &AccountAccess {
        match to {
            AccessTo::First => &self.access,
            AccessTo::Renewed => {
                let renew = async || self.access.renewed();
                self.renewed.get_or_init(renew).await
            }
        }
    }

    /// Access to the account, with the newest credentials that an attempt has used.
    pub(crate) fn latest_access(&self) -> &AccountAccess {
        self.renewed.get().unwrap_or(&self.access)
    }

    /// Asks which Regions the account has enabled: once a run, and once more for second attempts.
    pub(crate) async fn enabled_regions(
        &self,
        home: &Region,
        to: AccessTo,
    ) -> Result<&EnabledRegions, CallFailure> {
        let ask = async || {
            let access = self.access(to).await;
            match (EnabledRegions::of(access, home).await, &self.default_region) {
                (Err(failure), Some(default))
                    if failure.kind == FailureKind::RegionRefused && default != home =>
                {
                    EnabledRegions::of(access, default).await
                }
                (answer, _) => answer,
            }
        };
        let answer = &self.enabled[usize::from(to == AccessTo::Renewed)];
        let answer = answer.get_or_init(ask).await;
        answer.as_ref().map_err(CallFailure::clone)
    }
}

/// A target of the run.
#[derive(Clone, Debug)]
pub(crate) struct PlannedTarget {
    pub(crate) account: Arc<Account>,
    pub(crate) target: Target,
    /// Why it cannot be audited, if that is known already.
    pub(crate) refused: Option<CallFailure>,
}

/// Plans the targets of a run, sorted.
///
/// # Errors
/// Fails if the accounts cannot be determined, or if another account needs a role and none is configured. An
/// account whose role cannot be assumed, or whose Regions cannot be listed, fails only its own targets.
pub(super) async fn targets(
    run: &Run,
    accounts: &Accounts,
    function_arn: &str,
) -> Result<Vec<PlannedTarget>, RunError> {
    let caller = caller(run, accounts, function_arn).await?;
    let account_ids = account_ids(run, accounts, &caller).await?;
    let own = Account::new(accounts.own_account(caller.account_id.clone()), None);
    let planned_accounts = with_access(run, accounts, &caller, &own, account_ids)?;
    let (asked, refused) = ask_all(run, &own, planned_accounts, AccessTo::First).await;
    let (asked_again, _) = ask_all(run, &own, refused, AccessTo::Renewed).await;
    let mut planned = [asked, asked_again].concat();
    planned.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(planned)
}

/// Gives access to targets that another phase of the run has planned.
///
/// # Errors
/// Fails as [`targets`] does.
pub(super) async fn planned_before(
    run: &Run,
    accounts: &Accounts,
    function_arn: &str,
    lines: &[TargetLine],
) -> Result<Vec<PlannedTarget>, RunError> {
    let caller = caller(run, accounts, function_arn).await?;
    let own = Account::new(accounts.own_account(caller.account_id.clone()), None);
    let account_ids = lines.iter().map(|line| line.account_id.clone()).collect();
    let with_access = with_access(run, accounts, &caller, &own, account_ids)?;
    let by_id: BTreeMap<&AccountId, &Arc<Account>> = with_access
        .iter()
        .map(|account| (account.access.account_id(), account))
        .collect();
    let planned = lines.iter().map(|line| PlannedTarget {
        account: Arc::clone(by_id[&line.account_id]),
        target: line.target(),
        refused: line.error.clone().map(CallFailure::from),
    });
    Ok(planned.collect())
}

async fn caller(run: &Run, accounts: &Accounts, function_arn: &str) -> Result<Caller, RunError> {
    match Caller::from_arn(function_arn) {
        Some(caller) => Ok(caller),
        None => {
            let asked = run.deadline.limit_read(accounts.caller()).await;
            asked.map_err(unreachable_accounts)
        }
    }
}

fn unreachable_accounts(failure: CallFailure) -> RunError {
    RunError::NoTargetAudited {
        reasons: failure.to_string(),
    }
}

/// The accounts to audit: the configured ones, or those of them that a request names.
async fn account_ids(
    run: &Run,
    accounts: &Accounts,
    caller: &Caller,
) -> Result<BTreeSet<AccountId>, RunError> {
    let chosen: BTreeSet<AccountId> = match &run.settings.accounts {
        AccountChoice::Own => BTreeSet::from([caller.account_id.clone()]),
        AccountChoice::Listed(ids) => ids.clone(),
        AccountChoice::Organization => {
            let listed = run.deadline.limit_read(accounts.organization_accounts());
            let listed = listed.await.map_err(unreachable_accounts)?;
            listed.into_iter().collect()
        }
    };
    let scoped = &run.facts.scope.account_ids;
    if scoped.is_empty() {
        return Ok(&chosen - &run.settings.excluded_accounts);
    }
    match scoped
        .iter()
        .position(|account_id| !chosen.contains(account_id))
    {
        Some(index) => Err(InvalidRequest::account_not_configured(index, &scoped[index]).into()),
        None => Ok(scoped.iter().cloned().collect()),
    }
}

/// Access to each account: with the function's own credentials, or with a role.
fn with_access(
    run: &Run,
    accounts: &Accounts,
    caller: &Caller,
    own: &Arc<Account>,
    account_ids: BTreeSet<AccountId>,
) -> Result<Vec<Arc<Account>>, RunError> {
    let access = |account_id: AccountId| {
        if account_id == caller.account_id {
            return Ok(Arc::clone(own));
        }
        let settings = &run.settings;
        let Some(role_name) = &settings.role_name else {
            return Err(RunError::RoleNotSet { account_id });
        };
        let access = accounts.member_account(
            caller,
            account_id,
            &run.home,
            role_name,
            settings.external_id.as_deref(),
        );
        Ok(Account::new(access, caller.default_region()))
    };
    account_ids.into_iter().map(access).collect()
}

/// Plans the targets of several accounts. Returns them, and the accounts to ask once more: those whose
/// Regions could not be listed for a transient reason, on the first attempt.
async fn ask_all(
    run: &Run,
    own: &Account,
    accounts: Vec<Arc<Account>>,
    to: AccessTo,
) -> (Vec<PlannedTarget>, Vec<Arc<Account>>) {
    let (mut planned, mut again) = (Vec::new(), Vec::new());
    let mut asked = futures_util::stream::iter(accounts)
        .map(|account| targets_of(run, own, account, to))
        .buffer_unordered(MAX_CONCURRENT_ACCOUNTS);
    while let Some(targets) = asked.next().await {
        match targets.first() {
            Some(PlannedTarget {
                account,
                refused: Some(failure),
                ..
            }) if failure.kind.is_transient() && to == AccessTo::First => {
                again.push(Arc::clone(account));
            }
            _ => planned.extend(targets),
        }
    }
    (planned, again)
}

/// Plans the targets of one account.
async fn targets_of(
    run: &Run,
    own: &Account,
    account: Arc<Account>,
    to: AccessTo,
) -> Vec<PlannedTarget> {
    let scoped = &run.facts.scope.regions;
    let (chosen, refused) = match &run.settings.regions {
        _ if !scoped.is_empty() => (scoped.iter().cloned().collect(), None),
        RegionChoice::Own => (BTreeSet::from([run.home.clone()]), None),
        RegionChoice::Listed(regions) => (regions.clone(), None),
        RegionChoice::All => enabled_regions(run, own, &account, to).await,
    };
    // A request that names a Region means it.
    let regions = match scoped.is_empty() {
        true => &chosen - &run.settings.excluded_regions,
        false => chosen,
    };
    let account_id = account.access.account_id();
    let planned = regions.into_iter().map(|region| PlannedTarget {
        account: Arc::clone(&account),
        target: Target {
            account_id: account_id.clone(),
            region,
        },
        refused: refused.clone(),
    });
    planned.collect()
}

/// The Regions that an account has enabled. If they cannot be listed, those of the function's own account
/// stand in, with the reason why none of them can be audited.
async fn enabled_regions(
    run: &Run,
    own: &Account,
    account: &Account,
    to: AccessTo,
) -> (BTreeSet<Region>, Option<CallFailure>) {
    let asked = account.enabled_regions(&run.home, to);
    let mut failure = match run.deadline.limit_read(asked).await {
        Ok(enabled) => return (enabled.names(), None),
        Err(failure) => failure,
    };
    failure.message = format!("failed to list the account's Regions: {}", failure.message);
    let stand_in = own.enabled_regions(&run.home, to);
    let regions = match run.deadline.limit_read(stand_in).await {
        Ok(enabled) => enabled.names(),
        Err(_) => BTreeSet::from([run.home.clone()]),
    };
    (regions, Some(failure))
}
