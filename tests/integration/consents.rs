//! What a phone asks its home for: signed by the key it enrolled with, fresh, and no more than policy lets it have.

use std::time::Duration;

use proto::{
    cbor::MapBuilder,
    consent_request::ConsentRequest,
    member::Member,
    refusal::Reason,
    statement::LogHead,
    suite::{SigningKey, Suite},
    terms::{Kind, Scope},
    token::UnverifiedToken,
};
use province_stub::seed::Condition;
use tonic::Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unauthenticated};

use crate::sandbox::{
    device::{Device, enrollment},
    forge::{self, ALG, KID, TYP},
    member, shared,
    want::{Want, want},
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// `typ` of a consent request.
const REQUEST: u64 = 65007;

fn home() -> Member {
    member("51")
}

async fn device() -> Device {
    shared().device(home(), &shared().person(home(), Condition::Green)).await
}

fn wrong(field: &'static str) -> Want {
    want(Reason::FieldInvalid, InvalidArgument).field(field)
}

fn of(reason: Reason, code: tonic::Code) -> Want {
    want(reason, code).about("consent_request")
}

/// Where a change token says that this member's log stood.
fn seq(token: &[u8]) -> u64 {
    let (of, head) = LogHead::from_change_token(token).expect("a change token");
    assert_eq!(of, home());
    head.seq
}

#[tokio::test]
async fn every_write_says_where_the_change_log_stands() {
    let person = shared().person(home(), Condition::Green);
    let (key, mut travelers) = (SigningKey::generate(Suite::Esp256), shared().travelers(home()));
    let enrolled = travelers.enroll_device(enrollment(&person, &key)).await.expect("the phone enrols").into_inner();
    let phone = shared().device_of(home(), enrolled.device_id.try_into().expect("16 bytes"), key);
    let paper = || ConsentRequest { kind: Kind::Paper, token_key: None, scope: Scope::LEVEL, ..shared().wish(&phone) };
    let first = phone.ask(&paper()).await.expect("a paper token");
    // Others use this node too, so numbers may move by more; they never stand.
    assert!(seq(&enrolled.change_token) <= seq(&first.change_token));
    let reprint = paper();
    let second = phone.ask(&reprint).await.expect("a reprint");
    assert!(seq(&first.change_token) < seq(&second.change_token), "the revocation of the first is in the log");
    let again = phone.ask(&reprint).await.expect("the reprint again");
    assert_eq!(again.token, second.token);
    assert!(seq(&second.change_token) <= seq(&again.change_token));
}

#[tokio::test]
async fn a_request_that_is_no_object() {
    let phone = device().await;
    let good = shared().wish(&phone).sign(&phone.enrollment);
    let layout = |reason| of(reason, InvalidArgument);
    let token = phone.ask(&shared().wish(&phone)).await.expect("a token").token;
    let kid = phone.enrollment.verifying_key().kid().0.to_vec();
    let es256 = MapBuilder::new().put(ALG, -7).put(KID, kid).put(TYP, REQUEST);
    let es256 = forge::sign1(es256, vec![0xa0], &phone.enrollment, b"");
    let malformed = layout(Reason::ObjectMalformed).with("detail", "not an array of four");
    for (name, bytes, want) in [
        ("nothing", vec![], want(Reason::FieldMissing, InvalidArgument).field("consent_request")),
        ("noise", vec![0xff; 40], layout(Reason::NotCbor)),
        ("a byte behind it", [&good[..], &[0]].concat(), layout(Reason::TrailingBytes)),
        ("a longer encoding", forge::not_deterministic(&good), layout(Reason::NotDeterministic)),
        ("2 KiB", vec![0; 2048], layout(Reason::ObjectTooLarge).with("max_bytes", 1024)),
        ("an empty array", vec![0x80], malformed),
        ("a token", token, layout(Reason::TypeMismatch).with("expected", REQUEST)),
        ("ES256 as phones call it", es256, layout(Reason::AlgorithmNotAllowed).with("alg", -7)),
    ] {
        want.check(name, phone.send(bytes).await);
    }
    phone.send(good).await.expect("a good one is taken after all these");
}

#[tokio::test]
async fn a_request_that_the_enrolled_phone_did_not_just_sign() {
    let (sandbox, phone, other) = (shared(), device().await, device().await);
    let now = sandbox.now();
    let wish = || sandbox.wish(&phone);
    let invalid = of(Reason::SignatureInvalid, Unauthenticated);
    invalid.check("another phone's key", phone.send(wish().sign(&other.enrollment)).await);
    invalid.check("a flipped bit", phone.send(forge::flipped(&wish().sign(&phone.enrollment))).await);
    let unknown = want(Reason::DeviceUnknown, NotFound);
    unknown.check("a phone that never enrolled", phone.ask(&ConsentRequest { device_id: [7; 16], ..wish() }).await);
    let at = |issued_at| ConsentRequest { issued_at, ..wish() };
    let stale = of(Reason::Expired, FailedPrecondition).with("seconds", 1);
    stale.check("of 301 s ago", phone.ask(&at(now.minus(301 * SECOND))).await);
    let ahead = of(Reason::DeviceClockOff, FailedPrecondition).with("seconds", 31);
    ahead.check("of a clock ahead", phone.ask(&at(now.plus(31 * SECOND))).await);
    for at_the_edge in [now.minus(300 * SECOND), now.plus(30 * SECOND)] {
        phone.ask(&at(at_the_edge)).await.expect("the edges are within");
    }
}

#[tokio::test]
async fn a_request_for_what_is_not_issued() {
    let (sandbox, phone) = (shared(), device().await);
    let wish = || sandbox.wish(&phone);
    let paper = || ConsentRequest { kind: Kind::Paper, token_key: None, scope: Scope::LEVEL, ..wish() };
    let used = wish();
    phone.ask(&used).await.expect("a token");
    let key = phone.enrollment.verifying_key().clone();
    let too_long = |seconds| of(Reason::LifeTooLong, FailedPrecondition).with("max_seconds", seconds);
    for (name, request, want) in [
        ("for a dependent", ConsentRequest { kind: Kind::Dependent, ..wish() }, wrong("consent_request.kind")),
        ("assisted", ConsentRequest { kind: Kind::Assisted, ..paper() }, wrong("consent_request.kind")),
        ("a phone's without a key", ConsentRequest { token_key: None, ..wish() }, wrong("consent_request.token_key")),
        (
            "paper with a key",
            ConsentRequest { token_key: used.token_key.clone(), ..paper() },
            wrong("consent_request.token_key"),
        ),
        ("by the enrolment key", ConsentRequest { token_key: Some(key), ..wish() }, wrong("consent_request.token_key")),
        (
            "by a key used before",
            ConsentRequest { token_key: used.token_key.clone(), ..wish() },
            wrong("consent_request.token_key"),
        ),
        ("without the level", ConsentRequest { scope: Scope::TESTS, ..wish() }, wrong("consent_request.scope")),
        ("paper with tests", ConsentRequest { scope: Scope::ALL, ..paper() }, wrong("consent_request.scope")),
        ("for no time", ConsentRequest { life: Duration::ZERO, ..wish() }, wrong("consent_request.life")),
        ("for 24 h and a second", ConsentRequest { life: 24 * HOUR + SECOND, ..wish() }, too_long(86_400)),
        ("paper for 15 days", ConsentRequest { life: 15 * 24 * HOUR, ..paper() }, too_long(14 * 86_400)),
    ] {
        want.check(name, phone.ask(&request).await);
    }
    phone.ask(&ConsentRequest { life: 24 * HOUR, ..wish() }).await.expect("24 h are issued");
    phone.ask(&ConsentRequest { life: 14 * 24 * HOUR, ..paper() }).await.expect("14 days of paper are issued");
}

#[tokio::test]
async fn a_nonce_is_for_one_request() {
    let (sandbox, phone) = (shared(), device().await);
    let wish = sandbox.wish(&phone);
    let issued = phone.ask(&wish).await.expect("a token");
    assert_eq!(phone.ask(&wish).await.expect("the same request"), issued, "asked again it is another token");
    let reused = want(Reason::RequestIdReused, AlreadyExists);
    let changed = ConsentRequest { scope: Scope::LEVEL, ..wish.clone() };
    reused.check("another scope under one nonce", phone.ask(&changed).await);
    // A phone that signs again later asks for the same thing still.
    let later = ConsentRequest { issued_at: sandbox.now().plus(SECOND), ..wish };
    assert_eq!(phone.ask(&later).await.expect("signed again").token, issued.token, "another token");
}

#[tokio::test]
async fn a_token_says_what_was_wished_and_who_it_is_of_only_by_chance() {
    let (sandbox, phone) = (shared(), device().await);
    let key = SigningKey::generate(Suite::Esp256).verifying_key().clone();
    let wish = ConsentRequest { token_key: Some(key.clone()), ..sandbox.wish(&phone) };
    let issued = phone.ask(&wish).await.expect("a token");
    let token = UnverifiedToken::parse(&issued.token).expect("a token parses");
    let trusted = sandbox.desk.trust().list.consent_key(home(), token.kid()).expect("a key of home's").clone();
    let token = token.verify(&trusted).expect("home signed it");
    let consent = token.consent();
    assert_eq!((consent.issuer, consent.kind), (home(), Kind::Own), "another issuer or kind");
    assert_eq!((&consent.audience, consent.purposes), (&wish.audience, wish.purposes), "another audience or purpose");
    assert_eq!((consent.scope, consent.device_key.as_ref()), (wish.scope, Some(&key)), "another scope or key");
    assert_eq!(consent.expires_at, sandbox.now().plus(HOUR), "another life");
    assert_eq!(issued.expire_time, Some(consent.expires_at.to_protobuf()), "home says another end");
    assert_eq!(issued.home_time, Some(sandbox.now().to_protobuf()), "home says another time");
    assert_ne!(consent.cti.0, wish.nonce, "the handle is the phone's own choice");
    assert_eq!(issued.hint_key.len(), 16, "no k");
}
