//! How a refusal has to look: reason, gRPC code, metadata, BadRequest and RetryInfo. Written `REASON key=value …`; `*` is
//! any value, `field=` what BadRequest names.

use std::{collections::BTreeMap, fmt};

use proto::refusal::{Blame, DOMAIN, Reason, Refusal, reason_name};
use serde::Deserialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A documented refusal.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    metadata: BTreeMap<String, String>,
    field: Option<String>,
}

impl TryFrom<String> for Refused {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let reason = Reason::from_str_name(&format!("ERROR_REASON_{name}"));
        let reason = reason.ok_or_else(|| format!("{name}: not a documented reason"))?;
        let (mut metadata, mut field) = (BTreeMap::new(), None);
        for word in words {
            match word.split_once('=') {
                Some(("field", name)) => field = Some(name.to_owned()),
                Some((key, value)) => _ = metadata.insert(key.to_owned(), value.to_owned()),
                None => return Err(format!("{word}: not key=value")),
            }
        }
        Ok(Self { reason, metadata, field })
    }
}

impl Refused {
    /// The reason's gRPC code: the contract gives it, once for all.
    pub fn code(&self) -> Code {
        Refusal::new(self.reason).to_status().code()
    }

    /// Whether a refusal is this one.
    pub fn is(&self, status: &Status) -> bool {
        let natural = Refusal::new(self.reason);
        let Some(info) = status.get_details_error_info() else { return false };
        let has = |(key, value): (&String, &String)| {
            info.metadata.get(key).is_some_and(|found| value == "*" || found == value)
        };
        // What is not the caller's to mend is, at a node, home's.
        let source = if natural.blame() == Blame::Caller { "caller" } else { "home" };
        let details = status.get_error_details();
        let fields = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        let named = self.field.as_ref().is_none_or(|field| fields.first().is_some_and(|first| first.field == *field));
        let retry = natural.to_status().get_details_retry_info().is_some();
        status.code() == self.code()
            && info.domain == DOMAIN
            && info.reason == reason_name(self.reason)
            && info.metadata.get("source").is_some_and(|found| found == source)
            && self.metadata.iter().all(has)
            && named
            && (!retry || details.retry_info().is_some())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.code(), reason_name(self.reason))?;
        for (key, value) in &self.metadata {
            write!(f, " {key}={value}")?;
        }
        if let Some(field) = &self.field {
            write!(f, " field={field}")?;
        }
        Ok(())
    }
}

/// A status as the report says it. A node's own words are cut short and have no line ends.
pub(super) fn describe(status: &Status) -> String {
    let details = status.get_error_details();
    let mut text = format!("{:?}", status.code());
    match details.error_info() {
        Some(info) => {
            text += &format!(" {}", info.reason);
            let mut metadata: Vec<_> = info.metadata.iter().collect();
            metadata.sort();
            for (key, value) in metadata {
                text += &format!(" {key}={value}");
            }
            if info.domain != DOMAIN {
                text += &format!(" (of the domain {:?})", info.domain);
            }
        }
        None => text += &format!(" without ErrorInfo ({})", status.message()),
    }
    if let Some(violation) = details.bad_request().and_then(|bad| bad.field_violations.first()) {
        text += &format!(" field={}", violation.field);
    }
    short(&text)
}

/// A node's words, at most 300 characters of them in one line.
pub(super) fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use proto::refusal::Object;
    use tonic_types::ErrorDetails;

    use super::*;

    fn refused(text: &str) -> Refused {
        Refused::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn only_the_documented_refusal_is_it() {
        let status = Refusal::of(Object::Token, Reason::Expired).with("seconds", 31).to_status();
        assert!(refused("EXPIRED").is(&status));
        assert!(refused("EXPIRED object=token seconds=*").is(&status));
        for other in ["EXPIRED object=proof", "EXPIRED granted=*", "NOT_YET_VALID", "EXPIRED field=token"] {
            assert!(!refused(other).is(&status), "{other}");
        }
        let missing = Refusal::missing("venue").to_status();
        assert!(refused("FIELD_MISSING field=venue").is(&missing));
        assert!(!refused("FIELD_MISSING field=token").is(&missing));
        assert!(!refused("EXPIRED").is(&Status::failed_precondition("expired")));
        // The right reason under another code is not it.
        let details = Status::with_error_details(Code::Internal, "x", status.get_error_details());
        assert!(!refused("EXPIRED").is(&details));
        assert!(describe(&Status::internal("a\nb")).contains("without ErrorInfo (a b)"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for wrong in ["", "EXPIRE", "EXPIRED now", "expired"] {
            assert!(Refused::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whoever_is_to_wait_is_told_how_long() {
        let status = Refusal::new(Reason::StoreUnavailable).to_status();
        assert!(refused("STORE_UNAVAILABLE").is(&status));
        let info = status.get_details_error_info().unwrap();
        let bare = ErrorDetails::with_error_info(info.reason, info.domain, info.metadata);
        assert!(!refused("STORE_UNAVAILABLE").is(&Status::with_error_details(status.code(), "x", bare)));
    }
}
