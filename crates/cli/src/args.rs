//! The arguments.

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};
use clap_complete::Shell;

#[derive(Parser)]
#[command(version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
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
