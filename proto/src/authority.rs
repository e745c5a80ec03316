//! Who decides an assignment. Only an authority that policy admits can make a level that is not green hold (I8).

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::{member::Member, venue::is_name};

/// Who decided an assignment: `<member>/<kind>`, e.g. `44/cdc`. Which kinds may decide what, the policy says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    member: Member,
    kind: Box<str>,
}

/// A text that is not `<member>/<kind>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an authority is <member>/<kind>, the kind of a-z, 0-9 and inner '-', at most 24 bytes")]
pub struct InvalidAuthority;

impl Authority {
    /// The longest an authority may be, in bytes.
    pub const MAX_BYTES: usize = 27;

    /// Whose authority it is; `00` for a national one.
    pub const fn member(&self) -> Member {
        self.member
    }

    /// What kind it is, e.g. `cdc`.
    pub fn kind(&self) -> &str {
        &self.kind
    }
}

impl FromStr for Authority {
    type Err = InvalidAuthority;

    fn from_str(text: &str) -> Result<Self, InvalidAuthority> {
        let (member, kind) = text.split_once('/').ok_or(InvalidAuthority)?;
        if text.len() > Self::MAX_BYTES || !is_name(kind) {
            return Err(InvalidAuthority);
        }
        Ok(Self { member: member.parse().map_err(|_| InvalidAuthority)?, kind: kind.into() })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.member, self.kind)
    }
}
