//! Certificates that nobody should believe: by another member's CA, with two names or none, too old.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use gateway::pki::{Authority, LEAF_LIFE, write_private, write_public};
use proto::{
    identity::{PeerId, Realm, Role},
    time::UnixTime,
};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
    date_time_ymd,
};

use super::{Sandbox, wire::Shown};

/// Names and addresses that servers are dialled by.
const DIALLED_BY: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl Sandbox {
    /// A certificate for a peer by the CA of a realm, its own or another's, in a directory.
    pub(crate) fn certify(&self, peer: &PeerId, by: Realm, dir: &Path) -> PathBuf {
        self.certify_from(peer, by, dir, self.now(), LEAF_LIFE)
    }

    /// The same, issued at another time for another life.
    pub(crate) fn certify_from(&self, peer: &PeerId, by: Realm, dir: &Path, from: UnixTime, life: Duration) -> PathBuf {
        let (certificate, key) = self.layout().ca(by);
        // An authority takes its word for which realm it is.
        let forger = Authority::read(peer.realm(), &self.layout().domain(), &certificate, &key).unwrap();
        let server = matches!(peer.role(), Role::Node(_) | Role::Gateway(_));
        let dialled_by = if server { DIALLED_BY.map(str::to_owned).to_vec() } else { Vec::new() };
        let dir = dir.join(format!("{peer}-by-{by}").replace('/', "-"));
        forger.issue(peer, &dialled_by, from, life).unwrap().write(&dir).unwrap();
        dir
    }

    /// A certificate by a realm's CA with these URI names, whatever they are.
    pub(crate) fn certify_names(&self, names: &[&str], by: Realm) -> Shown {
        let (certificate, key) = self.layout().ca(by);
        let ca_key = KeyPair::from_pem(&fs::read_to_string(key).unwrap()).unwrap();
        let ca = fs::read_to_string(certificate).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&ca, &ca_key).unwrap();
        let mut params = CertificateParams::default();
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + Duration::from_secs(self.now().as_secs() - 60);
        params.not_after = epoch + Duration::from_secs(self.now().as_secs() + 3600);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
        // A DNS name beside them changes nothing: identity is the URI.
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into().unwrap()));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Shown { certificate: params.signed_by(&key, &issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// Writes a certificate and its key where credentials are read from.
pub(crate) fn write(shown: &Shown, dir: &Path) {
    write_private(&dir.join("key.pem"), shown.key.as_bytes()).unwrap();
    write_public(&dir.join("cert.pem"), shown.certificate.as_bytes()).unwrap();
}
