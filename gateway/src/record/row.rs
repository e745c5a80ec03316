//! A row: the records that one commit put on one log, each behind its length and its check.
//!
//! ```text
//! count u32 | count × ( length u16 | check 8 bytes | record )          big-endian
//! ```
//!
//! The check is the first 8 bytes of the record's leaf in its commit (`proto::log::commit`), which binds log and index:
//! what was flipped, moved or swapped is named to the record. That nobody meant it the signed tree says.

use proto::log::{
    commit::commit_leaf,
    merkle::{self, Hash},
    owner_from_number,
};

/// A row's head.
const COUNT: usize = 4;
/// What stands before each record.
const BEFORE: usize = 2 + CHECK;
const CHECK: usize = 8;

/// A row under construction.
#[derive(Clone, Debug)]
pub(super) struct RowBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl RowBuilder {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; COUNT], count: 0 }
    }

    /// Appends a record with its leaf in the commit.
    pub(super) fn push(&mut self, record: &[u8], leaf: &Hash) {
        self.bytes.extend((record.len() as u16).to_be_bytes());
        self.bytes.extend(&leaf[..CHECK]);
        self.bytes.extend(record);
        self.count += 1;
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes[..COUNT].copy_from_slice(&self.count.to_be_bytes());
        self.bytes
    }
}

/// A record as a row has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'a> {
    /// Its index on its log.
    pub(super) index: u64,
    /// Its bytes.
    pub(super) record: &'a [u8],
    check: &'a [u8],
}

impl Stored<'_> {
    /// Its leaf hash on the log, if it is what was put at this place.
    pub(super) fn leaf(&self, log: u8) -> Option<Hash> {
        let leaf = merkle::leaf_hash(self.record);
        let owner = owner_from_number(log)?;
        (commit_leaf(owner, self.index, &leaf)[..CHECK] == *self.check).then_some(leaf)
    }
}

/// How many records a row says it has.
pub(super) fn count(row: &[u8]) -> Option<u64> {
    row.first_chunk::<COUNT>().map(|count| u32::from_be_bytes(*count).into())
}

/// The records of a row that begins at `first`; a row that is cut ends early, and so does one with more than it says.
pub(super) fn records(first: u64, row: &[u8]) -> Records<'_> {
    // A row without a whole head lacks at least one record.
    Records { index: first, left: count(row).unwrap_or(1), rest: row.get(COUNT..).unwrap_or_default() }
}

/// Rows that follow one another as one row.
pub(super) fn join<'a>(rows: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut joined, mut records) = (vec![0; COUNT], 0_u32);
    for row in rows {
        records += row.first_chunk::<COUNT>().map_or(0, |count| u32::from_be_bytes(*count));
        joined.extend(row.get(COUNT..).unwrap_or_default());
    }
    joined[..COUNT].copy_from_slice(&records.to_be_bytes());
    joined
}

/// What is left of a row from the record `from` on; `None` if nothing is.
pub(super) fn from(first: u64, row: &[u8], from: u64) -> Option<Vec<u8>> {
    let mut records = records(first, row);
    while records.index < from {
        records.next()?;
    }
    let (left, rest) = (u32::try_from(records.left).ok()?, records.rest);
    (left > 0).then(|| [&left.to_be_bytes(), rest].concat())
}

/// Walks a row.
#[derive(Clone, Debug)]
pub(super) struct Records<'a> {
    index: u64,
    left: u64,
    rest: &'a [u8],
}

impl Records<'_> {
    /// Whether the row was walked to its end and had nothing more.
    pub(super) fn is_whole(&self) -> bool {
        self.left == 0 && self.rest.is_empty()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Stored<'a>;

    fn next(&mut self) -> Option<Stored<'a>> {
        if self.left == 0 {
            return None;
        }
        let (length, rest) = self.rest.split_first_chunk::<2>()?;
        let end = BEFORE - 2 + usize::from(u16::from_be_bytes(*length));
        let (body, rest) = rest.split_at_checked(end)?;
        let (check, record) = body.split_at(CHECK);
        let stored = Stored { index: self.index, record, check };
        (self.index, self.left, self.rest) = (self.index + 1, self.left - 1, rest);
        Some(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_back_what_was_put_in_and_notices_what_was_not() {
        let owner = owner_from_number(44).unwrap();
        let leaf = |index, record| commit_leaf(owner, index, &merkle::leaf_hash(record));
        let mut row = RowBuilder::new();
        row.push(b"one", &leaf(7, b"one"));
        row.push(b"", &leaf(8, b""));
        let row = row.finish();
        let mut records = super::records(7, &row);
        let walked: Vec<_> = records.by_ref().map(|stored| (stored.index, stored.record)).collect();
        assert_eq!(walked, [(7, &b"one"[..]), (8, b"")]);
        assert!(records.is_whole() && super::records(7, &row).all(|stored| stored.leaf(44).is_some()));
        assert!(super::records(7, &row).all(|stored| stored.leaf(51).is_none()), "on another log");
        assert!(super::records(8, &row).all(|stored| stored.leaf(44).is_none()), "at another place");
        let rest = super::from(7, &row, 8).unwrap();
        assert!(super::records(8, &rest).all(|stored| stored.leaf(44).is_some()));
        assert_eq!((super::records(8, &rest).count(), super::from(7, &row, 9)), (1, None));
        let mut more = RowBuilder::new();
        more.push(b"three", &leaf(9, b"three"));
        let joined = join([row.as_slice(), &more.finish()].into_iter());
        let mut all = super::records(7, &joined);
        assert!(all.by_ref().all(|stored| stored.leaf(44).is_some()) && all.is_whole());
        assert_eq!(super::records(7, &joined).last().map(|last| (last.index, last.record)), Some((9, &b"three"[..])));
        for cut in 0..row.len() {
            let mut records = super::records(7, &row[..cut]);
            let _ = records.by_ref().count();
            assert!(!records.is_whole(), "{cut}");
        }
        let mut longer = super::records(7, &row);
        longer.left = 1;
        let _ = longer.by_ref().count();
        assert!(!longer.is_whole());
    }
}
