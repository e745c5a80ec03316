//! A traveler's phone and the backend it talks to: enrol, ask for a consent token, make proofs.
//!
//! The phone makes a fresh key for every token; the enrolment key never leaves home (DESIGN §4).

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow};
use gateway::pki::write_private;
use peer::{
    config::{parse_hex, to_hex},
    dial::{self, DialLimits},
    serve::Standing,
    verifier::Expected,
};
use proto::{
    cbor,
    consent_request::ConsentRequest,
    contract::{
        assignment::CodeExplanation,
        traveler::{
            Access, Consent, EnrollDeviceRequest, GetCodeRequest, IssueConsentRequest, ListAccessesRequest,
            ListConsentsRequest, RevokeConsentRequest, traveler_service_client::TravelerServiceClient,
        },
        types,
    },
    member::Member,
    presentation::{HintKey, Presentation},
    proof::prove,
    random::{self, SystemRandom},
    suite::{SigningKey, Suite},
    terms::{Kind, Purposes, Scope},
    time::UnixTime,
    token::{Audience, Cti, TokenHash, UnverifiedToken, device_key_to_cose},
    venue::VenueId,
};
use province_stub::seed::SeededPerson;
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;

/// How long a proof lives unless it is asked otherwise: what the national policy allows.
pub const PROOF_LIFE: Duration = Duration::from_secs(60);

/// A member's backend, speaking for its travelers.
#[derive(Clone, Debug)]
pub struct Backend {
    client: TravelerServiceClient<Channel>,
}

/// How much of a list comes at once.
const PAGE: i32 = 100;

/// An enrolled phone.
#[derive(Debug)]
pub struct Phone {
    backend: Backend,
    device_id: [u8; 16],
    enrollment_key: SigningKey,
}

/// What a traveler agrees to.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Where.
    pub audience: Audience,
    /// What for.
    pub purposes: Purposes,
    /// Disclosing what.
    pub scope: Scope,
    /// Own phone or paper.
    pub kind: Kind,
    /// How long.
    pub life: Duration,
}

/// A token on a phone, with the key that proves it is this phone's; paper has no key.
#[derive(Debug)]
pub struct Pass {
    token: Vec<u8>,
    cti: Cti,
    key: Option<SigningKey>,
    hint_key: HintKey,
    /// When the token expires.
    pub expires_at: UnixTime,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            audience: Audience::Anywhere,
            purposes: Purposes::ALL,
            scope: Scope::ALL,
            kind: Kind::Own,
            life: Duration::from_secs(600),
        }
    }
}

impl Backend {
    /// The backend of a member, with its credentials in `standing`.
    pub fn new(standing: &Standing, member: Member, node: &str) -> Result<Self> {
        let limits = DialLimits { connect_timeout: Duration::from_secs(5), ..DialLimits::default() };
        let channel = dial::channel(standing, node, Expected::NodeOf(member), limits)?;
        Ok(Self { client: TravelerServiceClient::new(channel) })
    }

    /// Enrols a new phone for a person.
    pub async fn enroll(&self, person: &SeededPerson) -> Result<Phone> {
        self.enroll_as(person, "").await
    }

    /// The same for somebody whom the member's own platform knows by this reference; by none if it is empty.
    pub async fn enroll_as(&self, person: &SeededPerson, reference: &str) -> Result<Phone> {
        let enrollment_key = SigningKey::generate(Suite::Esp256);
        let cose_key = cbor::encode(&device_key_to_cose(enrollment_key.verifying_key())).context("a key encodes")?;
        let request = EnrollDeviceRequest {
            request_id: request_id(),
            document: Some(document(person)),
            name: person.name.as_str().to_owned(),
            enrollment_key: cose_key,
            person_reference: reference.to_owned(),
        };
        let response = self.client.clone().enroll_device(request).await?.into_inner();
        let device_id = response.device_id.try_into().map_err(|_| anyhow!("the node's device id is not 16 bytes"))?;
        Ok(Phone { backend: self.clone(), device_id, enrollment_key })
    }
}

/// A phone as it is kept between commands: what it has in its secure hardware otherwise.
#[derive(Serialize, Deserialize)]
struct Kept {
    device_id: String,
    enrollment_key: String,
}

impl Phone {
    /// Its id at home.
    pub fn id(&self) -> [u8; 16] {
        self.device_id
    }

    /// Keeps it in a file that its owner alone can read.
    pub fn keep(&self, path: &Path) -> Result<()> {
        let kept = Kept { device_id: to_hex(&self.device_id), enrollment_key: to_hex(&self.enrollment_key.to_pkcs8()) };
        write_private(path, &serde_json::to_vec(&kept)?)
    }

    /// A phone that was kept; `None` if there is none, or none that can be read.
    pub fn kept(path: &Path, backend: &Backend) -> Option<Self> {
        let kept: Kept = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let enrollment_key = SigningKey::from_pkcs8(Suite::Esp256, &parse_hex(&kept.enrollment_key)?).ok()?;
        Some(Self { backend: backend.clone(), device_id: parse_hex(&kept.device_id)?.try_into().ok()?, enrollment_key })
    }

    /// Asks home for a token, as the traveler wishes.
    pub async fn consent(&self, wish: &Wish, now: UnixTime) -> Result<Pass> {
        let key = wish.kind.has_device().then(|| SigningKey::generate(Suite::Esp256));
        let request = ConsentRequest {
            device_id: self.device_id,
            audience: wish.audience.clone(),
            purposes: wish.purposes,
            scope: wish.scope,
            kind: wish.kind,
            life: wish.life,
            token_key: key.as_ref().map(|key| key.verifying_key().clone()),
            issued_at: now,
            nonce: random::bytes(&SystemRandom),
        };
        let request = IssueConsentRequest { consent_request: request.sign(&self.enrollment_key) };
        let response = self.backend.client.clone().issue_consent(request).await?.into_inner();
        let hint_key = response.hint_key.try_into().map_err(|_| anyhow!("the node's k is not 16 bytes"))?;
        let expires_at = response.expire_time.context("the node says no expiry")?.seconds;
        let expires_at = UnixTime::from_secs(u64::try_from(expires_at).unwrap_or(0));
        Pass::new(response.token, key, HintKey(hint_key), expires_at)
    }

    /// Takes a consent back. Returns where home's change log stood after it.
    pub async fn revoke(&self, pass: &Pass) -> Result<Vec<u8>> {
        let request = RevokeConsentRequest { device_id: self.device_id.to_vec(), cti: pass.cti.0.to_vec() };
        Ok(self.backend.client.clone().revoke_consent(request).await?.into_inner().change_token)
    }

    /// The traveler's code and why it is so, if they have one.
    pub async fn code(&self) -> Result<Option<CodeExplanation>> {
        let request = GetCodeRequest { device_id: self.device_id.to_vec() };
        Ok(self.backend.client.clone().get_code(request).await?.into_inner().code)
    }

    /// The traveler's consents that have not expired, newest first.
    pub async fn consents(&self) -> Result<Vec<Consent>> {
        let (device_id, mut consents, mut page_token) = (self.device_id.to_vec(), Vec::new(), String::new());
        loop {
            let request = ListConsentsRequest { device_id: device_id.clone(), page_size: PAGE, page_token };
            let page = self.backend.client.clone().list_consents(request).await?.into_inner();
            consents.extend(page.consents);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(consents);
            }
        }
    }

    /// Who asked for the traveler's status, newest first.
    pub async fn accesses(&self) -> Result<Vec<Access>> {
        let (device_id, mut accesses, mut page_token) = (self.device_id.to_vec(), Vec::new(), String::new());
        loop {
            let request = ListAccessesRequest { device_id: device_id.clone(), page_size: PAGE, page_token };
            let page = self.backend.client.clone().list_accesses(request).await?.into_inner();
            accesses.extend(page.accesses);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(accesses);
            }
        }
    }
}

impl Pass {
    /// A token with its key and `k`, as home issued them.
    pub fn new(token: Vec<u8>, key: Option<SigningKey>, hint_key: HintKey, expires_at: UnixTime) -> Result<Self> {
        let cti = UnverifiedToken::parse(&token).map_err(|refusal| anyhow!("the node's token: {refusal}"))?.cti();
        Ok(Self { token, cti, key, hint_key, expires_at })
    }

    /// Its handle.
    pub fn cti(&self) -> Cti {
        self.cti
    }

    /// The token.
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    /// Makes a presentation: bound to a venue whose code was scanned, or to none.
    pub fn present(&self, venue: Option<&VenueId>, now: UnixTime) -> Presentation {
        self.present_by(self.key.as_ref(), venue, now, PROOF_LIFE)
    }

    /// Makes a presentation with another key or another life: what an attacker or a broken phone would do.
    pub fn present_by(
        &self,
        key: Option<&SigningKey>,
        venue: Option<&VenueId>,
        now: UnixTime,
        life: Duration,
    ) -> Presentation {
        let hash = TokenHash::of(&self.token);
        let proof = key.map(|key| prove(hash, self.cti, key, venue, now, life, &SystemRandom));
        Presentation { token: self.token.clone(), proof, hint_key: self.hint_key.clone() }
    }
}

/// A person's document on the wire.
pub fn document(person: &SeededPerson) -> types::Document {
    types::Document { r#type: i32::from(person.document.kind().number()), number: person.document.number().to_owned() }
}

/// A fresh request id.
pub fn request_id() -> String {
    to_hex(&random::bytes::<16>(&SystemRandom))
}
