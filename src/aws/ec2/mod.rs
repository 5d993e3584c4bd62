//! EC2: image usage reports, their entries, requests for new ones, AMIs, and Regions.

mod answers;
mod client;
mod decoder;
mod images;
pub mod pagination;
mod regions;
mod reports;
mod requests;

#[cfg(test)]
mod sdk_comparison;

pub use answers::{ImageReference, OwnImage};
pub use images::{Images, MAX_IMAGES_PER_CALL};
pub use pagination::ListedPage;
pub use regions::EnabledRegions;
pub use reports::{MAX_IDS_PER_CALL, ReportQuery, UsageReports};
pub use requests::{ReportRequest, ReportRequests};
