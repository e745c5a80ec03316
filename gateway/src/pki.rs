//! Certificates: one CA per trust domain, leaves with exactly one URI name, all P-256 (grpcio, grpc-java, Envoy and
//! Chromium refuse Ed25519 leaves).

mod office;
mod register;
mod request;
mod show;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use peer::files;
use proto::{
    identity::{FederationDomain, PeerId, Realm, Role},
    time::UnixTime,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

pub use self::{
    office::{CRL_LIFE, Office, Which, crl_dir},
    register::{Entry, Reason, Register},
    show::Certificate,
};

/// How long a CA lives.
pub const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);

/// How long a leaf lives unless it is asked otherwise.
pub const LEAF_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Clocks differ: certificates begin a little before they are made.
const BACKDATE: Duration = Duration::from_secs(3600);

/// A certificate and its private key, PEM.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    key: KeyPair,
    serial: [u8; 16],
}

/// The CA of one trust domain.
#[derive(Debug)]
pub struct Authority {
    realm: Realm,
    domain: FederationDomain,
    certificate: String,
    key: KeyPair,
}

impl Authority {
    /// Makes a CA with a fresh key. It may sign leaves and nothing else; its name constraints are not what keeps it in its
    /// trust domain (webpki refuses URI constraints): every verifier's choice of bundle is.
    pub fn create(realm: Realm, domain: &FederationDomain, now: UnixTime) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(&format!("Tongxing CA {}", domain.trust_domain(realm)), serial(), now, CA_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { realm, domain: domain.clone(), certificate, key })
    }

    /// Reads a CA from its files.
    pub fn read(realm: Realm, domain: &FederationDomain, certificate: &Path, key: &Path) -> Result<Self> {
        let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
        let key = KeyPair::from_pem(&read(key)?).with_context(|| format!("{}: not a private key", key.display()))?;
        Ok(Self { realm, domain: domain.clone(), certificate: read(certificate)?, key })
    }

    /// Whether this CA's key signed a certificate. A CA made anew has another key.
    pub fn issued(&self, certificate: &Path) -> bool {
        let read = |path: &Path| fs::read_to_string(path).ok().and_then(|pem| der(&pem).ok());
        let (Ok(own), Some(other)) = (der(&self.certificate), read(certificate)) else { return false };
        let (own, other) = (X509Certificate::from_der(&own), X509Certificate::from_der(&other));
        matches!((own, other), (Ok((_, own)), Ok((_, other))) if other.verify_signature(Some(own.public_key())).is_ok())
    }

    /// The CA's own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Writes certificate and key.
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<()> {
        write_private(key, self.key.serialize_pem().as_bytes())?;
        write_public(certificate, self.certificate.as_bytes())
    }

    /// Issues a leaf with a fresh key, and leaves it out of every register: an [`Office`] keeps one.
    pub fn issue(&self, peer: &PeerId, dialled_by: &[String], now: UnixTime, life: Duration) -> Result<Issued> {
        let (key, serial) = (KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?, serial());
        let certificate = self.certify(peer, dialled_by, &key, serial, now, life)?;
        Ok(Issued { certificate, key, serial })
    }

    /// Certifies a key as a peer of this realm. Servers (nodes and replicas) also get the names and addresses they are
    /// dialled by, and both key usages; everybody else is a client.
    fn certify(
        &self,
        peer: &PeerId,
        dialled_by: &[String],
        key: &impl PublicKeyData,
        serial: [u8; 16],
        now: UnixTime,
        life: Duration,
    ) -> Result<String> {
        if peer.realm() != self.realm {
            bail!("{peer} is not of the trust domain {}", self.domain.trust_domain(self.realm));
        }
        let server = matches!(peer.role(), Role::Node(_) | Role::Gateway(_));
        let mut params = params(&peer.to_string(), serial, now, life)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(self.domain.spiffe_id(peer).try_into()?)];
        if server {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            for name in dialled_by {
                params.subject_alt_names.push(match name.parse() {
                    Ok(address) => SanType::IpAddress(address),
                    Err(_) => SanType::DnsName(name.as_str().try_into()?),
                });
            }
        } else if !dialled_by.is_empty() {
            bail!("{peer} is a client: nobody dials it");
        }
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, &self.key)?;
        Ok(params.signed_by(key, &issuer)?.pem())
    }
}

impl Issued {
    /// Writes `cert.pem` and `key.pem` into a directory, the key first: a reader that sees the new certificate finds its key.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        write_private(&dir.join("key.pem"), self.key.serialize_pem().as_bytes())?;
        write_public(&dir.join("cert.pem"), self.certificate.as_bytes())
    }
}

/// Where a trust domain's CA is kept under a directory: certificate and key.
pub fn ca_files(dir: &Path, domain: &FederationDomain, realm: Realm) -> (PathBuf, PathBuf) {
    let name = domain.trust_domain(realm);
    (dir.join(format!("ca/{name}.pem")), dir.join(format!("ca/private/{name}.key")))
}

/// When a certificate ends.
pub fn expires_at(pem: &Path) -> Result<UnixTime> {
    let context = || pem.display().to_string();
    let bytes = fs::read(pem).with_context(context)?;
    let der = CertificateDer::from_pem_slice(&bytes).with_context(context)?;
    let (_, certificate) = X509Certificate::from_der(&der).with_context(context)?;
    Ok(UnixTime::from_secs(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0)))
}

/// The DER of a PEM certificate.
pub fn der(pem: &str) -> Result<Vec<u8>> {
    Ok(CertificateDer::from_pem_slice(pem.as_bytes())?.to_vec())
}

/// Writes a secret, readable by its owner alone, by atomic rename.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    files::write_private(path, content).with_context(|| path.display().to_string())
}

/// Writes a public file by atomic rename.
pub fn write_public(path: &Path, content: &[u8]) -> Result<()> {
    files::write_public(path, content).with_context(|| path.display().to_string())
}

fn params(name: &str, serial: [u8; 16], now: UnixTime, life: Duration) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.not_before = instant(now.minus(BACKDATE));
    params.not_after = instant(now.plus(life));
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// An instant as certificates have it.
fn instant(time: UnixTime) -> OffsetDateTime {
    date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_secs())
}

/// 128 random bits, positive (RFC 5280 §4.1.2.2).
fn serial() -> [u8; 16] {
    let mut serial: [u8; 16] = proto::random::bytes(&proto::random::SystemRandom);
    serial[0] &= 0x7f;
    serial[0] |= 0x40;
    serial
}
