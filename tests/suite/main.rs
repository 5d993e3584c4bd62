//! The function against the local AWS, over the wire.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that meets something else has failed"
)]

mod accounts;
mod allocations;
mod changes;
mod concurrent_attempts;
mod earlier_objects;
mod entries;
mod entries_under_faults;
mod faults;
mod fuzz_corpus;
mod harness;
mod house;
mod images;
mod images_under_faults;
mod invalid_input;
mod lambda;
mod matrix;
mod organization_days;
mod pages;
mod phases;
mod phases_at_scale;
mod properties;
mod real_accounts;
mod renewal;
mod retries_and_deadline;
mod runs;
mod schemas;
mod sixty_days;
mod superseding_reports;
mod verdicts_over_sixty_days;
mod verify;
