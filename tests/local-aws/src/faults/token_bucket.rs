//! EC2's token buckets.

use std::time::Instant;

/// One of EC2's token buckets.
///
/// Source: <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>
#[derive(Debug)]
pub(super) struct TokenBucket {
    tokens: f64,
    capacity: f64,
    refill_per_second: f64,
    refilled_at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket, of EC2's sizes for actions that no other rule names.
    pub(super) fn full(mutating: bool) -> Self {
        let (capacity, refill_per_second) = if mutating { (50.0, 5.0) } else { (100.0, 20.0) };
        Self {
            tokens: capacity,
            capacity,
            refill_per_second,
            refilled_at: Instant::now(),
        }
    }

    /// Takes a token. Returns whether there was one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        self.refilled_at = now;
        self.tokens =
            (self.tokens + elapsed.as_secs_f64() * self.refill_per_second).min(self.capacity);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_allows_its_capacity_at_once_and_then_its_refill() {
        let mut bucket = TokenBucket::full(false);
        let start = bucket.refilled_at;
        assert_eq!((0..150).filter(|_| bucket.take(start)).count(), 100);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..150).filter(|_| bucket.take(later)).count(), 20);
        let much_later = later + Duration::from_secs(3600);
        assert_eq!((0..150).filter(|_| bucket.take(much_later)).count(), 100);
    }
}
