//! `gateway trust-list`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Subcommand;
use gateway::{ceremony::draft_trust_list, documents};
use peer::config::to_hex;
use proto::{
    envelope::MAX_LIFE,
    time::{Clock, SystemClock},
    trust::TrustList,
};

use super::{
    ceremony::{self, Cosign, Publish},
    read_roots,
};

/// The trust list.
#[derive(Subcommand)]
pub(crate) enum TrustListCommand {
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
    /// Draft the next edition, for roots that are apart.
    Draft {
        /// trust-list.toml.
        #[arg(long)]
        source: PathBuf,
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
    /// Show an edition.
    Show {
        /// The edition.
        file: PathBuf,
    },
}

impl TrustListCommand {
    /// Does it.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Sign { source, root, out } => sign(&source, &root, &out),
            Self::Draft { source, current, out } => {
                let draft = draft_trust_list(&source, &current, SystemClock.now(), MAX_LIFE)?;
                ceremony::write(&draft, &out)
            }
            Self::Cosign(cosign) => cosign.run(),
            Self::Publish(publish) => publish.run(),
            Self::Show { file } => show(&file),
        }
    }
}

fn sign(source: &Path, roots: &[PathBuf], out: &Path) -> Result<()> {
    let edition = documents::sign_trust_list(source, &read_roots(roots)?, out, SystemClock.now(), MAX_LIFE)?;
    println!("{}: version {}, until {}", out.display(), edition.version, edition.expires_at);
    Ok(())
}

fn show(file: &Path) -> Result<()> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let (edition, list) = TrustList::open_held(&bytes).map_err(|refusal| anyhow!("{}: {refusal}", file.display()))?;
    println!("version {} of {}, {} to {}", edition.version, list.domain, edition.issued_at, edition.expires_at);
    println!("signed by its own roots, {} of:", list.roots.threshold());
    list.roots.keys().iter().for_each(|key| println!("  {}", to_hex(key.encoded())));
    let now = SystemClock.now();
    for (member, trust) in &list.members {
        let kids = |keys: &proto::trust::Keys| keys.keys().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        println!(
            "{member} {}  {}  consent {}  statement {}",
            member.profile().name_en,
            trust.endpoints.join(" "),
            kids(&trust.consent_keys),
            kids(&trust.statement_keys)
        );
        if let Some(out) = trust.suspension.as_ref().filter(|out| out.ends_at() > now) {
            println!("   suspended from {} until {}: {}", out.begins_at(), out.ends_at(), out.reason());
        }
    }
    Ok(())
}
