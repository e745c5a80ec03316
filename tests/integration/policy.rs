//! One national policy and one trust list (I8): whatever they say is what everybody is judged by, from the moment on when
//! they say it.

use std::time::Duration;

use peer::config::to_hex;
use proto::{
    contract::recognition::{Decision, Outcome, RecognizeRequest},
    refusal::Reason,
    suite::{SigningKey, Suite},
    terms::Purpose,
    venue::VenueId,
};
use tongxing::{checkpoint::Checkpoint, options::PolicyName};
use tonic::Code::{FailedPrecondition, PermissionDenied, Unauthenticated};

use crate::sandbox::{
    Sandbox,
    forge::Forger,
    gateway::OwnGateway,
    member, shared, still_serves, until, venue,
    want::{reason, want},
    wire,
};

const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(5);

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

fn elsewhere() -> VenueId {
    venue("11/station/beijing-west")
}

/// A forged consent with a proof made now that lives so long.
fn proven(home: &Forger, life: Duration) -> RecognizeRequest {
    let consent = home.consent();
    let token = home.sign(&consent);
    RecognizeRequest {
        proof: home.prove_at(&token, consent.cti, Some(&station()), home.now, life),
        token,
        venue: station().to_string(),
        purpose: Purpose::Entry.number().into(),
        ..RecognizeRequest::default()
    }
}

#[tokio::test]
async fn the_development_policy_lets_proofs_live_an_hour() {
    let sandbox = Sandbox::start_by(&["44", "51"], PolicyName::Development).await;
    let (home, checkpoint) = (Forger::of(&sandbox, member("51")), sandbox.at(&station()));
    let too_long = |seconds| want(Reason::LifeTooLong, FailedPrecondition).about("proof").with("max_seconds", seconds);
    let longer = checkpoint.send(proven(&home, HOUR + Duration::from_secs(1))).await;
    too_long(3600).check("an hour and a second", longer);
    let hour = proven(&home, HOUR);
    too_long(60).check("an hour, nationally", shared().at(&station()).send(proven(&of_shared(), HOUR)).await);
    for minutes in [0, 59] {
        sandbox.clock.advance(Duration::from_secs(minutes * 60));
        let answer = checkpoint.send(hour.clone()).await.expect("it still lives");
        assert_eq!(answer.outcome(), Outcome::UnknownTraveler, "after {minutes} minutes");
    }
    sandbox.clock.advance(Duration::from_secs(90));
    // The token, of an hour as well, ends with it and is looked at first.
    let expired = want(Reason::Expired, FailedPrecondition).about("token").with("seconds", 30);
    expired.check("after an hour and the leeway", checkpoint.send(hour).await);
    sandbox.stop().await;
}

fn of_shared() -> Forger {
    Forger::of(shared(), member("51"))
}

#[tokio::test]
async fn a_kid_taken_off_the_trust_list_is_worth_nothing_from_then_on() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    let list = sandbox.trust_list_with(dir.path(), |_| {});
    let gateway = OwnGateway::start(sandbox, |config| config.trust.list = list).await;
    let checkpoint = gateway.at(sandbox, &station());
    let of_51 = sandbox.request(&station(), &sandbox.green(member("51")).await);
    let of_44 = sandbox.request(&station(), &sandbox.green(member("44")).await);
    still_serves(&checkpoint, &of_51, "nothing").await;

    let fresh = || to_hex(SigningKey::generate(Suite::Ed25519).verifying_key().encoded());
    let (consent_keys, statement_keys) = (vec![fresh()], vec![fresh()]);
    sandbox.trust_list_with(dir.path(), |source| {
        source.members.get_mut("51").expect("51 is a member").consent_keys = consent_keys;
    });
    let unknown = want(Reason::KeyUnknown, Unauthenticated).about("token").with("member", "51");
    until("the kid is gone", SOON, async || checkpoint.send(of_51.clone()).await.is_err()).await;
    unknown.check("a token of the old key", checkpoint.send(of_51.clone()).await);
    still_serves(&checkpoint, &of_44, "51's key was taken off").await;

    // It comes back, and the statement key goes: home's word is not believed any more.
    sandbox.trust_list_with(dir.path(), |source| {
        source.members.get_mut("51").expect("51 is a member").statement_keys = statement_keys;
    });
    until("the kid is back", SOON, async || checkpoint.send(of_51.clone()).await.is_ok()).await;
    let answer = checkpoint.send(of_51.clone()).await.expect("the token is good again");
    assert_eq!(answer.outcome(), Outcome::HomeUnreachable, "a statement by a key that is not on the list is believed");
    assert_eq!(answer.decision(), Decision::Assist, "another decision");

    // A member without a node to ask.
    sandbox.trust_list_with(dir.path(), |source| {
        source.members.get_mut("44").expect("44 is a member").endpoints.clear();
    });
    until("51 is believed again and 44 has no node", SOON, async || {
        let (one, other) = (checkpoint.send(of_51.clone()).await, checkpoint.send(of_44.clone()).await);
        let outcomes = (one.map(|answer| answer.outcome()), other.map(|answer| answer.outcome()));
        matches!(outcomes, (Ok(Outcome::Status), Ok(Outcome::HomeUnreachable)))
    })
    .await;
    gateway.stop().await;
}

/// The version of the policy that converts 51's green here now.
async fn policy_version(checkpoint: &Checkpoint, request: &RecognizeRequest) -> u64 {
    let answer = checkpoint.send(request.clone()).await.expect("an answer");
    answer.conversion.expect("a conversion").policy_version
}

#[tokio::test]
async fn a_new_policy_is_followed_while_running() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    // The default table, which 51 has: its green is a word without a level now.
    let policy = sandbox.policy_with(dir.path(), "name = \"national\"", "name = \"national\"");
    let gateway = OwnGateway::start(sandbox, |config| config.trust.policy = policy).await;
    let checkpoint = gateway.at(sandbox, &station());
    let request = sandbox.request(&station(), &sandbox.green(member("51")).await);
    still_serves(&checkpoint, &request, "nothing").await;
    let second = policy_version(&checkpoint, &request).await;
    assert!(second > sandbox.desk.trust().policy_edition.version, "the first edition converts");

    let labels = "[labels.default]\n\"绿码\" = ";
    sandbox.policy_with(dir.path(), &format!("{labels}\"green\""), &format!("{labels}\"undetermined\""));
    until("the third edition converts", SOON, async || policy_version(&checkpoint, &request).await > second).await;
    let answer = checkpoint.send(request.clone()).await.expect("an answer");
    assert_eq!(answer.outcome(), Outcome::Undetermined, "a label is judged by a policy that is gone");
    assert_eq!(answer.decision(), Decision::Assist, "never silently green");

    let station_entry = "[grants.station]\nentry = [\"level\", \"identity-hint\"]\n";
    sandbox.policy_with(dir.path(), station_entry, "[grants.station]\n");
    let not_admitted = want(Reason::PurposeNotAdmitted, PermissionDenied);
    let not_admitted = not_admitted.with("category", "station").with("purpose", "entry");
    until("stations may not ask for entry", SOON, async || checkpoint.send(request.clone()).await.is_err()).await;
    not_admitted.check("entry at a station", checkpoint.send(request).await);
    gateway.stop().await;
}

#[tokio::test]
async fn a_gateway_gone_soft_learns_no_more_than_home_admits() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    // A gateway gone soft: it lets stations see tests on entry. Home has the policy too and does not go along.
    let strict = "[grants.station]\nentry = [\"level\", \"identity-hint\"]";
    let soft = "[grants.station]\nentry = [\"level\", \"tests\", \"identity-hint\"]";
    let policy = sandbox.policy_with(dir.path(), strict, soft);
    let gateway = OwnGateway::start(sandbox, |config| config.trust.policy = policy).await;
    let request = sandbox.request(&station(), &sandbox.green(member("51")).await);
    let answer = gateway.at(sandbox, &station()).send(request).await.expect("an answer");
    assert_eq!(answer.outcome(), Outcome::HomeUnreachable, "home discloses what policy does not let it");
    assert!(answer.statement.is_empty(), "home discloses what policy does not let it");
    gateway.stop().await;
}

#[tokio::test]
async fn a_category_taken_from_backends_is_refused_from_then_on() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    let list = sandbox.trust_list_with(dir.path(), |_| {});
    let gateway = OwnGateway::start(sandbox, |config| config.trust.list = list).await;
    let park = venue("44/park/yuexiu");
    let shown = wire::Shown::read(&sandbox.layout().backend(member("44")));
    let mut backend = proto::contract::recognition::recognition_service_client::RecognitionServiceClient::new(
        wire::channel(&gateway.address, Some(&shown)),
    );
    let pass = sandbox.green(member("51")).await;
    let request = Checkpoint::request(&park, &pass.present(Some(&park), sandbox.now()), Purpose::Entry);
    backend.recognize(request.clone()).await.expect("parks are granted to backends");
    sandbox.trust_list_with(dir.path(), |source| {
        let categories = &mut source.members.get_mut("44").expect("44 is a member").categories;
        categories.retain(|category| category != "park");
    });
    until("parks are not granted any more", SOON, async || backend.recognize(request.clone()).await.is_err()).await;
    let refused = backend.recognize(request).await;
    assert_eq!(reason("a park", refused), Reason::CategoryNotGranted, "another reason");
    // Others' venues are as they were.
    let good = sandbox.request(&elsewhere(), &pass);
    still_serves(&gateway.at(sandbox, &elsewhere()), &good, "44's backends lost a category").await;
    gateway.stop().await;
}
