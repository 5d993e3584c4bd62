//! image-usage-auditor: an AWS Lambda function that audits and archives EC2 image usage reports.
pub mod archive;
pub mod aws;
pub mod findings;
pub mod keys;
pub mod lambda;
pub mod metrics;
pub mod report;
pub mod request;
pub mod run;
pub mod settings;
pub mod snapshot;
pub mod target;
pub mod timestamp;
