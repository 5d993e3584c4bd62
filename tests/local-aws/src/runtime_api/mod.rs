//! The Lambda Runtime API: hands events to one function and receives its responses.
//!
//! A function's process finds it through `AWS_LAMBDA_RUNTIME_API`. It asks for the next
//! invocation, posts its response or error, and asks again; before its first invocation it may
//! post an init error.
//!
//! The caller owns the process. Its death is noticed by its connections: if all of them have been
//! closed for a moment, the outcome of its invocation is [`OutcomeKind::Exited`]. Lambda's clients
//! for Rust and Python, and Node with `keepAlive`, keep a connection open while they work. A
//! function that exits without ever having connected is noticed when the timeout ends. The
//! emulator reports a function that exceeds its timeout, but cannot stop it, as Lambda would.
//!
//! Source: <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

mod api;
mod function;
mod outcome;
mod protocol;

pub use api::RuntimeApi;
pub use outcome::{Outcome, OutcomeKind};
