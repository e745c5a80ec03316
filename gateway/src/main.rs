//! `gateway`: serves, and makes the certificates and signed documents a federation needs.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Parser, Subcommand};
use gateway::{
    config::Config,
    documents,
    pki::{self, Authority},
    server::Gateway,
};
use peer::{config::to_hex, serve::Listeners};
use proto::{
    envelope::MAX_LIFE,
    identity::{FederationDomain, PeerId, Realm},
    member::Member,
    policy::Policy,
    random::SystemRandom,
    suite::{SigningKey, Suite},
    time::{Clock, SystemClock},
    trust::TrustList,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    Serve {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Check the configuration and what it names, then exit.
        #[arg(long)]
        check: bool,
    },
    /// Certificates.
    #[command(subcommand)]
    Pki(Pki),
    /// The trust list.
    #[command(subcommand)]
    TrustList(TrustListCommand),
    /// The national policy.
    #[command(subcommand)]
    Policy(PolicyCommand),
}

#[derive(Subcommand)]
enum Pki {
    /// Make root keys and one CA per trust domain in a directory; what is there already stays.
    Init {
        /// The directory.
        #[arg(long)]
        dir: PathBuf,
        /// The federation's domain.
        #[arg(long, default_value = "tongxing.test")]
        domain: FederationDomain,
        /// How many root keys.
        #[arg(long, default_value_t = 3)]
        roots: usize,
    },
    /// Issue a certificate for one peer into a directory, as cert.pem and key.pem.
    Issue {
        /// The directory `pki init` made.
        #[arg(long)]
        dir: PathBuf,
        /// The federation's domain.
        #[arg(long, default_value = "tongxing.test")]
        domain: FederationDomain,
        /// The peer's SPIFFE id, e.g. spiffe://44.tongxing.test/venue/station/guangzhou-south.
        #[arg(long)]
        id: String,
        /// Names and addresses a server is dialled by.
        #[arg(long)]
        dialled_by: Vec<String>,
        /// Days it lives.
        #[arg(long, default_value_t = 30)]
        days: u64,
        /// Where to write.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Subcommand)]
enum TrustListCommand {
    /// Sign the next edition from its source.
    Sign {
        /// trust-list.toml.
        #[arg(long)]
        source: PathBuf,
        /// Root key files, as many as the threshold asks.
        #[arg(long, required = true)]
        root: Vec<PathBuf>,
        /// The edition to replace.
        #[arg(long)]
        out: PathBuf,
    },
    /// Show an edition.
    Show {
        /// The edition.
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Check a policy's TOML.
    Check {
        /// The TOML.
        file: PathBuf,
    },
    /// Sign the next edition.
    Sign {
        /// The TOML; without it the policy that ships.
        #[arg(long)]
        source: Option<PathBuf>,
        /// Root key files, as many as the threshold asks.
        #[arg(long, required = true)]
        root: Vec<PathBuf>,
        /// The trust list whose roots must have signed.
        #[arg(long)]
        trust_list: PathBuf,
        /// The edition to replace.
        #[arg(long)]
        out: PathBuf,
    },
}

/// The exit code for a configuration that cannot be used.
const BAD_CONFIGURATION: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    peer::logging::start("info");
    let done = match Arguments::parse().command {
        Command::Serve { config, check } => return serve(&config, check).await,
        Command::Pki(Pki::Init { dir, domain, roots }) => init(&dir, &domain, roots),
        Command::Pki(Pki::Issue { dir, domain, id, dialled_by, days, out }) => {
            issue(&dir, &domain, &id, &dialled_by, days, &out)
        }
        Command::TrustList(TrustListCommand::Sign { source, root, out }) => sign_trust_list(&source, &root, &out),
        Command::TrustList(TrustListCommand::Show { file }) => show_trust_list(&file),
        Command::Policy(PolicyCommand::Check { file }) => check_policy(&file),
        Command::Policy(PolicyCommand::Sign { source, root, trust_list, out }) => {
            sign_policy(source.as_deref(), &root, &trust_list, &out)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(path: &Path, check: bool) -> ExitCode {
    let opened = Config::read(path)
        .map_err(anyhow::Error::from)
        .and_then(|config| Ok((config.clone(), Gateway::open(config, Arc::new(SystemClock), Arc::new(SystemRandom))?)));
    let (config, gateway) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("gateway: {error:#}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    if check {
        println!("{}: ok", path.display());
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

async fn listen_and_serve(config: &Config, gateway: Gateway) -> Result<()> {
    let bind = async |address| TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"));
    let listeners = Listeners { public: bind(config.listen).await?, private: bind(config.private_listen).await? };
    let shutdown = CancellationToken::new();
    peer::serve::stop_on_signal(shutdown.clone())?;
    gateway.serve(listeners, shutdown).await?;
    Ok(())
}

fn init(dir: &Path, domain: &FederationDomain, roots: usize) -> Result<()> {
    let now = SystemClock.now();
    for number in 1..=roots {
        let path = dir.join(format!("roots/root-{number}.key"));
        if !path.exists() {
            let key = SigningKey::generate(Suite::Ed25519);
            pki::write_private(&path, &key.to_pkcs8())?;
        }
        println!("root {number}: {}", documents::key_to_hex(documents::read_root_key(&path)?.verifying_key()));
    }
    for realm in Member::all().map(Realm::Member).chain([Realm::Gateway]) {
        let (certificate, key) = pki::ca_files(dir, domain, realm);
        if !certificate.exists() {
            Authority::create(realm, domain, now)?.write(&certificate, &key)?;
        }
    }
    println!("{} CAs under {}", Member::all().len() + 1, dir.join("ca").display());
    Ok(())
}

fn issue(dir: &Path, domain: &FederationDomain, id: &str, dialled_by: &[String], days: u64, out: &Path) -> Result<()> {
    let peer: PeerId = domain.parse_spiffe_id(id).with_context(|| id.to_owned())?;
    let (certificate, key) = pki::ca_files(dir, domain, peer.realm());
    let authority = Authority::read(peer.realm(), domain, &certificate, &key)?;
    let life = Duration::from_secs(days.saturating_mul(86_400));
    authority.issue(&peer, dialled_by, SystemClock.now(), life)?.write(out)?;
    println!("{id}: {}", out.display());
    Ok(())
}

fn read_roots(paths: &[PathBuf]) -> Result<Vec<SigningKey>> {
    paths.iter().map(|path| documents::read_root_key(path)).collect()
}

fn sign_trust_list(source: &Path, roots: &[PathBuf], out: &Path) -> Result<()> {
    let edition = documents::sign_trust_list(source, &read_roots(roots)?, out, SystemClock.now(), MAX_LIFE)?;
    println!("{}: version {}, until {}", out.display(), edition.version, edition.expires_at);
    Ok(())
}

fn show_trust_list(file: &Path) -> Result<()> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let (edition, list) = TrustList::open_held(&bytes).map_err(|refusal| anyhow!("{}: {refusal}", file.display()))?;
    println!("version {} of {}, {} to {}", edition.version, list.domain, edition.issued_at, edition.expires_at);
    println!("signed by its own roots, {} of:", list.roots.threshold());
    list.roots.keys().iter().for_each(|key| println!("  {}", to_hex(key.encoded())));
    for (member, trust) in &list.members {
        let kids = |keys: &proto::trust::Keys| keys.keys().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        println!(
            "{member} {}  {}  consent {}  statement {}",
            member.profile().name_en,
            trust.endpoints.join(" "),
            kids(&trust.consent_keys),
            kids(&trust.statement_keys)
        );
    }
    Ok(())
}

fn check_policy(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let policy = Policy::from_toml(&text).with_context(|| file.display().to_string())?;
    println!("{}: ok, policy {}", file.display(), policy.name);
    Ok(())
}

fn sign_policy(source: Option<&Path>, roots: &[PathBuf], trust_list: &Path, out: &Path) -> Result<()> {
    let toml = match source {
        Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
        None => proto::policy::NATIONAL.to_owned(),
    };
    let bytes = std::fs::read(trust_list).with_context(|| trust_list.display().to_string())?;
    let Ok((_, list)) = TrustList::open_held(&bytes) else { bail!("{}: not a trust list", trust_list.display()) };
    let edition = documents::sign_policy(&toml, &read_roots(roots)?, &list.roots, out, SystemClock.now(), MAX_LIFE)?;
    println!("{}: version {}, until {}", out.display(), edition.version, edition.expires_at);
    Ok(())
}
