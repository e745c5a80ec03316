//! `[limits]`: the bounds that every server has, whatever it serves.

use std::{path::Path, time::Duration};

use serde::Deserialize;

use crate::{
    accept::AcceptLimits,
    admission::AdmissionLimits,
    config::{ConfigError, wrong},
};

const MINUTE: Duration = Duration::from_secs(60);

/// The bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// The largest request, in bytes.
    pub max_request_bytes: usize,
    /// The longest a call may take.
    pub max_duration: Duration,
    /// Streams a connection may have open: few, since a queue is no help to anyone who waits in it.
    pub max_streams_per_connection: u32,
    /// How often the program's files are looked at for changes.
    pub reload_every: Duration,
    /// The accept loop's.
    pub accept: AcceptLimits,
    /// Admission's.
    pub admission: AdmissionLimits,
}

/// `[limits]` as it is written; what is not said has its default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    max_request_bytes: usize,
    #[serde(with = "humantime_serde")]
    max_duration: Duration,
    max_streams_per_connection: Option<usize>,
    max_connections: usize,
    max_connections_per_peer: usize,
    max_handshakes: usize,
    max_handshakes_per_address: usize,
    #[serde(with = "humantime_serde")]
    handshake_timeout: Duration,
    #[serde(with = "humantime_serde")]
    hello_timeout: Duration,
    max_in_flight: usize,
    max_in_flight_per_caller: usize,
    #[serde(with = "humantime_serde")]
    reload_every: Duration,
}

impl Default for LimitsSection {
    fn default() -> Self {
        let (accept, admission) = (AcceptLimits::default(), AdmissionLimits::default());
        Self {
            max_request_bytes: 16 * 1024,
            max_duration: Duration::from_secs(2),
            max_streams_per_connection: None,
            max_connections: accept.max_connections,
            max_connections_per_peer: accept.max_connections_per_peer,
            max_handshakes: accept.max_handshakes,
            max_handshakes_per_address: accept.max_handshakes_per_address,
            handshake_timeout: accept.handshake_timeout,
            hello_timeout: accept.hello_timeout,
            max_in_flight: admission.max_in_flight,
            max_in_flight_per_caller: admission.max_in_flight_per_caller,
            reload_every: Duration::from_secs(5),
        }
    }
}

impl LimitsSection {
    /// Checks it. `streams` is how many streams a connection of this kind of server has unless it is said.
    pub fn check(&self, path: &Path, streams: usize) -> Result<ServerLimits, ConfigError> {
        let check = Check { path, section: "limits" };
        let streams = self.max_streams_per_connection.unwrap_or(streams);
        let streams = check.within("max_streams_per_connection", streams, 1, 1024)?;
        Ok(ServerLimits {
            max_request_bytes: check.within("max_request_bytes", self.max_request_bytes, 4096, 1 << 20)?,
            max_duration: check.lasts("max_duration", self.max_duration, MINUTE)?,
            max_streams_per_connection: u32::try_from(streams).unwrap_or(u32::MAX),
            reload_every: check.lasts("reload_every", self.reload_every, MINUTE * 60)?,
            accept: AcceptLimits {
                handshake_timeout: check.lasts("handshake_timeout", self.handshake_timeout, MINUTE)?,
                hello_timeout: check.lasts("hello_timeout", self.hello_timeout, self.handshake_timeout)?,
                max_handshakes: check.within("max_handshakes", self.max_handshakes, 1, 65_536)?,
                max_handshakes_per_address: check.within(
                    "max_handshakes_per_address",
                    self.max_handshakes_per_address,
                    1,
                    65_536,
                )?,
                max_connections: check.within("max_connections", self.max_connections, 1, 1 << 20)?,
                max_connections_per_peer: check.within(
                    "max_connections_per_peer",
                    self.max_connections_per_peer,
                    1,
                    1 << 20,
                )?,
            },
            admission: AdmissionLimits {
                max_in_flight: check.within("max_in_flight", self.max_in_flight, 1, 1 << 20)?,
                max_in_flight_per_caller: check.within(
                    "max_in_flight_per_caller",
                    self.max_in_flight_per_caller,
                    1,
                    1 << 20,
                )?,
            },
        })
    }
}

/// Checks values of one section; errors name file, key, value and mend.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// The file.
    pub path: &'a Path,
    /// The section.
    pub section: &'a str,
}

impl Check<'_> {
    /// A number from `min` to `max`.
    pub fn within(self, key: &str, value: usize, min: usize, max: usize) -> Result<usize, ConfigError> {
        if (min..=max).contains(&value) {
            return Ok(value);
        }
        Err(wrong(self.path, &format!("{}.{key}", self.section), value, format!("{min} to {max}")))
    }

    /// A duration from a millisecond to `max`.
    pub fn lasts(self, key: &str, value: Duration, max: Duration) -> Result<Duration, ConfigError> {
        self.between(key, value, Duration::from_millis(1), max)
    }

    /// A duration from `min` to `max`.
    pub fn between(self, key: &str, value: Duration, min: Duration, max: Duration) -> Result<Duration, ConfigError> {
        if (min..=max).contains(&value) {
            return Ok(value);
        }
        Err(wrong(self.path, &format!("{}.{key}", self.section), format!("{value:?}"), format!("{min:?} to {max:?}")))
    }
}
