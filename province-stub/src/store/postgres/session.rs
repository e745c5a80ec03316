//! What every connection is told and asked before it is used: its bounds, and which server is at its other end.
//!
//! Upholds I4: a server may be another one than a moment ago, a standby that took over or a backup that was put back, of
//! which the last events are missing. Where a database is, is told by its system's identifier, its own number and the
//! timeline: taking over and restoring begin a new timeline. A connection to another place than the one before begins a new
//! epoch of the change log, unless another node has done so already; and so does one that shows less than was noted to be
//! committed, which a server that crashed meanwhile costs as well.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::random::Random;
use sqlx::{Connection as _, Error, Row as _};
use tokio::sync::watch;

use super::{Connection, locks, sql};
use crate::{
    config::PostgresLimits,
    store::{StoreError, witness::Witness},
};

/// Which database it is. A standby has nothing to tell, and is not asked for its timeline, which it cannot say.
const PLACE: &str = "
    SELECT pg_is_in_recovery() AS standby,
           concat_ws('/',
               (SELECT system_identifier FROM pg_control_system()),
               (SELECT oid FROM pg_database WHERE datname = current_database()),
               CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END) AS place";

/// How connections are set up.
#[derive(Debug)]
pub(super) struct Session {
    limits: PostgresLimits,
    /// Nothing is written, whatever is found.
    only_looks: bool,
    witness: Arc<Witness>,
    committed: watch::Sender<()>,
    random: Arc<dyn Random>,
    /// Where the database was when the log was settled last; nowhere before that.
    place: Mutex<Option<String>>,
    /// Why the latest connection was not used, if it was not. A pool keeps that to itself.
    refusal: Mutex<Option<String>>,
}

impl Session {
    pub(super) fn new(
        limits: PostgresLimits,
        only_looks: bool,
        witness: Arc<Witness>,
        committed: watch::Sender<()>,
        random: Arc<dyn Random>,
    ) -> Self {
        let (place, refusal) = Default::default();
        Self { limits, only_looks, witness, committed, random, place, refusal }
    }

    /// Sets a new connection up. An error is the end of it; another one is tried for as long as anybody waits.
    pub(super) async fn greet(&self, connection: &mut Connection) -> Result<(), Error> {
        let greeted = self.set_up(connection).await;
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = greeted.as_ref().err().map(Error::to_string);
        greeted
    }

    /// What to say to whoever got no connection in time.
    pub(super) fn why_none(&self, error: Error) -> StoreError {
        match (&error, self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()) {
            (Error::PoolTimedOut, Some(refusal)) => StoreError::Unavailable(refusal.into()),
            _ => error.into(),
        }
    }

    async fn set_up(&self, connection: &mut Connection) -> Result<(), Error> {
        self.bound(connection).await?;
        if self.only_looks {
            return Ok(());
        }
        let place = self.ask(connection).await.map_err(refused)?;
        let Some(settled) = self.place().clone() else { return Ok(()) };
        let head = sql::changes::head(connection).await.map_err(refused)?;
        if settled != place || self.witness.is_ahead_of(head) {
            let mut tx = connection.begin().await?;
            let place = self.settle(&mut tx).await.map_err(refused)?;
            tx.commit().await?;
            self.settled(place);
            self.committed.send_replace(());
        }
        Ok(())
    }

    /// Gives a new log its epoch, and an old one another if its database was restored. Says where that is.
    pub(super) async fn settle(&self, connection: &mut Connection) -> Result<String, StoreError> {
        locks::values(connection, &["log_head"]).await?;
        let place = self.ask(connection).await?;
        sql::epoch::settle(connection, place.as_bytes(), &self.witness, &*self.random).await?;
        Ok(place)
    }

    /// That was committed.
    pub(super) fn settled(&self, place: String) {
        *self.place() = Some(place);
    }

    fn place(&self) -> MutexGuard<'_, Option<String>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said to a server about one connection holds for all that is done on it. What was acknowledged has to survive:
    /// a server that is told to forget that by default is told otherwise.
    async fn bound(&self, connection: &mut Connection) -> Result<(), Error> {
        let timeout = format!("{}ms", self.limits.statement_timeout.as_millis());
        sqlx::query(
            "SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $1, false), \
                    set_config('idle_in_transaction_session_timeout', $1, false), \
                    set_config('client_min_messages', 'warning', false), \
                    set_config('default_transaction_read_only', $2, false), \
                    CASE WHEN current_setting('synchronous_commit') = 'off' \
                         THEN set_config('synchronous_commit', 'on', false) END",
        )
        .bind(timeout)
        .bind(if self.only_looks { "on" } else { "off" })
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn ask(&self, connection: &mut Connection) -> Result<String, StoreError> {
        let row = sqlx::query(PLACE).fetch_one(connection).await?;
        if row.try_get("standby")? {
            return Err(StoreError::Unavailable("the server is a standby".into()));
        }
        Ok(row.try_get("place")?)
    }
}

/// An error in the only words that a pool knows.
fn refused(error: StoreError) -> Error {
    match error {
        StoreError::Unavailable(error) => Error::Configuration(error),
        error => Error::Configuration(error.into()),
    }
}
