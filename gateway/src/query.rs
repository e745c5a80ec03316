//! A query as the exchange sees it: parsed, its caller allowed to ask for its venue. No protobuf past this file.

use std::sync::Arc;

use peer::{Caller, trace::Trace};
use proto::{
    contract::recognition::{Freshness as WireFreshness, RecognizeRequest, freshness::Requirement},
    identity::{PeerId, Role},
    member::Member,
    refusal::{Reason, Refusal},
    statement::LogHead,
    terms::{Purpose, Scope},
    trust::TrustList,
    venue::{VenueId, has_long_number},
};

/// The longest a staff id may be, in bytes.
const MAX_STAFF_ID_BYTES: usize = 32;

/// One query.
#[derive(Debug)]
pub(crate) struct Query {
    /// Who called.
    pub(crate) caller: PeerId,
    /// The venue that asks.
    pub(crate) venue: Arc<VenueId>,
    /// Why it asks.
    pub(crate) purpose: Purpose,
    /// What it wants to know; `None` wants all that is granted.
    pub(crate) scope: Option<Scope>,
    /// Who of its staff asks.
    pub(crate) staff_id: Option<String>,
    /// How fresh the answer is to be.
    pub(crate) freshness: Freshness,
    /// The trace it belongs to.
    pub(crate) trace: Trace,
    /// The consent token, unread.
    pub(crate) token: Vec<u8>,
    /// The proof, unread.
    pub(crate) proof: Option<Vec<u8>>,
}

/// How fresh an answer is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// What is held may be given as long as it is known to hold.
    Default,
    /// At least as fresh as a position in a member's change log.
    AtLeast(Member, LogHead),
    /// Straight from home.
    Home,
}

impl Freshness {
    /// Whether an answer that is known to hold up to `head` is fresh enough. Positions of other logs cannot be compared.
    pub(crate) fn is_met_by(self, head: LogHead) -> bool {
        match self {
            Self::Default => true,
            Self::AtLeast(_, least) => least.epoch == head.epoch && least.seq <= head.seq,
            Self::Home => false,
        }
    }

    /// Whether home itself may answer with this: its log may be another one by now, but not an earlier position of this.
    pub(crate) fn allows(self, head: LogHead) -> bool {
        match self {
            Self::Default | Self::Home => true,
            Self::AtLeast(_, least) => least.epoch != head.epoch || least.seq <= head.seq,
        }
    }

    fn parse(wire: Option<WireFreshness>) -> Result<Self, Refusal> {
        match wire.and_then(|freshness| freshness.requirement) {
            None | Some(Requirement::FromHome(false)) => Ok(Self::Default),
            Some(Requirement::FromHome(true)) => Ok(Self::Home),
            Some(Requirement::AtLeastAsFresh(token)) => {
                let parsed = LogHead::from_change_token(&token).map(|(member, head)| Self::AtLeast(member, head));
                parsed.ok_or_else(|| Refusal::field("freshness.at_least_as_fresh", "a change token that was given out"))
            }
        }
    }
}

impl Query {
    /// Parses a request, refusing in this order: venue, caller's right to it, purpose, scope, staff id, freshness, token.
    pub(crate) fn parse(
        request: RecognizeRequest,
        caller: &Caller,
        trace: Trace,
        list: &TrustList,
    ) -> Result<Self, Refusal> {
        let venue = venue_of(&request.venue, &caller.peer, list)?;
        let purpose = Purpose::from_number(u64::try_from(request.purpose).unwrap_or(u64::MAX));
        let purpose = purpose.map_err(|unknown| Refusal::new(Reason::PurposeUnknown).violating("purpose", unknown))?;
        let scope = match request.scope {
            0 => None,
            bits => Some(parse_scope(bits)?),
        };
        let staff_id = (!request.staff_id.is_empty()).then_some(request.staff_id);
        if staff_id.as_ref().is_some_and(|id| !is_staff_id(id)) {
            return Err(Refusal::field(
                "staff_id",
                "1 to 32 characters of A-Z, a-z, 0-9, '.', '_' and '-', no 11 digits in a row",
            ));
        }
        let freshness = Freshness::parse(request.freshness)?;
        if request.token.is_empty() {
            return Err(Refusal::missing("token"));
        }
        let proof = (!request.proof.is_empty()).then_some(request.proof);
        Ok(Self {
            caller: caller.peer.clone(),
            venue: Arc::new(venue),
            purpose,
            scope,
            staff_id,
            freshness,
            trace,
            token: request.token,
            proof,
        })
    }
}

/// A venue asks for itself; a backend for venues of its own member in categories the trust list grants it.
fn venue_of(text: &str, caller: &PeerId, list: &TrustList) -> Result<VenueId, Refusal> {
    if let (Role::Venue(own), "") = (caller.role(), text) {
        return Ok(own.clone());
    }
    let venue = VenueId::from_field("venue", text)?;
    match caller.role() {
        Role::Venue(own) if *own == venue => Ok(venue),
        Role::Venue(_) => Err(Refusal::new(Reason::VenueNotYours).with("venue", &venue)),
        Role::Backend(_) => {
            let member = caller.member().ok_or_else(|| Refusal::new(Reason::Internal))?;
            if venue.member() != member {
                return Err(Refusal::new(Reason::VenueOfOtherMember).with("venue", &venue).with("member", member));
            }
            let granted = list.members.get(&member).is_some_and(|trust| trust.categories.contains(&venue.category()));
            if granted {
                Ok(venue)
            } else {
                Err(Refusal::new(Reason::CategoryNotGranted).with("category", venue.category()))
            }
        }
        // The edge lets no other role in; this is the second lock on the same door.
        role @ (Role::Feed(_) | Role::Gateway(_) | Role::Node(_) | Role::Operator(_)) => {
            Err(Refusal::new(Reason::RoleNotAllowed).with("role", role.word()))
        }
    }
}

fn parse_scope(bits: u32) -> Result<Scope, Refusal> {
    let scope = Scope::from_bits(u64::from(bits)).map_err(|unknown| Refusal::field("scope", unknown))?;
    if scope.contains(Scope::LEVEL) {
        Ok(scope)
    } else {
        Err(Refusal::field("scope", "the level (1) is always part of it"))
    }
}

fn is_staff_id(text: &str) -> bool {
    text.len() <= MAX_STAFF_ID_BYTES
        && !has_long_number(text)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
