//! Answers a listing with a page of reports, entries, AMIs or references.

use super::documents::{write_entry, write_image, write_reference, write_report};
use super::listing::{self, Content, Listing, Row, Rows};
use super::request::{Ec2Request, style_of};
use crate::answer::{Answer, Reply};
use crate::faults::{FaultKind, PagePosition, Ruling, Service};
use crate::tokens::PageToken;
use crate::xml::Xml;
use http::StatusCode;
use time::OffsetDateTime;

/// A page that a fault may have changed, and the moments that its document depends on.
struct Page<'a> {
    kind: Rows,
    listing: Listing<'a>,
    ruling: &'a Ruling,
    now: OffsetDateTime,
    tokens_expire_at: OffsetDateTime,
}

pub(super) fn reply(request: &Ec2Request<'_>, kind: Rows) -> Reply {
    let now = request.world.now();
    let mut state = request.world.lock();
    let tokens_expire_at = now.saturating_add(state.page_token_lifetime);
    let listing = request
        .check_parameters(kind.parameters())
        .and_then(|()| listing::select(request, &mut state, kind, now));
    let has_token = request
        .query
        .get("NextToken")
        .is_some_and(|token| !token.is_empty());
    let position = listing.as_ref().ok().map(|listing| PagePosition {
        number: listing.number,
        is_last: listing.next.is_none(),
        has_token,
    });
    let ruling = request.rule(position);
    let listing = match request.error_of(&ruling) {
        Some(error) => Err(error),
        None => listing.and_then(|listing| request.check_dry_run().map(|()| listing)),
    };
    let answer = match listing {
        Err(error) => error.answer(Service::Ec2, request.request_id),
        Ok(listing) => {
            let page = Page {
                kind,
                listing,
                ruling: &ruling,
                now,
                tokens_expire_at,
            };
            Answer::xml(StatusCode::OK, request.request_id, write(request, page))
        }
    };
    Reply::ruled(answer, ruling, position.map(|position| position.number))
}

fn write(request: &Ec2Request<'_>, mut page: Page<'_>) -> String {
    let listing = &mut page.listing;
    match page.ruling.kind {
        Some(FaultKind::EmptyPage) => {
            listing.rows.clear();
            listing.next = Some(listing.start);
        }
        Some(FaultKind::DuplicateReport) => duplicate_last_row(listing),
        Some(FaultKind::BareReport) => listing.rows.push(Row {
            cursor: listing.start,
            content: Content::Bare,
        }),
        _ => {}
    }
    let (mut xml, root) = request.document(style_of(page.ruling));
    write_rows(&mut xml, request, &page);
    write_token(&mut xml, request, &page);
    xml.finish(&root)
}

fn duplicate_last_row(listing: &mut Listing<'_>) {
    if let Some(last) = listing.rows.last().copied() {
        // A page of one row would otherwise be repeated forever.
        if listing.next.is_some() && listing.rows.len() > 1 {
            listing.next = Some(last.cursor);
        }
        listing.rows.push(last);
    }
}

fn write_rows(xml: &mut Xml, request: &Ec2Request<'_>, page: &Page<'_>) {
    let set = page.kind.set_name();
    if page.listing.rows.is_empty() {
        xml.empty(set);
        return;
    }
    let caller = request.caller;
    xml.open(set);
    for row in &page.listing.rows {
        xml.open("item");
        match row.content {
            Content::Report(report) => write_report(xml, report, page.now),
            Content::Entry(report, entry) => write_entry(xml, report, entry),
            Content::Image(stored) => write_image(xml, stored, &caller.account, page.now),
            Content::Reference(image_id, resource) => {
                let arn = resource.arn(&caller.account, &caller.region);
                write_reference(xml, image_id, &resource.resource_type, &arn);
            }
            Content::Bare => {}
        }
        xml.close("item");
    }
    xml.close(set);
}

fn write_token(xml: &mut Xml, request: &Ec2Request<'_>, page: &Page<'_>) {
    let fingerprint = listing::fingerprint(request);
    let number = page.listing.number;
    let true_token = page.listing.next.map(|cursor| {
        let token = PageToken {
            cursor,
            number: number + 1,
            expires_at: page.tokens_expire_at,
        };
        token.write(fingerprint)
    });
    let token = match &page.ruling.kind {
        Some(FaultKind::RepeatToken) => request
            .query
            .get("NextToken")
            .map(str::to_owned)
            .or(true_token),
        Some(FaultKind::TokenCycle { length }) => {
            Some(PageToken::in_cycle(number, *length).write(fingerprint))
        }
        _ => true_token,
    };
    match token {
        Some(token) => xml.leaf("nextToken", &token),
        None if page.ruling.kind == Some(FaultKind::EmptyToken) => xml.empty("nextToken"),
        None => {}
    }
}
