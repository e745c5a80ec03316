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
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use proto::{
    statement::{LogHead, Statement},
    suite::Kid,
    terms::Scope,
    token::{Cti, TokenHash},
};
use tokio::{task, time::Instant};

pub(crate) use self::lease::{Distrust, Moment};
use self::{lease::Lease, recent::Recent};

/// Answers held of one consent at most: one per scope that venues were granted.
const MAX_PER_CONSENT: usize = 8;
/// What an entry costs beside its statements, in bytes, measured.
const ENTRY_OVERHEAD: usize = 650;
/// How long a negative answer is held: long enough for a queue that tries again, short enough to forget.
const NEGATIVE_LIFE: Duration = Duration::from_secs(2);
/// When memory is given back at the latest, whatever an entry says; no statement lives longer.
const LONGEST: Duration = Duration::from_secs(3600);
/// Former epochs of a member's log that are remembered.
const MAX_FORMER: usize = 8;

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
    /// Epochs that the log has had before, the latest last: what is said of them is of a world that is gone.
    former: VecDeque<[u8; 16]>,
}

/// One answer of home's that was verified here.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    token: [u8; 16],
    scope: Scope,
    head: LogHead,
    /// As long after the question as home's own clock let it live, and not past its end by ours: clocks that disagree
    /// only shorten it.
    until: Moment,
    /// Nothing is a code that home does not vouch for.
    statement: Option<Arc<HeldStatement>>,
}

/// A statement with its bytes.
#[derive(Debug)]
pub(crate) struct HeldStatement {
    /// As home signed it.
    pub(crate) bytes: Vec<u8>,
    /// The key it named, by which its signature verified when it came.
    pub(crate) kid: Kid,
    /// What it says.
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
    /// Where it stood when home said it.
    said_at: LogHead,
}

impl MemberCache {
    /// An empty one of at most so many bytes, without a lease.
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { state: Mutex::default(), entries: ArcSwap::from_pointee(entries(max_bytes)), max_bytes }
    }

    /// Whether answers may be given from here at this moment.
    pub(crate) fn is_leased(&self, now: Moment) -> bool {
        self.lock().lease.holds(now)
    }

    /// The position up to which everything was applied.
    pub(crate) fn position(&self) -> Option<LogHead> {
        self.lock().lease.position()
    }

    /// Whether the log had this epoch before the one it has.
    pub(crate) fn is_former(&self, epoch: &[u8; 16]) -> bool {
        self.lock().former.contains(epoch)
    }

    /// What is held of a question, if it may be given at this moment.
    pub(crate) fn get(&self, key: &Key, now: Moment) -> Option<Hit> {
        // The entry is read while no event can be applied: one that is there has met none since it was taken in.
        let state = self.lock();
        let position = state.lease.position().filter(|_| state.lease.holds(now))?;
        let held = self.find(key, now).filter(|held| held.head.epoch == position.epoch)?;
        // Home may have said it at a head whose events are still on their way.
        let head = if held.head.seq > position.seq { held.head } else { position };
        Some(Hit { statement: held.statement, head, said_at: held.head })
    }

    /// Whether an answer that was given a moment ago may still be given.
    pub(crate) fn confirms(&self, key: &Key, hit: &Hit, now: Moment) -> bool {
        self.get(key, now).is_some_and(|again| again.said_at == hit.said_at)
    }

    /// The last statement held of a question, lease or no lease: for LAST_KNOWN alone.
    pub(crate) fn last_known(&self, key: &Key, now: Moment) -> Option<Arc<HeldStatement>> {
        self.find(key, now)?.statement
    }

    /// Takes in an answer to a question that was `asked` then, if nothing that is known says otherwise. `None` is a code that
    /// home does not vouch for.
    pub(crate) fn insert(&self, key: &Key, head: LogHead, statement: Option<Arc<HeldStatement>>, asked: Moment) {
        let (end, life) = match &statement {
            Some(held) => {
                let status = held.statement.status();
                (status.expires_at, Duration::from_secs(status.expires_at.since(status.issued_at)))
            }
            None => (asked.time.plus(NEGATIVE_LIFE), NEGATIVE_LIFE),
        };
        let until = Moment { instant: asked.instant + life, time: end };
        let new = Held { token: key.token.short(), scope: key.scope, head, until, statement };
        let state = self.lock();
        let current = state.lease.position().is_some_and(|position| position.epoch == head.epoch);
        if !current || !state.recent.admits(head.seq, &key.cti) {
            return;
        }
        let entries = self.entries.load();
        let mut held: Vec<Held> = entries.get(&key.cti).map(|held| held.to_vec()).unwrap_or_default();
        if held.iter().any(|held| held.is_for(key) && held.head.epoch == head.epoch && held.head.seq > head.seq) {
            return;
        }
        held.retain(|held| held.lives(asked) && !held.is_for(key));
        held.truncate(MAX_PER_CONSENT - 1);
        held.insert(0, new);
        entries.insert(key.cti, held.into());
    }

    /// Numbers a probe that is about to be sent, when home's log is `known` to have stood somewhere already; `None` while
    /// too many are without an echo.
    pub(crate) fn probe(&self, now: Moment, known: Option<LogHead>) -> Option<u64> {
        self.lock().lease.probe(now, known)
    }

    /// A stream begins at `position`. Unless it goes on where the last one ended, nothing that is held counts any more. It
    /// never begins before what was applied already, nor in an epoch that is over: then nothing changes.
    pub(crate) fn open(&self, position: LogHead, resumed: bool) -> Result<(), Distrust> {
        let mut state = self.lock();
        let before = state.lease.position();
        if resumed {
            if before != Some(position) {
                return Err(Distrust::Contradiction("resumed elsewhere than asked"));
            }
            state.lease.resume(position);
            return Ok(());
        }
        if state.former.contains(&position.epoch) {
            return Err(Distrust::Behind("its log is of an epoch that is over"));
        }
        match before {
            Some(before) if before.epoch != position.epoch => {
                state.former.push_back(before.epoch);
                if state.former.len() > MAX_FORMER {
                    state.former.pop_front();
                }
            }
            Some(before) if before.seq > position.seq => {
                return Err(Distrust::Behind("its log ends before what was applied already"));
            }
            _ => {}
        }
        state.lease.restart(position);
        state.recent.restart(position.seq);
        self.drop_entries(state);
        Ok(())
    }

    /// Applies events in their order, the first of them numbered `first`.
    pub(crate) fn apply(&self, first: u64, handles: &[Cti], now: Instant) -> Result<(), Distrust> {
        let mut state = self.lock();
        state.lease.advance(first, handles.len())?;
        let entries = self.entries.load();
        for (seq, cti) in (first..).zip(handles) {
            state.recent.note(seq, *cti, now);
            // What home said after the event holds; most often there is nothing of that kind.
            let later: Vec<Held> = match entries.get(cti) {
                Some(held) => held.iter().filter(|held| held.head.seq >= seq).cloned().collect(),
                None => continue,
            };
            if later.is_empty() {
                entries.invalidate(cti);
            } else {
                entries.insert(*cti, later.into());
            }
        }
        Ok(())
    }

    /// An echo came: everything up to its head has been applied.
    pub(crate) fn echo(&self, number: u64, head: LogHead) -> Result<(), Distrust> {
        self.lock().lease.echo(number, head)
    }

    /// Forgets everything: what the member says contradicts itself.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        *state = State::default();
        self.drop_entries(state);
    }

    /// Drops all entries in no time; giving their memory back takes as long as it takes, and holds nobody up.
    fn drop_entries(&self, state: MutexGuard<'_, State>) {
        let old = self.entries.swap(Arc::new(entries(self.max_bytes)));
        drop(state);
        task::spawn_blocking(move || drop(old));
    }

    /// Entries and bytes, about.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (u64, u64) {
        let entries = self.entries.load();
        (entries.entry_count(), entries.weighted_size())
    }

    fn find(&self, key: &Key, now: Moment) -> Option<Held> {
        let held = self.entries.load().get(&key.cti)?;
        held.iter().find(|held| held.is_for(key) && held.lives(now)).cloned()
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

    fn lives(&self, now: Moment) -> bool {
        now.instant < self.until.instant && now.time < self.until.time
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
}
