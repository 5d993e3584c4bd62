//! EC2, STS and Organizations: with the archive's S3, the only code that names a type of the AWS SDK.
//!
//! Everything that goes in or comes out is this project's own: the SDK's `Option`s are decided here,
//! and its errors become a [`CallFailure`](image_usage_archive::aws::CallFailure).
//!
//! Each call is boxed: its future has several kilobytes, which all that waits for it would have too.

pub(crate) mod accounts;
pub mod ec2;

pub use accounts::{AccountAccess, Accounts, Caller};
