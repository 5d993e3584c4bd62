//! Merges the lines of the run before with the facts of this one, AMI by AMI.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use image_usage_archive::aws::CallFailure;
use image_usage_archive::documents::PageContents;
use image_usage_archive::documents::{
    ChangeTally, ImageCounts, ImageFields, ImageLine, ImageReading, ImagesLedger, References,
};
use image_usage_archive::domain::findings::{ListedFindings, UsagePolicy};
use image_usage_archive::domain::report::ReportState;
use image_usage_archive::domain::target::Target;
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::domain::usage::{
    ConsumerKey, Coverage, CoverageRules, ImageUsage, ReferencesLook, ReportLook, ReportsListed,
    Verdict,
};

use super::ArchivedImages;
use super::references::ReferenceChecker;
use crate::archive::lines_writer::{ArchiveError, LinesWriter};
use crate::archive::previous::{EarlierLines, local_storage, malformed_line};
use crate::audit::run::Run;
use crate::audit::turns::Turns;
use crate::aws::ec2::MAX_IMAGES_PER_CALL;
use crate::staging::{ConsumerFact, FactNames, ImageFact, ListedReport, SortedFacts};
use image_usage_archive::renewal_plan::RenewalPlan;

/// How many lines wait for a check of references: with 1,000 consumers each, 20 MB.
const MAX_WAITING: usize = 100;

/// What holds for all AMIs of a target.
#[derive(Clone, Copy)]
pub(super) struct RunLook<'a> {
    pub(super) policy: &'a UsagePolicy,
    pub(super) is_target_read: bool,
    pub(super) are_images_read: bool,
    /// Whether the lines show the AMIs that were read.
    pub(super) shows_images: bool,
}

/// What is merged: both in the order of their AMIs.
pub(super) struct Inputs {
    pub(super) earlier: Option<EarlierLines>,
    pub(super) facts: SortedFacts,
}

/// Writes the line of each AMI.
///
/// # Errors
/// Fails as the archive and the temporary storage do.
pub(super) async fn write(
    run: &Run,
    target: &Target,
    key: String,
    look: RunLook<'_>,
    mut inputs: Inputs,
    checker: Option<ReferenceChecker>,
    tally: Option<&mut ChangeTally>,
) -> Result<ArchivedImages, CallFailure> {
    let has_plan = look.is_target_read && look.are_images_read;
    let mut lines = ImageLines {
        run,
        target,
        writer: LinesWriter::new(run.bucket.clone(), key),
        counts: ImageCounts::default(),
        findings: ListedFindings::default(),
        plan: run.renewal_plan().filter(|_| has_plan),
        changes: tally.is_some().then(ChangeTally::default),
        checker,
        waiting: Vec::new(),
        candidates: Vec::new(),
        page: run.page_contents(),
    };
    let merged = match merge(run, look, &mut inputs, &mut lines).await {
        Ok(images) => lines.finish().await.map(|finished| (images, finished)),
        Err(failure) => {
            // If time runs out, the bucket's lifecycle rule removes the incomplete upload.
            let _ = run.deadline.limit_write(lines.writer.abandon()).await;
            Err(failure)
        }
    };
    let (images, (mut archived, changes)) = merged?;
    // Only now: the changes of lines that could not be written did not happen.
    if let (Some(tally), Some(changes)) = (tally, changes) {
        *tally += changes;
    }
    archived.ledger.images_read = look.are_images_read.then_some(images);
    Ok(archived)
}

/// Passes on each AMI, and returns how many of them EC2 lists.
async fn merge(
    run: &Run,
    look: RunLook<'_>,
    inputs: &mut Inputs,
    lines: &mut ImageLines<'_>,
) -> Result<u64, CallFailure> {
    let started_at = run.facts.started_at;
    let rules = run.facts.policy.coverage_rules(look.policy);
    let mut images = 0;
    let mut earlier = next_line(&mut inputs.earlier).await?;
    let mut turns = Turns::default();
    loop {
        let ids = [
            earlier.as_ref().map(|line| line.image_id.as_str()),
            inputs.facts.peek(),
        ];
        let Some(image_id) = ids.into_iter().flatten().min().map(str::to_owned) else {
            return Ok(images);
        };
        let mut known = None;
        if earlier
            .as_ref()
            .is_some_and(|line| line.image_id == image_id)
        {
            known = std::mem::replace(&mut earlier, next_line(&mut inputs.earlier).await?);
        }
        let mut image = Folded::new(known, started_at);
        while inputs.facts.peek() == Some(&image_id) {
            if let Some((fact, names)) = inputs.facts.next().map_err(local_storage)? {
                image.add(fact, names);
            }
            turns.count().await;
        }
        images += u64::from(image.fields.is_some());
        lines
            .add(image.finish(image_id, look, rules.clone()))
            .await?;
        turns.count().await;
    }
}

async fn next_line(lines: &mut Option<EarlierLines>) -> Result<Option<ImageLine>, CallFailure> {
    let Some(lines) = lines else {
        return Ok(None);
    };
    let line = lines.next().await.map_err(malformed_line)?;
    let read = line.map(|line| serde_json::from_slice(&line));
    read.transpose()
        .map_err(|error| malformed_line(error.into()))
}

/// What is known of one AMI so far.
struct Folded {
    started_at: Timestamp,
    earlier_verdict: Option<Verdict>,
    was_uncovered: bool,
    earlier_reports: Option<ReportsListed>,
    usage: ImageUsage,
    fields: Option<ImageFields>,
    reports: ReportsListed,
    /// Those reports whose entries are archived: their creation, what they were asked, and where the entries are.
    archived: BTreeMap<String, (Option<Timestamp>, NonZeroU16, NonZeroU16)>,
    /// The report whose entries came last.
    current: Option<ReportLook>,
}

impl Folded {
    fn new(earlier: Option<ImageLine>, started_at: Timestamp) -> Self {
        Self {
            started_at,
            earlier_verdict: earlier.as_ref().map(|line| line.verdict),
            was_uncovered: earlier
                .as_ref()
                .is_some_and(|line| line.coverage == Some(Coverage::Uncovered)),
            usage: earlier.as_ref().map(ImageLine::usage).unwrap_or_default(),
            earlier_reports: earlier.map(|line| line.reports),
            fields: None,
            reports: ReportsListed::default(),
            archived: BTreeMap::new(),
            current: None,
        }
    }

    fn add(&mut self, fact: ImageFact<'_>, names: &FactNames) {
        match fact {
            ImageFact::Image(fields) => {
                let launched = fields.last_launched_time;
                self.usage.observe_launches(launched, self.started_at);
                self.fields = Some(*fields);
            }
            ImageFact::Report(listed) => self.add_report(listed, names),
            ImageFact::Entries {
                report_id,
                consumers,
            } => self.add_entries(&report_id, consumers, names),
        }
    }

    fn add_report(&mut self, listed: ListedReport<'_>, names: &FactNames) {
        let ListedReport {
            report_id,
            creation_time,
            state,
            look,
            entries_key,
        } = listed;
        let report_id = report_id.as_deref();
        let state = state.as_deref().map(ReportState::from);
        let look_of = || Some(names.look(report_id?, creation_time, look));
        let place = (creation_time, report_id);
        self.reports
            .add_look(state.as_ref(), place, look_of, entries_key.is_some());
        if let (Some(report_id), Some(entries_key)) = (report_id, entries_key) {
            let facts = (creation_time, look, entries_key);
            self.archived.insert(report_id.to_owned(), facts);
        }
    }

    /// The entries of a report come one after the other.
    fn add_entries(&mut self, report_id: &str, consumers: Vec<ConsumerFact>, names: &FactNames) {
        if self
            .current
            .as_ref()
            .is_none_or(|look| look.report_id != report_id)
        {
            let Some(&(creation_time, look, entries_key)) = self.archived.get(report_id) else {
                return;
            };
            let look = names.look(report_id, creation_time, look);
            self.usage.end_report();
            self.usage
                .observe_report(&look, names.entries_key(entries_key), self.started_at);
            self.current = Some(look);
        }
        let Some(look) = &self.current else {
            return;
        };
        for consumer in consumers {
            let ConsumerFact {
                consumer_account_id,
                resource_type,
                usage_count,
            } = consumer;
            let key = ConsumerKey {
                consumer_account_id,
                resource_type,
            };
            self.usage
                .observe_use(look, key, usage_count, self.started_at);
        }
    }

    fn finish(mut self, image_id: String, look: RunLook<'_>, rules: CoverageRules) -> KnownImage {
        self.usage.end_report();
        self.usage.settle(self.started_at);
        let reports = match self.earlier_reports {
            // Nothing was seen of it in a target that was not read to its end.
            Some(earlier) if !look.is_target_read && self.reports.total() == 0 => earlier,
            _ => self.reports,
        };
        KnownImage {
            image_id,
            earlier_verdict: self.earlier_verdict,
            was_uncovered: self.was_uncovered,
            usage: self.usage,
            reading: ImageReading {
                started_at: self.started_at,
                observation_days: look.policy.observation_days,
                is_target_read: look.is_target_read,
                are_images_read: look.are_images_read,
                image: self.fields.filter(|_| look.shows_images),
                reports,
                references_look: match look.policy.image_references {
                    true => ReferencesLook::NotChecked,
                    false => ReferencesLook::NotWanted,
                },
                references: References::default(),
                coverage_rules: rules,
            },
        }
    }
}

/// An AMI whose line can be written, but for its references.
struct KnownImage {
    image_id: String,
    earlier_verdict: Option<Verdict>,
    was_uncovered: bool,
    usage: ImageUsage,
    reading: ImageReading,
}

impl KnownImage {
    /// Whether only its references keep the verdict from being `no_use_observed`.
    fn is_candidate(&self) -> bool {
        let reading = ImageReading {
            references_look: ReferencesLook::NotWanted,
            ..self.reading.clone()
        };
        let usage = self.usage.clone().without_references();
        reading.judge(&usage).verdict == Verdict::NoUseObserved
    }

    fn add_references(&mut self, references: References, look: ReferencesLook) {
        let is_found = !references.listed.is_empty();
        self.usage
            .observe_references(is_found, self.reading.started_at);
        self.reading.references_look = look;
        self.reading.references = references;
    }
}

/// The lines of a target's AMIs, and their totals.
struct ImageLines<'a> {
    run: &'a Run,
    target: &'a Target,
    writer: LinesWriter,
    counts: ImageCounts,
    findings: ListedFindings,
    plan: Option<RenewalPlan>,
    /// The changes since the run before, if there is one to compare with.
    changes: Option<ChangeTally>,
    checker: Option<ReferenceChecker>,
    /// What waits for a check of references, in order.
    waiting: Vec<KnownImage>,
    /// Those whose references are to be checked.
    candidates: Vec<String>,
    page: PageContents,
}

impl ImageLines<'_> {
    async fn add(&mut self, image: KnownImage) -> Result<(), CallFailure> {
        if self.checker.is_none() {
            return self.write(image).await;
        }
        if image.is_candidate() {
            self.candidates.push(image.image_id.clone());
        }
        self.waiting.push(image);
        match self.candidates.len() == MAX_IMAGES_PER_CALL || self.waiting.len() == MAX_WAITING {
            true => self.check_waiting().await,
            false => Ok(()),
        }
    }

    /// Checks the references of the candidates, and writes what waits.
    async fn check_waiting(&mut self) -> Result<(), CallFailure> {
        let candidates = std::mem::take(&mut self.candidates);
        let mut found = BTreeMap::new();
        if let Some(checker) = &mut self.checker
            && !candidates.is_empty()
        {
            found = checker.check(&candidates).await;
        }
        for mut image in std::mem::take(&mut self.waiting) {
            if let Some((references, look)) = found.remove(&image.image_id) {
                image.add_references(references, look);
            }
            self.write(image).await?;
        }
        Ok(())
    }

    async fn write(&mut self, image: KnownImage) -> Result<(), CallFailure> {
        let KnownImage {
            image_id,
            earlier_verdict,
            was_uncovered,
            usage,
            reading,
        } = image;
        let uncovered = reading.uncovered(self.target, &image_id);
        let is_uncovered = reading.is_coverage_known().then_some(uncovered.is_some());
        let line = ImageLine::new(self.target, image_id, &usage, reading);
        self.counts.add(line.verdict, line.coverage);
        self.page.add_image(&line);
        if let Some(finding) = uncovered {
            self.findings.insert(finding);
        }
        if let Some(plan) = &mut self.plan {
            plan.add(&line);
        }
        if let Some(changes) = &mut self.changes {
            let (target, image_id) = (self.target, &line.image_id);
            changes.compare_coverage(target, image_id, was_uncovered, is_uncovered);
            if let Some(from) = earlier_verdict.filter(|from| *from != line.verdict) {
                changes.add_changed_verdict(target, image_id, from, line.verdict);
            }
        }
        let mut bytes = serde_json::to_vec(&line).map_err(|error| malformed_line(error.into()))?;
        bytes.push(b'\n');
        self.writer.push(&bytes);
        let sent = self.run.deadline.send_full_part(&mut self.writer).await;
        sent.map_err(ArchiveError::into_failure)
    }

    async fn finish(mut self) -> Result<(ArchivedImages, Option<ChangeTally>), CallFailure> {
        self.check_waiting().await?;
        let references_error = self
            .checker
            .and_then(|checker| checker.failure)
            .map(Into::into);
        let object = match self.writer.lines() {
            0 => None,
            _ => {
                let finished = self.run.deadline.limit_write(self.writer.finish()).await?;
                Some(finished.map_err(ArchiveError::into_failure)?)
            }
        };
        let archived = ArchivedImages {
            ledger: ImagesLedger {
                images_read: None,
                images_error: None,
                references_error,
                images_object: object,
                renewals: None,
            },
            counts: self.counts,
            findings: self.findings,
            plan: self.plan,
            page: Some(self.page),
        };
        Ok((archived, self.changes))
    }
}
