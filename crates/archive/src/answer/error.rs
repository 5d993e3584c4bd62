//! Why there is no answer.

use crate::domain::run_id::RunId;
use crate::layout::LATEST;
use crate::source::Unreadable;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The archive cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// There is no full run.
    #[error(
        "{location} has no {LATEST}: no full run has ended there; give the bucket and its prefix, or the folder that contains v1/"
    )]
    NoRun {
        /// The location of the archive.
        location: String,
    },
    /// There is no such run.
    #[error("{location} has no run {run_id}; {newest}")]
    UnknownRun {
        /// The location of the archive.
        location: String,
        /// The run that was asked for.
        run_id: RunId,
        /// The newest runs, as a sentence.
        newest: String,
    },
    /// A snapshot is not one.
    #[error("{key} is not a snapshot")]
    NotASnapshot {
        /// Its key.
        key: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}
