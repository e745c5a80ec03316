//! The client of one member's nodes: deadline → retry within a budget → breaker → in-flight limit → channel.
//!
//! Each member has its own connections, limits and breaker, so that a slow, dead or flooded one holds nobody else up (I7).
//! What a node says in an error is read for its reason alone; its words go no further.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use peer::{
    admission::{Admission, AdmissionLimits},
    dial,
    serve::Standing,
    trace::Trace,
    verifier::Expected,
};
use proto::{
    contract::province::{
        GetNodeRequest, GetNodeResponse, LookupRequest, lookup_response, province_service_client::ProvinceServiceClient,
    },
    identity::PeerId,
    member::Member,
    refusal::{Reason, Refusal},
    statement::LogHead,
    time::UnixTime,
};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Request, Status, transport::Channel};
use tracing::{Instrument as _, Span, debug, debug_span, field::Empty};

use crate::resilience::{CircuitBreaker, Leave, RetryBudget};

/// Bounds on calls to one member.
#[derive(Clone, Copy, Debug)]
pub struct MemberLimits {
    /// How long a lookup may take, retry included.
    pub timeout: Duration,
    /// How long one attempt may take.
    pub attempt_timeout: Duration,
    /// How long connecting and shaking hands may take.
    pub connect_timeout: Duration,
    /// How many lookups may be under way.
    pub max_in_flight: usize,
    /// How many of them for one caller: nobody can take a member from everybody.
    pub max_in_flight_per_caller: usize,
}

impl Default for MemberLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(800),
            attempt_timeout: Duration::from_millis(350),
            connect_timeout: Duration::from_millis(300),
            max_in_flight: 256,
            max_in_flight_per_caller: 64,
        }
    }
}

const LOOKUP: &str = "tongxing.province.v1.ProvinceService/Lookup";
const GET_NODE: &str = "tongxing.province.v1.ProvinceService/GetNode";

/// A statement is at most 1 KiB; the frame around it is small.
const MAX_RESPONSE_BYTES: usize = 4096;

/// What home said.
#[derive(Debug)]
pub(crate) enum HomeAnswer {
    /// A statement, nothing of it checked yet.
    Statement(Vec<u8>),
    /// No code behind this token; where home's change log stood, if home said so in the documented form.
    Unknown(Option<LogHead>),
}

/// Why home said nothing that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HomeFailure {
    /// The breaker is open.
    BreakerOpen,
    /// Too many lookups under way already.
    Busy,
    /// Home refused the lookup for this documented reason.
    Refused(Refusal),
    /// It took too long.
    Timeout,
    /// The connection failed, or the node did.
    Transport,
}

impl HomeFailure {
    /// The word in metrics.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Busy => "busy",
            Self::Refused(_) => "refused",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
        }
    }

    /// Whether another attempt could go better.
    const fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Timeout | Self::Transport => true,
            Self::BreakerOpen | Self::Busy | Self::Refused(_) => false,
        }
    }
}

/// The span of a call to a node.
macro_rules! client_span {
    ($name:literal, $method:expr, $member:expr) => {
        debug_span!(
            $name,
            member = %$member,
            outcome = Empty,
            otel.kind = "client",
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = $method,
        )
    };
}

/// Which of a member's nodes were asked one question.
#[derive(Debug, Default)]
pub(crate) struct Asked(Vec<usize>);

/// One member's nodes.
#[derive(Debug)]
pub(crate) struct MemberClient {
    member: Member,
    endpoints: Vec<Endpoint>,
    next: AtomicUsize,
    in_flight: Admission,
    retries: RetryBudget,
    limits: MemberLimits,
    known: Mutex<Option<LogHead>>,
}

#[derive(Debug)]
struct Endpoint {
    channel: Channel,
    shown: dial::Shown,
    breaker: CircuitBreaker,
}

impl MemberClient {
    /// Connects when first used.
    pub(crate) fn new(
        member: Member,
        addresses: &[String],
        standing: &Standing,
        limits: MemberLimits,
    ) -> Result<Self, tonic::transport::Error> {
        let expected = Expected::NodeOf(member);
        let endpoints = addresses.iter().map(|address| {
            let dialling = dial::DialLimits { connect_timeout: limits.connect_timeout, ..dial::DialLimits::default() };
            let shown = dial::Shown::default();
            let channel = dial::watched_channel(standing, address, expected, dialling, shown.clone())?;
            Ok(Endpoint { channel, shown, breaker: CircuitBreaker::default() })
        });
        Ok(Self {
            member,
            endpoints: endpoints.collect::<Result<_, tonic::transport::Error>>()?,
            next: AtomicUsize::new(0),
            in_flight: Admission::new(AdmissionLimits {
                max_in_flight: limits.max_in_flight,
                max_in_flight_per_caller: limits.max_in_flight_per_caller,
            }),
            known: Mutex::default(),
            retries: RetryBudget::new(),
            limits,
        })
    }

    /// How many nodes it has.
    pub(crate) fn nodes(&self) -> usize {
        self.endpoints.len()
    }

    /// How long a lookup may take, retry included.
    pub(crate) fn timeout(&self) -> Duration {
        self.limits.timeout
    }

    /// Asks home for a caller, at the latest until `deadline`, and names the trace to it. Nodes that were asked already are
    /// asked again only when there is no other.
    pub(crate) async fn lookup(
        &self,
        caller: &PeerId,
        trace: &Trace,
        request: LookupRequest,
        deadline: Instant,
        asked: &mut Asked,
    ) -> Result<HomeAnswer, HomeFailure> {
        let span = client_span!("lookup", LOOKUP, self.member);
        let answer = self.try_lookup(caller, trace, request, deadline, asked).instrument(span.clone()).await;
        match &answer {
            Ok(HomeAnswer::Statement(_)) => span.record("outcome", "statement"),
            Ok(HomeAnswer::Unknown(_)) => span.record("outcome", "unknown_traveler"),
            Err(failure) => span.record("outcome", failure.word()).record("otel.status_code", "ERROR"),
        };
        answer
    }

    async fn try_lookup(
        &self,
        caller: &PeerId,
        trace: &Trace,
        request: LookupRequest,
        deadline: Instant,
        asked: &mut Asked,
    ) -> Result<HomeAnswer, HomeFailure> {
        let deadline = deadline.min(Instant::now() + self.limits.timeout);
        let _place = self.in_flight.admit(caller).map_err(|_| HomeFailure::Busy)?;
        self.retries.earn();
        let first = self.attempt(request.clone(), trace, deadline, asked).await;
        match first {
            Err(failure) if failure.is_worth_a_retry() && Instant::now() < deadline && self.retries.spend() => {
                debug!(?failure, "retrying");
                self.attempt(request, trace, deadline, asked).await
            }
            settled => settled,
        }
    }

    /// Asks one of its nodes about itself. That it answers closes its breaker; that it does not says nothing of lookups.
    pub(crate) async fn describe(&self, within: Duration) -> Result<GetNodeResponse, HomeFailure> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let endpoint = self.endpoints.get(start % self.endpoints.len().max(1)).ok_or(HomeFailure::Transport)?;
        let mut client =
            ProvinceServiceClient::new(endpoint.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let span = client_span!("describe", GET_NODE, self.member);
        let mut request = Request::new(GetNodeRequest {});
        Trace::of_span(&span, None).send(&span, request.metadata_mut());
        match timeout(within, client.get_node(request)).instrument(span).await {
            Err(_) => Err(HomeFailure::Timeout),
            Ok(Err(status)) => Err(failure_of(&status)),
            Ok(Ok(response)) => {
                endpoint.breaker.succeeded();
                Ok(response.into_inner())
            }
        }
    }

    /// One attempt, at the next endpoint whose breaker lets it.
    async fn attempt(
        &self,
        request: LookupRequest,
        trace: &Trace,
        deadline: Instant,
        asked: &mut Asked,
    ) -> Result<HomeAnswer, HomeFailure> {
        let (endpoint, leave) = self.pick(asked).ok_or(HomeFailure::BreakerOpen)?;
        let full_deadline = Instant::now() + self.limits.attempt_timeout;
        let attempt_deadline = deadline.min(full_deadline);
        let mut client =
            ProvinceServiceClient::new(endpoint.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let mut request = Request::new(request);
        trace.send(&Span::current(), request.metadata_mut());
        let answer = match timeout_at(attempt_deadline, client.lookup(request)).await {
            Err(_) => Err(HomeFailure::Timeout),
            Ok(Err(status)) => Err(failure_of(&status)),
            Ok(Ok(response)) => match response.into_inner().result {
                Some(lookup_response::Result::Statement(statement)) => Ok(HomeAnswer::Statement(statement)),
                Some(lookup_response::Result::UnknownTraveler(unknown)) => {
                    let head = LogHead::from_change_token(&unknown.change_token);
                    Ok(HomeAnswer::Unknown(head.filter(|(of, _)| *of == self.member).map(|(_, head)| head)))
                }
                None => Err(HomeFailure::Transport),
            },
        };
        match answer {
            // A caller in a hurry says nothing about the node.
            Err(HomeFailure::Timeout) if attempt_deadline < full_deadline => {}
            Err(HomeFailure::Timeout | HomeFailure::Transport) => endpoint.breaker.failed(leave, Instant::now()),
            Ok(_) | Err(_) => endpoint.breaker.succeeded(),
        }
        answer
    }

    /// When the first of the certificates ends that its nodes showed, once one did.
    pub(crate) fn certificate_expires_at(&self) -> Option<UnixTime> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.shown.expires_at()).min()
    }

    /// Where home's change log was last seen.
    pub(crate) fn known_head(&self) -> Option<LogHead> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of where home's change log stands. Within an epoch it only moves forward.
    pub(crate) fn note_head(&self, head: LogHead) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|known| known.epoch != head.epoch || known.seq < head.seq) {
            *known = Some(head);
        }
    }

    /// One of its nodes has shown by other means that it is there.
    pub(crate) fn note_seen(&self, node: usize) {
        if let Some(endpoint) = self.endpoints.get(node) {
            endpoint.breaker.seen(Instant::now());
        }
    }

    /// Forgets it: all its nodes say that it never stood there.
    pub(crate) fn forget_head(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn pick(&self, asked: &mut Asked) -> Option<(&Endpoint, Leave)> {
        let (now, start) = (Instant::now(), self.next.fetch_add(1, Ordering::Relaxed));
        let in_turn = (0..self.endpoints.len()).map(|i| (start + i) % self.endpoints.len());
        let (again, first): (Vec<_>, Vec<_>) = in_turn.partition(|index| asked.0.contains(index));
        first.into_iter().chain(again).find_map(|index| {
            let endpoint = &self.endpoints[index];
            let leave = endpoint.breaker.leave(now)?;
            asked.0.push(index);
            Some((endpoint, leave))
        })
    }
}

/// A black-holed connection shows as Cancelled, then Unavailable or Unknown; whatever has no documented reason of ours is
/// a failure of the way there, and so is a node that is overloaded or has lost its store.
fn failure_of(status: &Status) -> HomeFailure {
    let Some(refusal) = Refusal::from_home(status) else { return HomeFailure::Transport };
    match refusal.reason() {
        Reason::Overloaded | Reason::StoreUnavailable | Reason::TrustExpired | Reason::Internal => {
            HomeFailure::Transport
        }
        Reason::DeadlineExceeded => HomeFailure::Timeout,
        _ => HomeFailure::Refused(refusal),
    }
}
