//! The standard lookup, top to bottom: what the gateway has checked is checked again, then the store is asked once, then
//! what the consent grants is signed.
//!
//! Upholds I1 (no status leaves without a consent verified here for this venue, purpose and scope), I3 (only this makes a
//! statement), I4 (status and log head are of one snapshot), I5 (no code is an answer of its own) and I8 (no venue learns
//! more than policy lets it). Redemption is the gateway's to enforce: its retries and hedges repeat a proof.

use proto::{
    consent::Use,
    hint::IdentityHint,
    member::Member,
    policy::{Meaning, Policy},
    refusal::{Object, Reason, Refusal},
    statement::{LogHead, Status},
    terms::{Level, Purpose, Scope},
    time::UnixTime,
    token::{ConsentToken, Cti, UnverifiedToken},
    trust::TrustList,
    venue::VenueId,
};
use tracing::{Instrument as _, debug_span, instrument};

use crate::{
    explanation::assess_if_due,
    home::Home,
    store::{Code, Found, Snapshot, Store, StoreError},
};

/// One lookup, as the gateway asks for it.
#[derive(Clone)]
pub struct Query {
    /// The consent token's bytes.
    pub token: Vec<u8>,
    /// The proof's bytes; paper and assisted tokens have none.
    pub proof: Option<Vec<u8>>,
    /// The asking venue.
    pub venue: VenueId,
    /// Why it asks.
    pub purpose: Purpose,
    /// What the gateway granted.
    pub scope: Scope,
}

/// Home's answer.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// A signed statement.
    Statement(Vec<u8>),
    /// No such token, or no code behind it; where the change log stood.
    UnknownTraveler(LogHead),
}

redacted!(Query, Answer);

/// Looks up the traveler behind a token.
///
/// Refused in this order: token layout, issuer, key, signature, time, audience, purpose; proof missing or unexpected,
/// its layout, signature, time, venue; purpose not admitted, scope; store; revoked.
pub async fn lookup<S: Store>(
    home: &Home<S>,
    list: &TrustList,
    policy: &Policy,
    now: UnixTime,
    query: &Query,
) -> Result<Answer, Refusal> {
    let usage = Use { proof: query.proof.as_deref(), venue: &query.venue, purpose: query.purpose };
    let token = check_consent(home.member, list, policy, now, &query.token, usage)?;
    debug_span!("policy").in_scope(|| token.grant(usage, policy, Some(query.scope)))?;

    let snapshot = find(home, policy, now, token.consent().cti, query.scope).instrument(debug_span!("status")).await?;
    let Some(found) = snapshot.found.filter(|found| found.token == token.hash()) else {
        return Ok(Answer::UnknownTraveler(snapshot.head));
    };
    if found.revoked {
        return Err(Refusal::of(Object::Token, Reason::ConsentRevoked));
    }
    let Some(code) = &found.code else {
        return Ok(Answer::UnknownTraveler(snapshot.head));
    };

    let disclosure = Disclosure { token: &token, scope: query.scope, head: snapshot.head, found: &found, code };
    Ok(debug_span!("statement")
        .in_scope(|| Answer::Statement(disclosure.state(home, policy, now).sign(&home.keys.statement))))
}

/// What stands behind a handle. Whose code time alone may have changed is assessed first: no statement tells a code whose time is
/// over.
async fn find<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    cti: Cti,
    scope: Scope,
) -> Result<Snapshot, StoreError> {
    let snapshot = home.store.find(cti, scope).await?;
    if let Some(found) = &snapshot.found
        && assess_if_due(home, policy, now, found.person, found.due_at).await?
    {
        return home.store.find(cti, scope).await;
    }
    Ok(snapshot)
}

/// The token, if this home issued it and it consents to this use now.
#[instrument(level = "debug", name = "consent", skip_all)]
fn check_consent(
    home: Member,
    list: &TrustList,
    policy: &Policy,
    now: UnixTime,
    token: &[u8],
    usage: Use<'_>,
) -> Result<ConsentToken, Refusal> {
    let token = UnverifiedToken::parse(token)?;
    if token.issuer() != home {
        return Err(Refusal::of(Object::Token, Reason::KeyUnknown).with("member", token.issuer()));
    }
    let key = list.consent_key(home, token.kid())?;
    let token = token.verify(key)?;
    token.check_use(usage, policy, now)?;
    Ok(token)
}

/// What is to be disclosed, and to whom.
struct Disclosure<'a> {
    token: &'a ConsentToken,
    scope: Scope,
    head: LogHead,
    found: &'a Found,
    code: &'a Code,
}

impl Disclosure<'_> {
    /// The status with what the scope grants and nothing else.
    fn state<S>(&self, home: &Home<S>, policy: &Policy, now: UnixTime) -> Status {
        let Self { token, scope, head, found, code } = *self;
        let consent = token.consent();
        // Where time alone may change what it says, it ends. A token is honoured for the clock leeway after its end; a statement never
        // ends before it begins.
        let due_at = found.due_at.unwrap_or(UnixTime::MAX);
        let expires_at = consent.expires_at.min(now.plus(policy.lives.statement)).min(due_at).max(now);
        let detail = scope.contains(Scope::ASSIGNMENT);
        // A level that is not green names who assigned it and by which rule, whatever the scope (I8).
        let substantiated = detail || !is_green(home, policy, code);
        let particulars = found.particulars.as_ref().filter(|_| scope.contains(Scope::IDENTITY_HINT));
        let hint = particulars.map(|particulars| {
            let hint = IdentityHint::mask(&particulars.name, &particulars.document_number);
            hint.seal(&home.keys.secret.hint_key(consent.cti), &*home.random)
        });
        Status {
            issuer: home.member,
            issued_at: now,
            expires_at,
            token: token.hash().short(),
            head,
            label: code.label.clone(),
            rule: code.rule.clone().filter(|_| substantiated),
            authority: code.authority.clone().filter(|_| substantiated),
            assigned_at: detail.then_some(code.assigned_at),
            tests: granted(scope, Scope::TESTS, &found.tests),
            doses: granted(scope, Scope::VACCINATION, &found.doses),
            visits: granted(scope, Scope::RISK_AREAS, &found.visits),
            hint,
            offline_until: expires_at.min(now.plus(policy.lives.offline)),
        }
    }
}

fn is_green<S>(home: &Home<S>, policy: &Policy, code: &Code) -> bool {
    policy.meaning(home.member, &code.label) == Some(Meaning::Level(Level::Green))
}

/// Evidence, if the scope grants it. The store reads no other, but what is disclosed is decided here.
fn granted<T: Clone>(scope: Scope, bit: Scope, evidence: &[T]) -> Vec<T> {
    if scope.contains(bit) { evidence.to_vec() } else { Vec::new() }
}

#[cfg(test)]
mod tests;
