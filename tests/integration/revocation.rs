//! A certificate that its CA has taken back: its open connections end, new ones are refused, everybody else's go on. And
//! what is no CA's word takes nobody out, nor lets anybody back in.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use gateway::pki::{Authority, LEAF_LIFE, Office, Reason, Which, crl_dir};
use peer::revocation;
use proto::{
    contract::recognition::Outcome,
    identity::{PeerId, Realm},
    venue::VenueId,
};
use tokio::{io::AsyncReadExt as _, time::timeout};

use crate::sandbox::{
    Sandbox,
    gateway::OwnGateway,
    log, member, still_serves, until, venue,
    wire::{self, Shown},
};

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

fn other() -> VenueId {
    venue("44/hospital/zhongshan-first")
}

fn realm() -> Realm {
    Realm::Member(member("44"))
}

fn office(sandbox: &Sandbox) -> Office {
    Office::new(sandbox.layout().dir(), sandbox.layout().domain())
}

fn list_of(sandbox: &Sandbox, realm: Realm) -> PathBuf {
    revocation::file(&crl_dir(sandbox.layout().dir()), &sandbox.layout().domain(), realm)
}

/// Takes all certificates of a peer back.
fn revoke(sandbox: &Sandbox, peer: &PeerId) {
    let (office, now) = (office(sandbox), sandbox.now());
    let serials = office.find(peer, &Which::Peer, now).expect("a certificate of it lives");
    office.revoke(peer.realm(), &serials, Reason::KeyCompromise, now).expect("the CA signs the next list");
}

async fn is_let_in(address: &str, shown: &Shown) -> bool {
    let (_, mut stream) = wire::handshake(address, Some(shown)).await.expect("a client learns nothing so early");
    timeout(Duration::from_secs(5), stream.read_u8()).await.expect("the server says something").is_ok()
}

async fn is_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let closed = async { while stream.read_u8().await.is_ok() {} };
    timeout(Duration::from_secs(5), closed).await.expect("the open connection is closed");
}

#[tokio::test]
async fn a_revoked_venue_is_out_and_the_one_beside_it_is_not() {
    let sandbox = Sandbox::start(&["11", "44"]).await;
    let gateway = OwnGateway::start(&sandbox, |_| {}).await;
    let good = sandbox.request(&other(), &sandbox.green(member("11")).await);
    let (goes, stays) =
        (Shown::read(&sandbox.layout().venue(&station())), Shown::read(&sandbox.layout().venue(&other())));
    let (_, mut open) = wire::handshake(&gateway.address, Some(&goes)).await.unwrap();
    open.read_u8().await.expect("it is let in");
    let before = log::mark();
    revoke(&sandbox, &PeerId::venue(station()));
    is_closed(&mut open).await;
    assert!(!is_let_in(&gateway.address, &goes).await, "it is let in again");
    log::line_after(before, &["handshake refused", "44/venue/station/guangzhou-south", "revoked"]).await;
    assert!(is_let_in(&gateway.address, &stays).await, "its neighbour is out");
    still_serves(&gateway.at(&sandbox, &other()), &good, "a neighbour was revoked").await;

    // Neither an older list nor none nor a stranger's lets it back in, not even after a restart.
    let list = list_of(&sandbox, realm());
    let newest = fs::read(&list).unwrap();
    let stranger = Authority::create(realm(), &sandbox.layout().domain(), sandbox.now()).unwrap();
    let strangers = tempfile::tempdir().unwrap();
    let foreign = Office::new(strangers.path(), sandbox.layout().domain());
    foreign.sign_crl(&stranger, realm(), sandbox.now().plus(Duration::from_secs(60))).unwrap();
    let foreign = fs::read(list_of_dir(strangers.path(), &sandbox)).unwrap();
    for (name, content, why) in [
        ("a stranger's", Some(foreign), "no CA of this trust domain"),
        ("noise", Some(b"noise".to_vec()), "not a CRL"),
        ("none", None, "are gone"),
    ] {
        let before = log::mark();
        match content {
            Some(content) => fs::write(&list, content).unwrap(),
            None => fs::remove_file(&list).unwrap(),
        }
        log::line_after(before, &["revocations", why]).await;
        assert!(!is_let_in(&gateway.address, &goes).await, "{name} lets it in");
    }
    gateway.stop().await;
    fs::write(&list, newest).unwrap();
    sandbox.stop().await;
}

fn list_of_dir(dir: &Path, sandbox: &Sandbox) -> PathBuf {
    revocation::file(&crl_dir(dir), &sandbox.layout().domain(), realm())
}

#[tokio::test]
async fn an_older_list_is_refused_and_known_after_a_restart() {
    let sandbox = Sandbox::start(&["11", "44"]).await;
    let list = list_of(&sandbox, realm());
    let empty = fs::read(&list).unwrap();
    revoke(&sandbox, &PeerId::venue(station()));
    let goes = Shown::read(&sandbox.layout().venue(&station()));
    let data = tempfile::tempdir().unwrap();
    let at = |dir: &Path| {
        let dir = dir.to_owned();
        move |config: &mut gateway::config::Config| {
            config.trust.held = Some(dir.join("held"));
        }
    };
    let gateway = OwnGateway::start(&sandbox, at(data.path())).await;
    assert!(!is_let_in(&gateway.address, &goes).await);
    let before = log::mark();
    fs::write(&list, empty).unwrap();
    log::line_after(before, &["revocations refused", "is lower than"]).await;
    assert!(!is_let_in(&gateway.address, &goes).await, "an older list lets it in");
    gateway.stop().await;
    let gateway = OwnGateway::start(&sandbox, at(data.path())).await;
    assert!(!is_let_in(&gateway.address, &goes).await, "an older list lets it in after a restart");
    gateway.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn a_revocation_does_not_wait_for_a_trust_list_that_is_refused() {
    let sandbox = Sandbox::start(&["11", "44"]).await;
    let dir = tempfile::tempdir().unwrap();
    let list = sandbox.trust_list_with(dir.path(), |_| {});
    let gateway = OwnGateway::start(&sandbox, |config| config.trust.list = list.clone()).await;
    let goes = Shown::read(&sandbox.layout().venue(&station()));
    let (_, mut open) = wire::handshake(&gateway.address, Some(&goes)).await.unwrap();
    open.read_u8().await.expect("it is let in");
    fs::write(&list, "noise").unwrap();
    revoke(&sandbox, &PeerId::venue(station()));
    is_closed(&mut open).await;
    assert!(!is_let_in(&gateway.address, &goes).await);
    gateway.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn a_revoked_node_is_not_asked() {
    let sandbox = Sandbox::start(&["11", "44"]).await;
    let pass = sandbox.green(member("44")).await;
    revoke(&sandbox, &PeerId::node(member("44"), "1").unwrap());
    // A gateway that starts now dials anew.
    let gateway = OwnGateway::start(&sandbox, |_| {}).await;
    let station = venue("11/station/beijing-west");
    let checkpoint = gateway.at(&sandbox, &station);
    let answer = checkpoint.send(sandbox.request(&station, &pass)).await.expect("an answer, no error");
    assert_eq!(answer.outcome(), Outcome::HomeUnreachable);
    gateway.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn a_gateway_that_runs_gives_a_revoked_node_up() {
    let sandbox = Sandbox::start(&["11", "44"]).await;
    let gateway = OwnGateway::start(&sandbox, |_| {}).await;
    let station = venue("11/station/beijing-west");
    let checkpoint = gateway.at(&sandbox, &station);
    let pass = sandbox.green(member("44")).await;
    still_serves(&checkpoint, &sandbox.request(&station, &pass), "nothing").await;
    revoke(&sandbox, &PeerId::node(member("44"), "1").unwrap());
    until("its node is given up", Duration::from_secs(5), async || {
        let answer = checkpoint.send(sandbox.request(&station, &pass)).await;
        answer.is_ok_and(|answer| answer.outcome() == Outcome::HomeUnreachable)
    })
    .await;
    gateway.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn a_renewal_is_no_pardon() {
    let sandbox = Sandbox::start(&["11", "44"]).await;
    let (goes, stays) = (sandbox.layout().venue(&station()), sandbox.layout().venue(&other()));
    let read = |dir: &Path| fs::read(dir.join("cert.pem")).unwrap();
    let (revoked, before) = (read(&goes), read(&stays));
    revoke(&sandbox, &PeerId::venue(station()));
    sandbox.clock.advance(LEAF_LIFE / 2);
    sandbox.federation.renew().await.expect("what is due is renewed");
    assert_eq!(read(&goes), revoked, "it has another certificate");
    assert_ne!(read(&stays), before, "its neighbour was due");
    fs::remove_file(goes.join("cert.pem")).unwrap();
    sandbox.federation.renew().await.expect("what is due is renewed");
    assert!(!goes.join("cert.pem").exists(), "who has lost it gets another");
    sandbox.stop().await;
}

/// A request as openssl makes it, with these extensions.
fn request(dir: &Path, name: &str, arguments: &[&str]) -> Option<String> {
    let (key, out) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.csr")));
    let made = Command::new("openssl")
        .args(["req", "-new", "-nodes", "-subj", "/CN=x", "-keyout"])
        .arg(key)
        .arg("-out")
        .arg(&out)
        .args(arguments)
        .output()
        .ok()?;
    made.status.success().then(|| fs::read_to_string(out).unwrap())
}

const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

#[tokio::test]
async fn a_request_gets_a_certificate_for_its_key_and_nothing_else_of_what_it_asks() {
    let sandbox = Sandbox::start(&["11", "44"]).await;
    let (dir, office) = (tempfile::tempdir().unwrap(), office(&sandbox));
    let peer = PeerId::venue(venue("44/park/baiyun"));
    let Some(good) = request(dir.path(), "good", &P256) else {
        // Without openssl the same requests are made by nobody.
        eprintln!("no openssl on this machine: nothing was requested");
        return sandbox.stop().await;
    };
    let sign = |csr: &str, peer: &PeerId| office.sign(csr, peer, &[], sandbox.now(), LEAF_LIFE);
    fs::write(dir.path().join("cert.pem"), sign(&good, &peer).expect("a certificate")).unwrap();
    fs::rename(dir.path().join("good.key"), dir.path().join("key.pem")).unwrap();
    let shown = Shown::read(dir.path());
    let address = sandbox.desk.gateway_address().unwrap();
    assert!(is_let_in(&address, &shown).await, "its certificate is worth nothing");

    let own = "subjectAltName=URI:spiffe://44.tongxing.test/venue/park/baiyun";
    let others = "subjectAltName=URI:spiffe://44.tongxing.test/node/1";
    let with = |name: &str, extension: &str| request(dir.path(), name, &[&P256[..], &["-addext", extension]].concat());
    assert!(sign(&with("own", own).unwrap(), &peer).is_ok());
    let altered = good.replacen("MI", "MJ", 1);
    let rsa = request(dir.path(), "rsa", &["-newkey", "rsa:2048"]).unwrap();
    let certificate = fs::read_to_string(dir.path().join("cert.pem")).unwrap();
    for (name, csr, why) in [
        ("somebody else", with("else", others).unwrap(), "asks to be"),
        ("a CA", with("ca", "basicConstraints=critical,CA:TRUE").unwrap(), "asks to be a CA"),
        ("an RSA key", rsa, "P-256"),
        ("altered", altered, "not"),
        ("a certificate", certificate, "no certificate request"),
        ("noise", "noise".to_owned(), "not PEM"),
        ("too much", "x".repeat(20_000), "at most"),
    ] {
        let refused = format!("{:#}", sign(&csr, &peer).expect_err(name));
        assert!(refused.contains(why), "{name}: {refused}");
    }
    let register = office.register(realm()).entries().unwrap();
    assert_eq!(register.iter().filter(|entry| entry.id.ends_with("/venue/park/baiyun")).count(), 2);
    sandbox.stop().await;
}
