//! How the gateway says that it and the members are: `/status` on its private listener, which `gateway status` prints.

use std::time::Duration;

use gateway::status::Report;
use proto::contract::recognition::{Outcome, RecognizeRequest};

use crate::sandbox::{Sandbox, gateway::OwnGateway, member, until, venue, wire};

/// Leaves live 30 days, documents 7.
const DAY: u64 = 24 * 3600;

async fn report(gateway: &OwnGateway) -> Report {
    let answer = wire::get(&gateway.private, "/status").await;
    let (head, json) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/json"), "{head}");
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

#[tokio::test]
async fn the_status_says_what_there_is_and_what_is_wrong() {
    let mut sandbox = Sandbox::start(&["44", "51"]).await;
    let gateway = OwnGateway::start(&sandbox, |config| config.limits.board_every = Duration::from_millis(50)).await;
    until("all is well", Duration::from_secs(20), async || report(&gateway).await.problems.is_empty()).await;
    let station = venue("44/station/guangzhou-south");
    let (checkpoint, pass) = (gateway.at(&sandbox, &station), sandbox.green(member("51")).await);
    let answer = checkpoint.send(sandbox.request(&station, &pass)).await.expect("an answer");
    assert_eq!(answer.outcome(), Outcome::Status);
    checkpoint.send(RecognizeRequest::default()).await.expect_err("there is no token");

    let well = report(&gateway).await;
    assert_eq!((well.id.as_str(), well.time.as_str()), ("gateway/replica/1", "2027-01-15T08:00:00Z"));
    assert!(well.software.starts_with("gateway/"), "{}", well.software);
    let (trust, days) = (sandbox.desk.trust(), |seconds: u64| seconds / DAY);
    assert_eq!(well.trust_list.version, trust.list_edition.version);
    assert_eq!((days(well.trust_list.ends.seconds_left), days(well.policy.ends.seconds_left)), (7, 7));
    assert_eq!(well.certificate.map(|ends| days(ends.seconds_left)), Some(30));
    let codes: Vec<_> = well.members.iter().map(|member| member.code.as_str()).collect();
    assert_eq!(codes, ["44", "51"]);
    for home in &well.members {
        assert_eq!((home.health.as_str(), home.seen_seconds_ago), ("serving", Some(0)), "{home:?}");
        assert!(home.software.starts_with("province-stub/"), "{home:?}");
        assert_eq!(home.trust_list_version, trust.list_edition.version, "{home:?}");
        assert_eq!(home.policy_version, trust.policy_edition.version, "{home:?}");
        let left = home.certificate.as_ref().map(|ends| days(ends.seconds_left));
        assert_eq!(left, Some(30), "{home:?}");
    }
    assert_eq!(well.outcomes, [("status".to_owned(), 1)].into());
    assert_eq!(well.refusals, [("PURPOSE_UNKNOWN".to_owned(), 1)].into());

    sandbox.federation.stop_node(member("51")).await.expect("it stops");
    until("the loss is noticed", Duration::from_secs(20), async || {
        report(&gateway).await.problems == ["51 Sichuan: unreachable"]
    })
    .await;
    gateway.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn a_node_has_no_status_page() {
    let sandbox = crate::sandbox::shared();
    let node = &sandbox.desk.prepared().addresses.nodes["44"];
    assert!(wire::get(&node.private.to_string(), "/status").await.starts_with("HTTP/1.1 404"));
}
