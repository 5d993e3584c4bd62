//! The bounded, sorted lists of a snapshot or a page; their content does not depend on insertion order.

use std::borrow::Cow;
use std::collections::BinaryHeap;
use std::ops::AddAssign;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many items a list of a snapshot has at most; the rest are only counted.
///
/// A finding with ordinary tags is well below 1 KiB, so a list stays below 1 MiB, and an editor still opens
/// the snapshot.
pub const MAX_LISTED: usize = 1_000;

/// The first items in their order, at most `N`.
#[derive(Clone, Debug)]
pub struct TopList<T, const N: usize = MAX_LISTED>(BinaryHeap<T>);

impl<T: Ord, const N: usize> Default for TopList<T, N> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<T: Ord, const N: usize> TopList<T, N> {
    /// Inserts an item and, if the list is full, drops the last one.
    pub fn insert(&mut self, one: T) {
        self.0.push(one);
        if self.0.len() > N {
            self.0.pop();
        }
    }

    /// Returns the last item of a full list: items after it are dropped. `None` while the list has room.
    pub fn last_if_full(&self) -> Option<&T> {
        self.0.peek().filter(|_| self.0.len() >= N)
    }

    /// Returns the items, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    /// Changes the items; their order must not change.
    pub fn update(&mut self, change: impl FnMut(&mut T)) {
        let mut kept = std::mem::take(&mut self.0).into_vec();
        kept.iter_mut().for_each(change);
        self.0 = kept.into();
    }

    /// Returns the items, in order.
    pub fn into_sorted_vec(self) -> Vec<T> {
        self.0.into_sorted_vec()
    }
}

impl<T: Ord, const N: usize> AddAssign for TopList<T, N> {
    fn add_assign(&mut self, other: Self) {
        other.0.into_iter().for_each(|one| self.insert(one));
    }
}

/// A list of its items, in order.
impl<T: Ord + Serialize, const N: usize> Serialize for TopList<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sorted: Vec<&T> = self.iter().collect();
        sorted.sort();
        sorted.serialize(serializer)
    }
}

impl<'de, T: Ord + Deserialize<'de>, const N: usize> Deserialize<'de> for TopList<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut list = Self::default();
        let items: Vec<T> = Deserialize::deserialize(deserializer)?;
        items.into_iter().for_each(|one| list.insert(one));
        Ok(list)
    }
}

impl<T: JsonSchema, const N: usize> JsonSchema for TopList<T, N> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Vec::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<T>::json_schema(generator)
    }
}
