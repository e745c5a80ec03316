//! Access logs: what makes it provable that an answer is on record, and that nobody dropped or changed one (DESIGN §8).
//!
//! 1. [`record`] is what stands on a log for one exchange.
//! 2. [`merkle`] is the tree over a log's records (RFC 9162 §2.1), its frontier and its proofs.
//! 3. [`commit`] is what a replica signs when it makes records durable, and the access receipt that shows one of them in it.
//! 4. [`checkpoint`] is a log's signed head, as a signed note.
//! 5. [`delivery`] is the home member's receipt for what it holds of a log.

pub mod checkpoint;
pub mod commit;
pub mod delivery;
pub mod merkle;
pub mod record;

use std::fmt;

use crate::{
    identity::Realm,
    member::Member,
    suite::{Kid, VerifyingKey, sha256},
};

/// What names the logs of one replica's disk: the SHA-256 of the public key that was made with them. Together with whose
/// records they are, it names one log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub [u8; 32]);

impl LogId {
    /// The id of the logs that this key signs.
    pub fn of(key: &VerifyingKey) -> Self {
        Self(sha256(key.encoded()))
    }

    /// The id of that key.
    pub fn kid(self) -> Kid {
        let mut kid = [0; 8];
        kid.copy_from_slice(&self.0[..8]);
        Kid(kid)
    }

    /// From 64 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut id = [0; 32];
        for (i, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The byte that a log's owner has in hashes and in stores: the member's code as a number; 255 is the replica's own log.
pub const fn owner_number(owner: Realm) -> u8 {
    match owner {
        Realm::Member(member) => member.number(),
        Realm::Gateway => 0xff,
    }
}

/// The owner that a byte stands for.
pub fn owner_from_number(number: u8) -> Option<Realm> {
    match number {
        0xff => Some(Realm::Gateway),
        code => Member::all().find(|member| member.number() == code).map(Realm::Member),
    }
}

/// The owner that a text names: a member's code, or `gateway`.
pub fn owner_from_text(text: &str) -> Option<Realm> {
    match text {
        "gateway" => Some(Realm::Gateway),
        code => code.parse().ok().map(Realm::Member),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_ids_survive_a_round_trip() {
        for owner in Member::all().map(Realm::Member).chain([Realm::Gateway]) {
            assert_eq!(owner_from_number(owner_number(owner)), Some(owner));
            assert_eq!(owner_from_text(&owner.to_string()), Some(owner));
        }
        assert_eq!((owner_from_number(99), owner_from_text("99")), (None, None));
        let id = LogId([0xab; 32]);
        assert_eq!(LogId::from_hex(&id.to_string()), Some(id));
        for wrong in [&"AB".repeat(32), &"ab".repeat(31), &"é".repeat(32), ""] {
            assert_eq!(LogId::from_hex(wrong), None);
        }
    }
}
