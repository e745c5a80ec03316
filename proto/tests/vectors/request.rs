//! `consent-request.json`.

use ciborium::Value;
use proto::{
    consent_request::ConsentRequest,
    refusal::{Object, Reason as R},
    suite::{Kid, Suite},
    terms::{Category, Kind, Purpose, Purposes, Scope},
    time::UnixTime,
    token::Audience,
};

use crate::{
    bend, claims,
    fixtures::{NOW, STATION, noise, public, secs},
    json::{Context, File, Hex, Operation},
    layout::{self, Sample},
    set::Set,
    sign::{Sign1, Signer, bytes, header},
};

const WISH: i64 = -65539;

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let context =
        Context { enrollment_key: Some(Hex::from(public(signer, "enrollment").encoded())), ..Context::default() };
    let mut set = Set::new(signer, "consent-request", Operation::VerifyRequest, context);
    let good = valid(&mut set);
    let sample = Sample { signed_by: "enrollment", good };
    layout::core(&mut set, &sample);
    claims_of(&mut set, &sample);
    keys(&mut set, &sample);
    uses(&mut set);
    set.file(
        "What a phone asks its home node for. verify_request: is it the enrolled device's, and fresh? What \
         home gives nobody, it refuses after that.",
        &["device-a"],
    )
}

/// An hour at stations for the traveler's own phone.
fn own(signer: &Signer) -> ConsentRequest {
    ConsentRequest {
        device_id: noise("the device's id"),
        audience: Audience::Category(Category::Station),
        purposes: Purposes::new([Purpose::Entry, Purpose::Travel]).unwrap(),
        scope: Scope::ALL,
        kind: Kind::Own,
        life: secs(3600),
        token_key: Some(public(signer, "device-a")),
        issued_at: NOW.minus(secs(2)),
        nonce: noise("the request's cti"),
    }
}

fn signed(signer: &Signer, request: &ConsentRequest) -> Sign1 {
    signer.settle("enrollment", &request.sign(signer.key("enrollment")), b"")
}

fn valid(set: &mut Set<'_>) -> Sign1 {
    let signer = set.signer;
    let own = own(signer);
    let mut add = |id: &str, what: &str, request: ConsentRequest| {
        set.valid(id, what).signed("enrollment", &signed(signer, &request)).claims(claims::of_request(&request));
    };
    add("own", "a token for the traveler's own phone", own.clone());
    let paper = ConsentRequest {
        kind: Kind::Paper,
        token_key: None,
        audience: Audience::Anywhere,
        purposes: Purposes::ALL,
        scope: Scope::LEVEL,
        life: secs(14 * 86_400),
        ..own.clone()
    };
    add("paper", "a printed code, which has no key", paper);
    let dependent =
        ConsentRequest { kind: Kind::Dependent, audience: Audience::Venue(STATION.parse().unwrap()), ..own.clone() };
    add("dependent", "for a companion's phone, at one venue", dependent);
    let assisted = ConsentRequest { kind: Kind::Assisted, ..own.clone() };
    add("assisted", "well formed: that phones do not ask for it is home's to say, after this", assisted);
    let endless = ConsentRequest { life: secs(u64::MAX), ..own.clone() };
    add("endless", "2^64 − 1 seconds, well formed: home refuses them after this", endless);
    signed(signer, &own)
}

/// One claim is not of its form.
fn claims_of(set: &mut Set<'_>, sample: &Sample<'_>) {
    let mut add = |id: &str, what: &str, path: &[i64], to: Option<Value>| {
        let bytes = sample.payload(set.signer, bend::with(&sample.good.payload, path, to));
        set.bad(id, R::ObjectMalformed, what, &bytes);
    };
    add("iss", "it has an iss, as a token", &[1], Some("44".into()));
    add("exp", "it has an exp: what is asked for is a life", &[4], Some(1_800_003_600.into()));
    add("cnf-uncompressed", "the point is not compressed", &[8, 1, -3], Some(bytes(&[1; 32])));
    add("wish-missing", "there is no wish", &[WISH], None);
    add("device-of-15-bytes", "the device's id has 15 bytes", &[WISH, 1], Some(bytes(&[1; 15])));
    add("scope-none", "the scope is empty", &[WISH, 3], Some(0.into()));
    add("kind-0", "no kind has the number 0", &[WISH, 4], Some(0.into()));
    add("life-missing", "there is no life", &[WISH, 5], None);
    add("life-negative", "the life is −1 s", &[WISH, 5], Some((-1).into()));
}

/// The key, its algorithm, its signature.
fn keys(set: &mut Set<'_>, sample: &Sample<'_>) {
    let (signer, good) = (set.signer, &sample.good);
    let kid = public(signer, "enrollment").kid();
    let by = |kid: Kid, suite, name: &str| {
        signer.sign1(name, header(Object::ConsentRequest, suite, kid).encode(), good.payload.clone(), b"").bytes()
    };
    let mut add = |id: &str, reason: R, what: &str, bytes: Vec<u8>| set.bad(id, reason, what, &bytes);
    let other = by(kid, Suite::Esp256, "device-other");
    add("of-another-device", R::SignatureInvalid, "signed with another device's key", other);
    let kid_of_other = by(public(signer, "device-other").kid(), Suite::Esp256, "enrollment");
    add("kid-of-another-device", R::SignatureInvalid, "the right signature under another kid", kid_of_other);
    let fresh = by(public(signer, "device-a").kid(), Suite::Esp256, "device-a");
    add("by-the-fresh-key", R::SignatureInvalid, "signed with the key it asks a token for", fresh);
    add("alg-not-the-keys", R::AlgorithmMismatch, "the header says Ed25519", by(kid, Suite::Ed25519, "stranger"));
    let flipped = Sign1 { payload: bend::with(&good.payload, &[WISH, 3], Some(1.into())), ..good.clone() };
    add("payload-changed", R::SignatureInvalid, "another scope under the old signature", flipped.bytes());
}

/// Good requests at the wrong time.
fn uses(set: &mut Set<'_>) {
    let signer = set.signer;
    let mut add = |id: &str, reason: Option<R>, what: &str, issued_at: UnixTime| {
        let request = ConsentRequest { issued_at, ..own(signer) };
        let vector = match reason {
            None => set.valid(id, what),
            Some(reason) => set.refused(id, reason, what),
        };
        vector.signed("enrollment", &signed(signer, &request)).claims(claims::of_request(&request));
    };
    add("iat-at-the-edge", None, "the device is 30 s ahead", NOW.plus(secs(30)));
    add("iat-beyond", Some(R::DeviceClockOff), "the device is 31 s ahead", NOW.plus(secs(31)));
    add("old-at-the-edge", None, "300 s old", NOW.minus(secs(300)));
    add("old-beyond", Some(R::Expired), "301 s old", NOW.minus(secs(301)));
}
