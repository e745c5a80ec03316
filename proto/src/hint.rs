//! The sealed identity hint: masked name and tail of the ID number, so that a person at the gate can compare a document.
//!
//! Only who holds the presentation's `k` opens it: the gateway relays what it cannot read (I6).
//! AES-256-GCM (NIST SP 800-38D), key by HKDF-SHA256 (RFC 5869) from `k`, a random 12-byte nonce in front, one length for all.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    presentation::HintKey,
    random::{self, Random},
    token::Cti,
};

/// Bytes of every sealed hint.
pub const SEALED_LEN: usize = NONCE_LEN + PADDED_LEN + 16;

const PADDED_LEN: usize = 64;
const MAX_NAME_BYTES: usize = 48;
const MAX_TAIL_BYTES: usize = 8;

/// A node's own secret, from which every token's `k` comes. 32 random bytes.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct NodeSecret(pub [u8; 32]);

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSecret(…)")
    }
}

impl NodeSecret {
    /// The `k` of one token.
    pub fn hint_key(&self, cti: Cti) -> HintKey {
        HintKey(derive(&self.0, &[b"tongxing/1/k", &cti.0]))
    }
}

/// What the venue's staff compare with the document in the traveler's hand.
#[derive(Clone, PartialEq, Eq)]
pub struct IdentityHint {
    masked_name: String,
    document_tail: String,
}

/// The hint does not open: another key, or not a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the identity hint does not open")]
pub struct HintError;

impl IdentityHint {
    /// Masks a name (the first character stays: `王**`) and takes the last four characters of a document's number.
    pub fn mask(name: &str, document_number: &str) -> Self {
        let length = name.chars().count();
        let kept: String = name.chars().take(1).collect();
        let stars = length.saturating_sub(1).clamp(1, MAX_TAIL_BYTES);
        let skipped = document_number.chars().count().saturating_sub(4);
        let tail: String = document_number.chars().skip(skipped).collect();
        Self { masked_name: kept + &"*".repeat(stars), document_tail: tail }
    }

    /// The masked name.
    pub fn masked_name(&self) -> &str {
        &self.masked_name
    }

    /// The document number's last characters, four at most.
    pub fn document_tail(&self) -> &str {
        &self.document_tail
    }

    /// Seals it under a token's `k`: always [`SEALED_LEN`] bytes.
    ///
    /// # Panics
    /// Never: a hint's parts are bounded when it is made, and sealing 64 bytes cannot fail.
    pub fn seal(&self, key: &HintKey, random: &dyn Random) -> Vec<u8> {
        let mut sealed = vec![self.masked_name.len() as u8, self.document_tail.len() as u8];
        sealed.extend(self.masked_name.as_bytes());
        sealed.extend(self.document_tail.as_bytes());
        sealed.resize(PADDED_LEN, 0);
        let nonce: [u8; NONCE_LEN] = random::bytes(random);
        let tag = aead_key(key)
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
            .expect("64 bytes seal");
        let mut out = nonce.to_vec();
        out.extend(sealed);
        out.extend(tag.as_ref());
        out
    }

    /// Opens a sealed hint, as the venue does.
    pub fn open(sealed: &[u8], key: &HintKey) -> Result<Self, HintError> {
        if sealed.len() != SEALED_LEN {
            return Err(HintError);
        }
        let (nonce, body) = sealed.split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| HintError)?;
        let mut body = body.to_vec();
        let plain = aead_key(key).open_in_place(nonce, Aad::empty(), &mut body).map_err(|_| HintError)?;
        let (name_len, tail_len) = (usize::from(plain[0]), usize::from(plain[1]));
        if name_len > MAX_NAME_BYTES || tail_len > MAX_TAIL_BYTES {
            return Err(HintError);
        }
        let text = |range: std::ops::Range<usize>| String::from_utf8(plain[range].to_vec()).map_err(|_| HintError);
        Ok(Self { masked_name: text(2..2 + name_len)?, document_tail: text(2 + name_len..2 + name_len + tail_len)? })
    }
}

impl fmt::Debug for IdentityHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityHint(…)")
    }
}

fn aead_key(key: &HintKey) -> LessSafeKey {
    let derived: [u8; 32] = derive(&key.0, &[b"tongxing/1/hint"]);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &derived).expect("32 bytes are an AES-256 key"))
}

/// HKDF-SHA256 with an empty salt.
fn derive<const N: usize>(secret: &[u8], info: &[&[u8]]) -> [u8; N] {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut out = [0; N];
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(secret)
        .expand(info, Length(N))
        .and_then(|key| key.fill(&mut out))
        .expect("a key is far shorter than HKDF's limit");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemRandom;

    #[test]
    fn masks_names_and_numbers() {
        let hint = IdentityHint::mask("欧阳星河", "449999199001011234");
        assert_eq!((hint.masked_name(), hint.document_tail()), ("欧***", "1234"));
        let short = IdentityHint::mask("王", "E1");
        assert_eq!((short.masked_name(), short.document_tail()), ("王*", "E1"));
        let long = IdentityHint::mask(&"长".repeat(64), "1");
        assert!(long.masked_name().len() <= MAX_NAME_BYTES);
    }

    #[test]
    fn opens_with_its_own_key_alone_and_has_one_length() {
        let secret = NodeSecret([9; 32]);
        let (k, other) = (secret.hint_key(Cti([1; 16])), secret.hint_key(Cti([2; 16])));
        assert_ne!(k, other);
        for name in ["王小", "买买提·艾力"] {
            let hint = IdentityHint::mask(name, "449999199001011234");
            let sealed = hint.seal(&k, &SystemRandom);
            assert_eq!(sealed.len(), SEALED_LEN);
            assert_eq!(IdentityHint::open(&sealed, &k), Ok(hint.clone()));
            assert_eq!(IdentityHint::open(&sealed, &other), Err(HintError));
            assert_ne!(hint.seal(&k, &SystemRandom), sealed);
        }
        assert_eq!(IdentityHint::open(&[], &k), Err(HintError));
    }
}
