//! A connection out of the pool, and its way back, which is bounded: a server that stopped answering keeps no place.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{Executor as _, PgConnection, Postgres, SqlSafeStr as _, pool::PoolConnection};
use tokio::{runtime::Handle, time::timeout};

use crate::store::StoreError;

/// How long a connection has to become free again. After that it is broken off, and the server ends what was under way.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(2);

/// A connection that is somebody's for a while, or a transaction on one.
pub(super) struct Lease {
    /// There until it is dropped.
    connection: Option<PoolConnection<Postgres>>,
    open: bool,
}

impl Lease {
    pub(super) fn new(connection: PoolConnection<Postgres>) -> Self {
        Self { connection: Some(connection), open: false }
    }

    /// Begins a transaction, as the statement says.
    pub(super) async fn begin(mut self, statement: &'static str) -> Result<Self, StoreError> {
        // Even if nobody waits for the answer any more.
        self.open = true;
        (*self).execute(statement.into_sql_str()).await?;
        Ok(self)
    }

    /// Commits it.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        (*self).execute("COMMIT".into_sql_str()).await?;
        self.open = false;
        Ok(())
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    /// # Panics
    /// Never: a lease has its connection until it is dropped.
    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("a lease has a connection")
    }
}

impl DerefMut for Lease {
    /// # Panics
    /// Never: a lease has its connection until it is dropped.
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("a lease has a connection")
    }
}

impl Drop for Lease {
    /// Rolls back what was not committed, and gives the connection back, as soon as what is under way on it is over.
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let Ok(runtime) = Handle::try_current() else {
            drop(connection.detach());
            return;
        };
        let open = self.open;
        runtime.spawn(async move {
            let settled = timeout(GIVE_BACK_WITHIN, async {
                if open {
                    connection.execute("ROLLBACK").await?;
                }
                connection.return_to_pool().await;
                Ok::<_, sqlx::Error>(connection)
            });
            let _ = settled.await;
        });
    }
}
