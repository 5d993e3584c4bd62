//! EC2's refusals of a request.

use crate::api_error::ApiError;

pub(super) fn invalid(message: String) -> ApiError {
    ApiError::new(400, "InvalidParameterValue", message)
}

pub(super) fn missing(parameter: &str) -> ApiError {
    ApiError::new(
        400,
        "MissingParameter",
        format!("The request must contain the parameter {parameter}"),
    )
}

pub(super) fn too_many_filters() -> ApiError {
    ApiError::new(
        400,
        "FilterLimitExceeded",
        "The request uses too many filters or too many filter values.",
    )
}

pub(super) fn unknown_report(report_id: &str) -> ApiError {
    ApiError::new(
        400,
        "InvalidImageUsageReportId.NotFound",
        format!("The image usage report ID '{report_id}' does not exist"),
    )
}

pub(super) fn unknown_images(image_ids: &[&str]) -> ApiError {
    let (noun, verb) = match image_ids.len() {
        1 => ("id", "does"),
        _ => ("ids", "do"),
    };
    ApiError::new(
        400,
        "InvalidAMIID.NotFound",
        format!(
            "The image {noun} '[{}]' {verb} not exist",
            image_ids.join(", ")
        ),
    )
}

/// Fails if an AMI's ID is malformed.
pub(super) fn check_image_id(image_id: &str) -> Result<(), ApiError> {
    let digits = image_id.strip_prefix("ami-").unwrap_or_default();
    if matches!(digits.len(), 8 | 17) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(ApiError::new(
        400,
        "InvalidAMIID.Malformed",
        format!("Invalid id: \"{image_id}\" (expecting \"ami-...\")"),
    ))
}
