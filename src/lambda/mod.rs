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
use crate::settings::{InvalidSettings, Settings};

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
    let megabytes = memory_megabytes().unwrap_or(0);
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

/// The function's memory, as Lambda says; `None` outside Lambda.
fn memory_megabytes() -> Option<usize> {
    let memory = std::env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").ok()?;
    memory.parse().ok()
}

/// What a run needs besides its targets, in megabytes: the function itself, targets that are paused, and the
/// snapshot.
const MEGABYTES_OF_A_RUN: usize = 64;

/// What one target needs at most, in megabytes: a part of an upload, two pages, and its staged reports.
const MEGABYTES_OF_A_TARGET: usize = 16;

/// Lowers the number of targets audited at a time to what the function's memory is enough for, and logs that.
pub fn limit_concurrency(mut settings: Settings) -> Settings {
    let Some(memory_megabytes) = memory_megabytes() else {
        return settings;
    };
    let configured = settings.max_concurrent_targets;
    let limit = fitting_targets(memory_megabytes);
    if limit < configured {
        tracing::warn!(
            configured,
            limit,
            memory_megabytes,
            "fewer targets are audited at a time than configured: raise the function's memory for more"
        );
        settings.max_concurrent_targets = limit;
    }
    settings
}

fn fitting_targets(memory_megabytes: usize) -> usize {
    (memory_megabytes.saturating_sub(MEGABYTES_OF_A_RUN) / MEGABYTES_OF_A_TARGET).max(1)
}

/// The function's name, for its metrics; `local` outside Lambda.
pub fn function_name() -> String {
    std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|_| "local".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_targets_are_audited_at_a_time_as_the_memory_is_enough_for() {
        let table = [(128, 4), (256, 12), (512, 28), (1_024, 60), (64, 1), (0, 1)];
        for (memory_megabytes, expected) in table {
            assert_eq!(
                fitting_targets(memory_megabytes),
                expected,
                "{memory_megabytes}"
            );
        }
    }
}
