//! The network as programs see it: where connections come from and go to, below TLS. It is TCP, unless a simulation owns
//! the network.

use std::{fmt, future::Future, io, net::SocketAddr, pin::Pin, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tracing::warn;

/// What is awaited of a network.
pub type Awaited<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A connection's bytes.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A connection's bytes, whatever carries them.
pub type BoxSocket = Box<dyn Socket>;

/// The way out.
pub trait Network: fmt::Debug + Send + Sync {
    /// Connects to `address` (`host:port`).
    fn connect<'a>(&'a self, address: &'a str) -> Awaited<'a, BoxSocket>;
}

/// The way in: bound beforehand.
pub trait Listener: fmt::Debug + Send + 'static {
    /// The next connection, and whose it is.
    fn accept(&mut self) -> Awaited<'_, (BoxSocket, SocketAddr)>;

    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The machine's own network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn connect<'a>(&'a self, address: &'a str) -> Awaited<'a, BoxSocket> {
        Box::pin(async move {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            Ok(Box::new(socket) as BoxSocket)
        })
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> Awaited<'_, (BoxSocket, SocketAddr)> {
        Box::pin(async move {
            let (socket, address) = TcpListener::accept(self).await?;
            socket.set_nodelay(true)?;
            Ok((Box::new(socket) as BoxSocket, address))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

/// Between two attempts to accept when the first failed: out of file descriptors, most likely, and connections that end
/// make room.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener for a server that speaks plain HTTP.
pub(crate) struct Plain(pub(crate) Box<dyn Listener>);

impl axum::serve::Listener for Plain {
    type Io = BoxSocket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoxSocket, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
