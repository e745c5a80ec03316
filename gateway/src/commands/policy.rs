//! `gateway policy`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use gateway::{ceremony::draft_policy, documents};
use proto::{
    envelope::MAX_LIFE,
    policy::Policy,
    time::{Clock, SystemClock},
};

use super::{
    ceremony::{self, Cosign, Publish},
    read_roots,
};

/// The national policy.
#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a policy's TOML.
    Check {
        /// The TOML.
        file: PathBuf,
    },
    /// Draft the next edition, for roots that are apart.
    Draft {
        /// The TOML; without it the policy that ships.
        #[arg(long)]
        source: Option<PathBuf>,
        /// The edition it follows.
        #[arg(long)]
        current: PathBuf,
        /// Where to write the draft.
        #[arg(long)]
        out: PathBuf,
    },
    /// Add a root's signature to a draft, on the machine where that root's key is.
    Cosign(Cosign),
    /// Publish a draft that enough roots have signed.
    Publish(Publish),
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
            Self::Draft { source, current, out } => {
                let draft = draft_policy(&read(source.as_deref())?, &current, SystemClock.now(), MAX_LIFE)?;
                ceremony::write(&draft, &out)
            }
            Self::Cosign(cosign) => cosign.run(),
            Self::Publish(publish) => publish.run(),
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
    let (toml, trusted) = (read(source)?, ceremony::roots(trust_list)?);
    let edition = documents::sign_policy(&toml, &read_roots(roots)?, &trusted, out, SystemClock.now(), MAX_LIFE)?;
    println!("{}: version {}, until {}", out.display(), edition.version, edition.expires_at);
    Ok(())
}

fn read(source: Option<&Path>) -> Result<String> {
    match source {
        Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string()),
        None => Ok(proto::policy::NATIONAL.to_owned()),
    }
}
