//! Verdicts and their reasons in words.

use super::{Reason, Verdict};

/// What no source of this archive shows.
pub const BLIND_SPOTS: [&str; 7] = [
    "launch configurations, and overrides of Auto Scaling groups and fleets",
    "AMI IDs that are written in code or in templates that are not deployed",
    "selection of an AMI by its name or its tags",
    "SSM parameters of other accounts",
    "copies of the AMI, which are AMIs of their own",
    "accounts that have lost the permission to launch it",
    "whoever launches a public AMI without standing in a report",
];

/// What happens to those who use an AMI that goes.
pub const CONSEQUENCES: [&str; 3] = [
    "instances that run keep running, and cannot be replaced",
    "launch templates, Auto Scaling groups and SSM parameters that name it fail at the next launch",
    "Image Builder recipes that build on it fail at the next build",
];

/// Returns a verdict in words, to follow the AMI's name; `observation_days` is the observation time.
pub fn verdict_in_words(verdict: Verdict, observation_days: u32) -> String {
    match verdict {
        Verdict::Gone => "it no longer exists".to_owned(),
        Verdict::InUse => "in use".to_owned(),
        Verdict::NoUseObserved => {
            format!("nobody was observed to use it for {observation_days} days")
        }
        Verdict::LastSeenInUse => "it was used, and nothing shows that this has ended".to_owned(),
        Verdict::Unknown => "not known".to_owned(),
    }
}

/// Returns in words what keeps an AMI from `no_use_observed`, and what helps.
pub fn reason_in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::AccountsRestricted => {
            "its newest report was limited to some accounts: request one without accounts"
        }
        Reason::DepthShallow => {
            "its newest report looked at fewer than 1,000 versions of launch templates: request one with version-depth 10000"
        }
        Reason::EntriesNotArchived => {
            "an available report has not been read, and may show a use: the next run tries again"
        }
        Reason::ImageNotRead => {
            "the AMI itself was not read: see images_error of its target, and AUDITOR_IMAGES"
        }
        Reason::ImageTooYoung => {
            "it has not existed for the whole observation time, or its age is not known: wait"
        }
        Reason::NoReport => {
            "EC2 lists no report about it: request one each week, or set AUDITOR_RENEW_REPORTS"
        }
        Reason::ObservedTooBriefly => {
            "adequate reports without a use do not span the observation time yet: go on requesting one each week"
        }
        Reason::ReferencesNotChecked => {
            "the resources of its own account were not all checked: see references_error of its target, and AUDITOR_IMAGE_REFERENCES"
        }
        Reason::ReportFailed => "its newest report failed: request another one",
        Reason::ReportPending => "its newest report is pending: wait",
        Reason::Stale => "its last adequate report is older than 14 days: request another one",
        Reason::TargetNotRead => {
            "the reports of its account and Region could not be read: see the error of its target"
        }
        Reason::TypeNotCovered => {
            "a resource type was not asked about, or a type that was used is in no later report: request one for every type"
        }
    }
}
