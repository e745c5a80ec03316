//! The consent token: what home issued for a traveler to show. A CWT (RFC 8392) in a [`crate::cose`] object.
//!
//! Upholds I1 (who may ask, where, why, for what, until when) and I6: the random `cti` is the traveler's only handle, and
//! every token names a device key of its own, so that two tokens of one person have nothing in common.

use std::{fmt, str::FromStr, time::Duration};

use ciborium::Value;

use crate::{
    cbor::{Fields, MapBuilder},
    cose::{self, Unverified},
    member::Member,
    refusal::{Object, Reason, Refusal},
    suite::{Kid, SigningKey, Suite, VerifyingKey, sha256},
    terms::{Category, Kind, Purpose, Purposes, Scope},
    time::{CLOCK_LEEWAY, UnixTime},
    venue::VenueId,
};

const ISS: i64 = 1;
const AUD: i64 = 3;
const EXP: i64 = 4;
const IAT: i64 = 6;
const CTI: i64 = 7;
const CNF: i64 = 8;
const CONSENT: i64 = -65537;

const CNF_COSE_KEY: i64 = 1;
const CONSENT_PURPOSES: i64 = 1;
const CONSENT_SCOPE: i64 = 2;
const CONSENT_KIND: i64 = 4;

/// A token's handle: 16 random bytes, new for every token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cti(pub [u8; 16]);

impl fmt::Debug for Cti {
    /// Shortened: a whole handle has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cti {:02x}{:02x}…", self.0[0], self.0[1])
    }
}

/// The SHA-256 of a token's bytes: binds proofs and statements to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// Of a token's bytes.
    pub fn of(token: &[u8]) -> Self {
        Self(sha256(token))
    }

    /// The first 16 bytes, as a statement carries them.
    pub fn short(&self) -> [u8; 16] {
        let mut short = [0; 16];
        short.copy_from_slice(&self.0[..16]);
        short
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {:02x}{:02x}…", self.0[0], self.0[1])
    }
}

/// Where a token may be redeemed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    /// Anywhere: `*`.
    Anywhere,
    /// At venues of one category.
    Category(Category),
    /// At one venue.
    Venue(VenueId),
}

impl Audience {
    /// Whether this venue is in it.
    pub fn includes(&self, venue: &VenueId) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Category(category) => *category == venue.category(),
            Self::Venue(only) => only == venue,
        }
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anywhere => f.write_str("*"),
            Self::Category(category) => category.fmt(f),
            Self::Venue(venue) => venue.fmt(f),
        }
    }
}

impl FromStr for Audience {
    type Err = crate::terms::UnknownTerm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::Anywhere);
        }
        if let Ok(category) = text.parse() {
            return Ok(Self::Category(category));
        }
        text.parse().map(Self::Venue).map_err(|_| crate::terms::UnknownTerm("audience"))
    }
}

/// What a token says. Every combination that a token may not have is refused by [`Consent::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// The home member.
    pub issuer: Member,
    /// Where it may be redeemed.
    pub audience: Audience,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// When it expires.
    pub expires_at: UnixTime,
    /// The handle.
    pub cti: Cti,
    /// The device's key for this token alone; kinds without a device have none.
    pub device_key: Option<VerifyingKey>,
    /// What the traveler agreed to be asked for.
    pub purposes: Purposes,
    /// What the traveler agreed to disclose.
    pub scope: Scope,
    /// How the traveler consented.
    pub kind: Kind,
}

impl Consent {
    /// Signs it as a token.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        let consent = MapBuilder::new()
            .put(CONSENT_PURPOSES, self.purposes.iter().map(|p| Value::from(p.number())).collect::<Vec<_>>())
            .put(CONSENT_SCOPE, self.scope.bits())
            .put(CONSENT_KIND, self.kind.number());
        let cnf =
            self.device_key.as_ref().map(|key| MapBuilder::new().put(CNF_COSE_KEY, device_key_to_cose(key)).build());
        let payload = MapBuilder::new()
            .put(ISS, self.issuer.to_string())
            .put(AUD, self.audience.to_string())
            .put(EXP, self.expires_at.as_secs())
            .put(IAT, self.issued_at.as_secs())
            .put(CTI, self.cti.0.to_vec())
            .put_some(CNF, cnf)
            .put(CONSENT, consent.build())
            .encode();
        cose::sign(Object::Token, key, key.verifying_key().kid(), payload, b"")
    }

    /// Why these claims cannot be a token's, if they cannot.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.expires_at <= self.issued_at {
            return Err("it expires before it is issued");
        }
        if self.device_key.is_some() != self.kind.has_device() {
            return Err("own and dependent tokens, and no others, have a device key");
        }
        if !self.scope.contains(Scope::LEVEL) {
            return Err("a consent discloses the level at least");
        }
        if self.kind == Kind::Paper && self.scope != Scope::LEVEL {
            return Err("paper discloses the level only");
        }
        if self.kind == Kind::Assisted && !matches!(self.audience, Audience::Venue(_)) {
            return Err("an assisted token is for one venue");
        }
        Ok(())
    }
}

/// A token that is well formed; nobody has checked its signature yet.
#[derive(Debug)]
pub struct UnverifiedToken {
    object: Unverified,
    consent: Consent,
    hash: TokenHash,
}

impl UnverifiedToken {
    /// Reads a token of at most [`cose::MAX_OBJECT_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let object = Unverified::parse(Object::Token, bytes)?;
        let consent = parse_consent(object.payload()?)?;
        consent.check().map_err(|what| Refusal::malformed(Object::Token, what))?;
        Ok(Self { object, consent, hash: TokenHash::of(bytes) })
    }

    /// Who says to have issued it: where to look its key up, and nothing else.
    pub fn issuer(&self) -> Member {
        self.consent.issuer
    }

    /// The key it names.
    pub fn kid(&self) -> Kid {
        self.object.kid()
    }

    /// The handle it claims: what a phone, which has the token from home itself, names in its proofs.
    pub fn cti(&self) -> Cti {
        self.consent.cti
    }

    /// Checks the signature against the issuer's consent key.
    pub fn verify(self, key: &VerifyingKey) -> Result<ConsentToken, Refusal> {
        self.object.verify(key, b"")?;
        Ok(ConsentToken { consent: self.consent, hash: self.hash })
    }
}

/// A token whose signature verified. Time, audience and purpose are checked per use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentToken {
    consent: Consent,
    hash: TokenHash,
}

impl ConsentToken {
    /// What it says.
    pub const fn consent(&self) -> &Consent {
        &self.consent
    }

    /// Its hash.
    pub const fn hash(&self) -> TokenHash {
        self.hash
    }

    /// Checks its life against `now` and against the longest life that policy gives its kind.
    pub fn check_time(&self, now: UnixTime, max_life: Duration) -> Result<(), Refusal> {
        let Consent { issued_at, expires_at, .. } = self.consent;
        check_life(Object::Token, issued_at, expires_at, max_life)?;
        if issued_at > now.plus(CLOCK_LEEWAY) {
            let seconds = issued_at.since(now);
            return Err(Refusal::of(Object::Token, Reason::NotYetValid).with("seconds", seconds));
        }
        check_not_expired(Object::Token, expires_at, now)
    }

    /// Checks that this venue may redeem it.
    pub fn check_audience(&self, venue: &VenueId) -> Result<(), Refusal> {
        if self.consent.audience.includes(venue) {
            Ok(())
        } else {
            Err(Refusal::of(Object::Token, Reason::AudienceMismatch).with("venue", venue))
        }
    }

    /// Checks that the traveler consented to this purpose.
    pub fn check_purpose(&self, purpose: Purpose) -> Result<(), Refusal> {
        if self.consent.purposes.contains(purpose) {
            Ok(())
        } else {
            Err(Refusal::of(Object::Token, Reason::PurposeNotConsented).with("purpose", purpose))
        }
    }
}

/// Refuses a life longer than allowed.
pub(crate) fn check_life(object: Object, from: UnixTime, to: UnixTime, max: Duration) -> Result<(), Refusal> {
    if to.since(from) > max.as_secs() {
        return Err(Refusal::of(object, Reason::LifeTooLong).with("max_seconds", max.as_secs()));
    }
    Ok(())
}

/// Refuses what expired more than the clock leeway ago.
pub(crate) fn check_not_expired(object: Object, expires_at: UnixTime, now: UnixTime) -> Result<(), Refusal> {
    if now >= expires_at.plus(CLOCK_LEEWAY) {
        return Err(Refusal::of(object, Reason::Expired).with("seconds", now.since(expires_at)));
    }
    Ok(())
}

/// A device's P-256 key as a COSE_Key (RFC 9052 §7, RFC 9053 §7.1.1) with a compressed point.
pub fn device_key_to_cose(key: &VerifyingKey) -> Value {
    let (sign, x) = (key.encoded()[0] == 3, key.encoded()[1..].to_vec());
    MapBuilder::new().put(1, 2).put(-1, 1).put(-2, x).put(-3, sign).build()
}

/// Reads a device's COSE_Key.
pub fn device_key_from_cose(object: Object, value: Value) -> Result<VerifyingKey, Refusal> {
    let mut fields = Fields::open(object, value)?;
    if (fields.uint(1)?, fields.uint(-1)?) != (2, 1) {
        return Err(fields.wrong(1, "a device key is EC2 on P-256"));
    }
    let x: [u8; 32] = fields.bytes(-2)?;
    let sign = match fields.required(-3)? {
        Value::Bool(sign) => sign,
        _ => return Err(fields.wrong(-3, "a device key's y is its sign bit")),
    };
    fields.finish()?;
    let mut point = vec![if sign { 3 } else { 2 }];
    point.extend(x);
    VerifyingKey::new(Suite::Esp256, &point).map_err(|_| Refusal::malformed(object, "not a point of P-256"))
}

fn parse_consent(payload: Value) -> Result<Consent, Refusal> {
    const TOKEN: Object = Object::Token;
    let mut claims = Fields::open(TOKEN, payload)?;
    let issuer = claims.text(ISS, 2)?;
    let issuer = issuer.parse().map_err(|_| {
        let refusal = Refusal::of(TOKEN, Reason::MemberUnknown);
        // Whatever is not two digits is nobody's code, and may be anything: it is not repeated.
        if issuer.bytes().all(|b| b.is_ascii_digit()) { refusal.with("member", &issuer) } else { refusal }
    })?;
    let audience = claims.text(AUD, VenueId::MAX_BYTES)?;
    let audience = audience.parse().map_err(|_| claims.wrong(AUD, "not *, a category or a venue"))?;
    let expires_at = claims.time(EXP)?;
    let issued_at = claims.time(IAT)?;
    let cti = Cti(claims.bytes(CTI)?);
    let device_key = claims.optional(CNF).map(|cnf| parse_cnf(TOKEN, cnf)).transpose()?;
    let mut consent = claims.map(CONSENT)?;
    let purposes = parse_purposes(TOKEN, &consent.array(CONSENT_PURPOSES, Purpose::ALL.len())?)?;
    let scope =
        Scope::from_bits(consent.uint(CONSENT_SCOPE)?).map_err(|_| consent.wrong(CONSENT_SCOPE, "not scope bits"))?;
    let kind = Kind::from_number(consent.uint(CONSENT_KIND)?).map_err(|_| consent.wrong(CONSENT_KIND, "not a kind"))?;
    consent.finish()?;
    claims.finish()?;
    Ok(Consent { issuer, audience, issued_at, expires_at, cti, device_key, purposes, scope, kind })
}

/// Reads a confirmation claim that holds a device's key (RFC 8747 §3.1).
pub(crate) fn parse_cnf(object: Object, cnf: Value) -> Result<VerifyingKey, Refusal> {
    let mut cnf = Fields::open(object, cnf)?;
    let key = device_key_from_cose(object, cnf.required(CNF_COSE_KEY)?)?;
    cnf.finish()?;
    Ok(key)
}

/// Reads a list of purposes: known, ascending, at least one.
pub(crate) fn parse_purposes(object: Object, items: &[Value]) -> Result<Purposes, Refusal> {
    let purposes: Option<Vec<_>> =
        items.iter().map(|item| crate::cbor::uint(item).and_then(|n| Purpose::from_number(n).ok())).collect();
    purposes
        .filter(|purposes| purposes.is_sorted_by(|a, b| a < b))
        .and_then(Purposes::new)
        .ok_or_else(|| Refusal::malformed(object, "purposes are known numbers, ascending, at least one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn consent() -> Consent {
        Consent {
            issuer: "44".parse().unwrap(),
            audience: Audience::Category(Category::Station),
            issued_at: NOW,
            expires_at: NOW.plus(DAY),
            cti: Cti([7; 16]),
            device_key: Some(SigningKey::generate(Suite::Esp256).verifying_key().clone()),
            purposes: Purposes::new([Purpose::Entry, Purpose::Travel]).unwrap(),
            scope: Scope::LEVEL.union(Scope::TESTS),
            kind: Kind::Own,
        }
    }

    fn token(consent: &Consent) -> ConsentToken {
        let key = SigningKey::generate(Suite::Ed25519);
        UnverifiedToken::parse(&consent.sign(&key)).unwrap().verify(key.verifying_key()).unwrap()
    }

    fn parse_error(consent: &Consent) -> Refusal {
        UnverifiedToken::parse(&consent.sign(&SigningKey::generate(Suite::Ed25519))).unwrap_err()
    }

    #[test]
    fn says_what_was_signed_in_little_more_than_200_bytes() {
        let consent = consent();
        let key = SigningKey::generate(Suite::Ed25519);
        let bytes = consent.sign(&key);
        assert!(bytes.len() <= 230, "{}", bytes.len());
        let unverified = UnverifiedToken::parse(&bytes).unwrap();
        assert_eq!((unverified.issuer(), unverified.kid()), (consent.issuer, key.verifying_key().kid()));
        let token = unverified.verify(key.verifying_key()).unwrap();
        assert_eq!(token.consent(), &consent);
        assert_eq!(token.hash(), TokenHash::of(&bytes));
    }

    #[test]
    fn impossible_combinations_do_not_parse() {
        let own = consent();
        for wrong in [
            Consent { kind: Kind::Paper, ..own.clone() },
            Consent { device_key: None, ..own.clone() },
            Consent { kind: Kind::Paper, device_key: None, ..own.clone() },
            Consent { kind: Kind::Assisted, device_key: None, ..own.clone() },
            Consent { expires_at: NOW, ..own.clone() },
            Consent { scope: Scope::TESTS, ..own.clone() },
        ] {
            assert_eq!(parse_error(&wrong).reason(), Reason::ObjectMalformed, "{wrong:?}");
        }
        let paper = Consent { kind: Kind::Paper, device_key: None, scope: Scope::LEVEL, ..own };
        assert_eq!(token(&paper).consent(), &paper);
    }

    #[test]
    fn time_is_checked_with_leeway_at_its_edges() {
        let token = token(&consent());
        let at = |now: UnixTime| token.check_time(now, DAY).map_err(|refusal| refusal.reason());
        assert_eq!(at(NOW), Ok(()));
        assert_eq!(at(NOW.minus(CLOCK_LEEWAY)), Ok(()));
        assert_eq!(at(NOW.minus(CLOCK_LEEWAY + Duration::from_secs(1))), Err(Reason::NotYetValid));
        assert_eq!(at(NOW.plus(DAY).plus(CLOCK_LEEWAY - Duration::from_secs(1))), Ok(()));
        assert_eq!(at(NOW.plus(DAY).plus(CLOCK_LEEWAY)), Err(Reason::Expired));
        let refusal = token.check_time(NOW, DAY - Duration::from_secs(1)).unwrap_err();
        assert_eq!(refusal.reason(), Reason::LifeTooLong);
    }

    #[test]
    fn audience_and_purpose_are_the_travelers() {
        let token = token(&consent());
        assert!(token.check_audience(&"11/station/west".parse().unwrap()).is_ok());
        let hospital: VenueId = "11/hospital/west".parse().unwrap();
        assert_eq!(token.check_audience(&hospital).unwrap_err().reason(), Reason::AudienceMismatch);
        assert!(token.check_purpose(Purpose::Travel).is_ok());
        assert_eq!(token.check_purpose(Purpose::Medical).unwrap_err().reason(), Reason::PurposeNotConsented);
        let one = Audience::Venue(hospital.clone());
        assert!(one.includes(&hospital) && !one.includes(&"11/hospital/east".parse().unwrap()));
        assert_eq!(one.to_string().parse(), Ok(one));
        assert_eq!("*".parse(), Ok(Audience::Anywhere));
    }
}
