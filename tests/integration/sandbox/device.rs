//! A phone whose every key and message the test can see, and bend.

use std::time::Duration;

use proto::{
    cbor,
    consent_request::ConsentRequest,
    contract::{
        traveler::{
            EnrollDeviceRequest, EnrollDeviceResponse, IssueConsentRequest, IssueConsentResponse,
            traveler_service_client::TravelerServiceClient,
        },
        types,
    },
    member::Member,
    random::{self, SystemRandom},
    suite::{SigningKey, Suite},
    terms::{Kind, Purposes, Scope},
    token::{Audience, device_key_to_cose},
};
use province_stub::seed::SeededPerson;
use tongxing::phone::request_id;
use tonic::{Status, transport::Channel};

use super::{
    Sandbox,
    wire::{self, Shown},
};

/// An enrolled phone.
pub(crate) struct Device {
    pub(crate) id: [u8; 16],
    pub(crate) enrollment: SigningKey,
    client: TravelerServiceClient<Channel>,
}

/// A person's document on the wire.
pub(crate) fn document(person: &SeededPerson) -> Option<types::Document> {
    Some(tongxing::phone::document(person))
}

/// The request to enrol a phone with this key.
pub(crate) fn enrollment(person: &SeededPerson, key: &SigningKey) -> EnrollDeviceRequest {
    EnrollDeviceRequest {
        request_id: request_id(),
        document: document(person),
        name: person.name.as_str().to_owned(),
        enrollment_key: cbor::encode(&device_key_to_cose(key.verifying_key())).unwrap(),
        person_reference: String::new(),
    }
}

impl Sandbox {
    /// A member's backend at its node.
    pub(crate) fn travelers(&self, home: Member) -> TravelerServiceClient<Channel> {
        let shown = Shown::read(&self.layout().backend(home));
        TravelerServiceClient::new(wire::channel(&self.desk.node_address(home).unwrap(), Some(&shown)))
    }

    /// Enrols a phone.
    pub(crate) async fn device(&self, home: Member, person: &SeededPerson) -> Device {
        let (enrollment, mut client) = (SigningKey::generate(Suite::Esp256), self.travelers(home));
        let response = client.enroll_device(self::enrollment(person, &enrollment)).await;
        let EnrollDeviceResponse { device_id, home_time, .. } = response.expect("the phone enrols").into_inner();
        assert_eq!(home_time, Some(self.now().to_protobuf()), "home says another time");
        Device { id: device_id.try_into().expect("16 bytes"), enrollment, client }
    }

    /// A phone that a test enrolled itself.
    pub(crate) fn device_of(&self, home: Member, id: [u8; 16], enrollment: SigningKey) -> Device {
        Device { id, enrollment, client: self.travelers(home) }
    }

    /// What a device that consents to everything asks for.
    pub(crate) fn wish(&self, device: &Device) -> ConsentRequest {
        ConsentRequest {
            device_id: device.id,
            audience: Audience::Anywhere,
            purposes: Purposes::ALL,
            scope: Scope::ALL,
            kind: Kind::Own,
            life: Duration::from_secs(3600),
            token_key: Some(SigningKey::generate(Suite::Esp256).verifying_key().clone()),
            issued_at: self.now(),
            nonce: random::bytes(&SystemRandom),
        }
    }
}

impl Device {
    /// Signs a wish and sends it.
    pub(crate) async fn ask(&self, wish: &ConsentRequest) -> Result<IssueConsentResponse, Status> {
        self.send(wish.sign(&self.enrollment)).await
    }

    /// Sends whatever it is.
    pub(crate) async fn send(&self, consent_request: Vec<u8>) -> Result<IssueConsentResponse, Status> {
        let request = IssueConsentRequest { consent_request };
        self.client.clone().issue_consent(request).await.map(tonic::Response::into_inner)
    }
}
