//! Enrolment: a device's key is bound to a person whom the member's backend has identified.
//!
//! Upholds I6: the enrolment key stays between phone, backend and node. It signs consent requests and is in no token.

use proto::{
    identity::PeerId, policy::Policy, random, refusal::Refusal, statement::LogHead, suite::VerifyingKey, time::UnixTime,
};
use tracing::instrument;

use crate::{
    document::Document,
    evidence::Foreign,
    home::Home,
    request::{Method, RequestId, RequestKey, digest},
    rules::Rules,
    store::{DeviceId, Name, NewDevice, Store, StoreError},
};

/// A device to enrol, as the backend asks for it.
#[derive(Clone, Debug)]
pub struct Enrollment {
    /// The backend's id of the request.
    pub request_id: RequestId,
    /// Whose device it is.
    pub document: Document,
    /// Their name.
    pub name: Name,
    /// The device's key.
    pub enrollment_key: VerifyingKey,
    /// The reference by which the member's own platform knows them, if it does.
    pub reference: Option<Foreign>,
}

/// Enrols a device. A person the node does not know is added, without a code; one it knows by another name is refused,
/// since either the backend or the node has the wrong person. Returns also where the change log stands.
#[instrument(level = "debug", skip_all)]
pub async fn enroll<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    backend: &PeerId,
    enrollment: Enrollment,
) -> Result<(DeviceId, LogHead), Refusal> {
    let Enrollment { request_id, document, name, enrollment_key, reference } = enrollment;
    let asked = [
        &[document.kind().number()][..],
        document.number().as_bytes(),
        name.as_str().as_bytes(),
        enrollment_key.encoded(),
        reference.as_ref().map_or("", Foreign::as_str).as_bytes(),
    ];
    let request = RequestKey {
        caller: backend.to_string(),
        id: request_id.as_str().to_owned(),
        method: Method::EnrollDevice,
        digest: digest(&asked),
        at: now,
    };
    let referred = reference.is_some();
    let device =
        NewDevice { id: DeviceId(random::bytes(&*home.random)), document, name, enrollment_key, reference, now };
    let enrolled = home.store.enroll_device(&request, &device, policy.quotas.devices_per_traveler).await;
    let (device, head) = enrolled.map_err(|error| match error {
        StoreError::KeyReused => Refusal::field("enrollment_key", "was used before; a device makes a fresh key"),
        error => error.into(),
    })?;
    if referred {
        // What was pushed under the reference is theirs from now on, and what follows from both.
        let person = home.store.device(device).await?.person;
        home.store.reassess_person(person, &Rules::new(home.member, policy), now, &*home.random).await?;
    }
    Ok((device, head))
}

#[cfg(test)]
mod tests {
    use proto::refusal::Reason;

    use super::*;
    use crate::{
        seed::Condition,
        test_support::{Fixture, NOW, device_key, member, seeded},
    };

    #[tokio::test]
    async fn enrols_once_and_refuses_what_does_not_fit() {
        let fixture = Fixture::new().await;
        let person = seeded(Condition::Green);
        let backend = PeerId::backend(member(), "app").unwrap();
        let key = device_key().verifying_key().clone();
        let ask = async |id: &str, name: &Name, key: &VerifyingKey| {
            let enrollment = Enrollment {
                request_id: RequestId::new(id).unwrap(),
                document: person.document.clone(),
                name: name.clone(),
                enrollment_key: key.clone(),
                reference: None,
            };
            enroll(&fixture.home, &fixture.policy, NOW, &backend, enrollment).await
        };
        let first = ask("request-1", &person.name, &key).await.unwrap();
        assert_eq!(ask("request-1", &person.name, &key).await.unwrap(), first);
        let other_key = device_key().verifying_key().clone();
        let reason = |refused: Result<(DeviceId, LogHead), Refusal>| refused.unwrap_err().reason();
        assert_eq!(reason(ask("request-1", &person.name, &other_key).await), Reason::RequestIdReused);
        let refusal = ask("request-2", &person.name, &key).await.unwrap_err();
        assert!(refusal.reason() == Reason::FieldInvalid && refusal.to_string().contains("enrollment_key"));
        let stranger = Name::new("上官溪渡").unwrap();
        let refusal = ask("request-3", &stranger, &other_key).await.unwrap_err();
        assert!(refusal.reason() == Reason::FieldInvalid && refusal.to_string().contains("field name"));
        for n in 1..fixture.policy.quotas.devices_per_traveler {
            ask(&format!("request-4-{n}"), &person.name, device_key().verifying_key()).await.unwrap();
        }
        assert_eq!(reason(ask("request-5", &person.name, &other_key).await), Reason::TooManyDevices);
        fixture.home.store.close().await;
        let refusal = ask("request-6", &person.name, &other_key).await.unwrap_err();
        assert_eq!(refusal.reason(), Reason::StoreUnavailable);
        assert!(!refusal.to_string().contains(person.document.number()));
    }
}
