//! Who listens where. Ports are documented; one that is taken is replaced, and said.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use anyhow::{Context, Result};
use peer::serve::Listeners;
use proto::member::Member;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

const GATEWAY: u16 = 7443;
const NODES: u16 = 7500;
const PRIVATE: u16 = 7900;

/// One program's two addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pair {
    /// For peers, `host:port`: an address, but for a foreign node's, which may have a name.
    pub public: String,
    /// For the machine's own operators.
    pub private: SocketAddr,
}

/// Everybody's addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// The gateway's replicas.
    pub gateways: Vec<Pair>,
    /// The nodes, by member's code.
    pub nodes: BTreeMap<String, Pair>,
}

/// Everybody's listeners, bound.
#[derive(Debug)]
pub struct Bound {
    /// The gateway's replicas.
    pub gateways: Vec<Listeners>,
    /// The nodes.
    pub nodes: BTreeMap<Member, Listeners>,
    /// Ports that were taken, and what replaced them.
    pub replaced: Vec<(u16, u16)>,
}

/// Which ports to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The documented ones.
    Documented,
    /// Whatever is free: for tests and for federations beside another.
    Any,
}

impl Bound {
    /// Binds everything on loopback.
    pub async fn bind(members: &[Member], gateways: usize, ports: Ports) -> Result<Self> {
        let mut bound = Self { gateways: Vec::new(), nodes: BTreeMap::new(), replaced: Vec::new() };
        let all: Vec<_> = Member::all().collect();
        for replica in 0..gateways {
            // Replicas beyond the first have private ports after all the nodes'.
            let private = if replica == 0 { 0 } else { all.len() + replica };
            let pair = bound.pair(ports, GATEWAY + replica as u16, PRIVATE + private as u16).await?;
            bound.gateways.push(pair);
        }
        for (position, member) in all.iter().enumerate().filter(|(_, member)| members.contains(member)) {
            let position = position as u16;
            let pair = bound.pair(ports, NODES + position, PRIVATE + 1 + position).await?;
            bound.nodes.insert(*member, pair);
        }
        Ok(bound)
    }

    /// Where all of it listens.
    pub fn addresses(&self) -> Result<Addresses> {
        let pair = |listeners: &Listeners| -> Result<Pair> {
            Ok(Pair { public: listeners.public.local_addr()?.to_string(), private: listeners.private.local_addr()? })
        };
        Ok(Addresses {
            gateways: self.gateways.iter().map(pair).collect::<Result<_>>()?,
            nodes: self.nodes.iter().map(|(m, l)| Ok((m.to_string(), pair(l)?))).collect::<Result<_>>()?,
        })
    }

    async fn pair(&mut self, ports: Ports, public: u16, private: u16) -> Result<Listeners> {
        Ok(Listeners::new(self.one(ports, public).await?, self.one(ports, private).await?))
    }

    async fn one(&mut self, ports: Ports, port: u16) -> Result<TcpListener> {
        let bind = async |port| TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).await;
        if ports == Ports::Any {
            return bind(0).await.context("no free port on 127.0.0.1");
        }
        match bind(port).await {
            Ok(listener) => Ok(listener),
            Err(_) => {
                let listener = bind(0).await.context("no free port on 127.0.0.1")?;
                self.replaced.push((port, listener.local_addr()?.port()));
                Ok(listener)
            }
        }
    }
}
