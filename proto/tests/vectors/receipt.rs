//! `access-receipt.json`.

use ciborium::Value;
use proto::{
    identity::Realm,
    log::{
        LogId,
        commit::{AccessReceipt, Commit, Head, MAX_RECEIPT_BYTES, commit_leaf, hash_of_heads},
        merkle::{Hash, Tree, leaf_hash},
        owner_number,
        record::{Ending, Entry},
    },
    refusal::{Object, Reason as R},
    suite::{Kid, Suite},
};
use serde_json::json;

use crate::{
    bend, claims,
    fixtures::{NOW, noise, public},
    json::{Context, File, Operation, hex},
    layout::{self, Sample},
    record,
    set::Set,
    sign::{ALG, Sign1, Signer, array, bytes, header},
};

/// Which of the small commit's records the receipts here are of, unless said.
const MINE: usize = 3;

/// A record on its log.
#[derive(Clone)]
struct Leaf {
    owner: Realm,
    index: u64,
    record: Vec<u8>,
}

/// A commit with its tree.
struct Made {
    leaves: Vec<Leaf>,
    tree: Tree,
    commit: Commit,
    signed: Sign1,
}

impl Made {
    /// By the gateway's key for logs.
    fn new(signer: &Signer, leaves: Vec<Leaf>, tree: Tree) -> Self {
        let heads = ["11", "44"].map(|member| Head { owner: log_of(member), size: 2000, root: noise(member) });
        let commit =
            Commit { number: 12, root: tree.root(), count: tree.size(), heads: hash_of_heads(&heads), issued_at: NOW };
        let signed = signed(signer, &commit);
        Self { leaves, tree, commit, signed }
    }

    fn receipt(&self, position: usize) -> AccessReceipt {
        let Leaf { owner, index, record } = self.leaves[position].clone();
        let (path, commit) = (self.tree.path(position), self.signed.bytes());
        AccessReceipt { owner, index, record, position: position as u64, path, commit }
    }
}

fn signed(signer: &Signer, commit: &Commit) -> Sign1 {
    let key = signer.key("gateway-log");
    signer.settle("gateway-log", &commit.sign(key, key.verifying_key().kid()), b"")
}

fn log_of(member: &str) -> Realm {
    Realm::Member(member.parse().unwrap())
}

fn hash_of(leaf: &Leaf) -> Hash {
    commit_leaf(leaf.owner, leaf.index, &leaf_hash(&leaf.record))
}

/// Five records of three logs, of which the last but one is the vectors' own exchange.
fn five(signer: &Signer) -> Vec<Leaf> {
    let refused = |reason| record::refused(signer, Ending::refused(reason)).encode();
    let refusal = record::refusal(record::entry(signer).caller).encode();
    let leaf = |owner, index, record| Leaf { owner, index, record };
    vec![
        leaf(log_of("44"), 1040, refused(R::AudienceMismatch)),
        leaf(log_of("11"), 77, refused(R::Expired)),
        leaf(Realm::Gateway, 9, refusal),
        leaf(log_of("44"), 1041, record::entry(signer).encode()),
        leaf(log_of("11"), 78, refused(R::ConsentRevoked)),
    ]
}

fn small(signer: &Signer) -> Made {
    of_leaves(signer, five(signer))
}

fn of_leaves(signer: &Signer, leaves: Vec<Leaf>) -> Made {
    let tree = Tree::new(leaves.iter().map(hash_of).collect());
    Made::new(signer, leaves, tree)
}

/// The file.
pub(crate) fn file(signer: &Signer) -> File {
    let context = Context { trust_list: Some("trust-list/plain".into()), ..Context::default() };
    let mut set = Set::new(signer, "access-receipt", Operation::VerifyAccessReceipt, context);
    let made = small(signer);
    valid(&mut set, &made);
    encoding(&mut set, &made.receipt(MINE));
    parts(&mut set, &made.receipt(MINE));
    places(&mut set, &made);
    commits(&mut set, &made);
    keys(&mut set, &made);
    records(&mut set);
    set.file(
        "That an exchange is on record. verify_access_receipt: did the gateway commit to this record, at this index \
         of this log? Whether it is of the exchange that was asked for, the caller compares.",
        &["stranger", "44-statement"],
    )
}

fn add(set: &mut Set<'_>, id: &str, what: &str, made: &Made, receipt: &AccessReceipt) {
    let exchange = Entry::decode(&receipt.record).unwrap().exchange_id;
    let log = LogId::of(set.signer.key("gateway-log").verifying_key());
    let vector = set.valid(id, what).signed("gateway-log", &made.signed);
    vector.claims(claims::of_receipt(receipt, &made.commit)).bytes(&receipt.clone().encode());
    vector.result = Some(json!({
        "log_id": hex(&log.0),
        "exchange": hex(&exchange),
        "committed_at": made.commit.issued_at.as_secs(),
    }));
}

fn valid(set: &mut Set<'_>, made: &Made) {
    let signer = set.signer;
    add(set, "own", "the fourth of five records of three logs", made, &made.receipt(MINE));
    add(set, "refused", "the first: a refusal is on record too", made, &made.receipt(0));
    add(set, "of-another-member", "the second: other leaves are other members'", made, &made.receipt(1));
    add(set, "last-of-five", "the last, which has no sister: its path has one hash", made, &made.receipt(4));
    let alone = of_leaves(signer, vec![Leaf { index: 0, ..five(signer)[MINE].clone() }]);
    add(set, "alone", "one record: its leaf is the root, and its log's first", &alone, &alone.receipt(0));
    let longest = Leaf { owner: log_of("44"), index: u64::MAX, record: record::longest(signer).encode() };
    let others = (0..65_535_u32).map(|n| leaf_hash(&n.to_be_bytes()));
    let tree = Tree::new(others.chain([hash_of(&longest)]).collect());
    let path = tree.path(65_535);
    let made = Made::new(signer, vec![longest.clone()], tree);
    let Leaf { owner, index, record } = longest;
    let receipt = AccessReceipt { owner, index, record, position: 65_535, path, commit: made.signed.bytes() };
    add(set, "longest", "the last of 65,536 records, which is as long as can be, at 2^64 − 1", &made, &receipt);
}

/// The array is no encoding, or not the one there is.
fn encoding(set: &mut Set<'_>, receipt: &AccessReceipt) {
    let good = receipt.clone().encode();
    let too_many = set.refused("of-2049-bytes", R::ObjectTooLarge, "a byte more than a receipt may have").bytes(&[0]);
    too_many.repeat = Some(MAX_RECEIPT_BYTES + 1);
    let mut add = |id: &str, reason: R, what: &str, bytes: Vec<u8>| set.bad(id, reason, what, &bytes);
    add("empty", R::NotCbor, "no bytes at all: there is no receipt", vec![]);
    add("truncated", R::NotCbor, "the last byte is missing", good[..good.len() - 1].to_vec());
    add("trailing-byte", R::TrailingBytes, "a byte follows the receipt", [&good[..], &[0]].concat());
    add("long-array-head", R::NotDeterministic, "the array's length in a byte of its own", bend::long_head(&good));
    add("indefinite-array", R::NotDeterministic, "the array has an indefinite length", bend::indefinite(&good));
    add("tagged", R::NotDeterministic, "self-described CBOR (tag 55799)", [&[0xd9, 0xd9, 0xf7], &good[..]].concat());
    add("a-map", R::ObjectMalformed, "a map instead of the array", vec![0xa0]);
}

fn values(receipt: &AccessReceipt) -> Vec<Value> {
    bend::decoded(&receipt.clone().encode()).into_array().unwrap()
}

/// A part is not of its form.
fn parts(set: &mut Set<'_>, receipt: &AccessReceipt) {
    let good = values(receipt);
    let mut add = |id: &str, what: &str, at: usize, to: Value| {
        let mut parts = good.clone();
        parts[at] = to;
        set.bad(id, R::ObjectMalformed, what, &array(parts));
    };
    let path = |hash: Value, count| Value::Array(vec![hash; count]);
    add("version-2", "another version", 0, 2.into());
    add("version-text", "the version is a text", 0, "1".into());
    add("log-of-nobody", "no member has the code 99", 1, "99".into());
    add("log-with-a-zero", "44 in three digits, which counts as the same number", 1, "044".into());
    add("log-number", "the member's code as a number", 1, 44.into());
    add("log-upper-case", "the gateway is written in lower case", 1, "Gateway".into());
    add("index-text", "the index is a text", 2, "1041".into());
    add("index-negative", "there is no index below 0", 2, (-1).into());
    add("record-empty", "the record has no bytes", 3, bytes(&[]));
    add("record-of-513-bytes", "the record is too large", 3, bytes(&[0; 513]));
    add("record-not-wrapped", "the record is a map, not a byte string", 3, bend::decoded(&receipt.record));
    add("position-negative", "there is no position below 0", 4, (-1).into());
    add("path-null", "a record alone has an empty path, not none", 5, Value::Null);
    add("path-of-17", "no commit has so many records", 5, path(bytes(&[0; 32]), 17));
    add("path-of-31-bytes", "a hash has 31 bytes", 5, path(bytes(&[0; 31]), 3));
    add("path-texts", "a hash is a text", 5, path("hash".into(), 3));
    add("commit-null", "there is no commit", 6, Value::Null);
    add("commit-no-bytes", "the commit has no bytes", 6, bytes(&[]));
    add("commit-of-1025-bytes", "the commit is too large", 6, bytes(&[0; 1025]));
    add("commit-not-wrapped", "the commit is an array, not a byte string", 6, bend::decoded(&receipt.commit));
    set.bad("array-of-six", R::ObjectMalformed, "there is no commit", &array(good[..6].to_vec()));
    let eight = [&good[..], &[Value::Null]].concat();
    set.bad("array-of-eight", R::ObjectMalformed, "something follows the commit", &array(eight));
}

/// Well formed and well signed, and the record is not where the receipt has it.
fn places(set: &mut Set<'_>, made: &Made) {
    let signer = set.signer;
    let good = made.receipt(MINE);
    let mut bent = |id: &str, what: &str, change: &dyn Fn(&mut AccessReceipt)| {
        let mut receipt = good.clone();
        change(&mut receipt);
        set.bad(id, R::SignatureInvalid, what, &receipt.encode());
    };
    bent("on-another-log", "it is on 44's log, not on 11's", &|receipt| receipt.owner = log_of("11"));
    bent("on-the-replicas-log", "it is on 44's log, not on the replica's own", &|receipt| {
        receipt.owner = Realm::Gateway;
    });
    bent("at-another-index", "it is at 1041, not at 1042", &|receipt| receipt.index += 1);
    bent("at-another-position", "it is the fourth, not the third", &|receipt| receipt.position -= 1);
    bent("at-the-count", "a commit of 5 has nothing at 5", &|receipt| receipt.position = 5);
    bent("at-the-last-position", "2^64 − 1: nothing overflows", &|receipt| receipt.position = u64::MAX);
    bent("record-of-another", "another record of the commit", &|receipt| receipt.record = made.receipt(0).record);
    bent("record-flipped", "one bit of the record is another", &|receipt| {
        receipt.record = bend::flipped(&receipt.record, -1);
    });
    bent("path-short", "its last hash is missing", &|receipt| receipt.path.truncate(2));
    bent("path-long", "a hash too many", &|receipt| receipt.path.push(noise("a hash")));
    bent("path-flipped", "one bit of it is another", &|receipt| receipt.path[1][31] ^= 1);
    bent("path-reversed", "from the root to the leaf", &|receipt| receipt.path.reverse());
    bent("path-of-another", "the path of the first record", &|receipt| receipt.path = made.receipt(0).path);
    bent("path-empty", "no hashes", &|receipt| receipt.path.clear());
    // Trees that are not the one of access-receipt.cddl, well signed.
    let mut other = |id: &str, what: &str, leaf: &dyn Fn(&Leaf) -> Hash| {
        let tree = Tree::new(made.leaves.iter().map(leaf).collect());
        let receipt = Made::new(signer, made.leaves.clone(), tree).receipt(MINE);
        set.bad(id, R::SignatureInvalid, what, &receipt.encode());
    };
    other("tree-of-records", "the leaves are the records' hashes, without log and index", &|leaf| {
        leaf_hash(&leaf.record)
    });
    other("tree-of-records-not-hashed", "a leaf has the record itself, not its leaf hash", &|leaf| {
        let number = owner_number(leaf.owner);
        leaf_hash(&[&[number], &leaf.index.to_be_bytes()[..], &leaf.record].concat())
    });
    let counts = |count| {
        let commit = signed(signer, &Commit { count, ..made.commit }).bytes();
        AccessReceipt { commit, ..good.clone() }.encode()
    };
    set.bad("count-of-3", R::SignatureInvalid, "a commit of 3 has nothing at 3", &counts(3));
    set.bad("count-of-0", R::SignatureInvalid, "a commit of nothing has no records", &counts(0));
}

/// Adds a receipt with another commit, which is what is refused.
fn bad_commit(set: &mut Set<'_>, made: &Made, id: &str, reason: R, what: &str, commit: Vec<u8>) {
    let receipt = AccessReceipt { commit, ..made.receipt(MINE) }.encode();
    set.bad(id, reason, what, &receipt);
    about(set, Object::LogCommit);
}

fn about(set: &mut Set<'_>, object: Object) {
    set.last().object = Some(object.word().to_owned());
}

/// What can be wrong with any COSE_Sign1, and with the commit's claims.
fn commits(set: &mut Set<'_>, made: &Made) {
    let signer = set.signer;
    let sample = Sample { signed_by: "gateway-log", good: made.signed.clone() };
    let mut alone = Set::new(signer, "access-receipt", set.operation, set.context.clone());
    layout::core(&mut alone, &sample);
    let core = alone.into_vectors().into_iter().filter(|vector| !vector.object_bytes().is_empty());
    for vector in core {
        let id = format!("commit-{}", vector.id.split_once('/').unwrap().1);
        let receipt = AccessReceipt { commit: vector.object_bytes(), ..made.receipt(MINE) }.encode();
        let wrapped = set.valid(&id, &format!("of the commit: {}", vector.what)).bytes(&receipt);
        wrapped.verdict = vector.verdict;
        about(set, Object::LogCommit);
    }
    let mut add = |id: &str, what: &str, key: i64, to: Option<Value>| {
        let commit = sample.payload(signer, bend::with(&made.signed.payload, &[key], to));
        bad_commit(set, made, id, R::ObjectMalformed, what, commit);
    };
    add("commit-without-number", "the commit has no number", 1, None);
    add("commit-number-negative", "commits are numbered from 1 on", 1, Some((-1).into()));
    add("commit-root-of-31-bytes", "its root has 31 bytes", 2, Some(bytes(&[0; 31])));
    add("commit-of-65537", "it has more records than a commit may", 3, Some(65_537.into()));
    add("commit-count-text", "its count is a text", 3, Some("5".into()));
    add("commit-without-heads", "it does not say where the logs stand", 4, None);
    add("commit-iat-beyond-9999", "the first second of the year 10000", 6, Some(253_402_300_800_u64.into()));
    add("commit-exp", "it has an exp: a commit does not expire", 5, Some(1_800_000_000.into()));
}

/// Whose key it is, its algorithm, its signature.
fn keys(set: &mut Set<'_>, made: &Made) {
    let (signer, good) = (set.signer, &made.signed);
    let by = |kid: Kid, name: &str| {
        let protected = header(Object::LogCommit, Suite::Ed25519, kid).encode();
        signer.sign1(name, protected, good.payload.clone(), b"").bytes()
    };
    let kid = |name: &str| public(signer, name).kid();
    let mut add = |id: &str, reason: R, what: &str, commit: Vec<u8>| bad_commit(set, made, id, reason, what, commit);
    let stranger = by(kid("stranger"), "stranger");
    add("of-a-stranger", R::KeyUnknown, "the trust list does not have this key", stranger);
    let statement = by(kid("44-statement"), "44-statement");
    add("kid-of-another-use", R::KeyUnknown, "signed with 44's statement key: one key, one use", statement);
    let forged = by(kid("gateway-log"), "stranger");
    add("signed-by-a-stranger", R::SignatureInvalid, "the gateway's kid, a stranger's signature", forged);
    let esp256 = bend::with(&good.protected, &[ALG], Some((-9).into()));
    let esp256 = signer.sign1("gateway-log", esp256, good.payload.clone(), b"").bytes();
    add("alg-not-the-keys", R::AlgorithmMismatch, "the header says ESP256, the key is an Ed25519 key", esp256);
    let root = Sign1 { payload: bend::with(&good.payload, &[2], Some(bytes(&[7; 32]))), ..good.clone() };
    add("root-changed", R::SignatureInvalid, "another root under the old signature", root.bytes());
    let receipt = AccessReceipt { commit: by(kid("gateway-log"), "stranger"), index: 1, ..made.receipt(MINE) };
    set.bad(
        "commit-before-place",
        R::SignatureInvalid,
        "the signature and the index are wrong: the commit is told",
        &receipt.encode(),
    );
    about(set, Object::LogCommit);
}

/// What is committed to, at its place, is no record.
fn records(set: &mut Set<'_>) {
    let signer = set.signer;
    let good = record::entry(signer).encode();
    let mut add = |id: &str, reason: R, what: &str, record: Vec<u8>| {
        let made = of_leaves(signer, vec![Leaf { owner: log_of("44"), index: 1041, record }]);
        set.bad(id, reason, what, &made.receipt(0).encode());
        about(set, Object::AccessRecord);
    };
    add("of-noise", R::NotCbor, "the record is no CBOR", vec![0xff]);
    let unknown = bend::with(&good, &[99], Some(1.into()));
    add("of-an-unknown-entry", R::ObjectMalformed, "the record has an entry that is not in its layout", unknown);
    add(
        "of-an-unsorted-record",
        R::NotDeterministic,
        "the record's first two entries change places",
        bend::unsorted(&good),
    );
    let refusal = small(signer).receipt(2);
    set.bad(
        "of-a-refusal",
        R::ObjectMalformed,
        "on the replica's own log: nobody gets a receipt for that",
        &refusal.encode(),
    );
    about(set, Object::AccessRecord);
}
