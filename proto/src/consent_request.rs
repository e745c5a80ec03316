//! The consent request: what a phone asks its home node for, signed by the key it enrolled with.
//!
//! It travels between phone, backend and home node only. The token names the fresh key inside the request, never the
//! enrolment key, which would link what the random `cti` unlinks (I6).

use std::time::Duration;

use ciborium::Value;

use crate::{
    cbor::{Fields, MapBuilder},
    cose::{self, Unverified},
    refusal::{Object, Reason, Refusal},
    suite::{SigningKey, VerifyingKey},
    terms::{Kind, Purpose, Purposes, Scope},
    time::{CLOCK_LEEWAY, UnixTime},
    token::{Audience, device_key_to_cose, parse_cnf, parse_purposes},
    venue::VenueId,
};

const AUD: i64 = 3;
const IAT: i64 = 6;
const CTI: i64 = 7;
const CNF: i64 = 8;
const WISH: i64 = -65539;

const CNF_COSE_KEY: i64 = 1;

const DEVICE: i64 = 1;
const PURPOSES: i64 = 2;
const SCOPE: i64 = 3;
const KIND: i64 = 4;
const LIFE: i64 = 5;

const OBJECT: Object = Object::ConsentRequest;

/// How old a request may be when home reads it.
pub const MAX_AGE: Duration = Duration::from_secs(300);

/// What the traveler agrees to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentRequest {
    /// The enrolled device that asks.
    pub device_id: [u8; 16],
    /// Where the token may be redeemed.
    pub audience: Audience,
    /// For which purposes.
    pub purposes: Purposes,
    /// Disclosing what.
    pub scope: Scope,
    /// How the traveler consents: own, dependent or paper.
    pub kind: Kind,
    /// For how long.
    pub life: Duration,
    /// The fresh key of this token alone; paper has none.
    pub token_key: Option<VerifyingKey>,
    /// When the device made the request.
    pub issued_at: UnixTime,
    /// Random: asking again with the same one is the same request.
    pub nonce: [u8; 16],
}

impl ConsentRequest {
    /// Signs it with the enrolment key.
    pub fn sign(&self, enrollment_key: &SigningKey) -> Vec<u8> {
        let cnf =
            self.token_key.as_ref().map(|key| MapBuilder::new().put(CNF_COSE_KEY, device_key_to_cose(key)).build());
        let wish = MapBuilder::new()
            .put(DEVICE, self.device_id.to_vec())
            .put(PURPOSES, self.purposes.iter().map(|p| Value::from(p.number())).collect::<Vec<_>>())
            .put(SCOPE, self.scope.bits())
            .put(KIND, self.kind.number())
            .put(LIFE, self.life.as_secs());
        let payload = MapBuilder::new()
            .put(AUD, self.audience.to_string())
            .put(IAT, self.issued_at.as_secs())
            .put(CTI, self.nonce.to_vec())
            .put_some(CNF, cnf)
            .put(WISH, wish.build())
            .encode();
        cose::sign(OBJECT, enrollment_key, enrollment_key.verifying_key().kid(), payload, b"")
    }
}

/// A request that is well formed; nobody has checked its signature yet.
#[derive(Debug)]
pub struct UnverifiedRequest {
    object: Unverified,
    request: ConsentRequest,
}

impl UnverifiedRequest {
    /// Reads a request of at most [`cose::MAX_OBJECT_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let object = Unverified::parse(OBJECT, bytes)?;
        let request = parse(object.payload()?)?;
        Ok(Self { object, request })
    }

    /// The device whose key to look up.
    pub fn device_id(&self) -> [u8; 16] {
        self.request.device_id
    }

    /// Checks signature and age.
    pub fn verify(self, enrollment_key: &VerifyingKey, now: UnixTime) -> Result<ConsentRequest, Refusal> {
        if self.object.kid() != enrollment_key.kid() {
            return Err(Refusal::of(OBJECT, Reason::SignatureInvalid));
        }
        self.object.verify(enrollment_key, b"")?;
        let issued_at = self.request.issued_at;
        if issued_at > now.plus(CLOCK_LEEWAY) {
            return Err(Refusal::of(OBJECT, Reason::DeviceClockOff).with("seconds", issued_at.since(now)));
        }
        if now.since(issued_at) > MAX_AGE.as_secs() {
            return Err(Refusal::of(OBJECT, Reason::Expired).with("seconds", now.since(issued_at.plus(MAX_AGE))));
        }
        Ok(self.request)
    }
}

fn parse(payload: Value) -> Result<ConsentRequest, Refusal> {
    let mut claims = Fields::open(OBJECT, payload)?;
    let audience = claims.text(AUD, VenueId::MAX_BYTES)?;
    let audience = audience.parse().map_err(|_| claims.wrong(AUD, "not *, a category or a venue"))?;
    let issued_at = claims.time(IAT)?;
    let nonce = claims.bytes(CTI)?;
    let token_key = claims.optional(CNF).map(|cnf| parse_cnf(OBJECT, cnf)).transpose()?;
    let mut consent = claims.map(WISH)?;
    let device_id = consent.bytes(DEVICE)?;
    let purposes = parse_purposes(OBJECT, &consent.array(PURPOSES, Purpose::ALL.len())?)?;
    let scope = Scope::from_bits(consent.uint(SCOPE)?).map_err(|_| consent.wrong(SCOPE, "not scope bits"))?;
    let kind = Kind::from_number(consent.uint(KIND)?).map_err(|_| consent.wrong(KIND, "not a kind"))?;
    let life = Duration::from_secs(consent.uint(LIFE)?);
    consent.finish()?;
    claims.finish()?;
    Ok(ConsentRequest { device_id, audience, purposes, scope, kind, life, token_key, issued_at, nonce })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn request() -> ConsentRequest {
        ConsentRequest {
            device_id: [1; 16],
            audience: Audience::Anywhere,
            purposes: Purposes::ALL,
            scope: Scope::ALL,
            kind: Kind::Own,
            life: Duration::from_secs(3600),
            token_key: Some(SigningKey::generate(Suite::Esp256).verifying_key().clone()),
            issued_at: NOW,
            nonce: [2; 16],
        }
    }

    #[test]
    fn only_the_enrolled_device_asks_and_only_freshly() {
        let key = SigningKey::generate(Suite::Esp256);
        let bytes = request().sign(&key);
        let parse = || UnverifiedRequest::parse(&bytes).unwrap();
        assert_eq!(parse().device_id(), [1; 16]);
        assert_eq!(parse().verify(key.verifying_key(), NOW), Ok(request_with(&bytes)));
        let other = SigningKey::generate(Suite::Esp256);
        assert_eq!(parse().verify(other.verifying_key(), NOW).unwrap_err().reason(), Reason::SignatureInvalid);
        let at = |now| parse().verify(key.verifying_key(), now).map(drop).map_err(|refusal| refusal.reason());
        assert_eq!(at(NOW.plus(MAX_AGE)), Ok(()));
        assert_eq!(at(NOW.plus(MAX_AGE + Duration::from_secs(1))), Err(Reason::Expired));
        assert_eq!(at(NOW.minus(Duration::from_secs(31))), Err(Reason::DeviceClockOff));
    }

    fn request_with(bytes: &[u8]) -> ConsentRequest {
        UnverifiedRequest::parse(bytes).unwrap().request
    }
}
