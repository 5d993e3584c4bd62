//! The archive of EC2 image usage reports: its rules, its documents, how to read it and how to check it.

pub mod aws;
pub mod documents;
pub mod domain;
pub mod layout;
pub mod line_reader;
pub mod source;
pub mod verify;
