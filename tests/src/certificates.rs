//! Certificates that nobody should believe: by another member's CA, with two names or none, too old. They are made with
//! the CAs' own keys, as a federation's directory has them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use gateway::pki::Authority;
use proto::{
    identity::{PeerId, Realm, Role},
    time::UnixTime,
};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
    date_time_ymd,
};
use tongxing::layout::Layout;

use crate::wire::Shown;

/// Names and addresses that servers are dialled by.
const DIALLED_BY: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate for a peer by the CA of a realm, its own or another's, in a directory of its own under `dir`. Returns
/// that directory.
pub fn certify(
    layout: &Layout,
    peer: &PeerId,
    by: Realm,
    dir: &Path,
    from: UnixTime,
    life: Duration,
) -> Result<PathBuf> {
    let (certificate, key) = layout.ca(by);
    // An authority takes its word for which realm it is.
    let forger = Authority::read(peer.realm(), &layout.domain(), &certificate, &key)?;
    let server = matches!(peer.role(), Role::Node(_) | Role::Gateway(_));
    let dialled_by = if server { DIALLED_BY.map(str::to_owned).to_vec() } else { Vec::new() };
    let dir = dir.join(format!("{peer}-by-{by}").replace('/', "-"));
    forger.issue(peer, &dialled_by, from, life)?.write(&dir)?;
    Ok(dir)
}

/// A certificate by a realm's CA with these URI names, whatever they are, for an hour from `now` on.
pub fn certify_names(layout: &Layout, names: &[&str], by: Realm, now: UnixTime) -> Result<Shown> {
    let (certificate, key) = layout.ca(by);
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let ca_key = KeyPair::from_pem(&read(&key)?)?;
    let issuer = Issuer::from_ca_cert_pem(&read(&certificate)?, &ca_key)?;
    let mut params = CertificateParams::default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now.as_secs() - 60);
    params.not_after = epoch + Duration::from_secs(now.as_secs() + 3600);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let uris = names.iter().map(|name| Ok(SanType::URI((*name).try_into()?)));
    params.subject_alt_names = uris.collect::<Result<_>>()?;
    // A DNS name beside them changes nothing: identity is the URI.
    params.subject_alt_names.push(SanType::DnsName("localhost".try_into()?));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(Shown { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}
