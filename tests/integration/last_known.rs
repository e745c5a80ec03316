//! LAST_KNOWN: a green that home said not long ago, while home is unreachable and only where policy lets it count. It is off
//! unless policy says otherwise, and marked where it is not (I4, I5).

use std::time::Duration;

use proto::{
    contract::recognition::{
        Decision, Freshness, Outcome, RecognizeRequest, RecognizeResponse, Source, freshness::Requirement,
    },
    venue::VenueId,
};
use province_stub::seed::Condition;
use tongxing::{
    checkpoint::Checkpoint,
    phone::{Pass, Wish},
};

use crate::sandbox::{Sandbox, gateway::OwnGateway, member, until, venue};

const HOME: &str = "44";

fn station() -> VenueId {
    venue("11/station/beijing-west")
}

async fn answer(sandbox: &Sandbox, checkpoint: &Checkpoint, pass: &Pass) -> RecognizeResponse {
    checkpoint.send(sandbox.request(&station(), pass)).await.expect("there is an answer")
}

/// Asks until the answer comes from what is held: then it is what LAST_KNOWN would give.
async fn hold(sandbox: &Sandbox, checkpoint: &Checkpoint, pass: &Pass) {
    until("it is held", Duration::from_secs(10), async || {
        answer(sandbox, checkpoint, pass).await.source() == Source::Cache
    })
    .await;
}

#[tokio::test]
async fn a_green_of_a_moment_ago_counts_where_policy_says_so_and_is_marked() {
    let mut sandbox = Sandbox::start(&["11", HOME]).await;
    let dir = tempfile::tempdir().unwrap();
    let policy = sandbox.policy_with(dir.path(), "last_known_good = \"0s\"", "last_known_good = \"60s\"");
    let lenient = OwnGateway::start(&sandbox, |config| config.trust.policy = policy).await;
    let strict = OwnGateway::start(&sandbox, |_| {}).await;
    let (at_lenient, at_strict) = (lenient.at(&sandbox, &station()), strict.at(&sandbox, &station()));
    let (green, red, unseen) = (
        sandbox.green(member(HOME)).await,
        sandbox.pass(member(HOME), Condition::Red, &Wish::default()).await,
        sandbox.green(member(HOME)).await,
    );
    for checkpoint in [&at_lenient, &at_strict] {
        hold(&sandbox, checkpoint, &green).await;
        hold(&sandbox, checkpoint, &red).await;
    }
    let held = answer(&sandbox, &at_lenient, &green).await;
    sandbox.federation.stop_node(member(HOME)).await.expect("the node stops");
    until("the lease has ended", Duration::from_secs(5), async || {
        answer(&sandbox, &at_lenient, &green).await.source() != Source::Cache
    })
    .await;

    let last = answer(&sandbox, &at_lenient, &green).await;
    assert_eq!((last.outcome(), last.source(), last.decision()), (Outcome::Status, Source::LastKnown, Decision::Pass));
    assert_eq!((&last.statement, &last.as_of), (&held.statement, &held.as_of), "it says how old it is");
    for (pass, what) in [(&red, "a red"), (&unseen, "somebody who was not asked for")] {
        let answer = answer(&sandbox, &at_lenient, pass).await;
        assert_eq!((answer.outcome(), answer.decision()), (Outcome::HomeUnreachable, Decision::Assist), "{what}");
    }
    let freshness = Some(Freshness { requirement: Some(Requirement::FromHome(true)) });
    let request = RecognizeRequest { freshness, ..sandbox.request(&station(), &green) };
    let straight = at_lenient.send(request).await.expect("there is an answer");
    assert_eq!(straight.outcome(), Outcome::HomeUnreachable, "whoever wants home's own word gets no other");
    until("the lease has ended", Duration::from_secs(5), async || {
        answer(&sandbox, &at_strict, &green).await.source() != Source::Cache
    })
    .await;
    let off = answer(&sandbox, &at_strict, &green).await;
    assert_eq!(off.outcome(), Outcome::HomeUnreachable, "it is off unless policy says otherwise");

    sandbox.clock.advance(Duration::from_secs(61));
    let old = answer(&sandbox, &at_lenient, &green).await;
    assert_eq!(old.outcome(), Outcome::HomeUnreachable, "it is too old by now");
    lenient.stop().await;
    strict.stop().await;
    sandbox.stop().await;
}
