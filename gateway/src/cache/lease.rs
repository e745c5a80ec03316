//! The lease under which statements held here may be answers (DESIGN §7).
//!
//! Upholds I4. A lease ends [`LEASE`] after the *sending* of a probe whose echo came, behind every event up to the head
//! that the node read once it had the probe. So when it holds, everything that home acknowledged [`LEASE`] ago or earlier
//! has been applied. Delay, buffering, a stopped process on either side, and clocks that disagree can only end it; so can a
//! machine that slept, whose monotonic clock slept with it: the wall clock has to agree that no more time went by.

use std::{collections::VecDeque, time::Duration};

use proto::{statement::LogHead, time::UnixTime};
use tokio::time::Instant;

/// How long after the sending of a probe its echo lets answers be given from here.
pub(super) const LEASE: Duration = Duration::from_millis(750);
/// How far the wall clock, which counts whole seconds, may have moved meanwhile.
const WALL_SECONDS: u64 = 1;
/// Probes that may be without an echo; the node refuses more.
const MAX_PROBES: usize = 32;

/// One member's lease, and the position in its change log up to which everything was applied.
#[derive(Debug, Default)]
pub(super) struct Lease {
    position: Option<LogHead>,
    probes: VecDeque<Sent>,
    next: u64,
    since: Option<Moment>,
}

/// One moment by both clocks: the machine's own, which no one sets, and the wall's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// By the monotonic clock.
    pub(crate) instant: Instant,
    /// By the wall clock.
    pub(crate) time: UnixTime,
}

/// A probe without an echo.
#[derive(Clone, Copy, Debug)]
struct Sent {
    number: u64,
    at: Moment,
    /// Where home's log had been seen to stand by then.
    known: Option<LogHead>,
}

/// Why what a node says of its log is not relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distrust {
    /// It contradicts what it said before: nothing it said counts.
    Contradiction(&'static str),
    /// It does not know what another node of the member has said already: it may catch up, and others may know more.
    Behind(&'static str),
}

impl Lease {
    /// The position up to which everything was applied; `None` before the first stream.
    pub(super) fn position(&self) -> Option<LogHead> {
        self.position
    }

    /// Whether answers may be given at this moment.
    pub(super) fn holds(&self, now: Moment) -> bool {
        self.since.is_some_and(|sent| now.instant < sent.instant + LEASE && now.time.since(sent.time) <= WALL_SECONDS)
    }

    /// A new stream begins: probes of the one before it get no echo any more. What was held stays leased as long as it was,
    /// since an echo that came is as true as ever.
    pub(super) fn resume(&mut self, position: LogHead) {
        self.probes.clear();
        self.position = Some(position);
    }

    /// A new stream begins elsewhere: nothing before it counts.
    pub(super) fn restart(&mut self, position: LogHead) {
        self.resume(position);
        self.since = None;
    }

    /// Numbers a probe that is about to be sent, when home's log is `known` to have stood somewhere already. `None` while too
    /// many are without an echo: the node hangs.
    pub(super) fn probe(&mut self, at: Moment, known: Option<LogHead>) -> Option<u64> {
        if self.probes.len() >= MAX_PROBES {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.probes.push_back(Sent { number, at, known });
        Some(number)
    }

    /// Events from `first` on, so many, are about to be applied.
    pub(super) fn advance(&mut self, first: u64, count: usize) -> Result<(), Distrust> {
        let Some(position) = &mut self.position else {
            return Err(Distrust::Contradiction("events before an opening"));
        };
        if count == 0 || position.seq.checked_add(1) != Some(first) {
            return Err(Distrust::Contradiction("events with a gap"));
        }
        position.seq = position.seq.saturating_add(count as u64);
        Ok(())
    }

    /// The echo of a probe came, behind all events up to `head`.
    pub(super) fn echo(&mut self, number: u64, head: LogHead) -> Result<(), Distrust> {
        let sent = self.probes.iter().position(|sent| sent.number == number);
        let Some(sent) = sent.and_then(|index| self.probes.drain(..=index).next_back()) else {
            return Err(Distrust::Contradiction("an echo of no probe"));
        };
        let Some(position) = self.position else {
            return Err(Distrust::Contradiction("an echo before an opening"));
        };
        if head.epoch != position.epoch {
            return Err(Distrust::Contradiction("an echo of another epoch"));
        }
        if head.seq > position.seq {
            return Err(Distrust::Contradiction("an echo ahead of its events"));
        }
        if sent.known.is_some_and(|known| known.epoch == head.epoch && known.seq > head.seq) {
            return Err(Distrust::Behind("its head is older than what home had signed when it was asked"));
        }
        if self.since.is_none_or(|before| before.instant < sent.at.instant) {
            self.since = Some(sent.at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: [u8; 16] = [7; 16];
    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn at(seq: u64) -> LogHead {
        LogHead { epoch: EPOCH, seq }
    }

    fn moment() -> Moment {
        Moment { instant: Instant::now(), time: NOW }
    }

    impl Moment {
        fn after(self, instant: Duration, wall: Duration) -> Self {
            Self { instant: self.instant + instant, time: self.time.plus(wall) }
        }
    }

    const MILLISECOND: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_is_counted_from_the_probes_sending() {
        let mut lease = Lease::default();
        let sent = moment();
        lease.restart(at(5));
        let (first, second) = (lease.probe(sent, None).unwrap(), lease.probe(sent.after(LEASE, SECOND), None).unwrap());
        assert!(!lease.holds(sent), "a probe alone is none");
        lease.echo(first, at(5)).unwrap();
        assert!(lease.holds(sent.after(LEASE - MILLISECOND, SECOND)));
        assert!(!lease.holds(sent.after(LEASE, SECOND)), "whenever its echo came");
        lease.echo(second, at(5)).unwrap();
        assert!(lease.holds(sent.after(LEASE * 2 - MILLISECOND, SECOND)));
        assert!(lease.echo(first, at(5)).is_err(), "echoes come in order");
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_slept_has_none_though_its_own_clock_slept_too() {
        let mut lease = Lease::default();
        let sent = moment();
        lease.restart(at(5));
        let probe = lease.probe(sent, None).unwrap();
        lease.echo(probe, at(5)).unwrap();
        assert!(lease.holds(sent.after(MILLISECOND, SECOND)));
        assert!(!lease.holds(sent.after(MILLISECOND, SECOND * 2)));
        let set_back = Moment { instant: sent.instant + MILLISECOND, time: NOW.minus(SECOND * 3600) };
        assert!(lease.holds(set_back), "a clock that was set back proves nothing");
    }

    #[tokio::test]
    async fn contradictions_are_seen() {
        let mut lease = Lease::default();
        assert!(lease.advance(1, 1).is_err() && lease.echo(0, at(0)).is_err());
        lease.restart(at(5));
        for (first, count) in [(5, 1), (7, 1), (6, 0)] {
            assert!(lease.advance(first, count).is_err(), "{first} {count}");
        }
        lease.advance(6, 2).unwrap();
        assert_eq!(lease.position(), Some(at(7)));
        let probe = lease.probe(moment(), None).unwrap();
        assert!(lease.echo(probe, at(8)).is_err(), "events are missing");
        assert!(lease.echo(probe, at(7)).is_err(), "one echo a probe");
        let probe = lease.probe(moment(), None).unwrap();
        assert!(lease.echo(probe, LogHead { epoch: [8; 16], seq: 7 }).is_err());
        assert_eq!(lease.since, None);
    }

    #[tokio::test]
    async fn an_echo_from_before_what_home_had_signed_is_behind() {
        let mut lease = Lease::default();
        lease.restart(at(14));
        let probe = lease.probe(moment(), Some(at(15))).unwrap();
        assert!(matches!(lease.echo(probe, at(14)), Err(Distrust::Behind(_))));
        assert_eq!(lease.since, None);
        for known in [at(14), LogHead { epoch: [8; 16], seq: 99 }] {
            let probe = lease.probe(moment(), Some(known)).unwrap();
            lease.echo(probe, at(14)).unwrap();
        }
    }

    #[tokio::test]
    async fn a_node_that_hangs_gets_no_more_probes_and_a_new_stream_begins_anew() {
        let now = moment();
        let mut lease = Lease::default();
        lease.restart(at(0));
        let probes: Vec<_> = std::iter::from_fn(|| lease.probe(now, None)).collect();
        assert_eq!(probes.len(), MAX_PROBES);
        lease.resume(at(0));
        assert!(lease.echo(probes[0], at(0)).is_err(), "of the stream before");
        let probe = lease.probe(now, None).unwrap();
        lease.echo(probe, at(0)).unwrap();
        lease.resume(at(0));
        assert_eq!(lease.since, Some(now), "an echo that came stays true");
        lease.restart(at(9));
        assert_eq!(lease.since, None);
    }
}
