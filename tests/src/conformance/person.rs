//! People that the kit invents, and those whom a node has already.

use proto::{
    contract::types::{Document, DocumentType},
    member::Member,
    policy::Policy,
    random::{self, SystemRandom},
    time::{Clock as _, SystemClock},
};
use province_stub::seed;

/// GB 11643-1999: the weights of the first 17 digits, and the check characters by the weighted sum modulo 11.
const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
const CHECK_CHARACTERS: &[u8; 11] = b"10X98765432";

/// Somebody with a document.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) kind: i32,
    pub(super) number: String,
    pub(super) name: String,
}

impl Person {
    /// Somebody with a passport that nobody has: 64 random bits, so that a node may be tested many times.
    pub(super) fn invent() -> Self {
        let number = format!("TEST-{:016X}", random_number());
        Self { kind: DocumentType::Passport.into(), number, name: "测试旅客".into() }
    }

    /// Somebody with a resident ID.
    pub(super) fn named(number: &str, name: &str) -> Self {
        Self { kind: DocumentType::ResidentId.into(), number: number.into(), name: name.into() }
    }

    /// Those of the people that `province-stub` seeds who have a code, a test, a dose and a stay in a risk area; from one
    /// of them on that is another each time.
    pub(super) fn seeded(member: Member, count: u32, policy: &Policy) -> Vec<Self> {
        let people = seed::people(member, count, policy);
        let records = seed::records(&people, SystemClock.now());
        let full = records.iter().filter(|record| {
            record.code.is_some() && !record.tests.is_empty() && !record.doses.is_empty() && !record.visits.is_empty()
        });
        let mut full: Vec<_> = full.map(|record| Self::named(record.document.number(), record.name.as_str())).collect();
        if !full.is_empty() {
            let turn = random_number() as usize % full.len();
            full.rotate_left(turn);
        }
        full
    }

    pub(super) fn document(&self) -> Document {
        Document { r#type: self.kind, number: self.number.clone() }
    }
}

/// A resident ID of an area that was never assigned, or the same with another check character.
pub(super) fn resident_id(member: Member, valid: bool) -> String {
    let dice = random_number();
    let (year, day, sequence) = (1931 + dice % 90, 1 + (dice >> 16) % 28, 1 + (dice >> 32) % 999);
    let digits = format!("{member}9999{year:04}{:02}{day:02}{sequence:03}", 1 + (dice >> 48) % 12);
    let sum: u32 = digits.bytes().zip(WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    let check = CHECK_CHARACTERS[(sum as usize + usize::from(!valid)) % 11];
    format!("{digits}{}", char::from(check))
}

fn random_number() -> u64 {
    u64::from_be_bytes(random::bytes(&SystemRandom))
}

#[cfg(test)]
mod tests {
    use proto::policy::NATIONAL;
    use province_stub::document::{Document, DocumentType};

    use super::*;

    #[test]
    fn resident_ids_have_their_check_character_and_wrong_ones_another() {
        let member = "44".parse().unwrap();
        for _ in 0..200 {
            assert!(Document::new(DocumentType::ResidentId, &resident_id(member, true)).is_ok());
            assert!(Document::new(DocumentType::ResidentId, &resident_id(member, false)).is_err());
        }
    }

    #[test]
    fn a_seeded_federation_has_people_with_evidence_of_every_kind() {
        let policy = Policy::from_toml(NATIONAL).unwrap();
        for member in Member::all() {
            assert!(!Person::seeded(member, 200, &policy).is_empty(), "{member}");
        }
    }
}
