//! Whoever tells of trust lists and policies, and whoever is told: a node with files of its own, which nobody renews, and a
//! gateway that hands on whatever a test gives it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use peer::{
    accept::{AcceptLimits, accept},
    dial::{self, DialLimits},
    serve::Listeners,
    surroundings::Surroundings,
    verifier::Expected,
};
use proto::{
    contract::{
        federation::{
            GetInclusionProofRequest, GetInclusionProofResponse, GetPolicyRequest, GetPolicyResponse,
            GetTrustListRequest, GetTrustListResponse, ListMembersRequest, ListMembersResponse, WatchMembersRequest,
            WatchMembersResponse, WatchPolicyRequest, WatchPolicyResponse, WatchTrustListRequest,
            WatchTrustListResponse,
            federation_service_server::{FederationService, FederationServiceServer},
        },
        province::{GetNodeRequest, province_service_client::ProvinceServiceClient},
    },
    member::Member,
};
use province_stub::{
    config::Config,
    server::{Node, NodeError},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tongxing::phone::Backend;
use tonic::{Request, Response, Status, transport::Server};

use super::{PEOPLE, Sandbox};

/// Copies the federation's trust list and policy of now: the first edition, and nobody renews it.
pub(crate) fn first_editions(sandbox: &Sandbox, dir: &Path) -> (PathBuf, PathBuf) {
    let (list, policy) = (dir.join("trust-list.cose"), dir.join("policy.cose"));
    fs::copy(sandbox.layout().trust_list(), &list).expect("the trust list copies");
    fs::copy(sandbox.layout().policy(), &policy).expect("the policy copies");
    (list, policy)
}

/// A node of a member beside the federation's own, with the same certificate and keys, and a store and files of its own.
pub(crate) struct OwnNode {
    pub(crate) address: String,
    member: Member,
    shutdown: CancellationToken,
    served: JoinHandle<Result<(), NodeError>>,
}

impl OwnNode {
    /// Starts one in a directory, which has its files, to follow these gateways.
    pub(crate) async fn start(sandbox: &Sandbox, member: Member, dir: &Path, gateways: &[&str]) -> Self {
        let mut config = Config::read(&sandbox.layout().node(member).join("node.toml")).expect("it reads");
        config.data_dir = dir.join("data");
        config.trust.held = Some(config.data_dir.join("held"));
        (config.trust.list, config.trust.policy) = (dir.join("trust-list.cose"), dir.join("policy.cose"));
        config.trust.gateways = gateways.iter().map(|address| (*address).to_owned()).collect();
        let node = Node::open(config, Surroundings::by(sandbox.clock.clone())).await.expect("the node opens");
        node.handle().seed(PEOPLE).await.expect("people are seeded");
        let bind = async || TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let listeners = Listeners::new(bind().await, bind().await);
        let address = listeners.public.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(node.serve(listeners, shutdown.clone()));
        Self { address, member, shutdown, served }
    }

    /// The versions of the trust list and the policy that it holds, as a gateway is told.
    pub(crate) async fn versions(&self, sandbox: &Sandbox) -> (u64, u64) {
        let standing = sandbox.desk.standing(&sandbox.layout().gateway(1)).expect("the gateway has credentials");
        let limits = DialLimits { connect_timeout: Duration::from_secs(5), ..DialLimits::default() };
        let channel = dial::channel(&standing, &self.address, Expected::NodeOf(self.member), limits).unwrap();
        let node = ProvinceServiceClient::new(channel).get_node(GetNodeRequest {}).await;
        let node = node.expect("the node says how it is").into_inner();
        (node.trust_list_version, node.policy_version)
    }

    /// The member's backend at this node.
    pub(crate) fn backend(&self, sandbox: &Sandbox) -> Backend {
        let standing = sandbox.desk.standing(&sandbox.layout().backend(self.member)).expect("it has credentials");
        Backend::new(&standing, self.member, &self.address).expect("an address")
    }

    /// Stops it. What it kept stays.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        let ended = timeout(Duration::from_secs(5), self.served).await.expect("it stops in time");
        ended.expect("it does not panic").expect("it ends well");
    }
}

/// A gateway that hands on what it is given to whoever watches, whatever they hold; serves until it is dropped.
pub(crate) struct Herald {
    pub(crate) address: String,
    told: Arc<Told>,
    _serving: DropGuard,
}

struct Told {
    list: watch::Sender<Option<Vec<u8>>>,
    policy: watch::Sender<Option<Vec<u8>>>,
}

impl Herald {
    /// Starts one, with the gateway's own certificate.
    pub(crate) async fn start(sandbox: &Sandbox) -> Self {
        let standing = sandbox.desk.standing(&sandbox.layout().gateway(1)).expect("the gateway has credentials");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let limits = AcceptLimits::default();
        let incoming =
            accept(Box::new(listener), standing.trust, standing.credentials, limits, shutdown.clone()).expect("TLS");
        let (list, policy) = (watch::channel(None).0, watch::channel(None).0);
        let told = Arc::new(Told { list, policy });
        let service = FederationServiceServer::new(Heralded(told.clone()));
        let ended = shutdown.clone().cancelled_owned();
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, ended));
        Self { address, told, _serving: shutdown.drop_guard() }
    }

    /// Hands on this trust list from now on.
    pub(crate) fn tell_list(&self, list: Vec<u8>) {
        self.told.list.send_replace(Some(list));
    }

    /// Hands on this policy from now on.
    pub(crate) fn tell_policy(&self, policy: Vec<u8>) {
        self.told.policy.send_replace(Some(policy));
    }
}

struct Heralded(Arc<Told>);

type Watch<T> = ReceiverStream<Result<T, Status>>;

/// Sends what there is, now and after every change.
fn watching<T: Send + 'static>(
    mut told: watch::Receiver<Option<Vec<u8>>>,
    message: impl Fn(Vec<u8>) -> T + Send + 'static,
) -> Response<Watch<T>> {
    let (messages, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let document = told.borrow_and_update().clone();
            if let Some(document) = document
                && messages.send(Ok(message(document))).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = messages.closed() => return,
                changed = told.changed() => if changed.is_err() { return },
            }
        }
    });
    Response::new(ReceiverStream::new(stream))
}

fn nothing_else<T>() -> Result<T, Status> {
    Err(Status::unimplemented("a herald says nothing else"))
}

#[tonic::async_trait]
impl FederationService for Heralded {
    type WatchTrustListStream = Watch<WatchTrustListResponse>;
    type WatchPolicyStream = Watch<WatchPolicyResponse>;
    type WatchMembersStream = Watch<WatchMembersResponse>;

    async fn watch_trust_list(
        &self,
        _request: Request<WatchTrustListRequest>,
    ) -> Result<Response<Self::WatchTrustListStream>, Status> {
        Ok(watching(self.0.list.subscribe(), |trust_list| WatchTrustListResponse { trust_list, version: u64::MAX }))
    }

    async fn watch_policy(
        &self,
        _request: Request<WatchPolicyRequest>,
    ) -> Result<Response<Self::WatchPolicyStream>, Status> {
        Ok(watching(self.0.policy.subscribe(), |policy| WatchPolicyResponse { policy, version: u64::MAX }))
    }

    async fn get_trust_list(
        &self,
        _request: Request<GetTrustListRequest>,
    ) -> Result<Response<GetTrustListResponse>, Status> {
        nothing_else()
    }

    async fn get_policy(&self, _request: Request<GetPolicyRequest>) -> Result<Response<GetPolicyResponse>, Status> {
        nothing_else()
    }

    async fn get_inclusion_proof(
        &self,
        _request: Request<GetInclusionProofRequest>,
    ) -> Result<Response<GetInclusionProofResponse>, Status> {
        nothing_else()
    }

    async fn list_members(
        &self,
        _request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        nothing_else()
    }

    async fn watch_members(
        &self,
        _request: Request<WatchMembersRequest>,
    ) -> Result<Response<Self::WatchMembersStream>, Status> {
        nothing_else()
    }
}
