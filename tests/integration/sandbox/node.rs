//! A node that answers as a test says, behind real mutual TLS: hung, lying, or with somebody else's certificate. And an
//! address behind which nobody answers at all.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

use peer::accept::{AcceptLimits, accept};
use proto::contract::province::{
    GetNodeRequest, GetNodeResponse, LookupRequest, LookupResponse, UnknownTraveler, WatchChangesRequest,
    WatchChangesResponse, lookup_response,
    province_service_server::{ProvinceService, ProvinceServiceServer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap, service::Routes, transport::Server};

use super::Sandbox;

/// What a node says to a lookup; `None` is nothing, until it says something else.
type Script = dyn Fn(LookupRequest) -> Option<Result<LookupResponse, Status>> + Send + Sync;

/// Serves until it is dropped.
pub(crate) struct FakeNode {
    pub(crate) address: String,
    script: watch::Sender<Arc<Script>>,
    heard: Arc<Mutex<Vec<MetadataMap>>>,
    _serving: DropGuard,
}

impl FakeNode {
    /// Says something else from now on, to those whom it has left waiting too.
    pub(crate) fn says(
        &self,
        script: impl Fn(LookupRequest) -> Option<Result<LookupResponse, Status>> + Send + Sync + 'static,
    ) {
        self.script.send_replace(Arc::new(script));
    }

    /// The metadata of all lookups so far.
    pub(crate) fn heard(&self) -> Vec<MetadataMap> {
        self.heard.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct Scripted {
    script: watch::Sender<Arc<Script>>,
    heard: Arc<Mutex<Vec<MetadataMap>>>,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scripted node")
    }
}

#[tonic::async_trait]
impl ProvinceService for Scripted {
    type WatchChangesStream = tokio_stream::Empty<Result<WatchChangesResponse, Status>>;

    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        self.heard.lock().unwrap().push(request.metadata().clone());
        let (mut script, request) = (self.script.subscribe(), request.into_inner());
        loop {
            let says = script.borrow_and_update().clone();
            if let Some(answer) = says(request.clone()) {
                return answer.map(Response::new);
            }
            script.changed().await.expect("the sender is this node's");
        }
    }

    async fn get_node(&self, _request: Request<GetNodeRequest>) -> Result<Response<GetNodeResponse>, Status> {
        Ok(Response::new(GetNodeResponse { software: "scripted/1".into(), ..GetNodeResponse::default() }))
    }

    /// A node without a stream: nothing it says is held.
    async fn watch_changes(
        &self,
        _request: Request<Streaming<WatchChangesRequest>>,
    ) -> Result<Response<Self::WatchChangesStream>, Status> {
        Err(Status::unimplemented("no change stream here"))
    }
}

/// Starts a node with the credentials in a directory.
pub(crate) async fn fake(
    sandbox: &Sandbox,
    credentials: &Path,
    script: impl Fn(LookupRequest) -> Option<Result<LookupResponse, Status>> + Send + Sync + 'static,
) -> FakeNode {
    let script = watch::Sender::new(Arc::new(script) as Arc<Script>);
    let heard = Arc::default();
    let scripted = Scripted { script: script.clone(), heard: Arc::clone(&heard) };
    let routes = Routes::new(ProvinceServiceServer::new(scripted));
    let (address, serving) = serve(sandbox, credentials, routes).await;
    FakeNode { address, script, heard, _serving: serving }
}

/// Serves these services behind mutual TLS with the credentials in a directory, until the guard is dropped.
pub(crate) async fn serve(sandbox: &Sandbox, credentials: &Path, routes: Routes) -> (String, DropGuard) {
    let standing = sandbox.desk.standing(credentials).expect("the node has credentials");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().unwrap().to_string();
    let shutdown = CancellationToken::new();
    let limits = AcceptLimits::default();
    let incoming =
        accept(Box::new(listener), standing.trust, standing.credentials, limits, shutdown.clone()).expect("TLS");
    let ended = shutdown.clone().cancelled_owned();
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, ended));
    (address, shutdown.drop_guard())
}

/// A statement as an answer.
pub(crate) fn stated(statement: Vec<u8>) -> Option<Result<LookupResponse, Status>> {
    Some(Ok(LookupResponse { result: Some(lookup_response::Result::Statement(statement)) }))
}

/// The answer that there is no code.
pub(crate) fn unknown() -> Option<Result<LookupResponse, Status>> {
    let unknown = UnknownTraveler { change_token: vec![1] };
    Some(Ok(LookupResponse { result: Some(lookup_response::Result::UnknownTraveler(unknown)) }))
}

/// An address where connections are accepted and nothing is ever said.
pub(crate) struct BlackHole {
    pub(crate) address: String,
    _accepting: DropGuard,
}

/// Opens a black hole.
pub(crate) async fn black_hole() -> BlackHole {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().unwrap().to_string();
    let shutdown = CancellationToken::new();
    let ended = shutdown.clone();
    tokio::spawn(async move {
        let mut open: Vec<TcpStream> = Vec::new();
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                accepted = listener.accept() => open.extend(accepted.map(|(socket, _)| socket)),
            }
        }
    });
    BlackHole { address, _accepting: shutdown.drop_guard() }
}
