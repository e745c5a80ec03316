//! `records`: measures with real processes on this machine whether what was answered is on record, and says when what was
//! promised does not hold.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::{
    freshness::figures::{Report, told},
    records::{away::Away, kill::Kill},
};

/// Whether what was answered is on record. Exit 1 if what was promised does not hold.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Print JSON, an object in one line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The gateway is killed at random moments under load: no acknowledged answer is lost, or at home twice.
    Kill(Kill),
    /// A member's node is away under load: what waits for it comes home when it is back, and nobody else is harmed.
    Away(Away),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { json, command } = Arguments::parse();
    told("records", json, run(&command)).await
}

async fn run(command: &Command) -> Result<Box<dyn Report>> {
    Ok(match command {
        Command::Away(away) => Box::new(away.run().await?),
        Command::Kill(kill) => Box::new(kill.run().await?),
    })
}
