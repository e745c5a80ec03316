//! One access log as a store holds it, and whether what is delivered is one history with it. The same for every backend,
//! which reads a [`HeldLog`], asks it, and keeps what it answers, all in one transaction.
//!
//! Upholds I2 at home's end: nothing that was taken in is ever replaced, and a log that tells two stories is caught at the
//! first record or root that both speak of.

use std::ops::Range;

use proto::{
    identity::PeerId,
    log::{
        LogId,
        checkpoint::Checkpoint,
        merkle::{Frontier, Hash, is_consistent, leaf_hash, peaks_of},
        record::Entry,
    },
    suite::VerifyingKey,
    time::UnixTime,
    token::Cti,
};

use super::DeviceId;

/// Conflicts of one log that are kept as evidence; further ones, and those like one that is kept, are counted.
pub const MAX_EVIDENCE: u64 = 16;

/// What a node holds of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldLog {
    /// The tree over all records that came.
    pub tree: Frontier,
    /// The tree over those of them that were forgotten since: the first record on file is the one behind it.
    pub base: Frontier,
    /// A checkpoint that was accepted before the latest and that the records had not reached then.
    pub awaited: Option<Accepted>,
    /// The largest checkpoint that was accepted, never smaller than the tree.
    pub latest: Option<Accepted>,
    /// What binds the tree to a signature.
    pub bound: Option<Bound>,
}

/// A checkpoint that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How many records it speaks of.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
    /// The signed note.
    pub note: String,
}

/// The checkpoint that came with the last records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The checkpoint, which may be ahead of the records.
    pub head: Accepted,
    /// Proves that its tree extends the one over the records.
    pub proof: Vec<Hash>,
}

/// Records of one log, with its signed head. The checkpoint was verified and is of that log; its size is at least the end of
/// the records, and fits an `i64`.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The log.
    pub log: LogId,
    /// Its key, whose id it has.
    pub key: VerifyingKey,
    /// The peer that brings it.
    pub caller: PeerId,
    /// The index of the first record.
    pub first_index: u64,
    /// The records.
    pub records: Vec<NewAccess>,
    /// The log's head.
    pub checkpoint: Checkpoint,
    /// The signed note that says so.
    pub note: String,
    /// Proves that the checkpoint's tree extends the one that ends with the records.
    pub proof: Vec<Hash>,
    /// The tree over what was before the records, if the sender has no more of it than that.
    pub before: Option<Frontier>,
    /// When it came.
    pub now: UnixTime,
}

/// A record to keep.
#[derive(Clone)]
pub struct NewAccess {
    /// Its bytes.
    pub record: Vec<u8>,
    /// The hash of its leaf.
    pub leaf: Hash,
    /// When it says it was, and under which consent; `None` if nobody can read it.
    pub says: Option<(UnixTime, Cti)>,
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It is one history with what was held, and this is held now.
    Held {
        /// How many records.
        size: u64,
        /// The root of their tree.
        root: Hash,
        /// How many of them were new.
        stored: u32,
        /// How many of the new ones belong to no consent that the store knows.
        unmatched: u32,
        /// How many of those say they are of a time that is yet to come.
        unmatched_ahead: u32,
        /// How many before them never came: the log goes on in another part.
        missing: u64,
    },
    /// It is not. Nothing of it was stored but the evidence.
    Conflict(Conflict),
}

/// Two histories under one log's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The latest checkpoint that was accepted, if there was one.
    pub held_note: Option<String>,
    /// How many records are held.
    pub held_size: u64,
    /// How many the checkpoint speaks of that came.
    pub shown_size: u64,
    /// The first record that differs, if it is one of those that came; else the number of records held.
    pub index: u64,
}

/// A conflict on file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When it was found.
    pub at: UnixTime,
    /// Who brought it.
    pub caller: String,
    /// What it was.
    pub conflict: Conflict,
    /// The checkpoint that came.
    pub shown_note: String,
}

/// A log, or a part of one, with what is on file about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOnFile {
    /// The log.
    pub log: LogId,
    /// Its key, as it was when the log began.
    pub key: [u8; 32],
    /// The index of its first record: not 0 only if those before never came.
    pub start: u64,
    /// Where the next part begins, if there is one: what is between was lost.
    pub next_start: Option<u64>,
    /// What is held of it.
    pub held: HeldLog,
    /// How many conflicts there were.
    pub conflicts: u64,
    /// The first of them, at most [`MAX_EVIDENCE`].
    pub evidence: Vec<Evidence>,
}

/// A record on file.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordOnFile {
    /// Its index in its log.
    pub index: u64,
    /// Its bytes.
    pub record: Vec<u8>,
    /// Whether anybody could read it when it came.
    pub readable: bool,
    /// Whether it is known whose consent it was.
    pub matched: bool,
}

/// An access as its traveler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TravelerAccess {
    /// Its place among them.
    pub key: AccessKey,
    /// What it says.
    pub entry: Entry,
    /// The device that the consent was issued to, if it is the traveler's own.
    pub device: Option<DeviceId>,
}

/// The place of an access among all of its traveler's, and where a page of them ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessKey {
    /// When it was, or when it came if it says that it was later.
    pub time: UnixTime,
    /// The log it is on.
    pub log: LogId,
    /// Its index there.
    pub index: u64,
}

impl NewAccess {
    /// Reads what is needed of a record. One that nobody can read is kept all the same: refusing it would hold up its log.
    pub fn new(record: Vec<u8>) -> Self {
        let says = Entry::decode(&record).ok().map(|entry| (entry.time, entry.cti));
        Self { leaf: leaf_hash(&record), record, says }
    }
}

impl Delivery {
    /// Whether a record says it is of a time that is yet to come.
    pub fn is_ahead(&self, access: &NewAccess) -> bool {
        access.says.is_some_and(|(time, _)| time > self.now)
    }

    /// The index behind the last record.
    pub fn end(&self) -> u64 {
        self.first_index + self.records.len() as u64
    }

    fn record(&self, index: u64) -> Option<&[u8]> {
        let offset = index.checked_sub(self.first_index)?;
        self.records.get(usize::try_from(offset).ok()?).map(|access| access.record.as_slice())
    }
}

impl HeldLog {
    /// Which records on file a delivery repeats.
    pub fn overlap(&self, delivery: &Delivery) -> Range<u64> {
        let first = delivery.first_index.max(self.base.size());
        first..delivery.end().min(self.tree.size()).max(first)
    }

    /// What is held after a delivery, and which of its records are new, if it is one history with what is held now.
    /// `on_file` are the records of the overlap.
    ///
    /// # Errors
    /// The index of a [`Conflict`].
    pub fn followed_by<'d>(&self, delivery: &'d Delivery, on_file: &[Vec<u8>]) -> Result<(Self, &'d [NewAccess]), u64> {
        let (held, checkpoint) = (self.tree.size(), &delivery.checkpoint);
        let repeated = self.overlap(delivery).zip(on_file);
        let mut differing = repeated.filter(|(index, record)| delivery.record(*index) != Some(record.as_slice()));
        if let Some((index, _)) = differing.next() {
            return Err(index);
        }
        if !self.agrees_with(checkpoint.size, &checkpoint.root) {
            return Err(held);
        }
        // Beyond a gap nothing can be told; behind what is held the tree is no longer there to prove anything from.
        if delivery.first_index > held || delivery.end() < held {
            return Ok((self.clone(), &[]));
        }
        if !self.agrees_with_promises(held, || self.tree.root()) {
            return Err(held);
        }
        let new = &delivery.records[(held - delivery.first_index) as usize..];
        let mut after = self.clone();
        for access in new {
            after.tree.push(access.leaf);
            if !self.agrees_with_promises(after.tree.size(), || after.tree.root()) {
                return Err(held);
            }
        }
        let end = (after.tree.size(), after.tree.root());
        if !is_consistent(end, (checkpoint.size, checkpoint.root), &delivery.proof) {
            return Err(held);
        }
        let head = Accepted { size: checkpoint.size, root: checkpoint.root, note: delivery.note.clone() };
        if !new.is_empty() || after.bound.is_none() {
            after.bound = Some(Bound { head: head.clone(), proof: delivery.proof.clone() });
        }
        after.accept(head);
        Ok((after, new))
    }

    /// What is held before a delivery that begins behind a gap, if its sender has no more: the tree over all that was before,
    /// on its word, which the signed head bears out or not. What this log promised still holds.
    ///
    /// # Errors
    /// The index of a [`Conflict`]: both trees have peaks over the same records, and they are not the same.
    pub fn beyond_gap(&self, delivery: &Delivery) -> Result<Option<Self>, u64> {
        let held = self.tree.size();
        let Some(before) = delivery.before.as_ref().filter(|_| delivery.first_index > held) else { return Ok(None) };
        let both = peaks_of(held).zip(peaks_of(before.size())).take_while(|(held, before)| held == before).count();
        if self.tree.peaks()[..both] != before.peaks()[..both] {
            return Err(held);
        }
        let still = |promise: &Option<Accepted>| promise.clone().filter(|promise| promise.size >= before.size());
        let (awaited, latest) = (still(&self.awaited), still(&self.latest));
        Ok(Some(Self { tree: before.clone(), base: before.clone(), awaited, latest, bound: None }))
    }

    /// The conflict of a delivery that is not one history with this.
    pub fn conflict(&self, delivery: &Delivery, index: u64) -> Conflict {
        let held_note = self.latest.as_ref().map(|latest| latest.note.clone());
        let held_size = self.tree.size();
        // Of what is behind a gap no record was compared.
        Conflict { held_note, held_size, shown_size: delivery.checkpoint.size, index: index.min(held_size) }
    }

    /// Forgets the first record on file. Only the start of a log is ever forgotten, so that the rest stays verifiable.
    pub fn forget(&mut self, record: &[u8]) {
        self.base.push(leaf_hash(record));
    }

    /// Whether a tree of this size may have this root: of some sizes the root is known.
    fn agrees_with(&self, size: u64, root: &Hash) -> bool {
        let trees = [&self.base, &self.tree].into_iter().filter(|tree| tree.size() == size);
        trees.into_iter().all(|tree| tree.root() == *root) && self.agrees_with_promises(size, || *root)
    }

    fn agrees_with_promises(&self, size: u64, root: impl Fn() -> Hash) -> bool {
        self.promises().filter(|promise| promise.size == size).all(|promise| promise.root == root())
    }

    /// Whether the checkpoint that came with the last records speaks of this tree.
    pub fn is_bound(&self, tree: &Frontier) -> bool {
        let extends =
            |bound: &Bound| is_consistent((tree.size(), tree.root()), (bound.head.size, bound.head.root), &bound.proof);
        self.bound.as_ref().is_some_and(extends)
    }

    /// The checkpoints that were accepted and that what comes has to agree with.
    pub fn promises(&self) -> impl Iterator<Item = &Accepted> {
        self.awaited.iter().chain(&self.latest)
    }

    /// Keeps a larger checkpoint than the latest. The one that the records have yet to reach first stays with it: a log
    /// that is always ahead of what it delivers could otherwise promise one thing and deliver another.
    fn accept(&mut self, checkpoint: Accepted) {
        let reached = self.tree.size();
        if self.latest.as_ref().is_some_and(|latest| checkpoint.size <= latest.size) {
            return;
        }
        let waiting = self.awaited.take().filter(|awaited| awaited.size > reached);
        self.awaited = waiting.or_else(|| self.latest.take().filter(|latest| latest.size > reached));
        self.latest = Some(checkpoint);
    }
}

redacted!(NewAccess, RecordOnFile);

#[cfg(test)]
mod tests {
    use proto::{
        identity::Realm,
        log::merkle::{Nodes, consistency_proof, empty_root},
        suite::{SigningKey, Suite},
    };

    use super::*;

    /// A log of numbered records, and of `turn` on of others.
    struct History(Vec<Vec<u8>>);

    impl Nodes for History {
        type Error = std::convert::Infallible;

        fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error> {
            let (low, count) = ((index << level) as usize, 1 << level);
            Ok(tree(&self.0[low..low + count]).root())
        }
    }

    fn tree(records: &[Vec<u8>]) -> Frontier {
        let mut tree = Frontier::new();
        records.iter().for_each(|record| tree.push(leaf_hash(record)));
        tree
    }

    fn history(turn: u64) -> History {
        let record = |i: u64| if i < turn { vec![i as u8 + 1] } else { vec![i as u8 + 1, 0xff] };
        History((0..40).map(record).collect())
    }

    impl History {
        fn delivery(&self, first: u64, end: u64, size: u64) -> Delivery {
            let records = &self.0[first as usize..end as usize];
            let owner = Realm::Member("41".parse().unwrap());
            let key = SigningKey::generate(Suite::Ed25519).verifying_key().clone();
            let root = tree(&self.0[..size as usize]).root();
            Delivery {
                log: LogId([1; 32]),
                key,
                caller: PeerId::gateway("1").unwrap(),
                first_index: first,
                records: records.iter().cloned().map(NewAccess::new).collect(),
                checkpoint: Checkpoint { log: LogId([1; 32]), owner, size, root },
                note: format!("{size}"),
                proof: consistency_proof(self, end, size).unwrap(),
                before: None,
                now: UnixTime::from_secs(0),
            }
        }
    }

    /// Delivers, and says how many records are held then or where the conflict is.
    fn deliver(held: &mut HeldLog, on_file: &History, delivery: &Delivery) -> Result<u64, u64> {
        let overlap = held.overlap(delivery);
        let repeated = &on_file.0[overlap.start.min(40) as usize..overlap.end.min(40) as usize];
        let (after, new) = held.followed_by(delivery, repeated)?;
        assert_eq!(after.tree.size(), held.tree.size() + new.len() as u64);
        assert!(after.latest.as_ref().is_none_or(|latest| latest.size >= after.tree.size()));
        assert!(after.latest.is_none() || after.is_bound(&after.tree));
        *held = after;
        Ok(held.tree.size())
    }

    fn latest(held: &HeldLog) -> Option<u64> {
        held.latest.as_ref().map(|latest| latest.size)
    }

    #[test]
    fn records_follow_one_another_whatever_is_repeated_or_missing() {
        let (log, mut held) = (history(99), HeldLog::default());
        for (first, end, size, expected, head) in [
            (0, 0, 0, 0, 0),
            (3, 5, 7, 0, 0),
            (0, 4, 9, 4, 9),
            (0, 0, 9, 4, 9),
            (0, 0, 2, 4, 9),
            (2, 6, 6, 6, 9),
            (1, 3, 20, 6, 9),
            (6, 6, 12, 6, 12),
            (8, 9, 30, 6, 12),
            (6, 13, 13, 13, 13),
            (0, 13, 13, 13, 13),
        ] {
            assert_eq!(deliver(&mut held, &log, &log.delivery(first, end, size)), Ok(expected), "{first} {end} {size}");
            assert_eq!(latest(&held), Some(head), "{first} {end} {size}");
            assert_eq!(held.tree, tree(&log.0[..expected as usize]));
        }
    }

    #[test]
    fn any_cut_of_a_log_delivers_it() {
        let log = history(99);
        for step in 1..12 {
            let (mut held, mut at) = (HeldLog::default(), 0);
            while at < 36 {
                let size = (at + step + step % 5).min(40);
                at = deliver(&mut held, &log, &log.delivery(at, (at + step).min(36), size)).unwrap();
            }
            assert_eq!(held.tree, tree(&log.0[..36]), "{step}");
        }
    }

    #[test]
    fn two_histories_are_told_at_the_first_thing_that_both_speak_of() {
        let log = history(99);
        let mut held = HeldLog::default();
        deliver(&mut held, &log, &log.delivery(0, 8, 12)).unwrap();
        for (turn, first, end, size, index) in [
            (5, 4, 7, 7, 5),
            (5, 0, 9, 12, 5),
            // The same size as the latest checkpoint's, and as what is held.
            (10, 8, 8, 12, 8),
            (7, 0, 0, 8, 8),
            (10, 9, 9, 12, 8),
            // A head that does not extend what is held, with and without records.
            (7, 8, 8, 14, 8),
            (7, 8, 10, 14, 8),
            // Records that do not lead to what the latest checkpoint promised.
            (11, 8, 12, 12, 8),
            (11, 8, 13, 20, 8),
        ] {
            let other = history(turn).delivery(first, end, size);
            assert_eq!(held.followed_by(&other, &log.0[held.overlap(&other).start as usize..]).unwrap_err(), index);
            let conflict = held.conflict(&other, index);
            assert_eq!((conflict.held_note.as_deref(), conflict.held_size), (Some("12"), 8));
        }
        // A proof that is none.
        let mut bent = log.delivery(8, 10, 14);
        bent.proof[0][0] ^= 1;
        assert_eq!(deliver(&mut held, &log, &bent), Err(8));
        let mut first = log.delivery(0, 3, 14);
        first.proof.clear();
        assert_eq!(deliver(&mut HeldLog::default(), &log, &first), Err(0));
        let mut nothing = log.delivery(0, 0, 0);
        assert_eq!(nothing.checkpoint.root, empty_root());
        nothing.checkpoint.root = [1; 32];
        assert_eq!(deliver(&mut HeldLog::default(), &log, &nothing), Err(0));
    }

    #[test]
    fn a_promise_is_kept_though_newer_ones_come() {
        let (log, other) = (history(99), history(6));
        let mut held = HeldLog::default();
        // It promised the other history up to 7, and goes on with this one as if it never had.
        deliver(&mut held, &log, &other.delivery(0, 2, 7)).unwrap();
        deliver(&mut held, &log, &log.delivery(2, 4, 20)).unwrap();
        deliver(&mut held, &log, &log.delivery(4, 5, 30)).unwrap();
        assert_eq!((latest(&held), held.awaited.as_ref().map(|awaited| awaited.size)), (Some(30), Some(7)));
        deliver(&mut held, &log, &log.delivery(5, 6, 30)).unwrap();
        assert_eq!(deliver(&mut held, &log, &log.delivery(6, 8, 31)), Err(6));
        // Kept promises make room for the next.
        let mut held = HeldLog::default();
        for (first, end, size, awaited) in [(0, 2, 7, None), (2, 4, 20, Some(7)), (4, 8, 30, Some(20))] {
            deliver(&mut held, &log, &log.delivery(first, end, size)).unwrap();
            assert_eq!(held.awaited.as_ref().map(|awaited| awaited.size), awaited);
        }
    }

    /// Delivers what begins behind a gap with the tree over what is before it.
    fn deliver_beyond(held: &HeldLog, history: &History, first: u64, end: u64, size: u64) -> Result<HeldLog, u64> {
        let before = Some(tree(&history.0[..first as usize]));
        let delivery = Delivery { before, ..history.delivery(first, end, size) };
        let beyond = held.beyond_gap(&delivery).map_err(|index| held.conflict(&delivery, index).index)?;
        let followed = beyond.expect("there is a gap").followed_by(&delivery, &[]);
        followed.map(|(after, _)| after).map_err(|index| held.conflict(&delivery, index).index)
    }

    #[test]
    fn behind_a_gap_it_goes_on_as_it_promised_and_with_what_it_held() {
        let (log, mut held) = (history(99), HeldLog::default());
        deliver(&mut held, &log, &log.delivery(0, 6, 12)).unwrap();
        assert_eq!(held.beyond_gap(&Delivery { before: Some(Frontier::new()), ..log.delivery(6, 9, 9) }), Ok(None));
        assert_eq!(held.beyond_gap(&log.delivery(7, 9, 9)), Ok(None));
        let mut after = deliver_beyond(&held, &log, 9, 11, 20).unwrap();
        assert_eq!((&after.tree, latest(&after), &after.base), (&tree(&log.0[..11]), Some(20), &tree(&log.0[..9])));
        assert_eq!(deliver(&mut after, &log, &log.delivery(11, 14, 20)), Ok(14));
        // A peak over records held, 4 and 2 of them; what was promised, at that size, beyond it and across it.
        for (turn, first, end, size) in [(3, 7, 8, 20), (5, 7, 7, 7), (8, 9, 9, 12), (8, 12, 13, 20), (8, 9, 14, 14)] {
            assert_eq!(deliver_beyond(&held, &history(turn), first, end, size), Err(6), "{turn} {first}");
        }
        // Another tree than the head's.
        let bent = Delivery { before: Some(tree(&history(8).0[..9])), ..log.delivery(9, 11, 20) };
        let beyond = held.beyond_gap(&bent).unwrap().unwrap();
        assert_eq!(beyond.followed_by(&bent, &[]).unwrap_err(), 9);
        assert_eq!(held.conflict(&bent, 9).index, 6);
    }

    #[test]
    fn what_is_forgotten_is_no_longer_compared_but_its_root_is() {
        let (log, mut held) = (history(99), HeldLog::default());
        deliver(&mut held, &log, &log.delivery(0, 10, 10)).unwrap();
        log.0[..4].iter().for_each(|record| held.forget(record));
        assert_eq!(held.base, tree(&log.0[..4]));
        let other = history(3);
        assert_eq!(held.overlap(&other.delivery(0, 6, 10)), 4..6);
        assert_eq!(deliver(&mut held, &log, &log.delivery(0, 12, 12)), Ok(12));
        assert_eq!(held.followed_by(&other.delivery(0, 4, 4), &[]).unwrap_err(), 12);
        assert_eq!(held.followed_by(&other.delivery(0, 3, 5), &[]).unwrap().0, held);
    }
}
