//! The envelope of federation-wide documents: a COSE_Sign (RFC 9052 §4.1) by N of M root keys over a versioned payload.
//!
//! The trust list and the policy travel in it. A version only ever rises; a life is at most [`MAX_LIFE`]; what has expired
//! is worth nothing (fail closed).

use std::{collections::BTreeSet, time::Duration};

use ciborium::Value;
use coset::{CborSerializable, CoseSign, CoseSignature};

use crate::{
    cbor::{self, Fields, MapBuilder},
    cose::{SignedHeader, protected, typ},
    refusal::{Object, Reason, Refusal},
    suite::{Kid, SigningKey, Suite, VerifyingKey},
    time::{CLOCK_LEEWAY, UnixTime},
};

/// The largest document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 512 * 1024;
/// The longest a document may live.
pub const MAX_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// From when before its end a document's age is an alarm.
pub const EXPIRY_ALARM: Duration = Duration::from_secs(48 * 3600);
/// How many root keys there may be.
pub const MAX_ROOTS: usize = 16;

const TYP: i64 = 16;
const VERSION: i64 = 1;
const CONTENT: i64 = 2;
const EXP: i64 = 4;
const IAT: i64 = 6;

/// The root keys that a document must be signed by, and how many of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    threshold: usize,
    keys: Vec<VerifyingKey>,
}

impl Roots {
    /// `threshold` of `keys`. `None` unless 1 ≤ threshold ≤ keys ≤ [`MAX_ROOTS`] and the keys are distinct Ed25519 keys.
    pub fn new(threshold: usize, keys: Vec<VerifyingKey>) -> Option<Self> {
        let distinct: BTreeSet<_> = keys.iter().map(VerifyingKey::encoded).collect();
        let valid = (1..=keys.len()).contains(&threshold)
            && keys.len() <= MAX_ROOTS
            && distinct.len() == keys.len()
            && keys.iter().all(|key| key.suite() == Suite::Ed25519);
        valid.then_some(Self { threshold, keys })
    }

    /// How many must sign.
    pub const fn threshold(&self) -> usize {
        self.threshold
    }

    /// All of them.
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }
}

/// A document's version and life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edition {
    /// Rises with every edition.
    pub version: u64,
    /// When it was made.
    pub issued_at: UnixTime,
    /// When it ends.
    pub expires_at: UnixTime,
}

impl Edition {
    /// Checks that it holds now. Expiry has no leeway: whoever serves on needs a newer edition in time.
    pub fn check_time(&self, object: Object, now: UnixTime) -> Result<(), Refusal> {
        if self.issued_at > now.plus(CLOCK_LEEWAY) {
            return Err(Refusal::of(object, Reason::NotYetValid).with("seconds", self.issued_at.since(now)));
        }
        if now >= self.expires_at {
            return Err(Refusal::of(object, Reason::Expired).with("seconds", now.since(self.expires_at)));
        }
        Ok(())
    }

    /// Checks that a document of this edition may follow the one held, whose version and bytes are given: a version only
    /// ever rises, and the same version is the same document, byte for byte.
    pub fn check_successor(&self, object: Object, bytes: &[u8], version: u64, held: &[u8]) -> Result<(), Refusal> {
        if self.version < version || (self.version == version && bytes != held) {
            return Err(Refusal::of(object, Reason::VersionRolledBack)
                .with("version", self.version)
                .with("held", version));
        }
        Ok(())
    }
}

/// Signs a document with root keys.
///
/// # Panics
/// If the content has floats or duplicate keys: a defect of the caller's code.
pub fn seal(object: Object, edition: Edition, content: Value, roots: &[&SigningKey]) -> Vec<u8> {
    let payload = MapBuilder::new()
        .put(VERSION, edition.version)
        .put(CONTENT, content)
        .put(EXP, edition.expires_at.as_secs())
        .put(IAT, edition.issued_at.as_secs())
        .encode();
    let body_header = MapBuilder::new().put(TYP, typ(object)).encode();
    let mut document = CoseSign { protected: protected(body_header), payload: Some(payload), ..CoseSign::default() };
    for root in roots {
        sign(object, &mut document, root);
    }
    document.to_vec().expect("a Sign of byte strings encodes")
}

/// Adds one more root's signature to a document that others have signed already, or nobody yet: roots may be kept apart
/// and offline, and what each adds changes nothing that another signed.
///
/// # Errors
/// If it is not a document, has as many signatures as there can be, or this root has signed it before.
pub fn cosign(object: Object, bytes: &[u8], root: &SigningKey) -> Result<Vec<u8>, Refusal> {
    let mut document = parse(object, bytes)?;
    read_payload(object, &document)?;
    if signers(object, &document)?.contains(&root.verifying_key().kid()) {
        return Err(Refusal::malformed(object, "this root has signed it already"));
    }
    if document.signatures.len() == MAX_ROOTS {
        return Err(Refusal::malformed(object, "more signatures than there can be roots"));
    }
    sign(object, &mut document, root);
    document.to_vec().map_err(|_| Refusal::malformed(object, "it does not encode"))
}

/// The kids that a document is said to be signed by, in its order; nothing is verified.
pub fn read_signers(object: Object, bytes: &[u8]) -> Result<Vec<Kid>, Refusal> {
    signers(object, &parse(object, bytes)?)
}

fn signers(object: Object, document: &CoseSign) -> Result<Vec<Kid>, Refusal> {
    let headers = document.signatures.iter().map(|signature| {
        let header = signature.protected.original_data.as_deref().unwrap_or_default();
        SignedHeader::decode(object, header).map(|header| header.kid)
    });
    headers.collect()
}

fn sign(object: Object, document: &mut CoseSign, root: &SigningKey) {
    let header = SignedHeader { suite: root.verifying_key().suite(), kid: root.verifying_key().kid() };
    let mut signature = CoseSignature { protected: protected(header.encode(object)), ..CoseSignature::default() };
    signature.signature = root.sign(&document.tbs_data(b"", &signature));
    document.signatures.push(signature);
}

/// Opens a document: layout, then N of M signatures, then its claimed life. Whether it holds *now* is [`Edition`]'s to check;
/// whether it is newer than what is held, the holder's.
pub fn open(object: Object, bytes: &[u8], roots: &Roots) -> Result<(Edition, Value), Refusal> {
    let document = parse(object, bytes)?;
    check_threshold(object, &document, roots)?;
    read_payload(object, &document)
}

/// Reads a document whoever signed it: to learn which roots it names, before it is opened by them.
pub(crate) fn open_unsigned(object: Object, bytes: &[u8]) -> Result<(Edition, Value), Refusal> {
    read_payload(object, &parse(object, bytes)?)
}

/// The edition a document claims, whoever signed it: to make the next one.
pub fn read_edition(object: Object, bytes: &[u8]) -> Result<Edition, Refusal> {
    Ok(open_unsigned(object, bytes)?.0)
}

fn read_payload(object: Object, document: &CoseSign) -> Result<(Edition, Value), Refusal> {
    let payload = document.payload.as_deref().unwrap_or_default();
    let mut fields = Fields::open(object, cbor::decode(object, payload, MAX_DOCUMENT_BYTES)?)?;
    let version = fields.uint(VERSION)?;
    let content = fields.required(CONTENT)?;
    let expires_at = fields.time(EXP)?;
    let issued_at = fields.time(IAT)?;
    fields.finish()?;
    if expires_at <= issued_at {
        return Err(Refusal::malformed(object, "it expires before it is issued"));
    }
    if expires_at.since(issued_at) > MAX_LIFE.as_secs() {
        return Err(Refusal::of(object, Reason::LifeTooLong).with("max_seconds", MAX_LIFE.as_secs()));
    }
    Ok((Edition { version, issued_at, expires_at }, content))
}

/// Reads `[body header, {}, payload, [[header, {}, signature], …]]`.
fn parse(object: Object, bytes: &[u8]) -> Result<CoseSign, Refusal> {
    let malformed = |what| Refusal::malformed(object, what);
    let value = cbor::decode(object, bytes, MAX_DOCUMENT_BYTES)?;
    let parts = value.into_array().map_err(|_| malformed("not an array"))?;
    let [header, unprotected, payload, signatures] =
        <[Value; 4]>::try_from(parts).map_err(|_| malformed("not an array of four"))?;
    let (Value::Bytes(header), Value::Bytes(payload), Value::Array(signatures)) = (header, payload, signatures) else {
        return Err(malformed("not header, payload and signatures"));
    };
    if unprotected != Value::Map(Vec::new()) {
        return Err(malformed("the unprotected header is not empty"));
    }
    if header != MapBuilder::new().put(TYP, typ(object)).encode() {
        return Err(Refusal::of(object, Reason::TypeMismatch).with("expected", typ(object)));
    }
    if signatures.len() > MAX_ROOTS {
        return Err(malformed("more signatures than there can be roots"));
    }
    let signatures = signatures.into_iter().map(|signature| parse_signature(object, signature));
    Ok(CoseSign {
        protected: protected(header),
        payload: Some(payload),
        signatures: signatures.collect::<Result<_, _>>()?,
        ..CoseSign::default()
    })
}

fn parse_signature(object: Object, value: Value) -> Result<CoseSignature, Refusal> {
    let parts = value.into_array().unwrap_or_default();
    match <[Value; 3]>::try_from(parts) {
        Ok([Value::Bytes(header), Value::Map(unprotected), Value::Bytes(signature)]) if unprotected.is_empty() => {
            SignedHeader::decode(object, &header)?;
            Ok(CoseSignature { protected: protected(header), signature, ..CoseSignature::default() })
        }
        _ => Err(Refusal::malformed(object, "a signature is not [header, {}, bytes]")),
    }
}

/// Counts distinct root keys whose signature verifies. Signatures by other keys are passed over: a list that retires a
/// root is signed by old and new ones.
fn check_threshold(object: Object, document: &CoseSign, roots: &Roots) -> Result<(), Refusal> {
    let mut signed: BTreeSet<Kid> = BTreeSet::new();
    for signature in &document.signatures {
        let header = signature.protected.original_data.as_deref().unwrap_or_default();
        let header = SignedHeader::decode(object, header)?;
        let Some(root) = roots.keys.iter().find(|root| root.kid() == header.kid) else { continue };
        let message = document.tbs_data(b"", signature);
        if root.suite() != header.suite || root.verify(&message, &signature.signature).is_err() {
            return Err(Refusal::of(object, Reason::SignatureInvalid));
        }
        signed.insert(header.kid);
    }
    if signed.len() < roots.threshold {
        return Err(Refusal::of(object, Reason::ThresholdNotMet)
            .with("signatures", signed.len())
            .with("threshold", roots.threshold));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn keys<const N: usize>() -> [SigningKey; N] {
        std::array::from_fn(|_| SigningKey::generate(Suite::Ed25519))
    }

    fn roots(threshold: usize, keys: &[SigningKey]) -> Roots {
        Roots::new(threshold, keys.iter().map(|key| key.verifying_key().clone()).collect()).unwrap()
    }

    fn edition() -> Edition {
        Edition { version: 3, issued_at: NOW, expires_at: NOW.plus(MAX_LIFE) }
    }

    fn sealed(keys: &[&SigningKey]) -> Vec<u8> {
        seal(Object::Policy, edition(), Value::from("content"), keys)
    }

    fn reason(bytes: &[u8], roots: &Roots) -> Reason {
        open(Object::Policy, bytes, roots).unwrap_err().reason()
    }

    #[test]
    fn n_of_m_roots_make_a_document() {
        let keys = keys::<3>();
        let roots = roots(2, &keys);
        let expected = (edition(), Value::from("content"));
        assert_eq!(open(Object::Policy, &sealed(&[&keys[0], &keys[2]]), &roots), Ok(expected));
        assert_eq!(reason(&sealed(&[&keys[1]]), &roots), Reason::ThresholdNotMet);
        assert_eq!(reason(&sealed(&[&keys[1], &keys[1]]), &roots), Reason::ThresholdNotMet);
        let [stranger] = self::keys();
        assert_eq!(reason(&sealed(&[&keys[1], &stranger]), &roots), Reason::ThresholdNotMet);
        assert!(open(Object::Policy, &sealed(&[&keys[0], &stranger, &keys[1]]), &roots).is_ok());
        let wrong_type = open(Object::TrustList, &sealed(&[&keys[0], &keys[1]]), &roots);
        assert_eq!(wrong_type.unwrap_err().reason(), Reason::TypeMismatch);
    }

    #[test]
    fn roots_sign_one_after_the_other() {
        let keys = keys::<3>();
        let roots = roots(2, &keys);
        let draft = sealed(&[]);
        let once = cosign(Object::Policy, &draft, &keys[2]).unwrap();
        assert_eq!(reason(&once, &roots), Reason::ThresholdNotMet);
        let twice = cosign(Object::Policy, &once, &keys[0]).unwrap();
        assert_eq!(twice, sealed(&[&keys[2], &keys[0]]), "the same as signed at once");
        assert!(open(Object::Policy, &twice, &roots).is_ok());
        let kids = [keys[2].verifying_key().kid(), keys[0].verifying_key().kid()];
        assert_eq!(read_signers(Object::Policy, &twice).unwrap(), kids);
        assert!(cosign(Object::Policy, &once, &keys[2]).is_err(), "the same root twice");
        assert_eq!(cosign(Object::TrustList, &once, &keys[0]).unwrap_err().reason(), Reason::TypeMismatch);
        assert!(cosign(Object::Policy, &once[1..], &keys[0]).is_err());
        let many =
            (0..MAX_ROOTS).fold(draft, |bytes, _| cosign(Object::Policy, &bytes, &self::keys::<1>()[0]).unwrap());
        assert!(cosign(Object::Policy, &many, &keys[0]).is_err());
    }

    #[test]
    fn no_flipped_bit_survives() {
        let keys = keys::<1>();
        let roots = roots(1, &keys);
        let bytes = sealed(&[&keys[0]]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(Object::Policy, &flipped, &roots).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lives_are_bounded() {
        let keys = keys::<1>();
        let roots = roots(1, &keys);
        let long = Edition { expires_at: NOW.plus(MAX_LIFE + Duration::from_secs(1)), ..edition() };
        let bytes = seal(Object::Policy, long, Value::Null, &[&keys[0]]);
        assert_eq!(reason(&bytes, &roots), Reason::LifeTooLong);
        let at = |now| edition().check_time(Object::Policy, now).map_err(|refusal| refusal.reason());
        assert_eq!(at(NOW), Ok(()));
        assert_eq!(at(NOW.plus(MAX_LIFE)), Err(Reason::Expired));
        assert_eq!(at(NOW.minus(Duration::from_secs(31))), Err(Reason::NotYetValid));
        let never = Edition { expires_at: NOW, ..edition() };
        assert_eq!(reason(&seal(Object::Policy, never, Value::Null, &[&keys[0]]), &roots), Reason::ObjectMalformed);
    }

    #[test]
    fn roots_are_distinct_and_enough() {
        let keys = keys::<2>();
        let public = |i: usize| keys[i].verifying_key().clone();
        assert!(Roots::new(0, vec![public(0)]).is_none());
        assert!(Roots::new(3, vec![public(0), public(1)]).is_none());
        assert!(Roots::new(1, vec![public(0), public(0)]).is_none());
        assert!(Roots::new(1, vec![SigningKey::generate(Suite::Esp256).verifying_key().clone()]).is_none());
    }
}
