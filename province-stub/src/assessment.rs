//! What a store asks when it works out a code: a person's file goes in, the code that holds now comes out, and when time alone may
//! change it. The store hands over what it has on file within the transaction that writes the code (I4), and knows no rule.

use proto::{statement::Authority, time::UnixTime};

use crate::evidence::{Evidence, EvidenceId};

/// What is on file about a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dossier {
    /// The assignment that stands whatever the evidence said until then: by hand, by the platform, or seeded.
    pub base: Option<Base>,
    /// All evidence about them, in no order.
    pub evidence: Vec<Evidence>,
}

/// An assignment that stands whatever the evidence said until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The member's own label.
    pub label: String,
    /// The rule, if it has one.
    pub rule: Option<String>,
    /// The authority, if it has one.
    pub authority: Option<Authority>,
    /// The latest evidence about the person that was on file when it was set: what came after it counts beside it.
    pub covers: EvidenceId,
}

/// What a file comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The code that holds now.
    pub outcome: Outcome,
    /// When time alone may change it; later than the time of the assessment. `None`: never.
    pub due_at: Option<UnixTime>,
}

/// Which code holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The base stands.
    Base,
    /// What follows from rules and evidence.
    Assigned(Assigned),
    /// Nothing that the member has a label for: it vouches for no code.
    NoCode,
}

/// A code that follows from rules and evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The member's own label.
    pub label: String,
    /// The rule; a green that follows from none has none.
    pub rule: Option<String>,
    /// The authority in whose name the evidence came; a green that follows from no rule has none.
    pub authority: Option<Authority>,
    /// The evidence that it follows from.
    pub evidence: Option<EvidenceId>,
    /// When it ends by its rule, if nothing else happens.
    pub ends_at: Option<UnixTime>,
}

/// Works out codes.
pub trait Assess: Send + Sync {
    /// What a person's file comes to at `now`.
    fn assess(&self, dossier: &Dossier, now: UnixTime) -> Assessment;
}
