//! The findings that an audit should report.

use crate::world::World;
use std::collections::BTreeMap;
use time::Duration;

/// The limits that decide which reports are findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FindingPolicy {
    /// A report that expires within it is `expiring`.
    pub expiry_window: Duration,
    /// A report that has been pending for this long is `stuck`.
    pub pending_limit: Duration,
}

impl Default for FindingPolicy {
    fn default() -> Self {
        Self {
            expiry_window: Duration::days(7),
            pending_limit: Duration::hours(24),
        }
    }
}

/// Returns the number of findings of each kind that an audit of a target should report now.
///
/// This is an independent check: it shares no code with the auditor's rules.
pub fn count_findings(
    world: &World,
    account: &str,
    region: &str,
    policy: FindingPolicy,
) -> BTreeMap<&'static str, usize> {
    let now = world.now();
    let mut counts: BTreeMap<&'static str, usize> = [
        "failed",
        "expired",
        "expiring",
        "stuck",
        "unrecognised_state",
        "undated",
    ]
    .into_iter()
    .map(|kind| (kind, 0))
    .collect();
    let mut count = |kind| *counts.entry(kind).or_default() += 1;
    let mut state = world.lock();
    for stored in state.target(account, region).live(0, now) {
        let report = &stored.report;
        match report.state_at(now).0 {
            Some("available") => {}
            Some("error") => count("failed"),
            Some("pending") => {
                if report
                    .creation_time
                    .is_some_and(|created| now - created >= policy.pending_limit)
                {
                    count("stuck");
                }
            }
            _ => count("unrecognised_state"),
        }
        match report.expiration_time {
            None => count("undated"),
            Some(expires) if expires <= now => count("expired"),
            Some(expires) if expires - now <= policy.expiry_window => count("expiring"),
            Some(_) => {}
        }
    }
    counts
}
