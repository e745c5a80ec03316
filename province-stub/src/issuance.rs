//! Issuing a consent: what a device asked for and signed becomes a token that the traveler can show.
//!
//! Upholds I1 (nothing is issued that the traveler's own device did not sign, nor for longer than policy allows) and I6
//! (a fresh random handle, a fresh key: two tokens of one person have nothing in common).

use std::time::Duration;

use proto::{
    consent_request::{ConsentRequest, UnverifiedRequest},
    policy::Policy,
    presentation::HintKey,
    random,
    refusal::{Object, Reason, Refusal},
    statement::LogHead,
    suite::VerifyingKey,
    terms::{Kind, Purposes, Scope},
    time::UnixTime,
    token::{Audience, Consent, Cti},
};
use tracing::instrument;

use crate::{
    home::Home,
    request::{Method, RequestKey, digest},
    store::{Device, DeviceId, NewConsent, PersonId, Store, StoreError},
};

/// What the phone gets.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The token's handle.
    pub cti: Cti,
    /// The token.
    pub token: Vec<u8>,
    /// `k`, which opens the sealed hint.
    pub hint_key: HintKey,
    /// When the token expires.
    pub expires_at: UnixTime,
}

redacted!(Issued);

/// What a consent is to say, whoever asked for it.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) audience: Audience,
    pub(crate) purposes: Purposes,
    pub(crate) scope: Scope,
    pub(crate) kind: Kind,
    pub(crate) life: Duration,
    pub(crate) token_key: Option<VerifyingKey>,
}

/// Issues what a signed request asks for; the same request, known by its nonce, gets the same token. Returns also where the
/// change log stood with it: a paper that takes the place of another has written there.
///
/// Refused in this order: layout, unknown device, signature, age, kind, keys, scope, life; then by the store: keys used
/// before, quota.
#[instrument(level = "debug", skip_all)]
pub async fn issue<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    request: &[u8],
) -> Result<(Issued, LogHead), Refusal> {
    let request = UnverifiedRequest::parse(request)?;
    let device_id = DeviceId(request.device_id());
    let device = home.store.device(device_id).await?;
    let request = request.verify(&device.enrollment_key, now)?;
    let key = request_key(&request, now);
    let terms = admit(policy, &device, request)?;
    let consent = sign(home, terms, device.person, Some(device_id), now)?;
    let limit = policy.quotas.live_consents_per_traveler;
    let (issued, head) = home.store.issue_consent(&key, &consent, limit, &*home.random).await.map_err(refuse)?;
    let hint_key = home.keys.secret.hint_key(issued.cti);
    Ok((Issued { cti: issued.cti, token: issued.token, hint_key, expires_at: issued.expires_at }, head))
}

/// What the store refuses, in the words of a consent request.
pub(crate) fn refuse(error: StoreError) -> Refusal {
    match error {
        StoreError::KeyReused => token_key("was used before; the device makes a fresh key for every token"),
        error => error.into(),
    }
}

/// Signs what the terms say, under a fresh handle.
pub(crate) fn sign<S>(
    home: &Home<S>,
    terms: Terms,
    person: PersonId,
    device: Option<DeviceId>,
    now: UnixTime,
) -> Result<NewConsent, Refusal> {
    let Terms { audience, purposes, scope, kind, life, token_key } = terms;
    let consent = Consent {
        issuer: home.member,
        audience,
        issued_at: now,
        expires_at: now.plus(life),
        cti: Cti(random::bytes(&*home.random)),
        device_key: token_key,
        purposes,
        scope,
        kind,
    };
    // Kind, keys and life were checked with words of their own; what is left is the scope.
    consent.check().map_err(|what| Refusal::field("consent_request.scope", what))?;
    let token = consent.sign(&home.keys.consent);
    let Consent { cti, expires_at, device_key: token_key, .. } = consent;
    Ok(NewConsent { cti, person, device, kind, scope, token_key, issued_at: now, expires_at, token })
}

/// Checks a life against the policy's.
pub(crate) fn check_life(policy: &Policy, kind: Kind, life: Duration) -> Result<(), Refusal> {
    let max = policy.lives.of(kind);
    if life.is_zero() {
        return Err(Refusal::field("consent_request.life", "is at least one second"));
    }
    if life > max {
        return Err(Refusal::of(Object::ConsentRequest, Reason::LifeTooLong).with("max_seconds", max.as_secs()));
    }
    Ok(())
}

/// Checks what was asked for; the signature is checked already.
fn admit(policy: &Policy, device: &Device, request: ConsentRequest) -> Result<Terms, Refusal> {
    let ConsentRequest { audience, purposes, scope, kind, life, token_key: key, .. } = request;
    match kind {
        Kind::Own if key.is_none() => return Err(token_key("is required for the traveler's own phone")),
        Kind::Paper if key.is_some() => return Err(token_key("has no place on paper")),
        Kind::Own | Kind::Paper => {}
        Kind::Dependent | Kind::Assisted => {
            return Err(Refusal::field("consent_request.kind", "own (1) and paper (3) are issued here, no other yet"));
        }
    }
    if key.as_ref() == Some(&device.enrollment_key) {
        return Err(token_key("is the enrolment key; the device makes a fresh key for every token"));
    }
    if !scope.contains(Scope::LEVEL) || (kind == Kind::Paper && scope != Scope::LEVEL) {
        return Err(Refusal::field("consent_request.scope", "has the level, and on paper nothing else"));
    }
    check_life(policy, kind, life)?;
    Ok(Terms { audience, purposes, scope, kind, life, token_key: key })
}

fn token_key(what: &str) -> Refusal {
    Refusal::field("consent_request.token_key", what)
}

/// A request's own name: its device and nonce. When it was signed is left out, so that a phone may sign the same
/// request again after its first signature has aged.
fn request_key(request: &ConsentRequest, now: UnixTime) -> RequestKey {
    let purposes: Vec<u8> = request.purposes.iter().map(|purpose| purpose.number()).collect();
    let audience = request.audience.to_string();
    let asked = [
        audience.as_bytes(),
        &purposes,
        &[request.scope.bits(), request.kind.number()],
        &request.life.as_secs().to_be_bytes(),
        request.token_key.as_ref().map_or(&[], VerifyingKey::encoded),
    ];
    RequestKey {
        caller: format!("device {}", hex(&request.device_id)),
        id: hex(&request.nonce),
        method: Method::IssueConsent,
        digest: digest(&asked),
        at: now,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proto::{
        suite::{SigningKey, Suite},
        token::UnverifiedToken,
    };

    use super::*;
    use crate::{
        seed::Condition,
        test_support::{Fixture, HOUR, NOW, consent_request, device_key, member, seeded},
    };

    /// What became of a request that `change` made different.
    async fn asked(change: impl FnOnce(&mut ConsentRequest, &SigningKey)) -> Result<(Issued, LogHead), Refusal> {
        let fixture = Fixture::new().await;
        let (device, enrollment_key) = fixture.enroll(&seeded(Condition::Green)).await;
        let mut request = consent_request(device, &device_key());
        change(&mut request, &enrollment_key);
        issue(&fixture.home, &fixture.policy, NOW, &request.sign(&enrollment_key)).await
    }

    async fn refused(change: impl FnOnce(&mut ConsentRequest, &SigningKey)) -> (Reason, String) {
        let refusal = asked(change).await.unwrap_err();
        (refusal.reason(), refusal.to_string())
    }

    #[tokio::test]
    async fn a_token_says_what_the_device_asked_for() {
        let fixture = Fixture::new().await;
        let (device, enrollment_key) = fixture.enroll(&seeded(Condition::Green)).await;
        let key = device_key();
        let request = consent_request(device, &key);
        let bytes = request.sign(&enrollment_key);
        let (issued, head) = issue(&fixture.home, &fixture.policy, NOW, &bytes).await.unwrap();
        assert_eq!(head, fixture.home.store.head().await.unwrap());
        let token = UnverifiedToken::parse(&issued.token).unwrap();
        let token = token.verify(fixture.home.keys.consent.verifying_key()).unwrap();
        let expected = Consent {
            issuer: member(),
            audience: request.audience.clone(),
            issued_at: NOW,
            expires_at: NOW.plus(HOUR),
            cti: issued.cti,
            device_key: Some(key.verifying_key().clone()),
            purposes: request.purposes,
            scope: request.scope,
            kind: Kind::Own,
        };
        assert_eq!(token.consent(), &expected);
        assert_eq!(issued.hint_key, fixture.home.keys.secret.hint_key(issued.cti));
        assert_eq!(issued.expires_at, NOW.plus(HOUR));
        // The same bytes, and the same request signed anew a minute later, are the same request.
        assert_eq!(issue(&fixture.home, &fixture.policy, NOW, &bytes).await.unwrap().0, issued);
        let later = NOW.plus(HOUR / 60);
        let anew = ConsentRequest { issued_at: later, ..request.clone() }.sign(&enrollment_key);
        assert_eq!(issue(&fixture.home, &fixture.policy, later, &anew).await.unwrap().0, issued);
        // Its nonce with another content is not.
        let other = ConsentRequest { life: HOUR / 2, ..request }.sign(&enrollment_key);
        let refusal = issue(&fixture.home, &fixture.policy, NOW, &other).await.unwrap_err();
        assert_eq!(refusal.reason(), Reason::RequestIdReused);
    }

    #[tokio::test]
    async fn paper_has_no_key_and_the_level_alone() {
        let paper = |request: &mut ConsentRequest| {
            (request.kind, request.scope, request.token_key) = (Kind::Paper, Scope::LEVEL, None);
            request.life = HOUR * 24 * 14;
        };
        let issued = asked(|request, _| paper(request)).await.unwrap();
        assert_eq!(issued.0.expires_at, NOW.plus(HOUR * 24 * 14));
        let (reason, text) = refused(|request, _| {
            paper(request);
            request.token_key = Some(device_key().verifying_key().clone());
        })
        .await;
        assert!(reason == Reason::FieldInvalid && text.contains("token_key"), "{text}");
        let (reason, text) = refused(|request, _| {
            paper(request);
            request.scope = Scope::LEVEL.union(Scope::IDENTITY_HINT);
        })
        .await;
        assert!(reason == Reason::FieldInvalid && text.contains("scope"), "{text}");
        let long = refused(|request, _| {
            paper(request);
            request.life += Duration::from_secs(1);
        });
        assert_eq!(long.await.0, Reason::LifeTooLong);
    }

    #[tokio::test]
    async fn every_way_to_be_wrong_has_its_reason() {
        for kind in [Kind::Dependent, Kind::Assisted] {
            let (reason, text) = refused(|request, _| request.kind = kind).await;
            assert!(reason == Reason::FieldInvalid && text.contains("consent_request.kind"), "{text}");
        }
        let (reason, text) = refused(|request, _| request.token_key = None).await;
        assert!(reason == Reason::FieldInvalid && text.contains("token_key"), "{text}");
        let (reason, text) =
            refused(|request, enrolled| request.token_key = Some(enrolled.verifying_key().clone())).await;
        assert!(reason == Reason::FieldInvalid && text.contains("enrolment key"), "{text}");
        let (reason, text) = refused(|request, _| request.life = Duration::ZERO).await;
        assert!(reason == Reason::FieldInvalid && text.contains("life"), "{text}");
        let (reason, text) = refused(|request, _| request.life = HOUR * 25).await;
        assert!(reason == Reason::LifeTooLong && text.contains("max_seconds 86400"), "{text}");
        let (reason, text) = refused(|request, _| request.scope = Scope::TESTS).await;
        assert!(reason == Reason::FieldInvalid && text.contains("scope"), "{text}");
        assert_eq!(refused(|request, _| request.device_id = [0; 16]).await.0, Reason::DeviceUnknown);
        assert_eq!(refused(|request, _| request.issued_at = NOW.minus(HOUR)).await.0, Reason::Expired);
        assert_eq!(refused(|request, _| request.issued_at = NOW.plus(HOUR)).await.0, Reason::DeviceClockOff);
    }

    #[tokio::test]
    async fn only_the_enrolled_device_asks_with_fresh_keys_and_within_the_quota() {
        let fixture = Fixture::new().await;
        let (device, enrollment_key) = fixture.enroll(&seeded(Condition::Green)).await;
        let ask = async |key: &SigningKey, signer: &SigningKey| {
            let bytes = consent_request(device, key).sign(signer);
            issue(&fixture.home, &fixture.policy, NOW, &bytes).await.map_err(|refusal| refusal.reason())
        };
        let key = device_key();
        assert_eq!(ask(&key, &device_key()).await, Err(Reason::SignatureInvalid));
        let ed25519 = SigningKey::generate(Suite::Ed25519);
        assert_eq!(ask(&key, &ed25519).await, Err(Reason::SignatureInvalid));
        assert!(ask(&key, &enrollment_key).await.is_ok());
        assert_eq!(ask(&key, &enrollment_key).await, Err(Reason::FieldInvalid), "a token key is used once");
        for _ in 1..fixture.policy.quotas.live_consents_per_traveler {
            assert!(ask(&device_key(), &enrollment_key).await.is_ok());
        }
        assert_eq!(ask(&device_key(), &enrollment_key).await, Err(Reason::TooManyConsents));
        let refusal = issue(&fixture.home, &fixture.policy, NOW, b"no request").await.unwrap_err();
        assert_eq!(refusal.reason(), Reason::NotCbor);
    }
}
