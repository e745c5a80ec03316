//! What can be wrong with any COSE_Sign of the roots, whatever its content.

use ciborium::Value;
use proto::{
    cose::typ,
    envelope::Edition,
    refusal::{Object, Reason as R},
    suite::Suite,
    time::UnixTime,
};

use crate::{
    bend,
    fixtures::{NOW, edition, public, secs},
    json::{Hex, Parts, Signature},
    set::Set,
    sign::{ALG, CRIT, KID, Signer, TYP, array, bytes, header},
};

/// A COSE_Sign taken apart.
#[derive(Clone)]
pub(crate) struct Sign {
    pub(crate) protected: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) signatures: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Sign {
    /// Takes a document apart.
    pub(crate) fn split(document: &[u8]) -> Self {
        let parts = bend::decoded(document).into_array().unwrap();
        let [protected, _, payload, signatures] = <[Value; 4]>::try_from(parts).unwrap();
        let pair = |signature: Value| {
            let [header, _, signature] = <[Value; 3]>::try_from(signature.into_array().unwrap()).unwrap();
            (header.into_bytes().unwrap(), signature.into_bytes().unwrap())
        };
        let signatures = signatures.into_array().unwrap().into_iter().map(pair).collect();
        Self { protected: protected.into_bytes().unwrap(), payload: payload.into_bytes().unwrap(), signatures }
    }

    /// The document.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.with_signatures(
            self.signatures
                .iter()
                .map(|(header, signature)| Value::Array(vec![bytes(header), Value::Map(vec![]), bytes(signature)])),
        )
    }

    fn with_signatures(&self, signatures: impl Iterator<Item = Value>) -> Vec<u8> {
        let signatures = Value::Array(signatures.collect());
        array(vec![bytes(&self.protected), Value::Map(vec![]), bytes(&self.payload), signatures])
    }

    /// What one root signs (RFC 9052 §4.4).
    fn sig_structure(&self, header: &[u8]) -> Vec<u8> {
        array(vec!["Signature".into(), bytes(&self.protected), bytes(header), bytes(b""), bytes(&self.payload)])
    }

    /// Signed by one more.
    fn and(&self, signer: &Signer, name: &str, header: Vec<u8>) -> Self {
        let signature = signer.signature(name, &self.sig_structure(&header));
        let mut more = self.clone();
        more.signatures.push((header, signature));
        more
    }

    /// With another payload or header, signed by the first two roots.
    pub(crate) fn signed_again(&self, signer: &Signer, object: Object) -> Self {
        let bare = Self { signatures: vec![], ..self.clone() };
        ["root-1", "root-2"].iter().fold(bare, |document, name| document.and(signer, name, root(signer, object, name)))
    }

    /// As the files have it.
    pub(crate) fn parts(&self) -> Parts {
        let signatures = self.signatures.iter().map(|(header, signature)| Signature {
            protected: Some(Hex(header.clone())),
            sig_structure: Hex(self.sig_structure(header)),
            signature: Hex(signature.clone()),
        });
        Parts {
            protected: Hex(self.protected.clone()),
            payload: Hex(self.payload.clone()),
            external_aad: Hex::default(),
            signatures: signatures.collect(),
        }
    }
}

/// A root's header.
fn root(signer: &Signer, object: Object, name: &str) -> Vec<u8> {
    header(object, Suite::Ed25519, public(signer, name).kid()).encode()
}

/// How a kind of document is made: an edition of its usual content, signed by these.
pub(crate) type Make<'a> = &'a dyn Fn(Edition, &[&str]) -> Vec<u8>;

/// The faults of the envelope.
pub(crate) fn envelope(set: &mut Set<'_>, object: Object, make: Make<'_>) {
    let signer = set.signer;
    let good = Sign::split(&make(edition(7), &["root-1", "root-2"]));
    let bytes_of_good = good.bytes();
    let mut add = |id: &str, reason: R, what: &str, bytes: Vec<u8>| set.bad(id, reason, what, &bytes);
    let cut = bytes_of_good[..bytes_of_good.len() - 1].to_vec();
    add("truncated", R::NotCbor, "the last byte is missing", cut);
    add("trailing-byte", R::TrailingBytes, "a byte follows the document", [&bytes_of_good[..], &[0]].concat());
    let tagged = [&[0xd8, 98], &bytes_of_good[..]].concat();
    add("tagged", R::NotDeterministic, "COSE_Sign with its tag, 98: there are no tags", tagged);
    let raw = |unprotected: Value| {
        let by = good
            .signatures
            .iter()
            .map(|(header, by)| Value::Array(vec![bytes(header), unprotected.clone(), bytes(by)]));
        good.with_signatures(by)
    };
    let kid = Value::Map(vec![(KID.into(), bytes(&[0; 8]))]);
    add("signature-unprotected-kid", R::ObjectMalformed, "a signature's unprotected header has a kid", raw(kid));
    let unprotected = Value::Map(vec![(1.into(), 1.into())]);
    let outer = array(vec![bytes(&good.protected), unprotected, bytes(&good.payload), Value::Array(vec![])]);
    add("unprotected", R::ObjectMalformed, "the document's unprotected header is not empty", outer);

    let with_body = |label: i64, to: Option<Value>| {
        let protected = bend::with(&good.protected, &[label], to);
        Sign { protected, ..good.clone() }.signed_again(signer, object).bytes()
    };
    let another = if object == Object::Policy { Object::TrustList } else { Object::Policy };
    let foreign = with_body(TYP, Some(typ(another).into()));
    add("typ-of-another", R::TypeMismatch, "typ is that of the other kind of document", foreign);
    let alg = with_body(ALG, Some((-19).into()));
    add("body-header-alg", R::TypeMismatch, "the document's header has an alg: it is typ, and nothing else", alg);
    let crit = with_body(CRIT, Some(Value::Array(vec![99.into()])));
    add("body-header-crit", R::TypeMismatch, "the document's header has a crit: told as another type", crit);

    let by = |name: &str, label: i64, to: Option<Value>| {
        good.and(signer, name, bend::with(&root(signer, object, name), &[label], to)).bytes()
    };
    let crit = by("root-3", CRIT, Some(Value::Array(vec![99.into()])));
    add("crit", R::CriticalHeaderUnknown, "a third signature has a critical header", crit);
    let typ_of = by("root-3", TYP, Some(typ(another).into()));
    add("signature-typ-of-another", R::TypeMismatch, "a third signature's typ is the other kind's", typ_of);
    let minus_8 = by("stranger", ALG, Some((-8).into()));
    add(
        "alg-minus-8",
        R::AlgorithmNotAllowed,
        "a stranger's signature has alg EdDSA: it is read before it is passed over",
        minus_8,
    );
    let esp256 = by("root-3", ALG, Some((-9).into()));
    add(
        "alg-not-the-keys",
        R::SignatureInvalid,
        "a third signature's alg is ESP256, and the root's key Ed25519",
        esp256,
    );
    signatures(set, object, &good);
    payload(set, object, &good);
}

/// Who signed.
fn signatures(set: &mut Set<'_>, object: Object, good: &Sign) {
    let signer = set.signer;
    let none = Sign { signatures: vec![], ..good.clone() };
    let and = |document: &Sign, name: &str| document.and(signer, name, root(signer, object, name));
    let one = and(&none, "root-1");
    let mut add = |id: &str, reason: R, what: &str, document: &Sign| {
        set.refused(id, reason, what).bytes(&document.bytes());
    };
    add("signed-by-none", R::ThresholdNotMet, "nobody signed", &none);
    add("signed-by-one", R::ThresholdNotMet, "one root signed, two must", &one);
    add("signed-by-one-twice", R::ThresholdNotMet, "two signatures by one root count once", &and(&one, "root-1"));
    add("signed-by-one-and-a-stranger", R::ThresholdNotMet, "a stranger does not count", &and(&one, "stranger"));
    let mut bad = and(good, "root-3");
    bad.signatures[2].1 = bend::flipped(&bad.signatures[2].1, -1);
    add(
        "third-signature-flipped",
        R::SignatureInvalid,
        "two roots signed well, and a third did not: all is refused",
        &bad,
    );
    let mut swapped = good.clone();
    (swapped.signatures[0].1, swapped.signatures[1].1) = (good.signatures[1].1.clone(), good.signatures[0].1.clone());
    add("signatures-swapped", R::SignatureInvalid, "each root's signature under the other's kid", &swapped);
    let mut as_sign1 = none.clone();
    for name in ["root-1", "root-2"] {
        let header = root(signer, object, name);
        let message = array(vec!["Signature1".into(), bytes(&header), bytes(b""), bytes(&good.payload)]);
        as_sign1.signatures.push((header, signer.signature(name, &message)));
    }
    add("signed-as-cose-sign1", R::SignatureInvalid, "the context is \"Signature1\"", &as_sign1);
    let many = (0..17).fold(none, |document, _| and(&document, "root-1"));
    add("seventeen-signatures", R::ObjectMalformed, "more signatures than there can be roots", &many);
    let later = Sign { payload: bend::with(&good.payload, &[4], Some(1_800_086_400.into())), ..good.clone() };
    add("life-stretched", R::SignatureInvalid, "a later exp under the old signatures", &later);
    let vector = set.refused("of-524289-bytes", R::ObjectTooLarge, "one byte more than 512 KiB; size comes first");
    vector.bytes(&[0]).repeat = Some(524_289);
}

/// The edition is wrong.
fn payload(set: &mut Set<'_>, object: Object, good: &Sign) {
    let signer = set.signer;
    let mut add = |id: &str, reason: R, what: &str, payload: Vec<u8>| {
        let document = Sign { payload, ..good.clone() }.signed_again(signer, object);
        set.refused(id, reason, what).bytes(&document.bytes());
    };
    let with = |key: i64, to: Option<Value>| bend::with(&good.payload, &[key], to);
    add(
        "payload-unsorted",
        R::NotDeterministic,
        "the edition's first two entries change places",
        bend::unsorted(&good.payload),
    );
    add("payload-trailing-byte", R::TrailingBytes, "a byte follows the edition", [&good.payload[..], &[0]].concat());
    add("payload-not-cbor", R::NotCbor, "the payload is no CBOR", vec![0xff]);
    add("version-missing", R::ObjectMalformed, "there is no version", with(1, None));
    add("version-negative", R::ObjectMalformed, "the version is −1", with(1, Some((-1).into())));
    add("content-missing", R::ObjectMalformed, "there is no content", with(2, None));
    add("entry-unknown", R::ObjectMalformed, "3 is not in the layout", with(3, Some(1.into())));
    let iat = NOW.minus(secs(3600)).as_secs();
    add("exp-is-iat", R::ObjectMalformed, "it ends when it begins", with(4, Some(iat.into())));
}

/// An edition's claims and verdict.
pub(crate) struct Aged {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) reason: Option<R>,
    pub(crate) edition: Edition,
    pub(crate) now: UnixTime,
    pub(crate) held: bool,
}

/// Editions at the edges of their life and of their versions. The one held has version 7.
pub(crate) fn ages() -> [Aged; 12] {
    let aged = |id, reason, what, edition, now, held| Aged { id, what, reason, edition, now, held };
    let week = |more: u64| Edition { version: 8, issued_at: NOW, expires_at: NOW.plus(secs(7 * 86_400 + more)) };
    let other = Edition { expires_at: NOW.plus(secs(60)), ..edition(7) };
    let held = edition(7);
    let (iat, exp) = (held.issued_at, held.expires_at);
    [
        aged("held-already", None, "the very document that is held", held, NOW, true),
        aged("next-version", None, "a later version than the one held", edition(8), NOW, true),
        aged("version-of-64-bits", None, "2^64 − 1", edition(u64::MAX), NOW, true),
        aged(
            "older-version",
            Some(R::VersionRolledBack),
            "an earlier version than the one held",
            edition(6),
            NOW,
            true,
        ),
        aged("same-version", Some(R::VersionRolledBack), "the version held, and another document", other, NOW, true),
        aged("week", None, "seven days, the longest life", week(0), NOW, false),
        aged("life-too-long", Some(R::LifeTooLong), "seven days and a second", week(1), NOW, false),
        aged("iat-at-the-edge", None, "iat is 30 s ahead", held, iat.minus(secs(30)), false),
        aged("iat-beyond", Some(R::NotYetValid), "iat is 31 s ahead", held, iat.minus(secs(31)), false),
        aged("exp-at-the-edge", None, "the last second of its life", held, exp.minus(secs(1)), false),
        aged("exp-beyond", Some(R::Expired), "exp is now: expiry has no leeway", held, exp, false),
        aged(
            "version-before-time",
            Some(R::VersionRolledBack),
            "an earlier version, expired: the version is told",
            edition(6),
            exp,
            true,
        ),
    ]
}
