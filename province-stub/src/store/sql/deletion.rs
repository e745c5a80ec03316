//! Forgetting a traveler: all that the store has of them.
//!
//! Upholds I4: the revocations are events of the transaction that forgets the consents.

use proto::{random::Random, time::UnixTime};

use super::{Connection, changes, codes, locks, people};
use crate::store::{ChangeKind, DeviceId, Forgotten, StoreError};

/// What speaks of a person, in an order in which nothing names what is gone already. Access records stay as they are and no
/// longer lead to anybody; so does another person's consent that was issued to one of these devices.
const FORGET: [&str; 9] = [
    "UPDATE access SET person = NULL, device = NULL WHERE person = $1",
    "UPDATE operator_access SET person = NULL WHERE person = $1",
    "UPDATE consent SET device = NULL WHERE device IN (SELECT id FROM device WHERE person = $1) AND person <> $1",
    "DELETE FROM request WHERE person = $1",
    "DELETE FROM consent WHERE person = $1",
    "DELETE FROM device WHERE person = $1",
    "DELETE FROM code WHERE person = $1",
    "DELETE FROM evidence WHERE person = $1",
    "DELETE FROM person WHERE id = $1",
];

/// Forgets the person of a device.
pub(super) async fn forget(
    connection: &mut Connection,
    device: DeviceId,
    now: UnixTime,
    random: &dyn Random,
) -> Result<Forgotten, StoreError> {
    let person = people::device(connection, device).await?.person;
    // Who was forgotten meanwhile has no device any more.
    locks::person_to_forget(connection, person).await?;
    let honoured = codes::honoured(connection, person, now).await?;
    let revoked = honoured.len() as u32;
    let by_hand: i64 = sqlx::query_scalar("SELECT count(*) FROM code WHERE person = $1 AND source = 'hand'")
        .bind(person.0)
        .fetch_one(&mut *connection)
        .await?;
    for statement in FORGET {
        sqlx::query(statement).bind(person.0).execute(&mut *connection).await?;
    }
    let head = changes::append(connection, honoured, ChangeKind::Revoked, now, random).await?;
    Ok(Forgotten { head, revoked, by_hand: by_hand as u32 })
}
