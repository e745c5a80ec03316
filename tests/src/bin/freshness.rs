//! `freshness`: measures how fresh what venues see is, with real processes on this machine, and says when what was promised
//! does not hold.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::freshness::{
    cold::Cold,
    figures::{Report, told},
    flips::Flips,
    hung::Hung,
    idle::Idle,
    stops::Stops,
};

/// How fresh what venues see is. Exit 1 if what was promised does not hold.
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
    /// Codes are turned under load: how long until every replica gives the new level.
    Flips(Flips),
    /// Streams are cut, nodes and gateway stand still: nothing old is said, and what is held serves again by itself.
    Stops(Stops),
    /// Many ask for one traveler of whom nothing is held: home is asked once.
    Cold(Cold),
    /// A node hangs: nobody is wedged.
    Hung(Hung),
    /// All members, and nobody asks anything: the processor time.
    Idle(Idle),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { json, command } = Arguments::parse();
    told("freshness", json, run(&command)).await
}

async fn run(command: &Command) -> Result<Box<dyn Report>> {
    Ok(match command {
        Command::Flips(flips) => Box::new(flips.run().await?),
        Command::Stops(stops) => Box::new(stops.run().await?),
        Command::Cold(cold) => Box::new(cold.run().await?),
        Command::Hung(hung) => Box::new(hung.run().await?),
        Command::Idle(idle) => Box::new(idle.run().await?),
    })
}
