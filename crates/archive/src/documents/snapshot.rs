//! The snapshot: the document of one run.

use std::collections::BTreeSet;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::changes::Changes;
use super::counts::{Counts, ImageCounts, RunStatus};
use super::ledger::LedgerLine;
use super::outcome::Tally;
use crate::domain::findings::{Finding, Policy, UsagePolicy};
use crate::domain::run_id::RunId;
use crate::domain::target::{AccountId, Region, Target};
use crate::domain::timestamp::Timestamp;

/// The version of the documents' schema; it rises when a field changes its meaning or is removed.
pub const SCHEMA_VERSION: u32 = 1;

/// The name of the program that writes snapshots.
pub const AUDITOR_NAME: &str = "image-usage-auditor";

/// The version of that program, and of this crate. Its rules and texts may differ from those of others.
pub const AUDITOR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The document of one run. It is written last: if it exists, every object it names exists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// The version of this document's schema.
    pub schema_version: u32,
    /// The run.
    pub run_id: RunId,
    /// The program that wrote it.
    pub auditor: Generator,
    /// What the run was asked to audit.
    pub scope: Scope,
    /// The moment the run was scheduled for.
    pub scheduled_at: Timestamp,
    /// The run's start: the time at which all rules are evaluated.
    pub started_at: Timestamp,
    /// When the last target was finished.
    pub finished_at: Timestamp,
    /// The limits of the rules.
    pub policy: Policy,
    /// The last full snapshot before this one; `None` for the first one, and in a scoped run.
    pub previous: Option<PreviousSnapshot>,
    /// Whether the run read everything.
    pub status: RunStatus,
    /// The ledger: every target, sorted by account, then Region.
    pub targets: Vec<LedgerLine>,
    /// Totals over all targets.
    pub counts: Counts,
    /// The most urgent findings, sorted.
    pub findings: Vec<Finding>,
    /// How many findings are counted but not listed.
    pub findings_omitted: u64,
    /// The changes since `previous`; `None` if there is none.
    pub changes: Option<Changes>,
}

/// The snapshot before another one: together they form a chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PreviousSnapshot {
    /// Its run.
    pub run_id: RunId,
    /// Its key in the archive's bucket.
    pub key: String,
    /// The SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// What a snapshot is compared with: the previous one, and its targets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Baseline {
    /// The previous snapshot.
    pub previous: PreviousSnapshot,
    /// Its targets.
    pub targets: BTreeSet<Target>,
}

/// The facts of a run that are known from its start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RunFacts {
    /// The run.
    pub run_id: RunId,
    /// What it was asked to audit.
    pub scope: Scope,
    /// The moment it was scheduled for.
    pub scheduled_at: Timestamp,
    /// Its start.
    pub started_at: Timestamp,
    /// The limits of its rules.
    pub policy: Policy,
}

impl Snapshot {
    /// Makes the snapshot of a finished run.
    pub fn new(
        facts: RunFacts,
        finished_at: Timestamp,
        tally: Tally,
        baseline: Option<Baseline>,
    ) -> Self {
        let Tally {
            mut targets,
            mut counts,
            findings,
            changes,
        } = tally;
        let (previous, changes) = match baseline {
            None => (None, None),
            Some(Baseline {
                previous,
                targets: before,
            }) => {
                let now: BTreeSet<Target> = targets.iter().map(LedgerLine::target).collect();
                let names = |targets: &BTreeSet<Target>, others: &BTreeSet<Target>| {
                    targets.difference(others).map(Target::to_string).collect()
                };
                let changes = changes.into_changes(names(&now, &before), names(&before, &now));
                (Some(previous), Some(changes))
            }
        };
        targets.sort_by(|a, b| (&a.account_id, &a.region).cmp(&(&b.account_id, &b.region)));
        let findings = findings.into_sorted_vec();
        let RunFacts {
            run_id,
            scope,
            scheduled_at,
            started_at,
            policy,
        } = facts;
        if policy.usage.is_some() {
            counts.add_images(ImageCounts::default());
        }
        Self {
            schema_version: SCHEMA_VERSION,
            run_id,
            auditor: Generator {
                name: AUDITOR_NAME.to_owned(),
                version: AUDITOR_VERSION.to_owned(),
            },
            scope,
            scheduled_at,
            started_at,
            finished_at,
            policy,
            previous,
            status: counts.run_status(),
            targets,
            counts,
            findings_omitted: counts.findings.total - findings.len() as u64,
            findings,
            changes,
        }
    }

    /// Returns the document: JSON on one line.
    ///
    /// # Errors
    /// Fails as a serializer does, which no value of these types causes.
    pub fn to_bytes(&self) -> serde_json::Result<Bytes> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes.into())
    }
}

/// What a run was asked to audit; `full` for everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Scope {
    /// Whether nothing narrowed the run.
    pub full: bool,
    /// Only reports of these AMIs.
    pub image_ids: Vec<String>,
    /// Only these reports.
    pub report_ids: Vec<String>,
    /// Only reports that match all of these EC2 filters.
    pub filters: Vec<ReportFilter>,
    /// These Regions instead of the configured ones.
    pub regions: Vec<Region>,
    /// These accounts instead of the configured ones.
    pub account_ids: Vec<AccountId>,
}

impl Scope {
    /// Returns the rules by which a run gives verdicts about AMIs; `None` if it gives none: it was not asked to,
    /// or sees only some reports.
    pub fn usage_policy<'a>(&self, policy: &'a Policy) -> Option<&'a UsagePolicy> {
        policy
            .usage
            .as_ref()
            .filter(|usage| usage.images && self.full)
    }
}

/// An EC2 filter: a report matches with any one of the values.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportFilter {
    /// The filter's name, such as `state` or `tag:Owner`.
    pub name: String,
    /// The values that match.
    pub values: Vec<String>,
}

/// The program that wrote a snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Generator {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}
