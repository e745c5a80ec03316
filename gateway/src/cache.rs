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
mod tests;
