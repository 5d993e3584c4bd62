//! When the reports of a run expire, by day.

use std::ops::AddAssign;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::entries_status::EntriesStatus;
use crate::domain::timestamp::{SECONDS_PER_DAY, Timestamp};

/// The days of the chart: the day of the run, and 30 more. EC2 keeps a report for about 30 days.
pub(crate) const DAYS: usize = 31;

const MILLISECONDS_PER_DAY: i64 = SECONDS_PER_DAY * 1000;

/// The reports of a run by when they expire.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Expirations {
    started_at: Timestamp,
    pub(crate) days: [OfDay; DAYS],
    /// Those whose expiration has passed.
    pub(crate) expired: u64,
    /// Those that expire after the last day.
    pub(crate) later: u64,
    /// Those without an expiration time.
    pub(crate) undated: u64,
}

/// The reports that expire on one day.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct OfDay {
    /// Those whose entries are archived, or that have none.
    pub(crate) kept: u64,
    /// Those whose entries would be lost by now.
    pub(crate) not_archived: u64,
}

impl OfDay {
    pub(crate) fn total(self) -> u64 {
        self.kept + self.not_archived
    }
}

impl Expirations {
    pub(crate) fn after(started_at: Timestamp) -> Self {
        Self {
            started_at,
            days: [OfDay::default(); DAYS],
            expired: 0,
            later: 0,
            undated: 0,
        }
    }

    /// Adds a report by its expiration, in milliseconds since 1970.
    pub(crate) fn add(&mut self, expiration_milliseconds: Option<i64>, entries: &EntriesStatus) {
        let Some(expiration) = expiration_milliseconds else {
            self.undated += 1;
            return;
        };
        let started_at = self.started_at.unix_milliseconds();
        if expiration <= started_at {
            self.expired += 1;
            return;
        }
        let day = |milliseconds: i64| milliseconds.div_euclid(MILLISECONDS_PER_DAY);
        let days = usize::try_from(day(expiration) - day(started_at));
        match days.ok().and_then(|days| self.days.get_mut(days)) {
            None => self.later += 1,
            Some(of_day) => {
                *match entries {
                    EntriesStatus::Archived { .. } | EntriesStatus::NotAvailable => {
                        &mut of_day.kept
                    }
                    EntriesStatus::Pending { .. } | EntriesStatus::Failed { .. } => {
                        &mut of_day.not_archived
                    }
                } += 1;
            }
        }
    }

    /// The date of a day of the chart.
    pub(crate) fn date(&self, day: usize) -> String {
        let seconds = SECONDS_PER_DAY.saturating_mul(i64::try_from(day).unwrap_or(i64::MAX));
        self.started_at.plus_seconds(seconds).date().to_string()
    }
}

impl AddAssign for Expirations {
    fn add_assign(&mut self, other: Self) {
        for (of_day, others) in self.days.iter_mut().zip(other.days) {
            of_day.kept += others.kept;
            of_day.not_archived += others.not_archived;
        }
        self.expired += other.expired;
        self.later += other.later;
        self.undated += other.undated;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_on_the_utc_day_of_its_expiration() {
        let started_at: Timestamp = "2026-11-22T06:00:00Z".parse().unwrap();
        let mut expirations = Expirations::after(started_at);
        let archived = EntriesStatus::NotAvailable;
        for time in [
            "2026-11-22T06:00:00Z",
            "2026-11-22T06:00:00.001Z",
            "2026-11-22T23:59:59Z",
            "2026-11-23T00:00:00Z",
            "2026-12-22T23:59:59Z",
            "2026-12-23T00:00:00Z",
        ] {
            let time: Timestamp = time.parse().unwrap();
            expirations.add(Some(time.unix_milliseconds()), &archived);
        }
        expirations.add(None, &archived);
        let days = expirations.days.map(OfDay::total);
        assert_eq!((days[0], days[1], days[30]), (2, 1, 1));
        let Expirations {
            expired,
            later,
            undated,
            ..
        } = expirations;
        assert_eq!((expired, later, undated), (1, 1, 1));
        assert_eq!(expirations.date(0), "2026-11-22");
        assert_eq!(expirations.date(30), "2026-12-22");
    }
}
