//! Certificate requests (PKCS#10, RFC 2986): the way in which a key gets a certificate without leaving its owner.

use anyhow::{Context, Result, anyhow, bail};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SubjectPublicKeyInfo};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

/// The largest request, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// Reads a request, PEM, for the peer `id`, and takes its key. Who it is for and what it may do is the CA's to say: names
/// and usages in the request are not taken over, and those that contradict are refused, so that nobody is surprised.
pub(super) fn read(pem: &str, id: &str) -> Result<SubjectPublicKeyInfo> {
    if pem.len() > MAX_BYTES {
        bail!("a request has at most {MAX_BYTES} bytes");
    }
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| anyhow!("not PEM"))?;
    if !matches!(block.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
        bail!("a {} and no certificate request", block.label.to_lowercase());
    }
    let (rest, request) = X509CertificationRequest::from_der(&block.contents).map_err(|_| anyhow!("not a request"))?;
    if !rest.is_empty() {
        bail!("bytes follow the request");
    }
    request.verify_signature().map_err(|_| anyhow!("its own key did not sign it"))?;
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw);
    let key = key.ok().filter(|key| key.algorithm() == &PKCS_ECDSA_P256_SHA256);
    let key = key.context("its key is not of P-256, which all certificates here have")?;
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => bail!("it asks to be a CA"),
            ParsedExtension::SubjectAlternativeName(names) => {
                let other = names.general_names.iter().find_map(|name| match name {
                    GeneralName::URI(uri) if *uri != id => Some(*uri),
                    _ => None,
                });
                if let Some(other) = other {
                    bail!("it asks to be {other} and not {id}");
                }
            }
            _ => {}
        }
    }
    Ok(key)
}
