//! `province-stub`: serves a member's node, looks at what it has on file, and makes the keys it signs with.

mod commands;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use peer::{serve::Listeners, surroundings::Surroundings};
use proto::random::SystemRandom;
use province_stub::{
    config::Config,
    server::Node,
    store::{Store, postgres::PostgresStore, sqlite::SqliteStore},
    vault::Vault,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::commands::{access::AccessCommand, import::ImportCommand, keys::KeysCommand};

/// A member's node.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve lookups, travelers and assignments.
    Serve {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Check the configuration and what it names, then exit.
        #[arg(long)]
        check: bool,
    },
    /// Begin a new epoch of the change log: after a restore that the node cannot see by itself (a disk or a machine rolled
    /// back). Gateways drop what they hold of this member and ask anew.
    NewEpoch {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// The access logs on file. Also beside a running node.
    #[command(subcommand)]
    Access(AccessCommand),
    /// Bring a file of evidence to a node, as one of its feeds. Exits with 1 if a row is not taken in.
    Import(ImportCommand),
    /// The node's own keys.
    #[command(subcommand)]
    Keys(KeysCommand),
}

/// The exit code for a configuration that cannot be used. Clap exits with 2 on wrong usage.
const BAD_CONFIGURATION: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let _telemetry = peer::telemetry::start("info", "province-stub");
    let done = match command {
        Command::Serve { config: path, check } => match serve(&path, check).await {
            Ok(done) => done,
            Err(error) => return fail(&error, ExitCode::from(BAD_CONFIGURATION)),
        },
        Command::NewEpoch { config } => new_epoch(&config).await,
        Command::Access(command) => match command.run().await {
            Ok(true) => Ok(()),
            // What is wrong has been said.
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Command::Import(command) => match command.config() {
            Ok(config) => match command.run(config).await {
                Ok(true) => Ok(()),
                Ok(false) => return ExitCode::FAILURE,
                Err(error) => Err(error),
            },
            Err(error) => return fail(&error, ExitCode::from(BAD_CONFIGURATION)),
        },
        Command::Keys(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, ExitCode::FAILURE),
    }
}

/// Opens the node and serves. The outer error is what keeps it from opening.
async fn serve(path: &Path, check: bool) -> Result<Result<()>> {
    let config = Config::read(path)?;
    let surroundings = Surroundings::system();
    Ok(match config.postgres.clone() {
        Some(server) => {
            listen_and_serve(&config, Node::connect(config.clone(), &server, surroundings).await?, check).await
        }
        None => listen_and_serve(&config, Node::open(config.clone(), surroundings).await?, check).await,
    })
}

async fn listen_and_serve<S: Store>(config: &Config, node: Node<S>, check: bool) -> Result<()> {
    if check {
        node.close().await;
        println!("{}: ok", config.id);
        return Ok(());
    }
    let bind = async |address| TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"));
    let listeners = Listeners::new(bind(config.listen).await?, bind(config.private_listen).await?);
    let shutdown = CancellationToken::new();
    peer::serve::stop_on_signal(shutdown.clone())?;
    node.serve(listeners, shutdown).await?;
    Ok(())
}

async fn new_epoch(path: &Path) -> Result<()> {
    let config = Config::read(path)?;
    let random = Arc::new(SystemRandom);
    let vault = Vault::load(&config.keys.at_rest, random.clone())?;
    let head = match &config.postgres {
        Some(server) => {
            let url = server.url.text()?;
            let store = PostgresStore::open(&url, server.limits, &config.data_dir, vault, random.clone()).await?;
            let head = store.renew_epoch(&*random).await?;
            store.close().await;
            head
        }
        None => {
            let store = SqliteStore::open(&config.database(), vault, &*random).await?;
            let head = store.renew_epoch(&*random).await?;
            store.close().await;
            head
        }
    };
    println!("{}: a new epoch, after change {}", config.id, head.seq);
    Ok(())
}

fn fail(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    eprintln!("province-stub: {error:#}");
    code
}
