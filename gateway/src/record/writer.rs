//! The writer: takes whatever waits, stages it, makes it durable, and tells whoever waits for it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use opentelemetry::KeyValue;
use peer::{health::Impaired, surroundings::Blocking};
use proto::{
    identity::{FederationDomain, Realm},
    log::{
        commit::Head,
        merkle::{Frontier, Hash},
        owner_number,
        record::{Caller, time_and_caller},
    },
    member::Member,
    time::{Clock, UnixTime},
};
use redb::{Database, ReadableDatabase as _};
use tokio::{
    sync::{mpsc, oneshot},
    task,
};
use tracing::{error, info, warn};

pub(super) use super::logs::Committed;
use super::{
    disowned,
    journal::Journal,
    logs::{Append, BLOCK, Heads, LogKey, Logs},
    reader::Reader,
    receipt::KeptReceipt,
    space::Space,
    store::{Also, Damage, Delivered, Store, StoreError},
    verify::{check_store, walk},
    view::{View, size_of},
    witness::{self, Witness},
};
use crate::{metrics::RecordMetrics, redemption::Claim};

/// In a rush, and once after it, the writer waits this long for more before it commits: those whom it has just answered ask
/// again meanwhile, and what a commit costs is shared by all of them. Fewer than [`RUSH`] at once wait for nobody.
const GATHER: Duration = Duration::from_millis(1);
const RUSH: usize = 32;
/// How long the writer waits after a commit that failed.
const FAILURE_PAUSE: Duration = Duration::from_millis(20);

/// What the writer commits.
#[derive(Debug)]
pub(super) enum Item {
    Exchange {
        home: Member,
        record: Arc<[u8]>,
        leaf: Hash,
        caller: Caller,
        claim: Option<Claim>,
        durable: oneshot::Sender<Option<InCommit>>,
    },
    Refusal {
        record: Vec<u8>,
        leaf: Hash,
    },
    Delivered {
        home: Member,
        size: u64,
        receipt: KeptReceipt,
        keep_from: UnixTime,
    },
}

/// Where a record is in a commit that is durable.
#[derive(Debug)]
pub(super) struct InCommit {
    pub(super) commit: Arc<Committed>,
    pub(super) position: usize,
}

/// The writer's end, to wait for at shutdown.
#[derive(Debug)]
pub(crate) enum Writer {
    Thread(thread::JoinHandle<()>),
    Task(task::JoinHandle<()>),
}

impl Writer {
    pub(super) fn start(
        mut commits: Commits,
        mut items: mpsc::Receiver<Item>,
        max_batch: usize,
        blocking: Blocking,
    ) -> Result<Self, StoreError> {
        Ok(match blocking {
            Blocking::Threads => {
                let write = move || {
                    let (mut batch, mut rush) = (Vec::with_capacity(max_batch), false);
                    while items.blocking_recv_many(&mut batch, max_batch) > 0 {
                        if rush || batch.len() >= RUSH {
                            thread::sleep(GATHER);
                            while let Some(item) = (batch.len() < max_batch).then(|| items.try_recv().ok()).flatten() {
                                batch.push(item);
                            }
                        }
                        rush = batch.len() >= RUSH;
                        if !commits.commit(&mut batch) {
                            thread::sleep(FAILURE_PAUSE);
                        }
                    }
                };
                Self::Thread(thread::Builder::new().name("record".into()).spawn(write)?)
            }
            Blocking::Inline => Self::Task(tokio::spawn(async move {
                let mut batch = Vec::with_capacity(max_batch);
                while items.recv_many(&mut batch, max_batch).await > 0 {
                    if !commits.commit(&mut batch) {
                        tokio::time::sleep(FAILURE_PAUSE).await;
                    }
                }
            })),
        })
    }

    /// Waits until everything that was queued is committed. The last [`super::Record`] must be gone.
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
pub(super) struct Commits {
    path: PathBuf,
    store: Store,
    key: LogKey,
    logs: Logs,
    journal: Journal,
    witness: Witness,
    published: Arc<ArcSwap<Heads>>,
    space: Arc<Space>,
    clock: Arc<dyn Clock>,
    metrics: RecordMetrics,
    impaired: Impaired,
    disowned: Arc<AtomicBool>,
    failing: bool,
}

impl Commits {
    /// Opens the store and takes up the logs where they were, once what is not delivered was verified.
    pub(super) fn open(
        path: &Path,
        max_refusals: u64,
        space: &Arc<Space>,
        clock: Arc<dyn Clock>,
        metrics: RecordMetrics,
        impaired: Impaired,
    ) -> Result<Self, StoreError> {
        let (store, key) = Store::open(path, max_refusals)?;
        let witnessed = witness::read(path);
        let database = store.database();
        let view = view(database.as_deref())?;
        let (number, heads) = check_store(&view, witness::last(witnessed.as_deref(), key.key().verifying_key()))?;
        if let Some(damage) = disowned::found(path) {
            return Err(damage.into());
        }
        let frontiers = take_up(&view, &heads, space, |log, head| {
            let delivered = view.delivered(log)?.map_or(0, |(size, _)| size);
            if let Realm::Member(home) = head.owner {
                space.settled(home, delivered);
            }
            Ok(delivered)
        })?;
        if number == 0 {
            info!(key = %key.kid(), "new access logs begin: the trust list must have their key");
        }
        let logs = Logs::new(key.clone(), number, frontiers);
        let journal = journal(&view)?;
        Ok(Self {
            path: path.to_owned(),
            published: Arc::new(ArcSwap::new(logs.heads())),
            witness: Witness::open(path)?,
            space: space.clone(),
            store,
            key,
            logs,
            journal,
            clock,
            metrics,
            impaired,
            disowned: Arc::default(),
            failing: false,
        })
    }

    pub(super) fn live_redemptions(&self, now: UnixTime) -> Result<Vec<Claim>, StoreError> {
        self.store.live_redemptions(now)
    }

    /// Says, once it is set, that nobody is to be answered whatever becomes durable.
    pub(super) fn disowned(&self) -> Arc<AtomicBool> {
        self.disowned.clone()
    }

    pub(super) fn reader(&self, domain: FederationDomain) -> Reader {
        Reader::new(self.key.clone(), domain, self.store.shared(), self.published.clone())
    }

    /// Commits a batch and tells whoever waits for it. False if it failed.
    pub(super) fn commit(&mut self, batch: &mut Vec<Item>) -> bool {
        let started = std::time::Instant::now();
        let result = self.try_commit(batch);
        self.metrics.commit_seconds.record(started.elapsed().as_secs_f64(), &[]);
        let committed = match result {
            Ok(committed) => {
                self.metrics.records.add(batch.iter().filter(|item| item.record().is_some()).count() as u64, &[]);
                if self.failing {
                    info!("the access record is durable again");
                    self.impaired.set(self.disowned.load(Ordering::Relaxed));
                }
                self.failing = false;
                committed
            }
            Err(error) => {
                // Loud once, counted always; the next batch tries a store that is opened anew.
                self.metrics.failures.add(1, &[KeyValue::new("reason", error.word())]);
                if !self.failing {
                    error!(%error, "the access record cannot be written: no answers until it can");
                    self.impaired.set(true);
                }
                self.failing = true;
                None
            }
        };
        let mut position = 0;
        for item in batch.drain(..) {
            let at = position;
            position += usize::from(item.record().is_some());
            if let Item::Exchange { home, record, caller, durable, .. } = item {
                if committed.is_none() {
                    self.space.release(home, &caller, record.len());
                }
                // Whoever asked may have given up.
                let _ = durable.send(committed.clone().map(|commit| InCommit { commit, position: at }));
            }
        }
        !self.failing
    }

    fn try_commit(&mut self, batch: &[Item]) -> Result<Option<Arc<Committed>>, StoreError> {
        if self.store.database().is_none() {
            self.reopen()?;
        }
        let now = self.clock.now();
        let appends = || batch.iter().filter_map(Item::append);
        let staged = appends().next().is_some().then(|| self.logs.stage(appends(), now));
        let delivered: Vec<_> = batch.iter().filter_map(Item::delivered).collect();
        // What is to be trimmed is on its log first.
        let held_up =
            |delivered: &Delivered<'_>| self.journal.holds_before(delivered.log, delivered.size / BLOCK * BLOCK);
        let fold = self.journal.is_full() || delivered.iter().any(held_up);
        let claims = batch.iter().filter_map(Item::claim).collect();
        let also = Also { fold: fold.then_some(&self.journal), claims, delivered };
        self.store.commit(staged.as_ref(), &also, now)?;
        if fold {
            self.journal.clear();
        }
        let Some(staged) = staged else { return Ok(None) };
        let (committed, rows) = self.logs.settle(staged);
        self.journal.push(rows);
        let committed = Arc::new(committed);
        if let Err(error) = self.witness.note(&committed.signed) {
            warn!(%error, "the witness of the access record cannot be written: a rollback of it would not be seen here");
        }
        self.published.store(self.logs.heads());
        Ok(Some(committed))
    }

    /// Opens the store again and takes up what it says, since a commit that failed may have come through; but not one that is
    /// not as it was, nor another one.
    fn reopen(&mut self) -> Result<(), StoreError> {
        let witnessed = witness::read(&self.path);
        let database = self.store.reopen()?;
        let view = view(Some(&database))?;
        if view.id() != self.key.id() {
            return Err(Damage::of_store("it is another store now").into());
        }
        let key = self.key.key().verifying_key();
        let (number, heads) = check_store(&view, witness::last(witnessed.as_deref(), key))?;
        let before = self.logs.heads();
        let frontiers = take_up(&view, &heads, &self.space, |log, _| Ok(size_of(&before, log)))?;
        self.logs = Logs::new(self.key.clone(), number, frontiers);
        self.journal = journal(&view)?;
        drop(view);
        self.store.take_up(database);
        self.published.store(self.logs.heads());
        Ok(())
    }
}

/// The logs' right edges, from what is on disk: each is verified from `known` on, and the room counted that records from
/// there on take.
fn take_up(
    view: &View,
    heads: &Heads,
    space: &Space,
    known: impl Fn(u8, &Head) -> Result<u64, StoreError>,
) -> Result<BTreeMap<u8, Frontier>, StoreError> {
    let mut frontiers = BTreeMap::new();
    for (log, head) in heads {
        let known = known(*log, head)?;
        let from = (known.min(head.size) / BLOCK * BLOCK).max(view.base(*log)?);
        let frontier = walk(&view.log(*log), heads, from, None, |index, record| {
            if let (Realm::Member(home), true) = (head.owner, index >= known)
                && let Some((_, caller)) = time_and_caller(record)
            {
                space.found(home, &caller, record.len());
            }
        })?;
        frontiers.insert(*log, frontier);
    }
    Ok(frontiers)
}

fn journal(view: &View) -> Result<Journal, StoreError> {
    let mut journal = Journal::default();
    view.journal()?.into_iter().for_each(|(_, rows)| journal.push(rows));
    Ok(journal)
}

fn view(database: Option<&Database>) -> Result<View, StoreError> {
    let database = database.ok_or_else(|| std::io::Error::other("the store is closed"))?;
    View::of(&database.begin_read().map_err(|error| StoreError::Failed(Box::new(error.into())))?)
}

impl Item {
    fn record(&self) -> Option<&[u8]> {
        match self {
            Self::Exchange { record, .. } => Some(record),
            Self::Refusal { record, .. } => Some(record),
            Self::Delivered { .. } => None,
        }
    }

    fn append(&self) -> Option<Append<'_>> {
        match self {
            Self::Exchange { home, record, leaf, .. } => {
                Some(Append { owner: Realm::Member(*home), record, leaf: *leaf })
            }
            Self::Refusal { record, leaf } => Some(Append { owner: Realm::Gateway, record, leaf: *leaf }),
            Self::Delivered { .. } => None,
        }
    }

    fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Exchange { claim, .. } => claim.as_ref(),
            Self::Refusal { .. } | Self::Delivered { .. } => None,
        }
    }

    fn delivered(&self) -> Option<Delivered<'_>> {
        match self {
            Self::Delivered { home, size, receipt, keep_from } => {
                Some(Delivered { log: owner_number(Realm::Member(*home)), size: *size, receipt, keep_from: *keep_from })
            }
            Self::Exchange { .. } | Self::Refusal { .. } => None,
        }
    }
}
