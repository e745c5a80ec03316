//! Assignments that the policy does not admit, by home member and authority: how many answers, how many travelers, and an
//! alarm when the travelers jump. Henan's depositors were turned red by the hundred within days: the platform's operators
//! are to see the first ten minutes of the next such thing, and whose it is (I8).
//!
//! Travelers are told apart by their tokens, in a window that slides: one who is scanned a thousand times is one. What is
//! usual is the mean of the [`USUAL_WINDOWS`] windows before; those since a start that there were not yet count as empty.
//! An alarm begins at `alarm_at` travelers that are also `alarm_factor` times what is usual, and ends below half of that,
//! so that it does not flap. While it stands nothing becomes usual, so that it does not end by going on.
//!
//! Home chooses the names of authorities, so they are not believed to be such. A person's number or name could be one (I6):
//! shown is a kind that the policy lists, or a name without digits that [`NAMED_FROM`] travelers had in a window, by which
//! it is nobody's own. They could be many (I7): [`MAX_NAMED`] of a member are told apart until the gateway stops, all others
//! are [`OTHER`], and so is what came before a name was shown. All that is kept is kept and locked by member, and bounded.
//!
//! Each replica counts the answers it gave itself.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::{
    member::Member,
    policy::Policy,
    statement::Authority,
    time::{Clock, UnixTime},
    token::TokenHash,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The authority of a statement that names none.
pub(crate) const NONE: &str = "none";
/// All authorities that are not told apart.
pub(crate) const OTHER: &str = "other";
/// The most travelers of one authority that are told apart in a window; at this many there are at least as many.
pub(crate) const MAX_TRAVELERS: usize = 4096;

/// By how many steps the window slides.
const SLOTS: u64 = 10;
/// How many windows what is usual is the mean of.
const USUAL_WINDOWS: usize = 24;
/// Authorities of one home member that are told apart, beside [`NONE`] and [`OTHER`].
const MAX_NAMED: usize = 16;
/// How many travelers in a window had a name that the policy does not list, before it is shown.
const NAMED_FROM: usize = 5;
/// Names of one home member that may yet be shown; the oldest goes first.
const MAX_CANDIDATES: usize = 16;

/// When an alarm begins.
#[derive(Clone, Copy, Debug)]
pub struct AlarmLimits {
    /// In which time travelers are counted: 10 s or more, taken as the next multiple of 10 s.
    pub window: Duration,
    /// How many of them are an alarm: 1 to 4096.
    pub alarm_at: usize,
    /// How many times what is usual they have to be too, 1 or more.
    pub alarm_factor: usize,
}

impl Default for AlarmLimits {
    fn default() -> Self {
        Self { window: Duration::from_secs(600), alarm_at: 20, alarm_factor: 4 }
    }
}

/// How one authority stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// The travelers' home.
    pub(crate) home: Member,
    /// The authority: its name, [`NONE`] or [`OTHER`].
    pub(crate) authority: String,
    /// Answers since the start.
    pub(crate) answers: u64,
    /// Travelers in the window, at most [`MAX_TRAVELERS`].
    pub(crate) travelers: u64,
    /// What is usual: travelers in a window, rounded.
    pub(crate) usual: u64,
    /// Since when the alarm stands, if it does.
    pub(crate) alarm_since: Option<UnixTime>,
}

/// What all members' authorities came to.
#[derive(Debug)]
pub(crate) struct Unsubstantiated {
    limits: AlarmLimits,
    // All members from the start, so that none ever waits for another.
    members: BTreeMap<Member, Mutex<Ledger>>,
}

impl Unsubstantiated {
    pub(crate) fn new(limits: AlarmLimits) -> Self {
        Self { limits, members: Member::all().map(|member| (member, Mutex::default())).collect() }
    }

    /// Counts an answer about the traveler with this token. Returns what its authority is counted as.
    pub(crate) fn count(
        &self,
        home: Member,
        authority: Option<&Authority>,
        policy: &Policy,
        token: TokenHash,
        now: UnixTime,
    ) -> String {
        let mut ledger = self.ledger(home, now);
        let traveler = Traveler::of(token);
        let name = ledger.name(authority, policy, traveler);
        let slot = ledger.slot;
        let account = ledger.accounts.entry(name.clone()).or_default();
        account.answers += 1;
        account.travelers.see(traveler, slot, MAX_TRAVELERS);
        let turn = account.turn(self.limits, now).map(|turn| (turn, account.tally(home, &name)));
        drop(ledger);
        turn.into_iter().for_each(|(turn, tally)| self.say(turn, &tally));
        name
    }

    /// How every authority stands that was ever counted, by home and name.
    pub(crate) fn tallies(&self, now: UnixTime) -> Vec<Tally> {
        let of = |home| {
            let mut ledger = self.ledger(home, now);
            let mut turns = Vec::new();
            let mut tallies = Vec::new();
            for (name, account) in &mut ledger.accounts {
                let turn = account.turn(self.limits, now);
                let tally = account.tally(home, name);
                turns.extend(turn.map(|turn| (turn, tally.clone())));
                tallies.push(tally);
            }
            drop(ledger);
            turns.iter().for_each(|(turn, tally)| self.say(*turn, tally));
            tallies
        };
        self.members.keys().flat_map(|home| of(*home)).collect()
    }

    /// Sees to it that alarms end when nobody asks either, until `shutdown`.
    pub(crate) async fn keep(self: Arc<Self>, clock: Arc<dyn Clock>, shutdown: CancellationToken) {
        let mut tick = interval(Duration::from_secs(self.slot_seconds()));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
            }
            self.tallies(clock.now());
        }
    }

    /// The window as it is counted.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(self.slot_seconds() * SLOTS)
    }

    fn slot_seconds(&self) -> u64 {
        let seconds = self.limits.window.as_millis().div_ceil(1000 * u128::from(SLOTS));
        u64::try_from(seconds).unwrap_or(u64::MAX).max(1)
    }

    /// A member's ledger as it is now.
    fn ledger(&self, home: Member, now: UnixTime) -> MutexGuard<'_, Ledger> {
        // Every member was put there at the start.
        let ledger = self.members.get(&home).expect("every member has a ledger");
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.advance(now.as_secs() / self.slot_seconds());
        ledger
    }

    fn say(&self, turn: Turn, tally: &Tally) {
        let Tally { home, authority, travelers, usual, .. } = tally;
        let window = self.window();
        match turn {
            Turn::Begins => warn!(
                %home, %authority, travelers, usual, ?window,
                "alarm: assignments that the policy does not admit jumped; `gateway status` counts them, \
                 deploy/README.md says what to do"
            ),
            Turn::Ends => info!(
                %home, %authority, travelers, usual, ?window,
                "the alarm for assignments that the policy does not admit ends"
            ),
        }
    }
}

/// What became of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Begins,
    Ends,
}

/// A traveler as far as they are told apart here: a part of their token's hash. Two that have it in common are one, once in
/// 2⁶⁴, or because home tried: then its own are too few, which it can have without.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Traveler(u64);

impl Traveler {
    fn of(token: TokenHash) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&token.short()[..8]);
        Self(u64::from_be_bytes(first))
    }
}

/// Travelers of a window, each with the slot in which they were seen last.
#[derive(Default)]
struct Travelers(HashMap<Traveler, u64>);

impl Travelers {
    fn see(&mut self, traveler: Traveler, slot: u64, max: usize) {
        if self.0.len() < max || self.0.contains_key(&traveler) {
            self.0.insert(traveler, slot);
        }
    }

    fn forget_before(&mut self, slot: u64) {
        self.0.retain(|_, seen| *seen >= slot);
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Travelers {
    /// How many, not who.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} travelers", self.len())
    }
}

/// One home member's.
#[derive(Debug, Default)]
struct Ledger {
    /// The slot that time is in: of the clock, counted from 1970.
    slot: u64,
    accounts: BTreeMap<String, Account>,
    candidates: VecDeque<(String, Travelers)>,
}

impl Ledger {
    /// Lets go what the window has left behind.
    fn advance(&mut self, slot: u64) {
        if slot + SLOTS <= self.slot {
            // The clock was set back: what was seen in its future would never be left behind.
            self.accounts.values_mut().for_each(|account| account.travelers = Travelers::default());
            self.candidates.clear();
            self.slot = slot;
        }
        if slot <= self.slot {
            return;
        }
        let (window, ended) = (self.slot / SLOTS, slot / SLOTS - self.slot / SLOTS);
        let first = (slot + 1).saturating_sub(SLOTS);
        for account in self.accounts.values_mut() {
            account.close(window, ended);
            account.travelers.forget_before(first);
        }
        self.candidates.iter_mut().for_each(|(_, travelers)| travelers.forget_before(first));
        self.candidates.retain(|(_, travelers)| travelers.len() > 0);
        self.slot = slot;
    }

    /// What an authority is counted as, which for a name that is shown from now on begins with those who had it before.
    fn name(&mut self, authority: Option<&Authority>, policy: &Policy, traveler: Traveler) -> String {
        let Some(authority) = authority else { return NONE.to_owned() };
        let name = authority.to_string();
        if self.accounts.contains_key(&name) {
            return name;
        }
        let named = self.accounts.keys().filter(|name| !matches!(name.as_str(), NONE | OTHER)).count();
        if named >= MAX_NAMED {
            return OTHER.to_owned();
        }
        if policy.knows_authority(authority.kind()) {
            return name;
        }
        if authority.kind().bytes().any(|byte| byte.is_ascii_digit()) {
            return OTHER.to_owned();
        }
        match self.propose(&name, traveler) {
            Some(travelers) => {
                self.accounts.insert(name.clone(), Account { travelers, ..Account::default() });
                name
            }
            None => OTHER.to_owned(),
        }
    }

    /// One more traveler for a name that is not shown yet; those who had it if that is enough.
    fn propose(&mut self, name: &str, traveler: Traveler) -> Option<Travelers> {
        let at = self.candidates.iter().position(|(candidate, _)| candidate == name).unwrap_or_else(|| {
            if self.candidates.len() == MAX_CANDIDATES {
                self.candidates.pop_front();
            }
            self.candidates.push_back((name.to_owned(), Travelers::default()));
            self.candidates.len() - 1
        });
        let (_, travelers) = self.candidates.get_mut(at)?;
        travelers.see(traveler, self.slot, NAMED_FROM);
        if travelers.len() < NAMED_FROM {
            return None;
        }
        self.candidates.remove(at).map(|(_, travelers)| travelers)
    }
}

/// One authority's.
#[derive(Debug, Default)]
struct Account {
    answers: u64,
    travelers: Travelers,
    /// Travelers of the windows that are over, oldest first, at most [`USUAL_WINDOWS`].
    windows: VecDeque<u64>,
    alarm_since: Option<UnixTime>,
}

impl Account {
    /// Ends `window` and those behind it that passed without anybody, `ended` in all.
    fn close(&mut self, window: u64, ended: u64) {
        if ended == 0 {
            return;
        }
        if self.alarm_since.is_none() {
            let travelers = self.travelers.0.values().filter(|slot| **slot / SLOTS == window).count();
            self.usual_from(travelers as u64);
        }
        (1..ended.min(USUAL_WINDOWS as u64 + 1)).for_each(|_| self.usual_from(0));
    }

    fn usual_from(&mut self, travelers: u64) {
        if self.windows.len() == USUAL_WINDOWS {
            self.windows.pop_front();
        }
        self.windows.push_back(travelers);
    }

    /// Whether an alarm begins or ends now. All is counted in parts of a window's mean, so that nothing is rounded.
    fn turn(&mut self, limits: AlarmLimits, now: UnixTime) -> Option<Turn> {
        let parts = USUAL_WINDOWS as u64;
        let usual = self.windows.iter().sum::<u64>();
        let alarm = (limits.alarm_at as u64 * parts).max(limits.alarm_factor as u64 * usual);
        // Where travelers are no longer told apart it jumped, whatever was usual.
        let alarm = alarm.min(MAX_TRAVELERS as u64 * parts);
        let travelers = self.travelers.len() as u64 * parts;
        match self.alarm_since {
            None if travelers >= alarm => {
                self.alarm_since = Some(now);
                Some(Turn::Begins)
            }
            Some(_) if travelers * 2 < alarm => {
                self.alarm_since = None;
                Some(Turn::Ends)
            }
            _ => None,
        }
    }

    fn tally(&self, home: Member, name: &str) -> Tally {
        let parts = USUAL_WINDOWS as u64;
        Tally {
            home,
            authority: name.to_owned(),
            answers: self.answers,
            travelers: self.travelers.len() as u64,
            usual: (self.windows.iter().sum::<u64>() + parts / 2) / parts,
            alarm_since: self.alarm_since,
        }
    }
}

#[cfg(test)]
mod tests;
