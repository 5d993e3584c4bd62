//! The function's settings, read once from the environment.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use image_usage_archive::domain::findings::Policy;
use image_usage_archive::domain::target::{AccountId, Region};
use image_usage_archive::layout::Prefix;

/// What the function is told by its environment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `AUDITOR_ARCHIVE_BUCKET`: the bucket of the archive.
    pub archive_bucket: String,
    /// `AUDITOR_ARCHIVE_PREFIX`: the key prefix of the archive.
    pub archive_prefix: Prefix,
    /// `AUDITOR_REGIONS`: the Regions to audit.
    pub regions: RegionChoice,
    /// `AUDITOR_ACCOUNTS`: the accounts to audit.
    pub accounts: AccountChoice,
    /// `AUDITOR_ROLE_NAME`: the role to assume in every other account.
    pub role_name: Option<String>,
    /// `AUDITOR_EXTERNAL_ID`: the external ID for that role.
    pub external_id: Option<String>,
    /// `AUDITOR_EXPIRY_WINDOW_DAYS` and `AUDITOR_PENDING_LIMIT_HOURS`: the limits of the rules.
    pub policy: Policy,
    /// `AUDITOR_MAX_CONCURRENT_TARGETS`: how many targets are audited at a time.
    pub max_concurrent_targets: usize,
    /// `AUDITOR_PAGE_SIZE`: how many reports are asked for in one call.
    pub page_size: u32,
    /// `AUDITOR_ARCHIVE_ENTRIES`: whether the entries of available reports are archived too.
    pub archive_entries: bool,
}

/// The Regions to audit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RegionChoice {
    /// The function's own Region.
    Own,
    /// Every Region that is enabled for each account.
    All,
    /// These, sorted, each once.
    Listed(Vec<Region>),
}

/// The accounts to audit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccountChoice {
    /// The function's own account.
    Own,
    /// Every active account of the organization.
    Organization,
    /// These, sorted, each once.
    Listed(Vec<AccountId>),
}

/// A setting that the function cannot start with.
#[derive(Debug, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct InvalidSettings {
    variable: &'static str,
    problem: String,
}

/// Bounds of S3's bucket names.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
const BUCKET_NAME_CHARACTERS: RangeInclusive<usize> = 3..=63;

/// EC2 keeps a report for 30 days, so a longer window would flag every report at all times.
const EXPIRY_WINDOW_DAYS: RangeInclusive<u32> = 0..=30;

/// A limit of no hours would flag every report that has just been asked for.
const PENDING_LIMIT_HOURS: RangeInclusive<u32> = 1..=u32::MAX;

/// Each target at work holds a page and a part of an upload in memory.
const MAX_CONCURRENT_TARGETS: RangeInclusive<u32> = 1..=64;

/// EC2 documents no largest page; other describe calls end at 1,000.
const PAGE_SIZE: RangeInclusive<u32> = 1..=1_000;

impl InvalidSettings {
    /// Tells that nothing names the function's own Region.
    pub fn no_region() -> Self {
        let problem =
            "names no Region: Lambda sets it; elsewhere set it to a name such as eu-west-1"
                .to_owned();
        Self {
            variable: "AWS_REGION",
            problem,
        }
    }
}

impl Settings {
    /// Reads the settings from the process's environment.
    ///
    /// # Errors
    /// Fails at the first variable that is missing or invalid, or that isn't UTF-8.
    pub fn from_environment() -> Result<Self, InvalidSettings> {
        // What isn't UTF-8 is shown with replacement characters, and then refused like any wrong value.
        Self::from_variables(|name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    /// Reads the settings with the given look-up of variables.
    ///
    /// An unset variable means its default; one that is set, even to an empty text, must be valid.
    ///
    /// # Errors
    /// Fails at the first variable that is missing or invalid, with its name, its value and what would
    /// be right.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidSettings> {
        let archive_bucket = match variable("AUDITOR_ARCHIVE_BUCKET") {
            Some(name) => bucket_name(name)?,
            None => {
                let problem = "is not set: name the S3 bucket of the archive".to_owned();
                return Err(InvalidSettings {
                    variable: "AUDITOR_ARCHIVE_BUCKET",
                    problem,
                });
            }
        };
        let archive_prefix = parsed(
            "AUDITOR_ARCHIVE_PREFIX",
            variable("AUDITOR_ARCHIVE_PREFIX"),
            "image-usage/",
        )?;
        let regions = match variable("AUDITOR_REGIONS") {
            None => RegionChoice::Own,
            Some(text) if text.trim() == "all" => RegionChoice::All,
            Some(text) => RegionChoice::Listed(list(
                "AUDITOR_REGIONS",
                &text,
                "Region names separated by commas, or `all`",
            )?),
        };
        let accounts = match variable("AUDITOR_ACCOUNTS") {
            None => AccountChoice::Own,
            Some(text) if text.trim() == "organization" => AccountChoice::Organization,
            Some(text) => AccountChoice::Listed(list(
                "AUDITOR_ACCOUNTS",
                &text,
                "account IDs separated by commas, or `organization`",
            )?),
        };
        let role_name = variable("AUDITOR_ROLE_NAME").map(role_name).transpose()?;
        let external_id = variable("AUDITOR_EXTERNAL_ID")
            .map(external_id)
            .transpose()?;
        let needs_role = match &accounts {
            AccountChoice::Own => false,
            AccountChoice::Organization => true,
            AccountChoice::Listed(ids) => ids.len() > 1,
        };
        if needs_role && role_name.is_none() {
            let problem = "is not set, but AUDITOR_ACCOUNTS names other accounts: \
                           name the role to assume in each of them"
                .to_owned();
            return Err(InvalidSettings {
                variable: "AUDITOR_ROLE_NAME",
                problem,
            });
        }
        let number = |name, range, default| number(name, variable(name), range, default);
        let policy = Policy {
            expiry_window_days: number("AUDITOR_EXPIRY_WINDOW_DAYS", EXPIRY_WINDOW_DAYS, 7)?,
            pending_limit_hours: number("AUDITOR_PENDING_LIMIT_HOURS", PENDING_LIMIT_HOURS, 24)?,
        };
        let max_concurrent_targets =
            number("AUDITOR_MAX_CONCURRENT_TARGETS", MAX_CONCURRENT_TARGETS, 8)?;
        Ok(Self {
            archive_bucket,
            archive_prefix,
            regions,
            accounts,
            role_name,
            external_id,
            policy,
            max_concurrent_targets: max_concurrent_targets as usize,
            page_size: number("AUDITOR_PAGE_SIZE", PAGE_SIZE, 1_000)?,
            archive_entries: switch(
                "AUDITOR_ARCHIVE_ENTRIES",
                variable("AUDITOR_ARCHIVE_ENTRIES"),
                true,
            )?,
        })
    }
}

fn parsed<T: FromStr<Err: fmt::Display>>(
    variable: &'static str,
    value: Option<String>,
    default: &str,
) -> Result<T, InvalidSettings> {
    let text = value.as_deref().unwrap_or(default);
    text.parse().map_err(|error| InvalidSettings {
        variable,
        problem: format!("is invalid: {error}"),
    })
}

fn list<T: FromStr<Err: fmt::Display> + Ord>(
    variable: &'static str,
    text: &str,
    expected: &str,
) -> Result<Vec<T>, InvalidSettings> {
    let mut members = text
        .split(',')
        .map(|member| member.trim().parse())
        .collect::<Result<Vec<T>, _>>()
        .map_err(|error| {
            let problem = format!("is `{text}`, but {error}; give {expected}");
            InvalidSettings { variable, problem }
        })?;
    members.sort();
    members.dedup();
    Ok(members)
}

fn number(
    variable: &'static str,
    value: Option<String>,
    range: RangeInclusive<u32>,
    default: u32,
) -> Result<u32, InvalidSettings> {
    let Some(text) = value else {
        return Ok(default);
    };
    // `parse` alone would let `+7` pass.
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits_only && range.contains(&number) => Ok(number),
        _ => {
            let (least, most) = range.into_inner();
            let problem = match most {
                u32::MAX => format!("is `{text}`: give a whole number, {least} or more"),
                _ => format!("is `{text}`: give a whole number from {least} to {most}"),
            };
            Err(InvalidSettings { variable, problem })
        }
    }
}

fn switch(
    variable: &'static str,
    value: Option<String>,
    default: bool,
) -> Result<bool, InvalidSettings> {
    match value.as_deref() {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(text) => Err(InvalidSettings {
            variable,
            problem: format!("is `{text}`: give `true` or `false`"),
        }),
    }
}

fn bucket_name(name: String) -> Result<String, InvalidSettings> {
    let edge = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let bytes = name.as_bytes();
    let well_formed = BUCKET_NAME_CHARACTERS.contains(&bytes.len())
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| edge(Some(byte)) || matches!(byte, b'-' | b'.'));
    if well_formed {
        Ok(name)
    } else {
        let problem = format!(
            "is `{name}`: give the name of an S3 bucket, 3 to 63 lower-case letters, digits, hyphens and dots"
        );
        Err(InvalidSettings {
            variable: "AUDITOR_ARCHIVE_BUCKET",
            problem,
        })
    }
}

/// Checks a role's name, without a path.
///
/// Source: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html>
fn role_name(name: String) -> Result<String, InvalidSettings> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(name)
    } else {
        let problem = format!(
            "is `{name}`: give the name of a role without path or ARN, 1 to 64 letters, digits and any of _+=,.@-"
        );
        Err(InvalidSettings {
            variable: "AUDITOR_ROLE_NAME",
            problem,
        })
    }
}

/// Checks an external ID.
///
/// Source: <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
fn external_id(id: String) -> Result<String, InvalidSettings> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
    if (2..=1224).contains(&id.len()) && id.bytes().all(allowed) {
        Ok(id)
    } else {
        // The value is half a secret: it isn't repeated.
        let problem = "is invalid: give 2 to 1224 letters, digits and any of _+=,.@:/-".to_owned();
        Err(InvalidSettings {
            variable: "AUDITOR_EXTERNAL_ID",
            problem,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let found = |name: &str| {
            let given = variables.iter().find(|(given, _)| *given == name);
            let bucket = (name == "AUDITOR_ARCHIVE_BUCKET").then_some("archive");
            given.map(|(_, value)| *value).or(bucket).map(str::to_owned)
        };
        Settings::from_variables(found).map_err(|error| error.to_string())
    }

    fn refusal(variable: &str, value: &str) -> String {
        settings(&[(variable, value)]).unwrap_err()
    }

    #[test]
    fn unset_variables_mean_their_defaults() {
        let defaults = Settings {
            archive_bucket: "archive".to_owned(),
            archive_prefix: "image-usage/".parse().unwrap(),
            regions: RegionChoice::Own,
            accounts: AccountChoice::Own,
            role_name: None,
            external_id: None,
            policy: Policy {
                expiry_window_days: 7,
                pending_limit_hours: 24,
            },
            max_concurrent_targets: 8,
            page_size: 1_000,
            archive_entries: true,
        };
        assert_eq!(settings(&[]).unwrap(), defaults);
    }

    #[test]
    fn lists_are_sorted_and_name_each_member_once() {
        let regions = settings(&[("AUDITOR_REGIONS", "us-east-1, eu-west-1,us-east-1")])
            .unwrap()
            .regions;
        let expected = ["eu-west-1", "us-east-1"].map(|name| name.parse().unwrap());
        assert_eq!(regions, RegionChoice::Listed(expected.to_vec()));
        assert_eq!(
            settings(&[("AUDITOR_REGIONS", "all")]).unwrap().regions,
            RegionChoice::All
        );
    }

    #[test]
    fn numbers_outside_their_range_are_refused_with_the_range() {
        let cases = [
            (
                "AUDITOR_EXPIRY_WINDOW_DAYS",
                "31",
                "AUDITOR_EXPIRY_WINDOW_DAYS is `31`: give a whole number from 0 to 30",
            ),
            (
                "AUDITOR_EXPIRY_WINDOW_DAYS",
                "-1",
                "AUDITOR_EXPIRY_WINDOW_DAYS is `-1`: give a whole number from 0 to 30",
            ),
            (
                "AUDITOR_EXPIRY_WINDOW_DAYS",
                "7.5",
                "AUDITOR_EXPIRY_WINDOW_DAYS is `7.5`: give a whole number from 0 to 30",
            ),
            (
                "AUDITOR_EXPIRY_WINDOW_DAYS",
                "",
                "AUDITOR_EXPIRY_WINDOW_DAYS is ``: give a whole number from 0 to 30",
            ),
            (
                "AUDITOR_PENDING_LIMIT_HOURS",
                "0",
                "AUDITOR_PENDING_LIMIT_HOURS is `0`: give a whole number, 1 or more",
            ),
            (
                "AUDITOR_MAX_CONCURRENT_TARGETS",
                "65",
                "AUDITOR_MAX_CONCURRENT_TARGETS is `65`: give a whole number from 1 to 64",
            ),
            (
                "AUDITOR_PAGE_SIZE",
                "+7",
                "AUDITOR_PAGE_SIZE is `+7`: give a whole number from 1 to 1000",
            ),
        ];
        for (variable, value, expected) in cases {
            assert_eq!(refusal(variable, value), expected);
        }
    }

    #[test]
    fn a_window_of_no_days_is_a_setting_of_its_own() {
        let settings = settings(&[("AUDITOR_EXPIRY_WINDOW_DAYS", "0")]).unwrap();
        assert_eq!(settings.policy.expiry_window_days, 0);
    }

    #[test]
    fn names_that_are_none_are_refused_with_what_would_be_right() {
        let cases = [
            (
                "AUDITOR_ARCHIVE_BUCKET",
                "My_Bucket",
                "AUDITOR_ARCHIVE_BUCKET is `My_Bucket`: give the name of an S3 bucket, 3 to 63 lower-case letters, digits, hyphens and dots",
            ),
            (
                "AUDITOR_ARCHIVE_PREFIX",
                "audit",
                "AUDITOR_ARCHIVE_PREFIX is invalid: `audit` is not a key prefix: empty, or ending in `/`, not starting with `/`, without `//`, `.` or `..` between slashes or control characters, and at most 512 bytes long",
            ),
            (
                "AUDITOR_REGIONS",
                "us-east-1,",
                "AUDITOR_REGIONS is `us-east-1,`, but `` is not the name of a Region such as eu-west-1; give Region names separated by commas, or `all`",
            ),
            (
                "AUDITOR_ACCOUNTS",
                "1111",
                "AUDITOR_ACCOUNTS is `1111`, but `1111` is not an account ID: 12 digits such as 111122223333; give account IDs separated by commas, or `organization`",
            ),
            (
                "AUDITOR_ROLE_NAME",
                "arn:aws:iam::111122223333:role/x",
                "AUDITOR_ROLE_NAME is `arn:aws:iam::111122223333:role/x`: give the name of a role without path or ARN, 1 to 64 letters, digits and any of _+=,.@-",
            ),
            (
                "AUDITOR_EXTERNAL_ID",
                "?",
                "AUDITOR_EXTERNAL_ID is invalid: give 2 to 1224 letters, digits and any of _+=,.@:/-",
            ),
        ];
        for (variable, value, expected) in cases {
            assert_eq!(refusal(variable, value), expected);
        }
    }

    #[test]
    fn a_missing_bucket_is_asked_for() {
        let error = Settings::from_variables(|_| None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "AUDITOR_ARCHIVE_BUCKET is not set: name the S3 bucket of the archive"
        );
    }

    #[test]
    fn other_accounts_need_a_role() {
        let expected = "AUDITOR_ROLE_NAME is not set, but AUDITOR_ACCOUNTS names other accounts: \
                        name the role to assume in each of them";
        assert_eq!(refusal("AUDITOR_ACCOUNTS", "organization"), expected);
        assert_eq!(
            refusal("AUDITOR_ACCOUNTS", "111122223333,222233334444"),
            expected
        );
    }
}
