//! `node.toml`: raw, then validated. A bad value names file, key, value and the mend.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use peer::{
    config::{ConfigError, IdentitySection, TrustSection, private_listener, read, relative_to, wrong},
    credentials::CredentialFiles,
    limits::{Check, LimitsSection, ServerLimits},
    trust::TrustFiles,
};
use proto::{
    identity::{FederationDomain, PeerId},
    member::Member,
    policy::EvidenceKind,
    venue::is_name,
};
use serde::Deserialize;

use crate::{
    intake::{FeedRights, Feeds},
    keys::{KeyFiles, KeySource},
    push::Platforms,
    vault::MAX_KEYS,
    watch::WatchLimits,
};

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The member whose node this is.
    pub member: Member,
    /// Which of its nodes: the certificate must say the same.
    pub id: PeerId,
    /// The federation's domain.
    pub domain: FederationDomain,
    /// Where peers connect.
    pub listen: SocketAddr,
    /// Where operators look: the machine's own, unless it is said that it lies beyond the loopback interface.
    pub private_listen: SocketAddr,
    /// This node's own directory.
    pub data_dir: PathBuf,
    /// Certificate and key.
    pub credentials: CredentialFiles,
    /// Trust list and policy.
    pub trust: TrustFiles,
    /// The node's secrets.
    pub keys: KeyFiles,
    /// The server that its store is on, if it is not in [`data_dir`](Self::data_dir).
    pub postgres: Option<PostgresConfig>,
    /// Bounds.
    pub limits: ServerLimits,
    /// Those of the change stream.
    pub watch: WatchLimits,
    /// What each feed may bring.
    pub feeds: Feeds,
    /// The backends that may push codes.
    pub platforms: Platforms,
}

/// A PostgreSQL server.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// Its URL, which may hold a password.
    pub url: KeySource,
    /// Bounds.
    pub limits: PostgresLimits,
}

/// Bounds of what a PostgreSQL server is asked for.
#[derive(Clone, Copy, Debug)]
pub struct PostgresLimits {
    /// Connections of this node, half of them for what changes something.
    pub max_connections: u32,
    /// How long a call waits for one of them.
    pub acquire_timeout: Duration,
    /// How long one statement may take, and wait for another one.
    pub statement_timeout: Duration,
}

impl Default for PostgresLimits {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self { max_connections: 16, acquire_timeout: second, statement_timeout: second }
    }
}

/// How many feeds, and how many platforms, there may be.
const MAX_PEERS: usize = 64;

/// The form of a peer's name.
const NAME: &str = "1 or more of a-z, 0-9 and inner '-'";

/// Streams of one connection unless it is said: the gateway asks for everybody over few connections.
const STREAMS: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    member: String,
    name: String,
    domain: String,
    listen: SocketAddr,
    private_listen: SocketAddr,
    #[serde(default)]
    private_beyond_loopback: bool,
    data_dir: PathBuf,
    #[serde(default)]
    platforms: Vec<String>,
    #[serde(default)]
    feeds: Vec<FeedEntry>,
    identity: IdentitySection,
    trust: TrustSection,
    keys: KeysSection,
    #[serde(default)]
    store: StoreSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    watch: WatchSection,
}

/// An entry of `feeds`: what one feed may bring.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedEntry {
    name: String,
    evidence: Vec<String>,
    authorities: Vec<String>,
}

/// `[watch]`: the change stream.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WatchSection {
    max_streams: usize,
    #[serde(with = "humantime_serde")]
    max_wait: Duration,
}

/// `[store]`: where what the node remembers is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StoreSection {
    postgres: Option<String>,
    max_connections: usize,
    #[serde(with = "humantime_serde")]
    acquire_timeout: Duration,
    #[serde(with = "humantime_serde")]
    statement_timeout: Duration,
}

/// `[keys]`: the node's secrets, mode 0600.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysSection {
    consent: PathBuf,
    statement: PathBuf,
    secret: PathBuf,
    sealing: PathBuf,
    at_rest: Vec<String>,
}

/// What stands before the name of an environment variable, where a file's path may stand too.
const VARIABLE: &str = "env:";

impl Config {
    /// Reads and checks a file. Relative paths start at its own directory.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let document: Document = read(path)?;
        let member: Member = document.member.parse().map_err(|error| wrong(path, "member", &document.member, error))?;
        let id = PeerId::node(member, &document.name)
            .ok_or_else(|| wrong(path, "name", &document.name, "1 or more of a-z, 0-9 and inner '-'"))?;
        let domain: FederationDomain =
            document.domain.parse().map_err(|error| wrong(path, "domain", &document.domain, error))?;
        let data_dir = relative_to(path, &document.data_dir);
        Ok(Self {
            member,
            id,
            trust: document.trust.files(path, &domain, data_dir.join("held"))?,
            credentials: document.identity.files(path),
            keys: document.keys.files(path)?,
            postgres: document.store.check(path)?,
            limits: document.limits.check(path, STREAMS)?,
            watch: document.watch.check(path)?,
            feeds: check_feeds(path, document.feeds)?,
            platforms: check_platforms(path, document.platforms)?,
            domain,
            listen: document.listen,
            private_listen: private_listener(path, document.private_listen, document.private_beyond_loopback)?,
            data_dir,
        })
    }

    /// The file its store is in, if it is on no server.
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("node.db")
    }
}

fn check_platforms(path: &Path, platforms: Vec<String>) -> Result<Platforms, ConfigError> {
    if platforms.len() > MAX_PEERS {
        return Err(wrong(path, "platforms", format!("{} names", platforms.len()), format!("at most {MAX_PEERS}")));
    }
    match platforms.iter().find(|name| !is_name(name)) {
        Some(name) => Err(wrong(path, "platforms", name, NAME)),
        None => Ok(platforms.into_iter().collect()),
    }
}

fn check_feeds(path: &Path, entries: Vec<FeedEntry>) -> Result<Feeds, ConfigError> {
    if entries.len() > MAX_PEERS {
        return Err(wrong(path, "feeds", format!("{} feeds", entries.len()), format!("at most {MAX_PEERS}")));
    }
    let mut feeds = Feeds::new();
    for FeedEntry { name, evidence, authorities } in entries {
        if !is_name(&name) {
            return Err(wrong(path, "feeds.name", name, NAME));
        }
        let kind = |word: &String| {
            let known = EvidenceKind::ALL.map(EvidenceKind::word).join(", ");
            EvidenceKind::from_word(word).ok_or_else(|| wrong(path, "feeds.evidence", word, format!("one of {known}")))
        };
        let evidence = evidence.iter().map(kind).collect::<Result<_, _>>()?;
        if let Some(kind) = authorities.iter().find(|kind| !is_name(kind)) {
            return Err(wrong(path, "feeds.authorities", kind, format!("the kind of an authority: {NAME}")));
        }
        let rights = FeedRights { evidence, authorities: authorities.into_iter().collect() };
        if feeds.insert(name.clone(), rights).is_some() {
            return Err(wrong(path, "feeds.name", name, "each feed once"));
        }
    }
    Ok(feeds)
}

impl Default for WatchSection {
    fn default() -> Self {
        let WatchLimits { max_streams, max_wait } = WatchLimits::default();
        Self { max_streams, max_wait }
    }
}

impl Default for StoreSection {
    fn default() -> Self {
        let PostgresLimits { max_connections, acquire_timeout, statement_timeout } = PostgresLimits::default();
        Self { postgres: None, max_connections: max_connections as usize, acquire_timeout, statement_timeout }
    }
}

impl StoreSection {
    fn check(self, path: &Path) -> Result<Option<PostgresConfig>, ConfigError> {
        let check = Check { path, section: "store" };
        let second = Duration::from_secs(1);
        let limits = PostgresLimits {
            max_connections: check.within("max_connections", self.max_connections, 2, 200)? as u32,
            acquire_timeout: check.lasts("acquire_timeout", self.acquire_timeout, second * 10)?,
            statement_timeout: check.lasts("statement_timeout", self.statement_timeout, second * 30)?,
        };
        let Some(url) = self.postgres else { return Ok(None) };
        Ok(Some(PostgresConfig { url: source(path, "store.postgres", &url)?, limits }))
    }
}

impl WatchSection {
    fn check(self, path: &Path) -> Result<WatchLimits, ConfigError> {
        let check = Check { path, section: "watch" };
        Ok(WatchLimits {
            max_streams: check.within("max_streams", self.max_streams, 1, 10_000)?,
            max_wait: check.lasts("max_wait", self.max_wait, Duration::from_secs(60))?,
        })
    }
}

impl KeysSection {
    fn files(&self, config: &Path) -> Result<KeyFiles, ConfigError> {
        if !(1..=MAX_KEYS).contains(&self.at_rest.len()) {
            let (count, mend) = (format!("{} keys", self.at_rest.len()), format!("1 to {MAX_KEYS} keys"));
            return Err(wrong(config, "keys.at_rest", count, mend));
        }
        let at_rest = self.at_rest.iter().map(|text| source(config, "keys.at_rest", text));
        Ok(KeyFiles {
            consent: relative_to(config, &self.consent),
            statement: relative_to(config, &self.statement),
            secret: relative_to(config, &self.secret),
            sealing: relative_to(config, &self.sealing),
            at_rest: at_rest.collect::<Result<_, _>>()?,
        })
    }
}

/// A file, or `env:NAME`.
fn source(config: &Path, key: &str, text: &str) -> Result<KeySource, ConfigError> {
    let Some(name) = text.strip_prefix(VARIABLE) else {
        return Ok(KeySource::File(relative_to(config, Path::new(text))));
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(wrong(config, key, text, "env: and the name of an environment variable, A-Z, a-z, 0-9 and '_'"));
    }
    Ok(KeySource::Variable(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use proto::suite::{SigningKey, Suite};

    use super::*;

    fn config(replace: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.toml");
        let root = peer::config::to_hex(SigningKey::generate(Suite::Ed25519).verifying_key().encoded());
        let mut text = format!(
            "member = \"44\"\nname = \"1\"\ndomain = \"tongxing.test\"\nlisten = \"127.0.0.1:7500\"\n\
             private_listen = \"127.0.0.1:7901\"\ndata_dir = \"data\"\n\
             [identity]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
             [trust]\nlist = \"t\"\npolicy = \"p\"\nroots = [\"{root}\"]\nthreshold = 1\n\
             [keys]\nconsent = \"consent.key\"\nstatement = \"statement.key\"\nsecret = \"secret\"\nsealing = \"s\"\n\
             at_rest = [\"new.key\", \"env:OLD_KEY\"]\n\
             [store]\npostgres = \"env:URL\"\nmax_connections = 2\nacquire_timeout = \"10s\"\n\
             statement_timeout = \"30s\"\n\
             [limits]\nmax_request_bytes = 16384\nmax_duration = \"2s\"\n",
        );
        for (from, to) in replace {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    #[test]
    fn defaults_fill_what_is_not_said_and_paths_start_at_the_file() {
        let config = config(&[]).unwrap();
        assert_eq!(config.id.to_string(), "44/node/1");
        assert_eq!(config.limits.max_streams_per_connection, 256);
        assert!(config.feeds.is_empty() && config.platforms.is_empty());
        assert!(config.data_dir.ends_with("data") && config.data_dir.is_absolute());
        assert!(config.keys.secret.ends_with("secret") && config.keys.secret.is_absolute());
        let [KeySource::File(new), KeySource::Variable(old)] = &config.keys.at_rest[..] else { panic!("{config:?}") };
        assert!(new.ends_with("new.key") && new.is_absolute() && old == "OLD_KEY");
    }

    #[test]
    fn a_server_is_named_or_there_is_none() {
        let named = config(&[]).unwrap().postgres.unwrap();
        assert_eq!(named.url, KeySource::Variable("URL".into()));
        assert_eq!((named.limits.max_connections, named.limits.statement_timeout.as_secs()), (2, 30));
        assert!(config(&[("postgres = \"env:URL\"\n", "")]).unwrap().postgres.is_none());
        let KeySource::File(path) = config(&[("env:URL", "url")]).unwrap().postgres.unwrap().url else { panic!() };
        assert!(path.ends_with("url") && path.is_absolute());
        config(&[("max_connections = 2", "max_connections = 200")]).unwrap();
    }

    #[test]
    fn a_ring_has_eight_keys_at_most() {
        config(&[("\"new.key\", ", &"\"new.key\", ".repeat(7))]).unwrap();
    }

    #[test]
    fn a_bad_value_is_named_with_its_key_and_mend() {
        let nine = ["\"localhost:7443\""; 9].join(", ");
        let many = (0..65).map(|n| format!("\"app-{n}\"")).collect::<Vec<_>>().join(", ");
        let entry = |name: &str, evidence: &str, authority: &str| {
            format!("{{ name = \"{name}\", evidence = [\"{evidence}\"], authorities = [\"{authority}\"] }}")
        };
        let feed = |name, evidence, authority| format!("feeds = [{}]\ndata_dir = ", entry(name, evidence, authority));
        let twice = format!("feeds = [{0}, {0}]\ndata_dir = ", entry("lab", "test", "cdc"));
        for (from, to, named) in [
            ("member = \"44\"", "member = \"99\"", "member = 99: not the two-digit code"),
            ("name = \"1\"", "name = \"A\"", "name = A: 1 or more of a-z"),
            ("domain = \"tongxing.test\"", "domain = \"Tongxing\"", "domain = Tongxing"),
            ("listen = \"127.0.0.1:7500\"", "listen = \"localhost\"", "listen"),
            ("127.0.0.1:7901", "192.0.2.1:7901", "private_listen = 192.0.2.1:7901: an address of the loopback"),
            ("[keys]\nconsent", "[keys]\nconsents", "consents"),
            ("secret = \"secret\"\n", "", "secret"),
            ("[\"new.key\", \"env:OLD_KEY\"]", "[]", "keys.at_rest = 0 keys: 1 to 8 keys"),
            ("\"new.key\", ", &"\"new.key\", ".repeat(8), "keys.at_rest = 9 keys: 1 to 8 keys"),
            ("max_connections = 2", "max_connections = 1", "store.max_connections = 1: 2 to 200"),
            ("max_connections = 2", "max_connections = 201", "store.max_connections = 201: 2 to 200"),
            ("\"10s\"", "\"10s 1ms\"", "store.acquire_timeout"),
            ("\"30s\"", "\"0s\"", "store.statement_timeout"),
            ("env:URL", "env:", "store.postgres = env:: env: and the name"),
            ("postgres = ", "url = ", "url"),
            ("env:OLD_KEY", "env:OLD KEY", "keys.at_rest = env:OLD KEY: env: and the name"),
            ("max_request_bytes = 16384", "max_request_bytes = 1", "limits.max_request_bytes = 1: 4096 to 1048576"),
            ("max_duration = \"2s\"", "max_duration = \"2h\"", "limits.max_duration"),
            ("max_duration = \"2s\"", "max_duration = \"5x\"", "5x"),
            ("threshold = 1", "threshold = 2", "trust.threshold = 2"),
            ("roots = [\"", "roots = [\"zz", "trust.roots"),
            ("data_dir = ", "platforms = [\"App\"]\ndata_dir = ", "platforms = App: 1 or more of a-z"),
            ("data_dir = ", &format!("platforms = [{many}]\ndata_dir = "), "platforms = 65 names: at most 64"),
            ("data_dir = ", &feed("Lab", "test", "cdc"), "feeds.name = Lab: 1 or more of a-z"),
            ("data_dir = ", &feed("lab", "tests", "cdc"), "feeds.evidence = tests: one of test, vaccination"),
            ("data_dir = ", &feed("lab", "test", "41/cdc"), "feeds.authorities = 41/cdc: the kind of an authority"),
            ("data_dir = ", &twice, "feeds.name = lab: each feed once"),
            (
                "threshold = 1",
                &format!("threshold = 1\ngateways = [{nine}]"),
                "trust.gateways = 9 addresses: at most 8",
            ),
        ] {
            let error = config(&[(from, to)]).unwrap_err().to_string();
            assert!(error.contains(named), "{named} in {error}");
            assert!(error.contains("node.toml"), "{error}");
        }
    }
}
