//! What the tests share: people who are nobody, a home in a temporary directory, tokens and proofs.

use std::{sync::Arc, time::Duration};

use proto::{
    consent_request::ConsentRequest,
    contract::recognition::{Outcome, Source},
    envelope::Roots,
    hint::NodeSecret,
    identity::{PeerId, Realm},
    log::{
        LogId,
        checkpoint::Checkpoint,
        merkle::{Frontier, Hash, Nodes, consistency_proof, leaf_hash},
        record::{Ending, Entry},
    },
    member::Member,
    policy::{NATIONAL, Policy},
    proof::prove,
    random::{self, SystemRandom},
    suite::{SigningKey, Suite},
    terms::{Kind, Purpose, Purposes, Scope},
    time::UnixTime,
    token::{Audience, Cti, TokenHash},
    trust::{GatewayTrust, MemberTrust, TrustList, keys},
    venue::VenueId,
};
use tempfile::TempDir;

use crate::{
    document::Document,
    home::Home,
    issuance::{Issued, issue},
    keys::{Keys, SealingKey},
    request::{Method, RequestKey, digest},
    seed::{self, Condition, SeededPerson},
    store::{
        DeviceId, Name, NewDevice, Retention, Store,
        access_log::{Delivery, NewAccess},
        sqlite::SqliteStore,
    },
    vault::Vault,
};

pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Access records for half a year, evidence as well.
pub(crate) const RETENTION: Retention =
    Retention { accesses: Duration::from_secs(183 * 24 * 3600), evidence: Duration::from_secs(180 * 24 * 3600) };

/// Henan: three colours by the default labels.
pub(crate) fn member() -> Member {
    "41".parse().unwrap()
}

pub(crate) fn policy() -> Policy {
    Policy::from_toml(NATIONAL).unwrap()
}

/// What every store here is sealed with.
pub(crate) fn vault() -> Vault {
    Vault::new(&[5; 32], Arc::new(SystemRandom))
}

pub(crate) fn random16() -> [u8; 16] {
    random::bytes(&SystemRandom)
}

pub(crate) fn device_key() -> SigningKey {
    SigningKey::generate(Suite::Esp256)
}

/// The seeded person of a condition: the table in [`crate::seed`] says where it is.
pub(crate) fn seeded(condition: Condition) -> SeededPerson {
    let person = seed::people(member(), 12, &policy()).into_iter().find(|person| person.condition == condition);
    person.unwrap()
}

pub(crate) fn seeded_document(index: u32) -> Document {
    seed::people(member(), index + 1, &policy()).remove(index as usize).document
}

pub(crate) fn request(id: &str, content: &str) -> RequestKey {
    let (caller, method) = ("41/backend/app".to_owned(), Method::EnrollDevice);
    RequestKey { caller, id: id.to_owned(), method, digest: digest(&[content.as_bytes()]), at: NOW }
}

pub(crate) fn new_device(document: &Document, name: &Name, key: &SigningKey) -> NewDevice {
    let (id, enrollment_key) = (DeviceId(random16()), key.verifying_key().clone());
    NewDevice { id, document: document.clone(), name: name.clone(), enrollment_key, reference: None, now: NOW }
}

/// A home with a dozen seeded people, and the trust list that vouches for it.
pub(crate) struct Fixture {
    pub(crate) home: Home<SqliteStore>,
    pub(crate) list: TrustList,
    pub(crate) policy: Policy,
    _dir: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("node.db"), vault(), &SystemRandom).await.unwrap();
        let policy = policy();
        store.seed(&seed::records(&seed::people(member(), 12, &policy), NOW), NOW).await.unwrap();
        let keys = Keys {
            consent: SigningKey::generate(Suite::Ed25519),
            statement: SigningKey::generate(Suite::Ed25519),
            secret: NodeSecret([3; 32]),
            sealing: SealingKey::new([4; 32]),
        };
        let list = trust_list(&keys);
        let home = Home { member: member(), store, keys, random: Arc::new(SystemRandom) };
        Self { home, list, policy, _dir: dir }
    }

    /// Enrols a device for a seeded person.
    pub(crate) async fn enroll(&self, person: &SeededPerson) -> (DeviceId, SigningKey) {
        let key = device_key();
        let id = format!("enroll-{:02x}", u128::from_be_bytes(random16()));
        let device = new_device(&person.document, &person.name, &key);
        let (enrolled, _) = self.home.store.enroll_device(&request(&id, ""), &device, 64).await.unwrap();
        (enrolled, key)
    }
}

pub(crate) fn trust_list(home: &Keys) -> TrustList {
    let root = SigningKey::generate(Suite::Ed25519);
    let trust = MemberTrust {
        bundle: vec![vec![1]],
        endpoints: vec!["127.0.0.1:7500".into()],
        consent_keys: keys([home.consent.verifying_key().clone()]),
        statement_keys: keys([home.statement.verifying_key().clone()]),
        sealing_key: home.sealing.public_key().unwrap(),
        categories: Default::default(),
        suspension: None,
    };
    TrustList {
        domain: "tongxing.test".parse().unwrap(),
        roots: Roots::new(1, vec![root.verifying_key().clone()]).unwrap(),
        gateway: GatewayTrust { bundle: vec![vec![9]], log_keys: keys([]) },
        members: [(member(), trust)].into(),
    }
}

/// A request of an own phone for all scopes and purposes anywhere, for an hour.
pub(crate) fn consent_request(device: DeviceId, token_key: &SigningKey) -> ConsentRequest {
    ConsentRequest {
        device_id: device.0,
        audience: Audience::Anywhere,
        purposes: Purposes::ALL,
        scope: Scope::ALL,
        kind: Kind::Own,
        life: HOUR,
        token_key: Some(token_key.verifying_key().clone()),
        issued_at: NOW,
        nonce: random16(),
    }
}

/// A phone with a token, ready to show it.
pub(crate) struct Phone {
    pub(crate) issued: Issued,
    pub(crate) key: SigningKey,
}

impl Phone {
    pub(crate) fn proof(&self, venue: Option<&VenueId>, now: UnixTime) -> Vec<u8> {
        let hash = TokenHash::of(&self.issued.token);
        prove(hash, self.issued.cti, &self.key, venue, now, MINUTE, &SystemRandom)
    }
}

impl Fixture {
    /// Enrols a phone for a person and has it ask for a token, as `change` would have it.
    pub(crate) async fn phone(&self, person: &SeededPerson, change: impl FnOnce(&mut ConsentRequest)) -> Phone {
        let (device, enrollment_key) = self.enroll(person).await;
        let key = device_key();
        let mut request = consent_request(device, &key);
        change(&mut request);
        let (issued, _) = issue(&self.home, &self.policy, NOW, &request.sign(&enrollment_key)).await.unwrap();
        Phone { issued, key }
    }
}

/// A record of an exchange with this consent.
pub(crate) fn entry(cti: Cti, time: UnixTime) -> Entry {
    Entry {
        time,
        venue: Arc::new("44/station/guangzhou-south".parse().unwrap()),
        caller: (&PeerId::backend("44".parse().unwrap(), "app").unwrap()).into(),
        staff_id: Some("window-3".into()),
        purpose: Purpose::Travel,
        granted: Some(Scope::LEVEL.union(Scope::TESTS)),
        cti,
        kind: Kind::Own,
        policy_version: 1,
        exchange_id: random16(),
        trace_id: random16(),
        ending: Ending::Answered { outcome: Outcome::Status, source: Source::Cache, statement: Some([4; 16]) },
    }
}

/// The replica that brings what it recorded.
pub(crate) fn replica() -> PeerId {
    PeerId::gateway("1").unwrap()
}

/// The log that a replica keeps for this member, as far as it wants to tell.
pub(crate) struct ReplicaLog {
    pub(crate) key: SigningKey,
    pub(crate) owner: Realm,
    pub(crate) records: Vec<Vec<u8>>,
}

impl Nodes for ReplicaLog {
    type Error = std::convert::Infallible;

    fn node(&self, level: u8, index: u64) -> Result<Hash, Self::Error> {
        let (low, count) = ((index << level) as usize, 1 << level);
        Ok(tree(&self.records[low..low + count]).root())
    }
}

/// The tree over these records.
pub(crate) fn tree(records: &[Vec<u8>]) -> Frontier {
    let mut tree = Frontier::new();
    records.iter().for_each(|record| tree.push(leaf_hash(record)));
    tree
}

impl ReplicaLog {
    pub(crate) fn new(records: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let (key, owner) = (SigningKey::generate(Suite::Ed25519), Realm::Member(member()));
        Self { key, owner, records: records.into_iter().collect() }
    }

    /// A log of records that say when they were, a second apart, and that nobody here has to do with.
    pub(crate) fn of_strangers(count: u64) -> Self {
        Self::new((0..count).map(|i| entry(Cti([9; 16]), NOW.minus(Duration::from_secs(count - i))).encode()))
    }

    /// The same log's other history: all that comes from `turn` on is another's.
    pub(crate) fn turned(&self, turn: usize) -> Self {
        let key = SigningKey::from_pkcs8(Suite::Ed25519, &self.key.to_pkcs8()).unwrap();
        let mut records = self.records.clone();
        records[turn..].iter_mut().for_each(|record| *record = entry(Cti([8; 16]), NOW).encode());
        Self { key, owner: self.owner, records }
    }

    pub(crate) fn id(&self) -> LogId {
        LogId::of(self.key.verifying_key())
    }

    pub(crate) fn checkpoint(&self, size: u64) -> Checkpoint {
        let root = tree(&self.records[..size as usize]).root();
        Checkpoint { log: self.id(), owner: self.owner, size, root }
    }

    pub(crate) fn note(&self, size: u64) -> String {
        self.checkpoint(size).sign(&"tongxing.test".parse().unwrap(), &self.key)
    }

    pub(crate) fn proof(&self, end: u64, size: u64) -> Vec<Hash> {
        consistency_proof(self, end, size).unwrap()
    }

    /// The records from `first` to before `end`, with the head of `size`.
    pub(crate) fn delivery(&self, first: u64, end: u64, size: u64) -> Delivery {
        let records = &self.records[first as usize..end as usize];
        Delivery {
            log: self.id(),
            key: self.key.verifying_key().clone(),
            caller: replica(),
            first_index: first,
            records: records.iter().cloned().map(NewAccess::new).collect(),
            checkpoint: self.checkpoint(size),
            note: self.note(size),
            proof: self.proof(end, size),
            before: None,
            now: NOW,
        }
    }
}
