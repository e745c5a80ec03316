//! The three steps of signing by roots that are apart, the same for trust list and policy: `draft`, `cosign`, `publish`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use gateway::{ceremony, documents, pki};
use proto::{
    envelope::Roots,
    time::{Clock, SystemClock},
    trust::TrustList,
};

/// A root's signature for a draft.
#[derive(Args)]
pub(crate) struct Cosign {
    /// The draft; the signature is added to it.
    draft: PathBuf,
    /// The root's key file.
    #[arg(long)]
    root: PathBuf,
    /// The trust list of now, by whose roots a document is signed.
    #[arg(long)]
    trust_list: PathBuf,
    /// The edition it follows, to show what is otherwise.
    #[arg(long)]
    current: Option<PathBuf>,
}

/// A draft that enough roots have signed.
#[derive(Args)]
pub(crate) struct Publish {
    /// The draft.
    draft: PathBuf,
    /// The trust list of now, by whose roots receivers will open it.
    #[arg(long)]
    trust_list: PathBuf,
    /// The edition to replace.
    #[arg(long)]
    out: PathBuf,
}

impl Cosign {
    /// Shows what is signed, and signs it.
    pub(crate) fn run(self) -> Result<()> {
        let (draft, _) = ceremony::read(&self.draft)?;
        if let Some(current) = &self.current {
            let lines = draft.differences(&ceremony::read(current)?.0);
            println!("what is otherwise than in {}:", current.display());
            lines.iter().for_each(|line| println!("  {line}"));
            if lines.is_empty() {
                println!("  nothing but version and life");
            }
        }
        let root = documents::read_root_key(&self.root)?;
        println!("{}", ceremony::cosign(&self.draft, &root, &roots(&self.trust_list)?)?);
        Ok(())
    }
}

impl Publish {
    /// Publishes it.
    pub(crate) fn run(self) -> Result<()> {
        let edition = ceremony::publish(&self.draft, &self.out, &roots(&self.trust_list)?, SystemClock.now())?;
        println!("{}: version {}, until {}", self.out.display(), edition.version, edition.expires_at);
        Ok(())
    }
}

/// Writes a draft and shows it.
pub(crate) fn write(draft: &[u8], out: &Path) -> Result<()> {
    pki::write_public(out, draft)?;
    println!("{}", ceremony::read(out)?.0);
    Ok(())
}

/// The roots of a trust list that was published.
pub(crate) fn roots(trust_list: &Path) -> Result<Roots> {
    let bytes = fs::read(trust_list).with_context(|| trust_list.display().to_string())?;
    let opened = TrustList::open_held(&bytes).map_err(|refusal| anyhow!("{}: {refusal}", trust_list.display()))?;
    Ok(opened.1.roots)
}
