//! A target's listing beside what earlier runs said of the target.

use std::borrow::Cow;
use std::io;

use serde::Deserialize;

use crate::archive::previous::{KnownLine, KnownLines};
use crate::audit::Run;
use crate::staging::{Facts, Head, Listing, Notes};
use image_usage_archive::aws::Bucket;
use image_usage_archive::documents::changes::{ChangeTally, Subject};
use image_usage_archive::documents::snapshot::EntriesStatus;
use image_usage_archive::domain::findings::KindSet;
use image_usage_archive::domain::report_key;
use image_usage_archive::domain::target::Target;

/// Notes in the listing what earlier runs said of each report: its state, its findings, and where its
/// entries are. Tells of the reports that EC2 lists no more; those that it lists are to be compared when
/// their findings are known.
///
/// `None` where nothing is to be compared: in a scoped run, and in the first one. What can't be read costs
/// the comparison, and the entries are fetched again; it never costs the target.
pub(crate) async fn with_known(
    run: &Run,
    bucket: &Bucket,
    target: &Target,
    listing: &mut Listing,
    is_complete: bool,
) -> Option<ChangeTally> {
    let previous = run.previous().await?;
    let mut tally = ChangeTally::default();
    // The latest one first: what it says of a report holds.
    for object in previous.objects(target).iter().rev() {
        let read = run.before_publishing(KnownLines::read(bucket, object));
        let lines = match read.await {
            Ok(lines) => lines,
            Err(late) => Err(late),
        };
        let noted = match lines {
            Ok(lines) => note_lines(lines, target, listing, is_complete, &mut tally)
                .map_err(|error| ("MalformedLine".to_owned(), error.to_string())),
            Err(failure) => Err((failure.code, failure.message)),
        };
        if let Err((error_code, error_message)) = noted {
            let (run_id, account_id, region) =
                (&run.facts.run_id, &target.account_id, &target.region);
            tracing::warn!(
                %run_id, %account_id, %region, object = object.key, error_code, error_message,
                "an object of an earlier run can't be used: its entries are fetched again"
            );
            tally = ChangeTally::not_compared(target);
        }
    }
    run.facts.scope.full.then_some(tally)
}

fn note_lines(
    mut lines: KnownLines,
    target: &Target,
    listing: &mut Listing,
    is_complete: bool,
    tally: &mut ChangeTally,
) -> io::Result<()> {
    while let Some(line) = lines.next()? {
        let KnownLine {
            report_id: Some(report_id),
            image_id,
            state,
            findings,
            entries,
        } = line
        else {
            continue;
        };
        let archived = matches!(entries, EntriesStatus::Archived { .. }).then_some(&entries);
        let key = report_key::key(&report_id);
        let noted = listing
            .notes()
            .note_known(&key, findings, &state, archived)?;
        let is_gone = noted.is_some_and(|facts| !facts.is_listed);
        if is_gone && tally.compares() {
            let subject = Subject {
                target,
                report_id: &report_id,
                image_id: image_id.as_deref(),
            };
            match is_complete {
                true => tally.add_gone(subject, findings, state.as_ref(), archived.is_some()),
                false => tally.add_unseen(findings),
            }
        }
    }
    Ok(())
}

/// Compares a listed report, now that its findings are known, with what was said of it before.
pub(crate) fn report(
    tally: &mut ChangeTally,
    target: &Target,
    notes: &Notes,
    head: &Head,
    facts: &Facts,
    findings: KindSet,
    members: &[u8],
) -> io::Result<()> {
    let before = facts.known.map(|known| known.findings);
    let state_before = facts
        .known
        .and_then(|known| notes.state_before(head, &known));
    if before == Some(findings) && state_before.is_none() {
        tally.add_continuing(findings);
        return Ok(());
    }
    let ReportName {
        report_id,
        image_id,
    } = serde_json::from_slice(members)?;
    let subject = Subject {
        target,
        report_id: &report_id,
        image_id: image_id.as_deref(),
    };
    let state = notes.state(head);
    tally.compare_findings(subject, before.unwrap_or_default(), findings);
    match (before, state_before) {
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
