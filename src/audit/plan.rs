//! Which targets a run has: every account in each of its Regions.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::OnceCell;

use crate::audit::{Run, RunError};
use crate::aws::ec2::EnabledRegions;
use crate::aws::{AccountAccess, Accounts, Caller};
use crate::settings::{AccountChoice, RegionChoice, Settings};
use image_usage_archive::aws::CallFailure;
use image_usage_archive::domain::target::{AccountId, Region, Target};

/// How many accounts are asked for their Regions at a time.
///
/// Each is a call to STS and one to EC2, which hold little; EC2 throttles by account.
const MAX_CONCURRENT_ACCOUNTS: usize = 16;

/// An account of the run.
#[derive(Debug)]
pub(crate) struct Account {
    access: AccountAccess,
    renewed: OnceCell<AccountAccess>,
    enabled: [OnceCell<Result<EnabledRegions, CallFailure>>; 2],
}

impl Account {
    fn new(access: AccountAccess) -> Arc<Self> {
        Arc::new(Self {
            access,
            renewed: OnceCell::new(),
            enabled: [OnceCell::new(), OnceCell::new()],
        })
    }

    /// The right to act in the account; on a second look, with new credentials.
    pub(crate) async fn access(&self, second_look: bool) -> &AccountAccess {
        match second_look {
            true => {
                self.renewed
                    .get_or_init(async || self.access.renewed())
                    .await
            }
            false => &self.access,
        }
    }

    /// Asks which Regions the account has enabled: once a run, and once more on a second look.
    pub(crate) async fn enabled_regions(
        &self,
        home: &Region,
        second_look: bool,
    ) -> Result<&EnabledRegions, CallFailure> {
        let ask = async || EnabledRegions::of(self.access(second_look).await, home).await;
        let answer = &self.enabled[usize::from(second_look)];
        answer
            .get_or_init(ask)
            .await
            .as_ref()
            .map_err(CallFailure::clone)
    }
}

/// A target of the run.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) account: Arc<Account>,
    pub(crate) target: Target,
    /// Why it can't be looked at, where that is known already.
    pub(crate) refused: Option<CallFailure>,
}

/// Plans the targets of a run, sorted.
///
/// # Errors
/// Fails when the accounts can't be told, and when another one needs a role that the settings don't name.
/// An account whose role can't be assumed, or whose Regions can't be told, fails only its own targets.
pub(crate) async fn targets(
    accounts: &Accounts,
    settings: &Settings,
    home: &Region,
    function_arn: &str,
    run: &Run,
) -> Result<Vec<Planned>, RunError> {
    let unreachable = |failure: CallFailure| RunError::NoTargetAudited {
        reasons: failure.to_string(),
    };
    let caller = match Caller::from_arn(function_arn) {
        Some(caller) => caller,
        None => run
            .before_stop(accounts.caller())
            .await
            .map_err(unreachable)?,
    };
    let scoped = &run.facts.scope.account_ids;
    let mut account_ids: BTreeSet<AccountId> = match &settings.accounts {
        _ if !scoped.is_empty() => scoped.iter().cloned().collect(),
        AccountChoice::Own => BTreeSet::from([caller.account_id.clone()]),
        AccountChoice::Listed(ids) => ids.iter().cloned().collect(),
        AccountChoice::Organization => {
            let listed = run.before_stop(accounts.organization_accounts()).await;
            listed.map_err(unreachable)?.into_iter().collect()
        }
    };
    let own = Account::new(accounts.own_account(caller.account_id.clone()));
    let mut in_run = Vec::new();
    if account_ids.remove(&caller.account_id) {
        in_run.push(Arc::clone(&own));
    }
    for account_id in account_ids {
        let Some(role_name) = &settings.role_name else {
            return Err(RunError::RoleNotSet { account_id });
        };
        let external_id = settings.external_id.as_deref();
        let access =
            accounts.member_account(account_id, home, &caller.partition, role_name, external_id);
        in_run.push(Account::new(access));
    }
    let regions = Regions {
        settings,
        home,
        run,
        own: &own,
    };
    let (mut planned, mut again) = (Vec::new(), Vec::new());
    let mut asked = futures_util::stream::iter(in_run)
        .map(|account| regions.of(account, false))
        .buffer_unordered(MAX_CONCURRENT_ACCOUNTS);
    while let Some(targets) = asked.next().await {
        match targets.first() {
            Some(Planned {
                account,
                refused: Some(failure),
                ..
            }) if failure.kind.may_pass() => {
                again.push(Arc::clone(account));
            }
            _ => planned.extend(targets),
        }
    }
    let mut asked = futures_util::stream::iter(again)
        .map(|account| regions.of(account, true))
        .buffer_unordered(MAX_CONCURRENT_ACCOUNTS);
    while let Some(targets) = asked.next().await {
        planned.extend(targets);
    }
    planned.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(planned)
}

/// What tells the Regions of an account.
struct Regions<'a> {
    settings: &'a Settings,
    home: &'a Region,
    run: &'a Run,
    own: &'a Account,
}

impl Regions<'_> {
    /// Plans the targets of one account, of which there is at least one.
    async fn of(&self, account: Arc<Account>, second_look: bool) -> Vec<Planned> {
        let Self {
            settings,
            home,
            run,
            own,
        } = *self;
        let scoped = &run.facts.scope.regions;
        let (regions, refused) = match &settings.regions {
            _ if !scoped.is_empty() => (scoped.iter().cloned().collect(), None),
            RegionChoice::Own => (BTreeSet::from([home.clone()]), None),
            RegionChoice::Listed(regions) => (regions.iter().cloned().collect(), None),
            RegionChoice::All => match run
                .before_stop(account.enabled_regions(home, second_look))
                .await
            {
                Ok(enabled) => (enabled.names(), None),
                Err(mut failure) => {
                    failure.message =
                        format!("failed to list the account's Regions: {}", failure.message);
                    // The Regions of the function's own account stand in for those that can't be told.
                    let stand_in = run
                        .before_stop(own.enabled_regions(home, second_look))
                        .await;
                    let home_only = |_| BTreeSet::from([home.clone()]);
                    (
                        stand_in.map_or_else(home_only, EnabledRegions::names),
                        Some(failure),
                    )
                }
            },
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
}
