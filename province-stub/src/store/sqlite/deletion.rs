//! Forgetting a traveler: all that the store has of them, and what of it is left in its files.
//!
//! Upholds I4: the revocations are events of the transaction that forgets the consents.

use proto::{random::Random, time::UnixTime};
use sqlx::{Row as _, SqliteConnection, SqlitePool};
use tracing::{info, warn};

use super::{changes, codes, people};
use crate::store::{ChangeKind, DeviceId, Forgotten, StoreError};

/// What speaks of a person, in an order in which nothing names what is gone already. Access records stay as they are and no
/// longer lead to anybody; so does another person's consent that was issued to one of these devices.
const FORGET: [&str; 10] = [
    "UPDATE access SET person = NULL, device = NULL WHERE person = ?",
    "UPDATE consent SET device = NULL WHERE device IN (SELECT id FROM device WHERE person = ?1) AND person <> ?1",
    "DELETE FROM request WHERE person = ?",
    "DELETE FROM consent WHERE person = ?",
    "DELETE FROM device WHERE person = ?",
    "DELETE FROM code WHERE person = ?",
    "DELETE FROM test WHERE person = ?",
    "DELETE FROM dose WHERE person = ?",
    "DELETE FROM visit WHERE person = ?",
    "DELETE FROM person WHERE id = ?",
];

/// Forgets the person of a device.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    device: DeviceId,
    now: UnixTime,
    random: &dyn Random,
) -> Result<Forgotten, StoreError> {
    let person = people::device(connection, device).await?.person;
    let honoured = codes::honoured(connection, person, now).await?;
    let revoked = honoured.len() as u32;
    let head = changes::append(connection, honoured, ChangeKind::Revoked, now, random).await?;
    let by_hand = sqlx::query_scalar("SELECT count(*) FROM code WHERE person = ? AND by_hand");
    let by_hand = by_hand.bind(person.0).fetch_one(&mut *connection).await?;
    for statement in FORGET {
        sqlx::query(statement).bind(person.0).execute(&mut *connection).await?;
    }
    Ok(Forgotten { head, revoked, by_hand })
}

/// Empties the write-ahead log, in which pages from before still lie. A reader in the middle of something can keep it from
/// that for a moment; then the next sweep does it. The traveler is forgotten either way.
pub(super) async fn empty_log(writer: &SqlitePool) {
    let emptied = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(writer).await;
    match emptied.and_then(|row| row.try_get::<i64, _>("busy")) {
        Ok(0) => {}
        Ok(_) => info!("the write-ahead log is in use: what was forgotten leaves it with the next sweep"),
        Err(error) => warn!(%error, "what was forgotten is still in the write-ahead log"),
    }
}
