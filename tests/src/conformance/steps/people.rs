//! Steps about people: devices enrolled, codes set.

use serde::Deserialize;

use super::{Party, Refused, TRAVELER};

/// A request's own id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestId {
    /// One that nobody used.
    #[default]
    New,
    /// One of the case's own, the same whenever it is named.
    Fixed,
    /// The one of the last step of its kind.
    Same,
    /// These characters.
    Text(String),
}

/// `EnrollDevice`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Enroll {
    /// Who calls.
    pub r#as: Party,
    /// For whom; `known` is a person whom the node had before, with evidence.
    pub person: String,
    /// Another type of document.
    pub r#type: Option<i32>,
    /// Another number; `resident` and `resident-wrong` are resident IDs, the second with another check digit.
    pub number: Option<String>,
    /// In which letters the number is sent.
    pub letters: Letters,
    /// Another name.
    pub name: Option<String>,
    /// Whether there is a document at all.
    pub document: bool,
    /// The enrolment key.
    pub key: EnrollmentKey,
    /// The request's id.
    pub request_id: RequestId,
    /// How often, each time a new request.
    pub times: u32,
    /// It returns the device of the last time.
    pub same: bool,
    /// It is refused.
    pub refused: Option<Refused>,
}

/// Which letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Letters {
    /// Capitals, as on the document.
    Upper,
    /// Small ones, as people type them.
    Lower,
}

/// Which enrolment key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnrollmentKey {
    /// A new one.
    #[default]
    Fresh,
    /// The one of the last enrolment.
    Used,
    /// The one of the last token.
    Token,
    /// None.
    Missing,
    /// Bytes that are no COSE_Key.
    Noise,
    /// A COSE_Key whose point is on no curve.
    OffCurve,
    /// A good key with an entry more.
    Extended,
}

/// `SetCode`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SetCode {
    /// Who calls.
    pub r#as: Party,
    /// To whom.
    pub person: String,
    /// Whether there is a document at all.
    pub document: bool,
    /// `green` and `red` are the member's own words for them; anything else is taken as it is.
    pub label: String,
    /// The rule; one that fits the label unless said.
    pub rule: Option<String>,
    /// The authority; HOME and OTHER are the member's code and another's.
    pub authority: String,
    /// Why.
    pub justification: String,
    /// The request's id.
    pub request_id: RequestId,
    /// How many live consents it changes.
    pub changed: Option<u32>,
    /// It answers what it answered the last time.
    pub same: bool,
    /// It says the assignment time of the last time, which is not the time it is.
    pub same_time: bool,
    /// It is refused.
    pub refused: Option<Refused>,
}

impl Default for Enroll {
    fn default() -> Self {
        Self {
            r#as: Party::Backend,
            person: TRAVELER.into(),
            r#type: None,
            number: None,
            letters: Letters::Upper,
            name: None,
            document: true,
            key: EnrollmentKey::Fresh,
            request_id: RequestId::New,
            times: 1,
            same: false,
            refused: None,
        }
    }
}

impl Default for SetCode {
    fn default() -> Self {
        Self {
            r#as: Party::Operator,
            person: TRAVELER.into(),
            document: true,
            label: "green".into(),
            rule: None,
            authority: "HOME/cdc".into(),
            justification: "conformance".into(),
            request_id: RequestId::New,
            changed: None,
            same: false,
            same_time: false,
            refused: None,
        }
    }
}
