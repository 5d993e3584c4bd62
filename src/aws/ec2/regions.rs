//! The Regions that an account has enabled.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use image_usage_archive::aws::{CallFailure, RejectBrokenXml};
use image_usage_archive::domain::target::Region;

use super::client::client;
use crate::aws::accounts::AccountAccess;

/// Which Regions an account has enabled.
#[derive(Clone, Debug)]
pub struct EnabledRegions {
    opt_in_status: BTreeMap<Region, Option<String>>,
}

impl EnabledRegions {
    /// Asks EC2 in `home` for every Region there is, and whether the account has it.
    ///
    /// # Errors
    /// Fails as EC2 does, after the SDK's retries, and if it lists a Region without a name, with a malformed
    /// one, or none that is enabled.
    pub async fn of(access: &AccountAccess, home: &Region) -> Result<Self, CallFailure> {
        let answer = client(access, home)
            .describe_regions()
            .all_regions(true)
            .customize()
            .interceptor(RejectBrokenXml)
            .send()
            .boxed()
            .await?;
        let mut opt_in_status = BTreeMap::new();
        for region in answer.regions.unwrap_or_default() {
            let name = region.region_name.unwrap_or_default();
            let name = name.parse().map_err(|error| {
                CallFailure::malformed(format!("EC2 lists a Region, but {error}"))
            })?;
            opt_in_status.insert(name, region.opt_in_status);
        }
        let enabled = Self { opt_in_status };
        match enabled.names().is_empty() {
            true => Err(CallFailure::malformed(
                "EC2 lists no Region that is enabled".to_owned(),
            )),
            false => Ok(enabled),
        }
    }

    /// Every Region that the account can use; there is at least one.
    pub fn names(&self) -> BTreeSet<Region> {
        let enabled = self
            .opt_in_status
            .keys()
            .filter(|region| !self.is_not_enabled(region));
        enabled.cloned().collect()
    }

    /// Whether EC2 says of a Region that the account has not enabled it.
    pub fn is_not_enabled(&self, region: &Region) -> bool {
        matches!(self.opt_in_status.get(region), Some(Some(status)) if status == "not-opted-in")
    }
}
