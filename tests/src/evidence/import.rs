//! Results into a node, and what it answers then.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use proto::{
    member::Member,
    time::{Clock as _, SystemClock},
};
use serde::Serialize;

use super::{
    file,
    lookups::{self, Lookups},
    site::{Backend, Site},
};
use crate::freshness::figures::Report;

/// Results into a node, and what it answers then.
#[derive(Args, Clone, Debug)]
pub struct Import {
    /// What the node stores in.
    #[arg(long, value_enum, default_value_t = Backend::Sqlite)]
    store: Backend,
    /// Results, each about another person.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    rows: u32,
    /// How long the node is asked for travelers afterwards.
    #[arg(long, default_value = "10s", value_parser = humantime_serde::re::humantime::parse_duration)]
    lookups: Duration,
    /// How many lookups are under way meanwhile.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    in_flight: u32,
}

#[derive(Debug, Serialize)]
struct Measured {
    store: String,
    rows: u32,
    said: String,
    seconds: f64,
    rows_per_second: f64,
    node_cpu_us_per_row: f64,
    server_cpu_us_per_row: Option<f64>,
    node_peak_mib: u64,
    stored_bytes_per_person: u64,
    again_seconds: f64,
    again_said: String,
    lookups: Lookups,
    broken: Vec<String>,
}

impl Import {
    /// Measures.
    pub async fn run(&self) -> Result<Box<dyn Report>> {
        let member: Member = "51".parse()?;
        let mut site = Site::start(member, self.store).await?;
        let path = site.path("results.csv");
        file::write(&path, member, self.rows, &site.desk.trust().policy, SystemClock.now())?;
        let before = site.used()?;
        let imported = site.import(&path).await?;
        let after = site.used()?;
        let again = site.import(&path).await?;
        let (rows, seconds) = (f64::from(self.rows), imported.took.as_secs_f64());
        let per_row = |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / rows;
        let mut broken = Vec::new();
        let all = format!("{} rows: {} accepted", self.rows, self.rows);
        if !imported.well || !imported.said.starts_with(&all) {
            broken.push(format!("not every row was taken in: {}", imported.said));
        }
        if !again.said.contains(&format!("{} unchanged", self.rows)) {
            broken.push(format!("what is there already is not unchanged: {}", again.said));
        }
        let lookups = lookups::measure(&mut site, self.rows, self.lookups, self.in_flight as usize).await?;
        broken.extend(lookups.broken());
        Ok(Box::new(Measured {
            store: format!("{:?}", self.store),
            rows: self.rows,
            said: imported.said,
            seconds,
            rows_per_second: rows / seconds,
            node_cpu_us_per_row: per_row(before.0.cpu, after.0.cpu),
            server_cpu_us_per_row: before.1.zip(after.1).map(|(before, after)| per_row(before.cpu, after.cpu)),
            node_peak_mib: site.peak()? >> 20,
            stored_bytes_per_person: site.stored()? / u64::from(self.rows),
            again_seconds: again.took.as_secs_f64(),
            again_said: again.said,
            lookups,
            broken,
        }))
    }
}

impl Report for Measured {
    fn lines(&self) -> Vec<String> {
        let server = self.server_cpu_us_per_row.map_or(String::new(), |cpu| format!(", server {cpu:.0} us"));
        vec![
            format!(
                "import      {} rows on {}: {:.1} s, {:.0} rows/s",
                self.rows, self.store, self.seconds, self.rows_per_second
            ),
            format!(
                "            CPU a row: node {:.0} us{server}; node's peak {} MiB",
                self.node_cpu_us_per_row, self.node_peak_mib
            ),
            format!("            {} bytes a person on disk, result and code included", self.stored_bytes_per_person),
            format!("            said: {}", self.said),
            format!("again       {:.1} s; said: {}", self.again_seconds, self.again_said),
            self.lookups.line(),
        ]
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn broken(&self) -> Vec<String> {
        self.broken.clone()
    }
}
