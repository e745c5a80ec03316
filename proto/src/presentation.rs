//! The presentation: what a QR carries from the phone to the venue. `TX1:` and the base45 (RFC 9285) of `[1, token, proof, k]`.
//!
//! `k` opens the sealed identity hint and stays with the venue: [`Presentation`] keeps it apart from what is sent on.

use std::fmt;

use ciborium::Value;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    cbor,
    cose::MAX_OBJECT_BYTES,
    refusal::{Object, Reason, Refusal},
};

/// What every presentation's text starts with.
pub const PREFIX: &str = "TX1:";

/// The longest text: the base45 of two full objects and the frame around them.
pub const MAX_TEXT_BYTES: usize = PREFIX.len() + (2 * MAX_OBJECT_BYTES + 64) / 2 * 3;

const VERSION: u64 = 1;

/// The key that opens the sealed identity hint. Never sent on, never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct HintKey(pub [u8; 16]);

impl fmt::Debug for HintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HintKey(…)")
    }
}

/// What a venue reads off a phone or a paper.
#[derive(Clone, PartialEq, Eq)]
pub struct Presentation {
    /// The consent token, as bytes to send on.
    pub token: Vec<u8>,
    /// The proof, as bytes to send on; paper and assisted tokens have none.
    pub proof: Option<Vec<u8>>,
    /// Opens the hint; stays here.
    pub hint_key: HintKey,
}

impl fmt::Debug for Presentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "presentation of {} bytes", self.token.len() + self.proof.as_ref().map_or(0, Vec::len))
    }
}

impl Presentation {
    /// As the text of a QR, in its alphanumeric character set.
    ///
    /// # Panics
    /// Never: byte strings always encode.
    pub fn to_text(&self) -> String {
        let proof = self.proof.clone().map_or(Value::Null, Value::Bytes);
        let parts = vec![VERSION.into(), self.token.clone().into(), proof, self.hint_key.0.to_vec().into()];
        let bytes = cbor::encode(&Value::Array(parts)).expect("byte strings encode");
        format!("{PREFIX}{}", base45::encode(bytes))
    }

    /// Reads the text of a QR, refusing in this order: size, prefix, base45, CBOR, layout. The objects within are read by
    /// whoever verifies them.
    pub fn from_text(text: &str) -> Result<Self, Refusal> {
        const OBJECT: Object = Object::Presentation;
        if text.len() > MAX_TEXT_BYTES {
            return Err(Refusal::of(OBJECT, Reason::ObjectTooLarge).with("max_bytes", MAX_TEXT_BYTES));
        }
        let body = text.strip_prefix(PREFIX).ok_or_else(|| Refusal::of(OBJECT, Reason::PrefixUnknown))?;
        // Of a last group that is more than a byte the decoder drops the rest: one presentation has one text.
        let bytes = base45::decode(body).ok().filter(|bytes| base45::encode(bytes) == body);
        let bytes = bytes.ok_or_else(|| Refusal::of(OBJECT, Reason::NotBase45))?;
        let parts = match cbor::decode(OBJECT, &bytes, MAX_TEXT_BYTES)? {
            Value::Array(parts) => parts,
            _ => return Err(Refusal::malformed(OBJECT, "not an array")),
        };
        let [version, token, proof, hint_key] =
            <[Value; 4]>::try_from(parts).map_err(|_| Refusal::malformed(OBJECT, "not an array of four"))?;
        if cbor::uint(&version) != Some(VERSION) {
            return Err(Refusal::malformed(OBJECT, "not version 1"));
        }
        let part = |value| match value {
            Value::Bytes(bytes) if (1..=MAX_OBJECT_BYTES).contains(&bytes.len()) => Ok(bytes),
            _ => Err(Refusal::malformed(OBJECT, "token and proof are byte strings of 1 to 1024 bytes")),
        };
        let token = part(token)?;
        let proof = if proof == Value::Null { None } else { Some(part(proof)?) };
        let hint_key = cbor::bytes(&hint_key).ok_or_else(|| Refusal::malformed(OBJECT, "k is not 16 bytes"))?;
        Ok(Self { token, proof, hint_key: HintKey(hint_key) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> Reason {
        Presentation::from_text(text).unwrap_err().reason()
    }

    fn text_of(bytes: &[u8]) -> String {
        format!("{PREFIX}{}", base45::encode(bytes))
    }

    #[test]
    fn survives_a_round_trip() {
        for proof in [None, Some(vec![2; 120])] {
            let presentation = Presentation { token: vec![1; 210], proof, hint_key: HintKey([3; 16]) };
            assert_eq!(Presentation::from_text(&presentation.to_text()), Ok(presentation));
        }
        let sized = |n| Presentation { token: vec![1; n], proof: None, hint_key: HintKey([3; 16]) };
        assert!(Presentation::from_text(&sized(MAX_OBJECT_BYTES).to_text()).is_ok());
        assert_eq!(reason(&sized(MAX_OBJECT_BYTES + 1).to_text()), Reason::ObjectMalformed);
        assert_eq!(reason(&sized(0).to_text()), Reason::ObjectMalformed);
    }

    #[test]
    fn every_way_to_be_wrong_has_its_reason() {
        assert_eq!(reason(""), Reason::PrefixUnknown);
        assert_eq!(reason("HC1:ABC"), Reason::PrefixUnknown);
        assert_eq!(reason("TX1:abc"), Reason::NotBase45);
        assert_eq!(reason("TX1:::::"), Reason::NotBase45);
        assert_eq!(reason("TX1:"), Reason::NotCbor);
        assert_eq!(reason(&text_of(&[0x84, 1])), Reason::NotCbor);
        assert_eq!(reason(&text_of(&[0x80, 0])), Reason::TrailingBytes);
        assert_eq!(reason(&text_of(&[0x18, 1])), Reason::NotDeterministic);
        assert_eq!(reason(&text_of(&[0x80])), Reason::ObjectMalformed);
        assert_eq!(reason(&text_of(&[0x84, 2, 0x40, 0xf6, 0x40])), Reason::ObjectMalformed);
        assert_eq!(reason(&text_of(&[0x84, 1, 0x40, 0xf6, 0x40])), Reason::ObjectMalformed);
        assert_eq!(reason(&"T".repeat(MAX_TEXT_BYTES + 1)), Reason::ObjectTooLarge);
    }

    #[test]
    fn debug_shows_no_key() {
        let presentation = Presentation { token: vec![], proof: None, hint_key: HintKey([0xab; 16]) };
        assert!(!format!("{presentation:?} {:?}", presentation.hint_key).contains("171"));
    }
}
