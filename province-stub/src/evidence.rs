//! Evidence: what a source says of a person or of an area, as it is brought and as it is on file.
//!
//! A source numbers its records and their revisions itself; of each record the latest revision counts. Nothing here decides what
//! follows from evidence: that is [`crate::rules`].

use proto::{policy::EvidenceKind, statement::Authority, time::UnixTime};
use thiserror::Error;

use crate::document::{Document, holds_resident_id};

/// The highest revision of a record.
pub const MAX_REVISION: u32 = 1_000_000;
/// Records of evidence of one source that are on file about one person at most.
pub const MAX_EVIDENCE: u32 = 1_000;
/// Listings of one area that are on file at most.
pub const MAX_LISTINGS: usize = 200;

/// A name that another system gave to something of its own: 1 to 64 characters of A–Z, a–z, 0–9, '.', '_', ':' and '-', with
/// no resident ID's number in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Foreign(Box<str>);

/// Why a text is not a [`Foreign`] name. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ForeignError {
    /// Characters or length.
    #[error("1 to 64 characters of A-Z, a-z, 0-9, '.', '_', ':' and '-'")]
    Form,
    /// It is somebody's.
    #[error("has a resident ID's number in it; a name of your own is expected")]
    ResidentId,
}

/// One record as a source brings it.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The source's own id of it.
    pub id: Foreign,
    /// 0 at first; at most [`MAX_REVISION`].
    pub revision: u32,
    /// What it says.
    pub content: Content,
}

/// What a record says.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// Something about a person.
    About {
        /// Whom.
        person: PersonKey,
        /// What.
        fact: Fact,
        /// In whose name.
        authority: Authority,
    },
    /// An area is at risk.
    Listing {
        /// Which, and how.
        listing: Listing,
        /// In whose name.
        authority: Authority,
    },
    /// Something that was over longer ago than evidence is kept: of an earlier revision it takes the place, and counts no more.
    TooOld,
    /// Nothing any more.
    Withdrawn,
}

/// How a source names a person.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PersonKey {
    /// By identity document.
    Document(Document),
    /// By the reference that the member's own platform gave them.
    Reference(Foreign),
}

/// A fact about a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A nucleic-acid test.
    Test {
        /// When the sample was taken.
        sampled_at: UnixTime,
        /// Whether it was positive.
        positive: bool,
    },
    /// A dose of a vaccine.
    Dose {
        /// First, second, …: 1 to 9.
        number: u8,
        /// When it was given.
        given_at: UnixTime,
    },
    /// A stay in an area.
    Stay {
        /// The county, six digits of GB/T 2260.
        area: u32,
        /// When the person came.
        entered_at: UnixTime,
        /// When the person left; not before they came.
        left_at: UnixTime,
    },
    /// A case, confirmed or asymptomatic.
    Case {
        /// Since when.
        since: UnixTime,
        /// When it ended; not before it began.
        ended_at: Option<UnixTime>,
    },
    /// A close contact of a case.
    Contact {
        /// The last time of it.
        last_at: UnixTime,
    },
}

/// How dangerous an area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Risk {
    /// There have been cases in it.
    Low = 1,
    /// 中风险.
    Medium = 2,
    /// 高风险.
    High = 3,
}

/// An area at risk for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The county, six digits of GB/T 2260.
    pub area: u32,
    /// Of what risk.
    pub risk: Risk,
    /// Since when.
    pub since: UnixTime,
    /// Until when; not before it began.
    pub until: Option<UnixTime>,
}

/// The number of a record on file; never leaves the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EvidenceId(pub i64);

/// A fact on file about a person whose file it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Its number.
    pub id: EvidenceId,
    /// What it says.
    pub fact: Fact,
    /// Of a stay: the highest risk that its area was listed with meanwhile; `None` if it was not listed, or is not any more.
    pub risk: Option<Risk>,
    /// In whose name it was brought; `None` in what was seeded.
    pub authority: Option<Authority>,
    /// When it came.
    pub received_at: UnixTime,
}

impl Listing {
    /// Whether it has any time from one to another, both included.
    pub fn is_amid(&self, from: UnixTime, to: UnixTime) -> bool {
        self.since <= to && self.until.is_none_or(|until| until >= from)
    }
}

impl Foreign {
    /// Reads a name.
    pub fn new(text: &str) -> Result<Self, ForeignError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if !(1..=64).contains(&text.len()) || !text.bytes().all(plain) {
            return Err(ForeignError::Form);
        }
        if holds_resident_id(text) {
            return Err(ForeignError::ResidentId);
        }
        Ok(Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Risk {
    /// From its number; `None` for any other.
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High].into_iter().find(|risk| *risk as u64 == number)
    }

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl Fact {
    /// What kind of evidence it is.
    pub const fn kind(&self) -> EvidenceKind {
        match self {
            Self::Test { .. } => EvidenceKind::Test,
            Self::Dose { .. } => EvidenceKind::Dose,
            Self::Stay { .. } => EvidenceKind::Stay,
            Self::Case { .. } => EvidenceKind::Case,
            Self::Contact { .. } => EvidenceKind::Contact,
        }
    }

    /// When it begins, and when it ended if it has an end of its own.
    pub const fn span(&self) -> (UnixTime, Option<UnixTime>) {
        match *self {
            Self::Test { sampled_at, .. } => (sampled_at, None),
            Self::Dose { given_at, .. } => (given_at, None),
            Self::Stay { entered_at, left_at, .. } => (entered_at, Some(left_at)),
            Self::Case { since, ended_at } => (since, ended_at),
            Self::Contact { last_at } => (last_at, None),
        }
    }
}

redacted!(Content, Foreign, PersonKey, Record);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_systems_are_as_documented() {
        assert!(Foreign::new("lab-1:2022.04_30").is_ok() && Foreign::new(&"a".repeat(64)).is_ok());
        for wrong in ["", "a b", "检测", "a/b", &"a".repeat(65)] {
            assert_eq!(Foreign::new(wrong), Err(ForeignError::Form), "{wrong}");
        }
        // The standard's own example (GB 11643-1999).
        for somebody in ["11010519491231002X", "11010519491231002x", "11010519491231002X-0428", "p:11010519491231002X"]
        {
            assert_eq!(Foreign::new(somebody), Err(ForeignError::ResidentId), "{somebody}");
        }
        assert!(Foreign::new("110105194912310021").is_ok());
    }

    #[test]
    fn debug_shows_nobody() {
        let record = Record { id: Foreign::new("record-1").unwrap(), revision: 0, content: Content::Withdrawn };
        assert_eq!(format!("{record:?}"), "Record(…)");
    }
}
