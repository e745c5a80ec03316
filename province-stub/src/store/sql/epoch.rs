//! The change log's epoch, new after any restore (DESIGN §7): numbers given after one may mean other events than before,
//! so whoever held a position in the old log must learn that it is worth nothing (I4).
//!
//! Two things tell that a database is an older copy of itself. One that was put back is in another place: the database
//! remembers where it was, as its backend tells places apart. And what was put into the same place from within is behind the
//! [`Witness`] beside it. A machine that was rolled back as a whole has nothing beside it: whoever does that says so with
//! `province-stub new-epoch`, and a gateway that sees the head go backwards says so too.
//!
//! Several programs may share a database, each with a witness of its own. What one of them found out the others need not
//! find out again: an epoch that began after the one they noted last says all that they would say.

use proto::{random::Random, statement::LogHead};
use sqlx::Row as _;
use tracing::warn;

use super::{Connection, changes, locks};
use crate::store::{StoreError, witness::Witness};

/// Gives a new log its epoch, and an old one another if its database was restored.
pub(in super::super) async fn settle(
    connection: &mut Connection,
    place: &[u8],
    witness: &Witness,
    random: &dyn Random,
) -> Result<(), StoreError> {
    let fresh = proto::random::bytes(random);
    changes::found(connection, fresh).await?;
    // What is noted is committed by then, or never will be.
    locks::log_head(connection).await?;
    let row = sqlx::query("SELECT epoch, seq, previous, place FROM log_head").fetch_one(&mut *connection).await?;
    let moved = row.try_get::<Option<&[u8]>, _>("place")?.is_some_and(|known| known != place);
    let (head, previous) = (changes::read_head(&row)?, row.try_get::<Option<&[u8]>, _>("previous")?);
    let behind = witness.told().is_some_and(|told| {
        let known = told.epoch == head.epoch && told.seq <= head.seq;
        !known && previous != Some(told.epoch.as_slice())
    });
    if moved || behind {
        warn!(moved, behind, "the database was restored or moved: its change log begins a new epoch");
        begin(connection, &fresh).await?;
    }
    sqlx::query("UPDATE log_head SET place = $1").bind(place).execute(connection).await?;
    Ok(())
}

/// Begins a new epoch, whatever stands.
pub(super) async fn renew(connection: &mut Connection, random: &dyn Random) -> Result<LogHead, StoreError> {
    begin(connection, &proto::random::bytes(random)).await?;
    changes::head(connection).await
}

async fn begin(connection: &mut Connection, epoch: &[u8; 16]) -> Result<(), StoreError> {
    sqlx::query("UPDATE log_head SET previous = epoch, epoch = $1").bind(epoch.as_slice()).execute(connection).await?;
    Ok(())
}
