//! One trace from the caller's own span to home's, the same id in logs, errors and the record; and nobody in any of it (I6).
//! What is exported is looked at where it arrives: at a collector, from the real programs.

use std::{collections::BTreeSet, time::Duration};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use peer::config::{parse_hex, to_hex};
use proto::{
    contract::recognition::{
        Freshness, Outcome, RecognizeRequest, RecognizeResponse, RecognizeStreamRequest, Source,
        freshness::Requirement, recognition_service_client::RecognitionServiceClient,
        recognize_stream_response::Result as Item,
    },
    token::UnverifiedToken,
    venue::VenueId,
};
use province_stub::seed::Condition;
use tongxing::phone::{Pass, Wish};
use tonic::{Request, Response, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    privacy::{NAME, NUMBER, everybody, laden},
    sandbox::{
        Sandbox,
        collector::{Collector, Exported, attribute},
        evidence,
        forge::Forger,
        gateway::OwnGateway,
        log, member, node,
        program::{self, Program},
        shared, still_serves, until, venue,
        want::is_trace_id,
    },
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLERS_SPAN: &str = "00f067aa0ba902b7";
const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test: the gateway or a node, when another test starts this binary as one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a program that other tests start"]
async fn program() {
    program::be().await;
}

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

/// Asks as a caller that has a trace already, and more in its headers than anybody should hear.
async fn ask(
    channel: Channel,
    request: RecognizeRequest,
    traceparent: &str,
) -> Result<Response<RecognizeResponse>, Status> {
    let mut request = Request::new(request);
    let headers = request.metadata_mut();
    headers.insert("traceparent", traceparent.parse().unwrap());
    headers.insert("tracestate", format!("venue={NUMBER}").parse().unwrap());
    headers.insert("baggage", format!("traveler={NUMBER},name={}", to_hex(NAME.as_bytes())).parse().unwrap());
    RecognitionServiceClient::new(channel).recognize(request).await
}

fn traceparent(trace: &str) -> String {
    format!("00-{trace}-{CALLERS_SPAN}-01")
}

fn trace_of(status: &Status) -> String {
    let info = status.get_details_error_info().expect("a refusal says why");
    info.metadata["trace_id"].clone()
}

#[tokio::test]
async fn home_hears_of_the_trace_and_of_nothing_else() {
    let sandbox = shared();
    let fake = node::fake(sandbox, &sandbox.layout().node(member("51")), |_| node::unknown()).await;
    let gateway = OwnGateway::with_node(sandbox, "51", &fake.address, |_| {}).await;
    let request = sandbox.request(&station(), &sandbox.green(member("51")).await);
    let channel = gateway.channel(sandbox, &sandbox.layout().venue(&station()));
    let number = format!("{NUMBER:a<32}");
    let malformed = traceparent(TRACE).to_uppercase();
    for (sent, continued) in [(traceparent(TRACE), true), (malformed, false), (traceparent(&number), false)] {
        let answer = ask(channel.clone(), request.clone(), &sent).await.expect("an answer").into_inner();
        assert_eq!(answer.outcome(), Outcome::UnknownTraveler, "home was not asked");
        let heard = fake.heard().pop().expect("home was asked");
        let heard_trace = heard.get("traceparent").expect("a trace").to_str().unwrap().to_owned();
        assert_eq!(heard_trace.contains(TRACE), continued, "{sent} became {heard_trace}");
        assert!(heard_trace.len() == 55 && is_trace_id(&heard_trace[3..35]), "{heard_trace}");
        let names: BTreeSet<_> = heard.keys().map(|key| format!("{key:?}")).collect();
        assert!(!names.iter().any(|name| name.contains("tracestate") || name.contains("baggage")), "{names:?}");
        assert!(!format!("{heard:?}").contains(NUMBER), "{heard:?}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_refusal_and_the_log_within_the_call_name_the_trace() {
    let sandbox = shared();
    let gateway = OwnGateway::start(sandbox, |_| {}).await;
    let channel = gateway.channel(sandbox, &sandbox.layout().venue(&station()));
    let refused = ask(channel.clone(), RecognizeRequest::default(), &traceparent(TRACE)).await.expect_err("no token");
    assert_eq!(trace_of(&refused), TRACE);
    let refused = RecognitionServiceClient::new(channel).recognize(RecognizeRequest::default()).await.unwrap_err();
    assert!(is_trace_id(&trace_of(&refused)) && trace_of(&refused) != TRACE, "another call, another trace");
    let (request, mark) = (sandbox.request(&station(), &sandbox.green(member("51")).await), log::mark());
    let fake = node::fake(sandbox, &sandbox.layout().node(member("51")), |_| node::stated(vec![1])).await;
    let lying = OwnGateway::with_node(sandbox, "51", &fake.address, |_| {}).await;
    let channel = lying.channel(sandbox, &sandbox.layout().venue(&station()));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let answer = ask(channel, request, &traceparent(trace)).await.expect("an answer").into_inner();
    assert_eq!(answer.outcome(), Outcome::HomeUnreachable);
    log::line_after(mark, &["home's statement is not valid", &format!("trace_id={trace}")]).await;
    lying.stop().await;
    gateway.stop().await;
}

/// A federation of which the node of 51 is a process of its own, and a gateway beside the federation's is another.
struct Stage {
    sandbox: Sandbox,
    collector: Collector,
    gateway: Program,
    node: Program,
}

impl Stage {
    async fn open() -> Self {
        let mut sandbox = Sandbox::start(&["44", "51"]).await;
        sandbox.federation.stop_node(member("51")).await.expect("it stops");
        let collector = Collector::start().await;
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
            ("RUST_LOG", "trace"),
        ];
        let node = Program::node(&sandbox, member("51"), &environment).await;
        let gateway = Program::gateway(&sandbox, "exporting", &environment).await;
        Self { sandbox, collector, gateway, node }
    }

    /// Stops the programs, which hand over what is left. Returns what was exported and what was logged.
    async fn close(self) -> (Exported, String) {
        let log = self.gateway.stop().await + &self.node.stop().await;
        let exported = self.collector.exported();
        self.sandbox.stop().await;
        (exported, log)
    }
}

fn the_only<'a>(exported: &'a Exported, name: &str, service: &str) -> &'a Span {
    the_only_of(exported, TRACE, name, service)
}

fn the_only_of<'a>(exported: &'a Exported, trace: &str, name: &str, service: &str) -> &'a Span {
    let trace = parse_hex(trace).unwrap();
    let named: Vec<_> = exported.named(&trace, name).into_iter().filter(|(whose, _)| whose == service).collect();
    let [(_, span)] = named[..] else { panic!("{} spans {name} of {service}", named.len()) };
    span
}

/// Asks until the answer is one that was held; the trace of that look.
async fn look_at_what_is_held(channel: &Channel, request: &RecognizeRequest) -> String {
    let (mut looks, mut trace) = (0, String::new());
    until("an answer comes from the cache", PATIENCE, async || {
        looks += 1;
        trace = format!("{}{looks:04x}", &TRACE[..28]);
        let answer = ask(channel.clone(), request.clone(), &traceparent(&trace)).await;
        answer.expect("an answer").into_inner().source() == Source::Cache
    })
    .await;
    trace
}

/// A look that was answered from what is held: every stage but those at home and on the way there.
fn assert_from_what_is_held(exported: &Exported, trace: &str) {
    let exchange = the_only_of(exported, trace, "exchange", "gateway");
    let of_exchange = ["member", "outcome", "source", "reason"].map(|key| attribute(&exchange.attributes, key));
    assert_eq!(of_exchange, [Some("51"), Some("status"), Some("cache"), None]);
    for stage in ["policy", "redemption", "recognition", "record"] {
        let parent = &the_only_of(exported, trace, stage, "gateway").parent_span_id;
        assert_eq!(parent, &exchange.span_id, "{stage} of what is held");
    }
    let lookups = exported.named(&parse_hex(trace).unwrap(), "lookup");
    assert!(lookups.is_empty(), "home was asked for what is held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_goes_from_the_caller_to_home() {
    let stage = Stage::open().await;
    let (sandbox, channel) = (&stage.sandbox, stage.gateway.channel(&stage.sandbox, &station()));
    let good = sandbox.request(&station(), &sandbox.green(member("51")).await);
    still_serves(&stage.gateway.at(sandbox, &station()), &good, "the start").await;
    let held = look_at_what_is_held(&channel, &good).await;
    // What is held has no way to home to follow.
    let freshness = Some(Freshness { requirement: Some(Requirement::FromHome(true)) });
    let good = RecognizeRequest { freshness, ..good };
    let answer = ask(channel.clone(), good.clone(), &traceparent(TRACE)).await.expect("an answer").into_inner();
    assert_eq!(answer.outcome(), Outcome::Status);
    let other = TRACE.replace("4bf9", "5bf9");
    let bad = RecognizeRequest { purpose: 99, ..good };
    let refused = ask(channel, bad, &traceparent(&other)).await.expect_err("no such purpose");
    assert_eq!(trace_of(&refused), other);
    let (exported, log) = stage.close().await;

    let call = the_only(&exported, "call", "gateway");
    assert_eq!((to_hex(&call.parent_span_id).as_str(), call.kind()), (CALLERS_SPAN, SpanKind::Server));
    assert_eq!(attribute(&call.attributes, "rpc.method"), Some("tongxing.recognition.v1.RecognitionService/Recognize"));
    assert_eq!(attribute(&call.attributes, "rpc.response.status_code"), Some("Ok"));
    assert!(call.trace_state.is_empty(), "{}", call.trace_state);
    let exchange = the_only(&exported, "exchange", "gateway");
    assert_eq!(exchange.parent_span_id, call.span_id);
    let of_exchange = ["member", "outcome", "source", "reason"].map(|key| attribute(&exchange.attributes, key));
    assert_eq!(of_exchange, [Some("51"), Some("status"), Some("home"), None]);
    for stage in ["policy", "redemption", "lookup", "statement", "recognition", "record"] {
        assert_eq!(the_only(&exported, stage, "gateway").parent_span_id, exchange.span_id, "{stage}");
    }
    let trace = parse_hex(TRACE).unwrap();
    assert_eq!(exported.named(&trace, "consent").len(), 3, "the token's signature, its use, and both again at home");
    let (lookup, home) = (the_only(&exported, "lookup", "gateway"), the_only(&exported, "call", "province-stub"));
    assert_eq!((lookup.kind(), home.kind()), (SpanKind::Client, SpanKind::Server));
    assert_eq!(home.parent_span_id, lookup.span_id, "home's call is not the gateway's lookup");
    assert_eq!(attribute(&lookup.attributes, "outcome"), Some("statement"));
    let at_home = the_only(&exported, "lookup", "province-stub");
    assert_eq!(
        (&at_home.parent_span_id, attribute(&at_home.attributes, "outcome")),
        (&home.span_id, Some("statement"))
    );
    for stage in ["policy", "status", "statement"] {
        assert_eq!(the_only(&exported, stage, "province-stub").parent_span_id, at_home.span_id, "{stage}");
    }
    assert_from_what_is_held(&exported, &held);
    let asked = exported.spans.iter().filter(|(_, span)| span.name == "describe").collect::<Vec<_>>();
    let told = |span: &Span| asked.iter().any(|(_, asking)| asking.span_id == span.parent_span_id);
    assert!(exported.spans.iter().any(|(_, span)| span.name == "call" && told(span)), "GetNode names no trace");
    let refused = exported.named(&parse_hex(&other).unwrap(), "call");
    let [(_, refused)] = refused[..] else { panic!("{} calls were refused", refused.len()) };
    assert_eq!(attribute(&refused.attributes, "rpc.response.status_code"), Some("InvalidArgument"));
    let is_error = refused.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
    assert!(!is_error, "a caller's mistake is no error of ours");
    for service in ["gateway", "province-stub"] {
        let name = (service.to_owned(), "rpc.server.call.duration".to_owned());
        assert!(exported.metrics.contains(&name), "{:?}", exported.metrics);
    }
    assert!(log.contains(&format!("trace_id={TRACE}")), "no line of either program within the call names its trace");
}

/// What a pass consists of: its handle, its token and the key to its hint.
fn secrets(pass: &Pass, sandbox: &Sandbox) -> Vec<(&'static str, Vec<u8>)> {
    let presentation = pass.present(None, sandbox.now());
    let cti = UnverifiedToken::parse(pass.token()).expect("a token").cti();
    vec![
        ("a handle", cti.0.to_vec()),
        ("a token", pass.token().to_vec()),
        ("a proof", presentation.proof.clone().expect("it has a proof")),
        ("a hint's key", presentation.hint_key.0.to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_in_what_gateway_and_node_export_or_log() {
    let stage = Stage::open().await;
    let (sandbox, checkpoint) = (&stage.sandbox, stage.gateway.at(&stage.sandbox, &station()));
    let mut needles = everybody(sandbox);
    let home = Forger::of(sandbox, member("51"));
    let good = sandbox.request(&station(), &sandbox.green(member("51")).await);
    still_serves(&checkpoint, &good, "the start").await;
    let mut outcomes = BTreeSet::new();
    for condition in [Condition::Green, Condition::Yellow, Condition::Red, Condition::NoCode] {
        let pass = sandbox.pass(member("51"), condition, &Wish::default()).await;
        for (what, secret) in secrets(&pass, sandbox) {
            needles.add(what, &secret);
        }
        let request = RecognizeRequest { staff_id: "staff-8848".into(), ..sandbox.request(&station(), &pass) };
        outcomes.insert(checkpoint.send(request).await.expect("an answer").outcome() as i32);
    }
    assert!(outcomes.len() >= 2, "{outcomes:?}");
    for (what, secret) in evidence::say_everything(sandbox, member("51")).await {
        needles.add(what, &secret);
    }
    needles.add("a member of staff", b"staff-8848");
    for (place, request) in laden(&home, &good) {
        let refused = checkpoint.send(request).await.expect_err(place);
        assert!(is_trace_id(&trace_of(&refused)), "{place}");
    }
    let channel = stage.gateway.channel(sandbox, &station());
    until("an item of a stream is answered from the cache", PATIENCE, async || {
        let item = RecognizeStreamRequest { request_id: NUMBER.into(), request: Some(good.clone()) };
        let answers = RecognitionServiceClient::new(channel.clone()).recognize_stream(tokio_stream::once(item)).await;
        let answer = answers.expect("a stream").into_inner().message().await.expect("no error").expect("an answer");
        assert_eq!(answer.request_id, NUMBER);
        matches!(answer.result, Some(Item::Answer(answer)) if answer.source() == Source::Cache)
    })
    .await;
    let number = traceparent(&format!("{NUMBER:0<32}"));
    ask(stage.gateway.channel(sandbox, &station()), good, &number).await.expect("an answer");
    let collector = &stage.collector;
    until("metrics of both are exported", PATIENCE, async || collector.exported().metrics.len() > 8).await;
    let (exported, log) = stage.close().await;

    let names: BTreeSet<_> =
        exported.spans.iter().map(|(service, span)| (service.as_str(), span.name.as_str())).collect();
    for name in [
        "call",
        "lookup",
        "enroll",
        "issue",
        "statement",
        "put_evidence",
        "put_codes",
        "set_code",
        "clear_code",
        "explain_code",
        "get_code",
        "export_traveler",
    ] {
        assert!(names.contains(&("province-stub", name)), "{name}: {names:?}");
    }
    assert!(names.contains(&("gateway", "item")), "{names:?}");
    let of_held = |span: &Span| attribute(&span.attributes, "source") == Some("cache");
    assert!(exported.spans.iter().any(|(_, span)| span.name == "exchange" && of_held(span)), "nothing was held");
    needles.assert_none_in("what was exported", &exported.bytes);
    needles.assert_none_in("the logs", log.as_bytes());
    let ours = ["call", "exchange", "item", "consent", "policy", "redemption", "cache", "flight", "lookup", "describe"];
    let ours =
        ours.into_iter().chain(["statement", "recognition", "record", "record_accesses", "status", "enroll", "issue"]);
    // At home, and of nobody's call: what time or other rules have changed.
    let ours = ours.chain(["put_evidence", "put_codes", "set_code", "clear_code", "explain_code", "get_code"]);
    let ours = ours.chain(["export_traveler", "list_accesses", "list_consents", "reassess"]);
    let ours = ours.collect::<BTreeSet<_>>();
    let others: Vec<_> = names.iter().filter(|(_, name)| !ours.contains(name)).collect();
    assert!(others.is_empty(), "spans of libraries are exported: {others:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_says_who_exports_and_how_much() {
    let (sandbox, collector) = (Sandbox::start(&["44"]).await, Collector::start().await);
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
        ("OTEL_SERVICE_NAME", "replica-of-the-north"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=another,deployment.environment.name=rehearsal"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ];
    let gateway = Program::gateway(&sandbox, "named", &environment).await;
    let channel = gateway.channel(&sandbox, &station());
    let refused = ask(channel, RecognizeRequest::default(), &traceparent(TRACE)).await.expect_err("no token");
    assert_eq!(trace_of(&refused), TRACE, "what is not sampled has its trace all the same");
    gateway.stop().await;
    let exported = collector.exported();
    assert!(exported.spans.is_empty(), "{} spans were exported", exported.spans.len());
    let services: BTreeSet<_> = exported.metrics.iter().map(|(service, _)| service.as_str()).collect();
    assert_eq!(services, ["replica-of-the-north"].into());
    assert!(exported.bytes.windows(9).any(|window| window == b"rehearsal"), "its attributes are not exported");
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_or_hangs_changes_nothing() {
    let sandbox = Sandbox::start(&["44"]).await;
    let hole = node::black_hole().await;
    let good = sandbox.request(&station(), &sandbox.green(member("44")).await);
    for (name, endpoint, said) in [
        ("absent", "http://127.0.0.1:1".to_owned(), Some("do not reach the collector")),
        ("hung", format!("http://{}", hole.address), None),
        ("unusable", "https://127.0.0.1:1".to_owned(), Some("are not exported")),
    ] {
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
            ("RUST_LOG", "info"),
        ];
        let gateway = Program::gateway(&sandbox, name, &environment).await;
        let checkpoint = gateway.at(&sandbox, &station());
        for _ in 0..20 {
            still_serves(&checkpoint, &good, name).await;
        }
        if let Some(said) = said {
            until(said, PATIENCE, async || gateway.log().matches(said).count() >= 2).await;
        }
        let log = gateway.stop().await;
        let lines = log.lines().filter(|line| line.contains("otlp") || line.contains("opentelemetry")).count();
        // One that hangs is given ten seconds before it is said, or until the program stops.
        let once = if said.is_some() { 2..=2 } else { 0..=2 };
        assert!(once.contains(&lines), "once for traces, once for metrics: {log}");
    }
    sandbox.stop().await;
}
