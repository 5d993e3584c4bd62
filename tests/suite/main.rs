//! The function against the local AWS, over the wire.

mod bad_input;
mod faults;
mod harness;
mod lambda;
mod runs;
