//! `merkle.json`.

use proto::log::merkle::{Hash, Nodes, Tree, consistency_proof, inclusion_path, leaf_hash, node_hash};
use serde_json::json;

use crate::{
    bend,
    fixtures::noise,
    json::{Context, File, Hex, NOT_PROVEN, Operation, hex},
    set::Set,
    sign::Signer,
};

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let mut set = Set::new(signer, "merkle", Operation::MerkleRoot, Context::default());
    roots(&mut set);
    set.operation = Operation::VerifyInclusion;
    inclusion(&mut set);
    not_included(&mut set);
    set.operation = Operation::VerifyConsistency;
    consistency(&mut set);
    inconsistent(&mut set);
    set.file(
        "Merkle trees as RFC 9162 §2.1 has them. merkle_root: is this the root of these leaves? verify_inclusion: \
         does the path lead from the leaf at its index to the root? verify_consistency: does the tree extend the \
         old one? Paths and proofs are hashes of 32 bytes, one after the other.",
        &[],
    )
}

/// The leaves of all trees here, before they are hashed: the first eight are those that Certificate Transparency's
/// reference tests have.
fn leaves() -> Vec<Vec<u8>> {
    let reference: [&[u8]; 8] = [
        b"",
        &[0],
        &[0x10],
        &[0x20, 0x21],
        &[0x30, 0x31],
        &[0x40, 0x41, 0x42, 0x43],
        &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
    ];
    let more = (8..17_u8).map(|n| vec![n; usize::from(n - 7)]);
    reference.iter().map(|leaf| leaf.to_vec()).chain(more).collect()
}

/// The tree over the first `size` leaves.
struct First(usize);

impl First {
    fn hashes(&self) -> Vec<Hash> {
        leaves()[..self.0].iter().map(|leaf| leaf_hash(leaf)).collect()
    }

    fn root(&self) -> Hash {
        Tree::new(self.hashes()).root()
    }

    fn path(&self, index: u64) -> Vec<Hash> {
        let Ok(path) = inclusion_path(self, index, self.0 as u64);
        path
    }

    fn proof(&self, old: u64) -> Vec<Hash> {
        let Ok(proof) = consistency_proof(self, old, self.0 as u64);
        proof
    }
}

impl Nodes for First {
    type Error = std::convert::Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error> {
        let (low, count) = ((index << level) as usize, 1 << level);
        Ok(Tree::new(self.hashes()[low..low + count].to_vec()).root())
    }
}

fn names(leaves: &[Vec<u8>]) -> Vec<String> {
    leaves.iter().map(|leaf| hex(leaf)).collect()
}

fn roots(set: &mut Set<'_>) {
    let leaves = leaves();
    for size in 0..=leaves.len() {
        let what = match size {
            0 => "no leaf: the SHA-256 of nothing".to_owned(),
            1 => "one leaf, which is its own root".to_owned(),
            size => format!("{size} leaves"),
        };
        let claims = json!({ "leaves": names(&leaves[..size]) });
        set.valid(&format!("root-of-{size}"), &what).claims(claims).bytes(&First(size).root());
    }
}

fn of_leaf(size: usize, index: u64) -> Context {
    Context {
        leaf: Some(Hex(leaves()[index as usize].clone())),
        index: Some(index.to_string()),
        size: Some(size.to_string()),
        root: Some(Hex::from(&First(size).root()[..])),
        ..Context::default()
    }
}

fn inclusion(set: &mut Set<'_>) {
    for (size, indexes) in [
        (1, &[0][..]),
        (2, &[0, 1]),
        (3, &[0, 1, 2]),
        (5, &[0, 3, 4]),
        (7, &[2, 4, 6]),
        (8, &[0, 7]),
        (13, &[5, 8, 12]),
        (16, &[15]),
        (17, &[0, 15, 16]),
    ] {
        for index in indexes.iter().copied() {
            let claims = json!({ "leaves": names(&leaves()[..size]), "index": index.to_string() });
            let path = First(size).path(index).concat();
            let vector = set.valid(&format!("leaf-{index}-of-{size}"), "the path as the RFC makes it");
            vector.in_context(of_leaf(size, index)).claims(claims).bytes(&path);
        }
    }
}

/// Adds what proves nothing.
fn add(set: &mut Set<'_>, id: &str, what: &str, context: Context, hashes: &[Hash]) {
    set.valid(id, what).in_context(context).bytes(&hashes.concat()).verdict = NOT_PROVEN.to_owned();
}

fn not_included(set: &mut Set<'_>) {
    let (good, path) = (of_leaf(13, 5), First(13).path(5));
    let mut bent = |id: &str, what: &str, context: Context, path: &[Hash]| add(set, id, what, context, path);
    let at = |index: &str| Context { index: Some(index.to_owned()), ..good.clone() };
    let of = |size: &str| Context { size: Some(size.to_owned()), ..good.clone() };
    bent("leaf-at-another-index", "it is the sixth leaf, not the fifth", at("4"), &path);
    bent("leaf-at-the-size", "a tree of 13 leaves has none at 13", at("13"), &path);
    bent("leaf-in-nothing", "a tree without leaves has none", Context { index: Some("0".into()), ..of("0") }, &[]);
    bent("leaf-of-a-longer-tree", "in a tree of 17 leaves the path is longer", of("17"), &path);
    bent("leaf-of-a-shorter-tree", "in a tree of 6 leaves the path is shorter", of("6"), &path);
    let leaf = Context { leaf: Some(Hex::from(&b"another"[..])), ..good.clone() };
    bent("leaf-changed", "another leaf", leaf, &path);
    let root = Context { root: Some(Hex::from(&First(12).root()[..])), ..good.clone() };
    bent("leaf-under-another-root", "the root of the first 12", root, &path);
    bent("path-short", "its last hash is missing", good.clone(), &path[..path.len() - 1]);
    bent("path-long", "a hash too many", good.clone(), &[&path[..], &[noise("a hash")]].concat());
    bent("path-reversed", "from the root to the leaf", good.clone(), &path.iter().rev().copied().collect::<Vec<_>>());
    let mut flipped = path.clone();
    flipped[0] = bend::flipped(&path[0], 0).try_into().unwrap();
    bent("path-flipped", "one bit is another", good.clone(), &flipped);
    // A node over two leaves, taken for a leaf: what the prefixes 0 and 1 are for.
    let (pair, eight) = (First(8).hashes()[..2].concat(), First(8));
    let context = Context { leaf: Some(Hex(pair)), index: Some("0".into()), size: Some("4".into()), ..of_leaf(8, 0) };
    bent("node-as-a-leaf", "an inner node is no leaf: theirs are hashed after 0x00", context, &eight.path(0)[1..]);
    let last = Context { index: Some((u64::MAX - 1).to_string()), ..of(&u64::MAX.to_string()) };
    bent("path-of-64", "2^64 − 1 leaves: nothing overflows", last, &[noise("a hash"); 64]);
    // An odd last leaf is no pair with itself.
    let three = First(3).hashes();
    let twice = node_hash(&node_hash(&three[0], &three[1]), &node_hash(&three[2], &three[2]));
    let context = Context { root: Some(Hex::from(&twice[..])), ..of_leaf(3, 2) };
    let doubled = "a tree that pairs the odd last leaf with itself, as some do";
    bent("leaf-doubled", doubled, context, &[three[2], node_hash(&three[0], &three[1])]);
}

fn of_trees(old: usize, size: usize) -> Context {
    Context {
        old_size: Some(old.to_string()),
        old_root: Some(Hex::from(&First(old).root()[..])),
        size: Some(size.to_string()),
        root: Some(Hex::from(&First(size).root()[..])),
        ..Context::default()
    }
}

fn consistency(set: &mut Set<'_>) {
    for (old, size) in [
        (0_usize, 0_usize),
        (0, 5),
        (1, 1),
        (1, 2),
        (1, 17),
        (2, 3),
        (3, 4),
        (3, 7),
        (4, 7),
        (6, 7),
        (6, 8),
        (8, 8),
        (8, 17),
        (9, 13),
        (12, 13),
        (16, 17),
        (17, 17),
    ] {
        let what = match (old, size) {
            (0, _) => "whatever comes extends nothing: no hashes",
            (old, size) if old == size => "the same tree: no hashes",
            (old, _) if old.is_power_of_two() => "the old root is a node of the tree, and not among the hashes",
            _ => "the proof as the RFC makes it",
        };
        let claims = json!({ "leaves": names(&leaves()[..size]), "old_size": old.to_string() });
        let proof = First(size).proof(old as u64).concat();
        let vector = set.valid(&format!("from-{old}-to-{size}"), what);
        vector.in_context(of_trees(old, size)).claims(claims).bytes(&proof);
    }
}

fn inconsistent(set: &mut Set<'_>) {
    let (good, proof) = (of_trees(6, 13), First(13).proof(6));
    let mut bent = |id: &str, what: &str, context: Context, proof: &[Hash]| add(set, id, what, context, proof);
    let other = Some(Hex::from(&noise::<32>("another root")[..]));
    bent("old-root-changed", "another old root", Context { old_root: other.clone(), ..good.clone() }, &proof);
    bent("new-root-changed", "another new root", Context { root: other.clone(), ..good.clone() }, &proof);
    let five = Context { old_size: Some("5".into()), ..good.clone() };
    bent("old-size-changed", "the old tree has 6 leaves, not 5", five, &proof);
    let larger = Context { size: Some("17".into()), ..good.clone() };
    bent("new-size-changed", "the new tree has 13 leaves, not 17", larger, &proof);
    let back = Context {
        old_size: good.size.clone(),
        old_root: good.root.clone(),
        size: good.old_size.clone(),
        root: good.old_root.clone(),
        ..Context::default()
    };
    bent("shrunk", "a log does not shrink", back, &proof);
    bent("proof-empty", "no hashes", good.clone(), &[]);
    bent("proof-short", "its last hash is missing", good.clone(), &proof[..proof.len() - 1]);
    bent("proof-long", "a hash too many", good.clone(), &[&proof[..], &[noise("a hash")]].concat());
    let mut flipped = proof.clone();
    flipped[1] = bend::flipped(&proof[1], -1).try_into().unwrap();
    bent("proof-flipped", "one bit is another", good, &flipped);
    let same = of_trees(8, 8);
    bent("same-size-with-a-hash", "nothing is to be proven by it", same.clone(), &[noise("a hash")]);
    bent("same-size-other-root", "two trees of one size", Context { root: other.clone(), ..same }, &[]);
    let first = of_trees(0, 5);
    bent("from-nothing-with-a-hash", "nothing is to be proven by it", first.clone(), &[noise("a hash")]);
    bent("from-nothing-with-a-root", "nothing has one root alone", Context { old_root: other, ..first }, &[]);
    let (old, size) = (Some((u64::MAX - 1).to_string()), Some(u64::MAX.to_string()));
    bent(
        "proof-of-64",
        "2^64 − 1 leaves: nothing overflows",
        Context { old_size: old, size, ..of_trees(2, 3) },
        &[noise("a hash"); 64],
    );
}
