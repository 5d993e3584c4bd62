//! The verdict once more, written down from the words of `docs/verdicts.md`, without the rules' code.

use std::collections::BTreeSet;

use crate::history::{DAY, History, ImageSeen, ReferencesSeen, Report, Seconds};

const KNOWN: [&str; 4] = [
    "ec2:Instance",
    "ec2:LaunchTemplate",
    "imagebuilder:ImageRecipe",
    "imagebuilder:ContainerRecipe",
];

/// A use: when, and of which type (`None` where EC2 left it out).
struct Use {
    at: Seconds,
    resource_type: Option<&'static str>,
}

fn lacks(report: &Report) -> BTreeSet<&'static str> {
    let mut lacks = BTreeSet::new();
    if report.accounts != 0 {
        lacks.insert("accounts_restricted");
    }
    if KNOWN.iter().any(|known| !report.types.contains(known)) {
        lacks.insert("type_not_covered");
    }
    if report.types.contains("ec2:LaunchTemplate") && report.depth.unwrap_or(20) < 1_000 {
        lacks.insert("depth_shallow");
    }
    lacks
}

fn says_everything_about(report: &Report, resource_type: Option<&str>) -> bool {
    let is_template = resource_type == Some("ec2:LaunchTemplate");
    !report.is_undated
        && report.accounts == 0
        && resource_type.is_some_and(|name| report.types.contains(name))
        && (!is_template || report.depth.unwrap_or(20) >= 1_000)
}

/// The verdict of the last run, and its reasons.
pub(crate) fn verdict(history: &History) -> (&'static str, BTreeSet<&'static str>) {
    let last_run = history.last_run();
    let run = history.runs[last_run];
    let now = run.at;
    let long = history.observation_days * DAY;
    let none = BTreeSet::new();

    if run.image == ImageSeen::Absent {
        return ("gone", none);
    }

    let read: Vec<&Report> = history
        .reports
        .iter()
        .filter(|report| report.is_read_until(last_run))
        .collect();
    let dated = |report: &Report| match report.is_undated {
        true => history.runs[report.read_by.unwrap()].at,
        false => report.created,
    };
    let mut uses = Vec::new();
    for report in &read {
        for entry in &report.entries {
            if entry.count != Some(0) {
                uses.push(Use {
                    at: dated(report),
                    resource_type: entry.resource_type,
                });
            }
        }
    }
    let has_ended = |one: &Use| {
        read.iter()
            .any(|later| later.created > one.at && says_everything_about(later, one.resource_type))
    };
    let launches: Vec<Seconds> = history
        .runs
        .iter()
        .filter(|run| run.image == ImageSeen::Read)
        .filter_map(|run| history.last_launch(run.at))
        .collect();
    let finds = |references| {
        matches!(
            references,
            ReferencesSeen::Checked { found: true } | ReferencesSeen::BrokeOff { found: true }
        )
    };
    let found: Vec<Seconds> = history
        .runs
        .iter()
        .filter(|run| finds(run.references))
        .map(|run| run.at)
        .collect();

    let is_used = uses
        .iter()
        .any(|one| now - one.at <= long && !has_ended(one));
    let is_launched = launches.iter().any(|at| now - at <= long);
    if is_used || is_launched || finds(run.references) {
        return ("in_use", none);
    }

    let mut reasons = BTreeSet::new();
    if !run.is_target_read {
        reasons.insert("target_not_read");
    }
    if run.image == ImageSeen::NotRead {
        reasons.insert("image_not_read");
    } else if history
        .image_created
        .is_none_or(|created| now - created <= long)
    {
        reasons.insert("image_too_young");
    }
    let is_found_last = found.last().is_some_and(|found| {
        !history.runs.iter().any(|run| {
            run.at > *found && run.references == (ReferencesSeen::Checked { found: false })
        })
    });
    if matches!(run.references, ReferencesSeen::BrokeOff { .. }) || is_found_last {
        reasons.insert("references_not_checked");
    }

    let reading = history.last_reading(last_run);
    let mut listed: Vec<&Report> = Vec::new();
    if let Some(reading) = reading {
        let at = history.runs[reading].at;
        listed.extend(history.reports.iter().filter(|one| one.is_listed_at(at)));
        let is_unread = |one: &&&Report| one.is_available() && !one.is_read_until(reading);
        if listed.iter().filter(is_unread).count() > 0 {
            reasons.insert("entries_not_archived");
        }
    }
    // One without a time comes before all others.
    listed.sort_by_key(|one| {
        (
            !one.is_undated,
            one.created * i64::from(!one.is_undated),
            &one.id,
        )
    });

    let last_fact = uses
        .iter()
        .map(|one| one.at)
        .chain(launches)
        .chain(found)
        .max();
    let mut adequate: Vec<Seconds> = read
        .iter()
        .filter(|report| !report.is_undated && lacks(report).is_empty())
        .map(|report| report.created)
        .collect();
    adequate.sort_unstable();
    let mut observation = None;
    for at in adequate {
        observation = match observation {
            Some((since, until)) if at - until <= 14 * DAY => Some((since, at)),
            _ => Some((at, at)),
        };
    }
    let is_stale = observation.is_some_and(|(_, until)| now - until > 14 * DAY);
    let is_brief = observation.is_some_and(|(since, until)| {
        let quiet_since = last_fact.map_or(since, |fact| fact.max(since));
        until - quiet_since < long
    });
    if observation.is_some() && !is_stale && !is_brief {
        if !uses.iter().all(has_ended) {
            reasons.insert("type_not_covered");
        }
    } else {
        let mut why = BTreeSet::new();
        if is_stale {
            why.insert("stale");
        }
        if is_brief {
            why.insert("observed_too_briefly");
        }
        match listed.last() {
            None => {
                why.insert("no_report");
            }
            Some(newest) if newest.state == "pending" => {
                why.insert("report_pending");
            }
            Some(newest) if newest.state == "error" => {
                why.insert("report_failed");
            }
            Some(_) => {}
        }
        if let Some(newest) = listed.iter().rev().find(|one| one.is_available()) {
            why.extend(lacks(newest));
        }
        if why.is_empty() {
            why.insert("observed_too_briefly");
        }
        reasons.extend(why);
    }

    match (reasons.is_empty(), last_fact) {
        (true, _) => ("no_use_observed", none),
        (false, Some(_)) => ("last_seen_in_use", reasons),
        (false, None) => ("unknown", reasons),
    }
}
