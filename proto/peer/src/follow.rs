//! Newer editions of the trust list and the policy, as a gateway tells of them: a removed key is removed everywhere within
//! moments, also where nobody has renewed a file.
//!
//! What a gateway hands on counts for the roots' signatures alone. It can withhold an edition, which costs it nothing and us
//! no more than time: what is held ends after its own life. It can make none, and take none back. Whoever offers what has
//! to be refused is left for the next.

use std::{collections::VecDeque, time::Duration};

use proto::{
    contract::federation::{
        WatchPolicyRequest, WatchPolicyResponse, WatchTrustListRequest, WatchTrustListResponse,
        federation_service_client::FederationServiceClient,
    },
    envelope::{self, Edition, MAX_DOCUMENT_BYTES},
    refusal::{Object, Reason},
    suite::sha256,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use crate::{
    dial::{self, DialLimits},
    serve::Standing,
    trust::{Trust, TrustError},
    verifier::Expected,
};

/// The connection is idle for days and has to cost next to nothing.
const LIMITS: DialLimits = DialLimits {
    connect_timeout: Duration::from_secs(3),
    keepalive_interval: Duration::from_secs(10),
    keepalive_timeout: Duration::from_secs(5),
};
/// How long a gateway has to take both calls.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a gateway has been followed when it counts as one that works.
const STEADY: Duration = LONGEST_PAUSE;
/// How long one of two documents that count only together waits for the other.
const OTHER_WITHIN: Duration = Duration::from_secs(2);
/// Between two messages: a gateway that floods is read slowly.
const MESSAGE_PAUSE: Duration = Duration::from_millis(50);
/// A document, its version, and what frames them.
const MAX_MESSAGE_BYTES: usize = MAX_DOCUMENT_BYTES + 64;
/// Refused documents remembered, the oldest forgotten first.
const MAX_REFUSED: usize = 16;

/// Follows the gateways that configuration names, one at a time, until `shutdown`.
pub(crate) async fn follow_gateways(standing: Standing, shutdown: CancellationToken) {
    let gateways = standing.trust.gateways().to_vec();
    let follower = Follower { standing, pause: FIRST_PAUSE, is_failing: false, refused: VecDeque::new() };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        () = follower.run(&gateways) => {}
    }
}

struct Follower {
    standing: Standing,
    /// Before the next attempt.
    pause: Duration,
    /// It was said that there is no gateway to follow.
    is_failing: bool,
    /// What was refused, and said, by its hash.
    refused: VecDeque<[u8; 32]>,
}

/// Two open streams, and the versions that the gateway knows we have.
struct Streams {
    lists: Streaming<WatchTrustListResponse>,
    policies: Streaming<WatchPolicyResponse>,
    known: (u64, u64),
}

/// What a gateway has handed on and was not taken yet.
#[derive(Default)]
struct Waiting {
    list: Option<Vec<u8>>,
    policy: Option<Vec<u8>>,
    /// Until when one waits for the other.
    until: Option<Instant>,
}

/// What a gateway hands on.
enum Message {
    List(Vec<u8>),
    Policy(Vec<u8>),
}

/// Why a gateway is not followed any longer.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the call failed: {0}")]
    Status(#[source] Box<Status>),
    #[error("the address cannot be dialled: {0}")]
    Address(#[from] tonic::transport::Error),
    #[error("it did not take the calls in time")]
    Late,
    #[error("it closed the stream")]
    Closed,
    #[error("what it offers is refused")]
    Refused,
}

impl Follower {
    /// Follows for as long as it is polled, going on to the next gateway whenever one ends.
    async fn run(mut self, gateways: &[String]) {
        for gateway in gateways.iter().cycle() {
            let ended = match self.open(gateway).await {
                Ok(streams) => self.read(gateway, streams).await,
                Err(ended) => ended,
            };
            // What was refused has been said. A gateway that is down for a day is one line, not twenty thousand.
            if self.is_failing || matches!(ended, Ended::Refused) {
                debug!(gateway, %ended, "no gateway tells of new trust lists and policies");
            } else {
                info!(gateway, %ended, "no gateway tells of new trust lists and policies");
                self.is_failing = true;
            }
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn open(&self, gateway: &str) -> Result<Streams, Ended> {
        let channel = dial::channel(&self.standing, gateway, Expected::Gateway, LIMITS)?;
        let mut client = FederationServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let known = versions(&self.standing.trust.current());
        let opening = async {
            let lists = client.watch_trust_list(WatchTrustListRequest { held_version: known.0 }).await?.into_inner();
            let policies = client.watch_policy(WatchPolicyRequest { held_version: known.1 }).await?.into_inner();
            Ok::<_, Status>(Streams { lists, policies, known })
        };
        let opened = timeout(OPEN_WITHIN, opening).await.map_err(|_| Ended::Late)?;
        opened.map_err(|status| Ended::Status(Box::new(status)))
    }

    /// Takes up what a gateway hands on, until a stream ends or something is refused.
    async fn read(&mut self, gateway: &str, mut streams: Streams) -> Ended {
        debug!(gateway, "it tells of new trust lists and policies");
        let (steady, mut is_steady) = (Instant::now() + STEADY, false);
        let mut waiting = Waiting::default();
        loop {
            let late = waiting.until.unwrap_or(steady);
            let message = tokio::select! {
                message = streams.message() => message,
                () = sleep_until(late), if waiting.until.is_some() => {
                    if self.offer(gateway, &mut waiting, true).await.is_err() {
                        return Ended::Refused;
                    }
                    continue;
                }
                () = sleep_until(steady), if !is_steady => {
                    is_steady = true;
                    self.pause = FIRST_PAUSE;
                    if std::mem::take(&mut self.is_failing) {
                        info!(gateway, "a gateway tells of new trust lists and policies again");
                    }
                    continue;
                }
            };
            let message = match message {
                Ok(message) => message,
                Err(ended) => return ended,
            };
            if message.is_overtaken(&mut streams.known, versions(&self.standing.trust.current())) {
                debug!(gateway, "an edition that a newer one has overtaken is passed over");
            } else {
                waiting.put(message);
                if self.offer(gateway, &mut waiting, false).await.is_err() {
                    return Ended::Refused;
                }
            }
            sleep(MESSAGE_PAUSE).await;
        }
    }

    /// Offers what waits. It goes on waiting if it may count with what has not come yet, unless this is its `last` chance.
    async fn offer(&mut self, gateway: &str, waiting: &mut Waiting, last: bool) -> Result<(), Ended> {
        let (trust, list, policy) = (self.standing.trust.clone(), waiting.list.clone(), waiting.policy.clone());
        let before = versions(&trust.current());
        let offered = spawn_blocking(move || trust.offer(list, policy)).await.map_err(|_| Ended::Refused)?;
        let (list, policy) = versions(&self.standing.trust.current());
        if (list, policy) != before {
            info!(gateway, list, policy, "new trust list or policy");
        }
        match offered {
            Ok(_) => *waiting = Waiting::default(),
            Err(error) if !last && waiting.may_be_mended(&error) => {
                debug!(gateway, %error, "it waits for the other of the two");
                waiting.until.get_or_insert_with(|| Instant::now() + OTHER_WITHIN);
            }
            Err(error) => {
                self.say(gateway, waiting, &error);
                return Err(Ended::Refused);
            }
        }
        Ok(())
    }

    /// Says that a document is refused, once: it will be offered again and again.
    fn say(&mut self, gateway: &str, waiting: &Waiting, error: &TrustError) {
        let hash = sha256(waiting.blamed(error));
        if self.refused.contains(&hash) {
            return debug!(gateway, %error, "trust list or policy refused again");
        }
        self.refused.truncate(MAX_REFUSED - 1);
        self.refused.push_front(hash);
        warn!(gateway, %error, "trust list or policy refused, the one held stays");
    }
}

impl Streams {
    async fn message(&mut self) -> Result<Message, Ended> {
        let message = tokio::select! {
            list = self.lists.message() => list.map(|list| list.map(|list| Message::List(list.trust_list))),
            policy = self.policies.message() => policy.map(|policy| policy.map(|policy| Message::Policy(policy.policy))),
        };
        message.map_err(|status| Ended::Status(Box::new(status)))?.ok_or(Ended::Closed)
    }
}

impl Message {
    /// Whether it is newer than what the gateway knows we have, and older than what we hold by now: files are followed as
    /// well. What is older than both is not the gateway's to send. From now on it knows that we have this one.
    fn is_overtaken(&self, known: &mut (u64, u64), held: (u64, u64)) -> bool {
        let (object, bytes, known, held) = match self {
            Self::List(bytes) => (Object::TrustList, bytes, &mut known.0, held.0),
            Self::Policy(bytes) => (Object::Policy, bytes, &mut known.1, held.1),
        };
        let Ok(Edition { version, .. }) = envelope::read_edition(object, bytes) else { return false };
        let is_overtaken = *known < version && version < held;
        *known = version.max(*known);
        is_overtaken
    }
}

impl Waiting {
    fn put(&mut self, message: Message) {
        match message {
            Message::List(list) => self.list = Some(list),
            Message::Policy(policy) => self.policy = Some(policy),
        }
    }

    /// Whether what is missing may mend it: a policy is signed by the roots that its list names, and the gateway, which
    /// has taken up both together, tells of them one by one.
    fn may_be_mended(&self, error: &TrustError) -> bool {
        let is_of_other_roots =
            error.refusal().is_some_and(|refusal| is_of_policy(error) && refusal.reason() == Reason::ThresholdNotMet);
        is_of_other_roots && (self.list.is_none() || self.policy.is_none())
    }

    /// The document that an error speaks of.
    fn blamed(&self, error: &TrustError) -> &[u8] {
        let (list, policy) = (self.list.as_deref(), self.policy.as_deref());
        let blamed = if is_of_policy(error) { policy.or(list) } else { list.or(policy) };
        blamed.unwrap_or_default()
    }
}

fn is_of_policy(error: &TrustError) -> bool {
    error.refusal().is_some_and(|refusal| refusal.metadata("object") == Some(Object::Policy.word()))
}

fn versions(trust: &Trust) -> (u64, u64) {
    (trust.list_edition.version, trust.policy_edition.version)
}
