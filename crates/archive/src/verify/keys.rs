//! The keys that documents name.

use crate::documents::{ArchivedObject, LedgerLine, Snapshot};
use crate::domain::run_id::RunId;
use crate::domain::target::Target;
use crate::layout::{ArchiveKey, Layout, ObjectKey, ObjectKind};

pub(super) use crate::layout::{LATEST, SNAPSHOTS, snapshot_of};

/// Takes the key of an object of reports, entries or AMIs apart; `None` for any other key.
pub(super) fn object_key(key: &str) -> Option<(Layout, ObjectKey)> {
    match ArchiveKey::parse(key)? {
        (layout, ArchiveKey::Object(object)) => Some((layout, object)),
        _ => None,
    }
}

/// Returns the run of a document that phases have handed over, and the key of its snapshot; `None` for any other
/// key.
pub(super) fn run_of_handover(key: &str) -> Option<(RunId, String)> {
    let (layout, parsed) = ArchiveKey::parse(key)?;
    match parsed {
        ArchiveKey::Handover {
            run_id,
            scheduled_at,
            ..
        } if layout.prefix().is_empty() => {
            let snapshot = layout.snapshot(&run_id, scheduled_at);
            Some((run_id, snapshot))
        }
        _ => None,
    }
}

/// Whether a key is that of a page: a view for people, which no snapshot names and nothing rests on.
pub(super) fn is_page(key: &str) -> bool {
    let Some((layout, parsed)) = ArchiveKey::parse(key) else {
        return false;
    };
    let is_page = matches!(parsed, ArchiveKey::Page { .. } | ArchiveKey::LatestPage);
    is_page && layout.prefix().is_empty()
}

/// Returns the layout of an object that an attempt at the run wrote for the target; `None` if the key is
/// not one of these.
pub(super) fn layout_of(
    key: &str,
    kind: ObjectKind,
    run_id: &RunId,
    target: &Target,
) -> Option<Layout> {
    let (layout, object) = object_key(key)?;
    let is_it = (object.kind, &object.run_id, &object.target) == (kind, run_id, target);
    is_it.then_some(layout)
}

/// Returns the layouts of the objects that the run itself wrote, as far as their keys are right.
pub(super) fn layouts(snapshot: &Snapshot) -> Vec<Layout> {
    let of_line = |line: &LedgerLine| {
        let target = line.target();
        own_objects(line).map(|(kind, object)| {
            let key = &object?.key;
            layout_of(key, kind, &snapshot.run_id, &target)
        })
    };
    snapshot
        .targets
        .iter()
        .flat_map(of_line)
        .flatten()
        .collect()
}

/// Returns the objects that a ledger line names as those of its own run.
pub(super) fn own_objects(line: &LedgerLine) -> [(ObjectKind, Option<&ArchivedObject>); 3] {
    let images = line.images.as_ref();
    [
        (ObjectKind::Reports, line.object.as_ref()),
        (ObjectKind::Entries, line.entries_object.as_ref()),
        (
            ObjectKind::Images,
            images.and_then(|images| images.images_object.as_ref()),
        ),
    ]
}

/// Returns the run of a snapshot by the name of the object, which may not be that of a run.
pub(super) fn run_of(snapshot_key: &str) -> Option<&str> {
    snapshot_key.rsplit('/').next()?.strip_suffix(".json")
}

/// Whether a key is not part of the archive and harmless: the marker of a folder that the S3 console
/// creates, or a file that a desktop leaves in every folder.
pub(super) fn litter(key: &str, bytes: u64) -> Option<&'static str> {
    match key.rsplit('/').next() {
        Some("") if bytes == 0 => Some("is a folder marker, which is ignored"),
        Some(".DS_Store" | "Thumbs.db" | "desktop.ini") => {
            Some("is a file of a desktop, which is ignored")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_markers_and_files_of_desktops_are_litter_and_nothing_else_is() {
        assert!(litter("v1/", 0).is_some());
        assert!(litter("v1/reports/dt=2026-11-22/", 0).is_some());
        assert!(litter("v1/.DS_Store", 6148).is_some());
        assert!(litter("v1/reports/Thumbs.db", 1).is_some());
        assert!(litter("v1/reports/desktop.ini", 1).is_some());
        assert!(litter("v1/reports/", 1).is_none());
        assert!(litter("v1/notes.txt", 0).is_none());
        assert!(litter("v1/x.DS_Store", 0).is_none());
    }
}
