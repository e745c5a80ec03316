//! Codes that nobody asks for change by themselves: when time passes, and when the nation's rules do.

use std::{sync::Arc, time::Duration};

use proto::{
    contract::{
        evidence::{
            EvidenceRecord, Person, PutEvidenceRequest, Risk, RiskArea, Stay, Test, evidence_record::Content,
            evidence_service_client::EvidenceServiceClient, person::Person as Whom,
        },
        province::{GetNodeRequest, GetNodeResponse, province_service_client::ProvinceServiceClient},
        traveler::{GetCodeRequest, traveler_service_client::TravelerServiceClient},
    },
    identity::PeerId,
    statement::LogHead,
    time::{Clock as _, ManualClock, SystemClock, UnixTime},
};
use province_stub::seed::{Condition, SeededPerson};
use tokio::time::{Instant, sleep};

use crate::{
    Phone, backend, document,
    federation::{Federation, Running, home},
    gateway,
};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const AREA: u32 = 410_105;

/// Somebody without a code, with a phone whose consent lives.
async fn somebody(federation: &Federation, node: &Running) -> (SeededPerson, Phone) {
    let people = node.handle.seed(12).await.unwrap();
    let person = people.into_iter().find(|person| person.condition == Condition::NoCode).unwrap();
    let phone = Phone::enroll(federation, node, &person).await;
    (person, phone)
}

async fn bring(federation: &Federation, node: &Running, feed: &str, contents: Vec<(Content, &SeededPerson)>) {
    let feed = PeerId::feed(home(), feed).unwrap();
    let records = contents.into_iter().enumerate().map(|(number, (content, person))| {
        let person = Person { person: document(person).map(Whom::Document) };
        let (person, kind) = match content {
            Content::RiskArea(_) => (None, "joint-mechanism"),
            Content::Test(_) => (Some(person), "health-commission"),
            _ => (Some(person), "cdc"),
        };
        let (record_id, authority) = (format!("record-{number}"), format!("41/{kind}"));
        EvidenceRecord { record_id, revision: 0, person, authority, content: Some(content) }
    });
    let request = PutEvidenceRequest { batch: 1, records: records.collect(), dry_run: false };
    let mut client = EvidenceServiceClient::new(federation.dial(node, &feed));
    let mut answers = client.put_evidence(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(answer.verdicts.iter().all(|verdict| verdict.detail.is_empty()), "{answer:?}");
}

/// A stay of medium risk that ended at a time.
fn stay(left: UnixTime) -> [Content; 2] {
    let since = Some(left.minus(DAY * 2).to_protobuf());
    let listed = RiskArea { area: AREA, risk: Risk::Medium.into(), start_time: since, end_time: None };
    let (enter_time, leave_time) = (Some(left.minus(DAY).to_protobuf()), Some(left.to_protobuf()));
    [Content::RiskArea(listed), Content::Stay(Stay { area: AREA, enter_time, leave_time })]
}

/// Where the node stands, as it tells the gateway; nobody's code is looked at for it.
async fn standing(federation: &Federation, node: &Running) -> (GetNodeResponse, u64) {
    let mut province = ProvinceServiceClient::new(federation.dial(node, &gateway()));
    let node = province.get_node(GetNodeRequest {}).await.unwrap().into_inner();
    let (_, head) = LogHead::from_change_token(&node.change_token).unwrap();
    (node, head.seq)
}

/// What the traveler's phone shows. It reads what is on file, and works nothing out.
async fn label(federation: &Federation, node: &Running, phone: &Phone) -> String {
    let mut traveler = TravelerServiceClient::new(federation.dial(node, &backend()));
    let request = GetCodeRequest { device_id: phone.device_id.clone() };
    traveler.get_code(request).await.unwrap().into_inner().code.unwrap().label
}

/// Waits until the change log stands there. It tells a node alone whether it has looked.
async fn until_head(federation: &Federation, node: &Running, seq: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while standing(federation, node).await.1 < seq {
        assert!(Instant::now() < deadline, "the change log does not come to {seq}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The same, while time passes: a node lets others take a new edition up before it goes by it.
async fn until_head_as_time_passes(federation: &Federation, node: &Running, seq: u64, clock: &ManualClock) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while standing(federation, node).await.1 < seq {
        assert!(Instant::now() < deadline, "the change log does not come to {seq}");
        clock.advance(Duration::from_secs(1));
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn time_changes_a_code_though_nobody_asks() {
    let federation = Federation::new();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let node = federation.start_by(clock.clone()).await;
    let (person, phone) = somebody(&federation, &node).await;
    let sampled_at = clock.now().minus(DAY * 3 - MINUTE * 10);
    let test = Content::Test(Test { sample_time: Some(sampled_at.to_protobuf()), positive: true });
    bring(&federation, &node, "lab-1", vec![(test, &person)]).await;
    let (_, before) = standing(&federation, &node).await;
    assert_eq!(label(&federation, &node, &phone).await, "黄码");
    clock.advance(MINUTE * 10);
    until_head(&federation, &node, before + 1).await;
    assert_eq!(label(&federation, &node, &phone).await, "绿码");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_stopped_node_catches_up_with_the_time_it_missed() {
    let federation = Federation::new();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let node = federation.start_by(clock.clone()).await;
    let (person, phone) = somebody(&federation, &node).await;
    let sampled_at = clock.now().minus(DAY * 3 - MINUTE * 10);
    let test = Content::Test(Test { sample_time: Some(sampled_at.to_protobuf()), positive: true });
    bring(&federation, &node, "lab-1", vec![(test, &person)]).await;
    let (_, before) = standing(&federation, &node).await;
    node.stop().await.unwrap();
    clock.advance(MINUTE * 10);
    let node = federation.start_by(clock).await;
    until_head(&federation, &node, before + 1).await;
    assert_eq!(label(&federation, &node, &phone).await, "绿码");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn other_rules_are_everybodys_and_other_lives_nobodys() {
    let federation = Federation::new();
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let mut config = federation.config();
    config.limits.reload_every = Duration::from_millis(20);
    let node = federation.start_with(config, clock.clone(), "127.0.0.1:0").await;
    let (person, phone) = somebody(&federation, &node).await;
    let contents = stay(clock.now().minus(DAY * 2)).map(|content| (content, &person));
    bring(&federation, &node, "cdc-1", contents.into()).await;
    assert_eq!(label(&federation, &node, &phone).await, "黄码");
    let (_, before) = standing(&federation, &node).await;
    let fourteen_days = "evidence = \"medium-risk-stay\"\nphases = [{ as = [\"yellow\"], lasts = \"14d\" }]";
    let one_hour = fourteen_days.replace("14d", "1h");
    // An edition with other lives: the next change in the log is the other rules'.
    federation.renew_policy(2, "statement = \"10m\"", "statement = \"5m\"");
    until_policy(&federation, &node, 2).await;
    federation.renew_policy(3, fourteen_days, &one_hour);
    until_head_as_time_passes(&federation, &node, before + 1, &clock).await;
    assert_eq!(standing(&federation, &node).await.0.policy_version, 3);
    assert_eq!(label(&federation, &node, &phone).await, "绿码");
    // And back: everybody is worked out anew, and nobody is asked.
    federation.renew_policy(4, "statement = \"10m\"", "statement = \"5m\"");
    until_head_as_time_passes(&federation, &node, before + 2, &clock).await;
    assert_eq!(label(&federation, &node, &phone).await, "黄码");
    node.stop().await.unwrap();
}

async fn until_policy(federation: &Federation, node: &Running, version: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while standing(federation, node).await.0.policy_version < version {
        assert!(Instant::now() < deadline, "the node does not take policy {version}");
        sleep(Duration::from_millis(20)).await;
    }
}
