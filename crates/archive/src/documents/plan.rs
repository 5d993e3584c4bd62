//! The documents that the phases of a run hand over, if it goes over several functions: its plan, its targets,
//! and their outcomes.

use std::collections::BTreeSet;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ledger::{ArchivedObject, TargetError};
use super::outcome::TargetOutcome;
use super::page_contents::PageContents;
use super::snapshot::{
    AUDITOR_NAME, AUDITOR_VERSION, Baseline, Generator, PreviousSnapshot, RunFacts, SCHEMA_VERSION,
};
use crate::domain::target::{AccountId, Region, Target};

/// The plan of a run: what all its phases share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// The version of this document's schema.
    pub schema_version: u32,
    /// The program that wrote it.
    pub auditor: Generator,
    /// The run.
    #[serde(flatten)]
    pub facts: RunFacts,
    /// Whether the entries of reports are archived.
    pub archive_entries: bool,
    /// How many reports to request in one call; `None` for the configured number.
    pub max_results: Option<u32>,
    /// The last full snapshot before the run; `None` for the first run.
    pub previous: Option<PreviousSnapshot>,
    /// The targets of `previous` that the run does not have, sorted.
    pub targets_removed: Vec<Target>,
    /// The object with the targets of the run: JSON Lines.
    pub targets: ArchivedObject,
}

/// One target of a plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetLine {
    /// The account to audit.
    pub account_id: AccountId,
    /// The Region to audit.
    pub region: Region,
    /// Why it cannot be audited; `None` if nothing is known against it.
    pub error: Option<TargetError>,
    /// What earlier runs have archived of it; `None` if the previous snapshot does not have the target.
    pub earlier: Option<EarlierObjects>,
}

/// The objects of earlier runs that contain what is known of a target.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlierObjects {
    /// Its reports, oldest first.
    pub reports: Vec<ArchivedObject>,
    /// Its AMIs; `None` if no run has written them.
    pub images: Option<ArchivedObject>,
}

/// The outcome of one target, as a phase hands it over.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct OutcomeLine {
    /// The outcome.
    #[serde(flatten)]
    pub outcome: TargetOutcome,
    /// What the page of the run shows of the target; `None` if it was not read.
    pub page: Option<PageContents>,
    /// The objects of earlier runs that exist and could not be read, since the line before.
    pub unreadable_objects: u64,
}

impl Plan {
    /// Makes a plan; `targets` is the object with its targets.
    pub fn new(
        facts: RunFacts,
        archive_entries: bool,
        max_results: Option<u32>,
        baseline: Option<Baseline>,
        planned: &BTreeSet<Target>,
        targets: ArchivedObject,
    ) -> Self {
        let targets_removed = baseline
            .as_ref()
            .map(|baseline| &baseline.targets - planned);
        Self {
            schema_version: SCHEMA_VERSION,
            auditor: Generator {
                name: AUDITOR_NAME.to_owned(),
                version: AUDITOR_VERSION.to_owned(),
            },
            facts,
            archive_entries,
            max_results,
            previous: baseline.map(|baseline| baseline.previous),
            targets_removed: targets_removed.into_iter().flatten().collect(),
            targets,
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

impl TargetLine {
    /// Returns the target.
    pub fn target(&self) -> Target {
        Target {
            account_id: self.account_id.clone(),
            region: self.region.clone(),
        }
    }
}
