//! What is held, when it is given, and what takes it away.

use proto::{
    statement::{Status, UnverifiedStatement},
    suite::{SigningKey, Suite},
    time::UnixTime,
};

use super::{lease::LEASE, *};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const EPOCH: [u8; 16] = [7; 16];

fn at(seq: u64) -> LogHead {
    LogHead { epoch: EPOCH, seq }
}

fn now() -> Moment {
    Moment { instant: Instant::now(), time: NOW }
}

fn key(number: u8) -> Key {
    Key { cti: Cti([number; 16]), token: TokenHash([number; 32]), scope: Scope::LEVEL }
}

fn statement(key: &Key, head: LogHead) -> Arc<HeldStatement> {
    let status = Status {
        issuer: "44".parse().unwrap(),
        issued_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(600)),
        token: key.token.short(),
        head,
        label: "绿码".into(),
        rule: None,
        authority: None,
        assigned_at: None,
        tests: vec![],
        doses: vec![],
        visits: vec![],
        hint: None,
        offline_until: NOW,
    };
    let signer = SigningKey::generate(Suite::Ed25519);
    let bytes = status.sign(&signer);
    let statement = UnverifiedStatement::parse(&bytes).unwrap().verify(signer.verifying_key()).unwrap();
    Arc::new(HeldStatement { bytes, kid: signer.verifying_key().kid(), statement })
}

/// A cache with a lease from now on, at change 10.
fn leased() -> MemberCache {
    let cache = MemberCache::new(1 << 20);
    cache.open(at(10), false).unwrap();
    renew(&cache, at(10));
    cache
}

fn renew(cache: &MemberCache, head: LogHead) {
    let probe = cache.probe(now(), None).unwrap();
    cache.echo(probe, head).unwrap();
}

fn hit(cache: &MemberCache, key: &Key) -> Option<Hit> {
    cache.get(key, now())
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_given_under_the_lease_alone() {
    let cache = leased();
    cache.insert(&key(1), at(10), Some(statement(&key(1), at(10))), now());
    assert!(hit(&cache, &key(1)).is_some());
    assert!(hit(&cache, &key(2)).is_none());
    assert!(hit(&cache, &Key { scope: Scope::ALL, ..key(1) }).is_none(), "another scope");
    assert!(hit(&cache, &Key { token: TokenHash([9; 32]), ..key(1) }).is_none(), "another token");
    let end = now().instant + Duration::from_secs(600);
    assert!(cache.last_known(&key(1), Moment { instant: end, ..now() }).is_none(), "over, if our clock stands");
    let end = NOW.plus(Duration::from_secs(600));
    assert!(cache.last_known(&key(1), Moment { time: end, ..now() }).is_none(), "over, if home's is behind");
    tokio::time::advance(LEASE - Duration::from_millis(1)).await;
    assert!(cache.is_leased(now()) && hit(&cache, &key(1)).is_some());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!cache.is_leased(now()) && hit(&cache, &key(1)).is_none(), "suspended");
    assert!(cache.last_known(&key(1), now()).is_some());
    renew(&cache, at(10));
    assert!(hit(&cache, &key(1)).is_some(), "serves again by itself");
}

#[tokio::test]
async fn an_event_takes_all_of_its_consent_and_nothing_else() {
    let cache = leased();
    let (level, all) = (key(1), Key { scope: Scope::ALL, ..key(1) });
    for key in [level, all, key(2)] {
        cache.insert(&key, at(10), Some(statement(&key, at(10))), now());
    }
    cache.apply(11, &[key(1).cti], Instant::now()).unwrap();
    assert!(hit(&cache, &level).is_none() && hit(&cache, &all).is_none());
    assert_eq!(hit(&cache, &key(2)).unwrap().head, at(11), "known to hold up to the last event");
}

#[tokio::test]
async fn what_was_read_before_an_event_is_not_taken_in_after_it() {
    let cache = leased();
    cache.apply(11, &[key(1).cti], Instant::now()).unwrap();
    cache.insert(&key(1), at(10), Some(statement(&key(1), at(10))), now());
    assert!(hit(&cache, &key(1)).is_none());
    cache.insert(&key(1), at(11), Some(statement(&key(1), at(11))), now());
    assert!(hit(&cache, &key(1)).is_some());
    cache.insert(&key(2), at(9), Some(statement(&key(2), at(9))), now());
    assert!(hit(&cache, &key(2)).is_none(), "from before the stream began");
    let foreign = LogHead { epoch: [8; 16], seq: 99 };
    cache.insert(&key(3), foreign, Some(statement(&key(3), foreign)), now());
    assert!(hit(&cache, &key(3)).is_none(), "of another epoch");
}

#[tokio::test]
async fn an_older_answer_never_takes_the_place_of_a_newer_one() {
    let cache = leased();
    cache.insert(&key(1), at(15), Some(statement(&key(1), at(15))), now());
    cache.insert(&key(1), at(14), Some(statement(&key(1), at(14))), now());
    let held = hit(&cache, &key(1)).unwrap();
    assert_eq!(held.statement.unwrap().statement.status().head, at(15));
    assert_eq!(held.head, at(15), "as fresh as the answer itself, whose event is still on its way");
    cache.apply(11, &[key(2).cti; 5], Instant::now()).unwrap();
    assert_eq!(cache.position(), Some(at(15)));
    assert!(hit(&cache, &key(1)).is_some());
    cache.insert(&key(1), at(17), Some(statement(&key(1), at(17))), now());
    cache.apply(16, &[key(1).cti; 2], Instant::now()).unwrap();
    assert!(hit(&cache, &key(1)).is_some(), "read after its events");
    cache.apply(18, &[key(1).cti], Instant::now()).unwrap();
    assert!(hit(&cache, &key(1)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_hit_is_confirmed_until_an_event_comes_or_the_lease_ends() {
    let cache = leased();
    let fill = || cache.insert(&key(1), at(10), Some(statement(&key(1), at(10))), now());
    fill();
    let first = hit(&cache, &key(1)).unwrap();
    assert!(cache.confirms(&key(1), &first, now()));
    tokio::time::advance(LEASE).await;
    assert!(!cache.confirms(&key(1), &first, now()), "the lease has ended");
    renew(&cache, at(10));
    assert!(cache.confirms(&key(1), &first, now()));
    cache.apply(11, &[key(1).cti], Instant::now()).unwrap();
    assert!(!cache.confirms(&key(1), &first, now()), "an event has come");
    cache.insert(&key(1), at(11), Some(statement(&key(1), at(11))), now());
    assert!(!cache.confirms(&key(1), &first, now()), "another answer");
}

#[tokio::test]
async fn a_stream_never_begins_before_what_was_applied_nor_in_an_epoch_that_is_over() {
    let cache = leased();
    cache.insert(&key(1), at(10), Some(statement(&key(1), at(10))), now());
    assert!(matches!(cache.open(at(9), false), Err(Distrust::Behind(_))));
    assert!(hit(&cache, &key(1)).is_some() && cache.position() == Some(at(10)), "nothing has changed");
    let restored = LogHead { epoch: [8; 16], seq: 3 };
    cache.open(restored, false).unwrap();
    assert!(cache.is_former(&EPOCH) && hit(&cache, &key(1)).is_none());
    assert!(matches!(cache.open(at(99), false), Err(Distrust::Behind(_))));
    assert_eq!(cache.position(), Some(restored));
    cache.clear();
    cache.open(at(9), false).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_goes_on_keeps_what_is_held_and_any_other_drops_it() {
    let cache = leased();
    cache.insert(&key(1), at(10), Some(statement(&key(1), at(10))), now());
    assert!(cache.open(at(11), true).is_err(), "it says it resumed where nobody asked");
    cache.open(at(10), true).unwrap();
    cache.apply(11, &[key(2).cti], Instant::now()).unwrap();
    renew(&cache, at(11));
    assert!(hit(&cache, &key(1)).is_some());
    cache.open(at(40), false).unwrap();
    assert!(!cache.is_leased(now()));
    renew(&cache, at(40));
    assert!(hit(&cache, &key(1)).is_none());
    cache.insert(&key(1), at(40), None, now());
    assert!(hit(&cache, &key(1)).unwrap().statement.is_none());
    cache.clear();
    assert!(hit(&cache, &key(1)).is_none() && cache.position().is_none());
}

#[tokio::test]
async fn a_negative_answer_is_held_for_a_moment() {
    let cache = leased();
    cache.insert(&key(1), at(10), None, now());
    assert!(hit(&cache, &key(1)).unwrap().statement.is_none());
    let end = NOW.plus(NEGATIVE_LIFE);
    assert!(cache.last_known(&key(1), Moment { time: end, ..now() }).is_none());
    assert!(cache.find(&key(1), Moment { time: end, ..now() }).is_none());
}

#[tokio::test]
async fn one_consent_holds_a_bounded_number_of_answers_and_one_cache_a_bounded_number_of_bytes() {
    let cache = leased();
    for token in 0..20 {
        let key = Key { token: TokenHash([token; 32]), ..key(1) };
        cache.insert(&key, at(10), Some(statement(&key, at(10))), now());
    }
    assert_eq!(cache.entries.load().get(&key(1).cti).unwrap().len(), MAX_PER_CONSENT);
    for number in 0..20_000_u64 {
        let mut cti = [0; 16];
        cti[..8].copy_from_slice(&number.to_be_bytes());
        let key = Key { cti: Cti(cti), ..key(1) };
        cache.insert(&key, at(10), None, now());
    }
    cache.entries.load().run_pending_tasks();
    let (count, bytes) = cache.size();
    assert!(bytes <= 1 << 20 && count > 1_000, "{count} entries, {bytes} bytes");
}
