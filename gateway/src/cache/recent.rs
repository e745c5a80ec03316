//! The latest events of a member, so that nothing read before one of them is taken in after it (I4).

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use proto::token::Cti;
use tokio::time::Instant;

/// How long an event is remembered. What was read before the oldest that is remembered cannot be judged and is not taken in;
/// an answer takes less than a second.
const LIFE: Duration = Duration::from_secs(10);
/// Events remembered at most, some 80 bytes each.
const MAX: usize = 100_000;

/// The latest event of each handle, and the floor below which nothing is known.
#[derive(Debug, Default)]
pub(super) struct Recent {
    latest: HashMap<Cti, u64>,
    order: VecDeque<(u64, Cti, Instant)>,
    floor: u64,
}

impl Recent {
    /// Begins at a position: what was read before it is not judged.
    pub(super) fn restart(&mut self, seq: u64) {
        *self = Self { floor: seq, ..Self::default() };
    }

    /// Remembers an event.
    pub(super) fn note(&mut self, seq: u64, cti: Cti, now: Instant) {
        self.latest.insert(cti, seq);
        self.order.push_back((seq, cti, now));
        let forgotten = |order: &VecDeque<(u64, Cti, Instant)>| {
            order.front().is_some_and(|(_, _, noted)| order.len() > MAX || now >= *noted + LIFE)
        };
        while forgotten(&self.order) {
            let Some((old, cti, _)) = self.order.pop_front() else { return };
            self.floor = old;
            if self.latest.get(&cti) == Some(&old) {
                self.latest.remove(&cti);
            }
        }
    }

    /// Whether what was read of a handle when the log stood at `seq` still holds.
    pub(super) fn admits(&self, seq: u64, cti: &Cti) -> bool {
        seq >= self.floor && self.latest.get(cti).is_none_or(|event| *event <= seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cti(number: u64) -> Cti {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Cti(bytes)
    }

    #[test]
    fn what_was_read_before_an_event_is_not_admitted() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        recent.restart(5);
        assert!(recent.admits(5, &cti(1)) && !recent.admits(4, &cti(1)));
        recent.note(6, cti(1), now);
        recent.note(7, cti(2), now);
        assert!(!recent.admits(5, &cti(1)) && recent.admits(6, &cti(1)));
        assert!(!recent.admits(6, &cti(2)) && recent.admits(6, &cti(3)));
        recent.note(8, cti(1), now);
        assert!(!recent.admits(7, &cti(1)), "the latest event counts");
    }

    #[test]
    fn memory_is_bounded_and_what_was_forgotten_is_not_admitted() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for seq in 1..=MAX as u64 + 1 {
            recent.note(seq, cti(seq % 10), now);
        }
        assert_eq!((recent.order.len(), recent.latest.len(), recent.floor), (MAX, 10, 1));
        assert!(!recent.admits(0, &cti(77)) && recent.admits(1, &cti(77)));
        recent.note(MAX as u64 + 2, cti(1), now + LIFE);
        assert_eq!((recent.order.len(), recent.latest.len(), recent.floor), (1, 1, MAX as u64 + 1));
    }
}
