//! The connection to AWS: configuration, the HTTP client, failures, and S3.
//!
//! Each call is boxed: its future has several kilobytes, which every future that awaits it would have too.

mod client;
mod failure;
mod http;
mod retry;
mod s3;
mod token_cycle;
mod write_headers;
mod xml_guard;

pub use client::{Aws, retry_partition, sdk_region};
pub use failure::{CallFailure, FailureKind, chain};
pub use retry::RetryBrokenResponses;
pub use s3::{
    Bucket, Condition, NewObject, Sha256Digest, Stored, StoredFacts, Upload, UploadedPart,
};
pub use token_cycle::TokenCycle;
pub use write_headers::{CannedAcl, Encryption, UnknownAcl, UnknownEncryption, WriteHeaders};
pub use xml_guard::RejectBrokenXml;
