//! Redemption: a proof without a venue belongs to the first venue that redeems it, an assisted token to one exchange.
//!
//! Claims are taken in memory, so that two venues cannot both win, and committed with the access record, so that a restart
//! forgets none. What has expired is forgotten: nobody could redeem it any more.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use proto::{
    proof::ProofId,
    refusal::{Object, Reason, Refusal},
    time::{CLOCK_LEEWAY, UnixTime},
    venue::VenueId,
};
use tracing::instrument;

use crate::consent::Taking;

/// A claim to be committed with the access record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// What was redeemed.
    pub(crate) id: ProofId,
    /// By whom.
    pub(crate) venue: Arc<VenueId>,
    /// Until when it has to be remembered.
    pub(crate) until: UnixTime,
    /// Whether even the same venue may not come again.
    once: bool,
}

impl Claim {
    /// Whether it is of a one-use consent.
    pub(crate) fn is_once(&self) -> bool {
        self.once
    }

    /// A claim as it was committed.
    pub(crate) fn committed(id: ProofId, venue: VenueId, until: UnixTime) -> Self {
        // Whether it was once does not matter any more: proofs and one-use tokens never share an id.
        Self { id, venue: Arc::new(venue), until, once: false }
    }
}

/// All live claims of this replica.
#[derive(Debug)]
pub(crate) struct Redemptions {
    max_live: usize,
    venue_binding_required: bool,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    venues: HashMap<ProofId, Arc<VenueId>>,
    by_end: BTreeMap<UnixTime, Vec<ProofId>>,
}

impl Redemptions {
    /// With the claims that were committed before a restart. Several replicas without a shared store take only proofs that
    /// are bound to a venue.
    pub(crate) fn new(max_live: usize, venue_binding_required: bool, committed: Vec<Claim>) -> Self {
        let mut live = Live::default();
        for claim in committed {
            live.insert(&claim);
        }
        Self { max_live, venue_binding_required, live: Mutex::new(live) }
    }

    /// Claims what this use takes; `None` if it takes nothing. A venue that has it already gets the same claim again: the
    /// exchange that claimed it first may never have been committed.
    #[instrument(level = "debug", name = "redemption", skip_all)]
    pub(crate) fn claim(&self, taking: &Taking, venue: &Arc<VenueId>, now: UnixTime) -> Result<Option<Claim>, Refusal> {
        let (id, until, once) = match *taking {
            Taking::Nothing => return Ok(None),
            Taking::FirstVenue(..) if self.venue_binding_required => {
                return Err(Refusal::of(Object::Proof, Reason::VenueBindingRequired));
            }
            Taking::FirstVenue(id, expires_at) => (id, expires_at, false),
            Taking::Once(id, expires_at) => (id, expires_at, true),
        };
        let mut live = self.lock();
        live.forget_before(now);
        match live.venues.get(&id) {
            Some(holder) if !once && holder == venue => {
                Ok(Some(Claim { id, venue: venue.clone(), until: until.plus(CLOCK_LEEWAY), once }))
            }
            Some(_) => {
                let object = if once { Object::Token } else { Object::Proof };
                Err(Refusal::of(object, Reason::AlreadyRedeemed))
            }
            None if live.venues.len() >= self.max_live => {
                Err(Refusal::new(Reason::Overloaded).with("limit", "redemptions"))
            }
            None => {
                let claim = Claim { id, venue: venue.clone(), until: until.plus(CLOCK_LEEWAY), once };
                live.insert(&claim);
                Ok(Some(claim))
            }
        }
    }

    /// Gives a one-use claim back when nothing came of it and it was not committed.
    pub(crate) fn release(&self, claim: &Claim) {
        let mut live = self.lock();
        live.venues.remove(&claim.id);
        if let Some(ending) = live.by_end.get_mut(&claim.until) {
            ending.retain(|id| *id != claim.id);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Live> {
        // An id without an end, or an end without an id, is harmless: see `forget_before`.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn insert(&mut self, claim: &Claim) {
        self.venues.insert(claim.id, claim.venue.clone());
        self.by_end.entry(claim.until).or_default().push(claim.id);
    }

    fn forget_before(&mut self, now: UnixTime) {
        while let Some(entry) = self.by_end.first_entry() {
            if *entry.key() >= now {
                break;
            }
            for id in entry.remove() {
                self.venues.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn venue(name: &str) -> Arc<VenueId> {
        Arc::new(format!("44/station/{name}").parse().unwrap())
    }

    fn first(n: u8) -> Taking {
        Taking::FirstVenue(ProofId([n; 16]), NOW.plus(Duration::from_secs(60)))
    }

    fn reason(result: Result<Option<Claim>, Refusal>) -> Option<Reason> {
        result.err().map(|refusal| refusal.reason())
    }

    #[test]
    fn the_first_venue_has_it_and_may_come_again() {
        let redemptions = Redemptions::new(10, false, vec![]);
        let (a, b) = (venue("a"), venue("b"));
        assert!(redemptions.claim(&first(1), &a, NOW).unwrap().is_some());
        let again = redemptions.claim(&first(1), &a, NOW).unwrap();
        assert!(again.is_some(), "it is committed again: the first exchange may have been cut off");
        assert_eq!(redemptions.lock().by_end.values().flatten().count(), 1);
        assert_eq!(reason(redemptions.claim(&first(1), &b, NOW)), Some(Reason::AlreadyRedeemed));
        assert_eq!(redemptions.claim(&Taking::Nothing, &b, NOW), Ok(None));
    }

    #[test]
    fn an_assisted_token_is_used_once_unless_nothing_came_of_it() {
        let redemptions = Redemptions::new(10, false, vec![]);
        let taking = Taking::Once(ProofId([1; 16]), NOW.plus(Duration::from_secs(60)));
        let claim = redemptions.claim(&taking, &venue("a"), NOW).unwrap().unwrap();
        assert_eq!(reason(redemptions.claim(&taking, &venue("a"), NOW)), Some(Reason::AlreadyRedeemed));
        redemptions.release(&claim);
        assert!(redemptions.claim(&taking, &venue("a"), NOW).unwrap().is_some());
    }

    #[test]
    fn a_restart_forgets_none_and_time_forgets_all() {
        let claim = Claim::committed(ProofId([1; 16]), (*venue("a")).clone(), NOW.plus(Duration::from_secs(90)));
        let redemptions = Redemptions::new(1, false, vec![claim]);
        assert_eq!(reason(redemptions.claim(&first(1), &venue("b"), NOW)), Some(Reason::AlreadyRedeemed));
        assert_eq!(reason(redemptions.claim(&first(2), &venue("b"), NOW)), Some(Reason::Overloaded));
        let later = NOW.plus(Duration::from_secs(91));
        assert!(redemptions.claim(&first(2), &venue("b"), later).unwrap().is_some());
        assert_eq!(redemptions.lock().by_end.len(), 1);
    }

    #[test]
    fn several_replicas_take_bound_proofs_alone() {
        let redemptions = Redemptions::new(10, true, vec![]);
        assert_eq!(reason(redemptions.claim(&first(1), &venue("a"), NOW)), Some(Reason::VenueBindingRequired));
        assert_eq!(redemptions.claim(&Taking::Nothing, &venue("a"), NOW), Ok(None));
    }
}
