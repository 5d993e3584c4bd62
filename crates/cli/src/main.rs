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
    match Cli::parse().command {
        Command::Who(arguments) => commands::who::run(arguments).await,
        Command::Images(arguments) => commands::images::run(arguments).await,
        Command::Plan(arguments) => commands::plan::run(arguments).await,
        Command::Findings(arguments) => commands::findings::run(arguments).await,
        Command::Page(arguments) => commands::page::run(arguments).await,
        Command::Verify(arguments) => commands::verify::run(arguments).await,
        Command::Completions { shell } => commands::completions::run(shell),
    }
}
