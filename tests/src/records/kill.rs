//! The gateway is killed at random moments under load, again and again, and started again from what it left; nodes too if
//! that is wanted. Whatever answer a caller has in hand is at its home afterwards, once, where its receipt says (I2).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use proto::{member::Member, random::SystemRandom, venue::VenueId};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tongxing::{desk::Desk, layout::Layout};

use super::{
    callers::{Callers, Ends, Load, Notes, line, rate},
    check::{Verdict, check},
    site::{Site, log, until_listening},
};
use crate::{
    freshness::figures::{Report, Spread, milliseconds},
    load::{
        process::Program,
        programs::{self, Programs},
    },
};

/// However few answers are wanted, the gateway lives so long on the average.
const LEAST_LIFE: Duration = Duration::from_millis(500);
/// One round in so many, it is killed once more before it has well started.
const AGAIN_ONE_IN: u64 = 4;
/// Within this after it was started.
const WHILE_STARTING: Duration = Duration::from_millis(400);
/// Between two nodes' deaths on the average, and how long one is dead at most.
const NODE_LIFE: Duration = Duration::from_secs(3);
const NODE_DEATH: Duration = Duration::from_secs(2);
/// How soon somebody has an answer of a gateway that listens.
const ANSWERS: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(5);
/// How long all may take: this, so many times what the answers take at the rate, and so long for each round.
const AT_MOST: Duration = Duration::from_secs(120);
const AT_MOST_TIMES: f64 = 4.0;
const AT_MOST_PER_ROUND: Duration = Duration::from_secs(10);

/// The gateway killed under load.
#[derive(Args, Clone, Debug)]
pub struct Kill {
    /// How often it is killed, at least.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Answers that callers have in hand in the end, at least.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    answers: u32,
    /// Requests a second.
    #[arg(long, default_value_t = 2000.0, value_parser = rate)]
    rate: f64,
    /// Nodes are killed meanwhile too, one after the other.
    #[arg(long)]
    nodes: bool,
    /// How long delivery may take once the load has ended.
    #[arg(long, default_value = "60s", value_parser = humantime_serde::re::humantime::parse_duration)]
    delivered_within: Duration,
    /// The travelers' members.
    #[arg(long, value_delimiter = ',', default_value = "44,51,31")]
    members: Vec<Member>,
    /// Tokens of each member.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    tokens: u16,
    /// Who asks.
    #[arg(long, default_value = "11/station/beijing-west")]
    venue: VenueId,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Killed {
    /// How often the gateway was killed.
    pub rounds: u32,
    /// How often of these it had not begun to listen.
    pub while_starting: u32,
    /// How often a node was killed.
    pub nodes: u32,
    /// How requests ended.
    pub ends: Ends,
    /// From a start after a kill until it listened.
    pub listening: Spread,
    /// From a start after a kill until a caller had an answer of it.
    pub answering: Spread,
    /// From the end of the load until every home had everything and the gateway a durable receipt for it, in milliseconds.
    pub delivered_ms: Option<f64>,
    /// Answers of which no receipt shows that they are on record.
    pub unproven: usize,
    /// What callers noted and homes hold, compared.
    pub verdict: Verdict,
    #[serde(skip)]
    wrong: Vec<String>,
}

/// How often and how long the gateway was away.
#[derive(Default)]
struct Deaths {
    rounds: u32,
    while_starting: u32,
    listening: Vec<Duration>,
    answering: Vec<Duration>,
}

impl Kill {
    /// Measures.
    pub async fn run(&self) -> Result<Killed> {
        let mut site = Site::start(&self.members, &[&self.venue], "").await?;
        let killed = self.kill(&mut site).await;
        let well = killed.as_ref().is_ok_and(|killed| killed.broken().is_empty());
        if let Some(kept) = site.close(well) {
            eprintln!("what the programs left is kept in {}", kept.display());
        }
        killed
    }

    async fn kill(&self, site: &mut Site) -> Result<Killed> {
        let callers = Callers::enroll(&site.desk, &self.venue, &self.members, self.tokens.into()).await?;
        let load = Load::start(&callers, &self.members, self.rate);
        let (deaths, nodes) = self.deaths(site, &callers).await?;
        let ends = load.stop().await?;
        let Deaths { rounds, while_starting, listening, answering } = deaths;
        let mut wrong = Vec::new();
        let delivered_ms = match site.until_delivered(self.delivered_within).await {
            Ok(took) => took.map(milliseconds),
            Err(error) => {
                wrong.push(format!("the gateway's logs: {error:#}"));
                None
            }
        };
        wrong.extend(site.programs_find().await?);
        let Notes { answers, unproven, told } = callers.take_notes();
        wrong.extend(told);
        Ok(Killed {
            rounds,
            while_starting,
            nodes,
            ends,
            listening: Spread::of(listening),
            answering: Spread::of(answering),
            delivered_ms,
            unproven,
            verdict: check(&answers, &site.held(|_, _| ()).await?),
            wrong,
        })
    }

    /// Until there were rounds and answers enough; all programs run again then.
    async fn deaths(&self, site: &mut Site, callers: &Arc<Callers>) -> Result<(Deaths, u32)> {
        let (Programs { gateways, nodes }, desk) = (&mut site.programs, &site.desk);
        let stop = CancellationToken::new();
        let of_gateway = async {
            let deaths = self.gateway_deaths(gateways, desk, callers).await;
            stop.cancel();
            deaths
        };
        let of_nodes = async { if self.nodes { node_deaths(nodes, desk, &stop).await } else { Ok(0) } };
        tokio::try_join!(of_gateway, of_nodes)
    }

    async fn gateway_deaths(&self, gateways: &mut Vec<Program>, desk: &Desk, callers: &Callers) -> Result<Deaths> {
        let address = desk.gateway_address()?;
        let (mut deaths, began, at_most) = (Deaths::default(), Instant::now(), self.at_most());
        loop {
            let acknowledged = callers.acknowledged();
            let answers_left = (self.answers as usize).saturating_sub(acknowledged);
            let rounds_left = self.rounds.saturating_sub(deaths.rounds);
            if rounds_left == 0 && answers_left == 0 {
                return Ok(deaths);
            }
            if began.elapsed() > at_most {
                bail!("{} rounds and {acknowledged} answers in {at_most:?}", deaths.rounds);
            }
            let life = answers_left as f64 / f64::from(rounds_left.max(1)) / self.rate;
            sleep(up_to(2 * Duration::from_secs_f64(life).max(LEAST_LIFE))).await;
            if rounds_left == 0 {
                continue;
            }
            let gateway = gateways.pop().context("there is a gateway")?;
            let mut gateway = deaths.kill(gateway, desk.layout())?;
            if drawn().is_multiple_of(AGAIN_ONE_IN) {
                sleep(up_to(WHILE_STARTING)).await;
                deaths.while_starting += 1;
                gateway = deaths.kill(gateway, desk.layout())?;
            }
            let started = Instant::now();
            let before = callers.acknowledged();
            deaths.listening.push(until_listening(&mut gateway, &address, &log(desk.layout(), "gateway")).await?);
            gateways.push(gateway);
            while callers.acknowledged() == before {
                if started.elapsed() > ANSWERS {
                    bail!("nobody has an answer {ANSWERS:?} after the gateway was started again");
                }
                sleep(EVERY).await;
            }
            deaths.answering.push(started.elapsed());
        }
    }

    fn at_most(&self) -> Duration {
        let answers = Duration::from_secs_f64(f64::from(self.answers) / self.rate);
        AT_MOST + answers.mul_f64(AT_MOST_TIMES) + AT_MOST_PER_ROUND * self.rounds
    }
}

impl Deaths {
    /// Kills the gateway and starts it again.
    fn kill(&mut self, gateway: Program, layout: &Layout) -> Result<Program> {
        gateway.kill()?;
        self.rounds += 1;
        programs::gateway(layout, 1)
    }
}

/// Kills one node after the other, and starts it again after a while. Returns how often.
async fn node_deaths(nodes: &mut BTreeMap<Member, Program>, desk: &Desk, stop: &CancellationToken) -> Result<u32> {
    let members: Vec<_> = nodes.keys().copied().collect();
    for killed in 0.. {
        tokio::select! {
            () = sleep(up_to(2 * NODE_LIFE)) => {}
            () = stop.cancelled() => return Ok(killed),
        }
        let member = members[(drawn() % members.len() as u64) as usize];
        nodes.remove(&member).context("every member has a node")?.kill()?;
        sleep(up_to(NODE_DEATH)).await;
        let mut node = programs::node(desk.layout(), member)?;
        let log = log(desk.layout(), &format!("node-{member}"));
        until_listening(&mut node, &desk.node_address(member)?, &log).await?;
        nodes.insert(member, node);
    }
    Ok(u32::MAX)
}

fn drawn() -> u64 {
    u64::from_be_bytes(proto::random::bytes(&SystemRandom))
}

/// A random time from nothing to this.
fn up_to(limit: Duration) -> Duration {
    limit.mul_f64((drawn() >> 11) as f64 / (1_u64 << 53) as f64)
}

impl Report for Killed {
    fn lines(&self) -> Vec<String> {
        let Self { rounds, while_starting, nodes, ends, listening, answering, verdict, .. } = self;
        let Verdict { acknowledged, held, logs, .. } = verdict;
        let delivered = self.delivered_ms.map_or("never".to_owned(), |ms| format!("{ms:.0} ms"));
        vec![
            format!("{rounds} rounds, {while_starting} of them while it started; {nodes} times a node"),
            format!("requests: {}", line(ends)),
            format!("{acknowledged} answers acknowledged; {held} records at homes, on {logs} logs"),
            verdict.line(),
            format!("started again until it listened:  {listening}"),
            format!("started again until it answered:  {answering}"),
            format!("load ended until all delivered:   {delivered}"),
        ]
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn broken(&self) -> Vec<String> {
        let undelivered = self.delivered_ms.is_none().then(|| "not everything was delivered in time".to_owned());
        let unproven = self.unproven;
        let unproven = (unproven > 0).then(|| format!("{unproven} answers without a receipt that shows them"));
        let broken = undelivered.into_iter().chain(unproven).chain(self.verdict.broken());
        broken.chain(self.wrong.iter().cloned()).collect()
    }
}
