//! What the gateway holds: given again only while it is known to hold, gone with the first event, and never old for longer
//! than a second (I4).

use std::time::Duration;

use proto::{
    contract::{
        assignment::SetCodeRequest,
        recognition::{Freshness, Outcome, RecognizeRequest, RecognizeResponse, Source, freshness::Requirement},
        types,
    },
    member::Member,
    refusal::Reason,
    statement::LogHead,
    terms::{Kind, Purpose},
    venue::VenueId,
};
use province_stub::seed::{Condition, SeededPerson};
use tokio::time::{Instant, sleep};
use tongxing::phone::{Pass, Wish, request_id};
use tonic::Code::{InvalidArgument, PermissionDenied};

use crate::sandbox::{Sandbox, member, metric, until, venue, want::want};

const HOME: &str = "44";

fn home() -> Member {
    member(HOME)
}

fn station() -> VenueId {
    venue("11/station/beijing-west")
}

/// A federation of two, its gateway following both.
async fn start() -> Sandbox {
    let sandbox = Sandbox::start(&["11", HOME]).await;
    let pass = sandbox.green(home()).await;
    until("the gateway holds an answer", Duration::from_secs(10), async || {
        answer(&sandbox, &pass).await.source() == Source::Cache
    })
    .await;
    sandbox
}

async fn answer(sandbox: &Sandbox, pass: &Pass) -> RecognizeResponse {
    sandbox.show(&station(), pass, Purpose::Entry).await.answer
}

async fn ask(sandbox: &Sandbox, pass: &Pass, requirement: Requirement) -> RecognizeResponse {
    let freshness = Some(Freshness { requirement: Some(requirement) });
    let request = RecognizeRequest { freshness, ..sandbox.request(&station(), pass) };
    sandbox.at(&station()).send(request).await.expect("there is an answer")
}

/// Sets a person's label; where home's log stood after it.
async fn set(sandbox: &Sandbox, person: &SeededPerson, label: &str) -> Vec<u8> {
    let request = SetCodeRequest {
        request_id: request_id(),
        document: Some(types::Document {
            r#type: i32::from(person.document.kind().number()),
            number: person.document.number().to_owned(),
        }),
        label: label.into(),
        rule: "R-CASE".into(),
        authority: "44/cdc".into(),
        justification: "a test".into(),
    };
    let mut operator = sandbox.desk.operator(home()).expect("the operator has credentials");
    operator.set_code(request).await.expect("the code is set").into_inner().change_token
}

#[tokio::test]
async fn a_second_look_comes_from_the_cache_and_a_change_takes_it() {
    let sandbox = start().await;
    let person = sandbox.person(home(), Condition::Green);
    let pass = sandbox.pass_of(home(), &person, &Wish::default()).await;
    let first = answer(&sandbox, &pass).await;
    assert_eq!((first.source(), first.level()), (Source::Home, types::Level::Green));
    let second = answer(&sandbox, &pass).await;
    assert_eq!((second.source(), second.level()), (Source::Cache, types::Level::Green));
    assert_eq!((second.statement, second.as_of), (first.statement, first.as_of), "another statement");
    assert_ne!(second.exchange_id, first.exchange_id, "each look is on record");

    let changed = set(&sandbox, &person, "红码").await;
    let fresh = ask(&sandbox, &pass, Requirement::AtLeastAsFresh(changed)).await;
    assert_eq!((fresh.source(), fresh.level()), (Source::Home, types::Level::Red));
    let held = answer(&sandbox, &pass).await;
    assert_eq!((held.source(), held.level()), (Source::Cache, types::Level::Red));
    let straight = ask(&sandbox, &pass, Requirement::FromHome(true)).await;
    assert_eq!(straight.source(), Source::Home);
    sandbox.stop().await;
}

#[tokio::test]
async fn a_flip_is_seen_within_a_second_by_whoever_asks_for_nothing_special() {
    let sandbox = start().await;
    let person = sandbox.person(home(), Condition::Green);
    let pass = sandbox.pass_of(home(), &person, &Wish::default()).await;
    for (label, level) in [("红码", types::Level::Red), ("绿码", types::Level::Green), ("红码", types::Level::Red)]
    {
        answer(&sandbox, &pass).await;
        set(&sandbox, &person, label).await;
        let acknowledged = Instant::now();
        until("the new level", Duration::from_secs(1), async || answer(&sandbox, &pass).await.level() == level).await;
        assert!(acknowledged.elapsed() < Duration::from_secs(1));
    }
    sandbox.stop().await;
}

#[tokio::test]
async fn a_revoked_consent_is_refused_though_it_was_held() {
    let sandbox = start().await;
    let person = sandbox.person(home(), Condition::Green);
    let backend = sandbox.desk.backend(home()).expect("the backend has credentials");
    let phone = backend.enroll(&person).await.expect("the phone enrols");
    let pass = phone.consent(&Wish::default(), sandbox.now()).await.expect("home issues a token");
    answer(&sandbox, &pass).await;
    assert_eq!(answer(&sandbox, &pass).await.source(), Source::Cache);
    phone.revoke(&pass).await.expect("the consent is revoked");
    let mut refused = None;
    until("the refusal", Duration::from_secs(1), async || {
        refused = Some(sandbox.at(&station()).send(sandbox.request(&station(), &pass)).await);
        refused.as_ref().is_some_and(Result::is_err)
    })
    .await;
    let refused = refused.unwrap();
    want(Reason::ConsentRevoked, PermissionDenied).about("token").from("home").check("a revoked consent", refused);
    sandbox.stop().await;
}

#[tokio::test]
async fn without_the_stream_nothing_held_is_given_and_with_it_everything_is_again() {
    let mut sandbox = start().await;
    let pass = sandbox.green(home()).await;
    answer(&sandbox, &pass).await;
    assert_eq!(answer(&sandbox, &pass).await.source(), Source::Cache);
    sandbox.federation.stop_node(home()).await.expect("the node stops");
    sleep(Duration::from_millis(800)).await;
    assert_eq!(answer(&sandbox, &pass).await.outcome(), Outcome::HomeUnreachable, "a lease outlived its probes");
    sandbox.federation.restart_node(home()).await.expect("the node starts again");
    until("it is held again", Duration::from_secs(10), async || {
        answer(&sandbox, &pass).await.source() == Source::Cache
    })
    .await;
    sandbox.stop().await;
}

#[tokio::test]
async fn paper_is_asked_at_home_each_time() {
    let sandbox = start().await;
    let wish = Wish { kind: Kind::Paper, scope: proto::terms::Scope::LEVEL, ..Wish::default() };
    let pass = sandbox.pass(home(), Condition::Green, &wish).await;
    for _ in 0..3 {
        assert_eq!(answer(&sandbox, &pass).await.source(), Source::Home);
    }
    sandbox.stop().await;
}

#[tokio::test]
async fn many_who_ask_for_one_cold_traveler_cost_home_one_lookup() {
    let sandbox = start().await;
    let node = &sandbox.desk.prepared().addresses.nodes[HOME];
    let lookups = async || metric(&node.private.to_string(), "node_lookups_total").await.values().sum::<f64>();
    let pass = sandbox.green(home()).await;
    let before = lookups().await;
    let checkpoint = sandbox.at(&station());
    let asks = (0..200).map(|_| {
        let (checkpoint, request) = (checkpoint.clone(), sandbox.request(&station(), &pass));
        tokio::spawn(async move { checkpoint.send(request).await })
    });
    let mut answered = 0;
    for asked in asks.collect::<Vec<_>>() {
        if let Ok(answer) = asked.await.unwrap() {
            assert_eq!(answer.level(), types::Level::Green);
            answered += 1;
        }
    }
    assert!(answered >= 100, "{answered} answers");
    assert_eq!(lookups().await - before, 1.0, "lookups at home");
    sandbox.stop().await;
}

#[tokio::test]
async fn freshness_is_of_the_travelers_home_and_of_a_known_form() {
    let sandbox = start().await;
    let pass = sandbox.green(home()).await;
    let foreign = LogHead { epoch: [1; 16], seq: 1 }.to_change_token(member("11"));
    for token in [vec![1, 2, 3], foreign] {
        let freshness = Some(Freshness { requirement: Some(Requirement::AtLeastAsFresh(token)) });
        let request = RecognizeRequest { freshness, ..sandbox.request(&station(), &pass) };
        let refused = sandbox.at(&station()).send(request).await;
        want(Reason::FieldInvalid, InvalidArgument)
            .field("freshness.at_least_as_fresh")
            .check("no token of home's", refused);
    }
    sandbox.stop().await;
}
