//! What is held, by the million: memory beside what the weigher counts, the bound under a scan of distinct travelers, and
//! one member's flood beside another's entries (I7). The short forms are tests like any other; the long one prints figures:
//!
//! ```text
//! cargo test --profile measure -p gateway --lib cache_figures -- --ignored --nocapture
//! ```

use proto::{
    hint::IdentityHint,
    presentation::HintKey,
    random::SystemRandom,
    statement::{Dose, Status, TestResult, UnverifiedStatement},
    suite::{SigningKey, Suite},
    time::UnixTime,
};

use super::*;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const HEAD: LogHead = LogHead { epoch: [7; 16], seq: 10 };
const MIB: u64 = 1 << 20;
/// Nothing that is put in here reaches it.
const ROOMY: u64 = 1 << 40;

fn now() -> Moment {
    Moment { instant: Instant::now(), time: NOW }
}

/// A cache under a lease, at change 10.
fn leased(max_bytes: u64) -> MemberCache {
    let cache = MemberCache::new(max_bytes);
    cache.open(HEAD, false).unwrap();
    let probe = cache.probe(now(), None).unwrap();
    cache.echo(probe, HEAD).unwrap();
    cache
}

/// One traveler of many: handles are random bytes, and so are these.
fn key(number: u64) -> Key {
    let mut hash = [0; 32];
    for (word, bytes) in (0_u64..).zip(hash.chunks_exact_mut(8)) {
        // The finaliser of SplitMix64, a bijection: no two travelers have one handle.
        let mut mixed = number.wrapping_add(word << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
    }
    let mut cti = [0; 16];
    cti.copy_from_slice(&hash[..16]);
    Key { cti: Cti(cti), token: TokenHash(hash), scope: Scope::ALL }
}

/// A green as a home signs it for a station: with a test, two doses and the sealed hint. Each entry gets a copy, allocated
/// as one that came over the wire is: what the bytes say makes no difference to what they take.
fn signed() -> HeldStatement {
    let status = Status {
        issuer: "44".parse().unwrap(),
        issued_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(600)),
        token: [1; 16],
        head: HEAD,
        label: "绿码".into(),
        rule: None,
        authority: None,
        assigned_at: Some(NOW),
        tests: vec![TestResult { sampled_at: NOW, positive: false }],
        doses: vec![Dose { number: 1, given_at: NOW }, Dose { number: 2, given_at: NOW }],
        visits: vec![],
        hint: Some(IdentityHint::mask("王小明", "449999199001010012").seal(&HintKey([5; 16]), &SystemRandom)),
        offline_until: NOW.plus(Duration::from_secs(600)),
    };
    let signer = SigningKey::generate(Suite::Ed25519);
    let bytes = status.sign(&signer);
    let statement = UnverifiedStatement::parse(&bytes).unwrap().verify(signer.verifying_key()).unwrap();
    HeldStatement { bytes, kid: signer.verifying_key().kid(), statement }
}

fn fill(cache: &MemberCache, signed: &HeldStatement, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let (bytes, statement) = (signed.bytes.clone(), signed.statement.clone());
        let copy = HeldStatement { bytes, kid: signed.kid, statement };
        cache.insert(&key(number), HEAD, Some(Arc::new(copy)), now());
    }
    cache.entries.load().run_pending_tasks();
}

fn is_held(cache: &MemberCache, number: u64) -> bool {
    cache.last_known(&key(number), now()).is_some()
}

/// Memory of this process that is resident, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_scan_of_distinct_travelers_stays_within_the_bound() {
    let (cache, signed) = (leased(2 * MIB), signed());
    fill(&cache, &signed, 0..20_000);
    let (count, bytes) = cache.size();
    assert!(bytes <= 2 * MIB && (500..20_000).contains(&count), "{count} entries, {bytes} bytes");
}

#[tokio::test]
async fn one_members_flood_leaves_anothers_entries_where_they_are() {
    let (flooded, calm, signed) = (leased(2 * MIB), leased(2 * MIB), signed());
    fill(&calm, &signed, 0..1_000);
    fill(&flooded, &signed, 0..20_000);
    assert!((0..1_000).all(|number| is_held(&calm, number)));
    assert!((0..20_000).any(|number| !is_held(&flooded, number)), "it was no flood");
}

#[tokio::test]
#[ignore = "a measurement: cargo test --profile measure -p gateway --lib cache_figures -- --ignored --nocapture"]
async fn cache_figures() {
    const ENTRIES: u64 = 1_000_000;
    const BOUND: u64 = 256 * MIB;
    let signed = signed();
    println!("a statement of {} bytes", signed.bytes.len());

    // Kept until the end: what an allocator was given back would hide what comes after.
    let (million, before) = (leased(ROOMY), resident());
    fill(&million, &signed, 0..ENTRIES);
    let (taken, (count, counted)) = (resident() - before, million.size());
    assert_eq!(count, ENTRIES);
    println!("{count} entries: {} bytes each resident, {} each as weighed", taken / count, counted / count);

    let (cache, before) = (leased(BOUND), resident());
    for scanned in (1..=6).map(|half| half * ENTRIES / 2) {
        fill(&cache, &signed, scanned - ENTRIES / 2..scanned);
        let (taken, (count, counted)) = (resident() - before, cache.size());
        assert!(counted <= BOUND, "{counted} bytes");
        let (bound, counted, taken) = (BOUND / MIB, counted / MIB, taken / MIB);
        println!("{scanned} scanned within {bound} MiB: {count} held, {counted} MiB as weighed, {taken} MiB resident");
    }

    let calm = leased(BOUND);
    fill(&calm, &signed, 0..100_000);
    fill(&cache, &signed, 4 * ENTRIES..7 * ENTRIES);
    let held = (0..100_000).filter(|number| is_held(&calm, *number)).count();
    println!("another member's entries after {} tokens of this one: {held} of 100000 held", 3 * ENTRIES);
    assert_eq!(held, 100_000);
}
