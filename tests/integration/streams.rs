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

use crate::sandbox::{Sandbox, member, node, shared, venue, want::is_trace_id};

const STATION: &str = "44/station/guangzhou-south";
/// Far longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open stream at the shared federation's gateway.
struct Lane {
    items: mpsc::Sender<RecognizeStreamRequest>,
    answers: Streaming<RecognizeStreamResponse>,
}

impl Lane {
    async fn open(sandbox: &Sandbox) -> Self {
        let standing = sandbox.desk.standing(&sandbox.layout().venue(&venue(STATION))).unwrap();
        let address = sandbox.desk.gateway_address().unwrap();
        let limits = peer::dial::DialLimits { connect_timeout: PATIENCE, ..Default::default() };
        let channel = peer::dial::channel(&standing, &address, peer::verifier::Expected::Gateway, limits).unwrap();
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
    let mut lane = Lane::open(sandbox).await;
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
    let mut lane = Lane::open(sandbox).await;
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

#[tokio::test]
async fn a_slow_item_does_not_hold_up_the_others() {
    let sandbox = Sandbox::start(&["44", "51"]).await;
    let (station, home) = (venue(STATION), member("51"));
    let (fast, slow) = (sandbox.green(member("44")).await, sandbox.green(home).await);
    // A node that accepts and never answers takes the place of 51's.
    let hung = node::fake(&sandbox, &sandbox.layout().node(home), |_| None).await;
    let list = sandbox.trust_list_with(sandbox.layout().dir(), |source| {
        source.members.get_mut("51").expect("51 is a member").endpoints = vec![hung.address.clone()];
    });
    assert_eq!(list, sandbox.layout().trust_list());
    crate::sandbox::until("the gateway follows the list", PATIENCE, async || {
        let answer = sandbox.at(&station).send(sandbox.request(&station, &slow)).await;
        answer.is_ok_and(|answer| answer.outcome() == Outcome::HomeUnreachable)
    })
    .await;
    let mut lane = Lane::open(&sandbox).await;
    lane.send("slow", sandbox.request(&station, &slow)).await;
    lane.send("fast", sandbox.request(&station, &fast)).await;
    let first = lane.next().await;
    let second = lane.next().await;
    let order = [first.request_id.as_str(), second.request_id.as_str()];
    let open_breaker = "slow"; // Its breaker may be open already, and then it is the quicker one.
    assert!(order == ["fast", "slow"] || order[0] == open_breaker, "answers leave as they are ready: {order:?}");
    drop(lane);
    drop(hung);
    sandbox.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_stream_with_its_reason() {
    let sandbox = shared();
    let mut lane = Lane::open(sandbox).await;
    lane.send("large", RecognizeRequest { token: vec![0; 5 << 20], ..RecognizeRequest::default() }).await;
    let status = timeout(PATIENCE, lane.answers.message()).await.expect("an end in time").expect_err("an error");
    let info = status.get_details_error_info().expect("it says its reason");
    assert_eq!((status.code(), info.reason.as_str()), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"));
    assert!(is_trace_id(&info.metadata["trace_id"]), "the end names the stream's trace");
    assert_eq!(proto::refusal::Refusal::reason_of(&status), Some(Reason::RequestTooLarge));
}
