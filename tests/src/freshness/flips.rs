//! Flips: a traveler's code is turned at home while every replica holds it; how long until each replica gives the new one.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use proto::{member::Member, terms::Level, venue::VenueId};
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    ask::Asker,
    background::{Background, Driven},
    figures::{Report, Spread, milliseconds},
    home::{Home, Traveler},
    site::{Plan, Site},
};
use crate::load::travelers::Travelers;

/// From when on nothing old is said any more (I4).
const SECOND: Duration = Duration::from_secs(1);
/// Between two questions of one poller.
const EVERY: Duration = Duration::from_millis(3);
/// How long an answer, an entry in the cache and a flip may take before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(5);
const CACHED: Duration = Duration::from_secs(20);
const SEEN: Duration = Duration::from_secs(10);
/// How often it is asked again once the second is over.
const AFTERWARDS: usize = 3;
/// Travelers that one flipper turns by turns.
const TRAVELERS_PER_FLIPPER: usize = 4;
const BACKGROUND_TOKENS: usize = 256;
/// People of a member that are the background's.
const BACKGROUND_PEOPLE: usize = 256;

/// Flips under load, seen through every replica.
#[derive(Args, Clone, Debug)]
pub struct Flips {
    /// How many.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    flips: u32,
    /// Recognitions a second meanwhile, over all replicas.
    #[arg(long, default_value_t = 300.0, value_parser = rate)]
    rate: f64,
    /// Gateway replicas.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    gateways: u8,
    /// The travelers' members.
    #[arg(long, value_delimiter = ',', default_value = "44,51")]
    members: Vec<Member>,
    /// Who asks.
    #[arg(long, default_value = "11/station/beijing-west")]
    venue: VenueId,
    /// Flips at the same time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=64))]
    at_once: u8,
    /// What 99 of a hundred may take. A development build is slower than what is promised.
    #[arg(long, default_value = "250ms", value_parser = humantime_serde::re::humantime::parse_duration)]
    p99_under: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Flipped {
    /// From home's acknowledgement until a replica gave the new level, by replica.
    pub replicas: Vec<Spread>,
    /// Until the last of the replicas did.
    pub all: Spread,
    /// Answers with the old level to questions sent a second after the acknowledgement or later.
    pub old_after_a_second: usize,
    /// Answers to pollers that had no level at all.
    pub without_a_level: usize,
    /// What else was asked meanwhile.
    pub background: Driven,
    /// What `all` was promised to be under, by the 99th of a hundred.
    pub promised_p99_ms: f64,
    /// How long it took.
    pub took_s: f64,
}

/// What one replica's poller saw of one flip.
#[derive(Clone, Copy, Debug)]
struct Seen {
    replica: usize,
    after: Duration,
    old: usize,
    without: usize,
}

/// Somebody who turns some travelers' codes, one after another.
struct Flipper {
    home: Arc<Home>,
    askers: Vec<Arc<Asker>>,
    travelers: Vec<(Arc<Traveler>, Level)>,
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate: &f64| (0.1..=1e5).contains(rate)).ok_or_else(|| "0.1 to 100000".to_owned())
}

impl Flips {
    /// Measures.
    pub async fn run(&self) -> Result<Flipped> {
        let site = Site::start(&Plan {
            members: self.members.clone(),
            venue: self.venue.clone(),
            gateways: self.gateways,
            forwarded: false,
            gateway_settings: String::new(),
        })
        .await?;
        let background = Travelers::enroll(&site.desk, &self.members, BACKGROUND_TOKENS).await?;
        let background = Background::start(self.rate, site.askers(4, PATIENCE)?, background);
        let began = Instant::now();
        let mut flipping = JoinSet::new();
        for (flipper, flips) in self.flippers(&site).await? {
            flipping.spawn(flipper.run(flips));
        }
        let mut seen = Vec::new();
        while let Some(flipped) = flipping.join_next().await {
            seen.extend(flipped??);
        }
        let took = began.elapsed();
        Ok(self.flipped(&seen, background.stop().await?, took))
    }

    /// Those who flip, each with its share.
    async fn flippers(&self, site: &Site) -> Result<Vec<(Flipper, usize)>> {
        let (at_once, flips) = (usize::from(self.at_once), usize::try_from(self.flips)?);
        // Pollers of their own connections: few streams on each, so that nothing waits in the client.
        let askers = site.askers(at_once, PATIENCE)?;
        let mut flippers = Vec::with_capacity(at_once);
        for number in 0..at_once {
            let member = self.members[number % self.members.len()];
            let skip = BACKGROUND_PEOPLE + number * TRAVELERS_PER_FLIPPER;
            let travelers = site.travelers(member, skip, TRAVELERS_PER_FLIPPER).await?;
            let travelers = travelers.into_iter().map(|traveler| (traveler, Level::Green)).collect();
            let flipper = Flipper { home: site.home(member)?.clone(), askers: askers.clone(), travelers };
            flippers.push((flipper, flips / at_once + usize::from(number < flips % at_once)));
        }
        Ok(flippers)
    }

    /// The figures of what was seen: as many in a row as there are replicas are of one flip.
    fn flipped(&self, seen: &[Seen], background: Driven, took: Duration) -> Flipped {
        let replicas = usize::from(self.gateways);
        let of = |replica| seen.iter().filter(|seen| seen.replica == replica).map(|seen| seen.after).collect();
        let last = seen.chunks(replicas).filter_map(|flip| flip.iter().map(|seen| seen.after).max());
        Flipped {
            replicas: (0..replicas).map(|replica| Spread::of(of(replica))).collect(),
            all: Spread::of(last.collect()),
            old_after_a_second: seen.iter().map(|seen| seen.old).sum(),
            without_a_level: seen.iter().map(|seen| seen.without).sum(),
            background,
            promised_p99_ms: milliseconds(self.p99_under),
            took_s: took.as_secs_f64(),
        }
    }
}

impl Flipper {
    async fn run(mut self, flips: usize) -> Result<Vec<Seen>> {
        let mut seen = Vec::with_capacity(flips * self.askers.len());
        for number in 0..flips {
            let index = number % self.travelers.len();
            let (traveler, from) = self.travelers[index].clone();
            let to = if from == Level::Green { Level::Red } else { Level::Green };
            seen.extend(self.flip(&traveler, from, to).await?);
            self.travelers[index].1 = to;
        }
        Ok(seen)
    }

    async fn flip(&self, traveler: &Arc<Traveler>, from: Level, to: Level) -> Result<Vec<Seen>> {
        for asker in &self.askers {
            asker.until_cached(traveler, from, CACHED).await?;
        }
        let acknowledged = self.home.turn(traveler, to).await?;
        let mut polling = JoinSet::new();
        for (replica, asker) in self.askers.iter().enumerate() {
            polling.spawn(poll(replica, asker.clone(), traveler.clone(), (from, to), acknowledged));
        }
        let mut seen = Vec::with_capacity(self.askers.len());
        while let Some(polled) = polling.join_next().await {
            seen.push(polled??);
        }
        Ok(seen)
    }
}

/// Asks one replica until it gives the new level, and some more times when the second is over.
async fn poll(
    replica: usize,
    asker: Arc<Asker>,
    traveler: Arc<Traveler>,
    (from, to): (Level, Level),
    acknowledged: Instant,
) -> Result<Seen> {
    let mut seen = Seen { replica, after: Duration::ZERO, old: 0, without: 0 };
    loop {
        let answer = asker.ask(&traveler).await;
        let level = answer.said.level();
        seen.note(level, from, answer.sent, acknowledged);
        if level == Some(to) {
            seen.after = answer.came.saturating_duration_since(acknowledged);
            break;
        }
        if acknowledged.elapsed() > SEEN {
            bail!("replica {} does not give {to:?} after {SEEN:?}: {}", replica + 1, answer.said);
        }
        sleep(EVERY).await;
    }
    sleep_until(acknowledged + SECOND).await;
    for _ in 0..AFTERWARDS {
        let answer = asker.ask(&traveler).await;
        seen.note(answer.said.level(), from, answer.sent, acknowledged);
        sleep(EVERY).await;
    }
    Ok(seen)
}

impl Seen {
    fn note(&mut self, level: Option<Level>, from: Level, sent: Instant, acknowledged: Instant) {
        self.without += usize::from(level.is_none());
        self.old += usize::from(level == Some(from) && sent >= acknowledged + SECOND);
    }
}

impl Report for Flipped {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("flips, from home's acknowledgement until seen, in {:.0} s", self.took_s)];
        lines.extend((1..).zip(&self.replicas).map(|(replica, spread)| format!("replica {replica}  {spread}")));
        lines.push(format!("all        {}", self.all));
        lines.push(format!("old answers to questions sent a second after: {}", self.old_after_a_second));
        lines.push(format!("answers without a level: {}", self.without_a_level));
        lines.push(self.background.line());
        lines
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn broken(&self) -> Vec<String> {
        let (p99, promised) = (self.all.p99_ms, self.promised_p99_ms);
        let slow = (p99 >= promised).then(|| format!("p99 is {p99:.1} ms, promised under {promised:.0} ms"));
        let old = self.old_after_a_second;
        let old = (old > 0).then(|| format!("{old} answers were old after a second"));
        slow.into_iter().chain(old).collect()
    }
}
