//! The consent stage: nothing leaves without the traveler's verified consent for this venue, purpose and scope (I1).
//!
//! First whose traveler this is about (layout, issuer, key, algorithm, signature), then whether the consent covers this
//! query: see [`proto::consent`] for the order.

use proto::{
    consent::Use,
    policy::Policy,
    proof::ProofId,
    refusal::Refusal,
    suite::sha256,
    terms::Kind,
    time::UnixTime,
    token::{ConsentToken, Cti, UnverifiedToken},
    trust::TrustList,
};
use tracing::instrument;

use crate::query::Query;

/// Reads the token and verifies its issuer's signature: from here on it is known whose traveler this is about.
#[instrument(level = "debug", name = "consent", skip_all)]
pub(crate) fn authenticate(query: &Query, list: &TrustList) -> Result<ConsentToken, Refusal> {
    let token = UnverifiedToken::parse(&query.token)?;
    let key = list.consent_key(token.issuer(), token.kid())?;
    token.verify(key)
}

/// What using a consent takes from it for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    /// Nothing: the proof is bound to the venue, good there alone and dies soon; or it is paper, which is online each time.
    Nothing,
    /// A proof for whichever venue comes first: that venue has it.
    FirstVenue(ProofId, UnixTime),
    /// An assisted token: one exchange.
    Once(ProofId, UnixTime),
}

/// Checks that the traveler's consent covers this query, now and here.
#[instrument(level = "debug", name = "consent", skip_all)]
pub(crate) fn check(query: &Query, token: &ConsentToken, policy: &Policy, now: UnixTime) -> Result<Taking, Refusal> {
    let proof = token.check_use(usage(query), policy, now)?;
    let consent = token.consent();
    Ok(match (proof, consent.kind) {
        (Some(proof), _) if proof.venue.is_none() => Taking::FirstVenue(proof.id, proof.expires_at),
        (None, Kind::Assisted) => Taking::Once(one_use_id(consent.cti), consent.expires_at),
        (Some(_), _) | (None, Kind::Own | Kind::Dependent | Kind::Paper) => Taking::Nothing,
    })
}

/// The use a query makes of a consent.
pub(crate) fn usage(query: &Query) -> Use<'_> {
    Use { proof: query.proof.as_deref(), venue: &query.venue, purpose: query.purpose }
}

/// Names a one-use token among redemptions without being its handle.
fn one_use_id(cti: Cti) -> ProofId {
    let mut id = [0; 16];
    id.copy_from_slice(&sha256(&cti.0)[..16]);
    ProofId(id)
}
