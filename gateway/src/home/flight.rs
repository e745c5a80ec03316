//! Single flight: those who ask the same at the same time share one lookup (DESIGN §7).
//!
//! Upholds I4: nobody joins a flight that is older than [`MAX_AGE`], so what a joiner gets was read at home at most that
//! long before it asked; an event for its consent detaches a flight, whose passengers start anew.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::token::Cti;
use tokio::{sync::oneshot, time::Instant};

use crate::cache::Key;

/// The oldest flight that is still joined.
const MAX_AGE: Duration = Duration::from_millis(500);

/// The lookups under way at one member.
#[derive(Debug)]
pub(crate) struct Flights<T> {
    under_way: Mutex<UnderWay<T>>,
}

#[derive(Debug)]
struct UnderWay<T> {
    flights: BTreeMap<Cti, Vec<Flight<T>>>,
    next: u64,
}

#[derive(Debug)]
struct Flight<T> {
    number: u64,
    key: Key,
    began: Instant,
    /// Those who wait, in the order in which they came and will be told.
    aboard: Vec<oneshot::Sender<T>>,
}

/// What somebody who asks is to do.
#[derive(Debug)]
pub(crate) enum Boarding<T> {
    /// Have it looked up, land what came of it, and wait like the others.
    Lead(Leader, Passenger<T>),
    /// Wait for whoever looks it up already.
    Join(Passenger<T>),
}

/// Whoever looks it up.
#[derive(Debug)]
pub(crate) struct Leader {
    cti: Cti,
    number: u64,
}

/// Whoever waits.
#[derive(Debug)]
pub(crate) struct Passenger<T>(oneshot::Receiver<T>);

impl<T: Clone> Flights<T> {
    pub(crate) fn new() -> Self {
        Self { under_way: Mutex::new(UnderWay { flights: BTreeMap::new(), next: 0 }) }
    }

    /// Joins the flight for a key, or begins one that others may join.
    pub(crate) fn board(&self, key: &Key, now: Instant) -> Boarding<T> {
        let mut under_way = self.lock();
        let number = under_way.next;
        let flights = under_way.flights.entry(key.cti).or_default();
        let young = flights.iter_mut().find(|flight| flight.key == *key && now < flight.began + MAX_AGE);
        let (seat, waiting) = oneshot::channel();
        if let Some(flight) = young {
            flight.aboard.push(seat);
            return Boarding::Join(Passenger(waiting));
        }
        flights.push(Flight { number, key: *key, began: now, aboard: vec![seat] });
        under_way.next += 1;
        Boarding::Lead(Leader { cti: key.cti, number }, Passenger(waiting))
    }

    /// Gives everybody aboard what came of it. A flight that was detached meanwhile has nobody aboard.
    pub(crate) fn land(&self, leader: &Leader, landed: T) {
        for seat in self.remove(leader).into_iter().flat_map(|flight| flight.aboard) {
            // Whoever waited may have gone.
            let _ = seat.send(landed.clone());
        }
    }

    /// Nothing came of it, or nothing that is others': everybody aboard starts anew.
    pub(crate) fn abandon(&self, leader: &Leader) {
        drop(self.remove(leader));
    }

    /// An event for a consent: later callers start anew, and so do those who wait.
    pub(crate) fn detach(&self, cti: &Cti) {
        let detached = self.lock().flights.remove(cti);
        drop(detached);
    }

    /// The change stream has ended: no flight is joined any more, and those who wait start anew.
    pub(crate) fn detach_all(&self) {
        let detached = std::mem::take(&mut self.lock().flights);
        drop(detached);
    }

    fn remove(&self, leader: &Leader) -> Option<Flight<T>> {
        let mut under_way = self.lock();
        let flights = under_way.flights.get_mut(&leader.cti)?;
        let index = flights.iter().position(|flight| flight.number == leader.number)?;
        let flight = flights.swap_remove(index);
        if flights.is_empty() {
            under_way.flights.remove(&leader.cti);
        }
        Some(flight)
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay<T>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Passenger<T> {
    /// What came of it; `None` says to start anew.
    pub(crate) async fn wait(self) -> Option<T> {
        self.0.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use proto::{terms::Scope, token::TokenHash};

    use super::*;

    fn key(number: u8) -> Key {
        Key { cti: Cti([number; 16]), token: TokenHash([number; 32]), scope: Scope::LEVEL }
    }

    fn lead(flights: &Flights<u8>, key: &Key, now: Instant) -> Leader {
        match flights.board(key, now) {
            Boarding::Lead(leader, _) => leader,
            Boarding::Join(_) => panic!("joined"),
        }
    }

    fn join(flights: &Flights<u8>, key: &Key, now: Instant) -> Passenger<u8> {
        match flights.board(key, now) {
            Boarding::Join(passenger) => passenger,
            Boarding::Lead(..) => panic!("led"),
        }
    }

    #[tokio::test]
    async fn those_who_ask_the_same_share_and_others_do_not() {
        let (flights, now) = (Flights::new(), Instant::now());
        let leader = lead(&flights, &key(1), now);
        let waiting = join(&flights, &key(1), now);
        let other = lead(&flights, &Key { scope: Scope::ALL, ..key(1) }, now);
        flights.land(&leader, 7);
        assert_eq!(waiting.wait().await, Some(7));
        lead(&flights, &key(1), now);
        flights.abandon(&other);
        flights.detach_all();
        assert!(flights.lock().flights.is_empty());
    }

    #[tokio::test]
    async fn nobody_joins_an_old_flight_and_a_late_landing_reaches_its_own_passengers_alone() {
        let (flights, now) = (Flights::new(), Instant::now());
        let old = lead(&flights, &key(1), now);
        let early = join(&flights, &key(1), now + MAX_AGE - Duration::from_nanos(1));
        let young = lead(&flights, &key(1), now + MAX_AGE);
        let late = join(&flights, &key(1), now + MAX_AGE);
        flights.land(&old, 1);
        flights.land(&young, 2);
        assert_eq!((early.wait().await, late.wait().await), (Some(1), Some(2)));
    }

    #[tokio::test]
    async fn an_event_detaches_its_consents_flights() {
        let (flights, now) = (Flights::new(), Instant::now());
        let (first, second) = (lead(&flights, &key(1), now), lead(&flights, &key(2), now));
        let (detached, other) = (join(&flights, &key(1), now), join(&flights, &key(2), now));
        flights.detach(&key(1).cti);
        let anew = lead(&flights, &key(1), now);
        flights.land(&first, 1);
        flights.land(&second, 2);
        assert_eq!((detached.wait().await, other.wait().await), (None, Some(2)));
        let waiting = join(&flights, &key(1), now);
        flights.abandon(&anew);
        assert_eq!(waiting.wait().await, None);
    }
}
