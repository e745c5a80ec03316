//! A federation's gateway replicas and nodes, each a program of its own, on this machine's own addresses.
//!
//! In three steps, so that a measurement can put something between: [`ready`] makes what is on disk, [`redirect`] has the
//! gateway reach nodes at other addresses than they listen at, [`Programs::start`] starts. One that was ended can be started
//! again, from what it left: [`gateway`], [`node`].

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use gateway::{
    documents::{self, TrustSource},
    pki::write_public,
};
use proto::{
    envelope::MAX_LIFE,
    member::Member,
    random::SystemRandom,
    time::{Clock, SystemClock},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tongxing::{
    addresses::{Addresses, Pair},
    desk::Desk,
    layout::Layout,
    options::PolicyName,
    prepare::{Lock, Plan, prepare},
};

use super::process::Program;

/// How long the programs have to begin.
const START: Duration = Duration::from_secs(30);
/// Below the kernel's own, which begin at 32768 (`net.ipv4.ip_local_port_range`), and above those that are documented.
const FREE_PORTS: Range<u16> = 12_000..32_000;
const FREE_PORT_TRIES: usize = 1000;

/// What is to be started.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose nodes. Nobody is known there.
    pub members: Vec<Member>,
    /// Gateway replicas.
    pub gateways: u8,
    /// What each gateway's configuration says beside what is prepared: tables of TOML.
    pub gateway_settings: String,
}

/// The programs of one federation. They end when this is dropped.
#[derive(Debug)]
pub struct Programs {
    /// The gateway's replicas.
    pub gateways: Vec<Program>,
    /// The nodes.
    pub nodes: BTreeMap<Member, Program>,
}

/// Prepares a federation, on free ports.
pub async fn ready(layout: &Layout, wanted: &Wanted) -> Result<Desk> {
    let plan = Plan {
        members: wanted.members.iter().map(Member::to_string).collect(),
        people: 0,
        gateways: wanted.gateways,
        policy: PolicyName::National,
        ..Plan::default()
    };
    let _lock = Lock::take(layout)?;
    let addresses = free_addresses(&plan.members()?, wanted.gateways.into()).await?;
    prepare(layout, &plan, &addresses, SystemClock.now())?;
    for replica in 1..=wanted.gateways.into() {
        let path = layout.gateway(replica).join("gateway.toml");
        let text = format!("{}\n{}", fs::read_to_string(&path)?, wanted.gateway_settings);
        write_public(&path, text.as_bytes())?;
    }
    Desk::open(layout, Arc::new(SystemClock))
}

/// Has the trust list say that these members' nodes are elsewhere. The desk goes on reaching them where they listen.
pub fn redirect(desk: &Desk, endpoints: &BTreeMap<Member, String>) -> Result<()> {
    let (layout, path) = (desk.layout(), desk.layout().trust_source());
    let mut source: TrustSource = toml::from_str(&fs::read_to_string(&path)?)?;
    for (member, endpoint) in endpoints {
        let entry = source.members.get_mut(&member.to_string());
        entry.with_context(|| format!("member {member} is not in this federation"))?.endpoints = vec![endpoint.clone()];
    }
    write_public(&path, toml::to_string(&source)?.as_bytes())?;
    let roots = (1..=source.threshold).map(|number| documents::read_root_key(&layout.root(number)));
    let roots: Vec<_> = roots.collect::<Result<_>>()?;
    documents::sign_trust_list(&path, &roots, &layout.trust_list(), SystemClock.now(), MAX_LIFE)?;
    desk.reload()?;
    Ok(())
}

impl Programs {
    /// Starts a prepared federation's programs and waits until they listen.
    pub async fn start(desk: &Desk) -> Result<Self> {
        let (layout, prepared) = (desk.layout(), desk.prepared());
        let mut programs = Self { gateways: Vec::new(), nodes: BTreeMap::new() };
        for member in prepared.plan.members()? {
            programs.nodes.insert(member, node(layout, member)?);
        }
        for replica in 1..=prepared.addresses.gateways.len() {
            programs.gateways.push(gateway(layout, replica)?);
        }
        for pair in prepared.addresses.nodes.values().chain(&prepared.addresses.gateways) {
            listening(&pair.public).await?;
        }
        Ok(programs)
    }
}

/// Starts a gateway replica, the first being 1.
pub fn gateway(layout: &Layout, replica: usize) -> Result<Program> {
    let name = if replica == 1 { "gateway".to_owned() } else { format!("gateway-{replica}") };
    serve(layout, &name, "gateway", &layout.gateway(replica).join("gateway.toml"))
}

/// Starts a member's node.
pub fn node(layout: &Layout, member: Member) -> Result<Program> {
    serve(layout, &format!("node-{member}"), "province-stub", &layout.node(member).join("node.toml"))
}

/// Free addresses for programs that may be ended and started again: with ports that the kernel gives to no connection, one
/// of which would otherwise stand where a program wants to listen again.
async fn free_addresses(members: &[Member], gateways: usize) -> Result<Addresses> {
    let mut bound = Vec::new();
    let mut pair = async || -> Result<Pair> {
        let (public, private) = (free_port(&mut bound).await?, free_port(&mut bound).await?);
        Ok(Pair { public: public.to_string(), private })
    };
    let mut addresses = Addresses { gateways: Vec::new(), nodes: BTreeMap::new() };
    for _ in 0..gateways {
        addresses.gateways.push(pair().await?);
    }
    for member in members {
        addresses.nodes.insert(member.to_string(), pair().await?);
    }
    Ok(addresses)
}

/// Bound to find it, and let go with all others for the programs to take.
async fn free_port(bound: &mut Vec<TcpListener>) -> Result<SocketAddr> {
    for _ in 0..FREE_PORT_TRIES {
        let drawn = u16::from_be_bytes(proto::random::bytes(&SystemRandom));
        let port = FREE_PORTS.start + drawn % (FREE_PORTS.end - FREE_PORTS.start);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            let address = listener.local_addr()?;
            bound.push(listener);
            return Ok(address);
        }
    }
    bail!("no free port on 127.0.0.1 in {FREE_PORTS:?}");
}

fn serve(layout: &Layout, name: &str, binary: &str, config: &Path) -> Result<Program> {
    let config = config.display().to_string();
    let log = layout.dir().join(format!("{name}.log"));
    Program::start(name, &program(binary)?, &["serve", "--config", &config], &log)
}

/// A program that was built with this one.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.parent().context("this program is in a directory")?.join(name);
    if !path.exists() {
        bail!(
            "{}: build it with the same profile: cargo build -p gateway -p province-stub -p tongxing",
            path.display()
        );
    }
    Ok(path)
}

/// Waits until somebody listens.
pub async fn listening(address: &str) -> Result<()> {
    let deadline = Instant::now() + START;
    while TcpStream::connect(address).await.is_err() {
        if Instant::now() > deadline {
            bail!("nobody listens on {address}");
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
