//! The kit's own access log: records, their tree, signed heads. It is in the federation's directory and goes on from run to
//! run, as a gateway's does: a node keeps what it was told once.

use std::{
    collections::HashSet,
    convert::Infallible,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use proto::{
    identity::{FederationDomain, Realm},
    log::{
        LogId,
        checkpoint::Checkpoint,
        merkle::{self, Hash, Nodes},
    },
    suite::{SigningKey, Suite},
};

/// A log, or what a gateway might say is one.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    records: Vec<Vec<u8>>,
    /// Perfect subtrees, by level and index.
    levels: Vec<Vec<Hash>>,
}

impl History {
    pub(super) fn push(&mut self, record: Vec<u8>) {
        let mut hash = merkle::leaf_hash(&record);
        self.records.push(record);
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let nodes = &mut self.levels[level];
            nodes.push(hash);
            match nodes.as_slice() {
                [.., left, right] if nodes.len().is_multiple_of(2) => hash = merkle::node_hash(left, right),
                _ => return,
            }
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.records.len() as u64
    }

    /// The records from one on and before another, as far as there are any.
    pub(super) fn records(&self, from: u64, to: u64) -> &[Vec<u8>] {
        let to = to.min(self.size()) as usize;
        &self.records[(from as usize).min(to)..to]
    }

    /// The peaks of the tree over its first `size` records, which it has.
    pub(super) fn peaks(&self, size: u64) -> Vec<Hash> {
        merkle::peaks_of(size).map(|(level, index)| self.levels[usize::from(level)][index as usize]).collect()
    }

    /// The root of its first `size` records, which it has.
    pub(super) fn root(&self, size: u64) -> Hash {
        let mut roots = self.peaks(size).into_iter().rev();
        let Some(last) = roots.next() else { return merkle::empty_root() };
        roots.fold(last, |right, left| merkle::node_hash(&left, &right))
    }

    /// That its first `new` records extend its first `old` ones.
    pub(super) fn proof(&self, old: u64, new: u64) -> Vec<Hash> {
        let Ok(proof) = merkle::consistency_proof(self, old.min(new), new);
        proof
    }

    /// The same up to a record, and from there on other records.
    pub(super) fn forked(&self, from: u64) -> Self {
        let mut fork = Self::default();
        for (index, record) in (0..).zip(&self.records) {
            let mut record = record.clone();
            if index >= from {
                let last = record.len() - 1;
                record[last] ^= 1;
            }
            fork.push(record);
        }
        fork
    }
}

impl Nodes for History {
    type Error = Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        Ok(self.levels[usize::from(level)][index as usize])
    }
}

/// The kit's log for one member.
#[derive(Debug)]
pub(super) struct KitLog {
    key: SigningKey,
    path: PathBuf,
    /// What is true of it.
    pub(super) history: History,
    /// How much of it the node holds; `None` is not known.
    pub(super) held: Option<u64>,
    /// Checkpoints that the node gave a receipt for.
    pub(super) accepted: HashSet<String>,
    /// Whether the node did with it, in this run, what it should not: then it may hold another log.
    pub(super) spoiled: bool,
}

impl KitLog {
    /// Opens it; a run that was cut off may have left a piece of a record, which goes.
    pub(super) fn open(key: &Path, path: PathBuf) -> Result<Self> {
        let bytes = fs::read(key).with_context(|| key.display().to_string())?;
        let key = SigningKey::from_pkcs8(Suite::Ed25519, &bytes)?;
        let kept = if path.exists() { fs::read(&path)? } else { Vec::new() };
        let (mut history, mut rest) = (History::default(), kept.as_slice());
        while let Some((length, behind)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some((record, behind)) = behind.split_at_checked(length) else { break };
            history.push(record.to_vec());
            rest = behind;
        }
        if !rest.is_empty() {
            fs::OpenOptions::new().write(true).open(&path)?.set_len((kept.len() - rest.len()) as u64)?;
        }
        Ok(Self { key, path, history, held: None, accepted: HashSet::new(), spoiled: false })
    }

    pub(super) fn id(&self) -> LogId {
        LogId::of(self.key.verifying_key())
    }

    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Appends records: they are in the file before anybody is told of them.
    pub(super) fn append(&mut self, records: Vec<Vec<u8>>) -> Result<()> {
        let mut bytes = Vec::new();
        for record in &records {
            bytes.extend(u16::try_from(record.len())?.to_be_bytes());
            bytes.extend(record);
        }
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(&bytes).with_context(|| self.path.display().to_string())?;
        records.into_iter().for_each(|record| self.history.push(record));
        Ok(())
    }
}

/// A head of a history, signed.
pub(super) fn note(
    history: &History,
    size: u64,
    log: LogId,
    owner: Realm,
    domain: &FederationDomain,
    key: &SigningKey,
) -> String {
    Checkpoint { log, owner, size, root: history.root(size) }.sign(domain, key)
}

#[cfg(test)]
mod tests {
    use proto::log::merkle::{Tree, is_consistent};

    use super::*;

    #[test]
    fn a_history_has_the_trees_of_all_its_sizes_and_a_fork_has_others() {
        let mut history = History::default();
        for number in 0..50_u8 {
            history.push(vec![number]);
        }
        let leaves: Vec<_> = (0..50_u8).map(|number| merkle::leaf_hash(&[number])).collect();
        for size in 0..=50 {
            assert_eq!(history.root(size), Tree::new(leaves[..size as usize].to_vec()).root());
            let (old, new) = ((size, history.root(size)), (50, history.root(50)));
            assert!(is_consistent(old, new, &history.proof(size, 50)));
            let fork = history.forked(size);
            assert_eq!(fork.root(size), history.root(size));
            assert_eq!(fork.root(50) == history.root(50), size == 50);
        }
        assert_eq!(history.records(48, 90), [[48], [49]]);
        assert!(history.records(51, 90).is_empty());
    }

    #[test]
    fn a_log_goes_on_where_it_ended_and_a_piece_of_a_record_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (key, path) = (dir.path().join("log.key"), dir.path().join("log-44"));
        fs::write(&key, SigningKey::generate(Suite::Ed25519).to_pkcs8()).unwrap();
        let mut log = KitLog::open(&key, path.clone()).unwrap();
        log.append(vec![vec![1; 3], vec![2; 300]]).unwrap();
        let root = log.history.root(2);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend([0, 9, 1]);
        fs::write(&path, bytes).unwrap();
        let mut log = KitLog::open(&key, path.clone()).unwrap();
        assert_eq!((log.history.size(), log.history.root(2)), (2, root));
        log.append(vec![vec![3]]).unwrap();
        assert_eq!(KitLog::open(&key, path).unwrap().history.records(2, 3), [[3]]);
    }
}
