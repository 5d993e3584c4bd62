//! Reads an object that a snapshot names, and checks it line by line.

use std::io;

use sha2::{Digest, Sha256};

use crate::documents::ArchivedObject;
use crate::domain::digest::hex;
use crate::layout::below_prefix;
use crate::line_reader::{LineReader, LineSink};
use crate::source::{Source, Unreadable};

/// Bad lines reported per object; the rest are only counted.
const MAX_LISTED_LINES: usize = 3;

/// An object as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Measured {
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
    pub(crate) lines: u64,
}

impl Measured {
    pub(crate) fn is(&self, named: &ArchivedObject) -> bool {
        (self.bytes, &self.sha256) == (named.bytes, &named.sha256)
    }

    /// Describes how the object differs from the one that a snapshot names.
    pub(crate) fn difference(&self, snapshot_key: &str, named: &ArchivedObject) -> String {
        let of_version = match &named.version_id {
            Some(version_id) => format!(" for its version {version_id}"),
            None => String::new(),
        };
        let (what, found, said) = match self.bytes == named.bytes {
            false => ("size", self.bytes.to_string(), named.bytes.to_string()),
            true => ("SHA-256", self.sha256.clone(), named.sha256.clone()),
        };
        format!("has the {what} {found}; {snapshot_key} states {said}{of_version}")
    }

    /// Describes how the number of lines differs from the one that a snapshot states.
    pub(crate) fn line_difference(&self, key: &str, named: &ArchivedObject) -> Option<String> {
        let (count, said) = (self.lines, named.lines);
        (count != said).then(|| format!("has {count} lines; {key} states {said}"))
    }
}

/// Checks the lines of an object, one after the other.
pub(crate) trait LineCheck {
    /// Checks a line; fails with what is wrong with it.
    fn check(&mut self, line: &[u8]) -> Result<(), String>;
}

/// An object that was read.
pub(crate) struct ReadObject<L> {
    /// `None` if there is no such object, or if it cannot be read.
    pub(crate) measured: Option<Measured>,
    /// What checked its lines; `None` unless it is the object that the snapshot names and is sound.
    pub(crate) lines: Option<L>,
    /// What is wrong with it.
    pub(crate) problems: Vec<String>,
    /// Why it cannot be read.
    pub(crate) unreadable: Option<String>,
}

impl<L> ReadObject<L> {
    fn failed(measured: Option<Measured>, problems: Vec<String>) -> Self {
        Self {
            measured,
            lines: None,
            problems,
            unreadable: None,
        }
    }
}

/// Reads an object that a snapshot names: checks that it is the same, then its lines.
///
/// The lines of an object that is not the same are not reported: nothing follows from them.
pub(crate) async fn read_object<L: LineCheck>(
    archive: &Source,
    snapshot_key: &str,
    named: &ArchivedObject,
    start: impl Fn() -> L,
) -> Result<ReadObject<L>, Unreadable> {
    let key = below_prefix(&named.key);
    let (pass, newer_version) = match find_version(archive, key, named, start).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            let problem = format!("is missing; {snapshot_key} names it");
            return Ok(ReadObject::failed(None, vec![problem]));
        }
        Err(error) => {
            return Ok(ReadObject {
                unreadable: Some(error.of_one_object()?),
                ..ReadObject::failed(None, Vec::new())
            });
        }
    };
    let mut measured = pass.measured();
    if !measured.is(named) {
        let problem = measured.difference(snapshot_key, named);
        return Ok(ReadObject::failed(Some(measured), vec![problem]));
    }
    let mut problems: Vec<String> = newer_version
        .map(|version_id| {
            format!(
                "has a newer version with other bytes than {version_id}, which {snapshot_key} names: the object was changed"
            )
        })
        .into_iter()
        .collect();
    let lines = match pass.finish() {
        Ok((count, lines)) => {
            measured.lines = count;
            problems.extend(measured.line_difference(snapshot_key, named));
            problems.extend(lines.problems());
            Some(lines.each).filter(|_| problems.is_empty())
        }
        Err(error) => {
            problems.push(format!("cannot be read as gzipped lines: {error}"));
            None
        }
    };
    Ok(ReadObject {
        lines,
        ..ReadObject::failed(Some(measured), problems)
    })
}

/// Reads the newest version of an object, or the one that a snapshot names if the newest is another.
/// Returns the ID of the named version if the newest one differs from it, although it should not.
async fn find_version<'a, L: LineCheck>(
    archive: &Source,
    key: &str,
    named: &'a ArchivedObject,
    start: impl Fn() -> L,
) -> Result<Option<(Pass<L>, Option<&'a str>)>, Unreadable> {
    let begin = || Pass::new(start());
    let newest = archive.fold(key, None, begin, Pass::push).await?;
    let Some((newest, version_id)) = newest else {
        return Ok(None);
    };
    let named_version = named.version_id.as_deref().filter(|_| version_id.is_some());
    let Some(named_version) = named_version.filter(|_| !newest.measured().is(named)) else {
        return Ok(Some((newest, None)));
    };
    let there = archive
        .fold(key, Some(named_version), begin, Pass::push)
        .await?;
    Ok(Some(match there {
        Some((there, _)) if there.measured().is(named) => (there, Some(named_version)),
        Some((there, _)) => (there, None),
        None => (newest, None),
    }))
}

/// Measures an object; `None` if there is none. Its lines are taken from what a snapshot states.
pub(crate) async fn measure(
    archive: &Source,
    key: &str,
    version_id: Option<&str>,
    lines: u64,
) -> Result<Option<Measured>, Unreadable> {
    let each = |(digest, bytes): &mut (Sha256, u64), chunk: &[u8]| {
        digest.update(chunk);
        *bytes += chunk.len() as u64;
    };
    let start = || (Sha256::new(), 0);
    let read = archive.fold(key, version_id, start, each).await?;
    Ok(read.map(|((digest, bytes), _)| Measured {
        sha256: hex(&digest.finalize()),
        bytes,
        lines,
    }))
}

/// One reading of an object: its bytes are measured and decompressed at the same time.
struct Pass<L: LineCheck> {
    digest: Sha256,
    bytes: u64,
    decoder: LineReader<CheckedLines<L>>,
    outcome: io::Result<()>,
}

impl<L: LineCheck> Pass<L> {
    fn new(each: L) -> Self {
        Self {
            digest: Sha256::new(),
            bytes: 0,
            decoder: LineReader::new(CheckedLines {
                each,
                count: 0,
                bad: Vec::new(),
                bad_count: 0,
            }),
            outcome: Ok(()),
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        self.digest.update(chunk);
        self.bytes += chunk.len() as u64;
        if self.outcome.is_ok() {
            self.outcome = self.decoder.push(chunk);
        }
    }

    fn measured(&self) -> Measured {
        Measured {
            sha256: hex(&self.digest.clone().finalize()),
            bytes: self.bytes,
            lines: 0,
        }
    }

    fn finish(self) -> io::Result<(u64, CheckedLines<L>)> {
        self.outcome?;
        self.decoder.finish()
    }
}

/// Collects what is wrong with the lines of an object.
struct CheckedLines<L> {
    each: L,
    count: u64,
    bad: Vec<String>,
    bad_count: u64,
}

impl<L> CheckedLines<L> {
    /// What is wrong with the lines: the first few, and how many more.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.bad.clone();
        match self.bad_count - problems.len() as u64 {
            0 => {}
            more => problems.push(format!("has {more} more bad lines")),
        }
        problems
    }
}

impl<L: LineCheck> LineSink for CheckedLines<L> {
    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        self.count += 1;
        if let Err(problem) = self.each.check(line) {
            self.bad_count += 1;
            if self.bad.len() < MAX_LISTED_LINES {
                self.bad.push(format!("line {} {problem}", self.count));
            }
        }
        Ok(())
    }
}
