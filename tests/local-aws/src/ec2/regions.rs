//! `DescribeRegions`.

use super::errors::invalid;
use super::request::Ec2Request;
use crate::api_error::ApiError;
use crate::filters::Filter;
use crate::world::{CLASSIC_REGIONS, State};
use crate::xml::{Style, Xml};

pub(super) const REGIONS_PARAMETERS: [&str; 7] = [
    "Action",
    "AllRegions",
    "DryRun",
    "Filter.N.Name",
    "Filter.N.Value.N",
    "RegionName.N",
    "Version",
];

/// A Region as an account sees it.
struct ListedRegion<'a> {
    name: &'a str,
    opt_in_status: &'static str,
}

/// Lists the Regions that are enabled for the account; with `AllRegions`, every Region.
pub(super) fn describe(request: &Ec2Request<'_>, style: Style) -> Result<String, ApiError> {
    let filters = request.filters(&["endpoint", "opt-in-status", "region-name"])?;
    request.check_dry_run()?;
    let mut guard = request.world.lock();
    let state = &mut *guard;
    let all = request.query.is_true("AllRegions");
    let mut listed = regions_of(state, &request.caller.account);
    listed.retain(|region| all || region.opt_in_status != "not-opted-in");
    let names = request.query.list("RegionName");
    let is_listed = |name: &&&str| listed.iter().any(|region| region.name == **name);
    if let Some(unknown) = names.iter().find(|name| !is_listed(name)) {
        return Err(invalid(format!("Invalid region name: {unknown}")));
    }
    listed.retain(|region| {
        (names.is_empty() || names.contains(&region.name))
            && filters.iter().all(|filter| region.passes(filter))
    });
    // EC2 returns Regions in no defined order, so no client may rely on one.
    let mut random = state.random.clone();
    random.shuffle(&mut listed);
    let (mut xml, root) = request.document(style);
    xml.open("regionInfo");
    for region in &listed {
        region.write(&mut xml);
    }
    xml.close("regionInfo");
    state.random = random;
    Ok(xml.finish(&root))
}

fn regions_of<'a>(state: &'a State, account: &str) -> Vec<ListedRegion<'a>> {
    let regions = state.regions.keys().map(|name| ListedRegion {
        name,
        opt_in_status: if !state.is_enabled(account, name) {
            "not-opted-in"
        } else if CLASSIC_REGIONS.contains(&name.as_str()) {
            "opt-in-not-required"
        } else {
            "opted-in"
        },
    });
    regions.collect()
}

impl ListedRegion<'_> {
    fn endpoint(&self) -> String {
        format!("ec2.{}.amazonaws.com", self.name)
    }

    fn passes(&self, filter: &Filter) -> bool {
        match filter.name.as_str() {
            "endpoint" => filter.admits(&self.endpoint()),
            "opt-in-status" => filter.admits(self.opt_in_status),
            _ => filter.admits(self.name),
        }
    }

    fn write(&self, xml: &mut Xml) {
        xml.open("item");
        xml.leaf("regionName", self.name);
        xml.leaf("regionEndpoint", &self.endpoint());
        xml.leaf("optInStatus", self.opt_in_status);
        if let Some(country) = country_of(self.name) {
            xml.open("geographySet");
            xml.open("item");
            xml.leaf("name", country);
            xml.close("item");
            xml.close("geographySet");
        }
        xml.close("item");
    }
}

fn country_of(region: &str) -> Option<&'static str> {
    let country = match region {
        "ap-east-1" => "Hong Kong",
        "ap-northeast-1" | "ap-northeast-3" => "Japan",
        "ap-northeast-2" => "South Korea",
        "ap-south-1" => "India",
        "ap-southeast-1" => "Singapore",
        "ap-southeast-2" => "Australia",
        "ca-central-1" => "Canada",
        "eu-central-1" => "Germany",
        "eu-north-1" => "Sweden",
        "eu-west-1" => "Ireland",
        "eu-west-2" => "United Kingdom",
        "eu-west-3" => "France",
        "sa-east-1" => "Brazil",
        "us-east-1" | "us-east-2" | "us-west-1" | "us-west-2" => "United States of America",
        _ => return None,
    };
    Some(country)
}
