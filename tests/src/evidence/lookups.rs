//! What a node answers: lookups of people spread over all it has, as many under way as are wanted, by fresh proofs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use peer::{
    dial::{self, DialLimits},
    verifier::Expected,
};
use proto::{
    contract::province::{LookupRequest, lookup_response, province_service_client::ProvinceServiceClient},
    random::{self, SystemRandom},
    refusal::{Refusal, reason_name},
    terms::{Purpose, Scope},
    time::{Clock as _, SystemClock},
    venue::VenueId,
};
use province_stub::seed;
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};
use tongxing::phone::{Pass, Wish};

use super::site::Site;
use crate::freshness::figures::Spread;

/// People who are asked about.
const TRAVELERS: usize = 500;
/// Connections that it is asked on.
const CONNECTIONS: usize = 4;
const LIFE: Duration = Duration::from_secs(3600);

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Lookups {
    people: u32,
    per_second: f64,
    node_cpu_us: f64,
    server_cpu_us: Option<f64>,
    latency: Spread,
    ends: BTreeMap<String, usize>,
}

impl Lookups {
    /// For people.
    pub fn line(&self) -> String {
        let Self { people, per_second, node_cpu_us, latency, ends, .. } = self;
        let server = self.server_cpu_us.map_or(String::new(), |cpu| format!(", server {cpu:.0} us"));
        format!(
            "lookups     {people} people: {per_second:.0}/s, CPU each: node {node_cpu_us:.0} us{server}; {latency}; {ends:?}"
        )
    }

    /// Whatever is no statement.
    pub fn broken(&self) -> Vec<String> {
        self.ends.keys().filter(|end| *end != "statement").map(|end| format!("lookups ended with {end}")).collect()
    }
}

/// Asks a node for travelers as a gateway does.
pub async fn measure(site: &mut Site, people: u32, lasts: Duration, in_flight: usize) -> Result<Lookups> {
    let passes = Arc::new(passes(site, people).await?);
    let clients = clients(site)?;
    let venue: VenueId = "11/station/beijing-west".parse()?;
    let (before, started, next) = (site.used()?, Instant::now(), Arc::new(AtomicUsize::new(0)));
    let mut asking = JoinSet::new();
    for number in 0..in_flight {
        let (client, passes, venue, next) =
            (clients[number % CONNECTIONS].clone(), passes.clone(), venue.clone(), next.clone());
        asking.spawn(async move {
            let (mut latencies, mut ends) = (Vec::new(), BTreeMap::<String, usize>::new());
            while started.elapsed() < lasts {
                let pass = &passes[next.fetch_add(1, Ordering::Relaxed) % passes.len()];
                let asked = request(pass, &venue);
                let at = Instant::now();
                let end = ask(client.clone(), asked).await;
                latencies.push(at.elapsed());
                *ends.entry(end).or_default() += 1;
            }
            (latencies, ends)
        });
    }
    let (mut latencies, mut ends) = (Vec::new(), BTreeMap::<String, usize>::new());
    while let Some(asked) = asking.join_next().await {
        let (times, ended) = asked?;
        latencies.extend(times);
        ended.into_iter().for_each(|(end, count)| *ends.entry(end).or_default() += count);
    }
    let (took, after, count) = (started.elapsed(), site.used()?, latencies.len().max(1) as f64);
    let each = |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / count;
    Ok(Lookups {
        people,
        per_second: count / took.as_secs_f64(),
        node_cpu_us: each(before.0.cpu, after.0.cpu),
        server_cpu_us: before.1.zip(after.1).map(|(before, after)| each(before.cpu, after.cpu)),
        latency: Spread::of(latencies),
        ends,
    })
}

/// Phones of people spread over all there are, with a token each.
async fn passes(site: &Site, people: u32) -> Result<Vec<Pass>> {
    let backend = site.desk.backend(site.member)?;
    let all = seed::people(site.member, people, &site.desk.trust().policy);
    let step = (all.len() / TRAVELERS).max(1);
    let wish = Wish { life: LIFE, scope: Scope::LEVEL.union(Scope::TESTS), ..Wish::default() };
    let mut passes = Vec::new();
    for person in all.iter().step_by(step).take(TRAVELERS) {
        let phone = backend.enroll(person).await?;
        passes.push(phone.consent(&wish, SystemClock.now()).await?);
    }
    Ok(passes)
}

fn clients(site: &Site) -> Result<Vec<ProvinceServiceClient<tonic::transport::Channel>>> {
    let standing = site.desk.standing(&site.desk.layout().gateway(1))?;
    let address = site.desk.node_address(site.member)?;
    let client = |_| {
        let channel = dial::channel(&standing, &address, Expected::NodeOf(site.member), DialLimits::default());
        channel.map(ProvinceServiceClient::new).context("an address of ours")
    };
    (0..CONNECTIONS).map(client).collect()
}

fn request(pass: &Pass, venue: &VenueId) -> LookupRequest {
    let presentation = pass.present(Some(venue), SystemClock.now());
    LookupRequest {
        token: presentation.token,
        proof: presentation.proof.unwrap_or_default(),
        venue: venue.to_string(),
        purpose: i32::from(Purpose::Travel.number()),
        scope: u32::from(Scope::LEVEL.union(Scope::TESTS).bits()),
        exchange_id: random::bytes::<16>(&SystemRandom).to_vec(),
    }
}

async fn ask(mut client: ProvinceServiceClient<tonic::transport::Channel>, request: LookupRequest) -> String {
    match client.lookup(request).await.map(|answer| answer.into_inner().result) {
        Ok(Some(lookup_response::Result::Statement(_))) => "statement".to_owned(),
        Ok(Some(lookup_response::Result::UnknownTraveler(_))) => "unknown_traveler".to_owned(),
        Ok(None) => "nothing".to_owned(),
        Err(status) => match Refusal::reason_of(&status) {
            Some(reason) => reason_name(reason).to_owned(),
            None => format!("{:?}", status.code()),
        },
    }
}
