//! The embedded store (redb): one transaction a commit, one value per log and commit, fsync before it counts.
//!
//! Readers in other processes share the file (`gateway log`); there is one writer. After a failure the store is closed and
//! opened anew, since redb lets nothing be done with one that failed; what it says then is what holds.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use proto::{
    identity::Realm,
    log::{commit::encode_heads, owner_from_number, record::time_and_caller},
    proof::ProofId,
    suite::{SigningKey, Suite},
    time::UnixTime,
};
use redb::{
    Builder, ConcurrencyMode, Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};
use thiserror::Error;

use super::{
    journal::{self, Journal},
    logs::{BLOCK, BLOCK_LEVEL, LogKey, Staged},
    receipt::KeptReceipt,
    row,
};
use crate::redemption::Claim;

/// (log, index of the first record) → a row. Logs are numbered as in `proto::log`.
pub(super) const RECORDS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("records");
/// number of a commit → its rows (`journal`), until they go to their logs: whatever is in here follows what is there.
pub(super) const JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");
/// (log, level, index) → the root of a subtree of at least one block.
pub(super) const NODES: TableDefinition<'_, (u8, u8, u64), [u8; 32]> = TableDefinition::new("nodes");
/// log → where its records begin: what was before is trimmed.
pub(super) const TRIMMED: TableDefinition<'_, u8, u64> = TableDefinition::new("trimmed");
/// log → how much of it home holds, and its receipt for that (`receipt`).
pub(super) const DELIVERED: TableDefinition<'_, u8, (u64, &[u8])> = TableDefinition::new("delivered");
/// (remembered until, proof) → the venue that redeemed it.
const REDEMPTIONS: TableDefinition<'_, (u64, [u8; 16]), &str> = TableDefinition::new("redemptions");
/// What there is one of.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The layout of all of this.
const VERSION: &str = "version";
const LAYOUT: &[u8] = b"1";
/// The logs' private key, PKCS #8. It is in here so that it lives exactly as long as what it signed.
const KEY: &str = "key";
/// The last commit, signed.
pub(super) const COMMIT: &str = "commit";
/// All heads, whose hash the last commit has: log, size, root of each.
pub(super) const HEADS: &str = "heads";

const CACHE_BYTES: usize = 16 << 20;
/// Expired redemptions taken out in one commit at most.
const MAX_FORGOTTEN: usize = 1024;
/// Bytes of one log's rows after which one commit takes no further one out: whoever waits for an answer waits for this too.
const MAX_TRIMMED_BYTES: usize = 4 << 20;

/// Why the record cannot be kept.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// The store does not open: another process has it, or the file is not one.
    #[error("{}: {error}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        error: Box<redb::DatabaseError>,
    },
    /// A read or a commit failed.
    #[error("{0}")]
    Failed(#[from] Box<redb::Error>),
    /// The store is not what was committed.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The writer's thread does not start, or the witness does not open.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl StoreError {
    /// The word in metrics.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Failed(_) => "commit",
            Self::Damaged(_) => "damaged",
            Self::Io(_) => "io",
        }
    }
}

/// What is wrong with a record that was altered, cut or put back.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}{what}", place(*owner, *index))]
pub struct Damage {
    /// Whose log, if it is one log's.
    pub owner: Option<Realm>,
    /// The first index that is not as it was.
    pub index: Option<u64>,
    /// Why.
    pub what: String,
}

fn place(owner: Option<Realm>, index: Option<u64>) -> String {
    match (owner, index) {
        (Some(owner), Some(index)) => format!("the log of {owner} at index {index}: "),
        (Some(owner), None) => format!("the log of {owner}: "),
        (None, _) => String::new(),
    }
}

impl Damage {
    pub(super) fn of_store(what: impl Into<String>) -> Self {
        Self { owner: None, index: None, what: what.into() }
    }

    pub(super) fn of_log(log: u8, what: impl Into<String>) -> Self {
        Self { owner: owner_from_number(log), index: None, what: what.into() }
    }

    pub(super) fn at(log: u8, index: u64, what: impl Into<String>) -> Self {
        Self { owner: owner_from_number(log), index: Some(index), what: what.into() }
    }
}

/// What one commit writes beside its records.
#[derive(Debug, Default)]
pub(super) struct Also<'a> {
    /// The journal, if its rows go to their logs now.
    pub(super) fold: Option<&'a Journal>,
    /// Redemptions.
    pub(super) claims: Vec<&'a Claim>,
    /// What home has a receipt for.
    pub(super) delivered: Vec<Delivered<'a>>,
}

/// A receipt of home.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivered<'a> {
    /// Which log.
    pub(super) log: u8,
    /// How much of it home holds.
    pub(super) size: u64,
    /// The receipt.
    pub(super) receipt: &'a KeptReceipt,
    /// Records before this are not kept behind it.
    pub(super) keep_from: UnixTime,
}

/// The open store. Readers share it.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    max_refusals: u64,
    database: Arc<ArcSwapOption<Database>>,
}

impl Store {
    /// Opens the store, or makes one with a key of its own.
    pub(super) fn open(path: &Path, max_refusals: u64) -> Result<(Self, LogKey), StoreError> {
        // The logs' private key is in it: its owner's alone.
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        let database = builder().create(path).map_err(|error| open_error(path, error))?;
        let key = settle(&database)?;
        let database = Arc::new(ArcSwapOption::from_pointee(database));
        Ok((Self { path: path.into(), max_refusals, database }, key))
    }

    /// For readers.
    pub(super) fn shared(&self) -> Arc<ArcSwapOption<Database>> {
        self.database.clone()
    }

    /// The open database; `None` after a failure.
    pub(super) fn database(&self) -> Option<Arc<Database>> {
        self.database.load_full()
    }

    /// Opens it again after a failure. It is in use only once it is [taken up](Self::take_up).
    pub(super) fn reopen(&self) -> Result<Database, StoreError> {
        builder().open(&self.path).map_err(|error| open_error(&self.path, error))
    }

    /// Uses a database that was opened again and found to be as it was.
    pub(super) fn take_up(&self, database: Database) {
        self.database.store(Some(Arc::new(database)));
    }

    /// Commits: all of it is durable, or none.
    pub(super) fn commit(&self, staged: Option<&Staged>, also: &Also<'_>, now: UnixTime) -> Result<(), StoreError> {
        let database = self.database().ok_or_else(|| std::io::Error::other("the store is closed"))?;
        let written = write(&database, staged, also, now, self.max_refusals);
        written.map_err(|error| {
            self.database.store(None);
            StoreError::Failed(Box::new(error))
        })
    }

    /// The redemptions that are still to be remembered.
    pub(super) fn live_redemptions(&self, now: UnixTime) -> Result<Vec<Claim>, StoreError> {
        let Some(database) = self.database() else { return Ok(Vec::new()) };
        live_redemptions(&database, now).map_err(|error| StoreError::Failed(Box::new(error)))
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

/// Opens a store to look at, beside its writer too. One that was not closed and has no writer is recovered first, as its
/// gateway would.
pub(super) fn open_to_read(path: &Path) -> Result<ReadTransaction, StoreError> {
    let failed = |error: redb::TransactionError| StoreError::Failed(Box::new(error.into()));
    let read_only = || builder().open_read_only(path);
    let database = match read_only() {
        Err(redb::DatabaseError::RepairAborted) => {
            // Closing it is what leaves it recovered.
            drop(builder().open(path).map_err(|error| open_error(path, error))?);
            read_only()
        }
        opened => opened,
    };
    database.map_err(|error| open_error(path, error))?.begin_read().map_err(failed)
}

fn open_error(path: &Path, error: redb::DatabaseError) -> StoreError {
    StoreError::Open { path: path.into(), error: Box::new(error) }
}

/// Makes what is missing of a new store, and reads its key.
fn settle(database: &Database) -> Result<LogKey, StoreError> {
    let make = || -> Result<Option<Vec<u8>>, redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(JOURNAL)?;
        transaction.open_table(NODES)?;
        transaction.open_table(TRIMMED)?;
        transaction.open_table(DELIVERED)?;
        transaction.open_table(REDEMPTIONS)?;
        let key = {
            let mut meta = transaction.open_table(META)?;
            if meta.get(KEY)?.is_none() {
                meta.insert(VERSION, LAYOUT)?;
                meta.insert(KEY, SigningKey::generate(Suite::Ed25519).to_pkcs8().as_slice())?;
            }
            let known = meta.get(VERSION)?.is_some_and(|version| version.value() == LAYOUT);
            meta.get(KEY)?.filter(|_| known).map(|key| key.value().to_vec())
        };
        transaction.commit()?;
        Ok(key)
    };
    let key = make().map_err(Box::new)?;
    let key = key.ok_or_else(|| Damage::of_store("its layout is of another version"))?;
    parse_key(&key).map_err(StoreError::from)
}

pub(super) fn parse_key(pkcs8: &[u8]) -> Result<LogKey, Damage> {
    let key = SigningKey::from_pkcs8(Suite::Ed25519, pkcs8);
    key.map(LogKey::new).map_err(|_| Damage::of_store("its key is none"))
}

/// The key of a store that is looked at.
pub(super) fn read_key(transaction: &ReadTransaction) -> Result<LogKey, StoreError> {
    let read = || -> Result<Option<Vec<u8>>, redb::Error> {
        let meta = transaction.open_table(META)?;
        let known = meta.get(VERSION)?.is_some_and(|version| version.value() == LAYOUT);
        Ok(meta.get(KEY)?.filter(|_| known).map(|key| key.value().to_vec()))
    };
    let key = read().map_err(Box::new)?;
    let key = key.ok_or_else(|| Damage::of_store("it has no key, or its layout is of another version"))?;
    Ok(parse_key(&key)?)
}

fn live_redemptions(database: &Database, now: UnixTime) -> Result<Vec<Claim>, redb::Error> {
    let table = database.begin_read()?.open_table(REDEMPTIONS)?;
    let mut claims = Vec::new();
    for row in table.range((now.as_secs(), [0; 16])..)? {
        let (key, venue) = row?;
        let (until, id) = key.value();
        // What does not parse was never written by us.
        if let Ok(venue) = venue.value().parse() {
            claims.push(Claim::committed(ProofId(id), venue, UnixTime::from_secs(until)));
        }
    }
    Ok(claims)
}

fn write(
    database: &Database,
    staged: Option<&Staged>,
    also: &Also<'_>,
    now: UnixTime,
    max_refusals: u64,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    if let Some(journal) = also.fold {
        fold(&transaction, journal)?;
    }
    if let Some(staged) = staged {
        append(&transaction, staged)?;
        let own = staged.heads.get(&0xff).map_or(0, |head| head.size);
        let first = own.saturating_sub(max_refusals).next_multiple_of(BLOCK).min(own / BLOCK * BLOCK);
        trim(&transaction, 0xff, first, None)?;
    }
    redeem(&transaction, &also.claims, now)?;
    for delivered in &also.delivered {
        let mut table = transaction.open_table(DELIVERED)?;
        if table.get(delivered.log)?.is_some_and(|held| held.value().0 > delivered.size) {
            // It was overtaken by a later one.
            continue;
        }
        table.insert(delivered.log, (delivered.size, delivered.receipt.encode().as_slice()))?;
        drop(table);
        trim(&transaction, delivered.log, delivered.size / BLOCK * BLOCK, Some(delivered.keep_from))?;
    }
    transaction.commit()?;
    Ok(())
}

/// The journal's rows go to their logs.
fn fold(transaction: &WriteTransaction, journal: &Journal) -> Result<(), redb::Error> {
    let mut records = transaction.open_table(RECORDS)?;
    for (key, row) in journal.joined() {
        records.insert(key, row.as_slice())?;
    }
    transaction.open_table(JOURNAL)?.retain(|_, _| false)?;
    Ok(())
}

fn append(transaction: &WriteTransaction, staged: &Staged) -> Result<(), redb::Error> {
    transaction.open_table(JOURNAL)?.insert(staged.number, journal::encode(&staged.rows).as_slice())?;
    if !staged.nodes.is_empty() {
        let mut nodes = transaction.open_table(NODES)?;
        for (key, hash) in &staged.nodes {
            nodes.insert(*key, hash)?;
        }
    }
    let mut meta = transaction.open_table(META)?;
    meta.insert(COMMIT, &*staged.signed)?;
    meta.insert(HEADS, encode_heads(staged.heads.values()).as_slice())?;
    Ok(())
}

fn redeem(transaction: &WriteTransaction, claims: &[&Claim], now: UnixTime) -> Result<(), redb::Error> {
    let mut redemptions = transaction.open_table(REDEMPTIONS)?;
    for claim in claims {
        redemptions.insert((claim.until.as_secs(), claim.id.0), claim.venue.to_string().as_str())?;
    }
    let ended = redemptions.range(..(now.as_secs(), [0; 16]))?.take(MAX_FORGOTTEN);
    let ended = ended.map(|row| row.map(|(key, _)| key.value())).collect::<Result<Vec<_>, _>>()?;
    for key in ended {
        redemptions.remove(key)?;
    }
    Ok(())
}

/// Takes out whole blocks before `before`, a multiple of [`BLOCK`], of rows that are older than `keep_from`. What is left of
/// their tree are its peaks: they are nodes by themselves, and all that later proofs need.
fn trim(transaction: &WriteTransaction, log: u8, before: u64, keep_from: Option<UnixTime>) -> Result<(), redb::Error> {
    let mut trimmed = transaction.open_table(TRIMMED)?;
    let base = trimmed.get(log)?.map_or(0, |base| base.value());
    if before <= base {
        return Ok(());
    }
    let mut records = transaction.open_table(RECORDS)?;
    let mut gone: BTreeMap<u64, Option<Vec<u8>>> = BTreeMap::new();
    let (mut reached, mut bytes) = (base, 0);
    for entry in records.range((log, base)..(log, before))? {
        let (key, row) = entry?;
        let is_old =
            |record: &[u8]| keep_from.is_none_or(|from| time_and_caller(record).is_some_and(|(time, _)| time < from));
        let young = row::records(key.value().1, row.value()).find(|stored| !is_old(stored.record));
        let end = row::count(row.value()).map_or(reached, |count| key.value().1 + count);
        reached = young.map_or(end, |young| young.index);
        gone.insert(key.value().1, None);
        bytes += row.value().len();
        if young.is_some() || reached >= before || bytes >= MAX_TRIMMED_BYTES {
            break;
        }
    }
    let base = reached.min(before) / BLOCK * BLOCK;
    gone.retain(|first, _| *first < base);
    // The last row may go on beyond the new base: what is left of it begins there.
    if let Some(mut last) = gone.last_entry() {
        let first = *last.key();
        let row = records.get((log, first))?;
        let rest = row.and_then(|row| row::from(first, row.value(), base));
        last.insert(rest);
    }
    for (first, rest) in gone {
        records.remove((log, first))?;
        if let Some(rest) = rest {
            records.insert((log, base), rest.as_slice())?;
        }
    }
    trim_nodes(&mut transaction.open_table(NODES)?, log, base)?;
    trimmed.insert(log, base)?;
    Ok(())
}

/// Takes out the nodes before `base` that are none of its peaks.
fn trim_nodes(nodes: &mut Table<'_, (u8, u8, u64), [u8; 32]>, log: u8, base: u64) -> Result<(), redb::Error> {
    for level in BLOCK_LEVEL..64 {
        let whole = base >> level;
        if whole == 0 {
            break;
        }
        let kept = if whole & 1 == 1 { whole - 1 } else { whole };
        let inner = nodes.range((log, level, 0)..(log, level, kept))?;
        let inner = inner.map(|node| node.map(|(key, _)| key.value())).collect::<Result<Vec<_>, _>>()?;
        for key in inner {
            nodes.remove(key)?;
        }
    }
    Ok(())
}
