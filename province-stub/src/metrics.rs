//! The node's own metrics: `node_<noun>_total`. Labels are outcomes and reasons, never a person, a handle or a token (I6).

use std::collections::BTreeMap;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use proto::refusal::{Refusal, reason_name};

use crate::{
    accesses::Taken,
    intake,
    lookup::Answer,
    push,
    store::filing::{Assignment, Filed},
};

/// What a node counts.
#[derive(Clone, Debug)]
pub(crate) struct NodeMetrics {
    lookups: Counter<u64>,
    consents: Counter<u64>,
    revocations: Counter<u64>,
    changes: Counter<u64>,
    deletions: Counter<u64>,
    accesses: Counter<u64>,
    access_missing: Counter<u64>,
    access_conflicts: Counter<u64>,
    evidence: Counter<u64>,
    pushed: Counter<u64>,
    looks: Counter<u64>,
}

impl NodeMetrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |name, what| meter.u64_counter(name).with_description(what).build();
        Self {
            lookups: counter("node_lookups", "Lookups, by outcome: what was answered, or the reason of a refusal."),
            consents: counter("node_consents", "Consent tokens given to phones."),
            revocations: counter("node_revocations", "Consents revoked by their travelers."),
            changes: counter("node_changes", "Change events made by assignments."),
            deletions: counter("node_deletions", "Travelers forgotten."),
            accesses: counter(
                "node_accesses",
                "Access records stored, by whose they are: a traveler's (matched), of no known consent (unmatched), or \
                 nobody can tell (unreadable). With time=\"ahead\" those that say they are of a time that was yet to come.",
            ),
            access_missing: counter(
                "node_access_missing",
                "Access records that never came and that the gateway no longer has.",
            ),
            access_conflicts: counter("node_access_conflicts", "Deliveries of access logs that tell two stories."),
            evidence: counter("node_evidence", "Records of evidence brought, by verdict, or the reason of a refusal."),
            pushed: counter("node_pushed_codes", "Codes pushed by platforms, by verdict, or the reason of a refusal."),
            looks: counter("node_operator_looks", "Codes explained to operators."),
        }
    }

    pub(crate) fn looked_up(&self, answer: &Result<Answer, Refusal>) {
        self.lookups.add(1, &[KeyValue::new("outcome", outcome_word(answer))]);
    }

    pub(crate) fn issued(&self) {
        self.consents.add(1, &[]);
    }

    pub(crate) fn revoked(&self) {
        self.revocations.add(1, &[]);
    }

    pub(crate) fn deleted(&self) {
        self.deletions.add(1, &[]);
    }

    pub(crate) fn took_in(&self, taken: &Taken) {
        let Taken::Receipt { stored, unmatched, unreadable, ahead, unmatched_ahead, missing, .. } = *taken else {
            return self.access_conflicts.add(1, &[]);
        };
        let counts = [
            ("matched", stored - unmatched, ahead - unmatched_ahead),
            ("unmatched", unmatched - unreadable, unmatched_ahead),
            ("unreadable", unreadable, 0),
        ];
        for (whose, count, ahead) in counts {
            let whose = KeyValue::new("whose", whose);
            self.accesses.add(u64::from(count - ahead), std::slice::from_ref(&whose));
            if ahead > 0 {
                self.accesses.add(u64::from(ahead), &[whose, KeyValue::new("time", "ahead")]);
            }
        }
        self.access_missing.add(missing, &[]);
    }

    pub(crate) fn filed(&self, answered: &intake::Answered) {
        let words = answered.verdicts.iter().map(|verdict| match verdict {
            Ok(Filed::Accepted) => "accepted",
            Ok(Filed::Unchanged) => "unchanged",
            Ok(Filed::Corrected) => "corrected",
            Ok(Filed::Withdrawn) => "withdrawn",
            Ok(Filed::Refused(_)) => "refused",
            Err(refusal) => reason_name(refusal.reason()),
        });
        count(&self.evidence, words);
        self.changed(answered.effect.changed);
    }

    pub(crate) fn pushed(&self, answered: &push::Answered) {
        let words = answered.verdicts.iter().map(|verdict| match verdict {
            Ok(Assignment::Assigned) => "assigned",
            Ok(Assignment::Unchanged) => "unchanged",
            Ok(Assignment::Withdrawn) => "withdrawn",
            Ok(Assignment::Outdated) => "outdated",
            Err(refusal) => reason_name(refusal.reason()),
        });
        count(&self.pushed, words);
        self.changed(answered.effect.changed);
    }

    pub(crate) fn looked_at(&self) {
        self.looks.add(1, &[]);
    }

    pub(crate) fn changed(&self, events: u32) {
        self.changes.add(u64::from(events), &[]);
    }
}

/// Adds to a counter once for each verdict there is in a batch.
fn count(counter: &Counter<u64>, verdicts: impl Iterator<Item = &'static str>) {
    let mut counts = BTreeMap::new();
    verdicts.for_each(|verdict| *counts.entry(verdict).or_insert(0) += 1);
    counts.into_iter().for_each(|(verdict, count)| counter.add(count, &[KeyValue::new("verdict", verdict)]));
}

/// The outcome of a lookup in metrics and traces.
pub(crate) fn outcome_word(answer: &Result<Answer, Refusal>) -> &'static str {
    match answer {
        Ok(Answer::Statement(_)) => "statement",
        Ok(Answer::UnknownTraveler(_)) => "unknown_traveler",
        Err(refusal) => reason_name(refusal.reason()),
    }
}
