//! What CDDL cannot say: these vectors are malformed, and their layout is right. `tests/cddl.py` holds the list to the
//! layouts with a validator of its own: it takes these, and refuses every other malformed one.

use std::collections::BTreeSet;

use crate::json::File;

const BEYOND: [&str; 58] = [
    "access-record/venue-at-a-castle",
    "access-record/venue-of-nobody",
    "access-record/venue-with-a-long-number",
    "access-receipt/of-an-unknown-entry",
    "access-receipt/of-a-refusal",
    "delivery-receipt/of-another-member",
    "consent-token/aud-long-number",
    "consent-token/cnf-off-the-curve",
    "consent-token/purposes-descending",
    "consent-token/purposes-twice",
    "consent-token/scope-without-level",
    "consent-token/exp-is-iat",
    "policy/exp-is-iat",
    "policy/not-toml",
    "policy/key-unknown",
    "policy/key-missing",
    "policy/proof-of-61s",
    "policy/life-without-unit",
    "policy/offline-of-11m",
    "policy/seventeen-consents",
    "policy/grant-at-a-castle",
    "policy/grant-without-level",
    "policy/label-purple",
    "policy/labels-of-99",
    "policy/labels-without-default",
    "policy/rule-for-green",
    "policy/rule-by-nobody",
    "policy/yellow-passes",
    "policy/access-log-key-unknown",
    "policy/gateway-retention-of-31d",
    "policy/home-retention-of-23h",
    "policy/home-retention-of-3661d",
    "policy/visibility-delay-of-31d",
    "proof/exp-is-iat",
    "statement/exp-before-iat",
    "statement/offline-before-iat",
    "statement/offline-after-exp",
    "statement/offline-too-far",
    "statement/in-another-name",
    "statement/of-another-token",
    "statement/discloses-assigned-at",
    "statement/discloses-tests",
    "statement/discloses-doses",
    "statement/discloses-visits",
    "statement/discloses-a-hint",
    "statement/binding-before-time",
    "trust-list/exp-is-iat",
    "trust-list/threshold-4",
    "trust-list/roots-twice",
    "trust-list/log-key-is-a-root",
    "trust-list/member-twice",
    "trust-list/endpoint-port-65536",
    "trust-list/key-with-two-uses",
    "trust-list/key-of-two-members",
    "trust-list/key-twice",
    "trust-list/categories-descending",
    "trust-list/suspension-without-end",
    "trust-list/suspension-too-long",
];

/// Marks them.
pub(crate) fn mark(files: &mut [File]) {
    let mut unseen = BTreeSet::from(BEYOND);
    for vector in files.iter_mut().flat_map(|file| &mut file.vectors) {
        vector.beyond_layout = unseen.remove(vector.id.as_str());
    }
    assert!(unseen.is_empty(), "no vectors are {unseen:?}");
}
