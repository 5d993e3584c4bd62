//! Reads and checks an archive of EC2 image usage reports, from a terminal.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use image_usage_archive::source::Archive;
use image_usage_archive::verify::{Options, verify};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check that nothing in an archive was lost or changed.
    Verify(Verify),
}

#[derive(Args)]
struct Verify {
    /// s3://bucket/prefix/ or a folder that holds a copy of it (in which v1/ is).
    archive: String,
    /// The SHA-256 of a snapshot that must be on the chain.
    #[arg(long, value_parser = digest)]
    head: Option<String>,
    /// Runs are this many hours apart; a gap of more than one and a half times that is a problem.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    every_hours: Option<u32>,
}

fn digest(text: &str) -> Result<String, String> {
    let digest = text.to_ascii_lowercase();
    let is_hex = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    match digest.len() == 64 && is_hex {
        true => Ok(digest),
        false => Err("give a SHA-256 in 64 hex digits".to_owned()),
    }
}

/// The exit status if the archive could not be read.
const COULD_NOT_LOOK: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Command::Verify(arguments) = Cli::parse().command;
    let (text, status) = match answer(arguments).await {
        Ok(answer) => answer,
        Err(error) => {
            let mut text = format!("image-usage: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                text += &format!(": {error}");
                cause = error.source();
            }
            let _ = writeln!(io::stderr(), "{text}");
            return ExitCode::from(COULD_NOT_LOOK);
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => status,
        // If the verdict cannot be printed, do not report success.
        Err(_) if status == ExitCode::SUCCESS => ExitCode::from(COULD_NOT_LOOK),
        Err(_) => status,
    }
}

async fn answer(arguments: Verify) -> Result<(String, ExitCode), Box<dyn Error>> {
    let Verify {
        archive,
        head,
        every_hours,
    } = arguments;
    let archive = Archive::at(&archive).await?;
    let verdict = verify(&archive, &Options { head, every_hours }).await?;
    let status = match verdict.is_clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    Ok((verdict.to_string(), status))
}
