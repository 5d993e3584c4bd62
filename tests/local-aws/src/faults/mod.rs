//! Faults on demand: which request fails, when, and how.
//!
//! Faults are repeatable. `Nth` and `FirstN` count the requests that a fault matches.
//! `Probability` draws from its seed, from the request's operation, target and key, and from how
//! often the same request came before, so concurrent targets do not influence each other.

mod fault;
mod rules;
mod text;
mod token_bucket;

pub use fault::{Fault, FaultKind, Page, Service, When};
pub use rules::Faults;
pub(crate) use rules::{PagePosition, Ruling, Subject};
pub use text::InvalidFault;
