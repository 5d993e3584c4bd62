//! What is read on the way becomes facts about AMIs.

use std::borrow::Cow;
use std::io;
use std::num::NonZeroU16;

use image_usage_archive::domain::entries_status::EntriesStatus;
use image_usage_archive::domain::timestamp::Timestamp;
use serde::Deserialize;

use crate::staging::{ConsumerFact, ImageFact, ImageFacts, ListedReport};

/// How many consumers one fact holds: with account and type, about 50 KB.
const CONSUMERS_PER_FACT: usize = 1_000;

/// Adds a report that EC2 lists, by its fields as JSON; one that names no AMI says nothing about any.
pub(in crate::audit::one_target) fn add_report(
    facts: &mut ImageFacts,
    look: NonZeroU16,
    fields: &[u8],
    entries: &EntriesStatus,
) -> io::Result<()> {
    let FieldsOfReport {
        report_id,
        image_id,
        state,
        creation_time,
    } = serde_json::from_slice(fields)?;
    let Some(image_id) = image_id else {
        return Ok(());
    };
    let entries_key = match entries {
        EntriesStatus::Archived { key, .. } => Some(facts.names().entries_key_number(key)?),
        _ => None,
    };
    let listed = ListedReport {
        report_id,
        creation_time,
        state,
        look,
        entries_key,
    };
    facts.push(&image_id, &ImageFact::Report(listed))
}

#[derive(Deserialize)]
struct FieldsOfReport<'a> {
    #[serde(borrow)]
    report_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    state: Option<Cow<'a, str>>,
    creation_time: Option<Timestamp>,
}

/// Collects the entries of one report.
pub(in crate::audit::one_target) struct EntryCollector<'a> {
    facts: &'a mut ImageFacts,
    image_id: &'a str,
    report_id: &'a str,
    consumers: Vec<ConsumerFact>,
    is_empty: bool,
}

impl<'a> EntryCollector<'a> {
    /// Starts the entries of a report.
    pub(in crate::audit::one_target) fn new(
        facts: &'a mut ImageFacts,
        image_id: &'a str,
        report_id: &'a str,
    ) -> Self {
        Self {
            facts,
            image_id,
            report_id,
            consumers: Vec::new(),
            is_empty: true,
        }
    }

    /// Adds an entry, as it is archived.
    pub(in crate::audit::one_target) fn add(&mut self, line: &[u8]) -> io::Result<()> {
        self.consumers.push(serde_json::from_slice(line)?);
        match self.consumers.len() == CONSUMERS_PER_FACT {
            true => self.push(),
            false => Ok(()),
        }
    }

    /// Ends the entries; a report without any counts too.
    pub(in crate::audit::one_target) fn finish(mut self) -> io::Result<()> {
        match self.is_empty || !self.consumers.is_empty() {
            true => self.push(),
            false => Ok(()),
        }
    }

    fn push(&mut self) -> io::Result<()> {
        self.is_empty = false;
        let entries = ImageFact::Entries {
            report_id: self.report_id.into(),
            consumers: std::mem::take(&mut self.consumers),
        };
        self.facts.push(self.image_id, &entries)
    }
}

#[derive(Deserialize)]
struct ArchivedEntry {
    report_id: String,
    image_id: Option<String>,
    #[serde(flatten)]
    consumer: ConsumerFact,
}

impl ArchivedEntry {
    /// Whether the line states that its report has no entries.
    fn is_no_usage_observed(&self) -> bool {
        let ConsumerFact {
            consumer_account_id,
            resource_type,
            usage_count,
        } = &self.consumer;
        consumer_account_id.is_none() && resource_type.is_none() && *usage_count == Some(0)
    }
}

/// How many entries an archived line has, if its report is wanted: one, or none of a report that observed no
/// usage.
///
/// # Errors
/// Fails if the line is no entry, or if the entry names no AMI.
pub(super) fn wanted_entries(line: &[u8], is_wanted: impl Fn(&str) -> bool) -> io::Result<u64> {
    let entry: ArchivedEntry = serde_json::from_slice(line)?;
    if !is_wanted(&entry.report_id) {
        return Ok(0);
    }
    if entry.image_id.is_none() {
        let problem = format!("an entry of the report {} names no AMI", entry.report_id);
        return Err(io::Error::other(problem));
    }
    Ok(u64::from(!entry.is_no_usage_observed()))
}

/// Takes the entries of some reports from an object in which they are grouped by report.
pub(super) struct EntryRegrouper<'a> {
    facts: &'a mut ImageFacts,
    /// The report whose entries come, its AMI, and those that came.
    current: Option<(String, String, Vec<ConsumerFact>)>,
}

impl<'a> EntryRegrouper<'a> {
    pub(super) fn new(facts: &'a mut ImageFacts) -> Self {
        Self {
            facts,
            current: None,
        }
    }

    /// Adds an archived line, if its report is wanted.
    pub(super) fn add(&mut self, line: &[u8], is_wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        let ArchivedEntry {
            report_id,
            image_id,
            consumer,
        } = serde_json::from_slice(line)?;
        let Some(image_id) = image_id.filter(|_| is_wanted(&report_id)) else {
            return Ok(());
        };
        let is_same = self.current.as_ref().is_some_and(|(id, _, consumers)| {
            *id == report_id && consumers.len() < CONSUMERS_PER_FACT
        });
        if !is_same {
            self.push()?;
            self.current = Some((report_id, image_id, Vec::new()));
        }
        if let Some((_, _, consumers)) = &mut self.current {
            consumers.push(consumer);
        }
        Ok(())
    }

    /// Ends the object.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.push()
    }

    fn push(&mut self) -> io::Result<()> {
        let Some((report_id, image_id, consumers)) = self.current.take() else {
            return Ok(());
        };
        let entries = ImageFact::Entries {
            report_id: report_id.into(),
            consumers,
        };
        self.facts.push(&image_id, &entries)
    }
}
