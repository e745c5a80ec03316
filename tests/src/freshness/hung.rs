//! A lookup that hangs wedges nobody: those who asked are told in time that home is out of reach, another member's
//! travelers are answered as if nothing were, and when home goes on so do its travelers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;
use proto::{member::Member, terms::Level, venue::VenueId};
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    ask::{Answer, Asker, Said},
    figures::{Report, Spread, milliseconds},
    home::Traveler,
    site::{Plan, Site},
};
use crate::load::process::Standstill;

/// The longest a call takes, whatever home does: the gateway's `limits.max_duration`.
const IN_TIME: Duration = Duration::from_secs(2);
/// How much slower others' answers may be and count as unchanged: another time as long, and what a busy machine's scheduler
/// does.
const SLOWER: f64 = 2.0;
const NOISE_MS: f64 = 50.0;
/// How long home may take to be reached again.
const AGAIN: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(10);
const CACHED: Duration = Duration::from_secs(20);
/// Between two questions for the other member's travelers.
const EVERY: Duration = Duration::from_millis(10);
const OTHERS: usize = 8;

/// A node hangs while many ask for one cold traveler of it.
#[derive(Args, Clone, Debug)]
pub struct Hung {
    /// How many ask.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    asks: u16,
    /// How long the other member's travelers are asked for before and during.
    #[arg(long, default_value = "3s", value_parser = humantime_serde::re::humantime::parse_duration)]
    lasts: Duration,
    /// Whose node hangs.
    #[arg(long, default_value = "44")]
    member: Member,
    /// Whose does not.
    #[arg(long, default_value = "51")]
    other: Member,
    /// Who asks.
    #[arg(long, default_value = "11/station/beijing-west")]
    venue: VenueId,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Wedged {
    /// What those who asked for the cold traveler were told.
    pub told: BTreeMap<String, usize>,
    /// How long that took.
    pub waited: Spread,
    /// Answers for the other member's travelers before.
    pub before: Spread,
    /// And while the node hung.
    pub during: Spread,
    /// Of these all, those that were no status.
    pub others_without_status: usize,
    /// From when the node went on until the traveler was answered for.
    pub again_ms: f64,
}

impl Hung {
    /// Measures.
    pub async fn run(&self) -> Result<Wedged> {
        let site = Site::start(&Plan {
            members: vec![self.member, self.other],
            venue: self.venue.clone(),
            gateways: 1,
            forwarded: false,
            gateway_settings: String::new(),
        })
        .await?;
        let asker = site.askers(usize::from(self.asks).div_ceil(32), PATIENCE)?.remove(0);
        let calm = site.askers(2, PATIENCE)?.remove(0);
        let cold = site.travelers(self.member, 1, 1).await?.remove(0);
        let others = site.travelers(self.other, 1, OTHERS).await?;
        for traveler in &others {
            calm.until_cached(traveler, Level::Green, CACHED).await?;
        }
        let before = ask_for(calm.clone(), others.clone(), self.lasts).await;
        let mut standstill = Standstill::of(site.node(self.member)?)?;
        standstill.begin()?;
        let meanwhile = tokio::spawn(ask_for(calm, others, self.lasts));
        let answers = ask_at_once(&asker, &cold, self.asks.into()).await?;
        let during = meanwhile.await?;
        standstill.end()?;
        let again = until_answered(&asker, &cold).await;
        let mut told = BTreeMap::new();
        for answer in &answers {
            *told.entry(answer.said.to_string()).or_default() += 1;
        }
        let without_status = |answers: &[Answer]| answers.iter().filter(|answer| answer.said.level().is_none()).count();
        Ok(Wedged {
            told,
            waited: spread(&answers),
            before: spread(&before),
            during: spread(&during),
            others_without_status: without_status(&before) + without_status(&during),
            again_ms: milliseconds(again),
        })
    }
}

async fn ask_at_once(asker: &Arc<Asker>, traveler: &Arc<Traveler>, count: usize) -> Result<Vec<Answer>> {
    let mut asking = JoinSet::new();
    for _ in 0..count {
        let (asker, traveler) = (asker.clone(), traveler.clone());
        asking.spawn(async move { asker.ask(&traveler).await });
    }
    let mut answers = Vec::with_capacity(count);
    while let Some(answer) = asking.join_next().await {
        answers.push(answer?);
    }
    Ok(answers)
}

/// Asks for some travelers by turns, for so long.
async fn ask_for(asker: Arc<Asker>, travelers: Vec<Arc<Traveler>>, lasts: Duration) -> Vec<Answer> {
    let (began, mut answers) = (Instant::now(), Vec::new());
    for traveler in travelers.iter().cycle() {
        if began.elapsed() >= lasts {
            break;
        }
        answers.push(asker.ask(traveler).await);
        sleep(EVERY).await;
    }
    answers
}

/// How long until a traveler is answered for; longer than [`AGAIN`] if it is given up.
async fn until_answered(asker: &Asker, traveler: &Traveler) -> Duration {
    let began = Instant::now();
    while !matches!(asker.ask(traveler).await.said, Said::Level(Level::Green, _)) && began.elapsed() <= AGAIN {
        sleep(EVERY).await;
    }
    began.elapsed()
}

fn spread(answers: &[Answer]) -> Spread {
    Spread::of(answers.iter().map(|answer| answer.came - answer.sent).collect())
}

impl Report for Wedged {
    fn lines(&self) -> Vec<String> {
        let told: Vec<_> = self.told.iter().map(|(what, count)| format!("{what} {count}")).collect();
        vec![
            format!("asked for a cold traveler of a node that hangs: {}", told.join(", ")),
            format!("until told          {}", self.waited),
            format!("another's, before   {}", self.before),
            format!("another's, during   {}", self.during),
            format!("answered again {:.0} ms after the node went on", self.again_ms),
        ]
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.told.keys().any(|told| told != "HOME_UNREACHABLE") {
            broken.push("not all were told that home is out of reach".to_owned());
        }
        if self.waited.max_ms > milliseconds(IN_TIME) {
            broken.push(format!("somebody waited {:.0} ms", self.waited.max_ms));
        }
        if self.during.p99_ms > self.before.p99_ms * SLOWER + NOISE_MS || self.others_without_status > 0 {
            broken.push("another member's travelers were answered later, or not".to_owned());
        }
        if self.again_ms > milliseconds(AGAIN) {
            broken.push("the traveler is not answered for again".to_owned());
        }
        broken
    }
}
