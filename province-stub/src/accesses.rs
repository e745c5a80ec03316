//! The access log at its home: taking in what the gateway's replicas recorded, and showing it to whom it concerns.
//!
//! Upholds I2 at home's end: what was taken in is signed for, and a log that tells two stories is found out. A record names
//! nobody (I6); here alone its consent's handle leads to a traveler, who sees it and nobody else does.

pub mod verify;

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::{
    identity::PeerId,
    log::{
        LogId,
        checkpoint::Checkpoint,
        delivery::DeliveryReceipt,
        merkle::{Frontier, Hash},
    },
    policy::Policy,
    refusal::{Blame, Object, Reason, Refusal},
    time::UnixTime,
    trust::TrustList,
};
use tracing::{error, instrument};

use crate::{
    home::Home,
    store::{
        DeviceId, Store,
        access_log::{AccessKey, Conflict, Delivered, Delivery, NewAccess, TravelerAccess},
        filing::OperatorLook,
    },
};

/// Records of one delivery at most.
pub const MAX_RECORDS: usize = 1_000;

/// What a replica brings, in the form the contract gives it. Nothing of it is verified yet.
#[derive(Clone)]
pub struct Brought {
    /// The log it says it is of.
    pub log: LogId,
    /// The index of the first record.
    pub first_index: u64,
    /// The records, each of which nobody has read yet.
    pub records: Vec<Vec<u8>>,
    /// The log's head, a signed note.
    pub checkpoint: String,
    /// That the head extends the tree that ends with the records.
    pub proof: Vec<Hash>,
    /// The tree over what was before the records, if the replica has no more of it than that.
    pub before: Option<Frontier>,
}

/// The peers that are bringing something of one kind now, or being given it. Each has one call under way at most: the store has one
/// writer, and revocations need it; and nobody's long call is in many places at once.
#[derive(Clone, Debug)]
pub struct Deliveries {
    what: &'static str,
    peers: Arc<Mutex<BTreeSet<PeerId>>>,
}

/// A delivery under way; over when it is dropped.
#[derive(Debug)]
pub struct UnderWay {
    caller: PeerId,
    deliveries: Deliveries,
}

impl Deliveries {
    /// Of one kind; the refusal's `limit`.
    pub fn of(what: &'static str) -> Self {
        Self { what, peers: Arc::default() }
    }

    /// A place for a peer's delivery.
    ///
    /// # Errors
    /// OVERLOADED if the peer has one under way.
    pub fn admit(&self, caller: &PeerId) -> Result<UnderWay, Refusal> {
        if !self.peers().insert(caller.clone()) {
            return Err(Refusal::new(Reason::Overloaded).with("limit", self.what).blaming(Blame::Home));
        }
        Ok(UnderWay { caller: caller.clone(), deliveries: self.clone() })
    }

    fn peers(&self) -> MutexGuard<'_, BTreeSet<PeerId>> {
        // No holder panics between two halves of a change.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.deliveries.peers().remove(&self.caller);
    }
}

/// What a replica is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A signed receipt for what is held now.
    Receipt {
        /// The receipt.
        receipt: Vec<u8>,
        /// How many records were new.
        stored: u32,
        /// How many of the new ones belong to no known consent.
        unmatched: u32,
        /// How many of those nobody can read.
        unreadable: u32,
        /// How many of the new ones say they are of a time that is yet to come.
        ahead: u32,
        /// How many of those belong to no known consent.
        unmatched_ahead: u32,
        /// How many before them never came.
        missing: u64,
    },
    /// Nothing was stored: there are two histories.
    Conflict(Conflict),
}

/// Takes in records of one log.
#[instrument(level = "debug", name = "record_accesses", skip_all)]
pub async fn record<S: Store>(
    home: &Home<S>,
    list: &TrustList,
    now: UnixTime,
    caller: PeerId,
    brought: Brought,
) -> Result<Taken, Refusal> {
    let checkpoint = open_checkpoint(home, list, &brought)?;
    let key = list.log_key(Object::Checkpoint, checkpoint.log.kid())?.clone();
    let Brought { log, first_index, records, checkpoint: note, proof, before } = brought;
    let records = records.into_iter().map(NewAccess::new).collect();
    let delivery = Delivery { log, key, caller, first_index, records, checkpoint, note, proof, before, now };
    match home.store.record_accesses(&delivery).await? {
        Delivered::Held { size, root, stored, unmatched, unmatched_ahead, missing } => {
            if missing > 0 {
                error!(%log, missing, size, "access records never came, and the gateway no longer has them: the log goes on behind them");
            }
            let receipt = DeliveryReceipt { issuer: home.member, log, size, root, issued_at: now };
            let receipt = receipt.sign(&home.keys.statement);
            // What is new is at the end.
            let new = &delivery.records[delivery.records.len() - stored as usize..];
            let unreadable = new.iter().filter(|access| access.says.is_none()).count() as u32;
            let ahead = new.iter().filter(|access| delivery.is_ahead(access)).count() as u32;
            Ok(Taken::Receipt { receipt, stored, unmatched, unreadable, ahead, unmatched_ahead, missing })
        }
        Delivered::Conflict(conflict) => {
            let Conflict { held_size, shown_size, index, .. } = conflict;
            error!(%log, caller = %delivery.caller, held_size, shown_size, index, "an access log tells two stories: both heads are kept as evidence");
            Ok(Taken::Conflict(conflict))
        }
    }
}

/// Verifies the log's head. Its layout is told first, then whose it is, its key and its signature, and its size last.
fn open_checkpoint<S>(home: &Home<S>, list: &TrustList, brought: &Brought) -> Result<Checkpoint, Refusal> {
    let invalid = |what: &str| Refusal::field("checkpoint", what);
    let opened = Checkpoint::open(&brought.checkpoint, list);
    let origin = format!("{}/access-log/{}/{}", list.domain, home.member, brought.log);
    let checkpoint = match opened {
        Err(layout) if matches!(layout.reason(), Reason::ObjectTooLarge | Reason::ObjectMalformed) => Err(layout),
        _ if brought.checkpoint.lines().next() != Some(&origin) => Err(invalid("of the log and of the member called")),
        opened => opened,
    }?;
    let end = brought.first_index + brought.records.len() as u64;
    if checkpoint.size < end {
        return Err(invalid("at least as large as the end of the records"));
    }
    if i64::try_from(checkpoint.size).is_err() {
        return Err(invalid("smaller than any proof can reach"));
    }
    Ok(checkpoint)
}

/// A page of accesses, newest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// The accesses.
    pub accesses: Vec<Seen>,
    /// Where the next page begins, if there may be one.
    pub next: Option<AccessKey>,
}

/// Somebody learned of a traveler, or tried to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A venue asked, or somebody for it.
    Access(Box<TravelerAccess>),
    /// One of the member's own operators looked.
    Look(OperatorLook),
}

impl Seen {
    /// Its place in the list. An operator's look is on no log: it comes after what was on one in that second.
    fn key(&self) -> AccessKey {
        match self {
            Self::Access(access) => access.key,
            Self::Look(look) => AccessKey { time: look.at, log: NO_LOG, index: look.id },
        }
    }
}

/// In the place of a log's id: no key has this hash.
const NO_LOG: LogId = LogId([0; 32]);

/// Lists who asked for the status of a device's traveler, as far as the policy lets them see it yet, and which operators of the
/// member looked at it, newest first.
#[instrument(level = "debug", name = "list_accesses", skip_all)]
pub async fn list<S: Store>(
    home: &Home<S>,
    policy: &Policy,
    now: UnixTime,
    device: DeviceId,
    after: Option<AccessKey>,
    size: u32,
) -> Result<Page, Refusal> {
    let person = home.store.device(device).await?.person;
    let until = now.minus(policy.access_log.visibility_delay);
    let asked = home.store.accesses(person, until, after, size).await?;
    let before = after.map(|after| (after.time, if after.log == NO_LOG { after.index } else { u64::MAX }));
    // What the member's own operators do is hidden for no time.
    let looked = home.store.operator_looks(person, before, size).await?;
    let asked = asked.into_iter().map(|access| Seen::Access(Box::new(access)));
    let mut accesses: Vec<_> = asked.chain(looked.into_iter().map(Seen::Look)).collect();
    // Of one second each stays where the store has it: its next page goes on from there.
    accesses.sort_by_key(|seen| Reverse(seen.key().time));
    accesses.truncate(size as usize);
    let full = accesses.len() == size as usize;
    let next = accesses.last().filter(|_| full).map(Seen::key);
    Ok(Page { accesses, next })
}

redacted!(Brought);

#[cfg(test)]
mod tests;
