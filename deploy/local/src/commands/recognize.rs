//! `recognize`: stand at a gate. Reads a presentation, or makes one for a traveler of a member, and shows what a venue sees.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use proto::{
    contract::recognition::{Decision, Outcome, Source},
    member::Member,
    presentation::Presentation,
    terms::Purpose,
    time::{Clock, SystemClock},
    venue::VenueId,
};
use province_stub::seed::Condition;
use tokio::time::Instant;

use crate::{
    checkpoint::{Seen, level_word},
    commands::traveler,
    desk::Desk,
    layout::Layout,
    options::Options,
    phone::Wish,
    say, venues,
};

/// Whom to recognise, and where.
#[derive(Args, Debug)]
pub struct Recognize {
    /// A presentation's text, TX1:…; without one a traveler of --member presents.
    #[arg(conflicts_with = "member", required_unless_present = "member")]
    presentation: Option<String>,
    /// The home member of a seeded traveler.
    #[arg(long)]
    member: Option<Member>,
    /// That traveler's condition.
    #[arg(long, default_value = "green", value_parser = traveler::parse_condition)]
    level: Condition,
    /// The venue that asks; one in another province unless said.
    #[arg(long)]
    venue: Option<VenueId>,
    /// Why it asks.
    #[arg(long, default_value = "entry")]
    purpose: Purpose,
}

/// Recognises one traveler.
pub async fn run(options: &Options, recognize: &Recognize) -> Result<()> {
    let desk = Desk::open(&Layout::new(&options.dir), Arc::new(SystemClock))?;
    let (presentation, venue) = match (&recognize.presentation, recognize.member) {
        (Some(text), _) => {
            let presentation = Presentation::from_text(text.trim())
                .map_err(|refusal| anyhow::anyhow!("{}", traveler::say(&refusal.to_status())))?;
            let members = desk.prepared().plan.members()?;
            (presentation, recognize.venue.clone().or_else(|| venues::for_load(&members)))
        }
        (None, Some(member)) => {
            let members = desk.prepared().plan.members()?;
            let venue = recognize.venue.clone().or_else(|| venues::away_from(member, &members));
            // It is shown at once and never again.
            let wish = Wish { life: Duration::from_secs(120), ..Wish::default() };
            let pass = traveler::pass(&desk, member, recognize.level, &wish, SystemClock.now()).await?;
            (pass.present(venue.as_ref(), SystemClock.now()), venue)
        }
        (None, None) => bail!("a presentation or --member"),
    };
    let venue = venue.context("no venue in this federation")?;
    let started = Instant::now();
    let seen = desk.checkpoint(&venue)?.show(&presentation, recognize.purpose).await?;
    let took = started.elapsed();
    match seen {
        Ok(seen) if options.json => say!("{}", json(&seen, &venue, took.as_secs_f64() * 1000.0)),
        Ok(seen) => print(&seen, &venue, recognize.purpose, took.as_secs_f64() * 1000.0),
        Err(status) => bail!("{}", traveler::say(&status)),
    }
    Ok(())
}

fn print(seen: &Seen, venue: &VenueId, purpose: Purpose, ms: f64) {
    let answer = &seen.answer;
    let (zh, en) = match answer.decision() {
        Decision::Pass => ("通行", "PASS"),
        Decision::Assist => ("请工作人员协助", "ASSIST"),
        Decision::Stop => ("禁止通行", "STOP"),
    };
    say!("{zh}  {en}");
    if let Some(step) = &answer.next_step {
        say!("{}\n{}", step.zh, step.en);
    }
    say!("");
    say!("venue      {venue}, for {purpose}");
    say!("outcome    {}", outcome_word(answer.outcome()));
    if let Some(conversion) = &answer.conversion {
        let home: Option<Member> = conversion.member.parse().ok();
        let name = home.map(|home| home.profile().health_code_zh).unwrap_or_default();
        say!("code       {name}: {} → {}", conversion.label, level_word(answer));
    }
    if let Some(assignment) = answer.assignment.as_ref().filter(|assignment| !assignment.authority.is_empty()) {
        let rule = if assignment.rule.is_empty() { "-" } else { &assignment.rule };
        say!("assigned   by {}, rule {rule}", assignment.authority);
    }
    if let Some(correction) = &answer.correction {
        say!("correct it {}\n           {}", correction.zh, correction.en);
    }
    if let Some(hint) = &seen.hint {
        say!("compare    {} …{}  (opened by the venue alone)", hint.masked_name(), hint.document_tail());
    }
    if let Some(statement) = &seen.statement {
        say!("as of      {}, signed by home and verified here", statement.status().issued_at);
        say!("source     {}", source_words(answer.source()));
    }
    let on_record = seen.receipt.on_record();
    let (owner, log, index) = (on_record.owner, traveler::hex(&on_record.log.0[..4]), on_record.index);
    say!("record     {index} on {owner}'s log {log}…, signed by the gateway and verified here");
    say!("exchange   {}, {ms:.1} ms", traveler::hex(&answer.exchange_id));
}

fn source_words(source: Source) -> &'static str {
    match source {
        Source::Unspecified => "-",
        Source::Home => "HOME, asked during this call",
        Source::Cache => "CACHE, what home said before and still holds",
        Source::LastKnown => "LAST_KNOWN, home is not reached: nobody knows whether it still holds",
    }
}

fn json(seen: &Seen, venue: &VenueId, ms: f64) -> serde_json::Value {
    let (answer, on_record) = (&seen.answer, seen.receipt.on_record());
    serde_json::json!({
        "outcome": outcome_word(answer.outcome()),
        "decision": decision_word(answer.decision()),
        "level": level_word(answer),
        "source": answer.source().as_str_name(),
        "label": answer.conversion.as_ref().map(|conversion| &conversion.label),
        "authority": answer.assignment.as_ref().map(|assignment| &assignment.authority),
        "venue": venue.to_string(),
        "exchange_id": traveler::hex(&answer.exchange_id),
        "statement_verified": seen.statement.is_some(),
        "log": on_record.log.to_string(),
        "log_index": on_record.index,
        "receipt_verified": true,
        "ms": ms,
    })
}

/// An outcome's word.
pub(crate) fn outcome_word(outcome: Outcome) -> &'static str {
    outcome.as_str_name().trim_start_matches("OUTCOME_")
}

/// A decision's word.
pub(crate) fn decision_word(decision: Decision) -> &'static str {
    decision.as_str_name().trim_start_matches("DECISION_")
}
