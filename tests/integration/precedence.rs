//! Which refusal wins when several apply. The order is policy: what is cheap and says nothing of the traveler comes first,
//! what takes something for good comes last. Stated where it is kept: `peer::edge`, `gateway::query`, `proto::cbor`,
//! `proto::cose`, `gateway::consent`, `proto::consent`.
//!
//! Every test begins with all that can be wrong at once and mends the fault that won: then the next one must win.

use std::{sync::Arc, time::Duration};

use proto::{
    contract::recognition::{Outcome, RecognizeRequest, recognition_service_client::RecognitionServiceClient},
    envelope::MAX_LIFE,
    refusal::Reason,
    terms::{Category, Kind, Purpose, Purposes, Scope},
    time::ManualClock,
    token::{Audience, Consent},
    venue::VenueId,
};
use province_stub::seed::Condition;
use tongxing::{
    checkpoint::Checkpoint,
    phone::{PROOF_LIFE, Wish},
};

use crate::sandbox::{
    START,
    forge::{self, ALG, CRIT, Forger, KID, TOKEN, TYP},
    gateway::OwnGateway,
    member, shared, venue,
    want::reason,
};

const HOUR: Duration = Duration::from_secs(3600);

fn station() -> VenueId {
    venue("44/station/guangzhou-south")
}

#[tokio::test]
async fn of_a_request() {
    let sandbox = shared();
    let checkpoint = sandbox.at(&station());
    let good = sandbox.request(&station(), &sandbox.green(member("51")).await);
    let mut request = RecognizeRequest {
        venue: "44/castle/x".into(),
        purpose: 0,
        scope: 64,
        staff_id: "not one".into(),
        ..RecognizeRequest::default()
    };
    type Mend = fn(&mut RecognizeRequest, &RecognizeRequest);
    let faults: [(Reason, &str, Mend); 6] = [
        (Reason::FieldInvalid, "the venue's form", |request, _| request.venue = "11/station/beijing-west".into()),
        (Reason::VenueNotYours, "the right to the venue", |request, good| request.venue.clone_from(&good.venue)),
        (Reason::PurposeUnknown, "the purpose", |request, good| request.purpose = good.purpose),
        (Reason::FieldInvalid, "the scope", |request, _| request.scope = 1),
        (Reason::FieldInvalid, "the staff id", |request, _| request.staff_id.clear()),
        (Reason::FieldMissing, "the token", |request, good| request.clone_from(good)),
    ];
    for (wins, what, mend) in faults {
        assert_eq!(reason(what, checkpoint.send(request.clone()).await), wins, "{what} does not win");
        mend(&mut request, &good);
    }
    assert_eq!(checkpoint.send(request).await.expect("nothing is wrong").outcome(), Outcome::Status);
}

/// What can be wrong with a token and its use, in the order in which it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Large,
    Trailing,
    NotDeterministic,
    Critical,
    Type,
    Algorithm,
    Issuer,
    Key,
    OtherAlgorithm,
    Signature,
    Life,
    Over,
    Audience,
    Purpose,
    ProofMissing,
    ProofLayout,
    ProofSignature,
    ProofLife,
    ProofOver,
    ProofVenue,
    Admission,
    Scope,
}

const FAULTS: [(Fault, Reason); 22] = [
    (Fault::Large, Reason::ObjectTooLarge),
    (Fault::Trailing, Reason::TrailingBytes),
    (Fault::NotDeterministic, Reason::NotDeterministic),
    (Fault::Critical, Reason::CriticalHeaderUnknown),
    (Fault::Type, Reason::TypeMismatch),
    (Fault::Algorithm, Reason::AlgorithmNotAllowed),
    (Fault::Issuer, Reason::MemberUnknown),
    (Fault::Key, Reason::KeyUnknown),
    (Fault::OtherAlgorithm, Reason::AlgorithmMismatch),
    (Fault::Signature, Reason::SignatureInvalid),
    (Fault::Life, Reason::LifeTooLong),
    (Fault::Over, Reason::Expired),
    (Fault::Audience, Reason::AudienceMismatch),
    (Fault::Purpose, Reason::PurposeNotConsented),
    (Fault::ProofMissing, Reason::ProofMissing),
    (Fault::ProofLayout, Reason::NotCbor),
    (Fault::ProofSignature, Reason::SignatureInvalid),
    (Fault::ProofLife, Reason::LifeTooLong),
    (Fault::ProofOver, Reason::Expired),
    (Fault::ProofVenue, Reason::ProofOfOtherVenue),
    (Fault::Admission, Reason::PurposeNotAdmitted),
    (Fault::Scope, Reason::ScopeNotGranted),
];

/// A forger with a sense for how wrong a thing may be.
struct Faulty<'a> {
    home: &'a Forger,
    faults: &'a [(Fault, Reason)],
}

impl Faulty<'_> {
    fn has(&self, fault: Fault) -> bool {
        self.faults.iter().any(|(there, _)| *there == fault)
    }

    fn consent(&self) -> Consent {
        let (now, good) = (self.home.now, self.home.consent());
        let over = self.has(Fault::Over);
        let expires_at = if over { now.minus(HOUR) } else { good.expires_at };
        let begins = if self.has(Fault::Life) { 25 * HOUR } else { HOUR };
        Consent {
            expires_at,
            issued_at: expires_at.minus(begins),
            audience: if self.has(Fault::Audience) {
                Audience::Category(Category::Hospital)
            } else {
                good.audience.clone()
            },
            purposes: if self.has(Fault::Purpose) { Purposes::new([Purpose::Work]).unwrap() } else { good.purposes },
            ..good
        }
    }

    fn token(&self, consent: &Consent) -> Vec<u8> {
        let kid = if self.has(Fault::Key) { vec![9; 8] } else { self.home.kid().0.to_vec() };
        let typ = if self.has(Fault::Type) { 65003 } else { TOKEN };
        let alg = match () {
            () if self.has(Fault::Algorithm) => -7,
            () if self.has(Fault::OtherAlgorithm) => -9,
            () => -19,
        };
        let mut header = proto::cbor::MapBuilder::new().put(ALG, alg).put(KID, kid).put(TYP, typ);
        if self.has(Fault::Critical) {
            header = header.put(CRIT, vec![ciborium::Value::from(7)]);
        }
        let issuer = if self.has(Fault::Issuer) { "99" } else { "51" };
        let payload = forge::payload(consent, issuer, None);
        let mut token = forge::sign1(header, payload, &self.home.keys.consent, b"");
        if self.has(Fault::Signature) {
            token = forge::flipped(&token);
        }
        if self.has(Fault::NotDeterministic) {
            token = forge::not_deterministic(&token);
        }
        token.resize(token.len() + usize::from(self.has(Fault::Trailing)), 0);
        token.resize(token.len() + 1024 * usize::from(self.has(Fault::Large)), 0);
        token
    }

    fn proof(&self, token: &[u8], consent: &Consent) -> Vec<u8> {
        if self.has(Fault::ProofMissing) {
            return Vec::new();
        }
        if self.has(Fault::ProofLayout) {
            return vec![0xff; 8];
        }
        let elsewhere = venue("11/station/beijing-west");
        let bound = if self.has(Fault::ProofVenue) { elsewhere } else { station() };
        let made = if self.has(Fault::ProofOver) { self.home.now.minus(HOUR) } else { self.home.now };
        let life = if self.has(Fault::ProofLife) { PROOF_LIFE * 2 } else { PROOF_LIFE };
        let proof = self.home.prove_at(token, consent.cti, Some(&bound), made, life);
        if self.has(Fault::ProofSignature) { forge::flipped(&proof) } else { proof }
    }

    fn request(&self) -> RecognizeRequest {
        let consent = self.consent();
        let token = self.token(&consent);
        let purpose = if self.has(Fault::Admission) { Purpose::Medical } else { Purpose::Entry };
        RecognizeRequest {
            proof: self.proof(&token, &consent),
            token,
            venue: station().to_string(),
            purpose: purpose.number().into(),
            scope: if self.has(Fault::Scope) { 63 } else { 0 },
            ..RecognizeRequest::default()
        }
    }
}

#[tokio::test]
async fn of_a_token_and_its_use() {
    let sandbox = shared();
    let (home, checkpoint) = (Forger::of(sandbox, member("51")), sandbox.at(&station()));
    for first in 0..FAULTS.len() {
        let (fault, wins) = FAULTS[first];
        let request = Faulty { home: &home, faults: &FAULTS[first..] }.request();
        let name = format!("{fault:?} and all after it");
        assert_eq!(reason(&name, checkpoint.send(request).await), wins, "{fault:?} does not win over what comes after");
        let alone = Faulty { home: &home, faults: &FAULTS[first..=first] }.request();
        assert_eq!(reason(&name, checkpoint.send(alone).await), wins, "{fault:?} alone is another reason");
    }
    let good = Faulty { home: &home, faults: &[] }.request();
    let outcome = checkpoint.send(good).await.expect("nothing is wrong").outcome();
    assert_eq!(outcome, Outcome::UnknownTraveler, "home never issued it");
}

/// What a refusal does not take: a proof that another venue redeemed, a consent that home revoked.
#[tokio::test]
async fn of_what_is_remembered() {
    let (sandbox, elsewhere) = (shared(), venue("11/station/beijing-west"));
    let (here, there) = (sandbox.at(&station()), sandbox.at(&elsewhere));
    let pass = sandbox.green(member("51")).await;
    let free = pass.present(None, sandbox.now());
    let mut late = Checkpoint::request(&station(), &free, Purpose::Entry);
    there.send(Checkpoint::request(&elsewhere, &free, Purpose::Entry)).await.expect("the first venue redeems it");
    late.scope = 63;
    assert_eq!(reason("greedy and late", here.send(late.clone()).await), Reason::ScopeNotGranted, "redemption won");
    late.scope = 0;
    assert_eq!(reason("late", here.send(late).await), Reason::AlreadyRedeemed, "it was redeemed");

    // A proof that was refused for its scope was not redeemed: another venue may have it.
    let unspent = pass.present(None, sandbox.now());
    let mut greedy = Checkpoint::request(&station(), &unspent, Purpose::Entry);
    greedy.scope = 63;
    assert_eq!(reason("greedy", here.send(greedy).await), Reason::ScopeNotGranted, "another reason");
    there.send(Checkpoint::request(&elsewhere, &unspent, Purpose::Entry)).await.expect("nobody has redeemed it");

    let person = sandbox.person(member("51"), Condition::Green);
    let phone = sandbox.desk.backend(member("51")).unwrap().enroll(&person).await.unwrap();
    let wish = Wish { kind: Kind::Paper, scope: Scope::LEVEL, ..Wish::default() };
    let lost = phone.consent(&wish, sandbox.now()).await.unwrap().present(None, sandbox.now());
    phone.consent(&wish, sandbox.now()).await.expect("a reprint");
    let mut revoked = Checkpoint::request(&station(), &lost, Purpose::Entry);
    revoked.scope = 33;
    assert_eq!(reason("greedy and revoked", here.send(revoked.clone()).await), Reason::ScopeNotGranted, "home won");
    revoked.scope = 0;
    assert_eq!(reason("revoked", here.send(revoked).await), Reason::ConsentRevoked, "it was revoked");
}

/// The edge: role, then room, then trust, then the request.
#[tokio::test]
async fn of_a_call() {
    let (sandbox, clock) = (shared(), Arc::new(ManualClock::at(START)));
    let expired = OwnGateway::start_by(sandbox, clock.clone(), |_| {}).await;
    let full = OwnGateway::start(sandbox, |config| config.limits.server.admission.max_in_flight = 0).await;
    clock.advance(MAX_LIFE);
    let (operator, at_station) = (sandbox.layout().operator(member("44")), sandbox.layout().venue(&station()));
    let empty = RecognizeRequest::default();
    let large = RecognizeRequest { token: vec![0; 100_000], ..empty.clone() };
    for (name, gateway, dir, request, wins) in [
        ("no role and no room", &full, &operator, &large, Reason::RoleNotAllowed),
        ("no room and too large", &full, &at_station, &large, Reason::Overloaded),
        ("no role and no trust", &expired, &operator, &empty, Reason::RoleNotAllowed),
        ("too large and no trust", &expired, &at_station, &large, Reason::RequestTooLarge),
        ("no trust and nothing asked", &expired, &at_station, &empty, Reason::TrustExpired),
    ] {
        let mut client = RecognitionServiceClient::new(gateway.channel(sandbox, dir));
        assert_eq!(reason(name, client.recognize(request.clone()).await), wins, "{name}");
    }
    expired.stop().await;
    full.stop().await;
}
