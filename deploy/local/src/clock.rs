//! A clock that can be moved on, to see what time alone does without waiting for it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use proto::time::{Clock, SystemClock, UnixTime};

/// The machine's clock, and later by as much as it was moved on.
#[derive(Debug, Default)]
pub struct MovableClock(AtomicU64);

impl MovableClock {
    /// Moves it on by so many whole seconds.
    pub fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for MovableClock {
    fn now(&self) -> UnixTime {
        SystemClock.now().plus(Duration::from_secs(self.0.load(Ordering::Relaxed)))
    }
}
