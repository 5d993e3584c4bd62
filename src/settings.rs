//! The function's settings, read once from the environment.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use image_usage_archive::aws::WriteHeaders;
use image_usage_archive::domain::findings::{Policy, UsagePolicy};
use image_usage_archive::domain::target::{AccountId, Region};
use image_usage_archive::layout::Layout;

/// The function's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `AUDITOR_ARCHIVE_BUCKET`: the bucket of the archive.
    pub archive_bucket: String,
    /// `AUDITOR_ARCHIVE_PREFIX`: the key prefix of the archive.
    pub archive_prefix: Layout,
    /// `AUDITOR_ARCHIVE_ENCRYPTION` and `AUDITOR_ARCHIVE_ACL`: what the bucket demands of every write.
    pub write_headers: WriteHeaders,
    /// `AUDITOR_REGIONS`: the Regions to audit.
    pub regions: RegionChoice,
    /// `AUDITOR_EXCLUDED_REGIONS`: Regions that are never audited, unless a request names them.
    pub excluded_regions: BTreeSet<Region>,
    /// `AUDITOR_ACCOUNTS`: the accounts to audit.
    pub accounts: AccountChoice,
    /// `AUDITOR_EXCLUDED_ACCOUNTS`: accounts that are never audited, unless a request names them.
    pub excluded_accounts: BTreeSet<AccountId>,
    /// `AUDITOR_ROLE_NAME`: the role to assume in every other account.
    pub role_name: Option<String>,
    /// `AUDITOR_EXTERNAL_ID`: the external ID for that role.
    pub external_id: Option<String>,
    /// `AUDITOR_EXPIRY_WINDOW_DAYS` and `AUDITOR_PENDING_LIMIT_HOURS`: the limits of the rules. And
    /// `AUDITOR_OBSERVATION_DAYS`, `AUDITOR_IMAGES`, `AUDITOR_IMAGE_REFERENCES`, `AUDITOR_IMAGE_TAG`,
    /// `AUDITOR_RENEW_REPORTS` and `AUDITOR_RENEW_AFTER_DAYS`: those about AMIs.
    pub policy: Policy,
    /// `AUDITOR_MAX_CONCURRENT_TARGETS`: how many targets are audited at a time.
    pub max_concurrent_targets: usize,
    /// `AUDITOR_PAGE_SIZE`: how many rows are requested in one call; `None` for up to 1,000 in a listing.
    pub page_size: Option<u32>,
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
    /// These.
    Listed(BTreeSet<Region>),
}

/// The accounts to audit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccountChoice {
    /// The function's own account.
    Own,
    /// Every active account of the organization.
    Organization,
    /// These.
    Listed(BTreeSet<AccountId>),
}

/// A setting that the function cannot start with.
#[derive(Debug, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct InvalidSettings {
    variable: &'static str,
    problem: String,
}

/// The length of S3 bucket names.
///
/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
const BUCKET_NAME_CHARACTERS: RangeInclusive<usize> = 3..=63;

/// A report lives for about 30 days: a larger window would flag every report at all times.
const EXPIRY_WINDOW_DAYS: RangeInclusive<u32> = 0..=30;

/// A limit of 0 hours would flag every report that has just been requested.
const PENDING_LIMIT_HOURS: RangeInclusive<u32> = 1..=u32::MAX;

/// A shorter time than a day proves nothing; the longest covers a year's last run.
const OBSERVATION_DAYS: RangeInclusive<u32> = 1..=400;

/// EC2 deletes a report after about 30 days: a later one would leave a gap.
const RENEW_AFTER_DAYS: RangeInclusive<u32> = 1..=29;

/// Each target under way holds a page and a part of an upload in memory.
const MAX_CONCURRENT_TARGETS: RangeInclusive<u32> = 1..=64;

/// EC2 documents no largest page; other describe calls end at 1,000.
const PAGE_SIZE: RangeInclusive<u32> = 1..=1_000;

const REGION_LIST: &str = "Region names separated by commas";
const ACCOUNT_LIST: &str = "account IDs separated by commas";

impl InvalidSettings {
    /// An error for an environment that does not name the function's own Region.
    pub fn no_region() -> Self {
        let problem =
            "names no Region: Lambda sets it; elsewhere set it to a name such as eu-west-1";
        Self::new("AWS_REGION", problem.to_owned())
    }

    fn new(variable: &'static str, problem: String) -> Self {
        Self { variable, problem }
    }
}

impl Settings {
    /// Reads the settings from the process's environment.
    ///
    /// # Errors
    /// Fails at the first variable that is missing or invalid, or that is not UTF-8.
    pub fn from_environment() -> Result<Self, InvalidSettings> {
        // What is not UTF-8 is shown with replacement characters, and then refused like any wrong value.
        Self::from_variables(|name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    /// Reads the settings with the given look-up of variables.
    ///
    /// An unset variable means its default, and so does an empty one, as `sam local invoke` sets it. Only the
    /// prefix may be empty.
    ///
    /// # Errors
    /// Fails at the first variable that is missing or invalid, with its name, its value and what would
    /// be right.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidSettings> {
        let prefix = get("AUDITOR_ARCHIVE_PREFIX");
        let variables = Variables(|name: &str| get(name).filter(|value| !value.trim().is_empty()));
        let settings = Self {
            archive_bucket: variables.bucket_name("AUDITOR_ARCHIVE_BUCKET")?,
            archive_prefix: archive_prefix("AUDITOR_ARCHIVE_PREFIX", prefix)?,
            write_headers: WriteHeaders {
                encryption: variables.parsed("AUDITOR_ARCHIVE_ENCRYPTION")?,
                acl: variables.parsed("AUDITOR_ARCHIVE_ACL")?,
            },
            regions: variables.regions("AUDITOR_REGIONS")?,
            excluded_regions: variables.list("AUDITOR_EXCLUDED_REGIONS", REGION_LIST)?,
            accounts: variables.accounts("AUDITOR_ACCOUNTS")?,
            excluded_accounts: variables.list("AUDITOR_EXCLUDED_ACCOUNTS", ACCOUNT_LIST)?,
            role_name: variables.role_name("AUDITOR_ROLE_NAME")?,
            external_id: variables.external_id("AUDITOR_EXTERNAL_ID")?,
            policy: Policy {
                expiry_window_days: variables.number(
                    "AUDITOR_EXPIRY_WINDOW_DAYS",
                    EXPIRY_WINDOW_DAYS,
                    7,
                )?,
                pending_limit_hours: variables.number(
                    "AUDITOR_PENDING_LIMIT_HOURS",
                    PENDING_LIMIT_HOURS,
                    24,
                )?,
                usage: Some(UsagePolicy {
                    observation_days: variables.number(
                        "AUDITOR_OBSERVATION_DAYS",
                        OBSERVATION_DAYS,
                        30,
                    )?,
                    images: variables.switch("AUDITOR_IMAGES", true)?,
                    image_references: variables.switch("AUDITOR_IMAGE_REFERENCES", false)?,
                    image_tag: variables.parsed("AUDITOR_IMAGE_TAG")?,
                    renew_reports: variables.switch("AUDITOR_RENEW_REPORTS", false)?,
                    renew_after_days: variables.number(
                        "AUDITOR_RENEW_AFTER_DAYS",
                        RENEW_AFTER_DAYS,
                        7,
                    )?,
                }),
            },
            max_concurrent_targets: variables.number(
                "AUDITOR_MAX_CONCURRENT_TARGETS",
                MAX_CONCURRENT_TARGETS,
                8,
            )? as usize,
            page_size: match variables.number("AUDITOR_PAGE_SIZE", PAGE_SIZE, 0)? {
                0 => None,
                size => Some(size),
            },
            archive_entries: variables.switch("AUDITOR_ARCHIVE_ENTRIES", true)?,
        };
        settings.check_role()?;
        settings.check_exclusions()?;
        settings.check_renewal()?;
        Ok(settings)
    }

    /// Another account than the function's own needs a role. Of a single account it is not known yet
    /// whether it is the function's own.
    fn check_role(&self) -> Result<(), InvalidSettings> {
        let needs_role = match &self.accounts {
            AccountChoice::Own => false,
            AccountChoice::Organization => true,
            AccountChoice::Listed(ids) => ids.len() > 1,
        };
        if needs_role && self.role_name.is_none() {
            let problem = "is not set, but AUDITOR_ACCOUNTS names other accounts: \
                           name the role to assume in each of them";
            return Err(InvalidSettings::new(
                "AUDITOR_ROLE_NAME",
                problem.to_owned(),
            ));
        }
        Ok(())
    }

    /// Reports are renewed of AMIs that were read.
    fn check_renewal(&self) -> Result<(), InvalidSettings> {
        match &self.policy.usage {
            Some(usage) if usage.renew_reports && !usage.images => {
                let problem = "is `true`, but AUDITOR_IMAGES is `false`: \
                               set that to `true` too, because reports are renewed of AMIs that are read";
                Err(InvalidSettings::new(
                    "AUDITOR_RENEW_REPORTS",
                    problem.to_owned(),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Something must be left of a list.
    fn check_exclusions(&self) -> Result<(), InvalidSettings> {
        let nothing_left = |list: &str| format!("excludes everything that {list} names");
        if let RegionChoice::Listed(regions) = &self.regions
            && regions.is_subset(&self.excluded_regions)
        {
            let problem = nothing_left("AUDITOR_REGIONS");
            return Err(InvalidSettings::new("AUDITOR_EXCLUDED_REGIONS", problem));
        }
        if let AccountChoice::Listed(accounts) = &self.accounts
            && accounts.is_subset(&self.excluded_accounts)
        {
            let problem = nothing_left("AUDITOR_ACCOUNTS");
            return Err(InvalidSettings::new("AUDITOR_EXCLUDED_ACCOUNTS", problem));
        }
        Ok(())
    }
}

fn archive_prefix(
    variable: &'static str,
    value: Option<String>,
) -> Result<Layout, InvalidSettings> {
    let text = value.as_deref().unwrap_or("image-usage/");
    text.parse()
        .map_err(|error| InvalidSettings::new(variable, format!("is invalid: {error}")))
}

/// Reads variables; an empty one counts as unset.
struct Variables<G>(G);

impl<G: Fn(&str) -> Option<String>> Variables<G> {
    fn text(&self, variable: &'static str) -> Option<String> {
        (self.0)(variable)
    }

    fn regions(&self, variable: &'static str) -> Result<RegionChoice, InvalidSettings> {
        Ok(match self.text(variable) {
            None => RegionChoice::Own,
            Some(text) if text.trim() == "all" => RegionChoice::All,
            Some(_) => {
                let expected = format!("{REGION_LIST}, or `all`");
                RegionChoice::Listed(self.list(variable, &expected)?)
            }
        })
    }

    fn accounts(&self, variable: &'static str) -> Result<AccountChoice, InvalidSettings> {
        Ok(match self.text(variable) {
            None => AccountChoice::Own,
            Some(text) if text.trim() == "organization" => AccountChoice::Organization,
            Some(_) => {
                let expected = format!("{ACCOUNT_LIST}, or `organization`");
                AccountChoice::Listed(self.list(variable, &expected)?)
            }
        })
    }

    /// A list separated by commas; empty if the variable is unset.
    fn list<T: FromStr<Err: fmt::Display> + Ord>(
        &self,
        variable: &'static str,
        expected: &str,
    ) -> Result<BTreeSet<T>, InvalidSettings> {
        let Some(text) = self.text(variable) else {
            return Ok(BTreeSet::new());
        };
        let values = text.split(',').map(|value| value.trim().parse());
        values.collect::<Result<_, _>>().map_err(|error| {
            let problem = format!("is `{text}`, but {error}; give {expected}");
            InvalidSettings::new(variable, problem)
        })
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(
        &self,
        variable: &'static str,
    ) -> Result<Option<T>, InvalidSettings> {
        let parsed = self.text(variable).map(|text| text.parse()).transpose();
        parsed.map_err(|error| InvalidSettings::new(variable, format!("is invalid: {error}")))
    }

    fn number(
        &self,
        variable: &'static str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> Result<u32, InvalidSettings> {
        let Some(text) = self.text(variable) else {
            return Ok(default);
        };
        // `parse` alone would accept `+7`.
        let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits_only && range.contains(&number) => Ok(number),
            _ => {
                let (least, most) = range.into_inner();
                let expected = match most {
                    u32::MAX => format!("{least} or more"),
                    _ => format!("from {least} to {most}"),
                };
                let comma = if most == u32::MAX { "," } else { "" };
                let problem = format!("is `{text}`: give a whole number{comma} {expected}");
                Err(InvalidSettings::new(variable, problem))
            }
        }
    }

    fn switch(&self, variable: &'static str, default: bool) -> Result<bool, InvalidSettings> {
        match self.text(variable).as_deref() {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(text) => {
                let problem = format!("is `{text}`: give `true` or `false`");
                Err(InvalidSettings::new(variable, problem))
            }
        }
    }

    fn bucket_name(&self, variable: &'static str) -> Result<String, InvalidSettings> {
        let Some(name) = self.text(variable) else {
            let problem = "is not set: name the S3 bucket of the archive";
            return Err(InvalidSettings::new(variable, problem.to_owned()));
        };
        let is_edge = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let bytes = name.as_bytes();
        let well_formed = BUCKET_NAME_CHARACTERS.contains(&bytes.len())
            && is_edge(bytes.first())
            && is_edge(bytes.last())
            && bytes
                .iter()
                .all(|byte| is_edge(Some(byte)) || matches!(byte, b'-' | b'.'));
        match well_formed {
            true => Ok(name),
            false => Err(InvalidSettings::new(
                variable,
                format!(
                    "is `{name}`: give the name of an S3 bucket, 3 to 63 lower-case letters, digits, hyphens and dots"
                ),
            )),
        }
    }

    /// A role's name, without a path.
    ///
    /// Source: <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html>
    fn role_name(&self, variable: &'static str) -> Result<Option<String>, InvalidSettings> {
        self.of_characters(variable, 1..=64, b"_+=,.@-", |name| {
            format!(
                "is `{name}`: give the name of a role without path or ARN, 1 to 64 letters, digits and any of _+=,.@-"
            )
        })
    }

    /// An external ID. It is half a secret, so the error does not repeat it.
    ///
    /// Source: <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>
    fn external_id(&self, variable: &'static str) -> Result<Option<String>, InvalidSettings> {
        self.of_characters(variable, 2..=1224, b"_+=,.@:/-", |_| {
            "is invalid: give 2 to 1224 letters, digits and any of _+=,.@:/-".to_owned()
        })
    }

    /// A text of letters, digits and some other characters.
    fn of_characters(
        &self,
        variable: &'static str,
        length: RangeInclusive<usize>,
        others: &[u8],
        problem: impl Fn(&str) -> String,
    ) -> Result<Option<String>, InvalidSettings> {
        let Some(text) = self.text(variable) else {
            return Ok(None);
        };
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
        match length.contains(&text.len()) && text.bytes().all(is_allowed) {
            true => Ok(Some(text)),
            false => Err(InvalidSettings::new(variable, problem(&text))),
        }
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
            write_headers: WriteHeaders::default(),
            regions: RegionChoice::Own,
            excluded_regions: BTreeSet::new(),
            accounts: AccountChoice::Own,
            excluded_accounts: BTreeSet::new(),
            role_name: None,
            external_id: None,
            policy: Policy {
                expiry_window_days: 7,
                pending_limit_hours: 24,
                usage: Some(UsagePolicy {
                    observation_days: 30,
                    images: true,
                    image_references: false,
                    image_tag: None,
                    renew_reports: false,
                    renew_after_days: 7,
                }),
            },
            max_concurrent_targets: 8,
            page_size: None,
            archive_entries: true,
        };
        assert_eq!(settings(&[]).unwrap(), defaults);
    }

    #[test]
    fn empty_variables_mean_their_defaults_but_for_the_prefix() {
        let empty: Vec<(&str, &str)> = [
            "AUDITOR_ARCHIVE_ENCRYPTION",
            "AUDITOR_ARCHIVE_ACL",
            "AUDITOR_REGIONS",
            "AUDITOR_EXCLUDED_REGIONS",
            "AUDITOR_ACCOUNTS",
            "AUDITOR_EXCLUDED_ACCOUNTS",
            "AUDITOR_ROLE_NAME",
            "AUDITOR_EXTERNAL_ID",
            "AUDITOR_EXPIRY_WINDOW_DAYS",
            "AUDITOR_PENDING_LIMIT_HOURS",
            "AUDITOR_MAX_CONCURRENT_TARGETS",
            "AUDITOR_PAGE_SIZE",
            "AUDITOR_ARCHIVE_ENTRIES",
            "AUDITOR_IMAGES",
            "AUDITOR_IMAGE_REFERENCES",
            "AUDITOR_OBSERVATION_DAYS",
            "AUDITOR_IMAGE_TAG",
            "AUDITOR_RENEW_REPORTS",
            "AUDITOR_RENEW_AFTER_DAYS",
        ]
        .map(|name| (name, ""))
        .to_vec();
        assert_eq!(settings(&empty).unwrap(), settings(&[]).unwrap());
        let bare = settings(&[("AUDITOR_ARCHIVE_PREFIX", "")]).unwrap();
        assert_eq!(bare.archive_prefix.latest(), "v1/latest.json");
        assert_eq!(
            refusal("AUDITOR_ARCHIVE_BUCKET", ""),
            "AUDITOR_ARCHIVE_BUCKET is not set: name the S3 bucket of the archive"
        );
    }

    #[test]
    fn exclusions_that_leave_nothing_of_a_list_are_refused() {
        let excluded = [
            ("AUDITOR_REGIONS", "eu-west-1"),
            ("AUDITOR_EXCLUDED_REGIONS", "us-east-1,eu-west-1"),
        ];
        assert_eq!(
            settings(&excluded).unwrap_err(),
            "AUDITOR_EXCLUDED_REGIONS excludes everything that AUDITOR_REGIONS names"
        );
        let excluded = [
            ("AUDITOR_ACCOUNTS", "111122223333"),
            ("AUDITOR_EXCLUDED_ACCOUNTS", "111122223333"),
        ];
        assert_eq!(
            settings(&excluded).unwrap_err(),
            "AUDITOR_EXCLUDED_ACCOUNTS excludes everything that AUDITOR_ACCOUNTS names"
        );
        let all = [
            ("AUDITOR_REGIONS", "all"),
            ("AUDITOR_EXCLUDED_REGIONS", "xx-nowhere-1"),
        ];
        assert_eq!(settings(&all).unwrap().excluded_regions.len(), 1);
    }

    #[test]
    fn lists_are_sorted_and_name_each_member_once() {
        let regions = settings(&[("AUDITOR_REGIONS", "us-east-1, eu-west-1,us-east-1")])
            .unwrap()
            .regions;
        let expected = ["eu-west-1", "us-east-1"].map(|name| name.parse().unwrap());
        assert_eq!(regions, RegionChoice::Listed(BTreeSet::from(expected)));
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
            (
                "AUDITOR_RENEW_AFTER_DAYS",
                "30",
                "AUDITOR_RENEW_AFTER_DAYS is `30`: give a whole number from 1 to 29",
            ),
            (
                "AUDITOR_RENEW_AFTER_DAYS",
                "0",
                "AUDITOR_RENEW_AFTER_DAYS is `0`: give a whole number from 1 to 29",
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
                "AUDITOR_ARCHIVE_ENCRYPTION",
                "kms",
                "AUDITOR_ARCHIVE_ENCRYPTION is invalid: `kms` is not a kind of encryption: `AES256`, `aws:kms`, or the ARN of a KMS key",
            ),
            (
                "AUDITOR_ARCHIVE_ACL",
                "public-read",
                "AUDITOR_ARCHIVE_ACL is invalid: `public-read` is not an ACL for the archive: `private`, `bucket-owner-read` or `bucket-owner-full-control`",
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
            (
                "AUDITOR_IMAGE_TAG",
                "=golden",
                "AUDITOR_IMAGE_TAG is invalid: `=golden` is not a tag: `Key` or `Key=Value`, with 1 to 128 characters in the key, at most 256 in the value, and no control characters",
            ),
            (
                "AUDITOR_RENEW_REPORTS",
                "yes",
                "AUDITOR_RENEW_REPORTS is `yes`: give `true` or `false`",
            ),
        ];
        for (variable, value, expected) in cases {
            assert_eq!(refusal(variable, value), expected);
        }
    }

    #[test]
    fn the_settings_of_coverage_and_renewal_are_read() {
        let settings = settings(&[
            ("AUDITOR_IMAGE_TAG", "Team=golden"),
            ("AUDITOR_RENEW_REPORTS", "true"),
            ("AUDITOR_RENEW_AFTER_DAYS", "14"),
        ]);
        let usage = settings.unwrap().policy.usage.unwrap();
        assert_eq!(usage.image_tag, "Team=golden".parse().ok());
        assert_eq!((usage.renew_reports, usage.renew_after_days), (true, 14));
    }

    #[test]
    fn reports_are_renewed_only_of_amis_that_are_read() {
        let variables = [
            ("AUDITOR_IMAGES", "false"),
            ("AUDITOR_RENEW_REPORTS", "true"),
        ];
        assert_eq!(
            settings(&variables).unwrap_err(),
            "AUDITOR_RENEW_REPORTS is `true`, but AUDITOR_IMAGES is `false`: set that to `true` too, \
             because reports are renewed of AMIs that are read"
        );
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
