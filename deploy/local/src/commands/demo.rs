//! `demo`: every kind of case, each over real connections, in a federation of its own that is gone afterwards. A line a
//! case; exit 0 only if each came out as it should. At its end a traveler reads who asked for them, and the access logs are
//! held to what was done here.

mod accesses;
mod cases;
mod evidence;
mod list;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use proto::{
    contract::recognition::{Decision, Outcome, RecognizeResponse},
    refusal::{Reason, Refusal, reason_name},
    terms::Purpose,
    token::Cti,
    venue::VenueId,
};
use tonic::{Code, Status};

use crate::{
    addresses::Ports,
    clock::MovableClock,
    commands::recognize::{decision_word, outcome_word},
    federation::Federation,
    layout::Layout,
    options::Options,
    prepare::Plan,
    receipt::Receipt,
    say,
};

/// What a case comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// An answer.
    Answer(Outcome, Decision),
    /// A documented refusal.
    Refusal(Reason),
    /// No connection at all: the handshake was refused.
    NoConnection,
    /// A status without a documented reason, which no case wants.
    Undocumented(Code),
}

impl Ending {
    fn of(result: &Result<RecognizeResponse, Status>) -> Self {
        match result {
            Ok(answer) => Self::Answer(answer.outcome(), answer.decision()),
            Err(status) => match Refusal::reason_of(status) {
                Some(reason) => Self::Refusal(reason),
                // Under TLS 1.3 a client learns of its refusal when it first reads: whichever way its transport puts it.
                None if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => {
                    Self::NoConnection
                }
                None => Self::Undocumented(status.code()),
            },
        }
    }

    fn words(self) -> (String, &'static str) {
        match self {
            Self::Answer(outcome, decision) => (outcome_word(outcome).to_owned(), decision_word(decision)),
            Self::Refusal(reason) => (reason_name(reason).to_owned(), "-"),
            Self::NoConnection => ("NO_CONNECTION".to_owned(), "-"),
            Self::Undocumented(code) => (format!("undocumented {code:?}"), "-"),
        }
    }
}

/// One question that this demonstration asked by a valid token, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    cti: Cti,
    venue: VenueId,
    purpose: Purpose,
    ending: Ending,
    /// Of an answer.
    receipt: Option<Receipt>,
}

/// Counts and prints, and keeps what was asked.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    ok: usize,
    failed: usize,
    asked: Vec<Asked>,
}

/// What a case came to, in words: the same if all is well.
struct Words<'a> {
    outcome: &'a str,
    decision: &'a str,
}

impl Report {
    pub(crate) fn case(&mut self, name: &str, want: Ending, got: Ending, ms: f64) {
        self.noted(name, want, got, ms, "");
    }

    /// A case with a word on how it came about.
    pub(crate) fn noted(&mut self, name: &str, want: Ending, got: Ending, ms: f64, note: &str) {
        let ((outcome, decision), (wanted, wanted_decision)) = (got.words(), want.words());
        let (want, got) =
            (Words { outcome: &wanted, decision: wanted_decision }, Words { outcome: &outcome, decision });
        self.line(name, &want, &got, ms, note);
    }

    /// A case about what is on record: this word, with a note on it, or what is wrong instead.
    pub(crate) fn found(&mut self, name: &str, word: &str, found: Result<String>, ms: f64) {
        let want = Words { outcome: word, decision: "-" };
        match found {
            Ok(note) => self.line(name, &want, &want, ms, &note),
            Err(error) => {
                let wrong = format!("{error:#}");
                self.line(name, &want, &Words { outcome: &wrong, decision: "-" }, ms, "");
            }
        }
    }

    fn line(&mut self, name: &str, want: &Words<'_>, got: &Words<'_>, ms: f64, note: &str) {
        let (Words { outcome, decision }, Words { outcome: wanted, decision: wanted_decision }) = (got, want);
        let ok = (outcome, decision) == (wanted, wanted_decision);
        if ok {
            self.ok += 1
        } else {
            self.failed += 1
        }
        if self.json {
            let line = serde_json::json!({ "case": name, "ok": ok, "outcome": outcome, "decision": decision,
                "wanted_outcome": wanted, "wanted_decision": wanted_decision, "ms": ms, "note": note });
            say!("{line}");
        } else if ok {
            say!(
                "ok   {name:<28} {outcome:<24} {decision:<7} {ms:.1} ms{}{note}",
                if note.is_empty() { "" } else { "  " }
            );
        } else {
            say!("FAIL {name:<28} want {wanted} {wanted_decision} got {outcome} {decision}, {ms:.1} ms {note}");
        }
    }
}

/// Runs all cases. Without `--dir` of its own the state is in a temporary directory.
pub async fn run(options: &Options) -> Result<()> {
    let temporary = tempfile::Builder::new().prefix("tongxing-demo-").tempdir()?;
    let layout = Layout::new(temporary.path());
    let options = Options { dir: temporary.path().to_owned(), ..options.clone() };
    let plan = Plan::of(&options, &layout)?;
    let clock = Arc::new(MovableClock::default());
    let mut federation = Federation::start(&layout, &plan, Ports::Any, clock.clone()).await?;
    let mut report = Report { json: options.json, ok: 0, failed: 0, asked: Vec::new() };
    let performed = cases::perform(&mut federation, &clock, &mut report).await;
    let stopped = federation.stop().await;
    performed.context("a case could not be performed")?;
    stopped?;
    say!("{} ok, {} failed", report.ok, report.failed);
    if report.failed > 0 {
        bail!("not every case came out as it should");
    }
    Ok(())
}
