//! Responses before they go on the wire, and how a fault changes them.

use crate::faults::{FaultKind, Ruling};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::time::Duration;

/// A response before it goes on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// How a response goes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Nothing,
    ResetHalfway,
    CutHalfway,
    NeverEnding,
}

/// A response with its delivery, and what the log of calls records about it.
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    pub(crate) delivery: Delivery,
    pub(crate) latency: Duration,
    pub(crate) fault: Option<FaultKind>,
    pub(crate) page: Option<u32>,
}

impl Delivery {
    /// Returns how a fault delivers a response.
    fn of(kind: Option<&FaultKind>) -> Self {
        match kind {
            Some(FaultKind::CloseBeforeAnswer) => Self::Nothing,
            Some(FaultKind::ResetMidBody) => Self::ResetHalfway,
            Some(FaultKind::CutBody) => Self::CutHalfway,
            Some(FaultKind::SlowBody) => Self::NeverEnding,
            _ => Self::Whole,
        }
    }
}

impl Reply {
    /// Creates a reply that no fault changes.
    pub(crate) fn whole(answer: Answer) -> Self {
        Self::ruled(answer, Ruling::default(), None)
    }

    /// Creates a reply that is delivered as a ruling says.
    pub(crate) fn ruled(mut answer: Answer, ruling: Ruling, page: Option<u32>) -> Self {
        if ruling.kind == Some(FaultKind::MalformedXml) {
            answer.malform();
        }
        Self {
            answer,
            delivery: Delivery::of(ruling.kind.as_ref()),
            latency: ruling.latency,
            fault: ruling.kind,
            page,
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

    /// Sets the header in which the service returns the request ID.
    pub(crate) fn identify(&mut self, header: &'static str, request_id: &str) {
        if let Ok(value) = HeaderValue::from_str(request_id) {
            self.headers.insert(HeaderName::from_static(header), value);
        }
    }

    /// Cuts the body off inside an element.
    fn malform(&mut self) {
        let half = self.body.len() / 2;
        let kept = self.body.slice(..half);
        let mut body = kept.to_vec();
        body.extend_from_slice(b"<unclosed attribute=");
        self.body = body.into();
        self.headers.remove(http::header::CONTENT_LENGTH);
    }
}
