//! What a run's lines say all together: its findings, and the contents of its page.
//!
//! Only the objects that the run itself has written count: the numbers agree with those of its snapshot.

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;

use super::{CONCURRENT_TARGETS, NoAnswer, Run, Selection};
use crate::documents::PageContents;
use crate::documents::{ArchivedLine, ArchivedObject, ImageLine, LedgerLine, Snapshot};
use crate::domain::findings::Finding;
use crate::domain::target::Target;
use crate::domain::timestamp::Timestamp;
use crate::named_object::{LineCheck, read_object};
use crate::source::{Source, Unreadable};

/// What was read of a run's lines, and what could not be.
#[derive(Debug)]
pub struct FromLines<T> {
    /// What they say.
    pub said: T,
    /// The objects that are missing, damaged or unreadable, each with what is wrong: they may say more.
    pub problems: Vec<String>,
}

/// What collects the lines of a run.
trait Gather {
    fn add_report(&mut self, target: &Target, line: ArchivedLine);
    fn add_image(&mut self, line: &ImageLine);
    fn add_all(&mut self, other: Self);
}

impl Run {
    /// Reads every finding of the run: more than its snapshot may list, in the same order.
    ///
    /// # Errors
    /// Fails if the archive as a whole cannot be read.
    pub async fn findings(
        &self,
        archive: &Source,
        selection: &Selection,
    ) -> Result<FromLines<Vec<Finding>>, NoAnswer> {
        let start = || Findings {
            snapshot: &self.snapshot,
            found: Vec::new(),
        };
        let FromLines { said, problems } = self.gather(archive, selection, start).await?;
        let mut said = said.found;
        said.sort();
        Ok(FromLines { said, problems })
    }

    /// Reads what a page shows of the run's lines, in bounded memory.
    ///
    /// # Errors
    /// Fails if the archive as a whole cannot be read.
    pub async fn page_contents(
        &self,
        archive: &Source,
    ) -> Result<FromLines<PageContents>, NoAnswer> {
        let Snapshot {
            started_at, policy, ..
        } = &self.snapshot;
        let start = || PageContents::new(*started_at, policy.clone());
        Ok(self.gather(archive, &Selection::default(), start).await?)
    }

    async fn gather<G: Gather>(
        &self,
        archive: &Source,
        selection: &Selection,
        start: impl Fn() -> G + Copy,
    ) -> Result<FromLines<G>, Unreadable> {
        let targets = self.snapshot.targets.iter();
        let read = stream::iter(targets.filter(|line| selection.has(line)))
            .map(|line| self.gather_target(archive, line, start))
            .buffered(CONCURRENT_TARGETS);
        let all = FromLines {
            said: start(),
            problems: Vec::new(),
        };
        let add = |mut all: FromLines<G>, of_target: FromLines<G>| async {
            all.said.add_all(of_target.said);
            all.problems.extend(of_target.problems);
            Ok(all)
        };
        read.try_fold(all, add).await
    }

    async fn gather_target<G: Gather>(
        &self,
        archive: &Source,
        line: &LedgerLine,
        start: impl Fn() -> G,
    ) -> Result<FromLines<G>, Unreadable> {
        let target = line.target();
        let mut of_target = FromLines {
            said: start(),
            problems: Vec::new(),
        };
        let report = |gathered: &mut G, line| gathered.add_report(&target, line);
        let reports = line.object.as_ref();
        self.gather_object(archive, reports, &start, report, &mut of_target)
            .await?;
        let image = |gathered: &mut G, line| gathered.add_image(&line);
        let images = line.images.as_ref();
        let images = images.and_then(|images| images.images_object.as_ref());
        self.gather_object(archive, images, &start, image, &mut of_target)
            .await?;
        Ok(of_target)
    }

    /// Adds the lines of an object, unless it is not the one that the snapshot names.
    async fn gather_object<G: Gather, L: DeserializeOwned>(
        &self,
        archive: &Source,
        object: Option<&ArchivedObject>,
        start: impl Fn() -> G,
        add: impl Fn(&mut G, L) + Copy,
        of_target: &mut FromLines<G>,
    ) -> Result<(), Unreadable> {
        let Some(object) = object else {
            return Ok(());
        };
        let start = || EachLine {
            gathered: start(),
            add: |gathered: &mut G, line: &[u8]| {
                let line = serde_json::from_slice(line);
                let line = line.map_err(|error| format!("is not as it should be: {error}"))?;
                add(gathered, line);
                Ok(())
            },
        };
        let read = read_object(archive, &self.key, object, start).await?;
        let problems = read.unreadable.into_iter().chain(read.problems);
        let problems = problems.map(|what| format!("{} {what}", object.key));
        of_target.problems.extend(problems);
        if let Some(lines) = read.lines {
            of_target.said.add_all(lines.gathered);
        }
        Ok(())
    }
}

/// Adds each line of an object to what is gathered.
struct EachLine<G, A> {
    gathered: G,
    add: A,
}

impl<G, A: Fn(&mut G, &[u8]) -> Result<(), String>> LineCheck for EachLine<G, A> {
    fn check(&mut self, line: &[u8]) -> Result<(), String> {
        (self.add)(&mut self.gathered, line)
    }
}

/// The findings of a run.
struct Findings<'a> {
    snapshot: &'a Snapshot,
    found: Vec<Finding>,
}

impl Gather for Findings<'_> {
    fn add_report(&mut self, target: &Target, line: ArchivedLine) {
        let ArchivedLine {
            report,
            findings,
            entries,
        } = line;
        let Snapshot {
            policy, started_at, ..
        } = self.snapshot;
        let found = |kind| Finding::new(kind, target, &report, &entries, policy, *started_at);
        self.found.extend(findings.iter().map(found));
    }

    fn add_image(&mut self, line: &ImageLine) {
        let Snapshot {
            policy, started_at, ..
        } = self.snapshot;
        self.found.extend(line.uncovered(policy, *started_at));
    }

    fn add_all(&mut self, other: Self) {
        self.found.extend(other.found);
    }
}

impl Gather for PageContents {
    fn add_report(&mut self, _target: &Target, line: ArchivedLine) {
        let expiration = line.report.expiration_time;
        self.add_report(expiration.map(Timestamp::unix_milliseconds), &line.entries);
    }

    fn add_image(&mut self, line: &ImageLine) {
        self.add_image(line);
    }

    fn add_all(&mut self, other: Self) {
        *self += other;
    }
}
