//! `gateway serve`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use gateway::{config::Config, server::Gateway};
use peer::{serve::Listeners, surroundings::Surroundings};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::commands::BAD_CONFIGURATION;

/// How to serve.
#[derive(clap::Args)]
pub(crate) struct Serve {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Check the configuration and what it names, then exit.
    #[arg(long)]
    check: bool,
}

impl Serve {
    /// Serves until it is told to stop.
    pub(crate) async fn run(self) -> ExitCode {
        let (config, gateway) = match self.open() {
            Ok(opened) => opened,
            Err(error) => {
                eprintln!("gateway: {error:#}");
                return ExitCode::from(BAD_CONFIGURATION);
            }
        };
        if self.check {
            println!("{}: ok", self.config.display());
            return ExitCode::SUCCESS;
        }
        match listen_and_serve(&config, gateway).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("gateway: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn open(&self) -> Result<(Config, Gateway)> {
        let config = Config::read(&self.config)?;
        let gateway = Gateway::open(config.clone(), Surroundings::system())?;
        Ok((config, gateway))
    }
}

async fn listen_and_serve(config: &Config, gateway: Gateway) -> Result<()> {
    let bind = async |address| TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"));
    let listeners = Listeners::new(bind(config.listen).await?, bind(config.private_listen).await?);
    let shutdown = CancellationToken::new();
    peer::serve::stop_on_signal(shutdown.clone())?;
    gateway.serve(listeners, shutdown).await?;
    Ok(())
}
