//! Compares the AMIs of a full run with those of the full run before it, and with its changed verdicts.

use std::collections::{BTreeMap, HashMap};

use super::image_facts::is_no_later;
use super::image_lines::KnownImage;
use super::problem::Problem;
use crate::documents::{ChangedVerdict, LedgerLine, Snapshot};
use crate::domain::target::Target;
use crate::layout::below_prefix;

/// What is kept of the AMIs of a run: those of the targets whose objects are sound.
pub(super) type KnownImages = BTreeMap<Target, BTreeMap<String, KnownImage>>;

/// The AMIs of a full run that was read, for the one after it.
#[derive(Debug)]
pub(super) struct KnownRun {
    pub(super) sha256: String,
    pub(super) images: KnownImages,
}

/// Checks the changed verdicts of a snapshot, and that nothing is forgotten that the run before knew.
///
/// `before` may be of any run: it is used if it is the one that the snapshot names as the previous one.
pub(super) fn problems(
    key: &str,
    snapshot: &Snapshot,
    now: &KnownImages,
    before: Option<&KnownRun>,
) -> Vec<Problem> {
    let Some(previous) = &snapshot.previous else {
        return Vec::new();
    };
    let before = before.filter(|run| run.sha256 == previous.sha256);
    let verdicts = snapshot
        .changes
        .as_ref()
        .and_then(|changes| changes.verdicts.as_ref());
    let Some(verdicts) = verdicts else {
        return Vec::new();
    };
    let listed: HashMap<(Target, &str), &ChangedVerdict> = verdicts
        .verdicts
        .iter()
        .map(|change| (place(change), change))
        .collect();
    let mut problems: Vec<Problem> = verdicts
        .verdicts
        .iter()
        .filter_map(|change| unlike_lines(change, snapshot, now, before))
        .map(|what| Problem::new(key, what))
        .collect();
    // Those after the end of a list from which some are omitted are not listed.
    let end = verdicts
        .verdicts
        .last()
        .map(place)
        .filter(|_| verdicts.verdicts_omitted > 0);
    for line in &snapshot.targets {
        let target = line.target();
        let Some((now, before)) = now
            .get(&target)
            .zip(before.and_then(|run| run.images.get(&target)))
            .filter(|_| {
                verdicts
                    .images_not_carried
                    .binary_search(&target.to_string())
                    .is_err()
            })
        else {
            continue;
        };
        let missing = before.iter().find_map(|(image_id, before)| {
            let is_listed = listed.contains_key(&(target.clone(), image_id.as_str()));
            let is_after_end = end
                .as_ref()
                .is_some_and(|end| (&target, image_id.as_str()) > (&end.0, end.1));
            let is_changed = now.get(image_id)?.verdict != before.verdict;
            (is_changed && !is_listed && !is_after_end)
                .then(|| format!("does not list the changed verdict of {image_id} in {target}"))
        });
        problems.extend(missing.map(|what| Problem::new(key, what)));
        let forgotten = before
            .iter()
            .find_map(|(image_id, before)| forgotten(image_id, before, now.get(image_id)));
        problems.extend(forgotten.map(|what| Problem::new(images_key(line), what)));
    }
    problems
}

fn place(change: &ChangedVerdict) -> (Target, &str) {
    let target = Target {
        account_id: change.account_id.clone(),
        region: change.region.clone(),
    };
    (target, &change.image_id)
}

fn images_key(line: &LedgerLine) -> &str {
    let images = line.images.as_ref();
    let object = images.and_then(|images| images.images_object.as_ref());
    object.map_or("", |object| below_prefix(&object.key))
}

/// Describes how a listed change differs from the lines of this run and of the one before.
fn unlike_lines(
    change: &ChangedVerdict,
    snapshot: &Snapshot,
    now: &KnownImages,
    before: Option<&KnownRun>,
) -> Option<String> {
    let (target, image_id) = place(change);
    let differs = |images: Option<&BTreeMap<String, KnownImage>>, said| {
        images.is_some_and(|images| images.get(image_id).map(|image| image.verdict) != Some(said))
    };
    // The lines of a target whose object is not sound are not known.
    let is_without_lines =
        |line: &LedgerLine| line.target() == target && images_key(line).is_empty();
    let is_wrong = snapshot.targets.iter().any(is_without_lines)
        || differs(now.get(&target), change.to)
        || differs(before.and_then(|run| run.images.get(&target)), change.from);
    is_wrong.then(|| {
        let (from, to) = (change.from.as_str(), change.to.as_str());
        format!("lists a change of {image_id} in {target} from {from} to {to}, which its lines do not show")
    })
}

/// Describes what a run forgot of an AMI that the run before knew.
fn forgotten(image_id: &str, before: &KnownImage, now: Option<&KnownImage>) -> Option<String> {
    let Some(now) = now else {
        return Some(format!(
            "has no line for {image_id}, which the run before had"
        ));
    };
    let is_first = is_no_later(now.first_observed, before.first_observed);
    (!is_first || now.last_observed < before.last_observed)
        .then(|| format!("forgets when use of {image_id} was observed: the run before knew more"))
}
