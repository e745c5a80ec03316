//! Every documented reason has a test, and a new one without a test fails here.

use std::{collections::BTreeSet, fs, path::Path};

use proto::{
    contract::recognition::Source,
    refusal::{Reason, reason_name},
};

/// How a reason is tested.
#[derive(Clone, Copy, Debug)]
enum Tested {
    /// Provoked here over the wire, in this module.
    Here(&'static str),
    /// Provoked by a test beside the code, in this file of the workspace.
    Beside(&'static str),
    /// No test can provoke it, and why.
    Never(&'static str),
}

use Reason as R;
use Tested::{Beside, Here, Never};

const TESTED: &[(Reason, Tested)] = &[
    (R::Unspecified, Never("it is never sent: the zero of an enum")),
    (R::RoleNotAllowed, Here("requests")),
    (R::MemberNotAllowed, Here("identity")),
    (R::VenueNotYours, Here("requests")),
    (R::VenueOfOtherMember, Here("requests")),
    (R::CategoryNotGranted, Here("requests")),
    (R::FieldMissing, Here("requests")),
    (R::FieldInvalid, Here("requests")),
    (R::PurposeUnknown, Here("requests")),
    (R::MemberUnknown, Here("requests")),
    (R::RequestTooLarge, Here("requests")),
    (R::RequestMalformed, Here("requests")),
    (R::MethodUnknown, Here("requests")),
    (R::RequestIdReused, Here("assignment")),
    (R::PrefixUnknown, Here("requests")),
    (R::NotBase45, Here("requests")),
    (R::NotCbor, Here("refusals")),
    (R::TrailingBytes, Here("refusals")),
    (R::NotDeterministic, Here("refusals")),
    (R::ObjectTooLarge, Here("refusals")),
    (R::ObjectMalformed, Here("refusals")),
    (R::CriticalHeaderUnknown, Here("refusals")),
    (R::TypeMismatch, Here("refusals")),
    (R::AlgorithmNotAllowed, Here("refusals")),
    (R::KeyUnknown, Here("refusals")),
    (R::AlgorithmMismatch, Here("refusals")),
    (R::SignatureInvalid, Here("refusals")),
    (R::Expired, Here("refusals")),
    (R::NotYetValid, Here("refusals")),
    (R::LifeTooLong, Here("refusals")),
    (R::DeviceClockOff, Here("refusals")),
    (R::AudienceMismatch, Here("uses")),
    (R::PurposeNotConsented, Here("uses")),
    (R::PurposeNotAdmitted, Here("uses")),
    (R::ProofMissing, Here("uses")),
    (R::ProofUnexpected, Here("uses")),
    (R::ProofOfOtherVenue, Here("uses")),
    (R::AlreadyRedeemed, Here("uses")),
    (R::VenueBindingRequired, Here("service")),
    (R::ConsentRevoked, Here("uses")),
    (R::ScopeNotGranted, Here("uses")),
    (R::Overloaded, Here("service")),
    (R::DeadlineExceeded, Here("service")),
    (R::RecordUnavailable, Here("service")),
    (R::TrustExpired, Here("service")),
    // A store that is closed under a running node: at the gateway this is HOME_UNREACHABLE.
    (R::StoreUnavailable, Beside("province-stub/src/enrollment.rs")),
    (R::Internal, Never("a defect; whoever knows how to provoke one mends it")),
    (R::PersonUnknown, Here("assignment")),
    (R::DeviceUnknown, Here("consents")),
    (R::TooManyConsents, Here("assignment")),
    (R::TooManyDevices, Here("assignment")),
    (R::LabelUnknown, Here("assignment")),
    (R::ConsentUnknown, Here("federation")),
    (R::RecordUnknown, Here("access")),
    (R::PlatformNotAdmitted, Here("evidence/refusals")),
    (R::EvidenceNotAdmitted, Here("evidence/refusals")),
    (R::AuthorityNotAdmitted, Here("evidence/refusals")),
    (R::EvidenceTooOld, Here("evidence/refusals")),
    (R::RevisionSuperseded, Here("evidence/refusals")),
    (R::RevisionConflict, Here("evidence/refusals")),
    (R::AreaNotListed, Here("evidence/refusals")),
    (R::TooMuchEvidence, Here("evidence/refusals")),
    (R::AssignmentOutdated, Here("evidence/refusals")),
    (R::ThresholdNotMet, Here("renewal")),
    (R::VersionRolledBack, Here("renewal")),
];

/// All reasons there are. Their numbers stay below 100.
fn all() -> impl Iterator<Item = Reason> {
    (0..100).filter_map(|number| Reason::try_from(number).ok())
}

#[test]
fn every_reason_has_its_test() {
    let listed: BTreeSet<_> = TESTED.iter().map(|(reason, _)| *reason as i32).collect();
    assert_eq!(listed.len(), TESTED.len(), "a reason is listed twice");
    let missing: Vec<_> = all().filter(|reason| !listed.contains(&(*reason as i32))).collect();
    assert!(missing.is_empty(), "no test provokes these: {missing:?}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (reason, tested) in TESTED {
        let name = format!("{reason:?}");
        let file = match tested {
            Here(module) => format!("tests/integration/{module}.rs"),
            Beside(file) => (*file).to_owned(),
            Never(why) => {
                assert!(!why.is_empty(), "{name}: why can nothing provoke it?");
                continue;
            }
        };
        let text = fs::read_to_string(root.join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("Reason::{name}")), "{file} does not speak of {name}");
    }
}

#[test]
fn the_proto_file_documents_what_a_caller_gets() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("proto/tongxing/error/v1/error_reason.proto")).unwrap();
    for reason in all().filter(|reason| *reason != Reason::Unspecified) {
        let name = reason.as_str_name();
        let documented = text.lines().zip(text.lines().skip(1)).any(|(comment, line)| {
            line.trim_start().starts_with(&format!("{name} =")) && comment.trim_start().starts_with("//")
        });
        assert!(documented, "{name} has no comment of its own");
    }
}

/// What a gate shows for each reason, and what becomes of each source of an answer, is written down: a new one needs its
/// line.
#[test]
fn the_venues_page_speaks_of_every_reason_and_every_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("deploy/VENUES.md")).unwrap();
    let named: BTreeSet<&str> = text.split('`').collect();
    for reason in all().filter(|reason| *reason != Reason::Unspecified) {
        let name = reason_name(reason);
        assert!(named.contains(name), "deploy/VENUES.md does not say what to show for {name}");
    }
    for source in (1..100).filter_map(|number| Source::try_from(number).ok()) {
        let name = source.as_str_name();
        assert!(named.contains(name), "deploy/VENUES.md does not say what {name} is");
    }
    for freshness in ["at_least_as_fresh", "from_home"] {
        assert!(named.contains(freshness), "deploy/VENUES.md does not say when to ask for {freshness}");
    }
}
