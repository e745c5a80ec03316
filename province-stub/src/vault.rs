//! What names a person is sealed before a store keeps it, and found again by a keyed hash: whoever has the store's files, a
//! backup or a database server's disk, and not the keys, learns no name and no number.
//!
//! A vault is a ring of keys: all are read by, the first one alone is written by, so that a key can be replaced while the
//! node serves. From each key come two, by HKDF-SHA256 (RFC 5869). One seals, by AES-256-GCM-SIV (RFC 8452): a nonce that
//! came twice would tell no more than that two values are the same, so that random ones are good for any number of rows. What
//! a value is, and which row it is in, is sealed in with it: moved to another place it does not open. The other one hashes, by
//! HMAC-SHA256: an identity number has too few digits to be hidden by a hash without a key.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
};
use proto::{
    random::{self, Random},
    suite::sha256,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keys::{KeyError, KeyFault, KeySource};

/// How many keys a ring has at most.
pub const MAX_KEYS: usize = 8;

const SEAL: &[u8] = b"tongxing/at-rest/seal";
const INDEX: &[u8] = b"tongxing/at-rest/index";
const FINGERPRINT: &[u8] = b"tongxing/at-rest/fingerprint";

/// Bytes that sealing adds: the nonce in front, the tag behind.
const SEALED_MORE: usize = NONCE_LEN + 16;

/// A ring of keys, the first of which is current.
pub struct Vault {
    keys: Vec<RestKey>,
    random: Arc<dyn Random>,
}

/// One key of the ring, as the two that come from it.
pub struct RestKey {
    fingerprint: Fingerprint,
    seal: LessSafeKey,
    index: hmac::Key,
}

/// Tells one key from another, and nothing of it.
pub type Fingerprint = [u8; 16];

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// A person's document, name and reference.
    Particulars,
    /// Why a code was set by hand.
    Justification,
    /// Why an operator looked at a person.
    Reason,
}

/// What is found by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexed {
    /// An identity document.
    Document,
    /// The name by which the member's own platform knows a person.
    Reference,
    /// All that was asked in a request.
    Request,
}

/// A sealed value is not what was sealed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a sealed value does not open: it was damaged, or is of another row")]
pub struct NotSealedHere;

impl Vault {
    /// Loads the ring, the current key first. Nonces come from `random`.
    pub fn load(sources: &[KeySource], random: Arc<dyn Random>) -> Result<Self, KeyError> {
        let mut keys: Vec<RestKey> = Vec::new();
        for source in sources {
            let key = RestKey::new(&*source.load()?);
            if keys.iter().any(|known| known.fingerprint == key.fingerprint) {
                return Err(source.error(KeyFault::Repeated));
            }
            keys.push(key);
        }
        Ok(Self { keys, random })
    }

    /// A ring of one key.
    pub fn new(key: &[u8; 32], random: Arc<dyn Random>) -> Self {
        Self { keys: vec![RestKey::new(key)], random }
    }

    /// The same ring behind another key, which is current.
    pub fn behind(mut self, key: &[u8; 32]) -> Self {
        self.keys.insert(0, RestKey::new(key));
        self
    }

    /// All keys, the current one first.
    pub fn keys(&self) -> &[RestKey] {
        &self.keys
    }

    /// The key that everything new is sealed with.
    ///
    /// # Panics
    /// Never: a ring is made of one key or more.
    pub fn current(&self) -> &RestKey {
        self.keys.first().expect("a ring has a key")
    }

    /// The key of a fingerprint, if the ring has it.
    pub fn key(&self, fingerprint: &Fingerprint) -> Option<&RestKey> {
        self.keys.iter().find(|key| key.fingerprint == *fingerprint)
    }

    /// Seals a value into its row with the current key. `row` is what tells the row from every other and does not change.
    ///
    /// # Panics
    /// Never: a value is far shorter than what one nonce is good for.
    pub fn seal(&self, what: Sealed, row: &[u8], value: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random::bytes(&*self.random);
        // Room for all of it at once: a buffer that grows leaves copies behind.
        let mut sealed = Vec::with_capacity(value.len() + SEALED_MORE);
        sealed.extend(nonce);
        sealed.extend(value);
        let tag = self
            .current()
            .seal
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place(what, row)),
                &mut sealed[NONCE_LEN..],
            )
            .expect("a short value seals");
        sealed.extend(tag.as_ref());
        sealed
    }
}

impl RestKey {
    /// # Panics
    /// Never: 32 bytes are a key, and two more come from it.
    fn new(key: &[u8; 32]) -> Self {
        let seal = UnboundKey::new(&AES_256_GCM_SIV, &*derive(key, SEAL)).expect("32 bytes are an AES-256 key");
        let hash = sha256(&Zeroizing::new([FINGERPRINT, &key[..]].concat()));
        let mut fingerprint = Fingerprint::default();
        fingerprint.copy_from_slice(&hash[..size_of::<Fingerprint>()]);
        let index = hmac::Key::new(hmac::HMAC_SHA256, &*derive(key, INDEX));
        Self { fingerprint, seal: LessSafeKey::new(seal), index }
    }

    /// Which key it is.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The hash that a value is found by.
    pub fn index(&self, what: Indexed, value: &[u8]) -> [u8; 16] {
        let mut index = [0; 16];
        index.copy_from_slice(&self.digest(what, value)[..16]);
        index
    }

    /// The same hash in its full length.
    pub fn digest(&self, what: Indexed, value: &[u8]) -> [u8; 32] {
        let mut hash = hmac::Context::with_key(&self.index);
        hash.update(what.word().as_bytes());
        hash.update(&[0]);
        hash.update(value);
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.sign().as_ref());
        digest
    }

    /// Opens what was sealed with this key into this row.
    pub fn open(&self, what: Sealed, row: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotSealedHere> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(NotSealedHere)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotSealedHere)?;
        let mut body = Zeroizing::new(body.to_vec());
        let plain = self.seal.open_in_place(nonce, Aad::from(place(what, row)), &mut body);
        let length = plain.map_err(|_| NotSealedHere)?.len();
        body.truncate(length);
        Ok(body)
    }
}

impl Sealed {
    const fn word(self) -> &'static str {
        match self {
            Self::Particulars => "person.particulars",
            Self::Justification => "code.justification",
            Self::Reason => "operator_access.reason",
        }
    }
}

impl Indexed {
    const fn word(self) -> &'static str {
        match self {
            Self::Document => "person.document",
            Self::Reference => "person.reference",
            Self::Request => "request.digest",
        }
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.keys).finish()
    }
}

impl fmt::Debug for RestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestKey(…)")
    }
}

/// What a sealed value is bound to.
fn place(what: Sealed, row: &[u8]) -> Vec<u8> {
    [what.word().as_bytes(), &[0], row].concat()
}

/// # Panics
/// Never: a key is far shorter than HKDF's limit.
fn derive(key: &[u8; 32], label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(key)
        .expand(&[label], hkdf::HKDF_SHA256)
        .and_then(|derived| derived.fill(&mut *out))
        .expect("a key is far shorter than HKDF's limit");
    out
}

#[cfg(test)]
mod tests {
    use proto::random::SystemRandom;

    use super::*;

    fn vault(key: u8) -> Vault {
        Vault::new(&[key; 32], Arc::new(SystemRandom))
    }

    #[test]
    fn opens_with_its_own_key_in_its_own_place_alone() {
        let (vault, other) = (vault(1), vault(2));
        let sealed = vault.seal(Sealed::Particulars, b"row", "王星洲".as_bytes());
        let open = |vault: &Vault, what, row: &[u8], sealed: &[u8]| vault.current().open(what, row, sealed);
        assert_eq!(&**open(&vault, Sealed::Particulars, b"row", &sealed).unwrap(), "王星洲".as_bytes());
        assert!(open(&vault, Sealed::Justification, b"row", &sealed).is_err());
        assert!(open(&vault, Sealed::Particulars, b"rows", &sealed).is_err());
        assert!(open(&other, Sealed::Particulars, b"row", &sealed).is_err());
        for byte in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[byte] ^= 1;
            assert!(open(&vault, Sealed::Particulars, b"row", &bent).is_err(), "{byte}");
            assert!(open(&vault, Sealed::Particulars, b"row", &sealed[..byte]).is_err(), "{byte}");
        }
        assert_ne!(vault.seal(Sealed::Particulars, b"row", "王星洲".as_bytes()), sealed);
    }

    #[test]
    fn a_hash_is_of_its_key_and_of_what_it_is_of() {
        let (one, two) = (vault(1), vault(2));
        let index = |vault: &Vault, what| vault.current().index(what, b"449999");
        assert_eq!(index(&one, Indexed::Document), index(&vault(1), Indexed::Document));
        assert_ne!(index(&one, Indexed::Document), index(&two, Indexed::Document));
        assert_ne!(index(&one, Indexed::Document), index(&one, Indexed::Reference));
        assert_ne!(one.current().fingerprint(), two.current().fingerprint());
    }

    /// What is on disk under these labels has to be found and opened for as long as anybody has the key.
    #[test]
    fn what_was_written_once_is_read_for_ever() {
        let key = vault(7);
        let hex = peer::config::to_hex;
        assert_eq!(hex(key.current().fingerprint()), "3bb6da48b87101a5e4339b8947dc9f0e");
        assert_eq!(hex(&key.current().index(Indexed::Document, b"449999")), "722d072f4e6ed5d1ab4e51b1a2820707");
    }

    #[test]
    fn a_ring_reads_by_all_and_writes_by_the_first() {
        let old = vault(1);
        let sealed = old.seal(Sealed::Justification, b"row", b"why");
        let old_key = *old.current().fingerprint();
        let ring = old.behind(&[2; 32]);
        let key = ring.key(&old_key).unwrap();
        assert_eq!(&**key.open(Sealed::Justification, b"row", &sealed).unwrap(), b"why");
        assert_ne!(*ring.current().fingerprint(), old_key);
        let sealed = ring.seal(Sealed::Justification, b"row", b"why");
        assert!(ring.current().open(Sealed::Justification, b"row", &sealed).is_ok());
        assert!(ring.key(&[0; 16]).is_none());
    }

    #[test]
    fn shows_nothing() {
        assert_eq!(format!("{:?}", vault(1).behind(&[2; 32])), "[RestKey(…), RestKey(…)]");
    }
}
