//! What a store keeps and gives back about people, their devices, codes and consents, in the domain's own words.

use proto::{
    statement::{Authority, Dose, LogHead, RiskVisit, TestResult},
    suite::VerifyingKey,
    terms::{Kind, Scope},
    time::UnixTime,
    token::{Cti, TokenHash},
};

use crate::{document::Document, evidence::Foreign};

/// A person's number in the store; never leaves the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PersonId(pub i64);

/// A device's id: 16 random bytes. Known to the member only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceId(pub [u8; 16]);

/// A device to enrol.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// Its id.
    pub id: DeviceId,
    /// Whose it is.
    pub document: Document,
    /// Their name.
    pub name: Name,
    /// The key that signs its consent requests.
    pub enrollment_key: VerifyingKey,
    /// The reference that the member's own platform gave its person, if it did.
    pub reference: Option<Foreign>,
    /// When it enrols.
    pub now: UnixTime,
}

/// An enrolled device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Whose it is.
    pub person: PersonId,
    /// The key that signs its consent requests.
    pub enrollment_key: VerifyingKey,
}

/// A consent that was signed and is to be kept.
#[derive(Clone)]
pub struct NewConsent {
    /// Its handle.
    pub cti: Cti,
    /// Whose it is.
    pub person: PersonId,
    /// The device that asked for it; standing consents have none.
    pub device: Option<DeviceId>,
    /// How they consented.
    pub kind: Kind,
    /// What is disclosed.
    pub scope: Scope,
    /// The key that the token names.
    pub token_key: Option<VerifyingKey>,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// When it expires.
    pub expires_at: UnixTime,
    /// The signed token.
    pub token: Vec<u8>,
}

/// A token that was issued, now or before.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// Its handle.
    pub cti: Cti,
    /// When it expires.
    pub expires_at: UnixTime,
    /// The signed token.
    pub token: Vec<u8>,
}

/// A consent as its traveler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedConsent {
    /// Its handle.
    pub cti: Cti,
    /// How it was given.
    pub kind: Kind,
    /// What it discloses at most.
    pub scope: Scope,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// When it expires.
    pub expires_at: UnixTime,
    /// When it was revoked, if it was.
    pub revoked_at: Option<UnixTime>,
}

/// Where a page of consents ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageKey {
    /// When the last one was issued.
    pub issued_at: UnixTime,
    /// Its handle.
    pub cti: Cti,
}

/// What stands behind a handle at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where the change log stood at that moment.
    pub head: LogHead,
    /// The consent and its person, if there is such a consent.
    pub found: Option<Found>,
}

/// A consent and the person behind it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who it is, in the store.
    pub person: PersonId,
    /// The hash of the token that was issued.
    pub token: TokenHash,
    /// Whether it was revoked.
    pub revoked: bool,
    /// For the sealed hint, if the scope has it and the store knows.
    pub particulars: Option<Particulars>,
    /// The person's code, if one was ever assigned and none was taken back since.
    pub code: Option<Code>,
    /// When time alone may change the code.
    pub due_at: Option<UnixTime>,
    /// Latest first, at most [`proto::statement::MAX_TESTS`].
    pub tests: Vec<TestResult>,
    /// Latest first, at most [`proto::statement::MAX_DOSES`].
    pub doses: Vec<Dose>,
    /// Latest first, at most [`proto::statement::MAX_VISITS`].
    pub visits: Vec<RiskVisit>,
}

/// Who a person is, for the sealed hint alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Particulars {
    /// Their name.
    pub name: String,
    /// Their document's number.
    pub document_number: String,
}

/// A code as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// The member's own label.
    pub label: String,
    /// The rule it follows; greens may have none.
    pub rule: Option<String>,
    /// The authority that decided; greens may have none.
    pub authority: Option<Authority>,
    /// Since when it holds.
    pub assigned_at: UnixTime,
}

/// A code to assign by hand.
#[derive(Clone)]
pub struct NewAssignment {
    /// To whom.
    pub document: Document,
    /// The member's own label.
    pub label: String,
    /// The rule.
    pub rule: String,
    /// The authority.
    pub authority: Authority,
    /// For the member's own file.
    pub justification: String,
    /// Who set it.
    pub set_by: String,
    /// When.
    pub now: UnixTime,
}

/// An assignment as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Since when the code holds.
    pub assigned_at: UnixTime,
    /// Where the change log stood afterwards.
    pub head: LogHead,
    /// How many consents it changed.
    pub changed: u32,
}

/// A person who was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Where the change log stood afterwards.
    pub head: LogHead,
    /// How many consents were revoked.
    pub revoked: u32,
    /// How many codes that were set by hand went with them.
    pub by_hand: u32,
}

/// A person to add, with all that is known of them.
#[derive(Clone, Debug)]
pub struct NewPerson {
    /// Their document.
    pub document: Document,
    /// Their name.
    pub name: Name,
    /// Their code.
    pub code: Option<Code>,
    /// Their tests.
    pub tests: Vec<TestResult>,
    /// Their doses.
    pub doses: Vec<Dose>,
    /// Their stays in risk areas.
    pub visits: Vec<RiskVisit>,
}

/// A person's name: 1 to 64 characters, none of them a control character, no space at its ends.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(Box<str>);

/// An event of the change log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub seq: u64,
    /// The handle it is about.
    pub cti: Cti,
    /// What happened.
    pub what: ChangeKind,
    /// When.
    pub at: UnixTime,
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The status behind the handle changed.
    Status,
    /// The consent was revoked.
    Revoked,
}

impl Name {
    /// Reads a name.
    pub fn new(text: &str) -> Option<Self> {
        let valid =
            (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control) && text.trim() == text;
        valid.then(|| Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

redacted!(DeviceId, IssuedToken, Name, NewAssignment, NewConsent, Particulars);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        assert!(Name::new("王星洲").is_some() && Name::new(&"长".repeat(64)).is_some());
        for wrong in ["", " 王", "王\n", &"长".repeat(65)] {
            assert!(Name::new(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn debug_and_errors_show_no_person() {
        let particulars = Particulars { name: "王星洲".into(), document_number: "449999".into() };
        let shown = format!("{particulars:?} {:?} {:?}", Name::new("王星洲"), DeviceId([7; 16]));
        assert_eq!(shown, "Particulars(…) Some(Name(…)) DeviceId(…)");
    }
}
