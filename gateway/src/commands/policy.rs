//! `gateway policy`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use gateway::documents;
use proto::{
    envelope::MAX_LIFE,
    policy::Policy,
    time::{Clock, SystemClock},
    trust::TrustList,
};

use super::read_roots;

/// The national policy.
#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
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

impl PolicyCommand {
    /// Does it.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Check { file } => check(&file),
            Self::Sign { source, root, trust_list, out } => sign(source.as_deref(), &root, &trust_list, &out),
        }
    }
}

fn check(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let policy = Policy::from_toml(&text).with_context(|| file.display().to_string())?;
    println!("{}: ok, policy {}", file.display(), policy.name);
    Ok(())
}

fn sign(source: Option<&Path>, roots: &[PathBuf], trust_list: &Path, out: &Path) -> Result<()> {
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
