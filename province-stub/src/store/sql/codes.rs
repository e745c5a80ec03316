//! Codes: the history of a person's assignments, the last of which holds.
//!
//! Upholds I4: a new status and one event per consent that may still be honoured are one transaction.

use proto::{random::Random, statement::Authority, time::UnixTime, token::Cti};
use sqlx::Row as _;

use super::{
    Connection, Row, assessment, changes, locks, people, rest,
    rows::{bytes, corrupt, secs, time},
};
use crate::{
    store::{Assigned, ChangeKind, Code, HONOURED_AFTER_EXPIRY, NewAssignment, PersonId, StoreError},
    vault::{Sealed, Vault},
};

/// Assigns a code by hand, and says to whom.
pub(super) async fn set(
    connection: &mut Connection,
    vault: &Vault,
    request_id: &str,
    assignment: &NewAssignment,
    random: &dyn Random,
) -> Result<(PersonId, Assigned), StoreError> {
    let person = people::by_document(connection, vault, &assignment.document).await?;
    let person = person.ok_or(StoreError::PersonUnknown)?;
    locks::person(connection, person).await?;
    let held = current(connection, person).await?.filter(|code| says_the_same(code, assignment));
    let assigned_at = held.as_ref().map_or(assignment.now, |code| code.assigned_at);
    record(connection, vault, request_id, person, assignment, assigned_at).await?;
    assessment::retire(connection, &[person.0], assignment.now).await?;
    let affected = match held {
        Some(_) => Vec::new(),
        None => honoured(connection, person, assignment.now).await?,
    };
    let changed = affected.len() as u32;
    let head = changes::append(connection, affected, ChangeKind::Status, assignment.now, random).await?;
    Ok((person, Assigned { assigned_at, head, changed }))
}

/// A code from a row of `label`, `rule`, `authority` and `assigned_at`; `None` if the person has none, or has it no more.
pub(super) fn read(row: &Row) -> Result<Option<Code>, StoreError> {
    let Some(label) = row.try_get("label")? else { return Ok(None) };
    let authority = row.try_get::<Option<&str>, _>("authority")?.map(str::parse).transpose();
    let authority = authority.map_err(|_| corrupt("authority"))?;
    Ok(Some(Code { label, rule: row.try_get("rule")?, authority, assigned_at: time(row, "assigned_at")? }))
}

async fn current(connection: &mut Connection, person: PersonId) -> Result<Option<Code>, StoreError> {
    let row = sqlx::query(
        "SELECT label, rule, authority, assigned_at FROM code WHERE id = (SELECT code FROM person WHERE id = $1)",
    )
    .bind(person.0)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map_or(Ok(None), read)
}

fn says_the_same(code: &Code, assignment: &NewAssignment) -> bool {
    code.label == assignment.label
        && code.rule.as_ref() == Some(&assignment.rule)
        && code.authority.as_ref() == Some(&assignment.authority)
}

async fn record(
    connection: &mut Connection,
    vault: &Vault,
    request_id: &str,
    person: PersonId,
    assignment: &NewAssignment,
    assigned_at: UnixTime,
) -> Result<(), StoreError> {
    let key = rest::current(connection, vault).await?;
    let place = rest::code_place(person, assignment.now, request_id);
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO code (person, label, rule, authority, assigned_at, recorded_at, source, set_by, request_id, \
         justification, key, covers) VALUES ($1, $2, $3, $4, $5, $6, 'hand', $7, $8, $9, $10, \
         (SELECT coalesce(max(id), 0) FROM evidence WHERE person = $1)) RETURNING id",
    )
    .bind(person.0)
    .bind(&assignment.label)
    .bind(&assignment.rule)
    .bind(Authority::to_string(&assignment.authority))
    .bind(secs(assigned_at))
    .bind(secs(assignment.now))
    .bind(&assignment.set_by)
    .bind(request_id)
    .bind(vault.seal(Sealed::Justification, &place, assignment.justification.as_bytes()))
    .bind(key)
    .fetch_one(&mut *connection)
    .await?;
    // It covers all that is on file: nothing of that changes it any more, not by time either.
    sqlx::query("UPDATE person SET code = $1, base = $1, due_at = NULL WHERE id = $2")
        .bind(id)
        .bind(person.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// The person's consents that somebody may still honour.
pub(super) async fn honoured(
    connection: &mut Connection,
    person: PersonId,
    now: UnixTime,
) -> Result<Vec<Cti>, StoreError> {
    let rows = sqlx::query("SELECT cti FROM consent WHERE person = $1 AND revoked_at IS NULL AND expires_at > $2")
        .bind(person.0)
        .bind(secs(now.minus(HONOURED_AFTER_EXPIRY)))
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok(Cti(bytes(row, "cti")?))).collect()
}
