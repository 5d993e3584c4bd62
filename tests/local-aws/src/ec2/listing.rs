//! Selects the rows of one page.

use super::errors::{invalid, unknown_report};
use super::request::Ec2Request;
use crate::api_error::ApiError;
use crate::clock::timestamp;
use crate::filters::Filter;
use crate::random::hash_of;
use crate::tokens::{Cursor, PageToken};
use crate::world::{Entry, Report, State, Stored, Target};
use std::collections::HashSet;
use time::OffsetDateTime;

/// The length of a page without `MaxResults`; EC2 documents none.
const DEFAULT_PAGE_SIZE: usize = 1000;

/// What a listing lists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    Reports,
    Entries,
}

/// A page of reports or of entries.
pub(super) struct Listing<'a> {
    pub(super) rows: Vec<Row<'a>>,
    pub(super) start: Cursor,
    pub(super) next: Option<Cursor>,
    pub(super) number: u32,
}

/// A report, or an entry of one.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) cursor: Cursor,
    pub(super) report: &'a Report,
    pub(super) entry: Option<&'a Entry>,
}

/// The checked parameters of a listing.
struct Selection<'a> {
    filters: Vec<Filter>,
    image_ids: HashSet<&'a str>,
    report_ids: HashSet<&'a str>,
    start: Cursor,
    limit: usize,
    interleaves_entries: bool,
    now: OffsetDateTime,
}

/// Hashes what a page token is bound to: the operation, the target, and every parameter except
/// those that may differ from page to page.
pub(super) fn fingerprint(request: &Ec2Request<'_>) -> u64 {
    let bound = request
        .query
        .parameters()
        .iter()
        .filter(|(name, _)| !["DryRun", "MaxResults", "NextToken"].contains(&name.as_str()))
        .flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    let caller = request.caller;
    hash_of(
        [caller.account.as_str(), caller.region.as_str()]
            .into_iter()
            .chain(bound),
    )
}

/// Selects the page that a request asks for.
pub(super) fn select<'s>(
    request: &Ec2Request<'_>,
    state: &'s mut State,
    kind: Rows,
    now: OffsetDateTime,
) -> Result<Listing<'s>, ApiError> {
    let filters = request.filters(match kind {
        Rows::Reports => &["creation-time", "state", "tag-key"],
        Rows::Entries => &["account-id", "creation-time", "resource-type"],
    })?;
    let image_ids = request.ids("ImageId")?;
    let report_ids = request.ids("ReportId")?;
    let leaves_out_unknown_reports = state.leaves_out_unknown_reports;
    let interleaves_entries = state.interleaves_entries;
    let target = state.target(&request.caller.account, &request.caller.region);
    let page_size = page_size(request, target.max_page_size)?;
    if !leaves_out_unknown_reports {
        check_reports_exist(target, &report_ids, now)?;
    }
    let token = match request.query.get("NextToken") {
        None | Some("") => PageToken::first(),
        Some(text) => PageToken::read(text, fingerprint(request), now)
            .ok_or_else(ApiError::invalid_pagination_token)?,
    };
    let selection = Selection {
        filters,
        image_ids: image_ids.into_iter().collect(),
        report_ids: report_ids.into_iter().collect(),
        start: token.cursor,
        // One more than the page holds: the row that the next page begins with.
        limit: page_size.saturating_add(1),
        interleaves_entries,
        now,
    };
    let mut rows = match kind {
        Rows::Reports => selection.reports(target),
        Rows::Entries => selection.entries(target),
    };
    let next = match rows.len() > page_size {
        true => rows.pop().map(|row| row.cursor),
        false => None,
    };
    Ok(Listing {
        rows,
        start: token.cursor,
        next,
        number: token.number,
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

fn page_size(request: &Ec2Request<'_>, largest: Option<usize>) -> Result<usize, ApiError> {
    let Some(text) = request.query.get("MaxResults") else {
        return Ok(DEFAULT_PAGE_SIZE.min(largest.unwrap_or(DEFAULT_PAGE_SIZE)));
    };
    text.parse::<usize>()
        .ok()
        .filter(|size| (1..=largest.unwrap_or(usize::MAX)).contains(size))
        .ok_or_else(|| {
            let expected = match largest {
                Some(largest) => format!("Expecting a value between 1 and {largest}."),
                None => "Expecting a value of 1 or more.".to_owned(),
            };
            invalid(format!(
                "Value ( {text} ) for parameter MaxResults is invalid. {expected}"
            ))
        })
}

impl Selection<'_> {
    fn reports<'s>(&self, target: &'s Target) -> Vec<Row<'s>> {
        self.stored(target, self.start.sequence)
            .filter(|stored| {
                let filters = &mut self.filters.iter();
                filters.all(|filter| report_passes(&stored.report, filter, self.now))
            })
            .map(|stored| Row {
                cursor: Cursor {
                    sequence: stored.sequence,
                    entry: 0,
                },
                report: &stored.report,
                entry: None,
            })
            .take(self.limit)
            .collect()
    }

    fn entries<'s>(&self, target: &'s Target) -> Vec<Row<'s>> {
        let first = match self.interleaves_entries {
            true => 0,
            false => self.start.sequence,
        };
        let entries = self
            .stored(target, first)
            .filter(|stored| stored.report.state_at(self.now).0 == Some("available"))
            .flat_map(rows_of)
            .filter(|row| {
                self.position(row.cursor) >= self.position(self.start)
                    && self.filters.iter().all(|filter| row.passes(filter))
            });
        if !self.interleaves_entries {
            return entries.take(self.limit).collect();
        }
        let mut entries: Vec<_> = entries.collect();
        entries.sort_by_key(|row| self.position(row.cursor));
        entries.truncate(self.limit);
        entries
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
        target.live(first, self.now).filter(move |stored| {
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

fn rows_of(stored: &Stored) -> impl Iterator<Item = Row<'_>> {
    let report = &stored.report;
    (0u32..).zip(&report.entries).map(|(entry, row)| Row {
        cursor: Cursor {
            sequence: stored.sequence,
            entry,
        },
        report,
        entry: Some(row),
    })
}

impl Row<'_> {
    fn passes(&self, filter: &Filter) -> bool {
        self.entry
            .is_some_and(|entry| entry_passes(self.report, entry, filter))
    }
}

fn report_passes(report: &Report, filter: &Filter, now: OffsetDateTime) -> bool {
    match filter.name.as_str() {
        "creation-time" => was_created(report, filter),
        "state" => report
            .state_at(now)
            .0
            .is_some_and(|state| filter.admits(state)),
        "tag-key" => report
            .tags
            .iter()
            .any(|tag| tag.key.as_deref().is_some_and(|key| filter.admits(key))),
        name => {
            let wanted = name.strip_prefix("tag:").unwrap_or(name);
            report.tags.iter().any(|tag| {
                tag.key.as_deref() == Some(wanted)
                    && filter.admits(tag.value.as_deref().unwrap_or_default())
            })
        }
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
