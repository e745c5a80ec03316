//! Whatever is done to a store behind its gateway's back, verifying finds it, and names the record where there is one.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use redb::{Database, ReadableTable as _};

use super::{
    super::store::{COMMIT, DELIVERED, HEADS, JOURNAL, META, NODES, RECORDS, TRIMMED},
    *,
};

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
