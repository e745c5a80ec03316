//! What happened, by simulated time: everything the checker knows.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::{
    contract::recognition::{Decision, Outcome, RecognizeResponse, Source},
    refusal::{Reason, Refusal, reason_name},
    statement::LogHead,
};
use province_stub::seed::{Condition, SeededPerson};
use tongxing::checkpoint::Seen;
use tonic::Status;

/// A simulated instant: how long after the beginning.
pub(crate) type At = Duration;

/// A token, by its number: those of the roster first, then those issued on the way.
pub(crate) type PassId = usize;

/// What stands behind a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Value {
    /// A green.
    Green,
    /// A red that counts, by its rule.
    Red(Rule),
    /// A red by a rule that no policy has.
    Unsubstantiated,
    /// Nothing that home vouches for.
    Nothing,
    /// The consent was taken back.
    Revoked,
}

/// Rules by which a red counts: three, so that one red is not taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// A case.
    Case,
    /// Came from a high-risk area.
    Area,
    /// A contact.
    Contact,
}

impl Rule {
    pub(crate) const ALL: [Self; 3] = [Self::Case, Self::Area, Self::Contact];

    /// Its name, and who may invoke it.
    pub(crate) const fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Case => ("R-CASE", "44/cdc"),
            Self::Area => ("R-HIGH-AREA", "44/joint-mechanism"),
            Self::Contact => ("R-CONTACT", "44/health-commission"),
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name().0 == name)
    }
}

impl Value {
    /// What a seeded person's tokens come to.
    pub(crate) fn seeded(person: &SeededPerson) -> Self {
        match person.condition {
            Condition::Green => Self::Green,
            Condition::Unsubstantiated => Self::Unsubstantiated,
            Condition::NoCode => Self::Nothing,
            Condition::Red => {
                let rule = person.assigned_by().and_then(|(rule, _)| Rule::named(rule));
                Self::Red(rule.expect("seeded reds have rules of the policy"))
            }
            Condition::Yellow | Condition::Undetermined => unreachable!("this member has no such label"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Green => f.write_str("green"),
            Self::Red(rule) => write!(f, "red by {}", rule.name().0),
            Self::Unsubstantiated => f.write_str("unsubstantiated"),
            Self::Nothing => f.write_str("nothing"),
            Self::Revoked => f.write_str("revoked"),
        }
    }
}

/// Something that happened. Asks and writes are noted when they end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Home was asked to change something.
    Write(Write),
    /// Home came back with an older copy of its store.
    Restored(Restored),
    /// A venue asked.
    Ask(Ask),
    /// A fault began or ended.
    Fault(At, String),
}

/// A change at home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// What.
    pub(crate) what: Change,
    /// When home was first asked.
    pub(crate) began: At,
    /// When it said that it is so, or was asked no more.
    pub(crate) ended: At,
    /// Whether it said so.
    pub(crate) acknowledged: bool,
}

/// What home was asked to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A person's code, by their place among the people.
    Code(usize, Value),
    /// A consent is taken back.
    Revoke(PassId),
    /// A person gets another token.
    Issue(usize, PassId),
}

/// A restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    /// When the copy was made.
    pub(crate) copied: At,
    /// When the node ended.
    pub(crate) crashed: At,
    /// When it was there again.
    pub(crate) up: At,
}

/// A question and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Which gateway, from 0.
    pub(crate) gateway: usize,
    /// How often it had been started, when the question was sent and when the answer came.
    pub(crate) incarnations: (u32, u32),
    /// Whose code.
    pub(crate) pass: PassId,
    /// How fresh the answer is to be.
    pub(crate) wanted: Wanted,
    /// When.
    pub(crate) sent: At,
    /// When the answer came.
    pub(crate) received: At,
    /// The answer.
    pub(crate) answer: Answer,
    /// Whether it is one of the last, which must be right.
    pub(crate) last: Last,
}

/// How fresh an answer is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing special.
    Default,
    /// As fresh as this.
    AtLeast(LogHead),
    /// Straight from home.
    FromHome,
}

/// Whether a question is one of those at the end, when everything has healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// No.
    No,
    /// The first look.
    First,
    /// The second look.
    Second,
}

/// What a venue was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Something of home's.
    Told(Told),
    /// Home gave no valid answer.
    Unreachable {
        /// Whether the gate opens.
        pass: bool,
    },
    /// The call failed or was refused.
    Failed(String),
    /// What no gateway may answer.
    Wrong(String),
}

/// What a venue was told of home's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// What it comes to.
    pub(crate) value: Value,
    /// Where it came from: only what has a statement says so.
    pub(crate) source: Option<Source>,
    /// Whether the gate opens.
    pub(crate) pass: bool,
    /// Where home's log stood.
    pub(crate) head: Option<LogHead>,
    /// Where it stood when home signed, if there is a statement.
    pub(crate) signed_at: Option<LogHead>,
}

impl Event {
    /// When it was noted.
    fn ended(&self) -> At {
        match self {
            Self::Write(write) => write.ended,
            Self::Restored(restored) => restored.up,
            Self::Ask(ask) => ask.received,
            Self::Fault(at, _) => *at,
        }
    }

    /// A question.
    pub(crate) fn as_ask(&self) -> Option<&Ask> {
        match self {
            Self::Ask(ask) => Some(ask),
            Self::Write(_) | Self::Restored(_) | Self::Fault(..) => None,
        }
    }
}

impl Answer {
    /// What a venue made of it.
    pub(crate) fn of(seen: Result<Result<Seen, Status>, anyhow::Error>) -> Self {
        match seen {
            Err(error) => Self::Wrong(format!("{error:#}")),
            Ok(Ok(seen)) => Self::read(&seen),
            Ok(Err(status)) => match Refusal::reason_of(&status) {
                Some(Reason::ConsentRevoked) => {
                    Self::Told(Told { value: Value::Revoked, source: None, pass: false, head: None, signed_at: None })
                }
                Some(reason) => Self::Failed(reason_name(reason).to_owned()),
                None => Self::Failed(format!("{:?}", status.code())),
            },
        }
    }

    fn read(seen: &Seen) -> Self {
        let answer = &seen.answer;
        let pass = answer.decision() == Decision::Pass;
        let value = match answer.outcome() {
            Outcome::HomeUnreachable => return Self::Unreachable { pass },
            Outcome::UnknownTraveler => Value::Nothing,
            Outcome::Unsubstantiated => Value::Unsubstantiated,
            Outcome::Status => match stated(seen) {
                Ok(value) => value,
                Err(wrong) => return Self::Wrong(wrong),
            },
            other => return Self::Wrong(other.as_str_name().to_owned()),
        };
        Self::Told(Told {
            value,
            source: Some(answer.source()).filter(|source| *source != Source::Unspecified),
            pass,
            head: LogHead::from_change_token(&answer.change_token).map(|(_, head)| head),
            signed_at: seen.statement.as_ref().map(|statement| statement.status().head),
        })
    }
}

/// What a status says, if its statement says the same.
fn stated(seen: &Seen) -> Result<Value, String> {
    let answer: &RecognizeResponse = &seen.answer;
    let Some(statement) = &seen.statement else { return Err("a status without a statement".into()) };
    let status = statement.status();
    let label = answer.conversion.as_ref().map(|conversion| conversion.label.as_str());
    if label != Some(status.label.as_str()) {
        return Err(format!("label {label:?}, and the statement has {}", status.label));
    }
    let rule = status.rule.as_deref().and_then(Rule::named);
    match (status.label.as_str(), tongxing::checkpoint::level_word(answer), rule) {
        ("绿码", "green", _) => Ok(Value::Green),
        ("红码", "red", Some(rule)) => Ok(Value::Red(rule)),
        other => Err(format!("{other:?}")),
    }
}

/// Where everybody notes what happens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<Event>>>);

impl Recorder {
    /// Notes an event.
    pub(crate) fn note(&self, event: Event) {
        self.lock().push(event);
    }

    /// All of them by the times at which they ended: those of one moment in an order that chance has no part in.
    pub(crate) fn take(&self) -> Vec<Event> {
        let mut events = std::mem::take(&mut *self.lock());
        events.sort_by_cached_key(|event| (event.ended(), event.to_string()));
        events
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(write) => {
                write!(f, "{} ", At3(write.began))?;
                match write.what {
                    Change::Code(person, value) => write!(f, "set person {person} {value}: ")?,
                    Change::Revoke(pass) => write!(f, "revoke {pass}: ")?,
                    Change::Issue(person, pass) => write!(f, "issue {pass} to person {person}: ")?,
                }
                let what = if write.acknowledged { "acknowledged" } else { "given up" };
                write!(f, "{what} {}", At3(write.ended))
            }
            Self::Restored(Restored { copied, crashed, up }) => {
                write!(f, "{} restored to {}, crashed {}", At3(*up), At3(*copied), At3(*crashed))
            }
            Self::Fault(at, what) => write!(f, "{} {what}", At3(*at)),
            Self::Ask(ask) => {
                let Ask { gateway, incarnations: (then, now), pass, wanted, sent, received, answer, last } = ask;
                write!(f, "{} ask {pass} at gateway-{}#{then}", At3(*sent), gateway + 1)?;
                if then != now {
                    write!(f, "→{now}")?;
                }
                match wanted {
                    Wanted::Default => {}
                    Wanted::AtLeast(head) => write!(f, " at least {}", Place(*head))?,
                    Wanted::FromHome => f.write_str(" from home")?,
                }
                if *last != Last::No {
                    write!(f, " ({last:?})")?;
                }
                write!(f, ": {} {answer}", At3(*received))
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(Told { value, source, head, signed_at, pass }) => {
                write!(f, "{value}")?;
                if *pass {
                    f.write_str(", PASS")?;
                }
                if let Some(source) = source {
                    write!(f, " from {}", source.as_str_name().trim_start_matches("SOURCE_"))?;
                }
                for (what, head) in [("at", head), ("signed at", signed_at)] {
                    if let Some(head) = head {
                        write!(f, ", {what} {}", Place(*head))?;
                    }
                }
                Ok(())
            }
            Self::Unreachable { .. } => f.write_str("home unreachable"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Wrong(why) => write!(f, "wrong: {why}"),
        }
    }
}

/// Seconds with milliseconds.
pub(crate) struct At3(pub(crate) At);

impl fmt::Display for At3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.3}", self.0.as_secs_f64())
    }
}

/// A place in a log, its epoch shortened.
struct Place(LogHead);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogHead { epoch, seq } = self.0;
        write!(f, "{:02x}{:02x}/{seq}", epoch[0], epoch[1])
    }
}
