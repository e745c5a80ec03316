//! What a refusal looks like to whoever called: gRPC code, ErrorInfo, BadRequest, RetryInfo. Each is stated by the test,
//! from the documentation of `error_reason.proto`, and not read from the code under test.

use std::{collections::BTreeMap, fmt};

use proto::refusal::Reason;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A documented refusal.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    pub(crate) reason: Reason,
    code: Code,
    metadata: BTreeMap<String, String>,
    field: Option<&'static str>,
    retry: bool,
    sent: bool,
}

/// A refusal that the caller can mend.
pub(crate) fn want(reason: Reason, code: Code) -> Want {
    let metadata = BTreeMap::from([("source".to_owned(), "caller".to_owned())]);
    Want { reason, code, metadata, field: None, retry: false, sent: true }
}

impl Want {
    /// Who can mend it, if not the caller.
    pub(crate) fn from(self, source: &str) -> Self {
        self.with("source", source)
    }

    /// Which signed object it is about.
    pub(crate) fn about(self, object: &str) -> Self {
        self.with("object", object)
    }

    /// Metadata beside the source: all of it has to be stated.
    pub(crate) fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// The field that BadRequest names.
    pub(crate) fn field(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }

    /// RetryInfo is there.
    pub(crate) fn retry(mut self) -> Self {
        self.retry = true;
        self
    }

    /// No server sent it, so that it belongs to no trace.
    pub(crate) fn unsent(mut self) -> Self {
        self.sent = false;
        self
    }

    /// Asserts that a call ended just so.
    pub(crate) fn check<T: fmt::Debug>(&self, name: &str, result: Result<T, Status>) {
        let status = match result {
            Err(status) => status,
            Ok(answer) => panic!("{name}: wanted {:?}, got the answer {answer:?}", self.reason),
        };
        let info = status.get_details_error_info();
        let info = info.unwrap_or_else(|| panic!("{name}: a status without ErrorInfo: {status:?}"));
        let expected = self.reason.as_str_name().trim_start_matches("ERROR_REASON_");
        assert_eq!(info.reason, expected, "{name}: another reason ({:?})", info.metadata);
        assert_eq!(info.domain, "tongxing", "{name}: another domain");
        assert_eq!(status.code(), self.code, "{name}: another gRPC code");
        let mut metadata: BTreeMap<_, _> = info.metadata.into_iter().collect();
        let trace = metadata.remove("trace_id");
        assert_eq!(trace.is_some_and(|trace| is_trace_id(&trace)), self.sent, "{name}: a trace is named, or is not");
        assert_eq!(metadata, self.metadata, "{name}: other metadata");
        let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
        let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, Vec::from_iter(self.field), "{name}: BadRequest names other fields");
        assert!(violations.iter().all(|violation| !violation.description.is_empty()), "{name}: an empty description");
        assert_eq!(status.get_details_retry_info().is_some(), self.retry, "{name}: RetryInfo is there, or is not");
        assert!(!status.message().is_empty(), "{name}: an empty message");
    }
}

/// Whether it is a trace's id: 32 lower-case hexadecimal digits.
pub(crate) fn is_trace_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The reason of a refusal whose details another test holds.
pub(crate) fn reason<T: fmt::Debug>(name: &str, result: Result<T, Status>) -> Reason {
    let status = result.err().unwrap_or_else(|| panic!("{name}: there is an answer"));
    proto::refusal::Refusal::reason_of(&status).unwrap_or_else(|| panic!("{name}: no reason in {status:?}"))
}
