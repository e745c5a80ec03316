//! Reading the logs while they are written: heads, records to deliver, proofs. Nothing here waits for the writer.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use proto::{
    identity::{FederationDomain, Realm},
    log::{
        LogId,
        checkpoint::Checkpoint,
        commit::Head,
        merkle::{self, Hash, Nodes as _, consistency_proof, inclusion_path},
        owner_number,
    },
    member::Member,
    refusal::{Reason, Refusal},
    suite::VerifyingKey,
    trust::TrustList,
};
use redb::{Database, ReadableDatabase as _};
use tracing::error;

use super::{
    logs::{Heads, LogKey},
    store::StoreError,
    view::{View, size_of},
};

/// The logs, to read.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    key: LogKey,
    domain: Arc<FederationDomain>,
    database: Arc<ArcSwapOption<Database>>,
    heads: Arc<ArcSwap<Heads>>,
}

/// Records of one log, in its order, and what shows that they lead to its head.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The records.
    pub(crate) records: Vec<Vec<u8>>,
    /// The log's head, signed.
    pub(crate) checkpoint: String,
    /// From the last of them to the head.
    pub(crate) proof: Vec<Hash>,
}

/// That a record is on a log.
#[derive(Debug)]
pub(crate) struct Inclusion {
    pub(crate) path: Vec<Hash>,
    pub(crate) checkpoint: String,
}

impl Reader {
    pub(super) fn new(
        key: LogKey,
        domain: FederationDomain,
        database: Arc<ArcSwapOption<Database>>,
        heads: Arc<ArcSwap<Heads>>,
    ) -> Self {
        Self { key, domain: Arc::new(domain), database, heads }
    }

    /// The logs' id.
    pub(crate) const fn id(&self) -> LogId {
        self.key.id()
    }

    /// Their public key.
    pub(crate) fn key(&self) -> &VerifyingKey {
        self.key.key().verifying_key()
    }

    /// The federation's domain, in checkpoints.
    pub(crate) fn domain(&self) -> &FederationDomain {
        &self.domain
    }

    /// Whether a trust list has the logs' key.
    pub(crate) fn is_listed(&self, list: &TrustList) -> bool {
        list.gateway.log_keys.get(&self.key.kid()).is_some_and(|key| key == self.key())
    }

    /// How many commits were made.
    pub(super) fn commits(&self) -> Result<u64, StoreError> {
        Ok(self.view()?.commit()?.map_or(0, |commit| commit.number))
    }

    /// How many records a member's log has.
    pub(crate) fn size(&self, home: Member) -> u64 {
        size_of(&self.heads.load(), owner_number(Realm::Member(home)))
    }

    /// How many it has on disk, of which heads may have been signed already: never fewer than [`Reader::size`].
    pub(crate) fn committed_size(&self, home: Member) -> Result<u64, StoreError> {
        Ok(size_of(&self.view()?.heads()?, owner_number(Realm::Member(home))))
    }

    /// How much of a member's log it has a receipt for.
    pub(crate) fn delivered(&self, home: Member) -> Result<u64, StoreError> {
        Ok(self.view()?.delivered(owner_number(Realm::Member(home)))?.map_or(0, |(size, _)| size))
    }

    /// The log's records from `first` on, so many and so many bytes of them at most, with the head of now.
    pub(crate) fn batch(
        &self,
        home: Member,
        first: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Batch, StoreError> {
        let (view, owner) = (self.view()?, Realm::Member(home));
        let log = view.log(owner_number(owner));
        let head = self.head_of(&view, owner)?;
        let (mut records, mut bytes) = (Vec::new(), 0);
        log.records(first, |_, record| {
            let room = records.len() < max_records && bytes + record.len() <= max_bytes;
            if room {
                bytes += record.len();
                records.push(record.to_vec());
            }
            room
        })?;
        let end = first + records.len() as u64;
        Ok(Batch {
            records,
            checkpoint: self.sign(head),
            proof: consistency_proof(&log, end.min(head.size), head.size)?,
        })
    }

    /// Where a member's log begins: what was before is trimmed.
    pub(crate) fn kept_from(&self, home: Member) -> Result<u64, StoreError> {
        self.view()?.base(owner_number(Realm::Member(home)))
    }

    /// The peaks of the tree over a member's first `size` records, none of them trimmed but those before its beginning.
    pub(crate) fn frontier(&self, home: Member, size: u64) -> Result<Vec<Hash>, StoreError> {
        self.view()?.log(owner_number(Realm::Member(home))).peaks(size)
    }

    /// Tells of each record from `first` to before `end`.
    pub(crate) fn each(
        &self,
        home: Member,
        first: u64,
        end: u64,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), StoreError> {
        self.view()?.log(owner_number(Realm::Member(home))).records(first, |index, record| {
            if index < end {
                each(record);
            }
            index < end
        })
    }

    /// The root of a member's log when it had this many records; `None` if it has fewer, or they were trimmed.
    pub(crate) fn root_at(&self, home: Member, size: u64) -> Result<Option<Hash>, StoreError> {
        self.view()?.log(owner_number(Realm::Member(home))).root_at(size)
    }

    /// Proves that a record with this leaf hash is on a log.
    ///
    /// # Errors
    /// RECORD_UNKNOWN if it is not, or not any more: whoever has not the record learns nothing of the log, its size neither.
    pub(crate) fn prove(&self, id: LogId, owner: Realm, index: u64, leaf: &Hash) -> Result<Inclusion, Refusal> {
        let unknown = || Refusal::new(Reason::RecordUnknown);
        if id != self.key.id() {
            return Err(unknown());
        }
        let failed = |error: StoreError| {
            error!(%error, "the access record cannot be read");
            Refusal::new(Reason::RecordUnavailable)
        };
        let view = self.view().map_err(failed)?;
        let number = owner_number(owner);
        let (head, base) = (self.head_of(&view, owner).map_err(failed)?, view.base(number).map_err(failed)?);
        if index >= head.size || index < base {
            return Err(unknown());
        }
        let log = view.log(number);
        if log.node(0, index).map_err(failed)? != *leaf {
            return Err(unknown());
        }
        let path = inclusion_path(&log, index, head.size).map_err(failed)?;
        Ok(Inclusion { path, checkpoint: self.sign(head) })
    }

    fn head_of(&self, view: &View, owner: Realm) -> Result<Head, StoreError> {
        let head = view.heads()?.get(&owner_number(owner)).copied();
        Ok(head.unwrap_or(Head { owner, size: 0, root: merkle::empty_root() }))
    }

    fn sign(&self, head: Head) -> String {
        let Head { owner, size, root } = head;
        Checkpoint { log: self.key.id(), owner, size, root }.sign(&self.domain, self.key.key())
    }

    fn view(&self) -> Result<View, StoreError> {
        let database = self.database.load_full().ok_or_else(|| std::io::Error::other("the store is closed"))?;
        View::of(&database.begin_read().map_err(|error| StoreError::Failed(Box::new(error.into())))?)
    }
}
