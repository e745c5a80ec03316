//! How a call is refused: one documented reason with its metadata, and the one place that turns it into a gRPC status.
//!
//! The reasons are `tongxing.error.v1.ErrorReason`. A refusal's public message is fixed by its reason; details that could
//! speak of a person never enter it (I6).

use std::{collections::BTreeMap, fmt, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use crate::contract::error::ErrorReason as Reason;

/// The `domain` of every ErrorInfo.
pub const DOMAIN: &str = "tongxing";

/// How long a caller should wait before it tries again, where the reason lets it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Who can mend it: ErrorInfo metadata `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The caller, or the presentation it was shown.
    Caller,
    /// The gateway.
    Gateway,
    /// The home member's node.
    Home,
}

/// The signed objects and texts a refusal can speak of: ErrorInfo metadata `object`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// The gateway's receipt that an exchange is on record.
    AccessReceipt,
    /// What is on record for one exchange.
    AccessRecord,
    /// An access log's signed head.
    Checkpoint,
    /// A phone's request for a consent.
    ConsentRequest,
    /// A home member's receipt for access records.
    DeliveryReceipt,
    /// What a replica signs for records that it made durable.
    LogCommit,
    /// The national policy.
    Policy,
    /// What a QR carries.
    Presentation,
    /// The device's proof.
    Proof,
    /// Home's signed status.
    Statement,
    /// The consent token.
    Token,
    /// The trust list.
    TrustList,
}

impl Object {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::AccessReceipt,
        Self::AccessRecord,
        Self::Checkpoint,
        Self::ConsentRequest,
        Self::DeliveryReceipt,
        Self::LogCommit,
        Self::Policy,
        Self::Presentation,
        Self::Proof,
        Self::Statement,
        Self::Token,
        Self::TrustList,
    ];

    /// The word in metadata.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AccessReceipt => "access_receipt",
            Self::AccessRecord => "access_record",
            Self::Checkpoint => "checkpoint",
            Self::ConsentRequest => "consent_request",
            Self::DeliveryReceipt => "delivery_receipt",
            Self::LogCommit => "log_commit",
            Self::Policy => "policy",
            Self::Presentation => "presentation",
            Self::Proof => "proof",
            Self::Statement => "statement",
            Self::Token => "token",
            Self::TrustList => "trust_list",
        }
    }
}

/// A refused call.
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    reason: Reason,
    blame: Blame,
    metadata: BTreeMap<&'static str, String>,
    violation: Option<(&'static str, String)>,
}

impl Refusal {
    /// A refusal with the blame its reason has by nature.
    pub fn new(reason: Reason) -> Self {
        let blame = traits(reason).blame;
        Self(Box::new(Inner { reason, blame, metadata: BTreeMap::new(), violation: None }))
    }

    /// A refusal that speaks of a signed object.
    pub fn of(object: Object, reason: Reason) -> Self {
        Self::new(reason).with("object", object.word())
    }

    /// A signed object that is not of its documented layout.
    pub fn malformed(object: Object, detail: impl fmt::Display) -> Self {
        Self::of(object, Reason::ObjectMalformed).with("detail", detail)
    }

    /// A field that is outside its documented form.
    pub fn field(field: &'static str, what: impl fmt::Display) -> Self {
        Self::new(Reason::FieldInvalid).violating(field, what)
    }

    /// A required field that is empty.
    pub fn missing(field: &'static str) -> Self {
        Self::new(Reason::FieldMissing).violating(field, "is required")
    }

    /// Adds metadata. Never a person's.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.metadata.insert(key, value.to_string());
        self
    }

    /// Names the request's field at fault (BadRequest).
    #[must_use]
    pub fn violating(mut self, field: &'static str, what: impl fmt::Display) -> Self {
        self.0.violation = Some((field, what.to_string()));
        self
    }

    /// Says who can mend it, where that differs from the reason's nature.
    #[must_use]
    pub fn blaming(mut self, blame: Blame) -> Self {
        self.0.blame = blame;
        self
    }

    /// The reason.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// Who can mend it.
    pub fn blame(&self) -> Blame {
        self.0.blame
    }

    /// The request's field at fault and what is wrong with it, if there is one.
    pub fn violation(&self) -> Option<(&'static str, &str)> {
        self.0.violation.as_ref().map(|(field, what)| (*field, what.as_str()))
    }

    /// One piece of metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.0.metadata.get(key).map(String::as_str)
    }

    /// The status a caller gets: fixed message, ErrorInfo, and BadRequest or RetryInfo where they apply.
    pub fn to_status(&self) -> Status {
        let Traits { code, message, retry, .. } = traits(self.0.reason);
        let mut metadata: std::collections::HashMap<String, String> =
            self.0.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        metadata.insert("source".to_owned(), self.source().to_owned());
        let mut details = ErrorDetails::with_error_info(reason_name(self.0.reason), DOMAIN, metadata);
        if let Some((field, what)) = &self.0.violation {
            details.add_bad_request_violation(*field, what);
        }
        if retry {
            details.set_retry_info(Some(RETRY_AFTER));
        }
        Status::with_error_details(code, message, details)
    }

    /// The same as a message: how an item of a stream carries an error.
    pub fn to_rpc_status(&self) -> tonic_types::Status {
        let status = self.to_status();
        // The details of a status made by `to_status` are an encoded google.rpc.Status.
        prost::Message::decode(status.details()).unwrap_or_default()
    }

    /// Reads a refusal back from a status that another of our servers sent: its reason alone, since whatever text or
    /// metadata came with it is another party's and goes no further.
    pub fn reason_of(status: &Status) -> Option<Reason> {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
        Reason::from_str_name(&format!("ERROR_REASON_{}", info.reason))
    }

    /// Reads a home member's refusal: its reason, and of its metadata what can only be a number or a known word. Whatever
    /// else came with it is another party's and goes no further.
    pub fn from_home(status: &Status) -> Option<Self> {
        let reason = Self::reason_of(status)?;
        let metadata = status.get_details_error_info()?.metadata;
        let mut refusal = Self::new(reason).blaming(Blame::Home);
        if let Some(object) =
            Object::ALL.iter().find(|object| metadata.get("object").is_some_and(|o| o == object.word()))
        {
            refusal = refusal.with("object", object.word());
        }
        if let Some(seconds) = metadata.get("seconds").and_then(|seconds| seconds.parse::<u64>().ok()) {
            refusal = refusal.with("seconds", seconds);
        }
        Some(refusal)
    }

    fn source(&self) -> &'static str {
        match self.0.blame {
            Blame::Caller => "caller",
            Blame::Gateway => "gateway",
            Blame::Home => "home",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", reason_name(self.0.reason), self.source())?;
        for (key, value) in &self.0.metadata {
            write!(f, ", {key} {value}")?;
        }
        if let Some((field, what)) = &self.0.violation {
            write!(f, ", field {field}: {what}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.to_status()
    }
}

/// The same status, its ErrorInfo saying which trace the call belongs to: metadata `trace_id`, 32 hexadecimal digits.
pub fn traced(status: &Status, trace_id: impl fmt::Display) -> Status {
    let mut details = status.get_error_details();
    let Some(mut info) = details.error_info().cloned() else { return status.clone() };
    info.metadata.insert("trace_id".to_owned(), trace_id.to_string());
    details.set_error_info(info.reason, info.domain, info.metadata);
    Status::with_error_details(status.code(), status.message(), details)
}

/// The reason as ErrorInfo carries it: the enum's name without its prefix, e.g. `KEY_UNKNOWN`.
pub fn reason_name(reason: Reason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

/// What is fixed about a reason.
struct Traits {
    code: Code,
    message: &'static str,
    blame: Blame,
    retry: bool,
}

/// The one place where reasons get their code, message, blame and retryability.
fn traits(reason: Reason) -> Traits {
    use Blame::{Caller, Gateway, Home};
    use Code::*;
    let caller = |code, message| Traits { code, message, blame: Caller, retry: false };
    let wait = |code, message, blame| Traits { code, message, blame, retry: true };
    match reason {
        Reason::RoleNotAllowed => caller(PermissionDenied, "this role may not call this method"),
        Reason::MemberNotAllowed => caller(PermissionDenied, "only the member's own peers may call this method"),
        Reason::VenueNotYours => caller(PermissionDenied, "a venue asks for itself alone"),
        Reason::VenueOfOtherMember => caller(PermissionDenied, "a backend asks for venues of its own member alone"),
        Reason::CategoryNotGranted => caller(PermissionDenied, "this category is not granted to the member's backends"),

        Reason::FieldMissing => caller(InvalidArgument, "a required field is empty"),
        Reason::FieldInvalid => caller(InvalidArgument, "a field is not of its documented form"),
        Reason::PurposeUnknown => caller(InvalidArgument, "not a known purpose"),
        Reason::MemberUnknown => caller(InvalidArgument, "not a member's code"),
        Reason::RequestTooLarge => caller(ResourceExhausted, "the message is too large"),
        Reason::RequestMalformed => caller(InvalidArgument, "the message does not decode"),
        Reason::MethodUnknown => caller(Unimplemented, "no such method"),
        Reason::RequestIdReused => caller(AlreadyExists, "this request id was used for another request"),

        Reason::PrefixUnknown => caller(InvalidArgument, "the text does not start with TX1:"),
        Reason::NotBase45 => caller(InvalidArgument, "not base45"),
        Reason::NotCbor => caller(InvalidArgument, "not CBOR"),
        Reason::TrailingBytes => caller(InvalidArgument, "bytes follow the object"),
        Reason::NotDeterministic => caller(InvalidArgument, "not deterministic CBOR"),
        Reason::ObjectTooLarge => caller(InvalidArgument, "the object is too large"),
        Reason::ObjectMalformed => caller(InvalidArgument, "the object is not of its documented layout"),
        Reason::CriticalHeaderUnknown => caller(InvalidArgument, "the object has an unknown critical header"),
        Reason::TypeMismatch => caller(InvalidArgument, "the object is of another type"),
        Reason::AlgorithmNotAllowed => caller(InvalidArgument, "the algorithm is not one the federation uses"),

        Reason::KeyUnknown => caller(Unauthenticated, "the trust list has no such key"),
        Reason::AlgorithmMismatch => caller(Unauthenticated, "the key has another algorithm"),
        Reason::SignatureInvalid => caller(Unauthenticated, "the signature does not verify"),

        Reason::Expired => caller(FailedPrecondition, "expired"),
        Reason::NotYetValid => caller(FailedPrecondition, "not yet valid"),
        Reason::LifeTooLong => caller(FailedPrecondition, "the object claims too long a life"),
        Reason::DeviceClockOff => caller(FailedPrecondition, "the device's clock is off"),

        Reason::AudienceMismatch => caller(PermissionDenied, "the consent is for another audience"),
        Reason::PurposeNotConsented => caller(PermissionDenied, "the traveler did not consent to this purpose"),
        Reason::PurposeNotAdmitted => caller(PermissionDenied, "policy does not admit this purpose here"),
        Reason::ProofMissing => caller(PermissionDenied, "this kind of consent needs a proof"),
        Reason::ProofUnexpected => caller(PermissionDenied, "this kind of consent has no proof"),
        Reason::ProofOfOtherVenue => caller(PermissionDenied, "the proof is for another venue"),
        Reason::AlreadyRedeemed => caller(PermissionDenied, "the presentation was redeemed before"),
        Reason::VenueBindingRequired => caller(PermissionDenied, "only proofs bound to a venue are taken here"),
        Reason::ConsentRevoked => caller(PermissionDenied, "the consent was revoked"),
        Reason::ScopeNotGranted => caller(PermissionDenied, "the scope is more than was granted"),

        Reason::Overloaded => wait(ResourceExhausted, "too much at once", Gateway),
        Reason::DeadlineExceeded => {
            Traits { code: DeadlineExceeded, message: "the deadline passed", blame: Gateway, retry: false }
        }
        Reason::RecordUnavailable => wait(Unavailable, "the access record cannot be written", Gateway),
        Reason::TrustExpired => wait(Unavailable, "the trust list has expired", Gateway),
        Reason::StoreUnavailable => wait(Unavailable, "the node's store does not answer", Home),
        Reason::Internal | Reason::Unspecified => {
            Traits { code: Internal, message: "internal error", blame: Gateway, retry: false }
        }

        Reason::PersonUnknown => caller(NotFound, "no such person"),
        Reason::DeviceUnknown => caller(NotFound, "no such device"),
        Reason::TooManyConsents => caller(ResourceExhausted, "the traveler has too many live consents"),
        Reason::TooManyDevices => caller(ResourceExhausted, "the traveler has too many devices"),
        Reason::LabelUnknown => caller(InvalidArgument, "the policy has no such label for this member"),
        Reason::ConsentUnknown => caller(NotFound, "no such consent"),
        Reason::RecordUnknown => caller(NotFound, "no such record on this replica's logs"),
        Reason::PlatformNotAdmitted => caller(PermissionDenied, "this backend may not push codes"),

        Reason::EvidenceNotAdmitted => caller(PermissionDenied, "this feed may not bring such evidence"),
        Reason::AuthorityNotAdmitted => caller(PermissionDenied, "policy does not let this authority invoke the rule"),
        Reason::EvidenceTooOld => caller(FailedPrecondition, "older than evidence is kept"),
        Reason::RevisionSuperseded => caller(FailedPrecondition, "a later revision is on file"),
        Reason::RevisionConflict => caller(AlreadyExists, "this revision is on file with another content"),
        Reason::AreaNotListed => caller(FailedPrecondition, "the area was not listed at any time of the stay"),
        Reason::TooMuchEvidence => caller(ResourceExhausted, "as much evidence as may be is on file about this person"),
        Reason::AssignmentOutdated => {
            caller(FailedPrecondition, "the platform has said something of this person that is of a later time")
        }

        Reason::ThresholdNotMet => caller(FailedPrecondition, "too few root keys signed"),
        Reason::VersionRolledBack => caller(FailedPrecondition, "older than the version already held"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_the_reason_and_who_can_mend_it() {
        let refusal = Refusal::of(Object::Token, Reason::Expired).with("seconds", 61);
        let status = refusal.to_status();
        assert_eq!(status.code(), Code::FailedPrecondition);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("EXPIRED", DOMAIN));
        assert_eq!(info.metadata["object"], "token");
        assert_eq!(info.metadata["seconds"], "61");
        assert_eq!(info.metadata["source"], "caller");
        assert_eq!(Refusal::reason_of(&status), Some(Reason::Expired));
        let message = refusal.to_rpc_status();
        assert_eq!((message.code, message.message.as_str()), (status.code() as i32, status.message()));
        assert_eq!(message.details.len(), 1);
    }

    #[test]
    fn fields_and_retries_have_their_own_details() {
        let status = Refusal::missing("token").to_status();
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "token");
        assert!(Refusal::new(Reason::Overloaded).to_status().get_details_retry_info().is_some());
        assert!(status.get_details_retry_info().is_none());
    }

    #[test]
    fn a_trace_is_added_to_what_a_status_says() {
        let status = Refusal::missing("token").to_status();
        let with_trace = traced(&status, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((with_trace.code(), with_trace.message()), (status.code(), status.message()));
        assert_eq!(with_trace.get_details_bad_request().unwrap().field_violations.len(), 1);
        let info = with_trace.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("FIELD_MISSING", DOMAIN));
        assert_eq!(info.metadata["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(info.metadata["source"], "caller");
        assert!(traced(&Status::internal("bare"), "1").details().is_empty());
    }

    #[test]
    fn of_homes_words_only_numbers_and_known_words_go_on() {
        let refusal = Refusal::of(Object::Proof, Reason::Expired).with("seconds", 61).with("name", "somebody");
        let relayed = Refusal::from_home(&refusal.to_status()).unwrap();
        assert_eq!((relayed.reason(), relayed.blame()), (Reason::Expired, Blame::Home));
        assert_eq!((relayed.metadata("object"), relayed.metadata("seconds")), (Some("proof"), Some("61")));
        assert_eq!(relayed.metadata("name"), None);
        let lie = Refusal::new(Reason::Expired).with("seconds", "a name").with("object", "a person");
        let relayed = Refusal::from_home(&lie.to_status()).unwrap();
        assert_eq!((relayed.metadata("object"), relayed.metadata("seconds")), (None, None));
    }

    #[test]
    fn a_status_of_another_domain_has_no_reason() {
        assert_eq!(Refusal::reason_of(&Status::internal("boom")), None);
        let foreign = Status::with_error_details(
            Code::Internal,
            "x",
            ErrorDetails::with_error_info("EXPIRED", "elsewhere", std::collections::HashMap::new()),
        );
        assert_eq!(Refusal::reason_of(&foreign), None);
    }
}
