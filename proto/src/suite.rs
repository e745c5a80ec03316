//! The signature algorithms, in one place. A suite is added here and nowhere else; SM2 with SM3 (国密) is to come in the
//! same shape.
//!
//! Issuers and roots sign with Ed25519 (RFC 8032; COSE −19, RFC 9864). Devices sign with ESP256 (ECDSA on P-256 with
//! SHA-256; COSE −9): phones' secure hardware has P-256. The polymorphic −7 and −8 are refused.

use std::fmt;

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        ParsedPublicKey,
    },
};
use thiserror::Error;
use zeroize::Zeroizing;

/// A signature algorithm with fully specified parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// Ed25519: issuers and roots.
    Ed25519,
    /// ECDSA on P-256 with SHA-256: devices.
    Esp256,
}

impl Suite {
    /// The COSE algorithm number (RFC 9864).
    pub const fn number(self) -> i64 {
        match self {
            Self::Ed25519 => -19,
            Self::Esp256 => -9,
        }
    }

    /// From the COSE algorithm number.
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            -19 => Some(Self::Ed25519),
            -9 => Some(Self::Esp256),
            _ => None,
        }
    }

    /// Bytes of an encoded public key: Ed25519 raw, P-256 as a compressed point (SEC 1 §2.3.3).
    pub const fn public_key_len(self) -> usize {
        match self {
            Self::Ed25519 => 32,
            Self::Esp256 => 33,
        }
    }
}

/// A key that is not one of its suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a valid key of its suite")]
pub struct InvalidKey;

/// The signature does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the signature does not verify")]
pub struct InvalidSignature;

/// A key's id: the first 8 bytes of the SHA-256 of its encoded public key. A hint, never a proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kid(pub [u8; 8]);

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public key, parsed once.
#[derive(Clone)]
pub struct VerifyingKey {
    suite: Suite,
    encoded: Box<[u8]>,
    parsed: ParsedPublicKey,
}

impl VerifyingKey {
    /// Reads an encoded public key ([`Suite::public_key_len`] bytes).
    pub fn new(suite: Suite, encoded: &[u8]) -> Result<Self, InvalidKey> {
        if encoded.len() != suite.public_key_len() {
            return Err(InvalidKey);
        }
        let parsed = match suite {
            Suite::Ed25519 => ParsedPublicKey::new(&ED25519, encoded),
            Suite::Esp256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, encoded),
        };
        Ok(Self { suite, encoded: encoded.into(), parsed: parsed.map_err(|_| InvalidKey)? })
    }

    /// Its algorithm.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Its encoded form.
    pub const fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Its id.
    pub fn kid(&self) -> Kid {
        let mut kid = [0; 8];
        kid.copy_from_slice(&sha256(&self.encoded)[..8]);
        Kid(kid)
    }

    /// Checks a signature over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.parsed.verify_sig(message, signature).map_err(|_| InvalidSignature)
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.suite == other.suite && self.encoded == other.encoded
    }
}

impl Eq for VerifyingKey {}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} key {}", self.suite, self.kid())
    }
}

/// A private key. Its Debug shows the public half alone.
pub struct SigningKey {
    pair: Pair,
    public: VerifyingKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Esp256(EcdsaKeyPair),
}

impl SigningKey {
    /// A fresh key from the operating system's randomness.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    pub fn generate(suite: Suite) -> Self {
        let pair = match suite {
            Suite::Ed25519 => Ed25519KeyPair::generate().map(Pair::Ed25519),
            Suite::Esp256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Pair::Esp256),
        };
        Self::from_pair(pair.expect("the operating system gives randomness")).expect("a fresh key is valid")
    }

    /// Reads a PKCS#8 document (RFC 5958).
    pub fn from_pkcs8(suite: Suite, der: &[u8]) -> Result<Self, InvalidKey> {
        let pair = match suite {
            Suite::Ed25519 => Ed25519KeyPair::from_pkcs8(der).map(Pair::Ed25519),
            Suite::Esp256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Pair::Esp256),
        };
        Self::from_pair(pair.map_err(|_| InvalidKey)?)
    }

    /// The key as a PKCS#8 document; wiped when dropped.
    ///
    /// # Panics
    /// If memory is exhausted.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let document = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8(),
            Pair::Esp256(pair) => pair.to_pkcs8v1(),
        };
        Zeroizing::new(document.expect("a valid key encodes").as_ref().to_vec())
    }

    /// The public half.
    pub const fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    /// Signs `message`.
    ///
    /// # Panics
    /// If the operating system has no randomness to give (ESP256).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Esp256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message);
                signature.expect("the operating system gives randomness").as_ref().to_vec()
            }
        }
    }

    fn from_pair(pair: Pair) -> Result<Self, InvalidKey> {
        let public = match &pair {
            Pair::Ed25519(pair) => VerifyingKey::new(Suite::Ed25519, pair.public_key().as_ref())?,
            Pair::Esp256(pair) => VerifyingKey::new(Suite::Esp256, &compress(pair.public_key().as_ref())?)?,
        };
        Ok(Self { pair, public })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "private half of {:?}", self.public)
    }
}

/// SHA-256 (FIPS 180-4).
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

/// A P-256 point from `04 ‖ x ‖ y` to `02/03 ‖ x`.
fn compress(point: &[u8]) -> Result<[u8; 33], InvalidKey> {
    let (4, 65) = (*point.first().ok_or(InvalidKey)?, point.len()) else {
        return Err(InvalidKey);
    };
    let mut out = [0; 33];
    out[0] = 2 | (point[64] & 1);
    out[1..].copy_from_slice(&point[1..33]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_verifies_in_every_suite() {
        for suite in [Suite::Ed25519, Suite::Esp256] {
            let key = SigningKey::generate(suite);
            let signature = key.sign(b"message");
            assert_eq!(signature.len(), 64);
            assert_eq!(key.verifying_key().verify(b"message", &signature), Ok(()));
            assert_eq!(key.verifying_key().verify(b"massage", &signature), Err(InvalidSignature));
            let again = SigningKey::from_pkcs8(suite, &key.to_pkcs8()).unwrap();
            assert_eq!(again.verifying_key(), key.verifying_key());
        }
    }

    #[test]
    fn only_documented_algorithms_and_valid_keys_are_taken() {
        for refused in [-7, -8, -35, 0, 5] {
            assert_eq!(Suite::from_number(refused), None);
        }
        assert!(VerifyingKey::new(Suite::Esp256, &[2; 32]).is_err());
        assert!(VerifyingKey::new(Suite::Esp256, &[9; 33]).is_err());
        assert!(SigningKey::from_pkcs8(Suite::Ed25519, b"no").is_err());
    }

    #[test]
    fn debug_shows_no_private_key() {
        let key = SigningKey::generate(Suite::Ed25519);
        assert_eq!(format!("{key:?}"), format!("private half of Ed25519 key {}", key.verifying_key().kid()));
    }
}
