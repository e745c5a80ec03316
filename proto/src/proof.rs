//! The device's proof: fresh, short-lived, signed by the key that the token names. What makes a screenshot worthless.

use std::time::Duration;

use ciborium::Value;

use crate::{
    cbor::{Fields, MapBuilder},
    cose::{self, Unverified},
    random::{self, Random},
    refusal::{Object, Reason, Refusal},
    suite::{Kid, SigningKey, sha256},
    time::{CLOCK_LEEWAY, UnixTime},
    token::{ConsentToken, Cti, TokenHash, check_life, check_not_expired},
    venue::VenueId,
};

const AUD: i64 = 3;
const EXP: i64 = 4;
const IAT: i64 = 6;
const NONCE: i64 = 10;

/// Names one proof for redemption: the first 16 bytes of the SHA-256 of token hash and payload. The signature has no part
/// in it: with `n − s` for `s` an ECDSA signature verifies too, and whoever saw a proof could redeem it once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProofId(pub [u8; 16]);

/// A proof that its token's device made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The venue whose printed code (场所码) the phone scanned; without one, the first venue to redeem it has it.
    pub venue: Option<VenueId>,
    /// When the device made it, by the device's clock.
    pub issued_at: UnixTime,
    /// When it expires.
    pub expires_at: UnixTime,
    /// Its name.
    pub id: ProofId,
}

/// Makes a proof for the token `token` with handle `cti`, as a phone does.
pub fn prove(
    token: TokenHash,
    cti: Cti,
    device_key: &SigningKey,
    venue: Option<&VenueId>,
    now: UnixTime,
    life: Duration,
    random: &dyn Random,
) -> Vec<u8> {
    let payload = MapBuilder::new()
        .put_some(AUD, venue.map(VenueId::to_string))
        .put(EXP, now.plus(life).as_secs())
        .put(IAT, now.as_secs())
        .put(NONCE, random::bytes::<8>(random).to_vec())
        .encode();
    cose::sign(Object::Proof, device_key, kid_of(cti), payload, &token.0)
}

impl Proof {
    /// Reads and verifies a proof against the token it came with.
    pub fn verify(bytes: &[u8], token: &ConsentToken) -> Result<Self, Refusal> {
        let Some(device_key) = &token.consent().device_key else {
            return Err(Refusal::of(Object::Proof, Reason::ProofUnexpected));
        };
        let object = Unverified::parse(Object::Proof, bytes)?;
        let proof = Self::parse(object.payload()?, id_of(token.hash(), object.payload_bytes()))?;
        if object.kid() != kid_of(token.consent().cti) {
            return Err(Refusal::of(Object::Proof, Reason::SignatureInvalid));
        }
        object.verify(device_key, &token.hash().0)?;
        Ok(proof)
    }

    /// Checks its life against `now` and the policy; what is wrong says by how many seconds the device's clock is off.
    pub fn check_time(&self, now: UnixTime, max_life: Duration) -> Result<(), Refusal> {
        check_life(Object::Proof, self.issued_at, self.expires_at, max_life)?;
        if self.issued_at > now.plus(CLOCK_LEEWAY) {
            let seconds = self.issued_at.since(now);
            return Err(Refusal::of(Object::Proof, Reason::DeviceClockOff).with("seconds", seconds));
        }
        check_not_expired(Object::Proof, self.expires_at, now)
    }

    /// Checks that it is for this venue, or for none yet.
    pub fn check_venue(&self, venue: &VenueId) -> Result<(), Refusal> {
        match &self.venue {
            Some(bound) if bound != venue => {
                Err(Refusal::of(Object::Proof, Reason::ProofOfOtherVenue).with("venue", venue))
            }
            _ => Ok(()),
        }
    }

    fn parse(payload: Value, id: ProofId) -> Result<Self, Refusal> {
        let mut claims = Fields::open(Object::Proof, payload)?;
        let venue = claims.optional_text(AUD, VenueId::MAX_BYTES)?;
        let venue = venue.map(|v| v.parse()).transpose().map_err(|_| claims.wrong(AUD, "not a venue"))?;
        let expires_at = claims.time(EXP)?;
        let issued_at = claims.time(IAT)?;
        let _nonce: [u8; 8] = claims.bytes(NONCE)?;
        claims.finish()?;
        if expires_at <= issued_at {
            return Err(Refusal::malformed(Object::Proof, "it expires before it is issued"));
        }
        Ok(Self { venue, issued_at, expires_at, id })
    }
}

/// A proof's kid names the token's device key by the token's own handle.
fn kid_of(cti: Cti) -> Kid {
    let mut kid = [0; 8];
    kid.copy_from_slice(&cti.0[..8]);
    Kid(kid)
}

fn id_of(token: TokenHash, payload: &[u8]) -> ProofId {
    let mut both = token.0.to_vec();
    both.extend(payload);
    let mut id = [0; 16];
    id.copy_from_slice(&sha256(&both)[..16]);
    ProofId(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        random::SystemRandom,
        suite::Suite,
        terms::{Kind, Purposes, Scope},
        token::{Audience, Consent, UnverifiedToken},
    };

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn token(device: Option<&SigningKey>) -> ConsentToken {
        let key = SigningKey::generate(Suite::Ed25519);
        let consent = Consent {
            issuer: "44".parse().unwrap(),
            audience: Audience::Anywhere,
            issued_at: NOW,
            expires_at: NOW.plus(MINUTE * 60),
            cti: Cti(random::bytes(&SystemRandom)),
            device_key: device.map(|device| device.verifying_key().clone()),
            purposes: Purposes::ALL,
            scope: Scope::LEVEL,
            kind: if device.is_some() { Kind::Own } else { Kind::Paper },
        };
        UnverifiedToken::parse(&consent.sign(&key)).unwrap().verify(key.verifying_key()).unwrap()
    }

    fn proof(token: &ConsentToken, device: &SigningKey, venue: Option<&VenueId>) -> Vec<u8> {
        prove(token.hash(), token.consent().cti, device, venue, NOW, MINUTE, &SystemRandom)
    }

    fn device() -> SigningKey {
        SigningKey::generate(Suite::Esp256)
    }

    #[test]
    fn only_the_tokens_own_device_proves() {
        let device = device();
        let token_a = token(Some(&device));
        let bytes = proof(&token_a, &device, None);
        assert!(bytes.len() <= 130, "{}", bytes.len());
        assert!(Proof::verify(&bytes, &token_a).is_ok());
        let by_another = proof(&token_a, &self::device(), None);
        assert_eq!(Proof::verify(&by_another, &token_a).unwrap_err().reason(), Reason::SignatureInvalid);
        let token_b = token(Some(&device));
        assert_eq!(Proof::verify(&bytes, &token_b).unwrap_err().reason(), Reason::SignatureInvalid);
        assert_eq!(Proof::verify(&bytes, &token(None)).unwrap_err().reason(), Reason::ProofUnexpected);
    }

    #[test]
    fn a_bound_proof_is_good_at_one_venue() {
        let (device, here, there) = (device(), "44/station/a".parse().unwrap(), "44/station/b".parse().unwrap());
        let token = token(Some(&device));
        let bound = Proof::verify(&proof(&token, &device, Some(&here)), &token).unwrap();
        assert!(bound.check_venue(&here).is_ok());
        assert_eq!(bound.check_venue(&there).unwrap_err().reason(), Reason::ProofOfOtherVenue);
        let free = Proof::verify(&proof(&token, &device, None), &token).unwrap();
        assert!(free.check_venue(&here).is_ok() && free.check_venue(&there).is_ok());
    }

    #[test]
    fn a_clock_that_is_off_is_said_in_seconds() {
        let device = device();
        let token = token(Some(&device));
        let proof = Proof::verify(&proof(&token, &device, None), &token).unwrap();
        let at =
            |now| proof.check_time(now, MINUTE).map_err(|r| (r.reason(), r.metadata("seconds").map(str::to_owned)));
        assert_eq!(at(NOW), Ok(()));
        assert_eq!(at(NOW.minus(Duration::from_secs(30))), Ok(()));
        assert_eq!(at(NOW.minus(Duration::from_secs(31))), Err((Reason::DeviceClockOff, Some("31".into()))));
        assert_eq!(at(NOW.plus(Duration::from_secs(89))), Ok(()));
        assert_eq!(at(NOW.plus(Duration::from_secs(90))), Err((Reason::Expired, Some("30".into()))));
        assert_eq!(proof.check_time(NOW, MINUTE / 2).unwrap_err().reason(), Reason::LifeTooLong);
    }
}
