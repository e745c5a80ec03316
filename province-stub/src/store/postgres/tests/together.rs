//! Many writers, on several nodes, about few people: what they and those who look on see of each other.

use std::collections::BTreeMap;

use proto::{random, terms::Kind};
use tokio::task::JoinSet;

use super::*;
use crate::{
    store::{Change, NewConsent, NewDevice, PersonId, Snapshot},
    test_support::{ReplicaLog, device_key, entry, new_device, request, seeded_document},
};

/// The fewer, the more they are in each other's way.
const PEOPLE: u32 = 3;
const WRITERS: usize = 8;
const ROUNDS: usize = 14;

fn draw(bound: usize) -> usize {
    let drawn: [u8; 4] = random::bytes(&SystemRandom);
    u32::from_be_bytes(drawn) as usize % bound
}

/// What was seen of a consent at one moment: the log's head, and the person's label. Nothing if it is revoked or forgotten.
type Sight = (LogHead, Option<Option<String>>);

async fn look(store: &PostgresStore, cti: Cti) -> Sight {
    let Snapshot { head, found } = store.find(cti, Scope::ALL).await.unwrap();
    (head, found.filter(|found| !found.revoked).map(|found| found.code.map(|code| code.label)))
}

/// What may be said to whoever comes too late, or too often.
fn may_be_refused<T>(answer: Result<T, StoreError>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(
            StoreError::PersonUnknown
            | StoreError::ConsentUnknown
            | StoreError::DeviceUnknown
            | StoreError::TooManyConsents(_)
            | StoreError::TooManyDevices(_),
        ) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Adds the person, if they are not there, with a device.
async fn enroll(store: &PostgresStore, index: u32, id: &str) -> Option<(PersonId, NewDevice)> {
    let device = new_device(&seeded_document(index), &suite::name(), &device_key());
    may_be_refused(store.enroll_device(&request(id, ""), &device, 64).await)?;
    let person = may_be_refused(store.device(device.id).await)?.person;
    Some((person, device))
}

/// One writer's work: whatever may be done to a few people. Returns what it saw.
async fn write(store: PostgresStore, writer: usize) -> Vec<(Cti, Sight)> {
    let (mut known, mut sights) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (index, id) = (draw(PEOPLE as usize) as u32, format!("request-{writer}-{round}"));
        match draw(8) {
            0..=2 => {
                let Some((person, device)) = enroll(&store, index, &id).await else { continue };
                let kind = if draw(3) == 0 { Kind::Paper } else { Kind::Own };
                let consent = NewConsent { device: Some(device.id), ..suite::consent(person, NOW, kind) };
                let issued = store.issue_consent(&request(&format!("{id}-i"), ""), &consent, 64, &SystemRandom).await;
                if may_be_refused(issued).is_some() {
                    sights.push((consent.cti, look(&store, consent.cti).await));
                    known.push((consent.cti, device.id));
                }
            }
            3..=5 => {
                let assignment = suite::assignment(index, &format!("label {writer}-{round}"), NOW);
                may_be_refused(suite::set(&store, &id, &assignment).await);
            }
            6 if !known.is_empty() => {
                let (cti, _) = known[draw(known.len())];
                may_be_refused(store.revoke_consent(cti, None, NOW).await);
                let log = ReplicaLog::new([entry(cti, NOW).encode()]);
                store.record_accesses(&log.delivery(0, 1, 1)).await.unwrap();
            }
            _ if !known.is_empty() => {
                let (_, device) = known[draw(known.len())];
                may_be_refused(store.delete_traveler(device, NOW, &SystemRandom).await);
            }
            _ => {}
        }
        for (cti, _) in &known {
            sights.push((*cti, look(&store, *cti).await));
        }
    }
    sights
}

/// Follows the log as a change stream does, until it is told that nobody writes any more.
async fn follow(store: PostgresStore, mut done: watch::Receiver<bool>) -> Vec<Change> {
    let mut seen: Vec<Change> = Vec::new();
    loop {
        let last = *done.borrow_and_update();
        let head = store.head().await.unwrap();
        let new = store.changes(seen.len() as u64, 10_000).await.unwrap();
        seen.extend(new);
        let numbers: Vec<_> = seen.iter().map(|change| change.seq).collect();
        assert_eq!(numbers, (1..=seen.len() as u64).collect::<Vec<_>>(), "numbers have no gaps");
        assert!(seen.len() as u64 >= head.seq, "a head was told whose events cannot be read");
        if last {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_and_numbers_are_in_the_order_in_which_they_are_seen() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database().await;
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let limits = PostgresLimits {
        max_connections: 8,
        acquire_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(10),
    };
    let mut nodes = Vec::new();
    for dir in &dirs {
        nodes.push(open_with(&url, limits, dir.path()).await.unwrap());
    }
    let (written, done) = watch::channel(false);
    let followers = nodes.iter().map(|node| tokio::spawn(follow(node.clone(), done.clone()))).collect::<Vec<_>>();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(nodes[writer % 2].clone(), writer));
    }
    let sights = writers.join_all().await.concat();
    written.send_replace(true);
    let mut logs = Vec::new();
    for follower in followers {
        logs.push(follower.await.unwrap());
    }
    let log = nodes[0].changes(0, 100_000).await.unwrap();
    // What was seen once is what was always there.
    assert!(logs.iter().all(|seen| *seen == log));
    assert_eq!(nodes[0].head().await.unwrap().seq, log.len() as u64);

    let mut by_consent: BTreeMap<Cti, Vec<Sight>> = BTreeMap::new();
    for (cti, sight) in sights {
        by_consent.entry(cti).or_default().push(sight);
    }
    assert!(by_consent.len() > WRITERS && log.len() > WRITERS, "{} {}", by_consent.len(), log.len());
    for (cti, mut seen) in by_consent {
        seen.push(look(&nodes[1], cti).await);
        for pair in seen.windows(2) {
            let [(before, was), (after, is)] = pair else { unreachable!() };
            let told = |change: &&Change| change.cti == cti && before.seq < change.seq && change.seq <= after.seq;
            assert!(was == is || log.iter().any(|change| told(&change)), "{was:?} became {is:?} without a word");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_at_once_on_two_nodes_has_one_answer() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database().await;
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let nodes = [open(&url, dirs[0].path()).await, open(&url, dirs[1].path()).await];
    for round in 0..8 {
        let id = format!("request-{round}");
        let enroll = |node: &PostgresStore| {
            let device = new_device(&seeded_document(round), &suite::name(), &device_key());
            let (node, request) = (node.clone(), request(&id, ""));
            tokio::spawn(async move { node.enroll_device(&request, &device, 64).await.unwrap().0 })
        };
        let answers = [enroll(&nodes[0]), enroll(&nodes[1])];
        let [one, other] = answers;
        assert_eq!(one.await.unwrap(), other.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_at_once_as_a_phones_and_a_tokens_is_taken_once() {
    let Some(cluster) = Cluster::shared() else { return };
    let (url, dir) = (cluster.database().await, tempfile::tempdir().unwrap());
    let store = open(&url, dir.path()).await;
    let person = suite::add_person(&store, 0).await;
    for round in 0..8_u32 {
        let key = device_key();
        let device = new_device(&seeded_document(1), &suite::name(), &key);
        let consent = NewConsent {
            token_key: Some(key.verifying_key().clone()),
            issued_at: NOW.plus(Duration::from_secs(3600 * u64::from(round))),
            ..suite::consent(person, NOW, Kind::Own)
        };
        let (id, other) = (format!("request-{round}"), format!("request-{round}-i"));
        let (enrol, issue) = (request(&id, ""), request(&other, ""));
        let (enrolled, issued) = tokio::join!(
            store.enroll_device(&enrol, &device, 64),
            store.issue_consent(&issue, &consent, 64, &SystemRandom)
        );
        let refused = |error: Option<StoreError>| matches!(error, Some(StoreError::KeyReused));
        assert_ne!(enrolled.is_ok(), issued.is_ok());
        assert!(refused(enrolled.err()) || refused(issued.err()));
    }
}

#[tokio::test]
async fn a_damaged_row_holds_up_no_other_and_its_key_stays() {
    let Some(cluster) = Cluster::shared() else { return };
    let (url, dir) = (cluster.database().await, tempfile::tempdir().unwrap());
    let store = open(&url, dir.path()).await;
    for index in 0..4 {
        enroll(&store, index, &format!("request-{index}")).await.unwrap();
    }
    let damage = "UPDATE person SET particulars = '\\x00' WHERE id = (SELECT min(id) FROM person)";
    sqlx::query(damage).execute(&store.writers).await.unwrap();
    store.close().await;
    let (newer, limits) = (vault().behind(&[6; 32]), PostgresLimits::default());
    let store = PostgresStore::open(&url, limits, dir.path(), newer, Arc::new(SystemRandom)).await.unwrap();
    let mut resealed = 0;
    loop {
        match store.reseal(1).await.unwrap() {
            0 => break,
            more => resealed += more,
        }
    }
    assert_eq!(resealed, 3);
    let keys = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM rest_key");
    assert_eq!(keys.fetch_one(&store.readers).await.unwrap(), 2, "who puts the row back needs both");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_write_by_two_keys_take_nobody_for_two_people() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database().await;
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // Both know both keys; one goes on with the older one.
    let older = || Vault::new(&[6; 32], Arc::new(SystemRandom)).behind(&[5; 32]);
    let newer = || Vault::new(&[5; 32], Arc::new(SystemRandom)).behind(&[6; 32]);
    let mut nodes = Vec::new();
    for (dir, vault) in dirs.iter().zip([older(), newer()]) {
        let limits = PostgresLimits::default();
        nodes.push(PostgresStore::open(&url, limits, dir.path(), vault, Arc::new(SystemRandom)).await.unwrap());
    }
    let enroll = |node: usize, index: u32| {
        let (node, id) = (nodes[node].clone(), format!("request-{node}-{index}"));
        tokio::spawn(async move { enroll(&node, index, &id).await.unwrap().0 })
    };
    let mut people = Vec::new();
    for index in 0..8 {
        let [one, other] = [enroll(0, index), enroll(1, index)];
        let (one, other) = (one.await.unwrap(), other.await.unwrap());
        assert_eq!(one, other);
        people.push(one);
    }
    // The one seals anew what the other goes on to seal.
    while nodes[1].reseal(3).await.unwrap() > 0 {}
    let late = enroll(0, 9).await.unwrap();
    while nodes[1].reseal(3).await.unwrap() > 0 {}
    for (index, person) in (0..8).chain([9]).zip(people.into_iter().chain([late])) {
        for node in &nodes {
            assert_eq!(node.person_by_document(&seeded_document(index)).await.unwrap(), Some(person));
        }
    }
}
