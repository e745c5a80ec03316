//! `node.toml`: raw, then validated. A bad value names file, key, value and the mend.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use peer::{
    accept::AcceptLimits,
    admission::AdmissionLimits,
    config::{ConfigError, IdentitySection, TrustSection, read, relative_to, wrong},
    credentials::CredentialFiles,
    trust::TrustFiles,
};
use proto::{
    identity::{FederationDomain, PeerId},
    member::Member,
};
use serde::Deserialize;

use crate::keys::KeyFiles;

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
    /// Where the machine's own operators look.
    pub private_listen: SocketAddr,
    /// This node's own directory.
    pub data_dir: PathBuf,
    /// Certificate and key.
    pub credentials: CredentialFiles,
    /// Trust list and policy.
    pub trust: TrustFiles,
    /// The node's secrets.
    pub keys: KeyFiles,
    /// Bounds.
    pub limits: Limits,
}

/// All bounds of a node.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest request, in bytes.
    pub max_request_bytes: usize,
    /// The longest a call may take.
    pub max_duration: Duration,
    /// Streams of one connection. The gateway asks for everybody over few connections.
    pub max_streams_per_connection: u32,
    /// How often files are looked at for changes.
    pub reload_every: Duration,
    /// The accept loop's.
    pub accept: AcceptLimits,
    /// Admission's.
    pub admission: AdmissionLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    member: String,
    name: String,
    domain: String,
    listen: SocketAddr,
    private_listen: SocketAddr,
    data_dir: PathBuf,
    identity: IdentitySection,
    trust: TrustSection,
    keys: KeysSection,
    #[serde(default)]
    limits: RawLimits,
}

/// `[keys]`: the node's secrets, mode 0600.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysSection {
    consent: PathBuf,
    statement: PathBuf,
    secret: PathBuf,
    sealing: PathBuf,
}

/// `[limits]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    max_request_bytes: usize,
    #[serde(with = "humantime_serde")]
    max_duration: Duration,
    max_streams_per_connection: usize,
    max_connections: usize,
    max_handshakes: usize,
    #[serde(with = "humantime_serde")]
    handshake_timeout: Duration,
    #[serde(with = "humantime_serde")]
    hello_timeout: Duration,
    max_handshakes_per_address: usize,
    max_connections_per_peer: usize,
    max_in_flight: usize,
    max_in_flight_per_caller: usize,
    #[serde(with = "humantime_serde")]
    reload_every: Duration,
}

impl Default for RawLimits {
    fn default() -> Self {
        let (accept, admission) = (AcceptLimits::default(), AdmissionLimits::default());
        Self {
            max_request_bytes: 16 * 1024,
            max_duration: Duration::from_secs(2),
            max_streams_per_connection: 256,
            max_connections: 1024,
            max_handshakes: accept.max_handshakes,
            handshake_timeout: accept.handshake_timeout,
            hello_timeout: accept.hello_timeout,
            max_handshakes_per_address: accept.max_handshakes_per_address,
            max_connections_per_peer: accept.max_connections_per_peer,
            max_in_flight: admission.max_in_flight,
            max_in_flight_per_caller: admission.max_in_flight_per_caller,
            reload_every: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Reads and checks a file. Relative paths start at its own directory.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let document: Document = read(path)?;
        let member: Member = document.member.parse().map_err(|error| wrong(path, "member", &document.member, error))?;
        let id = PeerId::node(member, &document.name)
            .ok_or_else(|| wrong(path, "name", &document.name, "1 or more of a-z, 0-9 and inner '-'"))?;
        let domain: FederationDomain =
            document.domain.parse().map_err(|error| wrong(path, "domain", &document.domain, error))?;
        if !document.private_listen.ip().is_loopback() {
            return Err(wrong(path, "private_listen", document.private_listen, "an address of the loopback interface"));
        }
        let data_dir = relative_to(path, &document.data_dir);
        Ok(Self {
            member,
            id,
            trust: document.trust.files(path, &domain, data_dir.join("held"))?,
            credentials: document.identity.files(path),
            keys: document.keys.files(path),
            limits: check_limits(path, &document.limits)?,
            domain,
            listen: document.listen,
            private_listen: document.private_listen,
            data_dir,
        })
    }
}

impl KeysSection {
    fn files(&self, config: &Path) -> KeyFiles {
        KeyFiles {
            consent: relative_to(config, &self.consent),
            statement: relative_to(config, &self.statement),
            secret: relative_to(config, &self.secret),
            sealing: relative_to(config, &self.sealing),
        }
    }
}

fn check_limits(path: &Path, limits: &RawLimits) -> Result<Limits, ConfigError> {
    let within = |key: &str, value: usize, min: usize, max: usize| {
        if (min..=max).contains(&value) { Ok(value) } else { Err(wrong(path, key, value, format!("{min} to {max}"))) }
    };
    let lasts = |key: &str, value: Duration, max: Duration| {
        let valid = value >= Duration::from_millis(1) && value <= max;
        if valid { Ok(value) } else { Err(wrong(path, key, format!("{value:?}"), format!("1ms to {max:?}"))) }
    };
    let minute = Duration::from_secs(60);
    let streams = within("limits.max_streams_per_connection", limits.max_streams_per_connection, 1, 1024)?;
    Ok(Limits {
        max_request_bytes: within("limits.max_request_bytes", limits.max_request_bytes, 4096, 1 << 20)?,
        max_duration: lasts("limits.max_duration", limits.max_duration, minute)?,
        max_streams_per_connection: streams as u32,
        reload_every: lasts("limits.reload_every", limits.reload_every, minute * 60)?,
        accept: AcceptLimits {
            handshake_timeout: lasts("limits.handshake_timeout", limits.handshake_timeout, minute)?,
            max_handshakes: within("limits.max_handshakes", limits.max_handshakes, 1, 65_536)?,
            max_connections: within("limits.max_connections", limits.max_connections, 1, 1 << 20)?,
            hello_timeout: lasts("limits.hello_timeout", limits.hello_timeout, limits.handshake_timeout)?,
            max_handshakes_per_address: within(
                "limits.max_handshakes_per_address",
                limits.max_handshakes_per_address,
                1,
                65_536,
            )?,
            max_connections_per_peer: within(
                "limits.max_connections_per_peer",
                limits.max_connections_per_peer,
                1,
                1 << 20,
            )?,
        },
        admission: AdmissionLimits {
            max_in_flight: within("limits.max_in_flight", limits.max_in_flight, 1, 1 << 20)?,
            max_in_flight_per_caller: within(
                "limits.max_in_flight_per_caller",
                limits.max_in_flight_per_caller,
                1,
                1 << 20,
            )?,
        },
    })
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
        assert!(config.data_dir.ends_with("data") && config.data_dir.is_absolute());
        assert!(config.keys.secret.ends_with("secret") && config.keys.secret.is_absolute());
    }

    #[test]
    fn a_bad_value_is_named_with_its_key_and_mend() {
        for (from, to, named) in [
            ("member = \"44\"", "member = \"99\"", "member = 99: not the two-digit code"),
            ("name = \"1\"", "name = \"A\"", "name = A: 1 or more of a-z"),
            ("domain = \"tongxing.test\"", "domain = \"Tongxing\"", "domain = Tongxing"),
            ("listen = \"127.0.0.1:7500\"", "listen = \"localhost\"", "listen"),
            ("127.0.0.1:7901", "192.0.2.1:7901", "private_listen = 192.0.2.1:7901: an address of the loopback"),
            ("[keys]\nconsent", "[keys]\nconsents", "consents"),
            ("secret = \"secret\"\n", "", "secret"),
            ("max_request_bytes = 16384", "max_request_bytes = 1", "limits.max_request_bytes = 1: 4096 to 1048576"),
            ("max_duration = \"2s\"", "max_duration = \"2h\"", "limits.max_duration"),
            ("max_duration = \"2s\"", "max_duration = \"5x\"", "5x"),
            ("threshold = 1", "threshold = 2", "trust.threshold = 2"),
            ("roots = [\"", "roots = [\"zz", "trust.roots"),
        ] {
            let error = config(&[(from, to)]).unwrap_err().to_string();
            assert!(error.contains(named), "{named} in {error}");
            assert!(error.contains("node.toml"), "{error}");
        }
    }
}
