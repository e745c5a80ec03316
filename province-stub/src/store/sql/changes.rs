//! The change log (DESIGN §7): numbers without gaps, given inside the transaction that made the change.
//!
//! Upholds I4: a status and its events are committed together or not at all.

use proto::{random::Random, statement::LogHead, time::UnixTime, token::Cti};
use sqlx::{QueryBuilder, Row as _};

use super::{
    Connection, Database, Row,
    rows::{bytes, corrupt, int, secs, time, uint},
};
use crate::store::{Change, ChangeKind, StoreError};

/// Rows of one INSERT, well below any bound on parameters.
const ROWS: usize = 500;

/// Gives a new log its epoch; an existing one keeps what it has.
pub(super) async fn found(connection: &mut Connection, epoch: [u8; 16]) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO log_head (id, epoch, seq) VALUES (1, $1, 0) ON CONFLICT DO NOTHING")
        .bind(epoch.as_slice())
        .execute(connection)
        .await?;
    Ok(())
}

/// The log's head.
pub(in super::super) async fn head(connection: &mut Connection) -> Result<LogHead, StoreError> {
    read_head(&sqlx::query("SELECT epoch, seq FROM log_head").fetch_one(connection).await?)
}

/// A head from a row of `epoch` and `seq`.
pub(super) fn read_head(row: &Row) -> Result<LogHead, StoreError> {
    Ok(LogHead { epoch: bytes(row, "epoch")?, seq: uint(row, "seq")? })
}

/// Appends one event per handle, shuffled: the order must not tell which handles belong to one person (I6).
pub(super) async fn append(
    connection: &mut Connection,
    mut handles: Vec<Cti>,
    what: ChangeKind,
    now: UnixTime,
    random: &dyn Random,
) -> Result<LogHead, StoreError> {
    shuffle(&mut handles, random);
    append_in_order(connection, &handles, what, now).await
}

/// Appends one event per handle in the order given. Numbers are given by the row that remembers the last one: whoever has
/// it keeps it until the commit, so that this is the last thing that a transaction does before it answers.
pub(super) async fn append_in_order(
    connection: &mut Connection,
    handles: &[Cti],
    what: ChangeKind,
    now: UnixTime,
) -> Result<LogHead, StoreError> {
    if handles.is_empty() {
        return head(connection).await;
    }
    let after = sqlx::query("UPDATE log_head SET seq = seq + $1 RETURNING epoch, seq").bind(handles.len() as i64);
    let after = read_head(&after.fetch_one(&mut *connection).await?)?;
    let numbered: Vec<_> = (int(after.seq) - handles.len() as i64 + 1..).zip(handles).collect();
    for rows in numbered.chunks(ROWS) {
        QueryBuilder::<Database>::new("INSERT INTO change_log (seq, cti, what, at) ")
            .push_values(rows, |mut row, (seq, cti)| {
                row.push_bind(*seq).push_bind(cti.0.to_vec()).push_bind(word(what)).push_bind(secs(now));
            })
            .build()
            .execute(&mut *connection)
            .await?;
    }
    Ok(after)
}

/// Events after a number, in order.
pub(super) async fn after(connection: &mut Connection, seq: u64, limit: u32) -> Result<Vec<Change>, StoreError> {
    let rows = sqlx::query("SELECT seq, cti, what, at FROM change_log WHERE seq > $1 ORDER BY seq LIMIT $2")
        .bind(int(seq))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    let change = |row: &Row| {
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
