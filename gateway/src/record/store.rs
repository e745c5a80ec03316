//! The embedded store (redb): one transaction a batch, one value per log and batch, fsync before it counts.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use proto::{member::Member, proof::ProofId, time::UnixTime};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use thiserror::Error;

use super::Row;
use crate::redemption::Claim;

/// (member's code, index of the first record) → the records of one commit, each behind its length (u32, big-endian).
const EXCHANGES: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("exchanges");
/// member's code → index of the next record.
const HEADS: TableDefinition<'_, u8, u64> = TableDefinition::new("heads");
/// number → a refusal before any token verified.
const REFUSALS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("refusals");
/// (remembered until, proof) → the venue that redeemed it.
const REDEMPTIONS: TableDefinition<'_, (u64, [u8; 16]), &str> = TableDefinition::new("redemptions");

/// Expired redemptions taken out in one commit at most.
const MAX_FORGOTTEN: usize = 1024;

/// Why the record cannot be kept.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// The store does not open: another process has it, or the file is not one.
    #[error("{}: {error}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        error: Box<redb::DatabaseError>,
    },
    /// A read or a commit failed.
    #[error("{0}")]
    Failed(#[from] Box<redb::Error>),
    /// The writer's thread does not start.
    #[error("the record's writer does not start: {0}")]
    Thread(std::io::Error),
}

impl StoreError {
    /// The word in metrics.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Failed(_) => "commit",
            Self::Thread(_) => "thread",
        }
    }
}

/// The open store. After a failure it is closed and opened anew: redb lets nothing be done with one that failed.
pub(super) struct Store {
    path: PathBuf,
    max_refusals: u64,
    database: Option<Database>,
}

impl Store {
    pub(super) fn open(path: &Path, max_refusals: u64) -> Result<Self, StoreError> {
        let database = open_database(path)?;
        Ok(Self { path: path.into(), max_refusals, database: Some(database) })
    }

    /// The redemptions that are still to be remembered.
    pub(super) fn live_redemptions(&self, now: UnixTime) -> Result<Vec<Claim>, StoreError> {
        let Some(database) = &self.database else { return Ok(Vec::new()) };
        live_redemptions(database, now).map_err(failed)
    }

    /// Commits a batch: all of it is durable, or none.
    pub(super) fn commit<'a>(&mut self, rows: impl Iterator<Item = Row<'a>>, now: UnixTime) -> Result<(), StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open_database(&self.path)?,
        };
        commit(&database, rows, now, self.max_refusals).map_err(failed)?;
        self.database = Some(database);
        Ok(())
    }
}

fn failed(error: redb::Error) -> StoreError {
    StoreError::Failed(Box::new(error))
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let opened = Database::builder().set_cache_size(16 << 20).create(path);
    let database = opened.map_err(|error| StoreError::Open { path: path.into(), error: Box::new(error) })?;
    let create = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(EXCHANGES)?;
        transaction.open_table(HEADS)?;
        transaction.open_table(REFUSALS)?;
        transaction.open_table(REDEMPTIONS)?;
        transaction.commit()?;
        Ok(())
    };
    create().map_err(failed)?;
    Ok(database)
}

fn live_redemptions(database: &Database, now: UnixTime) -> Result<Vec<Claim>, redb::Error> {
    let table = database.begin_read()?.open_table(REDEMPTIONS)?;
    let mut claims = Vec::new();
    for row in table.range((now.as_secs(), [0; 16])..)? {
        let (key, venue) = row?;
        let (until, id) = key.value();
        // What does not parse was never written by us.
        if let Ok(venue) = venue.value().parse() {
            claims.push(Claim::committed(ProofId(id), venue, UnixTime::from_secs(until)));
        }
    }
    Ok(claims)
}

fn commit<'a>(
    database: &Database,
    rows: impl Iterator<Item = Row<'a>>,
    now: UnixTime,
    max_refusals: u64,
) -> Result<(), redb::Error> {
    let mut logs: BTreeMap<Member, (u64, Vec<u8>)> = BTreeMap::new();
    let transaction = database.begin_write()?;
    {
        let mut refusals = transaction.open_table(REFUSALS)?;
        let mut redemptions = transaction.open_table(REDEMPTIONS)?;
        let mut next_refusal = refusals.last()?.map_or(0, |(number, _)| number.value() + 1);
        for row in rows {
            match row {
                Row::Exchange { home, entry, claim } => {
                    let (count, bytes) = logs.entry(home).or_default();
                    let encoded = entry.encode();
                    *count += 1;
                    bytes.extend((encoded.len() as u32).to_be_bytes());
                    bytes.extend(encoded);
                    if let Some(claim) = claim {
                        redemptions.insert((claim.until.as_secs(), claim.id.0), claim.venue.to_string().as_str())?;
                    }
                }
                Row::Refusal(refusal) => {
                    refusals.insert(next_refusal, refusal.encode().as_slice())?;
                    next_refusal += 1;
                }
            }
        }
        while next_refusal - refusals.first()?.map_or(next_refusal, |(first, _)| first.value()) > max_refusals {
            refusals.pop_first()?;
        }
        let ended = redemptions.range(..(now.as_secs(), [0; 16]))?.take(MAX_FORGOTTEN);
        let ended = ended.map(|row| row.map(|(key, _)| key.value())).collect::<Result<Vec<_>, _>>()?;
        for key in ended {
            redemptions.remove(key)?;
        }
        let mut exchanges = transaction.open_table(EXCHANGES)?;
        let mut heads = transaction.open_table(HEADS)?;
        for (home, (count, bytes)) in logs {
            let next = heads.get(home.number())?.map_or(0, |head| head.value());
            exchanges.insert((home.number(), next), bytes.as_slice())?;
            heads.insert(home.number(), next + count)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Ending, Entry, RefusalEntry};
    use super::*;
    use peer::trace::Trace;
    use proto::{
        contract::recognition::{Outcome, Source},
        identity::PeerId,
        refusal::Reason,
        terms::{Kind, Purpose, Scope},
        token::Cti,
    };
    use std::{sync::Arc, time::Duration};

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn entry() -> Entry {
        Entry {
            time: NOW,
            venue: Arc::new("44/station/a".parse().unwrap()),
            caller: PeerId::backend("44".parse().unwrap(), "app").unwrap(),
            staff_id: None,
            purpose: Purpose::Entry,
            granted: Some(Scope::LEVEL),
            cti: Cti([1; 16]),
            kind: Kind::Own,
            policy_version: 1,
            exchange_id: [2; 16],
            trace_id: Trace::of_span(&tracing::Span::none(), None).id(),
            ending: Ending::Answered { outcome: Outcome::Status, source: Source::Home, statement: Some([3; 16]) },
        }
    }

    fn refusal() -> RefusalEntry {
        RefusalEntry { time: NOW, caller: PeerId::gateway("1").unwrap(), reason: Reason::NotCbor }
    }

    fn claim(n: u8, until: UnixTime) -> Claim {
        Claim::committed(ProofId([n; 16]), "44/station/a".parse().unwrap(), until)
    }

    #[test]
    fn indexes_have_no_gaps_across_batches_and_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.redb");
        let (a, b) = ("44".parse().unwrap(), "51".parse().unwrap());
        let entry = entry();
        let rows = |homes: &[Member]| -> Vec<Row<'_>> {
            homes.iter().map(|home| Row::Exchange { home: *home, entry: &entry, claim: None }).collect()
        };
        let mut store = Store::open(&path, 10).unwrap();
        store.commit(rows(&[a, b, a]).into_iter(), NOW).unwrap();
        drop(store);
        let mut store = Store::open(&path, 10).unwrap();
        store.commit(rows(&[a]).into_iter(), NOW).unwrap();
        let database = store.database.as_ref().unwrap();
        let keys: Vec<_> = {
            let table = database.begin_read().unwrap().open_table(EXCHANGES).unwrap();
            table.iter().unwrap().map(|row| row.unwrap().0.value()).collect()
        };
        assert_eq!(keys, [(44, 0), (44, 2), (51, 0)]);
    }

    #[test]
    fn refusals_are_bounded_and_redemptions_are_remembered_while_they_live() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("record.redb"), 3).unwrap();
        let (refusal, entry) = (refusal(), entry());
        store.commit((0..5).map(|_| Row::Refusal(&refusal)), NOW).unwrap();
        let kept: Vec<_> = {
            let table = store.database.as_ref().unwrap().begin_read().unwrap().open_table(REFUSALS).unwrap();
            table.iter().unwrap().map(|row| row.unwrap().0.value()).collect()
        };
        assert_eq!(kept, [2, 3, 4]);
        let (old, live) = (claim(1, NOW), claim(2, NOW.plus(Duration::from_secs(60))));
        let home = "44".parse().unwrap();
        let rows = [&old, &live].map(|claim| Row::Exchange { home, entry: &entry, claim: Some(claim) });
        store.commit(rows.into_iter(), NOW).unwrap();
        let later = NOW.plus(Duration::from_secs(1));
        let ids: Vec<_> = store.live_redemptions(later).unwrap().iter().map(|claim| claim.id).collect();
        assert_eq!(ids, [ProofId([2; 16])]);
    }

    #[test]
    fn a_refusal_holds_nothing_but_who_when_and_why() {
        let value = proto::cbor::decode(proto::refusal::Object::Token, &refusal().encode(), 200).unwrap();
        assert_eq!(value.as_map().unwrap().len(), 3);
    }
}
