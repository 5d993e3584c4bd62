//! The command line, run as a user runs it.

#![expect(clippy::unwrap_used, reason = "a test that fails should say where")]

mod archive;
mod s3;
mod verify;
