//! Page tokens: opaque to the client, bound to one query, and valid for a limited time.

use crate::random::{Random, hash_of};
use time::{Duration, OffsetDateTime};

/// The lifetime of the tokens of a cycle, which must not depend on when they are written.
const CYCLE_LIFETIME: Duration = Duration::days(365_000);

/// Where a page begins: at the first report, or entry of a report, at or after this position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) sequence: u64,
    pub(crate) entry: u32,
}

/// The content of a page token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageToken {
    pub(crate) cursor: Cursor,
    /// The number of the page that the token asks for. It also makes two tokens for the same
    /// position different.
    pub(crate) number: u32,
    pub(crate) expires_at: OffsetDateTime,
}

impl PageToken {
    /// Returns the token that is equivalent to none.
    pub(crate) fn first() -> Self {
        Self {
            cursor: Cursor::default(),
            number: 0,
            expires_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// Returns the token that follows a page if the tokens of a listing form a cycle.
    ///
    /// The tokens are the same however often the cycle is passed; each asks for the first page.
    pub(crate) fn in_cycle(page: u32, length: u32) -> Self {
        Self {
            cursor: Cursor::default(),
            number: page % length.max(1) + 1,
            expires_at: OffsetDateTime::UNIX_EPOCH + CYCLE_LIFETIME,
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

    /// Reads a token. Returns `None` if it belongs to another query, was changed, or has expired.
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

    #[test]
    fn a_token_is_valid_only_unchanged_for_its_own_query_and_until_it_expires() {
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
    fn two_tokens_for_the_same_position_differ() {
        let token = PageToken::first();
        let next = PageToken { number: 1, ..token };
        assert_ne!(token.write(1), next.write(1));
    }

    #[test]
    fn a_cycle_of_tokens_returns_to_its_first_token_after_its_length() {
        let tokens: Vec<String> = (0..7)
            .map(|page| PageToken::in_cycle(page, 3).write(42))
            .collect();
        assert_eq!(tokens[0], tokens[3]);
        assert_eq!(tokens[1..4], tokens[4..7]);
        let mut different = tokens[..3].to_vec();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 3);
        let read = PageToken::read(&tokens[2], 42, OffsetDateTime::now_utc());
        assert_eq!(read.map(|token| token.number), Some(3));
    }
}
