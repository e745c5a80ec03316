//! Every reason that reading, verifying or using a signed object can end with has a vector.

use std::{collections::BTreeSet, fs, path::Path};

use proto::refusal::{Reason, reason_name};

use crate::json::{self, File};

/// The sources that read, verify and judge objects. What they name, the vectors have.
const SOURCES: [&str; 16] = [
    "cbor.rs",
    "consent.rs",
    "consent_request.rs",
    "cose.rs",
    "envelope.rs",
    "hint.rs",
    "log/checkpoint.rs",
    "log/commit.rs",
    "log/delivery.rs",
    "log/record.rs",
    "policy.rs",
    "presentation.rs",
    "proof.rs",
    "statement.rs",
    "token.rs",
    "trust.rs",
];

/// The verdicts of all vectors.
pub(crate) fn told(files: &[File]) -> BTreeSet<&str> {
    files.iter().flat_map(|file| &file.vectors).map(|vector| vector.verdict.as_str()).collect()
}

#[test]
fn every_reason_of_the_sources_has_a_vector() {
    let files = json::all();
    let told = told(&files);
    let mut named = BTreeSet::new();
    for source in SOURCES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(source);
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let after = code.split("Reason::").skip(1);
        named.extend(after.map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned()));
        // `Refusal::malformed` names its reason in refusal.rs.
        assert!(
            !code.contains("Refusal::field(") && !code.contains("Refusal::missing("),
            "{source} speaks of a request"
        );
    }
    named.insert(format!("{:?}", Reason::ObjectMalformed));
    let reasons = (0..100).filter_map(|number| Reason::try_from(number).ok());
    let reachable: BTreeSet<_> =
        reasons.filter(|reason| named.contains(&format!("{reason:?}"))).map(reason_name).collect();
    assert_eq!(reachable.len(), named.len(), "{named:?} are not all reasons");
    let missing: Vec<_> = reachable.difference(&told).collect();
    assert!(missing.is_empty(), "no vector ends with {missing:?}");
    let no_reasons = [json::VALID, json::HINT_DOES_NOT_OPEN, json::NOT_PROVEN];
    let foreign: Vec<_> = told.difference(&reachable).filter(|verdict| !no_reasons.contains(verdict)).collect();
    assert!(foreign.is_empty(), "no source ends with {foreign:?}");
}
