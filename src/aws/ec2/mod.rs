//! EC2: image usage reports, their entries, and Regions.

mod answers;
mod client;
mod decoder;
pub mod pagination;
mod regions;
mod reports;

#[cfg(test)]
mod sdk_comparison;

pub use pagination::ListedPage;
pub use regions::EnabledRegions;
pub use reports::{MAX_IDS_PER_CALL, ReportQuery, UsageReports};
