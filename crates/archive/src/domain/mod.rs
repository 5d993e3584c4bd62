//! The words and the rules: pure, without SDK, runtime, environment or clock.

pub mod findings;
pub mod report;
pub mod report_key;
pub mod target;
pub mod timestamp;
pub mod top_list;
