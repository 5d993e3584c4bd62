//! The command line, run as a user runs it.

#![expect(clippy::unwrap_used, reason = "a test that fails should say where")]

mod archive;
mod images_of_runs;
mod pages_and_findings;
mod plan;
mod s3;
mod verify;
mod verify_images;
mod who;
