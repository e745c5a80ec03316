//! The status statement: what the home member says of one token's traveler, signed, short-lived, bound to that token.
//!
//! Upholds I3 (only home can make one) and I8 (a label that is not green names its rule and its authority). It holds the
//! member's own label; the level is worked out by the published policy, by anyone. Times are stored, never "within 48 h".

use std::time::Duration;

use ciborium::Value;

pub use crate::authority::{Authority, InvalidAuthority};

use crate::{
    cbor::{self, Fields, MapBuilder},
    cose::{self, Unverified},
    hint::SEALED_LEN,
    lives::Lives,
    member::Member,
    refusal::{Object, Reason, Refusal},
    suite::{Kid, SigningKey, VerifyingKey},
    terms::Scope,
    time::{CLOCK_LEEWAY, UnixTime},
    token::{TokenHash, check_life},
};

const ISS: i64 = 1;
const EXP: i64 = 4;
const IAT: i64 = 6;
const STATUS: i64 = -65538;

const TOKEN: i64 = 1;
const HEAD: i64 = 2;
const LABEL: i64 = 3;
const RULE: i64 = 4;
const AUTHORITY: i64 = 5;
const ASSIGNED_AT: i64 = 6;
const TESTS: i64 = 7;
const DOSES: i64 = 8;
const VISITS: i64 = 9;
const HINT: i64 = 10;
const OFFLINE_UNTIL: i64 = 11;

const OBJECT: Object = Object::Statement;

/// The longest a member's own label may be, in bytes.
pub const MAX_LABEL_BYTES: usize = 48;
/// The longest a rule's id may be, in bytes.
pub const MAX_RULE_BYTES: usize = 32;
/// How many nucleic-acid tests a statement holds at most.
pub const MAX_TESTS: usize = 4;
/// How many doses a statement holds at most.
pub const MAX_DOSES: usize = 4;
/// How many stays in risk areas a statement holds at most.
pub const MAX_VISITS: usize = 8;
/// How long an offline verifier may trust a statement at most.
pub const MAX_OFFLINE: Duration = Duration::from_secs(600);

/// Where a member's change log stands: an epoch, new after any restore, and the last number given in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogHead {
    /// 16 random bytes.
    pub epoch: [u8; 16],
    /// The last change's number; 0 before the first.
    pub seq: u64,
}

impl LogHead {
    /// As an opaque change token of one member: 26 bytes.
    pub fn to_change_token(self, member: Member) -> Vec<u8> {
        let mut token = vec![1, member.number()];
        token.extend(self.epoch);
        token.extend(self.seq.to_be_bytes());
        token
    }

    /// Reads a change token back.
    pub fn from_change_token(token: &[u8]) -> Option<(Member, Self)> {
        let (&[1, number], rest) = token.split_first_chunk::<2>()? else { return None };
        let (epoch, seq) = rest.split_first_chunk::<16>()?;
        let member = format!("{number:02}").parse().ok()?;
        Some((member, Self { epoch: *epoch, seq: u64::from_be_bytes(seq.try_into().ok()?) }))
    }
}

/// A nucleic-acid test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestResult {
    /// When the sample was taken.
    pub sampled_at: UnixTime,
    /// Whether it was positive.
    pub positive: bool,
}

/// A dose of a vaccine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dose {
    /// First, second, …: 1 to 9.
    pub number: u8,
    /// When it was given.
    pub given_at: UnixTime,
}

/// A stay in a medium- or high-risk area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RiskVisit {
    /// The county, six digits of GB/T 2260.
    pub area: u32,
    /// Whether the area was of high risk rather than medium.
    pub high: bool,
    /// When the person left it.
    pub left_at: UnixTime,
}

/// What home says. Fields outside the granted scope are absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The home member.
    pub issuer: Member,
    /// When home signed it.
    pub issued_at: UnixTime,
    /// When it ends: the earliest of token expiry, policy's statement life, and the next change that mere time brings.
    pub expires_at: UnixTime,
    /// The token it answers for: the first 16 bytes of its hash.
    pub token: [u8; 16],
    /// The head of home's change log in the snapshot that the status was read from.
    pub head: LogHead,
    /// The member's own word.
    pub label: String,
    /// The rule; always there when the label is not green.
    pub rule: Option<String>,
    /// The authority; always there when the label is not green.
    pub authority: Option<Authority>,
    /// When the label was assigned.
    pub assigned_at: Option<UnixTime>,
    /// Latest first.
    pub tests: Vec<TestResult>,
    /// Latest first.
    pub doses: Vec<Dose>,
    /// Latest first.
    pub visits: Vec<RiskVisit>,
    /// The sealed identity hint.
    pub hint: Option<Vec<u8>>,
    /// Until when an offline verifier may trust it.
    pub offline_until: UnixTime,
}

impl Status {
    /// Signs it as a statement.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let list = |items: Vec<Value>| (!items.is_empty()).then_some(items);
        let tests = self.tests.iter().map(|t| pair(t.sampled_at.as_secs(), u64::from(t.positive))).collect();
        let doses = self.doses.iter().map(|d| pair(u64::from(d.number), d.given_at.as_secs())).collect();
        let visits = self.visits.iter().map(|v| {
            Value::Array(vec![v.area.into(), (if v.high { 2 } else { 1 }).into(), v.left_at.as_secs().into()])
        });
        let status = MapBuilder::new()
            .put(TOKEN, self.token.to_vec())
            .put(HEAD, vec![Value::Bytes(self.head.epoch.to_vec()), self.head.seq.into()])
            .put(LABEL, self.label.clone())
            .put_some(RULE, self.rule.clone())
            .put_some(AUTHORITY, self.authority.as_ref().map(Authority::to_string))
            .put_some(ASSIGNED_AT, self.assigned_at.map(UnixTime::as_secs))
            .put_some(TESTS, list(tests))
            .put_some(DOSES, list(doses))
            .put_some(VISITS, list(visits.collect()))
            .put_some(HINT, self.hint.clone())
            .put(OFFLINE_UNTIL, self.offline_until.as_secs());
        let payload = MapBuilder::new()
            .put(ISS, self.issuer.to_string())
            .put(EXP, self.expires_at.as_secs())
            .put(IAT, self.issued_at.as_secs())
            .put(STATUS, status.build())
            .encode();
        cose::sign(OBJECT, key, key.verifying_key().kid(), payload, b"")
    }
}

/// A statement that is well formed; nobody has checked its signature yet.
#[derive(Debug)]
pub struct UnverifiedStatement {
    object: Unverified,
    status: Status,
}

impl UnverifiedStatement {
    /// Reads a statement of at most [`cose::MAX_OBJECT_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let object = Unverified::parse(OBJECT, bytes)?;
        let status = parse(object.payload()?)?;
        Ok(Self { object, status })
    }

    /// Who says to have made it.
    pub fn issuer(&self) -> Member {
        self.status.issuer
    }

    /// The key it names.
    pub fn kid(&self) -> Kid {
        self.object.kid()
    }

    /// Checks the signature against the issuer's statement key.
    pub fn verify(self, key: &VerifyingKey) -> Result<Statement, Refusal> {
        self.object.verify(key, b"")?;
        Ok(Statement(self.status))
    }
}

/// A statement whose signature verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement(Status);

impl Statement {
    /// What it says.
    pub const fn status(&self) -> &Status {
        &self.0
    }

    /// Checks that it answers for this token of this member.
    pub fn check_binding(&self, issuer: Member, token: TokenHash) -> Result<(), Refusal> {
        if self.0.issuer == issuer && self.0.token == token.short() {
            Ok(())
        } else {
            Err(Refusal::malformed(OBJECT, "it answers for another token"))
        }
    }

    /// Checks that it discloses nothing beyond `scope`: home must not say more than was consented to and granted.
    pub fn check_scope(&self, scope: Scope) -> Result<(), Refusal> {
        let disclosed = [
            (self.0.assigned_at.is_some(), Scope::ASSIGNMENT),
            (!self.0.tests.is_empty(), Scope::TESTS),
            (!self.0.doses.is_empty(), Scope::VACCINATION),
            (!self.0.visits.is_empty(), Scope::RISK_AREAS),
            (self.0.hint.is_some(), Scope::IDENTITY_HINT),
        ];
        match disclosed.iter().find(|(there, needed)| *there && !scope.contains(*needed)) {
            None => Ok(()),
            Some((_, needed)) => {
                Err(Refusal::malformed(OBJECT, format_args!("it discloses {needed}, which was not granted")))
            }
        }
    }

    /// Checks that it holds now, and that it claims no longer a life than policy gives a statement.
    pub fn check_time(&self, now: UnixTime, lives: &Lives) -> Result<(), Refusal> {
        check_life(OBJECT, self.0.issued_at, self.0.expires_at, lives.statement)?;
        check_life(OBJECT, self.0.issued_at, self.0.offline_until, lives.offline)?;
        if self.0.issued_at > now.plus(CLOCK_LEEWAY) {
            return Err(Refusal::of(OBJECT, Reason::NotYetValid).with("seconds", self.0.issued_at.since(now)));
        }
        if now >= self.0.expires_at.plus(CLOCK_LEEWAY) {
            return Err(Refusal::of(OBJECT, Reason::Expired).with("seconds", now.since(self.0.expires_at)));
        }
        Ok(())
    }
}

fn pair(first: u64, second: u64) -> Value {
    Value::Array(vec![first.into(), second.into()])
}

fn parse(payload: Value) -> Result<Status, Refusal> {
    let mut claims = Fields::open(OBJECT, payload)?;
    let issuer = claims.text(ISS, 2)?.parse().map_err(|_| Refusal::of(OBJECT, Reason::MemberUnknown))?;
    let expires_at = claims.time(EXP)?;
    let issued_at = claims.time(IAT)?;
    let mut status = claims.map(STATUS)?;
    let token = status.bytes(TOKEN)?;
    let head = parse_head(&status.array(HEAD, 2)?).ok_or_else(|| status.wrong(HEAD, "not [epoch, seq]"))?;
    let label = status.text(LABEL, MAX_LABEL_BYTES)?;
    let rule = status.optional_text(RULE, MAX_RULE_BYTES)?;
    let authority = status.optional_text(AUTHORITY, Authority::MAX_BYTES)?;
    let authority =
        authority.map(|a| a.parse()).transpose().map_err(|_| status.wrong(AUTHORITY, "not an authority"))?;
    let assigned_at = status.optional_time(ASSIGNED_AT)?;
    let tests = parse_list(&mut status, TESTS, MAX_TESTS, |[sampled_at, result]: [u64; 2]| {
        let positive = match result {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(TestResult { sampled_at: UnixTime::from_secs(sampled_at), positive })
    })?;
    let doses = parse_list(&mut status, DOSES, MAX_DOSES, |[number, given_at]: [u64; 2]| {
        let number = u8::try_from(number).ok().filter(|n| (1..=9).contains(n))?;
        Some(Dose { number, given_at: UnixTime::from_secs(given_at) })
    })?;
    let visits = parse_list(&mut status, VISITS, MAX_VISITS, |[area, grade, left_at]: [u64; 3]| {
        let area = u32::try_from(area).ok().filter(|area| *area <= 999_999)?;
        let high = match grade {
            1 => false,
            2 => true,
            _ => return None,
        };
        Some(RiskVisit { area, high, left_at: UnixTime::from_secs(left_at) })
    })?;
    let hint = status.optional(HINT).map(|hint| match hint {
        Value::Bytes(hint) if hint.len() == SEALED_LEN => Ok(hint),
        _ => Err(Refusal::malformed(OBJECT, "10: not a sealed hint")),
    });
    let hint = hint.transpose()?;
    let offline_until = status.time(OFFLINE_UNTIL)?;
    let offline = issued_at..=expires_at.min(issued_at.plus(MAX_OFFLINE));
    if expires_at < issued_at || !offline.contains(&offline_until) {
        return Err(Refusal::malformed(OBJECT, "its times contradict each other"));
    }
    status.finish()?;
    claims.finish()?;
    Ok(Status {
        issuer,
        issued_at,
        expires_at,
        token,
        head,
        label,
        rule,
        authority,
        assigned_at,
        tests,
        doses,
        visits,
        hint,
        offline_until,
    })
}

fn parse_head(items: &[Value]) -> Option<LogHead> {
    match items {
        [epoch, seq] => Some(LogHead { epoch: cbor::bytes(epoch)?, seq: cbor::uint(seq)? }),
        _ => None,
    }
}

/// Reads an array of arrays of `N` unsigned integers.
fn parse_list<T, const N: usize>(
    fields: &mut Fields,
    key: i64,
    max: usize,
    item: impl Fn([u64; N]) -> Option<T>,
) -> Result<Vec<T>, Refusal> {
    let items = fields.optional_array(key, max)?;
    let parsed: Option<Vec<T>> = items
        .iter()
        .map(|value| {
            let numbers: Option<Vec<u64>> = value.as_array()?.iter().map(cbor::uint).collect();
            item(numbers?.try_into().ok()?)
        })
        .collect();
    parsed.ok_or_else(|| fields.wrong(key, "an item is not as documented"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn status() -> Status {
        Status {
            issuer: "44".parse().unwrap(),
            issued_at: NOW,
            expires_at: NOW.plus(MAX_OFFLINE),
            token: [1; 16],
            head: LogHead { epoch: [2; 16], seq: 9 },
            label: "红码".into(),
            rule: Some("R-CASE".into()),
            authority: Some("44/cdc".parse().unwrap()),
            assigned_at: Some(NOW.minus(MAX_OFFLINE)),
            tests: vec![TestResult { sampled_at: NOW, positive: true }; MAX_TESTS],
            doses: vec![Dose { number: 1, given_at: NOW }; MAX_DOSES],
            visits: vec![RiskVisit { area: 449_999, high: true, left_at: NOW }; MAX_VISITS],
            hint: Some(vec![0; SEALED_LEN]),
            offline_until: NOW.plus(MAX_OFFLINE),
        }
    }

    fn lives() -> Lives {
        crate::policy::Policy::from_toml(crate::policy::NATIONAL).unwrap().lives
    }

    fn signed(status: &Status) -> Result<Statement, Refusal> {
        let key = SigningKey::generate(Suite::Ed25519);
        let bytes = status.sign(&key);
        assert!(bytes.len() <= cose::MAX_OBJECT_BYTES, "{}", bytes.len());
        UnverifiedStatement::parse(&bytes)?.verify(key.verifying_key())
    }

    #[test]
    fn the_fullest_statement_fits_and_says_what_was_signed() {
        assert_eq!(signed(&status()).unwrap().status(), &status());
    }

    #[test]
    fn the_leanest_discloses_a_label_alone() {
        let lean = Status {
            label: "绿码".into(),
            rule: None,
            authority: None,
            assigned_at: None,
            tests: vec![],
            doses: vec![],
            visits: vec![],
            hint: None,
            ..status()
        };
        assert_eq!(signed(&lean).unwrap().status(), &lean);
    }

    #[test]
    fn more_than_the_documented_is_refused() {
        let visit = RiskVisit { area: 1, high: false, left_at: NOW };
        for wrong in [
            Status { visits: vec![visit; MAX_VISITS + 1], hint: None, ..status() },
            Status { tests: vec![TestResult { sampled_at: NOW, positive: false }; MAX_TESTS + 1], ..status() },
            Status { offline_until: NOW.plus(MAX_OFFLINE + Duration::from_secs(1)), ..status() },
            Status { offline_until: NOW.minus(MAX_OFFLINE), ..status() },
            Status { label: "长".repeat(17), ..status() },
            Status { label: String::new(), ..status() },
            Status { hint: Some(vec![0; 5]), ..status() },
            Status { doses: vec![Dose { number: 0, given_at: NOW }], ..status() },
        ] {
            assert_eq!(signed(&wrong).unwrap_err().reason(), Reason::ObjectMalformed, "{wrong:?}");
        }
    }

    #[test]
    fn it_holds_for_one_token_and_for_its_life() {
        let statement = signed(&status()).unwrap();
        let mut hash = [1; 32];
        let member = status().issuer;
        assert!(statement.check_binding(member, TokenHash(hash)).is_ok());
        assert!(statement.check_binding(Member::PLATFORM, TokenHash(hash)).is_err());
        hash[3] = 0;
        assert!(statement.check_binding(member, TokenHash(hash)).is_err());
        assert!(statement.check_time(NOW, &lives()).is_ok());
        let late = NOW.plus(MAX_OFFLINE + CLOCK_LEEWAY);
        assert_eq!(statement.check_time(late, &lives()).unwrap_err().reason(), Reason::Expired);
        let early = NOW.minus(Duration::from_secs(31));
        assert_eq!(statement.check_time(early, &lives()).unwrap_err().reason(), Reason::NotYetValid);
        for shorter in [Lives { statement: MAX_OFFLINE / 2, ..lives() }, Lives { offline: MAX_OFFLINE / 2, ..lives() }]
        {
            assert_eq!(statement.check_time(NOW, &shorter).unwrap_err().reason(), Reason::LifeTooLong);
        }
    }

    #[test]
    fn it_discloses_no_more_than_was_granted() {
        let statement = signed(&status()).unwrap();
        assert!(statement.check_scope(Scope::ALL).is_ok());
        for missing in [Scope::ASSIGNMENT, Scope::TESTS, Scope::VACCINATION, Scope::RISK_AREAS, Scope::IDENTITY_HINT] {
            let granted = Scope::from_bits(u64::from(Scope::ALL.bits() & !missing.bits())).unwrap();
            assert_eq!(statement.check_scope(granted).unwrap_err().reason(), Reason::ObjectMalformed, "{missing}");
        }
    }

    #[test]
    fn change_tokens_survive_a_round_trip() {
        let member = status().issuer;
        let token = status().head.to_change_token(member);
        assert_eq!(LogHead::from_change_token(&token), Some((member, status().head)));
        assert_eq!(LogHead::from_change_token(&token[1..]), None);
        assert_eq!(LogHead::from_change_token(&[]), None);
    }
}
