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
    time::{CLOCK_LEEWAY, Clock, UnixTime},
    token::{ConsentToken, Cti},
    trust::TrustList,
};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};
use tracing::{Instrument as _, Span, debug, debug_span, field::Empty, instrument, warn};

use self::flight::{Boarding, Flights, Leader};
use crate::{
    cache::{Distrust, HeldStatement, Hit, Key, MemberCache, Moment},
    member::{Asked, HomeAnswer, HomeFailure, MemberClient},
    metrics::ExchangeMetrics,
    query::Freshness,
};

/// How often a question boards a flight before it asks by itself: each time an event or a refusal that is another's has
/// taken the answer away.
const MAX_BOARDINGS: usize = 3;
/// How many nodes are asked when they answer with what is older than what is known.
const MAX_ASKED: usize = 4;

/// One home member.
#[derive(Debug)]
pub(crate) struct Home {
    member: Member,
    /// The way to its nodes.
    pub(crate) client: MemberClient,
    /// What is held of it.
    pub(crate) cache: MemberCache,
    flights: Flights<Landed>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
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

/// Why home said nothing that counts.
#[derive(Clone, Debug)]
enum Missed {
    /// It refuses, and that is its to do: of a consent it revoked, of a proof it finds too old.
    Refused(Refusal),
    /// It was not reached, or not in time.
    Unreachable,
    /// This caller, or all of them, have too many questions under way.
    Busy,
    /// What it said does not verify, or is older than what is known or asked for.
    Useless,
}

/// What came of a lookup.
type Landed = Result<HomeSaid, Missed>;

impl Home {
    pub(crate) fn new(
        member: Member,
        client: MemberClient,
        cache: MemberCache,
        clock: Arc<dyn Clock>,
        runtime: Handle,
        metrics: ExchangeMetrics,
    ) -> Self {
        Self { member, client, cache, flights: Flights::new(), clock, runtime, metrics }
    }

    /// Answers a question by `deadline`. A refusal is home's own: of a consent it revoked, of a proof it finds too old.
    pub(crate) async fn ask(self: &Arc<Self>, question: &Question, deadline: Instant) -> Result<Said, Refusal> {
        match self.look(question) {
            Some(hit) => Ok(Said::Held(hit)),
            None => self.ask_anew(question, deadline).await,
        }
    }

    /// The same, whatever is held.
    pub(crate) async fn ask_anew(self: &Arc<Self>, question: &Question, deadline: Instant) -> Result<Said, Refusal> {
        let known = self.known();
        let landed = match self.board(question, known, deadline).await {
            Some(landed) => landed,
            None => self.ask_alone(question, known, question.freshness, deadline).await,
        };
        match landed {
            Ok(said) => Ok(Said::Home(said)),
            Err(Missed::Refused(refusal)) => Err(refusal),
            Err(Missed::Unreachable) => Ok(self.last_known(question).map_or(Said::Unreachable, Said::LastKnown)),
            Err(Missed::Busy | Missed::Useless) => Ok(Said::Unreachable),
        }
    }

    /// Whether what was said may still be an answer at this moment, and by this trust list. What was held may not once the
    /// lease has ended or an event has come; what home says during a call is as old as the call.
    pub(crate) fn stands_by(&self, said: &Said, question: &Question, list: &TrustList) -> bool {
        match said {
            Said::Held(hit) => {
                self.cache.confirms(&question.key, hit, self.moment())
                    && hit.statement.as_ref().is_none_or(|held| self.is_vouched(held, list))
            }
            Said::Home(HomeSaid::Statement(held)) | Said::LastKnown(held) => self.is_vouched(held, list),
            Said::Home(HomeSaid::Unknown(_)) | Said::Unreachable => true,
        }
    }

    /// Events of these consents were applied: whoever waits for what was asked before starts anew.
    pub(crate) fn detach(&self, handles: &[Cti]) {
        handles.iter().for_each(|cti| self.flights.detach(cti));
    }

    /// The stream has ended: whoever waits starts anew.
    pub(crate) fn detach_all(&self) {
        self.flights.detach_all();
    }

    /// Numbers a probe that is about to be sent. `None` while too many are without an echo.
    pub(crate) fn probe(&self) -> Option<u64> {
        self.cache.probe(self.moment(), self.client.known_head())
    }

    /// An echo came from one of its nodes. When it brings the lease back, the node may be asked again, however it failed before.
    pub(crate) fn echo(&self, node: usize, number: u64, head: LogHead) -> Result<(), Distrust> {
        let leased = self.cache.is_leased(self.moment());
        self.cache.echo(number, head)?;
        if !leased {
            self.client.note_seen(node);
        }
        Ok(())
    }

    /// Drops all that is known of the member: it contradicts itself.
    pub(crate) fn forget(&self) {
        self.client.forget_head();
        self.cache.clear();
    }

    #[instrument(level = "debug", name = "cache", skip_all, fields(outcome = Empty))]
    fn look(&self, question: &Question) -> Option<Hit> {
        let hit = self.held(question);
        Span::current().record("outcome", if hit.is_some() { "hit" } else { "miss" });
        hit
    }

    /// What is held of a question and may answer it.
    fn held(&self, question: &Question) -> Option<Hit> {
        if !question.may_be_shared() {
            return None;
        }
        let hit = self.cache.get(&question.key, self.moment())?;
        let valid = hit.statement.as_ref().is_none_or(|held| {
            // Keys may have been removed and lives been shortened since.
            self.is_vouched(held, &question.trust.list)
                && held.statement.check_time(question.now, &question.trust.policy.lives).is_ok()
        });
        (valid && question.freshness.is_met_by(hit.head)).then_some(hit)
    }

    /// Shares a lookup. `None` if the question is to be asked alone.
    ///
    /// Who joins gets what was read at home after the flight began, at most half a second before it joined: no lease is
    /// needed for that.
    async fn board(self: &Arc<Self>, question: &Question, known: Option<LogHead>, deadline: Instant) -> Option<Landed> {
        if !question.may_be_shared() {
            return None;
        }
        for _ in 0..MAX_BOARDINGS {
            let span = debug_span!("flight", outcome = Empty);
            let (passenger, leads) = match self.flights.board(&question.key, Instant::now()) {
                Boarding::Join(passenger) => (passenger, false),
                Boarding::Lead(leader, passenger) => {
                    span.in_scope(|| self.fly(leader, question.clone(), known));
                    (passenger, true)
                }
            };
            span.record("outcome", if leads { "led" } else { "joined" });
            let Ok(landed) = timeout_at(deadline, passenger.wait().instrument(span)).await else {
                return Some(Err(Missed::Unreachable));
            };
            match landed {
                // An event, or the stream has ended.
                None => {}
                Some(Ok(said)) if !self.is_current(&said, known) || !self.is_vouched_for(&said, question) => {}
                // What this caller wants is more than others want.
                Some(Ok(said)) if !said.head().is_none_or(|head| question.freshness.allows(head)) => return None,
                // What home has against the leader's proof, and how much its caller asks, is nobody else's.
                Some(Err(Missed::Busy)) if !leads => {}
                Some(Err(Missed::Refused(refusal))) if !leads && refusal.reason() != Reason::ConsentRevoked => {}
                Some(landed) => return Some(landed),
            }
        }
        None
    }

    /// Looks up for all aboard, by a deadline of its own and for whatever freshness: whoever leads may go away, or want more
    /// than others.
    fn fly(self: &Arc<Self>, leader: Leader, question: Question, known: Option<LogHead>) {
        let home = self.clone();
        let flying = async move {
            // Whatever becomes of this task, nobody stays aboard.
            let mut flight = Flying { home, leader, landed: None };
            let deadline = Instant::now() + flight.home.client.timeout();
            let landed = flight.home.ask_alone(&question, known, Freshness::Default, deadline).await;
            flight.landed = Some(landed);
        };
        self.runtime.spawn(flying.in_current_span());
    }

    /// Asks one node after another until one says something that is no older than what is known and asked for.
    async fn ask_alone(
        &self,
        question: &Question,
        known: Option<LogHead>,
        freshness: Freshness,
        deadline: Instant,
    ) -> Landed {
        let mut nodes = Asked::default();
        for _ in 0..self.client.nodes().min(MAX_ASKED) {
            let asked = self.moment();
            let said = self.look_up(question, deadline, &mut nodes).await?;
            if !self.is_current(&said, known) {
                warn!(home = %self.member, "home's answer is older than what is known");
                self.metrics.home_failed(self.member, "stale");
                continue;
            }
            self.keep(question, &said, asked);
            if said.head().is_none_or(|head| freshness.allows(head)) {
                return Ok(said);
            }
            debug!(home = %self.member, "home's answer is not as fresh as its caller wants");
        }
        Err(Missed::Useless)
    }

    async fn look_up(&self, question: &Question, deadline: Instant, nodes: &mut Asked) -> Landed {
        let started = Instant::now();
        let (caller, trace, request) = (&question.caller, &question.trace, question.request.clone());
        let answer = self.client.lookup(caller, trace, request, deadline, nodes).await;
        self.metrics.looked_up(self.member, started.elapsed());
        match answer {
            Ok(HomeAnswer::Unknown(head)) => Ok(HomeSaid::Unknown(head)),
            Ok(HomeAnswer::Statement(bytes)) => match verify(bytes, question) {
                Ok(held) => Ok(HomeSaid::Statement(Arc::new(held))),
                Err(refusal) => {
                    warn!(home = %self.member, %refusal, "home's statement is not valid");
                    self.metrics.home_failed(self.member, "invalid_statement");
                    Err(Missed::Useless)
                }
            },
            Err(HomeFailure::Refused(refusal)) if is_homes_to_say(refusal.reason()) => Err(Missed::Refused(refusal)),
            Err(failure) => {
                if let HomeFailure::Refused(refusal) = &failure {
                    warn!(home = %self.member, %refusal, "home refused what was verified here");
                }
                self.metrics.home_failed(self.member, failure.word());
                Err(match failure {
                    HomeFailure::Busy => Missed::Busy,
                    HomeFailure::Refused(_) => Missed::Useless,
                    HomeFailure::BreakerOpen | HomeFailure::Timeout | HomeFailure::Transport => Missed::Unreachable,
                })
            }
        }
    }

    /// Takes in what home said and nothing contradicts.
    fn keep(&self, question: &Question, said: &HomeSaid, asked: Moment) {
        let Some(head) = said.head() else { return };
        let statement = match said {
            HomeSaid::Statement(held) => {
                // Home signed it: from now on nothing older counts.
                self.client.note_head(head);
                Some(held.clone())
            }
            HomeSaid::Unknown(_) => None,
        };
        if question.token.consent().kind.has_device() {
            self.cache.insert(&question.key, head, statement, asked);
        }
    }

    /// Whether what home says is no older than what was known when its question came, and of the log that it has now.
    fn is_current(&self, said: &HomeSaid, known: Option<LogHead>) -> bool {
        // Without a head there is nothing to compare; nothing is disclosed either.
        let Some(head) = said.head() else { return true };
        if self.cache.is_former(&head.epoch) {
            return false;
        }
        known.is_none_or(|known| match known.epoch == head.epoch {
            true => head.seq >= known.seq,
            // Another log than the one that is followed; while none is, home alone knows which is its own, and the one that
            // was followed is not, once another has been seen.
            false => {
                let followed = self.cache.position().is_some_and(|applied| applied.epoch == head.epoch);
                !followed && !self.cache.is_leased(self.moment())
            }
        })
    }

    /// Whether the trust list still has the key of what was said.
    fn is_vouched(&self, held: &HeldStatement, list: &TrustList) -> bool {
        list.statement_key(self.member, held.kid).is_ok()
    }

    fn is_vouched_for(&self, said: &HomeSaid, question: &Question) -> bool {
        match said {
            HomeSaid::Statement(held) => self.is_vouched(held, &question.trust.list),
            HomeSaid::Unknown(_) => true,
        }
    }

    /// Where home's change log is known to stand.
    fn known(&self) -> Option<LogHead> {
        match (self.cache.position(), self.client.known_head()) {
            (Some(applied), Some(seen)) if applied.epoch == seen.epoch => {
                Some(if applied.seq >= seen.seq { applied } else { seen })
            }
            // The log is another one by now, and its stream has not begun yet.
            (Some(_), Some(seen)) if !self.cache.is_leased(self.moment()) && !self.cache.is_former(&seen.epoch) => {
                Some(seen)
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
        let held = self.cache.last_known(&question.key, self.moment())?;
        let status = held.statement.status();
        let young = question.now.since(status.issued_at) <= lives.last_known_good.as_secs();
        let green = question.trust.policy.judge(status) == Judgement::Status(Level::Green);
        let valid = held.statement.check_time(question.now, lives).is_ok();
        (young && green && valid && self.is_vouched(&held, &question.trust.list)).then_some(held)
    }

    fn moment(&self) -> Moment {
        Moment { instant: Instant::now(), time: self.clock.now() }
    }
}

impl HomeSaid {
    /// Where home's change log stood.
    fn head(&self) -> Option<LogHead> {
        match self {
            Self::Statement(held) => Some(held.statement.status().head),
            Self::Unknown(head) => *head,
        }
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
fn verify(bytes: Vec<u8>, question: &Question) -> Result<HeldStatement, Refusal> {
    let (trust, token) = (&question.trust, &question.token);
    let issuer = token.consent().issuer;
    let unverified = UnverifiedStatement::parse(&bytes)?;
    if unverified.issuer() != issuer {
        return Err(Refusal::malformed(Object::Statement, "it answers for another member"));
    }
    let kid = unverified.kid();
    let statement = unverified.verify(trust.list.statement_key(issuer, kid)?)?;
    statement.check_binding(issuer, token.hash())?;
    statement.check_time(question.now, &trust.policy.lives)?;
    statement.check_scope(question.key.scope)?;
    if statement.status().expires_at > token.consent().expires_at.plus(CLOCK_LEEWAY) {
        return Err(Refusal::malformed(Object::Statement, "it outlives its token"));
    }
    Ok(HeldStatement { bytes, kid, statement })
}

/// The refusals in which home knows better than the gateway: the rest it verified itself.
const fn is_homes_to_say(reason: Reason) -> bool {
    matches!(reason, Reason::ConsentRevoked | Reason::Expired | Reason::NotYetValid | Reason::DeviceClockOff)
}
