//! The accept loop: TLS 1.3 only, both sides authenticated, every handshake in a task of its own with a time limit.
//!
//! No tickets and no session storage: a resumed session would skip the verifier, and a revoked peer would get in. When the
//! trust changes, connections whose certificate no longer verifies are closed. Every refused handshake is logged with
//! address, identity shown and reason, because under TLS 1.3 the client learns little.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use proto::{identity::PeerId, time::Clock};
use rustls::{
    CertificateError, OtherError, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{Acceptor, NoServerSessionStorage},
    time_provider::TimeProvider,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tracing::{debug, info, warn};

use crate::{
    access::Caller,
    credentials::Credentials,
    network::{ACCEPT_PAUSE, BoxSocket, Listener},
    trust::{Trust, TrustStore},
    verifier::ClientVerifier,
};

/// Bounds of the accept loop.
#[derive(Clone, Copy, Debug)]
pub struct AcceptLimits {
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a connection may take to begin one: a peer that says nothing soon gives its place back.
    pub hello_timeout: Duration,
    /// How many handshakes may be under way.
    pub max_handshakes: usize,
    /// How many of them from one address: nobody without a certificate can take all places.
    pub max_handshakes_per_address: usize,
    /// How many connections may be open.
    pub max_connections: usize,
    /// How many of them by one peer.
    pub max_connections_per_peer: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            hello_timeout: Duration::from_secs(1),
            max_handshakes: 1024,
            max_handshakes_per_address: 256,
            max_connections: 16_384,
            max_connections_per_peer: 512,
        }
    }
}

/// How long calls under way have to end once the server is told to stop; the whole stop stays under 5 s.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// The cryptography of all connections: AWS-LC.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Certificates are judged by the same clock as everything else.
#[derive(Debug)]
pub(crate) struct CertificateTime(pub(crate) Arc<dyn Clock>);

impl TimeProvider for CertificateTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.now().as_secs())))
    }
}

/// Accepts peers until `shutdown`; then the stream ends.
pub fn accept(
    listener: Box<dyn Listener>,
    trust: Arc<TrustStore>,
    credentials: Arc<Credentials>,
    limits: AcceptLimits,
    shutdown: CancellationToken,
) -> Result<ReceiverStream<io::Result<PeerStream>>, rustls::Error> {
    let tls = Arc::new(ServerTls::new(trust, credentials, limits)?);
    let (accepted, stream) = mpsc::channel(64);
    tokio::spawn(follow_trust(tls.clone(), shutdown.clone()));
    tokio::spawn(accept_loop(listener, tls, accepted, shutdown));
    Ok(ReceiverStream::new(stream))
}

async fn accept_loop(
    mut listener: Box<dyn Listener>,
    tls: Arc<ServerTls>,
    accepted: mpsc::Sender<io::Result<PeerStream>>,
    shutdown: CancellationToken,
) {
    let handshakes = Handshakes::new(tls.limits);
    let connections = Arc::new(Semaphore::new(tls.limits.max_connections));
    loop {
        let socket = tokio::select! {
            () = shutdown.cancelled() => return,
            socket = listener.accept() => socket,
        };
        let (socket, address) = match socket {
            Ok(socket) => socket,
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (Some(handshake), Ok(connection)) =
            (handshakes.begin(address.ip()), connections.clone().try_acquire_owned())
        else {
            // A flood of these must not become a flood of lines.
            debug!(%address, "connection refused: too many");
            continue;
        };
        let (tls, accepted, shutdown) = (tls.clone(), accepted.clone(), shutdown.clone());
        tokio::spawn(async move {
            let shaken = tokio::select! {
                () = shutdown.cancelled() => return,
                shaken = timeout(tls.limits.handshake_timeout, tls.clone().handshake(socket, address)) => shaken,
            };
            drop(handshake);
            match shaken {
                Ok(Ok(mut stream)) => {
                    stream.permit = Some(connection);
                    // The receiver is gone only when the server is.
                    let _ = accepted.send(Ok(stream)).await;
                }
                Ok(Err(error)) => warn!(%address, reason = %reason(&error), "handshake refused"),
                Err(_) => warn!(%address, "handshake refused: it took too long"),
            }
        });
    }
}

/// Handshakes under way, in all and by address.
#[derive(Clone)]
struct Handshakes {
    limits: AcceptLimits,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    all: Arc<Semaphore>,
}

/// A place among them; given back when dropped.
struct Handshake {
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _place: OwnedSemaphorePermit,
}

impl Handshakes {
    fn new(limits: AcceptLimits) -> Self {
        Self { limits, by_address: Arc::default(), all: Arc::new(Semaphore::new(limits.max_handshakes)) }
    }

    fn begin(&self, address: IpAddr) -> Option<Handshake> {
        let place = self.all.clone().try_acquire_owned().ok()?;
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let own = by_address.entry(address).or_default();
        if *own >= self.limits.max_handshakes_per_address {
            return None;
        }
        *own += 1;
        Some(Handshake { address, by_address: self.by_address.clone(), _place: place })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Our verifier's own words, where it was our verifier that refused: they name the identity shown.
fn reason(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => why.to_string(),
        _ => error.to_string(),
    }
}

/// When the trust changes, everything that hung on the old one is looked at again. When the grace after `shutdown` ends,
/// what is still open is closed: a peer that says nothing would hold on to its connection, and to the server behind it.
async fn follow_trust(tls: Arc<ServerTls>, shutdown: CancellationToken) {
    let mut changed = tls.trust.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => {
                sleep(GRACE).await;
                return tls.close_all();
            }
            change = changed.changed() => if change.is_err() { return },
        }
        match tls.renew() {
            Ok(closed) => info!(closed, "connections checked against the new trust list"),
            Err(error) => warn!(%error, "the new trust list's certificates cannot be used"),
        }
    }
}

/// What handshakes need, replaced as a whole when the trust changes.
struct ServerTls {
    trust: Arc<TrustStore>,
    credentials: Arc<Credentials>,
    limits: AcceptLimits,
    current: ArcSwap<Current>,
    open: Mutex<HashMap<u64, Open>>,
    by_peer: Mutex<HashMap<PeerId, usize>>,
    next: AtomicU64,
}

struct Current {
    config: Arc<ServerConfig>,
    verifier: Arc<ClientVerifier>,
    generation: u64,
}

/// An open connection, kept to be checked again.
struct Open {
    chain: Vec<CertificateDer<'static>>,
    close: CancellationToken,
}

impl ServerTls {
    fn new(trust: Arc<TrustStore>, credentials: Arc<Credentials>, limits: AcceptLimits) -> Result<Self, rustls::Error> {
        let current = Current::new(&trust.current(), credentials.clone(), trust.clock().clone())?;
        Ok(Self {
            trust,
            credentials,
            limits,
            current: ArcSwap::from_pointee(current),
            open: Mutex::default(),
            by_peer: Mutex::default(),
            next: AtomicU64::default(),
        })
    }

    async fn handshake(self: Arc<Self>, socket: BoxSocket, address: SocketAddr) -> io::Result<PeerStream> {
        let before = self.current.load_full();
        let hello = LazyConfigAcceptor::new(Acceptor::default(), socket);
        let hello = timeout(self.limits.hello_timeout, hello).await;
        let hello = hello.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it did not begin in time"))??;
        let stream = hello.into_stream(before.config.clone()).await?;
        let chain: Vec<_> = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let close = CancellationToken::new();
        // Registered first, then checked against the trust of now: a change in between is seen by one of the two.
        self.lock().insert(number, Open { chain: chain.clone(), close: close.clone() });
        let mut registration = Registration { tls: self.clone(), number, peer: None };
        let peer = self.verify(&chain, &self.current.load()).map_err(io::Error::other)?;
        registration.count(&peer)?;
        Ok(PeerStream {
            stream,
            caller: Caller { peer, address },
            closed: Box::pin(close.cancelled_owned()),
            permit: None,
            _registration: registration,
        })
    }

    /// Takes the new trust and closes what it no longer vouches for. Returns how many.
    fn renew(&self) -> Result<usize, rustls::Error> {
        let trust = self.trust.current();
        let current = Current::new(&trust, self.credentials.clone(), self.trust.clock().clone())?;
        self.current.store(Arc::new(current));
        let current = self.current.load();
        let open = self.lock();
        let ended = open.values().filter(|open| self.verify(&open.chain, &current).is_err());
        Ok(ended.map(|open| open.close.cancel()).count())
    }

    fn close_all(&self) {
        self.lock().values().for_each(|open| open.close.cancel());
    }

    fn verify(&self, chain: &[CertificateDer<'_>], current: &Current) -> Result<PeerId, crate::verifier::PeerRefused> {
        let (leaf, intermediates) = chain.split_first().ok_or(crate::verifier::PeerRefused::Certificate)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.trust.clock().now().as_secs()));
        current.verifier.verify(leaf, intermediates, now)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Open>> {
        // The map is whole after every statement, so a panic elsewhere leaves nothing half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn new(trust: &Trust, credentials: Arc<Credentials>, clock: Arc<dyn Clock>) -> Result<Self, rustls::Error> {
        let verifier = Arc::new(ClientVerifier::new(&trust.list, &trust.revocations, provider())?);
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(CertificateTime(clock)))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier.clone())
            .with_cert_resolver(credentials);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), verifier, generation: trust.generation })
    }
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TLS of trust generation {}", self.generation)
    }
}

/// Takes a connection off the register when it ends.
struct Registration {
    tls: Arc<ServerTls>,
    number: u64,
    peer: Option<PeerId>,
}

impl Registration {
    /// Counts the connection among its peer's.
    fn count(&mut self, peer: &PeerId) -> io::Result<()> {
        let mut by_peer = self.tls.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        let own = by_peer.entry(peer.clone()).or_default();
        if *own >= self.tls.limits.max_connections_per_peer {
            return Err(io::Error::other(format!("{peer} has as many connections as it may")));
        }
        *own += 1;
        drop(by_peer);
        self.peer = Some(peer.clone());
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.tls.lock().remove(&self.number);
        let Some(peer) = &self.peer else { return };
        let mut by_peer = self.tls.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = by_peer.get_mut(peer) {
            *own -= 1;
            if *own == 0 {
                by_peer.remove(peer);
            }
        }
    }
}

/// An authenticated connection. Reads and writes fail once trust in its peer has ended.
pub struct PeerStream {
    stream: TlsStream<BoxSocket>,
    caller: Caller,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    permit: Option<OwnedSemaphorePermit>,
    _registration: Registration,
}

impl std::fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "connection of {}", self.caller.peer)
    }
}

impl PeerStream {
    /// Nothing more is read from or written to a peer in whom trust has ended.
    fn check_open(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.closed.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionReset, "trust in this peer has ended")),
        }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
