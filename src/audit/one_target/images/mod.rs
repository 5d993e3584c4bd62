//! The AMIs of a target: read, merged with what earlier runs knew of them, and written as lines.
//!
//! Lines and facts are both sorted by AMI and are merged as they are read, so memory does not grow with AMIs,
//! reports or consumers. Whatever fails here costs the verdicts of the target, never its reports: its ledger line
//! says so, and the lines of earlier runs are still there for the next run.

mod facts;
mod merge;
mod references;

use std::sync::atomic::Ordering;

use image_usage_archive::aws::{CallFailure, FailureKind};
use image_usage_archive::documents::PageContents;
use image_usage_archive::documents::{ChangeTally, ImageCounts, ImagesLedger, TargetError};
use image_usage_archive::domain::error_code::ErrorCode;
use image_usage_archive::domain::findings::{ListedFindings, UsagePolicy};
use image_usage_archive::domain::report_key::ReportKey;
use image_usage_archive::domain::run_id::Attempt;
use image_usage_archive::domain::target::Target;
use image_usage_archive::layout::ObjectKind;
use serde::Deserialize;

use self::facts::EntryRegrouper;
pub(super) use self::facts::{EntryCollector, add_report};
use self::references::ReferenceChecker;
use crate::archive::previous::{EarlierObject, local_storage, malformed_line};
use crate::audit::deadline::deadline_exceeded;
use crate::audit::run::Run;
use crate::aws::ec2::Images;
use crate::aws::ec2::pagination::PageCursor;
use crate::staging::{ImageFact, ImageFacts, ReportRecords, StagedReports};
use image_usage_archive::renewal_plan::RenewalPlan;

/// Reads the AMIs of a target.
///
/// # Errors
/// Fails as EC2 does, and once the time for AMIs is up; the AMIs that came are among the facts.
pub(super) async fn read(
    run: &Run,
    images: &Images,
    facts: &mut ImageFacts,
) -> Result<(), CallFailure> {
    let mut cursor = PageCursor::new(run.images_page_size.of_listing());
    let stop_at = run.deadline.stop_images_at();
    loop {
        let page = images.page(cursor.max_results(), cursor.token());
        let page = tokio::time::timeout_at(stop_at, page).await;
        let page = match page.unwrap_or_else(|_| Err(deadline_exceeded())) {
            Ok(page) => page,
            Err(failure) if run.images_page_size.restart(&mut cursor, &failure) => continue,
            Err(failure) => return Err(failure),
        };
        for image in page.rows {
            let unnamed = || CallFailure::malformed("EC2 returned an AMI without an ID".to_owned());
            let image_id = image.image_id.ok_or_else(unnamed)?;
            let fact = ImageFact::Image(Box::new(image.fields));
            facts.push(&image_id, &fact).map_err(local_storage)?;
        }
        if !cursor.advance(page.next_token)? {
            return Ok(());
        }
    }
}

/// What is known of a target when the lines of its AMIs are written.
pub(super) struct Reading<'a> {
    pub(super) target: &'a Target,
    /// The key of the object with the lines.
    pub(super) key: String,
    /// Whether the reports were read to their end.
    pub(super) is_target_read: bool,
    /// Whether the AMIs were read to their end; why not, unless the target itself was not read.
    pub(super) images: Result<(), Option<CallFailure>>,
    /// Reads references; `None` if nothing can be read.
    pub(super) client: Option<Images>,
}

/// What became of the AMIs of a target.
#[derive(Default)]
pub(in crate::audit) struct ArchivedImages {
    pub(in crate::audit) ledger: ImagesLedger,
    pub(in crate::audit) counts: ImageCounts,
    /// The AMIs that are not covered.
    pub(in crate::audit) findings: ListedFindings,
    /// The reports that EC2 is to be asked for, if the target and its AMIs were read.
    pub(in crate::audit) plan: Option<RenewalPlan>,
    /// What a page shows of the lines; `None` if none were written.
    pub(in crate::audit) page: Option<PageContents>,
}

/// Writes a line for each AMI of a target.
pub(super) async fn archive(
    run: &Run,
    policy: &UsagePolicy,
    reading: Reading<'_>,
    staged: &mut StagedReports,
    tally: Option<&mut ChangeTally>,
) -> ArchivedImages {
    let target = reading.target;
    // Of lines that are not archived, nothing has changed.
    let mut changes = tally.is_some().then(ChangeTally::default);
    let written = write_lines(run, policy, reading, staged, changes.as_mut()).await;
    let archived = match written {
        Ok(archived) => {
            if let (Some(tally), Some(changes)) = (tally, changes) {
                *tally += changes;
            }
            archived
        }
        Err(failure) => ArchivedImages {
            ledger: ImagesLedger {
                images_error: Some(failure.into()),
                ..ImagesLedger::default()
            },
            ..ArchivedImages::default()
        },
    };
    let ImagesLedger {
        images_error,
        references_error,
        ..
    } = &archived.ledger;
    log(
        run,
        target,
        images_error.as_ref(),
        "AMIs not read: their verdicts say less",
    );
    log(
        run,
        target,
        references_error.as_ref(),
        "references not read: the verdicts of their AMIs say less",
    );
    archived
}

/// Carries the lines of a target that was not read, so that each says so. Without time, or without lines of
/// earlier runs, there is nothing to carry.
pub(in crate::audit) async fn carry_unread(
    run: &Run,
    attempt: Attempt,
    target: &Target,
    tally: Option<&mut ChangeTally>,
) -> ArchivedImages {
    let previous = run.previous().await;
    let has_lines = previous.is_some_and(|previous| previous.images(target).is_some());
    match run.usage_policy() {
        Some(policy) if has_lines && run.deadline.has_time() => {
            let reading = Reading {
                target,
                key: run.key(ObjectKind::Images, attempt, target),
                is_target_read: false,
                images: Err(None),
                client: None,
            };
            let mut staged = StagedReports::new().with_facts();
            archive(run, policy, reading, &mut staged, tally).await
        }
        _ => ArchivedImages::default(),
    }
}

fn log(run: &Run, target: &Target, error: Option<&TargetError>, message: &str) {
    let Some(TargetError {
        code: error_code,
        message: error_message,
        request_id,
    }) = error
    else {
        return;
    };
    let (run_id, Target { account_id, region }) = (&run.facts.run_id, target);
    tracing::warn!(%run_id, %account_id, %region, error_code, error_message, request_id, "{message}");
}

async fn write_lines(
    run: &Run,
    policy: &UsagePolicy,
    reading: Reading<'_>,
    staged: &mut StagedReports,
    mut tally: Option<&mut ChangeTally>,
) -> Result<ArchivedImages, CallFailure> {
    let earlier = earlier_lines(run, reading.target, tally.as_deref_mut()).await?;
    let Some(mut facts) = staged.take_facts() else {
        unreachable!("facts are collected if lines are written");
    };
    let earlier = match earlier {
        None => None,
        Some(mut earlier) => {
            let read = earlier.for_each_line(|line| {
                let ObservedInLine { observed_reports } = serde_json::from_slice(line)?;
                for report in observed_reports {
                    staged
                        .records()
                        .record_observed(ReportKey::of(report.report_id));
                }
                Ok(())
            });
            read.await.map_err(malformed_line)?;
            Some(earlier.into_lines().map_err(local_storage)?)
        }
    };
    let not_observed = observe_archived(run, staged, &mut facts).await.err();
    let checker = match (policy.image_references, reading.client) {
        (true, Some(client)) => Some(ReferenceChecker::new(run, client)),
        _ => None,
    };
    let facts = facts.into_sorted().map_err(local_storage)?;
    let look = merge::RunLook {
        policy,
        is_target_read: reading.is_target_read,
        are_images_read: reading.images.is_ok() && not_observed.is_none(),
        // A report that is not part of its line may show a use: no verdict may rest on the AMI itself.
        shows_images: not_observed.is_none(),
    };
    let failure = reading.images.err().flatten().or(not_observed);
    let inputs = merge::Inputs { earlier, facts };
    let written = merge::write(
        run,
        reading.target,
        reading.key,
        look,
        inputs,
        checker,
        tally,
    );
    let mut archived = written.await?;
    archived.ledger.images_error = failure.map(TargetError::from);
    Ok(archived)
}

#[derive(Deserialize)]
struct ObservedInLine {
    observed_reports: Vec<ObservedReport>,
}

#[derive(Deserialize)]
struct ObservedReport {
    report_id: String,
}

/// The lines of the run before; `None` if there are none, or if they are lost for good: the AMIs begin anew.
async fn earlier_lines(
    run: &Run,
    target: &Target,
    tally: Option<&mut ChangeTally>,
) -> Result<Option<EarlierObject>, CallFailure> {
    let previous = run.previous().await;
    let Some(object) = previous.and_then(|previous| previous.images(target)) else {
        return Ok(None);
    };
    let read = EarlierObject::read(&run.bucket, object);
    let failure = match run.deadline.limit_write(read).await? {
        Ok(earlier) => return Ok(Some(earlier)),
        Err(failure) => failure,
    };
    let is_damaged = failure.code == ErrorCode::ObjectDamaged.as_str();
    if !is_damaged && !failure.is_unreadable() {
        return Err(failure);
    }
    if failure.is_unreadable() {
        run.unreadable_objects.fetch_add(1, Ordering::Relaxed);
    }
    let (error_code, error_message) = (failure.code, failure.message);
    let (run_id, Target { account_id, region }) = (&run.facts.run_id, target);
    tracing::warn!(
        %run_id, %account_id, %region, object = object.key, error_code, error_message,
        "the AMIs of an earlier run cannot be used: what is known of them begins anew"
    );
    if let Some(tally) = tally {
        tally.add_images_not_carried(target);
    }
    Ok(None)
}

/// Reads the archived entries that the lines of the run before do not know: those of a version that wrote no
/// lines, or of lines that are lost.
///
/// # Errors
/// Fails if an object cannot be read, after it has read the others.
async fn observe_archived(
    run: &Run,
    staged: &mut StagedReports,
    facts: &mut ImageFacts,
) -> Result<(), CallFailure> {
    let mut first = Ok(());
    for (key, expected) in staged.records().unobserved(&run.facts.run_id) {
        let observed = observe_object(run, staged.records(), facts, &key, expected).await;
        first = first.and(observed);
    }
    first
}

async fn observe_object(
    run: &Run,
    records: &ReportRecords,
    facts: &mut ImageFacts,
    key: &str,
    expected: u64,
) -> Result<(), CallFailure> {
    let read = EarlierObject::read_unchecked(&run.bucket, key);
    let mut object = run.deadline.limit_write(read).await??;
    let is_wanted = |id: &str| records.is_unobserved_in(&ReportKey::of(id), key, &run.facts.run_id);
    // Nothing of an object counts before every entry is found.
    let mut found = 0;
    let counted = object.for_each_line(|line| {
        found += facts::wanted_entries(line, is_wanted)?;
        Ok(())
    });
    counted.await.map_err(malformed_line)?;
    if found != expected {
        let message = format!("{key} has {found} of the {expected} entries that it should have");
        let code = ErrorCode::ObjectDamaged;
        return Err(CallFailure::own(code, message, FailureKind::Permanent));
    }
    let mut entries = EntryRegrouper::new(facts);
    let added = object.for_each_line(|line| entries.add(line, is_wanted));
    added.await.map_err(malformed_line)?;
    entries.finish().map_err(local_storage)
}
