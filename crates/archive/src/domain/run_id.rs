//! The names of runs, and of attempts at them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::digest::sha256_hex;
use super::timestamp::Timestamp;

/// The name of a run: the moment it was scheduled for and eight hex digits of what triggered it.
///
/// The same event always has the same name, so a retry is recognised as the run it repeats.
#[derive(
    Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// Returns the name of the run of an event.
    ///
    /// The eight digits are the first of a UUID; of any other text, the first of its SHA-256.
    pub fn of_event(scheduled_at: Timestamp, event_id: &str) -> Self {
        let digits = uuid_start(event_id).map(str::to_ascii_lowercase);
        Self::new(
            scheduled_at,
            &digits.unwrap_or_else(|| digest_start(event_id)),
        )
    }

    /// Returns the name of the run of a request with this ID of Lambda's.
    ///
    /// The eight digits are the first of its SHA-256: Lambda does not promise that its IDs start with random
    /// digits.
    pub fn of_request(scheduled_at: Timestamp, request_id: &str) -> Self {
        Self::new(scheduled_at, &digest_start(request_id))
    }

    fn new(scheduled_at: Timestamp, digits: &str) -> Self {
        Self(format!("{}-{digits}", scheduled_at.compact()))
    }

    /// Returns the moment the run was scheduled for, to the second; `None` if this is not the name of a
    /// run, as a changed document may contain.
    pub fn scheduled_at(&self) -> Option<Timestamp> {
        let (moment, digits) = self.0.split_once('-')?;
        let scheduled_at = Timestamp::from_compact(moment)?;
        eight_hex_digits(digits).then_some(scheduled_at)
    }
}

/// A text that is not the name of a run, or of an attempt.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` is not the name of a run or an attempt, such as 20261122T060000Z-7bf73129 or 0badcafe"
)]
pub struct MalformedName {
    text: String,
}

impl FromStr for RunId {
    type Err = MalformedName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let run = Self(text.to_owned());
        match run.scheduled_at() {
            Some(_) => Ok(run),
            None => Err(MalformedName { text: run.0 }),
        }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const RUN_DIGITS: usize = 8;

fn eight_hex_digits(text: &str) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == RUN_DIGITS && text.bytes().all(is_hex)
}

fn digest_start(text: &str) -> String {
    sha256_hex(text)[..RUN_DIGITS].to_owned()
}

fn uuid_start(text: &str) -> Option<&str> {
    let groups: Vec<&str> = text.split('-').collect();
    let is_uuid = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    is_uuid.then(|| groups[0])
}

/// One attempt at a run: eight hex digits, new for each attempt, so no attempt ever overwrites another's
/// objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attempt(u32);

impl Attempt {
    /// Makes the name of an attempt of 32 random bits.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl FromStr for Attempt {
    type Err = MalformedName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bits = u32::from_str_radix(text, 16);
        match bits {
            Ok(bits) if eight_hex_digits(text) => Ok(Self(bits)),
            _ => Err(MalformedName {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduled_at() -> Timestamp {
        "2026-11-22T06:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_run_is_named_by_its_moment_and_the_start_of_the_events_uuid() {
        let run = RunId::of_event(scheduled_at(), "7bf73129-1428-4cd3-a780-95db273d1602");
        assert_eq!(run.to_string(), "20261122T060000Z-7bf73129");
    }

    #[test]
    fn a_name_is_read_back_and_anything_else_is_refused() {
        let run: RunId = "20261122T060000Z-7bf73129".parse().unwrap();
        assert_eq!(run.scheduled_at(), Some(scheduled_at()));
        let attempt: Attempt = "00c0ffee".parse().unwrap();
        assert_eq!(attempt, Attempt::from_bits(0x00c0_ffee));
        for text in [
            "",
            "20261122T060000Z",
            "20261122T060000Z-7BF73129",
            "20261122T060000Z-7bf7312",
            "20261122T060000Z-7bf731290",
            "20261322T060000Z-7bf73129",
            "20261122T0600000-7bf73129",
            "+0261122T060000Z-7bf73129",
            "2026-1122T060000Z-7bf73129",
            "２0261122T060000Z-7bf73129",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text:?}");
        }
        for text in ["", "+0c0ffee", "c0ffee", "00C0FFEE", "00c0ffee0"] {
            assert!(text.parse::<Attempt>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_event_id_that_is_not_a_uuid_is_hashed_and_cannot_change_the_key() {
        let run = RunId::of_event(scheduled_at(), "../../deadbeef\n");
        assert_eq!(run.to_string(), "20261122T060000Z-93c433d3");
        assert_ne!(run, RunId::of_event(scheduled_at(), "../../deadbeef"));
    }
}
