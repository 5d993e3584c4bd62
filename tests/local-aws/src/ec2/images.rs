//! Selects the rows of `DescribeImages`.

use super::documents::{SAME_FOR_ALL_IMAGES, bool_text};
use super::errors::{check_image_id, unknown_images};
use super::listing::{Content, Row, Window};
use super::request::Ec2Request;
use crate::api_error::ApiError;
use crate::clock::timestamp;
use crate::filters::Filter;
use crate::images::{Images, StoredImage};
use crate::tokens::Cursor;
use std::collections::HashSet;

pub(super) const LISTING_PARAMETERS: [&str; 12] = [
    "Action",
    "DryRun",
    "ExecutableBy.N",
    "Filter.N.Name",
    "Filter.N.Value.N",
    "ImageId.N",
    "IncludeDeprecated",
    "IncludeDisabled",
    "MaxResults",
    "NextToken",
    "Owner.N",
    "Version",
];

const FILTERS: [&str; 17] = [
    "architecture",
    "block-device-mapping.snapshot-id",
    "creation-date",
    "description",
    "hypervisor",
    "image-id",
    "image-type",
    "is-public",
    "name",
    "owner-id",
    "root-device-name",
    "root-device-type",
    "source-image-id",
    "source-image-region",
    "state",
    "tag-key",
    "virtualization-type",
];

/// Names that `Owner` takes instead of an account; the local AWS has no images of theirs.
const OWNER_ALIASES: [&str; 3] = ["amazon", "aws-backup-vault", "aws-marketplace"];

/// The checked parameters of a listing.
struct Selection<'a> {
    account: &'a str,
    owners: Vec<&'a str>,
    executable_by: Vec<&'a str>,
    image_ids: HashSet<&'a str>,
    includes_deprecated: bool,
    includes_disabled: bool,
    filters: Vec<Filter>,
    window: Window,
}

/// Returns the rows of a page, and the one after it.
pub(super) fn rows<'s>(
    request: &Ec2Request<'_>,
    images: &'s Images,
    window: Window,
) -> Result<Vec<Row<'s>>, ApiError> {
    let selection = Selection::parse(request, images, window)?;
    let listed = images.from(window.start.sequence);
    Ok(listed
        .filter(|(_, stored)| selection.includes(stored))
        .map(|(sequence, stored)| Row {
            cursor: Cursor { sequence, entry: 0 },
            content: Content::Image(stored),
        })
        .take(window.limit)
        .collect())
}

impl<'a> Selection<'a> {
    fn parse(
        request: &'a Ec2Request<'_>,
        images: &Images,
        window: Window,
    ) -> Result<Self, ApiError> {
        let query = request.query;
        let account = request.caller.account.as_str();
        let image_ids = query.list("ImageId");
        if !image_ids.is_empty() && query.get("MaxResults").is_some() {
            return Err(ApiError::new(
                400,
                "InvalidParameterCombination",
                "The parameter imageIds cannot be used with the parameter maxResults",
            ));
        }
        for image_id in &image_ids {
            check_image_id(image_id)?;
        }
        let is_unknown = |image_id: &&&str| {
            let stored = images.get(image_id);
            !stored.is_some_and(|it| it.image.is_registered() && it.is_available_to(account))
        };
        let unknown: Vec<_> = image_ids.iter().filter(is_unknown).copied().collect();
        if !unknown.is_empty() {
            return Err(unknown_images(&unknown));
        }
        Ok(Self {
            account,
            owners: accounts(request, "Owner", &OWNER_ALIASES)?,
            executable_by: accounts(request, "ExecutableBy", &["all"])?,
            image_ids: image_ids.into_iter().collect(),
            includes_deprecated: query.is_true("IncludeDeprecated"),
            includes_disabled: query.is_true("IncludeDisabled"),
            filters: request.filters(&FILTERS)?,
            window,
        })
    }

    fn includes(&self, stored: &StoredImage) -> bool {
        let image = &stored.image;
        let is_named = self.image_ids.contains(image.image_id.as_str());
        let is_owner = stored.owner == self.account;
        let is_disabled = image.state.as_deref() == Some("disabled");
        let is_deprecated = image
            .deprecation_time
            .is_some_and(|time| time <= self.window.now);
        image.is_registered()
            && stored.is_available_to(self.account)
            && (is_named || self.image_ids.is_empty())
            && (!is_disabled || self.includes_disabled)
            && (!is_deprecated || is_owner || is_named || self.includes_deprecated)
            && (self.owners.is_empty() || self.owners.contains(&stored.owner.as_str()))
            && (self.executable_by.is_empty()
                || self.executable_by.iter().any(|it| may(stored, it)))
            && self
                .filters
                .iter()
                .all(|filter| self.passes(stored, filter))
    }

    fn passes(&self, stored: &StoredImage, filter: &Filter) -> bool {
        let image = &stored.image;
        let admits = |value: Option<&str>| value.is_some_and(|value| filter.admits(value));
        match filter.name.as_str() {
            "block-device-mapping.snapshot-id" => {
                let mut volumes = image.block_devices.iter();
                volumes.any(|volume| filter.admits(&volume.snapshot_id))
            }
            "creation-date" => admits(image.creation_time.map(timestamp).as_deref()),
            "description" => admits(image.description.as_deref()),
            "image-id" => filter.admits(&image.image_id),
            "is-public" => filter.admits(bool_text(image.public)),
            "name" => admits(image.name.as_deref()),
            "owner-id" => filter.admits(&stored.owner),
            "root-device-name" => {
                let first = image.block_devices.first();
                admits(first.map(|volume| volume.device_name.as_str()))
            }
            "source-image-id" => admits(image.source_image_id.as_deref()),
            "source-image-region" => admits(image.source_image_region.as_deref()),
            "state" => admits(image.state.as_deref()),
            "architecture"
            | "hypervisor"
            | "image-type"
            | "root-device-type"
            | "virtualization-type" => admits(same_for_all(&filter.name)),
            // Tags are visible to the owner alone.
            _ => stored.owner == self.account && filter.admits_tags(&image.tags),
        }
    }
}

/// Returns whether an AMI has a launch permission for an account, or for `all`.
fn may(stored: &StoredImage, account: &str) -> bool {
    match account {
        "all" => stored.image.public,
        account => stored.image.shared_with.iter().any(|it| it == account),
    }
}

/// Returns the value of an element that every AMI has alike, by the name of its filter.
fn same_for_all(filter: &str) -> Option<&'static str> {
    let mut elements = SAME_FOR_ALL_IMAGES.iter();
    let name = filter.replace('-', "");
    let found = elements.find(|(element, _)| element.to_ascii_lowercase() == name);
    found.map(|(_, value)| *value)
}

/// Returns a list of accounts, with the caller's for `self`.
fn accounts<'a>(
    request: &'a Ec2Request<'_>,
    parameter: &str,
    aliases: &[&str],
) -> Result<Vec<&'a str>, ApiError> {
    let names = request.query.list(parameter).into_iter();
    names
        .map(|name| match name {
            "self" => Ok(request.caller.account.as_str()),
            name if aliases.contains(&name) || is_account_id(name) => Ok(name),
            name => Err(ApiError::new(
                400,
                "InvalidUserID.Malformed",
                format!("Invalid user id: \"{name}\""),
            )),
        })
        .collect()
}

fn is_account_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}
