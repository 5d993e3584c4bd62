//! The output: everything that reaches the terminal passes through here.

use std::fmt::Write as _;
use std::io::{self, Write};

use image_usage_archive::domain::visible;
use image_usage_archive::verify::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// Writes to the standard output.
///
/// # Errors
/// Fails if the reader is gone, which is not reported, and as any write does, which is.
pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    if let Err(error) = &written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        print_error(&format!("failed to write the output: {error}"));
    }
    written
}

/// Writes one line to the standard error.
pub(crate) fn print_error(message: &str) {
    // If it cannot be written there, nowhere else is better.
    let _ = writeln!(io::stderr(), "image-usage: {}", escape(message));
}

/// Makes a line safe for a terminal: texts of an archive (keys, messages) may contain escape sequences, line
/// breaks, or characters that reverse or hide what follows.
pub(crate) fn escape(line: &str) -> String {
    visible::text(line)
}

/// Makes a JSON document safe for a terminal, and leaves it the same document.
pub(crate) fn escape_json(document: &str) -> String {
    let mut escaped = String::with_capacity(document.len());
    for character in document.chars() {
        if !visible::is_hidden(character) {
            escaped.push(character);
            continue;
        }
        // Only strings contain such characters: JSON's own syntax has none, and the document is on one line.
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

/// The progress of reading an archive, on one line of the standard error; nothing unless that is a terminal.
pub(crate) struct ProgressLine(ProgressBar);

impl ProgressLine {
    pub(crate) fn new() -> Self {
        let style =
            ProgressStyle::with_template("reading {bytes} of {total_bytes} {wide_bar} {eta}");
        let bar = ProgressBar::new(0);
        Self(match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    pub(crate) fn show(&self, progress: Progress) {
        self.0.set_length(progress.total_bytes);
        self.0.set_position(progress.read_bytes);
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let hostile = "a\u{1b}[31mred\u{9b}2J\r\n\tb\u{202e}c\u{2066}d\u{200b}e\u{feff}f\u{7f}";
        let escaped = escape(hostile);
        assert_eq!(
            escaped,
            r"a\u{1b}[31mred\u{9b}2J\u{d}\u{a}\u{9}b\u{202e}c\u{2066}d\u{200b}e\u{feff}f\u{7f}"
        );
        assert!(!escaped.chars().any(visible::is_hidden));
        let all: String = ('\0'..=char::MAX).collect();
        assert!(!escape(&all).chars().any(visible::is_hidden));
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for text in ["", "v1/latest.json is missing", "Größe 猫 🙂 é שלום"] {
            assert_eq!(escape(text), text);
            assert_eq!(escape_json(text), text);
        }
    }

    #[test]
    fn a_json_document_stays_the_same_document() {
        let hostile = "a\u{1b}\u{9b}\u{202e}\u{e0001}\"\\\n";
        let document = serde_json::to_string(&[hostile]).unwrap();
        let escaped = escape_json(&document);
        assert!(!escaped.chars().any(visible::is_hidden), "{escaped}");
        let read: [String; 1] = serde_json::from_str(&escaped).unwrap();
        assert_eq!(read[0], hostile);
    }
}
