//! A log's signed head: a checkpoint (C2SP tlog-checkpoint) in a signed note (C2SP signed-note), signed with Ed25519.
//!
//! ```text
//! tongxing.test/access-log/44/3f1c…          origin: domain, whose log, the log's id in hexadecimal
//! 1234                                       size
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — tongxing.test/access-log/44/3f1c… az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{LogId, merkle::Hash, owner_from_text};
use crate::{
    identity::{FederationDomain, Realm},
    refusal::{Object, Reason, Refusal},
    suite::{SigningKey, VerifyingKey, sha256},
    trust::TrustList,
};

/// The longest note, in bytes.
pub const MAX_NOTE_BYTES: usize = 1024;

const OBJECT: Object = Object::Checkpoint;
/// Signatures in one note: the log's own, and those of witnesses.
const MAX_SIGNATURES: usize = 8;
/// Signed notes' number for Ed25519.
const ED25519: u8 = 1;

/// A log's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which logs it is one of.
    pub log: LogId,
    /// Whose records are on it.
    pub owner: Realm,
    /// How many there are.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
}

impl Checkpoint {
    /// The note, signed by the log's key.
    pub fn sign(&self, domain: &FederationDomain, key: &SigningKey) -> String {
        let origin = self.origin(domain);
        let text = self.text(&origin);
        let mut signature = key_hash(&origin, key.verifying_key()).to_vec();
        signature.extend(key.sign(text.as_bytes()));
        format!("{text}\n— {origin} {}\n", STANDARD.encode(signature))
    }

    /// Reads a note and verifies it by the trust list.
    pub fn open(note: &str, list: &TrustList) -> Result<Self, Refusal> {
        let (checkpoint, signed) = Self::parse(note, &list.domain)?;
        let key = list.log_key(OBJECT, checkpoint.log.kid())?;
        checkpoint.verify(&signed, key, &list.domain)?;
        Ok(checkpoint)
    }

    /// Reads a note and verifies it by one key.
    pub fn open_by(note: &str, domain: &FederationDomain, key: &VerifyingKey) -> Result<Self, Refusal> {
        let (checkpoint, signed) = Self::parse(note, domain)?;
        checkpoint.verify(&signed, key, domain)?;
        Ok(checkpoint)
    }

    fn verify(&self, signed: &Signed<'_>, key: &VerifyingKey, domain: &FederationDomain) -> Result<(), Refusal> {
        let origin = self.origin(domain);
        let invalid = || Refusal::of(OBJECT, Reason::SignatureInvalid);
        if LogId::of(key) != self.log {
            return Err(Refusal::of(OBJECT, Reason::KeyUnknown));
        }
        let hash = key_hash(&origin, key);
        // Others may have signed too: witnesses, whom nobody here knows yet.
        let own = signed.signatures.iter().find(|(name, bytes)| *name == origin && bytes.starts_with(&hash));
        let (_, bytes) = own.ok_or_else(invalid)?;
        key.verify(signed.text.as_bytes(), &bytes[hash.len()..]).map_err(|_| invalid())
    }

    fn parse<'a>(note: &'a str, domain: &FederationDomain) -> Result<(Self, Signed<'a>), Refusal> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(Refusal::of(OBJECT, Reason::ObjectTooLarge).with("max_bytes", MAX_NOTE_BYTES));
        }
        let malformed = |what: &str| Refusal::malformed(OBJECT, what);
        let (text, signatures) =
            note.split_once("\n\n").ok_or_else(|| malformed("no empty line before a signature"))?;
        // Not `lines`, which would take a carriage return away unseen.
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(malformed("not the three lines of origin, size and root"));
        };
        let of_domain = origin.strip_prefix(&format!("{domain}/access-log/"));
        let parts = of_domain.and_then(|rest| rest.split_once('/'));
        let log = parts.and_then(|(owner, log)| Some((owner_from_text(owner)?, LogId::from_hex(log)?)));
        let (owner, log) = log.ok_or_else(|| malformed("not the origin of an access log of this federation"))?;
        let number = size.parse::<u64>().ok().filter(|number| number.to_string() == size);
        let size = number.ok_or_else(|| malformed("not a size"))?;
        let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok());
        let root = root.ok_or_else(|| malformed("not a root of 32 bytes"))?;
        let signatures = parse_signatures(signatures).ok_or_else(|| malformed("not lines of signatures"))?;
        let text = &note[..=text.len()];
        Ok((Self { log, owner, size, root }, Signed { text, signatures }))
    }

    fn origin(&self, domain: &FederationDomain) -> String {
        format!("{domain}/access-log/{}/{}", self.owner, self.log)
    }

    fn text(&self, origin: &str) -> String {
        format!("{origin}\n{}\n{}\n", self.size, STANDARD.encode(self.root))
    }
}

/// A note's text, its last line break included, and its signatures by name.
struct Signed<'a> {
    text: &'a str,
    signatures: Vec<(&'a str, Vec<u8>)>,
}

fn parse_signatures(text: &str) -> Option<Vec<(&str, Vec<u8>)>> {
    let lines = text.strip_suffix('\n')?.split('\n');
    let signatures = lines.map(|line| {
        let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
        let bytes = STANDARD.decode(signature).ok().filter(|bytes| bytes.len() > 4)?;
        (!name.is_empty()).then_some((name, bytes))
    });
    let signatures = signatures.collect::<Option<Vec<_>>>()?;
    (signatures.len() <= MAX_SIGNATURES).then_some(signatures)
}

/// What finds a key among a note's signatures: the first 4 bytes of SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key).
fn key_hash(name: &str, key: &VerifyingKey) -> [u8; 4] {
    let hash = sha256(&[name.as_bytes(), b"\n", &[ED25519], key.encoded()].concat());
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;

    fn domain() -> FederationDomain {
        "tongxing.test".parse().unwrap()
    }

    fn signed() -> (SigningKey, Checkpoint, String) {
        let key = SigningKey::generate(Suite::Ed25519);
        let owner = Realm::Member("44".parse().unwrap());
        let checkpoint = Checkpoint { log: LogId::of(key.verifying_key()), owner, size: 1234, root: [7; 32] };
        let note = checkpoint.sign(&domain(), &key);
        (key, checkpoint, note)
    }

    #[test]
    fn a_note_says_what_was_signed() {
        let (key, checkpoint, note) = signed();
        assert!(note.len() < 500, "{}", note.len());
        assert_eq!(Checkpoint::open_by(&note, &domain(), key.verifying_key()), Ok(checkpoint));
        let witnessed = format!("{note}— witness.test/w {}\n", STANDARD.encode([9; 76]));
        assert_eq!(Checkpoint::open_by(&witnessed, &domain(), key.verifying_key()), Ok(checkpoint));
        let other = SigningKey::generate(Suite::Ed25519);
        let refused = Checkpoint::open_by(&note, &domain(), other.verifying_key()).unwrap_err();
        assert_eq!(refused.reason(), Reason::KeyUnknown);
    }

    #[test]
    fn no_flipped_bit_survives() {
        let (key, _, note) = signed();
        for bit in 0..note.len() * 8 {
            let mut flipped = note.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(flipped) = String::from_utf8(flipped) else { continue };
            assert!(Checkpoint::open_by(&flipped, &domain(), key.verifying_key()).is_err(), "bit {bit}: {flipped}");
        }
    }

    #[test]
    fn what_is_no_note_is_refused_for_what_it_lacks() {
        let (key, _, note) = signed();
        let reason = |note: &str| Checkpoint::open_by(note, &domain(), key.verifying_key()).unwrap_err().reason();
        assert_eq!(reason(&"x".repeat(MAX_NOTE_BYTES + 1)), Reason::ObjectTooLarge);
        for (from, to) in [
            ("tongxing.test", "elsewhere.test"),
            ("/44/", "/99/"),
            ("\n1234\n", "\n01234\n"),
            ("\n1234\n", "\n18446744073709551616\n"),
            ("\n1234\n", "\n1234\nmore\n"),
            ("\n\n", "\n"),
            ("\n— ", "\n- "),
            ("=\n\n", "\n\n"),
        ] {
            assert_eq!(reason(&note.replacen(from, to, 1)), Reason::ObjectMalformed, "{from:?} {to:?}");
        }
        assert_eq!(reason(note.trim_end()), Reason::ObjectMalformed);
        let text = note.split("\n\n").next().unwrap();
        let returns = note.replacen(text, &text.replace('\n', "\r\n"), 1);
        assert_eq!(reason(&returns), Reason::ObjectMalformed);
        assert_eq!(reason(&note.replacen("\n1234\n", "\n1235\n", 1)), Reason::SignatureInvalid);
    }
}
