//! The client of one member's nodes: deadline → retry within a budget → breaker → in-flight limit → channel.
//!
//! Each member has its own connections, limits and breaker, so that a slow, dead or flooded one holds nobody else up (I7).
//! What a node says in an error is read for its reason alone; its words go no further.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use peer::{dial, serve::Standing, verifier::Expected};
use proto::{
    contract::province::{LookupRequest, lookup_response, province_service_client::ProvinceServiceClient},
    member::Member,
    refusal::{Reason, Refusal},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tonic::{Status, transport::Channel};
use tracing::debug;

use crate::resilience::{CircuitBreaker, RetryBudget};

/// Bounds on calls to one member.
#[derive(Clone, Copy, Debug)]
pub struct MemberLimits {
    /// How long a lookup may take, retry included.
    pub timeout: Duration,
    /// How long one attempt may take.
    pub attempt_timeout: Duration,
    /// How many lookups may be under way.
    pub max_in_flight: usize,
}

impl Default for MemberLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_millis(800), attempt_timeout: Duration::from_millis(350), max_in_flight: 256 }
    }
}

/// A statement is at most 1 KiB; the frame around it is small.
const MAX_RESPONSE_BYTES: usize = 4096;

/// What home said.
#[derive(Debug)]
pub(crate) enum HomeAnswer {
    /// A statement, nothing of it checked yet.
    Statement(Vec<u8>),
    /// No code behind this token.
    Unknown,
}

/// Why home said nothing that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HomeFailure {
    /// The breaker is open.
    BreakerOpen,
    /// Too many lookups under way already.
    Busy,
    /// Home refused the lookup for this documented reason.
    Refused(Reason),
    /// It took too long.
    Timeout,
    /// The connection failed, or the node did.
    Transport,
}

impl HomeFailure {
    /// The word in metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Busy => "busy",
            Self::Refused(_) => "refused",
            Self::Timeout => "timeout",
            Self::Transport => "transport",
        }
    }

    /// Whether another attempt could go better.
    const fn is_worth_a_retry(self) -> bool {
        match self {
            Self::BreakerOpen | Self::Timeout | Self::Transport => true,
            Self::Busy | Self::Refused(_) => false,
        }
    }
}

/// One member's nodes.
#[derive(Debug)]
pub(crate) struct MemberClient {
    endpoints: Vec<Endpoint>,
    next: AtomicUsize,
    in_flight: Semaphore,
    retries: RetryBudget,
    limits: MemberLimits,
}

#[derive(Debug)]
struct Endpoint {
    channel: Channel,
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
            let channel = dial::channel(standing, address, expected, dial::DialLimits::default())?;
            Ok(Endpoint { channel, breaker: CircuitBreaker::default() })
        });
        Ok(Self {
            endpoints: endpoints.collect::<Result<_, tonic::transport::Error>>()?,
            next: AtomicUsize::new(0),
            in_flight: Semaphore::new(limits.max_in_flight),
            retries: RetryBudget::new(),
            limits,
        })
    }

    /// Asks home, at the latest until `deadline`.
    pub(crate) async fn lookup(&self, request: LookupRequest, deadline: Instant) -> Result<HomeAnswer, HomeFailure> {
        let deadline = deadline.min(Instant::now() + self.limits.timeout);
        let _place = self.in_flight.try_acquire().map_err(|_| HomeFailure::Busy)?;
        self.retries.earn();
        let first = self.attempt(request.clone(), deadline).await;
        match first {
            Err(failure) if failure.is_worth_a_retry() && Instant::now() < deadline && self.retries.spend() => {
                debug!(?failure, "retrying");
                self.attempt(request, deadline).await
            }
            settled => settled,
        }
    }

    /// One attempt, at the next endpoint whose breaker lets it.
    async fn attempt(&self, request: LookupRequest, deadline: Instant) -> Result<HomeAnswer, HomeFailure> {
        let endpoint = self.pick().ok_or(HomeFailure::BreakerOpen)?;
        let attempt_deadline = deadline.min(Instant::now() + self.limits.attempt_timeout);
        let mut client =
            ProvinceServiceClient::new(endpoint.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES);
        let answer = match timeout_at(attempt_deadline, client.lookup(request)).await {
            Err(_) => Err(HomeFailure::Timeout),
            Ok(Err(status)) => Err(failure_of(&status)),
            Ok(Ok(response)) => match response.into_inner().result {
                Some(lookup_response::Result::Statement(statement)) => Ok(HomeAnswer::Statement(statement)),
                Some(lookup_response::Result::UnknownTraveler(_)) => Ok(HomeAnswer::Unknown),
                None => Err(HomeFailure::Transport),
            },
        };
        match answer {
            Err(HomeFailure::Timeout | HomeFailure::Transport) => endpoint.breaker.failed(Instant::now()),
            Ok(_) | Err(_) => endpoint.breaker.succeeded(),
        }
        answer
    }

    fn pick(&self) -> Option<&Endpoint> {
        let now = Instant::now();
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let candidates = (0..self.endpoints.len()).map(|i| &self.endpoints[(start + i) % self.endpoints.len()]);
        candidates.into_iter().find(|endpoint| endpoint.breaker.allows(now))
    }
}

/// A black-holed connection shows as Cancelled, then Unavailable or Unknown; whatever has no documented reason of ours is
/// a failure of the way there, and so is a node that is overloaded or has lost its store.
fn failure_of(status: &Status) -> HomeFailure {
    match Refusal::reason_of(status) {
        None | Some(Reason::Overloaded | Reason::StoreUnavailable | Reason::TrustExpired | Reason::Internal) => {
            HomeFailure::Transport
        }
        Some(Reason::DeadlineExceeded) => HomeFailure::Timeout,
        Some(reason) => HomeFailure::Refused(reason),
    }
}
