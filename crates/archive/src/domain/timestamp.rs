//! Times as the archive writes them.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime, UtcOffset};

/// The seconds of a day.
pub const SECONDS_PER_DAY: i64 = 86_400;

/// The seconds of an hour.
pub const SECONDS_PER_HOUR: i64 = 3_600;

/// A moment in UTC, written as RFC 3339.
///
/// Written without a fraction if it is a whole second, else with three digits of milliseconds or nine of
/// nanoseconds: `2026-11-22T06:00:00Z`, `2026-10-25T13:27:12.322Z`. The year is between 0 and 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, JsonSchema)]
pub struct Timestamp(
    #[schemars(with = "String", extend("format" = "date-time"), regex(pattern = r"Z$"))]
    OffsetDateTime,
);

impl Timestamp {
    /// Converts seconds and nanoseconds since the Unix epoch; `None` outside the years 0 to 9999.
    pub fn from_unix(seconds: i64, nanoseconds: u32) -> Option<Self> {
        let moment = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
        let moment = moment.replace_nanosecond(nanoseconds).ok()?;
        (moment.year() >= 0).then_some(Self(moment))
    }

    /// Converts a reading of the clock, truncated to whole milliseconds.
    pub fn from_clock(reading: SystemTime) -> Self {
        let reading = OffsetDateTime::from(reading);
        Self(reading.to_offset(UtcOffset::UTC).truncate_to_millisecond())
    }

    /// Returns the seconds from `earlier` to this moment, rounded down; negative if this one is first.
    pub fn seconds_since(self, earlier: Self) -> i64 {
        (self.0 - earlier.0)
            .whole_nanoseconds()
            .div_euclid(1_000_000_000) as i64
    }

    /// Returns the milliseconds since the Unix epoch, rounded down.
    pub fn unix_milliseconds(self) -> i64 {
        self.0.unix_timestamp() * 1_000 + i64::from(self.0.millisecond())
    }

    /// Returns the moment this many seconds later.
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(time::Duration::seconds(seconds)))
    }

    /// Returns the moment this much later, truncated to whole milliseconds.
    pub fn plus(self, elapsed: std::time::Duration) -> Self {
        let elapsed = time::Duration::try_from(elapsed).unwrap_or(time::Duration::MAX);
        Self(self.0.saturating_add(elapsed).truncate_to_millisecond())
    }

    /// Returns the moment without its fraction of a second.
    pub fn to_whole_second(self) -> Self {
        Self(self.0.truncate_to_second())
    }

    /// Returns the calendar day in UTC.
    pub fn date(self) -> Date {
        self.0.date()
    }

    /// Returns the moment in the basic format, to the second: `20261122T060000Z`.
    pub fn compact(self) -> String {
        let (hour, minute, second) = self.0.to_hms();
        let (year, month, day) = self.0.to_calendar_date();
        let month = u8::from(month);
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }

    /// Reads the basic format that [`compact`](Self::compact) writes; `None` for any other text.
    pub fn from_compact(text: &str) -> Option<Self> {
        let (date, time) = text.split_once('T')?;
        let (year, month, day) = (date.get(..4)?, date.get(4..6)?, date.get(6..)?);
        let (hour, minute, second) = (time.get(..2)?, time.get(2..4)?, time.get(4..)?);
        let extended = format!("{year}-{month}-{day}T{hour}:{minute}:{second}");
        let moment: Self = extended.parse().ok()?;
        (moment.compact() == text).then_some(moment)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Timestamp {
    /// Writes the digits by hand: each report has two times, and the formatting machinery is slow (measured).
    fn text(self) -> String {
        let (hour, minute, second) = self.0.to_hms();
        let (year, month, day) = self.0.to_calendar_date();
        let year = year.unsigned_abs();
        let mut text = String::with_capacity("2026-10-25T13:27:12.123456700Z".len());
        text.push_str(two_digits(year / 100));
        text.push_str(two_digits(year));
        for (mark, number) in [
            ('-', u8::from(month)),
            ('-', day),
            ('T', hour),
            (':', minute),
            (':', second),
        ] {
            text.push(mark);
            text.push_str(two_digits(number.into()));
        }
        match self.0.nanosecond() {
            0 => {}
            n if n % 1_000_000 == 0 => {
                let milliseconds = n / 1_000_000;
                text.push('.');
                text.extend(char::from_digit(milliseconds / 100, 10));
                text.push_str(two_digits(milliseconds));
            }
            n => text.push_str(&format!(".{n:09}")),
        }
        text.push('Z');
        text
    }
}

/// Returns the last two digits of a number.
fn two_digits(number: u32) -> &'static str {
    const ALL: &str = "\
        0001020304050607080910111213141516171819\
        2021222324252627282930313233343536373839\
        4041424344454647484950515253545556575859\
        6061626364656667686970717273747576777879\
        8081828384858687888990919293949596979899";
    let start = number as usize % 100 * 2;
    &ALL[start..start + 2]
}

/// A text that is not a time in RFC 3339.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not an RFC 3339 time such as 2026-11-22T06:00:00Z")]
pub struct MalformedTimestamp {
    text: String,
}

impl FromStr for Timestamp {
    type Err = MalformedTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        OffsetDateTime::parse(text, &Rfc3339)
            .ok()
            .and_then(|moment| moment.checked_to_offset(UtcOffset::UTC))
            .filter(|moment| moment.year() >= 0)
            .map(Self)
            .ok_or_else(|| MalformedTimestamp {
                text: text.to_owned(),
            })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn milliseconds_are_written_with_three_digits_and_whole_seconds_with_none() {
        assert_eq!(
            at("2026-10-25T13:27:12.320Z").to_string(),
            "2026-10-25T13:27:12.320Z"
        );
        assert_eq!(
            at("2026-10-25T13:27:12.000Z").to_string(),
            "2026-10-25T13:27:12Z"
        );
        assert_eq!(
            at("2026-10-25T13:27:12.1234567Z").to_string(),
            "2026-10-25T13:27:12.123456700Z"
        );
    }

    #[test]
    fn every_moment_is_written_as_the_standard_library_would_pad_it() {
        for (year, month, day, rest) in [
            (0, 1, 1, 0),
            (9, 12, 31, 7),
            (1999, 10, 9, 99),
            (9999, 2, 28, 59),
        ] {
            let (hour, minute, second) = (rest % 24, rest % 60, 59 - rest % 60);
            for fraction in ["", ".001", ".090", ".999", ".000000001", ".123456789"] {
                let text = format!(
                    "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z"
                );
                assert_eq!(at(&text).to_string(), text);
            }
        }
    }

    #[test]
    fn an_offset_is_converted_to_utc() {
        assert_eq!(
            at("2026-11-22T07:30:00+01:30").to_string(),
            "2026-11-22T06:00:00Z"
        );
    }

    #[test]
    fn seconds_are_rounded_down_on_both_sides_of_now() {
        let now = at("2026-11-22T06:00:00Z");
        assert_eq!(at("2026-11-22T06:00:01.9Z").seconds_since(now), 1);
        assert_eq!(at("2026-11-22T05:59:58.1Z").seconds_since(now), -2);
    }

    #[test]
    fn a_date_without_a_time_is_refused_with_the_right_form_named() {
        let error = "2026-11-22".parse::<Timestamp>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`2026-11-22` is not an RFC 3339 time such as 2026-11-22T06:00:00Z"
        );
    }
}
