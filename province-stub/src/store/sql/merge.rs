//! Two that are one: a laboratory has named somebody by their document, the member's platform has pushed codes by its own reference, and
//! a device says that both are the same person.
//!
//! What the platform said, and what came by its reference, goes to the one with the document, in the order in which it came. The code
//! that follows is worked out at the next occasion, which is at once.

use proto::time::UnixTime;
use sqlx::Row as _;

use super::{
    Connection,
    assessment::{self, AT_ONCE},
    locks, people, rest,
    rows::{secs, time},
};
use crate::{
    store::{PersonId, StoreError},
    vault::{Sealed, Vault},
};

/// Makes one of both: `from`, whom the platform alone has named, is no more.
///
/// # Errors
/// REFERENCE_DIFFERS if `from` is another person's, or `into` has a reference already.
pub(super) async fn merge(
    connection: &mut Connection,
    vault: &Vault,
    into: PersonId,
    from: PersonId,
    now: UnixTime,
) -> Result<(), StoreError> {
    locks::people(connection, &[into.0.min(from.0), into.0.max(from.0)]).await?;
    let (kept, gone) = (people::named(connection, vault, into).await?, people::named(connection, vault, from).await?);
    if gone.document.is_some() || kept.reference.is_some() {
        return Err(StoreError::ReferenceDiffers);
    }
    let (held, pushed) = (base(connection, into).await?, base(connection, from).await?);
    let base = match (&held, &pushed) {
        // As if the platform had known who they are all along: what was set by hand after its word stands.
        (Some(held), Some(pushed)) if held.by_hand && held.assigned_at > pushed.assigned_at => Some(held.id),
        (_, Some(pushed)) => Some(pushed.id),
        (held, None) => held.as_ref().map(|held| held.id),
    };
    reseal(connection, vault, into, from).await?;
    for table in ["UPDATE code SET person = $1 WHERE person = $2", "UPDATE evidence SET person = $1 WHERE person = $2"]
    {
        sqlx::query(table).bind(into.0).bind(from.0).execute(&mut *connection).await?;
    }
    sqlx::query("DELETE FROM person WHERE id = $1").bind(from.0).execute(&mut *connection).await?;
    // What was on file by then, under either name, is what the base stands over. What came within its second counts beside it.
    sqlx::query(
        "UPDATE code SET covers = (SELECT coalesce(max(evidence.id), 0) FROM evidence WHERE evidence.person = $1 \
         AND (evidence.id <= code.covers OR CASE code.source WHEN 'platform' THEN evidence.received_at <= code.assigned_at \
         ELSE evidence.received_at < code.recorded_at END)) WHERE id = $2",
    )
    .bind(into.0)
    .bind(base)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE person SET base = $1, due_at = $2 WHERE id = $3")
        .bind(base)
        .bind(secs(AT_ONCE))
        .bind(into.0)
        .execute(&mut *connection)
        .await?;
    assessment::retire(connection, &[into.0], now).await
}

/// An assignment that stands whatever the evidence said by then.
struct Base {
    id: i64,
    by_hand: bool,
    assigned_at: UnixTime,
}

async fn base(connection: &mut Connection, person: PersonId) -> Result<Option<Base>, StoreError> {
    let row = sqlx::query(
        "SELECT code.id, code.source, code.assigned_at FROM person JOIN code ON code.id = person.base WHERE person.id = $1",
    );
    let Some(row) = row.bind(person.0).fetch_optional(connection).await? else { return Ok(None) };
    let by_hand = row.try_get::<&str, _>("source")? == "hand";
    Ok(Some(Base { id: row.try_get("id")?, by_hand, assigned_at: time(&row, "assigned_at")? }))
}

/// What is sealed of an assignment is bound to whose it is.
async fn reseal(connection: &mut Connection, vault: &Vault, into: PersonId, from: PersonId) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "SELECT code.id, recorded_at, request_id, justification, fingerprint FROM code \
         JOIN rest_key ON rest_key.id = code.key WHERE person = $1 AND justification IS NOT NULL",
    );
    let rows = rows.bind(from.0).fetch_all(&mut *connection).await?;
    let current = rest::current(connection, vault).await?;
    for row in &rows {
        let (recorded_at, request_id) = (time(row, "recorded_at")?, row.try_get::<Option<&str>, _>("request_id")?);
        let place = |person| rest::code_place(person, recorded_at, request_id.unwrap_or_default());
        let text = rest::open_text(vault, Sealed::Justification, &place(from), row, "justification")?;
        let sealed = vault.seal(Sealed::Justification, &place(into), text.unwrap_or_default().as_bytes());
        let update = sqlx::query("UPDATE code SET justification = $1, key = $2 WHERE id = $3");
        let update = update.bind(sealed).bind(current).bind(row.try_get::<i64, _>("id")?);
        update.execute(&mut *connection).await?;
    }
    Ok(())
}
