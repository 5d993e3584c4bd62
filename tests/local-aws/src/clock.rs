//! The world's clock.

use std::sync::{Arc, Mutex, PoisonError};
use time::{Duration, OffsetDateTime, UtcOffset};

/// A clock that is fixed or runs, and can be set; clones share the same time.
///
/// Reports, page tokens and temporary credentials expire by this clock. Token buckets and
/// latencies use real time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Mutex<Pace>>);

#[derive(Clone, Copy, Debug)]
enum Pace {
    Fixed(OffsetDateTime),
    AheadOfSystem(Duration),
}

impl Clock {
    /// Creates a clock that stays at `time` until it is set or advanced.
    pub fn fixed(time: OffsetDateTime) -> Self {
        Self(Arc::new(Mutex::new(Pace::Fixed(
            time.to_offset(UtcOffset::UTC),
        ))))
    }

    /// Creates a clock with the system's time.
    pub fn system() -> Self {
        Self(Arc::new(Mutex::new(Pace::AheadOfSystem(Duration::ZERO))))
    }

    /// Creates a running clock that starts at `time`.
    pub fn system_starting_at(time: OffsetDateTime) -> Self {
        let ahead = time - OffsetDateTime::now_utc();
        Self(Arc::new(Mutex::new(Pace::AheadOfSystem(ahead))))
    }

    /// Returns the time, in UTC.
    pub fn now(&self) -> OffsetDateTime {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Pace::Fixed(time) => time,
            Pace::AheadOfSystem(ahead) => OffsetDateTime::now_utc() + ahead,
        }
    }

    /// Moves the clock forward, or backward if `by` is negative.
    pub fn advance(&self, by: Duration) {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Pace::Fixed(time) => *time += by,
            Pace::AheadOfSystem(ahead) => *ahead += by,
        }
    }

    /// Sets the clock to `time`; a running clock continues from there.
    pub fn set(&self, time: OffsetDateTime) {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Pace::Fixed(shown) => *shown = time.to_offset(UtcOffset::UTC),
            Pace::AheadOfSystem(ahead) => *ahead = time - OffsetDateTime::now_utc(),
        }
    }
}

/// Formats a time as EC2 does, in UTC with milliseconds: `2026-10-25T13:27:12.322Z`.
pub fn timestamp(time: OffsetDateTime) -> String {
    let time = time.to_offset(UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}
