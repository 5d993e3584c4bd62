//! The lists of a snapshot: bounded, sorted, and the same whatever the order in which things came.

use std::collections::BinaryHeap;
use std::ops::AddAssign;

/// How many of its kind a snapshot lists; the rest is counted.
///
/// A finding is well below 1 KiB for ordinary tags, so that a list stays below 1 MiB of a snapshot that a
/// person can still open.
pub const MAX_LISTED: usize = 1_000;

/// The first of some things in their order, at most [`MAX_LISTED`].
///
/// Which ones are kept depends only on the things, never on the order in which they came.
#[derive(Clone, Debug)]
pub struct TopList<T>(BinaryHeap<T>);

impl<T: Ord> Default for TopList<T> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<T: Ord> TopList<T> {
    /// Takes one in, and lets the last one go where the list is full.
    pub fn insert(&mut self, one: T) {
        self.0.push(one);
        if self.0.len() > MAX_LISTED {
            self.0.pop();
        }
    }

    /// The last one that is kept, where whatever comes after it is not; `None` while there is room.
    pub fn last_if_full(&self) -> Option<&T> {
        self.0.peek().filter(|_| self.0.len() >= MAX_LISTED)
    }

    /// What is kept, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    /// Changes what is kept; its order must stay.
    pub fn update(&mut self, change: impl FnMut(&mut T)) {
        let mut kept = std::mem::take(&mut self.0).into_vec();
        kept.iter_mut().for_each(change);
        self.0 = kept.into();
    }

    /// What is kept, in order.
    pub fn into_sorted_vec(self) -> Vec<T> {
        self.0.into_sorted_vec()
    }
}

impl<T: Ord> AddAssign for TopList<T> {
    fn add_assign(&mut self, other: Self) {
        other.0.into_iter().for_each(|one| self.insert(one));
    }
}
