//! Lambda's side: an invocation in, an answer or an error out.

mod log;

use std::io;
use std::num::NonZero;
use std::time::SystemTime;

use image_usage_archive::aws::chain;
use image_usage_archive::domain::timestamp::Timestamp;
use lambda_runtime::{Diagnostic, LambdaEvent};
use lambda_runtime_api_client::{Client, body::Body, build_request};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

pub use self::log::log_as_json;
use crate::audit::{Answer, Auditor, Invocation, RunError};
use crate::settings::InvalidSettings;

/// Handles one invocation; a failure is logged and reported to Lambda.
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
        // Emulators pass a time that is long past instead of a deadline.
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

/// Reports to Lambda, and in the log, that the function cannot start with these settings.
///
/// # Errors
/// Fails if Lambda cannot be reached.
pub async fn refuse_to_start(error: &InvalidSettings) -> Result<(), lambda_runtime::Error> {
    const ERROR_TYPE: &str = "InvalidSettings";
    let diagnostic = Diagnostic {
        error_type: ERROR_TYPE.to_owned(),
        error_message: error.to_string(),
    };
    tracing::error!(
        error_type = ERROR_TYPE,
        error = diagnostic.error_message,
        "function not started"
    );
    let request = build_request()
        .method("POST")
        .uri("/2018-06-01/runtime/init/error")
        .header("lambda-runtime-function-error-type", ERROR_TYPE)
        .body(Body::from(serde_json::to_vec(&diagnostic)?))?;
    // Outside Lambda there is no Runtime API; the log line is enough.
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some() {
        Client::builder().build()?.call(request).await?;
    }
    Ok(())
}

/// The memory that comes with one core.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>
const MEGABYTES_PER_CORE: usize = 1_769;

/// Makes the async runtime: with one thread, or with one for each core that a larger function has.
///
/// A small function sees two cores as well, but has only a part of one; threads would only cost memory.
///
/// # Errors
/// Fails if the system has no threads or file descriptors left.
pub fn runtime() -> io::Result<Runtime> {
    let memory = std::env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").ok();
    let megabytes: usize = memory.and_then(|size| size.parse().ok()).unwrap_or(0);
    let visible = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut builder = match (megabytes / MEGABYTES_PER_CORE).min(visible) {
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
