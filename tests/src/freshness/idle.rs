//! What a whole federation costs that nobody asks anything: probes, health, fresh presentations and all.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::figures::Report;
use crate::load::{process::Program, programs::program};

/// Of one core.
const PROMISED_PERCENT: f64 = 5.0;
const READY: Duration = Duration::from_secs(120);
/// How long it may settle after it said that it is ready.
const SETTLE: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(100);

/// A federation of all members that nobody asks anything.
#[derive(Args, Clone, Debug)]
pub struct Idle {
    /// How many seconds are measured.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
}

/// What it cost.
#[derive(Clone, Debug, Serialize)]
pub struct Idled {
    /// As it said it was ready.
    pub ready: String,
    /// How long was measured.
    pub seconds: f64,
    /// Processor time, percent of one core.
    pub percent: f64,
    /// Memory resident in the end, MiB.
    pub resident_mib: f64,
}

impl Idle {
    /// Measures.
    pub async fn run(&self) -> Result<Idled> {
        let dir = tempfile::Builder::new().prefix("tongxing-idle-").tempdir()?;
        let (state, log) = (dir.path().join("state").display().to_string(), dir.path().join("log"));
        let mut federation = Program::start("tongxing", &program("tongxing")?, &["up", "--dir", &state], &log)?;
        let ready = until_ready(&mut federation, &log).await?;
        sleep(SETTLE).await;
        let (before, began) = (federation.used()?, Instant::now());
        sleep(Duration::from_secs(self.seconds.into())).await;
        let (after, took) = (federation.used()?, began.elapsed());
        let cpu = after.cpu.saturating_sub(before.cpu);
        Ok(Idled {
            ready,
            seconds: took.as_secs_f64(),
            percent: cpu.as_secs_f64() / took.as_secs_f64() * 100.0,
            resident_mib: after.resident as f64 / f64::from(1 << 20),
        })
    }
}

/// The line by which it says so.
async fn until_ready(federation: &mut Program, log: &Path) -> Result<String> {
    let deadline = Instant::now() + READY;
    loop {
        let text = fs::read_to_string(log)?;
        if let Some(line) = text.lines().find(|line| line.starts_with("ready gateway=")) {
            return Ok(line.to_owned());
        }
        if federation.used().is_err() || Instant::now() > deadline {
            let last: Vec<_> = text.lines().rev().take(5).collect();
            bail!(
                "the federation is not ready; it said last: {}",
                last.into_iter().rev().collect::<Vec<_>>().join(" | ")
            );
        }
        sleep(EVERY).await;
    }
}

impl Report for Idled {
    fn lines(&self) -> Vec<String> {
        let Self { ready, seconds, percent, resident_mib } = self;
        vec![
            ready.clone(),
            format!("idle for {seconds:.0} s: {percent:.2} % of one core, {resident_mib:.0} MiB resident"),
        ]
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn broken(&self) -> Vec<String> {
        let over = self.percent >= PROMISED_PERCENT;
        over.then(|| format!("{:.2} % of one core, promised under {PROMISED_PERCENT} %", self.percent))
            .into_iter()
            .collect()
    }
}
