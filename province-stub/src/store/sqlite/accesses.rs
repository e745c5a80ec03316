//! The access log: delivered records, byte for byte, each bound to whose consent it was; and the Merkle trees that hold the
//! gateway to them.
//!
//! Upholds I2 at home's end: records and the tree over them are one transaction, and none is ever written over.

use proto::{
    log::{
        LogId,
        merkle::{Frontier, Hash},
        record::Entry,
    },
    time::UnixTime,
};
use sqlx::{
    QueryBuilder, Row as _, Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments, sqlite::SqliteRow,
};

use super::rows::{bytes, corrupt, int, secs, time, uint};
use crate::store::{
    DeviceId, PersonId, StoreError,
    access_log::{
        Accepted, AccessKey, Conflict, Delivered, Delivery, Evidence, HeldLog, LogOnFile, MAX_EVIDENCE, NewAccess,
        RecordOnFile, TravelerAccess,
    },
};

/// Rows of one INSERT: as many as pay, in a statement that is prepared once.
const ROWS: usize = 250;

/// Takes in a delivery.
pub(super) async fn record(connection: &mut SqliteConnection, delivery: &Delivery) -> Result<Delivered, StoreError> {
    let (mut id, mut held) = open(connection, delivery.log).await?;
    let on_file = repeated(connection, id, &held, delivery).await?;
    let followed = held.beyond_gap(delivery).and_then(|beyond| {
        let (after, new) = beyond.as_ref().unwrap_or(&held).followed_by(delivery, &on_file)?;
        Ok((beyond, after, new))
    });
    let (beyond, after, new) = match followed {
        Ok(followed) => followed,
        Err(index) => {
            let conflict = held.conflict(delivery, index);
            keep_evidence(connection, id, delivery, &conflict).await?;
            return Ok(Delivered::Conflict(conflict));
        }
    };
    let mut missing = 0;
    if let Some(beyond) = beyond {
        missing = beyond.tree.size() - held.tree.size();
        (id, held) = (begin(connection, delivery.log, beyond.tree.size()).await?, beyond);
        keep(connection, id, &held).await?;
    }
    let first = held.tree.size();
    append(connection, id, first, new, delivery.now).await?;
    if after != held {
        keep(connection, id, &after).await?;
    }
    let unmatched = if new.is_empty() { 0 } else { count_unmatched(connection, id, first).await? };
    Ok(Delivered::Held {
        size: after.tree.size(),
        root: after.tree.root(),
        stored: new.len() as u32,
        unmatched,
        missing,
    })
}

/// The log's number and what is held of it. One that nobody delivered anything of yet is begun.
async fn open(connection: &mut SqliteConnection, log: LogId) -> Result<(i64, HeldLog), StoreError> {
    const ONE: &str = "
        SELECT id, size, peaks, base_size, base_peaks, awaited_size, awaited_root, awaited_note,
               latest_size, latest_root, latest_note
        FROM access_log WHERE log = ? ORDER BY start DESC LIMIT 1";
    let row = sqlx::query(ONE).bind(log.0.as_slice()).fetch_optional(&mut *connection).await?;
    if let Some(row) = row {
        return Ok((row.try_get("id")?, held(&row)?));
    }
    Ok((begin(connection, log, 0).await?, HeldLog::default()))
}

/// Begins a log, or a part of one.
async fn begin(connection: &mut SqliteConnection, log: LogId, start: u64) -> Result<i64, StoreError> {
    let begun = sqlx::query_scalar(
        "INSERT INTO access_log (log, start, size, peaks, base_size, base_peaks) VALUES (?, ?, 0, x'', 0, x'') \
         RETURNING id",
    );
    Ok(begun.bind(log.0.as_slice()).bind(int(start)).fetch_one(connection).await?)
}

/// The records on file that a delivery repeats.
async fn repeated(
    connection: &mut SqliteConnection,
    id: i64,
    held: &HeldLog,
    delivery: &Delivery,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let overlap = held.overlap(delivery);
    if overlap.is_empty() {
        return Ok(Vec::new());
    }
    let records: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT record FROM access WHERE log = ? AND idx >= ? AND idx < ? ORDER BY idx")
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
    connection: &mut SqliteConnection,
    id: i64,
    first: u64,
    records: &[NewAccess],
    now: UnixTime,
) -> Result<(), StoreError> {
    let numbered: Vec<_> = (int(first)..).zip(records).collect();
    for rows in numbered.chunks(ROWS) {
        let mut statement = QueryBuilder::new("WITH came (idx, record, time, cti) AS (");
        statement.push_values(rows, |mut row, (index, access)| {
            let (time, cti) = access.says.unzip();
            row.push_bind(*index).push_bind(access.record.as_slice()).push_bind(time.map(secs));
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

async fn count_unmatched(connection: &mut SqliteConnection, id: i64, first: u64) -> Result<u32, StoreError> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM access WHERE log = ? AND idx >= ? AND person IS NULL")
        .bind(id)
        .bind(int(first))
        .fetch_one(connection)
        .await?)
}

async fn keep(connection: &mut SqliteConnection, id: i64, held: &HeldLog) -> Result<(), StoreError> {
    let mut query = sqlx::query(
        "UPDATE access_log SET size = ?, peaks = ?, base_size = ?, base_peaks = ?, \
         awaited_size = ?, awaited_root = ?, awaited_note = ?, latest_size = ?, latest_root = ?, latest_note = ? \
         WHERE id = ?",
    );
    for tree in [&held.tree, &held.base] {
        query = query.bind(int(tree.size())).bind(tree.peaks().concat());
    }
    query = bind_accepted(query, held.awaited.as_ref());
    query = bind_accepted(query, held.latest.as_ref());
    query.bind(id).execute(connection).await?;
    Ok(())
}

fn bind_accepted<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    accepted: Option<&'q Accepted>,
) -> Query<'q, Sqlite, SqliteArguments> {
    query
        .bind(accepted.map(|accepted| int(accepted.size)))
        .bind(accepted.map(|accepted| accepted.root.as_slice()))
        .bind(accepted.map(|accepted| accepted.note.as_str()))
}

/// Keeps what proves a conflict; beyond a number of them, only that there was one.
async fn keep_evidence(
    connection: &mut SqliteConnection,
    id: i64,
    delivery: &Delivery,
    conflict: &Conflict,
) -> Result<(), StoreError> {
    let number: i64 =
        sqlx::query_scalar("UPDATE access_log SET conflicts = conflicts + 1 WHERE id = ? RETURNING conflicts")
            .bind(id)
            .fetch_one(&mut *connection)
            .await?;
    if number > int(MAX_EVIDENCE) {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO access_conflict (log, number, at, idx, held_size, held_note, shown_size, shown_note) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(number)
    .bind(secs(delivery.now))
    .bind(int(conflict.index))
    .bind(int(conflict.held_size))
    .bind(&conflict.held_note)
    .bind(int(conflict.shown_size))
    .bind(&delivery.note)
    .execute(connection)
    .await?;
    Ok(())
}

/// A page of a person's accesses, newest first.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    person: PersonId,
    until: UnixTime,
    after: Option<AccessKey>,
    limit: u32,
) -> Result<Vec<TravelerAccess>, StoreError> {
    // A device that is another person's by now, or nobody's, is not shown.
    const PAGE: &str = "
        SELECT access_log.log, access.idx, access.record, device.id AS device
        FROM access
        JOIN access_log ON access_log.id = access.log
        LEFT JOIN device ON device.id = access.device AND device.person = access.person
        WHERE access.person = ?1 AND access.time <= ?2
          AND (?3 IS NULL OR (access.time, access.log, access.idx)
                           < (?3, (SELECT id FROM access_log WHERE log = ?4 AND start <= ?5
                                  ORDER BY start DESC LIMIT 1), ?5))
        ORDER BY access.time DESC, access.log DESC, access.idx DESC LIMIT ?6";
    // Nothing on the next page is later than the last one's end: the index begins there.
    let until = after.map_or(until, |after| after.time.min(until));
    let rows = sqlx::query(PAGE)
        .bind(person.0)
        .bind(secs(until))
        .bind(after.map(|after| int(after.time.as_secs())))
        .bind(after.map(|after| after.log.0.to_vec()))
        .bind(after.map(|after| int(after.index)))
        .bind(limit)
        .fetch_all(connection)
        .await?;
    rows.iter().map(traveler_access).collect()
}

fn traveler_access(row: &SqliteRow) -> Result<TravelerAccess, StoreError> {
    let device = row.try_get::<Option<&[u8]>, _>("device")?.map(<[u8; 16]>::try_from).transpose();
    Ok(TravelerAccess {
        log: LogId(bytes(row, "log")?),
        index: uint(row, "idx")?,
        entry: Entry::decode(row.try_get("record")?).map_err(|_| corrupt("record"))?,
        device: device.map_err(|_| corrupt("device"))?.map(DeviceId),
    })
}

/// All logs, with the evidence of their conflicts.
pub(super) async fn logs(connection: &mut SqliteConnection) -> Result<Vec<LogOnFile>, StoreError> {
    const ALL: &str = "
        SELECT id, log, start, size, peaks, base_size, base_peaks, awaited_size, awaited_root, awaited_note,
               latest_size, latest_root, latest_note, conflicts,
               (SELECT min(later.start) FROM access_log AS later
                WHERE later.log = access_log.log AND later.start > access_log.start) AS next_start
        FROM access_log ORDER BY id";
    let mut logs = Vec::new();
    for row in sqlx::query(ALL).fetch_all(&mut *connection).await? {
        let evidence = sqlx::query(
            "SELECT at, idx, held_size, held_note, shown_size, shown_note FROM access_conflict \
             WHERE log = ? ORDER BY number",
        );
        let evidence = evidence.bind(row.try_get::<i64, _>("id")?).fetch_all(&mut *connection).await?;
        logs.push(LogOnFile {
            log: LogId(bytes(&row, "log")?),
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
    connection: &mut SqliteConnection,
    log: LogId,
    from: u64,
    limit: u32,
) -> Result<Vec<RecordOnFile>, StoreError> {
    let rows = sqlx::query(
        "SELECT idx, record, time IS NOT NULL AS readable, person IS NOT NULL AS matched FROM access \
         WHERE log IN (SELECT id FROM access_log WHERE log = ?) AND idx >= ? ORDER BY idx LIMIT ?",
    )
    .bind(log.0.as_slice())
    .bind(int(from))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let record = |row: &SqliteRow| {
        Ok(RecordOnFile {
            index: uint(row, "idx")?,
            record: row.try_get("record")?,
            readable: row.try_get("readable")?,
            matched: row.try_get("matched")?,
        })
    };
    rows.iter().map(record).collect()
}

/// Forgets records that came before a time, at most `limit`, and evidence of conflicts that were found before it.
pub(super) async fn sweep(connection: &mut SqliteConnection, before: UnixTime, limit: i64) -> Result<u64, StoreError> {
    let evidence = sqlx::query("DELETE FROM access_conflict WHERE at < ?").bind(secs(before));
    let mut forgotten = evidence.execute(&mut *connection).await?.rows_affected();
    const UNFORGOTTEN: &str = "
        SELECT id, size, peaks, base_size, base_peaks, awaited_size, awaited_root, awaited_note,
               latest_size, latest_root, latest_note
        FROM access_log WHERE base_size < size";
    let logs = sqlx::query(UNFORGOTTEN).fetch_all(&mut *connection).await?;
    let mut left = limit;
    for log in logs {
        let (id, mut held): (i64, _) = (log.try_get("id")?, held(&log)?);
        let records =
            sqlx::query("SELECT idx, record, received_at FROM access WHERE log = ? AND idx >= ? ORDER BY idx LIMIT ?");
        let first = held.base.size();
        let records = records.bind(id).bind(int(first)).bind(left).fetch_all(&mut *connection).await?;
        for row in records {
            // A hole stays where it is: a base beyond it would hide what is missing.
            if time(&row, "received_at")? >= before || uint(&row, "idx")? != held.base.size() {
                break;
            }
            held.forget(row.try_get("record")?);
        }
        if held.base.size() > first {
            let gone = sqlx::query("DELETE FROM access WHERE log = ? AND idx < ?").bind(id).bind(int(held.base.size()));
            let gone = gone.execute(&mut *connection).await?.rows_affected();
            keep(connection, id, &held).await?;
            (forgotten, left) = (forgotten + gone, left - gone.cast_signed());
        }
    }
    Ok(forgotten)
}

fn held(row: &SqliteRow) -> Result<HeldLog, StoreError> {
    Ok(HeldLog {
        tree: tree(row, "size", "peaks")?,
        base: tree(row, "base_size", "base_peaks")?,
        awaited: accepted(row, ["awaited_size", "awaited_root", "awaited_note"])?,
        latest: accepted(row, ["latest_size", "latest_root", "latest_note"])?,
    })
}

fn tree(row: &SqliteRow, size: &'static str, peaks: &'static str) -> Result<Frontier, StoreError> {
    let (hashes, rest) = row.try_get::<&[u8], _>(peaks)?.as_chunks::<{ size_of::<Hash>() }>();
    let tree = if rest.is_empty() { Frontier::from_peaks(uint(row, size)?, hashes.to_vec()) } else { None };
    tree.ok_or_else(|| corrupt(peaks))
}

fn accepted(row: &SqliteRow, [size, root, note]: [&'static str; 3]) -> Result<Option<Accepted>, StoreError> {
    if row.try_get::<Option<i64>, _>(size)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Accepted { size: uint(row, size)?, root: bytes(row, root)?, note: row.try_get(note)? }))
}

fn read_evidence(row: &SqliteRow) -> Result<Evidence, StoreError> {
    let conflict = Conflict {
        held_note: row.try_get("held_note")?,
        held_size: uint(row, "held_size")?,
        shown_size: uint(row, "shown_size")?,
        index: uint(row, "idx")?,
    };
    Ok(Evidence { at: time(row, "at")?, conflict, shown_note: row.try_get("shown_note")? })
}
