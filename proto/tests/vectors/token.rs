//! `consent-token.json`.

use ciborium::Value;
use proto::{
    member::Member,
    refusal::{Object, Reason as R},
    suite::{Kid, Suite},
    terms::{Category, Kind, Purpose, Purposes, Scope},
    token::{Audience, Consent, Cti},
};

use crate::{
    bend, claims,
    fixtures::{self, NOW, STATION, noise, public, secs},
    json::{Context, File, Operation},
    layout::{self, Sample},
    set::Set,
    sign::{ALG, Sign1, Signer, array, bytes, header},
    usage,
};

const CNF: i64 = 8;
const CONSENT: i64 = -65537;

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let context = Context {
        trust_list: Some("trust-list/plain".into()),
        policy: Some("policy/plain".into()),
        venue: Some(STATION.into()),
        purpose: Some("entry".into()),
        ..Context::default()
    };
    let mut set = Set::new(signer, "consent-token", Operation::VerifyToken, context);
    valid(&mut set);
    let good = signed(signer, &fixtures::own(signer), "44-consent");
    let sample = Sample { signed_by: "44-consent", good };
    layout::core(&mut set, &sample);
    layout::encoding(&mut set, &sample);
    layout::header(&mut set, &sample);
    size(&mut set, &sample);
    claims_of(&mut set, &sample);
    combinations(&mut set);
    keys(&mut set, &sample);
    uses(&mut set);
    usage::add(&mut set);
    set.file(
        "What the home member issued for a traveler to show. verify_token: is it the member's, does it hold \
         now, here, for this purpose? use_consent: does it, with its proof, cover one use, and what may be \
         disclosed?",
        &["device-a", "device-b", "device-other"],
    )
}

/// A token as the code makes it.
pub(crate) fn signed(signer: &Signer, consent: &Consent, by: &str) -> Sign1 {
    signer.settle(by, &consent.sign(signer.key(by)), b"")
}

fn valid(set: &mut Set<'_>) {
    let signer = set.signer;
    let own = fixtures::own(signer);
    let mut add = |id: &str, what: &str, consent: &Consent, by: &str| {
        set.valid(id, what).signed(by, &signed(signer, consent, by)).claims(claims::of_consent(consent));
    };
    add("own", "the traveler's own phone, at any station", &own, "44-consent");
    let dependent = Consent {
        kind: Kind::Dependent,
        audience: Audience::Anywhere,
        cti: Cti(noise("the dependent token's cti")),
        device_key: Some(public(signer, "device-b")),
        scope: Scope::LEVEL,
        purposes: Purposes::new([Purpose::Entry]).unwrap(),
        ..own.clone()
    };
    add("dependent", "a companion's phone, anywhere; its key's y has the other sign", &dependent, "44-consent");
    add("paper", "a printed code: no device, the level alone", &fixtures::paper(signer), "44-consent");
    add("assisted", "staff asked: no device, one venue", &fixtures::assisted(signer), "44-consent");
    add("next-key", "signed with the key that comes after the first", &own, "44-consent-next");
    let corps = Consent { issuer: "66".parse().unwrap(), ..own.clone() };
    add("of-another-member", "of 兵团, whose code is not in GB/T 2260", &corps, "66-consent");
    let day = Consent { issued_at: NOW, expires_at: NOW.plus(secs(86_400)), ..own.clone() };
    add("longest-life", "24 h, the longest life of a token with a device", &day, "44-consent");
    let fortnight = Consent { issued_at: NOW, expires_at: NOW.plus(secs(14 * 86_400)), ..fixtures::paper(signer) };
    add("longest-paper", "14 days, the longest life of paper", &fortnight, "44-consent");
}

/// Lengths at their edge.
fn size(set: &mut Set<'_>, sample: &Sample<'_>) {
    let padded = |set: &Set<'_>, length: usize| {
        sample.payload(set.signer, bend::with(&sample.good.payload, &[99], Some(bytes(&vec![0; length]))))
    };
    let frame = padded(set, 600).len() - 600;
    for (id, length, reason, what) in [
        ("of-1024-bytes", 1024, R::ObjectMalformed, "1,024 bytes with a claim that is unknown: not too large"),
        ("of-1025-bytes", 1025, R::ObjectTooLarge, "1,025 bytes: size comes before everything"),
    ] {
        let bytes = padded(set, length - frame);
        assert_eq!(bytes.len(), length);
        set.bad(id, reason, what, &bytes);
    }
}

/// One claim is not of its form.
fn claims_of(set: &mut Set<'_>, sample: &Sample<'_>) {
    let mut add = |id: &str, reason: R, what: &str, path: &[i64], to: Option<Value>| {
        let bytes = sample.payload(set.signer, bend::with(&sample.good.payload, path, to));
        set.bad(id, reason, what, &bytes);
    };
    let numbers = |numbers: &[u64]| Some(Value::Array(numbers.iter().map(|n| Value::from(*n)).collect()));
    add("iss-99", R::MemberUnknown, "no member has this code", &[1], Some("99".into()));
    add("iss-number", R::ObjectMalformed, "iss is a number", &[1], Some(44.into()));
    add("iss-long", R::ObjectMalformed, "iss has three characters", &[1], Some("044".into()));
    add("aud-castle", R::ObjectMalformed, "no category has this name", &[3], Some("castle".into()));
    add("aud-upper-case", R::ObjectMalformed, "a venue's name is lower-case", &[3], Some("44/station/East".into()));
    let phone = Some("44/station/n13800138000".into());
    add("aud-long-number", R::ObjectMalformed, "eleven digits in a row could be a person's number", &[3], phone);
    let long = Some(format!("44/station/{}", "a".repeat(30)).into());
    add("aud-of-41-bytes", R::ObjectMalformed, "a venue's id has 40 bytes at most", &[3], long);
    add("exp-missing", R::ObjectMalformed, "there is no exp", &[4], None);
    add("exp-text", R::ObjectMalformed, "exp is a text", &[4], Some("1800003300".into()));
    add("exp-year-10000", R::ObjectMalformed, "one second after 9999", &[4], Some(253_402_300_800_u64.into()));
    add("iat-negative", R::ObjectMalformed, "iat is before 1970", &[6], Some((-1).into()));
    add("cti-of-15-bytes", R::ObjectMalformed, "cti has 15 bytes", &[7], Some(bytes(&[7; 15])));
    add("cti-text", R::ObjectMalformed, "cti is a text", &[7], Some("a".repeat(16).into()));
    add("cnf-y-whole", R::ObjectMalformed, "the point is not compressed", &[CNF, 1, -3], Some(bytes(&[1; 32])));
    add(
        "cnf-x-short",
        R::ObjectMalformed,
        "x has 31 bytes: it keeps its leading zeros",
        &[CNF, 1, -2],
        Some(bytes(&[1; 31])),
    );
    add("cnf-off-the-curve", R::ObjectMalformed, "x = 1 is no point of P-256", &[CNF, 1, -2], Some(bytes(&one())));
    add("cnf-p-384", R::ObjectMalformed, "crv is P-384", &[CNF, 1, -1], Some(2.into()));
    add("cnf-okp", R::ObjectMalformed, "kty is OKP", &[CNF, 1, 1], Some(1.into()));
    add("cnf-alg", R::ObjectMalformed, "the COSE_Key has an alg too", &[CNF, 1, 3], Some((-9).into()));
    add("cnf-kid", R::ObjectMalformed, "cnf has a kid (3) too", &[CNF, 3], Some(bytes(&[1; 8])));
    add("purposes-none", R::ObjectMalformed, "no purpose", &[CONSENT, 1], numbers(&[]));
    add("purposes-descending", R::ObjectMalformed, "purposes descend", &[CONSENT, 1], numbers(&[2, 1]));
    add("purposes-twice", R::ObjectMalformed, "a purpose is there twice", &[CONSENT, 1], numbers(&[1, 1]));
    add("purposes-unknown", R::ObjectMalformed, "no purpose has the number 7", &[CONSENT, 1], numbers(&[1, 7]));
    add("scope-none", R::ObjectMalformed, "the scope is empty", &[CONSENT, 2], Some(0.into()));
    add("scope-64", R::ObjectMalformed, "an unknown bit", &[CONSENT, 2], Some(65.into()));
    add("scope-without-level", R::ObjectMalformed, "tests without the level", &[CONSENT, 2], Some(4.into()));
    add("kind-5", R::ObjectMalformed, "no kind has the number 5", &[CONSENT, 4], Some(5.into()));
    add("consent-unknown", R::ObjectMalformed, "an unknown entry within the consent", &[CONSENT, 3], Some(1.into()));
    add("consent-missing", R::ObjectMalformed, "there is no consent", &[CONSENT], None);
}

/// 1 in 32 bytes: x³ − 3x + b has no square root there.
fn one() -> [u8; 32] {
    let mut one = [0; 32];
    one[31] = 1;
    one
}

/// Claims that are well formed, and that no token may have together.
fn combinations(set: &mut Set<'_>) {
    let signer = set.signer;
    let own = fixtures::own(signer);
    let key = own.device_key.clone();
    for (id, what, consent) in [
        ("exp-is-iat", "it ends when it begins", Consent { expires_at: own.issued_at, ..own.clone() }),
        ("own-without-key", "an own token without a device key", Consent { device_key: None, ..own.clone() }),
        ("paper-with-key", "paper with a device key", Consent { device_key: key, ..fixtures::paper(signer) }),
        (
            "paper-with-tests",
            "paper discloses more than the level",
            Consent { scope: Scope::LEVEL.union(Scope::TESTS), ..fixtures::paper(signer) },
        ),
        (
            "assisted-anywhere",
            "an assisted token for a whole category",
            Consent { audience: Audience::Category(Category::Station), ..fixtures::assisted(signer) },
        ),
    ] {
        let object = signed(signer, &consent, "44-consent");
        set.refused(id, R::ObjectMalformed, what).signed("44-consent", &object).claims(claims::of_consent(&consent));
    }
}

/// The key, its algorithm, its signature.
fn keys(set: &mut Set<'_>, sample: &Sample<'_>) {
    let (signer, good) = (set.signer, &sample.good);
    let kid = |name: &str| public(signer, name).kid();
    let by = |kid: Kid, name: &str| {
        let protected = header(Object::Token, Suite::Ed25519, kid).encode();
        signer.sign1(name, protected, good.payload.clone(), b"").bytes()
    };
    let mut add = |id: &str, reason: R, what: &str, bytes: Vec<u8>| set.bad(id, reason, what, &bytes);
    add("kid-of-nobody", R::KeyUnknown, "signed by a stranger", by(kid("stranger"), "stranger"));
    let own_use = by(kid("44-statement"), "44-statement");
    add("kid-of-another-use", R::KeyUnknown, "signed with 44's statement key: one key, one use", own_use);
    add(
        "kid-of-another-member",
        R::KeyUnknown,
        "44's claims, signed with 11's key",
        by(kid("11-consent"), "11-consent"),
    );
    let elsewhere = bend::with(&good.payload, &[1], Some("31".into()));
    add(
        "member-not-in-the-list",
        R::KeyUnknown,
        "31 is a member, and not in this list",
        sample.payload(signer, elsewhere),
    );
    let esp256 = bend::with(&good.protected, &[ALG], Some((-9).into()));
    let esp256 = signer.sign1("44-consent", esp256, good.payload.clone(), b"").bytes();
    add("alg-not-the-keys", R::AlgorithmMismatch, "the header says ESP256, the key is an Ed25519 key", esp256);
    let forged = by(kid("44-consent"), "stranger");
    add("signed-by-a-stranger", R::SignatureInvalid, "44's kid, a stranger's signature", forged);
    let flipped = Sign1 { payload: bend::with(&good.payload, &[7], Some(bytes(&[7; 16]))), ..good.clone() };
    add("payload-changed", R::SignatureInvalid, "another cti under the old signature", flipped.bytes());
    let later = Sign1 { payload: bend::with(&good.payload, &[4], Some(1_800_006_900.into())), ..good.clone() };
    add("life-stretched", R::SignatureInvalid, "a later exp under the old signature", later.bytes());
    add("signature-of-63-bytes", R::SignatureInvalid, "cut by one", sample.signature(good.signature[..63].to_vec()));
    let larger = bend::scalar::larger(&good.signature);
    add("signature-s-plus-l", R::SignatureInvalid, "S + L for S (RFC 8032 §5.1.7)", sample.signature(larger));
    let with = |context: &str, aad: Value| {
        let message = array(vec![context.into(), bytes(&good.protected), aad, bytes(&good.payload)]);
        sample.signature(signer.signature("44-consent", &message))
    };
    add(
        "signed-with-null-aad",
        R::SignatureInvalid,
        "external_aad is null instead of h''",
        with("Signature1", Value::Null),
    );
    add("signed-with-aad", R::SignatureInvalid, "external_aad is not empty", with("Signature1", bytes(b"token")));
    add("signed-as-cose-sign", R::SignatureInvalid, "the context is \"Signature\"", with("Signature", bytes(b"")));
    let bare = sample.signature(signer.signature("44-consent", &good.payload));
    add("signed-bare", R::SignatureInvalid, "the payload alone was signed, no Sig_structure", bare);
}

/// Good tokens at the wrong time or place, or for something else.
fn uses(set: &mut Set<'_>) {
    let signer = set.signer;
    let (own, paper) = (fixtures::own(signer), fixtures::paper(signer));
    let day = secs(86_400);
    let long = |life| Consent { issued_at: NOW, expires_at: NOW.plus(life), ..own.clone() };
    let long_paper = Consent { issued_at: NOW, expires_at: NOW.plus(secs(14 * 86_400 + 1)), ..paper };
    let (first, last) = (own.issued_at.minus(secs(30)), own.expires_at.plus(secs(29)));
    let medical = |context: &Context| Context { purpose: Some("medical".into()), ..context.clone() };
    let at = |context: &Context, venue: &str| Context { venue: Some(venue.into()), ..context.clone() };
    let (home, hospital) = (set.context.clone(), at(&set.context, "44/hospital/no-1"));
    let east = at(&set.context, "44/station/guangzhou-east");
    let mut add = |id: &str, reason: Option<R>, what: &str, consent: &Consent, now, context: &Context| {
        let vector = match reason {
            None => set.valid(id, what),
            Some(reason) => set.refused(id, reason, what),
        };
        vector.at(now).in_context(context.clone()).claims(claims::of_consent(consent));
        vector.signed("44-consent", &signed(signer, consent, "44-consent"));
    };
    add("iat-at-the-edge", None, "iat is 30 s ahead", &own, first, &home);
    add("iat-beyond", Some(R::NotYetValid), "iat is 31 s ahead", &own, first.minus(secs(1)), &home);
    add("exp-at-the-edge", None, "exp was 29 s ago", &own, last, &home);
    add("exp-beyond", Some(R::Expired), "exp was 30 s ago", &own, last.plus(secs(1)), &home);
    add("life-too-long", Some(R::LifeTooLong), "24 h and a second", &long(day + secs(1)), NOW, &home);
    add("paper-life-too-long", Some(R::LifeTooLong), "14 days and a second, on paper", &long_paper, NOW, &home);
    add("another-category", Some(R::AudienceMismatch), "for stations, shown at a hospital", &own, NOW, &hospital);
    add(
        "another-venue",
        Some(R::AudienceMismatch),
        "for one station, shown at another",
        &fixtures::assisted(signer),
        NOW,
        &east,
    );
    add("another-purpose", Some(R::PurposeNotConsented), "medical was not agreed to", &own, NOW, &medical(&home));
    let old = NOW.plus(secs(99 * 86_400));
    add(
        "life-before-time",
        Some(R::LifeTooLong),
        "too long and expired: life is told",
        &long(day + secs(1)),
        old,
        &home,
    );
    add("time-before-place", Some(R::Expired), "expired and elsewhere: time is told", &own, old, &hospital);
    let both = medical(&hospital);
    add(
        "place-before-purpose",
        Some(R::AudienceMismatch),
        "elsewhere and for something else: place is told",
        &own,
        NOW,
        &both,
    );
    let platform = Consent { issuer: Member::PLATFORM, ..own.clone() };
    add("of-no-listed-member", Some(R::KeyUnknown), "the platform is not in this list", &platform, NOW, &home);
}
