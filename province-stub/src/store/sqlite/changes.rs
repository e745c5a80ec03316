//! The change log (DESIGN §7): numbers without gaps, given inside the transaction that made the change.
//!
//! Upholds I4: a status and its events are committed together or not at all.

use proto::{random::Random, statement::LogHead, time::UnixTime, token::Cti};
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use super::rows::{bytes, corrupt, secs, time, uint};
use crate::store::{Change, ChangeKind, StoreError};

/// Rows of one INSERT, well below SQLite's bound on parameters.
const ROWS: usize = 500;

/// Gives a new log its epoch; an existing one keeps what it has.
pub(super) async fn found(connection: &mut SqliteConnection, epoch: [u8; 16]) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO log_head (only, epoch, seq) VALUES (1, ?, 0) ON CONFLICT DO NOTHING")
        .bind(epoch.as_slice())
        .execute(connection)
        .await?;
    Ok(())
}

/// The log's head.
pub(super) async fn head(connection: &mut SqliteConnection) -> Result<LogHead, StoreError> {
    let row = sqlx::query("SELECT epoch, seq FROM log_head").fetch_one(connection).await?;
    Ok(LogHead { epoch: bytes(&row, "epoch")?, seq: uint(&row, "seq")? })
}

/// Appends one event per handle, shuffled: the order must not tell which handles belong to one person (I6).
pub(super) async fn append(
    connection: &mut SqliteConnection,
    mut handles: Vec<Cti>,
    what: ChangeKind,
    now: UnixTime,
    random: &dyn Random,
) -> Result<LogHead, StoreError> {
    shuffle(&mut handles, random);
    append_in_order(connection, &handles, what, now).await
}

/// Appends one event per handle in the order given.
pub(super) async fn append_in_order(
    connection: &mut SqliteConnection,
    handles: &[Cti],
    what: ChangeKind,
    now: UnixTime,
) -> Result<LogHead, StoreError> {
    let before = head(connection).await?;
    let numbered: Vec<_> = (before.seq.cast_signed() + 1..).zip(handles).collect();
    for rows in numbered.chunks(ROWS) {
        QueryBuilder::new("INSERT INTO change_log (seq, cti, what, at) ")
            .push_values(rows, |mut row, (seq, cti)| {
                row.push_bind(*seq).push_bind(cti.0.to_vec()).push_bind(word(what)).push_bind(secs(now));
            })
            .build()
            .execute(&mut *connection)
            .await?;
    }
    let after = LogHead { seq: before.seq + handles.len() as u64, ..before };
    sqlx::query("UPDATE log_head SET seq = ?").bind(after.seq.cast_signed()).execute(connection).await?;
    Ok(after)
}

/// Events after a number, in order.
pub(super) async fn after(connection: &mut SqliteConnection, seq: u64, limit: u32) -> Result<Vec<Change>, StoreError> {
    let rows = sqlx::query("SELECT seq, cti, what, at FROM change_log WHERE seq > ? ORDER BY seq LIMIT ?")
        .bind(i64::try_from(seq).unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(connection)
        .await?;
    let change = |row: &_| {
        Ok(Change {
            seq: uint(row, "seq")?,
            cti: Cti(bytes(row, "cti")?),
            what: kind(row.try_get("what")?).ok_or_else(|| corrupt("what"))?,
            at: time(row, "at")?,
        })
    };
    rows.iter().map(change).collect()
}

/// Fisher and Yates. Sixty-four bits a step make the modulo's bias nothing.
fn shuffle(handles: &mut [Cti], random: &dyn Random) {
    for last in (1..handles.len()).rev() {
        let drawn = u64::from_be_bytes(proto::random::bytes(random)) % (last as u64 + 1);
        handles.swap(last, drawn as usize);
    }
}

const fn word(what: ChangeKind) -> &'static str {
    match what {
        ChangeKind::Status => "status",
        ChangeKind::Revoked => "revoked",
    }
}

fn kind(word: &str) -> Option<ChangeKind> {
    match word {
        "status" => Some(ChangeKind::Status),
        "revoked" => Some(ChangeKind::Revoked),
        _ => None,
    }
}
