//! The clock that reports age by.

use std::sync::{Arc, Mutex, PoisonError};
use time::{Duration, OffsetDateTime, UtcOffset};

/// A clock that can stand still, run, and be set; clones share the same time.
///
/// Reports, page tokens and temporary credentials age by this clock. Token buckets and latencies
/// do not: they are about real time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Mutex<Pace>>);

#[derive(Clone, Copy, Debug)]
enum Pace {
    Fixed(OffsetDateTime),
    AheadOfSystem(Duration),
}

impl Clock {
    /// Makes a clock that stands at `time` until it is set or advanced.
    pub fn fixed(time: OffsetDateTime) -> Self {
        Self(Arc::new(Mutex::new(Pace::Fixed(
            time.to_offset(UtcOffset::UTC),
        ))))
    }

    /// Makes a clock that shows the system's time.
    pub fn system() -> Self {
        Self(Arc::new(Mutex::new(Pace::AheadOfSystem(Duration::ZERO))))
    }

    /// Makes a clock that shows `time` now and runs on from there.
    pub fn system_starting_at(time: OffsetDateTime) -> Self {
        let ahead = time - OffsetDateTime::now_utc();
        Self(Arc::new(Mutex::new(Pace::AheadOfSystem(ahead))))
    }

    /// Reads the clock, in UTC.
    pub fn now(&self) -> OffsetDateTime {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Pace::Fixed(time) => time,
            Pace::AheadOfSystem(ahead) => OffsetDateTime::now_utc() + ahead,
        }
    }

    /// Moves the clock forward (backward when `by` is negative).
    pub fn advance(&self, by: Duration) {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Pace::Fixed(time) => *time += by,
            Pace::AheadOfSystem(ahead) => *ahead += by,
        }
    }

    /// Sets the clock to `time`; one that runs goes on running from there.
    pub fn set(&self, time: OffsetDateTime) {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Pace::Fixed(shown) => *shown = time.to_offset(UtcOffset::UTC),
            Pace::AheadOfSystem(ahead) => *ahead = time - OffsetDateTime::now_utc(),
        }
    }
}

/// Writes a time as EC2 does, in UTC with milliseconds: `2026-10-25T13:27:12.322Z`.
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
