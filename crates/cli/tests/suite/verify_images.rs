//! `verify`, on an archive with verdicts about AMIs, and on what was done to it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;

use flate2::read::GzDecoder;
use image_usage_archive::documents::{
    AUDITOR_VERSION, ChangedVerdict, ImageFields, ImageLine, ImagesLedger, ObservedReportLine,
    Reference, Renewals, Snapshot, SourceLine, TargetError, TargetStatus,
};
use image_usage_archive::domain::findings::FindingKind;
use image_usage_archive::domain::usage::{
    Coverage, ImageLook, Look, Observation, Reason, ReferencesLook, Verdict, judge,
};
use image_usage_archive::layout::Layout;
use image_usage_archive::source::Source;
use image_usage_archive::verify::{Options, Problem, verify};

use crate::archive::{Archive, PREFIX, Run};
use crate::images_of_runs::{GOING, IN_USE, written};

/// What is wrong, a line each; and the notes.
fn problems_and_notes(archive: &Archive) -> (Vec<String>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let source = Source::Folder(archive.path().to_owned());
    let verdict = runtime.block_on(verify(&source, &Options::default()));
    let verdict = verdict.unwrap();
    let problems = verdict.problems.into_iter();
    let line = |problem: Problem| format!("{} {}", problem.key, problem.what);
    (problems.map(line).collect(), verdict.notes)
}

fn problems(archive: &Archive) -> Vec<String> {
    problems_and_notes(archive).0
}

/// Changes the last run, and puts right every digest, size and number of lines that covers it.
fn forge(archive: &Archive, run: &Run, edit: impl FnOnce(&mut Vec<ImageLine>, &mut Snapshot)) {
    let snapshot = fs::read(archive.file(&run.snapshot)).unwrap();
    let mut snapshot: Snapshot = serde_json::from_slice(&snapshot).unwrap();
    let mut lines = read_lines(archive, run);
    edit(&mut lines, &mut snapshot);
    let layout: Layout = PREFIX.parse().unwrap();
    let key = format!("{}{}", layout.prefix(), run.images);
    let object = archive.write_lines(&key, &written(&lines), lines.len() as u64);
    let images = snapshot.targets[0].images.as_mut().unwrap();
    images.images_object = images.images_object.as_ref().map(|_| object);
    let bytes = snapshot.to_bytes().unwrap();
    archive.write(&run.snapshot, &bytes);
    archive.write("v1/latest.json", &bytes);
}

fn read_lines(archive: &Archive, run: &Run) -> Vec<ImageLine> {
    let object = fs::read(archive.file(&run.images)).unwrap();
    let mut text = String::new();
    GzDecoder::new(object.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Fails unless a forgery of the last run is found with this text.
fn assert_found(expected: &str, edit: impl FnOnce(&mut Vec<ImageLine>, &mut Snapshot)) {
    let (archive, [_, last]) = Archive::with_images();
    forge(&archive, &last, edit);
    let found = problems(&archive);
    let is_there = found.iter().any(|problem| problem.contains(expected));
    assert!(is_there, "expected: {expected}\nfound: {found:#?}");
}

fn images(snapshot: &mut Snapshot) -> &mut ImagesLedger {
    snapshot.targets[0].images.as_mut().unwrap()
}

#[test]
fn an_archive_with_verdicts_is_sound() {
    let (archive, [_, last]) = Archive::with_images();
    assert_eq!(problems_and_notes(&archive), (vec![], vec![]));
    let lines = read_lines(&archive, &last);
    let verdicts: Vec<_> = lines.iter().map(|line| line.verdict).collect();
    assert_eq!(verdicts, [Verdict::InUse, Verdict::Gone]);
    // A forgery that changes nothing is none: what the other tests find is what they change.
    forge(&archive, &last, |_, _| {});
    assert_eq!(problems(&archive), [""; 0]);
}

#[test]
fn an_archive_in_which_verdicts_begin_and_lines_are_carried_for_weeks_is_sound() {
    let mut archive = Archive::new();
    archive.run(10);
    archive.give_verdicts();
    let runs: Vec<Run> = (11..=30).map(|day| archive.run(day)).collect();
    assert_eq!(problems_and_notes(&archive), (vec![], vec![]));
    let line = read_lines(&archive, &runs[19]).swap_remove(0);
    assert_eq!(line.observed_reports.len(), 20);
    assert_eq!(line.observation.unwrap().reports, 20);
}

#[test]
fn an_archive_of_a_version_without_verdicts_is_checked_as_before() {
    let (archive, [_, last]) = Archive::of_two_runs();
    let bytes = fs::read(archive.file(&last.snapshot)).unwrap();
    let mut snapshot: Snapshot = serde_json::from_slice(&bytes).unwrap();
    snapshot.auditor.version = "0.2.0".to_owned();
    snapshot.changes.as_mut().unwrap().verdicts = None;
    let bytes = snapshot.to_bytes().unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("images"));
    archive.write(&last.snapshot, &bytes);
    archive.write("v1/latest.json", &bytes);
    assert_eq!(problems(&archive), [""; 0]);
}

#[test]
fn a_changed_byte_anywhere_in_an_images_object_is_found() {
    let (archive, runs) = Archive::with_images();
    for run in &runs {
        let sound = fs::read(archive.file(&run.images)).unwrap();
        for place in 0..sound.len() {
            let mut changed = sound.clone();
            changed[place] ^= 1;
            archive.write(&run.images, &changed);
            let found = problems(&archive);
            assert!(found[0].starts_with(&run.images), "{place}: {found:?}");
        }
        archive.write(&run.images, &sound);
    }
}

#[test]
fn an_images_object_that_is_deleted_cut_off_or_swapped_is_found() {
    let (archive, [first, last]) = Archive::with_images();
    let objects = [&first, &last].map(|run| fs::read(archive.file(&run.images)).unwrap());
    fs::remove_file(archive.file(&first.images)).unwrap();
    let expected = format!("{} is missing; {} names it", first.images, first.snapshot);
    // The run after it relies on entries of the first run, which are still there.
    assert_eq!(problems(&archive), [expected]);
    archive.write(&first.images, &objects[0][..objects[0].len() - 1]);
    assert_eq!(problems(&archive).len(), 1);
    archive.write(&first.images, &objects[1]);
    archive.write(&last.images, &objects[0]);
    assert_eq!(problems(&archive).len(), 2);
}

#[test]
fn an_images_object_that_no_snapshot_names_is_noted_and_another_key_is_a_problem() {
    let (archive, _) = Archive::with_images();
    let left = "v1/images/dt=2026-11-24/account_id=111122223333/region=eu-west-1/20261124T060000Z-01234567";
    archive.write(&format!("{left}.00000001.jsonl.gz"), b"cut");
    let (found, notes) = problems_and_notes(&archive);
    assert_eq!(found, [""; 0]);
    assert!(
        notes[0].starts_with("no snapshot names 1 object of the run"),
        "{notes:?}"
    );
    archive.write(&format!("{left}.jsonl.gz"), b"");
    let expected = format!("{left}.jsonl.gz is not an object that the auditor writes");
    assert_eq!(problems(&archive), [expected]);
}

#[test]
fn each_verdict_follows_from_its_line() {
    let expected = format!(
        "line 1 is not what the rules give for {IN_USE}: it says no_use_observed, and they give in_use"
    );
    assert_found(&expected, |lines, snapshot| {
        lines[0].verdict = Verdict::NoUseObserved;
        let counts = snapshot.counts.images.as_mut().unwrap();
        (counts.in_use, counts.no_use_observed) = (0, 1);
    });
    let differs = format!("is not what the rules give for {IN_USE}: it differs in observation");
    assert_found(&differs, |lines, _| {
        let moment = lines[0].as_of.unwrap();
        lines[0].observation = Some(Observation {
            since: moment,
            until: moment,
            reports: 1,
        });
    });
    // An AMI that was read is not gone, and one that was not read is.
    assert_found("it says gone, and they give unknown", |lines, _| {
        lines[1].image = Some(ImageFields::default());
    });
    // Another version may have had other rules.
    let (archive, [_, last]) = Archive::with_images();
    forge(&archive, &last, |lines, snapshot| {
        lines[0].verdict = Verdict::NoUseObserved;
        let counts = snapshot.counts.images.as_mut().unwrap();
        (counts.in_use, counts.no_use_observed) = (0, 1);
        assert_eq!(snapshot.auditor.version, AUDITOR_VERSION);
        snapshot.auditor.version = "9.9.9".to_owned();
        let change = ChangedVerdict {
            image_id: IN_USE.to_owned(),
            from: Verdict::InUse,
            to: Verdict::NoUseObserved,
            ..snapshot.changes.clone().unwrap().verdicts.unwrap().verdicts[0].clone()
        };
        let changes = snapshot.changes.as_mut().unwrap();
        changes
            .verdicts
            .as_mut()
            .unwrap()
            .verdicts
            .insert(0, change);
    });
    assert_eq!(problems(&archive), [""; 0]);
}

#[test]
fn coverage_and_its_finding_follow_from_the_line() {
    let differs = format!("is not what the rules give for {IN_USE}: it differs in coverage");
    for coverage in [None, Some(Coverage::Pending), Some(Coverage::Uncovered)] {
        assert_found(&differs, |lines, _| lines[0].coverage = coverage);
    }
    // The newest adequate report is one of those that the run has listed.
    assert_found("sums up other reports", |lines, snapshot| {
        lines[0].reports.newest_adequate = None;
        lines[0].coverage = Some(Coverage::Uncovered);
        snapshot.counts.images.as_mut().unwrap().uncovered = 1;
    });
    // At this age, a newer report is due, and there is none for twice the time.
    assert_found("it differs in coverage", |_, snapshot| {
        let usage = snapshot.policy.usage.as_mut().unwrap();
        usage.renew_after_days = 0;
    });
    assert_found("it differs in coverage", |_, snapshot| {
        let usage = snapshot.policy.usage.as_mut().unwrap();
        usage.image_tag = "Team".parse().ok();
    });
    assert_found(
        "states other counts than its objects contain",
        |_, snapshot| {
            snapshot.counts.images.as_mut().unwrap().uncovered = 1;
        },
    );
    // The first run has an AMI without any report.
    let mut archive = Archive::new();
    archive.give_verdicts();
    let run = archive.run(22);
    assert_eq!(problems(&archive), [""; 0]);
    let id = format!("111122223333/eu-west-1/{GOING}/uncovered");
    forge(&archive, &run, |_, snapshot| {
        let mut findings = snapshot.findings.iter_mut();
        let uncovered = findings.find(|one| one.kind == FindingKind::Uncovered);
        let uncovered = uncovered.unwrap();
        assert_eq!(uncovered.id, id);
        uncovered.message = "all is well".to_owned();
    });
    let found = problems(&archive).concat();
    let expected = format!("its policy give, first {id}");
    assert!(found.contains(&expected), "{found}");
}

#[test]
fn renewals_are_those_of_a_run_that_was_asked_for_them() {
    let renewals = |requested, deferred, failed| Renewals {
        requested,
        deferred,
        failed,
        error: None,
    };
    assert_found("which its run did not do", |_, snapshot| {
        images(snapshot).renewals = Some(Renewals::default());
    });
    for wrong in [
        renewals(1, 1, 1),
        renewals(0, u64::MAX, 2),
        renewals(0, 0, 1),
    ] {
        assert_found("than its AMIs and the error allow", |_, snapshot| {
            snapshot.policy.usage.as_mut().unwrap().renew_reports = true;
            images(snapshot).renewals = Some(wrong);
        });
    }
    let (archive, [_, last]) = Archive::with_images();
    forge(&archive, &last, |_, snapshot| {
        snapshot.policy.usage.as_mut().unwrap().renew_reports = true;
        images(snapshot).renewals = Some(renewals(1, 1, 0));
    });
    assert_eq!(problems(&archive), [""; 0]);
}

#[test]
fn a_line_has_to_agree_with_itself() {
    type Edit = fn(&mut ImageLine);
    let forgeries: [(&str, Edit); 9] = [
        ("last_observed", |line| {
            line.last_observed = line.as_of.map(|at| at.plus_seconds(-1))
        }),
        ("first_observed", |line| line.first_observed = None),
        ("as_of", |line| line.as_of = None),
        ("consumers", |line| line.observed_reports.clear()),
        ("consumers", |line| line.consumers[0].usage_count = Some(0)),
        ("consumers", |line| {
            let consumer = &mut line.consumers[0];
            consumer.first_observed = consumer.last_observed.plus_seconds(1);
        }),
        // The settings of the run do not ask for references.
        ("references", |line| {
            let started_at = "2026-11-23T06:00:00Z".parse().ok();
            line.references.push(Reference {
                resource_type: None,
                arn: None,
            });
            line.sources.push(SourceLine {
                source: "references".to_owned(),
                last_observed: started_at,
                covered_until: started_at,
            });
            (line.last_observed, line.as_of) = (started_at, started_at);
        }),
        ("image", |line| {
            let launched = line.as_of.unwrap();
            line.image.as_mut().unwrap().last_launched_time = Some(launched);
        }),
        ("references", |line| {
            line.references.push(Reference {
                resource_type: None,
                arn: None,
            });
        }),
    ];
    for (field, edit) in forgeries {
        let expected =
            format!("contradicts itself about {IN_USE}: its {field} does not agree with the rest");
        assert_found(&expected, |lines, _| edit(&mut lines[0]));
    }
    assert_found(
        "its observed_reports does not agree with the rest",
        |lines, _| {
            for (number, report) in lines[0].observed_reports.iter_mut().enumerate() {
                report.series_since = Some(report.creation_time);
                report.series_reports = Some(1 + 4 * number as u64);
            }
        },
    );
}

#[test]
fn lines_and_their_lists_are_in_order_each_once_and_bounded() {
    assert_found(
        &format!("has {IN_USE} out of order or for a second time"),
        |lines, _| {
            lines.reverse();
        },
    );
    assert_found(
        &format!("has {IN_USE} out of order or for a second time"),
        |lines, _| {
            lines[1] = lines[0].clone();
        },
    );
    assert_found(
        "is not in the form that the auditor writes for an AMI of",
        |lines, _| {
            lines[0].region = "us-east-1".parse().unwrap();
        },
    );
    type Edit = fn(&mut ImageLine);
    let forgeries: [(&str, Edit); 6] = [
        ("consumers", |line| line.consumers_omitted = 1),
        ("consumers", |line| {
            line.consumers.push(line.consumers[0].clone())
        }),
        ("references", |line| line.references_omitted = 1),
        ("references", |line| {
            let arn = |number| Reference {
                resource_type: None,
                arn: Some(format!("{number:03}")),
            };
            line.references = (0..101).map(arn).collect();
        }),
        ("sources", |line| line.sources.reverse()),
        ("observed_reports", |line| line.observed_reports.reverse()),
    ];
    for (list, edit) in forgeries {
        let expected =
            format!("has {list} of {IN_USE} out of order, listed twice, or wrongly omitted");
        assert_found(&expected, |lines, _| edit(&mut lines[0]));
    }
}

#[test]
fn what_a_line_says_of_reports_is_what_its_run_archived() {
    let other = format!("sums up other reports about {IN_USE} than its run archived");
    assert_found(&other, |lines, _| lines[0].reports.error = 0);
    assert_found(&other, |lines, _| lines[0].reports.newest_available = None);
    assert_found(
        &format!("sums up other reports about {GOING}"),
        |lines, _| {
            lines[1].reports.available = 1;
        },
    );
    assert_found(
        &format!("has no line for {IN_USE}, which a report names"),
        |lines, snapshot| {
            lines.remove(0);
            images(snapshot).images_read = Some(0);
        },
    );
    assert_found(
        "has 1 AMIs that were read; the ledger counts 0",
        |_, snapshot| {
            images(snapshot).images_read = Some(0);
        },
    );
    assert_found(
        &format!("has no object with AMIs of 111122223333/eu-west-1; a report names {IN_USE}"),
        |_, snapshot| {
            images(snapshot).images_read = Some(0);
            images(snapshot).images_object = None;
        },
    );
}

#[test]
fn what_the_run_read_is_in_its_lines_and_nothing_else() {
    let cites = |what: &str| format!("cites {what} for {IN_USE}, which does not say so");
    assert_found(&cites("amiur-23-0"), |lines, _| {
        lines[0].consumers[0].usage_count = Some(4)
    });
    assert_found(&cites("amiur-23-0"), |lines, _| {
        let mut other = lines[0].consumers[0].clone();
        other.consumer_account_id = Some("999999999999".to_owned());
        lines[0].consumers.push(other);
    });
    assert_found(&cites("amiur-22-9"), |lines, _| {
        let last = lines[0].observed_reports.last().unwrap().clone();
        lines[0].observed_reports.push(ObservedReportLine {
            report_id: "amiur-22-9".to_owned(),
            creation_time: last.creation_time.plus_seconds(1),
            series_since: None,
            series_reports: None,
            ..last
        });
    });
    let leaves_out =
        |field: &str| format!("leaves out of the {field} of {IN_USE} what its run read");
    assert_found(&leaves_out("consumers"), |lines, _| {
        lines[0].consumers.clear()
    });
    assert_found(&leaves_out("observed_reports"), |lines, _| {
        lines[0].consumers.clear();
        lines[0].observed_reports.pop();
        lines[0].observation = lines[0].usage().observed.latest();
    });
    assert_found(&leaves_out("consumers"), |lines, _| {
        let earlier = lines[0].observed_reports[0].clone();
        let consumer = &mut lines[0].consumers[0];
        (consumer.report_id, consumer.last_observed) = (earlier.report_id, earlier.creation_time);
    });
    assert_found(&leaves_out("sources"), |lines, _| {
        lines[0].sources[0].covered_until = None;
    });
    assert_found(&leaves_out("observed_reports"), |lines, _| {
        let last = lines[0].observed_reports.last_mut().unwrap();
        (last.series_since, last.series_reports) = (None, None);
        lines[0].observation = lines[0].usage().observed.latest();
    });
    // As if nobody had ever used it.
    assert_found(&leaves_out("first_observed"), |lines, _| {
        let line = &mut lines[0];
        line.consumers.clear();
        (line.first_observed, line.last_observed) = (None, None);
        for source in &mut line.sources {
            source.last_observed = None;
        }
        line.verdict = Verdict::Unknown;
        line.reasons = reasons_again(line);
    });
}

/// The reasons that the rules give for a line that was changed.
fn reasons_again(line: &ImageLine) -> BTreeSet<Reason> {
    let look = Look {
        started_at: "2026-11-23T06:00:00Z".parse().unwrap(),
        observation_days: 30,
        is_target_read: true,
        image: ImageLook::Read {
            creation_time: None,
        },
        reports: &line.reports,
        references: ReferencesLook::NotWanted,
    };
    judge(&line.usage(), &look).reasons
}

#[test]
fn entries_of_earlier_runs_that_a_line_relies_on_are_there() {
    let (archive, [first, last]) = Archive::with_images();
    forge(&archive, &last, |lines, _| {
        lines[0].observed_reports[0].report_id = "amiur-22-7".to_owned();
    });
    let expected = format!(
        "{} contains none of the entries of amiur-22-7; {} says that they were read",
        first.entries, last.images
    );
    assert!(
        problems(&archive).contains(&expected),
        "{:#?}",
        problems(&archive)
    );
    assert_found(
        "which is not a key of 111122223333/eu-west-1",
        |lines, _| {
            let key = &mut lines[0].observed_reports[0].entries_key;
            *key = key.replace("/entries/", "/reports/");
        },
    );
}

#[test]
fn nothing_that_the_run_before_knew_is_forgotten() {
    assert_found(
        &format!("has no line for {GOING}, which the run before had"),
        |lines, snapshot| {
            lines.remove(1);
            let changes = snapshot.changes.as_mut().unwrap();
            changes.verdicts.as_mut().unwrap().verdicts.clear();
            let counts = snapshot.counts.images.as_mut().unwrap();
            (counts.total, counts.gone) = (1, 0);
        },
    );
    let forgets = format!("forgets when use of {IN_USE} was observed: the run before knew more");
    assert_found(&forgets, |lines, _| {
        let line = &mut lines[0];
        line.first_observed = line.last_observed;
        line.consumers[0].first_observed = line.consumers[0].last_observed;
    });
}

#[test]
fn counts_and_changed_verdicts_are_those_of_the_lines() {
    assert_found(
        "states other counts than its objects contain",
        |_, snapshot| {
            snapshot.counts.images.as_mut().unwrap().unknown = 7;
        },
    );
    assert_found(
        "states other counts than its objects contain",
        |_, snapshot| {
            snapshot.counts.images = None;
        },
    );
    fn listed(snapshot: &mut Snapshot) -> &mut Vec<ChangedVerdict> {
        let changes = snapshot.changes.as_mut().unwrap();
        &mut changes.verdicts.as_mut().unwrap().verdicts
    }
    let unlike = |from: &str, to: &str| {
        format!(
            "lists a change of {GOING} in 111122223333/eu-west-1 from {from} to {to}, which its lines do not show"
        )
    };
    assert_found(&unlike("unknown", "in_use"), |_, snapshot| {
        listed(snapshot)[0].to = Verdict::InUse;
    });
    assert_found(&unlike("in_use", "gone"), |_, snapshot| {
        listed(snapshot)[0].from = Verdict::InUse;
    });
    assert_found(
        &format!("does not list the changed verdict of {GOING}"),
        |_, snapshot| {
            listed(snapshot).clear();
        },
    );
    let contradicts = "contradicts its ledger";
    assert_found(contradicts, |_, snapshot| {
        listed(snapshot)[0].to = Verdict::Unknown
    });
    assert_found(contradicts, |_, snapshot| {
        let twice = listed(snapshot)[0].clone();
        listed(snapshot).push(twice);
    });
    assert_found(contradicts, |_, snapshot| {
        listed(snapshot)[0].region = "us-east-1".parse().unwrap();
    });
    assert_found(contradicts, |_, snapshot| {
        snapshot
            .changes
            .as_mut()
            .unwrap()
            .verdicts
            .as_mut()
            .unwrap()
            .verdicts_omitted = 1;
    });
    assert_found(contradicts, |_, snapshot| {
        let changes = snapshot.changes.as_mut().unwrap();
        changes.verdicts.as_mut().unwrap().images_not_carried =
            vec!["111122223333/eu-west-1".to_owned()];
    });
    assert_found("says nothing about changed verdicts", |_, snapshot| {
        snapshot.changes.as_mut().unwrap().verdicts = None;
    });
}

#[test]
fn the_ledger_says_what_was_read_of_amis_and_only_where_it_was_asked_for() {
    let error = || TargetError {
        code: "UnauthorizedOperation".to_owned(),
        message: "no".to_owned(),
        request_id: None,
    };
    type Edit = fn(&mut Snapshot, TargetError);
    let forgeries: [(&str, Edit); 9] = [
        ("says nothing about the AMIs of", |snapshot, _| {
            snapshot.targets[0].images = None;
        }),
        ("but no policy for them", |snapshot, _| {
            snapshot.policy.usage = None
        }),
        ("which its run did not read", |snapshot, _| {
            snapshot.policy.usage.as_mut().unwrap().images = false;
        }),
        ("which its run did not read", |snapshot, _| {
            snapshot.scope.full = false;
            snapshot.scope.image_ids = vec![IN_USE.to_owned()];
            (snapshot.previous, snapshot.changes) = (None, None);
        }),
        ("were read, and an error", |snapshot, error| {
            images(snapshot).images_error = Some(error);
        }),
        ("states neither that the AMIs of", |snapshot, _| {
            images(snapshot).images_read = None;
        }),
        (
            "counts 3 AMIs of 111122223333/eu-west-1; their object has 2 lines",
            |snapshot, _| {
                images(snapshot).images_read = Some(3);
            },
        ),
        ("names image-usage/v1/entries/", |snapshot, error| {
            let line = &mut snapshot.targets[0];
            line.status = TargetStatus::Incomplete;
            line.error = Some(error);
            line.earlier_objects = vec![line.entries_object.clone().unwrap()];
        }),
        ("which is not a key of this run", |snapshot, _| {
            let entries = snapshot.targets[0].entries_object.clone();
            images(snapshot).images_object = entries;
        }),
    ];
    for (expected, edit) in forgeries {
        let (archive, [_, last]) = Archive::with_images();
        let bytes = fs::read(archive.file(&last.snapshot)).unwrap();
        let mut snapshot: Snapshot = serde_json::from_slice(&bytes).unwrap();
        edit(&mut snapshot, error());
        let bytes = snapshot.to_bytes().unwrap();
        archive.write(&last.snapshot, &bytes);
        archive.write("v1/latest.json", &bytes);
        let found = problems(&archive);
        let is_there = found.iter().any(|problem| problem.contains(expected));
        assert!(is_there, "expected: {expected}\nfound: {found:#?}");
    }
}

#[test]
fn a_target_that_was_not_read_may_carry_lines() {
    let (archive, [first, last]) = Archive::with_images();
    let before = fs::read(archive.file(&first.snapshot)).unwrap();
    let before: Snapshot = serde_json::from_slice(&before).unwrap();
    let lines = read_lines(&archive, &first);
    fs::remove_file(archive.file(&last.reports)).unwrap();
    fs::remove_file(archive.file(&last.entries)).unwrap();
    forge(&archive, &last, |now, snapshot| {
        *now = lines
            .into_iter()
            .map(|line| line.not_read_at(snapshot.started_at, 30, false))
            .collect();
        let verdicts: Vec<_> = now.iter().map(|line| line.verdict).collect();
        assert_eq!(verdicts, [Verdict::InUse, Verdict::Unknown]);
        let line = &mut snapshot.targets[0];
        (line.status, line.pages, line.reports) = (TargetStatus::Failed, 0, 0);
        (line.object, line.entries_object) = (None, None);
        line.error = Some(TargetError {
            code: "UnauthorizedOperation".to_owned(),
            message: "no".to_owned(),
            request_id: None,
        });
        line.earlier_objects = before.targets[0].object.clone().into_iter().collect();
        images(snapshot).images_read = None;
        let mut counts = snapshot.counts;
        (counts.reports, counts.findings, counts.entries) = Default::default();
        counts.findings.uncovered = Some(0);
        (counts.targets.complete, counts.targets.failed) = (0, 1);
        let of_images = counts.images.as_mut().unwrap();
        (of_images.gone, of_images.unknown) = (0, 1);
        snapshot.counts = counts;
        snapshot.status = counts.run_status();
        snapshot.findings.clear();
        let changes = snapshot.changes.as_mut().unwrap();
        changes.verdicts.as_mut().unwrap().verdicts.clear();
    });
    assert_eq!(problems(&archive), [""; 0]);
}
