//! The log: JSON lines on the standard output.

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Writes the log as JSON lines with `timestamp` and `level`, from the level in `AWS_LAMBDA_LOG_LEVEL` on
/// (default `INFO`).
///
/// Of other crates, only warnings and errors are logged: at finer levels the SDK logs whole requests.
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
        // It repeats every error that `answer` has logged, in Rust's notation.
        .with_target("lambda_runtime::layers::panic", LevelFilter::OFF);
    tracing_subscriber::registry()
        .with(lines)
        .with(targets)
        .init();
}
