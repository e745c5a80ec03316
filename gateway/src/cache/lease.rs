//! The lease under which statements held here may be answers (DESIGN §7).
//!
//! Upholds I4. A lease ends [`LEASE`] after the *sending* of a probe whose echo came, behind every event up to the head
//! that the node read once it had the probe. So when it holds, everything that home acknowledged [`LEASE`] ago or earlier
//! has been applied. Delay, buffering, a stopped process on either side, and clocks that disagree can only end it.

use std::{collections::VecDeque, time::Duration};

use proto::statement::LogHead;
use tokio::time::Instant;

/// How long after the sending of a probe its echo lets answers be given from here.
pub(super) const LEASE: Duration = Duration::from_millis(750);
/// Probes that may be without an echo; the node refuses more.
const MAX_PROBES: usize = 32;

/// One member's lease, and the position in its change log up to which everything was applied.
#[derive(Debug, Default)]
pub(super) struct Lease {
    position: Option<LogHead>,
    probes: VecDeque<(u64, Instant)>,
    next: u64,
    ends: Option<Instant>,
}

/// What a node said contradicts what it said before: nothing it said is to be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contradiction(pub(crate) &'static str);

impl Lease {
    /// The position up to which everything was applied; `None` before the first stream.
    pub(super) fn position(&self) -> Option<LogHead> {
        self.position
    }

    /// Whether answers may be given at this moment.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| now < ends)
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
        self.ends = None;
    }

    /// Numbers a probe that is about to be sent. `None` while too many are without an echo: the node hangs.
    pub(super) fn probe(&mut self, now: Instant) -> Option<u64> {
        if self.probes.len() >= MAX_PROBES {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.probes.push_back((number, now));
        Some(number)
    }

    /// Events from `first` on, so many, are about to be applied.
    pub(super) fn advance(&mut self, first: u64, count: usize) -> Result<(), Contradiction> {
        let Some(position) = &mut self.position else { return Err(Contradiction("events before an opening")) };
        if count == 0 || position.seq.checked_add(1) != Some(first) {
            return Err(Contradiction("events with a gap"));
        }
        position.seq = position.seq.saturating_add(count as u64);
        Ok(())
    }

    /// The echo of a probe came, behind all events up to `head`.
    pub(super) fn echo(&mut self, number: u64, head: LogHead) -> Result<(), Contradiction> {
        let sent = self.probes.iter().position(|(sent, _)| *sent == number);
        let Some(sent) = sent.and_then(|index| self.probes.drain(..=index).next_back()) else {
            return Err(Contradiction("an echo of no probe"));
        };
        let Some(position) = self.position else { return Err(Contradiction("an echo before an opening")) };
        if head.epoch != position.epoch {
            return Err(Contradiction("an echo of another epoch"));
        }
        if head.seq > position.seq {
            return Err(Contradiction("an echo ahead of its events"));
        }
        let ends = sent.1 + LEASE;
        self.ends = Some(self.ends.map_or(ends, |before| before.max(ends)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: [u8; 16] = [7; 16];

    fn at(seq: u64) -> LogHead {
        LogHead { epoch: EPOCH, seq }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_counted_from_the_probes_sending() {
        let mut lease = Lease::default();
        let sent = Instant::now();
        lease.restart(at(5));
        let probe = lease.probe(sent).unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        lease.echo(probe, at(5)).unwrap();
        assert_eq!(lease.ends, Some(sent + LEASE), "long over when the echo came late");
        let later = Instant::now();
        let (first, second) = (lease.probe(later).unwrap(), lease.probe(later + LEASE).unwrap());
        lease.echo(second, at(5)).unwrap();
        assert_eq!(lease.ends, Some(later + LEASE * 2));
        assert!(lease.echo(first, at(5)).is_err(), "echoes come in order");
    }

    #[tokio::test]
    async fn contradictions_are_seen() {
        let now = Instant::now();
        let mut lease = Lease::default();
        assert!(lease.advance(1, 1).is_err() && lease.echo(0, at(0)).is_err());
        lease.restart(at(5));
        for (first, count) in [(5, 1), (7, 1), (6, 0)] {
            assert!(lease.advance(first, count).is_err(), "{first} {count}");
        }
        lease.advance(6, 2).unwrap();
        assert_eq!(lease.position(), Some(at(7)));
        let probe = lease.probe(now).unwrap();
        assert!(lease.echo(probe, at(8)).is_err(), "events are missing");
        assert!(lease.echo(probe, at(7)).is_err(), "one echo a probe");
        let probe = lease.probe(now).unwrap();
        assert!(lease.echo(probe, LogHead { epoch: [8; 16], seq: 7 }).is_err());
        assert_eq!(lease.ends, None);
    }

    #[tokio::test]
    async fn a_node_that_hangs_gets_no_more_probes_and_a_new_stream_begins_anew() {
        let now = Instant::now();
        let mut lease = Lease::default();
        lease.restart(at(0));
        let probes: Vec<_> = std::iter::from_fn(|| lease.probe(now)).collect();
        assert_eq!(probes.len(), MAX_PROBES);
        lease.resume(at(0));
        assert!(lease.echo(probes[0], at(0)).is_err(), "of the stream before");
        let probe = lease.probe(now).unwrap();
        lease.echo(probe, at(0)).unwrap();
        lease.resume(at(0));
        assert_eq!(lease.ends, Some(now + LEASE), "an echo that came stays true");
        lease.restart(at(9));
        assert_eq!(lease.ends, None);
    }
}
