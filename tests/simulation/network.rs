//! The simulated network as programs see it: `127.0.0.1:PORT` of the configuration is a port of that program's own host.

use std::{fmt, io, net::SocketAddr};

use peer::{
    network::{Awaited, BoxSocket, Listener, Network},
    serve::Listeners,
};
use turmoil::net::{TcpListener, TcpStream};

use crate::world::{GATEWAYS, NODES};

/// The hosts.
pub(crate) const GATEWAY_HOSTS: [&str; 2] = ["gateway-1", "gateway-2"];
pub(crate) const NODE_HOSTS: [&str; 2] = ["node-1", "node-2"];
pub(crate) const CLIENTS: &str = "clients";

/// The way out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Simulated;

impl Network for Simulated {
    fn connect<'a>(&'a self, address: &'a str) -> Awaited<'a, BoxSocket> {
        Box::pin(async move {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            let port = port.ok_or(io::ErrorKind::InvalidInput)?;
            // Nobody listens for the member that only lends its venues.
            let host = host(port).ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(TcpStream::connect((host, port)).await?) as BoxSocket)
        })
    }
}

fn host(port: u16) -> Option<&'static str> {
    let hosts = [GATEWAYS, NODES].concat().into_iter().zip([GATEWAY_HOSTS, NODE_HOSTS].concat());
    hosts.into_iter().find(|(of, _)| *of == port).map(|(_, host)| host)
}

/// The way in.
struct Simulating {
    listener: TcpListener,
    address: SocketAddr,
}

impl fmt::Debug for Simulating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a simulated listener at {}", self.address)
    }
}

impl Listener for Simulating {
    fn accept(&mut self) -> Awaited<'_, (BoxSocket, SocketAddr)> {
        Box::pin(async move {
            let (socket, address) = self.listener.accept().await?;
            Ok((Box::new(socket) as BoxSocket, address))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Binds a program's two listeners on the host that calls this.
pub(crate) async fn bind(public: SocketAddr, private: SocketAddr) -> io::Result<Listeners> {
    let bind = async |address: SocketAddr| {
        let listener = TcpListener::bind(("0.0.0.0", address.port())).await?;
        Ok::<_, io::Error>(Simulating { listener, address })
    };
    Ok(Listeners::new(bind(public).await?, bind(private).await?))
}
