//! A run as one HTML page for people: self-contained, without scripts, and with nothing loaded from elsewhere.
//!
//! A page is a pure function of the run's documents: the same ones give the same bytes. What it shows of lines is
//! collected one at a time ([`PageContents`]), so memory does not grow with them. Every list is bounded, and says how
//! much it leaves out and which command shows the rest.

mod attention;
mod cells;
mod changes;
mod charts;
mod headline;
mod images;
mod targets;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::cells::{Commands, shown, time};
use crate::documents::{MAX_KEPT, PageContents, Scope, Snapshot};

/// The largest page.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// The content type of a page.
pub const PAGE_CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// How many rows a list shows: the first number that keeps the page below [`MAX_PAGE_BYTES`]. With texts of
/// ordinary length, that is the first one.
const ROWS: [usize; 4] = [MAX_KEPT, 10, 5, 2];

const STYLE: &str = include_str!("page.css");

/// Where the archive of a run is, as a reader of its page would name it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The location of the archive: `s3://bucket/prefix/` or a folder.
    pub archive: String,
    /// The SHA-256 of the run's snapshot, in hex.
    pub snapshot_sha256: String,
}

/// What the sections of a page are made of.
#[derive(Clone, Copy)]
struct Page<'a> {
    snapshot: &'a Snapshot,
    contents: &'a PageContents,
    place: &'a Place,
    commands: &'a Commands,
    /// How many rows a list shows.
    rows: usize,
}

/// Returns the page of a run: a whole HTML document of at most [`MAX_PAGE_BYTES`].
pub fn render(snapshot: &Snapshot, contents: &PageContents, place: &Place) -> String {
    let commands = Commands::new(snapshot, place);
    let page = |rows| Page {
        snapshot,
        contents,
        place,
        commands: &commands,
        rows,
    };
    let mut html = String::new();
    for rows in ROWS {
        html = document(page(rows)).into_string();
        if html.len() <= MAX_PAGE_BYTES {
            break;
        }
    }
    html
}

fn document(page: Page<'_>) -> Markup {
    let Snapshot { started_at, .. } = page.snapshot;
    let headline = headline::of(page.snapshot);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { "Image usage on " (started_at.date()) ": " (headline) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (charts::patterns())
                header {
                    p.run { "EC2 image usage, run of " (time(*started_at)) }
                    h1 { (headline) }
                    (scope(&page.snapshot.scope))
                }
                main {
                    (attention::section(page))
                    (images::verdicts(page))
                    (images::in_use(page))
                    (images::quiet(page))
                    (images::unclear(page))
                    (images::uncovered(page))
                    (attention::findings(page))
                    (charts::expirations(page))
                    (targets::section(page))
                    (changes::section(page))
                    (verification(page))
                }
                footer {
                    p {
                        "Run " code { (page.snapshot.run_id) } ", by " (shown(&page.snapshot.auditor.name)) " "
                        (shown(&page.snapshot.auditor.version)) ". All times are in UTC."
                    }
                }
            }
        }
    }
}

/// Says what a run was narrowed to; nothing for a full one.
fn scope(scope: &Scope) -> Markup {
    if scope.full {
        return html! {};
    }
    let Scope {
        full: _,
        image_ids,
        report_ids,
        filters,
        regions,
        account_ids,
    } = scope;
    let narrowed = [
        ("AMIs", image_ids.len()),
        ("reports", report_ids.len()),
        ("filters", filters.len()),
        ("Regions", regions.len()),
        ("accounts", account_ids.len()),
    ];
    let narrowed: Vec<String> = narrowed
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    html! {
        p.note {
            strong { "A scoped run." }
            " It was asked about a part only (" (narrowed.join(", ")) "): it gives no verdicts, it is compared with "
            "no other run, and it says nothing about the rest."
        }
    }
}

fn verification(page: Page<'_>) -> Markup {
    html! {
        section {
            h2 #verify { "How to check this" }
            p {
                "This page is a view for people. The evidence is the archive in "
                code { (shown(&page.place.archive)) } ". Whoever may read it can check that nothing in it was lost or "
                "changed:"
            }
            pre tabindex="0" { code { (page.commands.verify()) } }
            dl.facts {
                div { dt { "Snapshot of this run" } dd { code { (page.commands.snapshot_key()) } } }
                div { dt { "Its SHA-256" } dd { code { (shown(&page.place.snapshot_sha256)) } } }
            }
        }
    }
}
