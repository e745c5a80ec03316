//! At home: who gives codes and what comes of it at the next recognition (赋码), and quotas on what a traveler may have.

use std::time::Duration;

use proto::{
    contract::{
        assignment::{SetCodeRequest, SetCodeResponse, assignment_service_client::AssignmentServiceClient},
        recognition::{Decision, Freshness, Outcome, RecognizeRequest, freshness::Requirement},
        traveler::EnrollDeviceRequest,
        types::{Document, Level},
    },
    member::Member,
    refusal::Reason,
    statement::LogHead,
    suite::{SigningKey, Suite},
    terms::Purpose,
    venue::VenueId,
};
use province_stub::seed::{Condition, SeededPerson};
use tongxing::phone::{Wish, request_id};
use tonic::{
    Code::{AlreadyExists, InvalidArgument, NotFound, ResourceExhausted},
    Status,
    transport::Channel,
};

use crate::sandbox::{
    Sandbox,
    device::{document, enrollment},
    member, shared, still_serves, venue,
    want::{Want, want},
};

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

/// A member whose people no other test counts on to stay as they were seeded.
fn home() -> Member {
    member("66")
}

fn operator() -> AssignmentServiceClient<Channel> {
    shared().desk.operator(home()).expect("the operator has credentials")
}

async fn set(request: SetCodeRequest) -> Result<SetCodeResponse, Status> {
    operator().set_code(request).await.map(tonic::Response::into_inner)
}

fn red(person: &SeededPerson) -> SetCodeRequest {
    SetCodeRequest {
        request_id: request_id(),
        document: document(person),
        label: "红码".into(),
        rule: "R-CASE".into(),
        authority: "66/cdc".into(),
        justification: "a test".into(),
    }
}

fn missing(field: &'static str) -> Want {
    want(Reason::FieldMissing, InvalidArgument).field(field)
}

fn invalid(field: &'static str) -> Want {
    want(Reason::FieldInvalid, InvalidArgument).field(field)
}

fn reused() -> Want {
    want(Reason::RequestIdReused, AlreadyExists)
}

#[tokio::test]
async fn the_next_recognition_shows_what_an_operator_set() {
    let sandbox = shared();
    let person = sandbox.person(home(), Condition::Green);
    let (one, other) = (Wish::default(), Wish { scope: proto::terms::Scope::LEVEL, ..Wish::default() });
    let pass = sandbox.pass_of(home(), &person, &one).await;
    sandbox.pass_of(home(), &person, &other).await;
    let mut last = None;
    for (label, rule, authority, outcome, level, decision) in [
        ("红码", "R-CASE", "66/cdc", Outcome::Status, Level::Red, Decision::Stop),
        ("黄码", "R-TEST", "00/health-commission", Outcome::Status, Level::Yellow, Decision::Assist),
        ("红码", "R-DEPOSITOR", "66/cdc", Outcome::Unsubstantiated, Level::Unspecified, Decision::Assist),
        ("红码", "R-CASE", "66/finance-office", Outcome::Unsubstantiated, Level::Unspecified, Decision::Assist),
        ("黄码", "R-CASE", "66/cdc", Outcome::Unsubstantiated, Level::Unspecified, Decision::Assist),
        ("绿码", "R-CASE", "66/cdc", Outcome::Status, Level::Green, Decision::Pass),
    ] {
        let name = format!("{label} by {rule} of {authority}");
        let (label, rule, authority) = (label.to_owned(), rule.to_owned(), authority.to_owned());
        let set = set(SetCodeRequest { label, rule, authority, ..red(&person) }).await.expect("the code is set");
        assert_eq!(set.assign_time, Some(sandbox.now().to_protobuf()), "{name}: another time");
        assert_eq!(set.changed_consents, 2, "{name}: another number of live consents");
        let answer = sandbox.show_after(&station(), &pass, Purpose::Entry, &set.change_token).await.answer;
        assert_eq!(answer.outcome(), outcome, "{name}: another outcome");
        assert_eq!((answer.level(), answer.decision()), (level, decision), "{name}: another level or decision");
        let (of, head) = LogHead::from_change_token(&set.change_token).expect("a change token");
        let (_, seen) = LogHead::from_change_token(&answer.change_token).expect("a change token");
        assert_eq!((of, head.epoch), (home(), seen.epoch), "{name}: another log");
        assert!(head.seq <= seen.seq, "{name}: the answer is older than the change");
        assert!(last.is_none_or(|last| head.seq >= last + 2), "{name}: two consents are two events");
        last = Some(head.seq);
    }
}

#[tokio::test]
async fn who_had_no_code_gets_one() {
    let sandbox = shared();
    let person = sandbox.person(home(), Condition::NoCode);
    let pass = sandbox.pass_of(home(), &person, &Wish::default()).await;
    let unknown = sandbox.show(&station(), &pass, Purpose::Entry).await.answer;
    assert_eq!(unknown.outcome(), Outcome::UnknownTraveler, "they have a code already");
    let set = set(SetCodeRequest { label: "绿码".into(), ..red(&person) }).await.expect("the code is set");
    let known = sandbox.show_after(&station(), &pass, Purpose::Entry, &set.change_token).await.answer;
    assert_eq!(known.outcome(), Outcome::Status);
}

#[tokio::test]
async fn a_request_id_is_for_one_request() {
    let person = shared().person(home(), Condition::Green);
    let request = red(&person);
    let first = set(request.clone()).await.expect("the code is set");
    assert_eq!(set(request.clone()).await.expect("the same request"), first, "asked again it is another answer");
    let other = || shared().person(home(), Condition::Green);
    for (name, changed) in [
        ("another label", SetCodeRequest { label: "黄码".into(), ..request.clone() }),
        ("another rule", SetCodeRequest { rule: "R-CONTACT".into(), ..request.clone() }),
        ("another authority", SetCodeRequest { authority: "00/cdc".into(), ..request.clone() }),
        ("another justification", SetCodeRequest { justification: "another".into(), ..request.clone() }),
        ("another person", SetCodeRequest { document: document(&other()), ..request.clone() }),
    ] {
        reused().check(name, set(changed).await);
    }
    assert_eq!(set(request).await.expect("the same request"), first, "after refusals it is another answer");
}

#[tokio::test]
async fn assignments_that_are_wrong() {
    let base = || red(&shared().person(home(), Condition::Green));
    let passport = |number: &str| Some(Document { r#type: 20, number: number.into() });
    let resident = |number: &str| Some(Document { r#type: 10, number: number.into() });
    let unknown_label = |label: &str| want(Reason::LabelUnknown, InvalidArgument).with("label", label);
    let nobody = || want(Reason::PersonUnknown, NotFound);
    for (name, request, want) in [
        ("an empty request", SetCodeRequest::default(), missing("request_id")),
        ("a short id", SetCodeRequest { request_id: "1234567".into(), ..base() }, invalid("request_id")),
        ("no document", SetCodeRequest { document: None, ..base() }, missing("document")),
        (
            "a wrong check digit",
            SetCodeRequest { document: resident("110105194912310021"), ..base() },
            invalid("document.number"),
        ),
        ("no number", SetCodeRequest { document: passport(""), ..base() }, missing("document.number")),
        ("a label of another member", SetCodeRequest { label: "未见异常".into(), ..base() }, unknown_label("未见异常")),
        ("a label of nobody", SetCodeRequest { label: "紫码".into(), ..base() }, unknown_label("紫码")),
        ("no label", SetCodeRequest { label: String::new(), ..base() }, missing("label")),
        ("no rule", SetCodeRequest { rule: String::new(), ..base() }, missing("rule")),
        ("no authority", SetCodeRequest { authority: String::new(), ..base() }, missing("authority")),
        ("an authority without a member", SetCodeRequest { authority: "cdc".into(), ..base() }, invalid("authority")),
        ("an authority in Chinese", SetCodeRequest { authority: "66/疾控".into(), ..base() }, invalid("authority")),
        (
            "an authority of a member that is none",
            SetCodeRequest { authority: "99/cdc".into(), ..base() },
            invalid("authority"),
        ),
        ("another member's authority", SetCodeRequest { authority: "44/cdc".into(), ..base() }, invalid("authority")),
        ("no justification", SetCodeRequest { justification: String::new(), ..base() }, missing("justification")),
        ("nobody's passport", SetCodeRequest { document: passport("E00000000"), ..base() }, nobody()),
        ("nobody's ID", SetCodeRequest { document: resident("11010519491231002X"), ..base() }, nobody()),
    ] {
        want.check(name, set(request).await);
    }
    set(base()).await.expect("a good one is taken after all these");
}

/// The request to enrol a phone for somebody whom no node knows.
fn newcomer(name: &str, passport: &str) -> EnrollDeviceRequest {
    let key = SigningKey::generate(Suite::Esp256);
    EnrollDeviceRequest {
        document: Some(Document { r#type: 20, number: passport.into() }),
        name: name.into(),
        ..enrollment(&shared().person(home(), Condition::Green), &key)
    }
}

#[tokio::test]
async fn a_newcomer_is_unknown_until_home_gives_a_code() {
    let sandbox = shared();
    let key = SigningKey::generate(Suite::Esp256);
    let enroll = EnrollDeviceRequest {
        enrollment_key: enrollment(&sandbox.person(home(), Condition::Green), &key).enrollment_key,
        ..newcomer("司马迁徙", "E40404040")
    };
    let mut travelers = sandbox.travelers(home());
    let id = travelers.enroll_device(enroll.clone()).await.expect("a newcomer enrols").into_inner().device_id;
    let again = travelers.enroll_device(enroll.clone()).await.expect("the same request").into_inner().device_id;
    assert_eq!(again, id, "asked again it is another device");
    let device = sandbox.device_of(home(), id.try_into().unwrap(), key);
    let token_key = SigningKey::generate(Suite::Esp256);
    let mut wish = sandbox.wish(&device);
    wish.token_key = Some(token_key.verifying_key().clone());
    let token = device.ask(&wish).await.expect("a token").token;
    let pass = tongxing::phone::Pass::new(token, Some(token_key), proto::presentation::HintKey([0; 16]), sandbox.now());
    let request = sandbox.request(&station(), &pass.unwrap());
    let answer = sandbox.at(&station()).send(request.clone()).await.expect("an answer");
    assert_eq!(answer.outcome(), Outcome::UnknownTraveler, "home vouches for a code that nobody gave");
    let code = SetCodeRequest {
        document: enroll.document,
        label: "绿码".into(),
        ..red(&sandbox.person(home(), Condition::Green))
    };
    let set = set(code).await.expect("the code is set");
    let freshness = Some(Freshness { requirement: Some(Requirement::AtLeastAsFresh(set.change_token)) });
    let request = RecognizeRequest { freshness, ..request };
    still_serves(&sandbox.at(&station()), &request, "home gave a code").await;
}

#[tokio::test]
async fn enrolments_that_are_wrong() {
    let sandbox = shared();
    let mut travelers = sandbox.travelers(home());
    let good = newcomer("公孙大娘", "E50505050");
    travelers.enroll_device(good.clone()).await.expect("a newcomer enrols");
    let fresh = || newcomer("公孙大娘", "E50505050");
    for (name, request, want) in [
        ("another name under one id", EnrollDeviceRequest { name: "公孙二娘".into(), ..good.clone() }, reused()),
        ("another name for one document", EnrollDeviceRequest { name: "公孙二娘".into(), ..fresh() }, invalid("name")),
        (
            "a key used before",
            EnrollDeviceRequest { enrollment_key: good.enrollment_key.clone(), ..fresh() },
            invalid("enrollment_key"),
        ),
        ("no key", EnrollDeviceRequest { enrollment_key: vec![], ..fresh() }, missing("enrollment_key")),
        (
            "a key that is none",
            EnrollDeviceRequest { enrollment_key: vec![0xa0], ..fresh() },
            invalid("enrollment_key"),
        ),
        ("a name of 65", EnrollDeviceRequest { name: "长".repeat(65), ..fresh() }, invalid("name")),
        ("no name", EnrollDeviceRequest { name: String::new(), ..fresh() }, missing("name")),
    ] {
        want.check(name, travelers.enroll_device(request).await);
    }
    for _ in 1..8 {
        travelers.enroll_device(fresh()).await.expect("up to eight phones");
    }
    let too_many = want(Reason::TooManyDevices, ResourceExhausted).with("limit", 8);
    too_many.check("a ninth phone", travelers.enroll_device(fresh()).await);
}

#[tokio::test]
async fn a_traveler_has_sixteen_live_consents_at_most() {
    let sandbox = Sandbox::start(&["44", "66"]).await;
    let person = sandbox.person(home(), Condition::Green);
    let phones = [sandbox.device(home(), &person).await, sandbox.device(home(), &person).await];
    let mut first = None;
    for n in 0..16 {
        let phone = &phones[n % 2];
        let wish = sandbox.wish(phone);
        let issued = phone.ask(&wish).await.unwrap_or_else(|status| panic!("consent {n}: {status:?}"));
        first.get_or_insert((wish, issued));
    }
    let too_many = want(Reason::TooManyConsents, ResourceExhausted).with("limit", 16);
    for phone in &phones {
        too_many.check("a seventeenth", phone.ask(&sandbox.wish(phone)).await);
    }
    // What was issued before is not one more.
    let (wish, issued) = first.expect("sixteen were issued");
    assert_eq!(phones[0].ask(&wish).await.expect("the same request").token, issued.token, "another token");
    let neighbour = sandbox.device(home(), &sandbox.person(home(), Condition::Green)).await;
    neighbour.ask(&sandbox.wish(&neighbour)).await.expect("another traveler has consents of their own");
    sandbox.clock.advance(Duration::from_secs(3700));
    phones[0].ask(&sandbox.wish(&phones[0])).await.expect("consents that are over make room");
    sandbox.stop().await;
}
