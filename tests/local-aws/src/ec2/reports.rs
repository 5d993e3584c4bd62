//! Selects the rows of `DescribeImageUsageReports` and `DescribeImageUsageReportEntries`.

use super::errors::unknown_report;
use super::listing::{Content, Row, Rows, Window};
use super::request::Ec2Request;
use crate::api_error::ApiError;
use crate::clock::timestamp;
use crate::filters::Filter;
use crate::tokens::Cursor;
use crate::world::{Entry, Report, State, Stored, Target};
use std::collections::HashSet;
use time::OffsetDateTime;

pub(super) const LISTING_PARAMETERS: [&str; 9] = [
    "Action",
    "DryRun",
    "Filter.N.Name",
    "Filter.N.Value.N",
    "ImageId.N",
    "MaxResults",
    "NextToken",
    "ReportId.N",
    "Version",
];

/// The checked parameters of a listing.
struct Selection<'a> {
    filters: Vec<Filter>,
    image_ids: HashSet<&'a str>,
    report_ids: HashSet<&'a str>,
    window: Window,
    interleaves_entries: bool,
}

/// Returns the rows of a page, and the one after it.
pub(super) fn rows<'s>(
    request: &Ec2Request<'_>,
    state: &'s mut State,
    kind: Rows,
    window: Window,
) -> Result<Vec<Row<'s>>, ApiError> {
    let filters = request.filters(match kind {
        Rows::Entries => &["account-id", "creation-time", "resource-type"],
        _ => &["creation-time", "state", "tag-key"],
    })?;
    let image_ids = request.ids("ImageId")?;
    let report_ids = request.ids("ReportId")?;
    state.settle_entries(window.now);
    let leaves_out_unknown_reports = state.leaves_out_unknown_reports;
    let interleaves_entries = state.interleaves_entries;
    let target = state.target(&request.caller.account, &request.caller.region);
    if !leaves_out_unknown_reports {
        check_reports_exist(target, &report_ids, window.now)?;
    }
    let selection = Selection {
        filters,
        image_ids: image_ids.into_iter().collect(),
        report_ids: report_ids.into_iter().collect(),
        window,
        interleaves_entries,
    };
    Ok(match kind {
        Rows::Entries => selection.entries(target),
        _ => selection.reports(target),
    })
}

/// Fails if a report that the request names does not exist; the first missing one is reported.
fn check_reports_exist(
    target: &Target,
    report_ids: &[&str],
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    if report_ids.is_empty() {
        return Ok(());
    }
    let mut missing: HashSet<&str> = report_ids.iter().copied().collect();
    for stored in target.live(0, now) {
        if let Some(id) = &stored.report.report_id {
            missing.remove(id.as_str());
        }
    }
    match report_ids.iter().find(|id| missing.contains(*id)) {
        Some(id) => Err(unknown_report(id)),
        None => Ok(()),
    }
}

impl Selection<'_> {
    fn reports<'s>(&self, target: &'s Target) -> Vec<Row<'s>> {
        self.stored(target, self.window.start.sequence)
            .filter(|stored| {
                let filters = &mut self.filters.iter();
                filters.all(|filter| report_passes(&stored.report, filter, self.window.now))
            })
            .map(|stored| Row {
                cursor: Cursor {
                    sequence: stored.sequence,
                    entry: 0,
                },
                content: Content::Report(&stored.report),
            })
            .take(self.window.limit)
            .collect()
    }

    fn entries<'s>(&self, target: &'s Target) -> Vec<Row<'s>> {
        let first = match self.interleaves_entries {
            true => 0,
            false => self.window.start.sequence,
        };
        let entries = self
            .stored(target, first)
            .filter(|stored| stored.report.state_at(self.window.now).0 == Some("available"))
            .flat_map(|stored| self.entries_of(stored))
            .filter(|row| self.position(row.cursor) >= self.position(self.window.start));
        if !self.interleaves_entries {
            return entries.take(self.window.limit).collect();
        }
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by_key(|row| self.position(row.cursor));
        entries.truncate(self.window.limit);
        entries
    }

    /// Returns the entries of a report that pass the filters.
    fn entries_of<'s>(&self, stored: &'s Stored) -> impl Iterator<Item = Row<'s>> + use<'_, 's> {
        let report = &stored.report;
        let entries = (0u32..).zip(&report.entries);
        let passing = entries.filter(|(_, entry)| {
            let filters = &mut self.filters.iter();
            filters.all(|filter| entry_passes(report, entry, filter))
        });
        passing.map(|(number, entry)| Row {
            cursor: Cursor {
                sequence: stored.sequence,
                entry: number,
            },
            content: Content::Entry(report, entry),
        })
    }

    /// Returns the stored reports with the requested IDs, from a sequence number on.
    fn stored<'s>(
        &self,
        target: &'s Target,
        first: u64,
    ) -> impl Iterator<Item = &'s Stored> + use<'_, 's> {
        let includes = |ids: &HashSet<&str>, id: &Option<String>| {
            ids.is_empty() || id.as_deref().is_some_and(|id| ids.contains(id))
        };
        target.live(first, self.window.now).filter(move |stored| {
            includes(&self.image_ids, &stored.report.image_id)
                && includes(&self.report_ids, &stored.report.report_id)
        })
    }

    /// Returns the position of an entry among the others.
    fn position(&self, cursor: Cursor) -> (u64, u64) {
        match self.interleaves_entries {
            true => (u64::from(cursor.entry), cursor.sequence),
            false => (cursor.sequence, u64::from(cursor.entry)),
        }
    }
}

fn report_passes(report: &Report, filter: &Filter, now: OffsetDateTime) -> bool {
    match filter.name.as_str() {
        "creation-time" => was_created(report, filter),
        "state" => report
            .state_at(now)
            .0
            .is_some_and(|state| filter.admits(state)),
        _ => filter.admits_tags(&report.tags),
    }
}

fn entry_passes(report: &Report, entry: &Entry, filter: &Filter) -> bool {
    match filter.name.as_str() {
        "account-id" => entry
            .account_id
            .as_deref()
            .is_some_and(|id| filter.admits(id)),
        "creation-time" => was_created(report, filter),
        _ => entry
            .resource_type
            .as_deref()
            .is_some_and(|resource_type| filter.admits(resource_type)),
    }
}

fn was_created(report: &Report, filter: &Filter) -> bool {
    report
        .creation_time
        .is_some_and(|time| filter.admits(&timestamp(time)))
}
