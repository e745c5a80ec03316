//! The trust list: who is in the federation and by which keys, signed by the roots (DESIGN §3).
//!
//! Removing a CA, an endpoint or a key here is how it stops being believed. What verifies against a list is worth no more
//! than that list: holders re-check when a newer one comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ciborium::Value;

use crate::{
    cbor::{self, Fields, MapBuilder},
    envelope::{self, Edition, MAX_ROOTS, Roots},
    identity::{FederationDomain, Realm},
    member::Member,
    refusal::{Object, Reason, Refusal},
    suite::{Kid, SigningKey, Suite, VerifyingKey},
    terms::Category,
    time::UnixTime,
};

const OBJECT: Object = Object::TrustList;

const DOMAIN: i64 = 1;
const ROOT_THRESHOLD: i64 = 2;
const ROOT_KEYS: i64 = 3;
const GATEWAY: i64 = 4;
const MEMBERS: i64 = 5;

const BUNDLE: i64 = 1;
const LOG_KEYS: i64 = 2;

const CODE: i64 = 1;
const MEMBER_BUNDLE: i64 = 2;
const ENDPOINTS: i64 = 3;
const CONSENT_KEYS: i64 = 4;
const STATEMENT_KEYS: i64 = 5;
const SEALING_KEY: i64 = 6;
const CATEGORIES: i64 = 7;
const SUSPENSION: i64 = 8;

const REASON: i64 = 1;
const FROM: i64 = 2;
const UNTIL: i64 = 3;

/// Bounds of one member's entry.
const MAX_CAS: usize = 4;
const MAX_CA_BYTES: usize = 4096;
const MAX_ENDPOINTS: usize = 8;
/// Keys of one use at most.
pub const MAX_KEYS: usize = 16;

/// The CA certificates of one trust domain, DER.
pub type Bundle = Vec<Vec<u8>>;

/// What one kind of object of a member is signed with: one use, one algorithm per key.
pub type Keys = BTreeMap<Kid, VerifyingKey>;

/// What the list says of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberTrust {
    /// Its CA certificates.
    pub bundle: Bundle,
    /// Where its nodes are: `host:port`.
    pub endpoints: Vec<String>,
    /// What its consent tokens are signed with.
    pub consent_keys: Keys,
    /// What its statements are signed with.
    pub statement_keys: Keys,
    /// The X25519 key that assisted lookups are sealed to (RFC 9180).
    pub sealing_key: [u8; 32],
    /// The categories its backends may name venues of.
    pub categories: BTreeSet<Category>,
    /// Whether it is out for a while.
    pub suspension: Option<Suspension>,
}

/// A member that is out for a while: nobody of its trust domain is let in, its nodes are not asked (I7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    reason: String,
    from: UnixTime,
    until: UnixTime,
}

/// A suspension that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuspensionError {
    /// The reason is not a line of text.
    #[error("a reason is 1 to 200 bytes on one line")]
    Reason,
    /// It does not end, or ends before it begins.
    #[error("a suspension ends after it begins, at most 366 days after")]
    Life,
}

impl Suspension {
    /// The longest one: whoever needs more renews it, and so says again why.
    pub const MAX: Duration = Duration::from_secs(366 * 24 * 3600);
    /// The longest reason, in bytes.
    pub const MAX_REASON_BYTES: usize = 200;

    /// A suspension from one instant until another.
    ///
    /// # Errors
    /// If the reason is not one line of 1 to 200 bytes, or it does not end within [`Self::MAX`] after it begins.
    pub fn new(reason: &str, from: UnixTime, until: UnixTime) -> Result<Self, SuspensionError> {
        if reason.is_empty() || reason.len() > Self::MAX_REASON_BYTES || reason.chars().any(char::is_control) {
            return Err(SuspensionError::Reason);
        }
        if until <= from || until.since(from) > Self::MAX.as_secs() {
            return Err(SuspensionError::Life);
        }
        Ok(Self { reason: reason.to_owned(), from, until })
    }

    /// Why, for the other members to read.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// When it begins.
    pub const fn begins_at(&self) -> UnixTime {
        self.from
    }

    /// When it ends, by itself.
    pub const fn ends_at(&self) -> UnixTime {
        self.until
    }

    /// Whether it is in force.
    pub fn holds(&self, now: UnixTime) -> bool {
        self.from <= now && now < self.until
    }

    fn to_value(&self) -> Value {
        MapBuilder::new()
            .put(REASON, self.reason.clone())
            .put(FROM, self.from.as_secs())
            .put(UNTIL, self.until.as_secs())
            .build()
    }

    fn from_value(value: Value) -> Result<Self, Refusal> {
        let mut fields = Fields::open(OBJECT, value)?;
        let reason = fields.text(REASON, Self::MAX_REASON_BYTES)?;
        let (from, until) = (fields.time(FROM)?, fields.time(UNTIL)?);
        fields.finish()?;
        Self::new(&reason, from, until).map_err(|error| Refusal::malformed(OBJECT, error))
    }
}

/// What the list says of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayTrust {
    /// Its CA certificates.
    pub bundle: Bundle,
    /// What its access logs are signed with.
    pub log_keys: Keys,
}

/// A trust list's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustList {
    /// The federation's domain.
    pub domain: FederationDomain,
    /// Who may sign the next list.
    pub roots: Roots,
    /// The gateway.
    pub gateway: GatewayTrust,
    /// The members.
    pub members: BTreeMap<Member, MemberTrust>,
}

impl TrustList {
    /// Signs an edition of it.
    pub fn seal(&self, edition: Edition, roots: &[&SigningKey]) -> Vec<u8> {
        envelope::seal(OBJECT, edition, self.to_value(), roots)
    }

    /// Opens an edition that `roots` signed.
    pub fn open(bytes: &[u8], roots: &Roots) -> Result<(Edition, Self), Refusal> {
        let (edition, content) = envelope::open(OBJECT, bytes, roots)?;
        Ok((edition, Self::from_value(content)?))
    }

    /// Opens an edition that was accepted before, by its own roots. Only for a copy that nobody else could have written.
    pub fn open_held(bytes: &[u8]) -> Result<(Edition, Self), Refusal> {
        let (_, list) = Self::open_unsigned(bytes)?;
        Self::open(bytes, &list.roots)
    }

    /// What a list says, whoever signed it: to look at it before it is signed. Nothing of it is to be believed.
    pub fn open_unsigned(bytes: &[u8]) -> Result<(Edition, Self), Refusal> {
        let (edition, content) = envelope::open_unsigned(OBJECT, bytes)?;
        Ok((edition, Self::from_value(content)?))
    }

    /// The CA certificates that may vouch for peers of a realm; empty if the realm is not in the federation.
    pub fn bundle(&self, realm: Realm) -> &[Vec<u8>] {
        match realm {
            Realm::Gateway => &self.gateway.bundle,
            Realm::Member(member) => self.members.get(&member).map_or(&[], |trust| &trust.bundle),
        }
    }

    /// The suspension of a realm that is in force.
    pub fn suspension(&self, realm: Realm, now: UnixTime) -> Option<&Suspension> {
        match realm {
            Realm::Gateway => None,
            Realm::Member(member) => self.members.get(&member)?.suspension.as_ref().filter(|out| out.holds(now)),
        }
    }

    /// The key a member's consent token names.
    pub fn consent_key(&self, member: Member, kid: Kid) -> Result<&VerifyingKey, Refusal> {
        self.key(Object::Token, member, kid, |trust| &trust.consent_keys)
    }

    /// The key a member's statement names.
    pub fn statement_key(&self, member: Member, kid: Kid) -> Result<&VerifyingKey, Refusal> {
        self.key(Object::Statement, member, kid, |trust| &trust.statement_keys)
    }

    /// The key that signed a replica's logs: its commits and its checkpoints.
    pub fn log_key(&self, object: Object, kid: Kid) -> Result<&VerifyingKey, Refusal> {
        self.gateway.log_keys.get(&kid).ok_or_else(|| Refusal::of(object, Reason::KeyUnknown))
    }

    /// The key a member's delivery receipt names.
    pub fn receipt_key(&self, member: Member, kid: Kid) -> Result<&VerifyingKey, Refusal> {
        self.key(Object::DeliveryReceipt, member, kid, |trust| &trust.statement_keys)
    }

    fn key(
        &self,
        object: Object,
        member: Member,
        kid: Kid,
        keys: impl Fn(&MemberTrust) -> &Keys,
    ) -> Result<&VerifyingKey, Refusal> {
        let key = self.members.get(&member).and_then(|trust| keys(trust).get(&kid));
        key.ok_or_else(|| Refusal::of(object, Reason::KeyUnknown).with("member", member))
    }

    fn to_value(&self) -> Value {
        let gateway = MapBuilder::new()
            .put(BUNDLE, bundle_to_value(&self.gateway.bundle))
            .put(LOG_KEYS, keys_to_value(&self.gateway.log_keys));
        let members: Vec<Value> = self.members.iter().map(|(code, trust)| trust.to_value(*code)).collect();
        MapBuilder::new()
            .put(DOMAIN, self.domain.to_string())
            .put(ROOT_THRESHOLD, self.roots.threshold() as u64)
            .put(ROOT_KEYS, self.roots.keys().iter().map(key_to_value).collect::<Vec<_>>())
            .put(GATEWAY, gateway.build())
            .put(MEMBERS, members)
            .build()
    }

    fn from_value(value: Value) -> Result<Self, Refusal> {
        let mut fields = Fields::open(OBJECT, value)?;
        let domain = fields.text(DOMAIN, 200)?.parse().map_err(|_| fields.wrong(DOMAIN, "not a domain"))?;
        let threshold = usize::try_from(fields.uint(ROOT_THRESHOLD)?).unwrap_or(usize::MAX);
        let roots = fields.array(ROOT_KEYS, MAX_ROOTS)?.into_iter().map(key_from_value).collect::<Result<_, _>>()?;
        let roots = Roots::new(threshold, roots).ok_or_else(|| fields.wrong(ROOT_KEYS, "not N of M root keys"))?;
        let mut gateway = fields.map(GATEWAY)?;
        let gateway_trust = GatewayTrust {
            bundle: bundle_from_value(gateway.array(BUNDLE, MAX_CAS)?)?,
            log_keys: keys_from_value(gateway.array(LOG_KEYS, MAX_KEYS)?)?,
        };
        gateway.finish()?;
        let mut members = BTreeMap::new();
        for value in fields.array(MEMBERS, 100)? {
            let (code, trust) = MemberTrust::from_value(value)?;
            if members.insert(code, trust).is_some() {
                return Err(fields.wrong(MEMBERS, "a member is there twice"));
            }
        }
        fields.finish()?;
        let list = Self { domain, roots, gateway: gateway_trust, members };
        list.check_single_use()?;
        Ok(list)
    }

    /// One key, one use: a key that signs two kinds of object, or for two members, could stand in for itself.
    ///
    /// # Errors
    /// OBJECT_MALFORMED, as whoever opens such a list would refuse it.
    pub fn check_single_use(&self) -> Result<(), Refusal> {
        let mut seen = BTreeSet::new();
        let members = self.members.values().flat_map(|trust| [&trust.consent_keys, &trust.statement_keys]);
        let keys = members.chain([&self.gateway.log_keys]).flat_map(Keys::values);
        for key in keys.chain(self.roots.keys()) {
            if !seen.insert(key.encoded()) {
                return Err(Refusal::malformed(OBJECT, "a key has more than one use"));
            }
        }
        Ok(())
    }
}

impl MemberTrust {
    fn to_value(&self, code: Member) -> Value {
        MapBuilder::new()
            .put(CODE, code.to_string())
            .put(MEMBER_BUNDLE, bundle_to_value(&self.bundle))
            .put(ENDPOINTS, self.endpoints.iter().map(|e| Value::from(e.as_str())).collect::<Vec<_>>())
            .put(CONSENT_KEYS, keys_to_value(&self.consent_keys))
            .put(STATEMENT_KEYS, keys_to_value(&self.statement_keys))
            .put(SEALING_KEY, self.sealing_key.to_vec())
            .put(CATEGORIES, self.categories.iter().map(|c| Value::from(c.number())).collect::<Vec<_>>())
            .put_some(SUSPENSION, self.suspension.as_ref().map(Suspension::to_value))
            .build()
    }

    fn from_value(value: Value) -> Result<(Member, Self), Refusal> {
        let mut fields = Fields::open(OBJECT, value)?;
        let code = fields.text(CODE, 2)?.parse().map_err(|_| Refusal::of(OBJECT, Reason::MemberUnknown))?;
        let endpoints = fields.array(ENDPOINTS, MAX_ENDPOINTS)?.into_iter().map(|endpoint| cbor::text(endpoint, 261));
        let endpoints =
            endpoints.collect::<Option<Vec<_>>>().ok_or_else(|| fields.wrong(ENDPOINTS, "not host:port"))?;
        if !endpoints.iter().all(|endpoint| is_host_and_port(endpoint)) {
            return Err(fields.wrong(ENDPOINTS, "not host:port"));
        }
        let categories = fields.array(CATEGORIES, Category::ALL.len())?;
        let categories = categories.iter().map(|c| cbor::uint(c).and_then(|c| Category::from_number(c).ok()));
        let categories: Option<Vec<_>> = categories.collect();
        let categories = categories.filter(|categories| categories.is_sorted_by(|a, b| a < b));
        let categories = categories.ok_or_else(|| fields.wrong(CATEGORIES, "not known categories, ascending"))?;
        let trust = Self {
            bundle: bundle_from_value(fields.array(MEMBER_BUNDLE, MAX_CAS)?)?,
            endpoints,
            consent_keys: keys_from_value(fields.array(CONSENT_KEYS, MAX_KEYS)?)?,
            statement_keys: keys_from_value(fields.array(STATEMENT_KEYS, MAX_KEYS)?)?,
            sealing_key: fields.bytes(SEALING_KEY)?,
            categories: categories.into_iter().collect(),
            suspension: fields.optional(SUSPENSION).map(Suspension::from_value).transpose()?,
        };
        fields.finish()?;
        Ok((code, trust))
    }
}

/// Keys by their ids.
pub fn keys(keys: impl IntoIterator<Item = VerifyingKey>) -> Keys {
    keys.into_iter().map(|key| (key.kid(), key)).collect()
}

fn is_host_and_port(text: &str) -> bool {
    matches!(text.rsplit_once(':'), Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0 && p.to_string() == port))
}

fn bundle_to_value(bundle: &Bundle) -> Value {
    Value::Array(bundle.iter().map(|der| Value::Bytes(der.clone())).collect())
}

fn bundle_from_value(items: Vec<Value>) -> Result<Bundle, Refusal> {
    let bundle =
        items.into_iter().map(|item| item.into_bytes().ok().filter(|der| (1..=MAX_CA_BYTES).contains(&der.len())));
    let bundle = bundle.collect::<Option<Bundle>>().filter(|bundle| !bundle.is_empty());
    bundle.ok_or_else(|| Refusal::malformed(OBJECT, "a bundle is one or more DER certificates"))
}

fn key_to_value(key: &VerifyingKey) -> Value {
    Value::Array(vec![key.suite().number().into(), Value::Bytes(key.encoded().to_vec())])
}

fn key_from_value(value: Value) -> Result<VerifyingKey, Refusal> {
    let malformed = || Refusal::malformed(OBJECT, "a key is [alg, bytes]");
    match value.as_array().map(Vec::as_slice) {
        Some([alg, Value::Bytes(encoded)]) => {
            let alg = alg.as_integer().and_then(|alg| i64::try_from(alg).ok()).ok_or_else(malformed)?;
            let suite = Suite::from_number(alg)
                .ok_or_else(|| Refusal::of(OBJECT, Reason::AlgorithmNotAllowed).with("alg", alg))?;
            VerifyingKey::new(suite, encoded).map_err(|_| malformed())
        }
        _ => Err(malformed()),
    }
}

fn keys_to_value(keys: &Keys) -> Value {
    Value::Array(keys.values().map(key_to_value).collect())
}

fn keys_from_value(items: Vec<Value>) -> Result<Keys, Refusal> {
    let parsed: Vec<_> = items.into_iter().map(key_from_value).collect::<Result<_, _>>()?;
    if parsed.iter().any(|key| key.suite() != Suite::Ed25519) {
        return Err(Refusal::malformed(OBJECT, "issuers and logs sign with Ed25519"));
    }
    let (count, keys) = (parsed.len(), keys(parsed));
    if keys.len() == count { Ok(keys) } else { Err(Refusal::malformed(OBJECT, "two keys have one kid")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::MAX_LIFE;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn key() -> VerifyingKey {
        SigningKey::generate(Suite::Ed25519).verifying_key().clone()
    }

    fn list(root: &SigningKey) -> TrustList {
        let member = MemberTrust {
            bundle: vec![vec![1, 2, 3]],
            endpoints: vec!["127.0.0.1:7500".into()],
            consent_keys: keys([key()]),
            statement_keys: keys([key()]),
            sealing_key: [4; 32],
            categories: Category::ALL.iter().copied().collect(),
            suspension: None,
        };
        TrustList {
            domain: "tongxing.test".parse().unwrap(),
            roots: Roots::new(1, vec![root.verifying_key().clone()]).unwrap(),
            gateway: GatewayTrust { bundle: vec![vec![9]], log_keys: keys([]) },
            members: BTreeMap::from([("44".parse().unwrap(), member)]),
        }
    }

    fn reopen(list: &TrustList, root: &SigningKey) -> Result<TrustList, Refusal> {
        let edition = Edition { version: 1, issued_at: NOW, expires_at: NOW.plus(MAX_LIFE) };
        TrustList::open(&list.seal(edition, &[root]), &list.roots).map(|(_, list)| list)
    }

    #[test]
    fn survives_a_round_trip_and_finds_keys_by_use() {
        let root = SigningKey::generate(Suite::Ed25519);
        let list = list(&root);
        assert_eq!(reopen(&list, &root).as_ref(), Ok(&list));
        let member = "44".parse().unwrap();
        let kid = *list.members[&member].consent_keys.keys().next().unwrap();
        assert!(list.consent_key(member, kid).is_ok());
        assert_eq!(list.statement_key(member, kid).unwrap_err().reason(), Reason::KeyUnknown);
        assert_eq!(list.consent_key(Member::PLATFORM, kid).unwrap_err().reason(), Reason::KeyUnknown);
        assert!(list.bundle(Realm::Member(Member::PLATFORM)).is_empty());
    }

    #[test]
    fn a_suspension_survives_a_round_trip_and_ends_by_itself() {
        let root = SigningKey::generate(Suite::Ed25519);
        let member: Member = "44".parse().unwrap();
        let mut list = list(&root);
        let until = NOW.plus(Suspension::MAX);
        let out = Suspension::new("its CA's key is in strange hands", NOW, until).unwrap();
        list.members.get_mut(&member).unwrap().suspension = Some(out.clone());
        assert_eq!(reopen(&list, &root).as_ref(), Ok(&list));
        let second = Duration::from_secs(1);
        let in_force = |now| list.suspension(Realm::Member(member), now).is_some();
        assert!(!in_force(NOW.minus(second)) && in_force(NOW) && in_force(until.minus(second)) && !in_force(until));
        assert!(list.suspension(Realm::Gateway, NOW).is_none());
    }

    #[test]
    fn a_suspension_has_a_reason_and_an_end() {
        let (day, long) = (Duration::from_secs(86_400), "x".repeat(201));
        for (reason, until, wrong) in [
            ("", NOW.plus(day), SuspensionError::Reason),
            ("two\nlines", NOW.plus(day), SuspensionError::Reason),
            (&long, NOW.plus(day), SuspensionError::Reason),
            ("a reason", NOW, SuspensionError::Life),
            ("a reason", NOW.plus(Suspension::MAX + Duration::from_secs(1)), SuspensionError::Life),
        ] {
            assert_eq!(Suspension::new(reason, NOW, until), Err(wrong), "{reason}");
        }
        // On the wire they are refused as well.
        let value = |until: UnixTime| {
            MapBuilder::new().put(REASON, "a reason").put(FROM, NOW.as_secs()).put(UNTIL, until.as_secs()).build()
        };
        assert!(Suspension::from_value(value(NOW.plus(day))).is_ok());
        assert_eq!(Suspension::from_value(value(NOW)).unwrap_err().reason(), Reason::ObjectMalformed);
    }

    #[test]
    fn a_key_has_one_use_and_a_bundle_is_never_empty() {
        let root = SigningKey::generate(Suite::Ed25519);
        let member = "44".parse().unwrap();
        let mut twice = list(&root);
        let entry = twice.members.get_mut(&member).unwrap();
        entry.statement_keys = entry.consent_keys.clone();
        assert_eq!(reopen(&twice, &root).unwrap_err().reason(), Reason::ObjectMalformed);
        let mut empty = list(&root);
        empty.members.get_mut(&member).unwrap().bundle.clear();
        assert_eq!(reopen(&empty, &root).unwrap_err().reason(), Reason::ObjectMalformed);
        for endpoint in ["localhost", ":7500", "localhost:0", "localhost:+7500", "localhost:07500"] {
            let mut nowhere = list(&root);
            nowhere.members.get_mut(&member).unwrap().endpoints = vec![endpoint.into()];
            assert_eq!(reopen(&nowhere, &root).unwrap_err().reason(), Reason::ObjectMalformed, "{endpoint}");
        }
        let mut rooted = list(&root);
        rooted.gateway.log_keys = keys([root.verifying_key().clone()]);
        assert_eq!(reopen(&rooted, &root).unwrap_err().reason(), Reason::ObjectMalformed);
        let mut device = list(&root);
        let key = SigningKey::generate(Suite::Esp256).verifying_key().clone();
        device.members.get_mut(&member).unwrap().consent_keys = keys([key]);
        assert_eq!(reopen(&device, &root).unwrap_err().reason(), Reason::ObjectMalformed);
    }
}
