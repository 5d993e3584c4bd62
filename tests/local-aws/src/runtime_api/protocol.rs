//! The Runtime API's requests and responses.

use super::function::{Event, Function};
use super::outcome::{Outcome, OutcomeKind};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;

const PREFIX: &str = "/2018-06-01/runtime/";
/// The largest response that Lambda accepts from a function.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const MAX_RESPONSE_BYTES: usize = 6_291_556;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Serves one connection of the function's process.
pub(super) async fn serve(function: Arc<Function>, stream: TcpStream) {
    let connected = function.connect();
    let service = service_fn(|request| answer(&function, request));
    // The client sees the errors of its own connection.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
    drop(connected);
}

async fn answer(
    function: &Function,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, AnyError> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let path: Vec<&str> = path.split('/').collect();
    match (&parts.method, path.as_slice()) {
        (&Method::GET, ["invocation", "next"]) => next(function.next().await),
        (&Method::POST, ["init", "error"]) => {
            let posted = Posted::read(body).await?;
            function.fail_init(posted.outcome(OutcomeKind::InitError, &parts.headers));
            accepted()
        }
        (&Method::POST, ["invocation", request_id, "response"]) => {
            let posted = Posted::read(body).await?;
            let outcome = posted.outcome(OutcomeKind::Response, &parts.headers);
            record(function, request_id, posted, outcome)
        }
        (&Method::POST, ["invocation", request_id, "error"]) => {
            let posted = Posted::read(body).await?;
            let outcome = posted.outcome(OutcomeKind::Error, &parts.headers);
            record(function, request_id, posted, outcome)
        }
        _ => {
            let message = format!("{} {} is not emulated", parts.method, parts.uri.path());
            refused(StatusCode::NOT_FOUND, "NotFound", &message)
        }
    }
}

fn next(event: Event) -> Result<Response<Full<Bytes>>, AnyError> {
    let deadline = event.deadline.duration_since(SystemTime::UNIX_EPOCH)?;
    let response = Response::builder()
        .header(CONTENT_TYPE, "application/json")
        .header("Lambda-Runtime-Aws-Request-Id", event.request_id)
        .header(
            "Lambda-Runtime-Deadline-Ms",
            deadline.as_millis().to_string(),
        )
        .header("Lambda-Runtime-Invoked-Function-Arn", event.function_arn)
        .header("Lambda-Runtime-Trace-Id", event.trace_id)
        .body(Full::new(event.payload))?;
    Ok(response)
}

/// Records an answer and confirms it.
fn record(
    function: &Function,
    request_id: &str,
    posted: Posted,
    outcome: Outcome,
) -> Result<Response<Full<Bytes>>, AnyError> {
    let is_known = function.answer(request_id, outcome);
    match posted {
        _ if !is_known => refused(
            StatusCode::BAD_REQUEST,
            "InvalidRequestID",
            "Invalid request ID",
        ),
        Posted::Whole(_) => accepted(),
        Posted::TooLarge => refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            &too_large(),
        ),
    }
}

/// What a function posted.
enum Posted {
    Whole(Value),
    TooLarge,
}

impl Posted {
    async fn read(body: Incoming) -> Result<Self, AnyError> {
        match Limited::new(body, MAX_RESPONSE_BYTES).collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
                Ok(Self::Whole(
                    serde_json::from_slice(&body).unwrap_or_else(|_| text()),
                ))
            }
            Err(error) if error.is::<LengthLimitError>() => Ok(Self::TooLarge),
            Err(error) => Err(error),
        }
    }

    fn outcome(&self, kind: OutcomeKind, headers: &HeaderMap) -> Outcome {
        match self {
            Self::Whole(payload) => Outcome {
                kind,
                payload: payload.clone(),
                error_type: headers
                    .get("lambda-runtime-function-error-type")
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned),
                duration: Duration::ZERO,
            },
            Self::TooLarge => Outcome::without_answer(
                OutcomeKind::Error,
                "Function.ResponseSizeTooLarge",
                &too_large(),
                Duration::ZERO,
            ),
        }
    }
}

fn too_large() -> String {
    format!("Exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes).")
}

fn accepted() -> Result<Response<Full<Bytes>>, AnyError> {
    json_response(StatusCode::ACCEPTED, &json!({"status": "OK"}))
}

fn refused(
    status: StatusCode,
    error_type: &str,
    message: &str,
) -> Result<Response<Full<Bytes>>, AnyError> {
    let error = json!({"errorType": error_type, "errorMessage": message});
    json_response(status, &error)
}

fn json_response(status: StatusCode, body: &Value) -> Result<Response<Full<Bytes>>, AnyError> {
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
    Ok(response)
}
