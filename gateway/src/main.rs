//! `gateway`: serves, and makes the certificates and signed documents a federation needs.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    log::LogCommand, member::MemberCommand, pki::Pki, policy::PolicyCommand, serve::Serve, status::Status,
    trust_list::TrustListCommand,
};

/// The national gateway.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve recognition queries.
    Serve(Serve),
    /// How the gateway beside this command and its members are.
    Status(Status),
    /// Certificates.
    #[command(subcommand)]
    Pki(Pki),
    /// The trust list.
    #[command(subcommand)]
    TrustList(TrustListCommand),
    /// The national policy.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Who is in the federation.
    #[command(subcommand)]
    Member(MemberCommand),
    /// The access logs, beside the running gateway too.
    #[command(subcommand)]
    Log(LogCommand),
}

#[tokio::main]
async fn main() -> ExitCode {
    let _telemetry = peer::telemetry::start("info", "gateway");
    let done = match Arguments::parse().command {
        Command::Serve(serve) => return serve.run().await,
        Command::Status(status) => return status.run().await,
        Command::Pki(command) => command.run(),
        Command::TrustList(command) => command.run(),
        Command::Policy(command) => command.run(),
        Command::Member(command) => command.run(),
        Command::Log(command) => return command.run().await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}
