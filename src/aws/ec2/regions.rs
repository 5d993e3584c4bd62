//! The Regions that an account has enabled.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::operation::describe_regions::{DescribeRegions, DescribeRegionsOutput};
use aws_smithy_runtime_api::client::interceptors::context::Output;
use futures_util::FutureExt;
use image_usage_archive::aws::CallFailure;
use image_usage_archive::domain::target::Region;
use serde::Deserialize;

use super::answers::{Items, Text};
use super::client::client;
use super::decoder::Decoder;
use crate::aws::accounts::AccountAccess;

/// Which Regions an account has enabled.
#[derive(Clone, Debug)]
pub struct EnabledRegions {
    opt_in_status: BTreeMap<Region, Option<String>>,
}

impl EnabledRegions {
    /// Asks EC2 in `home` for every Region, and whether the account has enabled it.
    ///
    /// # Errors
    /// Fails as EC2 does, after the SDK's retries, and if it lists a Region without a name, with a malformed
    /// one, or none that is enabled.
    pub async fn of(access: &AccountAccess, home: &Region) -> Result<Self, CallFailure> {
        let decoder = Decoder::<RegionsAnswer>::new(&DescribeRegions::new(), || {
            Output::erase(DescribeRegionsOutput::builder().build())
        });
        client(access, home)
            .describe_regions()
            .all_regions(true)
            .customize()
            .interceptor(decoder.clone())
            .send()
            .boxed()
            .await?;
        Self::read(decoder.take()?)
    }

    fn read(answer: RegionsAnswer) -> Result<Self, CallFailure> {
        let RegionsAnswer::DescribeRegionsResponse(answer) = answer;
        let mut opt_in_status = BTreeMap::new();
        for region in answer.region_info.items {
            let name = region.region_name.0.unwrap_or_default();
            let name = name.parse().map_err(|error| {
                CallFailure::malformed(format!("EC2 lists a Region, but {error}"))
            })?;
            opt_in_status.insert(name, region.opt_in_status.0);
        }
        let enabled = Self { opt_in_status };
        match enabled.names().is_empty() {
            true => Err(CallFailure::malformed(
                "EC2 lists no enabled Region".to_owned(),
            )),
            false => Ok(enabled),
        }
    }

    /// Returns every Region that the account can use; there is at least one.
    pub fn names(&self) -> BTreeSet<Region> {
        let enabled = self
            .opt_in_status
            .keys()
            .filter(|region| !self.is_not_enabled(region));
        enabled.cloned().collect()
    }

    /// Returns whether EC2 lists a Region as one that the account has not enabled.
    pub fn is_not_enabled(&self, region: &Region) -> bool {
        matches!(self.opt_in_status.get(region), Some(Some(status)) if status == "not-opted-in")
    }
}

/// The answer to `DescribeRegions`.
#[derive(Deserialize, Debug)]
enum RegionsAnswer {
    DescribeRegionsResponse(Regions),
}

#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
struct Regions {
    region_info: Items<ListedRegion>,
}

#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", default)]
struct ListedRegion {
    region_name: Text,
    opt_in_status: Text,
}

#[cfg(test)]
mod tests {
    use super::super::decoder::decode;
    use super::*;

    fn read(regions: &[(&str, &str)]) -> Result<EnabledRegions, CallFailure> {
        let rows: String = regions
            .iter()
            .map(|(name, status)| format!("<item><regionName>{name}</regionName>{status}</item>"))
            .collect();
        let root = "DescribeRegionsResponse";
        let document = format!("<{root}><regionInfo>{rows}</regionInfo></{root}>");
        EnabledRegions::read(decode(document.as_bytes()).unwrap())
    }

    const NOT_ENABLED: &str = "<optInStatus>not-opted-in</optInStatus>";

    #[test]
    fn a_region_is_enabled_unless_ec2_says_otherwise() {
        let enabled = read(&[
            (
                "us-east-1",
                "<optInStatus>opt-in-not-required</optInStatus>",
            ),
            ("ap-east-1", NOT_ENABLED),
            ("eu-west-1", ""),
        ]);
        let (enabled, region) = (enabled.unwrap(), |name: &str| {
            name.parse::<Region>().unwrap()
        });
        let expected = [region("eu-west-1"), region("us-east-1")];
        assert_eq!(enabled.names(), expected.into());
        assert!(enabled.is_not_enabled(&region("ap-east-1")));
        assert!(!enabled.is_not_enabled(&region("us-east-1")));
        // EC2 does not list it.
        assert!(!enabled.is_not_enabled(&region("xx-none-1")));
    }

    #[test]
    fn a_list_with_an_invalid_name_or_without_an_enabled_region_is_malformed() {
        for regions in [
            &[("us-east-1", ""), ("", "")][..],
            &[("ap-east-1", NOT_ENABLED)],
            &[],
        ] {
            let failure = read(regions).unwrap_err();
            assert_eq!(failure.code, "MalformedResponse", "{regions:?}");
        }
    }
}
