//! Where every object of the archive is stored: each key is built here and nowhere else.

use std::str::FromStr;

use crate::domain::run_id::{Attempt, RunId};
use crate::domain::target::Target;
use crate::domain::timestamp::Timestamp;

/// The key prefix that holds the archive: empty, or ending in `/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout(String);

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

impl FromStr for Layout {
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

/// The attempt that wrote an object of a target, by its key: `RUN_ID.ATTEMPT.jsonl.gz`.
pub fn attempt_of(key: &str) -> Option<Attempt> {
    key.strip_suffix(".jsonl.gz")?
        .rsplit('.')
        .next()?
        .parse()
        .ok()
}

impl Layout {
    /// Where the reports of one target of a run lie: gzipped JSON Lines.
    pub fn reports(
        &self,
        run: &RunId,
        attempt: Attempt,
        scheduled_at: Timestamp,
        target: &Target,
    ) -> String {
        self.of_target("reports", run, attempt, scheduled_at, target)
    }

    /// Where the entries that a run fetched for one target lie: gzipped JSON Lines.
    pub fn entries(
        &self,
        run: &RunId,
        attempt: Attempt,
        scheduled_at: Timestamp,
        target: &Target,
    ) -> String {
        self.of_target("entries", run, attempt, scheduled_at, target)
    }

    fn of_target(
        &self,
        what: &str,
        run: &RunId,
        attempt: Attempt,
        scheduled_at: Timestamp,
        target: &Target,
    ) -> String {
        let Self(prefix) = self;
        let Target { account_id, region } = target;
        let date = scheduled_at.date();
        format!(
            "{prefix}v1/{what}/dt={date}/account_id={account_id}/region={region}/{run}.{attempt}.jsonl.gz"
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
    fn keys_are_partitioned_by_the_scheduled_day() {
        let prefix: Layout = "image-usage/".parse().unwrap();
        let attempt = "0badcafe".parse().unwrap();
        let run = RunId::of_event(scheduled_at(), "7bf73129-1428-4cd3-a780-95db273d1602");
        let target = Target {
            account_id: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        assert_eq!(
            prefix.reports(&run, attempt, scheduled_at(), &target),
            "image-usage/v1/reports/dt=2026-11-22/account_id=111122223333/region=us-east-1/20261122T060000Z-7bf73129.0badcafe.jsonl.gz"
        );
        assert_eq!(
            prefix.entries(&run, attempt, scheduled_at(), &target),
            "image-usage/v1/entries/dt=2026-11-22/account_id=111122223333/region=us-east-1/20261122T060000Z-7bf73129.0badcafe.jsonl.gz"
        );
        assert_eq!(
            prefix.snapshot(&run, scheduled_at()),
            "image-usage/v1/snapshots/dt=2026-11-22/20261122T060000Z-7bf73129.json"
        );
        let empty: Layout = "".parse().unwrap();
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
            assert!(text.parse::<Layout>().is_err(), "{text:?}");
        }
    }
}
