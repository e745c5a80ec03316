//! The protocol's vocabulary: venue categories, purposes, scope bits, kinds of consent, levels.
//!
//! Their names and numbers are on the wire and in signed objects; none may change.

use std::{fmt, str::FromStr, time::Duration};

use thiserror::Error;

/// Not one of the documented words or numbers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a known {0}")]
pub struct UnknownTerm(pub &'static str);

/// Declares a closed vocabulary: variants with a number and a word, parsing from both, listing all.
macro_rules! vocabulary {
    ($(#[$meta:meta])* $name:ident, $what:literal { $($(#[$doc:meta])* $variant:ident = $number:literal, $word:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant = $number,)* }

        impl $name {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The number on the wire.
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// The word in configuration, identifiers and metrics.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// From the number on the wire.
            pub fn from_number(number: u64) -> Result<Self, UnknownTerm> {
                Self::ALL.iter().copied().find(|t| u64::from(t.number()) == number).ok_or(UnknownTerm($what))
            }
        }

        impl FromStr for $name {
            type Err = UnknownTerm;
            fn from_str(text: &str) -> Result<Self, UnknownTerm> {
                Self::ALL.iter().copied().find(|t| t.word() == text).ok_or(UnknownTerm($what))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

vocabulary! {
    /// A venue's category, from the announcement this project answers. The trust list carries the number.
    Category, "venue category" {
        /// 交通卡口.
        Checkpoint = 1, "checkpoint";
        /// 居住小区.
        Residential = 2, "residential";
        /// 车站.
        Station = 3, "station";
        /// 机场.
        Airport = 4, "airport";
        /// 港口.
        Port = 5, "port";
        /// 客运站.
        Terminal = 6, "terminal";
        /// 轮渡码头.
        Ferry = 7, "ferry";
        /// 医院.
        Hospital = 8, "hospital";
        /// 公园.
        Park = 9, "park";
        /// 学校.
        School = 10, "school";
        /// 单位.
        Workplace = 11, "workplace";
        /// 其他.
        Other = 12, "other";
    }
}

vocabulary! {
    /// Why a venue asks.
    Purpose, "purpose" {
        /// 通行.
        Entry = 1, "entry";
        /// 乘坐交通工具.
        Travel = 2, "travel";
        /// 就医.
        Medical = 3, "medical";
        /// 上学.
        School = 4, "school";
        /// 上班.
        Work = 5, "work";
        /// 住宿.
        Lodging = 6, "lodging";
    }
}

vocabulary! {
    /// How the traveler consented.
    Kind, "kind of consent" {
        /// The traveler's own phone.
        Own = 1, "own";
        /// A companion's phone, for a person bound to it.
        Dependent = 2, "dependent";
        /// A printed code.
        Paper = 3, "paper";
        /// 代查: staff ask, with the person's consent.
        Assisted = 4, "assisted";
    }
}

vocabulary! {
    /// The national level.
    Level, "level" {
        /// 绿.
        Green = 1, "green";
        /// 黄.
        Yellow = 2, "yellow";
        /// 红.
        Red = 3, "red";
    }
}

vocabulary! {
    /// What the gate does. `Assist` is zero: whatever is missing reads as "a person helps".
    Decision, "decision" {
        /// A person helps.
        Assist = 0, "assist";
        /// Let through.
        Pass = 1, "pass";
        /// Do not let through.
        Stop = 2, "stop";
    }
}

impl Kind {
    /// Whether a token of this kind names a device key, so that every use needs a fresh proof.
    pub const fn has_device(self) -> bool {
        matches!(self, Self::Own | Self::Dependent)
    }

    /// The longest life a token of this kind may ever claim, whatever the policy.
    pub const fn max_life(self) -> Duration {
        match self {
            Self::Own | Self::Dependent | Self::Assisted => Duration::from_secs(24 * 3600),
            Self::Paper => Duration::from_secs(14 * 24 * 3600),
        }
    }
}

/// A set of disclosures, as bits: what a consent grants, what a policy lets a venue see, what a statement holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(u8);

impl Scope {
    /// The level; rule and authority as coarse codes whenever it is not green.
    pub const LEVEL: Self = Self(1);
    /// When the level was assigned, and by which rule also when it is green.
    pub const ASSIGNMENT: Self = Self(2);
    /// Nucleic-acid tests.
    pub const TESTS: Self = Self(4);
    /// Vaccination.
    pub const VACCINATION: Self = Self(8);
    /// Stays in medium- and high-risk areas.
    pub const RISK_AREAS: Self = Self(16);
    /// Masked name and tail of the ID number, sealed.
    pub const IDENTITY_HINT: Self = Self(32);
    /// All of them.
    pub const ALL: Self = Self(63);

    /// From bits; the empty set and unknown bits are refused.
    pub fn from_bits(bits: u64) -> Result<Self, UnknownTerm> {
        match u8::try_from(bits) {
            Ok(bits @ 1..=63) => Ok(Self(bits)),
            _ => Err(UnknownTerm("scope")),
        }
    }

    /// The bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` is in here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What both have; `None` if that is nothing.
    pub const fn intersection(self, other: Self) -> Option<Self> {
        match self.0 & other.0 {
            0 => None,
            bits => Some(Self(bits)),
        }
    }

    /// What either has.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const WORDS: [(Self, &'static str); 6] = [
        (Self::LEVEL, "level"),
        (Self::ASSIGNMENT, "assignment"),
        (Self::TESTS, "tests"),
        (Self::VACCINATION, "vaccination"),
        (Self::RISK_AREAS, "risk-areas"),
        (Self::IDENTITY_HINT, "identity-hint"),
    ];
}

impl FromStr for Scope {
    type Err = UnknownTerm;

    /// One disclosure by its word in the policy, e.g. `level`.
    fn from_str(text: &str) -> Result<Self, UnknownTerm> {
        Self::WORDS.iter().find(|(_, word)| *word == text).map(|(bit, _)| *bit).ok_or(UnknownTerm("scope"))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = Self::WORDS.iter().filter(|(bit, _)| self.contains(*bit)).map(|(_, word)| *word).collect();
        f.write_str(&words.join("+"))
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A non-empty set of purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Purposes(u8);

impl Purposes {
    /// All purposes.
    pub const ALL: Self = Self(0b111_1110);

    /// From a list; `None` if it is empty.
    pub fn new(purposes: impl IntoIterator<Item = Purpose>) -> Option<Self> {
        let bits = purposes.into_iter().fold(0, |bits, purpose| bits | 1 << purpose.number());
        (bits != 0).then_some(Self(bits))
    }

    /// Whether it has this one.
    pub const fn contains(self, purpose: Purpose) -> bool {
        self.0 & (1 << purpose.number()) != 0
    }

    /// Those it has, by number.
    pub fn iter(self) -> impl Iterator<Item = Purpose> {
        Purpose::ALL.iter().copied().filter(move |purpose| self.contains(*purpose))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_inverse() {
        for purpose in Purpose::ALL {
            assert_eq!(purpose.word().parse(), Ok(*purpose));
            assert_eq!(Purpose::from_number(u64::from(purpose.number())), Ok(*purpose));
        }
        assert_eq!(Category::ALL.len(), 12);
        assert_eq!(Purpose::from_number(0), Err(UnknownTerm("purpose")));
        assert_eq!(Purpose::from_number(7), Err(UnknownTerm("purpose")));
        assert_eq!(Level::from_number(257), Err(UnknownTerm("level")));
    }

    #[test]
    fn the_zero_decision_is_assist() {
        assert_eq!(Decision::from_number(0), Ok(Decision::Assist));
    }

    #[test]
    fn scope_refuses_nothing_and_unknown_bits() {
        assert_eq!(Scope::from_bits(0), Err(UnknownTerm("scope")));
        assert_eq!(Scope::from_bits(64), Err(UnknownTerm("scope")));
        assert_eq!(Scope::from_bits(256), Err(UnknownTerm("scope")));
        assert_eq!(Scope::from_bits(63), Ok(Scope::ALL));
        assert_eq!(Scope::LEVEL.intersection(Scope::TESTS), None);
        assert_eq!(Scope::LEVEL.union(Scope::TESTS).to_string(), "level+tests");
    }

    #[test]
    fn purposes_are_never_empty() {
        assert_eq!(Purposes::new([]), None);
        assert_eq!(Purposes::new(Purpose::ALL.iter().copied()), Some(Purposes::ALL));
        let some = Purposes::new([Purpose::Work, Purpose::Entry]).unwrap();
        assert_eq!(some.iter().collect::<Vec<_>>(), [Purpose::Entry, Purpose::Work]);
    }
}
