//! The access record: durable before the answer leaves, cache hits and refusals included (I2). No record, no answer.
//!
//! Exchanges whose token verified go to their home member's log; other refusals to the gateway's own bounded log, without
//! any field of the token. One thread writes: whatever waits when a commit begins is in that commit, so that the cost of
//! durability is shared by all (group commit); in a simulation it is a task. The Merkle tree over each log comes with its delivery.

mod entry;
mod store;

use std::{path::Path, thread, time::Duration};

use opentelemetry::KeyValue;
use peer::{health::Impaired, surroundings::Blocking};
use proto::{
    member::Member,
    refusal::{Reason, Refusal},
    time::Clock,
};
use std::sync::Arc;
use tokio::{
    sync::{mpsc, oneshot},
    task,
};
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

/// How long the writer waits after a commit that failed.
const FAILURE_PAUSE: Duration = Duration::from_millis(20);

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    queue: mpsc::Sender<Item>,
}

/// The writer's end, to wait for at shutdown.
#[derive(Debug)]
pub(crate) enum Writer {
    Thread(thread::JoinHandle<()>),
    Task(task::JoinHandle<()>),
}

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
        blocking: Blocking,
    ) -> Result<(Self, Writer, Vec<Claim>), StoreError> {
        let store = Store::open(&dir.join("record.redb"), limits.max_refusals as u64)?;
        let claims = store.live_redemptions(clock.now())?;
        let (queue, mut items) = mpsc::channel(limits.max_waiting);
        let max_batch = limits.max_batch;
        let mut commits = Commits { store, clock, metrics, impaired, failing: false };
        let writer = match blocking {
            Blocking::Threads => {
                let write = move || {
                    let mut batch = Vec::with_capacity(max_batch);
                    while items.blocking_recv_many(&mut batch, max_batch) > 0 {
                        if !commits.commit(&mut batch) {
                            thread::sleep(FAILURE_PAUSE);
                        }
                    }
                };
                let thread = thread::Builder::new().name("record".into()).spawn(write);
                Writer::Thread(thread.map_err(StoreError::Thread)?)
            }
            Blocking::Inline => Writer::Task(tokio::spawn(async move {
                let mut batch = Vec::with_capacity(max_batch);
                while items.recv_many(&mut batch, max_batch).await > 0 {
                    if !commits.commit(&mut batch) {
                        tokio::time::sleep(FAILURE_PAUSE).await;
                    }
                }
            })),
        };
        Ok((Self { queue }, writer, claims))
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
    pub(crate) async fn ended(self) {
        let well = match self {
            Self::Thread(thread) => task::spawn_blocking(move || thread.join().is_ok()).await.unwrap_or(false),
            Self::Task(task) => task.await.is_ok(),
        };
        if !well {
            error!("the record's writer panicked");
        }
    }
}

/// The writer's work.
struct Commits {
    store: Store,
    clock: Arc<dyn Clock>,
    metrics: RecordMetrics,
    impaired: Impaired,
    failing: bool,
}

impl Commits {
    /// Commits a batch and tells whoever waits for it. False if it failed.
    fn commit(&mut self, batch: &mut Vec<Item>) -> bool {
        let started = std::time::Instant::now();
        let result = self.store.commit(batch.iter().map(Item::as_row), self.clock.now());
        self.metrics.commit_seconds.record(started.elapsed().as_secs_f64(), &[]);
        match &result {
            Ok(()) => {
                self.metrics.records.add(batch.len() as u64, &[]);
                if self.failing {
                    info!("the access record is durable again");
                    self.impaired.set(false);
                }
            }
            Err(error) => {
                // Loud once, counted always; the next batch tries a store that is opened anew.
                self.metrics.failures.add(1, &[KeyValue::new("reason", error.word())]);
                if !self.failing {
                    error!(%error, "the access record cannot be written: no answers until it can");
                    self.impaired.set(true);
                }
            }
        }
        self.failing = result.is_err();
        for item in batch.drain(..) {
            if let Item::Exchange { durable, .. } = item {
                // Whoever asked may have given up.
                let _ = durable.send(!self.failing);
            }
        }
        !self.failing
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
