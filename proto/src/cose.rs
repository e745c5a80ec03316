//! One signed object: an untagged COSE_Sign1 (RFC 9052 §4.2) in the strict profile.
//!
//! The protected header holds exactly `alg`, `kid` and `typ` (RFC 9596); the unprotected one is empty. The header's
//! algorithm is compared with the key's and never chooses it.

use ciborium::Value;
use coset::{CborSerializable, CoseSign1, Header, ProtectedHeader};

use crate::{
    cbor::{self, Fields, MapBuilder},
    refusal::{Object, Reason, Refusal},
    suite::{Kid, SigningKey, Suite, VerifyingKey},
};

/// The largest object a QR or a lookup carries, in bytes.
pub const MAX_OBJECT_BYTES: usize = 1024;

const ALG: i64 = 1;
const CRIT: i64 = 2;
const KID: i64 = 4;
const TYP: i64 = 16;

/// The `typ` of a kind of object: private-use numbers.
pub const fn typ(object: Object) -> u64 {
    match object {
        Object::Token => 65001,
        Object::Proof => 65002,
        Object::Statement => 65003,
        Object::TrustList => 65004,
        Object::Policy => 65005,
        Object::LogCommit => 65006,
        Object::ConsentRequest => 65007,
        Object::DeliveryReceipt => 65008,
        // Not COSE: their parts are signed, or they are leaves of what is, or a signed note.
        Object::AccessReceipt | Object::AccessRecord | Object::Checkpoint | Object::Presentation => 0,
    }
}

/// A protected header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedHeader {
    /// The algorithm it names.
    pub suite: Suite,
    /// The key it names.
    pub kid: Kid,
}

impl SignedHeader {
    /// Encodes the header of a kind of object.
    pub fn encode(self, object: Object) -> Vec<u8> {
        MapBuilder::new().put(ALG, self.suite.number()).put(KID, self.kid.0.to_vec()).put(TYP, typ(object)).encode()
    }

    /// Reads a header, refusing in this order: critical headers, another type, algorithms we do not use, all else.
    pub fn decode(object: Object, bytes: &[u8]) -> Result<Self, Refusal> {
        let value = cbor::decode(object, bytes, MAX_OBJECT_BYTES)?;
        let mut fields = Fields::open(object, value)?;
        if fields.optional(CRIT).is_some() {
            return Err(Refusal::of(object, Reason::CriticalHeaderUnknown));
        }
        if fields.uint(TYP)? != typ(object) {
            return Err(Refusal::of(object, Reason::TypeMismatch).with("expected", typ(object)));
        }
        let alg = fields.required(ALG)?;
        let alg = alg.as_integer().and_then(|alg| i64::try_from(alg).ok());
        let alg = alg.ok_or_else(|| fields.wrong(ALG, "not an integer"))?;
        let suite =
            Suite::from_number(alg).ok_or_else(|| Refusal::of(object, Reason::AlgorithmNotAllowed).with("alg", alg))?;
        let kid = Kid(fields.bytes(KID)?);
        fields.finish()?;
        Ok(Self { suite, kid })
    }
}

/// Signs a payload; `aad` is authenticated but not carried.
pub fn sign(object: Object, key: &SigningKey, kid: Kid, payload: Vec<u8>, aad: &[u8]) -> Vec<u8> {
    let header = SignedHeader { suite: key.verifying_key().suite(), kid }.encode(object);
    let mut sign1 = CoseSign1 { protected: protected(header), payload: Some(payload), ..CoseSign1::default() };
    sign1.signature = key.sign(&sign1.tbs_data(aad));
    sign1.to_vec().expect("a Sign1 of byte strings encodes")
}

/// An object whose layout is right and whose signature nobody has checked yet.
#[derive(Clone, Debug)]
pub struct Unverified {
    object: Object,
    header: SignedHeader,
    sign1: CoseSign1,
}

impl Unverified {
    /// Reads an object of at most [`MAX_OBJECT_BYTES`].
    pub fn parse(object: Object, bytes: &[u8]) -> Result<Self, Refusal> {
        let value = cbor::decode(object, bytes, MAX_OBJECT_BYTES)?;
        let parts = match value {
            Value::Array(parts) if parts.len() == 4 => parts,
            _ => return Err(Refusal::malformed(object, "not an array of four")),
        };
        let [header, unprotected, payload, signature] =
            <[Value; 4]>::try_from(parts).map_err(|_| Refusal::malformed(object, "not an array of four"))?;
        let (Value::Bytes(header), Value::Bytes(payload), Value::Bytes(signature)) = (header, payload, signature)
        else {
            return Err(Refusal::malformed(object, "header, payload and signature are byte strings"));
        };
        if unprotected != Value::Map(Vec::new()) {
            return Err(Refusal::malformed(object, "the unprotected header is not empty"));
        }
        let parsed = SignedHeader::decode(object, &header)?;
        let sign1 =
            CoseSign1 { protected: protected(header), payload: Some(payload), signature, ..CoseSign1::default() };
        Ok(Self { object, header: parsed, sign1 })
    }

    /// The key it names.
    pub const fn kid(&self) -> Kid {
        self.header.kid
    }

    /// The payload, decoded under the strict profile. Unverified still.
    pub fn payload(&self) -> Result<Value, Refusal> {
        cbor::decode(self.object, self.payload_bytes(), MAX_OBJECT_BYTES)
    }

    /// The payload as it came. Unverified still.
    pub fn payload_bytes(&self) -> &[u8] {
        self.sign1.payload.as_deref().unwrap_or_default()
    }

    /// Checks algorithm and signature.
    pub fn verify(&self, key: &VerifyingKey, aad: &[u8]) -> Result<(), Refusal> {
        if key.suite() != self.header.suite {
            return Err(Refusal::of(self.object, Reason::AlgorithmMismatch));
        }
        key.verify(&self.sign1.tbs_data(aad), &self.sign1.signature)
            .map_err(|_| Refusal::of(self.object, Reason::SignatureInvalid))
    }
}

/// A protected header that is kept as the bytes it came in.
pub(crate) fn protected(bytes: Vec<u8>) -> ProtectedHeader {
    ProtectedHeader { original_data: Some(bytes), header: Header::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::generate(Suite::Ed25519)
    }

    fn refused(bytes: &[u8]) -> Reason {
        Unverified::parse(Object::Token, bytes).unwrap_err().reason()
    }

    /// An object with the header entries given, signed by nobody.
    fn with_header(header: MapBuilder) -> Vec<u8> {
        let parts =
            [Value::Bytes(header.encode()), Value::Map(vec![]), Value::Bytes(vec![0xa0]), Value::Bytes(vec![0; 64])];
        cbor::encode(&Value::Array(parts.to_vec())).unwrap()
    }

    fn header() -> MapBuilder {
        MapBuilder::new().put(KID, vec![0; 8]).put(TYP, 65001)
    }

    #[test]
    fn verifies_what_it_signed_and_nothing_else() {
        let key = key();
        let bytes = sign(Object::Token, &key, key.verifying_key().kid(), vec![0xa0], b"aad");
        let object = Unverified::parse(Object::Token, &bytes).unwrap();
        assert_eq!(object.kid(), key.verifying_key().kid());
        object.verify(key.verifying_key(), b"aad").unwrap();
        let reason = |result: Result<(), Refusal>| result.unwrap_err().reason();
        assert_eq!(reason(object.verify(key.verifying_key(), b"other")), Reason::SignatureInvalid);
        assert_eq!(reason(object.verify(self::key().verifying_key(), b"aad")), Reason::SignatureInvalid);
        let device = SigningKey::generate(Suite::Esp256);
        assert_eq!(reason(object.verify(device.verifying_key(), b"aad")), Reason::AlgorithmMismatch);
        assert_eq!(Unverified::parse(Object::Proof, &bytes).unwrap_err().reason(), Reason::TypeMismatch);
    }

    #[test]
    fn no_flipped_bit_survives() {
        let key = key();
        let bytes = sign(Object::Token, &key, key.verifying_key().kid(), vec![0xa1, 1, 2], b"");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let verified = Unverified::parse(Object::Token, &flipped).and_then(|object| {
                // A flipped kid is caught where the key is looked up.
                if object.kid() == key.verifying_key().kid() {
                    object.verify(key.verifying_key(), b"")
                } else {
                    Err(Refusal::new(Reason::KeyUnknown))
                }
            });
            assert!(verified.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn headers_are_exactly_the_documented_ones() {
        assert_eq!(refused(&with_header(header().put(ALG, -7))), Reason::AlgorithmNotAllowed);
        assert_eq!(
            refused(&with_header(header().put(ALG, -19).put(CRIT, vec![Value::from(99)]))),
            Reason::CriticalHeaderUnknown
        );
        assert_eq!(refused(&with_header(header().put(ALG, -19).put(99, 1))), Reason::ObjectMalformed);
        assert_eq!(refused(&with_header(header())), Reason::ObjectMalformed);
        assert_eq!(refused(&with_header(MapBuilder::new().put(ALG, -19).put(TYP, 65001))), Reason::ObjectMalformed);
        assert_eq!(
            refused(&with_header(MapBuilder::new().put(ALG, -19).put(KID, vec![0; 8]))),
            Reason::ObjectMalformed
        );
        assert_eq!(refused(&[0x84]), Reason::NotCbor);
        assert_eq!(refused(&[0x80]), Reason::ObjectMalformed);
    }

    #[test]
    fn nothing_may_stand_outside_the_signature() {
        let parts = |unprotected| {
            let header = header().put(ALG, -19).encode();
            let parts = [Value::Bytes(header), unprotected, Value::Bytes(vec![0xa0]), Value::Bytes(vec![0; 64])];
            cbor::encode(&Value::Array(parts.to_vec())).unwrap()
        };
        assert!(Unverified::parse(Object::Token, &parts(Value::Map(vec![]))).is_ok());
        assert_eq!(refused(&parts(MapBuilder::new().put(ALG, -19).build())), Reason::ObjectMalformed);
    }

    #[test]
    fn size_is_bounded_at_its_edge() {
        let key = key();
        let sized = |n| sign(Object::Token, &key, key.verifying_key().kid(), vec![0; n], b"");
        let overhead = sized(900).len() - 900;
        assert!(Unverified::parse(Object::Token, &sized(MAX_OBJECT_BYTES - overhead)).is_ok());
        assert_eq!(refused(&sized(MAX_OBJECT_BYTES - overhead + 1)), Reason::ObjectTooLarge);
    }
}
