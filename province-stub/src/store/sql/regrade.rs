//! How risky stays were, worked out anew after their area is listed otherwise: some at a time, since there may be many. And the end of
//! evidence: what has been over for long is forgotten, and with it whoever was known by nothing else.
//!
//! A stay whose risk rises counts as one that came now: it had not been known to be so risky when somebody set a code in spite of it.

use std::collections::BTreeSet;

use proto::time::UnixTime;
use sqlx::{QueryBuilder, Row as _};

use super::{
    Connection, Database, Row, intake, locks,
    rows::{self, optional_time, secs, time},
};
use crate::{evidence::Listing, store::StoreError};

/// A stay, and what it was graded.
struct Stay {
    id: i64,
    person: i64,
    span: (UnixTime, UnixTime),
    grade: i64,
}

/// Notes that an area's listings changed.
pub(super) async fn relist(connection: &mut Connection, area: i64, now: i64) -> Result<(), StoreError> {
    // Whoever has been looked at already is looked at once more, when the others have been.
    sqlx::query(
        "INSERT INTO relisted (area, after, again, since) VALUES ($1, 0, 0, $2) \
         ON CONFLICT (area) DO UPDATE SET again = 1",
    )
    .bind(area)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether stays wait for that.
pub(super) async fn is_due(connection: &mut Connection) -> Result<bool, StoreError> {
    let any: Option<i64> = sqlx::query_scalar("SELECT area FROM relisted LIMIT 1").fetch_optional(connection).await?;
    Ok(any.is_some())
}

/// Some of the stays in an area.
pub(super) const STAYS: &str =
    "SELECT id, person FROM evidence WHERE class = 3 AND detail = $1 AND id > $2 ORDER BY id LIMIT $3";
/// All listings of an area.
pub(super) const LISTINGS: &str = "SELECT detail, at, until, grade FROM evidence WHERE class = 6 AND detail = $1";

/// Grades some stays anew, of the area that waits for longest, and says of whom something has changed.
pub(super) async fn some(connection: &mut Connection, now: UnixTime, limit: u32) -> Result<Vec<i64>, StoreError> {
    let Some((area, after)) = locks::relisted(connection).await? else { return Ok(Vec::new()) };
    let page = sqlx::query(STAYS).bind(area).bind(after).bind(i64::from(limit)).fetch_all(&mut *connection).await?;
    let Some(last) = page.last().map(|row| row.try_get::<i64, _>("id")).transpose()? else {
        finish(connection, area, now).await?;
        return Ok(Vec::new());
    };
    let ids = page.iter().map(|row| row.try_get("id")).collect::<Result<Vec<i64>, _>>()?;
    let people = page.iter().map(|row| row.try_get("person")).collect::<Result<BTreeSet<i64>, _>>()?;
    let people: Vec<i64> = people.into_iter().collect();
    match locks::people(connection, &people).await {
        // Who was forgotten meanwhile has no stay any more.
        Ok(()) | Err(StoreError::PersonUnknown) => {}
        Err(error) => return Err(error),
    }
    let (listings, mut changed) = (listings(connection, area).await?, BTreeSet::new());
    for stay in stays(connection, &ids).await? {
        let grade = risk(&listings, stay.span);
        if grade != stay.grade {
            changed.insert(stay.person);
        }
        if grade > stay.grade {
            come_anew(connection, stay.id, grade, now).await?;
        } else if grade < stay.grade {
            let update = sqlx::query("UPDATE evidence SET grade = $1 WHERE id = $2");
            update.bind(grade).bind(stay.id).execute(&mut *connection).await?;
        }
    }
    sqlx::query("UPDATE relisted SET after = $1 WHERE area = $2").bind(last).bind(area).execute(connection).await?;
    Ok(changed.into_iter().collect())
}

/// All stays of an area have been looked at: it is done, or begins again behind all others.
async fn finish(connection: &mut Connection, area: i64, now: UnixTime) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM relisted WHERE area = $1 AND again = 0").bind(area).execute(&mut *connection).await?;
    sqlx::query("UPDATE relisted SET after = 0, again = 0, since = $1 WHERE area = $2")
        .bind(secs(now))
        .bind(area)
        .execute(connection)
        .await?;
    Ok(())
}

async fn listings(connection: &mut Connection, area: i64) -> Result<Vec<Listing>, StoreError> {
    let rows = sqlx::query(LISTINGS);
    rows.bind(area).fetch_all(connection).await?.iter().map(intake::read_listing).collect()
}

async fn stays(connection: &mut Connection, ids: &[i64]) -> Result<Vec<Stay>, StoreError> {
    let mut query = QueryBuilder::<Database>::new("SELECT id, person, at, until, grade FROM evidence WHERE id IN (");
    rows::list(&mut query, ids.iter().copied());
    let rows = query.push(")").build().fetch_all(connection).await?;
    let stay = |row: &Row| {
        let left_at = optional_time(row, "until")?.ok_or_else(|| rows::corrupt("until"))?;
        let (id, person, grade) = (row.try_get("id")?, row.try_get("person")?, row.try_get("grade")?);
        Ok(Stay { id, person, span: (time(row, "at")?, left_at), grade })
    };
    rows.iter().map(stay).collect()
}

/// The highest risk of an area at any time of a stay; 0 if it was not listed.
fn risk(listings: &[Listing], (entered, left): (UnixTime, UnixTime)) -> i64 {
    let meanwhile = listings.iter().filter(|listing| listing.is_amid(entered, left));
    meanwhile.map(|listing| listing.risk as i64).max().unwrap_or(0)
}

/// Puts a stay on file anew, with another grade and a later number.
async fn come_anew(connection: &mut Connection, id: i64, grade: i64, now: UnixTime) -> Result<(), StoreError> {
    let row = sqlx::query(
        "DELETE FROM evidence WHERE id = $1 RETURNING source, record, revision, person, class, at, until, detail, authority",
    );
    let Some(row) = row.bind(id).fetch_optional(&mut *connection).await? else { return Ok(()) };
    sqlx::query(
        "INSERT INTO evidence (source, record, revision, person, class, at, until, detail, authority, grade, received_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(row.try_get::<i64, _>("source")?)
    .bind(row.try_get::<String, _>("record")?)
    .bind(row.try_get::<i64, _>("revision")?)
    .bind(row.try_get::<Option<i64>, _>("person")?)
    .bind(row.try_get::<i64, _>("class")?)
    .bind(row.try_get::<i64, _>("at")?)
    .bind(row.try_get::<Option<i64>, _>("until")?)
    .bind(row.try_get::<i64, _>("detail")?)
    .bind(row.try_get::<Option<String>, _>("authority")?)
    .bind(grade)
    .bind(secs(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// Who is known by nothing but what evidence named them by, and of whom there is none any more.
const NOBODY: &str = "
    SELECT id FROM person WHERE base IS NULL AND reference IS NULL
    AND NOT EXISTS (SELECT 1 FROM evidence WHERE evidence.person = person.id)
    AND NOT EXISTS (SELECT 1 FROM device WHERE device.person = person.id)
    AND NOT EXISTS (SELECT 1 FROM consent WHERE consent.person = person.id) AND id IN (";

/// What names somebody who is forgotten with their last evidence.
const FORGET: [&str; 5] = [
    "UPDATE access SET person = NULL, device = NULL WHERE person IN (",
    "UPDATE operator_access SET person = NULL WHERE person IN (",
    "DELETE FROM request WHERE person IN (",
    "DELETE FROM code WHERE person IN (",
    "DELETE FROM person WHERE id IN (",
];

/// Forgets evidence that ended before a time, some rows at most. What goes on is kept: a case, a listing without an end; and
/// so are doses, which are never over. Whoever it was about is looked at again: a green that rested on it alone is none any more.
pub(super) async fn sweep(
    connection: &mut Connection,
    before: UnixTime,
    now: UnixTime,
    limit: i64,
) -> Result<u64, StoreError> {
    let rows = sqlx::query(
        "DELETE FROM evidence WHERE id IN (SELECT id FROM evidence \
         WHERE class <> 2 AND coalesce(until, at) < $1 AND NOT (class IN (4, 6) AND until IS NULL) LIMIT $2) RETURNING person",
    );
    let rows = rows.bind(secs(before)).bind(limit).fetch_all(&mut *connection).await?;
    let people = rows.iter().map(|row| row.try_get("person")).collect::<Result<BTreeSet<Option<i64>>, _>>()?;
    let people: Vec<i64> = people.into_iter().flatten().collect();
    if people.is_empty() {
        return Ok(rows.len() as u64);
    }
    let mut query = QueryBuilder::<Database>::new("UPDATE person SET due_at = ");
    query.push_bind(secs(now)).push(" WHERE (due_at IS NULL OR due_at > ").push_bind(secs(now)).push(") AND id IN (");
    rows::list(&mut query, people.iter().copied());
    query.push(")").build().execute(&mut *connection).await?;
    let mut query = QueryBuilder::<Database>::new(NOBODY);
    rows::list(&mut query, people);
    let nobody: Vec<i64> = query.push(")").build_query_scalar().fetch_all(&mut *connection).await?;
    if !nobody.is_empty() {
        for statement in FORGET {
            let mut query = QueryBuilder::<Database>::new(statement);
            rows::list(&mut query, nobody.iter().copied());
            query.push(")").build().execute(&mut *connection).await?;
        }
    }
    Ok(rows.len() as u64)
}
