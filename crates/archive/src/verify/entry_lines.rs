//! Checks the lines of a target's entries, and counts them by report.

use std::collections::{BTreeSet, HashMap};

use super::image_facts::{ImageFacts, ImageUses};
use super::snapshot::is_as_written;
use crate::documents::EntryLine;
use crate::domain::report_key::ReportKey;
use crate::domain::target::Target;
use crate::named_object::LineCheck;

pub(super) struct EntryLines<'a> {
    target: &'a Target,
    /// What the reports say about AMIs; `None` if no verdicts are given, or the reports are not sound.
    facts: Option<&'a ImageFacts>,
    pub(super) uses: ImageUses,
    pub(super) counts: HashMap<ReportKey, u64>,
    /// The report of the last line, and the lines that it has had.
    group: Option<(String, BTreeSet<ReportKey>)>,
    buffer: Vec<u8>,
}

impl<'a> EntryLines<'a> {
    pub(super) fn new(target: &'a Target, facts: Option<&'a ImageFacts>) -> Self {
        Self {
            target,
            facts,
            uses: ImageUses::default(),
            counts: HashMap::new(),
            group: None,
            buffer: Vec::new(),
        }
    }

    fn count(&mut self, entry: &EntryLine, line: &[u8]) -> Result<(), String> {
        let report_id = &entry.report_id;
        let report = ReportKey::of(report_id);
        let is_new = self.group.as_ref().is_none_or(|(of, _)| of != report_id);
        if is_new {
            if self.counts.contains_key(&report) {
                return Err(format!(
                    "is not adjacent to the other entries of {report_id}"
                ));
            }
            self.group = Some((report_id.clone(), BTreeSet::new()));
        }
        let count = self.counts.entry(report).or_default();
        match (entry.is_no_usage_observed(), is_new) {
            (true, true) => return Ok(()),
            (true, false) => {
                return Err(format!(
                    "says that {report_id} has no entries, but it has some"
                ));
            }
            (false, false) if *count == 0 => {
                return Err(format!(
                    "is an entry of {report_id}, which an earlier line says has none"
                ));
            }
            (false, _) => *count += 1,
        }
        let lines = self.group.as_mut().map(|(_, lines)| lines);
        // Lines are deduplicated by the same 128-bit key.
        let line = ReportKey::of(line);
        match lines.is_none_or(|lines| lines.insert(line)) {
            true => Ok(()),
            false => Err("is a duplicate".to_owned()),
        }
    }
}

impl LineCheck for EntryLines<'_> {
    fn check(&mut self, line: &[u8]) -> Result<(), String> {
        let entry: EntryLine = serde_json::from_slice(line)
            .map_err(|error| format!("is not the line of an entry: {error}"))?;
        let is_of_target =
            (&entry.account_id, &entry.region) == (&self.target.account_id, &self.target.region);
        if !is_of_target || !is_as_written(line, &entry, &mut self.buffer) {
            return Err(format!(
                "is not in the form that the auditor writes for an entry of {}",
                self.target
            ));
        }
        self.count(&entry, line)?;
        if let Some(facts) = self.facts {
            self.uses.add(facts, &entry);
        }
        Ok(())
    }
}
