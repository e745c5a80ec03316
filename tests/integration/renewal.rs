//! Trust that is renewed, rolled back, forged or let expire: a federation starts on day 0, 8 and 90; whatever is refused
//! leaves the old in place; what has expired is worth nothing, until a new edition comes.

use std::{fs, path::Path, time::Duration};

use gateway::{pki, server::GatewayError};
use peer::{surroundings::Surroundings, trust::TrustError};
use proto::{
    contract::recognition::Outcome,
    envelope::{Edition, MAX_LIFE},
    policy::Policy,
    refusal::{Reason, Refusal, reason_name},
    suite::SigningKey,
    terms::Purpose,
    time::UnixTime,
    trust::TrustList,
    venue::VenueId,
};
use province_stub::{
    config::Config as NodeConfig,
    server::{Node, NodeError},
};
use tongxing::layout::Layout;
use tonic::Code::Unavailable;

use crate::sandbox::{
    START, Sandbox,
    forge::Forger,
    gateway::{self as own, OwnGateway},
    log, member, shared, still_serves, until, venue,
    want::{reason, want},
    wire::{self, Shown},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

fn edition(path: &Path) -> Edition {
    TrustList::open_held(&fs::read(path).unwrap()).expect("a trust list").0
}

fn policy_edition(layout: &Layout) -> Edition {
    let (_, list) = TrustList::open_held(&fs::read(layout.trust_list()).unwrap()).unwrap();
    Policy::open(&fs::read(layout.policy()).unwrap(), &list.roots).expect("a policy").0
}

fn certificates(layout: &Layout) -> Vec<UnixTime> {
    let home = member("51");
    let peers =
        [layout.gateway(1), layout.node(home), layout.backend(home), layout.operator(home), layout.venue(&station())];
    peers.iter().map(|dir| pki::expires_at(&dir.join("cert.pem")).unwrap()).collect()
}

#[tokio::test]
async fn a_directory_starts_on_day_0_and_8_and_90() {
    let mut sandbox = Sandbox::start(&["44", "51"]).await;
    let mut version = 0;
    for (day, waited, certified_on) in [(0, 0, 0), (8, 8, 0), (90, 82, 90)] {
        if waited > 0 {
            let stopped = sandbox.stop_and_keep().await;
            stopped.clock.advance(DAY * waited);
            sandbox = stopped.start().await;
        }
        let now = START.plus(DAY * day);
        assert_eq!(sandbox.now(), now, "the clock is not the test's");
        let (list, policy) = (edition(&sandbox.layout().trust_list()), policy_edition(sandbox.layout()));
        assert!(list.version > version && policy.version == list.version, "day {day}: no new editions");
        assert_eq!((list.issued_at, list.expires_at), (now, now.plus(MAX_LIFE)), "day {day}: another life");
        version = list.version;
        // Leaves live 30 days and are renewed when a third of that has gone.
        let ends = START.plus(DAY * (certified_on + 30));
        assert_eq!(certificates(sandbox.layout()), vec![ends; 5], "day {day}: certificates of another day");
        let pass = sandbox.green(member("51")).await;
        let seen = sandbox.show(&station(), &pass, Purpose::Entry).await;
        assert_eq!(seen.answer.outcome(), Outcome::Status, "day {day}: nobody is recognised");
    }
    sandbox.stop().await;
}

#[tokio::test]
async fn what_has_expired_fails_closed_until_it_is_renewed() {
    let sandbox = Sandbox::start(&["44", "51"]).await;
    let checkpoint = sandbox.at(&station());
    let pass = sandbox.green(member("51")).await;
    let shown = Shown::read(&sandbox.layout().venue(&station()));
    let gateway = sandbox.desk.gateway_address().unwrap();
    let certificate = async || {
        let (_, stream) = wire::handshake(&gateway, Some(&shown)).await.expect("the gateway lets it in");
        stream.get_ref().1.peer_certificates().expect("the gateway has a certificate")[0].to_vec()
    };
    still_serves(&checkpoint, &sandbox.request(&station(), &pass), "nothing").await;
    let old = certificate().await;
    sandbox.clock.advance(DAY * 12);
    let expired = want(Reason::TrustExpired, Unavailable).from("gateway").retry();
    expired.check("day 12", checkpoint.send(sandbox.request(&station(), &pass)).await);

    sandbox.federation.renew().await.expect("new editions and certificates");
    let home = Forger::of(&sandbox, member("51"));
    let request = || {
        let presentation = home.present(&home.consent(), Some(&station()));
        tongxing::checkpoint::Checkpoint::request(&station(), &presentation, Purpose::Entry)
    };
    // Gateway and node each look at their files every 5 s.
    until("everybody has the new editions", Duration::from_secs(15), async || {
        let answer = checkpoint.send(request()).await;
        answer.is_ok_and(|answer| answer.outcome() == Outcome::UnknownTraveler)
    })
    .await;
    let pass = sandbox.green(member("51")).await;
    still_serves(&checkpoint, &sandbox.request(&station(), &pass), "trust had expired").await;
    assert_ne!(certificate().await, old, "after 12 days the gateway still shows its old certificate");
    sandbox.stop().await;
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).expect("the file copies");
}

/// A gateway that holds a second edition of trust list and policy, kept in a directory.
async fn gateway_at_the_second_edition(sandbox: &Sandbox, dir: &Path) -> OwnGateway {
    let list = sandbox.trust_list_with(dir, |_| {});
    let policy = sandbox.policy_with(dir, "proof = \"60s\"", "proof = \"59s\"");
    let data = dir.join("data");
    OwnGateway::start(sandbox, |config| {
        (config.trust.list, config.trust.policy) = (list, policy);
        config.trust.held = Some(data.join("held"));
        config.data_dir = data;
    })
    .await
}

/// Opens the gateway of a directory again.
fn reopened(sandbox: &Sandbox, dir: &Path) -> Result<(), Refusal> {
    let mut config = own::config(sandbox.layout(), dir.join("data"));
    (config.trust.list, config.trust.policy) = (dir.join("trust-list.cose"), dir.join("policy.cose"));
    match own::open(config, sandbox.clock.clone()) {
        Ok(_) => Ok(()),
        Err(GatewayError::Trust(TrustError::Refused { refusal, .. })) => Err(refusal),
        Err(error) => panic!("another error: {error}"),
    }
}

/// Opens a node of 51 with the documents of a directory.
async fn reopened_node(sandbox: &Sandbox, dir: &Path) -> Result<(), Refusal> {
    let mut config = NodeConfig::read(&sandbox.layout().node(member("51")).join("node.toml")).unwrap();
    (config.trust.list, config.trust.policy) = (dir.join("trust-list.cose"), dir.join("policy.cose"));
    // By its files alone.
    config.trust.gateways.clear();
    config.data_dir = dir.join("node");
    config.trust.held = Some(config.data_dir.join("held"));
    match Node::open(config, Surroundings::by(sandbox.clock.clone())).await {
        Ok(_) => Ok(()),
        Err(NodeError::Trust(TrustError::Refused { refusal, .. })) => Err(refusal),
        Err(error) => panic!("another error: {error}"),
    }
}

/// A trust list of this version by these roots, in the place of the one there is. It lets 51's backends speak for nobody.
fn write_list(sandbox: &Sandbox, path: &Path, version: u64, roots: &[&SigningKey]) {
    let (_, mut list) = TrustList::open_held(&fs::read(sandbox.layout().trust_list()).unwrap()).unwrap();
    list.members.get_mut(&member("51")).unwrap().categories.clear();
    let edition = Edition { version, issued_at: sandbox.now(), expires_at: sandbox.now().plus(MAX_LIFE) };
    fs::write(path, list.seal(edition, roots)).unwrap();
}

#[tokio::test]
async fn a_refused_edition_leaves_the_one_held_in_place() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    let gateway = gateway_at_the_second_edition(sandbox, dir.path()).await;
    reopened_node(sandbox, dir.path()).await.expect("a node takes the second edition");
    let mut bare = sandbox.request(&station(), &sandbox.green(member("51")).await);
    bare.proof.clear();
    let (list, policy) = (dir.path().join("trust-list.cose"), dir.path().join("policy.cose"));
    let (second_list, second_policy) = (fs::read(&list).unwrap(), fs::read(&policy).unwrap());
    let (held, older) = (edition(&list).version, edition(&sandbox.layout().trust_list()).version);
    assert!(held > older, "the second edition is not newer");
    let (held_word, older_word) = (held.to_string(), older.to_string());
    let checkpoint = gateway.at(sandbox, &station());
    let roots = sandbox.roots();
    let strangers: Vec<_> = (0..3).map(|_| SigningKey::generate(proto::suite::Suite::Ed25519)).collect();
    let both = |keys: &[SigningKey], version| write_list(sandbox, &list, version, &[&keys[0], &keys[1]]);
    let rolled_back =
        |version: &String| (Reason::VersionRolledBack, vec![("version", version.clone()), ("held", held_word.clone())]);
    let few = |signatures: &str| {
        (Reason::ThresholdNotMet, vec![("signatures", signatures.to_owned()), ("threshold", "2".to_owned())])
    };
    type Change<'a> = Box<dyn Fn() + 'a>;
    type Refused = (Reason, Vec<(&'static str, String)>);
    let cases: Vec<(&str, Change<'_>, Refused)> = vec![
        ("the older list", Box::new(|| copy(&sandbox.layout().trust_list(), &list)), rolled_back(&older_word)),
        ("another list of the same version", Box::new(|| both(&roots, held)), rolled_back(&held_word)),
        ("the older policy", Box::new(|| copy(&sandbox.layout().policy(), &policy)), rolled_back(&older_word)),
        ("one root's list", Box::new(|| write_list(sandbox, &list, held + 1, &[&roots[0]])), few("1")),
        (
            "one root's list, twice",
            Box::new(|| write_list(sandbox, &list, held + 1, &[&roots[0], &roots[0]])),
            few("1"),
        ),
        ("nobody's list", Box::new(|| both(&strangers, held + 1)), few("0")),
    ];
    for (name, change, (refused, metadata)) in cases {
        let before = log::mark();
        change();
        let said: Vec<_> = metadata.iter().map(|(key, value)| format!("{key} {value}")).collect();
        let (path, word) = (dir.path().display().to_string(), reason_name(refused));
        log::line_after(before, &["the one held stays", &path, word, &said[0], &said[1]]).await;
        assert!(
            wire::get(&gateway.private, "/readyz").await.contains(&format!("trust list version {held}\n")),
            "{name} was taken"
        );
        // A token without its proof is judged by trust list and policy, and by nobody's node.
        assert_eq!(
            reason(name, checkpoint.send(bare.clone()).await),
            Reason::ProofMissing,
            "{name}: it judges otherwise"
        );
        for at_start in [reopened(sandbox, dir.path()), reopened_node(sandbox, dir.path()).await] {
            let refusal = at_start.err().unwrap_or_else(|| panic!("{name} is taken at a start"));
            assert_eq!(refusal.reason(), refused, "{name}: another reason at a start");
            for (key, value) in &metadata {
                assert_eq!(refusal.metadata(key), Some(value.as_str()), "{name}: another {key}");
            }
        }
        fs::write(&list, &second_list).unwrap();
        fs::write(&policy, &second_policy).unwrap();
    }
    both(&roots, held + 1);
    until("a good third edition is taken", Duration::from_secs(5), async || {
        wire::get(&gateway.private, "/readyz").await.contains(&format!("trust list version {}\n", held + 1))
    })
    .await;
    gateway.stop().await;
}
