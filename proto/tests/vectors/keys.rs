//! The test keys. Everybody can make them: the private half is SHA-256 of a text that names the key.

use aws_lc_rs::agreement::{PrivateKey, X25519};
use proto::suite::{SigningKey, Suite, sha256};

use crate::json::{Hex, TestKey};

/// Issuers and roots.
const ED25519: [&str; 12] = [
    "root-1",
    "root-2",
    "root-3",
    "root-4",
    "gateway-log",
    "11-consent",
    "11-statement",
    "44-consent",
    "44-consent-next",
    "44-statement",
    "66-consent",
    "stranger",
];

/// Devices. One of the first two has an odd y, the other an even one.
const P256: [&str; 4] = ["device-a", "device-b", "device-other", "enrollment"];

/// In PKCS#8 (RFC 8410 §7, RFC 5915), what stands before the 32 private bytes.
const ED25519_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const P256_PREFIX: [u8; 35] = [
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
];

/// All names.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ED25519.into_iter().chain(P256)
}

/// The private half of a key, and whatever else of 32 bytes must be secret in life.
pub(crate) fn private(name: &str) -> [u8; 32] {
    sha256(format!("tongxing test vectors: {name}").as_bytes())
}

/// A key by its name.
pub(crate) fn signing_key(name: &str) -> SigningKey {
    let (suite, prefix) = match (ED25519.contains(&name), P256.contains(&name)) {
        (true, _) => (Suite::Ed25519, &ED25519_PREFIX[..]),
        (_, true) => (Suite::Esp256, &P256_PREFIX[..]),
        _ => panic!("no test key {name}"),
    };
    SigningKey::from_pkcs8(suite, &[prefix, &private(name)].concat()).unwrap()
}

/// The public half of an X25519 key.
pub(crate) fn sealing_key(name: &str) -> [u8; 32] {
    let private = PrivateKey::from_private_key(&X25519, &private(name)).unwrap();
    private.compute_public_key().unwrap().as_ref().try_into().unwrap()
}

/// A key as the files have it.
pub(crate) fn test_key(name: &str) -> TestKey {
    let key = signing_key(name);
    let public = key.verifying_key();
    TestKey {
        alg: public.suite().number(),
        private: Hex::from(&private(name)[..]),
        public: Hex::from(public.encoded()),
        kid: Hex::from(&public.kid().0[..]),
    }
}
