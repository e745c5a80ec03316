//! The federation's public face: signed documents for everybody, the board of members, and consents that travelers take
//! back.

use std::time::Duration;

use peer::{
    dial::{self, DialLimits},
    verifier::Expected,
};
use proto::{
    contract::{
        federation::{
            GetPolicyRequest, GetTrustListRequest, Health, ListMembersRequest, WatchMembersRequest, WatchPolicyRequest,
            WatchTrustListRequest, federation_service_client::FederationServiceClient,
        },
        traveler::{ListConsentsRequest, RevokeConsentRequest, traveler_service_client::TravelerServiceClient},
    },
    member::Member,
    policy::Policy,
    refusal::{Reason, Refusal},
    token::UnverifiedToken,
    trust::TrustList,
};
use province_stub::seed::Condition;
use tokio::time::timeout;
use tonic::{Code::ResourceExhausted, transport::Channel};

use crate::sandbox::{Sandbox, gateway::OwnGateway, member, shared, until, venue, want::want};

const PATIENCE: Duration = Duration::from_secs(20);

fn dialled() -> DialLimits {
    DialLimits { connect_timeout: PATIENCE, ..DialLimits::default() }
}

/// The federation service as some peer sees it.
fn seen_from(sandbox: &Sandbox, credentials: &std::path::Path) -> FederationServiceClient<Channel> {
    let standing = sandbox.desk.standing(credentials).unwrap();
    let address = sandbox.desk.gateway_address().unwrap();
    FederationServiceClient::new(dial::channel(&standing, &address, Expected::Gateway, dialled()).unwrap())
}

fn backend(sandbox: &Sandbox, home: Member) -> TravelerServiceClient<Channel> {
    let standing = sandbox.desk.standing(&sandbox.layout().backend(home)).unwrap();
    let address = sandbox.desk.node_address(home).unwrap();
    TravelerServiceClient::new(dial::channel(&standing, &address, Expected::NodeOf(home), dialled()).unwrap())
}

#[tokio::test]
async fn every_peer_gets_the_documents_as_the_roots_signed_them() {
    let sandbox = shared();
    let layout = sandbox.layout();
    let home = member("44");
    for credentials in [layout.venue(&venue("44/station/guangzhou-south")), layout.operator(home), layout.node(home)] {
        let mut client = seen_from(sandbox, &credentials);
        let list = client.get_trust_list(GetTrustListRequest {}).await.unwrap().into_inner();
        let (edition, opened) = TrustList::open(&list.trust_list, &sandbox.desk.trust().list.roots).unwrap();
        assert_eq!(edition.version, list.version, "the version is the signed one");
        assert_eq!(opened, sandbox.desk.trust().list, "the list is the one that was signed");
        let policy = client.get_policy(GetPolicyRequest {}).await.unwrap().into_inner();
        let (edition, opened) = Policy::open(&policy.policy, &opened.roots).unwrap();
        assert_eq!((edition.version, opened.name.as_str()), (policy.version, "national"));
    }
}

#[tokio::test]
async fn the_board_has_every_member_by_pages() {
    let sandbox = shared();
    let mut client = seen_from(sandbox, &sandbox.layout().operator(member("51")));
    let codes: Vec<String> = sandbox.federation.members().iter().map(ToString::to_string).collect();
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListMembersRequest { page_size: 4, page_token };
        let page = client.list_members(request).await.unwrap().into_inner();
        assert!(page.members.len() <= 4);
        listed.extend(page.members.into_iter().map(|member| member.code));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, codes);
    for (page_size, page_token) in [(-1, ""), (101, ""), (0, "nonsense")] {
        let request = ListMembersRequest { page_size, page_token: page_token.into() };
        let status = client.list_members(request).await.expect_err("no such page");
        assert_eq!(Refusal::reason_of(&status), Some(Reason::FieldInvalid), "{page_size} {page_token}");
    }
    let all = async || {
        seen_from(sandbox, &sandbox.layout().operator(member("51"))).list_members(ListMembersRequest::default()).await
    };
    until("every node was asked", PATIENCE, async || {
        all().await.unwrap().into_inner().members.iter().all(|member| member.health() == Health::Serving)
    })
    .await;
    let guangdong = all().await.unwrap().into_inner().members.into_iter().find(|member| member.code == "44").unwrap();
    assert_eq!(guangdong.health_code_zh, "粤康码");
    assert!(guangdong.software.starts_with("province-stub/"), "{}", guangdong.software);
    assert_eq!(guangdong.trust_list_version, sandbox.desk.trust().list_edition.version);
    assert_eq!(guangdong.clock_offset_seconds, 0, "they share a clock");
}

#[tokio::test]
async fn watchers_hear_of_new_documents_and_of_members_that_go() {
    let mut sandbox = Sandbox::start(&["44", "51"]).await;
    let mut client = seen_from(&sandbox, &sandbox.layout().operator(member("44")));
    let held = sandbox.desk.trust().list_edition.version;
    let now = client.watch_trust_list(WatchTrustListRequest { held_version: 0 }).await.unwrap();
    let first = now.into_inner().message().await.unwrap().expect("the list there is");
    assert_eq!(first.version, held);
    let watch = client.watch_trust_list(WatchTrustListRequest { held_version: held }).await.unwrap();
    let mut watch = watch.into_inner();
    let held_policy = sandbox.desk.trust().policy_edition.version;
    let now = client.watch_policy(WatchPolicyRequest { held_version: 0 }).await.unwrap();
    let first = now.into_inner().message().await.unwrap().expect("the policy there is");
    assert_eq!((first.version, &first.policy[..]), (held_policy, sandbox.desk.trust().policy_bytes()));
    let policies = client.watch_policy(WatchPolicyRequest { held_version: held_policy }).await.unwrap();
    let mut policies = policies.into_inner();
    sandbox.federation.renew().await.unwrap();
    // Whoever holds the latest hears of the next one first.
    let newer = timeout(PATIENCE, watch.message()).await.expect("in time").unwrap().expect("a newer list");
    assert!(newer.version > held);
    let newer = timeout(PATIENCE, policies.message()).await.expect("in time").unwrap().expect("a newer policy");
    assert!(newer.version > held_policy);
    let (edition, _) = Policy::open(&newer.policy, &sandbox.desk.trust().list.roots).expect("the roots signed it");
    assert_eq!(edition.version, newer.version);

    let mut members = client.watch_members(WatchMembersRequest {}).await.unwrap().into_inner();
    sandbox.federation.stop_node(member("51")).await.unwrap();
    let gone = async {
        while let Some(board) = members.message().await.unwrap() {
            let member = board.members.into_iter().find(|member| member.code == "51").expect("51 is on the board");
            if member.health() == Health::Unreachable {
                return;
            }
        }
        panic!("the watch ended");
    };
    timeout(PATIENCE, gone).await.expect("the board tells of a node that is gone");
    drop((watch, policies, members));
    sandbox.stop().await;
}

#[tokio::test]
async fn one_watcher_too_many_is_told_so_and_a_place_that_is_left_is_free() {
    let sandbox = shared();
    let gateway = OwnGateway::start(sandbox, |config| config.limits.max_watchers = 1).await;
    let channel = gateway.channel(sandbox, &sandbox.layout().operator(member("44")));
    let mut client = FederationServiceClient::new(channel);
    let watch = client.watch_members(WatchMembersRequest {}).await.expect("the only place").into_inner();
    let full = want(Reason::Overloaded, ResourceExhausted).from("gateway").with("limit", "watchers").retry();
    full.check("members", client.watch_members(WatchMembersRequest {}).await);
    full.check("the trust list", client.watch_trust_list(WatchTrustListRequest { held_version: 0 }).await);
    full.check("the policy", client.watch_policy(WatchPolicyRequest { held_version: 0 }).await);
    client.get_policy(GetPolicyRequest {}).await.expect("who does not watch needs no place");
    drop(watch);
    until("the place is free", PATIENCE, async || {
        client.watch_policy(WatchPolicyRequest { held_version: 0 }).await.is_ok()
    })
    .await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_traveler_lists_consents_and_takes_one_back() {
    let sandbox = shared();
    let home = member("52");
    let person = sandbox.person(home, Condition::Green);
    let phone = sandbox.desk.backend(home).unwrap().enroll(&person).await.unwrap();
    let other = sandbox.desk.backend(home).unwrap().enroll(&sandbox.person(home, Condition::Green)).await.unwrap();
    let passes = [
        phone.consent(&Default::default(), sandbox.now()).await.unwrap(),
        phone.consent(&Default::default(), sandbox.now()).await.unwrap(),
    ];
    let ctis = passes.each_ref().map(|pass| UnverifiedToken::parse(pass.token()).unwrap().cti());
    let mut client = backend(sandbox, home);
    let request = ListConsentsRequest { device_id: phone.id().to_vec(), page_size: 100, page_token: String::new() };
    let listed = client.list_consents(request.clone()).await.unwrap().into_inner().consents;
    assert!(ctis.iter().all(|cti| listed.iter().any(|consent| consent.cti == cti.0)), "both are listed");
    assert!(listed.iter().all(|consent| consent.revoke_time.is_none()));

    let theirs = RevokeConsentRequest { device_id: other.id().to_vec(), cti: ctis[0].0.to_vec() };
    let status = client.revoke_consent(theirs).await.expect_err("another's consent");
    assert_eq!(Refusal::reason_of(&status), Some(Reason::ConsentUnknown), "another's is as unknown as none");
    let mine = RevokeConsentRequest { device_id: phone.id().to_vec(), cti: ctis[0].0.to_vec() };
    let revoked = client.revoke_consent(mine.clone()).await.unwrap().into_inner();
    let again = client.revoke_consent(mine).await.unwrap().into_inner();
    assert_eq!(revoked.change_token, again.change_token, "revoking again changes nothing");

    let station = venue("44/station/guangzhou-south");
    let at = sandbox.at(&station);
    let refused = at.send(sandbox.request(&station, &passes[0])).await.expect_err("it was taken back");
    assert_eq!(Refusal::reason_of(&refused), Some(Reason::ConsentRevoked));
    assert!(at.send(sandbox.request(&station, &passes[1])).await.is_ok(), "the other one stands");
    let listed = client.list_consents(request).await.unwrap().into_inner().consents;
    let taken_back = listed.iter().find(|consent| consent.cti == ctis[0].0).unwrap();
    assert!(taken_back.revoke_time.is_some(), "the list says so");
}

#[tokio::test]
async fn what_is_wrong_with_a_list_or_a_revocation_is_said() {
    let sandbox = shared();
    let mut client = backend(sandbox, member("52"));
    let list = |device_id: &[u8], page_size, page_token: &str| ListConsentsRequest {
        device_id: device_id.to_vec(),
        page_size,
        page_token: page_token.into(),
    };
    for (request, reason) in [
        (list(&[], 0, ""), Reason::FieldMissing),
        (list(&[1; 5], 0, ""), Reason::FieldInvalid),
        (list(&[1; 16], 101, ""), Reason::FieldInvalid),
        (list(&[1; 16], 0, "x"), Reason::FieldInvalid),
        (list(&[1; 16], 0, ""), Reason::DeviceUnknown),
    ] {
        let status = client.list_consents(request).await.expect_err("a wrong request");
        assert_eq!(Refusal::reason_of(&status), Some(reason));
    }
    for (device_id, cti, reason) in [
        (vec![], vec![1; 16], Reason::FieldMissing),
        (vec![1; 16], vec![], Reason::FieldMissing),
        (vec![1; 16], vec![1; 15], Reason::FieldInvalid),
        (vec![1; 16], vec![1; 16], Reason::DeviceUnknown),
    ] {
        let status = client.revoke_consent(RevokeConsentRequest { device_id, cti }).await.expect_err("a wrong request");
        assert_eq!(Refusal::reason_of(&status), Some(reason));
    }
}
