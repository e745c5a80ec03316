//! A member that is out for a while: nobody of it is let in, its travelers are told that home cannot be reached, and the
//! others notice nothing (I7). It ends by itself.

use std::time::Duration;

use gateway::documents::{SuspensionSource, TrustSource};
use proto::{
    contract::{
        federation::{ListMembersRequest, federation_service_client::FederationServiceClient},
        recognition::{Decision, Outcome},
    },
    time::UnixTime,
    venue::VenueId,
};
use tokio::{io::AsyncReadExt as _, time::timeout};

use crate::sandbox::{
    Sandbox,
    gateway::OwnGateway,
    log, member, metric, still_serves, until, venue,
    wire::{self, Shown},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const WHY: &str = "its CA's key is in strange hands";

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

fn elsewhere() -> VenueId {
    venue("11/station/beijing-west")
}

/// The source with 11 suspended for a day.
fn suspend(now: UnixTime) -> impl FnOnce(&mut TrustSource) {
    move |source| {
        let suspension =
            SuspensionSource { reason: WHY.into(), from: now.to_string(), until: now.plus(DAY).to_string() };
        source.members.get_mut("11").expect("it is a member").suspension = Some(suspension);
    }
}

/// Whether a peer is let in; if not, the log says why.
async fn is_let_in(address: &str, shown: &Shown) -> bool {
    let before = log::mark();
    let (from, mut stream) = wire::handshake(address, Some(shown)).await.expect("a client learns nothing so early");
    let read = timeout(Duration::from_secs(5), stream.read_u8()).await.expect("the server says something");
    if read.is_err() {
        log::line_after(
            before,
            &["handshake refused", &from.to_string(), "11/venue/station/beijing-west", "suspended"],
        )
        .await;
    }
    read.is_ok()
}

#[tokio::test]
async fn a_suspended_member_is_out_and_its_travelers_are_told_so_until_it_ends_by_itself() {
    let sandbox = Sandbox::start(&["11", "44"]).await;
    let dir = tempfile::tempdir().unwrap();
    let list = sandbox.trust_list_with(dir.path(), |_| {});
    let gateway = OwnGateway::start(&sandbox, |config| config.trust.list = list).await;
    let (theirs, ours) = (sandbox.green(member("11")).await, sandbox.green(member("44")).await);
    let checkpoint = gateway.at(&sandbox, &station());
    still_serves(&checkpoint, &sandbox.request(&station(), &theirs), "nothing").await;
    let out = Shown::read(&sandbox.layout().venue(&elsewhere()));
    let (_, mut open) = wire::handshake(&gateway.address, Some(&out)).await.unwrap();
    open.read_u8().await.expect("11 is let in");

    sandbox.trust_list_with(dir.path(), suspend(sandbox.now()));
    let closed = async { while open.read_u8().await.is_ok() {} };
    timeout(Duration::from_secs(5), closed).await.expect("the open connection of a venue of 11 is closed");
    assert!(!is_let_in(&gateway.address, &out).await, "11 is let in");
    let lookups = async || {
        let node = &sandbox.desk.prepared().addresses.nodes["11"].private;
        metric(&node.to_string(), "node_lookups_total").await.values().sum::<f64>()
    };
    let before = lookups().await;
    let answer = checkpoint.send(sandbox.request(&station(), &theirs)).await.expect("an answer, no error");
    assert_eq!((answer.outcome(), answer.decision()), (Outcome::HomeUnreachable, Decision::Assist));
    assert_eq!(answer.exchange_id.len(), 16, "it is on record");
    assert_eq!(lookups().await, before, "a suspended member was asked");
    let kinds = metric(&gateway.private, "gateway_home_failures_total").await;
    assert!(kinds.keys().any(|labels| labels.contains("kind=\"suspended\"")), "{kinds:?}");
    still_serves(&checkpoint, &sandbox.request(&station(), &ours), "11 was suspended").await;

    let mut federation = FederationServiceClient::new(gateway.channel(&sandbox, &sandbox.layout().venue(&station())));
    let members = federation.list_members(ListMembersRequest::default()).await.unwrap().into_inner().members;
    let suspension = members.iter().find(|member| member.code == "11").unwrap().suspension.clone().unwrap();
    assert_eq!((suspension.reason.as_str(), suspension.end_time), (WHY, Some(sandbox.now().plus(DAY).to_protobuf())));
    assert!(members.iter().all(|member| member.suspension.is_none() || member.code == "11"));

    // A day later the same list says that it is over; the clock of everybody has moved, so phones ask anew.
    sandbox.clock.advance(DAY);
    let theirs = sandbox.green(member("11")).await;
    until("11 is asked again", Duration::from_secs(10), async || {
        let answer = checkpoint.send(sandbox.request(&station(), &theirs)).await;
        answer.is_ok_and(|answer| answer.outcome() == Outcome::Status)
    })
    .await;
    assert!(is_let_in(&gateway.address, &out).await, "11 is still out");
    gateway.stop().await;
    sandbox.stop().await;
}

#[tokio::test]
async fn a_new_list_ends_a_suspension_early_and_a_renewal_does_not() {
    let sandbox = Sandbox::start(&["11", "44"]).await;
    let source = sandbox.layout().trust_source();
    let mut parsed: TrustSource = toml::from_str(&std::fs::read_to_string(&source).unwrap()).unwrap();
    suspend(sandbox.now())(&mut parsed);
    std::fs::write(&source, format!("# by hand\n{}", toml::to_string(&parsed).unwrap())).unwrap();
    sandbox.federation.renew().await.expect("new editions are signed");
    assert!(std::fs::read_to_string(&source).unwrap().starts_with("# by hand"), "what says the same is left alone");
    let is_out =
        || sandbox.desk.trust().list.suspension(proto::identity::Realm::Member(member("11")), sandbox.now()).is_some();
    assert!(is_out(), "a renewal is an amnesty");
    parsed.members.get_mut("11").unwrap().suspension = None;
    std::fs::write(&source, toml::to_string(&parsed).unwrap()).unwrap();
    sandbox.federation.renew().await.expect("new editions are signed");
    assert!(!is_out());
    sandbox.stop().await;
}
