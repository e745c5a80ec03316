//! Steps about the change stream: opened, probed, misused.

use serde::Deserialize;

use super::{Party, Refused};

/// The one stream of most cases.
const STREAM: &str = "stream";

/// `WatchChanges`, up to its opening. The stream stays open until the case ends or another one has its name.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Watch {
    /// Who calls.
    pub r#as: Party,
    /// Its name in the case.
    pub stream: String,
    /// What is sent first.
    pub first: First,
    /// Where it is to begin.
    pub after: After,
    /// Whether nothing more of it can be sent than is read, some hundred bytes aside.
    pub narrow: bool,
    /// It is refused.
    pub refused: Option<Refused>,
}

/// The first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum First {
    /// A start.
    Start,
    /// A probe.
    Probe,
    /// Neither.
    Nothing,
}

/// Where a stream is to begin, and what its opening has to say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// At the head: AT_HEAD.
    Head,
    /// Where the case's last stream was when it was last read: RESUMED, right there.
    Seen,
    /// At a number of another epoch: OTHER_LOG.
    OtherEpoch,
    /// Beyond the head: OTHER_LOG.
    Beyond,
    /// At a position whose epoch is a byte short: no opening at all.
    ShortEpoch,
}

/// Probes, and everything that comes until each has its echo.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Probe {
    /// Which stream.
    pub stream: String,
    /// How many.
    pub times: u64,
    /// Whether the reader pauses before it reads on, so that there are echoes that cannot be sent yet.
    pub unread: bool,
    /// What is sent instead of a probe: a second start.
    pub start: bool,
    /// The slots whose tokens are events since the stream was last read, each once; no other token of the case is one.
    pub events: Vec<String>,
    /// What happened to them.
    pub kind: Kind,
    /// The stream is refused at last.
    pub refused: Option<Refused>,
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The status is another one.
    Status,
    /// The consent was revoked.
    Revoked,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            r#as: Party::Gateway,
            stream: STREAM.into(),
            first: First::Start,
            after: After::Head,
            narrow: false,
            refused: None,
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            stream: STREAM.into(),
            times: 1,
            unread: false,
            start: false,
            events: Vec::new(),
            kind: Kind::Status,
            refused: None,
        }
    }
}
