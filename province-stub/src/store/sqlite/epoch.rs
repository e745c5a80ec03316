//! The change log's epoch, new after any restore (DESIGN §7): numbers given after one may mean other events than before,
//! so whoever held a position in the old log must learn that it is worth nothing (I4).
//!
//! Two things tell that a database is an older copy of itself. A file that was put back is another file: the database
//! remembers its own device and inode. And what was put into the same file from within is behind a *witness* beside it,
//! `<database>.head`, which notes every head before it is committed: a commit that fails after that costs an epoch, and no
//! event that anybody has heard of is ever forgotten. A machine that was rolled back as a whole has nothing beside
//! it: whoever does that says so with `province-stub new-epoch`, and a gateway that sees the head go backwards says so too.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use proto::{random::Random, statement::LogHead};
use sqlx::{Row as _, SqliteConnection};
use tracing::warn;

use super::changes;
use crate::store::StoreError;

/// Gives a new log its epoch, and an old one another if its file was restored.
pub(super) async fn settle(
    connection: &mut SqliteConnection,
    database: &Path,
    random: &dyn Random,
) -> Result<(), StoreError> {
    let fresh = proto::random::bytes(random);
    changes::found(connection, fresh).await?;
    let file = identity(database).map_err(|error| StoreError::Unavailable(error.into()))?;
    let row = sqlx::query("SELECT file FROM log_head").fetch_one(&mut *connection).await?;
    let moved = row.try_get::<Option<&[u8]>, _>("file")?.is_some_and(|known| known != file);
    let head = changes::head(connection).await?;
    let behind = witnessed(database).is_some_and(|witness| witness.epoch != head.epoch || witness.seq > head.seq);
    if moved || behind {
        warn!(moved, behind, "the database was restored or moved: its change log begins a new epoch");
        sqlx::query("UPDATE log_head SET epoch = ?").bind(fresh.as_slice()).execute(&mut *connection).await?;
    }
    sqlx::query("UPDATE log_head SET file = ?").bind(file).execute(connection).await?;
    Ok(())
}

/// Begins a new epoch, whatever stands.
pub(super) async fn renew(connection: &mut SqliteConnection, random: &dyn Random) -> Result<LogHead, StoreError> {
    let fresh: [u8; 16] = proto::random::bytes(random);
    sqlx::query("UPDATE log_head SET epoch = ?").bind(fresh.as_slice()).execute(&mut *connection).await?;
    changes::head(connection).await
}

/// Notes a head beside the database, for as long as the machine runs. One that is lost in a power cut leaves an older one,
/// which accuses nobody.
pub(super) fn witness(database: &Path, head: LogHead) -> io::Result<()> {
    let path = witness_path(database);
    let partial = path.with_extension("head-partial");
    let mut content = head.epoch.to_vec();
    content.extend(head.seq.to_be_bytes());
    fs::write(&partial, content)?;
    fs::rename(partial, path)
}

fn witnessed(database: &Path) -> Option<LogHead> {
    let content = fs::read(witness_path(database)).ok()?;
    let (epoch, seq) = content.split_first_chunk::<16>()?;
    Some(LogHead { epoch: *epoch, seq: u64::from_be_bytes(seq.try_into().ok()?) })
}

fn witness_path(database: &Path) -> PathBuf {
    database.with_extension("db.head")
}

fn identity(database: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(database)?;
    Ok([metadata.dev().to_be_bytes(), metadata.ino().to_be_bytes()].concat())
}
