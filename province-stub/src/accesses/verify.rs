//! Whether the access logs on file are what was delivered: each is read from its base to its end, and every tree and signed
//! head that is known of it must come out.
//!
//! Upholds I2 at home's end: a record that was changed, dropped, moved or cut off here is found. It only reads, page by
//! page, and so works beside a node that goes on taking records in and forgetting them.

use std::ops::RangeInclusive;

use proto::{
    identity::{FederationDomain, Realm},
    log::{
        LogId,
        checkpoint::Checkpoint,
        merkle::{Frontier, Hash, leaf_hash, peaks_of},
        record::Entry,
    },
    member::Member,
    refusal::{Object, Refusal},
    suite::{Suite, VerifyingKey},
    trust::TrustList,
};
use thiserror::Error;

use crate::store::{
    Store, StoreError,
    access_log::{Accepted, HeldLog, LogOnFile},
};

/// Records that are read at once.
const PAGE: u32 = 1_000;
/// How often a log is looked at again whose start was forgotten meanwhile.
const TRIES: usize = 3;

/// What was found of one log.
#[derive(Debug)]
pub struct Verdict {
    /// The log, as it stood.
    pub log: LogOnFile,
    /// What is wrong with it, if anything is.
    pub fault: Option<Fault>,
    /// Whether its key is in the trust list still. It verifies by it either way: the key's hash is the log's id.
    pub listed: bool,
}

impl Verdict {
    /// Whether nothing is wrong, nothing is missing, and nobody told another story.
    pub fn is_well(&self) -> bool {
        self.fault.is_none() && self.log.next_start.is_none() && self.log.conflicts == 0
    }
}

/// What is wrong with a log on file.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// A record is not there.
    #[error("record {0} is missing")]
    Missing(u64),
    /// A record is there that is not part of the log.
    #[error("record {0} lies outside the log")]
    Outside(u64),
    /// A record was readable when it came.
    #[error("record {0} was changed: nobody can read it any more")]
    Unreadable(u64),
    /// Some record is not what came: the tree does not tell which.
    #[error("a record from {} to {} was changed or moved", .0.start(), .0.end())]
    Changed(RangeInclusive<u64>),
    /// A signed head says otherwise.
    #[error("the first {0} records are not those that the log's signed head speaks of")]
    NotAsSigned(u64),
    /// The key on file is not the one that the log's id is the hash of.
    #[error("the key on file is not this log's")]
    ForeignKey,
    /// A head on file is no head of this log.
    #[error("the head of {0} records on file is not one that this log signed")]
    ForeignHead(u64),
    /// A head on file does not verify.
    #[error("the head of {size} records on file does not verify: {why}")]
    Head {
        /// How many records it speaks of.
        size: u64,
        /// Why.
        why: Refusal,
    },
    /// No head speaks of all the records.
    #[error("no signed head on file speaks of all {0} records")]
    NoHead(u64),
}

/// Verifies all logs on file.
pub async fn verify<S: Store>(store: &S, member: Member, list: &TrustList) -> Result<Vec<Verdict>, StoreError> {
    let mut verdicts = Vec::new();
    for log in store.access_logs().await? {
        verdicts.push(judge(store, member, list, log).await?);
    }
    Ok(verdicts)
}

async fn judge<S: Store>(
    store: &S,
    member: Member,
    list: &TrustList,
    mut log: LogOnFile,
) -> Result<Verdict, StoreError> {
    let listed = list.log_key(Object::Checkpoint, log.log.kid()).is_ok_and(|key| LogId::of(key) == log.log);
    for _ in 1..TRIES {
        let fault = find_fault(store, member, list, &log).await?;
        let Some(now) = as_of_now(store, &log).await?.filter(|_| fault.is_some()) else {
            return Ok(Verdict { log, fault, listed });
        };
        if now.held.base == log.held.base {
            return Ok(Verdict { log, fault, listed });
        }
        log = now;
    }
    let fault = find_fault(store, member, list, &log).await?;
    Ok(Verdict { log, fault, listed })
}

async fn as_of_now<S: Store>(store: &S, log: &LogOnFile) -> Result<Option<LogOnFile>, StoreError> {
    Ok(store.access_logs().await?.into_iter().find(|now| (now.log, now.start) == (log.log, log.start)))
}

async fn find_fault<S: Store>(
    store: &S,
    member: Member,
    list: &TrustList,
    log: &LogOnFile,
) -> Result<Option<Fault>, StoreError> {
    let key = VerifyingKey::new(Suite::Ed25519, &log.key).ok().filter(|key| LogId::of(key) == log.log);
    let Some(key) = key else { return Ok(Some(Fault::ForeignKey)) };
    let mut heads = log.held.promises().chain(log.held.bound.iter().map(|bound| &bound.head));
    if let Some(fault) = heads.find_map(|head| check_head(member, &list.domain, &key, head)) {
        return Ok(Some(fault));
    }
    if log.held.latest.as_ref().map_or(0, |latest| latest.size) < log.held.tree.size()
        || log.held.tree.size() > 0 && log.held.bound.is_none()
    {
        return Ok(Some(Fault::NoHead(log.held.tree.size())));
    }
    let (tree, roots) = match rebuild(store, log).await? {
        Ok(rebuilt) => rebuilt,
        Err(fault) => return Ok(Some(fault)),
    };
    if let Some(range) = first_difference(&tree, &log.held) {
        return Ok(Some(look_closer(store, log.log, range).await?));
    }
    if let Some((head, _)) = roots.into_iter().find(|(head, root)| head.root != *root) {
        return Ok(Some(Fault::NotAsSigned(head.size)));
    }
    // Of a log with no record there is nothing to bind.
    let unbound = tree.size() > 0 && !log.held.is_bound(&tree);
    Ok(unbound.then(|| Fault::NotAsSigned(tree.size())))
}

fn check_head(member: Member, domain: &FederationDomain, key: &VerifyingKey, head: &Accepted) -> Option<Fault> {
    let owner = Realm::Member(member);
    let signed = Checkpoint { log: LogId::of(key), owner, size: head.size, root: head.root };
    match Checkpoint::open_by(&head.note, domain, key) {
        Ok(opened) if opened == signed => None,
        Ok(_) => Some(Fault::ForeignHead(head.size)),
        Err(why) => Some(Fault::Head { size: head.size, why }),
    }
}

/// The tree over the base and all records on file, and the roots it had where signed heads speak of it.
async fn rebuild<'l, S: Store>(
    store: &S,
    log: &'l LogOnFile,
) -> Result<Result<(Frontier, Vec<(&'l Accepted, Hash)>), Fault>, StoreError> {
    let (LogOnFile { log, held, start, .. }, on_file) = (log, log);
    let first = store.access_records(*log, *start, 1).await?;
    if let Some(outside) = first.first().filter(|first| first.index < held.base.size()) {
        return Ok(Err(Fault::Outside(outside.index)));
    }
    let mut tree = held.base.clone();
    let mut roots = Vec::new();
    while tree.size() < held.tree.size() {
        let page = store.access_records(*log, tree.size(), PAGE).await?;
        if page.is_empty() {
            return Ok(Err(Fault::Missing(tree.size())));
        }
        for on_file in page {
            if tree.size() == held.tree.size() {
                break;
            }
            if on_file.index != tree.size() {
                return Ok(Err(Fault::Missing(tree.size())));
            }
            tree.push(leaf_hash(&on_file.record));
            roots.extend(held.promises().filter(|head| head.size == tree.size()).map(|head| (head, tree.root())));
        }
    }
    let beyond = store.access_records(*log, held.tree.size(), 1).await?;
    // Of a log that has grown meanwhile it is no wonder.
    let (size, next) = as_of_now(store, on_file).await?.map_or((0, None), |now| (now.held.tree.size(), now.next_start));
    // What another part has is no part of this one.
    let outside = beyond.first().filter(|beyond| beyond.index >= size && next.is_none_or(|next| beyond.index < next));
    Ok(outside.map_or(Ok((tree, roots)), |outside| Err(Fault::Outside(outside.index))))
}

/// The records under the first peak that is not the one on file.
fn first_difference(tree: &Frontier, held: &HeldLog) -> Option<RangeInclusive<u64>> {
    let mut peaks = peaks_of(tree.size()).zip(tree.peaks().iter().zip(held.tree.peaks()));
    let ((level, index), _) = peaks.find(|(_, (found, on_file))| found != on_file)?;
    let (first, last) = (index << level, (index << level) + ((1 << level) - 1));
    Some(first.max(held.base.size()).min(last)..=last)
}

/// Which record of a range it is, if it shows.
async fn look_closer<S: Store>(store: &S, log: LogId, range: RangeInclusive<u64>) -> Result<Fault, StoreError> {
    let mut from = *range.start();
    while from <= *range.end() {
        let page = store.access_records(log, from, PAGE).await?;
        let Some(last) = page.last() else { break };
        from = last.index + 1;
        let within = page.iter().filter(|on_file| range.contains(&on_file.index));
        let mut damaged = within.filter(|on_file| on_file.readable && Entry::decode(&on_file.record).is_err());
        if let Some(on_file) = damaged.next() {
            return Ok(Fault::Unreadable(on_file.index));
        }
    }
    Ok(Fault::Changed(range))
}

#[cfg(test)]
mod tests;
