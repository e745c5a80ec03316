//! When each request is due. The schedule does not wait for answers (open loop): a server that falls behind meets the same
//! demand as one that does not, as it would from people at gates.

use std::time::Duration;

use proto::random::Random;

/// How requests are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// At equal distances.
    Uniform,
    /// Independently of each other, as people come (a Poisson process).
    Poisson,
}

/// The instants, after the beginning, at which `rate` requests a second are due for `lasts`. In order.
pub fn schedule(arrivals: Arrivals, rate: f64, lasts: Duration, random: &dyn Random) -> Vec<Duration> {
    let count = (rate * lasts.as_secs_f64()).round() as usize;
    let mut due = Duration::ZERO;
    let mut next = |index: usize| match arrivals {
        Arrivals::Uniform => Duration::from_secs_f64(index as f64 / rate),
        Arrivals::Poisson => {
            // The distance between two arrivals is exponential: −ln(u)/rate for u in (0, 1].
            let drawn = u64::from_be_bytes(proto::random::bytes(random)) >> 11;
            let uniform = (drawn + 1) as f64 / (1_u64 << 53) as f64;
            due += Duration::from_secs_f64(-uniform.ln() / rate);
            due
        }
    };
    (0..count).map(&mut next).collect()
}

#[cfg(test)]
mod tests {
    use proto::random::SystemRandom;

    use super::*;

    #[test]
    fn requests_are_due_at_the_rate() {
        let uniform = schedule(Arrivals::Uniform, 100.0, Duration::from_secs(2), &SystemRandom);
        assert_eq!((uniform.len(), uniform[0], uniform[150]), (200, Duration::ZERO, Duration::from_millis(1500)));
        let poisson = schedule(Arrivals::Poisson, 1000.0, Duration::from_secs(20), &SystemRandom);
        assert_eq!(poisson.len(), 20_000);
        assert!(poisson.is_sorted());
        let last = poisson.last().unwrap().as_secs_f64();
        // Its standard deviation is √20000/1000 s, and ten of them are never seen.
        assert!((last - 20.0).abs() < 1.5, "{last}");
    }
}
