//! The command line for archives of EC2 image usage reports.

mod args;
mod commands;
mod rows;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Who(arguments) => commands::who::run(arguments).await,
        Command::Images(arguments) => commands::images::run(arguments).await,
        Command::Plan(arguments) => commands::plan::run(arguments).await,
        Command::Findings(arguments) => commands::findings::run(arguments).await,
        Command::Page(arguments) => commands::page::run(arguments).await,
        Command::Verify(arguments) => return commands::verify::run(arguments).await,
        Command::Completions { shell } => return commands::completions::run(shell),
    };
    match ended {
        Ok(status) => status.into(),
        Err(problem) => {
            terminal::print_error(&problem);
            commands::NOT_READABLE.into()
        }
    }
}
