//! A PostgreSQL server as the backend: for members with more people, or more nodes, than one machine is for.
//!
//! Any number of node processes may share one database. What SQLite has for nothing, since it has one writer, is done here by
//! locks, and this is the order in which every transaction takes them:
//!
//! 1. the people whom it is about, by the rows of `person`, in ascending order ([`locks`]);
//! 2. values that must not come twice in several tables, keys and logs, as advisory locks;
//! 3. the rows that it changes, which are about these people;
//! 4. the row of `log_head`, if it makes events; then `request`.
//!
//! Upholds I4. *Nothing is missed*: whatever is about one person holds that person's row until it commits. A consent that is
//! issued while a code is set is either committed before, and the assignment, whose statements each see all that is committed
//! when they begin, makes its event; or it waits, and its first lookup finds the new status already. *Numbers are in the
//! order of commits, without gaps*: they are given by an UPDATE of the one row of `log_head`, whose lock is kept until the
//! commit, and PostgreSQL shows a commit to others before it lets go of its locks. So whoever sees a number sees every number
//! before it, and a rollback gives its numbers back. *A lookup is of one moment*: one statement, or several under REPEATABLE
//! READ, sees one snapshot, in which head and status agree.
//!
//! Transactions that wait for each other in a circle, two that add the same thing at once, and one that names what another one
//! forgets, are ended by the server; they are made again, a bounded number of times ([`RETRIED`]). Each is whole or not at all.
//!
//! A server that is slow or gone is an answer, too: STORE_UNAVAILABLE, after `acquire_timeout` and `statement_timeout` at the
//! latest ([`lease`]). Half of the connections are for reading alone, so that lookups go on while changes wait. A standby is
//! refused: what it shows may be from before what this node has told already ([`session`]).

mod lease;
mod locks;
mod session;
#[path = "sql/mod.rs"]
#[allow(clippy::duplicate_mod, reason = "one source for every backend: its head says why")]
mod sql;

use std::{path::Path, sync::Arc, time::Duration};

use proto::random::Random;
use sqlx::{
    ConnectOptions as _, Executor as _, PgPool, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};

use self::{lease::Lease, session::Session};
use super::{StoreError, migrations, witness::Witness};
use crate::{config::PostgresLimits, vault::Vault};

// What the shared SQL is compiled for.
type Backend = PostgresStore;
type Connection = sqlx::PgConnection;
type Database = Postgres;
type Row = sqlx::postgres::PgRow;
type Transaction = Lease;

/// How often a transaction is made at most.
const ATTEMPTS: u32 = 8;
/// Between two attempts, times how many there were.
const BACKOFF: Duration = Duration::from_millis(3);
/// What is no call may take this much longer.
const AT_LENGTH: u32 = 30;
/// After how much idleness a connection is tried before it is used. Within less, a server that went away shows by itself.
const TRIED_AFTER: Duration = Duration::from_secs(1);
/// What ends a transaction that may be made again: serialization_failure, deadlock_detected, unique_violation and
/// foreign_key_violation, of which another transaction was the cause.
const RETRIED: [&str; 4] = ["40001", "40P01", "23505", "23503"];

/// A store in a PostgreSQL database.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    /// Half of the connections, for what may have to wait for others.
    writers: PgPool,
    /// The others: who only asks waits for no lock, nor for whoever waits for one.
    readers: PgPool,
    /// Who only looks may do without.
    vault: Option<Arc<Vault>>,
    session: Arc<Session>,
    witness: Arc<Witness>,
    committed: watch::Sender<()>,
    judging: Arc<Mutex<()>>,
    /// How long a call may take at most.
    patience: Duration,
}

impl PostgresStore {
    /// Opens the database at `url`, filling and migrating it as needed. The witness of its change log is in `data_dir`. A
    /// new log gets its epoch from `random`.
    pub async fn open(
        url: &str,
        limits: PostgresLimits,
        data_dir: &Path,
        vault: Vault,
        random: Arc<dyn Random>,
    ) -> Result<Self, StoreError> {
        let store = Self::connect(url, limits, data_dir, Some(Arc::new(vault)), random)?;
        store.check_encoding().await?;
        migrations::run(&store.writers, migrations::POSTGRES, "name another database").await?;
        store.settle().await?;
        Ok(store)
    }

    /// Opens the database at `url` only to look at it. Nothing is made, migrated or written, and what is sealed stays so:
    /// people are nobody here.
    pub async fn inspect(
        url: &str,
        limits: PostgresLimits,
        data_dir: &Path,
        random: Arc<dyn Random>,
    ) -> Result<Self, StoreError> {
        let limits = PostgresLimits { max_connections: 2, ..limits };
        let store = Self::connect(url, limits, data_dir, None, random)?;
        store.reader().await?;
        Ok(store)
    }

    /// Its connections are made when they are needed.
    fn connect(
        url: &str,
        limits: PostgresLimits,
        data_dir: &Path,
        vault: Option<Arc<Vault>>,
        random: Arc<dyn Random>,
    ) -> Result<Self, StoreError> {
        // The parser's own message may repeat what it read, a password too.
        let options: PgConnectOptions = url.parse().map_err(|_| {
            StoreError::Unavailable("its URL is not of the form postgres://user:password@host:port/database".into())
        })?;
        // Statements carry no values, yet nothing that touches people belongs in a log.
        let options = options.application_name("province-stub").disable_statement_logging();
        let committed = watch::channel(()).0;
        let witness = Arc::new(Witness::at(data_dir.join("postgres.head")));
        let only_looks = vault.is_none();
        let session = Session::new(limits, only_looks, witness.clone(), committed.clone(), random);
        let session = Arc::new(session);
        let greeting = session.clone();
        let pool = PgPoolOptions::new()
            .acquire_timeout(limits.acquire_timeout)
            .test_before_acquire(false)
            .before_acquire(|connection, idle| {
                Box::pin(async move {
                    if idle.idle_for >= TRIED_AFTER {
                        connection.execute("SELECT 1").await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| {
                let session = greeting.clone();
                Box::pin(async move { session.greet(connection).await })
            });
        let half = limits.max_connections / 2;
        let writers = pool.clone().max_connections(half).connect_lazy_with(options.clone());
        let readers = pool.max_connections(limits.max_connections - half).connect_lazy_with(options);
        let patience = limits.acquire_timeout + limits.statement_timeout;
        Ok(Self { writers, readers, vault, session, witness, committed, judging: Arc::default(), patience })
    }

    /// Names are kept as they are, of whatever script.
    async fn check_encoding(&self) -> Result<(), StoreError> {
        let encoding: String = sqlx::query_scalar("SHOW server_encoding").fetch_one(&mut *self.reader().await?).await?;
        if encoding == "UTF8" {
            return Ok(());
        }
        Err(StoreError::Unavailable(format!("the database's encoding is {encoding}; it has to be UTF8").into()))
    }

    async fn settle(&self) -> Result<(), StoreError> {
        let vault = self.vault()?;
        self.attempt_at_length(|| async move {
            let mut tx = self.begin().await?;
            let place = self.session.settle(&mut tx).await?;
            sql::rest::settle(&mut tx, vault).await?;
            self.commit(tx).await?;
            self.session.settled(place);
            Ok(())
        })
        .await
    }
}

/// What the shared SQL asks of this backend.
impl PostgresStore {
    /// Does a call's work, within a call's time, and again if others were in the way.
    async fn attempt<T, F>(&self, work: impl Fn() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        within(self.patience, work).await
    }

    /// The same for what may take longer than a call.
    async fn attempt_at_length<T, F>(&self, work: impl Fn() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        within(self.patience * AT_LENGTH, work).await
    }

    /// Each statement sees what is committed when it begins: what it waited for as well.
    async fn begin(&self) -> Result<Transaction, StoreError> {
        self.lease(&self.writers).await?.begin("BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    /// For one statement.
    async fn reader(&self) -> Result<Lease, StoreError> {
        self.lease(&self.readers).await
    }

    /// For several statements that see the same.
    async fn snapshot(&self) -> Result<Lease, StoreError> {
        self.lease(&self.readers).await?.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    async fn lease(&self, pool: &PgPool) -> Result<Lease, StoreError> {
        let connection = pool.acquire().await.map_err(|error| self.session.why_none(error))?;
        Ok(Lease::new(connection))
    }

    fn vault(&self) -> Result<&Vault, StoreError> {
        self.vault.as_deref().ok_or_else(|| StoreError::Unavailable("it was opened without the keys".into()))
    }

    /// What is deleted leaves the server's files when it vacuums, and its write-ahead log when that is recycled: this is the
    /// operator's to see to, with whatever keeps copies of them.
    async fn wipe(&self) {}

    async fn let_go(&self) {
        tokio::join!(self.readers.close(), self.writers.close());
    }
}

/// Does work within a time, and again if others were in the way.
async fn within<T, F>(patience: Duration, work: impl Fn() -> F + Send) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>> + Send,
{
    let attempts = async {
        for attempt in 1..ATTEMPTS {
            match work().await {
                Err(error) if is_retried(&error) => sleep(BACKOFF * attempt).await,
                done => return done,
            }
        }
        work().await
    };
    let late = |_| StoreError::Unavailable("the database server did not answer in time".into());
    timeout(patience, attempts).await.map_err(late)?
}

fn is_retried(error: &StoreError) -> bool {
    let StoreError::Unavailable(cause) = error else { return false };
    let database = cause.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    database.and_then(|error| error.code()).is_some_and(|code| RETRIED.contains(&&*code))
}

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod tests;
