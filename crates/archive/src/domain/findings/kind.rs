//! The kinds of findings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// The kinds of findings, most urgent first.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The report is available and about to expire, and its entries are not archived.
    Unarchived,
    /// EC2 failed to create the report.
    Failed,
    /// Its expiration time has passed.
    Expired,
    /// It expires within the window.
    Expiring,
    /// It has been pending for the limit or longer.
    Stuck,
    /// No report that could show any use of an AMI is recent, or on its way. About the AMI, not about a report.
    Uncovered,
    /// Its state is missing or unknown to this version.
    UnrecognisedState,
    /// It has no expiration time.
    Undated,
}

impl FindingKind {
    /// Every kind, most urgent first.
    pub const ALL: [Self; 8] = [
        Self::Unarchived,
        Self::Failed,
        Self::Expired,
        Self::Expiring,
        Self::Stuck,
        Self::Uncovered,
        Self::UnrecognisedState,
        Self::Undated,
    ];

    /// Returns the word that is written in the archive.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unarchived => "unarchived",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Expiring => "expiring",
            Self::Stuck => "stuck",
            Self::Uncovered => "uncovered",
            Self::UnrecognisedState => "unrecognised_state",
            Self::Undated => "undated",
        }
    }
}

/// The kinds of findings of one report. Written as a list, most urgent first; `uncovered` is never among them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, JsonSchema)]
#[serde(from = "Vec<FindingKind>")]
#[schemars(with = "Vec<FindingKind>")]
pub struct FindingSet(u8);

impl Serialize for FindingSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl From<Vec<FindingKind>> for FindingSet {
    fn from(kinds: Vec<FindingKind>) -> Self {
        kinds.into_iter().collect()
    }
}

impl FindingSet {
    /// Makes a set of what [`bits`](Self::bits) returned.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns the set as a number, for use within this process.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Adds a kind.
    pub fn insert(&mut self, kind: FindingKind) {
        self.0 |= 1 << kind as u8;
    }

    /// Returns whether the set contains the kind.
    pub fn contains(self, kind: FindingKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the kinds, most urgent first.
    pub fn iter(self) -> impl Iterator<Item = FindingKind> {
        FindingKind::ALL
            .into_iter()
            .filter(move |kind| self.contains(*kind))
    }
}

impl FromIterator<FindingKind> for FindingSet {
    fn from_iter<I: IntoIterator<Item = FindingKind>>(kinds: I) -> Self {
        let mut set = Self::default();
        kinds.into_iter().for_each(|kind| set.insert(kind));
        set
    }
}
