//! Headers that a bucket's policy may demand of every write.

use std::str::FromStr;

use aws_sdk_s3::types::{ObjectCannedAcl, ServerSideEncryption};

/// Headers of every write to a bucket; without them, the bucket's own defaults apply.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct WriteHeaders {
    /// `x-amz-server-side-encryption`.
    pub encryption: Option<Encryption>,
    /// `x-amz-acl`.
    pub acl: Option<CannedAcl>,
}

/// How S3 is told to encrypt an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// With a key that S3 manages.
    Aes256,
    /// With a KMS key: the one that AWS manages for S3, if none is named.
    Kms {
        /// The key's ARN.
        key_arn: Option<String>,
    },
}

/// A text that is not a kind of encryption.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a kind of encryption: `AES256`, `aws:kms`, or the ARN of a KMS key")]
pub struct UnknownEncryption {
    text: String,
}

impl FromStr for Encryption {
    type Err = UnknownEncryption;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_key_arn = text.starts_with("arn:") && text.split(':').nth(2) == Some("kms");
        match text {
            "AES256" => Ok(Self::Aes256),
            "aws:kms" => Ok(Self::Kms { key_arn: None }),
            _ if is_key_arn => Ok(Self::Kms {
                key_arn: Some(text.to_owned()),
            }),
            _ => Err(UnknownEncryption {
                text: text.to_owned(),
            }),
        }
    }
}

/// A canned ACL that gives no one but the owners access.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html#canned-acl>
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each variant is the ACL of its name")]
pub enum CannedAcl {
    Private,
    BucketOwnerRead,
    BucketOwnerFullControl,
}

/// A text that is not such an ACL.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` is not an ACL for the archive: `private`, `bucket-owner-read` or `bucket-owner-full-control`"
)]
pub struct UnknownAcl {
    text: String,
}

impl FromStr for CannedAcl {
    type Err = UnknownAcl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "private" => Ok(Self::Private),
            "bucket-owner-read" => Ok(Self::BucketOwnerRead),
            "bucket-owner-full-control" => Ok(Self::BucketOwnerFullControl),
            _ => Err(UnknownAcl {
                text: text.to_owned(),
            }),
        }
    }
}

impl WriteHeaders {
    pub(super) fn sse(&self) -> Option<ServerSideEncryption> {
        Some(match self.encryption.as_ref()? {
            Encryption::Aes256 => ServerSideEncryption::Aes256,
            Encryption::Kms { .. } => ServerSideEncryption::AwsKms,
        })
    }

    pub(super) fn kms_key(&self) -> Option<String> {
        match &self.encryption {
            Some(Encryption::Kms { key_arn }) => key_arn.clone(),
            _ => None,
        }
    }

    pub(super) fn canned_acl(&self) -> Option<ObjectCannedAcl> {
        Some(match self.acl? {
            CannedAcl::Private => ObjectCannedAcl::Private,
            CannedAcl::BucketOwnerRead => ObjectCannedAcl::BucketOwnerRead,
            CannedAcl::BucketOwnerFullControl => ObjectCannedAcl::BucketOwnerFullControl,
        })
    }
}
