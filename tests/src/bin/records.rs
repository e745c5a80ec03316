//! `records`: measures with real processes on this machine whether what was answered is on record, and says when what was
//! promised does not hold.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tests::{
    freshness::figures::Report,
    records::{away::Away, kill::Kill},
};
use tokio_util::sync::CancellationToken;

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
    match measure(&command).await.and_then(|report| say(&*report, json)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("records: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A signal ends it as an error does: programs that were started are let go on, and stopped.
async fn measure(command: &Command) -> Result<Box<dyn Report>> {
    let stop = CancellationToken::new();
    peer::serve::stop_on_signal(stop.clone())?;
    tokio::select! {
        report = run(command) => report,
        () = stop.cancelled() => bail!("stopped by a signal"),
    }
}

async fn run(command: &Command) -> Result<Box<dyn Report>> {
    Ok(match command {
        Command::Away(away) => Box::new(away.run().await?),
        Command::Kill(kill) => Box::new(kill.run().await?),
    })
}

/// Whether everything that was promised held.
fn say(report: &dyn Report, json: bool) -> Result<bool> {
    if json {
        println!("{}", report.json()?);
    } else {
        report.lines().iter().for_each(|line| println!("{line}"));
    }
    let broken = report.broken();
    broken.iter().for_each(|what| eprintln!("broken: {what}"));
    Ok(broken.is_empty())
}
