//! Selects the rows of `DescribeImageReferences`.

use super::errors::{check_image_id, invalid, missing};
use super::listing::{Content, Row, Window};
use super::request::Ec2Request;
use super::resource_types::{OptionRule, Supported, depth_of, resource_types};
use crate::api_error::ApiError;
use crate::resources::{Resource, Resources, StoredResource};
use crate::tokens::Cursor;
use crate::world::ResourceType;

pub(super) const LISTING_PARAMETERS: [&str; 10] = [
    "Action",
    "DryRun",
    "ImageId.N",
    "IncludeAllResourceTypes",
    "MaxResults",
    "NextToken",
    "ResourceType.N.ResourceType",
    "ResourceType.N.ResourceTypeOption.N.OptionName",
    "ResourceType.N.ResourceTypeOption.N.OptionValue.N",
    "Version",
];

/// The maximum number of image IDs in one call, by the service model.
const MAX_IMAGE_IDS: usize = 10;
/// How many versions of a launch template EC2 examines if the request does not say.
const DEFAULT_VERSION_DEPTH: usize = 10;

const RESOURCE_TYPES: [Supported; 5] = [
    ("ec2:Instance", Some(OptionRule::StateName)),
    ("ec2:LaunchTemplate", Some(OptionRule::VersionDepth)),
    ("ssm:Parameter", None),
    ("imagebuilder:ImageRecipe", None),
    ("imagebuilder:ContainerRecipe", None),
];

/// The checked parameters of a listing.
struct Selection<'a> {
    image_ids: Vec<&'a str>,
    resource_types: Vec<ResourceType>,
    start: Cursor,
}

/// Returns the rows of a page, and the one after it.
pub(super) fn rows<'s>(
    request: &Ec2Request<'_>,
    resources: &'s Resources,
    window: Window,
) -> Result<Vec<Row<'s>>, ApiError> {
    let selection = Selection {
        image_ids: image_ids(request)?,
        resource_types: requested_types(request)?,
        start: window.start,
    };
    let listed = resources.from(window.start.sequence);
    Ok(listed
        .flat_map(|stored| selection.rows_of(stored))
        .take(window.limit)
        .collect())
}

fn image_ids<'a>(request: &'a Ec2Request<'_>) -> Result<Vec<&'a str>, ApiError> {
    let image_ids = request.query.list("ImageId");
    if image_ids.is_empty() {
        return Err(missing("ImageId"));
    }
    if image_ids.len() > MAX_IMAGE_IDS {
        return Err(invalid(format!(
            "The maximum number of ImageId values is {MAX_IMAGE_IDS}, but the request has {}.",
            image_ids.len()
        )));
    }
    image_ids.iter().try_for_each(|id| check_image_id(id))?;
    Ok(image_ids)
}

/// Returns the resource types to examine. With all types, those that are also named keep their
/// options.
fn requested_types(request: &Ec2Request<'_>) -> Result<Vec<ResourceType>, ApiError> {
    let mut requested = resource_types(request, &RESOURCE_TYPES)?;
    if request.query.is_true("IncludeAllResourceTypes") {
        for (name, _) in RESOURCE_TYPES {
            if !requested
                .iter()
                .any(|it| it.resource_type.as_deref() == Some(name))
            {
                requested.push(ResourceType::new(name));
            }
        }
    }
    match requested.is_empty() {
        true => Err(missing("IncludeAllResourceTypes or ResourceType")),
        false => Ok(requested),
    }
}

impl Selection<'_> {
    /// Returns the requested AMIs that a resource refers to, from the window's start on.
    fn rows_of<'s>(&self, stored: &'s StoredResource) -> Vec<Row<'s>> {
        let resource = &stored.resource;
        let mut depths = self.resource_types.iter().filter_map(|requested| {
            let is_examined = requested.resource_type.as_ref() == Some(&resource.resource_type)
                && has_requested_state(resource, requested);
            is_examined.then(|| version_depth(requested))
        });
        let Some(depth) = depths.next() else {
            return Vec::new();
        };
        let images = (0u32..).zip(resource.images_of_newest(depth));
        images
            .map(|(entry, image_id)| Row {
                cursor: Cursor {
                    sequence: stored.sequence,
                    entry,
                },
                content: Content::Reference(image_id, resource),
            })
            .filter(|row| row.cursor >= self.start && self.names(row))
            .collect()
    }

    fn names(&self, row: &Row<'_>) -> bool {
        matches!(row.content, Content::Reference(id, _) if self.image_ids.contains(&id))
    }
}

fn has_requested_state(resource: &Resource, requested: &ResourceType) -> bool {
    match option(requested, "state-name") {
        None => true,
        Some(states) => resource
            .state
            .as_ref()
            .is_some_and(|it| states.contains(it)),
    }
}

fn version_depth(requested: &ResourceType) -> usize {
    let values = option(requested, "version-depth").unwrap_or_default();
    let depth = values.first().and_then(|value| depth_of(value));
    depth.unwrap_or(DEFAULT_VERSION_DEPTH)
}

fn option<'a>(requested: &'a ResourceType, name: &str) -> Option<&'a [String]> {
    let mut options = requested.options.iter();
    let option = options.find(|option| option.name.as_deref() == Some(name))?;
    Some(&option.values)
}
