//! What a program takes from the machine it runs on, passed in, so that a simulation can own all of it.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

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
    /// Where the machine may stop the program.
    pub pauses: Pauses,
}

/// Where what waits for a disk is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// On threads of its own, so that nothing else waits.
    Threads,
    /// Where it turns up, so that everything has one order: a simulation's.
    Inline,
}

/// Where a machine may stop a program for a while between two steps that nothing else parts, as a signal or a hypervisor does.
/// A real one says nothing of it; a simulation stops the program here.
#[derive(Clone, Debug, Default)]
pub struct Pauses(Option<Arc<dyn Pausing>>);

/// Who stops a program.
pub trait Pausing: fmt::Debug + Send + Sync {
    /// Stops it here, for as long as the future takes.
    fn at(&self, point: Point) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Where a program may be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// Home's change stream was read, and what it said not yet applied.
    BeforeApplying,
    /// It is known what the answer is, and the record has not been submitted.
    BeforeRecording,
}

impl Pauses {
    /// Stopped by somebody.
    pub fn by(pausing: Arc<dyn Pausing>) -> Self {
        Self(Some(pausing))
    }

    /// Goes on at once, unless somebody stops the program here.
    pub async fn at(&self, point: Point) {
        if let Some(pausing) = &self.0 {
            pausing.at(point).await;
        }
    }
}

impl Surroundings {
    /// The machine's own.
    pub fn system() -> Self {
        Self::by(Arc::new(SystemClock))
    }

    /// The machine's own but for the time of day.
    pub fn by(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            random: Arc::new(SystemRandom),
            network: Arc::new(Tcp),
            blocking: Blocking::Threads,
            pauses: Pauses::default(),
        }
    }
}
