//! The whole federation in one process: every part is the real program with its real configuration, each to be stopped by
//! itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use gateway::{config::Config as GatewayConfig, server::Gateway};
use peer::{
    dial::{self, DialLimits},
    serve::{Listeners, Standing},
    surroundings::Surroundings,
    verifier::Expected,
};
use proto::{member::Member, time::Clock};
use province_stub::{
    config::Config as NodeConfig,
    issuance::Issued,
    server::{Handle, Node},
    standing::StandingConsent,
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tracing::{debug, warn};

use crate::{
    addresses::{Bound, Ports},
    desk::Desk,
    layout::Layout,
    prepare::{Lock, Plan, prepare},
};

/// How long a part has to stop.
const STOP: Duration = Duration::from_secs(5);

/// A running federation.
#[derive(Debug)]
pub struct Federation {
    desk: Desk,
    _lock: Lock,
    members: Vec<Member>,
    clock: Arc<dyn Clock>,
    replaced: Vec<(u16, u16)>,
    gateways: Vec<Part>,
    nodes: BTreeMap<Member, (Part, Handle)>,
}

/// One running program.
#[derive(Debug)]
struct Part {
    shutdown: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Part {
    async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        timeout(STOP, self.task).await.context("it did not stop in time")??
    }
}

impl Federation {
    /// Prepares a directory and starts everything in it.
    pub async fn start(layout: &Layout, plan: &Plan, ports: Ports, clock: Arc<dyn Clock>) -> Result<Self> {
        let members = plan.members()?;
        let lock = Lock::take(layout)?;
        let bound = Bound::bind(&plan.own_members()?, plan.gateways.into(), ports).await?;
        let addresses = bound.addresses()?;
        let (layout_, plan_, now) = (layout.clone(), plan.clone(), clock.now());
        // Making 34 CAs and 80 certificates is work for the processor alone.
        tokio::task::spawn_blocking(move || prepare(&layout_, &plan_, &addresses, now)).await??;
        let desk = Desk::open(layout, clock.clone())?;
        let mut federation = Self {
            desk,
            _lock: lock,
            members,
            clock,
            replaced: bound.replaced,
            gateways: Vec::new(),
            nodes: BTreeMap::new(),
        };
        federation.start_nodes(bound.nodes).await?;
        for (listeners, replica) in bound.gateways.into_iter().zip(1..) {
            let part = federation.start_gateway(replica, listeners).await?;
            federation.gateways.push(part);
        }
        Ok(federation)
    }

    /// The desk from which its parties are played.
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Its members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether a member's node is somebody else's, and not started here.
    pub fn is_external(&self, member: Member) -> bool {
        self.desk.prepared().plan.is_external(member)
    }

    /// People seeded per member.
    pub fn people(&self) -> u32 {
        self.desk.prepared().plan.people
    }

    /// Documented ports that were taken, and what replaced them.
    pub fn replaced_ports(&self) -> &[(u16, u16)] {
        &self.replaced
    }

    /// Asks every node for its health, over mutual TLS, as the gateway does. Returns those that serve.
    pub async fn healthy(&self) -> Result<Vec<Member>> {
        let standing = self.desk.standing(&self.desk.layout().gateway(1))?;
        let mut checks = JoinSet::new();
        for member in &self.members {
            let (standing, member, address) = (standing.clone(), *member, self.desk.node_address(*member)?);
            checks.spawn(async move { (member, is_serving(&standing, &address, member).await) });
        }
        let mut healthy = Vec::new();
        while let Some(checked) = checks.join_next().await {
            match checked? {
                (member, Ok(true)) => healthy.push(member),
                // Whoever starts it knows; what is printed says so.
                (member, asked) if self.is_external(member) => debug!(%member, ?asked, "a foreign node does not serve"),
                (member, Ok(false)) => warn!(%member, "the node does not serve"),
                (member, Err(error)) => warn!(%member, %error, "a node does not answer"),
            }
        }
        healthy.sort_unstable();
        Ok(healthy)
    }

    /// Issues standing consents at a member's node.
    pub async fn issue_standing(&self, member: Member, consents: Vec<StandingConsent>) -> Result<Vec<Issued>> {
        let (_, handle) = self.nodes.get(&member).with_context(|| format!("the node of {member} does not run"))?;
        Ok(handle.issue_standing(consents).await?)
    }

    /// Revokes the standing consents of an earlier start, everywhere.
    pub async fn revoke_standing(&self) -> Result<()> {
        for (_, handle) in self.nodes.values() {
            handle.revoke_standing().await?;
        }
        Ok(())
    }

    /// Signs new editions and renews certificates that are due; the running parts take them up by themselves.
    pub async fn renew(&self) -> Result<()> {
        let (layout, prepared) = (self.desk.layout().clone(), self.desk.prepared().clone());
        let now = self.clock.now();
        tokio::task::spawn_blocking(move || prepare(&layout, &prepared.plan, &prepared.addresses, now)).await??;
        self.desk.reload()?;
        Ok(())
    }

    /// Stops one member's node.
    pub async fn stop_node(&mut self, member: Member) -> Result<()> {
        let (part, _) = self.nodes.remove(&member).with_context(|| format!("the node of {member} does not run"))?;
        part.stop().await.with_context(|| format!("node of {member}"))
    }

    /// Starts one member's node again, at the address the trust list has for it.
    pub async fn restart_node(&mut self, member: Member) -> Result<()> {
        let pair = self.desk.prepared().addresses.nodes.get(&member.to_string());
        let pair = pair.filter(|_| !self.is_external(member));
        let pair = pair.with_context(|| format!("member {member} has no node of ours in this federation"))?;
        let listeners = Listeners::new(TcpListener::bind(&pair.public).await?, TcpListener::bind(pair.private).await?);
        self.start_nodes(BTreeMap::from([(member, listeners)])).await
    }

    /// Stops everything. Whatever did not stop well is said.
    pub async fn stop(self) -> Result<()> {
        let gateways = self.gateways.into_iter().map(|part| ("gateway".to_owned(), part));
        let nodes = self.nodes.into_iter().map(|(member, (part, _))| (format!("node of {member}"), part));
        let mut stopping = JoinSet::new();
        for (name, part) in gateways.chain(nodes) {
            stopping.spawn(async move { part.stop().await.context(name) });
        }
        let mut failures = Vec::new();
        while let Some(stopped) = stopping.join_next().await {
            if let Err(error) = stopped? {
                failures.push(format!("{error:#}"));
            }
        }
        if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("; ")) }
    }

    /// Whether a part has ended by itself, which none should.
    pub fn has_ended_part(&self) -> bool {
        let mut parts = self.gateways.iter().chain(self.nodes.values().map(|(part, _)| part));
        parts.any(|part| part.task.is_finished())
    }

    async fn start_nodes(&mut self, listeners: BTreeMap<Member, Listeners>) -> Result<()> {
        let mut starting = JoinSet::new();
        for (member, listeners) in listeners {
            let path = self.desk.layout().node(member).join("node.toml");
            let (people, clock) = (self.people(), self.clock.clone());
            starting.spawn(async move {
                let config = NodeConfig::read(&path)?;
                let node = Node::open(config, Surroundings::by(clock)).await?;
                let handle = node.handle();
                handle.seed(people).await?;
                let shutdown = CancellationToken::new();
                let task = tokio::spawn({
                    let shutdown = shutdown.clone();
                    async move { Ok(node.serve(listeners, shutdown).await?) }
                });
                Ok::<_, anyhow::Error>((member, Part { shutdown, task }, handle))
            });
        }
        while let Some(started) = starting.join_next().await {
            let (member, part, handle) = started??;
            self.nodes.insert(member, (part, handle));
        }
        Ok(())
    }

    async fn start_gateway(&self, replica: usize, listeners: Listeners) -> Result<Part> {
        let config = GatewayConfig::read(&self.desk.layout().gateway(replica).join("gateway.toml"))?;
        let clock = self.clock.clone();
        let opening = move || Gateway::open(config, Surroundings::by(clock));
        let gateway = tokio::task::spawn_blocking(opening).await??;
        let shutdown = CancellationToken::new();
        let task = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { Ok(gateway.serve(listeners, shutdown).await?) }
        });
        Ok(Part { shutdown, task })
    }
}

/// Asks a node for its health, as the gateway would.
async fn is_serving(standing: &Standing, address: &str, member: Member) -> Result<bool> {
    let limits = DialLimits { connect_timeout: Duration::from_secs(5), ..DialLimits::default() };
    let channel = dial::channel(standing, address, Expected::NodeOf(member), limits)?;
    let response = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
    Ok(response.into_inner().status() == ServingStatus::Serving)
}
