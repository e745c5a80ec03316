//! `tongxing`: the one-machine federation. `cargo run` is `tongxing up`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use peer::{config::ConfigError, credentials::CredentialError, trust::TrustError};
use tongxing::{
    commands::{demo, init, present, recognize, up},
    options::Options,
};

/// One health code, recognised everywhere: the whole federation on this machine.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything (the default).
    Up,
    /// Make keys, certificates and configuration only.
    Init,
    /// Perform every kind of case in a federation of its own; exit 0 only if each came out as it should.
    Demo,
    /// Stand at a gate and recognise one traveler.
    Recognize(recognize::Recognize),
    /// Show what a traveler's phone shows.
    Present(present::Present),
}

/// The exit code for a configuration that cannot be used.
const BAD_CONFIGURATION: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The demonstration provokes refusals; its lines say what came of them.
    peer::logging::start(if matches!(arguments.command, Some(Command::Demo)) { "error" } else { "warn" });
    let options = &arguments.options;
    let done = match &arguments.command {
        None | Some(Command::Up) => up::run(options).await,
        Some(Command::Init) => init::run(options).await,
        Some(Command::Demo) => demo::run(options).await,
        Some(Command::Recognize(recognize)) => recognize::run(options, recognize).await,
        Some(Command::Present(present)) => present::run(options, present).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tongxing: {error:#}");
            let configuration = error.is::<ConfigError>() || error.is::<TrustError>() || error.is::<CredentialError>();
            if configuration { ExitCode::from(BAD_CONFIGURATION) } else { ExitCode::FAILURE }
        }
    }
}
