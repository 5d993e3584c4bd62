//! What a run writes to the archive, and what it reads of earlier runs.

pub(crate) mod handover;
pub(crate) mod latest;
pub(crate) mod lines_writer;
pub(crate) mod pages;
pub(crate) mod previous;
pub(crate) mod snapshots;

use std::time::Duration;

use image_usage_archive::aws::{CallFailure, FailureKind};

/// The most retries of a conditional write that conflicts with another writer.
const MAX_CONFLICTS: u32 = 8;

/// The wait before such a retry, times the number of retries so far.
const CONFLICT_BACKOFF: Duration = Duration::from_millis(100);

/// Bounded retries for conditional writes that conflict with another writer.
#[derive(Default, Debug)]
struct ConflictRetries(u32);

impl ConflictRetries {
    /// Waits before another attempt. Returns the failure if another attempt would not help, or if there were
    /// enough.
    async fn wait_after(&mut self, failure: CallFailure) -> Result<(), CallFailure> {
        let is_conflict = matches!(
            failure.kind,
            FailureKind::ConditionFailed | FailureKind::Conflict
        );
        if !is_conflict || self.0 == MAX_CONFLICTS {
            return Err(failure);
        }
        self.0 += 1;
        tokio::time::sleep(CONFLICT_BACKOFF * self.0).await;
        Ok(())
    }
}
