//! When a run stops reading, stops writing, and answers.
//!
//! Reading stops in time to archive what has been read. The margin follows from what is left to write: the
//! unsent bytes of all targets under way and the snapshot, at a conservative rate, and a second for each call
//! that must follow another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::domain::error_code::ErrorCode;
use tokio::time::Instant;

use crate::archive::lines_writer::{ArchiveError, LinesWriter};

/// How long a run may take if the deadline is unknown: Lambda's maximum timeout.
const MAX_RUN: Duration = Duration::from_secs(900);

/// Time reserved for one call to S3.
const ARCHIVE_CALL: Duration = Duration::from_secs(1);

/// The calls that finish a target once reading has stopped: its earlier lines, the end of its entries, the
/// last part of its reports, and their completion; the earlier lines of its AMIs, and their new ones.
const CALLS_TO_FINISH: u32 = 6;

/// The calls after the last target: the snapshot, then reading and writing `latest.json`.
const CALLS_TO_PUBLISH: u32 = 3;

/// Time reserved for returning an error to Lambda.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A conservative upload rate for the smallest function size.
const ARCHIVE_BYTES_PER_SECOND: u32 = 2 * 1024 * 1024;

/// What one target adds to a snapshot: its ledger line, with an error.
const LEDGER_LINE_BYTES: usize = 1_100;

/// What the listed findings add to a snapshot, with a few tags each.
const LISTED_FINDINGS_BYTES: usize = 1024 * 1024;

/// At most 1/N of the run's time is reserved for archiving.
///
/// Even with a timeout of a few seconds, most of it goes into reading.
const MARGIN_SHARE: u32 = 4;

/// Another share of the time for a target's entries is at least 1/N of the run's time: the end of a share
/// costs the call that is under way.
const MAX_SHARES: u32 = 20;

/// The clock of a run, and what it still has to write; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Deadline(Arc<Clock>);

#[derive(Debug)]
struct Clock {
    started: Instant,
    time_left: Duration,
    max_concurrent_targets: usize,
    /// The targets of the run, once planned.
    targets: AtomicUsize,
    /// The targets that are not done yet.
    open_targets: AtomicUsize,
    /// The targets whose attempt has not begun.
    waiting_targets: AtomicUsize,
    /// The attempts so far.
    attempts: AtomicUsize,
    /// What targets took so far, and how much of it was for their entries.
    work_milliseconds: AtomicU64,
    entries_milliseconds: AtomicU64,
    /// What all targets under way hold and have not sent yet.
    unsent_bytes: AtomicUsize,
}

impl Deadline {
    /// Starts the clock; `time_left` is `None` if the deadline is unknown.
    pub(crate) fn starting_now(time_left: Option<Duration>, max_concurrent_targets: usize) -> Self {
        Self(Arc::new(Clock {
            started: Instant::now(),
            time_left: time_left.unwrap_or(MAX_RUN),
            max_concurrent_targets,
            targets: AtomicUsize::new(0),
            open_targets: AtomicUsize::new(0),
            waiting_targets: AtomicUsize::new(0),
            attempts: AtomicUsize::new(0),
            work_milliseconds: AtomicU64::new(0),
            entries_milliseconds: AtomicU64::new(0),
            unsent_bytes: AtomicUsize::new(0),
        }))
    }

    /// Records how many targets the run has.
    pub(crate) fn set_targets(&self, targets: usize) {
        self.0.targets.store(targets, Ordering::Relaxed);
        self.0.open_targets.store(targets, Ordering::Relaxed);
    }

    /// Records that one target is done.
    pub(crate) fn close_target(&self) {
        self.0.open_targets.fetch_sub(1, Ordering::Relaxed);
    }

    /// Reading must stop at this instant, so that what has been read can be archived.
    fn stop_reading_at(&self) -> Instant {
        let unsent = sending_time(self.0.unsent_bytes.load(Ordering::Relaxed));
        let margin = ARCHIVE_CALL * CALLS_TO_FINISH + unsent + self.publishing_time();
        self.0.started + self.0.time_left - margin.min(self.0.time_left / MARGIN_SHARE)
    }

    /// The targets' objects must be written by this instant, so that the snapshot can be.
    fn stop_writing_at(&self) -> Instant {
        let share = self.0.time_left / MARGIN_SHARE / 2;
        self.0.started + self.0.time_left - self.publishing_time().min(share)
    }

    /// After this instant, Lambda may kill the function before it has responded.
    pub(crate) fn ends_at(&self) -> Instant {
        let share = self.0.time_left / MARGIN_SHARE / 4;
        self.0.started + self.0.time_left - LAST_WORDS.min(share)
    }

    /// Records how many targets have yet to begin their attempt.
    pub(crate) fn set_waiting_targets(&self, targets: usize) {
        self.0.waiting_targets.store(targets, Ordering::Relaxed);
    }

    /// Records how long an attempt at a target took, until it was done or paused.
    pub(crate) fn record_attempt(&self, took: Duration) {
        self.0.attempts.fetch_add(1, Ordering::Relaxed);
        self.record_work(took);
    }

    /// Records how long a paused target went on.
    pub(crate) fn record_work(&self, took: Duration) {
        let total = &self.0.work_milliseconds;
        total.fetch_add(milliseconds(took), Ordering::Relaxed);
    }

    /// The time for the targets whose attempt has not begun: twice what they will take besides their entries, by
    /// the average so far.
    fn waiting_time(&self) -> Duration {
        let work = self.0.work_milliseconds.load(Ordering::Relaxed);
        let entries = self.0.entries_milliseconds.load(Ordering::Relaxed);
        let waiting = self.0.waiting_targets.load(Ordering::Relaxed);
        let rounds = waiting.div_ceil(self.0.max_concurrent_targets) as u64;
        let attempts = self.0.attempts.load(Ordering::Relaxed).max(1) as u64;
        2 * Duration::from_millis(work.saturating_sub(entries).saturating_mul(rounds) / attempts)
    }

    /// The share of the time in which a target begins to fetch its entries: the same for every target that is
    /// still open.
    pub(crate) fn first_share(&self) -> Share {
        self.share(Duration::ZERO)
    }

    /// A share of the time in which a paused target goes on.
    pub(crate) fn another_share(&self) -> Share {
        self.share(self.0.time_left / MAX_SHARES)
    }

    /// Reading a target's AMIs must stop at this instant: half of its share of the time is kept for its entries, which
    /// EC2 deletes, and AMIs can be read another day.
    pub(crate) fn stop_images_at(&self) -> Instant {
        let now = Instant::now();
        let least = self.0.time_left / MAX_SHARES;
        (now + (self.equal_share(now) / 2).max(least)).min(self.stop_reading_at())
    }

    /// The time of each open target, beginning at an instant.
    ///
    /// The time for the waiting targets is reserved for them, but never more than half of the time, so that
    /// entries get further in every run.
    fn equal_share(&self, started: Instant) -> Duration {
        let Self(clock) = self;
        let left = self.stop_reading_at().saturating_duration_since(started);
        let left = left - self.waiting_time().min(left / 2);
        let open = clock.open_targets.load(Ordering::Relaxed);
        let rounds = open.div_ceil(clock.max_concurrent_targets).max(1);
        left / u32::try_from(rounds).unwrap_or(u32::MAX)
    }

    fn share(&self, at_least: Duration) -> Share {
        Share {
            deadline: self.clone(),
            started: Instant::now(),
            at_least,
        }
    }

    /// Whether the targets that wait leave time for another share.
    pub(crate) fn has_time_for_another_share(&self) -> bool {
        let reserved = match self.waiting_time() {
            Duration::ZERO => Duration::ZERO,
            waiting => waiting + self.0.time_left / MAX_SHARES,
        };
        let left = self.stop_reading_at();
        left.saturating_duration_since(Instant::now()) > reserved
    }

    /// Whether there is time left to read.
    pub(crate) fn has_time(&self) -> bool {
        Instant::now() < self.stop_reading_at()
    }

    /// The time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// The milliseconds since the start.
    pub(crate) fn duration_ms(&self) -> u64 {
        milliseconds(self.elapsed())
    }

    fn publishing_time(&self) -> Duration {
        let targets = self.0.targets.load(Ordering::Relaxed);
        let snapshot = targets * LEDGER_LINE_BYTES + LISTED_FINDINGS_BYTES;
        ARCHIVE_CALL * CALLS_TO_PUBLISH + sending_time(snapshot)
    }

    /// Waits for a read, but not beyond the instant at which reading must stop.
    pub(crate) async fn limit_read<T>(
        &self,
        read: impl Future<Output = Result<T, CallFailure>>,
    ) -> Result<T, CallFailure> {
        match tokio::time::timeout_at(self.stop_reading_at(), read).await {
            Ok(answer) => answer,
            Err(_) => Err(deadline_exceeded()),
        }
    }

    /// Waits for a write, but not beyond the instant at which the snapshot must be written.
    pub(crate) async fn limit_write<T>(
        &self,
        write: impl Future<Output = T>,
    ) -> Result<T, CallFailure> {
        let written = tokio::time::timeout_at(self.stop_writing_at(), write).await;
        written.map_err(|_| deadline_exceeded())
    }

    /// Waits for a write that a run can do without, if there is time left for its calls.
    pub(crate) async fn limit_optional<T>(
        &self,
        calls: u32,
        write: impl Future<Output = T>,
    ) -> Result<T, CallFailure> {
        let ends_at = self.ends_at();
        if Instant::now() + ARCHIVE_CALL * calls > ends_at {
            return Err(deadline_exceeded());
        }
        let written = tokio::time::timeout_at(ends_at, write).await;
        written.map_err(|_| deadline_exceeded())
    }

    /// Uploads what a writer holds if that is a full part. Called for each line; reads the clock only for a
    /// full part.
    ///
    /// # Errors
    /// Fails as S3 does, and if the part is not sent before writing must stop.
    pub(crate) async fn send_full_part(
        &self,
        writer: &mut LinesWriter,
    ) -> Result<(), ArchiveError> {
        if !writer.has_full_part() {
            return Ok(());
        }
        match self.limit_write(writer.send_full_part()).await {
            Ok(sent) => sent,
            Err(late) => Err(writer.failed(late)),
        }
    }

    /// Registers unsent bytes with the run, for as long as the guard lives.
    pub(crate) fn unsent(&self) -> Unsent {
        Unsent {
            deadline: self.clone(),
            bytes: 0,
        }
    }
}

/// A target's share of the time, for its entries; it is used until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    deadline: Deadline,
    started: Instant,
    at_least: Duration,
}

impl Share {
    /// How long it is. It grows as other targets are done.
    pub(crate) fn time(&self) -> Duration {
        let stop_at = self.deadline.stop_reading_at();
        let left = stop_at.saturating_duration_since(self.started);
        let equal = self.deadline.equal_share(self.started);
        equal.max(self.at_least.min(left))
    }

    /// The target must pause at this instant.
    pub(crate) fn ends_at(&self) -> Instant {
        self.started + self.time()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let total = &self.deadline.0.entries_milliseconds;
        total.fetch_add(milliseconds(self.started.elapsed()), Ordering::Relaxed);
    }
}

/// Bytes that one target holds and has not sent yet.
#[derive(Debug)]
pub(crate) struct Unsent {
    deadline: Deadline,
    bytes: usize,
}

impl Unsent {
    /// Records how many there are now.
    pub(crate) fn set(&mut self, bytes: usize) {
        let total = &self.deadline.0.unsent_bytes;
        total.fetch_add(bytes, Ordering::Relaxed);
        total.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.set(0);
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn sending_time(bytes: usize) -> Duration {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Duration::from_secs(1) * bytes / ARCHIVE_BYTES_PER_SECOND
}

/// The failure of what had no time left.
pub(crate) fn deadline_exceeded() -> CallFailure {
    let message = "the run ran out of time: raise the function's timeout, or audit fewer targets";
    CallFailure::own(
        ErrorCode::DeadlineExceeded,
        message.to_owned(),
        FailureKind::Permanent,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of 1,000 seconds, 8 targets at a time, which reads for more than 990 of them.
    fn deadline(open: usize, waiting: usize) -> Deadline {
        let deadline = Deadline::starting_now(Some(Duration::from_secs(1_000)), 8);
        deadline.set_targets(open);
        deadline.set_waiting_targets(waiting);
        deadline
    }

    #[test]
    fn targets_share_the_time_that_the_waiting_ones_leave() {
        let deadline = deadline(800, 400);
        let share = deadline.first_share();
        assert_eq!(share.time().as_secs(), 9);
        // 400 attempts of 10 s, 8 at a time, take 500 s: only half of the time is reserved for them.
        deadline.record_attempt(Duration::from_secs(10));
        assert_eq!(share.time().as_secs(), 4);
        assert!(!deadline.has_time_for_another_share());
        // Now they take 125 s on average.
        for _ in 0..3 {
            deadline.record_attempt(Duration::ZERO);
        }
        assert_eq!(share.time().as_secs(), 7);
        assert!(deadline.has_time_for_another_share());
    }

    #[tokio::test]
    async fn a_write_that_a_run_can_do_without_does_not_begin_without_time() {
        let deadline = Deadline::starting_now(Some(Duration::from_millis(1_500)), 8);
        let mut has_begun = false;
        let write = async { has_begun = true };
        let failure = deadline.limit_optional(2, write).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::DeadlineExceeded.as_str());
        assert!(!has_begun);
        let deadline = Deadline::starting_now(Some(Duration::from_secs(900)), 8);
        let write = async { has_begun = true };
        deadline.limit_optional(2, write).await.unwrap();
        assert!(has_begun);
    }

    #[test]
    fn a_paused_target_goes_on_for_a_twentieth_of_the_run_or_for_what_is_left() {
        let deadline = deadline(800, 0);
        let mut share = deadline.another_share();
        assert_eq!(share.time().as_secs(), 50);
        share.started = deadline.stop_reading_at() - Duration::from_secs(20);
        assert_eq!(share.time().as_secs(), 20);
    }
}
