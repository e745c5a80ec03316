//! Everything a federation needs on disk: keys, certificates, trust list, policy, configuration.
//!
//! Keys and CAs are made once; leaves are renewed when a third of their life has gone; trust list and policy are signed
//! anew at every call. So a second start on day 8 or on day 90 works, and so does a federation that runs for months.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use gateway::{
    documents::{self, GatewaySource, MemberSource, TrustSource},
    pki::{self, Authority, Certificate, LEAF_LIFE, Office},
    record::LogTool,
};
use peer::{
    config::MAX_GATEWAYS,
    credentials::{CredentialFiles, Credentials},
    files,
};
use proto::{
    envelope::MAX_LIFE,
    identity::{PeerId, Realm},
    member::Member,
    suite::{SigningKey, Suite},
    time::UnixTime,
    trust::MAX_KEYS,
};
use province_stub::keys::{KeyFiles, Keys, PublicKeys};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::warn;

use crate::{
    addresses::{Addresses, Pair},
    external::{self, Address, Externals},
    layout::{DOMAIN, Layout},
    options::{Options, PolicyName},
    venues,
};

const ROOTS: usize = 3;
const THRESHOLD: usize = 2;
const DEFAULT_PEOPLE: u32 = 200;

/// A feed that every member has, with what its node's configuration lets it bring.
struct Feed {
    name: &'static str,
    evidence: &'static [&'static str],
    authorities: &'static [&'static str],
}

const FEEDS: [Feed; 2] = [
    Feed { name: "lab-1", evidence: &["test", "vaccination"], authorities: &["health-commission"] },
    Feed {
        name: "cdc-1",
        evidence: &["stay", "case", "contact", "risk-area"],
        authorities: &["cdc", "joint-mechanism"],
    },
];

/// Which federation a directory holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The members' codes.
    pub members: Vec<String>,
    /// People seeded per member.
    pub people: u32,
    /// Gateway replicas.
    pub gateways: u8,
    /// The policy.
    pub policy: PolicyName,
    /// Whose nodes are not started here, and where they are.
    #[serde(default)]
    pub external: Externals,
}

/// What `federation.toml` says: the plan and where it listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    /// The plan.
    pub plan: Plan,
    /// The addresses.
    pub addresses: Addresses,
}

/// There is no federation in the directory.
#[derive(Debug, Error)]
#[error("{}: not prepared yet; start it with `cargo run` or `cargo run -- init`", .0.display())]
pub struct NotPrepared(PathBuf);

impl Plan {
    /// What is asked for; what is not said stays as the directory was prepared, or gets its default.
    pub fn of(options: &Options, layout: &Layout) -> Result<Self> {
        let before = if layout.federation().exists() { Some(Prepared::read(layout)?.plan) } else { None };
        let members = match (&options.members, &before) {
            (Some(members), _) => members.iter().map(Member::to_string).collect(),
            (None, Some(before)) => before.members.clone(),
            (None, None) => Member::all().map(|member| member.to_string()).collect(),
        };
        let before = before.as_ref();
        Ok(Self {
            members,
            people: options.people.or(before.map(|plan| plan.people)).unwrap_or(DEFAULT_PEOPLE),
            gateways: options.gateways.or(before.map(|plan| plan.gateways)).unwrap_or(1),
            policy: options.policy.or(before.map(|plan| plan.policy)).unwrap_or_default(),
            external: external::of(options.external.as_deref(), before.map(|plan| &plan.external)),
        })
    }

    /// The members whose nodes are started here.
    ///
    /// # Errors
    /// As [`Plan::members`]; and if a foreign node is of a member that is not here.
    pub fn own_members(&self) -> Result<Vec<Member>> {
        let mut members = self.members()?;
        for code in self.external.keys() {
            if !members.iter().any(|member| member.to_string() == *code) {
                bail!("--external {code}: the member is not in this federation; `--external none` takes it back");
            }
        }
        members.retain(|member| !self.is_external(*member));
        Ok(members)
    }

    /// Whether a member's node is somebody else's.
    pub fn is_external(&self, member: Member) -> bool {
        self.external.contains_key(&member.to_string())
    }

    /// Where a member's node is, if it is somebody else's.
    ///
    /// # Errors
    /// If the address is none.
    pub fn external(&self, member: Member) -> Result<Option<Address>> {
        let address = self.external.get(&member.to_string());
        address.map(|text| text.parse().map_err(|error| anyhow::anyhow!("external {member}: {error}"))).transpose()
    }

    /// The members.
    ///
    /// # Errors
    /// If a code is not a member's, or there is none.
    pub fn members(&self) -> Result<Vec<Member>> {
        let members = self.members.iter().map(|code| code.parse().with_context(|| format!("member {code}")));
        let mut members: Vec<Member> = members.collect::<Result<_>>()?;
        members.sort_unstable();
        members.dedup();
        if members.is_empty() {
            bail!("a federation has at least one member");
        }
        Ok(members)
    }

    /// Everybody's addresses: those that were bound here, and the foreign ones.
    fn with_foreign(&self, bound: &Addresses) -> Result<Addresses> {
        let mut addresses = bound.clone();
        for member in self.members()? {
            if let Some(external) = self.external(member)? {
                // Whoever runs it chooses where it is looked at.
                let private = (Ipv4Addr::LOCALHOST, 0).into();
                addresses.nodes.insert(member.to_string(), Pair { public: external.to_string(), private });
            }
        }
        Ok(addresses)
    }
}

impl Prepared {
    /// Reads what a directory holds.
    pub fn read(layout: &Layout) -> Result<Self> {
        let path = layout.federation();
        let text = fs::read_to_string(&path).map_err(|_| NotPrepared(path.clone()))?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}

/// A directory that nobody else prepares or runs while this lives: a second start would move the first one's ports and
/// keys from under it.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] fs::File);

impl Lock {
    /// Makes the directory if need be and locks it.
    ///
    /// # Errors
    /// If another process has it.
    pub fn take(layout: &Layout) -> Result<Self> {
        let dir = layout.dir();
        files::create_private_dir(dir).with_context(|| dir.display().to_string())?;
        let path = layout.lock();
        let file = fs::File::create(&path).with_context(|| path.display().to_string())?;
        file.try_lock().map_err(|_| {
            let dir = layout.dir().display();
            anyhow::anyhow!("{dir} is in use by another process; stop that one, or give this one its own --dir")
        })?;
        Ok(Self(file))
    }
}

/// Makes what is missing, renews what is due, signs new editions of trust list and policy. Whoever calls this holds the
/// directory's [`Lock`].
pub fn prepare(layout: &Layout, plan: &Plan, addresses: &Addresses, now: UnixTime) -> Result<Prepared> {
    let members = plan.members()?;
    plan.own_members()?;
    let addresses = plan.with_foreign(addresses)?;
    let roots = roots(layout)?;
    let realms = members.iter().map(|member| Realm::Member(*member)).chain([Realm::Gateway]);
    let office = Office::new(layout.dir(), layout.domain());
    let authorities: BTreeMap<Realm, Authority> =
        realms.map(|realm| Ok((realm, office.found(realm, now)?))).collect::<Result<_>>()?;
    issue_certificates(layout, plan, &members, &office, &authorities, now)?;
    authorities.iter().try_for_each(|(realm, authority)| office.keep_crl(authority, *realm, now))?;
    let root_keys: Vec<_> = roots.iter().map(|root| documents::key_to_hex(root.verifying_key())).collect();
    write_trust_source(layout, plan, &members, &addresses, &root_keys)?;
    documents::sign_trust_list(&layout.trust_source(), &roots, &layout.trust_list(), now, MAX_LIFE)?;
    let trusted = documents::parse_roots(THRESHOLD, &root_keys)?;
    documents::sign_policy(&plan.policy.toml(), &roots, &trusted, &layout.policy(), now, MAX_LIFE)?;
    write_configurations(layout, plan, &members, &addresses, &root_keys)?;
    let prepared = Prepared { plan: plan.clone(), addresses };
    pki::write_public(&layout.federation(), toml::to_string(&prepared)?.as_bytes())?;
    Ok(prepared)
}

fn roots(layout: &Layout) -> Result<Vec<SigningKey>> {
    let root = |number| {
        let path = layout.root(number);
        if !path.exists() {
            pki::write_private(&path, &SigningKey::generate(Suite::Ed25519).to_pkcs8())?;
        }
        documents::read_root_key(&path)
    };
    (1..=ROOTS).map(root).collect()
}

/// The public half of the conformance kit's log key: it plays a gateway that delivers access records, and must not go on
/// with a log of the real one.
fn kit_log_key(layout: &Layout) -> Result<String> {
    let path = layout.kit_log_key();
    if !path.exists() {
        pki::write_private(&path, &SigningKey::generate(Suite::Ed25519).to_pkcs8())?;
    }
    let key = SigningKey::from_pkcs8(Suite::Ed25519, &fs::read(&path)?);
    Ok(documents::key_to_hex(key.with_context(|| path.display().to_string())?.verifying_key()))
}

fn issue_certificates(
    layout: &Layout,
    plan: &Plan,
    members: &[Member],
    office: &Office,
    authorities: &BTreeMap<Realm, Authority>,
    now: UnixTime,
) -> Result<()> {
    let dialled_by = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let issue = |peer: Option<PeerId>, dir: &Path, dialled_by: &[String]| -> Result<()> {
        let peer = peer.context("a name of ours is not one")?;
        let authority = authorities.get(&peer.realm()).context("a peer's CA is missing")?;
        if !due(layout, authority, dir, dialled_by, now) {
            return Ok(());
        }
        if is_revoked(office, &peer)? {
            warn!(%peer, "its certificate is revoked: it gets no new one by itself");
            return Ok(());
        }
        office.issue_by(authority, &peer, dialled_by, now, LEAF_LIFE)?.write(dir)
    };
    for replica in 1..=usize::from(plan.gateways) {
        issue(PeerId::gateway(&replica.to_string()), &layout.gateway(replica), &dialled_by)?;
    }
    for member in members {
        let external = plan.external(*member)?.map(|address| address.host().to_owned());
        let names: Vec<_> = dialled_by.iter().cloned().chain(external).collect();
        issue(PeerId::node(*member, "1"), &layout.node(*member), &names)?;
        issue(PeerId::backend(*member, "app"), &layout.backend(*member), &[])?;
        issue(PeerId::operator(*member, "li"), &layout.operator(*member), &[])?;
        for feed in &FEEDS {
            issue(PeerId::feed(*member, feed.name), &layout.feed(*member, feed.name), &[])?;
        }
    }
    for venue in venues::of(members) {
        issue(Some(PeerId::venue(venue.clone())), &layout.venue(&venue), &[])?;
    }
    Ok(())
}

/// Whether a certificate is missing, unusable, another CA's, not good for a name it is dialled by, or has lived a third of
/// its life.
fn due(layout: &Layout, authority: &Authority, dir: &Path, dialled_by: &[String], now: UnixTime) -> bool {
    let files = CredentialFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
    let certificate = files.certificate.clone();
    let usable = Credentials::open(files, &layout.domain()).is_ok() && authority.issued(&certificate);
    let good = Certificate::read(&certificate).is_ok_and(|certificate| {
        let lives = certificate.not_after >= now.plus(LEAF_LIFE / 3 * 2);
        lives && dialled_by.iter().all(|name| certificate.dialled_by.contains(name))
    });
    !(usable && good)
}

/// Whether the last certificate of a peer was taken back: a renewal that gave it another would be a pardon. Whoever is to
/// have one again is issued one.
fn is_revoked(office: &Office, peer: &PeerId) -> Result<bool> {
    let id = office.domain().spiffe_id(peer);
    let entries = office.register(peer.realm()).entries()?;
    Ok(entries.iter().rev().find(|entry| entry.id == id).is_some_and(|entry| entry.revoked.is_some()))
}

fn write_trust_source(
    layout: &Layout,
    plan: &Plan,
    members: &[Member],
    addresses: &Addresses,
    roots: &[String],
) -> Result<()> {
    let before = read_trust_source(layout)?;
    // Who was suspended stays so: the next edition is not an amnesty.
    let suspension = |code: &str| before.as_ref()?.members.get(code)?.suspension.clone();
    let bundle = |realm| layout.ca(realm).0.strip_prefix(layout.dir()).map(Path::to_owned);
    let mut sources = BTreeMap::new();
    for member in members {
        let files = KeyFiles::under(&layout.node(*member));
        let keys = PublicKeys::of(&Keys::make(&files)?, &files)?;
        let address = addresses.nodes.get(&member.to_string()).context("a node has no address")?;
        let source = MemberSource {
            bundle: bundle(Realm::Member(*member))?,
            endpoints: vec![address.public.clone()],
            consent_keys: keys.consent_keys.into(),
            statement_keys: keys.statement_keys.into(),
            sealing_key: keys.sealing_key,
            categories: venues::backend_categories().map(|category| category.to_string()).collect(),
            suspension: suspension(&member.to_string()),
        };
        sources.insert(member.to_string(), source);
    }
    let log_key = |replica| -> Result<String> {
        let data_dir = layout.gateway(replica).join("data");
        let key = LogTool::ensure_key(&data_dir).with_context(|| data_dir.display().to_string())?;
        Ok(documents::key_to_hex(&key))
    };
    let mut log_keys = (1..=usize::from(plan.gateways)).map(log_key).collect::<Result<Vec<_>>>()?;
    log_keys.push(kit_log_key(layout)?);
    // Keys of logs that are no more stay, the latest of them: what they signed is to be verified still.
    let former = before.iter().flat_map(|before| &before.gateway.log_keys).filter(|key| !log_keys.contains(key));
    log_keys.extend(former.take(MAX_KEYS.saturating_sub(log_keys.len())).cloned().collect::<Vec<_>>());
    let source = TrustSource {
        domain: DOMAIN.to_owned(),
        threshold: THRESHOLD,
        roots: roots.to_vec(),
        gateway: GatewaySource { bundle: bundle(Realm::Gateway)?, log_keys },
        members: sources,
    };
    // What says the same already is left as it is written: its comments, and the audit file that knows its hash.
    let text = toml::to_string(&source)?;
    match before {
        Some(before) if toml::to_string(&before)? == text => Ok(()),
        _ => pki::write_public(&layout.trust_source(), text.as_bytes()),
    }
}

/// The source as it stands.
fn read_trust_source(layout: &Layout) -> Result<Option<TrustSource>> {
    let path = layout.trust_source();
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).map(Some).with_context(|| path.display().to_string())
}

/// Each program alone can be started from its file: `cargo run -p gateway -- serve --config …`.
fn write_configurations(
    layout: &Layout,
    plan: &Plan,
    members: &[Member],
    addresses: &Addresses,
    roots: &[String],
) -> Result<()> {
    let common = |up: &str| {
        let roots = quoted(roots.iter().map(String::as_str));
        format!(
            "\n[identity]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\n[trust]\nlist = \"{up}trust-list.cose\"\n\
             policy = \"{up}policy.cose\"\ncrls = \"{up}crl\"\nroots = [{roots}]\nthreshold = {THRESHOLD}\n"
        )
    };
    // The nodes hear of new editions from the gateway as well, as in a federation whose parts are apart.
    let gateways = quoted(addresses.gateways.iter().take(MAX_GATEWAYS).map(|pair| pair.public.as_str()));
    let listens = |public: &str, private: SocketAddr| {
        format!("domain = \"{DOMAIN}\"\nlisten = \"{public}\"\nprivate_listen = \"{private}\"\ndata_dir = \"data\"\n")
    };
    for (pair, replica) in addresses.gateways.iter().zip(1..) {
        let text = format!("{}replicas = {}\n{}", listens(&pair.public, pair.private), plan.gateways, common("../"));
        pki::write_public(&layout.gateway(replica).join("gateway.toml"), text.as_bytes())?;
    }
    for member in members {
        let pair = addresses.nodes.get(&member.to_string()).context("a node has no address")?;
        let listen =
            plan.external(*member)?.map_or_else(|| pair.public.clone(), |external| external.listen().to_string());
        let keys = "\n[keys]\nconsent = \"consent.key\"\nstatement = \"statement.key\"\nsecret = \"secret.key\"\nsealing = \"sealing.key\"\nat_rest = [\"at-rest.key\"]\n";
        // The app's backend is the member's platform too, and pushes codes.
        let text = format!(
            "member = \"{member}\"\nname = \"1\"\nplatforms = [\"app\"]\nfeeds = [\n{}]\n{}{}gateways = [{gateways}]\n{keys}",
            FEEDS.iter().map(feed_rights).collect::<String>(),
            listens(&listen, pair.private),
            common("../../")
        );
        pki::write_public(&layout.node(*member).join("node.toml"), text.as_bytes())?;
        for feed in &FEEDS {
            let public = &pair.public;
            let text =
                format!("member = \"{member}\"\ndomain = \"{DOMAIN}\"\nnode = \"{public}\"\n{}", common("../../"));
            pki::write_public(&layout.feed(*member, feed.name).join("feed.toml"), text.as_bytes())?;
        }
    }
    Ok(())
}

/// What a node's configuration says of a feed.
fn feed_rights(feed: &Feed) -> String {
    let list = |words: &[&'static str]| quoted(words.iter().copied());
    let (evidence, authorities) = (list(feed.evidence), list(feed.authorities));
    format!("  {{ name = \"{}\", evidence = [{evidence}], authorities = [{authorities}] }},\n", feed.name)
}

/// The inside of a TOML array of texts.
fn quoted<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(", ")
}
