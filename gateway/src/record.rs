//! The access record: durable before the answer leaves, cache hits and refusals included (I2). No record, no answer.
//!
//! Exchanges whose token verified go to their home member's log; other refusals to the replica's own bounded log, without
//! any field of the token. One thread writes: whatever waits when a commit begins is in that commit, so that the cost of
//! durability and of the one signature is shared by all (group commit); in a simulation it is a task.
//!
//! ```text
//! close ─ space ─ queue ─▶ writer ─ logs (stage) ─ store (durable) ─ witness ─▶ receipt
//!                          deliver reads through `view`, and hands home's receipts to the writer
//! ```

mod bench;
mod disowned;
mod journal;
mod logs;
mod reader;
mod receipt;
mod row;
mod space;
mod store;
#[cfg(test)]
mod tests;
mod tool;
mod verify;
mod view;
mod witness;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use peer::{health::Impaired, surroundings::Blocking};
use proto::{
    identity::{FederationDomain, Realm},
    log::{
        commit::AccessReceipt,
        merkle,
        record::{Entry, RefusalEntry},
    },
    member::Member,
    refusal::{Reason, Refusal},
    time::{Clock, UnixTime},
    trust::TrustList,
};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, instrument};

pub use bench::{Figures, bench};
pub(crate) use reader::{Inclusion, Reader};
pub(crate) use receipt::KeptReceipt;
pub(crate) use space::Space;
pub use space::SpaceLimits;
pub use store::Damage;
pub(crate) use store::StoreError;
pub use tool::{LogError, LogTool, Shown};
pub use verify::Verified;
pub(crate) use writer::Writer;

use crate::{metrics::RecordMetrics, redemption::Claim};
use writer::{Commits, InCommit, Item};

/// The store's file, under the data directory.
const FILE: &str = "record.redb";

/// Bounds of the record.
#[derive(Clone, Copy, Debug)]
pub struct RecordLimits {
    /// Records in one commit.
    pub max_batch: usize,
    /// Records waiting for a commit; more are refused.
    pub max_waiting: usize,
    /// Refusals kept on the replica's own log; the oldest go first, by the block of 256.
    pub max_refusals: usize,
    /// What may wait to be delivered.
    pub space: SpaceLimits,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self { max_batch: 512, max_waiting: 8192, max_refusals: 100_000, space: SpaceLimits::default() }
    }
}

/// The way to the writer.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    queue: mpsc::Sender<Item>,
    reader: Reader,
    space: Arc<Space>,
    disowned: Arc<AtomicBool>,
    impaired: Impaired,
    path: PathBuf,
}

/// What the record takes from the program it is part of.
#[derive(Debug)]
pub(crate) struct Around {
    pub(crate) domain: FederationDomain,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: RecordMetrics,
    pub(crate) impaired: Impaired,
    pub(crate) blocking: Blocking,
}

impl Record {
    /// Opens the store under `dir`, verifies what is not delivered yet, and starts the writer. Returns the redemptions that
    /// are still live.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the store is not what was committed: nobody pretends to go on from there.
    pub(crate) fn open(
        dir: &Path,
        limits: RecordLimits,
        around: Around,
    ) -> Result<(Self, Writer, Vec<Claim>), StoreError> {
        let space = Arc::new(Space::new(limits.space));
        let now = around.clock.now();
        let path = dir.join(FILE);
        let Around { domain, clock, metrics, impaired, blocking } = around;
        let commits = Commits::open(&path, limits.max_refusals as u64, &space, clock, metrics, impaired.clone())?;
        let claims = commits.live_redemptions(now)?;
        let (reader, disowned) = (commits.reader(domain), commits.disowned());
        let (queue, items) = mpsc::channel(limits.max_waiting);
        let writer = Writer::start(commits, items, limits.max_batch, blocking)?;
        Ok((Self { queue, reader, space, disowned, impaired, path }, writer, claims))
    }

    /// For proofs and delivery.
    pub(crate) const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// What waits to be delivered.
    pub(crate) const fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Makes an exchange durable on its home member's log, with what it redeemed; returns the receipt for it. The answer
    /// waits for this.
    #[instrument(level = "debug", name = "record", skip_all)]
    pub(crate) async fn close(
        &self,
        home: Member,
        entry: &Entry,
        claim: Option<Claim>,
        list: &TrustList,
    ) -> Result<Vec<u8>, Refusal> {
        let unavailable = || Refusal::new(Reason::RecordUnavailable);
        // Who cannot verify the receipt has none.
        if !self.reader.is_listed(list) {
            return Err(unavailable().with("limit", "log_key"));
        }
        if self.disowned.load(Ordering::Relaxed) {
            return Err(unavailable());
        }
        self.append(home, entry, claim).await
    }

    async fn append(&self, home: Member, entry: &Entry, claim: Option<Claim>) -> Result<Vec<u8>, Refusal> {
        let unavailable = || Refusal::new(Reason::RecordUnavailable);
        let record: Arc<[u8]> = entry.encode().into();
        let leaf = merkle::leaf_hash(&record);
        let (durable, committed) = oneshot::channel();
        self.space.take(home, &entry.caller, record.len())?;
        let (caller, copy) = (entry.caller.clone(), record.clone());
        let item = Item::Exchange { home, record: copy, leaf, caller, claim, durable };
        self.queue.try_send(item).map_err(|_| {
            self.space.release(home, &entry.caller, record.len());
            unavailable().with("limit", "waiting")
        })?;
        let InCommit { commit, position } = committed.await.ok().flatten().ok_or_else(unavailable)?;
        Ok(commit.receipt(Realm::Member(home), record.to_vec(), position).encode())
    }

    /// Notes a refusal before any token verified. It says nothing of anybody, so nobody waits for it.
    pub(crate) fn note(&self, refusal: &RefusalEntry) {
        // Under a flood notes give way to exchanges and are dropped; the refusal is still counted.
        if self.queue.capacity() * 2 > self.queue.max_capacity() {
            let record = refusal.encode();
            let leaf = merkle::leaf_hash(&record);
            let _ = self.queue.try_send(Item::Refusal { record, leaf });
        }
    }

    /// Takes note of how much of a member's log it has a receipt for. Records before `keep_from` are not kept behind it.
    pub(crate) async fn delivered(&self, home: Member, size: u64, receipt: KeptReceipt, keep_from: UnixTime) {
        // The writer is gone when the gateway stops: then it is delivered again, and nothing is lost.
        let _ = self.queue.send(Item::Delivered { home, size, receipt, keep_from }).await;
    }

    /// Nothing is put on these logs any more: they are not the ones that were.
    pub(crate) fn disown(&self, checkpoint: &str) {
        self.disowned.store(true, Ordering::Relaxed);
        self.impaired.set(true);
        if let Err(error) = disowned::mark(&self.path, checkpoint) {
            error!(%error, "that these logs are disowned is not on disk: a restart would forget it");
        }
    }
}

impl writer::Committed {
    /// The receipt for the record at this position.
    fn receipt(&self, owner: Realm, record: Vec<u8>, position: usize) -> AccessReceipt {
        AccessReceipt {
            owner,
            index: self.indexes[position],
            record,
            position: position as u64,
            path: self.tree.path(position),
            commit: self.signed.to_vec(),
        }
    }
}
