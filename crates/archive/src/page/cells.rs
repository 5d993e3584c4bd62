//! The small parts of a page: texts, times, numbers, and the commands that show more.

use maud::{Markup, html};

use super::Place;
use crate::documents::{ImageName, Snapshot};
use crate::domain::timestamp::Timestamp;
use crate::domain::usage::Verdict;
use crate::domain::visible;
use crate::layout::Layout;

/// How many characters of a text are shown.
const MAX_CHARACTERS: usize = 240;

/// Returns a text of the archive as it can be shown: shortened, and without characters that hide or reverse others.
pub(super) fn shown(text: &str) -> String {
    visible::text(&visible::shortened(text, MAX_CHARACTERS))
}

/// A text of the archive, which may be written from right to left.
pub(super) fn text(text: &str) -> Markup {
    html! { bdi { (shown(text)) } }
}

/// A moment, to the minute.
pub(super) fn time(moment: Timestamp) -> Markup {
    let text = moment.to_string();
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    let minutes = time.get(..5).unwrap_or(time);
    html! { time datetime=(text) { (date) " " (minutes) " UTC" } }
}

/// A moment, or a word if there is none.
pub(super) fn time_or(moment: Option<Timestamp>, otherwise: &str) -> Markup {
    match moment {
        Some(moment) => time(moment),
        None => html! { (otherwise) },
    }
}

/// Writes a number with a comma between its thousands.
pub(super) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a number of things: `1 report`, `1,234 reports`.
pub(super) fn count(count: u64, one: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {one}{ending}", number(count))
}

/// A verdict as the page names it.
pub(super) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Gone => "Gone",
        Verdict::InUse => "In use",
        Verdict::NoUseObserved => "No use observed",
        Verdict::LastSeenInUse => "Last seen in use",
        Verdict::Unknown => "Unknown",
    }
}

/// The cell with an AMI's ID, name and place.
pub(super) fn image(image: &ImageName) -> Markup {
    html! {
        th scope="row" {
            code { (shown(&image.image_id)) }
            @if let Some(name) = &image.name { span.name { (text(name)) } }
            span.place { (image.account_id) "/" (image.region) }
        }
    }
}

/// A table that scrolls if it is wider than the screen; `rows` are its head and body.
pub(super) fn table(id: &str, caption: &str, rows: &Markup) -> Markup {
    html! {
        div.scroll role="region" tabindex="0" aria-labelledby=(id) {
            table { caption id=(id) { (caption) } (rows) }
        }
    }
}

/// The head of a table.
pub(super) fn head<const N: usize>(columns: [&str; N]) -> Markup {
    html! { thead { tr { @for column in columns { th scope="col" { (column) } } } } }
}

/// Says how many are not listed, and which command lists them; nothing if all are.
pub(super) fn more(omitted: u64, what: &str, command: &str) -> Markup {
    html! {
        @if omitted > 0 {
            p.more { "and " (number(omitted)) " more " (what) ": " code { (command) } }
        }
    }
}

/// The commands that show more than the page.
pub(super) struct Commands {
    archive: String,
    run: String,
    key: String,
    sha256: String,
    is_full: bool,
}

impl Commands {
    pub(super) fn new(snapshot: &Snapshot, place: &Place) -> Self {
        let layout = Layout::without_prefix();
        Self {
            archive: quoted(&shown(&place.archive)),
            run: snapshot.run_id.to_string(),
            key: layout.snapshot(&snapshot.run_id, snapshot.scheduled_at),
            sha256: shown(&place.snapshot_sha256),
            is_full: snapshot.scope.full,
        }
    }

    /// The key of the snapshot below the archive's prefix.
    pub(super) fn snapshot_key(&self) -> &str {
        &self.key
    }

    /// Lists AMIs.
    pub(super) fn images(&self, options: &str) -> String {
        format!(
            "image-usage images {} --run {}{options}",
            self.archive, self.run
        )
    }

    /// Lists findings.
    pub(super) fn findings(&self, options: &str) -> String {
        format!(
            "image-usage findings {} --run {}{options}",
            self.archive, self.run
        )
    }

    /// Prints the snapshot.
    pub(super) fn print_snapshot(&self) -> String {
        match self.archive.contains("s3://") {
            true => format!(
                "aws s3 cp {}{} -",
                self.archive.trim_end_matches('/'),
                self.key_below()
            ),
            false => format!(
                "cat {}{}",
                self.archive.trim_end_matches('/'),
                self.key_below()
            ),
        }
    }

    fn key_below(&self) -> String {
        format!("/{}", self.key)
    }

    /// Answers about one AMI.
    pub(super) fn who(&self, image_id: &str) -> String {
        format!("image-usage who {image_id} {}", self.archive)
    }

    /// Checks the archive, and that the snapshot is on its chain. A scoped one is on none.
    pub(super) fn verify(&self) -> String {
        match self.is_full {
            true => format!("image-usage verify {} --head {}", self.archive, self.sha256),
            false => format!("image-usage verify {}", self.archive),
        }
    }
}

/// Quotes a text for a shell, if it needs that.
fn quoted(text: &str) -> String {
    let is_plain = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '/' | ':' | '.' | '_' | '-')
    };
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        for (count, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(number(count), expected);
        }
    }

    #[test]
    fn a_location_that_a_shell_would_read_otherwise_is_quoted() {
        assert_eq!(
            quoted("s3://my-bucket/image-usage/"),
            "s3://my-bucket/image-usage/"
        );
        assert_eq!(quoted("my folder; rm 'x'"), r"'my folder; rm '\''x'\'''");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_time_names_its_zone() {
        let moment = "2026-11-22T06:07:08.9Z".parse().unwrap();
        let markup = time(moment).into_string();
        assert_eq!(
            markup,
            r#"<time datetime="2026-11-22T06:07:08.900Z">2026-11-22 06:07 UTC</time>"#
        );
    }
}
