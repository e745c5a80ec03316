//! One home member as exchanges see it: what it said before and still holds, what others are asking it right now, and
//! itself.
//!
//! ```text
//! held here    under the lease, fresh enough for the caller    → CACHE
//! under way    somebody asked the same a moment ago            → HOME, shared
//! home         verified, not older than what is known          → HOME, held from now on
//! last known   home is unreachable and policy allows it        → LAST_KNOWN
//! ```
//!
//! Upholds I4 with [`crate::cache`]: an answer is never older than what had been applied when its question came.

mod flight;

use std::sync::Arc;

use peer::{trace::Trace, trust::Trust};
use proto::{
    contract::province::LookupRequest,
    identity::PeerId,
    member::Member,
    policy::Judgement,
    refusal::{Object, Reason, Refusal},
    statement::{LogHead, UnverifiedStatement},
    terms::{Kind, Level},
    time::UnixTime,
    token::{ConsentToken, Cti},
};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, instrument, warn};

use self::flight::{Boarding, Flights, Leader};
use crate::{
    cache::{HeldStatement, Hit, Key, MemberCache},
    member::{HomeAnswer, HomeFailure, MemberClient},
    metrics::ExchangeMetrics,
    query::Freshness,
};

/// How often a question boards a flight before it asks by itself: each time an event or a refusal that is another's has
/// taken the answer away.
const MAX_BOARDINGS: usize = 3;
/// How often home is asked when it answers with what is older than what is known: a second endpoint may be ahead.
const MAX_ASKED: usize = 2;

/// One home member.
#[derive(Debug)]
pub(crate) struct Home {
    member: Member,
    /// The way to its nodes.
    pub(crate) client: MemberClient,
    /// What is held of it.
    pub(crate) cache: MemberCache,
    flights: Flights<Landed>,
    metrics: ExchangeMetrics,
}

/// A question about one token.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// What it is about.
    pub(crate) key: Key,
    /// As home is asked.
    pub(crate) request: LookupRequest,
    /// The verified token.
    pub(crate) token: ConsentToken,
    /// Who asks.
    pub(crate) caller: PeerId,
    /// The trace it belongs to.
    pub(crate) trace: Trace,
    /// How fresh the answer is to be.
    pub(crate) freshness: Freshness,
    /// By what it is verified.
    pub(crate) trust: Arc<Trust>,
    /// When it was asked.
    pub(crate) now: UnixTime,
}

/// What home says, and how we know.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// During this call.
    Home(HomeSaid),
    /// Before, and it holds.
    Held(Hit),
    /// Before, and nobody knows whether it still holds; policy lets it count.
    LastKnown(Arc<HeldStatement>),
    /// Nothing that counts.
    Unreachable,
}

/// What home says of a token.
#[derive(Clone, Debug)]
pub(crate) enum HomeSaid {
    /// A statement, verified.
    Statement(Arc<HeldStatement>),
    /// It vouches for no code; where its change log stood, if it said so in the documented form.
    Unknown(Option<LogHead>),
}

/// What came of a lookup: what home said, a refusal that is home's to make, or nothing that counts.
type Landed = Result<Option<HomeSaid>, Refusal>;

impl Home {
    pub(crate) fn new(member: Member, client: MemberClient, cache: MemberCache, metrics: ExchangeMetrics) -> Self {
        Self { member, client, cache, flights: Flights::new(), metrics }
    }

    /// Answers a question by `deadline`. A refusal is home's own: of a consent it revoked, of a proof it finds too old.
    pub(crate) async fn ask(self: &Arc<Self>, question: &Question, deadline: Instant) -> Result<Said, Refusal> {
        match self.held(question) {
            Some(hit) => Ok(Said::Held(hit)),
            None => self.ask_anew(question, deadline).await,
        }
    }

    /// The same, whatever is held.
    pub(crate) async fn ask_anew(self: &Arc<Self>, question: &Question, deadline: Instant) -> Result<Said, Refusal> {
        let known = self.known();
        let landed = match self.board(question, known, deadline).await {
            Some(landed) => landed,
            None => self.ask_alone(question, known, deadline).await,
        };
        Ok(match landed? {
            Some(said) => Said::Home(said),
            None => self.last_known(question).map_or(Said::Unreachable, Said::LastKnown),
        })
    }

    /// Whether what was said may still be an answer at this moment. What was held may not once the lease has ended or an
    /// event has come; what home says during a call is as old as the call.
    pub(crate) fn stands_by(&self, said: &Said, question: &Question) -> bool {
        match said {
            Said::Held(hit) => self.cache.confirms(&question.key.cti, hit, Instant::now()),
            Said::Home(_) | Said::LastKnown(_) | Said::Unreachable => true,
        }
    }

    /// Events of these consents were applied: whoever waits for what was asked before starts anew.
    pub(crate) fn detach(&self, handles: &[Cti]) {
        handles.iter().for_each(|cti| self.flights.detach(cti));
    }

    /// The lease is lost: whoever waits starts anew.
    pub(crate) fn detach_all(&self) {
        self.flights.detach_all();
    }

    /// What is held of a question and may answer it.
    pub(crate) fn held(&self, question: &Question) -> Option<Hit> {
        if !question.may_be_shared() {
            return None;
        }
        let hit = self.cache.get(&question.key, question.now, Instant::now())?;
        let valid = hit.statement.as_ref().is_none_or(|held| {
            // The policy may have shortened lives since.
            held.statement.check_time(question.now, &question.trust.policy.lives).is_ok()
        });
        (valid && question.freshness.is_met_by(hit.head)).then_some(hit)
    }

    /// Shares a lookup. `None` if the question is to be asked alone.
    async fn board(self: &Arc<Self>, question: &Question, known: Option<LogHead>, deadline: Instant) -> Option<Landed> {
        if !question.may_be_shared() {
            return None;
        }
        for _ in 0..MAX_BOARDINGS {
            let now = Instant::now();
            if !self.cache.is_leased(now) {
                return None;
            }
            let (passenger, leads) = match self.flights.board(&question.key, now) {
                Boarding::Join(passenger) => (passenger, false),
                Boarding::Lead(leader, passenger) => {
                    self.fly(leader, question.clone(), known);
                    (passenger, true)
                }
            };
            match timeout_at(deadline, passenger.wait()).await {
                Err(_) => return Some(Ok(None)),
                // An event, or the lease was lost.
                Ok(None) => {}
                // What home has against the leader's proof is nobody else's.
                Ok(Some(Err(refusal))) if !leads && refusal.reason() != Reason::ConsentRevoked => {}
                Ok(Some(Ok(Some(said)))) if !self.is_fresh(&said, question, known) => {}
                Ok(Some(landed)) => return Some(landed),
            }
        }
        None
    }

    /// Looks up for all aboard, by a deadline of its own: whoever leads may go away.
    fn fly(self: &Arc<Self>, leader: Leader, question: Question, known: Option<LogHead>) {
        let home = self.clone();
        let flying = async move {
            // Whatever becomes of this task, nobody stays aboard.
            let mut flight = Flying { home, leader, landed: None };
            let deadline = Instant::now() + flight.home.client.timeout();
            let landed = flight.home.ask_alone(&question, known, deadline).await;
            flight.landed = Some(landed);
        };
        tokio::spawn(flying.in_current_span());
    }

    async fn ask_alone(&self, question: &Question, known: Option<LogHead>, deadline: Instant) -> Landed {
        for _ in 0..MAX_ASKED {
            match self.look_up(question, deadline).await? {
                Some(said) if !self.is_fresh(&said, question, known) => {
                    warn!(home = %self.member, "home's answer is older than what is known");
                    self.metrics.home_failed(self.member, "stale");
                }
                settled => return Ok(settled),
            }
        }
        Ok(None)
    }

    async fn look_up(&self, question: &Question, deadline: Instant) -> Landed {
        let started = Instant::now();
        let answer = self.client.lookup(&question.caller, &question.trace, question.request.clone(), deadline).await;
        self.metrics.looked_up(self.member, started.elapsed());
        match answer {
            Ok(HomeAnswer::Unknown(head)) => {
                if let Some(head) = head {
                    self.keep(question, head, None);
                }
                Ok(Some(HomeSaid::Unknown(head)))
            }
            Ok(HomeAnswer::Statement(bytes)) => match verify(bytes, question) {
                Ok(held) => {
                    let (held, head) = (Arc::new(held.0), held.1);
                    self.client.note_head(head);
                    self.keep(question, head, Some(held.clone()));
                    Ok(Some(HomeSaid::Statement(held)))
                }
                Err(refusal) => {
                    warn!(home = %self.member, %refusal, "home's statement is not valid");
                    self.metrics.home_failed(self.member, "invalid_statement");
                    Ok(None)
                }
            },
            Err(HomeFailure::Refused(refusal)) if is_homes_to_say(refusal.reason()) => Err(refusal),
            Err(failure) => {
                if let HomeFailure::Refused(refusal) = &failure {
                    warn!(home = %self.member, %refusal, "home refused what was verified here");
                }
                self.metrics.home_failed(self.member, failure.word());
                Ok(None)
            }
        }
    }

    fn keep(&self, question: &Question, head: LogHead, statement: Option<Arc<HeldStatement>>) {
        if question.token.consent().kind.has_device() {
            self.cache.insert(&question.key, head, statement, question.now);
        }
    }

    /// Whether an answer is no older than what was known when its question came, and as fresh as its caller wants.
    fn is_fresh(&self, said: &HomeSaid, question: &Question, known: Option<LogHead>) -> bool {
        let head = match said {
            HomeSaid::Statement(held) => held.statement.status().head,
            HomeSaid::Unknown(Some(head)) => *head,
            // Without a head there is nothing to compare; nothing is disclosed either.
            HomeSaid::Unknown(None) => return true,
        };
        let leased = self.cache.is_leased(Instant::now());
        let not_older = known.is_none_or(|known| match known.epoch == head.epoch {
            true => head.seq >= known.seq,
            // Another log than the one that is followed; while none is, home alone knows which is its own.
            false => !leased,
        });
        not_older && question.freshness.allows(head)
    }

    /// Where home's change log is known to stand.
    fn known(&self) -> Option<LogHead> {
        match (self.cache.position(), self.client.known_head()) {
            (Some(applied), Some(seen)) if applied.epoch == seen.epoch => {
                Some(if applied.seq >= seen.seq { applied } else { seen })
            }
            (Some(applied), _) => Some(applied),
            (None, seen) => seen,
        }
    }

    /// A green that home said not long ago, where policy lets it count while home is unreachable.
    fn last_known(&self, question: &Question) -> Option<Arc<HeldStatement>> {
        let lives = &question.trust.policy.lives;
        if lives.last_known_good.is_zero() || question.freshness != Freshness::Default || !question.may_be_shared() {
            return None;
        }
        let held = self.cache.last_known(&question.key, question.now)?;
        let status = held.statement.status();
        let young = question.now.since(status.issued_at) <= lives.last_known_good.as_secs();
        let green = question.trust.policy.judge(status) == Judgement::Status(Level::Green);
        (young && green && held.statement.check_time(question.now, lives).is_ok()).then_some(held)
    }
}

impl Question {
    /// Paper and assisted consents are for one look each: home sees every one of them.
    fn may_be_shared(&self) -> bool {
        let kind = self.token.consent().kind;
        self.freshness != Freshness::Home && matches!(kind, Kind::Own | Kind::Dependent)
    }
}

/// A flight under way; it lands or is abandoned when this goes.
struct Flying {
    home: Arc<Home>,
    leader: Leader,
    landed: Option<Landed>,
}

impl Drop for Flying {
    fn drop(&mut self) {
        match self.landed.take() {
            Some(landed) => self.home.flights.land(&self.leader, landed),
            None => self.home.flights.abandon(&self.leader),
        }
    }
}

/// Verifies home's statement: its own key, this token, holding now, no more than was granted.
#[instrument(level = "debug", name = "statement", skip_all)]
fn verify(bytes: Vec<u8>, question: &Question) -> Result<(HeldStatement, LogHead), Refusal> {
    let (trust, token) = (&question.trust, &question.token);
    let issuer = token.consent().issuer;
    let unverified = UnverifiedStatement::parse(&bytes)?;
    if unverified.issuer() != issuer {
        return Err(Refusal::malformed(Object::Statement, "it answers for another member"));
    }
    let key = trust.list.statement_key(issuer, unverified.kid())?;
    let statement = unverified.verify(key)?;
    statement.check_binding(issuer, token.hash())?;
    statement.check_time(question.now, &trust.policy.lives)?;
    statement.check_scope(question.key.scope)?;
    let head = statement.status().head;
    Ok((HeldStatement { bytes, statement }, head))
}

/// The refusals in which home knows better than the gateway: the rest it verified itself.
const fn is_homes_to_say(reason: Reason) -> bool {
    matches!(reason, Reason::ConsentRevoked | Reason::Expired | Reason::NotYetValid | Reason::DeviceClockOff)
}
