//! The access record: durable before the answer leaves, cache hits and refusals included (I2). No record, no answer.
//!
//! Exchanges whose token verified go to their home member's log; other refusals to the gateway's own bounded log, without
//! any field of the token. One thread writes: whatever waits when a commit begins is in that commit, so that the cost of
//! durability is shared by all (group commit). The Merkle tree over each log comes with its delivery.

mod entry;
mod store;

use std::{path::Path, thread, time::Duration};

use opentelemetry::KeyValue;
use peer::health::Impaired;
use proto::{
    member::Member,
    refusal::{Reason, Refusal},
    time::Clock,
};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, instrument};

pub(crate) use entry::{Ending, Entry, RefusalEntry};
pub(crate) use store::StoreError;

use crate::{metrics::RecordMetrics, redemption::Claim};
use store::Store;

/// Bounds of the record.
#[derive(Clone, Copy, Debug)]
pub struct RecordLimits {
    /// Records in one commit.
    pub max_batch: usize,
    /// Records waiting for a commit; more are refused.
    pub max_waiting: usize,
    /// Refusals kept in the gateway's own log; the oldest go first.
    pub max_refusals: usize,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self { max_batch: 512, max_waiting: 8192, max_refusals: 100_000 }
    }
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    queue: mpsc::Sender<Item>,
}

/// The writer's end, to wait for at shutdown.
#[derive(Debug)]
pub(crate) struct Writer(thread::JoinHandle<()>);

/// What the writer commits.
#[derive(Debug)]
enum Item {
    Exchange { home: Member, entry: Entry, claim: Option<Claim>, durable: oneshot::Sender<bool> },
    Refusal(RefusalEntry),
}

impl Record {
    /// Opens the store under `dir` and starts the writer. Returns the redemptions that are still live.
    pub(crate) fn open(
        dir: &Path,
        limits: RecordLimits,
        clock: Arc<dyn Clock>,
        metrics: RecordMetrics,
        impaired: Impaired,
    ) -> Result<(Self, Writer, Vec<Claim>), StoreError> {
        let store = Store::open(&dir.join("record.redb"), limits.max_refusals as u64)?;
        let claims = store.live_redemptions(clock.now())?;
        let (queue, items) = mpsc::channel(limits.max_waiting);
        let writer = thread::Builder::new()
            .name("record".into())
            .spawn(move || write(store, items, limits.max_batch, &*clock, &metrics, &impaired))
            .map_err(StoreError::Thread)?;
        Ok((Self { queue }, Writer(writer), claims))
    }

    /// Makes an exchange durable in its home member's log, with what it redeemed. The answer waits for this.
    #[instrument(level = "debug", name = "record", skip_all)]
    pub(crate) async fn close(&self, home: Member, entry: Entry, claim: Option<Claim>) -> Result<(), Refusal> {
        let unavailable = || Refusal::new(Reason::RecordUnavailable);
        let (durable, committed) = oneshot::channel();
        self.queue.try_send(Item::Exchange { home, entry, claim, durable }).map_err(|_| unavailable())?;
        match committed.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(unavailable()),
        }
    }

    /// Notes a refusal before any token verified. It says nothing of anybody, so nobody waits for it.
    pub(crate) fn note(&self, refusal: RefusalEntry) {
        // Under a flood notes give way to exchanges and are dropped; the refusal is still counted.
        if self.queue.capacity() * 2 > self.queue.max_capacity() {
            let _ = self.queue.try_send(Item::Refusal(refusal));
        }
    }
}

impl Writer {
    /// Waits until everything that was queued is committed. The last [`Record`] must be gone.
    pub(crate) fn join(self) {
        if self.0.join().is_err() {
            error!("the record's writer panicked");
        }
    }
}

/// Commits until the queue is closed and empty.
fn write(
    mut store: Store,
    mut items: mpsc::Receiver<Item>,
    max_batch: usize,
    clock: &dyn Clock,
    metrics: &RecordMetrics,
    impaired: &Impaired,
) {
    let mut batch = Vec::with_capacity(max_batch);
    let mut failing = false;
    while items.blocking_recv_many(&mut batch, max_batch) > 0 {
        let started = std::time::Instant::now();
        let result = store.commit(batch.iter().map(Item::as_row), clock.now());
        metrics.commit_seconds.record(started.elapsed().as_secs_f64(), &[]);
        match &result {
            Ok(()) => {
                metrics.records.add(batch.len() as u64, &[]);
                if failing {
                    info!("the access record is durable again");
                    impaired.set(false);
                }
                failing = false;
            }
            Err(error) => {
                // Loud once, counted always; the next batch tries a store that is opened anew.
                metrics.failures.add(1, &[KeyValue::new("reason", error.word())]);
                if !failing {
                    error!(%error, "the access record cannot be written: no answers until it can");
                    impaired.set(true);
                }
                failing = true;
                thread::sleep(Duration::from_millis(20));
            }
        }
        for item in batch.drain(..) {
            if let Item::Exchange { durable, .. } = item {
                // Whoever asked may have given up.
                let _ = durable.send(result.is_ok());
            }
        }
    }
}

/// A row of one commit.
pub(super) enum Row<'a> {
    Exchange { home: Member, entry: &'a Entry, claim: Option<&'a Claim> },
    Refusal(&'a RefusalEntry),
}

impl Item {
    fn as_row(&self) -> Row<'_> {
        match self {
            Self::Exchange { home, entry, claim, .. } => Row::Exchange { home: *home, entry, claim: claim.as_ref() },
            Self::Refusal(refusal) => Row::Refusal(refusal),
        }
    }
}
