//! What is kept of a snapshot once it and its objects have been read.

use crate::documents::{ArchivedObject, Counts, PreviousSnapshot, RunStatus, Snapshot};
use crate::domain::run_id::RunId;
use crate::domain::timestamp::Timestamp;
use crate::layout::Layout;

use super::keys::{layouts, own_objects};
use crate::layout::below_prefix;

/// What is needed of a snapshot to check the others.
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
    /// The layout of its keys; `None` if it names no object.
    pub(super) layout: Option<Layout>,
    /// The objects of this run, by their keys from `v1/` on.
    pub(super) objects: Vec<String>,
    /// The objects of earlier runs that the ledger names.
    pub(super) earlier: Vec<ArchivedObject>,
}

impl Outline {
    /// The order of snapshots: by schedule, then by run.
    pub(super) fn order(&self) -> (Timestamp, &RunId) {
        (self.scheduled_at, &self.run_id)
    }

    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let lines = || snapshot.targets.iter();
        let own = lines().flat_map(own_objects).filter_map(|(_, object)| {
            let key = &object?.key;
            Some(below_prefix(key).to_owned())
        });
        Self {
            run_id: snapshot.run_id.clone(),
            scheduled_at: snapshot.scheduled_at,
            status: snapshot.status,
            is_full: snapshot.scope.full,
            previous: snapshot.previous.clone(),
            targets: snapshot.targets.len(),
            counts: snapshot.counts,
            version: snapshot.auditor.version.clone(),
            layout: layouts(snapshot).into_iter().next(),
            objects: own.collect(),
            earlier: lines()
                .flat_map(|line| line.earlier_objects.iter().cloned())
                .collect(),
        }
    }
}
