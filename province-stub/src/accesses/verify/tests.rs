//! What somebody with the file in their hands might do to it, and whether it is found.

use std::{path::PathBuf, time::Duration};

use proto::{
    hint::NodeSecret,
    random::SystemRandom,
    suite::{SigningKey, Suite},
    token::Cti,
    trust::keys,
};
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;

use super::*;
use crate::{
    keys::{Keys, SealingKey},
    store::{Retention, access_log::Delivery, sqlite::SqliteStore},
    test_support::{NOW, ReplicaLog, entry, member, tree, trust_list, vault},
};

const RECORDS: u64 = 21;
const KEPT: Duration = Duration::from_secs(1);
const RETENTION: Retention = Retention { accesses: KEPT, evidence: KEPT };

/// A store with one log of 21 records, of which the first three are forgotten and 24 are signed.
struct Site {
    dir: TempDir,
    log: ReplicaLog,
    list: TrustList,
}

impl Site {
    async fn new() -> Self {
        let log = ReplicaLog::of_strangers(24);
        let keys_of_home = Keys {
            consent: SigningKey::generate(Suite::Ed25519),
            statement: SigningKey::generate(Suite::Ed25519),
            secret: NodeSecret([3; 32]),
            sealing: SealingKey::new([4; 32]),
        };
        let mut list = trust_list(&keys_of_home);
        list.gateway.log_keys = keys([log.key.verifying_key().clone()]);
        let site = Self { dir: tempfile::tempdir().unwrap(), log, list };
        let store = SqliteStore::open(&site.file(), vault(), &SystemRandom).await.unwrap();
        let old = Delivery { now: NOW.minus(KEPT * 2), ..site.log.delivery(0, 3, 10) };
        store.record_accesses(&old).await.unwrap();
        store.record_accesses(&site.log.delivery(3, 12, 12)).await.unwrap();
        store.record_accesses(&site.log.delivery(12, RECORDS, 24)).await.unwrap();
        assert_eq!(store.sweep(NOW, RETENTION).await.unwrap(), 3);
        store.close().await;
        site
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("node.db")
    }

    async fn tamper(&self, statements: &'static str) {
        let url = format!("sqlite:{}", self.file().display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn fault(&self) -> Option<Fault> {
        self.verdict().await.fault
    }

    async fn verdict(&self) -> Verdict {
        let store = SqliteStore::inspect(&self.file()).await.unwrap();
        let mut verdicts = verify(&store, member(), &self.list).await.unwrap();
        store.close().await;
        assert_eq!(verdicts.len(), 1);
        verdicts.remove(0)
    }
}

#[tokio::test]
async fn what_is_as_it_came_is_well_wherever_it_begins_and_ends() {
    let mut site = Site::new().await;
    assert_eq!(site.fault().await, None);
    let store = SqliteStore::open(&site.file(), vault(), &SystemRandom).await.unwrap();
    store.record_accesses(&site.log.delivery(RECORDS, 24, 24)).await.unwrap();
    assert_eq!(site.fault().await, None, "beside a node that runs");
    while store.sweep(NOW.plus(KEPT * 2), RETENTION).await.unwrap() > 0 {}
    assert_eq!(site.fault().await, None, "and when all is forgotten");
    site.log.records.push(vec![0xff]);
    store.record_accesses(&site.log.delivery(24, 25, 25)).await.unwrap();
    assert_eq!(site.fault().await, None, "with a record that nobody can read");
    store.close().await;
}

#[tokio::test]
async fn whatever_is_done_to_the_file_is_found() {
    for (statements, fault) in [
        // A hash within the record: it reads as well as before. Peaks of 21 records: 0 to 15, 16 to 19, 20.
        (
            "UPDATE access SET record = CAST(substr(record, 1, length(record) - 1) || x'00' AS BLOB) WHERE idx = 17",
            Fault::Changed(16..=19),
        ),
        (
            "UPDATE access SET record = CAST(substr(record, 1, length(record) - 1) || x'00' AS BLOB) WHERE idx = 20",
            Fault::Changed(20..=20),
        ),
        (
            "UPDATE access SET record = CAST(substr(record, 1, length(record) - 1) || x'00' AS BLOB) WHERE idx = 5",
            Fault::Changed(3..=15),
        ),
        ("UPDATE access SET record = CAST(x'ff' || substr(record, 2) AS BLOB) WHERE idx = 6", Fault::Unreadable(6)),
        ("DELETE FROM access WHERE idx = 3", Fault::Missing(3)),
        ("DELETE FROM access WHERE idx = 9", Fault::Missing(9)),
        ("DELETE FROM access WHERE idx >= 19", Fault::Missing(19)),
        ("DELETE FROM access", Fault::Missing(3)),
        (
            "UPDATE access SET idx = 1000 WHERE idx = 16; UPDATE access SET idx = 16 WHERE idx = 18; \
             UPDATE access SET idx = 18 WHERE idx = 1000",
            Fault::Changed(16..=19),
        ),
        (
            "INSERT INTO access SELECT log, 21, record, time, received_at, person, device FROM access WHERE idx = 20",
            Fault::Outside(21),
        ),
        (
            "INSERT INTO access SELECT log, 2, record, time, received_at, person, device FROM access WHERE idx = 3",
            Fault::Outside(2),
        ),
        ("UPDATE access_log SET peaks = zeroblob(96)", Fault::Changed(3..=15)),
        ("UPDATE access_log SET base_peaks = zeroblob(64)", Fault::Changed(3..=15)),
        // What is on file about a head is not what the note says.
        ("UPDATE access_log SET latest_size = 20", Fault::ForeignHead(20)),
        ("UPDATE access_log SET latest_root = zeroblob(32)", Fault::ForeignHead(24)),
        ("UPDATE access_log SET latest_size = NULL, awaited_size = NULL", Fault::NoHead(21)),
        ("UPDATE access_log SET bound_size = NULL", Fault::NoHead(21)),
        ("UPDATE access_log SET bound_size = 23", Fault::ForeignHead(23)),
        ("UPDATE access_log SET bound_proof = zeroblob(length(bound_proof))", Fault::NotAsSigned(21)),
        ("UPDATE access_log SET key = zeroblob(32)", Fault::ForeignKey),
    ] {
        let site = Site::new().await;
        site.tamper(statements).await;
        assert_eq!(site.fault().await, Some(fault), "{statements}");
    }
}

#[tokio::test]
async fn a_head_must_verify_by_the_logs_own_key_listed_or_not() {
    let mut site = Site::new().await;
    site.list.gateway.log_keys = keys([]);
    let verdict = site.verdict().await;
    assert!(verdict.is_well() && !verdict.listed);
    site.tamper("UPDATE access_log SET latest_note = replace(latest_note, '24', '25')").await;
    assert!(matches!(site.fault().await, Some(Fault::Head { size: 24, .. })));
}

#[tokio::test]
async fn neither_a_gap_nor_a_conflict_is_well() {
    let site = Site::new().await;
    assert!(site.verdict().await.is_well());
    let store = SqliteStore::open(&site.file(), vault(), &SystemRandom).await.unwrap();
    store.record_accesses(&site.log.turned(20).delivery(20, 21, 21)).await.unwrap();
    store.close().await;
    site.tamper("DELETE FROM access_conflict").await;
    let verdict = site.verdict().await;
    assert!(verdict.fault.is_none() && verdict.log.evidence.is_empty() && !verdict.is_well(), "{verdict:?}");

    let site = Site::new().await;
    let store = SqliteStore::open(&site.file(), vault(), &SystemRandom).await.unwrap();
    let before = Some(tree(&site.log.records[..23]));
    store.record_accesses(&Delivery { before, ..site.log.delivery(23, 24, 24) }).await.unwrap();
    let verdicts = verify(&store, member(), &site.list).await.unwrap();
    store.close().await;
    let told: Vec<_> = verdicts.iter().map(|verdict| (verdict.fault.is_none(), verdict.is_well())).collect();
    assert_eq!(told, [(true, false), (true, true)]);
}

#[tokio::test]
async fn nobody_is_accused_of_what_was_damaged_here() {
    for (statement, first) in [
        ("UPDATE access SET record = CAST(substr(record, 1, length(record) - 1) || x'00' AS BLOB) WHERE idx = 17", 16),
        ("UPDATE access_log SET peaks = zeroblob(96)", 21),
    ] {
        let site = Site::new().await;
        site.tamper(statement).await;
        let store = SqliteStore::open(&site.file(), vault(), &SystemRandom).await.unwrap();
        let refused = store.record_accesses(&site.log.delivery(first, 24, 24)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Unavailable(_)), "{refused:?}");
        let log = store.access_logs().await.unwrap().remove(0);
        assert_eq!((log.conflicts, log.evidence.len(), log.held.tree.size()), (0, 0, RECORDS));
        store.close().await;
    }
}

#[tokio::test]
async fn records_and_tree_that_were_changed_together_are_not_as_signed() {
    // To what is signed, and to below it.
    for end in [24, RECORDS] {
        let site = Site::new().await;
        let store = SqliteStore::open(&site.file(), vault(), &SystemRandom).await.unwrap();
        store.record_accesses(&site.log.delivery(RECORDS, end, 24)).await.unwrap();
        store.close().await;
        assert_eq!(site.fault().await, None);
        let mut held = SqliteStore::inspect(&site.file()).await.unwrap().access_logs().await.unwrap().remove(0).held;
        let forged = entry(Cti([5; 16]), NOW).encode();
        held.tree = held.base.clone();
        let last = end as usize - 1;
        let records = site.log.records[3..last].iter().chain([&forged]);
        records.for_each(|record| held.tree.push(leaf_hash(record)));
        let mut connection = SqliteConnection::connect(&format!("sqlite:{}", site.file().display())).await.unwrap();
        let forge = sqlx::query("UPDATE access SET record = ? WHERE idx = ?").bind(forged).bind(last as i64);
        forge.execute(&mut connection).await.unwrap();
        let peaks = held.tree.peaks().concat();
        sqlx::query("UPDATE access_log SET peaks = ?").bind(peaks).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        assert_eq!(site.fault().await, Some(Fault::NotAsSigned(end)));
    }
}
