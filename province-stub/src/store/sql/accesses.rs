//! The access log: delivered records, byte for byte, each bound to whose consent it was; and the Merkle trees that hold the
//! gateway to them.
//!
//! Upholds I2 at home's end: records and the tree over them are one transaction, and none is ever written over.

use proto::{
    log::{
        LogId,
        merkle::{Frontier, Hash, leaf_hash},
        record::Entry,
    },
    time::UnixTime,
};
use sqlx::{QueryBuilder, Row as _, query::Query};
use tracing::error;

use super::{
    Backend, Connection, Database, Row, locks,
    rows::{bytes, corrupt, int, secs, time, uint},
};
use crate::store::{
    DeviceId, PersonId, StoreError,
    access_log::{
        Accepted, AccessKey, Bound, Conflict, Delivered, Delivery, Evidence, HeldLog, LogOnFile, MAX_EVIDENCE,
        NewAccess, RecordOnFile, TravelerAccess,
    },
};

type Arguments = <Database as sqlx::Database>::Arguments;

/// Rows of one INSERT: as many as pay, in a statement that is prepared once.
const ROWS: usize = 250;
/// Records that are read at once.
const PAGE: i64 = 1_000;

/// Takes in a delivery. `None` if it is no history with what is held, which nobody has yet found to be as it was taken in:
/// [`is_sound`] tells, and then `sound` is said. What is on file as a conflict already need not be asked again.
pub(super) async fn record(
    connection: &mut Connection,
    delivery: &Delivery,
    sound: bool,
) -> Result<Option<Delivered>, StoreError> {
    locks::values(connection, &[delivery.log.0]).await?;
    let (mut id, mut held) = open(connection, delivery).await?;
    let on_file = repeated(connection, id, &held, delivery).await?;
    let followed = held.beyond_gap(delivery).and_then(|beyond| {
        let (after, new) = beyond.as_ref().unwrap_or(&held).followed_by(delivery, &on_file)?;
        Ok((beyond, after, new))
    });
    let (beyond, after, new) = match followed {
        Ok(followed) => followed,
        Err(index) => {
            let conflict = held.conflict(delivery, index);
            let known = is_on_file(connection, id, delivery, &conflict).await?;
            if !sound && !known && held.base != held.tree {
                return Ok(None);
            }
            count_conflict(connection, id, delivery, &conflict, !known).await?;
            return Ok(Some(Delivered::Conflict(conflict)));
        }
    };
    let mut missing = 0;
    if let Some(beyond) = beyond {
        missing = beyond.tree.size() - held.tree.size();
        (id, held) = (begin(connection, delivery, beyond.tree.size()).await?, beyond);
        keep(connection, id, &held).await?;
    }
    let first = held.tree.size();
    append(connection, id, first, new, delivery.now).await?;
    if after != held {
        keep(connection, id, &after).await?;
    }
    let unmatched = if new.is_empty() { Vec::new() } else { unmatched(connection, id, first).await? };
    let ahead = unmatched.iter().filter(|index| delivery.is_ahead(&new[(index.cast_unsigned() - first) as usize]));
    Ok(Some(Delivered::Held {
        size: after.tree.size(),
        root: after.tree.root(),
        stored: new.len() as u32,
        unmatched: unmatched.len() as u32,
        unmatched_ahead: ahead.count() as u32,
        missing,
    }))
}

/// The log's number and what is held of it. One that nobody delivered anything of yet is begun.
async fn open(connection: &mut Connection, delivery: &Delivery) -> Result<(i64, HeldLog), StoreError> {
    match find(connection, delivery.log).await? {
        Some(found) => Ok(found),
        None => Ok((begin(connection, delivery, 0).await?, HeldLog::default())),
    }
}

async fn find(connection: &mut Connection, log: LogId) -> Result<Option<(i64, HeldLog)>, StoreError> {
    const ONE: &str = "
        SELECT id, size, peaks, base_size, base_peaks, awaited_size, awaited_root, awaited_note,
               latest_size, latest_root, latest_note, bound_size, bound_root, bound_note, bound_proof
        FROM access_log WHERE log = $1 ORDER BY start DESC LIMIT 1";
    let row = sqlx::query(ONE).bind(log.0.as_slice()).fetch_optional(connection).await?;
    row.map(|row| Ok((row.try_get("id")?, held(&row)?))).transpose()
}

/// Begins a log, or a part of one.
async fn begin(connection: &mut Connection, delivery: &Delivery, start: u64) -> Result<i64, StoreError> {
    let begun = sqlx::query_scalar(
        "INSERT INTO access_log (log, key, start, size, peaks, base_size, base_peaks) \
         VALUES ($1, $2, $3, 0, $4, 0, $4) RETURNING id",
    );
    let begun =
        begun.bind(delivery.log.0.as_slice()).bind(delivery.key.encoded()).bind(int(start)).bind(Vec::<u8>::new());
    Ok(begun.fetch_one(connection).await?)
}

/// Whether the tree that is held can be built again from the records on file. Nobody else waits meanwhile: it reads page by
/// page, and looks again if the start of the log was forgotten under it.
pub(super) async fn is_sound(store: &Backend, log: LogId) -> Result<bool, StoreError> {
    let mut before = None;
    loop {
        let Some((id, held)) = find(&mut *store.reader().await?, log).await? else { return Ok(true) };
        if rebuilds(store, id, &held).await? {
            return Ok(true);
        }
        let base = Some(held.base);
        if base == before {
            return Ok(false);
        }
        before = base;
    }
}

async fn rebuilds(store: &Backend, id: i64, held: &HeldLog) -> Result<bool, StoreError> {
    let mut tree = held.base.clone();
    while tree.size() < held.tree.size() {
        let page = sqlx::query(
            "SELECT idx, record FROM access WHERE log = $1 AND idx >= $2 AND idx < $3 ORDER BY idx LIMIT $4",
        );
        let page = page
            .bind(id)
            .bind(int(tree.size()))
            .bind(int(held.tree.size()))
            .bind(PAGE)
            .fetch_all(&mut *store.reader().await?)
            .await?;
        for row in &page {
            if uint(row, "idx")? != tree.size() {
                return Ok(false);
            }
            tree.push(leaf_hash(row.try_get("record")?));
        }
        if page.is_empty() {
            return Ok(false);
        }
    }
    Ok(tree == held.tree)
}

/// The records on file that a delivery repeats.
async fn repeated(
    connection: &mut Connection,
    id: i64,
    held: &HeldLog,
    delivery: &Delivery,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let overlap = held.overlap(delivery);
    if overlap.is_empty() {
        return Ok(Vec::new());
    }
    let records: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT record FROM access WHERE log = $1 AND idx >= $2 AND idx < $3 ORDER BY idx")
            .bind(id)
            .bind(int(overlap.start))
            .bind(int(overlap.end))
            .fetch_all(connection)
            .await?;
    // A row that is gone is this store's fault, and no second history of the gateway's.
    if records.len() as u64 == overlap.end - overlap.start { Ok(records) } else { Err(corrupt("idx")) }
}

/// Appends records. Whose each was is looked up by the same statement that keeps it.
async fn append(
    connection: &mut Connection,
    id: i64,
    first: u64,
    records: &[NewAccess],
    now: UnixTime,
) -> Result<(), StoreError> {
    let numbered: Vec<_> = (int(first)..).zip(records).collect();
    for rows in numbered.chunks(ROWS) {
        let mut statement = QueryBuilder::<Database>::new("WITH came (idx, record, time, cti) AS (");
        statement.push_values(rows, |mut row, (index, access)| {
            let (time, cti) = access.says.unzip();
            // One that says it is of the future has its place where it came.
            let time = time.map(|time| secs(time.min(now)));
            row.push_bind(*index).push_bind(access.record.as_slice()).push_bind(time);
            row.push_bind(cti.map(|cti| cti.0.to_vec()));
        });
        statement.push(
            ") INSERT INTO access (log, idx, record, time, received_at, person, device) \
             SELECT ",
        );
        statement.push_bind(id).push(", idx, record, time, ").push_bind(secs(now));
        statement.push(", person, device FROM came LEFT JOIN consent ON consent.cti = came.cti");
        // Statements of all other lengths would crowd out those that are used again.
        let whole = rows.len() == ROWS;
        statement.build().persistent(whole).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn unmatched(connection: &mut Connection, id: i64, first: u64) -> Result<Vec<i64>, StoreError> {
    Ok(sqlx::query_scalar("SELECT idx FROM access WHERE log = $1 AND idx >= $2 AND person IS NULL")
        .bind(id)
        .bind(int(first))
        .fetch_all(connection)
        .await?)
}

async fn keep(connection: &mut Connection, id: i64, held: &HeldLog) -> Result<(), StoreError> {
    let mut query = sqlx::query(
        "UPDATE access_log SET size = $1, peaks = $2, base_size = $3, base_peaks = $4, \
         awaited_size = $5, awaited_root = $6, awaited_note = $7, latest_size = $8, latest_root = $9, latest_note = $10, \
         bound_size = $11, bound_root = $12, bound_note = $13, bound_proof = $14 WHERE id = $15",
    );
    for tree in [&held.tree, &held.base] {
        query = query.bind(int(tree.size())).bind(tree.peaks().concat());
    }
    query = bind_accepted(query, held.awaited.as_ref());
    query = bind_accepted(query, held.latest.as_ref());
    query = bind_accepted(query, held.bound.as_ref().map(|bound| &bound.head));
    query = query.bind(held.bound.as_ref().map(|bound| bound.proof.concat()).unwrap_or_default());
    query.bind(id).execute(connection).await?;
    Ok(())
}

fn bind_accepted<'q>(
    query: Query<'q, Database, Arguments>,
    accepted: Option<&'q Accepted>,
) -> Query<'q, Database, Arguments> {
    query
        .bind(accepted.map(|accepted| int(accepted.size)))
        .bind(accepted.map(|accepted| accepted.root.as_slice()))
        .bind(accepted.map(|accepted| accepted.note.as_str()))
}

/// Whether the same conflict was found before.
async fn is_on_file(
    connection: &mut Connection,
    id: i64,
    delivery: &Delivery,
    conflict: &Conflict,
) -> Result<bool, StoreError> {
    let same = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM access_conflict WHERE log = $1 AND idx = $2 \
                        AND held_note IS NOT DISTINCT FROM $3 AND shown_note = $4)",
    );
    let same = same.bind(id).bind(int(conflict.index)).bind(&conflict.held_note).bind(&delivery.note);
    Ok(same.fetch_one(connection).await?)
}

/// Counts a conflict, and keeps what proves a new one; beyond a number of them on file, only that there was one.
async fn count_conflict(
    connection: &mut Connection,
    id: i64,
    delivery: &Delivery,
    conflict: &Conflict,
    new: bool,
) -> Result<(), StoreError> {
    let number: i64 =
        sqlx::query_scalar("UPDATE access_log SET conflicts = conflicts + 1 WHERE id = $1 RETURNING conflicts")
            .bind(id)
            .fetch_one(&mut *connection)
            .await?;
    let kept = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM access_conflict WHERE log = $1").bind(id);
    if !new || kept.fetch_one(&mut *connection).await? >= int(MAX_EVIDENCE) {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO access_conflict (log, number, at, caller, idx, held_size, held_note, shown_size, shown_note) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id)
    .bind(number)
    .bind(secs(delivery.now))
    .bind(delivery.caller.to_string())
    .bind(int(conflict.index))
    .bind(int(conflict.held_size))
    .bind(&conflict.held_note)
    .bind(int(conflict.shown_size))
    .bind(&delivery.note)
    .execute(connection)
    .await?;
    Ok(())
}

/// A page of a person's accesses, newest first. A record that nobody can read any more is this store's fault: it is left out,
/// and hides no other.
pub(super) async fn list(
    connection: &mut Connection,
    person: PersonId,
    until: UnixTime,
    mut after: Option<AccessKey>,
    limit: u32,
) -> Result<Vec<TravelerAccess>, StoreError> {
    let mut accesses = Vec::new();
    loop {
        let wanted = limit - accesses.len() as u32;
        let rows = page(connection, person, until, after, wanted).await?;
        for row in &rows {
            let (key, entry) = (key(row)?, Entry::decode(row.try_get("record")?));
            after = Some(key);
            match entry {
                Ok(entry) => accesses.push(traveler_access(row, key, entry)?),
                Err(_) => {
                    error!(log = %key.log, index = key.index, "an access record on file was damaged: it is not listed")
                }
            }
        }
        if (rows.len() as u32) < wanted || accesses.len() as u32 == limit {
            return Ok(accesses);
        }
    }
}

async fn page(
    connection: &mut Connection,
    person: PersonId,
    until: UnixTime,
    after: Option<AccessKey>,
    limit: u32,
) -> Result<Vec<Row>, StoreError> {
    // A device that is another person's by now, or nobody's, is not shown.
    const NEWEST: &str = "
        SELECT access_log.log, access.idx, access.record, access.time, device.id AS device
        FROM access
        JOIN access_log ON access_log.id = access.log
        LEFT JOIN device ON device.id = access.device AND device.person = access.person
        WHERE access.person = $1 AND access.time <= $2
          AND ($3 IS NULL OR (access.time, access.log, access.idx)
                           < ($3, (SELECT id FROM access_log WHERE log = $4 AND start <= $5
                                  ORDER BY start DESC LIMIT 1), $5))
        ORDER BY access.time DESC, access.log DESC, access.idx DESC LIMIT $6";
    // Nothing on the next page is later than the last one's end: the index begins there.
    let until = after.map_or(until, |after| after.time.min(until));
    let rows = sqlx::query(NEWEST)
        .bind(person.0)
        .bind(secs(until))
        .bind(after.map(|after| int(after.time.as_secs())))
        .bind(after.map(|after| after.log.0.to_vec()))
        .bind(after.map(|after| int(after.index)))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

fn key(row: &Row) -> Result<AccessKey, StoreError> {
    Ok(AccessKey { time: time(row, "time")?, log: LogId(bytes(row, "log")?), index: uint(row, "idx")? })
}

fn traveler_access(row: &Row, key: AccessKey, entry: Entry) -> Result<TravelerAccess, StoreError> {
    let device = row.try_get::<Option<&[u8]>, _>("device")?.map(<[u8; 16]>::try_from).transpose();
    Ok(TravelerAccess { key, entry, device: device.map_err(|_| corrupt("device"))?.map(DeviceId) })
}

/// All logs, with the evidence of their conflicts.
pub(super) async fn logs(connection: &mut Connection) -> Result<Vec<LogOnFile>, StoreError> {
    const ALL: &str = "
        SELECT id, log, key, start, size, peaks, base_size, base_peaks, awaited_size, awaited_root, awaited_note,
               latest_size, latest_root, latest_note, bound_size, bound_root, bound_note, bound_proof, conflicts,
               (SELECT min(later.start) FROM access_log AS later
                WHERE later.log = access_log.log AND later.start > access_log.start) AS next_start
        FROM access_log ORDER BY id";
    let mut logs = Vec::new();
    for row in sqlx::query(ALL).fetch_all(&mut *connection).await? {
        let evidence = sqlx::query(
            "SELECT at, caller, idx, held_size, held_note, shown_size, shown_note FROM access_conflict \
             WHERE log = $1 ORDER BY number",
        );
        let evidence = evidence.bind(row.try_get::<i64, _>("id")?).fetch_all(&mut *connection).await?;
        logs.push(LogOnFile {
            log: LogId(bytes(&row, "log")?),
            key: bytes(&row, "key")?,
            start: uint(&row, "start")?,
            next_start: row.try_get::<Option<i64>, _>("next_start")?.map(i64::cast_unsigned),
            held: held(&row)?,
            conflicts: uint(&row, "conflicts")?,
            evidence: evidence.iter().map(read_evidence).collect::<Result<_, _>>()?,
        });
    }
    Ok(logs)
}

/// Records of a log from an index on.
pub(super) async fn records(
    connection: &mut Connection,
    log: LogId,
    from: u64,
    limit: u32,
) -> Result<Vec<RecordOnFile>, StoreError> {
    let rows = sqlx::query(
        "SELECT idx, record, time IS NOT NULL AS readable, person IS NOT NULL AS matched FROM access \
         WHERE log IN (SELECT id FROM access_log WHERE log = $1) AND idx >= $2 ORDER BY idx LIMIT $3",
    )
    .bind(log.0.as_slice())
    .bind(int(from))
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    let record = |row: &Row| {
        Ok(RecordOnFile {
            index: uint(row, "idx")?,
            record: row.try_get("record")?,
            readable: row.try_get("readable")?,
            matched: row.try_get("matched")?,
        })
    };
    rows.iter().map(record).collect()
}

/// Forgets records that came before a time, at most `limit`. What conflicts there were stays on file.
pub(super) async fn sweep(connection: &mut Connection, before: UnixTime, limit: i64) -> Result<u64, StoreError> {
    const UNFORGOTTEN: &str = "SELECT id, log FROM access_log WHERE base_size < size ORDER BY id";
    let logs = sqlx::query(UNFORGOTTEN).fetch_all(&mut *connection).await?;
    let (mut forgotten, mut left) = (0, limit);
    for row in logs {
        locks::values(connection, &[bytes::<32>(&row, "log")?]).await?;
        let gone = sweep_log(connection, row.try_get("id")?, before, left).await?;
        (forgotten, left) = (forgotten + gone, left - gone.cast_signed());
    }
    Ok(forgotten)
}

async fn sweep_log(connection: &mut Connection, id: i64, before: UnixTime, limit: i64) -> Result<u64, StoreError> {
    const ONE: &str = "
        SELECT size, peaks, base_size, base_peaks, awaited_size, awaited_root, awaited_note,
               latest_size, latest_root, latest_note, bound_size, bound_root, bound_note, bound_proof
        FROM access_log WHERE id = $1";
    let mut held = held(&sqlx::query(ONE).bind(id).fetch_one(&mut *connection).await?)?;
    let first = held.base.size();
    let records =
        sqlx::query("SELECT idx, record, received_at FROM access WHERE log = $1 AND idx >= $2 ORDER BY idx LIMIT $3");
    for row in records.bind(id).bind(int(first)).bind(limit).fetch_all(&mut *connection).await? {
        // A hole stays where it is: a base beyond it would hide what is missing.
        if time(&row, "received_at")? >= before || uint(&row, "idx")? != held.base.size() {
            break;
        }
        held.forget(row.try_get("record")?);
    }
    if held.base.size() == first {
        return Ok(0);
    }
    let gone = sqlx::query("DELETE FROM access WHERE log = $1 AND idx < $2").bind(id).bind(int(held.base.size()));
    let gone = gone.execute(&mut *connection).await?.rows_affected();
    keep(connection, id, &held).await?;
    Ok(gone)
}

fn held(row: &Row) -> Result<HeldLog, StoreError> {
    Ok(HeldLog {
        tree: tree(row, "size", "peaks")?,
        base: tree(row, "base_size", "base_peaks")?,
        awaited: accepted(row, ["awaited_size", "awaited_root", "awaited_note"])?,
        latest: accepted(row, ["latest_size", "latest_root", "latest_note"])?,
        bound: bound(row)?,
    })
}

fn bound(row: &Row) -> Result<Option<Bound>, StoreError> {
    let Some(head) = accepted(row, ["bound_size", "bound_root", "bound_note"])? else { return Ok(None) };
    let (proof, rest) = row.try_get::<&[u8], _>("bound_proof")?.as_chunks::<{ size_of::<Hash>() }>();
    if rest.is_empty() { Ok(Some(Bound { head, proof: proof.to_vec() })) } else { Err(corrupt("bound_proof")) }
}

fn tree(row: &Row, size: &'static str, peaks: &'static str) -> Result<Frontier, StoreError> {
    let (hashes, rest) = row.try_get::<&[u8], _>(peaks)?.as_chunks::<{ size_of::<Hash>() }>();
    let tree = if rest.is_empty() { Frontier::from_peaks(uint(row, size)?, hashes.to_vec()) } else { None };
    tree.ok_or_else(|| corrupt(peaks))
}

fn accepted(row: &Row, [size, root, note]: [&'static str; 3]) -> Result<Option<Accepted>, StoreError> {
    if row.try_get::<Option<i64>, _>(size)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Accepted { size: uint(row, size)?, root: bytes(row, root)?, note: row.try_get(note)? }))
}

fn read_evidence(row: &Row) -> Result<Evidence, StoreError> {
    let conflict = Conflict {
        held_note: row.try_get("held_note")?,
        held_size: uint(row, "held_size")?,
        shown_size: uint(row, "shown_size")?,
        index: uint(row, "idx")?,
    };
    let (at, caller) = (time(row, "at")?, row.try_get("caller")?);
    Ok(Evidence { at, caller, conflict, shown_note: row.try_get("shown_note")? })
}
