//! A fixed-size name for a report.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Identifies a report: the first 128 bits of the SHA-256 of its ID, so collisions cannot be forged.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize,
)]
pub struct ReportKey(pub [u8; 16]);

impl ReportKey {
    /// Returns the key of the report with this ID.
    pub fn of(report_id: impl AsRef<[u8]>) -> Self {
        let digest = Sha256::digest(report_id);
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }
}
