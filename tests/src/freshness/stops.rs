//! Faults: the way between gateway and node is cut, a node stands still, the gateway stands still. Travelers who were held
//! green are turned red shortly before or during each, and a venue keeps asking for them through it and after it: nothing
//! old to a question sent a second after home's acknowledgement (I4), and what is held serves again by itself.
//!
//! ```text
//! fault    what happens to a member, or to the gateway, and when which traveler is turned
//! trial    one traveler through one fault: the venue that keeps asking, and what it was told
//! ```

mod fault;
mod trial;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use proto::{member::Member, terms::Level, venue::VenueId};
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    fault::{Blow, Fault, Strike, Struck},
    trial::{Tally, Watched, watch},
};
use super::{
    ask::Asker,
    figures::{Report, Spread},
    home::Traveler,
    site::{Plan, Site},
};
use crate::load::process::Standstill;

/// From when on nothing old is said any more (I4).
const SECOND: Duration = Duration::from_secs(1);
/// How long what is held may take to serve again once a fault is over.
const AGAIN: Duration = Duration::from_secs(20);
/// How long a traveler may take to be held before a fault.
const CACHED: Duration = Duration::from_secs(30);
/// How long is asked after everything serves again.
const AFTERWARDS: Duration = Duration::from_millis(1500);
/// Room for all questions that wait at a gateway that stands still: they are to lie there, not in the venue.
const SETTINGS: &str = "[limits]\nmax_streams_per_connection = 1024\nmax_in_flight_per_caller = 4096\n";

/// Streams cut and programs stopped.
#[derive(Args, Clone, Debug)]
pub struct Stops {
    /// Trials of each fault, at least: one is one traveler through one fault.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    trials: u32,
    /// How long a fault lasts.
    #[arg(long, default_value = "10s", value_parser = humantime_serde::re::humantime::parse_duration)]
    pause: Duration,
    /// Travelers of each member that one round puts to the trial.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    travelers: u8,
    /// The travelers' members.
    #[arg(long, value_delimiter = ',', default_value = "44,51,31,32,33,34,35,36")]
    members: Vec<Member>,
    /// How often the venue asks for each traveler.
    #[arg(long, default_value = "20ms", value_parser = humantime_serde::re::humantime::parse_duration)]
    every: Duration,
    /// The faults.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "cut,node,gateway")]
    faults: Vec<Fault>,
    /// Who asks.
    #[arg(long, default_value = "11/station/beijing-west")]
    venue: VenueId,
}

/// What came of all.
#[derive(Clone, Debug, Serialize)]
pub struct Stopped(BTreeMap<Fault, Suffered>);

/// What came of one fault.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Suffered {
    /// Trials.
    pub trials: usize,
    /// What the venues were told.
    pub tally: Tally,
    /// From the end of a fault until a member's green was served from the cache again.
    pub again: Waits,
    /// From the end of a fault until a traveler who was turned was said to be red.
    pub red: Waits,
}

/// How long something took, each time that it came.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Waits {
    /// The figures.
    #[serde(flatten)]
    pub spread: Spread,
    /// How often it did not come in time.
    pub never: usize,
    #[serde(skip)]
    times: Vec<Duration>,
}

/// What the rounds stand on.
struct Stage {
    site: Site,
    asker: Arc<Asker>,
    towns: Vec<Town>,
}

/// A member's travelers: those on trial, and one who stays green.
struct Town {
    member: Member,
    on_trial: Vec<Arc<Traveler>>,
    control: Arc<Traveler>,
}

impl Stops {
    /// Measures.
    pub async fn run(&self) -> Result<Stopped> {
        let stage = self.stage().await?;
        let rounds = usize::try_from(self.trials)?.div_ceil(self.members.len() * usize::from(self.travelers));
        let mut stopped = BTreeMap::new();
        for fault in &self.faults {
            let mut suffered = Suffered::default();
            for round in 0..rounds {
                self.round(&stage, *fault, round, &mut suffered).await.with_context(|| format!("{fault} {round}"))?;
            }
            stopped.insert(*fault, suffered);
        }
        Ok(Stopped(stopped))
    }

    async fn stage(&self) -> Result<Stage> {
        let site = Site::start(&Plan {
            members: self.members.clone(),
            venue: self.venue.clone(),
            gateways: 1,
            forwarded: true,
            gateway_settings: SETTINGS.to_owned(),
        })
        .await?;
        // What lies at a gateway that stands still is answered when it goes on: nobody gives up before.
        let asker = site.askers(self.members.len(), self.pause + CACHED)?.remove(0);
        let mut towns = Vec::new();
        for member in &self.members {
            let mut on_trial = site.travelers(*member, 1, usize::from(self.travelers) + 1).await?;
            let control = on_trial.pop().context("there is a control")?;
            towns.push(Town { member: *member, on_trial, control });
        }
        Ok(Stage { site, asker, towns })
    }

    /// All travelers through one fault.
    async fn round(&self, stage: &Stage, fault: Fault, round: usize, suffered: &mut Suffered) -> Result<()> {
        stage.settle().await?;
        let (began, stop) = (Instant::now(), CancellationToken::new());
        let _stopping = stop.clone().drop_guard();
        let mut watching = JoinSet::new();
        for traveler in stage.towns.iter().flat_map(|town| &town.on_trial) {
            watching.spawn(watch(stage.asker.clone(), traveler.clone(), self.every, stop.clone()));
        }
        let struck = self.strike(stage, fault, round).await?;
        stage.again(&struck, suffered).await?;
        sleep_until(Instant::now() + AFTERWARDS).await;
        stop.cancel();
        while let Some(watched) = watching.join_next().await {
            let Watched { traveler, answers } = watched?;
            let turned = struck.iter().flat_map(|struck| &struck.turned);
            let turned = turned.clone().find(|turned| Arc::ptr_eq(&turned.traveler, &traveler));
            let acknowledged = turned.context("every traveler on trial is turned")?.acknowledged;
            suffered.trials += 1;
            suffered.tally.add(&answers, began, acknowledged);
        }
        Ok(())
    }

    /// Strikes everywhere at once, and waits until it is over.
    async fn strike(&self, stage: &Stage, fault: Fault, round: usize) -> Result<Vec<Struck>> {
        let mut striking = JoinSet::new();
        for strike in stage.strikes(fault, round)? {
            striking.spawn(strike.run(self.pause));
        }
        let mut struck = Vec::new();
        while let Some(ended) = striking.join_next().await {
            struck.push(ended??);
        }
        Ok(struck)
    }
}

impl Stage {
    /// Everybody is green, and held.
    async fn settle(&self) -> Result<()> {
        let mut settling = JoinSet::new();
        for town in &self.towns {
            let home = self.site.home(town.member)?;
            for traveler in town.on_trial.iter().chain([&town.control]) {
                let (home, asker, traveler) = (home.clone(), self.asker.clone(), traveler.clone());
                let is_control = Arc::ptr_eq(&traveler, &town.control);
                settling.spawn(async move {
                    if !is_control {
                        home.turn(&traveler, Level::Green).await?;
                    }
                    asker.until_cached(&traveler, Level::Green, CACHED).await
                });
            }
        }
        while let Some(settled) = settling.join_next().await {
            settled??;
        }
        Ok(())
    }

    /// What strikes whom: each member by itself, or the gateway and with it all.
    fn strikes(&self, fault: Fault, round: usize) -> Result<Vec<Strike>> {
        let victims = |town: &Town| -> Result<Vec<_>> {
            let home = self.site.home(town.member)?;
            Ok(town.on_trial.iter().map(|traveler| (home.clone(), traveler.clone())).collect())
        };
        let members = || self.towns.iter().map(|town| town.member).collect::<Vec<_>>();
        if fault == Fault::Gateway {
            let gateway = self.site.programs.gateways.first().context("there is a gateway")?.id();
            let victims = self.towns.iter().map(victims).collect::<Result<Vec<_>>>()?.concat();
            let blow = Blow::Stop(Standstill::of(gateway)?);
            return Ok(vec![Strike { blow, members: members(), victims, all_before: false }]);
        }
        let strike = |town: &Town| {
            let blow = match fault {
                Fault::Cut => {
                    let forwarder = self.site.forwarders.get(&town.member).context("a forwarder stands there")?;
                    // By turns what was held back comes after all, or is lost with its connection.
                    Blow::Hold { forwarder: forwarder.clone(), release: round.is_multiple_of(2) }
                }
                Fault::Node | Fault::Gateway => Blow::Stop(Standstill::of(self.site.node(town.member)?)?),
            };
            // A home that stands still turns nobody.
            let all_before = fault == Fault::Node;
            Ok(Strike { blow, members: vec![town.member], victims: victims(town)?, all_before })
        };
        self.towns.iter().map(strike).collect()
    }

    /// Waits until each member's control is served from the cache again, and until all who were turned are seen red.
    async fn again(&self, struck: &[Struck], suffered: &mut Suffered) -> Result<()> {
        let (mut held, mut red) = (JoinSet::new(), JoinSet::new());
        for Struck { members, over, turned } in struck {
            for town in self.towns.iter().filter(|town| members.contains(&town.member)) {
                let (asker, control, over) = (self.asker.clone(), town.control.clone(), *over);
                held.spawn(
                    async move { asker.until_cached(&control, Level::Green, AGAIN).await.map(|_| over.elapsed()) },
                );
            }
            for turned in turned {
                let (asker, traveler, over) = (self.asker.clone(), turned.traveler.clone(), *over);
                red.spawn(async move { asker.until_said(&traveler, Level::Red, AGAIN).await.map(|_| over.elapsed()) });
            }
        }
        suffered.again.wait(&mut held).await?;
        suffered.red.wait(&mut red).await
    }
}

impl Waits {
    async fn wait(&mut self, waiting: &mut JoinSet<Result<Duration>>) -> Result<()> {
        while let Some(waited) = waiting.join_next().await {
            match waited? {
                Ok(time) => self.times.push(time),
                Err(error) => {
                    eprintln!("{error:#}");
                    self.never += 1;
                }
            }
        }
        self.spread = Spread::of(self.times.clone());
        Ok(())
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, never {}", self.spread, self.never)
    }
}

impl Report for Stopped {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (fault, suffered) in &self.0 {
            let Suffered { trials, tally, again, red } = suffered;
            lines.push(format!("{fault}: {trials} trials, {} answers", tally.answers));
            lines.extend(tally.lines());
            lines.push(format!("  over until a green came from the cache: {again}"));
            lines.push(format!("  over until the red was said:            {red}"));
        }
        lines
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn broken(&self) -> Vec<String> {
        let broken = self.0.iter().flat_map(|(fault, suffered)| {
            let (old, again, red) = (suffered.tally.old_after_a_second, suffered.again.never, suffered.red.never);
            [
                (old > 0).then(|| format!("{fault}: {old} answers were old after a second")),
                (again > 0).then(|| format!("{fault}: {again} times nothing was served from the cache again")),
                (red > 0).then(|| format!("{fault}: {red} travelers were not seen red in time")),
            ]
        });
        broken.flatten().collect()
    }
}
