//! Merges what earlier runs recorded about a target into its staged reports, and tallies the changes.

use std::borrow::Cow;
use std::io;
use std::sync::atomic::Ordering;

use image_usage_archive::aws::CallFailure;
use image_usage_archive::documents::{ArchivedObject, ChangeTally, Subject};
use image_usage_archive::domain::entries_status::EntriesStatus;
use image_usage_archive::domain::error_code::ErrorCode;
use image_usage_archive::domain::findings::FindingSet;
use image_usage_archive::domain::report_key::ReportKey;
use image_usage_archive::domain::target::Target;
use serde::Deserialize;

use crate::archive::previous::{EarlierLine, EarlierObject, malformed_line};
use crate::audit::run::Run;
use crate::staging::{ReportRecord, ReportRecords, StagedHead, StagedReports};

/// Records what earlier runs said about each report: its state, its findings, and where its entries are.
/// Tallies the reports that EC2 no longer lists; those that it lists are compared once their findings are
/// known.
///
/// Returns `None` if there is nothing to compare: in a scoped run, and in the first one. An unreadable object
/// disables the comparison and causes entries to be fetched again, but never fails the target.
pub(crate) async fn carry_over(
    run: &Run,
    target: &Target,
    staged: &mut StagedReports,
    is_complete: bool,
) -> Option<ChangeTally> {
    let previous = run.previous().await?;
    let mut tally = ChangeTally::default();
    // The latest object first: what it says about a report counts.
    for object in previous.objects(target).iter().rev() {
        let records = staged.records();
        let read = record_lines(run, object, target, records, is_complete, &mut tally);
        if let Err(failure) = read.await {
            if failure.code == ErrorCode::DeadlineExceeded.as_str() {
                // Not compared for want of time: nothing is lost or damaged.
                return run.facts.scope.full.then(ChangeTally::default);
            }
            if failure.is_unreadable() {
                run.unreadable_objects.fetch_add(1, Ordering::Relaxed);
            }
            let (error_code, error_message) = (failure.code, failure.message);
            let (run_id, account_id, region) =
                (&run.facts.run_id, &target.account_id, &target.region);
            tracing::warn!(
                %run_id, %account_id, %region, object = object.key, error_code, error_message,
                "an object of an earlier run cannot be used: the entries it names are fetched again"
            );
            tally = ChangeTally::not_compared(target);
        }
    }
    forget_lost_entries(run, target, staged.records()).await;
    run.facts.scope.full.then_some(tally)
}

/// Checks that the entries objects of earlier runs still exist. Entries of a lost one are fetched again.
async fn forget_lost_entries(run: &Run, target: &Target, records: &mut ReportRecords) {
    let mut lost = Vec::new();
    for key in records.entries_keys() {
        let exists = run.bucket.exists(&key);
        // An object that cannot be looked at is taken to exist: nothing says that it is lost.
        if matches!(run.deadline.limit_write(exists).await, Ok(Ok(false))) {
            lost.push(key);
        }
    }
    if lost.is_empty() {
        return;
    }
    let forgotten = records.forget_entries_in(&lost);
    let (run_id, account_id, region) = (&run.facts.run_id, &target.account_id, &target.region);
    for (key, reports) in lost.iter().zip(forgotten) {
        tracing::warn!(
            %run_id, %account_id, %region, object = key, reports,
            "an entries object of an earlier run is missing: the entries that EC2 still has are fetched again"
        );
    }
}

/// The changes of a target that was not read: all its known reports are unseen.
pub(crate) async fn of_unread(run: &Run, target: &Target) -> Option<ChangeTally> {
    carry_over(run, target, &mut StagedReports::new(), false).await
}

async fn record_lines(
    run: &Run,
    object: &ArchivedObject,
    target: &Target,
    records: &mut ReportRecords,
    is_complete: bool,
    tally: &mut ChangeTally,
) -> Result<(), CallFailure> {
    let read = EarlierObject::read(&run.bucket, object);
    let mut object = run.deadline.limit_write(read).await??;
    let lines = object.for_each_line(|line| {
        let line = serde_json::from_slice(line)?;
        record_line(&line, target, records, is_complete, tally)
    });
    lines.await.map_err(malformed_line)
}

fn record_line(
    line: &EarlierLine<'_>,
    target: &Target,
    records: &mut ReportRecords,
    is_complete: bool,
    tally: &mut ChangeTally,
) -> io::Result<()> {
    let Some(report_id) = line.report_id.as_deref() else {
        return Ok(());
    };
    let archived = match &line.entries {
        entries @ EntriesStatus::Archived { .. } => Some(entries),
        _ => None,
    };
    let key = ReportKey::of(report_id);
    let record = records.record_earlier(key, line.findings, &line.state, archived)?;
    let is_gone = record.is_some_and(|record| !record.is_listed);
    if is_gone && tally.compares() {
        let subject = Subject {
            target,
            report_id,
            image_id: line.image_id.as_deref(),
        };
        match is_complete {
            true => tally.add_gone(
                subject,
                line.findings,
                line.state.as_ref(),
                archived.is_some(),
            ),
            false => tally.add_unseen(line.findings),
        }
    }
    Ok(())
}

/// Compares a listed report, now that its findings are known, with what an earlier run said about it.
pub(super) fn compare_report(
    tally: &mut ChangeTally,
    target: &Target,
    records: &ReportRecords,
    head: &StagedHead,
    record: &ReportRecord,
    findings: FindingSet,
    fields: &[u8],
) -> io::Result<()> {
    let state = records.state(head);
    let earlier = record.earlier();
    let earlier_findings = earlier.map(|earlier| earlier.findings);
    let other_state = earlier
        .map(|earlier| records.earlier_state(&earlier))
        .filter(|earlier| *earlier != state);
    if earlier_findings == Some(findings) && other_state.is_none() {
        tally.add_continuing(findings);
        return Ok(());
    }
    let ReportName {
        report_id,
        image_id,
    } = serde_json::from_slice(fields)?;
    let subject = Subject {
        target,
        report_id: &report_id,
        image_id: image_id.as_deref(),
    };
    tally.compare_findings(subject, earlier_findings.unwrap_or_default(), findings);
    match (earlier_findings, other_state) {
        (None, _) => tally.add_appeared(subject, state.as_ref()),
        (Some(_), Some(from)) => tally.add_changed_state(subject, from.clone(), state.clone()),
        (Some(_), None) => {}
    }
    Ok(())
}

#[derive(Deserialize)]
struct ReportName<'a> {
    #[serde(borrow)]
    report_id: Cow<'a, str>,
    #[serde(borrow)]
    image_id: Option<Cow<'a, str>>,
}
