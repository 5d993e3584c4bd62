//! What a snapshot says, and whether it can be: all that its own bytes tell.

use std::fmt::Display;

use serde::Serialize;

use crate::documents::{
    AUDITOR_NAME, ArchivedObject, Changes, Counts, LedgerLine, PreviousSnapshot, RunStatus,
    SCHEMA_VERSION, Snapshot, TargetStatus,
};
use crate::domain::run_id::RunId;
use crate::domain::target::Target;
use crate::domain::timestamp::Timestamp;
use crate::domain::top_list::MAX_LISTED;
use crate::layout::{ArchiveKey, Layout, ObjectKind};

/// What has to be known of a snapshot to evaluate the others.
#[derive(Debug)]
pub(super) struct Outline {
    pub(super) run_id: RunId,
    pub(super) scheduled_at: Timestamp,
    pub(super) status: RunStatus,
    pub(super) is_full: bool,
    pub(super) previous: Option<PreviousSnapshot>,
    pub(super) targets: usize,
    pub(super) counts: Counts,
    pub(super) version: String,
    /// What stands in the documents before `v1/`; `None` where no object is named.
    pub(super) prefix: Option<String>,
    /// The objects of this run, by their keys from `v1/` on.
    pub(super) objects: Vec<String>,
    /// The objects of earlier runs that the ledger names.
    pub(super) earlier: Vec<ArchivedObject>,
}

impl Outline {
    /// The place of the snapshot among the others: by its schedule, then by its run.
    pub(super) fn order(&self) -> (Timestamp, &RunId) {
        (self.scheduled_at, &self.run_id)
    }
}

/// The part of a document's key from `v1/` on, whatever comes before it.
pub(super) fn below_prefix(key: &str) -> &str {
    // A prefix may hold a folder of the same name; what follows it can't.
    key.rfind("v1/").map_or(key, |start| &key[start..])
}

/// The layout of an object that a run wrote for a target; `None` if the key is not one of these.
pub(super) fn layout_of(
    key: &str,
    kind: ObjectKind,
    run_id: &RunId,
    target: &Target,
) -> Option<Layout> {
    let (layout, ArchiveKey::Object(object)) = ArchiveKey::parse(key)? else {
        return None;
    };
    let is_it = (object.kind, &object.run_id, &object.target) == (kind, run_id, target);
    is_it.then_some(layout)
}

/// Reads a snapshot, and tells what is wrong with it by itself.
pub(super) fn read_snapshot(key: &str, bytes: &[u8]) -> (Option<Snapshot>, Vec<String>) {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let snapshot: Snapshot = match serde_path_to_error::deserialize(&mut deserializer) {
        Ok(snapshot) => snapshot,
        Err(error) => return (None, vec![format!("is no snapshot: {error}")]),
    };
    let mut problems = Vec::new();
    if let Some(difference) = difference(bytes, &snapshot) {
        problems.push(difference);
    }
    let mut check = Check {
        problems: &mut problems,
    };
    check.snapshot(key, &snapshot);
    (Some(snapshot), problems)
}

/// Where bytes are not what the auditor writes for what they say: a member that nobody knows, another
/// order, a space.
fn difference(bytes: &[u8], snapshot: &Snapshot) -> Option<String> {
    let written = snapshot.to_bytes().unwrap_or_default();
    first_difference(bytes, &written)
        .map(|at| format!("is not as the auditor writes it, from byte {at} on"))
}

/// The place of the first byte in which two texts differ.
fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let differs = one.iter().zip(other).position(|(a, b)| a != b);
    differs.or_else(|| (one.len() != other.len()).then(|| one.len().min(other.len())))
}

/// Whether a line is exactly what the auditor writes for what it says.
pub(super) fn is_as_written(line: &[u8], value: &impl Serialize, buffer: &mut Vec<u8>) -> bool {
    buffer.clear();
    let written = serde_json::to_writer(&mut *buffer, value).is_ok();
    written && line == buffer.as_slice()
}

/// Collects what is wrong with one document.
struct Check<'a> {
    problems: &'a mut Vec<String>,
}

impl Check<'_> {
    fn holds(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }

    fn equal<T: PartialEq + Display>(&mut self, what: &str, said: T, found: T) {
        self.holds(said == found, || {
            format!("says {said} {what}, and it comes to {found}")
        });
    }

    fn snapshot(&mut self, key: &str, snapshot: &Snapshot) {
        let Snapshot {
            schema_version,
            run_id,
            auditor,
            scope,
            scheduled_at,
            started_at,
            finished_at,
            policy: _,
            previous,
            status,
            targets,
            counts,
            findings,
            findings_omitted,
            changes,
        } = snapshot;
        self.holds(*schema_version == SCHEMA_VERSION, || {
            format!(
                "has the schema_version {schema_version}, and this program knows {SCHEMA_VERSION}"
            )
        });
        self.holds(auditor.name == AUDITOR_NAME, || {
            format!("was written by `{}`", auditor.name)
        });
        let text = run_id.to_string();
        let digits = text.strip_prefix(&format!("{}-", scheduled_at.compact()));
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_named = digits.is_some_and(|digits| digits.len() == 8 && digits.bytes().all(is_hex));
        self.holds(is_named, || {
            format!("has the run_id {run_id}, which is none of a run scheduled at {scheduled_at}")
        });
        let expected = Layout::without_prefix().snapshot(run_id, *scheduled_at);
        self.holds(key == expected, || {
            format!("says of itself that it lies at {expected}")
        });
        self.holds(started_at <= finished_at, || {
            "ended before it started".to_owned()
        });
        let is_narrowed = !(scope.image_ids.is_empty()
            && scope.report_ids.is_empty()
            && scope.filters.is_empty()
            && scope.regions.is_empty()
            && scope.account_ids.is_empty());
        self.holds(scope.full != is_narrowed, || {
            "has a scope that is full and narrowed, or neither".to_owned()
        });
        self.holds(scope.full || previous.is_none(), || {
            "is scoped, and follows another one".to_owned()
        });
        self.holds(changes.is_some() == previous.is_some(), || {
            "tells of changes without naming what it follows, or the other way round".to_owned()
        });
        self.ledger(snapshot, targets);
        let mut counted = Counts::default();
        targets
            .iter()
            .for_each(|line| counted.add_target(line.status));
        let counted = counted.targets;
        let (said, found) = (&counts.targets, &counted);
        self.equal("targets complete", said.complete, found.complete);
        self.equal("targets incomplete", said.incomplete, found.incomplete);
        self.equal("targets failed", said.failed, found.failed);
        self.equal("targets skipped", said.skipped, found.skipped);
        let lines: u64 = targets.iter().map(|line| line.reports).sum();
        self.equal("reports", counts.reports.total, lines);
        self.holds(*status == counts.run_status(), || {
            let (said, found) = (status.as_str(), counts.run_status().as_str());
            format!("says that the run is {said}, and by its targets it is {found}")
        });
        let listed = findings.len() as u64;
        self.equal(
            "findings",
            counts.findings.total,
            listed.saturating_add(*findings_omitted),
        );
        self.holds(is_bounded(findings.len(), *findings_omitted), || {
            format!("lists {listed} findings and omits {findings_omitted}")
        });
        self.holds(findings.is_sorted(), || {
            "has findings out of order".to_owned()
        });
        if let Some(changes) = changes {
            self.changes(changes, targets);
        }
    }

    fn ledger(&mut self, snapshot: &Snapshot, targets: &[LedgerLine]) {
        let names: Vec<Target> = targets.iter().map(LedgerLine::target).collect();
        self.holds(names.is_sorted_by(|a, b| a < b), || {
            "has a ledger whose targets are out of order, or twice there".to_owned()
        });
        for line in targets {
            let target = line.target();
            let LedgerLine {
                status,
                reports,
                error,
                object,
                entries_object,
                earlier_objects,
                pages,
                ..
            } = line;
            let is_read = matches!(status, TargetStatus::Complete | TargetStatus::Incomplete);
            self.holds(object.is_some() == is_read, || {
                format!(
                    "has {} reports of {target}, which is {}",
                    if object.is_some() { "the" } else { "no" },
                    status.as_str()
                )
            });
            self.holds(
                error.is_none() == (*status == TargetStatus::Complete),
                || {
                    format!(
                        "says of {target} that it is {}, and has {} error for it",
                        status.as_str(),
                        if error.is_some() { "an" } else { "no" }
                    )
                },
            );
            let in_object = object.as_ref().map_or(0, |object| object.lines);
            self.holds(*reports == in_object, || {
                format!("counts {reports} reports of {target}, and {in_object} lines")
            });
            self.holds(!is_read || *pages > 0, || {
                format!("has reports of {target} from no page")
            });
            self.holds(is_read || entries_object.is_none(), || {
                format!("has entries of {target}, of which it has no reports")
            });
            let is_earlier_told = *status != TargetStatus::Complete && snapshot.previous.is_some();
            self.holds(is_earlier_told || earlier_objects.is_empty(), || {
                format!("names earlier objects of {target}, and needs none")
            });
            let of_target = format!(
                "/account_id={}/region={}/",
                target.account_id, target.region
            );
            for ArchivedObject { key, .. } in earlier_objects {
                let is_known = below_prefix(key).starts_with("v1/reports/dt=");
                self.holds(is_known && key.contains(&of_target), || {
                    format!("names {key} as an earlier object of {target}")
                });
            }
            let own = [
                (object, ObjectKind::Reports),
                (entries_object, ObjectKind::Entries),
            ];
            for (object, kind) in own {
                let Some(ArchivedObject { key, .. }) = object else {
                    continue;
                };
                let is_own = layout_of(key, kind, &snapshot.run_id, &target).is_some();
                self.holds(is_own, || {
                    format!(
                        "names {key} for the {} of {target}, which is not a key of this run",
                        kind.as_str()
                    )
                });
            }
        }
        let prefixes = prefixes(snapshot);
        self.holds(prefixes.windows(2).all(|pair| pair[0] == pair[1]), || {
            "names objects under several prefixes".to_owned()
        });
        if let Some(previous) = &snapshot.previous {
            let is_there = prefixes.first().is_none_or(|prefix| {
                previous
                    .key
                    .strip_prefix(prefix)
                    .is_some_and(|key| key.starts_with("v1/snapshots/"))
            });
            let is_named = previous
                .key
                .ends_with(&format!("/{}.json", previous.run_id));
            self.holds(is_there && is_named, || {
                format!(
                    "follows the run {}, and names {} for it",
                    previous.run_id, previous.key
                )
            });
        }
    }

    fn changes(&mut self, changes: &Changes, targets: &[LedgerLine]) {
        let Changes {
            findings,
            opened,
            opened_omitted,
            resolved,
            resolved_omitted,
            reports,
            appeared,
            appeared_omitted,
            gone,
            gone_omitted,
            changed_state,
            changed_state_omitted,
            targets_added,
            targets_removed,
            targets_not_compared,
        } = changes;
        let lists = [
            (
                "opened",
                findings.opened,
                opened.len(),
                *opened_omitted,
                opened.is_sorted(),
            ),
            (
                "resolved",
                findings.resolved,
                resolved.len(),
                *resolved_omitted,
                resolved.is_sorted(),
            ),
            (
                "appeared",
                reports.appeared,
                appeared.len(),
                *appeared_omitted,
                appeared.is_sorted(),
            ),
            (
                "gone",
                reports.gone,
                gone.len(),
                *gone_omitted,
                gone.is_sorted(),
            ),
            (
                "changed_state",
                reports.changed_state,
                changed_state.len(),
                *changed_state_omitted,
                changed_state.is_sorted(),
            ),
        ];
        for (name, total, listed, omitted, is_sorted) in lists {
            let found = (listed as u64).saturating_add(omitted);
            self.holds(total == found && is_bounded(listed, omitted) && is_sorted, || {
                format!("tells of {total} changes `{name}`, lists {listed} and omits {omitted}, or has them out of order")
            });
        }
        let names: Vec<String> = targets
            .iter()
            .map(|line| line.target().to_string())
            .collect();
        let is_there = |name: &String| names.binary_search(name).is_ok();
        let lists = [targets_added, targets_removed, targets_not_compared];
        let is_sorted = lists.iter().all(|list| list.is_sorted_by(|a, b| a < b));
        let is_sound = targets_added.iter().all(is_there)
            && targets_not_compared.iter().all(is_there)
            && !targets_removed.iter().any(is_there);
        self.holds(is_sorted && is_sound, || {
            "tells of changed targets that don't go with its ledger".to_owned()
        });
    }
}

/// Whether a list is as long as it has to be: whatever is omitted found no more room.
fn is_bounded(listed: usize, omitted: u64) -> bool {
    match omitted {
        0 => listed <= MAX_LISTED,
        _ => listed == MAX_LISTED,
    }
}

/// What stands before `v1/` in the keys of the run's own objects.
fn prefixes(snapshot: &Snapshot) -> Vec<&str> {
    let mut prefixes = Vec::new();
    for line in &snapshot.targets {
        let target = line.target();
        let own = [
            (&line.object, ObjectKind::Reports),
            (&line.entries_object, ObjectKind::Entries),
        ];
        for (object, kind) in own {
            if let Some(object) = object
                && layout_of(&object.key, kind, &snapshot.run_id, &target).is_some()
            {
                let below = below_prefix(&object.key);
                prefixes.extend(object.key.strip_suffix(below));
            }
        }
    }
    prefixes
}

/// Takes from a snapshot what has to be known of it.
pub(super) fn outline(snapshot: &Snapshot) -> Outline {
    let own = |line: &LedgerLine| {
        [&line.object, &line.entries_object].map(|object| {
            let object = object.as_ref()?;
            Some(below_prefix(&object.key).to_owned())
        })
    };
    Outline {
        run_id: snapshot.run_id.clone(),
        scheduled_at: snapshot.scheduled_at,
        status: snapshot.status,
        is_full: snapshot.scope.full,
        previous: snapshot.previous.clone(),
        targets: snapshot.targets.len(),
        counts: snapshot.counts,
        version: snapshot.auditor.version.clone(),
        prefix: prefixes(snapshot)
            .first()
            .map(|prefix| (*prefix).to_owned()),
        objects: snapshot.targets.iter().flat_map(own).flatten().collect(),
        earlier: snapshot
            .targets
            .iter()
            .flat_map(|line| line.earlier_objects.iter().cloned())
            .collect(),
    }
}
