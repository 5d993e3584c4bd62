//! How many rows a call asks EC2 for, and what EC2 has refused in this run.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use image_usage_archive::aws::{CallFailure, FailureKind};

use crate::aws::ec2::pagination::PageCursor;

/// The page size of listings if none is configured: EC2 documents no largest one, and other describe calls end at
/// 1,000.
const DEFAULT: u32 = 1_000;

/// The page sizes of a run.
#[derive(Debug)]
pub(crate) struct PageSize {
    /// What the settings or the request ask for.
    configured: Option<u32>,
    /// The largest size that EC2 has not refused; 0 if it refuses any.
    limit: AtomicU32,
    /// Whether EC2 refuses a size beside a list of IDs.
    refused_beside_ids: AtomicBool,
}

impl PageSize {
    pub(crate) fn new(configured: Option<u32>) -> Self {
        Self {
            configured,
            limit: AtomicU32::new(u32::MAX),
            refused_beside_ids: AtomicBool::new(false),
        }
    }

    /// The size to ask for in a listing; `None` leaves it to EC2.
    pub(crate) fn of_listing(&self) -> Option<u32> {
        self.limited(self.configured.unwrap_or(DEFAULT))
    }

    /// The size to ask for beside a list of IDs, which EC2 may refuse: only a configured one.
    pub(crate) fn beside_ids(&self) -> Option<u32> {
        let is_refused = self.refused_beside_ids.load(Ordering::Relaxed);
        self.limited(self.configured.filter(|_| !is_refused)?)
    }

    fn limited(&self, size: u32) -> Option<u32> {
        let size = size.min(self.limit.load(Ordering::Relaxed));
        (size > 0).then_some(size)
    }

    /// Restarts a listing if that can fix the failure, and remembers what EC2 has refused.
    pub(crate) fn restart(&self, cursor: &mut PageCursor, failure: &CallFailure) -> bool {
        let restarts = cursor.restart_after(failure);
        if restarts {
            self.remember(failure, cursor.max_results());
        }
        restarts
    }

    /// `next` is the size that is tried after the refused one.
    fn remember(&self, failure: &CallFailure, next: Option<u32>) {
        match failure.kind {
            FailureKind::PageSizeRefused => {
                self.limit.fetch_min(next.unwrap_or(0), Ordering::Relaxed);
            }
            FailureKind::PageSizeBesideIds => {
                self.refused_beside_ids.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &str, kind: FailureKind) -> CallFailure {
        CallFailure {
            code: code.to_owned(),
            message: "any wording".to_owned(),
            request_id: None,
            kind,
        }
    }

    #[test]
    fn what_ec2_refused_is_not_sent_again_in_the_run() {
        let size = PageSize::new(None);
        assert_eq!((size.of_listing(), size.beside_ids()), (Some(1_000), None));
        let too_large = refusal("InvalidParameterValue", FailureKind::PageSizeRefused);
        size.remember(&too_large, Some(500));
        assert_eq!(size.of_listing(), Some(500));
        size.remember(&too_large, None);
        assert_eq!(size.of_listing(), None);

        let size = PageSize::new(Some(50));
        assert_eq!(size.beside_ids(), Some(50));
        let combined = refusal(
            "InvalidParameterCombination",
            FailureKind::PageSizeBesideIds,
        );
        size.remember(&combined, None);
        assert_eq!((size.of_listing(), size.beside_ids()), (Some(50), None));
    }
}
