//! Checks that full runs are not further apart than expected.

use super::problem::Problem;
use super::survey::Survey;
use crate::domain::timestamp::Timestamp;

/// A run is missing between two that are further apart than this many halves of the interval.
const GAP_HALVES: i64 = 3;

/// The gaps in the schedule: notes, or problems if the interval was given.
#[derive(Default)]
pub(super) struct Gaps {
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<String>,
}

/// Without a given interval, the median one is taken.
pub(super) fn check(survey: &Survey, every_hours: Option<u32>) -> Gaps {
    let mut gaps = Gaps::default();
    let mut moments: Vec<(Timestamp, &String)> = survey
        .full()
        .map(|(key, outline)| (outline.scheduled_at, key))
        .collect();
    moments.sort();
    let distance = |pair: &[(Timestamp, &String)]| pair[1].0.seconds_since(pair[0].0);
    let distances = moments.windows(2).map(distance);
    let mut distances: Vec<i64> = distances.filter(|&distance| distance > 0).collect();
    distances.sort_unstable();
    let given = every_hours.map(|hours| i64::from(hours) * 3_600);
    let median = distances.get(distances.len() / 2).copied();
    let Some(interval) = given.or(median) else {
        return gaps;
    };
    let hours = |seconds: i64| format!("{}.{} hours", seconds / 3_600, seconds % 3_600 / 360);
    for pair in moments.windows(2) {
        let seconds = distance(pair);
        if seconds.saturating_mul(2) <= interval.saturating_mul(GAP_HALVES) {
            continue;
        }
        let (from, to) = (pair[0].0, pair[1].0);
        let gap = format!("no run from {from} to {to}: {}", hours(seconds));
        match given {
            Some(_) => {
                let what = format!("follows a gap: {gap}");
                gaps.problems.push(Problem::new(pair[1].1, what));
            }
            None => {
                let median = hours(interval);
                gaps.notes
                    .push(format!("{gap}; the median interval is {median}"));
            }
        }
    }
    gaps
}
