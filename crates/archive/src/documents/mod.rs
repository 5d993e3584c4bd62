//! The documents of the archive.

pub mod changes;
pub mod snapshot;
