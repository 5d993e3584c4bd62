//! Errors, and the wording and format that each service gives them.

use crate::answer::Answer;
use crate::faults::{FaultKind, Service};
use crate::xml::{STS_NAMESPACE, Style, Xml};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::json;

/// An error of a service: status, code and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: u16,
    code: String,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// Returns the error that a fault is in a service; `None` if the fault is not an error.
    pub(crate) fn of_fault(
        kind: &FaultKind,
        service: Service,
        operation: &str,
        caller: &str,
    ) -> Option<Self> {
        let error = match kind {
            FaultKind::Error {
                status,
                code,
                message,
            } => Self::new(*status, code, message),
            FaultKind::Denied => denied(service, operation, caller),
            FaultKind::AuthFailure | FaultKind::RegionDisabled => refused_credentials(service),
            FaultKind::Throttle | FaultKind::TokenBucket => throttled(service),
            FaultKind::Status500 => internal_error(service),
            FaultKind::Status503 => unavailable(service),
            FaultKind::ExpireCredentials => Self::expired_credentials(service),
            FaultKind::ExpireToken => Self::invalid_pagination_token(),
            _ => return None,
        };
        Some(error)
    }

    pub(crate) fn auth_failure() -> Self {
        Self::new(
            401,
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
        )
    }

    pub(crate) fn invalid_pagination_token() -> Self {
        Self::new(
            400,
            "InvalidPaginationToken",
            "The specified pagination token is not valid or is expired.",
        )
    }

    pub(crate) fn expired_credentials(service: Service) -> Self {
        match service {
            Service::Ec2 => Self::new(400, "RequestExpired", "Request has expired."),
            Service::Sts => Self::new(
                403,
                "ExpiredToken",
                "The security token included in the request is expired",
            ),
            Service::Organizations => Self::new(
                400,
                "ExpiredTokenException",
                "The security token included in the request is expired",
            ),
            Service::S3 => Self::new(400, "ExpiredToken", "The provided token has expired."),
        }
    }

    /// Writes the error in the format of its service.
    pub(crate) fn answer(&self, service: Service, request_id: &str) -> Answer {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        match service {
            Service::Ec2 => Answer::xml(status, request_id, self.ec2_document(request_id)),
            Service::Sts => Answer::xml(status, request_id, self.sts_document(request_id)),
            Service::Organizations => Answer::json(
                status,
                request_id,
                &json!({"__type": self.code, "Message": self.message}),
            ),
            Service::S3 => {
                let mut answer = Answer::xml(status, request_id, self.s3_document(request_id));
                answer
                    .headers
                    .insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
                answer
            }
        }
    }

    fn ec2_document(&self, request_id: &str) -> String {
        // EC2's errors have no namespace, and only EC2 spells `RequestID` like this.
        let mut text = Xml::document("Response", None, Style::Plain);
        text.open("Errors");
        text.open("Error");
        self.write_code_and_message(&mut text);
        text.close("Error");
        text.close("Errors");
        text.leaf("RequestID", request_id);
        text.finish("Response")
    }

    fn sts_document(&self, request_id: &str) -> String {
        let mut text = Xml::document("ErrorResponse", Some(STS_NAMESPACE), Style::Plain);
        let fault = if self.status < 500 {
            "Sender"
        } else {
            "Receiver"
        };
        text.open("Error");
        text.leaf("Type", fault);
        self.write_code_and_message(&mut text);
        text.close("Error");
        text.leaf("RequestId", request_id);
        text.finish("ErrorResponse")
    }

    fn s3_document(&self, request_id: &str) -> String {
        let mut text = Xml::document("Error", None, Style::Plain);
        self.write_code_and_message(&mut text);
        text.leaf("RequestId", request_id);
        text.finish("Error")
    }

    fn write_code_and_message(&self, text: &mut Xml) {
        text.leaf("Code", &self.code);
        text.leaf("Message", &self.message);
    }
}

fn denied(service: Service, operation: &str, caller: &str) -> ApiError {
    match service {
        Service::Ec2 => ApiError::new(
            403,
            "UnauthorizedOperation",
            format!(
                "You are not authorized to perform this operation. User: {caller} is not authorized to perform: ec2:{operation} because no identity-based policy allows the ec2:{operation} action"
            ),
        ),
        Service::Sts => ApiError::new(
            403,
            "AccessDenied",
            format!("User: {caller} is not authorized to perform: sts:{operation}"),
        ),
        Service::Organizations => ApiError::new(
            400,
            "AccessDeniedException",
            "You don't have permissions to access this resource.",
        ),
        Service::S3 => ApiError::new(403, "AccessDenied", "Access Denied"),
    }
}

fn refused_credentials(service: Service) -> ApiError {
    match service {
        Service::Ec2 => ApiError::auth_failure(),
        Service::Sts => ApiError::new(
            403,
            "InvalidClientTokenId",
            "The security token included in the request is invalid",
        ),
        Service::Organizations => ApiError::new(
            400,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        Service::S3 => ApiError::new(
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
    }
}

fn throttled(service: Service) -> ApiError {
    match service {
        Service::Ec2 => ApiError::new(503, "RequestLimitExceeded", "Request limit exceeded."),
        Service::Sts => ApiError::new(400, "Throttling", "Rate exceeded"),
        Service::Organizations => ApiError::new(400, "TooManyRequestsException", "Rate exceeded"),
        Service::S3 => slow_down(),
    }
}

fn internal_error(service: Service) -> ApiError {
    match service {
        Service::Ec2 => ApiError::new(500, "InternalError", "An internal error has occurred"),
        Service::Sts => ApiError::new(
            500,
            "InternalFailure",
            "The request processing has failed because of an unknown error, exception or failure.",
        ),
        Service::Organizations => ApiError::new(
            500,
            "ServiceException",
            "AWS Organizations can't complete your request because of an internal service error. Try again later.",
        ),
        Service::S3 => ApiError::new(
            500,
            "InternalError",
            "We encountered an internal error. Please try again.",
        ),
    }
}

fn unavailable(service: Service) -> ApiError {
    match service {
        Service::Ec2 => ApiError::new(
            503,
            "Unavailable",
            "The service is unavailable. Please try again shortly.",
        ),
        Service::Sts | Service::Organizations => ApiError::new(
            503,
            "ServiceUnavailable",
            "The request has failed due to a temporary failure of the server.",
        ),
        Service::S3 => slow_down(),
    }
}

fn slow_down() -> ApiError {
    ApiError::new(503, "SlowDown", "Please reduce your request rate.")
}
