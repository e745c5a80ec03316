//! The operations on access logs, done with the code that gateway and node use.

use proto::{
    log::{
        checkpoint::Checkpoint,
        commit::AccessReceipt,
        delivery::DeliveryReceipt,
        merkle::{self, Hash, Tree, is_consistent, leaf_hash, root_of_path},
        record::{Entry, RefusalEntry},
    },
    member::Member,
    refusal::Refusal,
    time::UnixTime,
    trust::TrustList,
};
use serde_json::{Value as Json, json};

use crate::{
    json::{Hex, NOT_PROVEN, Operation, VALID, Vector, hex},
    verify::Verdict,
};

/// A record: what went out of what was granted.
pub(crate) fn read_record(bytes: &[u8]) -> Result<Option<Json>, Refusal> {
    let entry = Entry::decode(bytes)?;
    Ok(Some(json!({ "disclosed": entry.disclosed().map(|scope| scope.bits()) })))
}

/// A refusal on a replica's own log.
pub(crate) fn read_refusal_record(bytes: &[u8]) -> Result<Option<Json>, Refusal> {
    RefusalEntry::decode(bytes).map(|_| None)
}

/// A receipt: which replica's logs it is of, which exchange, when that was made durable.
pub(crate) fn verify_receipt(bytes: &[u8], list: &TrustList) -> Result<Option<Json>, Refusal> {
    let shown = AccessReceipt::parse(bytes)?.verify(list)?;
    Ok(Some(json!({
        "log_id": hex(&shown.log.0),
        "exchange": hex(&shown.entry.exchange_id),
        "committed_at": shown.committed_at.as_secs(),
    })))
}

/// A log's head.
pub(crate) fn open_checkpoint(note: &str, list: &TrustList) -> Result<Option<Json>, Refusal> {
    let head = Checkpoint::open(note, list)?;
    Ok(Some(json!({
        "log_id": hex(&head.log.0),
        "log": head.owner.to_string(),
        "size": head.size.to_string(),
        "root": hex(&head.root),
    })))
}

/// A member's receipt.
pub(crate) fn open_delivery(
    bytes: &[u8],
    member: Member,
    list: &TrustList,
    now: UnixTime,
) -> Result<Option<Json>, Refusal> {
    DeliveryReceipt::open(bytes, member, list, now).map(|_| None)
}

/// Roots, paths and proofs.
pub(crate) fn prove(vector: &Vector) -> Verdict {
    let context = &vector.context;
    let (bytes, size) = (vector.object_bytes(), || number(context.size.as_ref()));
    let proven = match vector.operation {
        Operation::MerkleRoot => {
            let leaves = vector.claims.as_ref().expect("leaves")["leaves"].as_array().expect("an array").iter();
            let leaves = leaves.map(|leaf| Hex::try_from(leaf.as_str().expect("digits").to_owned()).expect("digits"));
            Tree::new(leaves.map(|leaf| leaf_hash(&leaf.0)).collect()).root() == bytes[..]
        }
        Operation::VerifyInclusion => {
            let leaf = leaf_hash(&context.leaf.as_ref().expect("a leaf").0);
            root_of_path(leaf, number(context.index.as_ref()), size(), &hashes(&bytes)) == Some(hash(&context.root))
        }
        Operation::VerifyConsistency => {
            let old = (number(context.old_size.as_ref()), hash(&context.old_root));
            is_consistent(old, (size(), hash(&context.root)), &hashes(&bytes))
        }
        _ => unreachable!("it is about a tree"),
    };
    ((if proven { VALID } else { NOT_PROVEN }).to_owned(), None, None)
}

fn number(text: Option<&String>) -> u64 {
    text.expect("a number").parse().expect("it is one")
}

fn hash(hex: &Option<Hex>) -> merkle::Hash {
    hex.as_ref().expect("a hash").0.as_slice().try_into().expect("32 bytes")
}

/// One after the other, as a vector's bytes are.
fn hashes(bytes: &[u8]) -> Vec<Hash> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    assert!(rest.is_empty(), "hashes have 32 bytes");
    hashes.to_vec()
}
