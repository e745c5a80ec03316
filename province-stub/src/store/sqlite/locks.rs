//! Who waits for whom: nobody here. The one writer has the whole database to itself from its first statement on.

use std::collections::BTreeMap;

use super::Connection;
use crate::store::{PersonId, StoreError};

/// Keeps others from changing what is about a person.
pub(super) async fn person(connection: &mut Connection, person: PersonId) -> Result<(), StoreError> {
    people(connection, &[person.0]).await
}

/// The same for whoever is about to be forgotten.
pub(super) async fn person_to_forget(connection: &mut Connection, person: PersonId) -> Result<(), StoreError> {
    people(connection, &[person.0]).await
}

/// The same for many, in ascending order. Whoever is not there is unknown.
pub(super) async fn people(connection: &mut Connection, people: &[i64]) -> Result<(), StoreError> {
    for person in people {
        let known = sqlx::query("SELECT 1 FROM person WHERE id = $1").bind(person);
        known.fetch_optional(&mut *connection).await?.ok_or(StoreError::PersonUnknown)?;
    }
    Ok(())
}

/// An area that is listed otherwise now, and the last stay there that has been looked at. Others take another one.
pub(super) async fn relisted(connection: &mut Connection) -> Result<Option<(i64, i64)>, StoreError> {
    let area = sqlx::query_as("SELECT area, after FROM relisted ORDER BY since, area LIMIT 1");
    Ok(area.fetch_optional(connection).await?)
}

/// Keeps others from changing what is about these areas: stays, or where it says so listings, which are for all stays.
pub(super) async fn areas(_: &mut Connection, _: &BTreeMap<i64, bool>) -> Result<(), StoreError> {
    Ok(())
}

/// Waits for whoever is giving numbers.
pub(super) async fn log_head(_: &mut Connection) -> Result<(), StoreError> {
    Ok(())
}

/// Keeps others from looking whether these values are there, and finding that they are not.
pub(super) async fn values(_: &mut Connection, _: &[impl AsRef<[u8]>]) -> Result<(), StoreError> {
    Ok(())
}
