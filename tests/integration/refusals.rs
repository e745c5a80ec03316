//! Bad tokens and proofs, case by case: each gets its own documented reason, and the gateway serves on. Consents to something
//! else are in `uses.rs`, wrong requests and callers in `requests.rs`, what the gateway itself lacks in `service.rs`.

use std::time::Duration;

use ciborium::Value;
use proto::{
    cbor::{self, MapBuilder},
    contract::recognition::Outcome,
    presentation::Presentation,
    refusal::Reason,
    suite::{SigningKey, Suite},
    terms::{Kind, Purpose, Scope},
    token::Consent,
};
use tonic::Code::{FailedPrecondition, InvalidArgument, Unauthenticated};

use crate::sandbox::{
    cases::{consent, proof, request, run, station, token},
    forge::{self, ALG, CRIT, Forger, KID, PROOF, TOKEN, TYP},
    member, shared,
    want::{Want, want},
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn layout(reason: Reason) -> Want {
    want(reason, InvalidArgument).about("token")
}

fn malformed(detail: &str) -> Want {
    layout(Reason::ObjectMalformed).with("detail", detail)
}

#[tokio::test]
async fn a_token_that_is_no_object() {
    let home = Forger::of(shared(), member("51"));
    let good = home.sign(&home.consent());
    let array = |items: Vec<Value>| cbor::encode(&Value::Array(items)).unwrap();
    let too_large = || layout(Reason::ObjectTooLarge).with("max_bytes", 1024);
    run(vec![
        token("no CBOR at all", vec![0xff; 40], layout(Reason::NotCbor)),
        token("a text", b"TX1:NOT A TOKEN".to_vec(), layout(Reason::NotCbor)),
        token("cut short", good[..good.len() - 1].to_vec(), layout(Reason::NotCbor)),
        token("a byte behind it", [&good[..], &[0]].concat(), layout(Reason::TrailingBytes)),
        token("a longer encoding", forge::not_deterministic(&good), layout(Reason::NotDeterministic)),
        token("a tag before it", [&[0xd2], &good[..]].concat(), layout(Reason::NotDeterministic)),
        token("2 KiB", vec![0; 2048], too_large()),
        token("a byte too large", vec![0; 1025], too_large()),
        token("as large as may be", vec![0; 1024], layout(Reason::TrailingBytes)),
        token("nested without end", vec![0x81; 1000], layout(Reason::NotCbor)),
        token("a number", vec![1], malformed("not an array of four")),
        token("three parts", array(vec![1.into(); 3]), malformed("not an array of four")),
        token("four numbers", array(vec![1.into(); 4]), malformed("header, payload and signature are byte strings")),
    ])
    .await;
}

#[tokio::test]
async fn a_token_whose_header_is_not_one() {
    let home = Forger::of(shared(), member("51"));
    let consent = home.consent();
    let (kid, key) = (home.kid(), &home.keys.consent);
    let with = |header: MapBuilder| forge::sign1(header, forge::payload(&consent, "51", None), key, b"");
    let algorithm = |alg: i64| with(forge::header(kid).put(ALG, alg));
    let refused = |alg: i64| layout(Reason::AlgorithmNotAllowed).with("alg", alg);
    let other_type = |typ: u64| with(MapBuilder::new().put(ALG, -19).put(KID, kid.0.to_vec()).put(TYP, typ));
    let mismatch = || layout(Reason::TypeMismatch).with("expected", TOKEN);
    let critical = forge::header(kid).put(ALG, -19).put(CRIT, vec![Value::from(99)]).put(99, 1);
    run(vec![
        token("the polymorphic ES256", algorithm(-7), refused(-7)),
        token("the polymorphic EdDSA", algorithm(-8), refused(-8)),
        token("ES384", algorithm(-35), refused(-35)),
        token("HMAC", algorithm(5), refused(5)),
        token("a critical header", with(critical), layout(Reason::CriticalHeaderUnknown)),
        token("a header more", with(forge::header(kid).put(ALG, -19).put(99, 1)), malformed("99: unknown")),
        token("no algorithm", with(forge::header(kid)), malformed("1 is missing")),
        token("a proof's type", other_type(PROOF), mismatch()),
        token("a statement's type", other_type(65003), mismatch()),
        token("no type", with(MapBuilder::new().put(ALG, -19).put(KID, kid.0.to_vec())), malformed("16 is missing")),
        token("no kid", with(MapBuilder::new().put(ALG, -19).put(TYP, TOKEN)), malformed("4 is missing")),
    ])
    .await;
}

#[tokio::test]
async fn a_token_whose_claims_are_not_a_tokens() {
    let home = Forger::of(shared(), member("51"));
    let good = home.consent();
    let with = |iss: &str, consent: &Consent, extra| {
        let header = forge::header(home.kid()).put(ALG, -19);
        forge::sign1(header, forge::payload(consent, iss, extra), &home.keys.consent, b"")
    };
    let signed = |consent: Consent| home.sign(&consent);
    let no_level = signed(Consent { scope: Scope::TESTS, ..good.clone() });
    let wide_paper = signed(Consent { scope: Scope::ALL, ..home.paper() });
    let one_venue = "an assisted token is for one venue";
    run(vec![
        token("a member that is none", with("99", &good, None), layout(Reason::MemberUnknown).with("member", "99")),
        token("a member that is a name", with("王", &good, None), malformed("1: not a text of the documented length")),
        token("a member of two letters", with("xy", &good, None), layout(Reason::MemberUnknown)),
        token("a claim more", with("51", &good, Some((99, "王小明".into()))), malformed("99: unknown")),
        token("no level", no_level, malformed("a consent discloses the level at least")),
        token("paper that discloses all", wide_paper, malformed("paper discloses the level only")),
        token("assisted for anywhere", signed(Consent { kind: Kind::Assisted, ..home.paper() }), malformed(one_venue)),
        token(
            "own without a device",
            signed(Consent { device_key: None, ..good.clone() }),
            malformed("own and dependent tokens, and no others, have a device key"),
        ),
        token(
            "over before it begins",
            signed(Consent { expires_at: good.issued_at, ..good.clone() }),
            malformed("it expires before it is issued"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_token_that_its_issuers_key_did_not_sign() {
    let (home, other) = (Forger::of(shared(), member("51")), Forger::of(shared(), member("44")));
    let good = home.consent();
    let unknown = |code: &str| want(Reason::KeyUnknown, Unauthenticated).about("token").with("member", code);
    let devices_suite = forge::header(home.kid()).put(ALG, -9);
    let mismatched = forge::sign1(devices_suite, forge::payload(&good, "51", None), &home.device, b"");
    let invalid = || want(Reason::SignatureInvalid, Unauthenticated).about("token");
    let stolen_kid = forge::header(home.kid()).put(ALG, -19);
    let stolen_kid = forge::sign1(stolen_kid, forge::payload(&good, "51", None), &other.keys.consent, b"");
    let mut changed = home.sign(&good);
    let cti = changed.windows(16).position(|window| window == good.cti.0).expect("the handle is in the token");
    changed[cti] ^= 1;
    run(vec![
        token("a stranger's key", good.sign(&SigningKey::generate(Suite::Ed25519)), unknown("51")),
        token("44's key for 51's traveler", good.sign(&other.keys.consent), unknown("51")),
        token("home's statement key", good.sign(&home.keys.statement), unknown("51")),
        token("a member that is not here", home.sign(&Consent { issuer: member("31"), ..good.clone() }), unknown("31")),
        token("the device's algorithm", mismatched, want(Reason::AlgorithmMismatch, Unauthenticated).about("token")),
        token("home's kid over 44's signature", stolen_kid, invalid()),
        token("a flipped bit of the signature", forge::flipped(&home.sign(&good)), invalid()),
        token("a flipped bit of the handle", changed, invalid()),
    ])
    .await;
}

#[tokio::test]
async fn a_proof_that_is_no_object() {
    let home = Forger::of(shared(), member("51"));
    let layout = |reason| want(reason, InvalidArgument).about("proof");
    let prove = |token: &[u8], consent: &Consent| home.prove(token, consent.cti, Some(&station()));
    let es256 = |token: &[u8], consent: &Consent| {
        let kid = consent.cti.0[..8].to_vec();
        let header = MapBuilder::new().put(ALG, -7).put(KID, kid).put(TYP, PROOF);
        forge::sign1(header, vec![0xa0], &home.device, &proto::suite::sha256(token))
    };
    let too_large = layout(Reason::ObjectTooLarge).with("max_bytes", 1024);
    let malformed = layout(Reason::ObjectMalformed).with("detail", "not an array of four");
    run(vec![
        proof("no CBOR", &home, layout(Reason::NotCbor), |_, _| vec![0xff; 40]),
        proof("a byte behind it", &home, layout(Reason::TrailingBytes), |t, c| [&prove(t, c)[..], &[0]].concat()),
        proof("a longer encoding", &home, layout(Reason::NotDeterministic), |t, c| {
            forge::not_deterministic(&prove(t, c))
        }),
        proof("2 KiB", &home, too_large, |_, _| vec![0; 2048]),
        proof("an empty array", &home, malformed, |_, _| vec![0x80]),
        proof("the token again", &home, layout(Reason::TypeMismatch).with("expected", PROOF), |t, _| t.to_vec()),
        proof("ES256 as phones call it", &home, layout(Reason::AlgorithmNotAllowed).with("alg", -7), es256),
    ])
    .await;
}

#[tokio::test]
async fn a_proof_that_the_tokens_device_did_not_make() {
    let (home, thief) = (Forger::of(shared(), member("51")), Forger::of(shared(), member("51")));
    let invalid = || want(Reason::SignatureInvalid, Unauthenticated).about("proof");
    let mismatch = want(Reason::AlgorithmMismatch, Unauthenticated).about("proof");
    let ed25519 = |token: &[u8], consent: &Consent| {
        let kid = consent.cti.0[..8].to_vec();
        let now = home.now.as_secs();
        let header = MapBuilder::new().put(ALG, -19).put(KID, kid).put(TYP, PROOF);
        let claims = MapBuilder::new().put(4, now + 60).put(6, now).put(10, vec![0; 8]);
        forge::sign1(header, claims.encode(), &home.keys.consent, &proto::suite::sha256(token))
    };
    run(vec![
        proof("another device's", &home, invalid(), |t, c| thief.prove(t, c.cti, Some(&station()))),
        proof("for another token", &home, invalid(), |_, c| home.prove(b"another", c.cti, Some(&station()))),
        proof("naming another handle", &home, invalid(), |t, _| home.prove(t, home.consent().cti, Some(&station()))),
        proof("a flipped bit", &home, invalid(), |t, c| forge::flipped(&home.prove(t, c.cti, Some(&station())))),
        proof("by an issuer's algorithm", &home, mismatch, ed25519),
    ])
    .await;
}

#[tokio::test]
async fn lives_that_are_over_or_not_begun_or_too_long() {
    let home = Forger::of(shared(), member("51"));
    let (now, good) = (home.now, home.consent());
    let time = |reason, object: &str| want(reason, FailedPrecondition).about(object);
    let expired = |object: &str, seconds| time(Reason::Expired, object).with("seconds", seconds);
    let at = |issued_at, expires_at| Consent { issued_at, expires_at, ..good.clone() };
    let too_long = |object: &str, seconds| time(Reason::LifeTooLong, object).with("max_seconds", seconds);
    let long_paper = Consent { expires_at: now.plus(14 * 24 * HOUR + SECOND), ..home.paper() };
    let prove = |at, life| {
        let home = &home;
        move |token: &[u8], consent: &Consent| home.prove_at(token, consent.cti, Some(&station()), at, life)
    };
    let off = time(Reason::DeviceClockOff, "proof").with("seconds", 31);
    run(vec![
        consent("a token long over", &home, &at(now.minus(HOUR), now.minus(61 * SECOND)), expired("token", 61)),
        consent("a token just over", &home, &at(now.minus(HOUR), now.minus(30 * SECOND)), expired("token", 30)),
        consent(
            "a token of the future",
            &home,
            &at(now.plus(31 * SECOND), now.plus(HOUR)),
            time(Reason::NotYetValid, "token").with("seconds", 31),
        ),
        consent(
            "a token of 24 h and a second",
            &home,
            &at(now, now.plus(24 * HOUR + SECOND)),
            too_long("token", 86_400),
        ),
        consent("paper of 14 days and a second", &home, &long_paper, too_long("token", 14 * 86_400)),
        proof("a proof of yesterday", &home, expired("proof", 86_340), prove(now.minus(24 * HOUR), 60 * SECOND)),
        proof("a proof just over", &home, expired("proof", 30), prove(now.minus(90 * SECOND), 60 * SECOND)),
        proof("a proof of 61 s", &home, too_long("proof", 60), prove(now, 61 * SECOND)),
        proof("a device whose clock is ahead", &home, off, prove(now.plus(31 * SECOND), 60 * SECOND)),
    ])
    .await;
}

#[tokio::test]
async fn lives_at_their_edges_are_taken() {
    let sandbox = shared();
    let home = Forger::of(sandbox, member("51"));
    let (now, good) = (home.now, home.consent());
    let at = |issued_at, expires_at| Consent { issued_at, expires_at, ..good.clone() };
    let checkpoint = sandbox.at(&station());
    let taken = async |name: &str, presentation: &Presentation| {
        let answer = checkpoint.send(request(presentation, Purpose::Entry)).await;
        let outcome = answer.unwrap_or_else(|status| panic!("{name} is refused: {status:?}")).outcome();
        // Home never issued it, and says so: consent was found good by everybody.
        assert_eq!(outcome, Outcome::UnknownTraveler, "{name}: another outcome");
    };
    for (name, consent) in [
        ("a token of 24 h", at(now, now.plus(24 * HOUR))),
        ("a token within the leeway after its end", at(now.minus(HOUR), now.minus(29 * SECOND))),
        ("a token within the leeway before its time", at(now.plus(30 * SECOND), now.plus(HOUR))),
        ("paper of 14 days", Consent { expires_at: now.plus(14 * 24 * HOUR), ..home.paper() }),
    ] {
        taken(name, &home.present(&consent, Some(&station()))).await;
    }
    let token = home.sign(&good);
    for (name, made) in [("made 89 s ago", now.minus(89 * SECOND)), ("made in 30 s", now.plus(30 * SECOND))] {
        let proof = home.prove_at(&token, good.cti, Some(&station()), made, 60 * SECOND);
        let presentation = Presentation { proof: Some(proof), ..home.present(&good, None) };
        taken(name, &Presentation { token: token.clone(), ..presentation }).await;
    }
}
