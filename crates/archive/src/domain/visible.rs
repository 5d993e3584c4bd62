//! Texts of an archive as they can be shown: some characters hide or reverse what follows, or command a terminal.

/// Returns whether a character must not be shown as it is: control characters, bidirectional controls, and
/// characters without a width.
///
/// Source: <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Writes each character that must not be shown as its number, such as `\u{202e}`.
pub fn text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match is_hidden(character) {
            true => shown.extend(character.escape_unicode()),
            false => shown.push(character),
        }
    }
    shown
}

/// Returns the first characters of a text, at most `limit`; the last one is an ellipsis if there are more.
pub fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some(_) => text
            .chars()
            .take(limit.saturating_sub(1))
            .chain(['…'])
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_fits_is_not_shortened() {
        assert_eq!(shortened("größer", 6), "größer");
        assert_eq!(shortened("größeren", 6), "größe…");
        assert_eq!(shortened("", 0), "");
        assert_eq!(shortened("a", 0), "…");
    }
}
