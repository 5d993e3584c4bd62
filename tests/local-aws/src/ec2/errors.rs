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
