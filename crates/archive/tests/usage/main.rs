//! What is said about an AMI: the cases by name, and the law by random histories.
#![expect(
    clippy::unwrap_used,
    reason = "a test that meets something else has failed"
)]

mod builder;
mod consumers;
mod coverage;
mod history;
mod law;
mod oracle;
mod verdicts;
