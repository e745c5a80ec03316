//! What a record says: who asked, where, why, under which consent, and what they learned. Deterministic CBOR, so that the
//! log can hash it.

use peer::trace::TraceId;
use proto::{
    cbor::MapBuilder,
    contract::recognition::{Outcome, Source},
    identity::PeerId,
    refusal::{Reason, reason_name},
    terms::{Kind, Purpose, Scope},
    time::UnixTime,
    token::Cti,
    venue::VenueId,
};
use std::sync::Arc;

const TIME: i64 = 1;
const VENUE: i64 = 2;
const CALLER: i64 = 3;
const STAFF: i64 = 4;
const PURPOSE: i64 = 5;
const SCOPE: i64 = 6;
const CTI: i64 = 7;
const KIND: i64 = 8;
const OUTCOME: i64 = 9;
const SOURCE: i64 = 10;
const STATEMENT: i64 = 11;
const POLICY: i64 = 12;
const EXCHANGE: i64 = 13;
const REASON: i64 = 14;
const TRACE: i64 = 15;

/// One exchange, on its home member's log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// When it was asked.
    pub(crate) time: UnixTime,
    /// The venue that asked.
    pub(crate) venue: Arc<VenueId>,
    /// The peer that called for it.
    pub(crate) caller: PeerId,
    /// The member of staff, if the venue said.
    pub(crate) staff_id: Option<String>,
    /// Why.
    pub(crate) purpose: Purpose,
    /// What was granted; `None` if it was refused before.
    pub(crate) granted: Option<Scope>,
    /// The traveler's only handle.
    pub(crate) cti: Cti,
    /// How the traveler consented.
    pub(crate) kind: Kind,
    /// The policy it was judged by.
    pub(crate) policy_version: u64,
    /// The exchange's id, in the answer too.
    pub(crate) exchange_id: [u8; 16],
    /// The trace it belongs to, in logs and errors too.
    pub(crate) trace_id: TraceId,
    /// How it ended.
    pub(crate) ending: Ending,
}

/// How an exchange ended.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// With an answer.
    Answered {
        /// Its outcome.
        outcome: Outcome,
        /// Where the status came from.
        source: Source,
        /// The first 16 bytes of the statement's SHA-256, if there was one.
        statement: Option<[u8; 16]>,
    },
    /// With a refusal.
    Refused(Reason),
}

impl Entry {
    /// The record's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let map = MapBuilder::new()
            .put(TIME, self.time.as_secs())
            .put(VENUE, self.venue.to_string())
            .put(CALLER, self.caller.to_string())
            .put_some(STAFF, self.staff_id.clone())
            .put(PURPOSE, self.purpose.number())
            .put_some(SCOPE, self.granted.map(Scope::bits))
            .put(CTI, self.cti.0.to_vec())
            .put(KIND, self.kind.number())
            .put(POLICY, self.policy_version)
            .put(EXCHANGE, self.exchange_id.to_vec())
            .put(TRACE, self.trace_id.bytes().to_vec());
        match &self.ending {
            Ending::Answered { outcome, source, statement } => map
                .put(OUTCOME, *outcome as i32)
                .put(SOURCE, *source as i32)
                .put_some(STATEMENT, statement.map(|hash| hash.to_vec())),
            Ending::Refused(reason) => map.put(REASON, reason_name(*reason)),
        }
        .encode()
    }
}

/// A refusal before any token verified. It holds nothing of the token: a forged one must not carry anything in here (I6).
#[derive(Clone, Debug)]
pub(crate) struct RefusalEntry {
    /// When.
    pub(crate) time: UnixTime,
    /// Who called.
    pub(crate) caller: PeerId,
    /// Why it was refused.
    pub(crate) reason: Reason,
}

impl RefusalEntry {
    /// The record's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        MapBuilder::new()
            .put(TIME, self.time.as_secs())
            .put(CALLER, self.caller.to_string())
            .put(REASON, reason_name(self.reason))
            .encode()
    }
}
