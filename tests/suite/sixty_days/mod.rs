//! Sixty days of an account with 500 AMIs: nothing that EC2 deletes is lost, no entries are fetched twice,
//! the changes add up, and every change to the archive is found.

mod plan;
mod replay;
mod simulation;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration as Wait;

use image_usage_archive::source::Source;
use image_usage_archive::verify::{Options, Verdict, verify};
use local_aws::{Fault, FaultKind, LocalAws, When};
use time::{Duration, OffsetDateTime};

use self::plan::{DAYS, first_day};
use self::replay::check_replay;
use self::simulation::Simulation;
use crate::harness::{Archive, LISTING, Random, count_calls, event_at};
use crate::verify::Tampering;

/// Verifies an archive.
async fn fresh_verdict(folder: &Path) -> Verdict {
    let archive = Source::Folder(folder.to_owned());
    verify(&archive, &Options::default()).await.unwrap()
}

/// Changes one byte of the archive at a time, at random, and verifies it each time.
async fn check_tampering(folder: &Path, runs: usize, changes: usize) {
    let verdict = fresh_verdict(folder).await;
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.snapshots.len(), runs);
    let objects = Archive::in_folder(folder).objects();
    let total: usize = objects.values().map(Vec::len).sum();
    let mut random = Random::new(changes as u64);
    let mut places: Vec<usize> = (0..changes)
        .map(|_| random.below(total as u64) as usize)
        .collect();
    places.sort_unstable();
    let mut places = places.into_iter().peekable();
    let mut tampering = Tampering::of(folder).await;
    let (mut start, mut unnoticed) = (0, Vec::new());
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, sound) in &objects {
        while let Some(place) = places.next_if(|place| *place < start + sound.len()) {
            let mut harmed = sound.clone();
            harmed[place - start] ^= 1 + random.below(255) as u8;
            let verdict = tampering.verdict_with(key, &harmed).await;
            if verdict.is_clean() {
                unnoticed.push((key, place - start));
            }
            let count = kinds.entry(key.split('/').nth(1).unwrap()).or_default();
            *count += 1;
            if *count == 1 {
                check_fresh_verdict(folder, key, &harmed, &verdict).await;
            }
        }
        start += sound.len();
    }
    assert!(fresh_verdict(folder).await.is_clean());
    let found = changes - unnoticed.len();
    println!("found {found} of {changes} changed bytes, in {kinds:?} of {total} bytes");
    assert_eq!(kinds.values().sum::<usize>(), changes);
    assert!(unnoticed.is_empty(), "not found: {unnoticed:?}");
    assert_eq!(kinds.len(), 5, "not in every kind of object: {kinds:?}");
}

/// Checks that a verdict on a damaged object is the same if the whole archive is read again.
async fn check_fresh_verdict(folder: &Path, key: &str, harmed: &[u8], verdict: &Verdict) {
    let path = folder.join(key);
    let sound = fs::read(&path).unwrap();
    fs::write(&path, harmed).unwrap();
    let fresh = fresh_verdict(folder).await;
    fs::write(&path, sound).unwrap();
    assert_eq!(fresh.problems, verdict.problems, "{key}");
}

#[tokio::test]
async fn in_sixty_days_nothing_is_lost_or_fetched_twice_and_the_changes_add_up() {
    let mut simulation = Simulation::new().await;
    let (mut calls, mut least, mut lists) = (0, 0, 0);
    for day in 0..DAYS {
        let (of_day, least_of_day) = simulation
            .quiet_day(first_day() + Duration::days(day))
            .await;
        calls += of_day;
        least += least_of_day;
        lists += count_calls(&simulation.aws, LISTING);
        // Every new report is fetched on its first day.
        let snapshot = simulation.snapshots.last().unwrap();
        assert_eq!(snapshot["status"], "complete");
        assert_eq!(snapshot["counts"]["findings"]["unarchived"], 0);
    }
    let (count, gone) = simulation.check_entries();
    simulation.check_age();
    println!(
        "{count} reports archived, {gone} of them gone from EC2; {calls} calls for entries, at least {least} needed; {lists} calls for reports"
    );
    assert!(count > 5_000 && gone > 3_000, "{count} {gone}");
    assert!(calls * 100 <= least * 105, "{calls} calls, {least} needed");
    check_replay(&Archive::of(&simulation.aws), &simulation.snapshots);
    check_tampering(
        &simulation.archive_folder(),
        simulation.snapshots.len(),
        1_000,
    )
    .await;
}

/// Lets one call in twenty fail, at times several in a row.
fn add_faults(aws: &LocalAws) {
    let kinds = [
        FaultKind::Status500,
        FaultKind::Throttle,
        FaultKind::CloseBeforeAnswer,
        FaultKind::Status503,
        FaultKind::CutBody,
    ];
    let p = 0.05 / kinds.len() as f64;
    for (seed, kind) in (1..).zip(kinds) {
        let fault = Fault::new(kind).when(When::Probability { p, seed });
        aws.faults().add(fault);
    }
}

impl Simulation {
    /// A day on which the first attempt may be killed after some calls, and the second too. As with Lambda's
    /// retries, the next one starts a minute later, and then two. Returns how many were killed.
    async fn rough_day(&mut self, time: OffsetDateTime, random: &mut Random) -> usize {
        self.set_clock(time);
        let event = event_at(time);
        let mut available = self.available();
        let mut killed = 0;
        for wait in [1, 2, 0] {
            // One run in ten is killed.
            let killed_after = match (random.below(10), wait) {
                (0, 1..) => 1 + random.below(16) as usize,
                _ => usize::MAX,
            };
            self.aws.clear_calls();
            let summary = tokio::select! {
                summary = self.attempt(&event) => summary,
                () = after_calls(&self.aws, killed_after) => {
                    killed += 1;
                    None
                }
            };
            if let Some(summary) = summary {
                self.record(&summary, available);
                break;
            }
            self.set_clock(self.world.clock().now() + Duration::minutes(wait));
            let now = self.available();
            available.retain(|id, _| now.contains_key(id));
        }
        killed
    }
}

async fn after_calls(aws: &LocalAws, calls: usize) {
    loop {
        if aws.calls().len() >= calls {
            return;
        }
        tokio::time::sleep(Wait::from_millis(1)).await;
    }
}

#[tokio::test]
async fn with_a_twentieth_of_all_calls_failing_and_a_tenth_of_all_runs_killed_the_results_are_the_same()
 {
    let mut simulation = Simulation::new().await;
    add_faults(&simulation.aws);
    let mut random = Random::new(600);
    let mut killed = 0;
    for day in 0..DAYS {
        let time = first_day() + Duration::days(day);
        killed += simulation.rough_day(time, &mut random).await;
    }
    let failed = simulation.aws.faults().injected();
    simulation.aws.faults().clear();
    // A run without faults fetches what the last one may have missed.
    simulation
        .quiet_day(first_day() + Duration::days(DAYS))
        .await;
    let (count, gone) = simulation.check_entries();
    simulation.check_age();
    println!(
        "{count} reports archived, {gone} of them gone from EC2; {failed} calls failed, {killed} attempts were killed"
    );
    assert!(count > 5_000 && gone > 3_000, "{count} {gone}");
    assert!(killed >= 3, "{killed}");
    assert!(failed >= 20, "{failed}");
    check_replay(&Archive::of(&simulation.aws), &simulation.snapshots);
    let verdict = fresh_verdict(&simulation.archive_folder()).await;
    assert!(verdict.is_clean(), "{verdict}");
}
