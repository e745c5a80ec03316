//! Recognition: what home's statement comes to under the policy of this moment, and the answer that says so (I5, I8).

use std::sync::Arc;

use proto::{
    contract::{
        recognition::{Assignment, Conversion, NextStep, Outcome, RecognizeResponse, Source},
        types,
    },
    member::Member,
    policy::{Judgement, Policy, Text},
    statement::{LogHead, Status},
    terms::{Level, Scope},
    time::UnixTime,
};

use tracing::instrument;

use crate::{
    cache::{HeldStatement, Hit},
    home::{HomeSaid, Said},
};

/// What became of an exchange.
#[derive(Debug)]
pub(crate) enum Finding {
    /// Home's verified statement, how we know, and what it comes to.
    Stated {
        /// The statement.
        held: Arc<HeldStatement>,
        /// Where it came from.
        source: Source,
        /// Up to where in home's change log it is known to hold.
        head: LogHead,
        /// What it comes to.
        judgement: Judgement,
    },
    /// Home vouches for no code; where its change log stood.
    UnknownTraveler(Option<LogHead>),
    /// Home gave no valid answer.
    HomeUnreachable,
}

impl Finding {
    /// What home said, judged by the policy of this moment.
    pub(crate) fn of(said: Said, policy: &Policy) -> Self {
        let stated = |held: Arc<HeldStatement>, source, head| {
            let judgement = policy.judge(held.statement.status());
            Self::Stated { held, source, head, judgement }
        };
        match said {
            Said::Home(HomeSaid::Statement(held)) => {
                let head = held.statement.status().head;
                stated(held, Source::Home, head)
            }
            Said::Home(HomeSaid::Unknown(head)) => Self::UnknownTraveler(head),
            Said::Held(Hit { statement: Some(held), head, .. }) => stated(held, Source::Cache, head),
            Said::Held(Hit { statement: None, head, .. }) => Self::UnknownTraveler(Some(head)),
            Said::LastKnown(held) => {
                let head = held.statement.status().head;
                stated(held, Source::LastKnown, head)
            }
            Said::Unreachable => Self::HomeUnreachable,
        }
    }

    /// What it came to.
    pub(crate) fn judgement(&self) -> &Judgement {
        match self {
            Self::Stated { judgement, .. } => judgement,
            Self::UnknownTraveler(_) => &Judgement::UnknownTraveler,
            Self::HomeUnreachable => &Judgement::HomeUnreachable,
        }
    }

    /// The bytes of the statement that the answer has and where it came from, if it has one.
    pub(crate) fn statement(&self) -> Option<(&[u8], Source)> {
        match self {
            Self::Stated { judgement: Judgement::Unsubstantiated(_), .. } => None,
            Self::Stated { held, source, .. } => Some((&held.bytes, *source)),
            Self::UnknownTraveler(_) | Self::HomeUnreachable => None,
        }
    }

    /// The answer. What an unsubstantiated assignment says stays unsaid: no statement, label or level.
    #[instrument(level = "debug", name = "recognition", skip_all)]
    pub(crate) fn into_answer(
        self,
        home: Member,
        granted: Scope,
        policy: &Policy,
        policy_version: u64,
    ) -> RecognizeResponse {
        let advice = policy.advise(self.judgement());
        let mut answer = RecognizeResponse {
            outcome: outcome(self.judgement()).into(),
            decision: i32::from(advice.decision.number()),
            next_step: Some(step(&advice.text)),
            granted_scope: u32::from(granted.bits()),
            ..RecognizeResponse::default()
        };
        let (held, source, head, judgement) = match self {
            Self::Stated { held, source, head, judgement } => (held, source, head, judgement),
            Self::UnknownTraveler(head) => {
                answer.change_token = head.map(|head| head.to_change_token(home)).unwrap_or_default();
                return answer;
            }
            Self::HomeUnreachable => return answer,
        };
        let status = held.statement.status();
        answer.change_token = head.to_change_token(home);
        match judgement {
            Judgement::Status(level) => {
                answer.level = level_number(level);
                answer.conversion = Some(conversion(status, answer.level, policy_version));
                answer.assignment = assignment(status);
                answer.source = source.into();
                answer.as_of = Some(status.issued_at.to_protobuf());
                answer.statement = held.bytes.clone();
            }
            Judgement::Undetermined => {
                answer.conversion = Some(conversion(status, 0, policy_version));
                answer.source = source.into();
                answer.as_of = Some(status.issued_at.to_protobuf());
                answer.statement = held.bytes.clone();
            }
            Judgement::Unsubstantiated(authority) => {
                answer.correction = Some(step(&policy.correction(home, authority.as_ref())));
                let authority = authority.map(|authority| authority.to_string()).unwrap_or_default();
                answer.assignment = Some(Assignment { authority, ..Assignment::default() });
            }
            Judgement::UnknownTraveler | Judgement::HomeUnreachable => {}
        }
        answer
    }
}

/// The outcome on the wire.
pub(crate) fn outcome(judgement: &Judgement) -> Outcome {
    match judgement {
        Judgement::Status(_) => Outcome::Status,
        Judgement::Undetermined => Outcome::Undetermined,
        Judgement::Unsubstantiated(_) => Outcome::Unsubstantiated,
        Judgement::UnknownTraveler => Outcome::UnknownTraveler,
        Judgement::HomeUnreachable => Outcome::HomeUnreachable,
    }
}

fn level_number(level: Level) -> i32 {
    match level {
        Level::Green => types::Level::Green,
        Level::Yellow => types::Level::Yellow,
        Level::Red => types::Level::Red,
    }
    .into()
}

fn conversion(status: &Status, level: i32, policy_version: u64) -> Conversion {
    Conversion { member: status.issuer.to_string(), label: status.label.clone(), level, policy_version }
}

fn assignment(status: &Status) -> Option<Assignment> {
    let there = status.rule.is_some() || status.authority.is_some() || status.assigned_at.is_some();
    there.then(|| Assignment {
        rule: status.rule.clone().unwrap_or_default(),
        authority: status.authority.as_ref().map(ToString::to_string).unwrap_or_default(),
        assign_time: status.assigned_at.map(UnixTime::to_protobuf),
    })
}

fn step(text: &Text) -> NextStep {
    NextStep { zh: text.zh.clone(), en: text.en.clone() }
}
