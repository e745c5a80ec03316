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

#[derive(Debug)]
enum State {
    /// Calls go through; so many of the last ones failed in a row.
    Closed { failures: u32 },
    /// Calls do not, until then; it has tripped so many times in a row.
    Open { until: Instant, trips: u32 },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// Leave to make one call, to be given back with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// As usual.
    Usual,
    /// The one call that finds out whether the endpoint is back.
    Probe,
}

impl CircuitBreaker {
    const FAILURES: u32 = 5;
    const FIRST_PAUSE: Duration = Duration::from_millis(500);
    const LONGEST_PAUSE: Duration = Duration::from_secs(10);

    /// Leave to call now. After a pause one probe is let through, and the next pause begins unless it succeeds.
    pub(crate) fn leave(&self, now: Instant) -> Option<Leave> {
        let mut state = self.lock();
        match *state {
            State::Closed { .. } => Some(Leave::Usual),
            State::Open { until, .. } if now < until => None,
            State::Open { trips, .. } => {
                // A probe that is never heard of again is followed by another after the pause.
                *state = State::Open { until: now + pause(trips), trips };
                Some(Leave::Probe)
            }
        }
    }

    /// The call was answered.
    pub(crate) fn succeeded(&self) {
        *self.lock() = State::default();
    }

    /// The endpoint has shown by other means that it is there: a probe may go now.
    pub(crate) fn seen(&self, now: Instant) {
        if let State::Open { until, .. } = &mut *self.lock() {
            *until = now;
        }
    }

    /// The call was not. Calls that were under way when the breaker tripped say nothing new.
    pub(crate) fn failed(&self, leave: Leave, now: Instant) {
        let mut state = self.lock();
        *state = match (&*state, leave) {
            (State::Closed { failures }, _) if failures + 1 < Self::FAILURES => {
                State::Closed { failures: failures + 1 }
            }
            (State::Closed { .. }, _) => State::Open { until: now + pause(1), trips: 1 },
            (State::Open { trips, .. }, Leave::Probe) => {
                State::Open { until: now + pause(trips + 1), trips: trips + 1 }
            }
            (State::Open { .. }, Leave::Usual) => return,
        };
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
        (0..4).for_each(|_| breaker.failed(Leave::Usual, start));
        assert_eq!(breaker.leave(start), Some(Leave::Usual));
        breaker.failed(Leave::Usual, start);
        assert_eq!(breaker.leave(start), None);
        let later = start + CircuitBreaker::FIRST_PAUSE;
        assert_eq!(breaker.leave(later), Some(Leave::Probe));
        assert_eq!(breaker.leave(later), None, "one probe at a time");
        breaker.failed(Leave::Probe, later);
        assert_eq!(breaker.leave(later + CircuitBreaker::FIRST_PAUSE), None, "the pause has doubled");
        assert_eq!(breaker.leave(later + 2 * CircuitBreaker::FIRST_PAUSE), Some(Leave::Probe));
        breaker.failed(Leave::Probe, later);
        breaker.seen(later);
        assert_eq!(breaker.leave(later), Some(Leave::Probe), "it was seen by other means");
        assert_eq!(breaker.leave(later), None, "one probe at a time still");
        breaker.succeeded();
        breaker.seen(later);
        assert_eq!(breaker.leave(later), Some(Leave::Usual));
        assert_eq!(pause(99), CircuitBreaker::LONGEST_PAUSE);
    }

    #[test]
    fn many_calls_that_fail_together_are_one_trip() {
        let (breaker, start) = (CircuitBreaker::default(), Instant::now());
        (0..256).for_each(|_| breaker.failed(Leave::Usual, start));
        assert_eq!(breaker.leave(start + CircuitBreaker::FIRST_PAUSE), Some(Leave::Probe));
    }
}
