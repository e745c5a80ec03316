//! What a replica signs when it makes records durable, and the receipt that shows one record in it. `access-receipt.cddl`.
//!
//! One signature is good for all records of a commit, whichever logs they are on: it covers the root of a small tree over
//! them, and the heads of all the replica's logs.

use ciborium::Value;

use super::{
    LogId,
    merkle::{self, Hash, root_of_path},
    owner_from_number, owner_from_text, owner_number,
    record::{Entry, MAX_RECORD_BYTES},
};
use crate::{
    cbor::{self, ArrayWriter, Fields, MapBuilder},
    cose::{self, MAX_OBJECT_BYTES, Unverified},
    identity::Realm,
    refusal::{Object, Reason, Refusal},
    suite::{Kid, SigningKey, VerifyingKey, sha256},
    time::UnixTime,
    trust::TrustList,
};

/// The longest receipt, in bytes.
pub const MAX_RECEIPT_BYTES: usize = 2048;
/// Records in one commit at most.
pub const MAX_COMMIT_RECORDS: u64 = 65_536;

const COMMIT: Object = Object::LogCommit;
const RECEIPT: Object = Object::AccessReceipt;

const NUMBER: i64 = 1;
const ROOT: i64 = 2;
const COUNT: i64 = 3;
const HEADS: i64 = 4;
const IAT: i64 = 6;

/// A log's number, its size, its root.
const HEAD_BYTES: usize = 1 + 8 + 32;

const VERSION: u64 = 1;
const MAX_PATH: usize = 16;

/// What one signature says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its number on its replica, from 1, without gaps.
    pub number: u64,
    /// The root of the tree over its records.
    pub root: Hash,
    /// How many records it has.
    pub count: u64,
    /// The hash of the heads of all the replica's logs after it.
    pub heads: Hash,
    /// When it was made.
    pub issued_at: UnixTime,
}

/// The head of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whose records are on it.
    pub owner: Realm,
    /// How many there are.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
}

/// The leaf of a record in its commit's tree.
pub fn commit_leaf(owner: Realm, index: u64, record: &Hash) -> Hash {
    // The first 0 is what makes it a leaf.
    let mut leaf = [0; 42];
    leaf[1] = owner_number(owner);
    leaf[2..10].copy_from_slice(&index.to_be_bytes());
    leaf[10..].copy_from_slice(record);
    sha256(&leaf)
}

/// The heads of a replica's logs, in the order of their owners' numbers, as a commit hashes them.
pub fn encode_heads<'a>(heads: impl IntoIterator<Item = &'a Head>) -> Vec<u8> {
    let mut all = Vec::with_capacity(34 * HEAD_BYTES);
    for head in heads {
        all.push(owner_number(head.owner));
        all.extend(head.size.to_be_bytes());
        all.extend(head.root);
    }
    all
}

/// Reads what [`encode_heads`] wrote; `None` if it is not that.
pub fn decode_heads(bytes: &[u8]) -> Option<Vec<Head>> {
    let (heads, rest) = bytes.as_chunks::<HEAD_BYTES>();
    let head = |head: &[u8; HEAD_BYTES]| {
        let size = u64::from_be_bytes(*head[1..].first_chunk()?);
        Some(Head { owner: owner_from_number(head[0])?, size, root: *head[9..].first_chunk()? })
    };
    rest.is_empty().then(|| heads.iter().map(head).collect())?
}

/// The hash of the heads of a replica's logs.
pub fn hash_of_heads<'a>(heads: impl IntoIterator<Item = &'a Head>) -> Hash {
    sha256(&encode_heads(heads))
}

impl Commit {
    /// Signs it.
    pub fn sign(&self, key: &SigningKey, kid: Kid) -> Vec<u8> {
        let payload = MapBuilder::new()
            .put(NUMBER, self.number)
            .put(ROOT, self.root.to_vec())
            .put(COUNT, self.count)
            .put(HEADS, self.heads.to_vec())
            .put(IAT, self.issued_at.as_secs())
            .encode();
        cose::sign(COMMIT, key, kid, payload, b"")
    }

    /// Reads a commit and verifies it by the trust list; also returns which logs it is of.
    pub fn open(bytes: &[u8], list: &TrustList) -> Result<(LogId, Self), Refusal> {
        let object = Unverified::parse(COMMIT, bytes)?;
        let commit = Self::parse(object.payload()?)?;
        let key = list.log_key(COMMIT, object.kid())?;
        object.verify(key, b"")?;
        Ok((LogId::of(key), commit))
    }

    /// Reads a commit and verifies it by one key.
    pub fn open_by(bytes: &[u8], key: &VerifyingKey) -> Result<Self, Refusal> {
        let object = Unverified::parse(COMMIT, bytes)?;
        let commit = Self::parse(object.payload()?)?;
        if object.kid() != key.kid() {
            return Err(Refusal::of(COMMIT, Reason::KeyUnknown));
        }
        object.verify(key, b"")?;
        Ok(commit)
    }

    fn parse(payload: Value) -> Result<Self, Refusal> {
        let mut claims = Fields::open(COMMIT, payload)?;
        let commit = Self {
            number: claims.uint(NUMBER)?,
            root: claims.bytes(ROOT)?,
            count: claims.uint(COUNT)?,
            heads: claims.bytes(HEADS)?,
            issued_at: claims.time(IAT)?,
        };
        if commit.count > MAX_COMMIT_RECORDS {
            return Err(claims.wrong(COUNT, "more records than a commit has"));
        }
        claims.finish()?;
        Ok(commit)
    }
}

/// That a record is in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessReceipt {
    /// Whose log it is on.
    pub owner: Realm,
    /// Its index there.
    pub index: u64,
    /// The record's bytes.
    pub record: Vec<u8>,
    /// Its position in the commit.
    pub position: u64,
    /// From its leaf to the commit's root.
    pub path: Vec<Hash>,
    /// The signed commit.
    pub commit: Vec<u8>,
}

/// What a receipt proves, once it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnRecord {
    /// Which replica's logs.
    pub log: LogId,
    /// Whose log.
    pub owner: Realm,
    /// The index there.
    pub index: u64,
    /// What the record says.
    pub entry: Entry,
    /// When it was committed.
    pub committed_at: UnixTime,
}

impl AccessReceipt {
    /// The receipt's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let room = 64 + self.record.len() + 34 * self.path.len() + self.commit.len();
        ArrayWriter::new(7, room)
            .uint(VERSION)
            .text(&self.owner.to_string())
            .uint(self.index)
            .bytes(&self.record)
            .uint(self.position)
            .byte_strings(&self.path)
            .bytes(&self.commit)
            .finish()
    }

    /// Reads a receipt. Nothing of it is verified yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = |what: &str| Refusal::malformed(RECEIPT, what);
        let value = cbor::decode(RECEIPT, bytes, MAX_RECEIPT_BYTES)?;
        let parts = value.into_array().ok().and_then(|parts| <[Value; 7]>::try_from(parts).ok());
        let parts = parts.ok_or_else(|| malformed("not an array of seven"))?;
        let [version, owner, index, record, position, path, commit] = parts;
        if cbor::uint(&version) != Some(VERSION) {
            return Err(malformed("not version 1"));
        }
        let owner = owner.as_text().and_then(owner_from_text).ok_or_else(|| malformed("not whose log"))?;
        let blob = |value: Value, max| value.into_bytes().ok().filter(|bytes| (1..=max).contains(&bytes.len()));
        let path = path.into_array().ok().filter(|path| path.len() <= MAX_PATH);
        let path = path.and_then(|path| path.iter().map(cbor::bytes).collect::<Option<Vec<_>>>());
        Ok(Self {
            owner,
            index: cbor::uint(&index).ok_or_else(|| malformed("not an index"))?,
            record: blob(record, MAX_RECORD_BYTES).ok_or_else(|| malformed("not a record"))?,
            position: cbor::uint(&position).ok_or_else(|| malformed("not a position"))?,
            path: path.ok_or_else(|| malformed("not a path"))?,
            commit: blob(commit, MAX_OBJECT_BYTES).ok_or_else(|| malformed("not a commit"))?,
        })
    }

    /// Verifies it by the trust list alone.
    pub fn verify(&self, list: &TrustList) -> Result<OnRecord, Refusal> {
        let (log, commit) = Commit::open(&self.commit, list)?;
        let leaf = commit_leaf(self.owner, self.index, &merkle::leaf_hash(&self.record));
        if root_of_path(leaf, self.position, commit.count, &self.path) != Some(commit.root) {
            return Err(Refusal::of(RECEIPT, Reason::SignatureInvalid));
        }
        let entry = Entry::decode(&self.record)?;
        Ok(OnRecord { log, owner: self.owner, index: self.index, entry, committed_at: commit.issued_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contract::recognition::{Outcome, Source},
        envelope::Roots,
        identity::PeerId,
        log::record::Ending,
        suite::Suite,
        terms::{Kind, Purpose, Scope},
        token::Cti,
        trust::{self, GatewayTrust},
    };
    use std::{collections::BTreeMap, sync::Arc};

    fn record(n: u8) -> Vec<u8> {
        let member = "44".parse().unwrap();
        let entry = Entry {
            time: UnixTime::from_secs(1_800_000_000),
            venue: Arc::new("44/station/a".parse().unwrap()),
            caller: (&PeerId::backend(member, "app").unwrap()).into(),
            staff_id: None,
            purpose: Purpose::Entry,
            granted: Some(Scope::LEVEL),
            cti: Cti([n; 16]),
            kind: Kind::Own,
            policy_version: 1,
            exchange_id: [n; 16],
            trace_id: [n; 16],
            ending: Ending::Answered { outcome: Outcome::Status, source: Source::Home, statement: Some([n; 16]) },
        };
        entry.encode()
    }

    fn list(key: &SigningKey) -> TrustList {
        let root = SigningKey::generate(Suite::Ed25519).verifying_key().clone();
        TrustList {
            domain: "tongxing.test".parse().unwrap(),
            roots: Roots::new(1, vec![root]).unwrap(),
            gateway: GatewayTrust { bundle: vec![vec![1]], log_keys: trust::keys([key.verifying_key().clone()]) },
            members: BTreeMap::new(),
        }
    }

    /// The receipts of a commit of `count` records of two members.
    fn receipts(key: &SigningKey, count: u8) -> Vec<AccessReceipt> {
        let owner = |n: u8| Realm::Member(if n.is_multiple_of(2) { "44" } else { "51" }.parse().unwrap());
        let leaf = |n: u8| commit_leaf(owner(n), u64::from(n / 2), &merkle::leaf_hash(&record(n)));
        let tree = merkle::Tree::new((0..count).map(leaf).collect());
        let issued_at = UnixTime::from_secs(1_800_000_001);
        let commit = Commit { number: 7, root: tree.root(), count: tree.size(), heads: hash_of_heads([]), issued_at };
        let commit = commit.sign(key, key.verifying_key().kid());
        let receipt = |n: u8| AccessReceipt {
            owner: owner(n),
            index: u64::from(n / 2),
            record: record(n),
            position: n.into(),
            path: tree.path(n.into()),
            commit: commit.clone(),
        };
        (0..count).map(receipt).collect()
    }

    #[test]
    fn every_record_of_a_commit_has_a_receipt_that_the_trust_list_alone_verifies() {
        let key = SigningKey::generate(Suite::Ed25519);
        for count in [1, 2, 3, 200] {
            for receipt in receipts(&key, count) {
                let bytes = receipt.encode();
                assert!(bytes.len() <= MAX_RECEIPT_BYTES, "{}", bytes.len());
                assert_eq!(AccessReceipt::parse(&bytes), Ok(receipt.clone()));
                let on_record = receipt.verify(&list(&key)).unwrap();
                assert_eq!((on_record.log, on_record.index), (LogId::of(key.verifying_key()), receipt.index));
                assert_eq!(on_record.entry.encode(), receipt.record);
            }
        }
        let other = list(&SigningKey::generate(Suite::Ed25519));
        assert_eq!(receipts(&key, 1)[0].verify(&other).unwrap_err().reason(), Reason::KeyUnknown);
    }

    #[test]
    fn no_flipped_bit_of_a_receipt_survives() {
        let key = SigningKey::generate(Suite::Ed25519);
        let bytes = receipts(&key, 5).swap_remove(3).encode();
        let list = list(&key);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let verified = AccessReceipt::parse(&flipped).and_then(|receipt| receipt.verify(&list));
            assert!(verified.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_receipt_is_for_its_own_log_place_and_record() {
        let key = SigningKey::generate(Suite::Ed25519);
        let good = receipts(&key, 5).swap_remove(3);
        let refused = |bend: &dyn Fn(&mut AccessReceipt)| {
            let mut bent = good.clone();
            bend(&mut bent);
            bent.verify(&list(&key)).unwrap_err().reason()
        };
        assert_eq!(refused(&|receipt| receipt.owner = Realm::Gateway), Reason::SignatureInvalid);
        assert_eq!(refused(&|receipt| receipt.index += 1), Reason::SignatureInvalid);
        assert_eq!(refused(&|receipt| receipt.position += 1), Reason::SignatureInvalid);
        assert_eq!(refused(&|receipt| receipt.position = 5), Reason::SignatureInvalid);
        assert_eq!(refused(&|receipt| receipt.record = record(4)), Reason::SignatureInvalid);
        assert_eq!(refused(&|receipt| receipt.path.push([0; 32])), Reason::SignatureInvalid);
    }

    #[test]
    fn what_is_no_receipt_is_refused() {
        let key = SigningKey::generate(Suite::Ed25519);
        let good = receipts(&key, 2).swap_remove(1);
        let reason = |bytes: &[u8]| AccessReceipt::parse(bytes).unwrap_err().reason();
        assert_eq!(reason(&[0; MAX_RECEIPT_BYTES + 1]), Reason::ObjectTooLarge);
        assert_eq!(reason(&[0x80]), Reason::ObjectMalformed);
        let parts = cbor::decode(RECEIPT, &good.encode(), MAX_RECEIPT_BYTES).unwrap().into_array().unwrap();
        let bad: [(usize, Value); 8] = [
            (0, 2.into()),
            (1, "99".into()),
            (2, (-1).into()),
            (3, Value::Bytes(vec![])),
            (3, Value::Bytes(vec![0; MAX_RECORD_BYTES + 1])),
            (4, "x".into()),
            (5, vec![Value::Bytes(vec![0; 32]); MAX_PATH + 1].into()),
            (6, Value::Null),
        ];
        for (at, value) in bad {
            let mut bent = parts.clone();
            bent[at] = value;
            assert_eq!(reason(&cbor::encode(&bent.into()).unwrap()), Reason::ObjectMalformed, "{at}");
        }
    }
}
