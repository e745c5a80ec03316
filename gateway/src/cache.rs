//! What is held of one member's answers (DESIGN §7): signed statements by consent, given again only under the lease.
//!
//! Upholds I4 by construction: whatever is held of a consent hangs on its one handle, so an event removes all of it with
//! one key and there is no index that could lose sight of an entry. Events and insertions exclude each other, and what
//! was read at home before an event that has been applied since is never taken in.
//!
//! Upholds I7: each member has a cache of its own with its own bound, so that nobody's tokens displace another's.

#[cfg(test)]
mod figures;
mod lease;
mod recent;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use proto::{
    statement::{LogHead, Statement},
    terms::Scope,
    time::UnixTime,
    token::{Cti, TokenHash},
};
use tokio::time::Instant;

pub(crate) use self::lease::Contradiction;
use self::{lease::Lease, recent::Recent};

/// Answers held of one consent at most: one per scope that venues were granted.
const MAX_PER_CONSENT: usize = 8;
/// What an entry costs beside its statements, in bytes, measured.
const ENTRY_OVERHEAD: usize = 320;
/// How long a negative answer is held: long enough for a queue that tries again, short enough to forget.
const NEGATIVE_LIFE: Duration = Duration::from_secs(2);
/// When memory is given back at the latest, whatever an entry says; no statement lives longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// One member's cache.
#[derive(Debug)]
pub(crate) struct MemberCache {
    state: Mutex<State>,
    entries: ArcSwap<Entries>,
    max_bytes: u64,
}

type Entries = moka::sync::Cache<Cti, Arc<[Held]>>;

#[derive(Debug, Default)]
struct State {
    lease: Lease,
    recent: Recent,
}

/// One answer of home's that was verified here.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    token: [u8; 16],
    scope: Scope,
    head: LogHead,
    expires_at: UnixTime,
    /// Nothing is a code that home does not vouch for.
    statement: Option<Arc<HeldStatement>>,
}

/// A statement with its bytes.
#[derive(Debug)]
pub(crate) struct HeldStatement {
    /// As home signed it.
    pub(crate) bytes: Vec<u8>,
    /// What it says; its signature verified when it came.
    pub(crate) statement: Statement,
}

/// Which answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The consent.
    pub(crate) cti: Cti,
    /// The token; a home that gave one handle to two tokens shall not have them mixed up.
    pub(crate) token: TokenHash,
    /// What was granted.
    pub(crate) scope: Scope,
}

/// An answer from here.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    /// The statement; `None` is a code that home does not vouch for.
    pub(crate) statement: Option<Arc<HeldStatement>>,
    /// Where home's change log stood when this was known to hold: as fresh as the lease.
    pub(crate) head: LogHead,
}

impl MemberCache {
    /// An empty one of at most so many bytes, without a lease.
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { state: Mutex::default(), entries: ArcSwap::from_pointee(entries(max_bytes)), max_bytes }
    }

    /// Whether answers may be given from here at this moment.
    pub(crate) fn is_leased(&self, now: Instant) -> bool {
        self.lock().lease.holds(now)
    }

    /// The position up to which everything was applied.
    pub(crate) fn position(&self) -> Option<LogHead> {
        self.lock().lease.position()
    }

    /// What is held of a question, if it may be given at this moment.
    pub(crate) fn get(&self, key: &Key, now: UnixTime, at: Instant) -> Option<Hit> {
        // The lease is looked at after the entry and with the position: an event applied in between took the entry first.
        let held = self.find(key, now)?;
        let state = self.lock();
        let head = state.lease.position()?;
        (state.lease.holds(at) && state.recent.admits(held.head.seq, &key.cti) && held.head.epoch == head.epoch)
            .then_some(Hit { statement: held.statement, head })
    }

    /// The last statement held of a question, lease or no lease: for LAST_KNOWN alone.
    pub(crate) fn last_known(&self, key: &Key, now: UnixTime) -> Option<Arc<HeldStatement>> {
        self.find(key, now)?.statement
    }

    /// Takes in an answer of home's, if no event says otherwise. `None` is a code that home does not vouch for.
    pub(crate) fn insert(&self, key: &Key, head: LogHead, statement: Option<Arc<HeldStatement>>, now: UnixTime) {
        let expires_at = match &statement {
            Some(held) => held.statement.status().expires_at,
            None => now.plus(NEGATIVE_LIFE),
        };
        let new = Held { token: key.token.short(), scope: key.scope, head, expires_at, statement };
        let state = self.lock();
        let current = state.lease.position().is_some_and(|position| position.epoch == head.epoch);
        if !current || !state.recent.admits(head.seq, &key.cti) {
            return;
        }
        let entries = self.entries.load();
        let mut held: Vec<Held> = entries.get(&key.cti).map(|held| held.to_vec()).unwrap_or_default();
        held.retain(|held| now < held.expires_at && !held.is_for(key));
        held.truncate(MAX_PER_CONSENT - 1);
        held.insert(0, new);
        entries.insert(key.cti, held.into());
    }

    /// Numbers a probe that is about to be sent; `None` while too many are without an echo.
    pub(crate) fn probe(&self, now: Instant) -> Option<u64> {
        self.lock().lease.probe(now)
    }

    /// A stream begins at `position`. Unless it goes on where the last one ended, nothing that is held counts any more.
    pub(crate) fn open(&self, position: LogHead, resumed: bool) -> Result<(), Contradiction> {
        let mut state = self.lock();
        if resumed {
            if state.lease.position() != Some(position) {
                return Err(Contradiction("resumed elsewhere than asked"));
            }
            state.lease.resume(position);
        } else {
            state.lease.restart(position);
            state.recent.restart(position.seq);
            self.entries.store(Arc::new(entries(self.max_bytes)));
        }
        Ok(())
    }

    /// Applies events in their order, the first of them numbered `first`.
    pub(crate) fn apply(&self, first: u64, handles: &[Cti]) -> Result<(), Contradiction> {
        let mut state = self.lock();
        state.lease.advance(first, handles.len())?;
        let entries = self.entries.load();
        for (seq, cti) in (first..).zip(handles) {
            state.recent.note(seq, *cti);
            entries.invalidate(cti);
        }
        Ok(())
    }

    /// An echo came: everything up to its head has been applied.
    pub(crate) fn echo(&self, number: u64, head: LogHead) -> Result<(), Contradiction> {
        self.lock().lease.echo(number, head)
    }

    /// Forgets everything that is held: the member's keys have changed, or what it says contradicts itself.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.lease = Lease::default();
        self.entries.store(Arc::new(entries(self.max_bytes)));
    }

    /// Entries and bytes, about.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (u64, u64) {
        let entries = self.entries.load();
        (entries.entry_count(), entries.weighted_size())
    }

    fn find(&self, key: &Key, now: UnixTime) -> Option<Held> {
        let held = self.entries.load().get(&key.cti)?;
        held.iter().find(|held| held.is_for(key) && now < held.expires_at).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of it is made by one call that does not panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn is_for(&self, key: &Key) -> bool {
        self.scope == key.scope && self.token == key.token.short()
    }

    fn bytes(&self) -> usize {
        // The parsed statement takes about as much again as its bytes.
        size_of::<Self>() + self.statement.as_ref().map_or(0, |held| size_of::<HeldStatement>() + held.bytes.len())
    }
}

fn entries(max_bytes: u64) -> Entries {
    moka::sync::Cache::builder()
        .max_capacity(max_bytes)
        .weigher(|_, held: &Arc<[Held]>| {
            let bytes = ENTRY_OVERHEAD + held.iter().map(Held::bytes).sum::<usize>();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        })
        .time_to_live(LONGEST)
        .build()
}

#[cfg(test)]
mod tests {
    use proto::{
        statement::{Status, UnverifiedStatement},
        suite::{SigningKey, Suite},
    };

    use super::{lease::LEASE, *};

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
    const EPOCH: [u8; 16] = [7; 16];

    fn at(seq: u64) -> LogHead {
        LogHead { epoch: EPOCH, seq }
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
        Arc::new(HeldStatement { bytes, statement })
    }

    /// A cache with a lease from now on, at change 10.
    fn leased() -> MemberCache {
        let cache = MemberCache::new(1 << 20);
        cache.open(at(10), false).unwrap();
        renew(&cache, at(10));
        cache
    }

    fn renew(cache: &MemberCache, head: LogHead) {
        let probe = cache.probe(Instant::now()).unwrap();
        cache.echo(probe, head).unwrap();
    }

    fn hit(cache: &MemberCache, key: &Key) -> Option<Hit> {
        cache.get(key, NOW, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_is_given_under_the_lease_alone() {
        let cache = leased();
        cache.insert(&key(1), at(10), Some(statement(&key(1), at(10))), NOW);
        assert!(hit(&cache, &key(1)).is_some());
        assert!(hit(&cache, &key(2)).is_none());
        assert!(hit(&cache, &Key { scope: Scope::ALL, ..key(1) }).is_none(), "another scope");
        assert!(hit(&cache, &Key { token: TokenHash([9; 32]), ..key(1) }).is_none(), "another token");
        let end = NOW.plus(Duration::from_secs(600));
        assert!(cache.get(&key(1), end, Instant::now()).is_none(), "the statement is over");
        tokio::time::advance(LEASE - Duration::from_millis(1)).await;
        assert!(cache.is_leased(Instant::now()) && hit(&cache, &key(1)).is_some());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!cache.is_leased(Instant::now()) && hit(&cache, &key(1)).is_none(), "suspended");
        assert!(cache.last_known(&key(1), NOW).is_some());
        renew(&cache, at(10));
        assert!(hit(&cache, &key(1)).is_some(), "serves again by itself");
    }

    #[tokio::test]
    async fn an_event_takes_all_of_its_consent_and_nothing_else() {
        let cache = leased();
        let (level, all) = (key(1), Key { scope: Scope::ALL, ..key(1) });
        for key in [level, all, key(2)] {
            cache.insert(&key, at(10), Some(statement(&key, at(10))), NOW);
        }
        cache.apply(11, &[key(1).cti]).unwrap();
        assert!(hit(&cache, &level).is_none() && hit(&cache, &all).is_none());
        assert_eq!(hit(&cache, &key(2)).unwrap().head, at(11), "known to hold up to the last event");
    }

    #[tokio::test]
    async fn what_was_read_before_an_event_is_not_taken_in_after_it() {
        let cache = leased();
        cache.apply(11, &[key(1).cti]).unwrap();
        cache.insert(&key(1), at(10), Some(statement(&key(1), at(10))), NOW);
        assert!(hit(&cache, &key(1)).is_none());
        cache.insert(&key(1), at(11), Some(statement(&key(1), at(11))), NOW);
        assert!(hit(&cache, &key(1)).is_some());
        cache.insert(&key(2), at(9), Some(statement(&key(2), at(9))), NOW);
        assert!(hit(&cache, &key(2)).is_none(), "from before the stream began");
        let foreign = LogHead { epoch: [8; 16], seq: 99 };
        cache.insert(&key(3), foreign, Some(statement(&key(3), foreign)), NOW);
        assert!(hit(&cache, &key(3)).is_none(), "of another epoch");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_goes_on_keeps_what_is_held_and_any_other_drops_it() {
        let cache = leased();
        cache.insert(&key(1), at(10), Some(statement(&key(1), at(10))), NOW);
        assert!(cache.open(at(11), true).is_err(), "it says it resumed where nobody asked");
        cache.open(at(10), true).unwrap();
        cache.apply(11, &[key(2).cti]).unwrap();
        renew(&cache, at(11));
        assert!(hit(&cache, &key(1)).is_some());
        cache.open(at(40), false).unwrap();
        assert!(!cache.is_leased(Instant::now()));
        renew(&cache, at(40));
        assert!(hit(&cache, &key(1)).is_none());
        cache.insert(&key(1), at(40), None, NOW);
        assert!(hit(&cache, &key(1)).unwrap().statement.is_none());
        cache.clear();
        assert!(hit(&cache, &key(1)).is_none() && cache.position().is_none());
    }

    #[tokio::test]
    async fn a_negative_answer_is_held_for_a_moment() {
        let cache = leased();
        cache.insert(&key(1), at(10), None, NOW);
        assert!(hit(&cache, &key(1)).unwrap().statement.is_none());
        assert!(cache.get(&key(1), NOW.plus(NEGATIVE_LIFE), Instant::now()).is_none());
    }

    #[tokio::test]
    async fn one_consent_holds_a_bounded_number_of_answers_and_one_cache_a_bounded_number_of_bytes() {
        let cache = leased();
        for token in 0..20 {
            let key = Key { token: TokenHash([token; 32]), ..key(1) };
            cache.insert(&key, at(10), Some(statement(&key, at(10))), NOW);
        }
        assert_eq!(cache.entries.load().get(&key(1).cti).unwrap().len(), MAX_PER_CONSENT);
        for number in 0..20_000_u64 {
            let mut cti = [0; 16];
            cti[..8].copy_from_slice(&number.to_be_bytes());
            let key = Key { cti: Cti(cti), ..key(1) };
            cache.insert(&key, at(10), None, NOW);
        }
        cache.entries.load().run_pending_tasks();
        let (count, bytes) = cache.size();
        assert!(bytes <= 1 << 20 && count > 1_000, "{count} entries, {bytes} bytes");
    }
}
