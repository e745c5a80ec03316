//! [`tests::certificates`] by a sandbox's own CAs and clock.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use gateway::pki::{LEAF_LIFE, write_private, write_public};
use proto::{
    identity::{PeerId, Realm},
    time::UnixTime,
};
use tests::certificates;

use super::{Sandbox, wire::Shown};

impl Sandbox {
    /// A certificate for a peer by the CA of a realm, its own or another's, in a directory.
    pub(crate) fn certify(&self, peer: &PeerId, by: Realm, dir: &Path) -> PathBuf {
        self.certify_from(peer, by, dir, self.now(), LEAF_LIFE)
    }

    /// The same, issued at another time for another life.
    pub(crate) fn certify_from(&self, peer: &PeerId, by: Realm, dir: &Path, from: UnixTime, life: Duration) -> PathBuf {
        certificates::certify(self.layout(), peer, by, dir, from, life).unwrap()
    }

    /// A certificate by a realm's CA with these URI names, whatever they are.
    pub(crate) fn certify_names(&self, names: &[&str], by: Realm) -> Shown {
        certificates::certify_names(self.layout(), names, by, self.now()).unwrap()
    }
}

/// Writes a certificate and its key where credentials are read from.
pub(crate) fn write(shown: &Shown, dir: &Path) {
    write_private(&dir.join("key.pem"), shown.key.as_bytes()).unwrap();
    write_public(&dir.join("cert.pem"), shown.certificate.as_bytes()).unwrap();
}
