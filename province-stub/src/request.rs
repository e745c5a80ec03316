//! Idempotency: what makes two calls the same request.
//!
//! A write is kept under its caller's own id together with a digest of all that was asked: asked again it gives the same
//! answer, and another question under that id is refused (REQUEST_ID_REUSED).

use proto::{suite::sha256, time::UnixTime};

use crate::document::holds_resident_id;

/// A caller's own id of a request: 8 to 64 characters of A–Z, a–z, 0–9 and '-', with no resident ID's number in it: ids
/// are kept as they come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// Reads an id.
    pub fn new(text: &str) -> Option<Self> {
        let valid = (8..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (valid && !holds_resident_id(text)).then(|| Self(text.into()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names a request: whose it is, its id, and what was asked.
#[derive(Clone, Debug)]
pub struct RequestKey {
    /// Whose ids these are: two callers may choose the same one.
    pub caller: String,
    /// The caller's id of the request.
    pub id: String,
    /// What was called.
    pub method: Method,
    /// The [`digest`] of all that was asked.
    pub digest: [u8; 32],
    /// When.
    pub at: UnixTime,
}

/// The calls that change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Enrolment of a device.
    EnrollDevice,
    /// Issue of a consent.
    IssueConsent,
    /// Assignment of a code by hand.
    SetCode,
    /// The end of such an assignment.
    ClearCode,
    /// A batch of codes by a platform.
    PutCodes,
}

impl Method {
    /// The word for it, as stored.
    pub const fn word(self) -> &'static str {
        match self {
            Self::EnrollDevice => "enroll_device",
            Self::IssueConsent => "issue_consent",
            Self::SetCode => "set_code",
            Self::ClearCode => "clear_code",
            Self::PutCodes => "put_codes",
        }
    }
}

/// The SHA-256 of a list of parts, each with its length before it, so that no two lists are one.
pub fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut all = Vec::new();
    for part in parts {
        all.extend((part.len() as u64).to_be_bytes());
        all.extend(*part);
    }
    sha256(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_documented() {
        assert!(RequestId::new("abcDEF-9").is_some() && RequestId::new(&"a".repeat(64)).is_some());
        for wrong in ["", "1234567", "12345678_", "请求请求请求请求", &"a".repeat(65)] {
            assert!(RequestId::new(wrong).is_none(), "{wrong}");
        }
        // The standard's own example (GB 11643-1999), and the same with another check character.
        for somebody in ["11010519491231002X", "11010519491231002x", "set-11010519491231002X-1"] {
            assert!(RequestId::new(somebody).is_none(), "{somebody}");
        }
        assert!(RequestId::new("set-110105194912310021-1").is_some());
    }

    #[test]
    fn no_two_requests_have_one_digest() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(digest(&[b"ab"]), digest(&[b"ab", b""]));
    }
}
