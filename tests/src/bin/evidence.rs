//! `evidence`: measures with real processes on this machine what evidence costs, and says when what was promised does not hold.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::{
    evidence::{import::Import, kill::Kill},
    freshness::figures::{Report, told},
};

/// What evidence costs. Exit 1 if what was promised does not hold.
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
    /// Results come into a node by its own import, and then it is asked for travelers.
    Import(Import),
    /// The database server is killed while results come in: no acknowledged row is lost.
    Kill(Kill),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { json, command } = Arguments::parse();
    told("evidence", json, run(&command)).await
}

async fn run(command: &Command) -> Result<Box<dyn Report>> {
    match command {
        Command::Import(import) => import.run().await,
        Command::Kill(kill) => kill.run().await,
    }
}
