//! Recurring values as small numbers.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::num::NonZeroU16;

/// Interns recurring values as small integers.
#[derive(Debug)]
pub(super) struct Interner<T> {
    numbers: HashMap<T, NonZeroU16>,
    values: Vec<T>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            values: Vec::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Interner<T> {
    /// The number that stands for a value.
    pub(super) fn number(&mut self, value: &T) -> io::Result<NonZeroU16> {
        if let Some(number) = self.numbers.get(value) {
            return Ok(*number);
        }
        let number = u16::try_from(self.values.len() + 1).ok();
        let number = number
            .and_then(NonZeroU16::new)
            .ok_or_else(|| io::Error::other("more than 65,535 different values in one target"))?;
        self.numbers.insert(value.clone(), number);
        self.values.push(value.clone());
        Ok(number)
    }

    /// The value that a number stands for.
    pub(super) fn get(&self, number: NonZeroU16) -> &T {
        &self.values[usize::from(number.get()) - 1]
    }

    /// Every value, in the order of the numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }
}
