//! The tag of the AMIs that count for coverage and renewal.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::report::Tags;

/// The longest key of a tag.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions>
const MAX_KEY_CHARACTERS: usize = 128;

/// The longest value of a tag.
const MAX_VALUE_CHARACTERS: usize = 256;

/// A tag that an AMI must have: a key with any value, or with a certain one. Written as `Key` or `Key=Value`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ImageTag {
    key: String,
    value: Option<String>,
}

/// A text that is not a tag.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` is not a tag: `Key` or `Key=Value`, with 1 to 128 characters in the key, at most 256 in the value, and no control characters"
)]
pub struct MalformedImageTag {
    text: String,
}

impl ImageTag {
    /// Whether an AMI with these tags has it.
    pub fn is_among(&self, tags: &Tags) -> bool {
        let found = tags.get(&self.key);
        match &self.value {
            None => found.is_some(),
            // EC2 may leave out the value of a tag that has none.
            Some(value) => found.is_some_and(|found| found.as_deref().unwrap_or("") == value),
        }
    }
}

impl FromStr for ImageTag {
    type Err = MalformedImageTag;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        let is_key = (1..=MAX_KEY_CHARACTERS).contains(&key.chars().count());
        let is_value = value.unwrap_or("").chars().count() <= MAX_VALUE_CHARACTERS;
        match is_key && is_value && !text.chars().any(char::is_control) {
            true => Ok(Self {
                key: key.to_owned(),
                value: value.map(str::to_owned),
            }),
            false => Err(MalformedImageTag {
                text: text.to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for ImageTag {
    type Error = MalformedImageTag;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ImageTag> for String {
    fn from(tag: ImageTag) -> Self {
        tag.to_string()
    }
}

impl fmt::Display for ImageTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            None => f.write_str(&self.key),
            Some(value) => write!(f, "{}={value}", self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_among(tag: &str, tags: &[(&str, Option<&str>)]) -> bool {
        let tags = tags.iter();
        let tags = tags.map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)));
        tag.parse::<ImageTag>().unwrap().is_among(&tags.collect())
    }

    #[test]
    fn a_tag_is_a_key_with_any_value_or_with_a_certain_one() {
        #[rustfmt::skip]
        let table = [
            ("Team", &[("Team", Some("a"))][..], true),
            ("Team", &[("Team", None)], true),
            ("Team", &[("team", Some("a"))], false),
            ("Team=a", &[("Team", Some("a"))], true),
            ("Team=a", &[("Team", Some("A"))], false),
            ("Team=a", &[], false),
            ("Team=", &[("Team", None)], true),
            ("Team=", &[("Team", Some("a"))], false),
            ("Team=a=b", &[("Team", Some("a=b"))], true),
        ];
        for (tag, tags, expected) in table {
            assert_eq!(is_among(tag, tags), expected, "{tag} {tags:?}");
            assert_eq!(tag.parse::<ImageTag>().unwrap().to_string(), tag);
        }
    }

    #[test]
    fn a_text_without_a_key_or_too_long_is_refused() {
        let long = ["k".repeat(129), format!("k={}", "v".repeat(257))];
        for text in ["", "=", "=value", "a\nb", &long[0], &long[1]] {
            assert!(text.parse::<ImageTag>().is_err(), "{text}");
        }
    }
}
