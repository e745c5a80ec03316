//! The embedded backend: SQLite in WAL mode, one writer, a few readers.
//!
//! Upholds I4: there is one writing connection, so change numbers are given in the order of commits and have no gaps; a
//! read of several statements is one deferred transaction, which SQLite answers from one snapshot. `synchronous = FULL`:
//! what was acknowledged survives a power cut. Many nodes run in one process, so caches are small and readers open late.

mod accesses;
mod changes;
mod codes;
mod consents;
mod deletion;
mod epoch;
mod people;
mod requests;
mod rows;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use proto::{log::LogId, random::Random, statement::LogHead, terms::Scope, time::UnixTime, token::Cti};
use sqlx::{
    ConnectOptions as _, Connection as _, SqlSafeStr as _, Sqlite, SqlitePool, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{Mutex, watch};
use tracing::error;

use super::{
    Assigned, CHANGE_RETENTION, CONSENT_RETENTION, Change, Device, DeviceId, Forgotten, IssuedConsent, IssuedToken,
    NewAssignment, NewConsent, NewDevice, NewPerson, PageKey, PersonId, REQUEST_RETENTION, Snapshot, Store, StoreError,
    access_log::{AccessKey, Delivered, Delivery, LogOnFile, RecordOnFile, TravelerAccess},
};
use crate::{document::Document, request::RequestKey};

/// How long a call waits for a connection, and a connection for the file's lock: shorter than a call may take, so that the
/// caller hears STORE_UNAVAILABLE.
const WAIT: Duration = Duration::from_secs(1);
/// How many readers at most; each is a thread.
const MAX_READERS: u32 = 2;
/// After how much idleness a reader's connection is closed.
const READER_IDLE: Duration = Duration::from_secs(60);
/// Rows of one table that one sweep forgets at most: some ten milliseconds.
const SWEPT_AT_ONCE: i64 = 2_000;
/// What is forgotten, and when.
const SWEEPS: [(&str, Duration); 3] = [
    (
        "DELETE FROM request WHERE (caller, id) IN (SELECT caller, id FROM request WHERE at < ? LIMIT ?)",
        REQUEST_RETENTION,
    ),
    ("DELETE FROM change_log WHERE seq IN (SELECT seq FROM change_log WHERE at < ? LIMIT ?)", CHANGE_RETENTION),
    ("DELETE FROM consent WHERE cti IN (SELECT cti FROM consent WHERE expires_at < ? LIMIT ?)", CONSENT_RETENTION),
];
/// SQLite takes negative sizes as KiB.
const CACHE_SIZE: &str = "-512";
const STATEMENT_CACHE: usize = 64;

/// A store in one SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    committed: watch::Sender<()>,
    judging: Arc<Mutex<()>>,
    path: PathBuf,
}

impl SqliteStore {
    /// Opens the file at `path`, making and migrating it as needed. A new log gets its epoch from `random`.
    pub async fn open(path: &Path, random: &dyn Random) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(WAIT)
            .statement_cache_capacity(STATEMENT_CACHE)
            .pragma("cache_size", CACHE_SIZE)
            // What is deleted is written over: a traveler who is forgotten leaves nothing in free pages.
            .pragma("secure_delete", "ON")
            .pragma("journal_size_limit", "0")
            // Statements carry no values, yet nothing that touches people belongs in a log.
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new().acquire_timeout(WAIT).max_lifetime(None).test_before_acquire(false);
        let writer = pool.clone().max_connections(1).idle_timeout(None).connect_with(options.clone()).await?;
        migrator().run(&writer).await.map_err(|error| StoreError::Unavailable(error.into()))?;
        let readers = pool
            .max_connections(MAX_READERS)
            .min_connections(0)
            .idle_timeout(READER_IDLE)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        let (committed, judging) = (watch::channel(()).0, Arc::default());
        let store = Self { writer, readers, committed, judging, path: path.to_owned() };
        let mut tx = store.begin().await?;
        epoch::settle(&mut tx, path, random).await?;
        store.commit(tx).await?;
        Ok(store)
    }

    /// Opens the file at `path` only to look at it, also while a node has it open. Nothing is made, migrated or written.
    pub async fn inspect(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(WAIT)
            .pragma("query_only", "ON")
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new().acquire_timeout(WAIT);
        let readers = pool.max_connections(1).connect_with(options).await?;
        let (committed, judging) = (watch::channel(()).0, Arc::default());
        Ok(Self { writer: readers.clone(), readers, committed, judging, path: path.to_owned() })
    }

    /// Begins a new epoch of the change log: whoever restored the store by other means than its file says so with this.
    pub async fn renew_epoch(&self, random: &dyn Random) -> Result<LogHead, StoreError> {
        let mut tx = self.begin().await?;
        let head = epoch::renew(&mut tx, random).await?;
        self.commit(tx).await?;
        Ok(head)
    }

    /// Begins the one writing transaction there can be.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    /// Commits what may have made events, and tells who waits for them. The witness comes first: no event is ever told
    /// that it does not know of.
    async fn commit(&self, mut tx: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
        let head = changes::head(&mut tx).await?;
        epoch::witness(&self.path, head).map_err(|error| StoreError::Unavailable(error.into()))?;
        tx.commit().await?;
        self.committed.send_replace(());
        Ok(())
    }
}

impl SqliteStore {
    /// Takes in a delivery. `None`: whether it or this store tells another story than was told before has to be judged.
    async fn take_in(&self, delivery: &Delivery, sound: bool) -> Result<Option<Delivered>, StoreError> {
        let mut tx = self.begin().await?;
        let delivered = accesses::record(&mut tx, delivery, sound).await?;
        if delivered.is_some() {
            tx.commit().await?;
        }
        Ok(delivered)
    }

    /// Nobody is accused of a second history for what was damaged here.
    async fn judge(&self, delivery: &Delivery) -> Result<Delivered, StoreError> {
        let busy = || StoreError::Unavailable("an access log's records are being read for another delivery".into());
        let _alone = self.judging.try_lock().map_err(|_| busy())?;
        let sound = accesses::is_sound(&self.readers, delivery.log).await?;
        if !sound {
            error!(log = %delivery.log, "an access log's records on file are not those that were taken in: see `access verify`");
            return Err(rows::corrupt("record"));
        }
        let delivered = self.take_in(delivery, true).await?;
        Ok(delivered.expect("what is sound is judged"))
    }
}

fn migrator() -> Migrator {
    let simple = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        simple(1, "initial", include_str!("../../migrations/0001_initial.sql")),
        simple(2, "log file", include_str!("../../migrations/0002_log_file.sql")),
        simple(3, "access log", include_str!("../../migrations/0003_access_log.sql")),
        simple(4, "forgetting", include_str!("../../migrations/0004_forgetting.sql")),
    ])
}

impl Store for SqliteStore {
    async fn enroll_device(
        &self,
        request: &RequestKey,
        device: &NewDevice,
        limit: u32,
    ) -> Result<(DeviceId, LogHead), StoreError> {
        let mut tx = self.begin().await?;
        let head = changes::head(&mut tx).await?;
        if let Some(earlier) = requests::answered(&mut tx, request).await? {
            return Ok((earlier?, head));
        }
        let person = people::enroll(&mut tx, device, limit).await?;
        requests::remember(&mut tx, request, person, &device.id).await?;
        tx.commit().await?;
        Ok((device.id, head))
    }

    async fn device(&self, id: DeviceId) -> Result<Device, StoreError> {
        people::device(&mut *self.readers.acquire().await?, id).await
    }

    async fn issue_consent(
        &self,
        request: &RequestKey,
        consent: &NewConsent,
        limit: u32,
        random: &dyn Random,
    ) -> Result<(IssuedToken, LogHead), StoreError> {
        let mut tx = self.begin().await?;
        if let Some(earlier) = requests::answered(&mut tx, request).await? {
            return Ok((earlier?, changes::head(&mut tx).await?));
        }
        let head = consents::replace_paper(&mut tx, consent, random).await?;
        consents::insert(&mut tx, consent, limit).await?;
        let issued = IssuedToken { cti: consent.cti, expires_at: consent.expires_at, token: consent.token.clone() };
        requests::remember(&mut tx, request, consent.person, &issued).await?;
        self.commit(tx).await?;
        Ok((issued, head))
    }

    async fn issue_standing(&self, consents: &[NewConsent], limit: u32) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for consent in consents {
            consents::insert(&mut tx, consent, limit).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn revoke_consent(&self, cti: Cti, of: Option<PersonId>, now: UnixTime) -> Result<LogHead, StoreError> {
        let mut tx = self.begin().await?;
        let head = consents::revoke(&mut tx, cti, of, now).await?;
        self.commit(tx).await?;
        Ok(head)
    }

    async fn consents(
        &self,
        person: PersonId,
        now: UnixTime,
        after: Option<PageKey>,
        limit: u32,
    ) -> Result<Vec<IssuedConsent>, StoreError> {
        consents::list(&mut *self.readers.acquire().await?, person, now, after, limit).await
    }

    async fn revoke_standing(&self, now: UnixTime, random: &dyn Random) -> Result<u32, StoreError> {
        let mut tx = self.begin().await?;
        let revoked = consents::revoke_standing(&mut tx, now, random).await?;
        self.commit(tx).await?;
        Ok(revoked)
    }

    async fn delete_traveler(
        &self,
        device: DeviceId,
        now: UnixTime,
        random: &dyn Random,
    ) -> Result<Forgotten, StoreError> {
        let mut tx = self.begin().await?;
        let forgotten = deletion::forget(&mut tx, device, now, random).await?;
        self.commit(tx).await?;
        deletion::empty_log(&self.writer).await;
        Ok(forgotten)
    }

    async fn find(&self, cti: Cti, scope: Scope) -> Result<Snapshot, StoreError> {
        let mut reader = self.readers.acquire().await?;
        if consents::reads_evidence(scope) {
            // Dropping a transaction that only read ends its snapshot.
            let mut tx = reader.begin().await?;
            return consents::find(&mut tx, cti, scope).await;
        }
        // One statement is a snapshot of its own, and most lookups need no more.
        consents::find(&mut reader, cti, scope).await
    }

    async fn set_code(
        &self,
        request: &RequestKey,
        assignment: &NewAssignment,
        random: &dyn Random,
    ) -> Result<Assigned, StoreError> {
        let mut tx = self.begin().await?;
        if let Some(earlier) = requests::answered(&mut tx, request).await? {
            return earlier;
        }
        let (person, assigned) = codes::set(&mut tx, &request.id, assignment, random).await?;
        requests::remember(&mut tx, request, person, &assigned).await?;
        self.commit(tx).await?;
        Ok(assigned)
    }

    async fn seed(&self, people: &[NewPerson]) -> Result<u32, StoreError> {
        let mut tx = self.begin().await?;
        let added = people::seed(&mut tx, people).await?;
        tx.commit().await?;
        Ok(added)
    }

    async fn person_by_document(&self, document: &Document) -> Result<Option<PersonId>, StoreError> {
        let mut connection = self.readers.acquire().await?;
        Ok(people::by_document(&mut connection, document).await?.map(|(person, _)| person))
    }

    async fn head(&self) -> Result<LogHead, StoreError> {
        changes::head(&mut *self.readers.acquire().await?).await
    }

    fn commits(&self) -> watch::Receiver<()> {
        self.committed.subscribe()
    }

    async fn changes(&self, after: u64, limit: u32) -> Result<Vec<Change>, StoreError> {
        changes::after(&mut *self.readers.acquire().await?, after, limit).await
    }

    async fn record_accesses(&self, delivery: &Delivery) -> Result<Delivered, StoreError> {
        if let Some(delivered) = self.take_in(delivery, false).await? {
            return Ok(delivered);
        }
        // It may take longer than anybody waits: what is found then is what the next delivery hears.
        let (store, delivery) = (self.clone(), delivery.clone());
        let judged = tokio::spawn(async move { store.judge(&delivery).await });
        judged.await.map_err(|error| StoreError::Unavailable(error.into()))?
    }

    async fn accesses(
        &self,
        person: PersonId,
        until: UnixTime,
        after: Option<AccessKey>,
        limit: u32,
    ) -> Result<Vec<TravelerAccess>, StoreError> {
        accesses::list(&mut *self.readers.acquire().await?, person, until, after, limit).await
    }

    async fn access_logs(&self) -> Result<Vec<LogOnFile>, StoreError> {
        let mut reader = self.readers.acquire().await?;
        accesses::logs(&mut *reader.begin().await?).await
    }

    async fn access_records(&self, log: LogId, from: u64, limit: u32) -> Result<Vec<RecordOnFile>, StoreError> {
        accesses::records(&mut *self.readers.acquire().await?, log, from, limit).await
    }

    async fn sweep(&self, now: UnixTime, access_retention: Duration) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let mut forgotten = 0;
        for (statement, retention) in SWEEPS {
            let before = rows::secs(now.minus(retention));
            let swept = sqlx::query(statement).bind(before).bind(SWEPT_AT_ONCE).execute(&mut *tx).await?;
            forgotten += swept.rows_affected();
        }
        forgotten += accesses::sweep(&mut tx, now.minus(access_retention), SWEPT_AT_ONCE).await?;
        tx.commit().await?;
        if forgotten == 0 {
            // What was still in use when a traveler was forgotten, or was swept before this, leaves the files now.
            deletion::empty_log(&self.writer).await;
        }
        Ok(forgotten)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl From<sqlx::Error> for StoreError {
    /// SQLite's messages name tables and columns, never a value.
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

#[cfg(test)]
mod tests {
    use proto::random::SystemRandom;

    use super::*;
    use crate::{
        store::{Name, suite},
        test_support::{HOUR, NOW, device_key, new_device, request, seeded_document},
    };

    async fn open(dir: &Path) -> SqliteStore {
        SqliteStore::open(&dir.join("node.db"), &SystemRandom).await.unwrap()
    }

    #[tokio::test]
    async fn upholds_the_stores_contract() {
        suite::run(async || {
            let dir = tempfile::tempdir().unwrap();
            (open(dir.path()).await, dir)
        })
        .await;
    }

    #[tokio::test]
    async fn the_log_keeps_its_epoch_when_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).await;
        let head = first.head().await.unwrap();
        first.close().await;
        assert_eq!(open(dir.path()).await.head().await.unwrap(), head);
    }

    /// A log with three events; then the head that stands, and the directory.
    async fn log(dir: &Path) -> LogHead {
        let store = open(dir).await;
        let head = store.head().await.unwrap();
        store.close().await;
        head
    }

    async fn epoch_after(dir: &Path) -> [u8; 16] {
        let store = open(dir).await;
        let head = store.head().await.unwrap();
        store.close().await;
        head.epoch
    }

    #[tokio::test]
    async fn a_file_that_was_put_back_begins_a_new_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let (file, backup) = (dir.path().join("node.db"), dir.path().join("backup.db"));
        let epoch = log(dir.path()).await.epoch;
        std::fs::copy(&file, &backup).unwrap();
        assert_eq!(epoch_after(dir.path()).await, epoch, "a restart is no restore");
        std::fs::rename(&backup, &file).unwrap();
        let restored = epoch_after(dir.path()).await;
        assert_ne!(restored, epoch);
        assert_eq!(epoch_after(dir.path()).await, restored, "and keeps it");
    }

    #[tokio::test]
    async fn a_copy_over_the_same_file_from_before_the_last_event_begins_a_new_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let (file, backup) = (dir.path().join("node.db"), dir.path().join("backup.db"));
        let epoch = log(dir.path()).await.epoch;
        std::fs::copy(&file, &backup).unwrap();
        let store = open(dir.path()).await;
        suite::event(&store).await;
        // Gone without a word, a moment after the event was told.
        store.close().await;
        std::fs::write(&file, std::fs::read(&backup).unwrap()).unwrap();
        assert_ne!(epoch_after(dir.path()).await, epoch);
    }

    #[tokio::test]
    async fn a_database_behind_its_witness_begins_a_new_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let head = log(dir.path()).await;
        epoch::witness(&dir.path().join("node.db"), LogHead { seq: head.seq + 1, ..head }).unwrap();
        let restored = epoch_after(dir.path()).await;
        assert_ne!(restored, head.epoch);
        assert_eq!(epoch_after(dir.path()).await, restored);
        std::fs::remove_file(dir.path().join("node.db.head")).unwrap();
        assert_eq!(epoch_after(dir.path()).await, restored, "no witness accuses nobody");
        let store = open(dir.path()).await;
        let renewed = store.renew_epoch(&SystemRandom).await.unwrap();
        assert_ne!(renewed.epoch, restored);
        store.close().await;
        assert_eq!(epoch_after(dir.path()).await, renewed.epoch);
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("node.db"), [7; 4096]).unwrap();
        let error = SqliteStore::open(&dir.path().join("node.db"), &SystemRandom).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }

    #[tokio::test]
    async fn nothing_of_a_forgotten_traveler_is_left_in_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let (document, name) = (seeded_document(0), Name::new("欧阳星洲").unwrap());
        let device = new_device(&document, &name, &device_key());
        store.enroll_device(&request("request-1", ""), &device, 1).await.unwrap();
        let traces = [document.number().as_bytes(), name.as_str().as_bytes(), &device.id.0];
        let left = || {
            let files = ["node.db", "node.db-wal"].map(|file| std::fs::read(dir.path().join(file)).unwrap()).concat();
            traces.map(|trace| files.windows(trace.len()).any(|window| window == trace))
        };
        assert_eq!(left(), [true; 3]);
        store.delete_traveler(device.id, NOW, &SystemRandom).await.unwrap();
        assert_eq!(left(), [false; 3]);
        // A reader that is in the middle of something puts it off, and no call waits longer than it may.
        let again = new_device(&document, &name, &device_key());
        store.enroll_device(&request("request-1", ""), &again, 1).await.unwrap();
        let mut reader = store.readers.acquire().await.unwrap();
        let mut snapshot = reader.begin().await.unwrap();
        changes::head(&mut snapshot).await.unwrap();
        store.delete_traveler(again.id, NOW, &SystemRandom).await.unwrap();
        assert_ne!(left(), [false; 3]);
        drop(snapshot);
        drop(reader);
        store.sweep(NOW, HOUR).await.unwrap();
        assert_eq!(left(), [false; 3], "the next sweep sees to it");
        store.close().await;
        assert!(!std::fs::exists(dir.path().join("node.db-wal")).unwrap());
        let file = std::fs::read(dir.path().join("node.db")).unwrap();
        assert!(!file.windows(name.as_str().len()).any(|window| window == name.as_str().as_bytes()));
    }

    #[tokio::test]
    async fn a_damaged_record_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let person = suite::traveler_with_accesses(&store, 5).await;
        let damage = "UPDATE access SET record = CAST(x'ff' || substr(record, 2) AS BLOB) WHERE idx IN (1, 4)";
        sqlx::query(damage).execute(&store.writer).await.unwrap();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.accesses(person, NOW, after, 1).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.key);
            seen.push(last.key.index);
        }
        assert_eq!(seen, [3, 2, 0]);
        assert_eq!(store.accesses(person, NOW, None, 3).await.unwrap().len(), 3, "a page is full if there is enough");
    }

    #[tokio::test]
    async fn a_closed_store_does_not_answer() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        store.close().await;
        assert!(matches!(store.head().await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.find(Cti([0; 16]), Scope::ALL).await, Err(StoreError::Unavailable(_))));
    }
}
