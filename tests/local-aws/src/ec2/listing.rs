//! Selects the rows of one page.

use super::errors::invalid;
use super::request::Ec2Request;
use super::{images, references, reports};
use crate::api_error::ApiError;
use crate::images::StoredImage;
use crate::random::hash_of;
use crate::resources::Resource;
use crate::tokens::{Cursor, PageToken};
use crate::world::{Entry, Report, State};
use time::OffsetDateTime;

/// The length of a page without `MaxResults`; EC2 documents none.
const DEFAULT_PAGE_SIZE: usize = 1000;

/// What a listing lists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    Reports,
    Entries,
    Images,
    References,
}

/// A page of rows.
pub(super) struct Listing<'a> {
    pub(super) rows: Vec<Row<'a>>,
    pub(super) start: Cursor,
    pub(super) next: Option<Cursor>,
    pub(super) number: u32,
}

/// A row, and where a page that begins with it begins.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) cursor: Cursor,
    pub(super) content: Content<'a>,
}

/// What is listed in a row.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Report(&'a Report),
    Entry(&'a Report, &'a Entry),
    Image(&'a StoredImage),
    /// The ID of an AMI, and a resource that refers to it.
    Reference(&'a str, &'a Resource),
    /// Without any field.
    Bare,
}

/// Where the rows of a page begin, how many are wanted, and when.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) start: Cursor,
    pub(super) limit: usize,
    pub(super) now: OffsetDateTime,
}

impl Rows {
    /// Returns the parameters of the operation that lists the rows.
    pub(super) fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Reports | Self::Entries => &reports::LISTING_PARAMETERS,
            Self::Images => &images::LISTING_PARAMETERS,
            Self::References => &references::LISTING_PARAMETERS,
        }
    }

    /// Returns the name of the list in the document.
    pub(super) fn set_name(self) -> &'static str {
        match self {
            Self::Reports => "imageUsageReportSet",
            Self::Entries => "imageUsageReportEntrySet",
            Self::Images => "imagesSet",
            Self::References => "imageReferenceSet",
        }
    }

    /// Returns the smallest `MaxResults`, by the service model.
    fn least_page_size(self) -> usize {
        match self {
            Self::References => 5,
            _ => 1,
        }
    }

    /// Returns the length of a page without `MaxResults`.
    fn default_page_size(self) -> usize {
        match self {
            // All of them, in one page.
            Self::Images => usize::MAX,
            _ => DEFAULT_PAGE_SIZE,
        }
    }
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
    request: &'s Ec2Request<'_>,
    state: &'s mut State,
    kind: Rows,
    now: OffsetDateTime,
) -> Result<Listing<'s>, ApiError> {
    let (account, region) = (&request.caller.account, &request.caller.region);
    let largest = state.target(account, region).max_page_size;
    let page_size = page_size(request, kind, largest)?;
    let token = match request.query.get("NextToken") {
        None | Some("") => PageToken::first(),
        Some(text) => PageToken::read(text, fingerprint(request), now)
            .ok_or_else(ApiError::invalid_pagination_token)?,
    };
    let window = Window {
        start: token.cursor,
        // One more than the page holds: the row that the next page begins with.
        limit: page_size.saturating_add(1),
        now,
    };
    let mut rows = match kind {
        Rows::Reports | Rows::Entries => reports::rows(request, state, kind, window)?,
        Rows::Images => images::rows(request, state.images(region), window)?,
        Rows::References => {
            references::rows(request, &state.target(account, region).resources, window)?
        }
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

fn page_size(
    request: &Ec2Request<'_>,
    kind: Rows,
    largest: Option<usize>,
) -> Result<usize, ApiError> {
    let Some(text) = request.query.get("MaxResults") else {
        let largest = largest.filter(|_| kind != Rows::Images);
        return Ok(kind.default_page_size().min(largest.unwrap_or(usize::MAX)));
    };
    let least = kind.least_page_size();
    text.parse::<usize>()
        .ok()
        .filter(|size| (least..=largest.unwrap_or(usize::MAX)).contains(size))
        .ok_or_else(|| {
            let expected = match largest {
                Some(largest) => format!("Expecting a value between {least} and {largest}."),
                None => format!("Expecting a value of {least} or more."),
            };
            invalid(format!(
                "Value ( {text} ) for parameter MaxResults is invalid. {expected}"
            ))
        })
}
