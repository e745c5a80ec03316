//! Who waits for whom: the order is at the head of [`super`].

use proto::suite::sha256;

use std::collections::BTreeMap;

use super::Connection;
use crate::store::{PersonId, StoreError};

/// The first half of areas' advisory locks; the second is the area.
const AREAS: i32 = 1;
/// Areas that are tried at once: others of this member's nodes may be at the first ones.
const TRIED: i64 = 8;

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
    let waiting = sqlx::query_scalar("SELECT area FROM relisted ORDER BY since, area LIMIT $1");
    let waiting: Vec<i64> = waiting.bind(TRIED).fetch_all(&mut *connection).await?;
    for area in waiting {
        let mine: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, $2)")
            .bind(AREAS)
            .bind(area as i32)
            .fetch_one(&mut *connection)
            .await?;
        if mine {
            let still = sqlx::query_as("SELECT area, after FROM relisted WHERE area = $1").bind(area);
            return Ok(still.fetch_optional(connection).await?);
        }
    }
    Ok(None)
}

/// Keeps others from changing what is about these areas, until the transaction ends: whoever says something of stays shares an area with
/// others who do, whoever says something of listings has it alone. Before people: see the head of [`super`].
pub(super) async fn areas(connection: &mut Connection, areas: &BTreeMap<i64, bool>) -> Result<(), StoreError> {
    for (area, alone) in areas {
        let lock =
            if *alone { "SELECT pg_advisory_xact_lock($1, $2)" } else { "SELECT pg_advisory_xact_lock_shared($1, $2)" };
        sqlx::query(lock).bind(AREAS).bind(*area as i32).execute(&mut *connection).await?;
    }
    Ok(())
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
