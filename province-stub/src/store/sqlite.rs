//! The embedded backend: SQLite in WAL mode, one writer, a few readers.
//!
//! Upholds I4: there is one writing connection, so change numbers are given in the order of commits and have no gaps; a
//! read of several statements is one deferred transaction, which SQLite answers from one snapshot. `synchronous = FULL`:
//! what was acknowledged survives a power cut. Many nodes run in one process, so caches are small and readers open late.

mod locks;
mod place;
#[path = "sql/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "one source for every backend: its head says why")]
mod sql;

use std::{path::Path, sync::Arc, time::Duration};

use proto::random::Random;
use sqlx::{
    ConnectOptions as _, Row as _, Sqlite, SqlitePool,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use super::{StoreError, migrations, witness::Witness};
use crate::vault::Vault;

// What the shared SQL is compiled for.
type Backend = SqliteStore;
type Connection = sqlx::SqliteConnection;
type Database = Sqlite;
type Row = sqlx::sqlite::SqliteRow;
type Transaction = sqlx::Transaction<'static, Sqlite>;

/// How long a call waits for a connection, and a connection for the file's lock: shorter than a call may take, so that the
/// caller hears STORE_UNAVAILABLE.
const WAIT: Duration = Duration::from_secs(1);
/// How many readers at most; each is a thread.
const MAX_READERS: u32 = 2;
/// After how much idleness a reader's connection is closed.
const READER_IDLE: Duration = Duration::from_secs(60);
/// SQLite takes negative sizes as KiB.
const CACHE_SIZE: &str = "-512";
const STATEMENT_CACHE: usize = 64;

/// A store in one SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Who only looks at the file may do without.
    vault: Option<Arc<Vault>>,
    witness: Arc<Witness>,
    committed: watch::Sender<()>,
    judging: Arc<Mutex<()>>,
}

impl SqliteStore {
    /// Opens the file at `path`, making and migrating it as needed. A new log gets its epoch from `random`.
    pub async fn open(path: &Path, vault: Vault, random: &dyn Random) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(WAIT)
            .statement_cache_capacity(STATEMENT_CACHE)
            .pragma("cache_size", CACHE_SIZE)
            // What is deleted is written over: a traveler who is forgotten leaves nothing in free pages.
            .pragma("secure_delete", "ON")
            .pragma("journal_size_limit", "0")
            // Statements carry no values, yet nothing that touches people belongs in a log.
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new().acquire_timeout(WAIT).max_lifetime(None).test_before_acquire(false);
        let writer = pool.clone().max_connections(1).idle_timeout(None).connect_with(options.clone()).await?;
        migrations::run(&writer, migrations::SQLITE, "name another data_dir").await?;
        let readers = pool
            .max_connections(MAX_READERS)
            .min_connections(0)
            .idle_timeout(READER_IDLE)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        let store = Self::over(writer, readers, path, Some(Arc::new(vault)));
        store.settle(path, random).await?;
        Ok(store)
    }

    /// Opens the file at `path` only to look at it, also while a node has it open. Nothing is made, migrated or written, and
    /// what is sealed stays so: people are nobody here.
    pub async fn inspect(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(WAIT)
            .pragma("query_only", "ON")
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new().acquire_timeout(WAIT);
        let readers = pool.max_connections(1).connect_with(options).await?;
        Ok(Self::over(readers.clone(), readers, path, None))
    }

    fn over(writer: SqlitePool, readers: SqlitePool, path: &Path, vault: Option<Arc<Vault>>) -> Self {
        let (committed, judging) = (watch::channel(()).0, Arc::default());
        let witness = Arc::new(Witness::at(path.with_extension("db.head")));
        Self { writer, readers, vault, witness, committed, judging }
    }

    async fn settle(&self, path: &Path, random: &dyn Random) -> Result<(), StoreError> {
        let place = place::of(path).map_err(|error| StoreError::Unavailable(error.into()))?;
        let mut tx = self.begin().await?;
        sql::rest::settle(&mut tx, self.vault()?).await?;
        sql::epoch::settle(&mut tx, &place, &self.witness, random).await?;
        self.commit(tx).await
    }
}

/// What the shared SQL asks of this backend.
impl SqliteStore {
    /// Does what may have to be done again. Here it need not: nobody is in the one writer's way.
    async fn attempt<T, F>(&self, work: impl Fn() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        work().await
    }

    /// The same for what may take longer than a call.
    async fn attempt_at_length<T, F>(&self, work: impl Fn() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        work().await
    }

    /// Begins the one writing transaction there can be.
    async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// For one statement.
    async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.readers.acquire().await?)
    }

    /// For several statements that see the same.
    async fn snapshot(&self) -> Result<Transaction, StoreError> {
        Ok(self.readers.begin().await?)
    }

    fn vault(&self) -> Result<&Vault, StoreError> {
        self.vault.as_deref().ok_or_else(|| StoreError::Unavailable("it was opened without the keys".into()))
    }

    /// Empties the write-ahead log, in which pages from before still lie. A reader in the middle of something can keep it
    /// from that for a moment; then the next sweep does it. Who is forgotten is so either way.
    async fn wipe(&self) {
        let emptied = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&self.writer).await;
        match emptied.and_then(|row| row.try_get::<i64, _>("busy")) {
            Ok(0) => {}
            Ok(_) => info!("the write-ahead log is in use: what was forgotten leaves it with the next sweep"),
            Err(error) => warn!(%error, "what was forgotten is still in the write-ahead log"),
        }
    }

    async fn let_go(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[cfg(test)]
mod tests;
