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
use tongxing::{
    checkpoint::Checkpoint,
    phone::{Pass, Wish, request_id},
};
use tonic::{
    Code::{InvalidArgument, PermissionDenied},
    Status,
};

use crate::sandbox::{Sandbox, gateway::OwnGateway, member, metric, node, until, venue, want::want};

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
    let gateway = OwnGateway::start(&sandbox, |_| {}).await;
    let checkpoint = gateway.at(&sandbox, &station());
    let warm = sandbox.green(home()).await;
    until("the gateway holds an answer", Duration::from_secs(10), async || {
        let answer = checkpoint.send(sandbox.request(&station(), &warm)).await;
        answer.is_ok_and(|answer| answer.source() == Source::Cache)
    })
    .await;
    let pass = sandbox.green(home()).await;
    let before = lookups().await;
    // As many as this unoptimised build takes in before the first of them is half a second old.
    for answer in ask_at_once(&checkpoint, &sandbox.request(&station(), &pass), 40).await {
        assert_eq!(answer.expect("there is an answer").level(), types::Level::Green);
    }
    assert_eq!(lookups().await - before, 1.0, "lookups at home");
    gateway.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn many_who_ask_a_home_that_hangs_share_a_lookup_and_all_hear_in_time() {
    let sandbox = start().await;
    let hung = node::fake(&sandbox, &sandbox.layout().node(home()), |_| None).await;
    let gateway = OwnGateway::with_node(&sandbox, HOME, &hung.address, |config| {
        config.limits.member = Default::default();
    })
    .await;
    let checkpoint = gateway.at(&sandbox, &station());
    let pass = sandbox.green(home()).await;
    let began = Instant::now();
    for answer in ask_at_once(&checkpoint, &sandbox.request(&station(), &pass), 40).await {
        assert_eq!(answer.expect("there is an answer").outcome(), Outcome::HomeUnreachable);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    // An attempt and a retry for whoever asks within half a second; without any lease.
    let flights = 1 + took.as_millis() as usize / 500;
    assert!(hung.heard().len() <= 2 * flights, "{} lookups in {took:?}", hung.heard().len());
    gateway.stop().await;
    sandbox.stop().await;
}

/// A change token that home never gave makes the flight that its caller leads no worse for those who share it.
#[tokio::test]
async fn whoever_wants_more_than_home_has_harms_nobody_else() {
    let sandbox = start().await;
    let known = answer(&sandbox, &sandbox.green(home()).await).await.change_token;
    let (member, head) = LogHead::from_change_token(&known).expect("a change token");
    let beyond = LogHead { seq: u64::MAX, ..head }.to_change_token(member);
    let checkpoint = sandbox.at(&station());
    for _ in 0..5 {
        let pass = sandbox.green(home()).await;
        let request = sandbox.request(&station(), &pass);
        let freshness = Some(Freshness { requirement: Some(Requirement::AtLeastAsFresh(beyond.clone())) });
        let leads = RecognizeRequest { freshness, ..request.clone() };
        let leading = tokio::spawn({
            let checkpoint = checkpoint.clone();
            async move { checkpoint.send(leads).await }
        });
        for shared in ask_at_once(&checkpoint, &request, 20).await {
            assert_eq!(shared.expect("there is an answer").outcome(), Outcome::Status, "somebody else's wish counts");
        }
        let leader = leading.await.unwrap().expect("there is an answer");
        assert_eq!(leader.outcome(), Outcome::HomeUnreachable, "home has nothing as fresh as that");
    }
    sandbox.stop().await;
}

/// So many who ask the same at once.
async fn ask_at_once(
    checkpoint: &Checkpoint,
    request: &RecognizeRequest,
    many: usize,
) -> Vec<Result<RecognizeResponse, Status>> {
    let asks = (0..many).map(|_| {
        let (checkpoint, request) = (checkpoint.clone(), request.clone());
        tokio::spawn(async move { checkpoint.send(request).await })
    });
    let mut answers = Vec::new();
    for asked in asks.collect::<Vec<_>>() {
        answers.push(asked.await.expect("asking does not panic"));
    }
    answers
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
