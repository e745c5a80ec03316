//! The contract of every store, whatever its backend. Each case opens a store of its own.

mod accesses;
mod filing;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proto::{
    random::SystemRandom,
    statement::{Authority, Dose, RiskVisit, TestResult},
    suite::SigningKey,
    terms::Kind,
    token::TokenHash,
};
use tokio::task::JoinSet;

use super::*;
use crate::{
    request::Method,
    seed,
    test_support::{
        HOUR, NOW, RETENTION, device_key, member, new_device, policy, random16, request, seeded_document as document,
    },
};

pub(super) const LIMIT: u32 = 4;

/// Runs every case. `open` gives a new, empty store and whatever has to live as long.
pub(super) async fn run<S: Store, G>(open: impl AsyncFn() -> (S, G)) {
    macro_rules! cases {
        ($($case:path),* $(,)?) => {$({
            let (store, _guard) = open().await;
            $case(store).await;
        })*};
    }
    cases!(
        a_new_log_is_empty,
        enrolment_adds_a_person_once,
        enrolment_is_bounded_and_refuses_known_keys,
        a_request_has_one_answer,
        issue_is_bounded_and_idempotent,
        a_key_is_good_for_one_token,
        a_reprint_revokes_the_paper_before,
        a_revocation_is_one_event,
        consents_are_listed_newest_first_and_only_their_travelers,
        a_new_status_is_an_event_for_every_consent_that_may_be_honoured,
        the_same_status_again_is_recorded_and_no_event,
        evidence_is_read_by_scope_latest_first_and_bounded,
        standing_consents_are_issued_all_or_none,
        seeding_again_changes_nobody,
        old_things_are_forgotten_but_not_the_head,
        numbers_have_no_gaps_under_concurrent_writes,
        status_and_head_are_of_one_snapshot,
        a_forgotten_traveler_is_nobody,
        accesses::are_kept_once_and_bound_to_whose_consent_it_was,
        accesses::a_delivery_is_kept_whole_however_large,
        accesses::a_conflict_stores_nothing_but_evidence_and_not_without_end,
        accesses::go_on_behind_a_gap_that_nobody_can_fill,
        accesses::are_listed_newest_first_a_page_at_a_time,
        accesses::of_the_future_have_their_place_where_they_came,
        accesses::no_log_takes_anothers_place,
        accesses::outlive_their_traveler,
        accesses::are_forgotten_from_the_start_of_their_log,
        filing::evidence_adds_people_and_their_codes_follow,
        filing::a_record_counts_once_and_in_its_latest_revision,
        filing::within_a_batch_records_are_seen_in_order,
        filing::a_dry_run_says_all_and_keeps_nothing,
        filing::a_stay_counts_as_its_area_was_listed,
        filing::events_are_for_those_whose_view_changed,
        filing::time_alone_changes_a_code_with_its_events,
        filing::everybody_with_evidence_is_assessed_in_turn,
        filing::evidence_of_one_person_is_bounded,
        filing::what_was_set_by_hand_stands_until_it_is_cleared_or_something_stricter_comes,
        filing::pushed_codes_are_the_platforms_until_it_takes_them_back,
        filing::what_the_platform_took_back_beneath_a_hand_does_not_stand_again,
        filing::a_listing_that_brings_an_end_nearer_is_an_event,
        filing::whom_a_document_and_a_reference_named_apart_is_one_person,
        filing::a_hand_stands_over_what_the_platform_said_before_it_under_another_name,
        filing::a_reference_is_one_persons,
        filing::an_operators_look_is_on_file_before_anything_is_seen,
        filing::a_file_has_all_there_is_and_goes_with_its_person,
        filing::evidence_is_forgotten_when_it_has_been_over_for_long,
        filing::batches_that_meet_leave_no_gap_and_no_old_code,
        filing::past_codes_are_forgotten_and_what_may_stand_again_is_not,
        filing::an_empty_batch_has_an_answer,
        filing::a_push_covers_what_was_there_when_it_was_decided,
        filing::whom_feed_and_platform_know_is_one_when_a_device_says_so,
        filing::a_correction_to_what_is_not_kept_makes_the_former_count_no_more,
        filing::a_stay_whose_risk_rises_counts_beside_what_was_set,
        filing::whoever_was_known_by_evidence_alone_is_forgotten_with_it,
        filing::one_source_crowds_out_no_other_and_an_area_has_so_many_listings,
    );
}

pub(super) fn name() -> Name {
    Name::new("欧阳星洲").unwrap()
}

pub(super) async fn add_person<S: Store>(store: &S, index: u32) -> PersonId {
    assert_eq!(seed_person(store, index).await, 1);
    store.person_by_document(&document(index)).await.unwrap().unwrap()
}

/// Seeds somebody of whom no more is known, and says how many were added.
async fn seed_person<S: Store>(store: &S, index: u32) -> u32 {
    let (code, tests, doses, visits) = (None, vec![], vec![], vec![]);
    let person = NewPerson { document: document(index), name: name(), code, tests, doses, visits };
    store.seed(&[person], NOW).await.unwrap()
}

pub(super) fn consent(person: PersonId, issued_at: UnixTime, kind: Kind) -> NewConsent {
    let token_key = kind.has_device().then(|| device_key().verifying_key().clone());
    NewConsent {
        cti: Cti(random16()),
        person,
        device: None,
        kind,
        scope: Scope::LEVEL,
        token_key,
        issued_at,
        expires_at: issued_at.plus(HOUR),
        token: random16().to_vec(),
    }
}

pub(super) async fn issue<S: Store>(store: &S, consent: &NewConsent) -> Result<(IssuedToken, LogHead), StoreError> {
    let id = format!("issue-{:x}", u128::from_be_bytes(consent.cti.0));
    store.issue_consent(&request(&id, ""), consent, LIMIT, &SystemRandom).await
}

/// One event: somebody's consent is revoked.
pub(super) async fn event<S: Store>(store: &S) {
    let person = add_person(store, 0).await;
    let issued = issue(store, &consent(person, NOW, Kind::Own)).await.unwrap();
    store.revoke_consent(issued.0.cti, Some(person), NOW).await.unwrap();
}

/// Adds the person of [`event`] again, as somebody new would be added, and says how many were.
pub(super) async fn seeded_again<S: Store>(store: &S) -> u32 {
    seed_person(store, 0).await
}

/// A traveler with accesses of now.
pub(super) async fn traveler_with_accesses<S: Store>(store: &S, count: usize) -> PersonId {
    accesses::traveler_with(store, count).await
}

async fn consents_are_listed_newest_first_and_only_their_travelers<S: Store>(store: S) {
    let (anna, ben) = (add_person(&store, 1).await, add_person(&store, 2).await);
    let mut issued = Vec::new();
    for seconds in [0, 10, 10] {
        let consent = consent(anna, NOW.plus(Duration::from_secs(seconds)), Kind::Own);
        issue(&store, &consent).await.unwrap();
        issued.push((consent.issued_at, consent.cti));
    }
    issued.sort_by(|a, b| b.cmp(a));
    let page = |person, now, after, limit| store.consents(person, now, after, limit);
    let keys = |consents: &[IssuedConsent]| consents.iter().map(|c| (c.issued_at, c.cti)).collect::<Vec<_>>();
    let all = page(anna, NOW, None, 10).await.unwrap();
    assert_eq!(keys(&all), issued);
    assert!(page(ben, NOW, None, 10).await.unwrap().is_empty());
    let first = page(anna, NOW, None, 2).await.unwrap();
    let after = first.last().map(|last| PageKey { issued_at: last.issued_at, cti: last.cti });
    assert_eq!(keys(&page(anna, NOW, after, 2).await.unwrap()), issued[2..]);
    let (_, cti) = issued[0];
    assert!(matches!(store.revoke_consent(cti, Some(ben), NOW).await, Err(StoreError::ConsentUnknown)));
    store.revoke_consent(cti, Some(anna), NOW).await.unwrap();
    assert_eq!(page(anna, NOW, None, 1).await.unwrap()[0].revoked_at, Some(NOW));
    let end = NOW.plus(HOUR);
    assert_eq!(page(anna, end, None, 10).await.unwrap().len(), 2, "what has expired is not listed");
}

pub(super) fn assignment(index: u32, label: &str, now: UnixTime) -> NewAssignment {
    NewAssignment {
        document: document(index),
        label: label.into(),
        rule: "R-CASE".into(),
        authority: "41/cdc".parse::<Authority>().unwrap(),
        justification: "一位接触者".into(),
        set_by: "41/operator/li".into(),
        now,
    }
}

fn set_request(id: &str) -> RequestKey {
    RequestKey { method: Method::SetCode, ..request(id, "set") }
}

pub(super) async fn set<S: Store>(store: &S, id: &str, assignment: &NewAssignment) -> Result<Assigned, StoreError> {
    store.set_code(&set_request(id), assignment, &SystemRandom).await
}

async fn a_new_log_is_empty<S: Store>(store: S) {
    assert_eq!(store.head().await.unwrap().seq, 0);
    assert!(store.changes(0, 10).await.unwrap().is_empty());
    assert!(store.find(Cti([7; 16]), Scope::ALL).await.unwrap().found.is_none());
}

async fn enrolment_adds_a_person_once<S: Store>(store: S) {
    let key = device_key();
    let device = new_device(&document(0), &name(), &key);
    let (enrolled, head) = store.enroll_device(&request("request-1", ""), &device, LIMIT).await.unwrap();
    assert_eq!((enrolled, head), (device.id, store.head().await.unwrap()));
    let person = store.person_by_document(&document(0)).await.unwrap().unwrap();
    let found = store.device(device.id).await.unwrap();
    assert_eq!((found.person, &found.enrollment_key), (person, key.verifying_key()));
    let second = new_device(&document(0), &name(), &device_key());
    store.enroll_device(&request("request-2", ""), &second, LIMIT).await.unwrap();
    assert_eq!(store.device(second.id).await.unwrap().person, person);
    assert!(matches!(store.device(DeviceId([0; 16])).await, Err(StoreError::DeviceUnknown)));
    let other = new_device(&document(0), &Name::new("上官溪渡").unwrap(), &device_key());
    let refused = store.enroll_device(&request("request-3", ""), &other, LIMIT).await;
    assert!(matches!(refused, Err(StoreError::NameDiffers)));
    assert_eq!(store.head().await.unwrap().seq, 0);
}

async fn enrolment_is_bounded_and_refuses_known_keys<S: Store>(store: S) {
    let enroll = async |id: &str, index, key: &SigningKey| {
        store.enroll_device(&request(id, ""), &new_device(&document(index), &name(), key), 2).await
    };
    let key = device_key();
    enroll("request-1", 0, &key).await.unwrap();
    assert!(matches!(enroll("request-2", 0, &key).await, Err(StoreError::KeyReused)));
    assert!(matches!(enroll("request-3", 1, &key).await, Err(StoreError::KeyReused)));
    // What was refused left nothing behind, not even the person.
    assert_eq!(store.person_by_document(&document(1)).await.unwrap(), None);
    enroll("request-4", 0, &device_key()).await.unwrap();
    assert!(matches!(enroll("request-5", 0, &device_key()).await, Err(StoreError::TooManyDevices(2))));
}

async fn a_request_has_one_answer<S: Store>(store: S) {
    let enroll = async |request: RequestKey| {
        let device = new_device(&document(0), &name(), &device_key());
        store.enroll_device(&request, &device, LIMIT).await
    };
    let first = enroll(request("request-1", "a")).await.unwrap();
    assert_eq!(enroll(request("request-1", "a")).await.unwrap(), first);
    assert!(matches!(enroll(request("request-1", "b")).await, Err(StoreError::RequestIdReused)));
    let other_method = RequestKey { method: Method::SetCode, ..request("request-1", "a") };
    assert!(matches!(enroll(other_method).await, Err(StoreError::RequestIdReused)));
    let other_caller = RequestKey { caller: "41/backend/b".into(), ..request("request-1", "a") };
    assert_ne!(enroll(other_caller).await.unwrap(), first);
}

async fn issue_is_bounded_and_idempotent<S: Store>(store: S) {
    let person = add_person(&store, 0).await;
    let first = consent(person, NOW, Kind::Own);
    let (issued, head) = issue(&store, &first).await.unwrap();
    assert_eq!((issued.cti, &issued.token, head), (first.cti, &first.token, store.head().await.unwrap()));
    // The same request, signed into another token meanwhile, gets the first one.
    let id = format!("issue-{:x}", u128::from_be_bytes(first.cti.0));
    let again = consent(person, NOW, Kind::Own);
    let repeated = store.issue_consent(&request(&id, ""), &again, LIMIT, &SystemRandom).await.unwrap();
    assert_eq!(repeated, (issued, head));
    for _ in 1..LIMIT {
        issue(&store, &consent(person, NOW, Kind::Own)).await.unwrap();
    }
    let refused = issue(&store, &consent(person, NOW, Kind::Own)).await;
    assert!(matches!(refused, Err(StoreError::TooManyConsents(LIMIT))));
    // Revoked and expired ones are not live.
    store.revoke_consent(first.cti, None, NOW).await.unwrap();
    issue(&store, &consent(person, NOW, Kind::Own)).await.unwrap();
    issue(&store, &consent(person, NOW.plus(HOUR), Kind::Own)).await.unwrap();
    assert_eq!(store.head().await.unwrap().seq, 1, "ordinary issue is no event");
}

async fn a_key_is_good_for_one_token<S: Store>(store: S) {
    let person = add_person(&store, 0).await;
    let first = consent(person, NOW, Kind::Own);
    issue(&store, &first).await.unwrap();
    let same_key = NewConsent { token_key: first.token_key.clone(), ..consent(person, NOW, Kind::Own) };
    assert!(matches!(issue(&store, &same_key).await, Err(StoreError::KeyReused)));
    let enrollment = device_key();
    let device = new_device(&document(0), &name(), &enrollment);
    store.enroll_device(&request("request-1", ""), &device, LIMIT).await.unwrap();
    let key = Some(enrollment.verifying_key().clone());
    let enrolled_key = NewConsent { token_key: key, ..consent(person, NOW, Kind::Own) };
    assert!(matches!(issue(&store, &enrolled_key).await, Err(StoreError::KeyReused)));
    let token_key = first.token_key.unwrap();
    let device = NewDevice { enrollment_key: token_key, ..new_device(&document(0), &name(), &device_key()) };
    let refused = store.enroll_device(&request("request-2", ""), &device, LIMIT).await;
    assert!(matches!(refused, Err(StoreError::KeyReused)));
}

async fn a_reprint_revokes_the_paper_before<S: Store>(store: S) {
    let person = add_person(&store, 0).await;
    let (phone, first) = (consent(person, NOW, Kind::Own), consent(person, NOW, Kind::Paper));
    issue(&store, &phone).await.unwrap();
    issue(&store, &first).await.unwrap();
    assert_eq!(store.head().await.unwrap().seq, 0);
    let second = consent(person, NOW.plus(HOUR / 2), Kind::Paper);
    let (_, head) = issue(&store, &second).await.unwrap();
    assert_eq!((head.seq, head), (1, store.head().await.unwrap()), "the head is behind the revocation");
    let changes = store.changes(0, 10).await.unwrap();
    let expected = Change { seq: 1, cti: first.cti, what: ChangeKind::Revoked, at: NOW.plus(HOUR / 2) };
    assert_eq!(changes, [expected]);
    let revoked = async |cti| store.find(cti, Scope::LEVEL).await.unwrap().found.unwrap().revoked;
    assert!(revoked(first.cti).await);
    assert!(!revoked(second.cti).await && !revoked(phone.cti).await);
    // Whoever asks again has the head of now: what came between is behind it as well.
    let later = store.revoke_consent(phone.cti, None, NOW).await.unwrap();
    assert_eq!(issue(&store, &second).await.unwrap().1, later);
}

async fn a_revocation_is_one_event<S: Store>(store: S) {
    let person = add_person(&store, 0).await;
    let issued = consent(person, NOW, Kind::Own);
    issue(&store, &issued).await.unwrap();
    let head = store.revoke_consent(issued.cti, None, NOW).await.unwrap();
    assert_eq!(head.seq, 1);
    assert_eq!(store.revoke_consent(issued.cti, None, NOW.plus(HOUR)).await.unwrap(), head);
    let event = Change { seq: 1, cti: issued.cti, what: ChangeKind::Revoked, at: NOW };
    assert_eq!(store.changes(0, 10).await.unwrap(), [event]);
    assert!(matches!(store.revoke_consent(Cti([0; 16]), None, NOW).await, Err(StoreError::ConsentUnknown)));
}

async fn a_new_status_is_an_event_for_every_consent_that_may_be_honoured<S: Store>(store: S) {
    let (person, other) = (add_person(&store, 0).await, add_person(&store, 1).await);
    let [live, lately_over, long_over, revoked, others] = [
        consent(person, NOW, Kind::Own),
        consent(person, NOW.minus(HOUR + Duration::from_secs(59)), Kind::Own),
        consent(person, NOW.minus(HOUR + Duration::from_secs(60)), Kind::Own),
        consent(person, NOW, Kind::Own),
        consent(other, NOW, Kind::Own),
    ];
    for consent in [&long_over, &lately_over, &live, &revoked, &others] {
        issue(&store, consent).await.unwrap();
    }
    store.revoke_consent(revoked.cti, None, NOW).await.unwrap();
    let assigned = set(&store, "request-1", &assignment(0, "红码", NOW)).await.unwrap();
    assert_eq!((assigned.assigned_at, assigned.head.seq, assigned.changed), (NOW, 3, 2));
    let events = store.changes(1, 10).await.unwrap();
    assert!(events.iter().all(|event| event.what == ChangeKind::Status && event.at == NOW));
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
    let handles: BTreeSet<_> = events.iter().map(|event| event.cti).collect();
    assert_eq!(handles, [live.cti, lately_over.cti].into());
    assert_eq!(store.changes(0, 2).await.unwrap().len(), 2, "the limit holds");
    let found = store.find(live.cti, Scope::LEVEL).await.unwrap();
    assert_eq!(found.head, assigned.head);
    let code = found.found.unwrap().code.unwrap();
    assert_eq!((code.label.as_str(), code.rule.as_deref()), ("红码", Some("R-CASE")));
    let again = set(&store, "request-1", &assignment(0, "红码", NOW.plus(HOUR))).await.unwrap();
    assert_eq!(again, assigned, "the same request has the same answer");
    let unknown = set(&store, "request-2", &assignment(9, "红码", NOW)).await;
    assert!(matches!(unknown, Err(StoreError::PersonUnknown)));
}

async fn the_same_status_again_is_recorded_and_no_event<S: Store>(store: S) {
    let person = add_person(&store, 0).await;
    let issued = consent(person, NOW, Kind::Own);
    issue(&store, &issued).await.unwrap();
    let first = set(&store, "request-1", &assignment(0, "红码", NOW)).await.unwrap();
    let later = NOW.plus(Duration::from_secs(60));
    let second = set(&store, "request-2", &assignment(0, "红码", later)).await.unwrap();
    assert_eq!(second, Assigned { changed: 0, ..first });
    let code = store.find(issued.cti, Scope::LEVEL).await.unwrap().found.unwrap().code.unwrap();
    assert_eq!(code.assigned_at, NOW, "what nobody could see change has not changed");
    let other_rule = NewAssignment { rule: "R-CONTACT".into(), ..assignment(0, "红码", later) };
    let third = set(&store, "request-3", &other_rule).await.unwrap();
    assert_eq!((third.changed, third.assigned_at, third.head.seq), (1, later, 2));
}

async fn evidence_is_read_by_scope_latest_first_and_bounded<S: Store>(store: S) {
    let ago = |n: u32| NOW.minus(HOUR * n);
    let person = NewPerson {
        document: document(0),
        name: name(),
        code: None,
        tests: (0..6).map(|n| TestResult { sampled_at: ago(6 - n), positive: n == 5 }).collect(),
        doses: (1..=6).map(|n| Dose { number: n, given_at: ago(60 - u32::from(n)) }).collect(),
        visits: (0..10).map(|n| RiskVisit { area: 419_999, high: n % 2 == 0, left_at: ago(n + 1) }).collect(),
    };
    store.seed(std::slice::from_ref(&person), NOW).await.unwrap();
    let issued = consent(store.person_by_document(&document(0)).await.unwrap().unwrap(), NOW, Kind::Own);
    issue(&store, &issued).await.unwrap();
    let find = async |scope| store.find(issued.cti, scope).await.unwrap().found.unwrap();
    let all = find(Scope::ALL).await;
    assert_eq!(all.tests, person.tests.iter().rev().take(4).copied().collect::<Vec<_>>());
    assert_eq!(all.doses, person.doses.iter().rev().take(4).copied().collect::<Vec<_>>());
    assert_eq!(all.visits, person.visits[..8]);
    assert_eq!(all.particulars.as_ref().unwrap().name, name().as_str());
    assert_eq!(all.particulars.as_ref().unwrap().document_number, document(0).number());
    assert_eq!(all.token, TokenHash::of(&issued.token));
    assert_eq!((all.person, all.due_at), (issued.person, None));
    let counts = |found: &Found| (found.tests.len(), found.doses.len(), found.visits.len());
    assert_eq!(counts(&find(Scope::LEVEL).await), (0, 0, 0));
    assert_eq!(counts(&find(Scope::TESTS).await), (4, 0, 0));
    assert_eq!(counts(&find(Scope::VACCINATION).await), (0, 4, 0));
    assert_eq!(counts(&find(Scope::RISK_AREAS).await), (0, 0, 8));
}

async fn standing_consents_are_issued_all_or_none<S: Store>(store: S) {
    let person = add_person(&store, 0).await;
    let many: Vec<_> = (0..=LIMIT).map(|_| consent(person, NOW, Kind::Own)).collect();
    assert!(matches!(store.issue_standing(&many, LIMIT).await, Err(StoreError::TooManyConsents(LIMIT))));
    assert!(store.find(many[0].cti, Scope::LEVEL).await.unwrap().found.is_none());
    let standing = &many[..LIMIT as usize];
    store.issue_standing(standing, LIMIT).await.unwrap();
    assert_eq!(store.revoke_standing(NOW, &SystemRandom).await.unwrap(), LIMIT);
    assert_eq!(store.revoke_standing(NOW, &SystemRandom).await.unwrap(), 0);
    let revoked: BTreeSet<_> = store.changes(0, 100).await.unwrap().iter().map(|change| change.cti).collect();
    assert_eq!(revoked, standing.iter().map(|consent| consent.cti).collect());
    store.issue_standing(&[], LIMIT).await.unwrap();
}

async fn seeding_again_changes_nobody<S: Store>(store: S) {
    let people = seed::records(&seed::people(member(), 600, &policy()), NOW);
    assert_eq!(store.seed(&people, NOW).await.unwrap(), 600);
    set(&store, "request-1", &assignment(0, "红码", NOW)).await.unwrap();
    assert_eq!(store.seed(&people, NOW).await.unwrap(), 0);
    let issued = consent(store.person_by_document(&document(0)).await.unwrap().unwrap(), NOW, Kind::Own);
    issue(&store, &issued).await.unwrap();
    let code = store.find(issued.cti, Scope::LEVEL).await.unwrap().found.unwrap().code.unwrap();
    assert_eq!(code.label, "红码");
}

async fn old_things_are_forgotten_but_not_the_head<S: Store>(store: S) {
    let person = add_person(&store, 0).await;
    let issued = consent(person, NOW, Kind::Own);
    issue(&store, &issued).await.unwrap();
    let assigned = set(&store, "request-1", &assignment(0, "红码", NOW)).await.unwrap();
    assert_eq!(store.sweep(NOW.plus(REQUEST_RETENTION), RETENTION).await.unwrap(), 0);
    assert_eq!(set(&store, "request-1", &assignment(0, "红码", NOW)).await.unwrap(), assigned);
    assert_eq!(store.changes(0, 10).await.unwrap().len(), 1);
    let second = Duration::from_secs(1);
    // Two requests, the assignment's and the consent's, and one event.
    assert_eq!(store.sweep(NOW.plus(CHANGE_RETENTION + second), RETENTION).await.unwrap(), 3);
    assert!(store.changes(0, 10).await.unwrap().is_empty());
    assert_eq!(store.head().await.unwrap(), assigned.head);
    assert!(store.find(issued.cti, Scope::LEVEL).await.unwrap().found.is_some());
    assert_eq!(store.sweep(issued.expires_at.plus(CONSENT_RETENTION + second), RETENTION).await.unwrap(), 1);
    assert!(store.find(issued.cti, Scope::LEVEL).await.unwrap().found.is_none());
    // Its request is forgotten too: the id may be used anew.
    set(&store, "request-1", &assignment(0, "绿码", NOW)).await.unwrap();
}

async fn a_forgotten_traveler_is_nobody<S: Store>(store: S) {
    let people = [0, 1].map(|index| NewPerson {
        document: document(index),
        name: name(),
        code: None,
        tests: vec![TestResult { sampled_at: NOW, positive: false }],
        doses: vec![Dose { number: 1, given_at: NOW }],
        visits: vec![RiskVisit { area: 419_999, high: true, left_at: NOW }],
    });
    store.seed(&people, NOW).await.unwrap();
    let mut known = Vec::new();
    for (index, key) in [(0, device_key()), (0, device_key()), (1, device_key())] {
        let device = new_device(&document(index), &name(), &key);
        store.enroll_device(&request(&format!("enroll-{}", known.len()), ""), &device, LIMIT).await.unwrap();
        let person = store.device(device.id).await.unwrap().person;
        let issued = NewConsent { device: Some(device.id), ..consent(person, NOW, Kind::Own) };
        issue(&store, &issued).await.unwrap();
        known.push((person, device, issued));
    }
    let [(anna, phone, first), (_, tablet, second), (ben, bens, others)] = &known[..] else { unreachable!() };
    // What an event may still matter for, and what not: revoked, long over.
    let (revoked, over) = (consent(*anna, NOW, Kind::Paper), consent(*anna, NOW.minus(HOUR * 2), Kind::Own));
    for consent in [&revoked, &over] {
        issue(&store, consent).await.unwrap();
    }
    store.revoke_consent(revoked.cti, None, NOW).await.unwrap();
    // Somebody else's consent on her phone.
    let lent = NewConsent { device: Some(phone.id), ..consent(*ben, NOW, Kind::Dependent) };
    issue(&store, &lent).await.unwrap();
    set(&store, "request-1", &assignment(0, "红码", NOW)).await.unwrap();
    let before = store.head().await.unwrap();

    let forgotten = store.delete_traveler(tablet.id, NOW, &SystemRandom).await.unwrap();
    assert_eq!((forgotten.revoked, forgotten.head), (2, store.head().await.unwrap()));
    let events = store.changes(before.seq, 10).await.unwrap();
    assert!(events.iter().all(|event| event.what == ChangeKind::Revoked && event.at == NOW));
    let handles: BTreeSet<_> = events.iter().map(|event| event.cti).collect();
    assert_eq!((events.len(), handles), (2, [first.cti, second.cti].into()));
    for cti in [first.cti, second.cti, revoked.cti, over.cti] {
        assert!(store.find(cti, Scope::ALL).await.unwrap().found.is_none());
    }
    for device in [phone, tablet] {
        assert!(matches!(store.device(device.id).await, Err(StoreError::DeviceUnknown)));
        let again = store.delete_traveler(device.id, NOW, &SystemRandom).await;
        assert!(matches!(again, Err(StoreError::DeviceUnknown)));
    }
    assert_eq!(store.person_by_document(&document(0)).await.unwrap(), None);
    assert!(store.consents(*anna, NOW, None, 10).await.unwrap().is_empty());
    // Ben is who he was.
    assert_eq!(store.device(bens.id).await.unwrap().person, *ben);
    for cti in [others.cti, lent.cti] {
        let found = store.find(cti, Scope::ALL).await.unwrap().found.unwrap();
        assert_eq!((found.tests.len(), found.doses.len(), found.visits.len()), (1, 1, 1));
    }
    // Her requests are forgotten: a new one may have the same id, and she may come back, with no past.
    let phone = new_device(&document(0), &name(), &device_key());
    store.enroll_device(&request("enroll-0", "other"), &phone, LIMIT).await.unwrap();
    let person = store.device(phone.id).await.unwrap().person;
    let issued = consent(person, NOW, Kind::Own);
    issue(&store, &issued).await.unwrap();
    let found = store.find(issued.cti, Scope::ALL).await.unwrap().found.unwrap();
    assert_eq!((found.code, found.tests.len(), found.doses.len(), found.visits.len()), (None, 0, 0, 0));
    set(&store, "request-1", &assignment(0, "绿码", NOW)).await.unwrap();
}

async fn numbers_have_no_gaps_under_concurrent_writes<S: Store>(store: S) {
    const PEOPLE: u32 = 8;
    for index in 0..PEOPLE {
        let person = add_person(&store, index).await;
        issue(&store, &consent(person, NOW, Kind::Own)).await.unwrap();
        issue(&store, &consent(person, NOW, Kind::Own)).await.unwrap();
    }
    let store = Arc::new(store);
    let mut writers = JoinSet::new();
    for index in 0..PEOPLE {
        let store = store.clone();
        writers.spawn(async move {
            for (round, label) in ["红码", "黄码", "绿码"].into_iter().enumerate() {
                set(&*store, &format!("request-{index}-{round}"), &assignment(index, label, NOW)).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let expected = u64::from(PEOPLE) * 3 * 2;
    let numbers: Vec<_> = store.changes(0, 1_000).await.unwrap().iter().map(|change| change.seq).collect();
    assert_eq!(numbers, (1..=expected).collect::<Vec<_>>());
    assert_eq!(store.head().await.unwrap().seq, expected);
}

async fn status_and_head_are_of_one_snapshot<S: Store>(store: S) {
    const ROUNDS: u64 = 40;
    let person = add_person(&store, 0).await;
    let issued = consent(person, NOW, Kind::Own);
    issue(&store, &issued).await.unwrap();
    let store = Arc::new(store);
    let mut readers = JoinSet::new();
    for scope in [Scope::LEVEL, Scope::ALL] {
        let (store, cti) = (store.clone(), issued.cti);
        readers.spawn(async move {
            loop {
                // The writer's n-th change is its n-th label: head and label must always agree.
                let snapshot = store.find(cti, scope).await.unwrap();
                let label = snapshot.found.unwrap().code.map(|code| code.label);
                let expected = (snapshot.head.seq > 0).then(|| format!("label {}", snapshot.head.seq));
                assert_eq!(label, expected);
                if snapshot.head.seq == ROUNDS {
                    return;
                }
            }
        });
    }
    for round in 1..=ROUNDS {
        let assignment = assignment(0, &format!("label {round}"), NOW);
        set(&*store, &format!("request-{round}"), &assignment).await.unwrap();
    }
    readers.join_all().await;
}
