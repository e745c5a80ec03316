//! A federation of one node and whoever calls it, in a temporary directory: CAs, certificates, signed documents, secrets.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use peer::{
    accept::AcceptLimits,
    admission::AdmissionLimits,
    credentials::{CredentialFiles, Credentials},
    dial::{DialLimits, channel},
    limits::ServerLimits,
    network::Tcp,
    serve::{Listeners, Standing},
    surroundings::Surroundings,
    trust::{TrustFiles, TrustStore},
    verifier::Expected,
};
use proto::{
    envelope::{Edition, MAX_LIFE, Roots},
    identity::{FederationDomain, PeerId, Realm},
    member::Member,
    policy::{EvidenceKind, NATIONAL, Policy},
    suite::{SigningKey, Suite},
    time::{Clock, SystemClock},
    trust::{GatewayTrust, MemberTrust, TrustList, keys},
};
use province_stub::{
    config::Config,
    intake::{FeedRights, Feeds},
    keys::{KeyFiles, KeySource, SealingKey},
    server::{Handle, Node, NodeError},
    watch::WatchLimits,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// A federation on disk.
pub(crate) struct Federation {
    pub(crate) dir: TempDir,
    pub(crate) domain: FederationDomain,
    pub(crate) list: TrustList,
    /// The key of a gateway replica's logs.
    pub(crate) log_key: SigningKey,
    root: SigningKey,
    authorities: Vec<(Realm, Issuer<'static, KeyPair>)>,
}

/// A node that serves.
pub(crate) struct Running {
    pub(crate) address: String,
    pub(crate) private: String,
    pub(crate) handle: Handle,
    shutdown: CancellationToken,
    served: JoinHandle<Result<(), NodeError>>,
}

/// Henan, whose node is under test.
pub(crate) fn home() -> Member {
    "41".parse().unwrap()
}

/// Guangdong, a neighbour.
pub(crate) fn neighbour() -> Member {
    "44".parse().unwrap()
}

impl Federation {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = SigningKey::generate(Suite::Ed25519);
        let log_key = SigningKey::generate(Suite::Ed25519);
        let realms = [Realm::Gateway, Realm::Member(home()), Realm::Member(neighbour())];
        let (authorities, bundles): (Vec<_>, Vec<_>) = realms
            .map(|realm| {
                let (issuer, der) = authority();
                ((realm, issuer), vec![der])
            })
            .into_iter()
            .unzip();
        let [gateway, own, other] = bundles.try_into().unwrap();
        let key = |name: &str| {
            let key = SigningKey::generate(Suite::Ed25519);
            write(&dir.path().join(name), 0o600, &key.to_pkcs8());
            keys([key.verifying_key().clone()])
        };
        let member = |bundle, name: &str| MemberTrust {
            bundle,
            endpoints: vec!["127.0.0.1:7500".into()],
            consent_keys: key(&format!("{name}consent.key")),
            statement_keys: key(&format!("{name}statement.key")),
            sealing_key: SealingKey::new([5; 32]).public_key().unwrap(),
            categories: Default::default(),
            suspension: None,
        };
        let members = [(home(), member(own, "")), (neighbour(), member(other, "other-"))].into();
        write(&dir.path().join("secret"), 0o600, &[6; 32]);
        write(&dir.path().join("sealing"), 0o600, &[5; 32]);
        write(&dir.path().join("at-rest.key"), 0o600, &[4; 32]);
        let list = TrustList {
            domain: "tongxing.test".parse().unwrap(),
            roots: Roots::new(1, vec![root.verifying_key().clone()]).unwrap(),
            gateway: GatewayTrust { bundle: gateway, log_keys: keys([log_key.verifying_key().clone()]) },
            members,
        };
        let federation = Self { dir, domain: list.domain.clone(), list, log_key, root, authorities };
        let now = SystemClock.now();
        let edition = Edition { version: 1, issued_at: now, expires_at: now.plus(MAX_LIFE) };
        write(&federation.path("trust"), 0o644, &federation.list.seal(edition, &[&federation.root]));
        write(&federation.path("policy"), 0o644, &Policy::seal(NATIONAL, edition, &[&federation.root]));
        federation
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for a peer, by the CA of its own trust domain.
    pub(crate) fn certify(&self, peer: &PeerId) -> CredentialFiles {
        let (_, issuer) = self.authorities.iter().find(|(realm, _)| *realm == peer.realm()).unwrap();
        let mut params = CertificateParams::default();
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![
            SanType::URI(self.domain.spiffe_id(peer).try_into().unwrap()),
            SanType::IpAddress("127.0.0.1".parse().unwrap()),
        ];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        let name = peer.to_string().replace('/', "-");
        let files = CredentialFiles {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key.pem")),
        };
        write(&files.certificate, 0o644, certificate.pem().as_bytes());
        write(&files.key, 0o600, key.serialize_pem().as_bytes());
        files
    }

    fn trust(&self, held: Option<PathBuf>) -> TrustFiles {
        let (list, policy) = (self.path("trust"), self.path("policy"));
        TrustFiles {
            list,
            policy,
            roots: self.list.roots.clone(),
            domain: self.domain.clone(),
            held,
            crls: None,
            gateways: vec![],
        }
    }

    /// The configuration of the node under test.
    pub(crate) fn config(&self) -> Config {
        let id = PeerId::node(home(), "1").unwrap();
        let data_dir = self.path("data");
        Config {
            member: home(),
            credentials: self.certify(&id),
            id,
            domain: self.domain.clone(),
            listen: "127.0.0.1:0".parse().unwrap(),
            private_listen: "127.0.0.1:0".parse().unwrap(),
            trust: self.trust(Some(data_dir.join("held"))),
            data_dir,
            keys: KeyFiles {
                consent: self.path("consent.key"),
                statement: self.path("statement.key"),
                secret: self.path("secret"),
                sealing: self.path("sealing"),
                at_rest: vec![KeySource::File(self.path("at-rest.key"))],
            },
            postgres: None,
            watch: WatchLimits::default(),
            feeds: feeds(),
            platforms: ["app".to_owned()].into(),
            limits: ServerLimits {
                max_request_bytes: 16 * 1024,
                max_duration: Duration::from_secs(5),
                max_streams_per_connection: 64,
                reload_every: Duration::from_secs(60),
                accept: AcceptLimits::default(),
                admission: AdmissionLimits::default(),
            },
        }
    }

    pub(crate) async fn open(&self, config: Config, clock: Arc<dyn Clock>) -> Result<Node, NodeError> {
        Node::open(config, Surroundings::by(clock)).await
    }

    /// Starts the node under test.
    pub(crate) async fn start(&self) -> Running {
        self.start_by(Arc::new(SystemClock)).await
    }

    /// Starts the node under test by another clock.
    pub(crate) async fn start_by(&self, clock: Arc<dyn Clock>) -> Running {
        self.start_with(self.config(), clock, "127.0.0.1:0").await
    }

    /// Starts the node under test again, where its peers know it to be.
    pub(crate) async fn start_at(&self, address: &str) -> Running {
        self.start_with(self.config(), Arc::new(SystemClock), address).await
    }

    /// Starts the node under test by another configuration.
    pub(crate) async fn start_with(&self, config: Config, clock: Arc<dyn Clock>, address: &str) -> Running {
        let node = self.open(config, clock).await.unwrap();
        let bind = async |address| TcpListener::bind(address).await.unwrap();
        let listeners = Listeners::new(bind(address).await, bind("127.0.0.1:0").await);
        let address = listeners.public.local_addr().unwrap().to_string();
        let private = listeners.private.local_addr().unwrap().to_string();
        let (handle, shutdown) = (node.handle(), CancellationToken::new());
        let served = tokio::spawn(node.serve(listeners, shutdown.clone()));
        Running { address, private, handle, shutdown, served }
    }

    /// A peer's channel to the node under test.
    pub(crate) fn dial(&self, running: &Running, peer: &PeerId) -> Channel {
        self.dial_at(&running.address, peer)
    }

    /// The same, at an address.
    pub(crate) fn dial_at(&self, address: &str, peer: &PeerId) -> Channel {
        let trust = TrustStore::open(self.trust(None), Arc::new(SystemClock)).unwrap();
        let credentials = Credentials::open(self.certify(peer), &self.domain).unwrap();
        let limits = DialLimits { connect_timeout: Duration::from_secs(5), ..DialLimits::default() };
        channel(&Standing { trust, credentials, network: Arc::new(Tcp) }, address, Expected::NodeOf(home()), limits)
            .unwrap()
    }

    /// Has another policy in the place of the one there is: the national one, with another text in one place.
    pub(crate) fn renew_policy(&self, version: u64, from: &str, to: &str) {
        assert!(NATIONAL.contains(from), "the policy does not say {from}");
        let now = SystemClock.now();
        let edition = Edition { version, issued_at: now, expires_at: now.plus(MAX_LIFE) };
        let partial = self.path("policy.partial");
        write(&partial, 0o644, &Policy::seal(&NATIONAL.replacen(from, to, 1), edition, &[&self.root]));
        fs::rename(partial, self.path("policy")).unwrap();
    }
}

impl Running {
    pub(crate) async fn stop(self) -> Result<(), NodeError> {
        self.shutdown.cancel();
        self.served.await.unwrap()
    }
}

fn authority() -> (Issuer<'static, KeyPair>, Vec<u8>) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let der = params.self_signed(&key).unwrap().der().to_vec();
    (Issuer::new(params, key), der)
}

fn write(path: &Path, mode: u32, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A laboratory, which may bring tests and doses, and a centre for disease control, which may bring the rest.
fn feeds() -> Feeds {
    let rights = |evidence: &[EvidenceKind], authorities: &[&str]| FeedRights {
        evidence: evidence.iter().copied().collect(),
        authorities: authorities.iter().map(|kind| (*kind).to_owned()).collect(),
    };
    let rest = [EvidenceKind::Stay, EvidenceKind::Case, EvidenceKind::Contact, EvidenceKind::Listing];
    [
        ("lab-1".to_owned(), rights(&[EvidenceKind::Test, EvidenceKind::Dose], &["health-commission"])),
        ("cdc-1".to_owned(), rights(&rest, &["cdc", "joint-mechanism"])),
    ]
    .into()
}
