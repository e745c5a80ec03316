//! A federation of programs for one measurement, in a directory of its own.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use proto::{member::Member, terms::Level, venue::VenueId};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tongxing::{desk::Desk, layout::Layout};

use super::{
    ask::Asker,
    forwarder::Forwarder,
    home::{Home, Traveler},
};
use crate::load::programs::{self, Programs, Wanted};

/// How long a replica has to follow a member once both listen.
const FOLLOW: Duration = Duration::from_secs(30);
/// How long a private listener has to answer.
const METRICS: Duration = Duration::from_secs(10);

/// What a measurement stands on. Programs end and the directory goes when this is dropped.
#[derive(Debug)]
pub struct Site {
    // Dropped in this order: programs before what they write to.
    /// The programs.
    pub programs: Programs,
    /// What stands between gateway and nodes, where that was wanted.
    pub forwarders: BTreeMap<Member, Arc<Forwarder>>,
    /// The desk.
    pub desk: Desk,
    /// The homes of those members whose travelers are asked for.
    pub homes: BTreeMap<Member, Arc<Home>>,
    venue: VenueId,
    _dir: TempDir,
}

/// What is to stand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The travelers' members. The venue's own is there as well.
    pub members: Vec<Member>,
    /// Who asks.
    pub venue: VenueId,
    /// Gateway replicas.
    pub gateways: u8,
    /// Whether a forwarder stands between the gateway and each node.
    pub forwarded: bool,
    /// What each gateway's configuration says beside what is prepared.
    pub gateway_settings: String,
}

impl Site {
    /// Starts everything and waits until every replica follows every home.
    pub async fn start(plan: &Plan) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tongxing-freshness-").tempdir()?;
        let mut members = plan.members.clone();
        members.push(plan.venue.member());
        let (gateways, gateway_settings) = (plan.gateways, plan.gateway_settings.clone());
        let wanted = Wanted { members, gateways, gateway_settings };
        let desk = programs::ready(&Layout::new(dir.path()), &wanted).await?;
        let mut forwarders = BTreeMap::new();
        if plan.forwarded {
            for member in &plan.members {
                let node = desk.node_address(*member)?.parse()?;
                forwarders.insert(*member, Arc::new(Forwarder::start(node).await?));
            }
            let endpoints = forwarders.iter().map(|(member, forwarder)| (*member, forwarder.address().to_string()));
            programs::redirect(&desk, &endpoints.collect())?;
        }
        let programs = Programs::start(&desk).await?;
        let homes = plan.members.iter().map(|member| Ok((*member, Arc::new(Home::open(&desk, *member)?))));
        let homes = homes.collect::<Result<_>>()?;
        let site = Self { programs, forwarders, desk, homes, venue: plan.venue.clone(), _dir: dir };
        site.until_followed().await?;
        Ok(site)
    }

    /// The venue at each replica, over so many connections.
    pub fn askers(&self, connections: usize, patience: Duration) -> Result<Vec<Arc<Asker>>> {
        let standing = self.desk.standing(&self.desk.layout().venue(&self.venue))?;
        let gateways = &self.desk.prepared().addresses.gateways;
        let asker = |address: &str| Asker::new(self.venue.clone(), &standing, address, connections, patience);
        gateways.iter().map(|pair| asker(&pair.public).map(Arc::new)).collect()
    }

    /// So many green travelers of a member, beyond the first `skip` of its people.
    pub async fn travelers(&self, member: Member, skip: usize, count: usize) -> Result<Vec<Arc<Traveler>>> {
        self.home(member)?.enroll(&self.desk, skip, count).await
    }

    /// The home of a member.
    pub fn home(&self, member: Member) -> Result<&Arc<Home>> {
        self.homes.get(&member).with_context(|| format!("the home of {member} is not here"))
    }

    /// The process of a member's node.
    pub fn node(&self, member: Member) -> Result<u32> {
        Ok(self.programs.nodes.get(&member).with_context(|| format!("{member} has no node here"))?.id())
    }

    /// How many lookups a member's node has counted.
    pub async fn lookups(&self, member: Member) -> Result<u64> {
        let nodes = &self.desk.prepared().addresses.nodes;
        let node = nodes.get(&member.to_string()).with_context(|| format!("{member} has no node here"))?;
        Ok(counts(node.private, "node_lookups_total").await?.values().sum())
    }

    /// Lookups that came to nothing at the first replica, by kind.
    pub async fn home_failures(&self) -> Result<BTreeMap<String, u64>> {
        let gateway = self.desk.prepared().addresses.gateways.first().context("there is a gateway")?;
        let mut kinds = BTreeMap::new();
        for (labels, count) in counts(gateway.private, "gateway_home_failures_total").await? {
            let kind = labels.split_once("kind=\"").and_then(|(_, rest)| rest.split_once('"'));
            *kinds.entry(kind.map_or(labels.as_str(), |(kind, _)| kind).to_owned()).or_default() += count;
        }
        Ok(kinds)
    }

    /// A replica that holds an answer of a member follows it.
    async fn until_followed(&self) -> Result<()> {
        let askers = self.askers(1, FOLLOW)?;
        for member in self.homes.keys() {
            let travelers = self.travelers(*member, 0, 1).await?;
            for (asker, traveler) in askers.iter().flat_map(|asker| travelers.iter().map(move |t| (asker, t))) {
                asker.until_cached(traveler, Level::Green, FOLLOW).await?;
            }
        }
        Ok(())
    }
}

/// What a program has counted under a name, by labels.
pub async fn counts(private: SocketAddr, name: &str) -> Result<BTreeMap<String, u64>> {
    let text = timeout(METRICS, get(private, "/metrics")).await??;
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    lines.map(|(labels, value)| Ok((labels.to_owned(), value.parse::<f64>()? as u64))).collect()
}

/// An HTTP GET on a private listener.
async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    socket.read_to_string(&mut text).await?;
    if !text.starts_with("HTTP/1.1 200") {
        bail!("{address}{path}: {}", text.lines().next().unwrap_or_default());
    }
    Ok(text)
}
