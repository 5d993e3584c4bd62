//! The unit of a run: one account in one Region.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The 12-digit ID of an AWS account.
#[derive(
    Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String")]
pub struct AccountId(#[schemars(regex(pattern = r"^[0-9]{12}$"))] String);

/// A text that is not an account ID.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not an account ID: 12 digits such as 111122223333")]
pub struct MalformedAccountId {
    text: String,
}

impl AccountId {
    /// Returns the ID as EC2 writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountId {
    type Err = MalformedAccountId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(MalformedAccountId {
                text: text.to_owned(),
            })
        }
    }
}

impl TryFrom<String> for AccountId {
    type Error = MalformedAccountId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an AWS Region, such as `eu-west-1`.
///
/// Any name of this form is valid, because AWS opens new Regions. The form alone (lower-case letters, digits
/// and hyphens) makes it safe in a host name and in an S3 key.
#[derive(
    Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String")]
pub struct Region(#[schemars(regex(pattern = r"^[a-z]+(-[a-z]+)+-[0-9]+$"))] String);

/// A text that is not the name of a Region.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not the name of a Region such as eu-west-1")]
pub struct MalformedRegion {
    text: String,
}

/// The longest Region name accepted; the longest that AWS has is `us-isob-east-1` with 14 characters.
const MAX_REGION_CHARACTERS: usize = 32;

impl Region {
    /// Returns the name as EC2 writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Region {
    type Err = MalformedRegion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split('-').collect();
        let well_formed = text.len() <= MAX_REGION_CHARACTERS
            && match words.as_slice() {
                [names @ .., number] => {
                    names.len() >= 2
                        && names.iter().all(|name| {
                            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())
                        })
                        && !number.is_empty()
                        && number.bytes().all(|byte| byte.is_ascii_digit())
                }
                [] => false,
            };
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(MalformedRegion {
                text: text.to_owned(),
            })
        }
    }
}

impl TryFrom<String> for Region {
    type Error = MalformedRegion;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One account in one Region. Sorted by account, then Region.
#[derive(
    Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
pub struct Target {
    /// The account whose reports are read: the owner of the AMIs.
    pub account_id: AccountId,
    /// The Region whose reports are read.
    pub region: Region,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account_id, self.region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_of_every_partition_are_accepted() {
        for name in [
            "us-east-1",
            "us-gov-west-1",
            "us-isob-east-1",
            "cn-north-1",
            "eusc-de-east-1",
            "ap-southeast-12",
        ] {
            assert_eq!(name.parse::<Region>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_name_that_could_change_a_key_or_host_is_refused() {
        for name in [
            "",
            "us-east",
            "us-east-",
            "US-EAST-1",
            "us-east-1/..",
            "../us-east-1",
            "us-east-1.example.com",
            "eu west-1",
            "us--1",
        ] {
            assert!(name.parse::<Region>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn an_account_id_has_twelve_digits() {
        assert!("111122223333".parse::<AccountId>().is_ok());
        for text in [
            "",
            "11112222333",
            "1111222233334",
            "11112222333a",
            "１１１１２２２２３３３３",
        ] {
            assert!(text.parse::<AccountId>().is_err(), "{text:?}");
        }
    }
}
