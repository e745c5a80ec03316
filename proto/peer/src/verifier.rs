//! A peer's certificate: its one SPIFFE id picks the trust domain whose CAs may vouch for it, and nobody else's may.
//!
//! Upholds I7: province 44's CA cannot vouch for province 51, nor for the gateway, whatever its certificates say. URI name
//! constraints would not do this (webpki refuses them); choosing the bundle by the id before path building does.

use std::{collections::HashMap, fmt, sync::Arc};

use proto::{
    identity::{FederationDomain, IdentityError, PeerId, Realm, Role},
    trust::{Suspension, TrustList},
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error as ThisError;
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use crate::revocation::Revocations;

/// Why a certificate shows nobody of this federation, or nobody that was expected.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum PeerRefused {
    /// Not an X.509 certificate.
    #[error("not a certificate")]
    Certificate,
    /// It has no URI name, or several: identity is exactly one.
    #[error("the certificate has {0} URI names instead of one")]
    Names(usize),
    /// Its URI name is not a peer's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The trust list has no CA for its trust domain.
    #[error("{0} is of a trust domain that the trust list does not have")]
    Stranger(PeerId),
    /// Its member is out for a while.
    #[error("{0}: the member is suspended until {1}")]
    Suspended(PeerId, proto::time::UnixTime),
    /// Its CA has taken it back.
    #[error("{0}: the certificate is revoked")]
    Revoked(PeerId),
    /// Its chain does not verify against its own trust domain's bundle.
    #[error("{0}: {1}")]
    Chain(PeerId, String),
    /// A server is somebody else than was dialled.
    #[error("{0} answered instead of {1}")]
    Unexpected(PeerId, Expected),
}

/// Whom a dialled address must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A replica of the gateway.
    Gateway,
    /// A node of this member.
    NodeOf(proto::member::Member),
}

impl Expected {
    fn realm(self) -> Realm {
        match self {
            Self::Gateway => Realm::Gateway,
            Self::NodeOf(member) => Realm::Member(member),
        }
    }

    fn is(self, peer: &PeerId) -> bool {
        peer.realm() == self.realm() && matches!(peer.role(), Role::Gateway(_) | Role::Node(_))
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("the gateway"),
            Self::NodeOf(member) => write!(f, "the node of {member}"),
        }
    }
}

/// Who a certificate says its holder is. Says nothing of whether to believe it.
pub fn identify(leaf: &CertificateDer<'_>, domain: &FederationDomain) -> Result<PeerId, PeerRefused> {
    let (_, certificate) =
        x509_parser::certificate::X509Certificate::from_der(leaf).map_err(|_| PeerRefused::Certificate)?;
    let names = certificate.subject_alternative_name().map_err(|_| PeerRefused::Certificate)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris.as_slice() {
        [uri] => Ok(domain.parse_spiffe_id(uri)?),
        others => Err(PeerRefused::Names(others.len())),
    }
}

/// Verifies clients: any peer of the federation, each by its own trust domain's bundle.
pub struct ClientVerifier {
    domain: FederationDomain,
    by_realm: HashMap<Realm, Arc<dyn ClientCertVerifier>>,
    suspensions: Suspensions,
    revocations: Revocations,
    provider: Arc<CryptoProvider>,
}

impl ClientVerifier {
    /// A verifier for one edition of the trust list, and what CAs have taken back.
    pub fn new(list: &TrustList, revocations: &Revocations, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let realms = list.members.keys().map(|member| Realm::Member(*member)).chain([Realm::Gateway]);
        let by_realm = realms
            .map(|realm| {
                let roots = Arc::new(root_store(list, realm)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                    .build()
                    .map_err(|error| Error::General(error.to_string()))?;
                Ok((realm, verifier))
            })
            .collect::<Result<_, Error>>()?;
        let (suspensions, revocations) = (Suspensions::of(list), revocations.clone());
        Ok(Self { domain: list.domain.clone(), by_realm, suspensions, revocations, provider })
    }

    /// Verifies a client's chain and says who it is.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerId, PeerRefused> {
        let peer = identify(leaf, &self.domain)?;
        let Some(verifier) = self.by_realm.get(&peer.realm()) else {
            return Err(PeerRefused::Stranger(peer));
        };
        let peer = self.suspensions.check(peer, now)?;
        match verifier.verify_client_cert(leaf, intermediates, now) {
            Ok(_) => check_revocation(peer, leaf, &self.revocations),
            Err(error) => Err(PeerRefused::Chain(peer, error.to_string())),
        }
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientVerifier of {} trust domains", self.by_realm.len())
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A list of all CAs would be long and say nothing: clients have one certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now).map(|_| ClientCertVerified::assertion()).map_err(refused)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies one server: by its own trust domain's bundle, by the address dialled, and that it is whom we meant.
#[derive(Debug)]
pub struct ServerVerifier {
    domain: FederationDomain,
    expected: Expected,
    suspensions: Suspensions,
    revocations: Revocations,
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerVerifier {
    /// A verifier for one edition of the trust list, and what CAs have taken back.
    pub fn new(
        list: &TrustList,
        revocations: &Revocations,
        expected: Expected,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let roots = Arc::new(root_store(list, expected.realm())?);
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let (suspensions, revocations) = (Suspensions::of(list), revocations.clone());
        Ok(Self { domain: list.domain.clone(), expected, suspensions, revocations, inner })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let peer = identify(end_entity, &self.domain).map_err(refused)?;
        if !self.expected.is(&peer) {
            return Err(refused(PeerRefused::Unexpected(peer, self.expected)));
        }
        let peer = self.suspensions.check(peer, now).map_err(refused)?;
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| refused(PeerRefused::Chain(peer.clone(), error.to_string())))?;
        check_revocation(peer, end_entity, &self.revocations).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Who is out for a while: they end by time alone, so each handshake looks at its own.
#[derive(Debug)]
struct Suspensions(HashMap<Realm, Suspension>);

impl Suspensions {
    fn of(list: &TrustList) -> Self {
        let members = list.members.iter();
        Self(members.filter_map(|(member, trust)| Some((Realm::Member(*member), trust.suspension.clone()?))).collect())
    }

    fn check(&self, peer: PeerId, now: UnixTime) -> Result<PeerId, PeerRefused> {
        let now = proto::time::UnixTime::from_secs(now.as_secs());
        match self.0.get(&peer.realm()).filter(|out| out.holds(now)) {
            Some(out) => Err(PeerRefused::Suspended(peer, out.ends_at())),
            None => Ok(peer),
        }
    }
}

/// A leaf whose chain holds may still have been taken back by the CA that signed it.
fn check_revocation(peer: PeerId, leaf: &CertificateDer<'_>, revocations: &Revocations) -> Result<PeerId, PeerRefused> {
    let Some(crl) = revocations.of(peer.realm()).filter(|crl| !crl.is_empty()) else { return Ok(peer) };
    let (_, certificate) =
        x509_parser::certificate::X509Certificate::from_der(leaf).map_err(|_| PeerRefused::Certificate)?;
    if crl.has(certificate.raw_serial()) { Err(PeerRefused::Revoked(peer)) } else { Ok(peer) }
}

fn root_store(list: &TrustList, realm: Realm) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for der in list.bundle(realm) {
        roots.add(CertificateDer::from(der.clone()))?;
    }
    Ok(roots)
}

fn refused(why: PeerRefused) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}
