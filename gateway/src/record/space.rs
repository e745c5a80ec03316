//! How much may wait to be delivered: so many bytes for each home member, and of these so many for one caller. A member that
//! is away for long fills its own share, and a caller that asks for it without end fills its own part of that (I7).

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use proto::{
    log::record::Caller,
    member::Member,
    refusal::{Reason, Refusal},
};

/// Bounds of what waits.
#[derive(Clone, Copy, Debug)]
pub struct SpaceLimits {
    /// Bytes of undelivered records of one member.
    pub max_undelivered: u64,
    /// Of these, those that one caller asked for.
    pub max_undelivered_per_caller: u64,
}

impl Default for SpaceLimits {
    fn default() -> Self {
        Self { max_undelivered: 1 << 30, max_undelivered_per_caller: 1 << 28 }
    }
}

/// What waits, by member.
#[derive(Debug)]
pub(crate) struct Space {
    limits: SpaceLimits,
    waiting: HashMap<Member, Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: u64,
    by_caller: HashMap<Caller, u64>,
    /// Up to where the room of records was given back.
    settled: u64,
}

impl Space {
    /// Nothing waits yet.
    pub(super) fn new(limits: SpaceLimits) -> Self {
        Self { limits, waiting: Member::all().map(|member| (member, Mutex::default())).collect() }
    }

    /// Takes room for a record; it is given back by [`Space::release`].
    pub(super) fn take(&self, home: Member, caller: &Caller, bytes: usize) -> Result<(), Refusal> {
        let full = |limit| Err(Refusal::new(Reason::RecordUnavailable).with("limit", limit));
        let Some(mut waiting) = self.of(home) else { return full("undelivered") };
        let of_caller = waiting.by_caller.get(caller).copied().unwrap_or(0);
        if of_caller + bytes as u64 > self.limits.max_undelivered_per_caller {
            return full("undelivered_per_caller");
        }
        if waiting.bytes + bytes as u64 > self.limits.max_undelivered {
            return full("undelivered");
        }
        waiting.add(caller, bytes as u64);
        Ok(())
    }

    /// Counts what was found waiting at the start, whatever the limits.
    pub(super) fn found(&self, home: Member, caller: &Caller, bytes: usize) {
        if let Some(mut waiting) = self.of(home) {
            waiting.add(caller, bytes as u64);
        }
    }

    /// Gives room back of a record that was never written.
    pub(super) fn release(&self, home: Member, caller: &Caller, bytes: usize) {
        if let Some(mut waiting) = self.of(home) {
            waiting.give_back(caller, bytes as u64);
        }
    }

    /// Up to where the room of a member's records was given back.
    pub(crate) fn settled_to(&self, home: Member) -> u64 {
        self.of(home).map_or(0, |waiting| waiting.settled)
    }

    /// Takes note of what was delivered before.
    pub(super) fn settled(&self, home: Member, size: u64) {
        if let Some(mut waiting) = self.of(home) {
            waiting.settled = size;
        }
    }

    /// Gives back the room of records that were delivered, from where it was settled up to `size`, once.
    pub(crate) fn settle(&self, home: Member, size: u64, delivered: &[(Caller, usize)]) {
        let Some(mut waiting) = self.of(home) else { return };
        if waiting.settled < size {
            waiting.settled = size;
            delivered.iter().for_each(|(caller, bytes)| waiting.give_back(caller, *bytes as u64));
        }
    }

    /// How many bytes of a member's records wait.
    pub(crate) fn waiting(&self, home: Member) -> u64 {
        self.of(home).map_or(0, |waiting| waiting.bytes)
    }

    /// How full a member's room is.
    pub(crate) fn percent(&self, home: Member) -> u64 {
        self.waiting(home).saturating_mul(100) / self.limits.max_undelivered.max(1)
    }

    fn of(&self, home: Member) -> Option<MutexGuard<'_, Waiting>> {
        self.waiting.get(&home).map(|waiting| waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Waiting {
    fn give_back(&mut self, caller: &Caller, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(of_caller) = self.by_caller.get_mut(caller) {
            *of_caller = of_caller.saturating_sub(bytes);
            if *of_caller == 0 {
                self.by_caller.remove(caller);
            }
        }
    }

    fn add(&mut self, caller: &Caller, bytes: u64) {
        self.bytes += bytes;
        match self.by_caller.get_mut(caller) {
            Some(of_caller) => *of_caller += bytes,
            None => _ = self.by_caller.insert(caller.clone(), bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::identity::PeerId;

    #[test]
    fn each_member_and_each_caller_has_its_own_room_to_the_byte() {
        let space = Space::new(SpaceLimits { max_undelivered: 100, max_undelivered_per_caller: 60 });
        let (home, other): (Member, Member) = ("44".parse().unwrap(), "51".parse().unwrap());
        let caller = |name| Caller::from(&PeerId::backend(home, name).unwrap());
        let limit = |result: Result<(), Refusal>| result.unwrap_err().metadata("limit").map(str::to_owned);
        assert_eq!(space.take(home, &caller("a"), 60), Ok(()));
        assert_eq!(limit(space.take(home, &caller("a"), 1)).as_deref(), Some("undelivered_per_caller"));
        assert_eq!(space.take(home, &caller("b"), 40), Ok(()));
        assert_eq!(limit(space.take(home, &caller("b"), 1)).as_deref(), Some("undelivered"));
        assert_eq!(space.take(other, &caller("a"), 60), Ok(()), "another member's room is its own");
        assert_eq!((space.percent(home), space.percent(other)), (100, 60));
        space.release(home, &caller("a"), 60);
        assert_eq!((space.waiting(home), space.waiting(other)), (40, 60));
        assert_eq!(space.take(home, &caller("a"), 60), Ok(()));
        assert_eq!(space.of(home).unwrap().by_caller.len(), 2);
        let delivered = [(caller("a"), 60), (caller("b"), 40)];
        space.settle(home, 2, &delivered);
        space.found(home, &caller("b"), 7);
        space.settle(home, 2, &delivered);
        assert_eq!(
            (space.waiting(home), space.settled_to(home)),
            (7, 2),
            "what was given back is not given back again"
        );
    }
}
