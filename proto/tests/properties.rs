//! Properties of all signed objects: reading never panics, what was signed is what is read, and no change goes unseen.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod generate;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use generate::{consent, delivery_receipt, device, entry, issuer, member, receipt_by, request, status, time, venue};
use proptest::{collection::vec, option, prelude::*};
use proto::{
    cbor,
    consent_request::UnverifiedRequest,
    cose::MAX_OBJECT_BYTES,
    envelope::Roots,
    hint::{IdentityHint, SEALED_LEN},
    identity::Realm,
    log::{
        LogId,
        checkpoint::Checkpoint,
        commit::{AccessReceipt, MAX_RECEIPT_BYTES},
        delivery::DeliveryReceipt,
        merkle::{Hash, Tree, is_consistent, root_of_path},
        record::{Entry, MAX_RECORD_BYTES, RefusalEntry},
    },
    member::Member,
    policy::Policy,
    presentation::{HintKey, Presentation},
    proof::{Proof, prove},
    random::SystemRandom,
    refusal::Object,
    statement::{LogHead, UnverifiedStatement},
    suite::SigningKey,
    terms::{Kind, Purposes, Scope},
    time::UnixTime,
    token::{Audience, Consent, ConsentToken, Cti, UnverifiedToken},
    trust::{self, GatewayTrust, MemberTrust, TrustList},
    venue::VenueId,
};

/// A list that has one key for the gateway's logs and for this member's statements.
fn trusting(key: &SigningKey, member: Member) -> TrustList {
    let own = || trust::keys([key.verifying_key().clone()]);
    let trust = MemberTrust {
        bundle: vec![vec![1]],
        endpoints: vec![],
        consent_keys: trust::keys([]),
        statement_keys: own(),
        sealing_key: [0; 32],
        categories: [].into(),
        suspension: None,
    };
    TrustList {
        domain: "tongxing.test".parse().unwrap(),
        roots: Roots::new(1, vec![issuer().verifying_key().clone()]).unwrap(),
        gateway: GatewayTrust { bundle: vec![vec![1]], log_keys: own() },
        members: BTreeMap::from([(member, trust)]),
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
    fn a_consent_request_says_what_was_signed_and_a_changed_one_is_refused(
        request in request(), position in any::<usize>(),
    ) {
        let (key, now) = (device(), request.issued_at);
        let bytes = request.sign(&key);
        let read = |bytes: &[u8]| UnverifiedRequest::parse(bytes).and_then(|read| read.verify(key.verifying_key(), now));
        prop_assert_eq!(read(&bytes).unwrap(), request);
        prop_assert!(read(&flip(&bytes, position)).is_err());
    }

    #[test]
    fn a_record_says_what_was_recorded_and_has_one_encoding(entry in entry(), position in any::<usize>()) {
        let bytes = entry.encode();
        prop_assert!(bytes.len() <= MAX_RECORD_BYTES, "{} bytes", bytes.len());
        prop_assert_eq!(Entry::decode(&bytes).unwrap(), entry);
        let flipped = flip(&bytes, position);
        if let Ok(other) = Entry::decode(&flipped) {
            prop_assert_eq!(other.encode(), flipped);
        }
    }

    #[test]
    fn an_access_receipt_proves_its_record_and_a_changed_one_is_refused(
        (key, receipt) in Just(Arc::new(issuer())).prop_flat_map(|key| (Just(key.clone()), receipt_by(key))),
        position in any::<usize>(),
    ) {
        let (bytes, list) = (receipt.clone().encode(), trusting(&key, Member::PLATFORM));
        prop_assert!(bytes.len() <= MAX_RECEIPT_BYTES, "{} bytes", bytes.len());
        let verify = |bytes: &[u8]| AccessReceipt::parse(bytes).and_then(|receipt| receipt.verify(&list));
        let shown = verify(&bytes).unwrap();
        prop_assert_eq!(shown.log, LogId::of(key.verifying_key()));
        prop_assert_eq!((shown.owner, shown.index), (receipt.owner, receipt.index));
        prop_assert_eq!(shown.entry.encode(), receipt.record);
        prop_assert!(verify(&flip(&bytes, position)).is_err());
    }

    #[test]
    fn a_delivery_receipt_says_what_was_signed_and_a_changed_one_is_refused(
        receipt in delivery_receipt(), position in any::<usize>(),
    ) {
        let key = issuer();
        let (bytes, list) = (receipt.sign(&key), trusting(&key, receipt.issuer));
        let open = |bytes: &[u8]| DeliveryReceipt::open(bytes, receipt.issuer, &list, receipt.issued_at);
        prop_assert_eq!(open(&bytes).unwrap(), receipt);
        prop_assert!(open(&flip(&bytes, position)).is_err());
    }

    #[test]
    fn a_checkpoint_says_what_was_signed_and_a_changed_one_is_refused(
        member in option::of(member()), size in any::<u64>(), root in any::<[u8; 32]>(), position in any::<usize>(),
    ) {
        let (key, owner) = (issuer(), member.map_or(Realm::Gateway, Realm::Member));
        let list = trusting(&key, Member::PLATFORM);
        let checkpoint = Checkpoint { log: LogId::of(key.verifying_key()), owner, size, root };
        let note = checkpoint.sign(&list.domain, &key);
        prop_assert_eq!(Checkpoint::open(&note, &list).unwrap(), checkpoint);
        if let Ok(changed) = String::from_utf8(flip(note.as_bytes(), position)) {
            prop_assert!(Checkpoint::open(&changed, &list).is_err());
        }
    }

    #[test]
    fn hashes_at_random_prove_nothing(
        leaves in vec(any::<[u8; 32]>(), 2..40), hashes in vec(any::<[u8; 32]>(), 0..70), old in any::<u64>(),
        size in any::<u64>(), index in any::<u64>(),
    ) {
        let root: Hash = Tree::new(leaves.clone()).root();
        prop_assert_ne!(root_of_path(leaves[0], index, size, &hashes), Some(root));
        prop_assert!(!is_consistent((old, leaves[0]), (size, root), &hashes));
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
        let list = trusting(&issuer(), Member::PLATFORM);
        let _ = Entry::decode(&bytes);
        let _ = RefusalEntry::decode(&bytes);
        let _ = AccessReceipt::parse(&bytes).and_then(|receipt| receipt.verify(&list));
        let _ = DeliveryReceipt::open(&bytes, Member::PLATFORM, &list, UnixTime::from_secs(0));
        let _ = Checkpoint::open(&String::from_utf8_lossy(&bytes), &list);
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
