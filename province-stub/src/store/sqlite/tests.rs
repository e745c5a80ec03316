//! What is SQLite's own: files that were put back, what is left in them, and what lies in them sealed.

use std::collections::BTreeSet;

use proto::{random::SystemRandom, statement::LogHead, terms::Scope, token::Cti};
use sqlx::{Connection as _, Row as _};

use super::*;
use crate::{
    document::Document,
    store::{Name, NewAssignment, Store as _, filing::OperatorAccess, suite},
    test_support::{NOW, RETENTION, device_key, new_device, request, seeded_document, vault},
    vault::{Indexed, Sealed},
};

async fn open(dir: &Path) -> SqliteStore {
    open_with(dir, vault()).await.unwrap()
}

async fn open_with(dir: &Path, vault: Vault) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(&dir.join("node.db"), vault, &SystemRandom).await
}

/// What a document is found by.
fn hash(document: &Document) -> [u8; 16] {
    let value = [&[document.kind().number()], document.number().as_bytes()].concat();
    vault().current().index(Indexed::Document, &value)
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
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
    let witness = Witness::at(dir.path().join("node.db.head"));
    witness.note(LogHead { seq: head.seq + 1, ..head }).unwrap();
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
    let error = open_with(dir.path(), vault()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn nothing_of_a_forgotten_traveler_is_left_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (document, name) = (seeded_document(0), Name::new("欧阳星洲").unwrap());
    let device = new_device(&document, &name, &device_key());
    store.enroll_device(&request("request-1", ""), &device, 1).await.unwrap();
    let sealed: Vec<u8> = sqlx::query_scalar("SELECT particulars FROM person").fetch_one(&store.writer).await.unwrap();
    let traces = [&hash(&document), &sealed[..], &device.id.0];
    let left = || {
        let files = ["node.db", "node.db-wal"].map(|file| std::fs::read(dir.path().join(file)).unwrap()).concat();
        traces.map(|trace| contains(&files, trace))
    };
    assert_eq!(left(), [true; 3]);
    store.delete_traveler(device.id, NOW, &SystemRandom).await.unwrap();
    assert_eq!(left(), [false; 3]);
    // A reader that is in the middle of something puts it off, and no call waits longer than it may.
    let again = new_device(&document, &name, &device_key());
    store.enroll_device(&request("request-1", ""), &again, 1).await.unwrap();
    let mut reader = store.readers.acquire().await.unwrap();
    let mut snapshot = reader.begin().await.unwrap();
    sqlx::query("SELECT seq FROM log_head").fetch_one(&mut *snapshot).await.unwrap();
    store.delete_traveler(again.id, NOW, &SystemRandom).await.unwrap();
    assert_ne!(left(), [false; 3]);
    drop(snapshot);
    drop(reader);
    store.sweep(NOW, RETENTION).await.unwrap();
    assert_eq!(left(), [false; 3], "the next sweep sees to it");
    store.close().await;
    assert!(!std::fs::exists(dir.path().join("node.db-wal")).unwrap());
    let file = std::fs::read(dir.path().join("node.db")).unwrap();
    assert!(!contains(&file, &hash(&document)));
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
async fn evidence_is_found_by_an_index_however_much_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for (statement, index) in sql::asked_of_evidence() {
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
            .fetch_all(&store.writer)
            .await
            .unwrap();
        let plan: Vec<String> = plan.iter().map(|step| step.get("detail")).collect();
        assert!(plan[0].contains(&format!("SEARCH evidence USING INDEX {index} ")), "{statement}: {plan:?}");
    }
}

#[tokio::test]
async fn a_closed_store_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    store.close().await;
    assert!(matches!(store.head().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.find(Cti([0; 16]), Scope::ALL).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_database_of_an_earlier_schema_is_refused_with_the_mend() {
    // Changed since, and of a version that is no more.
    for change in ["UPDATE _sqlx_migrations SET checksum = x'00'", "UPDATE _sqlx_migrations SET version = 4"] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        sqlx::query(change).execute(&store.writer).await.unwrap();
        store.close().await;
        let StoreError::Unavailable(error) = open_with(dir.path(), vault()).await.unwrap_err() else { panic!() };
        let said = "it was made by an earlier development version; remove it, or name another data_dir";
        assert_eq!(error.to_string(), said);
    }
}

fn sealed_assignment() -> NewAssignment {
    NewAssignment {
        document: seeded_document(0),
        label: "红码".into(),
        rule: "R-CASE".into(),
        authority: "41/cdc".parse().unwrap(),
        justification: "确诊病例的同住人".into(),
        set_by: "41/operator/li".into(),
        now: NOW,
    }
}

/// A store that knows one person's document, name and reasons.
async fn knowing(dir: &Path) -> SqliteStore {
    let store = open(dir).await;
    suite::event(&store).await;
    let device = new_device(&seeded_document(0), &Name::new("欧阳星洲").unwrap(), &device_key());
    store.enroll_device(&request("request-1", ""), &device, 1).await.unwrap();
    let key = crate::request::RequestKey { method: crate::request::Method::SetCode, ..request("request-2", "") };
    store.set_code(&key, &sealed_assignment(), &SystemRandom).await.unwrap();
    store
}

#[tokio::test]
async fn the_files_name_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = knowing(dir.path()).await;
    let document = seeded_document(0);
    let needles = [document.number(), "欧阳星洲", "确诊病例的同住人", &document.number()[6..]].map(str::as_bytes);
    let read = || {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let files: BTreeSet<_> = files.collect();
        assert!(files.len() >= 3, "{files:?}");
        files.iter().map(|file| std::fs::read(file).unwrap()).collect::<Vec<_>>().concat()
    };
    let bytes = read();
    // Something that is there, so that it is the files which are read.
    assert!(contains(&bytes, "红码".as_bytes()) && contains(&bytes, &hash(&document)));
    assert_eq!(needles.map(|needle| contains(&bytes, needle)), [false; 4]);
    store.wipe().await;
    assert_eq!(needles.map(|needle| contains(&read(), needle)), [false; 4]);
}

/// Which row of `operator_access` it is.
fn reason_place() -> Vec<u8> {
    [&NOW.as_secs().to_be_bytes()[..], b"li\0look"].concat()
}

async fn fingerprints(store: &SqliteStore) -> Vec<Vec<u8>> {
    sqlx::query_scalar("SELECT fingerprint FROM rest_key ORDER BY id").fetch_all(&store.writer).await.unwrap()
}

#[tokio::test]
async fn a_key_is_replaced_while_all_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = knowing(dir.path()).await;
    let person = store.person_by_document(&seeded_document(0)).await.unwrap().unwrap();
    let [old] = &fingerprints(&store).await[..] else { panic!() };
    let old = old.clone();
    let reason = vault().seal(Sealed::Reason, &reason_place(), b"a visit");
    sqlx::query(
        "INSERT INTO operator_access (person, at, operator, method, reason, key) VALUES (1, $1, 'li', 'look', $2, 1)",
    )
    .bind(NOW.as_secs().cast_signed())
    .bind(reason)
    .execute(&store.writer)
    .await
    .unwrap();
    store.close().await;

    let error = open_with(dir.path(), Vault::new(&[6; 32], Arc::new(SystemRandom))).await.unwrap_err();
    let StoreError::Unavailable(error) = error else { panic!() };
    assert!(error.to_string().contains(&peer::config::to_hex(&old)), "{error}");

    let rotated = || vault().behind(&[6; 32]);
    let store = open_with(dir.path(), rotated()).await.unwrap();
    // Who is there by the old key is found by it, and not added again.
    assert_eq!(store.person_by_document(&seeded_document(0)).await.unwrap(), Some(person));
    let device = new_device(&seeded_document(0), &Name::new("欧阳星洲").unwrap(), &device_key());
    store.enroll_device(&request("request-3", ""), &device, 9).await.unwrap();
    assert_eq!(store.device(device.id).await.unwrap().person, person);
    let again = suite::seeded_again(&store).await;
    assert_eq!(again, 0);
    // The answer that was given under the old key is given again.
    store.enroll_device(&request("request-1", ""), &device, 1).await.unwrap();
    let new = new_device(&seeded_document(1), &Name::new("上官溪渡").unwrap(), &device_key());
    store.enroll_device(&request("request-4", ""), &new, 1).await.unwrap();

    assert_eq!(store.reseal(1).await.unwrap(), 1);
    assert_eq!(store.reseal(9).await.unwrap(), 2, "a person, a justification and a reason");
    assert_eq!(fingerprints(&store).await.len(), 2);
    assert_eq!(store.reseal(9).await.unwrap(), 0);
    assert!(!fingerprints(&store).await.contains(&old));
    assert_eq!(store.person_by_document(&seeded_document(0)).await.unwrap(), Some(person));
    store.close().await;

    // The old key may go.
    let store = open_with(dir.path(), Vault::new(&[6; 32], Arc::new(SystemRandom))).await.unwrap();
    assert_eq!(store.person_by_document(&seeded_document(0)).await.unwrap(), Some(person));
    let third = new_device(&seeded_document(0), &Name::new("欧阳星洲").unwrap(), &device_key());
    store.enroll_device(&request("request-5", ""), &third, 9).await.unwrap();
    let justification: Vec<u8> = sqlx::query_scalar("SELECT justification FROM code WHERE source = 'hand'")
        .fetch_one(&store.writer)
        .await
        .unwrap();
    let place = [&person.0.to_be_bytes()[..], &NOW.as_secs().to_be_bytes(), b"request-2"].concat();
    let opened = rotated().current().open(Sealed::Justification, &place, &justification).unwrap();
    assert_eq!(&**opened, "确诊病例的同住人".as_bytes());
    let reason: Vec<u8> =
        sqlx::query_scalar("SELECT reason FROM operator_access").fetch_one(&store.writer).await.unwrap();
    let opened = rotated().current().open(Sealed::Reason, &reason_place(), &reason).unwrap();
    assert_eq!(&**opened, b"a visit");
}

#[tokio::test]
async fn a_damaged_row_holds_up_no_other_and_its_key_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = knowing(dir.path()).await;
    for index in 1..6 {
        let device = new_device(&seeded_document(index), &Name::new("上官溪渡").unwrap(), &device_key());
        store.enroll_device(&request(&format!("enroll-{index}"), ""), &device, 1).await.unwrap();
    }
    let key = crate::request::RequestKey { method: crate::request::Method::SetCode, ..request("request-3", "") };
    let assignment = NewAssignment { document: seeded_document(1), ..sealed_assignment() };
    store.set_code(&key, &assignment, &SystemRandom).await.unwrap();
    let access = OperatorAccess {
        document: seeded_document(1),
        operator: "41/operator/li".into(),
        reason: "a visit".into(),
        now: NOW,
    };
    store.record_operator_access(&access).await.unwrap();
    store.record_operator_access(&access).await.unwrap();
    store.record_operator_access(&access).await.unwrap();
    // What is bent, what is cut, what is in another place than it was sealed into, and what is not there or of no time.
    for damage in [
        "UPDATE person SET particulars = CAST(x'00' || substr(particulars, 2) AS BLOB) WHERE id = 1",
        "UPDATE person SET particulars = x'' WHERE id = 2",
        "UPDATE person SET document = zeroblob(16) WHERE id = 3",
        "UPDATE code SET justification = x'00' WHERE id = (SELECT max(id) FROM code)",
        "UPDATE operator_access SET reason = NULL WHERE id = 1",
        "UPDATE operator_access SET at = -1 WHERE id = 2",
    ] {
        assert_eq!(sqlx::query(damage).execute(&store.writer).await.unwrap().rows_affected(), 1, "{damage}");
    }
    let [old] = &fingerprints(&store).await[..] else { panic!() };
    let old = old.clone();
    store.close().await;

    let store = open_with(dir.path(), vault().behind(&[6; 32])).await.unwrap();
    let left = async || {
        let keys = "SELECT (SELECT count(*) FROM person WHERE key = 1), (SELECT count(*) FROM code WHERE key = 1), \
                    (SELECT count(*) FROM operator_access WHERE key = 1)";
        sqlx::query_as::<_, (i64, i64, i64)>(keys).fetch_one(&store.writer).await.unwrap()
    };
    assert_eq!(left().await, (6, 2, 3));
    let mut resealed = 0;
    loop {
        match store.reseal(1).await.unwrap() {
            0 => break,
            more => resealed += more,
        }
    }
    assert_eq!((resealed, left().await), (3 + 1 + 1, (3, 1, 2)));
    assert_eq!(store.reseal(9).await.unwrap(), 0, "and it is no more work");
    assert!(fingerprints(&store).await.contains(&old), "who puts the rows back needs it");
    store.close().await;
    let error = open_with(dir.path(), Vault::new(&[6; 32], Arc::new(SystemRandom))).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");

    // When they are gone, or whole again, it may go.
    let store = open_with(dir.path(), vault().behind(&[6; 32])).await.unwrap();
    for gone in [
        "UPDATE code SET justification = NULL, key = NULL WHERE key = 1",
        "DELETE FROM operator_access WHERE key = 1",
        "UPDATE person SET key = 2 WHERE key = 1",
    ] {
        sqlx::query(gone).execute(&store.writer).await.unwrap();
    }
    assert_eq!(store.reseal(9).await.unwrap(), 0);
    assert!(!fingerprints(&store).await.contains(&old));
}

#[tokio::test]
async fn a_store_that_is_damaged_all_over_is_to_be_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = knowing(dir.path()).await;
    let many = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i <= 1000)
                INSERT INTO operator_access (person, at, operator, method, reason, key)
                SELECT 1, i, 'li', 'look', x'00', 1 FROM n";
    sqlx::query(many).execute(&store.writer).await.unwrap();
    store.close().await;
    let store = open_with(dir.path(), vault().behind(&[6; 32])).await.unwrap();
    let StoreError::Unavailable(error) = store.reseal(500).await.unwrap_err() else { panic!() };
    assert!(error.to_string().contains("more than 1000 sealed rows"), "{error}");
}

#[tokio::test]
async fn a_program_that_lacks_the_current_key_adds_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let behind = knowing(dir.path()).await;
    let ahead = open_with(dir.path(), vault().behind(&[6; 32])).await.unwrap();
    let device = new_device(&seeded_document(1), &Name::new("上官溪渡").unwrap(), &device_key());
    let refused = behind.enroll_device(&request("request-9", ""), &device, 1).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)));
    ahead.enroll_device(&request("request-9", ""), &device, 1).await.unwrap();
}

#[tokio::test]
async fn what_is_moved_to_another_row_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let store = knowing(dir.path()).await;
    let other = new_device(&seeded_document(1), &Name::new("上官溪渡").unwrap(), &device_key());
    store.enroll_device(&request("request-9", ""), &other, 1).await.unwrap();
    let moved = "UPDATE person SET particulars = (SELECT particulars FROM person WHERE id <> $1) WHERE id = $1";
    let person = store.person_by_document(&seeded_document(1)).await.unwrap().unwrap();
    sqlx::query(moved).bind(person.0).execute(&store.writer).await.unwrap();
    let again = new_device(&seeded_document(1), &Name::new("上官溪渡").unwrap(), &device_key());
    let refused = store.enroll_device(&request("request-10", ""), &again, 9).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
}

#[tokio::test]
async fn who_only_looks_needs_no_key_and_learns_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = knowing(dir.path()).await;
    let look = SqliteStore::inspect(&dir.path().join("node.db")).await.unwrap();
    assert_eq!(look.head().await.unwrap(), store.head().await.unwrap());
    assert!(look.access_logs().await.unwrap().is_empty());
    let refused = look.person_by_document(&seeded_document(0)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
}
