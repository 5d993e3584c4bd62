//! The key of every object of the archive: built here, and taken apart here, and nowhere else.

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

/// The longest prefix accepted: S3 keys have at most 1,024 bytes, and the archive's own part needs up to
/// 170 of them.
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

impl Layout {
    /// The layout of an archive without a prefix: its keys start with `v1/`.
    pub fn without_prefix() -> Self {
        Self(String::new())
    }

    /// The key prefix: empty, or ending in `/`.
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// Returns the key of an object that an attempt at a run writes for one target: gzipped JSON Lines.
    pub fn object(
        &self,
        kind: ObjectKind,
        run: &RunId,
        attempt: Attempt,
        scheduled_at: Timestamp,
        target: &Target,
    ) -> String {
        let Self(prefix) = self;
        let Target { account_id, region } = target;
        let (kind, date) = (kind.as_str(), scheduled_at.date());
        format!(
            "{prefix}v1/{kind}/dt={date}/account_id={account_id}/region={region}/{run}.{attempt}.jsonl.gz"
        )
    }

    /// Returns the key of the snapshot of a run.
    pub fn snapshot(&self, run: &RunId, scheduled_at: Timestamp) -> String {
        let Self(prefix) = self;
        let date = scheduled_at.date();
        format!("{prefix}v1/snapshots/dt={date}/{run}.json")
    }

    /// Returns the key of a document that the phases of a run hand over.
    pub fn handover(&self, run: &RunId, scheduled_at: Timestamp, document: &Handover) -> String {
        let folder = self.handover_folder(run, scheduled_at);
        match document {
            Handover::Plan => format!("{folder}plan.json"),
            Handover::Targets(attempt) => format!("{folder}targets.{attempt}.jsonl"),
            Handover::Outcomes { first, attempt } => {
                let Target { account_id, region } = first;
                let outcomes = self.outcomes_folder(run, scheduled_at);
                format!("{outcomes}{account_id}.{region}.{attempt}.jsonl.gz")
            }
        }
    }

    /// Returns what the keys of all outcomes of a run start with.
    pub fn outcomes_folder(&self, run: &RunId, scheduled_at: Timestamp) -> String {
        format!("{}outcomes/", self.handover_folder(run, scheduled_at))
    }

    fn handover_folder(&self, run: &RunId, scheduled_at: Timestamp) -> String {
        let Self(prefix) = self;
        let date = scheduled_at.date();
        format!("{prefix}v1/runs/dt={date}/{run}/")
    }

    /// Returns the key of the copy of the newest unscoped snapshot.
    pub fn latest(&self) -> String {
        let Self(prefix) = self;
        format!("{prefix}v1/latest.json")
    }

    /// Returns the key of the page of a run.
    pub fn page(&self, run: &RunId, scheduled_at: Timestamp) -> String {
        let Self(prefix) = self;
        let date = scheduled_at.date();
        format!("{prefix}v1/pages/dt={date}/{run}.html")
    }

    /// Returns the key of the copy of the page of the newest unscoped run.
    pub fn latest_page(&self) -> String {
        let Self(prefix) = self;
        format!("{prefix}v1/latest.html")
    }
}

/// What every key starts with, below the prefix.
pub(crate) const ROOT: &str = "v1/";

/// The key of the copy of the newest unscoped snapshot, from `v1/` on.
pub(crate) const LATEST: &str = "v1/latest.json";

/// The folder of all snapshots, from `v1/` on.
pub(crate) const SNAPSHOTS: &str = "v1/snapshots/";

/// Returns the key of the snapshot of the run that wrote an object for a target; `None` for any other key.
pub(crate) fn snapshot_of(key: &str) -> Option<String> {
    match ArchiveKey::parse(key)? {
        (layout, ArchiveKey::Object(object)) => {
            Some(layout.snapshot(&object.run_id, object.scheduled_at))
        }
        _ => None,
    }
}

/// The kinds of objects that a run writes for each target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ObjectKind {
    /// The reports of the target.
    Reports,
    /// The entries that the run fetched.
    Entries,
    /// The AMIs of the target.
    Images,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Reports, Self::Entries, Self::Images];

    /// The kind as it is written in keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reports => "reports",
            Self::Entries => "entries",
            Self::Images => "images",
        }
    }

    /// Returns the kind of the object with this key; `None` for a key that is no target's object.
    pub fn of_key(key: &str) -> Option<Self> {
        match ArchiveKey::parse(key)? {
            (_, ArchiveKey::Object(object)) => Some(object.kind),
            _ => None,
        }
    }
}

/// A document that the phases of a run hand over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Handover {
    /// The plan of the run.
    Plan,
    /// The targets of the plan: JSON Lines, written by one attempt at the plan.
    Targets(Attempt),
    /// The outcomes of a batch of targets: gzipped JSON Lines.
    Outcomes {
        /// The first target of the batch.
        first: Target,
        /// The attempt at the batch.
        attempt: Attempt,
    },
}

/// Splits a key before its last `v1/`: a prefix may contain a folder of the same name; what follows it cannot.
fn split(key: &str) -> Option<(&str, &str)> {
    Some(key.split_at(key.rfind("v1/")?))
}

/// Returns the part of a key from `v1/` on, whatever the prefix is.
pub(crate) fn below_prefix(key: &str) -> &str {
    split(key).map_or(key, |(_, below)| below)
}

/// A key of the archive, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ArchiveKey {
    /// The copy of the newest unscoped snapshot.
    Latest,
    /// The snapshot of a run.
    Snapshot {
        /// The run.
        run_id: RunId,
        /// The moment the run was scheduled for, by its name.
        scheduled_at: Timestamp,
    },
    /// The copy of the page of the newest unscoped run.
    LatestPage,
    /// The page of a run.
    Page {
        /// The run.
        run_id: RunId,
        /// The moment the run was scheduled for, by its name.
        scheduled_at: Timestamp,
    },
    /// An object with the reports, entries or AMIs of one target.
    Object(ObjectKey),
    /// A document that the phases of a run hand over.
    Handover {
        /// The run.
        run_id: RunId,
        /// The moment the run was scheduled for, by its name.
        scheduled_at: Timestamp,
        /// The document.
        document: Handover,
    },
}

/// The key of an object with the reports, entries or AMIs of one target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectKey {
    /// What the object contains.
    pub kind: ObjectKind,
    /// The target.
    pub target: Target,
    /// The run that wrote it.
    pub run_id: RunId,
    /// The attempt at the run that wrote it.
    pub attempt: Attempt,
    /// The moment the run was scheduled for, by its name; its date is part of the key.
    pub scheduled_at: Timestamp,
}

impl ArchiveKey {
    /// Takes a key apart, and returns the layout that it belongs to; `None` for a key that no layout builds.
    pub fn parse(key: &str) -> Option<(Layout, Self)> {
        let (prefix, below) = split(key)?;
        let layout: Layout = prefix.parse().ok()?;
        let parsed = match below {
            "v1/latest.json" => Self::Latest,
            "v1/latest.html" => Self::LatestPage,
            _ => Self::parse_snapshot(below)
                .or_else(|| Self::parse_page(below))
                .or_else(|| Self::parse_object(below))
                .or_else(|| Self::parse_handover(below))?,
        };
        // Built again, so that nothing but a key of the archive passes: not another date, for example.
        (parsed.build(&layout) == key).then_some((layout, parsed))
    }

    fn parse_snapshot(below: &str) -> Option<Self> {
        let (run_id, scheduled_at) = parse_run(below, "v1/snapshots/", ".json")?;
        Some(Self::Snapshot {
            run_id,
            scheduled_at,
        })
    }

    fn parse_page(below: &str) -> Option<Self> {
        let (run_id, scheduled_at) = parse_run(below, "v1/pages/", ".html")?;
        Some(Self::Page {
            run_id,
            scheduled_at,
        })
    }

    fn parse_object(below: &str) -> Option<Self> {
        let parts: Vec<&str> = below.split('/').collect();
        let [_, kind, _, account_id, region, name] = parts[..] else {
            return None;
        };
        let kind = ObjectKind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind)?;
        let target = Target {
            account_id: account_id.strip_prefix("account_id=")?.parse().ok()?,
            region: region.strip_prefix("region=")?.parse().ok()?,
        };
        let (run_id, attempt) = name.strip_suffix(".jsonl.gz")?.split_once('.')?;
        let run_id: RunId = run_id.parse().ok()?;
        Some(Self::Object(ObjectKey {
            kind,
            target,
            scheduled_at: run_id.scheduled_at()?,
            run_id,
            attempt: attempt.parse().ok()?,
        }))
    }

    fn parse_handover(below: &str) -> Option<Self> {
        let (_, rest) = below.strip_prefix("v1/runs/")?.split_once('/')?;
        let (run_id, name) = rest.split_once('/')?;
        let run_id: RunId = run_id.parse().ok()?;
        let document = match name.split_once('/') {
            None if name == "plan.json" => Handover::Plan,
            None => {
                let attempt = name.strip_prefix("targets.")?.strip_suffix(".jsonl")?;
                Handover::Targets(attempt.parse().ok()?)
            }
            Some((_, name)) => {
                let parts: Vec<&str> = name.strip_suffix(".jsonl.gz")?.split('.').collect();
                let [account_id, region, attempt] = parts[..] else {
                    return None;
                };
                Handover::Outcomes {
                    first: Target {
                        account_id: account_id.parse().ok()?,
                        region: region.parse().ok()?,
                    },
                    attempt: attempt.parse().ok()?,
                }
            }
        };
        Some(Self::Handover {
            scheduled_at: run_id.scheduled_at()?,
            run_id,
            document,
        })
    }

    /// Builds the key in a layout.
    pub fn build(&self, layout: &Layout) -> String {
        match self {
            Self::Latest => layout.latest(),
            Self::Snapshot {
                run_id,
                scheduled_at,
            } => layout.snapshot(run_id, *scheduled_at),
            Self::LatestPage => layout.latest_page(),
            Self::Page {
                run_id,
                scheduled_at,
            } => layout.page(run_id, *scheduled_at),
            Self::Object(ObjectKey {
                kind,
                target,
                run_id,
                attempt,
                scheduled_at,
            }) => layout.object(*kind, run_id, *attempt, *scheduled_at, target),
            Self::Handover {
                run_id,
                scheduled_at,
                document,
            } => layout.handover(run_id, *scheduled_at, document),
        }
    }
}

/// Takes the run out of the key of a document that it writes once.
fn parse_run(below: &str, folder: &str, ending: &str) -> Option<(RunId, Timestamp)> {
    let (_, name) = below.strip_prefix(folder)?.split_once('/')?;
    let run_id: RunId = name.strip_suffix(ending)?.parse().ok()?;
    let scheduled_at = run_id.scheduled_at()?;
    Some((run_id, scheduled_at))
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
        let run = RunId::of_event(scheduled_at(), "7bf73129-1428-4cd3-a780-95db273d1602");
        let attempt = Attempt::from_bits(0x0bad_cafe);
        let target = Target {
            account_id: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        };
        assert_eq!(
            prefix.object(ObjectKind::Reports, &run, attempt, scheduled_at(), &target),
            "image-usage/v1/reports/dt=2026-11-22/account_id=111122223333/region=us-east-1/20261122T060000Z-7bf73129.0badcafe.jsonl.gz"
        );
        assert_eq!(
            prefix.object(ObjectKind::Entries, &run, attempt, scheduled_at(), &target),
            "image-usage/v1/entries/dt=2026-11-22/account_id=111122223333/region=us-east-1/20261122T060000Z-7bf73129.0badcafe.jsonl.gz"
        );
        assert_eq!(
            prefix.snapshot(&run, scheduled_at()),
            "image-usage/v1/snapshots/dt=2026-11-22/20261122T060000Z-7bf73129.json"
        );
        assert_eq!(
            prefix.page(&run, scheduled_at()),
            "image-usage/v1/pages/dt=2026-11-22/20261122T060000Z-7bf73129.html"
        );
        let layout = Layout::without_prefix();
        assert_eq!(layout.latest(), "v1/latest.json");
        assert_eq!(layout.latest_page(), "v1/latest.html");
        let outcomes = Handover::Outcomes {
            first: target,
            attempt,
        };
        let keys = [Handover::Plan, Handover::Targets(attempt), outcomes]
            .map(|document| prefix.handover(&run, scheduled_at(), &document));
        let folder = "image-usage/v1/runs/dt=2026-11-22/20261122T060000Z-7bf73129/";
        let names = keys.each_ref().map(|key| key.strip_prefix(folder).unwrap());
        assert_eq!(
            names,
            [
                "plan.json",
                "targets.0badcafe.jsonl",
                "outcomes/111122223333.us-east-1.0badcafe.jsonl.gz"
            ]
        );
    }

    #[test]
    fn every_key_is_taken_apart_into_what_it_was_built_of() {
        let run_id = RunId::of_event(scheduled_at(), "7bf73129-1428-4cd3-a780-95db273d1602");
        let target = || Target {
            account_id: "111122223333".parse().unwrap(),
            region: "us-gov-west-1".parse().unwrap(),
        };
        let object = |kind| {
            ArchiveKey::Object(ObjectKey {
                kind,
                target: target(),
                run_id: run_id.clone(),
                attempt: Attempt::from_bits(7),
                scheduled_at: scheduled_at(),
            })
        };
        let handover = |document| ArchiveKey::Handover {
            run_id: run_id.clone(),
            scheduled_at: scheduled_at(),
            document,
        };
        let keys = [
            ArchiveKey::Latest,
            ArchiveKey::Snapshot {
                run_id: run_id.clone(),
                scheduled_at: scheduled_at(),
            },
            ArchiveKey::LatestPage,
            ArchiveKey::Page {
                run_id: run_id.clone(),
                scheduled_at: scheduled_at(),
            },
            object(ObjectKind::Reports),
            object(ObjectKind::Entries),
            object(ObjectKind::Images),
            handover(Handover::Plan),
            handover(Handover::Targets(Attempt::from_bits(7))),
            handover(Handover::Outcomes {
                first: target(),
                attempt: Attempt::from_bits(8),
            }),
        ];
        for prefix in ["", "image-usage/", "v1/", "a/v1/b/", "ä v1/"] {
            let layout: Layout = prefix.parse().unwrap();
            for key in &keys {
                let built = key.build(&layout);
                let parsed = ArchiveKey::parse(&built);
                assert_eq!(parsed, Some((layout.clone(), key.clone())), "{built}");
            }
        }
    }

    #[test]
    fn a_key_that_no_run_writes_is_not_taken_for_one() {
        let object = "v1/reports/dt=2026-11-22/account_id=111122223333/region=us-east-1/20261122T060000Z-7bf73129.0badcafe.jsonl.gz";
        assert!(ArchiveKey::parse(object).is_some());
        for (old, new) in [
            ("v1/", "v2/"),
            ("v1/", "/v1/"),
            ("v1/", "a/../v1/"),
            ("reports", "pages"),
            ("dt=2026-11-22", "dt=2026-11-23"),
            ("dt=", ""),
            ("111122223333", "11112222333"),
            ("us-east-1", "us-east-1/x"),
            ("060000Z-", "060000Z"),
            (".0badcafe", ""),
            (".0badcafe", ".0BADCAFE"),
            (".gz", ""),
            (".gz", ".gz\n"),
        ] {
            let key = object.replacen(old, new, 1);
            assert_ne!(key, object);
            assert_eq!(ArchiveKey::parse(&key), None, "{key}");
        }
        for key in [
            "",
            "v1/",
            "v1/latest.json/",
            "latest.json",
            "v1/snapshots/dt=2026-11-23/20261122T060000Z-7bf73129.json",
            "v1/snapshots/20261122T060000Z-7bf73129.json",
            "v1/runs/dt=2026-11-22/20261122T060000Z-7bf73129/",
            "v1/runs/dt=2026-11-23/20261122T060000Z-7bf73129/plan.json",
            "v1/runs/dt=2026-11-22/20261122T060000Z-7bf73129/targets.jsonl",
            "v1/runs/dt=2026-11-22/20261122T060000Z-7bf73129/others/111122223333.eu-west-1.0badcafe.jsonl.gz",
            "v1/runs/dt=2026-11-22/20261122T060000Z-7bf73129/outcomes/0badcafe.jsonl.gz",
            "v1/snapshots/dt=2026-11-22/20261122T060000Z-7bf73129.html",
            "v1/pages/dt=2026-11-22/20261122T060000Z-7bf73129.json",
            "v1/pages/dt=2026-11-23/20261122T060000Z-7bf73129.html",
            "v1/pages/20261122T060000Z-7bf73129.html",
            "v1/latest.html/",
        ] {
            assert_eq!(ArchiveKey::parse(key), None, "{key}");
        }
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
