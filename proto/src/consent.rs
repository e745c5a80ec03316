//! Whether a consent covers one use: checked by the gateway before anything is asked of home, and by home again.
//!
//! The order is fixed, and tests on both sides hold which refusal wins: the token's life, audience and purpose; the proof's
//! presence, layout, signature, life and venue; then the policy. Upholds I1 and I8.

use crate::{
    policy::Policy,
    proof::Proof,
    refusal::{Object, Reason, Refusal},
    terms::{Purpose, Scope},
    time::UnixTime,
    token::ConsentToken,
    venue::VenueId,
};

/// One use of a consent.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    /// The proof's bytes; paper and assisted tokens have none.
    pub proof: Option<&'a [u8]>,
    /// The venue that asks.
    pub venue: &'a VenueId,
    /// Why it asks.
    pub purpose: Purpose,
}

impl ConsentToken {
    /// Checks that the traveler's consent covers this use now. Returns the proof, if this kind of token needs one.
    pub fn check_use(&self, usage: Use<'_>, policy: &Policy, now: UnixTime) -> Result<Option<Proof>, Refusal> {
        self.check_time(now, policy.lives.of(self.consent().kind))?;
        self.check_audience(usage.venue)?;
        self.check_purpose(usage.purpose)?;
        let Some(proof) = usage.proof else {
            let needed = self.consent().kind.has_device();
            return if needed { Err(Refusal::of(Object::Proof, Reason::ProofMissing)) } else { Ok(None) };
        };
        let proof = Proof::verify(proof, self)?;
        proof.check_time(now, policy.lives.proof)?;
        proof.check_venue(usage.venue)?;
        Ok(Some(proof))
    }

    /// What this use may disclose: the traveler's consent, cut down to what policy lets this venue see for this purpose; of
    /// that all, or the part that is `wanted`.
    pub fn grant(&self, usage: Use<'_>, policy: &Policy, wanted: Option<Scope>) -> Result<Scope, Refusal> {
        let (category, purpose) = (usage.venue.category(), usage.purpose);
        let not_admitted =
            || Refusal::new(Reason::PurposeNotAdmitted).with("category", category).with("purpose", purpose);
        let admitted = policy.grant(category, purpose).ok_or_else(not_admitted)?;
        // Consents and grants hold the level at least, so there is always something in common.
        let granted = self.consent().scope.intersection(admitted).ok_or_else(not_admitted)?;
        match wanted {
            None => Ok(granted),
            Some(wanted) if granted.contains(wanted) => Ok(wanted),
            Some(_) => Err(Refusal::new(Reason::ScopeNotGranted).with("granted", granted.bits())),
        }
    }
}
