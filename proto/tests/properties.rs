//! Properties of all signed objects: reading never panics, what was signed is what is read, and no change goes unseen.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*, sample::select};
use proto::{
    cbor,
    consent_request::{ConsentRequest, UnverifiedRequest},
    cose::MAX_OBJECT_BYTES,
    envelope::Roots,
    hint::{IdentityHint, SEALED_LEN},
    member::Member,
    policy::Policy,
    presentation::{HintKey, Presentation},
    proof::{Proof, prove},
    random::SystemRandom,
    refusal::Object,
    statement::{
        Dose, LogHead, MAX_DOSES, MAX_OFFLINE, MAX_TESTS, MAX_VISITS, RiskVisit, Status, TestResult,
        UnverifiedStatement,
    },
    suite::{SigningKey, Suite},
    terms::{Category, Kind, Purpose, Purposes, Scope},
    time::UnixTime,
    token::{Audience, Consent, ConsentToken, Cti, UnverifiedToken},
    trust::TrustList,
    venue::VenueId,
};

fn issuer() -> SigningKey {
    SigningKey::generate(Suite::Ed25519)
}

fn device() -> SigningKey {
    SigningKey::generate(Suite::Esp256)
}

fn time() -> impl Strategy<Value = UnixTime> {
    (0..253_402_000_000_u64).prop_map(UnixTime::from_secs)
}

fn member() -> impl Strategy<Value = Member> {
    select(Member::all().collect::<Vec<_>>())
}

fn venue() -> impl Strategy<Value = VenueId> {
    (member(), select(Category::ALL), "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?")
        .prop_map(|(member, category, name)| format!("{member}/{category}/{name}").parse().unwrap())
}

fn audience() -> impl Strategy<Value = Audience> {
    prop_oneof![
        Just(Audience::Anywhere),
        select(Category::ALL).prop_map(Audience::Category),
        venue().prop_map(Audience::Venue)
    ]
}

fn purposes() -> impl Strategy<Value = Purposes> {
    vec(select(Purpose::ALL), 1..6).prop_map(|purposes| Purposes::new(purposes).unwrap())
}

fn scope() -> impl Strategy<Value = Scope> {
    (0_u64..32).prop_map(|bits| Scope::from_bits(bits << 1 | 1).unwrap())
}

prop_compose! {
    fn consent()(
        issuer in member(), audience in audience(), place in venue(), issued_at in time(), life in 1_u64..100_000,
        cti in any::<[u8; 16]>(), purposes in purposes(), scope in scope(), kind in select(Kind::ALL),
    ) -> Consent {
        Consent {
            issuer,
            audience: if kind == Kind::Assisted { Audience::Venue(place) } else { audience },
            issued_at,
            expires_at: issued_at.plus(Duration::from_secs(life)),
            cti: Cti(cti),
            device_key: kind.has_device().then(|| device().verifying_key().clone()),
            purposes,
            scope: if kind == Kind::Paper { Scope::LEVEL } else { scope },
            kind,
        }
    }
}

prop_compose! {
    fn status()(
        issuer in member(), issued_at in time(), life in 0_u64..3600, offline in 0_u64..=MAX_OFFLINE.as_secs(),
        token in any::<[u8; 16]>(), epoch in any::<[u8; 16]>(), seq in any::<u64>(),
        label in "[绿黄红橙灰蓝a-z]{1,12}", rule in option::of("[A-Z-]{1,32}"),
        authority in option::of((member(), "[a-z]{1,20}")), assigned_at in option::of(time()),
        tests in vec((time(), any::<bool>()), 0..=MAX_TESTS), doses in vec((1_u8..=9, time()), 0..=MAX_DOSES),
        visits in vec((0_u32..=999_999, any::<bool>(), time()), 0..=MAX_VISITS),
        hint in option::of(vec(any::<u8>(), SEALED_LEN)),
    ) -> Status {
        Status {
            issuer,
            issued_at,
            expires_at: issued_at.plus(Duration::from_secs(life)),
            token,
            head: LogHead { epoch, seq },
            label,
            rule,
            authority: authority.map(|(member, kind)| format!("{member}/{kind}").parse().unwrap()),
            assigned_at,
            tests: tests.into_iter().map(|(sampled_at, positive)| TestResult { sampled_at, positive }).collect(),
            doses: doses.into_iter().map(|(number, given_at)| Dose { number, given_at }).collect(),
            visits: visits.into_iter().map(|(area, high, left_at)| RiskVisit { area, high, left_at }).collect(),
            hint,
            offline_until: issued_at.plus(Duration::from_secs(offline.min(life))),
        }
    }
}

fn verified(consent: &Consent) -> (Vec<u8>, SigningKey, ConsentToken) {
    let key = issuer();
    let bytes = consent.sign(&key);
    let token = UnverifiedToken::parse(&bytes).unwrap().verify(key.verifying_key()).unwrap();
    (bytes, key, token)
}

/// `bytes` with one bit changed.
fn flip(bytes: &[u8], position: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    let bit = position % (bytes.len() * 8);
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

proptest! {
    #[test]
    fn a_token_says_what_was_signed(consent in consent()) {
        let (bytes, _, token) = verified(&consent);
        prop_assert!(bytes.len() <= MAX_OBJECT_BYTES);
        prop_assert_eq!(token.consent(), &consent);
    }

    #[test]
    fn a_changed_token_is_refused(consent in consent(), position in any::<usize>()) {
        let (bytes, key, _) = verified(&consent);
        let changed = UnverifiedToken::parse(&flip(&bytes, position)).and_then(|token| {
            // A changed kid or issuer names no key; here it would be looked up and not be found.
            let same_key = token.kid() == key.verifying_key().kid() && token.issuer() == consent.issuer;
            if same_key { token.verify(key.verifying_key()).map(drop) } else { Err(proto::refusal::Refusal::missing("key")) }
        });
        prop_assert!(changed.is_err());
    }

    #[test]
    fn a_statement_says_what_was_signed_and_a_changed_one_is_refused(status in status(), position in any::<usize>()) {
        let key = issuer();
        let bytes = status.sign(&key);
        prop_assert!(bytes.len() <= MAX_OBJECT_BYTES, "{} bytes", bytes.len());
        let statement = UnverifiedStatement::parse(&bytes).unwrap().verify(key.verifying_key()).unwrap();
        prop_assert_eq!(statement.status(), &status);
        let changed = UnverifiedStatement::parse(&flip(&bytes, position)).and_then(|statement| {
            let same_key = statement.kid() == key.verifying_key().kid();
            if same_key { statement.verify(key.verifying_key()).map(drop) } else { Err(proto::refusal::Refusal::missing("key")) }
        });
        prop_assert!(changed.is_err());
    }

    #[test]
    fn a_proof_is_its_own_devices_and_a_changed_one_is_refused(
        venue in option::of(venue()), now in time(), life in 1_u64..3600, position in any::<usize>(),
    ) {
        let phone = device();
        let consent = Consent {
            issuer: Member::PLATFORM,
            audience: Audience::Anywhere,
            issued_at: now,
            expires_at: now.plus(Duration::from_secs(3600)),
            cti: Cti([5; 16]),
            device_key: Some(phone.verifying_key().clone()),
            purposes: Purposes::ALL,
            scope: Scope::LEVEL,
            kind: Kind::Own,
        };
        let (_, _, token) = verified(&consent);
        let life = Duration::from_secs(life);
        let bytes = prove(token.hash(), consent.cti, &phone, venue.as_ref(), now, life, &SystemRandom);
        let proof = Proof::verify(&bytes, &token).unwrap();
        prop_assert_eq!((&proof.venue, proof.issued_at, proof.expires_at), (&venue, now, now.plus(life)));
        prop_assert!(Proof::verify(&flip(&bytes, position), &token).is_err());
    }

    #[test]
    fn a_consent_request_says_what_was_signed(
        device_id in any::<[u8; 16]>(), audience in audience(), purposes in purposes(), scope in scope(),
        kind in select(Kind::ALL), life in 0_u64..1_000_000, has_key in any::<bool>(), now in time(), nonce in any::<[u8; 16]>(),
    ) {
        let key = device();
        let request = ConsentRequest {
            device_id,
            audience,
            purposes,
            scope,
            kind,
            life: Duration::from_secs(life),
            token_key: has_key.then(|| device().verifying_key().clone()),
            issued_at: now,
            nonce,
        };
        let read = UnverifiedRequest::parse(&request.sign(&key)).unwrap().verify(key.verifying_key(), now).unwrap();
        prop_assert_eq!(read, request);
    }

    #[test]
    fn a_presentation_survives_its_text(
        token in vec(any::<u8>(), 1..=MAX_OBJECT_BYTES), proof in option::of(vec(any::<u8>(), 1..=MAX_OBJECT_BYTES)), k in any::<[u8; 16]>(),
    ) {
        let presentation = Presentation { token, proof, hint_key: HintKey(k) };
        let text = presentation.to_text();
        prop_assert!(text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b" $%*+-./:".contains(&b)));
        prop_assert_eq!(Presentation::from_text(&text).unwrap(), presentation);
    }

    #[test]
    fn a_hint_opens_with_its_own_key_and_unchanged_alone(
        name in "\\PC{1,64}", number in "[0-9X]{1,32}", k in any::<[u8; 16]>(), position in any::<usize>(),
    ) {
        let (hint, key) = (IdentityHint::mask(&name, &number), HintKey(k));
        let sealed = hint.seal(&key, &SystemRandom);
        prop_assert_eq!(sealed.len(), SEALED_LEN);
        prop_assert_eq!(IdentityHint::open(&sealed, &key).unwrap(), hint);
        prop_assert!(IdentityHint::open(&flip(&sealed, position), &key).is_err());
    }

    #[test]
    fn whatever_comes_is_read_without_a_panic(bytes in vec(any::<u8>(), 0..1200)) {
        let roots = Roots::new(1, vec![issuer().verifying_key().clone()]).unwrap();
        let _ = UnverifiedToken::parse(&bytes);
        let _ = UnverifiedStatement::parse(&bytes);
        let _ = UnverifiedRequest::parse(&bytes);
        let _ = TrustList::open(&bytes, &roots);
        let _ = Policy::open(&bytes, &roots);
        let _ = LogHead::from_change_token(&bytes);
        let _ = Presentation::from_text(&String::from_utf8_lossy(&bytes));
        let _ = Policy::from_toml(&String::from_utf8_lossy(&bytes));
        if let Ok(value) = cbor::decode(Object::Token, &bytes, 1200) {
            prop_assert_eq!(cbor::encode(&value), Some(bytes));
        }
    }

    #[test]
    fn mangled_objects_are_read_without_a_panic(
        consent in consent(), status in status(), positions in vec(any::<usize>(), 1..8), cut in any::<usize>(),
    ) {
        let key = issuer();
        for bytes in [consent.sign(&key), status.sign(&key)] {
            let mangled = positions.iter().fold(bytes, |bytes, position| flip(&bytes, *position));
            let cut = &mangled[..cut % (mangled.len() + 1)];
            for bytes in [&mangled[..], cut] {
                let _ = UnverifiedToken::parse(bytes);
                let _ = UnverifiedStatement::parse(bytes);
            }
        }
    }

    #[test]
    fn text_identifiers_are_read_without_a_panic(text in "\\PC{0,64}") {
        if let Ok(venue) = text.parse::<VenueId>() {
            prop_assert_eq!(venue.to_string(), text.clone());
        }
        let domain: proto::identity::FederationDomain = "tongxing.test".parse().unwrap();
        if let Ok(peer) = domain.parse_spiffe_id(&text) {
            prop_assert_eq!(domain.spiffe_id(&peer), text);
        }
    }
}
