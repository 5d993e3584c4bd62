//! Answers, the errors among them, and the dialect in which each service words them.

use crate::faults::{FaultKind, Service};
use crate::xml::{Style, Xml};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub(crate) const EC2_NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
pub(crate) const STS_NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// An answer before it goes on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// How an answer goes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Nothing,
    ResetHalfway,
    CutHalfway,
    NeverEnding,
}

impl Delivery {
    /// Tells whether a kind of fault is about the wire alone.
    pub(crate) fn of(kind: &FaultKind) -> Option<Self> {
        match kind {
            FaultKind::CloseBeforeAnswer => Some(Self::Nothing),
            FaultKind::ResetMidBody => Some(Self::ResetHalfway),
            FaultKind::CutBody => Some(Self::CutHalfway),
            FaultKind::SlowBody => Some(Self::NeverEnding),
            _ => None,
        }
    }
}

/// An error of a service: status, code and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// Words a kind of fault as an error of a service; `None` if the kind is not an error.
    pub(crate) fn of_fault(
        kind: &FaultKind,
        service: Service,
        operation: &str,
        caller: &str,
    ) -> Option<Self> {
        use Service::{Ec2, Organizations, S3, Sts};
        let error = match (kind, service) {
            (
                FaultKind::Error {
                    status,
                    code,
                    message,
                },
                _,
            ) => Self::new(*status, code, message),
            (FaultKind::Denied, Ec2) => Self::new(
                403,
                "UnauthorizedOperation",
                format!(
                    "You are not authorized to perform this operation. User: {caller} is not authorized to perform: ec2:{operation} because no identity-based policy allows the ec2:{operation} action"
                ),
            ),
            (FaultKind::Denied, Sts) => Self::new(
                403,
                "AccessDenied",
                format!("User: {caller} is not authorized to perform: sts:{operation}"),
            ),
            (FaultKind::Denied, Organizations) => Self::new(
                400,
                "AccessDeniedException",
                "You don't have permissions to access this resource.",
            ),
            (FaultKind::Denied, S3) => Self::new(403, "AccessDenied", "Access Denied"),
            (FaultKind::AuthFailure | FaultKind::RegionDisabled, Ec2) => Self::auth_failure(),
            (FaultKind::AuthFailure | FaultKind::RegionDisabled, Sts) => Self::new(
                403,
                "InvalidClientTokenId",
                "The security token included in the request is invalid",
            ),
            (FaultKind::AuthFailure | FaultKind::RegionDisabled, Organizations) => Self::new(
                400,
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            ),
            (FaultKind::AuthFailure | FaultKind::RegionDisabled, S3) => Self::new(
                403,
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
            ),
            (FaultKind::Throttle | FaultKind::TokenBucket, Ec2) => {
                Self::new(503, "RequestLimitExceeded", "Request limit exceeded.")
            }
            (FaultKind::Throttle | FaultKind::TokenBucket, Sts) => {
                Self::new(400, "Throttling", "Rate exceeded")
            }
            (FaultKind::Throttle | FaultKind::TokenBucket, Organizations) => {
                Self::new(400, "TooManyRequestsException", "Rate exceeded")
            }
            (FaultKind::Throttle | FaultKind::TokenBucket | FaultKind::Status503, S3) => {
                Self::new(503, "SlowDown", "Please reduce your request rate.")
            }
            (FaultKind::Status500, Ec2) => {
                Self::new(500, "InternalError", "An internal error has occurred")
            }
            (FaultKind::Status500, Sts) => Self::new(
                500,
                "InternalFailure",
                "The request processing has failed because of an unknown error, exception or failure.",
            ),
            (FaultKind::Status500, Organizations) => Self::new(
                500,
                "ServiceException",
                "AWS Organizations can't complete your request because of an internal service error. Try again later.",
            ),
            (FaultKind::Status500, S3) => Self::new(
                500,
                "InternalError",
                "We encountered an internal error. Please try again.",
            ),
            (FaultKind::Status503, Ec2) => Self::new(
                503,
                "Unavailable",
                "The service is unavailable. Please try again shortly.",
            ),
            (FaultKind::Status503, Sts | Organizations) => Self::new(
                503,
                "ServiceUnavailable",
                "The request has failed due to a temporary failure of the server.",
            ),
            (FaultKind::ExpireCredentials, service) => Self::expired_credentials(service),
            (FaultKind::ExpireToken, _) => Self::invalid_pagination_token(),
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

    /// Words the error as its service does.
    pub(crate) fn answer(&self, service: Service, request_id: &str) -> Answer {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        match service {
            Service::Ec2 => {
                // EC2's errors carry no namespace, and spell `RequestID` in their own way.
                let mut text = Xml::document("Response", None, Style::Plain);
                text.open("Errors");
                text.open("Error");
                text.leaf("Code", &self.code);
                text.leaf("Message", &self.message);
                text.close("Error");
                text.close("Errors");
                text.leaf("RequestID", request_id);
                Answer::xml(status, request_id, text.finish("Response"))
            }
            Service::Sts => {
                let mut text = Xml::document("ErrorResponse", Some(STS_NAMESPACE), Style::Plain);
                text.open("Error");
                text.leaf(
                    "Type",
                    if self.status < 500 {
                        "Sender"
                    } else {
                        "Receiver"
                    },
                );
                text.leaf("Code", &self.code);
                text.leaf("Message", &self.message);
                text.close("Error");
                text.leaf("RequestId", request_id);
                Answer::xml(status, request_id, text.finish("ErrorResponse"))
            }
            Service::Organizations => Answer::json(
                status,
                request_id,
                &serde_json::json!({"__type": self.code, "Message": self.message}),
            ),
            Service::S3 => {
                let mut text = Xml::document("Error", None, Style::Plain);
                text.leaf("Code", &self.code);
                text.leaf("Message", &self.message);
                text.leaf("RequestId", request_id);
                let mut answer = Answer::xml(status, request_id, text.finish("Error"));
                answer.headers.insert(
                    http::header::CONTENT_TYPE,
                    HeaderValue::from_static("application/xml"),
                );
                answer
            }
        }
    }
}

impl Answer {
    pub(crate) fn xml(status: StatusCode, request_id: &str, body: String) -> Self {
        Self::new(status, "text/xml;charset=UTF-8", request_id, body.into())
    }

    pub(crate) fn json(status: StatusCode, request_id: &str, body: &serde_json::Value) -> Self {
        let body = body.to_string();
        Self::new(
            status,
            "application/x-amz-json-1.1",
            request_id,
            body.into(),
        )
    }

    fn new(status: StatusCode, content_type: &'static str, request_id: &str, body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static(content_type),
        );
        let mut answer = Self {
            status,
            headers,
            body,
        };
        answer.identify("x-amzn-requestid", request_id);
        answer
    }

    /// Puts the request's ID into the header that the service uses for it.
    pub(crate) fn identify(&mut self, header: &'static str, request_id: &str) {
        if let Ok(value) = HeaderValue::from_str(request_id) {
            self.headers.insert(HeaderName::from_static(header), value);
        }
    }

    /// Cuts the body off inside an element.
    pub(crate) fn malform(&mut self) {
        let half = self.body.len() / 2;
        let kept = self.body.slice(..half);
        let mut body = kept.to_vec();
        body.extend_from_slice(b"<unclosed attribute=");
        self.body = body.into();
        self.headers.remove(http::header::CONTENT_LENGTH);
    }
}
