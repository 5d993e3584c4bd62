//! What a run writes to the archive, and reads of earlier runs.

pub mod lines_writer;
pub(crate) mod previous;
pub(crate) mod read_back;
pub mod snapshots;
