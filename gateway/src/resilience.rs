//! What keeps one bad member from harming others (I7): a retry budget and a circuit breaker, each per member.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Retries are paid for by first attempts: a tenth of one each, and a few in hand. A member that is down gets at most
/// that much more load.
#[derive(Debug)]
pub(crate) struct RetryBudget(Mutex<f64>);

impl RetryBudget {
    const PER_ATTEMPT: f64 = 0.1;
    const MAX: f64 = 10.0;

    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Self::MAX))
    }

    /// Counts a first attempt.
    pub(crate) fn earn(&self) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *tokens = (*tokens + Self::PER_ATTEMPT).min(Self::MAX);
    }

    /// Whether a retry may be made.
    pub(crate) fn spend(&self) -> bool {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = *tokens >= 1.0;
        if enough {
            *tokens -= 1.0;
        }
        enough
    }
}

/// Stops calls to an endpoint that keeps failing; one probe at a time finds out whether it is back.
#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    trips: u32,
    open_until: Option<Instant>,
}

impl CircuitBreaker {
    const FAILURES: u32 = 5;
    const FIRST_PAUSE: Duration = Duration::from_millis(500);
    const LONGEST_PAUSE: Duration = Duration::from_secs(10);

    /// Whether a call may be made now. After a pause one call is let through, and the next pause begins unless it succeeds.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        let mut state = self.lock();
        match state.open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.open_until = Some(now + pause(state.trips));
                true
            }
        }
    }

    pub(crate) fn succeeded(&self) {
        *self.lock() = State::default();
    }

    pub(crate) fn failed(&self, now: Instant) {
        let mut state = self.lock();
        state.failures += 1;
        if state.failures >= Self::FAILURES {
            state.trips += 1;
            state.open_until = Some(now + pause(state.trips));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pause(trips: u32) -> Duration {
    let doubled = CircuitBreaker::FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(trips.saturating_sub(1).min(16)));
    doubled.min(CircuitBreaker::LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_attempts() {
        let budget = RetryBudget::new();
        assert_eq!((0..20).filter(|_| budget.spend()).count(), 10);
        (0..25).for_each(|_| budget.earn());
        assert_eq!((0..20).filter(|_| budget.spend()).count(), 2);
    }

    #[test]
    fn the_breaker_opens_probes_and_closes() {
        let (breaker, start) = (CircuitBreaker::default(), Instant::now());
        (0..4).for_each(|_| breaker.failed(start));
        assert!(breaker.allows(start));
        breaker.failed(start);
        assert!(!breaker.allows(start));
        let later = start + CircuitBreaker::FIRST_PAUSE;
        assert!(breaker.allows(later), "one probe");
        assert!(!breaker.allows(later), "and no second one");
        breaker.failed(later);
        assert!(!breaker.allows(later + CircuitBreaker::FIRST_PAUSE), "the pause has doubled");
        assert!(breaker.allows(later + 2 * CircuitBreaker::FIRST_PAUSE));
        breaker.succeeded();
        assert!(breaker.allows(later));
        assert_eq!(pause(99), CircuitBreaker::LONGEST_PAUSE);
    }
}
