//! What a case can do: a small, closed vocabulary. Whatever a step does not say is as a good caller would have it, and a
//! step that does not say how it ends ends well.

mod accesses;
mod consents;
mod lookup;
mod people;
mod watch;

use serde::Deserialize;

pub use self::{
    accesses::{Before, Delete, Deliver, ListAccesses, Note, Path},
    consents::{Issue, List, Nonce, Revoke, TokenKey},
    lookup::{Field, Lookup, Proof},
    people::{Enroll, EnrollmentKey, Letters, RequestId, SetCode},
    watch::{After, First, Kind, Probe, Watch},
};
pub use super::{
    refused::Refused,
    tamper::Tamper,
    world::{Party, Stranger},
};

/// The one person of most cases.
const TRAVELER: &str = "traveler";
/// The one token of most cases.
const TOKEN: &str = "token";

/// One step of a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Step {
    /// The backend enrols a phone.
    Enroll(Enroll),
    /// The operator sets a code.
    SetCode(SetCode),
    /// A phone asks for a consent token.
    Issue(Issue),
    /// The backend lists a traveler's consents.
    List(List),
    /// The backend revokes a consent.
    Revoke(Revoke),
    /// The gateway looks a traveler up.
    Lookup(Lookup),
    /// The gateway delivers access records.
    Deliver(Deliver),
    /// The backend lists who asked for a traveler's status.
    ListAccesses(ListAccesses),
    /// The backend has a traveler forgotten.
    Delete(Delete),
    /// The gateway begins to follow the change log.
    Watch(Watch),
    /// The gateway probes a stream and reads it.
    Probe(Probe),
    /// The gateway asks the node about itself.
    GetNode(GetNode),
    /// Somebody asks for the node's health.
    Health(Health),
    /// Somebody without a good certificate connects, and is turned away.
    Connect(Connect),
    /// Somebody sends bytes to a method.
    Send(Send),
    /// What every statement of the run so far was.
    Review(Review),
    /// Time passes.
    Wait(Wait),
}

impl Step {
    /// Its word in case files.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Enroll(_) => "enroll",
            Self::SetCode(_) => "set-code",
            Self::Issue(_) => "issue",
            Self::List(_) => "list",
            Self::Revoke(_) => "revoke",
            Self::Lookup(_) => "lookup",
            Self::Deliver(_) => "deliver",
            Self::ListAccesses(_) => "list-accesses",
            Self::Delete(_) => "delete",
            Self::Watch(_) => "watch",
            Self::Probe(_) => "probe",
            Self::GetNode(_) => "get-node",
            Self::Health(_) => "health",
            Self::Connect(_) => "connect",
            Self::Send(_) => "send",
            Self::Review(_) => "review",
            Self::Wait(_) => "wait",
        }
    }
}

/// `GetNode`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GetNode {
    /// Who calls.
    pub r#as: Party,
    /// It is refused.
    pub refused: Option<Refused>,
}

/// `grpc.health.v1.Health/Check`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Health {
    /// Who calls.
    pub r#as: Party,
    /// The service asked about; empty is the whole node.
    pub service: String,
}

/// A connection that is refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Connect {
    /// Who connects.
    pub r#as: Stranger,
}

/// Bytes for a method.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Send {
    /// Who calls.
    #[serde(default)]
    pub r#as: Party,
    /// `/<service>/<method>`.
    pub method: String,
    /// What is sent.
    pub message: Message,
    /// How it is refused.
    pub refused: Refused,
}

/// What is sent.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// No bytes: the message with nothing set.
    Empty,
    /// 100 bytes that are no protobuf.
    Noise,
    /// A field whose length goes beyond the end.
    CutShort,
    /// 512 KiB.
    Huge,
}

/// A look at all statements of the run so far.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Review {
    /// What each of them is.
    pub every_statement: Property,
}

/// What every statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Property {
    /// Bound to the token that was shown.
    Bound,
    /// Of now, and over when token and policy say.
    EndsInTime,
    /// Without what was not granted.
    DisclosesNoMore,
    /// With rule and authority where it is not green.
    Substantiated,
    /// With lists that have the latest first.
    LatestFirst,
    /// With a hint, if any, that `k` opens and that masks the person's name and number.
    HintOpens,
    /// Of a change log that never went back.
    LogNeverGoesBack,
}

/// Time that passes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// How long: at most 120 s.
    pub seconds: u64,
}

impl Default for GetNode {
    fn default() -> Self {
        Self { r#as: Party::Gateway, refused: None }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self { r#as: Party::Gateway, service: String::new() }
    }
}
