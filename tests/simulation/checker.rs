//! Whether a history is one that may be.
//!
//! | rule | |
//! | --- | --- |
//! | `STALE` (I4) | What is told was in force a second before it was asked, or later, and had begun before it was told |
//! | `STALE_CACHE` (I4) | What comes from the cache was in force a second before it was told, or later |
//! | `BACKWARDS` (I4) | What one start of a gateway has from home is no older than what it told before; nothing is as of before it was signed |
//! | `FRESHNESS` | Who asks for something as fresh as a place in the log is told nothing before it; who asks for home's word is told nothing that was held |
//! | `OPEN` (I5) | A gate opens for a green alone, and for what home signed |
//! | `WRONG` (I3, I5) | Nobody is told what home did not sign, or what has no place in this federation |
//! | `LIVENESS` | Once all has healed everybody is told what is right, at both gateways, and the second time from the cache |
//!
//! A change that was not acknowledged may have happened at any moment since it began. A restore brings back what stood when
//! the copy was made; between the crash and the return either may be in force.

use std::{collections::BTreeMap, fmt, time::Duration};

use proto::contract::recognition::Source;

use crate::{
    history::{Answer, Ask, At3, Event, Last, Told, Value, Wanted},
    registers::{Registers, Setup},
};

/// How old an answer may be (I4).
const FRESH: Duration = Duration::from_secs(1);
/// What the way from the record to the venue may take, and the steps of the simulation.
const SLACK: Duration = Duration::from_millis(50);

/// What may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which rule.
    pub(crate) rule: &'static str,
    /// By what.
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Everything in a history that may not be. `all_from_cache`: whether the last looks must find all of it held.
pub(crate) fn check(setup: &Setup, history: &[Event], all_from_cache: bool) -> Vec<Violation> {
    let mut checker = Checker { registers: Registers::of(setup, history), violations: Vec::new() };
    let asks: Vec<&Ask> = history.iter().filter_map(Event::as_ask).collect();
    for ask in &asks {
        checker.check_answer(ask);
        if ask.last != Last::No {
            checker.check_last(ask, all_from_cache);
        }
    }
    checker.check_order(&asks);
    checker.violations
}

struct Checker {
    registers: Registers,
    violations: Vec<Violation>,
}

impl Checker {
    fn say(&mut self, rule: &'static str, ask: &Ask, what: impl fmt::Display) {
        self.violations.push(Violation { rule, what: format!("{}; {what}", Event::Ask(ask.clone())) });
    }

    fn check_answer(&mut self, ask: &Ask) {
        match &ask.answer {
            Answer::Told(told) => {
                self.check_told(ask, told);
            }
            Answer::Unreachable { pass: true } => self.say("OPEN", ask, "the gate opens for nothing"),
            Answer::Wrong(_) => self.say("WRONG", ask, "no gateway may say so"),
            Answer::Unreachable { pass: false } | Answer::Failed(_) => {}
        }
    }

    fn check_told(&mut self, ask: &Ask, told: &Told) {
        if told.pass && (told.value != Value::Green || told.signed_at.is_none()) {
            self.say("OPEN", ask, "the gate opens for no green of home's");
        }
        let fresh = match (ask.wanted, told.head) {
            (Wanted::Default, _) | (Wanted::AtLeast(_), None) => true,
            // After a restore nothing compares.
            (Wanted::AtLeast(least), Some(head)) => head.epoch != least.epoch || head.seq >= least.seq,
            (Wanted::FromHome, _) => told.source != Some(Source::Cache),
        };
        if !fresh {
            self.say("FRESHNESS", ask, "it is not what was asked for");
        }
        let since = ask.sent.saturating_sub(FRESH);
        if !self.registers.allow(ask.pass, told.value, since, ask.received) {
            let stood = self.registers.describe(ask.pass, since, ask.received);
            self.say("STALE", ask, format!("since {} there was: {stood}", At3(since)));
        } else if told.source == Some(Source::Cache) {
            let since = ask.received.saturating_sub(FRESH + SLACK);
            if !self.registers.allow(ask.pass, told.value, since, ask.received) {
                let stood = self.registers.describe(ask.pass, since, ask.received);
                self.say("STALE_CACHE", ask, format!("since {} there was: {stood}", At3(since)));
            }
        }
    }

    fn check_last(&mut self, ask: &Ask, all_from_cache: bool) {
        let Answer::Told(told) = &ask.answer else {
            return self.say("LIVENESS", ask, "all has healed");
        };
        if !self.registers.allow(ask.pass, told.value, ask.sent, ask.received) {
            let stands = self.registers.describe(ask.pass, ask.sent, ask.received);
            self.say("LIVENESS", ask, format!("all has healed, and what stands is: {stands}"));
        }
        let held = matches!(told.value, Value::Green | Value::Red(_));
        if all_from_cache && held && ask.last == Last::Second && told.source != Some(Source::Cache) {
            self.say("LIVENESS", ask, "it is not held");
        }
    }

    /// Sweeps over the times at which answers came and questions were sent.
    fn check_order(&mut self, asks: &[&Ask]) {
        let mut by_received: Vec<&Ask> = asks.to_vec();
        by_received.sort_by_key(|ask| ask.received);
        let mut by_sent: Vec<&Ask> = asks.to_vec();
        by_sent.sort_by_key(|ask| ask.sent);
        let mut highest: BTreeMap<Place, (u64, &Ask)> = BTreeMap::new();
        let mut came = by_received.into_iter().peekable();
        for ask in by_sent {
            while let Some(earlier) = came.next_if(|earlier| earlier.received < ask.sent) {
                // What nobody signed is nobody's word on where the log stands.
                let Some((place, told)) = place(earlier).filter(|(_, told)| told.value != Value::Nothing) else {
                    continue;
                };
                let seq = told.head.map_or(0, |head| head.seq);
                let before = highest.entry(place).or_insert((seq, earlier));
                *before = if before.0 < seq { (seq, earlier) } else { *before };
            }
            let Some((place, Told { head: Some(head), source, signed_at, .. })) = place(ask) else { continue };
            if signed_at.is_some_and(|signed| signed.epoch != head.epoch || signed.seq > head.seq) {
                self.say("BACKWARDS", ask, "it was signed later");
            }
            let before = highest.get(&place).filter(|(before, _)| *before > head.seq);
            if let Some((_, earlier)) = before.filter(|_| *source == Some(Source::Home)) {
                self.say("BACKWARDS", ask, format!("more was told before: {}", Event::Ask(Ask::clone(earlier))));
            }
        }
    }
}

/// Whose log, as one start of a gateway sees it: gateway, start, epoch.
type Place = (usize, u32, [u8; 16]);

/// Where an answer stands in whose log.
fn place(ask: &Ask) -> Option<(Place, &Told)> {
    let (then, now) = ask.incarnations;
    match &ask.answer {
        Answer::Told(told) if then == now => Some(((ask.gateway, then, told.head?.epoch), told)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
