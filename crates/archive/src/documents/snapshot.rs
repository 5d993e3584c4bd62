//! The snapshot: one run, whole.

use std::collections::BTreeSet;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::changes::Changes;
use super::counts::{Counts, RunStatus};
use super::ledger::LedgerLine;
use super::outcome::Tally;
use crate::domain::findings::{Finding, Policy};
use crate::domain::run_id::RunId;
use crate::domain::target::{AccountId, Region, Target};
use crate::domain::timestamp::Timestamp;

/// The version of the documents' shape; it rises when a member changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// The name of the program that writes snapshots.
pub const AUDITOR_NAME: &str = "image-usage-auditor";

/// The version of that program, and of this crate. Its rules and texts may differ from those of others.
pub const AUDITOR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// One run, whole: written last, its presence says that everything it names is in the archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// The version of this document's shape.
    pub schema_version: u32,
    /// The run.
    pub run_id: RunId,
    /// The program that wrote it.
    pub auditor: Generator,
    /// What the run was asked to look at.
    pub scope: Scope,
    /// The moment the run was scheduled for.
    pub scheduled_at: Timestamp,
    /// The run's start, and the `now` of all rules.
    pub started_at: Timestamp,
    /// When the last target was done.
    pub finished_at: Timestamp,
    /// The limits that the rules went by.
    pub policy: Policy,
    /// The last unscoped snapshot before this one; `None` for the first one, and in a scoped run.
    pub previous: Option<PreviousSnapshot>,
    /// Whether the run saw everything.
    pub status: RunStatus,
    /// The ledger: every target, sorted by account, then Region.
    pub targets: Vec<LedgerLine>,
    /// What was counted; always whole.
    pub counts: Counts,
    /// The most urgent findings, sorted.
    pub findings: Vec<Finding>,
    /// The findings that are counted but not listed.
    pub findings_omitted: u64,
    /// What is different from `previous`; `None` where there is none.
    pub changes: Option<Changes>,
}

/// The snapshot that another one follows, so that the archive is a chain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PreviousSnapshot {
    /// Its run.
    pub run_id: RunId,
    /// Its key in the archive's bucket.
    pub key: String,
    /// The SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// What a snapshot is compared with: the one before it, and the targets that it had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Baseline {
    /// The snapshot before.
    pub previous: PreviousSnapshot,
    /// Its targets.
    pub targets: BTreeSet<Target>,
}

/// What a run knows of itself from its first moment on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunFacts {
    /// The run.
    pub run_id: RunId,
    /// What it was asked to look at.
    pub scope: Scope,
    /// The moment it was scheduled for.
    pub scheduled_at: Timestamp,
    /// Its start.
    pub started_at: Timestamp,
    /// The limits that its rules go by.
    pub policy: Policy,
}

impl Snapshot {
    /// Tells of a run that is done.
    pub fn new(
        facts: RunFacts,
        finished_at: Timestamp,
        tally: Tally,
        baseline: Option<Baseline>,
    ) -> Self {
        let Tally {
            mut targets,
            counts,
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

    /// The document: JSON on one line.
    ///
    /// # Errors
    /// Fails when a member can't be written as JSON, of which there is none.
    pub fn to_bytes(&self) -> serde_json::Result<Bytes> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes.into())
    }
}

/// What a run was asked to look at; `full` when it was asked for everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Scope {
    /// Whether nothing narrowed the run.
    pub full: bool,
    /// Only reports of these AMIs.
    pub image_ids: Vec<String>,
    /// Only these reports.
    pub report_ids: Vec<String>,
    /// Only reports that EC2's filters let through.
    pub filters: Vec<ReportFilter>,
    /// These Regions instead of the configured ones.
    pub regions: Vec<Region>,
    /// These accounts instead of the configured ones.
    pub account_ids: Vec<AccountId>,
}

/// A filter of EC2: a report passes with any one of the values.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportFilter {
    /// The filter's name, such as `state` or `tag:Owner`.
    pub name: String,
    /// The values that pass.
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
