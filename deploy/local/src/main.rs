//! `tongxing`: the one-machine federation. `cargo run` is `tongxing up`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use peer::{config::ConfigError, credentials::CredentialError, trust::TrustError};
use province_stub::keys::KeyError;
use tongxing::{
    commands::{demo, init, present, recognize, up},
    options::Options,
    prepare::NotPrepared,
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
    let log = if matches!(arguments.command, Some(Command::Demo)) { "error" } else { "warn" };
    let _telemetry = peer::telemetry::start(log, "tongxing");
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
            if is_configuration(&error) { ExitCode::from(BAD_CONFIGURATION) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether what is wrong stands in the state directory rather than in what was asked.
fn is_configuration(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.is::<CredentialError>()
            || cause.is::<KeyError>()
            || cause.is::<NotPrepared>()
            || cause.is::<TrustError>()
            || cause.is::<toml::de::Error>()
    })
}
