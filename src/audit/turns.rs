//! Turns for other tasks: long loops yield regularly, because a small function has one thread for all targets.

/// How many reports are handled in a row before other tasks get their turn: a millisecond.
const REPORTS_PER_TURN: usize = 200;

/// Counts the rounds of a loop.
#[derive(Default, Debug)]
pub(super) struct Turns(usize);

impl Turns {
    /// Counts one round, and lets other tasks run from time to time.
    pub(super) async fn count(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(REPORTS_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
}
