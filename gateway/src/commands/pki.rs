//! `gateway pki`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use gateway::{
    documents,
    pki::{self, Certificate, Entry, Office, Reason, Which},
};
use proto::{
    identity::{FederationDomain, PeerId, Realm},
    member::Member,
    suite::{SigningKey, Suite},
    time::{Clock, SystemClock, UnixTime},
};

/// Where the CAs are.
#[derive(Args)]
pub(crate) struct Place {
    /// The directory `pki init` made.
    #[arg(long)]
    dir: PathBuf,
    /// The federation's domain. The CAs in the directory say it; the first of them is of tongxing.test unless said.
    #[arg(long)]
    domain: Option<FederationDomain>,
}

/// Whom a certificate is for.
#[derive(Args)]
pub(crate) struct Holder {
    /// The peer's SPIFFE id, e.g. spiffe://44.tongxing.test/venue/station/guangzhou-south.
    #[arg(long)]
    id: String,
    /// Names and addresses a server is dialled by.
    #[arg(long)]
    dialled_by: Vec<String>,
    /// Days it lives.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=398))]
    days: u64,
}

/// Certificates.
#[derive(Subcommand)]
pub(crate) enum Pki {
    /// Make root keys and one CA per trust domain in a directory; what is there already stays.
    Init {
        #[command(flatten)]
        place: Place,
        /// How many root keys.
        #[arg(long, default_value_t = 3)]
        roots: usize,
        /// The trust domains to make CAs for: members' codes and `gateway`. All of them unless said; a province makes its own.
        #[arg(long, value_delimiter = ',')]
        realms: Vec<String>,
    },
    /// Issue a certificate with a fresh key into a directory, as cert.pem and key.pem.
    Issue {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        holder: Holder,
        /// Where to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Sign a request (PKCS#10, PEM): the key never leaves its owner, and nothing but the key is taken from the request.
    ///
    /// Its owner makes one with: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout
    /// key.pem -out request.pem
    Sign {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        holder: Holder,
        /// The request.
        #[arg(long)]
        csr: PathBuf,
        /// Where to write the certificate.
        #[arg(long)]
        out: PathBuf,
    },
    /// Show a certificate, or every certificate that the CAs of a directory issued.
    Show {
        /// The certificate, PEM.
        #[arg(required_unless_present = "dir")]
        file: Option<PathBuf>,
        /// The directory `pki init` made: shows its registers.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The federation's domain. The CAs in the directory say it.
        #[arg(long, requires = "dir")]
        domain: Option<FederationDomain>,
    },
    /// Issue a certificate that takes the place of another: the same names, and a fresh key or the key in a request.
    Renew {
        #[command(flatten)]
        place: Place,
        /// The certificate to follow.
        #[arg(long)]
        cert: PathBuf,
        /// A request as `sign` takes it: the key never leaves its owner. Without one a fresh key is made here.
        #[arg(long)]
        csr: Option<PathBuf>,
        /// Days it lives.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=398))]
        days: u64,
        /// Where to write: the certificate for a request, else the directory of cert.pem and key.pem.
        #[arg(long)]
        out: PathBuf,
    },
    /// Take certificates back, and sign the trust domain's next revocation list.
    Revoke {
        #[command(flatten)]
        place: Place,
        /// Whose: all of this peer's that live, unless one is named.
        #[arg(long)]
        id: String,
        /// The certificate, PEM.
        #[arg(long, conflicts_with = "serial")]
        cert: Option<PathBuf>,
        /// Its serial number, hexadecimal.
        #[arg(long)]
        serial: Option<String>,
        /// Why.
        #[arg(long)]
        reason: Reason,
    },
    /// Sign the revocation lists that have lived half their lives, or all of them: they promise a week.
    Crl {
        #[command(flatten)]
        place: Place,
        /// Also those that are young.
        #[arg(long)]
        all: bool,
    },
}

impl Pki {
    /// Does it.
    pub(crate) fn run(self) -> Result<()> {
        let now = SystemClock.now();
        match self {
            Self::Init { place, roots, realms } => init(&place, roots, &realms, now),
            Self::Issue { place, holder, out } => {
                let (office, peer) = place.open(&holder.id)?;
                office.issue(&peer, &holder.dialled_by, now, holder.life())?.write(&out)?;
                println!("{}: {}", holder.id, out.display());
                Ok(())
            }
            Self::Sign { place, holder, csr, out } => sign(&place, &holder, &csr, &out, now),
            Self::Show { file: Some(file), .. } => {
                println!("{}", Certificate::read(&file)?);
                Ok(())
            }
            Self::Show { file: None, dir, domain } => show(&Office::open(dir.context("--dir")?, domain.as_ref())?, now),
            Self::Renew { place, cert, csr, days, out } => renew(&place, &cert, csr.as_deref(), days, &out, now),
            Self::Revoke { place, id, cert, serial, reason } => {
                let which = match (cert, serial) {
                    (Some(cert), _) => Which::File(cert),
                    (None, Some(serial)) => Which::Serial(serial),
                    (None, None) => Which::Peer,
                };
                revoke(&place, &id, &which, reason, now)
            }
            Self::Crl { place, all } => sign_crls(&place, all, now),
        }
    }
}

impl Place {
    fn office(&self) -> Result<Office> {
        Office::open(&self.dir, self.domain.as_ref())
    }

    fn open(&self, id: &str) -> Result<(Office, PeerId)> {
        let office = self.office()?;
        let peer = office.domain().parse_spiffe_id(id).with_context(|| id.to_owned())?;
        Ok((office, peer))
    }
}

impl Holder {
    fn life(&self) -> Duration {
        days(self.days)
    }
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days.saturating_mul(86_400))
}

fn all_realms() -> impl Iterator<Item = Realm> {
    Member::all().map(Realm::Member).chain([Realm::Gateway])
}

fn parse_realms(words: &[String]) -> Result<Vec<Realm>> {
    let parse = |word: &String| match word.as_str() {
        "gateway" => Ok(Realm::Gateway),
        code => Ok(Realm::Member(code.parse().with_context(|| format!("--realms: {code}"))?)),
    };
    if words.is_empty() { Ok(all_realms().collect()) } else { words.iter().map(parse).collect() }
}

fn init(place: &Place, roots: usize, realms: &[String], now: UnixTime) -> Result<()> {
    let realms = parse_realms(realms)?;
    let office = Office::begin(&place.dir, place.domain.as_ref())?;
    for number in 1..=roots {
        let path = place.dir.join(format!("roots/root-{number}.key"));
        if !path.exists() {
            let key = SigningKey::generate(Suite::Ed25519);
            pki::write_private(&path, &key.to_pkcs8())?;
        }
        println!("root {number}: {}", documents::key_to_hex(documents::read_root_key(&path)?.verifying_key()));
    }
    for realm in &realms {
        let authority = office.found(*realm, now)?;
        office.keep_crl(&authority, *realm, now)?;
    }
    println!("CAs of {} under {}: {}", office.domain(), place.dir.join("ca").display(), realms.len());
    Ok(())
}

fn sign(place: &Place, holder: &Holder, csr: &Path, out: &Path, now: UnixTime) -> Result<()> {
    let (office, peer) = place.open(&holder.id)?;
    sign_request(&office, &peer, csr, &holder.dialled_by, now, holder.life(), out)?;
    println!("{}: {}", holder.id, out.display());
    Ok(())
}

fn sign_request(
    office: &Office,
    peer: &PeerId,
    csr: &Path,
    dialled_by: &[String],
    now: UnixTime,
    life: Duration,
    out: &Path,
) -> Result<()> {
    let text = std::fs::read_to_string(csr).with_context(|| csr.display().to_string())?;
    let certificate = office.sign(&text, peer, dialled_by, now, life).with_context(|| csr.display().to_string())?;
    pki::write_public(out, certificate.as_bytes())
}

fn renew(place: &Place, cert: &Path, csr: Option<&Path>, life: u64, out: &Path, now: UnixTime) -> Result<()> {
    let old = Certificate::read(cert)?;
    let [id] = old.ids.as_slice() else { bail!("{}: it does not have exactly one URI name", cert.display()) };
    let (office, peer) = place.open(id)?;
    if !office.authority(peer.realm())?.issued(cert) {
        bail!("{}: another CA issued it", cert.display());
    }
    let entries = office.register(peer.realm()).entries()?;
    if entries.iter().any(|entry| entry.serial == old.serial && entry.revoked.is_some()) {
        bail!("{}: it was revoked; whoever is to have another one is issued one anew", cert.display());
    }
    match csr {
        Some(csr) => sign_request(&office, &peer, csr, &old.dialled_by, now, days(life), out)?,
        None => office.issue(&peer, &old.dialled_by, now, days(life))?.write(out)?,
    }
    println!("{id}: {}", out.display());
    Ok(())
}

fn revoke(place: &Place, id: &str, which: &Which, reason: Reason, now: UnixTime) -> Result<()> {
    let (office, peer) = place.open(id)?;
    let serials = office.find(&peer, which, now)?;
    office.revoke(peer.realm(), &serials, reason, now)?;
    serials.iter().for_each(|serial| println!("revoked {serial} of {id}"));
    println!("it counts where {} has arrived", pki::crl_dir(&place.dir).display());
    Ok(())
}

fn show(office: &Office, now: UnixTime) -> Result<()> {
    for realm in all_realms() {
        for entry in office.register(realm).entries()? {
            println!("{} {:>5}  {}  {}", entry.serial, standing(&entry, now), entry.not_after, entry.id);
        }
    }
    Ok(())
}

/// Days left, or why there are none.
fn standing(entry: &Entry, now: UnixTime) -> String {
    match entry.revoked {
        Some(_) => "taken".to_owned(),
        None if entry.lives(now) => format!("{} d", entry.not_after.since(now) / 86_400),
        None => "over".to_owned(),
    }
}

fn sign_crls(place: &Place, all: bool, now: UnixTime) -> Result<()> {
    let office = place.office()?;
    for realm in all_realms() {
        // A directory may have some of the CAs alone: a province has its own.
        let Ok(authority) = office.authority(realm) else { continue };
        if all {
            office.sign_crl(&authority, realm, now)?;
        } else {
            office.keep_crl(&authority, realm, now)?;
        }
        if let Some(crl) = office.read_crl(&authority, realm)? {
            let name = office.domain().trust_domain(realm);
            println!("{name}  number {}  {} revoked  next by {}", crl.number, crl.len(), crl.next_update);
        }
    }
    Ok(())
}
