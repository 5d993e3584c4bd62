//! EC2, STS and Organizations: with the archive's S3, the only code that names a type of the AWS SDK.
//!
//! Inputs and outputs are this project's own types: the SDK's `Option`s are resolved here, and its errors
//! become a [`CallFailure`](image_usage_archive::aws::CallFailure).
//!
//! Each call is boxed, because its future takes several kilobytes, and so would every future that awaits it.

pub(crate) mod accounts;
pub mod ec2;

pub use accounts::{AccountAccess, Accounts, Caller};
