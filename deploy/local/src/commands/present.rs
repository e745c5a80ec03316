//! `present`: what a traveler's phone would show, for people and for tools.

use std::{io::Write, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use proto::{
    member::Member,
    presentation::Presentation,
    terms::{Kind, Purpose, Scope},
    time::{Clock, SystemClock},
    venue::VenueId,
};
use province_stub::seed::Condition;
use std::sync::Arc;

use crate::{
    checkpoint::Checkpoint, commands::traveler, desk::Desk, layout::Layout, load::to_json, options::Options,
    phone::Wish, qr, venues,
};

/// What to present.
#[derive(Args, Debug)]
pub struct Present {
    /// The traveler's home member.
    #[arg(long)]
    member: Member,
    /// The traveler's condition.
    #[arg(long, default_value = "green", value_parser = traveler::parse_condition)]
    level: Condition,
    /// The venue whose printed code the phone scanned; without one the first venue to redeem it has it.
    #[arg(long)]
    venue: Option<VenueId>,
    /// own, or paper.
    #[arg(long, default_value = "own", value_parser = parse_kind)]
    kind: Kind,
    /// How many, each of another token.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// How to write them.
    #[arg(long, default_value = "tx1")]
    format: Format,
    /// Where to; standard output unless said.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// How to write presentations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The text of a QR, one a line.
    Tx1,
    /// A QR drawn in the terminal.
    Qr,
    /// A JSON array of requests.
    Ghz,
    /// One JSON request a line.
    Grpcurl,
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    match text.parse() {
        Ok(kind @ (Kind::Own | Kind::Paper)) => Ok(kind),
        _ => Err("own or paper".into()),
    }
}

/// Gets passes at the member's node and writes presentations.
pub async fn run(options: &Options, present: &Present) -> Result<()> {
    let desk = Desk::open(&Layout::new(&options.dir), Arc::new(SystemClock))?;
    let scope = if present.kind == Kind::Paper { Scope::LEVEL } else { Scope::ALL };
    let wish = Wish { kind: present.kind, scope, ..Wish::default() };
    let mut presentations = Vec::new();
    for _ in 0..present.count {
        let now = SystemClock.now();
        let pass = traveler::pass(&desk, present.member, present.level, &wish, now).await?;
        presentations.push(pass.present(present.venue.as_ref(), SystemClock.now()));
    }
    let text = write(&desk, present, &presentations)?;
    match &present.out {
        Some(path) => std::fs::write(path, text).with_context(|| path.display().to_string()),
        None => {
            // A reader that has gone away is no error.
            let _ = std::io::stdout().write_all(text.as_bytes());
            Ok(())
        }
    }
}

fn write(desk: &Desk, present: &Present, presentations: &[Presentation]) -> Result<String> {
    let asking = || -> Result<VenueId> {
        let members = desk.prepared().plan.members()?;
        let venue = present.venue.clone().or_else(|| venues::for_load(&members));
        venue.context("no venue in this federation")
    };
    let requests = || -> Result<Vec<_>> {
        let venue = asking()?;
        Ok(presentations.iter().map(|p| to_json(&Checkpoint::request(&venue, p, Purpose::Entry))).collect())
    };
    Ok(match present.format {
        Format::Tx1 => presentations.iter().map(|p| p.to_text() + "\n").collect(),
        Format::Qr => {
            presentations.iter().map(|p| Ok(qr::on_terminal(&qr::draw(&p.to_text())?.0))).collect::<Result<_>>()?
        }
        Format::Ghz => serde_json::to_string(&requests()?)? + "\n",
        Format::Grpcurl => requests()?.iter().map(|request| format!("{request}\n")).collect(),
    })
}
