//! Who is believed to be whom. A member's CA vouches for that member's peers and for nobody else: not as a client, not as a
//! server, at the gateway or at a node (I7). And what each role may call.

use std::{path::Path, time::Duration};

use gateway::pki::{Authority, LEAF_LIFE};
use peer::credentials::CredentialFiles;
use proto::{
    contract::recognition::Outcome,
    identity::{PeerId, Realm},
    refusal::{Reason, Refusal},
    terms::Purpose,
    venue::VenueId,
};
use tokio::{io::AsyncReadExt as _, time::timeout};
use tonic::{
    Code::{InvalidArgument, PermissionDenied},
    transport::Channel,
};

use crate::sandbox::{
    Sandbox, answer_after, certificates,
    forge::Forger,
    gateway::OwnGateway,
    log, member, metric, node, shared, still_serves, venue,
    want::want,
    wire::{self, Shown},
};

const LOOKUP: &str = "/tongxing.province.v1.ProvinceService/Lookup";
const ENROLL: &str = "/tongxing.traveler.v1.TravelerService/EnrollDevice";
const ISSUE: &str = "/tongxing.traveler.v1.TravelerService/IssueConsent";
const SET_CODE: &str = "/tongxing.assignment.v1.AssignmentService/SetCode";
const CLEAR_CODE: &str = "/tongxing.assignment.v1.AssignmentService/ClearCode";
const EXPLAIN_CODE: &str = "/tongxing.assignment.v1.AssignmentService/ExplainCode";
const PUT_CODES: &str = "/tongxing.assignment.v1.AssignmentService/PutCodes";
const PUT_EVIDENCE: &str = "/tongxing.evidence.v1.EvidenceService/PutEvidence";
const GET_CODE: &str = "/tongxing.traveler.v1.TravelerService/GetCode";
const EXPORT: &str = "/tongxing.traveler.v1.TravelerService/ExportTraveler";
const AT_A_NODE: [&str; 10] =
    [LOOKUP, ENROLL, ISSUE, SET_CODE, CLEAR_CODE, EXPLAIN_CODE, PUT_CODES, PUT_EVIDENCE, GET_CODE, EXPORT];

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

fn realm(code: &str) -> Realm {
    Realm::Member(member(code))
}

fn peer(uri: &str) -> PeerId {
    shared().layout().domain().parse_spiffe_id(uri).expect("the test names a peer")
}

fn node_of_51() -> String {
    shared().desk.node_address(member("51")).unwrap()
}

/// Certificates that show nobody, and what the log says of each.
fn strangers(dir: &Path) -> Vec<(&'static str, Option<Shown>, &'static str)> {
    let sandbox = shared();
    let venue_of_51 = PeerId::venue(venue("51/station/chengdu-east"));
    let own = "spiffe://44.tongxing.test/venue/station/guangzhou-south";
    let by = |peer: &PeerId, realm| Some(Shown::read(&sandbox.certify(peer, realm, dir)));
    let named = |names: &[&str]| Some(sandbox.certify_names(names, realm("44")));
    let (hour, now) = (Duration::from_secs(3600), sandbox.now());
    let expired =
        sandbox.certify_from(&PeerId::venue(station()), realm("44"), &dir.join("old"), now.minus(2 * hour), hour);
    let early =
        sandbox.certify_from(&PeerId::venue(station()), realm("44"), &dir.join("new"), now.plus(2 * hour), hour);
    let namesake = Authority::create(realm("51"), &sandbox.layout().domain(), now).unwrap();
    namesake.issue(&venue_of_51, &[], now, LEAF_LIFE).unwrap().write(&dir.join("namesake")).unwrap();
    vec![
        ("no certificate", None, "peer sent no certificates"),
        ("two names", named(&[own, "spiffe://44.tongxing.test/venue/station/shenzhen"]), "has 2 URI names"),
        ("one name twice", named(&[own, own]), "has 2 URI names"),
        ("no name", named(&[]), "has 0 URI names"),
        ("a name of another federation", named(&["spiffe://44.elsewhere.test/node/1"]), "not one of this federation"),
        ("a name of no form", named(&["https://44.tongxing.test/node/1"]), "not a SPIFFE id"),
        ("a role that is none", named(&["spiffe://44.tongxing.test/king/1"]), "not a SPIFFE id"),
        ("a member that is not here", named(&["spiffe://31.tongxing.test/node/1"]), "trust list does not have"),
        ("51's venue by 44's CA", by(&venue_of_51, realm("44")), "51/venue/station/chengdu-east: "),
        ("51's node by 44's CA", by(&peer("spiffe://51.tongxing.test/node/1"), realm("44")), "51/node/1: "),
        (
            "the gateway by 44's CA",
            by(&peer("spiffe://gateway.tongxing.test/replica/1"), realm("44")),
            "gateway/replica/1: ",
        ),
        (
            "44's venue by the gateway's CA",
            by(&PeerId::venue(station()), Realm::Gateway),
            "44/venue/station/guangzhou-south: ",
        ),
        ("by a CA of the same name", Some(Shown::read(&dir.join("namesake"))), "51/venue/station/chengdu-east: "),
        ("expired", Some(Shown::read(&expired)), "expired"),
        ("not yet valid", Some(Shown::read(&early)), "not valid yet"),
    ]
}

/// Under TLS 1.3 a client learns of its refusal when it reads; the log says why.
async fn assert_refused(server: &str, address: &str, name: &str, shown: Option<&Shown>, why: &str) {
    let before = log::mark();
    let from = match wire::handshake(address, shown).await {
        Ok((from, mut stream)) => {
            let read = timeout(Duration::from_secs(5), stream.read_u8()).await;
            assert!(read.expect("the server says something").is_err(), "{name}: {server} lets it in");
            from
        }
        Err(error) => panic!("{name}: a client learns nothing so early: {error}"),
    };
    // Ports come again: only what is said now is about this one.
    log::line_after(before, &["handshake refused", &from.to_string(), why]).await;
}

#[tokio::test]
async fn strangers_are_turned_away_by_everybody_and_the_log_says_why() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    let good = sandbox.request(&station(), &sandbox.green(member("51")).await);
    let gateway = sandbox.desk.gateway_address().unwrap();
    for (name, shown, why) in strangers(dir.path()) {
        assert_refused("the gateway", &gateway, name, shown.as_ref(), why).await;
        assert_refused("a node", &node_of_51(), name, shown.as_ref(), why).await;
        still_serves(&sandbox.at(&station()), &good, name).await;
    }
}

#[tokio::test]
async fn a_forged_gateway_gets_no_lookup_and_a_forged_venue_no_answer() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    let replica = peer("spiffe://gateway.tongxing.test/replica/1");
    for (name, by, let_in) in
        [("its own CA", Realm::Gateway, true), ("44's CA", realm("44"), false), ("51's own CA", realm("51"), false)]
    {
        let shown = Shown::read(&sandbox.certify(&replica, by, dir.path()));
        let status = wire::call(wire::channel(&node_of_51(), Some(&shown)), LOOKUP, Vec::new()).await.unwrap_err();
        let asked = Refusal::reason_of(&status) == Some(Reason::FieldMissing);
        assert_eq!(asked, let_in, "a gateway by {name}: {status:?}");
    }
    let good = sandbox.request(&station(), &sandbox.green(member("51")).await);
    for (by, let_in) in [(realm("44"), true), (realm("51"), false), (Realm::Gateway, false)] {
        let dir = sandbox.certify(&PeerId::venue(station()), by, dir.path());
        let standing = sandbox.desk.standing(&dir).unwrap();
        let gateway = sandbox.desk.gateway_address().unwrap();
        let checkpoint = tongxing::checkpoint::Checkpoint::new(station(), standing, &gateway).unwrap();
        let answer = checkpoint.send(good.clone()).await;
        assert_eq!(answer.is_ok(), let_in, "a venue of 44 by the CA of {by}: {answer:?}");
        let reason = answer.err().as_ref().and_then(Refusal::reason_of);
        assert_eq!(reason, None, "who is nobody gets no reason: there is nobody to tell");
    }
}

/// Whom the gateway takes for a node of 51: asks one with these credentials.
async fn outcome_at(sandbox: &'static Sandbox, credentials: &Path) -> Outcome {
    let node = node::fake(sandbox, credentials, |_| node::unknown()).await;
    let gateway = OwnGateway::with_node(sandbox, "51", &node.address, |_| {}).await;
    let home = Forger::of(sandbox, member("51"));
    let presentation = home.present(&home.consent(), Some(&station()));
    let request = tongxing::checkpoint::Checkpoint::request(&station(), &presentation, Purpose::Entry);
    let mut outcome = Outcome::HomeUnreachable;
    // Who is believed may be slow, on a busy machine; who is not never gets there.
    for _ in 0..3 {
        outcome = answer_after(&gateway.at(sandbox, &station()), &request, "nothing").await.outcome();
        if outcome != Outcome::HomeUnreachable {
            break;
        }
    }
    gateway.stop().await;
    outcome
}

#[tokio::test]
async fn the_gateway_believes_no_node_but_51s_own() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    let node_of_51 = peer("spiffe://51.tongxing.test/node/1");
    let by = |peer: &PeerId, code: &str| sandbox.certify(peer, realm(code), dir.path());
    let venue_of_51 = PeerId::venue(venue("51/station/chengdu-east"));
    for (name, credentials, outcome) in [
        ("51's node by 51's CA", by(&node_of_51, "51"), Outcome::UnknownTraveler),
        ("another node of 51", by(&peer("spiffe://51.tongxing.test/node/2"), "51"), Outcome::UnknownTraveler),
        ("51's node by 44's CA", by(&node_of_51, "44"), Outcome::HomeUnreachable),
        ("44's own node", by(&peer("spiffe://44.tongxing.test/node/1"), "44"), Outcome::HomeUnreachable),
        ("51's venue", by(&venue_of_51, "51"), Outcome::HomeUnreachable),
        (
            "the gateway itself",
            sandbox.certify(&PeerId::gateway("1").unwrap(), Realm::Gateway, dir.path()),
            Outcome::HomeUnreachable,
        ),
    ] {
        assert_eq!(outcome_at(sandbox, &credentials).await, outcome, "{name} at 51's address");
    }
}

#[tokio::test]
async fn a_venue_believes_no_gateway_but_the_gateway() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    let replica = peer("spiffe://gateway.tongxing.test/replica/1");
    let good = sandbox.request(&station(), &sandbox.green(member("51")).await);
    for (name, credentials, believed) in [
        ("the gateway's CA", sandbox.certify(&replica, Realm::Gateway, dir.path()), true),
        ("44's CA", sandbox.certify(&replica, realm("44"), dir.path()), false),
        ("44's node", sandbox.layout().node(member("44")), false),
    ] {
        let gateway = OwnGateway::start(sandbox, |config| {
            let (certificate, key) = (credentials.join("cert.pem"), credentials.join("key.pem"));
            config.credentials = CredentialFiles { certificate, key };
        });
        let gateway = gateway.await;
        let answer = gateway.at(sandbox, &station()).send(good.clone()).await;
        assert_eq!(answer.is_ok(), believed, "a gateway by {name}: {answer:?}");
        let served = metric(&gateway.private, "rpc_server_call_duration_seconds_count").await;
        assert_eq!(!served.is_empty(), believed, "a gateway by {name} was told something: {served:?}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_trust_list_without_a_member_closes_its_peers_open_connections() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    let elsewhere = venue("11/station/beijing-west");
    let list = sandbox.trust_list_with(dir.path(), |_| {});
    let gateway = OwnGateway::start(sandbox, |config| config.trust.list = list).await;
    let good = sandbox.request(&station(), &sandbox.green(member("51")).await);
    let (stays, goes) =
        (Shown::read(&sandbox.layout().venue(&station())), Shown::read(&sandbox.layout().venue(&elsewhere)));
    let (_, mut staying) = wire::handshake(&gateway.address, Some(&stays)).await.unwrap();
    let (_, mut going) = wire::handshake(&gateway.address, Some(&goes)).await.unwrap();
    // A server's first frame: it took us in.
    staying.read_u8().await.expect("44 is let in");
    going.read_u8().await.expect("11 is let in");
    sandbox.trust_list_with(dir.path(), |source| drop(source.members.remove("11")));
    let closed = async { while going.read_u8().await.is_ok() {} };
    timeout(Duration::from_secs(5), closed).await.expect("the connection of a venue of 11 is closed");
    assert_refused("the gateway", &gateway.address, "11 again", Some(&goes), "trust list does not have").await;
    let quiet = async { while staying.read_u8().await.is_ok() {} };
    assert!(timeout(Duration::from_millis(100), quiet).await.is_err(), "44's connection is closed too");
    still_serves(&gateway.at(sandbox, &station()), &good, "11 left").await;
    drop(staying);
    gateway.stop().await;
}

fn channel(address: &str, dir: &Path) -> Channel {
    wire::channel(address, Some(&Shown::read(dir)))
}

#[tokio::test]
async fn everybody_calls_what_is_theirs_at_a_node() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    let layout = sandbox.layout();
    let feed = sandbox.certify(&peer("spiffe://51.tongxing.test/feed/lab-1"), realm("51"), dir.path());
    let others = || want(Reason::MemberNotAllowed, PermissionDenied).with("member", "51");
    let not_for = |role: &str, method: &str| {
        want(Reason::RoleNotAllowed, PermissionDenied).with("role", role).with("method", method)
    };
    let asked = |field| want(Reason::FieldMissing, InvalidArgument).field(field);
    let empty = || want(Reason::FieldInvalid, InvalidArgument).field("records");
    let all_others = |paths: &[&'static str]| paths.iter().map(|path| (*path, others())).collect::<Vec<_>>();
    let (gateway, backend, operator) = (layout.gateway(1), layout.backend(member("51")), layout.operator(member("51")));
    for (role, dir, may) in [
        ("gateway", gateway, vec![(LOOKUP, asked("token"))]),
        (
            "backend",
            backend,
            vec![
                (ENROLL, asked("request_id")),
                (ISSUE, asked("consent_request")),
                (PUT_CODES, asked("request_id")),
                (GET_CODE, asked("device_id")),
                (EXPORT, asked("device_id")),
            ],
        ),
        (
            "operator",
            operator,
            vec![(SET_CODE, asked("request_id")), (CLEAR_CODE, asked("request_id")), (EXPLAIN_CODE, asked("document"))],
        ),
        ("backend", layout.backend(member("44")), all_others(&[ENROLL, ISSUE, PUT_CODES, GET_CODE, EXPORT])),
        ("operator", layout.operator(member("44")), all_others(&[SET_CODE, CLEAR_CODE, EXPLAIN_CODE])),
        ("venue", layout.venue(&venue("51/station/chengdu-east")), vec![]),
        ("venue", layout.venue(&station()), vec![]),
        ("node", layout.node(member("51")), vec![]),
        ("node", layout.node(member("44")), vec![]),
        ("feed", feed, vec![(PUT_EVIDENCE, empty())]),
        ("feed", layout.feed(member("44"), "lab-1"), all_others(&[PUT_EVIDENCE])),
    ] {
        let channel = channel(&node_of_51(), &dir);
        for path in AT_A_NODE {
            let wanted = may.iter().find(|(allowed, _)| *allowed == path).map(|(_, wanted)| wanted.clone());
            let wanted = wanted.unwrap_or_else(|| not_for(role, path.rsplit('/').next().unwrap()));
            let name = format!("{role} in {} at {path}", dir.display());
            wanted.check(&name, wire::call(channel.clone(), path, Vec::new()).await);
        }
    }
}

#[tokio::test]
async fn health_and_reflection_are_open_to_every_peer() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    let layout = sandbox.layout();
    let feed = sandbox.certify(&peer("spiffe://44.tongxing.test/feed/lab-1"), realm("44"), dir.path());
    let peers = [
        layout.venue(&station()),
        layout.backend(member("44")),
        layout.operator(member("44")),
        layout.node(member("44")),
        layout.gateway(1),
        feed,
    ];
    let gateway = sandbox.desk.gateway_address().unwrap();
    let recognition = "tongxing.recognition.v1.RecognitionService";
    let (province, traveler, assignment) = (
        "tongxing.province.v1.ProvinceService",
        "tongxing.traveler.v1.TravelerService",
        "tongxing.assignment.v1.AssignmentService",
    );
    let evidence = "tongxing.evidence.v1.EvidenceService";
    for dir in peers {
        for (address, services) in
            [(&gateway, vec![recognition]), (&node_of_51(), vec![province, traveler, assignment, evidence])]
        {
            let channel = channel(address, &dir);
            for service in services.iter().copied().chain([""]) {
                assert!(
                    wire::is_serving(channel.clone(), service).await,
                    "{}: {service} does not serve",
                    dir.display()
                );
            }
            for listed in [reflect_v1(channel.clone(), services[0]).await, reflect_v1alpha(channel, services[0]).await]
            {
                for service in services.iter().copied().chain(["grpc.health.v1.Health"]) {
                    assert!(listed.iter().any(|name| name == service), "{service} is not in {listed:?}");
                }
            }
        }
    }
}

/// Asks by one version of reflection for the services there are and for the file of one of them.
macro_rules! reflect {
    ($name:ident, $version:ident) => {
        async fn $name(channel: Channel, symbol: &str) -> Vec<String> {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let ask = |message| ServerReflectionRequest { message_request: Some(message), ..Default::default() };
            let asked =
                [MessageRequest::ListServices(String::new()), MessageRequest::FileContainingSymbol(symbol.into())];
            let mut client = ServerReflectionClient::new(channel);
            let asked = tokio_stream::iter(asked.map(ask));
            let mut answers = client.server_reflection_info(asked).await.expect("reflection is open").into_inner();
            let services = answers.message().await.unwrap().and_then(|answer| answer.message_response);
            let Some(MessageResponse::ListServicesResponse(services)) = services else { panic!("{services:?}") };
            let file = answers.message().await.unwrap().and_then(|answer| answer.message_response);
            assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "no file of {symbol}: {file:?}");
            services.service.into_iter().map(|service| service.name).collect()
        }
    };
}

reflect!(reflect_v1, v1);
reflect!(reflect_v1alpha, v1alpha);

#[test]
fn a_program_takes_no_certificate_that_names_nobody() {
    let (sandbox, dir) = (shared(), tempfile::tempdir().unwrap());
    for names in [&[][..], &["spiffe://44.tongxing.test/node/1", "spiffe://44.tongxing.test/node/2"]] {
        certificates::write(&sandbox.certify_names(names, realm("44")), dir.path());
        let error = sandbox.desk.standing(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("has {} URI names", names.len())), "{error}");
    }
}
