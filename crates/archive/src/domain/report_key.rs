//! What stands for a report's ID.

use sha2::{Digest, Sha256};

/// What stands for a report: the first 128 bits of its ID's SHA-256, so that nobody can make two alike.
pub type Key = [u8; 16];

/// What stands for the report of this ID.
pub fn key(report_id: &str) -> Key {
    let mut key = Key::default();
    let digest = Sha256::digest(report_id);
    key.copy_from_slice(&digest[..size_of::<Key>()]);
    key
}
