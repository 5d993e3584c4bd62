//! Page tokens: opaque to the client, bound to one query, and good for a limited time.

use crate::random::{Random, hash_of};
use time::OffsetDateTime;

/// Where a page begins: at the first report, or entry of a report, that is not before this place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) sequence: u64,
    pub(crate) entry: u32,
}

/// What a page token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageToken {
    pub(crate) cursor: Cursor,
    /// The number of the page that the token asks for; it also makes two tokens for the same place
    /// differ.
    pub(crate) number: u32,
    pub(crate) expires_at: OffsetDateTime,
}

impl PageToken {
    /// The token that a request without one stands for.
    pub(crate) fn first() -> Self {
        Self {
            cursor: Cursor::default(),
            number: 0,
            expires_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// Writes the token for the query with this fingerprint.
    pub(crate) fn write(&self, fingerprint: u64) -> String {
        let expires_at = (self.expires_at.unix_timestamp_nanos() / 1_000_000) as u64;
        let words = [
            self.cursor.sequence,
            u64::from(self.cursor.entry) << 32 | u64::from(self.number),
            expires_at,
        ];
        let checksum = checksum(&words, fingerprint);
        let mut mask = Random::new(checksum);
        let hidden: String = words
            .iter()
            .map(|word| format!("{:016x}", word ^ mask.next()))
            .collect();
        format!("{hidden}{checksum:016x}")
    }

    /// Reads a token; `None` if it is not of this query, was changed, or has expired.
    pub(crate) fn read(text: &str, fingerprint: u64, now: OffsetDateTime) -> Option<Self> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let word = |index: usize| u64::from_str_radix(&text[index * 16..(index + 1) * 16], 16).ok();
        let given = word(3)?;
        let mut mask = Random::new(given);
        let words = [
            word(0)? ^ mask.next(),
            word(1)? ^ mask.next(),
            word(2)? ^ mask.next(),
        ];
        if checksum(&words, fingerprint) != given {
            return None;
        }
        let expires_at =
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(words[2]) * 1_000_000).ok()?;
        (now <= expires_at).then_some(Self {
            cursor: Cursor {
                sequence: words[0],
                entry: (words[1] >> 32) as u32,
            },
            number: words[1] as u32,
            expires_at,
        })
    }
}

fn checksum(words: &[u64; 3], fingerprint: u64) -> u64 {
    let texts = words.map(|word| format!("{word:x}"));
    hash_of(texts.iter().map(String::as_str)) ^ Random::new(fingerprint).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;

    #[test]
    fn a_token_is_good_for_its_own_query_until_it_expires_and_unchanged() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let token = PageToken {
            cursor: Cursor {
                sequence: 12_345,
                entry: 6,
            },
            number: 7,
            expires_at: now + Duration::HOUR,
        };
        let text = token.write(42);
        assert_eq!(PageToken::read(&text, 42, now), Some(token));
        assert_eq!(
            PageToken::read(&text, 42, now + Duration::HOUR),
            Some(token)
        );
        assert_eq!(PageToken::read(&text, 42, now + Duration::hours(2)), None);
        assert_eq!(PageToken::read(&text, 43, now), None);
        assert_eq!(
            PageToken::read(&text.replacen(&text[..1], "_", 1), 42, now),
            None
        );
        assert_eq!(PageToken::read("", 42, now), None);
        assert_eq!(PageToken::read("12345", 42, now), None);
    }

    #[test]
    fn two_tokens_for_the_same_place_differ() {
        let token = PageToken::first();
        let next = PageToken { number: 1, ..token };
        assert_ne!(token.write(1), next.write(1));
    }
}
