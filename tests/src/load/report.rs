//! What came of a round, for people and for programs.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::drive::Driven;

/// One round.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// What was asked: `recognize`, `from home`, `from cache` or `echo`.
    pub what: String,
    /// Requests due a second.
    pub rate: f64,
    /// Requests that were due.
    pub due: usize,
    /// Requests that were not sent, because as many as may be were under way.
    pub not_sent: usize,
    /// How those that were sent ended.
    pub ends: BTreeMap<String, usize>,
    /// Latency from when a request was due, in milliseconds: median, 90 %, 99 %, 99.9 %, longest.
    pub latency_ms: [f64; 5],
    /// Processor time a request, in microseconds, by program.
    pub cpu_us: BTreeMap<String, f64>,
    /// Memory resident at the end, in MiB, by program.
    pub resident_mib: BTreeMap<String, f64>,
}

impl Round {
    /// Of what was driven, without what it cost.
    pub fn new(what: &str, rate: f64, driven: &Driven) -> Self {
        let at = |quantile| driven.latency.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            what: what.to_owned(),
            rate,
            due: driven.due,
            not_sent: driven.not_sent,
            ends: driven.ends.clone(),
            latency_ms: [at(0.5), at(0.9), at(0.99), at(0.999), driven.latency.max() as f64 / 1000.0],
            cpu_us: BTreeMap::new(),
            resident_mib: BTreeMap::new(),
        }
    }

    /// Adds what a program used for it.
    pub fn cost(&mut self, program: &str, cpu: Duration, resident: u64) {
        let sent: usize = self.ends.values().sum();
        self.cpu_us.insert(program.to_owned(), cpu.as_secs_f64() * 1e6 / sent.max(1) as f64);
        self.resident_mib.insert(program.to_owned(), resident as f64 / f64::from(1 << 20));
    }

    /// One line.
    pub fn line(&self) -> String {
        let [p50, p90, p99, p999, longest] = self.latency_ms;
        let words = |map: &BTreeMap<String, f64>| {
            map.iter().map(|(name, value)| format!("{name} {value:.0}")).collect::<Vec<_>>().join(", ")
        };
        let ends: Vec<_> = self.ends.iter().map(|(end, count)| format!("{end} {count}")).collect();
        let not_sent = if self.not_sent > 0 { format!(", not sent {}", self.not_sent) } else { String::new() };
        format!(
            "{:<10} {:>6.0}/s  {}{not_sent}\n          ms  p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {longest:.2}\n          \
             CPU µs/request  {}   resident MiB  {}",
            self.what,
            self.rate,
            ends.join(", "),
            words(&self.cpu_us),
            words(&self.resident_mib)
        )
    }
}

/// The median of some figures; nothing of none.
pub fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }
}
