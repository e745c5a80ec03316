//! Admission: how many calls may be under way, in all and per caller. What is too much is refused at once (I7).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use proto::{
    identity::PeerId,
    refusal::{Reason, Refusal},
};

/// Bounds on calls under way.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// From all callers together.
    pub max_in_flight: usize,
    /// From any one caller.
    pub max_in_flight_per_caller: usize,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self { max_in_flight: 4096, max_in_flight_per_caller: 1024 }
    }
}

/// Counts calls under way.
#[derive(Clone, Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_caller: HashMap<PeerId, usize>,
}

/// A place among the calls under way; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    caller: PeerId,
    counts: Arc<Mutex<Counts>>,
}

/// A place that a call may take with it into tasks of its own; in the extensions of every request.
#[derive(Clone, Debug)]
pub struct Place(#[expect(dead_code, reason = "the place lasts as long as it is held")] Arc<Admitted>);

impl From<Admitted> for Place {
    fn from(admitted: Admitted) -> Self {
        Self(Arc::new(admitted))
    }
}

impl Admission {
    /// An empty house.
    pub fn new(limits: AdmissionLimits) -> Self {
        Self { limits, counts: Arc::default() }
    }

    /// Takes a place, or refuses.
    pub fn admit(&self, peer: &PeerId) -> Result<Admitted, Refusal> {
        let mut counts = lock(&self.counts);
        if counts.all >= self.limits.max_in_flight {
            return Err(Refusal::new(Reason::Overloaded).with("limit", "all"));
        }
        let own = counts.by_caller.entry(peer.clone()).or_default();
        if *own >= self.limits.max_in_flight_per_caller {
            return Err(Refusal::new(Reason::Overloaded).with("limit", "caller"));
        }
        *own += 1;
        counts.all += 1;
        Ok(Admitted { caller: peer.clone(), counts: self.counts.clone() })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all -= 1;
        if let Some(own) = counts.by_caller.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                counts.by_caller.remove(&self.caller);
            }
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
    // Counts are whole after every statement.
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_at_their_edges_and_places_come_back() {
        let admission = Admission::new(AdmissionLimits { max_in_flight: 3, max_in_flight_per_caller: 2 });
        let (a, b) = (PeerId::gateway("a").unwrap(), PeerId::gateway("b").unwrap());
        let limit = |peer| admission.admit(peer).unwrap_err().metadata("limit").map(str::to_owned);
        let first = admission.admit(&a).unwrap();
        let second = admission.admit(&a).unwrap();
        assert_eq!(limit(&a).as_deref(), Some("caller"));
        let third = admission.admit(&b).unwrap();
        assert_eq!(limit(&b).as_deref(), Some("all"));
        drop((first, second, third));
        assert!(lock(&admission.counts).by_caller.is_empty());
        assert!(admission.admit(&a).is_ok());
    }
}
