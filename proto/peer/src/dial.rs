//! Calls to a peer whose identity is known beforehand: the gateway's to a node, a venue's to the gateway.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use proto::time;
use rustls::{
    ClientConfig,
    client::{Resumption, danger::ServerCertVerifier as _},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use tracing::warn;

use crate::{
    accept::{CertificateTime, provider},
    credentials,
    network::BoxSocket,
    serve::Standing,
    verifier::{Expected, ServerVerifier},
};

/// Bounds of an outbound connection.
#[derive(Clone, Copy, Debug)]
pub struct DialLimits {
    /// How long connecting and shaking hands may take.
    pub connect_timeout: Duration,
    /// How often an open connection is asked whether it lives.
    pub keepalive_interval: Duration,
    /// How long it may take to say so.
    pub keepalive_timeout: Duration,
}

impl Default for DialLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(300),
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(1),
        }
    }
}

/// What the peer showed at the latest handshake of a channel.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<AtomicU64>);

impl Shown {
    /// When its certificate ends, once there was a handshake.
    pub fn expires_at(&self) -> Option<time::UnixTime> {
        Some(self.0.load(Ordering::Relaxed)).filter(|seconds| *seconds > 0).map(time::UnixTime::from_secs)
    }

    fn note(&self, expires_at: time::UnixTime) {
        self.0.store(expires_at.as_secs(), Ordering::Relaxed);
    }
}

/// A channel to `address` (`host:port`), which must be whom we expect. It connects when first used and again when needed,
/// each time by the trust and the certificate of that moment.
///
/// # Errors
/// If the address is not `host:port`.
pub fn channel(
    standing: &Standing,
    address: &str,
    expected: Expected,
    limits: DialLimits,
) -> Result<Channel, tonic::transport::Error> {
    watched_channel(standing, address, expected, limits, Shown::default())
}

/// The same, taking note of what the peer shows.
///
/// # Errors
/// If the address is not `host:port`.
pub fn watched_channel(
    standing: &Standing,
    address: &str,
    expected: Expected,
    limits: DialLimits,
    shown: Shown,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::try_from(format!("http://{address}"))?
        .http2_keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(16 * 1024);
    let (standing, address) = (standing.clone(), Arc::<str>::from(address));
    let connector = service_fn(move |_: Uri| {
        let (standing, address, shown) = (standing.clone(), address.clone(), shown.clone());
        async move {
            let connecting = connect(&standing, &address, expected);
            let connected = timeout(limits.connect_timeout, connecting).await;
            let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            if let Some(end) = stream.chain().first().and_then(|leaf| credentials::expires_at(leaf)) {
                shown.note(end);
            }
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// Whether a text is `host:port`: a name or an address that a certificate can have, and a port from 1.
pub fn is_address(text: &str) -> bool {
    let is_named = text.rsplit_once(':').is_some_and(|(host, port)| {
        server_name(host).is_ok() && port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port)
    });
    is_named && format!("http://{text}").parse::<Uri>().is_ok()
}

/// What a certificate must say of a host; an IPv6 address stands in brackets.
fn server_name(host: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

async fn connect(standing: &Standing, address: &str, expected: Expected) -> io::Result<TrustedStream> {
    // From here on every change of trust is seen by this connection.
    let changed = standing.trust.subscribe();
    let config = client_config(standing, expected).map_err(io::Error::other)?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = server_name(host).map_err(io::Error::other)?;
    let socket = standing.network.connect(address).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name.clone(), socket).await?;
    Ok(TrustedStream { stream, standing: standing.clone(), expected, name, changed })
}

fn client_config(standing: &Standing, expected: Expected) -> Result<ClientConfig, rustls::Error> {
    let time = Arc::new(CertificateTime(standing.trust.clock().clone()));
    let mut config = ClientConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier(standing, expected)?))
        .with_client_cert_resolver(standing.credentials.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Verifies by the trust of this moment.
fn verifier(standing: &Standing, expected: Expected) -> Result<ServerVerifier, rustls::Error> {
    let trust = standing.trust.current();
    ServerVerifier::new(&trust.list, &trust.revocations, expected, provider())
}

/// An outbound connection. Reads and writes fail once trust in its peer has ended, as they do on inbound ones.
struct TrustedStream {
    stream: TlsStream<BoxSocket>,
    standing: Standing,
    expected: Expected,
    name: ServerName<'static>,
    changed: watch::Receiver<u64>,
}

impl TrustedStream {
    /// What the peer showed, leaf first.
    fn chain(&self) -> &[CertificateDer<'static>] {
        self.stream.get_ref().1.peer_certificates().unwrap_or_default()
    }

    fn check(&mut self) -> io::Result<()> {
        if !self.changed.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.changed.mark_unchanged();
        let chain = self.chain();
        let ended = || io::Error::new(io::ErrorKind::ConnectionReset, "trust in this peer has ended");
        let (leaf, intermediates) = chain.split_first().ok_or_else(ended)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.standing.trust.clock().now().as_secs()));
        let verified = verifier(&self.standing, self.expected)
            .and_then(|verifier| verifier.verify_server_cert(leaf, intermediates, &self.name, &[], now));
        verified.map(drop).map_err(|error| {
            warn!(%error, expected = %self.expected, "an open connection is given up");
            ended()
        })
    }
}

impl AsyncRead for TrustedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TrustedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
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
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["127.0.0.1:7443", "localhost:1", "gateway.tongxing.test:65535", "[::1]:7443"] {
            assert!(is_address(good), "{good}");
        }
        for wrong in
            ["", "localhost", ":7443", "localhost:0", "localhost:07443", "localhost:65536", "::1:7443", "a b:1"]
        {
            assert!(!is_address(wrong), "{wrong}");
        }
        assert!(!is_address("http://localhost:7443") && !is_address("localhost:7443/x"));
    }
}
