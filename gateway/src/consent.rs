//! The consent stage: nothing leaves without the traveler's verified consent for this venue, purpose and scope (I1).
//!
//! The order is fixed, and a test holds which refusal wins: layout, issuer, key, algorithm, signature; then life, audience,
//! purpose; then the proof's presence, layout, signature, life and venue.

use proto::{
    policy::Policy,
    proof::{Proof, ProofId},
    refusal::{Object, Reason, Refusal},
    suite::sha256,
    terms::Kind,
    time::UnixTime,
    token::{ConsentToken, Cti, UnverifiedToken},
    trust::TrustList,
};

use crate::query::Query;

/// Reads the token and verifies its issuer's signature: from here on it is known whose traveler this is about.
pub(crate) fn authenticate(query: &Query, list: &TrustList) -> Result<ConsentToken, Refusal> {
    let token = UnverifiedToken::parse(&query.token)?;
    let key = list.consent_key(token.issuer(), token.kid())?;
    token.verify(key)
}

/// What using this consent takes from it for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A proof bound to the venue: nothing; it is good there alone and dies soon.
    Bound,
    /// A proof for whichever venue comes first: that venue has it.
    FirstVenue(ProofId, UnixTime),
    /// A printed code: online each time, compared with the document by a person.
    Paper,
    /// An assisted token: one exchange.
    Once(ProofId, UnixTime),
}

/// Checks that the traveler's consent covers this query, now and here.
pub(crate) fn check(query: &Query, token: &ConsentToken, policy: &Policy, now: UnixTime) -> Result<Use, Refusal> {
    let consent = token.consent();
    token.check_time(now, policy.lives.of(consent.kind))?;
    token.check_audience(&query.venue)?;
    token.check_purpose(query.purpose)?;
    match (&query.proof, consent.kind) {
        (None, Kind::Own | Kind::Dependent) => Err(Refusal::of(Object::Token, Reason::ProofMissing)),
        (Some(_), Kind::Paper | Kind::Assisted) => Err(Refusal::of(Object::Proof, Reason::ProofUnexpected)),
        (None, Kind::Paper) => Ok(Use::Paper),
        (None, Kind::Assisted) => Ok(Use::Once(one_use_id(consent.cti), consent.expires_at)),
        (Some(proof), Kind::Own | Kind::Dependent) => {
            let proof = Proof::verify(proof, token)?;
            proof.check_time(now, policy.lives.proof)?;
            proof.check_venue(&query.venue)?;
            Ok(if proof.venue.is_some() { Use::Bound } else { Use::FirstVenue(proof.id, proof.expires_at) })
        }
    }
}

/// Names a one-use token among redemptions without being its handle.
fn one_use_id(cti: Cti) -> ProofId {
    let mut id = [0; 16];
    id.copy_from_slice(&sha256(&cti.0)[..16]);
    ProofId(id)
}
