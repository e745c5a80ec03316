//! The logs as a writer leaves them, and what becomes of them when somebody else has written.

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use opentelemetry::metrics::MeterProvider as _;
use peer::health::Impaired;
use proptest::prelude::*;
use proto::{
    contract::recognition::{Outcome, Source},
    envelope::Roots,
    identity::{PeerId, Realm},
    log::{
        checkpoint::Checkpoint,
        delivery::DeliveryReceipt,
        merkle::{self, is_consistent, root_of_path},
        record::{Caller, Ending, Entry, RefusalEntry},
    },
    member::Member,
    proof::ProofId,
    suite::{SigningKey, Suite},
    terms::{Kind, Purpose, Scope},
    time::{ManualClock, UnixTime},
    token::Cti,
    trust::{self, GatewayTrust, MemberTrust, TrustList},
};
use redb::{Database, ReadableTable as _};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{
    Damage, FILE, LogTool, StoreError,
    reader::Reader,
    receipt::KeptReceipt,
    space::{Space, SpaceLimits},
    store::{COMMIT, DELIVERED, HEADS, JOURNAL, META, NODES, RECORDS, TRIMMED},
    writer::{Commits, Item},
};
use crate::{metrics::RecordMetrics, redemption::Claim};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

fn member(code: &str) -> Member {
    code.parse().unwrap()
}

fn entry(n: u32, time: UnixTime) -> Entry {
    Entry {
        time,
        venue: Arc::new("44/station/a".parse().unwrap()),
        caller: (&PeerId::backend(member("44"), "app").unwrap()).into(),
        staff_id: None,
        purpose: Purpose::Entry,
        granted: Some(Scope::LEVEL),
        cti: Cti([1; 16]),
        kind: Kind::Own,
        policy_version: 1,
        exchange_id: u128::from(n).to_be_bytes(),
        trace_id: [2; 16],
        ending: Ending::Answered { outcome: Outcome::Status, source: Source::Home, statement: Some([3; 16]) },
    }
}

fn exchange(home: Member, n: u32, time: UnixTime) -> (Item, oneshot::Receiver<Option<super::InCommit>>) {
    let entry = entry(n, time);
    let record: Arc<[u8]> = entry.encode().into();
    let (durable, committed) = oneshot::channel();
    let leaf = merkle::leaf_hash(&record);
    (Item::Exchange { home, record, leaf, caller: entry.caller, claim: None, durable }, committed)
}

fn refusal() -> Item {
    let caller = Caller::from(&PeerId::gateway("1").unwrap());
    let record = RefusalEntry { time: NOW, caller, reason: "NOT_CBOR".into() }.encode();
    Item::Refusal { leaf: merkle::leaf_hash(&record), record }
}

/// A store under a directory, its writer called by hand.
struct Written {
    commits: Commits,
    space: Arc<Space>,
    statement_key: SigningKey,
    dir: PathBuf,
}

impl Written {
    fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, 1024)
    }

    fn open_with(dir: &Path, max_refusals: u64) -> Result<Self, StoreError> {
        let meter = opentelemetry::metrics::noop::NoopMeterProvider::new().meter("test");
        let space = Arc::new(Space::new(SpaceLimits::default()));
        let clock = Arc::new(ManualClock::at(NOW));
        let (metrics, impaired) = (RecordMetrics::new(&meter), Impaired::default());
        let commits = Commits::open(&dir.join(FILE), max_refusals, &space, clock, metrics, impaired)?;
        Ok(Self { commits, space, statement_key: SigningKey::generate(Suite::Ed25519), dir: dir.to_owned() })
    }

    fn reader(&self) -> Reader {
        self.commits.reader("tongxing.test".parse().unwrap())
    }

    /// Commits so many records of a member, a commit for each batch.
    fn put(&mut self, home: &str, count: u32, batch: u32, time: UnixTime) {
        let numbers: Vec<u32> = (0..count).collect();
        for numbers in numbers.chunks(batch as usize) {
            let items = numbers.iter().map(|n| exchange(member(home), *n, time).0);
            assert!(self.commits.commit(&mut items.collect()));
        }
    }

    /// Takes note of home's receipt for so many records.
    fn deliver(&mut self, home: &str, size: u64, keep_from: UnixTime) {
        let (home, log) = (member(home), self.reader().id());
        let root = self.reader().root_at(home, size).unwrap().expect("so many there are");
        let receipt = DeliveryReceipt { issuer: home, log, size, root, issued_at: NOW }.sign(&self.statement_key);
        let receipt = KeptReceipt { key: self.statement_key.verifying_key().clone(), receipt };
        assert!(self.commits.commit(&mut vec![Item::Delivered { home, size, receipt, keep_from }]));
    }

    fn list(&self) -> TrustList {
        let root = SigningKey::generate(Suite::Ed25519).verifying_key().clone();
        let entry = MemberTrust {
            bundle: vec![vec![1]],
            endpoints: vec![],
            consent_keys: trust::keys([]),
            statement_keys: trust::keys([self.statement_key.verifying_key().clone()]),
            sealing_key: [0; 32],
            categories: [].into(),
            suspension: None,
        };
        TrustList {
            domain: "tongxing.test".parse().unwrap(),
            roots: Roots::new(1, vec![root]).unwrap(),
            gateway: GatewayTrust { bundle: vec![vec![1]], log_keys: trust::keys([self.reader().key().clone()]) },
            members: BTreeMap::from([(member("44"), entry)]),
        }
    }
}

fn written() -> (TempDir, Written) {
    let dir = tempfile::tempdir().unwrap();
    let written = Written::open(dir.path()).unwrap();
    (dir, written)
}

fn damages(dir: &Path, list: &TrustList) -> Vec<Damage> {
    let found = LogTool::open(dir).and_then(|logs| logs.verify(Some(list), NOW));
    match found {
        Ok(found) => found.into_iter().filter_map(Result::err).collect(),
        Err(error) => vec![Damage::of_store(error.to_string())],
    }
}

#[test]
fn indexes_have_no_gaps_across_commits_and_starts_and_every_record_has_its_receipt() {
    let (dir, mut written) = written();
    let mut receipts = Vec::new();
    for round in 0..3 {
        let (items, committed): (Vec<_>, Vec<_>) =
            ["44", "51", "44"].iter().map(|home| exchange(member(home), round, NOW)).unzip();
        assert!(written.commits.commit(&mut items.into_iter().chain([refusal()]).collect()));
        for (home, mut committed) in ["44", "51", "44"].into_iter().zip(committed) {
            let in_commit = committed.try_recv().unwrap().expect("it is durable");
            let record = entry(round, NOW).encode();
            let receipt = in_commit.commit.receipt(Realm::Member(member(home)), record, in_commit.position);
            let on_record = receipt.verify(&written.list()).expect("a receipt that verifies");
            receipts.push((home, on_record.index));
        }
        let list = written.list();
        drop(written);
        assert_eq!(damages(dir.path(), &list), []);
        written = Written::open(dir.path()).unwrap();
    }
    let of = |home| receipts.iter().filter(|(of, _)| *of == home).map(|(_, index)| *index).collect::<Vec<_>>();
    assert_eq!((of("44"), of("51")), (vec![0, 1, 2, 3, 4, 5], vec![0, 1, 2]));
    assert_eq!(written.reader().size(member("44")), 6);
}

#[test]
fn batches_and_proofs_lead_to_the_signed_head_whatever_was_trimmed() {
    let (_dir, mut written) = written();
    written.put("44", 1500, 100, NOW);
    let (home, list) = (member("44"), written.list());
    let all: Vec<Vec<u8>> = written.reader().batch(home, 0, 5000, 1 << 20).unwrap().records;
    assert_eq!(all.len(), 1500);
    let mut frontier = merkle::Frontier::new();
    let mut roots = vec![frontier.root()];
    for record in &all {
        frontier.push(merkle::leaf_hash(record));
        roots.push(frontier.root());
    }
    let leaf_at = |index: u64| merkle::leaf_hash(&all[index as usize]);
    for trimmed in [0, 700, 1500] {
        if trimmed > 0 {
            written.deliver("44", trimmed, NOW.plus(Duration::from_secs(1)));
        }
        let reader = written.reader();
        let kept_from = reader.kept_from(home).unwrap();
        assert_eq!(kept_from, trimmed / 256 * 256);
        for first in [kept_from, kept_from + 1, 1407, 1499, 1500] {
            let batch = reader.batch(home, first, 100, 1 << 20).unwrap();
            let end = first as usize + batch.records.len();
            assert_eq!(batch.records, all[first as usize..end]);
            let head = Checkpoint::open(&batch.checkpoint, &list).unwrap();
            assert_eq!((head.size, head.root), (1500, roots[1500]));
            assert!(is_consistent((end as u64, roots[end]), (head.size, head.root), &batch.proof), "{first}");
            assert_eq!(reader.root_at(home, first).unwrap(), Some(roots[first as usize]));
        }
        for index in [kept_from, 1400, 1499] {
            let leaf = merkle::leaf_hash(&all[index as usize]);
            let proof = reader.prove(reader.id(), Realm::Member(home), index, &leaf).unwrap();
            assert_eq!(root_of_path(leaf, index, 1500, &proof.path), Some(roots[1500]), "{index}");
            assert!(reader.prove(reader.id(), Realm::Member(home), index, &[0; 32]).is_err(), "without the record");
        }
        let frontier = reader.frontier(home, kept_from).unwrap();
        assert_eq!(merkle::Frontier::from_peaks(kept_from, frontier).unwrap().root(), roots[kept_from as usize]);
        if kept_from > 0 {
            assert_eq!(reader.root_at(home, kept_from - 1).unwrap(), None);
            assert!(reader.prove(reader.id(), Realm::Member(home), kept_from - 1, &leaf_at(kept_from - 1)).is_err());
        }
        assert!(reader.prove(reader.id(), Realm::Member(home), 1500, &[0; 32]).is_err());
    }
    let room = 3 * all[1400].len();
    assert_eq!(written.reader().batch(home, 1400, 100, room).unwrap().records.len(), 3, "bytes are bounded too");
    assert_eq!(written.reader().batch(home, 1400, 100, room - 1).unwrap().records.len(), 2);
    assert_eq!(damages(&written.dir, &list), []);
}

#[test]
fn what_is_young_or_not_delivered_is_never_trimmed() {
    let (_dir, mut written) = written();
    let home = member("44");
    written.put("44", 300, 50, NOW);
    written.put("44", 300, 50, NOW.plus(Duration::from_secs(10)));
    written.deliver("44", 512, NOW);
    assert_eq!(written.reader().kept_from(home).unwrap(), 0, "nothing is older than that");
    written.deliver("44", 255, NOW.plus(Duration::from_secs(60)));
    assert_eq!(written.reader().kept_from(home).unwrap(), 0, "less than a block was delivered");
    written.deliver("44", 599, NOW.plus(Duration::from_secs(10)));
    assert_eq!(written.reader().kept_from(home).unwrap(), 256, "of 300 old ones one block");
    written.deliver("44", 600, NOW.plus(Duration::from_secs(11)));
    assert_eq!(written.reader().kept_from(home).unwrap(), 512);
    assert_eq!(damages(&written.dir, &written.list()), []);
}

#[test]
fn what_waits_is_found_again_and_refusals_are_bounded() {
    let (dir, mut written) = written();
    written.put("44", 300, 50, NOW);
    written.deliver("44", 290, NOW);
    let each = entry(0, NOW).encode().len() as u64;
    let list = written.list();
    drop(written);
    let mut written = Written::open_with(dir.path(), 256).unwrap();
    assert_eq!(written.space.waiting(member("44")), 10 * each);
    for _ in 0..70 {
        assert!(written.commits.commit(&mut (0..10).map(|_| refusal()).collect()));
    }
    let kept = LogTool::open(dir.path()).unwrap().logs().unwrap();
    assert_eq!(kept[1], (Realm::Gateway, 512, 700));
    assert_eq!(damages(dir.path(), &list), []);
}

#[test]
fn redemptions_are_remembered_while_they_live() {
    let (dir, mut written) = written();
    let claim = |n: u8, until| Claim::committed(ProofId([n; 16]), "44/station/a".parse().unwrap(), until);
    for claim in [claim(1, NOW), claim(2, NOW.plus(Duration::from_secs(60)))] {
        let (mut item, _) = exchange(member("44"), 1, NOW);
        if let Item::Exchange { claim: slot, .. } = &mut item {
            *slot = Some(claim);
        }
        assert!(written.commits.commit(&mut vec![item]));
    }
    drop(written);
    let later = NOW.plus(Duration::from_secs(1));
    let written = Written::open(dir.path()).unwrap();
    let ids: Vec<_> = written.commits.live_redemptions(later).unwrap().iter().map(|claim| claim.id).collect();
    assert_eq!(ids, [ProofId([2; 16])]);
}

#[test]
fn an_older_copy_is_found_by_its_witness_by_a_checkpoint_and_by_homes_receipt() {
    let (dir, mut written) = written();
    written.put("44", 300, 50, NOW);
    let list = written.list();
    let older = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join(FILE), older.path().join(FILE)).unwrap();
    written.put("44", 10, 10, NOW);
    written.deliver("44", 305, NOW);
    let domain = "tongxing.test".parse().unwrap();
    let logs = LogTool::open(dir.path()).unwrap();
    let kept = logs.checkpoint(Realm::Member(member("44")), &domain).unwrap().unwrap();
    assert!(logs.check_extends(&kept, &domain).unwrap().is_ok());
    drop(logs);
    drop(written);

    // The store alone is put back, and its witness knows better.
    let newer = fs::read(dir.path().join(FILE)).unwrap();
    fs::copy(older.path().join(FILE), dir.path().join(FILE)).unwrap();
    let found = damages(dir.path(), &list);
    assert!(found[0].what.contains("older copy"), "{found:?}");
    let refused = Written::open(dir.path()).err().expect("nobody goes on from an older copy");
    assert!(refused.to_string().contains("it ends with commit 6, and commit 7 was made"), "{refused}");

    // With its witness: then a checkpoint that was kept tells.
    fs::remove_file(dir.path().join("record.witness")).unwrap();
    let logs = LogTool::open(dir.path()).unwrap();
    let damage = logs.check_extends(&kept, &domain).unwrap().unwrap_err();
    assert_eq!((damage.index, damage.what.contains("older copy")), (Some(310), true));

    // Another history of the same length.
    let mut forked = Written::open(dir.path()).unwrap();
    forked.put("44", 20, 20, NOW.plus(Duration::from_secs(5)));
    drop(forked);
    let damage = LogTool::open(dir.path()).unwrap().check_extends(&kept, &domain).unwrap().unwrap_err();
    assert!(damage.what.contains("not the one"), "{damage}");
    assert_ne!(fs::read(dir.path().join(FILE)).unwrap(), newer);
}

#[test]
fn a_store_that_is_written_meanwhile_is_not_accused() {
    let (dir, mut written) = written();
    written.put("44", 10, 1, NOW);
    let (list, looked) = (written.list(), LogTool::open(dir.path()).unwrap());
    written.put("44", 90, 1, NOW);
    assert!(looked.verify(Some(&list), NOW).unwrap().iter().all(Result::is_ok), "it has gone on since");
}

#[test]
fn a_receipt_by_a_key_that_is_no_longer_listed_is_said_and_is_no_damage() {
    let (dir, mut written) = written();
    written.put("44", 10, 1, NOW);
    written.deliver("44", 10, NOW);
    let mut list = written.list();
    list.members.get_mut(&member("44")).unwrap().statement_keys.clear();
    let found = LogTool::open(dir.path()).unwrap().verify(Some(&list), NOW).unwrap();
    let [Ok(verified)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((verified.delivered, verified.receipt_is_listed), (10, false));
}

#[test]
fn disowned_logs_stay_so_until_somebody_has_looked() {
    let (dir, mut written) = written();
    written.put("44", 10, 1, NOW);
    let list = written.list();
    drop(written);
    super::disowned::mark(&dir.path().join(FILE), "a head").unwrap();
    assert!(damages(dir.path(), &list)[0].what.contains("record.disowned"));
    let refused = Written::open(dir.path()).err().expect("a restart does not forget it");
    assert!(refused.to_string().contains("a head of it that it never had"), "{refused}");
}

/// What somebody does to a store behind its gateway's back.
#[derive(Clone, Debug)]
enum Tampering {
    /// Another bit of a value.
    Flip { table: usize, row: prop::sample::Index, bit: prop::sample::Index },
    /// A value cut short.
    Cut { row: prop::sample::Index, to: prop::sample::Index },
    /// A row is gone.
    Drop { table: usize, row: prop::sample::Index },
    /// Two rows of records change places, of one log or of two.
    Swap { one: prop::sample::Index, other: prop::sample::Index },
    /// A row stands elsewhere.
    Move { row: prop::sample::Index, by: u64 },
    /// Two records of one row change places.
    Reorder { row: prop::sample::Index, at: prop::sample::Index },
    /// A row twice.
    Repeat { row: prop::sample::Index },
    /// A whole log is gone.
    Forget { log: prop::sample::Index },
    /// Another bit of a commit in the journal.
    FlipCommit { commit: prop::sample::Index, bit: prop::sample::Index },
    /// A commit in the journal is cut short.
    CutCommit { commit: prop::sample::Index, to: prop::sample::Index },
    /// A commit in the journal is gone.
    DropCommit { commit: prop::sample::Index },
    /// Two commits in the journal change places.
    SwapCommits { one: prop::sample::Index, other: prop::sample::Index },
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let index = || any::<prop::sample::Index>();
    prop_oneof![
        4 => (0..5_usize, index(), index()).prop_map(|(table, row, bit)| Tampering::Flip { table, row, bit }),
        1 => (index(), index()).prop_map(|(row, to)| Tampering::Cut { row, to }),
        2 => (0..4_usize, index()).prop_map(|(table, row)| Tampering::Drop { table, row }),
        1 => (index(), index()).prop_map(|(one, other)| Tampering::Swap { one, other }),
        1 => (index(), 1..2000_u64).prop_map(|(row, by)| Tampering::Move { row, by }),
        1 => (index(), index()).prop_map(|(row, at)| Tampering::Reorder { row, at }),
        1 => index().prop_map(|row| Tampering::Repeat { row }),
        1 => index().prop_map(|log| Tampering::Forget { log }),
        3 => (index(), index()).prop_map(|(commit, bit)| Tampering::FlipCommit { commit, bit }),
        1 => (index(), index()).prop_map(|(commit, to)| Tampering::CutCommit { commit, to }),
        1 => index().prop_map(|commit| Tampering::DropCommit { commit }),
        1 => (index(), index()).prop_map(|(one, other)| Tampering::SwapCommits { one, other }),
    ]
}

fn flip(bytes: &[u8], bit: &prop::sample::Index) -> Vec<u8> {
    let (mut bytes, bit) = (bytes.to_vec(), bit.index(bytes.len() * 8));
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

impl Tampering {
    /// Does it. False if it changed nothing: there is nothing to find.
    fn to(&self, path: &Path) -> bool {
        let database = Database::open(path).unwrap();
        let transaction = database.begin_write().unwrap();
        let done = {
            let mut records = transaction.open_table(RECORDS).unwrap();
            let mut journal = transaction.open_table(JOURNAL).unwrap();
            let commits: Vec<(u64, Vec<u8>)> = journal
                .iter()
                .unwrap()
                .map(|commit| commit.map(|(number, value)| (number.value(), value.value().to_vec())).unwrap())
                .collect();
            let rows: Vec<((u8, u64), Vec<u8>)> = records
                .iter()
                .unwrap()
                .map(|row| row.map(|(key, row)| (key.value(), row.value().to_vec())).unwrap())
                .collect();
            match self {
                Self::Flip { table: 0, row, bit } => {
                    let (key, row) = row.get(&rows);
                    records.insert(*key, flip(row, bit).as_slice()).unwrap();
                    true
                }
                Self::Flip { table: 1, row, bit } => {
                    let mut nodes = transaction.open_table(NODES).unwrap();
                    let all: Vec<_> =
                        nodes.iter().unwrap().map(|node| node.map(|(k, v)| (k.value(), v.value())).unwrap()).collect();
                    let (key, hash) = row.get(&all);
                    nodes.insert(*key, <[u8; 32]>::try_from(flip(hash, bit)).unwrap()).unwrap();
                    true
                }
                Self::Flip { table: 2, row, bit } => {
                    let mut meta = transaction.open_table(META).unwrap();
                    let name = *row.get(&[COMMIT, HEADS, "key", "version"]);
                    let value = meta.get(name).unwrap().unwrap().value().to_vec();
                    meta.insert(name, flip(&value, bit).as_slice()).unwrap();
                    true
                }
                Self::Flip { table: 3, bit, .. } => {
                    let mut delivered = transaction.open_table(DELIVERED).unwrap();
                    let (size, receipt) =
                        delivered.get(44).unwrap().map(|value| (value.value().0, value.value().1.to_vec())).unwrap();
                    delivered.insert(44, (size, flip(&receipt, bit).as_slice())).unwrap();
                    true
                }
                Self::Flip { bit, .. } => {
                    let mut trimmed = transaction.open_table(TRIMMED).unwrap();
                    let base = trimmed.get(44).unwrap().unwrap().value();
                    trimmed.insert(44, base ^ (1 << bit.index(64))).unwrap();
                    true
                }
                Self::Cut { row, to } => {
                    let (key, row) = row.get(&rows);
                    records.insert(*key, &row[..to.index(row.len())]).unwrap();
                    true
                }
                Self::Drop { table: 0, row } => {
                    records.remove(row.get(&rows).0).unwrap();
                    true
                }
                Self::Drop { table: 1, row } => {
                    let mut nodes = transaction.open_table(NODES).unwrap();
                    let all: Vec<_> = nodes.iter().unwrap().map(|node| node.unwrap().0.value()).collect();
                    nodes.remove(*row.get(&all)).unwrap();
                    true
                }
                Self::Drop { table: 2, row } => {
                    let mut meta = transaction.open_table(META).unwrap();
                    meta.remove(*row.get(&[COMMIT, HEADS, "key", "version"])).unwrap();
                    true
                }
                Self::Drop { .. } => {
                    transaction.open_table(TRIMMED).unwrap().remove(44).unwrap();
                    true
                }
                Self::Swap { one, other } => {
                    let ((a, of_a), (b, of_b)) = (one.get(&rows), other.get(&rows));
                    records.insert(*a, of_b.as_slice()).unwrap();
                    records.insert(*b, of_a.as_slice()).unwrap();
                    of_a != of_b
                }
                Self::Move { row, by } => {
                    let ((log, first), row) = row.get(&rows);
                    records.remove((*log, *first)).unwrap();
                    records.insert((*log, first + by), row.as_slice()).unwrap();
                    true
                }
                Self::Reorder { row, at } => {
                    let (key, row) = row.get(&rows);
                    // All records of these rows are of one length.
                    let (head, body) = row.split_at(4);
                    let count = u32::from_be_bytes(head.try_into().unwrap()) as usize;
                    let length = body.len() / count;
                    let at = at.index(count);
                    let mut parts: Vec<_> = body.chunks(length).collect();
                    parts.swap(0, at);
                    records.insert(*key, [head, &parts.concat()].concat().as_slice()).unwrap();
                    at != 0
                }
                Self::Repeat { row } => {
                    let ((log, first), row) = row.get(&rows);
                    let last = rows.iter().rfind(|((of, _), _)| of == log).unwrap();
                    let count = u64::from(u32::from_be_bytes(last.1[..4].try_into().unwrap()));
                    records.insert((*log, last.0.1 + count), row.as_slice()).unwrap();
                    let _ = first;
                    true
                }
                Self::FlipCommit { commit, bit } => {
                    let (number, value) = commit.get(&commits);
                    journal.insert(*number, flip(value, bit).as_slice()).unwrap();
                    true
                }
                Self::CutCommit { commit, to } => {
                    let (number, value) = commit.get(&commits);
                    journal.insert(*number, &value[..to.index(value.len())]).unwrap();
                    true
                }
                Self::DropCommit { commit } => {
                    journal.remove(commit.get(&commits).0).unwrap();
                    true
                }
                Self::SwapCommits { one, other } => {
                    let ((a, of_a), (b, of_b)) = (one.get(&commits), other.get(&commits));
                    journal.insert(*a, of_b.as_slice()).unwrap();
                    journal.insert(*b, of_a.as_slice()).unwrap();
                    of_a != of_b
                }
                Self::Forget { log } => {
                    let log = *log.get(&[44_u8, 51, 255]);
                    for (key, _) in rows.iter().filter(|((of, _), _)| *of == log) {
                        records.remove(*key).unwrap();
                    }
                    true
                }
            }
        };
        transaction.commit().unwrap();
        done
    }
}

/// A store with three logs, one of them trimmed, and who is trusted there. Made once: it is copied for each case.
fn template() -> &'static (TempDir, TrustList) {
    static TEMPLATE: std::sync::OnceLock<(TempDir, TrustList)> = std::sync::OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let (dir, mut written) = written();
        written.put("51", 40, 7, NOW);
        assert!(written.commits.commit(&mut (0..5).map(|_| refusal()).collect()));
        written.put("44", 900, 10, NOW);
        written.deliver("44", 600, NOW.plus(Duration::from_secs(1)));
        assert_eq!(written.reader().kept_from(member("44")).unwrap(), 512);
        written.put("44", 40, 7, NOW);
        let list = written.list();
        drop(written);
        assert_eq!(damages(dir.path(), &list), []);
        (dir, list)
    })
}

fn copy_of_template() -> TempDir {
    let (from, copy) = (template().0.path(), tempfile::tempdir().unwrap());
    for name in [FILE, "record.witness"] {
        fs::copy(from.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Whatever is done to what the store says, verifying finds it.
    #[test]
    fn nothing_is_altered_unseen(tampering in tampering()) {
        let copy = copy_of_template();
        if tampering.to(&copy.path().join(FILE)) {
            prop_assert!(!damages(copy.path(), &template().1).is_empty(), "{tampering:?} was not seen");
        }
    }

    /// A record that is another one is named by its own index.
    #[test]
    fn a_flipped_record_is_named(record in any::<prop::sample::Index>(), bit in any::<prop::sample::Index>()) {
        let copy = copy_of_template();
        let index;
        {
            let database = Database::open(copy.path().join(FILE)).unwrap();
            let transaction = database.begin_write().unwrap();
            {
                let mut records = transaction.open_table(RECORDS).unwrap();
                let end = end_of(&records, 44);
                index = 512 + record.index(end as usize - 512) as u64;
                let (key, row) = records.range((44, 0)..=(44, index)).unwrap().next_back().unwrap().map(|(k, v)| (k.value(), v.value().to_vec())).unwrap();
                let (mut row, mut at) = (row, 4);
                for _ in key.1..index {
                    at += 10 + usize::from(u16::from_be_bytes([row[at], row[at + 1]]));
                }
                let length = usize::from(u16::from_be_bytes([row[at], row[at + 1]]));
                let bit = bit.index(length * 8);
                row[at + 10 + bit / 8] ^= 1 << (bit % 8);
                records.insert(key, row.as_slice()).unwrap();
            }
            transaction.commit().unwrap();
        }
        let found = damages(copy.path(), &template().1);
        prop_assert_eq!((found[0].owner, found[0].index), (Some(Realm::Member(member("44"))), Some(index)), "{:?}", found);
    }

    /// Whatever byte of the file is another one: it is seen, or it says nothing.
    #[test]
    fn no_byte_of_the_file_says_something_else_unseen(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let copy = copy_of_template();
        let path = copy.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        let seen = catch_unwind(AssertUnwindSafe(|| !damages(copy.path(), &template().1).is_empty())).unwrap_or(true);
        if !seen {
            let export = |dir: &Path| {
                let mut out = Vec::new();
                LogTool::open(dir).unwrap().export(&"tongxing.test".parse().unwrap(), &mut out).unwrap();
                out
            };
            prop_assert_eq!(export(copy.path()), export(template().0.path()), "byte {}", at);
        }
    }
}

/// Where the rows of a log end that are not in the journal.
fn end_of(records: &redb::Table<'_, (u8, u64), &'static [u8]>, log: u8) -> u64 {
    let (key, row) = records.range((log, 0)..=(log, u64::MAX)).unwrap().next_back().unwrap().unwrap();
    key.value().1 + u64::from(u32::from_be_bytes(row.value()[..4].try_into().unwrap()))
}

#[test]
fn a_store_that_was_altered_is_not_gone_on_with() {
    let copy = copy_of_template();
    let database = Database::open(copy.path().join(FILE)).unwrap();
    let transaction = database.begin_write().unwrap();
    let end;
    {
        let mut records = transaction.open_table(RECORDS).unwrap();
        end = end_of(&records, 44);
        let (key, mut row) = {
            let (key, row) = records.range((44, 0)..=(44, 899)).unwrap().next_back().unwrap().unwrap();
            (key.value(), row.value().to_vec())
        };
        let last = row.len() - 1;
        row[last] ^= 1;
        records.insert(key, row.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let refused = Written::open(copy.path()).err().expect("nobody pretends");
    assert!(matches!(&refused, StoreError::Damaged(damage) if damage.index == Some(end - 1)), "{refused}");
}
