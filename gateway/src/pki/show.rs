//! What a certificate says, for people.

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result};
use peer::config::to_hex;
use proto::time::UnixTime;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Its URI names: exactly one is a peer's.
    pub ids: Vec<String>,
    /// Names and addresses it is dialled by.
    pub dialled_by: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// When it begins.
    pub not_before: UnixTime,
    /// When it ends.
    pub not_after: UnixTime,
}

impl Certificate {
    /// Reads the first certificate of a PEM file.
    pub fn read(path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        let bytes = fs::read(path).with_context(context)?;
        let der = CertificateDer::from_pem_slice(&bytes).with_context(context)?;
        let (_, certificate) = X509Certificate::from_der(&der).with_context(context)?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.clone()).unwrap_or_default();
        let (mut ids, mut dialled_by) = (Vec::new(), Vec::new());
        for name in names {
            match name {
                GeneralName::URI(uri) => ids.push(uri.to_owned()),
                GeneralName::DNSName(name) => dialled_by.push(name.to_owned()),
                GeneralName::IPAddress(bytes) => dialled_by.extend(address(bytes)),
                _ => {}
            }
        }
        let time =
            |time: x509_parser::time::ASN1Time| UnixTime::from_secs(u64::try_from(time.timestamp()).unwrap_or(0));
        Ok(Self {
            serial: to_hex(certificate.raw_serial()),
            ids,
            dialled_by,
            issuer: certificate.issuer().to_string(),
            not_before: time(certificate.validity().not_before),
            not_after: time(certificate.validity().not_after),
        })
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "id          {}", self.ids.join(" "))?;
        if !self.dialled_by.is_empty() {
            writeln!(f, "dialled by  {}", self.dialled_by.join(" "))?;
        }
        writeln!(f, "serial      {}", self.serial)?;
        writeln!(f, "issuer      {}", self.issuer)?;
        write!(f, "valid       {} to {}", self.not_before, self.not_after)
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
}
