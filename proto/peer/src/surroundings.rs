//! What a program takes from the machine it runs on, passed in, so that a simulation can own all of it.

use std::sync::Arc;

use proto::{
    random::{Random, SystemRandom},
    time::{Clock, SystemClock},
};

use crate::network::{Network, Tcp};

/// A program's surroundings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where random bytes come from.
    pub random: Arc<dyn Random>,
    /// The way to others.
    pub network: Arc<dyn Network>,
    /// Where what waits for a disk is done.
    pub blocking: Blocking,
}

/// Where what waits for a disk is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// On threads of its own, so that nothing else waits.
    Threads,
    /// Where it turns up, so that everything has one order: a simulation's.
    Inline,
}

impl Surroundings {
    /// The machine's own.
    pub fn system() -> Self {
        Self::by(Arc::new(SystemClock))
    }

    /// The machine's own but for the time of day.
    pub fn by(clock: Arc<dyn Clock>) -> Self {
        Self { clock, random: Arc::new(SystemRandom), network: Arc::new(Tcp), blocking: Blocking::Threads }
    }
}
