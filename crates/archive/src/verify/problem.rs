//! What a check finds.

use serde::Serialize;

use crate::domain::top_list::MAX_LISTED;

/// Something about one object of an archive.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Problem {
    /// The object's key, from `v1/` on.
    pub key: String,
    /// What is wrong with it; continues a sentence that starts with the key.
    pub what: String,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            what: what.into(),
        }
    }
}

/// Returns the problem unless the condition holds.
pub(super) fn unless(holds: bool, problem: impl FnOnce() -> String) -> Option<String> {
    (!holds).then(problem)
}

/// Writes a count with its unit: `1 snapshot`, `2 snapshots`.
pub(super) fn plural(count: usize, unit: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{ending}")
}

/// Whether a list of a snapshot has the right length: nothing is omitted unless the list is full.
pub(super) fn is_bounded(listed: usize, omitted: u64) -> bool {
    is_bounded_by(MAX_LISTED, listed, omitted)
}

/// Whether a list of at most `limit` items has the right length: nothing is omitted unless it is full.
pub(super) fn is_bounded_by(limit: usize, listed: usize, omitted: u64) -> bool {
    match omitted {
        0 => listed <= limit,
        _ => listed == limit,
    }
}
