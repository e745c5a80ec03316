//! Time and randomness of a simulated machine.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::{
    random::Random,
    time::{Clock, UnixTime},
};

use crate::{history::At, world::START};

/// The simulated instant. Zero outside of the simulation, where nothing has happened yet.
pub(crate) fn now() -> At {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// A machine's wall clock: it may be wrong, and goes at the right speed.
#[derive(Debug)]
pub(crate) struct SkewedClock {
    skew: i64,
    // For when the simulation is being taken apart and has no time to give.
    latest: AtomicU64,
}

impl SkewedClock {
    /// So many seconds fast.
    pub(crate) fn new(skew: i64) -> Self {
        Self { skew, latest: AtomicU64::new(0) }
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> UnixTime {
        let elapsed = turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_secs());
        let elapsed = self.latest.fetch_max(elapsed, Ordering::Relaxed).max(elapsed);
        UnixTime::from_secs(START.plus(Duration::from_secs(elapsed)).as_secs().saturating_add_signed(self.skew))
    }
}

/// A machine's randomness: the same for the same seed.
#[derive(Debug)]
pub(crate) struct SeededRandom(Mutex<fastrand::Rng>);

impl SeededRandom {
    /// From a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(out);
    }
}
