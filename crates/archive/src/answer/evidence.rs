//! Where the evidence of an AMI's use lies.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{NoAnswer, Run};
use crate::documents::ImageLine;
use crate::layout::{below_prefix, snapshot_of};
use crate::source::Source;

/// A report that a verdict rests on, and the object with its entries.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Evidence {
    /// The report.
    pub report_id: String,
    /// The key of the object with its entries.
    pub entries_key: String,
    /// The SHA-256 of the object, in hex; `None` if the snapshot of its run is missing.
    pub sha256: Option<String>,
}

/// Finds evidence, and remembers the runs that it has read.
#[derive(Default, Debug)]
pub struct EvidenceReader {
    /// The SHA-256 of each object with entries, by its key; by the key of the snapshot that names it.
    runs: BTreeMap<String, BTreeMap<String, String>>,
}

impl EvidenceReader {
    /// Returns the reports that show the consumers of a line, and those of its observation; sorted, each once.
    ///
    /// # Errors
    /// Fails if a snapshot that is there cannot be read.
    pub async fn of(
        &mut self,
        archive: &Source,
        line: &ImageLine,
    ) -> Result<Vec<Evidence>, NoAnswer> {
        let shown: BTreeSet<&str> = line
            .consumers
            .iter()
            .map(|one| one.report_id.as_str())
            .collect();
        let mut evidence = Vec::new();
        for report in &line.observed_reports {
            let is_adequate = report.series_since.is_some();
            if !is_adequate && !shown.contains(report.report_id.as_str()) {
                continue;
            }
            evidence.push(Evidence {
                report_id: report.report_id.clone(),
                sha256: self.sha256(archive, &report.entries_key).await?,
                entries_key: report.entries_key.clone(),
            });
        }
        evidence.sort();
        Ok(evidence)
    }

    async fn sha256(&mut self, archive: &Source, key: &str) -> Result<Option<String>, NoAnswer> {
        let Some(snapshot_key) = snapshot_of(below_prefix(key)) else {
            return Ok(None);
        };
        if !self.runs.contains_key(&snapshot_key) {
            let run = Run::read(archive, &snapshot_key).await?;
            let targets = run.into_iter().flat_map(|run| run.snapshot.targets);
            let objects = targets.filter_map(|line| line.entries_object);
            let digests = objects.map(|object| (object.key, object.sha256)).collect();
            self.runs.insert(snapshot_key.clone(), digests);
        }
        let of_run = self.runs.get(&snapshot_key);
        Ok(of_run.and_then(|digests| digests.get(key)).cloned())
    }
}
