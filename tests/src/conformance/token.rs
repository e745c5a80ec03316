//! Whether a token is what was asked for, and what consent-token.cddl says.

use proto::{
    consent_request::ConsentRequest,
    contract::traveler::IssueConsentResponse,
    cose::MAX_OBJECT_BYTES,
    member::Member,
    presentation::HintKey,
    time::{CLOCK_LEEWAY, UnixTime},
    token::{Consent, UnverifiedToken},
    trust::TrustList,
};

/// Reads an issued token; what is wrong with it is said in a line.
pub(super) fn check(
    answer: &IssueConsentResponse,
    asked: &ConsentRequest,
    list: &TrustList,
    home: Member,
    now: UnixTime,
) -> Result<(Consent, HintKey), String> {
    if answer.token.len() > MAX_OBJECT_BYTES {
        return Err(format!("a token of {} bytes", answer.token.len()));
    }
    let token = UnverifiedToken::parse(&answer.token).map_err(|refusal| format!("a token that is {refusal}"))?;
    let key = list.consent_key(home, token.kid()).map_err(|refusal| format!("a token whose key is {refusal}"))?;
    let token = token.verify(key).map_err(|refusal| format!("a token that is {refusal}"))?;
    let consent = token.consent();
    let life = consent.expires_at.since(consent.issued_at);
    let hint_key = HintKey(answer.hint_key.as_slice().try_into().map_err(|_| "a hint key that is not 16 bytes")?);
    let home_time = answer.home_time.as_ref().and_then(|home| u64::try_from(home.seconds).ok());
    let expire_time = answer.expire_time.as_ref().map(|time| time.seconds);
    let faults = [
        (consent.issuer != home, "another issuer"),
        (consent.audience != asked.audience, "another audience"),
        (consent.purposes != asked.purposes, "other purposes"),
        (consent.scope != asked.scope, "another scope"),
        (consent.kind != asked.kind, "another kind"),
        (consent.device_key != asked.token_key, "another key than the one asked for"),
        (life != asked.life.as_secs(), "another life than was asked for"),
        (!near(consent.issued_at, now), "issued at another time than now"),
        (consent.cti.0 == asked.nonce, "the request's own id for its cti"),
        (expire_time != Some(consent.expires_at.to_protobuf().seconds), "another expire_time"),
        (home_time.is_none_or(|home| !near(UnixTime::from_secs(home), now)), "a home_time that is not now"),
    ];
    match faults.into_iter().find(|(wrong, _)| *wrong) {
        Some((_, what)) => Err(format!("a token with {what}")),
        None => Ok((consent.clone(), hint_key)),
    }
}

/// Whether two clocks agree, as far as clocks have to.
pub(super) fn near(one: UnixTime, other: UnixTime) -> bool {
    one.since(other).max(other.since(one)) <= CLOCK_LEEWAY.as_secs()
}
