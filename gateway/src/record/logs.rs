//! The logs' right edges in memory, and what one commit makes of them. No I/O.
//!
//! A commit is staged on copies: only when it is durable does it take the place of what was.

use std::{collections::BTreeMap, sync::Arc};

use proto::{
    identity::Realm,
    log::{
        LogId,
        commit::{Commit, Head, commit_leaf, hash_of_heads},
        merkle::{Frontier, Hash, Tree},
        owner_from_number, owner_number,
    },
    suite::{Kid, SigningKey},
    time::UnixTime,
};

use super::{journal::Rows, row::RowBuilder};

/// Subtrees of at least 2^8 leaves are stored by themselves; smaller ones are made of their records when they are asked for.
pub(super) const BLOCK_LEVEL: u8 = 8;
/// Records of one such block. Logs are trimmed by whole blocks, so that what is left of their trees is stored.
pub(super) const BLOCK: u64 = 1 << BLOCK_LEVEL;

/// The key of a replica's logs.
#[derive(Clone, Debug)]
pub(crate) struct LogKey {
    key: Arc<SigningKey>,
    kid: Kid,
    id: LogId,
}

impl LogKey {
    pub(super) fn new(key: SigningKey) -> Self {
        let (kid, id) = (key.verifying_key().kid(), LogId::of(key.verifying_key()));
        Self { key: Arc::new(key), kid, id }
    }

    /// The key.
    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Its id.
    pub(crate) const fn kid(&self) -> Kid {
        self.kid
    }

    /// The logs' id.
    pub(crate) const fn id(&self) -> LogId {
        self.id
    }
}

/// The heads of all logs that have a record, by their numbers.
pub(crate) type Heads = BTreeMap<u8, Head>;

/// All logs of a replica, as of its last commit.
#[derive(Debug)]
pub(super) struct Logs {
    key: LogKey,
    number: u64,
    frontiers: BTreeMap<u8, Frontier>,
    heads: Arc<Heads>,
}

/// A record for a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Append<'a> {
    /// Whose log.
    pub(super) owner: Realm,
    /// The record.
    pub(super) record: &'a [u8],
    /// Its leaf hash.
    pub(super) leaf: Hash,
}

/// A commit that is not durable yet.
#[derive(Debug)]
pub(super) struct Staged {
    /// (log, index of its first record) → row.
    pub(super) rows: Rows,
    /// (log, level, index) → a subtree's root.
    pub(super) nodes: Vec<((u8, u8, u64), Hash)>,
    /// All heads after it.
    pub(super) heads: Heads,
    /// It, signed.
    pub(super) signed: Arc<[u8]>,
    /// Its number.
    pub(super) number: u64,
    frontiers: BTreeMap<u8, Frontier>,
    tree: Tree,
    /// The index on its log of each record, in the commit's order.
    indexes: Vec<u64>,
}

/// A commit that is durable: what receipts are made of.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) signed: Arc<[u8]>,
    pub(super) tree: Tree,
    pub(super) indexes: Vec<u64>,
}

impl Logs {
    /// The logs as they were found.
    pub(super) fn new(key: LogKey, number: u64, frontiers: BTreeMap<u8, Frontier>) -> Self {
        let heads = frontiers.iter().filter_map(|(log, frontier)| Some((*log, head(*log, frontier)?))).collect();
        Self { key, number, frontiers, heads: Arc::new(heads) }
    }

    /// The heads.
    pub(super) fn heads(&self) -> Arc<Heads> {
        self.heads.clone()
    }

    /// Stages a commit of these records.
    pub(super) fn stage<'a>(&self, appends: impl Iterator<Item = Append<'a>>, now: UnixTime) -> Staged {
        let mut frontiers: BTreeMap<u8, Frontier> = BTreeMap::new();
        let mut rows: BTreeMap<u8, (u64, RowBuilder)> = BTreeMap::new();
        let (mut nodes, mut leaves, mut indexes) = (Vec::new(), Vec::new(), Vec::new());
        for Append { owner, record, leaf } in appends {
            let log = owner_number(owner);
            let before = || self.frontiers.get(&log).cloned().unwrap_or_default();
            let frontier = frontiers.entry(log).or_insert_with(before);
            let index = frontier.size();
            let in_commit = commit_leaf(owner, index, &leaf);
            rows.entry(log).or_insert_with(|| (index, RowBuilder::new())).1.push(record, &in_commit);
            frontier.push_with(leaf, |level, index, hash| {
                if level >= BLOCK_LEVEL {
                    nodes.push(((log, level, index), hash));
                }
            });
            leaves.push(in_commit);
            indexes.push(index);
        }
        let mut heads = Heads::clone(&self.heads);
        heads.extend(frontiers.iter().filter_map(|(log, frontier)| Some((*log, head(*log, frontier)?))));
        let (number, tree) = (self.number + 1, Tree::new(leaves));
        let hash = hash_of_heads(heads.values());
        let commit = Commit { number, root: tree.root(), count: tree.size(), heads: hash, issued_at: now };
        let signed = commit.sign(self.key.key(), self.key.kid()).into();
        let rows = rows.into_iter().map(|(log, (first, row))| ((log, first), row.finish())).collect();
        Staged { rows, nodes, heads, signed, number, frontiers, tree, indexes }
    }

    /// Takes up a commit that is durable; also returns its rows.
    pub(super) fn settle(&mut self, staged: Staged) -> (Committed, Rows) {
        self.number = staged.number;
        self.frontiers.extend(staged.frontiers);
        self.heads = Arc::new(staged.heads);
        (Committed { signed: staged.signed, tree: staged.tree, indexes: staged.indexes }, staged.rows)
    }
}

fn head(log: u8, frontier: &Frontier) -> Option<Head> {
    let owner = owner_from_number(log)?;
    (frontier.size() > 0).then(|| Head { owner, size: frontier.size(), root: frontier.root() })
}
