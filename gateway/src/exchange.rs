//! One exchange, top to bottom: query in, answer out, on record before it leaves.
//!
//! Consent and policy come before anything is asked of home; recognition comes after, because the policy changes on its
//! own. Upholds I1, I2, I3, I5, I8 by their order here.

use std::{sync::Arc, time::Duration};

use peer::{
    serve::Standing,
    surroundings::{Pauses, Point},
    trust::Trust,
};
use proto::{
    contract::{
        province::LookupRequest,
        recognition::{RecognizeResponse, Source},
    },
    identity::{PeerId, Realm},
    log::record::{Ending, Entry, RefusalEntry},
    member::Member,
    policy::Judgement,
    random::{self, Random},
    refusal::{Reason, Refusal, reason_name},
    suite::sha256,
    terms::Scope,
    time::UnixTime,
    token::{ConsentToken, TokenHash},
};
use tokio::time::Instant;
use tracing::{Span, debug_span, field::display};

use crate::{
    cache::Key,
    consent,
    home::Question,
    metrics::ExchangeMetrics,
    query::{Freshness, Query},
    recognition::{Finding, outcome},
    record::Record,
    redemption::{Claim, Redemptions},
    route::Routes,
    unsubstantiated::Unsubstantiated,
};

/// A caller that leaves home less than this is not in time whatever home does.
const MIN_LOOKUP: Duration = Duration::from_millis(20);

/// What all exchanges share.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) standing: Standing,
    pub(crate) routes: Arc<Routes>,
    pub(crate) redemptions: Redemptions,
    pub(crate) record: Record,
    pub(crate) metrics: ExchangeMetrics,
    pub(crate) unsubstantiated: Arc<Unsubstantiated>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) pauses: Pauses,
}

impl Exchange {
    /// The trust this moment's queries are parsed and judged by.
    pub(crate) fn trust(&self) -> Result<Arc<Trust>, Refusal> {
        self.standing.trust.usable()
    }

    /// Runs one exchange. Home is given until `deadline`.
    pub(crate) async fn run(
        &self,
        query: Query,
        trust: &Arc<Trust>,
        deadline: Instant,
    ) -> Result<RecognizeResponse, Refusal> {
        let now = self.standing.trust.clock().now();
        let token = match consent::authenticate(&query, &trust.list) {
            Ok(token) => token,
            Err(refusal) => {
                self.note(&query.caller, &refusal);
                return Err(refusal);
            }
        };
        let home = token.consent().issuer;
        Span::current().record("member", display(home));
        let mut entry = self.open_record(&query, &token, trust, now);
        let mut claim = None;
        let found = self.find(&query, &token, trust, now, deadline, &mut entry, &mut claim).await;
        entry.ending = ending(&found);
        // A one-use consent that nothing came of is not used up: neither on disk nor here.
        let spent = discloses(&found);
        let committed = claim.clone().filter(|claim| spent || !claim.is_once());
        let durable = self.record.close(home, &entry, committed, &trust.list).await;
        if let Some(claim) = claim.filter(|claim| claim.is_once() && (durable.is_err() || !spent)) {
            self.redemptions.release(&claim);
        }
        let answered = durable.and_then(|receipt| Ok((receipt, found?))).map(|(receipt, (finding, granted))| {
            let outcome = outcome(finding.judgement());
            self.count_unsubstantiated(home, &finding, token.hash(), trust, now);
            let mut answer = finding.into_answer(home, granted, &trust.policy, trust.policy_edition.version);
            answer.exchange_id = entry.exchange_id.to_vec();
            answer.access_receipt = receipt;
            self.metrics.answered(home, outcome);
            answer
        });
        answered.inspect_err(|refusal| self.metrics.refused(refusal.reason()))
    }

    /// Counts and notes a refusal before any token verified, against the caller alone.
    pub(crate) fn note(&self, caller: &PeerId, refusal: &Refusal) {
        self.metrics.refused(refusal.reason());
        let time = self.standing.trust.clock().now();
        let reason = reason_name(refusal.reason()).into();
        self.record.note(&RefusalEntry { time, caller: caller.into(), reason });
    }

    fn open_record(&self, query: &Query, token: &ConsentToken, trust: &Trust, now: UnixTime) -> Entry {
        Entry {
            time: now,
            venue: query.venue.clone(),
            caller: (&query.caller).into(),
            staff_id: query.staff_id.clone(),
            purpose: query.purpose,
            granted: None,
            cti: token.consent().cti,
            kind: token.consent().kind,
            policy_version: trust.policy_edition.version,
            exchange_id: random::bytes(&*self.random),
            trace_id: query.trace.id().bytes(),
            // Replaced before it is written; an exchange that ends without an ending was a defect.
            ending: Ending::refused(Reason::Internal),
        }
    }

    /// From a verified token to what is found, filling in what the record says of the way.
    #[expect(clippy::too_many_arguments, reason = "the record's entry and the claim outlive a refusal")]
    async fn find(
        &self,
        query: &Query,
        token: &ConsentToken,
        trust: &Arc<Trust>,
        now: UnixTime,
        deadline: Instant,
        entry: &mut Entry,
        claim: &mut Option<Claim>,
    ) -> Result<(Finding, Scope), Refusal> {
        let taking = consent::check(query, token, &trust.policy, now)?;
        let granted =
            debug_span!("policy").in_scope(|| token.grant(consent::usage(query), &trust.policy, query.scope))?;
        entry.granted = Some(granted);
        *claim = self.redemptions.claim(&taking, &query.venue, now)?;
        let finding = self.ask_home(query, token, granted, trust, now, deadline, entry.exchange_id).await?;
        Ok((finding, granted))
    }

    /// Asks home, or what is known of it. What is held is looked at once more when everything else is done: from there to the
    /// record nothing is awaited, so that the lease holds when the record is submitted (DESIGN §7).
    #[expect(clippy::too_many_arguments, reason = "each is a fact of this one exchange")]
    async fn ask_home(
        &self,
        query: &Query,
        token: &ConsentToken,
        granted: Scope,
        trust: &Arc<Trust>,
        now: UnixTime,
        deadline: Instant,
        exchange_id: [u8; 16],
    ) -> Result<Finding, Refusal> {
        let member = token.consent().issuer;
        if matches!(query.freshness, Freshness::AtLeast(of, _) if of != member) {
            return Err(Refusal::field("freshness.at_least_as_fresh", "a change token of the traveler's home"));
        }
        if trust.list.suspension(Realm::Member(member), now).is_some() {
            self.metrics.home_failed(member, "suspended");
            return Ok(Finding::HomeUnreachable);
        }
        let Some(home) = self.routes.to(member) else {
            return Ok(Finding::HomeUnreachable);
        };
        if deadline.saturating_duration_since(Instant::now()) < MIN_LOOKUP {
            return Err(Refusal::new(Reason::DeadlineExceeded));
        }
        let question = Question {
            key: Key { cti: token.consent().cti, token: token.hash(), scope: granted },
            request: LookupRequest {
                token: query.token.clone(),
                proof: query.proof.clone().unwrap_or_default(),
                venue: query.venue.to_string(),
                purpose: query.purpose.number().into(),
                scope: granted.bits().into(),
                exchange_id: exchange_id.to_vec(),
            },
            token: token.clone(),
            caller: query.caller.clone(),
            trace: query.trace,
            freshness: query.freshness,
            trust: trust.clone(),
            now,
        };
        let mut said = home.ask(&question, deadline).await?;
        self.pauses.at(Point::BeforeRecording).await;
        let current = self.trust()?;
        if current.generation != trust.generation {
            // What a list no longer has is worth nothing from that moment on.
            consent::authenticate(query, &current.list)?;
            if current.list.suspension(Realm::Member(member), now).is_some() {
                return Ok(Finding::HomeUnreachable);
            }
        }
        if !home.stands_by(&said, &question, &current.list) {
            let question = Question { trust: current, ..question };
            said = home.ask_anew(&question, deadline).await?;
        }
        Ok(Finding::of(said, &trust.policy))
    }

    /// Counts what leaves, on record, wherever it came from.
    fn count_unsubstantiated(&self, home: Member, finding: &Finding, token: TokenHash, trust: &Trust, now: UnixTime) {
        if let Judgement::Unsubstantiated(authority) = finding.judgement() {
            let name = self.unsubstantiated.count(home, authority.as_ref(), &trust.policy, token, now);
            self.metrics.unsubstantiated(home, name);
        }
    }
}

/// Whether home was reached, so that a one-use consent is used up.
fn discloses(found: &Result<(Finding, Scope), Refusal>) -> bool {
    matches!(found, Ok((finding, _)) if *finding.judgement() != Judgement::HomeUnreachable)
}

fn ending(found: &Result<(Finding, Scope), Refusal>) -> Ending {
    match found {
        Err(refusal) => Ending::refused(refusal.reason()),
        Ok((finding, _)) => {
            let hash = |bytes| {
                let mut hash = [0; 16];
                hash.copy_from_slice(&sha256(bytes)[..16]);
                hash
            };
            let (statement, source) = match finding.statement() {
                Some((bytes, source)) => (Some(hash(bytes)), source),
                None => (None, Source::Unspecified),
            };
            Ending::Answered { outcome: outcome(finding.judgement()), source, statement }
        }
    }
}
