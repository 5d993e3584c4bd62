//! The archive of EC2 image usage reports, as a library: its rules, its documents, how to read it, and how to
//! check it. The Lambda function writes archives with it, and the command line checks them.
//!
//! # Layers
//!
//! Each layer uses only those before it.
//!
//! | layer | what it is |
//! | --- | --- |
//! | [`domain`] | facts about reports, and the rules that evaluate them; pure |
//! | [`documents`] | report lines, entry lines, the snapshot with its ledger, counts and changes; pure |
//! | [`layout`], [`line_reader`] | every key, built and taken apart; the lines of gzipped objects |
//! | [`aws`] | the HTTP client, retries and failures that all AWS clients share, and S3 |
//! | [`source`] | an archive in a bucket, or in a folder with a copy of it |
//! | [`page`] | a run as one HTML page for people; pure |
//! | [`renewal_plan`] | which AMIs need a new report; pure |
//! | [`answer`] | answers who uses an AMI |
//! | [`verify`] | checks an archive |
//!
//! # Example
//!
//! ```no_run
//! use image_usage_archive::source::Source;
//! use image_usage_archive::verify::{Options, verify};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let archive = Source::at("s3://my-bucket/image-usage/").await?;
//! let verdict = verify(&archive, &Options::default()).await?;
//! for problem in &verdict.problems {
//!     println!("{} {}", problem.key, problem.what);
//! }
//! # Ok(())
//! # }
//! ```

pub mod answer;
pub mod aws;
pub mod documents;
pub mod domain;
pub mod layout;
pub mod line_reader;
mod named_object;
pub mod page;
pub mod renewal_plan;
pub mod source;
pub mod verify;
