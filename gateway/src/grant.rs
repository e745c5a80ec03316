//! The grant: what the traveler consented to, cut down to what the national policy lets this venue see (I8).

use proto::{
    policy::Policy,
    refusal::{Reason, Refusal},
    terms::Scope,
    token::ConsentToken,
};

use crate::query::Query;

/// The scope of this exchange: all that is granted, or the part of it that was asked for.
pub(crate) fn grant(query: &Query, token: &ConsentToken, policy: &Policy) -> Result<Scope, Refusal> {
    let (category, purpose) = (query.venue.category(), query.purpose);
    let not_admitted = || Refusal::new(Reason::PurposeNotAdmitted).with("category", category).with("purpose", purpose);
    let admitted = policy.grant(category, purpose).ok_or_else(not_admitted)?;
    // Both sides hold the level at least, so there is always something in common.
    let granted = token.consent().scope.intersection(admitted).ok_or_else(not_admitted)?;
    match query.scope {
        None => Ok(granted),
        Some(wanted) if granted.contains(wanted) => Ok(wanted),
        Some(_) => Err(Refusal::new(Reason::ScopeNotGranted).with("granted", granted.bits())),
    }
}
