//! The federation's public face: its signed documents as they are, and the board of members. Open to every peer.

use std::{fmt::Display, sync::Arc};

use peer::{
    surroundings::Blocking,
    trust::{Trust, TrustStore},
};
use proto::{
    contract::federation::{
        GetInclusionProofRequest, GetInclusionProofResponse, GetPolicyRequest, GetPolicyResponse, GetTrustListRequest,
        GetTrustListResponse, Health, ListMembersRequest, ListMembersResponse, Member as WireMember,
        Suspension as WireSuspension, WatchMembersRequest, WatchMembersResponse, WatchPolicyRequest,
        WatchPolicyResponse, WatchTrustListRequest, WatchTrustListResponse,
        federation_service_server::FederationService,
    },
    identity::Realm,
    log::LogId,
    member::Member,
    refusal::{Reason, Refusal},
    time::UnixTime,
    trust::TrustList,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    board::Board,
    record::{Inclusion, Reader},
};

const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 100;
/// Messages that may wait for a slow watcher; meanwhile newer states take the place of older ones.
const WAITING: usize = 1;

/// Proofs that are made at once: each reads a few pages of the log.
const MAX_PROOFS: usize = 4;

/// Proofs that records are on the logs.
#[derive(Debug)]
pub(crate) struct Proofs {
    logs: Reader,
    blocking: Blocking,
    room: Arc<Semaphore>,
}

impl Proofs {
    pub(crate) fn new(logs: Reader, blocking: Blocking) -> Self {
        Self { logs, blocking, room: Arc::new(Semaphore::new(MAX_PROOFS)) }
    }

    async fn prove(&self, request: &GetInclusionProofRequest) -> Result<Inclusion, Refusal> {
        let log = <[u8; 32]>::try_from(request.log.as_slice()).map_err(|_| Refusal::field("log", "32 bytes"))?;
        let member = request.member.parse().map_err(|error| unknown_member(&request.member, error))?;
        let leaf = <[u8; 32]>::try_from(request.leaf_hash.as_slice());
        let leaf = leaf.map_err(|_| Refusal::field("leaf_hash", "32 bytes"))?;
        let (log, owner, index) = (LogId(log), Realm::Member(member), request.index);
        let place = self.room.clone().try_acquire_owned();
        let place = place.map_err(|_| Refusal::new(Reason::Overloaded).with("limit", "proofs"))?;
        let logs = self.logs.clone();
        let prove = move || {
            // Whoever asked may be gone: the place is taken for as long as the work takes.
            let _place = place;
            logs.prove(log, owner, index, &leaf)
        };
        match self.blocking {
            Blocking::Inline => prove(),
            Blocking::Threads => {
                let proof = tokio::task::spawn_blocking(prove).await;
                proof.unwrap_or_else(|_| Err(Refusal::new(Reason::Internal)))
            }
        }
    }
}

fn unknown_member(code: &str, error: impl Display) -> Refusal {
    let refusal = Refusal::new(Reason::MemberUnknown).violating("member", error);
    let has_form = code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_digit());
    if has_form { refusal.with("member", code) } else { refusal }
}

/// The federation service.
#[derive(Debug)]
pub(crate) struct Federation {
    trust: Arc<TrustStore>,
    board: Arc<Board>,
    proofs: Proofs,
    watchers: Arc<Semaphore>,
    shutdown: CancellationToken,
}

type Watch<T> = ReceiverStream<Result<T, Status>>;

impl Federation {
    /// With room for so many watchers, whose streams end with the gateway.
    pub(crate) fn new(
        trust: Arc<TrustStore>,
        board: Arc<Board>,
        proofs: Proofs,
        max_watchers: usize,
        shutdown: CancellationToken,
    ) -> Self {
        Self { trust, board, proofs, watchers: Arc::new(Semaphore::new(max_watchers)), shutdown }
    }

    fn watcher(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = self.watchers.clone().try_acquire_owned();
        place.map_err(|_| Refusal::new(Reason::Overloaded).with("limit", "watchers"))
    }

    /// Documents that are newer than the one a watcher holds, for as long as it watches.
    fn watch_documents<T: Send + 'static>(
        &self,
        mut held: u64,
        document: impl Fn(&Trust) -> (u64, T) + Send + 'static,
    ) -> Result<Watch<T>, Refusal> {
        let (place, trust) = (self.watcher()?, self.trust.clone());
        Ok(watch(place, trust.subscribe(), self.shutdown.clone(), move || {
            let (version, message) = document(&trust.current());
            let newer = version > held;
            held = held.max(version);
            newer.then_some(message)
        }))
    }
}

/// Sends a message now and after every change, if there is one to send, until the watcher goes away or the gateway stops:
/// a watch ends by nothing else, and the stop would wait for it.
fn watch<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    mut changed: watch::Receiver<u64>,
    shutdown: CancellationToken,
    mut message: impl FnMut() -> Option<T> + Send + 'static,
) -> Watch<T> {
    let (messages, stream) = mpsc::channel(WAITING);
    let watching = async move {
        let _place = place;
        loop {
            changed.mark_unchanged();
            if let Some(message) = message()
                && messages.send(Ok(message)).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = messages.closed() => return,
                change = changed.changed() => if change.is_err() { return },
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = watching => {}
        }
    });
    ReceiverStream::new(stream)
}

#[tonic::async_trait]
impl FederationService for Federation {
    type WatchTrustListStream = Watch<WatchTrustListResponse>;
    type WatchPolicyStream = Watch<WatchPolicyResponse>;
    type WatchMembersStream = Watch<WatchMembersResponse>;

    async fn get_inclusion_proof(
        &self,
        request: Request<GetInclusionProofRequest>,
    ) -> Result<Response<GetInclusionProofResponse>, Status> {
        let Inclusion { path, checkpoint } = self.proofs.prove(request.get_ref()).await?;
        let path = path.iter().map(|hash| hash.to_vec()).collect();
        Ok(Response::new(GetInclusionProofResponse { path, checkpoint }))
    }

    async fn get_trust_list(
        &self,
        _request: Request<GetTrustListRequest>,
    ) -> Result<Response<GetTrustListResponse>, Status> {
        let trust = self.trust.current();
        Ok(Response::new(GetTrustListResponse {
            trust_list: trust.list_bytes().to_vec(),
            version: trust.list_edition.version,
            expire_time: Some(trust.list_edition.expires_at.to_protobuf()),
        }))
    }

    async fn watch_trust_list(
        &self,
        request: Request<WatchTrustListRequest>,
    ) -> Result<Response<Self::WatchTrustListStream>, Status> {
        let watch = self.watch_documents(request.into_inner().held_version, |trust| {
            let version = trust.list_edition.version;
            (version, WatchTrustListResponse { trust_list: trust.list_bytes().to_vec(), version })
        })?;
        Ok(Response::new(watch))
    }

    async fn get_policy(&self, _request: Request<GetPolicyRequest>) -> Result<Response<GetPolicyResponse>, Status> {
        let trust = self.trust.current();
        Ok(Response::new(GetPolicyResponse {
            policy: trust.policy_bytes().to_vec(),
            version: trust.policy_edition.version,
            expire_time: Some(trust.policy_edition.expires_at.to_protobuf()),
        }))
    }

    async fn watch_policy(
        &self,
        request: Request<WatchPolicyRequest>,
    ) -> Result<Response<Self::WatchPolicyStream>, Status> {
        let watch = self.watch_documents(request.into_inner().held_version, |trust| {
            let version = trust.policy_edition.version;
            (version, WatchPolicyResponse { policy: trust.policy_bytes().to_vec(), version })
        })?;
        Ok(Response::new(watch))
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        Ok(Response::new(list_members(
            &self.trust.current(),
            &self.board,
            self.trust.clock().now(),
            &request.into_inner(),
        )?))
    }

    async fn watch_members(
        &self,
        _request: Request<WatchMembersRequest>,
    ) -> Result<Response<Self::WatchMembersStream>, Status> {
        let (place, store, board) = (self.watcher()?, self.trust.clone(), self.board.clone());
        let changed = board.subscribe();
        Ok(Response::new(watch(place, changed, self.shutdown.clone(), move || {
            let trust = store.current();
            let now = store.clock().now();
            let members = trust.list.members.keys().map(|member| describe(*member, &trust.list, &board, now)).collect();
            Some(WatchMembersResponse { members })
        })))
    }
}

fn list_members(
    trust: &Trust,
    board: &Board,
    now: UnixTime,
    request: &ListMembersRequest,
) -> Result<ListMembersResponse, Refusal> {
    let size = match usize::try_from(request.page_size) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) if size <= MAX_PAGE => size,
        _ => return Err(Refusal::field("page_size", "0 to 100")),
    };
    let after: Option<Member> = match request.page_token.as_str() {
        "" => None,
        token => Some(token.parse().map_err(|_| Refusal::field("page_token", "one that was given out"))?),
    };
    let mut rest = trust.list.members.keys().copied().filter(|member| after.is_none_or(|after| *member > after));
    let page: Vec<Member> = rest.by_ref().take(size).collect();
    let more = rest.next().is_some();
    Ok(ListMembersResponse {
        next_page_token: page.last().filter(|_| more).map(Member::to_string).unwrap_or_default(),
        members: page.into_iter().map(|member| describe(member, &trust.list, board, now)).collect(),
    })
}

fn describe(member: Member, list: &TrustList, board: &Board, now: UnixTime) -> WireMember {
    let (profile, notice) = (member.profile(), board.notice(member));
    let health = match notice.serving {
        None => Health::Unspecified,
        Some(true) => Health::Serving,
        Some(false) => Health::Unreachable,
    };
    WireMember {
        code: member.to_string(),
        name_en: profile.name_en.to_owned(),
        name_zh: profile.name_zh.to_owned(),
        health_code_zh: profile.health_code_zh.to_owned(),
        health: health.into(),
        last_answer_time: notice.last_answer.map(UnixTime::to_protobuf),
        software: notice.software,
        trust_list_version: notice.trust_list_version,
        policy_version: notice.policy_version,
        clock_offset_seconds: notice.clock_offset,
        suspension: list.suspension(Realm::Member(member), now).map(|out| WireSuspension {
            reason: out.reason().to_owned(),
            start_time: Some(out.begins_at().to_protobuf()),
            end_time: Some(out.ends_at().to_protobuf()),
        }),
    }
}
