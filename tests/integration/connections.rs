//! How many may knock, and for how long: nobody takes the door from the others (I7).

use std::time::Duration;

use proto::venue::VenueId;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use crate::sandbox::{
    gateway::OwnGateway,
    log, member, shared, still_serves, until, venue,
    wire::{self, Shown},
};

const SOON: Duration = Duration::from_secs(5);

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

async fn assert_serves(gateway: &OwnGateway, after: &str) {
    let good = shared().request(&station(), &shared().green(member("44")).await);
    still_serves(&gateway.at(shared(), &station()), &good, after).await;
}

#[tokio::test]
async fn who_says_nothing_is_shown_out() {
    let gateway = OwnGateway::start(shared(), |config| {
        config.limits.server.accept.hello_timeout = Duration::from_millis(50);
        config.limits.server.accept.handshake_timeout = Duration::from_millis(200);
        config.limits.server.accept.max_handshakes_per_address = 1;
    })
    .await;
    let before = log::mark();
    let mut silent = TcpStream::connect(&gateway.address).await.expect("it listens");
    let from = silent.local_addr().unwrap().to_string();
    let read = timeout(SOON, silent.read(&mut [0; 64])).await.expect("the gateway does not wait for ever");
    assert!(read.is_err() || read.is_ok_and(|bytes| bytes == 0), "the gateway speaks first to whom it does not know");
    log::line_after(before, &["handshake refused", &from, "it did not begin in time"]).await;
    assert_serves(&gateway, "a silent one was shown out").await;
    gateway.stop().await;
}

#[tokio::test]
async fn one_address_cannot_take_all_handshakes() {
    let gateway = OwnGateway::start(shared(), |config| {
        config.limits.server.accept.hello_timeout = Duration::from_secs(1);
        config.limits.server.accept.max_handshakes_per_address = 1;
    })
    .await;
    let silent = TcpStream::connect(&gateway.address).await.expect("it listens");
    let shown = Shown::read(&shared().layout().venue(&station()));
    let refused = async || wire::handshake(&gateway.address, Some(&shown)).await.is_err();
    until("a second handshake from one address is refused", SOON, refused).await;
    drop(silent);
    until("its place comes back", SOON, async || !refused().await).await;
    assert_serves(&gateway, "its place came back").await;
    gateway.stop().await;
}

#[tokio::test]
async fn one_peer_has_so_many_connections_and_no_more() {
    let gateway = OwnGateway::start(shared(), |config| config.limits.server.accept.max_connections_per_peer = 1).await;
    let shown = |venue: &str| Shown::read(&shared().layout().venue(&self::venue(venue)));
    let (here, there) = (shown("44/station/guangzhou-south"), shown("11/station/beijing-west"));
    let (_, mut first) = wire::handshake(&gateway.address, Some(&here)).await.expect("the first is let in");
    first.read_u8().await.expect("the first is let in");
    let before = log::mark();
    let (from, mut second) = wire::handshake(&gateway.address, Some(&here)).await.expect("a client learns nothing yet");
    let why = "has as many connections as it may";
    log::line_after(before, &["handshake refused", &from.to_string(), why]).await;
    let read = timeout(SOON, second.read_u8()).await.expect("the second is closed");
    assert!(read.is_err(), "the second is let in");
    let (_, mut other) = wire::handshake(&gateway.address, Some(&there)).await.expect("another peer is let in");
    other.read_u8().await.expect("another peer is let in");
    drop(first);
    until("its place comes back", SOON, async || {
        let Ok((_, mut third)) = wire::handshake(&gateway.address, Some(&here)).await else { return false };
        third.read_u8().await.is_ok()
    })
    .await;
    drop(other);
    gateway.stop().await;
}
