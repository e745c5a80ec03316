//! Signed objects as an attacker or a broken program would make them: with proto's own functions where they let it, by
//! hand where they do not. The keys are the node's real ones, read from the state directory.

use std::time::Duration;

use ciborium::Value;
use proto::{
    cbor::MapBuilder,
    member::Member,
    presentation::{HintKey, Presentation},
    proof::prove,
    random::{self, SystemRandom},
    statement::{LogHead, Status},
    suite::{Kid, SigningKey, Suite},
    terms::{Kind, Purposes, Scope},
    time::UnixTime,
    token::{Audience, Consent, Cti, TokenHash},
    venue::VenueId,
};
use province_stub::keys::{KeyFiles, Keys};
pub(crate) use tests::forge::{flipped, not_deterministic};
use tongxing::phone::PROOF_LIFE;

use super::Sandbox;

/// COSE header parameters (RFC 9052 §3.1, RFC 9596).
pub(crate) const ALG: i64 = 1;
pub(crate) const CRIT: i64 = 2;
pub(crate) const KID: i64 = 4;
pub(crate) const TYP: i64 = 16;

/// `typ` of a consent token and of a proof.
pub(crate) const TOKEN: u64 = 65001;
pub(crate) const PROOF: u64 = 65002;

/// A forger with a member's own keys, and a device.
pub(crate) struct Forger {
    pub(crate) keys: Keys,
    pub(crate) device: SigningKey,
    pub(crate) now: UnixTime,
    member: Member,
}

impl Forger {
    /// With the keys of this member's node.
    pub(crate) fn of(sandbox: &Sandbox, member: Member) -> Self {
        let keys = Keys::load(&KeyFiles::under(&sandbox.layout().node(member))).expect("the node's keys are on disk");
        Self { keys, device: SigningKey::generate(Suite::Esp256), now: sandbox.now(), member }
    }

    /// A consent that home never gave, and that nothing is wrong with.
    pub(crate) fn consent(&self) -> Consent {
        Consent {
            issuer: self.member,
            audience: Audience::Anywhere,
            issued_at: self.now,
            expires_at: self.now.plus(Duration::from_secs(3600)),
            cti: Cti(random::bytes(&SystemRandom)),
            device_key: Some(self.device.verifying_key().clone()),
            purposes: Purposes::ALL,
            scope: Scope::ALL,
            kind: Kind::Own,
        }
    }

    /// One without a device.
    pub(crate) fn paper(&self) -> Consent {
        Consent { kind: Kind::Paper, device_key: None, scope: Scope::LEVEL, ..self.consent() }
    }

    /// Signs a consent with home's own key.
    pub(crate) fn sign(&self, consent: &Consent) -> Vec<u8> {
        consent.sign(&self.keys.consent)
    }

    /// A good proof for a token, bound to a venue.
    pub(crate) fn prove(&self, token: &[u8], cti: Cti, venue: Option<&VenueId>) -> Vec<u8> {
        self.prove_at(token, cti, venue, self.now, PROOF_LIFE)
    }

    /// A proof of another time and life.
    pub(crate) fn prove_at(
        &self,
        token: &[u8],
        cti: Cti,
        venue: Option<&VenueId>,
        at: UnixTime,
        life: Duration,
    ) -> Vec<u8> {
        prove(TokenHash::of(token), cti, &self.device, venue, at, life, &SystemRandom)
    }

    /// A consent as it is presented at a venue, with a good proof if it has a device.
    pub(crate) fn present(&self, consent: &Consent, venue: Option<&VenueId>) -> Presentation {
        let token = self.sign(consent);
        let proof = consent.device_key.as_ref().map(|_| self.prove(&token, consent.cti, venue));
        Presentation { token, proof, hint_key: HintKey([0; 16]) }
    }

    /// The kid of home's consent key.
    pub(crate) fn kid(&self) -> Kid {
        self.keys.consent.verifying_key().kid()
    }
}

/// What home would honestly say of a green traveler's token.
pub(crate) fn green(home: Member, token: &[u8], now: UnixTime) -> Status {
    Status {
        issuer: home,
        issued_at: now,
        expires_at: now.plus(Duration::from_secs(600)),
        token: TokenHash::of(token).short(),
        head: LogHead { epoch: [1; 16], seq: 1 },
        label: "绿码".into(),
        rule: None,
        authority: None,
        assigned_at: None,
        tests: vec![],
        doses: vec![],
        visits: vec![],
        hint: None,
        offline_until: now,
    }
}

/// A header of a token by this key.
pub(crate) fn header(kid: Kid) -> MapBuilder {
    MapBuilder::new().put(KID, kid.0.to_vec()).put(TYP, TOKEN)
}

/// A payload as a token's, by hand: `iss` and `extra` claims are what the forger wants.
pub(crate) fn payload(consent: &Consent, iss: &str, extra: Option<(i64, Value)>) -> Vec<u8> {
    let device = consent.device_key.as_ref().map(proto::token::device_key_to_cose);
    let purposes: Vec<_> = consent.purposes.iter().map(|purpose| Value::from(purpose.number())).collect();
    let terms = MapBuilder::new().put(1, purposes).put(2, consent.scope.bits()).put(4, consent.kind.number());
    let mut claims = MapBuilder::new()
        .put(1, iss)
        .put(3, consent.audience.to_string())
        .put(4, consent.expires_at.as_secs())
        .put(6, consent.issued_at.as_secs())
        .put(7, consent.cti.0.to_vec())
        .put_some(8, device.map(|key| MapBuilder::new().put(1, key).build()))
        .put(-65537, terms.build());
    if let Some((key, value)) = extra {
        claims = claims.put(key, value);
    }
    claims.encode()
}

/// A COSE_Sign1 (RFC 9052 §4.2) with this header and payload, signed by this key whatever the header says.
pub(crate) fn sign1(header: MapBuilder, payload: Vec<u8>, key: &SigningKey, aad: &[u8]) -> Vec<u8> {
    tests::forge::sign1(header.encode(), payload, key, aad)
}
