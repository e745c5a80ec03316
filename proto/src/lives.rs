//! The longest lives that policy gives to what is signed for one traveler.

use std::time::Duration;

use crate::terms::Kind;

/// Longest lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// Of a token with a device, and of an assisted one.
    pub token: Duration,
    /// Of a paper token.
    pub paper: Duration,
    /// Of a proof.
    pub proof: Duration,
    /// Of a statement.
    pub statement: Duration,
    /// How long an offline verifier may trust a statement.
    pub offline: Duration,
    /// How old a last known green may be; zero is off.
    pub last_known_good: Duration,
}

impl Lives {
    /// The longest life of a token of this kind.
    pub const fn of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Own | Kind::Dependent | Kind::Assisted => self.token,
            Kind::Paper => self.paper,
        }
    }
}
