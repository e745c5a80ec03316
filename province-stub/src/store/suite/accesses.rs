//! The part of the contract that is about access logs.

use proto::log::{merkle::empty_root, record::Entry};

use super::{super::access_log::*, *};
use crate::test_support::{ReplicaLog, entry, replica, tree};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

async fn record<S: Store>(store: &S, delivery: &Delivery) -> Delivered {
    store.record_accesses(delivery).await.unwrap()
}

/// What is held of a log's first records, and how many of them were new and nobody's.
fn held(log: &ReplicaLog, size: u64, stored: u32, unmatched: u32) -> Delivered {
    Delivered::Held {
        size,
        root: tree(&log.records[..size as usize]).root(),
        stored,
        unmatched,
        unmatched_ahead: 0,
        missing: 0,
    }
}

async fn on_file<S: Store>(store: &S, log: &ReplicaLog) -> Vec<Vec<u8>> {
    let records = store.access_records(log.id(), 0, u32::MAX).await.unwrap();
    assert!(records.iter().enumerate().all(|(index, record)| record.index == index as u64));
    records.into_iter().map(|record| record.record).collect()
}

/// A person with a device and a consent of it.
async fn traveler<S: Store>(store: &S, index: u32) -> (PersonId, DeviceId, Cti) {
    let person = add_person(store, index).await;
    let device = new_device(&document(index), &name(), &device_key());
    store.enroll_device(&request(&format!("enroll-{index}"), ""), &device, LIMIT).await.unwrap();
    let issued = NewConsent { device: Some(device.id), ..consent(person, NOW, Kind::Own) };
    issue(store, &issued).await.unwrap();
    (person, device.id, issued.cti)
}

pub(super) async fn traveler_with<S: Store>(store: &S, count: usize) -> PersonId {
    let (person, _, cti) = traveler(store, 0).await;
    let log = ReplicaLog::new((0..count).map(|_| entry(cti, NOW).encode()));
    record(store, &log.delivery(0, count as u64, count as u64)).await;
    person
}

pub(super) async fn are_kept_once_and_bound_to_whose_consent_it_was<S: Store>(store: S) {
    let (anna, device, cti) = traveler(&store, 0).await;
    let late = consent(anna, NOW, Kind::Paper);
    let entries = [entry(cti, NOW), entry(Cti([7; 16]), NOW), entry(late.cti, NOW)];
    let records = entries.iter().map(Entry::encode).chain([b"not a record".to_vec()]);
    let log = ReplicaLog::new(records);
    assert_eq!(
        record(&store, &log.delivery(0, 0, 4)).await,
        Delivered::Held { size: 0, root: empty_root(), stored: 0, unmatched: 0, unmatched_ahead: 0, missing: 0 }
    );
    assert_eq!(record(&store, &log.delivery(2, 4, 4)).await, held(&log, 0, 0, 0), "a gap");
    assert_eq!(record(&store, &log.delivery(0, 4, 4)).await, held(&log, 4, 4, 3));
    assert_eq!(record(&store, &log.delivery(0, 4, 4)).await, held(&log, 4, 0, 0), "again");
    // A consent that comes later than its record is nobody's: it cannot be what the record speaks of.
    issue(&store, &late).await.unwrap();
    let listed = store.accesses(anna, NOW, None, 10).await.unwrap();
    let key = AccessKey { time: NOW, log: log.id(), index: 0 };
    let expected = TravelerAccess { key, entry: entries[0].clone(), device: Some(device) };
    assert_eq!(listed, [expected]);
    assert_eq!(on_file(&store, &log).await, log.records);
    let told: Vec<_> = store.access_records(log.id(), 0, 9).await.unwrap();
    let told: Vec<_> = told.iter().map(|record| (record.readable, record.matched)).collect();
    assert_eq!(told, [(true, true), (true, false), (true, false), (false, false)]);
    let records = store.access_records(log.id(), 1, 2).await.unwrap();
    assert_eq!(records.iter().map(|record| record.index).collect::<Vec<_>>(), [1, 2]);
    // A consent that is on no phone has no device to show, nor has one on another person's.
    let [paper, lent] = [consent(anna, NOW, Kind::Paper), consent(anna, NOW, Kind::Dependent)];
    let (_, bens, _) = traveler(&store, 1).await;
    issue(&store, &paper).await.unwrap();
    issue(&store, &NewConsent { device: Some(bens), ..lent.clone() }).await.unwrap();
    let other = ReplicaLog::new([paper.cti, lent.cti].map(|cti| entry(cti, NOW.plus(seconds(1))).encode()));
    assert_eq!(record(&store, &other.delivery(0, 2, 2)).await, held(&other, 2, 2, 0));
    let listed = store.accesses(anna, NOW.plus(seconds(1)), None, 2).await.unwrap();
    assert!(listed.iter().all(|access| access.key.log == other.id() && access.device.is_none()));
}

pub(super) async fn a_delivery_is_kept_whole_however_large<S: Store>(store: S) {
    let log = ReplicaLog::of_strangers(2_253);
    let mut at = 0;
    for size in [1, 249, 250, 251, 501, 1, 1_000] {
        assert_eq!(
            record(&store, &log.delivery(at, at + size, 2_253)).await,
            held(&log, at + size, size as u32, size as u32)
        );
        at += size;
    }
    assert_eq!(on_file(&store, &log).await, log.records);
    let logs = store.access_logs().await.unwrap();
    let [LogOnFile { log: id, key, held, conflicts: 0, evidence, start: 0, next_start: None }] = logs.as_slice() else {
        panic!("{logs:?}")
    };
    assert_eq!(key, log.key.verifying_key().encoded());
    assert_eq!((*id, &held.tree, held.base.size()), (log.id(), &tree(&log.records), 0));
    let latest = held.latest.clone().unwrap();
    assert_eq!((latest.size, latest.root, latest.note), (2_253, tree(&log.records).root(), log.note(2_253)));
    assert!(evidence.is_empty());
}

pub(super) async fn a_conflict_stores_nothing_but_evidence_and_not_without_end<S: Store>(store: S) {
    let log = ReplicaLog::of_strangers(12);
    let other = log.turned(5);
    record(&store, &log.delivery(0, 8, 9)).await;
    let before = store.access_logs().await.unwrap()[0].held.clone();
    let conflict = |shown_size, index| Conflict { held_note: Some(log.note(9)), held_size: 8, shown_size, index };
    let later = NOW.plus(seconds(1));
    for (delivery, expected) in [
        (other.delivery(4, 10, 12), conflict(12, 5)),
        (other.delivery(8, 8, 9), conflict(9, 8)),
        (other.delivery(8, 9, 12), conflict(12, 8)),
    ] {
        let delivery = Delivery { now: later, ..delivery };
        assert_eq!(record(&store, &delivery).await, Delivered::Conflict(expected));
    }
    let stored = store.access_logs().await.unwrap().remove(0);
    assert_eq!((&stored.held, stored.conflicts), (&before, 3));
    let (caller, shown_note) = (replica().to_string(), other.note(12));
    let evidence = Evidence { at: later, caller, conflict: conflict(12, 5), shown_note };
    assert_eq!(stored.evidence[0], evidence);
    let counts = async || {
        let stored = store.access_logs().await.unwrap().remove(0);
        (stored.conflicts, stored.evidence.len() as u64)
    };
    // The same again is counted, and takes no other's place.
    for _ in 0..MAX_EVIDENCE {
        record(&store, &other.delivery(4, 10, 12)).await;
    }
    assert_eq!(counts().await, (3 + MAX_EVIDENCE, 3));
    for _ in 0..MAX_EVIDENCE {
        record(&store, &log.turned(5).delivery(4, 10, 12)).await;
    }
    assert_eq!(counts().await, (3 + 2 * MAX_EVIDENCE, MAX_EVIDENCE));
    assert_eq!(on_file(&store, &log).await, log.records[..8]);
    assert_eq!(record(&store, &log.delivery(8, 12, 12)).await, held(&log, 12, 4, 4), "and the log goes on");
    // A log of which nothing is held yet.
    let first = ReplicaLog::of_strangers(4);
    let bent = Delivery { proof: vec![], ..first.delivery(0, 2, 3) };
    let expected = Conflict { held_note: None, held_size: 0, shown_size: 3, index: 0 };
    assert_eq!(record(&store, &bent).await, Delivered::Conflict(expected));
    assert_eq!(record(&store, &first.delivery(0, 2, 3)).await, held(&first, 2, 2, 2));
}

pub(super) async fn go_on_behind_a_gap_that_nobody_can_fill<S: Store>(store: S) {
    let (anna, _, annas) = traveler(&store, 0).await;
    let log = ReplicaLog::new((0..20).map(|n| entry(annas, NOW.plus(seconds(n))).encode()));
    record(&store, &log.delivery(0, 4, 9)).await;
    let (before, lost) = (tree(&log.records[..10]), log.delivery(10, 14, 16));
    assert_eq!(record(&store, &lost).await, held(&log, 4, 0, 0), "not without a word about what is missing");
    // A tree that the signed head does not bear out; and a promise of before the gap that is broken behind it.
    let bent = Delivery { before: Some(tree(&log.turned(2).records[..10])), ..lost.clone() };
    assert!(matches!(record(&store, &bent).await, Delivered::Conflict(Conflict { held_size: 4, .. })));
    let other = log.turned(6);
    let broken = Delivery { before: Some(tree(&other.records[..9])), ..other.delivery(9, 14, 16) };
    assert!(matches!(record(&store, &broken).await, Delivered::Conflict(Conflict { held_size: 4, .. })));
    let gap = Delivery { before: Some(before), ..lost };
    let Delivered::Held { size: 14, stored: 4, missing: 6, .. } = record(&store, &gap).await else { panic!("no gap") };
    assert_eq!(record(&store, &gap).await, held(&log, 14, 0, 0), "again, with nothing missing");
    assert_eq!(record(&store, &log.delivery(12, 20, 20)).await, held(&log, 20, 6, 0));
    let parts = store.access_logs().await.unwrap();
    let parts: Vec<_> = parts.iter().map(|part| (part.start, part.held.tree.size(), part.next_start)).collect();
    assert_eq!(parts, [(0, 4, Some(10)), (10, 20, None)]);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.accesses(anna, NOW.plus(seconds(60)), after, 3).await.unwrap();
        seen.extend(page.iter().map(|access| access.key.index));
        let Some(last) = page.last() else { break };
        after = Some(last.key);
    }
    assert_eq!(seen, (10..20).rev().chain((0..4).rev()).collect::<Vec<_>>());
}

pub(super) async fn are_listed_newest_first_a_page_at_a_time<S: Store>(store: S) {
    let (anna, _, annas) = traveler(&store, 0).await;
    let (ben, _, bens) = traveler(&store, 1).await;
    // Two replicas recorded at the same times; every third record is Ben's.
    let times = [5, 3, 3, 3, 9, 4, 1, 3].map(|n| NOW.plus(seconds(n)));
    let whose = |i: usize| if i % 3 == 2 { bens } else { annas };
    let new = || ReplicaLog::new(times.iter().enumerate().map(|(i, time)| entry(whose(i), *time).encode()));
    let logs = [new(), new()];
    for log in &logs {
        record(&store, &Delivery { now: NOW.plus(seconds(60)), ..log.delivery(0, 8, 8) }).await;
    }
    let until = NOW.plus(seconds(5));
    let all = store.accesses(anna, until, None, 100).await.unwrap();
    let told = |accesses: &[TravelerAccess]| accesses.iter().map(|a| a.entry.time.since(NOW)).collect::<Vec<_>>();
    assert_eq!(told(&all), [5, 5, 3, 3, 3, 3, 3, 3, 1, 1]);
    assert_eq!(told(&store.accesses(ben, until, None, 100).await.unwrap()), [4, 4, 3, 3]);
    assert_eq!(told(&store.accesses(anna, NOW.plus(seconds(9)), None, 1).await.unwrap()), [9], "only then");
    assert!(store.accesses(anna, NOW, None, 100).await.unwrap().is_empty());
    for size in 1..=10 {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = store.accesses(anna, until, after, size).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.key);
            pages.extend(page);
        }
        assert_eq!(pages, all, "{size}");
    }
}

pub(super) async fn of_the_future_have_their_place_where_they_came<S: Store>(store: S) {
    let (anna, _, cti) = traveler(&store, 0).await;
    let times = [HOUR * 24 * 3650, seconds(0), seconds(1)];
    let log = ReplicaLog::new(times.map(|ahead| entry(cti, NOW.plus(ahead)).encode()));
    record(&store, &log.delivery(0, 2, 3)).await;
    record(&store, &Delivery { now: NOW.plus(seconds(2)), ..log.delivery(2, 3, 3) }).await;
    let listed = store.accesses(anna, NOW.plus(seconds(2)), None, 10).await.unwrap();
    let told: Vec<_> = listed.iter().map(|access| (access.key.index, access.entry.time.since(NOW))).collect();
    assert_eq!(told, [(2, 1), (1, 0), (0, (HOUR * 24 * 3650).as_secs())], "not first for ever, and as it says");
    assert_eq!(store.accesses(anna, NOW, None, 10).await.unwrap(), listed[1..], "and not hidden");
    let after = Some(listed[1].key);
    assert_eq!(store.accesses(anna, NOW.plus(seconds(2)), after, 1).await.unwrap(), listed[2..]);
}

pub(super) async fn no_log_takes_anothers_place<S: Store>(store: S) {
    let logs = [ReplicaLog::of_strangers(3), ReplicaLog::of_strangers(5)];
    for (first, end) in [(0, 1), (1, 3)] {
        for log in &logs {
            record(&store, &log.delivery(first, end, 3)).await;
        }
    }
    let stored = store.access_logs().await.unwrap();
    assert_eq!(stored.iter().map(|log| log.log).collect::<Vec<_>>(), logs.each_ref().map(ReplicaLog::id));
    for (log, stored) in logs.iter().zip(&stored) {
        assert_eq!(on_file(&store, log).await, log.records[..3]);
        assert_eq!(stored.held.tree, tree(&log.records[..3]));
    }
    assert!(store.access_records(LogId([0; 32]), 0, 10).await.unwrap().is_empty());
}

pub(super) async fn outlive_their_traveler<S: Store>(store: S) {
    let (anna, device, annas) = traveler(&store, 0).await;
    let (ben, _, bens) = traveler(&store, 1).await;
    let log = ReplicaLog::new([annas, bens, annas].map(|cti| entry(cti, NOW).encode()));
    assert_eq!(record(&store, &log.delivery(0, 2, 3)).await, held(&log, 2, 2, 0));
    store.delete_traveler(device, NOW, &SystemRandom).await.unwrap();
    // One that is still under way comes home to nobody.
    assert_eq!(record(&store, &log.delivery(0, 3, 3)).await, held(&log, 3, 1, 1));
    assert_eq!(on_file(&store, &log).await, log.records);
    let records = store.access_records(log.id(), 0, 10).await.unwrap();
    let matched: Vec<_> = records.iter().map(|record| record.matched).collect();
    assert_eq!(matched, [false, true, false]);
    assert!(store.accesses(anna, NOW, None, 10).await.unwrap().is_empty());
    assert_eq!(store.accesses(ben, NOW, None, 10).await.unwrap().len(), 1);
}

pub(super) async fn are_forgotten_from_the_start_of_their_log<S: Store>(store: S) {
    let (anna, _, cti) = traveler(&store, 0).await;
    let mut log = ReplicaLog::of_strangers(2_600);
    log.records[1] = entry(cti, NOW).encode();
    log.records[2_590] = entry(cti, NOW).encode();
    let young = ReplicaLog::of_strangers(3);
    let (day, end) = (HOUR * 24, NOW.plus(RETENTION.accesses));
    for (first, last, now) in [(0, 1_000, NOW), (1_000, 2_000, NOW), (2_000, 2_500, NOW), (2_500, 2_600, NOW.plus(day))]
    {
        record(&store, &Delivery { now, ..log.delivery(first, last, 2_600) }).await;
    }
    record(&store, &Delivery { now: NOW.plus(day), ..young.delivery(0, 3, 3) }).await;
    record(&store, &log.turned(7).delivery(0, 9, 2_600)).await;
    let sweep_all = async |now| {
        let mut forgotten = 0;
        while let swept @ 1.. = store.sweep(now, RETENTION).await.unwrap() {
            forgotten += swept;
        }
        forgotten
    };
    // A day before, other things are long past their retention.
    sweep_all(end.minus(seconds(1))).await;
    assert_eq!(sweep_all(end).await, 0);
    assert_eq!(sweep_all(end.plus(seconds(1))).await, 2_500);
    let stored = store.access_logs().await.unwrap();
    assert_eq!((&stored[0].held.base, &stored[0].held.tree), (&tree(&log.records[..2_500]), &tree(&log.records)));
    // What was found out stays.
    assert_eq!((stored[0].conflicts, stored[0].evidence.len(), stored[1].held.base.size()), (1, 1, 0));
    let left = store.access_records(log.id(), 0, u32::MAX).await.unwrap();
    assert_eq!(left.iter().map(|record| record.index).collect::<Vec<_>>(), (2_500..2_600).collect::<Vec<_>>());
    assert_eq!(store.accesses(anna, end, None, 10).await.unwrap().len(), 1);
    // What is left is compared as before, what is gone is not, and the log goes on.
    assert_eq!(record(&store, &log.delivery(2_400, 2_600, 2_600)).await, held(&log, 2_600, 0, 0));
    let other = log.turned(2_550);
    let expected = Conflict { held_note: Some(log.note(2_600)), held_size: 2_600, shown_size: 2_600, index: 2_550 };
    assert_eq!(record(&store, &other.delivery(2_400, 2_600, 2_600)).await, Delivered::Conflict(expected));
    assert_eq!(sweep_all(end.plus(day + seconds(1))).await, 103);
    log.records.push(entry(cti, NOW).encode());
    assert_eq!(record(&store, &log.delivery(2_600, 2_601, 2_601)).await, held(&log, 2_601, 1, 1));
}
