//! Checks the ledger of a snapshot: each target's line, and the keys it names.

use super::keys::{layout_of, object_key, own_objects};
use super::problem::unless;
use crate::documents::{
    ArchivedObject, ImagesLedger, LedgerLine, Renewals, Snapshot, TargetStatus,
};
use crate::domain::target::Target;
use crate::layout::ObjectKind;

pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let targets: Vec<Target> = snapshot.targets.iter().map(LedgerLine::target).collect();
    let order = unless(targets.is_sorted_by(|a, b| a < b), || {
        "has a ledger with targets out of order or listed twice".to_owned()
    });
    let mut problems: Vec<String> = order.into_iter().collect();
    for (line, target) in snapshot.targets.iter().zip(&targets) {
        problems.extend(line_problems(line, target));
        problems.extend(images_problems(snapshot, line, target));
        problems.extend(own_key_problems(snapshot, line, target));
        problems.extend(earlier_problems(snapshot, line, target));
    }
    problems
}

fn line_problems(line: &LedgerLine, target: &Target) -> Vec<String> {
    let status = line.status.as_str();
    let is_read = matches!(
        line.status,
        TargetStatus::Complete | TargetStatus::Incomplete
    );
    let in_object = line.object.as_ref().map_or(0, |object| object.lines);
    let a_or_no = |is_there, a| if is_there { a } else { "no" };
    let problems = [
        unless(line.object.is_some() == is_read, || {
            let an = a_or_no(line.object.is_some(), "an");
            format!("has {an} object with reports of {target}, which is {status}")
        }),
        unless(
            line.error.is_none() == (line.status == TargetStatus::Complete),
            || {
                let an = a_or_no(line.error.is_some(), "an");
                format!("has {an} error for {target}, which is {status}")
            },
        ),
        unless(line.reports == in_object, || {
            let reports = line.reports;
            format!("counts {reports} reports of {target}; their object has {in_object} lines")
        }),
        unless(!is_read || line.pages > 0, || {
            format!("has reports of {target} from no page")
        }),
        unless(is_read || line.entries_object.is_none(), || {
            format!("has entries of {target} but no reports")
        }),
    ];
    problems.into_iter().flatten().collect()
}

/// Checks what a ledger line says about AMIs. A target that was not read may have an object with them: it
/// carries the lines of the run before.
fn images_problems(snapshot: &Snapshot, line: &LedgerLine, target: &Target) -> Vec<String> {
    let is_due = snapshot.policy.usage.is_some();
    let Some(images) = &line.images else {
        let missing = unless(!is_due, || {
            format!("says nothing about the AMIs of {target}")
        });
        return missing.into_iter().collect();
    };
    let policy = snapshot.scope.usage_policy(&snapshot.policy);
    let is_wanted = policy.is_some();
    let wants_references = policy.is_some_and(|policy| policy.image_references);
    let is_read = line.status == TargetStatus::Complete;
    let ImagesLedger {
        images_read,
        images_error,
        references_error,
        images_object,
        renewals,
    } = images;
    let lines = images_object.as_ref().map_or(0, |object| object.lines);
    let wants_renewals = policy.is_some_and(|policy| policy.renew_reports);
    let asked_for = |renewals: &Renewals| {
        let Renewals {
            requested,
            deferred,
            failed,
            error,
        } = renewals;
        let all = requested.saturating_add(*deferred).saturating_add(*failed);
        all <= lines && (*failed == 0 || error.is_some())
    };
    let problems = [
        unless(is_due, || {
            format!("has AMIs of {target}, but no policy for them")
        }),
        unless(is_wanted || *images == ImagesLedger::default(), || {
            format!("has AMIs of {target}, which its run did not read")
        }),
        unless(images_read.is_none() || images_error.is_none(), || {
            format!("states that the AMIs of {target} were read, and an error")
        }),
        unless(
            !(is_wanted && is_read) || images_read.is_some() || images_error.is_some(),
            || format!("states neither that the AMIs of {target} were read, nor an error"),
        ),
        unless(references_error.is_none() || wants_references, || {
            format!("has an error of references to AMIs of {target}, which its run did not read")
        }),
        unless(
            renewals.is_none() || wants_renewals && is_read && images_read.is_some(),
            || {
                format!(
                    "states that reports about AMIs of {target} were asked for, which its run did not do"
                )
            },
        ),
        unless(renewals.as_ref().is_none_or(asked_for), || {
            format!("states other renewals of {target} than its AMIs and the error allow")
        }),
        unless(images_read.unwrap_or(0) <= lines, || {
            let read = images_read.unwrap_or(0);
            format!("counts {read} AMIs of {target}; their object has {lines} lines")
        }),
    ];
    problems.into_iter().flatten().collect()
}

fn own_key_problems(snapshot: &Snapshot, line: &LedgerLine, target: &Target) -> Vec<String> {
    let problem = |(kind, object): (ObjectKind, Option<&ArchivedObject>)| {
        let key = &object?.key;
        let layout = layout_of(key, kind, &snapshot.run_id, target);
        unless(layout.is_some(), || {
            let kind = kind.as_str();
            format!("names {key} for the {kind} of {target}, which is not a key of this run")
        })
    };
    own_objects(line).into_iter().filter_map(problem).collect()
}

/// Checks the earlier objects: those with reports of a target that was not read to its end, and the one with
/// its AMIs if the run has written none.
fn earlier_problems(snapshot: &Snapshot, line: &LedgerLine, target: &Target) -> Vec<String> {
    let has_previous = snapshot.previous.is_some();
    let images = line.images.as_ref();
    let has_images = images.is_some_and(|images| images.images_object.is_some());
    let problem = |ArchivedObject { key, .. }: &ArchivedObject| {
        let object = object_key(key).map(|(_, object)| object);
        let Some(object) = object.filter(|object| object.target == *target) else {
            return Some(format!("names {key} as an earlier object of {target}"));
        };
        let is_needed = match object.kind {
            ObjectKind::Reports => line.status != TargetStatus::Complete,
            ObjectKind::Images => !has_images,
            ObjectKind::Entries => false,
        };
        unless(is_needed && has_previous, || {
            format!("names {key} as an earlier object of {target}, which needs none")
        })
    };
    line.earlier_objects.iter().filter_map(problem).collect()
}
