//! The function's own identity, the accounts to audit, and credentials for them.

use std::sync::Arc;

use aws_config::SdkConfig;
use aws_config::identity::IdentityCache;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{
    self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future,
};
use aws_sdk_organizations::types::Account;
use futures_util::FutureExt;
use tokio::sync::OnceCell;

use image_usage_archive::aws::{
    Aws, CallFailure, FailureKind, RejectBrokenXml, RetryBrokenResponses, TokenCycle,
    retry_partition, sdk_region,
};
use image_usage_archive::domain::target::{AccountId, Region};

/// The account that the function runs in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The AWS partition, such as `aws` or `aws-us-gov`.
    pub partition: String,
    /// The account.
    pub account_id: AccountId,
}

impl Caller {
    /// Reads the account from an ARN; `None` if the text is not one, as in local emulators.
    pub fn from_arn(arn: &str) -> Option<Self> {
        let mut parts = arn.split(':');
        let (prefix, partition) = (parts.next()?, parts.next()?);
        let account_id = parts.nth(2)?.parse().ok()?;
        (prefix == "arn" && !partition.is_empty()).then(|| Self {
            partition: partition.to_owned(),
            account_id,
        })
    }

    /// Returns a Region of the partition that every account has enabled; `None` for an unknown partition.
    ///
    /// Source: <https://docs.aws.amazon.com/accounts/latest/reference/manage-acct-regions.html>
    pub fn default_region(&self) -> Option<Region> {
        let name = match self.partition.as_str() {
            "aws" => "us-east-1",
            "aws-cn" => "cn-north-1",
            "aws-us-gov" => "us-gov-west-1",
            "aws-eusc" => "eusc-de-east-1",
            "aws-iso" => "us-iso-east-1",
            "aws-iso-b" => "us-isob-east-1",
            _ => return None,
        };
        name.parse().ok()
    }
}

/// Access to one account; its Regions share the credentials.
#[derive(Clone, Debug)]
pub struct AccountAccess {
    account_id: AccountId,
    config: SdkConfig,
    role: Option<Arc<MemberRole>>,
}

impl AccountAccess {
    /// Returns the account's ID.
    pub fn account_id(&self) -> &AccountId {
        &self.account_id
    }

    pub(super) fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// Returns the same access with new credentials: a role is assumed again.
    ///
    /// Lambda renews the function's own credentials.
    pub fn renewed(&self) -> Self {
        match &self.role {
            Some(role) => Self::with_role(self.account_id.clone(), &self.config, Arc::clone(role)),
            None => self.clone(),
        }
    }

    fn with_role(account_id: AccountId, config: &SdkConfig, role: Arc<MemberRole>) -> Self {
        let provider = SharedCredentialsProvider::new(SharedRole(Arc::clone(&role)));
        // The cache that clients share by default has room for 64 roles, including those of earlier runs.
        let config = config
            .to_builder()
            .credentials_provider(provider)
            .identity_cache(IdentityCache::lazy().build())
            .build();
        Self {
            account_id,
            config,
            role: Some(role),
        }
    }
}

/// The accounts that the function can act in.
#[derive(Clone, Debug)]
pub struct Accounts {
    config: SdkConfig,
}

impl Accounts {
    /// Uses the function's own credentials, and the roles that they may assume.
    pub fn new(aws: &Aws) -> Self {
        Self {
            config: aws.config().clone(),
        }
    }

    /// Asks STS for the function's identity.
    ///
    /// # Errors
    /// Fails as STS does, after the SDK's retries, and if the response names no account.
    pub async fn caller(&self) -> Result<Caller, CallFailure> {
        let request = sts(&self.config, "caller").get_caller_identity();
        let answer = request.send().boxed().await?;
        let arn = answer.arn.unwrap_or_default();
        Caller::from_arn(&arn).ok_or_else(|| {
            CallFailure::malformed(format!(
                "STS returned `{arn}` as the caller, which names no account"
            ))
        })
    }

    /// Returns access to the function's own account, with its own credentials.
    pub fn own_account(&self, account_id: AccountId) -> AccountAccess {
        AccountAccess {
            account_id,
            config: self.config.clone(),
            role: None,
        }
    }

    /// Returns access to another account, with a role of that account. The first call assumes the role.
    ///
    /// The credentials come from the STS endpoint of the function's Region: those of the global one are not valid
    /// in opt-in Regions. If the function's Region is one that the other account has not enabled, they come from
    /// the partition's default Region.
    pub fn member_account(
        &self,
        caller: &Caller,
        account_id: AccountId,
        home: &Region,
        role_name: &str,
        external_id: Option<&str>,
    ) -> AccountAccess {
        let sts_in = |region: &Region| {
            let config = self.config.to_builder().region(sdk_region(region)).build();
            sts(&config, account_id.as_str())
        };
        let role = MemberRole {
            client: sts_in(home),
            default_client: caller
                .default_region()
                .filter(|default| default != home)
                .map(|default| sts_in(&default)),
            role_arn: format!(
                "arn:{}:iam::{account_id}:role/{role_name}",
                caller.partition
            ),
            external_id: external_id.map(str::to_owned),
            refusal: OnceCell::new(),
        };
        AccountAccess::with_role(account_id, &self.config, Arc::new(role))
    }

    /// Lists the active accounts of the organization, in no order; there is at least one.
    ///
    /// # Errors
    /// Fails as Organizations does, after the SDK's retries, on a cycle of page tokens, on an account without an
    /// ID or of unknown state, and if none is active.
    pub async fn organization_accounts(&self) -> Result<Vec<AccountId>, CallFailure> {
        let config = aws_sdk_organizations::config::Builder::from(&self.config)
            .retry_classifier(RetryBrokenResponses);
        let client = aws_sdk_organizations::Client::from_conf(config.build());
        let (mut accounts, mut token, mut cycle) = (Vec::new(), None, TokenCycle::default());
        loop {
            let request = client.list_accounts().set_next_token(token.clone());
            let answer = request.send().boxed().await?;
            for account in answer.accounts.unwrap_or_default() {
                let id = account.id.clone().unwrap_or_default();
                let id = id.parse().map_err(|error| {
                    CallFailure::malformed(format!("Organizations lists an account, but {error}"))
                })?;
                if is_active(&account)? {
                    accounts.push(id);
                }
            }
            let Some(next) = answer.next_token.filter(|next| !next.is_empty()) else {
                break;
            };
            cycle.check("Organizations", token.as_deref(), &next)?;
            token = Some(next);
        }
        match accounts.is_empty() {
            true => Err(CallFailure::malformed(
                "Organizations lists no active account".to_owned(),
            )),
            false => Ok(accounts),
        }
    }
}

/// Returns whether an account is active: by its `State`, or by its `Status`, which Organizations retires, if there
/// is no `State`.
///
/// Source: <https://docs.aws.amazon.com/organizations/latest/APIReference/API_Account.html>
fn is_active(account: &Account) -> Result<bool, CallFailure> {
    let state = account.state.as_ref().map(|state| state.as_str());
    let status = account.status.as_ref().map(|status| status.as_str());
    match state.or(status) {
        Some(state) => Ok(state == "ACTIVE"),
        None => Err(CallFailure::malformed(format!(
            "Organizations lists the account {} with neither State nor Status",
            account.id.as_deref().unwrap_or_default()
        ))),
    }
}

fn sts(config: &SdkConfig, caller: &str) -> aws_sdk_sts::Client {
    let config = aws_sdk_sts::config::Builder::from(config)
        .retry_partition(retry_partition(format!("sts/{caller}")));
    aws_sdk_sts::Client::from_conf(
        config
            .retry_classifier(RetryBrokenResponses)
            .interceptor(RejectBrokenXml)
            .build(),
    )
}

/// A role in another account.
#[derive(Debug)]
struct MemberRole {
    client: aws_sdk_sts::Client,
    /// At the partition's default Region, if that is another one.
    default_client: Option<aws_sdk_sts::Client>,
    role_arn: String,
    external_id: Option<String>,
    /// Why the role cannot be assumed: asking again for each Region would only repeat it.
    refusal: OnceCell<CallFailure>,
}

/// The name under which the auditor appears in the other account's CloudTrail.
const SESSION_NAME: &str = "image-usage-auditor";

impl MemberRole {
    /// Assumes the role. The SDK's identity cache keeps the credentials, and asks again before they expire.
    async fn credentials(&self) -> provider::Result {
        if let Some(refusal) = self.refusal.get() {
            return Err(CredentialsError::provider_error(refusal.clone()));
        }
        let assumed = match (self.assume(&self.client).await, &self.default_client) {
            (Err(failure), Some(default)) if failure.code == "RegionDisabledException" => {
                self.assume(default).await
            }
            (assumed, _) => assumed,
        };
        assumed.map_err(|mut failure| {
            failure.message = format!("failed to assume {}: {}", self.role_arn, failure.message);
            if failure.kind != FailureKind::Transient {
                // Another call may have set it in the meantime, to the same.
                let _ = self.refusal.set(failure.clone());
            }
            CredentialsError::provider_error(failure)
        })
    }

    async fn assume(&self, client: &aws_sdk_sts::Client) -> Result<Credentials, CallFailure> {
        let request = client
            .assume_role()
            .role_arn(&self.role_arn)
            .role_session_name(SESSION_NAME)
            .set_external_id(self.external_id.clone());
        let answer = request.send().boxed().await?;
        let granted = answer
            .credentials
            .ok_or_else(|| CallFailure::malformed("STS returned no credentials".to_owned()))?;
        let expiry = std::time::SystemTime::try_from(granted.expiration).map_err(|error| {
            CallFailure::malformed(format!(
                "STS returned credentials with an impossible expiration: {error}"
            ))
        })?;
        Ok(Credentials::new(
            granted.access_key_id,
            granted.secret_access_key,
            Some(granted.session_token),
            Some(expiry),
            "MemberRole",
        ))
    }
}

/// A role in the form that the SDK needs.
#[derive(Clone, Debug)]
struct SharedRole(Arc<MemberRole>);

impl ProvideCredentials for SharedRole {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.0.credentials())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_read_from_a_functions_arn() {
        let caller =
            Caller::from_arn("arn:aws-us-gov:lambda:us-gov-west-1:111122223333:function:auditor")
                .unwrap();
        assert_eq!(
            (caller.partition.as_str(), caller.account_id.as_str()),
            ("aws-us-gov", "111122223333")
        );
    }

    #[test]
    fn the_arn_of_an_emulator_names_no_account() {
        assert_eq!(Caller::from_arn("function-arn"), None);
        assert_eq!(Caller::from_arn(""), None);
        assert_eq!(Caller::from_arn("arn:aws:s3:::bucket"), None);
    }

    #[test]
    fn the_state_of_an_account_counts_and_its_status_only_without_a_state() {
        for (state, status, expected) in [
            (Some("ACTIVE"), None, Some(true)),
            (Some("ACTIVE"), Some("SUSPENDED"), Some(true)),
            (Some("PENDING_ACTIVATION"), Some("ACTIVE"), Some(false)),
            (None, Some("ACTIVE"), Some(true)),
            (None, Some("SUSPENDED"), Some(false)),
            (None, None, None),
        ] {
            let account = Account::builder()
                .set_state(state.map(Into::into))
                .set_status(status.map(Into::into))
                .build();
            assert_eq!(is_active(&account).ok(), expected, "{account:?}");
        }
    }
}
