//! Merkle trees of append-only logs (RFC 9162 §2.1; the hashes are those of RFC 6962 too).
//!
//! A [`Frontier`] is all that appending needs: the roots of the perfect subtrees that a tree of its size is made of. Proofs
//! are made from any [`Nodes`], the roots of perfect subtrees by level and index, and checked by anyone.

use aws_lc_rs::digest::{Context, SHA256};

/// SHA-256, 32 bytes.
pub type Hash = [u8; 32];

/// The longest path or proof of a tree that a `u64` can count.
pub const MAX_PROOF: usize = 63;

/// The root of a tree without leaves: the SHA-256 of nothing.
pub fn empty_root() -> Hash {
    finish(Context::new(&SHA256))
}

/// The hash of a leaf: SHA-256(0x00 ‖ data).
pub fn leaf_hash(data: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(data);
    finish(context)
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut data = [1; 65];
    data[1..33].copy_from_slice(left);
    data[33..].copy_from_slice(right);
    crate::suite::sha256(&data)
}

fn finish(context: Context) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// A tree's right edge: its size, and the roots of the perfect subtrees it is made of, largest first.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The tree without leaves.
    pub const fn new() -> Self {
        Self { size: 0, peaks: Vec::new() }
    }

    /// A tree of this size with these peaks; `None` if there is not one for each bit of the size.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (size.count_ones() as usize == peaks.len()).then_some(Self { size, peaks })
    }

    /// How many leaves it has.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its perfect subtrees, largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.push_with(leaf, |_, _, _| ());
    }

    /// Appends a leaf and tells of each inner node that it completes: its level (from 1), its index there, its hash.
    pub fn push_with(&mut self, leaf: Hash, mut completed: impl FnMut(u8, u64, Hash)) {
        let (mut hash, mut level) = (leaf, 0);
        while self.size >> level & 1 == 1 {
            let left = self.peaks.pop().expect("a peak for each bit of the size");
            hash = node_hash(&left, &hash);
            level += 1;
            completed(level, self.size >> level, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The peaks of a tree of this size, as (level, index) of perfect subtrees, largest first.
pub fn peaks_of(size: u64) -> impl Iterator<Item = (u8, u64)> {
    // Above a set bit the size counts whole subtrees of that level, and the peak is the last of them.
    (0..64u8).rev().filter(move |level| size >> level & 1 == 1).map(move |level| (level, (size >> level) - 1))
}

/// The roots of perfect subtrees: of level 0 the leaves' hashes, of level n the node over 2^n leaves from `index` · 2^n on.
pub trait Nodes {
    /// Why a node is not to be had.
    type Error;

    /// The node at this place. It is only asked for where all its leaves are there.
    fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// The audit path of a leaf in a tree of `size` leaves (RFC 9162 §2.1.3.1), which has more than `index`.
pub fn inclusion_path<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Vec<Hash>, N::Error> {
    assert!(index < size, "the leaf is in the tree");
    let mut path = Vec::new();
    let (mut low, mut high) = (0, size);
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(range_root(nodes, middle, high)?);
            high = middle;
        } else {
            path.push(range_root(nodes, low, middle)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The proof that a tree of `new` leaves extends its own first `old` ones (RFC 9162 §2.1.4.1). Empty where there is nothing
/// to prove: both sizes are one, or the old tree has no leaf.
pub fn consistency_proof<N: Nodes>(nodes: &N, old: u64, new: u64) -> Result<Vec<Hash>, N::Error> {
    assert!(old <= new, "a log only grows");
    let mut proof = Vec::new();
    if old == 0 || old == new {
        return Ok(proof);
    }
    let (mut low, mut high, mut whole) = (0, new, true);
    while old != high {
        let middle = low + split(high - low);
        if old <= middle {
            proof.push(range_root(nodes, middle, high)?);
            high = middle;
        } else {
            proof.push(range_root(nodes, low, middle)?);
            low = middle;
            whole = false;
        }
    }
    // A subtree that is the whole old tree is what the verifier has.
    if !whole {
        proof.push(range_root(nodes, low, high)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The root over the leaves from `low` to before `high`, where a tree is split so.
fn range_root<N: Nodes>(nodes: &N, low: u64, high: u64) -> Result<Hash, N::Error> {
    let count = high - low;
    if count.is_power_of_two() {
        let level = count.trailing_zeros() as u8;
        return nodes.node(level, low >> level);
    }
    let middle = low + split(count);
    Ok(node_hash(&range_root(nodes, low, middle)?, &range_root(nodes, middle, high)?))
}

/// The largest power of two below `count`, which is at least 2.
const fn split(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

/// The root that a leaf's audit path leads to (RFC 9162 §2.1.3.2); `None` if it is no path for this place.
pub fn root_of_path(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            if at & 1 == 0 {
                let up = at.trailing_zeros().min(63);
                (at, last) = (at >> up, last >> up);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(hash)
}

/// Whether a proof shows that the tree of `new` leaves with its root extends the one of `old` leaves with its
/// (RFC 9162 §2.1.4.2).
pub fn is_consistent(old: (u64, Hash), new: (u64, Hash), proof: &[Hash]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 || old_size == new_size {
        let same = if old_size == new_size { old_root == new_root } else { old_root == empty_root() };
        return same && proof.is_empty();
    }
    if old_size > new_size {
        return false;
    }
    let mut hashes = proof.iter();
    let first = if old_size.is_power_of_two() { Some(&old_root) } else { hashes.next() };
    let Some(first) = first else { return false };
    let up = (!(old_size - 1)).trailing_zeros().min(63);
    let (mut at, mut last) = ((old_size - 1) >> up, (new_size - 1) >> up);
    let (mut from_old, mut from_new) = (*first, *first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            from_old = node_hash(hash, &from_old);
            from_new = node_hash(hash, &from_new);
            if at & 1 == 0 {
                let up = at.trailing_zeros().min(63);
                (at, last) = (at >> up, last >> up);
            }
        } else {
            from_new = node_hash(&from_new, hash);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && from_old == old_root && from_new == new_root
}

/// A small tree that is kept whole, for the paths of all its leaves.
#[derive(Clone, Debug)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over these leaves.
    pub fn new(leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            // An odd last node goes up as it is: the same tree as the RFC's, which splits from the left.
            let above = below.chunks(2).map(|pair| match pair {
                [left, right] => node_hash(left, right),
                alone => alone[0],
            });
            levels.push(above.collect());
        }
        Self { levels }
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.levels[0].len() as u64
    }

    /// Its root.
    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|top| top.first()).copied().unwrap_or_else(empty_root)
    }

    /// The audit path of a leaf.
    pub fn path(&self, index: usize) -> Vec<Hash> {
        let levels = self.levels.iter().enumerate();
        levels.filter_map(|(level, nodes)| nodes.get((index >> level) ^ 1).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as RFC 9162 §2.1.1 defines it.
    fn root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let k = split(leaves.len() as u64) as usize;
                node_hash(&root(&leaves[..k]), &root(&leaves[k..]))
            }
        }
    }

    struct Leaves(Vec<Hash>);

    impl Nodes for Leaves {
        type Error = std::convert::Infallible;

        fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error> {
            let (low, count) = ((index << level) as usize, 1 << level);
            Ok(root(&self.0[low..low + count]))
        }
    }

    fn leaves(count: usize) -> Leaves {
        Leaves((0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect())
    }

    #[test]
    fn hashes_are_those_of_certificate_transparency() {
        let hex = |hash: Hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // The empty root and the one-leaf root of the reference tests of RFC 6962's logs.
        assert_eq!(hex(empty_root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(leaf_hash(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        // Its eight-leaf tree.
        let inputs: [&[u8]; 8] = [
            b"",
            &[0],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let tree = Tree::new(inputs.iter().map(|input| leaf_hash(input)).collect());
        assert_eq!(hex(tree.root()), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    #[test]
    fn the_frontier_the_tree_and_the_definition_agree() {
        let all = leaves(70).0;
        let mut frontier = Frontier::new();
        for size in 0..=70 {
            let expected = root(&all[..size]);
            assert_eq!(frontier.root(), expected, "{size}");
            assert_eq!(Tree::new(all[..size].to_vec()).root(), expected, "{size}");
            let peaks = peaks_of(size as u64).map(|(level, index)| Leaves(all.clone()).node(level, index).unwrap());
            assert_eq!(frontier.peaks(), peaks.collect::<Vec<_>>(), "{size}");
            assert_eq!(Frontier::from_peaks(size as u64, frontier.peaks().to_vec()).as_ref(), Some(&frontier));
            if size < 70 {
                frontier.push_with(all[size], |level, index, hash| {
                    assert_eq!(hash, Leaves(all.clone()).node(level, index).unwrap());
                });
            }
        }
        assert_eq!(Frontier::from_peaks(3, vec![[0; 32]]), None);
    }

    #[test]
    fn every_leaf_of_every_tree_is_proven_at_its_place_and_at_no_other() {
        for size in 1..40 {
            let nodes = leaves(size as usize);
            let (tree, expected) = (Tree::new(nodes.0.clone()), root(&nodes.0));
            for index in 0..size {
                let path = inclusion_path(&nodes, index, size).unwrap();
                assert_eq!(tree.path(index as usize), path);
                let leaf = nodes.0[index as usize];
                for place in 0..size + 2 {
                    let found = root_of_path(leaf, place, size, &path);
                    assert_eq!(found == Some(expected), place == index, "{index} of {size} at {place}");
                }
                assert_ne!(root_of_path(leaf, index, size, &[path.as_slice(), &[[0; 32]]].concat()), Some(expected));
                if let Some((_, shorter)) = path.split_last() {
                    assert_eq!(root_of_path(leaf, index, size, shorter), None);
                }
            }
        }
        assert_eq!(root_of_path([0; 32], u64::MAX - 1, u64::MAX, &[[0; 32]; 64]), None);
    }

    #[test]
    fn every_tree_extends_its_own_beginnings_and_no_others() {
        for new in 0..40_u64 {
            let nodes = leaves(new as usize);
            let after = (new, root(&nodes.0));
            for old in 0..=new {
                let before = (old, root(&nodes.0[..old as usize]));
                let proof = consistency_proof(&nodes, old, new).unwrap();
                assert!(is_consistent(before, after, &proof), "{old} {new}");
                assert!(!is_consistent((old, [7; 32]), after, &proof), "{old} {new}");
                if old > 0 {
                    assert!(!is_consistent(before, (new, [7; 32]), &proof));
                    assert!(!is_consistent(before, after, &[proof.as_slice(), &[[0; 32]]].concat()));
                }
                for at in 0..proof.len() {
                    let mut bent = proof.clone();
                    bent[at][3] ^= 1;
                    assert!(!is_consistent(before, after, &bent), "{old} {new} {at}");
                    bent.remove(at);
                    assert!(!is_consistent(before, after, &bent), "{old} {new} without {at}");
                }
                assert!(old == new || !is_consistent(after, before, &proof));
            }
        }
        assert!(!is_consistent((u64::MAX - 1, [1; 32]), (u64::MAX, [2; 32]), &[[0; 32]; 64]));
    }
}
