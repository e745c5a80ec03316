//! Random claims that are good, for the tests of properties and of layouts.

use std::{sync::Arc, time::Duration};

use proptest::{collection::vec, option, prelude::*, sample::select};
use proto::{
    consent_request::ConsentRequest,
    contract::recognition::{Outcome, Source},
    hint::SEALED_LEN,
    identity::{PeerId, Realm},
    log::{
        LogId,
        commit::{AccessReceipt, Commit, commit_leaf},
        delivery::DeliveryReceipt,
        merkle::{Tree, leaf_hash},
        record::{Ending, Entry},
    },
    member::Member,
    statement::{Dose, LogHead, MAX_DOSES, MAX_OFFLINE, MAX_TESTS, MAX_VISITS, RiskVisit, Status, TestResult},
    suite::{SigningKey, Suite},
    terms::{Category, Kind, Purpose, Purposes, Scope},
    time::UnixTime,
    token::{Audience, Consent, Cti},
    venue::VenueId,
};

pub(crate) fn issuer() -> SigningKey {
    SigningKey::generate(Suite::Ed25519)
}

pub(crate) fn device() -> SigningKey {
    SigningKey::generate(Suite::Esp256)
}

pub(crate) fn time() -> impl Strategy<Value = UnixTime> {
    (0..253_402_000_000_u64).prop_map(UnixTime::from_secs)
}

pub(crate) fn member() -> impl Strategy<Value = Member> {
    select(Member::all().collect::<Vec<_>>())
}

pub(crate) fn venue() -> impl Strategy<Value = VenueId> {
    (member(), select(Category::ALL), "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?")
        .prop_map(|(member, category, name)| format!("{member}/{category}/{name}").parse().unwrap())
}

pub(crate) fn audience() -> impl Strategy<Value = Audience> {
    prop_oneof![
        Just(Audience::Anywhere),
        select(Category::ALL).prop_map(Audience::Category),
        venue().prop_map(Audience::Venue)
    ]
}

pub(crate) fn purposes() -> impl Strategy<Value = Purposes> {
    vec(select(Purpose::ALL), 1..6).prop_map(|purposes| Purposes::new(purposes).unwrap())
}

pub(crate) fn scope() -> impl Strategy<Value = Scope> {
    (0_u64..32).prop_map(|bits| Scope::from_bits(bits << 1 | 1).unwrap())
}

prop_compose! {
    pub(crate) fn consent()(
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
    pub(crate) fn status()(
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

prop_compose! {
    pub(crate) fn request()(
        device_id in any::<[u8; 16]>(), audience in audience(), purposes in purposes(), scope in scope(),
        kind in select(Kind::ALL), life in 0_u64..1_000_000, has_key in any::<bool>(), issued_at in time(),
        nonce in any::<[u8; 16]>(),
    ) -> ConsentRequest {
        ConsentRequest {
            device_id,
            audience,
            purposes,
            scope,
            kind,
            life: Duration::from_secs(life),
            token_key: has_key.then(|| device().verifying_key().clone()),
            issued_at,
            nonce,
        }
    }
}

fn ending() -> impl Strategy<Value = Ending> {
    let answered = (1..=5, 0..=3, option::of(any::<[u8; 16]>())).prop_map(|(outcome, source, statement)| {
        let (outcome, source) = (Outcome::try_from(outcome).unwrap(), Source::try_from(source).unwrap());
        Ending::Answered { outcome, source, statement }
    });
    prop_oneof![answered, "[A-Z0-9_]{1,40}".prop_map(|reason| Ending::Refused(reason.into()))]
}

prop_compose! {
    pub(crate) fn entry()(
        (time, venue, by) in (time(), venue(), member()), name in option::of("[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"),
        staff_id in option::of("[A-Za-z0-9._-]{1,32}"), purpose in select(Purpose::ALL),
        granted in option::of(scope()), kind in select(Kind::ALL), policy_version in any::<u64>(),
        (cti, exchange_id, trace_id) in any::<([u8; 16], [u8; 16], [u8; 16])>(), ending in ending(),
    ) -> Entry {
        let peer = name.map_or_else(|| PeerId::venue(venue.clone()), |name| PeerId::backend(by, &name).unwrap());
        Entry {
            time,
            venue: Arc::new(venue),
            caller: (&peer).into(),
            staff_id,
            purpose,
            granted,
            cti: Cti(cti),
            kind,
            policy_version,
            exchange_id,
            trace_id,
            ending,
        }
    }
}

prop_compose! {
    /// Of one record of a commit, signed by `key`.
    pub(crate) fn receipt_by(key: Arc<SigningKey>)(
        entry in entry(), owner in member(), index in any::<u64>(), others in vec(any::<[u8; 32]>(), 0..40),
        at in any::<prop::sample::Index>(), number in any::<u64>(), heads in any::<[u8; 32]>(), issued_at in time(),
    ) -> AccessReceipt {
        let (owner, record, position) = (Realm::Member(owner), entry.encode(), at.index(others.len() + 1));
        let mut leaves = others;
        leaves.insert(position, commit_leaf(owner, index, &leaf_hash(&record)));
        let tree = Tree::new(leaves);
        let commit = Commit { number, root: tree.root(), count: tree.size(), heads, issued_at };
        let commit = commit.sign(&key, key.verifying_key().kid());
        AccessReceipt { owner, index, record, position: position as u64, path: tree.path(position), commit }
    }
}

prop_compose! {
    pub(crate) fn delivery_receipt()(
        issuer in member(), log in any::<[u8; 32]>(), size in any::<u64>(), root in any::<[u8; 32]>(),
        issued_at in time(),
    ) -> DeliveryReceipt {
        DeliveryReceipt { issuer, log: LogId(log), size, root, issued_at }
    }
}
