//! People and their devices.

use proto::{
    statement::Authority,
    suite::{Suite, VerifyingKey},
};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, query_builder::Separated};

use super::{
    codes,
    rows::{corrupt, secs},
};
use crate::{
    document::Document,
    store::{Device, DeviceId, Name, NewDevice, NewPerson, PersonId, StoreError},
};

/// Rows of one INSERT, well below SQLite's bound on parameters.
const ROWS: usize = 500;
/// In whose name seeded codes stand.
const SEED: &str = "seed";

/// A person and their name, found by document.
pub(super) async fn by_document(
    connection: &mut SqliteConnection,
    document: &Document,
) -> Result<Option<(PersonId, String)>, StoreError> {
    let row = sqlx::query("SELECT id, name FROM person WHERE document_type = ? AND document_number = ?")
        .bind(document.kind().number())
        .bind(document.number())
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((PersonId(row.try_get("id")?), row.try_get("name")?))).transpose()
}

/// Adds a person; `None` if the document is known already.
async fn add(
    connection: &mut SqliteConnection,
    document: &Document,
    name: &Name,
) -> Result<Option<PersonId>, StoreError> {
    let row = sqlx::query(
        "INSERT INTO person (document_type, document_number, name) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(document.kind().number())
    .bind(document.number())
    .bind(name.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok(PersonId(row.try_get("id")?))).transpose()
}

/// Binds a device to its person.
pub(super) async fn enroll(
    connection: &mut SqliteConnection,
    device: &NewDevice,
    limit: u32,
) -> Result<PersonId, StoreError> {
    let person = match by_document(connection, &device.document).await? {
        Some((_, name)) if name != device.name.as_str() => return Err(StoreError::NameDiffers),
        Some((person, _)) => person,
        None => {
            // One writer: what was not there a statement ago is not there now.
            add(connection, &device.document, &device.name).await?.ok_or_else(|| corrupt("document_number"))?
        }
    };
    check_key_is_new(connection, &device.enrollment_key).await?;
    let devices: u32 = sqlx::query_scalar("SELECT count(*) FROM device WHERE person = ?")
        .bind(person.0)
        .fetch_one(&mut *connection)
        .await?;
    if devices >= limit {
        return Err(StoreError::TooManyDevices(limit));
    }
    sqlx::query("INSERT INTO device (id, person, enrollment_key, enrolled_at) VALUES (?, ?, ?, ?)")
        .bind(device.id.0.as_slice())
        .bind(person.0)
        .bind(device.enrollment_key.encoded())
        .bind(secs(device.now))
        .execute(connection)
        .await?;
    Ok(person)
}

/// Refuses a key that enrolled before or that a token names: it would link what random handles unlink (I6).
pub(super) async fn check_key_is_new(connection: &mut SqliteConnection, key: &VerifyingKey) -> Result<(), StoreError> {
    let known: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM device WHERE enrollment_key = ?1) \
             OR EXISTS (SELECT 1 FROM consent WHERE token_key = ?1)",
    )
    .bind(key.encoded())
    .fetch_one(connection)
    .await?;
    if known { Err(StoreError::KeyReused) } else { Ok(()) }
}

/// An enrolled device.
pub(super) async fn device(connection: &mut SqliteConnection, id: DeviceId) -> Result<Device, StoreError> {
    let row = sqlx::query("SELECT person, enrollment_key FROM device WHERE id = ?")
        .bind(id.0.as_slice())
        .fetch_optional(connection)
        .await?
        .ok_or(StoreError::DeviceUnknown)?;
    let key = VerifyingKey::new(Suite::Esp256, row.try_get("enrollment_key")?);
    Ok(Device { person: PersonId(row.try_get("person")?), enrollment_key: key.map_err(|_| corrupt("enrollment_key"))? })
}

/// Adds people with all that is known of them; whom the store has stays untouched.
pub(super) async fn seed(connection: &mut SqliteConnection, people: &[NewPerson]) -> Result<u32, StoreError> {
    let mut added = Vec::new();
    for person in people {
        if let Some(id) = add(connection, &person.document, &person.name).await? {
            added.push((id.0, person));
        }
    }
    let codes: Vec<_> = added.iter().filter_map(|(id, person)| Some((*id, person.code.as_ref()?))).collect();
    insert(connection, codes::INSERT_SEEDED, &codes, |row, (id, code)| {
        row.push_bind(*id).push_bind(code.label.clone()).push_bind(code.rule.clone());
        row.push_bind(code.authority.as_ref().map(Authority::to_string));
        row.push_bind(secs(code.assigned_at)).push_bind(secs(code.assigned_at)).push_bind(false).push_bind(SEED);
    })
    .await?;
    let tests = evidence(&added, |person| &person.tests);
    insert(connection, "INSERT INTO test (person, sampled_at, positive) ", &tests, |row, (id, test)| {
        row.push_bind(*id).push_bind(secs(test.sampled_at)).push_bind(test.positive);
    })
    .await?;
    let doses = evidence(&added, |person| &person.doses);
    insert(connection, "INSERT INTO dose (person, number, given_at) ", &doses, |row, (id, dose)| {
        row.push_bind(*id).push_bind(dose.number).push_bind(secs(dose.given_at));
    })
    .await?;
    let visits = evidence(&added, |person| &person.visits);
    insert(connection, "INSERT INTO visit (person, area, high, left_at) ", &visits, |row, (id, visit)| {
        row.push_bind(*id).push_bind(visit.area).push_bind(visit.high).push_bind(secs(visit.left_at));
    })
    .await?;
    Ok(added.len() as u32)
}

/// Each piece of evidence with its person.
fn evidence<'p, T>(people: &[(i64, &'p NewPerson)], of: impl Fn(&'p NewPerson) -> &'p Vec<T>) -> Vec<(i64, &'p T)> {
    people.iter().flat_map(|(id, person)| of(person).iter().map(|item| (*id, item))).collect()
}

/// Inserts many rows, some hundred a statement.
async fn insert<T>(
    connection: &mut SqliteConnection,
    statement: &'static str,
    rows: &[T],
    bind: impl Fn(&mut Separated<'_, Sqlite, &'static str>, &T),
) -> Result<(), StoreError> {
    for rows in rows.chunks(ROWS) {
        QueryBuilder::<Sqlite>::new(statement)
            .push_values(rows, |mut row, item| bind(&mut row, item))
            .build()
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
