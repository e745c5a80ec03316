//! The journal: one value a commit, with the rows of all its logs, so that a commit touches one place of the store whatever
//! logs it is of. Every few commits their rows go to their logs, joined: that cost is shared as well.
//!
//! ```text
//! ( log u8 | index of the first record u64 | length u32 | row ) …          big-endian
//! ```

use std::collections::BTreeMap;

use super::row;

/// Commits that the journal has at most before their rows go to their logs.
pub(super) const MAX_COMMITS: usize = 64;
/// Bytes that it has at most; of one commit there may be more.
pub(super) const MAX_BYTES: usize = 1 << 20;

const HEAD: usize = 1 + 8 + 4;

/// Rows by their log and first index.
pub(super) type Rows = Vec<((u8, u64), Vec<u8>)>;
/// The same where they are stored.
type StoredRows<'a> = Vec<((u8, u64), &'a [u8])>;

/// A commit's rows as one value.
pub(super) fn encode(rows: &Rows) -> Vec<u8> {
    let mut value = Vec::with_capacity(rows.iter().map(|(_, row)| HEAD + row.len()).sum());
    for ((log, first), row) in rows {
        value.push(*log);
        value.extend(first.to_be_bytes());
        value.extend((row.len() as u32).to_be_bytes());
        value.extend(row);
    }
    value
}

/// The rows of a value; `None` if it is none.
pub(super) fn decode(mut value: &[u8]) -> Option<StoredRows<'_>> {
    let mut rows = Vec::new();
    while let Some((head, rest)) = value.split_first_chunk::<HEAD>() {
        let first = u64::from_be_bytes(*head[1..].first_chunk()?);
        let length = u32::from_be_bytes(*head[9..].first_chunk()?);
        let (row, rest) = rest.split_at_checked(length as usize)?;
        rows.push(((head[0], first), row));
        value = rest;
    }
    value.is_empty().then_some(rows)
}

/// What waits in the journal, as its writer knows it.
#[derive(Debug, Default)]
pub(super) struct Journal {
    commits: Vec<Rows>,
    bytes: usize,
}

impl Journal {
    /// Takes up what was found.
    pub(super) fn push(&mut self, rows: Rows) {
        self.bytes += rows.iter().map(|(_, row)| row.len()).sum::<usize>();
        self.commits.push(rows);
    }

    /// Whether its rows should go to their logs now.
    pub(super) fn is_full(&self) -> bool {
        self.commits.len() >= MAX_COMMITS || self.bytes >= MAX_BYTES
    }

    /// Whether it has records of a log before an index.
    pub(super) fn holds_before(&self, log: u8, index: u64) -> bool {
        self.commits.iter().flatten().any(|((of, first), _)| *of == log && *first < index)
    }

    /// Its rows, joined by log.
    pub(super) fn joined(&self) -> Rows {
        let mut by_log: BTreeMap<u8, (u64, Vec<&[u8]>)> = BTreeMap::new();
        for ((log, first), row) in self.commits.iter().flatten() {
            by_log.entry(*log).or_insert_with(|| (*first, Vec::new())).1.push(row);
        }
        by_log.into_iter().map(|(log, (first, rows))| ((log, first), row::join(rows.into_iter()))).collect()
    }

    pub(super) fn clear(&mut self) {
        (self.commits, self.bytes) = (Vec::new(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_its_rows_and_nothing_less() {
        let rows: Rows = vec![((44, 7), b"row".to_vec()), ((51, u64::MAX), Vec::new())];
        let value = encode(&rows);
        let decoded = decode(&value).unwrap();
        assert_eq!(decoded, [((44, 7), &b"row"[..]), ((51, u64::MAX), b"")]);
        let whole = |cut: &usize| decode(&value[..*cut]).is_some();
        assert_eq!((1..value.len()).filter(whole).collect::<Vec<_>>(), [HEAD + 3], "cut between two rows alone");
    }

    #[test]
    fn it_is_full_at_its_bounds_and_joins_what_follows() {
        let one = |first| vec![((44, first), row::join(std::iter::empty()))];
        let mut journal = Journal::default();
        (0..MAX_COMMITS as u64 - 1).for_each(|first| journal.push(one(first)));
        assert!(!journal.is_full());
        journal.push(one(99));
        assert!(journal.is_full());
        assert!(journal.holds_before(44, 1) && !journal.holds_before(44, 0) && !journal.holds_before(51, 1));
        assert_eq!(journal.joined(), [((44, 0), row::join(std::iter::empty()))]);
        journal.clear();
        journal.push(vec![((44, 0), vec![0; MAX_BYTES])]);
        assert!(journal.is_full());
    }
}
