//! Whether the store is what was committed: every record in its place, every subtree over them, every head, the last commit's
//! signature, home's receipts, and the witness beside it.

use proto::{
    identity::Realm,
    log::{
        commit::{Commit, hash_of_heads},
        delivery::DeliveryReceipt,
        merkle::{Frontier, Hash, peaks_of},
        owner_from_number,
    },
    refusal::Refusal,
    time::UnixTime,
    trust::TrustList,
};
use std::collections::BTreeMap;

use super::{
    logs::{BLOCK_LEVEL, Heads},
    receipt::KeptReceipt,
    row,
    store::{Damage, StoreError},
    view::{LogView, View, size_of},
};

/// What is verified by beside the store itself.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    /// The trust list, if there is one: without it keys are the store's own.
    pub(super) list: Option<&'a TrustList>,
    /// For receipts that cannot be from later.
    pub(super) now: UnixTime,
}

/// One log that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub owner: Realm,
    /// Where its records begin.
    pub kept_from: u64,
    /// How many it had in all.
    pub size: u64,
    /// Its root.
    pub root: Hash,
    /// How many of them home has a receipt for.
    pub delivered: u64,
    /// Whether the trust list has the key of that receipt: members change their keys.
    pub receipt_is_listed: bool,
}

/// Checks the last commit against the heads and the witness. Returns the commit's number and the heads.
pub(super) fn check_store(view: &View, witnessed: Option<Commit>) -> Result<(u64, Heads), StoreError> {
    let (commit, heads) = (view.commit()?, view.heads()?);
    let number = commit.map_or(0, |commit| commit.number);
    let journal = view.journal()?;
    // It has the last commits, all of them up to the last.
    let expected = number.saturating_sub(journal.len() as u64)..number;
    if !journal.iter().map(|(number, _)| number.wrapping_sub(1)).eq(expected) {
        return Err(Damage::of_store("its journal does not have the last commits").into());
    }
    match commit {
        None if heads.is_empty() => {}
        None => return Err(Damage::of_store("its heads have no commit").into()),
        Some(commit) if hash_of_heads(heads.values()) == commit.heads => {}
        Some(_) => return Err(Damage::of_store("its heads are not those of its last commit").into()),
    }
    if let Some(seen) = witnessed
        && seen.number > number
    {
        let what = format!("it is an older copy: it ends with commit {number}, and commit {} was made", seen.number);
        return Err(Damage::of_store(what).into());
    }
    Ok((number, heads))
}

/// Verifies everything that is stored. What is wrong is all there is to say of a log: the others are verified still.
pub(super) fn verify(
    view: &View,
    witnessed: Option<Commit>,
    by: By<'_>,
) -> Result<Vec<Result<Verified, Damage>>, StoreError> {
    let mut found = Vec::new();
    let heads = match check_store(view, witnessed) {
        Ok((_, heads)) => heads,
        Err(StoreError::Damaged(damage)) => {
            found.push(Err(damage));
            view.heads().unwrap_or_default()
        }
        Err(error) => return Err(error),
    };
    if let Some(list) = by.list
        && !list.gateway.log_keys.values().any(|key| key == view.key().key().verifying_key())
    {
        found.push(Err(Damage::of_store(format!("the trust list has no log key {}", view.key().kid()))));
    }
    for log in view.logs()? {
        match verify_log(view, &heads, log, by) {
            Ok(verified) => found.push(Ok(verified)),
            Err(StoreError::Damaged(damage)) => found.push(Err(damage)),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn verify_log(view: &View, heads: &Heads, log: u8, by: By<'_>) -> Result<Verified, StoreError> {
    let owner = owner_from_number(log).ok_or_else(|| Damage::of_store(format!("there is a log {log} of nobody")))?;
    let base = view.base(log)?;
    let delivered = delivered(view, owner, log, by)?;
    let receipt = delivered.map(|(receipt, _)| (receipt.size, receipt.root));
    view.log(log).rows(0, |first, _| {
        if first < base {
            return Err(
                Damage::at(log, first, format!("there is a row before {base}, where the log was trimmed")).into()
            );
        }
        Ok(false)
    })?;
    let frontier = walk(&view.log(log), heads, base, receipt, |_, _| ())?;
    check_nodes(&view.log(log), base, frontier.size())?;
    let (size, receipt_is_listed) = delivered.map_or((0, true), |(receipt, listed)| (receipt.size, listed));
    if owner != Realm::Gateway && base > size {
        return Err(Damage::of_log(log, "it is trimmed and home has no receipt for it").into());
    }
    Ok(Verified {
        owner,
        kept_from: base,
        size: frontier.size(),
        root: frontier.root(),
        delivered: size,
        receipt_is_listed,
    })
}

/// Home's receipt, verified by the key it is kept with, and whether the trust list has that key still.
fn delivered(view: &View, owner: Realm, log: u8, by: By<'_>) -> Result<Option<(DeliveryReceipt, bool)>, StoreError> {
    let (Some((size, bytes)), Realm::Member(member)) = (view.delivered(log)?, owner) else { return Ok(None) };
    let kept = KeptReceipt::decode(&bytes).ok_or_else(|| Damage::of_log(log, "home's receipt has no key"))?;
    let bad = |refusal: Refusal| Damage::of_log(log, format!("home's receipt does not verify: {refusal}"));
    let receipt = DeliveryReceipt::open_by(&kept.receipt, member, &kept.key, by.now).map_err(bad)?;
    if (receipt.log, receipt.size) != (view.id(), size) {
        return Err(Damage::of_log(log, "home's receipt is for another log, or another size").into());
    }
    let listed = by.list.is_none_or(|list| list.receipt_key(member, kept.key.kid()).is_ok_and(|key| *key == kept.key));
    Ok(Some((receipt, listed)))
}

/// Walks a log's records from `from`, a whole number of blocks, to its end, and checks each against its place, the subtrees
/// they complete, the size and root that home has a receipt for, and the head.
pub(super) fn walk(
    view: &LogView<'_>,
    heads: &Heads,
    from: u64,
    receipt: Option<(u64, Hash)>,
    mut each: impl FnMut(u64, &[u8]),
) -> Result<Frontier, StoreError> {
    let log = view.number();
    let mut frontier = view.frontier_at_block(from)?;
    let check_receipt = |frontier: &Frontier| match receipt {
        Some((size, root)) if size == frontier.size() && root != frontier.root() => {
            Err(Damage::of_log(log, format!("home has a receipt for {size} records that are not these")))
        }
        _ => Ok(()),
    };
    check_receipt(&frontier)?;
    let mut next = None;
    view.rows(from, |first, row| {
        // The row that `from` is in may begin before it.
        let expected = next.unwrap_or(if first < from { first } else { from });
        if first != expected {
            return Err(Damage::at(log, expected, format!("the next row begins at {first}")).into());
        }
        let mut records = row::records(first, row);
        for stored in records.by_ref().filter(|stored| stored.index >= from) {
            let what = || Damage::at(log, stored.index, "it is not the record that was put here");
            let leaf = stored.leaf(log).ok_or_else(what)?;
            let mut other = None;
            let mut completed = Vec::new();
            frontier.push_with(leaf, |level, index, hash| completed.push((level, index, hash)));
            for (level, index, hash) in completed {
                if level >= BLOCK_LEVEL && view.stored_node(level, index)? != Some(hash) {
                    other = other.or(Some((index << level, (index + 1) << level)));
                }
            }
            if let Some((low, high)) = other {
                let what = format!("the records before {high} are not those that the tree was made of");
                return Err(Damage::at(log, low.max(from), what).into());
            }
            check_receipt(&frontier)?;
            each(stored.index, stored.record);
        }
        if !records.is_whole() {
            return Err(Damage::at(log, frontier.size(), "its row is cut, or has more than it says").into());
        }
        next = Some(frontier.size());
        Ok(true)
    })?;
    check_head(&frontier, heads, log)?;
    if let Some((size, _)) = receipt
        && size > frontier.size()
    {
        let what = format!("home has a receipt for {size} records: this is an older copy");
        return Err(Damage::at(log, frontier.size(), what).into());
    }
    Ok(frontier)
}

fn check_head(frontier: &Frontier, heads: &Heads, log: u8) -> Result<(), Damage> {
    let size = size_of(heads, log);
    if size != frontier.size() {
        let index = size.min(frontier.size());
        return Err(Damage::at(log, index, format!("{} records, and {size} were committed", frontier.size())));
    }
    match heads.get(&log) {
        Some(head) if head.root != frontier.root() => {
            // Every block before was compared with its stored root.
            let index = frontier.size() >> BLOCK_LEVEL << BLOCK_LEVEL;
            Err(Damage::at(log, index, "the records from here on are not those that were committed"))
        }
        _ => Ok(()),
    }
}

/// There are no other subtrees than those of the tree, and before the base its peaks alone.
fn check_nodes(view: &LogView<'_>, base: u64, size: u64) -> Result<(), StoreError> {
    let peaks: BTreeMap<_, _> = peaks_of(base).collect();
    view.nodes(|level, index, _| {
        let end = (BLOCK_LEVEL..64).contains(&level).then(|| index.checked_add(1)).flatten();
        let end = end.and_then(|end| end.checked_mul(1 << level));
        let right =
            end.is_some_and(|end| end <= size && (end > base || peaks.get(&level).is_some_and(|peak| *peak == index)));
        if right {
            return Ok(());
        }
        Err(Damage::of_log(view.number(), format!("there is a subtree {level}/{index} that is none of its tree"))
            .into())
    })
}
