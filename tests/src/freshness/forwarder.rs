//! Stands between the gateway and a node: forwards bytes, until it is told to hold them back as a black hole does. What it
//! held is then let go, or its connections are closed.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinSet},
};

/// Connections at once; more are closed as they come.
const MAX_CONNECTIONS: usize = 256;
/// Bytes of one direction that are held here; the rest waits where it was sent.
const BUFFER_BYTES: usize = 16 * 1024;

/// A forwarder on loopback. It ends, and its connections with it, when this is dropped.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    gate: watch::Sender<Gate>,
    accepting: AbortHandle,
}

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    held: bool,
    /// Connections of an earlier generation are closed.
    generation: u32,
}

impl Forwarder {
    /// Forwards to `to`.
    pub async fn start(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let gate = watch::Sender::new(Gate::default());
        let accepting = tokio::spawn(accept(listener, to, gate.clone())).abort_handle();
        Ok(Self { address, gate, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing comes through, in neither direction, and nobody is told.
    pub fn hold(&self) {
        self.gate.send_modify(|gate| gate.held = true);
    }

    /// Lets go what was held, and whatever comes.
    pub fn release(&self) {
        self.gate.send_modify(|gate| gate.held = false);
    }

    /// Closes all connections, what they held is lost; new ones come through.
    pub fn cut(&self) {
        self.gate.send_modify(|gate| *gate = Gate { held: false, generation: gate.generation + 1 });
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, gate: watch::Sender<Gate>) {
    let (places, mut connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), JoinSet::new());
    // A listener that fails says nothing more; whoever measures sees that nobody answers.
    while let Ok((inbound, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let gate = gate.subscribe();
        connections.spawn(async move {
            // How a connection ends is its two peers' affair.
            let _ = forward(inbound, to, gate).await;
            drop(place);
        });
    }
}

async fn forward(inbound: TcpStream, to: SocketAddr, mut gate: watch::Receiver<Gate>) -> io::Result<()> {
    let born = gate.borrow().generation;
    if !open(&mut gate, born).await {
        return Ok(());
    }
    let outbound = TcpStream::connect(to).await?;
    inbound.set_nodelay(true)?;
    outbound.set_nodelay(true)?;
    let ((from_gateway, to_gateway), (from_node, to_node)) = (inbound.into_split(), outbound.into_split());
    let both = async {
        tokio::try_join!(
            pump(from_gateway, to_node, gate.clone(), born),
            pump(from_node, to_gateway, gate.clone(), born)
        )
    };
    let mut cut = gate.clone();
    tokio::select! {
        ended = both => ended.map(drop),
        _ = cut.wait_for(|gate| gate.generation != born) => Ok(()),
    }
}

/// One direction. The end of it is held back like its bytes.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut gate: watch::Receiver<Gate>,
    born: u32,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if !open(&mut gate, born).await {
            return Ok(());
        }
        match count {
            0 => return to.shutdown().await,
            count => to.write_all(&buffer[..count]).await?,
        }
    }
}

/// Waits until the gate is open. False if it opened for others.
async fn open(gate: &mut watch::Receiver<Gate>, born: u32) -> bool {
    gate.wait_for(|gate| !gate.held || gate.generation != born).await.is_ok_and(|gate| gate.generation == born)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Answers every byte with itself.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn ask(socket: &mut TcpStream, byte: u8) -> io::Result<u8> {
        socket.write_all(&[byte]).await?;
        socket.read_u8().await
    }

    #[tokio::test]
    async fn bytes_come_through_are_held_and_are_let_go() {
        let forwarder = Forwarder::start(echo().await).await.unwrap();
        let mut socket = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut socket, 1).await.unwrap(), 1);
        forwarder.hold();
        socket.write_all(&[2]).await.unwrap();
        let silence = timeout(Duration::from_millis(100), socket.read_u8()).await;
        assert!(silence.is_err(), "{silence:?}");
        forwarder.release();
        assert_eq!(socket.read_u8().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_cut_closes_what_there_was_and_new_connections_come_through() {
        let forwarder = Forwarder::start(echo().await).await.unwrap();
        let mut socket = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut socket, 1).await.unwrap(), 1);
        forwarder.hold();
        let mut waiting = TcpStream::connect(forwarder.address()).await.unwrap();
        forwarder.cut();
        assert!(socket.read_u8().await.is_err(), "it is closed");
        let mut new = TcpStream::connect(forwarder.address()).await.unwrap();
        assert_eq!(ask(&mut new, 3).await.unwrap(), 3);
        // It may have been accepted before the cut, or after: closed, or served.
        let _ = timeout(Duration::from_secs(1), ask(&mut waiting, 4)).await.expect("it does not hang");
        let address = forwarder.address();
        drop(forwarder);
        assert!(new.read_u8().await.is_err(), "its connections end with it");
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
