//! The step that matters most.

use serde::Deserialize;

use super::{Party, Refused, TOKEN, Tamper};

/// `Lookup`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lookup {
    /// Who calls.
    pub r#as: Party,
    /// Which token.
    pub slot: String,
    /// What is done to it; the proof is made for the token as it is then.
    pub tamper: Vec<Tamper>,
    /// Whether there is a token at all.
    pub token: bool,
    /// The proof.
    pub proof: Proof,
    /// The asking venue.
    pub venue: String,
    /// Why it asks.
    pub purpose: i32,
    /// Scope bits.
    pub scope: u32,
    /// The exchange id's length.
    pub exchange_id_bytes: usize,
    /// How often with the very same request.
    pub times: u32,
    /// The answer is that home vouches for no code.
    pub unknown: bool,
    /// The statement's label: `green` and `red` are the member's own words for them.
    pub label: Option<String>,
    /// What the statement has.
    pub has: Vec<Field>,
    /// What it has not.
    pub lacks: Vec<Field>,
    /// By how much the change log moved since the case's last statement.
    pub advanced: Option<u64>,
    /// It is refused.
    pub refused: Option<Refused>,
}

/// The proof of a lookup.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Proof {
    /// Whether there is one; by default if the token has a key.
    pub there: Option<bool>,
    /// The venue it is bound to.
    pub venue: Option<String>,
    /// How many seconds ago the phone made it.
    pub age: i64,
    /// Seconds.
    pub life: u64,
    /// The slot of the token that it is made for, if not the one shown.
    pub of: Option<String>,
    /// Whether the token's own key signs.
    pub key_known: bool,
    /// What is done to it.
    pub tamper: Vec<Tamper>,
}

/// A field of a statement that may be there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Field {
    /// The rule.
    Rule,
    /// The authority.
    Authority,
    /// When the label was assigned.
    AssignedAt,
    /// Nucleic-acid tests.
    Tests,
    /// Vaccination.
    Doses,
    /// Risk-area visits.
    Visits,
    /// The sealed identity hint.
    Hint,
}

impl Default for Lookup {
    fn default() -> Self {
        Self {
            r#as: Party::Gateway,
            slot: TOKEN.into(),
            tamper: Vec::new(),
            token: true,
            proof: Proof::default(),
            // A hospital that treats people may see everything.
            venue: "11/hospital/first".into(),
            purpose: 3,
            scope: 1,
            exchange_id_bytes: 16,
            times: 1,
            unknown: false,
            label: None,
            has: Vec::new(),
            lacks: Vec::new(),
            advanced: None,
            refused: None,
        }
    }
}

impl Default for Proof {
    fn default() -> Self {
        Self { there: None, venue: None, age: 0, life: 60, of: None, key_known: true, tamper: Vec::new() }
    }
}
