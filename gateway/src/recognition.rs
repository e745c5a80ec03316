//! Recognition: what home's statement comes to under the policy of this moment, and the answer that says so (I5, I8).

use proto::{
    contract::{
        recognition::{Assignment, Conversion, NextStep, Outcome, RecognizeResponse, Source},
        types,
    },
    member::Member,
    policy::{Judgement, Policy, Text},
    refusal::{Object, Refusal},
    statement::{LogHead, Statement, Status, UnverifiedStatement},
    terms::{Level, Scope},
    time::UnixTime,
    token::ConsentToken,
    trust::TrustList,
};
use tracing::instrument;

/// What became of an exchange.
#[derive(Debug)]
pub(crate) enum Finding {
    /// Home's verified statement and what it comes to.
    Stated {
        /// The statement as home signed it.
        bytes: Vec<u8>,
        /// The statement.
        statement: Box<Statement>,
        /// What it comes to.
        judgement: Judgement,
    },
    /// Home vouches for no code; where its change log stood.
    UnknownTraveler(Option<LogHead>),
    /// Home gave no valid answer.
    HomeUnreachable,
}

impl Finding {
    /// Verifies home's statement: its own key, this token, holding now, no more than was granted. Then judges it.
    #[instrument(level = "debug", name = "statement", skip_all)]
    pub(crate) fn of_statement(
        bytes: Vec<u8>,
        token: &ConsentToken,
        granted: Scope,
        list: &TrustList,
        policy: &Policy,
        now: UnixTime,
    ) -> Result<Self, Refusal> {
        let issuer = token.consent().issuer;
        let unverified = UnverifiedStatement::parse(&bytes)?;
        let key = list.statement_key(issuer, unverified.kid())?;
        let statement = unverified.verify(key)?;
        statement.check_binding(issuer, token.hash())?;
        statement.check_time(now, &policy.lives)?;
        statement.check_scope(granted)?;
        let judgement = policy.judge(statement.status());
        Ok(Self::Stated { bytes, statement: Box::new(statement), judgement })
    }

    /// Refuses a statement from before what was known of home's change log when home was asked (I4).
    pub(crate) fn not_older_than(self, known: Option<LogHead>) -> Result<Self, Refusal> {
        match (&self, known) {
            (Self::Stated { statement, .. }, Some(known)) => {
                let head = statement.status().head;
                if head.epoch == known.epoch && head.seq < known.seq {
                    return Err(Refusal::malformed(Object::Statement, "it is older than what is known"));
                }
                Ok(self)
            }
            _ => Ok(self),
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

    /// The bytes of the statement, if there is one.
    pub(crate) fn statement_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Stated { bytes, .. } => Some(bytes),
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
        let (bytes, statement, judgement) = match self {
            Self::Stated { bytes, statement, judgement } => (bytes, statement, judgement),
            Self::UnknownTraveler(head) => {
                answer.change_token = head.map(|head| head.to_change_token(home)).unwrap_or_default();
                return answer;
            }
            Self::HomeUnreachable => return answer,
        };
        let status = statement.status();
        answer.change_token = status.head.to_change_token(home);
        match judgement {
            Judgement::Status(level) => {
                answer.level = level_number(level);
                answer.conversion = Some(conversion(status, answer.level, policy_version));
                answer.assignment = assignment(status);
                answer.source = Source::Home.into();
                answer.as_of = Some(status.issued_at.to_protobuf());
                answer.statement = bytes;
            }
            Judgement::Undetermined => {
                answer.conversion = Some(conversion(status, 0, policy_version));
                answer.source = Source::Home.into();
                answer.as_of = Some(status.issued_at.to_protobuf());
                answer.statement = bytes;
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
