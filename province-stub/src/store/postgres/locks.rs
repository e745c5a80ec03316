//! Who waits for whom: the order is at the head of [`super`].

use proto::suite::sha256;

use super::Connection;
use crate::store::{PersonId, StoreError};

/// Keeps others from changing what is about a person, until the transaction ends. Rows that merely name the person, access
/// records, may still be added.
pub(super) async fn person(connection: &mut Connection, person: PersonId) -> Result<(), StoreError> {
    people(connection, &[person.0]).await
}

/// The same for whoever is about to be forgotten: nothing may begin to name them either.
pub(super) async fn person_to_forget(connection: &mut Connection, person: PersonId) -> Result<(), StoreError> {
    let known = sqlx::query("SELECT 1 FROM person WHERE id = $1 FOR UPDATE").bind(person.0);
    known.fetch_optional(connection).await?.ok_or(StoreError::PersonUnknown)?;
    Ok(())
}

/// The same as for one for many, in ascending order. Whoever is not there is unknown.
pub(super) async fn people(connection: &mut Connection, people: &[i64]) -> Result<(), StoreError> {
    let known = sqlx::query("SELECT 1 FROM person WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE").bind(people);
    let known = known.fetch_all(connection).await?.len();
    if known == people.len() { Ok(()) } else { Err(StoreError::PersonUnknown) }
}

/// Waits for whoever is giving numbers, and keeps others from it, until the transaction ends.
pub(super) async fn log_head(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query("SELECT 1 FROM log_head FOR UPDATE").execute(connection).await?;
    Ok(())
}

/// An area that is listed otherwise now, and the last stay there that has been looked at. Others take another one.
pub(super) async fn relisted(connection: &mut Connection) -> Result<Option<(i64, i64)>, StoreError> {
    let area = sqlx::query_as("SELECT area, after FROM relisted ORDER BY area LIMIT 1 FOR UPDATE SKIP LOCKED");
    Ok(area.fetch_optional(connection).await?)
}

/// Keeps others from looking whether these values are there, and finding that they are not, until the transaction ends. Two
/// values may share a lock: that is a wait for nothing, and no more.
pub(super) async fn values(connection: &mut Connection, values: &[impl AsRef<[u8]>]) -> Result<(), StoreError> {
    let lock = |value: &_| {
        let [a, b, c, d, e, f, g, h, ..] = sha256(AsRef::<[u8]>::as_ref(value));
        i64::from_be_bytes([a, b, c, d, e, f, g, h])
    };
    let mut locks: Vec<i64> = values.iter().map(lock).collect();
    locks.sort_unstable();
    for lock in locks {
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(lock).execute(&mut *connection).await?;
    }
    Ok(())
}
