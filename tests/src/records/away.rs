//! A member's node is away while its travelers are asked for as ever: their exchanges are on record and wait at the gateway,
//! and go home when the node is back, without harm to anybody else (I2, I7). With a flood, a caller sends forged tokens of
//! that member meanwhile, which take nothing of its room.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use gateway::record::Shown;
use hdrhistogram::Histogram;
use proto::{identity::Realm, member::Member, venue::VenueId};
use province_stub::store::Store as _;
use serde::Serialize;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    callers::{Callers, Ends, Notes, add, line, rate},
    check::{Verdict, check},
    flood::{Flood, Flooded},
    site::{Site, Waiting, log, until_listening},
};
use crate::{
    freshness::figures::{Report, Spread, milliseconds},
    load::{drive::Driven, programs},
};

/// Refusals that the gateway keeps on its own log: few, so that a flood is more.
const MAX_REFUSALS: u64 = 1024;
/// They go by the block.
const BLOCK: u64 = 256;
/// How long before anything is counted.
const WARMUP: Duration = Duration::from_secs(3);
/// While it catches up, load is driven in rounds of this length, so that it can end.
const ROUND: Duration = Duration::from_secs(1);
/// How soon the gateway says what waits: it looks when it tries to deliver, every 5 s at the least often.
const SAYS: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A member that is away under load.
#[derive(Args, Clone, Debug)]
pub struct Away {
    /// How long.
    #[arg(long, default_value = "5m", value_parser = humantime_serde::re::humantime::parse_duration)]
    away: Duration,
    /// Requests a second, over all members.
    #[arg(long, default_value_t = 2000.0, value_parser = rate)]
    rate: f64,
    /// How long all that waited may take to come home once the member is back.
    #[arg(long, default_value = "60s", value_parser = humantime_serde::re::humantime::parse_duration)]
    back: Duration,
    /// How long the latency before is measured.
    #[arg(long, default_value = "10s", value_parser = humantime_serde::re::humantime::parse_duration)]
    before: Duration,
    /// Somebody sends forged tokens of the member meanwhile, as fast as they are refused.
    #[arg(long)]
    flood: bool,
    /// What 99 of a hundred of the others' requests take at most, whatever the member does. Off unless said.
    #[arg(long, value_parser = humantime_serde::re::humantime::parse_duration)]
    p99_under: Option<Duration>,
    /// Of a hundred of the others' requests, how many may end otherwise than with a status.
    #[arg(long, default_value_t = 1)]
    otherwise: u8,
    /// The member.
    #[arg(long, default_value = "44")]
    member: Member,
    /// The other travelers' members.
    #[arg(long, value_delimiter = ',', default_value = "51,31")]
    others: Vec<Member>,
    /// Tokens of each member.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    tokens: u16,
    /// Who asks.
    #[arg(long, default_value = "11/station/beijing-west")]
    venue: VenueId,
    /// Who floods.
    #[arg(long, default_value = "31/station/shanghai-hongqiao")]
    flooder: VenueId,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct WasAway {
    /// Before it went.
    pub before: Phase,
    /// While it was away.
    pub away: Phase,
    /// From its start until it had caught up.
    pub catching_up: Phase,
    /// What waited for it in the end, by the records on the gateway's disk.
    pub waited: Waiting,
    /// What the gateway said of that.
    pub said: Waiting,
    /// From the node's start until all that had waited was at home, under load, in milliseconds.
    pub at_home_ms: Option<f64>,
    /// From the end of the load until every home had everything and the gateway a durable receipt for it, in milliseconds.
    pub delivered_ms: Option<f64>,
    /// The flood, if there was one.
    pub flood: Option<Flooded>,
    /// Refusals that were put on the gateway's own log, and how many it keeps.
    pub refusals: (u64, u64),
    /// Answers of which no receipt shows that they are on record.
    pub unproven: usize,
    /// What callers noted and homes hold, compared.
    pub verdict: Verdict,
    #[serde(skip)]
    p99_under: Option<Duration>,
    #[serde(skip)]
    otherwise: u8,
    #[serde(skip)]
    wrong: Vec<String>,
}

/// What callers saw for a while.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Phase {
    /// How the others' requests ended.
    pub others: Ends,
    /// How long they took, from when they were due.
    pub latency: Spread,
    /// How those for the member's travelers ended.
    pub member: Ends,
    #[serde(skip)]
    times: Option<Histogram<u64>>,
}

/// The callers for the member's travelers and those for the others': what waits for the one keeps no place on a connection
/// from the other.
struct Both {
    member: Arc<Callers>,
    others: Arc<Callers>,
}

impl Away {
    /// Measures.
    pub async fn run(&self) -> Result<WasAway> {
        let settings = format!("[record]\nmax_refusals = {MAX_REFUSALS}\n");
        let mut site = Site::start(&self.members(), &[&self.venue, &self.flooder], &settings).await?;
        let was = self.measure(&mut site).await;
        let well = was.as_ref().is_ok_and(|was| was.broken().is_empty());
        if let Some(kept) = site.close(well) {
            eprintln!("what the programs left is kept in {}", kept.display());
        }
        was
    }

    async fn measure(&self, site: &mut Site) -> Result<WasAway> {
        let enroll = |members| Callers::enroll(&site.desk, &self.venue, members, self.tokens.into());
        let callers = Both { member: enroll(&[self.member]).await?, others: enroll(&self.others).await? };
        let flood = if self.flood { Some(Flood::ready(&site.desk, &self.flooder, self.member).await?) } else { None };
        self.phase(&callers, WARMUP).await?;
        let before = self.phase(&callers, self.before).await?;
        let node = site.programs.nodes.remove(&self.member).context("the member has a node")?;
        // Asked to stop, as for maintenance; that may take a while.
        spawn_blocking(move || drop(node)).await?;
        let flooding = flood.map(Flood::start);
        let away = self.phase(&callers, self.away).await?;
        let flood = match flooding {
            Some(flooding) => Some(flooding.stop().await?),
            None => None,
        };
        let mut wrong = Vec::new();
        let (waited, end, strangers) = self.on_the_log(site)?;
        if strangers > 0 {
            wrong.push(format!("{strangers} records on the member's log are of the caller that flooded"));
        }
        let said = self.what_the_gateway_says(site, waited).await?;
        let (catching_up, at_home_ms) = self.come_back(site, &callers, end).await?;
        let delivered_ms = match site.until_delivered(self.back).await {
            Ok(took) => took.map(milliseconds),
            Err(error) => {
                wrong.push(format!("the gateway's logs: {error:#}"));
                None
            }
        };
        wrong.extend(site.programs_find().await?);
        let mut strangers = 0;
        let held = site.held(|_, entry| strangers += usize::from(*entry.venue == self.flooder)).await?;
        if strangers > 0 {
            wrong.push(format!("{strangers} records at homes are of the caller that flooded"));
        }
        let (Notes { mut answers, unproven, told }, others) =
            (callers.member.take_notes(), callers.others.take_notes());
        wrong.extend(told.into_iter().chain(others.told));
        answers.extend(others.answers);
        let refusals = site.logs()?.logs()?.into_iter().find(|(owner, ..)| *owner == Realm::Gateway);
        Ok(WasAway {
            before,
            away,
            catching_up,
            waited,
            said,
            at_home_ms,
            delivered_ms,
            flood,
            refusals: refusals.map_or((0, 0), |(_, base, size)| (size, size - base)),
            unproven: unproven + others.unproven,
            verdict: check(&answers, &held),
            p99_under: self.p99_under,
            otherwise: self.otherwise,
            wrong,
        })
    }

    /// All members with travelers.
    fn members(&self) -> Vec<Member> {
        [self.member].into_iter().chain(self.others.iter().copied()).collect()
    }

    /// The rates for the member's travelers and for the others': all members have the same.
    fn rates(&self) -> (f64, f64) {
        let each = self.rate / self.members().len() as f64;
        (each, each * self.others.len() as f64)
    }

    /// Load for so long.
    async fn phase(&self, callers: &Both, lasts: Duration) -> Result<Phase> {
        let (of_member, of_others) = self.rates();
        let mut phase = Phase::default();
        let member = [self.member];
        let (member, others) = tokio::try_join!(
            callers.member.drive(&member, of_member, lasts),
            callers.others.drive(&self.others, of_others, lasts)
        )?;
        phase.add(&member, &others)?;
        Ok(phase)
    }

    /// What waits for the member by the records on the gateway's disk, where its log ends, and how many of those that wait
    /// are of the caller that floods.
    fn on_the_log(&self, site: &Site) -> Result<(Waiting, u64, u64)> {
        let owner = Realm::Member(self.member);
        let log = site.verified()?.into_iter().find(|log| log.owner == owner).context("the member has a log")?;
        let (mut waiting, mut strangers) = (Waiting::default(), 0);
        site.logs()?.records(owner, log.delivered, log.size - log.delivered, |_, record, shown| {
            waiting = Waiting { records: waiting.records + 1, bytes: waiting.bytes + record.len() as u64 };
            strangers += u64::from(matches!(shown, Shown::Exchange(entry) if *entry.venue == self.flooder));
            Ok(())
        })?;
        Ok((waiting, log.size, strangers))
    }

    /// What the gateway says that waits for the member, once it has looked.
    async fn what_the_gateway_says(&self, site: &Site, expected: Waiting) -> Result<Waiting> {
        let began = Instant::now();
        loop {
            let said = site.waiting().await?.remove(&self.member).unwrap_or_default();
            if said == expected || began.elapsed() > SAYS {
                return Ok(said);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Starts the node again. Load goes on until all that waited, up to this end of the log, is at home and the gateway has
    /// the receipt. Returns how long that took, if it came in time.
    async fn come_back(&self, site: &mut Site, callers: &Both, end: u64) -> Result<(Phase, Option<f64>)> {
        let (layout, began) = (site.desk.layout().clone(), Instant::now());
        let mut node = programs::node(&layout, self.member)?;
        let log = log(&layout, &format!("node-{}", self.member));
        until_listening(&mut node, &site.desk.node_address(self.member)?, &log).await?;
        site.programs.nodes.insert(self.member, node);
        let caught_up = CancellationToken::new();
        let load = async {
            let mut phase = Phase::default();
            while !caught_up.is_cancelled() {
                let round = self.phase(callers, ROUND).await?;
                phase.merge(round)?;
            }
            Ok(phase)
        };
        let catching_up = async {
            let _then = caught_up.clone().drop_guard();
            self.until_at_home(site, end, began).await
        };
        tokio::try_join!(load, catching_up)
    }

    async fn until_at_home(&self, site: &Site, end: u64, began: Instant) -> Result<Option<f64>> {
        let (store, log) = (site.store(self.member).await?, site.log_id()?);
        // What comes in while a delivery is under way waits too.
        let at_most = (2.0 * self.rates().0).max(10.0) as u64;
        let mut took = None;
        while took.is_none() && began.elapsed() < self.back {
            sleep(LOOK_EVERY).await;
            let at_home = site.size_at_home(&store, log).await?;
            let waiting = site.waiting().await?.get(&self.member).map(|waiting| waiting.records);
            if at_home >= end && waiting.is_some_and(|records| records <= at_most) {
                took = Some(milliseconds(began.elapsed()));
            }
        }
        store.close().await;
        Ok(took)
    }
}

impl Phase {
    fn add(&mut self, member: &Driven, others: &Driven) -> Result<()> {
        add(&mut self.member, member);
        add(&mut self.others, others);
        self.take_times(&others.latency)
    }

    fn merge(&mut self, other: Self) -> Result<()> {
        for (ends, more) in [(&mut self.member, other.member), (&mut self.others, other.others)] {
            more.into_iter().for_each(|(end, count)| *ends.entry(end).or_default() += count);
        }
        other.times.iter().try_for_each(|times| self.take_times(times))
    }

    fn take_times(&mut self, more: &Histogram<u64>) -> Result<()> {
        let times = match self.times.take() {
            Some(mut times) => {
                times.add(more)?;
                times
            }
            None => more.clone(),
        };
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
        let count = usize::try_from(times.len())?;
        self.latency = Spread { count, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) };
        self.times = Some(times);
        Ok(())
    }

    fn lines(&self, name: &str) -> [String; 3] {
        let Self { others, latency, member, .. } = self;
        [
            format!("{name}: the others' {latency}"),
            format!("  others: {}", line(others)),
            format!("  the member's: {}", line(member)),
        ]
    }

    /// What harm the others came to.
    fn harm(&self, otherwise_at_most: u8, p99_under: Option<Duration>) -> Option<String> {
        let all: usize = self.others.values().sum();
        let statuses: usize =
            self.others.iter().filter(|(end, _)| end.starts_with("STATUS ")).map(|(_, count)| count).sum();
        let otherwise = (all - statuses) as f64 * 100.0 / all.max(1) as f64;
        let late = p99_under.filter(|limit| self.latency.p99_ms >= milliseconds(*limit));
        match late {
            _ if otherwise > f64::from(otherwise_at_most) => {
                Some(format!("{otherwise:.1} % of the others had no status"))
            }
            Some(limit) => Some(format!("the others' p99 is {:.1} ms, wanted under {limit:?}", self.latency.p99_ms)),
            None => None,
        }
    }
}

impl Report for WasAway {
    fn lines(&self) -> Vec<String> {
        let Self { before, away, catching_up, waited, said, verdict, refusals, .. } = self;
        let when = |ms: Option<f64>| ms.map_or("never".to_owned(), |ms| format!("{ms:.0} ms"));
        let mut lines = Vec::new();
        for (name, phase) in [("before", before), ("while it was away", away), ("while it caught up", catching_up)] {
            lines.extend(phase.lines(name));
        }
        lines.push(format!(
            "waited: {} records, {} bytes; the gateway said {} and {}",
            waited.records, waited.bytes, said.records, said.bytes
        ));
        lines.push(format!("back until all that waited was at home: {}", when(self.at_home_ms)));
        lines.push(format!("load ended until all delivered:         {}", when(self.delivered_ms)));
        if let Some(flood) = &self.flood {
            lines.push(flood.line());
        }
        lines.push(format!("refusals on the gateway's own log: {}, of which it keeps {}", refusals.0, refusals.1));
        let Verdict { acknowledged, held, logs, .. } = verdict;
        lines.push(format!("{acknowledged} answers acknowledged; {held} records at homes, on {logs} logs"));
        lines.push(verdict.line());
        lines
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn broken(&self) -> Vec<String> {
        let Self { waited, said, refusals, unproven, .. } = self;
        let harm = |name: &str, phase: &Phase| {
            phase.harm(self.otherwise, self.p99_under).map(|harm| format!("{name}: {harm}"))
        };
        let found = [
            harm("while it was away", &self.away),
            harm("while it caught up", &self.catching_up),
            (waited != said).then(|| format!("what waited is {waited:?}, and the gateway said {said:?}")),
            (waited.records == 0).then(|| "nothing waited: nothing is shown".to_owned()),
            self.at_home_ms.is_none().then(|| "not all that waited came home in time".to_owned()),
            self.delivered_ms.is_none().then(|| "not everything was delivered in time".to_owned()),
            (refusals.1 > MAX_REFUSALS + BLOCK).then(|| format!("{} refusals are kept", refusals.1)),
            self.flood.as_ref().and_then(Flooded::broken),
            (*unproven > 0).then(|| format!("{unproven} answers without a receipt that shows them")),
        ];
        let broken = found.into_iter().flatten().chain(self.verdict.broken());
        broken.chain(self.wrong.iter().cloned()).collect()
    }
}
