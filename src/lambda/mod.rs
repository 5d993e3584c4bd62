//! The edge to Lambda: what the runtime hands in and takes back, and the log.

use std::io;
use std::num::NonZero;
use std::time::SystemTime;

use lambda_runtime::{Diagnostic, LambdaEvent};
use lambda_runtime_api_client::{Client, body::Body, build_request};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::audit::{Answer, Auditor, Invocation, RunError};
use crate::settings::InvalidSettings;
use image_usage_archive::domain::timestamp::Timestamp;

/// Carries out one invocation, and tells of a failed one in the log and to Lambda.
///
/// # Errors
/// Fails as the run does.
pub async fn answer(auditor: &Auditor, event: LambdaEvent<Value>) -> Result<Answer, Diagnostic> {
    let LambdaEvent { payload, context } = event;
    let now = SystemTime::now();
    let invocation = Invocation {
        request_id: context.request_id.clone(),
        function_arn: context.invoked_function_arn.clone(),
        started_at: Timestamp::from_clock(now),
        // Emulators give a time that is long past instead of a deadline.
        time_left: context.deadline().duration_since(now).ok(),
    };
    auditor.handle(payload, invocation).await.map_err(|error| {
        let diagnostic = diagnostic(&error);
        tracing::error!(
            request_id = context.request_id,
            error_type = diagnostic.error_type,
            error = diagnostic.error_message,
            "run failed"
        );
        diagnostic
    })
}

fn diagnostic(error: &RunError) -> Diagnostic {
    Diagnostic {
        error_type: error.error_type().to_owned(),
        error_message: chain(error),
    }
}

/// Writes an error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Tells Lambda, and the log, that the function can't start with these settings.
///
/// # Errors
/// Fails when Lambda can't be told.
pub async fn refuse_to_start(error: &InvalidSettings) -> Result<(), lambda_runtime::Error> {
    const ERROR_TYPE: &str = "InvalidSettings";
    tracing::error!(
        error_type = ERROR_TYPE,
        error = error.to_string(),
        "function not started"
    );
    let diagnostic = Diagnostic {
        error_type: ERROR_TYPE.to_owned(),
        error_message: error.to_string(),
    };
    let request = build_request()
        .method("POST")
        .uri("/2018-06-01/runtime/init/error")
        .header("lambda-runtime-function-error-type", ERROR_TYPE)
        .body(Body::from(serde_json::to_vec(&diagnostic)?))?;
    // Outside Lambda nobody listens: the log has told.
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some() {
        Client::builder().build()?.call(request).await?;
    }
    Ok(())
}

/// The memory that comes with one core.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>
const MEGABYTES_PER_CORE: usize = 1_769;

/// Makes the runtime: with one thread, or with as many as a larger function has cores for.
///
/// A small function sees two cores as well, of which it has a part of one; threads would only cost it
/// memory.
///
/// # Errors
/// Fails when the system gives no threads or no file descriptors.
pub fn runtime() -> io::Result<Runtime> {
    let memory = std::env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").ok();
    let megabytes: usize = memory.and_then(|size| size.parse().ok()).unwrap_or(0);
    let there = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut builder = match (megabytes / MEGABYTES_PER_CORE).min(there) {
        0 | 1 => Builder::new_current_thread(),
        cores => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(cores);
            builder
        }
    };
    builder.enable_all().build()
}

/// The function's name, for its metrics; `local` outside Lambda.
pub fn function_name() -> String {
    std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|_| "local".to_owned())
}

/// Writes the log as JSON lines with `timestamp` and `level` to the standard output, from the level in
/// `AWS_LAMBDA_LOG_LEVEL` on (default `INFO`).
///
/// Only warnings of other crates are let through: at finer levels the SDK logs whole requests.
pub fn log_as_json() {
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL").ok();
    let level = level
        .and_then(|level| level.parse().ok())
        .unwrap_or(Level::INFO);
    let others = LevelFilter::from_level(level).min(LevelFilter::WARN);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false);
    let targets = Targets::new()
        .with_default(others)
        .with_target(env!("CARGO_CRATE_NAME"), level)
        // It repeats every error that `answer` has told, in Rust's notation.
        .with_target("lambda_runtime::layers::panic", LevelFilter::OFF);
    tracing_subscriber::registry()
        .with(lines)
        .with(targets)
        .init();
}
