//! Connections and messages that no client of ours would make: any certificate or none, any server believed, any bytes.

use std::{fmt, fs, io, net::SocketAddr, path::Path, sync::Arc};

use hyper_util::rt::TokioIo;
use peer::accept::provider;
use prost::bytes::{Buf as _, BufMut as _};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

/// Certificate chain and private key, PEM.
#[derive(Clone)]
pub struct Shown {
    /// The chain, the leaf first.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(…)")
    }
}

impl Shown {
    /// From a directory with cert.pem and key.pem.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let read = |name: &str| fs::read_to_string(dir.join(name));
        Ok(Self { certificate: read("cert.pem")?, key: read("key.pem")? })
    }

    /// The same, where a test has put them there itself.
    ///
    /// # Panics
    /// If they are not there.
    pub fn read(dir: &Path) -> Self {
        Self::open(dir).expect("the peer has a certificate")
    }
}

/// Believes any server.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The TLS of a client that shows this certificate, or none.
fn config(shown: Option<&Shown>) -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(io::Error::other)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(Shown { certificate, key }) => {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(io::Error::other)?;
            builder.with_client_auth_cert(chain.map_err(io::Error::other)?, key).map_err(io::Error::other)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Shakes hands, as far as a client can tell under TLS 1.3. Returns the address it called from.
pub async fn handshake(address: &str, shown: Option<&Shown>) -> io::Result<(SocketAddr, TlsStream<TcpStream>)> {
    let socket = TcpStream::connect(address).await?;
    let from = socket.local_addr()?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    Ok((from, TlsConnector::from(Arc::new(config(shown)?)).connect(name, socket).await?))
}

/// A channel by which a client shows this certificate, or none.
pub fn channel(address: &str, shown: Option<&Shown>) -> Channel {
    connect(Endpoint::from_static("http://127.0.0.1"), address, shown)
}

/// The same, by which a server can send so many bytes of a stream and no more until they are read.
pub fn narrow(address: &str, shown: Option<&Shown>, window: u32) -> Channel {
    connect(Endpoint::from_static("http://127.0.0.1").initial_stream_window_size(window), address, shown)
}

fn connect(endpoint: Endpoint, address: &str, shown: Option<&Shown>) -> Channel {
    let (address, shown) = (address.to_owned(), shown.cloned());
    let connector = service_fn(move |_: Uri| {
        let (address, shown) = (address.clone(), shown.clone());
        async move { handshake(&address, shown.as_ref()).await.map(|(_, stream)| TokioIo::new(stream)) }
    });
    endpoint.connect_with_connector_lazy(connector)
}

/// Sends bytes as the message of a call and returns the bytes of the answer.
pub async fn call(channel: Channel, path: &str, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    let path = PathAndQuery::try_from(path).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let response = client.unary(Request::new(message), path, Bytes).await?;
    Ok(response.into_inner())
}

/// A codec that is none.
#[derive(Clone, Copy, Debug)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining()).to_vec()))
    }
}
