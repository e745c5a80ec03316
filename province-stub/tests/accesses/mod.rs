//! The access log on the wire: a replica delivers, home signs, the traveler sees who asked.

use std::{
    fs,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use peer::config::to_hex;
use proto::{
    contract::{
        access::{
            RecordAccessesRequest, access_log_service_client::AccessLogServiceClient,
            record_accesses_response::Result as Answer,
        },
        recognition::{Outcome, Source},
        traveler::{
            Access, DeleteTravelerRequest, ListAccessesRequest, traveler_service_client::TravelerServiceClient,
        },
    },
    identity::Realm,
    log::{
        LogId,
        checkpoint::Checkpoint,
        delivery::DeliveryReceipt,
        merkle::{Frontier, leaf_hash},
        record::{Ending, Entry},
    },
    refusal::Reason,
    terms::{Kind, Purpose, Scope},
    time::{Clock as _, SystemClock, UnixTime},
    token::Cti,
};
use tonic::transport::Channel;

use super::{Phone, backend, gateway, reason, scrape};
use crate::federation::{Federation, home};

/// A record of an exchange with this consent.
pub(crate) fn entry(cti: Cti, time: UnixTime) -> Entry {
    Entry {
        time,
        venue: Arc::new("44/station/guangzhou-south".parse().unwrap()),
        caller: (&backend()).into(),
        staff_id: Some("window-3".into()),
        purpose: Purpose::Travel,
        granted: Some(Scope::LEVEL),
        cti,
        kind: Kind::Own,
        policy_version: 1,
        exchange_id: [2; 16],
        trace_id: [3; 16],
        ending: Ending::Answered { outcome: Outcome::Status, source: Source::Cache, statement: None },
    }
}

/// All records of the federation's one replica, as it delivers them: with a head that ends where they do.
pub(crate) fn delivery(federation: &Federation, records: Vec<Vec<u8>>) -> RecordAccessesRequest {
    let mut tree = Frontier::new();
    records.iter().for_each(|record| tree.push(leaf_hash(record)));
    let (log, owner) = (LogId::of(federation.log_key.verifying_key()), Realm::Member(home()));
    let checkpoint = Checkpoint { log, owner, size: tree.size(), root: tree.root() };
    RecordAccessesRequest {
        log: log.0.to_vec(),
        first_index: 0,
        records,
        checkpoint: checkpoint.sign(&federation.domain, &federation.log_key),
        consistency_proof: vec![],
        frontier: vec![],
    }
}

pub(crate) async fn deliver(channel: Channel, request: RecordAccessesRequest) -> Answer {
    let mut log = AccessLogServiceClient::new(channel);
    log.record_accesses(request).await.unwrap().into_inner().result.unwrap()
}

#[tokio::test]
async fn what_a_replica_recorded_reaches_its_traveler() {
    let federation = Federation::new();
    let node = federation.start().await;
    let people = node.handle.seed(12).await.unwrap();
    let phone = Phone::enroll(&federation, &node, &people[0]).await;
    let (cti, now) = (phone.cti(&federation), SystemClock.now());
    let mut refused = entry(cti, now);
    (refused.granted, refused.staff_id, refused.ending) = (None, None, Ending::refused(Reason::AudienceMismatch));
    let entries = [entry(cti, now), refused, entry(Cti([9; 16]), now)];
    let mut records: Vec<_> = entries.iter().map(Entry::encode).collect();
    records.push(vec![0xff]);

    let channel = federation.dial(&node, &gateway());
    let request = delivery(&federation, records.clone());
    for _ in 0..2 {
        let Answer::Receipt(receipt) = deliver(channel.clone(), request.clone()).await else { panic!("a conflict") };
        let receipt = DeliveryReceipt::open(&receipt, home(), &federation.list, SystemClock.now()).unwrap();
        assert_eq!((receipt.size, receipt.log), (4, LogId::of(federation.log_key.verifying_key())));
    }
    records[1] = entry(Cti([8; 16]), now).encode();
    let forked = deliver(channel, delivery(&federation, records)).await;
    let Answer::Conflict(conflict) = forked else { panic!("{forked:?}") };
    assert_eq!((conflict.held_checkpoint, conflict.held_size, conflict.index), (request.checkpoint, 4, 1));

    let mut traveler = TravelerServiceClient::new(federation.dial(&node, &backend()));
    let mut list = async |page_token: String| {
        let request = ListAccessesRequest { device_id: phone.device_id.clone(), page_size: 1, page_token };
        traveler.list_accesses(request).await.unwrap().into_inner()
    };
    let last = list(String::new()).await;
    let first = list(last.next_page_token.clone()).await;
    assert!(list(first.next_page_token.clone()).await.accesses.is_empty());
    let expected = Access {
        time: Some(now.to_protobuf()),
        venue: "44/station/guangzhou-south".into(),
        caller: "41/backend/app".into(),
        staff_id: "window-3".into(),
        purpose: 2,
        disclosed_scope: 1,
        outcome: Outcome::Status.into(),
        source: Source::Cache.into(),
        refusal_reason: String::new(),
        cti: cti.0.to_vec(),
        kind: 1,
        device_id: phone.device_id.clone(),
        exchange_id: vec![2; 16],
        log: request.log,
        log_index: 0,
        operator_reason: String::new(),
    };
    assert_eq!(first.accesses, std::slice::from_ref(&expected));
    let refused = Access {
        staff_id: String::new(),
        disclosed_scope: 0,
        outcome: 0,
        source: 0,
        refusal_reason: "AUDIENCE_MISMATCH".into(),
        log_index: 1,
        ..expected
    };
    assert_eq!(last.accesses, [refused]);

    let metrics = scrape(&node).await;
    for line in [
        "node_accesses_total{whose=\"matched\"} 2",
        "node_accesses_total{whose=\"unmatched\"} 1",
        "node_accesses_total{whose=\"unreadable\"} 1",
        "node_access_conflicts_total 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_delivery_may_be_larger_than_other_calls_but_not_without_end() {
    let federation = Federation::new();
    let node = federation.start().await;
    let channel = federation.dial(&node, &gateway());
    let largest = |count, bytes| delivery(&federation, vec![vec![1; bytes]; count]);
    let answer = deliver(channel.clone(), largest(1_000, 250)).await;
    assert!(matches!(answer, Answer::Receipt(_)), "{answer:?}");
    let mut log = AccessLogServiceClient::new(channel);
    assert_eq!(reason(log.record_accesses(largest(1_000, 262)).await), Reason::RequestTooLarge);
    assert_eq!(reason(log.record_accesses(largest(1_001, 1)).await), Reason::FieldInvalid);
    assert_eq!(reason(log.record_accesses(largest(1, 513)).await), Reason::FieldInvalid);
    node.stop().await.unwrap();
}

/// The node's own configuration file, for its commands.
fn write_config(federation: &Federation) {
    let root = to_hex(federation.list.roots.keys()[0].encoded());
    let text = format!(
        "member = \"41\"\nname = \"1\"\ndomain = \"tongxing.test\"\nlisten = \"127.0.0.1:7500\"\n\
         private_listen = \"127.0.0.1:7901\"\ndata_dir = \"data\"\n\
         [identity]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
         [trust]\nlist = \"trust\"\npolicy = \"policy\"\nroots = [\"{root}\"]\nthreshold = 1\n\
         [keys]\nconsent = \"consent.key\"\nstatement = \"statement.key\"\nsecret = \"secret\"\nsealing = \"sealing\"\n\
         at_rest = [\"at-rest.key\"]\n"
    );
    fs::write(federation.path("node.toml"), text).unwrap();
}

fn run(federation: &Federation, command: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_province-stub"));
    program.args(["access", command, "--config"]).arg(federation.path("node.toml"));
    program.output().unwrap()
}

/// Whether a verification found all well, and what it said.
fn verify(federation: &Federation) -> (bool, String) {
    let output = run(federation, "verify");
    (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn logs_are_verified_and_shown_beside_a_node_that_runs() {
    let federation = Federation::new();
    write_config(&federation);
    let (well, said) = verify(&federation);
    assert!(!well && said.contains("node.db"), "no store is no log that is well: {said}");
    assert!(!fs::exists(federation.path("data")).unwrap(), "and looking makes none");
    let node = federation.start().await;
    let people = node.handle.seed(12).await.unwrap();
    let phone = Phone::enroll(&federation, &node, &people[0]).await;
    let (cti, now) = (phone.cti(&federation), SystemClock.now());
    let records = vec![entry(cti, now).encode(), entry(Cti([9; 16]), now).encode(), vec![0xff]];
    let log = LogId::of(federation.log_key.verifying_key());
    let channel = federation.dial(&node, &gateway());
    deliver(channel.clone(), delivery(&federation, records.clone())).await;

    let (well, said) = verify(&federation);
    assert!(well && said.contains(&format!("ok   {log} records 0..3 of 3 signed\n")), "{said}");
    fs::remove_dir_all(federation.path("data").join("held")).unwrap();
    assert!(verify(&federation).0, "by the published list too");
    let shown = String::from_utf8(run(&federation, "show").stdout).unwrap();
    for line in ["       2 unreadable, 1 bytes", "44/station/guangzhou-south by 41/backend/app (window-3) for travel"] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    assert_eq!((shown.matches("of a traveler").count(), shown.matches("of nobody known").count()), (1, 1));
    assert!(!shown.contains(&to_hex(&cti.0)) && !shown.contains(people[0].name.as_str()), "{shown}");

    let mut other = records;
    other[1] = entry(Cti([8; 16]), now).encode();
    deliver(channel, delivery(&federation, other)).await;
    let (well, said) = verify(&federation);
    let found = "held 3, shown a head of 3, at record 1\n1 logs, 0 failed, 0 gaps, 1 conflicts on file\n";
    assert!(!well && said.contains(found), "{said}");
    // A traveler who is forgotten takes nothing out of the log.
    let mut traveler = TravelerServiceClient::new(federation.dial(&node, &backend()));
    let request = DeleteTravelerRequest { device_id: phone.device_id.clone() };
    traveler.delete_traveler(request).await.unwrap();
    assert!(verify(&federation).1.contains(&format!("ok   {log} ")));
    node.stop().await.unwrap();
}

#[tokio::test]
async fn what_never_came_is_said_aloud() {
    let federation = Federation::new();
    write_config(&federation);
    let node = federation.start().await;
    let channel = federation.dial(&node, &gateway());
    let mut records: Vec<_> = (0..6).map(|_| entry(Cti([9; 16]), SystemClock.now()).encode()).collect();
    records[5] = entry(Cti([9; 16]), SystemClock.now().plus(Duration::from_secs(3600))).encode();
    deliver(channel.clone(), delivery(&federation, records[..2].to_vec())).await;
    assert!(verify(&federation).0);
    // The gateway has no more than the tree over the first four: four and no peak beside it.
    let mut before = Frontier::new();
    records[..4].iter().for_each(|record| before.push(leaf_hash(record)));
    let frontier = before.peaks().iter().map(|peak| peak.to_vec()).collect();
    let behind = RecordAccessesRequest { first_index: 4, frontier, ..delivery(&federation, records.clone()) };
    let behind = RecordAccessesRequest { records: records[4..].to_vec(), ..behind };
    assert!(matches!(deliver(channel, behind).await, Answer::Receipt(_)));
    let (well, said) = verify(&federation);
    let log = LogId::of(federation.log_key.verifying_key());
    assert!(!well && said.contains(&format!("\nGAP  {log} records 2..4 never came: ")), "{said}");
    assert!(said.ends_with("2 logs, 0 failed, 1 gaps, 0 conflicts on file\n"), "{said}");
    let metrics = scrape(&node).await;
    let ahead = |line: &&str| line.starts_with("node_accesses_total{") && line.contains("time=\"ahead\"");
    let ahead = metrics.lines().find(ahead).unwrap();
    assert!(ahead.contains("whose=\"unmatched\"") && ahead.ends_with(" 1"), "{ahead}");
    assert!(metrics.contains("node_access_missing_total 2"), "{metrics}");
    node.stop().await.unwrap();
}
