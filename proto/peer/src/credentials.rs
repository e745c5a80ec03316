//! A program's own certificate chain and private key, read from files and replaced while running.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use proto::{
    identity::{FederationDomain, PeerId},
    time::UnixTime,
};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::aws_lc_rs::sign::any_supported_type,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::verifier;

/// Where certificate and key are, as PEM. The certificate's file holds the leaf first.
#[derive(Clone, Debug)]
pub struct CredentialFiles {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The PKCS#8 private key; readable by its owner alone.
    pub key: PathBuf,
}

/// Why there are no credentials to work with.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// A file does not read.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file's content is not what it should be.
    #[error("{path}: {what}", path = path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// Certificate and key, and who they say we are.
pub struct Credentials {
    files: CredentialFiles,
    domain: FederationDomain,
    current: ArcSwap<CertifiedKey>,
    id: PeerId,
}

impl Credentials {
    /// Reads certificate and key; they must belong together, and the certificate must name one peer of this federation.
    pub fn open(files: CredentialFiles, domain: &FederationDomain) -> Result<Arc<Self>, CredentialError> {
        let (certified, id) = read(&files, domain)?;
        Ok(Arc::new(Self { files, domain: domain.clone(), current: ArcSwap::from_pointee(certified), id }))
    }

    /// Reads the files again. Returns whether they had another certificate; one of another identity is refused.
    pub fn reload(&self) -> Result<bool, CredentialError> {
        let (certified, id) = read(&self.files, &self.domain)?;
        if id != self.id {
            let what = format!("it is the certificate of {id}, not of {}", self.id);
            return Err(CredentialError::Content { path: self.files.certificate.clone(), what });
        }
        if certified.cert == self.current.load().cert {
            return Ok(false);
        }
        self.current.store(Arc::new(certified));
        Ok(true)
    }

    /// When the certificate ends.
    pub fn expires_at(&self) -> Option<UnixTime> {
        expires_at(self.current.load().cert.first()?)
    }

    /// Who the certificate says we are.
    pub fn id(&self) -> &PeerId {
        &self.id
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credentials of {}", self.id)
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// When a certificate ends; `None` for what is no certificate.
pub fn expires_at(der: &[u8]) -> Option<UnixTime> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(UnixTime::from_secs(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0)))
}

/// Refuses a secret's file that others than its owner can read.
pub fn check_private(path: &Path) -> Result<(), CredentialError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = fs::metadata(path).map_err(|error| CredentialError::File { path: path.into(), error })?;
    match metadata.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => {
            let what = "others can read this secret; `chmod 600` it".to_owned();
            Err(CredentialError::Content { path: path.into(), what })
        }
    }
}

fn read(files: &CredentialFiles, domain: &FederationDomain) -> Result<(CertifiedKey, PeerId), CredentialError> {
    check_private(&files.key)?;
    let content = |path: &Path, what: String| CredentialError::Content { path: path.into(), what };
    let read = |path: &Path| fs::read(path).map_err(|error| CredentialError::File { path: path.into(), error });
    let pem = read(&files.certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content(&files.certificate, format!("not PEM certificates: {error}")))?;
    let leaf = chain.first().ok_or_else(|| content(&files.certificate, "it holds no certificate".into()))?;
    let id = verifier::identify(leaf, domain).map_err(|error| content(&files.certificate, error.to_string()))?;
    // The parser's own error could quote the file, which is a secret.
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|_| content(&files.key, "not a PKCS#8 private key in PEM".into()))?;
    let key = any_supported_type(&key).map_err(|_| content(&files.key, "not a key TLS can use".into()))?;
    let certified = CertifiedKey::new(chain, key);
    certified
        .keys_match()
        .map_err(|_| content(&files.key, format!("it does not belong to {}", files.certificate.display())))?;
    Ok((certified, id))
}
