//! `proof.json`.

use std::time::Duration;

use ciborium::Value;
use proto::{
    proof::prove,
    random::Random,
    refusal::{Object, Reason as R},
    suite::{Kid, Suite},
    time::UnixTime,
    token::{Consent, TokenHash},
    venue::VenueId,
};
use serde_json::json;

use crate::{
    bend, claims,
    fixtures::{self, NOW, STATION, noise, secs},
    json::{Context, File, Hex, Operation, hex},
    layout::{self, Sample},
    set::Set,
    sign::{Sign1, Signer, bytes, header},
    token,
    verify::proof_id,
};

/// Randomness that is always this.
#[derive(Debug)]
pub(crate) struct Nonce(pub(crate) [u8; 8]);

impl Random for Nonce {
    fn fill(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }
}

/// The nonce of all proofs here.
pub(crate) fn nonce() -> [u8; 8] {
    noise("a proof's nonce")
}

/// The token that is shown.
struct Shown {
    consent: Consent,
    hash: TokenHash,
}

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let consent = fixtures::own(signer);
    let token = token::signed(signer, &consent, "44-consent").bytes();
    let context = Context {
        trust_list: Some("trust-list/plain".into()),
        policy: Some("policy/plain".into()),
        token: Some(Hex::from(&token[..])),
        venue: Some(STATION.into()),
        ..Context::default()
    };
    let shown = Shown { consent, hash: TokenHash::of(&token) };
    let mut set = Set::new(signer, "proof", Operation::VerifyProof, context);
    let good = valid(&mut set, &shown);
    let sample = Sample { signed_by: "device-a", good };
    layout::core(&mut set, &sample);
    claims_of(&mut set, &sample);
    keys(&mut set, &shown, &sample);
    bindings(&mut set, &shown, &sample);
    uses(&mut set, &shown);
    set.file(
        "Made by the device for one showing of the token in the context, which is good. verify_proof: is it \
         that token's device's, and does it hold now, here?",
        &["44-consent"],
    )
}

/// A proof as the code makes it.
fn proven(signer: &Signer, shown: &Shown, venue: Option<&VenueId>, at: UnixTime, life: Duration) -> Sign1 {
    let made = prove(shown.hash, shown.consent.cti, signer.key("device-a"), venue, at, life, &Nonce(nonce()));
    signer.settle("device-a", &made, &shown.hash.0)
}

fn valid(set: &mut Set<'_>, shown: &Shown) -> Sign1 {
    let (signer, here) = (set.signer, STATION.parse().unwrap());
    let at = NOW.minus(secs(5));
    for (id, what, venue) in [
        ("bound", "for the venue whose printed code the phone scanned", Some(&here)),
        ("unbound", "for whichever venue redeems it first", None),
    ] {
        let proof = proven(signer, shown, venue, at, secs(60));
        let vector = set.valid(id, what);
        vector.signed("device-a", &proof).claims(claims::of_proof(venue, at, at.plus(secs(60)), nonce()));
        vector.result = Some(json!({ "proof_id": hex(&proof_id(shown.hash, &proof.payload)) }));
    }
    let proof = proven(signer, shown, None, at, secs(60));
    let other_s = Sign1 { signature: bend::scalar::negated(&proof.signature), ..proof.clone() };
    let vector =
        set.valid("other-s", "the unbound one with n − s for s: whoever saw it can make it, and it is the same proof");
    vector.bytes(&other_s.bytes()).result = Some(json!({ "proof_id": hex(&proof_id(shown.hash, &proof.payload)) }));
    proven(signer, shown, Some(&here), at, secs(60))
}

/// One claim is not of its form.
fn claims_of(set: &mut Set<'_>, sample: &Sample<'_>) {
    let mut add = |id: &str, what: &str, label: i64, to: Option<Value>| {
        let bytes = sample.payload(set.signer, bend::with(&sample.good.payload, &[label], to));
        set.bad(id, R::ObjectMalformed, what, &bytes);
    };
    add("aud-category", "aud is a category: a proof is for one venue or for none yet", 3, Some("station".into()));
    add("aud-anywhere", "aud is \"*\"", 3, Some("*".into()));
    add("aud-null", "aud is null: what is not there is left out", 3, Some(Value::Null));
    add("exp-missing", "there is no exp", 4, None);
    add("exp-is-iat", "it ends when it begins", 4, Some(1_799_999_995.into()));
    add("nonce-missing", "there is no nonce", 10, None);
    add("nonce-of-16-bytes", "the nonce has 16 bytes", 10, Some(bytes(&[1; 16])));
    add("cti", "it has a cti (7), as a token", 7, Some(bytes(&[1; 16])));
}

/// The key, its algorithm, its signature.
fn keys(set: &mut Set<'_>, shown: &Shown, sample: &Sample<'_>) {
    let (signer, good) = (set.signer, &sample.good);
    let own_kid = Kid(shown.consent.cti.0[..8].try_into().unwrap());
    let by = |kid: Kid, suite, name: &str, aad: &[u8]| {
        signer.sign1(name, header(Object::Proof, suite, kid).encode(), good.payload.clone(), aad).bytes()
    };
    let mut add = |id: &str, reason: R, what: &str, bytes: Vec<u8>| set.bad(id, reason, what, &bytes);
    let aad = &shown.hash.0;
    let of_key = signer.key("device-a").verifying_key().kid();
    let of_key = by(of_key, Suite::Esp256, "device-a", aad);
    add(
        "kid-of-the-key",
        R::SignatureInvalid,
        "the kid is that of the key: it is the token's cti, its first half",
        of_key,
    );
    let other = by(own_kid, Suite::Esp256, "device-other", aad);
    add("of-another-device", R::SignatureInvalid, "signed with another device's key", other);
    let ed25519 = by(own_kid, Suite::Ed25519, "stranger", aad);
    add("alg-not-the-keys", R::AlgorithmMismatch, "the header says Ed25519, the device's key is on P-256", ed25519);
    let both = by(Kid([0; 8]), Suite::Ed25519, "stranger", aad);
    add("kid-before-alg", R::SignatureInvalid, "kid and alg are wrong: the kid is told", both);
    let der = sample.signature(bend::scalar::der(&good.signature));
    add("signature-der", R::SignatureInvalid, "the signature is DER: it is r ‖ s", der);
    add("signature-zeros", R::SignatureInvalid, "r = s = 0", sample.signature(vec![0; 64]));
    let later = bend::with(&good.payload, &[4], Some(1_800_000_060.into()));
    let later = Sign1 { payload: later, ..good.clone() };
    add("life-stretched", R::SignatureInvalid, "a later exp under the old signature", later.bytes());
}

/// Signed by the right device over the wrong external_aad.
fn bindings(set: &mut Set<'_>, shown: &Shown, sample: &Sample<'_>) {
    for (id, what, aad) in [
        ("aad-empty", "external_aad is empty", &[][..]),
        ("of-another-token", "external_aad is another token's hash", &TokenHash::of(b"another token").0),
        ("aad-of-16-bytes", "external_aad is half of the hash", &shown.hash.0[..16]),
    ] {
        let proof = set.signer.sign1("device-a", sample.good.protected.clone(), sample.good.payload.clone(), aad);
        set.refused(id, R::SignatureInvalid, what).signed("device-a", &proof);
    }
}

/// Good proofs at the wrong time or place.
fn uses(set: &mut Set<'_>, shown: &Shown) {
    let (signer, here): (_, VenueId) = (set.signer, STATION.parse().unwrap());
    let mut add = |id: &str, reason: Option<R>, what: &str, venue: &VenueId, iat: UnixTime, life: u64| {
        let vector = match reason {
            None => set.valid(id, what),
            Some(reason) => set.refused(id, reason, what),
        };
        let proof = proven(signer, shown, Some(venue), iat, secs(life));
        vector.signed("device-a", &proof).claims(claims::of_proof(Some(venue), iat, iat.plus(secs(life)), nonce()));
        if reason.is_none() {
            vector.result = Some(json!({ "proof_id": hex(&proof_id(shown.hash, &proof.payload)) }));
        }
    };
    let ahead = |seconds| NOW.plus(secs(seconds));
    let ago = |seconds| NOW.minus(secs(seconds));
    add("iat-at-the-edge", None, "the device is 30 s ahead", &here, ahead(30), 60);
    add("iat-beyond", Some(R::DeviceClockOff), "the device is 31 s ahead", &here, ahead(31), 60);
    add("exp-at-the-edge", None, "exp was 29 s ago", &here, ago(89), 60);
    add("exp-beyond", Some(R::Expired), "exp was 30 s ago", &here, ago(90), 60);
    add("life-too-long", Some(R::LifeTooLong), "61 s: the policy has 60", &here, NOW, 61);
    let elsewhere = "44/station/guangzhou-east".parse().unwrap();
    add("another-venue", Some(R::ProofOfOtherVenue), "for another venue", &elsewhere, NOW, 60);
    add("life-before-time", Some(R::LifeTooLong), "too long and expired: life is told", &here, ago(900), 61);
    add("time-before-place", Some(R::Expired), "expired and elsewhere: time is told", &elsewhere, ago(900), 60);
}
