//! Medians and tails, and how a measurement ends.

use std::{fmt, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

/// What a measurement says in the end.
pub trait Report {
    /// For people, a line each.
    fn lines(&self) -> Vec<String>;

    /// For programs.
    fn json(&self) -> serde_json::Result<String>;

    /// What was promised and did not hold.
    fn broken(&self) -> Vec<String>;
}

/// Measures, says what came of it, and whether everything that was promised held. A signal ends it as an error does: programs
/// that were started are let go on, and stopped.
pub async fn told(program: &str, json: bool, measured: impl Future<Output = Result<Box<dyn Report>>>) -> ExitCode {
    let stop = CancellationToken::new();
    let report = async {
        peer::serve::stop_on_signal(stop.clone())?;
        tokio::select! {
            report = measured => report,
            () = stop.cancelled() => bail!("stopped by a signal"),
        }
    };
    match report.await.and_then(|report| say(&*report, json)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(report: &dyn Report, json: bool) -> Result<bool> {
    if json {
        println!("{}", report.json()?);
    } else {
        report.lines().iter().for_each(|line| println!("{line}"));
    }
    let broken = report.broken();
    broken.iter().for_each(|what| eprintln!("broken: {what}"));
    Ok(broken.is_empty())
}

/// How long things took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// How many they were.
    pub count: usize,
    /// The median.
    pub p50_ms: f64,
    /// What 99 of a hundred took at most.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Spread {
    /// Of some times; all nothing of none. By nearest rank: each figure is one that was measured.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |hundredths: usize| {
            let rank = (times.len() * hundredths).div_ceil(100).saturating_sub(1);
            times.get(rank).copied().map_or(0.0, milliseconds)
        };
        Self { count: times.len(), p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50_ms, p99_ms, max_ms } = self;
        write!(f, "{count} times, ms  p50 {p50_ms:.1}  p99 {p99_ms:.1}  max {max_ms:.1}")
    }
}

/// A duration in milliseconds.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_by_nearest_rank() {
        let spread = Spread::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(spread, Spread { count: 200, p50_ms: 100.0, p99_ms: 198.0, max_ms: 200.0 });
        assert_eq!(Spread::of(vec![Duration::from_millis(3)]).p99_ms, 3.0);
        assert_eq!(Spread::of(vec![]), Spread::default());
    }
}
