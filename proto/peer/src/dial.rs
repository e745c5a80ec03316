//! Calls to a peer whose identity is known beforehand: the gateway's to a node, a venue's to the gateway.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, client::Resumption, version::TLS13};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::{
    accept::{CertificateTime, provider},
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
    let endpoint = Endpoint::try_from(format!("http://{address}"))?
        .http2_keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(16 * 1024);
    let (standing, address) = (standing.clone(), Arc::<str>::from(address));
    let connector = service_fn(move |_: Uri| {
        let (standing, address) = (standing.clone(), address.clone());
        async move {
            let connecting = connect(&standing, &address, expected);
            let connected = timeout(limits.connect_timeout, connecting).await;
            connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(TokioIo::new)
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn connect(
    standing: &Standing,
    address: &str,
    expected: Expected,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let config = client_config(standing, expected).map_err(io::Error::other)?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config)).connect(name, socket).await
}

fn client_config(standing: &Standing, expected: Expected) -> Result<ClientConfig, rustls::Error> {
    let trust = standing.trust.current();
    let verifier = ServerVerifier::new(&trust.list, &trust.revocations, expected, provider())?;
    let time = Arc::new(CertificateTime(standing.trust.clock().clone()));
    let mut config = ClientConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(standing.credentials.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
