//! Two people on file who turn out to be one: a feed has named them by document, the member's own platform by reference, and a device
//! says both.
//!
//! Upholds I4: whoever is joined is due at once, so that no lookup tells what was known of one half alone. Whom the platform alone has
//! named has no device, no consent and no access record.

use proto::time::UnixTime;
use sqlx::Row as _;

use super::{
    Connection, locks, people, rest,
    rows::{secs, time},
};
use crate::{
    store::{PersonId, StoreError},
    vault::{Sealed, Vault},
};

/// What was on file under a reference is this person's from now on.
///
/// # Errors
/// If the reference is of somebody with a document of their own, or this person has another reference.
pub(super) async fn join(
    connection: &mut Connection,
    vault: &Vault,
    person: PersonId,
    referred: PersonId,
    now: UnixTime,
) -> Result<(), StoreError> {
    let mut both = [person.0, referred.0];
    both.sort_unstable();
    locks::people(connection, &both).await?;
    let known = people::named(connection, vault, person).await?;
    let other = people::named(connection, vault, referred).await?;
    if known.reference.is_some() || other.document.is_some() {
        return Err(StoreError::ReferenceDiffers);
    }
    move_codes(connection, vault, person, referred).await?;
    sqlx::query("UPDATE evidence SET person = $1 WHERE person = $2")
        .bind(person.0)
        .bind(referred.0)
        .execute(&mut *connection)
        .await?;
    // The platform's word stands, but not over a hand's.
    sqlx::query(
        "UPDATE person SET due_at = $1, base = CASE \
         WHEN EXISTS (SELECT 1 FROM code WHERE code.id = person.base AND code.source = 'hand') THEN base \
         ELSE coalesce((SELECT referred.base FROM person AS referred WHERE referred.id = $2), base) END WHERE id = $3",
    )
    .bind(secs(now))
    .bind(referred.0)
    .bind(person.0)
    .execute(&mut *connection)
    .await?;
    // It covers what was on file about either when it was decided.
    sqlx::query(
        "UPDATE code SET covers = (SELECT coalesce(max(id), 0) FROM evidence WHERE evidence.person = code.person \
         AND received_at <= code.assigned_at) WHERE source = 'platform' \
         AND id = (SELECT base FROM person WHERE person.id = $1)",
    )
    .bind(person.0)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM person WHERE id = $1").bind(referred.0).execute(connection).await?;
    Ok(())
}

/// Whose a justification is, is sealed in with it.
async fn move_codes(
    connection: &mut Connection,
    vault: &Vault,
    person: PersonId,
    referred: PersonId,
) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "SELECT code.id, recorded_at, request_id, justification, fingerprint FROM code \
         LEFT JOIN rest_key ON rest_key.id = code.key WHERE person = $1",
    );
    let key = rest::current(connection, vault).await?;
    for row in rows.bind(referred.0).fetch_all(&mut *connection).await? {
        let recorded_at = time(&row, "recorded_at")?;
        let request_id = row.try_get::<Option<&str>, _>("request_id")?.unwrap_or_default();
        let place = |person| rest::code_place(person, recorded_at, request_id);
        let said = rest::open_text(vault, Sealed::Justification, &place(referred), &row, "justification")?;
        let sealed = said.map(|said| vault.seal(Sealed::Justification, &place(person), said.as_bytes()));
        sqlx::query("UPDATE code SET person = $1, justification = $2, key = $3 WHERE id = $4")
            .bind(person.0)
            .bind(&sealed)
            .bind(sealed.is_some().then_some(key))
            .bind(row.try_get::<i64, _>("id")?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
