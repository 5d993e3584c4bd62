//! Finds newer reports that make those about to expire redundant.

use std::collections::{HashMap, HashSet};
use std::io;

use image_usage_archive::domain::findings::{self, ListedFindings};
use image_usage_archive::domain::report::UsageReport;
use image_usage_archive::domain::report_key::ReportKey;

use crate::audit::turns::Turns;
use crate::staging::{StagedHead, StagedReports};

/// Names, in each listed finding on a report about to expire, a newer report that supersedes it.
pub(super) async fn resolve(
    staged: &mut StagedReports,
    findings: &mut ListedFindings,
) -> io::Result<()> {
    let expiring: HashSet<ReportKey> = findings
        .iter()
        .filter(|finding| finding.is_about_expiry())
        .filter_map(|finding| finding.report_id.as_deref().map(ReportKey::of))
        .collect();
    if expiring.is_empty() {
        return Ok(());
    }
    let mut older: HashMap<u64, Vec<UsageReport>> = HashMap::new();
    each_report(staged, |head, fields| {
        if let Some(image) = head.image.filter(|_| expiring.contains(&head.key)) {
            let report = serde_json::from_slice(fields)?;
            older.entry(image).or_default().push(report);
        }
        Ok(())
    })
    .await?;
    let mut best: HashMap<String, UsageReport> = HashMap::new();
    each_report(staged, |head, fields| {
        let Some(older) = head.image.and_then(|image| older.get(&image)) else {
            return Ok(());
        };
        let newer: UsageReport = serde_json::from_slice(fields)?;
        for old in older {
            let Some(id) = &old.report_id else { continue };
            let is_better = best
                .get(id)
                .is_none_or(|best| findings::preference(&newer) > findings::preference(best));
            if is_better && findings::supersedes(&newer, old) {
                best.insert(id.clone(), newer.clone());
            }
        }
        Ok(())
    })
    .await?;
    findings.update(|finding| {
        let by = finding.report_id.as_ref().and_then(|id| best.get(id));
        if let Some(by) = by.filter(|_| finding.is_about_expiry()) {
            finding.superseded_by = by.report_id.clone();
        }
    });
    Ok(())
}

/// Passes on each staged report; other tasks get their turn in between.
async fn each_report(
    staged: &mut StagedReports,
    mut each: impl FnMut(&StagedHead, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let (mut reports, _) = staged.read()?;
    let mut turns = Turns::default();
    while let Some((head, fields)) = reports.next()? {
        each(&head, fields)?;
        turns.count().await;
    }
    Ok(())
}
