//! A home member that gives no valid answer: stopped, hung, or lying. Its travelers get an explicit outcome in time (I5), no
//! status comes of a lie (I3), and the others do not notice (I7).

use std::time::Duration;

use proto::{
    contract::{
        province::{LookupRequest, LookupResponse},
        recognition::{Decision, Outcome, Source},
    },
    refusal::{Object, Reason, Refusal},
    statement::{Status, TestResult},
    suite::{SigningKey, Suite},
};
use tokio::time::Instant;
use tonic::Code;

use crate::sandbox::{
    Sandbox, answer_after,
    forge::{Forger, green},
    gateway::OwnGateway,
    member, metric,
    node::{self, FakeNode},
    shared, still_serves, until, venue,
    want::want,
};

const STATION: &str = "44/station/guangzhou-south";
const ELSEWHERE: &str = "11/station/beijing-west";

/// Within which every answer comes, whatever home does.
const IN_TIME: Duration = Duration::from_millis(1500);

/// A second longer than a statement may live.
const TOO_LONG: Duration = Duration::from_secs(601);

/// A gateway for which the node of 51 is at this address, and which waits for it as long as gateways do.
async fn gateway_with(address: &str) -> OwnGateway {
    OwnGateway::with_node(shared(), "51", address, |config| config.limits.member = Default::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_is_unreachable_until_it_is_back() {
    let mut sandbox = Sandbox::start(&["11", "44", "51"]).await;
    let (station, elsewhere) = (venue(STATION), venue(ELSEWHERE));
    let (stopped, other) = (sandbox.green(member("51")).await, sandbox.green(member("44")).await);
    sandbox.federation.stop_node(member("51")).await.expect("it stops");
    let began = Instant::now();
    let answer = sandbox.at(&station).send(sandbox.request(&station, &stopped)).await.expect("an answer, no error");
    assert!(began.elapsed() < IN_TIME, "the answer took {:?}", began.elapsed());
    assert_eq!(answer.outcome(), Outcome::HomeUnreachable, "another outcome");
    assert_eq!((answer.decision(), answer.source()), (Decision::Assist, Source::Unspecified), "never silently green");
    assert!(answer.statement.is_empty() && answer.conversion.is_none(), "a status out of nothing");
    assert!(answer.next_step.unwrap().zh.contains("暂时无法连接"), "another next step");
    still_serves(&sandbox.at(&elsewhere), &sandbox.request(&elsewhere, &other), "a node stopped").await;
    sandbox.federation.restart_node(member("51")).await.expect("it starts again");
    still_serves(&sandbox.at(&station), &sandbox.request(&station, &stopped), "the node came back").await;
    sandbox.stop().await;
}

/// Asks for many travelers of a member that hangs, and meanwhile for others.
async fn hang_and_ask_meanwhile(sandbox: &'static Sandbox, gateway: &OwnGateway) {
    let (station, elsewhere) = (venue(STATION), venue(ELSEWHERE));
    let (hung, other) = (sandbox.green(member("51")).await, sandbox.green(member("44")).await);
    let at_elsewhere = gateway.at(sandbox, &elsewhere);
    let slowest_of_others = async |what: &str| {
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let asked = Instant::now();
            let answer = answer_after(&at_elsewhere, &sandbox.request(&elsewhere, &other), what).await;
            assert_eq!(answer.outcome(), Outcome::Status, "{what}, and another member's traveler gets another outcome");
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    };
    still_serves(&at_elsewhere, &sandbox.request(&elsewhere, &other), "nothing yet").await;
    let before = slowest_of_others("nothing yet").await;

    let (request, checkpoint) = (sandbox.request(&station, &hung), gateway.at(sandbox, &station));
    let began = Instant::now();
    let ask = async move {
        let asks: Vec<_> = (0..4).map(|_| (checkpoint.clone(), request.clone())).collect();
        let asks = asks
            .into_iter()
            .map(|(checkpoint, request)| tokio::spawn(async move { (checkpoint.send(request).await, Instant::now()) }));
        let mut ended = Vec::new();
        for ask in asks.collect::<Vec<_>>() {
            ended.push(ask.await.expect("asking does not panic"));
        }
        ended
    };
    let asking = tokio::spawn(ask);
    let meanwhile = slowest_of_others("51 hangs").await;
    // One that hangs takes 600 ms and more.
    assert!(meanwhile < before + Duration::from_millis(300), "others wait for it: {meanwhile:?}, before {before:?}");
    for (answer, ended) in asking.await.expect("asking does not panic") {
        let answer = answer.expect("an answer, no error");
        assert_eq!(answer.outcome(), Outcome::HomeUnreachable, "another outcome");
        assert_eq!(answer.decision(), Decision::Assist, "another decision");
        assert!(ended - began < IN_TIME, "the answer took {:?}", ended - began);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_behind_a_black_hole_holds_nobody_up() {
    let hole = node::black_hole().await;
    let gateway = gateway_with(&hole.address).await;
    hang_and_ask_meanwhile(shared(), &gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_in_every_call_holds_nobody_up() {
    let sandbox = shared();
    let hung = node::fake(sandbox, &sandbox.layout().node(member("51")), |_| None).await;
    let gateway = gateway_with(&hung.address).await;
    hang_and_ask_meanwhile(sandbox, &gateway).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_callers_short_deadline_is_kept() {
    let (sandbox, station) = (shared(), venue(STATION));
    let hung = node::fake(sandbox, &sandbox.layout().node(member("51")), |_| None).await;
    let gateway = gateway_with(&hung.address).await;
    let standing = gateway.channel(sandbox, &sandbox.layout().venue(&station));
    let mut client = proto::contract::recognition::recognition_service_client::RecognitionServiceClient::new(standing);
    let pass = sandbox.green(member("51")).await;
    let mut answers = Vec::new();
    // The way back is short and the gateway keeps 50 ms for it: a busy machine may need more, but not each time.
    for _ in 0..10 {
        let mut request = tonic::Request::new(sandbox.request(&station, &pass));
        request.set_timeout(Duration::from_millis(400));
        answers.push(client.recognize(request).await.map(|answer| answer.into_inner().outcome()));
        if answers.last().is_some_and(Result::is_ok) {
            break;
        }
    }
    let last = answers.pop().expect("it was asked").expect("an answer before the deadline, once in ten times");
    assert_eq!(last, Outcome::HomeUnreachable, "another outcome");
    gateway.stop().await;
}

/// A node of 51 that is 51's by every certificate, and what an honest statement by it would be.
struct Liar {
    sandbox: &'static Sandbox,
    home: Forger,
    node: FakeNode,
    gateway: OwnGateway,
}

type Lie = Box<dyn Fn(&LookupRequest) -> Vec<u8> + Send + Sync>;

impl Liar {
    async fn new() -> Self {
        let sandbox = shared();
        let node = node::fake(sandbox, &sandbox.layout().node(member("51")), |_| None).await;
        let gateway = gateway_with(&node.address).await;
        Self { sandbox, home: Forger::of(sandbox, member("51")), node, gateway }
    }

    /// What becomes of what the node says.
    async fn outcome(
        &self,
        says: impl Fn(LookupRequest) -> Option<Result<LookupResponse, tonic::Status>> + Send + Sync + 'static,
    ) -> Result<Outcome, tonic::Status> {
        self.node.says(says);
        let station = venue(STATION);
        let presentation = self.home.present(&self.home.consent(), Some(&station));
        let request = tongxing::checkpoint::Checkpoint::request(&station, &presentation, proto::terms::Purpose::Entry);
        self.gateway.at(self.sandbox, &station).send(request).await.map(|answer| answer.outcome())
    }
}

/// Statements that are not what home may say of this token now.
fn lies(sandbox: &Sandbox) -> Vec<(&'static str, Lie)> {
    let (home, now) = (member("51"), sandbox.now());
    let key = || Forger::of(sandbox, home).keys.statement;
    let neighbours = Forger::of(sandbox, member("44")).keys.statement;
    let second = Duration::from_secs(1);
    let lie = move |change: fn(&mut Status), key: SigningKey| -> Lie {
        Box::new(move |request| {
            let mut status = green(home, &request.token, now);
            change(&mut status);
            status.sign(&key)
        })
    };
    vec![
        ("signed by nobody's key", lie(|_| {}, SigningKey::generate(Suite::Ed25519))),
        ("signed by the consent key", lie(|_| {}, Forger::of(sandbox, home).keys.consent)),
        ("signed by 44 in the name of 51", lie(|_| {}, neighbours)),
        ("44's own", lie(|status| status.issuer = member("44"), Forger::of(sandbox, member("44")).keys.statement)),
        ("of another token", lie(|status| status.token[0] ^= 1, key())),
        ("expired", {
            let key = key();
            Box::new(move |request| {
                let then = now.minus(Duration::from_secs(700));
                Status { expires_at: now.minus(30 * second), ..green(home, &request.token, then) }.sign(&key)
            })
        }),
        ("of the future", {
            let key = key();
            Box::new(move |request| green(home, &request.token, now.plus(31 * second)).sign(&key))
        }),
        (
            "disclosing tests at a station",
            lie(|status| status.tests = vec![TestResult { sampled_at: status.issued_at, positive: false }], key()),
        ),
        ("claiming 10 minutes and a second", lie(|status| status.expires_at = status.issued_at.plus(TOO_LONG), key())),
        ("from before what is known of home's changes", lie(|status| status.head.seq = 0, key())),
        ("of a label that is empty", lie(|status| status.label.clear(), key())),
        ("not CBOR", Box::new(|_| vec![0xff; 64])),
        ("larger than a response may be", Box::new(|_| vec![0; 5000])),
        ("empty", Box::new(|_| Vec::new())),
    ]
}

#[tokio::test]
async fn no_status_comes_of_a_lie() {
    let liar = Liar::new().await;
    let (home, now, key) = (member("51"), liar.sandbox.now(), Forger::of(liar.sandbox, member("51")).keys.statement);
    let honestly = move |request: LookupRequest| node::stated(green(home, &request.token, now).sign(&key));
    assert_eq!(liar.outcome(honestly).await.unwrap(), Outcome::Status, "an honest statement is believed");
    for (name, lie) in lies(liar.sandbox) {
        let outcome = liar.outcome(move |request| node::stated(lie(&request))).await;
        assert_eq!(outcome.expect("an answer, no error"), Outcome::HomeUnreachable, "a statement {name} is believed");
    }
    // A store that was restored begins a new epoch: what was known of the old one is no measure.
    let key = Forger::of(liar.sandbox, home).keys.statement;
    let restored = move |request: LookupRequest| {
        let mut status = green(home, &request.token, now);
        (status.head.epoch, status.head.seq) = ([2; 16], 0);
        node::stated(status.sign(&key))
    };
    assert_eq!(liar.outcome(restored).await.unwrap(), Outcome::Status, "a new epoch is not believed");
    let failures = metric(&liar.gateway.private, "gateway_home_failures_total").await;
    let invalid = failures.iter().find(|(labels, _)| labels.contains("invalid_statement"));
    assert!(invalid.is_some_and(|(labels, count)| labels.contains("51") && *count >= 12.0), "{failures:?}");
    liar.gateway.stop().await;
}

#[tokio::test]
async fn a_nodes_own_words_go_no_further() {
    let liar = Liar::new().await;
    let secret = "王小明 449999199001011234";
    let bare = move |_| Some(Err(tonic::Status::internal(secret)));
    assert_eq!(liar.outcome(bare).await.unwrap(), Outcome::HomeUnreachable, "a node's failure is an outcome");
    // What the gateway has verified itself, home cannot refuse.
    let contradicting = |_| Some(Err(Refusal::new(Reason::KeyUnknown).to_status()));
    assert_eq!(liar.outcome(contradicting).await.unwrap(), Outcome::HomeUnreachable, "a contradiction is a failure");
    // What home alone can know, it may; its words stay behind.
    for (reason, code) in [
        (Reason::ConsentRevoked, Code::PermissionDenied),
        (Reason::Expired, Code::FailedPrecondition),
        (Reason::NotYetValid, Code::FailedPrecondition),
        (Reason::DeviceClockOff, Code::FailedPrecondition),
    ] {
        let said = move |_| {
            let refusal = Refusal::of(Object::Token, reason).with("seconds", 61).with("detail", secret);
            Some(Err(refusal.to_status()))
        };
        let result = liar.outcome(said).await;
        let shown = format!("{result:?}");
        assert!(!shown.contains("王小明") && !shown.contains("449999"), "{shown}");
        want(reason, code).about("token").with("seconds", 61).from("home").check("home's refusal", result);
    }
    liar.gateway.stop().await;
}

#[tokio::test]
async fn a_breaker_spares_a_dead_member_and_lets_it_come_back() {
    let liar = Liar::new().await;
    let down = |_| Some(Err(tonic::Status::unavailable("down")));
    for _ in 0..5 {
        assert_eq!(liar.outcome(down).await.unwrap(), Outcome::HomeUnreachable, "another outcome");
    }
    let failures = metric(&liar.gateway.private, "gateway_home_failures_total").await;
    let open = failures.iter().any(|(labels, _)| labels.contains("breaker_open"));
    assert!(open, "nothing was spared: {failures:?}");
    until("the breaker lets the member come back", Duration::from_secs(10), async || {
        liar.outcome(|_| node::unknown()).await.unwrap() == Outcome::UnknownTraveler
    })
    .await;
    liar.gateway.stop().await;
}
