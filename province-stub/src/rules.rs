//! Works codes out of evidence (赋码) by the national policy's rules: which rule, which evidence, until when.
//!
//! Upholds I8 (rules, levels and who may invoke them are the policy's; what they are called is the member's own table) and I5: whom
//! a rule concerns is never green because the member has no label for what it says. It is a pure function of a file and the time,
//! so that red becomes green by the same way, and as fast, as green becomes red: by being worked out again, when evidence comes,
//! is corrected or withdrawn, and at the instant that each assessment names itself.
//!
//! Time is in whole seconds without leeway: whatever holds from one instant to another holds at the first and not at the other any
//! more. What is dated ahead counts from its own time on.

use std::cmp::Ordering;

use proto::{
    member::Member,
    policy::{AssignmentRule, EvidenceClass, EvidenceKind, Meaning, Phase, Policy},
    terms::Level,
    time::UnixTime,
};

use crate::{
    assessment::{Assess, Assessment, Assigned, Base, Dossier, Outcome},
    evidence::{Evidence, Fact, Risk},
};

/// The rules of a policy, in one member's words.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'p> {
    member: Member,
    policy: &'p Policy,
}

/// How strict an assignment is. What has no level, and no code at all, is stricter than a green and milder than any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Strictness {
    Green,
    Unclear,
    Yellow,
    Red,
}

/// What one rule makes of one piece of evidence now.
#[derive(Clone, Copy, Debug, Default)]
struct Standing<'p> {
    /// The phase that holds, and when it ends.
    phase: Option<(&'p Phase, Option<UnixTime>)>,
    /// When time alone may change this, after now.
    changes_at: Option<UnixTime>,
}

/// An assignment that holds now.
#[derive(Clone, Copy, Debug)]
struct Claim<'a> {
    strictness: Strictness,
    /// `None`: the member has no label for it.
    label: Option<&'a str>,
    rule: &'a str,
    evidence: &'a Evidence,
    ends_at: Option<UnixTime>,
}

impl<'p> Rules<'p> {
    /// The rules of this policy, for this member's node.
    pub const fn new(member: Member, policy: &'p Policy) -> Self {
        Self { member, policy }
    }
}

impl Assess for Rules<'_> {
    fn assess(&self, dossier: &Dossier, now: UnixTime) -> Assessment {
        let tests = self.negative_tests(dossier);
        // A base has been made in the knowledge of what was there: only what came after it is weighed against it.
        let is_new = |evidence: &&Evidence| dossier.base.as_ref().is_none_or(|base| evidence.id > base.covers);
        let mut strictest: Option<Claim<'_>> = None;
        let mut due_at = None;
        for (id, rule) in self.policy.assignments() {
            for evidence in dossier.evidence.iter().filter(is_new).filter(|e| self.invokes(e, id, rule)) {
                let standing = follow(rule, &evidence.fact, &tests, now);
                due_at = earliest([due_at, standing.changes_at]);
                let claim = standing.phase.map(|phase| self.claim(id, evidence, phase));
                strictest = strictest.into_iter().chain(claim).max_by(Claim::compare);
            }
        }
        Assessment { outcome: self.outcome(dossier, strictest), due_at }
    }
}

impl Rules<'_> {
    /// When negative tests were sampled that count at all, in order. They count whenever they came.
    fn negative_tests(&self, dossier: &Dossier) -> Vec<UnixTime> {
        let admitted = |evidence: &&Evidence| {
            let authority = evidence.authority.as_ref();
            authority.is_some_and(|by| self.policy.admits_authority_for(EvidenceKind::Test, self.member, by))
        };
        let negative = |evidence: &Evidence| match evidence.fact {
            Fact::Test { sampled_at, positive: false } => Some(sampled_at),
            _ => None,
        };
        let mut tests: Vec<_> = dossier.evidence.iter().filter(admitted).filter_map(negative).collect();
        tests.sort_unstable();
        tests
    }

    /// Whether this evidence invokes this rule: by its class and its authority. What was seeded has none.
    fn invokes(&self, evidence: &Evidence, id: &str, rule: &AssignmentRule) -> bool {
        let authority = evidence.authority.as_ref();
        class(evidence) == Some(rule.evidence)
            && authority.is_some_and(|by| self.policy.may_invoke(id, by, self.member))
    }

    fn claim<'a>(
        &'a self,
        rule: &'a str,
        evidence: &'a Evidence,
        (phase, ends_at): (&'a Phase, Option<UnixTime>),
    ) -> Claim<'a> {
        let label = |meaning: &Meaning| self.policy.label_for(self.member, *meaning).map(|label| (*meaning, label));
        let found = phase.meanings.iter().find_map(label);
        let (meaning, label) = found.unzip();
        Claim { strictness: strictness(meaning), label, rule, evidence, ends_at }
    }

    /// The stricter of base and claim: no green set by hand hides what comes later, and no test clears a red set by hand.
    fn outcome(&self, dossier: &Dossier, claim: Option<Claim<'_>>) -> Outcome {
        let base = dossier.base.as_ref();
        let claim = claim.filter(|claim| base.is_none_or(|base| claim.strictness > self.strictness_of(base)));
        match (claim, base) {
            (Some(claim), _) => claim.outcome(),
            (None, Some(_)) => Outcome::Base,
            (None, None) => self.nothing_follows(dossier),
        }
    }

    /// Of whom nothing is on file the member knows nothing, and does not say green.
    fn nothing_follows(&self, dossier: &Dossier) -> Outcome {
        match self.policy.label_for(self.member, Meaning::Level(Level::Green)) {
            // What was seeded came in nobody's name.
            Some(label) if dossier.evidence.iter().any(|evidence| evidence.authority.is_some()) => {
                let label = label.to_owned();
                Outcome::Assigned(Assigned { label, rule: None, authority: None, evidence: None, ends_at: None })
            }
            _ => Outcome::NoCode,
        }
    }

    /// By its label alone: whether its rule and authority are admitted is for the gateway to judge.
    fn strictness_of(&self, base: &Base) -> Strictness {
        strictness(self.policy.meaning(self.member, &base.label))
    }
}

impl Claim<'_> {
    /// The greatest counts: the strictest, and of those the one that ends last. Rule and evidence decide what is alike otherwise, so
    /// that the explanation does not depend on the order in which evidence is read.
    fn compare(&self, other: &Self) -> Ordering {
        let lasts = |claim: &Self| (claim.ends_at.is_none(), claim.ends_at);
        let strictest = self.strictness.cmp(&other.strictness);
        let last = lasts(self).cmp(&lasts(other));
        strictest.then(last).then(other.rule.cmp(self.rule)).then(other.evidence.id.cmp(&self.evidence.id))
    }

    fn outcome(&self) -> Outcome {
        match self.label {
            Some(label) => Outcome::Assigned(Assigned {
                label: label.to_owned(),
                rule: Some(self.rule.to_owned()),
                authority: self.evidence.authority.clone(),
                evidence: Some(self.evidence.id),
                ends_at: self.ends_at,
            }),
            None => Outcome::NoCode,
        }
    }
}

const fn strictness(meaning: Option<Meaning>) -> Strictness {
    match meaning {
        Some(Meaning::Level(Level::Red)) => Strictness::Red,
        Some(Meaning::Level(Level::Yellow)) => Strictness::Yellow,
        Some(Meaning::Level(Level::Green)) => Strictness::Green,
        Some(Meaning::Undetermined) | None => Strictness::Unclear,
    }
}

/// The class that rules are about; `None` if none is.
const fn class(evidence: &Evidence) -> Option<EvidenceClass> {
    match (&evidence.fact, evidence.risk) {
        (Fact::Case { .. }, _) => Some(EvidenceClass::Case),
        (Fact::Contact { .. }, _) => Some(EvidenceClass::Contact),
        (Fact::Test { positive: true, .. }, _) => Some(EvidenceClass::PositiveTest),
        (Fact::Stay { .. }, Some(Risk::High)) => Some(EvidenceClass::HighRiskStay),
        (Fact::Stay { .. }, Some(Risk::Medium)) => Some(EvidenceClass::MediumRiskStay),
        (Fact::Stay { .. }, Some(Risk::Low)) => Some(EvidenceClass::LowRiskStay),
        (Fact::Stay { .. }, None) | (Fact::Test { positive: false, .. } | Fact::Dose { .. }, _) => None,
    }
}

/// What a rule makes of a fact now. `tests` are the negative ones, in order: the latest that has been sampled by now decides whether
/// any lifts or waives, and the next one that has not yet may change it.
fn follow<'p>(rule: &'p AssignmentRule, fact: &Fact, tests: &[UnixTime], now: UnixTime) -> Standing<'p> {
    let (begins_at, end) = fact.span();
    if now < begins_at {
        return Standing { phase: None, changes_at: Some(begins_at) };
    }
    // Only a case may go on without an end; tests and contacts are over at once.
    let clock = if matches!(fact, Fact::Case { .. }) { end } else { Some(end.unwrap_or(begins_at)) };
    let Some((phase, ends_at)) = phase_at(&rule.phases, clock, now) else { return Standing::default() };
    let (past, ahead) = tests.split_at(tests.partition_point(|test| *test <= now));
    let latest = past.last().copied();
    if rule.lifted_by_negative_test && latest.is_some_and(|test| test > begins_at) {
        return Standing::default();
    }
    let waiver = rule.waived_by_negative_test_within.zip(latest.filter(|test| *test >= begins_at));
    let waived_until = waiver.map(|(age, test)| test.plus(age)).filter(|until| now < *until);
    let eased = rule.lifted_by_negative_test || rule.waived_by_negative_test_within.is_some();
    let next_test = ahead.first().copied().filter(|_| eased);
    Standing {
        phase: waived_until.is_none().then_some((phase, ends_at)),
        changes_at: earliest([ends_at, waived_until, next_test]),
    }
}

/// The phase that holds at `now`, and its end; none after the last one. Without a `clock` the first one goes on.
fn phase_at(phases: &[Phase], clock: Option<UnixTime>, now: UnixTime) -> Option<(&Phase, Option<UnixTime>)> {
    let Some(mut end) = clock else { return phases.first().map(|phase| (phase, None)) };
    for phase in phases {
        end = end.plus(phase.lasts);
        if now < end {
            return Some((phase, Some(end)));
        }
    }
    None
}

fn earliest<const N: usize>(instants: [Option<UnixTime>; N]) -> Option<UnixTime> {
    instants.into_iter().flatten().min()
}

#[cfg(test)]
mod tests;
