//! The reports of one target, staged until their lines can be written.
//!
//! A report's line says where its entries are, which is known only after every page has been read: the
//! reports that expire first have their entries fetched first. Until then the reports wait in a spool,
//! compressed, and what is known of each is held in memory by its key.

mod image_facts;
mod interner;
mod records;
mod spool;

use std::collections::{BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use image_usage_archive::documents::ReportFields;
use image_usage_archive::domain::findings::FindingSet;
use image_usage_archive::domain::report::{ReportState, UsageReport};
use image_usage_archive::domain::report_key::ReportKey;
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::timestamp::Timestamp;

pub(crate) use self::image_facts::{
    ConsumerFact, FactNames, ImageFact, ImageFacts, ListedReport, SortedFacts,
};
pub(crate) use self::records::{ReportRecord, ReportRecords};
use self::spool::Spool;
pub(crate) use self::spool::{SPOOL_BYTES_IN_MEMORY, StagedHead, StagedReader};

/// The reports of a target in EC2's order, and what is known of each.
#[derive(Debug)]
pub(crate) struct StagedReports {
    spool: Spool,
    records: ReportRecords,
    /// How many reports without an ID the listing has returned so far, by their content.
    unnamed: HashMap<ReportKey, u64>,
    fields: Vec<u8>,
    /// What has been read about AMIs; `None` if nobody asks for it.
    facts: Option<ImageFacts>,
}

impl StagedReports {
    pub(crate) fn new() -> Self {
        Self {
            spool: Spool::new(),
            records: ReportRecords::default(),
            unnamed: HashMap::new(),
            fields: Vec::new(),
            facts: None,
        }
    }

    /// Also collects facts about AMIs.
    pub(crate) fn with_facts(self) -> Self {
        Self {
            facts: Some(ImageFacts::new()),
            ..self
        }
    }

    /// What has been read about AMIs; `None` if nobody asks for it.
    pub(crate) fn facts(&mut self) -> Option<&mut ImageFacts> {
        self.facts.as_mut()
    }

    /// Takes what has been read about AMIs.
    pub(crate) fn take_facts(&mut self) -> Option<ImageFacts> {
        self.facts.take()
    }

    /// Recognises, when the listing starts again, the reports that are staged already.
    pub(crate) fn restart(&mut self) {
        self.unnamed.clear();
    }

    /// Stages a report, unless it is staged already.
    ///
    /// Reports without an ID are recognised by their content, and counted: two may be alike.
    pub(crate) fn stage(
        &mut self,
        target: &Target,
        report: &UsageReport,
        findings: FindingSet,
    ) -> io::Result<()> {
        self.fields.clear();
        serde_json::to_writer(&mut self.fields, &ReportFields::new(target, report))?;
        let key = match &report.report_id {
            Some(id) => ReportKey::of(id),
            None => {
                let alike = self.unnamed.entry(ReportKey::of(&self.fields)).or_default();
                *alike += 1;
                ReportKey::of([self.fields.as_slice(), &alike.to_le_bytes()].concat())
            }
        };
        if !self.records.record_listed(key) {
            return Ok(());
        }
        if report.image_id.is_none() {
            // It says nothing about any AMI.
            self.records.record_observed(key);
        }
        let look = match &mut self.facts {
            Some(facts) => Some(facts.names().look_number(report)?),
            None => None,
        };
        let head = StagedHead {
            look,
            key,
            is_named: report.report_id.is_some(),
            findings,
            state: self.records.state_number(&report.state)?,
            image: report.image_id.as_deref().map(image_hash),
            expiration_milliseconds: report.expiration_time.map(Timestamp::unix_milliseconds),
        };
        self.spool.push(&head, &self.fields)
    }

    /// Reads the reports, in EC2's order.
    pub(crate) fn read(&mut self) -> io::Result<(StagedReader<'_>, &ReportRecords)> {
        Ok((self.spool.read()?, &self.records))
    }

    /// Reads the reports, in EC2's order, while facts about AMIs are added.
    pub(crate) fn read_with_facts(
        &mut self,
    ) -> io::Result<(StagedReader<'_>, &ReportRecords, Option<&mut ImageFacts>)> {
        Ok((self.spool.read()?, &self.records, self.facts.as_mut()))
    }

    /// What is known of each report.
    pub(crate) fn records(&mut self) -> &mut ReportRecords {
        &mut self.records
    }

    /// The bytes that wait to be archived.
    pub(crate) fn bytes(&self) -> usize {
        self.spool.bytes()
    }

    /// Whether the reports are few enough to be held in memory.
    pub(crate) fn is_small(&self) -> bool {
        self.spool.bytes() < SPOOL_BYTES_IN_MEMORY
    }
}

/// The first available reports whose entries are not settled, in the order of their expiry; undated ones come
/// last.
#[derive(Debug)]
pub(crate) struct SoonestReports {
    limit: usize,
    reports: BinaryHeap<ReportToFetch>,
}

impl SoonestReports {
    /// Keeps up to `limit` reports.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            reports: BinaryHeap::new(),
        }
    }

    /// Considers a staged report.
    pub(crate) fn consider(
        &mut self,
        records: &ReportRecords,
        head: &StagedHead,
        fields: &[u8],
    ) -> io::Result<()> {
        if !head.is_named || *records.state(head) != Some(ReportState::Available) {
            return Ok(());
        }
        let expires = (
            head.expiration_milliseconds.is_none(),
            head.expiration_milliseconds,
        );
        let is_later = |last: &ReportToFetch| expires > last.expires();
        if self.reports.len() == self.limit && self.reports.peek().is_some_and(is_later) {
            return Ok(());
        }
        if records.get(&head.key).is_settled() {
            return Ok(());
        }
        let FieldsToFetch {
            report_id,
            image_id,
            creation_time,
        } = serde_json::from_slice(fields)?;
        self.reports.push(ReportToFetch {
            expires_last: expires.0,
            expiration_milliseconds: expires.1,
            report_id,
            key: head.key,
            image_id,
            creation_time,
        });
        if self.reports.len() > self.limit {
            self.reports.pop();
        }
        Ok(())
    }

    /// The reports, soonest expiry first.
    pub(crate) fn into_sorted(self) -> Vec<ReportToFetch> {
        self.reports.into_sorted_vec()
    }
}

/// A report whose entries are to be fetched; in the order of expiry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ReportToFetch {
    expires_last: bool,
    expiration_milliseconds: Option<i64>,
    pub(crate) report_id: String,
    pub(crate) key: ReportKey,
    pub(crate) image_id: Option<String>,
    pub(crate) creation_time: Option<Timestamp>,
}

impl ReportToFetch {
    fn expires(&self) -> (bool, Option<i64>) {
        (self.expires_last, self.expiration_milliseconds)
    }
}

#[derive(serde::Deserialize)]
struct FieldsToFetch {
    report_id: String,
    image_id: Option<String>,
    creation_time: Option<Timestamp>,
}

/// A hash of the AMI ID; collisions are rare and harmless.
pub(crate) fn image_hash(image_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    image_id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use image_usage_archive::domain::entries_status::EntriesStatus;
    use image_usage_archive::domain::run_id::RunId;

    use super::*;

    fn target() -> Target {
        Target {
            account_id: "111122223333".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
        }
    }

    fn report(id: &str, state: &str, expires: Option<&str>) -> UsageReport {
        UsageReport {
            report_id: (!id.is_empty()).then(|| id.to_owned()),
            image_id: Some("ami-1".to_owned()),
            state: Some(ReportState::from(state)),
            expiration_time: expires.map(|time| time.parse().unwrap()),
            ..UsageReport::default()
        }
    }

    fn staged(reports: &[UsageReport]) -> StagedReports {
        let mut staged = StagedReports::new();
        for report in reports {
            staged
                .stage(&target(), report, FindingSet::default())
                .unwrap();
        }
        staged
    }

    #[test]
    fn a_report_listed_twice_is_staged_once_and_can_be_read_repeatedly() {
        let one = report("a", "available", None);
        let unnamed = report("", "pending", None);
        let mut staged = staged(&[one.clone(), unnamed.clone(), unnamed.clone()]);
        staged.restart();
        for report in [unnamed.clone(), report("b", "odd", None), unnamed, one] {
            staged
                .stage(&target(), &report, FindingSet::default())
                .unwrap();
        }
        for _ in 0..2 {
            let (mut reports, _) = staged.read().unwrap();
            let mut ids = Vec::new();
            while let Some((_, fields)) = reports.next().unwrap() {
                let report: UsageReport = serde_json::from_slice(fields).unwrap();
                ids.push(report.report_id.unwrap_or_default());
            }
            assert_eq!(ids, ["a", "", "", "b"]);
        }
    }

    #[test]
    fn unsettled_entries_come_by_expiry_and_undated_ones_come_last() {
        let mut staged = staged(&[
            report("undated", "available", None),
            report("", "available", Some("2026-11-23T00:00:00Z")),
            report("late", "available", Some("2026-12-01T00:00:00Z")),
            report("pending", "pending", Some("2026-11-01T00:00:00Z")),
            report("soon", "available", Some("2026-11-25T00:00:00Z")),
            report("settled", "available", Some("2026-11-24T00:00:00Z")),
        ]);
        let settled = ReportKey::of("settled");
        let records = staged.records();
        records
            .set_entries(&settled, &EntriesStatus::NotAvailable)
            .unwrap();
        let mut ids = |limit| {
            let mut soonest = SoonestReports::new(limit);
            let (mut reports, records) = staged.read().unwrap();
            while let Some((head, fields)) = reports.next().unwrap() {
                soonest.consider(records, &head, fields).unwrap();
            }
            let soonest = soonest.into_sorted().into_iter();
            let ids = soonest.map(|report| report.report_id);
            ids.collect::<Vec<_>>()
        };
        assert_eq!(ids(9), ["soon", "late", "undated"]);
        assert_eq!(ids(2), ["soon", "late"]);
    }

    #[test]
    fn the_latest_earlier_state_counts_and_entries_come_from_whichever_line_has_them() {
        let mut staged = staged(&[report("a", "available", None)]);
        let key = ReportKey::of("a");
        let pending = Some(ReportState::Pending);
        let archived = EntriesStatus::Archived {
            key: "k".to_owned(),
            run_id: RunId::of_request("2026-11-22T06:00:00Z".parse().unwrap(), "r"),
            count: 7,
        };
        let none = FindingSet::default();
        let records = staged.records();
        let first = records.record_earlier(key, none, &pending, None).unwrap();
        assert!(first.is_some());
        let second = records.record_earlier(key, none, &None, Some(&archived));
        assert!(second.unwrap().is_none());
        let record = records.get(&key);
        assert!(record.is_listed);
        let earlier = record.earlier().unwrap();
        assert_eq!(records.earlier_state(&earlier), &pending);
        assert_eq!(record.entries(records), Some(archived));
    }
}
