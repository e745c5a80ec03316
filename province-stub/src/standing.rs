//! Standing consents: tokens that a member's own tools issue in bulk, without a device's request.
//!
//! They are what the one-machine federation shows at its checkpoints and what load tests present. The caller plays the
//! phones: it makes the token keys, and only their public halves come here. No RPC reaches this.

use std::time::Duration;

use proto::{
    policy::Policy,
    refusal::{Reason, Refusal},
    suite::VerifyingKey,
    terms::{Kind, Purposes, Scope},
    time::UnixTime,
    token::Audience,
};

use crate::{
    document::Document,
    home::Home,
    issuance::{Issued, Terms, check_life, refuse, sign},
    store::Store,
};

/// One standing consent to issue.
#[derive(Clone, Debug)]
pub struct StandingConsent {
    /// Whose it is; the node must have the person.
    pub document: Document,
    /// Where it may be redeemed.
    pub audience: Audience,
    /// For which purposes.
    pub purposes: Purposes,
    /// Disclosing what; paper discloses the level alone.
    pub scope: Scope,
    /// For how long, at most what policy allows.
    pub life: Duration,
    /// A fresh key, for a token of the traveler's own phone; without one it is paper.
    pub token_key: Option<VerifyingKey>,
}

/// Issues all of them or none, in the order given, in one transaction.
pub async fn issue_standing<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    consents: Vec<StandingConsent>,
) -> Result<Vec<Issued>, Refusal> {
    let mut signed = Vec::with_capacity(consents.len());
    for StandingConsent { document, audience, purposes, scope, life, token_key } in consents {
        let person = home.store.person_by_document(&document).await?;
        let person = person.ok_or_else(|| Refusal::new(Reason::PersonUnknown))?;
        let kind = if token_key.is_some() { Kind::Own } else { Kind::Paper };
        check_life(policy, kind, life)?;
        let terms = Terms { audience, purposes, scope, kind, life, token_key };
        signed.push(sign(home, terms, person, None, now)?);
    }
    let limit = policy.quotas.live_consents_per_traveler;
    home.store.issue_standing(&signed, limit).await.map_err(refuse)?;
    let issued = signed.into_iter().map(|consent| Issued {
        cti: consent.cti,
        hint_key: home.keys.secret.hint_key(consent.cti),
        expires_at: consent.expires_at,
        token: consent.token,
    });
    Ok(issued.collect())
}

#[cfg(test)]
mod tests {
    use proto::token::UnverifiedToken;

    use super::*;
    use crate::{
        seed::Condition,
        test_support::{Fixture, HOUR, NOW, device_key, seeded, seeded_document},
    };

    fn standing(token_key: Option<VerifyingKey>) -> StandingConsent {
        StandingConsent {
            document: seeded(Condition::Green).document,
            audience: Audience::Anywhere,
            purposes: Purposes::ALL,
            scope: if token_key.is_some() { Scope::ALL } else { Scope::LEVEL },
            life: HOUR,
            token_key,
        }
    }

    fn own() -> StandingConsent {
        standing(Some(device_key().verifying_key().clone()))
    }

    #[tokio::test]
    async fn issues_all_of_them_in_order() {
        let fixture = Fixture::new().await;
        let consents = vec![own(), standing(None), own()];
        let keys: Vec<_> = consents.iter().map(|consent| consent.token_key.clone()).collect();
        let issued = issue_standing(&fixture.home, &fixture.policy, NOW, consents).await.unwrap();
        for (issued, key) in issued.iter().zip(keys) {
            let token = UnverifiedToken::parse(&issued.token).unwrap();
            let token = token.verify(fixture.home.keys.consent.verifying_key()).unwrap();
            assert_eq!((&token.consent().device_key, token.consent().cti), (&key, issued.cti));
            let found = fixture.home.store.find(issued.cti, Scope::LEVEL).await.unwrap().found.unwrap();
            assert_eq!(found.token, token.hash());
        }
        assert_eq!(issued.len(), 3);
    }

    #[tokio::test]
    async fn one_that_is_wrong_stops_all() {
        let fixture = Fixture::new().await;
        let reason = async |wrong: StandingConsent| {
            let refused = issue_standing(&fixture.home, &fixture.policy, NOW, vec![own(), wrong]).await;
            refused.unwrap_err().reason()
        };
        assert_eq!(reason(StandingConsent { document: seeded_document(50), ..own() }).await, Reason::PersonUnknown);
        assert_eq!(reason(StandingConsent { life: HOUR * 25, ..own() }).await, Reason::LifeTooLong);
        assert_eq!(reason(StandingConsent { life: Duration::ZERO, ..own() }).await, Reason::FieldInvalid);
        assert_eq!(reason(StandingConsent { scope: Scope::ALL, ..standing(None) }).await, Reason::FieldInvalid);
        let twice = own();
        let refused = issue_standing(&fixture.home, &fixture.policy, NOW, vec![twice.clone(), twice]).await;
        assert_eq!(refused.unwrap_err().reason(), Reason::FieldInvalid);
    }
}
