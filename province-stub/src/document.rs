//! Identity documents: a type and a number, checked once and then only carried.
//!
//! Upholds I6's other half: a number is shown by nothing here, neither Debug nor an error, so that no log can hold one.

use std::fmt;

use jiff::civil::Date;
use thiserror::Error;

/// The longest number of any document, in characters.
pub const MAX_NUMBER_CHARS: usize = 32;

/// GB 11643-1999: the weights of the first 17 digits, and the check characters by the weighted sum modulo 11.
const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
const CHECK_CHARACTERS: &[u8; 11] = b"10X98765432";
const RESIDENT_ID_BYTES: usize = WEIGHTS.len() + 1;

/// A document's type, numbered as on the wire and in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentType {
    /// 居民身份证, GB 11643-1999.
    ResidentId = 10,
    /// 港澳居民来往内地通行证.
    HkMacauPermit = 14,
    /// 台湾居民来往大陆通行证.
    TaiwanPermit = 15,
    /// 护照.
    Passport = 20,
    /// 外国人永久居留身份证.
    ForeignPermanentResident = 34,
    /// Any other.
    Other = 99,
}

impl DocumentType {
    const ALL: [Self; 6] = [
        Self::ResidentId,
        Self::HkMacauPermit,
        Self::TaiwanPermit,
        Self::Passport,
        Self::ForeignPermanentResident,
        Self::Other,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// From the number on the wire.
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| i64::from(kind.number()) == number)
    }
}

/// A valid identity document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Document {
    kind: DocumentType,
    number: Box<str>,
}

/// Why a number is not one of its document type. It never repeats the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// Characters or length.
    #[error("a number is 1 to 32 characters of A-Z, 0-9 and '-'")]
    Form,
    /// Not 17 digits and a check character.
    #[error("a resident ID is 17 digits and a check character")]
    ResidentIdForm,
    /// The birth date within does not exist.
    #[error("the birth date in the resident ID does not exist")]
    BirthDate,
    /// The check character is wrong.
    #[error("the check character of the resident ID is wrong")]
    CheckCharacter,
}

impl Document {
    /// Reads a document's number; lower-case letters are taken for their upper case, as people type them.
    pub fn new(kind: DocumentType, number: &str) -> Result<Self, DocumentError> {
        let number = number.to_ascii_uppercase();
        let well_formed = (1..=MAX_NUMBER_CHARS).contains(&number.len())
            && number.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-');
        if !well_formed {
            return Err(DocumentError::Form);
        }
        if kind == DocumentType::ResidentId {
            check_resident_id(number.as_bytes())?;
        }
        Ok(Self { kind, number: number.into() })
    }

    /// A resident ID from its parts: six digits of area, the birth date, and a sequence number (odd for men).
    pub(crate) fn resident_id(area: u32, birth: Date, sequence: u16) -> Result<Self, DocumentError> {
        let (year, month, day) = (birth.year(), birth.month(), birth.day());
        let digits = format!("{area:06}{year:04}{month:02}{day:02}{sequence:03}");
        let check = check_character(digits.as_bytes()).ok_or(DocumentError::ResidentIdForm)?;
        Self::new(DocumentType::ResidentId, &format!("{digits}{}", char::from(check)))
    }

    /// Its type.
    pub const fn kind(&self) -> DocumentType {
        self.kind
    }

    /// Its number. A person's: for the store and the sealed hint alone.
    pub fn number(&self) -> &str {
        &self.number
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} …", self.kind)
    }
}

/// Whether a resident ID's number is anywhere in a text: such a text names somebody, whatever else it says.
pub fn holds_resident_id(text: &str) -> bool {
    let valid = |window: &[u8]| check_resident_id(&window.to_ascii_uppercase()).is_ok();
    text.as_bytes().windows(RESIDENT_ID_BYTES).any(valid)
}

fn check_resident_id(number: &[u8]) -> Result<(), DocumentError> {
    let Some((digits, [check])) = number.split_at_checked(17) else { return Err(DocumentError::ResidentIdForm) };
    let expected = check_character(digits).ok_or(DocumentError::ResidentIdForm)?;
    let digit = |at: usize| i16::from(digits[at] - b'0');
    let year = (6..10).fold(0, |year, at| year * 10 + digit(at));
    let two = |at: usize| (digits[at] - b'0') as i8 * 10 + (digits[at + 1] - b'0') as i8;
    if Date::new(year, two(10), two(12)).is_err() {
        return Err(DocumentError::BirthDate);
    }
    if *check != expected {
        return Err(DocumentError::CheckCharacter);
    }
    Ok(())
}

/// The check character of 17 digits; `None` if they are not.
fn check_character(digits: &[u8]) -> Option<u8> {
    let digits: &[u8; 17] = digits.try_into().ok()?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let sum: u32 = digits.iter().zip(WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    Some(CHECK_CHARACTERS[(sum % 11) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(number: &str) -> Result<Document, DocumentError> {
        Document::new(DocumentType::ResidentId, number)
    }

    #[test]
    fn resident_ids_are_checked_to_the_last_character() {
        // The standard's own examples.
        assert!(resident("11010519491231002X").is_ok());
        assert!(resident("440524188001010014").is_ok());
        assert_eq!(resident("11010519491231002x").unwrap().number(), "11010519491231002X");
        assert_eq!(resident("110105194912310021"), Err(DocumentError::CheckCharacter));
        assert_eq!(resident("11010519490231002X"), Err(DocumentError::BirthDate));
        for form in ["11010519491231002", "1101051949123100200", "1101051949123100AX", "X10105194912310021"] {
            assert_eq!(resident(form), Err(DocumentError::ResidentIdForm), "{form}");
        }
    }

    #[test]
    fn a_resident_id_is_found_wherever_it_is() {
        // The standard's own examples.
        for named in
            ["11010519491231002X", "11010519491231002x-0428", "lab:440524188001010014", "0440524188001010014检"]
        {
            assert!(holds_resident_id(named), "{named}");
        }
        // None, one that is cut, a check character and a birth date that are wrong, one that is broken in two.
        for nobody in [
            "",
            "11010519491231002",
            "110105194912310021-0428",
            "11010519490231002X-0428",
            "1101051949-1231002X",
            "检测检测检测检测检测检测",
        ] {
            assert!(!holds_resident_id(nobody), "{nobody}");
        }
    }

    #[test]
    fn other_documents_have_a_form_alone() {
        let passport = |number: &str| Document::new(DocumentType::Passport, number);
        assert_eq!(passport("e12345678").unwrap().number(), "E12345678");
        assert!(passport(&"A".repeat(32)).is_ok());
        for form in ["", "E 1", "E1\n", "护照", &"A".repeat(33)] {
            assert_eq!(passport(form), Err(DocumentError::Form), "{form}");
        }
    }

    #[test]
    fn types_have_the_numbers_of_the_wire() {
        for kind in DocumentType::ALL {
            assert_eq!(DocumentType::from_number(i64::from(kind.number())), Some(kind));
        }
        assert_eq!(DocumentType::from_number(0), None);
        assert_eq!(DocumentType::from_number(11), None);
    }

    #[test]
    fn debug_shows_no_number() {
        assert_eq!(format!("{:?}", resident("11010519491231002X").unwrap()), "ResidentId …");
    }
}
