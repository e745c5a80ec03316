//! What the store says at one moment: records, subtrees, heads. Everything that reads reads through this.

use proto::log::{
    LogId,
    commit::{Commit, Head, decode_heads},
    merkle::{Frontier, Hash, Nodes, peaks_of},
    owner_number,
};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};

use super::{
    journal::{self, Rows},
    logs::{BLOCK, BLOCK_LEVEL, Heads, LogKey},
    row::{self, Stored},
    store::{COMMIT, DELIVERED, Damage, HEADS, JOURNAL, META, NODES, RECORDS, StoreError, TRIMMED, read_key},
};

/// One moment of the store.
pub(crate) struct View {
    key: LogKey,
    records: ReadOnlyTable<(u8, u64), &'static [u8]>,
    journal: ReadOnlyTable<u64, &'static [u8]>,
    nodes: ReadOnlyTable<(u8, u8, u64), Hash>,
    trimmed: ReadOnlyTable<u8, u64>,
    delivered: ReadOnlyTable<u8, (u64, &'static [u8])>,
    meta: ReadOnlyTable<&'static str, &'static [u8]>,
}

/// A log at that moment, for proofs.
pub(crate) struct LogView<'a> {
    view: &'a View,
    log: u8,
}

impl View {
    /// Looks at the store through a transaction.
    pub(super) fn of(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        let key = read_key(transaction)?;
        let open = || -> Result<Self, redb::Error> {
            Ok(Self {
                key,
                records: transaction.open_table(RECORDS)?,
                journal: transaction.open_table(JOURNAL)?,
                nodes: transaction.open_table(NODES)?,
                trimmed: transaction.open_table(TRIMMED)?,
                delivered: transaction.open_table(DELIVERED)?,
                meta: transaction.open_table(META)?,
            })
        };
        Ok(open().map_err(Box::new)?)
    }

    /// The key of the logs.
    pub(crate) const fn key(&self) -> &LogKey {
        &self.key
    }

    /// Their id.
    pub(crate) fn id(&self) -> LogId {
        self.key.id()
    }

    /// The last commit, verified by the key; `None` of a store that has none yet.
    pub(crate) fn commit(&self) -> Result<Option<Commit>, StoreError> {
        let signed = self.meta(COMMIT)?;
        let open = |signed: Vec<u8>| {
            Commit::open_by(&signed, self.key.key().verifying_key())
                .map_err(|refusal| Damage::of_store(format!("its last commit does not verify: {refusal}")))
        };
        Ok(signed.map(open).transpose()?)
    }

    /// The heads of all logs.
    pub(crate) fn heads(&self) -> Result<Heads, StoreError> {
        let Some(heads) = self.meta(HEADS)? else { return Ok(Heads::new()) };
        let heads = decode_heads(&heads).ok_or_else(|| Damage::of_store("its heads are none"))?;
        Ok(heads.into_iter().map(|head| (owner_number(head.owner), head)).collect())
    }

    /// Where a log's records begin.
    pub(crate) fn base(&self, log: u8) -> Result<u64, StoreError> {
        let read = || -> Result<u64, redb::Error> { Ok(self.trimmed.get(log)?.map_or(0, |base| base.value())) };
        Ok(read().map_err(Box::new)?)
    }

    /// How much of a log home holds, and its receipt for that.
    pub(crate) fn delivered(&self, log: u8) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            Ok(self.delivered.get(log)?.map(|delivered| {
                let (size, receipt) = delivered.value();
                (size, receipt.to_vec())
            }))
        };
        Ok(read().map_err(Box::new)?)
    }

    /// All logs that anything is stored of.
    pub(super) fn logs(&self) -> Result<Vec<u8>, StoreError> {
        let mut logs: Vec<u8> = self.heads()?.into_keys().collect();
        let mut read = || -> Result<(), redb::Error> {
            for entry in self.records.iter()? {
                logs.push(entry?.0.value().0);
            }
            for entry in self.journal.iter()? {
                let (_, value) = entry?;
                logs.extend(journal::decode(value.value()).into_iter().flatten().map(|((log, _), _)| log));
            }
            for entry in self.nodes.iter()? {
                logs.push(entry?.0.value().0);
            }
            for entry in self.trimmed.iter()? {
                logs.push(entry?.0.value());
            }
            for entry in self.delivered.iter()? {
                logs.push(entry?.0.value());
            }
            Ok(())
        };
        read().map_err(Box::new)?;
        logs.sort_unstable();
        logs.dedup();
        Ok(logs)
    }

    /// What waits in the journal, commit by commit.
    pub(super) fn journal(&self) -> Result<Vec<(u64, Rows)>, StoreError> {
        let read = || -> Result<Vec<_>, redb::Error> {
            let entries = self.journal.iter()?;
            let entries = entries.map(|entry| entry.map(|(number, value)| (number.value(), value.value().to_vec())));
            Ok(entries.collect::<Result<_, _>>()?)
        };
        let mut commits = Vec::new();
        for (number, value) in read().map_err(Box::new)? {
            let rows =
                journal::decode(&value).ok_or_else(|| Damage::of_store(format!("commit {number} is no journal's")))?;
            commits.push((number, rows.into_iter().map(|(key, row)| (key, row.to_vec())).collect()));
        }
        Ok(commits)
    }

    /// One log.
    pub(crate) const fn log(&self, log: u8) -> LogView<'_> {
        LogView { view: self, log }
    }

    fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || -> Result<_, redb::Error> { Ok(self.meta.get(name)?.map(|value| value.value().to_vec())) };
        Ok(read().map_err(Box::new)?)
    }
}

impl LogView<'_> {
    /// Which log it is.
    pub(super) const fn number(&self) -> u8 {
        self.log
    }

    /// Walks rows from the one that has `from` on, those in the journal behind the log's own: their first index and their
    /// bytes, until `each` returns false.
    pub(super) fn rows(
        &self,
        from: u64,
        mut each: impl FnMut(u64, &[u8]) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let failed = |error: redb::StorageError| StoreError::Failed(Box::new(error.into()));
        let table = &self.view.records;
        let before = table.range((self.log, 0)..=(self.log, from)).map_err(failed)?.next_back();
        let start = before.transpose().map_err(failed)?.map_or(from, |(key, _)| key.value().1);
        for entry in table.range((self.log, start)..=(self.log, u64::MAX)).map_err(failed)? {
            let (key, row) = entry.map_err(failed)?;
            let first = key.value().1;
            if !is_before(first, row.value(), from) && !each(first, row.value())? {
                return Ok(());
            }
        }
        for entry in self.view.journal.iter().map_err(failed)? {
            let (number, value) = entry.map_err(failed)?;
            let no_journal = || Damage::of_store(format!("commit {} is no journal's", number.value()));
            for ((log, first), row) in journal::decode(value.value()).ok_or_else(no_journal)? {
                if log == self.log && !is_before(first, row, from) && !each(first, row)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The records from `first` on, as long as `take` takes them: one that it refuses ends the walk.
    pub(crate) fn records(&self, first: u64, mut take: impl FnMut(u64, &[u8]) -> bool) -> Result<(), StoreError> {
        self.rows(first, |start, row| {
            let mut wanted = row::records(start, row).filter(|stored| stored.index >= first);
            Ok(wanted.all(|Stored { index, record, .. }| take(index, record)))
        })
    }

    /// The right edge of the tree over the first `size` records, which is a multiple of [`BLOCK`].
    pub(super) fn frontier_at_block(&self, size: u64) -> Result<Frontier, StoreError> {
        debug_assert!(size.is_multiple_of(BLOCK), "a whole number of blocks");
        Ok(Frontier::from_peaks(size, self.peaks(size)?).unwrap_or_default())
    }

    /// The peaks of the tree over the first `size` records, which are there or trimmed by whole blocks.
    pub(super) fn peaks(&self, size: u64) -> Result<Vec<Hash>, StoreError> {
        peaks_of(size).map(|(level, index)| self.node(level, index)).collect()
    }

    /// The root of that tree; `None` if there are fewer records, or those up to there were trimmed.
    pub(super) fn root_at(&self, size: u64) -> Result<Option<Hash>, StoreError> {
        if size > size_of(&self.view.heads()?, self.log) || size < self.view.base(self.log)? {
            return Ok(None);
        }
        Ok(Frontier::from_peaks(size, self.peaks(size)?).map(|frontier| frontier.root()))
    }

    /// Every node that is stored, by level and index.
    pub(super) fn nodes(
        &self,
        mut each: impl FnMut(u8, u64, Hash) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let failed = |error: redb::StorageError| StoreError::Failed(Box::new(error.into()));
        for entry in self.view.nodes.range((self.log, 0, 0)..=(self.log, u8::MAX, u64::MAX)).map_err(failed)? {
            let (key, hash) = entry.map_err(failed)?;
            let (_, level, index) = key.value();
            each(level, index, hash.value())?;
        }
        Ok(())
    }

    /// The node that is stored at this place.
    pub(super) fn stored_node(&self, level: u8, index: u64) -> Result<Option<Hash>, StoreError> {
        let read = || -> Result<_, redb::Error> {
            Ok(self.view.nodes.get((self.log, level, index))?.map(|hash| hash.value()))
        };
        Ok(read().map_err(Box::new)?)
    }
}

impl Nodes for LogView<'_> {
    type Error = StoreError;

    fn node(&self, level: u8, index: u64) -> Result<Hash, StoreError> {
        let missing = || Damage::at(self.log, index << level, format!("the subtree of level {level} is missing"));
        if level >= BLOCK_LEVEL {
            return Ok(self.stored_node(level, index)?.ok_or_else(missing)?);
        }
        let (first, count) = (index << level, 1 << level);
        let mut subtree = Frontier::new();
        self.records(first, |_, record| {
            subtree.push(proto::log::merkle::leaf_hash(record));
            subtree.size() < count
        })?;
        if subtree.size() < count {
            return Err(missing().into());
        }
        Ok(subtree.root())
    }
}

/// Whether all of a row is before an index.
fn is_before(first: u64, row: &[u8], index: u64) -> bool {
    row::count(row).is_some_and(|count| first.saturating_add(count) <= index)
}

/// The head of a log in heads; of a log without a record there is none.
pub(crate) fn size_of(heads: &Heads, log: u8) -> u64 {
    heads.get(&log).map_or(0, |Head { size, .. }| *size)
}
