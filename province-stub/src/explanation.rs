//! Why somebody has the code they have: the rule, the evidence, until when. For the traveler, and for an operator, whose look is on
//! the traveler's record before they see anything.
//!
//! Upholds I2 at home: no operator reads of a person without a record that the person can read. And I4: whose code time alone may have
//! changed is assessed first, here as in a lookup ([`assess_if_due`]), so that no venue sees another code than its traveler.

use proto::{identity::PeerId, policy::Policy, refusal::Refusal, time::UnixTime};
use tracing::instrument;

use crate::{
    document::Document,
    home::Home,
    rules::Rules,
    store::{
        DeviceId, PersonId, Store, StoreError,
        filing::{CodeOnFile, OperatorAccess},
    },
};

/// The code of a device's traveler.
#[instrument(level = "debug", name = "get_code", skip_all)]
pub async fn of_device<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    device: DeviceId,
) -> Result<Option<CodeOnFile>, Refusal> {
    let person = home.store.device(device).await?.person;
    Ok(code(home, policy, now, person).await?)
}

/// The code of a person, for an operator, and why they look.
#[instrument(level = "debug", name = "explain_code", skip_all)]
pub async fn for_operator<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    operator: &PeerId,
    document: Document,
    reason: String,
) -> Result<Option<CodeOnFile>, Refusal> {
    let access = OperatorAccess { document, operator: operator.to_string(), reason, now };
    let person = home.store.record_operator_access(&access).await?;
    Ok(code(home, policy, now, person).await?)
}

/// A person's code as it is now.
async fn code<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    person: PersonId,
) -> Result<Option<CodeOnFile>, StoreError> {
    let on_file = home.store.code_on_file(person).await?;
    let due_at = on_file.as_ref().and_then(|on_file| on_file.due_at);
    if assess_if_due(home, policy, now, person, due_at).await? {
        return home.store.code_on_file(person).await;
    }
    Ok(on_file)
}

/// Assesses a person whose code time alone may have changed by `now`, and says whether it did: what was read of them before is old then.
/// The node does so by itself as well, a moment later ([`crate::reassessment`]).
pub(crate) async fn assess_if_due<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    person: PersonId,
    due_at: Option<UnixTime>,
) -> Result<bool, StoreError> {
    let due = due_at.is_some_and(|due_at| due_at <= now);
    if due {
        home.store.reassess_person(person, &Rules::new(home.member, policy), now, &*home.random).await?;
    }
    Ok(due)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::{
        random::SystemRandom,
        refusal::Reason,
        terms::Scope,
        token::{Cti, UnverifiedToken},
    };

    use super::*;
    use crate::{
        evidence::{Content, Fact, Foreign, PersonKey, Record},
        seed::{Condition, SeededPerson},
        store::filing::Intake,
        test_support::{Fixture, HOUR, NOW, Phone, member, seeded},
    };

    /// A positive test of somebody green, an hour ago.
    async fn test_positive(fixture: &Fixture, person: &SeededPerson) {
        let fact = Fact::Test { sampled_at: NOW.minus(HOUR), positive: true };
        let (person, authority) = (PersonKey::Document(person.document.clone()), "41/cdc".parse().unwrap());
        let content = Content::About { person, fact, authority };
        let records = [Record { id: Foreign::new("t-1").unwrap(), revision: 0, content }];
        let intake = Intake { source: "41/feed/lab-1", records: &records, now: NOW, dry_run: false };
        let rules = Rules::new(member(), &fixture.policy);
        fixture.home.store.put_evidence(&intake, &rules, &SystemRandom).await.unwrap();
    }

    fn cti(fixture: &Fixture, phone: &Phone) -> Cti {
        let token = UnverifiedToken::parse(&phone.issued.token).unwrap();
        let key = fixture.list.consent_key(member(), token.kid()).unwrap();
        token.verify(key).unwrap().consent().cti
    }

    #[tokio::test]
    async fn no_code_is_explained_whose_time_is_over() {
        let operator = PeerId::operator(member(), "li").unwrap();
        for by_operator in [false, true] {
            let fixture = Fixture::new().await;
            let (home, policy, person) = (&fixture.home, &fixture.policy, seeded(Condition::Green));
            test_positive(&fixture, &person).await;
            let phone = fixture.phone(&person, |_| {}).await;
            let (device, _) = fixture.enroll(&person).await;
            let explain = async |now| {
                let code = if by_operator {
                    for_operator(home, policy, now, &operator, person.document.clone(), "a call".into()).await
                } else {
                    of_device(home, policy, now, device).await
                };
                code.unwrap().unwrap()
            };
            let yellow = explain(NOW).await;
            let end = yellow.ends_at.unwrap();
            assert_eq!((yellow.code.label.as_str(), yellow.due_at), ("黄码", Some(end)));
            assert_eq!(explain(end.minus(Duration::from_secs(1))).await, yellow, "not before its time");
            let green = explain(end).await;
            assert_eq!((green.code.label.as_str(), green.ends_at), ("绿码", None));
            let found = home.store.find(cti(&fixture, &phone), Scope::LEVEL).await.unwrap().found.unwrap();
            assert_eq!(found.code, Some(green.code), "a venue sees the same");
        }
    }

    #[tokio::test]
    async fn who_is_unknown_and_a_store_that_is_closed_are_told() {
        let fixture = Fixture::new().await;
        let explain = async || of_device(&fixture.home, &fixture.policy, NOW, DeviceId([0; 16])).await;
        assert_eq!(explain().await.unwrap_err().reason(), Reason::DeviceUnknown);
        fixture.home.store.close().await;
        assert_eq!(explain().await.unwrap_err().reason(), Reason::StoreUnavailable);
    }
}
