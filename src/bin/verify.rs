//! Checks an archive of image usage reports, from a terminal.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use image_usage_auditor::verify::{Archive, Options, verify};

const USAGE: &str = "\
Usage: verify ARCHIVE [--head SHA256] [--every-hours N]

Checks that nothing in an archive of image usage reports was lost or changed.

ARCHIVE          s3://bucket/prefix/ or a folder that holds a copy of it (in which v1/ lies);
                 credentials and Region for S3 come from the environment
--head SHA256    the snapshot with this digest, the head when it was noted, has to be on the chain
--every-hours N  runs are N hours apart; a gap of more than one and a half times that is a problem

Exit status: 0 if all is well, 1 if something is wrong, 2 if the archive could not be looked at.
";

/// The exit status of whoever could not look.
const COULD_NOT_LOOK: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let (text, status) = match answer().await {
        Ok(answer) => answer,
        Err(error) => {
            let mut text = format!("verify: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                text += &format!(": {error}");
                cause = error.source();
            }
            // Nobody is left to be told.
            let _ = writeln!(io::stderr(), "{text}");
            return ExitCode::from(COULD_NOT_LOOK);
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => status,
        // A verdict that nobody could read is none; a problem stays one.
        Err(_) if status == ExitCode::SUCCESS => ExitCode::from(COULD_NOT_LOOK),
        Err(_) => status,
    }
}

async fn answer() -> Result<(String, ExitCode), Box<dyn Error>> {
    let Some((location, options)) = arguments()? else {
        return Ok((USAGE.to_owned(), ExitCode::SUCCESS));
    };
    let archive = Archive::at(&location).await?;
    let verdict = verify(&archive, &options).await?;
    let status = match verdict.is_clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    Ok((verdict.to_string(), status))
}

/// The archive's place and the options; `None` for whoever asks for help.
fn arguments() -> Result<Option<(String, Options)>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut location = None;
    let mut options = Options::default();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("head") => {
                let digest = arguments.value()?.string()?.to_ascii_lowercase();
                let is_hex = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
                if digest.len() != 64 || !is_hex {
                    return Err(
                        format!("--head is `{digest}`: give a SHA-256 in 64 hex digits").into(),
                    );
                }
                options.head = Some(digest);
            }
            Long("every-hours") => {
                let hours = arguments.value()?.parse()?;
                if hours == 0 {
                    return Err("--every-hours is 0: give the hours between two runs".into());
                }
                options.every_hours = Some(hours);
            }
            Value(value) if location.is_none() => location = Some(value.string()?),
            other => return Err(other.unexpected()),
        }
    }
    match location {
        Some(location) => Ok(Some((location, options))),
        None => Err("name the archive: s3://bucket/prefix/ or a folder; --help tells more".into()),
    }
}
