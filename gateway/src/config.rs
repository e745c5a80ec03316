//! `gateway.toml`: raw, then validated. A bad value names file, key, value and the mend.

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
use proto::identity::FederationDomain;
use serde::Deserialize;

use crate::{
    deliver::DeliveryLimits,
    member::MemberLimits,
    record::{RecordLimits, SpaceLimits},
    unsubstantiated::{AlarmLimits, MAX_TRAVELERS},
};

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The federation's domain.
    pub domain: FederationDomain,
    /// Where peers connect.
    pub listen: SocketAddr,
    /// Where operators look: the machine's own, unless it is said that it lies beyond the loopback interface.
    pub private_listen: SocketAddr,
    /// This replica's own directory.
    pub data_dir: PathBuf,
    /// Certificate and key.
    pub credentials: CredentialFiles,
    /// Trust list and policy.
    pub trust: TrustFiles,
    /// How many replicas serve this gateway's name. More than one take only proofs that are bound to a venue.
    pub replicas: usize,
    /// Bounds.
    pub limits: Limits,
}

/// All bounds of the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Those of every server.
    pub server: ServerLimits,
    /// Items of one stream under way at once.
    pub max_in_flight_per_stream: usize,
    /// Streams that watch the trust list, the policy or the members.
    pub max_watchers: usize,
    /// How often every member is asked how it is.
    pub board_every: Duration,
    /// Redemptions remembered at once.
    pub max_redemptions: usize,
    /// Answers held, in bytes; each member has the same share of them.
    pub max_cache_bytes: u64,
    /// Each member's.
    pub member: MemberLimits,
    /// The record's.
    pub record: RecordLimits,
    /// Of its way home.
    pub delivery: DeliveryLimits,
    /// When assignments that the policy does not admit are an alarm.
    pub unsubstantiated: AlarmLimits,
}

/// Streams of one connection unless it is said.
const STREAMS: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    domain: String,
    listen: SocketAddr,
    private_listen: SocketAddr,
    #[serde(default)]
    private_beyond_loopback: bool,
    data_dir: PathBuf,
    #[serde(default = "one")]
    replicas: usize,
    identity: IdentitySection,
    trust: TrustSection,
    #[serde(default)]
    limits: LimitsSection,
    #[serde(default)]
    streams: RawStreams,
    #[serde(default)]
    redemptions: RawRedemptions,
    #[serde(default)]
    cache: RawCache,
    #[serde(default)]
    members: RawMembers,
    #[serde(default)]
    record: RawRecord,
    #[serde(default)]
    delivery: RawDelivery,
    #[serde(default)]
    unsubstantiated: RawUnsubstantiated,
}

/// `[streams]`: recognition by the stream, and watches.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStreams {
    max_in_flight: usize,
    max_watchers: usize,
}

/// `[redemptions]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRedemptions {
    max_live: usize,
}

/// `[cache]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCache {
    max_bytes: usize,
}

/// `[members]`: bounds on calls to each member.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMembers {
    #[serde(with = "humantime_serde")]
    timeout: Duration,
    #[serde(with = "humantime_serde")]
    attempt_timeout: Duration,
    #[serde(with = "humantime_serde")]
    connect_timeout: Duration,
    max_in_flight: usize,
    max_in_flight_per_caller: usize,
    #[serde(with = "humantime_serde")]
    ask_every: Duration,
}

/// `[record]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRecord {
    max_batch: usize,
    max_waiting: usize,
    max_refusals: usize,
    max_undelivered_bytes: usize,
    max_undelivered_bytes_per_caller: usize,
}

/// `[delivery]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawDelivery {
    #[serde(with = "humantime_serde")]
    every: Duration,
    #[serde(with = "humantime_serde")]
    timeout: Duration,
    max_per_second: usize,
}

/// `[unsubstantiated]`: when assignments that the policy does not admit are an alarm.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawUnsubstantiated {
    #[serde(with = "humantime_serde")]
    window: Duration,
    alarm_at: usize,
    alarm_factor: usize,
}

const fn one() -> usize {
    1
}

impl Default for RawStreams {
    fn default() -> Self {
        Self { max_in_flight: 32, max_watchers: 1024 }
    }
}

impl Default for RawCache {
    fn default() -> Self {
        Self { max_bytes: 1 << 30 }
    }
}

impl Default for RawRedemptions {
    fn default() -> Self {
        Self { max_live: 1_000_000 }
    }
}

impl Default for RawMembers {
    fn default() -> Self {
        let MemberLimits { timeout, attempt_timeout, connect_timeout, max_in_flight, max_in_flight_per_caller } =
            MemberLimits::default();
        let ask_every = Duration::from_secs(10);
        Self { timeout, attempt_timeout, connect_timeout, max_in_flight, max_in_flight_per_caller, ask_every }
    }
}

impl Default for RawRecord {
    fn default() -> Self {
        let RecordLimits { max_batch, max_waiting, max_refusals, space } = RecordLimits::default();
        let SpaceLimits { max_undelivered, max_undelivered_per_caller } = space;
        Self {
            max_batch,
            max_waiting,
            max_refusals,
            max_undelivered_bytes: max_undelivered as usize,
            max_undelivered_bytes_per_caller: max_undelivered_per_caller as usize,
        }
    }
}

impl Default for RawDelivery {
    fn default() -> Self {
        let DeliveryLimits { every, timeout, max_per_second } = DeliveryLimits::default();
        Self { every, timeout, max_per_second: max_per_second as usize }
    }
}

impl Default for RawUnsubstantiated {
    fn default() -> Self {
        let AlarmLimits { window, alarm_at, alarm_factor } = AlarmLimits::default();
        Self { window, alarm_at, alarm_factor }
    }
}

impl Config {
    /// Reads and checks a file. Relative paths start at its own directory.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let document: Document = read(path)?;
        let domain: FederationDomain =
            document.domain.parse().map_err(|error| wrong(path, "domain", &document.domain, error))?;
        if document.replicas == 0 {
            return Err(wrong(path, "replicas", 0, "at least 1"));
        }
        let data_dir = relative_to(path, &document.data_dir);
        Ok(Self {
            trust: document.trust.files(path, &domain, data_dir.join("held"))?,
            credentials: document.identity.files(path),
            limits: check_limits(path, &document)?,
            domain,
            listen: document.listen,
            private_listen: private_listener(path, document.private_listen, document.private_beyond_loopback)?,
            data_dir,
            replicas: document.replicas,
        })
    }
}

fn check_limits(path: &Path, document: &Document) -> Result<Limits, ConfigError> {
    let Document { limits, streams, redemptions, cache, members, record, delivery, unsubstantiated, .. } = document;
    let of = |section| Check { path, section };
    let minute = Duration::from_secs(60);
    Ok(Limits {
        server: limits.check(path, STREAMS)?,
        max_in_flight_per_stream: of("streams").within("max_in_flight", streams.max_in_flight, 1, 1024)?,
        max_watchers: of("streams").within("max_watchers", streams.max_watchers, 1, 1 << 20)?,
        board_every: of("members").lasts("ask_every", members.ask_every, minute * 60)?,
        max_redemptions: of("redemptions").within("max_live", redemptions.max_live, 1, 100_000_000)?,
        max_cache_bytes: of("cache").within("max_bytes", cache.max_bytes, 1 << 20, 1 << 40)? as u64,
        member: MemberLimits {
            timeout: of("members").lasts("timeout", members.timeout, minute)?,
            attempt_timeout: of("members").lasts("attempt_timeout", members.attempt_timeout, members.timeout)?,
            connect_timeout: of("members").lasts("connect_timeout", members.connect_timeout, minute)?,
            max_in_flight: of("members").within("max_in_flight", members.max_in_flight, 1, 65_536)?,
            max_in_flight_per_caller: of("members").within(
                "max_in_flight_per_caller",
                members.max_in_flight_per_caller,
                1,
                65_536,
            )?,
        },
        record: RecordLimits {
            max_batch: of("record").within("max_batch", record.max_batch, 1, 65_536)?,
            max_waiting: of("record").within("max_waiting", record.max_waiting, 1, 1 << 20)?,
            max_refusals: of("record").within("max_refusals", record.max_refusals, 256, 100_000_000)?,
            space: SpaceLimits {
                max_undelivered: of("record").within(
                    "max_undelivered_bytes",
                    record.max_undelivered_bytes,
                    1 << 20,
                    1 << 40,
                )? as u64,
                max_undelivered_per_caller: of("record").within(
                    "max_undelivered_bytes_per_caller",
                    record.max_undelivered_bytes_per_caller,
                    1 << 16,
                    record.max_undelivered_bytes,
                )? as u64,
            },
        },
        delivery: DeliveryLimits {
            every: of("delivery").lasts("every", delivery.every, minute)?,
            timeout: of("delivery").lasts("timeout", delivery.timeout, minute)?,
            max_per_second: of("delivery").within("max_per_second", delivery.max_per_second, 1, 10_000_000)? as u32,
        },
        unsubstantiated: AlarmLimits {
            window: of("unsubstantiated").between("window", unsubstantiated.window, minute / 6, minute * 60 * 24)?,
            alarm_at: of("unsubstantiated").within("alarm_at", unsubstantiated.alarm_at, 1, MAX_TRAVELERS)?,
            alarm_factor: of("unsubstantiated").within("alarm_factor", unsubstantiated.alarm_factor, 1, 20)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(replace: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.toml");
        let mut text = format!(
            "domain = \"tongxing.test\"\nlisten = \"127.0.0.1:7443\"\nprivate_listen = \"127.0.0.1:7900\"\ndata_dir = \"data\"\n\
             replicas = 1\n[identity]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
             [trust]\nlist = \"t\"\npolicy = \"p\"\nroots = [\"{}\"]\nthreshold = 1\n\
             [limits]\nmax_request_bytes = 16384\n[members]\ntimeout = \"800ms\"\n",
            peer::config::to_hex(
                proto::suite::SigningKey::generate(proto::suite::Suite::Ed25519).verifying_key().encoded()
            )
        );
        for (from, to) in replace {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    #[test]
    fn defaults_fill_what_is_not_said() {
        let config = config(&[]).unwrap();
        assert_eq!(config.limits.member.attempt_timeout, Duration::from_millis(350));
        assert!(config.data_dir.ends_with("data") && config.data_dir.is_absolute());
        let AlarmLimits { window, alarm_at, alarm_factor } = config.limits.unsubstantiated;
        assert_eq!((window, alarm_at, alarm_factor), (Duration::from_secs(600), 20, 4));
    }

    #[test]
    fn an_alarm_may_be_at_its_bounds() {
        for (said, want) in [
            ("window = \"10s\"\nalarm_at = 1\nalarm_factor = 1", (10, 1, 1)),
            ("window = \"24h\"\nalarm_at = 4096\nalarm_factor = 20", (86_400, 4096, 20)),
        ] {
            let said = format!("[unsubstantiated]\n{said}\n[members]");
            let limits = config(&[("[members]", &said)]).unwrap().limits.unsubstantiated;
            assert_eq!((limits.window.as_secs(), limits.alarm_at, limits.alarm_factor), want);
        }
    }

    #[test]
    fn a_private_listener_beyond_loopback_takes_a_second_word() {
        let beyond = ("private_listen = \"127.0.0.1:7900\"", "private_listen = \"192.0.2.1:7900\"");
        let allowed = ("replicas = 1", "replicas = 1\nprivate_beyond_loopback = true");
        assert!(config(&[beyond]).is_err());
        assert_eq!(config(&[beyond, allowed]).unwrap().private_listen.to_string(), "192.0.2.1:7900");
    }

    #[test]
    fn a_bad_value_is_named_with_its_key_and_mend() {
        for (from, to, named) in [
            ("127.0.0.1:7900", "192.0.2.1:7900", "private_listen = 192.0.2.1:7900: an address of the loopback"),
            ("replicas = 1", "replicas = 0", "replicas = 0: at least 1"),
            ("max_request_bytes = 16384", "max_request_bytes = 1", "limits.max_request_bytes = 1: 4096 to 1048576"),
            ("max_request_bytes", "max_bytes", "max_bytes"),
            ("timeout = \"800ms\"", "timeout = \"5x\"", "5x"),
            ("timeout = \"800ms\"", "timeout = \"100ms\"", "members.attempt_timeout"),
            ("threshold = 1", "threshold = 2", "trust.threshold = 2"),
            ("roots = [\"", "roots = [\"zz", "trust.roots"),
            ("threshold = 1", "threshold = 1\ngateways = [\"localhost\"]", "trust.gateways = localhost: host:port"),
            ("domain = \"tongxing.test\"", "domain = \"Tongxing\"", "domain = Tongxing"),
            ("[members]", "[unsubstantiated]\nwindow = \"9999ms\"\n[members]", "window = 9.999s: 10s to 86400s"),
            ("[members]", "[unsubstantiated]\nalarm_at = 0\n[members]", "unsubstantiated.alarm_at = 0: 1 to 4096"),
            (
                "[members]",
                "[unsubstantiated]\nalarm_at = 4097\n[members]",
                "unsubstantiated.alarm_at = 4097: 1 to 4096",
            ),
            (
                "[members]",
                "[unsubstantiated]\nalarm_factor = 0\n[members]",
                "unsubstantiated.alarm_factor = 0: 1 to 20",
            ),
            ("[members]", "[unsubstantiated]\nalarm_factor = 21\n[members]", "unsubstantiated.alarm_factor = 21"),
            ("[members]", "[unsubstantiated]\nwindow = \"24h 1ms\"\n[members]", "unsubstantiated.window = 86400.001s"),
        ] {
            let error = config(&[(from, to)]).unwrap_err().to_string();
            assert!(error.contains(named), "{named} in {error}");
        }
    }
}
