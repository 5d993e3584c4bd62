//! The parameter `ResourceType.N` with its options.

use super::errors::invalid;
use super::request::Ec2Request;
use crate::api_error::ApiError;
use crate::world::{ResourceType, ResourceTypeOption};

const MAX_VERSION_DEPTH: usize = 10_000;

const INSTANCE_STATES: [&str; 6] = [
    "pending",
    "running",
    "shutting-down",
    "terminated",
    "stopping",
    "stopped",
];

/// What a resource type is called, and which option an operation takes with it.
pub(super) type Supported = (&'static str, Option<OptionRule>);

/// An option of a resource type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OptionRule {
    /// How many of the newest versions of a launch template are examined.
    VersionDepth,
    /// The states of the instances that are examined.
    StateName,
}

impl OptionRule {
    fn name(self) -> &'static str {
        match self {
            Self::VersionDepth => "version-depth",
            Self::StateName => "state-name",
        }
    }

    fn check(self, values: &[&str]) -> Result<(), ApiError> {
        match self {
            Self::VersionDepth => match values {
                [value] if depth_of(value).is_some() => Ok(()),
                _ => Err(invalid(
                    "The option 'version-depth' takes one value from 1 to 10000.".to_owned(),
                )),
            },
            Self::StateName => {
                let unknown = values.iter().find(|value| !INSTANCE_STATES.contains(value));
                match unknown {
                    Some(value) => Err(invalid(format!(
                        "The value '{value}' of the option 'state-name' is invalid."
                    ))),
                    None if values.is_empty() => Err(invalid(
                        "The option 'state-name' takes at least one value.".to_owned(),
                    )),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Returns the number of versions that a `version-depth` stands for, if it is valid.
pub(super) fn depth_of(value: &str) -> Option<usize> {
    let depth = value.parse().ok();
    depth.filter(|depth| (1..=MAX_VERSION_DEPTH).contains(depth))
}

/// Returns the requested resource types; fails if one, or one of its options, is not supported.
pub(super) fn resource_types(
    request: &Ec2Request<'_>,
    supported: &[Supported],
) -> Result<Vec<ResourceType>, ApiError> {
    let numbers = request.query.numbers("ResourceType").into_iter();
    numbers
        .map(|number| resource_type(request, &format!("ResourceType.{number}"), supported))
        .collect()
}

fn resource_type(
    request: &Ec2Request<'_>,
    prefix: &str,
    supported: &[Supported],
) -> Result<ResourceType, ApiError> {
    let name = request.present(&format!("{prefix}.ResourceType"))?;
    let Some((_, parameter)) = supported.iter().find(|(supported, _)| *supported == name) else {
        return Err(invalid(format!(
            "Value ({name}) for parameter ResourceType is invalid."
        )));
    };
    let mut resource_type = ResourceType::new(name);
    let options = format!("{prefix}.ResourceTypeOption");
    for number in request.query.numbers(&options) {
        let prefix = format!("{options}.{number}");
        let option_name = request.present(&format!("{prefix}.OptionName"))?;
        let Some(parameter) = parameter.filter(|it| it.name() == option_name) else {
            return Err(invalid(format!(
                "The option '{option_name}' is invalid for the resource type {name}."
            )));
        };
        let values = request.query.list(&format!("{prefix}.OptionValue"));
        parameter.check(&values)?;
        resource_type.options.push(ResourceTypeOption {
            name: Some(option_name.to_owned()),
            values: values.into_iter().map(str::to_owned).collect(),
        });
    }
    Ok(resource_type)
}
