//! EC2's filters: values with wildcards.

use crate::world::Tag;

/// A filter of a request: a name, and patterns of which one must match.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) name: String,
    pub(crate) values: Vec<String>,
}

impl Filter {
    /// Returns whether one of the patterns matches.
    pub(crate) fn admits(&self, value: &str) -> bool {
        self.values
            .iter()
            .any(|pattern| matches_pattern(pattern, value))
    }

    /// Returns whether a filter named `tag-key` or `tag:…` admits one of the tags.
    pub(crate) fn admits_tags(&self, tags: &[Tag]) -> bool {
        tags.iter().any(|tag| match self.name.strip_prefix("tag:") {
            Some(key) => {
                tag.key.as_deref() == Some(key)
                    && self.admits(tag.value.as_deref().unwrap_or_default())
            }
            None => tag.key.as_deref().is_some_and(|key| self.admits(key)),
        })
    }
}

/// Returns whether a value matches a pattern, case-sensitively.
///
/// `*` matches any number of characters, `?` one character, and `\` escapes the next character.
fn matches_pattern(pattern: &str, value: &str) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Part {
        Any,
        One,
        Letter(char),
    }
    let mut parts = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        parts.push(match letter {
            '*' => Part::Any,
            '?' => Part::One,
            // A backslash at the end is literal.
            '\\' => Part::Letter(letters.next().unwrap_or('\\')),
            letter => Part::Letter(letter),
        });
    }
    let value: Vec<char> = value.chars().collect();
    let (mut at, mut part) = (0, 0);
    let mut last_any = None;
    while at < value.len() {
        match parts.get(part) {
            Some(Part::Any) => {
                last_any = Some((part, at));
                part += 1;
            }
            Some(Part::One) => {
                at += 1;
                part += 1;
            }
            Some(Part::Letter(letter)) if *letter == value[at] => {
                at += 1;
                part += 1;
            }
            // No match: extend the last `*` by one character.
            _ => match &mut last_any {
                Some((any, taken)) => {
                    *taken += 1;
                    at = *taken;
                    part = *any + 1;
                }
                None => return false,
            },
        }
    }
    parts[part..].iter().all(|part| *part == Part::Any)
}

#[cfg(test)]
mod tests {
    use super::matches_pattern;

    #[test]
    fn wildcards_match_as_ec2_describes_them() {
        for (pattern, value) in [
            ("2025-11-29T*", "2025-11-29T11:04:43.305Z"),
            ("*", ""),
            ("*", "anything"),
            ("a*b*c", "a--b--b--c"),
            ("Team?", "TeamA"),
            ("Team?", "Team日"),
            ("\\*amazon\\?\\\\", "*amazon?\\"),
            ("**", "x"),
            ("*ab", "aab"),
            ("end\\", "end\\"),
        ] {
            assert!(matches_pattern(pattern, value), "{pattern} {value}");
        }
    }

    #[test]
    fn a_value_of_another_case_or_length_does_not_match() {
        for (pattern, value) in [
            ("TeamA", "teama"),
            ("Team?", "Team"),
            ("Team?", "TeamAB"),
            ("", "x"),
            ("x", ""),
            ("a*b", "a-b-"),
            ("\\*", "x"),
            ("available", "availabl"),
        ] {
            assert!(!matches_pattern(pattern, value), "{pattern} {value}");
        }
    }

    #[test]
    fn many_wildcards_on_a_long_value_take_bounded_time() {
        let pattern = "a*".repeat(100) + "b";
        assert!(!matches_pattern(&pattern, &"a".repeat(10_000)));
    }
}
