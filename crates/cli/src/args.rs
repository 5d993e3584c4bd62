//! The arguments.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use image_usage_archive::answer::Selection;
use image_usage_archive::domain::findings::FindingKind;
use image_usage_archive::domain::run_id::RunId;
use image_usage_archive::domain::target::{AccountId, Region};
use image_usage_archive::domain::timestamp::Timestamp;
use image_usage_archive::domain::usage::Verdict;

#[derive(Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Answer who uses an AMI, and what is not known.
    Who(Who),
    /// List the AMIs of an archive with their verdicts.
    Images(Images),
    /// List the reports that the next run would ask EC2 for, and why.
    Plan(Plan),
    /// List the findings of a run, about reports and AMIs.
    Findings(Findings),
    /// Write a run as one HTML page for people.
    Page(Page),
    /// Check that nothing in an archive was lost or changed.
    Verify(Verify),
    /// Print the completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  image-usage who ami-0abcdef1234567890 s3://my-bucket/image-usage/
  image-usage who ami-0abcdef1234567890 ./copy-of-the-archive --json | jq .verdict
  image-usage who ami-0abcdef1234567890 ./copy-of-the-archive --history
  IMAGE_USAGE_ARCHIVE=s3://my-bucket/image-usage/ image-usage who --gate - < retire.txt

Credentials and Region come from the environment and ~/.aws, as for the AWS CLI.

Exit status:
  0  answered; with --gate: nobody was observed to use any of the AMIs over the observation time
  1  with --gate: at least one AMI is in use, or was last seen in use
  2  an AMI is not known, or something could not be read; with --gate also: a verdict is `unknown` or `gone`")]
pub(crate) struct Who {
    /// AMI IDs, or - to read them from the standard input, one a line; then s3://bucket/prefix/, or a folder with
    /// a copy of it, unless IMAGE_USAGE_ARCHIVE names the archive.
    #[arg(
        required = true,
        value_name = "AMI|ARCHIVE",
        allow_hyphen_values = false
    )]
    pub(crate) arguments: Vec<String>,
    /// Print one JSON document per AMI, each on a line.
    #[arg(long, conflicts_with = "history")]
    pub(crate) json: bool,
    /// Print the verdict of every full run, oldest first.
    #[arg(long)]
    pub(crate) history: bool,
    /// Exit with 0 only if nobody was observed to use any of the AMIs.
    #[arg(long, conflicts_with = "history")]
    pub(crate) gate: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  image-usage images s3://my-bucket/image-usage/
  image-usage images ./copy-of-the-archive --verdict no_use_observed --region eu-west-1
  image-usage images ./copy-of-the-archive --uncovered
  image-usage images ./copy-of-the-archive --csv > images.csv

Credentials and Region come from the environment and ~/.aws, as for the AWS CLI.

Exit status:
  0  every AMI of the newest full run is listed
  2  something was not read, which the standard error names, or the run gave no verdicts")]
pub(crate) struct Images {
    /// s3://bucket/prefix/, or a folder with a copy of it (the one that contains v1/).
    #[arg(value_name = "ARCHIVE", value_hint = ValueHint::DirPath)]
    pub(crate) archive: String,
    /// Only AMIs that no recent report covers, and none that is being created.
    #[arg(long)]
    pub(crate) uncovered: bool,
    /// Only AMIs with this verdict; can be given several times.
    #[arg(long = "verdict", value_name = "VERDICT", value_parser = verdict)]
    pub(crate) verdicts: Vec<Verdict>,
    #[command(flatten)]
    pub(crate) part: Part,
    /// Those of this run; without it, those of the newest full run.
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<RunId>,
    /// Print comma-separated values for a spreadsheet. A cell that it would take for a formula starts with '.
    #[arg(long)]
    pub(crate) csv: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  image-usage plan s3://my-bucket/image-usage/
  image-usage plan ./copy-of-the-archive --at 2026-11-23T06:00:00Z --region eu-west-1

A run asks only if AUDITOR_RENEW_REPORTS is true. Reports that others have requested since the newest run are not known
here: the next run sees them.

Credentials and Region come from the environment and ~/.aws, as for the AWS CLI.

Exit status:
  0  every AMI of the newest full run was looked at
  2  something was not read, which the standard error names, or the run knows nothing of AMIs")]
pub(crate) struct Plan {
    /// s3://bucket/prefix/, or a folder with a copy of it (the one that contains v1/).
    #[arg(value_name = "ARCHIVE", value_hint = ValueHint::DirPath)]
    pub(crate) archive: String,
    /// The start of the next run, as RFC 3339; now, unless given.
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) part: Part,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  image-usage findings s3://my-bucket/image-usage/
  image-usage findings ./copy-of-the-archive --kind failed --kind stuck --region eu-west-1
  image-usage findings ./copy-of-the-archive --csv > findings.csv

Credentials and Region come from the environment and ~/.aws, as for the AWS CLI.

Exit status:
  0  every finding of the run is listed
  2  something was not read, which the standard error names")]
pub(crate) struct Findings {
    /// s3://bucket/prefix/, or a folder with a copy of it (the one that contains v1/).
    #[arg(value_name = "ARCHIVE", value_hint = ValueHint::DirPath)]
    pub(crate) archive: String,
    /// Only findings of this kind; can be given several times.
    #[arg(long = "kind", value_name = "KIND", value_parser = kind)]
    pub(crate) kinds: Vec<FindingKind>,
    #[command(flatten)]
    pub(crate) part: Part,
    /// Those of this run; without it, those of the newest full run.
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<RunId>,
    /// Print comma-separated values for a spreadsheet. A cell that it would take for a formula starts with '.
    #[arg(long)]
    pub(crate) csv: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  image-usage page s3://my-bucket/image-usage/ -o page.html
  image-usage page ./copy-of-the-archive --run 20261122T060000Z-7bf73129 -o page.html
  image-usage page ./copy-of-the-archive -o - | less

The function writes the same page to v1/pages/ at the end of each run, and to v1/latest.html.

Credentials and Region come from the environment and ~/.aws, as for the AWS CLI.

Exit status:
  0  the page was written, from everything that the run names
  2  it was not, or something was not read, which the standard error names")]
pub(crate) struct Page {
    /// s3://bucket/prefix/, or a folder with a copy of it (the one that contains v1/).
    #[arg(value_name = "ARCHIVE", value_hint = ValueHint::DirPath)]
    pub(crate) archive: String,
    /// The run, full or scoped; without it, the newest full run.
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<RunId>,
    /// The file to write, or - for the standard output.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
}

/// The part of a run that is asked for.
#[derive(Args)]
pub(crate) struct Part {
    /// Only those of this account.
    #[arg(long, value_name = "ID")]
    account: Option<AccountId>,
    /// Only those of this Region.
    #[arg(long, value_name = "NAME")]
    region: Option<Region>,
}

impl From<Part> for Selection {
    fn from(part: Part) -> Self {
        Self {
            account_id: part.account,
            region: part.region,
            ..Self::default()
        }
    }
}

fn kind(text: &str) -> Result<FindingKind, String> {
    let words = FindingKind::ALL.map(FindingKind::as_str);
    let known = FindingKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == text);
    known.ok_or_else(|| format!("use one of {}", words.join(", ")))
}

fn verdict(text: &str) -> Result<Verdict, String> {
    let words = Verdict::ALL.map(Verdict::as_str);
    let known = Verdict::ALL
        .into_iter()
        .find(|verdict| verdict.as_str() == text);
    known.ok_or_else(|| format!("use one of {}", words.join(", ")))
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  image-usage verify s3://my-bucket/image-usage/
  image-usage verify ./copy-of-the-archive --every-hours 24
  image-usage verify s3://my-bucket/image-usage/ --json | jq .head.sha256
  image-usage verify s3://my-bucket/image-usage/ --head \"$(cat head.sha256)\"

Credentials and Region come from the environment and ~/.aws, as for the AWS CLI.

Exit status:
  0  sound: everything was read, and nothing is wrong
  1  there are problems
  2  no problem was found, but an archive or an object could not be read")]
pub(crate) struct Verify {
    /// s3://bucket/prefix/, or a folder with a copy of it (the one that contains v1/).
    #[arg(required = true, value_name = "ARCHIVE", value_hint = ValueHint::DirPath)]
    pub(crate) archives: Vec<String>,
    /// The SHA-256 of a snapshot that must be on the chain: the head that an earlier check printed.
    #[arg(long, value_name = "SHA256", value_parser = digest)]
    pub(crate) head: Option<String>,
    /// Runs are this many hours apart; a gap of more than one and a half times that is a problem.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) every_hours: Option<u32>,
    /// Print one JSON document per archive, each on a line.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Verify {
    /// Ends the program with a usage error if the arguments contradict each other.
    pub(crate) fn check(&self) {
        if self.head.is_some() && self.archives.len() > 1 {
            let what = "--head is the digest of one archive, but several are given";
            Cli::command()
                .error(ErrorKind::ArgumentConflict, what)
                .exit();
        }
    }
}

fn digest(text: &str) -> Result<String, String> {
    let digest = text.to_ascii_lowercase();
    let is_hex = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    match digest.len() == 64 && is_hex {
        true => Ok(digest),
        false => Err("a SHA-256 has 64 hex digits".to_owned()),
    }
}
