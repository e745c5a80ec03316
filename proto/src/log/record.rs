//! What stands on a log for one exchange: who asked, where, why, under which consent, and what they learned. Never who the
//! traveler is (I6): the home member finds that by the consent's handle. `access-record.cddl`.

use std::{borrow::Cow, sync::Arc};

use crate::{
    cbor::{self, Fields, MapWriter},
    contract::recognition::{Outcome, Source},
    identity::PeerId,
    refusal::{Object, Reason, Refusal, reason_name},
    terms::{Kind, Purpose, Scope},
    time::UnixTime,
    token::Cti,
    venue::{VenueId, is_name},
};

/// The longest record, in bytes.
pub const MAX_RECORD_BYTES: usize = 512;

const OBJECT: Object = Object::AccessRecord;

const TIME: u8 = 1;
const VENUE: u8 = 2;
const CALLER: u8 = 3;
const STAFF: u8 = 4;
const PURPOSE: u8 = 5;
const SCOPE: u8 = 6;
const CTI: u8 = 7;
const KIND: u8 = 8;
const OUTCOME: u8 = 9;
const SOURCE: u8 = 10;
const STATEMENT: u8 = 11;
const POLICY: u8 = 12;
const EXCHANGE: u8 = 13;
const REASON: u8 = 14;
const TRACE: u8 = 15;

const MAX_CALLER_BYTES: usize = 96;
const MAX_STAFF_BYTES: usize = 32;
const MAX_REASON_BYTES: usize = 40;

/// One exchange, on its home member's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was asked.
    pub time: UnixTime,
    /// The venue that asked.
    pub venue: Arc<VenueId>,
    /// The peer that called for it, without the federation's domain.
    pub caller: Caller,
    /// The member of staff, if the venue said.
    pub staff_id: Option<String>,
    /// Why.
    pub purpose: Purpose,
    /// What was granted; `None` if it was refused before.
    pub granted: Option<Scope>,
    /// The traveler's only handle.
    pub cti: Cti,
    /// How the traveler consented.
    pub kind: Kind,
    /// The policy it was judged by.
    pub policy_version: u64,
    /// The exchange's id, in the answer too.
    pub exchange_id: [u8; 16],
    /// The trace it belongs to, in logs and errors too.
    pub trace_id: [u8; 16],
    /// How it ended.
    pub ending: Ending,
}

/// A peer in the form that records have it: `44/backend/app`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller(Arc<str>);

/// How an exchange ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With an answer.
    Answered {
        /// Its outcome.
        outcome: Outcome,
        /// Where the status came from.
        source: Source,
        /// The first 16 bytes of the statement's SHA-256, if there was one.
        statement: Option<[u8; 16]>,
    },
    /// With a refusal, for the reason of this name: a reader may not know it yet.
    Refused(Cow<'static, str>),
}

/// A refusal before any token verified, on the replica's own log. It holds nothing of the token: a forged one must not carry
/// anything in here (I6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalEntry {
    /// When.
    pub time: UnixTime,
    /// Who called.
    pub caller: Caller,
    /// Why it was refused.
    pub reason: Cow<'static, str>,
}

impl Caller {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_text(text: &str) -> Option<Self> {
        let (realm, rest) = text.split_once('/')?;
        let known = realm == "gateway" || realm.len() == 2 && realm.bytes().all(|b| b.is_ascii_digit());
        let parts = rest.split('/').count();
        (known && text.len() <= MAX_CALLER_BYTES && (2..=3).contains(&parts) && rest.split('/').all(is_name))
            .then(|| Self(text.into()))
    }
}

/// When an exchange was, and who called, of a record that nobody has to read whole; `None` if it is none.
pub fn time_and_caller(record: &[u8]) -> Option<(UnixTime, Caller)> {
    let (mut rest, mut time) = (record.get(1..)?, None);
    loop {
        let (key, after) = rest.split_first()?;
        let (major, argument, after) = cbor::read_head(after)?;
        rest = after;
        match (*key, major) {
            (TIME, 0) => time = Some(UnixTime::from_secs(argument)),
            (VENUE | CALLER, 3) => {
                let (text, after) = rest.split_at_checked(usize::try_from(argument).ok()?)?;
                if *key == CALLER {
                    return Some((time?, Caller::from_text(str::from_utf8(text).ok()?)?));
                }
                rest = after;
            }
            _ => return None,
        }
    }
}

impl From<&PeerId> for Caller {
    fn from(peer: &PeerId) -> Self {
        Self(peer.to_string().into())
    }
}

impl Ending {
    /// With a refusal for this reason.
    pub fn refused(reason: Reason) -> Self {
        Self::Refused(reason_name(reason).into())
    }
}

impl Entry {
    /// What was disclosed: what was granted, if a status or a label went out.
    pub fn disclosed(&self) -> Option<Scope> {
        let disclosing =
            matches!(self.ending, Ending::Answered { outcome: Outcome::Status | Outcome::Undetermined, .. });
        self.granted.filter(|_| disclosing)
    }

    /// The record's bytes, at most [`MAX_RECORD_BYTES`].
    pub fn encode(&self) -> Vec<u8> {
        let mut map =
            MapWriter::with_capacity(256).uint(TIME, self.time.as_secs()).text(VENUE, &self.venue.to_string());
        map = map.text(CALLER, self.caller.as_str());
        if let Some(staff) = &self.staff_id {
            map = map.text(STAFF, staff);
        }
        map = map.uint(PURPOSE, self.purpose.number().into());
        if let Some(granted) = self.granted {
            map = map.uint(SCOPE, granted.bits().into());
        }
        map = map.bytes(CTI, &self.cti.0).uint(KIND, self.kind.number().into());
        let mut refused = None;
        match &self.ending {
            Ending::Answered { outcome, source, statement } => {
                map = map.uint(OUTCOME, *outcome as u64).uint(SOURCE, *source as u64);
                if let Some(statement) = statement {
                    map = map.bytes(STATEMENT, statement);
                }
            }
            Ending::Refused(reason) => refused = Some(reason),
        }
        map = map.uint(POLICY, self.policy_version).bytes(EXCHANGE, &self.exchange_id);
        if let Some(reason) = refused {
            map = map.text(REASON, reason);
        }
        map.bytes(TRACE, &self.trace_id).finish()
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::open(OBJECT, cbor::decode(OBJECT, bytes, MAX_RECORD_BYTES)?)?;
        let key = i64::from;
        let time = fields.time(key(TIME))?;
        let venue = fields.text(key(VENUE), VenueId::MAX_BYTES)?;
        let venue = venue.parse().map_err(|_| fields.wrong(key(VENUE), "not a venue"))?;
        let caller = caller(&mut fields)?;
        let staff_id = fields.optional_text(key(STAFF), MAX_STAFF_BYTES)?;
        if staff_id.as_ref().is_some_and(|id| !is_staff_id(id)) {
            return Err(fields.wrong(key(STAFF), "not a member of staff"));
        }
        let purpose = Purpose::from_number(fields.uint(key(PURPOSE))?);
        let granted = fields.optional(key(SCOPE)).map(|bits| {
            let bits = cbor::uint(&bits).and_then(|bits| u8::try_from(bits).ok());
            bits.and_then(|bits| Scope::from_bits(bits.into()).ok()).filter(|scope| scope.bits() != 0)
        });
        let cti = Cti(fields.bytes(key(CTI))?);
        let kind = Kind::from_number(fields.uint(key(KIND))?);
        let ending = ending(&mut fields)?;
        let entry = Self {
            time,
            venue: Arc::new(venue),
            caller,
            staff_id,
            purpose: purpose.map_err(|_| fields.wrong(key(PURPOSE), "not a purpose"))?,
            granted: match granted {
                Some(None) => return Err(fields.wrong(key(SCOPE), "not a scope")),
                Some(granted) => granted,
                None => None,
            },
            cti,
            kind: kind.map_err(|_| fields.wrong(key(KIND), "not a kind"))?,
            policy_version: fields.uint(key(POLICY))?,
            exchange_id: fields.bytes(key(EXCHANGE))?,
            trace_id: fields.bytes(key(TRACE))?,
            ending,
        };
        fields.finish()?;
        Ok(entry)
    }
}

fn caller(fields: &mut Fields) -> Result<Caller, Refusal> {
    let text = fields.text(CALLER.into(), MAX_CALLER_BYTES)?;
    Caller::from_text(&text).ok_or_else(|| fields.wrong(CALLER.into(), "not a peer"))
}

fn is_staff_id(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn reason(fields: &mut Fields) -> Result<Cow<'static, str>, Refusal> {
    let text = fields.text(REASON.into(), MAX_REASON_BYTES)?;
    let form = text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
    if form { Ok(text.into()) } else { Err(fields.wrong(REASON.into(), "not a reason")) }
}

fn ending(fields: &mut Fields) -> Result<Ending, Refusal> {
    let Some(outcome) = fields.optional(OUTCOME.into()) else { return Ok(Ending::Refused(reason(fields)?)) };
    let number = |value: &ciborium::Value| cbor::uint(value).and_then(|number| i32::try_from(number).ok());
    let outcome = number(&outcome).and_then(|number| Outcome::try_from(number).ok());
    let outcome = outcome.filter(|outcome| *outcome != Outcome::Unspecified);
    let source = fields.required(SOURCE.into())?;
    let source = number(&source).and_then(|number| Source::try_from(number).ok());
    let statement = fields.optional(STATEMENT.into());
    let statement =
        statement.map(|hash| cbor::bytes(&hash).ok_or_else(|| fields.wrong(STATEMENT.into(), "not a hash")));
    Ok(Ending::Answered {
        outcome: outcome.ok_or_else(|| fields.wrong(OUTCOME.into(), "not an outcome"))?,
        source: source.ok_or_else(|| fields.wrong(SOURCE.into(), "not a source"))?,
        statement: statement.transpose()?,
    })
}

impl RefusalEntry {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let map = MapWriter::with_capacity(128).uint(TIME, self.time.as_secs()).text(CALLER, self.caller.as_str());
        map.text(REASON, &self.reason).finish()
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::open(OBJECT, cbor::decode(OBJECT, bytes, MAX_RECORD_BYTES)?)?;
        let entry =
            Self { time: fields.time(TIME.into())?, caller: caller(&mut fields)?, reason: reason(&mut fields)? };
        fields.finish()?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::MapBuilder;

    fn entry(ending: Ending) -> Entry {
        Entry {
            time: UnixTime::from_secs(1_800_000_000),
            venue: Arc::new("44/station/guangzhou-south".parse().unwrap()),
            caller: (&PeerId::backend("44".parse().unwrap(), "yuekangma").unwrap()).into(),
            staff_id: Some("window-3".into()),
            purpose: Purpose::Travel,
            granted: Some(Scope::ALL),
            cti: Cti([1; 16]),
            kind: Kind::Own,
            policy_version: 1_800_000_000,
            exchange_id: [2; 16],
            trace_id: [3; 16],
            ending,
        }
    }

    fn answered() -> Ending {
        Ending::Answered { outcome: Outcome::Status, source: Source::Cache, statement: Some([4; 16]) }
    }

    #[test]
    fn records_survive_a_round_trip() {
        let mut bare = entry(Ending::refused(Reason::AudienceMismatch));
        (bare.staff_id, bare.granted) = (None, None);
        let unknown =
            Ending::Answered { outcome: Outcome::HomeUnreachable, source: Source::Unspecified, statement: None };
        for entry in [entry(answered()), bare, entry(unknown), entry(Ending::Refused("OF_A_LATER_VERSION".into()))] {
            let bytes = entry.encode();
            assert_eq!(time_and_caller(&bytes), Some((entry.time, entry.caller.clone())));
            assert_eq!(Entry::decode(&bytes), Ok(entry));
        }
        let refusal = RefusalEntry {
            time: UnixTime::from_secs(1),
            caller: (&PeerId::gateway("1").unwrap()).into(),
            reason: "NOT_CBOR".into(),
        };
        assert_eq!(time_and_caller(&refusal.encode()), Some((refusal.time, refusal.caller.clone())));
        assert_eq!(RefusalEntry::decode(&refusal.encode()), Ok(refusal));
        assert!((0..9).all(|cut| time_and_caller(&[0xa1, 1, 0x1a, 0, 0, 0, 1, 3, 0x62][..cut]).is_none()));
    }

    #[test]
    fn only_what_went_out_was_disclosed() {
        let disclosed =
            |outcome| entry(Ending::Answered { outcome, source: Source::Home, statement: None }).disclosed().is_some();
        assert!(disclosed(Outcome::Status) && disclosed(Outcome::Undetermined));
        assert!(!disclosed(Outcome::Unsubstantiated) && !disclosed(Outcome::UnknownTraveler));
        assert_eq!(entry(Ending::refused(Reason::ConsentRevoked)).disclosed(), None);
    }

    #[test]
    fn the_longest_record_is_within_its_bound() {
        let mut longest = entry(Ending::Refused("R".repeat(MAX_REASON_BYTES).into()));
        longest.venue = Arc::new(format!("44/residential/{}", "v".repeat(25)).parse().unwrap());
        longest.caller = Caller::from_text(&format!("44/venue/residential/{}", "v".repeat(75))).unwrap();
        longest.staff_id = Some("s".repeat(32));
        longest.policy_version = u64::MAX;
        let bytes = longest.encode();
        assert!(bytes.len() <= MAX_RECORD_BYTES, "{}", bytes.len());
        assert_eq!(Entry::decode(&bytes), Ok(longest));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let good = entry(answered()).encode();
        let value = cbor::decode(OBJECT, &good, 512).unwrap();
        let reason = |bytes: &[u8]| Entry::decode(bytes).unwrap_err().reason();
        assert_eq!(reason(&good[..20]), Reason::NotCbor);
        assert_eq!(reason(&[0; 513]), Reason::ObjectTooLarge);
        for (key, bad) in [
            (VENUE, "castle".into()),
            (CALLER, "A/b/c".into()),
            (CALLER, "44/backend".into()),
            (CALLER, "member/backend/a".into()),
            (CALLER, "44/backend/-a".into()),
            (CALLER, "44/a/b/c/d".into()),
            (STAFF, "窗口三".into()),
            (PURPOSE, 9.into()),
            (SCOPE, 0.into()),
            (SCOPE, 64.into()),
            (KIND, 0.into()),
            (OUTCOME, 0.into()),
            (SOURCE, 7.into()),
            (STATEMENT, vec![0_u8; 3].into()),
            (99, ciborium::Value::from(1)),
        ] {
            let mut map = value.as_map().unwrap().clone();
            map.retain(|(k, _)| *k != ciborium::Value::from(key));
            let map = map
                .into_iter()
                .fold(MapBuilder::new(), |map, (k, v)| map.put(i64::try_from(k.as_integer().unwrap()).unwrap(), v));
            let bytes = map.put(key.into(), bad).encode();
            assert_eq!(reason(&bytes), Reason::ObjectMalformed, "{key}");
        }
        let refusal = MapBuilder::new().put(1, 1).put(3, "44/backend/a").put(14, "lower").encode();
        assert_eq!(RefusalEntry::decode(&refusal).unwrap_err().reason(), Reason::ObjectMalformed);
    }
}
