//! Revocations: the certificates that each CA has taken back, from its own lists (CRLs, RFC 5280 §5) in a directory beside
//! the trust list. A list is signed by the trust domain's CA, so that a member revokes its venue's certificate without
//! asking the roots.
//!
//! Whatever is refused leaves what is held in place: a list of somebody else's, an older one, one that is gone. A list that is
//! past its next update goes on taking back what it names, loudly: that a member's list is late must not stop the country.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::{
    identity::{FederationDomain, Realm},
    time::UnixTime,
    trust::TrustList,
};
use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject};
use thiserror::Error;
use tracing::warn;
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, revocation_list::CertificateRevocationList as ParsedCrl,
};

/// The largest file, in bytes: some hundred thousand entries.
pub const MAX_CRL_BYTES: u64 = 8 * 1024 * 1024;

/// What stands before the name of a trust domain in the text that is kept; no line of PEM has it.
const KEPT: &str = "# CRL of ";

/// Why a list of a CA's is not taken up.
#[derive(Debug, Error)]
pub enum CrlRefused {
    /// The file does not read.
    #[error(transparent)]
    File(#[from] io::Error),
    /// More than [`MAX_CRL_BYTES`].
    #[error("it is larger than {MAX_CRL_BYTES} bytes")]
    TooLarge,
    /// Not a CRL of the profile: PEM, version 2 with a number, a next update, no critical extension.
    #[error("it is not a CRL: {0}")]
    Malformed(&'static str),
    /// No CA of its trust domain signed it.
    #[error("no CA of this trust domain signed it")]
    Signature,
    /// An older one than is held.
    #[error("its number {number} is lower than {held}, which is held")]
    RolledBack {
        /// Its number.
        number: u64,
        /// The number held.
        held: u64,
    },
}

/// One CA's list.
#[derive(PartialEq, Eq)]
pub struct Crl {
    /// Rises with every list.
    pub number: u64,
    /// Until when the CA has promised the next one.
    pub next_update: UnixTime,
    serials: BTreeSet<Box<[u8]>>,
    /// The CA certificate that signed it: as long as that is in the bundle the list need not be verified again.
    signer: Vec<u8>,
    pem: Vec<u8>,
}

/// The lists of all trust domains that have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations(BTreeMap<Realm, Arc<Crl>>);

impl Crl {
    /// Reads a list, PEM, that one of these CA certificates must have signed.
    pub fn parse(pem: Vec<u8>, bundle: &[Vec<u8>]) -> Result<Self, CrlRefused> {
        let malformed = CrlRefused::Malformed;
        let der = CertificateRevocationListDer::from_pem_slice(&pem).map_err(|_| malformed("not PEM"))?;
        let (rest, crl) = ParsedCrl::from_der(&der).map_err(|_| malformed("not DER"))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow it"));
        }
        let signed = |ca: &[u8]| {
            X509Certificate::from_der(ca)
                .is_ok_and(|(_, ca)| ca.subject() == crl.issuer() && crl.verify_signature(ca.public_key()).is_ok())
        };
        let signer = bundle.iter().find(|ca| signed(ca)).ok_or(CrlRefused::Signature)?.clone();
        // A critical extension changes what the list means: one for some of the certificates, or only a difference.
        if crl.extensions().iter().any(|extension| extension.critical) {
            return Err(malformed("a critical extension"));
        }
        let number = crl.crl_number().and_then(|number| u64::try_from(number).ok());
        let next_update = crl.next_update().and_then(|time| u64::try_from(time.timestamp()).ok());
        let serials = crl.iter_revoked_certificates().map(|revoked| serial(revoked.raw_serial())).collect();
        Ok(Self {
            number: number.ok_or(malformed("no number"))?,
            next_update: next_update.map(UnixTime::from_secs).ok_or(malformed("no next update"))?,
            serials,
            signer,
            pem,
        })
    }

    /// How many certificates it takes back.
    pub fn len(&self) -> usize {
        self.serials.len()
    }

    /// Whether it takes back none.
    pub fn is_empty(&self) -> bool {
        self.serials.is_empty()
    }

    /// Whether it takes back the certificate with this serial number, big-endian.
    pub fn has(&self, number: &[u8]) -> bool {
        self.serials.contains(&serial(number))
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CRL {} of {} certificates", self.number, self.serials.len())
    }
}

impl Revocations {
    /// Reads the lists in a directory, `<trust domain>.crl`, for the members of a trust list. What is held stays where the
    /// directory has nothing better, as long as a CA of the trust list signed it.
    pub(crate) fn read(dir: Option<&Path>, held: &Self, list: &TrustList, now: UnixTime) -> Self {
        let Some(dir) = dir else { return Self::default() };
        let crls = realms(list).filter_map(|realm| {
            // Its CA may have been removed, and its word with it.
            let held = held.0.get(&realm).filter(|crl| list.bundle(realm).contains(&crl.signer));
            let path = file(dir, &list.domain, realm);
            let crl = match read_crl(&path, list.bundle(realm), held) {
                Ok(crl) => crl,
                Err(refused) => {
                    warn!(path = %path.display(), %refused, "revocations refused, what is held stays");
                    held.cloned()
                }
            }?;
            if now >= crl.next_update {
                warn!(path = %path.display(), next_update = %crl.next_update, "revocations are past their next update");
            }
            Some((realm, crl))
        });
        Self(crls.collect())
    }

    /// What [`Self::to_kept`] wrote, for the members of a trust list: what none of their CAs signed is passed over.
    pub(crate) fn from_kept(text: &str, list: &TrustList) -> Self {
        let kept: BTreeMap<&str, &str> = text.split(KEPT).filter_map(|section| section.split_once('\n')).collect();
        let crls = realms(list).filter_map(|realm| {
            let pem = kept.get(list.domain.trust_domain(realm).as_str())?.as_bytes().to_vec();
            Some((realm, Arc::new(Crl::parse(pem, list.bundle(realm)).ok()?)))
        });
        Self(crls.collect())
    }

    /// All lists as one text, so that an older one is known as one after a restart.
    pub(crate) fn to_kept(&self, domain: &FederationDomain) -> String {
        let section = |(realm, crl): (&Realm, &Arc<Crl>)| {
            format!("{KEPT}{}\n{}", domain.trust_domain(*realm), String::from_utf8_lossy(&crl.pem))
        };
        self.0.iter().map(section).collect()
    }

    /// The list of a trust domain.
    pub fn of(&self, realm: Realm) -> Option<&Crl> {
        self.0.get(&realm).map(Arc::as_ref)
    }
}

/// Where a trust domain's list is in a directory.
pub fn file(dir: &Path, domain: &FederationDomain, realm: Realm) -> PathBuf {
    dir.join(format!("{}.crl", domain.trust_domain(realm)))
}

fn realms(list: &TrustList) -> impl Iterator<Item = Realm> {
    list.members.keys().map(|member| Realm::Member(*member)).chain([Realm::Gateway])
}

/// The list in a file, or what is held if the file is the same or gone.
fn read_crl(path: &Path, bundle: &[Vec<u8>], held: Option<&Arc<Crl>>) -> Result<Option<Arc<Crl>>, CrlRefused> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if held.is_some() {
                warn!(path = %path.display(), "revocations are gone, what is held stays");
            }
            return Ok(held.cloned());
        }
        Err(error) => return Err(error.into()),
    };
    let mut pem = Vec::new();
    file.take(MAX_CRL_BYTES + 1).read_to_end(&mut pem)?;
    if pem.len() as u64 > MAX_CRL_BYTES {
        return Err(CrlRefused::TooLarge);
    }
    if let Some(held) = held.filter(|held| held.pem == pem) {
        return Ok(Some(held.clone()));
    }
    let crl = Crl::parse(pem, bundle)?;
    match held.filter(|held| crl.number < held.number) {
        Some(held) => Err(CrlRefused::RolledBack { number: crl.number, held: held.number }),
        None => Ok(Some(Arc::new(crl))),
    }
}

/// A serial number without the zero that keeps it positive (X.690 §8.3).
fn serial(number: &[u8]) -> Box<[u8]> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number[zeros..].into()
}
