//! Thousands ask for one traveler of whom nothing is held, at once: home is asked once, and all are answered.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;
use proto::{member::Member, terms::Level, venue::VenueId};
use serde::Serialize;
use tokio::task::JoinSet;

use super::{
    figures::{Report, Spread},
    site::{Plan, Site},
};

/// So that all are under way at once, and none is refused for being one of too many or for the time it takes to verify
/// them all.
const SETTINGS: &str = "[limits]\nmax_streams_per_connection = 1024\nmax_in_flight = 200000\n\
                        max_in_flight_per_caller = 200000\nmax_duration = \"1m\"\n\n[record]\nmax_waiting = 200000\n";
/// Questions under way on one connection.
const PER_CONNECTION: usize = 500;
const PATIENCE: Duration = Duration::from_secs(60);
const CACHED: Duration = Duration::from_secs(20);

/// Many ask for one cold traveler at once.
#[derive(Args, Clone, Debug)]
pub struct Cold {
    /// How many.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    asks: u32,
    /// The traveler's member.
    #[arg(long, default_value = "44")]
    member: Member,
    /// Who asks.
    #[arg(long, default_value = "11/station/beijing-west")]
    venue: VenueId,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// How many asked.
    pub asks: usize,
    /// How many were told that the traveler is green.
    pub answered: usize,
    /// What the others were told, and how often.
    pub otherwise: BTreeMap<String, usize>,
    /// How often home was asked.
    pub lookups: u64,
    /// Lookups that came to nothing at the gateway, by kind.
    pub home_failures: BTreeMap<String, u64>,
    /// How long the answers took.
    pub latency: Spread,
}

impl Cold {
    /// Measures.
    pub async fn run(&self) -> Result<Asked> {
        let site = Site::start(&Plan {
            members: vec![self.member],
            venue: self.venue.clone(),
            gateways: 1,
            forwarded: false,
            gateway_settings: SETTINGS.to_owned(),
        })
        .await?;
        let asks = usize::try_from(self.asks)?;
        let connections = asks.div_ceil(PER_CONNECTION);
        let asker = site.askers(connections, PATIENCE)?.remove(0);
        let travelers = site.travelers(self.member, 1, 2).await?;
        let (warm, cold) = (&travelers[0], &travelers[1]);
        // Every connection stands, and what is asked for is what the others share.
        for _ in 0..connections {
            asker.until_cached(warm, Level::Green, CACHED).await?;
        }
        // All proofs are made before the first is sent, so that what is measured is not their making.
        let requests: Vec<_> = (0..asks).map(|_| cold.request(asker.venue())).collect();
        let before = site.lookups(self.member).await?;
        let mut asking = JoinSet::new();
        for request in requests {
            let asker = Arc::clone(&asker);
            asking.spawn(async move { asker.send(request).await });
        }
        let (mut times, mut otherwise) = (Vec::with_capacity(asks), BTreeMap::new());
        while let Some(answer) = asking.join_next().await {
            let answer = answer?;
            match answer.said.level() {
                Some(Level::Green) => times.push(answer.came - answer.sent),
                _ => *otherwise.entry(answer.said.to_string()).or_default() += 1,
            }
        }
        let lookups = site.lookups(self.member).await? - before;
        let answered = times.len();
        let home_failures = site.home_failures().await?;
        Ok(Asked { asks, answered, otherwise, lookups, home_failures, latency: Spread::of(times) })
    }
}

impl Report for Asked {
    fn lines(&self) -> Vec<String> {
        let Self { asks, answered, lookups, home_failures, latency, .. } = self;
        vec![
            format!(
                "{asks} asked for one cold traveler at once (the gateway's limits raised for it): {answered} answered"
            ),
            format!("lookups at home: {lookups}; that came to nothing at the gateway: {home_failures:?}"),
            format!("answers    {latency}"),
        ]
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn broken(&self) -> Vec<String> {
        let missing = self.asks - self.answered;
        let missing = (missing > 0).then(|| format!("{missing} were not answered: {:?}", self.otherwise));
        let lookups = self.lookups;
        let lookups = (lookups != 1).then(|| format!("home was asked {lookups} times, promised once"));
        missing.into_iter().chain(lookups).collect()
    }
}
