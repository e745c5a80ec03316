//! The database server is killed while results come in, again and again, and started again. The import goes on by itself; afterwards the
//! same file once more finds every row that was acknowledged: what it had to bring anew was lost.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use proto::{
    member::Member,
    time::{Clock as _, SystemClock},
};
use serde::Serialize;
use tokio::time::sleep;

use super::{
    file,
    site::{Backend, Site},
};
use crate::freshness::figures::Report;

/// The database server is killed while results come in.
#[derive(Args, Clone, Debug)]
pub struct Kill {
    /// How often, at most: the import may end before.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    kills: u32,
    /// Results, each about another person.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    rows: u32,
    /// Between two kills.
    #[arg(long, default_value = "2s", value_parser = humantime_serde::re::humantime::parse_duration)]
    every: Duration,
}

#[derive(Debug, Serialize)]
struct Measured {
    rows: u32,
    kills: u32,
    seconds: f64,
    said: String,
    again: String,
    broken: Vec<String>,
}

impl Kill {
    /// Measures.
    pub async fn run(&self) -> Result<Box<dyn Report>> {
        let member: Member = "51".parse()?;
        let site = Site::start(member, Backend::Postgres).await?;
        let path = site.path("results.csv");
        file::write(&path, member, self.rows, &site.desk.trust().policy, SystemClock.now())?;
        let cluster = site.cluster.as_ref().context("there is a server")?;
        let (mut kills, importing) = (0, site.import(&path));
        tokio::pin!(importing);
        let imported = loop {
            tokio::select! {
                imported = &mut importing => break imported?,
                () = sleep(self.every), if kills < self.kills => {
                    cluster.kill()?;
                    cluster.resume()?;
                    kills += 1;
                }
            }
        };
        let again = site.import(&path).await?;
        let mut broken = Vec::new();
        if !imported.well {
            broken.push(format!("not every row was taken in: {}", imported.said));
        }
        // Whatever is not unchanged now was acknowledged, and lost.
        if !again.said.contains(&format!("{} rows: 0 accepted", self.rows)) || !again.well {
            broken.push(format!("rows that were acknowledged are not there: {}", again.said));
        }
        if kills == 0 {
            broken.push("the server was never killed: the import was over before".to_owned());
        }
        let seconds = imported.took.as_secs_f64();
        Ok(Box::new(Measured { rows: self.rows, kills, seconds, said: imported.said, again: again.said, broken }))
    }
}

impl Report for Measured {
    fn lines(&self) -> Vec<String> {
        let Self { rows, kills, seconds, said, again, .. } = self;
        vec![
            format!("killed      {kills} times while {rows} rows came in, {seconds:.1} s"),
            format!("            said: {said}"),
            format!("again       said: {again}"),
        ]
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn broken(&self) -> Vec<String> {
        self.broken.clone()
    }
}
