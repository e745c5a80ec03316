//! What the gateway itself lacks: room, time, a durable record (I2), trust that holds, a store that replicas share. Each has
//! its reason, says when to come again, and harms no other call (I7).

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use proto::{
    contract::recognition::{Outcome, RecognizeRequest},
    envelope::MAX_LIFE,
    refusal::Reason,
    time::{Clock, ManualClock, UnixTime},
    venue::VenueId,
};
use tokio::{
    io::AsyncReadExt as _,
    sync::{mpsc, watch},
};
use tongxing::{checkpoint::Checkpoint, phone::Pass};
use tonic::Code::{DeadlineExceeded, PermissionDenied, ResourceExhausted, Unavailable};

use crate::sandbox::{
    START,
    gateway::OwnGateway,
    member, metric,
    node::FakeNode,
    shared, still_serves, until, venue,
    want::{self, Want, want},
    wire::{self, Shown},
};

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

fn elsewhere() -> VenueId {
    venue("11/station/beijing-west")
}

async fn good(at: &VenueId) -> RecognizeRequest {
    shared().request(at, &shared().green(member("44")).await)
}

fn overloaded(limit: &str) -> Want {
    want(Reason::Overloaded, ResourceExhausted).from("gateway").with("limit", limit).retry()
}

/// A gateway whose node of 51 hangs, and a word whenever it was asked.
async fn gateway_that_waits(
    change: impl FnOnce(&mut gateway::config::Config),
) -> (OwnGateway, mpsc::Receiver<()>, FakeNode) {
    OwnGateway::with_hung_node(shared(), member("51"), |config| {
        config.limits.member = Default::default();
        change(config);
    })
    .await
}

#[tokio::test]
async fn a_caller_with_too_much_at_once_harms_itself_alone() {
    let (gateway, mut asked, _kept) = gateway_that_waits(|config| {
        config.limits.server.admission.max_in_flight_per_caller = 1;
    })
    .await;
    let here = gateway.at(shared(), &station());
    let (waiting, hung) = (here.clone(), shared().request(&station(), &shared().green(member("51")).await));
    let good_here = good(&station()).await;
    let waiting = tokio::spawn(async move { waiting.send(hung).await });
    asked.recv().await.expect("the first call is under way");
    overloaded("caller").check("a second call of one caller", here.send(good_here.clone()).await);
    still_serves(&gateway.at(shared(), &elsewhere()), &good(&elsewhere()).await, "another caller's second").await;
    let answer = waiting.await.unwrap().expect("the first call gets its answer");
    assert_eq!(answer.outcome(), Outcome::HomeUnreachable, "another outcome");
    still_serves(&here, &good_here, "its first call").await;
    gateway.stop().await;
}

#[tokio::test]
async fn one_caller_cannot_take_all_of_a_members_places() {
    let (gateway, mut asked, _kept) =
        gateway_that_waits(|config| config.limits.member.max_in_flight_per_caller = 1).await;
    // Each of another traveler: those who ask for one share a lookup.
    let green = async || shared().green(member("51")).await;
    let (one, two, three) = (green().await, green().await, green().await);
    let ask = |venue: VenueId, pass: &Pass| {
        let (checkpoint, request) = (gateway.at(shared(), &venue), shared().request(&venue, pass));
        tokio::spawn(async move { checkpoint.send(request).await.expect("an answer").outcome() })
    };
    let first = ask(station(), &one);
    asked.recv().await.expect("the first call is under way");
    assert_eq!(ask(station(), &two).await.unwrap(), Outcome::HomeUnreachable, "a second call has a place");
    let failures = metric(&gateway.private, "gateway_home_failures_total").await;
    assert!(failures.keys().any(|labels| labels.contains("busy")), "its place was taken by nobody: {failures:?}");
    let other = ask(elsewhere(), &three);
    asked.recv().await.expect("another caller's call is under way");
    for hung in [first, other] {
        assert_eq!(hung.await.unwrap(), Outcome::HomeUnreachable, "a node that hangs answers");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_full_house_is_full_for_everybody_and_empties() {
    let (gateway, mut asked, _kept) =
        gateway_that_waits(|config| config.limits.server.admission.max_in_flight = 1).await;
    let (here, there) = (gateway.at(shared(), &station()), gateway.at(shared(), &elsewhere()));
    let (hung, good_there) =
        (shared().request(&station(), &shared().green(member("51")).await), good(&elsewhere()).await);
    let waiting = tokio::spawn(async move { here.send(hung).await });
    asked.recv().await.expect("the first call is under way");
    overloaded("all").check("a call to a full house", there.send(good_there.clone()).await);
    waiting.await.unwrap().expect("the first call gets its answer");
    still_serves(&there, &good_there, "the first call").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_full_register_of_redemptions_takes_bound_proofs_only() {
    let gateway = OwnGateway::start(shared(), |config| config.limits.max_redemptions = 1).await;
    let here = gateway.at(shared(), &station());
    let pass = shared().green(member("44")).await;
    let free = || Checkpoint::request(&station(), &pass.present(None, shared().now()), proto::terms::Purpose::Entry);
    let first = free();
    still_serves(&here, &first, "nothing").await;
    overloaded("redemptions").check("one more than may be remembered", here.send(free()).await);
    still_serves(&here, &first, "the one too many").await;
    still_serves(&here, &shared().request(&station(), &pass), "the one too many").await;
    gateway.stop().await;
}

#[tokio::test]
async fn one_of_several_replicas_takes_bound_proofs_only() {
    let gateway = OwnGateway::start(shared(), |config| config.replicas = 2).await;
    let here = gateway.at(shared(), &station());
    let pass = shared().green(member("44")).await;
    let free = Checkpoint::request(&station(), &pass.present(None, shared().now()), proto::terms::Purpose::Entry);
    let required = want(Reason::VenueBindingRequired, PermissionDenied).about("proof");
    required.check("a proof without a venue", here.send(free).await);
    still_serves(&here, &shared().request(&station(), &pass), "a proof without a venue").await;
    gateway.stop().await;
}

#[tokio::test]
async fn trust_that_has_expired_fails_closed() {
    let clock = Arc::new(ManualClock::at(START));
    let gateway = OwnGateway::start_by(shared(), clock.clone(), |_| {}).await;
    let (here, good) = (gateway.at(shared(), &station()), good(&station()).await);
    still_serves(&here, &good, "nothing").await;
    assert!(wire::get(&gateway.private, "/readyz").await.contains("ready, trust list version"), "it is not ready");
    clock.advance(MAX_LIFE);
    let expired = want(Reason::TrustExpired, Unavailable).from("gateway").retry();
    expired.check("an open connection", here.send(good.clone()).await);
    expired.check("a new connection", gateway.at(shared(), &station()).send(good).await);
    let channel = gateway.channel(shared(), &shared().layout().venue(&station()));
    until("its health says so", Duration::from_secs(5), async || !wire::is_serving(channel.clone(), "").await).await;
    let ready = wire::get(&gateway.private, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("TRUST_EXPIRED"), "it says it is ready: {ready}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_call_that_leaves_home_no_time_is_too_late() {
    // Of these 60 ms the gateway keeps 50 for itself.
    let gateway =
        OwnGateway::start(shared(), |config| config.limits.server.max_duration = Duration::from_millis(60)).await;
    let late = want(Reason::DeadlineExceeded, DeadlineExceeded).from("gateway");
    late.check("hardly any time", gateway.at(shared(), &station()).send(good(&station()).await).await);
    gateway.stop().await;
}

/// A clock that holds up the thread that writes the record whenever it asks, until it is let go.
#[derive(Debug)]
struct StallingClock {
    held: Mutex<bool>,
    let_go: Condvar,
    waiting: watch::Sender<bool>,
}

impl StallingClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { held: Mutex::new(true), let_go: Condvar::new(), waiting: watch::channel(false).0 })
    }

    fn let_go(&self) {
        *self.held.lock().unwrap() = false;
        self.let_go.notify_all();
    }
}

impl Clock for StallingClock {
    fn now(&self) -> UnixTime {
        if std::thread::current().name() == Some("record") {
            self.waiting.send_replace(true);
            drop(self.let_go.wait_while(self.held.lock().unwrap(), |held| *held).unwrap());
        }
        START
    }
}

#[tokio::test]
async fn no_answer_leaves_without_a_durable_record() {
    let clock = StallingClock::new();
    let gateway = OwnGateway::start_by(shared(), clock.clone(), |config| {
        config.limits.record.max_batch = 1;
        config.limits.record.max_waiting = 1;
        config.limits.server.max_duration = Duration::from_secs(1);
    })
    .await;
    let (here, good) = (gateway.at(shared(), &station()), good(&station()).await);
    let ask = || {
        let (here, good) = (here.clone(), good.clone());
        tokio::spawn(async move { here.send(good).await })
    };
    let late = want(Reason::DeadlineExceeded, DeadlineExceeded).from("gateway");
    let unavailable = want(Reason::RecordUnavailable, Unavailable).from("gateway").retry();

    // The first is with the writer; of the next two one waits for it and one finds no room.
    let first = ask();
    let mut stalled = clock.waiting.subscribe();
    stalled.wait_for(|waiting| *waiting).await.expect("the clock is there");
    let (second, third) = (ask(), ask());
    let mut others = [second.await.unwrap(), third.await.unwrap()];
    others.sort_by_key(|other| want::reason("while nothing can be written", other.clone()) as i32);
    late.check("the one that is being written", first.await.unwrap());
    let [waited, found_no_room] = others;
    late.check("the one that waited", waited);
    unavailable.with("limit", "waiting").check("the one that found no room", found_no_room);
    let answers = metric(&gateway.private, "gateway_exchanges_total").await;
    assert!(answers.is_empty(), "an answer was counted that nobody may have got: {answers:?}");

    clock.let_go();
    // What waited is written first.
    until("it serves again", Duration::from_secs(5), async || here.send(good.clone()).await.is_ok()).await;
    gateway.stop().await;
}

#[tokio::test]
async fn it_stops_in_time_whoever_stays_connected() {
    let gateway = OwnGateway::start(shared(), |_| {}).await;
    let (here, good) = (gateway.at(shared(), &station()), good(&station()).await);
    still_serves(&here, &good, "nothing").await;
    // A peer that is let in and then says nothing, not even HTTP/2's first words.
    let shown = Shown::read(&shared().layout().venue(&station()));
    let (_, mut silent) = wire::handshake(&gateway.address, Some(&shown)).await.expect("it is let in");
    silent.read_u8().await.expect("the gateway speaks first");
    gateway.stop().await;
}
