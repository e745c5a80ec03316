//! New trust lists and policies heard of from a gateway: by a node whose files nobody renews, by another replica; what must
//! be refused is, whoever hands it on, and a removed key is worth nothing at once.

use std::{fs, path::Path, time::Duration};

use peer::config::to_hex;
use proto::{
    contract::recognition::{Outcome, Source},
    envelope::{Edition, MAX_LIFE, Roots},
    member::Member,
    policy::{NATIONAL, Policy},
    refusal::Reason,
    statement::UnverifiedStatement,
    suite::{SigningKey, Suite},
    trust::TrustList,
    venue::VenueId,
};
use province_stub::seed::Condition;
use tongxing::phone::Wish;
use tonic::Code::Unauthenticated;

use crate::sandbox::{
    Sandbox,
    documents::{Herald, OwnNode, first_editions},
    gateway::OwnGateway,
    log, member, program, shared, until, venue,
    want::want,
    wire,
};

/// Within which a new edition is known everywhere, on a machine that runs all tests at once.
const SOON: Duration = Duration::from_secs(10);

fn home() -> Member {
    member("51")
}

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

fn first(sandbox: &Sandbox) -> (u64, u64) {
    (sandbox.desk.trust().list_edition.version, sandbox.desk.trust().policy_edition.version)
}

fn edition(sandbox: &Sandbox, version: u64) -> Edition {
    Edition { version, issued_at: sandbox.now(), expires_at: sandbox.now().plus(MAX_LIFE) }
}

/// The federation's trust list with other roots and in another edition.
fn list_of(sandbox: &Sandbox, version: u64, roots: &[SigningKey], by: &[&SigningKey]) -> Vec<u8> {
    let mut list = sandbox.desk.trust().list.clone();
    list.roots = Roots::new(2, roots.iter().map(|root| root.verifying_key().clone()).collect()).unwrap();
    list.seal(edition(sandbox, version), by)
}

fn policy_of(sandbox: &Sandbox, version: u64, by: &[&SigningKey]) -> Vec<u8> {
    Policy::seal(NATIONAL, edition(sandbox, version), by)
}

fn new_roots() -> Vec<SigningKey> {
    (0..2).map(|_| SigningKey::generate(Suite::Ed25519)).collect()
}

/// A gateway with files in a directory: the first editions, until a test signs others in their place.
async fn gateway_in(sandbox: &Sandbox, dir: &Path, address: &str) -> OwnGateway {
    let (list, policy) = first_editions(sandbox, dir);
    OwnGateway::start_at(sandbox, sandbox.clock.clone(), address, |config| {
        (config.trust.list, config.trust.policy) = (list, policy);
    })
    .await
}

async fn until_versions(node: &OwnNode, versions: (u64, u64)) {
    until("the node holds the new editions", SOON, async || node.versions(shared()).await == versions).await;
}

/// How many lines of a log since a mark have all of these in them.
fn lines_since(mark: usize, parts: &[&str]) -> usize {
    let log = log::all();
    let text = String::from_utf8_lossy(&log[mark..]);
    text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

#[tokio::test]
async fn a_node_whose_files_nobody_renews_hears_of_new_editions_and_keeps_them() {
    let (sandbox, dir, own) = (shared(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let gateway = gateway_in(sandbox, dir.path(), "127.0.0.1:0").await;
    first_editions(sandbox, own.path());
    let (nobody, somebody) = (program::free_address().await, gateway.address.clone());
    // It goes on from a gateway that is not there to one that is.
    let gateways = [nobody.as_str(), somebody.as_str()];
    let node = OwnNode::start(sandbox, home(), own.path(), &gateways).await;
    assert_eq!(node.versions(sandbox).await, first(sandbox));

    let list = sandbox.trust_list_with(dir.path(), |source| {
        source.members.get_mut("51").expect("51 is a member").endpoints = vec![node.address.clone()];
    });
    sandbox.policy_with(dir.path(), "statement = \"10m\"", "statement = \"5m\"");
    let second = TrustList::open_held(&fs::read(&list).unwrap()).unwrap().0.version;
    assert!(second > first(sandbox).0);
    until_versions(&node, (second, second)).await;

    // Home is asked at its new address, and signs for as long as the new policy lets it.
    let person = sandbox.person(home(), Condition::Green);
    let phone = node.backend(sandbox).enroll(&person).await.expect("the phone enrols");
    let pass = phone.consent(&Wish::default(), sandbox.now()).await.expect("home issues a token");
    let mut answer = None;
    until("home is asked where the new list has it", SOON, async || {
        answer = gateway.at(sandbox, &station()).send(sandbox.request(&station(), &pass)).await.ok();
        answer.as_ref().is_some_and(|answer| answer.outcome() == Outcome::Status)
    })
    .await;
    let statement = UnverifiedStatement::parse(&answer.unwrap().statement).expect("home has signed");
    let key = sandbox.desk.trust().list.statement_key(home(), statement.kid()).unwrap().clone();
    let statement = statement.verify(&key).expect("home has signed");
    assert_eq!(statement.status().expires_at.since(statement.status().issued_at), 300, "by the old policy");

    // What it was told stays, also without anybody who tells it again.
    node.stop().await;
    gateway.stop().await;
    let node = OwnNode::start(sandbox, home(), own.path(), &gateways).await;
    assert_eq!(node.versions(sandbox).await, (second, second), "it went back to its files");
    node.stop().await;
}

#[tokio::test]
async fn what_a_gateway_must_not_hand_on_is_refused_and_said_once() {
    let (sandbox, own) = (shared(), tempfile::tempdir().unwrap());
    first_editions(sandbox, own.path());
    let herald = Herald::start(sandbox).await;
    let (roots, strangers) = (sandbox.roots(), new_roots());
    let (ours, theirs) = ([&roots[0], &roots[1]], [&strangers[0], &strangers[1]]);
    let version = first(sandbox).0 + 10;
    let node = OwnNode::start(sandbox, home(), own.path(), &[&herald.address]).await;
    herald.tell_list(list_of(sandbox, version, &roots, &ours));
    herald.tell_policy(policy_of(sandbox, version, &ours));
    until_versions(&node, (version, version)).await;
    node.stop().await;

    let said = ["the one held stays", herald.address.as_str()];
    let cases = [
        ("the older list", true, list_of(sandbox, version - 1, &roots, &ours), "VERSION_ROLLED_BACK"),
        ("strangers' list", true, list_of(sandbox, version + 1, &roots, &theirs), "THRESHOLD_NOT_MET"),
        ("the older policy", false, policy_of(sandbox, version - 1, &ours), "VERSION_ROLLED_BACK"),
        ("strangers' policy", false, policy_of(sandbox, version + 1, &theirs), "THRESHOLD_NOT_MET"),
    ];
    for (name, is_list, document, why) in cases {
        let before = log::mark();
        let node = OwnNode::start(sandbox, home(), own.path(), &[&herald.address]).await;
        if is_list {
            herald.tell_list(document);
        } else {
            herald.tell_policy(document);
        }
        log::line_after(before, &[said[0], said[1], why]).await;
        // It comes back, and is offered the same again.
        log::line_after(before, &["refused again", said[1], why]).await;
        assert_eq!(lines_since(before, &said), 1, "{name} is said more than once");
        assert_eq!(node.versions(sandbox).await, (version, version), "{name} is taken");
        herald.tell_list(list_of(sandbox, version, &roots, &ours));
        herald.tell_policy(policy_of(sandbox, version, &ours));
        node.stop().await;
    }
    // Who has lied before is believed what the roots have signed.
    let node = OwnNode::start(sandbox, home(), own.path(), &[&herald.address]).await;
    herald.tell_list(list_of(sandbox, version + 2, &roots, &ours));
    until_versions(&node, (version + 2, version)).await;
    node.stop().await;

    // A gateway that has gone back does not take a node with it that starts again.
    let before = log::mark();
    let back = Herald::start(sandbox).await;
    back.tell_list(fs::read(sandbox.layout().trust_list()).unwrap());
    let node = OwnNode::start(sandbox, home(), own.path(), &[&back.address]).await;
    log::line_after(before, &["the one held stays", &back.address, "VERSION_ROLLED_BACK"]).await;
    assert_eq!(node.versions(sandbox).await, (version + 2, version));
    node.stop().await;
}

#[tokio::test]
async fn new_roots_are_taken_whichever_stream_is_first() {
    let (sandbox, version) = (shared(), first(shared()).0 + 1);
    let (old, new) = (sandbox.roots(), new_roots());
    let list = list_of(sandbox, version, &new, &[&old[0], &old[1], &new[0], &new[1]]);
    let policy = policy_of(sandbox, version, &[&new[0], &new[1]]);
    for list_first in [false, true] {
        let own = tempfile::tempdir().unwrap();
        first_editions(sandbox, own.path());
        let (before, herald) = (log::mark(), Herald::start(sandbox).await);
        let node = OwnNode::start(sandbox, home(), own.path(), &[&herald.address]).await;
        let tell = |is_list| match is_list {
            true => herald.tell_list(list.clone()),
            false => herald.tell_policy(policy.clone()),
        };
        tell(list_first);
        log::line_after(before, &["it waits for the other", &herald.address]).await;
        assert_eq!(node.versions(sandbox).await, first(sandbox), "one of them counts alone");
        tell(!list_first);
        until_versions(&node, (version, version)).await;
        assert_eq!(lines_since(before, &["the one held stays", &herald.address]), 0, "a good pair is an alarm");
        node.stop().await;
    }
}

#[tokio::test]
async fn a_gateway_that_comes_later_is_followed_then() {
    let (sandbox, dir, own) = (shared(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    first_editions(sandbox, own.path());
    let (address, before) = (program::free_address().await, log::mark());
    let node = OwnNode::start(sandbox, home(), own.path(), &[&address]).await;
    let said = [" INFO", "no gateway tells", address.as_str()];
    log::line_after(before, &said).await;
    log::line_after(before, &["DEBUG", said[1], said[2]]).await;
    assert_eq!(node.versions(sandbox).await, first(sandbox), "it serves without a gateway");

    let gateway = gateway_in(sandbox, dir.path(), &address).await;
    sandbox.trust_list_with(dir.path(), |_| {});
    let second = TrustList::open_held(&fs::read(dir.path().join("trust-list.cose")).unwrap()).unwrap().0.version;
    until_versions(&node, (second, first(sandbox).1)).await;
    assert_eq!(lines_since(before, &said), 1, "a gateway that is down is said again and again");
    // Nor does its stop wait for those who watch it.
    let stopping = tokio::time::Instant::now();
    gateway.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(2), "it waited for its watchers");
    node.stop().await;
}

#[tokio::test]
async fn a_removed_key_is_worth_nothing_at_once_though_an_answer_is_held() {
    let (sandbox, dir, own) = (shared(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = gateway_in(sandbox, dir.path(), "127.0.0.1:0").await;
    let (list, policy) = first_editions(sandbox, own.path());
    let other = OwnGateway::start(sandbox, |config| {
        (config.trust.list, config.trust.policy) = (list, policy);
        config.trust.gateways = vec![one.address.clone()];
    })
    .await;
    let checkpoint = other.at(sandbox, &station());
    let request = sandbox.request(&station(), &sandbox.green(home()).await);
    let ask = async || checkpoint.send(request.clone()).await;
    let held = async || {
        until("an answer is held", SOON, async || ask().await.is_ok_and(|answer| answer.source() == Source::Cache))
            .await;
    };
    let (list, fresh) = (dir.path().join("trust-list.cose"), || {
        vec![to_hex(SigningKey::generate(Suite::Ed25519).verifying_key().encoded())]
    });
    // The other replica has heard of it: whoever asks from now on is judged by it.
    let heard = async || {
        let version = TrustList::open_held(&fs::read(&list).unwrap()).unwrap().0.version;
        until("the other replica has heard of it", SOON, async || {
            wire::get(&other.private, "/readyz").await.contains(&format!("trust list version {version}\n"))
        })
        .await;
    };

    held().await;
    let consent_keys = fresh();
    sandbox.trust_list_with(dir.path(), |source| {
        source.members.get_mut("51").expect("51 is a member").consent_keys = consent_keys;
    });
    heard().await;
    let unknown = want(Reason::KeyUnknown, Unauthenticated).about("token").with("member", "51");
    unknown.check("a token of the removed key", ask().await);

    sandbox.trust_list_with(dir.path(), |_| {});
    heard().await;
    held().await;
    let statement_keys = fresh();
    sandbox.trust_list_with(dir.path(), |source| {
        source.members.get_mut("51").expect("51 is a member").statement_keys = statement_keys;
    });
    heard().await;
    let answer = ask().await.expect("the token is good");
    assert_eq!(answer.outcome(), Outcome::HomeUnreachable, "a statement by the removed key is given again");
    assert!(answer.statement.is_empty());

    sandbox.trust_list_with(dir.path(), |_| {});
    heard().await;
    held().await;
    other.stop().await;
    one.stop().await;
}
