//! Steps about consents: asked for, listed, revoked.

use serde::Deserialize;

use super::{Party, Refused, TOKEN, TRAVELER, Tamper};

/// `IssueConsent`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Issue {
    /// Who calls.
    pub r#as: Party,
    /// Whose phone asks.
    pub person: String,
    /// Under which name the token is kept for later steps.
    pub slot: String,
    /// 1 own, 2 dependent, 3 paper, 4 assisted.
    pub kind: u8,
    /// Scope bits.
    pub scope: u8,
    /// Purposes.
    pub purposes: Vec<u8>,
    /// Where it may be redeemed.
    pub audience: String,
    /// Seconds.
    pub life: u64,
    /// How many seconds ago the phone signed.
    pub age: i64,
    /// The token's key.
    pub key: TokenKey,
    /// Whether the phone is one that enrolled.
    pub device_known: bool,
    /// Whether it signs with the key it enrolled with.
    pub signer_known: bool,
    /// The request's own id.
    pub nonce: Nonce,
    /// What is done to the signed request.
    pub tamper: Vec<Tamper>,
    /// How often, each time a new request.
    pub times: u32,
    /// It returns the token of the last time.
    pub same: bool,
    /// By how much its change token moved since that of the case's last write.
    pub moved: Option<u64>,
    /// It is refused.
    pub refused: Option<Refused>,
}

/// Which token key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKey {
    /// A new one where the kind has one.
    #[default]
    Fresh,
    /// The phone's enrolment key.
    Enrollment,
    /// The one of the last token.
    Used,
    /// None, whatever the kind.
    Missing,
    /// A new one, whatever the kind.
    Extra,
}

/// Which of the phone's own ids a request for a token has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nonce {
    /// A random one.
    #[default]
    New,
    /// That of the last request, in a request with other content.
    Same,
    /// The last request again, byte for byte.
    Again,
    /// The last request again, signed anew a second later.
    SignedAgain,
}

/// `ListConsents`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct List {
    /// Who calls.
    pub r#as: Party,
    /// Whose.
    pub person: String,
    /// The device: 16 bytes of the person's, or as many random ones as this.
    pub device_bytes: Option<usize>,
    /// Consents on a page.
    pub page_size: i32,
    /// A page token that was never given out.
    pub page_token: Option<String>,
    /// How many there are on all pages together.
    pub count: Option<usize>,
    /// Slots whose tokens are among them.
    pub has: Vec<String>,
    /// Slots whose tokens are not.
    pub lacks: Vec<String>,
    /// Slots whose tokens are said to be revoked; all others are not.
    pub revoked: Vec<String>,
    /// It is refused.
    pub refused: Option<Refused>,
}

/// `RevokeConsent`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Revoke {
    /// Who calls.
    pub r#as: Party,
    /// By whose device.
    pub person: String,
    /// The device: 16 bytes of the person's, or as many random ones as this.
    pub device_bytes: Option<usize>,
    /// Which token.
    pub slot: String,
    /// As many random bytes as this instead of the token's handle.
    pub cti_bytes: Option<usize>,
    /// It is refused.
    pub refused: Option<Refused>,
}

impl Default for Issue {
    fn default() -> Self {
        Self {
            r#as: Party::Backend,
            person: TRAVELER.into(),
            slot: TOKEN.into(),
            kind: 1,
            scope: 63,
            purposes: vec![1, 2, 3, 4, 5, 6],
            audience: "*".into(),
            life: 600,
            age: 0,
            key: TokenKey::Fresh,
            device_known: true,
            signer_known: true,
            nonce: Nonce::New,
            tamper: Vec::new(),
            times: 1,
            same: false,
            moved: None,
            refused: None,
        }
    }
}

impl Default for List {
    fn default() -> Self {
        Self {
            r#as: Party::Backend,
            person: TRAVELER.into(),
            device_bytes: None,
            page_size: 0,
            page_token: None,
            count: None,
            has: Vec::new(),
            lacks: Vec::new(),
            revoked: Vec::new(),
            refused: None,
        }
    }
}

impl Default for Revoke {
    fn default() -> Self {
        Self {
            r#as: Party::Backend,
            person: TRAVELER.into(),
            device_bytes: None,
            slot: TOKEN.into(),
            cti_bytes: None,
            refused: None,
        }
    }
}
