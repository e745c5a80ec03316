//! What is put on file about people beside their consents: evidence, pushed codes, and who looked; and what the store says of it.

use proto::{
    statement::{Authority, LogHead},
    time::UnixTime,
};

use super::{Code, Particulars};
use crate::{
    document::Document,
    evidence::{Evidence, Foreign, Record},
};

/// Evidence to take in, from one source. All of it or, in a dry run, nothing is kept.
#[derive(Clone, Copy, Debug)]
pub struct Intake<'a> {
    /// Whose record ids these are, e.g. `44/feed/lab-1`.
    pub source: &'a str,
    /// The records.
    pub records: &'a [Record],
    /// When they came.
    pub now: UnixTime,
    /// Says what would become of them, and keeps nothing.
    pub dry_run: bool,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenIn {
    /// One for each record, in order.
    pub verdicts: Vec<Filed>,
    /// What followed.
    pub effect: Effect,
}

/// What became of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filed {
    /// It is on file now.
    Accepted,
    /// It was on file already, just so.
    Unchanged,
    /// It has taken the place of an earlier revision.
    Corrected,
    /// What was on file under its id counts no more.
    Withdrawn,
    /// It is not on file.
    Refused(NotFiled),
}

/// Why a record is not on file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFiled {
    /// A later revision is.
    Superseded,
    /// This revision is, with another content.
    Conflict,
    /// There is no such person.
    PersonUnknown,
    /// It was over longer ago than evidence is kept.
    TooOld,
    /// The area was not listed at any time of the stay.
    AreaNotListed,
    /// As much as may be is on file about this person, or this area.
    TooMuch,
}

/// What a write came to in the change log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Where it stands afterwards.
    pub head: LogHead,
    /// How many consents it changed: as many events.
    pub changed: u32,
}

/// A code that the member's own platform pushed.
#[derive(Clone, PartialEq, Eq)]
pub struct PushedCode {
    /// Whose: the platform's own reference.
    pub reference: Foreign,
    /// The code; `None` if the platform has none any more.
    pub code: Option<PushedLabel>,
    /// Since when it holds, by the platform.
    pub assigned_at: UnixTime,
}

/// What a pushed code says.
#[derive(Clone, PartialEq, Eq)]
pub struct PushedLabel {
    /// The member's own label.
    pub label: String,
    /// The rule; a green may have none.
    pub rule: Option<String>,
    /// The authority; a green may have none.
    pub authority: Option<Authority>,
    /// What the decision rests on, as the platform wrote it; may be empty.
    pub basis: String,
}

/// What became of a batch of pushed codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedIn {
    /// One for each code, in order; `None` for one that was refused before it came here.
    pub verdicts: Vec<Option<Assignment>>,
    /// What followed.
    pub effect: Effect,
}

/// What became of one pushed code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// It is the platform's word now, and holds unless an operator has set another one since it was decided.
    Assigned,
    /// It was the platform's word already, just so.
    Unchanged,
    /// The platform has none any more.
    Withdrawn,
    /// The platform's word is of later.
    Outdated,
}

/// The end of what was set by hand.
#[derive(Clone)]
pub struct Cleared {
    /// Whose code.
    pub document: Document,
    /// For the member's own file.
    pub justification: String,
    /// Who ended it.
    pub cleared_by: String,
    /// When.
    pub now: UnixTime,
}

/// How many people were worked out anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reassessed {
    /// How many.
    pub people: u32,
    /// What followed.
    pub effect: Effect,
}

/// Where a code on file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An operator set it.
    Hand,
    /// The member's own platform pushed it.
    Platform,
    /// It follows from rules and evidence.
    Rules,
    /// It was there when the node was set up.
    Seed,
}

impl Origin {
    const ALL: [Self; 4] = [Self::Hand, Self::Platform, Self::Rules, Self::Seed];

    /// The word for it, as stored.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hand => "hand",
            Self::Platform => "platform",
            Self::Rules => "rules",
            Self::Seed => "seed",
        }
    }

    /// From its word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.word() == word)
    }
}

/// A code with what it follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeOnFile {
    /// The code.
    pub code: Code,
    /// Where it comes from.
    pub origin: Origin,
    /// When it ends by its rule, if nothing else happens.
    pub ends_at: Option<UnixTime>,
    /// When time alone may change it.
    pub due_at: Option<UnixTime>,
    /// The evidence that it follows from.
    pub evidence: Option<EvidenceOnFile>,
}

/// A record of evidence with where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceOnFile {
    /// Who brought it, e.g. `44/feed/lab-1`.
    pub source: String,
    /// The source's own id of it.
    pub record: String,
    /// What it says.
    pub evidence: Evidence,
}

/// An operator's look at a person.
#[derive(Clone)]
pub struct OperatorAccess {
    /// Whose code.
    pub document: Document,
    /// Who looked, e.g. `44/operator/li`.
    pub operator: String,
    /// What for; the person can read it.
    pub reason: String,
    /// When.
    pub now: UnixTime,
}

/// An operator's look, as its person sees it.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorLook {
    /// Its number, in the order in which they came.
    pub id: u64,
    /// When.
    pub at: UnixTime,
    /// Who.
    pub operator: String,
    /// What for.
    pub reason: String,
}

/// All that is on file about a person, but for consents and accesses, which have lists of their own.
#[derive(Clone)]
pub struct PersonFile {
    /// Who they are; `None` for whom the platform alone has named.
    pub particulars: Option<(Document, Particulars)>,
    /// Whether the platform has given them a reference.
    pub has_reference: bool,
    /// Their devices: id and when it enrolled.
    pub devices: Vec<(super::DeviceId, UnixTime)>,
    /// Every assignment ever made, the latest first.
    pub codes: Vec<PastCode>,
    /// All evidence, the latest first.
    pub evidence: Vec<EvidenceOnFile>,
}

/// An assignment that was made once.
#[derive(Clone)]
pub struct PastCode {
    /// The label; `None` if the code was taken away.
    pub label: Option<String>,
    /// The rule.
    pub rule: Option<String>,
    /// The authority.
    pub authority: Option<String>,
    /// Since when it held.
    pub assigned_at: UnixTime,
    /// When it was put on file.
    pub recorded_at: UnixTime,
    /// Where it came from.
    pub origin: Origin,
    /// Who set it.
    pub set_by: String,
    /// Why, as they wrote it.
    pub justification: Option<String>,
}

redacted!(Cleared, OperatorAccess, OperatorLook, PastCode, PersonFile, PushedCode, PushedLabel);
