//! Recognition by the stream: answers as they are ready, each item with its own fate, and nothing that one item does ends it.

use std::{collections::BTreeMap, time::Duration};

use proto::{
    contract::recognition::{
        Decision, Outcome, RecognizeRequest, RecognizeStreamRequest, RecognizeStreamResponse,
        recognition_service_client::RecognitionServiceClient, recognize_stream_response::Result as Item,
    },
    refusal::Reason,
};
use province_stub::seed::Condition;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

use crate::sandbox::{
    gateway::OwnGateway,
    member,
    node::{self, FakeNode},
    shared, venue,
    want::is_trace_id,
};

const STATION: &str = "44/station/guangzhou-south";
/// Far longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open stream at a gateway of the shared federation.
struct Lane {
    items: mpsc::Sender<RecognizeStreamRequest>,
    answers: Streaming<RecognizeStreamResponse>,
}

impl Lane {
    async fn open() -> Self {
        Self::open_at(&shared().desk.gateway_address().unwrap()).await
    }

    async fn open_at(address: &str) -> Self {
        let standing = shared().desk.standing(&shared().layout().venue(&venue(STATION))).unwrap();
        let limits = peer::dial::DialLimits { connect_timeout: PATIENCE, ..Default::default() };
        let channel = peer::dial::channel(&standing, address, peer::verifier::Expected::Gateway, limits).unwrap();
        let (items, stream) = mpsc::channel(1000);
        let opened = RecognitionServiceClient::new(channel).recognize_stream(ReceiverStream::new(stream)).await;
        Self { items, answers: opened.expect("the stream opens").into_inner() }
    }

    async fn send(&self, id: &str, request: RecognizeRequest) {
        let item = RecognizeStreamRequest { request_id: id.into(), request: Some(request) };
        self.items.send(item).await.expect("the stream is open");
    }

    async fn next(&mut self) -> RecognizeStreamResponse {
        let next = timeout(PATIENCE, self.answers.message()).await.expect("an answer in time");
        next.expect("the stream goes on").expect("an answer")
    }

    /// The next answers by their ids.
    async fn collect(&mut self, count: usize) -> BTreeMap<String, Item> {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            let answer = self.next().await;
            answers.insert(answer.request_id, answer.result.expect("an answer or an error"));
        }
        answers
    }
}

fn outcome(item: &Item) -> Outcome {
    match item {
        Item::Answer(answer) => answer.outcome(),
        Item::Error(status) => panic!("an error where an answer was due: {status:?}"),
    }
}

fn reason(item: &Item) -> (Code, String) {
    match item {
        Item::Answer(answer) => panic!("an answer where an error was due: {:?}", answer.outcome()),
        Item::Error(status) => {
            let bytes = prost::Message::encode_to_vec(status);
            let status = tonic::Status::with_details(Code::from_i32(status.code), status.message.clone(), bytes.into());
            let info = status.get_details_error_info().expect("an error says its reason");
            assert_eq!(info.domain, "tongxing");
            assert!(is_trace_id(&info.metadata["trace_id"]), "an item's error names its trace");
            (status.code(), info.reason)
        }
    }
}

#[tokio::test]
async fn every_item_gets_its_own_answer_and_errors_end_nothing() {
    let sandbox = shared();
    let mut lane = Lane::open().await;
    let station = venue(STATION);
    let green = sandbox.green(member("51")).await;
    let red = sandbox.pass(member("41"), Condition::Red, &Default::default()).await;
    lane.send("green", sandbox.request(&station, &green)).await;
    lane.send("red", sandbox.request(&station, &red)).await;
    lane.send("empty", RecognizeRequest::default()).await;
    lane.send("mangled", RecognizeRequest { token: vec![0xff], ..sandbox.request(&station, &green) }).await;
    lane.items.send(RecognizeStreamRequest { request_id: "nothing".into(), request: None }).await.unwrap();
    lane.send("an id with spaces", sandbox.request(&station, &green)).await;
    let answers = lane.collect(6).await;
    let decision = |id: &str| match &answers[id] {
        Item::Answer(answer) => (answer.outcome(), answer.decision()),
        Item::Error(status) => panic!("{id}: {status:?}"),
    };
    assert_eq!(decision("green"), (Outcome::Status, Decision::Pass));
    assert_eq!(decision("red"), (Outcome::Status, Decision::Stop));
    assert_eq!(reason(&answers["empty"]), (Code::InvalidArgument, "PURPOSE_UNKNOWN".into()));
    assert_eq!(reason(&answers["mangled"]), (Code::InvalidArgument, "NOT_CBOR".into()));
    assert_eq!(reason(&answers["nothing"]), (Code::InvalidArgument, "FIELD_MISSING".into()));
    assert_eq!(
        reason(&answers[""]),
        (Code::InvalidArgument, "FIELD_INVALID".into()),
        "an id that is none is not repeated"
    );
    lane.send("after", sandbox.request(&station, &green)).await;
    assert_eq!(lane.next().await.request_id, "after", "the stream serves on");
}

#[tokio::test]
async fn many_items_are_all_answered_and_the_end_is_the_end() {
    let sandbox = shared();
    let mut lane = Lane::open().await;
    let (station, pass) = (venue(STATION), sandbox.green(member("44")).await);
    // More than may be under way at once: the rest waits its turn.
    for number in 0..200 {
        lane.send(&format!("n-{number}"), sandbox.request(&station, &pass)).await;
    }
    let answers = lane.collect(200).await;
    assert_eq!(answers.len(), 200, "each id once");
    assert!(answers.values().all(|item| matches!(item, Item::Answer(_))), "all of them answers");
    let Lane { items, mut answers } = lane;
    drop(items);
    let end = timeout(PATIENCE, answers.message()).await.expect("the end in time");
    assert!(end.expect("no error").is_none(), "after the last item the stream ends");
}

/// A gateway whose node of 51 hangs until it is let go, a word whenever it was asked, and room for so many items.
async fn gateway_that_waits(room: usize) -> (OwnGateway, mpsc::Receiver<()>, FakeNode) {
    OwnGateway::with_hung_node(shared(), member("51"), |config| {
        let limits = &mut config.limits;
        limits.max_in_flight_per_stream = room;
        // Nothing ends what hangs, and nothing is asked twice.
        limits.server.max_duration = PATIENCE;
        let member = &mut limits.member;
        (member.timeout, member.attempt_timeout, member.connect_timeout) = (PATIENCE, PATIENCE, PATIENCE);
    })
    .await
}

#[tokio::test]
async fn a_slow_item_does_not_hold_up_the_others() {
    let (sandbox, station) = (shared(), venue(STATION));
    let (gateway, mut asked, hung) = gateway_that_waits(2).await;
    let (fast, slow) = (sandbox.green(member("44")).await, sandbox.green(member("51")).await);
    let mut lane = Lane::open_at(&gateway.address).await;
    lane.send("slow", sandbox.request(&station, &slow)).await;
    asked.recv().await.expect("the slow item's home is asked");
    lane.send("fast", sandbox.request(&station, &fast)).await;
    assert_eq!(lane.next().await.request_id, "fast", "answers leave as they are ready");
    hung.says(|_| node::unknown());
    let slow = lane.next().await;
    assert_eq!((slow.request_id.as_str(), outcome(&slow.result.unwrap())), ("slow", Outcome::UnknownTraveler));
    drop(lane);
    gateway.stop().await;
}

#[tokio::test]
async fn so_many_items_of_a_stream_are_under_way_and_no_more() {
    let (sandbox, station) = (shared(), venue(STATION));
    let (gateway, mut asked, hung) = gateway_that_waits(2).await;
    let mut lane = Lane::open_at(&gateway.address).await;
    for number in 0..5 {
        // Those who ask for one traveler share a lookup.
        let pass = sandbox.green(member("51")).await;
        lane.send(&format!("n-{number}"), sandbox.request(&station, &pass)).await;
    }
    for _ in 0..2 {
        asked.recv().await.expect("home is asked");
    }
    // Other streams have room of their own: what they ask meanwhile overtakes the third item, which is not even read.
    let mut other = Lane::open_at(&gateway.address).await;
    for number in 0..5 {
        let pass = sandbox.green(member("44")).await;
        other.send(&format!("other-{number}"), sandbox.request(&station, &pass)).await;
        assert_eq!(outcome(&other.next().await.result.unwrap()), Outcome::Status);
    }
    assert!(asked.try_recv().is_err(), "a third item is under way");
    hung.says(|_| node::unknown());
    let answers = lane.collect(5).await;
    assert_eq!(answers.len(), 5, "each id once");
    assert!(answers.values().all(|item| outcome(item) == Outcome::UnknownTraveler), "what waited is answered too");
    drop((lane, other));
    gateway.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_stream_with_its_reason() {
    let mut lane = Lane::open().await;
    lane.send("large", RecognizeRequest { token: vec![0; 5 << 20], ..RecognizeRequest::default() }).await;
    let status = timeout(PATIENCE, lane.answers.message()).await.expect("an end in time").expect_err("an error");
    let info = status.get_details_error_info().expect("it says its reason");
    assert_eq!((status.code(), info.reason.as_str()), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"));
    assert!(is_trace_id(&info.metadata["trace_id"]), "the end names the stream's trace");
    assert_eq!(proto::refusal::Refusal::reason_of(&status), Some(Reason::RequestTooLarge));
}
