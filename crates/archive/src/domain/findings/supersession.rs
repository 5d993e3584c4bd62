//! Which report makes another one redundant.

use crate::domain::report::{ReportState, ResourceType, UsageReport};
use crate::domain::timestamp::Timestamp;

/// Returns whether `newer` covers everything that `older` does: the same AMI, later, with at least the same
/// accounts and resource types, each examined at least as deeply.
///
/// A report that EC2 failed to create supersedes nothing, and neither does one without an ID, an AMI or a
/// creation time.
pub fn supersedes(newer: &UsageReport, older: &UsageReport) -> bool {
    let is_sound = matches!(
        newer.state,
        Some(ReportState::Available | ReportState::Pending)
    );
    let same_image = newer.image_id.is_some() && newer.image_id == older.image_id;
    let is_later = match (newer.creation_time, older.creation_time) {
        (Some(newer), Some(older)) => newer > older,
        _ => false,
    };
    let same_accounts = newer.requested_account_ids.is_empty()
        || !older.requested_account_ids.is_empty()
            && older
                .requested_account_ids
                .iter()
                .all(|account| newer.requested_account_ids.contains(account));
    let same_types = older
        .resource_types
        .iter()
        .all(|old| newer.resource_types.iter().any(|new| covers(new, old)));
    newer.report_id.is_some() && is_sound && same_image && is_later && same_accounts && same_types
}

/// Returns the rank of a report that supersedes another: an available one ranks higher, then a newer one.
pub fn preference(report: &UsageReport) -> (bool, Option<Timestamp>, Option<&str>) {
    let is_available = report.state == Some(ReportState::Available);
    (
        is_available,
        report.creation_time,
        report.report_id.as_deref(),
    )
}

/// How many versions of a launch template EC2 examines by default.
///
/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImageUsageResourceTypeOptionRequest.html>
const DEFAULT_VERSION_DEPTH: u32 = 20;

/// Returns whether `new` covers everything that `old` does. Options unknown to this version must be equal.
fn covers(new: &ResourceType, old: &ResourceType) -> bool {
    const DEPTH: &str = "version-depth";
    let depth = |kind: &ResourceType| {
        let mut options = kind.options.iter();
        let option = options.find(|option| option.name.as_deref() == Some(DEPTH));
        match option.map(|option| option.values.as_slice()) {
            None => Some(DEFAULT_VERSION_DEPTH),
            Some([depth]) => depth.parse().ok(),
            Some(_) => None,
        }
    };
    let others = |kind: &ResourceType| {
        let options = kind.options.iter();
        options
            .filter(|option| option.name.as_deref() != Some(DEPTH))
            .cloned()
            .collect::<Vec<_>>()
    };
    let as_deep = match (depth(new), depth(old)) {
        (Some(new), Some(old)) => new >= old,
        _ => false,
    };
    new.resource_type.is_some()
        && new.resource_type == old.resource_type
        && as_deep
        && others(new) == others(old)
}
