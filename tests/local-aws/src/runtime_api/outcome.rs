//! The outcome of an invocation.

use serde_json::{Value, json};
use std::time::Duration;

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    /// The function returned a response.
    Response,
    /// The function returned an error, or a response that is too large.
    Error,
    /// The function failed before it asked for its first invocation.
    InitError,
    /// The function's process ended without an answer.
    Exited,
    /// The function did not answer, or did not ask for the invocation, before its timeout.
    TimedOut,
}

impl OutcomeKind {
    /// Returns the kind's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Error => "error",
            Self::InitError => "init_error",
            Self::Exited => "exited",
            Self::TimedOut => "timed_out",
        }
    }
}

/// The outcome of an invocation.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How the invocation ended.
    pub kind: OutcomeKind,
    /// What the function posted: its response, or `errorType` and `errorMessage`.
    ///
    /// If it posted nothing, `errorType` and `errorMessage` are those of Lambda. A text that is
    /// not JSON is a string.
    pub payload: Value,
    /// The error type of the function's header, `Lambda-Runtime-Function-Error-Type`.
    pub error_type: Option<String>,
    /// The time from the hand-over of the event to the function's answer.
    pub duration: Duration,
}

impl Outcome {
    /// Returns the outcome as JSON.
    pub fn json(&self) -> Value {
        json!({
            "kind": self.kind.name(),
            "payload": self.payload,
            "error_type": self.error_type,
            "milliseconds": self.duration.as_secs_f64() * 1e3,
        })
    }

    /// Creates the outcome of a function that posted nothing.
    pub(super) fn without_answer(
        kind: OutcomeKind,
        error_type: &str,
        message: &str,
        duration: Duration,
    ) -> Self {
        Self {
            kind,
            payload: json!({"errorType": error_type, "errorMessage": message}),
            error_type: None,
            duration,
        }
    }
}
