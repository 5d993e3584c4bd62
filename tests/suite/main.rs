//! The function against the local AWS, over the wire.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that meets something else has failed"
)]

mod accounts;
mod allocations;
mod bad_input;
mod entries;
mod faults;
mod harness;
mod hostile;
mod house;
mod lambda;
mod layers;
mod matrix;
mod real_accounts;
mod runs;
mod schemas;
mod sixty_days;
mod tries;
mod verify;
