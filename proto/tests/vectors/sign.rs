//! Signing by hand: any header, any payload, any signature, so that an object is wrong in one respect alone.
//!
//! ECDSA is randomised. A signature that is committed and still verifies over the same bytes is kept, so that making the
//! files again changes only what the code changed.

use std::{cell::RefCell, collections::HashMap};

use ciborium::Value;
use proto::{
    cbor::{self, MapBuilder},
    cose::typ,
    refusal::Object,
    suite::{Kid, SigningKey, Suite, sha256},
};

use crate::{
    json::{File, Hex, Parts, Signature, Vector},
    keys,
};

/// Header parameters (RFC 9052 §3.1, RFC 9596).
pub(crate) const ALG: i64 = 1;
pub(crate) const CRIT: i64 = 2;
pub(crate) const KID: i64 = 4;
pub(crate) const TYP: i64 = 16;

/// Has the keys and the committed signatures.
pub(crate) struct Signer {
    keys: HashMap<&'static str, SigningKey>,
    /// By what was signed, with whatever key.
    kept: RefCell<HashMap<Vec<u8>, Vec<Vec<u8>>>>,
}

/// A COSE_Sign1 taken apart.
#[derive(Clone)]
pub(crate) struct Sign1 {
    pub(crate) protected: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) external_aad: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl Signer {
    /// With the signatures of the committed files.
    pub(crate) fn new<'a>(committed: impl IntoIterator<Item = &'a File>) -> Self {
        let mut kept: HashMap<_, Vec<_>> = HashMap::new();
        for (message, signature) in committed.into_iter().flat_map(|file| &file.vectors).flat_map(signatures) {
            kept.entry(message).or_default().push(signature);
        }
        let keys = keys::names().map(|name| (name, keys::signing_key(name))).collect();
        Self { keys, kept: RefCell::new(kept) }
    }

    /// A key by its name.
    pub(crate) fn key(&self, name: &str) -> &SigningKey {
        &self.keys[name]
    }

    /// The signature over `message`: the one there is, or the one that was kept, or a fresh one.
    pub(crate) fn signature(&self, name: &str, message: &[u8]) -> Vec<u8> {
        let (key, mut kept) = (self.key(name), self.kept.borrow_mut());
        let kept = kept.entry(message.to_vec()).or_default();
        if let Some(kept) = kept.iter().find(|kept| key.verifying_key().verify(message, kept).is_ok()) {
            return kept.clone();
        }
        let signature = key.sign(message);
        kept.push(signature.clone());
        signature
    }

    /// Signs any header and payload with any key.
    pub(crate) fn sign1(&self, name: &str, protected: Vec<u8>, payload: Vec<u8>, external_aad: &[u8]) -> Sign1 {
        let signature = self.signature(name, &sig_structure(&protected, external_aad, &payload));
        Sign1 { protected, payload, external_aad: external_aad.to_vec(), signature }
    }

    /// What the code itself made, with the signature that is kept.
    pub(crate) fn settle(&self, name: &str, object: &[u8], external_aad: &[u8]) -> Sign1 {
        let made = Sign1::split(object, external_aad).expect("the code makes COSE_Sign1");
        let message = made.sig_structure();
        self.key(name).verifying_key().verify(&message, &made.signature).expect("the code signs what it says it signs");
        let settled = self.sign1(name, made.protected, made.payload, external_aad);
        assert!(self.key(name).verifying_key().suite() == Suite::Esp256 || settled.signature == made.signature);
        settled
    }
}

impl Sign1 {
    /// Takes an object apart, if it is one.
    fn split(object: &[u8], external_aad: &[u8]) -> Option<Self> {
        let parts = cbor::decode(Object::Token, object, 1024).ok()?.into_array().ok()?;
        let [protected, _, payload, signature] = <[Value; 4]>::try_from(parts).ok()?.map(|part| part.into_bytes().ok());
        Some(Self {
            protected: protected?,
            payload: payload?,
            external_aad: external_aad.to_vec(),
            signature: signature?,
        })
    }

    /// What was signed.
    pub(crate) fn sig_structure(&self) -> Vec<u8> {
        sig_structure(&self.protected, &self.external_aad, &self.payload)
    }

    /// The object.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { protected, payload, signature, .. } = self;
        array(vec![bytes(protected), Value::Map(vec![]), bytes(payload), bytes(signature)])
    }

    /// As the files have it.
    pub(crate) fn parts(&self) -> Parts {
        let signature = Signature {
            protected: None,
            sig_structure: Hex(self.sig_structure()),
            signature: Hex(self.signature.clone()),
        };
        Parts {
            protected: Hex(self.protected.clone()),
            payload: Hex(self.payload.clone()),
            external_aad: Hex(self.external_aad.clone()),
            signatures: vec![signature],
        }
    }
}

/// What was signed, and the signature, of all that is in a vector, whether it verifies or not.
fn signatures(vector: &Vector) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (object, context) = (vector.object_bytes(), &vector.context);
    let split =
        |object: &[u8], aad: &[u8]| Sign1::split(object, aad).map(|made| (made.sig_structure(), made.signature));
    let of_token = context.token.as_ref().and_then(|token| split(&object, &sha256(&token.0)));
    let proof = context.proof.as_ref().and_then(|proof| split(&proof.0, &sha256(&object)));
    let parts = vector.parts.iter().flat_map(|parts| &parts.signatures);
    let parts = parts.map(|by| (by.sig_structure.0.clone(), by.signature.0.clone()));
    parts.chain(split(&object, b"")).chain(of_token).chain(proof).collect()
}

/// RFC 9052 §4.4, for one signature.
pub(crate) fn sig_structure(protected: &[u8], external_aad: &[u8], payload: &[u8]) -> Vec<u8> {
    array(vec!["Signature1".into(), bytes(protected), bytes(external_aad), bytes(payload)])
}

/// The header of a kind of object.
pub(crate) fn header(object: Object, suite: Suite, kid: Kid) -> MapBuilder {
    MapBuilder::new().put(ALG, suite.number()).put(KID, kid.0.to_vec()).put(TYP, typ(object))
}

/// A byte string.
pub(crate) fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

/// An encoded array.
pub(crate) fn array(items: Vec<Value>) -> Vec<u8> {
    encoded(&Value::Array(items))
}

/// The deterministic encoding.
pub(crate) fn encoded(value: &Value) -> Vec<u8> {
    cbor::encode(value).expect("values without floats and tags encode")
}
