//! What a replica may bring, and what a traveler then sees of it.

use std::time::Duration;

use proto::{identity::Realm, log::merkle::MAX_PROOF, policy::NATIONAL, terms::Scope, token::Cti, trust::keys};
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    seed::Condition,
    store::{StoreError, filing::OperatorAccess},
    test_support::{Fixture, HOUR, NOW, ReplicaLog, entry, member, replica, seeded, tree},
};

/// A fixture whose trust list has the logs' keys.
async fn fixture(logs: &[&ReplicaLog]) -> Fixture {
    let mut fixture = Fixture::new().await;
    fixture.list.gateway.log_keys = keys(logs.iter().map(|log| log.key.verifying_key().clone()));
    fixture
}

fn brought(log: &ReplicaLog, first: u64, end: u64, size: u64) -> Brought {
    let delivery = log.delivery(first, end, size);
    let (log, first_index, proof) = (delivery.log, delivery.first_index, delivery.proof);
    let records = delivery.records.into_iter().map(|access| access.record).collect();
    Brought { log, first_index, records, checkpoint: delivery.note, proof, before: None }
}

impl Fixture {
    async fn bring(&self, brought: Brought) -> Result<Taken, Refusal> {
        record(&self.home, &self.list, NOW, replica(), brought).await
    }

    /// Brings records that nobody objects to, and says what home signs for.
    async fn deliver(&self, log: &ReplicaLog, first: u64, end: u64, size: u64) -> (u64, Hash) {
        let Taken::Receipt { receipt, .. } = self.bring(brought(log, first, end, size)).await.unwrap() else {
            panic!("a conflict");
        };
        let receipt = DeliveryReceipt::open(&receipt, member(), &self.list, NOW).unwrap();
        assert_eq!((receipt.log, receipt.issued_at), (log.id(), NOW));
        (receipt.size, receipt.root)
    }
}

/// Reason, and the field if one is named.
fn seen(result: Result<Taken, Refusal>) -> (Reason, Option<String>) {
    let refusal = result.unwrap_err();
    let field = refusal.to_status().get_details_bad_request().map(|bad| bad.field_violations[0].field.clone());
    (refusal.reason(), field)
}

#[tokio::test]
async fn home_signs_for_what_it_holds() {
    let log = ReplicaLog::of_strangers(9);
    let fixture = fixture(&[&log]).await;
    let at = |size| (size, log.checkpoint(size).root);
    assert_eq!(fixture.deliver(&log, 0, 0, 9).await, at(0));
    assert_eq!(fixture.deliver(&log, 4, 6, 9).await, at(0));
    assert_eq!(fixture.deliver(&log, 0, 4, 4).await, at(4));
    assert_eq!(fixture.deliver(&log, 2, 9, 9).await, at(9));
    assert_eq!(fixture.deliver(&log, 0, 4, 4).await, at(9), "a retry that comes late");
    assert_eq!(fixture.deliver(&log, 0, 0, 0).await, at(9), "a question");
}

#[tokio::test]
async fn what_is_new_is_counted_by_whose_it_is() {
    let person = seeded(Condition::Green);
    let mut log = ReplicaLog::of_strangers(2);
    let fixture = fixture(&[&log]).await;
    let phone = fixture.phone(&person, |_| {}).await;
    log.records.push(entry(phone.issued.cti, NOW).encode());
    log.records.push(vec![0xff]);
    let counts = async |first, end| match fixture.bring(brought(&log, first, end, 4)).await.unwrap() {
        Taken::Receipt { stored, unmatched, unreadable, .. } => (stored, unmatched, unreadable),
        Taken::Conflict(conflict) => panic!("{conflict:?}"),
    };
    assert_eq!(counts(0, 1).await, (1, 1, 0));
    assert_eq!(counts(0, 4).await, (3, 2, 1));
    assert_eq!(counts(0, 4).await, (0, 0, 0));
}

#[tokio::test]
async fn a_head_is_refused_for_what_is_wrong_first() {
    let (log, stranger) = (ReplicaLog::of_strangers(4), ReplicaLog::of_strangers(4));
    let fixture = fixture(&[&log]).await;
    let checkpoint = Some("checkpoint".to_owned());
    let with = |checkpoint: String| Brought { checkpoint, ..brought(&log, 0, 2, 4) };
    let neighbours = ReplicaLog { owner: Realm::Member("44".parse().unwrap()), ..log.turned(4) };
    let flipped = |note: String| note.replacen("\n4\n", "\n5\n", 1);
    for (brought, expected) in [
        (with("no note".into()), (Reason::ObjectMalformed, None)),
        (with("x".repeat(1_025)), (Reason::ObjectTooLarge, None)),
        // Of another log, though its key is unknown as well; of another member, though its signature is wrong as well.
        (with(stranger.note(4)), (Reason::FieldInvalid, checkpoint.clone())),
        (with(neighbours.note(4)), (Reason::FieldInvalid, checkpoint.clone())),
        (with(flipped(neighbours.note(4))), (Reason::FieldInvalid, checkpoint.clone())),
        (brought(&stranger, 0, 2, 4), (Reason::KeyUnknown, None)),
        (with(flipped(log.note(4))), (Reason::SignatureInvalid, None)),
        (with(log.note(1)), (Reason::FieldInvalid, checkpoint.clone())),
    ] {
        assert_eq!(seen(fixture.bring(brought).await), expected);
    }
    let endless = Checkpoint { size: 1 << MAX_PROOF, ..log.checkpoint(4) };
    let endless = with(endless.sign(&fixture.list.domain, &log.key));
    assert_eq!(seen(fixture.bring(endless).await), (Reason::FieldInvalid, checkpoint));
    assert!(fixture.home.store.access_logs().await.unwrap().is_empty(), "what was refused left nothing");
}

#[test]
fn a_peer_has_one_delivery_under_way() {
    let deliveries = Deliveries::of("deliveries");
    let (one, other) = (replica(), PeerId::gateway("2").unwrap());
    let under_way = deliveries.admit(&one).unwrap();
    let refused = deliveries.admit(&one).unwrap_err();
    assert_eq!((refused.reason(), refused.metadata("limit")), (Reason::Overloaded, Some("deliveries")));
    assert!(deliveries.admit(&other).is_ok());
    drop(under_way);
    assert!(deliveries.admit(&one).is_ok());
}

#[tokio::test]
async fn what_never_came_and_what_is_of_the_future_is_counted() {
    let mut log = ReplicaLog::of_strangers(9);
    log.records[8] = entry(Cti([9; 16]), NOW.plus(HOUR)).encode();
    let fixture = fixture(&[&log]).await;
    log.records[7] = entry(Cti([9; 16]), NOW).encode();
    fixture.deliver(&log, 0, 1, 9).await;
    let before = Some(tree(&log.records[..7]));
    let Taken::Receipt { stored: 2, ahead: 1, unmatched_ahead: 1, missing: 6, .. } =
        fixture.bring(Brought { before, ..brought(&log, 7, 9, 9) }).await.unwrap()
    else {
        panic!("otherwise")
    };
}

#[tokio::test]
async fn two_stories_are_answered_with_the_one_that_is_held() {
    let log = ReplicaLog::of_strangers(8);
    let fixture = fixture(&[&log]).await;
    let other = log.turned(3);
    fixture.deliver(&log, 0, 5, 6).await;
    for (brought, index) in [
        // A fork at one size; a log that was rolled back and goes on otherwise; a head that does not extend what is held.
        (brought(&other, 5, 5, 6), 5),
        (brought(&other, 2, 7, 7), 3),
        (brought(&other, 5, 6, 8), 5),
    ] {
        let Taken::Conflict(conflict) = fixture.bring(brought).await.unwrap() else { panic!("{index}") };
        assert_eq!((conflict.held_note, conflict.held_size, conflict.index), (Some(log.note(6)), 5, index));
    }
    assert_eq!(fixture.deliver(&log, 5, 8, 8).await, (8, log.checkpoint(8).root));
}

#[tokio::test]
async fn a_traveler_sees_who_asked_once_the_delay_is_over() {
    let person = seeded(Condition::Green);
    let mut log = ReplicaLog::new([]);
    let fixture = fixture(&[&log]).await;
    let (device, _) = fixture.enroll(&person).await;
    let phone = fixture.phone(&person, |_| {}).await;
    let others = fixture.phone(&seeded(Condition::Red), |_| {}).await;
    log.records.push(entry(phone.issued.cti, NOW).encode());
    log.records.push(entry(others.issued.cti, NOW).encode());
    fixture.deliver(&log, 0, 2, 2).await;
    let at_once = &fixture.policy;
    let delayed = NATIONAL.replacen("visibility_delay = \"0s\"", "visibility_delay = \"1h\"", 1);
    let delayed = Policy::from_toml(&delayed).unwrap();
    let listed = async |policy, now| list(&fixture.home, policy, now, device, None, 10).await.unwrap().accesses;
    let seen = listed(at_once, NOW).await;
    let [Seen::Access(access)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((access.key.index, access.entry.cti), (0, phone.issued.cti));
    assert_eq!(access.entry.disclosed(), Some(Scope::LEVEL.union(Scope::TESTS)));
    assert!(access.device.is_some_and(|shown| shown != device), "the one that the token was issued to");
    assert!(listed(&delayed, NOW.plus(HOUR).minus(Duration::from_secs(1))).await.is_empty());
    assert_eq!(listed(&delayed, NOW.plus(HOUR)).await, seen);
    let nobody = list(&fixture.home, at_once, NOW, DeviceId([0; 16]), None, 10).await;
    assert_eq!(nobody.unwrap_err().reason(), Refusal::from(StoreError::DeviceUnknown).reason());
}

#[tokio::test]
async fn pages_end_where_the_accesses_do() {
    let mut log = ReplicaLog::new([]);
    let fixture = fixture(&[&log]).await;
    let (device, _) = fixture.enroll(&seeded(Condition::Green)).await;
    let phone = fixture.phone(&seeded(Condition::Green), |_| {}).await;
    log.records.extend((0..5).map(|_| entry(phone.issued.cti, NOW).encode()));
    log.records.push(entry(Cti([9; 16]), NOW).encode());
    fixture.deliver(&log, 0, 6, 6).await;
    let (mut indexes, mut sizes, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = list(&fixture.home, &fixture.policy, NOW, device, after, 2).await.unwrap();
        sizes.push(page.accesses.len());
        indexes.extend(page.accesses.iter().map(|access| access.key().index));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((indexes, sizes), (vec![4, 3, 2, 1, 0], vec![2, 2, 1]));
}

#[tokio::test]
async fn pages_of_several_logs_and_of_operators_looks_have_each_once() {
    let mut logs: Vec<_> = (0..4).map(|_| ReplicaLog::new([])).collect();
    let fixture = fixture(&logs.iter().collect::<Vec<_>>()).await;
    let person = seeded(Condition::Green);
    let (device, _) = fixture.enroll(&person).await;
    let phone = fixture.phone(&person, |_| {}).await;
    let ago = |seconds| NOW.minus(Duration::from_secs(seconds));
    for log in &mut logs {
        // All in the same two seconds: what is beside what is decided by more than the time.
        log.records.extend([10, 5, 5].map(|seconds| entry(phone.issued.cti, ago(seconds)).encode()));
        fixture.deliver(log, 0, 3, 3).await;
    }
    for (reason, seconds) in [("before", 20), ("amid", 10), ("amid again", 10), ("beside", 5), ("after", 0)] {
        let (operator, reason) = ("41/operator/li".to_owned(), reason.to_owned());
        let look = OperatorAccess { document: person.document.clone(), operator, reason, now: ago(seconds) };
        fixture.home.store.record_operator_access(&look).await.unwrap();
    }
    let whole = list(&fixture.home, &fixture.policy, NOW, device, None, 50).await.unwrap();
    assert_eq!((whole.accesses.len(), whole.next), (17, None));
    let times: Vec<_> = whole.accesses.iter().map(|seen| seen.key().time).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "newest first: {times:?}");
    for size in 1..=17 {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = list(&fixture.home, &fixture.policy, NOW, device, after, size).await.unwrap();
            paged.extend(page.accesses);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(paged, whole.accesses, "in pages of {size}");
    }
}

/// `cargo test --profile measure -p province-stub --lib -- --ignored --nocapture records_a_second`
#[tokio::test]
#[ignore = "a measurement"]
async fn records_a_second() {
    const DELIVERIES: u64 = 40;
    const EACH: u64 = 1_000;
    let mut log = ReplicaLog::new([]);
    let fixture = fixture(&[&log]).await;
    let mut handles = Vec::new();
    for condition in [Condition::Green, Condition::Red] {
        for _ in 0..16 {
            handles.push(fixture.phone(&seeded(condition), |_| {}).await.issued.cti);
        }
    }
    let whose = handles.into_iter().cycle();
    log.records.extend(whose.take((DELIVERIES * EACH) as usize).map(|cti| entry(cti, NOW).encode()));
    let all = DELIVERIES * EACH;
    let deliveries: Vec<_> = (0..DELIVERIES).map(|n| brought(&log, n * EACH, (n + 1) * EACH, all)).collect();
    let bytes: usize = log.records.iter().map(Vec::len).sum();
    let started = std::time::Instant::now();
    for delivery in deliveries {
        let Taken::Receipt { unmatched: 0, .. } = fixture.bring(delivery).await.unwrap() else { panic!("a conflict") };
    }
    let took = started.elapsed();
    println!("{:.0} records/s of {} bytes, {took:?} in all", all as f64 / took.as_secs_f64(), bytes as u64 / all);
}
