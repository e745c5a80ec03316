//! `up`: the federation, until it is told to stop.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use proto::{
    member::Member,
    time::{Clock, SystemClock},
};
use province_stub::seed::Condition;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    addresses::Ports,
    commands::traveler,
    federation::Federation,
    layout::Layout,
    load::{Load, REWRITE_EVERY},
    options::Options,
    phone::{PROOF_LIFE, Wish},
    prepare::Plan,
    qr, say, venues,
};

/// How long a node has to serve before it is said to be down: one of ours, and somebody else's.
const OWN_NODE: Duration = Duration::from_secs(1);
const FOREIGN_NODE: Duration = Duration::from_secs(20);
const RETRY_AFTER: Duration = Duration::from_millis(200);
const RETRY_FOREIGN_AFTER: Duration = Duration::from_secs(2);

/// From when before their end trust list and policy are signed anew: daily, by the wall clock, so that a machine that slept
/// through it renews when it wakes.
const RENEW_BEFORE: Duration = Duration::from_secs(6 * 24 * 3600);

/// Starts everything, prints what there is, and keeps it going until SIGINT or SIGTERM.
pub async fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let shutdown = CancellationToken::new();
    peer::serve::stop_on_signal(shutdown.clone())?;
    let layout = Layout::new(&options.dir);
    let plan = Plan::of(options, &layout)?;
    let federation = Federation::start(&layout, &plan, Ports::Documented, Arc::new(SystemClock)).await?;
    let mut load = Load::open(&federation, SystemClock.now()).await?;
    load.write(SystemClock.now())?;
    let healthy = wait_for_nodes(&federation, &shutdown).await?;
    announce(&federation, options, &healthy)?;
    let gateway = federation.desk().gateway_address()?;
    let ms = started.elapsed().as_millis();
    say!("ready gateway={gateway} members={}/{} ms={ms}", healthy.len(), federation.members().len());
    if !options.json {
        invite(&federation, options, &healthy).await?;
    }
    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = keep_fresh(&federation, &mut load) => bail!("the load file is no longer kept fresh"),
    };
    drop(load);
    federation.stop().await?;
    ended
}

/// Waits until every node serves, for a bounded time; foreign ones may have to be started yet. Returns those that do.
async fn wait_for_nodes(federation: &Federation, shutdown: &CancellationToken) -> Result<Vec<Member>> {
    let mut ours = Some(Instant::now() + OWN_NODE);
    let until = Instant::now() + FOREIGN_NODE;
    loop {
        let healthy = federation.healthy().await?;
        let mut missing = federation.members().iter().filter(|member| !healthy.contains(member)).peekable();
        if missing.peek().is_none() || shutdown.is_cancelled() || Instant::now() >= until {
            return Ok(healthy);
        }
        if ours.is_some_and(|ours| Instant::now() >= ours) {
            ours = None;
            let foreign: Vec<_> = missing.filter(|member| federation.is_external(**member)).collect();
            if foreign.is_empty() {
                return Ok(healthy);
            }
            for member in foreign {
                let address = federation.desk().node_address(*member)?;
                say!("waiting up to {} s for the node of {member} at {address}", FOREIGN_NODE.as_secs());
            }
        }
        sleep(if ours.is_some() { RETRY_AFTER } else { RETRY_FOREIGN_AFTER }).await;
    }
}

/// Fresh proofs every 20 s, new editions and certificates once a day, and a word if a part has ended.
async fn keep_fresh(federation: &Federation, load: &mut Load) {
    let mut rewrite = interval(REWRITE_EVERY);
    rewrite.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = false;
    loop {
        rewrite.tick().await;
        let now = SystemClock.now();
        if federation.desk().trust().expires_at() < now.plus(RENEW_BEFORE)
            && let Err(error) = federation.renew().await
        {
            error!(%error, "trust list, policy or certificates could not be renewed");
        }
        let written = match load.renew(federation, now).await {
            Ok(()) => load.write(now).map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            warn!(%error, "the load file could not be rewritten");
        }
        if !said && federation.has_ended_part() {
            said = true;
            error!("a part of the federation ended by itself");
        }
    }
}

fn announce(federation: &Federation, options: &Options, healthy: &[Member]) -> Result<()> {
    for (taken, instead) in federation.replaced_ports() {
        say!("port {taken} is taken, {instead} instead");
    }
    let prepared = federation.desk().prepared();
    if options.json {
        say!("{}", serde_json::to_string(prepared)?);
        return Ok(());
    }
    say!("{:<6}{:<44}{:<18}{:>7}  {:<7} health code", "code", "member", "node", "people", "health");
    for member in federation.members() {
        let profile = member.profile();
        let node = federation.desk().node_address(*member)?;
        let external = federation.is_external(*member);
        let health = match (healthy.contains(member), external) {
            (true, false) => "serving",
            (false, false) => "DOWN",
            (true, true) => "serving, external",
            (false, true) => "NOT THERE, external",
        };
        // A foreign node learns of people as they are needed.
        let people = if external { "-".to_owned() } else { federation.people().to_string() };
        let code = member.to_string();
        say!("{code:<6}{:<44}{node:<18}{people:>7}  {health:<7} {}", profile.name_en, profile.health_code_zh);
    }
    for (member, address) in &prepared.plan.external {
        say!(
            "the node of {member} at {address} is not ours: its people enrol as they are shown; the load file has none"
        );
    }
    for (pair, replica) in prepared.addresses.gateways.iter().zip(1..) {
        say!("gateway replica {replica} on {}, metrics on http://{}/metrics", pair.public, pair.private);
    }
    Ok(())
}

/// A traveler's QR, and lines to copy. They work as printed for as long as this runs.
async fn invite(federation: &Federation, options: &Options, healthy: &[Member]) -> Result<()> {
    let desk = federation.desk();
    let members = federation.members();
    let preferred = "44".parse().ok().filter(|member| healthy.contains(member));
    let Some(member) = preferred.or(healthy.first().copied()) else {
        say!("no node serves: nobody can show anything yet");
        return Ok(());
    };
    let now = SystemClock.now();
    let pass = traveler::pass(desk, member, Condition::Green, &Wish::default(), now).await?;
    let now = SystemClock.now();
    let (drawing, version) = qr::draw(&pass.present(None, now).to_text())?;
    let gateway = desk.gateway_address()?;
    let dir = options.dir.display();
    let venue = venues::for_load(members).context("a federation has venues")?;
    let credentials = desk.layout().venue(&venue);
    let credentials = credentials.display();
    let arguments = options.arguments();
    let ca = format!("{dir}/ca/gateway.tongxing.test.pem");
    let certificates = format!("-cacert {ca} -cert {credentials}/cert.pem -key {credentials}/key.pem");
    say!("");
    say!("{}", qr::on_terminal(&drawing));
    say!(
        "A traveler of {} shows this (QR version {version}, expires {}).",
        member.profile().name_en,
        now.plus(PROOF_LIFE)
    );
    say!("A fresh one:      cargo run -- present --member {member} --format qr{arguments}");
    say!("");
    say!("Recognise one:    cargo run -- recognize --member {member}{arguments}");
    say!("All cases:        cargo run -- demo");
    say!(
        "With grpcurl:     cargo run -q -- present --member {member} --format grpcurl{arguments} | \\\n                  \
         grpcurl {certificates} -d @ {gateway} tongxing.recognition.v1.RecognitionService/Recognize"
    );
    let ghz = certificates.replace("-ca", "--ca").replace("-cert", "--cert").replace("-key", "--key");
    say!(
        "Under load:       ghz {ghz} --import-paths proto --proto proto/tongxing/recognition/v1/recognition.proto \\\n                  \
         --call tongxing.recognition.v1.RecognitionService/Recognize --data-file {} -n 5000 -c 32 --connections 4 {gateway}",
        desk.layout().load_file().display()
    );
    if options.dir.as_os_str() == ".tongxing" && gateway == "127.0.0.1:7443" {
        say!("                  or: ghz --config tests/load/recognize.json");
    }
    say!("Stop:             Ctrl-C");
    Ok(())
}
