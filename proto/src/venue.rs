//! Venue ids: `<member>/<category>/<name>`, e.g. `44/station/guangzhou-south`.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::{
    member::{Member, UnknownMember},
    refusal::{Reason, Refusal},
    terms::{Category, UnknownTerm},
};

/// A checkpoint's id: at most [`VenueId::MAX_BYTES`] bytes; the name is lower-case letters, digits and inner hyphens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VenueId {
    member: Member,
    category: Category,
    name: Box<str>,
}

/// Why a text is not a venue id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VenueError {
    /// The category is not one of the documented words.
    #[error("the venue's category is not known")]
    Category(#[from] UnknownTerm),
    /// Its member is not one of the 33.
    #[error("the venue's member is not known")]
    Member(#[from] UnknownMember),
    /// The form is wrong.
    #[error(
        "a venue is <member>/<category>/<name>, the name of a-z, 0-9 and inner '-', no 11 digits in a row, at most 40 bytes in all"
    )]
    Form,
}

impl VenueId {
    /// The longest a venue id may be, in bytes.
    pub const MAX_BYTES: usize = 40;

    /// Reads the field of a request that names a venue. Of a member that is none the code is repeated if it has the form of
    /// one; whatever else stands there may be anything, and is not.
    pub fn from_field(field: &'static str, text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Err(Refusal::missing(field));
        }
        text.parse().map_err(|error| match error {
            VenueError::Member(_) => {
                let refusal = Refusal::new(Reason::MemberUnknown).violating(field, error);
                match text.split_once('/') {
                    Some((code, _)) if code.len() == 2 && code.bytes().all(|b| b.is_ascii_digit()) => {
                        refusal.with("member", code)
                    }
                    _ => refusal,
                }
            }
            VenueError::Category(_) | VenueError::Form => Refusal::field(field, error),
        })
    }

    /// The member whose area it is in.
    pub const fn member(&self) -> Member {
        self.member
    }

    /// Its category.
    pub const fn category(&self) -> Category {
        self.category
    }

    /// Its own name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for VenueId {
    type Err = VenueError;

    fn from_str(text: &str) -> Result<Self, VenueError> {
        if text.len() > Self::MAX_BYTES {
            return Err(VenueError::Form);
        }
        let mut parts = text.split('/');
        let (Some(member), Some(category), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(VenueError::Form);
        };
        if !is_name(name) || has_long_number(name) {
            return Err(VenueError::Form);
        }
        Ok(Self { member: member.parse()?, category: category.parse()?, name: name.into() })
    }
}

impl fmt::Display for VenueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.member, self.category, self.name)
    }
}

impl fmt::Debug for VenueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a run of 11 digits or more stands in a text: as long as a phone number or an ID number. What callers may write
/// into the gateway's records must not be able to carry one (I6).
pub fn has_long_number(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() >= 11)
}

/// Whether `text` may name a venue, backend, feed, operator, node or replica: 1 or more of a-z, 0-9 and inner hyphens.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_shows() {
        let venue: VenueId = "44/station/guangzhou-south".parse().unwrap();
        assert_eq!(venue.to_string(), "44/station/guangzhou-south");
        assert_eq!(venue.category(), Category::Station);
        assert_eq!(venue.member().number(), 44);
    }

    #[test]
    fn the_limit_holds_at_its_edge() {
        let longest = format!("44/station/{}", "a".repeat(40 - 11));
        assert_eq!(longest.parse::<VenueId>().unwrap().to_string().len(), 40);
        assert_eq!(format!("{longest}a").parse::<VenueId>(), Err(VenueError::Form));
        assert!("44/station/n1234567890-2".parse::<VenueId>().is_ok(), "ten digits are no phone number");
    }

    #[test]
    fn refuses_what_is_not_one() {
        assert_eq!("99/station/x".parse::<VenueId>(), Err(VenueError::Member(UnknownMember)));
        assert!(matches!("44/castle/x".parse::<VenueId>(), Err(VenueError::Category(_))));
        for text in [
            "",
            "44",
            "44/station",
            "44/station/",
            "44/station/a/b",
            "44/station/A",
            "44/station/-a",
            "44/station/a b",
            "44/station/110105194912310021",
            "44/station/n13800138000",
        ] {
            assert_eq!(text.parse::<VenueId>(), Err(VenueError::Form), "{text}");
        }
    }
}
