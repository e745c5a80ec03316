//! `gateway pki`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Subcommand;
use gateway::{
    documents,
    pki::{self, Authority},
};
use proto::{
    identity::{FederationDomain, PeerId, Realm},
    member::Member,
    suite::{SigningKey, Suite},
    time::{Clock, SystemClock},
};

/// Certificates.
#[derive(Subcommand)]
pub(crate) enum Pki {
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

impl Pki {
    /// Does it.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Init { dir, domain, roots } => init(&dir, &domain, roots),
            Self::Issue { dir, domain, id, dialled_by, days, out } => {
                issue(&dir, &domain, &id, &dialled_by, days, &out)
            }
        }
    }
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
