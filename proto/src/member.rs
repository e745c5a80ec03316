//! The 33 members of the federation: 31 provinces by GB/T 2260, 兵团 (`66`), and the national platform (`00`).

use std::{fmt, str::FromStr, sync::LazyLock};

use thiserror::Error;

/// A member's two-digit code. Only the codes of `data/members.csv` can be built.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member(u8);

/// What the members' table says of one.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The code.
    pub member: Member,
    /// In English, e.g. `Guangdong`.
    pub name_en: &'static str,
    /// In Chinese, e.g. `广东`.
    pub name_zh: &'static str,
    /// What its health code is called, e.g. `粤康码`.
    pub health_code_zh: &'static str,
}

/// Not a member's code.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not the two-digit code of a member")]
pub struct UnknownMember;

impl Member {
    /// The national platform, which is a member too.
    pub const PLATFORM: Self = Self(0);

    /// All members, by code.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        TABLE.iter().map(|profile| profile.member)
    }

    /// What the table says of this member.
    pub fn profile(self) -> &'static Profile {
        // A `Member` is only ever built from a code that the table has.
        TABLE.iter().find(|profile| profile.member == self).expect("every member is in the table")
    }

    /// The code as a number, 0 to 99.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl FromStr for Member {
    type Err = UnknownMember;

    fn from_str(text: &str) -> Result<Self, UnknownMember> {
        let number = parse_code(text).ok_or(UnknownMember)?;
        TABLE.iter().map(|profile| profile.member).find(|member| member.0 == number).ok_or(UnknownMember)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

static TABLE: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    // code,iso_3166_2,name_en,name_zh,health_code_zh,source
    include_str!("../data/members.csv").lines().skip(1).map(parse_row).collect()
});

fn parse_row(row: &'static str) -> Profile {
    let columns: Vec<_> = row.splitn(6, ',').collect();
    let [code, _iso, name_en, name_zh, health_code_zh, _source] = columns[..] else {
        panic!("members.csv: six columns in {row}")
    };
    let member = Member(parse_code(code).expect("members.csv: a two-digit code"));
    Profile { member, name_en, name_zh, health_code_zh }
}

fn parse_code(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [tens @ b'0'..=b'9', units @ b'0'..=b'9'] => Some((tens - b'0') * 10 + (units - b'0')),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_33_members() {
        assert_eq!(Member::all().len(), 33);
        assert_eq!(Member::all().next(), Some(Member::PLATFORM));
        assert_eq!("44".parse::<Member>().unwrap().profile().health_code_zh, "粤康码");
        assert_eq!("66".parse::<Member>().unwrap().profile().name_zh, "新疆生产建设兵团");
    }

    #[test]
    fn only_two_digit_codes_of_the_table_parse() {
        for text in ["", "4", "044", "4 ", "+4", "99", "10", "四四", "44 "] {
            assert_eq!(text.parse::<Member>(), Err(UnknownMember), "{text}");
        }
        for member in Member::all() {
            assert_eq!(member.to_string().parse(), Ok(member));
        }
    }
}
