//! One case as it is played: its people and tokens, and what was said so far.

use std::{collections::HashMap, error::Error, io, sync::Arc, time::Duration};

use proto::{
    consent_request::ConsentRequest,
    contract::{
        assignment::SetCodeResponse,
        traveler::{EnrollDeviceResponse, IssueConsentResponse},
    },
    log::record::Entry,
    presentation::HintKey,
    statement::LogHead,
    suite::SigningKey,
    token::Consent,
};
use rustls::{CertificateError, OtherError};
use tokio::time::timeout;
use tongxing::phone::request_id;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use super::{
    cases::Given,
    person::Person,
    refused::{self, Refused},
    steps::{Enroll, Issue, SetCode},
    tamper::Hand,
    watch::Watched,
    world::World,
};

/// How long a node has for one answer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// Why a step did not come out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// It cannot be played here.
    Skipped(String),
    /// It ended otherwise.
    Failed {
        /// What the contract wants.
        expected: String,
        /// What there was.
        got: String,
        /// Whether there was no answer at all.
        unanswered: bool,
    },
}

impl Miss {
    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped(why.into())
    }

    pub(super) fn failed(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Failed { expected: expected.into(), got: got.into(), unanswered: false }
    }
}

/// Checks one thing that is expected.
pub(super) fn ensure(holds: bool, expected: impl Into<String>, got: impl Into<String>) -> Result<(), Miss> {
    if holds { Ok(()) } else { Err(Miss::failed(expected, got)) }
}

/// Somebody in a case.
pub(super) struct Actor {
    pub(super) person: Person,
    pub(super) device: Option<Device>,
}

/// An enrolled phone.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) id: [u8; 16],
    pub(super) key: Arc<SigningKey>,
}

/// A token on a phone.
#[derive(Clone)]
pub(super) struct Pass {
    pub(super) token: Vec<u8>,
    pub(super) consent: Consent,
    pub(super) key: Option<Arc<SigningKey>>,
    pub(super) hint_key: HintKey,
    pub(super) person: Person,
    pub(super) device: [u8; 16],
}

/// A record of somebody's consent that the node holds.
pub(super) struct Delivered {
    pub(super) person: Person,
    pub(super) device: [u8; 16],
    pub(super) entry: Entry,
    pub(super) index: u64,
}

/// What a step may refer to: the last of its kind.
#[derive(Default)]
pub(super) struct Last {
    pub(super) enroll_id: String,
    pub(super) enroll_key: Option<Arc<SigningKey>>,
    pub(super) enrolled: Option<EnrollDeviceResponse>,
    pub(super) set_code_id: String,
    pub(super) set: Option<SetCodeResponse>,
    pub(super) asked: Option<(ConsentRequest, Vec<u8>)>,
    pub(super) token_key: Option<Arc<SigningKey>>,
    pub(super) issued: Option<IssueConsentResponse>,
    pub(super) head: Option<LogHead>,
    pub(super) written: Option<LogHead>,
    pub(super) position: Option<LogHead>,
}

/// One case.
pub(super) struct Stage<'a> {
    pub(super) world: &'a World,
    pub(super) case: &'a str,
    pub(super) people: HashMap<String, Actor>,
    pub(super) passes: HashMap<String, Pass>,
    pub(super) streams: HashMap<String, Watched>,
    pub(super) delivered: Vec<Delivered>,
    /// Records made so far.
    pub(super) entries: u64,
    /// What time the first of them says.
    pub(super) first_entry: Option<u64>,
    pub(super) last: Last,
    pub(super) fixed_id: String,
}

impl<'a> Stage<'a> {
    pub(super) fn new(world: &'a World, case: &'a str) -> Self {
        Self {
            world,
            case,
            people: HashMap::new(),
            passes: HashMap::new(),
            streams: HashMap::new(),
            delivered: Vec::new(),
            entries: 0,
            first_entry: None,
            last: Last::default(),
            fixed_id: request_id(),
        }
    }

    /// Whoever changes signed objects in this case.
    pub(super) fn hand<'h>(&self, key: Option<&'h SigningKey>, aad: &'h [u8]) -> Hand<'h> {
        Hand { key, aad, now: self.world.now(), other: self.world.other_code() }
    }

    /// Sets up what a case begins with.
    pub(super) async fn prepare(&mut self, given: Given) -> Result<(), Miss> {
        if given == Given::Nothing {
            return Ok(());
        }
        self.enroll(&Enroll::default()).await?;
        if given == Given::Enrolled {
            return Ok(());
        }
        self.set_code(&SetCode::default()).await?;
        match given {
            Given::Pass => self.issue(&Issue::default()).await,
            Given::Paper => self.issue(&Issue { kind: 3, scope: 1, ..Issue::default() }).await,
            Given::Nothing | Given::Enrolled | Given::Traveler => Ok(()),
        }
    }

    /// Somebody of this case, invented when first named.
    pub(super) fn actor(&mut self, name: &str) -> Result<&mut Actor, Miss> {
        if !self.people.contains_key(name) {
            let person = match name {
                "known" => {
                    let known = self.world.known().first().cloned();
                    known.ok_or_else(|| Miss::skipped("needs --known: a person whom the node knows, with evidence"))?
                }
                _ => Person::invent(),
            };
            self.people.insert(name.to_owned(), Actor { person, device: None });
        }
        self.people.get_mut(name).ok_or_else(|| Miss::skipped("nobody"))
    }

    /// The phone of somebody who has enrolled one.
    pub(super) fn device(&mut self, name: &str) -> Result<Device, Miss> {
        let device = self.actor(name)?.device.clone();
        device.ok_or_else(|| Miss::skipped(format!("the case has no phone of {name}")))
    }

    /// A token of this case.
    pub(super) fn pass(&self, slot: &str) -> Result<&Pass, Miss> {
        self.passes.get(slot).ok_or_else(|| Miss::skipped(format!("the case has no token {slot}")))
    }
}

/// Waits for a node's answer, and no longer.
pub(super) async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match timeout(ANSWER, call).await {
        Ok(answered) => answered.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", ANSWER.as_secs()))),
    }
}

/// Compares how a call ended with how it should: the answer if there has to be one, `None` if it was refused as it should.
pub(super) fn settle<T>(
    answered: Result<T, Status>,
    refused: Option<&Refused>,
    wanted: &str,
) -> Result<Option<T>, Miss> {
    match (answered, refused) {
        (Ok(answer), None) => Ok(Some(answer)),
        (Err(status), Some(refused)) if refused.is(&status) => Ok(None),
        (Ok(_), Some(refused)) => Err(Miss::failed(refused.to_string(), "an answer")),
        (Err(status), refused) => {
            let expected = refused.map_or_else(|| wanted.to_owned(), Refused::to_string);
            let bare = status.get_details_error_info().is_none();
            let late = bare && status.code() == Code::DeadlineExceeded;
            let unanswered = late || status.source().is_some();
            Err(Miss::Failed { expected, got: say(&status), unanswered })
        }
    }
}

/// A status; where no node said it, what lies under it.
fn say(status: &Status) -> String {
    let mut deepest = status.source();
    while let Some(next) = deepest.and_then(Error::source) {
        deepest = Some(next);
    }
    match deepest {
        None => refused::describe(status),
        Some(error) => refused::short(&format!("no answer: {}", cause(error))),
    }
}

/// What a connection failed for; a verifier's own words where it was refused by one.
fn cause(error: &(dyn Error + 'static)) -> String {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let tls = inner.map_or_else(|| error.downcast_ref(), |inner| inner.downcast_ref());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => why.to_string(),
        _ => error.to_string(),
    }
}
