//! Making the trust list and the policy: from a source that people read, to a signed edition that programs verify.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use peer::{
    config::{parse_hex, to_hex},
    credentials::check_private,
};
use proto::{
    envelope::{self, Edition, MAX_LIFE, Roots},
    identity::FederationDomain,
    member::Member,
    policy::Policy,
    refusal::Object,
    suite::{SigningKey, Suite, VerifyingKey},
    time::UnixTime,
    trust::{Bundle, GatewayTrust, MemberTrust, Suspension, TrustList, keys},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use crate::pki::write_public;

/// `trust-list.toml`: what the next edition of the trust list says. Paths are relative to it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrustSource {
    /// The federation's domain.
    pub domain: String,
    /// How many roots must sign the next list.
    pub threshold: usize,
    /// The root keys, hexadecimal.
    pub roots: Vec<String>,
    /// The gateway.
    pub gateway: GatewaySource,
    /// The members, by code.
    pub members: BTreeMap<String, MemberSource>,
}

/// The gateway's part of the source.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySource {
    /// Its CA certificates, one PEM file.
    pub bundle: PathBuf,
    /// The keys of its access logs, Ed25519, hexadecimal.
    #[serde(default)]
    pub log_keys: Vec<String>,
}

/// A member's part of the source.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MemberSource {
    /// Its CA certificates, one PEM file.
    pub bundle: PathBuf,
    /// Where its nodes are, `host:port`.
    pub endpoints: Vec<String>,
    /// What its consent tokens are signed with, Ed25519, hexadecimal.
    pub consent_keys: Vec<String>,
    /// What its statements are signed with, Ed25519, hexadecimal.
    pub statement_keys: Vec<String>,
    /// The X25519 key assisted lookups are sealed to, hexadecimal.
    pub sealing_key: String,
    /// The venue categories its backends may speak for.
    pub categories: Vec<String>,
    /// Whether it is out for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<SuspensionSource>,
}

/// A suspension in the source.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SuspensionSource {
    /// Why, for the other members to read.
    pub reason: String,
    /// When it begins, RFC 3339.
    pub from: String,
    /// When it ends, RFC 3339.
    pub until: String,
}

/// Signs a new edition of the trust list from its source. Returns its edition.
///
/// The version is the time in seconds, or one more than that of the edition in `out` if that is later.
pub fn sign_trust_list(
    source: &Path,
    roots: &[SigningKey],
    out: &Path,
    now: UnixTime,
    life: Duration,
) -> Result<Edition> {
    let list = read_trust_source(source)?;
    check_signers(&list.roots, roots)?;
    let held = read_version(Object::TrustList, out)?;
    let edition = edition(held, now, life)?;
    let bytes = list.seal(edition, &roots.iter().collect::<Vec<_>>());
    // What we signed must open the way others open it.
    TrustList::open(&bytes, &list.roots).map_err(|refusal| anyhow!("{}: {refusal}", source.display()))?;
    write_public(out, &bytes)?;
    Ok(edition)
}

/// The trust list that a source describes.
pub fn read_trust_source(source: &Path) -> Result<TrustList> {
    let text = fs::read_to_string(source).with_context(|| source.display().to_string())?;
    let parsed: TrustSource = toml::from_str(&text).with_context(|| source.display().to_string())?;
    let base = source.parent().unwrap_or(Path::new("."));
    parsed.resolve(base).with_context(|| source.display().to_string())
}

/// Signs a new edition of the policy from its TOML. Returns its edition.
pub fn sign_policy(
    toml: &str,
    roots: &[SigningKey],
    trusted: &Roots,
    out: &Path,
    now: UnixTime,
    life: Duration,
) -> Result<Edition> {
    Policy::from_toml(toml)?;
    check_signers(trusted, roots)?;
    let held = read_version(Object::Policy, out)?;
    let edition = edition(held, now, life)?;
    write_public(out, &Policy::seal(toml, edition, &roots.iter().collect::<Vec<_>>()))?;
    Ok(edition)
}

/// Reads a root's private key: PKCS#8 DER, mode 0600.
pub fn read_root_key(path: &Path) -> Result<SigningKey> {
    check_private(path)?;
    let der = fs::read(path).with_context(|| path.display().to_string())?;
    SigningKey::from_pkcs8(Suite::Ed25519, &der).map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// A public key as configuration and sources write it.
pub fn key_to_hex(key: &VerifyingKey) -> String {
    to_hex(key.encoded())
}

/// Root keys as configuration and sources write them.
pub fn parse_roots(threshold: usize, roots: &[String]) -> Result<Roots> {
    let keys = parse_keys("roots", roots)?;
    Roots::new(threshold, keys).with_context(|| format!("threshold = {threshold}: 1 to the number of distinct roots"))
}

impl TrustSource {
    /// The list it describes; paths in it start at `base`.
    pub(crate) fn resolve(&self, base: &Path) -> Result<TrustList> {
        let domain: FederationDomain = self.domain.parse().with_context(|| format!("domain = {}", self.domain))?;
        let mut members = BTreeMap::new();
        for (code, source) in &self.members {
            let member: Member = code.parse().with_context(|| format!("members.{code}"))?;
            members.insert(member, source.resolve(base).with_context(|| format!("members.{code}"))?);
        }
        let gateway = GatewayTrust {
            bundle: read_bundle(&base.join(&self.gateway.bundle)).context("gateway.bundle")?,
            log_keys: keys(parse_keys("gateway.log_keys", &self.gateway.log_keys)?),
        };
        let list = TrustList { domain, roots: parse_roots(self.threshold, &self.roots)?, gateway, members };
        list.check_single_use().map_err(|refusal| anyhow!("{refusal}"))?;
        Ok(list)
    }
}

impl MemberSource {
    fn resolve(&self, base: &Path) -> Result<MemberTrust> {
        let sealing_key = parse_hex(&self.sealing_key).and_then(|bytes| bytes.try_into().ok());
        let categories = self.categories.iter().map(|word| word.parse().with_context(|| format!("categories: {word}")));
        Ok(MemberTrust {
            bundle: read_bundle(&base.join(&self.bundle)).context("bundle")?,
            endpoints: self.endpoints.clone(),
            consent_keys: keys(parse_keys("consent_keys", &self.consent_keys)?),
            statement_keys: keys(parse_keys("statement_keys", &self.statement_keys)?),
            sealing_key: sealing_key.context("sealing_key: 64 hexadecimal digits")?,
            categories: categories.collect::<Result<BTreeSet<_>>>()?,
            suspension: self.suspension.as_ref().map(SuspensionSource::resolve).transpose().context("suspension")?,
        })
    }
}

impl SuspensionSource {
    fn resolve(&self) -> Result<Suspension> {
        let instant = |name, text: &str| text.parse().with_context(|| format!("{name} = {text}"));
        Ok(Suspension::new(&self.reason, instant("from", &self.from)?, instant("until", &self.until)?)?)
    }
}

fn read_bundle(path: &Path) -> Result<Bundle> {
    let pem = fs::read(path).with_context(|| path.display().to_string())?;
    let bundle: Bundle = CertificateDer::pem_slice_iter(&pem)
        .map(|der| der.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .with_context(|| path.display().to_string())?;
    if bundle.is_empty() {
        bail!("{}: no certificate in it", path.display());
    }
    Ok(bundle)
}

fn parse_keys(name: &str, texts: &[String]) -> Result<Vec<VerifyingKey>> {
    let parse = |text: &String| {
        let key = parse_hex(text).and_then(|bytes| VerifyingKey::new(Suite::Ed25519, &bytes).ok());
        key.with_context(|| format!("{name}: {text} is not 64 hexadecimal digits of an Ed25519 key"))
    };
    texts.iter().map(parse).collect()
}

fn check_signers(roots: &Roots, signers: &[SigningKey]) -> Result<()> {
    let known = signers.iter().filter(|signer| roots.keys().contains(signer.verifying_key())).count();
    if known < roots.threshold() {
        bail!("{known} of the keys given are roots, {} are needed", roots.threshold());
    }
    Ok(())
}

/// The version of the edition that stands in a file, whoever signed it; 0 if there is none.
pub(crate) fn read_version(object: Object, path: &Path) -> Result<u64> {
    match fs::read(path) {
        Ok(bytes) => match envelope::read_edition(object, &bytes) {
            Ok(edition) => Ok(edition.version),
            Err(refusal) => bail!("{}: {refusal}", path.display()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The edition that follows `held`.
pub(crate) fn edition(held: u64, now: UnixTime, life: Duration) -> Result<Edition> {
    if life > MAX_LIFE {
        bail!("a document lives {} days at most", MAX_LIFE.as_secs() / 86_400);
    }
    // Above the one before it; and by the clock, so that whoever lost the one before it does not go backwards.
    let version = now.as_secs().max(held + 1);
    Ok(Edition { version, issued_at: now, expires_at: now.plus(life) })
}
