//! `conformance`: is a member's node what the contract says? See tests/conformance/README.md.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;
use proto::member::Member;
use tests::conformance::{
    cases::{self, Case},
    report,
    run::run,
    world::{Known, Options, World},
};

/// Plays the conformance cases against a member's node and prints a report. Exits 0 if none failed, 1 if one did, 2 if they
/// could not be played.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The node, HOST:PORT; its certificate has to be good for HOST.
    #[arg(long, required_unless_present = "list")]
    node: Option<String>,
    /// The node's member.
    #[arg(long, default_value = "44")]
    member: Member,
    /// The federation's directory, as `tongxing init` made it.
    #[arg(long, default_value = ".tongxing")]
    dir: PathBuf,
    /// The case files' directory.
    #[arg(long, default_value = "tests/conformance/cases")]
    cases: PathBuf,
    /// Only cases with this in their id, or with one of these.
    #[arg(long)]
    only: Vec<String>,
    /// Cases that wait for more than a few seconds too.
    #[arg(long)]
    slow: bool,
    /// A person whom the node has with a code, a test, a dose and a risk-area stay: NUMBER:NAME of a resident ID, or `seeded`
    /// for the people of the one-machine federation.
    #[arg(long, value_parser = parse_known)]
    known: Option<Known>,
    /// A JSON object a line.
    #[arg(long)]
    json: bool,
    /// Say which cases there are, and where the contract says so.
    #[arg(long)]
    list: bool,
}

fn parse_known(text: &str) -> Result<Known, String> {
    match text.split_once(':') {
        _ if text == "seeded" => Ok(Known::Seeded),
        Some((number, name)) if !number.is_empty() && !name.is_empty() => {
            Ok(Known::Named { number: number.into(), name: name.into() })
        }
        _ => Err("NUMBER:NAME, or seeded".into()),
    }
}

/// The exit code for what keeps the cases from being played. Clap exits with it too.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    match report(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(USAGE)
        }
    }
}

/// Plays what is asked for. Returns whether none failed.
async fn report(arguments: &Arguments) -> Result<bool> {
    let all = cases::read(&arguments.cases)?;
    let asked = |case: &&Case| {
        let named = arguments.only.is_empty() || arguments.only.iter().any(|only| case.id.contains(only.as_str()));
        named && (arguments.slow || !case.slow)
    };
    let cases: Vec<_> = all.iter().filter(asked).collect();
    anyhow::ensure!(!cases.is_empty(), "no case to play");
    if arguments.list {
        for case in cases {
            say(&format!("{:<40} {} (contract: {})", case.id, case.title, report::contract(case)));
        }
        return Ok(true);
    }
    let node = arguments.node.clone().context("--node is missing")?;
    let (member, dir, known) = (arguments.member, arguments.dir.clone(), arguments.known.clone());
    let world = World::open(&Options { node, member, dir, known })?;
    let counts = run(&world, cases, |case, verdict| {
        say(&if arguments.json { report::json(case, verdict) } else { report::line(case, verdict) });
    })
    .await;
    if !arguments.json {
        say(&format!("{} ok, {} failed, {} skipped", counts.ok, counts.failed, counts.skipped));
    }
    Ok(counts.failed == 0)
}

/// A reader that has gone away is no error.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
