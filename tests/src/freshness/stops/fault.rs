//! What happens to a member, or to the gateway, and when which traveler is turned.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::Result;
use proto::{member::Member, terms::Level};
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    freshness::{
        forwarder::Forwarder,
        home::{Home, Traveler},
    },
    load::process::Standstill,
};

/// When travelers are turned, by turns, in hundredths of the fault: the first before it begins.
const DURING: [u32; 3] = [1, 40, 85];

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// All that goes between gateway and node is held back, and then comes or is lost.
    Cut,
    /// The node stands still.
    Node,
    /// The gateway stands still.
    Gateway,
}

/// How it is done.
pub(super) enum Blow {
    /// By the forwarder in between.
    Hold {
        /// It.
        forwarder: Arc<Forwarder>,
        /// Whether what was held comes through in the end.
        release: bool,
    },
    /// By a signal to a process.
    Stop(Standstill),
}

/// One fault, and those who are turned around it.
pub(super) struct Strike {
    pub(super) blow: Blow,
    /// Whose travelers it is about.
    pub(super) members: Vec<Member>,
    pub(super) victims: Vec<(Arc<Home>, Arc<Traveler>)>,
    /// Whether all are turned before it begins.
    pub(super) all_before: bool,
}

/// A fault that is over.
pub(super) struct Struck {
    pub(super) members: Vec<Member>,
    /// When it was over.
    pub(super) over: Instant,
    pub(super) turned: Vec<Turned>,
}

/// A traveler who is red.
pub(super) struct Turned {
    pub(super) traveler: Arc<Traveler>,
    /// When home's acknowledgement was there.
    pub(super) acknowledged: Instant,
}

impl Strike {
    /// Turns who is turned before, strikes at once, turns the others, and ends it.
    pub(super) async fn run(self, lasts: Duration) -> Result<Struck> {
        let Self { mut blow, members, victims, all_before } = self;
        let turn_at = |index: usize| match index % (DURING.len() + 1) {
            0 => None,
            turn => (!all_before).then(|| lasts * DURING[turn - 1] / 100),
        };
        let (before, during): (Vec<_>, Vec<_>) =
            victims.into_iter().enumerate().partition(|(index, _)| turn_at(*index).is_none());
        let mut turning = JoinSet::new();
        for (_, (home, traveler)) in before {
            turning.spawn(turn(home, traveler, None));
        }
        let mut turned = finish(&mut turning).await?;
        blow.begin()?;
        let began = Instant::now();
        for (index, (home, traveler)) in during {
            turning.spawn(turn(home, traveler, turn_at(index).map(|after| began + after)));
        }
        sleep_until(began + lasts).await;
        blow.end()?;
        let over = Instant::now();
        turned.extend(finish(&mut turning).await?);
        Ok(Struck { members, over, turned })
    }
}

impl Blow {
    fn begin(&mut self) -> Result<()> {
        match self {
            Self::Hold { forwarder, .. } => forwarder.hold(),
            Self::Stop(process) => process.begin()?,
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        match self {
            Self::Hold { forwarder, release: true } => forwarder.release(),
            Self::Hold { forwarder, release: false } => forwarder.cut(),
            Self::Stop(process) => process.end()?,
        }
        Ok(())
    }
}

async fn turn(home: Arc<Home>, traveler: Arc<Traveler>, at: Option<Instant>) -> Result<Turned> {
    if let Some(at) = at {
        sleep_until(at).await;
    }
    let acknowledged = home.turn(&traveler, Level::Red).await?;
    Ok(Turned { traveler, acknowledged })
}

async fn finish(turning: &mut JoinSet<Result<Turned>>) -> Result<Vec<Turned>> {
    let mut all = Vec::with_capacity(turning.len());
    while let Some(turned) = turning.join_next().await {
        all.push(turned??);
    }
    Ok(all)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "way to the node cut",
            Self::Node => "node stopped",
            Self::Gateway => "gateway stopped",
        })
    }
}
