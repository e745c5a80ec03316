//! The office that issues and takes back: the CAs under one directory, with their registers and revocation lists.
//!
//! ```text
//! <dir>/ca/<trust domain>.pem              its certificate, for the trust list
//! <dir>/ca/private/<trust domain>.key      its key, 0600
//! <dir>/ca/issued/<trust domain>.jsonl     its register
//! <dir>/crl/<trust domain>.crl             what it has taken back
//! ```
//!
//! The files' names say which federation a directory is of: who opens it need not, and is refused who says another.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use peer::revocation::{self, Crl};
use proto::{
    identity::{FederationDomain, PeerId, Realm},
    member::Member,
    time::UnixTime,
};
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
    SubjectPublicKeyInfo,
};

use super::{
    Authority, Issued, ca_files, instant,
    register::{Entry, Reason, Register},
    request, serial, write_public,
};

/// How long a revocation list promises to be the latest.
pub const CRL_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The federation that a CA is of if nothing says which: the one-machine federation.
const FIRST_DOMAIN: &str = "tongxing.test";

/// The CAs under a directory.
#[derive(Clone, Debug)]
pub struct Office {
    dir: PathBuf,
    domain: FederationDomain,
}

/// Which certificates are meant.
#[derive(Clone, Debug)]
pub enum Which {
    /// The one in a file.
    File(PathBuf),
    /// The one with this serial number, hexadecimal.
    Serial(String),
    /// All of this peer's that live.
    Peer,
}

/// Where the revocation lists are under a directory.
pub fn crl_dir(dir: &Path) -> PathBuf {
    dir.join("crl")
}

impl Office {
    /// Of a directory and a federation.
    pub fn new(dir: impl Into<PathBuf>, domain: FederationDomain) -> Self {
        Self { dir: dir.into(), domain }
    }

    /// Of a directory in which there are CAs already, of the federation that they are of.
    ///
    /// # Errors
    /// If there is none, if they are of another federation than `said`, or if they are of several and none is said.
    pub fn open(dir: impl Into<PathBuf>, said: Option<&FederationDomain>) -> Result<Self> {
        let dir = dir.into();
        match domain_of(&dir, said)? {
            Some(domain) => Ok(Self::new(dir, domain)),
            None => bail!("{}: there is no CA; gateway pki init makes one", dir.display()),
        }
    }

    /// Of a directory in which there may be no CA yet: the first one is of the federation that is said, or of tongxing.test.
    ///
    /// # Errors
    /// As [`Office::open`] has them.
    pub fn begin(dir: impl Into<PathBuf>, said: Option<&FederationDomain>) -> Result<Self> {
        let dir = dir.into();
        let domain = match (domain_of(&dir, said)?, said) {
            (Some(domain), _) => domain,
            (None, Some(said)) => said.clone(),
            (None, None) => FIRST_DOMAIN.parse()?,
        };
        Ok(Self::new(dir, domain))
    }

    /// The federation's domain.
    pub fn domain(&self) -> &FederationDomain {
        &self.domain
    }

    /// The CA of a trust domain, made if there is none.
    pub fn found(&self, realm: Realm, now: UnixTime) -> Result<Authority> {
        let (certificate, key) = ca_files(&self.dir, &self.domain, realm);
        if !certificate.exists() {
            Authority::create(realm, &self.domain, now)?.write(&certificate, &key)?;
        }
        self.authority(realm)
    }

    /// The CA of a trust domain.
    pub fn authority(&self, realm: Realm) -> Result<Authority> {
        let (certificate, key) = ca_files(&self.dir, &self.domain, realm);
        Authority::read(realm, &self.domain, &certificate, &key)
    }

    /// The register of a trust domain.
    pub fn register(&self, realm: Realm) -> Register {
        Register::of(&self.dir, &self.domain, realm)
    }

    /// Issues a certificate with a fresh key.
    pub fn issue(&self, peer: &PeerId, dialled_by: &[String], now: UnixTime, life: Duration) -> Result<Issued> {
        self.issue_by(&self.authority(peer.realm())?, peer, dialled_by, now, life)
    }

    /// The same by a CA that was read before: for whoever issues many.
    pub fn issue_by(
        &self,
        authority: &Authority,
        peer: &PeerId,
        dialled_by: &[String],
        now: UnixTime,
        life: Duration,
    ) -> Result<Issued> {
        let issued = authority.issue(peer, dialled_by, now, life)?;
        self.note(&issued.serial, peer, now, life)?;
        Ok(issued)
    }

    /// Signs a request: the key in it, and nothing else of it. The private key never leaves whoever made it.
    ///
    /// # Errors
    /// If it is not a request that its own P-256 key signed, or it asks to be somebody else than `peer` or a CA.
    pub fn sign(
        &self,
        csr: &str,
        peer: &PeerId,
        dialled_by: &[String],
        now: UnixTime,
        life: Duration,
    ) -> Result<String> {
        let key: SubjectPublicKeyInfo = request::read(csr, &self.domain.spiffe_id(peer))?;
        let (authority, number) = (self.authority(peer.realm())?, serial());
        self.note(&number, peer, now, life)?;
        authority.certify(peer, dialled_by, &key, number, now, life)
    }

    /// Takes certificates of a peer back and signs the trust domain's next list. Returns their serial numbers.
    ///
    /// # Errors
    /// If one was never issued here, or was taken back before.
    pub fn revoke(&self, realm: Realm, serials: &[String], reason: Reason, now: UnixTime) -> Result<()> {
        let register = self.register(realm);
        serials.iter().try_for_each(|serial| register.revoke(serial, reason, now))?;
        self.sign_crl(&self.authority(realm)?, realm, now)
    }

    /// The serial numbers of the certificates of `peer` that are meant.
    ///
    /// # Errors
    /// If none is: it was never issued here, or is somebody else's, or none of this peer's lives.
    pub fn find(&self, peer: &PeerId, which: &Which, now: UnixTime) -> Result<Vec<String>> {
        let id = self.domain.spiffe_id(peer);
        let entries = self.register(peer.realm()).entries()?;
        let serial = match which {
            Which::File(path) => super::show::Certificate::read(path)?.serial,
            Which::Serial(serial) => serial.to_ascii_lowercase(),
            Which::Peer => {
                let living = entries.into_iter().filter(|entry| entry.id == id && entry.lives(now));
                let serials: Vec<_> = living.map(|entry| entry.serial).collect();
                return if serials.is_empty() { bail!("no certificate of {id} lives") } else { Ok(serials) };
            }
        };
        match entries.into_iter().find(|entry| entry.serial == serial) {
            None => bail!("no certificate with the serial number {serial} was issued here"),
            Some(entry) if entry.id != id => bail!("{serial} is of {} and not of {id}", entry.id),
            Some(entry) => Ok(vec![entry.serial]),
        }
    }

    /// Signs a trust domain's list, if it has none or the one there is has lived half its life.
    pub fn keep_crl(&self, authority: &Authority, realm: Realm, now: UnixTime) -> Result<()> {
        let due = match self.read_crl(authority, realm)? {
            Some(crl) => now.plus(CRL_LIFE / 2) >= crl.next_update,
            None => true,
        };
        if due { self.sign_crl(authority, realm, now) } else { Ok(()) }
    }

    /// Signs a trust domain's next list. What has expired need not be on it any more.
    pub fn sign_crl(&self, authority: &Authority, realm: Realm, now: UnixTime) -> Result<()> {
        let held = self.read_crl(authority, realm)?.map_or(0, |crl| crl.number);
        let entries = self.register(realm).entries()?;
        let revoked =
            entries.iter().filter(|entry| now < entry.not_after).filter_map(|entry| revoked(entry).transpose());
        let params = CertificateRevocationListParams {
            this_update: instant(now),
            next_update: instant(now.plus(CRL_LIFE)),
            // Above the one before it; and by the clock, so that whoever lost the one before it does not go backwards.
            crl_number: SerialNumber::from(now.as_secs().max(held + 1)),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = params.signed_by(&authority.issuer()?)?.pem()?;
        write_public(&self.crl_file(realm), pem.as_bytes())
    }

    /// The list of a trust domain as it stands.
    pub fn read_crl(&self, authority: &Authority, realm: Realm) -> Result<Option<Crl>> {
        let path = self.crl_file(realm);
        let pem = match fs::read(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let bundle = [super::der(authority.certificate())?];
        // One that another CA signed is from before this CA: it is replaced.
        Ok(Crl::parse(pem, &bundle).ok())
    }

    fn crl_file(&self, realm: Realm) -> PathBuf {
        revocation::file(&crl_dir(&self.dir), &self.domain, realm)
    }

    fn note(&self, number: &[u8], peer: &PeerId, now: UnixTime, life: Duration) -> Result<()> {
        self.register(peer.realm()).issued(number, &self.domain.spiffe_id(peer), now, now.plus(life))
    }
}

/// The federation that the CAs under a directory are of; `None` if there is none.
fn domain_of(dir: &Path, said: Option<&FederationDomain>) -> Result<Option<FederationDomain>> {
    let mut found = BTreeSet::new();
    let files = match fs::read_dir(dir.join("ca")) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| dir.join("ca").display().to_string()),
    };
    for file in files {
        let name = file.with_context(|| dir.display().to_string())?.file_name();
        found.extend(name.to_str().and_then(named_domain));
    }
    let listed = || found.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    match (said.map(ToString::to_string), found.len()) {
        (_, 0) => Ok(None),
        (Some(said), _) if !found.contains(&said) => {
            bail!("{}: the CAs there are of {} and not of {said}", dir.display(), listed())
        }
        (None, 2..) => bail!("{}: the CAs there are of {}: --domain says which is meant", dir.display(), listed()),
        (said, _) => Ok(said.or_else(|| found.first().cloned()).map(|domain| domain.parse()).transpose()?),
    }
}

/// The federation's domain in the name of a CA's certificate file.
fn named_domain(file: &str) -> Option<String> {
    let (realm, domain) = file.strip_suffix(".pem")?.split_once('.')?;
    let known = realm == "gateway" || realm.parse::<Member>().is_ok();
    (known && domain.parse::<FederationDomain>().is_ok()).then(|| domain.to_owned())
}

fn revoked(entry: &Entry) -> Result<Option<RevokedCertParams>> {
    let Some((at, reason)) = entry.revoked else { return Ok(None) };
    let serial = peer::config::parse_hex(&entry.serial).with_context(|| format!("serial number {}", entry.serial))?;
    Ok(Some(RevokedCertParams {
        serial_number: SerialNumber::from_slice(&serial),
        revocation_time: instant(at),
        reason_code: Some(reason.code()),
        invalidity_date: None,
    }))
}

impl Authority {
    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>> {
        Ok(Issuer::from_ca_cert_pem(&self.certificate, &self.key)?)
    }
}
