//! Assignments that the policy does not admit, as the national platform's operators see them: counted by authority, and an
//! alarm when the travelers jump, in metrics, in what `gateway status` shows, and in the log.

use std::{collections::BTreeMap, time::Duration};

use gateway::status::{Report, UnsubstantiatedReport};
use proto::{
    contract::{
        assignment::SetCodeRequest,
        recognition::{
            Outcome, RecognizeRequest, RecognizeStreamRequest, recognition_service_client::RecognitionServiceClient,
            recognize_stream_response::Result as Item,
        },
    },
    member::Member,
};
use province_stub::seed::Condition;
use tongxing::phone::{Wish, request_id};

use crate::sandbox::{
    Sandbox, device::document, gateway::OwnGateway, log, member, metric, still_serves, until, venue, wire,
};

const OFFICE: &str = "66/finance-office";
const STATION: &str = "44/station/guangzhou-south";

fn home() -> Member {
    member("66")
}

/// A gateway for which six travelers of one authority are an alarm.
async fn gateway(sandbox: &Sandbox) -> OwnGateway {
    OwnGateway::start(sandbox, |config| {
        config.limits.board_every = Duration::from_millis(50);
        config.limits.unsubstantiated.alarm_at = 6;
    })
    .await
}

/// The query for somebody whom an operator turned red by this rule and authority.
async fn red(sandbox: &Sandbox, rule: &str, authority: &str) -> RecognizeRequest {
    let person = sandbox.person(home(), Condition::Green);
    let pass = sandbox.pass_of(home(), &person, &Wish::default()).await;
    let code = SetCodeRequest {
        request_id: request_id(),
        document: document(&person),
        label: "红码".into(),
        rule: rule.into(),
        authority: authority.into(),
        justification: "a test".into(),
    };
    let mut operator = sandbox.desk.operator(home()).expect("the operator has credentials");
    operator.set_code(code).await.expect("the code is set");
    sandbox.request(&venue(STATION), &pass)
}

/// Asks through a stream of one item.
async fn ask_by_stream(sandbox: &Sandbox, gateway: &OwnGateway, request: RecognizeRequest) -> Outcome {
    let channel = gateway.channel(sandbox, &sandbox.layout().venue(&venue(STATION)));
    let item = RecognizeStreamRequest { request_id: "1".into(), request: Some(request) };
    let answers = RecognitionServiceClient::new(channel).recognize_stream(tokio_stream::once(item)).await;
    let answer = answers.expect("a stream").into_inner().message().await.expect("no error").expect("an answer");
    match answer.result {
        Some(Item::Answer(answer)) => answer.outcome(),
        other => panic!("no answer: {other:?}"),
    }
}

async fn report(gateway: &OwnGateway) -> Report {
    let answer = wire::get(&gateway.private, "/status").await;
    let (_, json) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

fn of<'a>(report: &'a Report, authority: &str) -> &'a UnsubstantiatedReport {
    let mut all = report.unsubstantiated.iter();
    all.find(|of| of.authority == authority).unwrap_or_else(|| panic!("{authority} is not there: {report:?}"))
}

/// Values of a metric, by authority.
async fn by_authority(gateway: &OwnGateway, name: &str) -> BTreeMap<String, u64> {
    let values = metric(&gateway.private, name).await;
    let name = |labels: &str| {
        assert!(labels.contains("member=\"66\"") && labels.split(',').count() == 2, "{labels}");
        labels.split("authority=\"").nth(1).and_then(|rest| rest.split('"').next()).expect(labels).to_owned()
    };
    values.into_iter().map(|(labels, value)| (name(&labels), value as u64)).collect()
}

fn counted<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts.map(|(authority, count)| (authority.to_owned(), count)).into()
}

#[tokio::test]
async fn an_authority_that_turns_many_red_against_the_policy_is_counted_and_an_alarm() {
    let sandbox = Sandbox::start(&["44", "66"]).await;
    let gateway = gateway(&sandbox).await;
    let checkpoint = gateway.at(&sandbox, &venue(STATION));
    let mark = log::mark();
    let admitted = red(&sandbox, "R-CASE", "66/cdc").await;
    still_serves(&checkpoint, &admitted, "the start").await;
    assert_eq!(metric(&gateway.private, "gateway_unsubstantiated").await, BTreeMap::new(), "the policy admits it");

    // Five travelers, one of them at every gate of the station. A rule that is none is not better in a good name.
    let mut requests = vec![red(&sandbox, "R-DEPOSITOR", "66/cdc").await];
    for _ in 0..5 {
        requests.push(red(&sandbox, "R-DEPOSITOR", OFFICE).await);
    }
    requests.extend((0..9).map(|_| requests[5].clone()).collect::<Vec<_>>());
    for request in &requests {
        let answer = checkpoint.send(request.clone()).await.expect("an answer");
        assert_eq!(answer.outcome(), Outcome::Unsubstantiated);
    }
    let answers = counted([("66/cdc", 1), (OFFICE, 10), ("other", 4)]);
    assert_eq!(
        by_authority(&gateway, "gateway_unsubstantiated_total").await,
        answers,
        "its name is shown from five on"
    );
    let travelers = counted([("66/cdc", 1), (OFFICE, 5), ("other", 4)]);
    assert_eq!(by_authority(&gateway, "gateway_unsubstantiated_travelers").await, travelers);
    let none = counted([("66/cdc", 0), (OFFICE, 0), ("other", 0)]);
    assert_eq!(by_authority(&gateway, "gateway_unsubstantiated_alarm").await, none, "five are no alarm");
    until("all is well", Duration::from_secs(20), async || report(&gateway).await.problems.is_empty()).await;

    let sixth = red(&sandbox, "R-DEPOSITOR", OFFICE).await;
    assert_eq!(ask_by_stream(&sandbox, &gateway, sixth).await, Outcome::Unsubstantiated);
    log::line_after(mark, &["WARN", "alarm: assignments", "home=66", OFFICE, "travelers=6"]).await;
    let alarm = counted([("66/cdc", 0), (OFFICE, 1), ("other", 0)]);
    assert_eq!(by_authority(&gateway, "gateway_unsubstantiated_alarm").await, alarm);
    let shown = report(&gateway).await;
    let of_office = of(&shown, OFFICE);
    assert_eq!((of_office.answers, of_office.travelers, of_office.usual_travelers), (11, 6, 0));
    assert_eq!(of_office.alarm_since, Some(sandbox.now().to_string()));
    assert_eq!(of(&shown, "66/cdc").alarm_since, None);
    let [problem] = &shown.problems[..] else { panic!("{:?}", shown.problems) };
    assert!(problem.contains("66/finance-office: 6 travelers in 10m"), "{problem}");

    let mark = log::mark();
    sandbox.clock.advance(Duration::from_secs(600));
    let over = report(&gateway).await;
    assert_eq!((of(&over, OFFICE).answers, of(&over, OFFICE).travelers), (11, 0));
    assert_eq!(of(&over, OFFICE).alarm_since, None);
    assert_eq!(by_authority(&gateway, "gateway_unsubstantiated_alarm").await, none);
    log::line_after(mark, &["INFO", "ends", "home=66", OFFICE]).await;
    gateway.stop().await;
    sandbox.stop().await;
}
