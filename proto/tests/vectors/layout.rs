//! What can be wrong with any COSE_Sign1, whatever its claims: in `core` for every kind of object, in `rest` for one.
//!
//! Everything but the named fault is right: the signature verifies over what is there.

use ciborium::Value;
use proto::{cbor, refusal::Reason as R};

use crate::{
    bend,
    set::Set,
    sign::{ALG, CRIT, KID, Sign1, Signer, TYP, array, bytes},
};

/// An object to break, and the key to sign it again with.
pub(crate) struct Sample<'a> {
    pub(crate) signed_by: &'a str,
    pub(crate) good: Sign1,
}

impl Sample<'_> {
    /// The kind of object it is.
    fn typ(&self) -> u64 {
        let header = bend::decoded(&self.good.protected);
        let typ = header.as_map().and_then(|map| map.iter().find(|(label, _)| *label == TYP.into()));
        cbor::uint(&typ.expect("it has a typ").1).expect("a number")
    }

    /// With another header, signed again.
    fn header(&self, signer: &Signer, protected: Vec<u8>) -> Vec<u8> {
        signer.sign1(self.signed_by, protected, self.good.payload.clone(), &self.good.external_aad).bytes()
    }

    /// With one header parameter replaced or removed, signed again.
    fn parameter(&self, signer: &Signer, label: i64, to: Option<Value>) -> Vec<u8> {
        self.header(signer, bend::with(&self.good.protected, &[label], to))
    }

    /// With another payload, signed again.
    pub(crate) fn payload(&self, signer: &Signer, payload: Vec<u8>) -> Vec<u8> {
        signer.sign1(self.signed_by, self.good.protected.clone(), payload, &self.good.external_aad).bytes()
    }

    /// The four parts of the array.
    fn parts(&self) -> [Value; 4] {
        let Sign1 { protected, payload, signature, .. } = &self.good;
        [bytes(protected), Value::Map(vec![]), bytes(payload), bytes(signature)]
    }

    /// With one of the four parts replaced.
    fn part(&self, at: usize, to: Value) -> Vec<u8> {
        let mut parts = self.parts();
        parts[at] = to;
        array(parts.to_vec())
    }

    /// With another signature.
    pub(crate) fn signature(&self, signature: Vec<u8>) -> Vec<u8> {
        Sign1 { signature, ..self.good.clone() }.bytes()
    }
}

/// The faults that every reader of COSE_Sign1 must find in every kind of object.
pub(crate) fn core(set: &mut Set<'_>, sample: &Sample<'_>) {
    let (good, payload) = (sample.good.bytes(), &sample.good.payload);
    let mut add = |id: &str, reason: R, what: &str, bytes: Vec<u8>| set.bad(id, reason, what, &bytes);
    add("empty", R::NotCbor, "no bytes at all", vec![]);
    add("truncated", R::NotCbor, "the last byte is missing", good[..good.len() - 1].to_vec());
    add("trailing-byte", R::TrailingBytes, "a byte follows the object", [&good[..], &[0]].concat());
    add("tagged", R::NotDeterministic, "COSE_Sign1 with its tag, 18: there are no tags", [&[0xd2], &good[..]].concat());
    add("indefinite-array", R::NotDeterministic, "the array has an indefinite length", bend::indefinite(&good));
    add("array-of-three", R::ObjectMalformed, "the signature is not there", array(sample.parts()[..3].to_vec()));
    let unprotected = Value::Map(vec![(KID.into(), bytes(&[0; 8]))]);
    add("unprotected-kid", R::ObjectMalformed, "the unprotected header has a kid", sample.part(1, unprotected));
    add("detached-payload", R::ObjectMalformed, "the payload is null", sample.part(2, Value::Null));
    add("signature-flipped", R::SignatureInvalid, "one bit of the signature is another", bend::flipped(&good, -1));
    add("signature-empty", R::SignatureInvalid, "the signature has no bytes", sample.signature(vec![]));

    let mut add = |id: &str, reason: R, what: &str, label: i64, to: Option<Value>| {
        let bytes = sample.parameter(set.signer, label, to);
        set.bad(id, reason, what, &bytes);
    };
    let crit = Value::Array(vec![99.into()]);
    add("crit", R::CriticalHeaderUnknown, "a critical header that nobody knows", CRIT, Some(crit));
    let (another, what) = match sample.typ() {
        65006 => (65008, "typ is that of a delivery receipt"),
        _ => (65006, "typ is that of a log commit"),
    };
    add("typ-of-another", R::TypeMismatch, what, TYP, Some(another.into()));
    add("typ-missing", R::ObjectMalformed, "the header has no typ", TYP, None);
    add("alg-minus-7", R::AlgorithmNotAllowed, "alg is ES256, which leaves the curve open", ALG, Some((-7).into()));
    add("alg-minus-8", R::AlgorithmNotAllowed, "alg is EdDSA, which leaves the curve open", ALG, Some((-8).into()));
    add("header-unknown", R::ObjectMalformed, "the header has a content type (3) too", 3, Some(0.into()));

    let mut add = |id: &str, reason: R, what: &str, payload: Vec<u8>| {
        let bytes = sample.payload(set.signer, payload);
        set.bad(id, reason, what, &bytes);
    };
    let unknown = bend::with(payload, &[99], Some(1.into()));
    add("claim-unknown", R::ObjectMalformed, "claim 99 is not in the layout: refused, never skipped", unknown);
    add("claims-unsorted", R::NotDeterministic, "the first two claims change places", bend::unsorted(payload));
    add("claim-twice", R::NotDeterministic, "the first claim is there twice", bend::doubled(payload));
    add("claims-not-a-map", R::ObjectMalformed, "the payload is an array", vec![0x80]);
}

/// The other faults: of the encoding.
pub(crate) fn encoding(set: &mut Set<'_>, sample: &Sample<'_>) {
    let (good, payload) = (sample.good.bytes(), &sample.good.payload);
    let mut add = |id: &str, reason: R, what: &str, bytes: Vec<u8>| set.bad(id, reason, what, &bytes);
    add("not-cbor", R::NotCbor, "a break where an item should be", vec![0xff]);
    add("long-array-head", R::NotDeterministic, "the array's length in a byte of its own", bend::long_head(&good));
    add(
        "huge-array-claimed",
        R::NotCbor,
        "an array of 4,294,967,295 items, and none there",
        vec![0x9a, 255, 255, 255, 255],
    );
    let nested = |depth| [vec![0x81; depth], vec![0]].concat();
    add("nested-12", R::ObjectMalformed, "twelve arrays within each other, as deep as can be", nested(12));
    add("nested-13", R::NotCbor, "thirteen arrays within each other", nested(13));
    add("a-text", R::ObjectMalformed, "a text instead of the array", vec![0x61, 0x78]);
    let five = [&sample.parts()[..], &[Value::Null]].concat();
    add("array-of-five", R::ObjectMalformed, "a null follows the signature", array(five));
    add("unprotected-null", R::ObjectMalformed, "the unprotected header is null", sample.part(1, Value::Null));
    let header_map = bend::decoded(&sample.good.protected);
    add("header-not-wrapped", R::ObjectMalformed, "the header is a map, not a byte string", sample.part(0, header_map));

    let mut add = |id: &str, reason: R, what: &str, payload: Vec<u8>| {
        let bytes = sample.payload(set.signer, payload);
        set.bad(id, reason, what, &bytes);
    };
    add("payload-empty", R::NotCbor, "the payload has no bytes", vec![]);
    add("payload-trailing-byte", R::TrailingBytes, "a byte follows the claims", [&payload[..], &[0]].concat());
    add("payload-indefinite", R::NotDeterministic, "the claims have an indefinite length", bend::indefinite(payload));
    let raw = |value: &[u8]| bend::with_raw(payload, 6, value);
    add("long-integer", R::NotDeterministic, "iat in eight bytes", raw(&[0x1b, 0, 0, 0, 0, 0x6b, 0x49, 0xd2, 0]));
    add("float", R::NotDeterministic, "iat is a float", raw(&[0xfa, 0x4e, 0xd6, 0x93, 0xa4]));
    add("tagged-time", R::NotDeterministic, "iat has the tag of a time, 1", raw(&[0xc1, 0x1a, 0x6b, 0x49, 0xd2, 0]));
    add("bignum", R::NotDeterministic, "iat is a bignum", raw(&[0xc2, 0x44, 0x6b, 0x49, 0xd2, 0]));
    add("undefined", R::NotDeterministic, "iat is `undefined`", raw(&[0xf7]));
    let chunked = [&[0x5f, 0x50][..], &[7; 16], &[0xff]].concat();
    add("chunked-bytes", R::NotDeterministic, "cti comes in chunks", bend::with_raw(payload, 7, &chunked));
    add("not-utf-8", R::NotCbor, "aud is not UTF-8", bend::with_raw(payload, 3, &[0x62, 0xff, 0xfe]));
    let text_key = [bend::entries(payload), vec![(vec![0x61, 0x78], vec![1])]].concat();
    add("text-key", R::ObjectMalformed, "a claim whose key is a text", bend::join(&text_key));
}

/// The other faults: of the header, and which of several is told.
pub(crate) fn header(set: &mut Set<'_>, sample: &Sample<'_>) {
    let empty = sample.header(set.signer, vec![]);
    set.refused("header-empty", R::NotCbor, "the header is an empty byte string").bytes(&empty);
    let unsorted = sample.header(set.signer, bend::unsorted(&sample.good.protected));
    set.refused("header-unsorted", R::NotDeterministic, "the header's first two entries change places")
        .bytes(&unsorted);
    let doubled = sample.header(set.signer, bend::doubled(&sample.good.protected));
    set.refused("header-entry-twice", R::NotDeterministic, "alg is there twice").bytes(&doubled);

    let mut add = |id: &str, reason: R, what: &str, changes: &[(i64, Option<Value>)]| {
        let protected = changes
            .iter()
            .fold(sample.good.protected.clone(), |header, (label, to)| bend::with(&header, &[*label], to.clone()));
        let bytes = sample.header(set.signer, protected);
        set.bad(id, reason, what, &bytes);
    };
    let array = |items: &[i64]| Some(Value::Array(items.iter().map(|item| Value::from(*item)).collect()));
    add(
        "crit-known",
        R::CriticalHeaderUnknown,
        "crit names typ, which is known: refused too",
        &[(CRIT, array(&[TYP]))],
    );
    add("crit-empty", R::CriticalHeaderUnknown, "crit names nothing: refused too", &[(CRIT, array(&[]))]);
    add("typ-text", R::ObjectMalformed, "typ is a media type", &[(TYP, Some("application/cwt".into()))]);
    add("typ-of-a-statement", R::TypeMismatch, "typ is that of a statement", &[(TYP, Some(65003.into()))]);
    add("alg-missing", R::ObjectMalformed, "the header has no alg", &[(ALG, None)]);
    add("alg-text", R::ObjectMalformed, "alg is a text", &[(ALG, Some("Ed25519".into()))]);
    add("alg-minus-35", R::AlgorithmNotAllowed, "alg is ES384", &[(ALG, Some((-35).into()))]);
    add(
        "alg-below-64-bits",
        R::ObjectMalformed,
        "alg is −2^63 − 1: no integer of 64 bits with a sign",
        &[(ALG, Some(Value::Integer(ciborium::value::Integer::try_from(i128::from(i64::MIN) - 1).unwrap())))],
    );
    add("kid-missing", R::ObjectMalformed, "the header has no kid", &[(KID, None)]);
    add("kid-of-seven", R::ObjectMalformed, "the kid has 7 bytes", &[(KID, Some(bytes(&[7; 7])))]);
    add("kid-text", R::ObjectMalformed, "the kid is a text", &[(KID, Some("44-consent".into()))]);
    let (crit, typ, alg) = ((CRIT, array(&[99])), (TYP, Some(Value::from(65003))), (ALG, Some(Value::from(-7))));
    add(
        "crit-before-typ",
        R::CriticalHeaderUnknown,
        "crit, typ and alg are wrong: crit is told",
        &[crit, typ.clone(), alg.clone()],
    );
    add("typ-before-alg", R::TypeMismatch, "typ and alg are wrong: typ is told", &[typ, alg.clone()]);
    add("alg-before-kid", R::AlgorithmNotAllowed, "alg is wrong and the kid missing: alg is told", &[alg, (KID, None)]);
}
