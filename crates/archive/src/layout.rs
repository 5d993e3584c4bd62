//! Every S3 key of the archive is built here and nowhere else.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::target::Target;
use crate::domain::timestamp::Timestamp;

/// The name of a run: the moment it was scheduled for and eight hex digits of what triggered it.
///
/// The same event always gives the same name, so that a retry is recognised as the run it repeats.
#[derive(
    Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// Names the run of an event.
    ///
    /// The eight digits are the first of a UUID; of any other text, the first of its SHA-256.
    pub fn of_event(scheduled_at: Timestamp, event_id: &str) -> Self {
        let digits = uuid_start(event_id).map(str::to_ascii_lowercase);
        Self::new(
            scheduled_at,
            &digits.unwrap_or_else(|| digest_start(event_id)),
        )
    }

    /// Names the run of a request, by the ID that Lambda gave it.
    ///
    /// The eight digits are the first of its SHA-256: nothing says that Lambda's IDs are random from
    /// their start.
    pub fn of_request(scheduled_at: Timestamp, request_id: &str) -> Self {
        Self::new(scheduled_at, &digest_start(request_id))
    }

    fn new(scheduled_at: Timestamp, digits: &str) -> Self {
        Self(format!("{}-{digits}", scheduled_at.compact()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const RUN_DIGITS: usize = 8;

fn digest_start(text: &str) -> String {
    hex(&Sha256::digest(text))[..RUN_DIGITS].to_owned()
}

fn uuid_start(text: &str) -> Option<&str> {
    let groups: Vec<&str> = text.split('-').collect();
    let is_uuid = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    is_uuid.then(|| groups[0])
}

/// Writes bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key prefix that holds the archive: empty, or ending in `/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prefix(String);

/// A text that cannot be the prefix of the archive.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` is not a key prefix: empty, or ending in `/`, not starting with `/`, without `//`, `.` or `..` between slashes or control characters, and at most {MAX_PREFIX_BYTES} bytes long"
)]
pub struct MalformedPrefix {
    text: String,
}

/// The longest prefix taken: S3 keys have at most 1,024 bytes, of which the archive's own part needs
/// up to 160.
const MAX_PREFIX_BYTES: usize = 512;

impl FromStr for Prefix {
    type Err = MalformedPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = match text.strip_suffix('/') {
            None => text.is_empty(),
            Some(path) => {
                text.len() <= MAX_PREFIX_BYTES
                    && !text.chars().any(char::is_control)
                    && path
                        .split('/')
                        .all(|segment| !matches!(segment, "" | "." | ".."))
            }
        };
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(MalformedPrefix {
                text: text.to_owned(),
            })
        }
    }
}

impl Prefix {
    /// Where the reports of one target of a run lie: gzipped JSON Lines.
    pub fn reports(&self, run: &RunId, scheduled_at: Timestamp, target: &Target) -> String {
        self.of_target("reports", run, scheduled_at, target)
    }

    /// Where the entries that a run fetched for one target lie: gzipped JSON Lines.
    pub fn entries(&self, run: &RunId, scheduled_at: Timestamp, target: &Target) -> String {
        self.of_target("entries", run, scheduled_at, target)
    }

    fn of_target(
        &self,
        what: &str,
        run: &RunId,
        scheduled_at: Timestamp,
        target: &Target,
    ) -> String {
        let Self(prefix) = self;
        let Target { account_id, region } = target;
        let date = scheduled_at.date();
        format!(
            "{prefix}v1/{what}/dt={date}/account_id={account_id}/region={region}/{run}.jsonl.gz"
        )
    }

    /// Where the snapshot of a run lies.
    pub fn snapshot(&self, run: &RunId, scheduled_at: Timestamp) -> String {
        let Self(prefix) = self;
        let date = scheduled_at.date();
        format!("{prefix}v1/snapshots/dt={date}/{run}.json")
    }

    /// Where the copy of the newest unscoped snapshot lies.
    pub fn latest(&self) -> String {
        let Self(prefix) = self;
        format!("{prefix}v1/latest.json")
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
    fn an_event_id_that_is_no_uuid_is_hashed_and_cannot_leave_its_place_in_the_key() {
        let run = RunId::of_event(scheduled_at(), "../../deadbeef\n");
        assert_eq!(run.to_string(), "20261122T060000Z-93c433d3");
        assert_ne!(run, RunId::of_event(scheduled_at(), "../../deadbeef"));
    }

    #[test]
    fn keys_are_partitioned_by_the_scheduled_day() {
        let prefix: Prefix = "image-usage/".parse().unwrap();
        let run = RunId::of_event(scheduled_at(), "7bf73129-1428-4cd3-a780-95db273d1602");
        let target = Target {
            account_id: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        assert_eq!(
            prefix.reports(&run, scheduled_at(), &target),
            "image-usage/v1/reports/dt=2026-11-22/account_id=111122223333/region=us-east-1/20261122T060000Z-7bf73129.jsonl.gz"
        );
        assert_eq!(
            prefix.entries(&run, scheduled_at(), &target),
            "image-usage/v1/entries/dt=2026-11-22/account_id=111122223333/region=us-east-1/20261122T060000Z-7bf73129.jsonl.gz"
        );
        assert_eq!(
            prefix.snapshot(&run, scheduled_at()),
            "image-usage/v1/snapshots/dt=2026-11-22/20261122T060000Z-7bf73129.json"
        );
        let empty: Prefix = "".parse().unwrap();
        assert_eq!(empty.latest(), "v1/latest.json");
    }

    #[test]
    fn a_prefix_without_its_slash_or_that_climbs_is_refused() {
        for text in [
            "image-usage",
            "/",
            "/a/",
            "a//b/",
            "../",
            "a/../b/",
            "a\n/",
            &format!("{}/", "a".repeat(512)),
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text:?}");
        }
    }
}
