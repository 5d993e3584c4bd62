//! Facts about reports and AMIs, and the rules that evaluate them: pure, without SDK, runtime, environment or clock.

pub mod digest;
pub mod entries_status;
pub mod error_code;
pub mod findings;
pub mod image_tag;
pub mod report;
pub mod report_key;
pub mod run_id;
pub mod target;
pub mod timestamp;
pub mod top_list;
pub mod usage;
pub mod visible;
