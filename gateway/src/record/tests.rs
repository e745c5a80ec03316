//! The logs as a writer leaves them, and what becomes of them when somebody else has written.

mod tampering;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use opentelemetry::metrics::MeterProvider as _;
use peer::health::Impaired;
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
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{
    Damage, FILE, LogTool, StoreError,
    reader::Reader,
    receipt::KeptReceipt,
    space::{Space, SpaceLimits},
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
