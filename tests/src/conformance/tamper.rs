//! Signed objects, changed in one place: signed anew where the change is to be believed, left as they are where not.

use ciborium::Value;
use proto::{
    cbor,
    member::Member,
    suite::{SigningKey, Suite},
    time::UnixTime,
};
use serde::Deserialize;

use crate::forge;

/// One change to a COSE_Sign1.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Tamper {
    /// A bit of the signature.
    FlipSignature,
    /// A bit of the payload, in the claim with this key, a byte string; the signature stays.
    FlipClaim(i64),
    /// The last byte is missing.
    CutShort,
    /// A byte follows.
    TrailingByte,
    /// The array's head in two bytes instead of one.
    LongHead,
    /// Tag 18 before it.
    Tagged,
    /// Bytes that are no CBOR.
    NotCbor,
    /// A CBOR integer.
    Number,
    /// An array of three.
    ThreeParts,
    /// Something in the unprotected header.
    Unprotected,
    /// 1,025 bytes.
    Oversize,
    /// A header parameter, added or another value; signed anew.
    SetHeader {
        /// Its label.
        key: i64,
        /// Its value.
        value: Plain,
    },
    /// A header parameter less; signed anew.
    DropHeader(i64),
    /// A claim, added or another value; signed anew.
    SetClaim {
        /// Its keys, from the outside in.
        path: Vec<i64>,
        /// Its value.
        value: Plain,
    },
    /// A claim less; signed anew.
    DropClaim(Vec<i64>),
    /// Signed anew by a key that nobody knows, under the kid it has.
    SignByStranger,
    /// Signed anew as if for no other object: `external_aad` empty.
    WithoutAad,
}

/// A value in a case file.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Plain {
    /// An integer.
    Int(i64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Plain>),
    /// An instant, in seconds from now.
    Instant(Instant),
    /// Bytes, all alike.
    Bytes(Repeated),
}

/// An instant, in seconds from now.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instant {
    now: i64,
}

/// So many zero bytes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeated {
    bytes: usize,
}

/// Who makes changes: what they sign with, and for what.
pub(super) struct Hand<'a> {
    /// The key that belongs there; without one a stranger's signs.
    pub(super) key: Option<&'a SigningKey>,
    /// What the signature is bound to besides.
    pub(super) aad: &'a [u8],
    /// What time it is.
    pub(super) now: UnixTime,
    /// What OTHER stands for: another member's code.
    pub(super) other: Member,
}

impl Plain {
    fn value(&self, hand: &Hand<'_>) -> Value {
        match self {
            Self::Int(number) => (*number).into(),
            Self::Text(text) => text.replace("OTHER", &hand.other.to_string()).into(),
            Self::List(items) => Value::Array(items.iter().map(|item| item.value(hand)).collect()),
            Self::Instant(Instant { now }) => hand.now.as_secs().saturating_add_signed(*now).into(),
            Self::Bytes(Repeated { bytes }) => Value::Bytes(vec![0; *bytes]),
        }
    }
}

/// Whether a change has to be signed anew by the key that belongs there.
pub(super) fn needs_key(changes: &[Tamper]) -> bool {
    use Tamper::{DropClaim, DropHeader, SetClaim, SetHeader, SignByStranger, WithoutAad};
    let by_stranger = changes.iter().any(|change| matches!(change, SignByStranger));
    let anew = |change: &Tamper| {
        matches!(change, SetHeader { .. } | DropHeader(_) | SetClaim { .. } | DropClaim(_) | WithoutAad)
    };
    !by_stranger && changes.iter().any(anew)
}

/// Makes the changes, in their order.
///
/// # Errors
/// If the object is not laid out well enough to be changed: it is the node's, or the case is wrong.
pub(super) fn tamper(object: &[u8], changes: &[Tamper], hand: &Hand<'_>) -> Result<Vec<u8>, String> {
    let mut object = object.to_vec();
    for change in changes {
        object = apply(&object, change, hand)?;
    }
    Ok(object)
}

fn apply(object: &[u8], change: &Tamper, hand: &Hand<'_>) -> Result<Vec<u8>, String> {
    let (key, aad) = (hand.key, hand.aad);
    Ok(match change {
        Tamper::FlipSignature => forge::flipped(object),
        Tamper::CutShort => object[..object.len().saturating_sub(1)].to_vec(),
        Tamper::TrailingByte => [object, &[0]].concat(),
        Tamper::LongHead if object.first() == Some(&0x84) => forge::not_deterministic(object),
        Tamper::LongHead => return Err("not an array of four".into()),
        Tamper::Tagged => [&[0xd2], object].concat(),
        Tamper::NotCbor => vec![0xff; 40],
        Tamper::Number => vec![1],
        Tamper::ThreeParts => vec![0x83, 1, 1, 1],
        Tamper::Oversize => vec![0; 1025],
        Tamper::FlipClaim(claim) => flip_claim(object, *claim)?,
        Tamper::Unprotected => {
            let [header, _, payload, signature] = sign1(object)?;
            let unprotected = Value::Map(vec![(99.into(), 1.into())]);
            encode(&Value::Array(vec![header, unprotected, payload, signature]))?
        }
        Tamper::SetHeader { key: label, value } => {
            let mut parts = Parts::of(object)?;
            set(&mut parts.header, &[*label], Some(value.value(hand)))?;
            parts.sign(key, aad)?
        }
        Tamper::DropHeader(label) => {
            let mut parts = Parts::of(object)?;
            set(&mut parts.header, &[*label], None)?;
            parts.sign(key, aad)?
        }
        Tamper::SetClaim { path, value } => {
            let mut parts = Parts::of(object)?;
            set(&mut parts.payload, path, Some(value.value(hand)))?;
            parts.sign(key, aad)?
        }
        Tamper::DropClaim(path) => {
            let mut parts = Parts::of(object)?;
            set(&mut parts.payload, path, None)?;
            parts.sign(key, aad)?
        }
        Tamper::SignByStranger => Parts::of(object)?.sign(None, aad)?,
        Tamper::WithoutAad => Parts::of(object)?.sign(key, b"")?,
    })
}

/// Header and claims of an object.
struct Parts {
    header: Value,
    payload: Value,
}

impl Parts {
    fn of(object: &[u8]) -> Result<Self, String> {
        let [header, _, payload, _] = sign1(object)?;
        let open = |part: &Value| {
            let bytes = part.as_bytes().ok_or("a part is not a byte string")?;
            ciborium::from_reader(bytes.as_slice()).map_err(|_| "a part is not CBOR".to_owned())
        };
        Ok(Self { header: open(&header)?, payload: open(&payload)? })
    }

    /// Signs them; without a key a stranger does.
    fn sign(&self, key: Option<&SigningKey>, aad: &[u8]) -> Result<Vec<u8>, String> {
        let (header, payload) = (encode(&self.header)?, encode(&self.payload)?);
        let stranger = SigningKey::generate(Suite::Ed25519);
        Ok(forge::sign1(header, payload, key.unwrap_or(&stranger), aad))
    }
}

fn sign1(object: &[u8]) -> Result<[Value; 4], String> {
    let value: Value = ciborium::from_reader(object).map_err(|_| "not CBOR")?;
    let parts = value.into_array().map_err(|_| "not an array")?;
    parts.try_into().map_err(|_| "not an array of four".to_owned())
}

/// Sets an entry of nested maps, or takes it away.
fn set(map: &mut Value, path: &[i64], value: Option<Value>) -> Result<(), String> {
    let entries = map.as_map_mut().ok_or("not a map")?;
    let (first, rest) = path.split_first().ok_or("an empty path")?;
    let found = entries.iter().position(|(key, _)| *key == Value::from(*first));
    match (found, rest, value) {
        (Some(at), [], Some(value)) => entries[at].1 = value,
        (None, [], Some(value)) => entries.push(((*first).into(), value)),
        (Some(at), [], None) => _ = entries.remove(at),
        (Some(at), rest, value) => return set(&mut entries[at].1, rest, value),
        (None, ..) => return Err(format!("it has no entry {first}")),
    }
    Ok(())
}

/// Flips a bit of a claim that is a byte string, where it stands.
fn flip_claim(object: &[u8], claim: i64) -> Result<Vec<u8>, String> {
    let parts = Parts::of(object)?;
    let claims = parts.payload.into_map().map_err(|_| "not a map")?;
    let (_, bytes) = claims.iter().find(|(key, _)| *key == Value::from(claim)).ok_or("it has no such claim")?;
    let bytes = bytes.as_bytes().ok_or("not a byte string")?;
    let at = object.windows(bytes.len()).position(|window| window == bytes).ok_or("it is nowhere")?;
    let mut object = object.to_vec();
    object[at] ^= 1;
    Ok(object)
}

fn encode(value: &Value) -> Result<Vec<u8>, String> {
    cbor::encode(value).ok_or_else(|| "it has no deterministic encoding".into())
}

#[cfg(test)]
mod tests {
    use proto::{
        cose,
        refusal::{Object, Reason},
    };

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn changed(changes: &[Tamper]) -> Result<(), Reason> {
        let key = SigningKey::generate(Suite::Ed25519);
        let payload = cbor::MapBuilder::new().put(7, 5).put(8, Value::Bytes(vec![9; 16])).encode();
        let object = cose::sign(Object::Token, &key, key.verifying_key().kid(), payload, b"aad");
        let hand = Hand { key: Some(&key), aad: b"aad", now: NOW, other: Member::PLATFORM };
        let object = tamper(&object, changes, &hand).unwrap();
        let read = cose::Unverified::parse(Object::Token, &object);
        read.and_then(|read| read.verify(key.verifying_key(), b"aad")).map(drop).map_err(|refusal| refusal.reason())
    }

    #[test]
    fn a_change_is_what_it_says() {
        assert_eq!(changed(&[]), Ok(()));
        assert_eq!(changed(&[Tamper::SetClaim { path: vec![9], value: Plain::Int(1) }]), Ok(()), "signed anew");
        for (change, reason) in [
            (Tamper::FlipSignature, Reason::SignatureInvalid),
            (Tamper::FlipClaim(8), Reason::SignatureInvalid),
            (Tamper::SignByStranger, Reason::SignatureInvalid),
            (Tamper::WithoutAad, Reason::SignatureInvalid),
            (Tamper::CutShort, Reason::NotCbor),
            (Tamper::NotCbor, Reason::NotCbor),
            (Tamper::TrailingByte, Reason::TrailingBytes),
            (Tamper::LongHead, Reason::NotDeterministic),
            (Tamper::Tagged, Reason::NotDeterministic),
            (Tamper::Oversize, Reason::ObjectTooLarge),
            (Tamper::Number, Reason::ObjectMalformed),
            (Tamper::ThreeParts, Reason::ObjectMalformed),
            (Tamper::Unprotected, Reason::ObjectMalformed),
            (Tamper::DropHeader(4), Reason::ObjectMalformed),
            (Tamper::SetHeader { key: 1, value: Plain::Int(-7) }, Reason::AlgorithmNotAllowed),
            (Tamper::SetHeader { key: 16, value: Plain::Int(65003) }, Reason::TypeMismatch),
            (Tamper::SetHeader { key: 2, value: Plain::List(vec![Plain::Int(99)]) }, Reason::CriticalHeaderUnknown),
        ] {
            assert_eq!(changed(std::slice::from_ref(&change)), Err(reason), "{change:?}");
        }
    }

    #[test]
    fn only_what_is_to_be_believed_needs_the_key() {
        assert!(!needs_key(&[Tamper::FlipSignature, Tamper::Tagged]));
        assert!(needs_key(&[Tamper::DropClaim(vec![8])]));
        assert!(!needs_key(&[Tamper::DropClaim(vec![8]), Tamper::SignByStranger]));
    }
}
