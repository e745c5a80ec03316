//! What all vectors speak of: one moment, one trust list, one policy, one traveler's tokens.

use std::time::Duration;

use proto::{
    envelope::{Edition, Roots},
    statement::{LogHead, Status},
    suite::{VerifyingKey, sha256},
    terms::{Category, Kind, Purpose, Purposes, Scope},
    time::UnixTime,
    token::{Audience, Consent, Cti},
    trust::{self, GatewayTrust, MemberTrust, TrustList},
};

use crate::{keys, sign::Signer};

/// The moment: 2027-01-15T08:00:00Z.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// The policy of the vectors: small, and nobody's.
pub(crate) const POLICY: &str = include_str!("policy.toml");

/// Where the traveler stands, unless said.
pub(crate) const STATION: &str = "44/station/guangzhou-south";

/// That many seconds.
pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `N` bytes that look random and are not.
pub(crate) fn noise<const N: usize>(what: &str) -> [u8; N] {
    sha256(what.as_bytes())[..N].try_into().unwrap()
}

/// Two of the first three roots.
pub(crate) fn roots(signer: &Signer) -> Roots {
    Roots::new(2, ["root-1", "root-2", "root-3"].map(|name| public(signer, name)).to_vec()).unwrap()
}

/// A key's public half.
pub(crate) fn public(signer: &Signer, name: &str) -> VerifyingKey {
    signer.key(name).verifying_key().clone()
}

/// A version and a life of a day.
pub(crate) fn edition(version: u64) -> Edition {
    Edition { version, issued_at: NOW.minus(secs(3600)), expires_at: NOW.plus(secs(82_800)) }
}

/// The trust list: Guangdong with an old and a new consent key, Beijing, 兵团 with nothing but a consent key.
pub(crate) fn trust_list(signer: &Signer) -> TrustList {
    let keys = |names: &[&str]| trust::keys(names.iter().map(|name| public(signer, name)));
    let ca = |realm: &str| vec![format!("stands for the CA certificate of {realm}.tongxing.test").into_bytes()];
    let member = |code: &str, consent: &[&str], statement: &[&str]| MemberTrust {
        bundle: ca(code),
        endpoints: vec![],
        consent_keys: keys(consent),
        statement_keys: keys(statement),
        sealing_key: keys::sealing_key(&format!("{code}-sealing")),
        categories: [].into(),
        suspension: None,
    };
    let guangdong = MemberTrust {
        endpoints: vec!["node-1.44.tongxing.test:7500".into(), "[2001:db8::44]:443".into()],
        categories: [Category::Station, Category::Hospital].into(),
        ..member("44", &["44-consent", "44-consent-next"], &["44-statement"])
    };
    let members = [
        ("11", member("11", &["11-consent"], &["11-statement"])),
        ("44", guangdong),
        ("66", member("66", &["66-consent"], &[])),
    ];
    TrustList {
        domain: "tongxing.test".parse().unwrap(),
        roots: roots(signer),
        gateway: GatewayTrust { bundle: ca("gateway"), log_keys: keys(&["gateway-log"]) },
        members: members.map(|(code, trust)| (code.parse().unwrap(), trust)).into(),
    }
}

/// A traveler's own phone, at any station, for everything, for an hour from five minutes ago.
pub(crate) fn own(signer: &Signer) -> Consent {
    Consent {
        issuer: "44".parse().unwrap(),
        audience: Audience::Category(Category::Station),
        issued_at: NOW.minus(secs(300)),
        expires_at: NOW.plus(secs(3300)),
        cti: Cti(noise("the own token's cti")),
        device_key: Some(public(signer, "device-a")),
        purposes: Purposes::new([Purpose::Entry, Purpose::Travel]).unwrap(),
        scope: Scope::ALL,
        kind: Kind::Own,
    }
}

/// A printed code.
pub(crate) fn paper(signer: &Signer) -> Consent {
    Consent {
        audience: Audience::Anywhere,
        cti: Cti(noise("the paper token's cti")),
        device_key: None,
        purposes: Purposes::ALL,
        scope: Scope::LEVEL,
        kind: Kind::Paper,
        ..own(signer)
    }
}

/// Staff of one venue asked.
pub(crate) fn assisted(signer: &Signer) -> Consent {
    Consent {
        audience: Audience::Venue(STATION.parse().unwrap()),
        cti: Cti(noise("the assisted token's cti")),
        kind: Kind::Assisted,
        device_key: None,
        ..own(signer)
    }
}

/// What home says of a green traveler's token.
pub(crate) fn green(token: [u8; 16]) -> Status {
    Status {
        issuer: "44".parse().unwrap(),
        issued_at: NOW.minus(secs(60)),
        expires_at: NOW.plus(secs(540)),
        token,
        head: LogHead { epoch: noise("the epoch of 44"), seq: 42 },
        label: "绿码".into(),
        rule: None,
        authority: None,
        assigned_at: None,
        tests: vec![],
        doses: vec![],
        visits: vec![],
        hint: None,
        offline_until: NOW.plus(secs(540)),
    }
}
