//! The change stream (DESIGN §7): events in their order, and echoes of probes behind them.
//!
//! Upholds I4: an echo carries the head that the store had *after* its probe came, and is sent behind every event up to
//! that head. So whoever holds the echo holds everything that was acknowledged before the probe was sent. Events also
//! leave by themselves as soon as they are committed here; the echoes never depend on that.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use proto::{
    refusal::{Blame, Reason, Refusal},
    statement::LogHead,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    home::Home,
    store::{Change, Store},
};

/// Events of one batch at most.
const MAX_BATCH: u32 = 1_000;
/// Probes without an echo at most.
pub(crate) const MAX_PROBES: usize = 32;
/// Messages that may wait for the reader.
pub(crate) const MAX_WAITING: usize = 4;

/// Bounds of all streams of a node.
#[derive(Clone, Copy, Debug)]
pub struct WatchLimits {
    /// Streams at once: one per gateway replica, and some more for those that have not noticed yet that theirs ended.
    pub max_streams: usize,
    /// How long a reader may let a message wait before it is cut off.
    pub max_wait: Duration,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self { max_streams: 64, max_wait: Duration::from_secs(2) }
    }
}

/// What a stream says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Where it begins.
    Opening(LogHead, Resumption),
    /// What happened, in order, without gaps.
    Batch(Vec<Change>),
    /// The echo of a probe, and the head behind which it is sent.
    Echo(u64, LogHead),
}

/// Whether a stream begins where it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resumption {
    /// At the head, as asked.
    AtHead,
    /// Right after the position asked for.
    Resumed,
    /// At the head: the events after that position are gone.
    TooOld,
    /// At the head: that position is not one of this log.
    OtherLog,
}

/// All streams of a node.
#[derive(Debug)]
pub(crate) struct Watchers {
    places: Arc<Semaphore>,
    limits: WatchLimits,
    shutdown: CancellationToken,
}

/// A probe. It has one of the stream's [`MAX_PROBES`] places until its echo is on its way.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) number: u64,
    pub(crate) _place: OwnedSemaphorePermit,
}

/// One stream's way out.
pub(crate) type Outlet = mpsc::Sender<Result<Said, Refusal>>;

impl Watchers {
    pub(crate) fn new(limits: WatchLimits, shutdown: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(limits.max_streams)), limits, shutdown }
    }

    /// A place for one more stream.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = self.places.clone().try_acquire_owned();
        place.map_err(|_| Refusal::new(Reason::Overloaded).with("limit", "watchers").blaming(Blame::Home))
    }

    /// Follows the log after `after`, or from its head, until the probes end, the reader is gone or too slow, or the node
    /// stops. A refusal is the stream's last word.
    pub(crate) async fn follow<S: Store>(
        &self,
        home: &Home<S>,
        after: Option<LogHead>,
        probes: mpsc::Receiver<Probe>,
        outlet: Outlet,
    ) {
        let stream = Stream { home, outlet: &outlet, max_wait: self.limits.max_wait };
        let ended = tokio::select! {
            () = self.shutdown.cancelled() => Ok(()),
            ended = stream.run(after, probes) => ended,
        };
        if let Err(refusal) = ended {
            self.refuse(&outlet, refusal).await;
        }
    }

    /// A stream's last word. Whoever was too slow for its events may be too slow for this.
    pub(crate) async fn refuse(&self, outlet: &Outlet, refusal: Refusal) {
        let _ = timeout(self.limits.max_wait, outlet.send(Err(refusal))).await;
    }
}

struct Stream<'a, S> {
    home: &'a Home<S>,
    outlet: &'a Outlet,
    max_wait: Duration,
}

impl<S: Store> Stream<'_, S> {
    async fn run(&self, after: Option<LogHead>, mut probes: mpsc::Receiver<Probe>) -> Result<(), Refusal> {
        // Before the head is read: what is committed after that read is told.
        let mut commits = self.home.store.commits();
        let (mut position, resumption) = self.begin(after).await?;
        if !self.say(Said::Opening(position, resumption)).await? {
            return Ok(());
        }
        let mut waiting = VecDeque::new();
        loop {
            if !next(&mut probes, &mut commits, &mut waiting).await {
                return Ok(());
            }
            // Whatever came until now is answered from one reading, which is later than all of it.
            while let Ok(probe) = probes.try_recv() {
                waiting.push_back(probe);
            }
            commits.mark_unchanged();
            let head = self.home.store.head().await?;
            if head.epoch != position.epoch || head.seq < position.seq {
                return Err(Refusal::new(Reason::StoreUnavailable).blaming(Blame::Home));
            }
            if !self.catch_up(&mut position, head).await? {
                return Ok(());
            }
            for probe in waiting.drain(..) {
                if !self.say(Said::Echo(probe.number, head)).await? {
                    return Ok(());
                }
            }
        }
    }

    /// Where the stream begins, and whether that is where it was asked to.
    async fn begin(&self, after: Option<LogHead>) -> Result<(LogHead, Resumption), Refusal> {
        let head = self.home.store.head().await?;
        let Some(after) = after else { return Ok((head, Resumption::AtHead)) };
        if after.epoch != head.epoch || after.seq > head.seq {
            return Ok((head, Resumption::OtherLog));
        }
        if after.seq == head.seq {
            return Ok((after, Resumption::Resumed));
        }
        let next = self.home.store.changes(after.seq, 1).await?;
        match next.first() {
            Some(change) if change.seq == after.seq + 1 => Ok((after, Resumption::Resumed)),
            _ => Ok((head, Resumption::TooOld)),
        }
    }

    /// Sends every event after `position` up to `head` at least. False if the reader is gone.
    async fn catch_up(&self, position: &mut LogHead, head: LogHead) -> Result<bool, Refusal> {
        while position.seq < head.seq {
            let changes = self.home.store.changes(position.seq, MAX_BATCH).await?;
            let Some(last) = changes.last() else { return Err(swept()) };
            let in_order = changes.iter().zip(position.seq + 1..).all(|(change, seq)| change.seq == seq);
            if !in_order {
                return Err(swept());
            }
            position.seq = last.seq;
            if !self.say(Said::Batch(changes)).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says one thing. False if the reader is gone; a refusal if it is too slow.
    async fn say(&self, said: Said) -> Result<bool, Refusal> {
        match timeout(self.max_wait, self.outlet.send(Ok(said))).await {
            Ok(sent) => Ok(sent.is_ok()),
            Err(_) => Err(Refusal::new(Reason::Overloaded).with("limit", "slow_reader").blaming(Blame::Caller)),
        }
    }
}

/// A reader so slow that the events it waits for were forgotten meanwhile begins anew and is told so.
fn swept() -> Refusal {
    Refusal::new(Reason::Overloaded).with("limit", "slow_reader").blaming(Blame::Caller)
}

/// Waits for a probe or a commit. False when no more probes come: the stream is over.
async fn next(
    probes: &mut mpsc::Receiver<Probe>,
    commits: &mut watch::Receiver<()>,
    waiting: &mut VecDeque<Probe>,
) -> bool {
    tokio::select! {
        probe = probes.recv() => match probe {
            Some(probe) => {
                waiting.push_back(probe);
                true
            }
            None => false,
        },
        // The store's end is the node's, which ends this too.
        changed = commits.changed() => changed.is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use proto::token::Cti;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::{
        seed::Condition,
        store::{CHANGE_RETENTION, sqlite::SqliteStore},
        test_support::{Fixture, NOW, RETENTION, seeded},
    };

    const LIMITS: WatchLimits = WatchLimits { max_streams: 2, max_wait: Duration::from_millis(400) };

    /// A stream with somebody who reads it.
    struct Reader {
        probes: mpsc::Sender<Probe>,
        places: Arc<Semaphore>,
        said: mpsc::Receiver<Result<Said, Refusal>>,
        _running: JoinHandle<()>,
    }

    impl Reader {
        fn open(home: &Arc<Home<SqliteStore>>, after: Option<LogHead>) -> Self {
            Self::under(home, after, CancellationToken::new())
        }

        fn under(home: &Arc<Home<SqliteStore>>, after: Option<LogHead>, shutdown: CancellationToken) -> Self {
            let (probes, waiting) = mpsc::channel(MAX_PROBES);
            let (outlet, said) = mpsc::channel(MAX_WAITING);
            let (home, watchers) = (home.clone(), Watchers::new(LIMITS, shutdown));
            let running = tokio::spawn(async move { watchers.follow(&home, after, waiting, outlet).await });
            Self { probes, places: Arc::new(Semaphore::new(MAX_PROBES)), said, _running: running }
        }

        async fn next(&mut self) -> Said {
            self.said.recv().await.unwrap().unwrap()
        }

        async fn probe(&mut self, number: u64) {
            let place = self.places.clone().try_acquire_owned().unwrap();
            self.probes.send(Probe { number, _place: place }).await.unwrap();
        }
    }

    /// A home with so many consents of one person.
    async fn home(consents: usize) -> (Fixture, Vec<Cti>) {
        let fixture = Fixture::new().await;
        let person = seeded(Condition::Green);
        let mut handles = Vec::new();
        for _ in 0..consents {
            handles.push(fixture.phone(&person, |_| {}).await.issued.cti);
        }
        (fixture, handles)
    }

    async fn revoke(home: &Home<SqliteStore>, cti: Cti) -> LogHead {
        home.store.revoke_consent(cti, None, NOW).await.unwrap()
    }

    fn handles(said: &Said) -> Vec<Cti> {
        match said {
            Said::Batch(changes) => changes.iter().map(|change| change.cti).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_echo_comes_behind_every_event_before_its_probe() {
        let (fixture, ctis) = home(2).await;
        let home = Arc::new(fixture.home);
        let mut reader = Reader::open(&home, None);
        let start = home.store.head().await.unwrap();
        assert_eq!(reader.next().await, Said::Opening(start, Resumption::AtHead));
        reader.probe(1).await;
        assert_eq!(reader.next().await, Said::Echo(1, start));
        let first = revoke(&home, ctis[0]).await;
        assert_eq!(handles(&reader.next().await), [ctis[0]], "without a probe too");
        let second = revoke(&home, ctis[1]).await;
        reader.probe(2).await;
        assert_eq!(handles(&reader.next().await), [ctis[1]]);
        assert_eq!(reader.next().await, Said::Echo(2, second));
        assert_eq!((first.seq, second.seq), (start.seq + 1, start.seq + 2));
    }

    #[tokio::test]
    async fn a_stream_resumes_without_a_gap_or_says_that_it_cannot() {
        let (fixture, ctis) = home(3).await;
        let home = Arc::new(fixture.home);
        let start = home.store.head().await.unwrap();
        let first = revoke(&home, ctis[0]).await;
        let second = revoke(&home, ctis[1]).await;
        let mut reader = Reader::open(&home, Some(start));
        assert_eq!(reader.next().await, Said::Opening(start, Resumption::Resumed));
        reader.probe(1).await;
        assert_eq!(handles(&reader.next().await), [ctis[0], ctis[1]]);
        assert_eq!(reader.next().await, Said::Echo(1, second));
        let mut current = Reader::open(&home, Some(second));
        assert_eq!(current.next().await, Said::Opening(second, Resumption::Resumed));
        for foreign in [LogHead { epoch: [7; 16], ..first }, LogHead { seq: second.seq + 1, ..second }] {
            let mut reader = Reader::open(&home, Some(foreign));
            assert_eq!(reader.next().await, Said::Opening(second, Resumption::OtherLog));
        }
        // Forgotten: the first two events. What is after them can still be had, what is among them cannot.
        home.store.sweep(NOW.plus(CHANGE_RETENTION + Duration::from_secs(1)), RETENTION).await.unwrap();
        let mut old = Reader::open(&home, Some(first));
        assert_eq!(old.next().await, Said::Opening(second, Resumption::TooOld));
        let mut young = Reader::open(&home, Some(second));
        assert_eq!(young.next().await, Said::Opening(second, Resumption::Resumed));
    }

    #[tokio::test]
    async fn a_reader_that_does_not_keep_up_is_cut_off() {
        let (fixture, ctis) = home(12).await;
        let home = Arc::new(fixture.home);
        let mut reader = Reader::open(&home, None);
        reader.next().await;
        for (waiting, cti) in (1..).zip(ctis) {
            revoke(&home, cti).await;
            // Each event a message of its own, until no more may wait.
            while reader.said.len() < waiting.min(MAX_WAITING) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        // Past the wait for the event, within the wait for the last word.
        tokio::time::sleep(LIMITS.max_wait * 3 / 2).await;
        let mut last = None;
        while let Some(said) = reader.said.recv().await {
            last = Some(said);
        }
        let refusal = last.unwrap().unwrap_err();
        assert_eq!((refusal.reason(), refusal.metadata("limit")), (Reason::Overloaded, Some("slow_reader")));
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_probes_with_the_node_and_has_a_place_while_it_lives() {
        let (fixture, _) = home(0).await;
        let home = Arc::new(fixture.home);
        let mut reader = Reader::open(&home, None);
        reader.next().await;
        let Reader { probes, mut said, .. } = reader;
        drop(probes);
        assert!(said.recv().await.is_none());
        let shutdown = CancellationToken::new();
        let mut reader = Reader::under(&home, None, shutdown.clone());
        reader.next().await;
        shutdown.cancel();
        assert!(reader.said.recv().await.is_none());
        let watchers = Watchers::new(LIMITS, CancellationToken::new());
        let places = (watchers.admit().unwrap(), watchers.admit().unwrap());
        assert_eq!(watchers.admit().unwrap_err().metadata("limit"), Some("watchers"));
        drop(places);
        assert!(watchers.admit().is_ok());
    }
}
