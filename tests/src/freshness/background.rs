//! Recognitions at a rate, spread over all replicas, while something else is measured.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use proto::random::SystemRandom;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    ask::{Asker, Said},
    figures::Spread,
};
use crate::load::{
    drive::drive,
    schedule::{Arrivals, schedule},
    travelers::Travelers,
};

/// It is driven in rounds of this length, so that it can end.
const ROUND: Duration = Duration::from_secs(2);
const MAX_IN_FLIGHT: usize = 256;

/// Recognitions under way, until this is dropped or stopped.
#[derive(Debug)]
pub struct Background {
    stop: CancellationToken,
    driving: JoinHandle<Result<Driven>>,
}

/// What came of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Driven {
    /// Requests a second.
    pub rate: f64,
    /// How they ended.
    pub ends: BTreeMap<String, usize>,
    /// Requests that were due and not sent, because as many as may be were under way.
    pub not_sent: usize,
    /// Latency from when a request was due, rounded up to whole milliseconds.
    pub latency: Spread,
}

impl Background {
    /// So many requests a second, from now on.
    pub fn start(rate: f64, askers: Vec<Arc<Asker>>, travelers: Travelers) -> Self {
        let stop = CancellationToken::new();
        let driving = tokio::spawn(run(rate, askers, Arc::new(travelers), stop.clone()));
        Self { stop, driving }
    }

    /// Ends it within a round.
    pub async fn stop(mut self) -> Result<Driven> {
        self.stop.cancel();
        (&mut self.driving).await?
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

async fn run(rate: f64, askers: Vec<Arc<Asker>>, travelers: Arc<Travelers>, stop: CancellationToken) -> Result<Driven> {
    let (mut driven, mut times) = (Driven { rate, ..Driven::default() }, Vec::new());
    let send = |number: usize| {
        let (asker, travelers) = (askers[number % askers.len()].clone(), travelers.clone());
        let number = number / askers.len();
        async move {
            match asker.send(travelers.request(number, asker.venue())).await.said {
                Said::Level(..) => "STATUS".to_owned(),
                Said::Other(word) => word,
            }
        }
    };
    while !stop.is_cancelled() {
        let round = drive(&schedule(Arrivals::Poisson, rate, ROUND, &SystemRandom), MAX_IN_FLIGHT, send).await?;
        driven.not_sent += round.not_sent;
        for (end, count) in round.ends {
            *driven.ends.entry(end).or_default() += count;
        }
        for step in round.latency.iter_recorded() {
            let time = Duration::from_millis(step.value_iterated_to().div_ceil(1000));
            times.extend(std::iter::repeat_n(time, usize::try_from(step.count_at_value())?));
        }
    }
    driven.latency = Spread::of(times);
    Ok(driven)
}

impl Driven {
    /// A line.
    pub fn line(&self) -> String {
        let ends: Vec<_> = self.ends.iter().map(|(end, count)| format!("{end} {count}")).collect();
        let Self { rate, not_sent, latency, .. } = self;
        format!("meanwhile {rate:.0}/s: {}, not sent {not_sent}; {latency}", ends.join(", "))
    }
}
